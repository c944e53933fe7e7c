//! What a composition makes of bottlenecks at one sub-block: a run of payloads, each of which rewrites the output.
//!
//! The nesting is AdapterHub's (`adapters` 1.3, `composition.py` and `methods/bottleneck.py`), quirks included: members
//! that read one input share the rules of the first (the last for a fusion), a stack inside runs each member's own, a
//! parallel adapter does not see what came before it.

use super::tree::{Leaf, Node};
use super::{Fusions, SplitPart};
use crate::ir::{Blend, BlockSite, Bottleneck, How, Op, Part, Payload, PayloadId, Residual, Rules, Site};
use std::sync::Arc;

/// One payload of the run.
pub(super) struct Rewrite<'a> {
    pub(super) payload: Arc<Payload>,
    pub(super) scale: f32,
    pub(super) part: Vec<SplitPart>,
    /// The adapters that it is made of, for `explain` and errors.
    pub(super) names: Vec<&'a str>,
}

/// The sub-block at work, and the fusions that are loaded.
pub(super) struct Blocks<'f> {
    pub(super) site: BlockSite,
    pub(super) fusions: &'f Fusions,
    /// The names of all that is loaded.
    pub(super) loaded: &'f [&'f String],
    /// The token that ends the first text of a row.
    pub(super) separator: u32,
}

/// What becomes of a split.
#[derive(Clone, Copy, PartialEq)]
enum Splits {
    /// Each of its parts is a payload, for its part of the row.
    Apart,
    /// One payload for whole rows: what stands around it reads all of them, or gates would be means over less.
    Whole,
}

type Found<T> = Result<T, String>;

/// The bottleneck of `leaf` at `site`.
fn own<'a>(leaf: &Leaf<'a>, site: BlockSite) -> Option<(&'a Arc<Payload>, &'a Bottleneck)> {
    leaf.adapter.patches.iter().find_map(|(at, payload)| match &payload.op {
        Op::Bottleneck(b) if *at == Site::Block(site) => Some((payload, &**b)),
        _ => None,
    })
}

fn blend(rules: Rules, parts: Vec<Part>, how: How) -> Arc<Payload> {
    Arc::new(Payload { id: PayloadId::UNNAMED, op: Op::Blend(Blend { rules, parts, how }) })
}

/// Weights of an average where some members have nothing: the library multiplies what is there by the weights of all,
/// and so divides a member that is alone by their number; other numbers of members do not fit and fail there.
fn averaged(parts: &mut [Part], of: usize) -> Found<()> {
    match parts {
        [alone] if of > 1 => alone.weight = 1.0 / of as f32,
        parts if parts.len() < of => {
            return Err(format!(
                "{} of the {of} adapters of an average have nothing, and the library cannot average the others; use mix",
                of - parts.len()
            ));
        }
        _ => {}
    }
    Ok(())
}

/// A run of several as one payload, which reads what the sub-block made as it is.
fn as_one(run: Vec<Rewrite<'_>>) -> Rewrite<'_> {
    let rules = Rules {
        parallel: false,
        keeps: false,
        norm_before: false,
        residual: Residual::Branch,
        residual_inside: false,
        norm_after: true,
    };
    let names = run.iter().flat_map(|r| r.names.iter().copied()).collect();
    let chain = run.into_iter().map(|r| (r.payload, r.scale)).collect();
    let parts = vec![Part { chain, stacked: true, weight: 1.0 }];
    Rewrite { payload: blend(rules, parts, How::Average), scale: 1.0, part: Vec::new(), names }
}

fn rules(payload: &Payload) -> Option<Rules> {
    match &payload.op {
        Op::Bottleneck(b) => Some(b.rules),
        Op::Blend(b) => Some(b.rules),
        _ => None,
    }
}

/// Whether a payload's input or one inside it is prepared by rules that leave the residual undefined.
fn unruled(payload: &Payload) -> bool {
    let inside = match &payload.op {
        Op::Blend(b) => b.parts.iter().filter(|p| p.stacked).flat_map(|p| &p.chain).any(|(p, _)| unruled(p)),
        _ => false,
    };
    inside || rules(payload).is_some_and(|r| r.residual == Residual::Undefined)
}

impl Blocks<'_> {
    /// The run of `node`, and the rules of the adapter that was applied last, whose `norm_after` holds.
    pub(super) fn run<'a>(&self, node: &Node<'a>) -> Found<(Vec<Rewrite<'a>>, Option<Rules>)> {
        let mut run = self.reached(node, Splits::Apart)?;
        // What the sub-block made is added at the end when the last adapter is parallel, whatever was in front of it.
        let last = self.last(node);
        let keeps = last.is_some_and(|r| r.parallel);
        let alone = |(at, r): (usize, &Rewrite<'_>)| run[..at].iter().all(|q| SplitPart::apart(&q.part, &r.part));
        if keeps && !run.iter().enumerate().all(alone) {
            run = self.reached(node, Splits::Whole)?;
            if run.len() > 1 {
                run = vec![as_one(run)];
            }
        }
        if let Some(name) = run.iter().find_map(|r| unruled(&r.payload).then(|| r.names.join(", "))) {
            return Err(format!(
                "of {name}, one that runs first has the residual \"post_add\" and no norm before it (residual_before_ln, original_ln_before), which is undefined, in the library as well"
            ));
        }
        for rewrite in &mut run {
            if let Some(own) = rules(&rewrite.payload).filter(|own| own.keeps != keeps) {
                let (parts, how) = match &rewrite.payload.op {
                    Op::Blend(own) => (own.parts.clone(), own.how.clone()),
                    _ => {
                        let chain = vec![(rewrite.payload.clone(), rewrite.scale)];
                        (vec![Part { chain, stacked: false, weight: 1.0 }], How::Average)
                    }
                };
                rewrite.payload = blend(Rules { keeps, ..own }, parts, how);
                rewrite.scale = 1.0;
            }
        }
        Ok((run, last))
    }

    /// The run of `node`, without what nothing reads: what stands before a parallel adapter does not reach it, and its
    /// output joins `h` only at the end.
    fn reached<'a>(&self, node: &Node<'a>, splits: Splits) -> Found<Vec<Rewrite<'a>>> {
        let mut run = self.node(node, splits)?;
        let parallel = |r: &Rewrite<'_>| r.part.is_empty() && rules(&r.payload).is_some_and(|r| r.parallel);
        if let Some(at) = run.iter().rposition(parallel) {
            run.drain(..at);
        }
        Ok(run)
    }

    /// Rules of the last leaf at this site.
    fn last(&self, node: &Node<'_>) -> Option<Rules> {
        match node {
            Node::Leaf(leaf) => own(leaf, self.site).map(|(_, b)| b.rules),
            Node::Stack(list) | Node::Fuse(list) | Node::Split(list, _) => list.iter().rev().find_map(|n| self.last(n)),
            Node::Average(list) | Node::Mix(list) | Node::Sum(list) => {
                list.iter().rev().find_map(|(n, _)| self.last(n))
            }
        }
    }

    fn first(&self, node: &Node<'_>) -> Option<Rules> {
        match node {
            Node::Leaf(leaf) => own(leaf, self.site).map(|(_, b)| b.rules),
            Node::Stack(list) | Node::Fuse(list) | Node::Split(list, _) => list.iter().find_map(|n| self.first(n)),
            Node::Average(list) | Node::Mix(list) | Node::Sum(list) => list.iter().find_map(|(n, _)| self.first(n)),
        }
    }

    fn node<'a>(&self, node: &Node<'a>, splits: Splits) -> Found<Vec<Rewrite<'a>>> {
        let one = |payload, names| vec![Rewrite { payload, scale: 1.0, part: Vec::new(), names }];
        Ok(match node {
            // At scale 0 it adds nothing, and still runs the residual and the norm that it has taken over.
            Node::Leaf(leaf) => own(leaf, self.site)
                .map(|(payload, _)| Rewrite {
                    payload: payload.clone(),
                    scale: leaf.scale,
                    part: Vec::new(),
                    names: vec![leaf.name],
                })
                .into_iter()
                .collect(),
            Node::Stack(list) => {
                let runs: Vec<_> = list.iter().map(|n| self.node(n, splits)).collect::<Found<_>>()?;
                runs.into_iter().flatten().collect()
            }
            Node::Average(list) | Node::Mix(list) | Node::Sum(list) => {
                let Some(rules) = self.first(node) else { return Ok(Vec::new()) };
                let mut names = Vec::new();
                let parts = list.iter().map(|(n, w)| self.part(n, *w, &mut names)).collect::<Found<Vec<_>>>()?;
                let mut parts: Vec<Part> = parts.into_iter().flatten().collect();
                if matches!(node, Node::Average(_)) {
                    averaged(&mut parts, list.len()).map_err(|why| format!("at {}, {why}", Site::Block(self.site)))?;
                }
                let how = if matches!(node, Node::Sum(_)) { How::Sum } else { How::Average };
                one(blend(rules, parts, how), names)
            }
            Node::Fuse(list) => {
                let Some(rules) = self.last(node) else { return Ok(Vec::new()) };
                if list.iter().any(|n| matches!(n, Node::Split(..))) {
                    return Err("a split cannot stand in fuse: write split(fuse(…), fuse(…))".into());
                }
                let mut names = Vec::new();
                let parts = list.iter().map(|n| self.part(n, 1.0, &mut names)).collect::<Found<Vec<_>>>()?;
                let parts: Vec<Part> = parts.into_iter().flatten().collect();
                let fusion = self.fusion(list)?;
                if parts.iter().any(|p| !p.chain.last().is_some_and(|(p, _)| matches!(p.op, Op::Bottleneck(_)))) {
                    return Err("fuse attends over adapters and stacks of adapters".into());
                }
                one(blend(rules, parts, How::Fuse(fusion)), names)
            }
            Node::Split(list, shares) => {
                let Some(rules) = self.first(node) else { return Ok(Vec::new()) };
                let mut out = Vec::new();
                let (mut members, mut all_names) = (Vec::new(), Vec::new());
                for (index, n) in list.iter().enumerate() {
                    let here = SplitPart { shares: shares.clone(), index };
                    if splits == Splits::Apart && matches!(n, Node::Split(..)) {
                        // The inner split prepares its input anew, from what the outer one prepared.
                        out.extend(self.node(n, splits)?.into_iter().map(|inner| {
                            let chain = vec![(inner.payload, inner.scale)];
                            let payload = blend(rules, vec![Part { chain, stacked: true, weight: 1.0 }], How::Average);
                            let part = std::iter::once(here.clone()).chain(inner.part).collect();
                            Rewrite { payload, scale: 1.0, part, names: inner.names }
                        }));
                        continue;
                    }
                    let mut names = Vec::new();
                    let part = self.part(n, 1.0, &mut names)?;
                    if let (None, Node::Leaf(Leaf { name, .. })) = (&part, n) {
                        let all = list.iter().flat_map(Node::leaves).map(|p| p.leaf.name).collect::<Vec<_>>();
                        return Err(format!(
                            "of {}, {name} has nothing at {}, and the library cannot put the parts of the row together again; split between adapters of the same sub-blocks",
                            all.join(" and "),
                            Site::Block(self.site)
                        ));
                    }
                    if splits == Splits::Whole {
                        all_names.extend(names);
                        // Of nothing, what it reads.
                        members.push(part.unwrap_or(Part { chain: Vec::new(), stacked: true, weight: 1.0 }));
                        continue;
                    }
                    let Some(part) = part else { continue };
                    let payload = blend(rules, vec![part], How::Average);
                    out.push(Rewrite { payload, scale: 1.0, part: vec![here], names });
                }
                if splits == Splits::Whole {
                    let how = How::Split { shares: shares.clone(), separator: self.separator };
                    out = one(blend(rules, members, how), all_names);
                }
                out
            }
        })
    }

    /// A member that reads what others read too.
    fn part<'a>(&self, node: &Node<'a>, weight: f32, names: &mut Vec<&'a str>) -> Found<Option<Part>> {
        let stacked = !matches!(node, Node::Leaf(_));
        let run = self.node(node, Splits::Whole)?;
        names.extend(run.iter().flat_map(|r| r.names.iter().copied()));
        let chain: Vec<_> = run.into_iter().map(|r| (r.payload, r.scale)).collect();
        // A stack of which nothing is here passes on what it reads.
        let there = !chain.is_empty() || matches!(node, Node::Stack(list) if !list.is_empty());
        Ok(there.then_some(Part { chain, stacked, weight }))
    }

    /// The fusion that was stored for these adapters: of their names, or else, since names are given anew on loading,
    /// the only one of as many.
    fn fusion(&self, list: &[Node<'_>]) -> Found<Arc<Payload>> {
        let names: Vec<&str> = list.iter().map(|n| n.leaves().last().map_or("", |p| p.leaf.name)).collect();
        let stored = |f: &Arc<super::Grafted>| f.fuses.clone().unwrap_or_default();
        let of_size: Vec<_> = self.fusions.iter().filter(|f| stored(f).len() == list.len()).collect();
        let fusion = match (of_size.iter().find(|f| stored(f) == names), of_size.as_slice()) {
            (Some(exact), _) => exact,
            (None, []) => {
                return Err(format!("no fusion of {} adapters is loaded; load its folder as a fusion", list.len()));
            }
            (None, [one]) => {
                // A member that is loaded under its stored name and stands elsewhere, or not at all, is no mere renaming.
                let own = stored(one);
                let moved = own.iter().zip(&names).find(|(s, n)| s != *n && self.loaded.contains(s));
                if let Some((stored, found)) = moved {
                    let of = own.join(", ");
                    return Err(format!("the fusion was saved for ({of}), and where {stored} belongs is {found}"));
                }
                one
            }
            (None, _) => return Err("several fusions of this size are loaded, and none is of these names".into()),
        };
        let payload = fusion.patches.iter().find(|(site, _)| *site == Site::Block(self.site)).map(|(_, p)| p.clone());
        payload.ok_or_else(|| "the fusion has no layer where these adapters are".into())
    }
}
