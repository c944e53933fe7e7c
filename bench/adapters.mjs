// Random LoRAs in PEFT's folder format, eight of each kind, for the measures that need many: `node bench/adapters.mjs`.
//
//   .cache/bench/adapters-random/qv8-0 … 7      r 8 on query and value
//   .cache/bench/adapters-random/all16-0 … 7    r 16 on all six linear layers
//
// f32, as `peft` saves them. Their numbers mean nothing; what they cost is what a trained one of that shape costs.
import { mkdir, writeFile } from 'node:fs/promises';
import { at, once, runAsMain } from '../scripts/lib.mjs';
import { home } from './peers.mjs';

const layers = 12;
const widths = {
  'attention.self.query': [384, 384], 'attention.self.key': [384, 384], 'attention.self.value': [384, 384],
  'attention.output.dense': [384, 384], 'intermediate.dense': [384, 1536], 'output.dense': [1536, 384],
};
const kinds = {
  qv8: { r: 8, modules: ['attention.self.query', 'attention.self.value'], target: ['query', 'value'] },
  all16: { r: 16, modules: Object.keys(widths), target: ['query', 'key', 'value', 'attention.output.dense', 'intermediate.dense', 'output.dense'] },
};

/** Numbers between −1 and 1, the same on every machine (mulberry32). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

function safetensors(tensors) {
  const header = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const { name, shape, data } of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  let text = JSON.stringify(header);
  text += ' '.repeat((8 - (text.length % 8)) % 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, Buffer.from(text), ...tensors.map(({ data }) => Buffer.from(data.buffer))]);
}

async function write(folder, { r, modules, target }, seed) {
  const random = generator(seed);
  const tensors = [];
  for (let layer = 0; layer < layers; layer += 1) {
    for (const module of modules) {
      const [input, output] = widths[module];
      const name = `base_model.model.encoder.layer.${layer}.${module}`;
      // Small enough to leave the embedding near the base's.
      const draw = (n, scale) => Float32Array.from({ length: n }, () => random() * scale);
      tensors.push({ name: `${name}.lora_A.weight`, shape: [r, input], data: draw(r * input, 1 / Math.sqrt(input)) });
      tensors.push({ name: `${name}.lora_B.weight`, shape: [output, r], data: draw(output * r, 0.02) });
    }
  }
  const config = { peft_type: 'LORA', base_model_name_or_path: 'multilingual-e5-small', bias: 'none', fan_in_fan_out: false, inference_mode: true, lora_alpha: 2 * r, lora_dropout: 0, r, target_modules: target, task_type: null };
  await mkdir(folder, { recursive: true });
  await writeFile(`${folder}/adapter_config.json`, `${JSON.stringify(config, null, 1)}\n`);
  await writeFile(`${folder}/adapter_model.safetensors`, safetensors(tensors));
}

/** Makes them unless they are there. */
export async function ensureAdapters() {
  const folder = `${home}/adapters-random`;
  await once('bench adapters', { inputs: ['bench/adapters.mjs'], outputs: [folder] }, async () => {
    for (const [kind, spec] of Object.entries(kinds)) {
      for (let i = 0; i < 8; i += 1) await write(at(folder, `${kind}-${i}`), spec, 1000 * spec.r + i);
    }
  });
}

await runAsMain(import.meta, ensureAdapters);
