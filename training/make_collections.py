"""Writes what the tests and the demo page read, from the cleaned help pages.

    training/means/LANG.txt     ~100 passages a language, from the *means* split
    tests/collections/*/        BEIR folders, from the *test* split

A title is a query; the body of the same page, in every language of the pool, is relevant.
Titles are left out of the passages (`title` is empty).

    python training/make_collections.py
"""

import argparse
import hashlib
import json
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIXED = "en de es fr hu tr ru ja ko zh".split()
PAIRS = [("en", "en", "hu"), ("en", "hu", "hu"), ("hu", "en", "hu"), ("hu", "hu", "hu"),
         ("en", "ja", "ja"), ("ja", "en", "ja"), ("en", "el", "el"), ("el", "en", "el")]
ALL = "en de es fr hu tr ru ja ko zh pl pt fi el vi cs".split()
DENSE = {"ja", "ko", "zh"}


def squash(text):
    return re.sub(r"[\W\d_]+", "", text).casefold()


def cut(text, characters, size=None):
    """A prefix of at most so many characters (and bytes), at a word's end where there are spaces."""
    short = text[:characters]
    if size is not None:
        short = short.encode()[:size].decode(errors="ignore")
    if len(short) < len(text) and " " in short[int(len(short) * 0.8):]:
        short = short[: short.rindex(" ")]
    return short.strip()


def order(page):
    return hashlib.sha256(("order:" + page).encode()).hexdigest()


def write(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)


def name(page):
    return page.removesuffix(".html")


def collection(folder, pages, query_langs, doc_langs, long, short):
    """One BEIR folder; returns its figures."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "qrels").mkdir(parents=True)
    corpus, queries, qrels, overlap = [], [], ["query-id\tcorpus-id\tscore"], 0
    for page, here in pages:
        for lang in doc_langs:
            text = cut(here[lang]["text"], short if lang in DENSE else long)
            corpus.append({"_id": f"{name(page)}:{lang}", "title": "", "text": text, "lang": lang})
        for lang in query_langs:
            queries.append({"_id": f"q:{name(page)}:{lang}", "text": here[lang]["title"], "lang": lang})
            qrels += [f"q:{name(page)}:{lang}\t{name(page)}:{d}\t1" for d in doc_langs]
            overlap += any(squash(here[lang]["title"]) in squash(cut(here[d]["text"], short if d in DENSE else long))
                           for d in doc_langs)
    write(folder / "corpus.jsonl", corpus)
    write(folder / "queries.jsonl", queries)
    (folder / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n")
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return {"pages": len(pages), "passages": len(corpus), "queries": len(queries),
            "titles in a relevant text": overlap, "bytes": size}


def parallel(rows, langs, count, split="test"):
    by = {}
    for r in rows:
        if r["split"] == split:
            by.setdefault(r["page"], {})[r["lang"]] = r
    have = sorted((p for p in by if all(l in by[p] for l in langs)), key=order)
    return [(p, by[p]) for p in have[:count]]


def means(rows, lang, count=100, characters=600, size=780):
    """Passages from the means split; a language with few pages gives several a page."""
    texts = [r["text"] for r in sorted(rows, key=lambda r: order(r["page"])) if r["lang"] == lang and r["split"] == "means"]
    out, rest = [], texts
    while rest and len(out) < count:
        following = []
        for text in rest:
            piece = cut(text, characters, size)
            if len(squash(piece)) >= (25 if lang in DENSE else 60) and len(out) < count:
                out.append(" ".join(piece.split()))
            if len(text) > len(piece):
                following.append(text[len(piece):].strip())
        rest = following
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pages", type=Path, default=Path("/work/tmp/help/pages.jsonl"))
    parser.add_argument("--gimp", type=Path, default=Path("/work/tmp/help/gimp.jsonl"))
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "collections")
    parser.add_argument("--other", type=Path, default=Path("/work/tmp/help/other"), help="not committed: GFDL text")
    options = parser.parse_args()
    rows = [json.loads(line) for line in open(options.pages, encoding="utf-8")]
    folder = ROOT / "training" / "means"
    folder.mkdir(exist_ok=True)
    for lang in ALL:
        text = "".join(f"{t}\n" for t in means(rows, lang))
        (folder / f"{lang}.txt").write_text(text, encoding="utf-8")
        print("means", lang, text.count("\n"), len(text.encode()))
    figures = {"mixed": collection(options.out / "mixed", parallel(rows, MIXED, 60), MIXED, MIXED, 600, 300)}
    for query, doc, other in PAIRS:
        pages = parallel(rows, ["en", other], 150)
        figures[f"{query}-{doc}"] = collection(options.out / f"{query}-{doc}", pages, [query], [doc], 700, 350)
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    for key, value in figures.items():
        print(key, value)
    # Another program's help: every split, since nothing is trained on it.
    if options.gimp.is_file():
        rows = [dict(json.loads(line), split="test") for line in open(options.gimp, encoding="utf-8")]
        langs = "en de es fr ru ja".split()
        print("gimp mixed", collection(options.other / "mixed", parallel(rows, langs, 80), langs, langs, 600, 300))
        for query, doc in (("en", "de"), ("de", "en"), ("en", "ja"), ("ja", "en"), ("en", "en")):
            other = doc if doc != "en" else query if query != "en" else "de"
            print(f"gimp {query}-{doc}", collection(options.other / f"{query}-{doc}", parallel(rows, ["en", other], 150),
                                                    [query], [doc], 700, 350))


if __name__ == "__main__":
    main()
