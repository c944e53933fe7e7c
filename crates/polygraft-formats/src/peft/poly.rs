//! Poly: a LoRA whose factors are mixed of several skills, in the proportions of a task.

use super::config::bad;
use super::family::{Family, Reader};
use super::reading::Reading;
use crate::dense::transposed;
use crate::error::{FormatError, Result, shown};

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["n_skills", "n_splits", "n_tasks", "poly_type", "r"],
    silent: &["init_weights"],
    markers: &[".poly_"],
    ops: "low-rank",
    base: false,
    task: true,
    reader: Reader::Load(load),
    ..Family::new("POLY", "poly", "Polytropon (Ponti et al. 2022, arXiv 2202.13914)")
};

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "weights are f32; ranks are small")]
fn load(r: &mut Reading<'_>) -> Result<()> {
    let (rank, skills) = (r.config.count("r", 8)?, r.config.count("n_skills", 4)?);
    let (tasks, splits) = (r.config.count("n_tasks", 1)?, r.config.count("n_splits", 1)?);
    let kind = r.config.text("poly_type", "poly")?;
    if kind != "poly" {
        return Err(bad("poly_type", format!("{:?} is not poly", shown(kind))));
    }
    let task = r.task(tasks)?;
    for t in r.targets()? {
        if !t.rows.is_multiple_of(splits) || !t.cols.is_multiple_of(splits) {
            return Err(bad("n_splits", format!("{splits} does not divide the {} × {} of {}", t.rows, t.cols, t.path)));
        }
        let (rows, cols) = (t.rows / splits, t.cols / splits);
        let logits = r.take(&t, "poly_router.module_logits", &[tasks, splits * skills])?;
        let a = r.take(&t, "poly_lora_A", &[splits, skills, cols, rank])?;
        let b = r.take(&t, "poly_lora_B", &[splits, skills, rank, rows])?;
        let Some((logits, (a, b))) = logits.zip(a.zip(b)) else { continue };
        let logits = &logits[task * splits * skills..][..splits * skills];
        let mut weights: Vec<f64> = logits.iter().map(|x| 1.0 / (1.0 + (-f64::from(*x)).exp())).collect();
        for split in weights.chunks_exact_mut(skills) {
            let sum: f64 = split.iter().sum::<f64>() + 1e-12;
            split.iter_mut().for_each(|w| *w /= sum);
        }
        let mix = |from: &[f32], size: usize| -> Vec<f32> {
            let one = |split: usize, i: usize| {
                let skill = |s: usize| weights[split * skills + s] * f64::from(from[(split * skills + s) * size + i]);
                (0..skills).map(skill).sum::<f64>() as f32
            };
            (0..splits).flat_map(|split| (0..size).map(move |i| (split, i))).map(|(s, i)| one(s, i)).collect()
        };
        // A: the splits' inputs one after another, [cols, rank]. B: their outputs, [splits, rank, rows].
        let (a, b) = (mix(&a, cols * rank), mix(&b, rank * rows));
        let b: Vec<f32> = b.chunks_exact((rank * rows).max(1)).flat_map(|b| transposed(b, rows)).collect();
        r.low_rank(&t, transposed(&a, rank), b, None, 1.0 / rank as f32);
    }
    Ok(())
}

impl Reading<'_> {
    /// The task that the caller chose, of `tasks`.
    pub(super) fn task(&self, tasks: usize) -> Result<usize> {
        let wrong = |why: String| FormatError::Argument { what: "task".into(), why };
        let chosen = self.options.task.ok_or_else(|| {
            wrong(format!("this adapter holds {tasks}: say which when it is loaded, task: 0 to {}", tasks - 1))
        })?;
        let chosen = usize::try_from(chosen).unwrap_or(usize::MAX);
        if chosen < tasks { Ok(chosen) } else { Err(wrong(format!("{chosen} is not one of this adapter's {tasks}"))) }
    }
}
