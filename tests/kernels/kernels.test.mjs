// The CPU kernels in WebAssembly, both builds, against the oracle: examples/wasm.rs of polygraft-cpu runs the cases of its
// conformance test (random models, adapters, mixed batches, exact and fast; a row alone has the same bits), and products of
// odd shapes and extreme values against sums in f64.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import v8 from 'node:v8';
import binaryen from 'binaryen';
import { builds, kernelChecks, namedDir } from '../../scripts/rust.mjs';

// Relaxed instructions are on from Node 22 on; there the flag is gone.
if (Number(process.versions.node.split('.')[0]) < 22) v8.setFlagsFromString('--experimental-wasm-relaxed-simd');

for (const file of kernelChecks) {
  test(path.basename(file), async (t) => {
    const bytes = await readFile(file);
    const { instance } = await WebAssembly.instantiate(bytes, { host: { now: () => performance.now() } });
    const off = instance.exports.check();
    t.diagnostic(`largest difference ${off}`);
    assert.ok(off > 0 && off <= 5e-4, `off by ${off}; infinite: a row alone has other bits, or is far off where it rounds`);
    // Whole numbers for scales are exact to some 2^-12 of the largest; a channel 300 times as large leaves others few bits.
    for (const [outlier, most] of [[1, 3e-4], [30, 1e-3], [300, 5e-3]]) {
      const off = instance.exports.products(outlier);
      t.diagnostic(`products with a channel ${outlier} times as large: ${off}`);
      assert.ok(off > 0 && off <= most, `${outlier}: off by ${off}`);
    }
  });
}

// What the optimiser could undo: kernels/wasm/pairs.s orders its instructions so that sums stay in registers.
test('the kernel in assembly is as it was written', async () => {
  const module = binaryen.readBinary(await readFile(path.join(namedDir, builds.find((b) => b.features.includes('relaxed')).file)));
  for (const [name, asked] of [['polygraft_pairs_tiles', 0], ['polygraft_pairs_tiles_asking', 1]]) {
    const { vars, body } = binaryen.getFunctionInfo(module.getFunction(name));
    const vectors = vars.filter((type) => type === binaryen.v128).length;
    // Those that it declares; with one for every assignment there are hundreds.
    assert.ok(vectors > 20 && vectors <= 36, `${name}: ${vectors} vectors`);
    // What is loaded only so that it is near.
    const dropped = binaryen.emitText(body).match(/\(drop\s+\(v128\.load/g) ?? [];
    assert.equal(dropped.length, asked, name);
  }
});
