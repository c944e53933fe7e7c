// What is promised: the public types (js/api.d.ts), the codes (README.md, Rust), the package's files.
import assert from 'node:assert/strict';
import { readFile, readdir, writeFile } from 'node:fs/promises';
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
  for (const path of paths) assert.ok((await readFile(at(path))).length > 0, path);
  const dist = await readdir(at('dist'));
  for (const name of dist.filter((n) => n.endsWith('.js'))) {
    // A bundler of pages must never meet a module of Node.
    const source = await text(`dist/${name}`);
    if (!['cli.js', 'disk.js', 'node.js'].includes(name)) assert.doesNotMatch(source, /from 'node:|disk\.js|node\.js'/, name);
  }
});
