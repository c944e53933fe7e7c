//! AdaLoRA: a LoRA of singular values, those that matter least pruned: `ΔW = s · B (E ∘ A)`.

use super::config::bad;
use super::family::{Defaults, Family, Reader};
use super::reading::Reading;
use crate::dense::scale_rows;
use crate::error::Result;
use crate::json::Json;
use std::collections::BTreeMap;

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &["init_r", "lora_alpha", "rank_pattern"],
    // Written because the configuration inherits LoRA's; AdaLoRA reads none of them.
    silent: &[
        "alpha_pattern",
        "beta1",
        "beta2",
        "corda_config",
        "deltaT",
        "ensure_weight_tying",
        "eva_config",
        "init_lora_weights",
        "loftq_config",
        "lora_bias",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "orth_reg_weight",
        "qalora_group_size",
        "r",
        "target_r",
        "tfinal",
        "tinit",
        "total_step",
        "use_rslora",
    ],
    markers: &[".lora_", ".ranknum"],
    targets: Some(ADALORA),
    ops: "low-rank",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("ADALORA", "adalora", "AdaLoRA (Zhang et al. 2023, arXiv 2303.10512)")
};

/// PEFT's table, which VB-LoRA copies but for RoBERTa.
const ADALORA: Defaults = &[
    ("bert", &["query", "value"]),
    ("roberta", &["query", "key", "value", "dense"]),
    ("deberta-v2", &["query_proj", "key_proj", "value_proj", "dense"]),
];

fn load(r: &mut Reading<'_>) -> Result<()> {
    let (initial, alpha) = (r.config.count("init_r", 12)?, r.config.number("lora_alpha", 8.0)?);
    let kept = kept(r)?;
    for t in r.targets()? {
        let rank = kept.get(t.module.as_str()).copied().unwrap_or(initial);
        let a = r.take(&t, "lora_A", &[rank, t.cols])?;
        let b = r.take(&t, "lora_B", &[t.rows, rank])?;
        let e = r.take(&t, "lora_E", &[rank, 1])?;
        // Files of old versions hold the rank that scales; newer ones leave the one before pruning.
        #[allow(clippy::cast_precision_loss, reason = "ranks are small")]
        let ranks = r.optional(&t, "ranknum", &[1])?.map_or(initial as f64, |n| f64::from(n[0]));
        #[allow(clippy::cast_precision_loss, reason = "ranks are small")]
        let alpha = if alpha > 0.0 { alpha } else { rank as f64 };
        let Some(((mut a, b), e)) = a.zip(b).zip(e) else { continue };
        if rank > 0 {
            scale_rows(&mut a, t.cols, &e);
            #[allow(clippy::cast_possible_truncation, reason = "scales are f32")]
            r.low_rank(&t, a, b, None, (alpha / (ranks + 1e-5)) as f32);
        }
    }
    Ok(())
}

/// Rank left of each pruned module: the number of flags that are true.
fn kept(r: &Reading<'_>) -> Result<BTreeMap<String, usize>> {
    let key = "rank_pattern";
    let entries = r.config.get(key).map(Json::entries).unwrap_or_default();
    let one = |(name, flags): &(String, Json)| {
        let module = name.split_once(".lora_E").map(|(module, _)| module.to_owned());
        let truths: Option<Vec<bool>> = flags.items().iter().map(Json::truth).collect();
        match (module, truths, flags) {
            (Some(module), Some(truths), Json::List(_)) => Ok((module, truths.into_iter().filter(|t| *t).count())),
            _ => Err(bad(key, format!("{} is not a list of flags of a module's lora_E", flags.brief()))),
        }
    };
    entries.iter().map(one).collect()
}
