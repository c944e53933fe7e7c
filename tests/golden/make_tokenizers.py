"""Small tokenizers of the kinds that BERT and RoBERTa use (XLM-R's is tested on the real one), trained with `tokenizers`, and its ids.

    python tests/golden/make_tokenizers.py

Writes tokenizers/KIND/tokenizer.json and expected.json: [[text, [ids]], …], specials included, nothing cut or padded.
The padding and cutting that Sentence-Transformers leaves in its files are in the WordPiece one: they must not show.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
TEXTS = json.loads((HERE.parent / "collections/reference/texts.json").read_text())
CORPUS = [t for t in TEXTS for _ in range(3)] + [w for t in TEXTS for w in t.split()]


def wordpiece(lowercase: bool) -> Tokenizer:
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special, show_progress=False))
    t.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", t.token_to_id("[CLS]")), ("[SEP]", t.token_to_id("[SEP]"))]
    )
    t.decoder = decoders.WordPiece()
    return t


def bpe() -> Tokenizer:
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=1200, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    return t


def main() -> None:
    kinds = {"wordpiece": wordpiece(True), "wordpiece_cased": wordpiece(False), "bpe": bpe()}
    for name, t in kinds.items():
        out = HERE / "tokenizers" / name
        out.mkdir(parents=True, exist_ok=True)
        rows = [[text, t.encode(text).ids] for text in TEXTS]
        (out / "expected.json").write_text(json.dumps(rows, ensure_ascii=False, indent=None, separators=(",", ":")) + "\n")
        if name == "wordpiece":
            t.enable_padding(length=64)
            t.enable_truncation(32)
        t.save(str(out / "tokenizer.json"), pretty=False)


if __name__ == "__main__":
    main()
