// The demo page in Chromium, as a visitor uses it: asked before the download, ranked while typing, chips, drops.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { serve } from '../../scripts/serve.mjs';

const found = [process.env.POLYGRAFT_CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'].find((file) => file && existsSync(file));
const adapter = (name) => fileURLToPath(new URL(`../../adapters/${name}`, import.meta.url));
const minutes = 60_000;

let server, browser, context, page;
const requests = [];
const errors = [];

before(async () => {
  assert.ok(found, 'no Chromium: set POLYGRAFT_CHROMIUM');
  server = await serve({ port: 0 });
  browser = await chromium.launch({ executablePath: found, args: ['--no-sandbox'] });
  context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce' });
  context.on('request', (request) => requests.push(request.url()));
  page = await context.newPage();
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  await page.goto(server.url);
});
after(async () => {
  await browser?.close();
  await server?.close();
});

const order = () => page.locator('#list .row').evaluateAll((rows) => rows.map((row) => row.dataset.id));
const settled = (key, timeout = 10 * minutes) => page.waitForFunction((wanted) => document.body.dataset.ranked === wanted, key, { timeout });
const chip = (name) => page.locator(`[data-switch="${name}"]`);

/** Waits until the list differs from `from`; gives the new one. */
async function changed(from) {
  await page.waitForFunction(
    (old) => {
      const now = [...document.querySelectorAll('#list .row')].map((row) => row.dataset.id).join();
      return now !== '' && now !== old;
    },
    from.join(),
    { timeout: minutes },
  );
  return order();
}

/** Drops files onto the page. `files`: `[name, bytes]`. */
const drop = (files) =>
  page.evaluate((all) => {
    const dataTransfer = new DataTransfer();
    for (const [name, bytes] of all) dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
    document.body.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
  }, files.map(([name, bytes]) => [name, [...bytes]]));

test('asks before it downloads, with the size', async () => {
  await page.waitForFunction(() => /^\d+ MB$/.test(document.getElementById('gate-size').textContent));
  assert.ok(await page.locator('#start').isVisible());
  assert.deepEqual(requests.filter((url) => /\/model\.safetensors|tokenizer\.kit|\.wasm$/.test(url)), []);
  assert.match(await page.locator('#gate').innerText(), /kept in this browser/);
});

test('the first ranking, with the right answer marked', async (t) => {
  const start = Date.now();
  await page.locator('#start').click();
  await page.locator('#list .row').first().waitFor({ timeout: 5 * minutes });
  t.diagnostic(`first ranking ${Date.now() - start} ms after the click`);
  assert.ok((await page.locator('#list .badge.right:visible').count()) > 0);
  assert.equal(await page.locator('#answers .pill').count(), 10);
  assert.match(await page.locator('#lang option').first().innerText(), /Hungarian/);
  await settled('base 250');
  t.diagnostic(`all passages ${Date.now() - start} ms after the click`);
  assert.match(await page.locator('#status').innerText(), /Ranked 250 passages in/);
  const rows = page.locator('#list .row');
  assert.equal(await rows.count(), 10);
  assert.equal(await rows.first().locator('.text').getAttribute('lang'), await rows.first().getAttribute('data-lang'));
  assert.match(await page.locator('#device').innerText(), /worker/);
});

test('a chip changes the order at once, and back', async (t) => {
  const first = await order();
  const start = Date.now();
  await chip('passageVectors').click();
  const second = await changed(first);
  t.diagnostic(`switched in ${Date.now() - start} ms`);
  assert.notDeepEqual(second, first);
  assert.equal(await chip('passageVectors').getAttribute('aria-pressed'), 'false');
  await chip('passageVectors').click();
  assert.deepEqual(await changed(second), first);
});

test('ranks while one types; the last text wins', async () => {
  const from = await order();
  await page.locator('#query').fill('');
  await page.locator('#query').pressSequentially('Wie drucke ich Adressaufkleber für alle meine Kontakte?', { delay: 25 });
  await changed(from);
  await page.waitForFunction(() => document.querySelector('#list .row.is-right') !== null);
  assert.match(await page.locator('#compositions .composition').first().innerText(), /de/);
  await page.locator('#query').fill('print on both sides of the sheet');
  await page.waitForFunction(() => document.querySelector('#list .row.is-right') === null);
  assert.match(await page.locator('#answers').innerText(), /languages/);
  await page.locator('#query').fill('');
  await page.waitForFunction(() => document.querySelectorAll('#list .row').length === 0);
  assert.match(await page.locator('#status').innerText(), /Type a query/);
  await page.locator('.example').first().click();
  await page.locator('#list .row').first().waitFor();
});

test('chips can be reached and used with the keyboard, and show it', async () => {
  await page.locator('#query').focus();
  let reached = false;
  for (let i = 0; i < 30 && !reached; i += 1) {
    await page.keyboard.press('Tab');
    reached = await page.evaluate(() => document.activeElement.dataset.switch === 'passageVectors');
  }
  assert.ok(reached, 'Tab never came to the chip');
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'none');
  const first = await order();
  await page.keyboard.press('Space');
  const second = await changed(first);
  await page.keyboard.press('Enter');
  await changed(second);
  assert.equal(await page.evaluate(() => document.activeElement.dataset.switch), 'passageVectors');
});

test('right to left', async () => {
  const from = await order();
  await page.locator('.example[lang="ar"]').click();
  await changed(from);
  assert.equal(await page.locator('#query').evaluate((input) => getComputedStyle(input).direction), 'rtl');
  assert.equal(await page.locator('.example[lang="ar"]').getAttribute('dir'), 'rtl');
});

test('a bad adapter is an error in words, a good one a chip', async () => {
  const header = JSON.stringify({ vector: { dtype: 'F32', shape: [3], data_offsets: [0, 12] }, __metadata__: { polygraft: '{"format":1,"kind":"language-vector","lang":"hu"}' } });
  const bad = Buffer.concat([Buffer.from(new BigUint64Array([BigInt(header.length)]).buffer), Buffer.from(header), Buffer.alloc(12)]);
  await drop([['narrow.safetensors', bad]]);
  const failed = page.locator('.report.failed').first();
  await failed.waitFor();
  assert.match(await failed.innerText(), /narrow\.safetensors was not loaded/);
  assert.match(await failed.locator('code').innerText(), /^[A-Z_]+$/);
  assert.match(await failed.locator('.error-text').innerText(), /vector/);
  await drop([['notes.txt', Buffer.from('hello')]]);
  await page.waitForFunction(() => document.querySelectorAll('.report.failed').length === 2);
  assert.equal(await page.locator('.own-item').count(), 0);

  await drop([['my own (hu).safetensors', await readFile(adapter('lang/base/hu.safetensors'))]]);
  await page.locator('.report.done').waitFor();
  assert.match(await page.locator('.report.done').innerText(), /Hungarian/);
  const own = page.locator('.own-item .chip');
  assert.equal(await own.getAttribute('aria-pressed'), 'true');
  assert.match(await page.locator('#compositions').innerText(), /my-own-hu/);
  await page.locator('.own-item .remove').click();
  await page.waitForFunction(() => document.querySelectorAll('.own-item').length === 0);
});

test('a PEFT folder becomes a chip', async () => {
  await page.locator('#folder').setInputFiles(adapter('rank-lora'));
  await page.locator('.report.done', { hasText: 'rank-lora' }).waitFor();
  assert.match(await page.locator('.report.done').first().innerText(), /lora/i);
  const own = page.locator('.own-item .chip');
  assert.match(await page.locator('#compositions').innerText(), /rank-lora/);
  assert.match(await page.locator('#work-text').innerText(), /through rank-lora/);
  await own.click();
  assert.equal(await own.getAttribute('aria-pressed'), 'false');
  await page.locator('.own-item .remove').click();
  await page.waitForFunction(() => document.querySelectorAll('.own-item').length === 0);
  await page.waitForTimeout(300);
  assert.ok(await page.locator('#problem').isHidden(), await page.locator('#problem').innerText());
});

test('the fifty queries: gains first, losses last, none left out', async (t) => {
  await page.locator('#fifty-run').click();
  await page.locator('#fifty-out').waitFor({ timeout: 5 * minutes });
  t.diagnostic((await page.locator('#fifty-summary').innerText()).replace(/\s+/g, ' '));
  const rows = await page.locator('#fifty-rows tr').evaluateAll((all) => all.map((row) => [...row.cells].map((cell) => cell.innerText)));
  assert.equal(rows.length, 50);
  const gains = rows.map((row) => Number(row[2]) - Number(row[3]));
  assert.deepEqual(gains, [...gains].sort((a, b) => b - a));
  assert.match(await page.locator('#fifty-status').innerText(), /50 queries/);
});

test('nothing is wider than a narrow window', async () => {
  for (const width of [320, 360, 768, 1280]) {
    await page.setViewportSize({ width, height: 800 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wide, 0, `${width} px`);
  }
});

test('the ranking adapter: progress, its own vectors, another order', async (t) => {
  await page.locator('.example').first().click();
  await page.waitForFunction(() => document.querySelector('#query').value.startsWith('Hogyan'));
  await page.waitForTimeout(500);
  const from = await order();
  const start = Date.now();
  await chip('rank').click();
  // All three at one moment: it may be over in less than a second.
  await page.waitForFunction(
    () => {
      const shown = (id) => document.getElementById(id).textContent;
      return /through rank/.test(shown('work-text')) && /\d %/.test(shown('work-left')) && /Still without rank/.test(shown('notes'));
    },
    null,
    { timeout: minutes },
  );
  // Off and on again in the midst of it: given up, and taken up where it was.
  await chip('rank').click();
  await chip('rank').click();
  await settled('rank 250');
  t.diagnostic(`read through the ranking adapter in ${Date.now() - start} ms`);
  assert.notDeepEqual(await order(), from);
  assert.equal(await page.locator('#compositions code').first().innerText(), 'stack(hu.rank, rank)');
  assert.equal(await page.locator('#notes li').count(), 0, await page.locator('#notes').innerText());
  const again = Date.now();
  await chip('rank').click();
  await settled('base 250');
  t.diagnostic(`back in ${Date.now() - again} ms`);
});

test('the twin of one bit: bytes on both chips, one of the two at a time, its own ranking', async (t) => {
  const kilobytes = async (name) => Number(/(\d+) kB/.exec(await chip(name).innerText())?.[1]);
  assert.equal(await kilobytes('rank1'), 22);
  assert.ok((await kilobytes('rank')) > 290, await chip('rank').innerText());
  const from = await order();
  const start = Date.now();
  await chip('rank1').click();
  await settled('rank1 250');
  t.diagnostic(`read through the twin in ${Date.now() - start} ms`);
  assert.notDeepEqual(await order(), from);
  assert.equal(await page.locator('#compositions code').first().innerText(), 'stack(hu.rank1, rank1)');
  assert.equal(await page.locator('#notes li').count(), 0, await page.locator('#notes').innerText());
  assert.match(await page.locator('#device').innerText(), /Adapter rank1\s+\d+ kB in memory/);
  await chip('rank').click();
  await settled('rank 250');
  assert.equal(await chip('rank1').getAttribute('aria-pressed'), 'false');
  await chip('rank').click();
  await settled('base 250');
});

test('a hundred adapters in memory, sixteen of them in one batch', async (t) => {
  await page.locator('#hundred-run').click();
  await page.locator('#hundred-out').waitFor({ timeout: 5 * minutes });
  const figures = (await page.locator('#hundred-summary').innerText()).replace(/\s+/g, ' ');
  t.diagnostic(figures);
  const megabytes = Number(/100 adapters in memory ([\d.]+) MB/.exec(figures)?.[1]);
  assert.ok(megabytes > 1.8 && megabytes <= 2.5, figures);
  const table = () => page.locator('#hundred-rows tr').evaluateAll((all) => all.map((row) => [row.cells[0].innerText, Number(row.dataset.cosine)]));
  const first = await table();
  assert.equal(first.length, 16);
  assert.ok(first[0][1] > 0.999, `${first[0]}`);
  const cosines = first.map(([, cosine]) => cosine);
  // More bits turned: farther away; each adapter its own.
  assert.equal(new Set(cosines).size, 16);
  assert.ok(cosines[1] > cosines[15] && cosines[15] < 0.97, cosines.join());
  await page.setViewportSize({ width: 320, height: 800 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, '320 px');
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.locator('#hundred-run').click();
  await page.waitForFunction((name) => document.querySelectorAll('#hundred-rows tr')[1].cells[0].innerText !== name, first[1][0]);
  await page.locator('#hundred-drop').click();
  await page.locator('#hundred-out').waitFor({ state: 'hidden' });
  assert.match(await page.locator('#hundred-status').innerText(), /unloaded/);
});

test('the second visit starts by itself, from this browser', async (t) => {
  await page.close();
  const before = requests.length;
  page = await context.newPage();
  page.on('pageerror', (error) => errors.push(error.message));
  const start = Date.now();
  await page.goto(server.url);
  await page.locator('#list .row').first().waitFor({ timeout: 5 * minutes });
  t.diagnostic(`first ranking ${Date.now() - start} ms after the visit`);
  assert.deepEqual(requests.slice(before).filter((url) => /\/model\.safetensors|tokenizer\.kit/.test(url)), []);
});

test('a model that cannot be had is said in words, and can be tried again', async () => {
  const other = await browser.newContext();
  const blocked = await other.newPage();
  await blocked.route('**/model.safetensors', (route) => route.fulfill({ status: 404, body: 'no' }));
  await blocked.goto(server.url);
  await blocked.locator('#start').click();
  await blocked.locator('#problem').waitFor();
  assert.match(await blocked.locator('#problem').innerText(), /could not be loaded[\s\S]*FETCH[\s\S]*404/);
  assert.equal(await blocked.locator('#start').innerText(), 'Try again');
  await other.close();
});

test('nothing went anywhere else, and nothing went wrong', () => {
  const others = requests.filter((url) => !url.startsWith(server.url) && !url.startsWith('data:'));
  assert.deepEqual(others, []);
  assert.deepEqual(errors, []);
});
