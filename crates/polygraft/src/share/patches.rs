//! What a row takes, and the numbers of it, as bytes.

use super::wire::{Reader, Writer, broken};
use crate::compose::{Placed, Resolved};
use crate::error::Result;
use crate::ir::{Dense, LayerLinear, LinearSite, LowRank, Norm, NormSite, Offset, Op, Payload, PayloadId, Site};
use crate::model::{Activation, HeadInput, HeadKind, HeadSpec, HeadTask};
use crate::program::HeadKey;
use crate::tensor::{Matrix, Storage};
use std::sync::Arc;

/// A composition: its head and its patches in order, with their payloads by identity.
pub(super) fn write_resolved(w: &mut Writer, resolved: &Resolved) {
    w.option(resolved.head.as_ref(), |w, head| write_head(w, head.key()));
    w.list(&resolved.placed, |w, placed| {
        write_site(w, placed.site);
        w.u16(placed.ordinal);
        w.option(placed.head, write_head);
        w.u64(placed.payload.id.0);
        w.f32(placed.scale);
    });
}

pub(super) fn read_resolved(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Resolved> {
    // Whoever sent it knows what the head is for; here it is a shape.
    let head = r.option(read_head)?.map(|HeadKey { kind, labels }| HeadSpec {
        kind,
        task: if kind.per_token() { HeadTask::Token } else { HeadTask::Sequence },
        labels,
        label_names: Vec::new(),
        score_activation: None,
    });
    let placed = r.list(19, |r| {
        let (site, ordinal, head) = (read_site(r)?, r.u16()?, r.option(read_head)?);
        let id = PayloadId(r.u64()?);
        let payload = known
            .iter()
            .find(|p| p.id == id)
            .cloned()
            .ok_or_else(|| broken(&format!("payload {} was never sent", id.0)))?;
        Ok(Placed { site, ordinal, head, payload, adapter: String::new(), scale: r.f32()? })
    })?;
    Ok(Resolved { text: String::new(), placed, head, warnings: Vec::new() })
}

const ACTIVATIONS: [Activation; 7] = [
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Silu,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::Identity,
];

fn write_activation(w: &mut Writer, activation: Activation) {
    let at = ACTIVATIONS.iter().position(|a| *a == activation).and_then(|at| u8::try_from(at).ok());
    w.u8(at.unwrap_or(u8::MAX));
}

fn read_activation(r: &mut Reader<'_>) -> Result<Activation> {
    let at = r.u8()?;
    ACTIVATIONS.get(usize::from(at)).copied().ok_or_else(|| broken(&format!("there is no activation {at}")))
}

fn write_head(w: &mut Writer, HeadKey { kind, labels }: HeadKey) {
    match kind.input {
        HeadInput::First => w.u8(0),
        HeadInput::Mean => w.u8(1),
        HeadInput::Tokens => w.u8(2),
        HeadInput::Pooled(function) => {
            w.u8(3);
            write_activation(w, function);
        }
    }
    w.u8(kind.hidden);
    w.u32(kind.width);
    write_activation(w, kind.activation);
    w.flag(kind.norm);
    w.u32(labels);
}

fn read_head(r: &mut Reader<'_>) -> Result<HeadKey> {
    let input = match r.u8()? {
        0 => HeadInput::First,
        1 => HeadInput::Mean,
        2 => HeadInput::Tokens,
        3 => HeadInput::Pooled(read_activation(r)?),
        other => return Err(broken(&format!("there is no head {other}"))),
    };
    let (hidden, width, activation, norm) = (r.u8()?, r.u32()?, read_activation(r)?, r.flag()?);
    let kind = HeadKind { input, hidden, width, activation, norm };
    Ok(HeadKey { kind, labels: r.u32()? })
}

/// A kind, then the layer or place, then which of a layer's six.
fn write_site(w: &mut Writer, site: Site) {
    let (kind, place, which) = match site {
        Site::Linear(LinearSite::Layer(layer, which)) => {
            (0, layer, LayerLinear::ALL.iter().position(|w| *w == which).unwrap_or(0))
        }
        Site::Linear(LinearSite::Pooler) => (1, 0, 0),
        Site::Linear(LinearSite::HeadDense(place)) => (2, u16::from(place), 0),
        Site::Linear(LinearSite::HeadOutput) => (3, 0, 0),
        Site::Linear(LinearSite::Sentence(index)) => (4, index, 0),
        Site::Norm(NormSite::Embeddings) => (5, 0, 0),
        Site::Norm(NormSite::AfterAttention(layer)) => (6, layer, 0),
        Site::Norm(NormSite::AfterFfn(layer)) => (7, layer, 0),
        Site::Norm(NormSite::HeadDense(place)) => (8, u16::from(place), 0),
        Site::Pooled => (9, 0, 0),
    };
    w.u8(kind);
    w.u16(place);
    w.u8(u8::try_from(which).unwrap_or(0));
}

fn read_site(r: &mut Reader<'_>) -> Result<Site> {
    let (kind, place, which) = (r.u8()?, r.u16()?, r.u8()?);
    let small = |place| u8::try_from(place).map_err(|_| broken("there is no such layer of a head"));
    let which = *LayerLinear::ALL.get(usize::from(which)).ok_or_else(|| broken("there is no such linear layer"))?;
    Ok(match kind {
        0 => Site::Linear(LinearSite::Layer(place, which)),
        1 => Site::Linear(LinearSite::Pooler),
        2 => Site::Linear(LinearSite::HeadDense(small(place)?)),
        3 => Site::Linear(LinearSite::HeadOutput),
        4 => Site::Linear(LinearSite::Sentence(place)),
        5 => Site::Norm(NormSite::Embeddings),
        6 => Site::Norm(NormSite::AfterAttention(place)),
        7 => Site::Norm(NormSite::AfterFfn(place)),
        8 => Site::Norm(NormSite::HeadDense(small(place)?)),
        9 => Site::Pooled,
        other => return Err(broken(&format!("there is no site {other}"))),
    })
}

pub(super) fn write_op(w: &mut Writer, op: &Op) {
    match op {
        Op::LowRank(LowRank { a, b, bias, scale }) => {
            w.u8(0);
            write_matrix(w, a);
            write_matrix(w, b);
            w.option(bias.as_ref(), |w, v| w.f32s(v));
            w.f32(*scale);
        }
        Op::Offset(Offset { vector, query }) => {
            w.u8(1);
            w.f32s(vector);
            w.option(query.as_ref(), |w, v| w.f32s(v));
        }
        Op::ReplaceLinear(Dense { weight, bias }) => {
            w.u8(2);
            w.option(weight.as_ref(), write_matrix);
            w.option(bias.as_ref(), |w, v| w.f32s(v));
        }
        // Compositions have turned it into a replaced layer.
        Op::Reweight(_) => w.u8(u8::MAX),
        Op::ReplaceNorm(Norm { gamma, beta }) => {
            w.u8(3);
            w.option(gamma.as_ref(), |w, v| w.f32s(v));
            w.option(beta.as_ref(), |w, v| w.f32s(v));
        }
    }
}

pub(super) fn read_op(r: &mut Reader<'_>) -> Result<Op> {
    Ok(match r.u8()? {
        0 => {
            let (a, b) = (read_matrix(r)?, read_matrix(r)?);
            Op::LowRank(LowRank { a, b, bias: r.option(Reader::f32s)?, scale: r.f32()? })
        }
        1 => Op::Offset(Offset { vector: r.f32s()?, query: r.option(Reader::f32s)? }),
        2 => Op::ReplaceLinear(Dense { weight: r.option(read_matrix)?, bias: r.option(Reader::f32s)? }),
        3 => Op::ReplaceNorm(Norm { gamma: r.option(Reader::f32s)?, beta: r.option(Reader::f32s)? }),
        other => return Err(broken(&format!("there is no op {other}"))),
    })
}

fn write_matrix(w: &mut Writer, matrix: &Matrix) {
    w.size(matrix.rows());
    w.size(matrix.cols());
    match matrix.storage() {
        Storage::F32(values) => {
            w.u8(0);
            w.f32s(values);
        }
        Storage::F16(bits) => {
            w.u8(1);
            w.u16s(bits);
        }
        Storage::Bf16(bits) => {
            w.u8(2);
            w.u16s(bits);
        }
        Storage::Q8_0 { codes, scales } => {
            w.u8(3);
            w.list(codes, |w, code| w.u8(code.cast_unsigned()));
            w.u16s(scales);
        }
        Storage::Q4_0 { codes, scales } => {
            w.u8(4);
            w.bytes(codes);
            w.u16s(scales);
        }
    }
}

fn read_matrix(r: &mut Reader<'_>) -> Result<Matrix> {
    let (rows, cols) = (r.size()?, r.size()?);
    let storage = match r.u8()? {
        0 => Storage::F32(r.f32s()?),
        1 => Storage::F16(r.u16s()?),
        2 => Storage::Bf16(r.u16s()?),
        3 => {
            let codes = r.bytes()?.into_iter().map(u8::cast_signed).collect();
            Storage::Q8_0 { codes, scales: r.u16s()? }
        }
        4 => Storage::Q4_0 { codes: r.bytes()?, scales: r.u16s()? },
        other => return Err(broken(&format!("there is no storage {other}"))),
    };
    Matrix::new(rows, cols, storage).ok_or_else(|| broken("a matrix has another shape than its numbers"))
}
