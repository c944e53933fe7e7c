//! Numbers as `numpy.random.default_rng` draws them, bit for bit: a seed sequence, PCG64 (O'Neill 2014) and the
//! generator's bounded integers (Lemire 2019), shuffles and choices.

use std::collections::HashSet;

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
/// Populations beyond this are drawn from by a partial shuffle when enough of them is wanted.
const LARGE: u64 = 10_000;

/// `numpy.random.default_rng(seed)`.
#[derive(Debug, Clone)]
pub struct NumpyRandom {
    state: u128,
    increment: u128,
    /// The high half of the last 64 bits, when only the low half was taken.
    half: Option<u32>,
}

impl NumpyRandom {
    /// A generator seeded with `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let [state, start, sequence, order] = seeds(seed);
        let wide = |high: u64, low: u64| (u128::from(high) << 64) | u128::from(low);
        let mut out = Self { state: 0, increment: (wide(sequence, order) << 1) | 1, half: None };
        out.step();
        out.state = out.state.wrapping_add(wide(state, start));
        out.step();
        out
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    /// The next 64 random bits.
    #[allow(clippy::cast_possible_truncation, reason = "halves of the state")]
    pub fn bits64(&mut self) -> u64 {
        self.step();
        ((self.state >> 64) as u64 ^ self.state as u64).rotate_right((self.state >> 122) as u32)
    }

    /// The next 32 random bits: the low half of 64, then the high one.
    #[allow(clippy::cast_possible_truncation, reason = "halves of 64 bits")]
    pub fn bits32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let bits = self.bits64();
        self.half = Some((bits >> 32) as u32);
        bits as u32
    }

    /// A number of 0 to `most`, both included.
    #[allow(clippy::cast_possible_truncation, reason = "the low half of the product is the one that decides")]
    pub fn up_to(&mut self, most: u64) -> u64 {
        if most == 0 {
            return 0;
        }
        match u32::try_from(most) {
            Ok(u32::MAX) => u64::from(self.bits32()),
            Ok(most) => {
                let count = most + 1;
                let threshold = (u32::MAX - most) % count;
                loop {
                    let product = u64::from(self.bits32()) * u64::from(count);
                    if product as u32 >= threshold {
                        return product >> 32;
                    }
                }
            }
            Err(_) if most == u64::MAX => self.bits64(),
            Err(_) => {
                let count = most + 1;
                let threshold = (u64::MAX - most) % count;
                loop {
                    let product = u128::from(self.bits64()) * u128::from(count);
                    if product as u64 >= threshold {
                        return (product >> 64) as u64;
                    }
                }
            }
        }
    }

    /// A number of 0 to `most`, both included, as shuffles of whole arrays draw it: masked and drawn again until it fits.
    fn up_to_masked(&mut self, most: u64) -> u64 {
        if most == 0 {
            return 0;
        }
        let mask = u64::MAX >> most.leading_zeros();
        loop {
            let bits = if most <= u64::from(u32::MAX) { u64::from(self.bits32()) } else { self.bits64() };
            let bits = bits & mask;
            if bits <= most {
                return bits;
            }
        }
    }

    /// `Generator.shuffle(items)` of an array of one dimension.
    #[allow(clippy::cast_possible_truncation, reason = "an index below the length")]
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.up_to_masked(i as u64) as usize;
            items.swap(i, j);
        }
    }

    /// The shuffle inside of [`NumpyRandom::choice`], of the items from `first` on.
    #[allow(clippy::cast_possible_truncation, reason = "an index below the length")]
    fn shuffle_choice(&mut self, items: &mut [u64], first: usize) {
        for i in (first..items.len()).rev() {
            let j = self.up_to(i as u64) as usize;
            items.swap(i, j);
        }
    }

    /// `Generator.choice(population, count, replace=False)`; `None` when there are not that many.
    pub fn choice(&mut self, population: u64, count: usize) -> Option<Vec<u64>> {
        let wanted = u64::try_from(count).ok()?;
        let first = population.checked_sub(wanted)?;
        if population > LARGE && wanted > population / 50 {
            let mut all: Vec<u64> = (0..population).collect();
            let first = usize::try_from(first).ok()?;
            self.shuffle_choice(&mut all, first.max(1));
            return Some(all.split_off(first));
        }
        // Floyd's algorithm (Bentley & Floyd 1987).
        let mut seen = HashSet::with_capacity(count);
        let mut out = Vec::with_capacity(count);
        for last in first..population {
            let drawn = self.up_to(last);
            let taken = if seen.insert(drawn) { drawn } else { last };
            seen.insert(taken);
            out.push(taken);
        }
        self.shuffle_choice(&mut out, 1);
        Some(out)
    }
}

/// `SeedSequence(seed).generate_state(4, uint64)`.
#[allow(clippy::cast_possible_truncation, reason = "halves of the seed")]
fn seeds(seed: u64) -> [u64; 4] {
    let mut constant = 0x43b0_d7e5u32;
    let mut hash = |value: u32| {
        let value = value ^ constant;
        constant = constant.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(constant);
        value ^ (value >> 16)
    };
    // A seed below 2³² is one word, not two; the missing ones count as 0 either way.
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(&mut hash);
    for from in 0..4 {
        for to in (0..4).filter(|to| *to != from) {
            let mixed = hash(pool[from]).wrapping_mul(0x4973_f715);
            let mixed = pool[to].wrapping_mul(0xca01_f9dd).wrapping_sub(mixed);
            pool[to] = mixed ^ (mixed >> 16);
        }
    }
    let mut constant = 0x8b51_f9ddu32;
    let mut word = |i: usize| {
        let value = pool[i % 4] ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(constant);
        u64::from(value ^ (value >> 16))
    };
    [0, 2, 4, 6].map(|i| {
        let low = word(i);
        low | (word(i + 1) << 32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maths::fnv;

    /// The tables are of numpy 2: `python tests/golden/maths.py numpy`.
    #[test]
    fn draws_are_numpys_bit_for_bit() {
        let hash = |v: &[u64]| fnv(v.iter().flat_map(|x| x.to_le_bytes()));
        let mut g = NumpyRandom::new(42);
        assert_eq!([g.bits64(), g.bits64()], [14_276_969_152_011_380_360, 8_095_878_257_575_067_585]);
        assert_eq!(NumpyRandom::new(0).bits64(), 11_749_869_230_777_074_271);
        assert_eq!(NumpyRandom::new((7 << 32) + 5).bits64(), 9_453_768_824_236_600_766);
        let few = g.choice(256, 10).unwrap();
        assert_eq!(few, [174, 133, 212, 187, 21, 23, 106, 50, 194, 247]);
        let mut items: Vec<u64> = (0..5000).collect();
        g.shuffle(&mut items);
        assert_eq!((items[0], hash(&items)), (350, 0x63c3_c785_35cd_5b3d));
        assert_eq!(hash(&g.choice(20_000, 300).unwrap()), 0x9012_3ef8_4c04_f487);
        assert_eq!(hash(&g.choice(20_000, 15_000).unwrap()), 0xdb63_8845_abcf_e059);
        assert_eq!(hash(&g.choice(300, 300).unwrap()), 0xf7e3_f2c2_baad_1bb5);
        assert_eq!(g.bits32(), 4_108_524_232);
        assert_eq!(
            [g.up_to(u64::from(u32::MAX)), g.up_to(1 << 40), g.up_to(u64::MAX)],
            [2_481_689_287, 768_861_006_595, 11_782_573_699_817_969_818]
        );
        assert_eq!(g.bits64(), 150_147_157_615_140_734);
    }

    #[test]
    fn what_cannot_be_chosen_is_refused() {
        let mut g = NumpyRandom::new(1);
        assert!(g.choice(3, 4).is_none());
        assert!(g.choice(0, 0).unwrap().is_empty());
        g.shuffle::<u8>(&mut []);
    }
}
