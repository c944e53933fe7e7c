//! The command line as a user meets it: wrong input ends in a message with a code, the right status, and no output file.

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
        ("{\"base\": \"BASE\", \"rows\": [[1]], \"fusion\": \"x\"}", &["fusion"]),
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
fn no_backend_stands_in_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let base = fixture("bases/bert");
    let request = write(dir.path(), "r.json", &format!("{{\"base\": {base:?}, \"rows\": [[1]]}}"));
    let args = ["forward", "--backend", "gpu", "--request", request.to_str().unwrap(), "--output", "/dev/null/x"];
    fails(&args, 1, &["gpu"]);
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
    let inspected = polygraft(&["inspect", &base]);
    let text = String::from_utf8_lossy(&inspected.stdout);
    assert!(inspected.status.success() && text.contains("bert"), "{text}");
    fails(&["inspect", "/nonexistent/x"], 1, &["/nonexistent/x"]);
}
