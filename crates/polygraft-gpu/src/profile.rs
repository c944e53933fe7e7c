//! Where the time of a call goes, by the device's own clock: a pass for each kernel of each group of steps, with a
//! timestamp at both ends.

use crate::device::Device;
use crate::encode::Launch;
use polygraft::backend::Timing;
use std::ops::Range;

/// Passes of one set of queries: WebGPU allows 4096 queries a set, and a pass takes two.
const PASSES: usize = 2048;
/// Bytes of a pass's two timestamps.
const PAIR: usize = 16;

/// The timestamps of one submission.
#[derive(Debug)]
pub(crate) struct Stamps {
    sets: Vec<wgpu::QuerySet>,
    resolved: wgpu::Buffer,
    passes: Vec<(&'static str, Range<usize>)>,
    /// Nanoseconds of a tick.
    period: f64,
}

/// Launches that one pass holds when it is timed: those of one kernel for one group of steps.
pub(crate) fn passes<'l, 'a>(launches: &'l [Launch<'a>]) -> impl Iterator<Item = &'l [Launch<'a>]> {
    launches.chunk_by(|a, b| a.steps == b.steps && a.pipeline.variant.name == b.pipeline.variant.name)
}

impl Stamps {
    /// Queries for every pass of `launches`.
    pub(crate) fn new(device: &Device, launches: &[Launch<'_>]) -> Self {
        let passes: Vec<_> = passes(launches).map(|l| (l[0].pipeline.variant.name, l[0].steps.clone())).collect();
        let set = |passes: &[_]| {
            device.raw.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("stamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * passes.len() as u32,
            })
        };
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Self {
            sets: passes.chunks(PASSES).map(set).collect(),
            resolved: device.buffer("stamps", passes.len() * PAIR, usage),
            passes,
            period: f64::from(device.queue.get_timestamp_period()),
        }
    }

    /// Where pass `index` leaves its timestamps.
    pub(crate) fn writes(&self, index: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = (index % PASSES * 2) as u32;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[index / PASSES],
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.passes.len() * PAIR
    }

    /// Copies the timestamps to byte `at` of `to`.
    pub(crate) fn resolve(&self, commands: &mut wgpu::CommandEncoder, to: &wgpu::Buffer, at: u64) {
        for (i, set) in self.sets.iter().enumerate() {
            commands.resolve_query_set(set, 0..set.count(), &self.resolved, (i * PASSES * PAIR) as u64);
        }
        commands.copy_buffer_to_buffer(&self.resolved, 0, to, at, self.bytes() as u64);
    }

    /// Adds what the passes took to `to`, where earlier submissions of the call may have left theirs.
    pub(crate) fn book(&self, bytes: &[u8], to: &mut Vec<Timing>) {
        for ((kernel, steps), pair) in self.passes.iter().zip(bytes.as_chunks::<PAIR>().0) {
            let [start, end] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|i| pair[at + i])));
            // A device may set its clock back between two passes: such a pass counts for nothing.
            let milliseconds = end.saturating_sub(start) as f64 * self.period / 1e6;
            match to.iter_mut().find(|t| t.kernel == *kernel && t.steps == *steps) {
                Some(timing) => timing.milliseconds += milliseconds,
                None => to.push(Timing { kernel, steps: steps.clone(), milliseconds }),
            }
        }
    }
}

impl Drop for Stamps {
    fn drop(&mut self) {
        self.sets.iter().for_each(wgpu::QuerySet::destroy);
        self.resolved.destroy();
    }
}
