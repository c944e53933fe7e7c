// The CPU kernels in WebAssembly, both builds, against the oracle: examples/wasm.rs of polygraft-cpu runs the cases of its
// conformance test (random models, adapters, mixed batches, exact and fast; a row alone has the same bits).
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import v8 from 'node:v8';
import { kernelChecks } from '../../scripts/rust.mjs';

// Relaxed instructions are on from Node 22 on; there the flag is gone.
if (Number(process.versions.node.split('.')[0]) < 22) v8.setFlagsFromString('--experimental-wasm-relaxed-simd');

for (const file of kernelChecks) {
  test(path.basename(file), async (t) => {
    const bytes = await readFile(file);
    const { instance } = await WebAssembly.instantiate(bytes, { host: { now: () => performance.now() } });
    const off = instance.exports.check();
    t.diagnostic(`largest difference ${off}`);
    assert.ok(off > 0 && off <= 5e-4, `off by ${off}; infinite: a row alone has other bits, or is far off where it rounds`);
  });
}
