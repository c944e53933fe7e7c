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


def base_at(name):
    """Bases that see stand beside those that read: what walks `bases` gives each of them ids."""
    return (BASES.with_name("bases-pixels") if name.startswith("vit") else BASES) / name


def save_base(name, model, tensors=None, dtype=None):
    """config.json as transformers writes it (without what names this machine), and model.safetensors."""
    folder = fresh(base_at(name))
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
    "roberta_pad0": "RobertaModel", "bert_odd": "BertModel", "bert_odd_bf16": "BertModel", "xlmr_odd_sharded": "XLMRobertaModel",
    "bert_position_ids": "BertModel", "bert_mlm_untied": "BertForMaskedLM",
    **{name: spec[0] for name, spec in PLAIN.items()},
}


@group("bases")
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
    # Widths that no kernel likes: heads of 11 and of 3, an odd feed-forward layer, three token types.
    odd = dict(hidden_size=33, num_attention_heads=3, intermediate_size=37, vocab_size=101)
    save_base("bert_odd", build("bert_odd", "BertModel", BERT, **odd, type_vocab_size=3))
    save_base("bert_odd_bf16", build("bert_odd_bf16", "BertModel", BERT, **odd), dtype=torch.bfloat16)
    tiny = build("xlmr_odd_sharded", "XLMRobertaModel", XLMR, **R | dict(hidden_size=6, num_attention_heads=2, intermediate_size=13, type_vocab_size=2))
    tiny.to(torch.float16).save_pretrained(fresh(BASES / "xlmr_odd_sharded"), max_shard_size="4KB")
    # Padding elsewhere than at 1, and so the first position too.
    save_base("roberta_pad0", build("roberta_pad0", "RobertaModel", ROBERTA, **{**R, "pad_token_id": 0, "bos_token_id": 1}))
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
    """The backbone's last hidden state, after a final norm where there is one, and the logits of one row, alone."""
    kept = []
    final = [m for n, m in model.named_modules() if n.split(".")[-1] in ("final_norm", "layernorm")]
    hooks = [m.register_forward_hook(lambda m, i, out: kept.append(out)) for m in final]
    kwargs = dict(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), output_hidden_states=True)
    if types:
        kwargs["token_type_ids"] = torch.tensor([types])
    out = model(**kwargs)
    for hook in hooks:
        hook.remove()
    hidden, logits = (kept[-1] if kept else out.hidden_states[-1])[0], None
    if "last_hidden_state" in out:
        assert torch.equal(hidden, out.last_hidden_state[0])
    if "logits" in out:
        logits = out.logits[0]
    if "start_logits" in out:
        logits = torch.stack([out.start_logits[0], out.end_logits[0]], -1)
    return hidden, logits


def checked(model, ids, types=None, most=3e-5):
    """As `outputs`, with the same in float64 to see that nothing here is too delicate to compare."""
    hidden, logits = outputs(model, ids, types)
    exact = outputs(model.double(), ids, types)
    model.float()
    for a, b in zip((hidden, logits), exact):
        assert a is None or (a - b).abs().max() < most, (a - b).abs().max()
        assert a is None or torch.isfinite(a).all()
    return hidden, logits


def load_base(base, cls=None, **kwargs):
    cls = getattr(transformers, cls or CLASSES[base])
    model = cls.from_pretrained(BASES / base, dtype=torch.float32, attn_implementation="eager", **kwargs)
    return model.eval()


def request(folder, base, rows, types=None, adapters=None, compose=None, row_compose=None, fusion=None):
    value = {"base": base if "/" in base or base == "base" else os.path.relpath(BASES / base, folder)}
    for key, v in (("adapters", adapters), ("fusion", fusion), ("compose", compose), ("row_compose", row_compose), ("rows", rows), ("token_types", types)):
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


def request_pixels(folder, base, images, adapters=None, compose=None, row_compose=None, fusion=None):
    """A request on a base that sees: one image a row, in a file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"pixel_values": torch.stack(images)}, folder / "pixels.safetensors")
    value = {"base": os.path.relpath(base_at(base), folder), "adapters": adapters, "fusion": fusion, "compose": compose,
             "row_compose": row_compose, "pixels": "pixels.safetensors"}
    write_json(folder / "request.json", {k: v for k, v in value.items() if v is not None})


def make_images(name, base, count):
    config = json.loads((base_at(base) / "config.json").read_text())
    g = generator(f"pixels {name}")
    return [normal(g, (config["num_channels"], config["image_size"], config["image_size"]), 1.0) for _ in range(count)]


def expect(folder, results):
    out = {}
    for i, (hidden, logits) in enumerate(results):
        out[f"last_hidden_state.{i}"] = hidden.float().contiguous()
        if logits is not None:
            out[f"logits.{i}"] = logits.float().contiguous()
    save_file(out, folder / "expected.safetensors")


def expect_error(folder, text):
    # A message names the file, so a word of the path proves nothing.
    assert text not in str(folder.relative_to(ROOT.parent) / "adapter" / "request.json"), f"{folder}: {text}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "error.txt").write_text(text + "\n")


@group("bases-forward")
def base_cases():
    fresh(ROOT / "bases-forward")
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


@group("padding-inside")
def padding_inside():
    """RoBERTa's padding id inside a row takes the padding's position, and the tokens after it count on without it."""
    for base in ("roberta", "xlmr", "roberta_pad0"):
        folder = fresh(ROOT / "padding-inside" / base)
        rows = [[5, 1, 7, 9], [1], [3, 1, 1, 4], [0, 5, 0, 0, 6]]
        request(folder, base, rows)
        model = load_base(base)
        expect(folder, [checked(model, r) for r in rows])


# ---- PEFT LoRA

def randomise_adapter(peft, name):
    """Every tensor that the adapter saves is re-drawn, so that none is an identity."""
    g = generator("adapter " + name)
    for key, p in sorted(peft.named_parameters()):
        if not p.requires_grad:
            continue
        if ".lora_" in key and key.endswith("weight"):
            p.data = normal(g, p.shape, 0.3)
        elif key.endswith("bias"):
            p.data = normal(g, p.shape, 0.2)
        elif "LayerNorm" in key or "layer_norm" in key:
            p.data = normal(g, p.shape, 0.15, 1.0)
        else:
            p.data = normal(g, p.shape, 0.25)


def wrap(base, cls, name, config, labels=None, adapter="default"):
    """The library's model with a new adapter on it, all of it random."""
    kwargs = {"num_labels": labels, "ignore_mismatched_sizes": True} if labels else {}
    model = load_base(base, cls, **kwargs)
    peft = get_peft_model(model, LoraConfig(**config), adapter_name=adapter)
    randomise_adapter(peft, name)
    return peft.eval()


def save_adapter(peft, folder, base, edit=None, edit_tensors=None):
    """`save_pretrained` less the model card, then what older or other programs would have written."""
    fresh(folder)
    peft.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    for file in sorted(folder.rglob("adapter_config.json")):
        config = json.loads(file.read_text())
        config["base_model_name_or_path"] = f"golden/{base}"
        # Sets come out in an order that differs from run to run.
        for key in ("target_modules", "modules_to_save", "exclude_modules"):
            if isinstance(config.get(key), list):
                config[key] = sorted(config[key])
        (edit or (lambda c: None))(config)
        write_json(file, config)
    if edit_tensors:
        file = folder / "adapter_model.safetensors"
        tensors = {k: v.contiguous() for k, v in edit_tensors(load_file(file)).items()}
        save_file(tensors, file, metadata={"format": "pt"})


def run_composed(peft, weights, ids, types=None):
    """The library's own way to run several LoRAs at once: all active, each with its scaling times its weight."""
    if not weights:
        # Not `disable_adapter`: with trained biases it would leave them in place.
        raise ValueError("run the base instead")
    if isinstance(peft, PeftModel):
        peft.base_model.set_adapter(list(weights))
    layers = [m for m in peft.modules() if isinstance(m, LoraLayer)]
    for m in layers:
        for a, w in weights.items():
            if a in m.scaling:
                m.scaling[a] *= w
    try:
        return checked(peft, ids, types)
    finally:
        for m in layers:
            for a, w in weights.items():
                if a in m.scaling:
                    m.scaling[a] /= w


DONE = set()


def lora(name, base, config=None, cls=None, labels=None, compose=None, row_compose=None, edit=None, edit_tensors=None,
         strict=True, others=None, types=None, lengths=LENGTHS, reload=True, adapter="default", train_base=None):
    """One case: adapter `a` (and `others`), run by PEFT from the files that are kept.

    `train_base`: the adapter is made on that base and grafted onto `base` (same seed of the backbone, or not).
    """
    assert name not in DONE, name
    DONE.add(name)
    folder = fresh(ROOT / "peft-lora" / name)
    cls = cls or CLASSES[base]
    config = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, **(config or {})}
    peft = wrap(base, cls, name, config, labels, adapter)
    save_adapter(peft, folder / "adapter", base, edit, edit_tensors)
    kwargs = {"num_labels": labels, "ignore_mismatched_sizes": True} if labels else {}
    if reload:
        inside = folder / "adapter" if adapter == "default" else folder / "adapter" / adapter
        again = PeftModel.from_pretrained(load_base(base, cls, **kwargs), inside, adapter_name="a").eval()
    else:
        again = None
    entries = {"a": "adapter" if strict else {"path": "adapter", "strict": False}}
    for other, (other_config, other_name) in (others or {}).items():
        made = wrap(base, cls, f"{name} {other}", {"r": 4, "lora_alpha": 8, **other_config}, labels)
        save_adapter(made, folder / other_name, base)
        again.load_adapter(folder / other_name, adapter_name=other)
        again.eval()
        entries[other] = other_name
    count = len(row_compose) if row_compose else len(lengths)
    rows = make_rows(name, base, [lengths[i % len(lengths)] for i in range(count)])
    types = make_types(rows) if types else None
    compose = compose or (None if row_compose else "a")
    results = []
    plain = load_base(base)
    for i, ids in enumerate(rows):
        weights = weights_of(row_compose[i] if row_compose else compose)
        kind = types and types[i]
        if not weights:
            results.append(checked(plain, ids, kind))
        elif again is None:
            assert weights == {"a": 1.0}
            results.append(checked(peft, ids, kind))
        else:
            results.append(run_composed(again, weights, ids, kind))
            if weights == {"a": 1.0} and not edit and not edit_tensors:
                hidden, _ = outputs(peft, ids, kind)
                assert (hidden - results[-1][0]).abs().max() < 1e-5
        if weights and len(ids) > 1:  # Queries and keys of a lone token change nothing.
            difference = (outputs(plain, ids, kind)[0] - results[-1][0]).abs().max()
            assert difference > 1e-2, f"{name}: the adapter does nothing"
    request(folder, base, rows, types, entries, compose, row_compose)
    expect(folder, results)


SIX = ["query", "key", "value", "dense"]
QV = {"target_modules": ["query", "value"]}


def half(dtype):
    return lambda tensors: {k: v.to(dtype) for k, v in tensors.items()}


def drop(*keys):
    def edit(config):
        for key in keys:
            del config[key]
    return edit


def change(**values):
    return lambda config: config.update(values)


def only(*keys):
    def edit(config):
        for key in [k for k in config if k not in keys]:
            del config[key]
    return edit


def default_keys(tensors):
    return {re.sub(r"\.(lora_[AB])\.", r".\1.default.", k): v for k, v in tensors.items()}


@group("peft-lora")
def peft_lora():
    fresh(ROOT / "peft-lora")
    # What is targeted.
    lora("qv", "bert", QV, types=True)
    lora("six_linears", "bert", {"target_modules": SIX, "r": 3, "lora_alpha": 5})
    lora("all_linear", "bert", {"target_modules": "all-linear", "r": 2, "lora_alpha": 3})
    lora("regex", "bert", {"target_modules": r".*layer\.(0\.attention\.self\.(query|key)|1\.intermediate\.dense)"})
    lora("suffix", "bert", {"target_modules": ["attention.output.dense", "intermediate.dense"]})
    lora("suffix_output_dense", "bert", {"target_modules": ["output.dense"]})
    lora("whole_path", "bert", {"target_modules": ["encoder.layer.1.attention.self.key", "encoder.layer.0.output.dense"]})
    lora("default_targets", "bert", {}, edit=change(target_modules=None))
    lora("layers_to_transform", "bert", {**QV, "layers_to_transform": [1]})
    lora("layer_to_transform_pattern", "bert_three_layers", {"target_modules": SIX, "layers_to_transform": 2, "layers_pattern": "layer"})
    lora("layers_two_of_three", "bert_three_layers", {"target_modules": ["query", "intermediate.dense"], "layers_to_transform": [0, 2]})
    lora("exclude_list", "bert", {"target_modules": SIX, "exclude_modules": ["output.dense", "pooler.dense"]})
    lora("exclude_regex", "bert", {"target_modules": SIX, "exclude_modules": r".*layer\.0\..*"})
    lora("bigger_base", "bert_three_layers", {"target_modules": SIX, "r": 5, "lora_alpha": 10})
    # Scales and ranks.
    lora("rslora", "bert", {**QV, "use_rslora": True})
    lora("rslora_patterns", "bert", {"target_modules": SIX, "use_rslora": True, "rank_pattern": {"query": 2, "output.dense": 6}, "alpha_pattern": {"value": 3}})
    lora("rank_pattern", "bert", {"target_modules": SIX, "rank_pattern": {"query": 2, "layer.1.output.dense": 6}})
    lora("alpha_pattern", "bert", {"target_modules": SIX, "alpha_pattern": {"value": 2, "intermediate.dense": 16}})
    lora("pattern_regexes", "bert", {"target_modules": SIX, "rank_pattern": {r"layer\.1\..*": 2, "query": 7}, "alpha_pattern": {r"^encoder\.layer\.0\..*dense": 2, r".*\.(key|value)": 12}})
    lora("pattern_order", "bert", {**QV, "rank_pattern": {"attention.self.query": 2, "query": 6}, "alpha_pattern": {"uery": 100, "self.value": 4, "value": 100}})
    lora("alpha_zero_point_five", "bert", {**QV, "lora_alpha": 0.5})
    lora("alpha_missing", "bert", QV, edit=drop("lora_alpha"))
    lora("rank_missing", "bert", {**QV, "r": 8}, edit=drop("r"))
    lora("minimal_config", "bert", {**QV, "r": 4}, edit=only("peft_type", "r", "target_modules"))
    lora("rank_larger_than_width", "bert", {"target_modules": ["query"], "r": 40, "lora_alpha": 4})
    # Biases.
    lora("lora_bias", "bert", {"target_modules": SIX, "lora_bias": True, "use_rslora": True})
    lora("bias_all", "bert", {**QV, "bias": "all"})
    lora("bias_lora_only", "bert", {"target_modules": ["query", "output.dense"], "bias": "lora_only"})
    lora("bias_all_roberta", "roberta", {"target_modules": ["key", "output.dense"], "bias": "all"})
    # Written by older and other programs.
    lora("fan_in_fan_out", "bert", QV, edit=change(fan_in_fan_out=True))
    lora("old_config", "bert", QV, edit=only("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out",
        "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "modules_to_save",
        "peft_type", "r", "rank_pattern", "revision", "target_modules", "task_type"))
    lora("unknown_entries_empty", "bert", QV, edit=change(future_option=None, other_option=False, third_option={}, fourth_option=[]), reload=False)
    lora("gaussian", "bert", {**QV, "init_lora_weights": "gaussian"})
    lora("orthogonal", "bert", {**QV, "init_lora_weights": "orthogonal"})
    lora("default_in_keys", "bert", QV, edit_tensors=default_keys, reload=False)
    lora("named_adapter_folder", "bert", QV, adapter="mine")
    lora("f16_weights", "bert", {"target_modules": SIX}, edit_tensors=half(torch.float16))
    lora("bf16_weights", "bert", {"target_modules": SIX, "bias": "lora_only"}, edit_tensors=half(torch.bfloat16))
    lora("f16_base", "bert_f16", QV)
    lora("sharded_base", "bert_sharded", QV)
    extra = lambda tensors: {**tensors, "base_model.model.encoder.layer.7.attention.self.query.lora_A.weight": torch.ones(4, 32)}
    lora("extra_tensor_tolerated", "bert", QV, edit_tensors=extra, strict=False, reload=False)
    lora("unknown_tensor_tolerated", "bert", QV, edit_tensors=lambda t: {**t, "something_else": torch.ones(3)}, strict=False, reload=False)
    # PEFT starts B at 0, so an update without its B does nothing.
    gone = "base_model.model.encoder.layer.1.attention.self.value.lora_B.weight"
    lora("missing_b_tolerated", "bert", QV, edit_tensors=lambda t: {k: v for k, v in t.items() if k != gone}, strict=False)
    # Other architectures.
    lora("roberta_qv", "roberta", QV)
    lora("roberta_six", "roberta", {"target_modules": SIX})
    lora("xlmr_qv", "xlmr", QV)
    lora("xlmr_all_linear", "xlmr", {"target_modules": "all-linear"})
    lora("camembert_qv", "camembert", QV)
    lora("nopool", "bert_nopool", {"target_modules": ["query", "intermediate.dense"]}, reload=False)
    # Modules that are saved whole.
    lora("saved_norms", "bert", {**QV, "modules_to_save": ["attention.output.LayerNorm"]})
    lora("saved_linear", "bert", {**QV, "modules_to_save": ["intermediate.dense"]})
    # Heads: the adapter's, on a base without one, and in place of another.
    SEQ, ROB = "BertForSequenceClassification", "RobertaForSequenceClassification"
    task = lambda t, **more: {**QV, "task_type": t, **more}
    lora("seqcls_grafted", "bert", task("SEQ_CLS"), cls=SEQ, labels=3, types=True, row_compose=["a", "base", "a:1", "a"])
    lora("seqcls_modules_named", "bert", {**QV, "modules_to_save": ["classifier"]}, cls=SEQ, labels=4, reload=True)
    lora("seqcls_other_labels", "bert_seqcls", task("SEQ_CLS"), cls=SEQ, labels=5, row_compose=["a", "base", "a"])
    lora("seqcls_one_label", "bert", task("SEQ_CLS", target_modules="all-linear"), cls=SEQ, labels=1)
    lora("seqcls_pooler_saved", "bert", task("SEQ_CLS", modules_to_save=["pooler", "classifier"]), cls=SEQ, labels=3)
    lora("seqcls_pooler_lora", "bert", task("SEQ_CLS", target_modules=SIX), cls=SEQ, labels=3)
    lora("seqcls_bias_all", "bert", task("SEQ_CLS", bias="all"), cls=SEQ, labels=2)
    lora("seqcls_prefixed_keys", "bert_prefixed", task("SEQ_CLS"), cls=SEQ, labels=3)
    lora("seqcls_head_of_base", "bert_seqcls", QV)
    lora("classifier_lora", "bert_seqcls", {"target_modules": ["query", "classifier"]})
    lora("roberta_seqcls_grafted", "roberta", task("SEQ_CLS"), cls=ROB, labels=3)
    lora("roberta_seqcls_other_labels", "roberta_seqcls", task("SEQ_CLS"), cls=ROB, labels=2, row_compose=["a", "base"])
    lora("roberta_seqcls_dense", "roberta", task("SEQ_CLS", target_modules=SIX), cls=ROB, labels=3)
    lora("xlmr_reranker", "xlmr", task("SEQ_CLS"), cls="XLMRobertaForSequenceClassification", labels=1)
    lora("tokcls_grafted", "bert", task("TOKEN_CLS"), cls="BertForTokenClassification", labels=5)
    lora("tokcls_xlmr", "xlmr_tokcls", task("TOKEN_CLS"), cls="XLMRobertaForTokenClassification", labels=7)
    lora("qa_grafted", "bert", task("QUESTION_ANS"), cls="BertForQuestionAnswering")
    lora("qa_base_head", "bert_qa", QV)
    lora("roberta_qa", "roberta", task("QUESTION_ANS"), cls="RobertaForQuestionAnswering")
    lora("mlm_head_of_base", "bert_mlm", QV)
    lora("mlm_transform_lora", "bert_mlm", {"target_modules": SIX})
    lora("roberta_mlm_lora", "roberta_mlm", {"target_modules": ["query", "lm_head.dense"]})
    # With every bias, PEFT writes those inside a saved module a second time, under the wrapper's names.
    lora("roberta_seqcls_bias_all", "roberta", task("SEQ_CLS", bias="all", target_modules=SIX), cls=ROB, labels=3)
    lora("saved_block_bias_all", "bert", {**QV, "bias": "all", "modules_to_save": ["layer.0.output"]})
    lora("saved_layer", "bert", {"target_modules": ["query"], "modules_to_save": ["layer.1"]})
    lora("mlm_head_saved", "bert_mlm", {**QV, "modules_to_save": ["cls.predictions.transform"]})
    lora("roberta_mlm_head_saved", "roberta_mlm", {**QV, "modules_to_save": ["lm_head.dense", "lm_head.layer_norm"]})
    # An adapter of another task than the base's, under the same name of the head or not.
    lora("tokcls_on_seqcls", "bert_seqcls", task("TOKEN_CLS"), cls="BertForTokenClassification", labels=4, row_compose=["a", "base", "a"])
    lora("qa_on_seqcls", "bert_seqcls", task("QUESTION_ANS"), cls="BertForQuestionAnswering", labels=2, row_compose=["a", "base"])
    lora("xlmr_seqcls_on_tokcls", "xlmr_tokcls", task("SEQ_CLS", target_modules="all-linear"), cls="XLMRobertaForSequenceClassification", labels=2, row_compose=["base", "a"])
    # Odd widths.
    lora("odd_all_linear", "bert_odd", {"target_modules": "all-linear", "r": 3, "lora_bias": True, "lora_alpha": 3}, types=True)
    lora("odd_bf16", "bert_odd_bf16", {"target_modules": SIX, "r": 5, "lora_alpha": 3, "use_rslora": True})
    lora("odd_sharded_f16", "xlmr_odd_sharded", {**QV, "r": 7, "lora_alpha": 4})
    # Several at once.
    two = {"b": ({"target_modules": ["key", "value", "output.dense"], "r": 2, "lora_alpha": 6}, "other")}
    many = ["a", "b", "base", "sum(a:0.5, b:0.5)", "a:0.7", "a:-1", "stack(a,b)", "sum(a:1, b:-0.5)"]
    lora("two_adapters", "bert", QV, others=two, row_compose=many, types=True)
    lora("two_adapters_roberta", "roberta", {"target_modules": SIX, "use_rslora": True}, others=two, row_compose=many)
    lora("sum_of_two", "bert", QV, others=two, compose="sum(a:0.5, b:0.5)")
    lora("negative_scale", "bert", QV, compose="a:-0.8")
    lora("scaled_lora_bias", "bert", {**QV, "lora_bias": True}, compose="a:0.3")
    lora("same_adapter_twice_over", "bert", QV, compose="a:2")
    lora("two_heads_by_row", "bert", task("SEQ_CLS"), cls=SEQ, labels=3, others={"b": ({**task("SEQ_CLS"), "r": 2}, "other")}, row_compose=["a", "b", "base", "a"])
    # A row of one token a composition, in a batch of thirty.
    lora("thirty_rows", "bert", QV, others=two, lengths=(1, 3), row_compose=["a", "b", "base", "a:0.5", "stack(a,b)"] * 6)


# ---- What must be refused

SMALL = {**SIZES, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 20, "max_position_embeddings": 12}
QUERY = "encoder.layer.0.attention.self.query.weight"


def small():
    return randomise(transformers.BertModel(BERT(**SMALL)), "small")


def raw(header, data, length=None):
    """A safetensors file from its parts, right or wrong. `header`: bytes or a dictionary."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def split(file):
    content = file.read_bytes()
    (n,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + n]), content[8 + n:]


def edit_header(file, edit):
    header, data = split(file)
    out = edit(header, data)
    file.write_bytes(out if isinstance(out, bytes) else raw(header, data))


def edit_json(file, **values):
    value = json.loads(file.read_text())
    for k, v in values.items():
        if v is ...:
            value.pop(k, None)
        else:
            value[k] = v
    write_json(file, value)


def overlap(header, _):
    """The last tensor's range moved onto the one before it; the file's length is as it was."""
    names = sorted((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    same = next((a, b) for a in names for b in names if a < b and header[a]["shape"] == header[b]["shape"])
    header[same[1]]["data_offsets"] = header[same[0]]["data_offsets"]


def hole(header, data):
    """Every tensor after the first starts four bytes late."""
    first = min(header[n]["data_offsets"][1] for n in header if n != "__metadata__")
    for n, t in header.items():
        if n != "__metadata__" and t["data_offsets"][0] >= first:
            t["data_offsets"] = [o + 4 for o in t["data_offsets"]]
    return raw(header, data[:first] + bytes(4) + data[first:])


def duplicated(header, data):
    text = json.dumps(header, separators=(",", ":"))
    name = json.dumps(QUERY if QUERY in header else sorted(header)[-1])
    value = json.dumps(header[json.loads(name)], separators=(",", ":"))
    return raw((text[:-1] + "," + name + ":" + value + "}").encode(), data)


def set_field(key, value, name=QUERY):
    def edit(header, _):
        header[name if name in header else sorted(header)[-1]][key] = value
    return edit


# `torch.load` runs this; the reader names what it would have run.
PICKLE = (Path(__file__).parent.parent / "attacks/torch/system.bin").read_bytes()
HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>You must be signed in to see this file.</body></html>\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 44016\n"


@group("bad-base")
def bad_base():
    fresh(ROOT / "bad-base")

    def bad(name, text, *edits, rows=None, types=None):
        folder = fresh(ROOT / "bad-base" / name)
        small().save_pretrained(folder / "base")
        for edit in edits:
            edit(folder / "base")
        request(folder, "base", [[1, 2, 3]] if rows is None else rows, types)
        expect_error(folder, text)

    weights = lambda f: f / "model.safetensors"
    header = lambda edit: lambda f: edit_header(weights(f), edit)
    content = lambda edit: lambda f: weights(f).write_bytes(edit(weights(f).read_bytes()))
    config = lambda **v: lambda f: edit_json(f / "config.json", **v)

    def tensors(edit):
        def run(f):
            values = edit(load_file(weights(f)))
            save_file(values, weights(f), metadata={"format": "pt"})
        return run

    # The container.
    bad("truncated", "FORMAT_RANGE", content(lambda b: b[:-100]))
    bad("truncated_in_header", "FORMAT_HEADER", content(lambda b: b[:100]))
    bad("truncated_in_length", "FORMAT_HEADER", content(lambda b: b[:5]))
    bad("trailing_bytes", "FORMAT_RANGE", content(lambda b: b + bytes(8)))
    bad("overlapping", "FORMAT_RANGE", header(overlap))
    bad("hole", "FORMAT_RANGE", header(hole))
    bad("reversed_range", "FORMAT_RANGE", header(lambda h, _: h[QUERY]["data_offsets"].reverse()))
    bad("range_past_end", "FORMAT_RANGE", header(set_field("data_offsets", [10**12, 10**12 + 1024])))
    bad("negative_offset", "FORMAT_HEADER", header(set_field("data_offsets", [-1024, 0])))
    bad("header_oversized", "FORMAT_LIMIT", content(lambda b: struct.pack("<Q", 1 << 40) + b[8:]))
    bad("header_of_all_ones", "FORMAT_LIMIT", content(lambda b: b"\xff" * 8 + b[8:]))
    bad("duplicate_key", "FORMAT_DUPLICATE", header(duplicated))
    bad("dtype_lie", "FORMAT_RANGE", header(set_field("dtype", "F16")))
    bad("shape_lie", "FORMAT_RANGE", header(set_field("shape", [16, 17])))
    bad("shape_overflows", QUERY, header(set_field("shape", [1 << 33, 1 << 33])))
    bad("unknown_dtype", "F7", header(set_field("dtype", "F7")))
    bad("header_not_json", "FORMAT_", header(lambda h, d: raw(b"{\"a\": [1, 2}", d)))
    bad("header_a_list", "FORMAT_", header(lambda h, d: raw(b"[1, 2]", d)))
    bad("header_not_utf8", "FORMAT_", header(lambda h, d: raw(b"{\"\xff\xfe\": 1}", d)))
    bad("html", "UNSUPPORTED_FORMAT", content(lambda b: HTML))
    bad("empty_file", "model.safetensors", content(lambda b: b""))
    bad("lfs_pointer", "UNSUPPORTED_FORMAT", content(lambda b: LFS))
    bad("weights_missing", "FILE_MISSING", lambda f: weights(f).unlink())
    bad("pickle_only", "pytorch_model.bin", lambda f: weights(f).rename(f / "pytorch_model.bin"))
    # The configuration.
    bad("config_missing", "config.json", lambda f: (f / "config.json").unlink())
    bad("config_not_json", "FORMAT_JSON", lambda f: (f / "config.json").write_text('{"model_type": "bert", '))
    bad("config_duplicate_key", "FORMAT_DUPLICATE", lambda f: (f / "config.json").write_text((f / "config.json").read_text().rstrip()[:-1] + ', "hidden_size": 16}'))
    bad("config_html", "config.json", lambda f: (f / "config.json").write_bytes(HTML))
    bad("heads_do_not_divide", "num_attention_heads", config(num_attention_heads=3))
    bad("heads_zero", "num_attention_heads", config(num_attention_heads=0))
    bad("hidden_negative", "hidden_size", config(hidden_size=-16))
    bad("hidden_huge", "hidden_size", config(hidden_size=10**15))
    bad("hidden_a_text", "hidden_size", config(hidden_size="16"))
    bad("layers_huge", "num_hidden_layers", config(num_hidden_layers=10**9))
    bad("model_type_unknown", "UNSUPPORTED_FORMAT", config(model_type="gpt9"))
    bad("kind_missing", "model_type", config(model_type=...))
    bad("position_relative_key", "position_embedding_type", config(position_embedding_type="relative_key"))
    bad("decoder", "is_decoder", config(is_decoder=True))
    bad("activation_unknown", "hidden_act", config(hidden_act="mish9"))
    bad("entry_unknown", "attention_temperature", config(attention_temperature=0.7))
    bad("own_code", "auto_map", config(auto_map={"AutoModel": "modeling_bert.py--BertModel"}))
    bad("quantized", "quantization_config", config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}))
    # Configuration and tensors at odds.
    bad("hidden_mismatch", "MODEL_SHAPE", config(hidden_size=32))
    bad("ffn_mismatch", "MODEL_SHAPE", config(intermediate_size=25))
    bad("vocab_mismatch", "MODEL_SHAPE", config(vocab_size=21))
    bad("layers_missing", "encoder.layer.1.", config(num_hidden_layers=2))
    bad("layers_to_spare", "MODEL_KEYS", tensors(lambda t: {**t, **{k.replace("layer.0", "layer.1"): v.clone() for k, v in t.items() if "layer.0" in k}}))
    bad("missing_tensor", QUERY, tensors(lambda t: {k: v for k, v in t.items() if k != QUERY}))
    bad("missing_bias", "MODEL_KEYS", tensors(lambda t: {k: v for k, v in t.items() if k != "encoder.layer.0.output.dense.bias"}))
    bad("extra_tensor", "encoder.layer.0.gate.weight", tensors(lambda t: {**t, "encoder.layer.0.gate.weight": torch.ones(16, 16)}))
    bad("transposed", "MODEL_SHAPE", tensors(lambda t: {k: v.T.contiguous() if "intermediate.dense.weight" in k else v for k, v in t.items()}))
    # Shards.
    def shards(edit):
        def run(f):
            t = load_file(weights(f))
            weights(f).unlink()
            names = sorted(t)
            index = {"metadata": {}, "weight_map": {}}
            for i in range(2):
                file = f"model-{i + 1:05}-of-00002.safetensors"
                save_file({n: t[n] for n in names[i::2]}, f / file)
                index["weight_map"].update({n: file for n in names[i::2]})
            edit(f, index["weight_map"])
            write_json(f / "model.safetensors.index.json", index)
        return run

    def elsewhere(f, index):
        (f.parent / "outside.safetensors").write_bytes((f / "model-00002-of-00002.safetensors").read_bytes())
        index.update({n: "../outside.safetensors" for n, file in index.items() if "00002-of" in file})

    bad("shard_missing", "model-00002-of-00002.safetensors", shards(lambda f, index: (f / "model-00002-of-00002.safetensors").unlink()))
    bad("shard_outside", "../outside.safetensors", shards(elsewhere))
    bad("shard_without_tensor", QUERY, shards(lambda f, index: index.update({QUERY: "model-0000" + ("2" if "1-of" in index[QUERY] else "1") + "-of-00002.safetensors"})))
    # Sentence-Transformers.
    def stage(kind):
        def run(f):
            modules = [("sentence_transformers.models.Transformer", ""), ("sentence_transformers.models.Pooling", "1_Pooling"), (kind, "2_Other")]
            write_json(f / "modules.json", [{"idx": i, "name": str(i), "path": p, "type": t} for i, (t, p) in enumerate(modules)])
            write_json(f / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
        return run

    normalize = stage("sentence_transformers.models.Normalize")
    bad("sentence_unknown_module", "WeightedLayerPooling", stage("sentence_transformers.models.WeightedLayerPooling"))
    bad("sentence_own_module", "custom_st.Transformer", stage("custom_st.Transformer"))
    bad("sentence_pooling_weighted", "weightedmean", normalize, lambda f: edit_json(f / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_weightedmean_tokens=True))
    bad("sentence_pooling_missing", "1_Pooling/config.json", normalize, lambda f: shutil.rmtree(f / "1_Pooling"))
    # Rows.
    bad("id_outside_vocabulary", "ARGUMENT", rows=[[1, 2], [3, 20]])
    bad("empty_row", "ARGUMENT", rows=[[1, 2], []])
    bad("empty_batch", "`rows`", rows=[])
    bad("row_too_long", "INPUT_TOO_LONG", rows=[[1] * 13])
    bad("token_type_outside", "ARGUMENT", rows=[[1, 2]], types=[[0, 2]])
    bad("token_types_short", "ARGUMENT", rows=[[1, 2, 3]], types=[[0, 1]])
    bad("token_types_rows", "`token_types`", rows=[[1, 2, 3], [4]], types=[[0, 1, 1]])


@group("bad-adapter")
def bad_adapter():
    fresh(ROOT / "bad-adapter")
    small_base = "bert_small"
    small().save_pretrained(fresh(BASES / small_base))
    FIRST = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"
    LAST = "base_model.model.encoder.layer.0.attention.self.value.lora_B.weight"

    def make(folder, settings, cls, sizes):
        model = getattr(transformers, cls)(BERT(**sizes)).eval()
        peft = get_peft_model(model, LoraConfig(**{"r": 2, "lora_alpha": 4, **QV, **settings}))
        randomise_adapter(peft, "bad " + folder.parent.name)
        save_adapter(peft, folder, small_base)

    def bad(name, text, *edits, compose="a", base=small_base, strict=True, entries=None, row_compose=None, rows=([1, 2, 3],), cls="BertModel", sizes=SMALL, **settings):
        folder = fresh(ROOT / "bad-adapter" / name)
        make(folder / "adapter", settings, cls, sizes)
        for edit in edits:
            edit(folder / "adapter")
        entries = entries or {"a": "adapter" if strict else {"path": "adapter", "strict": False}}
        request(folder, base, [list(r) for r in rows], None, entries, compose, row_compose)
        expect_error(folder, text)

    weights = lambda f: f / "adapter_model.safetensors"
    header = lambda edit: lambda f: edit_header(weights(f), edit)
    content = lambda edit: lambda f: weights(f).write_bytes(edit(weights(f).read_bytes()))
    config = lambda **v: lambda f: edit_json(f / "adapter_config.json", **v)

    def tensors(edit):
        def run(f):
            values = edit(load_file(weights(f)))
            save_file({k: v.contiguous() for k, v in values.items()}, weights(f), metadata={"format": "pt"})
        return run

    def put(key, at, value):
        def edit(t):
            t[key].view(-1)[at] = value
            return t
        return edit

    without = lambda key: lambda t: {k: v for k, v in t.items() if k != key}
    # The file.
    bad("truncated", "FORMAT_RANGE", content(lambda b: b[:-10]))
    bad("html", "UNSUPPORTED_FORMAT", content(lambda b: HTML))
    bad("lfs_pointer", "UNSUPPORTED_FORMAT", content(lambda b: LFS))
    bad("empty_file", "adapter_model.safetensors", content(lambda b: b""))
    bad("duplicate_key", "FORMAT_DUPLICATE", header(duplicated))
    bad("overlapping", "FORMAT_RANGE", header(overlap))
    bad("integer_weights", "I32", tensors(lambda t: {**t, LAST: t[LAST].to(torch.int32)}))
    bad("pickle_only", "posix.system", lambda f: (weights(f).unlink(), (f / "adapter_model.bin").write_bytes(PICKLE)))
    bad("weights_missing", "FILE_MISSING", lambda f: weights(f).unlink())
    bad("config_missing", "adapter_config.json", lambda f: (f / "adapter_config.json").unlink(), lambda f: (f / "notes.txt").write_text("nothing here\n"))
    bad("folder_missing", "IO", lambda f: shutil.rmtree(f))
    bad("config_not_json", "FORMAT_JSON", lambda f: (f / "adapter_config.json").write_text("{"))
    bad("config_duplicate_key", "FORMAT_DUPLICATE", lambda f: (f / "adapter_config.json").write_text((f / "adapter_config.json").read_text().rstrip()[:-1] + ', "r": 2}'))
    # The configuration.
    bad("unknown_entry", "quux_mode", config(quux_mode="on"))
    bad("dora", "lora_magnitude_vector", config(use_dora=True))
    bad("method_unknown", "QUUX", config(peft_type="QUUX"))
    bad("kind_missing", "peft_type", config(peft_type=...))
    bad("rank_zero", "ADAPTER_CONFIG", config(r=0))
    bad("rank_negative", "ADAPTER_CONFIG", config(r=-2))
    bad("rank_a_fraction", "ADAPTER_CONFIG", config(r=2.5))
    bad("alpha_a_text", "lora_alpha", config(lora_alpha="16"))
    bad("bias_unknown", "ADAPTER_CONFIG", config(bias="some"))
    bad("pissa_niter", "init_lora_weights", config(init_lora_weights="pissa_niter_4"))
    bad("replicated_layers", "layer_replication", config(layer_replication=[[0, 3], [0, 1]]))
    bad("bare_parameters", "target_parameters", config(target_parameters=["encoder.layer.0.attention.self.query.weight"]))
    bad("trainable_tokens", "trainable_token_indices", config(trainable_token_indices=[1, 2]))
    bad("targets_bad_regex", "target_modules", config(target_modules="(query"))
    # Configuration, tensors and base at odds.
    bad("missing_b", LAST, tensors(without(LAST)))
    bad("missing_a", FIRST, tensors(without(FIRST)))
    bad("extra_tensor", "something_else", tensors(lambda t: {**t, "something_else": torch.ones(3)}))
    bad("extra_module", "ADAPTER_KEYS", tensors(lambda t: {**t, **{k.replace("query", "key"): v.clone() for k, v in t.items() if "query" in k}}))
    bad("wrong_shape", "ADAPTER_SHAPE", tensors(lambda t: {**t, FIRST: torch.ones(2, 15)}))
    bad("transposed", "ADAPTER_SHAPE", tensors(lambda t: {**t, FIRST: t[FIRST].T}))
    bad("vector_for_matrix", "ADAPTER_SHAPE", tensors(lambda t: {**t, FIRST: t[FIRST].reshape(-1)}))
    bad("rank_mismatch", "ADAPTER_SHAPE", config(r=3))
    bad("rank_of_b", "ADAPTER_SHAPE", tensors(lambda t: {**t, LAST: torch.ones(16, 3)}))
    bad("not_a_number", "NOT_FINITE", tensors(put(FIRST, 5, float("nan"))))
    bad("infinite", "NOT_FINITE", tensors(put(LAST, 0, float("-inf"))))
    bad("targets_nothing", "target_modules", config(target_modules=["q_proj"]))
    bad("layers_beyond", "ADAPTER_KEYS", tensors(lambda t: {k.replace("layer.0", "layer.1"): v for k, v in t.items()}))
    bad("lora_bias_absent", "lora_B.bias", config(lora_bias=True))
    bad("biases_absent", "ADAPTER_KEYS", config(bias="all"))
    bad("head_absent", "classifier", config(modules_to_save=["classifier"]))
    bad("head_half", "ADAPTER", tensors(without("base_model.model.classifier.bias")), cls="BertForSequenceClassification", task_type="SEQ_CLS")
    # transformers would draw the pooler at random.
    bad("head_without_its_layer", "pooler", base="bert_nopool", cls="BertForSequenceClassification", sizes=SIZES, task_type="SEQ_CLS")
    bad("other_hidden", "ADAPTER_SHAPE", base="bert")
    bad("wrong_shape_not_strict", "ADAPTER_SHAPE", tensors(lambda t: {**t, FIRST: torch.ones(2, 15)}), strict=False)
    bad("not_a_number_not_strict", "NOT_FINITE", tensors(put(FIRST, 5, float("nan"))), strict=False)
    # Compositions.
    for name, text, compose in (
        ("unknown_name", "nobody", "nobody"),
        ("unknown_name_in_sum", "nobody", "sum(a:0.5, nobody:0.5)"),
        ("unclosed", "COMPOSE", "stack(a"),
        ("no_comma", "COMPOSE", "stack(a a)"),
        ("unknown_function", "COMPOSE", "blend(a,a)"),
        ("empty_sum", "COMPOSE", "sum()"),
        ("empty_stack", "COMPOSE", "stack()"),
        ("empty_text", "COMPOSE", ""),
        ("weight_not_a_number", "COMPOSE", "a:x"),
        ("weight_infinite", "COMPOSE", "a:1e999"),
        ("weight_absent", "COMPOSE", "a:"),
        ("something_after", "COMPOSE", "a b"),
        ("deep", "COMPOSE", "stack(" * 100 + "a" + ")" * 100),
    ):
        bad("compose_" + name, text, compose=compose)
    bad("compose_number", "COMPOSE", compose=7)
    bad("row_compose_short", "`row_compose`", compose=None, row_compose=["a"], rows=([1, 2], [3]))
    bad("row_compose_unknown", "nobody", compose=None, row_compose=["a", "nobody"], rows=([1, 2], [3]))
    bad("entry_without_path", "`path`", entries={"a": {"strict": False}})


# ---- Sentence-Transformers

MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
ACTIVATIONS = {"Tanh": torch.tanh, "Identity": lambda x: x, "GELU": torch.nn.functional.gelu, "ReLU": torch.relu, "Sigmoid": torch.sigmoid}
POOL = {
    "mean_tokens": lambda h: h.mean(0),
    "cls_token": lambda h: h[0],
    "max_tokens": lambda h: h.max(0).values,
    "mean_sqrt_len_tokens": lambda h: h.sum(0) / math.sqrt(h.shape[0]),
    "lasttoken": lambda h: h[-1],
}


def sentence_folder(folder, name, model, mode, stages=(), short=False, prompts=None, transformer=""):
    """The files as sentence-transformers 2 to 5 writes them; returns what the stages after pooling do."""
    fresh(folder)
    model.save_pretrained(folder / transformer)
    g = generator("sentence " + name)
    modules = [("Transformer", transformer), ("Pooling", "1_Pooling")]
    width = model.config.hidden_size
    pooling = {"word_embedding_dimension": width}
    if short:
        pooling["pooling_mode"] = mode.removesuffix("_tokens").removesuffix("_token")
    else:
        pooling.update({f"pooling_mode_{m}": m == mode for m in MODES})
        pooling["include_prompt"] = True
    write_json(folder / "1_Pooling" / "config.json", pooling)
    steps = []
    for stage in stages:
        path = f"{len(modules)}_{stage[0]}"
        modules.append((stage[0], path))
        if stage[0] == "Normalize":
            (folder / path).mkdir()
            (folder / path / ".gitkeep").touch()  # An empty folder in the original.
            steps.append(lambda v: torch.nn.functional.normalize(v, dim=0))
            continue
        _, out, activation, bias = stage
        tensors = {"linear.weight": normal(g, (out, width), 0.3)}
        if bias:
            tensors["linear.bias"] = normal(g, (out,), 0.2)
        write_json(folder / path / "config.json", {"in_features": width, "out_features": out, "bias": bias,
            "activation_function": f"torch.nn.modules.{'linear' if activation == 'Identity' else 'activation'}.{activation}"})
        save_file(tensors, folder / path / "model.safetensors", metadata={"format": "pt"})
        weight, offset, act = tensors["linear.weight"], tensors.get("linear.bias"), ACTIVATIONS[activation]
        steps.append(lambda v, w=weight, b=offset, act=act: act(torch.nn.functional.linear(v, w, b)))
        width = out
    write_json(folder / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (kind, path) in enumerate(modules)])
    write_json(folder / transformer / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {
        "__version__": {"sentence_transformers": "5.1.0", "transformers": "4.57.6", "pytorch": "2.15.0"},
        "prompts": prompts or {}, "default_prompt_name": None, "similarity_fn_name": "cosine"})
    return steps


def small_roberta():
    return randomise(transformers.RobertaModel(ROBERTA(**{**SMALL, **R})), "small roberta")


@group("sentence")
def sentence():
    fresh(ROOT / "sentence")
    prompts = {"query": "query: ", "passage": "passage: "}

    def case(name, mode, stages=(), model=None, plain=False, **more):
        model = model or small()
        folder = ROOT / "sentence" / name
        steps = sentence_folder(folder, name, model, mode, stages, **more)
        if plain:
            for part in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
                (folder / part).unlink()
            shutil.rmtree(folder / "1_Pooling")
        g = generator("sentence rows " + name)
        rows = [torch.randint(2, 20, (n,), generator=g).tolist() for n in (1, 2, 5, 9)]
        embeddings = []
        for ids in rows:
            vector = POOL[mode](checked(model, ids)[0])
            for step in steps:
                vector = step(vector)
            embeddings.append(torch.nn.functional.normalize(vector, dim=0).tolist())
        lines = lambda key, values: f' "{key}": [\n  ' + ",\n  ".join(json.dumps(v) for v in values) + "\n ]"
        (folder / "expected.json").write_text("{\n" + lines("rows", rows) + ",\n" + lines("embeddings", embeddings) + "\n}\n")

    normalize = ("Normalize",)
    case("mean", "mean_tokens", prompts=prompts)
    case("mean_normalize", "mean_tokens", [normalize], prompts=prompts)
    case("cls", "cls_token", [normalize])
    case("max", "max_tokens")
    case("mean_sqrt_len", "mean_sqrt_len_tokens")
    case("last", "lasttoken", [normalize])
    case("short_key", "cls_token", short=True)
    case("no_modules", "mean_tokens", plain=True)
    case("transformer_in_folder", "mean_tokens", transformer="0_Transformer")
    case("dense_tanh", "mean_tokens", [("Dense", 24, "Tanh", True)])
    case("dense_identity_no_bias_normalize", "cls_token", [("Dense", 8, "Identity", False), normalize])
    case("dense_twice", "mean_tokens", [("Dense", 24, "GELU", True), ("Dense", 6, "Identity", True), normalize])
    # Here the norm in between matters: it is not the last step.
    case("normalize_then_dense", "mean_tokens", [normalize, ("Dense", 10, "Tanh", True)])
    case("roberta_mean", "mean_tokens", [normalize], model=small_roberta(), prompts=prompts)
    case("roberta_last", "lasttoken", model=small_roberta())


def report():
    size = sum(f.stat().st_size for f in ROOT.rglob("*") if f.is_file())
    print(f"{size / 2**20:.2f} MiB, {len(list(ROOT.rglob('request.json')))} requests")
    assert size < 44 * 2**20  # The repository stays under 60 MB.


def main():
    wanted = sys.argv[1:] or list(GROUPS)
    for name in wanted:
        if name not in GROUPS:
            sys.exit(f"no group {name!r}; there are {', '.join(GROUPS)}")
    for name in wanted:
        GROUPS[name]()
        print("made", name, flush=True)
    report()


if __name__ == "__main__":
    main()
