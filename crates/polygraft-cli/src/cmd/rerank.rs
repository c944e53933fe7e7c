//! `rerank`: passages by their relevance to a query, best first.

use super::{drive, say_report};
use crate::args::{Rerank as Args, SideArgs};
use crate::error::Result;
use crate::{files, load};
use polygraft::tasks::{Rerank, RerankRequest, Sides};

/// The two sides as the flags give them.
pub(crate) fn sides(args: &SideArgs) -> Sides {
    let whole = args.compose.clone().unwrap_or_default();
    Sides {
        query: args.query_compose.clone().unwrap_or_else(|| whole.clone()),
        documents: vec![args.doc_compose.clone().unwrap_or(whole)],
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let documents = files::lines(&args.passages)?;
    let mut engine = load::engine(&args.model)?;
    let adapters = sides(&args.sides);
    load::warn_unused(&args.model, &[&adapters.query, &adapters.documents[0]]);
    let request = RerankRequest {
        query: args.query,
        documents: documents.clone(),
        adapters,
        top_n: args.top.map(|n| n as usize),
        windows: args.windows,
        precision: None,
    };
    let mut task = Rerank::new(&mut engine, request)?;
    drive("ranking", |pause| Ok((task.advance(&mut engine, pause)?, task.progress())))?;
    let ranking = task.finish()?;
    say_report("passages", &ranking.report, &ranking.warnings);
    if ranking.query_truncated {
        eprintln!("polygraft: the query was longer than the model's limit and was cut");
    }
    if args.json {
        println!("{}", serde_json::to_string(&ranking).unwrap_or_default());
        return Ok(());
    }
    for (place, result) in ranking.results.iter().enumerate() {
        let logit = result.logit.map_or(String::new(), |l| format!("  logit {l:+.3}"));
        println!(
            "{:>3}. {:.4}{logit}  [{}] {}",
            place + 1,
            result.relevance_score,
            result.index,
            documents[result.index]
        );
    }
    Ok(())
}
