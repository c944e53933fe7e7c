"""The fixtures of AdapterHub's methods on bases other than BERT and RoBERTa. See hub_families.py.

The library has no CamemBERT and no MPNet: they need an interface of the user's, which no adapter's folder records.
"""

from adapters import (AdapterPlusConfig, BnConfig, CompacterConfig, DoubleSeqBnConfig, IA3Config, LoRAConfig, LoReftConfig, ParBnConfig,
                      PrefixTuningConfig, PromptTuningConfig, SeqBnConfig, SeqBnInvConfig, UniPELTConfig)
from hub import Spec
from hub_case import case, family

PFEIFFER = SeqBnConfig(reduction_factor=4)
HOULSBY = DoubleSeqBnConfig(reduction_factor=4)
INVERTIBLE = SeqBnInvConfig(reduction_factor=4)
EVERYWHERE = LoRAConfig(r=2, alpha=6, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True)
PREFIX = PrefixTuningConfig(prefix_length=3, bottleneck_size=8)
BASES = ("distilbert", "albert", "electra", "deberta_v2", "vit", "modernbert")


def common(base, cls=None, skip=(), prompts="eager", **every):
    """What every base is tried with; `skip` names what the library cannot do there."""
    def on(name, config, **more):
        if name not in skip:
            case(f"{base}/{name}", base, config, cls=cls, **more | every)

    on("pfeiffer", PFEIFFER)
    on("houlsby", HOULSBY)
    on("parallel", ParBnConfig(reduction_factor=4, mh_adapter=True))
    on("plus", AdapterPlusConfig(reduction_factor=4, stochastic_depth=0.0, mh_adapter=True))
    on("post_add", BnConfig(mh_adapter=True, output_adapter=True, reduction_factor=4, non_linearity="tanh", original_ln_before=True, residual_before_ln="post_add", ln_after=True))
    on("residual_after_ln", BnConfig(mh_adapter=True, output_adapter=True, reduction_factor=4, non_linearity="tanh", original_ln_before=True, residual_before_ln=False))
    on("compacter", CompacterConfig(reduction_factor=4))
    on("invertible", INVERTIBLE)
    on("lora", EVERYWHERE)
    on("lora_gated", LoRAConfig(r=3, alpha=3, use_gating=True))
    on("ia3", IA3Config(attn_matrices=["k", "v"], output_lora=True))
    on("prefix", PREFIX)
    on("prefix_flat_gated", PrefixTuningConfig(prefix_length=2, flat=True, use_gating=True))
    on("prompt", PromptTuningConfig(prompt_length=3), attention=prompts)
    on("prompt_after_first", PromptTuningConfig(prompt_length=2, combine="prefix_after_bos"), attention=prompts)
    on("loreft", LoReftConfig(r=2, suffix_positions=1), lengths=(4, 5, 17))
    on("unipelt", UniPELTConfig(PREFIX, PFEIFFER, LoRAConfig(r=2, alpha=2)))
    on("stack", {"a": PFEIFFER if "invertible" in skip else INVERTIBLE, "b": HOULSBY}, compose="stack(a, b)")
    on("fusion", {"a": HOULSBY, "b": HOULSBY}, compose="fuse(a, b)", fusion=[(["a", "b"], "dynamic")], inert=(r"\.key\.bias",))
    on("average", {"a": HOULSBY, "b": PFEIFFER}, compose="average(a:0.3, b:0.7)")
    on("mixed", {"a": HOULSBY, "b": EVERYWHERE, "c": PREFIX}, row_compose=["a", "b", "c", "base", "stack(c, b, a)"])
    on("leave_out", DoubleSeqBnConfig(reduction_factor=4, leave_out=[0]))


def text_heads(base, prefix):
    def he(name, config=PFEIFFER, **head):
        case(f"{base}/head_{name}", base, Spec(config, head=head))

    he("classification", kind="classification", num_labels=3)
    he("tagging", kind="tagging", num_labels=4)
    he("question_answering", kind="qa")
    he("masked_lm", config=INVERTIBLE, kind="masked_lm")
    for kind in ("SequenceClassification", "TokenClassification", "QuestionAnswering"):
        case(f"{base}/static_{kind.lower()}", base, Spec(PFEIFFER, head={"static": True}), cls=f"{prefix}For{kind}")


@family("distilbert")
def distilbert():
    common("distilbert", prompts="sdpa")  # The library's eager attention fails with a prompt.
    text_heads("distilbert", "DistilBert")


@family("albert")
def albert():
    common("albert", skip=("leave_out",))  # One layer for all: leaving it out leaves nothing.
    text_heads("albert", "Albert")
    # Five layers out of four: an adapter belongs to a layer that is there, and its number counts those.
    groups = lambda name, config, **more: case(f"albert/groups_{name}", "albert_groups", config, **more)
    groups("houlsby", HOULSBY)
    # One fusion for several layers is cooler each time that it runs.
    warm = dict(key=True, query=True, value=True, query_before_ln=False, regularization=False, residual_before=False, temperature=True,
                value_before_softmax=True, value_initialized=True, dropout_prob=None)
    groups("fusion_temperature", {"a": HOULSBY, "b": HOULSBY}, compose="fuse(a, b)", fusion=[(["a", "b"], warm)], inert=(r"\.key\.bias",))
    groups("leave_out", DoubleSeqBnConfig(reduction_factor=4, leave_out=[1]))
    groups("reduction_by_layer", SeqBnConfig(reduction_factor={"2": 2, "default": 8}))
    groups("lora", EVERYWHERE)
    groups("prefix", PREFIX)
    groups("prefix_leave_out", PrefixTuningConfig(prefix_length=2, flat=True, leave_out=[0, 3]))
    groups("reft_layers", LoReftConfig(r=2, layers=[1, 2], suffix_positions=1), lengths=(4, 5, 17))


@family("electra")
def electra():
    common("electra")
    text_heads("electra", "Electra")


@family("deberta_v2")
def deberta_v2():
    common("deberta_v2")
    text_heads("deberta_v2", "DebertaV2")
    # The library takes all hidden states for the pooled ones.
    case("deberta_v2/head_classification_pooled", "deberta_v2", Spec(PFEIFFER, head=dict(kind="classification", num_labels=3, use_pooler=True)))


@family("vit")
def vit():
    # No norm stands at the two places, so `post_add` has nothing to take.
    case("vit/refused_post_add", "vit", BnConfig(mh_adapter=True, output_adapter=True, reduction_factor=4, non_linearity="tanh", original_ln_before=True, residual_before_ln="post_add"), error="residual_before_ln")
    # Behind another, whose rules hold, it needs none.
    behind = BnConfig(mh_adapter=True, output_adapter=True, reduction_factor=4, non_linearity="tanh", original_ln_before=True, residual_before_ln="post_add")
    case("vit/post_add_behind", "vit", {"a": HOULSBY, "b": behind}, compose="average(a, b)", lengths=(1, 1))
    common("vit", skip=("post_add", "invertible", "prompt_after_first"), lengths=(1, 1))
    case("vit/prompt_after_class", "vit", PromptTuningConfig(prompt_length=2, combine="prefix_after_bos"), lengths=(1, 1))
    case("vit/head_image", "vit", Spec(PFEIFFER, head=dict(kind="image_classification", num_labels=3)), lengths=(1, 1))
    case("vit/head_image_pooler", "vit", Spec(HOULSBY, head=dict(kind="image_classification", num_labels=4, use_pooler=True, layers=1)), lengths=(1, 1))
    case("vit/static_image", "vit", Spec(EVERYWHERE, head={"static": True}), cls="ViTForImageClassification", lengths=(1, 1))


@family("modernbert")
def modernbert():
    # Through the library's interface: no norm after the sub-blocks, and none of prefixes, prompts and stacks over the
    # joint projection. What `original_ln_before` runs is the last layer's norm, in every layer.
    skip = ("plus", "post_add", "prefix", "prefix_flat_gated", "prompt", "prompt_after_first", "unipelt", "mixed", "compacter")
    common("modernbert", cls="ModernBertModel", skip=skip)
    case("modernbert/mixed", "modernbert", {"a": HOULSBY, "b": EVERYWHERE}, cls="ModernBertModel", row_compose=["a", "b", "base", "a"])
    for kind in ("SequenceClassification", "TokenClassification", "MaskedLM"):
        case(f"modernbert/static_{kind.lower()}", "modernbert", Spec(PFEIFFER, head={"static": True}), cls=f"ModernBertFor{kind}")
