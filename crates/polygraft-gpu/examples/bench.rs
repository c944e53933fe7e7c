//! Milliseconds a call of a twelve-layer base of random 4-bit weights, for each linear kernel; with `pair`, of an adapter of
//! rank 8 on query and value in one bit against the same in 32.
//! `cargo run --example bench -p polygraft-gpu -- [rows] [tokens] [rounds] [pair]`

use polygraft::backend::{Backend, Precision};
use polygraft::batch::Row;
use polygraft::ir::{Graft, LayerLinear};
use polygraft::model::WeightId;
use polygraft::plan::Want;
use polygraft::session::{Batch, Session};
use polygraft::tensor::Scheme;
use polygraft::testing::{self, Dims, Random};
use polygraft_gpu::{Gpu, GpuBackend, Rounded};
use std::time::Instant;

fn main() -> polygraft::Result<()> {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [rows, tokens, rounds] = [(0, 1), (1, 32), (2, 3)].map(|(i, or)| args.get(i).copied().unwrap_or(or));
    let dims = Dims { hidden: 384, heads: 12, ffn: 1536, layers: 12, vocab: 50, scheme: Scheme::Q4_0 };
    let (spec, weights) = testing::model(dims, 1);
    let mut backend = GpuBackend::open()?;
    for (i, w) in weights.into_iter().enumerate() {
        backend.load_weight(WeightId(i as u32), w)?;
    }
    let mut session = Session::new(spec, backend)?;
    println!("{}", session.backend().describe());
    let mut random = Random(5);
    let list = (0..rows).map(|_| testing::row(session.spec(), tokens, &mut random)).collect();
    let batch = Batch::uniform(list, "base".parse()?);
    let want = Want { embedding: true, ..Want::default() };
    if std::env::args().nth(4).as_deref() == Some("pair") {
        return pair(&mut session, batch.rows, rounds);
    }
    let linear = Gpu::variants().into_iter().filter(|name| name.starts_with("linear"));
    for kernel in std::iter::once(None).chain(linear.map(Some)) {
        let gpu = session.backend_mut().gpu_mut();
        gpu.prefer(kernel);
        let how = match kernel {
            Some(name) if name.contains("packed") => Rounded::Bytes,
            Some(name) if name.contains("half") => Rounded::Half,
            _ => Rounded::No,
        };
        if !gpu.round(how) {
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
