//! GLoRA: `W' = W + W ∘ A + B`, `b' = b + b ∘ D + E + W C`, each of the five low-rank, a vector, a number or nothing.

use super::config::bad;
use super::family::{Family, Reader};
use super::reading::{Reading, Target};
use crate::dense::product;
use crate::error::{Result, shown};

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["config_A_B", "config_C", "config_D_E", "r"],
    silent: &["init_weights"],
    markers: &[".glora_"],
    reader: Reader::Load(load),
    ..Family::new("GLORA", "glora", "GLoRA (Chavan et al. 2023, arXiv 2306.07967)")
};

/// One of the five as it is stored.
#[derive(Debug)]
enum Support {
    /// `[rows, r]` and `[r, cols]`.
    LowRank(Vec<f32>, Vec<f32>),
    /// One number a row.
    Vector(Vec<f32>),
    Constant(f32),
    None,
}

impl Support {
    fn held(&self) -> usize {
        match self {
            Self::LowRank(d, u) => d.len() + u.len(),
            Self::Vector(v) => v.len(),
            Self::Constant(_) | Self::None => 1,
        }
    }

    /// As a whole matrix of `rows × cols`, or nothing.
    fn dense(&self, rows: usize, cols: usize) -> Option<Vec<f32>> {
        match self {
            Self::LowRank(d, u) => Some(product(d, u, u.len() / cols.max(1), cols)),
            Self::Vector(v) => Some((0..rows * cols).map(|i| v[i / cols]).collect()),
            Self::Constant(x) => Some(vec![*x; rows * cols]),
            Self::None => None,
        }
    }
}

fn load(r: &mut Reading<'_>) -> Result<()> {
    let rank = r.config.count("r", 8)?;
    let form = |key: &'static str, default, known: &[&str]| {
        let text = r.config.text(key, default)?;
        let wrong = || bad(key, format!("{:?} is not one of {}", shown(text), known.join(", ")));
        if known.contains(&text) { Ok(text) } else { Err(wrong()) }
    };
    let ab = form("config_A_B", "lora", &["lora", "vector", "constant", "none"])?;
    let c = form("config_C", "lora", &["lora", "vector", "none"])?;
    let de = form("config_D_E", "constant", &["constant", "vector", "none"])?;
    for t in r.targets()? {
        // Without a bias there is nothing for these to change.
        let with = |form| if r.has_bias(&t) { form } else { "none" };
        let (c, de) = (with(c), with(de));
        let a = support(r, &t, "glora_A", ab, rank, [t.rows, t.cols])?;
        let b = support(r, &t, "glora_B", ab, rank, [t.rows, t.cols])?;
        let c = support(r, &t, "glora_C", c, rank, [t.cols, 1])?;
        let d = support(r, &t, "glora_D", de, rank, [t.rows, 0])?;
        let e = support(r, &t, "glora_E", de, rank, [t.rows, 0])?;
        let Some((((a, b), (c, d)), e)) = a.zip(b).zip(c.zip(d)).zip(e) else { continue };
        let held = [&a, &b, &c, &d, &e].into_iter().map(Support::held).sum();
        r.adds(&t, held, move |layer| {
            let (rows, cols) = (layer.rows, layer.cols);
            let moved = c.dense(cols, 1).map(|c| product(&layer.weight, &c, cols, 1));
            if let Some(bias) = &mut layer.bias {
                if let Some(d) = d.dense(rows, 1) {
                    bias.iter_mut().zip(&d).for_each(|(b, d)| *b += *b * d);
                }
                for more in [e.dense(rows, 1), moved].into_iter().flatten() {
                    bias.iter_mut().zip(&more).for_each(|(b, x)| *b += x);
                }
            }
            if let Some(a) = a.dense(rows, cols) {
                layer.weight.iter_mut().zip(&a).for_each(|(w, a)| *w += *w * a);
            }
            if let Some(b) = b.dense(rows, cols) {
                layer.add(&b, 1.0);
            }
            Ok(())
        });
    }
    Ok(())
}

/// Takes one of the five; `cols` is 0 for a vector that is stored as such and not as a column.
fn support(
    r: &mut Reading<'_>,
    t: &Target,
    name: &str,
    form: &str,
    rank: usize,
    [rows, cols]: [usize; 2],
) -> Result<Option<Support>> {
    Ok(match form {
        "lora" => {
            let d = r.take(t, &format!("{name}.Xd"), &[rows, rank])?;
            let u = r.take(t, &format!("{name}.Xu"), &[rank, cols])?;
            d.zip(u).map(|(d, u)| Support::LowRank(d, u))
        }
        "vector" => {
            let shape: &[usize] = if cols == 0 { &[rows] } else { &[rows, 1] };
            r.take(t, &format!("{name}.X"), shape)?.map(Support::Vector)
        }
        "constant" => r.take(t, &format!("{name}.X"), &[1])?.map(|x| Support::Constant(x[0])),
        _ => {
            // PEFT stores a matrix of zeros.
            r.ignore(t, &format!("{name}.zeros"));
            Some(Support::None)
        }
    })
}
