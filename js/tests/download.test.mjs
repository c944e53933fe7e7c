// Loading over HTTP, and everything that a server can do wrong.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { load, PolygraftError } from '../dist/node.js';
import * as tiny from './tiny.mjs';

const files = tiny.listed();

/** Loads from a server that answers as `answer` says; gives the error, or the model's width. */
async function attempt(answer, served = files, options) {
  const server = await tiny.serve(served, answer);
  try {
    const model = await load(server.url, options);
    const { width } = await model.embed('hot water');
    await model.dispose();
    return { width, log: server.log };
  } catch (error) {
    return { error, log: server.log };
  } finally {
    await server.close();
  }
}

const is = (error, code, message, hint) => {
  assert.ok(error instanceof PolygraftError, String(error?.stack ?? error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, message);
  if (hint) assert.match(error.hint ?? '', hint);
};

test('a model loads from its folder, with and without the slash or the list', async () => {
  const server = await tiny.serve(files);
  const seen = [];
  for (const address of [server.url, server.url.slice(0, -1), new URL('polygraft.json', server.url), `${server.url}?v=2`]) {
    const model = await load(address, { onProgress: (p) => seen.push(p) });
    assert.equal((await model.embed('a')).width, 32);
    await model.dispose();
  }
  await server.close();
  const asked = server.log.slice(0, 4).map(([name]) => name);
  // What is small is asked for side by side.
  assert.deepEqual([asked[0], ...asked.slice(1, 3).sort(), asked[3]], ['polygraft.json', 'config.json', 'tokenizer.json', 'model.safetensors']);
  const total = [...tiny.model().values()].reduce((sum, bytes) => sum + bytes.length, 0);
  assert.ok(seen.every((p) => p.phase === 'fetch' && p.total === total && p.loaded <= total));
  assert.ok(seen.some((p) => p.loaded === total));
});

test('small files come while WebAssembly is on its way, and whichever fails first ends the load', async () => {
  const own = await readFile(new URL('../dist/wasm/polygraft_bg.wasm', import.meta.url));
  let release;
  const asked = new Promise((resolve) => (release = resolve));
  const server = await tiny.serve(files, (name, _, response) => {
    if (name === 'tokenizer.json') release();
    if (name === 'slow.wasm') asked.then(() => response.writeHead(200, { 'Content-Type': 'application/wasm' }).end(own));
    return name === 'slow.wasm' || name === 'never.wasm';
  });
  const model = await load(server.url, { wasm: new URL('slow.wasm', server.url) });
  assert.equal((await model.embed('a')).width, 32);
  await model.dispose();
  await assert.rejects(load(new URL('nothing/', server.url), { wasm: new URL('never.wasm', server.url) }), { code: 'FETCH' });
  await server.close();
  const { error } = await attempt((name) => name === 'tokenizer.json', files, { wasm: new Uint8Array([1, 2, 3]) });
  is(error, 'WASM', /could not be loaded/);
});

test('a module of another build, or of something else, is told apart before it runs', async () => {
  const other = await readFile(new URL('../dist/wasm/polygraft_bg.wasm', import.meta.url));
  other.fill(0x30, other.length - 16);
  const foreign = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0);
  for (const [wasm, message] of [[other, /another build/], [foreign, /not polygraft's/], [new WebAssembly.Module(foreign), /not polygraft's/]]) {
    const { error } = await attempt(() => false, files, { wasm });
    is(error, 'WASM', message, /dist\/wasm/);
  }
  const { width } = await attempt();
  assert.equal(width, 32);
});

test('404: address and status; the list is named as the way in', async () => {
  const { error } = await attempt(() => false, tiny.model());
  is(error, 'FETCH', /polygraft\.json.*404/, /npx polygraft quantize/);
  const gone = await attempt((name, _, response) => name === 'model.safetensors' && response.writeHead(404).end());
  is(gone.error, 'FETCH', /model\.safetensors.*404/, /address/);
});

test('a page in place of a file is called a page', async () => {
  for (const page of ['polygraft.json', 'tokenizer.json', 'model.safetensors']) {
    const { error } = await attempt(
      (name, _, response) => name === page && response.writeHead(200, { 'Content-Type': 'text/html' }).end('\n<!DOCTYPE html><html>'),
    );
    is(error, 'FETCH', /HTML page/, /development server/);
  }
});

test('a Git LFS pointer is called one', async () => {
  const { error } = await attempt(
    (name, _, response) => name === 'model.safetensors' && response.end('version https://git-lfs.github.com/spec/v1\noid sha256:0'),
  );
  is(error, 'FETCH', /LFS pointer/, /git lfs pull/);
});

const cutAt = (share, times) => (name, request, response, bytes) => {
  if (name !== 'model.safetensors' || times-- <= 0) return false;
  const start = Number(/(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  response.writeHead(start ? 206 : 200, { 'Content-Length': bytes.length - start });
  response.write(bytes.subarray(start, Math.floor(start + (bytes.length - start) * share)), () => response.destroy());
  return true;
};

test('a cut transfer is resumed with a range request', async () => {
  const { width, error, log } = await attempt(cutAt(0.5, 2));
  assert.equal(width, 32, String(error));
  const ranges = log.filter(([name]) => name === 'model.safetensors').map(([, range]) => range);
  assert.equal(ranges.length, 3);
  assert.equal(ranges[0], undefined);
  assert.match(ranges[1], /^bytes=[1-9]\d*-$/);
});

test('a server that knows no ranges starts again, and nothing is read twice', async () => {
  let first = true;
  const { width, error } = await attempt((name, _, response, bytes) => {
    if (name !== 'model.safetensors') return false;
    response.writeHead(200, { 'Content-Length': bytes.length });
    if (first) response.write(bytes.subarray(0, 40_000), () => response.destroy());
    else response.end(bytes);
    first = false;
    return true;
  });
  assert.equal(width, 32, String(error));
});

test('a transfer that is cut again and again is an error', async () => {
  const { error } = await attempt(cutAt(0.1, 99));
  is(error, 'FETCH', /after \d+ bytes/);
});

test('a status that may pass is tried again', async () => {
  let times = 2;
  const { width, log } = await attempt((name, _, response) => name === 'config.json' && times-- > 0 && response.writeHead(503).end());
  assert.equal(width, 32);
  assert.equal(log.filter(([name]) => name === 'config.json').length, 3);
});

test('changed, short and long files are refused', async () => {
  const changed = new Map(files);
  const bytes = changed.get('model.safetensors').slice();
  bytes[bytes.length - 3] ^= 1;
  changed.set('model.safetensors', bytes);
  is((await attempt(() => false, changed)).error, 'INTEGRITY', /model\.safetensors has the SHA-256/, /polygraft\.json/);
  is(await load(changed).catch((e) => e), 'INTEGRITY', /SHA-256/);
  const long = new Map(files);
  long.set('model.safetensors', Buffer.concat([files.get('model.safetensors'), Buffer.from('more')]));
  is((await attempt(() => false, long)).error, 'INTEGRITY', /more bytes/);
  is(await load(long).catch((e) => e), 'INTEGRITY', /promises/);
  const gone = new Map(files);
  gone.delete('config.json');
  is(await load(gone).catch((e) => e), 'FILE_MISSING', /config\.json.*polygraft\.json lists it/);
});

test('a list that lies about names or has another form is refused', async () => {
  const list = (value) => new Map([['polygraft.json', new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value))]]);
  const file = { bytes: 1, sha256: '0'.repeat(64) };
  is((await attempt(() => false, list('{'))).error, 'FORMAT_JSON', /not JSON/);
  is((await attempt(() => false, list({ format: 2 }))).error, 'UNSUPPORTED_FORMAT', /format 2/);
  is((await attempt(() => false, list({ format: 1, files: { '../x': file } }))).error, 'FORMAT_JSON', /no name/);
  is((await attempt(() => false, list({ format: 1, files: { '/x': file } }))).error, 'FORMAT_JSON', /no name/);
  is((await attempt(() => false, list({ format: 1, files: { x: { ...file, sha256: 'abc' } } }))).error, 'FORMAT_JSON', /sha256/);
  is((await attempt(() => false, list({ format: 1, files: { x: { ...file, bytes: -1 } } }))).error, 'FORMAT_JSON', /bytes/);
});

test('no server at all is a fetch error with the reason', async () => {
  const server = await tiny.serve(files);
  await server.close();
  is(await load(server.url).catch((e) => e), 'FETCH', /ECONNREFUSED/);
});

test('an abort in the middle of a download rejects and lets go of the connection', async () => {
  const abort = new AbortController();
  let closed;
  const ended = new Promise((resolve) => (closed = resolve));
  const { error } = await attempt(
    (name, request, response, bytes) => {
      if (name !== 'model.safetensors') return false;
      request.on('close', closed);
      response.writeHead(200, { 'Content-Length': bytes.length });
      response.write(bytes.subarray(0, 30_000), () => setTimeout(() => abort.abort(), 20));
      return true;
    },
    files,
    { signal: abort.signal },
  );
  assert.equal(error.name, 'AbortError');
  assert.equal(error.code, 'ABORTED');
  await ended;
});

test('a query is no part of a message', async () => {
  const server = await tiny.serve(tiny.model());
  const error = await load(`${server.url}?token=secret`).catch((e) => e);
  await server.close();
  assert.doesNotMatch(error.message, /secret/);
});

test('adapters come from a folder, a file, a picked list', async () => {
  const model = await load(files);
  const made = await model.languageVector(tiny.texts(3), { lang: 'hu' });
  const server = await tiny.serve(new Map([...tiny.lora(), ['hu.safetensors', made.bytes]]));
  const seen = [];
  assert.equal((await model.loadAdapter('a', server.url, { onProgress: (p) => seen.push(p) })).applied, 4);
  assert.ok(seen.at(-1).loaded > 1000);
  assert.equal((await model.loadAdapter('b', new URL('hu.safetensors', server.url))).language, 'hu');
  is(await model.loadAdapter('c', `${server.url}none/`).catch((e) => e), 'FETCH', /404/, /PEFT/);
  is(await model.loadAdapter('c', `${server.url}none.safetensors`).catch((e) => e), 'FETCH', /404/);
  const picked = [...tiny.lora()].map(([name, bytes]) => new File([bytes], name));
  assert.equal((await model.loadAdapter('d', picked)).applied, 4);
  assert.equal((await model.loadAdapter('e', new File([made.bytes], 'hu.safetensors'))).language, 'hu');
  assert.equal((await model.loadAdapter('f', Object.fromEntries(tiny.lora()))).applied, 4);
  await server.close();
  const [x, y] = await Promise.all(['a', 'd'].map((adapters) => model.embed('hot water', { adapters })));
  assert.deepEqual(x.data, y.data);
  await model.dispose();
});

test('what AdapterHub saves is found on servers that call a missing file forbidden, or do not answer HEAD', async () => {
  const golden = new URL('../../tests/golden/hub/', import.meta.url);
  // Without a head, with one, in either container; two of them, and then what fuses them.
  const saved = { adapter: 'bottleneck/scaling_channel/adapter', head: 'static_heads/tokens_bert/adapter', bin: 'static_heads/answers_bert/adapter' };
  const fused = { a_task: 'fusion/no_query/adapters/a', b_task: 'fusion/no_query/adapters/b', fusion: 'fusion/no_query/fusion' };
  const folders = {};
  for (const [name, path] of Object.entries({ ...saved, ...fused })) {
    const at = new URL(`${path}/`, golden);
    folders[name] = new Map(await Promise.all((await readdir(at)).map(async (file) => [file, await readFile(new URL(file, at))])));
  }
  const served = new Map(Object.entries(folders).flatMap(([name, list]) => [...list].map(([file, bytes]) => [`${name}/${file}`, bytes])));
  const there = await load(files);
  const wanted = {};
  for (const name in folders) wanted[name] = await there.loadAdapter(name, folders[name]);
  const missing = (status) => (_, __, response, bytes) => !bytes && response.writeHead(status).end();
  const headless = (_, request, response) => request.method === 'HEAD' && response.writeHead(405).end();
  for (const [answer, names] of [[missing(404), folders], [missing(403), folders], [headless, { bin: 1, a_task: 1 }]]) {
    const server = await tiny.serve(served, answer);
    const model = await load(files);
    for (const name in names) assert.deepEqual(await model.loadAdapter(name, `${server.url}${name}/`), wanted[name]);
    is(await model.loadAdapter('none', `${server.url}none/`).catch((e) => e), 'FETCH', /none\/adapter_config\.json: .* 40[34]/, /PEFT/);
    await server.close();
    await model.dispose();
  }
  await there.dispose();
});

test('a name with a "%" that encodes nothing is a name', async () => {
  const model = await load(files);
  const { bytes } = await model.languageVector(tiny.texts(3), { lang: 'hu' });
  const server = await tiny.serve(new Map([['100%.safetensors', bytes]]));
  assert.equal((await model.loadAdapter('a', `${server.url}100%.safetensors`)).language, 'hu');
  await server.close();
  await model.dispose();
});

test('an adapter whose download hangs can be aborted; calls behind it are served', async () => {
  const model = await load(files);
  const server = await tiny.serve(tiny.lora(), (name, _, response, bytes) => {
    if (name !== 'adapter_model.safetensors') return false;
    response.writeHead(200, { 'Content-Length': bytes.length }).write(bytes.subarray(0, 100));
    return true;
  });
  const abort = new AbortController();
  const hanging = model.loadAdapter('rank', server.url, { signal: abort.signal });
  const behind = model.embed('hot water');
  setTimeout(() => abort.abort(), 100);
  await assert.rejects(hanging, { name: 'AbortError', code: 'ABORTED' });
  assert.equal((await behind).width, 32);
  assert.equal(model.adapters.size, 0);
  await assert.rejects(model.embed('a', { adapters: 'rank' }), { code: 'ADAPTER_UNKNOWN' });
  await server.close();
  await model.dispose();
});

test('adapters are fetched side by side and loaded in order', async () => {
  const model = await load(files);
  // Nothing is answered before the second request is there.
  const waiting = [];
  let most = 0;
  const server = await tiny.serve(tiny.lora(), (_, __, response, bytes) => {
    waiting.push(() => response.end(bytes));
    most = Math.max(most, waiting.length);
    setTimeout(() => waiting.splice(0).forEach((answer) => answer()), waiting.length > 1 ? 0 : 500);
    return true;
  });
  const order = [];
  const names = ['a', 'b', 'c', 'd'];
  await Promise.all(names.map((name) => model.loadAdapter(name, server.url).then(() => order.push(name))));
  assert.deepEqual(order, names);
  assert.deepEqual([...model.adapters.keys()], names);
  assert.ok(most >= 2, `${most} at a time`);
  await server.close();
  await model.dispose();
});

test('Node loads from a path and from a file address', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'polygraft-'));
  try {
    for (const [name, bytes] of files) await writeFile(path.join(folder, name), bytes);
    for (const source of [folder, pathToFileURL(folder), pathToFileURL(folder).href]) {
      const model = await load(source);
      assert.equal(model.info.layers, 2);
      await model.dispose();
    }
    is(await load(path.join(folder, 'gone')).catch((e) => e), 'FILE_MISSING', /gone/);
    if (process.platform !== 'win32') {
      // As Emacs marks a file that is being edited.
      await symlink('/nowhere/else', path.join(folder, '.#README.md'));
      await (await load(folder)).dispose();
      await symlink('loop', path.join(folder, 'loop'));
      is(await load(folder).catch((e) => e), 'FILE_READ', /loop cannot be read: ELOOP/);
      await rm(path.join(folder, 'loop'));
    }
    await writeFile(path.join(folder, 'model.safetensors'), files.get('model.safetensors').subarray(0, 30_000));
    is(await load(folder).catch((e) => e), 'INTEGRITY', /30000 bytes/);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('a picked folder loads, with its own name in front of each file', async () => {
  const picked = [...files].map(([name, bytes]) => {
    const file = new File([bytes], name);
    Object.defineProperty(file, 'webkitRelativePath', { value: `my model/${name}` });
    return file;
  });
  const model = await load(picked);
  assert.equal((await model.embed('a')).width, 32);
  await model.dispose();
});
