//! LoRA (Hu et al. 2021, arXiv 2106.09685) as `peft.tuners.lora` saves it: `y += s · (B A x + bias_B)`.

use super::bdlora::{self, Blocks};
use super::config::{Config, Patterns, bad};
use super::dora;
use super::family::{Family, Reader};
use super::parameters;
use super::reading::{Reading, Target};
use super::replication;
use super::rows::LowRankRows;
use super::split::Split;
use super::tokens;
use crate::dense::{scale_rows, transposed};
use crate::error::Result;
use polygraft::ir::{LowRank, Meeting, Op, Site};

/// The family's row.
pub(super) const FAMILY: Family = Family {
    reads: &[
        "alpha_pattern",
        "init_lora_weights",
        "kasa_config",
        "lora_alpha",
        "lora_bias",
        replication::OPTION,
        "monteclora_config",
        "qalora_group_size",
        "r",
        "rank_pattern",
        parameters::OPTION,
        tokens::OPTION,
        bdlora::OPTION,
        "use_dora",
        "use_qalora",
        "use_rslora",
        "velora_config",
    ],
    silent: &[
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
    ],
    refuses: &[
        (
            "alora_invocation_tokens",
            "this is activated LoRA, which PEFT switches on in its class for causal models alone: on an encoder it runs the base",
        ),
        (
            "arrow_config",
            "Arrow is a router over adapters that a program loads beside it, and its folder holds neither them nor their names",
        ),
        ("megatron_config", "these are Megatron's layers"),
    ],
    markers: &[".lora_", ".token_adapter."],
    ops: "low-rank, change of embeddings",
    base: false,
    reader: Reader::Load(load),
    ..Family::new("LORA", "lora", "LoRA (Hu et al. 2021, arXiv 2106.09685)")
};

fn load(r: &mut Reading<'_>) -> Result<()> {
    let split = Split::of(&r.config)?;
    let scales = Scales::of(&r.config, "lora_alpha", r.config.flag("use_rslora", false)?)?;
    let with_bias = r.config.flag("lora_bias", false)?;
    let dora = r.config.flag("use_dora", false)?;
    if dora && with_bias {
        return Err(bad("lora_bias", "DoRA has no bias of its own, in PEFT or here"));
    }
    let variant = variant(r)?;
    let blocks = Blocks::of(r)?;
    let group = if r.config.flag("use_qalora", false)? { r.config.count("qalora_group_size", 16)? } else { 1 };
    let kasa = split == Some(Split::Smallest);
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
    let targets = r.targets()?;
    if r.config.get(parameters::OPTION).is_some_and(|v| !v.is_empty()) {
        let taken: Vec<String> = targets.iter().map(|t| t.module.clone()).collect();
        on_parameters(r, &taken, &scales, split, variant.or(with_bias.then_some("lora_bias")))?;
    }
    let plain = split.is_none() && !dora && blocks.is_none() && group == 1;
    for t in targets {
        let (rank, scale) = scales.at(&t.module)?;
        // A block-diagonal factor has no bias.
        let bias = if with_bias && (blocks.is_none() || r.shape(&t, "lora_B.bias").is_some()) {
            r.take(&t, "lora_B.bias", &[t.rows])?
        } else {
            None
        };
        // What VeLoRA and MonteCLoRA train with, and leave in the file.
        ["lora_velora_embed", "lora_monteclora_sampler."].into_iter().for_each(|name| r.ignore_all(&t, name));
        if plain {
            // As it is stored, be it in codes.
            let a = r.matrix(&t, "lora_A.weight", rank, t.cols)?;
            if let Some((a, b)) = a.zip(r.matrix(&t, "lora_B.weight", t.rows, rank)?) {
                r.patch(Site::Linear(t.site), Op::LowRank(LowRank { a, b, bias, scale }));
            }
            continue;
        }
        let pair = match &blocks {
            Some(blocks) => blocks.take(r, &t, rank)?,
            None => pooled(r, &t, rank, group)?.zip(r.take(&t, "lora_B.weight", &[t.rows, rank])?),
        };
        let diag = if kasa { r.take(&t, "lora_diag", &[rank])? } else { None };
        let Some((mut a, b)) = pair.filter(|_| !kasa || diag.is_some()) else { continue };
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

/// The kind of LoRA that the configuration asks for, by the entry that does, if it is none of the plain ones. PEFT has
/// none that is of two kinds.
fn variant(r: &Reading<'_>) -> Result<Option<&'static str>> {
    let kinds = ["use_dora", bdlora::OPTION, "kasa_config", "monteclora_config", "velora_config"];
    let asked: Vec<&str> = kinds.into_iter().filter(|key| r.config.get(key).is_some_and(|v| !v.is_empty())).collect();
    match asked[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        [first, second, ..] => {
            Err(bad(second, format!("it and {first} ask for two kinds of LoRA, which cannot be one in PEFT or here")))
        }
    }
}

/// Takes `lora_A`. QALoRA (Xu et al. 2023, arXiv 2309.14717) on a base that GPTQ has rounded reads the means of groups of
/// inputs, times the number of groups; elsewhere PEFT does without.
#[allow(clippy::cast_precision_loss, reason = "widths are small")]
fn pooled(r: &mut Reading<'_>, t: &Target, rank: usize, group: usize) -> Result<Option<Vec<f32>>> {
    let (name, groups) = ("lora_A.weight", t.cols / group);
    if group == 1 || !t.cols.is_multiple_of(group) || r.shape(t, name) != Some(vec![rank, groups]) {
        return r.take(t, name, &[rank, t.cols]);
    }
    let spread = |x: f32| std::iter::repeat_n(x * groups as f32 / group as f32, group);
    Ok(r.take(t, name, &[rank, groups])?.map(|a| a.into_iter().flat_map(spread).collect()))
}

/// The updates of bare parameters. `other`: what the configuration asks for that PEFT does not have on them.
fn on_parameters(
    r: &mut Reading<'_>,
    taken: &[String],
    scales: &Scales,
    split: Option<Split>,
    other: Option<&str>,
) -> Result<()> {
    let found = parameters::targets(r, taken)?;
    if let Some(key) = other.filter(|_| !found.linears.is_empty() || !found.tables.is_empty()) {
        return Err(bad(key, format!("PEFT does not have it together with {}", parameters::OPTION)));
    }
    for t in found.tables {
        let (rank, scale) = scales.at(&parameters::weight_of(&t.module))?;
        let a = r.take(&t, "lora_A.weight", &[rank, t.cols])?;
        let b = r.take(&t, "lora_B.weight", &[t.rows, rank])?;
        let Some((a, b)) = a.zip(b) else { continue };
        if split.is_some() {
            let why = "it would take a part out of an embedding table, which this version does for linear layers only";
            return Err(bad("init_lora_weights", why));
        }
        let low_rank = LowRankRows { a: transposed(&b, rank), b: transposed(&a, t.cols), rank, rows: t.rows };
        r.rewords(&t, low_rank.held(), Meeting::Adds, move |id, row| {
            row.iter_mut().zip(low_rank.at(id)).for_each(|(x, d)| *x += scale * d);
        });
    }
    for t in found.linears {
        let (rank, scale) = scales.at(&parameters::weight_of(&t.module))?;
        let a = r.take(&t, "lora_A.weight", &[rank, t.cols])?;
        let b = r.take(&t, "lora_B.weight", &[t.rows, rank])?;
        let Some((a, b)) = a.zip(b) else { continue };
        if let Some(split) = split {
            split.take_out(r, &t, rank, scale)?;
        }
        r.low_rank(&t, a, b, None, scale);
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
    pub(super) fn of(config: &Config<'_>, alpha: &'static str, rslora: bool) -> Result<Self> {
        Ok(Self {
            rank: config.count("r", 8)?,
            alpha: config.number(alpha, 8.0)?,
            ranks: config.counts_by_pattern("rank_pattern")?,
            alphas: config.numbers_by_pattern("alpha_pattern")?,
            rslora,
        })
    }

    /// Rank and scale at `module`, a path in the model that was wrapped.
    pub(super) fn at(&self, module: &str) -> Result<(usize, f32)> {
        let rank = self.ranks.at(module)?.unwrap_or(self.rank);
        Ok((rank, self.of_rank(module, rank)?))
    }

    /// The scale of an update of `rank` at `module`.
    fn of_rank(&self, module: &str, rank: usize) -> Result<f32> {
        Ok(scale(self.alphas.at(module)?.unwrap_or(self.alpha), rank, self.rslora))
    }

    /// The largest rank that there may be.
    pub(super) fn largest(&self) -> usize {
        self.ranks.values().max().map_or(self.rank, |most| most.max(self.rank))
    }
}

/// `alpha / r`, or `alpha / √r` for rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732).
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "ranks are small; scales are f32")]
pub(super) fn scale(alpha: f64, rank: usize, rslora: bool) -> f32 {
    let r = rank as f64;
    (alpha / if rslora { r.sqrt() } else { r }) as f32
}
