//! A base on a backend with adapters grafted onto it: plans, caches Programs, starts and advances jobs.

use crate::backend::{Backend, Call, Poll, Precision};
use crate::batch::{self, Layout, Row};
use crate::compose::{self, Adapters, Compose, Grafted, Resolved};
use crate::error::{Error, Result};
use crate::ir::{self, AdapterIr, Graft, LoadReport, Op, Payload, PayloadId};
use crate::model::{HeadSpec, ModelSpec};
use crate::plan::{self, Shape, Want};
use crate::program::{self, OutputKind, Program, Tables};
use std::collections::HashMap;
use std::sync::Arc;

mod chains;
mod embed;
mod factors;
mod occupied;
mod setup;
mod stacks;
mod variants;

pub use occupied::Occupied;
pub use variants::BUDGET as VARIANTS_BUDGET;

/// Programs kept; a page uses a handful of shapes.
const PROGRAMS_KEPT: usize = 32;

/// A loaded base with its adapters.
///
/// Nothing is "active": which adapters a row takes is an argument of each call.
pub struct Session<B: Backend> {
    spec: Arc<ModelSpec>,
    stacks: stacks::Stacks,
    backend: B,
    adapters: Adapters,
    programs: HashMap<(Shape, Want), Arc<Program>>,
    next_payload: u64,
    variants: variants::Variants,
    blends: HashMap<Vec<u64>, Arc<Payload>>,
}

/// A batch: rows, and for each the index of its composition.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The rows.
    pub rows: Vec<Row>,
    /// The distinct compositions.
    pub compositions: Vec<Compose>,
    /// `of[i]` is the composition of `rows[i]`.
    pub of: Vec<usize>,
}

impl Batch {
    /// All rows under one composition.
    #[must_use]
    pub fn uniform(rows: Vec<Row>, compose: Compose) -> Self {
        let of = vec![0; rows.len()];
        Self { rows, compositions: vec![compose], of }
    }

    /// A composition for each row; equal ones are found by their text.
    #[must_use]
    pub fn by_row(rows: Vec<Row>, composes: Vec<Compose>) -> Self {
        let mut out = Self { rows, ..Self::default() };
        out.of = composes.into_iter().map(|c| out.composition(c)).collect();
        out
    }

    /// The index of `compose` among the distinct ones, added when it is new.
    pub fn composition(&mut self, compose: Compose) -> usize {
        let text = compose.to_string();
        self.compositions.iter().position(|c| c.to_string() == text).unwrap_or_else(|| {
            self.compositions.push(compose);
            self.compositions.len() - 1
        })
    }
}

/// A call in flight. Keeps the payloads it uses: unloading an adapter meanwhile changes nothing.
pub struct Job<B: Backend> {
    run: B::Run,
    call: Call,
    layout: Layout,
    heads: Vec<Option<HeadSpec>>,
}

impl<B: Backend> Job<B> {
    /// What the job runs.
    #[must_use]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// The backend's own state of the call, for what only it knows, such as a profile.
    #[must_use]
    pub fn run(&self) -> &B::Run {
        &self.run
    }
}

/// Logits of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// `[labels]`, or `[tokens, labels]`.
    pub values: Vec<f32>,
    /// The head they come from.
    pub head: HeadSpec,
}

/// What one row gave, as far as it was asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowOutput {
    /// `[tokens, hidden]`.
    pub hidden: Option<Vec<f32>>,
    /// `[embedding width]`, L2-normalised.
    pub embedding: Option<Vec<f32>>,
    /// Absent when neither the row's adapters nor the base bring a head.
    pub logits: Option<Logits>,
}

impl<B: Backend> Session<B> {
    /// A session on a backend that holds all of the base's weights.
    ///
    /// # Errors
    /// When the backend lacks a weight.
    pub fn new(spec: ModelSpec, mut backend: B) -> Result<Self> {
        backend.ready(&spec)?;
        Ok(Self {
            stacks: stacks::Stacks::new(&spec),
            spec: Arc::new(spec),
            backend,
            adapters: Adapters::new(),
            programs: HashMap::new(),
            next_payload: 0,
            variants: variants::Variants::default(),
            blends: HashMap::new(),
        })
    }

    /// The base.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The backend, for settings of its own.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// The base and the backend, to give the one to the other.
    pub fn parts(&mut self) -> (&ModelSpec, &mut B) {
        (&self.spec, &mut self.backend)
    }

    /// The adapters that are loaded.
    #[must_use]
    pub fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    /// Loads an adapter under `name`, in place of one of that name if there is one. All or nothing.
    ///
    /// # Errors
    /// A name that no composition could spell; a patch that does not fit the base.
    pub fn graft(&mut self, name: &str, adapter: AdapterIr, options: Graft) -> Result<LoadReport> {
        compose::check_name(name)?;
        let report = ir::check(name, &adapter, &self.spec, options)?;
        let mut adapter = adapter;
        let stack = self.stacks.add(&mut adapter, &self.spec)?;
        embed::prepare(&mut adapter, &self.spec, &self.backend)?;
        let mut patches: Vec<_> = adapter
            .patches
            .into_iter()
            .map(|patch| {
                self.next_payload += 1;
                (patch.site, Arc::new(Payload { id: PayloadId(self.next_payload), op: patch.op }))
            })
            .collect();
        // Collected in place, it would keep the room of the ops.
        patches.shrink_to_fit();
        self.ungraft_if_loaded(name);
        let grafted = Grafted {
            patches,
            head: adapter.head,
            made_under: adapter.made_under,
            rows: adapter.rows,
            stack,
            chains: adapter.chains,
            fuses: adapter.fuses,
            setup: None,
        };
        self.adapters.insert(name.into(), Arc::new(grafted));
        Ok(report)
    }

    /// Unloads an adapter. Calls in flight end on their own copy.
    ///
    /// # Errors
    /// When no adapter of that name is loaded.
    pub fn ungraft(&mut self, name: &str) -> Result<()> {
        if self.ungraft_if_loaded(name) {
            return Ok(());
        }
        Err(Error::AdapterUnknown { name: name.into(), loaded: self.adapters.keys().cloned().collect() })
    }

    fn ungraft_if_loaded(&mut self, name: &str) -> bool {
        let Some(old) = self.adapters.remove(name) else { return false };
        for part in old.setup.iter().flat_map(|s| &s.parts) {
            self.ungraft_if_loaded(part);
        }
        // What compositions made of its payloads goes with them, and what they made of that.
        let mut gone: Vec<PayloadId> = old.patches.iter().map(|(_, payload)| payload.id).collect();
        // A blend of nobody's has nothing to go with.
        let nobodys = |p: &Payload| matches!(&p.op, Op::Blend(blend) if blend.payloads().next().is_none());
        gone.extend(self.blends.values().filter(|p| nobodys(p)).map(|p| p.id));
        self.blends.retain(|_, p| !nobodys(p));
        let mut at = 0;
        while let Some(&id) = gone.get(at) {
            let of = |key: &Vec<u64>| key.contains(&id.0);
            gone.extend(self.blends.iter().filter(|(key, _)| of(key)).map(|(_, blend)| blend.id));
            self.blends.retain(|key, _| !of(key));
            gone.extend(self.variants.forget(id));
            self.backend.forget(id);
            at += 1;
        }
        true
    }

    /// What a row under `compose` takes.
    ///
    /// # Errors
    /// As [`compose::resolve`].
    pub fn resolve(&mut self, compose: &Compose) -> Result<Resolved> {
        let mut out = compose::resolve(compose, &self.adapters, &self.spec)?;
        self.chain(&mut out)?;
        self.materialize(&mut out)?;
        out.placed.iter_mut().for_each(|p| self.name(&mut p.payload));
        Ok(out)
    }

    /// Bytes of changed layers that are kept for compositions that change weights, at most; 64 MB unless set.
    pub fn set_variants_budget(&mut self, bytes: usize) {
        self.variants.budget = bytes;
    }

    /// Bytes of changed layers that are held.
    #[must_use]
    pub fn variants_bytes(&self) -> usize {
        self.variants.bytes()
    }

    /// Whether payload `id` may come again: of an adapter that is loaded, or of a composition's changed layers.
    #[must_use]
    pub fn holds(&self, id: PayloadId) -> bool {
        self.variants.holds(id)
            || self.blends.values().any(|p| p.id == id)
            || self.adapters.values().any(|a| a.patches.iter().any(|(_, p)| p.id == id))
    }

    /// Gives a payload that a composition has made an identity, the same one each time, and so its members.
    fn name(&mut self, payload: &mut Arc<Payload>) {
        let (PayloadId::UNNAMED, Op::Blend(blend)) = (payload.id, &payload.op) else { return };
        let mut blend = blend.clone();
        blend.parts.iter_mut().flat_map(|p| &mut p.chain).for_each(|(member, _)| self.name(member));
        let key = blend.key();
        if let Some(known) = self.blends.get(&key) {
            *payload = known.clone();
            return;
        }
        self.next_payload += 1;
        *payload = Arc::new(Payload { id: PayloadId(self.next_payload), op: Op::Blend(blend) });
        self.blends.insert(key, payload.clone());
    }

    /// The Program and tables for `batch`, without running them.
    ///
    /// # Errors
    /// A row that the model cannot run; a composition without meaning.
    pub fn prepare(
        &mut self,
        batch: &Batch,
        want: Want,
        precision: Precision,
    ) -> Result<(Call, Layout, Vec<Resolved>)> {
        let resolved: Vec<Resolved> = batch.compositions.iter().map(|c| self.resolve(c)).collect::<Result<_>>()?;
        let refs: Vec<&Resolved> = resolved.iter().collect();
        let (call, layout) = self.prepare_resolved(&batch.rows, &batch.of, &refs, want, precision, None)?;
        Ok((call, layout, resolved))
    }

    fn prepare_resolved(
        &mut self,
        rows: &[Row],
        of: &[usize],
        resolved: &[&Resolved],
        want: Want,
        precision: Precision,
        embedded: Option<&[f32]>,
    ) -> Result<(Call, Layout)> {
        if of.len() != rows.len() || of.iter().any(|&c| c >= resolved.len()) {
            return Err(Error::Argument {
                what: "batch".into(),
                why: format!("{} compositions for {} rows", of.len(), rows.len()),
            });
        }
        for (i, row) in rows.iter().enumerate() {
            self.check_row(i, row, resolved[of[i]])?;
        }
        resolved.iter().filter_map(|r| r.stack.as_ref()).for_each(|s| self.stacks.know(s, &self.spec));
        let program = self.program(Shape::of(resolved.iter().copied()), want)?;
        let layout = Layout::new(of);
        let mut tables = batch::fill(&program, &self.spec, rows, &layout, resolved);
        let width = self.spec.embedding;
        let gathered = if embedded.is_none() && resolved.iter().any(|r| embed::changes_words(r)) {
            Some(embed::gather(rows, of, resolved, &self.spec, &self.backend)?)
        } else {
            None
        };
        let embedded = embedded.or(gathered.as_deref());
        tables.embedded = embedded.map(|v| embed::packed(rows, resolved, of, &layout, v, width)).transpose()?;
        if let Some(relative) = tables.relative.as_mut().filter(|_| resolved.iter().any(|r| r.changes_positions())) {
            relative.embedded = embed::gather_positions(relative, &layout, resolved, &self.spec, &self.backend)?;
        }
        Ok((Call { program, tables: Arc::new(tables), precision }, layout))
    }

    /// Checks that `row`, which errors call `index`, can run under `resolved`.
    pub(crate) fn check_row(&self, index: usize, row: &Row, resolved: &Resolved) -> Result<()> {
        batch::check_row(index, row, &self.spec, embed::vocabulary(resolved, &self.spec))?;
        batch::check_splits(index, row, resolved, &self.spec)?;
        batch::check_interventions(index, row, resolved)?;
        batch::check_room(index, row, resolved.rows, &self.spec)
    }

    fn program(&mut self, shape: Shape, want: Want) -> Result<Arc<Program>> {
        let key = (shape, want);
        if let Some(program) = self.programs.get(&key) {
            return Ok(program.clone());
        }
        let program = Arc::new(plan::plan(self.stacks.spec(), &key.0, want)?);
        if self.programs.len() >= PROGRAMS_KEPT {
            self.programs.clear();
        }
        self.programs.insert(key, program.clone());
        Ok(program)
    }

    /// Starts a call.
    ///
    /// # Errors
    /// As [`Session::prepare`]; when the backend refuses.
    pub fn begin(&mut self, batch: &Batch, want: Want, precision: Precision) -> Result<Job<B>> {
        let resolved: Vec<Resolved> = batch.compositions.iter().map(|c| self.resolve(c)).collect::<Result<_>>()?;
        self.begin_resolved(&batch.rows, &batch.of, &resolved.iter().collect::<Vec<_>>(), want, precision)
    }

    /// Starts a call whose compositions have been resolved: `resolved[of[i]]` is what `rows[i]` takes.
    ///
    /// # Errors
    /// As [`Session::begin`].
    pub fn begin_resolved(
        &mut self,
        rows: &[Row],
        of: &[usize],
        resolved: &[&Resolved],
        want: Want,
        precision: Precision,
    ) -> Result<Job<B>> {
        self.begin_embedded(rows, of, resolved, want, precision, None)
    }

    /// The same, without the embedding tables where `embedded` has what they would give: [`Session::embed`] of the rows.
    ///
    /// # Errors
    /// As [`Session::begin`]; `embedded` of another length.
    pub fn begin_embedded(
        &mut self,
        rows: &[Row],
        of: &[usize],
        resolved: &[&Resolved],
        want: Want,
        precision: Precision,
        embedded: Option<&[f32]>,
    ) -> Result<Job<B>> {
        let (call, layout) = self.prepare_resolved(rows, of, resolved, want, precision, embedded)?;
        let heads = layout.compositions.iter().map(|&c| resolved[c].head.clone()).collect();
        let run = self.backend.begin(call.clone())?;
        Ok(Job { run, call, layout, heads })
    }

    /// What the `Embed` step gives for `rows`, one after the other: `[tokens, width of the tables]`. `resolved[of[i]]` is
    /// what row `i` takes.
    ///
    /// # Errors
    /// A row that the model cannot run.
    pub fn embed(&self, rows: &[Row], of: &[usize], resolved: &[&Resolved]) -> Result<Vec<f32>> {
        for (i, row) in rows.iter().enumerate() {
            batch::check_row(i, row, &self.spec, embed::vocabulary(resolved[of[i]], &self.spec))?;
        }
        embed::gather(rows, of, resolved, &self.spec, &self.backend)
    }

    /// Tells the backend that payload `id` will not come again.
    pub fn forget(&mut self, id: PayloadId) {
        self.backend.forget(id);
    }

    /// Computes until done or until `pause` says so.
    ///
    /// # Errors
    /// When a step fails.
    pub fn advance(&mut self, job: &mut Job<B>, pause: &mut dyn FnMut() -> bool) -> Result<Poll> {
        self.backend.advance(&mut job.run, pause)
    }

    /// Reads the outputs of a job that is done, in the caller's row order.
    ///
    /// # Errors
    /// When an output is not finite, or cannot be read.
    pub fn finish(&mut self, job: &Job<B>) -> Result<Vec<RowOutput>> {
        let tables = &job.call.tables;
        let mut out = vec![RowOutput::default(); tables.rows()];
        for output in &job.call.program.outputs {
            let width = job.call.program.buffers[output.buffer.0 as usize].width;
            let values = self.backend.read(&job.run, output.buffer)?;
            for (packed, &row) in job.layout.order.iter().enumerate() {
                let tokens = tables.row(packed);
                let pick = |r: std::ops::Range<usize>| values[r.start * width..r.end * width].to_vec();
                match output.kind {
                    OutputKind::Hidden => out[row].hidden = Some(finite(pick(tokens), "hidden states", row)?),
                    OutputKind::Embedding => {
                        out[row].embedding = Some(finite(pick(packed..packed + 1), "the embedding", row)?);
                    }
                    OutputKind::Logits(key) => {
                        let Some(head) = job.heads[packed].clone().filter(|h| h.key() == key) else { continue };
                        let values = pick(if key.kind.per_token() { tokens } else { packed..packed + 1 });
                        out[row].logits = Some(Logits { values: finite(values, "the logits", row)?, head });
                    }
                }
            }
        }
        Ok(out)
    }

    /// Begin, advance to the end, finish: for callers that may block.
    ///
    /// # Errors
    /// As the three.
    pub fn run(&mut self, batch: &Batch, want: Want, precision: Precision) -> Result<Vec<RowOutput>> {
        let mut job = self.begin(batch, want, precision)?;
        while self.advance(&mut job, &mut || false)? != Poll::Done {}
        self.finish(&job)
    }

    /// The lines of `explain` for a prepared call: per layer what runs, for which rows, from which adapter, at what cost.
    #[must_use]
    pub fn explain(&self, program: &Program, tables: &Tables) -> Vec<program::Line> {
        let owners: HashMap<PayloadId, &str> =
            self.adapters.iter().flat_map(|(name, a)| a.patches.iter().map(|(_, p)| (p.id, name.as_str()))).collect();
        program::explain(program, tables, self.stacks.spec(), &|id| {
            let mut names = Vec::new();
            self.owners(id, &owners, &mut names);
            names.join(" + ")
        })
    }

    /// The adapters that payload `id` is of: a changed layer is of all that changed it.
    fn owners<'a>(&self, id: PayloadId, known: &HashMap<PayloadId, &'a str>, out: &mut Vec<&'a str>) {
        match self.variants.parts(id) {
            Some(parts) => parts.into_iter().for_each(|part| self.owners(part, known, out)),
            None => {
                let name = known.get(&id).copied().unwrap_or("(unloaded)");
                if !out.contains(&name) {
                    out.push(name);
                }
            }
        }
    }
}

fn finite(values: Vec<f32>, what: &str, row: usize) -> Result<Vec<f32>> {
    if values.iter().all(|x| x.is_finite()) {
        return Ok(values);
    }
    Err(Error::NotFinite { what: format!("{what} of row {row}") })
}
