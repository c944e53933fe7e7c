//! A tokenizer's table of normalised characters: a double array, as SentencePiece compiles it. The tokenizer's crate follows
//! it without looking whether it leads outside, and leaves its last place out: with XLM-R's own, one character led there.

use kitoken::CharsMap;
use serde::{Deserialize, Serialize};

/// The table as the crate writes it: there is no other way to see it.
#[derive(Serialize, Deserialize)]
struct Table<'a> {
    array: Vec<u32>,
    normalized: &'a [u8],
}

/// Units of an array come in blocks of as many, one for each byte that may come next.
const BLOCK: usize = 256;

/// Makes the last block of a table whole; whether no text can lead outside of it.
pub(crate) fn make_whole(map: &mut CharsMap) -> bool {
    try_make_whole(map).is_some()
}

fn try_make_whole(map: &mut CharsMap) -> Option<()> {
    let written = postcard::to_allocvec(map).ok()?;
    let mut table: Table<'_> = postcard::from_bytes(&written).ok()?;
    let units = table.array.len();
    table.array.resize(units.next_multiple_of(BLOCK), 0);
    table.ends()?;
    // Of a tokenizer.kit it is: reading a table takes longer than walking through it.
    if table.array.len() != units {
        *map = postcard::from_bytes(&postcard::to_allocvec(&table).ok()?).ok()?;
    }
    Some(())
}

/// Whether the crate can read a compiled table, which it takes from `text` in base 64: its first four bytes are the size of
/// the array.
pub(crate) fn has_an_array(text: &str) -> bool {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(u32::from(c - b'A')),
        b'a'..=b'z' => Some(u32::from(c - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(c - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Option<Vec<u32>> = text.bytes().take(6).map(digit).collect();
    let Some(&[a, b, c, d, e, f]) = digits.as_deref() else { return false };
    // 36 bits, of which the first 32 are the number, its lowest byte first.
    let bytes = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d, e << 2 | f >> 4].map(|x| x & 0xff);
    let size = bytes.iter().rev().fold(0, |n, b| n << 8 | b);
    (8..1 << 28).contains(&size) && text.len() as u64 / 4 * 3 >= u64::from(size)
}

impl Table<'_> {
    /// Walks to every place that a text can lead to; none when one is outside.
    fn ends(&self) -> Option<()> {
        let mut seen = vec![false; self.array.len()];
        let mut left = vec![offset(*self.array.first()?)];
        while let Some(node) = left.pop() {
            // Any byte may come next: the places around the node are looked at.
            self.array.get(node | (BLOCK - 1))?;
            if std::mem::replace(seen.get_mut(node)?, true) {
                continue;
            }
            for byte in 1..BLOCK {
                let at = node ^ byte;
                let unit = *self.array.get(at)?;
                if (unit & (1 << 31 | 0xff)) as usize != byte {
                    continue;
                }
                let next = at ^ offset(unit);
                if (unit >> 8) & 1 == 1 {
                    let value = self.array.get(next)? & !(1 << 31);
                    self.normalized.get(..value as usize)?;
                }
                left.push(next);
            }
        }
        Some(())
    }
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & (1 << 9)) >> 6)
}
