"""Several adapters: other families in one batch, and two active at once in the library's own order.

Not made: pairs of C3A (0.21.2 hands the second adapter the first one's output for its input), of OSF (only the first of
the active ones runs), of FRoD (an update replaces the weight), of KaSA
with anything else and of OFT with a tuner loaded after it (both refused).
"""

import torch
from peft import PeftMixedModel
from peft_machine import Adapter

from .registry import FEW, QV, SEQ, SIX, family

FE = {"task_type": "FEATURE_EXTRACTION"}


@family("mixed_batch")
def mixed_batch(m):
    """Every row is what it is alone."""
    a = Adapter
    case = lambda name, kind, config, others, order, **how: m.case("mixed_batch", name, kind, config, others=others, row_compose=order, **how)
    case("low_rank", "LORA", {"target_modules": QV, "r": 4}, {
        "b": a("ADALORA", {"target_modules": ["key"], "init_r": 5, "total_step": 4}),
        "c": a("VERA", {"target_modules": QV, "r": 6}),
        "d": a("DELORA", {"target_modules": FEW, "r": 4}),
        "e": a("LORA", {"target_modules": SIX, "use_dora": True, "r": 3}),
    }, ["a", "b", "c", "d", "e", "base", "a", "e"], types=True)
    case("scales_and_rotations", "IA3", {}, {
        "b": a("OFT", {"target_modules": FEW, "oft_block_size": 8}),
        "c": a("HRA", {"target_modules": QV, "r": 3}),
        "d": a("ROAD", {"target_modules": FEW, "group_size": 8}),
        "e": a("BEFT", {"target_modules": ["value"]}),
        "f": a("LN_TUNING", {"target_modules": ["LayerNorm"]}),
        "g": a("BOFT", {"target_modules": FEW}),
    }, ["a", "b", "c", "d", "e", "f", "g", "base", "c", "a"])
    case("dense", "LOHA", {"target_modules": FEW, "r": 3}, {
        "b": a("LOKR", {"target_modules": FEW, "r": 2}),
        "c": a("FOURIERFT", {"target_modules": QV, "n_frequency": 30}),
        "d": a("SHIRA", {"target_modules": FEW, "r": 2}),
        "e": a("HIRA", {"target_modules": QV, "r": 3}),
        "f": a("GRALORA", {"target_modules": FEW, "r": 4, "alpha": 4}),
        "g": a("C3A", {"target_modules": FEW, "block_size": 8}),
        "h": a("MISS", {"target_modules": FEW, "r": 4, "init_weights": "bat"}),
    }, ["a", "b", "c", "d", "e", "f", "g", "h", "base", "a"], base="roberta")
    case("prompts", "PROMPT_TUNING", {**FE, "num_virtual_tokens": 4}, {
        "b": a("PREFIX_TUNING", {**FE, "num_virtual_tokens": 3}),
        "c": a("LORA", {"target_modules": QV, "r": 4}),
        "d": a("P_TUNING", {**FE, "num_virtual_tokens": 2, "encoder_hidden_size": 16}),
        "e": a("TRAINABLE_TOKENS", {"token_indices": [5, 7, 11, 13]}),
        "f": a("LILY", {"target_modules": QV, "r": 4}),
        "g": a("POLY", {**FE, "target_modules": QV, "r": 2, "n_tasks": 2}, options={"task": 1}, call={"task_ids": torch.tensor([1])}),
    }, ["a", "b", "c", "d", "e", "f", "g", "base", "b", "a"], base="xlmr", change=-1.0)
    case("heads", "LORA", {"target_modules": QV, "r": 4, "task_type": "SEQ_CLS"}, {
        "b": a("PREFIX_TUNING", {"task_type": "SEQ_CLS", "num_virtual_tokens": 3}),
        "c": a("PROMPT_TUNING", {"task_type": "SEQ_CLS", "num_virtual_tokens": 2}),
        "d": a("IA3", {"task_type": "SEQ_CLS"}),
        "e": a("VBLORA", {"task_type": "SEQ_CLS", "target_modules": QV, "r": 2, "num_vectors": 9, "vector_length": 8}),
    }, ["a", "b", "c", "d", "e", "base", "b"], cls=SEQ, labels=3, types=True)


# Family → two configurations over some of the same modules. In the order of the table of research.
PAIRS = {
    "ia3": ("IA3", {"target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]}, {"target_modules": ["query", "value", "intermediate.dense", "output.dense"], "feedforward_modules": ["output.dense"]}),
    "loha": ("LOHA", {"r": 3, "alpha": 2, "target_modules": FEW}, {"r": 2, "alpha": 3, "target_modules": SIX}),
    "lokr": ("LOKR", {"r": 2, "target_modules": FEW}, {"r": 3, "alpha": 2, "decompose_factor": 4, "target_modules": SIX}),
    "dora": ("LORA", {"r": 3, "use_dora": True, "target_modules": FEW}, {"r": 2, "use_dora": True, "target_modules": SIX}),
    "dora_and_lora": ("LORA", {"r": 3, "use_dora": True, "target_modules": FEW}, {"r": 2, "lora_alpha": 4, "target_modules": SIX}),
    "lora_and_dora": ("LORA", {"r": 3, "target_modules": FEW}, {"r": 2, "use_dora": True, "target_modules": SIX}),
    "lora_embeddings": ("LORA", {"r": 3, "target_modules": ["word_embeddings", "query"]}, {"r": 2, "target_modules": ["word_embeddings", "value"]}),
    "adalora": ("ADALORA", {"init_r": 4, "total_step": 4, "target_modules": FEW}, {"init_r": 3, "total_step": 4, "target_modules": SIX}),
    "oft": ("OFT", {"oft_block_size": 8, "target_modules": FEW}, {"oft_block_size": 4, "use_cayley_neumann": False, "target_modules": SIX}),
    "oft_embeddings": ("OFT", {"oft_block_size": 8, "target_modules": ["word_embeddings"]}, {"oft_block_size": 16, "target_modules": ["word_embeddings", "key"]}),
    "boft": ("BOFT", {"boft_block_size": 4, "target_modules": FEW}, {"boft_block_size": 8, "target_modules": SIX}),
    "hra": ("HRA", {"r": 3, "target_modules": FEW}, {"r": 4, "apply_GS": True, "target_modules": SIX}),
    "vera": ("VERA", {"r": 5, "target_modules": QV}, {"r": 5, "target_modules": QV}),
    "vblora": ("VBLORA", {"r": 2, "num_vectors": 9, "vector_length": 8, "target_modules": FEW}, {"r": 3, "num_vectors": 9, "vector_length": 8, "target_modules": FEW}),
    "unilora": ("UNILORA", {"r": 2, "theta_d_length": 40, "save_indices": True, "target_modules": FEW}, {"r": 2, "theta_d_length": 40, "save_indices": True, "target_modules": FEW}),
    "tinylora": ("TINYLORA", {"r": 2, "u": 5, "target_modules": FEW}, {"r": 2, "u": 5, "target_modules": FEW}),
    "fourierft": ("FOURIERFT", {"n_frequency": 30, "target_modules": FEW}, {"n_frequency": 50, "random_loc_seed": 4, "target_modules": SIX}),
    "waveft": ("WAVEFT", {"n_frequency": 30, "target_modules": FEW}, {"n_frequency": 50, "wavelet_family": "db2", "random_loc_seed": 4, "target_modules": SIX}),
    "shira": ("SHIRA", {"r": 2, "target_modules": FEW}, {"r": 3, "target_modules": SIX}),
    "supertuning": ("SUPERTUNING", {"sparsity": 0.95, "target_modules": FEW}, {"sparsity": 0.9, "r": 2, "target_modules": SIX}),
    "road": ("ROAD", {"group_size": 8, "target_modules": FEW}, {"variant": "road_4", "group_size": 16, "target_modules": SIX}),
    "gralora": ("GRALORA", {"r": 4, "alpha": 4, "target_modules": FEW}, {"r": 4, "alpha": 3, "hybrid_r": 2, "target_modules": SIX}),
    "delora": ("DELORA", {"r": 3, "target_modules": FEW}, {"r": 2, "target_modules": SIX}),
    "hira": ("HIRA", {"r": 3, "target_modules": FEW}, {"r": 2, "target_modules": SIX}),
    "glora": ("GLORA", {"r": 3, "target_modules": FEW}, {"r": 2, "config_A_B": "vector", "config_D_E": "vector", "target_modules": SIX}),
    "beft": ("BEFT", {"target_modules": QV}, {"target_modules": ["value", "key"]}),
    "deft": ("DEFT", {"r": 3, "target_modules": FEW}, {"r": 2, "decomposition_method": "qr", "target_modules": SIX}),
    "miss": ("MISS", {"r": 4, "target_modules": FEW}, {"r": 8, "target_modules": SIX}),
    "miss_bat": ("MISS", {"r": 4, "init_weights": "bat", "target_modules": FEW}, {"r": 8, "init_weights": "bat", "target_modules": FEW}),
    "peanut": ("PEANUT", {"r": 3, "depth": 1, "target_modules": FEW}, {"r": 2, "target_modules": SIX}),
    "lily": ("LILY", {"r": 3, "target_modules": QV}, {"r": 2, "num_B": 3, "target_modules": ["value", "key"]}),
    "pvera": ("PVERA", {"r": 5, "target_modules": QV}, {"r": 5, "target_modules": QV}),
    "randlora": ("RANDLORA", {"r": 8, "randlora_alpha": 8, "target_modules": QV}, {"r": 8, "randlora_alpha": 4, "target_modules": QV}),
    "trainable_tokens": ("TRAINABLE_TOKENS", {"token_indices": [5, 7, 11]}, {"token_indices": [2, 9, 13, 17]}),
}


@family("stacked")
def stacked(m):
    for name, (kind, first, second) in PAIRS.items():
        rows = [[5, 7, 11, 2, 9], [13, 17, 5], [2, 2, 7], [11]] if "tokens" in name else None
        m.case("stacked", name, kind, first, others={"b": Adapter(kind, second)}, row_compose=["stack(a,b)", "a", "b", "stack(b,a)"][:4], rows=rows, change=-1.0)
    # The library nests the layers of different kinds in the order in which they were loaded.
    lora, loha = {"r": 3, "target_modules": FEW}, {"r": 2, "alpha": 3, "target_modules": SIX}
    mixed = dict(row_compose=["stack(a,b)", "a", "b"], wrapper=PeftMixedModel)
    m.case("stacked", "lora_loha", "LORA", lora, others={"b": Adapter("LOHA", loha)}, **mixed)
    m.case("stacked", "lokr_lora", "LOKR", {"r": 2, "target_modules": SIX}, others={"b": Adapter("LORA", lora)}, **mixed)
    m.case("stacked", "shira_adalora", "SHIRA", {"r": 2, "target_modules": SIX}, others={"b": Adapter("ADALORA", {"init_r": 3, "total_step": 4, "target_modules": FEW})}, **mixed)
    m.case("stacked", "lora_oft", "LORA", lora, others={"b": Adapter("OFT", {"oft_block_size": 8, "target_modules": SIX})}, **mixed)
    # Scales of a contribution, where the library's tuner has one.
    scaled = ["a:0.5", "stack(a:0.5,b)", "sum(a:0.25,b:-0.5)", "a:-1"]
    m.case("stacked", "loha_scaled", "LOHA", loha, others={"b": Adapter("LOHA", {**loha, "target_modules": FEW})}, row_compose=scaled)
    m.case("stacked", "lokr_scaled", "LOKR", {"r": 2, "target_modules": FEW}, others={"b": Adapter("LOKR", {"r": 3, "target_modules": SIX})}, row_compose=scaled)
    m.case("stacked", "lora_embedding_scaled", "LORA", {"r": 2, "target_modules": ["word_embeddings"]}, others={"b": Adapter("LORA", {"r": 3, "target_modules": ["word_embeddings", "query"]})}, row_compose=scaled)
    m.case("stacked", "hira_three", "HIRA", {"r": 3, "target_modules": FEW}, others={"b": Adapter("HIRA", {"r": 2, "target_modules": SIX}), "c": Adapter("HIRA", {"r": 4, "target_modules": QV})}, row_compose=["stack(a,b,c)", "stack(c,a)"])
