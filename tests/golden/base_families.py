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


    def mixed(self, name, configs):
        """Rows under different LoRAs in one batch, the base's own among them."""
        folder = fresh(CASES / self.name / name)
        cls = getattr(transformers, self.stem + "Model")
        models = {"base": self.load(self.name, cls)}
        for adapter, config in configs.items():
            peft = get_peft_model(self.load(self.name, cls), LoraConfig(**{"r": 4, "lora_alpha": 8, **config}))
            randomise_adapter(peft, f"{self.name} {name} {adapter}")
            save_adapter(peft.eval(), folder / adapter, self.name)
            models[adapter] = PeftModel.from_pretrained(self.load(self.name, cls), folder / adapter).eval()
        compose = [list(models)[i % len(models)] for i in range(7)]
        rows = self.rows(name, [3, 17, 5, 30, 1, 2, 9])
        request(folder, self.name, rows, None, {a: a for a in configs}, row_compose=compose)
        expect(folder, [checked(models[c], r) for c, r in zip(compose, rows)])


def checked(model, ids, types=None):
    """Relative positions and rotations lose a little more than plain layers."""
    return make.checked(model, ids, types, most=5e-5)


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


@family
def mpnet():
    f = Family("mpnet", "MPNet", low=2, type_vocab_size=None)
    f.base()
    f.heads()
    f.base("long", max_position_embeddings=202, lengths=(1, 9, 200))
    f.lora("qv", target_modules=["q", "v"])
    f.lora("all_linear", target_modules="all-linear", bias="all")
    f.lora("seqcls", cls="ForSequenceClassification", labels=2, task_type="SEQ_CLS", target_modules=["k", "o", "dense"])


@family
def modernbert():
    f = Family("modernbert", "ModernBert", num_hidden_layers=4, global_attn_every_n_layers=2, local_attention=8, pad_token_id=0,
               bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, reference_compile=False)
    f.base()
    f.heads()
    f.base("mean", "seqcls", classifier_pooling="mean", classifier_activation="relu", num_labels=2)
    f.base("biases", "mlm", norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True)
    f.base("no_decoder_bias", "mlm", decoder_bias=False, tie_word_embeddings=False)
    f.base("one_theta", local_rope_theta=None, global_rope_theta=500.0, local_attention=3, hidden_activation="silu", num_attention_heads=2)
    f.base("long", max_position_embeddings=300, local_attention=64, lengths=(1, 33, 150, 300))
    f.lora("qkv", target_modules=["Wqkv"])
    f.lora("all_linear", target_modules="all-linear", lora_bias=True)
    f.lora("seqcls", "modernbert_seqcls", "ForSequenceClassification", labels=5, task_type="SEQ_CLS", target_modules=["Wi", "Wo", "head.dense"])


@family
def deberta_v2():
    """v3 shares the projections and has no convolution; v2-xlarge has both; the paper's first has neither."""
    both = dict(relative_attention=True, pos_att_type=["c2p", "p2c"])
    v3 = dict(both, share_att_key=True, norm_rel_ebd="layer_norm", position_buckets=8, max_relative_positions=-1, position_biased_input=False)
    f = Family("deberta_v2", "DebertaV2", type_vocab_size=0, **v3)
    f.base()
    f.heads()
    f.base("conv", conv_kernel_size=3, conv_act="gelu", num_hidden_layers=3)
    f.base("conv_groups", conv_kernel_size=5, conv_groups=4)
    f.base("long", max_position_embeddings=130, position_buckets=16, lengths=(1, 20, 130))
    own = dict(both, share_att_key=False, norm_rel_ebd="none", position_buckets=-1)
    f.base("own_projections", **own)
    f.base("content_to_position", **own | dict(pos_att_type="c2p", max_relative_positions=12))
    f.base("position_to_content", **own | dict(pos_att_type=["p2c"], position_buckets=6, max_relative_positions=16))
    f.base("no_terms", **own | dict(pos_att_type=None))
    f.base("absolute", relative_attention=False, position_biased_input=True, pos_att_type=["c2p"])
    f.base("projected", embedding_size=16, hidden_act="gelu_new")
    f.base("projected_mlm", "mlm", embedding_size=16)
    f.base("own_head", "mlm", legacy=False, tie_word_embeddings=False)
    f.base("biased_input", position_biased_input=True, pooler_hidden_act="tanh", head="seqcls", num_labels=2)
    f.lora("default_targets")
    f.lora("all_linear", target_modules="all-linear", bias="all")
    f.lora("own_projections", "deberta_v2_own_projections", target_modules=["pos_key_proj", "pos_query_proj", "key_proj"])
    f.lora("conv", "deberta_v2_conv", target_modules=["query_proj", "key_proj", "dense"])
    f.lora("seqcls", "deberta_v2_seqcls", "ForSequenceClassification", labels=2, task_type="SEQ_CLS", target_modules=["key_proj", "pooler.dense"])
    f.mixed("mixed_batch", {"a": dict(target_modules=["query_proj"]), "b": dict(target_modules=["key_proj", "value_proj"], r=2)})
    t = Family("deberta_v2_types", "DebertaV2", types=True, **v3)
    t.base(type_vocab_size=2)


@family
def vit():
    """Images in patches; transformers has no LayerNorm after the sub-blocks here, and a pooler that reads the class token."""
    fresh(CASES / "vit")
    sizes = {k: v for k, v in SIZES.items() if k not in ("vocab_size", "max_position_embeddings", "attn_implementation")}
    for variant, cls, changes in (
        ("", "ViTModel", {}),
        ("odd_patches", "ViTModel", dict(image_size=15, patch_size=5, num_channels=1, hidden_act="gelu_new", qkv_bias=False)),
        ("image", "ViTForImageClassification", dict(num_labels=3)),
    ):
        base = f"vit_{variant}" if variant else "vit"
        model = randomise(getattr(transformers, cls)(transformers.ViTConfig(**{**sizes, "image_size": 12, "patch_size": 4, **changes})), base)
        save_base(base, model)
        images = make.make_images(base, base, 3)
        model = getattr(transformers, cls).from_pretrained(make.base_at(base), dtype=torch.float32, attn_implementation="eager").eval()
        results = [see(model, image) for image in images]
        for (hidden, _), (exact, _) in zip(results, [see(model.double(), image.double()) for image in images]):
            assert (hidden - exact).abs().max() < 5e-5
        folder = CASES / "vit" / (variant or "plain")
        make.request_pixels(folder, base, images)
        expect(folder, results)


def see(model, image):
    """The last hidden state, after the final norm, and the logits of one image."""
    inner = model.vit if hasattr(model, "vit") else model
    logits = model(pixel_values=image.unsqueeze(0)).logits[0] if hasattr(model, "classifier") else None
    return inner(pixel_values=image.unsqueeze(0)).last_hidden_state[0], logits


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
