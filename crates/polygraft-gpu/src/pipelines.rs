//! Pipelines: each variant compiled once for its constants, and kept.

use crate::device::Device;
use crate::params;
use crate::variants::{Access, Variant};
use std::collections::HashMap;
use std::sync::Arc;

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    /// Identity, for the cache of bind groups.
    pub(crate) id: usize,
    pub(crate) variant: &'static Variant,
}

/// Constants beyond the variant's own: the form of the weights, the width of a head.
pub(crate) type Extra = Option<(&'static str, u32)>;

/// Everything compiled so far.
#[derive(Debug, Default)]
pub(crate) struct Pipelines {
    ready: HashMap<(&'static str, Extra), Arc<Pipeline>>,
}

/// The text of `variant` with its constants set.
pub(crate) fn source(variant: &Variant, extra: Extra) -> String {
    with_constants(variant.sources.concat(), variant.constants.iter().copied().chain(extra))
}

/// `text` with other values for some of its constants.
pub(crate) fn with_constants(mut text: String, constants: impl Iterator<Item = (&'static str, u32)>) -> String {
    for (name, value) in constants {
        if let Some(at) = text.find(&format!("const {name}:")) {
            let start = at + text[at..].find('=').unwrap_or(0);
            let end = start + text[start..].find(';').unwrap_or(0);
            text.replace_range(start..end, &format!("={value}u"));
        }
    }
    text
}

impl Pipelines {
    pub(crate) fn get(&mut self, device: &Device, variant: &'static Variant, extra: Extra) -> Arc<Pipeline> {
        let id = self.ready.len();
        self.ready.entry((variant.name, extra)).or_insert_with(|| Arc::new(compile(device, variant, extra, id))).clone()
    }
}

fn compile(device: &Device, variant: &'static Variant, extra: Extra, id: usize) -> Pipeline {
    let raw = &device.raw;
    let module = raw.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(variant.name),
        source: wgpu::ShaderSource::Wgsl(source(variant, extra).into()),
    });
    let buffer = |binding: usize, ty, has_dynamic_offset, min_binding_size| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size },
        count: None,
    };
    let mut entries = vec![buffer(0, wgpu::BufferBindingType::Uniform, true, None)];
    for (i, access) in variant.access.iter().enumerate() {
        let ty = wgpu::BufferBindingType::Storage { read_only: *access == Access::Read };
        entries.push(buffer(i + 1, ty, false, None));
    }
    let layout =
        raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(variant.name), entries: &entries });
    let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(variant.name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let raw = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(variant.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    Pipeline { raw, layout, id, variant }
}

/// Bytes of a uniform block as it is bound.
pub(crate) const BLOCK_BYTES: u64 = 64;
const _: () = assert!(BLOCK_BYTES as usize <= params::STRIDE);
