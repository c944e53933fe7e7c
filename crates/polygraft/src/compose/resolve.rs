//! [`Compose`] × loaded adapters → the patches that a row takes, each at its (site, ordinal) with its scale.

use super::blocks::Blocks;
use super::tree::{Leaf, Node, Placing, averages, bind, fused};
use super::updates::{self, Link, Updates};
use super::{Compose, SplitPart};
use crate::error::{Error, Result};
use crate::ir::{BlockSite, Op, Payload, Positions, Rewording, RowChange, Site, Stands};
use crate::model::{HeadSpec, ModelSpec};
use crate::program::{HeadKey, OpKind};
use std::collections::{BTreeMap, BTreeSet};
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
    /// In a stack, its low-rank updates read what the one before made.
    pub chains: bool,
    /// What it makes of a row's shape.
    pub rows: RowChange,
    /// Layers that run in the place of the base's.
    pub stack: Option<Stack>,
    /// A fusion's adapters, by the names under which it was stored.
    pub fuses: Option<Vec<String>>,
    /// What its name stands for, when it is a set-up of several: they are loaded under the names in it.
    pub setup: Option<Setup>,
}

/// Copies of a base's layers, as a session numbers them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stack {
    /// The number of the first copy: beyond the base's layers.
    pub first: u16,
    /// Which layer each is a copy of.
    pub copies: Vec<u16>,
}

impl Stack {
    /// The copies' numbers, in the order in which they run.
    pub fn layers(&self) -> impl Iterator<Item = u16> + '_ {
        (self.first..=u16::MAX).zip(&self.copies).map(|(layer, _)| layer)
    }
}

/// Several adapters and the composition that they were saved in.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// In the names under which its parts are loaded.
    pub compose: Compose,
    /// All of them, fusions and heads included.
    pub parts: Vec<String>,
}

/// Loaded fusions.
pub(super) type Fusions = Vec<Arc<Grafted>>;

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
    /// It reads what the update before it at its site made, in place of the layer's input.
    pub chained: bool,
    /// The part of each row that takes it; all of it when empty.
    pub part: Vec<SplitPart>,
}

/// What a row takes.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The composition, printed: the key by which equal ones are found.
    pub text: String,
    /// Patches in the order of the composition.
    pub placed: Vec<Placed>,
    /// Sub-blocks after which the residual and the norm are left out, for an adapter has run them.
    pub unnormed: Vec<BlockSite>,
    /// What becomes of a row's shape.
    pub rows: RowChange,
    /// Layers that run in the place of the base's.
    pub stack: Option<Stack>,
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
    let node = bind(compose, 1.0, adapters)?;
    let leaves = node.as_ref().map(Node::leaves).unwrap_or_default();
    let owner = leaves.iter().rposition(|l| l.leaf.adapter.head.is_some());
    let head = owner.map_or(spec.head.clone(), |i| leaves[i].leaf.adapter.head.clone());
    let warnings = warnings(compose, &leaves, adapters);
    let mut out = Resolved {
        placed: Vec::new(),
        unnormed: Vec::new(),
        rows: RowChange::default(),
        stack: None,
        head,
        warnings,
        text,
    };
    let Some(node) = node else { return Ok(out) };
    out.methods(&node, &leaves)?;
    out.stack(&leaves)?;
    out.weights(&node, &leaves, (owner, &spec.head))?;
    out.rows(&leaves)?;
    out.blocks(&node, &leaves, adapters, spec.special.separator)?;
    out.number();
    Ok(out)
}

impl Resolved {
    /// Compositions that only some methods have.
    fn methods(&self, node: &Node<'_>, leaves: &[Placing<'_>]) -> Result<()> {
        for placing in leaves {
            let Leaf { name, adapter, .. } = placing.leaf;
            if adapter.fuses.is_some() {
                let why = format!("{name} is a fusion of adapters: write fuse(…) of their names");
                return Err(undefined(&self.text, &why));
            }
            let row = |(site, _): &&(Site, Arc<Payload>)| *site == Site::Pooled;
            if !placing.part.is_empty() && adapter.patches.iter().any(|p| row(&p)) {
                let why = format!("{name} moves the embedding of a whole row, which a split has no parts of");
                return Err(undefined(&self.text, &why));
            }
        }
        if let Some(why) = averages(node) {
            return Err(undefined(&self.text, &why));
        }
        let fused = fused(node);
        let has_block = |l: &&Placing<'_>| l.leaf.adapter.patches.iter().any(|(s, _)| matches!(s, Site::Block(_)));
        if let Some(bare) = fused.iter().find(|l| !has_block(l)) {
            let why = format!(
                "fuse attends over bottleneck adapters, and {} has none; use stack, sum or mix",
                bare.leaf.name
            );
            return Err(undefined(&self.text, &why));
        }
        Ok(())
    }

    /// Layers in the place of the base's: all that change layers must have the same.
    fn stack(&mut self, leaves: &[Placing<'_>]) -> Result<()> {
        let Some(first) = leaves.iter().find(|l| l.leaf.adapter.stack.is_some()) else { return Ok(()) };
        self.stack.clone_from(&first.leaf.adapter.stack);
        let in_layers = |l: &&Placing<'_>| l.leaf.adapter.patches.iter().any(|(site, _)| site.layer().is_some());
        let other =
            |l: &&Placing<'_>| l.leaf.adapter.stack != self.stack && (l.leaf.adapter.stack.is_some() || in_layers(l));
        if let Some(other) = leaves.iter().find(other) {
            let why = format!(
                "{} runs copies of the base's layers, and {} changes other layers than those; use them in rows of their own",
                first.leaf.name, other.leaf.name
            );
            return Err(undefined(&self.text, &why));
        }
        if leaves.iter().any(|l| !l.part.is_empty()) {
            let why = format!("{} runs layers of its own, and a split has only parts of rows", first.leaf.name);
            return Err(undefined(&self.text, &why));
        }
        Ok(())
    }

    /// Ops on weights, norms and the pooled vector: all read the same input, so that their order does not matter, or
    /// they replace what they change.
    fn weights(
        &mut self,
        node: &Node<'_>,
        leaves: &[Placing<'_>],
        (owner, base_head): (Option<usize>, &Option<HeadSpec>),
    ) -> Result<()> {
        let mut replaced: Vec<(Site, &Placing<'_>)> = Vec::new();
        let mut words: Vec<(Site, u32, &Placing<'_>)> = Vec::new();
        let last = leaves.iter().rposition(|l| l.leaf.adapter.chains);
        for (index, placing) in leaves.iter().enumerate() {
            let (leaf, scale) = (placing.leaf, placing.scale);
            // A head's own layers come from the adapter whose head runs; an adapter without a head patches whichever runs.
            let other_head = leaf.adapter.head.is_some() && owner != Some(index);
            for (site, payload) in &leaf.adapter.patches {
                let apart = matches!(
                    payload.op.kind(),
                    OpKind::Bottleneck | OpKind::Fusion | OpKind::Coupling | OpKind::Reft | OpKind::Prompt
                );
                if !placing.part.is_empty() && matches!(payload.op, Op::Rewording(_) | Op::Prefix(_)) {
                    let what = payload.op.name();
                    let why =
                        format!("{} has a {what}, which is for whole rows: a split has no parts of it", leaf.name);
                    return Err(undefined(&self.text, &why));
                }
                let apart = apart || leaf.adapter.chains && updates::concerns(*site, &payload.op);
                if apart || site.is_head() && (other_head || self.head.is_none()) {
                    continue;
                }
                // It was checked against the base's head.
                let shaped = |head: &Option<HeadSpec>| head.as_ref().map(HeadSpec::key);
                if site.is_head() && leaf.adapter.head.is_none() && shaped(&self.head) != shaped(base_head) {
                    let owner = owner.map_or("", |i| leaves[i].leaf.name);
                    let why = format!(
                        "{} changes the base's head at {site}, and the head that runs is {owner}'s, of another shape",
                        leaf.name
                    );
                    return Err(undefined(&self.text, &why));
                }
                if payload.op.is_additive() {
                    if scale == 0.0 {
                        continue;
                    }
                } else {
                    // A head is chosen, not added: the leaf's scale does not touch it.
                    if scale != 1.0 && !belongs_to_head(*site, leaf.adapter) {
                        let why = format!(
                            "{} replaces the weights of {site}, so its scale must be 1, not {scale}",
                            leaf.name
                        );
                        return Err(undefined(&self.text, &why));
                    }
                    if let Op::Rewording(Rewording(change)) = &payload.op
                        && let Stands::Rows(rows) = change.stands_for()
                    {
                        let taken = |(s, id, p): &&(Site, u32, &Placing<'_>)| {
                            s == site && rows.contains(id) && !SplitPart::apart(&p.part, &placing.part)
                        };
                        if let Some((_, id, first)) = words.iter().find(taken) {
                            let why =
                                format!("{} and {} both bring row {id} of the {site}", first.leaf.name, leaf.name);
                            return Err(undefined(&self.text, &why));
                        }
                        words.extend(rows.iter().map(|id| (*site, *id, placing)));
                    }
                    let brings = match &payload.op {
                        Op::Reweight(_) | Op::Prefix(_) => false,
                        Op::Rewording(Rewording(change)) => change.stands_for() == Stands::Table,
                        _ => true,
                    };
                    if brings {
                        let same =
                            |(s, p): &&(Site, &Placing<'_>)| s == site && !SplitPart::apart(&p.part, &placing.part);
                        if let Some((_, first)) = replaced.iter().find(same) {
                            let why = format!("{} and {} both replace {site}", first.leaf.name, leaf.name);
                            return Err(undefined(&self.text, &why));
                        }
                        replaced.push((*site, placing));
                    }
                }
                self.place(*site, payload.clone(), placing, scale);
            }
            if last == Some(index) {
                self.updates(node, leaves)?;
            }
        }
        Ok(())
    }

    /// AdapterHub's updates of linear layers, at every layer that any adapter has one for.
    fn updates(&mut self, node: &Node<'_>, leaves: &[Placing<'_>]) -> Result<()> {
        let mut sites: Vec<Site> = Vec::new();
        for leaf in leaves.iter().map(|l| l.leaf).filter(|l| l.adapter.chains) {
            for (site, payload) in &leaf.adapter.patches {
                if updates::concerns(*site, &payload.op) && !sites.contains(site) {
                    sites.push(*site);
                }
            }
        }
        for site in sites {
            let run = Updates { site }.run(node).map_err(|why| undefined(&self.text, &why))?;
            let close = run.close.filter(|_| !run.paths.is_empty());
            let links = run.paths.iter().flat_map(|path| {
                path.links.iter().enumerate().map(|(i, link)| (*link, if i == 0 { path.weight } else { 1.0 }, i > 0))
            });
            for (Link { name, payload }, scale, chained) in links.chain(close.map(|c| (c, 1.0, false))) {
                self.placed.push(Placed {
                    site,
                    ordinal: 0,
                    head: None,
                    payload: payload.clone(),
                    adapter: name.to_owned(),
                    scale,
                    chained,
                    part: Vec::new(),
                });
            }
        }
        Ok(())
    }

    /// Ops that the library takes from the first adapter alone, and what adapters make of a row's shape.
    fn rows(&mut self, leaves: &[Placing<'_>]) -> Result<()> {
        for (index, placing) in leaves.iter().enumerate() {
            let (name, adapter) = (placing.leaf.name, placing.leaf.adapter);
            let RowChange { virtual_tokens, after_first, positions, drops_types, own_words } = adapter.rows;
            self.rows.own_words |= own_words;
            if !placing.part.is_empty() && adapter.rows != RowChange::default() {
                let why = format!("{name} changes whole rows, which a split has no parts of");
                return Err(undefined(&self.text, &why));
            }
            let only_first = |(_, p): &(Site, Arc<Payload>)| matches!(p.op.kind(), OpKind::Reft | OpKind::Prompt);
            let first = is_first(leaves, index);
            if !first && adapter.patches.iter().any(only_first) {
                self.warnings.push(format!(
                    "{name} intervenes in layer outputs or adds virtual tokens, which the library takes from the first adapter of a composition alone: that part of it does not run in {:?}",
                    self.text
                ));
            }
            if !first && virtual_tokens > 0 {
                continue;
            }
            if self.rows.virtual_tokens > 0 && virtual_tokens > 0 {
                let why = format!("{name} and an adapter before it both add virtual tokens to a row; use one of them");
                return Err(undefined(&self.text, &why));
            }
            self.rows.virtual_tokens += virtual_tokens;
            self.rows.after_first |= after_first;
            self.rows.drops_types |= drops_types;
            self.rows.positions = match (self.rows.positions, positions) {
                (Positions::Own, other) | (other, Positions::Own) => other,
                (Positions::Shifted(a), Positions::Shifted(b)) => Positions::Shifted(a + b),
                (Positions::Sequence, _) | (_, Positions::Sequence) => {
                    let why = format!("{name} and another adapter both count positions anew");
                    return Err(undefined(&self.text, &why));
                }
            };
        }
        if self.rows.virtual_tokens > 0 && leaves.iter().any(|l| !l.part.is_empty()) {
            return Err(undefined(&self.text, "virtual tokens and a split cannot share a row"));
        }
        for (_, placing) in leaves.iter().enumerate().filter(|(index, _)| is_first(leaves, *index)) {
            for (site, payload) in &placing.leaf.adapter.patches {
                let kind = payload.op.kind();
                if !matches!(kind, OpKind::Coupling | OpKind::Reft | OpKind::Prompt) {
                    continue;
                }
                if !placing.part.is_empty() && kind != OpKind::Coupling {
                    let why = format!("{} changes whole rows, which a split has no parts of", placing.leaf.name);
                    return Err(undefined(&self.text, &why));
                }
                // An average's weights are not a soft prompt's, in the library as well; a scale that was written would be lost.
                if kind == OpKind::Prompt && placing.leaf.scale != 1.0 {
                    let why = format!(
                        "{} puts virtual tokens into a row, which have no scale; write {0} alone",
                        placing.leaf.name
                    );
                    return Err(undefined(&self.text, &why));
                }
                let scale = if kind == OpKind::Reft { placing.scale } else { 1.0 };
                self.place(*site, payload.clone(), placing, scale);
                if kind == OpKind::Coupling && self.head.as_ref().is_some_and(|h| h.uncouples) {
                    self.place(Site::Vocabulary, payload.clone(), placing, 1.0);
                }
            }
        }
        Ok(())
    }

    /// Bottlenecks, at every sub-block that any adapter has one for.
    fn blocks(&mut self, node: &Node<'_>, leaves: &[Placing<'_>], adapters: &Adapters, separator: u32) -> Result<()> {
        let site = |(site, p): &(Site, Arc<Payload>)| match (site, &p.op) {
            (Site::Block(site), Op::Bottleneck(_)) => Some(*site),
            _ => None,
        };
        let sites: BTreeSet<BlockSite> =
            leaves.iter().flat_map(|l| l.leaf.adapter.patches.iter().filter_map(site)).collect();
        let fusions: Fusions = adapters.values().filter(|a| a.fuses.is_some()).cloned().collect();
        let loaded: Vec<&String> = adapters.keys().collect();
        for site in sites {
            let blocks = Blocks { site, fusions: &fusions, loaded: &loaded, separator };
            let (run, last) = blocks.run(node).map_err(|why| undefined(&self.text, &why))?;
            for rewrite in run {
                self.placed.push(Placed {
                    site: Site::Block(site),
                    ordinal: 0,
                    head: None,
                    payload: rewrite.payload,
                    adapter: rewrite.names.join(" + "),
                    scale: rewrite.scale,
                    chained: false,
                    part: rewrite.part,
                });
            }
            if last.is_some_and(|rules| !rules.norm_after) {
                self.unnormed.push(site);
            }
        }
        Ok(())
    }

    fn place(&mut self, site: Site, payload: Arc<Payload>, placing: &Placing<'_>, scale: f32) {
        let in_head = in_head_steps(site);
        self.placed.push(Placed {
            site,
            ordinal: 0,
            head: if in_head { self.head.as_ref().map(HeadSpec::key) } else { None },
            payload,
            adapter: placing.leaf.name.to_owned(),
            scale,
            chained: false,
            // A head reads all of a row, and so do the embeddings.
            part: if in_head || site == Site::Embeddings { Vec::new() } else { placing.part.clone() },
        });
    }
}

/// Whether `leaves[index]` is the first of its library: adapters of others are not part of its set-up.
fn is_first(leaves: &[Placing<'_>], index: usize) -> bool {
    leaves[..index].iter().all(|l| l.leaf.adapter.chains != leaves[index].leaf.adapter.chains)
}

/// Sites that are planned inside a head's steps, and so once for each head shape.
#[must_use]
pub(crate) fn in_head_steps(site: Site) -> bool {
    site.is_head() || matches!(site, Site::Vocabulary | Site::Linear(crate::ir::LinearSite::Pooler))
}

fn belongs_to_head(site: Site, adapter: &Grafted) -> bool {
    adapter.head.is_some() && in_head_steps(site)
}

fn undefined(text: &str, why: &str) -> Error {
    Error::ComposeUndefined { text: text.into(), why: why.into() }
}

/// A language vector belongs to the composition under which it was made: what is left of this one without its vectors.
fn warnings(compose: &Compose, leaves: &[Placing<'_>], adapters: &Adapters) -> Vec<String> {
    let is_vector = |l: &Placing<'_>| {
        l.leaf.adapter.patches.iter().all(|(site, p)| *site == Site::Pooled && matches!(p.op, Op::Offset(_)))
    };
    let print =
        |l: &Placing<'_>| if l.scale == 1.0 { l.leaf.name.to_owned() } else { format!("{}:{}", l.leaf.name, l.scale) };
    let flat = |leaves: &[Placing<'_>]| match leaves.iter().filter(|l| !is_vector(l)).map(print).collect::<Vec<_>>() {
        none if none.is_empty() => "base".to_owned(),
        one if one.len() == 1 => one.concat(),
        many => format!("stack({})", many.join(", ")),
    };
    let here = flat(leaves);
    // Both as the same list of adapters with their scales.
    let there = |made: &str| {
        let node = made
            .parse::<Compose>()
            .ok()
            .and_then(|c| bind(&c, 1.0, adapters).ok().map(|n| n.map(|n| flat(&n.leaves()))));
        node.map_or_else(|| made.to_owned(), |flat| flat.unwrap_or_else(|| "base".into()))
    };
    leaves
        .iter()
        .filter(|l| is_vector(l))
        .filter_map(|l| {
            let made = l.leaf.adapter.made_under.as_deref()?;
            (there(made) != here).then(|| {
                format!("language vector {:?} was made under {made:?} and is used in {:?}, which runs {here:?}: make one for it with center", l.leaf.name, compose.to_string())
            })
        })
        .collect()
}
