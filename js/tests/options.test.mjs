// Arguments: what is refused, and how it is said.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { load, PolygraftError } from '../dist/node.js';
import * as tiny from './tiny.mjs';

let model;
before(async () => {
  model = await load(tiny.model());
  await model.loadAdapter('rank', tiny.lora());
});
after(() => model.dispose());

const refused = (code, message, hint) => (error) => {
  assert.ok(error instanceof PolygraftError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, message);
  if (hint) assert.match(error.hint ?? '', hint);
  return true;
};

const documents = ['some water', 'many people'];

test('unknown options are refused, naming the nearest known one', async () => {
  await assert.rejects(model.rerank({ query: 'a', documents, topn: 1 }), refused('ARGUMENT', /unknown option "topn"/, /topN\?/));
  await assert.rejects(model.embed('a', { adapter: null }), refused('ARGUMENT', /"adapter"/, /adapters\?/));
  await assert.rejects(load(tiny.model(), { devise: 'cpu' }), refused('ARGUMENT', /"devise"/, /device\?/));
  await assert.rejects(
    model.rerank({ query: 'a', documents, adapters: { query: null, documents: null } }),
    refused('ARGUMENT', /"documents"/, /document\?/),
  );
  await assert.rejects(model.loadAdapter('x', tiny.lora(), { Strict: false }), refused('ARGUMENT', /"Strict"/, /strict\?/));
});

test('values of the wrong kind are refused by name', async () => {
  await assert.rejects(model.rerank({ query: 3, documents }), refused('ARGUMENT', /query must be a string/));
  await assert.rejects(model.rerank({ query: 'a', documents: 'b' }), refused('ARGUMENT', /documents must be a list/));
  await assert.rejects(model.rerank({ query: 'a', documents: ['b', 3] }), refused('ARGUMENT', /documents\[1\]/));
  await assert.rejects(model.rerank({ query: 'a', documents, passages: documents }), refused('ARGUMENT', /either/));
  await assert.rejects(model.rerank({ query: 'a' }), refused('ARGUMENT', /either/));
  await assert.rejects(model.rerank({ query: 'a', documents, topN: 0 }), refused('ARGUMENT', /topN/));
  await assert.rejects(model.rerank({ query: 'a', documents, topN: 1.5 }), refused('ARGUMENT', /topN/));
  await assert.rejects(model.rerank({ query: 'a', documents, windows: 1 }), refused('ARGUMENT', /windows/));
  await assert.rejects(model.rerank({ query: 'a', documents, precision: 'best' }), refused('ARGUMENT', /"fast" or "exact"/));
  await assert.rejects(model.rerank({ query: 'a', documents, signal: 1 }), refused('ARGUMENT', /AbortSignal/));
  await assert.rejects(model.rerank({ query: 'a', documents, signal: { aborted: false } }), refused('ARGUMENT', /AbortSignal/));
  await assert.rejects(model.rerank({ query: 'a', documents, adapters: 3 }), refused('ARGUMENT', /composition/));
  await assert.rejects(model.rerank(), refused('ARGUMENT', /either/));
  await assert.rejects(model.embed('a', 'rank'), refused('ARGUMENT', /options must be an object/));
  await assert.rejects(model.embed('a', { side: 'passage' }), refused('ARGUMENT', /"query" or "document"/));
  await assert.rejects(model.languageVector(['a'], {}), refused('ARGUMENT', /lang must be a string/));
  for (const threads of [0, 1.5, '2', 17]) await assert.rejects(load(tiny.model(), { threads }), refused('ARGUMENT', /threads must be/));
  await assert.rejects(load(tiny.model(), { threads: 2 }), refused('ARGUMENT', /threads: 2 needs workers.*Node/));
  await assert.rejects(load(tiny.model(), { threads: 2, worker: false }), refused('ARGUMENT', /worker: false/));
  await assert.rejects(load(3), refused('ARGUMENT', /source/));
  await assert.rejects(load(''), refused('ARGUMENT', /empty address/));
  await assert.rejects(load(new Map()), refused('ARGUMENT', /no files/));
  assert.throws(() => model.on('progres', () => {}), refused('ARGUMENT', /"progres"/, /progress/));
});

test('a composition that JSON cannot carry is refused', async () => {
  const circle = { stack: [] };
  circle.stack.push(circle);
  const bad = [[circle, /circular/], [{ scale: 1n, of: 'rank' }, /BigInt/], [{ stack: ['rank', () => 1] }, /"1" is a function/], [['rank', Symbol('x')], /"1" is a symbol/]];
  for (const [adapters, message] of bad) {
    await assert.rejects(model.embed('a', { adapters }), refused('ARGUMENT', message));
    await assert.rejects(model.explain({ texts: ['a'], adapters }), refused('ARGUMENT', message));
  }
});

test('images without numbers are refused, those of a buffer that was handed away as well', async () => {
  const away = new Float32Array(12);
  structuredClone(away, { transfer: [away.buffer] });
  for (const pixels of [new Float32Array(0), away]) {
    await assert.rejects(model.embed({ pixels }), refused('ARGUMENT', /texts\[0\] has no numbers/));
    await assert.rejects(model.classify([{ pixels }, { pixels }]), refused('ARGUMENT', /items\[0\] has no numbers/));
  }
  await assert.rejects(model.embed([{ pixels: new Float32Array(12) }, { pixels: away }]), refused('ARGUMENT', /texts\[1\] has 0 numbers/));
});

test('an address that is none is an argument', async () => {
  for (const source of ['http://', 'file:///x%2Fy', ...(process.platform === 'win32' ? [] : ['file://host/x'])]) {
    await assert.rejects(load(source), refused('ARGUMENT', /is no address/));
    await assert.rejects(model.loadAdapter('x', source), refused('ARGUMENT', /is no address/));
  }
});

test('what the engine refuses keeps its code', async () => {
  await assert.rejects(model.rerank({ query: ' ', documents }), refused('ARGUMENT', /query/));
  await assert.rejects(model.rerank({ query: 'a', documents: [] }), refused('ARGUMENT', /documents/));
  await assert.rejects(model.embed([]), refused('ARGUMENT', /texts/));
  await assert.rejects(model.embed('a', { adapters: 'gone' }), refused('ADAPTER_UNKNOWN', /"gone".*rank/, /loadAdapter/));
  await assert.rejects(model.embed('a', { adapters: 'stack(' }), refused('COMPOSE_INVALID', /stack\(/));
  await assert.rejects(model.embed('a', { adapters: { stack: [] } }), refused('COMPOSE_INVALID', /empty list/));
  await assert.rejects(model.unloadAdapter('gone'), refused('ADAPTER_UNKNOWN', /"gone"/));
  await assert.rejects(model.loadAdapter('a b', tiny.lora()), refused('ADAPTER_NAME', /a b/));
  await assert.rejects(model.loadAdapter('x', tiny.model()), refused('NOT_A_MODEL', /base model/));
  await assert.rejects(model.loadAdapter('x', new Uint8Array(4)), refused('FORMAT_HEADER', /./));
  await assert.rejects(load(tiny.lora()), refused('FILE_MISSING', /tokenizer/, /loadAdapter/));
  assert.deepEqual([...model.adapters.keys()], ['rank']);
});

test('lone surrogates become U+FFFD; whole pairs stay', async () => {
  const { embeddings } = await model.embed(['hot \ud800 water', 'hot \ufffd water', 'hot \u{1f600} water']);
  assert.deepEqual(embeddings[0], embeddings[1]);
  const ranking = await model.rerank({ query: 'hot \udc00', documents: ['\ud83d', 'water'] });
  assert.equal(ranking.results.length, 2);
});

test('an adapter with a tensor too many is refused unless strict is false', async () => {
  const extra = tiny.safetensors([['nothing.weight', [2], [0, 0]]]);
  const files = tiny.lora();
  const both = Buffer.from(files.get('adapter_model.safetensors'));
  const length = Number(both.readBigUInt64LE());
  const header = JSON.parse(both.subarray(8, 8 + length).toString());
  const end = both.length - 8 - length;
  header['base_model.model.nothing.weight'] = { dtype: 'F32', shape: [2], data_offsets: [end, end + 8] };
  let text = JSON.stringify(header);
  text += ' '.repeat((8 - (text.length % 8)) % 8);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  files.set('adapter_model.safetensors', Buffer.concat([size, Buffer.from(text), both.subarray(8 + length), extra.subarray(-8)]));
  await assert.rejects(model.loadAdapter('x', files), refused('ADAPTER_KEYS', /nothing\.weight/, /strict: false/));
  const report = await model.loadAdapter('x', files, { strict: false });
  assert.equal(report.unused.length, 1);
  await model.unloadAdapter('x');
});
