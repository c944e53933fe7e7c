// Makes the language vectors in adapters/lang from the texts in training/means:
//   base      onto English, for the plain base: English takes none
//   rank      onto English, for the base under the ranking LoRA
//   centred   every language to a common origin, English too, for the plain base
//
//   node scripts/language-vectors.mjs [lang…]
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
const rank = ['--adapter', `rank=${join(root, 'adapters/rank-lora')}`, '--compose', 'rank'];

for (const [kind, extra] of [['base', pivot], ['rank', [...pivot, ...rank]], ['centred', []]]) {
  const out = join(root, 'adapters/lang', kind);
  mkdirSync(out, { recursive: true });
  for (const lang of langs.filter((l) => (l !== 'en' || kind === 'centred') && (!asked.length || asked.includes(l)))) {
    const args = [...common, ...extra, '--input', join(means, `${lang}.txt`), '--lang', lang];
    execFileSync(cli, [...args, '--output', join(out, `${lang}.safetensors`)], { stdio: ['ignore', 'inherit', 'inherit'] });
  }
}
