//! Tensors of several adapters made into one: task arithmetic (Ilharco et al. 2022, arXiv 2212.04089), pruning by
//! magnitude, and TIES (Yadav et al. 2023, arXiv 2306.01708), as `peft.utils.merge_utils` computes them.

use super::Majority;

/// How tensors of one shape become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Merge {
    /// Their weighted sum.
    Sum,
    /// The weighted sum of what is largest in each: the share `density` of its numbers.
    Prune { density: f64 },
    /// What is largest in each, then at every place the mean over those that agree with the majority's sign.
    Ties { density: f64, majority: Majority },
}

impl Merge {
    /// One tensor of as many numbers as each of `tensors` has; a weight each.
    pub(crate) fn of(self, mut tensors: Vec<Vec<f32>>, weights: &[f32]) -> Vec<f32> {
        match self {
            Self::Sum => sum(&tensors, weights),
            Self::Prune { density } => {
                tensors.iter_mut().for_each(|t| prune(t, density));
                sum(&tensors, weights)
            }
            Self::Ties { density, majority } => {
                tensors.iter_mut().for_each(|t| prune(t, density));
                agreed(&tensors, weights, majority)
            }
        }
    }
}

fn sum(tensors: &[Vec<f32>], weights: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; tensors.first().map_or(0, Vec::len)];
    for (t, w) in tensors.iter().zip(weights) {
        out.iter_mut().zip(t).for_each(|(o, x)| *o += w * x);
    }
    out
}

/// Leaves the `density` of `t` that is largest in size; of equal ones the first. Nothing is done at 1 and above.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "0 ≤ density < 1"
)]
fn prune(t: &mut [f32], density: f64) {
    if density >= 1.0 {
        return;
    }
    let keep = (density * t.len() as f64) as usize;
    let mut order: Vec<usize> = (0..t.len()).collect();
    order.sort_by(|i, j| t[*j].abs().total_cmp(&t[*i].abs()));
    order.iter().skip(keep).for_each(|i| t[*i] = 0.0);
}

/// At each place the mean of the weighted numbers whose sign is the majority's; the vote is taken before weights.
fn agreed(tensors: &[Vec<f32>], weights: &[f32], majority: Majority) -> Vec<f32> {
    let vote = |x: f32| match majority {
        Majority::Total => x,
        Majority::Frequency => sign(x),
    };
    let mut out = vec![0.0; tensors.first().map_or(0, Vec::len)];
    for (i, o) in out.iter_mut().enumerate() {
        let elected = if tensors.iter().map(|t| vote(t[i])).sum::<f32>() >= 0.0 { 1.0 } else { -1.0 };
        let mut count = 0.0f32;
        for (t, w) in tensors.iter().zip(weights).filter(|(t, _)| sign(t[i]).total_cmp(&elected).is_eq()) {
            *o += w * t[i];
            count += 1.0;
        }
        *o /= count.max(1.0);
    }
    out
}

/// 0 for 0, which `f32::signum` has not.
fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_library_computes_them() {
        // peft 0.21: `task_arithmetic`, `magnitude_prune`, `ties` of the same tensors.
        let tensors = || vec![vec![1.0, -2.0, 0.5, 4.0], vec![-3.0, -1.0, 0.25, 0.0], vec![2.5, 3.5, -0.5, -1.0]];
        let w = [0.5, 1.0, -2.0];
        assert_eq!(Merge::Sum.of(tensors(), &w), [-7.5, -9.0, 1.5, 4.0]);
        assert_eq!(Merge::Prune { density: 0.5 }.of(tensors(), &w), [-8.0, -9.0, 0.0, 2.0]);
        let ties = |majority| Merge::Ties { density: 0.5, majority }.of(tensors(), &w);
        assert_eq!(ties(Majority::Total), [-3.0, -7.0, 0.0, 2.0]);
        assert_eq!(ties(Majority::Frequency), [-5.0, -1.0, 0.0, 2.0]);
        assert_eq!(Merge::Prune { density: 0.0 }.of(tensors(), &w), [0.0; 4]);
        assert_eq!(Merge::Prune { density: 1.0 }.of(tensors(), &w), Merge::Sum.of(tensors(), &w));
    }
}
