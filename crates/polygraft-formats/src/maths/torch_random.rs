//! Numbers as torch's CPU generator draws them: MT19937 (Matsumoto & Nishimura 1998) and torch 2.x's transformations.
//!
//! Uniform numbers, permutations and integers are torch's, bit for bit. Normal numbers agree to the last place (5e-7 in
//! three million of them): they pass through logarithms and cosines of a vector library of torch's own.

use half::bf16;
use std::collections::HashMap;

const WORDS: usize = 624;
const SHIFT: usize = 397;
/// Beyond this length torch draws permutations in another way.
const LONGEST_PERMUTATION: u64 = u32::MAX as u64 / 20;

/// `torch.Generator().manual_seed(seed)` on the CPU.
#[derive(Debug, Clone)]
pub struct TorchRandom {
    state: [u32; WORDS],
    next: usize,
    /// Normal numbers come in pairs; short tensors keep the second for the next call.
    spare: Option<f64>,
}

impl TorchRandom {
    /// A generator seeded with `seed`, of which MT19937 takes the low 32 bits.
    #[allow(clippy::cast_possible_truncation, reason = "the low 32 bits are what torch takes, too")]
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = [0u32; WORDS];
        let mut word = seed as u32;
        for (i, slot) in (0u32..).zip(&mut state) {
            if i > 0 {
                word = (word ^ (word >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i);
            }
            *slot = word;
        }
        Self { state, next: WORDS, spare: None }
    }

    fn refill(&mut self) {
        for i in 0..WORDS {
            let high = self.state[i] & 0x8000_0000;
            let y = high | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
            let twist = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + SHIFT) % WORDS] ^ (y >> 1) ^ twist;
        }
        self.next = 0;
    }

    /// The next 32 random bits.
    #[must_use]
    pub fn bits32(&mut self) -> u32 {
        if self.next >= WORDS {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// The next 64 random bits: two words, the first one high.
    #[must_use]
    pub fn bits64(&mut self) -> u64 {
        let high = u64::from(self.bits32());
        (high << 32) | u64::from(self.bits32())
    }

    /// A float of `[0, 1)` with 24 bits.
    #[allow(clippy::cast_precision_loss, reason = "24 bits are exact in f32")]
    fn unit(&mut self) -> f32 {
        (self.bits32() & 0xff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    /// A double of `[0, 1)` with 53 bits.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact in f64")]
    fn unit64(&mut self) -> f64 {
        (self.bits64() & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// `torch.empty(n).uniform_(from, to)`: torch's compilers fuse the product and the sum.
    #[must_use]
    pub fn uniform(&mut self, n: usize, from: f32, to: f32) -> Vec<f32> {
        let width = to - from;
        (0..n).map(|_| self.unit().mul_add(width, from)).collect()
    }

    /// `torch.empty(n, dtype=torch.float64).uniform_(from, to)`.
    #[must_use]
    pub fn uniform64(&mut self, n: usize, from: f64, to: f64) -> Vec<f64> {
        let width = to - from;
        (0..n).map(|_| self.unit64().mul_add(width, from)).collect()
    }

    /// `torch.empty(n, dtype=torch.bfloat16).uniform_(from, to)`, widened: drawn in f32, then rounded, and what rounds up
    /// to `to` becomes `from`.
    #[must_use]
    pub fn uniform_bf16(&mut self, n: usize, from: f32, to: f32) -> Vec<f32> {
        let (width, low, end) = (to - from, bf16::from_f32(from), bf16::from_f32(to));
        let draw = |_| {
            let x = bf16::from_f32(self.unit().mul_add(width, from));
            if x >= end { low.to_f32() } else { x.to_f32() }
        };
        (0..n).map(draw).collect()
    }

    /// `torch.empty(n).normal_(mean, std)`; `randn(n)` is `normal(n, 0.0, 1.0)`.
    #[allow(clippy::cast_possible_truncation, reason = "the numbers are f32 in torch")]
    #[must_use]
    pub fn normal(&mut self, n: usize, mean: f32, std: f32) -> Vec<f32> {
        if n < BLOCK {
            let (mean, std) = (f64::from(mean), f64::from(std));
            return (0..n).map(|_| (self.gaussian() * std + mean) as f32).collect();
        }
        let mut out: Vec<f32> = (0..n).map(|_| self.unit()).collect();
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(|block| box_muller(block, mean, std));
        if !rest.is_empty() {
            // The last sixteen are drawn anew, those among them that were made already included.
            let mut last = [0.0; BLOCK];
            last.iter_mut().for_each(|x| *x = self.unit());
            box_muller(&mut last, mean, std);
            out[n - BLOCK..].copy_from_slice(&last);
        }
        out
    }

    /// One normal number of the scalar path, which tensors of fewer than sixteen take.
    fn gaussian(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (turn, u) = (self.unit64(), self.unit64());
        let radius = (-2.0 * (-u).ln_1p()).sqrt();
        let (sin, cos) = (core::f64::consts::TAU * turn).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// `torch.randint(0, high, (n,))`, `high` of 1 to 2³² − 1.
    #[must_use]
    pub fn integers(&mut self, n: usize, high: u32) -> Vec<u32> {
        (0..n).map(|_| self.bits32() % high.max(1)).collect()
    }

    /// `torch.randperm(n)[:count]`: the shuffle settles its first numbers first, so no more is drawn or held.
    ///
    /// The generator is left where it stands after `count` draws. `None` when there are not that many numbers, or when
    /// `n` is so large (over 214 million) that torch draws them in another way.
    #[must_use]
    pub fn permutation(&mut self, n: u64, count: usize) -> Option<Vec<u64>> {
        if n >= LONGEST_PERMUTATION || count as u64 > n {
            return None;
        }
        let mut moved: HashMap<u64, u64> = HashMap::with_capacity(count);
        let mut out = Vec::with_capacity(count);
        for i in 0..count as u64 {
            // The last of all has nowhere to go: torch draws nothing for it.
            let to = if i + 1 < n { i + u64::from(self.bits32()) % (n - i) } else { i };
            let here = moved.remove(&i).unwrap_or(i);
            out.push(if to == i { here } else { moved.insert(to, here).unwrap_or(to) });
        }
        Some(out)
    }
}

const BLOCK: usize = 16;

/// Uniform numbers to normal ones (Box & Muller 1958), the first eight with the last eight, every step rounded to f32
/// as torch rounds it; only its logarithm, sine and cosine have last bits of their own.
#[allow(clippy::cast_possible_truncation, reason = "the numbers are f32 in torch")]
fn box_muller(block: &mut [f32; BLOCK], mean: f32, std: f32) {
    let (left, right) = block.split_at_mut(BLOCK / 2);
    for (a, b) in left.iter_mut().zip(right) {
        let radius = (-2.0 * f64::from(1.0 - *a).ln() as f32).sqrt();
        let (sin, cos) = f64::from(core::f32::consts::TAU * *b).sin_cos();
        *a = (radius * cos as f32).mul_add(std, mean);
        *b = (radius * sin as f32).mul_add(std, mean);
    }
}

/// The bound of `torch.nn.init.kaiming_uniform_(tensor, a)` for a tensor with `fan_in` inputs: `√(6 / ((1 + a²) · fan_in))`.
///
/// Infinite when `fan_in` is 0.
#[allow(clippy::cast_precision_loss, reason = "widths are far below 2⁵³")]
#[must_use]
pub fn kaiming_bound(fan_in: usize, a: f64) -> f64 {
    let gain = (2.0 / (1.0 + a * a)).sqrt();
    3.0f64.sqrt() * (gain / (fan_in as f64).sqrt())
}

#[cfg(test)]
#[allow(clippy::excessive_precision, reason = "the numbers are as Python printed them")]
mod tests {
    use super::*;
    use crate::maths::fnv;

    /// The tables are of torch 2.15: `python tests/golden/maths.py torch`.
    #[test]
    fn draws_are_torchs_bit_for_bit() {
        let mut g = TorchRandom::new((5 << 32) + 3);
        let u = g.uniform(5000, -0.3, 0.7);
        assert_eq!(u[..4], [-0.29573649168014526, -0.1944306492805481, -0.014157533645629883, -0.2730451822280884]);
        assert_eq!(fnv(u.iter().flat_map(|x| x.to_le_bytes())), 0x3e29_da84_eb36_7ffd);
        let u = g.uniform(5, -0.07654, 0.07654);
        assert_eq!(fnv(u.iter().flat_map(|x| x.to_le_bytes())), 0x0bad_6dec_0d5a_501c);
        let u = g.uniform64(1001, -0.3, 0.7);
        assert_eq!(u[..2], [0.34037741722075626, 0.18395981396425115]);
        assert_eq!(fnv(u.iter().flat_map(|x| x.to_le_bytes())), 0x63cb_3d48_129d_eb58);
        let u = g.uniform_bf16(3001, -0.3, 0.7);
        assert_eq!(u[..4], [0.609375, -0.023681640625, -0.09375, 0.6484375]);
        assert_eq!(fnv(u.iter().flat_map(|x| x.to_le_bytes())), 0xa29e_403e_e09d_7dc8);
        let p = g.permutation(3000, 3000).unwrap();
        assert_eq!(p[..4], [2221, 159, 1591, 798]);
        assert_eq!(fnv(p.iter().flat_map(|x| x.to_le_bytes())), 0xc933_58ec_03cd_39f1);
        let p = TorchRandom::new(777).permutation(147_456, 147_456).unwrap();
        assert_eq!(fnv(p.iter().flat_map(|x| x.to_le_bytes())), 0x5c82_cfee_8c4e_ce89);
        assert_eq!(TorchRandom::new(777).permutation(147_456, 3).unwrap(), p[..3]);
        let n = g.integers(500, 1000);
        assert_eq!(fnv(n.iter().flat_map(|x| x.to_le_bytes())), 0x1b22_e116_1899_44c3);

        let close = |got: &[f32], want: &[f32]| {
            assert_eq!(got.len(), want.len());
            // The standard deviation is 2.
            got.iter().zip(want).for_each(|(g, w)| assert!((g - w).abs() < 6e-7, "{g} {w}"));
        };
        close(
            &g.normal(5, 0.5, 2.0),
            &[0.8114513754844666, 5.21834135055542, 3.1468617916107178, -2.1533591747283936, -0.11631958186626434],
        );
        close(&g.normal(3, 0.5, 2.0), &[-1.2245306968688965, 1.3152902126312256, 1.2994734048843384]);
        #[rustfmt::skip]
        close(&g.normal(16, 0.5, 2.0), &[3.3095602989196777, -0.6126124858856201, -1.5569372177124023, -1.9733963012695312, 3.0822811126708984, -1.0323095321655273, -0.9913859367370605, -1.0641682147979736, -3.18145489692688, 1.2749543190002441, 1.730018973350525, -0.04085630178451538, 0.5101679563522339, 3.590085506439209, 1.8476719856262207, 2.478817939758301]);
        #[rustfmt::skip]
        close(&g.normal(37, 0.5, 2.0), &[-1.7486634254455566, 0.2200320065021515, 3.5025572776794434, 3.315938711166382, -3.32021164894104, -0.9900573492050171, -0.9405219554901123, 0.23476353287696838, 5.230990886688232, 1.8045434951782227, 1.3038583993911743, 4.051100254058838, -1.169262409210205, -0.3704916834831238, -1.9518215656280518, -3.8232064247131348, -2.973710536956787, 0.13586506247520447, -0.3499382734298706, -0.36683762073516846, 1.9174689054489136, 2.9625308513641357, 3.9417643547058105, -1.771104335784912, 1.4057230949401855, 1.6255853176116943, -0.20404475927352905, 4.050213813781738, -1.7451105117797852, -0.9732000827789307, 3.8894402980804443, 1.9973794221878052, 0.24804598093032837, 2.690880298614502, 0.00784417986869812, 4.549125671386719, 1.323765516281128]);
        assert_eq!(g.uniform(1, 0.0, 1.0), [0.966994822]);
    }

    #[test]
    fn what_torch_cannot_draw_is_refused() {
        let mut g = TorchRandom::new(0);
        assert!(g.permutation(3, 4).is_none());
        assert!(g.permutation(1 << 31, 1).is_none());
        assert!(g.permutation(0, 0).unwrap().is_empty());
        assert_eq!(g.permutation(1, 1).unwrap(), [0]);
        assert_eq!(g.integers(2, 0).len(), 2);
        assert!(g.uniform(0, 0.0, 1.0).is_empty() && g.normal(0, 0.0, 1.0).is_empty());
    }

    #[test]
    fn bounds_are_those_of_kaiming() {
        assert_eq!(kaiming_bound(24, 0.0), 0.5);
        assert!((kaiming_bound(25, 5.0f64.sqrt()) - 0.2).abs() < 1e-15);
    }
}
