//! `explain`: a Program with its tables, as lines in the user's words.

use super::{Extent, Program, Purpose, Scope, StepKind, Tables};
use crate::ir::{Blend, How, Op, PayloadId, Site};
use crate::model::{ModelSpec, WeightId};
use serde::Serialize;

/// One step, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Place in the Program.
    pub step: usize,
    /// Encoder layer, when it belongs to one.
    pub layer: Option<u16>,
    /// What runs.
    pub kind: String,
    /// At which site.
    pub site: Option<String>,
    /// Shape of what it writes.
    pub shape: String,
    /// How the weights are stored.
    pub weights: Option<String>,
    /// For which tokens or rows of the packed batch, from which adapter, at which scale; empty: all.
    pub takes: Vec<String>,
    /// Multiply-adds.
    pub macs: u64,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let layer = self.layer.map_or(String::new(), |l| l.to_string());
        let site = self.site.as_deref().unwrap_or("");
        write!(f, "{:>4} {layer:>3}  {:<10} {site:<28} {:<12}", self.step, self.kind, self.shape)?;
        write!(f, " {:<6} {:>9}", self.weights.as_deref().unwrap_or(""), mega(self.macs))?;
        if !self.takes.is_empty() {
            write!(f, "  {}", self.takes.join("; "))?;
        }
        Ok(())
    }
}

fn mega(macs: u64) -> String {
    if macs == 0 { String::new() } else { format!("{:.3} M", macs as f64 / 1e6) }
}

/// Explains `program` on `tables`; `owner` names the adapter that a payload belongs to.
#[must_use]
pub fn explain(program: &Program, tables: &Tables, spec: &ModelSpec, owner: &dyn Fn(PayloadId) -> String) -> Vec<Line> {
    let mut layer = None;
    let mut lines = Vec::new();
    for (index, step) in program.steps.iter().enumerate() {
        let target = program.buffers[step.kind.target().0 as usize];
        let of = step.origin.and_then(|o| o.layer());
        // Steps without a site (add, activate) belong to the layer of the step before them.
        layer = if step.origin.is_some() { of } else { layer };
        let n: usize = tables.ranges(step.scope, target.extent).iter().map(ExactSizeIterator::len).sum();
        lines.push(Line {
            step: index,
            layer,
            kind: step.kind.name().into(),
            site: step.origin.map(|o| o.to_string()),
            shape: format!("[{n}, {}]", target.width),
            weights: weight_of(&step.kind).map(|w| spec.weight(w).scheme.name().into()),
            takes: takes(program, tables, &step.kind, step.scope, owner),
            macs: macs(program, tables, &step.kind, n),
        });
    }
    lines
}

fn weight_of(kind: &StepKind) -> Option<WeightId> {
    match *kind {
        StepKind::Embed { word, .. } => Some(word),
        StepKind::Linear { weight, .. } => weight,
        StepKind::LayerNorm { gamma, .. } => gamma,
        StepKind::Positions { table, .. } => Some(table),
        StepKind::Patches { .. }
        | StepKind::LowRank { .. }
        | StepKind::MixedLowRank { .. }
        | StepKind::Bottleneck { .. }
        | StepKind::Couple { .. }
        | StepKind::Insert { .. }
        | StepKind::Reft { .. }
        | StepKind::Copy { .. }
        | StepKind::Rotate { .. }
        | StepKind::Gate { .. }
        | StepKind::Unfold { .. }
        | StepKind::Offset { .. }
        | StepKind::Attention { .. }
        | StepKind::Add { .. }
        | StepKind::Activate { .. }
        | StepKind::Pool { .. }
        | StepKind::Normalize { .. } => None,
    }
}

fn takes(
    program: &Program,
    tables: &Tables,
    kind: &StepKind,
    scope: Scope,
    owner: &dyn Fn(PayloadId) -> String,
) -> Vec<String> {
    let patched = |site: Site| {
        let of = |d: &super::TableDesc| matches!(d.purpose, Purpose::Patches { site: s, .. } if s == site);
        program.tables.iter().position(of).map(|at| super::TableId(at as u32))
    };
    let table = match *kind {
        StepKind::Embed { .. } => [Site::Word, Site::Position, Site::TokenType].into_iter().find_map(patched),
        StepKind::Positions { .. } => patched(Site::Relative),
        StepKind::Attention { prefix, .. } => prefix.map(|p| p.first),
        StepKind::LowRank { table, .. }
        | StepKind::MixedLowRank { table, .. }
        | StepKind::Bottleneck { table, .. }
        | StepKind::Couple { table, .. }
        | StepKind::Insert { table, .. }
        | StepKind::Reft { table, .. }
        | StepKind::Offset { table, .. } => Some(table),
        StepKind::Linear { replaced, .. } | StepKind::LayerNorm { replaced, .. } => replaced,
        _ => None,
    };
    let table = match (table, scope) {
        (Some(t), _) | (None, Scope::Only(t) | Scope::Except(t)) => t,
        (None, Scope::All) => return Vec::new(),
    };
    let desc = program.tables[table.0 as usize];
    let unit = match desc.extent {
        Extent::Tokens => "tokens",
        Extent::Rows => "rows",
        Extent::Positions => "positions",
    };
    tables.tables[table.0 as usize]
        .segments
        .iter()
        .map(|s| {
            let range = format!("{unit} {}..{}", s.range.start, s.range.end);
            match s.payload.and_then(|p| tables.payloads.get(p as usize)) {
                Some(p) => {
                    let detail = match &p.op {
                        Op::LowRank(l) => format!(" rank {}", l.a.rows()),
                        Op::MixedLowRank(m) => format!(" rank {}", m.lora.a.rows()),
                        Op::Bottleneck(b) => format!(" bottleneck {}", b.down.rows()),
                        Op::Blend(b) => members(b, owner),
                        Op::Reft(r) => format!(" rank {}", r.first.source.rows()),
                        Op::Offset(_) | Op::ReplaceLinear(_) | Op::ReplaceNorm(_) | Op::Reweight(_) => String::new(),
                        Op::Prompt(p) => format!(" {} virtual tokens", p.vectors.rows()),
                        Op::Prefix(p) => format!(" {} slots", p.keys.rows()),
                        Op::Fusion(_) | Op::Coupling(_) | Op::Rewording(_) => String::new(),
                    };
                    let scale = if s.scale == 1.0 { String::new() } else { format!(" ×{}", s.scale) };
                    // A blend was made for this composition: its members are the adapters.
                    let name = if matches!(p.op, Op::Blend(_)) { String::new() } else { owner(p.id) };
                    format!("{range}: {name}{detail}{scale}")
                }
                None => match desc.purpose {
                    Purpose::Head(_) => format!("{range}: head"),
                    Purpose::Image => format!("{range}: patches"),
                    Purpose::Shifted | Purpose::Unnormed(_) | Purpose::Stack(_) | Purpose::Patches { .. } => range,
                },
            }
        })
        .collect()
}

/// The members of a blend, by the adapters that they come from.
fn members(blend: &Blend, owner: &dyn Fn(PayloadId) -> String) -> String {
    let parts: Vec<String> = blend
        .parts
        .iter()
        .map(|part| {
            let chain: Vec<String> = part.chain.iter().map(|(payload, _)| owner(payload.id)).collect();
            let chain = if part.stacked { format!("stack({})", chain.join(", ")) } else { chain.join(", ") };
            if part.weight == 1.0 { chain } else { format!("{chain}:{}", part.weight) }
        })
        .collect();
    let how = match &blend.how {
        How::Average => "average",
        How::Sum => "sum",
        How::Fuse(_) => "fuse",
        How::Split { .. } => "split",
    };
    format!("{how}({})", parts.join(", "))
}

/// Multiply-adds a token of an op that rewrites or updates tokens.
fn per_token(op: &Op) -> u64 {
    let of = |m: &crate::tensor::Matrix| (m.rows() * m.cols()) as u64;
    match op {
        Op::LowRank(l) => of(&l.a) + of(&l.b),
        Op::MixedLowRank(m) => of(&m.lora.a) + of(&m.lora.b),
        Op::Bottleneck(b) => of(&b.down) + of(&b.up),
        Op::Blend(b) => b.payloads().map(|p| per_token(&p.op)).sum(),
        Op::Fusion(f) => {
            let pair = |p: &Option<(crate::tensor::Matrix, Vec<f32>)>| p.as_ref().map_or(0, |(m, _)| of(m));
            pair(&f.query) + pair(&f.key) + f.value.as_ref().map_or(0, of)
        }
        Op::Coupling(c) => [&c.f, &c.g].iter().map(|m| of(&m.first) + of(&m.second)).sum(),
        Op::Rewording(_) | Op::Prompt(_) | Op::Prefix(_) => 0,
        Op::Reft(_) | Op::Offset(_) | Op::ReplaceLinear(_) | Op::ReplaceNorm(_) | Op::Reweight(_) => 0,
    }
}

fn macs(program: &Program, tables: &Tables, kind: &StepKind, n: usize) -> u64 {
    let width = |b: super::BufferId| program.buffers[b.0 as usize].width as u64;
    let n = n as u64;
    match *kind {
        StepKind::Linear { x, out, .. } => n * width(x) * width(out),
        StepKind::LowRank { table, .. }
        | StepKind::MixedLowRank { table, .. }
        | StepKind::Bottleneck { table, .. }
        | StepKind::Couple { table, .. } => tables.tables[table.0 as usize]
            .segments
            .iter()
            .filter_map(|s| Some(s.range.len() as u64 * per_token(&tables.payloads.get(s.payload? as usize)?.op)))
            .sum(),
        StepKind::Attention { out, window, relative, .. } => {
            let seen = |l: u64| window.map_or(l, |w| l.min(2 * u64::from(w) + 1));
            let products = 2 + relative.map_or(0, |r| u64::from(r.keys.is_some()) + u64::from(r.queries.is_some()));
            let lengths = (0..tables.rows()).map(|r| tables.row(r).len() as u64);
            lengths.map(|l| products * l * seen(l) * width(out)).sum()
        }
        StepKind::Embed { .. }
        | StepKind::Patches { .. }
        | StepKind::LayerNorm { .. }
        | StepKind::Offset { .. }
        | StepKind::Add { .. }
        | StepKind::Activate { .. }
        | StepKind::Pool { .. }
        | StepKind::Normalize { .. }
        | StepKind::Reft { .. }
        | StepKind::Insert { .. }
        | StepKind::Copy { .. }
        | StepKind::Positions { .. }
        | StepKind::Rotate { .. }
        | StepKind::Gate { .. }
        | StepKind::Unfold { .. } => 0,
    }
}
