//! Codes of 1, 2, 4 or 8 bits into a codebook, standardised by the mean and deviation of a group: the quantizer of Jie et
//! al., "Revisiting the Parameter Efficiency of Adapters from the Perspective of Precision Redundancy" (ICCV 2023).
//!
//! `value = level[code] · deviation + mean`. The paper's levels are those of the median quantizer of the normal
//! distribution: edges half way between levels, each level the median of what falls between its edges.

use std::sync::Arc;

/// Which numbers share a mean and a deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// All of a matrix: the paper's.
    Tensor,
    /// Those of an output.
    Row,
    /// So many of an output in a row; the last of an output may be fewer.
    Block(u16),
}

impl Group {
    /// Groups of a `rows × cols` matrix.
    #[must_use]
    pub fn count(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Tensor => 1,
            Self::Row => rows,
            Self::Block(n) => rows * cols.div_ceil(usize::from(n).max(1)),
        }
    }

    /// Numbers of an output that one group holds.
    #[must_use]
    pub fn span(self, cols: usize) -> usize {
        match self {
            Self::Tensor | Self::Row => cols.max(1),
            Self::Block(n) => usize::from(n).max(1),
        }
    }

    /// The first group of output `row`.
    #[must_use]
    pub fn first(self, row: usize, cols: usize) -> usize {
        match self {
            Self::Tensor => 0,
            Self::Row => row,
            Self::Block(_) => row * cols.div_ceil(self.span(cols)),
        }
    }
}

/// Which codebook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Book {
    /// The paper's: the median of what falls between two edges, least absolute error.
    #[default]
    Median,
    /// The mean of what falls between two edges (Lloyd 1982, Max 1960): least squared error.
    LeastSquares,
}

// The upper half of the levels for the normal distribution; the lower is its mirror.
#[allow(clippy::excessive_precision, reason = "as the fixed point gives them; f32 takes the nearest")]
const MEDIAN: [&[f32]; 3] = [
    &[0.674_489_75],
    &[0.377_754_16, 1.265_720_33],
    &[0.105_550_29, 0.319_036_01, 0.540_072_08, 0.775_192_07, 1.034_006_3, 1.333_106_71, 1.707_737_59, 2.265_490_64],
];
#[allow(clippy::excessive_precision, reason = "as the fixed point gives them; f32 takes the nearest")]
const LEAST_SQUARES: [&[f32]; 3] = [
    &[0.797_884_56],
    &[0.452_780_03, 1.510_417_61],
    &[0.128_395_03, 0.388_048_3, 0.656_759_12, 0.942_340_46, 1.256_231_2, 1.618_046_39, 2.069_017_23, 2.732_589_57],
];

/// The `2^bits` levels of a codebook, lowest first. For 8 bits they are evenly spaced, −128/127 to 1, whatever the book:
/// the deviation is then the largest magnitude and the mean 0. Empty for other numbers of bits.
#[must_use]
pub fn levels(bits: u8, book: Book) -> Vec<f32> {
    let table = match book {
        Book::Median => &MEDIAN,
        Book::LeastSquares => &LEAST_SQUARES,
    };
    let upper = match bits {
        1 => table[0],
        2 => table[1],
        4 => table[2],
        8 => return (-128i16..128).map(|k| f32::from(k) / 127.0).collect(),
        _ => return Vec::new(),
    };
    upper.iter().rev().map(|x| -x).chain(upper.iter().copied()).collect()
}

/// The codes of one matrix or of many, one after the other, and their statistics likewise.
///
/// A packed adapter's few hundred bytes a matrix are held as they came in its file: memory of its own for the codes, the
/// statistics and the codebook of each of 48 matrices would be half as much again.
#[derive(Debug, PartialEq)]
pub struct Shelf {
    /// Bits a code.
    pub bits: u8,
    /// What shares statistics.
    pub group: Group,
    /// Element after element in row order, the first in a byte's lowest bits; each matrix begins with a byte of its own.
    pub data: Box<[u8]>,
    /// Mean and deviation of each group.
    pub stats: Box<[[f32; 2]]>,
    /// The codebook.
    pub levels: Box<[f32]>,
}

/// A matrix's codes: a place on a [`Shelf`]. Clones share it.
#[derive(Debug, Clone)]
pub struct Codes {
    shelf: Arc<Shelf>,
    /// Its first byte and its first group.
    at: (u32, u32),
    /// Bytes and groups.
    len: (u32, u32),
}

impl PartialEq for Codes {
    fn eq(&self, other: &Self) -> bool {
        let of = |c: &Self| (c.bits(), c.group());
        of(self) == of(other)
            && self.data() == other.data()
            && self.stats() == other.stats()
            && self.levels() == other.levels()
    }
}

impl Codes {
    /// Codes `data` of `bits` bits, element after element in row order, the first in a byte's lowest bits; `stats` is mean
    /// and deviation of each group, `levels` the codebook. `None` when they do not agree with each other and the shape.
    #[must_use]
    pub fn new(
        (rows, cols): (usize, usize),
        bits: u8,
        group: Group,
        data: impl Into<Box<[u8]>>,
        stats: impl Into<Box<[[f32; 2]]>>,
        levels: impl Into<Box<[f32]>>,
    ) -> Option<Self> {
        let shelf = Shelf { bits, group, data: data.into(), stats: stats.into(), levels: levels.into() };
        let codes = Self::on(&Arc::new(shelf), (0, 0), (rows, cols))?;
        codes.is_all().then_some(codes)
    }

    /// Those of a `rows × cols` matrix that begin at byte and group `at` of `shelf`; `None` when they are not all there.
    #[must_use]
    pub fn on(shelf: &Arc<Shelf>, at: (usize, usize), (rows, cols): (usize, usize)) -> Option<Self> {
        let known = matches!(shelf.bits, 1 | 2 | 4 | 8) && shelf.levels.len() == 1 << shelf.bits;
        let len = (bytes(rows.checked_mul(cols)?, shelf.bits), shelf.group.count(rows, cols));
        let fits = at.0.checked_add(len.0)? <= shelf.data.len() && at.1.checked_add(len.1)? <= shelf.stats.len();
        let small = |(a, b): (usize, usize)| Some((u32::try_from(a).ok()?, u32::try_from(b).ok()?));
        (known && fits).then_some(Self { shelf: shelf.clone(), at: small(at)?, len: small(len)? })
    }

    /// Whether nothing else is on their shelf.
    fn is_all(&self) -> bool {
        (self.data().len(), self.stats().len()) == (self.shelf.data.len(), self.shelf.stats.len())
    }

    /// A mask of a `rows × cols` matrix: a bit each, which is its number. What `kept` lacks is 0.
    #[must_use]
    pub fn mask((rows, cols): (usize, usize), kept: impl IntoIterator<Item = bool>) -> Self {
        let numel = rows.saturating_mul(cols);
        let mut data = vec![0u8; bytes(numel, 1)];
        for (i, bit) in kept.into_iter().take(numel).enumerate() {
            data[i / 8] |= u8::from(bit) << (i % 8);
        }
        let len = (data.len() as u32, 1);
        let (data, stats, levels) = (data.into(), [[0.0, 1.0]].into(), [0.0, 1.0].into());
        Self { shelf: Arc::new(Shelf { bits: 1, group: Group::Tensor, data, stats, levels }), at: (0, 0), len }
    }

    /// Whether they are those of a `rows × cols` matrix.
    #[must_use]
    pub fn fit(&self, rows: usize, cols: usize) -> bool {
        rows.checked_mul(cols).is_some_and(|n| self.data().len() == bytes(n, self.bits()))
            && self.stats().len() == self.group().count(rows, cols)
    }

    /// Quantizes `values`, `rows × cols`; `None` for a number of bits that there is not.
    ///
    /// 1, 2 and 4 bits: standardised by the group's mean and unbiased deviation, `u = (x − mean) / (deviation + 1e-5)`,
    /// then the level between whose edges `u` lies, the lower one on an edge.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "8-bit codes are clamped; statistics are f32"
    )]
    pub fn encode((rows, cols): (usize, usize), values: &[f32], bits: u8, group: Group, book: Book) -> Option<Self> {
        let levels = levels(bits, book);
        if values.len() != rows.checked_mul(cols)? || levels.is_empty() {
            return None;
        }
        let edges: Vec<f32> = levels.windows(2).map(|l| f32::midpoint(l[0], l[1])).collect();
        let mut data = vec![0u8; bytes(values.len(), bits)];
        let mut stats = Vec::with_capacity(group.count(rows, cols));
        let mut put = |i: usize, code: usize| {
            let at = i * usize::from(bits);
            data[at / 8] |= (code as u8) << (at % 8);
        };
        let span = match group {
            Group::Tensor => values.len(),
            Group::Row | Group::Block(_) => group.span(cols),
        };
        let whole = if group == Group::Tensor { values.len() } else { cols };
        for (r, row) in values.chunks(whole.max(1)).enumerate() {
            for (g, part) in row.chunks(span.max(1)).enumerate() {
                let [mean, deviation] = if bits == 8 { [0.0, peak(part)] } else { standard(part) };
                for (k, x) in part.iter().enumerate() {
                    let code = if bits == 8 {
                        let unit = if deviation > 0.0 { x / deviation } else { 0.0 };
                        ((unit * 127.0).round() + 128.0).clamp(0.0, 255.0) as usize
                    } else {
                        let u = (x - mean) / (deviation + 1e-5);
                        edges.iter().filter(|e| u > **e).count()
                    };
                    put(r * whole + g * span + k, code);
                }
                stats.push([mean, deviation]);
            }
        }
        Self::new((rows, cols), bits, group, data, stats, levels)
    }

    /// Bits a code.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.shelf.bits
    }

    /// What shares statistics.
    #[must_use]
    pub fn group(&self) -> Group {
        self.shelf.group
    }

    /// The codes, packed.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.shelf.data[self.at.0 as usize..][..self.len.0 as usize]
    }

    /// Mean and deviation of each group.
    #[must_use]
    pub fn stats(&self) -> &[[f32; 2]] {
        &self.shelf.stats[self.at.1 as usize..][..self.len.1 as usize]
    }

    /// The codebook.
    #[must_use]
    pub fn levels(&self) -> &[f32] {
        &self.shelf.levels
    }

    /// Bytes held, without the codebook.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data().len() + self.stats().len() * 8
    }

    /// Decodes output `row` of `out.len()` inputs.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        let cols = out.len();
        let bits = usize::from(self.bits());
        let mask = (1usize << bits) - 1;
        let (data, levels) = (self.data(), self.levels());
        let (first, span) = (self.group().first(row, cols), self.group().span(cols));
        let mut at = row * cols * bits;
        for (group, part) in out.chunks_mut(span).enumerate() {
            let [mean, deviation] = self.stats()[first + group];
            for o in part {
                let code = (usize::from(data[at / 8]) >> (at % 8)) & mask;
                *o = levels[code] * deviation + mean;
                at += bits;
            }
        }
    }
}

/// Bytes that `n` codes take.
#[must_use]
pub fn bytes(n: usize, bits: u8) -> usize {
    n.saturating_mul(usize::from(bits)).div_ceil(8)
}

fn peak(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m: f32, x| m.max(x.abs()))
}

/// Mean and unbiased deviation; the deviation of a single number is 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "statistics are f32; counts are small")]
fn standard(values: &[f32]) -> [f32; 2] {
    let n = values.len() as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n.max(1.0);
    let squares: f64 = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
    [mean as f32, (squares / (n - 1.0).max(1.0)).sqrt() as f32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn decoded(codes: &Codes, rows: usize, cols: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * cols];
        out.chunks_mut(cols).enumerate().for_each(|(r, row)| codes.decode_row(r, row));
        out
    }

    #[test]
    fn one_bit_is_the_papers_formula() {
        let w = [1.0f32, -2.0, 3.0, 0.5, -1.5, 2.0];
        let codes = Codes::encode((2, 3), &w, 1, Group::Tensor, Book::Median).unwrap();
        // numpy: mean 0.5, deviation (n − 1) 1.9493589; signs + - + - - +.
        assert_eq!(codes.data(), [0b10_0101]);
        let [mean, deviation] = codes.stats()[0];
        assert!((mean - 0.5).abs() < 1e-7 && (deviation - 1.949_358_9).abs() < 1e-6, "{deviation}");
        let (high, low) = (0.674_489_75 * deviation + mean, -0.674_489_75 * deviation + mean);
        assert_eq!(decoded(&codes, 2, 3), [high, low, high, low, low, high]);
    }

    #[test]
    fn more_bits_and_smaller_groups_are_nearer() {
        let (rows, cols) = (13, 70);
        let w = Random(7).vec(rows * cols, 0.4);
        let error = |bits, group, book| {
            let codes = Codes::encode((rows, cols), &w, bits, group, book).unwrap();
            assert_eq!(codes.data().len(), (rows * cols * usize::from(bits)).div_ceil(8));
            decoded(&codes, rows, cols).iter().zip(&w).map(|(a, b)| (a - b).powi(2)).sum::<f32>()
        };
        let by_bits: Vec<f32> = [1, 2, 4, 8].map(|b| error(b, Group::Tensor, Book::Median)).to_vec();
        assert!(by_bits.windows(2).all(|e| e[1] < e[0]), "{by_bits:?}");
        assert!(error(1, Group::Block(32), Book::Median) < error(1, Group::Tensor, Book::Median));
        assert!(error(1, Group::Row, Book::LeastSquares) <= error(1, Group::Tensor, Book::LeastSquares));
    }

    #[test]
    fn what_does_not_agree_is_refused() {
        let levels = levels(1, Book::Median);
        let of = |bits, data: &[u8], stats: &[[f32; 2]]| {
            Codes::new((3, 5), bits, Group::Row, data, stats, levels.as_slice())
        };
        assert!(of(1, &[0, 0], &[[0.0, 1.0]; 3]).is_some());
        assert!(of(1, &[0], &[[0.0, 1.0]; 3]).is_none());
        assert!(of(1, &[0, 0], &[[0.0, 1.0]; 2]).is_none());
        assert!(of(2, &[0; 4], &[[0.0, 1.0]; 3]).is_none());
        assert!(Codes::encode((3, 5), &[0.0; 15], 3, Group::Row, Book::Median).is_none());
    }

    #[test]
    fn a_mask_is_its_bits() {
        let bits = [true, false, false, true, true, false, false, false, true];
        let mask = Codes::mask((3, 3), bits);
        assert_eq!((mask.data(), mask.fit(3, 3)), (&[0b1_1001, 1][..], true));
        assert_eq!(decoded(&mask, 3, 3), bits.map(|b| f32::from(u8::from(b))));
    }

    #[test]
    fn the_median_levels_are_a_fixed_point() {
        // Φ by Abramowitz and Stegun 7.1.26 to 1.5e-7, enough to see a wrong digit.
        let phi = |x: f64| {
            let t = 1.0 / (1.0 + 0.327_591_1 * x.abs() / std::f64::consts::SQRT_2);
            let poly = t
                * (0.254_829_592
                    + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
            let tail = poly * (-x * x / 2.0).exp() / 2.0;
            if x < 0.0 { tail } else { 1.0 - tail }
        };
        for bits in [1, 2, 4] {
            let l = levels(bits, Book::Median);
            for (i, level) in l.iter().enumerate() {
                let below = if i == 0 { 0.0 } else { phi(f64::from(f32::midpoint(l[i - 1], l[i]))) };
                let above = l.get(i + 1).map_or(1.0, |next| phi(f64::from(f32::midpoint(*level, *next))));
                assert!((phi(f64::from(*level)) - f64::midpoint(below, above)).abs() < 1e-6, "{bits} bits, level {i}");
            }
        }
    }
}
