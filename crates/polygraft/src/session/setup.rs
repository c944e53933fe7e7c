//! Set-ups: several adapters and the composition that they were saved in, loaded under one name.

use super::Session;
use crate::backend::Backend;
use crate::compose::{self, Compose, Grafted, Setup};
use crate::error::{Error, Result};
use crate::ir::{self, AdapterIr, Graft, LoadReport, RowChange, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Between a set-up's name and the name of a part.
const DOT: &str = ".";

impl<B: Backend> Session<B> {
    /// Loads `parts` so that `name` stands for `compose`, which is written in the parts' own names. Each is loaded as
    /// `name.part`, or by its number where that could not be written. All or nothing.
    ///
    /// # Errors
    /// As [`Session::graft`]; a name that `compose` uses and no part has; a part's name that an adapter of its own has.
    pub fn graft_setup(
        &mut self,
        name: &str,
        parts: Vec<(String, AdapterIr)>,
        compose: &Compose,
        options: Graft,
    ) -> Result<LoadReport> {
        compose::check_name(name)?;
        let mut names = BTreeMap::new();
        for (i, (part, _)) in parts.iter().enumerate() {
            let spelt = format!("{name}{DOT}{part}");
            let usable = compose::check_name(&spelt).is_ok();
            names.insert(part.clone(), if usable { spelt } else { format!("{name}{DOT}{i}") });
        }
        let renamed = |part: &str| names.get(part).cloned().unwrap_or_else(|| part.to_owned());
        if let Some(stranger) = compose.names().into_iter().find(|n| !names.contains_key(*n)) {
            let loaded = names.keys().cloned().collect();
            return Err(Error::AdapterUnknown { name: stranger.into(), loaded });
        }
        let replaced = self.adapters.get(name).and_then(|a| a.setup.clone()).map_or(Vec::new(), |s| s.parts);
        if let Some(taken) = names.values().find(|n| !replaced.contains(n) && self.adapters.contains_key(*n)) {
            let why = "another adapter of that name is loaded, and a set-up would take its place".into();
            return Err(Error::AdapterName { name: taken.clone(), why });
        }
        for (part, adapter) in &parts {
            ir::check(&renamed(part), adapter, &self.spec, options)?;
        }
        self.ungraft_if_loaded(name);
        let compose = compose.renamed(&renamed);
        let mut report = LoadReport {
            family: "setup".into(),
            base: Verdict::Exact,
            applied: 0,
            sites: Vec::new(),
            unused: Vec::new(),
            missing: Vec::new(),
            head: None,
            language: None,
            bytes: 0,
            notes: vec![format!("{name} is {compose}")],
        };
        for (part, mut adapter) in parts {
            adapter.fuses = adapter.fuses.map(|of| of.iter().map(|n| renamed(n)).collect());
            let of = self.graft(&renamed(&part), adapter, options)?;
            if of.base != Verdict::Exact {
                report.base = of.base;
            }
            report.applied += of.applied;
            report.bytes += of.bytes;
            report.sites.extend(of.sites.into_iter().map(|site| format!("{part}: {site}")));
            report.unused.extend(of.unused);
            report.missing.extend(of.missing);
            report.head = of.head.or(report.head);
        }
        let grafted = Grafted {
            patches: Vec::new(),
            head: None,
            made_under: None,
            rows: RowChange::default(),
            stack: None,
            chains: false,
            fuses: None,
            setup: Some(Setup { compose, parts: names.into_values().collect() }),
        };
        self.adapters.insert(name.into(), Arc::new(grafted));
        Ok(report)
    }
}
