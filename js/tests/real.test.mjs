// The demo's model, where set-up has made it: memory, sense, and the numbers of the command line.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { load } from '../dist/node.js';

const at = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const folder = at('models/multilingual-e5-small');
const native = ['target/release/polygraft', 'target/release/polygraft.exe'].map(at).find(existsSync);
const skip = existsSync(folder) ? false : `no ${folder}: npm run setup makes it`;

const query = 'Wie friere ich die erste Zeile ein?';
const documents = [
  'Az első sor rögzítése a táblázatban',
  'Rezept für Apfelkuchen',
  'To freeze the first row, choose View - Freeze Rows',
  'The weather is nice',
  '固定表格的第一行',
];

let model;
before(async () => {
  if (!skip) model = await load(folder);
});
after(() => model?.dispose());

test('the model takes less than twice its files in memory', { skip }, async () => {
  const names = await readdir(folder);
  const sizes = await Promise.all(names.map(async (name) => (await stat(path.join(folder, name))).size));
  const files = sizes.reduce((a, b) => a + b, 0);
  const { wasm } = await model.memory();
  assert.ok(wasm < 2 * files, `${wasm} bytes for files of ${files}`);
});

test('a German question finds the English answer first and the weather last', { skip }, async () => {
  const { results } = await model.rerank({ query, documents, adapters: null });
  assert.equal(results[0].index, 2);
  assert.equal(results.at(-1).index, 3);
});

test('the scores are those of the command line', { skip: skip || (native ? false : 'no target/release/polygraft') }, async () => {
  const work = await mkdtemp(path.join(os.tmpdir(), 'polygraft-'));
  try {
    const passages = path.join(work, 'passages.txt');
    await writeFile(passages, `${documents.join('\n')}\n`);
    const args = ['rerank', '--base', folder, '--query', query, '--passages', passages, '--json', '--precision', 'exact'];
    const done = spawnSync(native, args, { encoding: 'utf8' });
    assert.equal(done.status, 0, done.stderr);
    const wanted = JSON.parse(done.stdout).results;
    const { results } = await model.rerank({ query, documents, precision: 'exact' });
    for (const { index, relevance_score } of results) {
      const other = wanted.find((r) => r.index === index).relevance_score;
      assert.ok(Math.abs(relevance_score - other) < 1e-5, `passage ${index}: ${relevance_score} and ${other}`);
    }
    const fast = await model.rerank({ query, documents, precision: 'fast' });
    for (const { index, relevance_score } of fast.results) {
      const other = wanted.find((r) => r.index === index).relevance_score;
      assert.ok(Math.abs(relevance_score - other) < 0.02, `passage ${index}, 8 bits: ${relevance_score} and ${other}`);
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
});
