//! Structures of numbers as bytes: each type says its fields once, and both directions follow.

use super::patches::{read_matrix, write_matrix};
use super::wire::{Reader, Writer, broken};
use crate::compose::{Share, SplitPart};
use crate::error::Result;
use crate::ir::{
    Blend, BlockSite, Bottleneck, Coupling, Fusion, Gate, How, LowRank, MixedLowRank, Mixing, Mlp, OwnNorm, Part,
    Payload, PayloadId, Positions, Prefix, Prompt, Reft, ReftUnit, Residual, RowChange, Rules,
};
use crate::model::Activation;
use crate::tensor::Matrix;
use std::sync::Arc;

/// A type that crosses. `known` are the payloads that a reader has: members of others cross by identity.
pub(super) trait Wire: Sized {
    fn write(&self, w: &mut Writer);
    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self>;
}

macro_rules! plain {
    ($($kind:ty: $method:ident),*) => {$(
        impl Wire for $kind {
            fn write(&self, w: &mut Writer) {
                w.$method(*self);
            }

            fn read(r: &mut Reader<'_>, _: &[Arc<Payload>]) -> Result<Self> {
                r.$method()
            }
        }
    )*};
}

macro_rules! fields {
    ($($kind:ident { $($field:ident),* })*) => {$(
        impl Wire for $kind {
            fn write(&self, w: &mut Writer) {
                $(self.$field.write(w);)*
            }

            fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
                Ok(Self { $($field: Wire::read(r, known)?),* })
            }
        }
    )*};
}

plain!(u32: u32, f32: f32, bool: flag);

fields! {
    LowRank { a, b, bias, scale }
    Gate { weight, bias }
    OwnNorm { gamma, beta }
    Rules { parallel, keeps, norm_before, residual, residual_inside, norm_after }
    Bottleneck { norm_before, down, down_bias, activation, up, up_bias, gate, norm_after, rules }
    Fusion { query, key, value, query_before_norm, residual_before, temperature }
    Part { chain, stacked, weight }
    Blend { rules, parts, how }
    Mlp { first, first_bias, second, second_bias }
    Coupling { f, g, activation }
    ReftUnit { source, bias, projection }
    Reft { prefix, suffix, first, last, activation, subtract, uncounted }
    MixedLowRank { lora, mixing }
    Prompt { vectors }
    Prefix { keys, values, gates }
    RowChange { virtual_tokens, after_first, positions, drops_types, own_words }
}

impl Wire for Matrix {
    fn write(&self, w: &mut Writer) {
        write_matrix(w, self);
    }

    fn read(r: &mut Reader<'_>, _: &[Arc<Payload>]) -> Result<Self> {
        read_matrix(r)
    }
}

impl<T: Wire> Wire for Box<T> {
    fn write(&self, w: &mut Writer) {
        T::write(self, w);
    }

    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
        T::read(r, known).map(Self::new)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, w: &mut Writer) {
        w.option(self.as_ref(), |w, v| v.write(w));
    }

    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
        r.option(|r| T::read(r, known))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, w: &mut Writer) {
        w.list(self, |w, v| v.write(w));
    }

    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
        r.list(1, |r| T::read(r, known))
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn write(&self, w: &mut Writer) {
        self.0.write(w);
        self.1.write(w);
    }

    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
        Ok((A::read(r, known)?, B::read(r, known)?))
    }
}

impl Wire for Arc<Payload> {
    fn write(&self, w: &mut Writer) {
        w.u64(self.id.0);
    }

    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
        let id = PayloadId(r.u64()?);
        let found = known.iter().find(|p| p.id == id).cloned();
        found.ok_or_else(|| broken(&format!("payload {} was never sent", id.0)))
    }
}

impl Wire for Activation {
    fn write(&self, w: &mut Writer) {
        let at = Self::ALL.iter().position(|a| a == self).and_then(|at| u8::try_from(at).ok());
        w.u8(at.unwrap_or(u8::MAX));
    }

    fn read(r: &mut Reader<'_>, _: &[Arc<Payload>]) -> Result<Self> {
        let at = r.u8()?;
        Self::ALL.get(usize::from(at)).copied().ok_or_else(|| broken(&format!("there is no activation {at}")))
    }
}

impl<T: Wire> Wire for [T; 2] {
    fn write(&self, w: &mut Writer) {
        self.iter().for_each(|v| v.write(w));
    }

    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
        Ok([T::read(r, known)?, T::read(r, known)?])
    }
}

impl Wire for Positions {
    fn write(&self, w: &mut Writer) {
        let (kind, by) = match self {
            Self::Own => (0, 0),
            Self::Sequence => (1, 0),
            Self::Shifted(by) => (2, *by),
        };
        w.u8(kind);
        w.u32(by);
    }

    fn read(r: &mut Reader<'_>, _: &[Arc<Payload>]) -> Result<Self> {
        match (r.u8()?, r.u32()?) {
            (0, _) => Ok(Self::Own),
            (1, _) => Ok(Self::Sequence),
            (2, by) => Ok(Self::Shifted(by)),
            (other, _) => Err(broken(&format!("there is no way {other} to count positions"))),
        }
    }
}

impl Wire for Residual {
    fn write(&self, w: &mut Writer) {
        w.u8(*self as u8);
    }

    fn read(r: &mut Reader<'_>, _: &[Arc<Payload>]) -> Result<Self> {
        match r.u8()? {
            0 => Ok(Self::Input),
            1 => Ok(Self::Branch),
            2 => Ok(Self::Sum),
            3 => Ok(Self::Undefined),
            other => Err(broken(&format!("there is no residual {other}"))),
        }
    }
}

impl Wire for How {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Average => w.u8(0),
            Self::Sum => w.u8(1),
            Self::Fuse(fusion) => {
                w.u8(2);
                fusion.write(w);
            }
            Self::Split { shares, separator } => {
                w.u8(3);
                shares.to_vec().write(w);
                w.u32(*separator);
            }
        }
    }

    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
        match r.u8()? {
            0 => Ok(Self::Average),
            1 => Ok(Self::Sum),
            2 => Ok(Self::Fuse(Wire::read(r, known)?)),
            3 => {
                let shares: Vec<Share> = Wire::read(r, known)?;
                Ok(Self::Split { shares: shares.into(), separator: r.u32()? })
            }
            other => Err(broken(&format!("there is no blend {other}"))),
        }
    }
}

impl Wire for Mixing {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Gate(gates) => {
                w.u8(0);
                gates.write(w);
            }
            Self::Route(router) => {
                w.u8(1);
                router.write(w);
            }
        }
    }

    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
        match r.u8()? {
            0 => Ok(Self::Gate(Wire::read(r, known)?)),
            1 => Ok(Self::Route(Wire::read(r, known)?)),
            other => Err(broken(&format!("there is no mixing {other}"))),
        }
    }
}

impl Wire for BlockSite {
    fn write(&self, w: &mut Writer) {
        let (kind, layer) = match self {
            Self::Attention(layer) => (0, layer),
            Self::Ffn(layer) => (1, layer),
        };
        w.u8(kind);
        w.u16(*layer);
    }

    fn read(r: &mut Reader<'_>, _: &[Arc<Payload>]) -> Result<Self> {
        match (r.u8()?, r.u16()?) {
            (0, layer) => Ok(Self::Attention(layer)),
            (1, layer) => Ok(Self::Ffn(layer)),
            (other, _) => Err(broken(&format!("there is no sub-block {other}"))),
        }
    }
}

impl Wire for Share {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Tokens(n) => {
                w.u8(0);
                w.u32(*n);
            }
            Self::Rest => w.u8(1),
            Self::Segment => w.u8(2),
        }
    }

    fn read(r: &mut Reader<'_>, _: &[Arc<Payload>]) -> Result<Self> {
        match r.u8()? {
            0 => Ok(Self::Tokens(r.u32()?)),
            1 => Ok(Self::Rest),
            2 => Ok(Self::Segment),
            other => Err(broken(&format!("there is no share {other}"))),
        }
    }
}

/// The parts of one split share their list by what it says: on the other side, equal lists are one split.
impl Wire for SplitPart {
    fn write(&self, w: &mut Writer) {
        self.shares.to_vec().write(w);
        w.size(self.index);
    }

    fn read(r: &mut Reader<'_>, known: &[Arc<Payload>]) -> Result<Self> {
        let shares: Vec<Share> = Wire::read(r, known)?;
        let index = r.size()?;
        if index >= shares.len() {
            return Err(broken("a part of a split is not one of its parts"));
        }
        Ok(Self { shares: shares.into(), index })
    }
}
