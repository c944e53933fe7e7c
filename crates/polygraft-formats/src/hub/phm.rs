//! Compacter's projections (Karimi Mahabadi et al. 2021): `y = x H + b` with `H = Σ kron(Aᵢ, Bᵢ)`, folded to a dense
//! matrix. `A` (the rule) and `B` may be shared by all layers, and each may be a product of two factors.

use super::config::Settings;
use super::reading::Reading;
use crate::error::Result;
use polygraft::tensor::Matrix;

/// Which of a bottleneck's projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Down,
    Up,
}

/// What the projections of one adapter have in common.
pub(super) struct Phm {
    n: usize,
    rank: usize,
    bias: bool,
    factored_rule: bool,
    factored: bool,
    shared_weights: bool,
    /// `[n, n, n]`, when it is shared.
    rule: Option<Vec<f32>>,
    shared_rule: bool,
    /// `[n, inputs / n, outputs / n]` of both sides, when they are shared.
    weights: [Option<Vec<f32>>; 2],
}

impl Phm {
    /// The shared part; `None` for plain projections, whose other settings then mean nothing.
    pub(super) fn read(r: &mut Reading<'_>, s: &Settings) -> Result<Option<Self>> {
        if !s.flag("phm_layer", false)? {
            return Ok(None);
        }
        let mut phm = Self {
            n: s.whole("phm_dim", 4)?,
            rank: s.whole("phm_rank", 1)?,
            bias: s.flag("phm_bias", true)?,
            factored_rule: s.flag("factorized_phm_rule", false)?,
            factored: s.flag("factorized_phm_W", true)?,
            shared_weights: s.flag("shared_W_phm", false)?,
            rule: None,
            shared_rule: s.flag("shared_phm_rule", true)?,
            weights: [None, None],
        };
        let path = format!("shared_parameters.{}", r.name);
        if phm.shared_rule {
            phm.rule = phm.rule(r, &path)?;
        }
        if phm.shared_weights {
            let hidden = r.spec.hidden;
            let inner = match s.number("reduction_factor") {
                #[allow(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "widths"
                )]
                Ok(Some(f)) if f > 0.0 => (hidden as f64 / f).floor() as usize,
                _ => return Err(s.bad("shared_W_phm", "shared weights need one reduction_factor for all layers")),
            };
            phm.divides(s, hidden, inner)?;
            phm.weights = [
                phm.weight(r, &format!("{path}.W_down"), hidden, inner)?,
                phm.weight(r, &format!("{path}.W_up"), inner, hidden)?,
            ];
        }
        Ok(Some(phm))
    }

    fn divides(&self, s: &Settings, inputs: usize, outputs: usize) -> Result<()> {
        if inputs.is_multiple_of(self.n) && outputs.is_multiple_of(self.n) {
            return Ok(());
        }
        Err(s.bad("phm_dim", format!("{} does not divide {inputs} and {outputs}, the widths of a projection", self.n)))
    }

    /// The dense form of the projection at `path`, `[outputs, inputs]`, and its bias.
    pub(super) fn dense(
        &self,
        r: &mut Reading<'_>,
        s: &Settings,
        path: &str,
        side: Side,
        inputs: usize,
        outputs: usize,
    ) -> Result<Option<(Matrix, Vec<f32>)>> {
        self.divides(s, inputs, outputs)?;
        let own_rule = if self.shared_rule { None } else { self.rule(r, path)? };
        let own_weights =
            if self.shared_weights { None } else { self.weight(r, &format!("{path}.W"), inputs, outputs)? };
        let bias = if self.bias { r.tensors.need(&format!("{path}.b"), &[outputs])? } else { Some(vec![0.0; outputs]) };
        let shared = if side == Side::Down { &self.weights[0] } else { &self.weights[1] };
        let rule = own_rule.as_ref().or(self.rule.as_ref());
        let weights = own_weights.as_ref().or(shared.as_ref());
        let (Some(rule), Some(weights), Some(bias)) = (rule, weights, bias) else { return Ok(None) };
        if weights.len() * self.n != inputs * outputs {
            return Err(s.bad("shared_W_phm", format!("shared weights do not fit {inputs} × {outputs}")));
        }
        Ok(Matrix::dense(outputs, inputs, self.fold(rule, weights, inputs, outputs)).map(|m| (m, bias)))
    }

    /// `H[p · inputs/n + q, s · outputs/n + t] = Σᵢ Aᵢ[p, s] · Bᵢ[q, t]`, transposed.
    #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
    fn fold(&self, rule: &[f32], weights: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
        let (n, ins, outs) = (self.n, inputs / self.n, outputs / self.n);
        let mut out = Vec::with_capacity(inputs * outputs);
        for row in 0..outputs {
            let (s, t) = (row / outs, row % outs);
            for col in 0..inputs {
                let (p, q) = (col / ins, col % ins);
                let term =
                    |i: usize| f64::from(rule[(i * n + p) * n + s]) * f64::from(weights[(i * ins + q) * outs + t]);
                out.push((0..n).map(term).sum::<f64>() as f32);
            }
        }
        out
    }

    /// `phm_rule` `[n, n, n]`, or the product of its factors.
    fn rule(&self, r: &mut Reading<'_>, path: &str) -> Result<Option<Vec<f32>>> {
        let n = self.n;
        if !self.factored_rule {
            return r.tensors.need(&format!("{path}.phm_rule"), &[n, n, n]);
        }
        let left = r.tensors.need(&format!("{path}.phm_rule_left"), &[n, n, 1])?;
        let right = r.tensors.need(&format!("{path}.phm_rule_right"), &[n, 1, n])?;
        Ok(left.zip(right).map(|(l, r)| products(&l, &r, [n, n, 1, n])))
    }

    /// `name` `[n, inputs / n, outputs / n]`, or the product of `name_left` and `name_right`.
    fn weight(&self, r: &mut Reading<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Option<Vec<f32>>> {
        let (n, ins, outs) = (self.n, inputs / self.n, outputs / self.n);
        if !self.factored {
            return r.tensors.need(name, &[n, ins, outs]);
        }
        let left = r.tensors.need(&format!("{name}_left"), &[n, ins, self.rank])?;
        let right = r.tensors.need(&format!("{name}_right"), &[n, self.rank, outs])?;
        Ok(left.zip(right).map(|(l, r)| products(&l, &r, [n, ins, self.rank, outs])))
    }
}

/// `n` products of `[rows, inner]` and `[inner, cols]`.
#[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
fn products(left: &[f32], right: &[f32], [n, rows, inner, cols]: [usize; 4]) -> Vec<f32> {
    let mut out = Vec::with_capacity(n * rows * cols);
    for i in 0..n {
        for row in 0..rows {
            for col in 0..cols {
                let term = |k: usize| {
                    f64::from(left[(i * rows + row) * inner + k]) * f64::from(right[(i * inner + k) * cols + col])
                };
                out.push((0..inner).map(term).sum::<f64>() as f32);
            }
        }
    }
    out
}
