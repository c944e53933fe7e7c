"""Weight updates made of products: low-rank ones of many kinds, Hadamard, Kronecker, blocks."""

import torch
from peft_machine import randomise

from .registry import FEW, QV, SEQ, SIX, TOK, family

PATTERNS = {"rank_pattern": {"query": 2, r"layer\.1\.output\.dense": 6}, "alpha_pattern": {r".*self\.key": 3, "intermediate.dense": 12}}


def prune(peft):
    """The library's own allocator, on gradients of a few steps, until the budget is reached."""
    g = torch.Generator().manual_seed(3)
    ids = torch.randint(2, min(100, peft.config.vocab_size), (4, 9), generator=g)
    with torch.enable_grad():
        for step in range(1, peft.peft_config[peft.active_adapter].total_step + 1):
            out = peft(input_ids=ids)
            sum(v.pow(2).sum() for v in out.values()).backward()
            peft.base_model.update_and_allocate(step)
            peft.zero_grad()


@family("adalora")
def adalora(m):
    case = lambda name, config, **how: m.case("adalora", name, "ADALORA", {"init_r": 6, "target_r": 3, "lora_alpha": 8, "total_step": 8, **config}, **how)
    case("not_pruned", {"target_modules": FEW})
    pruned = dict(before_save=prune)
    case("pruned", {"target_modules": QV, "deltaT": 1, "tinit": 1, "tfinal": 2}, **pruned)
    case("pruned_six", {"target_modules": SIX, "tinit": 1, "tfinal": 2, "target_r": 2, "lora_alpha": 3, "lora_dropout": 0.1}, base="roberta", **pruned)
    case("pruned_seqcls", {"target_modules": QV, "tinit": 1, "tfinal": 2, "task_type": "SEQ_CLS"}, cls=SEQ, labels=3, **pruned)
    case("rslora_ignored", {"target_modules": FEW, "use_rslora": True})
    case("bias_all", {"target_modules": QV, "bias": "all"})
    # Before 0.17 or so the rank was in the file, and then it counts.
    case("ranknum_saved", {"target_modules": QV, "tinit": 1, "tfinal": 2}, before_save=prune, edit_tensors=lambda t: {
        **t, **{k.replace("lora_E", "ranknum"): torch.tensor([4.0]) for k in t if k.endswith("lora_E")}})


@family("loha")
def loha(m):
    case = lambda name, config, **how: m.case("loha", name, "LOHA", {"r": 4, "alpha": 2, **config}, **how)
    case("few", {"target_modules": FEW})
    case("six_patterns", {"target_modules": SIX, **PATTERNS}, types=True)
    case("roberta", {"target_modules": QV, "r": 3, "alpha": 5, "rank_dropout": 0.1}, base="roberta")
    case("layers", {"target_modules": SIX, "layers_to_transform": [1], "layers_pattern": "layer", "exclude_modules": ["output.dense"]})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    case("norms_saved", {"target_modules": ["value"], "modules_to_save": ["LayerNorm"]})


@family("lokr")
def lokr(m):
    case = lambda name, config, **how: m.case("lokr", name, "LOKR", {"r": 2, "alpha": 3, **config}, **how)
    case("few", {"target_modules": FEW})
    case("decompose_both", {"target_modules": FEW, "decompose_both": True, "r": 1})
    case("decompose_both_rank_2", {"target_modules": FEW, "decompose_both": True, "r": 2, "decompose_factor": 8})
    case("factor_4", {"target_modules": FEW, "decompose_factor": 4})
    # At a rank that large both factors are whole, and the scale still divides by the rank.
    case("both_full", {"target_modules": FEW, "r": 32, "alpha": 16})
    case("six_patterns", {"target_modules": SIX, "alpha": 2, **PATTERNS}, base="xlmr")
    case("odd_widths", {"target_modules": SIX, "rank_dropout": 0.2}, base="bert_odd")
    case("tokcls", {"target_modules": QV, "task_type": "TOKEN_CLS"}, cls=TOK, labels=3)


@family("delora")
def delora(m):
    case = lambda name, config, **how: m.case("delora", name, "DELORA", {"r": 4, **config}, **how)
    case("few", {"target_modules": FEW})
    case("six_patterns", {"target_modules": SIX, "rank_pattern": {"query": 2}, "lambda_pattern": {"key": 3.0}, "delora_lambda": 8}, base="roberta")
    case("bias_all", {"target_modules": QV, "bias": "all", "module_dropout": 0.1})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    # Rows and columns of nothing, where the norm is held at 1e-4.

    def dead(peft, name):
        randomise(peft, name)
        for key, p in peft.named_parameters():
            if "delora_A" in key:
                p.data[1] = 0.0

    case("dead_row", {"target_modules": FEW}, randomise=dead)


@family("gralora")
def gralora(m):
    case = lambda name, config, **how: m.case("gralora", name, "GRALORA", {"r": 4, "alpha": 6, **config}, **how)
    case("few", {"target_modules": FEW})
    case("four_blocks", {"target_modules": FEW, "gralora_k": 4, "r": 8})
    case("hybrid", {"target_modules": FEW, "hybrid_r": 2})
    case("six_hybrid", {"target_modules": SIX, "hybrid_r": 3, "gralora_k": 2, "gralora_dropout": 0.1}, base="roberta")
    case("bias_lora_only", {"target_modules": QV, "bias": "gralora_only"})
    case("seqcls", {"target_modules": ["value", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("hira")
def hira(m):
    case = lambda name, config, **how: m.case("hira", name, "HIRA", {"r": 4, **config}, **how)
    case("few", {"target_modules": FEW})
    case("six_patterns", {"target_modules": SIX, "rank_pattern": {"query": 2, r"layer\.1\.output\.dense": 6}, "hira_dropout": 0.1}, types=True)
    case("embedding", {"target_modules": ["word_embeddings", "query"]})
    case("every_embedding", {"target_modules": ["word_embeddings", "position_embeddings", "token_type_embeddings"], "r": 2}, types=True)
    case("xlmr", {"target_modules": ["word_embeddings", *QV], "r": 2}, base="xlmr")
    case("seqcls", {"target_modules": ["key", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("glora")
def glora(m):
    case = lambda name, config, **how: m.case("glora", name, "GLORA", {"r": 4, "target_modules": FEW, **config}, **how)
    case("default", {})
    for ab in ("lora", "vector", "constant", "none"):
        for c, de in (("lora", "vector"), ("vector", "constant"), ("none", "none")):
            if (ab, c) in (("lora", "lora"), ("vector", "vector"), ("constant", "lora"), ("none", "vector"), ("vector", "none")):
                case(f"{ab}_{c}_{de}", {"config_A_B": ab, "config_C": c, "config_D_E": de})
    case("six", {"target_modules": SIX, "r": 2}, base="roberta")
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("miss")
def miss(m):
    case = lambda name, config, **how: m.case("miss", name, "MISS", {"r": 4, "target_modules": FEW, **config}, **how)
    case("miss", {})
    case("miss_false", {"init_weights": False})
    # A rank that does not divide the width: the last block is padded.
    case("miss_uneven", {"target_modules": SIX, "r": 5}, base="bert_odd")
    case("mini", {"init_weights": "mini", "mini_r": 8})
    case("bat", {"init_weights": "bat"})
    case("bat_six", {"init_weights": "bat", "target_modules": SIX, "r": 8}, base="roberta")
    case("bias_all", {"bias": "all", "miss_dropout": 0.1})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("c3a")
def c3a(m):
    case = lambda name, config, **how: m.case("c3a", name, "C3A", {"block_size": 8, "target_modules": FEW, **config}, **how)
    case("few", {})
    case("one_block", {"block_size": 32})
    case("odd_block", {"block_size": 11, "target_modules": QV}, base="bert_odd")
    case("pattern", {"target_modules": SIX, "block_size": 16, "block_size_pattern": {"query": 4, "output.dense": 32}}, base="xlmr")
    case("bias_all", {"bias": "all"})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("peanut")
def peanut(m):
    case = lambda name, config, **how: m.case("peanut", name, "PEANUT", {"r": 4, "target_modules": FEW, **config}, **how)
    case("no_depth", {})
    case("depth_1", {"depth": 1, "act_fn": "gelu"})
    case("depth_2", {"depth": 2, "act_fn": "tanh", "scaling": 0.5})
    for act in ("silu", "gelu_new", "sigmoid", "mish", "leaky_relu", "relu6", "gelu_pytorch_tanh", "quick_gelu", "relu2", "linear", "swish", "gelu_10", "laplace", "gelu_fast"):
        case(f"act_{act}", {"depth": 1, "act_fn": act, "target_modules": ["layer.0.attention.self.query"]})
    case("six", {"depth": 1, "target_modules": SIX}, base="roberta")
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
