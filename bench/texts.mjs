// The texts that are timed, with their token ids: real help passages of tests/collections/mixed.
//
// polygraft takes texts and the peers take ids, so each text comes with the ids that `polygraft tokenize` gives for it,
// and the bench checks on every call that polygraft counted that many tokens. polygraft also remembers embeddings, so
// the same text must not come twice: every text has two places for a word, taken from a list of words that are one
// token each. Whatever words are in them, a text keeps its length, and both sides run the same ids.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { at, exists, once, run, runAsMain, SetupError } from '../scripts/lib.mjs';
import { cargo } from '../scripts/rust.mjs';
import { home, python } from './peers.mjs';

const model = 'models/multilingual-e5-small';
const words =
  'and the for with from this that not are have all can one new about more out time when other use only see first page work after over home back way two part year here there day many long year life last name place next line side end hand high small large full open left right down most both same under early water light white black'.split(' ');

/** Where they are, and their embeddings in f32. */
export const textsFile = `${home}/page/texts.json`;
const referenceFile = `${home}/page/reference.json`;

async function tokenize(lines) {
  const cli = path.resolve(at(), process.env.CARGO_TARGET_DIR ?? 'target', 'release/polygraft');
  if (!(await exists(cli))) await cargo(['build', '--release', '--locked', '-p', 'polygraft-cli']);
  const file = at(home, 'lines.txt');
  await writeFile(file, `${lines.join('\n')}\n`);
  const { stdout } = await run(cli, ['tokenize', '--base', at(model), '--input', file], { quiet: true });
  return stdout.trim().split('\n').map((line) => JSON.parse(line));
}

/** The text of template `t` with words `a` and `b` in it. */
const filled = (t, a, b) => `passage: ${a} ${b} ${t}`;

/** Templates with the place of the two words among their ids; checked with every word in each place. */
async function templates(bodies) {
  const ids = await tokenize(bodies.map((t) => filled(t, words[0], words[1])));
  return bodies.map((body, i) => ({ body, ids: ids[i] }));
}

/** The words that are one token, at one place, in whatever text: `[word, id]`. */
async function oneToken(sample) {
  const slot = (await tokenize(['passage:']))[0].length - 1;
  const lists = await tokenize(sample.flatMap((t) => words.flatMap((w) => [filled(t.body, w, words[1]), filled(t.body, words[0], w)])));
  const good = new Map();
  for (const [k, word] of words.entries()) {
    const found = new Set();
    for (const [i, t] of sample.entries()) {
      for (const place of [0, 1]) {
        const now = lists[(i * words.length + k) * 2 + place];
        const same = now.length === t.ids.length && now.every((id, j) => j === slot + place || id === t.ids[j]);
        found.add(same ? now[slot + place] : -1);
      }
    }
    if (found.size === 1 && !found.has(-1)) good.set(word, [...found][0]);
  }
  return { slot, list: [...good] };
}

/** `count` openings of passages with exactly `length` tokens, special tokens and the prompt included. */
async function exactly(passages, length, count) {
  const found = [];
  for (let start = 0; found.length < count && start < passages.length; start += 60) {
    const openings = passages.slice(start, start + 60).map((text) => {
      const parts = text.split(' ');
      return parts.map((_, k) => parts.slice(0, k + 1).join(' '));
    });
    const ids = await tokenize(openings.flat().map((t) => filled(t, words[0], words[1])));
    let next = 0;
    for (const list of openings) {
      const hit = list.findIndex((_, k) => ids[next + k].length === length);
      if (hit >= 0) found.push(list[hit]);
      next += list.length;
    }
  }
  if (found.length < count) throw new SetupError(`only ${found.length} passages have an opening of ${length} tokens`);
  return templates(found.slice(0, count));
}

/** Writes the texts. */
export async function ensureTexts() {
  const lines = (await readFile(at('tests/collections/mixed/corpus.jsonl'), 'utf8')).trim().split('\n');
  const passages = lines.map((line) => JSON.parse(line).text.replace(/\s+/g, ' ').trim());
  // Every ninth: a stride that visits all languages of the pool, whose passages stand language by language.
  const mixed = await templates(passages.filter((_, i) => i % 9 === 4).slice(0, 64));
  const { slot, list } = await oneToken(mixed.slice(0, 16));
  if (list.length < 40) throw new SetupError(`only ${list.length} of the words are one token`);
  const out = {
    slot,
    words: list,
    sets: { mixed, '16x64': await exactly(passages, 64, 16), '1x32': await exactly(passages, 32, 1), '1x128': await exactly(passages, 128, 1) },
  };
  await mkdir(path.dirname(at(textsFile)), { recursive: true });
  await writeFile(at(textsFile), JSON.stringify(out));
  return out;
}

/** Writes the texts and what an f32 model makes of them, which both sides are compared with. */
export async function ensureReference() {
  await ensureTexts();
  await once('bench reference', { inputs: [textsFile, 'bench/peers/reference.py', 'bench/peers/export.py'], outputs: [referenceFile] }, () =>
    run(python, ['bench/peers/reference.py', '--texts', textsFile, '--model', `${home}/onnx/plain-f32.onnx`, '--out', referenceFile], { quiet: true }),
  );
}

await runAsMain(import.meta, async () => {
  const { words: list, sets } = await ensureTexts();
  console.log(`${list.length} words`);
  for (const [name, set] of Object.entries(sets)) {
    const lengths = set.map((t) => t.ids.length).sort((a, b) => a - b);
    console.log(`${name}: ${set.length} texts, ${lengths.reduce((a, b) => a + b)} tokens, ${lengths[0]}–${lengths.at(-1)}`);
  }
});
