// npx polygraft quantize, in a process of its own.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { load } from '../dist/node.js';
import * as tiny from './tiny.mjs';

const cli = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
const polygraft = (...args) => spawnSync(process.execPath, [cli, ...args], { encoding: 'utf8' });

let folder;
before(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'polygraft-'));
  await mkdir(path.join(folder, 'tiny'));
  for (const [name, bytes] of tiny.model()) await writeFile(path.join(folder, 'tiny', name), bytes);
});
after(() => rm(folder, { recursive: true, force: true }));

test('a model is quantized into a folder that loads and agrees', async () => {
  const cosine = {};
  const texts = tiny.texts(5);
  const whole = await load(path.join(folder, 'tiny'), { precision: 'exact' });
  const wanted = await whole.embed(texts);
  for (const bits of ['4', '8', '16']) {
    const out = path.join(folder, `q${bits}`);
    const done = polygraft('quantize', '--bits', bits, path.join(folder, 'tiny'), out);
    assert.equal(done.status, 0, done.stderr);
    assert.match(done.stderr, /wrote .* MB/);
    assert.deepEqual((await readdir(out)).sort(), ['config.json', 'model.safetensors', 'polygraft.json', 'tokenizer.kit']);
    const model = await load(out, { precision: 'exact' });
    assert.equal(model.info.name, 'tiny');
    assert.equal(model.info.lineage, whole.info.lineage);
    const { embeddings } = await model.embed(texts);
    const each = embeddings.map((row, i) => row.reduce((sum, x, j) => sum + x * wanted.embeddings[i][j], 0));
    cosine[bits] = Math.min(...each);
    await model.dispose();
  }
  await whole.dispose();
  assert.ok(cosine[16] > 0.99999 && cosine[8] > 0.999 && cosine[4] > 0.9, JSON.stringify(cosine));
  assert.ok(cosine[16] >= cosine[8] && cosine[8] >= cosine[4], JSON.stringify(cosine));
});

test('what is wrong is said in a line, with exit code 2 for usage', () => {
  assert.match(polygraft('--help').stdout, /Usage: polygraft quantize/);
  const status = (expected, pattern, ...args) => {
    const done = polygraft(...args);
    assert.equal(done.status, expected, done.stderr);
    assert.match(done.stderr, pattern);
    assert.doesNotMatch(done.stderr, /\n\s+at /);
  };
  status(2, /no command convert/, 'convert');
  status(2, /needs SRC and OUT/, 'quantize', 'x');
  status(2, /--bits 5/, 'quantize', '--bits', '5', 'a', 'b');
  status(2, /--bit/, 'quantize', '--bit', '4', 'a', 'b');
  status(2, /exists; --force/, 'quantize', path.join(folder, 'tiny'), folder);
  status(1, /gone is not there/, 'quantize', path.join(folder, 'gone'), path.join(folder, 'out'));
});
