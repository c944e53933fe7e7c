//! `embed`: one L2-normalised vector a line.

use super::{drive, say_report};
use crate::args::Embed;
use crate::error::{Error, Result};
use crate::{files, load};
use polygraft::model::Side;
use polygraft::plan::Want;
use polygraft::tasks::{Encode, Item, Source};
use polygraft_formats::TensorFile;

pub(crate) fn run(args: Embed) -> Result<()> {
    let texts = files::lines(&args.input)?;
    let mut engine = load::engine(&args.model)?;
    let compose = args.compose.unwrap_or_default();
    load::warn_unused(&args.model, &[&compose]);
    let resolved = engine.session.resolve(&compose)?;
    // The query's prompt makes a text a query, also for a language vector that treats queries by themselves.
    let query_prompt = engine.session.spec().prompt(Side::Query);
    let side = if !query_prompt.is_empty() && args.prefix == query_prompt { Side::Query } else { Side::Document };
    let width = engine.session.spec().embedding_width();
    let items: Vec<Item> =
        texts.into_iter().map(|t| Item { source: Source::Text(args.prefix.clone(), t), compose: 0 }).collect();
    let n = items.len();
    let want = Want { embedding: true, ..Want::default() };
    let mut task = Encode::new(items, std::slice::from_ref(&resolved), want, engine.precision, false);
    drive("embedding", |pause| Ok((task.advance(&mut engine, pause)?, task.progress())))?;
    let encoded = task.finish()?;
    say_report("texts", &encoded.report, &resolved.warnings);
    let mut values = Vec::with_capacity(n * width);
    for mut embedding in encoded.outputs.into_iter().flatten().filter_map(|r| r.embedding) {
        resolved.shift(&mut embedding, side);
        values.extend(embedding);
    }
    let mut file = TensorFile::new();
    file.add_f32("embeddings", &[n, width], values);
    let bytes = file.bytes().map_err(|source| Error::Format { path: args.output.clone(), source })?;
    files::write_whole(&args.output, |w| w.write_all(&bytes).map_err(files::io(&args.output)))
}
