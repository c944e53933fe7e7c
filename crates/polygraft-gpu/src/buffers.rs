//! Buffers with an identity, so that bind groups can be kept for as long as their buffers live.

use crate::device::Device;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A buffer; destroyed when dropped, because a browser frees nothing before.
#[derive(Debug)]
pub(crate) struct Held {
    /// Never used twice.
    pub(crate) id: u64,
    pub(crate) raw: wgpu::Buffer,
    pub(crate) bytes: usize,
}

impl Held {
    /// Storage.
    pub(crate) fn new(device: &Device, label: &str, bytes: usize) -> Self {
        Self::of(device.storage(label, bytes))
    }

    /// Uniform blocks.
    pub(crate) fn uniform(device: &Device, label: &str, bytes: usize) -> Self {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        Self::of(device.buffer(label, bytes, usage))
    }

    fn of(raw: wgpu::Buffer) -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), bytes: raw.size() as usize, raw }
    }

    /// A buffer with these words in it.
    pub(crate) fn with(device: &Device, label: &str, words: &[u32]) -> Self {
        let held = Self::new(device, label, words.len() * 4);
        device.queue.write_buffer(&held.raw, 0, bytemuck::cast_slice(words));
        held
    }

    /// Makes it at least `bytes` long; contents are lost when it grows.
    pub(crate) fn reserve(&mut self, device: &Device, label: &str, bytes: usize) {
        if self.bytes < bytes {
            *self = Self::new(device, label, bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.raw.destroy();
    }
}
