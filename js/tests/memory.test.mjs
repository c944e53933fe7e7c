// The end of WebAssembly's memory: an error with a code, then more of the same, never a hang or a wrong number.
// In a file, and so in a process, of its own: the instance that traps is this process's.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { load, PolygraftError } from '../dist/node.js';
import * as tiny from './tiny.mjs';

/** The library's module with its memory limited to `extra` pages (64 KB) more than it starts with. */
async function limited(extra) {
  const bytes = new Uint8Array(await readFile(new URL('../dist/wasm/polygraft_bg.wasm', import.meta.url)));
  let at = 8;
  const number = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  const written = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...written(value >> 7)]);
  for (;;) {
    const start = at;
    const section = bytes[at++];
    const end = number() + at;
    if (section !== 5) {
      at = end;
      continue;
    }
    // One memory, without a maximum, of so many pages.
    assert.deepEqual([number(), number()], [1, 0]);
    const pages = number();
    const body = [1, 1, ...written(pages), ...written(pages + extra)];
    return WebAssembly.compile(Buffer.concat([bytes.subarray(0, start), Buffer.from([5, body.length, ...body]), bytes.subarray(end)]));
  }
}

test('memory that is used up is OUT_OF_MEMORY, for this call and every later one', async () => {
  const model = await load(tiny.model(), { wasm: await limited(40) });
  assert.equal((await model.embed('some water')).width, 32);
  const told = (error) => error instanceof PolygraftError && error.code === 'OUT_OF_MEMORY' && /MB of WebAssembly memory/.test(error.message) && /load it again/.test(error.hint);
  await assert.rejects(model.embed(tiny.texts(3000, 60)), told);
  await assert.rejects(model.embed('some water'), told);
  await assert.rejects(load(tiny.model()), told);
  await model.dispose();
});
