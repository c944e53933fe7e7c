// Where files are, once callers' sources have been understood: an address, or local files by name.

import type { LocalFile } from './chunks.js';
import { PolygraftError } from './errors.js';
import type { Bytes, Source } from './types.js';

/** A folder at an address, one file at an address, files by name, or a folder on disk (Node, which has no worker). */
export type Place =
  | { kind: 'folder'; url: string }
  | { kind: 'file'; url: string }
  | { kind: 'local'; files: Map<string, LocalFile> }
  | { kind: 'disk'; list: () => Promise<Map<string, LocalFile>> };

/** Turns text or a URL into a place: pages and Node differ in what relative means. At once, so that calls stay in order. */
export type Locate = (source: string | URL) => Place;

/** The name under which a single file without one is read. */
const NAMELESS = 'adapter.safetensors';

/** What a caller means by `source`. */
export function placeOf(source: Source | Bytes, locate: Locate): Place {
  if (typeof source === 'string' || source instanceof URL) {
    if (source === '') throw new PolygraftError('ARGUMENT', 'source is an empty address');
    return locate(source);
  }
  const bytes = bytesOf(source);
  if (bytes) {
    const name = bytes instanceof Blob && 'name' in bytes ? String(bytes.name) : NAMELESS;
    return { kind: 'local', files: new Map([[name, bytes]]) };
  }
  if (typeof source !== 'object' || source === null) throw notASource();
  let entries: [unknown, unknown][];
  if (source instanceof Map) entries = [...source];
  else if (Symbol.iterator in source) entries = picked(source as Iterable<File>);
  else entries = Object.entries(source);
  const files = new Map<string, LocalFile>();
  for (const [name, value] of entries) {
    const file = bytesOf(value);
    if (typeof name !== 'string' || !file) throw notASource();
    if (files.has(name)) throw new PolygraftError('ARGUMENT', `source has two files named ${JSON.stringify(name)}`);
    files.set(name, file);
  }
  if (files.size === 0) throw new PolygraftError('ARGUMENT', 'source has no files');
  return { kind: 'local', files: withoutCommonFolder(files) };
}

/** An address as a place: a folder, unless it names a file of a kind that comes alone. */
export function placeAt(url: URL): Place {
  const last = url.pathname.slice(url.pathname.lastIndexOf('/') + 1);
  if (/\.(safetensors|bin|pt|zip|npz|gguf|onnx)$/i.test(last) || url.protocol === 'blob:' || url.protocol === 'data:') {
    return { kind: 'file', url: url.href };
  }
  const folder = new URL(url);
  // The listing stands for its folder; and a folder may be written without its last slash.
  if (last === 'polygraft.json' || last === 'adapter_config.json' || last === 'config.json') {
    folder.pathname = folder.pathname.slice(0, -last.length);
  } else if (last !== '') {
    folder.pathname += '/';
  }
  folder.hash = '';
  return { kind: 'folder', url: folder.href };
}

/** The address of `name` in a folder; a query (a token, a version) goes along. */
export function inFolder(folder: string, name: string): string {
  const url = new URL(folder);
  url.pathname += name.split('/').map(encodeURIComponent).join('/');
  return url.href;
}

function bytesOf(value: unknown): Blob | Uint8Array | undefined {
  if (typeof Blob !== 'undefined' && value instanceof Blob) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return undefined;
}

/** Files of a file input or a drop, under their paths in the folder that was picked. */
function picked(source: Iterable<File>): [string, File][] {
  return [...source].map((file) => {
    if (typeof Blob === 'undefined' || !(file instanceof Blob)) throw notASource();
    return [file.webkitRelativePath || file.name, file];
  });
}

/** Names relative to the folder that all files share: `model/config.json` is `config.json`. */
function withoutCommonFolder(files: Map<string, LocalFile>): Map<string, LocalFile> {
  const first = [...files.keys()][0] ?? '';
  const folder = first.slice(0, first.indexOf('/') + 1);
  if (folder === '' || files.size === 1 || ![...files.keys()].every((name) => name.startsWith(folder))) return files;
  return new Map([...files].map(([name, file]) => [name.slice(folder.length), file]));
}

function notASource(): PolygraftError {
  return new PolygraftError(
    'ARGUMENT',
    'source must be an address, a list of File, or a Map or object from file names to Blob, ArrayBuffer or Uint8Array',
  );
}
