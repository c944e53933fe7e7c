// The model, its adapters and the indexes of the pool: everything of the page that talks to polygraft.
import { load, probe } from '../../js/dist/index.js';
import { rankers, vectorName } from './compose.js';

const root = new URL('../', document.baseURI);
const modelAt = new URL('models/multilingual-e5-small/', root);
const adaptersAt = new URL('adapters/', root);

/** The ranking adapters, as they are shipped: a folder, and a packed file. */
const shipped = {
  rank: ['rank-lora/', 'adapter_config.json', 'adapter_model.safetensors'],
  rank1: ['rank-lora-1bit/rank-lora-1bit.safetensors'],
};

/** Passages are read in portions of this many, so that queries get in between. */
const portion = 10;
/** The base's index is made anew when it has this many: the first ranking need not wait for the last passage. */
const milestones = [20, 50, 100, 160];

export { probe };

/** Files of the model with their sizes, as the server lists them. */
export async function manifest() {
  const response = await fetch(new URL('polygraft.json', modelAt));
  if (!response.ok) throw new Error(`The model is not on this server (${response.status} for ${response.url}). Run npm start once: it makes it.`);
  return Object.entries((await response.json()).files).map(([name, entry]) => ({ name, ...entry }));
}

/** Bytes of a ranking adapter's files, as the server says; null when it has none. */
export async function adapterSize(name) {
  const [place, ...files] = shipped[name];
  const answers = await Promise.all((files.length ? files : ['']).map((file) => fetch(new URL(place + file, adaptersAt), { method: 'HEAD' })));
  return answers.every((answer) => answer.ok) ? answers.reduce((sum, answer) => sum + Number(answer.headers.get('content-length')), 0) : null;
}

/** The packed file of one bit, as bytes. */
export async function packedBytes() {
  const response = await fetch(new URL(shipped.rank1[0], adaptersAt));
  if (!response.ok) throw new Error(`The packed adapter is not on this server (${response.status} for ${response.url}).`);
  return new Uint8Array(await response.arrayBuffer());
}

export const sizeOf = (files) => files.reduce((sum, file) => sum + file.bytes, 0);

/** Whether this browser has the model's large files already. */
export async function isKept(files) {
  try {
    if (!(await caches.has('polygraft'))) return false;
    const cache = await caches.open('polygraft');
    const there = await Promise.all(
      files.map(({ name, sha256 }) => {
        const key = new URL(name, modelAt);
        key.searchParams.set('polygraft-sha256', sha256);
        return cache.match(key.href);
      }),
    );
    return there.every(Boolean);
  } catch {
    return false;
  }
}

/** Removes what was kept. */
export const forget = () => caches.delete('polygraft');

/** A loaded model with the pool of passages. */
export class Engine {
  /** Names of the adapters that can be used. */
  loaded = new Set();
  /** Notes about adapters that are not there. */
  missing = [];
  /** Finished indexes by backbone; `#part` is the base's while it grows. */
  #indexes = new Map();
  #part = null;
  #preparing = new Map();
  #rankers = new Map();

  static async start(passages, languages, { signal, onProgress, onWarning }) {
    const model = await load(modelAt, { signal, onProgress });
    const engine = new Engine(model, passages, languages);
    model.on('warning', onWarning);
    try {
      await engine.#loadVectors(null, signal);
    } catch (error) {
      await model.dispose();
      throw error;
    }
    return engine;
  }

  constructor(model, passages, languages) {
    this.model = model;
    this.passages = passages;
    this.languages = languages;
  }

  /** Each language's vector: made for the base, or under a ranking adapter. One that is not there is noted. */
  async #loadVectors(under, signal) {
    const folder = under ?? 'base';
    await Promise.all(
      this.languages.map(async (lang) => {
        const name = vectorName(lang, under);
        try {
          await this.model.loadAdapter(name, new URL(`lang/${folder}/${lang}.safetensors`, adaptersAt), { signal });
          this.loaded.add(name);
        } catch (error) {
          if (error.code !== 'FETCH') throw error;
          this.missing.push(name);
        }
      }),
    );
  }

  /** A ranking adapter and the vectors made under it: fetched when they are first wanted. */
  loadRanker(name) {
    if (!this.#rankers.has(name)) {
      const load = async () => {
        await this.model.loadAdapter(name, new URL(shipped[name][0], adaptersAt));
        this.loaded.add(name);
        await this.#loadVectors(name);
      };
      const loading = load().catch((error) => {
        this.#rankers.delete(name);
        throw error;
      });
      this.#rankers.set(name, loading);
    }
    return this.#rankers.get(name);
  }

  /** The index for a backbone: `{ index, size }`, or null while there is none. The base's may still be growing. */
  indexFor(key) {
    return this.#indexes.get(key) ?? (key === 'base' ? this.#part : null);
  }

  isReady(key) {
    return this.#indexes.has(key);
  }

  /** Makes the index for a backbone, in portions, so that queries get in between. */
  prepare(key, { onProgress, onPart } = {}) {
    if (this.#indexes.has(key)) return Promise.resolve();
    const running = this.#preparing.get(key);
    // One that was given up is on its way out: what it has embedded is remembered.
    if (running && !running.controller.signal.aborted) return running.promise;
    const controller = new AbortController();
    const mine = { controller };
    mine.promise = this.#build(key, controller.signal, onProgress, onPart).finally(() => {
      if (this.#preparing.get(key) === mine) this.#preparing.delete(key);
    });
    this.#preparing.set(key, mine);
    return mine.promise;
  }

  /** Stops making indexes other than the base's and `key`'s. */
  abandonOthers(key) {
    for (const [other, { controller }] of this.#preparing) if (other !== key && other !== 'base') controller.abort();
  }

  async #build(key, signal, onProgress, onPart) {
    for (const name of key.split(/[(), ]+/)) if (rankers.includes(name)) await this.loadRanker(name);
    const total = this.passages.length;
    let last = null;
    try {
      for (let from = 0; from < total; from += portion) {
        const size = Math.min(total, from + portion);
        // What has been embedded is remembered: making the index of it costs next to nothing.
        await this.model.embed(
          this.passages.slice(from, size).map((passage) => passage.text),
          {
            side: 'document',
            adapters: key,
            signal,
            onProgress: ({ loaded, total: tokens }) => onProgress?.((from + (tokens ? loaded / tokens : 0) * (size - from)) / total),
          },
        );
        onProgress?.(size / total);
        if (size < total && !(key === 'base' && milestones.includes(size))) continue;
        const index = await this.model.index(this.passages.slice(0, size), { adapters: key, signal });
        last?.index.dispose().catch(() => {});
        last = { index, size };
        if (size < total) {
          this.#part = last;
          onPart?.(size);
        }
      }
    } catch (error) {
      if (key !== 'base') last?.index.dispose().catch(() => {});
      throw error;
    }
    this.#indexes.set(key, last);
    if (key === 'base') this.#part = null;
    this.#trim(key);
  }

  /** A handful of indexes are kept. */
  #trim(newest) {
    for (const [key, { index }] of this.#indexes) {
      if (this.#indexes.size <= 5) return;
      if (key === 'base' || key === newest) continue;
      this.#indexes.delete(key);
      index.dispose().catch(() => {});
    }
  }

  /** One ranking of all passages that the index has: order, scores by passage, time, warnings. */
  async rank({ key, query, queryComposition, documentComposition, signal }) {
    const { index, size } = this.indexFor(key);
    const start = performance.now();
    const ranking = await index.search(query, {
      topN: size,
      adapters: { query: queryComposition, document: (passage) => documentComposition(passage.lang) },
      signal,
    });
    return {
      order: ranking.results.map((result) => result.index),
      scores: ranking.results.map((result) => result.relevance_score),
      warnings: ranking.warnings,
      cut: ranking.queryTruncated,
      ms: performance.now() - start,
      size,
    };
  }

  /** Loads an adapter that was dropped onto the page. */
  async graft(name, source) {
    const report = await this.model.loadAdapter(name, source);
    this.loaded.add(name);
    return report;
  }

  async remove(name) {
    this.loaded.delete(name);
    for (const [key, { index }] of this.#indexes) {
      if (!key.split(/[(), ]+/).includes(name)) continue;
      this.#indexes.delete(key);
      index.dispose().catch(() => {});
    }
    await this.model.unloadAdapter(name);
  }

  dispose() {
    return this.model.dispose().catch(() => {});
  }
}
