//! RandLoRA: a sum of random updates of low rank, as many as full rank takes, each scaled by vectors of the layer's own.

use super::family::{Family, Reader};
use super::lora::scale;
use super::projections::{check_size, widest};
use super::reading::{Reading, Target};
use crate::dense::{product, transposed};
use crate::error::Result;
use crate::maths::torch_random::{TorchRandom, kaiming_bound};
use half::bf16;
use std::sync::Arc;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["projection_prng_key", "r", "randlora_alpha", "save_projection", "sparse", "very_sparse"],
    silent: &["init_weights", "randlora_dropout"],
    markers: &[".randlora_"],
    base: false,
    reader: Reader::Load(load),
    ..Family::new("RANDLORA", "randlora", "RandLoRA (Albert et al. 2025, arXiv 2502.00987)")
};

/// What all layers share: `a` is `[rank, narrow]`, `b` `[.., bases, rank]`.
struct Bases {
    a: Vec<f32>,
    b: Vec<f32>,
    rank: usize,
    bases: usize,
    narrow: usize,
}

fn load(r: &mut Reading<'_>) -> Result<()> {
    let rank = r.config.count("r", 32)?;
    let s = scale(r.config.number("randlora_alpha", 640.0)?, rank, false);
    let targets = r.targets()?;
    for t in &targets {
        // PEFT writes the shared matrices once more for every layer.
        r.ignore(t, "randlora_A");
        r.ignore(t, "randlora_B");
    }
    let Some(shared) = (if r.config.flag("save_projection", true)? {
        stored(r, rank, &targets)?
    } else {
        Some(drawn(r, rank, &targets)?)
    }) else {
        return Ok(());
    };
    let shared = Arc::new(shared);
    for t in targets {
        let (narrow, bases) = (t.rows.min(t.cols), t.rows.min(t.cols).div_ceil(rank));
        let lambda = r.take(&t, "randlora_lambda", &[rank, bases])?;
        let gamma = r.take(&t, "randlora_gamma", &[bases, narrow])?;
        let Some((lambda, gamma)) = lambda.zip(gamma) else { continue };
        let shared = Arc::clone(&shared);
        r.adds(&t, lambda.len() + gamma.len() + shared.a.len() + shared.b.len(), move |layer| {
            layer.add(&shared.delta(layer.rows, layer.cols, &lambda, &gamma), s);
            Ok(())
        });
    }
    Ok(())
}

impl Bases {
    /// The update of a layer, without its scale.
    ///
    /// PEFT flattens (rank, basis) in one order for `a` and in the other one for `b`, and multiplies what meets.
    fn delta(&self, rows: usize, cols: usize, lambda: &[f32], gamma: &[f32]) -> Vec<f32> {
        let (narrow, wide) = (rows.min(cols), rows.max(cols));
        let bases = narrow.div_ceil(self.rank);
        let inner = bases * self.rank;
        let mut a = Vec::with_capacity(inner * narrow);
        for (k, row) in self.a.chunks_exact(self.narrow.max(1)).enumerate() {
            for base in 0..bases {
                let factors = gamma[base * narrow..][..narrow].iter().map(|g| lambda[k * bases + base] * g);
                a.extend(row.iter().zip(factors).map(|(a, f)| a * f));
            }
        }
        let b: Vec<f32> = self
            .b
            .chunks_exact((self.bases * self.rank).max(1))
            .take(wide)
            .flat_map(|row| &row[..inner])
            .copied()
            .collect();
        let wide_by_narrow = product(&b, &a, inner, narrow);
        // The narrow side is the inputs' where both are equal.
        if narrow == cols { wide_by_narrow } else { transposed(&wide_by_narrow, narrow) }
    }
}

fn stored(r: &mut Reading<'_>, rank: usize, targets: &[Target]) -> Result<Option<Bases>> {
    let shape = |name: &str| r.shared_shape(name);
    let (Some(&[_, 1, narrow]), Some(&[wide, bases, _])) =
        (shape("randlora_A").as_deref(), shape("randlora_B").as_deref())
    else {
        ["randlora_A", "randlora_B"].iter().for_each(|name| r.shared_missing(name));
        return Ok(None);
    };
    let a = r.shared("randlora_A", &[rank, 1, narrow])?;
    let b = r.shared("randlora_B", &[wide, bases, rank])?;
    let need = |f: fn(&Target) -> usize| targets.iter().map(f).max().unwrap_or_default();
    let (needs_narrow, needs_wide) = (need(|t| t.rows.min(t.cols)), need(|t| t.rows.max(t.cols)));
    if narrow < needs_narrow || wide < needs_wide || bases < needs_narrow.div_ceil(rank) {
        let needs = format!("at least [{needs_wide}, {}, {rank}]", needs_narrow.div_ceil(rank));
        let found = format!("[{wide}, {bases}, {rank}] beside {narrow} columns of randlora_A");
        return Err(r.shared_wrong("randlora_B", &needs, &found));
    }
    Ok(a.zip(b).map(|(a, b)| Bases { a, b, rank, bases, narrow }))
}

/// As torch 2.9 and later draw them: in bfloat16 from 24 bits, divided by their standard deviation.
fn drawn(r: &mut Reading<'_>, rank: usize, targets: &[Target]) -> Result<Bases> {
    let (rows, cols) = widest(targets);
    let (narrow, wide) = (rows.min(cols), rows.max(cols));
    let bases = narrow.div_ceil(rank);
    let (a_size, b_size) = ([rank, narrow], [wide, bases, rank]);
    check_size("r", &a_size)?;
    check_size("r", &b_size)?;
    ["randlora_A", "randlora_B"].iter().for_each(|name| r.ignore_shared(name));
    let mut random = TorchRandom::new(r.config.seed("projection_prng_key", 0)?);
    let sparse = if r.config.flag("very_sparse", false)? {
        #[allow(clippy::cast_precision_loss, reason = "a width")]
        Some((narrow as f64).sqrt())
    } else {
        r.config.flag("sparse", false)?.then_some(3.0)
    };
    let (mut a, mut b): (Vec<f32>, Vec<f32>);
    if let Some(sparsity) = sparse {
        let mut draw =
            |n: usize| random.uniform(n, 0.0, 1.0).into_iter().map(|x| sign(x, sparsity)).collect::<Vec<_>>();
        (a, b) = (draw(a_size.iter().product()), draw(b_size.iter().product()));
        unit(&mut a, |x| x);
        unit(&mut b, |x| x);
    } else {
        let mut draw = |n: usize, fan_in: usize| {
            #[allow(clippy::cast_possible_truncation, reason = "the numbers are no wider in torch")]
            let bound = kaiming_bound(fan_in, 5.0f64.sqrt()) as f32;
            random.uniform_bf16(n, -bound, bound)
        };
        a = draw(rank * narrow, narrow);
        b = vec![0.0; wide * bases * rank];
        for base in 0..bases {
            let drawn = draw(wide * rank, rank);
            for (row, drawn) in b.chunks_exact_mut(bases * rank).zip(drawn.chunks_exact(rank)) {
                row[base * rank..][..rank].copy_from_slice(drawn);
            }
        }
        unit(&mut a, rounded);
        unit(&mut b, rounded);
    }
    Ok(Bases { a, b, rank, bases, narrow })
}

/// −1, 0 or 1, each of the outer ones with probability `1 / (2 · sparsity)`.
#[allow(clippy::cast_possible_truncation, reason = "torch compares in f32")]
fn sign(x: f32, sparsity: f64) -> f32 {
    let edge = 1.0 / (2.0 * sparsity);
    if x < edge as f32 {
        -1.0
    } else if x > (1.0 - edge) as f32 {
        1.0
    } else {
        0.0
    }
}

fn rounded(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// Divides by the unbiased standard deviation, in the precision that `round` has.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "rounding is the point")]
fn unit(values: &mut [f32], round: fn(f32) -> f32) {
    let n = values.len() as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
    let std = round((squares / (n - 1.0)).sqrt() as f32);
    values.iter_mut().for_each(|x| *x = round(*x / std));
}
