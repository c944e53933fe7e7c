//! An adapter while it is being read: its name, its tensors, and the patches so far.

use super::config::Settings;
use super::names;
use super::tensors::Tensors;
use crate::adapter::AdapterOptions;
use crate::change::Factors;
use crate::error::Result;
use polygraft::ir::{AdapterIr, BaseClaim, Layer, LayerLinear, LinearSite, Op, Patch, Reweight, RowChange, Site};
use polygraft::model::{HeadSpec, ModelSpec};
use std::ops::Range;

/// What a method's reader works with.
pub(super) struct Reading<'a> {
    /// The adapter's name in the library: part of every path.
    pub(super) name: &'a str,
    pub(super) spec: &'a ModelSpec,
    pub(super) options: &'a AdapterOptions,
    pub(super) tensors: Tensors,
    pub(super) patches: Vec<Patch>,
    /// A task adapter of the first release, whose configuration may name an invertible block that it does not have.
    pub(super) old_task: bool,
    /// Whether an invertible block, or a ReFT, was found.
    pub(super) invertible: bool,
    pub(super) reft: bool,
    /// What it makes of a row's shape.
    pub(super) rows: RowChange,
}

/// A head that was read beside the adapter.
#[derive(Default)]
pub(super) struct Head {
    pub(super) spec: Option<HeadSpec>,
    pub(super) patches: Vec<Patch>,
    pub(super) unused: Vec<String>,
    pub(super) missing: Vec<String>,
}

/// A linear layer that a method may change.
pub(super) struct Target {
    pub(super) site: LinearSite,
    /// Its module's path, and what stands between it and the adapter's own tensors.
    pub(super) path: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// The outputs that the method changes, each range with factors of its own: all of them, or those of some of query,
    /// key and value where the three are one layer.
    pub(super) parts: Vec<Range<usize>>,
}

impl Target {
    /// Outputs that change.
    pub(super) fn changed(&self) -> usize {
        self.parts.iter().map(ExactSizeIterator::len).sum()
    }

    /// Whether query, key and value are one layer here.
    pub(super) fn joint(&self) -> bool {
        matches!(self.site, LinearSite::Layer(_, LayerLinear::Qkv))
    }
}

impl<'a> Reading<'a> {
    pub(super) fn new(name: &'a str, spec: &'a ModelSpec, options: &'a AdapterOptions, tensors: Tensors) -> Self {
        Self {
            name,
            spec,
            options,
            tensors,
            patches: Vec::new(),
            old_task: false,
            invertible: false,
            reft: false,
            rows: RowChange::default(),
        }
    }

    /// The layers that a method is in: all but those of `leave_out`.
    pub(super) fn layers(&self, settings: &Settings) -> Result<Vec<u16>> {
        let out = settings.layers("leave_out")?.unwrap_or_default();
        Ok((0..self.spec.layers).filter(|l| !out.contains(&usize::from(*l))).collect())
    }

    /// The linear layers that LoRA and its relatives change, in the order of the model.
    pub(super) fn linears(&self, settings: &Settings, defaults: Linears) -> Result<Vec<Target>> {
        let letters = match settings.get("attn_matrices") {
            None => defaults.attention.iter().map(|l| (*l).to_owned()).collect(),
            Some(list) => {
                let letters: Option<Vec<String>> = list.items().iter().map(|l| l.text().map(str::to_owned)).collect();
                letters.ok_or_else(|| settings.bad("attn_matrices", format!("{} is not letters", list.brief())))?
            }
        };
        let known = [("q", LayerLinear::Query), ("k", LayerLinear::Key), ("v", LayerLinear::Value)];
        // Any other letter names nothing, in the library as well.
        let named = known.map(|(l, _)| letters.iter().any(|x| x == l));
        let attention = settings.flag("selfattn_lora", true)?;
        let mut which = Vec::new();
        if attention {
            which.extend(known.iter().zip(named).filter(|(_, named)| *named).map(|((_, w), _)| *w));
            which.push(LayerLinear::Qkv);
        }
        if settings.flag("intermediate_lora", defaults.intermediate)? {
            which.push(LayerLinear::FfnIn);
        }
        if settings.flag("output_lora", false)? {
            which.push(LayerLinear::FfnOut);
        }
        let mut out = Vec::new();
        for layer in self.layers(settings)? {
            for which in &which {
                let site = LinearSite::Layer(layer, *which);
                let Some((rows, cols)) = self.spec.linear_shape(site) else { continue };
                let path = format!("{}.loras.{}", names::linear(self.spec, layer, *which), self.name);
                let third = |i: usize| i * rows / 3..(i + 1) * rows / 3;
                let parts: Vec<Range<usize>> = match which {
                    LayerLinear::Qkv => (0..3).filter(|i| named[*i]).map(third).collect(),
                    _ => std::iter::once(0..rows).collect(),
                };
                if parts.is_empty() {
                    return Err(settings.bad("attn_matrices", "the library needs one of q, k, v here"));
                }
                out.push(Target { site, path, rows, cols, parts });
            }
        }
        Ok(out)
    }

    pub(super) fn patch(&mut self, site: Site, op: Op) {
        self.patches.push(Patch { site, op });
    }

    /// A change that multiplies a linear layer's outputs.
    pub(super) fn factors<F>(&mut self, target: &Target, change: Factors<F>)
    where
        F: Fn(&Layer) -> Vec<f32> + Send + Sync + 'static,
    {
        self.patch(Site::Linear(target.site), Op::Reweight(Reweight::new(change)));
    }

    /// Ends the reading.
    pub(super) fn finish(self, family: &'static str, base: Option<&str>, head: Head) -> Result<AdapterIr> {
        let mut left = self.tensors.finish(self.options.strict)?;
        left.extra.extend(head.unused);
        left.missing.extend(head.missing);
        let mut patches = self.patches;
        patches.extend(head.patches);
        for patch in &mut patches {
            // The library counts a row's last positions by its own tokens, wherever virtual ones stand.
            if let Op::Reft(reft) = &mut patch.op {
                reft.uncounted = if reft.suffix > 0 { self.rows.virtual_tokens } else { 0 };
            }
        }
        Ok(AdapterIr {
            family,
            base: BaseClaim { name: base.map(str::to_owned), lineage: None },
            patches,
            head: head.spec,
            chains: true,
            rows: self.rows,
            copies: None,
            fuses: None,
            language: None,
            made_under: None,
            unused: left.extra,
            missing: left.missing,
        })
    }
}

/// What a method changes when its configuration does not say.
pub(super) struct Linears {
    pub(super) attention: &'static [&'static str],
    pub(super) intermediate: bool,
}
