// What a user waits for, measured with the package in Node on one thread: the figures of README.md.
//
//   node bench/latency.mjs [--rounds 5]
//
// Medians over the rounds; the spread and the processor's own time are printed because machines are shared. Needs
// `npm run setup`.
import { readFile } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { performance } from 'node:perf_hooks';
import { load } from '../js/dist/node.js';

const at = process.argv.indexOf('--rounds');
const rounds = at >= 0 ? Number(process.argv[at + 1]) : 5;
const file = (path) => readFile(new URL(`../${path}`, import.meta.url));
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const rows = [];
const spent = new Map(); // Wall time → processor time of the same call.
function note(what, times) {
  const sorted = [...times].sort((a, b) => a - b);
  const cpu = times.map((t) => spent.get(t)).filter((t) => t !== undefined);
  rows.push({
    what,
    median: `${median(times).toFixed(1)} ms`,
    'from–to': `${sorted[0].toFixed(1)}–${sorted.at(-1).toFixed(1)}`,
    processor: cpu.length ? `${median(cpu).toFixed(1)} ms` : '',
  });
}
async function timed(run) {
  const before = process.cpuUsage();
  const start = performance.now();
  await run();
  const wall = performance.now() - start;
  const { user, system } = process.cpuUsage(before);
  spent.set(wall, (user + system) / 1000);
  return wall;
}

const pool = JSON.parse(await file('www/passages/passages.json'));
const passages = (pool.passages ?? pool).map((p) => ({ text: p.text, lang: p.lang }));
const forty = passages.filter((_, i) => i % Math.floor(passages.length / 40) === 0).slice(0, 40);
const lora = new Map([
  ['adapter_config.json', await file('adapters/rank-lora/adapter_config.json')],
  ['adapter_model.safetensors', await file('adapters/rank-lora/adapter_model.safetensors')],
]);
const vector = async (kind, lang) => ({ [`${lang}.safetensors`]: await file(`adapters/lang/${kind}/${lang}.safetensors`) });

const before = process.memoryUsage().rss;
let model;
note('load the model (70 MB on disk, sha256 checked)', [
  await timed(async () => {
    model = await load(new URL('../models/multilingual-e5-small', import.meta.url));
  }),
]);
const loaded = { rss: process.memoryUsage().rss - before, ...(await model.memory()) };

const langs = [...new Set(passages.map((p) => p.lang))].filter((l) => l !== 'en');
for (const lang of langs) {
  await model.loadAdapter(lang, await vector('base', lang));
  await model.loadAdapter(`${lang}.rank`, await vector('rank', lang));
}
const query = (i) => `how do I print only part ${i} of a table`;
const first = [];
const loads = [];
const swaps = [];
for (let round = 0; round < rounds; round++) {
  const tagged = forty.map((p) => ({ ...p, text: `${p.text} ${round}` }));
  first.push(await timed(() => model.rerank({ query: query(`first ${round}`), documents: tagged })));
  loads.push(await timed(() => model.loadAdapter('rank', lora)));
  await model.rerank({ query: query('warm'), documents: ['warm'], adapters: 'rank' });
  const a = await timed(() => model.rerank({ query: query(`swap ${round}`), documents: ['one row'], adapters: 'rank' }));
  const b = await timed(() => model.rerank({ query: query(`swap ${round} `), documents: ['one row'], adapters: null }));
  swaps.push(a - b);
}
const tokens = (await model.rerank({ query: query('tokens'), documents: forty.map((p) => `${p.text} t`) })).timing.tokens;
note(`first ranking of 40 passages (${tokens} tokens)`, first);
note('adapter bytes → ready (rank-lora, 0.3 MB)', loads);
note('extra time of a row under the LoRA', swaps);

const vectors = (d) => (d.lang === 'en' ? null : d.lang);
const index = await model.index(forty, { adapters: vectors });
const keys = [];
for (let i = 0; i < rounds * 3; i++) keys.push(await timed(() => index.search(query(`key ${i}`), { topN: 10 })));
note('a keystroke: one new query against an index', keys);
const switches = [];
for (let i = 0; i < rounds * 2; i++) {
  const document = i % 2 ? vectors : null;
  switches.push(await timed(() => index.search(query('key 0'), { topN: 10, adapters: { document } })));
}
note('language vectors switched on or off for 40 passages', switches);
const batch = Array.from({ length: 16 }, (_, i) => `${'word '.repeat(60)}${i}`);
const embeds = [];
for (let i = 0; i < rounds; i++) embeds.push(await timed(() => model.embed(batch.map((t) => `${t}${i}`), { side: 'document' })));
const { data } = await model.embed(['x'], { side: 'document' });
note(`16 rows of about 64 tokens (${data.length} numbers each)`, embeds);

const mb = (n) => `${(n / 1e6).toFixed(1)} MB`;
console.table(rows);
console.log(`memory after loading: wasm ${mb(loaded.wasm)}, of that weights ${mb(loaded.weights)}; process grew by ${mb(loaded.rss)}`);
console.log(`${(await model.info).backend} · Node ${process.version} · ${cpus()[0].model} × ${cpus().length} · load ${loadavg()[0].toFixed(1)}`);
await model.dispose();
