"""Tiny tokenizers with what the converter once lost (Strip, Σ, nested lists, flags of added tokens), and their ids.

    python tests/golden/make_tokenizer_flags.py

Writes tokenizers/flags/expected.json: {cases: [{name, tokenizer, rows}], bpe: rows of tokenizers/bpe with <mask> lstrip}.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

HERE = Path(__file__).parent / "tokenizers"


def added(texts, mask):
    tokens = [AddedToken(x, normalized=False, special=True) for x in texts]
    return tokens + [AddedToken(mask, lstrip=True, normalized=False, special=True)]


def unigram(norm):
    v = [('<s>', 0.), ('<pad>', 0.), ('</s>', 0.), ('<unk>', 0.), ('▁', -2.), ('▁Paris', -3.), ('▁is', -3.), ('▁a', -3.5), ('.', -3.),
         ('b', -4.), ('c', -4.), ('▁b', -4.2), ('a', -4.)]
    t = Tokenizer(models.Unigram(v, 3, False))
    t.normalizer, t.pre_tokenizer = norm, pre_tokenizers.Metaspace()
    t.add_special_tokens(added(['<s>', '<pad>', '</s>', '<unk>'], '<mask>'))
    return t


def wordpiece(lower=True, extra=(), norm=None):
    vocab = {x: i for i, x in enumerate(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'])}
    for c in 'ασςοδυeabcdiovABCDIOV8.Éé':
        vocab.setdefault(c, len(vocab)), vocab.setdefault('##' + c, len(vocab))
    for w in ('covid', 'hello'):
        vocab[w] = len(vocab)
    t = Tokenizer(models.WordPiece(vocab, unk_token='[UNK]', max_input_chars_per_word=100))
    t.normalizer, t.pre_tokenizer = norm or normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
    t.add_special_tokens(added(['[PAD]', '[UNK]', '[CLS]', '[SEP]'], '[MASK]'))
    t.add_tokens(list(extra))
    return t


def main():
    cases = []

    def case(name, t, texts):
        cases.append({'name': name, 'tokenizer': json.loads(t.to_str()), 'rows': [[x, t.encode(x).ids] for x in texts]})

    n = normalizers
    texts = ['Paris is a <mask>.', 'Paris is', '  Paris  is ', '', '   ', 'a b c', '\u3000a\t', 'a  <mask>  b', '<mask> a', 'a <mask>', ' <mask><mask> ']
    for left in (False, True):
        for right in (False, True):
            case(f'strip {left} {right}', unigram(n.Sequence([n.Strip(left=left, right=right), n.Replace(Regex(' {2,}'), ' ')])), texts)
    case('strip alone', unigram(n.Strip()), texts)
    case('metaspace', unigram(None), texts)
    greek = ['ΟΔΟΣ', 'οδος', 'ΟΔΟΣ ΟΔΟΣ.', 'CΣ8', 'Οδός']
    case('sigma bert', wordpiece(), greek)
    case('sigma lower', wordpiece(norm=n.Lowercase()), greek)
    nested = n.Sequence([n.Sequence([n.NFD(), n.StripAccents()]), n.Lowercase()])
    case('nested', wordpiece(norm=nested), greek + ['É é'])
    case('mask', wordpiece(), ['a [MASK] b', '[MASK]b', 'a  [MASK].'])
    case('uncased', wordpiece(extra=['COVID', 'aab']), ['COVID is', 'covid', 'COVID', 'aab', 'AAB', 'aabb', 'e aab.'])
    flags = [AddedToken('COVID'), AddedToken('abc', single_word=True), AddedToken('dd', lstrip=True, rstrip=True)]
    case('cased', wordpiece(False, flags), ['COVID is', 'abc d', 'abc.', 'a dd b', 'aCOVIDb', 'dd', '  dd  '])
    d = json.loads((HERE / 'bpe/tokenizer.json').read_text())
    for token in d['added_tokens']:
        token['lstrip'] = token['content'] == '<mask>'
    t = Tokenizer.from_str(json.dumps(d))
    rows = ['Paris is the <mask> of France.', 'hello <mask>', '<mask> a', 'a  <mask>', 'a<mask>b']
    bpe = [[x, t.encode(x, add_special_tokens=False).ids] for x in rows]
    text = json.dumps({'cases': cases, 'bpe': bpe}, ensure_ascii=False, separators=(',', ':'))
    (HERE / 'flags').mkdir(parents=True, exist_ok=True)
    (HERE / 'flags/expected.json').write_text(text + '\n')


if __name__ == '__main__':
    main()
