//! Every base of the fixtures: a row gives the same bits alone and in a batch of rows under different adapters.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use polygraft::backend::{Backend, Precision};
use polygraft::ir::{AdapterIr, Graft, Op, Site};
use polygraft::plan::Want;
use polygraft::reference::Reference;
use polygraft::session::Batch;
use polygraft::testing::{self, Random};
use polygraft::{Compose, Session};
use polygraft_cpu::Cpu;

/// Random low-rank updates, as far as the base has places for them.
fn adapter<B: Backend>(session: &Session<B>, seed: u64) -> AdapterIr {
    let spec = session.spec();
    let mut out = testing::adapter(spec, seed);
    out.head = None;
    out.patches.retain(|patch| match (patch.site, &patch.op) {
        (Site::Linear(site), Op::LowRank(_)) => spec.linears.contains_key(&site),
        _ => false,
    });
    out
}

fn hold<B: Backend>(name: &str, mut session: Session<B>, precision: Precision) {
    let mut random = Random(7);
    for (adapter_name, seed) in [("a", 3), ("b", 4)] {
        let adapter = adapter(&session, seed);
        session.graft(adapter_name, adapter, Graft::default()).unwrap();
    }
    let composes = ["a", "base", "stack(a, b)", "b", "a:0.5"].map(|text| text.parse::<Compose>().unwrap());
    let longest = session.spec().max_positions.min(33);
    let rows: Vec<_> = [5, longest, 1, 17, 2, 9, longest - 1]
        .map(|n| {
            let mut row = testing::row(session.spec(), n.min(longest), &mut random);
            // A padding id would move RoBERTa's positions, in the row alone as well.
            row.ids.iter_mut().for_each(|id| *id = (*id).max(3));
            row
        })
        .into();
    let want = Want { hidden: true, embedding: true, logits: true };
    let of = |i: usize| composes[i % composes.len()].clone();
    let together = Batch::by_row(rows.clone(), (0..rows.len()).map(of).collect());
    let together = session.run(&together, want, precision).unwrap();
    for (i, row) in rows.into_iter().enumerate() {
        let alone = session.run(&Batch::uniform(vec![row], of(i)), want, precision).unwrap();
        assert_eq!(alone[0], together[i], "{name}, row {i}");
    }
}

#[test]
fn rows_are_the_same_alone_and_together() {
    let mut folders: Vec<_> =
        std::fs::read_dir(support::repository("tests/golden/bases")).unwrap().flatten().map(|e| e.path()).collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let files = support::folder(&folder);
        hold(&name, support::session(&files, Reference::new()).unwrap(), Precision::Exact);
        for precision in [Precision::Exact, Precision::Fast] {
            hold(&name, support::session(&files, Cpu::new()).unwrap(), precision);
        }
    }
}
