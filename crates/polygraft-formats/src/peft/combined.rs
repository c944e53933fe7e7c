//! `add_weighted_adapter` of `peft.tuners.lora` and `peft.tuners.ia3`, on saved folders.
//!
//! The result is of rank `r` with alpha `r`; so its scale is 1, but √r for rank-stabilised LoRA, whose kind of scale is the
//! first part's and stays. Ranks that patterns make smaller are filled up with zeros, which the library does not do: what
//! it saves then cannot be loaded. A head that only one part has is the base's own again in the library's result; here
//! the caller says whose travels with it.

use super::config::{Biases, Config, bad, names};
use super::family::SILENT;
use super::lora::Scales;
use super::split::Split;
use super::{FAMILIES, WEIGHTS, family};
use crate::bag::TensorBag;
use crate::combine::{Folder, Kind, Merge, Part, Recipe, argument, open, parsed, pretty};
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::maths::linalg::Mat;
use crate::maths::svd::leading;
use crate::output::TensorFile;
use polygraft::model::Arch;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What two configurations differ in, besides training; `None` when they are of one method with the same settings.
///
/// # Errors
/// None yet; the same signature as its twin of AdapterHub.
pub(crate) fn alike(a: &Json, b: &Json) -> Result<Option<String>> {
    let silent = a.get("peft_type").and_then(Json::text).and_then(family).map_or(&[][..], |f| f.silent);
    let of = |json: &Json| -> BTreeMap<String, Json> {
        let counts = |key: &str| key == "peft_type" || !(SILENT.contains(&key) || silent.contains(&key));
        // Sets are lists in the file, in any order.
        let sorted = |v: &Json| match v {
            Json::List(items) if items.iter().all(|i| i.text().is_some()) => {
                let mut items = items.clone();
                items.sort_by(|a, b| a.text().cmp(&b.text()));
                Json::List(items)
            }
            other => other.clone(),
        };
        json.entries().iter().filter(|(k, v)| counts(k) && !v.is_empty()).map(|(k, v)| (k.clone(), sorted(v))).collect()
    };
    let (a, b) = (of(a), of(b));
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    Ok(keys.into_iter().find(|k| a.get(*k) != b.get(*k)).cloned())
}

/// Combines LoRAs, or (IA)³ vectors.
///
/// # Errors
/// As [`crate::combine::combine`].
pub(crate) fn combine(parts: &[Part<'_>], configs: &[Json], recipe: &Recipe<'_>) -> Result<Folder> {
    let kinds: Vec<&str> =
        configs.iter().map(|c| c.get("peft_type").and_then(Json::text).unwrap_or("nothing")).collect();
    if let Some(other) = kinds.iter().position(|k| *k != kinds[0]) {
        let why = format!("{} is {}, {} is {}", parts[0].name, shown(kinds[0]), parts[other].name, shown(kinds[other]));
        return Err(unsupported(&parts[other], format!("{why}: adapters of one method are combined")));
    }
    match kinds[0] {
        "LORA" => loras(parts, configs, recipe),
        "IA3" => scales(parts, configs, recipe),
        other => {
            let why = format!(
                "PEFT combines LORA and IA3, not {}; average takes any method of one configuration",
                shown(other)
            );
            Err(unsupported(&parts[0], why))
        }
    }
}

fn unsupported(part: &Part<'_>, why: String) -> FormatError {
    FormatError::Unsupported { file: part.file(super::CONFIG), why }
}

/// One LoRA's factors at a module: `a` `[rank, inputs]`, `b` `[outputs, rank]`.
struct Pair {
    a: Vec<f32>,
    b: Vec<f32>,
    rank: usize,
    /// The part's weight and the LoRA's own scale.
    weight: f64,
    scale: f64,
}

/// A LoRA's tensor: where, on which side.
const SUFFIXES: [(&str, &str); 2] = [(".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B")];

fn loras(parts: &[Part<'_>], configs: &[Json], recipe: &Recipe<'_>) -> Result<Folder> {
    let sources = sources(parts, configs)?;
    // As in the library: one adapter is only scaled.
    let kind = if parts.len() == 1 { Kind::Linear } else { recipe.kind };
    let ranks: Vec<usize> = sources.iter().map(|s| s.scales.largest()).collect();
    let largest = ranks.iter().copied().max().unwrap_or(1);
    let rank = match kind {
        Kind::Cat => ranks.iter().sum(),
        Kind::Svd | Kind::TiesSvd | Kind::MagnitudePruneSvd => recipe.rank.unwrap_or(largest),
        _ => largest,
    };
    let mut bags = parts.iter().map(|p| open(p, WEIGHTS)).collect::<Result<Vec<_>>>()?;
    let mut out = TensorFile::new();
    let mut modules = BTreeSet::new();
    for bag in &bags {
        for name in bag.names() {
            for (a, _) in SUFFIXES {
                if let Some(module) = name.strip_suffix(a) {
                    modules.insert((module.to_owned(), a));
                }
            }
        }
    }
    for (module, suffix) in &modules {
        let mut pairs = Vec::new();
        let mut sides = None;
        for (source, bag) in sources.iter().zip(&mut bags) {
            if let Some((pair, at)) = source.take(bag, module, suffix)? {
                if *sides.get_or_insert(at) != at {
                    let why =
                        format!("{module} has other sides in {} than in the others: another base", source.part.name);
                    return Err(unsupported(source.part, why));
                }
                pairs.push(pair);
            }
        }
        let (outputs, inputs) = sides.unwrap_or_default();
        let (a, b) = merge(kind, recipe, rank, (outputs, inputs), pairs, module)?;
        let other = SUFFIXES.iter().find(|(x, _)| x == suffix).map_or("", |(_, b)| b);
        out.add_f32(&format!("{module}{suffix}"), &[rank, inputs], a);
        out.add_f32(&format!("{module}{other}"), &[outputs, rank], b);
    }
    let saved = saved_modules(parts, &mut bags, recipe, &mut out)?;
    let mut config = parsed(&parts[0])?;
    config["r"] = rank.into();
    config["lora_alpha"] = rank.into();
    config["rank_pattern"] = Value::Object(serde_json::Map::new());
    config["alpha_pattern"] = Value::Object(serde_json::Map::new());
    config["target_modules"] = union(parts, configs, "target_modules")?;
    finish(config, saved, parts, out)
}

/// The configuration and weights as files; `saved` is the part whose saved modules go along.
fn finish(mut config: Value, saved: Option<usize>, parts: &[Part<'_>], out: TensorFile) -> Result<Folder> {
    let from = saved.map(|i| parsed(&parts[i])).transpose()?.unwrap_or_default();
    for key in ["modules_to_save", "task_type", "auto_mapping"] {
        if saved.is_some() {
            config[key] = from[key].clone();
        }
    }
    Ok(vec![(super::CONFIG.into(), pretty(&config)), (WEIGHTS[0].into(), out.bytes()?)])
}

/// A LoRA's part, and its ranks and scales.
struct LoraSource<'a> {
    part: &'a Part<'a>,
    scales: Scales,
}

/// Reads the configurations and refuses what does not add up.
fn sources<'a>(parts: &'a [Part<'a>], configs: &'a [Json]) -> Result<Vec<LoraSource<'a>>> {
    let row = &FAMILIES[0];
    let mut out = Vec::with_capacity(parts.len());
    for (part, json) in parts.iter().zip(configs) {
        // The base's names of targets matter only where the file has none, which `union` refuses.
        let of = |e| named(part, e);
        let config = Config::parse(json, row, Arch::Bert).map_err(of)?;
        for (key, why) in [
            ("use_dora", "DoRA's directions and lengths depend on the base and do not add up"),
            ("lora_bias", "the library forgets the biases of LoRA when it combines"),
            ("trainable_token_indices", "trained words are not combined by the library"),
        ] {
            if json.get(key).is_some_and(|v| !v.is_empty()) {
                return Err(of(bad(key, why)));
            }
        }
        if config.bias != Biases::None {
            return Err(of(bad("bias", "the library has no place for biases of several adapters")));
        }
        if Split::of(&config).map_err(of)?.is_some() {
            let way = "save it in Python with path_initial_model_for_weight_conversion, which makes a plain LoRA of it";
            return Err(of(bad("init_lora_weights", format!("it took a part out of the base; {way}"))));
        }
        for key in ["layers_to_transform", "layers_pattern", "exclude_modules"] {
            if json.get(key) != configs[0].get(key) {
                let why =
                    "the parts differ in it, and the library would keep the first's and lose modules of the others";
                return Err(of(bad(key, why)));
            }
        }
        let scales = config.flag("use_rslora", false).and_then(|rslora| Scales::of(&config, "lora_alpha", rslora));
        out.push(LoraSource { part, scales: scales.map_err(of)? });
    }
    Ok(out)
}

/// An error about a part's configuration, with its name.
fn named(part: &Part<'_>, error: FormatError) -> FormatError {
    match error {
        FormatError::AdapterConfig { key, why, .. } => {
            FormatError::AdapterConfig { file: part.file(super::CONFIG), key, why }
        }
        other => other,
    }
}

impl LoraSource<'_> {
    /// The factors at `module` with the layer's outputs and inputs; `None` when this part does not change it.
    fn take(&self, bag: &mut TensorBag, module: &str, suffix: &str) -> Result<Option<(Pair, (usize, usize))>> {
        let (a, b) = SUFFIXES.iter().find(|(a, _)| *a == suffix).map_or(("", ""), |s| *s);
        let (a, b) = (format!("{module}{a}"), format!("{module}{b}"));
        let Some(&[rank, inputs]) = bag.shape(&a) else { return Ok(None) };
        let path = module.strip_prefix(super::keys::ROOT).unwrap_or(module);
        let (said, scale) = self.scales.at(path).map_err(|e| named(self.part, e))?;
        if rank != said {
            let (expected, found) = (format!("{:?}", [said, inputs]), format!("{:?}", [rank, inputs]));
            return Err(FormatError::AdapterShape { file: bag.file().into(), tensor: shown(&a), expected, found });
        }
        let scale = f64::from(scale);
        let outputs = bag.shape(&b).and_then(|s| s.first().copied()).unwrap_or(0);
        let (Some(a), Some(down)) = (bag.take(&a, &[rank, inputs])?, bag.take(&b, &[outputs, rank])?) else {
            return Err(FormatError::AdapterKeys { file: bag.file().into(), missing: vec![b], extra: Vec::new() });
        };
        Ok(Some((Pair { a, b: down, rank, weight: self.part.weight, scale }, (outputs, inputs))))
    }
}

/// The factors of the new adapter at a module, filled up to `rank`.
#[allow(clippy::cast_possible_truncation, reason = "adapters are f32")]
fn merge(
    kind: Kind,
    recipe: &Recipe<'_>,
    rank: usize,
    (outputs, inputs): (usize, usize),
    pairs: Vec<Pair>,
    module: &str,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let density = recipe.density.unwrap_or(1.0);
    let how = match kind {
        Kind::Ties | Kind::TiesSvd => Merge::Ties { density, majority: recipe.majority.unwrap_or_default() },
        Kind::MagnitudePrune | Kind::MagnitudePruneSvd => Merge::Prune { density },
        _ => Merge::Sum,
    };
    let none = || argument("type", &format!("the updates at {} have no singular value decomposition", shown(module)));
    let (a, b, have) = match kind {
        Kind::Cat => {
            let factor = |p: &Pair| (p.weight * p.scale) as f32;
            let a = pairs.iter().flat_map(|p| p.a.iter().map(|x| x * factor(p))).collect();
            let have = pairs.iter().map(|p| p.rank).sum();
            (a, beside(&pairs, outputs), have)
        }
        Kind::Svd => factored(&pairs, rank, (outputs, inputs)).ok_or_else(none)?,
        Kind::TiesSvd | Kind::MagnitudePruneSvd => {
            let deltas = pairs.iter().map(|p| p.delta(outputs, inputs)).collect::<Option<Vec<_>>>().ok_or_else(none)?;
            let weights: Vec<f32> = pairs.iter().map(|p| p.weight as f32).collect();
            let delta = Mat::from_f32(outputs, inputs, &how.of(deltas, &weights)).ok_or_else(none)?;
            let (b, a) = leading(&delta, rank).ok_or_else(none)?;
            (a.to_f32(), b.to_f32(), a.rows())
        }
        _ => {
            let have = pairs.first().map_or(0, |p| p.rank);
            if pairs.iter().any(|p| p.rank != have) {
                let why = format!(
                    "{} takes adapters of one rank, and they differ at {}; cat and svd take any",
                    kind.name(),
                    shown(module)
                );
                return Err(argument("type", &why));
            }
            // The sign goes to one side, so that it does not cancel.
            let sizes: Vec<f32> = pairs.iter().map(|p| (p.weight * p.scale).abs().sqrt() as f32).collect();
            let signed = sizes
                .iter()
                .zip(&pairs)
                .map(|(s, p)| if p.weight * p.scale < 0.0 { -s } else { *s })
                .collect::<Vec<_>>();
            let (a, b) = pairs.into_iter().map(|p| (p.a, p.b)).unzip();
            (how.of(a, &signed), how.of(b, &sizes), have)
        }
    };
    Ok((filled(a, inputs, rank), widened(&b, have, rank)))
}

impl Pair {
    /// `scale · B A`, in the base's shape.
    #[allow(clippy::cast_possible_truncation, reason = "adapters are f32")]
    fn delta(&self, outputs: usize, inputs: usize) -> Option<Vec<f32>> {
        let (a, b) = (Mat::from_f32(self.rank, inputs, &self.a)?, Mat::from_f32(outputs, self.rank, &self.b)?);
        let scale = self.scale as f32;
        Some(b.times(&a)?.to_f32().into_iter().map(|x| x * scale).collect())
    }
}

/// `[outputs, Σ rank]`: the B of all, side by side.
fn beside(pairs: &[Pair], outputs: usize) -> Vec<f32> {
    (0..outputs).flat_map(|o| pairs.iter().flat_map(move |p| p.b[o * p.rank..][..p.rank].iter().copied())).collect()
}

/// The best approximation of `Σ w s B A`, without making it: by way of the decompositions of the A and of the B.
fn factored(pairs: &[Pair], rank: usize, (outputs, inputs): (usize, usize)) -> Option<(Vec<f32>, Vec<f32>, usize)> {
    let all: usize = pairs.iter().map(|p| p.rank).sum();
    let a: Vec<f64> = pairs.iter().flat_map(|p| p.a.iter().map(|x| f64::from(*x) * p.weight * p.scale)).collect();
    let (ua, va) = leading(&Mat::new(all, inputs, a)?, all)?;
    let (ub, vb) = leading(&Mat::from_f32(outputs, all, &beside(pairs, outputs))?, all)?;
    // B A = Ub (Vbᵀ Ua) Vaᵀ, where Ub holds its singular values; of the small matrix in the middle they are divided out.
    let sizes: Vec<f64> =
        (0..ub.cols()).map(|i| (0..ub.rows()).map(|o| ub.row(o)[i].powi(2)).sum::<f64>().sqrt()).collect();
    let mut middle = vb.times(&ua)?;
    for (i, size) in sizes.iter().enumerate() {
        middle.row_mut(i).iter_mut().for_each(|x| *x *= size);
    }
    let mut directions = ub;
    for o in 0..directions.rows() {
        directions.row_mut(o).iter_mut().zip(&sizes).for_each(|(x, s)| *x = if *s > 0.0 { *x / s } else { 0.0 });
    }
    let (us, vt) = leading(&middle, rank)?;
    let (b, a) = (directions.times(&us)?, vt.times(&va)?);
    Some((a.to_f32(), b.to_f32(), a.rows()))
}

/// Rows of zeros up to `rank`.
fn filled(mut a: Vec<f32>, inputs: usize, rank: usize) -> Vec<f32> {
    a.resize(rank * inputs, 0.0);
    a
}

/// Columns of zeros from `have` up to `rank`.
fn widened(b: &[f32], have: usize, rank: usize) -> Vec<f32> {
    let row = |row: &[f32]| row.iter().copied().chain(std::iter::repeat_n(0.0, rank - have)).collect::<Vec<_>>();
    b.chunks(have.max(1)).flat_map(row).collect()
}

/// Copies the modules that are saved whole of the part that was named, and refuses them where none was.
fn saved_modules(
    parts: &[Part<'_>],
    bags: &mut [TensorBag],
    recipe: &Recipe<'_>,
    out: &mut TensorFile,
) -> Result<Option<usize>> {
    let mut from = None;
    for (i, (part, bag)) in parts.iter().zip(bags).enumerate() {
        let left: Vec<String> = bag.names().map(str::to_owned).collect();
        let Some(first) = left.first() else { continue };
        match recipe.modules_of {
            None => {
                let why = format!(
                    "{} saves modules whole ({}), which do not add up: say whose travel with the result (--modules-of)",
                    part.name,
                    shown(first)
                );
                return Err(unsupported(part, why));
            }
            Some(name) if name == part.name => {
                for tensor in left {
                    let shape = bag.shape(&tensor).unwrap_or_default().to_vec();
                    if let Some(values) = bag.take(&tensor, &shape)? {
                        out.add_f32(&tensor, &shape, values);
                    }
                }
                from = Some(i);
            }
            Some(_) => {}
        }
    }
    match recipe.modules_of {
        Some(name) if from.is_none() => Err(argument("modules of", &format!("{} saves no module whole", shown(name)))),
        _ => Ok(from),
    }
}

/// The targets of all: the names together, or the patterns as alternatives.
fn union(parts: &[Part<'_>], configs: &[Json], key: &str) -> Result<Value> {
    let mut all = BTreeSet::new();
    let mut patterns = Vec::new();
    for (part, config) in parts.iter().zip(configs) {
        match config.get(key) {
            Some(list @ Json::List(_)) => all.extend(names(key, Some(list)).map_err(|e| named(part, e))?),
            Some(Json::Text(pattern)) => patterns.push(format!("({pattern})")),
            _ => {
                return Err(named(
                    part,
                    bad(key, "it says neither names nor a pattern, and the base's own are not known"),
                ));
            }
        }
    }
    match (all.is_empty(), patterns.is_empty()) {
        (_, true) => Ok(all.into_iter().collect::<Vec<_>>().into()),
        (true, false) => Ok(patterns.join("|").into()),
        (false, false) => {
            Err(named(&parts[0], bad(key, "some have a list of names and some a pattern: write the same kind in all")))
        }
    }
}

/// (IA)³: the weighted sum of the vectors that are there.
fn scales(parts: &[Part<'_>], configs: &[Json], recipe: &Recipe<'_>) -> Result<Folder> {
    if recipe.kind != Kind::Linear {
        return Err(argument("type", "vectors of (IA)³ are combined by linear, or by average"));
    }
    let row = family("IA3").ok_or_else(|| argument("type", "this build has no (IA)³"))?;
    for (part, json) in parts.iter().zip(configs) {
        Config::parse(json, row, Arch::Bert).map_err(|e| named(part, e))?;
    }
    let mut bags = parts.iter().map(|p| open(p, WEIGHTS)).collect::<Result<Vec<_>>>()?;
    let vectors: BTreeSet<String> =
        bags.iter().flat_map(TensorBag::names).filter(|n| n.ends_with(".ia3_l")).map(str::to_owned).collect();
    let mut out = TensorFile::new();
    for vector in &vectors {
        let (mut shape, mut values, mut weights): (Option<Vec<usize>>, _, _) = (None, Vec::new(), Vec::new());
        for (part, bag) in parts.iter().zip(&mut bags) {
            let Some(of) = bag.shape(vector).map(<[usize]>::to_vec) else { continue };
            values.extend(bag.take(vector, shape.get_or_insert(of))?);
            #[allow(clippy::cast_possible_truncation, reason = "adapters are f32")]
            weights.push(part.weight as f32);
        }
        out.add_f32(vector, &shape.unwrap_or_default(), Merge::Sum.of(values, &weights));
    }
    let saved = saved_modules(parts, &mut bags, recipe, &mut out)?;
    let mut config = parsed(&parts[0])?;
    for key in ["target_modules", "feedforward_modules"] {
        config[key] = union(parts, configs, key)?;
    }
    finish(config, saved, parts, out)
}
