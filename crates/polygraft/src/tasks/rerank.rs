//! Rerank: a query, passages, and whichever scorer base and adapters bring: cosine of embeddings, or a head's logit.

use super::{Encode, Encoded, Engine, Item, Report, Sides, Source};
use crate::backend::{Backend, Poll, Precision};
use crate::compose::{Compose, Resolved};
use crate::error::{Error, Result};
use crate::model::{Activation, HeadSpec, HeadTask, Side};
use crate::plan::Want;
use serde::Serialize;

/// What is ranked, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct RerankRequest {
    /// The query, without its prompt.
    pub query: String,
    /// The passages, without their prompts.
    pub documents: Vec<String>,
    /// Compositions of the two sides.
    pub adapters: Sides,
    /// How many results; all when absent.
    pub top_n: Option<usize>,
    /// Split long passages into windows and take the best, instead of cutting them.
    pub windows: bool,
    /// Instead of the engine's.
    pub precision: Option<Precision>,
}

/// What a score is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scoring {
    /// Cosine of the two embeddings, −1 to 1.
    Cosine,
    /// Sigmoid of the head's one logit.
    Sigmoid,
    /// Softmax over the head's two logits, of label 1.
    Softmax,
    /// The head's logit itself: the model says that it wants no activation.
    Logit,
}

/// One passage with its score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ranked {
    /// The passage's place in the request.
    pub index: usize,
    /// Higher is better; see [`Scoring`].
    pub relevance_score: f32,
    /// The head's raw output, where a head made the score (with two labels, the second less the first).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit: Option<f32>,
}

/// The answer, best first; equal scores in the order of the request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranking {
    /// The passages.
    pub results: Vec<Ranked>,
    /// What the scores are.
    pub scoring: Scoring,
    /// What happened to the texts; indices are the passages'.
    pub report: Report,
    /// Whether the query was cut.
    pub query_truncated: bool,
    /// Things the caller should know.
    pub warnings: Vec<String>,
}

/// The task.
pub struct Rerank<B: Backend> {
    encode: Encode<B>,
    scorer: Scorer,
    resolved: Vec<Resolved>,
    /// Composition of each item.
    of: Vec<usize>,
    top_n: Option<usize>,
    warnings: Vec<String>,
}

enum Scorer {
    Cosine,
    Head(Scoring),
}

impl<B: Backend> Rerank<B> {
    /// Checks the request and prepares it.
    ///
    /// # Errors
    /// An empty query, no documents, compositions that mean nothing, a head of the wrong width.
    pub fn new(engine: &mut Engine<B>, request: RerankRequest) -> Result<Self> {
        check(&request)?;
        let mut compositions: Vec<Compose> = Vec::new();
        let mut find = |c: &Compose| {
            compositions.iter().position(|x| x == c).unwrap_or_else(|| {
                compositions.push(c.clone());
                compositions.len() - 1
            })
        };
        let query_of = find(&request.adapters.query);
        let of: Vec<usize> = (0..request.documents.len()).map(|i| find(request.adapters.document(i))).collect();
        let resolved: Vec<Resolved> = compositions.iter().map(|c| engine.session.resolve(c)).collect::<Result<_>>()?;
        let mut warnings: Vec<String> = resolved.iter().flat_map(|r| r.warnings.clone()).collect();
        warnings.dedup();
        let empty = request.documents.iter().enumerate().filter(|(_, d)| d.trim().is_empty());
        warnings.extend(empty.map(|(i, _)| format!("document {i} is empty")));
        let spec = engine.session.spec();
        let heads: Vec<Option<&HeadSpec>> =
            of.iter().map(|&c| resolved[c].head.as_ref().filter(|h| h.task == HeadTask::Sequence)).collect();
        let (scorer, items, of, want) = if heads.iter().all(Option::is_none) {
            let prompt = |side| spec.prompt(side).to_owned();
            let mut items = vec![Item { source: Source::Text(prompt(Side::Query), request.query), compose: query_of }];
            items.extend(
                request
                    .documents
                    .into_iter()
                    .zip(&of)
                    .map(|(text, &compose)| Item { source: Source::Text(prompt(Side::Document), text), compose }),
            );
            let of = [vec![query_of], of].concat();
            (Scorer::Cosine, items, of, Want { embedding: true, ..Want::default() })
        } else {
            let scoring = common_scoring(&heads)?;
            if of.iter().any(|&c| c != query_of) {
                return Err(Error::Argument {
                    what: "adapters".into(),
                    why: "a cross-encoder runs query and passage in one row: give both sides the same composition"
                        .into(),
                });
            }
            let items = request
                .documents
                .into_iter()
                .map(|text| Item { source: Source::Pair(request.query.clone(), text), compose: query_of })
                .collect();
            (Scorer::Head(scoring), items, of, Want { logits: true, ..Want::default() })
        };
        let precision = request.precision.unwrap_or(engine.precision);
        let encode = Encode::new(items, &resolved, want, precision, request.windows);
        Ok(Self { encode, scorer, resolved, of, top_n: request.top_n, warnings })
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

    /// The ranking of a task that is done.
    ///
    /// # Errors
    /// When it is not done.
    pub fn finish(self) -> Result<Ranking> {
        let Encoded { outputs, mut report } = self.encode.finish()?;
        let mut query_truncated = report.first_cut;
        let (scored, scoring): (Vec<Ranked>, Scoring) = match self.scorer {
            Scorer::Cosine => {
                let shifted = shifted(outputs, &self.resolved, &self.of);
                let (query, documents) = shifted.split_first().ok_or_else(|| Error::Program("no query".into()))?;
                // A query in windows is as near as its nearest window.
                let scores = documents.iter().enumerate().map(|(index, windows)| {
                    let score = best(query.iter().flat_map(|q| windows.iter().map(move |w| cosine(q, w))));
                    Ranked { index, relevance_score: score, logit: None }
                });
                // Item 0 was the query: the report speaks of passages.
                query_truncated = report.truncated.first() == Some(&0);
                report.truncated = report.truncated.iter().filter(|&&i| i > 0).map(|i| i - 1).collect();
                (scores.collect(), Scoring::Cosine)
            }
            Scorer::Head(scoring) => {
                let scores = outputs.iter().enumerate().map(|(index, windows)| {
                    let logit = best(windows.iter().filter_map(|w| w.logits.as_ref()).map(|l| raw(&l.values)));
                    Ranked { index, relevance_score: activate(scoring, logit), logit: Some(logit) }
                });
                (scores.collect(), scoring)
            }
        };
        let results = top(scored, self.top_n);
        Ok(Ranking { results, scoring, report, query_truncated, warnings: self.warnings })
    }
}

fn check(request: &RerankRequest) -> Result<()> {
    let bad = |what: &str, why: &str| Err(Error::Argument { what: what.into(), why: why.into() });
    if request.query.trim().is_empty() {
        return bad("query", "it is empty; there is nothing to rank by");
    }
    if request.documents.is_empty() {
        return bad("documents", "the list is empty; there is nothing to rank");
    }
    if request.top_n == Some(0) {
        return bad("topN", "it must be at least 1");
    }
    request.adapters.check(request.documents.len())
}

/// One scoring for all passages: heads of different width give numbers that cannot be compared.
fn common_scoring(heads: &[Option<&HeadSpec>]) -> Result<Scoring> {
    let mut common = None;
    for head in heads {
        let scoring = head.map(scoring_of).transpose()?;
        if common.is_some_and(|c| c != scoring) {
            return Err(Error::Argument {
                what: "adapters".into(),
                why: "some passages would be scored by a head and others not, or by heads of another shape: such scores cannot be compared".into(),
            });
        }
        common = Some(scoring);
    }
    common.flatten().ok_or_else(|| Error::Program("no head".into()))
}

/// One logit → sigmoid unless the model asks for none, two labels → softmax of label 1.
fn scoring_of(head: &HeadSpec) -> Result<Scoring> {
    match (head.labels, head.score_activation) {
        (1, Some(Activation::Identity)) => Ok(Scoring::Logit),
        (1, _) => Ok(Scoring::Sigmoid),
        (2, _) => Ok(Scoring::Softmax),
        (found, _) => Err(Error::HeadShape {
            task: "rerank".into(),
            needed: "1 (a score) or 2 (irrelevant, relevant)".into(),
            found,
        }),
    }
}

fn raw(logits: &[f32]) -> f32 {
    match logits {
        [one] => *one,
        [no, yes] => yes - no,
        _ => f32::NAN,
    }
}

fn activate(scoring: Scoring, logit: f32) -> f32 {
    match scoring {
        // The softmax of two logits, of the second, is the sigmoid of their difference.
        Scoring::Sigmoid | Scoring::Softmax => 1.0 / (1.0 + (-logit).exp()),
        Scoring::Logit | Scoring::Cosine => logit,
    }
}

/// Embeddings with each item's offsets applied; item 0 is the query.
pub(super) fn shifted(
    outputs: Vec<Vec<crate::session::RowOutput>>,
    resolved: &[Resolved],
    of: &[usize],
) -> Vec<Vec<Vec<f32>>> {
    let mut out = Vec::with_capacity(outputs.len());
    for (index, (rows, &composition)) in outputs.into_iter().zip(of).enumerate() {
        let side = if index == 0 { Side::Query } else { Side::Document };
        let mut item = Vec::with_capacity(rows.len());
        for mut embedding in rows.into_iter().filter_map(|r| r.embedding) {
            resolved[composition].shift(&mut embedding, side);
            item.push(embedding);
        }
        out.push(item);
    }
    out
}

/// Dot product of two normalised vectors.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    crate::steps::dot(a, b)
}

pub(super) fn best(scores: impl Iterator<Item = f32>) -> f32 {
    scores.fold(f32::NEG_INFINITY, f32::max)
}

/// Best first, equal scores in the order given, cut to `n`.
pub(super) fn top(mut scored: Vec<Ranked>, n: Option<usize>) -> Vec<Ranked> {
    scored.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score).then(a.index.cmp(&b.index)));
    scored.truncate(n.unwrap_or(usize::MAX));
    scored
}
