//! What attention knows of places, apart from embeddings: rotations, windows, relative positions.

use super::WeightId;

/// How a layer's attention treats places.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Places {
    /// Queries and keys are rotated by their positions with this base (θ).
    pub rotary: Option<f32>,
    /// Keys further away than this are not seen.
    pub window: Option<u32>,
}

/// Embeddings of relative positions, shared by all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relative {
    /// `[buckets, heads]` or `[buckets, hidden]`.
    pub table: WeightId,
    /// Which row a distance has.
    pub buckets: Buckets,
    /// What attention does with them.
    pub terms: RelativeTerms,
}

/// What relative positions add to the product of a query and a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelativeTerms {
    /// A number for each head, after the scale (MPNet).
    Bias,
    /// Products with projected embeddings, under the scale (DeBERTa's disentangled attention).
    Projected {
        /// The query by the key of the position: content to position.
        keys: bool,
        /// The key by the query of the position: position to content.
        queries: bool,
        /// The layers' own projections serve positions too.
        shared: bool,
    },
}

/// Which row of a table of relative positions a distance has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buckets {
    /// Half of the rows for each direction: small distances have their own, larger ones share them logarithmically.
    Halves {
        /// Rows.
        rows: u32,
        /// From this distance on all are in the last row.
        max: u32,
    },
    /// Rows from `−span` to `span − 1`; distances beyond the ends take these. With `mid`, distances beyond it are
    /// pressed together logarithmically first.
    Signed {
        /// Rows on either side.
        span: u32,
        /// Where pressing begins, and the distance that it brings to the end.
        log: Option<(u32, u32)>,
    },
}

impl Buckets {
    /// Rows of the table.
    #[must_use]
    pub fn rows(self) -> u32 {
        match self {
            Self::Halves { rows, .. } => rows,
            Self::Signed { span, .. } => 2 * span,
        }
    }

    /// The row for a query `distance` places after its key.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "distances are below 2²⁴; the library rounds to f32 at the same places"
    )]
    pub fn row(self, distance: i32) -> u32 {
        match self {
            // MPNetEncoder.relative_position_bucket, after T5.
            Self::Halves { rows, max } => {
                let half = (rows / 2) as i32;
                let exact = half / 2;
                let base = if distance < 0 { half } else { 0 };
                let n = distance.abs();
                let bucket = if n < exact {
                    n
                } else {
                    let share = log(n as f32 / exact as f32) / (f64::from(max) / f64::from(exact)).ln() as f32;
                    (exact + (share * (half - exact) as f32) as i32).min(half - 1)
                };
                (base + bucket).cast_unsigned()
            }
            // make_log_bucket_position and build_relative_position of deberta_v2.
            Self::Signed { span, log: pressed } => {
                let place = match pressed {
                    Some((mid, max)) if distance.unsigned_abs() > mid => {
                        let (mid, max) = (f64::from(mid), f64::from(max));
                        let near = (f64::from(distance.unsigned_abs()) / mid) as f32;
                        let share = log(near) / log(((max - 1.0) / mid) as f32);
                        let place = ((share * (mid - 1.0) as f32).ceil() + mid as f32) as i32;
                        place * distance.signum()
                    }
                    _ => distance,
                };
                let span = span as i32;
                (place + span).clamp(0, 2 * span - 1).cast_unsigned()
            }
        }
    }
}

/// The logarithm, rounded to f32 once.
#[allow(clippy::cast_possible_truncation, reason = "rounding is the point")]
fn log(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_find_the_rows_of_the_library() {
        // transformers 4.57.6: MPNetEncoder.relative_position_bucket(-d) with 32 buckets.
        let mpnet = Buckets::Halves { rows: 32, max: 128 };
        let found: Vec<u32> = [0, 7, 8, 11, 12, 127, 128, 500, -1, -7, -8, -500].map(|d| mpnet.row(d)).into();
        assert_eq!(found, [0, 7, 8, 8, 9, 15, 15, 15, 17, 23, 24, 31]);
        // make_log_bucket_position(d, 256, 512) + 256, clamped.
        let deberta = Buckets::Signed { span: 256, log: Some((128, 512)) };
        let found: Vec<u32> = [0, 127, 128, 129, 130, 200, 511, -129, -511, -600].map(|d| deberta.row(d)).into();
        assert_eq!(found, [256, 383, 384, 385, 386, 425, 511, 127, 1, 0]);
        let plain = Buckets::Signed { span: 8, log: None };
        assert_eq!([-20, -8, 0, 7, 8].map(|d| plain.row(d)), [0, 0, 8, 15, 15]);
    }
}
