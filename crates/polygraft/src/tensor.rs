//! A weight matrix as it is stored: dense or in blocks of 32, always decodable row by row.

use crate::quant::codes::Codes;
use crate::quant::{self, BLOCK};
use std::ops::Range;

/// How the numbers of a [`Matrix`] are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of 32 along the input dimension: one f16 scale, 32 signed bytes.
    Q8_0,
    /// Blocks of 32 along the input dimension: one f16 scale, 16 bytes; low nibbles are elements 0–15,
    /// high nibbles 16–31, value = (nibble − 8) × scale.
    Q4_0,
    /// Codes of so many bits into a codebook ([`quant::codes`]): adapters alone.
    Code(u8),
}

impl Scheme {
    /// The name used in file metadata, `inspect` and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Code(1) => "1 bit",
            Self::Code(2) => "2 bits",
            Self::Code(4) => "4 bits",
            Self::Code(_) => "8 bits",
        }
    }

    /// Whether weights of this scheme are integer codes with block scales.
    #[must_use]
    pub fn is_quantized(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }
}

/// The stored numbers of a [`Matrix`], row major.
#[derive(Debug, Clone, PartialEq)]
pub enum Storage {
    /// `rows × cols` floats.
    F32(Vec<f32>),
    /// `rows × cols` half floats, as bits.
    F16(Vec<u16>),
    /// `rows × cols` bfloat16, as bits.
    Bf16(Vec<u16>),
    /// `rows × cols` codes and `rows × cols/32` f16 scales, as bits.
    Q8_0 {
        /// Signed codes, −127 to 127.
        codes: Vec<i8>,
        /// f16 bits, one a block.
        scales: Vec<u16>,
    },
    /// `rows × cols/2` bytes of two codes and `rows × cols/32` f16 scales, as bits.
    Q4_0 {
        /// Two 4-bit codes a byte (see [`Scheme::Q4_0`]).
        codes: Vec<u8>,
        /// f16 bits, one a block.
        scales: Vec<u16>,
    },
    /// Codes into a codebook.
    Code(Codes),
}

/// A weight in torch's `nn.Linear` layout: `rows` outputs by `cols` inputs. A vector is one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    storage: Storage,
}

impl Matrix {
    /// Wraps `storage` as a `rows × cols` matrix; `None` when the lengths do not agree.
    #[must_use]
    pub fn new(rows: usize, cols: usize, storage: Storage) -> Option<Self> {
        let n = rows.checked_mul(cols)?;
        let blocks = n / BLOCK;
        let whole = cols.is_multiple_of(BLOCK);
        let fits = match &storage {
            Storage::F32(v) => v.len() == n,
            Storage::F16(v) | Storage::Bf16(v) => v.len() == n,
            Storage::Q8_0 { codes, scales } => whole && codes.len() == n && scales.len() == blocks,
            Storage::Q4_0 { codes, scales } => whole && codes.len() == n / 2 && scales.len() == blocks,
            Storage::Code(codes) => codes.fit(rows, cols),
        };
        fits.then_some(Self { rows, cols, storage })
    }

    /// A dense f32 matrix; `None` when `values` is not `rows × cols` long.
    #[must_use]
    pub fn dense(rows: usize, cols: usize, values: Vec<f32>) -> Option<Self> {
        Self::new(rows, cols, Storage::F32(values))
    }

    /// One row of f32.
    #[must_use]
    pub fn vector(values: Vec<f32>) -> Self {
        Self { rows: 1, cols: values.len(), storage: Storage::F32(values) }
    }

    /// Outputs.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The stored form.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Gives the stored form away, so that a backend can repack it without a copy.
    #[must_use]
    pub fn into_storage(self) -> Storage {
        self.storage
    }

    /// How the numbers are stored.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match &self.storage {
            Storage::F32(_) => Scheme::F32,
            Storage::F16(_) => Scheme::F16,
            Storage::Bf16(_) => Scheme::Bf16,
            Storage::Q8_0 { .. } => Scheme::Q8_0,
            Storage::Q4_0 { .. } => Scheme::Q4_0,
            Storage::Code(codes) => Scheme::Code(codes.bits()),
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(v) => v.len() * 4,
            Storage::F16(v) | Storage::Bf16(v) => v.len() * 2,
            Storage::Q8_0 { codes, scales } => codes.len() + scales.len() * 2,
            Storage::Q4_0 { codes, scales } => codes.len() + scales.len() * 2,
            Storage::Code(codes) => codes.bytes(),
        }
    }

    /// Decodes row `row` into `out`, which is `cols` long.
    ///
    /// # Panics
    /// When `row` or the length of `out` is out of range.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "decode_row: output length");
        let span: Range<usize> = row * self.cols..(row + 1) * self.cols;
        let blocks = span.start / BLOCK..span.end / BLOCK;
        match &self.storage {
            Storage::F32(v) => out.copy_from_slice(&v[span]),
            Storage::F16(v) => {
                for (o, &bits) in out.iter_mut().zip(&v[span]) {
                    *o = half::f16::from_bits(bits).to_f32();
                }
            }
            Storage::Bf16(v) => {
                for (o, &bits) in out.iter_mut().zip(&v[span]) {
                    *o = half::bf16::from_bits(bits).to_f32();
                }
            }
            Storage::Q8_0 { codes, scales } => quant::q8_0::decode(&codes[span], &scales[blocks], out),
            Storage::Q4_0 { codes, scales } => {
                quant::q4_0::decode(&codes[span.start / 2..span.end / 2], &scales[blocks], out);
            }
            Storage::Code(codes) => codes.decode_row(row, out),
        }
    }

    /// The whole matrix as f32: for small weights, tests and one-at-a-time offline work.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        if self.cols > 0 {
            for (row, chunk) in out.chunks_mut(self.cols).enumerate() {
                self.decode_row(row, chunk);
            }
        }
        out
    }

    /// Index of the first number that is not finite, scales included.
    #[must_use]
    pub fn first_not_finite(&self) -> Option<usize> {
        let half =
            |v: &[u16], step: usize| v.iter().position(|&b| !half::f16::from_bits(b).is_finite()).map(|i| i * step);
        match &self.storage {
            Storage::F32(v) => v.iter().position(|x| !x.is_finite()),
            Storage::F16(v) => half(v, 1),
            Storage::Bf16(v) => v.iter().position(|&b| !half::bf16::from_bits(b).is_finite()),
            Storage::Q8_0 { scales, .. } | Storage::Q4_0 { scales, .. } => half(scales, BLOCK),
            Storage::Code(codes) => {
                let numbers = codes.stats().iter().flatten().chain(codes.levels());
                numbers.map(|x| x.is_finite()).position(|finite| !finite)
            }
        }
    }
}
