"""Trains `adapters/rank-lora` and its 1-bit twin: a LoRA that ranks title -> passage, within and across languages.

Contrastive, in-batch negatives. Each row of a batch is one train page: its title in one
language (`query: `) and its passage in another or the same (`passage: `), so the negatives
of a row come in many languages. At run time the adapter is stacked with language vectors
(e - mean of its language + mean of English, renormalised): most of the loss is taken on
embeddings shifted that way, by means refreshed during training; the rest on the raw ones,
so that the adapter also stands without vectors.

With `--bits 1`, 2 or 4 the same training has the quantizer of `polygraft pack` in its forward pass (quantize.py). OUT
then holds `latent/`, the folder of the matrices behind the codes, `packed.safetensors`, what `polygraft pack` makes of it,
and, beside the record, the folder of the numbers that its codes stand for: those that were trained with, which is checked.
With `--teacher` the loss also has how far the embeddings are from those of the same adapter in 32 bits: a batch says of 40
texts which belongs to which, a teacher where each of them lies.

    python training/rank.py --steps 200 --out adapters/rank-lora
    python training/rank.py --bits 1 --teacher adapters/rank-lora --out /work/tmp/rank-1bit
    python training/rank.py --bits 1 --family bottleneck --out /work/tmp/rank-bottleneck-1bit
"""

import argparse
import json
import math
import random
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils import parametrize

from common import BASE, PAGES, PASSAGE, QUERY, ROOT, embed, lines, load, pool, tokens
from quantize import Twin, matrices, pack, unpack

LANGS = "en de es fr hu tr ru ja ko zh".split()  # pl pt fi el vi cs are never trained on


FILES = {"lora": ("adapter_config.json", "adapter_model.safetensors"),
         "bottleneck": ("adapter_config.json", "adapter.safetensors")}
NAME = "rank"  # of the bottleneck adapter, which `adapters` writes into its files


def f16(folder: Path, halves: bool):
    """PEFT's own file, readable by everyone and naming no folder of this machine; `halves`: in f16."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    dtype = torch.float16 if halves else torch.float32
    save_file({k: v.to(dtype).contiguous() for k, v in load_file(path).items()}, path, {"format": "pt"})
    path.chmod(0o644)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "multilingual-e5-small"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save(twin, family, out: Path):
    """The library's folder. Matrices that are trained as codes are kept in 32 bits: `pack` must read what was trained."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    with twin.latent() as model:
        if family == "lora":
            model.save_pretrained(part)
            f16(part, halves=not twin.places)
        else:
            part.mkdir(parents=True)
            model.save_adapter(part, NAME, use_safetensors=True)
    if twin.places:
        shutil.rmtree(out, ignore_errors=True)  # `latent/`: a file of another run must not be packed
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES[family]:
        shutil.move(part / name, out / name)
    shutil.rmtree(part)


def ship(twin, options):
    """The packed file and its unpacked folder; the largest difference of a matrix from the one trained with."""
    latent, packed = options.out / "latent", options.out / "packed.safetensors"
    pack(options.polygraft, latent, packed, options.packed_base, options.bits, options.per, options.levels)
    folder = options.out / "unpacked"
    unpack(options.polygraft, packed, folder)
    for file in folder.iterdir():
        shutil.move(file, options.out / file.name)
    folder.rmdir()
    trained = twin.values()
    if options.family == "lora":
        model = load(options.base, options.out)[1]
        for name, p in model.named_parameters():
            p.requires_grad_("lora_" in name)
    else:
        import adapters

        model = load(options.base)[1]
        adapters.init(model)
        model.train_adapter(model.load_adapter(str(options.out), use_safetensors=True))
    worst = max((m.get_parameter(n) - t).abs().max().item() for (m, n), t in zip(matrices(model), trained, strict=True))
    if worst > 1e-6:
        raise SystemExit(f"{packed} is not what was trained: a number is off by {worst:g}")
    print(packed, packed.stat().st_size, "bytes; the largest difference from what was trained:", worst)
    return worst


def graft(model, options):
    """The model with the library's own modules, fresh ones, alone trainable."""
    if options.family == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(
            r=options.rank, lora_alpha=options.alpha or 2 * options.rank, target_modules=options.targets.split(","),
            lora_dropout=0.0, bias="none"))
        ups = [p for n, p in model.named_parameters() if "lora_B" in n]
        model.print_trainable_parameters()
    else:
        import adapters

        adapters.init(model)
        model.add_adapter(NAME, config=adapters.SeqBnConfig(reduction_factor=options.reduction))
        model.train_adapter(NAME)
        ups = []
    if options.bits < 32:
        # Zeros have no deviation: the paper's start.
        for p in ups:
            torch.nn.init.trunc_normal_(p, std=options.start, a=-2 * options.start, b=2 * options.start)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--pages", type=Path, default=PAGES)
    parser.add_argument("--out", type=Path, default=ROOT / "adapters" / "rank-lora")
    parser.add_argument("--bits", type=int, default=32, choices=[1, 2, 4, 32])
    parser.add_argument("--per", default="tensor", choices=["tensor", "row", "32", "64"], help="what shares statistics")
    parser.add_argument("--levels", default="median", choices=["median", "least-squares"])
    parser.add_argument("--start", type=float, default=1e-3, help="deviation of LoRA's B at the start, below 32 bits")
    parser.add_argument("--polygraft", type=Path, default=ROOT / "target" / "release" / "polygraft")
    parser.add_argument("--packed-base", type=Path, default=ROOT / "models" / "multilingual-e5-small",
                        help="the base that the packed file names")
    parser.add_argument("--family", default="lora", choices=["lora", "bottleneck"])
    parser.add_argument("--reduction", type=int, default=16, help="of the bottleneck")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, help="LoRA's; twice the rank where it is not given")
    parser.add_argument("--targets", default="query,value")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--lr", type=float, help="1.2e-3, and below 32 bits 2e-3: to move a code a number must change sides")
    parser.add_argument("--temperature", type=float, default=0.05)
    parser.add_argument("--shifted", type=float, default=0.9, help="share of the loss on shifted embeddings")
    parser.add_argument("--keep", type=float, default=0.0, help="weight of staying near the base (1 - cosine)")
    parser.add_argument("--teacher", type=Path, help="the same adapter trained in 32 bits, whose embeddings are learnt too")
    parser.add_argument("--near", type=float, default=20.0, help="weight of being near the teacher (1 - cosine)")
    parser.add_argument("--english", type=float, default=0.4, help="chance that a side of a pair is English")
    parser.add_argument("--refresh", type=int, default=8, help="steps between refreshed means")
    parser.add_argument("--half", action="store_true", help="the base's products in bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    options.lr = options.lr or (1.2e-3 if options.bits == 32 else 2e-3)
    if options.keep and options.family != "lora":
        parser.error("--keep needs --family lora")
    if options.bits < 32 and not options.polygraft.is_file():
        parser.error(f"{options.polygraft} is not there: cargo build --release -p polygraft-cli, or name one with --polygraft")

    random.seed(options.seed)
    np.random.seed(options.seed)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    tokenizer, model = load(options.base, half=options.half)
    teacher = load(options.base, options.teacher, options.half)[1] if options.teacher else None
    pages = {}
    for r in lines(options.pages):
        if r["split"] == "train" and r["lang"] in LANGS:
            pages.setdefault(r["page"], {})[r["lang"]] = r
    pages = list(pages.values())

    # Means, one a language: those of the base over 40 passages, moved along by how far 10 of
    # them have gone since. All are refreshed at once: a stale one beside a fresh one is a bias.
    still, probes, origin = {}, {}, {}
    for lang in LANGS:
        some = random.sample([p[lang]["text"] for p in pages if lang in p], 40)
        still[lang] = embed(tokenizer, model, some, PASSAGE, options.limit).mean(0)
        probes[lang] = some[:10]
        origin[lang] = embed(tokenizer, model, probes[lang], PASSAGE, 64).mean(0)

    def refresh():
        model.eval()
        now = {lang: embed(tokenizer, model, probes[lang], PASSAGE, 64).mean(0) for lang in LANGS}
        model.train()
        return {lang: torch.from_numpy(still[lang] + now[lang] - origin[lang]) for lang in LANGS}

    model = graft(model, options)
    twin = Twin(model, options.bits, options.per, options.levels)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=options.lr, weight_decay=0.01)

    def pick(page):
        return "en" if random.random() < options.english and "en" in page else random.choice(sorted(page))

    def moved(x, langs):
        delta = torch.stack([means["en"] - means[lang] for lang in langs])
        return F.normalize(x + delta, dim=-1)

    def loss_of(q, d):
        score = q @ d.T / options.temperature
        target = torch.arange(len(q))
        return (F.cross_entropy(score, target) + F.cross_entropy(score.T, target)) / 2

    def far(reference, q, d, left, right):
        """How far the embeddings are from another model's of the same texts: 1 - cosine, of both sides."""
        with torch.no_grad():
            q0, d0 = pool(reference, left), pool(reference, right)
        return 2 - (q * q0).sum(-1).mean() - (d * d0).sum(-1).mean()

    folder = options.out / "latent" if twin.places else options.out
    log, seen, queue = [], 0, []
    began = time.time()
    for step in range(options.steps):
        if len(queue) < options.rows:
            queue = random.sample(pages, len(pages))
        if step % options.refresh == 0:
            means = refresh()
        batch, queue = queue[: options.rows], queue[options.rows :]
        ql, dl = [pick(p) for p in batch], [pick(p) for p in batch]
        titles = [QUERY + p[a]["title"] for p, a in zip(batch, ql)]
        texts = [PASSAGE + p[b]["text"][:900] for p, b in zip(batch, dl)]
        left, right = tokens(tokenizer, titles, 48), tokens(tokenizer, texts, options.limit)
        seen += int(left["attention_mask"].sum() + right["attention_mask"].sum())
        warm = min(1.0, (step + 1) / max(1, options.steps // 15))
        rate = options.lr * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        with parametrize.cached():
            q, d = pool(model, left), pool(model, right)
            raw, shifted = loss_of(q, d), loss_of(moved(q, ql), moved(d, dl))
            loss = options.shifted * shifted + (1 - options.shifted) * raw
            if options.keep:
                with model.disable_adapter():
                    loss = loss + options.keep * far(model, q, d, left, right)
            if teacher is not None:
                loss = loss + options.near * far(teacher, q, d, left, right)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.append({"step": step, "loss": round(loss.item(), 4), "shifted": round(shifted.item(), 4), "raw": round(raw.item(), 4)})
        if step % 5 == 4:
            last = log[-10:]
            print(step + 1, *(f"{k} {sum(r[k] for r in last) / len(last):.4f}" for k in ("loss", "shifted", "raw")),
                  f"{seen / (time.time() - began):.0f} tokens/s {time.time() - began:.0f} s", flush=True)
        if step % 30 == 29:
            save(twin, options.family, folder)
    save(twin, options.family, folder)
    # What decides the result; places on this machine do not.
    record = {k: v for k, v in vars(options).items() if not isinstance(v, Path)}
    record.update(teacher=options.teacher is not None, seconds=round(time.time() - began), tokens=seen, langs=LANGS, pages=len(pages), log=log)
    if twin.places:
        record["difference"] = ship(twin, options)
    (options.out / "train.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
