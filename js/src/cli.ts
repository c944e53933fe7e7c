#!/usr/bin/env node
// npx polygraft quantize: a model's folder in fewer bits, without Rust or Python.

import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { argv, exit, stderr, stdout } from 'node:process';
import { parseArgs } from 'node:util';
import { locate } from './disk.js';
import { PolygraftError } from './errors.js';
import { convertModel } from './loading.js';
import { placeOf } from './place.js';
import { trapped } from './trap.js';
import * as wasm from './wasm/polygraft.js';

const USAGE = `Usage: polygraft quantize [--bits 4|8|16] [--force] SRC OUT

Converts a base model (a Hugging Face folder with model.safetensors, config.json and tokenizer.json; a path or an
address with a polygraft.json) into a folder that load() takes: quantized weights, a compact tokenizer, and
polygraft.json with sizes and hashes. Computes in WebAssembly; the source in full precision must fit into 3 GB.

  --bits N   4 (default), 8 or 16 bits a weight
  --force    replace OUT when it exists
  --help     this text
`;

/** An error of usage: shown with the way to the help. */
class Usage extends Error {}

async function main(args: string[]): Promise<void> {
  const options = { bits: { type: 'string', default: '4' }, force: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } } as const;
  const { values, positionals } = parsed(() => parseArgs({ args, options, allowPositionals: true }));
  if (values.help || positionals.length === 0) {
    stdout.write(USAGE);
    return;
  }
  const [command, source, output, ...more] = positionals;
  if (command !== 'quantize') throw new Usage(`there is no command ${command}`);
  if (source === undefined || output === undefined || more.length > 0) throw new Usage('quantize needs SRC and OUT');
  if (!['4', '8', '16'].includes(String(values.bits))) throw new Usage(`--bits ${values.bits}: 4, 8 or 16`);
  const there = await stat(output).catch(() => undefined);
  if (there && !values.force) throw new Usage(`${output} exists; --force replaces it`);
  await quantize(source, output, String(values.bits));
}

async function quantize(source: string, output: string, bits: string): Promise<void> {
  const module = await WebAssembly.compile(await readFile(new URL('./wasm/polygraft_bg.wasm', import.meta.url)));
  wasm.initSync({ module });
  const name = basename(source.replace(/[?#].*$/, '').replace(/[\\/]+$/, ''));
  const io = {
    signal: new AbortController().signal,
    cache: false,
    hasher: () => new wasm.Hasher(),
    progress: ({ file = '', loaded, total = 0 }: { file?: string; loaded: number; total?: number }) => {
      if (stderr.isTTY && total > 0) stderr.write(`\r${file} ${Math.floor((100 * loaded) / total)} %\u001b[K`);
    },
    warn: ({ message }: { message: string }) => void stderr.write(`polygraft: warning: ${message}\n`),
    tick: async () => {},
    sliceMs: Number.POSITIVE_INFINITY,
  };
  const folder = await convertModel(placeOf(source, locate), bits, name, io);
  if (stderr.isTTY) stderr.write('\r\u001b[K');
  // Made beside its place and moved there whole: a half-written model is never loaded.
  const fresh = `${output.replace(/[\\/]+$/, '')}.new`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { recursive: true });
  let total = 0;
  for (const file of folder.names()) {
    const bytes = folder.take(file);
    total += bytes.length;
    await writeFile(join(fresh, file), bytes);
  }
  await rm(output, { recursive: true, force: true });
  await rename(fresh, output);
  stderr.write(`polygraft: wrote ${output}: ${(total / 1e6).toFixed(1)} MB\n`);
}

function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new Usage((error as Error).message);
  }
}

try {
  await main(argv.slice(2));
} catch (error) {
  stderr.write(`polygraft: error: ${(trapped(error) ?? (error as Error)).message}\n`);
  if (error instanceof Usage) stderr.write('polygraft --help says more.\n');
  if (error instanceof PolygraftError && error.hint) stderr.write(`${error.hint}\n`);
  exit(error instanceof Usage ? 2 : 1);
}
