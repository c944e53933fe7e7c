// Paths and file: addresses, in Node.

import { open, readdir, stat } from 'node:fs/promises';
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
  if (/^(https?|data|blob):/i.test(text)) return placeAt(new URL(text));
  const path = pathOf(source);
  return { kind: 'disk', list: () => filesAt(path) };
}

/** The files of a folder, or the one file at `path`. */
async function filesAt(path: string): Promise<Map<string, RangeFile>> {
  const info = await stat(path).catch((cause: unknown) => {
    throw new PolygraftError('FILE_MISSING', `${path} is not there`, { cause });
  });
  if (info.isFile()) return new Map([[basename(path), await fileAt(path)]]);
  const names = await readdir(path, { recursive: true });
  if (names.length > MOST_FILES) {
    throw new PolygraftError('NOT_A_MODEL', `${path} has ${names.length} files: it is no folder of a model or an adapter`);
  }
  const files = new Map<string, RangeFile>();
  for (const name of names) {
    const full = join(path, name);
    if ((await stat(full)).isFile()) files.set(name.split(sep).join('/'), await fileAt(full));
  }
  if (files.size === 0) throw new PolygraftError('FILE_MISSING', `${path} is empty`);
  return files;
}

/** The path that a source names. */
export function pathOf(source: string | URL): string {
  const text = String(source);
  return /^file:/i.test(text) ? fileURLToPath(text) : text;
}

/** A file that is opened for each piece: pieces are a megabyte, and nothing is left open. */
async function fileAt(path: string): Promise<RangeFile> {
  const { size } = await stat(path);
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
