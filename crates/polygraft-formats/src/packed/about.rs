//! What a packed file says about itself, and its tensors by their names.

use super::{bad, varint};
use crate::container::{Dtype, Header};
use crate::error::{FormatError, Result, shown};
use crate::json::Json;
use polygraft::quant::codes::{self, Book, Codes, Group, Shelf};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The metadata's key.
pub(super) const KEY: &str = "polygraft";
/// What the file is.
pub(super) const KIND: &str = "packed-adapter";
/// The format that this version writes and reads.
pub(super) const FORMAT: u32 = 1;
/// The file's tensors.
pub(super) const CODES: &str = "codes";
pub(super) const STATS: &str = "stats";
pub(super) const HALVES: &str = "halves";
pub(super) const FLOATS: &str = "floats";
pub(super) const WHOLE: &str = "whole";

/// A tensor: characters of its name shared with the one before, the rest of the name, its shape, where its numbers are.
pub(super) type Row = (usize, String, Vec<usize>, usize);

/// Places of a [`Row`]: in codes, f16, f32, whole numbers, bits of a mask; above, the numbers of row `place − SAME`.
pub(super) const IN_CODES: usize = 0;
pub(super) const IN_HALVES: usize = 1;
pub(super) const IN_FLOATS: usize = 2;
pub(super) const IN_WHOLE: usize = 3;
pub(super) const IN_MASK: usize = 4;
pub(super) const SAME: usize = 5;

/// The metadata.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    pub(super) format: u32,
    pub(super) kind: String,
    /// The base's name and the digest of its weights.
    pub(super) base: Option<String>,
    pub(super) lineage: Option<String>,
    pub(super) bits: u8,
    /// 0: a matrix shares its statistics; 1: an output; N: so many of an output.
    pub(super) group: u16,
    /// The codebook, lowest first; none for 8 bits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) levels: Vec<f32>,
    /// The folder's configurations by file.
    pub(super) texts: BTreeMap<String, Value>,
    /// The folder's tensors by file.
    pub(super) tensors: BTreeMap<String, Vec<Row>>,
}

/// Where a tensor's numbers are in a packed file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stored {
    /// As they are, at a byte.
    Plain { dtype: Dtype, offset: usize },
    /// In codes.
    Codes(Codes),
    /// Whole numbers.
    Whole(Vec<i64>),
}

impl About {
    /// Reads it; `None` for a safetensors file of another kind, or what is none.
    ///
    /// # Errors
    /// [`FormatError::Json`], [`FormatError::Unsupported`].
    pub(super) fn of(file: &str, bytes: &[u8]) -> Result<Option<Self>> {
        let Ok(header) = Header::parse(file, bytes, Some(bytes.len() as u64)) else { return Ok(None) };
        Self::in_header(file, &header)
    }

    fn in_header(file: &str, header: &Header) -> Result<Option<Self>> {
        let Some(text) = header.metadata.get(KEY) else { return Ok(None) };
        let json = Json::parse(file, text.as_bytes())?;
        if json.get("kind").and_then(Json::text) != Some(KIND) {
            return Ok(None);
        }
        if let Some(other) = json.get("format").filter(|f| f.whole() != Some(FORMAT as usize)) {
            let why =
                format!("a packed adapter of format {}; this version reads {FORMAT}: update polygraft", other.brief());
            return Err(FormatError::Unsupported { file: file.into(), why });
        }
        serde_json::from_str(text).map(Some).map_err(|e| crate::json::problem(file, text.as_bytes(), &e))
    }

    pub(super) fn group(&self) -> Group {
        match self.group {
            0 => Group::Tensor,
            1 => Group::Row,
            n => Group::Block(n),
        }
    }
}

/// Outputs and inputs of a tensor that is coded.
pub(super) fn sides(shape: &[usize]) -> Option<(usize, usize)> {
    let (cols, rows) = shape.split_last()?;
    Some((rows.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?, *cols))
}

/// Tensors by name, with their shapes.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Stored)>;

/// The tensors that the packed file has for the folder's file `file`, with their shapes; `None` when it is no packed
/// file. Everything in the file must be of some tensor.
///
/// # Errors
/// As [`super::load`].
pub(crate) fn contents(file: &str, header: &Header, data: &[u8]) -> Result<Option<Tensors>> {
    let Some(about) = About::in_header(file, header)? else { return Ok(None) };
    let part = |name: &str, dtype: Dtype| -> Result<(usize, usize)> {
        let Some(t) = header.tensors.iter().find(|t| t.name == name) else { return Ok((0, 0)) };
        if t.dtype != dtype {
            return Err(bad(file, format!("{name} is {}, not {}", t.dtype.name(), dtype.name())));
        }
        let len = t.shape.iter().product::<usize>() * usize::try_from(dtype.size()).unwrap_or(1);
        Ok((usize::try_from(t.offset).unwrap_or(usize::MAX), len))
    };
    let known = [CODES, STATS, HALVES, FLOATS, WHOLE];
    if let Some(other) = header.tensors.iter().find(|t| !known.contains(&t.name.as_str())) {
        return Err(bad(file, format!("it has no tensor {:?}", shown(&other.name))));
    }
    let (codes, stats) = (part(CODES, Dtype::U8)?, part(STATS, Dtype::F32)?);
    let of = |(at, len): (usize, usize)| data.get(at..at.saturating_add(len)).unwrap_or_default();
    let numbers: Vec<f32> = crate::numbers::floats(Dtype::F32, of(stats)).unwrap_or_default();
    let shelf = Shelf {
        bits: about.bits,
        group: about.group(),
        data: of(codes).into(),
        stats: numbers.as_chunks().0.into(),
        levels: levels(file, &about)?.into(),
    };
    let mut walk = Walk {
        file,
        data,
        shelf: Arc::new(shelf),
        codes: (0, codes.1),
        stats: (0, stats.1),
        plain: [part(HALVES, Dtype::F16)?, part(FLOATS, Dtype::F32)?],
        whole: part(WHOLE, Dtype::U8)?,
    };
    let mut wanted = BTreeMap::new();
    for (name, rows) in &about.tensors {
        let tensors = walk.tensors(rows)?;
        if name == file {
            for (tensor, shape, stored) in tensors {
                if wanted.insert(tensor.clone(), (shape, stored)).is_some() {
                    return Err(FormatError::Duplicate { file: file.into(), name: shown(&tensor) });
                }
            }
        }
    }
    walk.finish()?;
    Ok(Some(wanted))
}

fn levels(file: &str, about: &About) -> Result<Vec<f32>> {
    let levels = if about.bits == 8 { codes::levels(8, Book::Median) } else { about.levels.clone() };
    let wanted = match about.bits {
        1 | 2 | 4 | 8 => 1 << about.bits,
        16 => 0,
        other => return Err(bad(file, format!("{other} bits are none of 1, 2, 4, 8, 16"))),
    };
    if levels.len() != wanted || levels.iter().any(|l| !l.is_finite()) {
        return Err(bad(file, format!("{} levels for {} bits, or one that is not finite", levels.len(), about.bits)));
    }
    Ok(levels)
}

/// What is left of each part of the file: offset (of codes and statistics, on the shelf that holds all of them) and bytes.
struct Walk<'a> {
    file: &'a str,
    data: &'a [u8],
    shelf: Arc<Shelf>,
    codes: (usize, usize),
    stats: (usize, usize),
    plain: [(usize, usize); 2],
    whole: (usize, usize),
}

type Named = (String, Vec<usize>, Stored);

impl Walk<'_> {
    fn tensors(&mut self, rows: &[Row]) -> Result<Vec<Named>> {
        let mut out: Vec<Named> = Vec::with_capacity(rows.len());
        for (shared, rest, shape, place) in rows {
            let before = out.last().map_or("", |(name, ..)| name);
            let Some(start) = before.get(..*shared) else {
                return Err(bad(self.file, format!("a name begins with {shared} characters of {:?}", shown(before))));
            };
            let name = format!("{start}{rest}");
            let stored = match *place {
                IN_CODES => Stored::Codes(self.coded(&name, shape)?),
                IN_HALVES => self.plain(&name, shape, Dtype::F16, 0)?,
                IN_FLOATS => self.plain(&name, shape, Dtype::F32, 1)?,
                IN_WHOLE => self.numbers(&name, shape)?,
                IN_MASK => self.bits(&name, shape)?,
                same => {
                    let of = out.get(same - SAME).filter(|(_, s, _)| s == shape).map(|(_, _, stored)| stored.clone());
                    of.ok_or_else(|| bad(self.file, format!("{:?} is the same as no tensor before it", shown(&name))))?
                }
            };
            out.push((name, shape.clone(), stored));
        }
        Ok(out)
    }

    /// The next `len` bytes of a part.
    fn next(&self, part: (usize, usize), len: usize, name: &str) -> Result<(usize, (usize, usize))> {
        if len > part.1 {
            let why = format!("{:?} needs {len} bytes of a part that has {} left: it is cut off", shown(name), part.1);
            return Err(bad(self.file, why));
        }
        Ok((part.0, (part.0 + len, part.1 - len)))
    }

    fn plain(&mut self, name: &str, shape: &[usize], dtype: Dtype, which: usize) -> Result<Stored> {
        let numel = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let len = numel.and_then(|n| n.checked_mul(usize::try_from(dtype.size()).ok()?));
        let (offset, left) = self.next(self.plain[which], len.unwrap_or(usize::MAX), name)?;
        self.plain[which] = left;
        Ok(Stored::Plain { dtype, offset })
    }

    fn coded(&mut self, name: &str, shape: &[usize]) -> Result<Codes> {
        let (bits, group) = (self.shelf.bits, self.shelf.group);
        let (rows, cols) = self.sides(name, shape)?;
        if self.shelf.levels.len() != 1 << (bits & 15) {
            return Err(self.shapeless(name));
        }
        let first = self.code(name, (rows, cols), bits)?.start;
        let count = group.count(rows, cols);
        let (at, left) = self.next(self.stats, count.saturating_mul(8), name)?;
        let numbers = self.shelf.stats[at / 8..left.0 / 8].as_flattened();
        if let Some(index) = numbers.iter().position(|x| !x.is_finite()) {
            return Err(FormatError::NotFinite { file: self.file.into(), tensor: shown(name), index });
        }
        self.stats = left;
        Codes::on(&self.shelf, (first, at / 8), (rows, cols)).ok_or_else(|| self.shapeless(name))
    }

    /// A mask: its bits are its numbers.
    fn bits(&mut self, name: &str, shape: &[usize]) -> Result<Stored> {
        let sides = self.sides(name, shape)?;
        let place = self.code(name, sides, 1)?;
        let bits = self.shelf.data[place].iter().flat_map(|byte| (0..8).map(move |i| byte >> i & 1 == 1));
        Ok(Stored::Codes(Codes::mask(sides, bits)))
    }

    /// Where the next codes are, of a matrix of `rows × cols`.
    fn code(&mut self, name: &str, (rows, cols): (usize, usize), bits: u8) -> Result<Range<usize>> {
        let numel = rows.checked_mul(cols).ok_or_else(|| self.shapeless(name))?;
        let (at, left) = self.next(self.codes, codes::bytes(numel, bits), name)?;
        let data = &self.shelf.data[at..left.0];
        let used = numel * usize::from(bits) % 8;
        if used != 0 && data.last().is_some_and(|last| last >> used != 0) {
            return Err(bad(self.file, format!("{:?} has bits past its last code", shown(name))));
        }
        self.codes = left;
        Ok(at..left.0)
    }

    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Stored> {
        let numel = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(|| self.shapeless(name))?;
        let (at, len) = self.whole;
        let read = varint::read(&self.data[at..at + len], numel);
        let (values, used) = read.map_err(|why| bad(self.file, format!("{:?} {why}", shown(name))))?;
        self.whole = (at + used, len - used);
        Ok(Stored::Whole(values))
    }

    fn sides(&self, name: &str, shape: &[usize]) -> Result<(usize, usize)> {
        sides(shape).ok_or_else(|| self.shapeless(name))
    }

    fn shapeless(&self, name: &str) -> FormatError {
        bad(self.file, format!("{:?} has no shape that codes can have", shown(name)))
    }

    fn finish(&self) -> Result<()> {
        let left = self.codes.1 + self.stats.1 + self.whole.1 + self.plain.iter().map(|p| p.1).sum::<usize>();
        if left > 0 {
            return Err(bad(self.file, format!("{left} bytes belong to no tensor: its lengths lie")));
        }
        Ok(())
    }
}
