//! Every shader as text: valid by naga's own rules, within WebGPU's default limits, its header true.

use crate::params;
use crate::pipelines::{Extra, source};
use crate::variants::{Covers, VARIANTS, Variant};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module, TypeInner};

fn extras(variant: &Variant) -> Vec<Extra> {
    match (variant.covers, variant.name) {
        (Covers::Packed | Covers::Half, _) => [3, 4].map(|form| Some(("FORM", form))).into(),
        (Covers::Linear, _) => [0, 3, 4].map(|form| Some(("FORM", form))).into(),
        (Covers::Placed, _) | (Covers::Attention, "attention scalar") => [1, 5, 64].map(|d| Some(("D", d))).into(),
        (Covers::Attention, _) => [1, 8, 16, 32].map(|d| Some(("D", d))).into(),
        _ => vec![None],
    }
}

fn parsed(variant: &Variant, extra: Extra) -> Module {
    let text = source(variant, extra);
    let module =
        naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}: {}", variant.name, e.emit_to_string(&text)));
    let needs = if variant.covers == Covers::Half { Capabilities::SHADER_FLOAT16 } else { Capabilities::empty() };
    let mut validator = Validator::new(ValidationFlags::all(), needs);
    validator.validate(&module).unwrap_or_else(|e| panic!("{} {extra:?}: {e:?}", variant.name));
    module
}

#[test]
fn every_variant_is_valid_and_within_default_limits() {
    for variant in VARIANTS {
        for extra in extras(variant) {
            let module = parsed(variant, extra);
            let [x, y, z] = module.entry_points[0].workgroup_size;
            assert!(x * y * z <= 256 && x <= 256 && y <= 256 && z <= 64, "{}: workgroup {x}×{y}×{z}", variant.name);
            let mut layouter = naga::proc::Layouter::default();
            layouter.update(module.to_ctx()).unwrap();
            let shared = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
            let bytes: u32 = shared.map(|(_, v)| layouter[v.ty].size).sum();
            assert!(bytes <= 16_384, "{}: {bytes} B of workgroup memory", variant.name);
            assert_eq!(bytes > 0, variant.barriers, "{}: barriers", variant.name);
            let storage = |v: &naga::GlobalVariable| matches!(v.space, AddressSpace::Storage { .. });
            let count = module.global_variables.iter().filter(|(_, v)| storage(v)).count();
            assert_eq!(count, variant.access.len(), "{}: bindings", variant.name);
            assert!(count <= 8, "{}: {count} storage bindings", variant.name);
            let header = format!("({count} of 8 storage)");
            assert!(variant.sources.iter().any(|s| s.contains(&header)), "{}: no header says {header}", variant.name);
        }
    }
}

/// Chromium's own compiler, where its command line is on the PATH.
#[test]
fn tint_accepts_every_variant() {
    use std::process::Command;
    if Command::new("tint").arg("--help").output().is_err() {
        eprintln!("tint is not here: the browser tests compile what they use with it");
        return;
    }
    let file = std::env::temp_dir().join(format!("polygraft-tint-{}.wgsl", std::process::id()));
    for variant in VARIANTS {
        for extra in extras(variant) {
            std::fs::write(&file, source(variant, extra)).unwrap();
            let done = Command::new("tint").args(["--format", "wgsl"]).arg(&file).output().unwrap();
            let why = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{} {extra:?}: {why}", variant.name);
        }
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn every_uniform_block_is_its_shaders() {
    for (name, fields) in params::all() {
        let variants: Vec<_> = VARIANTS.iter().filter(|v| format!("{:?}", v.covers) == name).collect();
        assert!(!variants.is_empty(), "{name}: no kernel has this block");
        for variant in variants {
            let module = parsed(variant, extras(variant)[0]);
            let block = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Params")).unwrap().1;
            let TypeInner::Struct { members, span } = &block.inner else { panic!("{}", variant.name) };
            assert!(u64::from(*span) <= crate::pipelines::BLOCK_BYTES, "{}: {span} B", variant.name);
            let found: Vec<String> = members
                .iter()
                .map(|m| {
                    let kind = match module.types[m.ty].inner {
                        TypeInner::Scalar(naga::Scalar::U32) => "u32",
                        TypeInner::Scalar(naga::Scalar::F32) => "f32",
                        _ => "?",
                    };
                    format!("{}: {kind}", m.name.as_deref().unwrap_or("?"))
                })
                .collect();
            assert_eq!(found, fields, "{}", variant.name);
        }
    }
}

#[test]
fn names_are_unique_and_every_kernel_has_a_variant() {
    let mut names: Vec<_> = VARIANTS.iter().map(|v| v.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), VARIANTS.len());
}
