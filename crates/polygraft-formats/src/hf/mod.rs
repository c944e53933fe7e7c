//! Hugging Face folders: `config.json`, `*.safetensors`, and the Sentence-Transformers files around them.

pub mod bert;
pub mod config;
pub mod roberta;
pub mod sentence;
pub mod special;
