//! `explain`: the Program, line by line, in the user's words.

use super::{request, time};
use crate::args::{BackendName, Compute, Explain, Model};
use crate::backend::AnyBackend;
use crate::error::Result;
use crate::load;
use polygraft::batch::Row;
use polygraft::plan::Want;
use polygraft::session::{Batch, Occupied};

pub(crate) fn run(args: Explain) -> Result<()> {
    let backend = args.backend.unwrap_or(BackendName::Cpu);
    let (base, adapters, rows) = match &args.request {
        Some(path) => {
            let r = request::read(path)?;
            (r.base.clone(), r.adapters.clone(), Some(r))
        }
        None => {
            let model = Model {
                base: args.base.unwrap_or_default(),
                adapters: args.adapters,
                adapter_options: args.adapter_options,
                compute: Compute { backend, precision: None },
            };
            (model.base.clone(), load::named(&model)?, None)
        }
    };
    let mut session = load::session(&base, backend)?;
    for (name, path, options) in &adapters {
        load::adapter(&mut session, name, path, options)?;
    }
    let batch = match rows {
        Some(request) => request.into_batch(session.spec())?,
        None => {
            let composes = if args.compose.is_empty() { vec![polygraft::Compose::Base] } else { args.compose };
            let tokens = (args.tokens as usize).min(session.spec().max_positions);
            let spec = session.spec();
            let row = match spec.image {
                Some(image) => Row::image(vec![0.0; image.numbers()], spec),
                None => Row::from(vec![spec.special.separator; tokens]),
            };
            Batch::by_row(vec![row; composes.len()], composes)
        }
    };
    let want = Want { hidden: true, embedding: true, logits: true };
    let compute = Compute { backend, precision: args.precision };
    let precision = AnyBackend::precision(&compute, session.spec());
    let (call, layout, resolved) = session.prepare(&batch, want, precision)?;
    // A backend makes what it keeps of an adapter when a call that uses it begins.
    session.begin(&batch, want, precision)?;
    let lines = session.explain(&call.program, &call.tables);
    let times = if args.time { time::measure(&mut session, &batch, want, precision, &lines)? } else { Vec::new() };
    let total: u64 = lines.iter().map(|l| l.macs).sum();
    if args.json {
        let rows: Vec<_> = layout
            .order
            .iter()
            .zip(&layout.compositions)
            .map(|(row, &c)| serde_json::json!({"row": row, "compose": resolved[c].text}))
            .collect();
        let adapters = session.occupied();
        let mut out = serde_json::json!({"packed_rows": rows, "steps": lines, "macs": total, "adapters": adapters});
        if args.time {
            out["time"] = serde_json::json!(times);
        }
        println!("{out}");
        return Ok(());
    }
    println!("{} · {}", session.spec().fingerprint.name, describe(&session));
    for (packed, (&row, &c)) in layout.order.iter().zip(&layout.compositions).enumerate() {
        let tokens = call.tables.row(packed);
        println!("row {row}: {} (tokens {}..{} of the packed batch)", resolved[c].text, tokens.start, tokens.end);
    }
    println!("step layer  kind       site                         shape        weights      MACs  takes");
    lines.iter().for_each(|line| println!("{line}"));
    println!("{} steps, {:.1} M multiply-adds for {} tokens", lines.len(), total as f64 / 1e6, call.tables.tokens());
    for Occupied { adapter, session, backend } in session.occupied() {
        println!("{adapter}: {:.1} KB in memory, {:.1} KB more in the backend", kilo(session), kilo(backend));
    }
    if args.time {
        time::print(&times, precision, call.tables.tokens());
    }
    Ok(())
}

fn kilo(bytes: usize) -> f64 {
    bytes as f64 / 1e3
}

fn describe(session: &polygraft::Session<AnyBackend>) -> String {
    use polygraft::backend::Backend;
    session.backend().describe()
}
