//! Everything behind the boundary, without a JavaScript type in it: handles, jobs, JSON in and out.

use crate::failure::{Failure, Result};
use crate::folder::Folder;
use crate::requests::{self, EmbedArgs, ExplainArgs, IndexArgs, LanguageArgs, RerankArgs, SearchArgs, SideName};
use polygraft::backend::{Backend, Poll, Precision};
use polygraft::batch::Row;
use polygraft::compose::{Compose, Resolved};
use polygraft::ir::{Graft, LoadReport};
use polygraft::model::Side;
use polygraft::plan::Want;
use polygraft::session::Batch;
use polygraft::tasks::{BuildIndex, Encode, Engine, Index, Item, LanguageVector, Report, Rerank, Search, Source};
use polygraft::text;
use polygraft_formats::AdapterOptions;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What computes.
pub(crate) type Host = crate::duo::Duo;

fn index(indexes: &BTreeMap<u32, Index>, handle: u32) -> Result<&Index> {
    indexes.get(&handle).ok_or_else(|| Failure::argument("index", "it has been disposed of"))
}

/// A loaded model: its engine, the calls in flight, the indexes that JavaScript holds.
pub(crate) struct Core {
    pub(crate) engine: Engine<Host>,
    /// Calls in flight, each with whether it is done.
    pub(crate) jobs: BTreeMap<u32, (Job, bool)>,
    /// Satellites that there are, whether or not they are of use now.
    pub(crate) satellites: usize,
    indexes: BTreeMap<u32, Index>,
    last_handle: u32,
}

pub(crate) enum Job {
    Embed(Box<Embed>),
    Rerank(Box<Rerank<Host>>),
    Index(Box<BuildIndex<Host>>),
    Search(Box<Search<Host>>, u32),
    Language(Box<LanguageVector<Host>>, Option<String>),
}

pub(crate) struct Embed {
    pub(crate) encode: Encode<Host>,
    resolved: Vec<Resolved>,
    /// Composition of each text, into `resolved`.
    of: Vec<usize>,
    /// Which of a language vector's two the texts take.
    side: Side,
}

/// What a job gave.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The answer, as JSON.
    pub(crate) json: String,
    /// A file, where there is one.
    pub(crate) bytes: Vec<u8>,
    /// Embeddings, row major, where there are any.
    pub(crate) floats: Vec<f32>,
}

#[derive(Serialize)]
struct EmbedAnswer<'a> {
    rows: usize,
    width: usize,
    shapes: Vec<[usize; 2]>,
    report: &'a Report,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct LanguageAnswer<'a> {
    report: &'a Report,
    adapter: Option<LoadReport>,
}

impl Core {
    /// A model without adapters.
    pub(crate) fn new(engine: Engine<Host>) -> Self {
        Self { engine, jobs: BTreeMap::new(), satellites: 0, indexes: BTreeMap::new(), last_handle: 0 }
    }

    /// The model in JSON.
    pub(crate) fn info(&self) -> Value {
        let spec = self.engine.session.spec();
        json!({
            "name": spec.fingerprint.name,
            "arch": spec.arch.name(),
            "lineage": spec.fingerprint.lineage,
            "hidden": spec.hidden,
            "layers": spec.layers,
            "vocabulary": spec.vocab,
            "maxTokens": spec.max_tokens(),
            "embeddingWidth": spec.embedding_width(),
            "image": spec.image.map(|i| json!({"channels": i.channels, "height": i.size[0], "width": i.size[1]})),
            "headLabels": spec.head.as_ref().map_or(0, |h| h.labels),
            "backend": self.engine.session.backend().describe(),
            "precision": match self.engine.precision { Precision::Exact => "exact", Precision::Fast => "fast" },
        })
    }

    /// Bytes that the backend holds for weights and packed adapters.
    pub(crate) fn weights(&self) -> usize {
        self.engine.session.backend().memory()
    }

    /// Lets a GPU take calls of at least `crossover` tokens; embeddings made elsewhere are forgotten.
    pub(crate) fn attach_gpu(&mut self, gpu: polygraft_gpu::Gpu, crossover: usize) -> Result<()> {
        self.engine.forget_embeddings();
        let (spec, duo) = self.engine.session.parts();
        duo.attach(spec, gpu)?;
        duo.cross_at(crossover);
        self.count_satellites();
        Ok(())
    }

    /// Computes on the CPU from now on. Calls that are in flight on the GPU are dropped.
    pub(crate) fn detach_gpu(&mut self) {
        self.engine.forget_embeddings();
        self.engine.session.backend_mut().detach();
        self.count_satellites();
    }

    /// Which calls go to the GPU.
    pub(crate) fn cross_at(&mut self, tokens: usize) {
        self.engine.forget_embeddings();
        self.engine.session.backend_mut().cross_at(tokens);
        self.count_satellites();
    }

    /// Has calls measure themselves by kernel from now on.
    pub(crate) fn measure(&mut self, clock: polygraft_cpu::Clock) {
        self.engine.session.backend_mut().measure(clock);
    }

    /// Milliseconds by kernel since this was last asked, in JSON.
    pub(crate) fn take_profile(&mut self) -> String {
        json!(self.engine.session.backend_mut().take_spent()).to_string()
    }

    /// What the GPU owes to the job that is waiting for it.
    pub(crate) fn take_waiting(&mut self) -> Option<crate::duo::Waiting> {
        self.engine.session.backend_mut().take_waiting()
    }

    /// Loads an adapter; the report in JSON.
    pub(crate) fn load_adapter(&mut self, name: &str, files: &Folder, options: &str) -> Result<String> {
        let options: AdapterOptions = requests::parse("options", options)?;
        let graft = Graft { allow_base_mismatch: options.allow_base_mismatch };
        let loaded = polygraft_formats::load(files, self.engine.session.spec(), &options)?;
        to_json(&loaded.graft(&mut self.engine.session, name, graft)?)
    }

    /// Unloads an adapter.
    pub(crate) fn unload_adapter(&mut self, name: &str) -> Result<()> {
        Ok(self.engine.session.ungraft(name)?)
    }

    /// Checks the arguments of `op` and prepares the job; gives its handle. `pixels` are the images that they speak of,
    /// all of one size, one after the other.
    pub(crate) fn start(&mut self, op: &str, args: &str, pixels: &[f32]) -> Result<u32> {
        let job = match op {
            "embed" | "classify" => {
                Job::Embed(Box::new(self.embed(requests::parse(op, args)?, pixels, op == "classify")?))
            }
            "rerank" => {
                let request = requests::parse::<RerankArgs>(op, args)?.into_request()?;
                Job::Rerank(Box::new(Rerank::new(&mut self.engine, request)?))
            }
            "index" => {
                let args: IndexArgs = requests::parse(op, args)?;
                let (sides, precision) = (args.sides()?, args.precision());
                Job::Index(Box::new(BuildIndex::new(
                    &mut self.engine,
                    args.documents,
                    &sides,
                    args.windows,
                    precision,
                )?))
            }
            "search" => {
                let args: SearchArgs = requests::parse(op, args)?;
                let handle = args.index;
                let request = args.into_request()?;
                Job::Search(Box::new(Search::new(&mut self.engine, index(&self.indexes, handle)?, request)?), handle)
            }
            "languageVector" => {
                let args: LanguageArgs = requests::parse(op, args)?;
                let name = args.name.clone();
                name.as_deref().map_or(Ok(()), polygraft::compose::check_name)?;
                Job::Language(Box::new(LanguageVector::new(&mut self.engine, args.into_request()?)?), name)
            }
            other => return Err(Failure::argument("operation", format!("{other:?} is not one"))),
        };
        let handle = self.handle();
        self.jobs.insert(handle, (job, false));
        Ok(handle)
    }

    /// Embeddings, or the logits of each row's head.
    fn embed(&mut self, args: EmbedArgs, pixels: &[f32], logits: bool) -> Result<Embed> {
        if args.items() == 0 {
            return Err(Failure::argument("texts", "the list is empty; there is nothing to embed"));
        }
        let mut distinct: Vec<Compose> = Vec::new();
        let mut of: Vec<usize> = Vec::new();
        for compose in args.compositions()? {
            let at = distinct.iter().position(|c| *c == compose).unwrap_or(distinct.len());
            if at == distinct.len() {
                distinct.push(compose);
            }
            of.push(at);
        }
        of.resize(args.items(), 0);
        let resolved: Vec<Resolved> =
            distinct.iter().map(|c| self.engine.session.resolve(c)).collect::<Result<_, polygraft::Error>>()?;
        if let Some(bare) = resolved.iter().find(|r| logits && r.head.is_none()) {
            let (task, needed) = ("classify".into(), "a head".into());
            return Err(polygraft::Error::HeadMissing { task, needed, compose: bare.text.clone() }.into());
        }
        let side = if args.side == Some(SideName::Query) { Side::Query } else { Side::Document };
        let prompt = if args.side.is_some() { self.engine.session.spec().prompt(side) } else { "" };
        let precision = args.precision().unwrap_or(self.engine.precision);
        let texts = args.texts.into_iter().map(|text| Source::Text(prompt.to_owned(), text));
        let spec = self.engine.session.spec();
        let images = pixels.chunks((pixels.len() / args.images.max(1)).max(1));
        let images = images.map(|image| Source::Row(Row::image(image.to_vec(), spec)));
        let items = texts.chain(images).zip(&of).map(|(source, &compose)| Item { source, compose });
        let want = Want { embedding: !logits, logits, ..Want::default() };
        let encode = Encode::new(items.collect(), &resolved, want, precision, false);
        Ok(Embed { encode, resolved, of, side })
    }

    /// Works on a job until it is done or `pause` says so; gives where it stands, and tokens done and in all.
    pub(crate) fn step(&mut self, handle: u32, pause: &mut dyn FnMut() -> bool) -> Result<(Poll, usize, usize)> {
        let Some((job, finished)) = self.jobs.get_mut(&handle) else { return Err(no_job(handle)) };
        let engine = &mut self.engine;
        let (poll, (done, total)) = match job {
            Job::Embed(e) => (e.encode.advance(engine, pause), e.encode.progress()),
            Job::Rerank(t) => (t.advance(engine, pause), t.progress()),
            Job::Index(t) => (t.advance(engine, pause), t.progress()),
            // One row: there is no progress to speak of.
            Job::Search(t, _) => (t.advance(engine, pause), (0, 0)),
            Job::Language(t, _) => (t.advance(engine, pause), t.progress()),
        };
        match poll {
            Ok(poll) => {
                *finished = poll == Poll::Done;
                Ok((poll, done, total))
            }
            Err(error) => {
                self.jobs.remove(&handle);
                Err(error.into())
            }
        }
    }

    /// The answer of a job that is done; its handle is spent.
    pub(crate) fn result(&mut self, handle: u32) -> Result<Output> {
        let (job, true) = self.jobs.remove(&handle).ok_or_else(|| no_job(handle))? else {
            return Err(Failure::argument("job", format!("{handle} was not done")));
        };
        match job {
            Job::Embed(embed) => embedded(*embed),
            Job::Rerank(task) => Ok(Output { json: to_json(&task.finish()?)?, ..Output::default() }),
            Job::Search(task, index) => {
                Ok(Output { json: to_json(&task.finish(self::index(&self.indexes, index)?)?)?, ..Output::default() })
            }
            Job::Index(task) => {
                let (index, report) = task.finish()?;
                let size = index.entries.len();
                let handle = self.handle();
                self.indexes.insert(handle, index);
                let json = json!({"index": handle, "size": size, "report": report}).to_string();
                Ok(Output { json, ..Output::default() })
            }
            Job::Language(task, name) => {
                let (adapter, report) = task.finish()?;
                let bytes = polygraft_formats::write_language_vector(&adapter)?;
                let adapter =
                    name.map(|name| self.engine.session.graft(&name, adapter, Graft::default())).transpose()?;
                let json = to_json(&LanguageAnswer { report: &report, adapter })?;
                Ok(Output { json, bytes, floats: Vec::new() })
            }
        }
    }

    /// Drops a job, done or not. A handle that is spent is fine.
    pub(crate) fn cancel(&mut self, handle: u32) {
        self.jobs.remove(&handle);
    }

    /// Drops an index. A handle that is spent is fine.
    pub(crate) fn drop_index(&mut self, handle: u32) {
        self.indexes.remove(&handle);
    }

    /// An index as a file.
    pub(crate) fn save_index(&self, handle: u32) -> Result<Vec<u8>> {
        Ok(polygraft_formats::write_index(index(&self.indexes, handle)?)?)
    }

    /// A saved index, if it belongs to this base; gives its handle and how many documents it has.
    pub(crate) fn load_index(&mut self, bytes: Vec<u8>) -> Result<(u32, usize)> {
        let index = polygraft_formats::read_index("index", bytes)?;
        index.check(self.engine.session.spec())?;
        let size = index.entries.len();
        let handle = self.handle();
        self.indexes.insert(handle, index);
        Ok((handle, size))
    }

    /// What would run for a batch of texts, in JSON.
    pub(crate) fn explain(&mut self, args: &str) -> Result<String> {
        let args: ExplainArgs = requests::parse("explain", args)?;
        if args.texts.is_empty() {
            return Err(Failure::argument("texts", "the list is empty; there is nothing to explain"));
        }
        let composes = args.compositions()?;
        let (spec, tokenizer) = (self.engine.session.spec(), self.engine.tokenizer.as_ref());
        let rows = args
            .texts
            .iter()
            .map(|t| Ok(text::single(spec, tokenizer, t, spec.max_tokens())?.row))
            .collect::<Result<Vec<_>>>()?;
        let want = Want { embedding: true, ..Want::default() };
        let batch = Batch::by_row(rows, composes);
        let (call, _, resolved) = self.engine.session.prepare(&batch, want, self.engine.precision)?;
        let lines = self.engine.session.explain(&call.program, &call.tables);
        let text: Vec<String> = lines.iter().map(|l| l.to_string().trim_end().to_owned()).collect();
        let macs: u64 = lines.iter().map(|l| l.macs).sum();
        let mut warnings: Vec<String> = resolved.into_iter().flat_map(|r| r.warnings).collect();
        warnings.dedup();
        let adapters = self.engine.session.occupied();
        let text = text.join("\n");
        Ok(json!({"lines": lines, "text": text, "macs": macs, "adapters": adapters, "warnings": warnings}).to_string())
    }

    fn handle(&mut self) -> u32 {
        self.last_handle = self.last_handle.wrapping_add(1);
        self.last_handle
    }
}

/// The backbone's embeddings with each composition's offsets, as the tasks of the core apply them.
fn embedded(embed: Embed) -> Result<Output> {
    let encoded = embed.encode.finish()?;
    let rows = encoded.outputs.len();
    let mut floats = Vec::new();
    // Of each row's logits, how many there are, and how many a label set has.
    let mut shapes: Vec<[usize; 2]> = Vec::new();
    for (outputs, &composition) in encoded.outputs.into_iter().zip(&embed.of) {
        for output in outputs {
            if let Some(mut embedding) = output.embedding {
                embed.resolved[composition].shift(&mut embedding, embed.side);
                floats.append(&mut embedding);
            }
            if let Some(mut logits) = output.logits {
                shapes.push([logits.values.len(), logits.head.labels as usize]);
                floats.append(&mut logits.values);
            }
        }
    }
    let mut warnings: Vec<String> = embed.resolved.into_iter().flat_map(|r| r.warnings).collect();
    warnings.dedup();
    let width = floats.len() / rows.max(1);
    let json = to_json(&EmbedAnswer { rows, width, shapes, report: &encoded.report, warnings })?;
    Ok(Output { json, bytes: Vec::new(), floats })
}

pub(crate) fn no_job(handle: u32) -> Failure {
    Failure::argument("job", format!("{handle} is not in flight"))
}

fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Failure { code: "INTERNAL", message: e.to_string() })
}
