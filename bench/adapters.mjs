// Random adapters in the folder formats of PEFT and AdapterHub, eight of each kind, for the measures that need many:
// `node bench/adapters.mjs`.
//
//   .cache/bench/adapters-random/qv8-0 … 7      r 8 on query and value
//   .cache/bench/adapters-random/all16-0 … 7    r 16 on all six linear layers
//   .cache/bench/adapters-random/bn16-0 … 7     bottlenecks after the feed-forward part, reduction 16 (Pfeiffer)
//
// f32, as `peft` saves them. Their numbers mean nothing; what they cost is what a trained one of that shape costs.
import { mkdir, writeFile } from 'node:fs/promises';
import { random, safetensors } from '../js/tests/tiny.mjs';
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

async function write(folder, { r, modules, target }, seed) {
  const next = random(seed);
  const tensors = [];
  for (let layer = 0; layer < layers; layer += 1) {
    for (const module of modules) {
      const [input, output] = widths[module];
      const name = `base_model.model.encoder.layer.${layer}.${module}`;
      // Small enough to leave the embedding near the base's.
      const draw = (n, scale) => Float32Array.from({ length: n }, () => next() * scale);
      tensors.push([`${name}.lora_A.weight`, [r, input], draw(r * input, 1 / Math.sqrt(input))]);
      tensors.push([`${name}.lora_B.weight`, [output, r], draw(output * r, 0.02)]);
    }
  }
  const config = { peft_type: 'LORA', base_model_name_or_path: 'multilingual-e5-small', bias: 'none', fan_in_fan_out: false, inference_mode: true, lora_alpha: 2 * r, lora_dropout: 0, r, target_modules: target, task_type: null };
  await mkdir(folder, { recursive: true });
  await writeFile(`${folder}/adapter_config.json`, `${JSON.stringify(config, null, 1)}\n`);
  await writeFile(`${folder}/adapter_model.safetensors`, safetensors(tensors, { format: 'pt' }));
}

/** A random LoRA of `kind`, `qv8` or `all16`, as a folder of PEFT's. */
export const lora = (folder, kind, seed) => write(folder, kinds[kind], seed);

/** A Pfeiffer bottleneck as AdapterHub saves it. */
async function bottleneck(folder, seed) {
  const next = random(seed);
  const draw = (n, scale) => Float32Array.from({ length: n }, () => next() * scale);
  const [hidden, inner, name] = [384, 24, 'bench'];
  const tensors = [];
  for (let layer = 0; layer < layers; layer += 1) {
    const path = `bert.encoder.layer.${layer}.output.adapters.${name}`;
    tensors.push([`${path}.adapter_down.0.weight`, [inner, hidden], draw(inner * hidden, 1 / Math.sqrt(hidden))]);
    tensors.push([`${path}.adapter_down.0.bias`, [inner], draw(inner, 0.02)]);
    tensors.push([`${path}.adapter_up.weight`, [hidden, inner], draw(hidden * inner, 0.02)]);
    tensors.push([`${path}.adapter_up.bias`, [hidden], draw(hidden, 0.02)]);
  }
  const config = {
    config: {
      mh_adapter: false, output_adapter: true, reduction_factor: 16, non_linearity: 'relu', original_ln_before: true, original_ln_after: true,
      residual_before_ln: true, adapter_residual_before_ln: false, ln_before: false, ln_after: false, is_parallel: false, scaling: 1.0,
    },
    hidden_size: hidden, model_class: 'BertAdapterModel', model_name: 'multilingual-e5-small', model_type: 'bert', name, version: 'adapters.1.3.0',
  };
  await mkdir(folder, { recursive: true });
  await writeFile(`${folder}/adapter_config.json`, `${JSON.stringify(config, null, 1)}\n`);
  await writeFile(`${folder}/adapter.safetensors`, safetensors(tensors, { format: 'pt' }));
}

/** Makes them unless they are there. */
export async function ensureAdapters() {
  const folder = `${home}/adapters-random`;
  await once('bench adapters', { inputs: ['bench/adapters.mjs', 'js/tests/tiny.mjs'], outputs: [folder] }, async () => {
    for (let i = 0; i < 8; i += 1) await bottleneck(at(folder, `bn16-${i}`), 400 + i);
    for (const [kind, spec] of Object.entries(kinds)) {
      for (let i = 0; i < 8; i += 1) await write(at(folder, `${kind}-${i}`), spec, 1000 * spec.r + i);
    }
  });
}

await runAsMain(import.meta, ensureAdapters);
