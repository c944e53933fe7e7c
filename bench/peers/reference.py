"""Embeddings in f32 of the texts that are timed: what both sides' outputs are compared with.

    python bench/peers/reference.py --texts texts.json --model plain-f32.onnx --out reference.json
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("texts", "model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    texts = json.loads(options.texts.read_text())
    session = onnxruntime.InferenceSession(options.model, providers=["CPUExecutionProvider"])
    out = {}
    # The words of the first batch: batches.js, n = 0.
    first, second = texts["words"][0][1], texts["words"][1][1]
    for name, rows in texts["sets"].items():
        values = []
        for row in rows:
            ids = list(row["ids"])
            ids[texts["slot"]], ids[texts["slot"] + 1] = first, second
            array = np.array([ids], dtype=np.int64)
            values.extend(session.run(None, {"input_ids": array, "attention_mask": np.ones_like(array)})[0][0].tolist())
        out[name] = values
    options.out.write_text(json.dumps(out))


if __name__ == "__main__":
    main()
