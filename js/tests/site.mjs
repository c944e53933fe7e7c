// A site for the tests in Chromium: what it answers is the test's business, how pages are served and watched is not.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const types = { '.js': 'text/javascript', '.wasm': 'application/wasm', '.html': 'text/html' };
const policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'";
const found = [process.env.POLYGRAFT_CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'].find((file) => file && existsSync(file));

/** An empty page. */
export const blank = { bytes: '<!doctype html><title>polygraft</title>', type: 'text/html' };

/** The folder of the built package. */
export const dist = fileURLToPath(new URL('../dist', import.meta.url));

/** A file of a folder on disk; undefined when it is not there. */
export const fileIn = (folder, name) => readFile(path.join(folder, name)).catch(() => undefined);

/**
 * Serves what `answer(pathname, request)` gives, `{ bytes, type?, headers? }` (no bytes: 404), under a strict policy, and
 * starts a browser with `args`.
 */
export async function open(answer, args = []) {
  assert.ok(found, 'no Chromium: set POLYGRAFT_CHROMIUM');
  const server = http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://x');
    const { bytes, type, headers } = await answer(pathname, request);
    if (!bytes) return response.writeHead(404).end();
    const kind = type ?? types[path.extname(pathname)] ?? 'application/octet-stream';
    response.writeHead(200, { 'Content-Type': kind, 'Content-Security-Policy': policy, ...headers }).end(bytes);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const browser = await chromium.launch({ executablePath: found, args: ['--no-sandbox', ...args] });
  return {
    /** Runs `work` in a fresh page, after the script `init` and beside `meanwhile`; an error on the page fails the test. */
    async onPage(work, argument, { address = '/', init, meanwhile } = {}) {
      const context = await browser.newContext();
      const page = await context.newPage();
      const errors = [];
      page.on('pageerror', (error) => errors.push(error.message));
      if (init) await page.addInitScript(init);
      await page.goto(`http://127.0.0.1:${server.address().port}${address}`);
      try {
        const [value] = await Promise.all([page.evaluate(work, argument), meanwhile?.(page)]);
        assert.deepEqual(errors, []);
        return value;
      } finally {
        await context.close();
      }
    },
    async close() {
      await browser.close();
      server.closeAllConnections();
      server.close();
    },
  };
}
