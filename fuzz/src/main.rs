//! Feeds a target with mutations of its corpus until the time is up:
//! `cargo run -p polygraft-fuzz --release -- torch --seconds 60 [--seed 1]`.
//!
//! An input whose outcome, numbers aside, was not seen before joins those that are mutated. A panic or an answer that
//! takes more than a second is written to `fuzz/found/`, and the exit status is 1. Give it a limit of memory with
//! `ulimit -v`, so that an allocation which the input does not justify is a find as well.
#![forbid(unsafe_code)]

use polygraft_fuzz::corpus;
use polygraft_fuzz::mutate::{Random, mutate};
use polygraft_fuzz::{TARGETS, target};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// An answer that takes longer is a find.
const SLOW: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = args.iter().position(|a| a == name)?;
        args.get(at + 1)?.parse::<u64>().ok()
    };
    let Some(target) = args.first().and_then(|name| target(name)) else {
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        eprintln!("usage: polygraft-fuzz {} --seconds N [--seed N]", names.join("|"));
        return ExitCode::from(2);
    };
    let seconds = option("--seconds").unwrap_or(60);
    let seed = option("--seed").unwrap_or(1);
    let mut pool = (target.seeds)();
    pool.extend(corpus::kept(target.name));
    if pool.is_empty() {
        eprintln!("{} has no corpus", target.name);
        return ExitCode::FAILURE;
    }
    let begun = pool.len();
    let mut random = Random::new(seed);
    let mut seen = HashSet::new();
    let (mut runs, mut bytes, mut finds) = (0u64, 0u64, 0u32);
    let (start, mut worst) = (Instant::now(), Duration::ZERO);
    // The seeds themselves, then damage.
    let mut next = 0;
    while start.elapsed().as_secs() < seconds {
        let input = match pool.get(next) {
            Some(seed) if next < begun => seed.clone(),
            _ => mutate(&pool[random.below(pool.len())], &pool[random.below(pool.len())], &mut random),
        };
        next += 1;
        let before = Instant::now();
        let answer = catch_unwind(|| (target.run)(&input));
        let took = before.elapsed();
        worst = worst.max(took);
        runs += 1;
        bytes += input.len() as u64;
        match answer {
            Ok(said) if took < SLOW => {
                let shape: String = said.chars().filter(|c| c.is_alphabetic() || *c == ':').take(120).collect();
                if seen.insert(shape) && next > begun && pool.len() < 20_000 {
                    pool.push(input);
                }
            }
            Ok(_) => finds += keep(target.name, "slow", &input),
            Err(_) => finds += keep(target.name, "panic", &input),
        }
    }
    println!(
        "{}: {runs} runs, {bytes} bytes, {} outcomes, slowest {} ms, {finds} finds",
        target.name,
        seen.len(),
        worst.as_millis()
    );
    if finds == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes a find down.
fn keep(target: &str, kind: &str, input: &[u8]) -> u32 {
    let mut hash = DefaultHasher::new();
    input.hash(&mut hash);
    let folder = corpus::repository("fuzz/found");
    let path = folder.join(format!("{target}-{kind}-{:016x}", hash.finish()));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    eprintln!(
        "{kind}: {} ({})",
        path.display(),
        written.map_or_else(|e| e.to_string(), |()| format!("{} bytes", input.len()))
    );
    1
}
