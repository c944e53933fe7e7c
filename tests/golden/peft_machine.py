"""What every PEFT fixture goes through: made by the library, saved by it, read back by it, run a row at a time.

`Machine` holds where things go, so that the committed fixtures (peft_make.py) and the held-out ones (held_out.py) are
made by the same lines. Nothing here knows a family but `RULES`, which says how large its tensors are drawn.
"""

import copy
import json
import os
import re
import tempfile
import warnings
import zlib

import delicate
import make
import numpy
import torch
import transformers
from make import fresh, generator, normal, write_json
from peft import PeftMixedModel, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

# First match wins: tensor name, standard deviation, mean. Large enough to be seen, small enough for float32.
RULES = [(re.compile(pattern), std, mean) for pattern, std, mean in (
    (r"(LayerNorm|layer_norm|ln_tuning_layers).*weight$", 0.15, 1.0),
    (r"ia3_l", 0.4, 1.0),
    (r"lora_E|lora_diag", 1.0, 0.0),
    (r"hada_w", 0.5, 0.0),
    (r"lokr_", 0.4, 0.0),
    (r"oft_R|oft_embedding_R|boft_R", 0.15, 0.0),
    (r"boft_s", 0.3, 1.0),
    (r"hra_u", 1.0, 0.0),
    (r"vera_lambda", 0.5, 0.0),
    (r"randlora_(lambda|gamma)", 0.3, 0.0),
    (r"vblora_vector_bank", 0.4, 0.0),
    (r"vblora_logits", 1.5, 0.0),
    (r"unilora_theta_d", 1.0, 0.0),
    (r"tinylora_v", 0.6, 0.0),
    (r"fourierft_spectrum", 0.4, 0.0),
    (r"waveft_spectrum", 0.1, 0.0),
    (r"c3a_kernel", 1.5, 0.0),
    (r"miss_block", 0.15, 0.0),
    (r"shira_weight|supertuning_values", 0.5, 0.0),
    (r"road_theta", 0.6, 0.0),
    (r"road_alpha", 0.3, 1.0),
    (r"delora_[AB]", 0.5, 0.0),
    (r"delora_lambda", 0.5, 4.0),
    (r"hira_", 0.6, 0.0),
    (r"glora_", 0.4, 0.0),
    (r"deft_P", 0.4, 0.0),
    (r"deft_R", 0.3, 0.0),
    (r"frod_lambda", 0.4, 0.0),
    (r"peanut_", 0.4, 0.0),
    (r"poly_router", 1.0, 0.0),
    (r"token_adapter|trainable_tokens", 0.5, 0.0),
    (r"embed", 0.4, 0.0),
    (r"bias$", 0.2, 0.0),
    (r"", 0.3, 0.0),
)]
# What starts at the size of the base's own weights stays near it: the factor's deviation, then the added one.
NEAR = [(re.compile(pattern), factor, added) for pattern, factor, added in (
    (r"lora_magnitude_vector", 0.4, 0.0),
    (r"osf_svd_params", 0.3, 0.05),
)]


def draw(g, key, p):
    for pattern, factor, added in NEAR:
        if pattern.search(key):
            return p * normal(g, p.shape, factor, 1.0) + normal(g, p.shape, added)
    for pattern, std, mean in RULES:
        if pattern.search(key):
            return normal(g, p.shape, std, mean)


def randomise(peft, name):
    """Every tensor that trains is drawn anew, so that none is an identity."""
    g = generator("adapter " + name)
    for key, p in sorted(peft.named_parameters()):
        if p.requires_grad:
            p.data = draw(g, key, p.data.float()).to(p.dtype)


def seed_everything(name):
    """The libraries' own draws: fixed projections, masks, initial values of buffers."""
    torch.manual_seed(zlib.crc32(name.encode()))
    numpy.random.seed(zlib.crc32(name.encode()))


def tidy(folder, base):
    """The files as `save_pretrained` wrote them, less the model card, this machine's paths and the order of sets."""
    (folder / "README.md").unlink(missing_ok=True)
    for file in sorted(folder.rglob("adapter_config.json")):
        config = json.loads(file.read_text())
        config["base_model_name_or_path"] = f"golden/{base.split('/')[-1]}"
        for key in ("target_modules", "modules_to_save", "exclude_modules", "feedforward_modules"):
            if isinstance(config.get(key), list):
                config[key] = sorted(config[key])
        write_json(file, config)


def names_in(compose):
    """The leaves of a composition that these scripts use, in order, each with its scale."""
    if compose == "base":
        return []
    inner = re.fullmatch(r"(?:sum|stack)\((.*)\)", compose)
    parts = [p.strip().partition(":") for p in (inner[1] if inner else compose).split(",")]
    return [(name, float(scale) if scale else 1.0) for name, _, scale in parts]


class Adapter:
    """One adapter of a case: what it is made of, and what the request says about it."""

    def __init__(self, kind, config=None, options=None, call=None, randomise=randomise, before_save=None, edit=None,
                 edit_tensors=None, saved="default", convert=False, safe=True, embeddings="auto"):
        self.kind, self.config, self.options, self.call = kind, config or {}, options or {}, call or {}
        self.randomise, self.before_save, self.edit, self.edit_tensors = randomise, before_save, edit, edit_tensors
        self.saved, self.convert, self.safe, self.embeddings = saved, convert, safe, embeddings

    def make_config(self):
        # The library adds the names of heads to the lists that it is given.
        return PEFT_TYPE_TO_CONFIG_MAPPING[self.kind](**copy.deepcopy(self.config))


class Machine:
    def __init__(self, root, bases):
        self.root, self.bases, self.done, self.vocab = root, bases, set(), None

    def at(self, base):
        """A base's folder; those that see stand beside those that read."""
        return self.bases / base if (self.bases / base).exists() else make.base_at(base)

    def path_of(self, base, folder):
        return os.path.relpath(self.at(base), folder)

    def load(self, base, cls=None, labels=None):
        kwargs = {"num_labels": labels, "ignore_mismatched_sizes": True} if labels else {}
        folder = self.at(base)
        cls = getattr(transformers, cls or make.CLASSES.get(base) or json.loads((folder / "config.json").read_text())["architectures"][0])
        model = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **kwargs)
        if self.vocab:  # The tokens that an adapter adds.
            model.resize_token_embeddings(self.vocab, mean_resizing=False)
        return model.eval()

    def write(self, adapter, folder, name, base, cls=None, labels=None):
        """Makes an adapter, saves it; returns the model that was saved."""
        seed_everything(name)
        with torch.enable_grad():
            peft = get_peft_model(self.load(base, cls, labels), adapter.make_config(), adapter_name=adapter.saved)
        start = tempfile.TemporaryDirectory()
        if adapter.convert:  # What the library subtracts to make plain LoRA of an adapter with a start of its own.
            peft.save_pretrained(start.name)
        adapter.randomise(peft, name)
        if adapter.before_save:
            adapter.before_save(peft)
        peft.eval()
        fresh(folder)
        kwargs = {"path_initial_model_for_weight_conversion": start.name} if adapter.convert else {}
        peft.save_pretrained(folder, safe_serialization=adapter.safe, save_embedding_layers=adapter.embeddings, **kwargs)
        tidy(folder, base)
        for file in sorted(folder.rglob("adapter_config.json")) if adapter.edit else []:
            config = json.loads(file.read_text())
            adapter.edit(config)
            write_json(file, config)
        for file in sorted(folder.rglob("adapter_model.safetensors")) if adapter.edit_tensors else []:
            tensors = {k: v.contiguous() for k, v in adapter.edit_tensors(load_file(file)).items()}
            save_file(tensors, file, metadata={"format": "pt"})
        return peft

    def read(self, folder, base, cls=None, labels=None, name="default", into=None, wrapper=PeftModel):
        """The library's own reading, with its default flags. What is missing in the file is an error here.

        The names are long: AdaLoRA looks for the adapter's name anywhere in a path, and finds an `a` in `attention`.
        """
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            seed_everything("another state than when it was made")
            if into is None:
                into = wrapper.from_pretrained(self.load(base, cls, labels), folder, adapter_name=name)
            else:
                into.load_adapter(folder, adapter_name=name)
        for w in seen:
            # TinyLoRA's projections of an embedding are told missing even where they are meant to be drawn again.
            missing = re.findall(r"'([^']*)'", str(w.message)) if "missing adapter keys" in str(w.message) else []
            assert all(re.search(r"(embeddings|relative_attention_bias)\.tinylora_P", key) for key in missing), w.message
        return into.eval()

    def case(self, family, name, kind, config=None, base="bert", cls=None, labels=None, others=None, compose=None,
             row_compose=None, types=False, lengths=make.LENGTHS, exact=True, same=True, change=1e-2, rows=None, tolerance=3e-5,
             folder=None, wrapper=PeftModel, vocab=None, **how):
        """One fixture: adapter `a` and `others` (name → Adapter), each from the files that are kept.

        `exact`: float64 is tried too. `same`: the model that was saved and the one that was read give the same.
        `change`: what the adapter must change at least in rows of more than one token.
        """
        full = f"{family}/{name}"
        assert full not in self.done, full
        self.done.add(full)
        folder = fresh(folder or self.root / family / name)
        adapters = {"a": Adapter(kind, config, **how), **(others or {})}
        plain, together, self.vocab = self.load(base), None, vocab
        inside, made, read, entries = {}, {}, {}, {}
        for i, (key, adapter) in enumerate(adapters.items()):
            path = "adapter" if i == 0 else f"adapter_{key}"
            made[key] = self.write(adapter, folder / path, full if i == 0 else f"{full} {key}", base, cls, labels)
            inside[key] = folder / path / ("" if adapter.saved == "default" else adapter.saved)
            read[key] = self.read(inside[key], base, cls, labels)
            entries[key] = {"path": path, **adapter.options} if adapter.options else path
        compose = compose or (None if row_compose else "a")
        count = len(row_compose) if row_compose else len(lengths)
        rows = rows or self.make_rows(full, base, count, lengths)
        kinds = make.make_types(rows) if types else [None] * len(rows)
        results = []
        for i, ids in enumerate(rows):
            leaves = names_in(row_compose[i] if row_compose else compose)
            before = None if vocab else run(plain, ids, kinds[i], {})
            if not leaves:
                results.append(check(plain, ids, kinds[i], {}, exact, tolerance))
                continue
            if leaves == [(leaves[0][0], 1.0)]:
                key = leaves[0][0]
                got = check(read[key], ids, kinds[i], adapters[key].call, exact, tolerance)
                if same and not adapters[key].edit and not adapters[key].edit_tensors:
                    first = run(made[key], ids, kinds[i], adapters[key].call)
                    for a, b in zip(first, got):
                        assert a is None or (a - b).abs().max() < 1e-4, f"{full}: read back, it differs by {(a - b).abs().max()}"
            else:
                if together is None:
                    for key in adapters:
                        together = self.read(inside[key], base, cls, labels, f"golden_{key}", together, wrapper)
                got = self.run_several(together, leaves, ids, kinds[i], exact, tolerance)
            results.append(got)
            if len(ids) > 1 and before and got[0].shape == before[0].shape:
                moved = max((a - b).abs().max() for a, b in zip(before, got) if a is not None and b is not None and a.shape == b.shape)
                assert moved > change, f"{full}: the adapter changes {moved}"
        self.vocab = None
        if torch.is_tensor(rows[0]):
            self.request_of_pixels(folder, base, rows, entries, compose, row_compose)
        else:
            make.request(folder, self.path_of(base, folder), rows, kinds if types else None, entries, compose, row_compose)
        make.expect(folder, results)

    def make_rows(self, name, base, count, lengths):
        config = json.loads((self.at(base) / "config.json").read_text())
        if "image_size" in config:
            shape = (config["num_channels"], config["image_size"], config["image_size"])
            return list(normal(generator(f"pixels {name}"), (count, *shape), 1.0))
        return make.make_rows(name, base, [lengths[i % len(lengths)] for i in range(count)])

    def request_of_pixels(self, folder, base, rows, entries, compose, row_compose):
        save_file({"pixel_values": torch.stack(rows)}, folder / "pixels.safetensors")
        value = {"base": self.path_of(base, folder), "adapters": entries, "compose": compose, "row_compose": row_compose, "pixels": "pixels.safetensors"}
        write_json(folder / "request.json", {k: v for k, v in value.items() if v is not None})

    def run_several(self, peft, leaves, ids, kind, exact, tolerance):
        """All active, in this order; a scale multiplies what the tuner scales its update with."""
        leaves = [(f"golden_{key}", w) for key, w in leaves]
        peft.base_model.set_adapter([key for key, _ in leaves])
        layers = [m for m in peft.modules() if isinstance(getattr(m, "scaling", None), dict)]
        scale = lambda sign: [m.scaling.update({k: m.scaling[k] * w**sign}) for m in layers for k, w in leaves if k in m.scaling and w != 1]
        scale(1)
        try:
            return check(peft, ids, kind, {}, exact, tolerance)
        finally:
            scale(-1)

    def refused(self, family, name, kind, phrase, config=None, base="bert", cls=None, labels=None, **how):
        """A real folder that must be refused, and a word that says why."""
        full = f"{family}/{name}"
        folder = fresh(self.root / family / name)
        self.write(Adapter(kind, config, **how), folder / "adapter", full, base, cls, labels)
        self.refuse(folder, full, phrase, base)

    def refuse(self, folder, full, phrase, base="bert"):
        make.request(folder, self.path_of(base, folder), make.make_rows(full, base, (3,)), None, {"a": "adapter"}, "a")
        make.expect_error(folder, phrase)


def run(model, ids, kind, call):
    """The backbone's last hidden state, after a final norm where there is one, and the logits of one row, alone."""
    inner = model.base_model.model if isinstance(model, PeftMixedModel) else model.get_base_model() if isinstance(model, PeftModel) else model
    kept = []
    hook = getattr(inner, inner.base_model_prefix, inner).register_forward_hook(lambda m, i, out: kept.append(out[0]))
    if torch.is_tensor(ids):
        kwargs = dict(pixel_values=ids.unsqueeze(0).to(next(inner.parameters()).dtype))
    else:
        kwargs = dict(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
    if kind:
        kwargs["token_type_ids"] = torch.tensor([kind])
    out = model(**kwargs, **call)
    hook.remove()
    logits = None
    if "logits" in out:
        logits = out.logits[0]
    if "start_logits" in out:
        logits = torch.stack([out.start_logits[0], out.end_logits[0]], -1)
    return kept[-1][0], logits


def check(model, ids, kind, call, exact, tolerance):
    """A row alone, and the same in float64, to see that nothing here is too delicate to compare."""
    got = run(model, ids, kind, call)
    again = run(model.double(), ids, kind, call) if exact else (None, None)
    if exact:
        delicate.check(model, lambda: max((a - b).abs().max().item() for a, b in zip(run(model, ids, kind, call), again) if b is not None))
    model.float()
    for a, b in zip(got, again):
        assert a is None or torch.isfinite(a).all()
        assert a is None or b is None or (a - b).abs().max() < tolerance, f"float64 differs by {(a - b).abs().max()}"
    return got
