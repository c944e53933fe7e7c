// The npm package's own build: TypeScript in js/src to types and a few bundled scripts in js/dist.
//
// Bundled, because a page without a bundler would fetch some fifteen modules one after the other, and its worker as many.
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { at, exists, filesUnder, once, run, runAsMain, SetupError } from './lib.mjs';
import { ensureDeps } from './deps.mjs';
import { ensureWasm, wasmOut } from './rust.mjs';

/** What wasm-bindgen wrote. */
const glue = `${wasmOut}/polygraft.js`;

/** Runs TypeScript over js/. The glue in js/dist/wasm has to be there: its types are imported. */
export async function ensurePackage() {
  if (!(await exists(at('js/tsconfig.json')))) throw new SetupError('js/tsconfig.json is missing');
  await once(
    'package',
    {
      inputs: ['js/src', 'js/package.json', 'js/tsconfig.json', 'package-lock.json', 'scripts/package.mjs', glue],
      outputs: await entries(),
    },
    async () => {
      // What an older build left would be packed along; the WebAssembly beside it stays.
      for (const file of await filesUnderDist()) await rm(file);
      await run(process.execPath, [at('node_modules/typescript/bin/tsc'), '-p', 'js', '--emitDeclarationOnly', '--pretty', 'false'], {
        hint: 'TypeScript found errors: see above.',
      });
      await bundle();
    },
  );
}

/** Bundles the entries into js/dist; what they share goes into chunks beside them. */
async function bundle() {
  const { rolldown } = await import('rolldown');
  const scripts = await rolldown({
    input: Object.fromEntries(['index', 'worker', 'node', 'cli'].map((name) => [name, at(`js/src/${name}.ts`)])),
    external: /^node:/,
    platform: 'neutral',
    // Sources import the glue as what it will be beside them.
    plugins: [{ name: 'glue', resolveId: (id) => (id === './wasm/polygraft.js' ? at(glue) : null) }],
    transform: { target: 'es2022' },
    onLog(level, log) {
      if (level === 'warn') throw new SetupError(`rolldown: ${log.message}`);
    },
  });
  // Node's own is apart: nothing that a page loads may import `node:`.
  const groups = [{ name: 'shared', minShareCount: 2, test: (id) => !/[\\/]disk\.ts$/.test(id) }];
  const names = { entryFileNames: '[name].js', chunkFileNames: '[name].js' };
  await scripts.write({ dir: at('js/dist'), format: 'esm', ...names, codeSplitting: { groups } });
  await scripts.close();
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
