//! Low-rank updates of embedding tables, row by row.

/// A low-rank matrix by rows, as PEFT stores updates of embedding tables: row `t` is `B A[:, t]`.
pub(super) struct LowRankRows {
    /// `[rank, rows]`.
    pub(super) a: Vec<f32>,
    /// `[width, rank]`.
    pub(super) b: Vec<f32>,
    pub(super) rank: usize,
    pub(super) rows: usize,
}

impl LowRankRows {
    /// Floats held.
    pub(super) fn held(&self) -> usize {
        self.a.len() + self.b.len()
    }

    /// Row `t`.
    #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
    pub(super) fn at(&self, t: u32) -> impl Iterator<Item = f32> + '_ {
        let a = move |k: usize| f64::from(self.a[k * self.rows + t as usize]);
        let one = move |b: &[f32]| b.iter().enumerate().map(|(k, b)| f64::from(*b) * a(k)).sum::<f64>() as f32;
        self.b.chunks_exact(self.rank.max(1)).map(one)
    }
}
