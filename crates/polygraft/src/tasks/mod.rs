//! What users come for: embeddings, rankings, indexes, language vectors. Each is a resumable task over an [`Engine`].

mod encode;
mod index;
mod language;
pub mod metrics;
mod rerank;
mod share;

pub use encode::{Encode, Encoded, Item, Report, Source};
pub use index::{BuildIndex, Index, IndexEntry, Search, SearchRequest};
pub use language::{LanguageVector, LanguageVectorRequest};
pub use rerank::{Ranked, Ranking, Rerank, RerankRequest, Scoring};

use crate::backend::{Backend, Precision};
use crate::compose::{Compose, Resolved};
use crate::compose::{SplitPart, Stack};
use crate::error::{Error, Result};
use crate::session::Session;
use crate::text::Tokenizer;
use std::collections::{HashMap, VecDeque};

/// A session with a tokenizer and a memory of embeddings.
pub struct Engine<B: Backend> {
    /// The base and its adapters.
    pub session: Session<B>,
    /// Text to ids.
    pub tokenizer: Box<dyn Tokenizer>,
    /// How activations are computed unless a call says otherwise.
    pub precision: Precision,
    cache: Cache,
    satellites: share::Satellites,
}

impl<B: Backend> Engine<B> {
    /// An engine over a session.
    #[must_use]
    pub fn new(session: Session<B>, tokenizer: Box<dyn Tokenizer>, precision: Precision) -> Self {
        Self { session, tokenizer, precision, cache: Cache::default(), satellites: share::Satellites::default() }
    }

    /// Forgets the embeddings that are remembered, so that the next ones all come from the same device.
    pub fn forget_embeddings(&mut self) {
        self.cache = Cache::default();
    }
}

/// Which compositions the two sides of a ranking take.
#[derive(Debug, Clone, PartialEq)]
pub struct Sides {
    /// The query's.
    pub query: Compose,
    /// One for all documents, or one each.
    pub documents: Vec<Compose>,
}

impl Sides {
    /// One composition for both.
    #[must_use]
    pub fn both(compose: Compose) -> Self {
        Self { query: compose.clone(), documents: vec![compose] }
    }

    /// Document `index`'s composition.
    #[must_use]
    pub fn document(&self, index: usize) -> &Compose {
        if self.documents.len() == 1 { &self.documents[0] } else { &self.documents[index] }
    }

    fn check(&self, documents: usize) -> Result<()> {
        if self.documents.len() == 1 || self.documents.len() == documents {
            return Ok(());
        }
        Err(Error::Argument {
            what: "document compositions".into(),
            why: format!("{} for {documents} documents; give one for all, or one each", self.documents.len()),
        })
    }
}

/// Embeddings of backbones by (patches, row, precision): a keystroke or a switched language vector computes nothing twice.
#[derive(Debug, Default)]
struct Cache {
    map: HashMap<CacheKey, Vec<f32>>,
    order: VecDeque<CacheKey>,
}

/// A row's embedding: the backbone, the tokens, the precision.
type CacheKey = (BackboneKey, Vec<u32>, Precision);

/// What decides an embedding but for the row: payloads with the bits of their scales in order, the parts of the row that some
/// of them are for, by their places, and the layers that run in the place of the base's.
type BackboneKey = (Vec<(u64, u32)>, Vec<(usize, Vec<SplitPart>)>, Option<Stack>);

/// Stands behind a payload that reads what the one before it made.
const CHAINED: (u64, u32) = (u64::MAX, 0);

/// Rows kept: 2 048 embeddings of 384 floats with their ids are about 5 MB.
const CACHED_ROWS: usize = 2048;

impl Cache {
    fn key(backbone: &Resolved, ids: &[u32], precision: Precision) -> CacheKey {
        let (mut payloads, mut parts) = (Vec::with_capacity(backbone.placed.len()), Vec::new());
        // A head does not touch an embedding.
        for placed in backbone.placed.iter().filter(|p| p.head.is_none()) {
            if !placed.part.is_empty() {
                parts.push((payloads.len(), placed.part.clone()));
            }
            payloads.push((placed.payload.id.0, placed.scale.to_bits()));
            payloads.extend(placed.chained.then_some(CHAINED));
        }
        ((payloads, parts, backbone.stack.clone()), ids.to_vec(), precision)
    }

    fn get(&self, key: &CacheKey) -> Option<&Vec<f32>> {
        self.map.get(key)
    }

    fn put(&mut self, key: CacheKey, value: Vec<f32>) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > CACHED_ROWS {
            if let Some(old) = self.order.pop_front() {
                self.map.remove(&old);
            }
        }
    }
}
