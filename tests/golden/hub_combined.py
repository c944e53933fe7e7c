"""`average_adapter`: adapters of one configuration made into one by the library. See hub_families.py.

A case is as in peft_families/combined.py: the adapters, `combine.json` (adapter → weight), and `combined`, what the library
saved of the average; the request runs `combined`.
"""

from adapters import CompacterConfig, IA3Config, LoRAConfig, NoReftConfig, PrefixTuningConfig, PromptTuningConfig, SeqBnInvConfig, UniPELTConfig, VeraConfig
from hub import Runner, Spec, add, belongs, check, largest, load, reload, run_all, save
from hub_case import HUB, family
from make import LENGTHS, expect, fresh, make_rows, request, write_json
from hub_compose import HOULSBY


def averaged(name, config, weights=(0.7, 0.5), base="bert", container="safetensors"):
    full, folder = f"combined/{name}", fresh(HUB / "combined" / name)
    spec, keys = Spec(config, container=container), "abc"[: len(weights)]
    made = load(base)
    for key in keys:
        add(made, f"{key}_task", spec, f"{full} {key}")
    # A model with heads forgets the invertible adapter, its base does not.
    made.base_model.average_adapter("combined", [f"{key}_task" for key in keys], weights=list(weights))
    made.eval()
    for key in keys:
        save(made, folder / f"adapter_{key}", f"{key}_task", spec)
    save(made, folder / "combined", "combined", spec)
    again = load(base)
    assert reload(again, folder / "combined", spec) == "combined"
    again.eval()
    rows = make_rows(full, base, LENGTHS)
    texts = ["combined"] * len(rows)
    runner, first = (Runner(model, {"combined": "combined"}, set()) for model in (again, made))
    results = run_all(runner, texts, rows, None)
    assert largest(results, run_all(first, texts, rows, None)) < 5e-6, full
    own = [(k, p) for k, p in sorted(again.named_parameters()) if belongs(k, "combined")]
    check(full, runner, load(base), texts, rows, None, results, own, ())
    paths = {key: f"adapter_{key}" for key in keys}
    write_json(folder / "combine.json", {"adapters": paths, "weights": dict(zip(keys, weights)), "combination_type": "average"})
    request(folder, f"../../../bases/{base}", rows, None, {"combined": "combined"}, "combined")
    expect(folder, results)


@family("combined")
def combined():
    averaged("houlsby", HOULSBY)
    averaged("invertible_three", SeqBnInvConfig(reduction_factor=4), (1.0, 0.5, -0.25), base="xlmr")
    averaged("lora", LoRAConfig(r=4, alpha=8), (0.9, -0.3))
    averaged("ia3", IA3Config(), container="bin")
    averaged("compacter", CompacterConfig(reduction_factor=4, phm_dim=2))
    averaged("prefix", PrefixTuningConfig(prefix_length=3, bottleneck_size=8), container="bin")
    averaged("prompt", PromptTuningConfig(prompt_length=3))
    averaged("reft", NoReftConfig(r=2, suffix_positions=1))
    averaged("vera", VeraConfig(r=4, alpha=8))
    averaged("unipelt", UniPELTConfig(), container="bin")
