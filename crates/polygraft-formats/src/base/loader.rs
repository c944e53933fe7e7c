//! Streams a base model: small files first, then each weight file's header, then its tensors one at a time.

use super::assemble::{self, Placed};
use super::config::EncoderConfig;
use super::layout::{self, Slot, Stored};
use super::lineage::Lineage;
use super::meta::{self, Meta};
use super::rows::Place;
use super::sentence::{SentenceFolder, sentence};
use super::special::special;
use crate::architectures::{self, Holds};
use crate::container::{Dtype, Header, TensorInfo};
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::names::{self, Param, Part};
use crate::source::{Files, SMALL};
use polygraft::ir::LinearSite;
use polygraft::model::{HeadTask, ModelSpec, Pooling, SpecialTokens, WeightId, WeightInfo};
use polygraft::tensor::{Matrix, Scheme};
use std::collections::{BTreeMap, BTreeSet};

/// Tensors and the files that an index says they are in.
type Promised = Vec<(String, String)>;

/// One tensor to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorPlan {
    /// What to give back to [`BaseLoader::tensor`].
    pub index: usize,
    /// From the file's start.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Loads a base model tensor by tensor, so that its numbers are in memory once.
///
/// For each of [`BaseLoader::shards`]: [`BaseLoader::begin`] with its header, then [`BaseLoader::tensor`] for every
/// plan, in the order given; then [`BaseLoader::finish`].
#[derive(Debug)]
pub struct BaseLoader {
    config: EncoderConfig,
    folder: SentenceFolder,
    special: SpecialTokens,
    meta: Option<Meta>,
    shards: Vec<String>,
    /// What an index promises: tensor and file.
    promised: Promised,
    /// Folders of `Dense` modules, by shard.
    dense: BTreeMap<String, u16>,
    open: BTreeMap<String, Open>,
    placed: BTreeMap<Slot, Placed>,
    weights: Vec<WeightInfo>,
    extra: Vec<String>,
    head: Option<HeadTask>,
    lineage: Lineage,
    wanted: Wanted,
}

/// Which tensors are in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    /// All but the embedding tables.
    Layers,
    /// Biases and norms: with them the model is known, and its matrices can stay where they are.
    Vectors,
}

#[derive(Debug)]
struct Open {
    header: Header,
    /// By the tensor's index; the ones that are needed.
    roles: BTreeMap<usize, Role>,
    pending: BTreeSet<usize>,
    /// Codes waiting for their scales.
    codes: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Role {
    Whole { slot: Slot, id: WeightId, rows: usize, cols: usize },
    Codes { name: String },
    Scales { codes: String, id: WeightId, scheme: Scheme, rows: usize, cols: usize },
}

impl BaseLoader {
    /// Reads the small files.
    ///
    /// # Errors
    /// [`FormatError::FileMissing`], [`FormatError::Unsupported`], [`FormatError::ModelConfig`], [`FormatError::Json`].
    pub fn new(files: &dyn Files) -> Result<Self> {
        let mut folder = sentence(files)?;
        let name = format!("{}config.json", folder.transformer);
        if !files.has(&name) {
            if files.has("adapter_config.json") {
                let why = "this folder is an adapter (adapter_config.json); a base model has a config.json".into();
                return Err(FormatError::NotAModel { why });
            }
            return Err(crate::source::missing(&name, &files.names()));
        }
        let config = EncoderConfig::parse(&name, &files.read(&name, SMALL)?)?;
        if config.image.is_some() && !files.has("modules.json") {
            // What the library's classifiers read.
            folder.spec.pooling = Pooling::Cls;
        }
        let (mut shards, promised) = weight_files(files, &folder.transformer)?;
        let mut dense = BTreeMap::new();
        for (i, module) in folder.dense.iter().enumerate() {
            let file = weight_files(files, &module.folder)?.0.remove(0);
            dense.insert(file.clone(), u16::try_from(i).unwrap_or(u16::MAX));
            shards.push(file);
        }
        Ok(Self {
            special: special(files, &folder.transformer, &config)?,
            config,
            folder,
            meta: None,
            shards,
            promised,
            dense,
            open: BTreeMap::new(),
            placed: BTreeMap::new(),
            weights: Vec::new(),
            extra: Vec::new(),
            head: None,
            lineage: Lineage::default(),
            wanted: Wanted::All,
        })
    }

    /// The same without the embedding tables: they are in no plan, and the spec describes them all the same. The
    /// tokenizer's files may be absent; special tokens are then not to be relied on.
    ///
    /// # Errors
    /// As [`BaseLoader::new`].
    pub fn layers(files: &dyn Files) -> Result<Self> {
        Ok(Self { wanted: Wanted::Layers, ..Self::new(files)? })
    }

    /// The same without any matrix: see [`BaseRows`](super::BaseRows).
    pub(super) fn vectors(files: &dyn Files) -> Result<Self> {
        Ok(Self { wanted: Wanted::Vectors, ..Self::new(files)? })
    }

    /// Where the weights are, once every header is here.
    pub(super) fn places(&self) -> BTreeMap<WeightId, Place> {
        let mut out = BTreeMap::new();
        for (shard, open) in &self.open {
            for (index, role) in &open.roles {
                let info = open.header.tensors[*index].clone();
                let (id, place) = match role {
                    Role::Whole { slot, id, rows, cols } => (
                        *id,
                        Place {
                            shard: shard.clone(),
                            info,
                            scales: None,
                            vector: slot.is_vector(),
                            rows: *rows,
                            cols: *cols,
                        },
                    ),
                    Role::Scales { codes, id, scheme, rows, cols } => {
                        let Some(codes) = open.header.get(codes).cloned() else { continue };
                        let scales = Some((*scheme, info));
                        (
                            *id,
                            Place {
                                shard: shard.clone(),
                                info: codes,
                                scales,
                                vector: false,
                                rows: *rows,
                                cols: *cols,
                            },
                        )
                    }
                    Role::Codes { .. } => continue,
                };
                out.insert(id, place);
            }
        }
        out
    }

    /// Which of `shard`'s tensors belong to an embedding table, by index, once its header is here.
    #[must_use]
    pub fn tables(&self, shard: &str) -> Vec<usize> {
        let tables: Vec<WeightId> = self
            .placed
            .iter()
            .filter(|(slot, _)| matches!(slot.part, Part::Word | Part::Position | Part::TokenType))
            .map(|(_, placed)| placed.id)
            .collect();
        let Some(open) = self.open.get(shard) else { return Vec::new() };
        let codes = open.roles.values().filter_map(|role| match role {
            Role::Scales { codes, id, .. } if tables.contains(id) => Some(codes),
            Role::Scales { .. } | Role::Whole { .. } | Role::Codes { .. } => None,
        });
        let codes: Vec<&String> = codes.collect();
        let is_table = |role: &Role| match role {
            Role::Whole { id, .. } | Role::Scales { id, .. } => tables.contains(id),
            Role::Codes { name } => codes.contains(&name),
        };
        open.roles.iter().filter(|(_, role)| is_table(role)).map(|(index, _)| *index).collect()
    }

    /// Which of `shard`'s tensors are no vectors.
    fn matrices(&self, shard: &str) -> Vec<usize> {
        let is_vector = |role: &Role| matches!(role, Role::Whole { slot, .. } if slot.is_vector());
        let roles = self.open.get(shard).map(|open| &open.roles);
        roles.into_iter().flatten().filter(|(_, role)| !is_vector(role)).map(|(index, _)| *index).collect()
    }

    /// The weight files, in the order in which they are read.
    #[must_use]
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// Takes a weight file's header and says which bytes to fetch, in order.
    ///
    /// # Errors
    /// As [`Header::parse`]; [`FormatError::ModelShape`]; after the last file's header [`FormatError::ModelKeys`].
    pub fn begin(&mut self, shard: &str, header: &[u8], file_len: u64) -> Result<Vec<TensorPlan>> {
        if !self.shards.iter().any(|s| s == shard) || self.open.contains_key(shard) {
            let why = format!("{:?} is not a weight file that is still to come", shown(shard));
            return Err(FormatError::Argument { what: "shard".into(), why });
        }
        let header = Header::parse(shard, header, Some(file_len))?;
        let absent = |(name, file): &&(String, String)| file == shard && header.get(name).is_none();
        let missing: Vec<String> = self.promised.iter().filter(absent).map(|(name, _)| shown(name)).collect();
        if !missing.is_empty() {
            return Err(FormatError::ModelKeys { file: shard.into(), missing, extra: Vec::new() });
        }
        if let Some(text) = header.metadata.get(meta::KEY) {
            let meta = Meta::parse(shard, text)?;
            self.special = meta.special();
            self.folder.spec = meta.sentence.read(shard)?;
            self.folder.dense = assemble::own_dense(shard, &header, &self.folder.spec)?;
            self.meta = Some(meta);
        }
        let hint = self.config.architectures.iter().find_map(|a| names::task_of_architecture(a));
        let dense = self.dense.get(shard).copied();
        if dense.is_none() {
            let shown = names::head_task(self.config.arch, header.tensors.iter().map(|t| t.name.as_str()), hint);
            self.head = self.head.or(shown);
        }
        let mut open = Open { header, roles: BTreeMap::new(), pending: BTreeSet::new(), codes: BTreeMap::new() };
        for index in 0..open.header.tensors.len() {
            let info = open.header.tensors[index].clone();
            self.place(shard, dense, &mut open, index, &info)?;
        }
        open.pending = open.roles.keys().copied().collect();
        self.open.insert(shard.to_owned(), open);
        let left_out = match self.wanted {
            Wanted::All => Vec::new(),
            Wanted::Layers => self.tables(shard),
            Wanted::Vectors => self.matrices(shard),
        };
        let mut plans = Vec::new();
        if let Some(open) = self.open.get_mut(shard) {
            open.pending.retain(|index| !left_out.contains(index));
            plans.extend(open.pending.iter().map(|&index| {
                let t = &open.header.tensors[index];
                TensorPlan { index, offset: t.offset, bytes: t.bytes }
            }));
        }
        if self.open.len() == self.shards.len() {
            self.complete()?;
        }
        Ok(plans)
    }

    /// Where tensor `index` goes; a tensor that nothing would use is remembered for the error.
    fn place(
        &mut self,
        shard: &str,
        dense: Option<u16>,
        open: &mut Open,
        index: usize,
        info: &TensorInfo,
    ) -> Result<()> {
        let arch = self.config.arch;
        if info.name.ends_with(".weight.scales") {
            // Placed with its codes, below; alone it is left over.
            let codes = info.name.trim_end_matches(".scales");
            if !open.header.get(codes).is_some_and(|c| matches!(c.dtype, Dtype::U8 | Dtype::I8)) {
                self.extra.push(shown(&info.name));
            }
            return Ok(());
        }
        let Some((part, param)) = self.find(dense, &info.name) else {
            if !names::does_nothing(arch, &info.name) {
                self.extra.push(shown(&info.name));
            }
            return Ok(());
        };
        let slot = Slot { part, param };
        let output = Part::Linear(LinearSite::HeadOutput);
        let tied = self.head.is_some_and(|task| assemble::tied(&self.config, task));
        if tied && slot == (Slot { part: output, param: Param::Weight }) {
            // transformers ties it to the word embeddings whatever the file holds.
            return Ok(());
        }
        if self.placed.contains_key(&slot) {
            let twin = part == output && param == Param::Bias;
            return if twin {
                Ok(())
            } else {
                Err(FormatError::Duplicate { file: shard.into(), name: shown(&info.name) })
            };
        }
        let expected = layout::shape(&self.config, &self.folder.dense, self.head, slot);
        let (stored, rows) = layout::check(shard, info, slot, expected)?;
        let cols = expected.1;
        let id = WeightId(u32::try_from(self.weights.len()).unwrap_or(u32::MAX));
        let vector = slot.is_vector();
        let scheme = match stored {
            // It is put in another order, in f32.
            Stored::Dense(_) if layout::is_convolution(info) => Scheme::F32,
            Stored::Dense(Dtype::F16) if !vector => Scheme::F16,
            Stored::Dense(Dtype::Bf16) if !vector => Scheme::Bf16,
            Stored::Dense(_) => Scheme::F32,
            Stored::Codes(scheme) => scheme,
        };
        let (r, c) = if vector { (1, rows) } else { (rows, cols) };
        let name = names::tensor_name(arch, self.head, part, param);
        self.weights.push(WeightInfo { name, rows: r, cols: c, scheme });
        self.placed.insert(slot, Placed { id, rows });
        if let Stored::Codes(scheme) = stored {
            let name = format!("{}.scales", info.name);
            let at = open.header.tensors.iter().position(|t| t.name == name);
            let shape = [rows, cols / polygraft::quant::BLOCK];
            let good = at.filter(|&at| {
                at > index && open.header.tensors[at].dtype == Dtype::F16 && open.header.tensors[at].shape == shape
            });
            let Some(at) = good else {
                let why =
                    format!("{} quantized codes need the tensor {name:?}, F16 of {shape:?}, after them", scheme.name());
                return Err(FormatError::ModelShape {
                    file: shard.into(),
                    tensor: shown(&info.name),
                    expected: why,
                    found: "none such".into(),
                });
            };
            open.roles.insert(index, Role::Codes { name: info.name.clone() });
            open.roles.insert(at, Role::Scales { codes: info.name.clone(), id, scheme, rows, cols });
        } else {
            open.roles.insert(index, Role::Whole { slot, id, rows, cols });
        }
        Ok(())
    }

    fn find(&self, dense: Option<u16>, name: &str) -> Option<(Part, Param)> {
        let param = |last: &str| match last {
            "weight" => Some(Param::Weight),
            "bias" => Some(Param::Bias),
            _ => None,
        };
        if let Some(index) = dense {
            let last = name.strip_prefix("linear.")?;
            return Some((Part::Linear(LinearSite::Sentence(index)), param(last)?));
        }
        if let (Some(rest), Some(_)) = (name.strip_prefix("sentence."), &self.meta) {
            let (index, last) = rest.split_once('.')?;
            return Some((Part::Linear(LinearSite::Sentence(index.parse().ok()?)), param(last)?));
        }
        let found = names::tensor(self.config.arch, name)?;
        let here = |part: Part| part.layer().is_none_or(|l| l < self.config.layers);
        let holds = (architectures::of(self.config.arch).holds)(&self.config, found.0);
        let wanted = match found.1 {
            Param::Weight => holds != Holds::Nothing,
            Param::Bias => holds == Holds::Both,
        };
        (wanted && here(found.0)).then_some(found)
    }

    /// Takes one tensor's bytes; gives the weights that are whole with it.
    ///
    /// # Errors
    /// [`FormatError::NotFinite`]; [`FormatError::Range`] for other bytes than were planned; [`FormatError::Argument`].
    pub fn tensor(&mut self, shard: &str, index: usize, bytes: Vec<u8>) -> Result<Vec<(WeightId, Matrix)>> {
        let order = || FormatError::Argument {
            what: "tensor".into(),
            why: format!("{index} of {:?} is not one that is still to come", shown(shard)),
        };
        let open = self.open.get_mut(shard).ok_or_else(order)?;
        if !open.pending.remove(&index) {
            return Err(order());
        }
        let (Some(role), Some(info)) = (open.roles.get(&index).cloned(), open.header.tensors.get(index)) else {
            return Err(order());
        };
        if info.bytes != bytes.len() as u64 {
            return Err(crate::source::past_end(shard, info.offset, info.bytes, info.offset + bytes.len() as u64));
        }
        match role {
            Role::Codes { name } => {
                open.codes.insert(name, bytes);
                Ok(Vec::new())
            }
            Role::Scales { codes, id, scheme, rows, cols } => {
                let data = open.codes.remove(&codes).ok_or_else(order)?;
                let matrix = layout::codes(shard, &codes, scheme, rows, cols, data, &bytes)?;
                Ok(vec![(id, matrix)])
            }
            Role::Whole { slot, id, rows, cols } => {
                let vector = slot.is_vector();
                if layout::is_convolution(info) {
                    return Ok(vec![(id, layout::convolution(shard, info, &bytes, cols)?)]);
                }
                let matrix = layout::dense(shard, info, &bytes, rows, cols, vector)?;
                if vector && slot.part.of_backbone() {
                    self.lineage.add(&self.weights[id.0 as usize].name, &matrix.to_f32());
                }
                Ok(vec![(id, matrix)])
            }
        }
    }

    /// Whether every tensor that the model needs is there, and nothing else.
    fn complete(&self) -> Result<()> {
        let missing = assemble::missing(&self.config, &self.folder, self.head, &self.placed);
        if missing.is_empty() && self.extra.is_empty() {
            return Ok(());
        }
        let file = self.shards.first().cloned().unwrap_or_default();
        Err(FormatError::ModelKeys { file, missing, extra: self.extra.clone() })
    }

    /// What the model is, once every tensor has passed.
    ///
    /// # Errors
    /// [`FormatError::Argument`] before that; [`FormatError::ModelConfig`].
    pub fn finish(self) -> Result<ModelSpec> {
        let late = self.open.len() < self.shards.len() || self.open.values().any(|o| !o.pending.is_empty());
        if late {
            return Err(FormatError::Argument { what: "finish".into(), why: "tensors are still to come".into() });
        }
        let (name, lineage) = match &self.meta {
            Some(meta) => (meta.name.clone(), meta.lineage.clone()),
            None => (self.config.name.clone().unwrap_or_default(), None),
        };
        let fingerprint =
            polygraft::model::Fingerprint { name, lineage: Some(lineage.unwrap_or_else(|| self.lineage.finish())) };
        assemble::spec(self.config, self.folder.spec, self.head, self.special, self.weights, &self.placed, fingerprint)
    }
}

/// The safetensors files under `folder`, one or the shards of an index, and the tensors that an index promises.
fn weight_files(files: &dyn Files, folder: &str) -> Result<(Vec<String>, Promised)> {
    let index = format!("{folder}model.safetensors.index.json");
    if files.has(&index) {
        let json = Json::parse(&index, &files.read(&index, SMALL)?)?;
        let map = json.get("weight_map").map(Json::entries).unwrap_or_default();
        let promised: Promised =
            map.iter().filter_map(|(name, file)| Some((name.clone(), format!("{folder}{}", file.text()?)))).collect();
        let names: BTreeSet<String> = promised.iter().map(|(_, file)| file.clone()).collect();
        if let Some(gone) = names.iter().find(|n| !files.has(n)) {
            return Err(crate::source::missing(gone, &files.names()));
        }
        if names.is_empty() {
            return Err(FormatError::Json { file: index, why: "weight_map names no files".into() });
        }
        return Ok((names.into_iter().collect(), promised));
    }
    let single = format!("{folder}model.safetensors");
    if files.has(&single) {
        return Ok((vec![single], Vec::new()));
    }
    for other in ["pytorch_model.bin", "model.onnx", "tf_model.h5", "flax_model.msgpack"] {
        if files.has(&format!("{folder}{other}")) {
            let why = format!(
                "only {other} is here; save the model with safe_serialization=True, which writes model.safetensors"
            );
            return Err(FormatError::Unsupported { file: format!("{folder}{other}"), why });
        }
    }
    Err(crate::source::missing(&single, &files.names()))
}
