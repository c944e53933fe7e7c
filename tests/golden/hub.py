"""Runs AdapterHub's `adapters` for the fixtures: makes adapters, saves them as the library does, and computes what a
composition gives from the files that were saved. `hub_families.py` lists the cases, `held_out_hub.py` draws others.

Made with adapters 1.3.0. What the library computes is what is kept, quirks included; three things are not the library's:
* `mix` and `sum` are no compositions of AdapterHub. They are its `Average` with another last line (`compose_average`).
* A PEFT LoRA under hub adapters is added to the weights by hand: the two libraries cannot wrap one model.
* An option of polygraft (`invertible: false`, `reft: "direft"`) is carried out on the reloaded model.
"""

import copy
import io
import logging
import pickle
import re
import struct
from dataclasses import dataclass, field

import delicate
import make
import torch
import adapters
import transformers
from adapters import AutoAdapterModel
from adapters import composition as ac
from adapters.heads.base import ClassificationHead
from adapters.methods.adapter_layer_base import ComposableAdapterLayerBase
from adapters.methods.bottleneck import BottleneckState
from adapters.methods.lora import IA3, LoRAMergedLinear
from adapters.methods.modeling import BertFusion, ParallelAdapter
from make import generator, normal

logging.getLogger("adapters").setLevel("ERROR")
transformers.logging.set_verbosity_error()


@dataclass
class Spec:
    """One adapter of a case."""

    config: object = "seq_bn"
    head: dict | None = None  # keywords of add_<kind>_head, with `kind`
    container: str = "bin"  # bin (zip), safetensors, legacy (torch before 1.6)
    options: dict = field(default_factory=dict)  # polygraft's options for it
    saved: str | None = None  # its name inside the library; by default one that the request does not use
    edit: object = None  # folder → None: what another version would have written
    late: object = None  # the same after the library has run: it cannot load what this writes, and the meaning is plain
    tweak: object = None  # model, name → None: after the random numbers
    peft: dict | None = None  # a PEFT LoRA instead: keywords of LoraConfig
    words: int | None = None  # rows of an embedding table of its own; without a config, that is all there is
    path: str | None = None


# ---- Numbers

def belongs(key, name):
    """The library's own rule for what a file of this adapter holds (`AdapterLoader.filter_func`)."""
    parts = ("_adapters", ".adapters", ".prefix_tunings", ".prefix_gates", ".loras", ".refts", ".prompt_tunings", ".shared_parameters")
    return any(f"{p}.{name}." in key for p in parts)


def randomise_adapter(model, name, seed):
    """No tensor that is saved is an identity: not a gate of 0, not a scale of 1, not a norm of 1."""
    g = generator(f"hub {seed}")
    owners = {id(p): m for m in model.modules() for p in m._parameters.values() if p is not None}
    for key, p in sorted(model.named_parameters()):
        if not belongs(key, name):
            continue
        owner = owners[id(p)]
        last = key.rsplit(".", 1)[1]
        if "norm" in key:
            p.data = normal(g, p.shape, 0.15, 1.0 if last == "weight" else 0.0)
        elif last == "scaling":
            p.data = normal(g, p.shape, 0.3, 1.2)
        elif ".gate." in key or "prefix_gates" in key:
            p.data = normal(g, p.shape, 0.5)
        elif isinstance(owner, IA3) or last == "values":
            p.data = normal(g, p.shape, 0.4, 1.0)
        elif key.endswith(".m.weight"):
            p.data = normal(g, p.shape, 0.25, 1.1)
        elif last == "weights":
            p.data = normal(g, p.shape, 0.05)
        elif "phm_rule" in last or last.startswith("W"):
            p.data = normal(g, p.shape, 0.5)
        elif ".wte." in key or last == "control_trans":
            p.data = normal(g, p.shape, 0.7)
        elif "prompt_tunings" in key:
            p.data = normal(g, p.shape, 1.0)
        elif last == "original":
            r = min(p.shape)
            signs = torch.randint(0, 2, (r,), generator=g) * 2.0 - 1.0
            p.data = normal(g, p.shape, 0.5)
            p.data[:r, :r] = p.data[:r, :r] - torch.diag(p.data.diagonal()) + torch.diag(signs)
        else:
            p.data = normal(g, p.shape, 0.2 if last in ("bias", "b") else 0.3)
    for key, b in sorted(model.named_buffers()):
        if belongs(key, name):  # ReFT's base of an orthogonal projection
            b.copy_(torch.linalg.qr(normal(g, b.shape, 1.0)).Q)


def head_parameters(model, name=None):
    """The parameters of a head that are its own: a decoder that is the embedding table stays what it is."""
    tied = {id(p) for p in model.base_model.parameters()}
    for key, p in sorted(model.named_parameters()):
        mine = key.startswith(f"heads.{name}.") if hasattr(model, "heads") else not key.startswith(model.base_model_prefix)
        if mine and id(p) not in tied:
            yield key, p


def randomise_head(model, name, seed):
    g = generator(f"hub head {seed}")
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()}
    for key, p in head_parameters(model, name):
        weight = key.endswith("weight")
        if id(p) in norms:
            p.data = normal(g, p.shape, 0.15, 1.0 if weight else 0.0)
        else:
            p.data = normal(g, p.shape, 0.3 if weight else 0.2)


def fusion_parameters(model, name):
    return [(k, p) for k, p in sorted(model.named_parameters()) if f"adapter_fusion_layer.{name}." in k]


def randomise_fusion(model, name, seed, temperature):
    g = generator(f"hub fusion {seed}")
    for key, p in fusion_parameters(model, name):
        std = 0.2 if key.endswith("bias") or "value" in key else 0.4 if temperature else 0.12
        p.data = normal(g, p.shape, std)


# ---- Models

def load(base, cls=None, attention="eager"):
    """The library's model on a base of the fixtures: with flexible heads, or (`cls`) Hugging Face's own class."""
    folder = make.base_at(base)
    options = dict(dtype=torch.float32, attn_implementation=attention)
    if cls is None:
        model = AutoAdapterModel.from_pretrained(folder, **options)
    else:
        model = getattr(transformers, cls).from_pretrained(folder, **options)
        adapters.init(model)
        for module in model.modules():
            # `LoRAMergedLinear.wrap` gives ModernBERT's joint projection, which has no bias, a random one: even without
            # any adapter the library's outputs differ from run to run. The base has the last word here.
            if isinstance(module, LoRAMergedLinear) and not model.config.attention_bias:
                module.bias = None
    # The name goes into every file; the machine's path must not.
    model.config.name_or_path = f"golden/{base}"
    model.base_model.config.name_or_path = f"golden/{base}"
    return model.eval()


def add(model, name, spec, seed):
    if spec.words:
        base = model.base_model
        width = base.get_input_embeddings().embedding_dim
        base.loaded_embeddings[name] = torch.nn.Embedding.from_pretrained(normal(generator(f"hub words {seed}"), (spec.words, width), 0.5))
    if spec.config is None:
        return
    model.add_adapter(name, config=copy.deepcopy(spec.config))
    randomise_adapter(model, name, seed)
    if spec.head and hasattr(model, "heads"):
        head = dict(spec.head)
        kind = head.pop("kind")
        if "bias" in head:  # No `add_…` takes it.
            model.add_prediction_head(ClassificationHead(model, name, **head))
        else:
            getattr(model, f"add_{kind}_head")(name, **head)
    if spec.head:
        randomise_head(model, name, seed)
    if spec.tweak:
        spec.tweak(model, name)
    model.eval()


def save(model, folder, name, spec):
    folder.mkdir(parents=True, exist_ok=True)
    if spec.words:
        model.base_model.save_embeddings(str(folder), name)
        if spec.config is None:
            return spec.edit(folder) if spec.edit else None
    options = {"with_head": bool(spec.head)} if hasattr(model, "save_head") else {}
    model.save_adapter(str(folder), name, use_safetensors=spec.container == "safetensors", **options)
    finish(folder, spec.container)
    if spec.edit:
        spec.edit(folder)


def finish(folder, container):
    for file in sorted(folder.rglob("*.json")):
        text = file.read_text()
        assert "/work" not in text, f"{file} names a path of this machine"
        file.write_text(text + ("" if text.endswith("\n") else "\n"))
    if container == "legacy":
        for file in folder.rglob("*.bin"):
            to_legacy(file)


def to_legacy(file):
    """The container of torch before 1.6, written by today's torch; its keys are addresses, so they are numbered anew."""
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    stream = io.BytesIO(content)
    for _ in range(3):
        pickle.load(stream)
    start = stream.tell()
    kinds = {}

    class Reader(pickle.Unpickler):
        def persistent_load(self, saved):
            kinds[saved[2]] = (saved[4], torch.empty(0, dtype=saved[1].dtype).element_size())
            return saved[1](saved[4])

    stream.seek(start)
    Reader(stream).load()
    middle = stream.tell()
    keys = pickle.load(stream)
    data = {}
    for key in keys:
        count, size = kinds[key]
        data[key] = stream.read(8 + count * size)
    assert not stream.read()
    body = content[start:middle]
    order = sorted(keys, key=lambda k: body.index(k.encode()))
    names = {k: f"{94000000000000 + 64 * i}" for i, k in enumerate(order)}
    for old, new in names.items():
        body = body.replace(b"X" + struct.pack("<I", len(old)) + old.encode(), b"X" + struct.pack("<I", len(new)) + new.encode())
    tail = pickle.dumps([names[k] for k in order], protocol=2) + b"".join(data[k] for k in order)
    file.write_bytes(content[:start] + body + tail)


def reload(model, folder, spec, **options):
    """The name under which the library loads the folder. Always its own: `load_as` loses prompts, without a word."""
    if spec.words:
        model.base_model.load_embeddings(str(folder), spec.saved)
        model.base_model.set_active_embeddings("default")
        if spec.config is None:
            return spec.saved
    return model.load_adapter(str(folder), use_safetensors=spec.container == "safetensors", **options)


# ---- Compositions

class Weights(ac.Average):
    """`mix` and `sum`: the library's Average up to its last line."""

    def __init__(self, how, children, weights):
        super().__init__(*children, weights=list(weights), normalize_weights=False)
        self.how = how


for kinds in ac.ALLOWED_NESTINGS.values():
    if ac.Average in kinds:
        kinds.append(Weights)
ac.ALLOWED_NESTINGS[Weights] = ac.ALLOWED_NESTINGS[ac.Average]


def compose_weights(self, setup, state, lvl=0):
    """mix = Σ wᵢ·oᵢ, weights as they are; sum = r + Σ wᵢ·(oᵢ − r), where r is the adapters' own residual."""
    state = self.pre_block(setup, state)
    outs, weights, last = [], [], None
    for child, weight in zip(setup, setup.weights):
        if isinstance(child, str) and child not in self.adapter_modules:
            continue
        run = self.compose_single if isinstance(child, str) else self._get_compose_func(type(child))
        out = run(child, state, lvl=lvl + 1)
        outs.append(out)
        weights.append(weight)
    rest = 0.0
    if setup.how == "sum" and isinstance(state, BottleneckState) and not isinstance(self.adapters[setup.first()], ParallelAdapter):
        rest = state.adapter_residual
    hidden = rest + sum(w * (o.hidden_states - rest) for o, w in zip(outs, weights))
    return outs[-1]._replace(hidden_states=hidden) if not isinstance(state, BottleneckState) else state._replace(hidden_states=hidden, last=outs[-1].last)


original_mapping = ComposableAdapterLayerBase._init_mapping


def mapping(self):
    original_mapping(self)
    self.composition_to_func_map[Weights] = "compose_weights"


ComposableAdapterLayerBase._init_mapping = mapping
ComposableAdapterLayerBase.compose_weights = compose_weights

TOKEN = re.compile(r"\s*([A-Za-z0-9_.-]+|[(),:*])")


def read(text):
    """polygraft's grammar → a name, or (function, [(part, what stands behind its colon or None)])."""
    tokens = TOKEN.findall(text)
    assert "".join(tokens) == text.replace(" ", ""), text
    at = 0

    def item():
        nonlocal at
        word = tokens[at]
        at += 1
        if at >= len(tokens) or tokens[at] != "(":
            return word
        parts = []
        while tokens[at] != ")":
            at += 1
            part, number = item(), None
            if tokens[at] == ":":
                number = tokens[at + 1]
                at += 2
            parts.append((part, number))
        at += 1
        return word, parts

    out = item()
    if at < len(tokens):
        assert tokens[at] == ":" and at + 2 == len(tokens), text
        out = ("sum", [(out, tokens[at + 1])])
    return out


def parse(text, ids, separator, names=None):
    """A composition for one row → the library's blocks. `names`: request's name → the library's."""

    def build(tree, ids):
        if isinstance(tree, str):
            return (names or {}).get(tree, tree)
        word, parts = tree
        numbers = [n for _, n in parts]
        if word == "split":
            counts = shares(numbers, ids, separator)
            starts = [sum(counts[:i]) for i in range(len(counts))]
            return ac.Split(*[build(p, ids[at:at + n]) for (p, _), at, n in zip(parts, starts, counts)], splits=counts)
        built = [build(p, ids) for p, _ in parts]
        if word == "stack":
            return ac.Stack(*[Weights("sum", [b], [float(n)]) if n else b for b, n in zip(built, numbers)])
        if word == "fuse":
            return ac.Fuse(*built)
        if word == "average":
            assert all(numbers) or not any(numbers)
            return ac.Average(*built, weights=[float(n) for n in numbers] if numbers[0] else None)
        return Weights(word, built, [float(n or 1) for n in numbers])

    return build(read(text), ids)


def shares(weights, ids, separator):
    if not any(weights):  # Up to and including the first separator, and after it.
        assert len(weights) == 2
        first = ids.index(separator) + 1
        return [first, len(ids) - first]
    counts = [0 if w == "*" else int(w) for w in weights]
    counts = [len(ids) - sum(counts) if w == "*" else c for w, c in zip(weights, counts)]
    if min(counts) < 0:  # With numbers of its own the library slices with them, and says nothing.
        raise IndexError(f"parts of {counts} tokens")
    return counts


def leaves(setup):
    if setup is None:
        return []
    if isinstance(setup, str):
        return [setup]
    return [leaf for child in setup for leaf in leaves(child)]


def without(setup, gone):
    """The composition less the adapters that are added to the weights."""
    if isinstance(setup, str):
        return None if setup in gone else setup
    if setup is None or gone.isdisjoint(leaves(setup)):
        return setup
    left = [c for c in (without(c, gone) for c in setup) if c is not None]
    assert isinstance(setup, ac.Stack), "a PEFT LoRA stands only in a stack here"
    return (ac.Stack(*left) if len(left) > 1 else left[0]) if left else None


# ---- Running

class Runner:
    """A model with the adapters of a case, as they came from their files."""

    def __init__(self, model, names, heads, pefts=None, choices=None, separator=2, fixed=None):
        self.model, self.names, self.heads = model, names, heads
        self.pefts, self.choices, self.separator, self.fixed = pefts or {}, choices, separator, fixed or {}
        self.weights = {}
        self.tables = set()  # adapters that are words alone
        self.headless = None  # a model with the base's own head, for rows whose adapters have none

    def parse(self, text, ids):
        if text in (None, "base"):
            return None
        return self.fixed[text] if text in self.fixed else parse(text, ids, self.separator, self.names)

    def activate(self, text, ids):
        setup = self.parse(text, ids)
        order = leaves(setup)
        self.restore()
        self.merge([n for n in order if n in self.pefts])
        setup = without(setup, set(self.pefts) | self.tables)
        base = self.model.base_model
        tables = getattr(base, "loaded_embeddings", {})
        words = [n for n in order if n in tables]
        if tables:
            base.set_active_embeddings(words[0] if words else "default")
            # Those that are not active are no part of the model, and do not follow its type.
            base.get_input_embeddings().to([p.dtype for k, p in base.named_parameters() if "embeddings" not in k][-1])
        base.set_active_adapters(None if setup is None else setup)
        if hasattr(self.model, "heads"):
            owners = [n for n in order if n in self.heads]
            self.model._active_heads = [owners[-1]] if owners else []
        for module in self.model.modules():
            if isinstance(module, BertFusion) and module.config["temperature"]:
                module.T = 50.0  # It falls with every call; a new process starts here.

    def merge(self, names):
        for name in names:
            for module, delta in self.pefts[name].items():
                weight = self.model.base_model.get_submodule(module).weight
                self.weights.setdefault(module, weight.data.clone())
                weight.data += delta.to(weight.dtype)

    def restore(self):
        for module, weight in self.weights.items():
            self.model.base_model.get_submodule(module).weight.data = weight
        self.weights = {}

    def __call__(self, text, row, types=None):
        if self.headless is not None and self.heads.isdisjoint(leaves(self.parse(text, row))):
            return Runner(self.headless.to(next(self.model.parameters()).dtype), self.names, set())(text, row, types)
        self.activate(text, row if isinstance(row, list) else None)
        out = forward(self.model, row, types)
        self.restore()
        return out

    def choose(self, text, rows, types=None):
        """A multiple-choice head: as many rows as there are choices are one question."""
        hidden = [self(text, r, types and types[i])[0] for i, r in enumerate(rows)]
        self.activate(text, rows[0])
        logits = []
        for at in range(0, len(rows), self.choices):
            question = rows[at:at + self.choices]
            kwargs = dict(input_ids=torch.tensor(question), attention_mask=torch.ones(len(question), len(question[0]), dtype=torch.long))
            if types:
                kwargs["token_type_ids"] = torch.tensor(types[at:at + self.choices])
            if not hasattr(self.model, "heads"):
                kwargs = {k: v.unsqueeze(0) for k, v in kwargs.items()}
            logits += list(self.model(**kwargs).logits[0])
        return [(h, l.reshape(1)) for h, l in zip(hidden, logits)]


def forward(model, row, types=None):
    """The last hidden state and the logits of one row, alone. `row`: ids, or pixels."""
    if isinstance(row, torch.Tensor):
        kwargs = dict(pixel_values=row.unsqueeze(0).to(next(model.parameters()).dtype))
    else:
        kwargs = dict(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long))
    if types:
        kwargs["token_type_ids"] = torch.tensor([types])
    if hasattr(model, "heads") and model._active_heads and model.heads[model._active_heads[0]].config["head_type"] == "multiple_choice":
        model._active_heads = []
    if type(model).__name__.endswith("ForMultipleChoice"):
        model = model.base_model
    out = model(**kwargs)
    hidden, logits = out.get("last_hidden_state"), None
    if hidden is None:
        hidden = model.base_model(**kwargs).last_hidden_state
    if "logits" in out:
        logits = out.logits[0]
    if "start_logits" in out:
        logits = torch.stack([out.start_logits[0], out.end_logits[0]], -1)
    return hidden[0], logits


def run_all(runner, texts, rows, types=None):
    if runner.choices:
        return runner.choose(texts[0], rows, types)
    return [runner(t, r, types and types[i]) for i, (t, r) in enumerate(zip(texts, rows))]


def largest(a, b):
    return max((x - y).abs().max().item() for p, q in zip(a, b) for x, y in zip(p, q) if x is not None and y is not None and x.shape == y.shape)


def check(name, runner, plain, texts, rows, types, results, own, inert):
    """Float64 agrees, the adapters matter, and so does each tensor of theirs (but those that are known to be inert).

    `inert` None: the tensors are not moved."""
    for i, (hidden, logits) in enumerate(results):
        assert torch.isfinite(hidden).all() and (logits is None or torch.isfinite(logits).all()), name
        if texts[i] not in (None, "base") and (not isinstance(rows[i], list) or len(rows[i]) > 2):
            vocab = plain and getattr(plain.config, "vocab_size", None)  # An adapter may have more words.
            row = [i % vocab for i in rows[i]] if isinstance(rows[i], list) and vocab else rows[i]
            difference = None if plain is None else forward(plain, row, types and types[i])[0]
            if difference is not None and difference.shape == hidden.shape:
                assert (difference - hidden).abs().max() > 1e-2, f"{name}: row {i} is the base's"
    torch.set_default_dtype(torch.float64)  # ReFT makes an empty tensor of the default kind.
    try:
        probe(name, runner, lambda: run_all(runner, texts, rows, types), results, own, inert)
    finally:
        torch.set_default_dtype(torch.float32)
        runner.model.float()


def probe(name, runner, run, results, own, inert):
    runner.model.double()
    exact = run()
    off = largest(results, exact)
    assert off < 5e-5, f"{name}: float32 and float64 differ by {off} of {max(h.abs().max().item() for h, _ in exact)}"
    delicate.check(runner.model, lambda: largest(run(), exact))
    if inert is None:
        return
    g = generator("probe")
    used = set()
    for key, p in own:
        kept = p.data.clone()
        p.data += torch.randn(p.shape, generator=g) * 0.1
        moved = largest(run(), exact)
        p.data = kept
        silent = next((i for i in inert if re.search(i, key)), None)
        if silent:
            used.add(silent)
        assert (moved < 1e-9) == bool(silent), f"{name}: {key} {'moves' if silent else 'does not move'} the output ({moved})"
    assert used == set(inert), f"{name}: nothing is called {set(inert) - used}"
