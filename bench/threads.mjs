// Where a short call's time goes, thread by thread: `embed` of one row of 32 tokens in one page of Chromium, many times, and
// what each thread of the page's process spent a call. Linux only.  node bench/threads.mjs [CALLS] [SET]
import { readdirSync, readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';
import { findChromium } from '../scripts/lib.mjs';
import { serve } from '../scripts/serve.mjs';
import { batches } from './page/batches.js';
import { ensureTexts } from './texts.mjs';

const calls = Number(process.argv[2] ?? 100);
const feed = batches(await ensureTexts(), process.argv[3] ?? '1x32');
const server = await serve({ port: 0, isolated: true });
const chrome = await chromium.launch({ executablePath: await findChromium(), args: ['--no-sandbox', '--disable-background-timer-throttling', '--disable-renderer-backgrounding'] });
try {
  const page = await chrome.newPage();
  await page.goto(server.url + 'nowhere.html');
  const session = await chrome.newBrowserCDPSession();
  await page.evaluate(async () => {
    const { load } = await import('/js/dist/index.js');
    globalThis.model = await load(new URL('/models/multilingual-e5-small/', location.href).href, { device: 'cpu' });
  });
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  const pids = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => id);
  const spent = () => {
    const all = new Map();
    for (const pid of pids) {
      for (const task of readdirSync(`/proc/${pid}/task`)) {
        const name = readFileSync(`/proc/${pid}/task/${task}/comm`, 'utf8').trim();
        const key = `${pid} ${task} ${name}`;
        all.set(key, Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]) / 1e6);
      }
    }
    return all;
  };
  const texts = (n) => Array.from({ length: n }, () => feed.next().value.texts);
  const run = (list) =>
    page.evaluate(async (sets) => {
      const start = performance.now();
      let inside = 0;
      for (const set of sets) {
        const { timing } = await model.embed(set);
        if (timing.cached) throw new Error('remembered');
        inside += timing.ms;
      }
      return { wall: (performance.now() - start) / sets.length, inside: inside / sets.length };
    }, list);
  await run(texts(30));
  for (let round = 0; round < 3; round += 1) {
    const list = texts(calls);
    const before = spent();
    const { wall, inside } = await run(list);
    const after = spent();
    const rows = [...after].map(([key, ms]) => [key, (ms - (before.get(key) ?? 0)) / calls]).filter(([, ms]) => ms > 0.01);
    console.log(`a call: ${wall.toFixed(2)} ms on the wall, ${inside.toFixed(2)} inside; on a core ${rows.reduce((a, [, ms]) => a + ms, 0).toFixed(2)}: ${rows.map(([k, ms]) => `${k.split(' ').slice(2).join(' ')} ${ms.toFixed(2)}`).join(', ')}`);
  }
} finally {
  await chrome.close();
  await server.close();
}
