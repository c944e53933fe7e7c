// From the start of a navigation to the first score: one query, eight passages; then nine calls more.
//
//   ?who=polygraft | plain-u8 | plain-q4 …
//
// Files come from Cache storage, where the first visit put them. The peer is given its token ids: tokenizing, and
// loading a tokenizer, cost it nothing here.
import { batches, runOrt } from './batches.js';

const who = new URLSearchParams(location.search).get('who');
const texts = await (await fetch('texts.json')).json();
const feed = batches(texts, 'mixed');
const calls = Array.from({ length: 10 }, () => feed.next().value).map((b) => ({ texts: b.texts.slice(0, 9), ids: b.ids.slice(0, 9) }));
// What follows is the application; what came before is the bench's own.
const start = performance.now();
const times = [];

if (who === 'polygraft') {
  const { load } = await import('/js/dist/index.js');
  const model = await load(new URL('/models/multilingual-e5-small/', location.href).href);
  times.push(performance.now() - start);
  for (const call of calls) {
    const begin = performance.now();
    await model.rerank({ query: call.texts[0], documents: call.texts.slice(1) });
    times.push(performance.now() - begin);
  }
} else {
  const dist = '/web/node_modules/onnxruntime-web/dist/';
  const ort = await import(`${dist}ort.wasm.min.mjs`);
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: new URL(dist, location.href).href });
  const address = `/onnx/${who}.onnx`;
  const cache = await caches.open('bench-peer');
  let response = await cache.match(address);
  if (!response) {
    await cache.put(address, await fetch(address));
    response = await cache.match(address);
  }
  const session = await ort.InferenceSession.create(new Uint8Array(await response.arrayBuffer()), { executionProviders: ['wasm'], graphOptimizationLevel: 'all' });
  times.push(performance.now() - start);
  for (const call of calls) {
    const begin = performance.now();
    const out = await runOrt(ort, session, call.ids, 'one by one');
    const scores = Array.from({ length: 8 }, (_, k) => out.subarray(0, 384).reduce((sum, x, i) => sum + x * out[(k + 1) * 384 + i], 0));
    if (!scores.every(Number.isFinite)) throw new Error('no scores');
    times.push(performance.now() - begin);
  }
}
globalThis.startup = { load: times[0], calls: times.slice(1), first: times[0] + times[1] };
