// The model as callers see it: checks arguments, sends calls, shapes answers.

import { argumentsOf, composition, documentsOf, namesDocuments, perItem, sides } from './adapters.js';
import { PolygraftError } from './errors.js';
import type { Link } from './link.js';
import * as check from './options.js';
import { placeOf, type Locate } from './place.js';
import type { TaskName, TaskResult } from './protocol.js';
import type * as T from './types.js';

const COMMON = ['signal', 'onProgress'];

/** What happened to the texts, as the engine reports it. */
interface TextReport {
  tokens: number;
  rows: number;
  cached: number;
  truncated: number[];
}

interface RankingAnswer {
  results: T.RerankResult<never>[];
  scoring: T.Ranking['scoring'];
  report: TextReport;
  query_truncated: boolean;
  warnings: string[];
}

/** Listeners by event; warnings from before the first listener are kept for it. */
export class Events {
  readonly #listeners: { [K in keyof T.ModelEvents]: Set<(value: T.ModelEvents[K]) => void> } = {
    progress: new Set(),
    warning: new Set(),
    device: new Set(),
    profile: new Set(),
  };
  #early: T.Warning[] = [];

  on<K extends keyof T.ModelEvents>(event: K, listener: (value: T.ModelEvents[K]) => void): () => void {
    const set = Object.hasOwn(this.#listeners, event) ? this.#listeners[event] : undefined;
    if (!set) {
      const known = Object.keys(this.#listeners).join(', ');
      throw new PolygraftError('ARGUMENT', `on: there is no event ${JSON.stringify(event)}`, { hint: `Events: ${known}.` });
    }
    check.functionOf('on: listener', listener);
    set.add(listener);
    if (event === 'warning') {
      const early = this.#early;
      this.#early = [];
      queueMicrotask(() => early.forEach((warning) => this.emit('warning', warning)));
    }
    return () => void set.delete(listener);
  }

  emit<K extends keyof T.ModelEvents>(event: K, value: T.ModelEvents[K]): void {
    if (event === 'warning' && this.#listeners.warning.size === 0) this.#early.push(value as T.Warning);
    for (const listener of [...this.#listeners[event]]) guarded(listener, value);
  }
}

/** A caller's listener that throws must not end the call that told it something; the error is reported as uncaught. */
export function guarded<V>(listener: ((value: V) => void) | undefined, value: V): void {
  try {
    listener?.(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** {@link T.Model} over a link to its host. */
export class RemoteModel implements T.Model {
  readonly info: T.ModelInfo;
  #device: T.DeviceState;
  readonly #adapters = new Map<string, T.AdapterReport>();
  readonly #link: Link;
  readonly #events: Events;
  readonly #locate: Locate;
  /** Indexes that were dropped without `dispose`: a page that builds one on each change would fill the memory. */
  readonly #abandoned = new FinalizationRegistry<number>((index) => {
    void this.#drop(index);
  });

  constructor(info: T.ModelInfo, device: T.DeviceState, link: Link, events: Events, locate: Locate) {
    this.info = Object.freeze(info);
    this.#device = Object.freeze(device);
    events.on('device', (state) => {
      this.#device = Object.freeze(state);
    });
    this.#link = link;
    this.#events = events;
    this.#locate = locate;
  }

  get device(): T.DeviceState {
    return this.#device;
  }

  get adapters(): ReadonlyMap<string, T.AdapterReport> {
    return this.#adapters;
  }

  async loadAdapter(name: string, source: T.Source | T.Bytes, options?: T.AdapterOptions): Promise<T.AdapterReport> {
    const o = check.checkOptions('loadAdapter', options, [...COMMON, 'strict', 'allowBaseMismatch', 'task', 'invertible', 'reft', 'head', 'tokenizer']);
    check.textOf('loadAdapter: name', name);
    const flags = {
      strict: check.flagOf('loadAdapter: strict', o.strict) ?? true,
      allow_base_mismatch: check.flagOf('loadAdapter: allowBaseMismatch', o.allowBaseMismatch) ?? false,
      ...check.adapterChoices('loadAdapter', o),
    };
    const common = this.#common('loadAdapter', o);
    const place = placeOf(source, this.#locate);
    const report = await this.#link.call({ op: 'loadAdapter', name, place, options: flags }, common);
    return this.#loaded(name, report);
  }

  async unloadAdapter(name: string): Promise<void> {
    await this.#link.call({ op: 'unloadAdapter', name: check.textOf('unloadAdapter: name', name) });
    this.#adapters.delete(name);
  }

  async languageVector(texts: readonly string[], options: T.LanguageVectorOptions): Promise<T.LanguageVector> {
    const known = [...COMMON, 'lang', 'pivot', 'under', 'name', 'precision'];
    const o = check.checkOptions('languageVector', options, known);
    const name = o.name === undefined ? null : check.textOf('languageVector: name', o.name);
    const args = {
      texts: check.textsOf('languageVector: texts', texts),
      pivot: o.pivot === undefined ? null : check.textsOf('languageVector: pivot', o.pivot),
      lang: check.textOf('languageVector: lang', o.lang),
      under: composition('languageVector: under', o.under),
      name,
      precision: precision('languageVector', o.precision),
    };
    // An abort that comes too late leaves a vector that is loaded.
    const late = ({ answer }: TaskResult) => name !== null && this.#loaded(name, (answer as { adapter: unknown }).adapter);
    const { answer, bytes, ms } = await this.#run('languageVector', args, o, { late });
    const { report, adapter } = answer as { report: TextReport; adapter: T.AdapterReport | null };
    const loaded = name !== null && adapter ? this.#loaded(name, adapter) : null;
    return { bytes, report: loaded, truncated: report.truncated, timing: timing(report, ms) };
  }

  async rerank<D extends T.Doc>(options: T.RerankOptions<D>): Promise<T.Ranking<D>> {
    const known = [...COMMON, 'query', 'documents', 'passages', 'adapters', 'topN', 'windows', 'returnDocuments', 'precision'];
    const o = check.checkOptions('rerank', options, known);
    if ((o.documents === undefined) === (o.passages === undefined)) {
      throw new PolygraftError('ARGUMENT', 'rerank: give either documents or passages');
    }
    const documents = (o.documents ?? o.passages) as readonly D[];
    const wanted = check.flagOf('rerank: returnDocuments', o.returnDocuments) ?? false;
    const texts = check.documentTexts(o.documents ? 'rerank: documents' : 'rerank: passages', documents);
    const { query, documents: of } = sides(o.adapters, documents);
    const args = {
      query: check.textOf('rerank: query', o.query),
      documents: texts,
      queryAdapters: query,
      documentAdapters: of,
      topN: check.countOf('rerank: topN', o.topN) ?? null,
      windows: check.flagOf('rerank: windows', o.windows) ?? false,
      precision: precision('rerank', o.precision),
    };
    // The caller may change the list meanwhile.
    const kept = wanted ? [...documents] : undefined;
    return ranking(await this.#run('rerank', args, o), kept);
  }

  async embed<D extends string | T.Picture>(texts: D | readonly D[], options?: T.EmbedOptions<D>): Promise<T.Embeddings> {
    const o = check.checkOptions('embed', options, [...COMMON, 'side', 'adapters', 'precision']);
    const list = (Array.isArray(texts) ? texts : [texts]) as readonly D[];
    const pixels = check.pixelsOf('embed: texts', list);
    const args = {
      texts: pixels ? [] : check.textsOf('embed: texts', list),
      images: pixels ? list.length : 0,
      side: check.choiceOf('embed: side', o.side, ['query', 'document']) ?? null,
      adapters: perItem('embed: adapters', o.adapters, list),
      precision: precision('embed', o.precision),
    };
    const { answer, floats: data, ms } = await this.#run('embed', args, o, { pixels });
    const { rows, width, report, warnings } = answer as { rows: number; width: number; report: TextReport; warnings: string[] };
    const embeddings = Array.from({ length: rows }, (_, i) => data.subarray(i * width, (i + 1) * width));
    return { embeddings, data, width, truncated: report.truncated, warnings, timing: timing(report, ms) };
  }

  async classify<D extends string | T.Picture>(items: D | readonly D[], options?: T.ClassifyOptions<D>): Promise<T.Classes> {
    const o = check.checkOptions('classify', options, [...COMMON, 'adapters', 'precision']);
    const list = (Array.isArray(items) ? items : [items]) as readonly D[];
    const pixels = check.pixelsOf('classify: items', list);
    const args = {
      texts: pixels ? [] : check.textsOf('classify: items', list),
      images: pixels ? list.length : 0,
      side: null,
      adapters: perItem('classify: adapters', o.adapters, list),
      precision: precision('classify', o.precision),
    };
    const { answer, floats, ms } = await this.#run('classify', args, o, { pixels });
    const { shapes, report, warnings } = answer as { shapes: [number, number][]; report: TextReport; warnings: string[] };
    let from = 0;
    const results = shapes.map(([length, labels]) => ({ logits: floats.subarray(from, (from += length)), labels }));
    return { results, truncated: report.truncated, warnings, timing: timing(report, ms) };
  }

  async index<D extends T.Doc>(documents: readonly D[], options?: T.IndexOptions<D>): Promise<T.Index<D>> {
    const o = check.checkOptions('index', options, [...COMMON, 'adapters', 'windows', 'precision']);
    const args = {
      documents: check.documentTexts('index: documents', documents),
      documentAdapters: documentsOf('index: adapters', o.adapters, documents),
      windows: check.flagOf('index: windows', o.windows) ?? false,
      precision: precision('index', o.precision),
    };
    const kept = [...documents];
    const late = ({ answer }: TaskResult) => this.#drop((answer as { index: number }).index);
    const { answer, ms } = await this.#run('index', args, o, { late });
    const { index, report } = answer as { index: number; report: TextReport };
    return this.#indexed(index, kept, report.truncated, timing(report, ms));
  }

  async loadIndex<D extends T.Doc>(bytes: Uint8Array | ArrayBuffer, documents: readonly D[]): Promise<T.Index<D>> {
    if (!(bytes instanceof Uint8Array || bytes instanceof ArrayBuffer)) {
      throw new PolygraftError('ARGUMENT', 'loadIndex: the saved index must be a Uint8Array or an ArrayBuffer');
    }
    const { length } = check.documentTexts('loadIndex: documents', documents);
    const copy = new Uint8Array(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));
    const [index = 0, size = 0] = (await this.#link.call({ op: 'loadIndex', bytes: copy })) as number[];
    const made = this.#indexed(index, [...documents], [], { ms: 0, tokens: 0, rows: 0, cached: size });
    if (size === length) return made;
    await made.dispose();
    throw new PolygraftError('INDEX_STALE', `the saved index has ${size} documents, ${length} were given: build it again`);
  }

  #indexed<D extends T.Doc>(index: number, documents: readonly D[], truncated: readonly number[], took: T.Timing): T.Index<D> {
    const made = new RemoteIndex(documents, truncated, took, {
      search: (args, common) => this.#run('search', { index, ...args }, common),
      save: () => this.#link.call({ op: 'saveIndex', index }) as Promise<Uint8Array>,
      drop: () => this.#drop(index),
    });
    this.#abandoned.register(made, index);
    return made;
  }

  /** What the model took with it is gone already. */
  async #drop(index: number): Promise<void> {
    await this.#link.call({ op: 'dropIndex', index }).catch(() => {});
  }

  async explain(options: T.ExplainOptions): Promise<T.Explanation> {
    const o = check.checkOptions('explain', options, ['texts', 'adapters']);
    const texts = check.textsOf('explain: texts', o.texts);
    const args = argumentsOf('explain', { texts, adapters: perItem('explain: adapters', o.adapters, texts) });
    return (await this.#link.call({ op: 'explain', args })) as T.Explanation;
  }

  async memory(): Promise<T.Memory> {
    return (await this.#link.call({ op: 'memory' })) as T.Memory;
  }

  on<K extends keyof T.ModelEvents>(event: K, listener: (value: T.ModelEvents[K]) => void): () => void {
    return this.#events.on(event, listener);
  }

  async dispose(): Promise<void> {
    this.#link.close(new PolygraftError('DISPOSED', 'the model has been disposed of'));
    this.#adapters.clear();
  }

  #loaded(name: string, answer: unknown): T.AdapterReport {
    const report = { name, ...(answer as Omit<T.AdapterReport, 'name'>) };
    this.#adapters.set(name, report);
    return report;
  }

  /** `late` takes the result of a call that was aborted when it was as good as done. */
  async #run(
    task: TaskName,
    args: object,
    options: T.Common,
    { pixels, late }: { pixels?: Float32Array | undefined; late?: (result: TaskResult) => unknown } = {},
  ): Promise<TaskResult> {
    const call = { op: 'run' as const, task, args: argumentsOf(task, args), ...(pixels ? { pixels } : {}) };
    const undo = late && ((value: unknown) => late(value as TaskResult));
    return (await this.#link.call(call, { ...this.#common(task, options), late: undo })) as TaskResult;
  }

  #common(call: string, options: T.Common) {
    const signal = check.signalOf(`${call}: signal`, options.signal);
    const listener = check.functionOf(`${call}: onProgress`, options.onProgress);
    const progress = (value: T.Progress) => {
      guarded(listener, value);
      this.#events.emit('progress', value);
    };
    return { signal, progress };
  }
}

interface IndexCalls {
  search(args: object, options: T.Common): Promise<TaskResult>;
  save(): Promise<Uint8Array>;
  drop(): Promise<void>;
}

class RemoteIndex<D extends T.Doc> implements T.Index<D> {
  readonly truncated: readonly number[];
  readonly timing: T.Timing;
  readonly #documents: readonly D[];
  readonly #calls: IndexCalls;
  #disposed = false;

  constructor(documents: readonly D[], truncated: readonly number[], timing: T.Timing, calls: IndexCalls) {
    this.#documents = documents;
    this.truncated = truncated;
    this.timing = timing;
    this.#calls = calls;
  }

  get size(): number {
    return this.#documents.length;
  }

  async search(query: string, options?: T.SearchOptions<D>): Promise<T.Ranking<D>> {
    const o = check.checkOptions('search', options, [...COMMON, 'topN', 'adapters', 'returnDocuments', 'precision']);
    if (this.#disposed) throw new PolygraftError('DISPOSED', 'the index has been disposed of');
    const { query: side, documents: of } = sides(o.adapters, this.#documents);
    const args = {
      query: check.textOf('search: query', query),
      queryAdapters: side,
      // A single composition is the query's; the documents keep those that they were embedded under.
      documentAdapters: namesDocuments(o.adapters) ? of : null,
      topN: check.countOf('search: topN', o.topN) ?? 10,
      precision: precision('search', o.precision),
    };
    const wanted = check.flagOf('search: returnDocuments', o.returnDocuments) ?? false;
    return ranking(await this.#calls.search(args, o), wanted ? this.#documents : undefined);
  }

  async save(): Promise<Uint8Array> {
    if (this.#disposed) throw new PolygraftError('DISPOSED', 'the index has been disposed of');
    return this.#calls.save();
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#calls.drop();
  }
}

function precision(call: string, value: unknown): T.Precision | null {
  return check.choiceOf<T.Precision>(`${call}: precision`, value, ['fast', 'exact']) ?? null;
}

function timing(report: TextReport, ms: number): T.Timing {
  return { ms, tokens: report.tokens, rows: report.rows, cached: report.cached };
}

function ranking<D extends T.Doc>({ answer, ms }: TaskResult, documents: readonly D[] | undefined): T.Ranking<D> {
  const { results, scoring, report, query_truncated: queryTruncated, warnings } = answer as RankingAnswer;
  const shown = results.map((result): T.RerankResult<D> => {
    const document = documents?.[result.index];
    return document === undefined ? result : { ...result, document };
  });
  return { results: shown, scoring, warnings, truncated: report.truncated, queryTruncated, timing: timing(report, ms) };
}
