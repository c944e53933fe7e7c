// The public types. Everything here is erased by the compiler: importing them costs nothing.

/** Bytes of one file. */
export type Bytes = Uint8Array | ArrayBuffer | Blob;

/**
 * Where a model or an adapter comes from: the address of a folder (`http:`, `https:`, relative to the page, and in
 * Node a path or `file:`), files the user picked, or files by name.
 */
export type Source = string | URL | Iterable<File> | ReadonlyMap<string, Bytes> | Readonly<Record<string, Bytes>>;

/**
 * Which adapters a row takes: text such as `"stack(hu, rank)"`, a list (a stack), a tree, or `null` for none.
 */
export type Composition =
  | null
  | string
  | readonly Composition[]
  | { readonly stack: readonly Composition[] }
  | { readonly fuse: readonly Composition[] }
  | { readonly sum: readonly Composition[]; readonly weights?: readonly number[] }
  | { readonly average: readonly Composition[]; readonly weights?: readonly number[] }
  | { readonly mix: readonly Composition[]; readonly weights?: readonly number[] }
  | { readonly split: readonly Composition[]; readonly tokens?: readonly (number | '*')[] }
  | { readonly scale: number; readonly of: Composition };

/** Compositions of the two sides: one for both, or one each; documents may differ one by one. */
export type Adapters<D = string> =
  | Composition
  | {
      /** The query's; none when absent. */
      readonly query?: Composition;
      /** All documents', or a function from a document and its index; none when absent. */
      readonly document?: Composition | ((document: D, index: number) => Composition);
    };

/** What every call that takes a while understands. */
export interface Common {
  /** Aborts the call: its promise rejects with an `AbortError` and no further work is done. */
  signal?: AbortSignal | undefined;
  /** Called as the work goes on. */
  onProgress?: ((progress: Progress) => void) | undefined;
}

/** How far a call is. */
export interface Progress {
  /** `fetch`: bytes of the model's files; `run`: tokens of the texts. */
  phase: 'fetch' | 'run';
  /** The file in work (`fetch`). */
  file?: string;
  /** Bytes or tokens done; never falls. */
  loaded: number;
  /** Bytes or tokens in all; absent while it is not known. */
  total?: number;
}

/** How activations are computed: `fast` quantizes them to 8 bits in front of quantized layers, `exact` keeps f32. */
export type Precision = 'fast' | 'exact';

/** Where to compute. */
export type DeviceChoice = 'auto' | 'cpu' | 'webgpu';

/** Where calls run, and why. */
export interface DeviceState {
  /** `webgpu`: large enough calls run on the GPU; the CPU has the others, and all when the GPU is lost. */
  device: 'cpu' | 'webgpu';
  /** Why, in words. */
  reason: string;
  /** The GPU's name, where one was looked at. */
  gpu?: string;
}

/** Options of {@link load}. */
export interface LoadOptions extends Common {
  /**
   * `auto` (default): a GPU where there is one that is faster, which is measured once and remembered; `webgpu`: a GPU
   * or an error, and a software device counts as one; `cpu`: the CPU. `model.device` says what was chosen, and why.
   */
  device?: DeviceChoice | undefined;
  /** Computes in a worker, so that the page stays fluid. Default: true where workers exist. */
  worker?: boolean | undefined;
  /**
   * Workers that compute, each on whole rows of a call, 1 to 16; more than one needs workers. Nothing is shared between
   * them, so that any page may have them; each holds the layers (e5-small in 4 bits: 15 MB, and what the rows at work take). Counts while the
   * CPU computes. Default: 1.
   */
  threads?: number | undefined;
  /** Keeps downloaded files in the browser's Cache storage. Default: true where it exists. */
  cache?: boolean | undefined;
  /** Default: `fast`. */
  precision?: Precision | undefined;
  /** Measures where the time goes and tells it after each call, as the event `profile`. Default: false. */
  profile?: boolean | undefined;
  /** Where `polygraft_bg.wasm` is, or its bytes or module, when a bundler moved it. */
  wasm?: string | URL | BufferSource | WebAssembly.Module | undefined;
}

/** Options of {@link Model.loadAdapter}. */
export interface AdapterOptions extends Common {
  /** Refuses an adapter with tensors that nothing uses, or that lacks some. Default: true. */
  strict?: boolean | undefined;
  /** Loads an adapter that names another base model, if its shapes fit. Default: false. */
  allowBaseMismatch?: boolean | undefined;
  /** The task that runs, for a method that holds several (Poly, multitask prompt tuning). */
  task?: number | undefined;
  /** `false` leaves an invertible adapter's coupling of the embeddings out. Default: true. */
  invertible?: boolean | undefined;
  /** `direft` for a DiReFT, which AdapterHub saves so that it cannot be told from a NoReFT. */
  reft?: 'direft' | undefined;
  /** What a sparse fine-tuning's head is for, where its file does not show it (BERT's classifiers). Default: as the base's own, else `sequence`. */
  head?: 'sequence' | 'token' | undefined;
  /** `base` when the tokenizer that was saved beside an adapter's own words (AdapterHub's `embedding.pt`) is the base's. */
  tokenizer?: 'base' | undefined;
}

/** What loading an adapter did. */
export interface AdapterReport {
  /** The name that compositions use. */
  name: string;
  /** `peft lora`, `language vector` and others. */
  family: string;
  /** `exact`: made for this base; `unknown`: it does not say, and the shapes fit; `overridden`: `allowBaseMismatch`. */
  base: 'exact' | 'unknown' | 'overridden';
  /** Changes applied. */
  applied: number;
  /** What is changed, and how. */
  sites: string[];
  /** Tensors that nothing used (`strict: false`). */
  unused: string[];
  /** Tensors that its configuration promises and its file lacks (`strict: false`). */
  missing: string[];
  /** Outputs of the head that travels with it. */
  head: number | null;
  /** BCP 47 tag, when it is a language's. */
  language: string | null;
  /** Bytes held. */
  bytes: number;
  /** Things to know, such as a scale that is zero. */
  notes: string[];
}

/** What a model is. */
export interface ModelInfo {
  /** Name in the model's own files. */
  name: string;
  /** `bert`, `xlm-roberta`, `vit` and others: the `model_type` of its configuration. */
  arch: string;
  /** sha256 of the source's tensors, when the folder says so. */
  lineage: string | null;
  /** Width of hidden states. */
  hidden: number;
  /** Transformer layers. */
  layers: number;
  /** Rows of the word table. */
  vocabulary: number;
  /** Tokens a text is cut to, special tokens included. */
  maxTokens: number;
  /** Width of an embedding. */
  embeddingWidth: number;
  /** The images that it reads, where it reads images; it then reads no text. */
  image: { channels: number; height: number; width: number } | null;
  /** Outputs of the base's own head; 0 without one. */
  headLabels: number;
  /** What computes, in words, at the time of loading. */
  backend: string;
  /** How activations are computed. */
  precision: Precision;
  /** Where it computes. */
  thread: 'worker' | 'inline';
  /** How many threads compute, at the time of loading. */
  threads: number;
}

/** Bytes in use. */
export interface Memory {
  /** The WebAssembly memory, of all threads. It never shrinks while the model lives. */
  wasm: number;
  /** Of that: weights and packed adapters, of all threads. */
  weights: number;
}

/** Time and work of a call. */
export interface Timing {
  /** Milliseconds of computing, without waiting in the queue. */
  ms: number;
  /** Tokens of all rows, special tokens included. */
  tokens: number;
  /** Rows run or remembered. */
  rows: number;
  /** Rows whose embedding was remembered. */
  cached: number;
}

/** A text, or an object with one. */
export type Doc = string | { readonly text: string };

/** Options of {@link Model.rerank}. */
export interface RerankOptions<D extends Doc = Doc> extends Common {
  /** What is looked for, without the model's prompt. */
  query: string;
  /** What is ranked, without the model's prompt. */
  documents?: readonly D[] | undefined;
  /** The same under another name; give one of the two. */
  passages?: readonly D[] | undefined;
  /** Compositions. Default: none. */
  adapters?: Adapters<D> | undefined;
  /** How many results; all when absent. */
  topN?: number | undefined;
  /** Splits long passages into windows and takes the best, instead of cutting them. Default: false. */
  windows?: boolean | undefined;
  /** Puts each document into its result. Default: false. */
  returnDocuments?: boolean | undefined;
  /** Instead of the model's. */
  precision?: Precision | undefined;
}

/** One passage with its score. */
export interface RerankResult<D = Doc> {
  /** The passage's place in the request. */
  index: number;
  /** Higher is better; see {@link Ranking.scoring}. */
  relevance_score: number;
  /** The head's raw output, where a head made the score. */
  logit?: number;
  /** The passage (`returnDocuments`). */
  document?: D;
}

/** The answer, best first; equal scores in the order of the request. */
export interface Ranking<D = Doc> {
  /** The passages. */
  results: RerankResult<D>[];
  /** Cosine of embeddings (−1 to 1), a head's sigmoid or softmax (0 to 1), or its bare logit. */
  scoring: 'cosine' | 'sigmoid' | 'softmax' | 'logit';
  /** Things the caller should know. */
  warnings: string[];
  /** Passages that were cut, by index. */
  truncated: number[];
  /** Whether the query was cut. */
  queryTruncated: boolean;
  /** Time and work. */
  timing: Timing;
}

/**
 * An image for a base that reads them: channels × height × width numbers, row major, of the size that
 * {@link ModelInfo.image} says, resized and normalised as the base's own `preprocessor_config.json` does it.
 */
export interface Picture {
  readonly pixels: Float32Array;
}

/** Options of {@link Model.embed}. */
export interface EmbedOptions<D = string> extends Common {
  /** Which of the model's prompts goes in front; none when absent. */
  side?: 'query' | 'document' | undefined;
  /** One composition for all texts, or a function from a text and its index. Default: none. */
  adapters?: Composition | ((text: D, index: number) => Composition) | undefined;
  /** Instead of the model's. */
  precision?: Precision | undefined;
}

/** Embeddings: `embeddings[i]` is a view of `width` floats into `data`, L2-normalised. */
export interface Embeddings {
  /** One row a text. */
  embeddings: Float32Array[];
  /** All rows, row major. */
  data: Float32Array;
  /** Floats a row. */
  width: number;
  /** Texts that were cut, by index. */
  truncated: number[];
  /** Things the caller should know. */
  warnings: string[];
  /** Time and work. */
  timing: Timing;
}

/** Options of {@link Model.classify}. */
export interface ClassifyOptions<D = string> extends Common {
  /** One composition for all items, or a function from an item and its index; its last adapter with a head gives the labels. Default: none, and the base's head. */
  adapters?: Composition | ((item: D, index: number) => Composition) | undefined;
  /** Instead of the model's. */
  precision?: Precision | undefined;
}

/** What heads say. */
export interface Classes {
  /** One an item: `logits` has `labels` numbers, or as many a token for heads of tokens. */
  results: { logits: Float32Array; labels: number }[];
  /** Texts that were cut, by index. */
  truncated: number[];
  /** Things the caller should know. */
  warnings: string[];
  /** Time and work. */
  timing: Timing;
}

/** Options of {@link Model.languageVector}. */
export interface LanguageVectorOptions extends Common {
  /** BCP 47 tag of the texts' language. */
  lang: string;
  /**
   * Passages in the pivot language: its own texts then need no adapter. Without one, every language is centred by a
   * vector of its own, queries apart from passages, which does more for a pool of mixed languages.
   */
  pivot?: readonly string[] | undefined;
  /** The composition the vector will stand beside, without language vectors. Default: none. */
  under?: Composition | undefined;
  /** Loads the vector under this name. */
  name?: string | undefined;
  /** Instead of the model's. */
  precision?: Precision | undefined;
}

/** A language vector. */
export interface LanguageVector {
  /** A safetensors file, which `loadAdapter` takes. */
  bytes: Uint8Array;
  /** What was loaded, when a name was given. */
  report: AdapterReport | null;
  /** Texts that were cut, by index; the pivot's follow the language's. */
  truncated: number[];
  /** Time and work. */
  timing: Timing;
}

/** Options of {@link Model.index}. */
export interface IndexOptions<D extends Doc = Doc> extends Common {
  /**
   * One composition for all documents, or a function from a document and its index; or both sides as in
   * {@link Model.rerank}, of which the documents' counts. Default: none.
   */
  adapters?: Adapters<D> | ((document: D, index: number) => Composition) | undefined;
  /** Splits long documents into windows, instead of cutting them. Default: false. */
  windows?: boolean | undefined;
  /** Instead of the model's. */
  precision?: Precision | undefined;
}

/** Options of {@link Index.search}. */
export interface SearchOptions<D extends Doc = Doc> extends Common {
  /** How many results. Default: 10. */
  topN?: number | undefined;
  /**
   * The query's composition, and optionally other compositions for the documents: only language vectors may differ
   * from those that the index was made with.
   */
  adapters?: Adapters<D> | undefined;
  /** Puts each document into its result. Default: false. */
  returnDocuments?: boolean | undefined;
  /** Instead of the model's. */
  precision?: Precision | undefined;
}

/** Documents embedded once, so that a query costs one row. */
export interface Index<D extends Doc = Doc> {
  /** Number of documents. */
  readonly size: number;
  /** Documents that were cut, by index. */
  readonly truncated: readonly number[];
  /** Time and work of making it. */
  readonly timing: Timing;
  /** Ranks the documents for a query. */
  search(query: string, options?: SearchOptions<D>): Promise<Ranking<D>>;
  /**
   * The index as a file, to keep and to give to {@link Model.loadIndex}. It holds vectors and names of adapters, none
   * of the documents' text.
   */
  save(): Promise<Uint8Array>;
  /** Frees its memory in the worker. */
  dispose(): Promise<void>;
}

/** Options of {@link Model.explain}. */
export interface ExplainOptions {
  /** The texts of the batch. */
  texts: readonly string[];
  /** One composition for all texts, or a function from a text and its index. Default: none. */
  adapters?: Composition | ((text: string, index: number) => Composition) | undefined;
}

/** One step of what would run. */
export interface ExplainLine {
  /** Place in the Program. */
  step: number;
  /** Encoder layer, when it belongs to one. */
  layer: number | null;
  /** What runs. */
  kind: string;
  /** At which site. */
  site: string | null;
  /** Shape of what it writes. */
  shape: string;
  /** How its weights are stored. */
  weights: string | null;
  /** For which tokens or rows of the packed batch, from which adapter, at which scale; empty: all. */
  takes: string[];
  /** Multiply-adds. */
  macs: number;
}

/** Bytes that a loaded adapter occupies: its numbers, and the structures that hold them. */
export interface Occupied {
  /** The name under which it is loaded. */
  adapter: string;
  /** In the model: the numbers as they are stored. */
  session: number;
  /** Over that: numbers in an order of the kernels', on the GPU all that a call has used. Nothing before a call uses it. */
  backend: number;
}

/** What would run. */
export interface Explanation {
  /** The steps in order. */
  lines: ExplainLine[];
  /** The steps as aligned text. */
  text: string;
  /** Multiply-adds in all. */
  macs: number;
  /** What every loaded adapter occupies in memory, by name. */
  adapters: Occupied[];
  /** Things to know about the compositions. */
  warnings: string[];
}

/** Something to know that is no error. */
export interface Warning {
  /** Stable, such as `WORKER_UNAVAILABLE`, `CACHE_UNAVAILABLE` or `THREAD_LOST`. */
  code: string;
  /** In words. */
  message: string;
}

/** Events of a model, by name. */
export interface ModelEvents {
  /** A call went on. */
  progress: Progress;
  /** Something to know that is no error. */
  warning: Warning;
  /** After a call, with `profile: true`: milliseconds by kernel, of the model's own thread and of a GPU that has timestamps. */
  profile: Readonly<Record<string, number>>;
  /** Calls run elsewhere from now on: the GPU was lost, and opened again or given up. */
  device: DeviceState;
}

/** A loaded base with its adapters. Calls queue and run in the order in which they were made. */
export interface Model {
  /** What the model is. */
  readonly info: ModelInfo;
  /** Where calls run now, and why. */
  readonly device: DeviceState;
  /** The adapters that are loaded, by name. */
  readonly adapters: ReadonlyMap<string, AdapterReport>;
  /** Loads an adapter under `name`, in place of one of that name. All or nothing. */
  loadAdapter(name: string, source: Source | Bytes, options?: AdapterOptions): Promise<AdapterReport>;
  /** Unloads an adapter. */
  unloadAdapter(name: string): Promise<void>;
  /** Makes a language vector from unlabelled passages; a hundred do. */
  languageVector(texts: readonly string[], options: LanguageVectorOptions): Promise<LanguageVector>;
  /** Ranks passages for a query. */
  rerank<D extends Doc>(options: RerankOptions<D>): Promise<Ranking<D>>;
  /** Embeds texts, or, on a base that reads them, images: all of one call. */
  embed<D extends string | Picture>(texts: D | readonly D[], options?: EmbedOptions<D>): Promise<Embeddings>;
  /** The logits of a head, the base's or an adapter's, for texts or images. */
  classify<D extends string | Picture>(items: D | readonly D[], options?: ClassifyOptions<D>): Promise<Classes>;
  /** Embeds documents for many searches. */
  index<D extends Doc>(documents: readonly D[], options?: IndexOptions<D>): Promise<Index<D>>;
  /**
   * A saved index, with the documents that it was made of, in their order. Nothing is computed. An index of another
   * base, or of another number of documents, is refused with `INDEX_STALE`; adapters that have changed since are
   * found when it is searched.
   */
  loadIndex<D extends Doc>(bytes: Uint8Array | ArrayBuffer, documents: readonly D[]): Promise<Index<D>>;
  /** What would run for these texts, step by step. */
  explain(options: ExplainOptions): Promise<Explanation>;
  /** Bytes in use. */
  memory(): Promise<Memory>;
  /** Listens; returns the function that stops it. */
  on<K extends keyof ModelEvents>(event: K, listener: (value: ModelEvents[K]) => void): () => void;
  /** Ends the worker and frees the memory. Pending and later calls reject with the code `DISPOSED`. */
  dispose(): Promise<void>;
}

/** What this environment can do. */
export interface Capabilities {
  /** Whether the library can run here. */
  supported: boolean;
  /** WebAssembly SIMD, without which nothing runs. */
  simd: boolean;
  /** Relaxed WebAssembly SIMD: the faster of the two builds runs. */
  relaxedSimd: boolean;
  /** A WebGPU adapter was found. Whether it is faster is measured when a model is loaded. */
  webgpu: boolean;
  /** Whether the page is cross-origin isolated. Nothing here needs it. */
  crossOriginIsolated: boolean;
  /** Whether workers exist. */
  workers: boolean;
  /** Whether Cache storage exists. */
  cache: boolean;
  /** Gigabytes of the device, rounded, where the browser tells. */
  deviceMemory: number | null;
  /** What is missing and what follows from it. */
  notes: string[];
}
