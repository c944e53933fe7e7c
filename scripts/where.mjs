// The functions of a trap's stack: node scripts/where.mjs 'wasm-function[812]:0x4f3a2 < wasm-function[3101]:0x1c09' [FILE]
// FILE is the build that stopped: polygraft_relaxed_bg.wasm unless it is said to be polygraft_bg.wasm, as in Node 20 and
// browsers without relaxed SIMD.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { exists, runAsMain, SetupError } from './lib.mjs';
import { namedDir } from './rust.mjs';

/** Index -> name, of the name section of a module; it need not be one that this engine can run. */
function functionNames(bytes) {
  let at = 8;
  const number = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  const text = () => {
    const length = number();
    return new TextDecoder().decode(bytes.subarray(at, (at += length)));
  };
  const names = new Map();
  /** Sections, and inside the name section its parts, are a kind, a length and a body. */
  const parts = (end, visit) => {
    while (at < end) {
      const kind = bytes[at++];
      const next = number() + at;
      visit(kind, next);
      at = next;
    }
  };
  const functions = (kind) => {
    if (kind !== 1) return;
    for (let left = number(); left > 0; left--) names.set(number(), text());
  };
  parts(bytes.length, (kind, end) => {
    if (kind === 0 && text() === 'name') parts(end, functions);
  });
  return names;
}

async function main([places = '', build = 'polygraft_relaxed_bg.wasm']) {
  const indices = [...places.matchAll(/wasm-function\[(\d+)\]/g)].map((found) => Number(found[1]));
  if (indices.length === 0) throw new SetupError('no wasm-function[N] among the arguments', 'Give the message of the error, in quotes.');
  const file = path.join(namedDir, build);
  if (!(await exists(file))) throw new SetupError(`${file} is not there`, 'Check out the version that stopped, and run: npm run build');
  const names = functionNames(await readFile(file));
  for (const index of indices) console.log(`${index}  ${names.get(index) ?? 'no such function: this is another build'}`);
}

await runAsMain(import.meta, main);
