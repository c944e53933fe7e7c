//! Bottlenecks, and what a composition makes of several: the order of operations is `polygraft::steps::block`'s.

use crate::encode::{Encoder, wrong_payload};
use crate::steps::linear::number;
use crate::tape::{Kind, Of, Place, Tape, Tapes};
use polygraft::Result;
use polygraft::compose::Share;
use polygraft::ir::{Blend, Bottleneck, Fusion, How, Op, Part, Payload, Residual, Rules};
use polygraft::model::Activation;
use polygraft::program::{BlockNorm, Extent, Step, StepKind};
use polygraft::steps::{self, by_row};
use std::sync::Arc;

/// Places of a bottleneck's layers.
const DOWN: usize = 0;
const UP: usize = 1;
const GATE: usize = 2;

/// No adapter's numbers.
const NOTHING: crate::layers::Args = [0; 7];

pub(crate) fn encode(e: &mut Encoder<'_>, step: &Step) -> Result<()> {
    let StepKind::Bottleneck { h, x, table, norm, turn } = step.kind else { return Ok(()) };
    let mut tapes = Tapes::default();
    for segment in e.segments(table) {
        let tape = Tape::new(e, segment.range.clone(), e.width(h));
        let mut block = Block { e, norm, turn, h: Place::Buffer(h), x: Place::Buffer(x), tape };
        block.rewrite(e.payload(segment)?, segment.scale)?;
        tapes.add(block.tape);
    }
    tapes.launch(e)
}

/// Writes the tape of one segment.
struct Block<'e, 'a> {
    e: &'e Encoder<'a>,
    norm: Option<BlockNorm>,
    /// How often the layer has run before.
    turn: u16,
    /// The sub-block's output, and the residual stream.
    h: Place,
    x: Place,
    tape: Tape,
}

/// What an adapter reads, and what is added to what it makes.
#[derive(Clone, Copy)]
struct Input {
    z: Place,
    r: Place,
}

impl Block<'_, '_> {
    fn rewrite(&mut self, payload: &Payload, scale: f32) -> Result<()> {
        let rules = match &payload.op {
            Op::Bottleneck(b) => b.rules,
            Op::Blend(b) => b.rules,
            _ => return Err(wrong_payload()),
        };
        let (h, keeps) = (self.h, rules.keeps);
        if let Op::Bottleneck(b) = &payload.op
            && b.norm_after.is_none()
        {
            // Its last layer may write where it belongs. A parallel adapter adds nothing of its own.
            let input = self.input(b.rules, h);
            let gate = self.gate(payload, b, input.z)?;
            let add = if rules.parallel { keeps.then_some(h) } else { Some(input.r) };
            return self.up(payload, b, scale, input.z, h, add, gate);
        }
        let out = self.output(payload, scale, h)?;
        self.sum(out, 1.0, h, keeps);
        Ok(())
    }

    /// What an adapter or a blend makes of `h`, in a slot.
    fn output(&mut self, payload: &Payload, scale: f32, h: Place) -> Result<Place> {
        match &payload.op {
            Op::Bottleneck(b) => {
                let input = self.input(b.rules, h);
                self.adapter(payload, b, scale, input)
            }
            Op::Blend(b) => self.blend(b, h),
            _ => Err(wrong_payload()),
        }
    }

    fn input(&mut self, rules: Rules, h: Place) -> Input {
        if rules.parallel {
            return Input { z: self.x, r: self.x };
        }
        if !rules.norm_before {
            return Input { z: h, r: h };
        }
        let z = self.tape.wide();
        match self.norm {
            Some(_) => {
                let terms = [Some(h), Some(self.x)];
                self.tape.push(Kind::Norm { terms, y: z, model: self.norm }, NOTHING);
            }
            None => self.join(h, z),
        }
        let r = match rules.residual {
            Residual::Input | Residual::Undefined => z,
            Residual::Branch => h,
            Residual::Sum if self.norm.is_none() => z,
            Residual::Sum => {
                let r = self.tape.wide();
                self.join(h, r);
                r
            }
        };
        Input { z, r }
    }

    /// `y = scale · a`, and `y` where it is kept.
    fn sum(&mut self, mut a: Place, scale: f32, y: Place, keep: bool) {
        if a == y {
            // A kernel may not read by itself what it writes: of a blend that hands on what it was given.
            a = self.tape.wide();
            self.tape.push(Kind::Sum { a: y, scale: 1.0, b: None, y: a, keep: false }, NOTHING);
        }
        self.tape.push(Kind::Sum { a, scale, b: None, y, keep }, NOTHING);
    }

    /// `y = h + x`.
    fn join(&mut self, h: Place, y: Place) {
        self.tape.push(Kind::Sum { a: h, scale: 1.0, b: Some(self.x), y, keep: false }, NOTHING);
    }

    /// Which number of the means multiplies the output of `b`, if one does.
    fn gate(&mut self, payload: &Payload, b: &Bottleneck, z: Place) -> Result<Option<u32>> {
        if b.gate.is_none() {
            return Ok(None);
        }
        let layer = self.e.layers(payload)?.layer(GATE)?;
        let activation = number(Activation::Sigmoid);
        let y = self.tape.logits();
        self.tape.push(Kind::Project { x: z, y, add: None, gate: None, activation }, layer.args(1.0));
        self.tape.push(Kind::Mean { of: Of::Each(1), extent: Extent::Tokens }, NOTHING);
        Ok(Some(0))
    }

    /// `y = add + scale · gate · up(f(down(z)))`.
    #[allow(clippy::too_many_arguments, reason = "the terms of one formula")]
    fn up(
        &mut self,
        payload: &Payload,
        b: &Bottleneck,
        scale: f32,
        mut z: Place,
        y: Place,
        add: Option<Place>,
        gate: Option<u32>,
    ) -> Result<()> {
        let layers = self.e.layers(payload)?;
        if b.norm_before.is_some() {
            let y = self.tape.wide();
            self.tape.push(Kind::Norm { terms: [Some(z), None], y, model: None }, layers.norm(0)?);
            z = y;
        }
        let (inner, activation) = (self.tape.inner(), number(b.activation));
        let down = Kind::Project { x: z, y: inner, add: None, gate: None, activation };
        self.tape.push(down, layers.layer(DOWN)?.args(1.0));
        let up = Kind::Project { x: inner, y, add, gate, activation: 0 };
        self.tape.push(up, layers.layer(UP)?.args(scale));
        Ok(())
    }

    fn adapter(&mut self, payload: &Payload, b: &Bottleneck, scale: f32, input: Input) -> Result<Place> {
        let Input { z, r } = input;
        let y = self.tape.wide();
        let gate = self.gate(payload, b, z)?;
        let residual = (!b.rules.parallel).then_some(r);
        if b.norm_after.is_none() {
            self.up(payload, b, scale, z, y, residual, gate)?;
            return Ok(y);
        }
        let (inside, outside) = if b.rules.residual_inside { (residual, None) } else { (None, residual) };
        self.up(payload, b, scale, z, y, inside, gate)?;
        let norm = self.e.layers(payload)?.norm(usize::from(b.norm_before.is_some()))?;
        self.tape.push(Kind::Norm { terms: [Some(y), None], y, model: None }, norm);
        if let Some(r) = outside {
            self.sum(r, 1.0, y, true);
        }
        Ok(y)
    }

    /// What one member makes of the input that the members share.
    fn member(&mut self, part: &Part, shared: Input) -> Result<Place> {
        let mut z = shared.z;
        for (payload, scale) in &part.chain {
            z = match &payload.op {
                Op::Bottleneck(b) if !part.stacked => self.adapter(payload, b, *scale, shared)?,
                _ => self.output(payload, *scale, z)?,
            };
        }
        Ok(z)
    }

    fn blend(&mut self, blend: &Blend, h: Place) -> Result<Place> {
        let shared = self.input(blend.rules, h);
        match &blend.how {
            How::Fuse(payload) => return self.fuse(blend, payload, shared, h),
            How::Split { shares, separator } => return self.split(blend, shares, *separator, shared),
            How::Average | How::Sum => {}
        }
        if let (How::Average, [part]) = (&blend.how, blend.parts.as_slice())
            && part.weight == 1.0
        {
            return self.member(part, shared);
        }
        let y = self.tape.wide();
        let mut begun = false;
        // Weights of a mixture count what the members add to the residual, and a parallel adapter has none of its own.
        if matches!(blend.how, How::Sum) && !blend.rules.parallel {
            let rest = 1.0 - blend.parts.iter().map(|p| p.weight).sum::<f32>();
            self.sum(shared.r, rest, y, false);
            begun = true;
        }
        for part in &blend.parts {
            let used = self.tape.used;
            let out = self.member(part, shared)?;
            self.sum(out, part.weight, y, begun);
            begun = true;
            self.tape.used = used;
        }
        Ok(y)
    }

    /// Each member for its own tokens, into one slot.
    fn split(&mut self, blend: &Blend, shares: &Arc<[Share]>, separator: u32, shared: Input) -> Result<Place> {
        let y = self.tape.wide();
        let tables = self.e.tables;
        let whole = self.tape.rows.clone();
        let rows = whole.iter().flat_map(|run| by_row(tables, Extent::Tokens, run.clone()));
        let mut parts = vec![Vec::new(); blend.parts.len()];
        for row in rows {
            let cut = steps::parts(shares, &tables.ids[row.clone()], separator)?;
            for (part, cut) in parts.iter_mut().zip(cut).filter(|(_, cut)| !cut.is_empty()) {
                part.push(row.start + cut.start..row.start + cut.end);
            }
        }
        for (part, rows) in blend.parts.iter().zip(parts) {
            self.tape.rows = rows.into();
            let used = self.tape.used;
            let out = self.member(part, shared)?;
            self.sum(out, 1.0, y, false);
            self.tape.used = used;
        }
        self.tape.rows = whole;
        Ok(y)
    }

    /// Members are attended to one after the other, so that few slots are in use however many there are.
    fn fuse(&mut self, blend: &Blend, payload: &Payload, shared: Input, h: Place) -> Result<Place> {
        let Op::Fusion(fusion) = &payload.op else { return Err(wrong_payload()) };
        let Fusion { query, key, value, query_before_norm, residual_before, temperature: _ } = &**fusion;
        let temperature = fusion.cooled(self.turn);
        let layers = self.e.layers(payload)?;
        let mut index = 0..3;
        let mut layer = |there: bool| if there { index.next() } else { None };
        let [query, key, value] = [query.is_some(), key.is_some(), value.is_some()].map(&mut layer);
        let through = |block: &mut Self, which: Option<usize>, x: Place, add: Option<Place>| -> Result<Place> {
            let Some(which) = which else { return Ok(x) };
            let y = block.tape.wide();
            let kind = Kind::Project { x, y, add, gate: None, activation: 0 };
            block.tape.push(kind, layers.layer(which)?.args(1.0));
            Ok(y)
        };
        let q = through(self, query, if *query_before_norm && !blend.rules.parallel { h } else { shared.z }, None)?;
        let y = self.tape.wide();
        let end = blend.parts.len().saturating_sub(1);
        for (i, part) in blend.parts.iter().enumerate() {
            let used = self.tape.used;
            let v = self.fused(part, shared, residual_before.then_some(shared.r))?;
            let k = through(self, key, v, None)?;
            let kind = Kind::Attend { q, k, v, y, first: i == 0, last: i == end, temperature };
            self.tape.push(kind, NOTHING);
            self.tape.used = used;
        }
        // The value layer is linear and has no bias: before or after the mixture is the same.
        let residual = (!residual_before).then_some(shared.r);
        if value.is_some() {
            return through(self, value, y, residual);
        }
        if let Some(r) = residual {
            self.sum(r, 1.0, y, true);
        }
        Ok(y)
    }

    /// What a fusion attends to: a member's output before its gate, norm and residual.
    fn fused(&mut self, part: &Part, shared: Input, add: Option<Place>) -> Result<Place> {
        let Some(((payload, scale), before)) = part.chain.split_last() else { return Err(wrong_payload()) };
        let Op::Bottleneck(b) = &payload.op else { return Err(wrong_payload()) };
        let mut z = shared.z;
        if part.stacked {
            for (payload, scale) in before {
                z = self.output(payload, *scale, z)?;
            }
            z = self.input(b.rules, z).z;
        }
        let y = self.tape.wide();
        self.up(payload, b, *scale, z, y, add, None)?;
        Ok(y)
    }
}
