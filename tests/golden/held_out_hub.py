"""Cases of AdapterHub's methods that nobody has seen: other seeds, sizes and options than the fixtures'.

    python tests/golden/held_out_hub.py OUT [--seed N] [--cases K] [--bases bert,xlmr,…]
        [--binary POLYGRAFT [--backends reference,cpu,gpu]] [family…]

Writes `OUT/bases` (hidden 48, 3 layers) and `OUT/hub/<family>/<number>`, K cases a family; nothing of it is committed.
With a binary, `check.py` then runs it over them and prints the worst difference by family. One seed, the same cases.
"""

import argparse
import random
import shutil
import subprocess
import sys
from pathlib import Path

import make  # First: it silences transformers.
import base_families
import delicate
import hub_case
import transformers
from adapters import (AdapterPlusConfig, BnConfig, CompacterConfig, ConfigUnion, DiReftConfig, DoRAConfig, DvoRAConfig, IA3Config, LoRAConfig,
                      LoReftConfig, MTLLoRAConfig, NoReftConfig, ParBnConfig, PrefixTuningConfig, PromptTuningConfig, VeraConfig)
from adapters.composition import parse_composition
from hub import Spec, leaves, parse

SIZES = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=6, intermediate_size=80, vocab_size=120, max_position_embeddings=50)
LAYERS, WIDTH = 3, 48
LENGTHS = (1, 2, 3, 7, 19)
COMMON = ("bert", "bert_gelu_new", "roberta", "xlmr")
# The other bases: stem of the class, settings.
OTHERS = {
    "distilbert": ("DistilBert", dict(intermediate_size=None, hidden_dim=80)),
    "electra": ("Electra", dict(embedding_size=20)),
    "albert": ("Albert", dict(embedding_size=20)),
    "albert_groups": ("Albert", dict(embedding_size=20, num_hidden_layers=4, num_hidden_groups=2)),
    "deberta_v2": ("DebertaV2", dict(type_vocab_size=0, position_biased_input=False, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=6,
                                     norm_rel_ebd="layer_norm", share_att_key=True)),
    "modernbert": ("ModernBert", dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, global_attn_every_n_layers=2, local_attention=6)),
    "vit": ("ViT", dict(vocab_size=None, max_position_embeddings=None, image_size=12, patch_size=4)),
}
BASES = [*COMMON, *OTHERS]
ACTIVATIONS = ("relu", "gelu", "gelu_new", "swish", "leakyrelu", "tanh", "sigmoid", "relu6", "quick_gelu", "gelu_fast", "mish", "silu")
FAMILIES = {}


def family(make_case):
    FAMILIES[make_case.__name__] = make_case
    return make_case


def some(r, values, at_least=1):
    return sorted(r.sample(list(values), r.randint(at_least, len(values))))


def left_out(r):
    return sorted(r.sample(range(LAYERS), r.choice([0, 0, 0, 1, 2])))


def sites(r):
    return r.choice([(True, True), (False, True), (False, True), (True, False)])


# ---- One method

def bottleneck_config(r, at=None, phm=False, invertible=None, plain=False, leave_out=None):
    attention, output = at or sites(r)
    before = r.random() < 0.6
    values = dict(
        mh_adapter=attention, output_adapter=output,
        reduction_factor=r.choice([2, 4, 8, 16, 3.7, 0.5, {"1": 3, "default": 6}]), non_linearity=r.choice(ACTIVATIONS),
        original_ln_before=before, original_ln_after=r.random() < 0.85, residual_before_ln=r.choice([True, True, False] + ["post_add"] * before),
        ln_after=r.random() < 0.25, ln_before=r.random() < 0.2 and not plain, adapter_residual_before_ln=r.random() < 0.3,
        is_parallel=r.random() < 0.2, scaling=r.choice([1.0, 1.0, round(r.uniform(0.2, 2), 2), "learned", "channel"]),
        use_gating=r.random() < 0.2, leave_out=left_out(r) if leave_out is None else leave_out)
    if phm:
        values |= dict(phm_layer=True, reduction_factor=r.choice([2, 3, 4, 6]), phm_dim=r.choice([1, 2, 4]), phm_rank=r.choice([1, 2]), phm_bias=r.random() < 0.8,
                       shared_phm_rule=r.random() < 0.6, factorized_phm_rule=r.random() < 0.4, factorized_phm_W=r.random() < 0.7)
        values["shared_W_phm"] = values["factorized_phm_W"] and r.random() < 0.3
    if r.random() < 0.25 if invertible is None else invertible:
        values |= dict(inv_adapter="nice", inv_adapter_reduction_factor=r.choice([1, 2, 3]))
    return BnConfig(**values)


def lora_config(r, cls=LoRAConfig, same_width=False, **more):
    inner = not same_width and r.random() < 0.4
    values = dict(r=r.choice([1, 2, 3, 6]), alpha=r.choice([1, 2, 8, 13]), attn_matrices=some(r, "qkv"), intermediate_lora=inner,
                  output_lora=inner and r.random() < 0.7, use_gating=r.random() < 0.25, leave_out=left_out(r) if not more else [])
    return cls(**values | more)


def prefix_config(r, **more):
    return PrefixTuningConfig(**dict(prefix_length=r.randint(1, 9), flat=r.random() < 0.5, bottleneck_size=r.choice([5, 16]), leave_out=left_out(r),
                                     non_linearity=r.choice(["tanh", "relu", "gelu"]), use_gating=r.random() < 0.4, shared_gating=r.random() < 0.5) | more)


def reft_config(r, cls=None):
    cls = cls or r.choice([LoReftConfig, NoReftConfig, DiReftConfig])
    prefix, suffix = r.choice([(3, 0), (2, 2), (0, 3), (1, 4), (5, 1)])
    return cls(r=r.randint(1, 5), prefix_positions=prefix, suffix_positions=suffix, tied_weights=r.random() < 0.3,
               layers=r.choice(["all", some(r, range(LAYERS))]), non_linearity=r.choice([None, None, "relu", "gelu"]))


def container(r, config):
    """Prefixes and a norm in front share storage, and safetensors takes no such file."""
    parts = config.configs if isinstance(config, ConfigUnion) else [config]
    shared = any(isinstance(c, PrefixTuningConfig) or c.get("ln_before") for c in parts)
    return r.choice(["bin", "legacy"] if shared else ["bin", "legacy", "safetensors"])


def spec(r, config, **more):
    return Spec(config, container=container(r, config), **more)


@family
def bottleneck(r):
    return spec(r, bottleneck_config(r, invertible=False)), {}


@family
def adapterplus(r):
    return spec(r, AdapterPlusConfig(reduction_factor=r.choice([2, 6, 20]), stochastic_depth=0.0, mh_adapter=r.random() < 0.5)), {}


@family
def invertible(r):
    return spec(r, bottleneck_config(r, invertible=True), options=r.choice([{}, {}, {"invertible": False}])), {}


@family
def compacter(r):
    return spec(r, bottleneck_config(r, phm=True)), {}


@family
def lora(r):
    edit = r.choice([None, None, None, hub_case.top_edit(version="adapters.1.0.0"), hub_case.top_edit(version="3.2.0")])
    return spec(r, lora_config(r), edit=edit), {"same": not edit}


@family
def ia3(r):
    return spec(r, IA3Config(attn_matrices=some(r, "qkv"), intermediate_lora=r.random() < 0.6, output_lora=r.random() < 0.5, alpha=r.choice([1, 1, 2]),
                             use_gating=r.random() < 0.3, leave_out=left_out(r))), {}


@family
def vera(r):
    return spec(r, lora_config(r, VeraConfig, same_width=True, vera_d=0.1, vera_b=0.0)), {}


@family
def dora(r):
    return spec(r, lora_config(r, r.choice([DoRAConfig, DvoRAConfig]), same_width=True, use_dora=True)), {}


@family
def mtl_lora(r):
    return spec(r, lora_config(r, MTLLoRAConfig, n_up_projection=r.randint(1, 4), weights_sharpness=r.choice([0.05, 0.1, 0.5]))), {}


@family
def prefix(r):
    return spec(r, prefix_config(r)), {}


@family
def prompt(r):
    head = r.choice([None, head_of(r)])
    return spec(r, PromptTuningConfig(prompt_length=r.randint(1, 12), combine=r.choice(["prefix", "prefix_after_bos"])), head=head), {}


@family
def reft(r):
    config = reft_config(r)
    direft = isinstance(config, DiReftConfig)
    options = {"reft": "direft"} if direft and r.random() < 0.7 else {}
    return spec(r, config, options=options), {"same": not direft or bool(options)}


@family
def words(r):
    count = r.randint(15, 150)
    a = spec(r, r.choice([bottleneck_config(r), lora_config(r), prefix_config(r)]), words=count)
    rows = [[r.randrange(count) for _ in range(n)] for n in LENGTHS]
    return a, {"rows": rows, "base": r.choice([b for b in BASES if b != "vit"])}


@family
def union(r):
    out = left_out(r)
    parts = [lambda: prefix_config(r), lambda: bottleneck_config(r, leave_out=out), lambda: lora_config(r), lambda: reft_config(r, r.choice([LoReftConfig, NoReftConfig]))]
    return spec(r, ConfigUnion(*[p() for p in r.sample(parts, r.randint(2, 4))])), {}


# ---- Heads

def head_of(r):
    kind = r.choice(["classification", "classification", "tagging", "qa", "masked_lm", "causal_lm"])
    head = {"kind": kind}
    if kind in ("classification", "tagging"):
        head |= dict(num_labels=r.randint(1, 6), layers=r.randint(1, 3), activation_function=r.choice(["tanh", "relu", "gelu", None]))
    if kind == "classification":
        head |= dict(use_pooler=r.random() < 0.4, multilabel=r.random() < 0.3)
    return head


@family
def heads(r):
    config = r.choice([bottleneck_config(r), lora_config(r), prefix_config(r)])
    return spec(r, config, head=head_of(r)), {"types": r.random() < 0.5}


@family
def static_heads(r):
    stems = {"bert": "Bert", "roberta": "Roberta", "xlmr": "XLMRoberta", **{n: s for n, (s, _) in OTHERS.items()}}
    base = r.choice([b for b in BASES if b in stems])
    cls = stems[base] + "For" + r.choice(["SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM"])
    return spec(r, r.choice([bottleneck_config(r), lora_config(r)]), head={"static": True}), {"base": base, "cls": cls}


# ---- Compositions

ALLOWED = {"stack": ("leaf", "fuse", "split", "average", "mix"), "fuse": ("leaf", "stack"), "split": ("leaf", "split", "stack", "average"),
           "average": ("leaf", "stack", "split"), "mix": ("leaf", "stack"), "sum": ("leaf",)}


def tree(r, names, kinds, word=None, level=0):
    """A composition that the library allows: what may stand in what, two levels, a stack deeper down of leaves alone."""
    word = word or r.choice([k for k in kinds])
    parts = []
    for _ in range(2 if word == "split" else r.randint(2, 3)):
        inside = [k for k in ALLOWED[word] if k == "leaf" or (k in kinds and (level == 0 or k == "stack") and not (word == "stack" and level > 0))]
        kind = "leaf" if r.random() < 0.55 else r.choice(inside)
        parts.append(r.choice(names) if kind == "leaf" else tree(r, names, kinds, kind, level + 1))
    if word == "split":
        parts = [f"{parts[0]}:{r.randint(1, 3)}", f"{parts[1]}:*"]
    elif word in ("mix", "sum") or (word == "average" and r.random() < 0.5):
        parts = [f"{p}:{round(r.uniform(0.1, 1.5), 2)}" for p in parts]
    return f"{word}({', '.join(parts)})"


def fusions(r, text):
    """The fusion layers that a composition needs."""
    found = {}

    def walk(block):
        if type(block).__name__ == "Fuse":
            found[block.name] = [c if isinstance(c, str) else c.last() for c in block]
        for child in [] if isinstance(block, str) else block:
            walk(child)

    walk(parse(text, list(range(30)), 2))
    value = r.random() < 0.7
    config = dict(key=r.random() < 0.8, query=r.random() < 0.8, value=value, query_before_ln=r.random() < 0.3, regularization=False, residual_before=r.random() < 0.3,
                  temperature=r.random() < 0.3, value_before_softmax=r.random() < 0.7, value_initialized=True, dropout_prob=None)
    return [(members, config) for members in found.values() if len(set(members)) == len(members)], len(found)


def compose(r, kinds, config, count=3, **more):
    names = "wxyz"[:count]
    while True:
        text = tree(r, names, kinds)
        try:
            fused, needed = fusions(r, text)
        except IndexError:  # A split of fewer tokens than its parts ask for.
            continue
        if len(fused) == needed and parse_composition(parse(text, list(range(30)), 2)):
            break
    used = sorted(set(leaves(parse(text, list(range(30)), 2))))
    return {n: spec(r, config()) for n in used}, {"compose": text, "fusion": fused, "lengths": (8, 13, 17), **more}


@family
def composed_bottlenecks(r):
    at, out = sites(r), left_out(r)
    return compose(r, ["stack", "average", "split", "mix"], lambda: bottleneck_config(r, at, leave_out=out))


@family
def composed_parallel(r):
    return compose(r, ["average", "split", "mix", "sum"], lambda: ParBnConfig(reduction_factor=r.choice([2, 6]), scaling=r.choice([1.0, "learned"])))


@family
def composed_fusion(r):
    at = sites(r)
    specs, more = compose(r, ["fuse", "stack"], lambda: bottleneck_config(r, at, leave_out=[]))
    return specs, more


@family
def summed(r):
    at = sites(r)
    return compose(r, ["sum"], lambda: bottleneck_config(r, at, leave_out=[], invertible=False).replace(is_parallel=False))


@family
def composed_loras(r):
    return compose(r, ["stack", "average", "mix"], lambda: lora_config(r, same_width=True, attn_matrices=["q", "v"], use_gating=r.random() < 0.2))


@family
def stacked_methods(r):
    kinds = [lambda: lora_config(r), lambda: prefix_config(r), lambda: bottleneck_config(r), lambda: bottleneck_config(r), lambda: IA3Config()]
    picked = r.sample(kinds, r.randint(2, 4))
    if any(isinstance(k(), IA3Config) for k in picked):
        picked = [k for k in picked if not isinstance(k(), LoRAConfig) or isinstance(k(), IA3Config)]
    names = "wxyz"[:len(picked)]
    head = head_of(r) if r.random() < 0.4 else None
    specs = {n: spec(r, k(), head=head if n == names[-1] else None) for n, k in zip(names, picked)}
    return specs, {"compose": f"stack({', '.join(names)})"}


@family
def with_peft(r):
    targets = some(r, ["query", "key", "value", "attention.output.dense", "intermediate.dense"])
    peft = {"target_modules": targets, "r": r.randint(1, 5), "lora_alpha": r.choice([1, 4, 9]), "use_rslora": r.random() < 0.3}
    return {"p": Spec(peft=peft), "a": spec(r, r.choice([bottleneck_config(r), lora_config(r), prefix_config(r)]))}, {"compose": "stack(p, a)", "base": r.choice([b for b in BASES if b in COMMON])}


@family
def mixed(r):
    pool = [bottleneck, invertible, compacter, lora, ia3, vera, dora, mtl_lora, prefix, prompt, union, adapterplus, heads]
    specs = {f"n{i}": kind(r)[0] for i, kind in enumerate(r.sample(pool, 7))}
    for s in specs.values():
        s.edit = None
    rows = [r.choice([*specs, "base"]) for _ in range(10)]
    used = {n: s for n, s in specs.items() if n in rows}
    return used, {"row_compose": rows, "lengths": (3, 9, 14)}


# Names that begin alike, and words that stand in the paths of tensors.
NAMES = ["task", "task2", "task2_en", "ta", "sst-2", "0", "größe", "de wiki", "adapters", "heads", "loras", "layer", "weight"]


@family
def named(r):
    """Adapters of one model, most of them with heads, under any names."""
    specs = {letter: r.choice([heads, heads, bottleneck, lora, prefix, reft])(r)[0] for letter in "abc"}
    for s, name in zip(specs.values(), r.sample(NAMES[:4], 2) + [r.choice(NAMES[4:])]):
        s.saved = name
    return specs, {"row_compose": ["a", "b", "c", "base"], "lengths": (3, 9, 14, 5)}


# ----

def bases(out):
    make.BASES = out / "bases"
    for name in BASES:
        if name in COMMON:
            cls, config_cls, changes = make.PLAIN[name]
            model = make.build(f"held out {name}", cls, config_cls, **{**changes, **SIZES})
        else:
            stem, changes = OTHERS[name]
            config = getattr(transformers, f"{stem}Config")(**{k: v for k, v in {**SIZES, **changes}.items() if v is not None})
            model = base_families.randomise(getattr(transformers, f"{stem}Model")(config), f"held out {name}")
        make.save_base(name, model)


def check_saved(case):
    """The library looks for `.shared_parameters.`, with a dot before it, which a bare model's names do not have."""
    for config in case.rglob("adapter_config.json"):
        text = config.read_text()
        if '"phm_layer": true' in text and ('"shared_phm_rule": true' in text or '"shared_W_phm": true' in text):
            raise ValueError("the shared parameters are not saved")


def one(name, number, seed):
    for attempt in range(20):
        r = random.Random(f"{seed} {name} {number} {attempt}")
        specs, more = FAMILIES[name](r)
        more = {"base": r.choice(BASES), "lengths": LENGTHS, "inert": None, "compose": None, **more}
        if not more["base"].startswith("bert"):
            more.pop("types", None)
        if more["base"] == "modernbert":  # It has no model with flexible heads.
            more.setdefault("cls", "ModernBertModel")
        base, text = more.pop("base"), more.pop("compose")
        hub_case.DONE.discard(f"{name}/{number}")
        try:
            hub_case.case(f"{name}/{number}", base, specs, text, **more)
            if more.get("cls") == "ModernBertModel":
                check_saved(hub_case.HUB / name / str(number))
            return
        except (AssertionError, IndexError, KeyError, ValueError, RuntimeError, UnboundLocalError, AttributeError, TypeError) as why:
            # What the library cannot do, what is too delicate to compare, what does nothing: said, and drawn again.
            print(f"{name}/{number}: drawn again: {type(why).__name__}: {str(why)[:150]}", flush=True)
    sys.exit(f"{name}/{number}: nothing that works")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--backends", default="reference,cpu,gpu")
    parser.add_argument("--bases", default=",".join(BASES))
    parser.add_argument("families", nargs="*")
    args = parser.parse_intermixed_args()
    delicate.DRAWS = 3
    out = args.out.resolve()
    BASES[:] = args.bases.split(",")
    shutil.rmtree(out / "hub", ignore_errors=True)
    bases(out)
    hub_case.HUB = out / "hub"
    here = [n for n in FAMILIES if n != "with_peft" or set(COMMON) & set(BASES)]  # PEFT's side is made on these alone.
    for name in args.families or here:
        for number in range(args.cases):
            one(name, number, args.seed)
        print("made", name, flush=True)
    if args.binary:
        check = Path(__file__).with_name("check.py")
        sys.exit(subprocess.run([sys.executable, check, args.binary, out / "hub", "--backends", args.backends]).returncode)


if __name__ == "__main__":
    main()
