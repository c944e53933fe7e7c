// In Chromium: threads without shared memory. The same numbers whoever computed them, one download, and a satellite that
// fails, falls silent or never starts costs time and nothing else.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as site from './site.mjs';
import * as tiny from './tiny.mjs';

const isolation = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

let open;
let requests = [];
before(async () => {
  const folders = { model: tiny.listed(), rank: tiny.lora(), other: tiny.lora(8) };
  open = await site.open(async (pathname, request) => {
    requests.push(pathname);
    const isolated = pathname.startsWith('/isolated') || request.headers.referer?.includes('/isolated');
    const [, folder, name] = /^\/(\w+)\/(.*)$/.exec(pathname) ?? [];
    // The worker's script has to say so itself; that it is asked for by either page does no harm.
    const headers = isolated || folder === 'dist' ? { ...isolation, 'Cross-Origin-Resource-Policy': 'same-origin' } : {};
    if (pathname === '/' || pathname === '/isolated') return { ...site.blank, headers };
    const bytes = folder === 'dist' ? await site.fileIn(site.dist, name) : folders[folder]?.get(name);
    return { bytes, headers };
  });
});
after(() => open?.close());

/** Runs in the page first: `window.made` has its workers, `window.tamper` may change what goes to a satellite. */
function init() {
  window.made = [];
  const Plain = window.Worker;
  window.Worker = class extends Plain {
    constructor(script, options) {
      super(window.made.length === window.broken ? '/gone.js' : script, options);
      window.made.push(this);
    }
    postMessage(message, transfer) {
      if (!message.satellite || !window.tamper) return super.postMessage(message, transfer);
      const { port1, port2 } = new MessageChannel();
      const owner = message.satellite;
      owner.onmessage = ({ data }) => window.tamper(data, (m) => port1.postMessage(m), (m) => owner.postMessage(m));
      port1.onmessage = ({ data }) => owner.postMessage(data);
      super.postMessage({ ...message, satellite: port2 }, [port2]);
    }
  };
}

/** Runs `work` in a fresh page. */
const onPage = (work, argument, address = '/') => open.onPage(work, argument, { address, init });

const texts = tiny.texts(60, 40);

/** Everything that runs rows, under mixed compositions, as plain numbers; the same calls in every test. */
const everything = `async (load, options, texts, prepare = () => {}) => {
  const warnings = [];
  const model = await load('/model', options);
  model.on('warning', (warning) => warnings.push(warning));
  await model.loadAdapter('rank', '/rank');
  await model.loadAdapter('other', '/other');
  const per = (_, i) => [null, 'rank', 'sum(rank:0.5, other)', 'other'][i % 4];
  const out = [];
  await prepare(model);
  out.push([...(await model.embed(texts, { adapters: per })).data]);
  const ranking = await model.rerank({ query: 'hot water', documents: texts, adapters: { query: 'rank', document: per } });
  out.push(ranking.results.map((r) => [r.index, r.relevance_score]));
  await model.loadAdapter('rank', '/other');
  await model.unloadAdapter('other');
  const vector = await model.languageVector(texts.slice(0, 40).map((t) => t + ' may'), { lang: 'hu', name: 'hu' });
  out.push([...vector.bytes]);
  const index = await model.index(texts.map((t) => t + ' now'), { adapters: (_, i) => (i % 2 ? 'rank' : 'hu'), windows: true });
  out.push((await index.search('people', { topN: 60 })).results.map((r) => [r.index, r.relevance_score]));
  const { info } = model;
  const memory = await model.memory();
  await model.dispose();
  return { out, threads: info.threads, memory, parcels: window.parcels, warnings: warnings.map((w) => w.code), isolated: crossOriginIsolated };
}`;

let alone;
async function oneThread() {
  const work = `async (texts) => (${everything})((await import('/dist/index.js')).load, { device: 'cpu' }, texts)`;
  alone ??= await onPage(`(${work})(${JSON.stringify(texts)})`);
  return alone;
}

/** The same with `threads`, checked against one thread. */
async function shared(options, setup = '', address = '/') {
  const expected = await oneThread();
  const work = `async (texts) => {
    let prepare;
    ${setup}
    const { load } = await import('/dist/index.js');
    return (${everything})(load, ${JSON.stringify({ device: 'cpu', ...options })}, texts, prepare);
  }`;
  const got = await onPage(`(${work})(${JSON.stringify(texts)})`, undefined, address);
  assert.deepEqual(got.out, expected.out);
  return got;
}

test('two and three threads give the numbers of one, isolated or not, from one download', async () => {
  const one = await oneThread();
  assert.equal(one.threads, 1);
  for (const [threads, address] of [[2, '/'], [3, '/'], [2, '/isolated']]) {
    requests = [];
    const setup = 'window.parcels = 0; window.tamper = (m, on) => { if (m.op === "parcel") window.parcels += 1; on(m); };';
    const got = await shared({ threads }, setup, address);
    assert.deepEqual([got.threads, got.warnings, got.isolated], [threads, [], address !== '/']);
    assert.ok(got.parcels >= 3, `${got.parcels} parcels`);
    assert.ok(got.memory.wasm > one.memory.wasm && got.memory.weights > one.memory.weights, JSON.stringify(got.memory));
    assert.equal(requests.filter((name) => name === '/model/model.safetensors').length, 1);
  }
});

test('parcels reach the satellites, and none of their tables do', async () => {
  const seen = await onPage(async (texts) => {
    const count = { parcel: 0, tensor: 0 };
    window.tamper = (message, on) => {
      if (message.op in count) count[message.op] += 1;
      on(message);
    };
    const { load } = await import('/dist/index.js');
    const model = await load('/model', { threads: 2, device: 'cpu' });
    const { data } = await model.embed(texts);
    await model.embed('one short text stays where it is');
    const after = count.parcel;
    await model.dispose();
    return { ...count, after, rows: data.length / 32 };
  }, texts);
  assert.ok(seen.parcel >= 2 && seen.parcel === seen.after, JSON.stringify(seen));
  // Two layers of 16 tensors and the embeddings' norm.
  assert.equal(seen.tensor, 34);
  assert.equal(seen.rows, texts.length);
});

test('a satellite that fails, answers nonsense or falls silent: one warning, the same numbers', async () => {
  const wait = 'prepare = () => ';
  const cases = {
    'its worker reports an error': `${wait}{ made[1].dispatchEvent(new ErrorEvent('error', { message: 'injected' })); };`,
    'it is sent nonsense': 'window.tamper = (m, on) => { if (m.op === "parcel") m.bytes = m.bytes.slice(0, 99); on(m); };',
    'it answers nonsense': 'window.tamper = (m, on, back) => (m.op === "parcel" ? back({ job: m.job, answer: new Uint8Array(9) }) : on(m));',
    'it says that it is gone': 'window.tamper = (m, on, back) => (m.op === "parcel" ? back({ gone: { code: "INTERNAL", message: "injected" } }) : on(m));',
    'it is ended without a word': `${wait}{ made[1].terminate(); };`,
  };
  for (const [what, setup] of Object.entries(cases)) {
    const start = performance.now();
    const { threads, warnings } = await shared({ threads: 2 }, setup);
    assert.deepEqual([threads, warnings], [2, ['THREAD_LOST']], what);
    assert.ok(performance.now() - start < 30_000, `${what}: ${performance.now() - start} ms`);
  }
});

test('a row that fails there is computed here, and the satellite stays', async () => {
  const setup = 'let n = 0; window.tamper = (m, on, back) => (m.op === "parcel" && (n += 1) === 1 ? (on(m), on({ op: "drop" }), back({ job: m.job, failed: { code: "NOT_FINITE", message: "injected" } })) : on(m));';
  const { warnings } = await shared({ threads: 2 }, setup);
  assert.deepEqual(warnings, []);
});

test('satellites that never start leave a model of one thread', async () => {
  for (const setup of ['window.broken = 1;', 'window.tamper = (m, on, back) => (m.op === "finish" ? back({ gone: { code: "WASM", message: "injected" } }) : on(m));']) {
    const { threads, warnings } = await shared({ threads: 2 }, setup);
    assert.deepEqual([threads, warnings], [1, ['THREAD_LOST']]);
  }
});

test('an abort reaches all threads, the next call is served, and dispose ends them', async () => {
  const expected = await onPage(async (texts) => {
    const { load } = await import('/dist/index.js');
    const out = [];
    for (const threads of [1, 3]) {
      const model = await load('/model', { threads, device: 'cpu' });
      await model.loadAdapter('rank', '/rank');
      const abort = new AbortController();
      const many = Array.from({ length: 4000 }, (_, i) => `${texts[i % texts.length]} ${i}`);
      const call = model.embed(many, { adapters: 'rank', signal: abort.signal });
      setTimeout(() => abort.abort(), 150);
      const error = await call.catch((e) => e);
      const start = performance.now();
      // The aborted call's parcels took the adapter along: it counts as sent all the same.
      const { data } = await model.embed(texts, { adapters: 'rank' });
      const ms = performance.now() - start;
      const pending = model.embed(many).catch((e) => e.code);
      await model.dispose();
      out.push({ name: error.name, data: [...data], pending: await pending, slow: ms > 3000 });
    }
    return out;
  }, texts);
  assert.equal(expected[1].name, 'AbortError');
  assert.deepEqual(expected[1], expected[0]);
});

test('an abort while loading ends the satellites', async () => {
  const got = await onPage(async () => {
    const { load } = await import('/dist/index.js');
    const abort = new AbortController();
    const loading = load('/model', { threads: 3, device: 'cpu', signal: abort.signal });
    while (window.made.length < 3) await new Promise((r) => setTimeout(r, 1));
    const ended = window.made.map((worker) => {
      const plain = worker.terminate.bind(worker);
      return new Promise((resolve) => {
        worker.terminate = () => (plain(), resolve(true));
      });
    });
    abort.abort();
    const name = await loading.catch((e) => e.name);
    return [name, await Promise.all(ended)];
  });
  assert.deepEqual(got, ['AbortError', [true, true, true]]);
});
