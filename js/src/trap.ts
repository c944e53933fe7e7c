// A trap of the WebAssembly instance, as an error that can be acted on.

import { PolygraftError } from './errors.js';
import * as wasm from './wasm/polygraft.js';

/** Functions of the module on the trap's stack, innermost first: `scripts/where.mjs` has their names. */
const PLACE = /wasm-function\[\d+\](?::0x[\da-f]+)?/g;

/**
 * The error behind a trap, or nothing when `error` is not one. A trap ends the instance: it is a panic, which is a
 * defect of this library, or the end of its memory or of its stack.
 */
export function trapped(error: unknown): PolygraftError | undefined {
  const { name = '', message = '', stack = '' } = error instanceof Error ? error : {};
  // Each engine has its own words for a full stack. JavaScript's own recursion hurts nobody.
  const overflow = /^(RangeError|InternalError)$/.test(name) && /call stack|recursion/.test(message) && /wasm-function|wasm:\/\//.test(stack);
  if (!(error instanceof WebAssembly.RuntimeError) && !overflow) return undefined;
  const hint = 'Dispose of the model and load it again (with worker: false, reload the page first).';
  const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 0)} MB`;
  const refused = wasm.refusedBytes();
  if (refused > 0 || overflow) {
    const wanted = overflow ? message : `${megabytes(refused)} more could not be had`;
    return new PolygraftError('OUT_OF_MEMORY', `the engine stopped at ${megabytes(wasm.memoryBytes())} of WebAssembly memory: ${wanted}`, { hint });
  }
  const places = stack.match(PLACE)?.slice(0, 6).join(' < ') ?? message;
  return new PolygraftError('INTERNAL', `the engine stopped by a defect of its own: ${places}`, {
    cause: error,
    hint: `${hint} Please report this message with the version of polygraft.`,
  });
}
