//! One buffer for every vector and every adapter's factors, so that one dispatch can serve rows of many adapters.
//!
//! Floats and codes stand side by side: who reads them knows which they are. Places are counted in vec4. What is freed is
//! used again; the buffer grows by doubling.

use crate::buffers::Held;
use crate::device::Device;
use polygraft::{Error, Result};

/// WebGPU's default limit of a storage binding.
pub(crate) const BINDING_LIMIT: usize = 128 << 20;

const FIRST: usize = 1 << 20;

/// The buffer, and which parts of it are free.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) held: Held,
    /// Free runs of vec4: start and length, ascending, never adjacent.
    free: Vec<(u32, u32)>,
}

/// A run of vec4 in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    length: u32,
}

impl Span {
    pub(crate) fn bytes(&self) -> usize {
        self.length as usize * 16
    }
}

impl Arena {
    pub(crate) fn new(device: &Device) -> Self {
        Self { held: Held::new(device, "arena", FIRST), free: vec![(0, (FIRST / 16) as u32)] }
    }

    /// Writes `words`, padded to whole vec4, into a free place.
    ///
    /// # Errors
    /// When the arena would grow over the limit of a binding.
    pub(crate) fn put(&mut self, device: &Device, words: &[u32]) -> Result<Span> {
        let length = words.len().div_ceil(4).max(1) as u32;
        let at = match self.free.iter().position(|&(_, n)| n >= length) {
            Some(at) => at,
            None => self.grow(device, length)?,
        };
        let (start, n) = self.free[at];
        if n == length {
            self.free.remove(at);
        } else {
            self.free[at] = (start + length, n - length);
        }
        let mut padded = words.to_vec();
        padded.resize(length as usize * 4, 0);
        device.queue.write_buffer(&self.held.raw, u64::from(start) * 16, bytemuck::cast_slice(&padded));
        Ok(Span { start, length })
    }

    pub(crate) fn release(&mut self, span: Span) {
        let at = self.free.partition_point(|&(start, _)| start < span.start);
        self.free.insert(at, (span.start, span.length));
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(self.free.len());
        for &(start, n) in &self.free {
            match merged.last_mut() {
                Some((first, length)) if *first + *length == start => *length += n,
                _ => merged.push((start, n)),
            }
        }
        self.free = merged;
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.held.bytes - self.free.iter().map(|&(_, n)| n as usize * 16).sum::<usize>()
    }

    /// Doubles until there is a run of `length` at the end; its place in the list.
    fn grow(&mut self, device: &Device, length: u32) -> Result<usize> {
        let old = self.held.bytes;
        let mut bytes = old * 2;
        while bytes - old < length as usize * 16 {
            bytes *= 2;
        }
        if bytes > BINDING_LIMIT {
            bytes = BINDING_LIMIT;
            if bytes < old + length as usize * 16 {
                return Err(Error::Backend {
                    backend: "gpu",
                    why: format!(
                        "the loaded adapters do not fit into {} MB of one buffer; unload some, or use the cpu backend",
                        BINDING_LIMIT >> 20
                    ),
                });
            }
        }
        let held = Held::new(device, "arena", bytes);
        let mut encoder = device.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.held.raw, 0, &held.raw, 0, old as u64);
        device.queue.submit([encoder.finish()]);
        self.held = held;
        self.release(Span { start: (old / 16) as u32, length: ((bytes - old) / 16) as u32 });
        Ok(self.free.len() - 1)
    }
}
