"""Prompts and prefixes. Their own wrappers do the work, so that a task type is always given.

Not made: prefix tuning over RoBERTa's and XLM-R's sequence classification (0.21.2 calls the backbone and takes its
second output for the pooled one, and there it is the cache), and over question answering with token types (the wrapper
takes them and does not pass them on).
"""

import torch
from peft_machine import Adapter

from .registry import QA, SEQ, TOK, family

FE = {"task_type": "FEATURE_EXTRACTION"}
XSEQ, XTOK = "XLMRobertaForSequenceClassification", "XLMRobertaForTokenClassification"
BSEQ = dict(cls=SEQ, labels=3)
BTOK = dict(cls=TOK, labels=4)


def tasks(case, extra=()):
    """The task types that every prompt of the input has, over both architectures."""
    case("features", FE)
    # The wrapper of feature extraction drops token types.
    case("features_types", FE, types=True)
    case("features_xlmr", FE, base="xlmr")
    case("tokcls", {"task_type": "TOKEN_CLS"}, types=True, **BTOK)
    case("tokcls_xlmr", {"task_type": "TOKEN_CLS"}, base="xlmr_tokcls", cls=XTOK, labels=4)
    case("seqcls", {"task_type": "SEQ_CLS"}, types=True, **BSEQ)


@family("prompt_tuning")
def prompt_tuning(m):
    case = lambda name, config, **how: m.case("prompt_tuning", name, "PROMPT_TUNING", {"num_virtual_tokens": 3, **config}, **how)
    tasks(case)
    case("seqcls_xlmr", {"task_type": "SEQ_CLS"}, base="xlmr", cls=XSEQ, labels=2)
    case("seqcls_other_labels", {"task_type": "SEQ_CLS", "num_virtual_tokens": 1}, base="bert_seqcls", cls=SEQ, labels=5)
    case("roberta_qa", {"task_type": "QUESTION_ANS", "num_virtual_tokens": 5}, base="roberta", cls="RobertaForQuestionAnswering")
    case("qa", {"task_type": "QUESTION_ANS"}, cls=QA)
    case("as_long_as_positions", {**FE, "num_virtual_tokens": 23})
    case("pooler_saved", {"task_type": "SEQ_CLS", "modules_to_save": ["pooler"]}, **BSEQ)
    # Rows of different lengths in one batch, and one of the base.
    case("two_prompts_by_row", FE, others={"b": Adapter("PROMPT_TUNING", {**FE, "num_virtual_tokens": 7})}, row_compose=["a", "b", "base", "b", "a"])


@family("p_tuning")
def p_tuning(m):
    case = lambda name, config, **how: m.case("p_tuning", name, "P_TUNING", {"num_virtual_tokens": 3, "encoder_hidden_size": 16, **config}, **how)
    tasks(case)
    case("lstm", {**FE, "encoder_reparameterization_type": "LSTM"})
    case("lstm_xlmr_seqcls", {"task_type": "SEQ_CLS", "encoder_reparameterization_type": "LSTM", "num_virtual_tokens": 6}, base="xlmr", cls=XSEQ, labels=2)


@family("multitask_prompt_tuning")
def multitask_prompt_tuning(m):
    def case(name, config, task=1, **how):
        call = {"task_ids": torch.tensor([task])}
        m.case("multitask_prompt_tuning", name, "MULTITASK_PROMPT_TUNING", {"num_virtual_tokens": 3, "num_tasks": 3, "num_ranks": 2, **config},
               options={"task": task}, call=call, **how)

    case("seqcls", {"task_type": "SEQ_CLS"}, types=True, **BSEQ)
    case("seqcls_task_0", {"task_type": "SEQ_CLS", "num_ranks": 1}, task=0, **BSEQ)
    case("tokcls", {"task_type": "TOKEN_CLS"}, task=2, **BTOK)
    case("tokcls_xlmr", {"task_type": "TOKEN_CLS", "num_virtual_tokens": 5}, base="xlmr_tokcls", cls=XTOK, labels=4)
    case("seqcls_xlmr", {"task_type": "SEQ_CLS"}, base="xlmr", cls=XSEQ, labels=2)


@family("prefix_tuning")
def prefix_tuning(m):
    case = lambda name, config, **how: m.case("prefix_tuning", name, "PREFIX_TUNING", {"num_virtual_tokens": 3, **config}, **how)
    tasks(case)
    projected = {"prefix_projection": True, "encoder_hidden_size": 16}
    case("projection", {**FE, **projected})
    case("projection_xlmr_tokcls", {"task_type": "TOKEN_CLS", **projected, "num_virtual_tokens": 6}, base="xlmr_tokcls", cls=XTOK, labels=4)
    case("projection_seqcls", {"task_type": "SEQ_CLS", **projected}, **BSEQ)
    case("qa", {"task_type": "QUESTION_ANS"}, cls=QA)
    case("as_long_as_positions", {**FE, "num_virtual_tokens": 23})
    case("two_prefixes_by_row", FE, others={"b": Adapter("PREFIX_TUNING", {**FE, "num_virtual_tokens": 7})}, row_compose=["a", "b", "base", "b", "a"])


@family("cartridge")
def cartridge(m):
    case = lambda name, config, **how: m.case("cartridge", name, "CARTRIDGE", {"num_virtual_tokens": 4, "num_frozen_tokens": 1, **config}, **how)
    tasks(case)
    case("none_frozen", {**FE, "num_frozen_tokens": 0})


@family("trainable_tokens")
def trainable_tokens(m):
    case = lambda name, config, **how: m.case("trainable_tokens", name, "TRAINABLE_TOKENS", config, **how)
    rows = [[5, 7, 11], [2, 99, 5, 5, 30], [11]]
    case("default", {"token_indices": [5, 11, 99]}, rows=rows)
    case("order", {"token_indices": [99, 5, 30]}, rows=rows)
    case("positions", {"token_indices": [0, 2], "target_modules": ["position_embeddings"]}, rows=rows)
    case("two_embeddings", {"token_indices": [0, 1], "target_modules": ["token_type_embeddings", "position_embeddings"]}, types=True)
    case("xlmr", {"token_indices": [5, 7, 11]}, base="xlmr", rows=rows)
    case("tied_decoder", {"token_indices": [5, 7, 30]}, base="bert_mlm", rows=rows)
    # This method saves no head, whatever the task: it is the base's.
    case("seqcls", {"token_indices": [5, 99], "task_type": "SEQ_CLS"}, base="bert_seqcls", rows=rows)
