"""The peers' models: the same dequantized 4-bit e5-small as ONNX, in f32, 8 bits and 4 bits.

    python bench/peers/export.py --source .cache/source/multilingual-e5-small/e5-small-q4.bin --out .cache/bench/models

Two graphs are written for each width, because which one ONNX Runtime runs faster differs between its builds:

    plain   the operators that `torch.onnx` gives for a BertModel (opset 17): Runtime fuses what it can on loading
    fused   the operators that `onnxruntime.transformers.optimizer` puts in their place: MultiHeadAttention (or
            Attention, in 8 bits), SkipLayerNormalization, BiasGelu

and three kinds of weights: `f32`; `u8` and `i8`, from `quantize_dynamic` (one scale a tensor, the table of words too);
`q4`, MatMulNBits with blocks of 32, which holds the very codes and scales of the source, so that not one weight differs.

All take `input_ids` and `attention_mask` (int64 `[rows, tokens]`) and give `embedding`: the L2-normalised mean over
the unmasked tokens (f32 `[rows, 384]`). Pooling in the graph spares the peer the copy of all hidden states.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
from base import contents, read  # noqa: E402

CONTRIB = "com.microsoft"
LINEARS = "q k v ao fi fo".split()


def codes(data: bytes):
    """{name: (u8 codes 0–15 `[blocks, 32]`, f32 scales `[blocks]`)} of every 4-bit tensor of the source."""
    out = {}
    for name, elements, raw in contents(data)[1]:
        if len(raw) != elements // 32 * 18:
            continue
        raw = np.frombuffer(raw, np.uint8).reshape(-1, 18)
        scale = raw[:, :2].copy().view(np.float16).astype(np.float32).reshape(-1)
        out[name] = np.concatenate([raw[:, 2:] & 15, raw[:, 2:] >> 4], axis=1), scale
    return out


def pairs(nibbles: np.ndarray) -> np.ndarray:
    """Two neighbours a byte, the first in the low half: ONNX's order."""
    return (nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)).astype(np.uint8)


class Graph:
    """Nodes and initializers of one model."""

    def __init__(self):
        self.nodes, self.weights, self.made = [], [], 0

    def constant(self, name, value):
        if name not in {w.name for w in self.weights}:
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op, inputs, domain="", outputs=1, name=None, **attributes):
        self.made += 1
        name = name or f"{op}_{self.made}"
        outs = [f"{name}_out"] + [f"{name}_out{i}" for i in range(1, outputs)]
        self.nodes.append(helper.make_node(op, inputs, outs, name=name, domain=domain, **attributes))
        return outs[0]


class Builder:
    """One BertModel with mean pooling. `fused` and `bits` choose among the forms of the module's description."""

    def __init__(self, head, tensors, quantized, fused, bits, attention="MultiHeadAttention"):
        self.h, self.t, self.q, self.fused, self.bits, self.attention = head, tensors, quantized, fused, bits, attention
        self.g = Graph()

    def matmul(self, x, name, out, inp):
        """x · Wᵀ, without the bias."""
        if self.bits == 4:
            nibbles, scales = self.q[f"{name}.w"]
            b = self.g.constant(f"{name}.w", pairs(nibbles).reshape(out, inp // 32, 16))
            s = self.g.constant(f"{name}.s", scales)
            return self.g.node("MatMulNBits", [x, b, s], CONTRIB, K=inp, N=out, bits=4, block_size=32, accuracy_level=4)
        return self.g.node("MatMul", [x, self.g.constant(f"{name}.w", self.t[f"{name}.w"].reshape(out, inp).T)])

    def bias(self, name):
        return self.g.constant(f"{name}.b", self.t[f"{name}.b"])

    def linear(self, x, name, out, inp):
        return self.g.node("Add", [self.matmul(x, name, out, inp), self.bias(name)])

    def norm(self, x, name):
        weights = [self.g.constant(f"{name}.{p}", self.t[f"{name}.{p}"]) for p in "wb"]
        return self.g.node("LayerNormalization", [x, *weights], axis=-1, epsilon=self.h["eps"])

    def residual_norm(self, x, name, norm, out, inp, skip):
        if not self.fused:
            return self.norm(self.g.node("Add", [self.linear(x, name, out, inp), skip]), norm)
        weights = [self.g.constant(f"{norm}.{p}", self.t[f"{norm}.{p}"]) for p in "wb"]
        inputs = [self.matmul(x, name, out, inp), skip, *weights, self.bias(name)]
        return self.g.node("SkipLayerNormalization", inputs, CONTRIB, epsilon=self.h["eps"])

    def attend(self, x, i):
        hidden, heads = self.h["hidden"], self.h["heads"]
        g, names = self.g, [f"l{i}.{p}" for p in "qkv"]
        if self.fused:
            bias = g.constant(f"l{i}.qkv.b", np.concatenate([self.t[f"{n}.b"] for n in names]))
            if self.attention == "Attention":
                weight = np.concatenate([self.t[f"{n}.w"].reshape(hidden, hidden).T for n in names], axis=1)
                inputs = [x, g.constant(f"l{i}.qkv.w", weight), bias, self.mask]
                return g.node("Attention", inputs, CONTRIB, num_heads=heads)
            q, k, v = (self.matmul(x, n, hidden, hidden) for n in names)
            return g.node("MultiHeadAttention", [q, k, v, bias, self.mask], CONTRIB, num_heads=heads)
        shape = g.constant("split", np.array([0, 0, heads, hidden // heads]))

        def split(name, perm):
            return g.node("Transpose", [g.node("Reshape", [self.linear(x, name, hidden, hidden), shape])], perm=perm)

        q, k, v = split(names[0], [0, 2, 1, 3]), split(names[1], [0, 2, 3, 1]), split(names[2], [0, 2, 1, 3])
        root = g.constant("root", np.array(np.sqrt(hidden // heads), np.float32))
        scores = g.node("Add", [g.node("Div", [g.node("MatMul", [q, k]), root]), self.mask])
        mixed = g.node("MatMul", [g.node("Softmax", [scores], axis=-1), v])
        join = g.constant("join", np.array([0, 0, hidden]))
        return g.node("Reshape", [g.node("Transpose", [mixed], perm=[0, 2, 1, 3]), join])

    def gelu(self, x, name, out, inp):
        g = self.g
        if self.fused:
            return g.node("BiasGelu", [self.matmul(x, name, out, inp), self.bias(name)], CONTRIB)
        x = self.linear(x, name, out, inp)
        e = g.node("Erf", [g.node("Div", [x, g.constant("sqrt2", np.array(np.sqrt(2), np.float32))])])
        e = g.node("Add", [e, g.constant("one", np.array(1, np.float32))])
        return g.node("Mul", [g.node("Mul", [x, e]), g.constant("half", np.array(0.5, np.float32))])

    def embed(self):
        g, hidden = self.g, self.h["hidden"]
        if self.bits == 4:
            # Signed 4-bit codes need no zero point: value = code × scale.
            nibbles, scales = self.q["emb.word"]
            table = onnx.TensorProto(name="emb.word", data_type=TensorProto.INT4, dims=[self.h["vocab"], hidden])
            table.raw_data = pairs((nibbles ^ 8)).tobytes()
            g.weights.append(table)
            scales = g.constant("emb.scales", scales.reshape(self.h["vocab"], hidden // 32))
            words = g.node("GatherBlockQuantized", ["emb.word", "input_ids", scales], CONTRIB, gather_axis=0, quantize_axis=1, block_size=32)
        else:
            words = g.node("Gather", [g.constant("emb.word", self.t["emb.word"].reshape(-1, hidden)), "input_ids"])
        # Token types are all 0: their row is added to the positions once, here.
        positions = self.t["emb.pos"].reshape(-1, hidden) + self.t["emb.type"].reshape(-1, hidden)[:1]
        length = g.node("Slice", [g.node("Shape", ["input_ids"]), *(g.constant(n, np.array([v])) for n, v in (("c1", 1), ("c2", 2)))])
        used = g.node("Slice", [g.constant("emb.pos", positions), g.constant("c0", np.array([0])), length, "c0"])
        return self.norm(g.node("Add", [words, used]), "emb.ln")

    def pool(self, x):
        g = self.g
        mask = g.node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        # [rows, 1, tokens] · [rows, tokens, hidden]; the norm takes care of the division.
        row = g.node("Unsqueeze", [mask, g.constant("c1", np.array([1]))])
        total = g.node("Squeeze", [g.node("MatMul", [row, x]), "c1"])
        length = g.node("ReduceL2", [total], axes=[1], keepdims=1)
        return g.node("Div", [total, length], name="embedding")

    def build(self):
        g, hidden, ffn = self.g, self.h["hidden"], self.h["ffn"]
        x = self.embed()
        if self.fused:
            self.mask = g.node("Cast", ["attention_mask"], to=TensorProto.INT32)
        else:
            wide = g.node("Unsqueeze", ["attention_mask", g.constant("axes", np.array([1, 2]))])
            off = g.node("Sub", [g.constant("one", np.array(1, np.float32)), g.node("Cast", [wide], to=TensorProto.FLOAT)])
            self.mask = g.node("Mul", [off, g.constant("lowest", np.array(np.finfo(np.float32).min))])
        for i in range(self.h["layers"]):
            mixed = self.attend(x, i)
            x = self.residual_norm(mixed, f"l{i}.ao", f"l{i}.aln", hidden, hidden, x)
            x = self.residual_norm(self.gelu(x, f"l{i}.fi", ffn, hidden), f"l{i}.fo", f"l{i}.oln", hidden, ffn, x)
        out = self.pool(x)
        g.nodes[-1].output[0] = out = "embedding"
        ids = [helper.make_tensor_value_info(n, TensorProto.INT64, ["rows", "tokens"]) for n in ("input_ids", "attention_mask")]
        result = helper.make_tensor_value_info(out, TensorProto.FLOAT, ["rows", hidden])
        graph = helper.make_graph(g.nodes, "e5", ids, [result], g.weights)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # quantize_dynamic advises a pre-processing that changes nothing here
    data = options.source.read_bytes()
    head, tensors = read(data)
    quantized = codes(data)
    options.out.mkdir(parents=True, exist_ok=True)

    def path(name):
        return options.out / f"{name}.onnx"

    for form, fused in (("plain", False), ("fused", True)):
        onnx.save(Builder(head, tensors, quantized, fused, 4).build(), path(f"{form}-q4"))
        onnx.save(Builder(head, tensors, quantized, fused, 32).build(), path(f"{form}-f32"))
        # quantize_dynamic knows Attention, which holds its own weights, and not MultiHeadAttention.
        for attention in ("MultiHeadAttention", "Attention") if fused else ("plain",):
            name = "merged" if attention == "Attention" else form
            source = path(f"{name}-f32")
            if name == "merged":
                onnx.save(Builder(head, tensors, quantized, True, 32, attention).build(), source)
            for short, kind in (("u8", QuantType.QUInt8), ("i8", QuantType.QInt8)):
                quantize_dynamic(source, path(f"{name}-{short}"), weight_type=kind, op_types_to_quantize=["MatMul", "Gather", "Attention"],
                                 extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT})
            if name == "merged":
                source.unlink()
    for file in sorted(options.out.glob("*.onnx")):
        print(f"{file.stat().st_size / 1e6:8.1f} MB  {file.name}")


if __name__ == "__main__":
    main()
