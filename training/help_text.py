"""Cleaned parallel help pages: one JSON line per page and language.

Sources, as unpacked Debian packages under one root (`dpkg -x`):
    libreoffice-help-*   usr/share/libreoffice/help/LANG/text/**.html   (MPL-2.0)
    gimp-help-*          usr/share/gimp/2.0/help/LANG/*.html            (GFDL-1.2+; measuring only)

What is dropped, and why:
    * the page's head, footer ("This page is:", "Title is:"), menus, related topics,
      "to access this command" boxes: labels that an adapter would learn to read;
    * the first heading: it is the title again;
    * code blocks;
    * in translations, paragraphs that are still English (the same text as in the English
      page, or Latin text made of English function words); pages that keep under 60 % of
      their characters; pages whose title is the English one.

A page falls into train / means / test by a hash of its name, in every language alike.

    python training/help_text.py --root /work/tmp/help/root --out /work/tmp/help/pages.jsonl
    python training/help_text.py --program gimp --out /work/tmp/help/gimp.jsonl
"""

import argparse
import hashlib
import json
import re
from html.parser import HTMLParser
from multiprocessing import Pool
from pathlib import Path

LANGS = {  # ours -> the package's folder
    "libreoffice": {"en": "en-US", "de": "de", "es": "es", "fr": "fr", "hu": "hu", "tr": "tr",
                    "ru": "ru", "ja": "ja", "ko": "ko", "zh": "zh-CN", "pl": "pl", "fi": "fi",
                    "el": "el", "hi": "hi", "vi": "vi", "cs": "cs", "pt": "pt-BR"},
    "gimp": {"en": "en", "de": "de", "es": "es", "fr": "fr", "hu": "hu", "ru": "ru", "ja": "ja",
             "ko": "ko", "fa": "fa", "fi": "fi", "zh": "zh_CN"},
}
FOLDER = {"libreoffice": ("usr/share/libreoffice/help", "text"), "gimp": ("usr/share/gimp/2.0/help", "")}
VOID = {"br", "img", "meta", "link", "input", "hr", "base", "col", "area", "wbr", "source"}
BLOCK = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "td", "th", "li", "dt", "dd", "div", "tr", "table", "ul", "ol", "dl"}
DROP_TAGS = {"script", "style", "header", "footer", "aside", "pre", "noscript", "h1", "nav"}
DROP_CLASSES = {"relatedtopics", "related", "howtoget", "bascode", "pycode", "MAC", "navheader", "navfooter",
                "debug", "toc", "titlepage", "sqlcode", "xmlcode", "breadcrumbs", "mediaobject", "titlepage",
                "index", "footnotes", "programlisting", "screen"}
ENGLISH = set("the of to and a in is for you can this or with from that on an by are as be it if not "
              "choose enter select click opens specifies displays when your which use value returns".split())


class Page(HTMLParser):
    """Title and paragraphs of one help page."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.title, self.paragraphs, self.current = "", [], []
        self.stack, self.dropped, self.in_title = [], 0, False

    def handle_starttag(self, tag, attrs):
        if tag == "title":
            self.in_title = True
        if tag in VOID:
            if tag == "br":
                self.current.append(" ")
            return
        attrs = dict(attrs)
        classes = set((attrs.get("class") or "").split())
        drop = tag in DROP_TAGS or bool(classes & DROP_CLASSES)
        if tag in BLOCK:
            self.flush()
        self.stack.append((tag, drop))
        self.dropped += drop

    def handle_endtag(self, tag):
        if tag == "title":
            self.in_title = False
        if tag in VOID or not any(t == tag for t, _ in self.stack):
            return
        if tag in BLOCK:
            self.flush()
        while self.stack:
            top, drop = self.stack.pop()
            self.dropped -= drop
            if top == tag:
                break

    def handle_data(self, data):
        if self.in_title:
            self.title += data
        elif not self.dropped and any(t == "body" for t, _ in self.stack):
            self.current.append(data)

    def flush(self):
        text = " ".join("".join(self.current).split())
        self.current = []
        if text:
            self.paragraphs.append(text)


def parse(path: Path):
    page = Page()
    page.feed(path.read_text(encoding="utf-8", errors="replace"))
    page.flush()
    title = re.sub(r"^\s*(\d+|[A-Z])(\.\d+)*\.\s+", "", " ".join(page.title.split()))
    body = [p for i, p in enumerate(page.paragraphs) if not (i < 3 and squash(p) in (squash(title), squash(page.title)))]
    return title, body


def squash(text):
    return re.sub(r"[\W\d_]+", "", text).casefold()


def english(paragraph):
    """Whether a paragraph of a translation reads as English."""
    letters = [c for c in paragraph if c.isalpha()]
    if len(letters) < 12 or sum(c.isascii() for c in letters) < 0.9 * len(letters):
        return False
    words = re.findall(r"[A-Za-z']+", paragraph.lower())
    return len(words) >= 4 and sum(w in ENGLISH for w in words) >= 0.2 * len(words)


def split(page):
    point = int(hashlib.sha256(page.encode()).hexdigest()[:8], 16) % 100
    return "train" if point < 65 else "means" if point < 73 else "test"


def rows(job):
    root, program, page = job
    base, inner = FOLDER[program]
    out, source, english_title = [], set(), ""
    for lang, folder in LANGS[program].items():
        path = root / base / folder / inner / page
        if not path.is_file():
            if lang == "en":
                return []
            continue
        title, body = parse(path)
        if lang == "en":
            source, english_title = {squash(p) for p in body}, squash(title)
        else:
            total = sum(map(len, body))
            body = [p for p in body if not (len(squash(p)) > 3 and squash(p) in source) and not english(p)]
            if squash(title) == english_title or english(title) or sum(map(len, body)) < 0.6 * total:
                continue
        text = " ".join(body)
        if len(squash(text)) < (25 if lang in ("ja", "ko", "zh") else 60) or len(squash(title)) < 2:
            continue
        out.append({"page": page, "lang": lang, "split": split(page), "title": title, "text": text[:4000]})
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("/work/tmp/help/root"))
    parser.add_argument("--out", type=Path, default=Path("/work/tmp/help/pages.jsonl"))
    parser.add_argument("--program", choices=sorted(FOLDER), default="libreoffice")
    options = parser.parse_args()
    base, inner = FOLDER[options.program]
    top = options.root / base / LANGS[options.program]["en"] / inner
    pages = sorted(str(p.relative_to(top)) for p in top.rglob("*.html"))
    pages = [p for p in pages if not re.match(r"gfdl|bibliography|glossary|index|noscript", p)]
    with Pool(2) as pool:
        found = [r for rs in pool.imap(rows, [(options.root, options.program, p) for p in pages], 16) for r in rs]
    # A title that several pages share answers no query: out, in that language.
    seen = {}
    for r in found:
        seen.setdefault((r["lang"], squash(r["title"])), set()).add(r["page"])
    kept = [r for r in found if len(seen[r["lang"], squash(r["title"])]) == 1]
    with open(options.out, "w", encoding="utf-8") as f:
        for r in kept:
            f.write(json.dumps(r, ensure_ascii=False) + "\n")
    for lang in LANGS[options.program]:
        here = [r for r in kept if r["lang"] == lang]
        overlap = sum(squash(r["title"]) in squash(r["text"]) for r in here)
        print(lang, {s: sum(r["split"] == s for r in here) for s in ("train", "means", "test")}, "title in text", overlap)


if __name__ == "__main__":
    main()
