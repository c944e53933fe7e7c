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
