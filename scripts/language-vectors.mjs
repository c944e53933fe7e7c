// Makes the language vectors in adapters/lang from the texts in training/means, with English as the pivot:
// adapters/lang/base for the plain base, adapters/lang/rank for the base under the ranking LoRA.
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
const common = ['center', '--base', join(root, 'models/multilingual-e5-small'), '--pivot', join(means, 'en.txt')];

for (const [kind, extra] of [
  ['base', []],
  ['rank', ['--adapter', `rank=${join(root, 'adapters/rank-lora')}`, '--compose', 'rank']],
]) {
  const out = join(root, 'adapters/lang', kind);
  mkdirSync(out, { recursive: true });
  for (const lang of langs.filter((l) => l !== 'en' && (!asked.length || asked.includes(l)))) {
    const args = [...common, ...extra, '--input', join(means, `${lang}.txt`), '--lang', lang];
    execFileSync(cli, [...args, '--output', join(out, `${lang}.safetensors`)], { stdio: ['ignore', 'inherit', 'inherit'] });
  }
}
