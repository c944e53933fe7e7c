//! `merge`: a base with a composition folded into its weights.

use super::quantize::folder;
use crate::args::Merge;
use crate::backend::AnyBackend;
use crate::error::{Error, Result};
use crate::files::Disk;
use crate::load;
use polygraft::Session;
use polygraft::backend::Backend;
use polygraft::reference::Reference;
use polygraft_formats::base::write;
use polygraft_formats::tokenizer;
use std::collections::BTreeMap;

pub(crate) fn run(args: &Merge) -> Result<()> {
    let named = load::named(&args.model)?;
    let mut backend = AnyBackend::Reference(Reference::new());
    let mut weights = BTreeMap::new();
    let mut spec = load::base(&args.model.base, |id, matrix| {
        weights.insert(id, matrix.clone());
        Ok(backend.load_weight(id, matrix)?)
    })?;
    // The session only resolves names here; nothing is computed on it.
    let mut session = Session::new(spec.clone(), backend)?;
    for (name, path, options) in &named {
        load::adapter(&mut session, name, path, options)?;
    }
    load::warn_unused(&args.model, &[&args.compose]);
    let resolved = session.resolve(&args.compose)?;
    polygraft::merge::merge(&mut spec, &mut weights, &resolved)?;
    let kit = tokenizer::compact(&Disk::open(&args.model.base)?)
        .map_err(|source| Error::Format { path: args.model.base.clone(), source })?;
    let total = folder(&args.output, &args.model.base, |create| {
        write::folder(&spec, kit.as_deref(), |id, put| weights.remove(&id).map_or(Ok(()), put), create)
    })?;
    eprintln!("polygraft: wrote {}: {} merged, {:.1} MB", args.output.display(), resolved.text, total as f64 / 1e6);
    Ok(())
}
