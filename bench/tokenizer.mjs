// How long the tokenizer takes to be ready in WebAssembly, and the memory it takes: the time and growth of
// `Loader.finish`, which reads tokenizer.kit and packs the weights; an upper bound on the tokenizer's own.
//
//   node bench/tokenizer.mjs [--rounds 5]
import { readFile, stat } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import * as wasm from '../js/dist/wasm/polygraft.js';

const at = process.argv.indexOf('--rounds');
const rounds = at >= 0 ? Number(process.argv[at + 1]) : 5;
const root = new URL('../models/multilingual-e5-small/', import.meta.url);
const file = async (name) => new Uint8Array(await readFile(new URL(name, root)));
const module = await WebAssembly.compile(await readFile(new URL('../js/dist/wasm/polygraft_bg.wasm', import.meta.url)));
wasm.initSync({ module });

const weights = await file('model.safetensors');
const kit = await file('tokenizer.kit');
const times = [];
for (let round = 0; round < rounds; round++) {
  const folder = new wasm.Folder();
  for (const name of ['polygraft.json', 'config.json']) folder.add(name, await file(name));
  folder.add('tokenizer.kit', kit);
  folder.announce('model.safetensors', weights.length);
  const loader = new wasm.Loader(folder);
  const length = wasm.Loader.headerLength('model.safetensors', weights.subarray(0, 16));
  const plans = loader.begin('model.safetensors', weights.slice(0, length), weights.length);
  for (let i = 0; i < plans.length; i += 3) {
    const [index, offset, bytes] = plans.slice(i, i + 3);
    loader.expect(bytes);
    for (let at = 0; at < bytes; at += 1 << 20) loader.part(weights.subarray(offset + at, offset + Math.min(at + (1 << 20), bytes)));
    loader.tensor('model.safetensors', index);
  }
  const before = wasm.memoryBytes();
  const start = performance.now();
  const model = loader.finish('fast');
  times.push(performance.now() - start);
  if (round === 0) {
    const mb = (n) => `${(n / 1e6).toFixed(1)} MB`;
    console.log(`memory: ${mb(before)} with the weights, ${mb(wasm.memoryBytes())} with the tokenizer; weights ${mb(model.weights())}`);
  }
  model.free();
}
times.sort((a, b) => a - b);
console.log(`ready after ${times[Math.floor(rounds / 2)].toFixed(0)} ms (${times[0].toFixed(0)}–${times.at(-1).toFixed(0)})`);
console.log(`tokenizer.kit: ${((await stat(new URL('tokenizer.kit', root))).size / 1e6).toFixed(1)} MB`);
