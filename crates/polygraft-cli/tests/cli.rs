//! The command line as a user meets it: wrong input ends in a message with a code, the right status, and no output file.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn polygraft(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_polygraft")).args(args).output().unwrap()
}

fn fixture(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path);
    assert!(path.exists(), "{} is missing", path.display());
    path.display().to_string()
}

fn fails(args: &[&str], status: i32, parts: &[&str]) {
    let done = polygraft(args);
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(status), "{args:?}: {stderr}");
    assert!(done.stdout.is_empty(), "{args:?} printed to stdout");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: {part:?} is not in: {stderr}");
    }
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn usage_is_status_2() {
    fails(&[], 2, &["Usage"]);
    fails(&["dance"], 2, &["dance"]);
    fails(&["forward", "--request"], 2, &["--request"]);
    fails(&["rerank", "--base", "x", "--query", "q", "--passages", "p", "--top", "0"], 2, &["0"]);
    fails(&["embed", "--base", "x", "--input", "y", "--output", "z", "--compose", "stack(a"], 2, &["character"]);
    fails(&["quantize", "--bits", "3", "a", "b"], 2, &["3"]);
}

#[test]
fn requests_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let base = fixture("bases/bert");
    let out = dir.path().join("out.safetensors");
    let cases: &[(&str, &[&str])] = &[
        ("{", &["request.json"]),
        ("{\"rows\": [[1]]}", &["base"]),
        ("{\"base\": \"BASE\"}", &["rows"]),
        ("{\"base\": \"BASE\", \"rows\": []}", &["rows"]),
        ("{\"base\": \"BASE\", \"rows\": [[]]}", &["row 0"]),
        ("{\"base\": \"BASE\", \"rows\": [[1]], \"row\": 1}", &["row"]),
        ("{\"base\": \"BASE\", \"rows\": [[1], [99999]]}", &["row 1", "99999"]),
        ("{\"base\": \"BASE\", \"rows\": [[1]], \"compose\": \"nobody\"}", &["ADAPTER_UNKNOWN", "nobody"]),
        ("{\"base\": \"BASE\", \"rows\": [[1]], \"compose\": \"stack(\"}", &["COMPOSE_INVALID"]),
        ("{\"base\": \"BASE\", \"rows\": [[1]], \"row_compose\": [\"base\", \"base\"]}", &["row_compose"]),
        ("{\"base\": \"BASE\", \"rows\": [[1, 2]], \"token_types\": [[0]]}", &["token type"]),
        ("{\"base\": \"BASE\", \"rows\": [[1]], \"adapters\": {\"a b\": \"x\"}}", &["a b"]),
        ("{\"base\": \"BASE\", \"rows\": [[1]], \"adapters\": {\"a\": {\"task\": 1}}}", &["path"]),
        ("{\"base\": \"BASE\", \"rows\": [[1]], \"fusion\": \"x\"}", &["/x"]),
        ("{\"base\": \"nowhere\", \"rows\": [[1]]}", &["nowhere"]),
    ];
    for (text, parts) in cases {
        let request = write(dir.path(), "request.json", &text.replace("BASE", &base));
        let args = ["forward", "--request", request.to_str().unwrap(), "--output", out.to_str().unwrap()];
        fails(&args, 1, parts);
        assert!(!out.exists());
    }
}

#[test]
fn images_are_refused_with_what_the_base_reads() {
    let dir = tempfile::tempdir().unwrap();
    let [text, vision, other] = ["bases/bert", "bases-pixels/vit", "bases-pixels/vit_odd_patches"].map(fixture);
    let pixels = fixture("base-families/vit/plain/pixels.safetensors");
    let stray = fixture("base-families/vit/plain/expected.safetensors");
    let out = dir.path().join("out.safetensors");
    let cases: [(serde_json::Value, &[&str]); 8] = [
        (serde_json::json!({"base": text, "pixels": pixels}), &["row 0", "reads text", "token ids"]),
        (serde_json::json!({"base": vision, "rows": [[0, 5, 2]]}), &["row 0", "reads images", "3 × 12 × 12"]),
        (serde_json::json!({"base": other, "pixels": pixels}), &["3 channels of 12 × 12", "1 of 15 × 15"]),
        (serde_json::json!({"base": vision, "pixels": pixels, "rows": [[0]]}), &["one or the other"]),
        (serde_json::json!({"base": vision, "pixels": [0.5]}), &["`pixels`", "pixel_values"]),
        (serde_json::json!({"base": vision, "pixels": "nowhere.safetensors"}), &["nowhere"]),
        (serde_json::json!({"base": vision, "pixels": stray}), &["pixel_values"]),
        (serde_json::json!({"base": vision, "pixels": pixels, "row_compose": ["base"]}), &["row_compose", "3"]),
    ];
    for (request, parts) in cases {
        let request = write(dir.path(), "request.json", &request.to_string());
        fails(&["forward", "--request", request.to_str().unwrap(), "--output", out.to_str().unwrap()], 1, parts);
        assert!(!out.exists());
    }
    let texts = write(dir.path(), "texts.txt", "hot water\n");
    let [texts, out] = [texts, out].map(|p| p.display().to_string());
    fails(&["embed", "--base", &vision, "--input", &texts, "--output", &out], 1, &["reads images"]);
    for (what, part) in [("explain", "patches"), ("inspect", "\"patches\": 9")] {
        let args = if what == "explain" { vec![what, "--base", &vision] } else { vec![what, &vision, "--json"] };
        let done = polygraft(&args);
        let text = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && text.contains(part), "{text}");
    }
}

#[test]
fn no_backend_stands_in_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let base = fixture("bases/bert");
    let request = write(dir.path(), "r.json", &format!("{{\"base\": {base:?}, \"rows\": [[1]]}}"));
    let out = dir.path().join("out.safetensors");
    let args =
        ["forward", "--backend", "gpu", "--request", request.to_str().unwrap(), "--output", out.to_str().unwrap()];
    // A machine without a driver, as far as the Vulkan loader knows.
    let none = dir.path().join("none.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_polygraft"));
    let done = command.args(args).env("VK_DRIVER_FILES", &none).env("VK_ICD_FILENAMES", &none).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    if cfg!(target_os = "linux") {
        assert_eq!(done.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("GPU_UNAVAILABLE") && !out.exists(), "{stderr}");
    }
}

#[test]
fn outputs_are_whole_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    let base = fixture("bases/bert");
    let request = write(dir.path(), "r.json", &format!("{{\"base\": {base:?}, \"rows\": [[1, 2, 3]]}}"));
    let out = dir.path().join("any.name");
    let args = ["forward", "--request", request.to_str().unwrap(), "--output", out.to_str().unwrap()];
    let done = polygraft(&args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(out.is_file());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    let missing = dir.path().join("no/such/folder/out");
    fails(&["forward", "--request", request.to_str().unwrap(), "--output", missing.to_str().unwrap()], 1, &["no/such"]);
}

#[test]
fn explain_and_inspect_speak_plainly() {
    let base = fixture("bases/bert");
    let explained = polygraft(&["explain", "--base", &base, "--tokens", "5"]);
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(explained.status.success() && text.contains("layer 0 query"), "{text}");
    let timed = polygraft(&["explain", "--base", &base, "--tokens", "5", "--time"]);
    let text = String::from_utf8_lossy(&timed.stdout);
    assert!(timed.status.success() && text.contains("attention") && text.contains("us a token"), "{text}");
    fails(&["explain", "--base", &base, "--precision", "fast"], 2, &["--time"]);
    let inspected = polygraft(&["inspect", &base]);
    let text = String::from_utf8_lossy(&inspected.stdout);
    assert!(inspected.status.success() && text.contains("bert"), "{text}");
    let adapter = fixture("hub/bottleneck/houlsby/adapter");
    let seen = polygraft(&["inspect", &adapter, "--base", &base]);
    let text = String::from_utf8_lossy(&seen.stdout);
    assert!(seen.status.success() && text.contains("layer 1 attention: bottleneck"), "{text}");
    fails(&["inspect", "/nonexistent/x"], 1, &["/nonexistent/x"]);
}

/// The f32 tensors of an output, in the order of the file.
fn numbers(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[8 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn forward(request: &Path, out: &Path) -> Vec<f32> {
    let done = polygraft(&[
        "forward",
        "--precision",
        "exact",
        "--request",
        &request.display().to_string(),
        "--output",
        &out.display().to_string(),
    ]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    numbers(out)
}

/// A copy of a golden request with another base and composition.
fn request(dir: &Path, case: &str, base: &Path, compose: &str) -> PathBuf {
    let text = std::fs::read_to_string(fixture(&format!("{case}/request.json"))).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["base"] = base.display().to_string().into();
    json["compose"] = compose.into();
    json.as_object_mut().unwrap().remove("adapters");
    if let Some(pixels) = json.get_mut("pixels") {
        *pixels = fixture(&format!("{case}/pixels.safetensors")).into();
    }
    write(dir, "request.json", &json.to_string())
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn a_merged_base_gives_what_the_adapter_gave() {
    for case in
        ["peft-lora/six_linears", "peft-lora/seqcls_bias_all", "peft-lora/lora_bias", "peft/on_vit/patches_lora"]
    {
        let dir = tempfile::tempdir().unwrap();
        let merged = dir.path().join("merged");
        let text = std::fs::read_to_string(fixture(&format!("{case}/request.json"))).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let root = PathBuf::from(fixture(case));
        let (name, adapter) = json["adapters"].as_object().unwrap().iter().next().unwrap();
        let done = polygraft(&[
            "merge",
            "--base",
            &root.join(json["base"].as_str().unwrap()).display().to_string(),
            "--adapter",
            &format!("{name}={}", root.join(adapter.as_str().unwrap()).display()),
            "--compose",
            name,
            "--output",
            &merged.display().to_string(),
        ]);
        assert!(done.status.success(), "{case}: {}", String::from_utf8_lossy(&done.stderr));
        let got = forward(&request(dir.path(), case, &merged, "base"), &dir.path().join("out"));
        let want = numbers(Path::new(&fixture(&format!("{case}/expected.safetensors"))));
        let off = worst(&got, &want);
        assert!(off < 2e-4, "{case}: off by {off:e}");
    }
}

#[test]
fn quantized_bases_stay_close_and_load_again() {
    let text = [("bert", 0.02, 0.5), ("xlmr_seqcls", 0.02, 0.5), ("bert_mlm", 0.05, 0.8), ("roberta_qa", 0.02, 0.5)]
        .map(|(base, eight, four)| (format!("bases/{base}"), format!("bases-forward/{base}"), eight, four));
    let vision = [("vit_odd_patches", "odd_patches"), ("vit_image", "image")]
        .map(|(base, case)| (format!("bases-pixels/{base}"), format!("base-families/vit/{case}"), 0.02, 0.5));
    for (base, case, eight, four) in text.into_iter().chain(vision) {
        let dir = tempfile::tempdir().unwrap();
        let want = numbers(Path::new(&fixture(&format!("{case}/expected.safetensors"))));
        for (bits, limit) in [("16", 5e-3), ("8", eight), ("4", four)] {
            let out = dir.path().join(bits);
            let done = polygraft(&["quantize", "--bits", bits, &fixture(&base), &out.display().to_string()]);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let got = forward(&request(dir.path(), &case, &out, "base"), &dir.path().join("out"));
            let mean = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).sum::<f32>() / want.len() as f32;
            assert!(mean < limit, "{base} at {bits} bits: {mean:e} off on average");
            // Converting what is converted is refused or changes nothing; nothing is written over.
            fails(
                &["quantize", "--bits", bits, &out.display().to_string(), &out.display().to_string()],
                1,
                &["not empty"],
            );
        }
    }
}

/// A base whose word table is nearly all of it: a multilingual model's proportions.
#[cfg(target_os = "linux")]
fn wordy(dir: &Path, vocab: usize) {
    use std::fmt::Write as _;
    let (hidden, mut header, mut at) = (64, String::new(), 0);
    let square = || vec![hidden, hidden];
    let mut tensors = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![vocab, hidden]),
        ("embeddings.position_embeddings.weight".into(), vec![8, hidden]),
        ("embeddings.token_type_embeddings.weight".into(), vec![1, hidden]),
        ("embeddings.LayerNorm".into(), vec![hidden]),
        ("encoder.layer.0.attention.output.LayerNorm".into(), vec![hidden]),
        ("encoder.layer.0.output.LayerNorm".into(), vec![hidden]),
    ];
    let linears = [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ];
    tensors.extend(linears.map(|name| (format!("encoder.layer.0.{name}"), square())));
    let mut put = |name: &str, shape: &[usize]| {
        let end = at + shape.iter().product::<usize>() * 4;
        let comma = if header.is_empty() { '{' } else { ',' };
        write!(header, "{comma}\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{at},{end}]}}")
            .unwrap();
        at = end;
    };
    for (name, shape) in tensors {
        if name.starts_with("embeddings") && name.ends_with("weight") {
            put(&name, &shape);
        } else {
            put(&format!("{name}.weight"), &shape);
            put(&format!("{name}.bias"), &[hidden]);
        }
    }
    header.push('}');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..at / 4).flat_map(|i| ((i % 251) as f32 / 100.0).to_le_bytes()));
    std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
    let config = format!(
        "{{\"model_type\": \"bert\", \"vocab_size\": {vocab}, \"hidden_size\": {hidden}, \"num_hidden_layers\": 1, \
         \"num_attention_heads\": 2, \"intermediate_size\": {hidden}, \"max_position_embeddings\": 8, \"type_vocab_size\": 1}}"
    );
    write(dir, "config.json", &config);
}

/// The most memory that `quantize` held, in bytes, as often as it could be asked: it only grows.
#[cfg(target_os = "linux")]
fn peak_of_quantize(vocab: usize) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    wordy(dir.path(), vocab);
    let mut child = Command::new(env!("CARGO_BIN_EXE_polygraft"))
        .args(["quantize", "--bits", "8"])
        .args([dir.path(), &dir.path().join("out")])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|l| l.trim().strip_suffix(" kB"));
        peak = peak.max(line.and_then(|n| n.trim().parse().ok()).unwrap_or(0) * 1024);
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    };
    assert!(status.success());
    peak
}

#[cfg(target_os = "linux")]
#[test]
fn quantize_holds_rows_and_not_the_model() {
    let (small, large) = (peak_of_quantize(100_000), peak_of_quantize(400_000));
    let file = 400_000 * 64 * 4;
    assert!(small > 1 << 20, "the memory of a process could not be read");
    assert!(large < small + file / 2, "{large} bytes for a table of {file}, {small} for a quarter");
}

#[test]
fn explain_names_the_adapter_of_every_change() {
    for (case, says) in [
        ("peft/ia3/default", ": a"),
        ("hub/mixed/families_bert", ""),
        ("hub/mixed/depths", "average(a:0.25, d:0.25)"),
        ("hub/stack/language_task", "couple"),
        ("peft/stacked", ""),
    ] {
        let mut requests = Vec::new();
        find(Path::new(&fixture(case)), &mut requests);
        assert!(!requests.is_empty(), "{case}");
        for request in requests {
            let done = polygraft(&["explain", "--request", &request.display().to_string()]);
            let text = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success(), "{case}: {}", String::from_utf8_lossy(&done.stderr));
            assert!(!text.contains("unloaded") && text.contains(says), "{}: {text}", request.display());
        }
    }
}

fn find(dir: &Path, out: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            find(&path, out);
        } else if path.ends_with("request.json") && !path.with_file_name("error.txt").exists() {
            out.push(path);
        }
    }
}

/// `combine` with the adapters of a golden case, in `out`.
fn combine(case: &str, out: &Path) -> Output {
    let text = std::fs::read_to_string(fixture(&format!("{case}/combine.json"))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut args = vec!["combine".to_owned(), "--output".into(), out.display().to_string()];
    for (name, path) in json["adapters"].as_object().unwrap() {
        args.extend(["--adapter".into(), format!("{name}={}", fixture(&format!("{case}/{}", path.as_str().unwrap())))]);
        args.extend(["--weight".into(), format!("{name}={}", json["weights"][name])]);
    }
    let kind = json["combination_type"].as_str().unwrap_or("linear");
    args.extend(["--type".into(), kind.to_owned()]);
    for (key, option) in [("svd_rank", "--rank"), ("density", "--density"), ("majority_sign_method", "--majority-sign")]
    {
        if !json[key].is_null() {
            args.extend([option.to_owned(), json[key].to_string().trim_matches('"').to_owned()]);
        }
    }
    polygraft(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn combined_adapters_are_what_the_libraries_make() {
    let mut cases = Vec::new();
    for group in ["peft/combined", "hub/combined"] {
        let found = std::fs::read_dir(fixture(group)).unwrap();
        cases.extend(found.map(|e| format!("{group}/{}", e.unwrap().file_name().to_string_lossy())));
    }
    assert!(cases.len() > 20, "{cases:?}");
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("combined");
        let done = combine(&case, &out);
        assert!(done.status.success(), "{case}: {}", String::from_utf8_lossy(&done.stderr));
        let text = std::fs::read_to_string(fixture(&format!("{case}/request.json"))).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["base"] = fixture(&format!("{case}/{}", json["base"].as_str().unwrap())).into();
        json["adapters"]["combined"] = out.display().to_string().into();
        let request = write(dir.path(), "request.json", &json.to_string());
        let got = forward(&request, &dir.path().join("out"));
        let off = worst(&got, &numbers(Path::new(&fixture(&format!("{case}/expected.safetensors")))));
        assert!(off < 2e-4, "{case}: off by {off:e}");
        // The configuration is the library's own, entry by entry.
        let config = |path: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(path.join("adapter_config.json")).unwrap()).unwrap()
        };
        let (ours, theirs) = (config(&out), config(Path::new(&fixture(&format!("{case}/combined")))));
        for (key, value) in theirs.as_object().unwrap() {
            assert_eq!(&ours[key], value, "{case}: {key}");
        }
    }
}

#[test]
fn what_cannot_be_combined_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out").display().to_string();
    let of = |name: &str, path: &str| format!("{name}={}", fixture(path));
    let (a, b) = (of("a", "peft/combined/cat/adapter_a"), of("b", "peft/combined/cat/adapter_b"));
    let hub = of("h", "hub/bottleneck/leave_out/adapter");
    let vector = of("v", "peft/combined/ia3/adapter_a");
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--adapter", &a, "--adapter", &b, "--weight", "a=1"], 2, &["--weight b="]),
        (&["--adapter", &a, "--weight", "a=x"], 2, &["NAME=NUMBER"]),
        (&["--adapter", &a, "--weight", "a=1", "--weight", "c=1"], 2, &["--weight c"]),
        (&["--adapter", &a, "--adapter", &a, "--weight", "a=1"], 2, &["twice"]),
        (&["--adapter", "nowhere", "--weight", "a=1"], 2, &["NAME=PATH"]),
        (&["--adapter", &a, "--weight", "a=1", "--type", "dare_ties"], 2, &["dare_ties"]),
        (&["--adapter", &a, "--adapter", &b, "--weight", "a=1", "--weight", "b=inf"], 1, &["finite"]),
        (
            &["--adapter", &a, "--adapter", &b, "--weight", "a=1", "--weight", "b=1", "--type", "linear"],
            1,
            &["one rank", "cat and svd"],
        ),
        (&["--adapter", &a, "--adapter", &b, "--weight", "a=1", "--weight", "b=1", "--type", "ties"], 1, &["density"]),
        (&["--adapter", &a, "--weight", "a=1", "--type", "ties", "--density", "1.5"], 1, &["0 to 1"]),
        (&["--adapter", &a, "--weight", "a=1", "--type", "cat", "--rank", "4"], 1, &["rank", "svd"]),
        (&["--adapter", &a, "--weight", "a=1", "--modules-of", "a"], 1, &["saves no module"]),
        (&["--adapter", &a, "--weight", "a=1", "--modules-of", "z"], 1, &["not one of the adapters"]),
        (&["--adapter", &a, "--adapter", &hub, "--weight", "a=1", "--weight", "h=1"], 1, &["different libraries"]),
        (&["--adapter", &hub, "--weight", "h=1"], 1, &["average"]),
        (&["--adapter", &a, "--adapter", &vector, "--weight", "a=1", "--weight", "v=1"], 1, &["LORA", "IA3"]),
        (&["--adapter", &vector, "--weight", "v=1"], 1, &["linear"]),
        (&["--adapter", &a, "--adapter", &b, "--type", "average"], 1, &["differ in", "one configuration"]),
        (&["--adapter", &a, "--weight", "a=0", "--type", "average"], 1, &["sum to 0"]),
    ];
    for (args, status, parts) in cases {
        fails(&[&["combine", "--output", &out], *args].concat(), *status, parts);
        assert!(!Path::new(&out).exists(), "{args:?}");
    }
    for (case, parts) in [
        ("peft/dora/six", &["DoRA"][..]),
        ("peft-lora/seqcls_bias_all", &["bias"]),
        ("peft-lora/lora_bias", &["biases of LoRA"]),
    ] {
        let folder = first_adapter(case);
        fails(&["combine", "--output", &out, "--adapter", &format!("a={folder}"), "--weight", "a=1"], 1, parts);
    }
}

/// The folder of a golden case's first adapter.
fn first_adapter(case: &str) -> String {
    let text = std::fs::read_to_string(fixture(&format!("{case}/request.json"))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (_, adapter) = json["adapters"].as_object().unwrap().iter().next().unwrap();
    fixture(&format!("{case}/{}", adapter.as_str().unwrap()))
}

/// P17: a converted base is the one that was written, or it is refused: a bit among its weights, its configuration, its list.
#[test]
fn a_converted_base_is_the_one_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    let done = polygraft(&["quantize", "--bits", "8", &fixture("bases/bert"), base.to_str().unwrap()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = format!("{{\"base\": {:?}, \"rows\": [[1, 2, 3]]}}", base.display().to_string());
    let request = write(dir.path(), "request.json", &text);
    let out = dir.path().join("out.safetensors");
    let args = ["forward", "--request", request.to_str().unwrap(), "--output", out.to_str().unwrap()];
    assert!(polygraft(&args).status.success());
    std::fs::remove_file(&out).unwrap();
    let turn = |file: &str, at: usize, bit: u8| {
        let path = base.join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = if at == usize::MAX { bytes.len() - 1 } else { at };
        bytes[at] ^= 1 << bit;
        std::fs::write(path, bytes).unwrap();
    };
    let weights = std::fs::metadata(base.join("model.safetensors")).unwrap().len() as usize;
    for at in [weights / 3, weights / 2, usize::MAX] {
        turn("model.safetensors", at, 0);
        fails(&args, 1, &["INTEGRITY", "model.safetensors", "convert it anew"]);
        assert!(!out.exists());
        turn("model.safetensors", at, 0);
    }
    let config = std::fs::read_to_string(base.join("config.json")).unwrap();
    std::fs::write(base.join("config.json"), format!("{config}\n")).unwrap();
    fails(&args, 1, &["INTEGRITY", "config.json"]);
    std::fs::write(base.join("config.json"), config).unwrap();
    let list = std::fs::read_to_string(base.join("polygraft.json")).unwrap();
    for (from, to, part) in [("\"sha256\"", "\"sha255\"", "SHA-256"), ("\"files\"", "\"filet\"", "lists no files")] {
        std::fs::write(base.join("polygraft.json"), list.replace(from, to)).unwrap();
        fails(&args, 1, &["FORMAT_HEADER", part]);
    }
    std::fs::write(base.join("polygraft.json"), list).unwrap();
    assert!(polygraft(&args).status.success());
}
