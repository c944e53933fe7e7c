//! One file a command.

mod center;
mod combine;
mod embed;
mod eval;
mod explain;
mod forward;
mod inspect;
mod merge;
mod pack;
mod pixels;
mod quantize;
mod request;
mod rerank;
mod time;
mod tokenize;

use crate::args::Command;
use crate::error::Result;

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Forward(args) => forward::run(&args),
        Command::Embed(args) => embed::run(args),
        Command::Rerank(args) => rerank::run(args),
        Command::Center(args) => center::run(args),
        Command::Eval(args) => eval::run(&args),
        Command::Explain(args) => explain::run(args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Combine(args) => combine::run(&args),
        Command::Pack(args) => pack::pack(&args),
        Command::Unpack(args) => pack::unpack(&args),
    }
}

/// Advances a task to its end, with a bar.
pub(crate) fn drive(
    what: &'static str,
    mut advance: impl FnMut(&mut dyn FnMut() -> bool) -> polygraft::Result<(polygraft::backend::Poll, (usize, usize))>,
) -> Result<()> {
    let bar = crate::progress::Progress::new(what, crate::progress::Unit::Tokens);
    loop {
        // Often enough for the bar.
        let start = std::time::Instant::now();
        let (poll, (done, total)) = advance(&mut || start.elapsed().as_millis() >= 20)?;
        bar.set(done as u64, total as u64);
        if poll == polygraft::backend::Poll::Done {
            return Ok(());
        }
    }
}

/// What happened to the texts, in words, on stderr.
pub(crate) fn say_report(what: &str, report: &polygraft::tasks::Report, warnings: &[String]) {
    for warning in warnings {
        eprintln!("polygraft: warning: {warning}");
    }
    if !report.truncated.is_empty() {
        eprintln!(
            "polygraft: {} of the {what} were longer than the model's limit and were cut ({} tokens dropped): {}",
            report.truncated.len(),
            report.truncated_tokens,
            some(&report.truncated)
        );
    }
}

fn some(indices: &[usize]) -> String {
    let shown: Vec<String> = indices.iter().take(8).map(ToString::to_string).collect();
    let more = if indices.len() > 8 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
