// A hundred LoRAs of rank 8 on query and value, packed at one bit a number and all loaded: the memory that they occupy, and one
// batch of 16 × 64 tokens through sixteen of them against one adapter for all and against none. One Node process, one thread.
//
//   node bench/hundred.mjs [--rounds 15]
//
// The adapters' numbers are random, each adapter's its own. It fails when they take more than 2.5 MB: what the load reports say,
// and what the backend holds more after each has been used. Times are CPU time of the process; ratios are paired by round.
import { execFileSync } from 'node:child_process';
import { mkdir, readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { at, once, runAsMain, SetupError } from '../scripts/lib.mjs';
import { cargo } from '../scripts/rust.mjs';
import { lora } from './adapters.mjs';
import { batches } from './page/batches.js';
import { median, paired } from './page/stats.js';
import { home } from './peers.mjs';
import { ensureTexts } from './texts.mjs';

const count = 100;
const goal = 2.5e6;
const base = 'models/multilingual-e5-small';
const folder = `${home}/hundred`;
const packed = (i) => at(folder, `${i}.safetensors`);

/** Packs them unless they are there. */
async function ensureHundred() {
  await cargo(['build', '--release', '--locked', '-p', 'polygraft-cli']);
  const cli = path.resolve(at(), process.env.CARGO_TARGET_DIR ?? 'target', 'release/polygraft');
  await once('hundred adapters', { inputs: ['bench/adapters.mjs', 'bench/hundred.mjs', 'crates/polygraft-formats/src/packed'], outputs: [folder] }, async () => {
    await mkdir(at(folder), { recursive: true });
    const original = at(folder, 'original');
    for (let i = 0; i < count; i += 1) {
      await lora(original, 'qv8', 50_000 + i);
      execFileSync(cli, ['pack', original, packed(i), '--base', at(base), '--bits', '1', '--force'], { stdio: 'ignore' });
    }
    await rm(original, { recursive: true });
  });
}

async function cpu(work) {
  const start = process.cpuUsage();
  const value = await work();
  const { user, system } = process.cpuUsage(start);
  return { ms: (user + system) / 1e3, value };
}

await runAsMain(import.meta, async (args) => {
  const { values } = parseArgs({ args, options: { rounds: { type: 'string', default: '15' } } });
  await ensureHundred();
  const { load } = await import(pathToFileURL(at('js/dist/node.js')).href);
  const model = await load(pathToFileURL(at(base)), { worker: false });
  const megabytes = (n) => `${(n / 1e6).toFixed(2)} MB`;

  const files = [];
  for (let i = 0; i < count; i += 1) files.push(new Uint8Array(await readFile(packed(i))));
  // The backend's own copies of weights are made by the first call.
  await model.embed('.');
  const before = await model.memory();
  const loading = await cpu(async () => {
    for (const [i, file] of files.entries()) await model.loadAdapter(`a${i}`, file);
  });
  const size = (await stat(packed(0))).size;
  console.log(`${model.info.backend} · Node ${process.version}`);
  console.log(`${count} files of ${size} bytes, ${megabytes(files.reduce((sum, f) => sum + f.length, 0))}; loaded in ${loading.ms.toFixed(0)} ms`);

  const feed = batches(await ensureTexts(), '16x64');
  const ways = {
    'no adapter': undefined,
    'one adapter for all': () => 'a0',
    '16 different adapters': (_, i) => `a${i}`,
  };
  const times = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
  for (let round = -2; round < Number(values.rounds); round += 1) {
    for (const [way, adapters] of Object.entries(ways)) {
      const batch = feed.next().value;
      const { ms, value } = await cpu(() => model.embed(batch.texts, { adapters }));
      if (value.timing.cached || value.timing.tokens !== batch.tokens) throw new Error('not the same tokens');
      if (round >= 0) times[way].push(ms);
    }
  }
  // All have been in use once: what a backend makes for a call is counted with them.
  const all = Array.from({ length: count }, (_, i) => feed.next().value.texts[i % 16]);
  const { embeddings } = await model.embed(all, { adapters: (_, i) => `a${i}` });
  const different = new Set(embeddings.map((e) => e.slice(0, 8).join())).size;
  if (different !== count) throw new Error(`${different} different embeddings of ${count}`);

  const stored = [...model.adapters.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  const after = await model.memory();
  const held = stored + after.weights - before.weights;
  console.log(`${model.adapters.size} adapters in memory: ${megabytes(held)} (${megabytes(stored)} as loaded, ${megabytes(after.weights - before.weights)} more in the backend after calls); goal: ${megabytes(goal)}`);
  console.log(`WebAssembly's memory: ${megabytes(before.wasm)} before, ${megabytes(after.wasm)} after all calls`);
  for (const [way, list] of Object.entries(times)) {
    const { median: ratio, p10, p90 } = paired(times['one adapter for all'], list);
    console.log(`${way.padEnd(22)} ${median(list).toFixed(1)} ms   ${ratio.toFixed(3)} × one adapter for all (p10–p90 ${p10.toFixed(3)}–${p90.toFixed(3)})`);
  }
  await model.dispose();
  if (held > goal) throw new SetupError(`${count} adapters take ${megabytes(held)}`);
});
