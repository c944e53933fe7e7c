//! `forward`: what the library's model returns for each row, under each row's composition.

use super::request;
use crate::args::Forward;
use crate::backend::AnyBackend;
use crate::error::{Error, Result};
use crate::{files, load};
use polygraft::plan::Want;
use polygraft_formats::TensorFile;

pub(crate) fn run(args: &Forward) -> Result<()> {
    let request = request::read(&args.request)?;
    let mut session = load::session(&request.base, args.compute.backend)?;
    for (name, path, options) in &request.adapters {
        load::adapter(&mut session, name, path, options)?;
    }
    let batch = request.into_batch(session.spec())?;
    let precision = AnyBackend::precision(&args.compute, session.spec());
    for compose in &batch.compositions {
        session.resolve(compose)?.warnings.iter().for_each(|w| eprintln!("polygraft: warning: {w}"));
    }
    let want = Want { hidden: true, embedding: false, logits: true };
    let outputs = session.run(&batch, want, precision)?;
    let hidden = session.spec().hidden;
    let mut file = TensorFile::new();
    for (i, output) in outputs.into_iter().enumerate() {
        if let Some(values) = output.hidden {
            // Virtual tokens are in it.
            file.add_f32(&format!("last_hidden_state.{i}"), &[values.len() / hidden, hidden], values);
        }
        if let Some(logits) = output.logits {
            let labels = logits.head.labels as usize;
            let shape =
                if logits.head.kind.per_token() { vec![logits.values.len() / labels, labels] } else { vec![labels] };
            file.add_f32(&format!("logits.{i}"), &shape, logits.values);
        }
    }
    let bytes = file.bytes().map_err(|source| Error::Format { path: args.output.clone(), source })?;
    files::write_whole(&args.output, |w| w.write_all(&bytes).map_err(files::io(&args.output)))
}
