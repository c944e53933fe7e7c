//! Milliseconds a call and tokens a second. `cargo run --release --example bench -- [ROUNDS] [profile | pair]`; `pair`: what
//! adapters in one bit cost against the same in 32 bits, 16 × 64 tokens, eight adapters in turn.

mod support;

use polygraft::backend::{Backend, Precision};
use std::time::Instant;

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(9);
    let mut session = support::session();
    println!("{}, {} MB of weights", session.backend().describe(), session.backend().memory() / 1_000_000);
    if std::env::args().nth(2).as_deref() == Some("pair") {
        for precision in [Precision::Fast, Precision::Exact] {
            let batches = ["small", "bits"].map(|adapter| support::batch(&session, 16, 64, adapter));
            let mut ratios = Vec::new();
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..=rounds {
                let mut took = [0.0; 2];
                // Each goes first in turn.
                for which in [round % 2, 1 - round % 2] {
                    let start = milliseconds();
                    std::hint::black_box(support::run(&mut session, &batches[which], precision));
                    took[which] = milliseconds() - start;
                }
                if round > 0 {
                    ratios.push(took[1] / took[0]);
                    times.iter_mut().zip(took).for_each(|(list, ms)| list.push(ms));
                }
            }
            let median = |list: &mut Vec<f64>| {
                list.sort_by(f64::total_cmp);
                list[list.len() / 2]
            };
            let [whole, bits] = &mut times;
            println!(
                "{precision:?}: 32 bits {:.1} ms, 1 bit {:.1} ms, ratio {:.3} (p10–p90 {:.3}–{:.3}), {rounds} rounds",
                median(whole),
                median(bits),
                median(&mut ratios),
                ratios[ratios.len() / 10],
                ratios[ratios.len() * 9 / 10]
            );
        }
        return;
    }
    if std::env::args().nth(2).is_some() {
        for (rows, tokens, adapter) in [(16, 64, ""), (8, 0, ""), (8, 0, "small"), (8, 0, "large")] {
            let batch = support::batch(&session, rows, tokens, adapter);
            support::run(&mut session, &batch, Precision::Fast);
            println!("{rows} x {tokens} {adapter}");
            println!("{}", support::profile(&mut session, &batch, milliseconds));
        }
        return;
    }
    let cases = [
        (1, 32, "", Precision::Exact),
        (1, 32, "", Precision::Fast),
        (1, 128, "", Precision::Fast),
        (16, 64, "", Precision::Exact),
        (16, 64, "", Precision::Fast),
        (8, 0, "", Precision::Fast),
        (8, 0, "small", Precision::Fast),
        (8, 0, "large", Precision::Fast),
    ];
    // In turns, so that a slow moment of the machine meets all of them.
    let batches: Vec<_> = cases.iter().map(|&(rows, tokens, a, _)| support::batch(&session, rows, tokens, a)).collect();
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for ((batch, times), (.., precision)) in batches.iter().zip(&mut times).zip(cases) {
            let start = milliseconds();
            std::hint::black_box(support::run(&mut session, batch, precision));
            times.push(milliseconds() - start);
        }
    }
    for ((batch, mut times), (rows, length, adapter, precision)) in batches.iter().zip(times).zip(cases) {
        times.sort_by(f64::total_cmp);
        let (median, best) = (times[rounds / 2], times[0]);
        let tokens: usize = batch.rows.iter().map(|r| r.ids.len()).sum();
        println!(
            "{rows:3} x {length:<3} {adapter:<5} {precision:?}: median {median:.1} ms, best {best:.1} ms, {:.0} us/token",
            1e3 * median / tokens as f64
        );
    }
}

/// Time of this thread on a core where Linux tells it, so that neighbours do not count; else time on the wall.
fn milliseconds() -> f64 {
    thread_local!(static START: Instant = Instant::now());
    let own = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let own = own.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    own.map_or_else(|| START.with(|s| s.elapsed().as_secs_f64()) * 1e3, |nanoseconds| nanoseconds / 1e6)
}
