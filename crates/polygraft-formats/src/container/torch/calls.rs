//! What a pickle may ask for: storages, the functions of the closed list, tensors, and state that changes nothing.

use super::global::{self, Global};
use super::heap::{Id, Storage, Tensor, Value, put};
use super::pickle::Machine;
use crate::container::Dtype;
use crate::error::{FormatError, Result, shown};

impl<'a> Machine<'a> {
    /// `("storage", type, key, device, elements[, view])`: a run of numbers kept outside the pickle.
    pub(super) fn persistent(&mut self, id: Value<'a>) -> Result<Value<'a>> {
        let parts = if let Value::Tuple(id) = id { self.heap.tuple(id) } else { &[] };
        let (kind, key, numel, view) = match *parts {
            [Value::Text("storage"), Value::Global(kind), Value::Text(key), Value::Text(_), Value::Int(n)] => {
                (kind, key, n, Value::None)
            }
            [Value::Text("storage"), Value::Global(kind), Value::Text(key), Value::Text(_), Value::Int(n), view] => {
                (kind, key, n, view)
            }
            _ => return Err(self.bad("the persistent id is not (\"storage\", type, key, device, elements)")),
        };
        let (dtype, untyped) = match kind {
            Global::Storage(dtype) => (dtype, false),
            Global::UntypedStorage => (Dtype::U8, true),
            _ => return Err(self.bad(format!("storage {:?} has no type of storage", shown(key)))),
        };
        if view != Value::None {
            return Err(self.bad(format!(
                "storage {:?} is a view of another; save the file again with a torch of 0.4 or later",
                shown(key)
            )));
        }
        let numel =
            u64::try_from(numel).map_err(|_| self.bad(format!("storage {:?} has {numel} elements", shown(key))))?;
        let storage = Storage { key, dtype, numel, untyped };
        if let Some(&id) = self.keys.get(key) {
            if self.heap.storages.get(id as usize) != Some(&storage) {
                return Err(self.bad(format!("storage {:?} is described twice, differently", shown(key))));
            }
            return Ok(Value::Storage(id));
        }
        self.room(0, 0)?;
        let id = put(&mut self.heap.storages, storage);
        self.keys.insert(key, id);
        Ok(Value::Storage(id))
    }

    /// One of the functions of the list, which all make a value out of values.
    pub(super) fn apply(&mut self, function: Global, args: Id) -> Result<Value<'a>> {
        let args = self.heap.tuple(args).to_vec();
        let strange = |m: &Self| m.bad(format!("{} does not take these arguments", function.name()));
        match (function, args.as_slice()) {
            (Global::OrderedDict, []) => {
                self.room(0, 0)?;
                Ok(Value::Dict(put(&mut self.heap.dicts, Vec::new())))
            }
            (Global::RebuildTensor, &[storage, offset, shape, strides]) => {
                self.tensor(storage, offset, shape, strides, None)
            }
            (Global::RebuildTensorV2, &[storage, offset, shape, strides, Value::Bool(_), hooks, ref metadata @ ..])
                if self.blank(hooks) && metadata.len() < 2 && metadata.iter().all(|m| self.blank(*m)) =>
            {
                self.tensor(storage, offset, shape, strides, None)
            }
            (
                Global::RebuildTensorV3,
                &[
                    storage,
                    offset,
                    shape,
                    strides,
                    Value::Bool(_),
                    hooks,
                    Value::Global(Global::Dtype(dtype)),
                    ref metadata @ ..,
                ],
            ) if self.blank(hooks) && metadata.len() < 2 && metadata.iter().all(|m| self.blank(*m)) => {
                self.tensor(storage, offset, shape, strides, Some(dtype))
            }
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), Value::Bool(_), hooks]) if self.blank(hooks) => {
                Ok(tensor)
            }
            (Global::Size, &[tuple @ Value::Tuple(_)]) => Ok(tuple),
            (Global::Device, [Value::Text(_)] | [Value::Text(_), Value::Int(_)]) => Ok(Value::Opaque),
            (Global::NumpyDtype, [Value::Text(letters), Value::Bool(false), Value::Bool(true)]) => {
                match global::numpy(letters) {
                    Some(dtype) => Ok(Value::NumpyType(dtype)),
                    None => Err(self.bad(format!("the numpy type {:?} is not read", shown(letters)))),
                }
            }
            (Global::NumpyScalar, [Value::NumpyType(dtype), bytes]) => {
                let whole = match bytes {
                    Value::Encoded(bytes, n) => bytes.get(..usize::from(*n)).and_then(|b| global::whole(*dtype, b)),
                    Value::Bytes(bytes) => global::whole(*dtype, bytes),
                    _ => None,
                };
                whole.map(Value::Int).ok_or_else(|| strange(self))
            }
            (Global::Encode, [Value::Text(text), Value::Text("latin1")]) => {
                let mut bytes = [0; 8];
                let n = text.chars().count();
                let fits = n <= 8
                    && text.chars().zip(&mut bytes).all(|(c, to)| u8::try_from(u32::from(c)).map(|b| *to = b).is_ok());
                let n = u8::try_from(n).ok().filter(|_| fits).ok_or_else(|| strange(self))?;
                Ok(Value::Encoded(bytes, n))
            }
            _ => Err(strange(self)),
        }
    }

    /// Nothing, or an empty dictionary.
    fn blank(&self, value: Value<'a>) -> bool {
        match value {
            Value::None => true,
            Value::Dict(id) => self.heap.dict(id).is_empty(),
            _ => false,
        }
    }

    fn tensor(
        &mut self,
        storage: Value<'a>,
        offset: Value<'a>,
        shape: Value<'a>,
        strides: Value<'a>,
        dtype: Option<Dtype>,
    ) -> Result<Value<'a>> {
        let (Value::Storage(id), Value::Int(offset), Value::Tuple(shape), Value::Tuple(strides)) =
            (storage, offset, shape, strides)
        else {
            return Err(self.bad("a tensor is not made of a storage, an offset, a shape and strides"));
        };
        let sizes = |id: Id| -> Option<Vec<usize>> {
            let each =
                |v: &Value<'_>| if let Value::Int(n) = v { u32::try_from(*n).ok().map(|n| n as usize) } else { None };
            self.heap.tuple(id).iter().map(each).collect()
        };
        let (shape, strides) = (sizes(shape), sizes(strides));
        let (Some(shape), Some(strides), Ok(offset)) = (shape, strides, u64::try_from(offset)) else {
            return Err(self.bad("a tensor's offset, shape or strides are negative, too large or not whole numbers"));
        };
        let Some(of) = self.heap.storages.get(id as usize) else { return Err(self.bad("a storage that is gone")) };
        let dtype = match (of.untyped, dtype) {
            (false, None) => of.dtype,
            (true, Some(dtype)) => dtype,
            _ => return Err(self.bad("a tensor's type is not its storage's")),
        };
        let tensor = Tensor { storage: id, dtype, offset, shape, strides };
        if let Some(why) = tensor.outside(of) {
            return Err(FormatError::Range {
                file: self.file.into(),
                why: format!(
                    "a tensor of storage {:?}, at byte {} of the pickle: {why}",
                    shown(of.key),
                    self.base + self.start
                ),
            });
        }
        self.room(0, 0)?;
        Ok(Value::Tensor(put(&mut self.heap.tensors, tensor)))
    }

    /// State that is given to a value after it was made.
    pub(super) fn build(&mut self, state: Value<'a>) -> Result<()> {
        match (self.top()?, state) {
            // `_metadata` of a module's state: versions of its layers.
            (Value::Dict(_), Value::Dict(_)) => Ok(()),
            (Value::NumpyType(_), Value::Tuple(id)) => match self.heap.tuple(id) {
                [Value::Int(_), Value::Text("<" | "|"), ..] => Ok(()),
                _ => Err(self.bad("a numpy type that is not little-endian")),
            },
            _ => Err(self.bad("gives a state to something that has none")),
        }
    }
}
