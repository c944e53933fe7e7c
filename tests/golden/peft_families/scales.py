"""Updates that scale or add: (IA)³, RoAd, BEFT, LN tuning; and those with a routing: Lily, Poly."""

import torch

from .registry import FEW, QV, SEQ, SIX, TOK, family


@family("ia3")
def ia3(m):
    case = lambda name, config, **how: m.case("ia3", name, "IA3", config, **how)
    case("default", {})
    case("default_roberta", {}, base="roberta")
    case("feedforward_list", {"target_modules": ["query", "intermediate.dense", "output.dense"], "feedforward_modules": ["intermediate.dense"]}, types=True)
    case("feedforward_regex", {"target_modules": r".*(query|dense)", "feedforward_modules": r".*layer\.1\..*dense"})
    # A suffix of the path without a dot before it.
    case("feedforward_no_dot", {"feedforward_modules": ["utput.dense", "ey"], "target_modules": ["query", "key", "ey", "output.dense", "utput.dense"]})
    case("no_feedforward", {"target_modules": SIX, "feedforward_modules": []})
    case("whole_paths", {"target_modules": ["encoder.layer.1.attention.self.key", "encoder.layer.0.output.dense"], "feedforward_modules": ["encoder.layer.0.output.dense"]})
    case("exclude", {"target_modules": SIX, "feedforward_modules": [], "exclude_modules": ["pooler.dense", "query"]})
    case("seqcls", {"task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    case("seqcls_pooler_and_norms", {"task_type": "SEQ_CLS", "target_modules": ["value", "pooler.dense"], "feedforward_modules": ["pooler.dense"], "modules_to_save": ["LayerNorm"]}, cls=SEQ, labels=2)
    case("xlmr_tokcls", {"task_type": "TOKEN_CLS", "target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]}, base="xlmr_tokcls", cls="XLMRobertaForTokenClassification", labels=4)
    case("half_precision", {}, edit_tensors=lambda t: {k: v.bfloat16() for k, v in t.items()})


@family("road")
def road(m):
    case = lambda name, config, **how: m.case("road", name, "ROAD", {"group_size": 8, **config}, **how)
    for variant in ("road_1", "road_2", "road_4"):
        case(variant, {"variant": variant, "target_modules": FEW})
    case("road_1_six", {"variant": "road_1", "target_modules": SIX, "group_size": 16}, base="roberta")
    case("road_2_pairs", {"variant": "road_2", "target_modules": QV, "group_size": 2}, types=True)
    case("road_4_seqcls", {"variant": "road_4", "target_modules": ["output.dense", "pooler.dense"], "group_size": 32, "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)


@family("beft")
def beft(m):
    case = lambda name, config, **how: m.case("beft", name, "BEFT", config, **how)
    case("value", {"target_modules": ["value"]})
    case("six", {"target_modules": SIX}, base="xlmr")
    case("seqcls", {"target_modules": ["key", "value", "pooler.dense"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    case("classifier_of_base", {"target_modules": ["value", "classifier"]}, base="bert_seqcls")


@family("ln_tuning")
def ln_tuning(m):
    case = lambda name, config, **how: m.case("ln_tuning", name, "LN_TUNING", config, **how)
    case("default", {"target_modules": ["LayerNorm"]})
    case("one_layer", {"target_modules": r".*layer\.1\.output\.LayerNorm"})
    case("attention_norms", {"target_modules": ["attention.output.LayerNorm"]}, base="roberta")
    case("embedding_norm", {"target_modules": ["embeddings.LayerNorm"]}, types=True)
    case("exclude", {"target_modules": ["LayerNorm"], "exclude_modules": ["embeddings.LayerNorm"]})
    # Any module can be the target: it is copied and replaced whole.
    case("linear", {"target_modules": ["layer.0.output.LayerNorm", "layer.0.intermediate.dense"]})
    case("word_embeddings", {"target_modules": ["word_embeddings"]})
    case("seqcls", {"target_modules": ["LayerNorm"], "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    case("mlm_norm", {"target_modules": ["LayerNorm"]}, base="bert_mlm")


@family("lily")
def lily(m):
    case = lambda name, config, **how: m.case("lily", name, "LILY", {"r": 4, **config}, **how)
    case("qv", {"target_modules": QV})
    case("shared", {"target_modules": ["query", "output.dense", "intermediate.dense"], "stride_A": 2, "num_B": 3, "scaling": 2.0})
    case("three_layers", {"target_modules": SIX, "stride_A": 2, "r": 3}, base="bert_three_layers")
    case("seqcls", {"target_modules": ["key", "pooler.dense"], "task_type": "SEQ_CLS", "num_B": 4}, cls=SEQ, labels=3)


@family("poly")
def poly(m):
    def case(name, config, task=1, **how):
        tasks = torch.tensor([task])
        m.case("poly", name, "POLY", {"r": 4, "n_tasks": 3, "task_type": "FEATURE_EXTRACTION", **config}, options={"task": task}, call={"task_ids": tasks}, **how)

    case("qv", {"target_modules": QV})
    case("task_0", {"target_modules": FEW}, task=0)
    case("task_2_splits", {"target_modules": FEW, "n_skills": 3, "n_splits": 2}, task=2)
    case("three_four_splits", {"target_modules": FEW, "n_skills": 2, "n_splits": 4, "r": 2}, base="roberta")
    case("seqcls", {"target_modules": QV, "task_type": "SEQ_CLS"}, cls=SEQ, labels=3)
    case("xlmr_tokcls", {"target_modules": QV, "task_type": "TOKEN_CLS", "n_splits": 2}, base="xlmr_tokcls", cls="XLMRobertaForTokenClassification", labels=3)
