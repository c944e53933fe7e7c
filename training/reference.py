"""Tokens and embeddings of a hundred texts, as `transformers` and `tokenizers` see them.

    tests/collections/reference/texts.txt               one text a line; \\n \\r \\t \\u{HEX} and \\\\ are escapes
    tests/collections/reference/texts.json              the same texts as a JSON array
    tests/collections/reference/tokens.json             [[id, …], …], specials included, nothing cut
    tests/collections/reference/embeddings.safetensors  `embeddings` [100, 384] F32: L2-normalised mean
                                                        pooling, no prefix, texts cut to 512 tokens

    tests/collections/reference/rank.safetensors        the same under the adapter (peft, f16 factors in f32)
    tests/collections/reference/rank1.safetensors       the same under its twin of one bit, unpacked (peft)

    python training/reference.py --adapter adapters/rank-lora --twin /work/tmp/rank-1bit
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from common import BASE, ROOT, embed, load

TEXTS = [
    # One sentence in each of many languages and scripts.
    "The library lends books, maps and musical instruments to anyone who lives in the town.",
    "Die Straßenbahn fährt sonntags nur alle zwanzig Minuten über die große Brücke.",
    "Le musée ouvre à neuf heures, mais l'entrée des élèves se fait par la cour.",
    "¿Dónde está la estación de autobuses más cercana al río?",
    "Árvíztűrő tükörfúrógép: a jó öreg próbaszöveg minden magyar ékezettel.",
    "İstanbul'da yağmur yağarken vapurlar yine de düdüklerini öttürür.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "図書館は午前九時に開き、夕方六時に閉まります。",
    "도서관은 아침 아홉 시에 열고 저녁 여섯 시에 닫습니다.",
    "图书馆早上九点开门，晚上六点关门。",
    "圖書館早上九點開門，晚上六點關門。",
    "تفتح المكتبة أبوابها في الساعة التاسعة صباحًا كل يوم ما عدا الجمعة.",
    "הספרייה נפתחת בתשע בבוקר ונסגרת בשש בערב.",
    "کتابخانه هر روز ساعت نه صبح باز می‌شود.",
    "لائبریری صبح نو بجے کھلتی ہے اور شام چھ بجے بند ہوتی ہے۔",
    "ห้องสมุดเปิดเวลาเก้าโมงเช้าและปิดเวลาหกโมงเย็น",
    "ຫໍສະໝຸດເປີດເວລາເກົ້າໂມງເຊົ້າ",
    "បណ្ណាល័យបើកនៅម៉ោងប្រាំបួនព្រឹក។",
    "စာကြည့်တိုက်သည် မနက်ကိုးနာရီတွင် ဖွင့်သည်။",
    "पुस्तकालय सुबह नौ बजे खुलता है और शाम छह बजे बंद होता है।",
    "গ্রন্থাগারটি সকাল নয়টায় খোলে।",
    "நூலகம் காலை ஒன்பது மணிக்குத் திறக்கிறது.",
    "గ్రంథాలయం ఉదయం తొమ్మిది గంటలకు తెరుచుకుంటుంది.",
    "ಗ್ರಂಥಾಲಯವು ಬೆಳಿಗ್ಗೆ ಒಂಬತ್ತು ಗಂಟೆಗೆ ತೆರೆಯುತ್ತದೆ.",
    "ഗ്രന്ഥശാല രാവിലെ ഒമ്പത് മണിക്ക് തുറക്കും.",
    "પુસ્તકાલય સવારે નવ વાગ્યે ખૂલે છે.",
    "ਲਾਇਬ੍ਰੇਰੀ ਸਵੇਰੇ ਨੌਂ ਵਜੇ ਖੁੱਲ੍ਹਦੀ ਹੈ।",
    "පුස්තකාලය උදේ නවයට විවෘත වේ.",
    "ბიბლიოთეკა დილის ცხრა საათზე იღება.",
    "Գրադարանը բացվում է առավոտյան ժամը իննին։",
    "Η βιβλιοθήκη ανοίγει στις εννέα το πρωί και κλείνει στις έξι.",
    "ቤተ መጻሕፍቱ ጠዋት ሦስት ሰዓት ላይ ይከፈታል።",
    "དཔེ་མཛོད་ཁང་ཞོགས་པ་ཆུ་ཚོད་དགུ་པར་སྒོ་འབྱེད།",
    "Thư viện mở cửa lúc chín giờ sáng và đóng cửa lúc sáu giờ chiều.",
    "Biblioteka jest otwarta od dziewiątej rano, źródło wiadomości: gęś żółta.",
    "Knihovna otevírá v devět hodin ráno; příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Kirjasto aukeaa yhdeksältä aamulla ja sulkeutuu kuudelta illalla.",
    "Raamatukogu avatakse hommikul kell üheksa.",
    "Biblioteket öppnar klockan nio på morgonen, även på påskdagen.",
    "Bókasafnið opnar klukkan níu á morgnana; þetta er góður staður.",
    "A biblioteca abre às nove da manhã, não às dez.",
    "La biblioteca apre alle nove del mattino; perché aspettare?",
    "Biblioteca se deschide la ora nouă dimineața, în fața pieței.",
    "Бібліотека відчиняється о дев'ятій ранку, їжак і ґанок поруч.",
    "Библиотеката отваря в девет часа сутринта.",
    "Библиотека се отвара у девет сати ујутру, џеп и ђак.",
    "Кітапхана таңғы сағат тоғызда ашылады.",
    "Perpustakaan buka pukul sembilan pagi.",
    "Maktaba hufunguliwa saa tatu asubuhi.",
    "Ile-ikawe naa ṣí ni agogo mẹsan owurọ.",
    "Номын сан өглөө есөн цагт нээгдэнэ.",
    "ᠨᠣᠮ ᠤᠨ ᠰᠠᠩ",
    "ދިވެހިރާއްޖޭގެ ލައިބްރަރީ",
    "ܒܝܬ ܟܬܒܐ",
    "ᐊᑐᐊᒐᖃᕐᕕᒃ ᐅᒃᑯᐃᖅᑕᐅᕗᖅ",
    "ᚠᚢᚦᚨᚱᚲ ᚷᚹᚺᚾᛁᛃ",
    "ⴰⵙⴳⵔⵓ ⵏ ⵉⴷⵍⵉⵙⵏ",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ",
    # Emoji: joined, coloured, flags, keycaps, variation selectors.
    "Great job 👍🏽 see you tomorrow 👩‍👩‍👧‍👦 🇭🇺🇯🇵 1️⃣ ❤️ ☎︎",
    "🎉🎉🎉",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿 versus 🏴‍☠️",
    "👁️‍🗨️🧑🏿‍🚀",
    # Combining marks and normalisation.
    "e\u0301te\u0301 vs été, A\u030angstro\u0308m vs Ångström",
    "Z\u0351\u036b\u0343\u036aa\u0302\u0317l\u0334g\u0321o\u0336 text with stacked marks",
    "\u1112\u1161\u11ab\u1100\u1173\u11af versus 한글",
    "ﬁne oﬃce ½ ² ℃ № ™ Ⅷ ① ㍿ ㎏",
    "ｆｕｌｌｗｉｄｔｈ　ＡＢＣ１２３ ｶﾞｷﾞｸﾞ",
    "\u0301leading mark",
    "नी\u0902 क\u094dष \u200dज\u200d",
    # Odd whitespace and invisible characters.
    "two  spaces   three    four",
    "  leading and trailing  ",
    "tab\there\tand\t\tthere",
    "line one\nline two\r\nline three\rline four",
    "no-break\u00a0space, thin\u2009space, ideographic\u3000space, narrow\u202fspace",
    "zero\u200bwidth\u200cjoin\u200ders\u2060and\ufeffBOM",
    "soft\u00adhyphen and \u2028line separator and \u2029paragraph",
    "bidi \u202eoverride\u202c and \u2067isolate\u2069 marks \u200e\u200f",
    "control \u0001\u0007\u001b characters \u007f",
    " ",
    "",
    "\u2581already a metaspace\u2581\u2581here",
    # Code, numbers, addresses, markup, special tokens as text.
    "fn main() { println!(\"{:?}\", vec![1, 2, 3].iter().map(|x| x * 2)); }",
    "https://example.org/a/b?c=d&e=%C3%A9#fragment user@example.com",
    "3.14159 1,000,000.50 -7 +36 1 234 5678 2024-02-29T23:59:60Z 0xDEADBEEF",
    "<s> </s> <pad> <unk> <mask> are plain text here",
    "<b>bold</b> &amp; &lt;escaped&gt;",
    "$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$ ∀x∈ℝ ∃y: y²=x ⇒ x≥0",
    "ALL CAPS SHOUTING and camelCaseIdentifier snake_case_name kebab-case-word",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen und Megszentségteleníthetetlenségeskedéseitekért",
    "\"‘“„«‹quotes›»”’\" — – ‑ … · • ¿¡",
    "query: what opens at nine?",
    "passage: The library opens at nine.",
    "Mixed: 東京 to Москва via القاهرة and กรุงเทพ, arrival 12:30.",
    "שלום world مرحبا мир 世界",
    "𝕌𝕟𝕚𝕔𝕠𝕕𝕖 𝒎𝒂𝒕𝒉 𝟙𝟚𝟛 𐍈 𠮷野家",
    "x",
    "  \n\n  a  \n\n  ",
    "。",
    # A long one: cut at 512 tokens.
    " ".join(f"Paragraph {i}: the river rose by {i * 7 % 31} centimetres; a folyó vize tovább áradt, 水位は上がり続けた."
             for i in range(1, 41)),
]


def escape(text):
    out = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return re.sub("[\u0000-\u001f\u007f\u0085\u2028\u2029\ufeff]", lambda m: f"\\u{{{ord(m[0]):x}}}", out)


def unescape(line):
    simple = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    return re.sub(r"\\(?:u\{([0-9a-f]+)\}|(.))", lambda m: chr(int(m[1], 16)) if m[1] else simple[m[2]], line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "collections" / "reference")
    parser.add_argument("--adapter", type=Path, help="also write rank.safetensors")
    parser.add_argument("--twin", type=Path, help="also write rank1.safetensors; what `polygraft unpack` made of the packed file")
    options = parser.parse_args()
    assert len(TEXTS) == 100, len(TEXTS)
    assert all(unescape(escape(t)) == t for t in TEXTS)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "texts.txt").write_bytes("".join(escape(t) + "\n" for t in TEXTS).encode())
    (options.out / "texts.json").write_text(json.dumps(TEXTS, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    plain = Tokenizer.from_file(str(options.base / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()
    ids = [plain.encode(t).ids for t in TEXTS]
    torch.set_num_threads(2)
    tokenizer, model = load(options.base)
    for text, row in zip(TEXTS, ids):
        if tokenizer(text)["input_ids"] != row:
            print("transformers differs:", repr(text), row[:12], tokenizer(text)["input_ids"][:12])
    (options.out / "tokens.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in ids) + "\n]\n")
    reference(tokenizer, model, options.out / "embeddings.safetensors", ids)
    for adapter, name in ((options.adapter, "rank"), (options.twin, "rank1")):
        if adapter:
            reference(*load(options.base, adapter), options.out / f"{name}.safetensors", ids)


def reference(tokenizer, model, path, ids):
    """One row at a time: no padding has a part in the reference."""
    rows = np.concatenate([embed(tokenizer, model, [t], "", 512) for t in TEXTS])
    save_file({"embeddings": rows}, str(path))
    path.chmod(0o644)
    print(rows.shape, np.abs(np.linalg.norm(rows, axis=1) - 1).max(), "tokens", sum(map(len, ids)), max(map(len, ids)))


if __name__ == "__main__":
    main()
