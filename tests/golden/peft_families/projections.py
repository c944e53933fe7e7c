"""Updates over shared or regenerated random projections."""

from .registry import FEW, QV, SEQ, SIX, TOK, family


@family("vera")
def vera(m):
    case = lambda name, config, **how: m.case("vera", name, "VERA", {"r": 6, "target_modules": QV, **config}, **how)
    case("qv", {})
    case("few", {"target_modules": FEW})
    case("six_seed", {"target_modules": SIX, "r": 4, "projection_prng_key": 5, "vera_dropout": 0.1}, base="roberta")
    case("regenerated", {"save_projection": False})
    case("regenerated_few", {"save_projection": False, "target_modules": FEW, "projection_prng_key": 123, "r": 3})
    case("regenerated_odd", {"save_projection": False, "target_modules": SIX, "r": 5}, base="bert_odd")
    case("bias_all", {"bias": "all"})
    case("seqcls", {"task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("pvera")
def pvera(m):
    case = lambda name, config, **how: m.case("pvera", name, "PVERA", {"r": 6, "target_modules": QV, **config}, **how)
    case("qv", {})
    case("few", {"target_modules": FEW})
    case("regenerated", {"save_projection": False, "projection_prng_key": 3, "target_modules": FEW})
    case("seqcls", {"task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("randlora")
def randlora(m):
    case = lambda name, config, **how: m.case("randlora", name, "RANDLORA", {"r": 8, "randlora_alpha": 16, "target_modules": QV, **config}, **how)
    case("qv", {})
    case("few", {"target_modules": FEW})
    case("tall", {"target_modules": ["intermediate.dense"], "r": 5})
    case("wide", {"target_modules": ["layer.0.output.dense"], "r": 5}, base="roberta")
    case("three_sizes", {"target_modules": ["layer.0.attention.self.key", "layer.0.intermediate.dense", "layer.1.output.dense"], "r": 12, "randlora_alpha": 6})
    # The bases are drawn in bfloat16: the same on every torch since 2.1 or so, which draws 24 bits and rounds.
    case("regenerated", {"save_projection": False})
    case("regenerated_few", {"save_projection": False, "target_modules": FEW, "r": 5, "projection_prng_key": 11}, base="roberta")
    case("sparse", {"sparse": True})
    case("very_sparse", {"very_sparse": True, "target_modules": FEW})
    case("seqcls", {"task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("vblora")
def vblora(m):
    case = lambda name, config, **how: m.case("vblora", name, "VBLORA", {"r": 2, "num_vectors": 12, "vector_length": 8, "target_modules": QV, **config}, **how)
    case("qv", {})
    case("few_topk_3", {"target_modules": FEW, "topk": 3})
    case("topk_weights", {"save_only_topk_weights": True})
    case("topk_weights_few", {"save_only_topk_weights": True, "target_modules": FEW, "topk": 3}, base="roberta")
    # More vectors than a byte counts: the indices are 16 bits wide.
    case("topk_weights_many", {"save_only_topk_weights": True, "num_vectors": 300})
    case("six", {"target_modules": SIX, "vector_length": 16, "vblora_dropout": 0.1}, types=True)
    case("seqcls", {"task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("unilora")
def unilora(m):
    case = lambda name, config, **how: m.case("unilora", name, "UNILORA", {"r": 3, "theta_d_length": 50, "target_modules": QV, **config}, **how)
    case("indices", {"save_indices": True})
    case("indices_few", {"save_indices": True, "target_modules": FEW})
    case("regenerated", {})
    case("regenerated_few", {"target_modules": FEW, "proj_seed": 7, "theta_d_length": 33})
    case("regenerated_six", {"target_modules": SIX, "r": 2, "theta_d_length": 100}, base="roberta")
    case("seqcls", {"save_indices": True, "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    case("regenerated_seqcls", {"target_modules": ["value", "query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    # A module's whole name counts whatever its layer; inside a model with a head this one is not whole.
    case("part_of_a_name", {"target_modules": ["encoder.layer.1.attention.self.key", "query"], "layers_to_transform": [0]}, base="bert_mlm")


@family("tinylora")
def tinylora(m):
    case = lambda name, config, **how: m.case("tinylora", name, "TINYLORA", {"r": 2, "u": 6, "target_modules": QV, **config}, **how)
    case("qv", {})
    case("few", {"target_modules": FEW, "r": 3})
    case("tied", {"target_modules": SIX, "weight_tying": 0.5})
    case("tied_fully", {"target_modules": FEW, "weight_tying": 1.0})
    case("tied_uneven", {"target_modules": SIX, "weight_tying": 0.7}, base="bert_three_layers")
    case("regenerated", {"save_projection": False})
    case("regenerated_tied", {"save_projection": False, "target_modules": SIX, "weight_tying": 0.6, "projection_seed": 9}, base="roberta")
    case("embedding", {"target_modules": ["word_embeddings", "query"]})
    case("embedding_regenerated", {"target_modules": ["word_embeddings", "key"], "save_projection": False, "weight_tying": 0.4})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
