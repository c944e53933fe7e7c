//! The language vector: a language's mean embedding, made from unlabelled passages, as an adapter.
//!
//! `e' = normalise(e − mean(language) [+ mean(pivot)])`. With a pivot the pivot's own texts need no adapter and keep
//! their bits, and one vector serves passages and queries; without one, every language moves to a common origin.
//!
//! Without a pivot queries have a mean of their own, taken of the openings of the same passages under the query prompt:
//! short texts under another prompt lie elsewhere, whatever their language, and all of them near the same few passages.
//! Onto a pivot that would not do: the pivot's queries stay where they are, so the others must come to them.

use super::{Encode, Engine, Item, Report, Source};
use crate::backend::{Backend, Poll, Precision};
use crate::compose::{Compose, Resolved};
use crate::error::{Error, Result};
use crate::ir::{AdapterIr, BaseClaim, Offset, Op, Patch, Site};
use crate::model::Side;
use crate::plan::Want;
use crate::session::RowOutput;
use crate::text;

/// What a vector is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageVectorRequest {
    /// Passages in the language, unlabelled; a hundred do.
    pub texts: Vec<String>,
    /// Passages in the pivot language.
    pub pivot: Option<Vec<String>>,
    /// BCP 47 tag.
    pub language: String,
    /// The composition that the vector will stand beside, without language vectors.
    pub under: Compose,
    /// Instead of the engine's.
    pub precision: Option<Precision>,
}

/// The task.
pub struct LanguageVector<B: Backend> {
    encode: Encode<B>,
    texts: usize,
    has_pivot: bool,
    /// Without a pivot: the openings that stand for queries.
    queries: Option<Encode<B>>,
    language: String,
    under: Resolved,
    base: BaseClaim,
}

impl<B: Backend> LanguageVector<B> {
    /// Checks the request and prepares it.
    ///
    /// # Errors
    /// No texts, or only empty ones; no language; a composition that means nothing or already shifts.
    pub fn new(engine: &mut Engine<B>, request: LanguageVectorRequest) -> Result<Self> {
        let bad = |what: &str, why: String| Err(Error::Argument { what: what.into(), why });
        if request.language.trim().is_empty() || request.language.len() > 35 {
            return bad("lang", "name the language by its BCP 47 tag, such as `hu`".into());
        }
        let clean = |texts: Vec<String>| texts.into_iter().filter(|t| !t.trim().is_empty()).collect::<Vec<_>>();
        let texts = clean(request.texts);
        if texts.is_empty() {
            return bad("texts", "a language vector needs passages in the language; a hundred do".into());
        }
        let pivot = request.pivot.map(clean);
        if pivot.as_ref().is_some_and(Vec::is_empty) {
            return bad("pivot", "it has no passage; leave it out to subtract the language's mean alone".into());
        }
        let under = engine.session.resolve(&request.under)?;
        if under.placed.iter().any(|p| p.site == Site::Pooled) {
            return bad(
                "under",
                format!("{:?} already has a language vector; name the composition without it", under.text),
            );
        }
        let spec = engine.session.spec();
        let prompt = spec.prompt(Side::Document);
        let has_pivot = pivot.is_some();
        let count = texts.len();
        let want = Want { embedding: true, ..Want::default() };
        let precision = request.precision.unwrap_or(engine.precision);
        let encode = |items| Encode::new(items, std::slice::from_ref(&under), want, precision, false);
        let queries = if has_pivot { None } else { Some(encode(openings(engine, &texts)?)) };
        let items = texts
            .into_iter()
            .chain(pivot.unwrap_or_default())
            .map(|text| Item { source: Source::Text(prompt.to_owned(), text), compose: 0 })
            .collect();
        let encode = encode(items);
        let base = BaseClaim { name: Some(spec.fingerprint.name.clone()), lineage: spec.fingerprint.lineage.clone() };
        Ok(Self { encode, texts: count, has_pivot, queries, language: request.language, under, base })
    }

    /// Work done and work there is, in tokens.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        let (done, all) = self.encode.progress();
        match self.queries.as_ref().map(Encode::progress) {
            // Unknown as long as one of the two is.
            Some((_, 0)) if all == 0 => (done, 0),
            Some((more, rest)) => (done + more, all + rest),
            None => (done, all),
        }
    }

    /// The encoding under it, whose chunks can be shared out.
    pub fn encode(&mut self) -> &mut Encode<B> {
        &mut self.encode
    }

    /// Computes until done or until `pause` says so.
    ///
    /// # Errors
    /// As [`Encode::advance`].
    pub fn advance(&mut self, engine: &mut Engine<B>, pause: &mut dyn FnMut() -> bool) -> Result<Poll> {
        match &mut self.queries {
            Some(queries) => match queries.advance(engine, pause)? {
                Poll::Done => self.encode.advance(engine, pause),
                other => Ok(other),
            },
            None => self.encode.advance(engine, pause),
        }
    }

    /// The adapter of a task that is done.
    ///
    /// # Errors
    /// When it is not done.
    pub fn finish(self) -> Result<(AdapterIr, Report)> {
        let encoded = self.encode.finish()?;
        let embeddings = embeddings(encoded.outputs);
        let (own, pivot) = embeddings.split_at(self.texts.min(embeddings.len()));
        let own = mean(own).ok_or_else(|| Error::Program("no embeddings".into()))?;
        let pivot = if self.has_pivot { mean(pivot) } else { None };
        let query = match self.queries {
            Some(task) => mean(&self::embeddings(task.finish()?.outputs)),
            None => None,
        };
        let query = query.map(|m| m.iter().map(|m| -m as f32).collect());
        let vector = own.iter().enumerate().map(|(i, m)| (pivot.as_ref().map_or(0.0, |p| p[i]) - m) as f32).collect();
        let adapter = AdapterIr {
            fuses: None,
            chains: false,
            rows: crate::ir::RowChange::default(),
            copies: None,
            family: "language-vector",
            base: self.base,
            patches: vec![Patch { site: Site::Pooled, op: Op::Offset(Offset { vector, query }) }],
            head: None,
            language: Some(self.language),
            made_under: Some(self.under.text),
            unused: Vec::new(),
            missing: Vec::new(),
        };
        Ok((adapter, encoded.report))
    }
}

/// Tokens of a passage's opening that stand for a query: a title's length. Chosen on GIMP's help, where 4 to 12 did
/// equally well; the collections in `tests/` had no part in it.
const OPENING: usize = 8;

/// The openings of `texts` under the query prompt, as rows.
fn openings<B: Backend>(engine: &Engine<B>, texts: &[String]) -> Result<Vec<Item>> {
    let (spec, tokenizer) = (engine.session.spec(), engine.tokenizer.as_ref());
    let prompt = spec.prompt(Side::Query);
    let limit = text::single(spec, tokenizer, prompt, spec.max_tokens())?.row.ids.len() + OPENING;
    texts
        .iter()
        .map(|t| {
            let row = text::single(spec, tokenizer, &format!("{prompt}{t}"), limit.min(spec.max_tokens()))?.row;
            Ok(Item { source: Source::Row(row), compose: 0 })
        })
        .collect()
}

fn embeddings(outputs: Vec<Vec<RowOutput>>) -> Vec<Vec<f32>> {
    outputs.into_iter().flatten().filter_map(|r| r.embedding).collect()
}

fn mean(vectors: &[Vec<f32>]) -> Option<Vec<f64>> {
    let mut sum = vec![0.0f64; vectors.first()?.len()];
    for v in vectors {
        sum.iter_mut().zip(v).for_each(|(s, &x)| *s += f64::from(x));
    }
    sum.iter_mut().for_each(|s| *s /= vectors.len() as f64);
    Some(sum)
}
