"""Makes the fixtures of sparse fine-tunings: `sparse/<format>/<case>/`.

    python tests/golden/sparse_make.py

LT-SFT (composable-sft): `encode` writes what `sft/sft.py` of that library writes, by its definition: places counted with the
first dimension fastest, their steps a list whose first entry is a numpy scalar, the values a tensor. SpIEL (the SFT of a fork
of PEFT): the tensors and the configuration that the fork's `save_pretrained` writes. Neither library runs beside this
project's: the first is a few lines that add a difference to a parameter, and the same lines are here; the second needs a C++
extension for a product with W + Δ, which is what it computes. Regularized mask tuning: the masks, as a PEFT folder has tensors;
its code is one line, and is made for another kind of model. The numbers are transformers' own, of a model whose
parameters have the differences added, checked against float64.
"""

import json

import numpy as np
import torch
from make import (LENGTHS, ROOT, checked, expect, expect_error, fresh, generator, is_bert, load_base, make_rows, make_types, normal, request,
                  write_json)
from safetensors.torch import save_file

SPARSE = ROOT / "sparse"


def encode(tensor):
    """`encode_sparse_tensor`: of a dense difference, its elements that are not 0."""
    tensor = tensor.to_sparse().coalesce()
    multipliers = np.cumprod([1] + list(tensor.size())[:-1], dtype=np.int64)
    places = np.matmul(multipliers, np.array(tensor.indices(), dtype=np.int64))
    order = sorted(range(len(places)), key=lambda i: places[i])
    places = places[order]
    steps = (places[1:] - places[:-1]).tolist()
    if len(places) > 0:
        steps = [places[0]] + steps
    return {"size": tensor.size(), "index_steps": steps, "values": tensor.values()[order]}


def difference(g, shape, density):
    return normal(g, shape, 0.3) * (torch.rand(shape, generator=g) < density)


def wanted(model, name, what):
    """Of a model's parameters, those of its base that a fine-tuning touches, by its name."""
    inside = name.startswith(model.base_model_prefix + ".")
    if not inside:
        return False
    norm = "LayerNorm" in name
    kind = ("norms" if norm else "tables" if "embeddings" in name else "biases" if name.endswith("bias") else "weights")
    return kind in what


ALL = ("norms", "tables", "biases", "weights")


def lt_sft(base, cls, name, what=ALL, density=0.1, head=False, labels=None):
    """A fine-tuning: differences of some parameters, and all of the head's when it has one; what would be saved."""
    kwargs = {"num_labels": labels, "ignore_mismatched_sizes": True} if labels else {}
    model = load_base(base, cls, **kwargs)
    g = generator(f"sparse {name}")
    diffs, values = {}, {}
    # Without the tied output layer, which is listed once, as the table that it is.
    for key, p in sorted(model.named_parameters()):
        if wanted(model, key, what):
            diffs[key] = difference(g, p.shape, density)
        elif head and not key.startswith(model.base_model_prefix + "."):
            values[key] = normal(g, p.shape, 0.25, 1.0 if "LayerNorm.weight" in key or "layer_norm.weight" in key else 0.0)
    return diffs, values


def save(folder, diffs, values, **options):
    fresh(folder)
    torch.save({"diffs": {k: encode(v) for k, v in diffs.items()}, "abs": values}, folder / "pytorch_diff.bin", **options)


def apply(model, sft, weight, with_abs):
    """`SFT.apply`, times the weight that a composition gives it."""
    diffs, values = sft
    for key, diff in diffs.items():
        p = model.get_parameter(key)
        p += weight * diff
    for key, value in values.items() if with_abs else ():
        model.get_parameter(key).copy_(value)


def case(name, base, cls, adapters, compose, row_compose=None, head_of=None, labels=None, lengths=LENGTHS, types=False, run_cls=None, container={}):
    """`adapters`: name → (class, what, head). `head_of`: whose head runs, for each composition."""
    folder = fresh(SPARSE / "lt-sft" / name)
    made, paths = {}, {}
    for key, (own, options) in adapters.items():
        made[key] = lt_sft(base, own, f"{name} {key}", **options)
        path = "adapter" if len(adapters) == 1 else f"adapters/{key}"
        save(folder / path, *made[key], **container)
        # BERT's classifiers of tokens and of sequences have the same names.
        token = own and own.startswith("Bert") and own.endswith("TokenClassification")
        paths[key] = {"path": path, "head": "token"} if token else path
    count = len(row_compose) if row_compose else len(lengths)
    rows = make_rows(name, base, [lengths[i % len(lengths)] for i in range(count)])
    types = make_types(rows) if types else None
    results = []
    for i, ids in enumerate(rows):
        parts = (row_compose or [compose] * len(rows))[i]
        weights = {}
        if parts != "base":
            inner = parts[parts.index("(") + 1:-1] if "(" in parts else parts
            for part in inner.split(","):
                key, _, weight = part.strip().partition(":")
                weights[key] = float(weight) if weight else 1.0
        own = [k for k in weights if made[k][1] and adapters[k][0] == run_cls]
        kwargs = {"num_labels": labels, "ignore_mismatched_sizes": True} if labels and own else {}
        model = load_base(base, run_cls if own or run_cls and not labels else None, **kwargs)
        plain = checked(model, ids, types and types[i])
        for key, weight in weights.items():
            prefix = model.base_model_prefix + "."
            # A model without a head has its parameters without the prefix.
            diffs, values = made[key]
            if not any(n.startswith(prefix) for n, _ in model.named_parameters()):
                diffs = {k.removeprefix(prefix): v for k, v in diffs.items()}
            apply(model, (diffs, values), weight, key in own)
        got = checked(model, ids, types and types[i])
        assert not weights or (got[0] - plain[0]).abs().max() > 1e-3, f"{name}: it changes nothing"
        results.append(got)
    request(folder, base, rows, types, adapters=paths, compose=None if row_compose else compose, row_compose=row_compose)
    expect(folder, results)


def spiel(name, base, cls, compose="a", names=None, counts=(7, 40), labels=None, dtype=torch.float32):
    """The fork's `SFT`: some numbers of some linear layers, row by row."""
    folder = fresh(SPARSE / "spiel" / name)
    kwargs = {"num_labels": labels, "ignore_mismatched_sizes": True} if labels else {}
    model = load_base(base, cls, **kwargs)
    g = generator(f"spiel {name}")
    deltas, tensors, config = {}, {}, {}
    linears = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and (n.startswith(model.base_model_prefix) or cls is None)]
    for i, (path, module) in enumerate((n, m) for n, m in linears if names is None or any(n.endswith(x) for x in names)):
        k = counts[i % len(counts)]
        indices = torch.sort(torch.topk(torch.rand(module.weight.numel(), generator=g), k, sorted=False)[1].to(torch.int32)).values
        values = normal(g, (k,), 0.5).to(dtype)
        deltas[path] = (indices, values)
        tensors[f"base_model.model.{path}.sft_delta.values"] = values
        tensors[f"base_model.model.{path}.sft_delta.indices"] = indices
        config[path] = k
    fresh(folder / "adapter")
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(folder / "adapter" / "adapter_config.json", {
        "auto_mapping": None, "base_model_name_or_path": f"golden/{base}", "candidate_reselection_proportion": 0.2,
        "candidate_reselection_steps": None, "density": 0.01, "dtype": str(dtype).removeprefix("torch."), "inference_mode": True,
        "initial_reselection_rate": 0.2, "modules_to_save": None, "num_deltas": config, "num_tunable_weights": None, "peft_type": "SFT",
        "reselection_rate_policy": "linear", "reselection_steps": 20, "revision": None, "selection_accumulation_steps": 5,
        "selection_algorithm": "rigl", "target_modules": names, "task_type": None,
    })
    rows = make_rows(f"spiel {name}", base, LENGTHS)
    weight = float(compose.partition(":")[2] or 1)
    plain = [checked(model, r) for r in rows]
    for path, (indices, values) in deltas.items():
        module = model.get_submodule(path)
        module.weight.view(-1).scatter_reduce_(0, indices.long(), weight * values.float(), "sum", include_self=True)
    got = [checked(model, r) for r in rows]
    assert all((a[0] - b[0]).abs().max() > 1e-3 for a, b in zip(got, plain))
    request(folder, base, rows, adapters={"a": "adapter"}, compose=compose)
    expect(folder, got)


def mask(name, base, cls, names, threshold=None):
    """Regularized mask tuning: a weight stays where its mask is above the threshold (`mask_weight > threshold`, authors' code)."""
    folder = fresh(SPARSE / "mask" / name)
    model = load_base(base, cls)
    g = generator(f"mask {name}")
    tensors = {}
    rows = make_rows(f"mask {name}", base, LENGTHS)
    plain = [checked(model, r) for r in rows]
    above = 5e-3 if threshold is None else threshold
    for path, module in [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and any(n.endswith(x) for x in names)]:
        real = above + normal(g, module.weight.shape, 0.01, 0.01)
        # One that is the threshold itself: it is not above.
        real[0, 0] = above
        tensors[f"base_model.model.{path}.mask_real"] = real
        module.weight *= real > torch.tensor(above)
        module.weight[0, 0] = 0.0
    fresh(folder / "adapter")
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"base_model_name_or_path": f"golden/{base}", "peft_type": "MASK", "target_modules": names, "task_type": None}
    write_json(folder / "adapter" / "adapter_config.json", config if threshold is None else {**config, "threshold": threshold})
    got = [checked(model, r) for r in rows]
    assert all((a[0] - b[0]).abs().max() > 1e-3 for a, b in zip(got, plain))
    request(folder, base, rows, adapters={"a": "adapter"}, compose="a")
    expect(folder, got)


def refused():
    def lone(name, tensors, text):
        folder = fresh(SPARSE / "refused" / name)
        fresh(folder / "adapter")
        torch.save(tensors, folder / "adapter" / "pytorch_diff.bin")
        request(folder, "bert", [[1, 2]], adapters={"a": "adapter"}, compose="a")
        expect_error(folder, text)

    key = "bert.encoder.layer.0.attention.self.query.weight"
    good = encode(difference(generator("refused"), (32, 32), 0.1))
    lone("beyond", {"diffs": {key: {**good, "index_steps": good["index_steps"][:-1] + [5000]}}, "abs": {}}, "indexes below 1024")
    lone("other_shape", {"diffs": {key: {**good, "size": torch.Size((32, 31))}}, "abs": {}}, "[32, 31]")
    lone("fewer_values", {"diffs": {key: {**good, "values": good["values"][:-1]}}, "abs": {}}, "ADAPTER_SHAPE")
    lone("no_such_layer", {"diffs": {key.replace("0", "7"): good}, "abs": {}}, "layer.7")
    lone("another_entry", {"diffs": {key: {**good, "indices": [1]}}, "abs": {}}, "more than size")
    lone("empty", {"diffs": {}, "abs": {}}, "changes nothing")
    lone("weights", {key: torch.zeros(32, 32)}, "no sparse fine-tuning")
    lone("not_finite", {"diffs": {key: {**good, "values": good["values"] * float("inf")}}, "abs": {}}, "not finite")


def main():
    mlm, seq, tok = "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"
    for model, base in (("Bert", "bert"), ("XLMRoberta", "xlmr")):
        lang = (model + mlm, dict(head=True))
        case(f"{base}_language", base, None, {"l": lang}, "l", types=is_bert(base))
        frozen = ("tables", "biases", "weights")
        both = {"l": (model + mlm, dict(what=frozen, head=True)), "t": (model + seq, dict(what=frozen, head=True, labels=3))}
        case(f"{base}_language_and_task", base, None, both, "stack(l, t)", run_cls=model + seq, labels=3)
        case(f"{base}_sum", base, None, both, "sum(t, l:0.5)", run_cls=model + seq, labels=3)
        tags = {"l": lang, "m": lang, "t": (model + tok, dict(head=True, labels=5))}
        mixed = ["stack(l, t)", "t", "base", "l", "stack(m, t)", "sum(l, m)", "l"]
        case(f"{base}_mixed", base, None, tags, None, row_compose=mixed, run_cls=model + tok, labels=5)
    # Tables of relative positions, of which each row of a batch may have its own.
    for model, base in (("MPNet", "mpnet"), ("DebertaV2", "deberta_v2")):
        two = {name: (model + mlm, {}) for name in ("l", "m")}
        case(f"{base}_mixed", base, None, two, None, row_compose=["l", "base", "m", "sum(l, m:0.5)", "l"], run_cls=model + "Model")
    case("bert_mlm", "bert_mlm", None, {"l": ("BertForMaskedLM", dict(head=True))}, "l", run_cls="BertForMaskedLM")
    case("bert_mlm_without_head", "bert_mlm", None, {"l": ("BertForMaskedLM", {})}, "l:0.5", run_cls="BertForMaskedLM")
    case("legacy_container", "bert", None, {"l": ("BertForMaskedLM", {})}, "l", container=dict(_use_new_zipfile_serialization=False))
    case("one_bias", "bert", None, {"l": ("BertForMaskedLM", dict(what=("biases",), density=0.05))}, "l")
    case("norms", "bert", None, {"l": ("BertForMaskedLM", dict(what=("norms",), density=0.3)), "m": ("BertForMaskedLM", dict(what=("norms",)))}, "sum(l:2, m)")
    spiel("bert", "bert", None)
    spiel("scaled", "bert", None, compose="a:0.5")
    spiel("xlmr_seqcls", "xlmr_seqcls", "XLMRobertaForSequenceClassification", names=["query", "value", "output.dense"])
    spiel("half", "bert", None, dtype=torch.float16)
    mask("all_linears", "bert", None, ["query", "key", "value", "dense"])
    mask("another_threshold", "xlmr", None, ["query", "output.dense"], threshold=0.25)
    refused()


if __name__ == "__main__":
    fresh(SPARSE)
    main()
    print(f"{sum(1 for _ in SPARSE.rglob('request.json'))} cases")
