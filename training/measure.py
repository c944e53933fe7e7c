"""nDCG@10 on every collection: base, base + vectors, rank, rank + vectors.

Vectors: e - mean of its language + mean of English, renormalised; the means are of
training/means/LANG.txt, taken under the model that is measured; English stays as it is.

    python training/measure.py --adapter adapters/rank-lora
    python training/measure.py --adapter adapters/rank-lora --collections /work/tmp/help/other
"""

import argparse
import hashlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import torch

from common import BASE, MEANS, PASSAGE, QUERY, ROOT, embed, lines, load, ndcg, shift


class Embedder:
    """Embeds each text once a model; kept on disk, so that a run can go on."""

    def __init__(self, base, adapter, limit, cache):
        key = str(limit)
        if adapter is not None:
            key += hashlib.sha256((Path(adapter) / "adapter_model.safetensors").read_bytes()).hexdigest()[:12]
        self.path = cache / f"embeddings-{key}.pickle"
        self.known = pickle.loads(self.path.read_bytes()) if self.path.is_file() else {}
        self.make, self.model, self.limit = (base, adapter), None, limit

    def __call__(self, texts, prefix):
        missing = sorted({prefix + t for t in texts} - set(self.known))
        if missing:
            self.model = self.model or load(*self.make)
            for start in range(0, len(missing), 256):
                some = missing[start : start + 256]
                self.known.update(zip(some, embed(*self.model, some, "", self.limit)))
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_bytes(pickle.dumps(self.known))
        return np.stack([self.known[prefix + t] for t in texts])


def squash(text):
    return re.sub(r"[\W\d_]+", "", text).casefold()


def read(folder, overlap=True):
    """(corpus, queries, relevant); without overlap, the queries found in no relevant text."""
    relevant = {}
    for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, doc, score = line.split("\t")
        relevant.setdefault(query, {})[doc] = int(score)
    corpus, queries = lines(folder / "corpus.jsonl"), lines(folder / "queries.jsonl")
    if not overlap:
        texts = {c["_id"]: squash(c["text"]) for c in corpus}
        queries = [q for q in queries if not any(squash(q["text"]) in texts[d] for d in relevant[q["_id"]])]
    return corpus, queries, relevant


def score(folder, embedder, means, overlap=True):
    """{query language: (nDCG@10, share of the top ten in the query's language)} in percent."""
    corpus, queries, relevant = read(folder, overlap)
    d = embedder([c["text"] for c in corpus], PASSAGE)
    q = embedder([r["text"] for r in queries], QUERY)
    if means is not None:
        d, q = (shift(x, [r["lang"] for r in rows], means) for x, rows in ((d, corpus), (q, queries)))
    out = {}
    for row, scores in zip(queries, q @ d.T):
        top = np.argsort(-scores, kind="stable")[:10]
        own = np.mean([corpus[i]["lang"] == row["lang"] for i in top])
        out.setdefault(row["lang"], []).append((ndcg([corpus[i]["_id"] for i in top], relevant[row["_id"]]), own))
    return {lang: tuple(100 * np.mean(v, axis=0)) for lang, v in out.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--collections", type=Path, default=ROOT / "tests" / "collections")
    parser.add_argument("--no-overlap", action="store_true", help="leave out queries that occur in a relevant text")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=Path("/work/tmp/cache"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folders = sorted(p.parent for p in options.collections.glob("*/corpus.jsonl"))
    embedders = {"base": Embedder(options.base, None, options.limit, options.cache)}
    if options.adapter:
        embedders["rank"] = Embedder(options.base, options.adapter, options.limit, options.cache)
    langs = {"en"} | {r["lang"] for f in folders for name in ("corpus", "queries") for r in lines(f / f"{name}.jsonl")}
    table, ways = {}, []
    for name, embedder in embedders.items():
        means = {lang: embedder((MEANS / f"{lang}.txt").read_text(encoding="utf-8").splitlines(), PASSAGE).mean(0)
                 for lang in sorted(langs)}
        for label, with_means in ((name, None), (f"{name} + vectors", means)):
            ways.append(label)
            for folder in folders:
                for lang, figures in score(folder, embedder, with_means, not options.no_overlap).items():
                    table.setdefault((folder.name, lang), {})[label] = figures
    mixed = [v for (f, _), v in table.items() if f == "mixed"]
    if mixed:
        table["mixed", "average"] = {w: tuple(np.mean([v[w] for v in mixed], axis=0)) for w in ways}
    print("| collection | queries | " + " | ".join(ways) + " |\n|---|---|" + "--:|" * len(ways))
    for (folder, lang), row in table.items():
        cells = [f"{row[w][0]:.1f}" + (f" ({row[w][1]:.0f} %)" if folder == "mixed" else "") for w in ways]
        print(f"| {folder} | {lang} | " + " | ".join(cells) + " |")
    if options.json:
        options.json.write_text(json.dumps({f"{f}/{l}": {w: list(map(float, v)) for w, v in row.items()}
                                            for (f, l), row in table.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
