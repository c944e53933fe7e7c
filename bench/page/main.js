// The bench page: both engines, one active at a time. `npm run bench` opens it and calls `bench.measure`; the button
// does the same by hand, in whatever browser.
//
//   ?threads=N   threads of onnxruntime-web, fixed for the life of a page, and of polygraft where it has the option
//   ?ort=webgpu  onnxruntime-web's WebGPU build, and polygraft's `device: 'webgpu'`
import { batches } from './batches.js';
import { Ort, Polygraft } from './engines.js';
import { measures } from './measures.js';

const query = new URLSearchParams(location.search);
const threads = Number(query.get('threads') ?? 1);
const gpu = query.get('ort') === 'webgpu';
const texts = await (await fetch('texts.json')).json();
const reference = await (await fetch('reference.json')).json();
const log = (line) => {
  document.getElementById('log').textContent += `${line}\n`;
  console.log(line);
};

const running = new Map();
const context = {
  /** The batches of one set; they go on from one measure to the next, for polygraft remembers what it has seen. */
  feeds(set) {
    if (!running.has(set)) {
      running.set(set, batches(texts, set));
      running.get(set).next();
    }
    return running.get(set);
  },
  /** The set's first batch, the one that the f32 reference is of. */
  first: (set) => batches(texts, set).next().value,
  reference,
  log,
  threads,
  gpu,
  polygraft: new Polygraft({ threads, gpu }),
  ort: new Ort({ threads, gpu }),
  /** Where adapters made by bench/adapters.mjs are. */
  adapters: '/adapters-random/',
};

globalThis.bench = {
  names: Object.keys(measures),
  async measure(name, options) {
    return measures[name](context, options);
  },
  async surroundings() {
    const model = await context.polygraft.model().catch(() => null);
    return {
      isolated: crossOriginIsolated,
      threads,
      backend: model?.info.backend ?? 'polygraft takes no such options yet',
      ...(gpu && { gpu: await context.ort.describeGpu() }),
    };
  },
};
document.getElementById('where').textContent = `${threads} thread(s), ${gpu ? 'WebGPU' : 'WebAssembly'}, ${crossOriginIsolated ? '' : 'not '}cross-origin isolated`;
document.getElementById('start').addEventListener('click', async () => {
  log(JSON.stringify(await bench.surroundings(), null, 1));
  for (const name of gpu ? ['webgpu'] : ['uniform', 'latency', 'adapters', 'swap', 'mixed']) {
    log(`\n${name}`);
    log(JSON.stringify(await bench.measure(name, {}), (key, value) => (key === 'times' ? undefined : value), 1));
  }
});
