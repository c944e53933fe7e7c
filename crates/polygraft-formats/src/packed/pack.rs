//! Packing a folder, and giving it back.

use super::Folder;
use super::about::{
    About, CODES, FLOATS, FORMAT, HALVES, IN_CODES, IN_FLOATS, IN_HALVES, IN_MASK, IN_WHOLE, KEY, KIND, Row, SAME,
    STATS, WHOLE, sides,
};
use super::{diffs, varint};
use crate::bag::TensorBag;
use crate::container::Dtype;
use crate::container::write::{Entry, whole};
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use crate::numbers;
use crate::output::TensorFile;
use crate::peft::{Family, Packing};
use crate::source::{ADAPTER, Files, SMALL};
use crate::{hub, language, peft, sparse};
use polygraft::ir::BaseClaim;
use polygraft::model::ModelSpec;
use polygraft::quant::codes::{Book, Codes, Group, levels};
use serde_json::Value;
use std::collections::BTreeMap;

/// How an adapter is packed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// 1, 2, 4, 8, or 16: no codes, half precision.
    pub bits: u8,
    /// What shares a mean and a deviation.
    pub group: Group,
    /// The levels of 1, 2 and 4 bits.
    pub book: Book,
    /// Whether what is not coded stays in 32 bits instead of 16.
    pub floats: bool,
    /// Whether heads, and modules saved whole, are coded too.
    pub heads: bool,
}

/// One tensor that was coded.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// `‖decoded − original‖ / ‖original‖`.
    pub error: f64,
}

/// What packing did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The tensors in codes.
    pub packed: Vec<Packed>,
    /// The names of those that were left in 16 or 32 bits, or are whole numbers.
    pub left: Vec<String>,
}

/// The files that hold tensors, by library: as found, and as [`unpack`] writes them.
const TENSOR_FILES: [(&str, &str); 6] = [
    ("adapter_model.safetensors", "adapter_model.safetensors"),
    ("adapter_model.bin", "adapter_model.safetensors"),
    ("pytorch_adapter.bin", "adapter.safetensors"),
    ("adapter.safetensors", "adapter.safetensors"),
    ("pytorch_model_head.bin", "model_head.safetensors"),
    ("model_head.safetensors", "model_head.safetensors"),
];
/// Those of AdapterHub's heads.
const HEAD: &str = "model_head.safetensors";
const TEXTS: [&str; 2] = ["adapter_config.json", "head_config.json"];

/// Packs the adapter in `files`, which is for the base `spec`, into the bytes of one file.
///
/// # Errors
/// [`FormatError::Unsupported`] for what is packed already, is no adapter, or has no matrix; as [`TensorBag::open`].
pub fn pack(files: &dyn Files, spec: &ModelSpec, options: &Options) -> Result<(Vec<u8>, Report)> {
    let names = files.names();
    if let [name] = names.as_slice()
        && About::of(name, &files.read(name, ADAPTER)?)?.is_some()
    {
        return Err(unsupported(
            name,
            "it is packed already: unpack it first, or pack the folder that it was made from",
        ));
    }
    if names.iter().any(|n| n == hub::WORDS) {
        return Err(unsupported(
            hub::WORDS,
            "an adapter with words of its own is larger than its file could be: keep the folder",
        ));
    }
    let vector = match names.as_slice() {
        [name] => language::metadata(name, &files.read(name, ADAPTER)?),
        _ => None,
    };
    let diff = if vector.is_none() { diffs::bag(files, &names)? } else { None };
    if vector.is_none() && diff.is_none() && !names.iter().any(|n| n == TEXTS[0]) {
        return Err(crate::source::missing(TEXTS[0], &names));
    }
    let mut writing = Writing { options, parts: Parts::default(), report: Report::default() };
    let (mut texts, mut tensors) = (BTreeMap::new(), BTreeMap::new());
    if let Some(text) = vector {
        let mut bag = TensorBag::open(&names[0], files.read(&names[0], ADAPTER)?)?;
        tensors.insert(language::PACKED_FILE.to_owned(), writing.file(&mut bag, &|_| Kind::Vector)?);
        texts.insert(language::PACKED_TEXT.to_owned(), text);
    } else if let Some(mut bag) = diff {
        let rows = writing.file(&mut bag, &|name| diffs::kind(name))?;
        tensors.insert(sparse::FILE.to_owned(), rows);
    } else {
        folder(files, &names, &mut writing, &mut texts, &mut tensors)?;
    }
    let Writing { parts, report, .. } = writing;
    if report.packed.is_empty() && options.bits != 16 {
        return Err(unsupported(
            TEXTS[0],
            "there is nothing to pack: it has no matrix of its own (vectors and heads stay as they are; --heads packs heads)",
        ));
    }
    let about = About {
        format: FORMAT,
        kind: KIND.into(),
        base: Some(spec.fingerprint.name.clone()).filter(|n| !n.is_empty()),
        lineage: spec.fingerprint.lineage.clone(),
        bits: options.bits,
        group: match options.group {
            Group::Tensor => 0,
            Group::Row => 1,
            Group::Block(n) => n,
        },
        levels: if options.bits < 8 { levels(options.bits, options.book) } else { Vec::new() },
        texts,
        tensors,
    };
    let text = serde_json::to_string(&about).unwrap_or_default();
    let bytes = whole("output", parts.entries(), &BTreeMap::from([(KEY.to_owned(), text)]))?;
    Ok((bytes, report))
}

/// Packs a folder of PEFT's or AdapterHub's.
fn folder(
    files: &dyn Files,
    names: &[String],
    writing: &mut Writing<'_>,
    texts: &mut BTreeMap<String, Value>,
    tensors: &mut BTreeMap<String, Vec<Row>>,
) -> Result<()> {
    let config = Json::parse(TEXTS[0], &files.read(TEXTS[0], SMALL)?)?;
    let markers = marked(&config);
    for name in TEXTS.into_iter().filter(|t| names.iter().any(|n| n == t)) {
        let bytes = files.read(name, SMALL)?;
        let mut text: Value = serde_json::from_slice(&bytes).map_err(|e| crate::json::problem(name, &bytes, &e))?;
        if let Some(entries) = text.as_object_mut().filter(|_| markers.is_some()) {
            // To PEFT an entry that is null is one that is not there.
            entries.retain(|_, v| !v.is_null());
        }
        texts.insert(name.to_owned(), text);
    }
    let packing = family(&config).map(|f| f.packing);
    for (found, written) in TENSOR_FILES {
        if names.iter().any(|n| n == found) && !tensors.contains_key(written) {
            let mut bag = TensorBag::open(found, files.read(found, ADAPTER)?)?;
            // Prompts have no marker; what stands beside them is a module of the base.
            let own = |tensor: &str| match markers {
                None => written != HEAD,
                Some([]) => !tensor.starts_with("base_model."),
                Some(markers) => markers.iter().any(|m| tensor.contains(m)),
            };
            let ends = |tensor: &str, ends: &[&str]| ends.iter().any(|end| tensor.ends_with(end));
            let kind = |tensor: &str| match packing {
                _ if !own(tensor) => Kind::Rest,
                Some(p) if ends(tensor, p.places) => Kind::Places,
                Some(p) if ends(tensor, p.vectors) => Kind::Vector,
                Some(Packing { mask: Some((end, entry, default)), .. }) if tensor.ends_with(end) => {
                    #[allow(clippy::cast_possible_truncation, reason = "compared with f32")]
                    let given = config.get(entry).and_then(Json::number).map(|x| x as f32);
                    Kind::Mask(given.unwrap_or(default))
                }
                _ => Kind::Matrix,
            };
            tensors.insert(written.to_owned(), writing.file(&mut bag, &kind)?);
        }
    }
    Ok(())
}

/// What a tensor is to packing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// A matrix of the method, if it has the shape of one.
    Matrix,
    /// A vector that is coded as a matrix of one row.
    Vector,
    /// Whole numbers, whatever their type.
    Places,
    /// A bit each: whether it is above this.
    Mask(f32),
    /// A head, or a module that is saved whole.
    Rest,
}

/// The row of the method, if it is PEFT's.
fn family(config: &Json) -> Option<&'static Family> {
    if hub::claims(config) {
        return None;
    }
    config.get("peft_type").and_then(Json::text).and_then(peft::family)
}

/// The parts of tensors' names by which a method of PEFT knows its own; `None` for AdapterHub, whose files have no others.
fn marked(config: &Json) -> Option<&'static [&'static str]> {
    if hub::claims(config) {
        return None;
    }
    Some(family(config).map_or(&[], |f| f.markers))
}

fn unsupported(file: &str, why: &str) -> FormatError {
    FormatError::Unsupported { file: file.into(), why: why.into() }
}

/// The bytes of the packed file's tensors.
#[derive(Default)]
struct Parts {
    codes: Vec<u8>,
    stats: Vec<f32>,
    halves: Vec<u16>,
    floats: Vec<f32>,
    whole: Vec<u8>,
}

impl Parts {
    fn entries(self) -> Vec<(Entry, Vec<u8>)> {
        let entry = |name: &str, dtype, n: usize| Entry { name: name.into(), dtype, shape: vec![n] };
        let all = [
            (entry(CODES, Dtype::U8, self.codes.len()), self.codes),
            (entry(STATS, Dtype::F32, self.stats.len()), numbers::f32_bytes(&self.stats)),
            (entry(HALVES, Dtype::F16, self.halves.len()), numbers::half_bytes(&self.halves)),
            (entry(FLOATS, Dtype::F32, self.floats.len()), numbers::f32_bytes(&self.floats)),
            (entry(WHOLE, Dtype::U8, self.whole.len()), self.whole),
        ];
        all.into_iter().filter(|(e, _)| e.shape != [0]).collect()
    }
}

struct Writing<'a> {
    options: &'a Options,
    parts: Parts,
    report: Report,
}

impl Writing<'_> {
    /// The index of one of the folder's files; `kind` says what a tensor is by its name.
    fn file(&mut self, bag: &mut TensorBag, kind: &dyn Fn(&str) -> Kind) -> Result<Vec<Row>> {
        let names: Vec<String> = bag.names().map(str::to_owned).collect();
        // A tensor that stands under several names is stored once.
        let same: Vec<Option<usize>> =
            names.iter().enumerate().map(|(i, n)| (0..i).find(|j| bag.same(&names[*j], n))).collect();
        let mut rows: Vec<Row> = Vec::with_capacity(names.len());
        for (i, name) in names.iter().enumerate() {
            let before = if i == 0 { "" } else { names[i - 1].as_str() };
            let shared = before.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
            let shared = (0..=shared).rev().find(|n| name.is_char_boundary(*n)).unwrap_or(0);
            let shape = bag.shape(name).unwrap_or_default().to_vec();
            let place = match same[i] {
                Some(of) => SAME + of,
                None => self.tensor(bag, name, &shape, kind(name))?,
            };
            if same[i].is_some() {
                bag.ignore(name);
            }
            rows.push((shared, name[shared..].to_owned(), shape, place));
        }
        Ok(rows)
    }

    fn tensor(&mut self, bag: &mut TensorBag, name: &str, shape: &[usize], kind: Kind) -> Result<usize> {
        if !bag.is_float(name) {
            self.report.left.push(name.to_owned());
            varint::write(&bag.take_ints(name, shape)?.unwrap_or_default(), &mut self.parts.whole);
            return Ok(IN_WHOLE);
        }
        let values = bag.take(name, shape)?.unwrap_or_default();
        if kind == Kind::Places && values.iter().all(|x| x.fract() == 0.0 && x.abs() < 2f32.powi(24)) {
            self.report.left.push(name.to_owned());
            #[allow(clippy::cast_possible_truncation, reason = "they are whole")]
            let places: Vec<i64> = values.iter().map(|x| *x as i64).collect();
            varint::write(&places, &mut self.parts.whole);
            return Ok(IN_WHOLE);
        }
        let whole = sides(shape).filter(|(rows, cols)| rows * cols > 1);
        if let (Kind::Mask(above), Some(sides)) = (kind, whole) {
            let mask = Codes::mask(sides, values.iter().map(|x| *x > above));
            self.report.packed.push(Packed { name: name.to_owned(), shape: shape.to_vec(), error: 0.0 });
            self.parts.codes.extend_from_slice(mask.data());
            return Ok(IN_MASK);
        }
        let matrix = match kind {
            Kind::Vector => whole.is_some(),
            Kind::Rest if !self.options.heads => false,
            _ => shape.iter().filter(|n| **n > 1).count() >= 2,
        };
        if let Some((rows, cols)) = sides(shape).filter(|_| matrix && self.options.bits != 16) {
            let o = self.options;
            let codes = Codes::encode((rows, cols), &values, o.bits, o.group, o.book)
                .ok_or_else(|| unsupported(name, &format!("{} bits are none of 1, 2, 4, 8, 16", o.bits)))?;
            self.report.packed.push(Packed {
                name: name.to_owned(),
                shape: shape.to_vec(),
                error: error(&codes, cols, &values),
            });
            self.parts.codes.extend_from_slice(codes.data());
            self.parts.stats.extend(codes.stats().as_flattened());
            return Ok(IN_CODES);
        }
        self.report.left.push(name.to_owned());
        let halves: Vec<u16> = values.iter().map(|x| half::f16::from_f32(*x).to_bits()).collect();
        // Numbers that half precision cannot hold stay whole.
        let fit = halves.iter().all(|h| half::f16::from_bits(*h).is_finite());
        if self.options.floats || !fit {
            self.parts.floats.extend(values);
            return Ok(IN_FLOATS);
        }
        self.parts.halves.extend(halves);
        Ok(IN_HALVES)
    }
}

/// `‖decoded − values‖ / ‖values‖`.
fn error(codes: &Codes, cols: usize, values: &[f32]) -> f64 {
    let mut row = vec![0.0; cols];
    let (mut off, mut all) = (0.0f64, 0.0f64);
    for (r, values) in values.chunks(cols.max(1)).enumerate() {
        codes.decode_row(r, &mut row[..values.len()]);
        off += row.iter().zip(values).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
        all += values.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>();
    }
    if all > 0.0 { (off / all).sqrt() } else { 0.0 }
}

/// The folder of a packed file, every number in 32 bits, as the library loads it.
///
/// # Errors
/// [`FormatError::NotAModel`] for what is not packed; as [`super::load`].
pub fn unpack(file: &str, bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let Some(about) = About::of(file, bytes)? else {
        return Err(FormatError::NotAModel { why: format!("{} is not a packed adapter", shown(file)) });
    };
    if let Some(text) = about.texts.get(language::PACKED_TEXT) {
        let bag = TensorBag::open(language::PACKED_FILE, bytes.to_vec())?;
        let mut vector = language::read(file, bag, &text.to_string(), false)?;
        vector.base = BaseClaim { name: about.base, lineage: about.lineage };
        return Ok(vec![(language::PACKED_FILE.to_owned(), language::write_language_vector(&vector)?)]);
    }
    let mut out: Vec<(String, Vec<u8>)> =
        about.texts.iter().map(|(name, text)| (name.clone(), format!("{text:#}\n").into_bytes())).collect();
    let folder = Folder { about, bytes };
    for name in folder.about.tensors.keys() {
        if name == sparse::FILE {
            out.push((name.clone(), diffs::unpack(name, bytes)?));
            continue;
        }
        let mut bag = TensorBag::open(name, folder.read(name, u64::MAX)?)?;
        let mut tensors = TensorFile::new();
        let names: Vec<String> = bag.names().map(str::to_owned).collect();
        for tensor in names {
            let shape = bag.shape(&tensor).unwrap_or_default().to_vec();
            if bag.is_float(&tensor) {
                tensors.add_f32(&tensor, &shape, bag.take(&tensor, &shape)?.unwrap_or_default());
            } else {
                tensors.add_i64(&tensor, &shape, &bag.take_ints(&tensor, &shape)?.unwrap_or_default());
            }
        }
        out.push((name.clone(), tensors.bytes()?));
    }
    Ok(out)
}
