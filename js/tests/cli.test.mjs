// npx polygraft quantize, in a process of its own.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
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

test('a model at an address is saved, checked and quantized; nothing else is left', async () => {
  const site = await tiny.serve(tiny.listed());
  const from = (address) => {
    const child = spawn(process.execPath, [cli, 'quantize', address, path.join(folder, 'remote', 'q4')], { stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (text) => (stderr += text));
    return new Promise((resolve) => child.on('close', (status) => resolve({ status, stderr })));
  };
  try {
    const gone = await from(`${site.url}gone/`);
    assert.equal(gone.status, 1);
    assert.match(gone.stderr, /404/);
    const done = await from(site.url);
    assert.equal(done.status, 0, done.stderr);
  } finally {
    await site.close();
  }
  assert.deepEqual(await readdir(path.join(folder, 'remote')), ['q4']);
  const local = polygraft('quantize', path.join(folder, 'tiny'), path.join(folder, 'local'));
  assert.equal(local.status, 0, local.stderr);
  // The header has the model's name: that of the address, and that of the folder.
  const numbers = async (name) => {
    const bytes = await readFile(path.join(folder, name, 'model.safetensors'));
    return bytes.subarray(8 + Number(bytes.readBigUInt64LE()));
  };
  const [remote, here] = [await numbers('remote/q4'), await numbers('local')];
  assert.ok(remote.length > 1000 && remote.equals(here));
});

test('a folder that is not what its list promises is refused', async () => {
  const damaged = path.join(folder, 'damaged');
  await mkdir(damaged);
  for (const [name, bytes] of tiny.listed()) await writeFile(path.join(damaged, name), bytes);
  const bytes = await readFile(path.join(damaged, 'model.safetensors'));
  bytes[bytes.length - 3] ^= 1;
  await writeFile(path.join(damaged, 'model.safetensors'), bytes);
  const done = polygraft('quantize', damaged, path.join(folder, 'out'));
  assert.equal(done.status, 1);
  assert.match(done.stderr, /model\.safetensors has the SHA-256/);
  await rm(path.join(damaged, 'polygraft.json'));
  await rm(path.join(damaged, 'tokenizer.json'));
  const wordless = polygraft('quantize', damaged, path.join(folder, 'out'));
  assert.equal(wordless.status, 1);
  assert.match(wordless.stderr, /tokenizer\.json.*cannot read text/);
  assert.ok(!(await readdir(folder)).some((name) => name.startsWith('.') || name === 'out'));
});

test('a folder that holds the source or the working directory is not replaced; the source itself is', async () => {
  const around = path.join(folder, 'around');
  const inside = path.join(around, 'work');
  const source = path.join(around, 'tiny');
  await mkdir(inside, { recursive: true });
  await cp(path.join(folder, 'tiny'), source, { recursive: true });
  if (process.platform !== 'win32') await symlink(around, path.join(folder, 'link'));
  const refuses = (from, out, cwd = folder) => {
    const done = spawnSync(process.execPath, [cli, 'quantize', '--force', from, out], { encoding: 'utf8', cwd });
    assert.equal(done.status, 1, done.stderr);
    assert.match(done.stderr, /would be replaced as a whole, and it (is the working directory|holds .*to be converted)[^]*name of its own/);
  };
  refuses(source, '.', inside);
  refuses(source, '..', inside);
  refuses(path.join(folder, 'tiny'), `${inside}/`, inside);
  refuses(source, `${around}/`);
  refuses('around/tiny', 'around');
  refuses(path.join(source, 'model.safetensors'), source);
  if (process.platform !== 'win32') refuses('link/tiny', 'around');
  assert.deepEqual((await readdir(around)).sort(), ['tiny', 'work']);
  assert.equal((await readdir(source)).length, 3);
  assert.equal(polygraft('quantize', '--force', source, source).status, 0);
  assert.ok((await readdir(source)).includes('polygraft.json'));
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
  status(2, /exists; --force/, 'quantize', path.join(folder, 'tiny'), path.join(folder, 'tiny'));
  status(1, /gone is not there/, 'quantize', path.join(folder, 'gone'), path.join(folder, 'out'));
});
