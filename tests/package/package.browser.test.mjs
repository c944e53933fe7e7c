// The package as strangers get it, on the real model, to the first score: in Node from the packed tarball, in a fresh
// Vite app made from it, and from a plain <script type=module>, cross-origin isolated or not.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';
import { build } from 'vite';
import { serve } from '../../scripts/serve.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const found = [process.env.POLYGRAFT_CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'].find((f) => f && existsSync(f));
const query = 'Wie friere ich die erste Zeile ein?';
const documents = ['Freeze rows and columns as headers', 'A recipe for apple pie', 'Az első sor rögzítése görgetéskor'];
// What every environment runs; the answer is the same everywhere.
const program = `
  const model = await load(address);
  await model.loadAdapter('rank', adapters + 'rank-lora');
  await model.loadAdapter('hu', adapters + 'lang/rank/hu.safetensors');
  const { results, scoring } = await model.rerank({
    query: ${JSON.stringify(query)},
    documents: ${JSON.stringify(documents)},
    adapters: { query: 'rank', document: (_, i) => (i === 2 ? 'stack(hu, rank)' : 'rank') },
  });
  // The packed twin, alone: a file where the other is a folder.
  await model.loadAdapter('rank1', adapters + 'rank-lora-1bit/rank-lora-1bit.safetensors');
  const twin = await model.rerank({ query: ${JSON.stringify(query)}, documents: ${JSON.stringify(documents)}, adapters: 'rank1' });
  await model.dispose();
  const answer = { scoring, results, twin: twin.results };`;

let work, browser, expected;
before(async () => {
  assert.ok(found, 'no Chromium: set POLYGRAFT_CHROMIUM');
  work = await mkdtemp(path.join(os.tmpdir(), 'polygraft-package-'));
  const [{ filename }] = JSON.parse(
    execFileSync('npm', ['pack', '--json', '--pack-destination', work], { cwd: path.join(root, 'js'), encoding: 'utf8' }),
  );
  // Unpacked as an installer would; the package has no dependencies and no scripts.
  const at = path.join(work, 'app/node_modules/polygraft');
  await mkdir(at, { recursive: true });
  execFileSync('tar', ['-xzf', path.join(work, filename), '-C', at, '--strip-components=1']);
  browser = await chromium.launch({ executablePath: found, args: ['--no-sandbox'] });
});
after(async () => {
  await browser?.close();
  await rm(work, { recursive: true, force: true });
});

test('Node, from the tarball', () => {
  const script = `
    import { load } from 'polygraft';
    const address = ${JSON.stringify(path.join(root, 'models/multilingual-e5-small'))};
    const adapters = ${JSON.stringify(pathToFileURL(path.join(root, 'adapters')).href + '/')};
    ${program}
    console.log(JSON.stringify(answer));`;
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], { cwd: path.join(work, 'app'), encoding: 'utf8' });
  expected = JSON.parse(out.trim().split('\n').at(-1));
  assert.equal(expected.scoring, 'cosine');
  assert.deepEqual(expected.results.map((r) => r.index).at(-1), 1, 'the pie comes last');
  assert.deepEqual(expected.twin.map((r) => r.index).at(-1), 1, 'the pie comes last');
});

/** Opens a page that sets `globalThis.answer` or `globalThis.failure`. */
async function answerOf(url) {
  const page = await browser.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(url);
  await page.waitForFunction('globalThis.answer || globalThis.failure', null, { timeout: 120_000 }).catch((error) => {
    throw new Error(`${error.message}: ${errors.join('; ')}`);
  });
  const state = await page.evaluate('({ answer: globalThis.answer, failure: globalThis.failure, isolated: crossOriginIsolated })');
  await page.close();
  assert.equal(state.failure, undefined, state.failure);
  assert.deepEqual(errors, []);
  return state;
}

const page = (head) => `<!doctype html><meta charset=utf-8><title>polygraft</title>${head}`;
const wrapped = (imports) => `${imports}
const address = '/models/multilingual-e5-small', adapters = '/adapters/';
try {${program}
  globalThis.answer = answer;
} catch (error) { globalThis.failure = String(error.code) + ': ' + error.message; }`;

/** The same ranking as in Node. Its build may be the other one: 8-bit activations then round here and there otherwise. */
function same(answer) {
  assert.equal(answer.scoring, expected.scoring);
  for (const key of ['results', 'twin']) {
    assert.deepEqual(answer[key].map((r) => r.index), expected[key].map((r) => r.index));
    const off = answer[key].map((r, i) => Math.abs(r.relevance_score - expected[key][i].relevance_score));
    assert.ok(Math.max(...off) <= 0.01, `${key}: scores are off by ${off}`);
  }
}

for (const isolated of [false, true]) {
  test(`a plain module script, ${isolated ? 'cross-origin isolated' : 'not isolated'}`, async () => {
    const { url, close } = await site(isolated, async (out) => {
      await cp(path.join(work, 'app/node_modules/polygraft/dist'), path.join(out, 'lib'), { recursive: true });
      await writeFile(path.join(out, 'index.html'), page('<script type="module" src="main.js"></script>'));
      await writeFile(path.join(out, 'main.js'), wrapped("import { load } from './lib/index.js';"));
    });
    const state = await answerOf(url);
    await close();
    assert.equal(state.isolated, isolated);
    same(state.answer);
  });
}

test('a fresh Vite app from the tarball', async () => {
  const app = path.join(work, 'app');
  await writeFile(path.join(app, 'index.html'), page('<script type="module" src="/main.js"></script>'));
  await writeFile(path.join(app, 'main.js'), wrapped("import { load } from 'polygraft';"));
  await build({ root: app, logLevel: 'error', build: { outDir: path.join(work, 'built'), target: 'esnext' } });
  const { url, close } = await site(false, (out) => cp(path.join(work, 'built'), out, { recursive: true }));
  const state = await answerOf(url);
  await close();
  same(state.answer);
});

/** The repository's own server with one more folder, filled for this test. */
async function site(isolated, fill) {
  const out = await mkdtemp(path.join(work, 'site-'));
  await fill(out);
  return serve({ port: 0, isolated, home: out });
}
