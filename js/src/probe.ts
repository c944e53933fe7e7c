// What this environment can do. Never throws; safe during server-side rendering.

import { cacheStorage } from './cache.js';
import type { Capabilities } from './types.js';

// (module (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt)), as in wasm-feature-detect (Apache-2.0).
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

// (module (func (result v128) i32.const 0 i8x16.splat i32.const 0 i8x16.splat i16x8.relaxed_dot_i8x16_i7x16_s)).
const RELAXED = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 0, 253, 15, 65, 0, 253, 15,
  253, 146, 2, 11,
]);

const validates = (module: Uint8Array<ArrayBuffer>): boolean =>
  typeof WebAssembly === 'object' && WebAssembly.validate(module);

export const hasSimd = (): boolean => validates(SIMD);

/** Whether the faster of the two builds can be used. */
export const hasRelaxedSimd = (): boolean => validates(RELAXED);

interface Gpu {
  requestAdapter(): Promise<unknown>;
}

/** Says whether polygraft runs here, and what it finds. */
export async function probe(): Promise<Capabilities> {
  const simd = hasSimd();
  const notes: string[] = [];
  if (!simd) notes.push('No WebAssembly SIMD: nothing runs here. Chrome 91, Firefox 89, Safari 16.4 and Node 16.4 have it.');
  const nav = (typeof navigator === 'undefined' ? {} : navigator) as { gpu?: Gpu; deviceMemory?: number };
  let webgpu = false;
  if (nav.gpu) {
    try {
      webgpu = (await nav.gpu.requestAdapter()) !== null;
    } catch {
      // Switched off by a policy: the same as none.
    }
    notes.push(webgpu ? 'WebGPU is there; load() measures whether it is faster than the CPU.' : 'navigator.gpu is there and gives no adapter.');
  }
  const workers = typeof Worker !== 'undefined';
  if (!workers) notes.push('No workers: computing shares this thread, in slices of some milliseconds.');
  const cache = cacheStorage() !== undefined;
  if (!cache) notes.push('No Cache storage (it needs a secure context that is not sandboxed): models are downloaded on each visit.');
  return {
    supported: simd,
    simd,
    relaxedSimd: hasRelaxedSimd(),
    webgpu,
    crossOriginIsolated: typeof crossOriginIsolated !== 'undefined' && crossOriginIsolated,
    workers,
    cache,
    deviceMemory: typeof nav.deviceMemory === 'number' ? nav.deviceMemory : null,
    notes,
  };
}
