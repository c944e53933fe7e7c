"""What every method shares: which modules are targets, what is saved beside them, in which container."""

import dataclasses
import json

import torch
from make import generator, normal
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from .registry import QV, SEQ, SMALLEST, family


@family("targets")
def targets(m):
    """A list with layers and exclusions where the method has them, and a regular expression."""
    for kind, config in SMALLEST.items():
        fields = {f.name for f in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])}
        chosen = {"target_modules": ["query", "value", "intermediate.dense", "encoder.layer.0.output.dense"]}
        if "layers_to_transform" in fields:
            # An entry that is the whole path needs no layer.
            chosen |= {"layers_to_transform": [1], "layers_pattern": "layer"}
        if "exclude_modules" in fields:
            chosen |= {"exclude_modules": ["encoder.layer.1.attention.self.value", "layer.0.attention.self.query"]}
        if "modules_to_save" in fields:
            chosen |= {"modules_to_save": ["layer.1.output.LayerNorm"]}
        task = dict(options={"task": 1}, call={"task_ids": torch.tensor([1])}) if kind == "POLY" else {}
        m.case("targets", f"{kind.lower()}_list", kind, {**config, **chosen}, **task)
        regex = {"target_modules": r".*(layer\.0\.attention\.self\.(key|value)|layer\.1\.(intermediate|output)\.dense)"}
        if "exclude_modules" in fields:
            regex |= {"exclude_modules": r".*layer\.0.*key"}
        if "bias" in fields:
            regex |= {"bias": "all" if len(kind) % 2 else f"{kind.lower()}_only"}
        m.case("targets", f"{kind.lower()}_regex", kind, {**config, **regex}, base="roberta", **task)


PROMPTS = {
    "PROMPT_TUNING": {"num_virtual_tokens": 3}, "P_TUNING": {"num_virtual_tokens": 3, "encoder_hidden_size": 8},
    "MULTITASK_PROMPT_TUNING": {"num_virtual_tokens": 3, "num_tasks": 2, "task_type": "TOKEN_CLS"}, "PREFIX_TUNING": {"num_virtual_tokens": 3},
    "CARTRIDGE": {"num_virtual_tokens": 3},
}


def every_kind():
    """Each method with a few modules, as (kind, configuration, what a case needs beside)."""
    one = {"options": {"task": 1}, "call": {"task_ids": torch.tensor([1])}}
    for kind, config in SMALLEST.items():
        yield kind, {**config, "target_modules": ["query", "layer.1.output.dense"]}, one if kind == "POLY" else {}
    yield "LN_TUNING", {"target_modules": ["LayerNorm"]}, {}
    yield "TRAINABLE_TOKENS", {"token_indices": [5, 7, 11]}, {"rows": [[5, 7, 11], [9, 11, 5, 30]]}
    for kind, config in PROMPTS.items():
        more = {**one, "cls": "BertForTokenClassification", "labels": 3} if "MULTITASK" in kind else {}
        yield kind, {"task_type": "FEATURE_EXTRACTION", **config}, more


def without_defaults(kind):
    """The configuration as a release would have written it that had fewer entries: what is not there is the default."""
    plain = {}
    for f in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind]):
        value = f.default if f.default is not dataclasses.MISSING else f.default_factory() if f.default_factory is not dataclasses.MISSING else None
        plain[f.name] = json.loads(json.dumps(value, default=str))
    kept = {"peft_type", "task_type"} | ({"oft_block_size"} if kind == "OFT" else set())  # Without its size OFT is refused.

    def edit(config):
        for key in [k for k, v in config.items() if k not in kept and (k == "inference_mode" or v == plain.get(k))]:
            del config[key]
    return edit


@family("few_entries")
def few_entries(m):
    for kind, config, more in every_kind():
        m.case("few_entries", kind.lower(), kind, config, edit=without_defaults(kind), **more)


@family("half_precision")
def half_precision(m):
    """Every tensor of the file in 16 bits: the library computes with what they are in 32.

    But FRoD: its U is made from the V that the library computes anew, and not from the rounded one that the file brings.
    """
    for i, (kind, config, more) in enumerate(every_kind()):
        if kind == "FROD":
            continue
        dtype = (torch.float16, torch.bfloat16)[i % 2]
        m.case("half_precision", kind.lower(), kind, config, edit_tensors=lambda t: {k: v.to(dtype) if v.is_floating_point() else v for k, v in t.items()}, **more)


@family("container")
def container(m):
    """`adapter_model.bin`, adapters saved under a name, embeddings saved beside the adapter, tokens that it adds."""
    plain = {"LORA": QV, "IA3": ["key"], "OFT": QV, "VBLORA": QV, "SHIRA": QV, "UNILORA": QV, "RANDLORA": QV}
    for kind, modules in plain.items():
        m.case("container", f"bin_{kind.lower()}", kind, {**SMALLEST[kind], "target_modules": modules}, safe=False)
    prompt = {"num_virtual_tokens": 3, "task_type": "SEQ_CLS"}
    m.case("container", "bin_prompt_tuning", "PROMPT_TUNING", prompt, cls=SEQ, labels=2, safe=False)
    m.case("container", "bin_seqcls_dora", "LORA", {"r": 2, "use_dora": True, "target_modules": QV, "task_type": "SEQ_CLS"}, cls=SEQ, labels=3, safe=False)
    for kind in ("LOHA", "ROAD", "VERA", "TINYLORA", "FROD"):
        m.case("container", f"named_{kind.lower()}", kind, {**SMALLEST[kind], "target_modules": QV}, saved="mine")
    m.case("container", "named_prefix_tuning", "PREFIX_TUNING", {"num_virtual_tokens": 3, "task_type": "TOKEN_CLS"}, cls="BertForTokenClassification", labels=3, saved="mine")
    # A name that is also a module's: only what peft put there goes.
    m.case("container", "named_like_a_module", "LOKR", {**SMALLEST["LOKR"], "target_modules": QV}, saved="query")
    lora = {**SMALLEST["LORA"], "target_modules": QV}

    def train_embeddings(peft):
        table = peft.get_input_embeddings().weight.data
        table.copy_(normal(generator("embeddings"), table.shape, 0.4))

    trained = dict(embeddings=True, before_save=train_embeddings)
    m.case("container", "embeddings_saved", "LORA", lora, **trained)
    m.case("container", "embeddings_saved_and_targeted", "LORA", {**lora, "target_modules": ["word_embeddings", "query"]}, **trained)
    m.case("container", "embeddings_saved_tied", "LORA", lora, base="bert_mlm", **trained)
    rows = [[5, 101, 11], [103, 7, 100, 102, 9], [100]]
    m.case("container", "tokens_added", "LORA", lora, vocab=104, rows=rows)
    m.case("container", "tokens_added_and_targeted", "HIRA", {"r": 2, "target_modules": ["word_embeddings", "value"]}, vocab=104, rows=rows, embeddings=True)
    m.case("container", "tokens_added_tied", "IA3", {}, base="bert_mlm", vocab=104, rows=rows)
