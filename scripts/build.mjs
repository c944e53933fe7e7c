// npm run build: the WebAssembly and the npm package.
import { runAsMain } from './lib.mjs';
import { ensureBuild } from './package.mjs';

await runAsMain(import.meta, ensureBuild);
