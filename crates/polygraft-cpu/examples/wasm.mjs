// Runs examples/wasm.rs: node examples/wasm.mjs MODULE [ROUNDS]. Prints the largest difference to the oracle, then times
// on a core, so that neighbours do not count. Modules built with +relaxed-simd need --experimental-wasm-relaxed-simd
// before Node 22.
import { readFile } from 'node:fs/promises';

const [file, rounds = '5'] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(await readFile(file));
const { prepare, bench, check } = instance.exports;
console.log(`conformance: worst ${check()}`);
for (const rows of [1, 16]) {
  prepare(rows);
  const times = { exact: [], fast: [] };
  for (let i = 0; i < Number(rounds); i++) {
    for (const [name, list] of Object.entries(times)) {
      const start = process.cpuUsage();
      bench(Number(name === 'fast'));
      const { user, system } = process.cpuUsage(start);
      list.push((user + system) / 1e3);
    }
  }
  for (const [name, list] of Object.entries(times)) {
    list.sort((a, b) => a - b);
    const median = list[list.length >> 1];
    const speed = ((rows * 64) / median) * 1e3;
    console.log(`${rows} x 64 ${name}: median ${median.toFixed(1)} ms, best ${list[0].toFixed(1)} ms, ${speed.toFixed(0)} tokens/s`);
  }
}
