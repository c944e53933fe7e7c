//! LoRAs that begin as a part of the base's weight, or give a part of it up: PEFT takes the same part out of the base
//! when it loads them, and so must we.

use super::config::{Config, bad};
use super::reading::{Reading, Target};
use crate::error::{Result, shown};
use crate::json::Json;
use crate::maths::linalg::Mat;
use crate::maths::svd::truncated;
use polygraft::ir::Layer;

/// Which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// The largest singular values (PiSSA, Meng et al. 2024, arXiv 2404.02948).
    Largest,
    /// The smallest singular values (KaSA, Wang et al. 2024, arXiv 2412.06071).
    Smallest,
    /// What the first columns span, as often as the LoRA's scale says (OLoRA, Büyükakyüz 2024, arXiv 2406.01775).
    FirstColumns,
}

impl Split {
    /// What the configuration of a LoRA asks for; an initialisation that cannot be repeated is refused.
    pub(super) fn of(config: &Config<'_>) -> Result<Option<Self>> {
        let key = "init_lora_weights";
        let refused = |why: &str| {
            let way = "save it in Python with path_initial_model_for_weight_conversion, which makes a plain LoRA of it";
            Err(bad(key, format!("{why}; {way}")))
        };
        let init = match config.get(key) {
            None | Some(Json::Bool(_)) => None,
            Some(Json::Text(name)) => match name.as_str() {
                "gaussian" | "eva" | "orthogonal" | "lora_ga" | "mica" => None,
                "pissa" => Some(Self::Largest),
                "olora" => Some(Self::FirstColumns),
                "corda" => {
                    return refused(
                        "corda (CorDA) took a part out of the base that only its calibration data give again",
                    );
                }
                "loftq" => {
                    return refused(
                        "loftq (LoftQ) rounds the base's own weights whenever PEFT loads it, by bitsandbytes on a GPU",
                    );
                }
                name if name.starts_with("pissa_niter_") => {
                    return refused(
                        "pissa_niter (PiSSA by a random decomposition) took a part out of the base that random numbers chose, new at every load",
                    );
                }
                name => return Err(bad(key, format!("{:?} is not an initialisation", shown(name)))),
            },
            Some(other) => return Err(bad(key, format!("{} is not an initialisation", other.brief()))),
        };
        match (init, config.get("kasa_config")) {
            (init, None) => Ok(init),
            (None, Some(_)) => Ok(Some(Self::Smallest)),
            (Some(_), Some(_)) => Err(bad("kasa_config", "KaSA beside another part that is taken out of the base")),
        }
    }

    /// The part of the weight.
    pub(super) fn part(self, layer: &Layer, rank: usize, scale: f32) -> std::result::Result<Vec<f32>, String> {
        let side = layer.rows.min(layer.cols);
        let part = |w: &Mat| match self {
            Self::Largest => truncated(w, rank),
            Self::Smallest => w.clone().minus(&truncated(w, side.saturating_sub(rank))?),
            Self::FirstColumns => {
                let first: Vec<f64> = (0..w.rows()).flat_map(|i| &w.row(i)[..rank.min(side)]).copied().collect();
                let (q, _) = Mat::new(w.rows(), rank.min(side), first)?.qr()?;
                let mut part = q.times(&q.transposed().times(w)?)?;
                part.data_mut().iter_mut().for_each(|x| *x *= f64::from(scale));
                Some(part)
            }
        };
        let part = Mat::from_f32(layer.rows, layer.cols, &layer.weight).and_then(|w| part(&w));
        Ok(part.ok_or("the weight has no singular value decomposition")?.to_f32())
    }

    /// Adds the change that takes the part out of a layer.
    pub(super) fn take_out(self, r: &mut Reading<'_>, t: &Target, rank: usize, scale: f32) -> Result<()> {
        if self == Self::Smallest && rank >= t.rows.min(t.cols) {
            return Err(bad("r", format!("KaSA of rank {rank} would leave nothing of the weight of {}", t.module)));
        }
        r.adds(t, 0, move |layer| {
            let part = self.part(layer, rank, scale)?;
            layer.add(&part, -1.0);
            Ok(())
        });
        Ok(())
    }
}
