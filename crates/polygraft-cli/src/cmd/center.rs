//! `center`: a language vector from unlabelled text.

use super::{drive, say_report};
use crate::args::Center;
use crate::error::Result;
use crate::{files, load};
use polygraft::tasks::{LanguageVector, LanguageVectorRequest};

pub(crate) fn run(args: Center) -> Result<()> {
    let texts = files::lines(&args.input)?;
    let pivot = args.pivot.as_deref().map(files::lines).transpose()?;
    let mut engine = load::engine(&args.model)?;
    let under = args.compose.unwrap_or_default();
    load::warn_unused(&args.model, &[&under]);
    let request = LanguageVectorRequest { texts, pivot, language: args.lang, under, precision: None };
    let mut task = LanguageVector::new(&mut engine, request)?;
    drive("centring", |pause| Ok((task.advance(&mut engine, pause)?, task.progress())))?;
    let (adapter, report) = task.finish()?;
    say_report("texts", &report, &[]);
    let bytes = polygraft_formats::write_language_vector(&adapter)
        .map_err(|source| crate::error::Error::Format { path: args.output.clone(), source })?;
    files::write_whole(&args.output, |w| w.write_all(&bytes).map_err(files::io(&args.output)))?;
    eprintln!(
        "polygraft: {} bytes, made under {:?} from {} texts; use it in compositions as an adapter: --adapter {}={}",
        bytes.len(),
        adapter.made_under.as_deref().unwrap_or("base"),
        report.rows,
        adapter.language.as_deref().unwrap_or("lang"),
        args.output.display()
    );
    Ok(())
}
