//! A device with a base on it: uploads, and starts batches.

use crate::buffers::Held;
use crate::device::Device;
use crate::encode::{Bind, Encoder, Launch};
use crate::params::STRIDE;
use crate::pipelines::{BLOCK_BYTES, Extra, Pipeline, Pipelines};
use crate::profile::{Stamps, passes};
use crate::run::Readback;
use crate::store::{Own, Store};
use crate::variants::{Covers, Tuning, VARIANTS, Variant};
use polygraft::backend::Call;
use polygraft::ir::PayloadId;
use polygraft::model::{EmbeddingWeights, ModelSpec, WeightId};
use polygraft::program::{Extent, Program, StepKind, Tables};
use polygraft::steps::{Weights, embed_token};
use polygraft::tensor::Matrix;
use polygraft::{Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// What a product in fast precision is rounded to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounded {
    /// Nothing: it is made as in exact precision.
    No,
    /// Activations to 8 bits, in blocks with a scale each.
    Bytes,
    /// Activations and weights to 16 bits, on their way through workgroup memory.
    Half,
}

/// A device, and what of a base and its adapters is on it. Rows of the embedding tables stay with whoever has them
/// and are gathered there: a GPU holds the layers alone.
#[derive(Debug)]
pub struct Gpu {
    pub(crate) device: Device,
    pub(crate) store: Store,
    pub(crate) tuning: Tuning,
    /// Whether calls measure themselves.
    measures: bool,
    pipelines: RefCell<Pipelines>,
    scratch: RefCell<Scratch>,
}

/// Buffers that calls share, one after the other, and the bind groups over them.
#[derive(Debug, Default)]
struct Scratch {
    activations: Vec<Held>,
    slots: Vec<Held>,
    hidden: Option<Held>,
    codes: Option<Held>,
    code_scales: Option<Held>,
    tables: Option<Held>,
    params: Option<Held>,
    groups: HashMap<GroupKey, wgpu::BindGroup>,
}

/// A pipeline and the buffers that are bound to it, by identity.
type GroupKey = (usize, Vec<u64>);

/// Bind groups kept: those of a few Programs over a twelve-layer base.
const GROUPS_KEPT: usize = 4096;

impl Gpu {
    /// A device without a base.
    #[must_use]
    pub fn new(device: Device) -> Self {
        let (store, tuning) = (Store::new(&device), Tuning::new(device.info()));
        Self { device, store, tuning, measures: false, pipelines: RefCell::default(), scratch: RefCell::default() }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// One line on what runs.
    #[must_use]
    pub fn describe(&self) -> String {
        let info = self.device.info();
        let software = if info.software { ", in software" } else { "" };
        format!("gpu: {} ({}{software})", info.name, info.interface)
    }

    /// Runs the variant of this name wherever it fits, instead of the one that would be chosen: for tests and benchmarks.
    /// Calls of fast precision round as it does, if it makes linear layers. Whether the device can.
    pub fn prefer(&mut self, variant: Option<&'static str>) -> bool {
        self.tuning.only = variant;
        let covers = VARIANTS.iter().find(|v| Some(v.name) == variant).map(|v| v.covers);
        match covers {
            Some(Covers::Linear) => self.round(Rounded::No),
            Some(Covers::Packed) => self.round(Rounded::Bytes),
            Some(Covers::Half) => self.round(Rounded::Half),
            _ => true,
        }
    }

    /// What quantized layers run on in calls of fast precision, whatever was measured: for tests and benchmarks. Whether
    /// the device can.
    pub fn round(&mut self, how: Rounded) -> bool {
        let info = self.device.info();
        let (covers, can) = match how {
            Rounded::No => (Covers::Linear, true),
            Rounded::Bytes => (Covers::Packed, info.packed),
            Rounded::Half => (Covers::Half, info.half),
        };
        if can {
            self.tuning.fast = covers;
        }
        can
    }

    /// Has calls that begin from now on measure themselves, by kernel: see [`Run::profile`](crate::Run::profile). Whether
    /// the device can.
    pub fn measure(&mut self) -> bool {
        self.measures = self.device.info().timed;
        self.measures
    }

    /// The names of all variants, in the order of the table.
    #[must_use]
    pub fn variants() -> Vec<&'static str> {
        VARIANTS.iter().map(|v| v.name).collect()
    }

    /// Takes weight `id` of `spec`: the layers' matrices and vectors. Embedding tables are not kept.
    ///
    /// # Errors
    /// When the device is lost or its memory full.
    pub fn load(&mut self, spec: &ModelSpec, id: WeightId, matrix: &Matrix) -> Result<()> {
        let linear = spec.linears.values().any(|l| l.weight == id);
        if linear {
            self.store.load(&self.device, id, matrix);
        } else if spec.embeddings.ids().chain(spec.relative.map(|r| r.table)).all(|table| table != id) {
            self.store.load_vector(&self.device, id, &matrix.to_f32())?;
        }
        self.device.check()
    }

    /// Drops what is kept for payload `id`, once no call reads it.
    pub fn forget(&mut self, id: PayloadId) {
        self.store.forget(id);
    }

    /// Bytes of weights and adapters on the device.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.store.bytes()
    }

    /// Bytes that payload `id` takes on the device.
    #[must_use]
    pub fn payload_bytes(&self, id: PayloadId) -> usize {
        self.store.payload_bytes(id)
    }

    pub(crate) fn pipeline(&self, variant: &'static Variant, extra: Extra) -> Arc<Pipeline> {
        self.pipelines.borrow_mut().get(&self.device, variant, extra)
    }

    /// Rows that fit into one submission: buffers stay under the limit of a binding, and a submission stays short.
    ///
    /// # Errors
    /// When a single row is too large.
    pub(crate) fn pieces(
        &self,
        program: &Program,
        tables: &Tables,
        own: &[Arc<Own>],
    ) -> Result<Vec<std::ops::Range<usize>>> {
        let widths = program.buffers.iter().map(|b| b.width.div_ceil(4));
        let widest = widths.chain(own.iter().map(|o| o.inner() as usize)).max().unwrap_or(1) * 16;
        let limit = crate::arena::BINDING_LIMIT / widest;
        // Keys and values of rows under prefixes stand together with those.
        let prefixes = program.steps.iter().filter_map(|s| match s.kind {
            StepKind::Attention { prefix, .. } => Some(prefix?.count as usize),
            _ => None,
        });
        let slots = prefixes.max().unwrap_or(0) * own.iter().map(|o| o.slots()).max().unwrap_or(0);
        let short = if self.device.info().software { SOFTWARE_TOKENS } else { HARDWARE_TOKENS };
        let mut out = Vec::new();
        let (mut start, mut tokens, mut held) = (0, 0, 0);
        for row in 0..tables.rows() {
            let own = tables.row(row).len();
            held += own + slots;
            if own + slots > limit {
                return Err(crate::failed(format!(
                    "a row of {own} tokens needs a buffer of {} MB and a binding holds {}; use the cpu backend",
                    (own * widest) >> 20,
                    crate::arena::BINDING_LIMIT >> 20
                )));
            }
            if row > start && (tokens + own > short || held > limit) {
                out.push(start..row);
                (start, tokens, held) = (row, 0, own + slots);
            }
            tokens += own;
        }
        if start < tables.rows() {
            out.push(start..tables.rows());
        }
        Ok(out)
    }

    /// Submits one batch; its outputs come back by and by.
    pub(crate) fn submit<W: Weights>(
        &self,
        call: &Call,
        tables: &Tables,
        own: &[Arc<Own>],
        host: &W,
    ) -> Result<Readback> {
        self.device.check()?;
        let program = &*call.program;
        let mut encoder = Encoder::new(self, call, tables, own);
        encoder.encode()?;
        let Encoder { launches, params, words, hidden, slots, blocks, .. } = encoder;
        let mut scratch = self.scratch.borrow_mut();
        scratch.fit(&self.device, program, tables, params.len() * 4, words.len() * 4, [hidden, blocks]);
        for (i, vec4) in slots.iter().enumerate() {
            match scratch.slots.get_mut(i) {
                Some(held) => held.reserve(&self.device, "slot", vec4 * 16),
                None => scratch.slots.push(Held::new(&self.device, "slot", vec4 * 16)),
            }
        }
        self.upload(&scratch, program, tables, host)?;
        for (to, words) in [(&scratch.tables, &words), (&scratch.params, &params)] {
            if let Some(to) = to
                && !words.is_empty()
            {
                self.device.queue.write_buffer(&to.raw, 0, bytemuck::cast_slice(words));
            }
        }
        let groups = scratch.bind(self, &launches);
        let mut commands = self.device.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let stamps = self.measures.then(|| Stamps::new(&self.device, &launches));
        let mut next = 0;
        let passes: Vec<&[Launch<'_>]> = if stamps.is_some() { passes(&launches).collect() } else { vec![&launches] };
        for (i, launches) in passes.into_iter().enumerate() {
            let timestamp_writes = stamps.as_ref().map(|s| s.writes(i));
            let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            let mut last = None;
            for launch in launches {
                if last.replace(launch.pipeline.id) != Some(launch.pipeline.id) {
                    pass.set_pipeline(&launch.pipeline.raw);
                }
                pass.set_bind_group(0, scratch.groups.get(&groups[next]), &[(next * STRIDE) as u32]);
                let [x, y, z] = launch.groups;
                pass.dispatch_workgroups(x, y, z);
                next += 1;
            }
        }
        Readback::begin(&self.device, program, tables, &scratch.activations, commands, stamps)
    }

    /// Gathers the rows of the embedding tables, adds them up as the step says, and sends them; and images' patches.
    fn upload<W: Weights>(&self, scratch: &Scratch, program: &Program, tables: &Tables, host: &W) -> Result<()> {
        for step in &program.steps {
            let (StepKind::Embed { out, .. } | StepKind::Patches { out } | StepKind::Positions { out, .. }) = step.kind
            else {
                continue;
            };
            let desc = program.buffers[out.0 as usize];
            let (width, stride) = (desc.width, desc.width.next_multiple_of(4));
            let mut values = vec![0.0f32; tables.len(desc.extent) * stride];
            let rows = values.chunks_exact_mut(stride).map(|y| &mut y[..width]).enumerate();
            match step.kind {
                StepKind::Embed { word, position, token_type, .. } => {
                    let mut row = vec![0.0; width];
                    let weights = EmbeddingWeights { word, position, token_type };
                    for (t, y) in rows {
                        if let Some(embedded) = &tables.embedded {
                            y.copy_from_slice(&embedded[t * width..(t + 1) * width]);
                            continue;
                        }
                        embed_token(weights, tables.embedding(t), y, &mut row, |id, row, out| host.row(id, row, out))?;
                    }
                }
                StepKind::Patches { .. } => {
                    let pixels = tables.pixels.as_deref().unwrap_or_default();
                    rows.zip(pixels.chunks_exact(width)).for_each(|((_, y), patch)| y.copy_from_slice(patch));
                }
                StepKind::Positions { table, .. } => {
                    for (relative, (p, y)) in tables.relative.iter().cycle().zip(rows) {
                        relative.give(p, y, |row, y| host.row(table, row, y))?;
                    }
                }
                _ => {}
            }
            let to = scratch.activations.get(out.0 as usize).ok_or_else(|| Error::Program("no buffer".into()))?;
            self.device.queue.write_buffer(&to.raw, 0, bytemuck::cast_slice(&values));
        }
        Ok(())
    }
}

/// Tokens of a submission: some milliseconds on a graphics card.
const HARDWARE_TOKENS: usize = 8192;
/// A software device takes some hundredths of a second a token.
const SOFTWARE_TOKENS: usize = 128;

impl Scratch {
    /// Makes every buffer large enough, and forgets bind groups over those that were replaced.
    fn fit(
        &mut self,
        device: &Device,
        program: &Program,
        tables: &Tables,
        params: usize,
        words: usize,
        [hidden, blocks]: [usize; 2],
    ) {
        for (i, desc) in program.buffers.iter().enumerate() {
            let bytes = desc.width.div_ceil(4) * 16 * tables.len(desc.extent);
            match self.activations.get_mut(i) {
                Some(held) => held.reserve(device, "activations", bytes),
                None => self.activations.push(Held::new(device, "activations", bytes)),
            }
        }
        let rows =
            [Extent::Tokens, Extent::Rows, Extent::Positions].map(|e| tables.len(e)).into_iter().max().unwrap_or(0);
        grow(&mut self.hidden, device, "low-rank", rows * hidden.max(1) * 16);
        if blocks > 0 {
            grow(&mut self.codes, device, "codes", rows * blocks * 32);
            grow(&mut self.code_scales, device, "code scales", rows * blocks * 8);
        }
        grow(&mut self.tables, device, "tables", words);
        if self.params.as_ref().is_none_or(|p| p.bytes < params) {
            // A block is bound whole, the last one too.
            self.params = Some(Held::uniform(device, "params", (params + STRIDE).next_power_of_two()));
        }
        if self.groups.len() > GROUPS_KEPT {
            self.groups.clear();
        }
    }

    fn held<'a>(&'a self, store: &'a Store, bind: &Bind<'a>) -> Option<&'a Held> {
        match bind {
            Bind::Arena => Some(&store.arena.held),
            Bind::Tables => self.tables.as_ref(),
            Bind::Activation(id) => self.activations.get(id.0 as usize),
            Bind::Slot(index) => self.slots.get(*index),
            Bind::Hidden => self.hidden.as_ref(),
            Bind::Codes => self.codes.as_ref(),
            Bind::CodeScales => self.code_scales.as_ref(),
            Bind::Weight(held) => Some(held),
        }
    }

    fn key(&self, store: &Store, launch: &Launch<'_>) -> GroupKey {
        let ids = launch.binds.iter().filter_map(|b| Some(self.held(store, b)?.id));
        (launch.pipeline.id, ids.chain(self.params.as_ref().map(|p| p.id)).collect())
    }

    /// Makes the bind groups that are not there yet; the key of each launch's.
    fn bind(&mut self, gpu: &Gpu, launches: &[Launch<'_>]) -> Vec<GroupKey> {
        let keys: Vec<GroupKey> = launches.iter().map(|launch| self.key(&gpu.store, launch)).collect();
        for (launch, key) in launches.iter().zip(&keys) {
            if self.groups.contains_key(key) {
                continue;
            }
            let Some(params) = &self.params else { continue };
            let size = std::num::NonZeroU64::new(BLOCK_BYTES);
            let block = wgpu::BufferBinding { buffer: &params.raw, offset: 0, size };
            let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(block) }];
            for (i, held) in launch.binds.iter().filter_map(|b| self.held(&gpu.store, b)).enumerate() {
                let resource = held.raw.as_entire_binding();
                entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
            }
            let group = gpu.device.raw.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(launch.pipeline.variant.name),
                layout: &launch.pipeline.layout,
                entries: &entries,
            });
            self.groups.insert(key.clone(), group);
        }
        keys
    }
}

fn grow(held: &mut Option<Held>, device: &Device, label: &str, bytes: usize) {
    match held {
        Some(held) => held.reserve(device, label, bytes.next_power_of_two()),
        None => *held = Some(Held::new(device, label, bytes.next_power_of_two())),
    }
}
