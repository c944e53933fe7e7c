//! BD-LoRA (PEFT's block-diagonal LoRA): one factor is block-diagonal, and stored as its blocks one under the other.

use super::config::{bad, names};
use super::reading::{Reading, Target};
use crate::error::Result;

/// LoRA's option.
pub(super) const OPTION: &str = "use_bdlora";

/// Which factors are block-diagonal, by parts of a module's path.
pub(super) struct Blocks {
    a: Vec<String>,
    b: Vec<String>,
    count: usize,
    strict: bool,
}

impl Blocks {
    /// What the configuration asks for.
    pub(super) fn of(r: &Reading<'_>) -> Result<Option<Self>> {
        let Some(json) = r.config.get(OPTION).filter(|v| !v.is_empty()) else { return Ok(None) };
        let flag = |key: &str| json.get(key).map_or(Some(true), crate::json::Json::truth);
        let count = json.get("nblocks").map_or(Some(1), crate::json::Json::whole).filter(|n| (1..=1 << 16).contains(n));
        let Some((count, strict)) = count.zip(flag("match_strict")) else {
            return Err(bad(OPTION, "nblocks is not a whole number of 1 or more, or match_strict not true or false"));
        };
        let list = |key: &str| names(&format!("{OPTION}.{key}"), json.get(key));
        Ok(Some(Self { a: list("target_modules_bd_a")?, b: list("target_modules_bd_b")?, count, strict }))
    }

    /// Takes both factors of a target, as `[rank, cols]` and `[rows, rank]`.
    pub(super) fn take(&self, r: &mut Reading<'_>, t: &Target, rank: usize) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        let listed = |list: &[String]| list.iter().any(|part| t.module.contains(part.as_str()));
        let (in_a, in_b) = (listed(&self.a), listed(&self.b));
        if in_a == in_b && (in_a || self.strict) {
            let both = if in_a { "both" } else { "neither" };
            return Err(bad(
                OPTION,
                format!("{} is in {both} of target_modules_bd_a and target_modules_bd_b", t.module),
            ));
        }
        let side = if in_a { t.cols } else { t.rows };
        if (in_a || in_b) && !(rank.is_multiple_of(self.count) && side.is_multiple_of(self.count)) {
            let why = format!("{} blocks do not divide the rank {rank} and the {side} of {}", self.count, t.module);
            return Err(bad(OPTION, why));
        }
        let blocks = |yes: bool| if yes { self.count } else { 1 };
        let (of_a, of_b) = (blocks(in_a), blocks(in_b));
        let a = r.take(t, "lora_A.weight", &[rank, t.cols / of_a])?;
        let b = r.take(t, "lora_B.weight", &[t.rows, rank / of_b])?;
        Ok(a.zip(b).map(|(a, b)| (diagonal(&a, (rank, t.cols), of_a), diagonal(&b, (t.rows, rank), of_b))))
    }
}

/// `count` blocks of equal shape, one under the other, as the diagonal of a matrix of zeros.
fn diagonal(stored: &[f32], (rows, cols): (usize, usize), count: usize) -> Vec<f32> {
    let (width, height) = (cols / count, rows / count);
    let mut out = vec![0.0; rows * cols];
    for (i, (line, own)) in out.chunks_exact_mut(cols).zip(stored.chunks_exact(width)).enumerate() {
        let at = i / height * width;
        line[at..at + width].copy_from_slice(own);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stand_on_the_diagonal() {
        assert_eq!(diagonal(&[1.0, 2.0, 3.0, 4.0], (2, 4), 2), [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0]);
        assert_eq!(diagonal(&[1.0, 2.0], (2, 2), 2), [1.0, 0.0, 0.0, 2.0]);
        assert_eq!(diagonal(&[1.0, 2.0], (1, 2), 1), [1.0, 2.0]);
    }
}
