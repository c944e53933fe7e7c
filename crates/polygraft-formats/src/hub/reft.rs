//! ReFT (Wu et al. 2024): interventions `y = x + (f(W x + b) − R x) R` at the first and last positions of layer outputs.
//!
//! LoReFT's `R` has orthonormal rows and is stored as torch parametrises it; DiReFT leaves `R x` out, which its folder
//! does not say: the library reads it as NoReFT, unless its configuration is the bare name. An option says otherwise.

use super::config::Settings;
use super::family::Family;
use super::names;
use super::reading::Reading;
use crate::adapter::ReftForm;
use crate::error::{FormatError, Result};
use crate::json::Json;
use crate::maths::linalg::Mat;
use polygraft::ir::{Op, Reft, ReftUnit, Site};
use polygraft::tensor::Matrix;

/// The method's row.
pub(super) const FAMILY: Family = Family {
    name: "reft",
    paper: "ReFT (Wu et al. 2024, arXiv 2404.03592)",
    architecture: Some("reft"),
    mode: None,
    reads: &[
        "architecture",
        "layers",
        "non_linearity",
        "orthogonality",
        "output_reft",
        "prefix_positions",
        "r",
        "subtract_projection",
        "suffix_positions",
        "tied_weights",
    ],
    silent: &["dropout", "dtype", "init_weights_seed"],
    ops: "reft",
    hooks: true,
    merges: false,
    load,
};

fn load(r: &mut Reading<'_>, s: &Settings) -> Result<()> {
    for key in ["layers", "prefix_positions", "suffix_positions", "r", "orthogonality"] {
        if s.get(key).is_none() {
            return Err(s.bad(key, "it is missing"));
        }
    }
    let (rank, hidden) = (s.whole("r", 1)?, r.spec.hidden);
    let orthogonal = s.flag("orthogonality", false)?;
    let positions = |key: &str| Ok(u32::try_from(s.count(key, 0)?).unwrap_or(u32::MAX));
    let (prefix, suffix) = (positions("prefix_positions")?, positions("suffix_positions")?);
    let tied = s.flag("tied_weights", false)?;
    let activation = s.activation("non_linearity")?;
    let form = r.options.reft.filter(|_| !orthogonal);
    let subtract = s.flag("subtract_projection", true)? && form != Some(ReftForm::Direft);
    if r.options.reft.is_some() && orthogonal {
        let why = "this adapter is a LoReFT, which its configuration says: leave the option out".into();
        return Err(FormatError::Argument { what: "reft".into(), why });
    }
    r.reft = true;
    let chosen = match s.get("layers") {
        Some(Json::Text(all)) if all == "all" => None,
        _ => s.layers("layers")?,
    };
    for layer in 0..r.spec.layers {
        let here = s.flag("output_reft", true)? && chosen.as_ref().is_none_or(|c| c.contains(&usize::from(layer)));
        if !here {
            continue;
        }
        let path = format!("{}.reft_layer.refts.{}.units", names::layer(r.spec, layer), r.name);
        let mut unit = |number: u8| unit(r, &format!("{path}.{number}"), rank, hidden, orthogonal);
        let first = unit(0)?;
        // Stored for nothing when there is no suffix.
        let last = if tied { None } else { unit(1)? };
        let (Some(first), true) = (first, tied || last.is_some()) else { continue };
        let op = Reft { prefix, suffix, first, last, activation, subtract, uncounted: 0 };
        r.patch(Site::LayerOutput(layer), Op::Reft(Box::new(op)));
    }
    Ok(())
}

fn unit(r: &mut Reading<'_>, path: &str, rank: usize, hidden: usize, orthogonal: bool) -> Result<Option<ReftUnit>> {
    let source = r.tensors.matrix(&format!("{path}.learned_source.weight"), rank, hidden)?;
    let bias = r.tensors.need(&format!("{path}.learned_source.bias"), &[rank])?;
    let projection = if orthogonal {
        let path = format!("{path}.projection.parametrizations.weight");
        let original = r.tensors.need(&format!("{path}.original"), &[rank, hidden])?;
        let larger = rank.max(hidden);
        let base = r.tensors.need(&format!("{path}.0.base"), &[larger, larger])?;
        original.zip(base).and_then(|(original, base)| orthonormal(&original, &base, rank, hidden))
    } else {
        r.tensors.matrix(&format!("{path}.projection.weight"), rank, hidden)?
    };
    Ok(source.zip(bias).zip(projection).map(|((source, bias), projection)| ReftUnit { source, bias, projection }))
}

/// `torch.nn.utils.parametrizations.orthogonal`: Householder reflections for an oblong matrix, the exponential of a
/// skew-symmetric one for a square; times the base in which training began.
fn orthonormal(original: &[f32], base: &[f32], rank: usize, hidden: usize) -> Option<Matrix> {
    let x = Mat::from_f32(rank, hidden, original)?;
    let wide = rank < hidden;
    // From here on, rows of `x` are the columns that torch works with.
    let x = if wide { x } else { x.transposed() };
    let (k, n) = (x.rows(), x.cols());
    let q = if k == n { exponential(&x)? } else { reflections(&x)? };
    // (base · Q)ᵀ, with Qᵀ's rows at hand.
    let rows = q.times_transposed(&Mat::from_f32(n, n, base)?)?;
    let out = if wide { rows } else { rows.transposed() };
    Matrix::dense(rank, hidden, out.to_f32())
}

/// Qᵀ of `H₁ … H_k`, `Hⱼ = I − τⱼ vⱼ vⱼᵀ`, `vⱼ` with a one at `j` and what follows it in row `j` of `x`; signed by the
/// whole part of the diagonal.
fn reflections(x: &Mat) -> Option<Mat> {
    let (k, n) = (x.rows(), x.cols());
    let mut q = Mat::zeros(k, n)?;
    for j in 0..k {
        q.row_mut(j)[j] = 1.0;
    }
    for j in (0..k).rev() {
        let mut v = x.row(j).to_vec();
        v[..j].fill(0.0);
        v[j] = 1.0;
        let tau = 2.0 / v.iter().map(|v| v * v).sum::<f64>();
        for column in 0..k {
            let row = q.row_mut(column);
            let along: f64 = row.iter().zip(&v).map(|(q, v)| q * v).sum();
            row.iter_mut().zip(&v).for_each(|(q, v)| *q -= tau * along * v);
        }
    }
    for j in 0..k {
        let sign = x.row(j)[j].trunc();
        q.row_mut(j).iter_mut().for_each(|q| *q *= sign);
    }
    Some(q)
}

/// `exp(A)ᵀ` with `A = L − Lᵀ`, `L` the lower triangle of the matrix whose columns are the rows of `x`.
fn exponential(x: &Mat) -> Option<Mat> {
    let n = x.rows();
    // `x` is transposed: its upper triangle is L's lower. Aᵀ = −A, so exp(A)ᵀ = exp(−A).
    let mut a = Mat::zeros(n, n)?;
    for row in 0..n {
        for col in 0..row {
            let below = x.row(col)[row];
            a.row_mut(row)[col] = -below;
            a.row_mut(col)[row] = below;
        }
    }
    let norm = (0..n).map(|i| a.row(i).iter().map(|x| x.abs()).sum::<f64>()).fold(0.0, f64::max);
    let halvings = if norm > 0.5 { (norm / 0.5).log2().ceil().min(64.0) } else { 0.0 };
    let scale = (-halvings).exp2();
    a.data_mut().iter_mut().for_each(|x| *x *= scale);
    // Taylor's series: at a norm of a half, twenty terms are exact in f64.
    let mut sum = Mat::identity(n)?;
    let mut term = Mat::identity(n)?;
    for i in 1..=20 {
        term = term.times(&a)?;
        term.data_mut().iter_mut().for_each(|x| *x /= f64::from(i));
        sum.data_mut().iter_mut().zip(term.data()).for_each(|(s, t)| *s += t);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 64")]
    for _ in 0..halvings as u32 {
        sum = sum.times(&sum)?;
    }
    Some(sum)
}

/// Whether the option to read a DiReFT was given to a ReFT.
pub(super) fn option_fits(r: &Reading<'_>) -> Result<()> {
    match r.options.reft {
        Some(form) if !r.reft => {
            let why = format!("{:?} is for an adapter of ReFT, and this is none: leave it out", form.name());
            Err(FormatError::Argument { what: "reft".into(), why })
        }
        _ => Ok(()),
    }
}
