"""Cases of PEFT's methods that nobody has seen: other seeds, sizes and options than the fixtures'.

    python tests/golden/held_out_peft.py OUT [--seed N] [--cases K] [--bases bert,vit,…]
        [--binary POLYGRAFT [--backends reference,cpu,gpu]] [family…]

Writes `OUT/bases` and `OUT/peft/<family>/<number>`, K cases a family; nothing of it is committed. With a binary,
`check.py` then runs it over them and prints the worst difference by family. One seed, the same cases. What the library
refuses (a rank that does not fit, a block that does not divide) is drawn again, and the last lines say how often.
"""

import argparse
import dataclasses
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import make  # First: it quiets the libraries before they are loaded.
import base_families
import delicate
import held_out_draws as draws
import torch
import transformers
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft_machine import Adapter, Machine

# hidden, layers, heads, intermediate, vocabulary, positions
SHAPES = {"48": (48, 3, 6, 80, 120, 60), "40": (40, 1, 5, 72, 90, 50), "24": (24, 4, 2, 60, 70, 64), "45": (45, 2, 5, 63, 101, 47)}
# The other bases: settings, and what BERT's names are there (in this order, whole suffixes first).
OTHERS = {
    "distilbert": (dict(), [("attention.output.dense", "out_lin"), ("attention.self.", "attention."), (r"attention\.self\.", r"attention\."), ("intermediate.dense", "ffn.lin1"), ("intermediate", "ffn.lin1"), ("output.dense", "ffn.lin2"),
                            ("query", "q_lin"), ("key", "k_lin"), ("value", "v_lin"), ("output.LayerNorm", "sa_layer_norm"), ("encoder.layer", "transformer.layer"),
                            ("token_type_embeddings", "position_embeddings"), (r"\.dense", ".lin.")]),
    "albert": (dict(embedding_size=20), [("attention.output.dense", "attention.dense"), ("attention.self.", "attention."), (r"attention\.self\.", r"attention\."), (r"\.dense", ".ffn.*"), (r"layer\.", r"albert_layers\."), ("intermediate.dense", "ffn"), ("intermediate", "ffn"),
                                         ("output.dense", "ffn_output"), ("layer.0.", "albert_layers.0."), ("attention.output.LayerNorm", "attention.LayerNorm"),
                                         ("output.LayerNorm", "full_layer_layer_norm")]),
    "electra": (dict(embedding_size=20), []),
    "mpnet": (dict(), [("attention.output.LayerNorm", "attention.LayerNorm"), ("attention.output.dense", "attention.attn.o"), ("attention.self.", "attention.attn."),
                                                       (r"attention\.self\.", r"attention\.attn\."), ("query", "q"), ("key", "k"), ("value", "v"), ("token_type_embeddings", "position_embeddings")]),
    "deberta": (dict(type_vocab_size=0, relative_attention=True, pos_att_type=["c2p", "p2c"], share_att_key=True, norm_rel_ebd="layer_norm", position_buckets=8, max_relative_positions=-1,
                     position_biased_input=False, conv_kernel_size=3, conv_act="gelu"),
                [("query", "query_proj"), ("key", "key_proj"), ("value", "value_proj"), ("token_type_embeddings", "word_embeddings"), ("position_embeddings", "word_embeddings")]),
    "modernbert": (dict(global_attn_every_n_layers=2, local_attention=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, reference_compile=False),
                   [("embeddings.LayerNorm", "embeddings.norm"), ("attention.output.LayerNorm", "attn_norm"), ("LayerNorm", "mlp_norm"), ("output.mlp_norm", "mlp_norm"), ("attention.output.dense", "attn.Wo"),
                    ("attention.self.", "attn."), (r"attention\.self\.", r"attn\."), ("intermediate.dense", "mlp.Wi"), ("intermediate", "mlp.Wi"), ("output.dense", "mlp.Wo"), (r"output\.dense", r"mlp\.Wo"),
                    ("query", "Wqkv"), ("key", "Wqkv"), ("value", "Wqkv"), ("encoder.layer", "layers"), (r"encoder\.layer", "layers"), ("layer.0", "layers.0"), (r"layer\.", r"layers\."), (r"\.dense", ".Wo"),
                    ("word_embeddings", "tok_embeddings"), ("position_embeddings", "tok_embeddings"), ("token_type_embeddings", "tok_embeddings")]),
}
# Its rows are images; its tables are no modules.
SEES = "vit"
OTHERS[SEES] = (dict(vocab_size=None, max_position_embeddings=None, image_size=12, patch_size=4),
                [("attention.output.LayerNorm", "layernorm_before"), ("output.LayerNorm", "layernorm_after"), ("LayerNorm", "layernorm_after"), ("attention.self.", "attention.attention."),
                 (r"attention\.self\.", r"attention\.attention\.")])
# Those whose heads have layers of their own that no adapter saves unless it is told to: they are drawn without a task.
BARE = ("mpnet", "deberta", "modernbert", SEES)
HEADS = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification", "QUESTION_ANS": "ForQuestionAnswering"}
CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlmr": "XLMRoberta", "distilbert": "DistilBert", "albert": "Albert", "electra": "Electra", "mpnet": "MPNet", "deberta": "DebertaV2",
           "modernbert": "ModernBert", SEES: "ViT"}
PROMPTS = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "CARTRIDGE")
TASKED = ("POLY", "MULTITASK_PROMPT_TUNING")
SINGLE = [kind for kind in draws.DRAWS]
# Two of a kind at once, where the library's sum or product of them is its own (see peft_families/mixed.py).
PAIRS = ["LORA", "DORA", "LORA_EMBEDDING", "IA3", "LOHA", "LOKR", "OFT", "BOFT", "HRA", "FOURIERFT", "WAVEFT", "SHIRA", "ROAD", "GRALORA", "DELORA", "HIRA", "GLORA",
         "BEFT", "MISS", "PEANUT", "VBLORA", "TINYLORA", "ADALORA", "DEFT", "SUPERTUNING", "LILY", "UNILORA"]


def bases(out):
    make.BASES = out / "bases"
    for size, (hidden, layers, heads, inner, vocab, positions) in SHAPES.items():
        sizes = dict(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner, vocab_size=vocab, max_position_embeddings=positions)
        for arch, config in (("bert", make.BERT), ("roberta", make.ROBERTA), ("xlmr", make.XLMR)):
            changes = {**sizes, **({} if arch == "bert" else make.R)}
            for suffix, cls, more in (("", "Model", {}), ("_seqcls", HEADS["SEQ_CLS"], dict(num_labels=3)), ("_mlm", "ForMaskedLM", {})):
                name = f"{arch}{suffix}_{size}"
                make.CLASSES[name] = CLASSES[arch] + cls
                make.save_base(name, make.build(name, CLASSES[arch] + cls, config, **changes, **more))
        for arch, (more, _) in OTHERS.items():
            names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim"} if arch == "distilbert" else {}
            if arch == "modernbert" and hidden // heads % 2:  # Its rotation takes pairs.
                continue
            config = getattr(transformers, CLASSES[arch] + "Config")(**{k: v for k, v in ({names.get(k, k): v for k, v in sizes.items()} | more).items() if v is not None},
                                                                      attn_implementation="eager")
            for suffix, cls in (("", "Model"), ("_mlm", "ForMaskedLM"))[: 1 if arch == SEES else 2]:
                name = f"{arch}{suffix}_{size}"
                make.CLASSES[name] = CLASSES[arch] + cls
                make.save_base(name, base_families.randomise(getattr(transformers, CLASSES[arch] + cls)(config), name))


# What names modules.
NAMES = {"target_modules", "exclude_modules", "modules_to_save", "feedforward_modules", "rank_pattern", "alpha_pattern", "trainable_token_indices", "target_parameters",
         "n_frequency_pattern", "block_size_pattern"}


ARCHES = ["bert", "bert", "bert", "roberta", "roberta", "xlmr", "xlmr", *OTHERS]


class Draw:
    """What a case is drawn from: a generator, and the base's shape."""

    def __init__(self, seed):
        self.r = random.Random(seed)
        self.size = self.r.choice(list(SHAPES))
        self.hidden, self.layers, _, self.inner, self.vocab, self.positions = SHAPES[self.size]
        self.arch = self.r.choice(ARCHES)
        if self.arch == "modernbert" and self.size == "45":
            self.arch = "deberta"
        self.task, self.cls, self.labels = None, None, None

    def take_task(self, kind):
        """A task, and the base's head or another."""
        r, own = self.r, kind in PROMPTS or kind in TASKED
        self.task = r.choice(["FEATURE_EXTRACTION"] * own + [None] * (not own) + ["SEQ_CLS", "TOKEN_CLS", None if not own else "FEATURE_EXTRACTION", "QUESTION_ANS"])
        if kind == "MULTITASK_PROMPT_TUNING":
            self.task = r.choice(["SEQ_CLS", "TOKEN_CLS"])
        if self.task == "QUESTION_ANS" and kind in TASKED:
            self.task = "TOKEN_CLS"
        if kind in ("PREFIX_TUNING", "CARTRIDGE") and self.arch in ("distilbert", "albert", *BARE) or kind == "MULTITASK_PROMPT_TUNING" and self.arch in BARE:
            self.arch = "electra"
        if self.arch in BARE:
            self.task = "FEATURE_EXTRACTION" if own else None
        if kind in ("PREFIX_TUNING", "CARTRIDGE") and self.task == "SEQ_CLS":
            self.arch = "bert"
        if self.task in HEADS:
            self.cls, self.labels = CLASSES[self.arch] + HEADS[self.task], 2 if self.task == "QUESTION_ANS" else r.randint(1, 6)
            if self.task == "TOKEN_CLS":
                self.labels = max(self.labels, 2)
        if kind == "TRAINABLE_TOKENS" and self.task in HEADS:  # It saves no head.
            self.task = self.cls = self.labels = None
        suffix = "" if self.task else r.choice(["", "", "_seqcls", "_mlm"])
        if self.task == "SEQ_CLS" and kind not in ("PREFIX_TUNING", "CARTRIDGE"):
            suffix = r.choice(["", "_seqcls"])
        if self.arch in OTHERS and suffix == "_seqcls" or self.arch == SEES:
            suffix = ""
        self.base = f"{self.arch}{suffix}_{self.size}"
        return {"task_type": self.task} if self.task else {}

    def renamed(self, value):
        """BERT's names as this base has them, wherever they stand in a configuration."""
        if isinstance(value, dict):
            return {self.renamed(k): self.renamed(v) for k, v in value.items()}
        if isinstance(value, list):
            return list(dict.fromkeys(self.renamed(v) for v in value)) if value and isinstance(value[0], str) else value
        if isinstance(value, str) and self.arch in OTHERS:
            for ours, theirs in OTHERS[self.arch][1]:
                value = value.replace(ours, theirs)
        return value

    def prompt_width(self, kind):
        if self.arch == "distilbert":
            return {"token_dim": self.hidden, "num_attention_heads": SHAPES[self.size][2], "num_layers": self.layers}
        return {"token_dim": 20} if self.arch in ("albert", "electra") and kind not in ("PREFIX_TUNING", "CARTRIDGE") else {}

    def targets(self, kind, config):
        """Which modules, and the other options that methods share, for a configuration that says nothing of them."""
        r, fields = self.r, {f.name for f in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])}
        out = {}
        if "target_modules" not in config:
            names = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "layer.0.output.dense", "output.dense"]
            many = sorted(r.sample(names, r.randint(1, 4)))
            path = f"encoder.layer.{self.layers - 1}.attention.self.key"
            one = "|".join(sorted(r.sample(["query", "key", "value"], 2)))
            out["target_modules"] = r.choice([many, many, many, [path, *many], rf".*attention\.self\.({one})", rf".*layer\.(0|{self.layers - 1})\..*\.dense"])
            if kind == "IA3":
                chosen = out["target_modules"]
                feeds = [n for n in chosen if "dense" in n and r.random() < 0.6] if isinstance(chosen, list) else r".*intermediate.*"
                out["feedforward_modules"] = feeds
            listed = isinstance(out["target_modules"], list)
            if "layers_to_transform" in fields and listed and r.random() < 0.25:
                out |= {"layers_to_transform": r.choice([self.layers - 1, [0], [0, self.layers - 1]])}
                if r.random() < 0.5:
                    out["layers_pattern"] = r.choice(["layer", ["layer"]])
            if "exclude_modules" in fields and r.random() < 0.2:
                out["exclude_modules"] = r.choice([["layer.0.output.dense"], ["value"], r".*layer\.0.*intermediate.*"])
        if "modules_to_save" in fields and r.random() < 0.2:
            out["modules_to_save"] = r.choice([["attention.output.LayerNorm"], ["LayerNorm"], ["position_embeddings"], ["layer.0.intermediate.dense"]])
        if "bias" in fields and "bias" not in config and r.random() < 0.2:
            out["bias"] = "all"
        return out


def adapter(d, name, task, like=None):
    """One adapter of this kind over the drawn base. `like`: the options that two adapters must share."""
    kind, options = draws.DRAWS[name](d)
    shared = {k: like[k] for k in draws.SHARED.get(kind, ()) if k in like} if like else {}
    options |= shared
    if kind in PROMPTS:
        config = {**task, **options, **d.prompt_width(kind)}
    else:
        config = {**options, **d.targets(kind, options), **task}
        for key in NAMES & config.keys():
            config[key] = d.renamed(config[key])
        config |= shared  # Which have their names already.
        if kind == "TRAINABLE_TOKENS":
            config.pop("task_type", None)
    how = {}
    if kind in TASKED:
        number = d.r.randrange(options.get("n_tasks", options.get("num_tasks")))
        how = dict(options={"task": number}, call={"task_ids": torch.tensor([number])})
    if name == "ADALORA" and d.r.random() < 0.6 and not task:
        config |= {"tinit": 1, "tfinal": 2, "total_step": 8}
        how["before_save"] = draws.prune
    if d.r.random() < 0.15:
        how["safe"] = False
    if d.r.random() < 0.15:
        how["saved"] = "mine"
    return Adapter(kind, config, **how)


def add(machine, family, number, first, d, **how):
    values = vars(first)
    options = {k: values[k] for k in ("options", "call", "before_save", "safe", "saved")}
    types = d.arch in ("bert", "albert", "electra") and d.r.random() < 0.5 and d.task != "QUESTION_ANS"
    machine.case(family, str(number), first.kind, first.config, base=d.base, cls=d.cls, labels=d.labels, types=types, lengths=(1, 2, 3, 7, 19), change=-1.0, tolerance=1e-4,
                 **options, **how)


def single(machine, d, name, number):
    task = d.take_task(draws.KINDS.get(name, name))
    add(machine, name.lower(), number, adapter(d, name, task), d)


def stacked(machine, d, name, number):
    d.base = f"{d.arch}_{d.size}"
    first = adapter(d, name, {})
    second = adapter(d, name, {}, first.config)
    for a in (first, second):
        a.config.pop("modules_to_save", None), a.config.pop("bias", None), a.config.pop("trainable_token_indices", None)
        if name == "TINYLORA":  # Of two that count their layers differently the library gives the second the first one's projections.
            [a.config.pop(key, None) for key in ("layers_to_transform", "layers_pattern", "exclude_modules")]
    add(machine, f"stacked_{name.lower()}", number, first, d, others={"b": second}, row_compose=["stack(a,b)", "a", "stack(b,a)", "base", "b"])


def mixed(machine, d, _, number):
    """Rows of one batch under different methods."""
    task = d.take_task("PROMPT_TUNING") if d.r.random() < 0.5 else {}
    if not task:
        d.base = f"{d.arch}_{d.size}"
    if d.task == "QUESTION_ANS":
        d.task = d.cls = d.labels = None
        d.base, task = f"{d.arch}_{d.size}", {}
    kinds = [k for k in SINGLE if (task or draws.KINDS.get(k, k) not in PROMPTS) and k not in ("TRAINABLE_TOKENS", "LAYER_REPLICATION")]
    if d.arch != "bert" and (d.task == "SEQ_CLS" or d.arch in ("distilbert", "albert", *BARE)):
        kinds = [k for k in kinds if k not in ("PREFIX_TUNING", "CARTRIDGE")]
    kinds = [k for k in kinds if k not in TASKED or task]
    if d.task == "FEATURE_EXTRACTION":
        kinds = [k for k in kinds if k != "MULTITASK_PROMPT_TUNING"]
    chosen = d.r.sample(kinds, 6)
    made = {letter: adapter(d, kind, task) for letter, kind in zip("abcdef", chosen)}
    rows = [*made, "base", *d.r.sample(list(made), 3)]
    d.r.shuffle(rows)
    first = made.pop("a")
    add(machine, "mixed", number, first, d, others=made, row_compose=rows)


def families():
    table = {name.lower(): (single, name) for name in SINGLE}
    table |= {f"stacked_{name.lower()}": (stacked, name) for name in PAIRS}
    return table | {"mixed": (mixed, "MIXED")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--backends", default="reference,cpu,gpu")
    parser.add_argument("--bases", default=",".join(ARCHES))
    parser.add_argument("families", nargs="*")
    args = parser.parse_intermixed_args()
    delicate.DRAWS = 3
    ARCHES[:] = args.bases.split(",")
    out = args.out.resolve()
    bases(out)
    machine, again, table = Machine(out / "peft", make.BASES), Counter(), families()
    for family in args.families or table:
        make_one, name = table[family]
        shutil.rmtree(out / "peft" / family, ignore_errors=True)
        for number in range(args.cases):
            for attempt in range(30):
                try:
                    make_one(machine, Draw(f"{args.seed} {family} {number} {attempt}"), name, number)
                    break
                except Exception as e:  # The library's refusals come as every kind of error.
                    again[f"{family}: {type(e).__name__}: {str(e)[:160]}"] += 1
                    machine.vocab = None
                    machine.done.discard(f"{family}/{number}")
                    shutil.rmtree(out / "peft" / family / str(number), ignore_errors=True)
            else:
                print(f"{family} {number}: thirty draws failed")
        print("made", family, flush=True)
    for reason, count in sorted(again.items()):
        print(f"drawn again {count:3}: {reason}")
    if args.binary:
        check = Path(__file__).with_name("check.py")
        sys.exit(subprocess.run([sys.executable, check, args.binary, out / "peft", "--backends", args.backends]).returncode)


if __name__ == "__main__":
    main()
