//! polygraft's own form of a base: `config.json`, `model.safetensors` with quantized tensors, `tokenizer.kit`, and
//! `polygraft.json`, which lists them with their sizes and hashes, so that one address is enough to load it all.

use super::lineage::hex;
use super::meta::{FORMAT, KEY, Meta, Sentence, activation_name};
use crate::container::Dtype;
use crate::container::write::{Entry, Writer, failed};
use crate::error::{FormatError, Result};
use crate::names::{self, Param, Part};
use crate::numbers;
use polygraft::ir::{LinearSite, NormSite};
use polygraft::model::{HeadTask, ModelSpec, WeightId};
use polygraft::quant::BLOCK;
use polygraft::tensor::{Matrix, Scheme, Storage};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

/// The list of a converted model's files.
pub const MANIFEST: &str = "polygraft.json";
/// Its weights.
pub const WEIGHTS: &str = "model.safetensors";
/// Its configuration.
pub const CONFIG: &str = "config.json";
/// Its tokenizer.
pub const TOKENIZER: &str = "tokenizer.kit";

/// A file for the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

impl Written {
    /// Describes bytes.
    #[must_use]
    pub fn of(name: &str, bytes: &[u8]) -> Self {
        Self { name: name.into(), bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) }
    }
}

/// `polygraft.json`.
#[must_use]
pub fn manifest(spec: &ModelSpec, files: &[Written]) -> Vec<u8> {
    let list: serde_json::Map<String, serde_json::Value> =
        files.iter().map(|f| (f.name.clone(), json!({"bytes": f.bytes, "sha256": f.sha256}))).collect();
    let mut out = serde_json::to_vec_pretty(&json!({"format": FORMAT, "name": spec.fingerprint.name, "files": list}))
        .unwrap_or_default();
    out.push(b'\n');
    out
}

/// The library's own `config.json`, with what a merge may have changed: transformers understands it as well.
#[must_use]
pub fn config(spec: &ModelSpec) -> Vec<u8> {
    let task = spec.head.as_ref().map(|h| h.task);
    let tied = spec.linears.get(&LinearSite::HeadOutput).is_none_or(|l| l.weight == spec.embeddings.word);
    let mut config: serde_json::Value = serde_json::from_str(&spec.config).unwrap_or_default();
    config["architectures"] = json!([names::architecture(spec.arch, task)]);
    if !tied {
        config["tie_word_embeddings"] = false.into();
    }
    for other in ["label2id", "num_labels", "torch_dtype", "dtype", "sbert_ce_default_activation_function"] {
        config.as_object_mut().map(|c| c.remove(other));
    }
    if let Some(head) = &spec.head {
        if task != Some(HeadTask::MaskedLm) {
            let name = |i: u32| head.label_names.get(i as usize).cloned().unwrap_or_else(|| format!("LABEL_{i}"));
            let labels: serde_json::Map<String, serde_json::Value> =
                (0..head.labels).map(|i| (i.to_string(), name(i).into())).collect();
            config["id2label"] = labels.into();
        }
        if let Some(activation) = head.score_activation {
            let torch = match activation_name(activation) {
                "sigmoid" => "Sigmoid",
                "tanh" => "Tanh",
                "relu" => "ReLU",
                "gelu" => "GELU",
                "silu" => "SiLU",
                _ => "Identity",
            };
            config["sentence_transformers"] = json!({"activation_fn": format!("torch.nn.modules.activation.{torch}")});
        }
    }
    let mut out = serde_json::to_vec_pretty(&config).unwrap_or_default();
    out.push(b'\n');
    out
}

/// Tensor name of every weight, and whether it is a vector.
fn tensors(spec: &ModelSpec) -> BTreeMap<WeightId, (String, bool)> {
    let task = spec.head.as_ref().map(|h| h.task);
    let name = |part, param: Param| names::tensor_name(spec.arch, task, part, param);
    let mut out = BTreeMap::new();
    for (site, l) in &spec.linears {
        out.insert(l.weight, (name(Part::Linear(*site), Param::Weight), false));
        if let Some(bias) = l.bias {
            out.insert(bias, (name(Part::Linear(*site), Param::Bias), true));
        }
    }
    for (site, n) in &spec.norms {
        out.insert(n.gamma, (name(Part::Norm(*site), Param::Weight), true));
        if let Some(beta) = n.beta {
            out.insert(beta, (name(Part::Norm(*site), Param::Bias), true));
        }
    }
    // After the linears: a tied decoder is the word table, under the table's name.
    let e = spec.embeddings;
    out.insert(e.word, (name(Part::Word, Param::Weight), false));
    let relative = spec.relative.map(|r| r.table);
    for (part, id) in [(Part::Position, e.position), (Part::TokenType, e.token_type), (Part::Relative, relative)] {
        out.extend(id.map(|id| (id, (name(part, Param::Weight), false))));
    }
    out
}

/// The shape of a matrix in floats, as the library has it.
fn shape(spec: &ModelSpec, id: WeightId) -> Vec<usize> {
    let (rows, cols) = (spec.weight(id).rows, spec.weight(id).cols);
    let patches = spec.linears.get(&LinearSite::Patches).map(|l| l.weight);
    match spec.image {
        Some(image) if patches == Some(id) => vec![rows, image.channels, image.patch[0], image.patch[1]],
        Some(_) if spec.embeddings.ids().any(|table| table == id) => vec![1, rows, cols],
        _ => vec![rows, cols],
    }
}

/// Writes `model.safetensors`: `get` gives each weight once, in the file's order.
///
/// # Errors
/// As [`by_rows`].
pub fn weights<W: Write>(out: W, spec: &ModelSpec, mut get: impl FnMut(WeightId) -> Option<Matrix>) -> Result<Written> {
    by_rows(out, spec, |id, put| get(id).map_or(Ok(()), put))
}

/// Writes `model.safetensors`: `give` is asked for each weight once, in the file's order, and puts it in runs of whole
/// rows, as long as it likes: the bytes are the same.
///
/// # Errors
/// [`FormatError::Io`]; [`FormatError::Argument`] when a weight is not the one that `spec` describes; what `give` says.
pub fn by_rows<W: Write>(
    out: W,
    spec: &ModelSpec,
    mut give: impl FnMut(WeightId, &mut dyn FnMut(Matrix) -> Result<()>) -> Result<()>,
) -> Result<Written> {
    let names = tensors(spec);
    let mut entries = Vec::new();
    let mut by_name = BTreeMap::new();
    for (id, (name, vector)) in names {
        let info = spec.weight(id);
        let (dtype, shape) = match info.scheme {
            _ if vector => (Dtype::F32, vec![info.rows * info.cols]),
            Scheme::F32 => (Dtype::F32, shape(spec, id)),
            Scheme::F16 => (Dtype::F16, shape(spec, id)),
            Scheme::Bf16 => (Dtype::Bf16, shape(spec, id)),
            Scheme::Q8_0 => (Dtype::I8, vec![info.rows, info.cols]),
            Scheme::Q4_0 => (Dtype::U8, vec![info.rows, info.cols / 2]),
            Scheme::Code(_) => return Err(codes(&name)),
        };
        if info.scheme.is_quantized() {
            entries.push(Entry {
                name: format!("{name}.scales"),
                dtype: Dtype::F16,
                shape: vec![info.rows, info.cols / BLOCK],
            });
        }
        entries.push(Entry { name: name.clone(), dtype, shape });
        by_name.insert(name, id);
    }
    let meta = Meta {
        format: FORMAT,
        kind: "model".into(),
        name: spec.fingerprint.name.clone(),
        lineage: spec.fingerprint.lineage.clone(),
        special: [spec.special.first, spec.special.separator, spec.special.pad],
        sentence: Sentence::write(&spec.sentence),
    };
    let meta = serde_json::to_string(&meta).unwrap_or_default();
    let mut writer = Writer::new(Hashing::new(out), WEIGHTS, entries, &BTreeMap::from([(KEY.to_owned(), meta)]))?;
    let gone = |name: &str| FormatError::Argument { what: "weights".into(), why: format!("{name:?} was not given") };
    while let Some(name) = writer.rest().first().map(|e| e.name.clone()) {
        let id = *by_name.get(&name).ok_or_else(|| gone(&name))?;
        let scheme = if is_vector(spec, id) { Scheme::F32 } else { spec.weight(id).scheme };
        let mut block_scales = Vec::new();
        give(id, &mut |rows| {
            if rows.scheme() != scheme {
                return Err(gone(&name));
            }
            match rows.into_storage() {
                Storage::F32(v) => writer.part(&name, &numbers::f32_bytes(&v)),
                Storage::F16(v) | Storage::Bf16(v) => writer.part(&name, &numbers::half_bytes(&v)),
                Storage::Q4_0 { codes, scales } => {
                    block_scales.extend(scales);
                    writer.part(&name, &codes)
                }
                Storage::Q8_0 { codes, scales } => {
                    block_scales.extend(scales);
                    let codes: Vec<u8> = codes.into_iter().map(i8::cast_unsigned).collect();
                    writer.part(&name, &codes)
                }
                Storage::Code(_) => Err(codes(&name)),
            }
        })?;
        if writer.rest().first().is_some_and(|e| e.name == name) {
            return Err(gone(&name));
        }
        if scheme.is_quantized() {
            writer.put(&format!("{name}.scales"), &numbers::half_bytes(&block_scales))?;
        }
    }
    Ok(writer.finish()?.written(WEIGHTS))
}

/// Writes a whole folder: weights, for which `give` is asked as in [`by_rows`], configuration, tokenizer where there is
/// one, and the manifest that lists them. `create` opens each file by its name. Gives the bytes of those listed.
///
/// # Errors
/// As [`by_rows`]; [`FormatError::Io`] of what `create` says.
pub fn folder<W: Write>(
    spec: &ModelSpec,
    kit: Option<&[u8]>,
    give: impl FnMut(WeightId, &mut dyn FnMut(Matrix) -> Result<()>) -> Result<()>,
    mut create: impl FnMut(&str) -> std::io::Result<W>,
) -> Result<u64> {
    let mut written = Vec::new();
    let weights = BufWriter::with_capacity(1 << 20, create(WEIGHTS).map_err(|e| failed(WEIGHTS, &e))?);
    written.push(by_rows(weights, spec, give)?);
    let mut put = |name: &str, bytes: &[u8]| {
        let wrote = create(name).and_then(|mut file| file.write_all(bytes).and_then(|()| file.flush()));
        wrote.map_err(|e| failed(name, &e))
    };
    let config = config(spec);
    for (name, bytes) in [(CONFIG, Some(config.as_slice())), (TOKENIZER, kit)] {
        let Some(bytes) = bytes else { continue };
        put(name, bytes)?;
        written.push(Written::of(name, bytes));
    }
    // Last: a folder that has its list is whole.
    put(MANIFEST, &manifest(spec, &written))?;
    Ok(written.iter().map(|file| file.bytes).sum())
}

/// Hashes what goes through it.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn written(self, name: &str) -> Written {
        Written { name: name.into(), bytes: self.bytes, sha256: hex(&self.hash.finalize()) }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Whether quantization takes a weight: word embeddings and the encoder's linear layers, which are all but a few of a
/// model's numbers. The rest goes to f16, vectors stay f32.
#[must_use]
pub fn is_bulk(spec: &ModelSpec, id: WeightId) -> bool {
    let words = id == spec.embeddings.word && spec.image.is_none();
    words || spec.linears.iter().any(|(site, l)| l.weight == id && matches!(site, LinearSite::Layer(..)))
}

/// Whether a weight is a vector: a bias, or half of a norm.
#[must_use]
pub fn is_vector(spec: &ModelSpec, id: WeightId) -> bool {
    let norm = |n: &polygraft::model::NormWeights| n.gamma == id || n.beta == Some(id);
    spec.linears.values().any(|l| l.bias == Some(id)) || spec.norms.iter().any(|(_site, n): (&NormSite, _)| norm(n))
}
/// Codes are of adapters; nothing makes a base of them.
fn codes(name: &str) -> FormatError {
    FormatError::Argument { what: "weights".into(), why: format!("{name:?} is in an adapter's codes") }
}
