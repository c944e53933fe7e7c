//! What is on the device between calls: the base's linear weights at their stored size, vectors, adapters' factors.

use crate::arena::{Arena, BINDING_LIMIT, Span};
use crate::buffers::Held;
use crate::device::Device;
use crate::failed;
use crate::layers::{Layers, Upload};
use crate::matrix::Placed;
use polygraft::Result;
use polygraft::ir::{Op, Payload, PayloadId};
use polygraft::model::WeightId;
use polygraft::quant::BLOCK;
use polygraft::tensor::{Matrix, Storage};
use std::collections::HashMap;
use std::sync::Arc;

/// How the codes of a weight are stored: the constant FORM of the shaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    F32 = 0,
    Q8 = 3,
    Q4 = 4,
}

/// Some outputs of a weight, few enough for one binding.
#[derive(Debug)]
pub(crate) struct Part {
    /// First output, in fours.
    pub(crate) column: u32,
    /// Outputs, in fours.
    pub(crate) columns: u32,
    pub(crate) codes: Held,
    /// `None` for floats.
    pub(crate) scales: Option<Held>,
}

/// The weight of a linear layer.
#[derive(Debug)]
pub(crate) struct Weight {
    pub(crate) form: Form,
    pub(crate) parts: Vec<Part>,
}

/// The numbers of a payload, as places in the arena.
#[derive(Debug)]
pub(crate) enum Own {
    LowRank { a: Placed, b: Placed, bias: Option<Span>, scale: f32 },
    Linear { weight: Option<Span>, bias: Option<Span> },
    Norm { gamma: Option<Span>, beta: Option<Span> },
    Offset(Span),
    Layers(Layers),
}

impl Own {
    fn spans(&self) -> Vec<Span> {
        match self {
            Self::LowRank { a, b, bias, .. } => a.spans().chain(b.spans()).chain(*bias).collect(),
            Self::Linear { weight: x, bias: y } | Self::Norm { gamma: x, beta: y } => {
                [*x, *y].into_iter().flatten().collect()
            }
            Self::Offset(vector) => vec![*vector],
            Self::Layers(layers) => layers.spans().collect(),
        }
    }

    /// Fours that a token needs between two layers of an op.
    pub(crate) fn inner(&self) -> u32 {
        if let Self::Layers(layers) = self { layers.inner } else { 0 }
    }

    /// Rows that an op puts in front of a row's keys, at most.
    pub(crate) fn slots(&self) -> usize {
        if let Self::Layers(layers) = self { layers.slots() } else { 0 }
    }
}

/// Everything that stays.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) arena: Arena,
    weights: HashMap<WeightId, Weight>,
    vectors: HashMap<WeightId, Span>,
    payloads: HashMap<PayloadId, Arc<Own>>,
    /// Forgotten, perhaps still read by a call in flight.
    leaving: Vec<Arc<Own>>,
}

impl Store {
    pub(crate) fn new(device: &Device) -> Self {
        Self {
            arena: Arena::new(device),
            weights: HashMap::new(),
            vectors: HashMap::new(),
            payloads: HashMap::new(),
            leaving: Vec::new(),
        }
    }

    /// Uploads a linear layer's weight.
    pub(crate) fn load(&mut self, device: &Device, id: WeightId, matrix: &Matrix) {
        self.weights.insert(id, Weight::new(device, matrix));
    }

    /// Uploads a bias or the scale or shift of a norm.
    pub(crate) fn load_vector(&mut self, device: &Device, id: WeightId, values: &[f32]) -> Result<()> {
        let span = self.arena.put(device, bytemuck::cast_slice(values))?;
        if let Some(old) = self.vectors.insert(id, span) {
            self.arena.release(old);
        }
        Ok(())
    }

    /// Drops a weight or vector.
    pub(crate) fn unload(&mut self, id: WeightId) {
        self.weights.remove(&id);
        if let Some(span) = self.vectors.remove(&id) {
            self.arena.release(span);
        }
    }

    pub(crate) fn weight(&self, id: WeightId) -> Result<&Weight> {
        self.weights.get(&id).ok_or_else(|| failed(format!("weight {} is not on the device", id.0)))
    }

    pub(crate) fn vector(&self, id: WeightId) -> Result<u32> {
        let span = self.vectors.get(&id).ok_or_else(|| failed(format!("vector {} is not on the device", id.0)))?;
        Ok(span.start)
    }

    /// The payload's numbers on the device, kept until [`Store::forget`].
    pub(crate) fn own(&mut self, device: &Device, payload: &Payload) -> Result<Arc<Own>> {
        if let Some(own) = self.payloads.get(&payload.id) {
            return Ok(own.clone());
        }
        let own = Arc::new(self.upload(device, &payload.op)?);
        self.payloads.insert(payload.id, own.clone());
        Ok(own)
    }

    /// [`Store::own`] of all that a call uses.
    pub(crate) fn owned(&mut self, device: &Device, used: &[Arc<Payload>]) -> Result<Vec<Arc<Own>>> {
        used.iter().map(|payload| self.own(device, payload)).collect()
    }

    /// Drops the payloads that are not among `used` and that no call reads; whether there were any.
    pub(crate) fn make_room(&mut self, used: &[Arc<Payload>]) -> bool {
        let idle = |id: &PayloadId, own: &Arc<Own>| Arc::strong_count(own) == 1 && used.iter().all(|p| p.id != *id);
        let gone: Vec<PayloadId> = self.payloads.iter().filter(|(id, own)| idle(id, own)).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| self.forget(*id));
        self.sweep();
        !gone.is_empty()
    }

    /// All of a payload, or nothing of it.
    fn upload(&mut self, device: &Device, op: &Op) -> Result<Own> {
        let mut spans = Vec::new();
        let own = Self::put(op, &mut |words| {
            let span = self.arena.put(device, words)?;
            spans.push(span);
            Ok(span)
        });
        if own.is_err() {
            spans.into_iter().for_each(|span| self.arena.release(span));
        }
        own
    }

    fn put(op: &Op, mut put: &mut dyn FnMut(&[u32]) -> Result<Span>) -> Result<Own> {
        if let Some(layers) = Upload::new(&mut put).layers(op)? {
            return Ok(Own::Layers(layers));
        }
        Ok(match op {
            Op::LowRank(lora) => Own::LowRank {
                a: Placed::put(&mut put, &lora.a)?,
                b: Placed::put(&mut put, &lora.b)?,
                bias: lora.bias.as_deref().map(|b| put(bytemuck::cast_slice(b))).transpose()?,
                scale: lora.scale,
            },
            Op::ReplaceLinear(dense) => Own::Linear {
                weight: dense.weight.as_ref().map(|w| put(&floats(w, 0..w.rows().div_ceil(4)))).transpose()?,
                bias: dense.bias.as_deref().map(|b| put(bytemuck::cast_slice(b))).transpose()?,
            },
            Op::ReplaceNorm(norm) => {
                let mut vector = |v: &Option<Vec<f32>>| v.as_deref().map(|v| put(bytemuck::cast_slice(v))).transpose();
                Own::Norm { gamma: vector(&norm.gamma)?, beta: vector(&norm.beta)? }
            }
            Op::Offset(offset) => Own::Offset(put(bytemuck::cast_slice(&offset.vector))?),
            op => return Err(failed(format!("{} came to the device unapplied", op.name()))),
        })
    }

    pub(crate) fn forget(&mut self, id: PayloadId) {
        self.leaving.extend(self.payloads.remove(&id));
    }

    /// Frees what was forgotten and no call reads any more.
    pub(crate) fn sweep(&mut self) {
        let (gone, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.leaving).into_iter().partition(|own| Arc::strong_count(own) == 1);
        self.leaving = still;
        gone.iter().flat_map(|own| own.spans()).for_each(|span| self.arena.release(span));
    }

    /// Bytes of the payload's numbers on the device.
    pub(crate) fn payload_bytes(&self, id: PayloadId) -> usize {
        self.payloads.get(&id).map_or(0, |own| own.spans().iter().map(Span::bytes).sum())
    }

    pub(crate) fn bytes(&self) -> usize {
        let parts = self.weights.values().flat_map(|w| &w.parts);
        parts.map(|p| p.codes.bytes + p.scales.as_ref().map_or(0, |s| s.bytes)).sum::<usize>() + self.arena.used()
    }
}

impl Weight {
    fn new(device: &Device, matrix: &Matrix) -> Self {
        let form = match matrix.storage() {
            Storage::Q4_0 { .. } => Form::Q4,
            Storage::Q8_0 { .. } => Form::Q8,
            Storage::F32(_) | Storage::F16(_) | Storage::Bf16(_) | Storage::Code(_) => Form::F32,
        };
        let columns = matrix.rows().div_ceil(4);
        let each = match form {
            Form::F32 => matrix.cols().div_ceil(4) * 64,
            Form::Q8 => matrix.cols() * 4,
            Form::Q4 => matrix.cols() * 2,
        };
        let size = (BINDING_LIMIT / each.max(1)).max(1);
        let part = |first: usize| {
            let range = first..columns.min(first + size);
            let (codes, scales) = match matrix.storage() {
                Storage::Q4_0 { codes, scales } => (q4(matrix, codes, range.clone()), Some(scales)),
                Storage::Q8_0 { codes, scales } => (q8(matrix, codes, range.clone()), Some(scales)),
                Storage::F32(_) | Storage::F16(_) | Storage::Bf16(_) | Storage::Code(_) => {
                    (floats(matrix, range.clone()), None)
                }
            };
            Part {
                column: first as u32,
                columns: range.len() as u32,
                codes: Held::with(device, "weight", &codes),
                scales: scales.map(|s| Held::with(device, "scales", &block_scales(matrix, s, range))),
            }
        };
        Self { form, parts: (0..columns).step_by(size).map(part).collect() }
    }
}

type Quads = std::ops::Range<usize>;

/// `[outputs / 4][inputs / 4][4 outputs][4 inputs]`, padded with zeros.
fn floats(matrix: &Matrix, quads: Quads) -> Vec<u32> {
    let groups = matrix.cols().div_ceil(4);
    let mut out = vec![0u32; quads.len() * groups * 16];
    let mut row = vec![0.0; matrix.cols()];
    for output in quads.start * 4..matrix.rows().min(quads.end * 4) {
        matrix.decode_row(output, &mut row);
        let at = (output / 4 - quads.start) * groups * 16 + output % 4 * 4;
        for (group, inputs) in row.chunks(4).enumerate() {
            for (k, value) in inputs.iter().enumerate() {
                out[at + group * 16 + k] = value.to_bits();
            }
        }
    }
    out
}

/// `[outputs / 4][block][4 outputs][4 words]`: word `j` has inputs `8j..8j + 4` in low nibbles and the next four in high.
fn q4(matrix: &Matrix, codes: &[u8], quads: Quads) -> Vec<u32> {
    let blocks = matrix.cols() / BLOCK;
    // Eight is the code of zero.
    let mut out = vec![0x8888_8888u32; quads.len() * blocks * 16];
    for output in quads.start * 4..matrix.rows().min(quads.end * 4) {
        for block in 0..blocks {
            let bytes = &codes[(output * blocks + block) * 16..][..16];
            let nibble = |k: usize| u32::from(if k < 16 { bytes[k] & 15 } else { bytes[k - 16] >> 4 });
            let at = ((output / 4 - quads.start) * blocks + block) * 16 + output % 4 * 4;
            for word in 0..4 {
                let code = |i: usize| nibble(word * 8 + i) << (8 * (i % 4) + 4 * (i / 4));
                out[at + word] = (0..8).map(code).sum();
            }
        }
    }
    out
}

/// `[outputs / 4][half block][4 outputs][4 words]`: four signed bytes a word.
fn q8(matrix: &Matrix, codes: &[i8], quads: Quads) -> Vec<u32> {
    let halves = matrix.cols() / 16;
    let mut out = vec![0u32; quads.len() * halves * 16];
    for output in quads.start * 4..matrix.rows().min(quads.end * 4) {
        for half in 0..halves {
            let bytes = &codes[output * matrix.cols() + half * 16..][..16];
            let at = ((output / 4 - quads.start) * halves + half) * 16 + output % 4 * 4;
            for (word, bytes) in bytes.chunks_exact(4).enumerate() {
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| bytes[i].cast_unsigned());
                out[at + word] = u32::from_le_bytes([a, b, c, d]);
            }
        }
    }
    out
}

/// `[outputs / 4][block][4 outputs]` as f32 bits.
fn block_scales(matrix: &Matrix, scales: &[u16], quads: Quads) -> Vec<u32> {
    let blocks = matrix.cols() / BLOCK;
    let mut out = vec![0u32; quads.len() * blocks * 4];
    for output in quads.start * 4..matrix.rows().min(quads.end * 4) {
        for block in 0..blocks {
            let at = ((output / 4 - quads.start) * blocks + block) * 4 + output % 4;
            out[at] = half::f16::from_bits(scales[output * blocks + block]).to_f32().to_bits();
        }
    }
    out
}
