//! Milliseconds a call of a twelve-layer base of random 4-bit weights, for each linear kernel; with `pair`, of an adapter of
//! rank 8 on query and value in one bit against the same in 32.
//! `cargo run --example bench -p polygraft-gpu -- [rows] [tokens] [rounds] [pair]`

mod support;

use polygraft::backend::{Backend, Precision};
use polygraft::batch::Row;
use polygraft::ir::{Graft, LayerLinear};
use polygraft::plan::Want;
use polygraft::session::{Batch, Session};
use polygraft::tensor::Scheme;
use polygraft::testing;
use polygraft_gpu::GpuBackend;
use std::time::Instant;

fn main() -> polygraft::Result<()> {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [rows, tokens, rounds] = [(0, 1), (1, 32), (2, 3)].map(|(i, or)| args.get(i).copied().unwrap_or(or));
    let (mut session, batch) = support::model(12, rows, tokens)?;
    println!("{}", session.backend().describe());
    let want = Want { embedding: true, ..Want::default() };
    if std::env::args().nth(4).as_deref() == Some("pair") {
        return pair(&mut session, batch.rows, rounds);
    }
    for kernel in std::iter::once(None).chain(support::linear().map(Some)) {
        if !session.backend_mut().gpu_mut().prefer(kernel) {
            println!("{:24} is not on this device", kernel.unwrap_or_default());
            continue;
        }
        let mut times = Vec::new();
        for _ in 0..=rounds {
            let start = Instant::now();
            session.run(&batch, want, Precision::Fast)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let first = times.remove(0);
        times.sort_by(f64::total_cmp);
        println!("{:24} first {first:8.1} ms, then {:8.1} ms", kernel.unwrap_or("chosen"), times[rounds / 2]);
    }
    Ok(())
}

fn pair(session: &mut Session<GpuBackend>, rows: Vec<Row>, rounds: usize) -> polygraft::Result<()> {
    for (name, scheme) in [("whole", Scheme::F32), ("bits", Scheme::Code(1))] {
        let adapter = testing::lora(session.spec(), 7, 8, &[LayerLinear::Query, LayerLinear::Value], scheme);
        session.graft(name, adapter, Graft::default())?;
    }
    let want = Want { embedding: true, ..Want::default() };
    let mut ratios = Vec::new();
    for round in 0..=rounds {
        let mut took = [0.0; 2];
        for which in [round % 2, 1 - round % 2] {
            let batch = Batch::uniform(rows.clone(), ["whole", "bits"][which].parse()?);
            let start = Instant::now();
            session.run(&batch, want, Precision::Exact)?;
            took[which] = start.elapsed().as_secs_f64() * 1e3;
        }
        println!("32 bits {:8.1} ms, 1 bit {:8.1} ms", took[0], took[1]);
        if round > 0 {
            ratios.push(took[1] / took[0]);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("ratio {:.3}, median of {rounds} rounds", ratios[rounds / 2]);
    Ok(())
}
