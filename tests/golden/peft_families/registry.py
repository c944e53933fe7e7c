"""The table of families: name of the folder → the function that makes its cases."""

FAMILIES = {}
SIX = ["query", "key", "value", "dense"]
QV = ["query", "value"]
# A few of each shape: square, wide, tall.
FEW = ["layer.0.attention.self.query", "layer.1.intermediate.dense", "layer.1.output.dense"]
SEQ, TOK, QA = "BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering"


# Each weight-space method at its smallest, with what its configuration takes beyond `target_modules`.
SMALLEST = {
    "LORA": {"r": 3}, "ADALORA": {"init_r": 3, "total_step": 4}, "LOHA": {"r": 2, "alpha": 2}, "LOKR": {"r": 2, "alpha": 2},
    "OFT": {"oft_block_size": 8}, "BOFT": {"boft_block_size": 4}, "HRA": {"r": 3}, "VERA": {"r": 4}, "PVERA": {"r": 4},
    "RANDLORA": {"r": 8, "randlora_alpha": 8}, "VBLORA": {"r": 2, "num_vectors": 9, "vector_length": 8},
    "UNILORA": {"r": 2, "theta_d_length": 40}, "TINYLORA": {"r": 2, "u": 5}, "FOURIERFT": {"n_frequency": 30},
    "WAVEFT": {"n_frequency": 30}, "SHIRA": {"r": 2}, "SUPERTUNING": {"sparsity": 0.95}, "ROAD": {"group_size": 8},
    "GRALORA": {"r": 4, "alpha": 4}, "DELORA": {"r": 3}, "HIRA": {"r": 3}, "GLORA": {"r": 3}, "BEFT": {}, "DEFT": {"r": 3},
    "FROD": {"sparse_rate": 0.05, "progressbar": False}, "OSF": {"effective_rank": 24}, "PEANUT": {"r": 3, "depth": 1},
    "LILY": {"r": 3}, "MISS": {"r": 4}, "C3A": {"block_size": 8}, "IA3": {"feedforward_modules": []},
    "POLY": {"r": 2, "n_tasks": 2, "task_type": "FEATURE_EXTRACTION"},
}


def family(name):
    def add(cases):
        FAMILIES[name] = cases
        return cases
    return add
