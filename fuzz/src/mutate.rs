//! Damage: what a random generator does to a file.

/// xorshift64*: a stream of numbers from a seed, so that a run can be repeated.
pub struct Random(u64);

impl Random {
    /// A stream.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `n`, 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.number()).unwrap_or(0) % n.max(1)
    }
}

/// Numbers at which readers go wrong.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX >> 1, u64::MAX];
/// Words at which they do.
const WORDS: [&str; 14] = [
    "null",
    "true",
    "-1",
    "1e400",
    "18446744073709551616",
    "[]",
    "{}",
    "\"\"",
    "0.5",
    "NaN",
    "..",
    "\\u0000",
    "2",
    "relu",
];

/// `input` with one to eight changes; `other` is what parts are borrowed from.
#[must_use]
pub fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..1 + random.below(8) {
        let at = position(&out, random);
        match random.below(10) {
            0 => change(&mut out, at, |b| b ^ 1 << (at & 7)),
            1 => {
                let byte = u8::try_from(random.below(256)).unwrap_or(0);
                change(&mut out, at, |_| byte);
            }
            2 => {
                let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                let width = 1 << random.below(4);
                overwrite(&mut out, at, &edge[..width]);
            }
            3 => {
                let end = (at + 1 + random.below(16)).min(out.len());
                out.drain(at.min(end)..end);
            }
            4 => {
                let end = (at + 1 + random.below(64)).min(out.len());
                let part = out[at.min(end)..end].to_vec();
                insert(&mut out, at, &part);
            }
            5 => {
                let from = random.below(other.len());
                let end = (from + 1 + random.below(64)).min(other.len());
                insert(&mut out, at, &other[from.min(end)..end]);
            }
            6 => insert(&mut out, at, WORDS[random.below(WORDS.len())].as_bytes()),
            7 => word(&mut out, at, WORDS[random.below(WORDS.len())].as_bytes()),
            8 => change(&mut out, at, |b| if b.is_ascii_digit() { b'0' + (b + 1) % 10 } else { b.wrapping_add(1) }),
            _ if random.below(8) == 0 => out.truncate(at),
            _ => {
                let to = position(&out, random);
                if at < out.len() && to < out.len() {
                    out.swap(at, to);
                }
            }
        }
    }
    out
}

/// A place: mostly among the first bytes, where lengths, headers and settings are, or the last.
fn position(bytes: &[u8], random: &mut Random) -> usize {
    let near = bytes.len().min(512);
    match random.below(4) {
        0 => random.below(near),
        1 => bytes.len() - random.below(near + 1),
        _ => random.below(bytes.len()),
    }
    .min(bytes.len())
}

fn change(bytes: &mut [u8], at: usize, f: impl Fn(u8) -> u8) {
    if let Some(b) = bytes.get_mut(at) {
        *b = f(*b);
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes.iter_mut().skip(at).zip(with).for_each(|(to, from)| *to = *from);
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    let at = at.min(bytes.len());
    bytes.splice(at..at, part.iter().copied());
}

/// Puts another word in place of the run of letters and digits at `at`.
fn word(bytes: &mut Vec<u8>, at: usize, with: &[u8]) {
    let inside = |b: &&u8| b.is_ascii_alphanumeric() || **b == b'.';
    let at = at.min(bytes.len());
    let start = at - bytes[..at].iter().rev().take(64).take_while(inside).count();
    let end = at + bytes[at..].iter().take(64).take_while(inside).count();
    bytes.splice(start..end, with.iter().copied());
}
