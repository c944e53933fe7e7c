"""Makes the golden fixtures of the base families other than BERT and RoBERTa: see README.md.

    python tests/golden/base_families.py [family…]      (no family: all of them)

A family's bases are `bases/<family>[_<variant>]`; its cases are `base-families/<family>/<variant>`, what the bases give,
and `base-families/<family>/lora_<name>`, LoRA by PEFT on one of them.
"""

import sys

import make  # First: it silences transformers.
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from make import BASES, LENGTHS, ROOT, SIZES, expect, fresh, generator, make_types, normal, randomise_adapter, request, save_adapter, save_base

CASES = ROOT / "base-families"
FAMILIES = {}
# What transformers calls the heads here, and what they are called in the names of the fixtures.
HEADS = {"seqcls": "ForSequenceClassification", "tokcls": "ForTokenClassification", "qa": "ForQuestionAnswering", "mlm": "ForMaskedLM"}


def family(make_cases):
    FAMILIES[make_cases.__name__] = make_cases
    return make_cases


def randomise(model, name):
    """As make.randomise, with norms by their class: their names differ."""
    g = generator(name)
    norms = {f"{n}.{p}" for n, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm) for p, _ in m.named_parameters()}
    for key, p in sorted(model.named_parameters()):
        mean = 1.0 if key in norms and key.endswith("weight") else 0.0
        std = 0.15 if key in norms or key.endswith("bias") else 0.4 if "embeddings" in key else 0.2
        p.data = normal(g, p.shape, std, mean)
    model.tie_weights()
    return model.eval()


class Family:
    """The bases and cases of one family: `stem` of the classes' names, settings of every base."""

    def __init__(self, name, stem, types=False, low=0, positions=40, **settings):
        self.name, self.stem, self.types, self.low, self.positions = name, stem, types, low, positions
        self.config = getattr(transformers, f"{stem}Config")
        self.settings = {k: v for k, v in {**SIZES, **settings}.items() if v is not None}
        fresh(CASES / name)

    def base(self, variant=None, head=None, lengths=None, **changes):
        """A base and its forward case."""
        name = f"{self.name}_{variant}" if variant else self.name
        cls = getattr(transformers, self.stem + HEADS.get(head or variant, "Model"))
        model = randomise(cls(self.config(**{**self.settings, **changes})), name)
        save_base(name, model)
        rows = self.rows(name, lengths or LENGTHS + (changes.get("max_position_embeddings", self.positions) - self.low,))
        types = make_types(rows) if self.types and changes.get("type_vocab_size", 2) > 1 else None
        folder = CASES / self.name / (variant or "plain")
        request(folder, name, rows, types)
        model = self.load(name, cls)
        expect(folder, [checked(model, r, types and types[i]) for i, r in enumerate(rows)])

    def heads(self, labels=3):
        """A base with each head that the library has."""
        for i, head in enumerate(HEADS):
            self.base(head, **({"num_labels": labels + i} if head in ("seqcls", "tokcls") else {}))

    def rows(self, name, lengths):
        g = generator("rows " + name)
        return [torch.randint(self.low, SIZES["vocab_size"], (n,), generator=g).tolist() for n in lengths]

    def load(self, base, cls, **kwargs):
        return cls.from_pretrained(BASES / base, dtype=torch.float32, attn_implementation="eager", **kwargs).eval()

    def lora(self, name, base=None, cls="Model", labels=None, row_compose=None, **config):
        """A LoRA on `base`, made on `cls` of it, read back by PEFT."""
        base = base or self.name
        folder = fresh(CASES / self.name / f"lora_{name}")
        seed = f"{self.name} {name}"
        kwargs = {"num_labels": labels, "ignore_mismatched_sizes": True} if labels else {}
        load = lambda: self.load(base, getattr(transformers, self.stem + cls), **kwargs)
        peft = get_peft_model(load(), LoraConfig(**{"r": 4, "lora_alpha": 8, **config}))
        randomise_adapter(peft, seed)
        save_adapter(peft.eval(), folder / "adapter", base)
        peft = PeftModel.from_pretrained(load(), folder / "adapter", adapter_name="a").eval()
        rows = self.rows(seed, LENGTHS + (30,))
        types = make_types(rows) if self.types else None
        plain = load()
        results = []
        for i, ids in enumerate(rows):
            kind = types and types[i]
            results.append(checked(peft, ids, kind))
            moved = (checked(plain, ids, kind)[0] - results[-1][0]).abs().max()
            assert len(ids) == 1 or moved > 1e-2, f"{folder}: the adapter does nothing"
        request(folder, base, rows, types, {"a": "adapter"}, "a")
        expect(folder, results)


def outputs(model, ids, types=None):
    """The backbone's last hidden state, after a final norm where there is one, and the logits of one row, alone."""
    kept = []
    final = [m for n, m in model.named_modules() if n.split(".")[-1] in ("final_norm", "layernorm")]
    hooks = [m.register_forward_hook(lambda m, i, out: kept.append(out)) for m in final]
    kwargs = dict(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), output_hidden_states=True)
    if types:
        kwargs["token_type_ids"] = torch.tensor([types])
    out = model(**kwargs)
    for hook in hooks:
        hook.remove()
    hidden, logits = (kept[-1] if kept else out.hidden_states[-1])[0], None
    if "last_hidden_state" in out:
        assert torch.equal(hidden, out.last_hidden_state[0])
    if "logits" in out:
        logits = out.logits[0]
    if "start_logits" in out:
        logits = torch.stack([out.start_logits[0], out.end_logits[0]], -1)
    return hidden, logits


def checked(model, ids, types=None):
    """As `outputs`, with the same in float64 to see that nothing here is too delicate to compare."""
    hidden, logits = outputs(model, ids, types)
    exact = outputs(model.double(), ids, types)
    model.float()
    for a, b in zip((hidden, logits), exact):
        assert a is None or (a - b).abs().max() < 5e-5, (a - b).abs().max()
        assert a is None or torch.isfinite(a).all()
    return hidden, logits


@family
def distilbert():
    f = Family("distilbert", "DistilBert", intermediate_size=None, hidden_dim=64)
    f.base()
    f.heads()
    f.base("relu", activation="relu", sinusoidal_pos_embds=True)
    f.lora("qv", target_modules=["q_lin", "v_lin"])
    f.lora("all_linear", target_modules="all-linear", lora_bias=True)
    f.lora("seqcls", cls="ForSequenceClassification", labels=3, task_type="SEQ_CLS", target_modules=["q_lin", "lin1"])
    f.lora("mlm", "distilbert_mlm", "ForMaskedLM", target_modules=["v_lin", "vocab_transform"], bias="all")


@family
def electra():
    f = Family("electra", "Electra", types=True, embedding_size=16)
    f.base()
    f.heads()
    f.base("one_width", embedding_size=32)
    f.lora("default_targets")
    f.lora("all_linear", target_modules="all-linear")
    f.lora("seqcls", cls="ForSequenceClassification", labels=2, task_type="SEQ_CLS", target_modules=["query", "dense"])
    f.lora("mlm", "electra_mlm", "ForMaskedLM", target_modules=["embeddings_project", "key", "generator_predictions.dense"])


@family
def albert():
    f = Family("albert", "Albert", types=True, embedding_size=16, num_hidden_layers=4)
    f.base()
    f.heads()
    f.base("groups", num_hidden_layers=5, num_hidden_groups=2, inner_group_num=2, hidden_act="gelu")
    f.base("one_width", embedding_size=32, num_hidden_layers=2)
    f.lora("qv", target_modules=["query", "value"])
    f.lora("groups", "albert_groups", target_modules=["query", "ffn", "ffn_output", "attention.dense"])
    f.lora("all_linear", target_modules="all-linear", bias="all")
    f.lora("seqcls", cls="ForSequenceClassification", labels=2, task_type="SEQ_CLS", target_modules=["key", "pooler"])
    f.lora("mlm", "albert_mlm", "ForMaskedLM", target_modules=["embedding_hidden_mapping_in", "predictions.dense"])


def main():
    wanted = sys.argv[1:] or list(FAMILIES)
    for name in wanted:
        if name not in FAMILIES:
            sys.exit(f"no family {name!r}; there are {', '.join(FAMILIES)}")
    for name in wanted:
        FAMILIES[name]()
        print("made", name, flush=True)
    make.report()


if __name__ == "__main__":
    main()
