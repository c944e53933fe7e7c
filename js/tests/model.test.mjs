// What a model does: rankings, embeddings, indexes, language vectors, the queue, aborts, the end.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { load, probe } from '../dist/node.js';
import * as tiny from './tiny.mjs';

let model;
const documents = tiny.texts(6);
before(async () => {
  model = await load(tiny.model());
  await model.loadAdapter('rank', tiny.lora());
  await model.loadAdapter('other', tiny.lora(9));
});
after(() => model.dispose());

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const close = (a, b, eps = 1e-5) => assert.ok(Math.abs(a - b) < eps, `${a} and ${b}`);

test('info, adapters and memory say what is loaded', async () => {
  assert.equal(model.info.hidden, 32);
  assert.equal(model.info.thread, 'inline');
  assert.ok(Object.isFrozen(model.info));
  const report = model.adapters.get('rank');
  assert.equal(report.applied, 4);
  assert.equal(report.base, 'unknown');
  const { wasm, weights } = await model.memory();
  assert.ok(wasm > weights && weights > 50_000);
  const found = await probe();
  assert.ok(found.supported && found.simd);
  // The build is the one that the engine can run, and says so.
  assert.match(model.info.backend, found.relaxedSimd ? /wasm relaxed-simd/ : /wasm simd128/);
});

test('rerank is the cosine of the embeddings, best first', async () => {
  const { results, scoring, timing } = await model.rerank({ query: 'hot water', documents, adapters: 'rank' });
  assert.equal(scoring, 'cosine');
  assert.ok(timing.tokens > 0 && timing.ms >= 0);
  const [query] = (await model.embed('hot water', { side: 'query', adapters: 'rank' })).embeddings;
  const { embeddings } = await model.embed(documents, { side: 'document', adapters: 'rank' });
  for (const { index, relevance_score } of results) close(relevance_score, dot(query, embeddings[index]));
  assert.deepEqual(
    results.map((r) => r.relevance_score),
    results.map((r) => r.relevance_score).sort((a, b) => b - a),
  );
});

test('topN, passages, objects with text, returnDocuments', async () => {
  const passages = documents.map((text, id) => ({ text, id }));
  const { results } = await model.rerank({ query: 'hot', passages, topN: 2, returnDocuments: true });
  assert.equal(results.length, 2);
  for (const { index, document } of results) assert.equal(document, passages[index]);
});

test('a call is made with what its arguments are at that moment', async () => {
  const list = [...documents];
  const composition = ['rank'];
  const ranked = model.rerank({ query: 'hot', documents: list, returnDocuments: true });
  const embedded = model.embed('hot', { adapters: composition });
  list.fill('something else');
  composition[0] = 'other';
  for (const { index, document } of (await ranked).results) assert.equal(document, documents[index]);
  assert.deepEqual((await embedded).data, (await model.embed('hot', { adapters: 'rank' })).data);
});

test('each document may take its own composition, as text, list or tree', async () => {
  const compositions = [null, 'rank', ['rank', 'other'], { sum: ['rank', 'other'], weights: [0.5, 2] }, { scale: 0.5, of: 'rank' }, 'base'];
  const { embeddings } = await model.embed(documents, { adapters: (_, i) => compositions[i] });
  for (const [i, adapters] of compositions.entries()) {
    const alone = await model.embed(documents[i], { adapters });
    assert.deepEqual(embeddings[i], alone.embeddings[0], `composition ${i}`);
  }
  const { results } = await model.rerank({
    query: 'hot water',
    documents,
    adapters: { query: 'other', document: (text, i) => (assert.equal(text, documents[i]), compositions[i]) },
  });
  const query = (await model.embed('hot water', { adapters: 'other' })).embeddings[0];
  for (const { index, relevance_score } of results) close(relevance_score, dot(query, embeddings[index]));
});

test('an index gives the ranking that rerank gives', async () => {
  const index = await model.index(documents, { adapters: 'rank' });
  assert.equal(index.size, 6);
  const found = await index.search('hot water', { topN: 6, adapters: 'rank', returnDocuments: true });
  const ranked = await model.rerank({ query: 'hot water', documents, adapters: 'rank' });
  assert.deepEqual(
    found.results.map((r) => r.index),
    ranked.results.map((r) => r.index),
  );
  found.results.forEach((r) => assert.equal(r.document, documents[r.index]));
  await assert.rejects(index.search('hot', { adapters: { document: 'other' } }), { code: 'INDEX_STALE' });
  const bytes = await index.save();
  const again = await model.loadIndex(bytes, documents);
  const found2 = await again.search('hot water', { topN: 6, adapters: 'rank', returnDocuments: true });
  assert.deepEqual(found2.results, found.results);
  await assert.rejects(model.loadIndex(bytes, documents.slice(1)), { code: 'INDEX_STALE' });
  await assert.rejects(model.loadIndex(bytes.slice(0, -4), documents), { code: 'FORMAT_RANGE' });
  await assert.rejects(model.loadIndex(new Uint8Array(8), documents), { name: 'PolygraftError' });
  await assert.rejects(model.loadIndex('index', documents), { code: 'ARGUMENT' });
  await index.dispose();
  await assert.rejects(index.save(), { code: 'DISPOSED' });
  await assert.rejects(index.search('hot'), { code: 'DISPOSED' });
});

test('a language vector is made, loaded, saved and loaded again', async () => {
  const made = await model.languageVector(documents, { lang: 'hu', pivot: tiny.texts(4, 8, 5), under: 'rank', name: 'hu' });
  assert.equal(made.report.language, 'hu');
  assert.equal(model.adapters.get('hu').base, 'exact');
  await model.loadAdapter('again', made.bytes);
  const a = await model.embed('some water', { adapters: 'stack(hu, rank)' });
  const b = await model.embed('some water', { adapters: ['again', 'rank'] });
  assert.deepEqual(a.data, b.data);
  const plain = await model.embed('some water', { adapters: 'rank' });
  assert.notDeepEqual(a.data, plain.data);
});

test('explain names steps and adapters', async () => {
  const { lines, text, macs, adapters } = await model.explain({ texts: ['hot water', 'people'], adapters: (_, i) => (i ? 'rank' : null) });
  const rank = adapters.find((a) => a.adapter === 'rank');
  assert.ok(rank.session >= model.adapters.get('rank').bytes && rank.backend >= 0, JSON.stringify(adapters));
  assert.deepEqual(adapters.map((a) => a.adapter), [...model.adapters.keys()].sort());
  assert.ok(macs > 0 && lines.length > 10);
  assert.match(text, /rank/);
  assert.ok(lines.some((line) => line.takes.some((take) => take.includes('rank'))));
});

test('long texts are cut and reported, or split into windows', async () => {
  const long = tiny.texts(1, 300)[0];
  const cut = await model.rerank({ query: 'hot', documents: ['water', long] });
  assert.deepEqual(cut.truncated, [1]);
  const whole = await model.rerank({ query: 'hot', documents: ['water', long], windows: true });
  assert.deepEqual(whole.truncated, []);
  assert.ok(whole.timing.rows > 3);
});

test('calls run in the order in which they were made', async () => {
  const order = [];
  const note = (name) => () => order.push(name);
  await Promise.all([
    model.embed(tiny.texts(40)).then(note('embed')),
    model.loadAdapter('late', tiny.lora(11)).then(note('load')),
    model.embed('hot', { adapters: 'late' }).then(note('use')),
    model.unloadAdapter('late').then(note('unload')),
    assert.rejects(model.embed('hot', { adapters: 'late' }), { code: 'ADAPTER_UNKNOWN' }).then(note('gone')),
    model.rerank({ query: 'hot', documents }).then(note('rerank')),
  ]);
  assert.deepEqual(order, ['embed', 'load', 'use', 'unload', 'gone', 'rerank']);
});

test('two calls at once give what each gives alone', async () => {
  const [a, b] = await Promise.all([model.embed(documents, { adapters: 'rank' }), model.embed(documents)]);
  assert.deepEqual(a.data, (await model.embed(documents, { adapters: 'rank' })).data);
  assert.deepEqual(b.data, (await model.embed(documents)).data);
});

test('an abort rejects before, in the queue and in the middle; the next call is served', async () => {
  const isAbort = (error) => error instanceof DOMException && error.name === 'AbortError' && error.code === 'ABORTED';
  await assert.rejects(model.embed('a', { signal: AbortSignal.abort() }), isAbort);
  const many = tiny.texts(400, 50, 77);
  const running = new AbortController();
  const waiting = new AbortController();
  let seen = 0;
  const first = model.embed(many, { signal: running.signal, onProgress: ({ loaded }) => loaded > 0 && (seen += 1) && running.abort() });
  const second = model.embed(many, { signal: waiting.signal });
  const third = model.embed('some water');
  waiting.abort();
  await assert.rejects(second, isAbort);
  await assert.rejects(first, isAbort);
  assert.ok(seen >= 1);
  assert.equal((await third).embeddings.length, 1);
});

test('an abort that comes as the call ends leaves no index behind, and tells of a vector that is loaded', async () => {
  const fresh = await load(tiny.model());
  /** Makes a call and aborts it some turns later. */
  const late = async (turns, call) => {
    const abort = new AbortController();
    const made = call(abort.signal).then((value) => value.dispose?.(), () => {});
    for (let turn = 0; turn < turns; turn += 1) await null;
    abort.abort();
    await made;
  };
  const many = tiny.texts(40, 4);
  const rounds = async (count) => {
    for (let i = 0; i < count; i += 1) await late(i % 8, (signal) => fresh.index(many, { signal }));
    return (await fresh.memory()).wasm;
  };
  const grown = -(await rounds(200)) + (await rounds(600));
  assert.ok(grown <= 4 * 65536, `${grown} bytes more`);
  for (let i = 0; i < 8; i += 1) {
    await late(i, (signal) => fresh.languageVector(documents, { lang: 'hu', name: `v${i}`, signal }));
    const works = await fresh.embed('hot', { adapters: `v${i}` }).then(() => true, () => false);
    assert.equal(fresh.adapters.has(`v${i}`), works, `after ${i} turns`);
  }
  await fresh.dispose();
});

test('progress rises and ends at the total; listeners that throw do no harm', async () => {
  const seen = [];
  const stop = model.on('progress', (p) => seen.push(p));
  await model.embed(tiny.texts(60, 30, 5));
  stop();
  assert.ok(seen.every((p, i) => p.phase === 'run' && (i === 0 || p.loaded >= seen[i - 1].loaded)));
  const last = seen.at(-1);
  assert.equal(last.loaded, last.total);
});

test('no worker where there could be one is a warning, unless it was not wanted', async () => {
  for (const [worker, expected] of [[true, 'WORKER_UNAVAILABLE'], [undefined, 'WORKER_UNAVAILABLE'], [false, undefined]]) {
    const other = await load(tiny.model(), { worker });
    const seen = [];
    other.on('warning', ({ code }) => seen.push(code));
    await other.embed('a');
    assert.equal(seen[0], expected);
    await other.dispose();
  }
});

test('a thousand calls, aborts, adapters and indexes leave the memory as it was', async () => {
  const round = async (i) => {
    const abort = new AbortController();
    const aborted = model.embed(tiny.texts(30, 30, i), { signal: abort.signal }).catch((e) => e.code);
    await model.loadAdapter('soak', tiny.lora(i));
    const index = await model.index(tiny.texts(3, 10, i), { adapters: 'soak' });
    await index.search('hot water', { adapters: 'soak' });
    await index.dispose();
    await assert.rejects(model.embed('a', { adapters: 'gone' }));
    abort.abort();
    await aborted;
    await model.unloadAdapter('soak');
  };
  // The memory of embeddings fills up first: 2 048 rows.
  for (let i = 0; i < 100; i += 1) await round(i);
  const before = (await model.memory()).wasm;
  for (let i = 0; i < 100; i += 1) await round(1000 + i);
  const grown = (await model.memory()).wasm - before;
  assert.ok(grown <= 4 * 65536, `${grown} bytes more`);
});

test('after dispose, pending and later calls reject with DISPOSED', async () => {
  const other = await load(tiny.model());
  const index = await other.index(documents);
  const pending = other.embed(tiny.texts(200, 50));
  const refused = assert.rejects(pending, { code: 'DISPOSED' });
  await other.dispose();
  await refused;
  await assert.rejects(other.embed('a'), { code: 'DISPOSED' });
  await assert.rejects(index.search('a'), { code: 'DISPOSED' });
  await index.dispose();
  await other.dispose();
  assert.equal((await model.embed('a')).embeddings.length, 1);
});

test('a profile says where the time of a call went, by kernel', async () => {
  const measured = await load(tiny.model(), { profile: true });
  const seen = [];
  measured.on('profile', (spent) => seen.push(spent));
  await measured.embed(documents);
  await new Promise((resolve) => setImmediate(resolve));
  await measured.dispose();
  assert.equal(seen.length, 1);
  const kernels = Object.entries(seen[0]);
  assert.ok(kernels.some(([name]) => /linear/i.test(name)) && kernels.some(([name]) => /attention/i.test(name)), JSON.stringify(seen[0]));
  assert.ok(kernels.every(([, ms]) => ms >= 0) && kernels.some(([, ms]) => ms > 0));
});
