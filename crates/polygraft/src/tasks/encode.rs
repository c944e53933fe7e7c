//! The workhorse of every task: texts → rows → chunks of packed batches → one output an item, resumably.

use super::share::Out;
use super::{Cache, Engine};
use crate::backend::{Backend, Poll, Precision};
use crate::batch::Row;
use crate::compose::Resolved;
use crate::error::{Error, Result};
use crate::plan::Want;
use crate::session::{Job, RowOutput};
use crate::text;
use serde::Serialize;

/// Tokens in one packed batch: enough rows for tall matrices, about 12 KB of scratch a token.
pub(super) const CHUNK_TOKENS: usize = 1024;

/// What becomes one item's rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A prompt and a text.
    Text(String, String),
    /// A query and a passage in one row.
    Pair(String, String),
    /// Tokens as they are.
    Row(Row),
}

/// One thing to encode.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The text.
    pub source: Source,
    /// Index of its composition.
    pub compose: usize,
}

/// What happened to the texts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Tokens of all rows, special tokens included.
    pub tokens: usize,
    /// Rows run or found in memory.
    pub rows: usize,
    /// Rows found in memory.
    pub cached: usize,
    /// Items that were cut, by index.
    pub truncated: Vec<usize>,
    /// Tokens cut off.
    pub truncated_tokens: usize,
    /// Whether the first text of a pair was cut.
    #[serde(skip)]
    pub first_cut: bool,
}

/// The outputs, item by item: one row each unless windows were asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoded {
    /// `outputs[i]` are the rows of item `i`.
    pub outputs: Vec<Vec<RowOutput>>,
    /// What happened to the texts.
    pub report: Report,
}

/// The task. Embeddings are those of the *backbone*: offsets are applied by whoever asked ([`Resolved::shift`]).
pub struct Encode<B: Backend> {
    items: Vec<Item>,
    pub(super) resolved: Vec<Resolved>,
    pub(super) want: Want,
    pub(super) precision: Precision,
    windows: bool,
    tokenized: usize,
    pub(super) rows: Vec<Row>,
    /// Item and composition of each row.
    pub(super) of: Vec<(usize, usize)>,
    outputs: Vec<Option<RowOutput>>,
    /// Rows that nobody works on; the next ones are at the end.
    pub(super) todo: Option<Vec<usize>>,
    /// Tokens of `todo`.
    pub(super) todo_tokens: usize,
    pub(super) running: Option<(Job<B>, Vec<usize>)>,
    /// Chunks that are with satellites.
    pub(super) out: Vec<Out>,
    done_tokens: usize,
    report: Report,
}

impl<B: Backend> Encode<B> {
    /// Prepares to encode `items` under `resolved`, cutting long texts or, with `windows`, splitting them.
    #[must_use]
    pub fn new(items: Vec<Item>, resolved: &[Resolved], want: Want, precision: Precision, windows: bool) -> Self {
        let resolved = resolved.iter().map(Resolved::backbone).collect();
        Self {
            items,
            resolved,
            want,
            precision,
            windows,
            tokenized: 0,
            rows: Vec::new(),
            of: Vec::new(),
            outputs: Vec::new(),
            todo: None,
            todo_tokens: 0,
            running: None,
            out: Vec::new(),
            done_tokens: 0,
            report: Report::default(),
        }
    }

    /// Work done and work there is, in tokens; the second is 0 until all texts have been tokenized.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.done_tokens, if self.todo.is_some() { self.report.tokens } else { 0 })
    }

    /// Computes until done or until `pause` says so; [`Poll::Waiting`]: what is left is with satellites
    /// ([`Encode::take_in`]).
    ///
    /// # Errors
    /// When a text cannot be encoded or a step fails.
    pub fn advance(&mut self, engine: &mut Engine<B>, pause: &mut dyn FnMut() -> bool) -> Result<Poll> {
        while self.tokenized < self.items.len() {
            self.tokenize(engine)?;
            if pause() {
                return Ok(Poll::More);
            }
        }
        if self.todo.is_none() {
            self.schedule(engine)?;
            if engine.satellites() > 0 {
                // Whoever shares the work out gets to it now: the others would wait for a slice of ours.
                return Ok(Poll::More);
            }
        }
        loop {
            if self.running.is_none() && !self.start_chunk(engine)? {
                return Ok(if self.out.is_empty() { Poll::Done } else { Poll::Waiting });
            }
            let Some((job, _)) = &mut self.running else { continue };
            match engine.session.advance(job, pause)? {
                Poll::Done => self.end_chunk(engine)?,
                other => return Ok(other),
            }
            if pause() {
                return Ok(Poll::More);
            }
        }
    }

    /// The outputs of a task that is done.
    ///
    /// # Errors
    /// When it is not done.
    pub fn finish(self) -> Result<Encoded> {
        let mut outputs = vec![Vec::new(); self.items.len()];
        for ((item, _), output) in self.of.iter().zip(self.outputs) {
            let output = output.ok_or_else(|| Error::Program("an encoding was read before it was done".into()))?;
            outputs[*item].push(output);
        }
        Ok(Encoded { outputs, report: self.report })
    }

    fn tokenize(&mut self, engine: &Engine<B>) -> Result<()> {
        let (spec, tokenizer) = (engine.session.spec(), engine.tokenizer.as_ref());
        let index = self.tokenized;
        let item = &self.items[index];
        let resolved = &self.resolved[item.compose];
        let limit = resolved.max_tokens(spec);
        if resolved.rows.own_words && !matches!(item.source, Source::Row(_)) {
            return Err(Error::Argument {
                what: "texts".into(),
                why: format!(
                    "{:?} has words of its own, which its own tokenizer numbers and this base's does not: give rows of token ids, or, if the two are the same, load the adapter with the option tokenizer: \"base\"",
                    resolved.text
                ),
            });
        }
        let rows = match (&item.source, self.windows) {
            (Source::Row(row), _) => vec![row.clone()],
            (Source::Text(prompt, body), true) => text::windows(spec, tokenizer, prompt, body, limit)?,
            (Source::Pair(a, b), true) => {
                let (rows, cut) = text::pair_windows(spec, tokenizer, a, b, limit)?;
                self.report.first_cut |= cut;
                rows
            }
            (Source::Text(..) | Source::Pair(..), false) => {
                let cut = match &item.source {
                    Source::Pair(a, b) => text::pair(spec, tokenizer, a, b, limit)?,
                    Source::Text(prompt, body) => text::single(spec, tokenizer, &format!("{prompt}{body}"), limit)?,
                    Source::Row(row) => text::Cut { row: row.clone(), dropped: 0, first_cut: false },
                };
                self.report.first_cut |= cut.first_cut;
                if cut.dropped > 0 {
                    self.report.truncated.push(index);
                    self.report.truncated_tokens += cut.dropped;
                }
                vec![cut.row]
            }
        };
        self.report.tokens += rows.iter().map(|r| r.ids.len()).sum::<usize>();
        self.report.rows += rows.len();
        self.of.extend(std::iter::repeat_n((index, item.compose), rows.len()));
        self.rows.extend(rows);
        self.tokenized += 1;
        Ok(())
    }

    fn only_embeddings(&self) -> bool {
        self.want == Want { embedding: true, ..Want::default() }
    }

    /// Answers what memory can answer and orders the rest by composition, so that chunks have long segments.
    /// Rows that cannot run are errors now, and not when their chunk's turn comes.
    fn schedule(&mut self, engine: &Engine<B>) -> Result<()> {
        self.outputs = vec![None; self.rows.len()];
        let mut todo: Vec<usize> = Vec::with_capacity(self.rows.len());
        for (index, row) in self.rows.iter().enumerate() {
            let backbone = &self.resolved[self.of[index].1];
            let known = if self.only_embeddings() && has_key(row) {
                engine.cache.get(&Cache::key(backbone, &row.ids, self.precision)).cloned()
            } else {
                None
            };
            match known {
                Some(embedding) => {
                    self.report.cached += 1;
                    self.done_tokens += row.ids.len();
                    self.outputs[index] = Some(RowOutput { embedding: Some(embedding), ..RowOutput::default() });
                }
                None => {
                    engine.session.check_row(self.of[index].0, row, backbone)?;
                    todo.push(index);
                }
            }
        }
        // By composition, for long segments; where work is shared, the longest rows first: the last chunks, for which
        // all wait, are then of short ones.
        let shared = engine.satellites() > 0;
        todo.sort_by_key(|&i| (if shared { usize::MAX - self.rows[i].ids.len() } else { 0 }, self.of[i].1));
        todo.reverse();
        self.todo_tokens = todo.iter().map(|&i| self.rows[i].ids.len()).sum();
        self.todo = Some(todo);
        Ok(())
    }

    /// Takes the next rows out of `todo`.
    pub(super) fn next_chunk(&mut self, engine: &Engine<B>) -> Option<Vec<usize>> {
        let room = self.room(engine);
        let todo = self.todo.as_mut()?;
        let mut chunk: Vec<usize> = Vec::new();
        let mut tokens = 0;
        while let Some(&next) = todo.last() {
            let len = self.rows[next].ids.len();
            if !chunk.is_empty() && tokens + len > room {
                break;
            }
            tokens += len;
            chunk.push(next);
            todo.pop();
        }
        self.todo_tokens -= tokens;
        (!chunk.is_empty()).then_some(chunk)
    }

    /// The compositions that a chunk uses, and which of them each row takes: what others bring would only lengthen its
    /// Program.
    pub(super) fn compositions(&self, chunk: &[usize]) -> (Vec<&Resolved>, Vec<usize>) {
        let mut used: Vec<usize> = chunk.iter().map(|&i| self.of[i].1).collect();
        used.sort_unstable();
        used.dedup();
        let of: Vec<usize> = chunk.iter().map(|&i| used.binary_search(&self.of[i].1).unwrap_or(0)).collect();
        (used.iter().map(|&c| &self.resolved[c]).collect(), of)
    }

    fn start_chunk(&mut self, engine: &mut Engine<B>) -> Result<bool> {
        let Some(chunk) = self.next_chunk(engine) else { return Ok(false) };
        let rows: Vec<Row> = chunk.iter().map(|&i| self.rows[i].clone()).collect();
        let (resolved, of) = self.compositions(&chunk);
        let job = engine.session.begin_resolved(&rows, &of, &resolved, self.want, self.precision)?;
        self.running = Some((job, chunk));
        Ok(true)
    }

    fn end_chunk(&mut self, engine: &mut Engine<B>) -> Result<()> {
        let Some((job, chunk)) = self.running.take() else { return Ok(()) };
        let outputs = engine.session.finish(&job)?;
        self.keep(engine, chunk, outputs);
        Ok(())
    }

    /// Keeps a chunk's outputs, and remembers its embeddings.
    pub(super) fn keep(&mut self, engine: &mut Engine<B>, chunk: Vec<usize>, outputs: Vec<RowOutput>) {
        for (index, output) in chunk.into_iter().zip(outputs) {
            let row = &self.rows[index];
            self.done_tokens += row.ids.len();
            if let (true, true, Some(embedding)) = (self.only_embeddings(), has_key(row), &output.embedding) {
                let backbone = &self.resolved[self.of[index].1];
                engine.cache.put(Cache::key(backbone, &row.ids, self.precision), embedding.clone());
            }
            self.outputs[index] = Some(output);
        }
    }
}

/// Whether its tokens alone say what a row is: a remembered embedding is found by them.
fn has_key(row: &Row) -> bool {
    row.token_types.is_empty() && row.pixels.is_empty()
}
