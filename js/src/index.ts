// polygraft in browsers, and in every runtime that has fetch and WebAssembly. Importing this touches nothing.

import { PolygraftError } from './errors.js';
import { messageTick } from './host.js';
import { compileResponse, loadIn, type Surroundings } from './load.js';
import { placeAt } from './place.js';
import { hasRelaxedSimd } from './probe.js';
import type { LoadOptions, Model, Source } from './types.js';

export { errorCodes, PolygraftError } from './errors.js';
export type { PolygraftErrorCode } from './errors.js';
export { probe } from './probe.js';
export type * from './types.js';

/**
 * Loads a base model: from the address of a converted folder (its `polygraft.json` lists the files), or from files.
 *
 * Rejects with a {@link PolygraftError}, or with an `AbortError` when `signal` aborts.
 */
export async function load(source: Source, options?: LoadOptions): Promise<Model> {
  return loadIn(page(), source, options);
}

function page(): Surroundings {
  const workers = typeof Worker !== 'undefined';
  return {
    locate: (source) => placeAt(resolved(source)),
    // Bundlers look for exactly these expressions, and for the worker's below.
    compile: async () => {
      const plain = new URL('./wasm/polygraft_bg.wasm', import.meta.url);
      const relaxed = new URL('./wasm/polygraft_relaxed_bg.wasm', import.meta.url);
      return compileResponse(await fetch(hasRelaxedSimd() ? relaxed : plain));
    },
    compileFrom: async (address) => compileResponse(await fetch(resolved(address))),
    startWorker: workers
      ? () => new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'polygraft' })
      : undefined,
    noWorker: 'There are no workers here: computing shares this thread, in slices of some milliseconds.',
    tick: messageTick,
  };
}

/** An address relative to the page. */
function resolved(source: string | URL): URL {
  const base = typeof document === 'undefined' ? globalThis.location?.href : document.baseURI;
  try {
    return new URL(source, base);
  } catch (cause) {
    throw new PolygraftError('ARGUMENT', `${JSON.stringify(String(source))} is no address`, { cause });
  }
}
