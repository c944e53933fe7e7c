//! Kernels by a token's place against the canonical steps: windows, relative positions, rotations, neighbours, gates.

use crate::variant_tests::{Host, X, Y, difference, open, program, tables};
use polygraft::model::{Activation, Buckets, WeightId};
use polygraft::program::{BufferId, Extent, Relative, RelativeBuffers, StepKind, Tables};
use polygraft::tensor::Scheme;
use polygraft::testing::{Random, store};

fn host(t: usize, width: usize, random: &mut Random) -> Host {
    Host(vec![store(t, width, random.vec(t * width, 1.0), Scheme::F32), store(1, width, vec![0.1; width], Scheme::F32)])
}

/// Relative positions of rows in two blocks.
fn relative(tables: &mut Tables, buckets: Buckets) {
    let longest = (0..tables.rows()).map(|row| tables.row(row).len()).max().unwrap() as i32;
    tables.relative = Some(Relative {
        buckets: (0..buckets.rows()).collect(),
        blocks: (0..tables.rows() as u32).map(|row| row.min(1)).collect(),
        places: (1 - longest..longest).map(|distance| buckets.row(distance)).collect(),
        embedded: None,
    });
}

#[test]
fn attention_sees_what_is_near_and_where_it_is() {
    let mut gpu = open();
    let mut random = Random(11);
    let buckets = Buckets::Signed { span: 9, log: Some((4, 40)) };
    for (lengths, heads, d) in [(&[1][..], 1, 4), (&[3, 1, 17], 3, 8), (&[40, 33, 32], 2, 5), (&[70], 2, 64)] {
        let (t, width) = (lengths.iter().sum::<usize>(), heads * d);
        let mut host = host(t, width, &mut random);
        let rows = buckets.rows() as usize;
        host.0.push(store(rows, width, random.vec(rows * width, 1.0), Scheme::F32));
        host.0.push(store(rows, heads, random.vec(rows * heads, 1.0), Scheme::F32));
        let [places, biases] = [2, 3].map(BufferId);
        for window in [None, Some(0), Some(3), Some(100)] {
            for terms in 0..8 {
                let mut tables = tables(lengths);
                relative(&mut tables, buckets);
                let on = |bit: u32, id| (terms & bit > 0).then_some(id);
                let terms = RelativeBuffers { bias: on(1, biases), keys: on(2, places), queries: on(4, places) };
                let kinds = vec![
                    StepKind::Positions { out: places, table: WeightId(2) },
                    StepKind::Positions { out: biases, table: WeightId(3) },
                    StepKind::Attention {
                        q: X,
                        k: X,
                        v: X,
                        out: Y,
                        heads,
                        scale_bits: 0.3f32.to_bits(),
                        window,
                        relative: terms.ids().next().map(|_| terms),
                        prefix: None,
                    },
                ];
                let widths = [
                    (Extent::Tokens, width),
                    (Extent::Tokens, width),
                    (Extent::Positions, width),
                    (Extent::Positions, heads),
                ];
                let off = difference(&mut gpu, &host, &program(&widths, kinds, Y), &tables);
                assert!(off <= 1e-4, "{lengths:?} {heads}×{d} {window:?} {terms:?}: {off:e}");
            }
        }
    }
}

#[test]
fn columns() {
    let mut gpu = open();
    let mut random = Random(12);
    let lengths = [1, 5, 33, 2];
    let t = lengths.iter().sum::<usize>();
    let theta_bits = 10_000f32.to_bits();
    for (width, heads) in [(12, 2), (70, 5), (128, 1)] {
        let host = host(t, width, &mut random);
        let mut tables = tables(&lengths);
        tables.positions = (0..t as u32).map(|p| p * 190 % 8192).collect();
        let mut hold = |out: usize, kind: StepKind, allowed: f32| {
            let widths = [(Extent::Tokens, width), (Extent::Tokens, out)];
            // The embedding's position table has one row.
            let mut program = program(&widths, vec![kind], Y);
            if let StepKind::Embed { position, .. } = &mut program.steps[0].kind {
                *position = None;
            }
            let off = difference(&mut gpu, &host, &program, &tables);
            assert!(off <= allowed, "{width} {kind:?}: {off:e}");
        };
        hold(width - 5, StepKind::Copy { x: X, first: 3, out: Y }, 0.0);
        for function in [Activation::Gelu, Activation::Silu, Activation::Relu] {
            hold(width / 2, StepKind::Gate { x: X, out: Y, function }, 2e-6);
        }
        hold(2 * heads, StepKind::Rotate { x: X, first: 1, out: Y, heads, theta_bits }, 2e-6);
        hold(width - width % (2 * heads), StepKind::Rotate { x: X, first: 0, out: Y, heads, theta_bits }, 2e-6);
        for neighbours in [1, 3, 5] {
            hold(neighbours * width, StepKind::Unfold { x: X, out: Y }, 0.0);
        }
    }
}
