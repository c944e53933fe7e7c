"""Orthogonal updates: OFT, BOFT, HRA."""

import torch
from peft.tuners.boft import layer as boft_layer

from .registry import FEW, QV, SEQ, SIX, TOK, family


@family("oft")
def oft(m):
    case = lambda name, config, **how: m.case("oft", name, "OFT", {"oft_block_size": 8, "target_modules": FEW, **config}, **how)
    case("cayley", {"use_cayley_neumann": False})
    for terms in (1, 2, 3, 4, 5, 7):
        # With one term the series is 1 and the adapter is nothing.
        case(f"neumann_{terms}", {"num_cayley_neumann_terms": terms}, change=-1.0 if terms == 1 else 1e-2)
    case("blocks", {"oft_block_size": 0, "r": 4, "target_modules": SIX}, base="roberta")
    case("block_moved", {"oft_block_size": 7, "target_modules": QV})
    case("block_share", {"block_share": True, "use_cayley_neumann": False})
    case("block_share_neumann", {"block_share": True})
    case("coft", {"coft": True, "eps": 0.3})
    case("coft_cayley_shared", {"coft": True, "eps": 0.5, "block_share": True, "use_cayley_neumann": False})
    case("embedding", {"target_modules": ["word_embeddings", "query"]})
    case("every_embedding", {"target_modules": ["word_embeddings", "position_embeddings", "token_type_embeddings"], "use_cayley_neumann": False}, types=True)
    case("bias_all", {"bias": "all", "module_dropout": 0.1})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("boft")
def boft(m):
    case = lambda name, config, **how: m.case("boft", name, "BOFT", {"boft_block_size": 4, "target_modules": FEW, **config}, **how)
    case("block_4", {})
    case("block_8_six", {"boft_block_size": 8, "target_modules": SIX}, base="roberta")
    case("blocks", {"boft_block_size": 0, "boft_block_num": 2, "target_modules": QV}, types=True)
    case("bias_boft_only", {"bias": "boft_only", "boft_dropout": 0.1})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


class BlockDiagonal:
    """What the kernels compute that the library compiles for several butterfly factors, where it finds a GPU."""

    @staticmethod
    def forward(blocks):
        return [torch.stack([torch.block_diag(*factor) for factor in blocks])]


@family("boft_butterflies")
def boft_butterflies(m):
    case = lambda name, config, **how: m.case("boft_butterflies", name, "BOFT", config, **how)
    plain, boft_layer._FBD_CUDA = boft_layer._FBD_CUDA, BlockDiagonal
    try:
        case("two", {"boft_block_size": 4, "boft_n_butterfly_factor": 2, "target_modules": FEW})
        case("four_six", {"boft_block_size": 4, "boft_n_butterfly_factor": 4, "target_modules": SIX}, base="roberta")
        case("three_of_eight_blocks", {"boft_block_size": 0, "boft_block_num": 8, "boft_n_butterfly_factor": 3, "target_modules": QV, "bias": "boft_only"}, types=True)
    finally:
        boft_layer._FBD_CUDA = plain


@family("hra")
def hra(m):
    case = lambda name, config, **how: m.case("hra", name, "HRA", {"r": 4, "target_modules": FEW, **config}, **how)
    case("few", {})
    case("gram_schmidt", {"apply_GS": True})
    case("six", {"target_modules": SIX, "r": 6}, base="xlmr")
    case("six_gram_schmidt", {"target_modules": SIX, "r": 6, "apply_GS": True, "bias": "all"}, base="roberta")
    case("rank_1", {"r": 1, "bias": "hra_only"})
    case("seqcls", {"target_modules": ["query", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
