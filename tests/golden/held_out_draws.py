"""The options of each PEFT method, drawn: a name → a function of a `Draw` that gives the library's kind and options."""

import math

from peft.tuners.boft import layer as boft_layer
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, LoraGAConfig, MontecloraConfig, VeloraConfig
from peft_families.products import prune  # noqa: F401
from peft_families.rotations import BlockDiagonal

boft_layer._FBD_CUDA = BlockDiagonal

DRAWS = {}
# Names of this table that are forks of a kind of the library's.
KINDS = {}
# What two adapters of one model must have in common.
SHARED = {"VERA": ("r", "projection_prng_key", "save_projection", "target_modules"), "VBLORA": ("num_vectors", "vector_length"),
          "TINYLORA": ("r", "u", "target_modules", "save_projection", "projection_seed"), "UNILORA": ("theta_d_length", "target_modules", "r", "proj_seed", "save_indices"), "MISS": ("init_weights",),
          "LILY": ("stride_A",), "SUPERTUNING": ("save_precomputed_indices",), "PVERA": ("r", "projection_prng_key", "save_projection", "target_modules"),
          "RANDLORA": ("r", "projection_prng_key", "save_projection", "target_modules", "sparse", "very_sparse")}
WORDS = "word_embeddings"


def kind(name, of=None):
    KINDS[name] = of or name

    def add(options):
        DRAWS[name] = lambda d: (KINDS[name], options(d, d.r))
        return options
    return add


def divisors(n, low=1):
    return [i for i in range(low, n + 1) if n % i == 0]


def common(d, low=1):
    """Divisors of both widths."""
    return divisors(math.gcd(d.hidden, d.inner), low)


def patterns(r, alpha=True):
    out = {}
    if r.random() < 0.4:
        out["rank_pattern"] = r.choice([{"query": 2}, {r".*layer\.0.*": 5, "value": 1}, {"self.key": 3, r"^encoder\.layer\.0\.attention\.self\.query": 1}])
    if alpha and r.random() < 0.4:
        out["alpha_pattern"] = r.choice([{"query": 3}, {r".*output\.dense": 1.5, "value": 9}, {r"layer\.0\..*": 2}])
    return out


def lora(d, r):
    return {"r": r.randint(1, 7), "lora_alpha": r.choice([1, 4, 8, 13]), "use_rslora": r.random() < 0.3, "lora_dropout": r.choice([0.0, 0.1]), **patterns(r)}


@kind("LORA")
def _(d, r):
    out = lora(d, r) | {"lora_bias": r.random() < 0.3, "init_lora_weights": r.choice([True, False, "gaussian", "eva"])}
    if r.random() < 0.2:
        out["target_modules"] = "all-linear"
    return out


@kind("DORA", "LORA")
def _(d, r):
    return lora(d, r) | {"use_dora": True, **({"target_modules": [WORDS, "query"]} if r.random() < 0.3 else {})}


@kind("LORA_EMBEDDING", "LORA")
def _(d, r):
    names = [WORDS, "position_embeddings", "token_type_embeddings"]
    return lora(d, r) | {"target_modules": sorted(r.sample(names, r.randint(1, 3)) + r.sample(["query", "value"], r.randint(0, 2)))}


@kind("LORA_TOKENS", "LORA")
def _(d, r):
    rows = sorted(r.sample(range(2, d.vocab), r.randint(2, 20)))
    r.shuffle(rows)
    return lora(d, r) | {"trainable_token_indices": r.choice([{WORDS: rows}, {WORDS: rows, "position_embeddings": [3, 0, 5]}]), "use_dora": r.random() < 0.3}


@kind("LORA_INIT", "LORA")
def _(d, r):
    init = r.choice(["pissa", "pissa", "olora", "orthogonal", "mica", "lora_ga"])
    out = lora(d, r) | {"init_lora_weights": init, "r": r.choice([2, 4, 6])}
    if init == "lora_ga":
        out["lora_ga_config"] = LoraGAConfig()
    if init == "orthogonal":
        out.pop("rank_pattern", None)
    return out


@kind("KASA", "LORA")
def _(d, r):
    return lora(d, r) | {"kasa_config": KasaConfig()}


@kind("BDLORA", "LORA")
def _(d, r):
    blocks = r.choice([b for b in (2, 3, 4, 5) if d.hidden % b == 0 and d.inner % b == 0] or [1])
    split = BdLoraConfig(target_modules_bd_a=r.choice([["query"], ["output.dense", "key"]]), target_modules_bd_b=r.choice([["value"], ["intermediate"]]),
                         nblocks=blocks, match_strict=False)
    return {"r": blocks * r.randint(1, 2), "lora_alpha": r.choice([3, 8]), "use_bdlora": split}


@kind("TRAINED_OTHERWISE", "LORA")
def _(d, r):
    return lora(d, r) | r.choice([{"velora_config": VeloraConfig(num_groups=1)}, {"monteclora_config": MontecloraConfig(num_samples=2)}])


@kind("LAYER_REPLICATION", "LORA")
def _(d, r):
    n = d.layers
    return lora(d, r) | {"layer_replication": r.choice([[[0, n], [0, n]], [[0, n], [n - 1, n]], [[0, 1], [0, n], [0, 1]]]), "target_modules": ["query", "output.dense"]}


@kind("TARGET_PARAMETERS", "LORA")
def _(d, r):
    return {"r": r.randint(1, 5), "lora_alpha": r.choice([2, 8]), "target_modules": r.choice([[], ["key"]]),
            "target_parameters": sorted(r.sample(["query.weight", "value.weight", "intermediate.dense.weight", "output.dense.weight"], 2))}


@kind("ADALORA")
def _(d, r):
    return {"init_r": r.randint(2, 8), "target_r": r.randint(1, 2), "lora_alpha": r.choice([1, 8, 20]), "total_step": 4, "use_rslora": r.random() < 0.3}


@kind("IA3")
def _(d, r):
    return {}


@kind("LOHA")
def _(d, r):
    return {"r": r.randint(1, 5), "alpha": r.choice([1, 3, 8]), **patterns(r)}


@kind("LOKR")
def _(d, r):
    return {"r": r.choice([1, 2, 3, 50]), "alpha": r.choice([1, 3, 8]), "decompose_both": r.random() < 0.4, "decompose_factor": r.choice([-1, 2, 4, 5]), **patterns(r)}


@kind("OFT")
def _(d, r):
    out = {"oft_block_size": r.choice([3, 4, 5, 8, 10, 16])} if r.random() < 0.6 else {"oft_block_size": 0, "r": r.choice([2, 3, 4, 6])}
    out |= {"block_share": r.random() < 0.3, "coft": r.random() < 0.3, "eps": r.choice([0.1, 0.7])}
    out |= r.choice([{"use_cayley_neumann": False}, {"num_cayley_neumann_terms": r.randint(2, 7)}])
    return out | ({"target_modules": [WORDS, "value"]} if r.random() < 0.3 else {})


@kind("BOFT")
def _(d, r):
    return {"boft_block_size": r.choice([i for i in common(d, 2) if i % 2 == 0] or [2])}


@kind("BUTTERFLIES", "BOFT")
def _(d, r):
    return {"boft_block_size": r.choice([2, 4]), "boft_n_butterfly_factor": r.randint(2, 4)}


@kind("QALORA", "LORA")
def _(d, r):
    return lora(d, r) | {"use_qalora": True, "qalora_group_size": r.choice([1, 16])}


@kind("HRA")
def _(d, r):
    return {"r": r.randint(1, 9), "apply_GS": r.random() < 0.5}


@kind("VERA")
def _(d, r):
    return {"r": r.randint(2, 12), "projection_prng_key": r.randint(0, 10**6), "save_projection": r.random() < 0.4}


@kind("PVERA")
def _(d, r):
    return {"r": r.randint(2, 12), "projection_prng_key": r.randint(0, 10**6), "save_projection": r.random() < 0.4}


@kind("RANDLORA")
def _(d, r):
    return {"r": r.randint(4, 14), "randlora_alpha": r.choice([4, 10]), "projection_prng_key": r.randint(0, 10**6), "save_projection": r.random() < 0.5,
            **r.choice([{}, {}, {"sparse": True}, {"very_sparse": True}])}


@kind("VBLORA")
def _(d, r):
    return {"r": r.randint(1, 3), "num_vectors": r.choice([5, 40, 260]), "vector_length": r.choice(common(d, 2) or [1]), "topk": r.randint(2, 4), "save_only_topk_weights": r.random() < 0.5}


@kind("UNILORA")
def _(d, r):
    return {"r": r.randint(1, 4), "theta_d_length": r.randint(10, 150), "proj_seed": r.randint(0, 10**6), "save_indices": r.random() < 0.3}


@kind("TINYLORA")
def _(d, r):
    out = {"r": r.randint(1, 4), "u": r.randint(1, 9), "weight_tying": r.choice([0.0, 0.3, 0.5, 0.8, 1.0]), "save_projection": r.random() < 0.5, "projection_seed": r.randint(0, 10**6)}
    return out | ({"target_modules": [WORDS, "key"]} if r.random() < 0.2 else {})


@kind("FOURIERFT")
def _(d, r):
    return {"n_frequency": r.randint(1, 200), "scaling": r.choice([60.0, 150.0]), "random_loc_seed": r.randint(0, 10**6), **({"n_frequency_pattern": {"query": 7}} if r.random() < 0.3 else {})}


@kind("WAVEFT")
def _(d, r):
    family = r.choice(["db1", "db1", *(f"db{i}" for i in range(2, 11)), *(f"sym{i}" for i in range(2, 11)), *(f"coif{i}" for i in range(1, 6))])
    return {"n_frequency": r.randint(1, 200), "scaling": r.choice([10.0, 25.0]), "random_loc_seed": r.randint(0, 10**6), "wavelet_family": family, "use_idwt": r.random() < 0.8,
            "proportional_parameters": r.random() < 0.2}


@kind("SHIRA")
def _(d, r):
    return {"r": r.randint(1, 5), "random_seed": r.choice([None, 11])}


@kind("SUPERTUNING")
def _(d, r):
    out = {"sparsity": r.choice([0.8, 0.95, 0.99]), "select_top": r.random() < 0.6, "save_precomputed_indices": r.random() < 0.5}
    return out | r.choice([{}, {"r": 3}, {"r": 2, "lora_alpha": 5}])


@kind("ROAD")
def _(d, r):
    return {"variant": r.choice(["road_1", "road_2", "road_4"]), "group_size": r.choice([i for i in common(d, 2) if i % 2 == 0] or [2])}


@kind("GRALORA")
def _(d, r):
    k = r.choice([i for i in common(d) if i in (1, 2, 3, 4, 5)])
    return {"gralora_k": k, "r": k * r.randint(1, 3), "alpha": r.choice([2, 9]), "hybrid_r": r.choice([0, 0, 2, 3])}


@kind("DELORA")
def _(d, r):
    return {"r": r.randint(1, 6), **patterns(r, False)}


@kind("HIRA")
def _(d, r):
    return {"r": r.randint(1, 6), **patterns(r, False), **({"target_modules": [WORDS, "position_embeddings", "query"]} if r.random() < 0.3 else {})}


@kind("GLORA")
def _(d, r):
    return {"r": r.randint(1, 5), "config_A_B": r.choice(["lora", "vector", "constant", "none"]), "config_C": r.choice(["lora", "vector", "none"]),
            "config_D_E": r.choice(["vector", "constant", "none"])}


@kind("BEFT")
def _(d, r):
    return {}


@kind("DEFT")
def _(d, r):
    return {"r": r.choice([1, 3, 6, 80]), "decomposition_method": r.choice(["relu", "qr"]), "alpha": r.choice([None, 4, 9]), "para": r.random() < 0.25}


@kind("FROD")
def _(d, r):
    return {"sparse_rate": r.choice([0.0, 0.01, 0.1]), "progressbar": False, "projection_prng_key": r.randint(0, 10**6), "regularization_alpha": r.choice([0.001, 0.1])}


@kind("OSF")
def _(d, r):
    out = {"effective_rank": r.choice([None, 5, 0.25, 0.6, d.hidden - 3])}
    return out | ({"rank_pattern": {"query": 7, "output": 11}} if r.random() < 0.3 else {})


@kind("PEANUT")
def _(d, r):
    acts = ["relu", "gelu", "gelu_new", "silu", "tanh", "sigmoid", "mish", "leaky_relu", "relu6", "relu2", "quick_gelu", "gelu_fast", "linear", "gelu_pytorch_tanh", "laplace", "gelu_10"]
    return {"r": r.randint(1, 5), "depth": r.randint(0, 3), "act_fn": r.choice(acts), "scaling": r.choice([1.0, 0.4, 2.0])}


@kind("LILY")
def _(d, r):
    return {"r": r.randint(1, 5), "stride_A": r.randint(1, 3), "num_B": r.randint(2, 4), "scaling": r.choice([1.0, 0.7])}


@kind("MISS")
def _(d, r):
    init = r.choice([True, True, False, "mini", "bat"])
    r_ = r.choice(common(d, 2)) if init == "bat" else r.randint(2, 9)
    return {"r": r_, "init_weights": init, **({"mini_r": r.choice(common(d))} if init == "mini" else {})}


@kind("C3A")
def _(d, r):
    return {"block_size": r.choice(common(d, 2)), **({"block_size_pattern": {"query": d.hidden}} if r.random() < 0.3 else {})}


@kind("LN_TUNING")
def _(d, r):
    return {"target_modules": r.choice([["LayerNorm"], ["output.LayerNorm"], ["embeddings.LayerNorm", "layer.0.output.dense"], r".*layer\.0.*LayerNorm"])}


@kind("POLY")
def _(d, r):
    splits = r.choice([i for i in common(d) if i in (1, 2, 3, 4, 5)])
    return {"r": r.randint(1, 4), "n_tasks": r.randint(2, 5), "n_skills": r.randint(1, 4), "n_splits": splits}


@kind("TRAINABLE_TOKENS")
def _(d, r):
    rows = r.sample(range(2, d.vocab), r.randint(5, 40))
    return {"token_indices": rows, "target_modules": [WORDS]}


def prompt(d, r, most=12):
    return {"num_virtual_tokens": r.randint(1, most)}


@kind("PROMPT_TUNING")
def _(d, r):
    return prompt(d, r)


@kind("P_TUNING")
def _(d, r):
    return prompt(d, r) | {"encoder_hidden_size": r.choice([8, 20]), "encoder_reparameterization_type": r.choice(["MLP", "LSTM"])}


@kind("MULTITASK_PROMPT_TUNING")
def _(d, r):
    return prompt(d, r) | {"num_tasks": r.randint(2, 4), "num_ranks": r.randint(1, 3)}


@kind("PREFIX_TUNING")
def _(d, r):
    return prompt(d, r) | r.choice([{}, {"prefix_projection": True, "encoder_hidden_size": r.choice([10, 24])}])


@kind("CARTRIDGE")
def _(d, r):
    n = r.randint(2, 10)
    return {"num_virtual_tokens": n, "num_frozen_tokens": r.randint(0, n - 1)}
