//! An index: passages embedded once, so that a keystroke costs one query and a switched language vector costs nothing.
//!
//! It keeps the embeddings of the *backbone* (everything but the offsets of the pooled vector) and applies each
//! passage's offsets when it is searched.

use super::rerank::{best, cosine, top};
use super::{Encode, Engine, Item, Ranked, Ranking, Report, Scoring, Sides, Source};
use crate::backend::{Backend, Poll, Precision};
use crate::compose::{Compose, Resolved};
use crate::error::{Error, Result};
use crate::ir::{How, Op, Rewording, Stands};
use crate::model::{Fingerprint, Side};
use crate::plan::Want;
use serde::{Deserialize, Serialize};

/// One passage of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The composition it was embedded under, which searches use unless they name another.
    pub compose: String,
    /// What that composition's backbone was: names, scales and a digest of the numbers.
    pub backbone: String,
    /// How many vectors it has: one, or one a window.
    pub vectors: usize,
}

/// Embedded passages. Plain data: how it is stored is the caller's business.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// The base it was made with.
    pub base: Fingerprint,
    /// Width of a vector.
    pub width: usize,
    /// The passages, in order.
    pub entries: Vec<IndexEntry>,
    /// All vectors, entry by entry.
    pub vectors: Vec<f32>,
}

/// The task that makes an [`Index`].
pub struct BuildIndex<B: Backend> {
    encode: Encode<B>,
    index: Index,
    of: Vec<usize>,
    resolved: Vec<Resolved>,
}

impl<B: Backend> BuildIndex<B> {
    /// Checks the request and prepares it; `adapters.query` is not used.
    ///
    /// # Errors
    /// No documents; compositions that mean nothing.
    pub fn new(
        engine: &mut Engine<B>,
        documents: Vec<String>,
        adapters: &Sides,
        windows: bool,
        precision: Option<Precision>,
    ) -> Result<Self> {
        if documents.is_empty() {
            return Err(Error::Argument {
                what: "documents".into(),
                why: "the list is empty; there is nothing to index".into(),
            });
        }
        adapters.check(documents.len())?;
        let mut compositions: Vec<Compose> = Vec::new();
        let mut of = Vec::with_capacity(documents.len());
        for i in 0..documents.len() {
            let compose = adapters.document(i);
            of.push(compositions.iter().position(|c| c == compose).unwrap_or_else(|| {
                compositions.push(compose.clone());
                compositions.len() - 1
            }));
        }
        let resolved: Vec<Resolved> = compositions.iter().map(|c| engine.session.resolve(c)).collect::<Result<_>>()?;
        let spec = engine.session.spec();
        let prompt = spec.prompt(Side::Document);
        let items = documents
            .into_iter()
            .zip(&of)
            .map(|(text, &compose)| Item { source: Source::Text(prompt.to_owned(), text), compose })
            .collect();
        let want = Want { embedding: true, ..Want::default() };
        let encode = Encode::new(items, &resolved, want, precision.unwrap_or(engine.precision), windows);
        let index = Index {
            base: spec.fingerprint.clone(),
            width: spec.embedding_width(),
            entries: Vec::new(),
            vectors: Vec::new(),
        };
        Ok(Self { encode, index, of, resolved })
    }

    /// Work done and work there is, in tokens.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        self.encode.progress()
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
        self.encode.advance(engine, pause)
    }

    /// The index of a task that is done, with what happened to the texts.
    ///
    /// # Errors
    /// When it is not done.
    pub fn finish(mut self) -> Result<(Index, Report)> {
        let encoded = self.encode.finish()?;
        let keys: Vec<(String, String)> = self.resolved.iter().map(|r| (r.text.clone(), backbone_key(r))).collect();
        for (rows, &composition) in encoded.outputs.iter().zip(&self.of) {
            let (compose, backbone) = keys[composition].clone();
            self.index.entries.push(IndexEntry { compose, backbone, vectors: rows.len() });
            rows.iter().filter_map(|r| r.embedding.as_ref()).for_each(|e| self.index.vectors.extend(e));
        }
        Ok((self.index, encoded.report))
    }
}

/// A search over an index.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// The query, without its prompt.
    pub query: String,
    /// The query's composition.
    pub query_adapters: Compose,
    /// The passages' compositions, one for all or one each; those of the index when absent. Their backbones must be
    /// the index's: only language vectors may differ.
    pub document_adapters: Option<Vec<Compose>>,
    /// How many results; all when absent.
    pub top_n: Option<usize>,
    /// Instead of the engine's.
    pub precision: Option<Precision>,
}

/// The task of one search.
pub struct Search<B: Backend> {
    encode: Encode<B>,
    query: Resolved,
    documents: Vec<Resolved>,
    /// Composition of each entry, into `documents`.
    of: Vec<usize>,
    top_n: Option<usize>,
    warnings: Vec<String>,
}

impl<B: Backend> Search<B> {
    /// Checks the request against the index and prepares it.
    ///
    /// # Errors
    /// An empty query; [`Error::IndexStale`] when base or backbone differ.
    pub fn new(engine: &mut Engine<B>, index: &Index, request: SearchRequest) -> Result<Self> {
        if request.query.trim().is_empty() {
            return Err(Error::Argument {
                what: "query".into(),
                why: "it is empty; there is nothing to rank by".into(),
            });
        }
        if request.top_n == Some(0) {
            return Err(Error::Argument { what: "topN".into(), why: "it must be at least 1".into() });
        }
        index.check(engine.session.spec())?;
        let compositions: Vec<Compose> = match request.document_adapters {
            Some(list) => {
                let sides = Sides { query: Compose::Base, documents: list };
                sides.check(index.entries.len())?;
                (0..index.entries.len()).map(|i| sides.document(i).clone()).collect()
            }
            None => index.entries.iter().map(|e| e.compose.parse()).collect::<Result<_>>()?,
        };
        let mut distinct: Vec<(&Compose, Resolved, String)> = Vec::new();
        let mut of = Vec::with_capacity(compositions.len());
        for compose in &compositions {
            let found = match distinct.iter().position(|(c, ..)| *c == compose) {
                Some(i) => i,
                None => {
                    let resolved = engine.session.resolve(compose)?;
                    let key = backbone_key(&resolved);
                    distinct.push((compose, resolved, key));
                    distinct.len() - 1
                }
            };
            of.push(found);
        }
        for (i, (entry, &c)) in index.entries.iter().zip(&of).enumerate() {
            let (compose, _, key) = &distinct[c];
            if *key != entry.backbone {
                return Err(Error::IndexStale {
                    why: format!(
                        "passage {i} was embedded under {:?}, and {:?} runs other weights",
                        entry.compose,
                        compose.to_string()
                    ),
                });
            }
        }
        let query = engine.session.resolve(&request.query_adapters)?;
        let mut warnings = query.warnings.clone();
        warnings.extend(distinct.iter().flat_map(|(_, r, _)| r.warnings.clone()));
        warnings.dedup();
        let prompt = engine.session.spec().prompt(Side::Query).to_owned();
        let items = vec![Item { source: Source::Text(prompt, request.query), compose: 0 }];
        let want = Want { embedding: true, ..Want::default() };
        let precision = request.precision.unwrap_or(engine.precision);
        let encode = Encode::new(items, std::slice::from_ref(&query), want, precision, false);
        let documents = distinct.into_iter().map(|(_, r, _)| r).collect();
        Ok(Self { encode, query, documents, of, top_n: request.top_n, warnings })
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
        self.encode.advance(engine, pause)
    }

    /// The ranking of a task that is done, over the index it was made for.
    ///
    /// # Errors
    /// When it is not done.
    pub fn finish(self, index: &Index) -> Result<Ranking> {
        let encoded = self.encode.finish()?;
        let query_truncated = !encoded.report.truncated.is_empty();
        let mut query = encoded
            .outputs
            .into_iter()
            .flatten()
            .find_map(|r| r.embedding)
            .ok_or_else(|| Error::Program("no query".into()))?;
        self.query.shift(&mut query, Side::Query);
        let mut at = 0;
        let mut scored = Vec::with_capacity(index.entries.len());
        let mut moved = vec![0.0; index.width];
        for (i, (entry, &c)) in index.entries.iter().zip(&self.of).enumerate() {
            let span = &index.vectors[at * index.width..(at + entry.vectors) * index.width];
            at += entry.vectors;
            let score = best(span.chunks(index.width).map(|v| {
                moved.copy_from_slice(v);
                self.documents[c].shift(&mut moved, Side::Document);
                cosine(&query, &moved)
            }));
            scored.push(Ranked { index: i, relevance_score: score, logit: None });
        }
        let report = Report { truncated: Vec::new(), ..encoded.report };
        let results = top(scored, self.top_n);
        Ok(Ranking { results, scoring: Scoring::Cosine, report, query_truncated, warnings: self.warnings })
    }
}

impl Index {
    /// Checks that the index belongs to this base and is whole.
    ///
    /// # Errors
    /// [`Error::IndexStale`].
    pub fn check(&self, spec: &crate::model::ModelSpec) -> Result<()> {
        let stale = |why: String| Err(Error::IndexStale { why });
        if self.width != spec.embedding_width() {
            return stale(format!(
                "its vectors have {} numbers, this base gives {}",
                self.width,
                spec.embedding_width()
            ));
        }
        if self.base != spec.fingerprint {
            return stale(format!(
                "it was made with the base {:?}, this is {:?}",
                self.base.name, spec.fingerprint.name
            ));
        }
        let vectors = self.entries.iter().try_fold(0usize, |n, e| n.checked_add(e.vectors));
        if vectors.and_then(|n| n.checked_mul(self.width)) != Some(self.vectors.len()) {
            return stale("its vectors and its entries do not agree: it was cut or edited".into());
        }
        Ok(())
    }
}

/// A composition's backbone as text, stable across sessions: `name:scale#digest`, in order. Behind the scale is which part of a
/// row it is for, where it is not for all of it, and `>` where it reads what the one before it made.
fn backbone_key(resolved: &Resolved) -> String {
    let mut parts: Vec<(String, u64)> = Vec::new();
    for placed in resolved.placed.iter().filter(|p| p.site != crate::ir::Site::Pooled && p.head.is_none()) {
        let mut name = format!("{}:{}", placed.adapter, placed.scale);
        placed.part.iter().for_each(|part| name += &format!("[{}{:?}]", part.index, part.shares));
        if placed.chained {
            name.push('>');
        }
        if parts.last().is_none_or(|(n, _)| *n != name) {
            parts.push((name, 0xcbf2_9ce4_8422_2325));
        }
        if let Some((_, hash)) = parts.last_mut() {
            digest(&placed.payload.op, hash);
        }
    }
    let copies = resolved.stack.iter().map(|stack| format!("layers{:?}", stack.copies));
    let parts: Vec<String> =
        parts.into_iter().map(|(name, hash)| format!("{name}#{hash:016x}")).chain(copies).collect();
    if parts.is_empty() { "base".into() } else { parts.join(" ") }
}

/// Rows of a table that stand for all of them.
const SAMPLED: usize = 64;

/// FNV-1a over the numbers: tells an edited adapter from the old one; nothing here needs to resist an attacker.
fn digest(op: &Op, hash: &mut u64) {
    fn feed_bytes(bytes: &[u8], hash: &mut u64) {
        bytes.iter().for_each(|byte| *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
    fn feed(v: &[f32], hash: &mut u64) {
        v.iter().for_each(|x| feed_bytes(&x.to_bits().to_le_bytes(), hash));
    }
    match op {
        Op::LowRank(l) => {
            feed(&l.a.to_f32(), hash);
            feed(&l.b.to_f32(), hash);
            feed(l.bias.as_deref().unwrap_or_default(), hash);
            feed(&[l.scale], hash);
        }
        Op::Offset(o) => {
            feed(&o.vector, hash);
            feed(o.query.as_deref().unwrap_or_default(), hash);
        }
        Op::ReplaceLinear(d) => {
            feed(&d.weight.as_ref().map(crate::tensor::Matrix::to_f32).unwrap_or_default(), hash);
            feed(d.bias.as_deref().unwrap_or_default(), hash);
        }
        Op::ReplaceNorm(n) => {
            feed(n.gamma.as_deref().unwrap_or_default(), hash);
            feed(n.beta.as_deref().unwrap_or_default(), hash);
        }
        // Compositions have turned it into a replaced layer.
        Op::Reweight(_) => {}
        // Identities are a session's own, so members count with their numbers.
        Op::Blend(blend) => {
            feed_bytes(format!("{:?}", blend.rules).as_bytes(), hash);
            match &blend.how {
                How::Average => feed_bytes(b"average", hash),
                How::Sum => feed_bytes(b"sum", hash),
                How::Fuse(fusion) => digest(&fusion.op, hash),
                How::Split { shares, separator } => feed_bytes(format!("{shares:?} {separator}").as_bytes(), hash),
            }
            for part in &blend.parts {
                feed_bytes(format!("{} {}", part.stacked, part.weight).as_bytes(), hash);
                for (member, scale) in &part.chain {
                    feed_bytes(&scale.to_bits().to_le_bytes(), hash);
                    digest(&member.op, hash);
                }
            }
        }
        // A function, which is known by what it makes of rows: of those that it brings, or of some all over the table.
        Op::Rewording(Rewording(change)) => {
            let (rows, width) = change.shape();
            let ids: Vec<u32> = match change.stands_for() {
                Stands::Rows(rows) => rows.to_vec(),
                Stands::Nothing | Stands::Table => (0..rows as u32).step_by((rows / SAMPLED).max(1)).collect(),
            };
            for id in ids {
                let mut row = vec![1.0; width];
                change.apply(id, &mut row);
                feed(&row, hash);
            }
        }
        // As a satellite would get it: all of its numbers, in order.
        op => feed_bytes(&crate::share::op_bytes(op), hash),
    }
}
