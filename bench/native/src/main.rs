//! The native engine as a child process of `bench/native.py`: loaded once, it embeds a batch for every line of input,
//! so that neither the start of a process nor the loading of a model is timed.
//!
//! Input: a JSON array of texts. Output: `{"tokens", "cached", "ms", "cpu", "data"}`, where `ms` and `cpu` are
//! milliseconds on the wall and on a core, tokenizing included.

use polygraft::backend::{Backend, Poll, Precision};
use polygraft::compose::Compose;
use polygraft::plan::Want;
use polygraft::session::Session;
use polygraft::tasks::{Encode, Engine, Item, Source};
use polygraft_cpu::Cpu;
use polygraft_formats::container::safetensors::header_len;
use polygraft_formats::{BaseLoader, Files, MemoryFiles, Tokenizer};
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("the model's folder is the one argument")?;
    let mut engine = load(&folder)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::json!({ "backend": engine.session.backend().describe() }))?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let texts: Vec<String> = serde_json::from_str(&line?)?;
        let (wall, core) = (Instant::now(), on_core());
        let resolved = engine.session.resolve(&Compose::default())?;
        let items = texts.into_iter().map(|t| Item { source: Source::Text(String::new(), t), compose: 0 }).collect();
        let want = Want { embedding: true, ..Want::default() };
        let mut task = Encode::new(items, std::slice::from_ref(&resolved), want, Precision::Fast, false);
        while task.advance(&mut engine, &mut || false)? != Poll::Done {}
        let encoded = task.finish()?;
        let (ms, cpu) = (wall.elapsed().as_secs_f64() * 1e3, core.zip(on_core()).map(|(a, b)| b - a));
        let data: Vec<f32> = encoded.outputs.into_iter().flatten().filter_map(|r| r.embedding).flatten().collect();
        let report = encoded.report;
        let reply =
            serde_json::json!({ "tokens": report.tokens, "cached": report.cached, "ms": ms, "cpu": cpu, "data": data });
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}

/// Milliseconds that this thread has spent on a core, where Linux tells it.
fn on_core() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e6)
}

/// A base from its folder, by way of memory.
fn load(folder: &str) -> Result<Engine<Cpu>, Box<dyn Error>> {
    let mut files = MemoryFiles::default();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        files.0.insert(entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?);
    }
    let mut backend = Cpu::new();
    let mut loader = BaseLoader::new(&files)?;
    for shard in loader.shards().to_vec() {
        let len = files.len(&shard)?;
        let header = header_len(&shard, &files.range(&shard, 0, 64.min(len))?)?;
        let header = files.range(&shard, 0, header.min(len))?;
        for plan in loader.begin(&shard, &header, len)? {
            let bytes = files.range(&shard, plan.offset, plan.bytes)?;
            for (id, matrix) in loader.tensor(&shard, plan.index, bytes)? {
                backend.load_weight(id, matrix)?;
            }
        }
    }
    let spec = loader.finish()?;
    let tokenizer = Tokenizer::load(&files, spec.vocab)?;
    Ok(Engine::new(Session::new(spec, backend)?, Box::new(tokenizer), Precision::Fast))
}
