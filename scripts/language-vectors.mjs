// Makes the language vectors in adapters/lang from the texts in training/means:
//   base      onto English, for the plain base: English takes none
//   rank      onto English, for the base under the ranking LoRA
//   rank1     the same under its twin of one bit
//   centred   every language to a common origin, English too, for the plain base
//
//   node scripts/language-vectors.mjs [kind…] [lang…]
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const means = join(root, 'training/means');
const asked = process.argv.slice(2);
const langs = readdirSync(means).filter((f) => f.endsWith('.txt')).map((f) => f.slice(0, -4));
const cli = join(root, 'target/release/polygraft');
const common = ['center', '--base', join(root, 'models/multilingual-e5-small')];
const pivot = ['--pivot', join(means, 'en.txt')];
const under = (name, place) => ['--adapter', `${name}=${join(root, 'adapters', place)}`, '--compose', name];
const kinds = {
  base: pivot,
  rank: [...pivot, ...under('rank', 'rank-lora')],
  rank1: [...pivot, ...under('rank1', 'rank-lora-1bit/rank-lora-1bit.safetensors')],
  centred: [],
};
const askedKinds = asked.filter((each) => each in kinds);
const askedLangs = asked.filter((each) => !(each in kinds));

for (const [kind, extra] of Object.entries(kinds)) {
  if (askedKinds.length && !askedKinds.includes(kind)) continue;
  const out = join(root, 'adapters/lang', kind);
  mkdirSync(out, { recursive: true });
  for (const lang of langs.filter((l) => (l !== 'en' || kind === 'centred') && (!askedLangs.length || askedLangs.includes(l)))) {
    const args = [...common, ...extra, '--input', join(means, `${lang}.txt`), '--lang', lang];
    execFileSync(cli, [...args, '--output', join(out, `${lang}.safetensors`)], { stdio: ['ignore', 'inherit', 'inherit'] });
  }
}
