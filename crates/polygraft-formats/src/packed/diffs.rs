//! Sparse fine-tunings (LT-SFT) as tensors: for each difference its shape, its places and its values, and the parameters that
//! stand for the base's. The places of a parameter are in ascending order, so that most of them take one byte.

use super::pack::Kind;
use crate::bag::TensorBag;
use crate::container::Header;
use crate::container::torch::{self, Diff, Diffs, Saved};
use crate::error::{FormatError, Result, shown};
use crate::source::{ADAPTER, Files};
use crate::sparse::{self, Contents};

const DIFFS: &str = "diffs.";
const ABS: &str = "abs.";
const SIZE: &str = ".size";
const PLACES: &str = ".places";
const VALUES: &str = ".values";

/// What a tensor is to packing.
pub(super) fn kind(name: &str) -> Kind {
    if name.starts_with(ABS) {
        return Kind::Rest;
    }
    if name.ends_with(VALUES) { Kind::Vector } else { Kind::Places }
}

/// The tensors of the sparse fine-tuning in `files`; `None` when they are none.
///
/// # Errors
/// As [`torch::diffs`].
pub(super) fn bag(files: &dyn Files, names: &[String]) -> Result<Option<TensorBag>> {
    let Some(name) = names.iter().find(|n| *n == sparse::FILE) else { return Ok(None) };
    let data = files.read(name, ADAPTER)?;
    let Some(Diffs { diffs, abs }) = torch::diffs(name, &data)? else { return Ok(None) };
    let (mut views, mut numbers) = (Vec::new(), Vec::new());
    for Diff { name, size, places, values } in diffs {
        let whole = |values: Vec<u64>| -> Vec<i64> { values.into_iter().map(u64::cast_signed).collect() };
        views.push((format!("{DIFFS}{name}{VALUES}"), values));
        let size = size.into_iter().map(|n| n as u64).collect();
        numbers
            .extend([(SIZE, whole(size)), (PLACES, whole(places))].map(|(end, v)| (format!("{DIFFS}{name}{end}"), v)));
    }
    views.extend(abs.into_iter().map(|(name, view)| (format!("{ABS}{name}"), view)));
    let mut bag = TensorBag::of(name, data, views);
    numbers.into_iter().for_each(|(name, values)| bag.hold(name, values));
    Ok(Some(bag))
}

/// What a packed file has for [`sparse::FILE`]; `None` when it is no packed file.
///
/// # Errors
/// As [`super::load`]; [`FormatError::AdapterKeys`] for a difference that lacks a part.
pub(crate) fn read(file: &str, data: Vec<u8>) -> Result<Option<Contents>> {
    let header = Header::parse(file, &data, Some(data.len() as u64))?;
    if super::contents(file, &header, &data)?.is_none() {
        return Ok(None);
    }
    let mut bag = TensorBag::open(file, data)?;
    let parameters: Vec<String> =
        bag.names().filter_map(|n| n.strip_prefix(DIFFS)?.strip_suffix(VALUES)).map(str::to_owned).collect();
    let mut diffs = Vec::with_capacity(parameters.len());
    for name in parameters {
        let mut part = |end: &str| -> Result<Vec<u64>> {
            let tensor = format!("{DIFFS}{name}{end}");
            let shape = bag.shape(&tensor).unwrap_or_default().to_vec();
            let missing =
                || FormatError::AdapterKeys { file: file.into(), missing: vec![shown(&tensor)], extra: vec![] };
            let numbers = bag.take_ints(&tensor, &shape)?.ok_or_else(missing)?;
            let whole: std::result::Result<_, _> = numbers.into_iter().map(u64::try_from).collect();
            whole.map_err(|_| super::bad(file, format!("{:?} has a number below 0", shown(&tensor))))
        };
        let (size, places) = (part(SIZE)?, part(PLACES)?);
        if !places.is_sorted() {
            return Err(super::bad(file, format!("the places of {:?} are not in ascending order", shown(&name))));
        }
        let values: usize = bag.shape(&format!("{DIFFS}{name}{VALUES}")).unwrap_or_default().iter().product();
        if values != places.len() {
            let why = format!("{:?} has {} places and {values} values", shown(&name), places.len());
            return Err(super::bad(file, why));
        }
        let size = size.into_iter().map(|n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
        diffs.push(Diff { name, size, places, values: () });
    }
    let abs = bag.names().filter_map(|n| n.strip_prefix(ABS)).map(str::to_owned).collect();
    bag.rename(|name| {
        let inner = name.strip_prefix(DIFFS).and_then(|n| n.strip_suffix(VALUES));
        inner.or(name.strip_prefix(ABS)).unwrap_or(name).to_owned()
    })?;
    Ok(Some(Contents { diffs, abs, bag }))
}

/// The file as composable-sft writes it.
///
/// # Errors
/// As [`read`].
pub(super) fn unpack(file: &str, data: &[u8]) -> Result<Vec<u8>> {
    let Some(Contents { diffs, abs, mut bag }) = read(file, data.to_vec())? else {
        return Err(FormatError::NotAModel { why: format!("{} is not a packed adapter", shown(file)) });
    };
    let mut taken = |name: &str| -> Result<(Vec<usize>, Vec<f32>)> {
        let shape = bag.shape(name).unwrap_or_default().to_vec();
        Ok((shape.clone(), bag.take(name, &shape)?.unwrap_or_default()))
    };
    let mut out = Saved::default();
    for Diff { name, size, places, .. } in diffs {
        let values = taken(&name)?.1;
        out.diffs.push((Diff { name, size, places, values: () }, values));
    }
    for name in abs {
        let (shape, values) = taken(&name)?;
        out.abs.push((name, shape, values));
    }
    Ok(out.bytes())
}
