// What the demo page's tab takes, before the model is fetched, at its peak, and with the first results. Linux only.
//
//   node bench/memory.mjs
import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from '../scripts/serve.mjs';
import { withTab } from './tab.mjs';

const server = await serve({ port: 0 });
try {
  await withTab(async (page, watch) => {
    await page.goto(server.url);
    await page.waitForFunction(() => /^\d+ MB$/.test(document.getElementById('gate-size').textContent));
    await sleep(2000);
    const watching = watch();
    await page.locator('#gate button').first().click();
    await page.waitForSelector('#list .row', { timeout: 600_000 });
    await sleep(2000);
    await watching.end();
    const { before, peak, now } = watching.seen();
    const mb = (n) => `${n.toFixed(0)} MB`;
    console.log(`tab: ${mb(before)} before, ${mb(peak)} at its peak, ${mb(now)} with the first results`);
  });
} finally {
  await server.close();
}
