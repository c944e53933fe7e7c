// A hundred adapters in memory, sixteen of them in one batch: copies of the packed adapter of one bit, in each of which more
// bits are turned over by chance.
import { $, bytesText, duration, el, isAbort, say } from './dom.js';

const count = 100;
const rows = 16;
/** Calls of each kind; their median is shown. */
const rounds = 5;

/** The share of its bits that is turned over in copy `i`: none in the first, half in the last. */
export const share = (i) => (0.5 * i) / (count - 1);

/** The sixteen of one batch: the first, the last, and those in between at equal steps, `turn` places on. */
export const chosen = (turn = 0) => Array.from({ length: rows }, (_, i) => (i === 0 ? 0 : (Math.round((i * (count - 1)) / (rows - 1)) + turn - 1) % (count - 1) + 1));

/** Numbers between 0 and 1 that `seed` decides (Mulberry32). */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A packed file with `part` of its codes' bits turned over. */
export function turned(file, part, seed) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  const [from, to] = header.codes.data_offsets.map((at) => 8 + length + at);
  const out = file.slice();
  const next = random(seed);
  for (let at = from; at < to; at += 1) {
    for (let bit = 0; bit < 8; bit += 1) if (next() < part) out[at] ^= 1 << bit;
  }
  return out;
}

/** The load reports of all copies. */
const copiesOf = (model) => Array.from({ length: count }, (_, i) => model.adapters.get(name(i)));
const name = (i) => `copy-${i}`;
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

export class Hundred {
  #model = null;
  #running = false;
  #loaded = 0;
  #files = 0;
  #calls = 0;

  /** `packedBytes()` gives the adapter's file, `query()` the text in the field. */
  constructor({ packedBytes, query, onError }) {
    Object.assign(this, { packedBytes, query, onError });
    $('hundred-run').addEventListener('click', () => this.run());
    $('hundred-drop').addEventListener('click', () => this.unload());
  }

  /** A model that can be used, or null. */
  enable(model) {
    this.#model = model;
    this.#loaded = 0;
    this.#show();
    say($('hundred-status'), model ? 'Not loaded yet.' : 'Needs the model: download it above.');
  }

  #show() {
    $('hundred-run').disabled = !this.#model || this.#running;
    say($('hundred-run'), this.#loaded === count ? 'Sixteen others in one batch' : 'Load a hundred adapters');
    $('hundred-drop').hidden = this.#loaded === 0 || this.#running;
    if (this.#loaded === 0) $('hundred-out').hidden = true;
  }

  async #load(model) {
    const packed = await this.packedBytes();
    const bar = $('hundred-bar');
    bar.hidden = false;
    for (; this.#loaded < count; this.#loaded += 1) {
      const i = this.#loaded;
      const file = turned(packed, share(i), i);
      await model.loadAdapter(name(i), file);
      this.#files += file.length;
      bar.value = i + 1;
      say($('hundred-status'), `${i + 1} of ${count} loaded.`);
    }
  }

  /** Milliseconds of one call; a text comes once only, so that nothing is remembered. */
  async #time(model, query, adapters) {
    const texts = Array.from({ length: rows }, () => `${query} ${1000 + (this.#calls += 1)}`);
    const start = performance.now();
    const { timing } = await model.embed(texts, { side: 'query', adapters });
    if (timing.cached > 0) throw new Error(`${timing.cached} rows were remembered`);
    return performance.now() - start;
  }

  async run() {
    const model = this.#model;
    this.#running = true;
    this.#show();
    try {
      if (this.#loaded < count) {
        this.#files = 0;
        this.weights = (await model.memory()).weights;
        const start = performance.now();
        await this.#load(model);
        this.loadMs = performance.now() - start;
        this.turn = 0;
      } else {
        this.turn += 1;
      }
      say($('hundred-status'), 'One batch after the other, in turn.');
      const copies = chosen(this.turn);
      const times = { sixteen: [], one: [] };
      const query = this.query() || 'How do I print on both sides?';
      // In turn, so that a busy moment hits both; the first of each is a warm-up.
      for (let round = 0; round <= rounds; round += 1) {
        const one = await this.#time(model, query, () => name(1));
        const sixteen = await this.#time(model, query, (_, i) => name(copies[i]));
        if (round > 0) times.one.push(one), times.sixteen.push(sixteen);
      }
      const last = await model.embed(Array(rows).fill(query), { side: 'query', adapters: (_, i) => name(copies[i]) });
      // As they were loaded, and what the calls have made of them.
      const loaded = copiesOf(model).reduce((sum, { bytes }) => sum + bytes, 0);
      const held = loaded + Math.max(0, (await model.memory()).weights - this.weights);
      this.#report({ copies, held, last, one: median(times.one), sixteen: median(times.sixteen) });
      say($('hundred-status'), `${count} adapters are loaded; one batch went through ${rows} of them.`);
    } catch (error) {
      say($('hundred-status'), 'Not finished.');
      if (!isAbort(error)) this.onError('A hundred adapters could not be loaded.', error);
    } finally {
      this.#running = false;
      $('hundred-bar').hidden = true;
      this.#show();
    }
  }

  #report({ copies, held, last, one, sixteen }) {
    const figure = (term, text) => el('div', { class: 'figure' }, el('dt', { text: term }), el('dd', {}, el('strong', { text })));
    $('hundred-summary').replaceChildren(
      figure(`${count} files, loaded in ${duration(this.loadMs)}`, bytesText(this.#files)),
      figure(`${count} adapters in memory`, bytesText(held)),
      figure(`${rows} texts, ${rows} adapters`, duration(sixteen)),
      figure(`${rows} texts, one adapter`, duration(one)),
    );
    const [first] = last.embeddings;
    $('hundred-rows').replaceChildren(
      ...copies.map((copy, i) => {
        const cosine = last.embeddings[i].reduce((sum, x, k) => sum + x * first[k], 0);
        const bar = el('span', { class: 'bar-fill' });
        bar.style.inlineSize = `${Math.max(0, Math.min(1, cosine)) * 100}%`;
        return el(
          'tr',
          { 'data-cosine': cosine.toFixed(6) },
          el('td', {}, el('code', { text: name(copy) })),
          el('td', { class: 'num', text: `${(100 * share(copy)).toFixed(1)} %` }),
          el('td', {}, el('span', { class: 'row-score' }, el('span', { class: 'bar' }, bar))),
          el('td', { class: 'num', text: cosine.toFixed(3) }),
        );
      }),
    );
    $('hundred-out').hidden = false;
  }

  async unload() {
    const model = this.#model;
    this.#running = true;
    this.#show();
    try {
      for (; this.#loaded > 0; this.#loaded -= 1) await model.unloadAdapter(name(this.#loaded - 1));
      say($('hundred-status'), 'All hundred are unloaded.');
    } catch (error) {
      this.onError('The adapters could not be unloaded.', error);
    } finally {
      this.#running = false;
      this.#show();
    }
  }
}
