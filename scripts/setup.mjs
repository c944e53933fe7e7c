// npm run setup: all that `npm start` and `npm test` need. A second run takes seconds.
import { runAsMain } from './lib.mjs';
import { ensureModel } from './model.mjs';
import { ensureBuild } from './package.mjs';

export async function setup() {
  await ensureBuild();
  await ensureModel();
}

await runAsMain(import.meta, setup);
