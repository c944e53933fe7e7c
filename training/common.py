"""What the scripts share: the model, embedding, language vectors, nDCG."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
BASE = Path("/work/tmp/e5")
PAGES = Path("/work/tmp/help/pages.jsonl")
MEANS = ROOT / "training" / "means"
QUERY, PASSAGE = "query: ", "passage: "


def load(base=BASE, adapter=None, half=False):
    """(tokenizer, model); the adapter is a PEFT folder; `half`: `halve`."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    model = AutoModel.from_pretrained(base, add_pooling_layer=False, attn_implementation="sdpa")
    if half:
        halve(model)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return tokenizer, model.eval()


class Halved(torch.autograd.Function):
    """x · Wᵀ with a frozen W, both ways in bfloat16, f32 outside."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(weight)
        return (x.bfloat16() @ weight.T).float()

    @staticmethod
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        return (grad.bfloat16() @ weight).float(), None


def halve(model):
    """The base's products in bfloat16, the adapter's left in f32: more than twice as fast on a CPU that has such
    instructions. For training; called before the adapter's modules are there."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            weight, bias = module.weight.detach().bfloat16(), module.bias.detach()
            module.forward = lambda x, weight=weight, bias=bias: Halved.apply(x, weight) + bias


def pool(model, batch):
    """L2-normalised mean over the row's tokens, specials included."""
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1)


def tokens(tokenizer, texts, limit):
    batch = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


@torch.no_grad()
def embed(tokenizer, model, texts, prefix="", limit=512, rows=16):
    """[n, 384] f32; batches of texts of like length."""
    out = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].encode()))
    for start in range(0, len(order), rows):
        ids = order[start : start + rows]
        out[ids] = pool(model, tokens(tokenizer, [prefix + texts[i] for i in ids], limit)).float().cpu().numpy()
    return out


def lines(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def normalise(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def shift(x, langs, means):
    """e − mean of its language + mean of English, renormalised; English and unknown stay."""
    out = x.copy()
    for i, lang in enumerate(langs):
        if lang != "en" and lang in means:
            out[i] += means["en"] - means[lang]
    return normalise(out)


def language_means(tokenizer, model, langs, limit=200):
    out = {}
    for lang in langs:
        texts = (MEANS / f"{lang}.txt").read_text(encoding="utf-8").splitlines()
        out[lang] = embed(tokenizer, model, texts, PASSAGE, limit).mean(0)
    return out


def ndcg(order, relevant, k=10):
    """order: document ids, best first; relevant: {id: score}; gain is the score itself."""
    gain = sum(relevant.get(d, 0) / math.log2(i + 2) for i, d in enumerate(order[:k]))
    best = sorted(relevant.values(), reverse=True)[:k]
    return gain / sum(g / math.log2(i + 2) for i, g in enumerate(best))
