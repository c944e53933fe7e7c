// In Chromium: the worker, the cache, an abort that gets through, a page that stays fluid, and a bundled page.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { build } from 'vite';
import * as site from './site.mjs';
import * as tiny from './tiny.mjs';

const { dist } = site;

let open, bundle;
let requests = [];
before(async () => {
  bundle = await mkdtemp(path.join(os.tmpdir(), 'polygraft-'));
  const model = tiny.listed();
  const changed = new Map(model);
  changed.set('model.safetensors', model.get('model.safetensors').map((byte, i, all) => (i === all.length - 1 ? byte ^ 1 : byte)));
  const folders = { model, changed, rank: tiny.lora() };
  open = await site.open(async (pathname) => {
    requests.push(pathname);
    if (pathname === '/') return site.blank;
    const [, folder, name] = /^\/(\w+)\/(.*)$/.exec(pathname) ?? [];
    if (folder === 'dist') return { bytes: await site.fileIn(dist, name) };
    if (folder === 'bundle') return { bytes: await site.fileIn(path.join(bundle, 'out'), name) };
    return { bytes: folders[folder]?.get(name) };
  });
});
after(async () => {
  await open?.close();
  await rm(bundle, { recursive: true, force: true });
});
/** Runs `work` in a fresh page under a strict policy; an error on the page fails the test. */
const onPage = (work, argument) => open.onPage(work, argument);

test('worker and page thread give the same numbers', async () => {
  const rows = await onPage(async (texts) => {
    const { load } = await import('/dist/index.js');
    const out = [];
    for (const worker of [true, false]) {
      const model = await load('/model', { worker });
      await model.loadAdapter('rank', '/rank');
      const { data } = await model.embed(texts, { adapters: 'rank' });
      out.push([model.info.thread, ...data]);
      await model.dispose();
    }
    return out;
  }, tiny.texts(5));
  assert.deepEqual([rows[0][0], rows[1][0]], ['worker', 'inline']);
  assert.deepEqual(rows[0].slice(1), rows[1].slice(1));
});

test('an abort reaches a busy worker, the next call is served, and the page stays fluid', async () => {
  const seen = await onPage(async (texts) => {
    const { load } = await import('/dist/index.js');
    const model = await load('/model');
    await model.embed('warm');
    let longest = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
    }, 1);
    const abort = new AbortController();
    const call = model.embed(Array.from({ length: 4000 }, (_, i) => `${texts[i % texts.length]} ${i}`), { signal: abort.signal });
    setTimeout(() => abort.abort(), 100);
    const error = await call.catch((e) => e);
    clearInterval(timer);
    const start = performance.now();
    const { width } = await model.embed('after');
    const wait = performance.now() - start;
    const pending = model.embed('late').catch((e) => e.code);
    await model.dispose();
    return { name: error.name, code: error.code, width, wait, longest, pending: await pending };
  }, tiny.texts(20, 40));
  assert.equal(`${seen.name} ${seen.code} ${seen.width} ${seen.pending}`, 'AbortError ABORTED 32 DISPOSED');
  assert.ok(seen.wait < 1000, `the worker was busy for ${seen.wait} ms after the abort`);
  // Sending 4 000 texts takes a few milliseconds; computing them takes seconds.
  assert.ok(seen.longest < 300, `the page stood still for ${seen.longest} ms`);
});

test('what a worker has done before the abort is undone, or told', async () => {
  const { has, width, grown } = await onPage(async (documents) => {
    const { load } = await import('/dist/index.js');
    const model = await load('/model', { device: 'cpu' });
    await model.embed(documents);
    /** Aborts a call that is on its way: the worker sees the call first. */
    const late = async (call) => {
      const abort = new AbortController();
      const made = call(abort.signal).catch(() => {});
      abort.abort();
      await made;
    };
    await late((signal) => model.languageVector(documents.slice(0, 4), { lang: 'hu', name: 'hu', signal }));
    const width = await model.embed('water', { adapters: 'hu' }).then((r) => r.width, (e) => e.code);
    const has = model.adapters.has('hu');
    const rounds = async (count) => {
      let memory;
      for (let i = 0; i < count; i += 1) {
        await late((signal) => model.index(documents, { signal }));
        memory = await model.memory();
      }
      return memory.wasm;
    };
    const before = await rounds(100);
    return { has, width, grown: (await rounds(500)) - before };
  }, tiny.texts(40, 4));
  assert.deepEqual([has, width], [width === 32, has ? 32 : 'ADAPTER_UNKNOWN']);
  assert.ok(grown <= 4 * 65536, `${grown} bytes more`);
});

test('the second load comes from the cache; copies that were cut or are of an earlier version go', async () => {
  requests = [];
  const out = await onPage(async () => {
    const { load } = await import('/dist/index.js');
    const run = async () => {
      const model = await load('/model');
      const { width } = await model.embed('water');
      await model.dispose();
      return width;
    };
    const widths = [await run(), await run()];
    const cache = await caches.open('polygraft');
    const key = (await cache.keys()).find((request) => request.url.includes('model.safetensors'));
    await cache.put(key, new Response(new Uint8Array(10)));
    await cache.put(key.url.replace(/[0-9a-f]{64}$/, '0'.repeat(64)), new Response('of an earlier version'));
    widths.push(await run());
    const blob = await (await cache.match(key)).blob();
    return { widths, size: blob.size, entries: (await cache.keys()).length };
  });
  assert.equal(out.entries, 3);
  assert.deepEqual(out.widths, [32, 32, 32]);
  assert.ok(out.size > 10_000);
  const count = (name) => requests.filter((r) => r === `/model/${name}`).length;
  assert.deepEqual([count('polygraft.json'), count('tokenizer.json'), count('model.safetensors')], [3, 1, 2]);
});

test('nothing is kept with cache: false, nor of a file with a wrong hash', async () => {
  const { none, code, kept } = await onPage(async () => {
    const { load } = await import('/dist/index.js');
    const keys = async () => (await (await caches.open('polygraft')).keys()).map((request) => new URL(request.url).pathname);
    const model = await load('/model', { cache: false });
    await model.dispose();
    const none = await keys();
    const code = await load('/changed').catch((e) => e.code);
    return { none, code, kept: await keys() };
  });
  assert.deepEqual([none, code], [[], 'INTEGRITY']);
  assert.deepEqual(kept.sort(), ['/changed/config.json', '/changed/tokenizer.json']);
});

test('errors come through the worker whole', async () => {
  const out = await onPage(async () => {
    const { load, PolygraftError } = await import('/dist/index.js');
    const told = (e) => [e instanceof PolygraftError, e.code, e.message, e.hint ?? ''];
    const model = await load('/model');
    return [
      await model.embed('a', { adapters: 'gone' }).catch(told),
      await model.embed('a', { adapters: { scale: 1n, of: 'gone' } }).catch(told),
      await load('/nothing/').catch(told),
      await load('/model', { wasm: '/gone.wasm' }).catch(told),
      await load([new File(['{}'], 'config.json')]).catch(told),
      await load('/model', { signal: AbortSignal.abort() }).catch((e) => [true, e.code, e.name, '']),
    ];
  });
  assert.deepEqual(out.map(([ours, code]) => `${ours} ${code}`), ['true ADAPTER_UNKNOWN', 'true ARGUMENT', 'true FETCH', 'true WASM', 'true FILE_MISSING', 'true ABORTED']);
  assert.match(out[0][3], /loadAdapter/);
  assert.match(out[1][2], /BigInt/);
  assert.match(out[4][3], /npx polygraft quantize/);
});

test('a page bundled by Vite runs, worker and all', async () => {
  await writeFile(path.join(bundle, 'main.js'), `export { load, probe } from ${JSON.stringify(path.join(dist, 'index.js'))};\n`);
  await build({
    root: bundle,
    configFile: false,
    logLevel: 'error',
    base: '/bundle/',
    worker: { format: 'es' },
    build: {
      outDir: path.join(bundle, 'out'),
      minify: true,
      rollupOptions: { input: path.join(bundle, 'main.js'), preserveEntrySignatures: 'strict', output: { entryFileNames: 'main.js' } },
    },
  });
  const info = await onPage(async () => {
    const { load } = await import('/bundle/main.js');
    const model = await load('/model');
    const { width } = await model.embed('some water');
    return { thread: model.info.thread, width };
  });
  assert.deepEqual(info, { thread: 'worker', width: 32 });
});
