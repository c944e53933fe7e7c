// Polygraft against onnxruntime-web in one Node process, one thread: the quick look while a kernel is being written.
// `npm run bench` is the one whose figures count.
//
//   node bench/pair.mjs [--rounds 9] [--only 16x64,1x32,1x128,mixed] [--peers plain-u8,plain-q4] [--package DIR]
//
// Needs `npm run setup` and `node bench/peers.mjs`. Times are CPU time of the process, so that neighbours on the
// machine count for little; ratios are the peer's time over polygraft's, paired by round. --package is another built
// js/dist, such as a second worktree's.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { at } from '../scripts/lib.mjs';
import { batches, runOrt } from './page/batches.js';
import { median, paired, worstCosine } from './page/stats.js';
import { home } from './peers.mjs';
import { ensureTexts } from './texts.mjs';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '9' },
    only: { type: 'string', default: '16x64,1x32,1x128' },
    peers: { type: 'string', default: 'plain-u8,plain-q4' },
    package: { type: 'string', default: at('js/dist') },
  },
});
const { load } = await import(pathToFileURL(path.join(options.package, 'node.js')).href);
const dist = at(home, 'web/node_modules/onnxruntime-web/dist');
const ort = await import(pathToFileURL(path.join(dist, 'ort.wasm.min.mjs')).href);
Object.assign(ort.env, { logLevel: 'error' });
Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: `${pathToFileURL(dist).href}/`, wasmBinary: await readFile(path.join(dist, 'ort-wasm-simd-threaded.wasm')) });

const texts = await ensureTexts();
const model = await load(pathToFileURL(at('models/multilingual-e5-small')), { worker: false });
const sessions = new Map();
for (const name of options.peers.split(',').filter(Boolean)) {
  sessions.set(name, await ort.InferenceSession.create(new Uint8Array(await readFile(at(home, 'onnx', `${name}.onnx`))), { executionProviders: ['wasm'], graphOptimizationLevel: 'all' }));
}
async function cpu(work) {
  const start = process.cpuUsage();
  const value = await work();
  const { user, system } = process.cpuUsage(start);
  return { ms: (user + system) / 1e3, value };
}

console.log(`${model.info.backend} · onnxruntime-web ${ort.env.versions.web} · Node ${process.version}`);
for (const set of options.only.split(',')) {
  const mode = set === '16x64' ? 'pad 16' : 'one by one';
  const feed = batches(texts, set);
  const times = { polygraft: [] };
  const cosines = {};
  for (let round = -2; round < Number(options.rounds); round += 1) {
    const { value: batch } = feed.next();
    const own = await cpu(() => model.embed(batch.texts));
    if (own.value.timing.cached || own.value.timing.tokens !== batch.tokens) throw new Error('not the same tokens');
    if (round >= 0) times.polygraft.push(own.ms);
    for (const [name, session] of sessions) {
      const peer = await cpu(() => runOrt(ort, session, batch.ids, mode));
      if (round >= 0) (times[name] ??= []).push(peer.ms);
      else cosines[name] = worstCosine(own.value.data, peer.value);
    }
  }
  console.log(`${set.padEnd(6)} polygraft ${median(times.polygraft).toFixed(1)} ms`);
  for (const name of sessions.keys()) {
    const r = paired(times.polygraft, times[name]);
    console.log(`       ${name.padEnd(10)} ${median(times[name]).toFixed(1)} ms   ${r.median.toFixed(2)} × (p10–p90 ${r.p10.toFixed(2)}–${r.p90.toFixed(2)})   worst cosine ${cosines[name].toFixed(4)}   ${mode}`);
  }
}
await model.dispose();
process.exit(0); // onnxruntime-web keeps the process alive.
