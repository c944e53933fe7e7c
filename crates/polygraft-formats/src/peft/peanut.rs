//! PEANuT: a small network that is run over the columns of the base's weight gives what is added to it,
//! `ΔW = s · B net(A W)`.

use super::config::bad;
use super::family::{Family, Reader};
use super::reading::Reading;
use crate::dense::product;
use crate::error::{Result, shown};
use polygraft::ir::Layer;
use polygraft::model::Activation;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["act_fn", "depth", "r", "scaling"],
    silent: &["init_weights"],
    markers: &[".peanut_"],
    reader: Reader::Load(load),
    ..Family::new("PEANUT", "peanut", "PEANuT (Zhong et al. 2024, arXiv 2410.01870)")
};

struct Network {
    act: Activation,
    rank: usize,
    a: Vec<f32>,
    encoders: Vec<Vec<f32>>,
    decoders: Vec<Vec<f32>>,
    b: Vec<f32>,
}

#[allow(clippy::cast_possible_truncation, reason = "scales are f32")]
fn load(r: &mut Reading<'_>) -> Result<()> {
    let (rank, scale) = (r.config.count("r", 32)?, r.config.number("scaling", 1.0)? as f32);
    let depth = r.config.whole("depth", 0)?;
    let name = r.config.text("act_fn", "relu")?;
    let Some(act) = Activation::from_name(name) else {
        return Err(bad("act_fn", format!("{:?} is not an activation that this version knows", shown(name))));
    };
    for t in r.targets()? {
        let a = r.take(&t, "peanut_A.weight", &[rank, t.rows])?;
        let b = r.take(&t, "peanut_B.weight", &[t.rows, rank])?;
        let mut hidden = |kind: &str| -> Result<Option<Vec<Vec<f32>>>> {
            (0..depth).map(|i| r.take(&t, &format!("peanut_{kind}.{i}.weight"), &[rank, rank])).collect()
        };
        let (encoders, decoders) = (hidden("encoders")?, hidden("decoders")?);
        let Some(((a, b), (encoders, decoders))) = a.zip(b).zip(encoders.zip(decoders)) else { continue };
        let held = a.len() + b.len() + 2 * depth * rank * rank;
        let network = Network { act, rank, a, encoders, decoders, b };
        r.adds(&t, held, move |layer| {
            let delta = network.run(layer);
            layer.add(&delta, scale);
            Ok(())
        });
    }
    Ok(())
}

impl Network {
    /// Column by column of the weight; the decoders add what entered the encoders, last first.
    fn run(&self, layer: &Layer) -> Vec<f32> {
        let cols = layer.cols;
        let act = |mut h: Vec<f32>| {
            h.iter_mut().for_each(|x| *x = self.act.eval(*x));
            h
        };
        let mut h = act(product(&self.a, &layer.weight, layer.rows, cols));
        let mut entered = Vec::new();
        for encoder in &self.encoders {
            let next = act(product(encoder, &h, self.rank, cols));
            entered.push(std::mem::replace(&mut h, next));
        }
        for decoder in &self.decoders {
            h = act(product(decoder, &h, self.rank, cols));
            let residual = entered.pop().unwrap_or_default();
            h.iter_mut().zip(&residual).for_each(|(x, r)| *x += r);
        }
        product(&self.b, &h, self.rank, cols)
    }
}
