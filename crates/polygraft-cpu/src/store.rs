//! What the backend holds between calls: the base's weights, and packed copies of the adapters' matrices.

use crate::failed;
use crate::kernels::Isa;
use crate::pack::Packed;
use polygraft::Result;
use polygraft::ir::{Op, Payload, PayloadId};
use polygraft::model::WeightId;
use polygraft::steps::Factor;
use polygraft::tensor::{Matrix, Storage};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// A weight as it is held.
#[derive(Debug)]
pub(crate) enum Held {
    /// As it came: vectors and tables that are read row by row.
    Rows(Matrix),
    /// In panels: weights of linear layers.
    Panels(Packed),
}

/// The matrices of a payload, in panels. Vectors are read from the payload itself.
#[derive(Debug)]
pub(crate) enum Own {
    /// Both factors.
    LowRank { a: Packed, b: Packed },
    /// The weight of a replaced linear layer, when it has one.
    Linear(Option<Packed>),
    /// The layers of an op that runs its own.
    Factors(Vec<(Factor, Packed)>),
    /// Vectors only.
    Vectors,
}

impl Own {
    fn new(isa: Isa, op: &Op) -> Self {
        let pack = |matrix: &Matrix| Packed::new(isa, matrix);
        match op {
            Op::LowRank(lora) => Self::LowRank { a: pack(&lora.a), b: pack(&lora.b) },
            Op::ReplaceLinear(dense) => Self::Linear(dense.weight.as_ref().map(pack)),
            Op::Bottleneck(_) | Op::Fusion(_) | Op::Coupling(_) => {
                let all = [Factor::Down, Factor::Up, Factor::Query, Factor::Key, Factor::Value];
                let packed = |f: Factor| polygraft::steps::factor(op, f).map(|(matrix, _)| (f, pack(matrix)));
                Self::Factors(all.into_iter().filter_map(packed).collect())
            }
            Op::Offset(_) | Op::ReplaceNorm(_) | Op::Reweight(_) => Self::Vectors,
            Op::Blend(_) | Op::Reft(_) | Op::MixedLowRank(_) => Self::Vectors,
            Op::Rewording(_) | Op::Prompt(_) | Op::Prefix(_) => Self::Vectors,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::LowRank { a, b } => a.bytes() + b.bytes(),
            Self::Linear(weight) => weight.as_ref().map_or(0, Packed::bytes),
            Self::Factors(list) => list.iter().map(|(_, packed)| packed.bytes()).sum(),
            Self::Vectors => 0,
        }
    }
}

/// Weights and packed payloads.
#[derive(Debug)]
pub(crate) struct Store {
    /// What they are packed for.
    isa: Isa,
    weights: Vec<Option<Held>>,
    payloads: HashMap<PayloadId, Arc<Own>>,
}

impl Store {
    /// Without weights, for the kernels of `isa`.
    pub(crate) fn new(isa: Isa) -> Self {
        Self { isa, weights: Vec::new(), payloads: HashMap::new() }
    }

    pub(crate) fn load(&mut self, id: WeightId, matrix: Matrix) {
        let index = id.0 as usize;
        if self.weights.len() <= index {
            self.weights.resize_with(index + 1, || None);
        }
        self.weights[index] = Some(Held::Rows(matrix));
    }

    /// Brings weight `id` into panels, in place of the form it came in.
    pub(crate) fn pack(&mut self, id: WeightId) -> Result<()> {
        if let Held::Rows(matrix) = self.held(id)? {
            self.weights[id.0 as usize] = Some(Held::Panels(Packed::new(self.isa, matrix)));
        }
        Ok(())
    }

    pub(crate) fn held(&self, id: WeightId) -> Result<&Held> {
        self.weights
            .get(id.0 as usize)
            .and_then(Option::as_ref)
            .ok_or_else(|| failed(format!("weight {} was never loaded", id.0)))
    }

    pub(crate) fn panels(&self, id: WeightId) -> Result<&Packed> {
        match self.held(id)? {
            Held::Panels(packed) => Ok(packed),
            Held::Rows(_) => Err(failed(format!("weight {} is not packed", id.0))),
        }
    }

    /// Weight `id` as it came.
    pub(crate) fn matrix(&self, id: WeightId) -> Result<Cow<'_, Matrix>> {
        match self.held(id)? {
            Held::Rows(matrix) => Ok(Cow::Borrowed(matrix)),
            Held::Panels(packed) => {
                let matrix = packed.unpack().ok_or_else(|| failed(format!("weight {} cannot be unpacked", id.0)))?;
                Ok(Cow::Owned(matrix))
            }
        }
    }

    /// Row `row` of weight `id`, in `out`.
    pub(crate) fn row(&self, id: WeightId, row: usize, out: &mut [f32]) -> Result<()> {
        match self.held(id)? {
            Held::Rows(matrix) => matrix.decode_row(row, out),
            Held::Panels(packed) => packed.decode_row(row, out),
        }
        Ok(())
    }

    /// Weight `id` as a vector of `width`.
    pub(crate) fn vector(&self, id: WeightId, width: usize) -> Result<Cow<'_, [f32]>> {
        if let Held::Rows(matrix) = self.held(id)?
            && let Storage::F32(values) = matrix.storage()
            && values.len() == width
        {
            return Ok(Cow::Borrowed(values));
        }
        let mut out = vec![0.0; width];
        self.row(id, 0, &mut out)?;
        Ok(Cow::Owned(out))
    }

    /// The packed matrices of `payload`, kept until [`Store::forget`] where they are more than what the payload has itself:
    /// codes are read as they are.
    pub(crate) fn own(&mut self, payload: &Payload) -> Arc<Own> {
        if let Some(own) = self.payloads.get(&payload.id) {
            return own.clone();
        }
        let own = Arc::new(Own::new(self.isa, &payload.op));
        if own.bytes() > 0 {
            self.payloads.insert(payload.id, own.clone());
        }
        own
    }

    pub(crate) fn forget(&mut self, id: PayloadId) {
        self.payloads.remove(&id);
    }

    /// Bytes of the packed matrices of payload `id`, and of what holds them.
    pub(crate) fn payload_bytes(&self, id: PayloadId) -> usize {
        let entry = size_of::<(PayloadId, Arc<Own>)>() + size_of::<Own>();
        self.payloads.get(&id).map_or(0, |own| entry + own.bytes())
    }

    pub(crate) fn bytes(&self) -> usize {
        let weights = self.weights.iter().flatten().map(|held| match held {
            Held::Rows(matrix) => matrix.bytes(),
            Held::Panels(packed) => packed.bytes(),
        });
        weights.sum::<usize>() + self.payloads.values().map(|own| own.bytes()).sum::<usize>()
    }
}
