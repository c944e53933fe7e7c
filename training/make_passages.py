"""Writes the demo page's pool: www/passages/passages.json and queries.json.

25 pages of the test split, readable without knowing the program, in ten languages, and fifty
queries: half of them page titles, half of them questions written by hand.

    python training/make_passages.py
"""

import argparse
import json
from pathlib import Path

from make_collections import DENSE, ROOT, cut, name, squash, write

LANGS = "en de es fr hu tr ru ja ko zh".split()
PAGES = """shared/01/password_dlg shared/guide/labels_database scalc/guide/print_landscape scalc/guide/print_exact
schart/01/type_pie shared/01/05080400 shared/01/06040600 swriter/guide/removing_line_breaks swriter/guide/printer_tray
swriter/guide/hyphen_prevent swriter/guide/autotext swriter/guide/text_nav_keyb simpress/guide/individual
simpress/guide/animated_gif_save shared/01/selectcertificate shared/guide/redlining_accept shared/00/00000003
shared/01/04060200 sdraw/guide/cross_fading shared/02/24070000 scalc/01/06130000 scalc/01/05020600
shared/autopi/01020100 simpress/01/04990100 shared/guide/insert_bitmap""".split()
TITLES = {  # the page's own title, in this language
    "en": ["sdraw/guide/cross_fading", "shared/autopi/01020100", "simpress/guide/animated_gif_save"],
    "de": ["swriter/guide/removing_line_breaks", "shared/01/05080400", "scalc/01/05020600"],
    "es": ["shared/guide/labels_database", "swriter/guide/text_nav_keyb"],
    "fr": ["simpress/guide/individual", "scalc/01/06130000"],
    "hu": ["swriter/guide/hyphen_prevent", "shared/02/24070000"],
    "tr": ["scalc/guide/print_landscape", "shared/guide/insert_bitmap", "schart/01/type_pie"],
    "ru": ["shared/guide/redlining_accept", "swriter/guide/printer_tray"],
    "ja": ["shared/01/06040600", "simpress/01/04990100", "shared/00/00000003"],
    "ko": ["swriter/guide/autotext", "shared/01/selectcertificate", "shared/01/05080400"],
    "zh": ["scalc/guide/print_exact", "shared/01/password_dlg"],
}
QUESTIONS = {
    "en": [("How do I keep other people from opening and changing my file?", "shared/01/password_dlg"),
           ("Make every line of a paragraph end at the right margin", "shared/01/05080400")],
    "de": [("Wie drucke ich Adressaufkleber für alle meine Kontakte?", "shared/guide/labels_database"),
           ("Die Seite soll quer statt hoch gedruckt werden", "scalc/guide/print_landscape")],
    "es": [("¿Cómo muestro cada parte de un total como sectores de un círculo?", "schart/01/type_pie"),
           ("Quiero que el programa termine las palabras que escribo a menudo", "shared/01/06040600"),
           ("¿Cómo firmo un documento digitalmente?", "shared/01/selectcertificate")],
    "fr": [("Comment garder ou refuser les corrections faites par mon collègue ?", "shared/guide/redlining_accept"),
           ("Je voudrais écrire les longueurs en pouces plutôt qu'en centimètres", "shared/00/00000003"),
           ("Comment empêcher la coupure d'un mot en fin de ligne ?", "swriter/guide/hyphen_prevent")],
    "hu": [("Hogyan nyomtathatok az első oldalra más papírból, mint a többire?", "swriter/guide/printer_tray"),
           ("Hogyan olvastathatok be egy képet a lapolvasóval?", "shared/01/04060200"),
           ("Gyakran használt szövegrészlet gyors beillesztése", "swriter/guide/autotext")],
    "tr": [("Fare olmadan metin nasıl seçilir?", "swriter/guide/text_nav_keyb"),
           ("Hücrelerin değiştirilmesini nasıl engellerim?", "scalc/01/05020600")],
    "ru": [("Как показать слушателям только часть слайдов?", "simpress/guide/individual"),
           ("Как убрать лишние переносы строк в скопированном тексте?", "swriter/guide/removing_line_breaks"),
           ("Как вставить фотографию в документ?", "shared/guide/insert_bitmap")],
    "ja": [("動く画像をファイルに保存するには", "simpress/guide/animated_gif_save"),
           ("写真の明暗の差を調整したい", "shared/02/24070000")],
    "ko": [("한 도형이 다른 도형으로 서서히 바뀌게 하려면?", "sdraw/guide/cross_fading"),
           ("슬라이드에 오늘 날짜를 넣는 방법", "simpress/01/04990100")],
    "zh": [("怎样制作一份传真的版式？", "shared/autopi/01020100"),
           ("输入时根据同一列的内容自动补全", "scalc/01/06130000"),
           ("怎样把表格横着打印？", "scalc/guide/print_landscape")],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pages", type=Path, default=Path("/work/tmp/help/pages.jsonl"))
    parser.add_argument("--out", type=Path, default=ROOT / "www" / "passages")
    parser.add_argument("--beir", type=Path, help="also write the pool as a collection, for measure.py")
    options = parser.parse_args()
    rows = {}
    for line in open(options.pages, encoding="utf-8"):
        r = json.loads(line)
        if r["split"] == "test":
            rows[name(r["page"]), r["lang"]] = r
    passages = [{"id": f"{p}:{l}", "page": p, "lang": l, "title": rows[p, l]["title"],
                 "text": cut(rows[p, l]["text"], 180 if l in DENSE else 350)} for p in PAGES for l in LANGS]
    queries = [{"text": rows[p, l]["title"], "lang": l, "page": p, "kind": "title"} for l, ps in TITLES.items() for p in ps]
    queries += [{"text": t, "lang": l, "page": p, "kind": "question"} for l, qs in QUESTIONS.items() for t, p in qs]
    queries.sort(key=lambda q: LANGS.index(q["lang"]))
    assert all(q["page"] in PAGES for q in queries)
    for file, items in (("passages", passages), ("queries", queries)):
        body = ",\n".join(json.dumps(i, ensure_ascii=False) for i in items)
        (options.out / f"{file}.json").write_text(f"[\n{body}\n]\n", encoding="utf-8")
    if options.beir:
        folder = options.beir / "mixed"
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        write(folder / "corpus.jsonl", [{"_id": p["id"], "title": "", "text": p["text"], "lang": p["lang"]} for p in passages])
        write(folder / "queries.jsonl", [{"_id": f"q{i}", "text": q["text"], "lang": q["lang"]} for i, q in enumerate(queries)])
        qrels = [f"q{i}\t{p['id']}\t1" for i, q in enumerate(queries) for p in passages if p["page"] == q["page"]]
        (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *qrels]) + "\n")
    text = {(r["page"], r["lang"]): r["text"] for r in passages}
    print(len(passages), "passages", len(queries), "queries,",
          sum(squash(q["text"]) in squash(text[q["page"], q["lang"]]) for q in queries), "occur in their text;",
          "pages asked for:", len({q["page"] for q in queries}))


if __name__ == "__main__":
    main()
