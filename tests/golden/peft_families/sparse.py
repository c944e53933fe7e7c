"""Sparse and spectral updates, and those that decompose the base's weight."""

from .registry import FEW, QV, SEQ, SIX, TOK, family


@family("fourierft")
def fourierft(m):
    case = lambda name, config, **how: m.case("fourierft", name, "FOURIERFT", {"n_frequency": 40, "target_modules": FEW, **config}, **how)
    case("few", {})
    case("other_seed", {"random_loc_seed": 2024, "scaling": 100.0, "n_frequency": 200})
    case("every_frequency", {"target_modules": ["layer.0.attention.self.query"], "n_frequency": 1024, "scaling": 30.0})
    case("pattern", {"target_modules": SIX, "n_frequency_pattern": {"query": 20, "output.dense": 60}}, base="roberta")
    case("odd_widths", {"target_modules": SIX}, base="bert_odd")
    case("bias_all", {"bias": "all", "target_modules": QV})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("waveft")
def waveft(m):
    case = lambda name, config, **how: m.case("waveft", name, "WAVEFT", {"n_frequency": 60, "target_modules": FEW, **config}, **how)
    case("db1", {})
    case("no_idwt", {"use_idwt": False})
    for wavelet in ("db2", "db4", "sym3", "sym4", "coif1", "coif2", "sym2", "coif3", "db10", "sym8"):
        case(f"wavelet_{wavelet}", {"wavelet_family": wavelet})
    case("odd_widths", {"target_modules": SIX, "random_loc_seed": 5}, base="bert_odd")
    case("odd_widths_db3", {"target_modules": SIX, "wavelet_family": "db3"}, base="bert_odd")
    case("pattern", {"target_modules": SIX, "n_frequency_pattern": {"query": 20}, "scaling": 12.0}, base="xlmr")
    case("proportional", {"target_modules": SIX, "proportional_parameters": True, "n_frequency": 30})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("shira")
def shira(m):
    case = lambda name, config, **how: m.case("shira", name, "SHIRA", {"r": 2, "target_modules": FEW, **config}, **how)
    case("few", {})
    case("six", {"target_modules": SIX, "r": 3, "random_seed": 7}, base="roberta")
    # Saved on Windows the indices are float32.
    case("float_indices", {}, edit_tensors=lambda t: {k: v.float() if k.endswith("indices") else v for k, v in t.items()})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("supertuning")
def supertuning(m):
    case = lambda name, config, **how: m.case("supertuning", name, "SUPERTUNING", {"sparsity": 0.95, "target_modules": FEW, **config}, **how)
    case("indices", {})
    case("smallest", {"select_top": False})
    case("no_indices", {"save_precomputed_indices": False})
    case("no_indices_smallest", {"save_precomputed_indices": False, "select_top": False, "target_modules": SIX, "sparsity": 0.9}, base="xlmr")
    # Half precision has equal magnitudes by the dozen, and their order is `torch.topk`'s: a partial sort where k is at most
    # a 64th of all, else a selection and a sort, as libstdc++ has them. Verified: its algorithms give this order exactly.
    case("ties", {"save_precomputed_indices": False, "sparsity": 0.9}, base="bert_bf16")
    case("ties_few", {"save_precomputed_indices": False, "sparsity": 0.985, "target_modules": SIX}, base="bert_bf16")
    case("ties_smallest", {"save_precomputed_indices": False, "sparsity": 0.8, "select_top": False}, base="bert_bf16")
    case("ties_smallest_few", {"save_precomputed_indices": False, "sparsity": 0.985, "select_top": False, "target_modules": SIX}, base="bert_odd_bf16")
    case("lora", {"r": 4})
    case("lora_alpha_no_indices", {"r": 2, "lora_alpha": 3, "save_precomputed_indices": False}, base="roberta")
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("osf")
def osf(m):
    case = lambda name, config, **how: m.case("osf", name, "OSF", {"effective_rank": 24, "target_modules": FEW, **config}, **how)
    case("rank", {})
    case("fraction", {"effective_rank": 0.75})
    case("default_rank", {"effective_rank": None})
    case("pattern", {"target_modules": SIX, "rank_pattern": {"query": 28, "layer.1.output": 20}}, base="roberta")
    case("every_linear", {"target_modules": None, "effective_rank": 28})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("deft")
def deft(m):
    case = lambda name, config, **how: m.case("deft", name, "DEFT", {"r": 4, "target_modules": FEW, **config}, **how)
    case("relu", {})
    case("qr", {"decomposition_method": "qr"})
    case("relu_alpha", {"alpha": 6, "target_modules": SIX}, base="roberta")
    case("qr_alpha", {"alpha": 2, "decomposition_method": "qr", "target_modules": SIX}, types=True)
    case("para", {"para": True})
    case("para_qr", {"para": True, "decomposition_method": "qr"})
    case("rank_above_width", {"r": 40, "decomposition_method": "qr", "target_modules": ["query"]})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("frod")
def frod(m):
    case = lambda name, config, **how: m.case("frod", name, "FROD", {"target_modules": QV, "sparse_rate": 0.1, "progressbar": False, **config}, **how)
    case("qv", {})
    case("few", {"target_modules": FEW})
    case("tall_and_wide", {"target_modules": ["intermediate.dense", "output.dense"], "sparse_rate": 0.02}, base="roberta")
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
