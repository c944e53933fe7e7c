//! What a composition makes of AdapterHub's updates of one linear layer (`adapters` 1.3, `methods/lora.py`): LoRA and its
//! relatives, which add, and (IA)³, which multiplies.
//!
//! There, an adapter of a stack reads what the one before it made in place of the layer's input, and only the last one's
//! result reaches the output; an average is of such results; a norm is the last adapter's, whatever came before. A
//! composition thus is a sum of paths, each a chain of updates.

use super::tree::{Leaf, Node};
use crate::ir::{Meeting, Op, Payload, Reweight, Site};
use std::sync::Arc;

/// One update of a path.
#[derive(Clone, Copy)]
pub(super) struct Link<'a> {
    pub(super) name: &'a str,
    pub(super) payload: &'a Arc<Payload>,
}

/// Updates of which each reads what the one before it made.
#[derive(Clone)]
pub(super) struct Path<'a> {
    pub(super) links: Vec<Link<'a>>,
    pub(super) weight: f32,
}

/// What a composition does at one layer.
#[derive(Clone, Default)]
pub(super) struct Run<'a> {
    /// Their results are summed.
    pub(super) paths: Vec<Path<'a>>,
    /// What the adapter that was applied last does to the sum.
    pub(super) close: Option<Link<'a>>,
}

/// The layer at work.
#[derive(Clone, Copy)]
pub(super) struct Updates {
    pub(super) site: Site,
}

/// Whether `op`, of an adapter of the library, is its affair: how it meets others is a matter of the composition's tree.
pub(super) fn concerns(site: Site, op: &Op) -> bool {
    matches!(site, Site::Linear(_)) && matches!(op, Op::LowRank(_) | Op::MixedLowRank(_) | Op::Reweight(_))
}

fn meeting(payload: &Payload) -> Option<Meeting> {
    if let Op::Reweight(Reweight(change)) = &payload.op { Some(change.meeting()) } else { None }
}

type Found<T> = Result<T, String>;

impl Updates {
    /// What `node` does.
    pub(super) fn run<'a>(self, node: &Node<'a>) -> Found<Run<'a>> {
        let run = self.node(node, Run::default())?;
        let scales = |p: &Path<'_>| p.links.iter().filter(|l| meeting(l.payload) == Some(Meeting::Scales)).count();
        let mixes = |p: &&Path<'_>| (1..p.links.len()).contains(&scales(p));
        let first = run.paths.first().map_or(0, scales);
        let odd = run.paths.iter().find(mixes).or_else(|| run.paths.iter().find(|p| (scales(p) > 0) != (first > 0)));
        if let Some(odd) = odd {
            let names = |p: &Path<'a>| p.links.iter().map(|l| l.name).collect::<Vec<_>>().join(" and ");
            return Err(format!(
                "of {} and {}, one multiplies {} and one adds to it, and the library runs the last one's way on the other's numbers: that is not supported by this version",
                run.paths.first().map(names).unwrap_or_default(),
                names(odd),
                self.site
            ));
        }
        Ok(run)
    }

    fn node<'a>(self, node: &Node<'a>, before: Run<'a>) -> Found<Run<'a>> {
        Ok(match node {
            Node::Leaf(leaf) => self.leaf(leaf, before)?.0,
            Node::Stack(list) => list.iter().try_fold(before, |run, n| self.node(n, run))?,
            Node::Average(list) => {
                if !self.concerned(node) {
                    return Ok(before);
                }
                let mut out = Run::default();
                let (mut there, mut last) = (0, None);
                for (n, weight) in list {
                    // A single adapter that has nothing here is passed over; of a stack the library wants a result.
                    let (run, present) = match n {
                        Node::Leaf(leaf) => self.member(leaf, &before)?,
                        _ => (self.node(n, before.clone())?, true),
                    };
                    if present {
                        there += 1;
                        last = Some(run.clone());
                        out.join(run, *weight);
                    }
                }
                match there {
                    n if n == list.len() => {}
                    // It divides by the number of members and leaves the weights out.
                    1 => {
                        out = Run::default();
                        out.join(last.unwrap_or_default(), 1.0 / list.len() as f32);
                    }
                    n => {
                        return Err(format!(
                            "{} of the {} adapters of an average leave {} as it is, and the library cannot average the others; use mix",
                            list.len() - n,
                            list.len(),
                            self.site
                        ));
                    }
                }
                out
            }
            Node::Mix(list) | Node::Sum(list) => {
                if !self.concerned(node) {
                    return Ok(before);
                }
                let mut out = Run::default();
                for (n, weight) in list {
                    let (run, present) = match n {
                        Node::Leaf(leaf) => self.member(leaf, &before)?,
                        _ => (self.node(n, before.clone())?, self.concerned(n)),
                    };
                    if present {
                        let factor = |p: &Path<'_>| p.links.iter().any(|l| meeting(l.payload) == Some(Meeting::Scales));
                        if matches!(node, Node::Sum(_)) && run.paths.iter().any(factor) {
                            return Err(format!("an adapter that multiplies {} adds nothing; use mix", self.site));
                        }
                        out.join(run, *weight);
                    }
                }
                out
            }
            Node::Split(list, _) | Node::Fuse(list) => {
                if !self.concerned(node) {
                    return Ok(before);
                }
                let block = if matches!(node, Node::Split(..)) { "split" } else { "fuse" };
                let names: Vec<&str> = list.iter().flat_map(Node::leaves).map(|p| p.leaf.name).collect();
                return Err(format!(
                    "{block} of {}: the library has it for bottleneck adapters alone, and {} changes {}",
                    names.join(" and "),
                    names_here(list, self).join(" and "),
                    self.site
                ));
            }
        })
    }

    /// The paths through `leaf` after those of `before`, and whether it does anything here.
    fn leaf<'a>(self, leaf: &Leaf<'a>, before: Run<'a>) -> Found<(Run<'a>, bool)> {
        if !leaf.adapter.chains || leaf.scale == 0.0 {
            return Ok((before, false));
        }
        let (mut updates, mut close) = (Vec::new(), None);
        let own = leaf.adapter.patches.iter().filter(|(site, p)| *site == self.site && concerns(*site, &p.op));
        for (_, payload) in own {
            let link = Link { name: leaf.name, payload };
            if meeting(payload) == Some(Meeting::Closes) {
                close = Some(link)
            } else {
                updates.push(link)
            }
            if leaf.scale != 1.0 && meeting(payload).is_some() {
                return Err(format!(
                    "{} replaces the weights of {}, so its scale must be 1, not {}",
                    leaf.name, self.site, leaf.scale
                ));
            }
        }
        if updates.is_empty() {
            return Ok((before, false));
        }
        let start = if before.paths.is_empty() { vec![Path { links: Vec::new(), weight: 1.0 }] } else { before.paths };
        let through = |path: &Path<'a>| {
            updates
                .iter()
                .map(|link| {
                    let links = path.links.iter().chain([link]).copied().collect();
                    Path { links, weight: path.weight * leaf.scale }
                })
                .collect::<Vec<_>>()
        };
        Ok((Run { paths: start.iter().flat_map(through).collect(), close }, true))
    }

    /// `leaf` as a member of an average; one of another library is placed elsewhere, and counts.
    fn member<'a>(self, leaf: &Leaf<'a>, before: &Run<'a>) -> Found<(Run<'a>, bool)> {
        if leaf.adapter.chains {
            return self.leaf(leaf, before.clone());
        }
        let here = leaf.adapter.patches.iter().any(|(site, p)| *site == self.site && concerns(*site, &p.op));
        Ok((Run::default(), here))
    }

    /// Whether an adapter of `node` does anything here.
    fn concerned(self, node: &Node<'_>) -> bool {
        let here = |(site, p): &(Site, Arc<Payload>)| *site == self.site && concerns(*site, &p.op);
        node.leaves().iter().any(|l| l.leaf.adapter.chains && l.leaf.adapter.patches.iter().any(here))
    }
}

/// The adapters of `list` that do something here.
fn names_here<'a>(list: &[Node<'a>], updates: Updates) -> Vec<&'a str> {
    let leaves = list.iter().filter(|n| updates.concerned(n)).flat_map(Node::leaves);
    leaves.filter(|p| updates.concerned(&Node::Leaf(p.leaf))).map(|p| p.leaf.name).collect()
}

impl<'a> Run<'a> {
    /// Adds what another member gives, times `weight`; the last member's norm holds.
    fn join(&mut self, other: Self, weight: f32) {
        self.paths.extend(other.paths.into_iter().map(|p| Path { weight: p.weight * weight, ..p }));
        self.close = other.close;
    }
}
