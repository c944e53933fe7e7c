//! Weight variants: linear layers as compositions change them, computed once and kept under a byte budget.

use super::factors::{Changed, Scaling, change, changed};
use crate::backend::Backend;
use crate::compose::{Placed, Resolved, SplitPart};
use crate::error::{Error, Result};
use crate::ir::{Dense, Layer, LinearSite, Meeting, Norm, NormSite, Op, Payload, PayloadId, Reweight, Site};
use crate::model::ModelSpec;
use crate::quant::{BLOCK, q8_0};
use crate::tensor::{Matrix, Scheme, Storage};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of changed layers that a session keeps unless told otherwise.
pub const BUDGET: usize = 64 << 20;

/// What a variant is made of: payloads in order, with the bits of their scales.
pub(super) type Key = Vec<(PayloadId, u32)>;

/// Stands in a key after what reads what the one before it made.
pub(super) const CHAIN: (PayloadId, u32) = (PayloadId(u64::MAX), 0);

/// Stands at the end of a key, with the place among what the rest of it gives.
const MADE: PayloadId = PayloadId(u64::MAX - 1);

/// The variants that a session has made.
#[derive(Debug)]
pub(super) struct Variants {
    made: BTreeMap<Key, Arc<Payload>>,
    /// Keys, those that were used longest ago first.
    order: Vec<Key>,
    pub(super) budget: usize,
}

impl Default for Variants {
    fn default() -> Self {
        Self { made: BTreeMap::new(), order: Vec::new(), budget: BUDGET }
    }
}

impl Variants {
    pub(super) fn holds(&self, id: PayloadId) -> bool {
        self.made.values().any(|p| p.id == id)
    }

    /// What the variant `id` is made of: payloads of adapters, or variants themselves.
    pub(super) fn parts(&self, id: PayloadId) -> Option<Vec<PayloadId>> {
        let (key, _) = self.made.iter().find(|(_, p)| p.id == id)?;
        Some(key.iter().map(|(id, _)| *id).filter(|id| *id < MADE).collect())
    }

    pub(super) fn bytes(&self) -> usize {
        self.made.values().map(|p| p.op.bytes()).sum()
    }

    pub(super) fn found(&mut self, key: &Key) -> Option<Arc<Payload>> {
        let found = self.made.get(key)?.clone();
        self.order.retain(|k| k != key);
        self.order.push(key.clone());
        Some(found)
    }

    /// Variants that `id` is a part of leave with it.
    pub(super) fn forget(&mut self, id: PayloadId) -> Vec<PayloadId> {
        let keys: Vec<Key> = self.made.keys().filter(|k| k.iter().any(|(i, _)| *i == id)).cloned().collect();
        self.order.retain(|k| !keys.contains(k));
        keys.iter().filter_map(|k| self.made.remove(k)).map(|p| p.id).collect()
    }

    /// Keeps `payload`. What no call uses leaves, longest unused first, until the budget holds; `gone` are their ids.
    pub(super) fn keep(&mut self, key: Key, payload: Arc<Payload>, gone: &mut Vec<PayloadId>) -> Result<()> {
        let needed = payload.op.bytes();
        let idle: Vec<Key> = self.order.iter().filter(|k| Arc::strong_count(&self.made[*k]) == 1).cloned().collect();
        for old in idle {
            if self.bytes() + needed <= self.budget {
                break;
            }
            self.order.retain(|k| *k != old);
            gone.extend(self.made.remove(&old).map(|p| p.id));
        }
        if self.bytes() + needed > self.budget {
            let why = format!(
                "the layers that these adapters change take more than {} MB; use fewer of them in one call, or raise the budget of weight variants",
                self.budget >> 20
            );
            return Err(Error::Argument { what: "adapters".into(), why });
        }
        self.order.push(key.clone());
        self.made.insert(key, payload);
        Ok(())
    }
}

/// The patches of one site that become one variant.
struct Folded {
    /// Their places in `placed`: all up to the last change of the weight that has to see them. Low-rank updates that
    /// nothing follows stay updates.
    places: Vec<usize>,
    /// Updates with a gate or routes before that change, each with the number of `places` before it: they stay updates,
    /// and are multiplied as the layer's outputs are.
    scaled: Vec<(usize, usize)>,
}

/// Of the patches at `site`, those that are for tokens that `part` has, too.
fn folded(placed: &[Placed], site: Site, part: &[SplitPart]) -> Folded {
    let here = (0..placed.len()).filter(|&i| placed[i].site == site && !SplitPart::apart(&placed[i].part, part));
    let here: Vec<usize> = here.collect();
    let last =
        here.iter().rposition(|i| change(&placed[*i]).is_some_and(|c| c.meeting() != Meeting::Adds)).unwrap_or(0);
    let (mut places, mut scaled) = (Vec::new(), Vec::new());
    for (at, &i) in here.iter().enumerate() {
        match &placed[i].payload.op {
            Op::LowRank(_) | Op::MixedLowRank(_) if at >= last => {}
            Op::MixedLowRank(_) => scaled.push((i, places.len())),
            _ => places.push(i),
        }
    }
    Folded { places, scaled }
}

impl<B: Backend> super::Session<B> {
    /// Puts changed layers in the place of the changes.
    pub(super) fn materialize(&mut self, resolved: &mut Resolved) -> Result<()> {
        let changed = resolved.placed.iter().filter(|p| matches!(p.payload.op, Op::Reweight(_)));
        let mut sites: Vec<(Site, Vec<SplitPart>)> = Vec::new();
        for p in changed {
            let here = (p.site, p.part.clone());
            if !sites.contains(&here) {
                sites.push(here);
            }
        }
        // A stable order: what a variant is made of names it.
        sites.sort_by_key(|(site, _)| *site);
        for (site, part) in sites {
            let Folded { places, scaled } = folded(&resolved.placed, site, &part);
            let Some(&first) = places.first() else { continue };
            let all = places.iter().chain(scaled.iter().map(|(i, _)| i));
            if let Some(other) = all.map(|i| &resolved.placed[*i]).find(|p| p.part != part) {
                let why = format!(
                    "{} changes {site} for other tokens of a row than {}, and a layer's weights are one for each token: name both in every part of the split that has them",
                    other.adapter, resolved.placed[first].adapter
                );
                return Err(Error::ComposeUndefined { text: resolved.text.clone(), why });
            }
            let pick = |i: &usize| resolved.placed[*i].clone();
            let parts: Vec<Placed> = places.iter().map(pick).collect();
            let updates: Vec<(Placed, usize)> = scaled.iter().map(|(i, before)| (pick(i), *before)).collect();
            let mut owners: Vec<&str> = parts.iter().map(|p| p.adapter.as_str()).collect();
            owners.dedup();
            let made = self.made(site, &parts, &updates)?.into_iter().map(|payload| Placed {
                payload,
                adapter: owners.join(" + "),
                scale: 1.0,
                ordinal: 0,
                chained: false,
                ..resolved.placed[first].clone()
            });
            let made: Vec<Placed> = made.collect();
            let mut at = 0;
            resolved.placed.retain(|_| {
                at += 1;
                !places.contains(&(at - 1)) && !scaled.iter().any(|(i, _)| *i == at - 1)
            });
            resolved.placed.extend(made);
        }
        resolved.number();
        Ok(())
    }

    /// The changed layer, and the updates that stand beside it.
    fn made(&mut self, site: Site, parts: &[Placed], updates: &[(Placed, usize)]) -> Result<Vec<Arc<Payload>>> {
        let mut key: Key = Vec::new();
        for p in parts.iter().chain(updates.iter().map(|(p, _)| p)) {
            key.push((p.payload.id, p.scale.to_bits()));
            if p.chained {
                key.push(CHAIN);
            }
        }
        let of = |index: u32| key.iter().copied().chain([(MADE, index)]).collect::<Key>();
        let names = || parts.iter().map(|p| p.adapter.as_str()).collect::<Vec<_>>().join(", ");
        let undefined =
            |why: String| Error::ComposeUndefined { text: names(), why: format!("{site} cannot be changed: {why}") };
        let scaling = Scaling::of(parts);
        let count = 1 + u32::try_from(scaling.gates() + updates.len()).unwrap_or(u32::MAX);
        let found: Vec<_> = (0..count).map_while(|i| self.variants.found(&of(i))).collect();
        if found.len() == count as usize {
            return Ok(found);
        }
        let base = base(self.stacks.spec(), &self.backend, site, parts)?;
        let Changed { layer, updates } = changed(base, parts, &scaling, updates).map_err(undefined)?;
        let numbers = layer.weight.iter().chain(layer.bias.iter().flatten());
        if let Some(at) = numbers.clone().position(|x| !x.is_finite()) {
            let what = format!("number {at} of {site} as {} change it", parts[0].adapter);
            return Err(Error::NotFinite { what });
        }
        let weight = parts.iter().any(|p| match &p.payload.op {
            Op::Reweight(Reweight(change)) => change.changes_weight(),
            Op::LowRank(_) => true,
            Op::ReplaceLinear(d) => d.weight.is_some(),
            _ => false,
        });
        let changed = match site {
            Site::Linear(site) => {
                let shape = (layer.rows, layer.cols);
                let weight = if weight { self.stored(site, shape, layer.weight) } else { None };
                Op::ReplaceLinear(Dense { weight, bias: layer.bias })
            }
            _ => Op::ReplaceNorm(Norm { gamma: Some(layer.weight), beta: layer.bias }),
        };
        let ops = std::iter::once(changed);
        let mut out = Vec::new();
        for (op, index) in ops.chain(updates.into_iter().map(|mixed| Op::MixedLowRank(Box::new(mixed)))).zip(0..) {
            self.next_payload += 1;
            let payload = Arc::new(Payload { id: PayloadId(self.next_payload), op });
            let mut gone = Vec::new();
            self.variants.keep(of(index), payload.clone(), &mut gone)?;
            gone.into_iter().for_each(|id| self.backend.forget(id));
            out.push(payload);
        }
        Ok(out)
    }

    /// At 8 bits where the base's own layer is quantized: a small change would drown in 4; else f32.
    fn stored(&self, site: LinearSite, (rows, cols): (usize, usize), weight: Vec<f32>) -> Option<Matrix> {
        let spec = self.stacks.spec();
        let scheme = spec.linears.get(&site).map(|l| spec.weight(l.weight).scheme);
        let blocks = cols.is_multiple_of(BLOCK);
        let storage = match scheme {
            Some(Scheme::Q4_0 | Scheme::Q8_0) if blocks => {
                let (codes, scales) = q8_0::encode(&weight);
                Storage::Q8_0 { codes, scales }
            }
            _ => Storage::F32(weight),
        };
        Matrix::new(rows, cols, storage)
    }
}

/// The base's layer at `site`; where it has none of that shape, the replaced one's shape.
fn base<B: Backend>(spec: &ModelSpec, backend: &B, site: Site, parts: &[Placed]) -> Result<Layer> {
    let missing = || Error::AdapterSite { adapter: parts[0].adapter.clone(), site: site.to_string() };
    let site = match site {
        Site::Linear(site) => site,
        Site::Norm(norm) => return norm_of(spec, backend, norm)?.ok_or_else(missing),
        _ => return Err(missing()),
    };
    let own = parts.iter().find_map(|p| match &p.payload.op {
        Op::ReplaceLinear(d) => d.weight.as_ref().map(|w| (w.rows(), w.cols())),
        _ => None,
    });
    let weights = spec.linears.get(&site).copied().filter(|l| {
        let info = spec.weight(l.weight);
        own.is_none_or(|shape| shape == (info.rows, info.cols))
    });
    let Some(linear) = weights else {
        let Some((rows, cols)) = own else {
            return Err(missing());
        };
        return Ok(Layer { rows, cols, weight: vec![0.0; rows * cols], bias: None });
    };
    let (rows, cols) = (spec.weight(linear.weight).rows, spec.weight(linear.weight).cols);
    let mut weight = vec![0.0; rows * cols];
    for (row, out) in weight.chunks_exact_mut(cols).enumerate() {
        backend.weight_row(linear.weight, row, out)?;
    }
    let bias = linear
        .bias
        .map(|id| {
            let mut out = vec![0.0; rows];
            backend.weight_row(id, 0, &mut out).map(|()| out)
        })
        .transpose()?;
    Ok(Layer { rows, cols, weight, bias })
}

/// The base's norm as a layer of one input: its weight is what it multiplies by, its bias what it adds.
fn norm_of<B: Backend>(spec: &ModelSpec, backend: &B, site: NormSite) -> Result<Option<Layer>> {
    let Some(norm) = spec.norms.get(&site) else { return Ok(None) };
    let rows = spec.weight(norm.gamma).cols;
    let vector = |id| {
        let mut out = vec![0.0; rows];
        backend.weight_row(id, 0, &mut out).map(|()| out)
    };
    Ok(Some(Layer { rows, cols: 1, weight: vector(norm.gamma)?, bias: norm.beta.map(vector).transpose()? }))
}
