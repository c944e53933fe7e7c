"""`add_weighted_adapter`: several adapters made into one, which is an adapter like any other.

A case has the adapters, `combine.json` (adapter → weight, the type and its options), and `combined`, what the library
saved of the result; the request runs `combined`. What combines the adapters itself must give the same numbers. Not made:
the two `dare` kinds, which drop at random, and `svd_clamp`, whose quantile hangs on the signs of singular vectors.
"""

import shutil

import make
from make import fresh, write_json
from peft_machine import Adapter, check, run, tidy

from .registry import FEW, QV, SIX, family

WORDS = "word_embeddings"


def combine(m, name, first, second, weights, kind="LORA", third=None, base="bert", **how):
    """`how`: combination_type, density, majority_sign_method, svd_rank."""
    full, folder = f"combined/{name}", fresh(m.root / "combined" / name)
    adapters = {key: Adapter(kind, config) for key, config in zip("abc", (first, second, third)) if config}
    paths, model = {}, None
    for key, adapter in adapters.items():
        paths[key] = f"adapter_{key}"
        m.write(adapter, folder / paths[key], f"{full} {key}", base)
        model = m.read(folder / paths[key], base, name=f"golden_{key}", into=model)
    model.base_model.add_weighted_adapter([f"golden_{k}" for k in adapters], list(weights), "combined", **how)
    model.set_adapter("combined")
    rows = make.make_rows(full, base)
    results = [check(model, ids, None, {}, True, 3e-5) for ids in rows]
    model.save_pretrained(folder, selected_adapters=["combined"])
    (folder / "README.md").unlink(missing_ok=True)
    tidy(folder / "combined", base)
    again = m.read(folder / "combined", base)
    plain = m.load(base)
    for ids, got in zip(rows, results):
        assert (run(again, ids, None, {})[0] - got[0]).abs().max() < 1e-5, full
        assert len(ids) == 1 or (run(plain, ids, None, {})[0] - got[0]).abs().max() > 1e-2, full
    write_json(folder / "combine.json", {"adapters": paths, "weights": dict(zip(adapters, weights)), **how})
    make.request(folder, m.path_of(base, folder), rows, None, {"combined": "combined"}, "combined")
    make.expect(folder, results)


@family("combined")
def combined(m):
    shutil.rmtree(m.root / "combined", ignore_errors=True)
    a, b = {"r": 4, "lora_alpha": 8, "target_modules": FEW}, {"r": 4, "lora_alpha": 4, "target_modules": SIX}
    c = {"r": 4, "lora_alpha": 12, "target_modules": QV}
    case = lambda name, kind, weights=(0.7, -0.4), first=a, second=b, **how: combine(m, name, first, second, weights, combination_type=kind, **how)
    case("linear", "linear")
    case("linear_three", "linear", (0.5, 0.3, 1.2), third=c)
    case("cat", "cat", second={**b, "r": 2})
    case("cat_three", "cat", (1.0, -0.5, 0.25), third=c, base="roberta")
    case("svd", "svd", second={**b, "r": 2})
    case("svd_rank", "svd", svd_rank=6, base="xlmr")
    for sign in ("total", "frequency"):
        case(f"ties_{sign}", "ties", (0.7, 0.4, 0.9), third=c, density=0.4, majority_sign_method=sign)
        case(f"ties_svd_{sign}", "ties_svd", (0.7, 0.4, 0.9), third=c, density=0.4, majority_sign_method=sign)
    case("magnitude_prune", "magnitude_prune", density=0.3)
    case("magnitude_prune_svd", "magnitude_prune_svd", density=0.3)
    # The new rank and alpha are equal, and the first one's kind of scale stays: with rsLoRA that is √r.
    rank = {**a, "use_rslora": True}
    for kind in ("linear", "cat", "svd"):
        case(f"rslora_{kind}", kind, first=rank, second={**b, "use_rslora": True})
    patterns = {**b, "rank_pattern": {"query": 2, "output.dense": 3}, "alpha_pattern": {"value": 2}}
    case("patterns_cat", "cat", second=patterns)
    case("patterns_svd", "svd", second=patterns)
    words = {"r": 4, "lora_alpha": 6, "target_modules": [WORDS, "query"]}
    for kind in ("linear", "cat", "svd"):
        case(f"embedding_{kind}", kind, first=words, second={**words, "target_modules": [WORDS, "value"]})
    scales = {"target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]}
    combine(m, "ia3", scales, scales, (0.7, 0.5), kind="IA3")
