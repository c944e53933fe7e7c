// A base of XLM-R-base's size, from 1.1 GB in full precision to a stack of a language and a task adapter on it in a
// browser's tab: the memory that converting takes, then milliseconds and megabytes in Chromium. Linux only.
//
//   node bench/big.mjs [--threads N]
//
// The numbers are random (bigmodel.mjs); the layout of the language adapter is that of AdapterHub's Wikipedia adapters.
import { spawn } from 'node:child_process';
import { cpus, loadavg } from 'node:os';
import { readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { at, runAsMain, say, SetupError } from '../scripts/lib.mjs';
import { ensurePackage } from '../scripts/package.mjs';
import { cargo } from '../scripts/rust.mjs';
import { serve } from '../scripts/serve.mjs';
import { bigHome, ensureBig } from './bigmodel.mjs';
import { withTab } from './tab.mjs';

const home = '.cache/bench';
const converted = `${home}/big-q4`;
/** One token each in XLM-R's vocabulary. */
const words = 'and the for with from this that not are have all can one new about more out time when other use only see first page work after over home back way two part year here there day many long life last name place next line side end hand high small large full open left right down most both same under early water light white black'.split(' ');

/** What converts: the command line, and the package's in Node. */
const converters = {
  polygraft: [path.resolve(at(), process.env.CARGO_TARGET_DIR ?? 'target', 'release/polygraft')],
  'npx polygraft': [process.execPath, at('js/dist/cli.js')],
};

/** Converts `source` to 4 bits; the most memory that it took, in bytes, and how long. */
async function quantize([program, ...args], source) {
  const target = at(converted);
  await rm(target, { recursive: true, force: true });
  const start = performance.now();
  const child = spawn(program, [...args, 'quantize', '--bits', '4', at(source), target], { stdio: ['ignore', 'inherit', 'inherit'] });
  let peak = 0;
  const timer = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024);
    } catch {
      // It has ended.
    }
  }, 2);
  const code = await new Promise((resolve, reject) => child.on('close', resolve).on('error', reject));
  clearInterval(timer);
  if (code !== 0) throw new SetupError('the base could not be converted');
  return { peak, ms: performance.now() - start };
}

/** In the page: loads the base and the adapters, and runs ten calls of each kind. */
async function measure([words, threads]) {
  const { load } = await import('/js/dist/index.js');
  const timed = async (work) => {
    const start = performance.now();
    return { value: await work(), ms: performance.now() - start };
  };
  const loaded = await timed(() => load('/big-q4/', { device: 'cpu', threads, cache: false }));
  const model = loaded.value;
  const memory = async () => (await model.memory()).wasm / 1e6;
  const out = { load: loaded.ms, backend: model.info.backend, memory: { loaded: await memory() }, calls: [] };
  let seed = 1;
  const word = () => words[(seed = (seed * 48271) % 2147483647) % words.length];
  const text = (tokens) => Array.from({ length: tokens - 2 }, word).join(' ');
  const call = async (rows, tokens, adapters) => {
    const times = [];
    let last;
    for (let i = 0; i < 10; i += 1) {
      const texts = Array.from({ length: rows }, () => text(tokens));
      const { value, ms } = await timed(() => model.embed(texts, adapters ? { adapters } : {}));
      if (value.timing.tokens !== rows * tokens || value.timing.cached > 0) throw new Error(`${value.timing.tokens} tokens, ${value.timing.cached} rows remembered`);
      if (!value.data.every(Number.isFinite)) throw new Error('numbers that are not finite');
      times.push(ms);
      last = texts[0];
    }
    if (adapters) {
      // The adapters do something.
      const [a, b] = [await model.embed(last), await model.embed(last, { adapters })];
      const cosine = a.data.reduce((sum, x, i) => sum + x * b.data[i], 0);
      if (!(cosine < 0.9999)) throw new Error(`the adapters change nothing: cosine ${cosine}`);
    }
    out.calls.push({ name: `${rows} × ${tokens} tokens, ${adapters ?? 'base'}`, first: times[0], tenth: times[9] });
  };
  await call(1, 32);
  await call(16, 64);
  out.memory.base = await memory();
  out.adapters = (await timed(() => model.loadAdapter('hi', '/big/hi/'))).ms;
  out.task = (await timed(() => model.loadAdapter('task', '/big/task/'))).ms;
  await call(1, 32, 'stack(hi, task)');
  await call(16, 64, 'stack(hi, task)');
  out.memory.stack = await memory();
  return out;
}

await runAsMain(import.meta, async (args) => {
  const { values } = parseArgs({ args, options: { threads: { type: 'string', default: '1' } } });
  await ensurePackage();
  await ensureBig();
  await cargo(['build', '--release', '--locked', '-p', 'polygraft-cli']);
  const mb = (n) => `${n.toFixed(0)} MB`;
  for (const [converter, program] of Object.entries(converters)) {
    for (const name of ['sharded', 'source']) {
      const { peak, ms } = await quantize(program, `${bigHome}/${name}`);
      console.log(`${converter} quantize, 4 bits, ${name}: ${mb(peak / 1e6)} at its peak, ${(ms / 1000).toFixed(1)} s`);
      if (peak > 400e6) throw new SetupError('converting takes more than 400 MB');
    }
  }
  await mkdir(at(home, 'page'), { recursive: true });
  await writeFile(at(home, 'page/blank.html'), '<!doctype html><title>big</title><link rel="icon" href="data:,">');
  const server = await serve({ port: 0, home: at(home) });
  try {
    await withTab(async (page, watch) => {
      page.setDefaultTimeout(0);
      await page.goto(`${server.url}page/blank.html`);
      const watching = watch();
      const seen = await page.evaluate(measure, [words, Number(values.threads)]);
      await watching.end();
      const tab = watching.seen();
      const ms = (n) => `${n < 100 ? n.toFixed(1) : n.toFixed(0)} ms`;
      console.log(`load, from the server: ${ms(seen.load)}; language adapter: ${ms(seen.adapters)}; task adapter: ${ms(seen.task)}`);
      for (const { name, first, tenth } of seen.calls) console.log(`${name}: first call ${ms(first)}, tenth ${ms(tenth)}`);
      console.log(`WebAssembly: ${mb(seen.memory.loaded)} loaded, ${mb(seen.memory.base)} after calls, ${mb(seen.memory.stack)} with the stack`);
      console.log(`tab: ${mb(tab.before)} before, ${mb(tab.peak)} at its peak, ${mb(tab.now)} at the end`);
      say(`${cpus()[0].model} × ${cpus().length}, load ${loadavg()[0].toFixed(1)}, ${seen.backend}, ${values.threads} thread(s)`);
    });
  } finally {
    await server.close();
  }
});
