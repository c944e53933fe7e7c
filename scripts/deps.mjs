// The npm packages of the build, installed from the lockfile when missing or out of date.
import { rm } from 'node:fs/promises';
import { at, exists, once, requireNode, run, runAsMain, SetupError } from './lib.mjs';

export async function ensureDeps() {
  requireNode();
  if (!(await exists(at('package-lock.json')))) throw new SetupError('package-lock.json is missing');
  await once(
    'npm packages',
    {
      inputs: ['package.json', 'package-lock.json', '.npmrc'],
      facts: [process.platform, process.arch],
      outputs: ['node_modules/typescript', 'node_modules/binaryen', 'node_modules/playwright-core', 'node_modules/vite'],
    },
    async () => {
      const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
      const hint = 'The npm packages of package-lock.json could not be installed: see the output above (network, proxy, disk?), then run the same command again.';
      for (let attempt = 1; ; attempt += 1) {
        const { code } = await run(npm, ['ci', '--no-audit', '--no-fund'], {
          cwd: at(),
          allowFailure: true,
          env: { NODE_ENV: 'development' },
        });
        if (code === 0) return;
        if (attempt === 3) throw new SetupError(`npm ci failed (exit code ${code})`, hint);
        await rm(at('node_modules'), { recursive: true, force: true });
      }
    },
  );
}

await runAsMain(import.meta, ensureDeps);
