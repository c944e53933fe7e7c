//! Ranking metrics with binary or graded relevance, as `trec_eval` and BEIR define them.

use serde::Serialize;

/// The four numbers of `eval`, averaged over queries.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Metrics {
    /// Normalised discounted cumulative gain of the first ten.
    #[serde(rename = "ndcg@10")]
    pub ndcg_10: f64,
    /// Reciprocal rank of the first relevant document among the first ten.
    #[serde(rename = "mrr@10")]
    pub mrr_10: f64,
    /// Mean average precision over the whole ranking.
    pub map: f64,
    /// Share of the relevant documents among the first hundred.
    #[serde(rename = "recall@100")]
    pub recall_100: f64,
}

impl Metrics {
    /// One query: `ranked` are the relevance grades in ranked order (all documents), `ideal` the grades of all relevant ones.
    ///
    /// `None` when nothing is relevant: such a query is left out of the average.
    #[must_use]
    pub fn of(ranked: &[u32], ideal: &[u32]) -> Option<Self> {
        let relevant = ideal.iter().filter(|&&g| g > 0).count();
        if relevant == 0 {
            return None;
        }
        let mut best = ideal.to_vec();
        best.sort_unstable_by(|a, b| b.cmp(a));
        let hit = |g: &&u32| **g > 0;
        let mut found = 0usize;
        let mut precision = 0.0;
        for (i, _) in ranked.iter().enumerate().filter(|(_, g)| **g > 0) {
            found += 1;
            precision += found as f64 / (i + 1) as f64;
        }
        let first = ranked.iter().take(10).position(|&g| g > 0);
        Some(Self {
            ndcg_10: dcg(ranked) / dcg(&best),
            mrr_10: first.map_or(0.0, |i| 1.0 / (i + 1) as f64),
            map: precision / relevant as f64,
            recall_100: ranked.iter().take(100).filter(hit).count() as f64 / relevant as f64,
        })
    }

    /// The mean over queries; zeros when there is none.
    #[must_use]
    pub fn mean(all: &[Self]) -> Self {
        let n = all.len().max(1) as f64;
        let mean = |f: fn(&Self) -> f64| all.iter().map(f).sum::<f64>() / n;
        Self {
            ndcg_10: mean(|m| m.ndcg_10),
            mrr_10: mean(|m| m.mrr_10),
            map: mean(|m| m.map),
            recall_100: mean(|m| m.recall_100),
        }
    }
}

fn dcg(grades: &[u32]) -> f64 {
    grades.iter().take(10).enumerate().map(|(i, &g)| f64::from(g) / ((i + 2) as f64).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_example() {
        let m = Metrics::of(&[0, 1, 0, 1], &[1, 1, 1]).unwrap();
        let ideal = 1.0 + 1.0 / 3f64.log2() + 0.5;
        assert!((m.ndcg_10 - (1.0 / 3f64.log2() + 1.0 / 5f64.log2()) / ideal).abs() < 1e-12);
        assert_eq!(m.mrr_10, 0.5);
        assert!((m.map - (0.5 + 0.5) / 3.0).abs() < 1e-12);
        assert!((m.recall_100 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(Metrics::of(&[0, 0], &[]), None);
    }
}
