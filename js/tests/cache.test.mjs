// The cache, as environments have it that are hard to get: in a sandboxed frame, at another address, with a broken disk.
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { load, probe } from '../dist/node.js';
import * as tiny from './tiny.mjs';

/** Has `get` as the global `caches`. */
const globally = (get) => Object.defineProperty(globalThis, 'caches', { configurable: true, get });
const before = Object.getOwnPropertyDescriptor(globalThis, 'caches');
afterEach(() => {
  delete globalThis.caches;
  if (before) Object.defineProperty(globalThis, 'caches', before);
});

/** Cache storage in memory; `broken` names what does not work. */
class Memory {
  files = new Map();
  broken = '';
  async open() {
    return this;
  }
  async match(key) {
    const bytes = this.files.get(key);
    if (!bytes) return undefined;
    const blob = new Blob([bytes]);
    const failing = () => new ReadableStream({ pull: (c) => c.error(new Error('the disk does not answer')) });
    if (this.broken === 'read') Object.defineProperty(blob, 'stream', { value: failing });
    return { blob: async () => blob };
  }
  async put(key, response) {
    this.files.set(key, new Uint8Array(await response.arrayBuffer()));
  }
  async delete(key) {
    return this.files.delete(key);
  }
  async keys() {
    if (this.broken === 'keys') throw new Error('no list');
    return [...this.files.keys()].map((url) => ({ url }));
  }
}

const visit = async (url) => (await load(url)).dispose();

test('where the very question for Cache storage is refused, there is none', async () => {
  globally(() => {
    throw new DOMException('Cache storage is disabled because the context is sandboxed', 'SecurityError');
  });
  const { cache, notes } = await probe();
  assert.equal(cache, false);
  assert.ok(notes.some((note) => /sandboxed/.test(note)));
  const server = await tiny.serve(tiny.listed());
  await visit(server.url);
  const model = await load(server.url, { cache: true });
  const warnings = [];
  model.on('warning', ({ code }) => warnings.push(code));
  await model.embed('hot water');
  assert.ok(warnings.includes('CACHE_UNAVAILABLE'), String(warnings));
  await model.dispose();
  await server.close();
});

test('a file under another query is the same file', async () => {
  const memory = new Memory();
  globally(() => memory);
  const server = await tiny.serve(tiny.listed());
  for (const token of [1, 2]) await visit(`${server.url}?token=${token}`);
  await server.close();
  assert.deepEqual([...memory.files.keys()].filter((key) => key.includes('token=')), []);
  assert.equal(memory.files.size, 3);
  assert.equal(server.log.filter(([name]) => name !== 'polygraft.json').length, 3);
});

test('a cache that cannot list its entries keeps files all the same', async () => {
  const memory = new Memory();
  memory.broken = 'keys';
  globally(() => memory);
  const server = await tiny.serve(tiny.listed());
  await visit(server.url);
  await server.close();
  assert.equal(memory.files.size, 3);
});

test('a copy that cannot be read is an error, and not kept', async () => {
  const memory = new Memory();
  globally(() => memory);
  const server = await tiny.serve(tiny.listed());
  await visit(server.url);
  memory.broken = 'read';
  await assert.rejects(visit(server.url), { code: 'FILE_READ', message: /does not answer/ });
  assert.ok(memory.files.size < 3);
  memory.broken = '';
  await visit(server.url);
  await server.close();
  assert.equal(memory.files.size, 3);
});
