//! Changes of a linear layer's own weight: the families that are no low-rank update, as functions of the weight. A norm is
//! a layer of one input to them: `[width, 1]`.
//!
//! Such a change is computed once, on the base that runs, when a composition first needs it; rows then run the changed
//! layer in place of the base's ([`Op::ReplaceLinear`](super::Op::ReplaceLinear)). A family brings its mathematics with
//! its reader: the core knows only whether changes add up or follow one another.

use super::{Dense, Gate, Norm, Op};
use crate::tensor::Matrix;
use std::fmt;
use std::sync::Arc;

/// A linear layer in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `[rows, cols]`, row major.
    pub weight: Vec<f32>,
    /// `[rows]`.
    pub bias: Option<Vec<f32>>,
}

/// How a change meets others at its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// What it adds to the base's weight is added to whatever else is added: several give their sum, scales multiply.
    Adds,
    /// It is applied to whatever the changes before it in the composition left; its scale can only be 1.
    Follows,
    /// As [`Meeting::Follows`], but of several in a row the last is applied first: they act on a layer's inputs one after
    /// another, and so on its weight the other way round.
    Precedes,
    /// It multiplies the layer's outputs ([`Reweigh::factors`]): several in a stack multiply one another, members of an
    /// average are averaged ((IA)³ in AdapterHub).
    Scales,
    /// It multiplies the layer's outputs once all updates have been added, and a composition has one: its last adapter's
    /// (the norm of a DoRA in AdapterHub).
    Closes,
}

/// A change of a layer's weight, its bias, or both.
pub trait Reweigh: fmt::Debug + Send + Sync {
    /// Makes `layer` the changed one; `base` is the base's own, which `layer` is too for a change that
    /// [`Meeting::Adds`].
    ///
    /// # Errors
    /// When the layer's numbers do not allow it (a matrix that must be invertible is not), in plain words.
    fn apply(&self, layer: &mut Layer, base: &Layer) -> Result<(), String>;

    /// `[rows, cols]` of the layers that it fits.
    fn shape(&self) -> (usize, usize);

    /// A number for each output of the layer, for a change that multiplies the outputs and does nothing else; they may
    /// depend on the base's own layer.
    fn factors(&self, base: &Layer) -> Option<Vec<f32>> {
        let _ = base;
        None
    }

    /// What else multiplies the outputs, with [`Meeting::Scales`]: a number of the row.
    fn gate(&self) -> Option<&Gate> {
        None
    }

    /// How it meets others.
    fn meeting(&self) -> Meeting {
        Meeting::Adds
    }

    /// Whether the weight changes; a change of the bias alone costs no copy of the weight.
    fn changes_weight(&self) -> bool {
        true
    }

    /// Bytes of numbers held.
    fn bytes(&self) -> usize;
}

/// A shared [`Reweigh`]; equal when it is the same one.
#[derive(Debug, Clone)]
pub struct Reweight(pub Arc<dyn Reweigh>);

impl Reweight {
    /// Wraps a family's change.
    pub fn new(change: impl Reweigh + 'static) -> Self {
        Self(Arc::new(change))
    }
}

impl PartialEq for Reweight {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Layer {
    /// From a matrix and a bias.
    #[must_use]
    pub fn new(weight: &Matrix, bias: Option<Vec<f32>>) -> Self {
        Self { rows: weight.rows(), cols: weight.cols(), weight: weight.to_f32(), bias }
    }

    /// The bias, zeros where the layer has none, to be changed.
    pub fn bias_mut(&mut self) -> &mut Vec<f32> {
        let rows = self.rows;
        self.bias.get_or_insert_with(|| vec![0.0; rows])
    }

    /// Row `row` of the weight.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.weight[row * self.cols..(row + 1) * self.cols]
    }

    /// Multiplies each output by its factor, bias included.
    pub fn scale_rows(&mut self, factors: &[f32]) {
        for (row, factor) in self.weight.chunks_exact_mut(self.cols).zip(factors) {
            row.iter_mut().for_each(|w| *w *= factor);
        }
        self.bias.iter_mut().flatten().zip(factors).for_each(|(b, factor)| *b *= factor);
    }

    /// Adds `scale · delta`, `[rows, cols]`, to the weight.
    pub fn add(&mut self, delta: &[f32], scale: f32) {
        self.weight.iter_mut().zip(delta).for_each(|(w, d)| *w += scale * d);
    }

    fn add_difference(&mut self, changed: &Self, base: &Self, scale: f32) {
        let moved = |w: &mut f32, (c, b): (&f32, &f32)| *w += scale * (c - b);
        self.weight.iter_mut().zip(changed.weight.iter().zip(&base.weight)).for_each(|(w, cb)| moved(w, cb));
        if let Some(changed) = &changed.bias {
            let none = vec![0.0; self.rows];
            let base = base.bias.as_ref().unwrap_or(&none);
            self.bias_mut().iter_mut().zip(changed.iter().zip(base)).for_each(|(w, cb)| moved(w, cb));
        }
    }

    /// `W + scale · B A`, `b + scale · bias`, summed in f64.
    #[allow(clippy::cast_possible_truncation, reason = "rounding back to f32 is the point")]
    fn add_low_rank(&mut self, l: &super::LowRank, scale: f32) {
        let (a, b, rank, cols) = (l.a.to_f32(), l.b.to_f32(), l.a.rows(), self.cols);
        let s = f64::from(scale) * f64::from(l.scale);
        let mut sums = vec![0.0f64; cols];
        for (row, b) in self.weight.chunks_exact_mut(cols).zip(b.chunks_exact(rank)) {
            sums.fill(0.0);
            for (b, a) in b.iter().zip(a.chunks_exact(cols)) {
                sums.iter_mut().zip(a).for_each(|(s, a)| *s += f64::from(*b) * f64::from(*a));
            }
            row.iter_mut().zip(&sums).for_each(|(w, sum)| *w = (f64::from(*w) + s * sum) as f32);
        }
        if let Some(delta) = &l.bias {
            let change = |(b, d): (&mut f32, &f32)| *b = (f64::from(*b) + s * f64::from(*d)) as f32;
            self.bias_mut().iter_mut().zip(delta).for_each(change);
        }
    }

    fn replace_norm(&mut self, norm: &Norm) {
        if let Some(gamma) = &norm.gamma {
            self.weight.clone_from(gamma);
        }
        if let Some(beta) = &norm.beta {
            self.bias = Some(beta.clone());
        }
    }

    fn replace(&mut self, dense: &Dense) {
        if let Some(weight) = &dense.weight {
            self.weight = weight.to_f32();
        }
        if let Some(bias) = &dense.bias {
            self.bias = Some(bias.clone());
        }
    }
}

/// Folds `ops`, in the order of a composition and with its scales, into `base`.
///
/// A replaced layer is the base of the changes after it. What adds, adds its difference to the base; what follows is
/// applied to all that came before.
///
/// # Errors
/// As [`Reweigh::apply`].
pub fn fold<'a>(mut base: Layer, ops: impl IntoIterator<Item = (&'a Op, f32)>) -> Result<Layer, String> {
    let mut ops: Vec<(&Op, f32)> = ops.into_iter().collect();
    let precedes = |op: &Op| matches!(op, Op::Reweight(Reweight(change)) if change.meeting() == Meeting::Precedes);
    ops.chunk_by_mut(|a, b| precedes(a.0) && precedes(b.0)).for_each(<[_]>::reverse);
    let mut out = base.clone();
    for (op, scale) in ops {
        match op {
            Op::ReplaceLinear(dense) => {
                base.replace(dense);
                out.replace(dense);
            }
            Op::ReplaceNorm(norm) => {
                base.replace_norm(norm);
                out.replace_norm(norm);
            }
            Op::LowRank(l) => out.add_low_rank(l, scale),
            Op::Reweight(Reweight(change)) => match change.meeting() {
                Meeting::Follows | Meeting::Precedes | Meeting::Scales | Meeting::Closes => {
                    change.apply(&mut out, &base)?;
                }
                Meeting::Adds => {
                    let mut changed = base.clone();
                    change.apply(&mut changed, &base)?;
                    if out == base && scale == 1.0 {
                        out = changed;
                    } else {
                        out.add_difference(&changed, &base, scale);
                    }
                }
            },
            // None of these stands at a linear layer's weights.
            _ => {}
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::LowRank;

    #[derive(Debug)]
    struct Scaled(f32, Meeting);

    impl Reweigh for Scaled {
        fn apply(&self, layer: &mut Layer, _: &Layer) -> Result<(), String> {
            layer.weight.iter_mut().for_each(|w| *w *= self.0);
            layer.bias_mut().iter_mut().for_each(|b| *b += self.0);
            Ok(())
        }

        fn shape(&self) -> (usize, usize) {
            (1, 2)
        }

        fn meeting(&self) -> Meeting {
            self.1
        }

        fn bytes(&self) -> usize {
            4
        }
    }

    #[derive(Debug)]
    struct Turned(usize, Meeting);

    impl Reweigh for Turned {
        fn apply(&self, layer: &mut Layer, _: &Layer) -> Result<(), String> {
            layer.weight[self.0] = layer.weight.iter().sum();
            Ok(())
        }

        fn shape(&self) -> (usize, usize) {
            (1, 2)
        }

        fn meeting(&self) -> Meeting {
            self.1
        }

        fn bytes(&self) -> usize {
            0
        }
    }

    #[test]
    fn what_precedes_is_applied_the_other_way_round() {
        let base = || Layer { rows: 1, cols: 2, weight: vec![1.0, 2.0], bias: None };
        for (meeting, weight) in [(Meeting::Follows, vec![3.0, 5.0]), (Meeting::Precedes, vec![4.0, 3.0])] {
            let [first, second] = [0, 1].map(|at| Op::Reweight(Reweight::new(Turned(at, meeting))));
            assert_eq!(fold(base(), [(&first, 1.0), (&second, 1.0)]).unwrap().weight, weight);
        }
    }

    #[test]
    fn differences_add_and_what_follows_sees_them() {
        let base = || Layer { rows: 1, cols: 2, weight: vec![1.0, 2.0], bias: None };
        let op = |s, m| Op::Reweight(Reweight::new(Scaled(s, m)));
        let (twice, thrice) = (op(2.0, Meeting::Adds), op(3.0, Meeting::Adds));
        let sum = fold(base(), [(&twice, 1.0), (&thrice, 1.0)]).unwrap();
        assert_eq!((sum.weight, sum.bias), (vec![4.0, 8.0], Some(vec![5.0])));
        let half = fold(base(), [(&thrice, 0.5)]).unwrap();
        assert_eq!((half.weight, half.bias), (vec![2.0, 4.0], Some(vec![1.5])));
        let follows = op(10.0, Meeting::Follows);
        let both = fold(base(), [(&twice, 1.0), (&follows, 1.0)]).unwrap();
        assert_eq!((both.weight, both.bias), (vec![20.0, 40.0], Some(vec![12.0])));
        let dense = |v: Vec<f32>, r, c| Matrix::dense(r, c, v).unwrap();
        let (a, b) = (dense(vec![1.0, 0.0], 1, 2), dense(vec![1.0], 1, 1));
        let lora = Op::LowRank(LowRank { a, b, bias: Some(vec![2.0]), scale: 0.5 });
        let after = fold(base(), [(&lora, 1.0), (&follows, 1.0)]).unwrap();
        assert_eq!((after.weight, after.bias), (vec![15.0, 20.0], Some(vec![11.0])));
    }
}
