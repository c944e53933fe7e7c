// The npm package's own build: TypeScript in js/src to JavaScript and types in js/dist.
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { at, exists, filesUnder, once, run, runAsMain, SetupError } from './lib.mjs';
import { ensureDeps } from './deps.mjs';
import { ensureWasm, wasmOut } from './rust.mjs';

/** Runs TypeScript over js/. The glue in js/dist/wasm has to be there: its types are imported. */
export async function ensurePackage() {
  if (!(await exists(at('js/tsconfig.json')))) throw new SetupError('js/tsconfig.json is missing');
  await once(
    'package',
    {
      inputs: ['js/src', 'js/package.json', 'js/tsconfig.json', 'package-lock.json', `crates/polygraft-wasm/src`],
      outputs: await entries(),
    },
    async () => {
      // What an older build left would be packed along; the WebAssembly beside it stays.
      for (const file of await filesUnderDist()) await rm(file);
      await run(process.execPath, [at('node_modules/typescript/bin/tsc'), '-p', 'js', '--pretty', 'false'], {
        hint: 'TypeScript found errors: see above.',
      });
    },
  );
}

/** The files that js/package.json promises. */
async function entries() {
  const found = new Set();
  const visit = (value) => {
    if (typeof value === 'string') {
      if (value.startsWith('./dist/')) found.add(`js/${value.slice(2)}`);
    } else {
      Object.values(value ?? {}).forEach(visit);
    }
  };
  const manifest = JSON.parse(await readFile(at('js/package.json'), 'utf8'));
  visit(manifest.exports);
  if (found.size === 0) throw new SetupError('js/package.json exports nothing of dist/');
  return [...found].sort();
}

async function filesUnderDist() {
  const files = await filesUnder(at('js/dist'));
  return files.filter((file) => !file.startsWith(at(wasmOut) + path.sep));
}

/** Everything that the package consists of. */
export async function ensureBuild() {
  await ensureDeps();
  await ensureWasm();
  await ensurePackage();
}

await runAsMain(import.meta, ensureBuild);
