"""Tables of relative positions: MPNet runs theirs, DeBERTa reads the numbers out of theirs, past whatever wraps it."""

from .registry import family

BIAS, ROWS = "relative_attention_bias", "rel_embeddings"
LONG = (19, 2, 7)


@family("relative_positions")
def relative_positions(m):
    mpnet = lambda name, kind, config, **how: m.case("relative_positions", f"mpnet_{name}", kind, config, base="mpnet", lengths=LONG, **how)
    mpnet("saved", "LORA", {"r": 2, "target_modules": ["q"], "modules_to_save": [BIAS]})
    mpnet("lora", "LORA", {"r": 2, "lora_alpha": 5, "target_modules": ["v", BIAS]})
    mpnet("dora", "LORA", {"r": 2, "use_dora": True, "target_modules": [BIAS]})
    mpnet("hira", "HIRA", {"r": 2, "target_modules": [BIAS, "k"]})
    mpnet("tokens", "TRAINABLE_TOKENS", {"token_indices": [0, 1, 3, 17], "target_modules": [BIAS]})
    mpnet("option", "LORA", {"r": 2, "target_modules": ["q"], "trainable_token_indices": {BIAS: [0, 2, 18]}})
    mpnet("parameter", "LORA", {"r": 2, "target_modules": ["q"], "target_parameters": [f"{BIAS}.weight"]})
    tiny = {"r": 2, "u": 4, "weight_tying": 0.0}
    mpnet("tinylora", "TINYLORA", {**tiny, "target_modules": ["q", BIAS, "word_embeddings"], "save_projection": False})
    mpnet("tinylora_tied", "TINYLORA", {**tiny, "weight_tying": 0.5, "target_modules": ["v", BIAS, "position_embeddings"]})
    deberta = lambda name, kind, config, base="deberta_v2", **how: m.case("relative_positions", f"deberta_{name}", kind, config, base=base, **{"lengths": LONG, **how})
    deberta("saved", "LORA", {"r": 2, "target_modules": ["key_proj"], "modules_to_save": [ROWS]})
    deberta("saved_own_projections", "LORA", {"r": 2, "target_modules": ["pos_key_proj"], "modules_to_save": [ROWS]}, base="deberta_v2_own_projections")
    deberta("lora_does_nothing", "LORA", {"r": 2, "target_modules": ["value_proj", ROWS]})
    deberta("tinylora_counts", "TINYLORA", {**tiny, "weight_tying": 0.4, "target_modules": ["value_proj", ROWS]})
    deberta("tokens_do_nothing", "TRAINABLE_TOKENS", {"token_indices": [1, 3], "target_modules": [ROWS, "word_embeddings"]}, rows=[[3, 9, 20, 3], [7], [5, 3]])
