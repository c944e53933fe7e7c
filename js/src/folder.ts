// A folder's files with their lengths and hashes, each of which can be opened as a stream of bytes.

import { CacheWriter, keyOf, openCache, prune, stored } from './cache.js';
import { checked, localChunks, Reader, sizeOf, type Hash, type LocalFile, type Promised } from './chunks.js';
import { download, shown } from './download.js';
import { PolygraftError } from './errors.js';
import { inFolder, type Place } from './place.js';
import type { Progress, Warning } from './types.js';
import { isAbort } from './wire.js';

/** The list of a converted model's files. */
export const MANIFEST = 'polygraft.json';
const MANIFEST_LIMIT = 1 << 20;

/** What opening files needs from whoever computes. */
export interface Io {
  signal: AbortSignal;
  cache: boolean;
  /** Waits for WebAssembly, where that is still on its way. */
  hasher: () => Hash | Promise<Hash>;
  progress: (progress: Progress) => void;
  warn: (warning: Warning) => void;
}

/** One file of a folder. */
export interface Entry {
  /** Bytes; undefined for a file from the network that no manifest lists. */
  length: number | undefined;
  open(): Reader;
}

/** A folder's files by name. */
export class Folder {
  readonly entries = new Map<string, Entry>();
  readonly #io: Io;
  #loaded = 0;
  #total: number | undefined;

  constructor(io: Io) {
    this.#io = io;
  }

  /** A local folder; its manifest is heeded where there is one. */
  static async local(files: Map<string, LocalFile>, io: Io): Promise<Folder> {
    const folder = new Folder(io);
    const manifest = files.get(MANIFEST);
    let listed: Map<string, Promised> | undefined;
    if (manifest) listed = parse(MANIFEST, await new Reader(MANIFEST, localChunks(MANIFEST, manifest)).rest(MANIFEST_LIMIT));
    for (const [name, file] of files) {
      if (name === MANIFEST) continue;
      const [size, promised] = [sizeOf(file), listed?.get(name)];
      if (promised && promised.bytes !== size) {
        throw new PolygraftError('INTEGRITY', `${name} has ${size} bytes; polygraft.json promises ${promised.bytes}`);
      }
      const chunks = () => localChunks(name, file);
      folder.#add(name, size, promised ? () => checked(name, chunks(), promised, io.hasher) : chunks);
    }
    const gone = [...(listed?.keys() ?? [])].find((name) => !files.has(name));
    if (gone !== undefined) throw new PolygraftError('FILE_MISSING', `${gone} is missing: polygraft.json lists it`);
    // What else lies in the folder (other formats of the weights, a README) is not read.
    const read = [...folder.entries].filter(([name]) => /\.(safetensors|json|kit|txt)$/.test(name));
    folder.#total = read.reduce((sum, [, entry]) => sum + (entry.length ?? 0), 0);
    return folder;
  }

  /** A model's folder at an address. */
  static async remote(url: string, io: Io): Promise<Folder> {
    const folder = new Folder(io);
    const address = inFolder(url, MANIFEST);
    let text: Uint8Array;
    const reader = new Reader(MANIFEST, download({ url: address, signal: io.signal }));
    try {
      text = await reader.rest(MANIFEST_LIMIT);
    } catch (error) {
      if (!(error instanceof PolygraftError)) throw error;
      throw new PolygraftError(error.code, error.message, {
        cause: error,
        hint: `${error.hint ?? ''} A model is loaded through its polygraft.json, which npx polygraft quantize writes.`.trim(),
      });
    } finally {
      await reader.close();
    }
    const cache = io.cache ? await openCache() : undefined;
    if (typeof cache === 'string') io.warn({ code: 'CACHE_UNAVAILABLE', message: cache });
    const store = typeof cache === 'string' ? undefined : cache;
    const listed = parse(shown(address), text);
    for (const [name, file] of listed) {
      folder.#add(name, file.bytes, () => remoteChunks(inFolder(url, name), file, store, io));
    }
    folder.#total = [...listed.values()].reduce((sum, file) => sum + file.bytes, 0);
    return folder;
  }

  /** Named files at an address, without a manifest; those in `read` are here already. */
  static at(files: ReadonlyMap<string, string>, io: Io, read: ReadonlyMap<string, Uint8Array> = new Map()): Folder {
    const folder = new Folder(io);
    for (const [name, bytes] of read) {
      folder.#total = (folder.#total ?? 0) + bytes.length;
      folder.#add(name, bytes.length, () => localChunks(name, bytes));
    }
    for (const [name, url] of files) {
      const onLength = (length: number) => (folder.#total = (folder.#total ?? 0) + length);
      folder.#add(name, undefined, () => download({ url, signal: io.signal, onLength }));
    }
    return folder;
  }

  /** The whole of a small file, checked against its promise. */
  async whole(name: string, limit: number): Promise<Uint8Array> {
    const entry = this.entries.get(name);
    if (!entry) throw new PolygraftError('FILE_MISSING', `${name} is missing`);
    const reader = entry.open();
    try {
      return await reader.rest(limit);
    } finally {
      await reader.close();
    }
  }

  #add(name: string, length: number | undefined, chunks: () => AsyncGenerator<Uint8Array, void, undefined>): void {
    const open = () => {
      this.#report(name, 0);
      return new Reader(name, chunks(), (count) => this.#report(name, count));
    };
    this.entries.set(name, { length, open });
  }

  #report(file: string, count: number): void {
    this.#loaded += count;
    const progress: Progress = { phase: 'fetch', file, loaded: this.#loaded };
    if (this.#total !== undefined) progress.total = Math.max(this.#total, this.#loaded);
    this.#io.progress(progress);
  }
}

/** The folder at a place: a model's when `model`, else an adapter's. */
export async function openModel(place: Place, io: Io): Promise<Folder> {
  switch (place.kind) {
    case 'local':
      return Folder.local(place.files, io);
    case 'disk':
      return Folder.local(await place.list(), io);
    case 'folder':
      return Folder.remote(place.url, io);
    case 'file':
      throw new PolygraftError('NOT_A_MODEL', `${shown(place.url)} is a single file; a model is a folder`, {
        hint: 'Give the address of the folder that has polygraft.json.',
      });
  }
}

/** What the libraries save beside an adapter's configuration: of each pair the first that is there. */
type Pair = readonly [string, string];
const PEFT_FILES: Pair = ['adapter_model.safetensors', 'adapter_model.bin'];
const HUB_FILES: Pair = ['pytorch_adapter.bin', 'adapter.safetensors'];
const HUB_HEAD: Pair = ['pytorch_model_head.bin', 'model_head.safetensors'];
const FUSION_FILES: Pair = ['pytorch_model_adapter_fusion.bin', 'model_adapter_fusion.safetensors'];
/** AdapterHub's words of an adapter's own, and a small file of their tokenizer, if it was saved beside them. */
const WORDS = 'embedding.pt';
const WORDS_TOKENIZER = 'tokenizer/special_tokens_map.json';
/** What composable-sft saves. */
const DIFF = 'pytorch_diff.bin';
const CONFIG_LIMIT = 1 << 20;

/** An adapter's files: a single one, or what a library saved into a folder. */
export async function openAdapter(place: Place, io: Io): Promise<Folder> {
  switch (place.kind) {
    case 'local':
      return Folder.local(place.files, io);
    case 'disk':
      return Folder.local(await place.list(), io);
    case 'file': {
      const name = decoded(new URL(place.url).pathname.split('/').pop() ?? '') || 'adapter.safetensors';
      return Folder.at(new Map([[name, place.url]]), io);
    }
    case 'folder':
      return saved(place.url, io);
  }
}

/** A folder at an address, which cannot be listed: its configuration says which library's files to ask for. */
async function saved(url: string, io: Io): Promise<Folder> {
  const has = (name: string): Promise<boolean | undefined> => exists(inFolder(url, name), io.signal);
  const first = async ([one, other]: Pair): Promise<string> => {
    const said = await has(one);
    return said || (said === undefined && !(await has(other))) ? one : other;
  };
  const words = async (): Promise<string[]> => {
    if (!(await has(WORDS))) return [];
    return (await has(WORDS_TOKENIZER)) ? [WORDS, WORDS_TOKENIZER] : [WORDS];
  };
  const at = (names: readonly string[], known?: Map<string, Uint8Array>): Folder =>
    Folder.at(new Map(names.map((name) => [name, inFolder(url, name)])), io, known);
  const read = async (name: string): Promise<Uint8Array> => {
    const reader = new Reader(name, download({ url: inFolder(url, name), signal: io.signal }));
    try {
      return await reader.rest(CONFIG_LIMIT);
    } finally {
      await reader.close();
    }
  };
  /** A file that may be missing. Some servers say "forbidden" of one that is not there, so as not to tell. */
  const optional = async (name: string): Promise<Uint8Array | undefined> => {
    if ((await has(name)) === false) return undefined;
    try {
      return await read(name);
    } catch (error) {
      if (error instanceof PolygraftError && [401, 403, 404, 410].includes(error.cause as number)) return undefined;
      throw error;
    }
  };
  let config = 'adapter_config.json';
  let bytes: Uint8Array;
  try {
    bytes = await read(config);
  } catch (error) {
    if (isAbort(error)) throw error;
    // A sparse fine-tuning is one file, without a configuration.
    if (await has(DIFF)) return at([DIFF]);
    const alone = await words();
    if (alone.length > 0) return at(alone);
    config = 'adapter_fusion_config.json';
    const fusion = await optional(config);
    if (!fusion) throw error;
    bytes = fusion;
  }
  const text = new TextDecoder().decode(bytes);
  const names: string[] = [];
  const known = new Map([[config, bytes]]);
  if (config !== 'adapter_config.json') {
    names.push(await first(FUSION_FILES));
  } else {
    const peft = /"peft_type"/.test(text) || !/"(config|model_class)"/.test(text);
    names.push(await first(peft ? PEFT_FILES : HUB_FILES));
    const head = peft ? undefined : await optional('head_config.json');
    if (head) {
      known.set('head_config.json', head);
      names.push(await first(HUB_HEAD));
    }
    if (!peft) names.push(...(await words()));
  }
  return at(names, known);
}

/** A file's name in an address. A "%" that encodes nothing stands for itself. */
function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** Whether a server has a file; undefined where it does not say so without sending it. */
async function exists(url: string, signal: AbortSignal): Promise<boolean | undefined> {
  try {
    const response = await fetch(url, { method: 'HEAD', signal });
    await response.body?.cancel().catch(() => {});
    // A server that answers a missing file with a page is no file server.
    if (response.ok) return !/text\/html/.test(response.headers.get('content-type') ?? '');
    // Some servers refuse to answer without sending: only a plain no counts.
    return response.status === 404 || response.status === 410 ? false : undefined;
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

/** A file from the cache, else from the network and into the cache. The cache has only files that were checked. */
async function* remoteChunks(
  url: string,
  file: Promised,
  cache: Cache | undefined,
  io: Io,
): AsyncGenerator<Uint8Array, void, undefined> {
  const name = shown(url);
  const key = keyOf(url, file.sha256);
  const copy = cache && (await stored(cache, key, file.bytes).catch(() => undefined));
  if (copy) {
    try {
      yield* localChunks(name, copy);
    } catch (error) {
      // The next visit downloads it.
      await cache.delete(key).catch(() => {});
      throw error;
    }
    return;
  }
  const chunks = checked(name, download({ url, length: file.bytes, signal: io.signal }), file, io.hasher);
  if (!cache) {
    yield* chunks;
    return;
  }
  const writer = new CacheWriter(cache, key, file.bytes);
  let whole = false;
  try {
    for await (const chunk of chunks) {
      await writer.write(chunk);
      yield chunk;
    }
    whole = true;
  } finally {
    if (!whole) await writer.discard();
  }
  const problem = await writer.commit();
  if (problem) io.warn({ code: 'CACHE_FAILED', message: problem });
  else await prune(cache, key).catch(() => {});
}

/** Reads the manifest: relative names, sizes, hashes. */
function parse(where: string, bytes: Uint8Array): Map<string, Promised> {
  const bad = (why: string) => new PolygraftError('FORMAT_JSON', `${where}: ${why}`);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw bad('this is not JSON');
  }
  const { format, files } = (json ?? {}) as { format?: unknown; files?: unknown };
  if (typeof format === 'number' && format !== 1) {
    throw new PolygraftError('UNSUPPORTED_FORMAT', `${where}: format ${format}; this version reads format 1`, {
      hint: 'Update polygraft.',
    });
  }
  if (format !== 1 || typeof files !== 'object' || files === null) throw bad('it has no format and list of files');
  const out = new Map<string, Promised>();
  for (const [name, value] of Object.entries(files)) {
    const { bytes: length, sha256 } = (value ?? {}) as { bytes?: unknown; sha256?: unknown };
    const plain = name.split('/').every((part) => part !== '' && part !== '.' && part !== '..' && !part.includes('\\'));
    if (!plain) throw bad(`${JSON.stringify(name)} is no name of a file in this folder`);
    if (typeof length !== 'number' || !Number.isSafeInteger(length) || length < 0) throw bad(`${name}: bytes must be a whole number`);
    if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) throw bad(`${name}: sha256 must be 64 hexadecimal digits`);
    out.set(name, { bytes: length, sha256 });
  }
  return out;
}
