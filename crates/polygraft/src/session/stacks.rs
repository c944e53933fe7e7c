//! Adapters that run copies of the base's layers in the place of its own (PEFT's layer replication). Each copy is a layer
//! beyond the base's, by number, so that adapters of it and of the layer that it is a copy of are told apart; the
//! weights are shared.

use crate::compose::Stack;
use crate::error::{Error, Result};
use crate::ir::AdapterIr;
use crate::model::ModelSpec;
use std::collections::BTreeMap;

/// The stacks that a session has met, and the base with their layers.
#[derive(Debug)]
pub(super) struct Stacks {
    spec: ModelSpec,
    known: BTreeMap<u16, Vec<u16>>,
}

impl Stacks {
    pub(super) fn new(spec: &ModelSpec) -> Self {
        Self { spec: spec.clone(), known: BTreeMap::new() }
    }

    /// The base with the copies of its layers, which are not among those that it runs.
    pub(super) fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The stack that `adapter` runs, with numbers of its own, which its patches get.
    ///
    /// # Errors
    /// A copy of a layer that `base` does not have; more copies than there are numbers.
    pub(super) fn add(&mut self, adapter: &mut AdapterIr, base: &ModelSpec) -> Result<Option<Stack>> {
        let Some(copies) = adapter.copies.take() else { return Ok(None) };
        let argument = |why: String| Error::Argument { what: "copies of layers".into(), why };
        if let Some(beyond) = copies.iter().find(|layer| **layer >= base.layers) {
            return Err(argument(format!("there is no layer {beyond}; the base has {}", base.layers)));
        }
        let found = self.known.iter().find(|(_, known)| **known == copies).map(|(first, _)| *first);
        let first = found.unwrap_or(self.spec.layers);
        if usize::from(first) + copies.len() > usize::from(u16::MAX) {
            return Err(argument("this session has met too many; open another".into()));
        }
        for patch in &mut adapter.patches {
            if let Some(layer) = patch.site.layer() {
                patch.site = patch.site.at_layer(first + layer);
            }
        }
        let stack = Stack { first, copies };
        self.know(&stack, base);
        Ok(Some(stack))
    }

    /// Takes note of a stack that has its numbers already: from here, or from whoever shares its rows out.
    pub(super) fn know(&mut self, stack: &Stack, base: &ModelSpec) {
        if self.known.get(&stack.first) != Some(&stack.copies) {
            self.spec.add_copies(base, stack.first, &stack.copies);
            self.known.insert(stack.first, stack.copies.clone());
        }
    }
}
