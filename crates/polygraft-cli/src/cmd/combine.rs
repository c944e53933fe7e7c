//! `combine`: several saved adapters made into one.

use crate::args::Combine;
use crate::error::{Error, Result};
use crate::files::{self, Disk};
use polygraft_formats::combine::{self, Kind, Part, Recipe};
use std::collections::BTreeMap;

pub(crate) fn run(args: &Combine) -> Result<()> {
    let weights = weights(args)?;
    let mut disks = Vec::new();
    for given in &args.adapters {
        let (name, path) = given
            .split_once('=')
            .filter(|(name, path)| !name.is_empty() && !path.is_empty())
            .ok_or_else(|| Error::Usage(format!("--adapter {given}: write NAME=PATH")))?;
        if disks.iter().any(|(other, _)| *other == name) {
            return Err(Error::Usage(format!("--adapter {name} is given twice: give each adapter a name of its own")));
        }
        disks.push((name, Disk::open(path.as_ref())?));
    }
    if let Some(name) = weights.keys().find(|name| disks.iter().all(|(other, _)| other != *name)) {
        return Err(Error::Usage(format!("--weight {name}: there is no --adapter of this name")));
    }
    let mut parts = Vec::new();
    for (name, disk) in &disks {
        let weight = match weights.get(name) {
            Some(weight) => *weight,
            None if args.kind == Kind::Average && weights.is_empty() => 1.0,
            None => return Err(Error::Usage(format!("--weight {name}=W is missing: each adapter needs one"))),
        };
        parts.push(Part { name, files: disk, weight });
    }
    let name = args.output.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let recipe = Recipe {
        kind: args.kind,
        rank: args.rank,
        density: args.density,
        majority: args.majority_sign,
        modules_of: args.modules_of.as_deref(),
        name: &name,
    };
    let folder =
        combine::combine(&parts, &recipe).map_err(|source| Error::Format { path: args.output.clone(), source })?;
    files::folder_whole(&args.output, |dir| {
        folder
            .iter()
            .try_for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).map_err(files::io(&args.output)))
    })?;
    let bytes: usize = folder.iter().map(|(_, bytes)| bytes.len()).sum();
    eprintln!(
        "polygraft: wrote {}: {} of {}, {:.1} KB",
        args.output.display(),
        args.kind.name(),
        disks.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        bytes as f64 / 1e3
    );
    Ok(())
}

fn weights(args: &Combine) -> Result<BTreeMap<&str, f64>> {
    let mut out = BTreeMap::new();
    for given in &args.weights {
        let (name, weight) = given
            .split_once('=')
            .and_then(|(name, weight)| Some((name, weight.parse::<f64>().ok()?)))
            .ok_or_else(|| Error::Usage(format!("--weight {given}: write NAME=NUMBER")))?;
        if out.insert(name, weight).is_some() {
            return Err(Error::Usage(format!("--weight {name} is given twice")));
        }
    }
    Ok(out)
}
