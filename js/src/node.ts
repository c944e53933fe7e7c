// polygraft in Node: paths and file: addresses besides http, computing in this thread.

import { readFile } from 'node:fs/promises';
import { locate, pathOf } from './disk.js';
import { compileResponse, loadIn, type Surroundings } from './load.js';
import { hasRelaxedSimd } from './probe.js';
import type { LoadOptions, Model, Source } from './types.js';

export { errorCodes, PolygraftError } from './errors.js';
export type { PolygraftErrorCode } from './errors.js';
export { probe } from './probe.js';
export type * from './types.js';

/**
 * Loads a base model: from the path or address of a folder, or from files.
 *
 * Rejects with a {@link PolygraftError}, or with an `AbortError` when `signal` aborts.
 */
export async function load(source: Source, options?: LoadOptions): Promise<Model> {
  return loadIn(node, source, options);
}

const node: Surroundings = {
  locate,
  compile: async () => {
    const file = hasRelaxedSimd() ? './wasm/polygraft_relaxed_bg.wasm' : './wasm/polygraft_bg.wasm';
    return WebAssembly.compile(await readFile(new URL(file, import.meta.url)));
  },
  compileFrom: async (address) => {
    const text = String(address);
    if (/^https?:/i.test(text)) return compileResponse(await fetch(text));
    return WebAssembly.compile(await readFile(pathOf(address)));
  },
  startWorker: undefined,
  noWorker: 'In Node, computing shares this thread, in slices of some milliseconds.',
  tick: () => () => new Promise((resolve) => setImmediate(resolve)),
};
