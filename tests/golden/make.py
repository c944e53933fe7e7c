"""Makes the golden fixtures: see README.md.

    python tests/golden/make.py [group…]      (no group: everything)

Made with torch 2.15.0, transformers 4.57.6, peft 0.21.2, safetensors 0.8.0 (requirements.txt) on a CPU in float32.
Every base and every case seeds itself by its name, so a group can be remade alone and gives the same bytes.
"""

import json
import math
import os
import re
import shutil
import struct
import sys
import warnings
import zlib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")
torch.set_grad_enabled(False)
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent
BASES = ROOT / "bases"
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=100,
             max_position_embeddings=40, attn_implementation="eager")
GROUPS = {}


def group(name):
    def add(make):
        GROUPS[name] = make
        return make
    return add


def generator(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def normal(g, shape, std, mean=0.0):
    return torch.randn(shape, generator=g) * std + mean


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


# ---- Bases

def randomise(model, name):
    """No tensor of a base is an identity: neither a bias of 0 nor a norm of 1."""
    g = generator(name)
    for key, p in sorted(model.named_parameters()):
        if "LayerNorm" in key or "layer_norm" in key:
            p.data = normal(g, p.shape, 0.15, 1.0 if key.endswith("weight") else 0.0)
        elif key.endswith("bias"):
            p.data = normal(g, p.shape, 0.15)
        elif "embeddings" in key:
            p.data = normal(g, p.shape, 0.4)
        else:
            p.data = normal(g, p.shape, 0.2)
    model.tie_weights()
    return model.eval()


def build(name, cls, config_cls, **changes):
    config = config_cls(**{**SIZES, **changes})
    return randomise(getattr(transformers, cls)(config), name)


def save_base(name, model, tensors=None, dtype=None):
    """config.json as transformers writes it (without what names this machine), and model.safetensors."""
    folder = fresh(BASES / name)
    if dtype:
        model = model.to(dtype)
    model.save_pretrained(folder)
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


BERT, ROBERTA, XLMR, CAMEMBERT = (getattr(transformers, n) for n in ("BertConfig", "RobertaConfig", "XLMRobertaConfig", "CamembertConfig"))
R = dict(type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)
# name → class, configuration, changes
PLAIN = {
    "bert": ("BertModel", BERT, {}),
    "bert_seqcls": ("BertForSequenceClassification", BERT, dict(num_labels=3)),
    "bert_tokcls": ("BertForTokenClassification", BERT, dict(num_labels=5)),
    "bert_mlm": ("BertForMaskedLM", BERT, {}),
    "bert_qa": ("BertForQuestionAnswering", BERT, {}),
    "bert_gelu_new": ("BertModel", BERT, dict(hidden_act="gelu_new")),
    "bert_relu": ("BertModel", BERT, dict(hidden_act="relu")),
    "bert_three_layers": ("BertModel", BERT, dict(hidden_size=48, num_hidden_layers=3, intermediate_size=80, layer_norm_eps=1e-6)),
    "roberta": ("RobertaModel", ROBERTA, R),
    "roberta_seqcls": ("RobertaForSequenceClassification", ROBERTA, dict(num_labels=3, **R)),
    "roberta_qa": ("RobertaForQuestionAnswering", ROBERTA, R),
    "roberta_mlm": ("RobertaForMaskedLM", ROBERTA, R),
    "xlmr": ("XLMRobertaModel", XLMR, R),
    "xlmr_seqcls": ("XLMRobertaForSequenceClassification", XLMR, dict(num_labels=1, **R)),
    "xlmr_mlm": ("XLMRobertaForMaskedLM", XLMR, R),
    "xlmr_tokcls": ("XLMRobertaForTokenClassification", XLMR, dict(num_labels=4, **R)),
    "camembert": ("CamembertModel", CAMEMBERT, R),
}
# How a base that is not in PLAIN is loaded.
CLASSES = {
    "bert_nopool": "BertModel", "bert_f16": "BertModel", "bert_bf16": "BertModel", "bert_sharded": "BertModel",
    "bert_prefixed": "BertModel", "bert_legacy": "BertModel",
    "bert_position_ids": "BertModel", "bert_mlm_untied": "BertForMaskedLM",
    **{name: spec[0] for name, spec in PLAIN.items()},
}


@group("base-folders")
def bases():
    for name, (cls, config_cls, changes) in PLAIN.items():
        save_base(name, build(name, cls, config_cls, **changes))
    bert = lambda: build("bert", "BertModel", BERT)
    model = transformers.BertModel(BERT(**SIZES), add_pooling_layer=False)
    save_base("bert_nopool", randomise(model, "bert_nopool"))
    save_base("bert_f16", bert(), dtype=torch.float16)
    save_base("bert_bf16", bert(), dtype=torch.bfloat16)
    # Keys of the backbone alone with the prefix that a model with a head gives them.
    save_base("bert_prefixed", bert(), {"bert." + k: v for k, v in bert().state_dict().items()})
    # What old releases wrote: gamma and beta, the buffer of position ids, the pre-training heads.
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in bert().state_dict().items()}
    save_base("bert_legacy", bert(), old)
    buffer = {"embeddings.position_ids": torch.arange(40).unsqueeze(0)}
    save_base("bert_position_ids", bert(), {**bert().state_dict(), **buffer})
    # A decoder of its own.
    save_base("bert_mlm_untied", build("bert_mlm_untied", "BertForMaskedLM", BERT, tie_word_embeddings=False))
    # Three shards.
    folder = save_base("bert_sharded", bert())
    (folder / "model.safetensors").unlink()
    tensors = bert().state_dict()
    names = sorted(tensors)
    index = {"metadata": {"total_size": sum(t.numel() * 4 for t in tensors.values())}, "weight_map": {}}
    for i in range(3):
        file = f"model-{i + 1:05}-of-00003.safetensors"
        part = {n: tensors[n].contiguous() for n in names[i::3]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index["weight_map"].update({n: file for n in part})
    write_json(folder / "model.safetensors.index.json", index)


# ---- Rows, requests, expectations

LENGTHS = (1, 2, 5, 17)


def is_bert(base):
    return base.startswith("bert")


def vocab(base):
    return json.loads((BASES / base / "config.json").read_text())["vocab_size"]


def make_rows(name, base, lengths=LENGTHS):
    """Ids of the whole vocabulary, but for RoBERTa's padding: it would move the positions."""
    g = generator("rows " + name)
    low = 0 if is_bert(base) else 2
    return [torch.randint(low, vocab(base), (n,), generator=g).tolist() for n in lengths]


def make_types(rows):
    return [[int(i >= (len(r) + 1) // 2) for i in range(len(r))] for r in rows]


def weights_of(compose):
    """What a composition that this script uses means: adapter → weight."""
    if compose in (None, "base"):
        return {}
    inner = re.fullmatch(r"(?:sum|stack)\((.*)\)", compose)
    out = {}
    for part in (inner[1] if inner else compose).split(","):
        name, _, weight = part.strip().partition(":")
        out[name] = out.get(name, 0.0) + (float(weight) if weight else 1.0)
    return out


def outputs(model, ids, types=None):
    """The backbone's last hidden state and the logits of one row, alone."""
    kwargs = dict(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), output_hidden_states=True)
    if types:
        kwargs["token_type_ids"] = torch.tensor([types])
    out = model(**kwargs)
    hidden, logits = out.hidden_states[-1][0], None
    if "last_hidden_state" in out:
        assert torch.equal(hidden, out.last_hidden_state[0])
    if "logits" in out:
        logits = out.logits[0]
    if "start_logits" in out:
        logits = torch.stack([out.start_logits[0], out.end_logits[0]], -1)
    return hidden, logits


def checked(model, ids, types=None):
    """As `outputs`, with the same in float64 to see that nothing here is too delicate to compare."""
    hidden, logits = outputs(model, ids, types)
    exact = outputs(model.double(), ids, types)
    model.float()
    for a, b in zip((hidden, logits), exact):
        assert a is None or (a - b).abs().max() < 3e-5, (a - b).abs().max()
        assert a is None or torch.isfinite(a).all()
    return hidden, logits


def load_base(base, cls=None, **kwargs):
    cls = getattr(transformers, cls or CLASSES[base])
    model = cls.from_pretrained(BASES / base, dtype=torch.float32, attn_implementation="eager", **kwargs)
    return model.eval()


def request(folder, base, rows, types=None, adapters=None, compose=None, row_compose=None):
    value = {"base": base if "/" in base or base == "base" else f"../../bases/{base}"}
    for key, v in (("adapters", adapters), ("compose", compose), ("row_compose", row_compose), ("rows", rows), ("token_types", types)):
        if v is not None:
            value[key] = v
    # One line a row, so that a difference can be read.
    lines = []
    for key, v in value.items():
        if key in ("rows", "token_types"):
            v = "[\n  " + ",\n  ".join(json.dumps(r) for r in v) + "\n ]" if v else "[]"
        else:
            v = json.dumps(v)
        lines.append(f" {json.dumps(key)}: {v}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "request.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def expect(folder, results):
    out = {}
    for i, (hidden, logits) in enumerate(results):
        out[f"last_hidden_state.{i}"] = hidden.float().contiguous()
        if logits is not None:
            out[f"logits.{i}"] = logits.float().contiguous()
    save_file(out, folder / "expected.safetensors")


def expect_error(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "error.txt").write_text(text + "\n")


@group("bases")
def base_cases():
    names = list(PLAIN) + [n for n in CLASSES if n not in PLAIN]
    for base in names:
        folder = fresh(ROOT / "bases-forward" / base)
        longest = 40 if is_bert(base) else 38
        rows = make_rows(base, base, LENGTHS + (longest,))
        types = make_types(rows) if is_bert(base) else None
        model = load_base(base, **({"add_pooling_layer": False} if base == "bert_nopool" else {}))
        request(folder, base, rows, types)
        expect(folder, [checked(model, r, types and types[i]) for i, r in enumerate(rows)])
    # Token types left out are 0.
    folder = fresh(ROOT / "bases-forward" / "bert_no_types")
    rows = make_rows("bert_no_types", "bert")
    request(folder, "bert", rows)
    model = load_base("bert")
    expect(folder, [checked(model, r) for r in rows])
    # A composition that says so, over a base alone.
    folder = fresh(ROOT / "bases-forward" / "roberta_compose_base")
    rows = make_rows("roberta_compose_base", "roberta")
    request(folder, "roberta", rows, compose="base")
    model = load_base("roberta")
    expect(folder, [checked(model, r) for r in rows])


def main():
    wanted = sys.argv[1:] or list(GROUPS)
    for name in wanted:
        if name not in GROUPS:
            sys.exit(f"no group {name!r}; there are {', '.join(GROUPS)}")
    for name in wanted:
        GROUPS[name]()
        print("made", name, flush=True)
    size = sum(f.stat().st_size for f in ROOT.rglob("*") if f.is_file())
    print(f"{size / 2**20:.2f} MiB, {len(list(ROOT.rglob('request.json')))} requests")
    assert size < 6 * 2**20


if __name__ == "__main__":
    main()
