#!/usr/bin/env node
// npx polygraft quantize: a model's folder in fewer bits, without Rust or Python.

import { readFile, stat } from 'node:fs/promises';
import { argv, exit, stderr, stdout } from 'node:process';
import { parseArgs } from 'node:util';
import { convertModel, outputOf } from './convert.js';
import { PolygraftError } from './errors.js';
import { trapped } from './trap.js';
import * as wasm from './wasm/polygraft.js';

const USAGE = `Usage: polygraft quantize [--bits 4|8|16] [--force] SRC OUT

Converts a base model (a Hugging Face folder with model.safetensors, config.json and tokenizer.json; a path or an
address with a polygraft.json) into a folder that load() takes: quantized weights, a compact tokenizer, and
polygraft.json with sizes and hashes. Computes in WebAssembly, some rows of a matrix in memory at a time; a model at an
address is saved beside OUT first.

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
  const folder = await outputOf(source, output);
  const there = await stat(folder).catch(() => undefined);
  if (there && !values.force) throw new Usage(`${output} exists; --force replaces it`);
  await quantize(source, folder, String(values.bits));
}

async function quantize(source: string, folder: string, bits: string): Promise<void> {
  const module = await WebAssembly.compile(await readFile(new URL('./wasm/polygraft_bg.wasm', import.meta.url)));
  wasm.initSync({ module });
  const io = {
    signal: new AbortController().signal,
    cache: false,
    hasher: () => new wasm.Hasher(),
    progress: ({ file = '', loaded, total = 0 }: { file?: string; loaded: number; total?: number }) => {
      if (stderr.isTTY && total > 0) stderr.write(`\r${file} ${Math.floor((100 * loaded) / total)} %\u001b[K`);
    },
    warn: ({ message }: { message: string }) => void stderr.write(`polygraft: warning: ${message}\n`),
  };
  const total = await convertModel(source, folder, bits, io);
  if (stderr.isTTY) stderr.write('\r\u001b[K');
  stderr.write(`polygraft: wrote ${folder}: ${(total / 1e6).toFixed(1)} MB\n`);
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
