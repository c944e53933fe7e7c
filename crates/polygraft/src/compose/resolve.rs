//! [`Compose`] × loaded adapters → the patches that a row takes, each at its (site, ordinal) with its scale.

use super::{Compose, Weighted};
use crate::error::{Error, Result};
use crate::ir::{LoadReport, Op, Payload, Site};
use crate::model::{HeadSpec, ModelSpec, Side};
use crate::program::{HeadKey, OpKind, Purpose};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An adapter as a session holds it.
#[derive(Debug, Clone)]
pub struct Grafted {
    /// Its patches, in the reader's order.
    pub patches: Vec<(Site, Arc<Payload>)>,
    /// Its head.
    pub head: Option<HeadSpec>,
    /// The composition it was made under (language vectors).
    pub made_under: Option<String>,
    /// What loading reported.
    pub report: LoadReport,
}

/// The loaded adapters by name.
pub type Adapters = BTreeMap<String, Arc<Grafted>>;

/// A patch with its place in a composition.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Where.
    pub site: Site,
    /// Which of several of its kind at this site.
    pub ordinal: u16,
    /// The head that a head site belongs to.
    pub head: Option<HeadKey>,
    /// The numbers.
    pub payload: Arc<Payload>,
    /// Whose they are.
    pub adapter: String,
    /// Scale of the contribution.
    pub scale: f32,
}

/// What a row takes.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The composition, printed: the key by which equal ones are found.
    pub text: String,
    /// Patches in the order of the composition.
    pub placed: Vec<Placed>,
    /// The head that its logits come from: the last leaf's that has one, else the base's.
    pub head: Option<HeadSpec>,
    /// Things the caller should know, such as a language vector used under another composition than it was made for.
    pub warnings: Vec<String>,
}

impl HeadSpec {
    /// The shape by which rows share a head's steps.
    #[must_use]
    pub fn key(&self) -> HeadKey {
        HeadKey { kind: self.kind, labels: self.labels }
    }
}

/// Resolves `compose` against the loaded adapters.
///
/// # Errors
/// An adapter that is not loaded; a nesting or a scale that has no meaning for the ops involved; two adapters that
/// replace the same weights.
pub fn resolve(compose: &Compose, adapters: &Adapters, spec: &ModelSpec) -> Result<Resolved> {
    let text = compose.to_string();
    let mut leaves = Vec::new();
    flatten(compose, 1.0, adapters, &text, &mut leaves)?;
    let owner = leaves.iter().rposition(|l| l.adapter.head.is_some());
    let head = owner.map_or(spec.head.clone(), |i| leaves[i].adapter.head.clone());
    let mut out = Resolved { placed: Vec::new(), head, warnings: warnings(compose, &leaves), text };
    let mut replaced: BTreeMap<Site, &str> = BTreeMap::new();
    for (index, leaf) in leaves.iter().enumerate() {
        // A head's own layers come from the adapter whose head runs; an adapter without a head patches whichever runs.
        let other_head = leaf.adapter.head.is_some() && owner != Some(index);
        for (site, payload) in &leaf.adapter.patches {
            if site.is_head() && (other_head || out.head.is_none()) {
                continue;
            }
            if payload.op.is_additive() {
                if leaf.scale == 0.0 {
                    continue;
                }
            } else {
                // A head is chosen, not added: the leaf's scale does not touch it.
                if leaf.scale != 1.0 && !belongs_to_head(*site, leaf.adapter) {
                    return Err(undefined(
                        &out.text,
                        &format!(
                            "{} replaces the weights of {site}, so its scale must be 1, not {}",
                            leaf.name, leaf.scale
                        ),
                    ));
                }
                let replaces = !matches!(payload.op, Op::Reweight(_));
                if let Some(first) = replaces.then(|| replaced.insert(*site, leaf.name)).flatten() {
                    return Err(undefined(&out.text, &format!("{first} and {} both replace {site}", leaf.name)));
                }
            }
            out.placed.push(Placed {
                site: *site,
                ordinal: 0,
                head: if in_head_steps(*site) { out.head.as_ref().map(HeadSpec::key) } else { None },
                payload: payload.clone(),
                adapter: leaf.name.to_owned(),
                scale: leaf.scale,
            });
        }
    }
    out.number();
    Ok(out)
}

/// Sites that are planned inside a head's steps, and so once for each head shape.
#[must_use]
pub(crate) fn in_head_steps(site: Site) -> bool {
    site.is_head() || site == Site::Linear(crate::ir::LinearSite::Pooler)
}

fn belongs_to_head(site: Site, adapter: &Grafted) -> bool {
    adapter.head.is_some() && in_head_steps(site)
}

struct Leaf<'a> {
    name: &'a str,
    adapter: &'a Grafted,
    scale: f32,
}

fn flatten<'a>(
    compose: &'a Compose,
    scale: f32,
    adapters: &'a Adapters,
    text: &str,
    out: &mut Vec<Leaf<'a>>,
) -> Result<()> {
    let weighted = |list: &'a [Weighted], out: &mut Vec<Leaf<'a>>| {
        list.iter().try_for_each(|w| flatten(&w.of, scale * w.weight.unwrap_or(1.0), adapters, text, out))
    };
    match compose {
        Compose::Base => Ok(()),
        Compose::Use(name) => {
            let adapter = adapters.get(name).ok_or_else(|| Error::AdapterUnknown {
                name: name.clone(),
                loaded: adapters.keys().cloned().collect(),
            })?;
            out.push(Leaf { name, adapter, scale });
            Ok(())
        }
        Compose::Scale(of, s) => flatten(of, scale * s, adapters, text, out),
        // Low-rank updates and offsets at one site all read the same input, so a stack of them is their sum, as in PEFT.
        Compose::Stack(list) => list.iter().try_for_each(|c| flatten(c, scale, adapters, text, out)),
        Compose::Sum(list) | Compose::Mix(list) => weighted(list, out),
        Compose::Fuse(list) => {
            list.iter().try_for_each(|c| flatten(c, scale, adapters, text, &mut Vec::new()))?;
            Err(undefined(
                text,
                "fuse needs a stored fusion layer, and none can be loaded by this version; use stack, sum or mix",
            ))
        }
        Compose::Average(_) => Err(undefined(
            text,
            "average is AdapterHub's, and none of its methods is loaded; mix(a:0.5, b:0.5) is the true weighted sum",
        )),
        Compose::Split(_) => Err(undefined(
            text,
            "this version does not split a row between adapters; give each side its own composition",
        )),
    }
}

fn undefined(text: &str, why: &str) -> Error {
    Error::ComposeUndefined { text: text.into(), why: why.into() }
}

/// A language vector belongs to the composition under which it was made: what is left of this one without its vectors.
fn warnings(compose: &Compose, leaves: &[Leaf<'_>]) -> Vec<String> {
    let is_vector =
        |l: &Leaf<'_>| l.adapter.patches.iter().all(|(site, p)| *site == Site::Pooled && matches!(p.op, Op::Offset(_)));
    let rest: Vec<&Leaf<'_>> = leaves.iter().filter(|l| !is_vector(l)).collect();
    let print = |l: &&Leaf<'_>| if l.scale == 1.0 { l.name.to_owned() } else { format!("{}:{}", l.name, l.scale) };
    let here = match rest.as_slice() {
        [] => "base".to_owned(),
        [one] => print(one),
        many => format!("stack({})", many.iter().map(print).collect::<Vec<_>>().join(", ")),
    };
    leaves
        .iter()
        .filter(|l| is_vector(l))
        .filter_map(|l| {
            let made = l.adapter.made_under.as_deref()?;
            (made != here).then(|| {
                format!("language vector {:?} was made under {made:?} and is used in {:?}, which runs {here:?}: make one for it with center", l.name, compose.to_string())
            })
        })
        .collect()
}

impl Placed {
    /// The table that this patch goes into.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        Purpose::Patches { site: self.site, op: self.payload.op.kind(), ordinal: self.ordinal, head: self.head }
    }
}

impl Resolved {
    /// Gives each patch its place among those of its kind at its site.
    pub(crate) fn number(&mut self) {
        let mut counts: BTreeMap<(Site, OpKind), u16> = BTreeMap::new();
        for placed in &mut self.placed {
            let next = counts.entry((placed.site, placed.payload.op.kind())).or_default();
            placed.ordinal = *next;
            *next += 1;
        }
    }

    /// The composition without its offsets of the pooled embedding: what decides the expensive part of an embedding.
    #[must_use]
    pub fn backbone(&self) -> Self {
        let placed = self.placed.iter().filter(|p| p.site != Site::Pooled).cloned().collect();
        Self { placed, ..self.clone() }
    }

    /// Moves a backbone's embedding of a text on `side` by this composition's offsets, by the definition of the steps.
    pub fn shift(&self, embedding: &mut [f32], side: Side) {
        let mut moved = false;
        for placed in self.placed.iter().filter(|p| p.site == Site::Pooled) {
            if let Op::Offset(offset) = &placed.payload.op {
                crate::steps::offset(embedding, offset.on(side), placed.scale);
                moved = true;
            }
        }
        if moved {
            crate::steps::normalize(embedding);
        }
    }
}
