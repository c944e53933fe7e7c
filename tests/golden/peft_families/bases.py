"""The methods on other bases than BERT's and RoBERTa's: other names, shared layers, fused projections.

A base's cases are made when its folder is there. Not made: prefixes where the model takes no cache (DistilBERT's wrapper
finds no number of heads, ALBERT, DeBERTa, MPNet and ModernBERT have no cache at all), and what needs token types there.
"""

from .registry import family

# Names of the projections: query, value, after the attention, up, down; a norm; the word table; the classes' stem.
NAMES = {
    "distilbert": ("q_lin", "v_lin", "out_lin", "lin1", "lin2", "sa_layer_norm", "DistilBert"),
    "albert": ("query", "value", "attention.dense", "ffn", "ffn_output", "full_layer_layer_norm", "Albert"),
    "albert_groups": ("query", "value", "attention.dense", "ffn", "ffn_output", "full_layer_layer_norm", "Albert"),
    "electra": ("query", "value", "attention.output.dense", "intermediate.dense", "output.dense", "output.LayerNorm", "Electra"),
    "deberta_v2": ("query_proj", "value_proj", "attention.output.dense", "intermediate.dense", "output.dense", "output.LayerNorm", "DebertaV2"),
    "mpnet": ("attn.q", "attn.v", "attn.o", "intermediate.dense", "output.dense", "output.LayerNorm", "MPNet"),
    "modernbert": ("Wqkv", "Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo", "mlp_norm", "ModernBert"),
}
# What the library draws anew between the backbone and a head, and saves only when it is told to.
BEFORE_HEAD = {"deberta_v2": {"modules_to_save": ["pooler"]}, "modernbert": {"modules_to_save": ["head.dense", "head.norm"]}}
# Where a cache of keys and values goes in.
CACHED = ("electra",)


def on(base):
    query, value, out, up, down, norm, stem = NAMES[base]
    all_of_them, some = sorted({query, value, out, up, down}), sorted({query, down})
    words = "tok_embeddings" if base == "modernbert" else "word_embeddings"

    head = BEFORE_HEAD.get(base, {})
    # ModernBERT's head of answers is called `classifier`, which peft adds for other tasks only.
    answers = {"modules_to_save": ["head.dense", "head.norm", "classifier"]} if base == "modernbert" else {}
    # The prompt is as wide as the embeddings, which peft takes to be the hidden width unless it is told.
    numbers = {"distilbert": {"token_dim": 32, "num_attention_heads": 4, "num_layers": 2}, "albert": {"token_dim": 16}, "albert_groups": {"token_dim": 16}, "electra": {"token_dim": 16}}

    def cases(m):
        m_case = lambda name, kind, config, **how: m.case(f"on_{base}", name, kind, config, base=base, **how)
        m_case("dora", "LORA", {"r": 3, "use_dora": True, "target_modules": all_of_them})
        m_case("pissa", "LORA", {"r": 3, "init_lora_weights": "pissa", "target_modules": some})
        m_case("lora_embedding", "LORA", {"r": 2, "target_modules": [words, value]})
        m_case("adalora", "ADALORA", {"init_r": 3, "total_step": 4, "target_modules": some})
        m_case("ia3", "IA3", {"target_modules": all_of_them, "feedforward_modules": sorted({up, down})})
        m_case("loha", "LOHA", {"r": 2, "alpha": 2, "target_modules": some})
        m_case("lokr", "LOKR", {"r": 2, "alpha": 2, "target_modules": all_of_them})
        m_case("oft", "OFT", {"oft_block_size": 8, "target_modules": all_of_them})
        m_case("hra", "HRA", {"r": 3, "target_modules": some})
        m_case("vera", "VERA", {"r": 4, "target_modules": all_of_them, "save_projection": False})
        m_case("unilora", "UNILORA", {"r": 2, "theta_d_length": 50, "target_modules": all_of_them})
        m_case("tinylora", "TINYLORA", {"r": 2, "u": 5, "weight_tying": 0.5, "target_modules": all_of_them})
        m_case("fourierft", "FOURIERFT", {"n_frequency": 40, "target_modules": some})
        m_case("hira", "HIRA", {"r": 2, "target_modules": [words, query]})
        m_case("road", "ROAD", {"group_size": 8, "target_modules": some})
        m_case("glora", "GLORA", {"r": 2, "target_modules": some})
        m_case("shira", "SHIRA", {"r": 2, "target_modules": some})
        m_case("miss_bat", "MISS", {"r": 4, "init_weights": "bat", "target_modules": some})
        m_case("ln_tuning", "LN_TUNING", {"target_modules": [norm]})
        m_case("norms_saved", "LORA", {"r": 2, "target_modules": [value], "modules_to_save": [norm]})
        m_case("trainable_tokens", "TRAINABLE_TOKENS", {"token_indices": [5, 7, 11], "target_modules": [words]}, rows=[[5, 7, 11], [9, 5, 30, 11], [7]])
        m_case("lily", "LILY", {"r": 3, "target_modules": [query]})
        m_case("seqcls_boft", "BOFT", {"target_modules": some, "task_type": "SEQ_CLS", **head}, cls=f"{stem}ForSequenceClassification", labels=3)
        m_case("tokcls_delora", "DELORA", {"r": 3, "target_modules": some, "task_type": "TOKEN_CLS", **(head if base == "modernbert" else {})}, cls=f"{stem}ForTokenClassification", labels=4)
        m_case("qa_vblora", "VBLORA", {"r": 2, "num_vectors": 9, "vector_length": 8, "target_modules": [out], "task_type": "QUESTION_ANS", **answers}, cls=f"{stem}ForQuestionAnswering")
        prompt = {"num_virtual_tokens": 3, **numbers.get(base, {})}
        m_case("prompt_tuning", "PROMPT_TUNING", {**prompt, "task_type": "FEATURE_EXTRACTION"})
        m_case("prompt_tuning_tokcls", "PROMPT_TUNING", {**prompt, "task_type": "TOKEN_CLS", **(head if base == "modernbert" else {})}, cls=f"{stem}ForTokenClassification", labels=3)
        m_case("p_tuning_seqcls", "P_TUNING", {**prompt, "encoder_hidden_size": 16, "task_type": "SEQ_CLS", **head}, cls=f"{stem}ForSequenceClassification", labels=2)
        if base in CACHED:
            m_case("prefix_tuning", "PREFIX_TUNING", {"num_virtual_tokens": 3, "task_type": "FEATURE_EXTRACTION"})
            m_case("prefix_tuning_tokcls", "PREFIX_TUNING", {"num_virtual_tokens": 3, "task_type": "TOKEN_CLS"}, cls=f"{stem}ForTokenClassification", labels=3)

    return cases


@family("on_vit")
def on_vit(m):
    """Images: the projection of the patches is a convolution, which some methods take."""
    case = lambda name, kind, config, **how: m.case("on_vit", name, kind, config, base="../bases-pixels/vit", lengths=(1, 2), **how)
    case("lora", "LORA", {"r": 3, "target_modules": ["query", "value"]})
    case("dora", "LORA", {"r": 3, "use_dora": True, "target_modules": ["query", "intermediate.dense", "output.dense"]})
    case("ia3", "IA3", {"target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]})
    case("ln_tuning", "LN_TUNING", {"target_modules": ["layernorm_before", "layernorm"]})
    case("oft", "OFT", {"oft_block_size": 8, "target_modules": ["query", "intermediate.dense"]})
    case("vera", "VERA", {"r": 4, "target_modules": ["query", "output.dense"], "save_projection": False})
    case("fourierft", "FOURIERFT", {"n_frequency": 40, "target_modules": ["value"]})
    head = {"modules_to_save": ["classifier"]}
    case("classifier", "LORA", {"r": 3, "target_modules": ["query", "value"], **head}, cls="ViTForImageClassification", labels=3)
    case("classifier_hra", "HRA", {"r": 3, "target_modules": ["key", "attention.output.dense"], **head}, cls="ViTForImageClassification", labels=4)
    patches = ["query", "projection"]
    case("patches_lora", "LORA", {"r": 3, "target_modules": patches})
    case("patches_dora", "LORA", {"r": 3, "use_dora": True, "target_modules": patches})
    case("patches_ia3", "IA3", {"target_modules": patches, "feedforward_modules": []})
    case("patches_ia3_feedforward", "IA3", {"target_modules": patches, "feedforward_modules": ["projection"]})
    case("patches_loha", "LOHA", {"r": 2, "alpha": 2, "target_modules": patches})
    case("patches_loha_effective", "LOHA", {"r": 2, "alpha": 2, "use_effective_conv2d": True, "target_modules": patches})
    case("patches_lokr", "LOKR", {"r": 2, "alpha": 2, "target_modules": patches})
    case("patches_lokr_effective", "LOKR", {"r": 2, "alpha": 2, "use_effective_conv2d": True, "decompose_factor": 2, "target_modules": patches})
    case("patches_oft", "OFT", {"oft_block_size": 6, "target_modules": patches})
    case("patches_boft", "BOFT", {"boft_block_size": 2, "target_modules": patches})
    case("patches_hra", "HRA", {"r": 3, "target_modules": patches})
    case("patches_hira", "HIRA", {"r": 2, "target_modules": patches})


for name in NAMES:
    family(f"on_{name}")(on(name))
