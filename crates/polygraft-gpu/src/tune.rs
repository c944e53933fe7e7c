//! Which tile is fastest for tall products, measured once on each device.

use crate::gpu::{Gpu, Rounded};
use crate::variants::{Covers, VARIANTS, Variant};
use polygraft::backend::{Call, Poll, Precision};
use polygraft::model::{Pooling, WeightId};
use polygraft::program::{BufferDesc, BufferId, Extent, Output, OutputKind, Program, Scope, Step, StepKind, Tables};
use polygraft::quant::{BLOCK, q4_0};
use polygraft::steps::Weights;
use polygraft::tensor::{Matrix, Storage};
use polygraft::{Error, Result};
use std::sync::Arc;

const HIDDEN: usize = 384;
const WIDE: usize = 1536;
/// Weights of the measurement, out of the way of any base's.
const UP: WeightId = WeightId(u32::MAX - 90);
const DOWN: WeightId = WeightId(u32::MAX - 91);
/// Rounds through both products in one call.
const ROUNDS: usize = 4;
/// Tokens of the tall products.
const MANY: u32 = if cfg!(test) { 32 } else { 1024 };
/// Milliseconds that 64 tokens may take on a device for which tiles matter.
const PATIENCE: f64 = 100.0;

/// Zeros: the time does not depend on the numbers.
struct Zeros;

impl Weights for Zeros {
    fn row(&self, _: WeightId, _: usize, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        Ok(())
    }
}

fn program() -> Program {
    let [x, wide, pooled] = [0, 1, 2].map(BufferId);
    let linear = |x, out, weight| StepKind::Linear { x, out, weight: Some(weight), bias: None, replaced: None };
    let mut kinds = vec![StepKind::Embed { out: x, word: UP, position: None, token_type: None }];
    for _ in 0..ROUNDS {
        kinds.push(linear(x, wide, UP));
        kinds.push(linear(wide, x, DOWN));
    }
    kinds.push(StepKind::Pool { x, out: pooled, pooling: Pooling::Cls });
    Program {
        steps: kinds.into_iter().map(|kind| Step { kind, scope: Scope::All, origin: None }).collect(),
        buffers: [(Extent::Tokens, HIDDEN), (Extent::Tokens, WIDE), (Extent::Rows, HIDDEN)]
            .map(|(extent, width)| BufferDesc { extent, width })
            .into(),
        tables: Vec::new(),
        outputs: vec![Output { kind: OutputKind::Embedding, buffer: pooled, scope: Scope::All }],
    }
}

fn weight(rows: usize, cols: usize) -> Result<Matrix> {
    let (codes, scales) = q4_0::encode(&vec![0.5; rows * cols]);
    debug_assert_eq!(scales.len(), rows * cols / BLOCK);
    Matrix::new(rows, cols, Storage::Q4_0 { codes, scales })
        .ok_or_else(|| Error::Program("a shape of the tuning".into()))
}

impl Gpu {
    /// Times the tiles on a tall product and keeps the fastest; `clock` gives milliseconds. Software devices, and those
    /// so slow that the CPU will win anyway, are left alone.
    ///
    /// # Errors
    /// When the device is lost.
    pub async fn tune(&mut self, clock: &dyn Fn() -> f64) -> Result<()> {
        if self.device.info().software {
            return Ok(());
        }
        self.choose(clock).await
    }

    /// The measurement, on whatever device.
    async fn choose(&mut self, clock: &dyn Fn() -> f64) -> Result<()> {
        self.store.load(&self.device, UP, &weight(WIDE, HIDDEN)?);
        self.store.load(&self.device, DOWN, &weight(HIDDEN, WIDE)?);
        let outcome = self.fastest(clock).await;
        self.tuning.only = None;
        self.store.unload(UP);
        self.store.unload(DOWN);
        outcome
    }

    /// The fastest tile, and with it what is fastest in fast precision.
    async fn fastest(&mut self, clock: &dyn Fn() -> f64) -> Result<()> {
        let tiles = || VARIANTS.iter().filter(|v| v.covers == Covers::Linear);
        self.tuning.only = tiles().next().map(|v| v.name);
        self.time(64, clock).await?;
        if self.time(64, clock).await? > PATIENCE {
            return Ok(());
        }
        self.tuning.fast = Covers::Linear;
        let mut best: Option<(f64, &'static Variant)> = None;
        for variant in tiles().filter(|v| v.barriers) {
            self.tuning.only = Some(variant.name);
            let took = self.least(clock).await?;
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, variant));
            }
        }
        let Some((mut least, best)) = best else { return Ok(()) };
        self.tuning.only = None;
        self.tuning.tall = best.tile;
        let mut fast = Rounded::No;
        for how in [Rounded::Bytes, Rounded::Half] {
            if !self.round(how) {
                continue;
            }
            let took = self.least(clock).await?;
            if took < least {
                (least, fast) = (took, how);
            }
        }
        self.round(fast);
        Ok(())
    }

    /// The least of three times for tall products, after the pipelines were made.
    async fn least(&mut self, clock: &dyn Fn() -> f64) -> Result<f64> {
        let mut took = f64::INFINITY;
        self.time(MANY, clock).await?;
        for _ in 0..3 {
            took = took.min(self.time(MANY, clock).await?);
        }
        Ok(took)
    }

    async fn time(&mut self, tokens: u32, clock: &dyn Fn() -> f64) -> Result<f64> {
        let zeros = vec![0; tokens as usize];
        let tables = Tables {
            ids: zeros.clone(),
            positions: zeros.clone(),
            token_types: zeros,
            cu_seqlens: vec![0, tokens],
            ..Tables::default()
        };
        let call = Call { program: Arc::new(program()), tables: Arc::new(tables), precision: Precision::Fast };
        let start = clock();
        let mut run = self.begin(call)?;
        while self.advance(&mut run, &Zeros, &mut || false)? != Poll::Done {
            run.answered().await;
        }
        Ok(clock() - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::block_on;
    use crate::variant_tests::open;
    use std::cell::Cell;

    /// What is chosen when the nth measurement takes as long as `milliseconds` says: two of few tokens, then four of each of
    /// four tiles, of bytes, and of 16 bits.
    fn chosen(milliseconds: impl Fn(usize) -> f64) -> ((u32, u32), Covers) {
        let (asked, now) = (Cell::new(0), Cell::new(0.0));
        let clock = || {
            let n = asked.replace(asked.get() + 1);
            if n % 2 == 1 {
                now.set(now.get() + milliseconds(n / 2));
            }
            now.get()
        };
        let mut gpu = open();
        block_on(gpu.choose(&clock)).unwrap();
        (gpu.tuning.tall, gpu.tuning.fast)
    }

    #[test]
    fn what_is_fastest_is_chosen() {
        let third = |n| if (10..14).contains(&n) { 2.0 } else { 3.0 };
        assert_eq!(chosen(third), ((128, 16), Covers::Linear));
        let half = |n| if n >= 22 { 1.0 } else { third(n) };
        assert_eq!(chosen(half), ((128, 16), Covers::Half));
        let bytes = |n| if (18..22).contains(&n) { 0.5 } else { half(n) };
        assert_eq!(chosen(bytes), ((128, 16), Covers::Packed));
        let slow = |n| if n < 2 { 1e3 } else { bytes(n) };
        assert_eq!(chosen(slow), ((64, 16), Covers::Linear), "left as it was");
    }
}
