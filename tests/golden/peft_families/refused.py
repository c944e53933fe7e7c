"""Folders whose numbers cannot be had, and a phrase of the reason. Under names that do not give the phrase away.

X-LoRA, CPT, adaption prompts and Shadow are written by hand, with the keys and tensors that their sources save: the
library makes them on decoders alone.
"""

import shutil

import torch
from make import fresh, write_json
from safetensors.torch import save_file

from .registry import FEW, QV, family

NONE = {"base_model_name_or_path": "golden/bert", "inference_mode": True, "peft_version": "0.21.2", "revision": None}


@family("refused")
def refused(m):
    def by_hand(name, phrase, config, tensors):
        folder = fresh(m.root / "refused" / name)
        write_json(folder / "adapter" / "adapter_config.json", {**NONE, **config})
        save_file(tensors, folder / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
        m.refuse(folder, f"refused/{name}", phrase)

    real = lambda name, *more, **how: m.refused("refused", name, *more, **how)
    # Nothing in the file says which rows belong to which cluster.
    real("clustered_rows", "ADAMSS", "ADAMSS", {"target_modules": QV, "r": 8, "num_subspaces": 3})
    # Signs of singular vectors that only one LAPACK gives.
    real("singular_vectors", "PSOFT", "PSOFT", {"target_modules": QV, "r": 4, "psoft_alpha": 4})
    real("joint_vectors", "FROD", "save_projection", {"target_modules": QV, "sparse_rate": 0.05, "save_projection": False, "progressbar": False})
    real("random_start", "LORA", "pissa_niter", {"target_modules": FEW, "r": 4, "init_lora_weights": "pissa_niter_4"})
    start = lambda value: dict(config={"target_modules": FEW, "r": 4}, edit=lambda c: c.update(init_lora_weights=value))
    real("covariance_start", "LORA", "corda", **start("corda"))
    real("quantised_start", "LORA", "loftq", **start("loftq"))
    real("noise_at_inference", "PVERA", "sample_at_inference", {"target_modules": QV, "r": 4, "sample_at_inference": True})
    real("invoked_by_tokens", "LORA", "alora_invocation_tokens", {"target_modules": QV, "r": 4}, edit=lambda c: c.update(alora_invocation_tokens=[5, 7]))
    real("routed_experts", "LORA", "arrow_config", {"target_modules": QV, "r": 4}, edit=lambda c: c.update(arrow_config={"top_k": 2, "router_temperature": 1.0}))
    # Before 0.14: blocks of another shape under another name.
    real("old_rotation", "OFT", "oft_r", {"target_modules": QV, "oft_block_size": 8}, edit_tensors=lambda t: {k.replace("oft_R.weight", "oft_r"): v for k, v in t.items()})
    real("old_rotation_no_size", "OFT", "oft_block_size", {"target_modules": QV, "oft_block_size": 8}, edit=lambda c: c.pop("oft_block_size"))
    # Which row of its table is an argument of the call.
    several = {"target_modules": QV, "r": 2, "n_tasks": 3, "task_type": "FEATURE_EXTRACTION"}
    real("choice_left_out", "POLY", "task", several)
    prompts = {"num_virtual_tokens": 3, "num_tasks": 2, "task_type": "TOKEN_CLS"}
    real("choice_left_out_of_prompts", "MULTITASK_PROMPT_TUNING", "task", prompts, cls="BertForTokenClassification", labels=3)
    too_long = {"num_virtual_tokens": 38, "task_type": "FEATURE_EXTRACTION"}
    real("prompt_beyond_positions", "PROMPT_TUNING", "INPUT_TOO_LONG", too_long)
    real("prefix_beyond_positions", "PREFIX_TUNING", "INPUT_TOO_LONG", too_long)

    gone = m.root / "refused" / "choice_beyond"
    shutil.rmtree(gone, ignore_errors=True)
    real("choice_beyond", "POLY", "task", several)
    text = (gone / "request.json").read_text()
    (gone / "request.json").write_text(text.replace('"a": "adapter"', '"a": {"path": "adapter", "task": 3}'))

    g = torch.Generator().manual_seed(1)
    r = lambda *shape: torch.randn(shape, generator=g) * 0.2
    by_hand("dense_router", "XLORA", {
        "peft_type": "XLORA", "task_type": "CAUSAL_LM", "adapters": {"0": "0"}, "hidden_size": 32, "xlora_depth": 1, "xlora_size": 2048,
        "layerwise_scalings": False, "enable_softmax": True, "enable_softmax_topk": False, "softmax_temperature": 1.0, "top_k_lora": None,
        "use_trainable_adapters": False, "xlora_dropout_p": 0.2, "scaling_pass_value": 0.0, "global_scaling_weight": 1.0,
    }, {"base_model.internal_xlora_classifier.layers.0.weight": r(1, 32), "base_model.internal_xlora_classifier.layers.0.bias": r(1)})
    by_hand("context_tokens", "CPT", {
        "peft_type": "CPT", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4, "token_dim": 32, "num_attention_heads": 4, "num_layers": 2,
        "num_transformer_submodules": 1, "cpt_token_ids": [5, 6, 7, 8], "cpt_mask": [1, 1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3, 4],
        "opt_weighted_loss_type": "none", "opt_loss_decay_factor": 1.0, "opt_projection_epsilon": 0.1, "opt_projection_format_epsilon": 0.1,
    }, {"prompt_embeddings": r(4, 32)})
    by_hand("gated_decoder_prompt", "ADAPTION_PROMPT", {
        "peft_type": "ADAPTION_PROMPT", "task_type": "CAUSAL_LM", "adapter_len": 4, "adapter_layers": 1, "target_modules": "self_attn",
    }, {"base_model.model.layers.1.self_attn.adaption_prompt": r(1, 4, 32), "base_model.model.layers.1.self_attn.adaption_gate": r(1)})
    by_hand("parallel_decoder", "SHADOW", {
        "peft_type": "SHADOW", "task_type": "CAUSAL_LM", "target_modules": r".*\.layers\.\d+$", "r": 4, "shadow_alpha": 0.1, "shadow_dropout": 0.2,
        "shadow_model": "mirror", "share_embeddings": True,
    }, {"base_model.model.model.layers.0.shadow_down.weight": r(4, 32), "base_model.model.model.layers.0.shadow_up.weight": r(32, 4)})
