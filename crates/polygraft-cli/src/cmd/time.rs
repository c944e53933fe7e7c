//! `explain --time`: where the time of a call goes.

use crate::backend::AnyBackend;
use crate::error::Result;
use polygraft::Session;
use polygraft::backend::{Poll, Precision};
use polygraft::plan::Want;
use polygraft::program::Line;
use polygraft::session::Batch;
use serde::Serialize;
use std::sync::OnceLock;
use std::time::Instant;

/// Runs of which the median is taken; one more comes first, to warm up.
const RUNS: usize = 9;

/// A kernel of the call.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Time {
    kernel: &'static str,
    /// The first of the Program's steps that it covers, and the one after the last.
    steps: (usize, usize),
    layer: Option<u16>,
    milliseconds: f64,
}

fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}

/// Runs `batch` some times: the median of each kernel.
pub(crate) fn measure(
    session: &mut Session<AnyBackend>,
    batch: &Batch,
    want: Want,
    precision: Precision,
    lines: &[Line],
) -> Result<Vec<Time>> {
    session.backend_mut().measure(clock)?;
    let mut runs = Vec::new();
    for _ in 0..=RUNS {
        let mut job = session.begin(batch, want, precision)?;
        while session.advance(&mut job, &mut || false)? != Poll::Done {}
        runs.push(job.run().profile());
    }
    runs.remove(0);
    let kernels = runs[0].iter().enumerate().map(|(i, first)| {
        let mut spent: Vec<f64> = runs.iter().map(|run| run[i].milliseconds).collect();
        spent.sort_by(f64::total_cmp);
        Time {
            kernel: first.kernel,
            steps: (first.steps.start, first.steps.end),
            layer: lines[first.steps.start].layer,
            milliseconds: spent[RUNS / 2],
        }
    });
    Ok(kernels.collect())
}

/// The times added up by kernel, then by layer.
pub(crate) fn print(times: &[Time], precision: Precision, tokens: usize) {
    let total: f64 = times.iter().map(|t| t.milliseconds).sum();
    let line = |name: &str, count: usize, ms: f64| {
        println!("{name:<24} {count:>5} {ms:>9.3} ms {:>5.1} %", 100.0 * ms / total.max(f64::MIN_POSITIVE));
    };
    println!("\n{precision:?}, medians of {RUNS} runs\nkernel                    runs         time");
    sums(times, |t| t.kernel.to_owned()).into_iter().for_each(|(name, count, ms)| line(&name, count, ms));
    println!("layer");
    let layer = |t: &Time| t.layer.map_or_else(|| "none".to_owned(), |l| l.to_string());
    sums(times, layer).into_iter().for_each(|(name, count, ms)| line(&name, count, ms));
    line("all", times.len(), total);
    println!("{:.1} us a token", 1e3 * total / tokens.max(1) as f64);
}

fn sums(times: &[Time], name: impl Fn(&Time) -> String) -> Vec<(String, usize, f64)> {
    let mut out: Vec<(String, usize, f64)> = Vec::new();
    for time in times {
        let own = name(time);
        match out.iter_mut().find(|(name, ..)| *name == own) {
            Some((_, count, ms)) => (*count, *ms) = (*count + 1, *ms + time.milliseconds),
            None => out.push((own, 1, time.milliseconds)),
        }
    }
    out
}
