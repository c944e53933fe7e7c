// A base model in fewer bits, in Node: its files lie on the disk, and some rows of them are in memory at a time.

import { appendFileSync, closeSync, openSync, readSync } from 'node:fs';
import { mkdir, mkdtemp, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { cwd } from 'node:process';
import { locate, pathOf } from './disk.js';
import { PolygraftError } from './errors.js';
import { MANIFEST, openModel, type Folder, type Io } from './folder.js';
import { placeOf } from './place.js';
import * as wasm from './wasm/polygraft.js';

/** The folder that `output` names. What is there is deleted in the end: it must not hold the source or who works here. */
export async function outputOf(source: string, output: string): Promise<string> {
  const whole = resolve(output);
  // A link in its place is replaced itself, one on the way there is followed.
  const folder = join(await real(dirname(whole)), basename(whole));
  const holds = (path: string) => {
    const way = relative(folder, path);
    return way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
  };
  const refused = (what: string) =>
    new PolygraftError('ARGUMENT', `${output} would be replaced as a whole, and it ${what}`, {
      hint: 'Give OUT a name of its own, of a folder that holds nothing else.',
    });
  if (holds(cwd())) throw refused('is the working directory, or holds it');
  if (placeOf(source, locate).kind !== 'disk') return folder;
  const from = await real(resolve(pathOf(source)));
  if (from !== folder && holds(from)) throw refused(`holds ${source}, which is to be converted`);
  return folder;
}

/** A path with its links followed, as far as it is there. */
async function real(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    return dirname(path) === path ? path : join(await real(dirname(path)), basename(path));
  }
}

/** Converts the model at `source`, a path or an address, into `folder`, as `outputOf` gives it; gives the bytes written. */
export async function convertModel(source: string, folder: string, bits: string, io: Io): Promise<number> {
  await mkdir(dirname(folder), { recursive: true });
  // Made beside its place and moved there whole: a half-written model is never loaded.
  const beside = await mkdtemp(join(dirname(folder), `.${basename(folder)}-`));
  try {
    const place = placeOf(source, locate);
    const model = await openModel(place, io);
    const root = place.kind === 'disk' ? await checkedRoot(pathOf(source), model) : await saved(model, join(beside, 'source'));
    const fresh = join(beside, 'model');
    await mkdir(fresh);
    const disk = new Disk(root, model, fresh, io);
    let bytes: number;
    try {
      bytes = wasm.convert(disk, bits, basename(source.replace(/[?#].*$/, '').replace(/[\\/]+$/, '')));
    } finally {
      disk.close();
    }
    await rm(folder, { recursive: true, force: true });
    await rename(fresh, folder);
    return bytes;
  } finally {
    await rm(beside, { recursive: true, force: true });
  }
}

/** Where a local model's files are, once those that its manifest lists are what it promises. */
async function checkedRoot(path: string, model: Folder): Promise<string> {
  if ((await stat(path)).isFile()) return dirname(path);
  const listed = await stat(join(path, MANIFEST)).catch(() => undefined);
  if (!listed) return path;
  for (const entry of model.entries.values()) {
    const reader = entry.open();
    await reader.end().finally(() => reader.close());
  }
  return path;
}

/** Saves a model's files from the network under `root`; each is checked on the way. */
async function saved(model: Folder, root: string): Promise<string> {
  for (const [name, entry] of model.entries) {
    const path = join(root, name);
    await mkdir(dirname(path), { recursive: true });
    const reader = entry.open();
    await writeFile(path, reader.all()).finally(() => reader.close());
  }
  return root;
}

/** A folder that is read and one that is written, as WebAssembly wants them: it cannot wait. */
class Disk {
  readonly #root: string;
  readonly #lengths: Map<string, number>;
  readonly #output: string;
  readonly #progress: (bytes: number) => void;
  /** The file that is read: weights are asked for in some hundred runs. */
  #open: { name: string; file: number } | undefined;

  constructor(root: string, model: Folder, output: string, io: Io) {
    [this.#root, this.#output] = [root, output];
    this.#lengths = new Map([...model.entries].map(([name, entry]) => [name, entry.length ?? 0]));
    const weights = [...this.#lengths].filter(([name]) => name.endsWith('.safetensors'));
    const total = weights.reduce((sum, [, length]) => sum + length, 0);
    let loaded = 0;
    this.#progress = (bytes) => {
      loaded = Math.min(loaded + bytes, total);
      io.progress({ phase: 'fetch', file: 'converting', loaded, total });
    };
  }

  names(): string[] {
    return [...this.#lengths.keys()];
  }

  length(name: string): number {
    return this.#lengths.get(name) ?? 0;
  }

  range(name: string, offset: number, length: number): Uint8Array {
    if (this.#open?.name !== name) {
      this.close();
      this.#open = { name, file: openSync(join(this.#root, name), 'r') };
    }
    const out = new Uint8Array(length);
    for (let filled = 0; filled < length; ) {
      const read = readSync(this.#open.file, out, filled, length - filled, offset + filled);
      if (read === 0) throw new Error('it is shorter than it was');
      filled += read;
    }
    if (name.endsWith('.safetensors')) this.#progress(length);
    return out;
  }

  append(name: string, bytes: Uint8Array): void {
    appendFileSync(join(this.#output, name), bytes);
  }

  close(): void {
    if (this.#open) closeSync(this.#open.file);
    this.#open = undefined;
  }
}
