"""LoRA beyond the plain cases of make.py (`peft-lora`): its variants, its initialisations, its options.

Not made, because peft 0.21.2 cannot on an encoder: Arrow (a router over other adapters, no checkpoint of its own), LoRA of
`nn.MultiheadAttention` and of convolutions (no such modules here).
"""

from peft.tuners.lora import layer
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, LoraGAConfig, MontecloraConfig, VeloraConfig
from peft.tuners.lora.variants import QALoraLinearVariant

from peft_machine import Adapter

from .registry import FEW, QV, SEQ, SIX, TOK, family

WORDS = "word_embeddings"


@family("dora")
def dora(m):
    case = lambda name, config, **how: m.case("dora", name, "LORA", {"r": 4, "lora_alpha": 8, "use_dora": True, **config}, **how)
    case("qv", {"target_modules": QV}, types=True)
    case("six", {"target_modules": SIX, "r": 3, "lora_alpha": 5, "use_rslora": True, "lora_dropout": 0.1})
    case("bias_all", {"target_modules": FEW, "bias": "all"})
    case("bias_lora_only", {"target_modules": QV, "bias": "lora_only"})
    case("embedding", {"target_modules": [WORDS, "query"], "r": 2})
    case("every_embedding", {"target_modules": ["word_embeddings", "token_type_embeddings", "position_embeddings"], "r": 2}, types=True)
    case("patterns", {"target_modules": SIX, "rank_pattern": {"query": 2, "layer.1.output.dense": 6}, "alpha_pattern": {r".*self\.key": 3}})
    case("pissa", {"target_modules": FEW, "init_lora_weights": "pissa"})
    case("roberta", {"target_modules": SIX}, base="roberta")
    case("seqcls", {"target_modules": QV, "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    case("xlmr_seqcls_head_of_base", {"target_modules": ["query", "out_proj"]}, base="xlmr_seqcls")
    # The raw key of releases before 0.9 is what is saved; a file may have `.weight` too.
    case("magnitude_weight_key", {"target_modules": QV}, edit_tensors=lambda t: {k + ".weight" if k.endswith("lora_magnitude_vector") else k: v for k, v in t.items()})
    case("half_precision", {"target_modules": FEW}, edit_tensors=lambda t: {k: v.half() for k, v in t.items()})


@family("lora_embedding")
def lora_embedding(m):
    case = lambda name, config, **how: m.case("lora_embedding", name, "LORA", {"r": 4, "lora_alpha": 8, **config}, **how)
    case("words", {"target_modules": [WORDS]})
    case("words_and_linear", {"target_modules": [WORDS, *QV], "use_rslora": True, "lora_dropout": 0.1})
    case("positions_and_types", {"target_modules": ["position_embeddings", "token_type_embeddings"], "r": 2}, types=True)
    case("regex", {"target_modules": r".*(word|position)_embeddings|.*layer\.1\.attention\.self\.key", "r": 3, "lora_alpha": 4})
    case("xlmr", {"target_modules": [WORDS], "r": 3}, base="xlmr")
    case("roberta_positions", {"target_modules": [WORDS, "position_embeddings"], "r": 2}, base="roberta")
    case("patterns", {"target_modules": [WORDS, "query"], "rank_pattern": {WORDS: 2}, "alpha_pattern": {WORDS: 5}})
    case("tied_decoder", {"target_modules": [WORDS], "r": 2}, base="bert_mlm")
    case("seqcls", {"target_modules": [WORDS, "value"], "task_type": "SEQ_CLS", "r": 2}, cls=SEQ, labels=2)


@family("lora_tokens")
def lora_tokens(m):
    """`trainable_token_indices`: rows of an embedding that the adapter replaces, beside its updates."""
    case = lambda name, config, **how: m.case("lora_tokens", name, "LORA", {"r": 4, "lora_alpha": 8, "target_modules": QV, **config}, **how)
    rows = [[5, 7, 11], [2, 99, 5, 5, 30], [11]]
    case("list", {"trainable_token_indices": [5, 11, 99]}, base="roberta", rows=rows)
    case("by_module", {"trainable_token_indices": {WORDS: [5, 11, 99, 2]}}, rows=rows)
    case("positions", {"trainable_token_indices": {"position_embeddings": [0, 3], WORDS: [7]}}, rows=rows)
    case("dora", {"trainable_token_indices": {WORDS: [99, 7]}, "use_dora": True}, rows=rows)
    case("with_head", {"trainable_token_indices": {WORDS: [5, 7]}, "task_type": "TOKEN_CLS"}, cls=TOK, labels=3, rows=rows)
    case("tied_decoder", {"trainable_token_indices": {WORDS: [5, 7, 30]}}, base="bert_mlm", rows=rows)
    # The decoder's own bias then has a name of its wrapper.
    case("tied_decoder_biases", {"trainable_token_indices": {WORDS: [5, 7, 30]}, "bias": "all"}, base="bert_mlm", rows=rows)


@family("modules_to_save")
def modules_to_save(m):
    case = lambda name, config, **how: m.case("modules_to_save", name, "LORA", {"r": 2, "lora_alpha": 4, "target_modules": ["query"], **config}, **how)
    case("word_embeddings", {"modules_to_save": [WORDS]})
    case("position_embeddings", {"modules_to_save": ["position_embeddings", "embeddings.LayerNorm"]})
    case("norms", {"modules_to_save": ["LayerNorm"]})
    case("pooler", {"modules_to_save": ["pooler"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    case("attention_block", {"modules_to_save": ["layer.1.attention"]}, base="xlmr")
    case("tied_decoder", {"modules_to_save": [WORDS]}, base="bert_mlm")


@family("lora_init")
def lora_init(m):
    """Initialisations that reach inference, because loading repeats them on the base, and those that do not."""
    case = lambda name, config, **how: m.case("lora_init", name, "LORA", {"r": 4, "lora_alpha": 8, "target_modules": FEW, **config}, **how)
    case("pissa", {"init_lora_weights": "pissa"})
    case("pissa_rslora_patterns", {"init_lora_weights": "pissa", "target_modules": SIX, "use_rslora": True, "rank_pattern": {"query": 2}, "alpha_pattern": {"key": 3}})
    case("pissa_roberta", {"init_lora_weights": "pissa", "target_modules": SIX}, base="roberta")
    case("pissa_seqcls", {"init_lora_weights": "pissa", "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    # Saved as plain LoRA of twice the rank.
    case("pissa_converted", {"init_lora_weights": "pissa"}, convert=True)
    case("pissa_converted_patterns", {"init_lora_weights": "pissa", "target_modules": SIX, "rank_pattern": {"query": 2}, "alpha_pattern": {"key": 3}}, convert=True)
    case("olora_converted_rslora", {"init_lora_weights": "olora", "use_rslora": True}, convert=True)
    case("olora", {"init_lora_weights": "olora"})
    case("olora_rank_above_half", {"init_lora_weights": "olora", "target_modules": SIX, "r": 20, "lora_alpha": 3})
    case("eva", {"init_lora_weights": "eva"})
    case("orthogonal", {"init_lora_weights": "orthogonal"})
    case("mica", {"init_lora_weights": "mica", "target_modules": [WORDS, *FEW]})
    case("gaussian", {"init_lora_weights": "gaussian"})
    case("false", {"init_lora_weights": False})
    # Loading has no gradient to start from, so that what is read back is plain LoRA.
    case("lora_ga", {"init_lora_weights": "lora_ga", "lora_ga_config": LoraGAConfig()})
    case("kasa", {"kasa_config": KasaConfig()})
    case("kasa_six", {"kasa_config": KasaConfig(), "target_modules": SIX, "r": 6, "lora_alpha": 3}, base="xlmr")


@family("lora_variants")
def lora_variants(m):
    case = lambda name, config, **how: m.case("lora_variants", name, "LORA", {"r": 4, "lora_alpha": 8, **config}, **how)
    bd = dict(use_bdlora=BdLoraConfig(target_modules_bd_a=["output.dense"], target_modules_bd_b=["query", "intermediate"], nblocks=2))
    case("bdlora", {"target_modules": ["query", "intermediate.dense", "output.dense"], **bd})
    case("bdlora_four_blocks", {"target_modules": SIX, "use_bdlora": BdLoraConfig(target_modules_bd_a=["key"], target_modules_bd_b=["value"], nblocks=4, match_strict=False)})
    case("velora", {"target_modules": FEW, "velora_config": VeloraConfig(num_groups=4)})
    case("monteclora", {"target_modules": FEW, "monteclora_config": MontecloraConfig(num_samples=2)})
    case("layer_replication", {"target_modules": QV, "layer_replication": [[0, 2], [0, 2], [1, 2]]})
    case("layer_replication_six", {"target_modules": SIX, "r": 2, "layer_replication": [[0, 1], [0, 2]], "bias": "lora_only"})
    other = lambda **config: Adapter("LORA", {"r": 3, "lora_alpha": 4, **config})
    case("layer_replication_rows", {"target_modules": QV, "layer_replication": [[0, 2], [1, 2]]}, row_compose=["a", "base", "b", "c", "a", "b"],
         others={"b": other(target_modules=SIX), "c": other(target_modules=["query", "output.dense"], layer_replication=[[1, 2], [0, 2], [0, 1]])})
    case("layer_replication_seqcls", {"target_modules": QV, "layer_replication": [[-1, 2], [0, 2]], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    case("layer_replication_modernbert", {"target_modules": ["Wqkv", "mlp.Wo"], "layer_replication": [[0, 3], [1, 4]]}, base="modernbert")
    case("layer_replication_deberta", {"target_modules": ["query_proj", "key_proj"], "layer_replication": [[0, 2], [0, 2]]}, base="deberta_v2_conv")


@family("qalora")
def qalora(m):
    """QALoRA's own class is chosen on layers that GPTQ has rounded; on others the library reads the entry and does without."""
    case = lambda name, config, **how: m.case("qalora", name, "LORA", {"r": 4, "lora_alpha": 8, "use_qalora": True, "qalora_group_size": 8, **config}, **how)
    case("on_plain_layers", {"target_modules": QV})
    plain = layer.Linear.resolve_lora_variant
    layer.Linear.resolve_lora_variant = lambda self, *, config, **kwargs: QALoraLinearVariant()
    try:
        case("pooled", {"target_modules": QV})
        case("pooled_six", {"target_modules": SIX, "qalora_group_size": 16, "use_rslora": True}, base="xlmr")
    finally:
        layer.Linear.resolve_lora_variant = plain


@family("target_parameters")
def target_parameters(m):
    case = lambda name, config, **how: m.case("target_parameters", name, "LORA", {"r": 4, "lora_alpha": 8, **config}, **how)
    case("weight_of_linear", {"target_modules": [], "target_parameters": ["query.weight", "output.dense.weight"]})
    case("beside_modules", {"target_modules": ["key"], "target_parameters": ["layer.1.attention.self.value.weight"], "use_rslora": True})
