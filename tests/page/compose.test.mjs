// What the demo page makes of its chips: compositions, names, guesses, figures. No browser needed.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerRank, callText, compositionFor, documentText, freeName, indexKey, stackOf, summarize } from '../../www/app/compose.js';
import { chosen, share, turned } from '../../www/app/hundred.js';
import { directionOf, guess } from '../../www/app/languages.js';

const loaded = new Set(['hu', 'de', 'hu.rank', 'rank']);
const state = (switches, own = []) => ({ switches: { queryVector: true, passageVectors: true, rank: false, ...switches }, own, loaded });

test('compositions follow the chips', () => {
  assert.equal(stackOf([]), 'base');
  assert.equal(compositionFor('query', 'hu', state({})), 'hu');
  assert.equal(compositionFor('query', 'hu', state({ queryVector: false })), 'base');
  assert.equal(compositionFor('passage', 'hu', state({ queryVector: false })), 'hu');
  assert.equal(compositionFor('passage', 'en', state({})), 'base');
  assert.equal(compositionFor('query', 'hu', state({ rank: true })), 'stack(hu.rank, rank)');
  // The base's vector is none of the ranking adapter's.
  assert.equal(compositionFor('query', 'de', state({ rank: true })), 'rank');
  assert.equal(indexKey(state({})), 'base');
  assert.equal(indexKey(state({ rank: true })), 'rank');
  // The twin of one bit has vectors of its own.
  assert.equal(indexKey(state({ rank1: true })), 'rank1');
  assert.equal(compositionFor('query', 'hu', { ...state({ rank1: true }), loaded: new Set(['hu', 'hu.rank', 'hu.rank1', 'rank1']) }), 'stack(hu.rank1, rank1)');
});

test('dropped adapters join', () => {
  const lora = { name: 'mine', vector: false, on: true, language: null };
  const vector = { name: 'my-hu', vector: true, on: true, language: 'hu' };
  assert.equal(compositionFor('passage', 'hu', state({ rank: true }, [lora])), 'stack(hu.rank, rank, mine)');
  assert.equal(indexKey(state({ rank: true }, [lora])), 'stack(rank, mine)');
  assert.equal(compositionFor('passage', 'hu', state({ passageVectors: false }, [vector])), 'my-hu');
  assert.equal(compositionFor('passage', 'de', state({ passageVectors: false }, [vector])), 'base');
  assert.equal(indexKey(state({}, [vector])), 'base');
  assert.equal(indexKey(state({}, [{ ...lora, on: false }])), 'base');
});

test('names that compositions can spell', () => {
  assert.equal(freeName('My adapter (v2).safetensors', new Set()), 'My-adapter-v2');
  assert.equal(freeName('hu.safetensors', new Set(['hu', 'hu-2'])), 'hu-3');
  assert.equal(freeName('カ.bin', new Set()), 'adapter');
  assert.equal(freeName('base', new Set()), 'base-2');
});

test('the call as text does what the page does', () => {
  const each = [['en', 'rank'], ['de', 'stack(de.rank, rank)'], ['hu', 'stack(hu.rank, rank)']];
  const choose = (text) => Function(`return ${text}`)();
  assert.equal(documentText([['en', 'rank'], ['de', 'rank']]), "'rank'");
  for (const list of [each, each.slice(1), [['en', 'base'], ['de', 'base'], ['hu', 'my']], [['en', 'a'], ['de', 'b'], ['hu', 'hu'], ['fr', 'fr']]]) {
    const document = choose(documentText(list));
    for (const [lang, composition] of list) assert.equal(document({ lang }), composition, documentText(list));
  }
  assert.match(callText({ query: "l'eau", queryComposition: 'fr', passages: each, index: 'rank' }), /search\('l\\'eau'/);
});

test('copies with bits turned over', () => {
  const header = JSON.stringify({ codes: { dtype: 'U8', shape: [4000], data_offsets: [0, 4000] }, stats: { dtype: 'F32', shape: [2], data_offsets: [4000, 4008] } });
  const file = new Uint8Array(8 + header.length + 4008).fill(0x55);
  new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
  file.set(new TextEncoder().encode(header), 8);
  const differing = (a) => a.reduce((sum, byte, i) => sum + (byte ^ file[i]).toString(2).replaceAll('0', '').length, 0);
  assert.equal(differing(turned(file, 0, 1)), 0);
  for (const part of [0.1, 0.5]) {
    const copy = turned(file, part, 7);
    assert.ok(Math.abs(differing(copy) / 32000 - part) < 0.01, `${part}`);
    assert.deepEqual([...copy.subarray(0, 8 + header.length)], [...file.subarray(0, 8 + header.length)]);
    assert.deepEqual([...copy.subarray(-8)], [...file.subarray(-8)]);
  }
  assert.equal(share(0), 0);
  assert.equal(share(99), 0.5);
  for (const turn of [0, 1, 50, 98, 500]) {
    const sixteen = chosen(turn);
    assert.equal(new Set(sixteen).size, 16);
    assert.ok(sixteen[0] === 0 && sixteen.every((i) => i >= 0 && i < 100), `${turn}: ${sixteen}`);
  }
});

test('guesses at languages', () => {
  const texts = {
    hu: 'Hogyan nyomtathatok az első oldalra?', de: 'Wie drucke ich Adressaufkleber?', es: '¿Cómo firmo un documento?', tr: 'Fare olmadan metin nasıl seçilir?',
    fr: 'Comment garder les corrections ?', ru: 'Как вставить фотографию', ja: '動く画像をファイルに', zh: '怎样把表格横着打印？', ko: '인증서 선택', ar: 'كيف أحمي الخلايا',
    el: 'Πώς εκτυπώνω', en: 'how do I print the first page',
  };
  for (const [lang, text] of Object.entries(texts)) assert.equal(guess(text, 'en'), lang, text);
  assert.equal(guess('日付', 'ja'), 'ja');
  assert.equal(guess('PDF', 'tr'), 'tr');
  assert.equal(directionOf('ar'), 'rtl');
  assert.equal(directionOf('hu'), 'ltr');
});

test('ranks of right answers, and what they come to', () => {
  const passages = [{ page: 'a', lang: 'hu' }, { page: 'b', lang: 'hu' }, { page: 'a', lang: 'de' }];
  const query = { page: 'a', lang: 'hu' };
  assert.equal(answerRank([0, 1, 2], passages, query, 'any'), 1);
  assert.equal(answerRank([0, 1, 2], passages, query, 'other'), 2);
  assert.equal(answerRank([2, 1, 0], passages, query, 'own'), 2);
  assert.equal(answerRank([1], passages, query, 'any'), null);
  const sum = summarize([{ before: 2, after: 1 }, { before: 1, after: 4 }, { before: 3, after: 3 }, { before: null, after: null }]);
  assert.deepEqual([sum.wins, sum.losses, sum.ties], [1, 1, 2]);
  assert.ok(Math.abs(sum.before - (0.5 + 1 + 1 / 3) / 4) < 1e-9);
});
