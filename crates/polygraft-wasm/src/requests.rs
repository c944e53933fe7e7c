//! The JSON of each operation's arguments. Unknown keys are refused: a misspelt option must not be ignored.

use crate::failure::{Failure, Result};
use polygraft::Compose;
use polygraft::backend::Precision;
use polygraft::tasks::{LanguageVectorRequest, RerankRequest, SearchRequest, Sides};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How activations are computed.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// 8-bit activations into quantized layers.
    Fast,
    /// f32 throughout.
    Exact,
}

impl From<Mode> for Precision {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Fast => Self::Fast,
            Mode::Exact => Self::Exact,
        }
    }
}

/// Reads the arguments of `op`.
pub(crate) fn parse<T: DeserializeOwned>(op: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| Failure::argument(op, e))
}

fn composition(value: &Value) -> Result<Compose> {
    Ok(Compose::from_json(value)?)
}

fn compositions(values: &[Value]) -> Result<Vec<Compose>> {
    values.iter().map(composition).collect()
}

/// `embed`: texts, or images, under one composition, or one each.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EmbedArgs {
    pub(crate) texts: Vec<String>,
    /// How many images the call brings in place of texts.
    #[serde(default)]
    pub(crate) images: usize,
    pub(crate) side: Option<SideName>,
    adapters: Vec<Value>,
    precision: Option<Mode>,
}

/// Whose prompt goes in front of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SideName {
    Query,
    Document,
}

impl EmbedArgs {
    /// Texts, or images.
    pub(crate) fn items(&self) -> usize {
        self.texts.len() + self.images
    }

    /// One composition for all, or one each.
    pub(crate) fn compositions(&self) -> Result<Vec<Compose>> {
        if self.adapters.len() != 1 && self.adapters.len() != self.items() {
            let why = format!(
                "{} compositions for {} items; give one for all, or one each",
                self.adapters.len(),
                self.items()
            );
            return Err(Failure::argument("adapters", why));
        }
        compositions(&self.adapters)
    }

    pub(crate) fn precision(&self) -> Option<Precision> {
        self.precision.map(Into::into)
    }
}

/// `rerank`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RerankArgs {
    query: String,
    documents: Vec<String>,
    query_adapters: Value,
    document_adapters: Vec<Value>,
    top_n: Option<usize>,
    windows: bool,
    precision: Option<Mode>,
}

impl RerankArgs {
    pub(crate) fn into_request(self) -> Result<RerankRequest> {
        Ok(RerankRequest {
            adapters: Sides {
                query: composition(&self.query_adapters)?,
                documents: compositions(&self.document_adapters)?,
            },
            query: self.query,
            documents: self.documents,
            top_n: self.top_n,
            windows: self.windows,
            precision: self.precision.map(Into::into),
        })
    }
}

/// `index`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct IndexArgs {
    pub(crate) documents: Vec<String>,
    document_adapters: Vec<Value>,
    pub(crate) windows: bool,
    precision: Option<Mode>,
}

impl IndexArgs {
    pub(crate) fn sides(&self) -> Result<Sides> {
        Ok(Sides { query: Compose::Base, documents: compositions(&self.document_adapters)? })
    }

    pub(crate) fn precision(&self) -> Option<Precision> {
        self.precision.map(Into::into)
    }
}

/// `search`: over the index with that handle.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SearchArgs {
    pub(crate) index: u32,
    query: String,
    query_adapters: Value,
    document_adapters: Option<Vec<Value>>,
    top_n: Option<usize>,
    precision: Option<Mode>,
}

impl SearchArgs {
    pub(crate) fn into_request(self) -> Result<SearchRequest> {
        Ok(SearchRequest {
            query_adapters: composition(&self.query_adapters)?,
            document_adapters: self.document_adapters.as_deref().map(compositions).transpose()?,
            query: self.query,
            top_n: self.top_n,
            precision: self.precision.map(Into::into),
        })
    }
}

/// `languageVector`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LanguageArgs {
    texts: Vec<String>,
    pivot: Option<Vec<String>>,
    lang: String,
    under: Value,
    pub(crate) name: Option<String>,
    precision: Option<Mode>,
}

impl LanguageArgs {
    pub(crate) fn into_request(self) -> Result<LanguageVectorRequest> {
        Ok(LanguageVectorRequest {
            under: composition(&self.under)?,
            texts: self.texts,
            pivot: self.pivot,
            language: self.lang,
            precision: self.precision.map(Into::into),
        })
    }
}

/// `explain`: one composition for all texts, or one each.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExplainArgs {
    pub(crate) texts: Vec<String>,
    adapters: Vec<Value>,
}

impl ExplainArgs {
    /// A composition for each text.
    pub(crate) fn compositions(&self) -> Result<Vec<Compose>> {
        let list = compositions(&self.adapters)?;
        match list.as_slice() {
            [one] => Ok(vec![one.clone(); self.texts.len()]),
            _ if list.len() == self.texts.len() => Ok(list),
            _ => Err(Failure::argument(
                "adapters",
                format!("{} compositions for {} texts", list.len(), self.texts.len()),
            )),
        }
    }
}
