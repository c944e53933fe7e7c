//! Packed adapters through the command line: what is packed computes what its unpacked folder computes, on every backend,
//! and a damaged file is refused.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn polygraft(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_polygraft")).args(args).output().unwrap()
}

fn golden(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

fn done(args: &[&str]) {
    let out = polygraft(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn fails(args: &[&str], status: i32, says: &str) {
    let out = polygraft(args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(status) && stderr.contains(says), "{args:?}: {says:?} is not in: {stderr}");
}

/// A golden case: base, adapter, and its request with another adapter.
struct Case {
    base: String,
    adapter: String,
    request: serde_json::Value,
}

fn case(name: &str) -> Case {
    let root = golden(name);
    let mut request: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root.join("request.json")).unwrap()).unwrap();
    let base = root.join(request["base"].as_str().unwrap()).display().to_string();
    let (key, adapter) = request["adapters"].as_object().unwrap().iter().next().unwrap();
    let (key, adapter) = (key.clone(), root.join(adapter.as_str().unwrap()).display().to_string());
    request["base"] = base.clone().into();
    request["adapters"] = serde_json::json!({});
    request["compose"] = key.into();
    Case { base, adapter, request }
}

impl Case {
    fn forward(&self, dir: &Path, backend: &str, adapter: &Path) -> Vec<f32> {
        let mut request = self.request.clone();
        let name = request["compose"].as_str().unwrap().to_owned();
        request["adapters"][name] = adapter.display().to_string().into();
        let (file, out) = (dir.join("request.json"), dir.join("out"));
        std::fs::write(&file, request.to_string()).unwrap();
        let paths = [&file, &out].map(|p| p.display().to_string());
        done(&["forward", "--backend", backend, "--precision", "exact", "--request", &paths[0], "--output", &paths[1]]);
        let bytes = std::fs::read(&out).unwrap();
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        bytes[8 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

/// Families whose parameters are matrices, of both libraries; prefixes are stored under several names.
const CASES: [&str; 13] = [
    "peft-lora/six_linears",
    "peft/lora_tokens",
    "peft/loha",
    "peft/prefix_tuning",
    "hub/bottleneck",
    "hub/compacter",
    "hub/prefix/gating_shared",
    "hub/lora",
    "hub/heads",
    // Sparse updates and spectra, whose values are vectors beside their places.
    "peft/shira",
    "peft/fourierft",
    "sparse/spiel",
    "sparse/lt-sft/norms",
];

/// The first case of a group with one adapter that loads without options.
fn first(group: &str) -> String {
    let dir = golden(group);
    if dir.join("request.json").exists() {
        return group.to_owned();
    }
    let mut names: Vec<String> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let fits = |name: &&String| {
        let Ok(text) = std::fs::read(dir.join(name).join("request.json")) else { return false };
        let request: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let adapters = request["adapters"].as_object().unwrap();
        !dir.join(name).join("error.txt").exists()
            && adapters.len() == 1
            && adapters.values().all(serde_json::Value::is_string)
            && request["fusion"].is_null()
    };
    format!("{group}/{}", names.iter().find(fits).unwrap())
}

#[test]
fn packed_is_what_unpacked_is() {
    for group in CASES {
        let name = first(group);
        let case = case(&name);
        let dir = tempfile::tempdir().unwrap();
        let original = case.forward(dir.path(), "reference", Path::new(&case.adapter));
        let mut errors = Vec::new();
        for (bits, options) in [
            ("1", &[][..]),
            ("2", &["--per", "row"]),
            ("4", &["--per", "32", "--levels", "least-squares"]),
            ("8", &[]),
            ("16", &["--rest", "32"]),
        ] {
            let (file, folder) = (dir.path().join(format!("{bits}.packed")), dir.path().join(format!("{bits}.folder")));
            let (f, d) = (file.display().to_string(), folder.display().to_string());
            done(&[&["pack", case.adapter.as_str(), &f, "--base", &case.base, "--bits", bits], options].concat());
            done(&["unpack", &f, &d]);
            let unpacked = case.forward(dir.path(), "reference", &folder);
            assert_eq!(case.forward(dir.path(), "reference", &file), unpacked, "{name}, {bits} bits");
            if bits == "1" {
                for backend in ["cpu", "gpu"] {
                    let off = worst(&case.forward(dir.path(), backend, &file), &unpacked);
                    assert!(off < 1e-3, "{name} on {backend}: off by {off:e}");
                }
            }
            errors.push(worst(&unpacked, &original));
        }
        assert!(errors[4] < 1e-5 && errors[3] < errors[0] / 4.0, "{name}: {errors:?}");
    }
}

#[test]
fn masks_are_bits_and_lose_nothing() {
    let case = case("sparse/mask/another_threshold");
    let dir = tempfile::tempdir().unwrap();
    let original = case.forward(dir.path(), "reference", Path::new(&case.adapter));
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let weights = size(&Path::new(&case.adapter).join("adapter_model.safetensors"));
    for bits in ["1", "8"] {
        let (file, folder) = (dir.path().join(format!("{bits}.packed")), dir.path().join(format!("{bits}.folder")));
        let (f, d) = (file.display().to_string(), folder.display().to_string());
        done(&["pack", &case.adapter, &f, "--base", &case.base, "--bits", bits]);
        done(&["unpack", &f, &d]);
        // 32 bits a weight, and one; what is said about them takes some room.
        assert!(size(&file) < weights / 32 + 1500, "{} of {weights}", size(&file));
        for backend in ["reference", "cpu", "gpu"] {
            let off = worst(&case.forward(dir.path(), backend, &file), &original);
            assert!(off < if backend == "reference" { 1e-9 } else { 1e-4 }, "{backend}: off by {off:e}");
        }
        assert_eq!(case.forward(dir.path(), "reference", &folder), original);
    }
    // On weights of 4 bits, which are masked as they run.
    let quantized = dir.path().join("q4").display().to_string();
    done(&["quantize", "--bits", "4", &case.base, &quantized]);
    let mut on_codes = case;
    on_codes.request["base"] = quantized.clone().into();
    let file = dir.path().join("1.packed");
    let (packed, folder) =
        (on_codes.forward(dir.path(), "cpu", &file), on_codes.forward(dir.path(), "cpu", Path::new(&on_codes.adapter)));
    assert_eq!(packed, folder);
    assert!(worst(&packed, &original) > 1e-6, "the base's codes change nothing");
}

#[test]
fn places_take_a_byte_each() {
    let case = case("sparse/lt-sft/xlmr_language");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("packed");
    let f = file.display().to_string();
    done(&["pack", &case.adapter, &f, "--base", &case.base, "--bits", "1"]);
    let diff = std::fs::metadata(Path::new(&case.adapter).join("pytorch_diff.bin")).unwrap().len();
    let bytes = std::fs::read(&file).unwrap();
    let n = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    let part = |name: &str| header[name]["shape"][0].as_u64().unwrap();
    let about: serde_json::Value = serde_json::from_str(header["__metadata__"]["polygraft"].as_str().unwrap()).unwrap();
    let rows = about["tensors"]["pytorch_diff.bin"].as_array().unwrap();
    let values: u64 = rows.iter().filter(|r| r[3] == 0).map(|r| r[2][0].as_u64().unwrap()).sum();
    assert!(values > 1000 && part("whole") < values + values / 4, "{} bytes for {values} places", part("whole"));
    assert!((bytes.len() as u64) < diff / 2, "{} of {diff}", bytes.len());
}

#[test]
fn the_documents_reader_reads_it() {
    for name in [first("hub/heads").as_str(), "peft/shira/few", "sparse/mask/all_linears"] {
        the_documents_reader_reads(&case(name));
    }
}

fn the_documents_reader_reads(case: &Case) {
    let dir = tempfile::tempdir().unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let reader = std::fs::read_to_string(docs.join("read_packed.py")).unwrap();
    assert!(
        std::fs::read_to_string(docs.join("format.md")).unwrap().contains(&reader),
        "docs/format.md shows another reader"
    );
    for (bits, per) in [("1", "tensor"), ("2", "32"), ("4", "row"), ("8", "tensor"), ("16", "tensor")] {
        let (file, folder) = (dir.path().join("packed"), dir.path().join(format!("{bits}.folder")));
        let (f, d) = (file.display().to_string(), folder.display().to_string());
        done(&["pack", &case.adapter, &f, "--base", &case.base, "--bits", bits, "--per", per, "--heads", "--force"]);
        done(&["unpack", &f, &d]);
        let program = format!(
            "import sys, struct, json\nsys.path.insert(0, {:?})\nimport read_packed\n\
             for name, tensors in read_packed.read({f:?})[1].items():\n\
             \x20data = open({d:?} + '/' + name, 'rb').read()\n\
             \x20n = struct.unpack('<Q', data[:8])[0]\n\
             \x20header = json.loads(data[8:8 + n])\n\
             \x20assert set(header) == set(tensors)\n\
             \x20for t, (shape, values) in tensors.items():\n\
             \x20\x20a, b = header[t]['data_offsets']\n\
             \x20\x20kind, size = ('q', 8) if header[t]['dtype'] == 'I64' else ('f', 4)\n\
             \x20\x20assert header[t]['shape'] == shape and list(struct.unpack(f'<{{(b - a) // size}}{{kind}}', data[8 + n + a:8 + n + b])) == values, t\n",
            docs.display().to_string()
        );
        let out =
            Command::new("python3").args(["-B", "-c", &program]).output().expect("python3, which setup needs too");
        assert!(out.status.success(), "{bits} bits: {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn what_cannot_be_packed_or_read_says_why() {
    let case = case("peft-lora/six_linears");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (good, out) = (path("good"), path("out"));
    done(&["pack", &case.adapter, &good, "--base", &case.base, "--bits", "1"]);
    let inspected = polygraft(&["inspect", &good]);
    assert!(String::from_utf8_lossy(&inspected.stdout).contains("packed adapter"));
    fails(&["pack", &case.adapter, &out, "--base", &case.base, "--bits", "3"], 2, "3");
    fails(&["pack", &case.adapter, &good, "--base", &case.base, "--bits", "1"], 1, "--force");
    fails(&["pack", &good, &out, "--base", &case.base, "--bits", "1"], 1, "packed already");
    fails(&["pack", &case.base, &out, "--base", &case.base, "--bits", "1"], 1, "adapter_config.json");
    let vectors = golden("peft/ia3/default/adapter").display().to_string();
    fails(&["pack", &vectors, &out, "--base", &case.base, "--bits", "1"], 1, "nothing to pack");
    fails(&["unpack", &path("nowhere"), &out], 1, "nowhere");
    fails(&["unpack", &vectors, &out], 1, "packed");
    assert!(!Path::new(&out).exists());

    let bytes = std::fs::read(&good).unwrap();
    let n = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + n].to_vec()).unwrap();
    let data = &bytes[8 + n..];
    let with = |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
    let edited = |from: &str, to: &str| {
        assert!(header.contains(from), "{from:?} is not in {header}");
        with(&header.replacen(from, to, 1), data)
    };
    let stats = {
        let header: serde_json::Value = serde_json::from_str(&header).unwrap();
        8 + n + header["stats"]["data_offsets"][0].as_u64().unwrap() as usize
    };
    let mut nan = bytes.clone();
    nan[stats..stats + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let bare = {
        let mut header: serde_json::Value = serde_json::from_str(&header).unwrap();
        let own = &mut header["__metadata__"]["polygraft"];
        let mut about: serde_json::Value = serde_json::from_str(own.as_str().unwrap()).unwrap();
        about["texts"] = serde_json::json!({});
        *own = about.to_string().into();
        with(&header.to_string(), data)
    };
    let damaged: [(&str, Vec<u8>, &str); 10] = [
        ("without its configuration, which once was read as itself without end", bare, "no configuration"),
        ("cut short", bytes[..bytes.len() - 5].to_vec(), "FORMAT_RANGE"),
        ("of a later format", edited("\\\"format\\\":1", "\\\"format\\\":2"), "update polygraft"),
        ("of three bits", edited("\\\"bits\\\":1", "\\\"bits\\\":3"), "bits"),
        ("of two bits, with one bit's codes", edited("\\\"bits\\\":1", "\\\"bits\\\":2"), "levels"),
        ("with a lying shape", edited(",[3,32],0]", ",[3,64],0]"), "FORMAT_RANGE"),
        ("with a smaller shape", edited(",[3,32],0]", ",[3,16],0]"), "no tensor"),
        ("with a name that begins nowhere", edited("[[0,", "[[7,"), "begins with 7"),
        ("with NaN", nan, "NOT_FINITE"),
        ("of an unknown family", edited("LORA", "LORE"), "LORE"),
    ];
    for (what, bytes, says) in damaged {
        let file = path("damaged");
        std::fs::write(&file, bytes).unwrap();
        let seen = polygraft(&["inspect", &file, "--base", &case.base]);
        let stderr = String::from_utf8_lossy(&seen.stderr);
        assert!(seen.status.code() == Some(1) && stderr.contains(says), "{what}: {says:?} is not in: {stderr}");
    }
}

#[test]
fn another_base_is_refused() {
    let case = case("peft-lora/six_linears");
    let dir = tempfile::tempdir().unwrap();
    let (quantized, file) = (dir.path().join("q8").display().to_string(), dir.path().join("p").display().to_string());
    done(&["quantize", "--bits", "16", &case.base, &quantized]);
    done(&["pack", &case.adapter, &file, "--base", &quantized, "--bits", "1"]);
    let other = golden("bases/bert_mlm").display().to_string();
    let changed = dir.path().join("other").display().to_string();
    done(&["quantize", "--bits", "16", &other, &changed]);
    done(&["inspect", &file, "--base", &quantized]);
    fails(&["explain", "--base", &changed, "--adapter", &format!("a={file}"), "--compose", "a"], 1, "base");
}

#[test]
fn explain_shows_what_adapters_occupy() {
    let case = case("peft-lora/six_linears");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("packed").display().to_string();
    done(&["pack", &case.adapter, &file, "--base", &case.base, "--bits", "1"]);
    let given = [format!("whole={}", case.adapter), format!("packed={file}"), format!("idle={file}")];
    let mut args = vec!["explain", "--base", &case.base, "--compose", "whole", "--compose", "packed"];
    given.iter().for_each(|a| args.extend(["--adapter", a]));
    let text = String::from_utf8_lossy(&polygraft(&args).stdout).into_owned();
    assert!(text.lines().any(|l| l.starts_with("packed: ") && l.contains("KB in memory")), "{text}");
    args.push("--json");
    let out: serde_json::Value = serde_json::from_slice(&polygraft(&args).stdout).unwrap();
    let of = |name: &str, key: &str| {
        let list = out["adapters"].as_array().unwrap();
        list.iter().find(|a| a["adapter"] == name).unwrap()[key].as_u64().unwrap()
    };
    assert_eq!(of("packed", "session"), of("idle", "session") + 2, "but for the longer name");
    assert!(of("packed", "session") < of("whole", "session"));
    assert!(of("whole", "backend") > 0 && of("idle", "backend") == 0, "what no call has used has nothing there: {out}");
    assert!(of("packed", "backend") < of("whole", "backend") / 2, "codes are not copied: {out}");
}
