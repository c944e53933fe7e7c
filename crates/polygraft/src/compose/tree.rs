//! A composition with its adapters found: names become leaves, weights become numbers.

use super::{Compose, Grafted, Share, Weighted};
use crate::compose::Adapters;
use crate::error::{Error, Result};
use std::sync::Arc;

/// A node whose names have been looked up.
pub(super) enum Node<'a> {
    Leaf(Leaf<'a>),
    Stack(Vec<Node<'a>>),
    Fuse(Vec<Node<'a>>),
    /// Weights as the library uses them: normalised, and divided by the number of members once more.
    Average(Vec<(Node<'a>, f32)>),
    /// Outputs with the weights as they are.
    Mix(Vec<(Node<'a>, f32)>),
    /// What each adds, with the weights as they are.
    Sum(Vec<(Node<'a>, f32)>),
    Split(Vec<Node<'a>>, Arc<[Share]>),
}

/// An adapter in a composition.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'a> {
    pub(super) name: &'a str,
    pub(super) adapter: &'a Grafted,
    /// Multiplies its contribution, without the weights around it.
    pub(super) scale: f32,
}

/// Looks up the names of `compose`; no node for the base alone.
pub(super) fn bind<'a>(compose: &'a Compose, scale: f32, adapters: &'a Adapters) -> Result<Option<Node<'a>>> {
    let all = |list: &'a [Compose]| -> Result<Vec<Node<'a>>> {
        list.iter().filter_map(|c| bind(c, scale, adapters).transpose()).collect()
    };
    let weighted = |list: &'a [Weighted]| -> Result<Vec<(Node<'a>, Option<f32>)>> {
        list.iter().filter_map(|w| bind(&w.of, scale, adapters).transpose().map(|n| Ok((n?, w.weight)))).collect()
    };
    Ok(Some(match compose {
        Compose::Base => return Ok(None),
        Compose::Use(name) => {
            let adapter = adapters.get(name).ok_or_else(|| Error::AdapterUnknown {
                name: name.clone(),
                loaded: adapters.keys().cloned().collect(),
            })?;
            if let Some(setup) = &adapter.setup {
                return bind(&setup.compose, scale, adapters);
            }
            Node::Leaf(Leaf { name, adapter, scale })
        }
        Compose::Scale(of, s) => return bind(of, scale * s, adapters),
        Compose::Stack(list) => Node::Stack(all(list)?),
        Compose::Fuse(list) => Node::Fuse(all(list)?),
        Compose::Average(list) => Node::Average(average(weighted(list)?).ok_or_else(|| Error::ComposeUndefined {
            text: compose.to_string(),
            why: "an average divides by the sum of its weights, which is 0; use mix".into(),
        })?),
        Compose::Mix(list) => Node::Mix(plain(weighted(list)?)),
        Compose::Sum(list) => Node::Sum(plain(weighted(list)?)),
        Compose::Split(list) => {
            let shares: Arc<[Share]> = list.iter().map(|(_, share)| *share).collect();
            let bound = list.iter().map(|(c, _)| bind(c, scale, adapters));
            let parts = bound.map(|n| Ok(n?.unwrap_or(Node::Stack(Vec::new()))));
            Node::Split(parts.collect::<Result<_>>()?, shares)
        }
    }))
}

fn plain(list: Vec<(Node<'_>, Option<f32>)>) -> Vec<(Node<'_>, f32)> {
    list.into_iter().map(|(n, w)| (n, w.unwrap_or(1.0))).collect()
}

/// `Average` of `adapters` 1.3: weights are 1 where none is written, are normalised to a sum of 1, and the mean that
/// follows divides by the number of members. Nothing where the sum is 0.
fn average(list: Vec<(Node<'_>, Option<f32>)>) -> Option<Vec<(Node<'_>, f32)>> {
    let count = list.len() as f32;
    let sum: f32 = list.iter().map(|(_, w)| w.unwrap_or(1.0)).sum();
    let one = |(n, w): (_, Option<f32>)| (n, w.unwrap_or(1.0) / sum / count);
    (sum != 0.0 || list.is_empty()).then(|| list.into_iter().map(one).collect())
}

impl<'a> Node<'a> {
    /// Its adapters in order, each with all that multiplies it.
    pub(super) fn leaves(&self) -> Vec<Placing<'a>> {
        let mut out = Vec::new();
        self.walk(1.0, &[], &mut out);
        out
    }

    fn walk(&self, weight: f32, part: &[super::SplitPart], out: &mut Vec<Placing<'a>>) {
        match self {
            Self::Leaf(leaf) => out.push(Placing { leaf: *leaf, scale: weight * leaf.scale, part: part.to_vec() }),
            Self::Stack(list) | Self::Fuse(list) => list.iter().for_each(|n| n.walk(weight, part, out)),
            Self::Average(list) | Self::Mix(list) | Self::Sum(list) => {
                list.iter().for_each(|(n, w)| n.walk(weight * w, part, out));
            }
            Self::Split(list, shares) => {
                for (index, node) in list.iter().enumerate() {
                    let mut part = part.to_vec();
                    part.push(super::SplitPart { shares: shares.clone(), index });
                    node.walk(weight, &part, out);
                }
            }
        }
    }
}

/// A leaf with what multiplies it and the tokens that it is for.
pub(super) struct Placing<'a> {
    pub(super) leaf: Leaf<'a>,
    pub(super) scale: f32,
    pub(super) part: Vec<super::SplitPart>,
}

/// The leaves that stand in a `fuse`.
pub(super) fn fused<'a>(node: &Node<'a>) -> Vec<Placing<'a>> {
    match node {
        Node::Fuse(_) => node.leaves(),
        Node::Leaf(_) => Vec::new(),
        Node::Stack(list) | Node::Split(list, _) => list.iter().flat_map(fused).collect(),
        Node::Average(list) | Node::Mix(list) | Node::Sum(list) => list.iter().flat_map(|(n, _)| fused(n)).collect(),
    }
}

/// What is wrong with an average in an average, if there is one.
pub(super) fn averages(node: &Node<'_>) -> Option<String> {
    let names = |n: &Node<'_>| n.leaves().iter().map(|p| p.leaf.name).collect::<Vec<_>>().join(" and ");
    match node {
        Node::Leaf(_) => None,
        Node::Average(list) => {
            if let Some((inner, _)) = list.iter().find(|(n, _)| matches!(n, Node::Average(_))) {
                let others = list.iter().filter(|(n, _)| !matches!(n, Node::Average(_)));
                let others: Vec<String> = others.map(|(n, _)| names(n)).collect();
                return Some(format!(
                    "the average of {} stands in an average with {}, which the library does not have; average all of them, with weights",
                    names(inner),
                    if others.is_empty() { "another".into() } else { others.join(" and ") }
                ));
            }
            list.iter().find_map(|(n, _)| averages(n))
        }
        Node::Mix(list) | Node::Sum(list) => list.iter().find_map(|(n, _)| averages(n)),
        Node::Stack(list) | Node::Fuse(list) | Node::Split(list, _) => list.iter().find_map(averages),
    }
}
