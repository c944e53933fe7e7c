//! LoRA (Hu et al. 2021, arXiv 2106.09685) as `peft.tuners.lora` saves it: `y += s · (B A x + bias_B)`.

use super::config::{Patterns, bad};
use super::dora;
use super::family::{Family, Reader};
use super::reading::Reading;
use super::rows::LowRankRows;
use super::split::Split;
use super::tokens;
use crate::dense::scale_rows;
use crate::error::Result;
use polygraft::ir::Meeting;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &[
        "alpha_pattern",
        "init_lora_weights",
        "kasa_config",
        "lora_alpha",
        "lora_bias",
        "r",
        "rank_pattern",
        tokens::OPTION,
        "use_dora",
        "use_rslora",
    ],
    silent: &[
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "qalora_group_size",
    ],
    refuses: &[
        ("use_qalora", "this is QALoRA"),
        ("target_parameters", "this is LoRA on bare parameters"),
        ("layer_replication", "it replicates layers"),
        ("alora_invocation_tokens", "this is activated LoRA, which acts on some positions of a causal model"),
        ("use_bdlora", "this is BD-LoRA"),
        ("arrow_config", "Arrow routes tokens between adapters"),
        ("velora_config", "this is VeLoRA"),
        ("monteclora_config", "this is MonteCLoRA"),
        ("megatron_config", "these are Megatron's layers"),
    ],
    markers: &[".lora_", ".token_adapter."],
    ops: "low-rank, change of embeddings",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("LORA", "lora", "LoRA (Hu et al. 2021, arXiv 2106.09685)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let split = Split::of(r)?;
    let scales = Scales::of(r, "lora_alpha", r.config.flag("use_rslora", false)?)?;
    let with_bias = r.config.flag("lora_bias", false)?;
    let dora = r.config.flag("use_dora", false)?;
    if dora && with_bias {
        return Err(bad("lora_bias", "DoRA has no bias of its own, in PEFT or here"));
    }
    let kasa = split == Some(Split::Smallest);
    if dora && kasa {
        return Err(bad("kasa_config", "KaSA and DoRA are two kinds of LoRA, in PEFT or here"));
    }
    for t in r.tables()? {
        let (rank, scale) = scales.at(&t.module)?;
        let a = r.take(&t, "lora_embedding_A", &[rank, t.rows])?;
        let b = r.take(&t, "lora_embedding_B", &[t.cols, rank])?;
        let Some((a, b)) = a.zip(b) else { continue };
        let low_rank = LowRankRows { a, b, rank, rows: t.rows };
        if dora {
            dora::rows(r, &t, low_rank, scale)?;
            continue;
        }
        r.rewords(&t, low_rank.held(), Meeting::Adds, move |id, row| {
            row.iter_mut().zip(low_rank.at(id)).for_each(|(x, d)| *x += scale * d);
        });
    }
    tokens::option(r)?;
    for t in r.targets()? {
        let (rank, scale) = scales.at(&t.module)?;
        let a = r.take(&t, "lora_A.weight", &[rank, t.cols])?;
        let b = r.take(&t, "lora_B.weight", &[t.rows, rank])?;
        let bias = if with_bias { r.take(&t, "lora_B.bias", &[t.rows])? } else { None };
        let diag = if kasa { r.take(&t, "lora_diag", &[rank])? } else { None };
        let Some((mut a, b)) = a.zip(b).filter(|_| !kasa || diag.is_some()) else { continue };
        if let Some(diag) = diag {
            scale_rows(&mut a, t.cols, &diag);
        }
        if let Some(split) = split {
            split.take_out(r, &t, rank, scale)?;
        }
        if dora {
            dora::update(r, &t, a, b, scale, split)?;
        } else {
            r.low_rank(&t, a, b, bias, scale);
        }
    }
    Ok(())
}

/// Ranks and scales by module: PEFT's `r` and alpha, with their patterns.
pub(super) struct Scales {
    rank: usize,
    alpha: f64,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
    rslora: bool,
}

impl Scales {
    /// Reads `r`, the alpha that is called `alpha`, and the patterns of both.
    pub(super) fn of(r: &Reading<'_>, alpha: &'static str, rslora: bool) -> Result<Self> {
        Ok(Self {
            rank: r.config.count("r", 8)?,
            alpha: r.config.number(alpha, 8.0)?,
            ranks: r.config.counts_by_pattern("rank_pattern")?,
            alphas: r.config.numbers_by_pattern("alpha_pattern")?,
            rslora,
        })
    }

    /// Rank and scale at `module`, a path in the model that was wrapped.
    pub(super) fn at(&self, module: &str) -> Result<(usize, f32)> {
        let rank = self.ranks.at(module)?.unwrap_or(self.rank);
        Ok((rank, scale(self.alphas.at(module)?.unwrap_or(self.alpha), rank, self.rslora)))
    }
}

/// `alpha / r`, or `alpha / √r` for rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732).
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "ranks are small; scales are f32")]
pub(super) fn scale(alpha: f64, rank: usize, rslora: bool) -> f32 {
    let r = rank as f64;
    (alpha / if rslora { r.sqrt() } else { r }) as f32
}
