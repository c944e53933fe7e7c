// A defect of the engine: an error that says where, then more of the same. In a file, and so in a process, of its own.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { load, PolygraftError } from '../dist/node.js';
import * as tiny from './tiny.mjs';

const { Instance, Module } = WebAssembly;

/** A module whose only function is `unreachable`, as a panic is. */
const trap = () =>
  new Instance(new Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 5, 1, 3, 0, 0, 11))).exports.f();

test('a panic is INTERNAL and says in which function, for this call and every later one', async (t) => {
  let broken = false;
  t.mock.method(WebAssembly, 'Instance', function (module, imports) {
    const { exports } = new Instance(module, imports);
    return { exports: { ...exports, model_start: (...args) => (broken ? trap() : exports.model_start(...args)) } };
  });
  const model = await load(tiny.model());
  assert.equal((await model.embed('some water')).width, 32);
  broken = true;
  const told = (error) => error instanceof PolygraftError && error.code === 'INTERNAL' && /wasm-function\[0\]:0x/.test(error.message) && /report/.test(error.hint);
  await assert.rejects(model.embed('some water'), told);
  broken = false;
  await assert.rejects(model.embed('some water'), told);
  await model.dispose();
});

test('scripts/where.mjs names the functions of a trap', () => {
  const where = (...args) => spawnSync(process.execPath, [fileURLToPath(new URL('../../scripts/where.mjs', import.meta.url)), ...args], { encoding: 'utf8' });
  const { status, stdout } = where('wasm-function[500]:0x1 < wasm-function[99999999]');
  assert.equal(status, 0);
  assert.match(stdout, /^500 {2}(?!no such function)\S.*\n99999999 {2}no such function/);
  assert.equal(where('unreachable').status, 1);
});
