//! The files of `tests/attacks`: what torch writes opens with its numbers, what a stranger might write is refused by
//! name, and damage of any kind is a result or an error, never a panic.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use polygraft_formats::bag::TensorBag;
use proptest::prelude::*;
use std::sync::OnceLock;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(support::repository("tests/attacks/torch").join(name)).unwrap()
}

/// Name, code, part of the message.
fn expected() -> Vec<[String; 3]> {
    let text = std::fs::read_to_string(support::repository("tests/attacks/expected.tsv")).unwrap();
    let row =
        |line: &str| -> [String; 3] { line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap() };
    text.lines().map(row).collect()
}

#[test]
fn each_is_refused_by_its_name() {
    let mut wrong = Vec::new();
    for [name, code, word] in expected() {
        let found = match TensorBag::open(&name, file(&name)) {
            Ok(_) => ("ok", String::new()),
            Err(e) => (e.code(), e.to_string()),
        };
        if found.0 != code || !found.1.contains(&word) || found.1.len() > 1000 {
            wrong.push(format!("{name}: expected {code} {word:?}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_of_the_folder_is_expected() {
    let mut names: Vec<String> = std::fs::read_dir(support::repository("tests/attacks/torch"))
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut rows: Vec<String> = expected().into_iter().map(|[name, ..]| name).collect();
    names.sort();
    rows.sort();
    assert_eq!(names, rows);
}

#[test]
fn numbers_are_torchs() {
    let a = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    for name in ["zip.bin", "legacy.bin"] {
        let mut bag = TensorBag::open(name, file(name)).unwrap();
        for of_floats in ["a", "half", "bf16", "double"] {
            assert_eq!(bag.take(of_floats, &[2, 3]).unwrap().unwrap(), a, "{name} {of_floats}");
        }
        assert_eq!(bag.take("a_turned", &[3, 2]).unwrap().unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(bag.take("last_column", &[2]).unwrap().unwrap(), [2.0, 5.0]);
        assert_eq!(bag.take("parameter", &[2, 3]).unwrap().unwrap(), a.map(|x| x + 1.0));
        assert_eq!(bag.take("scalar", &[]).unwrap().unwrap(), [3.0]);
        assert_eq!(bag.take("empty", &[0, 4]).unwrap().unwrap(), [0.0; 0]);
        for (of_ints, want) in [("ints", [1, -2]), ("short", [1, -2]), ("flags", [1, 0])] {
            assert_eq!(bag.take_ints(of_ints, &[2]).unwrap().unwrap(), want, "{name} {of_ints}");
        }
        assert_eq!(bag.take_ints("bytes", &[1]).unwrap().unwrap(), [7]);
        if name == "zip.bin" {
            assert_eq!(bag.take_ints("words", &[2]).unwrap().unwrap(), [1, 4_294_967_295]);
        }
        assert_eq!(bag.take("not there", &[1]).unwrap(), None);
        assert_eq!(bag.finish(true, Vec::new()).unwrap().extra, [""; 0]);
    }
    let mut bag = TensorBag::open("module.bin", file("module.bin")).unwrap();
    assert_eq!(bag.take("weight", &[2, 2]).unwrap().unwrap(), [0.5; 4]);
    assert_eq!(bag.take_ints("bias", &[2]).unwrap_err().code(), "ADAPTER_SHAPE");
}

fn good() -> &'static [Vec<u8>] {
    static GOOD: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    GOOD.get_or_init(|| expected().into_iter().filter(|[_, code, _]| code == "ok").map(|[n, ..]| file(&n)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn damage_never_panics(
        which: usize,
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.2, any::<usize>()),
    ) {
        let mut bytes = good()[which % good().len()].clone();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % (bytes.len() + 1));
        }
        match TensorBag::open("f", bytes) {
            Err(e) => prop_assert!(!e.code().is_empty() && e.to_string().len() < 4096),
            Ok(mut bag) => {
                let names: Vec<String> = bag.names().map(str::to_owned).collect();
                for name in names {
                    let shape = bag.shape(&name).unwrap().to_vec();
                    let size: usize = shape.iter().product();
                    let mut twin = bag.clone();
                    let taken = [twin.take_ints(&name, &shape).map(|v| v.map(|v| v.len())), bag.take(&name, &shape).map(|v| v.map(|v| v.len()))];
                    // At most one type fits, and it has as many numbers as the shape says.
                    prop_assert!(taken.iter().filter(|t| t.is_ok()).count() < 2 || size == 0);
                    prop_assert!(taken.iter().flatten().all(|n| *n == Some(size)));
                }
            }
        }
    }

    /// Pickles of plausible opcodes: deeper than damage gets.
    #[test]
    fn opcodes_never_panic(ops in prop::collection::vec(prop::sample::select(&b"(.}])tae\x85\x86\x87suN\x88\x89Kq\x00h\x00\x94\x93RQbX\x01\x00\x00\x00acK\x05\x8a\x01\xff"[..]), 0..200)) {
        let _ = TensorBag::open("f", legacy(&ops));
    }
}

/// A legacy file whose object is this pickle.
fn legacy(object: &[u8]) -> Vec<u8> {
    let system = b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";
    [&b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03."[..], system, b"\x80\x02", object]
        .concat()
}
