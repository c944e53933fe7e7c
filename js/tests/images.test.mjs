// Images on a ViT, against what transformers and PEFT made of them.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { load } from '../dist/node.js';
import * as tiny from './tiny.mjs';

const golden = new URL('../../tests/golden/', import.meta.url);
const folder = (path) => new Map(readdirSync(new URL(path, golden)).map((name) => [name, readFileSync(new URL(path + name, golden))]));

/** The floats of a tensor in a safetensors file. */
function floats(path, name) {
  const file = new Uint8Array(readFileSync(new URL(path, golden)));
  const header = Number(new DataView(file.buffer).getBigUint64(0, true));
  const { data_offsets } = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + header)))[name];
  return new Float32Array(file.slice(8 + header + data_offsets[0], 8 + header + data_offsets[1]).buffer);
}

/** The images of a case, and the class token that the library gave for the first, normalised. */
function expected(path) {
  const all = floats(`${path}/pixels.safetensors`, 'pixel_values');
  const token = floats(`${path}/expected.safetensors`, 'last_hidden_state.0').subarray(0, 32);
  const norm = Math.hypot(...token);
  return { pixels: all.slice(0, 3 * 12 * 12), token: token.map((x) => x / norm) };
}

let model;
const plain = expected('base-families/vit/plain');
const tuned = expected('peft/on_vit/lora');
before(async () => {
  model = await load(folder('bases-pixels/vit/'));
  await model.loadAdapter('a', folder('peft/on_vit/lora/adapter/'));
});
after(() => model.dispose());

const near = (a, b) => a.forEach((x, i) => assert.ok(Math.abs(x - b[i]) < 5e-4, `${x} and ${b[i]}`));

test('images of one call take adapters of their own, as the library computes them', async () => {
  assert.deepEqual(model.info.image, { channels: 3, height: 12, width: 12 });
  const pictures = [plain, tuned].map(({ pixels }) => ({ pixels }));
  const { embeddings, width, timing } = await model.embed(pictures, {
    adapters: (picture, i) => (assert.equal(picture, pictures[i]), i === 1 ? 'a' : null),
  });
  assert.equal(width, 32);
  assert.equal(timing.tokens, 20);
  near(embeddings[0], plain.token);
  near(embeddings[1], tuned.token);
  // Nothing is remembered of an image that another could be given.
  near((await model.embed({ pixels: tuned.pixels }, { adapters: 'a' })).embeddings[0], tuned.token);
  near((await model.embed({ pixels: plain.pixels })).embeddings[0], plain.token);
});

test('a head of an adapter, and of a base, says what the library says of images', async () => {
  await model.loadAdapter('h', folder('hub/vit/head_image/adapter/'));
  const all = floats('hub/vit/head_image/pixels.safetensors', 'pixel_values');
  const wanted = [0, 1].map((i) => floats('hub/vit/head_image/expected.safetensors', `logits.${i}`));
  const pictures = wanted.map((_, i) => ({ pixels: all.slice(i * 432, (i + 1) * 432) }));
  const { results, truncated } = await model.classify(pictures, { adapters: 'h' });
  assert.deepEqual([results.length, truncated], [2, []]);
  results.forEach(({ logits, labels }, i) => {
    assert.deepEqual([logits.length, labels], [wanted[i].length, wanted[i].length]);
    near(logits, wanted[i]);
  });
  await assert.rejects(model.classify({ pixels: plain.pixels }), { code: 'HEAD_MISSING', message: /needs a head/ });
  const base = await load(folder('bases-pixels/vit_image/'));
  const { pixels } = { pixels: floats('base-families/vit/image/pixels.safetensors', 'pixel_values').slice(0, 432) };
  near((await base.classify({ pixels })).results[0].logits, floats('base-families/vit/image/expected.safetensors', 'logits.0'));
  await base.dispose();
});

test('what is no image of this base is refused with what is wanted', async () => {
  const refused = (items, message) => assert.rejects(model.embed(items), { code: 'ARGUMENT', message });
  await refused('hot water', /images/);
  await refused([{ pixels: plain.pixels.subarray(1) }], /3 × 12 × 12/);
  await refused([{ pixels: plain.pixels }, { pixels: plain.pixels.subarray(1) }], /one size/);
  await refused([{ pixels: plain.pixels }, 'hot water'], /Float32Array/);
  await refused([{ pixels: [...plain.pixels] }], /Float32Array/);
  await refused([{ pixels: plain.pixels.map((x, i) => (i === 5 ? Number.NaN : x)) }], /number 5 of its image is NaN/);
  await assert.rejects(model.rerank({ query: 'hot', documents: ['water'] }), { code: 'ARGUMENT', message: /images/ });
  const text = await load(tiny.model());
  await assert.rejects(text.embed({ pixels: plain.pixels }), { code: 'ARGUMENT', message: /reads text/ });
  await text.dispose();
});
