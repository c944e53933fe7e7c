//! The globals that a pickle may name: a closed list, each with one fixed meaning in the machine.

use crate::container::Dtype;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildTensorV3,
    RebuildParameter,
    Size,
    Device,
    /// A typed storage.
    Storage(Dtype),
    UntypedStorage,
    /// `torch.float32` and the like.
    Dtype(Dtype),
    NumpyScalar,
    NumpyDtype,
    Encode,
}

impl Global {
    /// What messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OrderedDict => "collections.OrderedDict",
            Self::RebuildTensor => "torch._utils._rebuild_tensor",
            Self::RebuildTensorV2 => "torch._utils._rebuild_tensor_v2",
            Self::RebuildTensorV3 => "torch._utils._rebuild_tensor_v3",
            Self::RebuildParameter => "torch._utils._rebuild_parameter",
            Self::Size => "torch.Size",
            Self::Device => "torch.device",
            Self::Storage(_) => "a storage",
            Self::UntypedStorage => "torch.storage.UntypedStorage",
            Self::Dtype(_) => "a dtype",
            Self::NumpyScalar => "numpy's scalar",
            Self::NumpyDtype => "numpy.dtype",
            Self::Encode => "_codecs.encode",
        }
    }
}

/// Storages and dtypes of torch: `torch.<storage>`, `torch.<dtype>`.
const TYPES: &[(&str, &str, Dtype)] = &[
    ("FloatStorage", "float32", Dtype::F32),
    ("HalfStorage", "float16", Dtype::F16),
    ("BFloat16Storage", "bfloat16", Dtype::Bf16),
    ("DoubleStorage", "float64", Dtype::F64),
    ("LongStorage", "int64", Dtype::I64),
    ("IntStorage", "int32", Dtype::I32),
    ("ShortStorage", "int16", Dtype::I16),
    ("CharStorage", "int8", Dtype::I8),
    ("ByteStorage", "uint8", Dtype::U8),
    ("BoolStorage", "bool", Dtype::Bool),
    // These have no storage class of their own, only an untyped one.
    ("", "uint16", Dtype::U16),
    ("", "uint32", Dtype::U32),
    ("", "uint64", Dtype::U64),
    ("", "float8_e4m3fn", Dtype::F8E4M3),
    ("", "float8_e5m2", Dtype::F8E5M2),
];

/// The global `module.name`, if it is on the list.
pub(super) fn find(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensorV2,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Device,
        ("torch.storage", "UntypedStorage") => Global::UntypedStorage,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
        ("numpy", "dtype") => Global::NumpyDtype,
        ("_codecs", "encode") => Global::Encode,
        ("torch", name) if !name.is_empty() => {
            let (storage, _, dtype) = TYPES.iter().find(|(s, d, _)| *s == name || *d == name)?;
            if *storage == name { Global::Storage(*dtype) } else { Global::Dtype(*dtype) }
        }
        _ => return None,
    })
}

/// numpy's letters for whole numbers.
pub(super) fn numpy(letters: &str) -> Option<Dtype> {
    Some(match letters {
        "i8" => Dtype::I64,
        "i4" => Dtype::I32,
        "i2" => Dtype::I16,
        "u1" => Dtype::U8,
        _ => return None,
    })
}

/// The whole number that `bytes` are, little-endian.
pub(super) fn whole(dtype: Dtype, bytes: &[u8]) -> Option<i64> {
    match dtype {
        Dtype::I64 => bytes.try_into().ok().map(i64::from_le_bytes),
        Dtype::I32 => bytes.try_into().ok().map(i32::from_le_bytes).map(i64::from),
        Dtype::I16 => bytes.try_into().ok().map(i16::from_le_bytes).map(i64::from),
        Dtype::U8 => bytes.try_into().ok().map(u8::from_le_bytes).map(i64::from),
        _ => None,
    }
}
