// A base model from its files into WebAssembly, tensor by tensor: its numbers are in memory once, plus one tensor.

import type { Crew } from './crew.js';
import { PolygraftError } from './errors.js';
import { openAdapter, openModel, type Folder, type Io } from './folder.js';
import type { Place } from './place.js';
import { isAbort } from './wire.js';
import * as wasm from './wasm/polygraft.js';

/** Largest small file: XLM-R's tokenizer has 17 MB. */
const SMALL_LIMIT = 128 << 20;
/** Largest adapter. */
const ADAPTER_LIMIT = 1 << 30;
const CONVERT = 'npx polygraft quantize SRC OUT makes a folder that loads.';

/** What a base model needs of whoever computes, besides {@link Io}. */
export interface ModelIo extends Io {
  /** Returns to the event loop, so that an abort gets through. */
  tick: () => Promise<void>;
  /** Milliseconds of work between two ticks: one for each of some hundred tensors is felt. */
  sliceMs: number;
}

/** {@link ModelIo}, and satellites that get the layers as they pass. */
type LoadIo = ModelIo & { crew: Crew };

/** Loads a base model. What is small is read while whoever computes, WebAssembly with its satellites, is still on the way. */
export async function loadModel(place: Place, precision: string, io: ModelIo, begun: Promise<Crew>): Promise<wasm.Model> {
  const folder = await openModel(place, io);
  const small = await smallFiles(folder);
  const crew = await begun;
  return (await streamed(folder, new wasm.Loader(handed(folder, small, crew)), { ...io, crew })).finish(precision);
}

/** The loader with every tensor in it. */
async function streamed(folder: Folder, loader: wasm.Loader, io: LoadIo): Promise<wasm.Loader> {
  let whole = false;
  try {
    for (const shard of loader.shards()) await loadShard(folder, shard, loader, io);
    whole = true;
  } finally {
    if (!whole) release(loader);
  }
  return loader;
}

/** Whether a base's configuration is of one that reads images: it has no tokenizer. */
async function seesImages(folder: Folder, config: string): Promise<boolean> {
  return new TextDecoder().decode(await folder.whole(config, SMALL_LIMIT)).includes('"image_size"');
}

/** The files that the loader reads at once. */
async function smallFiles(folder: Folder): Promise<Map<string, Uint8Array>> {
  const names = [...folder.entries.keys()];
  const config = names.find((name) => /(^|\/)config\.json$/.test(name));
  if (!names.some((name) => /tokenizer\.(kit|json)$/.test(name)) && !(config && (await seesImages(folder, config)))) {
    const why = names.includes('adapter_config.json') ? 'this is an adapter; load it with model.loadAdapter' : CONVERT;
    throw new PolygraftError('FILE_MISSING', 'tokenizer.kit is missing: without a tokenizer a model cannot read text', { hint: why });
  }
  const small = names.filter((name) => /\.(json|kit|txt)$/.test(name));
  return new Map(await Promise.all(small.map(async (name) => [name, await folder.whole(name, SMALL_LIMIT)] as const)));
}

/** The small files for the loader, and for satellites what they need of them; weights are announced by name and length. */
function handed(folder: Folder, small: ReadonlyMap<string, Uint8Array>, crew: Crew): wasm.Folder {
  const out = new wasm.Folder();
  let whole = false;
  try {
    for (const [name, { length = 0 }] of folder.entries) {
      const bytes = small.get(name);
      if (bytes) {
        out.add(name, bytes);
        // Satellites read no text.
        if (!/tokenizer\.(json|kit)$|vocab\.txt$/.test(name)) crew.tell({ op: 'file', name, bytes });
      } else {
        out.announce(name, length);
        crew.tell({ op: 'announce', name, length });
      }
    }
    whole = true;
  } finally {
    if (!whole) release(out);
  }
  return out;
}

async function loadShard(folder: Folder, shard: string, loader: wasm.Loader, io: LoadIo): Promise<void> {
  const entry = folder.entries.get(shard);
  if (entry?.length === undefined) throw new PolygraftError('FILE_MISSING', `${shard} is missing`);
  const reader = entry.open();
  try {
    const first = await reader.read(Math.min(16, entry.length));
    const length = wasm.Loader.headerLength(shard, first);
    if (length > entry.length) {
      throw new PolygraftError('FORMAT_RANGE', `${shard} has ${entry.length} bytes and its header alone needs ${length}: it is cut off`);
    }
    const header = new Uint8Array(length);
    header.set(first.subarray(0, length));
    // A header is longer than 16 bytes as soon as there is a tensor in it.
    if (length > first.length) header.set(await reader.read(length - first.length), first.length);
    const plans = loader.begin(shard, header, entry.length);
    const tables = new Set(io.crew.size > 0 ? loader.tables(shard) : []);
    io.crew.tell({ op: 'shard', shard, header, length: entry.length });
    let turn = performance.now();
    for (let i = 0; i < plans.length; i += 3) {
      const [index = 0, offset = 0, bytes = 0] = plans.subarray(i, i + 3);
      await reader.skip(offset - reader.at);
      loader.expect(bytes);
      const crew = tables.has(index) ? undefined : io.crew;
      crew?.tell({ op: 'expect', bytes });
      for await (const piece of reader.pieces(bytes)) {
        loader.part(piece);
        crew?.part(piece);
      }
      loader.tensor(shard, index);
      crew?.tell({ op: 'tensor', shard, index });
      if (performance.now() - turn < io.sliceMs) continue;
      await io.tick();
      turn = performance.now();
      io.signal.throwIfAborted();
    }
    await reader.end();
  } finally {
    await reader.close();
  }
}

/** An adapter's files. */
export async function readAdapter(place: Place, io: Io): Promise<wasm.Folder> {
  const folder = await openAdapter(place, io).catch((error: unknown) => {
    throw explained(error, place);
  });
  const out = new wasm.Folder();
  let whole = false;
  try {
    for (const [name, entry] of folder.entries) {
      // What lies beside an adapter and is not read by it (a README, an optimizer's state) is only listed.
      const wanted = folder.entries.size === 1 || /\.(json|safetensors|bin|pt)$/.test(name);
      if (!wanted) out.announce(name, entry.length ?? 0);
      else out.add(name, await folder.whole(name, ADAPTER_LIMIT));
    }
    whole = true;
  } catch (error) {
    throw explained(error, place);
  } finally {
    if (!whole) release(out);
  }
  return out;
}

/** A folder's address stands for the files of a library: a missing one deserves to be told what was expected. */
function explained(error: unknown, place: Place): unknown {
  if (isAbort(error) || !(error instanceof PolygraftError) || error.code !== 'FETCH' || place.kind !== 'folder') return error;
  const expected = 'A folder is read as PEFT (adapter_config.json, adapter_model.safetensors or .bin) or AdapterHub (adapter_config.json, pytorch_adapter.bin or adapter.safetensors) saves it; a language vector is a single .safetensors file.';
  return new PolygraftError('FETCH', error.message, { cause: error, hint: `${error.hint ?? ''} ${expected}`.trim() });
}

/** Frees a WebAssembly object. One that has trapped may trap again, which would hide the first error. */
export function release(object: { free(): void }): void {
  try {
    object.free();
  } catch {
    // The instance is of no more use; its memory goes with it.
  }
}
