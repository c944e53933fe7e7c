// The end of WebAssembly's stack, which is no RuntimeError, and what only reads like it. In a file, and so in a process,
// of its own: the instance is of no more use in the end.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load, PolygraftError } from '../dist/node.js';
import * as tiny from './tiny.mjs';

const { Instance, Module } = WebAssembly;
let start;
WebAssembly.Instance = function (module, imports) {
  const { exports } = new Instance(module, imports);
  return { exports: { ...exports, model_start: (...args) => (start ?? exports.model_start)(...args) } };
};

/** A module whose only function calls itself. */
const overflow = () =>
  new Instance(new Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 6, 1, 4, 0, 16, 0, 11))).exports.f();
const deep = () => deep();

test('a message that speaks of recursion ends nothing, before WebAssembly is there or after', async () => {
  await assert.rejects(load('/nowhere/recursion'), { code: 'FILE_MISSING' });
  const model = await load(tiny.model());
  await assert.rejects(model.embed('some water', { adapters: 'recursion' }), { code: 'ADAPTER_UNKNOWN' });
  const nested = tiny.lora();
  nested.set('adapter_config.json', new TextEncoder().encode(`{"peft_type": ${'['.repeat(200)}${']'.repeat(200)}}`));
  await assert.rejects(model.loadAdapter('nested', nested), { code: 'FORMAT_JSON', message: /recursion/ });
  assert.equal((await model.embed('some water')).width, 32);
  await model.dispose();
});

test("a full stack is OUT_OF_MEMORY; only WebAssembly's ends the engine", async () => {
  const model = await load(tiny.model());
  const told = (error) => error instanceof PolygraftError && error.code === 'OUT_OF_MEMORY' && /call stack/.test(error.message);
  start = deep;
  await assert.rejects(model.embed('some water'), told);
  start = undefined;
  assert.equal((await model.embed('some water')).width, 32);
  start = overflow;
  await assert.rejects(model.embed('some water'), (error) => told(error) && /the engine stopped/.test(error.message) && /load it again/.test(error.hint));
  start = undefined;
  await assert.rejects(model.embed('some water'), told);
  await model.dispose();
});
