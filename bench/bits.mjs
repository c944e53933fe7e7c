// What an adapter in one bit costs: the ranking adapter packed at 1 bit against the same at 16, in one page of Chromium, 16 rows
// of 64 tokens under it, one worker, interleaved: node bench/bits.mjs [ROUNDS].
//
// The kernels alone, on the CPU natively, in WebAssembly under Node and on a GPU (`pair` of their examples):
//   cargo run --release --example bench -p polygraft-cpu -- 41 pair
//   node crates/polygraft-cpu/examples/wasm.mjs .cache/kernels/polygraft_relaxed_bg.wasm pair      (after npm test -- wasm)
//   cargo run --release --example bench -p polygraft-gpu -- 16 64 9 pair
import { mkdir, writeFile } from 'node:fs/promises';
import { at } from '../scripts/lib.mjs';
import { ensureModel } from '../scripts/model.mjs';
import { ensurePackage } from '../scripts/package.mjs';
import { cargo } from '../scripts/rust.mjs';
import { serve } from '../scripts/serve.mjs';
import { launch } from './browser.mjs';
import { batches } from './page/batches.js';
import { median, paired } from './page/stats.js';
import { ensureTexts } from './texts.mjs';

const rounds = Number(process.argv[2] ?? 21);
await ensureModel();
await ensurePackage();
const home = at('.cache/bench/bits');
await mkdir(home, { recursive: true });
const feed = batches(await ensureTexts(), '16x64');
await writeFile(`${home}/index.html`, '<!doctype html><title>bits</title>');
for (const bits of ['1', '16']) {
  await cargo(['run', '--release', '-q', '-p', 'polygraft-cli', '--', 'pack', 'adapters/rank-lora', `${home}/${bits}.packed`, '--base', 'models/multilingual-e5-small', '--bits', bits, '--force']);
}
const server = await serve({ port: 0, isolated: true, home });
const chrome = await launch();
try {
  const page = await chrome.newPage();
  page.setDefaultTimeout(0);
  await page.goto(server.url);
  console.log(await page.evaluate(async () => {
    const { load } = await import('/js/dist/index.js');
    globalThis.model = await load(new URL('/models/multilingual-e5-small/', location.href).href, { device: 'cpu' });
    for (const bits of ['1', '16']) await model.loadAdapter(bits, new Uint8Array(await (await fetch(`/${bits}.packed`)).arrayBuffer()));
    const { adapters } = await model.explain({ texts: ['a'], adapters: '1' });
    return `${model.device.why ?? model.info.backend}; in memory: ${adapters.map((a) => `${a.adapter} bits ${((a.session + a.backend) / 1e3).toFixed(1)} KB`).join(', ')}`;
  }));
  const times = { 1: [], 16: [] };
  for (let round = -3; round < rounds; round += 1) {
    for (const bits of round % 2 ? ['16', '1'] : ['1', '16']) {
      const { value: batch } = feed.next();
      const ms = await page.evaluate(async ([texts, adapters]) => {
        const start = performance.now();
        const { timing } = await model.embed(texts, { adapters });
        if (timing.cached) throw new Error('remembered: nothing was measured');
        return performance.now() - start;
      }, [batch.texts, bits]);
      if (round >= 0) times[bits].push(ms);
    }
  }
  const ratio = paired(times[16], times[1]);
  console.log(`16 x 64 tokens: 16 bits ${median(times[16]).toFixed(0)} ms, 1 bit ${median(times[1]).toFixed(0)} ms; 1 bit over 16: ${ratio.median.toFixed(3)} (p10–p90 ${ratio.p10.toFixed(3)}–${ratio.p90.toFixed(3)}), ${rounds} rounds`);
} finally {
  await chrome.close();
  await server.close();
}
