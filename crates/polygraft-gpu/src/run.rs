//! A call in flight: its pieces, and what has come back.

use crate::buffers::Held;
use crate::device::{Device, Mapping};
use crate::failed;
use crate::gpu::Gpu;
use crate::profile::Stamps;
use crate::store::Own;
use polygraft::Result;
use polygraft::backend::{Call, Poll, Timing};
use polygraft::program::{BufferId, Program, Tables};
use polygraft::steps::Weights;
use std::ops::Range;
use std::sync::Arc;

/// Outputs of one piece on their way back.
#[derive(Debug)]
pub(crate) struct Readback {
    staging: wgpu::Buffer,
    mapping: Mapping,
    stamps: Option<Stamps>,
}

impl Readback {
    /// Adds the copies of the outputs and of the timestamps to `commands`, submits, and asks for the answer.
    pub(crate) fn begin(
        device: &Device,
        program: &Program,
        tables: &Tables,
        activations: &[Held],
        mut commands: wgpu::CommandEncoder,
        stamps: Option<Stamps>,
    ) -> Result<Self> {
        let sizes: Vec<usize> = outputs(program, tables).map(|(_, stride, rows)| stride * rows * 4).collect();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let bytes = sizes.iter().sum::<usize>() + stamps.as_ref().map_or(0, Stamps::bytes);
        let staging = device.buffer("staging", bytes, usage);
        let mut at = 0;
        for ((buffer, ..), size) in outputs(program, tables).zip(sizes) {
            let held = activations.get(buffer.0 as usize).ok_or_else(|| failed("an output without a buffer".into()))?;
            commands.copy_buffer_to_buffer(&held.raw, 0, &staging, at, size as u64);
            at += size as u64;
        }
        if let Some(stamps) = &stamps {
            stamps.resolve(&mut commands, &staging, at);
        }
        device.queue.submit([commands.finish()]);
        let mapping = device.map(&staging);
        Ok(Self { staging, mapping, stamps })
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        self.staging.destroy();
    }
}

/// Each output's buffer, numbers a row as stored, and rows.
fn outputs<'a>(program: &'a Program, tables: &'a Tables) -> impl Iterator<Item = (BufferId, usize, usize)> + 'a {
    program.outputs.iter().map(|output| {
        let desc = program.buffers[output.buffer.0 as usize];
        (output.buffer, desc.width.next_multiple_of(4), tables.len(desc.extent))
    })
}

/// A call in flight.
#[derive(Debug)]
pub struct Run {
    call: Call,
    own: Vec<Arc<Own>>,
    pieces: Vec<Range<usize>>,
    next: usize,
    flying: Option<(Readback, Tables)>,
    /// Rows of each output, by its place in the Program.
    values: Vec<Vec<f32>>,
    profile: Vec<Timing>,
}

impl Gpu {
    /// Starts a call: uploads the adapters that are not there yet.
    ///
    /// # Errors
    /// When the device is lost or its memory full.
    pub fn begin(&mut self, call: Call) -> Result<Run> {
        self.device.check()?;
        self.store.sweep();
        let used = &call.tables.payloads;
        let mut own = self.store.owned(&self.device, used);
        if own.is_err() && self.store.make_room(used) {
            own = self.store.owned(&self.device, used);
        }
        let own = own?;
        let pieces = self.pieces(&call.program, &call.tables, &own)?;
        let values = vec![Vec::new(); call.program.outputs.len()];
        Ok(Run { call, own, pieces, next: 0, flying: None, values, profile: Vec::new() })
    }

    /// Submits a piece, or takes what has come back. `host` has the embedding tables.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn advance<W: Weights>(&mut self, run: &mut Run, host: &W, pause: &mut dyn FnMut() -> bool) -> Result<Poll> {
        loop {
            if let Some((readback, tables)) = &run.flying {
                self.device.pump()?;
                let Some(bytes) = readback.mapping.bytes(&self.device, &readback.staging)? else {
                    return Ok(Poll::Waiting);
                };
                let rest = take(&run.call.program, tables, &bytes, &mut run.values);
                if let Some(stamps) = &readback.stamps {
                    stamps.book(rest, &mut run.profile);
                }
                run.flying = None;
            }
            let Some(rows) = run.pieces.get(run.next).cloned() else { return Ok(Poll::Done) };
            let tables = run.call.tables.slice(rows, &run.call.program);
            let readback = self.submit(&run.call, &tables, &run.own, host)?;
            run.flying = Some((readback, tables));
            run.next += 1;
            if pause() {
                return Ok(Poll::More);
            }
        }
    }

    /// An output of a call that is done: `[extent, width]`.
    ///
    /// # Errors
    /// When the buffer is not an output, or the call is not done.
    pub fn read(&self, run: &Run, buffer: BufferId) -> Result<Vec<f32>> {
        if run.flying.is_some() || run.next < run.pieces.len() {
            return Err(failed("an output was read before the call was done".into()));
        }
        let place = run.call.program.outputs.iter().position(|o| o.buffer == buffer);
        place.map(|at| run.values[at].clone()).ok_or_else(|| failed(format!("buffer {} is not an output", buffer.0)))
    }
}

impl Run {
    /// Time by kernel, of what has come back; empty unless the device measures.
    #[must_use]
    pub fn profile(&self) -> &[Timing] {
        &self.profile
    }

    /// Done when the device has answered, or at once when nothing is awaited. Holds nothing of the run.
    pub fn answered(&self) -> impl Future<Output = ()> + use<> {
        let mapping = self.flying.as_ref().map(|(readback, _)| readback.mapping.clone());
        async move {
            if let Some(mapping) = mapping {
                mapping.await;
            }
        }
    }
}

/// Appends the rows of a piece's outputs, without their padding; what follows them.
fn take<'b>(program: &Program, tables: &Tables, bytes: &'b [u8], values: &mut [Vec<f32>]) -> &'b [u8] {
    let mut at = 0;
    for ((buffer, stride, rows), values) in outputs(program, tables).zip(values) {
        let width = program.buffers[buffer.0 as usize].width;
        let size = stride * rows * 4;
        for row in bytes[at..at + size].chunks_exact(stride * 4) {
            let numbers = row[..width * 4].as_chunks::<4>().0;
            values.extend(numbers.iter().map(|n| f32::from_le_bytes(*n)));
        }
        at += size;
    }
    &bytes[at..]
}
