//! What a row takes, and the numbers of it, as bytes.

use super::numbers::Wire;
use super::wire::{Reader, Writer, broken};
use crate::compose::{Placed, Resolved, Stack};
use crate::error::Result;
use crate::ir::{BlockSite, Dense, LayerLinear, LinearSite, Norm, NormSite, Offset, Op, Payload, Site};
use crate::model::{Activation, HeadInput, HeadKind, HeadSpec, HeadTask};
use crate::program::HeadKey;
use crate::quant::codes::{Codes, Group};
use crate::tensor::{Matrix, Storage};
use std::sync::Arc;

/// A composition: its head and its patches in order, with their payloads by identity.
pub(super) fn write_resolved(w: &mut Writer, resolved: &Resolved) {
    w.option(resolved.head.as_ref(), |w, head| write_head(w, head.key()));
    w.list(&resolved.placed, |w, placed| {
        write_site(w, placed.site);
        w.u16(placed.ordinal);
        w.option(placed.head, write_head);
        placed.payload.write(w);
        w.f32(placed.scale);
        placed.part.write(w);
    });
    resolved.unnormed.write(w);
    resolved.rows.write(w);
    w.option(resolved.stack.as_ref(), |w, stack| {
        w.u16(stack.first);
        w.u16s(&stack.copies);
    });
}

pub(super) fn read_resolved(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Resolved> {
    // Whoever sent it knows what the head is for; here it is a shape.
    let head = r.option(read_head)?.map(|HeadKey { kind, labels }| HeadSpec {
        kind,
        task: if kind.per_token() { HeadTask::Token } else { HeadTask::Sequence },
        labels,
        uncouples: false,
        label_names: Vec::new(),
        score_activation: None,
    });
    let placed = r.list(19, |r| {
        let (site, ordinal, head) = (read_site(r)?, r.u16()?, r.option(read_head)?);
        let payload = Wire::read(r, known)?;
        let (scale, part) = (r.f32()?, Wire::read(r, known)?);
        Ok(Placed { site, ordinal, head, payload, adapter: String::new(), scale, chained: false, part })
    })?;
    let (unnormed, rows) = (Wire::read(r, known)?, Wire::read(r, known)?);
    let stack = r.option(|r| Ok(Stack { first: r.u16()?, copies: r.u16s()? }))?;
    Ok(Resolved { text: String::new(), placed, unnormed, rows, stack, head, warnings: Vec::new() })
}

fn write_head(w: &mut Writer, HeadKey { kind, labels }: HeadKey) {
    match kind.input {
        HeadInput::First => w.u8(0),
        HeadInput::Mean => w.u8(1),
        HeadInput::Tokens => w.u8(2),
        HeadInput::Pooled(function) => {
            w.u8(3);
            function.write(w);
        }
    }
    w.u8(kind.hidden);
    w.u32(kind.width);
    kind.activation.write(w);
    w.flag(kind.norm);
    w.u32(labels);
}

fn read_head(r: &mut Reader<'_>) -> Result<HeadKey> {
    let input = match r.u8()? {
        0 => HeadInput::First,
        1 => HeadInput::Mean,
        2 => HeadInput::Tokens,
        3 => HeadInput::Pooled(Activation::read(r, &[])?),
        other => return Err(broken(&format!("there is no head {other}"))),
    };
    let (hidden, width, activation, norm) = (r.u8()?, r.u32()?, Activation::read(r, &[])?, r.flag()?);
    let kind = HeadKind { input, hidden, width, activation, norm };
    Ok(HeadKey { kind, labels: r.u32()? })
}

/// A kind, then the layer or place, then which of a layer's.
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
        Site::Block(BlockSite::Attention(layer)) => (10, layer, 0),
        Site::Block(BlockSite::Ffn(layer)) => (11, layer, 0),
        Site::LayerOutput(layer) => (12, layer, 0),
        Site::Embeddings => (13, 0, 0),
        Site::Vocabulary => (14, 0, 0),
        Site::Word => (15, 0, 0),
        Site::Keys(layer) => (16, layer, 0),
        Site::Position => (17, 0, 0),
        Site::TokenType => (18, 0, 0),
        Site::Relative => (19, 0, 0),
        Site::Linear(LinearSite::Embedding) => (40, 0, 0),
        Site::Linear(LinearSite::Patches) => (41, 0, 0),
        Site::Linear(LinearSite::Convolution) => (42, 0, 0),
        Site::Norm(NormSite::BeforeAttention(layer)) => (43, layer, 0),
        Site::Norm(NormSite::BeforeFfn(layer)) => (44, layer, 0),
        Site::Norm(NormSite::Final) => (45, 0, 0),
        Site::Norm(NormSite::Positions) => (46, 0, 0),
        Site::Norm(NormSite::Convolution) => (47, 0, 0),
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
        10 => Site::Block(BlockSite::Attention(place)),
        11 => Site::Block(BlockSite::Ffn(place)),
        12 => Site::LayerOutput(place),
        13 => Site::Embeddings,
        14 => Site::Vocabulary,
        15 => Site::Word,
        16 => Site::Keys(place),
        17 => Site::Position,
        18 => Site::TokenType,
        19 => Site::Relative,
        40 => Site::Linear(LinearSite::Embedding),
        41 => Site::Linear(LinearSite::Patches),
        42 => Site::Linear(LinearSite::Convolution),
        43 => Site::Norm(NormSite::BeforeAttention(place)),
        44 => Site::Norm(NormSite::BeforeFfn(place)),
        45 => Site::Norm(NormSite::Final),
        46 => Site::Norm(NormSite::Positions),
        47 => Site::Norm(NormSite::Convolution),
        other => return Err(broken(&format!("there is no site {other}"))),
    })
}

pub(super) fn write_op(w: &mut Writer, op: &Op) {
    match op {
        Op::LowRank(l) => tagged(w, 0, l),
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
        Op::Bottleneck(b) => tagged(w, 4, b),
        Op::Blend(b) => tagged(w, 5, b),
        Op::Fusion(f) => tagged(w, 6, f),
        Op::Coupling(c) => tagged(w, 7, c),
        Op::Reft(r) => tagged(w, 8, r),
        Op::MixedLowRank(m) => tagged(w, 9, m),
        Op::Prompt(p) => tagged(w, 10, p),
        Op::Prefix(p) => tagged(w, 11, p),
        // Compositions have turned it into a replaced layer, or the owner of the table into rows.
        Op::Reweight(_) | Op::Rewording(_) => w.u8(u8::MAX),
        Op::ReplaceNorm(Norm { gamma, beta }) => {
            w.u8(3);
            w.option(gamma.as_ref(), |w, v| w.f32s(v));
            w.option(beta.as_ref(), |w, v| w.f32s(v));
        }
    }
}

fn tagged(w: &mut Writer, tag: u8, op: &impl Wire) {
    w.u8(tag);
    op.write(w);
}

pub(super) fn read_op(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Op> {
    Ok(match r.u8()? {
        0 => Op::LowRank(Wire::read(r, known)?),
        1 => Op::Offset(Offset { vector: r.f32s()?, query: r.option(Reader::f32s)? }),
        2 => Op::ReplaceLinear(Dense { weight: r.option(read_matrix)?, bias: r.option(Reader::f32s)? }),
        3 => Op::ReplaceNorm(Norm { gamma: r.option(Reader::f32s)?, beta: r.option(Reader::f32s)? }),
        4 => Op::Bottleneck(Wire::read(r, known)?),
        5 => Op::Blend(Wire::read(r, known)?),
        6 => Op::Fusion(Wire::read(r, known)?),
        7 => Op::Coupling(Wire::read(r, known)?),
        8 => Op::Reft(Wire::read(r, known)?),
        9 => Op::MixedLowRank(Wire::read(r, known)?),
        10 => Op::Prompt(Wire::read(r, known)?),
        11 => Op::Prefix(Wire::read(r, known)?),
        other => return Err(broken(&format!("there is no op {other}"))),
    })
}

pub(super) fn write_matrix(w: &mut Writer, matrix: &Matrix) {
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
        Storage::Code(codes) => {
            w.u8(5);
            w.u8(codes.bits());
            w.size(match codes.group() {
                Group::Tensor => 0,
                Group::Row => 1,
                Group::Block(n) => 2 + usize::from(n),
            });
            w.bytes(codes.data());
            w.f32s(codes.stats().as_flattened());
            w.f32s(codes.levels());
        }
    }
}

pub(super) fn read_matrix(r: &mut Reader<'_>) -> Result<Matrix> {
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
        5 => {
            let bits = r.u8()?;
            let group = match r.size()? {
                0 => Group::Tensor,
                1 => Group::Row,
                n => Group::Block(u16::try_from(n - 2).map_err(|_| broken("a group is too large"))?),
            };
            let (data, stats, levels) = (r.bytes()?, r.f32s()?, r.f32s()?);
            let stats: Vec<[f32; 2]> = stats.as_chunks().0.to_vec();
            let codes = Codes::new((rows, cols), bits, group, data, stats, levels);
            Storage::Code(codes.ok_or_else(|| broken("codes do not agree with their matrix"))?)
        }
        other => return Err(broken(&format!("there is no storage {other}"))),
    };
    Matrix::new(rows, cols, storage).ok_or_else(|| broken("a matrix has another shape than its numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::codes::Book;
    use crate::testing::Random;

    #[test]
    fn codes_arrive_as_they_were() {
        for (bits, group) in [(1, Group::Tensor), (2, Group::Row), (4, Group::Block(32)), (8, Group::Tensor)] {
            let codes = Codes::encode((5, 70), &Random(3).vec(350, 1.0), bits, group, Book::Median).unwrap();
            let sent = Matrix::new(5, 70, Storage::Code(codes)).unwrap();
            let mut w = Writer::default();
            write_matrix(&mut w, &sent);
            let bytes = w.finish();
            assert_eq!(read_matrix(&mut Reader::new(&bytes)).unwrap(), sent, "{bits} bits");
        }
    }
}
