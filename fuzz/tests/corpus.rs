//! Every target over its whole corpus, what the fuzzer kept included: nothing panics, nothing takes a second.
#![allow(clippy::unwrap_used, reason = "tests")]

use polygraft_fuzz::mutate::{Random, mutate};
use polygraft_fuzz::{TARGETS, corpus};
use std::time::Instant;

#[test]
fn the_corpus_is_answered() {
    for target in TARGETS {
        let mut inputs = (target.seeds)();
        assert!(!inputs.is_empty(), "{} has no seeds", target.name);
        inputs.extend(corpus::kept(target.name));
        for input in &inputs {
            let start = Instant::now();
            assert!(!(target.run)(input).is_empty());
            assert!(start.elapsed().as_secs() < 2, "{}: an input of {} bytes is slow", target.name, input.len());
        }
    }
}

#[test]
fn damage_is_answered() {
    for target in TARGETS {
        let inputs = (target.seeds)();
        let mut random = Random::new(7);
        for _ in 0..200 {
            let (a, b) = (random.below(inputs.len()), random.below(inputs.len()));
            let input = mutate(&inputs[a], &inputs[b], &mut random);
            assert!(!(target.run)(&input).is_empty());
        }
    }
}
