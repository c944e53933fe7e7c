// What the demo page's tab takes: private memory of Chromium's renderer processes (RssAnon in /proc), before the model
// is fetched, at its peak, and with the first results. Worker, compiled code and page included. Linux only.
//
//   node bench/memory.mjs
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import { serve } from '../scripts/serve.mjs';

const profile = mkdtempSync(join(tmpdir(), 'polygraft-memory-'));
const proc = (pid, file) => {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return ''; // It has ended.
  }
};
const parent = (pid) => Number(/PPid:\t(\d+)/.exec(proc(pid, 'status'))?.[1] ?? 0);
function ours(pid) {
  for (let at = pid; at > 1; at = parent(at)) if (proc(at, 'cmdline').includes(profile)) return true;
  return false;
}
const renderers = () =>
  readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && proc(pid, 'cmdline').includes('--type=renderer') && ours(Number(pid)));
const megabytes = (pid) => (Number(/RssAnon:\s+(\d+)/.exec(proc(pid, 'status'))?.[1] ?? 0) * 1024) / 1e6;

const server = await serve({ port: 0 });
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.POLYGRAFT_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});
try {
  const page = context.pages()[0] ?? (await context.newPage());
  await page.goto(server.url);
  await page.waitForFunction(() => /^\d+ MB$/.test(document.getElementById('gate-size').textContent));
  await sleep(2000);
  const pids = renderers();
  const before = new Map(pids.map((pid) => [pid, megabytes(pid)]));
  const peak = new Map(before);
  let done = false;
  const watch = (async () => {
    while (!done) {
      for (const pid of pids) peak.set(pid, Math.max(peak.get(pid), megabytes(pid)));
      await sleep(30);
    }
  })();
  await page.locator('#gate button').first().click();
  await page.waitForSelector('#list .row', { timeout: 600_000 });
  await sleep(2000);
  done = true;
  await watch;
  const grown = (pid) => peak.get(pid) - before.get(pid);
  const tab = pids.reduce((a, b) => (grown(b) > grown(a) ? b : a));
  const mb = (n) => `${n.toFixed(0)} MB`;
  console.log(`tab: ${mb(before.get(tab))} before, ${mb(peak.get(tab))} at its peak, ${mb(megabytes(tab))} with the first results`);
} finally {
  await context.close();
  await server.close();
  rmSync(profile, { recursive: true, force: true });
}
