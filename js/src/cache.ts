// Downloaded files in the browser's Cache storage. Keys hold the hash: a new version of a file is another entry.

import { shown } from './download.js';

const NAME = 'polygraft';
const HASH = 'polygraft-sha256';
/** Bytes that may wait for the disk. */
const AHEAD = 8 << 20;

/** Cache storage, where there is one: in a sandboxed frame even the question is refused. */
export function cacheStorage(): CacheStorage | undefined {
  try {
    return typeof caches === 'undefined' ? undefined : caches;
  } catch {
    return undefined;
  }
}

/** The package's cache, or why there is none. */
export async function openCache(): Promise<Cache | string> {
  const storage = cacheStorage();
  if (!storage) return 'this environment has no Cache storage (it needs a secure context that is not sandboxed)';
  try {
    return await storage.open(NAME);
  } catch (error) {
    return `Cache storage cannot be opened: ${(error as Error).message}`;
  }
}

/** The key of a file: its address with its hash. A query may be a token, another one on each visit: the hash says what it is. */
export function keyOf(url: string, sha256: string): string {
  const key = new URL(url);
  key.hash = '';
  key.search = '';
  key.searchParams.set(HASH, sha256);
  return key.href;
}

/** A stored file, or undefined when it is not there or not whole. */
export async function stored(cache: Cache, key: string, length: number): Promise<Blob | undefined> {
  const response = await cache.match(key);
  if (!response) return undefined;
  const blob = await response.blob();
  if (blob.size === length) return blob;
  await cache.delete(key);
  return undefined;
}

/** Drops the copies of earlier versions of the file that `key` stands for. */
export async function prune(cache: Cache, key: string): Promise<void> {
  const nameless = (url: string) => url.replace(/[?#].*$/s, '');
  for (const { url } of await cache.keys()) {
    if (url !== key && nameless(url) === nameless(key)) await cache.delete(url);
  }
}

/** Writes a file as it passes by. The entry appears when {@link CacheWriter.commit} is called, or not at all. */
export class CacheWriter {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #put: Promise<string | undefined>;
  #broken = false;

  constructor(cache: Cache, key: string, length: number) {
    const room = new ByteLengthQueuingStrategy({ highWaterMark: AHEAD });
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>({}, room);
    this.#writer = writable.getWriter();
    const headers = { 'Content-Type': 'application/octet-stream', 'Content-Length': String(length) };
    this.#put = cache.put(key, new Response(readable as ReadableStream<Uint8Array<ArrayBuffer>>, { headers })).then(
      () => undefined,
      (error: Error) => {
        // Quota, private mode: the model works all the same, and is downloaded again next time.
        this.#broken = true;
        this.#writer.abort(error).catch(() => {});
        return `${shown(key)} could not be kept: ${error.message}`;
      },
    );
  }

  async write(chunk: Uint8Array): Promise<void> {
    if (this.#broken) return;
    const broken = () => (this.#broken = true);
    this.#writer.write(chunk).catch(broken);
    // Waits only when the disk is far behind.
    await this.#writer.ready.catch(broken);
  }

  /** Ends the entry; gives what went wrong, if anything did. */
  async commit(): Promise<string | undefined> {
    await this.#writer.close().catch(() => {});
    return this.#put;
  }

  /** Drops the entry. */
  async discard(): Promise<void> {
    this.#broken = true;
    await this.#writer.abort(new Error('not kept')).catch(() => {});
    await this.#put;
  }
}
