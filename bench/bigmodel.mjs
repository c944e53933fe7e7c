// A base of XLM-R-base's size and a stack for it in the layout of AdapterHub's language adapters, with random numbers:
// what they cost is what trained ones cost. Into the ignored cache: `node bench/bigmodel.mjs`.
//
//   .cache/bench/big/source       1.1 GB of f32 safetensors, vocabulary 250 002, hidden 768, 12 layers; tokenizer.json
//   .cache/bench/big/sharded      the same tensors in five shards with their index
//   .cache/bench/big/hi           bottleneck after the feed-forward part, reduction 2, with an invertible block (NICE)
//   .cache/bench/big/task         bottleneck, reduction 16
import { copyFile, mkdir, open, rm, writeFile } from 'node:fs/promises';
import { safetensors } from '../js/tests/tiny.mjs';
import { at, once, runAsMain, say } from '../scripts/lib.mjs';
import { ensureSource } from '../scripts/model.mjs';

export const bigHome = '.cache/bench/big';
const [vocab, hidden, ffn, layers, positions] = [250002, 768, 3072, 12, 514];

/** A million numbers from a seed, nearly normal, as bytes of f32 with deviation 1; longer runs repeat them shifted. */
function pool(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Float32Array.from({ length: 1_000_003 }, () => (uniform() + uniform() + uniform() + uniform() - 2) * Math.sqrt(3));
}

/** `n` numbers from the pool, from `start` on, times `scale` plus `shift`. */
function draw(numbers, n, start, scale, shift = 0) {
  const out = new Float32Array(n);
  for (let i = 0; i < n; i += 1) out[i] = numbers[(start + i) % numbers.length] * scale + shift;
  return out;
}

/** Name and shape of every tensor. */
function tensors() {
  const out = [
    ['embeddings.word_embeddings.weight', [vocab, hidden]],
    ['embeddings.position_embeddings.weight', [positions, hidden]],
    ['embeddings.token_type_embeddings.weight', [1, hidden]],
    ['embeddings.LayerNorm.weight', [hidden]],
    ['embeddings.LayerNorm.bias', [hidden]],
  ];
  for (let layer = 0; layer < layers; layer += 1) {
    const path = `encoder.layer.${layer}`;
    const linear = (name, rows, cols) => out.push([`${path}.${name}.weight`, [rows, cols]], [`${path}.${name}.bias`, [rows]]);
    const norm = (name) => out.push([`${path}.${name}.weight`, [hidden]], [`${path}.${name}.bias`, [hidden]]);
    for (const name of ['query', 'key', 'value']) linear(`attention.self.${name}`, hidden, hidden);
    linear('attention.output.dense', hidden, hidden);
    norm('attention.output.LayerNorm');
    linear('intermediate.dense', ffn, hidden);
    linear('output.dense', hidden, ffn);
    norm('output.LayerNorm');
  }
  return out;
}

/** Writes some of the tensors into one file, a piece at a time. */
async function write(file, list, numbers) {
  const header = {};
  let end = 0;
  const sizes = list.map(([name, shape]) => {
    const n = shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: 'F32', shape, data_offsets: [end, (end += n * 4)] };
    return n;
  });
  const text = JSON.stringify(header);
  const head = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const out = await open(file, 'w');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(head.length));
  await out.write(length);
  await out.write(head);
  for (const [k, [name]] of list.entries()) {
    const gain = name.endsWith('LayerNorm.weight');
    for (let done = 0; done < sizes[k]; done += 1 << 20) {
      const n = Math.min(1 << 20, sizes[k] - done);
      const values = draw(numbers, n, (name.length * 7919 + done * 31 + k * 104729) % numbers.length, gain ? 0.1 : 0.03, gain ? 1 : 0);
      await out.write(new Uint8Array(values.buffer));
    }
  }
  await out.close();
  return end;
}

async function config(folder) {
  const settings = {
    architectures: ['XLMRobertaModel'], model_type: 'xlm-roberta', vocab_size: vocab, hidden_size: hidden, num_hidden_layers: layers,
    num_attention_heads: 12, intermediate_size: ffn, hidden_act: 'gelu', max_position_embeddings: positions, type_vocab_size: 1,
    layer_norm_eps: 1e-5, pad_token_id: 1, bos_token_id: 0, eos_token_id: 2, position_embedding_type: 'absolute',
  };
  await mkdir(folder, { recursive: true });
  await writeFile(`${folder}/config.json`, `${JSON.stringify(settings, null, 1)}\n`);
}

/** An adapter in AdapterHub's folder format. */
async function adapter(folder, name, reduction, invertible, numbers) {
  const inner = hidden / reduction;
  let start = inner;
  const list = [];
  const add = (path, rows, cols, scale) => {
    list.push([`${path}.weight`, [rows, cols], draw(numbers, rows * cols, (start += 104729), scale)]);
    list.push([`${path}.bias`, [rows], draw(numbers, rows, (start += 7919), 0.02)]);
  };
  for (let layer = 0; layer < layers; layer += 1) {
    const path = `roberta.encoder.layer.${layer}.output.adapters.${name}`;
    add(`${path}.adapter_down.0`, inner, hidden, 1 / Math.sqrt(hidden));
    add(`${path}.adapter_up`, hidden, inner, 0.02);
  }
  const half = hidden / 2;
  for (const net of invertible ? ['F', 'G'] : []) {
    add(`roberta.invertible_adapters.${name}.${net}.0`, half / 2, half, 1 / Math.sqrt(half));
    add(`roberta.invertible_adapters.${name}.${net}.2`, half, half / 2, 0.02);
  }
  const settings = {
    config: {
      mh_adapter: false, output_adapter: true, reduction_factor: reduction, non_linearity: 'relu', original_ln_before: true, original_ln_after: true,
      residual_before_ln: true, adapter_residual_before_ln: false, ln_before: false, ln_after: false, is_parallel: false, scaling: 1.0, leave_out: [],
      inv_adapter: invertible ? 'nice' : null, inv_adapter_reduction_factor: invertible ? 2 : null,
    },
    hidden_size: hidden, model_class: 'XLMRobertaAdapterModel', model_name: 'xlm-roberta-base', model_type: 'xlm-roberta', name, version: 'adapters.1.3.0',
  };
  await mkdir(folder, { recursive: true });
  await writeFile(`${folder}/adapter_config.json`, `${JSON.stringify(settings, null, 1)}\n`);
  await writeFile(`${folder}/adapter.safetensors`, safetensors(list, { format: 'pt' }));
}

/** Makes all of it, unless it is there. */
export async function ensureBig() {
  await ensureSource();
  const folder = (name) => at(bigHome, name);
  await once('bench big model', { inputs: ['bench/bigmodel.mjs', 'js/tests/tiny.mjs'], outputs: [bigHome] }, async () => {
    await rm(at(bigHome), { recursive: true, force: true });
    const numbers = pool(1);
    const list = tensors();
    for (const name of ['source', 'sharded']) {
      await config(folder(name));
      await copyFile(at('.cache/source/multilingual-e5-small/tokenizer.json'), `${folder(name)}/tokenizer.json`);
    }
    say(`the base: ${((await write(`${folder('source')}/model.safetensors`, list, numbers)) / 1e9).toFixed(2)} GB`);
    const map = {};
    let total = 0;
    for (let shard = 0; shard < 5; shard += 1) {
      const own = list.filter((_, i) => i % 5 === shard);
      const file = `model-0000${shard + 1}-of-00005.safetensors`;
      total += await write(`${folder('sharded')}/${file}`, own, numbers);
      for (const [name] of own) map[name] = file;
    }
    await writeFile(`${folder('sharded')}/model.safetensors.index.json`, JSON.stringify({ metadata: { total_size: total }, weight_map: map }));
    await adapter(folder('hi'), 'hi', 2, true, numbers);
    await adapter(folder('task'), 'task', 16, false, numbers);
  });
}

await runAsMain(import.meta, ensureBig);
