//! What a pickle's values are, and where those with parts lie.

use super::global::Global;
use crate::container::Dtype;

/// A value. What has parts is a number of [`Heap`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Eight bytes at most, made by `_codecs.encode`.
    Encoded([u8; 8], u8),
    Tuple(Id),
    List(Id),
    Dict(Id),
    Storage(Id),
    Tensor(Id),
    /// A numpy element type: letters such as `i8`.
    NumpyType(Dtype),
    /// Something that says nothing about numbers, such as a device.
    Opaque,
    Global(Global),
}

/// An index into the list of its kind.
pub(super) type Id = u32;

/// A run of stored numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: Dtype,
    /// Elements; bytes when `untyped`.
    pub(super) numel: u64,
    pub(super) untyped: bool,
}

/// A view of a storage, in its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) storage: Id,
    pub(super) dtype: Dtype,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A list: of small whole numbers while it holds nothing else, since a sparse fine-tuning has millions of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum List<'a> {
    Small(Vec<u32>),
    Any(Vec<Value<'a>>),
}

/// Everything that has parts.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    pub(super) tuples: Vec<Vec<Value<'a>>>,
    pub(super) lists: Vec<List<'a>>,
    pub(super) dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<Tensor>,
}

impl<'a> Heap<'a> {
    pub(super) fn objects(&self) -> usize {
        self.tuples.len() + self.lists.len() + self.dicts.len() + self.storages.len() + self.tensors.len()
    }

    pub(super) fn tuple(&self, id: Id) -> &[Value<'a>] {
        self.tuples.get(id as usize).map_or(&[], Vec::as_slice)
    }

    pub(super) fn dict(&self, id: Id) -> &[(Value<'a>, Value<'a>)] {
        self.dicts.get(id as usize).map_or(&[], Vec::as_slice)
    }
}

/// Adds to a heap's list and gives the index.
pub(super) fn put<T>(list: &mut Vec<T>, item: T) -> Id {
    list.push(item);
    // Far below 2³²: MAX_OBJECTS.
    u32::try_from(list.len() - 1).unwrap_or(u32::MAX)
}

impl Tensor {
    /// Elements.
    pub(super) fn numel(&self) -> u64 {
        self.shape.iter().fold(1, |n: u64, d| n.saturating_mul(*d as u64))
    }

    /// Why this is not a view of `storage`.
    pub(super) fn outside(&self, storage: &Storage<'_>) -> Option<String> {
        if self.shape.len() != self.strides.len() || self.shape.len() > crate::container::safetensors::MAX_DIMENSIONS {
            return Some(format!("{} dimensions and {} strides", self.shape.len(), self.strides.len()));
        }
        let have = if storage.untyped { storage.numel / self.dtype.size() } else { storage.numel };
        // A view that repeats elements could be larger than the file a million times over.
        if self.numel() > have {
            return Some(format!("its shape {:?} has more elements than the {have} that are stored", self.shape));
        }
        if self.numel() == 0 {
            return None;
        }
        let reach = self.shape.iter().zip(&self.strides).try_fold(self.offset, |at, (n, s)| {
            (*n as u64 - 1).checked_mul(*s as u64).and_then(|step| at.checked_add(step))
        });
        match reach {
            Some(last) if last < have => None,
            _ => Some(format!(
                "offset {}, shape {:?} and strides {:?} leave the {have} elements that are stored",
                self.offset, self.shape, self.strides
            )),
        }
    }
}
