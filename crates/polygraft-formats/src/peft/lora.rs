//! LoRA (Hu et al. 2021, arXiv 2106.09685) as `peft.tuners.lora` saves it: `y += s · (B A x + bias_B)`.

use super::config::bad;
use super::dense::{LowRankRows, scale_rows};
use super::dora;
use super::family::{Family, Reader};
use super::reading::Reading;
use super::split::Split;
use super::tokens;
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
    let (rank, alpha) = (r.config.count("r", 8)?, r.config.number("lora_alpha", 8.0)?);
    let (ranks, alphas) = (r.config.counts_by_pattern("rank_pattern")?, r.config.numbers_by_pattern("alpha_pattern")?);
    let (rslora, with_bias) = (r.config.flag("use_rslora", false)?, r.config.flag("lora_bias", false)?);
    let dora = r.config.flag("use_dora", false)?;
    if dora && with_bias {
        return Err(bad("lora_bias", "DoRA has no bias of its own, in PEFT or here"));
    }
    let kasa = split == Some(Split::Smallest);
    if dora && kasa {
        return Err(bad("kasa_config", "KaSA and DoRA are two kinds of LoRA, in PEFT or here"));
    }
    for t in r.tables()? {
        let rank = ranks.at(&t.module)?.unwrap_or(rank);
        let scale = scale(alphas.at(&t.module)?.unwrap_or(alpha), rank, rslora);
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
        let rank = ranks.at(&t.module)?.unwrap_or(rank);
        let scale = scale(alphas.at(&t.module)?.unwrap_or(alpha), rank, rslora);
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

/// `alpha / r`, or `alpha / √r` for rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732).
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "ranks are small; scales are f32")]
pub(super) fn scale(alpha: f64, rank: usize, rslora: bool) -> f32 {
    let r = rank as f64;
    (alpha / if rslora { r.sqrt() } else { r }) as f32
}
