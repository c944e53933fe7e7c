//! The CPU backend against the oracle, on random models, adapters and batches.

mod support;

use polygraft::backend::{Backend, Poll, Precision};
use polygraft::session::{Batch, RowOutput, Session};
use polygraft::tensor::Scheme;
use polygraft::testing::{self, Random};
use polygraft_cpu::Cpu;
use support::{ALL, Case, cases, distance, session};

#[test]
fn exact_agrees_with_the_oracle() {
    for case in cases() {
        let (mut near, mut oracle) = (session(Cpu::new(), &case), session(case.oracle(), &case));
        let batch = case.batch(&mut near);
        let got = near.run(&batch, ALL, Precision::Exact).unwrap();
        let want = oracle.run(&batch, ALL, Precision::Exact).unwrap();
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let off = distance(got, want);
            assert!(off <= 5e-4, "{case:?} row {i}: off by {off:e}");
        }
    }
}

#[test]
fn fast_stays_near_the_oracle() {
    for case in cases().into_iter().filter(|c| c.dims.scheme.is_quantized()) {
        let (mut near, mut oracle) = (session(Cpu::new(), &case), session(case.oracle(), &case));
        let batch = case.batch(&mut near);
        let got = near.run(&batch, ALL, Precision::Fast).unwrap();
        let want = oracle.run(&batch, ALL, Precision::Exact).unwrap();
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let (a, b) = (got.embedding.as_ref().unwrap(), want.embedding.as_ref().unwrap());
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            assert!(cosine >= 0.999, "{case:?} row {i}: cosine {cosine}");
        }
    }
}

fn alone(session: &mut Session<Cpu>, batch: &Batch, row: usize, precision: Precision) -> RowOutput {
    let one = Batch::uniform(vec![batch.rows[row].clone()], batch.compositions[batch.of[row]].clone());
    session.run(&one, ALL, precision).expect("a row that ran runs again").remove(0)
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for case in cases() {
        let mut session = session(Cpu::new(), &case);
        let batch = case.batch(&mut session);
        for precision in [Precision::Exact, Precision::Fast] {
            let together = session.run(&batch, ALL, precision).unwrap();
            for (i, row) in together.iter().enumerate() {
                assert_eq!(*row, alone(&mut session, &batch, i, precision), "{case:?} {precision:?} row {i}");
            }
        }
    }
}

#[test]
fn pauses_change_nothing() {
    for case in cases() {
        let mut session = session(Cpu::new(), &case);
        let batch = case.batch(&mut session);
        for precision in [Precision::Exact, Precision::Fast] {
            let whole = session.run(&batch, ALL, precision).unwrap();
            let mut random = Random(case.seed);
            for always in [true, false] {
                let mut job = session.begin(&batch, ALL, precision).unwrap();
                let mut slices = 0;
                while session.advance(&mut job, &mut || always || random.below(5) == 0).unwrap() != Poll::Done {
                    slices += 1;
                }
                assert!(!always || slices > 20, "{slices} slices");
                assert_eq!(session.finish(&job).unwrap(), whole, "{case:?} {precision:?}");
            }
        }
    }
}

#[test]
fn scale_zero_and_empty_compositions_are_the_base() {
    let case = Case::new(Scheme::Q8_0, 64, 4, 96, 7);
    let mut session = session(Cpu::new(), &case);
    let row = testing::row(session.spec(), 9, &mut Random(1));
    for precision in [Precision::Exact, Precision::Fast] {
        let mut run =
            |text: &str| session.run(&Batch::uniform(vec![row.clone()], text.parse().unwrap()), ALL, precision);
        let base = run("base").unwrap();
        let zero = ["a:0", "b:0", "c:0"].into_iter().find_map(|text| run(text).ok());
        let zero = zero.expect("one of three random adapters only adds");
        assert_eq!((&zero[0].hidden, &zero[0].embedding), (&base[0].hidden, &base[0].embedding));
    }
}

#[test]
fn an_empty_batch_is_no_work() {
    let case = Case::new(Scheme::Q4_0, 32, 4, 64, 3);
    let mut session = session(Cpu::new(), &case);
    let empty = Batch::uniform(Vec::new(), "base".parse().unwrap());
    assert!(session.run(&empty, ALL, Precision::Fast).unwrap().is_empty());
}

#[test]
fn weights_stay_at_their_stored_size_and_can_be_read_back() {
    for scheme in [Scheme::F16, Scheme::Q8_0, Scheme::Q4_0] {
        let case = Case::new(scheme, 384, 12, 1536, 11);
        let (spec, weights) = testing::model(case.dims, case.seed);
        let stored: usize = weights.iter().map(polygraft::tensor::Matrix::bytes).sum();
        let session = session(Cpu::new(), &case);
        let packed: usize =
            session.adapters().values().flat_map(|a| &a.patches).map(|(_, payload)| payload.op.bytes()).sum();
        let held = session.backend().memory();
        assert!(held as f64 <= 1.1 * stored as f64 + packed as f64, "{scheme:?}: {held} for {stored}");
        for (i, weight) in weights.iter().enumerate() {
            let (mut a, mut b) = (vec![0.0; weight.cols()], vec![0.0; weight.cols()]);
            for row in [0, weight.rows() / 2, weight.rows() - 1] {
                weight.decode_row(row, &mut a);
                session.backend().weight_row(polygraft::model::WeightId(i as u32), row, &mut b).unwrap();
                assert_eq!(a, b, "{}", spec.weights[i].name);
            }
        }
    }
}
