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

/// ModernBERT as transformers 5 writes it is the base that 4 wrote; rotations of other kinds are refused.
#[test]
fn modernbert_of_transformers_5_is_the_same() {
    let files = support::folder(&support::repository("tests/golden/bases/modernbert"));
    let old: serde_json::Value = serde_json::from_slice(&files.0["config.json"]).unwrap();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let (mut files, mut config) = (files.clone(), old.clone());
        change(&mut config);
        files.0.insert("config.json".into(), config.to_string().into_bytes());
        support::session(&files, Reference::new()).map_err(|e| e.to_string())
    };
    let newer = |config: &mut serde_json::Value| {
        let map = config.as_object_mut().unwrap();
        for key in ["global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"] {
            map.remove(key);
        }
        config["layer_types"] = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"].into();
        for (kind, theta) in [("full_attention", 160_000.0), ("sliding_attention", 10_000.0)] {
            config["rope_parameters"][kind] = serde_json::json!({"rope_type": "default", "rope_theta": theta});
        }
    };
    let run = |mut session: Session<Reference>| {
        let row = testing::row(session.spec(), 30, &mut Random(7));
        let want = Want { hidden: true, ..Want::default() };
        session.run(&Batch::uniform(vec![row], Compose::Base), want, Precision::Exact).unwrap()
    };
    let want = run(changed(&|_| {}).unwrap());
    assert_eq!(run(changed(&newer).unwrap()), want);
    let other = changed(&|config| {
        newer(config);
        config["rope_parameters"]["sliding_attention"]["rope_theta"] = 500.0.into();
    });
    assert_ne!(run(other.unwrap()), want);
    type Change = dyn Fn(&mut serde_json::Value);
    let refused: [(&str, &Change); 4] = [
        ("yarn", &|c| c["rope_parameters"]["full_attention"]["rope_type"] = "yarn".into()),
        ("chunked_attention", &|c| c["layer_types"][1] = "chunked_attention".into()),
        ("3 entries", &|c| drop(c["layer_types"].as_array_mut().unwrap().pop())),
        ("rope_theta", &|c| c["rope_parameters"]["full_attention"]["rope_theta"] = 0.into()),
    ];
    for (what, change) in refused {
        let session = changed(&|config| {
            newer(config);
            change(config);
        });
        let Err(said) = session else { panic!("{what}: it loads") };
        assert!(said.contains(what), "{said}");
    }
}
