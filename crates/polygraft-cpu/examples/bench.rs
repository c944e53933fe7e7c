//! Milliseconds a call and tokens a second, exact against fast in alternation. `cargo run --release --example bench`.

mod support;

use polygraft::backend::{Backend, Precision};
use std::time::Instant;

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(9);
    let clock = Clock(Instant::now());
    let mut session = support::session();
    println!("{}, {} MB of weights", session.backend().describe(), session.backend().memory() / 1_000_000);
    for rows in [1, 4, 16] {
        let batch = support::batch(&session, rows);
        let mut times = [Precision::Exact, Precision::Fast].map(|p| (p, Vec::new()));
        for _ in 0..rounds {
            for (precision, times) in &mut times {
                let start = clock.milliseconds();
                std::hint::black_box(support::run(&mut session, &batch, *precision));
                times.push(clock.milliseconds() - start);
            }
        }
        for (precision, mut times) in times {
            times.sort_by(f64::total_cmp);
            let (median, best) = (times[rounds / 2], times[0]);
            let speed = (rows * support::TOKENS) as f64 / median * 1e3;
            println!(
                "{rows:3} x {} {precision:?}: median {median:.1} ms, best {best:.1} ms, {speed:.0} tokens/s",
                support::TOKENS
            );
        }
    }
}

/// Time of this thread on a core where Linux tells it, so that neighbours do not count; else time on the wall.
struct Clock(Instant);

impl Clock {
    fn milliseconds(&self) -> f64 {
        let own = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let own = own.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
        own.map_or_else(|| self.0.elapsed().as_secs_f64() * 1e3, |nanoseconds| nanoseconds / 1e6)
    }
}
