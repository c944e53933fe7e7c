"""The fixtures of compositions. See hub_families.py."""

from adapters import (AdapterPlusConfig, BnConfig, CompacterConfig, DoRAConfig, DoubleSeqBnConfig, IA3Config, LoRAConfig, MTLLoRAConfig, NoReftConfig, ParBnConfig, PrefixTuningConfig, PromptTuningConfig, SeqBnConfig, SeqBnInvConfig, VeraConfig)
from adapters.composition import Fuse
from hub import Spec
from hub_case import Fusion, case, edit_json, family, put

PFEIFFER = SeqBnConfig(reduction_factor=4)
HOULSBY = DoubleSeqBnConfig(reduction_factor=4)
PARALLEL = ParBnConfig(reduction_factor=4)
INVERTIBLE = SeqBnInvConfig(reduction_factor=4)
PLUS = AdapterPlusConfig(reduction_factor=4, stochastic_depth=0.0)
LORA = LoRAConfig(r=4, alpha=8)
PREFIX = PrefixTuningConfig(prefix_length=3, bottleneck_size=8)
FLAT = PrefixTuningConfig(prefix_length=2, flat=True)
PROMPT = PromptTuningConfig(prompt_length=3)
CLASSIFY = dict(kind="classification", num_labels=3)


def composed(family, name, specs, compose=None, base="bert", **more):
    case(f"{family}/{name}", base, specs, compose, **more)


@family("stack")
def stack():
    def st(name, *configs, order=None, base="bert", **more):
        specs = dict(zip("abcd", configs))
        composed("stack", name, specs, f"stack({', '.join(order or specs)})", base, **more)

    st("pfeiffer_pfeiffer", PFEIFFER, PFEIFFER)
    st("houlsby_houlsby", HOULSBY, HOULSBY)
    st("three", PFEIFFER, PFEIFFER, PFEIFFER, base="xlmr")
    # Each parallel adapter starts from the layer's input again: the last one is all there is.
    st("parallel_parallel", PARALLEL, PARALLEL, inert=(r"adapters\.a_task\.",))
    st("pfeiffer_houlsby", PFEIFFER, HOULSBY)
    st("houlsby_pfeiffer", HOULSBY, PFEIFFER)
    st("pfeiffer_plus", PFEIFFER, PLUS)
    st("plus_pfeiffer", PLUS, PFEIFFER, base="xlmr")
    st("houlsby_parallel", HOULSBY, PARALLEL, inert=(r"layer\.\d\.output\.adapters\.a_task\.",))
    st("parallel_houlsby", PARALLEL, HOULSBY)
    st("post_add_gated", SeqBnConfig(reduction_factor=4, residual_before_ln="post_add"), SeqBnConfig(reduction_factor=4, use_gating=True, ln_after=True))
    st("language_task", INVERTIBLE, Spec(PFEIFFER, head=CLASSIFY), types=True)
    st("language_task_xlmr", INVERTIBLE, Spec(PFEIFFER, head=CLASSIFY), base="xlmr")
    st("language_off_task", Spec(INVERTIBLE, options={"invertible": False}), PFEIFFER, base="xlmr")
    # Only the first leaf's invertible block, prompt or ReFT runs.
    st("task_language", PFEIFFER, INVERTIBLE, inert=(r"invertible_adapters\.b_task",))
    st("two_languages", INVERTIBLE, INVERTIBLE, inert=(r"invertible_adapters\.b_task",))
    st("prompt_second", PFEIFFER, PROMPT, inert=(r"prompt_tunings",))
    st("reft_second", PFEIFFER, NoReftConfig(r=2, suffix_positions=1), inert=(r"refts",))
    st("prompt_first", PROMPT, PFEIFFER)
    st("reft_first", NoReftConfig(r=2, suffix_positions=1), HOULSBY)
    st("head_in_front", Spec(PFEIFFER, head=CLASSIFY), HOULSBY)
    st("two_heads", Spec(PFEIFFER, head=CLASSIFY), Spec(HOULSBY, head=dict(kind="tagging", num_labels=4)), inert=(r"heads\.a_task",))
    st("lora_lora", LORA, LoRAConfig(r=2, alpha=6))
    st("lora_lora_feed_forward", *[LoRAConfig(r=2, alpha=4, attn_matrices=["q", "k", "v"])] * 2, base="xlmr")
    st("lora_lora_some_sites", LORA, LoRAConfig(r=3, alpha=3, attn_matrices=["k", "v"]))
    st("lora_lora_gated", LoRAConfig(r=2, alpha=4, use_gating=True), LORA)
    # Every gate of a chain reads the layer's input, and multiplies what comes out at its end.
    gated = LoRAConfig(r=2, alpha=4, use_gating=True)
    st("lora_lora_both_gated", gated, gated)
    st("three_loras_gated", gated, LoRAConfig(r=3, alpha=9), LoRAConfig(r=4, alpha=8, use_gating=True), gated, base="xlmr")
    st("lora_dora_gated", gated, DoRAConfig(r=4, alpha=8, use_gating=True))
    st("ia3_ia3_gated", *[IA3Config(use_gating=True, alpha=2)] * 2)
    st("three_ia3_gated", IA3Config(use_gating=True), IA3Config(), IA3Config(use_gating=True), base="xlmr")
    st("lora_dora", LORA, DoRAConfig(r=4, alpha=8))
    st("dora_lora", DoRAConfig(r=4, alpha=8), LORA, inert=(r"\.m\.weight",))
    st("lora_vera", LORA, VeraConfig(r=4, alpha=8))
    st("lora_mtl_lora", LORA, MTLLoRAConfig(r=4, alpha=8, n_up_projection=2))
    st("three_loras", LORA, LoRAConfig(r=2, alpha=6), LORA)
    st("lora_twice", LORA, order="aa")
    st("ia3_ia3", IA3Config(), IA3Config(alpha=2))
    st("lora_bottleneck", LORA, PFEIFFER)
    st("bottleneck_lora", HOULSBY, LORA)
    st("ia3_bottleneck", IA3Config(), PFEIFFER, base="xlmr")
    st("prefix_prefix", PREFIX, FLAT)
    st("prefix_bottleneck", PREFIX, HOULSBY)
    st("prefix_lora_bottleneck", FLAT, LORA, PFEIFFER, base="xlmr")
    st("compacter_pfeiffer", CompacterConfig(reduction_factor=4), PFEIFFER)
    st("left_out_layers", SeqBnConfig(reduction_factor=4, leave_out=[0]), SeqBnConfig(reduction_factor=4, leave_out=[1]), order="ba")
    st("same_twice", PFEIFFER, order="aa")
    st("one", PFEIFFER)
    chains = ["stack(a, b)", "a", "base", "stack(b, c, a)", "stack(i, j)", "j", "stack(a, a)"]
    composed("stack", "gated_by_row", {**{k: LoRAConfig(r=2, alpha=4, use_gating=True) for k in "abc"}, **{k: IA3Config(use_gating=True) for k in "ij"}}, row_compose=chains, lengths=(4, 6, 9))


@family("average")
def average():
    def av(name, configs, compose="average(a, b)", base="bert", **more):
        composed("average", name, dict(zip("abc", configs)), compose, base, **more)

    av("pfeiffer", [PFEIFFER] * 2)
    av("houlsby_weights", [HOULSBY] * 2, "average(a:0.3, b:0.7)")
    av("weights_normalised", [PFEIFFER] * 2, "average(a:1, b:3)", base="xlmr")
    av("three", [PFEIFFER] * 3, "average(a, b, c)")
    av("mixed_flags", [SeqBnConfig(reduction_factor=4, ln_after=True), BnConfig(mh_adapter=False, output_adapter=True, reduction_factor=8, non_linearity="tanh")])
    av("parallel", [PARALLEL] * 2)
    av("lora", [LORA] * 2)
    av("lora_weights", [LoRAConfig(r=2, alpha=8, intermediate_lora=True)] * 2, "average(a:0.2, b:0.8)", base="xlmr")
    av("ia3", [IA3Config()] * 2)
    av("dora", [DoRAConfig(r=4, alpha=4)] * 2, inert=(r"loras\.a_task\.m\.weight",))
    # One of two has something at a site: what it gives is still divided by two.
    av("unequal_sites", [HOULSBY, PFEIFFER])
    av("bottleneck_and_lora", [PFEIFFER, LORA])
    av("language_first", [INVERTIBLE, PFEIFFER])
    av("inside_stack", [INVERTIBLE, PFEIFFER, PFEIFFER], "stack(a, average(b:0.4, c:0.6))", base="xlmr")
    # A stack inside runs the norm once more on what the average has normalised already.
    av("of_stacks", [PFEIFFER] * 3, "average(stack(a, b), c)")
    av("of_stacks_of_lora", [LORA] * 3, "average(stack(a, b):0.6, c:0.4)")
    av("same_twice", [PFEIFFER], "average(a, a)")


@family("split")
def split():
    def sp(name, configs, compose, base="bert", lengths=(5, 9, 17), **more):
        composed("split", name, dict(zip("abcd", configs)), compose, base, lengths=lengths, **more)

    sp("pfeiffer", [PFEIFFER] * 2, "split(a:3, b:*)")
    sp("houlsby_xlmr", [HOULSBY] * 2, "split(a:1, b:*)", base="xlmr")
    sp("rest_first", [PFEIFFER] * 2, "split(a:*, b:2)")
    sp("three", [PFEIFFER] * 3, "split(a:2, b:2, c:*)")
    sp("parallel", [PARALLEL] * 2, "split(a:4, b:*)")
    # The first leaf's flags prepare the whole row, the last one's finish it.
    sp("mixed_flags", [SeqBnConfig(reduction_factor=4), BnConfig(mh_adapter=False, output_adapter=True, original_ln_before=False, reduction_factor=4, non_linearity="tanh")], "split(a:3, b:*)")
    sp("gating", [SeqBnConfig(reduction_factor=4, use_gating=True)] * 2, "split(a:3, b:*)")
    # A gate is a mean over the tokens of its part, be it of the same adapter.
    sp("same_twice", [SeqBnConfig(reduction_factor=4, use_gating=True, ln_after=True)], "split(a:3, a:*)")
    sp("languages_under_task", [INVERTIBLE, INVERTIBLE, Spec(PFEIFFER, head=CLASSIFY)], "stack(split(a:3, b:*), c)", inert=(r"invertible_adapters\.b_task",))
    sp("of_stacks", [PFEIFFER] * 3, "split(stack(a, b):3, c:*)")
    sp("of_split", [PFEIFFER] * 3, "split(a:2, split(b:1, c:*):*)")
    sp("in_average", [PFEIFFER] * 3, "average(split(a:2, b:*), c)")
    sp("average_inside", [PFEIFFER] * 3, "split(a:3, average(b, c):*)")
    # A gate is a mean over the tokens of its adapter: of the row, or of a part of it.
    gated = SeqBnConfig(reduction_factor=4, use_gating=True, ln_after=True)
    sp("same_twice", [gated], "split(a:3, a:*)")
    sp("in_average_gated", [PFEIFFER, gated, gated], "average(split(a:2, b:*), c)")
    sp("two_in_average", [PFEIFFER, gated, PFEIFFER, PLUS], "average(split(a:2, b:*), split(c:4, d:*))")
    sp("two_in_average_weights", [HOULSBY] * 2, "average(split(a:1, b:*):0.3, split(b:3, a:*):0.7)", base="xlmr")
    sp("parallel_after", [PFEIFFER, PARALLEL, PARALLEL], "stack(a, split(b:3, c:*))", inert=(r"adapters\.a_task",))
    sp("parallel_first_after", [PFEIFFER, PARALLEL, PFEIFFER], "stack(a, split(b:3, c:*))", inert=(r"adapters\.a_task",))
    sp("parallel_last_after", [PFEIFFER, gated, PARALLEL], "stack(a, split(b:3, c:*))")
    sp("parallel_after_split", [PFEIFFER, PFEIFFER, PARALLEL, PARALLEL], "stack(split(a:3, b:*), split(c:1, d:*))", inert=(r"adapters\.[ab]_task",))
    sp("nested_by_row", [PFEIFFER, gated, PARALLEL, gated], None, row_compose=[
        "average(split(a:3, b:*), d)", "stack(a, split(d:2, c:*))", "average(split(a:1, d:*), split(b:4, a:*))", "base", "b", "average(split(a:3, b:*), d)"])
    pair = [[0, 11, 12, 2, 2, 21, 22, 23, 24, 2], [0, 31, 2, 2, 41, 2], [0, 51, 52, 53, 54, 55, 2, 61, 62]]
    sp("query_document", [INVERTIBLE, INVERTIBLE, PFEIFFER], "stack(split(a, b), c)", base="xlmr", rows=pair, inert=(r"invertible_adapters\.b_task",))
    sp("query_document_in_average", [PFEIFFER, gated, gated], "average(split(a, b):0.6, c:0.4)", base="xlmr", rows=pair)
    sp("query_document_alone", [HOULSBY] * 2, "split(a, b)", base="xlmr", rows=pair)
    sp("by_row", [PFEIFFER] * 2, None, row_compose=["split(a:3, b:*)", "a", "split(b:2, a:*)", "base", "split(a:1, b:*)"])


@family("fusion")
def fusion():
    static = "static"
    dynamic = "dynamic"
    given = dict(key=True, query=True, value=True, query_before_ln=False, regularization=False, residual_before=False, temperature=False,
                 value_before_softmax=True, value_initialized=True, dropout_prob=None)

    def fu(name, config, configs=(PFEIFFER, PFEIFFER), compose=None, base="bert", members=None, inert=(), also_inert=(), **more):
        specs = dict(zip("abcd", configs))
        members = members or list(specs)
        # A softmax does not see what is added to every score alike.
        silent = also_inert if inert is None else (r"\.key\.bias", *inert)
        composed("fusion", name, specs, compose or f"fuse({', '.join(members)})", base, fusion=[(members, config)], inert=silent, **more)

    fu("static", static)
    fu("dynamic", dynamic)
    fu("dynamic_xlmr", dynamic, base="xlmr")
    fu("dynamic_three", dynamic, [PFEIFFER] * 3)
    fu("both_sites", dynamic, [HOULSBY] * 2)
    fu("residual_before", {**given, "residual_before": True})
    fu("value_after_softmax", {**given, "value_before_softmax": False})
    fu("residual_before_value_after", {**given, "residual_before": True, "value_before_softmax": False})
    fu("temperature", {**given, "temperature": True})
    fu("query_before_ln", {**given, "query_before_ln": True})
    # A parallel adapter's input is what joins at the end, and so is the query, whatever the configuration says.
    fu("query_before_ln_parallel", {**given, "query_before_ln": True}, [PFEIFFER, PARALLEL])
    fu("no_key", {**given, "key": False}, inert=None)
    fu("no_query", {**given, "query": False})
    fu("value_only", {**given, "query": False, "key": False}, inert=None)
    fu("nothing_trained", {**given, "query": False, "key": False, "value": False}, inert=None, also_inert=(r"\.dense\.",))
    fu("parallel", dynamic, [PARALLEL] * 2)
    # Fusion sees an adapter before its gate and its own norm: those of the fused are not used.
    fu("gated_normed", dynamic, [SeqBnConfig(reduction_factor=4, use_gating=True, ln_after=True, scaling="learned")] * 2,
       inert=(r"\.gate\.", r"adapter_norm_after"))
    fu("mixed_flags", dynamic, [PFEIFFER, SeqBnConfig(reduction_factor=8, original_ln_before=False, residual_before_ln=False, non_linearity="tanh")])
    # The library makes (and saves) fusion for a layer that both leave out.
    fu("leave_out", dynamic, [SeqBnConfig(reduction_factor=4, leave_out=[0])] * 2, inert=(r"layer\.0\.output\.adapter_fusion",))
    fu("language_under", dynamic, [INVERTIBLE, PFEIFFER, PFEIFFER], "stack(a, fuse(b, c))", base="xlmr", members=["b", "c"])
    fu("task_over", dynamic, [PFEIFFER, PFEIFFER, Spec(PFEIFFER, head=CLASSIFY)], "stack(fuse(a, b), c)", members=["a", "b"])
    fu("same_in_stack", dynamic, [PFEIFFER, PFEIFFER], "stack(a, fuse(a, b))", members=["a", "b"])
    fu("of_stacks", dynamic, [PFEIFFER] * 4, "fuse(stack(a, b), stack(c, d))", members=["b", "d"])
    fu("of_stack_and_leaf", dynamic, [HOULSBY] * 3, "fuse(stack(a, b), c)", members=["b", "c"])
    fu("by_row", dynamic, [PFEIFFER] * 2, row_compose=["fuse(a, b)", "a", "base", "stack(a, b)", "fuse(a, b)"])
    composed("fusion", "named", {"a": PFEIFFER, "b": PFEIFFER}, fusion=[Fusion(["a", "b"], dynamic, name="both")], inert=(r"\.key\.bias",),
             compose="fuse(a, b)", fixed={"fuse(a, b)": Fuse("a", "b", name="both")})
    for container in ("bin", "legacy"):
        composed("fusion", f"container_{container}", {"a": PFEIFFER, "b": PFEIFFER}, "fuse(a, b)", fusion=[Fusion(["a", "b"], dynamic, container=container)], inert=(r"\.key\.bias",))
    # Releases 1 and 2 wrote the configuration's name alone.
    named = edit_json("adapter_fusion_config.json", lambda c: put(c, {"config": "dynamic", "version": "2.3.0", "adapter_names": ...}))
    composed("fusion", "configuration_by_name", {"a": PFEIFFER, "b": PFEIFFER}, "fuse(a, b)", fusion=[Fusion(["a", "b"], dynamic, edit=named)], inert=(r"\.key\.bias",))
    specs = {k: PFEIFFER for k in "abc"}
    # The library saves each fusion whose name begins as this one's.
    composed("fusion", "names_that_begin_alike", specs, fusion=[(["a", "b"], dynamic), (["a", "b", "c"], dynamic)], inert=(r"\.key\.bias",),
             row_compose=["fuse(a, b)", "fuse(a, b, c)", "base"])
    composed("fusion", "two_fusions", specs, fusion=[(["a", "b"], dynamic), (["b", "c", "a"], static)], inert=(r"\.key\.bias",),
             row_compose=["fuse(a, b)", "fuse(b, c, a)", "base", "fuse(a, b)", "fuse(b, c, a)"])


@family("weighted")
def weighted():
    """polygraft's own: the true weighted sum, and the sum of what adapters add."""
    def we(name, configs, compose, base="bert", **more):
        composed("weighted", name, dict(zip("abc", configs)), compose, base, **more)

    we("mix_pfeiffer", [PFEIFFER] * 2, "mix(a:0.3, b:0.7)")
    we("mix_not_one", [PFEIFFER] * 2, "mix(a:0.5, b:0.9)", base="xlmr")
    we("mix_houlsby_parallel_sites", [HOULSBY, HOULSBY], "mix(a, b:-0.4)")
    we("mix_lora", [LORA] * 2, "mix(a:0.3, b:0.7)")
    we("mix_in_stack", [INVERTIBLE, PFEIFFER, PFEIFFER], "stack(a, mix(b:0.4, c:0.6))", base="xlmr")
    we("mix_of_stacks", [PFEIFFER] * 3, "mix(stack(a, b):0.5, c:0.5)")
    we("mix_of_split", [PFEIFFER, PFEIFFER, SeqBnConfig(reduction_factor=4, use_gating=True)], "mix(split(a:1, b:*):0.5, c:0.7)")
    we("sum_pfeiffer", [PFEIFFER] * 2, "sum(a:0.5, b:0.9)")
    we("sum_houlsby", [HOULSBY] * 2, "sum(a, b:-0.5)", base="xlmr")
    we("sum_parallel", [PARALLEL] * 2, "sum(a:0.5, b)")
    we("sum_lora", [LoRAConfig(r=2, alpha=2, intermediate_lora=True)] * 2, "sum(a:0.5, b:-0.7)")
    we("sum_ln_after", [BnConfig(mh_adapter=True, output_adapter=True, ln_after=True, reduction_factor=4, non_linearity="relu")] * 2, "sum(a:0.4, b:0.6)")
    we("scaled", [PFEIFFER], "a:0.4")
    we("scaled_houlsby", [HOULSBY], "a:-0.7", base="xlmr")
    we("scaled_lora", [LORA], "a:1.7")
    we("scaled_in_stack", [PFEIFFER, PFEIFFER], "stack(a:0.5, b)")


@family("with_peft")
def with_peft():
    """A LoRA of PEFT under AdapterHub's methods on one base."""
    def pe(name, peft, config, compose="stack(p, a)", base="bert", **more):
        composed("with_peft", name, {"p": Spec(peft=peft), "a": config}, compose, base, **more)

    qv = {"target_modules": ["query", "value"], "r": 4, "lora_alpha": 8}
    all_six = {"target_modules": ["query", "key", "value", "dense"], "r": 2, "lora_alpha": 6, "use_rslora": True, "exclude_modules": ["pooler.dense"]}
    pe("lora_pfeiffer", qv, PFEIFFER)
    pe("lora_houlsby_xlmr", all_six, HOULSBY, base="xlmr")
    pe("bottleneck_first", qv, PFEIFFER, "stack(a, p)")
    pe("lora_prefix", all_six, PREFIX)
    pe("lora_head", qv, Spec(INVERTIBLE, head=CLASSIFY))
    pe("by_row", qv, PFEIFFER, None, row_compose=["stack(p, a)", "p", "a", "base", "stack(a, p)"])
    pe("hub_lora", qv, LORA, row_compose=["stack(p, a)", "a", "p", "base"])


@family("mixed")
def mixed():
    """Rows of one batch with compositions of different families, each as it is alone."""
    some = {
        "tr": INVERTIBLE, "task": Spec(PFEIFFER, head=CLASSIFY), "dbl": HOULSBY, "par": PARALLEL, "low": LORA, "ia": IA3Config(),
        "pre": PREFIX, "flat": FLAT, "soft": PROMPT, "re": NoReftConfig(r=2, suffix_positions=1), "dora": DoRAConfig(r=4, alpha=8),
        "vera": VeraConfig(r=4, alpha=8), "comp": CompacterConfig(reduction_factor=4),
    }
    rows = ["base", "tr", "stack(tr, task)", "dbl", "par", "low", "ia", "pre", "flat", "soft", "re", "dora", "vera", "comp", "base",
            "stack(pre, low, task)", "average(dbl, comp)", "stack(soft, dbl)", "stack(re, par)", "task"]
    for base in ("bert", "xlmr"):
        composed("mixed", f"families_{base}", some, base=base, row_compose=rows, lengths=(3, 5, 8))
    few = {"tr": INVERTIBLE, "hu": INVERTIBLE, "task": Spec(PFEIFFER, head=CLASSIFY), "other": Spec(HOULSBY, head=dict(kind="tagging", num_labels=2))}
    composed("mixed", "heads", few, base="xlmr", row_compose=["stack(tr, task)", "stack(hu, task)", "base", "other", "stack(hu, other)", "task", "tr", "stack(tr, hu, task)"],
             lengths=(4, 6))
    composed("mixed", "depths", {k: PFEIFFER for k in "abcd"}, row_compose=["a", "stack(a, b)", "stack(a, b, c, d)", "base", "stack(d, c)", "average(a, b, c)", "stack(c, average(a, d))"], lengths=(3, 7))
    composed("mixed", "lengths", {"p": PrefixTuningConfig(prefix_length=7, flat=True), "q": FLAT, "s": PromptTuningConfig(prompt_length=5, combine="prefix_after_bos"), "t": PROMPT},
             row_compose=["p", "stack(p, q)", "s", "t", "base", "q", "stack(s, q)", "stack(q, p)"], lengths=(1, 6))
