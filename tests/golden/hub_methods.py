"""The fixtures of single methods: one family a function. See hub_families.py."""

from adapters import (AdapterPlusConfig, BnConfig, DoubleSeqBnConfig, DoubleSeqBnInvConfig, ParBnConfig, SeqBnConfig, SeqBnInvConfig)
from hub import Spec
from hub_case import case, config_edit, family, top_edit

ACTIVATIONS = ("relu", "gelu", "gelu_new", "swish", "leakyrelu", "tanh", "sigmoid", "silu", "GELU")
RARE = ("relu6", "relu2", "quick_gelu", "gelu_fast", "gelu_10", "gelu_accurate", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh",
        "mish", "laplace", "linear", "leaky_relu")


@family("bottleneck")
def bottleneck():
    def bn(name, config, base="bert", **more):
        case(f"bottleneck/{name}", base, config, **more)

    both = dict(mh_adapter=True, output_adapter=True, reduction_factor=4, non_linearity="relu")
    # The presets.
    bn("pfeiffer", SeqBnConfig(reduction_factor=4), types=True)
    bn("houlsby", DoubleSeqBnConfig(reduction_factor=4))
    bn("parallel", ParBnConfig(reduction_factor=4))
    bn("scaled_parallel", ParBnConfig(reduction_factor=4, scaling="learned"))
    bn("adapterplus", AdapterPlusConfig(reduction_factor=4, stochastic_depth=0.0))
    bn("adapterplus_default_depth", Spec(AdapterPlusConfig(reduction_factor=8, stochastic_depth=0.0), late=config_edit(stochastic_depth=0.1)))
    bn("roberta_pfeiffer", SeqBnConfig(reduction_factor=4), base="roberta")
    bn("xlmr_houlsby", Spec(DoubleSeqBnConfig(reduction_factor=4), container="safetensors"), base="xlmr")
    # Where the pretrained norm runs, and what is added when.
    for before in (False, True):
        for after in (False, True):
            for residual in (False, True, "post_add"):
                if residual == "post_add" and not before:
                    continue  # Upstream has no residual then, and raises.
                bn(f"original_ln_{before}_{after}_{residual}".lower(), BnConfig(original_ln_before=before, original_ln_after=after, residual_before_ln=residual, **both))
    for inner in (False, True):
        bn(f"ln_after_residual_{inner}".lower(), BnConfig(ln_after=True, adapter_residual_before_ln=inner, **both))
    bn("residual_inner_alone", SeqBnConfig(reduction_factor=4, adapter_residual_before_ln=True))
    bn("ln_before", BnConfig(ln_before=True, **both))
    bn("ln_before_after", BnConfig(ln_before=True, ln_after=True, original_ln_before=True, adapter_residual_before_ln=True, **both))
    bn("residual_null", Spec(BnConfig(original_ln_before=True, residual_before_ln=None, **both)))
    bn("parallel_both_sites", ParBnConfig(mh_adapter=True, reduction_factor=4, scaling=1.5))
    bn("parallel_ln_after", ParBnConfig(ln_after=True, reduction_factor=4))
    bn("parallel_ln_before_gated", ParBnConfig(ln_before=True, use_gating=True, reduction_factor=4, scaling="channel"))
    bn("parallel_ignores_flags", ParBnConfig(original_ln_before=True, residual_before_ln=False, adapter_residual_before_ln=True, reduction_factor=4))
    bn("parallel_no_ln_after", ParBnConfig(original_ln_after=False, reduction_factor=4))
    # Scaling and gates.
    bn("scaling_number", SeqBnConfig(reduction_factor=4, scaling=0.35))
    bn("scaling_integer", Spec(SeqBnConfig(reduction_factor=4, scaling=2.0), late=config_edit(scaling=2)))
    bn("scaling_learned", DoubleSeqBnConfig(reduction_factor=4, scaling="learned"))
    bn("scaling_channel", Spec(SeqBnConfig(reduction_factor=4, scaling="channel"), container="safetensors"))
    bn("gating", SeqBnConfig(reduction_factor=4, use_gating=True))
    bn("gating_ln_after_channel", DoubleSeqBnConfig(reduction_factor=4, use_gating=True, ln_after=True, scaling="channel"), base="xlmr")
    # Sizes and places.
    bn("reduction_by_layer", SeqBnConfig(reduction_factor={"0": 2, "default": 16}))
    bn("reduction_by_each_layer", DoubleSeqBnConfig(reduction_factor={"0": 8, "1": 3}), base="bert")
    bn("reduction_fraction", SeqBnConfig(reduction_factor=0.5))
    bn("reduction_uneven", SeqBnConfig(reduction_factor=4.6))
    bn("reduction_past_width", DoubleSeqBnConfig(reduction_factor=64))
    bn("leave_out", DoubleSeqBnConfig(reduction_factor=4, leave_out=[0]))
    bn("leave_out_two_of_three", SeqBnConfig(reduction_factor=4, leave_out=[0, 2]), base="bert_three_layers")
    bn("attention_site_only", BnConfig(mh_adapter=True, output_adapter=False, reduction_factor=4, non_linearity="gelu"))
    bn("odd_widths", SeqBnConfig(reduction_factor=5), base="bert_odd", types=True)
    bn("training_options", BnConfig(dropout=0.3, init_weights="mam_adapter", init_weights_seed=7, cross_adapter=True, **both))
    for name, some in (("activations", ACTIVATIONS), ("activations_rare", RARE)):
        specs = {a: Spec(SeqBnConfig(reduction_factor=8, non_linearity=a), container="safetensors") for a in some}
        bn(name, specs, row_compose=list(some), lengths=(9, 7))
    bn("activation_prelu", SeqBnConfig(reduction_factor=8, non_linearity="prelu"))
    bn("base_between", SeqBnConfig(reduction_factor=4), row_compose=["a", "base", "base", "a"], lengths=(5, 5, 9))


@family("invertible")
def invertible():
    def inv(name, config, base="bert", **more):
        case(f"invertible/{name}", base, config, **more)

    inv("nice", SeqBnInvConfig(reduction_factor=4))
    inv("nice_off", Spec(SeqBnInvConfig(reduction_factor=4), options={"invertible": False}), same=True)
    inv("nice_on", Spec(SeqBnInvConfig(reduction_factor=4), options={"invertible": True}))
    inv("nice_houlsby_xlmr", Spec(DoubleSeqBnInvConfig(reduction_factor=4, inv_adapter_reduction_factor=4), container="safetensors"), base="xlmr")
    inv("nice_odd_width", SeqBnInvConfig(reduction_factor=4, inv_adapter_reduction_factor=3, non_linearity="tanh"), base="bert_odd")
    inv("nice_parallel", ParBnConfig(reduction_factor=4, inv_adapter="nice", inv_adapter_reduction_factor=2))
    inv("refused_coupling", SeqBnInvConfig(reduction_factor=4, inv_adapter="glow"), error="glow")


@family("compacter")
def compacter():
    from adapters import CompacterConfig, CompacterPlusPlusConfig

    def phm(name, config=CompacterPlusPlusConfig, base="bert", inert=(), **values):
        case(f"compacter/{name}", base, config(**{"reduction_factor": 4, **values}), inert=inert)

    phm("plusplus")
    phm("both_sites", CompacterConfig)
    phm("plusplus_xlmr", base="xlmr")
    phm("factorised_rule", CompacterConfig, factorized_phm_rule=True)
    phm("own_rule", shared_phm_rule=False)
    phm("own_factorised_rule", CompacterConfig, shared_phm_rule=False, factorized_phm_rule=True)
    phm("whole_weights", factorized_phm_W=False)
    phm("whole_weights_own_rule", CompacterConfig, factorized_phm_W=False, shared_phm_rule=False)
    phm("shared_weights", CompacterConfig, shared_W_phm=True)
    phm("shared_weights_own_rule", shared_W_phm=True, shared_phm_rule=False)
    phm("shared_weights_factorised_rule", shared_W_phm=True, factorized_phm_rule=True)
    phm("rank_three", phm_rank=3)
    phm("dimension_two", phm_dim=2)
    phm("dimension_eight", phm_dim=8)
    phm("no_bias", CompacterConfig, phm_bias=False)
    phm("fixed_rule", learn_phm=False, hypercomplex_nonlinearity="normal", phm_c_init="uniform")
    phm("gating_learned_scale", use_gating=True, scaling="learned")
    phm("nice", inv_adapter="nice", inv_adapter_reduction_factor=2)
    phm("three_layers", CompacterConfig, base="bert_three_layers", leave_out=[1])
    phm("parallel", is_parallel=True, original_ln_before=False)


@family("lora")
def lora():
    from adapters import LoRAConfig

    everywhere = dict(attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True)

    def add_case(name, base="bert", edit=None, container="bin", **values):
        case(f"lora/{name}", base, Spec(LoRAConfig(**{"r": 4, "alpha": 8, **values}), edit=edit, container=container), same=not edit)

    add_case("qv", alpha=4)
    add_case("alpha_is_not_r")
    add_case("alpha_smaller", r=6, alpha=1)
    add_case("everywhere", **everywhere)
    add_case("everywhere_xlmr", base="xlmr", container="safetensors", **everywhere)
    add_case("key_only", attn_matrices=["k"])
    add_case("feed_forward_only", selfattn_lora=False, intermediate_lora=True, output_lora=True)
    add_case("gating", use_gating=True, **everywhere)
    add_case("leave_out", leave_out=[1])
    add_case("dropout_and_init", dropout=0.2, init_weights="bert", init_weights_seed=3)
    add_case("dtype_named", dtype="float32")
    add_case("roberta", base="roberta", r=1, alpha=16)
    add_case("odd", base="bert_odd", r=5, alpha=3, **everywhere)
    # Releases of `adapters` before 1.1.0 trained without the scale, and the loader takes it out again.
    add_case("version_1_0_1", edit=top_edit(version="adapters.1.0.1"))
    add_case("version_1_1_0", edit=top_edit(version="adapters.1.1.0"))
    add_case("version_adapter_transformers", edit=top_edit(version="3.2.1"))
    add_case("version_absent", edit=top_edit(version=...))
    add_case("old_config_keys", edit=old_lora)


def old_lora(folder):
    """adapter-transformers 3.1: fewer keys."""
    from hub_case import edit_config

    def edit(config):
        for key in ("use_dora", "vera_d", "vera_b", "dtype", "init_weights_seed"):
            del config["config"][key]
        config["version"] = "3.1.0"
    edit_config(folder, edit)


@family("ia3")
def ia3():
    from adapters import IA3Config

    def add_case(name, base="bert", **values):
        case(f"ia3/{name}", base, Spec(IA3Config(**values), container="safetensors"))

    add_case("default")
    add_case("xlmr", base="xlmr")
    add_case("alpha", alpha=2)
    add_case("all_sites", attn_matrices=["q", "k", "v"], output_lora=True)
    add_case("gating", use_gating=True)
    add_case("attention_only", intermediate_lora=False, leave_out=[0])


@family("vera")
def vera():
    from adapters import VeraConfig

    def add_case(name, base="bert", container="bin", **values):
        case(f"vera/{name}", base, Spec(VeraConfig(**{"r": 4, "alpha": 8, **values}), container=container))

    add_case("qv")
    add_case("qkv_xlmr", base="xlmr", container="safetensors", attn_matrices=["q", "k", "v"])
    add_case("gating", use_gating=True)
    add_case("leave_out", leave_out=[0], r=3)


@family("dora")
def dora():
    from adapters import DoRAConfig, DvoRAConfig

    def add_case(name, config, base="bert", container="bin"):
        case(f"dora/{name}", base, Spec(config, container=container))

    add_case("dora", DoRAConfig(r=4, alpha=8))
    add_case("dora_everywhere", DoRAConfig(r=3, alpha=6, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True))
    add_case("dora_xlmr", DoRAConfig(r=4, alpha=4), base="xlmr", container="safetensors")
    add_case("dora_gating", DoRAConfig(r=4, alpha=8, use_gating=True))
    add_case("dvora", DvoRAConfig(r=4, alpha=8))
    add_case("dvora_gating", DvoRAConfig(r=4, alpha=2, attn_matrices=["q", "k", "v"], use_gating=True))


@family("mtl_lora")
def mtl_lora():
    from adapters import MTLLoRAConfig

    def add_case(name, base="bert", **more):
        values = {k: v for k, v in more.items() if k not in ("inert", "edit", "error")}
        case(f"mtl_lora/{name}", base, Spec(MTLLoRAConfig(**{"r": 4, "alpha": 8, **values}), edit=more.get("edit")),
             inert=more.get("inert", ()), error=more.get("error"))

    # With one up-projection its weight is divided by itself.
    add_case("one_up", inert=(r"\.weights$",))
    add_case("three_up", n_up_projection=3)
    add_case("sharpness", n_up_projection=2, weights_sharpness=0.2, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True)
    add_case("xlmr", base="xlmr", n_up_projection=2)
    add_case("gating", n_up_projection=2, use_gating=True)
    # Upstream cannot build it: `TaskSpecificLinear` never calls its base class.
    add_case("refused_full_matrix", edit=config_edit(task_specific_matrix_type="linear"), error="task_specific_matrix_type")
    case("mtl_lora/shared", "bert", {k: MTLLoRAConfig(r=4, alpha=8, n_up_projection=2) for k in "ab"}, row_compose=["a", "b", "base", "a"],
         before=lambda model, names: model.share_parameters(adapter_names=names, name="both"), same=False)


@family("prefix")
def prefix():
    from adapters import PrefixTuningConfig

    def add_case(name, base="bert", lengths=(1, 2, 5, 17), **values):
        case(f"prefix/{name}", base, PrefixTuningConfig(**{"prefix_length": 3, "bottleneck_size": 8, **values}), lengths=lengths)

    add_case("mlp")
    add_case("flat", flat=True)
    add_case("mlp_relu", non_linearity="relu", prefix_length=1)
    add_case("mlp_xlmr", base="xlmr", prefix_length=5)
    add_case("flat_roberta", base="roberta", flat=True)
    add_case("gating_shared", use_gating=True)
    add_case("gating_two", use_gating=True, shared_gating=False, flat=True)
    add_case("leave_out", base="bert_three_layers", leave_out=[1])
    add_case("flat_leave_out_gating", base="bert_three_layers", leave_out=[0], flat=True, use_gating=True)
    add_case("longer_than_rows", flat=True, prefix_length=30, lengths=(1, 4))
    add_case("longest_row", base="xlmr", prefix_length=10, lengths=(38, 1))
    # `eject_prefix_tuning` leaves `flat: false` in the configuration: the library finds none of its tensors again.
    case("prefix/refused_ejected", "bert", PrefixTuningConfig(prefix_length=3, bottleneck_size=8), error="ADAPTER_KEYS",
         before=lambda model, names: model.eject_prefix_tuning(names[0]))


@family("prompt")
def prompt():
    from adapters import PromptTuningConfig

    def add_case(name, base="bert", head=None, **values):
        case(f"prompt/{name}", base, Spec(PromptTuningConfig(**{"prompt_length": 4, **values}), container="safetensors", head=head), inert=values.pop("inert", ()))

    add_case("prefix")
    add_case("after_first", combine="prefix_after_bos")
    add_case("xlmr", base="xlmr", prompt_length=1)
    add_case("after_first_xlmr", base="xlmr", combine="prefix_after_bos")
    # Positions are the tokens': a prompt in front of the longest row is not too long.
    case("prompt/longest_row", "bert", PromptTuningConfig(prompt_length=6), lengths=(40, 1))
    # The head reads position 0: the first vector of the prompt, or the first token where that stays in front.
    classify = dict(kind="classification", num_labels=3)
    add_case("classification", head=classify)
    add_case("classification_pooler", head=dict(classify, use_pooler=True, layers=1))
    add_case("classification_after_first", head=classify, combine="prefix_after_bos")
    add_case("tagging", head=dict(kind="tagging", num_labels=4), base="xlmr")
    add_case("question_answering", head=dict(kind="qa"))


def decay(model, name):
    """What weight decay does to the signs on the diagonal: the library truncates them to 0, and the direction is gone."""
    for key, p in model.named_parameters():
        if f".refts.{name}." in key and key.endswith("original"):
            p.data[1, 1] *= 0.9


@family("reft")
def reft():
    from adapters import DiReftConfig, LoReftConfig, NoReftConfig

    unused = (r"units\.1\.",)  # Stored, though there are no positions for it.

    def add_case(name, config, base="bert", inert=(), lengths=(1, 2, 5, 17), container="bin", options=None, same=True, tweak=None):
        case(f"reft/{name}", base, Spec(config, container=container, options=options or {}, tweak=tweak), inert=inert, lengths=lengths, same=same)

    add_case("loreft", LoReftConfig(r=2), inert=unused)
    add_case("loreft_suffix", LoReftConfig(r=2, prefix_positions=2, suffix_positions=2), lengths=(4, 5, 17))
    add_case("loreft_tied", LoReftConfig(r=3, prefix_positions=2, suffix_positions=1, tied_weights=True), container="safetensors")
    add_case("loreft_decayed", LoReftConfig(r=3, prefix_positions=4), inert=unused, tweak=decay)
    add_case("loreft_square", LoReftConfig(r=32, layers=[1]), inert=unused)
    add_case("noreft", NoReftConfig(r=4), inert=unused)
    add_case("noreft_suffix_only", NoReftConfig(r=2, prefix_positions=0, suffix_positions=3), inert=(r"units\.0\.",))
    add_case("noreft_layers", NoReftConfig(r=2, layers=[1], suffix_positions=1), base="bert_three_layers")
    add_case("noreft_relu_xlmr", NoReftConfig(r=4, suffix_positions=2, non_linearity="relu"), base="xlmr", container="safetensors")
    # Rows with fewer tokens than positions: prefix and suffix overlap and the suffix wins; with fewer tokens than
    # suffix positions the library puts results of the prefix where the suffix belongs.
    add_case("short_rows", NoReftConfig(r=2, prefix_positions=2, suffix_positions=3), lengths=(1, 2, 3, 4, 5))
    add_case("short_rows_tied", LoReftConfig(r=2, prefix_positions=4, suffix_positions=4, tied_weights=True), lengths=(1, 2, 3, 6, 9))
    # DiReFT's file is NoReFT's, and the library loads it as that; an option says what it was.
    add_case("direft_as_loaded", DiReftConfig(r=4, suffix_positions=1), same=False)
    add_case("direft", DiReftConfig(r=4, suffix_positions=1), options={"reft": "direft"})
    add_case("direft_tied_xlmr", DiReftConfig(r=2, tied_weights=True, suffix_positions=2), base="xlmr", options={"reft": "direft"}, container="safetensors")


@family("union")
def union():
    from adapters import (ConfigUnion, IA3Config, LoRAConfig, LoReftConfig, MAMConfig, NoReftConfig, PrefixTuningConfig, PromptTuningConfig, UniPELTConfig)

    def add_case(name, config, base="bert", **more):
        case(f"union/{name}", base, config, **more)

    short = PrefixTuningConfig(prefix_length=3, bottleneck_size=8)
    add_case("mam", MAMConfig(short, ParBnConfig(reduction_factor=4)))
    add_case("mam_xlmr", MAMConfig(short, ParBnConfig(reduction_factor=4, scaling="learned")), base="xlmr")
    # With a gate the scale alpha/r is dropped.
    add_case("unipelt", UniPELTConfig(short, SeqBnConfig(reduction_factor=4), LoRAConfig(r=4, alpha=2)))
    add_case("unipelt_xlmr", UniPELTConfig(short.replace(flat=True), DoubleSeqBnConfig(reduction_factor=4), LoRAConfig(r=2, alpha=2)), base="xlmr")
    add_case("two_bottlenecks", ConfigUnion(
        BnConfig(mh_adapter=True, output_adapter=False, reduction_factor=4, non_linearity="tanh", original_ln_before=True),
        ParBnConfig(reduction_factor=4)))
    add_case("bottlenecks_by_layer", ConfigUnion(SeqBnConfig(reduction_factor=4, leave_out=[1]), DoubleSeqBnConfig(reduction_factor=8, leave_out=[0])))
    add_case("lora_and_bottleneck", Spec(ConfigUnion(LoRAConfig(r=2, alpha=4), SeqBnInvConfig(reduction_factor=4)), container="safetensors"))
    add_case("reft_and_ia3", ConfigUnion(NoReftConfig(r=2, suffix_positions=1), IA3Config()))
    add_case("lora_in_old_union", Spec(ConfigUnion(LoRAConfig(r=2, alpha=8), SeqBnConfig(reduction_factor=8)), edit=top_edit(version="adapters.1.0.1")))
    add_case("prompt_and_lora", ConfigUnion(PromptTuningConfig(prompt_length=3), LoRAConfig(r=4, alpha=8)))
    add_case("prompt_and_prefix", ConfigUnion(PromptTuningConfig(prompt_length=2, combine="prefix_after_bos"), short))
    # ReFT counts its positions in the mask of the call, so the prompt in front moves what they are.
    add_case("prompt_and_reft", ConfigUnion(PromptTuningConfig(prompt_length=2), LoReftConfig(r=2, suffix_positions=2)), lengths=(4, 5, 9))
    # A row shorter than its prefix: the virtual tokens at the end are among the first positions as well.
    add_case("prompt_and_reft_short", ConfigUnion(PromptTuningConfig(prompt_length=3), NoReftConfig(r=2, prefix_positions=6, suffix_positions=2)), lengths=(2, 3, 4, 9))
    add_case("prompt_after_first_and_reft_short", ConfigUnion(PromptTuningConfig(prompt_length=4, combine="prefix_after_bos"), LoReftConfig(r=2, prefix_positions=9, suffix_positions=1)),
             base="xlmr", lengths=(1, 3, 6))
    add_case("all_sorts", ConfigUnion(short, DoubleSeqBnConfig(reduction_factor=8), LoRAConfig(r=2, alpha=4, intermediate_lora=True), NoReftConfig(r=1, suffix_positions=1)), base="bert")
