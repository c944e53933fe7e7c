// Where a short call's time goes, thread by thread: `embed` of one row of 32 tokens in one page of Chromium, many times, and
// what each thread of the page's process spent a call. Linux only.  node bench/threads.mjs [CALLS] [SET]
import { readFileSync } from 'node:fs';
import { ensureModel } from '../scripts/model.mjs';
import { ensurePackage } from '../scripts/package.mjs';
import { serve } from '../scripts/serve.mjs';
import { launch, threadTimes } from './browser.mjs';
import { batches } from './page/batches.js';
import { ensureTexts } from './texts.mjs';

const calls = Number(process.argv[2] ?? 100);
await ensureModel();
await ensurePackage();
const feed = batches(await ensureTexts(), process.argv[3] ?? '1x32');
const server = await serve({ port: 0, isolated: true });
const chrome = await launch();
try {
  const page = await chrome.newPage();
  // Any page of the server's will do but the demo, which has work of its own: this one is not there.
  await page.goto(`${server.url}nowhere.html`);
  await page.evaluate(async () => {
    const { load } = await import('/js/dist/index.js');
    globalThis.model = await load(new URL('/models/multilingual-e5-small/', location.href).href, { device: 'cpu' });
  });
  const spent = await threadTimes(chrome);
  const run = () =>
    page.evaluate(
      async (sets) => {
        const start = performance.now();
        let inside = 0;
        for (const set of sets) {
          const { timing } = await model.embed(set);
          if (timing.cached) throw new Error('remembered');
          inside += timing.ms;
        }
        return { wall: (performance.now() - start) / sets.length, inside: inside / sets.length };
      },
      Array.from({ length: calls }, () => feed.next().value.texts),
    );
  await run();
  for (let round = 0; round < 3; round += 1) {
    const before = spent();
    const { wall, inside } = await run();
    const threads = [...spent()].map(([thread, ms]) => ({ thread, ms: (ms - (before.get(thread) ?? 0)) / calls })).filter(({ ms }) => ms > 0.01);
    const named = threads.map(({ thread, ms }) => `${readFileSync(`${thread}/comm`, 'utf8').trim()} ${ms.toFixed(2)}`);
    const core = threads.reduce((sum, { ms }) => sum + ms, 0);
    console.log(`a call: ${wall.toFixed(2)} ms on the wall, ${inside.toFixed(2)} inside; on a core ${core.toFixed(2)}: ${named.join(', ')}`);
  }
} finally {
  await chrome.close();
  await server.close();
}
