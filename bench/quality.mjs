// Ranking quality by the command line: nDCG@10 of every collection under five set-ups.
//
//   node bench/quality.mjs [collection…] [--backend cpu] [--precision fast] [--only '+ vectors,rank'] [--vector-bits 8]
//
// base · base with language vectors onto English, which takes none · base with every language centred by itself ·
// ranking LoRA · LoRA with vectors onto English made under it. --only takes some of them; --vector-bits packs the vectors
// at 1, 2, 4 or 8 bits first. Prints one table; the figures in README.md and
// bench/RESULTS.md come from here.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const cli = join(root, 'target/release/polygraft');
const base = join(root, 'models/multilingual-e5-small');
const collections = join(root, 'tests/collections');
const args = process.argv.slice(2);
const extra = [];
for (const option of ['--backend', '--precision']) {
  const at = args.indexOf(option);
  if (at >= 0) extra.push(...args.splice(at, 2));
}
/** Takes an option of our own out of the arguments. */
const option = (name) => {
  const at = args.indexOf(name);
  return at < 0 ? null : args.splice(at, 2)[1];
};
const only = option('--only')?.split(',');
const vectorBits = option('--vector-bits');
const names = args.length ? args : readdirSync(collections).filter((n) => existsSync(join(collections, n, 'queries.jsonl')));
if (!existsSync(cli) || !existsSync(base)) {
  console.error('Build first: cargo build --release -p polygraft-cli, and npm start -- --no-serve for the model.');
  process.exit(1);
}

const scratch = mkdtempSync(join(tmpdir(), 'polygraft-quality-'));
const vectors = (kind) => {
  const dir = join(root, 'adapters/lang', kind);
  const files = existsSync(dir) ? readdirSync(dir).map((f) => [f.replace('.safetensors', ''), join(dir, f)]) : [];
  if (vectorBits === null) return files;
  return files.map(([lang, file]) => {
    const packed = join(scratch, `${kind}-${lang}.packed`);
    execFileSync(cli, ['pack', file, packed, '--base', base, '--bits', vectorBits, '--force'], { stdio: 'ignore' });
    return [lang, packed];
  });
};

/** The arguments of one set-up: adapters, and a composition or a map from language to composition. `lang`: which vectors. */
function setup({ rank, lang }) {
  const out = [];
  if (rank) out.push('--adapter', `rank=${join(root, 'adapters/rank-lora')}`);
  if (!lang) return [...out, '--compose', rank ? 'rank' : 'base'];
  const map = { en: rank ? 'rank' : 'base' };
  for (const [tag, path] of vectors(lang)) {
    out.push('--adapter', `${tag}=${path}`);
    map[tag] = rank ? `stack(${tag}, rank)` : tag;
  }
  const file = join(scratch, `map-${rank}-${lang}.json`);
  writeFileSync(file, JSON.stringify(map));
  return [...out, '--by-lang', file];
}

function evaluate(collection, options) {
  const text = execFileSync(cli, ['eval', '--base', base, '--collection', collection, '--json', ...extra, ...setup(options)], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return JSON.parse(text);
}

const setups = [
  ['base', { rank: false, lang: false }],
  ['+ vectors', { rank: false, lang: 'base' }],
  ['centred', { rank: false, lang: 'centred' }],
  ['rank', { rank: true, lang: false }],
  ['rank + vectors', { rank: true, lang: 'rank' }],
].filter(([name]) => !only || only.includes(name));

const percent = (x) => (100 * x).toFixed(1).padStart(6);
console.log(['collection'.padEnd(14), ...setups.map(([n]) => n.padStart(15))].join(''));
const row = (label, scores) => console.log([label.padEnd(14), ...scores.map((s) => percent(s).padStart(15))].join(''));
for (const name of names) {
  const results = setups.map(([, s]) => evaluate(join(collections, name), s));
  row(name, results.map((r) => r['ndcg@10']));
  for (const lang of Object.keys(results[0].by_query_lang ?? {})) {
    row(`  ${lang} →`, results.map((r) => r.by_query_lang[lang]['ndcg@10']));
  }
}
