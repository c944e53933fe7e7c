"""The fixtures of heads, of what older releases wrote, of containers, of set-ups, and of what must be refused. See hub_families.py."""

import json
import re

import hub_case
import torch
from adapters import BnConfig, ConfigUnion, DoubleSeqBnConfig, IA3Config, LoRAConfig, NoReftConfig, ParBnConfig, PrefixTuningConfig, PromptTuningConfig, SeqBnConfig, SeqBnInvConfig
from adapters import composition as ac
from hub import Spec, to_legacy
from hub_case import Fusion, case, config_edit, edit_config, edit_json, family, put, setup_case, top_edit
from safetensors.torch import load_file, save_file

PFEIFFER = SeqBnConfig(reduction_factor=8)
HOULSBY = DoubleSeqBnConfig(reduction_factor=8)
INVERTIBLE = SeqBnInvConfig(reduction_factor=8)
LORA = LoRAConfig(r=2, alpha=4)


@family("heads")
def heads():
    def he(name, base="bert", config=PFEIFFER, edit=None, choices=None, container="bin", late=None, **head):
        lengths = (6,) * 4 if choices else (1, 2, 5, 17)
        case(f"heads/{name}", base, Spec(config, head=head, edit=edit, container=container, late=late), choices=choices, lengths=lengths,
             types=base.startswith("bert"), same=not edit)

    for base in ("bert", "xlmr"):
        on = lambda name: name if base == "bert" else f"{name}_{base}"
        he(on("classification"), base, kind="classification", num_labels=3)
        he(on("classification_one_layer"), base, kind="classification", num_labels=2, layers=1)
        he(on("classification_pooler"), base, kind="classification", num_labels=3, use_pooler=True, layers=1)
        he(on("classification_no_activation"), base, kind="classification", num_labels=4, layers=3, activation_function=None)
        he(on("regression"), base, kind="classification", num_labels=1, activation_function="relu")
        he(on("multilabel"), base, kind="classification", num_labels=5, multilabel=True)
        he(on("tagging"), base, kind="tagging", num_labels=4)
        he(on("question_answering"), base, kind="qa")
        he(on("multiple_choice"), base, kind="multiple_choice", num_choices=2, choices=2)
        he(on("masked_lm"), base, kind="masked_lm")
        he(on("masked_lm_invertible"), base, config=INVERTIBLE, kind="masked_lm")
        he(on("causal_lm"), base, kind="causal_lm")
    he("classification_no_bias", kind="classification", num_labels=3, bias=False)
    he("classification_ids", kind="classification", num_labels=3, id2label={0: "no", 1: "perhaps", 2: "yes"}, container="safetensors")
    he("classification_pooler_two_layers", kind="classification", num_labels=2, use_pooler=True)
    he("multilabel_pooler", kind="classification", num_labels=5, multilabel=True, use_pooler=True, activation_function="gelu")
    he("tagging_two_layers", kind="tagging", num_labels=7, layers=2, activation_function="leakyrelu", container="safetensors")
    he("question_answering_two_layers", base="xlmr", kind="qa", layers=2, activation_function="gelu")
    he("multiple_choice_four", kind="multiple_choice", num_choices=4, use_pooler=True, layers=1, choices=4)
    he("masked_lm_relu", kind="masked_lm", activation_function="relu")
    he("causal_lm_invertible", config=INVERTIBLE, kind="causal_lm")
    he("roberta_masked_lm_invertible", base="roberta", config=INVERTIBLE, kind="masked_lm", container="safetensors")
    he("lora", config=LORA, kind="classification", num_labels=3)
    he("prefix", base="xlmr", config=PrefixTuningConfig(prefix_length=2, flat=True), kind="tagging", num_labels=3)
    # Written by releases that knew neither `bias` nor `dropout_prob`, and by the class of adapter-transformers.
    without = edit_json("head_config.json", lambda c: put(c["config"], {"bias": ..., "dropout_prob": ..., "use_pooler": ..., "label2id": None}))
    he("classification_old_keys", edit=without, kind="classification", num_labels=3)
    he("model_with_heads", edit=edit_json("head_config.json", lambda c: c.update(model_class="BertModelWithHeads", version="2.3.0")), kind="tagging", num_labels=3)
    # Rows whose adapters bring no head take the base's.
    over = {"a": Spec(PFEIFFER, head=dict(kind="classification", num_labels=2)), "b": LORA}
    for base in ("bert_seqcls", "xlmr_tokcls"):
        case(f"heads/over_{base}", base, over, row_compose=["a", "base", "b", "stack(b, a)", "stack(a, b)"], base_head=True, same=False)
    # The request has no place for where words start.
    # The library saves each head whose name begins as this one's.
    alike = {"a": Spec(PFEIFFER, head=dict(kind="classification", num_labels=2), saved="task"), "b": Spec(LORA, head=dict(kind="tagging", num_labels=4), saved="task2")}
    case("heads/names_that_begin_alike", "bert", alike, row_compose=["a", "b", "base"])
    case("heads/refused_parser", "bert", Spec(PFEIFFER, head=dict(kind="dependency_parsing", num_labels=4)), error="dependency_parsing")


@family("static_heads")
def static_heads():
    """Hugging Face's own classes, with `adapters.init`."""
    def st(name, cls, base, config=PFEIFFER, head=True, **more):
        choices = more.get("choices")
        case(f"static_heads/{name}", base, Spec(config, head={} if not head else {"static": True}, container=more.pop("container", "bin")),
             cls=cls, types=base.startswith("bert"), lengths=(6,) * 4 if choices else (1, 2, 5, 17), **more)

    st("model", "BertModel", "bert", head=False)
    st("model_xlmr", "XLMRobertaModel", "xlmr", head=False, config=LORA, container="safetensors")
    for base, prefix in (("bert", "Bert"), ("xlmr", "XLMRoberta"), ("roberta", "Roberta")):
        st(f"sequence_{base}", f"{prefix}ForSequenceClassification", base)
        st(f"tokens_{base}", f"{prefix}ForTokenClassification", base, container="safetensors")
        st(f"answers_{base}", f"{prefix}ForQuestionAnswering", base)
        # No inverse here: the library runs the invertible block forwards alone.
        st(f"words_{base}", f"{prefix}ForMaskedLM", base, config=INVERTIBLE)
        st(f"choice_{base}", f"{prefix}ForMultipleChoice", base, choices=2)
    # A base that has a head: its own, or the adapter's in its place.
    st("head_of_base", "BertForSequenceClassification", "bert_seqcls", head=False)
    st("head_over_base", "BertForSequenceClassification", "bert_seqcls")
    st("head_of_base_xlmr", "XLMRobertaForTokenClassification", "xlmr_tokcls", head=False, config=HOULSBY)
    st("words_of_base", "BertForMaskedLM", "bert_mlm", head=False, config=INVERTIBLE)
    st("lora_sequence", "BertForSequenceClassification", "bert", config=LORA)


def v1_names(kind):
    """Tensor names of adapter-transformers 1: one dictionary for each kind of adapter, and two names for the place."""
    def rename(key):
        key = re.sub(r"\.attention\.output\.adapters\.", f".attention.output.attention_text_{kind}_adapters.", key)
        key = re.sub(r"\.output\.adapters\.", f".output.layer_text_{kind}_adapters.", key)
        return key.replace(".invertible_adapters.", ".invertible_lang_adapters.")

    return lambda folder: edit_bin(folder, lambda t: {rename(k): v for k, v in t.items()})


def edit_bin(folder, edit, name="pytorch_adapter.bin"):
    torch.save(edit(torch.load(folder / name, weights_only=True)), folder / name)


V1_KEYS = ("original_ln_before", "original_ln_after", "residual_before_ln", "adapter_residual_before_ln", "ln_before", "ln_after",
           "mh_adapter", "output_adapter", "non_linearity", "reduction_factor")


def v1(kind, nested=False, keep=V1_KEYS, **more):
    """A folder as adapter-transformers 1 wrote it, by hand: fewer keys, a `type`, no `version`, the old names."""
    def run(folder):
        def edit(config):
            inner = config["config"]
            reduced = {k: inner[k] for k in keep}
            reduced |= {"new_attention_norm": False, "attention_type": "sent-lvl-dynamic"} if nested else {}
            if inner["inv_adapter"]:
                block = {"block_type": inner["inv_adapter"], "non_linearity": inner["non_linearity"], "reduction_factor": inner["inv_adapter_reduction_factor"]}
                reduced |= {"invertible_adapter": block} if nested else {k: inner[k] for k in ("inv_adapter", "inv_adapter_reduction_factor")}
            elif nested:
                reduced["invertible_adapter"] = None
            config["config"] = reduced | more
            config["type"] = f"text_{kind}"
            del config["version"]
        edit_config(folder, edit)
        v1_names(kind)(folder)
    return run


def drop_invertible(folder):
    """Task adapters of release 1 named an invertible block that they did not have."""
    edit_bin(folder, lambda t: {k: v for k, v in t.items() if "invertible" not in k})


def both(*edits):
    return lambda folder: [e(folder) for e in edits] and None


def string(text):
    return lambda folder: edit_config(folder, lambda c: c.update(config=text))


@family("legacy")
def legacy():
    def le(name, config, edit, base="bert", **more):
        same = more.pop("same", False)
        case(f"legacy/{name}", base, Spec(config, edit=edit, **more), same=same)

    le("v1_task", PFEIFFER, v1("task"))
    le("v1_task_houlsby_xlmr", HOULSBY, v1("task"), base="xlmr")
    le("v1_language_nested", INVERTIBLE, v1("lang", nested=True))
    le("v1_language_flat_xlmr", INVERTIBLE, v1("lang"), base="xlmr")
    le("v1_task_names_invertible", INVERTIBLE, both(v1("task"), drop_invertible))
    le("v1_language_legacy_container", INVERTIBLE, both(v1("lang", nested=True), lambda f: to_legacy(f / "pytorch_adapter.bin")))
    # Without a version `gelu` meant the approximation, and `gelu_orig` the exact one.
    le("unversioned_gelu", SeqBnConfig(reduction_factor=8, non_linearity="gelu"), top_edit(version=...))
    le("unversioned_gelu_orig", SeqBnConfig(reduction_factor=8, non_linearity="gelu"), both(config_edit(non_linearity="gelu_orig"), top_edit(version=...)))
    le("versioned_gelu", SeqBnConfig(reduction_factor=8, non_linearity="gelu"), top_edit(version="0.2.0"), same=True)
    le("hub_language", SeqBnInvConfig(reduction_factor=2), top_edit(version="0.2.0", model_class="XLMRobertaAdapterModel"), base="xlmr", same=True)
    le("unknown_keys_kept", PFEIFFER, config_edit(new_attention_norm=False, attention_type="sent-lvl-dynamic"), same=True)
    # A configuration may be a name.
    for text, config in (
        ("pfeiffer", SeqBnConfig()), ("houlsby", DoubleSeqBnConfig()), ("pfeiffer+inv", SeqBnInvConfig()), ("parallel", ParBnConfig()),
        ("scaled_parallel", ParBnConfig(scaling="learned")), ("lora", LoRAConfig()), ("ia3", IA3Config()),
        ("seq_bn[reduction_factor=4,non_linearity='tanh']", SeqBnConfig(reduction_factor=4, non_linearity="tanh")),
        ("prefix_tuning_flat[prefix_length=3]", PrefixTuningConfig(flat=True, prefix_length=3)),
        ("par_bn[reduction_factor=8]|lora[r=2,alpha=4]", "par_bn[reduction_factor=8]|lora[r=2,alpha=4]"),
        ("compacter++[reduction_factor=4]", "compacter++[reduction_factor=4]"), ("loreft[r=2,suffix_positions=1]", "loreft[r=2,suffix_positions=1]"),
    ):
        le("name_" + re.sub(r"[^a-z0-9]+", "_", text).strip("_"), config, string(text), same=True)


@family("container")
def container():
    def co(name, config=PFEIFFER, base="bert", edit=None, **more):
        case(f"container/{name}", base, Spec(config, edit=edit and (lambda f: edit_bin(f, edit)), **more), same=not edit)

    co("zip")
    co("zip_legacy", config=HOULSBY, container="legacy")
    co("legacy_shared_storage", config=BnConfig(mh_adapter=False, output_adapter=True, ln_before=True, reduction_factor=8, non_linearity="relu"), container="legacy")
    co("legacy_head", config=PFEIFFER, container="legacy", head=dict(kind="tagging", num_labels=3))
    co("safetensors", container="safetensors")
    co("half", edit=lambda t: {k: v.half() for k, v in t.items()})
    co("bfloat16", edit=lambda t: {k: v.bfloat16() for k, v in t.items()}, base="xlmr")
    co("double", edit=lambda t: {k: v.double() for k, v in t.items()})
    co("transposed", edit=lambda t: {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in t.items()})
    co("one_storage", edit=one_storage)
    co("parameters", edit=lambda t: {k: torch.nn.Parameter(v) for k, v in t.items()})
    co("name_of_signs", saved="qa/squad-1@ukp v2")
    co("name_like_a_path", saved="adapters", head=dict(kind="tagging", num_labels=2))
    co("name_of_a_number", saved="0", config=HOULSBY, base="xlmr")
    co("both_files", late=lambda f: save_file(torch.load(f / "pytorch_adapter.bin", weights_only=True), f / "adapter.safetensors"))


def one_storage(tensors):
    """All tensors are parts of one, each with its offset."""
    whole = torch.cat([t.reshape(-1) for t in tensors.values()])
    out, at = {}, 0
    for key, t in tensors.items():
        out[key] = whole[at:at + t.numel()].view(t.shape)
        at += t.numel()
    return out


@family("setup")
def setup():
    """Folders of `save_adapter_setup`: the request's one name stands for the whole composition."""
    two = {"tr": INVERTIBLE, "task": PFEIFFER}
    setup_case("stack", "bert", two, ac.Stack("tr", "task"))
    setup_case("stack_head", "xlmr", {"tr": INVERTIBLE, "task": Spec(PFEIFFER, head=dict(kind="classification", num_labels=3))}, ac.Stack("tr", "task"), head="task")
    setup_case("stack_static_head", "bert", two, ac.Stack("tr", "task"), head=True, cls="BertForSequenceClassification")
    setup_case("average", "bert", two, ac.Average("tr", "task", weights=[1.0, 3.0]))
    setup_case("average_in_stack", "xlmr", {"tr": INVERTIBLE, "x": PFEIFFER, "y": PFEIFFER}, ac.Stack("tr", ac.Average("x", "y")))
    setup_case("fuse", "bert", {"x": PFEIFFER, "y": PFEIFFER}, ac.Fuse("x", "y"), fusion=[(["x", "y"], "dynamic")])
    setup_case("fuse_in_stack", "xlmr", {"tr": INVERTIBLE, "x": PFEIFFER, "y": PFEIFFER}, ac.Stack("tr", ac.Fuse("x", "y")), fusion=[(["x", "y"], "static")], container="safetensors")
    setup_case("split", "bert", {"x": HOULSBY, "y": HOULSBY}, ac.Split("x", "y", splits=[2, 5]), lengths=(7, 7))
    setup_case("single", "bert", {"x": LORA}, ac.Stack("x"))
    setup_case("refused_parallel", "bert", two, ac.Parallel("tr", "task"), error="Parallel")
    setup_case("refused_batch_split", "bert", two, ac.BatchSplit("tr", "task", batch_sizes=[1, 3]), error="BatchSplit")
    setup_case("beside_another", "bert", two, ac.Stack("tr", "task"), row_compose=["s", "base", "s"])


@family("files")
def files():
    case("files/config_missing", "bert", Spec(PFEIFFER, container="safetensors", edit=lambda f: (f / "adapter_config.json").unlink()), error="adapter_config.json")


@family("words")
def words():
    """Word embeddings of an adapter's own, beside it or alone: `save_embeddings`, `load_embeddings`."""
    def wo(name, specs, compose=None, base="bert", ids=12, **more):
        rows = hub_case.rows_for(f"words/{name}", base, (1, 3, 5, 9, 6, 4)[: len(more["row_compose"]) if more.get("row_compose") else 4])
        case(f"words/{name}", base, specs, compose, rows=[[i * 13 % ids for i in row] for row in rows], **more)

    mlm = dict(kind="masked_lm")
    wo("fewer", Spec(PFEIFFER, words=12))
    wo("as_many_xlmr", Spec(LORA, words=100, container="safetensors"), base="xlmr", ids=100)
    wo("more", Spec(INVERTIBLE, words=130, head=mlm), ids=130)
    wo("alone", Spec(None, words=25), ids=25)
    wo("albert", Spec(PFEIFFER, words=9), base="albert", ids=9)
    wo("beside_prompt", {"a": Spec(PromptTuningConfig(prompt_length=2), words=20), "b": PFEIFFER}, "stack(a, b)", ids=20)
    wo("by_row", {"w": Spec(None, words=20), "a": Spec(PFEIFFER, words=15), "b": LORA}, row_compose=["w", "base", "stack(w, b)", "a", "b", "stack(a, b)"], ids=15)
    case("words/refused_id", "bert", Spec(PFEIFFER, words=12), rows=[[1, 12]], error="the vocabulary has 12 entries")
    case("words/refused_two", "bert", {"a": Spec(None, words=12), "b": Spec(None, words=20)}, "stack(a, b)", rows=[[1, 2]], error="a and b both replace")
    case("words/refused_option", "bert", Spec(PFEIFFER, words=12, options={"tokenizer": "base"}), rows=[[1, 2]], error="has 12: leave the option out")
    case("words/refused_option_alone", "bert", Spec(PFEIFFER, options={"tokenizer": "base"}), rows=[[1, 2]], error="no words of its own")
    width = lambda f: torch.save(torch.ones(12, 5), f / "embedding.pt")
    case("words/refused_width", "bert", Spec(None, words=12, edit=width), rows=[[1, 2]], error="12 words of 5 numbers")
    table = lambda f: torch.save({"weight": torch.ones(12, 32)}, f / "embedding.pt")
    case("words/refused_dictionary", "bert", Spec(None, words=12, edit=table), rows=[[1, 2]], error="is not one tensor")


@family("refused")
def refused():
    def re_(name, error, specs=PFEIFFER, compose=None, base="bert", **more):
        case(f"refused/{name}", base, specs, compose, error=error, **more)

    def tensors(edit):
        def run(folder):
            file = folder / "adapter.safetensors"
            save_file({k: v.contiguous() for k, v in edit(load_file(file)).items()}, file)
        return run

    def safe(edit, config=PFEIFFER, **more):
        return Spec(config, container="safetensors", edit=edit, **more)

    last = lambda t: max(t)
    re_("tensor_missing", "adapter_up.weight", safe(tensors(lambda t: {k: v for k, v in t.items() if k != last(t)})))
    re_("tensor_too_many", "adapter_sideways", safe(tensors(lambda t: {**t, last(t).replace("adapter_up", "adapter_sideways"): torch.ones(3)})))
    re_("tensor_of_other_layer", "ADAPTER_KEYS", safe(tensors(lambda t: {k.replace("layer.1", "layer.5"): v for k, v in t.items()})))
    re_("tensor_shape", "ADAPTER_SHAPE", safe(tensors(lambda t: {**t, last(t): torch.ones(32, 9)})))
    re_("tensor_not_finite", "NOT_FINITE", safe(tensors(lambda t: {**t, last(t): t[last(t)] * float("nan")})))
    re_("name_not_in_file", "ADAPTER_KEYS", safe(top_edit(name="another")))
    re_("key_unknown", "quux_mode", safe(config_edit(quux_mode="on")))
    re_("activation_unknown", "mish9", safe(config_edit(non_linearity="mish9")))
    re_("scale_unknown", "scaling", safe(config_edit(scaling="sideways")))
    re_("architecture_unknown", "quantum", safe(config_edit(architecture="quantum")))
    re_("config_name_unknown", "pfeifer", safe(string("pfeifer")))
    re_("reduction_no_default", "reduction_factor", safe(config_edit(reduction_factor={"0": 8})))
    re_("residual_alone", "post_add", safe(config_edit(original_ln_before=False, residual_before_ln="post_add")))
    re_("weights_missing", "FILE_MISSING", safe(lambda f: (f / "adapter.safetensors").unlink()))
    # What has no meaning, in the library either.
    pair = {"x": PFEIFFER, "y": PFEIFFER}
    re_("fuse_not_loaded", "COMPOSE_INVALID", pair, "fuse(x, y)")
    re_("fuse_other_members", "COMPOSE_INVALID", {**pair, "z": PFEIFFER}, "fuse(x, z)", fusion=[(["x", "y"], "dynamic")])
    re_("fuse_of_lora", "COMPOSE_INVALID", {"x": LORA, "y": LORA}, "fuse(x, y)")
    re_("split_of_lora", "COMPOSE_INVALID", {"x": LORA, "y": LORA}, "split(x:1, y:*)")
    re_("average_of_prefixes", "COMPOSE_INVALID", {k: PrefixTuningConfig(flat=True, prefix_length=2) for k in "xy"}, "average(x, y)")
    re_("split_at_unequal_sites", "COMPOSE_INVALID", {"x": HOULSBY, "y": PFEIFFER}, "split(x:1, y:*)")
    re_("average_in_average", "COMPOSE_INVALID", {**pair, "z": PFEIFFER}, "average(x, average(y, z))")
    re_("split_too_long", "COMPOSE_INVALID", pair, "split(x:9, y:*)", lengths=(5,))
    # The library looks for positions before the first.
    re_("suffix_beside_prompt", "2 tokens, and a intervenes in its last 3 beside 2 virtual tokens",
        ConfigUnion(PromptTuningConfig(prompt_length=2), NoReftConfig(r=2, suffix_positions=3)), lengths=(2,))
    re_("split_in_fuse", "a split cannot stand in fuse", {**pair, "z": PFEIFFER}, "fuse(split(x:1, y:*), z)", fusion=[(["x", "z"], "dynamic")])
    re_("option_for_another", "direft", Spec(PFEIFFER, options={"reft": "direft"}))
