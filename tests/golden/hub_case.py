"""One fixture of AdapterHub's methods: made, saved, loaded again, run, checked, written. See hub.py."""

import json
from dataclasses import dataclass

import make
from hub import (Runner, Spec, add, belongs, check, finish, fusion_parameters, head_parameters, largest, load, randomise_fusion, randomise_head,
                 reload, run_all, save)
from make import CLASSES, LENGTHS, ROOT, expect, expect_error, fresh, make_rows, make_types, request
from peft import PeftModel
from peft.tuners.lora import LoraLayer

HUB = ROOT / "hub"
FAMILIES = {}
DONE = set()


def family(name):
    def add_family(make_cases):
        FAMILIES[name] = make_cases
        return make_cases
    return add_family


def spec_of(value):
    return value if isinstance(value, Spec) else Spec(value)


@dataclass
class Fusion:
    members: list
    config: object = "dynamic"
    name: str | None = None  # by default the members', with commas
    container: str = "safetensors"
    edit: object = None
    path: str = "fusion"

    def __post_init__(self):
        self.name = self.name or ",".join(self.members)


def case(name, base, specs, compose=None, row_compose=None, fusion=(), lengths=LENGTHS, rows=None, types=None, cls=None,
         inert=(), choices=None, fixed=None, error=None, same=True, before=None, attention="eager", base_head=False):
    """One case: adapters by the request's names, made, saved, loaded again by the library and run a row at a time.

    `inert`: tensors that the library stores and does not use; `fixed`: what a composition's text means where that is not the
    grammar's; `same`: the reloaded model gives what the made one gave; `base_head`: rows whose adapters have no head take the
    base's, from Hugging Face's class of the base.
    """
    assert name not in DONE, name
    DONE.add(name)
    folder = fresh(HUB / name)
    specs = {k: spec_of(v) for k, v in (specs if isinstance(specs, dict) else {"a": specs}).items()}
    fusion = [f if isinstance(f, Fusion) else Fusion(*f) for f in fusion]
    names = {k: s.saved or (k if fusion else f"{k}_task") for k, s in specs.items()}
    hub = {k: s for k, s in specs.items() if not s.peft}
    heads = {names[k] for k, s in hub.items() if s.head}
    compose = compose or (None if row_compose else next(iter(specs)))
    count = len(row_compose) if row_compose else len(lengths)
    rows = rows or rows_for(name, base, [lengths[i % len(lengths)] for i in range(count)])
    types = make_types(rows) if types else None
    texts = row_compose or [compose] * len(rows)
    for key, spec in specs.items():
        spec.saved = names[key] if spec.words else spec.saved
        spec.path = "adapter" if len(specs) == 1 else f"adapters/{key}"
    for i, f in enumerate(fusion):
        f.path = "fusion" if len(fusion) == 1 else f"fusion/{i}"

    made = load(base, cls, attention)
    for key, spec in hub.items():
        add(made, names[key], spec, f"{name} {key}")
    for i, f in enumerate(fusion):
        made.add_adapter_fusion(f.members, f.config, name=f.name)
        randomise_fusion(made, f.name, f"{name} {i}", isinstance(f.config, dict) and f.config.get("temperature"))
    if before:
        before(made, list(names.values()))
    made.eval()
    for key, spec in hub.items():
        save(made, folder / spec.path, names[key], spec)
    for f in fusion:
        save_fusion(made, folder / f.path, f)
    pefts = {names[k]: make_peft(base, f"{name} {k}", s.peft, folder / s.path) for k, s in specs.items() if s.peft}
    entries = {k: {"path": s.path, **s.options} if s.options else s.path for k, s in specs.items()}
    paths = [f.path for f in fusion]
    ask(folder, base, rows, types, entries, None if row_compose else compose, row_compose, (paths[0] if len(paths) == 1 else paths) or None)
    if error:
        return expect_error(folder, error)

    again = load_again(base, cls, attention, folder, hub, fusion, names)
    runner = Runner(again, names, heads, choices=choices, fixed=fixed, pefts=pefts)
    runner.tables = {names[k] for k, s in hub.items() if s.config is None}
    if base_head:
        runner.headless = load_again(base, CLASSES[base], attention, folder, hub, fusion, names, with_head=False)
    results = run_all(runner, texts, rows, types)
    if same:
        first = Runner(made, names, heads, choices=choices, fixed=fixed, pefts=pefts)
        first.tables = runner.tables
        for key, spec in hub.items():
            if "invertible" in spec.options:
                apply_options(made, names[key], spec)
        off = largest(results, run_all(first, texts, rows, types))
        assert off < 5e-6, f"{name}: the files lose something ({off})"
    own = [(k, p) for k, p in sorted(again.named_parameters()) if any(belongs(k, n) for n in names.values())]
    own += [kp for f in fusion for kp in fusion_parameters(again, f.name)]
    own += [kp for n in heads for kp in head_parameters(again, n)]
    check(name, runner, load(base, cls and cls.replace("ForMultipleChoice", "Model")), texts, rows, types, results, own, inert)
    expect(folder, results)
    for spec in specs.values():
        if spec.late:
            spec.late(folder / spec.path)


def load_again(base, cls, attention, folder, specs, fusion, names, **options):
    """A new model with the adapters and fusions of the folder, as the library loads them."""
    model = load(base, cls, attention)
    for key, spec in specs.items():
        assert reload(model, folder / spec.path, spec, **options) == names[key]
        apply_options(model, names[key], spec)
    for f in fusion:
        model.load_adapter_fusion(str(folder / f.path), use_safetensors=f.container == "safetensors")
    return model.eval()


def save_fusion(model, folder, fusion):
    folder.parent.mkdir(parents=True, exist_ok=True)
    without_head = {"with_head": False} if hasattr(model, "save_head") else {}
    model.save_adapter_fusion(str(folder), fusion.name, use_safetensors=fusion.container == "safetensors", **without_head)
    finish(folder, fusion.container)
    if fusion.edit:
        fusion.edit(folder)


def ask(folder, base, rows, types, entries, compose, row_compose, fusion):
    """The request, for rows of ids or for images."""
    if isinstance(rows[0], list):
        return request(folder, base, rows, types, entries, compose, row_compose, fusion=fusion)
    make.request_pixels(folder, base, rows, entries, compose, row_compose, fusion)


def rows_for(name, base, lengths):
    """Rows of ids, or two and more images where the base sees."""
    config = json.loads((make.base_at(base) / "config.json").read_text())
    if "image_size" not in config:
        return make_rows(name, base, lengths)
    return make.make_images(name, base, len(lengths))


def make_peft(base, name, config, folder):
    """A PEFT LoRA as PEFT saves it; its updates by module, from the file."""
    make.save_adapter(make.wrap(base, CLASSES[base], name, config), folder, base)
    again = PeftModel.from_pretrained(make.load_base(base), folder)
    return {k.removeprefix("base_model.model."): m.get_delta_weight("default") for k, m in again.named_modules() if isinstance(m, LoraLayer)}


def apply_options(model, name, spec):
    """What polygraft's options ask for, done to the library's model."""
    if spec.options.get("invertible") is False:
        model.base_model.delete_invertible_adapter(name)
    if spec.options.get("reft") == "direft":
        for key, module in model.named_modules():
            if f".refts.{name}." in key and hasattr(module, "subtract_projection"):
                module.subtract_projection = False


def edit_json(name, edit):
    """An edit of one JSON file of a folder, as the library writes JSON."""
    def run(folder):
        file = folder / name
        value = json.loads(file.read_text())
        edit(value)
        file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    return run


def edit_config(folder, edit):
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    edit(config)
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def put(into, values):
    for key, value in values.items():
        if value is ...:
            into.pop(key, None)
        else:
            into[key] = value


def config_edit(**values):
    """An edit of the method's own configuration; `...` takes a key out."""
    return lambda folder: edit_config(folder, lambda c: put(c["config"], values))


def top_edit(**values):
    """An edit of what stands around it."""
    return lambda folder: edit_config(folder, lambda c: put(c, values))


def setup_case(name, base, specs, composition, fusion=(), head=None, cls=None, container="bin", lengths=LENGTHS, row_compose=None, error=None):
    """A folder of `save_adapter_setup`, loaded by `load_adapter_setup`."""
    name = f"setup/{name}"
    folder = fresh(HUB / name)
    specs = {k: spec_of(v) for k, v in specs.items()}
    fusion = [f if isinstance(f, Fusion) else Fusion(*f) for f in fusion]
    made = load(base, cls)
    for key, spec in specs.items():
        add(made, key, spec, f"{name} {key}")
    for i, f in enumerate(fusion):
        made.add_adapter_fusion(f.members, f.config, name=f.name)
        randomise_fusion(made, f.name, f"{name} {i}", False)
    if head is True:
        randomise_head(made, None, name)
    made.eval()
    safe = container == "safetensors"
    named = {} if not hasattr(made, "save_head") else {"head_setup": head}
    made.save_adapter_setup(str(folder / "setup"), composition, use_safetensors=safe, **named)
    finish(folder / "setup", container)
    count = len(row_compose) if row_compose else len(lengths)
    rows = make_rows(name, base, [lengths[i % len(lengths)] for i in range(count)])
    texts = row_compose or ["s"] * count
    request(folder, base, rows, None, {"s": "setup"}, None if row_compose else "s", row_compose)
    if error:
        return expect_error(folder, error)
    again = load(base, cls)
    assert again.load_adapter_setup(str(folder / "setup"), use_safetensors=safe)[0] == composition
    again.eval()
    runner = Runner(again, {}, {head} if isinstance(head, str) else set(), fixed={"s": composition})
    results = run_all(runner, texts, rows)
    own = [(k, p) for k, p in sorted(again.named_parameters()) if any(belongs(k, n) for n in specs)]
    inert = (r"\.key\.bias",) if fusion else ()
    own += [kp for f in fusion for kp in fusion_parameters(again, f.name)]
    own += list(head_parameters(again, head)) if head else []
    check(name, runner, load(base, cls), texts, rows, None, results, own, inert)
    expect(folder, results)
