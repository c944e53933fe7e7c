// Bytes as they arrive, and reading exact runs of them: a model is never in JavaScript's memory as a whole.

import { PolygraftError } from './errors.js';

/** A file that can be read in pieces. */
export interface RangeFile {
  readonly size: number;
  /** Bytes from `start` up to `end`. */
  bytes(start: number, end: number): Promise<Uint8Array>;
}

/** What a file of a local folder may be. */
export type LocalFile = Blob | Uint8Array | RangeFile;

const PIECE = 1 << 20;

export function sizeOf(file: LocalFile): number {
  return file instanceof Uint8Array ? file.length : file.size;
}

/** A local file in pieces, of a megabyte where it is asked for them. */
export async function* localChunks(name: string, file: LocalFile): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    if (file instanceof Blob) yield* streamed(file);
    else yield* ranges(file);
  } catch (cause) {
    // A picked file that was changed or removed since.
    throw new PolygraftError('FILE_READ', `${name} cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** A stream reads ahead: asked for megabyte by megabyte, Chromium takes three times as long over a model. */
async function* streamed(file: Blob): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = file.stream().getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    // Whoever reads no further need not wait for it.
    reader.cancel().catch(() => {});
  }
}

async function* ranges(file: Uint8Array | RangeFile): AsyncGenerator<Uint8Array, void, undefined> {
  const size = sizeOf(file);
  for (let at = 0; at < size; at += PIECE) {
    const end = Math.min(at + PIECE, size);
    yield file instanceof Uint8Array ? file.subarray(at, end) : await file.bytes(at, end);
  }
}

/** SHA-256 as it comes from WebAssembly. */
export interface Hash {
  update(bytes: Uint8Array): void;
  finish(): string;
  free(): void;
}

/** What a manifest promises of a file. */
export interface Promised {
  bytes: number;
  sha256: string;
}

/** Passes chunks on and throws at the end when they are not the ones that were promised. */
export async function* checked(
  name: string,
  chunks: AsyncIterable<Uint8Array>,
  promised: Promised,
  hasher: () => Hash | Promise<Hash>,
): AsyncGenerator<Uint8Array, void, undefined> {
  let hash: Hash | undefined;
  let length = 0;
  try {
    for await (const chunk of chunks) {
      length += chunk.length;
      if (length > promised.bytes) break;
      // Not before there is something to hash: a download need not wait for WebAssembly.
      hash ??= await hasher();
      hash.update(chunk);
      yield chunk;
    }
    const hint = 'The file was changed or damaged on its way: upload it again together with polygraft.json.';
    if (length !== promised.bytes) {
      const found = length > promised.bytes ? 'more' : String(length);
      throw new PolygraftError('INTEGRITY', `${name} has ${found} bytes; polygraft.json promises ${promised.bytes}`, { hint });
    }
    const whole = hash ?? (await hasher());
    hash = undefined;
    const found = whole.finish();
    if (found !== promised.sha256) {
      const why = `${name} has the SHA-256 ${found}; polygraft.json promises ${promised.sha256}`;
      throw new PolygraftError('INTEGRITY', why, { hint });
    }
  } finally {
    hash?.free();
  }
}

/** Reads a file from front to back in exact runs. */
export class Reader {
  /** Bytes read so far. */
  at = 0;
  readonly #name: string;
  readonly #chunks: AsyncIterator<Uint8Array, void, undefined>;
  #rest: Uint8Array = new Uint8Array(0);
  readonly #onBytes: (count: number) => void;

  constructor(
    name: string,
    chunks: AsyncIterator<Uint8Array, void, undefined>,
    onBytes: (count: number) => void = () => {},
  ) {
    this.#name = name;
    this.#chunks = chunks;
    this.#onBytes = onBytes;
  }

  /** Exactly `count` bytes. */
  async read(count: number): Promise<Uint8Array> {
    const out = new Uint8Array(count);
    let filled = 0;
    for await (const piece of this.pieces(count)) {
      out.set(piece, filled);
      filled += piece.length;
    }
    return out;
  }

  /** Exactly `count` bytes, as they come. */
  async *pieces(count: number): AsyncGenerator<Uint8Array, void, undefined> {
    for (let passed = 0; passed < count; ) {
      const piece = await this.#take(Math.min(count - passed, PIECE));
      if (!piece) {
        const why = `${count} bytes are needed at ${this.at - passed} and the file has ${passed} more: it is cut off`;
        throw new PolygraftError('FORMAT_RANGE', `${this.#name}: ${why}`);
      }
      passed += piece.length;
      yield piece;
    }
  }

  /** Passes over `count` bytes. */
  async skip(count: number): Promise<void> {
    while (count > 0) {
      const piece = await this.#take(count);
      if (!piece) throw new PolygraftError('FORMAT_RANGE', `${this.#name} ends at byte ${this.at}: it is cut off`);
      count -= piece.length;
    }
  }

  /** All that is left, up to `limit` bytes. */
  async rest(limit: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of this.all()) {
      length += piece.length;
      if (length > limit) {
        throw new PolygraftError('FORMAT_LIMIT', `${this.#name} is longer than ${limit} bytes, the most that is read of such a file`);
      }
      pieces.push(piece);
    }
    const out = new Uint8Array(length);
    let at = 0;
    for (const piece of pieces) {
      out.set(piece, at);
      at += piece.length;
    }
    return out;
  }

  /** All that is left, as it comes. */
  async *all(): AsyncGenerator<Uint8Array, void, undefined> {
    for (let piece = await this.#take(PIECE); piece; piece = await this.#take(PIECE)) yield piece;
  }

  /** Passes over what is left: whatever is wrong with the end of the file is thrown here. */
  async end(): Promise<void> {
    while (await this.#take(PIECE));
  }

  /** Lets go of the source. */
  async close(): Promise<void> {
    await this.#chunks.return?.();
  }

  /** Up to `count` bytes, or undefined at the end. */
  async #take(count: number): Promise<Uint8Array | undefined> {
    while (this.#rest.length === 0) {
      const next = await this.#chunks.next();
      if (next.done) return undefined;
      this.#rest = next.value;
      this.#onBytes(next.value.length);
    }
    const piece = this.#rest.subarray(0, count);
    this.#rest = this.#rest.subarray(piece.length);
    this.at += piece.length;
    return piece;
  }
}
