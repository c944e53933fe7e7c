// Runs examples/wasm.rs: node examples/wasm.mjs MODULE [ROUNDS | check | profile | pair]. `pair`: adapters in one bit
// against the same in 32 bits, 16 x 64 tokens, eight adapters in turn. Times on a core, so that neighbours
// do not count. Modules built with +relaxed-simd need --experimental-wasm-relaxed-simd before Node 22.
import { readFile } from 'node:fs/promises';

const [file, mode = '5'] = process.argv.slice(2);
const now = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
};
const { instance } = await WebAssembly.instantiate(await readFile(file), { host: { now } });
const { memory, prepare, bench, check, profile, profile_length: length, tokens } = instance.exports;
const cases = [[1, 32, 0], [1, 128, 0], [16, 64, 0], [8, 0, 0], [8, 0, 1], [8, 0, 2]];
const name = ([rows, length, adapters]) => `${rows} x ${length || 'mixed'}${['', ', r 8 on q and v', ', r 16 on all six'][adapters]}`;
if (mode === 'check') {
  console.log(`largest difference to the oracle: ${check()}`);
} else if (mode === 'profile') {
  for (const shape of cases) {
    prepare(...shape);
    for (let i = 0; i < 20; i++) bench(1);
    const start = profile();
    console.log(`${name(shape)}\n${new TextDecoder().decode(new Uint8Array(memory.buffer, start, length()))}`);
  }
} else if (mode === 'pair') {
  const ratios = [];
  const times = [[], []];
  for (let round = -2; round < 21; round++) {
    const took = [0, 0];
    for (const which of round % 2 ? [1, 0] : [0, 1]) {
      prepare(16, 64, which ? 3 : 1);
      const start = now();
      bench(1);
      took[which] = now() - start;
    }
    if (round < 0) continue;
    ratios.push(took[1] / took[0]);
    times.forEach((list, i) => list.push(took[i]));
  }
  const at = (list, p) => list.toSorted((a, b) => a - b)[Math.floor(list.length * p)];
  console.log(`32 bits ${at(times[0], 0.5).toFixed(1)} ms, 1 bit ${at(times[1], 0.5).toFixed(1)} ms, ratio ${at(ratios, 0.5).toFixed(3)} (p10–p90 ${at(ratios, 0.1).toFixed(3)}–${at(ratios, 0.9).toFixed(3)}), 21 rounds`);
} else {
  const rounds = Number(mode);
  const times = cases.map(() => []);
  // In turns, so that a slow moment of the machine meets all of them; the first round warms up.
  for (let round = -1; round < rounds; round++) {
    for (const [i, shape] of cases.entries()) {
      prepare(...shape);
      const start = now();
      bench(1);
      if (round >= 0) times[i].push(now() - start);
    }
  }
  for (const [i, shape] of cases.entries()) {
    prepare(...shape);
    const sorted = times[i].toSorted((a, b) => a - b);
    const median = sorted[rounds >> 1];
    console.log(`${name(shape)}: median ${median.toFixed(1)} ms, best ${sorted[0].toFixed(1)} ms, ${((1e3 * median) / tokens()).toFixed(0)} us/token`);
  }
}
