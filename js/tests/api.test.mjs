// What is promised: the public types (js/api.d.ts), the codes (README.md, Rust), the package's files.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as browser from '../dist/index.js';
import * as node from '../dist/node.js';

const at = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const text = (name) => readFile(at(name), 'utf8');

/** The public declarations, as tsc wrote them, in one file. */
async function snapshot() {
  const parts = ['// The public types of this package, from tsc: node js/tests/api.test.mjs --update writes this file anew.\n'];
  for (const name of ['index', 'errors', 'probe', 'types']) parts.push(`// ${name}.d.ts\n${(await text(`dist/${name}.d.ts`)).trim()}\n`);
  return parts.join('\n').replaceAll('\r\n', '\n');
}

if (process.argv.includes('--update')) await writeFile(at('api.d.ts'), await snapshot());

test('the public types are those of api.d.ts', async () => {
  assert.equal(await snapshot(), await text('api.d.ts'), 'the API changed: node js/tests/api.test.mjs --update, and say so in CHANGELOG.md');
});

test("a caller's TypeScript accepts what README.md shows, and refuses what it does not", async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'polygraft-'));
  try {
    const entry = JSON.stringify(at('dist/index.js'));
    const code = `import { load, probe, PolygraftError, type Composition, type Ranking } from ${entry};
      const model = await load('/models/x', { onProgress: (p) => p.loaded satisfies number });
      const tree: Composition = { stack: ['hu', { sum: ['a', { scale: 0.5, of: 'b' }], weights: [1, 2] }] };
      const docs = [{ text: 'a', id: 1 }, { text: 'b', id: 2 }];
      const ranking = await model.rerank({ query: 'q', documents: docs, adapters: { query: tree, document: (d, i) => (d.id > i ? 'x' : null) } });
      ranking satisfies Ranking<{ text: string; id: number }>;
      ranking.results[0]?.document?.id satisfies number | undefined;
      const index = await model.index(['a', 'b']);
      (await index.search('q', { topN: 1 })).results;
      for (const row of (await model.embed(['a'])).embeddings) row satisfies Float32Array;
      try { await probe(); } catch (e) { if (e instanceof PolygraftError && e.code === 'FETCH') throw e; }
      // @ts-expect-error a misspelt option
      await model.embed('a', { adapter: 'x' });
      // @ts-expect-error neither a document nor a text
      await model.rerank({ query: 'q', documents: [1] });
      for await (const _ of [new File([], 'a')]) await model.loadAdapter('x', [_]);
      export {};`;
    await writeFile(path.join(folder, 'caller.mts'), code);
    const flags = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', '--lib', 'es2022,dom,dom.iterable', '--types', ''];
    const tsc = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url));
    // Run where no tsconfig.json is: it would be asked about.
    const done = spawnSync(process.execPath, [tsc, ...flags, 'caller.mts'], { encoding: 'utf8', cwd: folder });
    assert.equal(done.status, 0, done.stdout);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('both entries export the same, and importing them touched nothing', () => {
  assert.deepEqual(Object.keys(browser).sort(), ['PolygraftError', 'errorCodes', 'load', 'probe']);
  assert.deepEqual(Object.keys(node).sort(), Object.keys(browser).sort());
});

test('README.md lists every code with its meaning, and no other', async () => {
  const rows = [...(await text('README.md')).matchAll(/^\| `([A-Z_]+)` \| (.*) \|$/gm)].map(([, code, meaning]) => [code, meaning]);
  assert.deepEqual(rows, Object.entries(node.errorCodes));
  assert.deepEqual(Object.keys(node.errorCodes), Object.keys(node.errorCodes).sort());
});

test('every code of the Rust crates is known here', async () => {
  for (const file of ['polygraft/src/error.rs', 'polygraft-formats/src/error.rs', 'polygraft-wasm/src/failure.rs']) {
    const source = await text(`../crates/${file}`);
    const codes = [...source.matchAll(/(?:=>|code:) "([A-Z_]+)"/g)].map(([, code]) => code);
    assert.ok(codes.length > 0, file);
    for (const code of codes) assert.ok(Object.hasOwn(node.errorCodes, code), `${code} of ${file}`);
  }
});

test('the package names files that are there', async () => {
  const { exports, bin, types } = JSON.parse(await text('package.json'));
  const paths = [types, ...Object.values(bin), ...Object.values(exports).flatMap((e) => (typeof e === 'string' ? [e] : Object.values(e)))];
  for (const file of paths) assert.ok((await readFile(at(file))).length > 0, file);
  const dist = await readdir(at('dist'));
  for (const name of dist.filter((n) => n.endsWith('.js'))) {
    // A bundler of pages must never meet a module of Node.
    const source = await text(`dist/${name}`);
    if (!['cli.js', 'disk.js', 'node.js'].includes(name)) assert.doesNotMatch(source, /from ["']node:|disk\.js|node\.js'/, name);
  }
});
