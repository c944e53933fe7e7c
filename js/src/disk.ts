// Paths and file: addresses, in Node.

import { open, readdir, stat, type Stats } from 'node:fs/promises';
import { basename, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { RangeFile } from './chunks.js';
import { PolygraftError } from './errors.js';
import { placeAt, type Place } from './place.js';

/** A folder with more files than this is not a model's. */
const MOST_FILES = 1000;

/** What a path or an address means here. */
export function locate(source: string | URL): Place {
  const text = String(source);
  if (/^(https?|data|blob):/i.test(text)) return placeAt(understood(text, () => new URL(text)));
  const path = pathOf(source);
  return { kind: 'disk', list: () => filesAt(path) };
}

/** The files of a folder, or the one file at `path`. */
async function filesAt(path: string): Promise<Map<string, RangeFile>> {
  const info = await infoOf(path);
  if (!info) throw new PolygraftError('FILE_MISSING', `${path} is not there`);
  if (info.isFile()) return new Map([[basename(path), fileAt(path, info.size)]]);
  const names = await readdir(path, { recursive: true }).catch((cause: unknown) => {
    throw unreadable(path, cause);
  });
  if (names.length > MOST_FILES) {
    throw new PolygraftError('NOT_A_MODEL', `${path} has ${names.length} files: it is no folder of a model or an adapter`);
  }
  const files = new Map<string, RangeFile>();
  for (const name of names) {
    const full = join(path, name);
    // A link to nothing, as editors leave them: what must be there is missed later.
    const found = await infoOf(full);
    if (found?.isFile()) files.set(name.split(sep).join('/'), fileAt(full, found.size));
  }
  if (files.size === 0) throw new PolygraftError('FILE_MISSING', `${path} is empty`);
  return files;
}

/** What is at a path; undefined where nothing is. */
async function infoOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes((cause as { code: string }).code)) return undefined;
    throw unreadable(path, cause);
  }
}

function unreadable(path: string, cause: unknown): PolygraftError {
  return new PolygraftError('FILE_READ', `${path} cannot be read: ${(cause as Error).message}`, { cause });
}

/** The path that a source names. */
export function pathOf(source: string | URL): string {
  const text = String(source);
  return /^file:/i.test(text) ? understood(text, () => fileURLToPath(text)) : text;
}

/** What `read` makes of an address. */
function understood<T>(text: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new PolygraftError('ARGUMENT', `${JSON.stringify(text)} is no address: ${(cause as Error).message}`, { cause });
  }
}

/** A file that is opened for each piece: pieces are a megabyte, and nothing is left open. */
function fileAt(path: string, size: number): RangeFile {
  const bytes = async (start: number, end: number) => {
    const handle = await open(path);
    try {
      const out = new Uint8Array(end - start);
      let filled = 0;
      while (filled < out.length) {
        const { bytesRead } = await handle.read(out, filled, out.length - filled, start + filled);
        if (bytesRead === 0) throw new Error('it is shorter than it was');
        filled += bytesRead;
      }
      return out;
    } finally {
      await handle.close();
    }
  };
  return { size, bytes };
}
