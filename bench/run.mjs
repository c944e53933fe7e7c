// npm run bench: polygraft and onnxruntime-web side by side in one page of Chromium, as one table.
//
//   npm run bench -- [--only mixed,uniform,…] [--rounds N] [--write] [--serve] [--list]
//
//   --only     some of the measures (--list names them)
//   --rounds   instead of each measure's own number
//   --write    keeps the results in bench/results.json and renders bench/RESULTS.md from it
//   --serve    no Chromium: serves the page, to be opened in a browser of your own
//
// What is fair about it, and what to expect of it: bench/README.md.
import { cp, readdir, readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { at, gzipped, runAsMain, say, SetupError } from '../scripts/lib.mjs';
import { ensureModel } from '../scripts/model.mjs';
import { ensurePackage } from '../scripts/package.mjs';
import { serve } from '../scripts/serve.mjs';
import { launch, threadTimes, withProfile } from './browser.mjs';
import { ensureAdapters } from './adapters.mjs';
import { median, paired } from './page/stats.js';
import { ensurePeers, home, packages } from './peers.mjs';
import { machine, table, write } from './results.mjs';
import { ensureReference } from './texts.mjs';

/** Name, what it is, and where it runs: a page's query, or a function here. In the order of the table. */
const measures = {
  mixed: { about: '64 real passages of many lengths, against the peer at its best', page: '' },
  mixed2: { about: 'the same with two threads on both sides', page: '?threads=2', name: 'mixed' },
  uniform: { about: '16 rows of 64 tokens', page: '' },
  latency: { about: 'one row of 32 tokens, one of 128', page: '' },
  threads: { about: 'two workers against one', page: '' },
  webgpu: { about: 'WebGPU on SwiftShader', page: '?ort=webgpu' },
  adapters: { about: 'eight adapters in one batch against none and one, a stack of two against none', page: '' },
  swap: { about: "from an adapter's bytes to ready, and from one to another", page: '' },
  startup: { about: 'from a warm cache to the first score', here: startup },
  bytes: { about: 'what is downloaded', here: bytes },
};

/** SwiftShader is Chromium's software GPU. */
const flags = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'];

async function open(context, url) {
  const page = await context.newPage();
  page.setDefaultTimeout(0);
  page.on('console', (message) => message.text().includes('session_state.cc') || say(message.text()));
  page.on('pageerror', (error) => say(`page: ${error.stack}`));
  await page.goto(url);
  return page;
}

/**
 * Milliseconds that the page's processes have spent on a core, all threads together, where Linux tells it; undefined
 * elsewhere.
 */
async function coreClock(chrome) {
  const threads = await threadTimes(chrome);
  return () => {
    try {
      const spent = [...threads().values()];
      return spent.length ? spent.reduce((sum, ms) => sum + ms, 0) : undefined;
    } catch {
      return undefined;
    }
  };
}

/** Each side's page opened anew, in turn, by a visitor who was there before: everything is in the profile's caches. */
async function startup({ url }, { rounds = 7 }) {
  const sides = ['polygraft', 'plain-u8', 'plain-q4'];
  const seen = Object.fromEntries(sides.map((who) => [who, []]));
  await withProfile(async (context) => {
    for (let round = -2; round < rounds; round += 1) {
      for (const who of sides) {
        const page = await open(context, `${url}page/startup.html?who=${who}`);
        const value = await page.waitForFunction(() => globalThis.startup).then((handle) => handle.jsonValue());
        await page.close();
        if (round >= 0) seen[who].push(value);
      }
      say(`startup ${round + 1}/${rounds}: ${sides.map((who) => seen[who].at(-1)?.first.toFixed(0)).join(' | ')}`);
    }
  }, ...flags);
  const times = (who, of) => seen[who].map(of);
  const rows = sides.slice(1).map((who) => {
    const [own, peer] = [times('polygraft', (v) => v.first), times(who, (v) => v.first)];
    return { name: `warm cache to the first score, ${who === 'plain-q4' ? '4-bit' : '8-bit'}`, own: median(own), peer: median(peer), ratio: paired(own, peer), peerName: who, rounds, times: { own, peer } };
  });
  const ratio = paired(times('polygraft', (v) => median(v.calls.slice(7))), times('polygraft', (v) => v.calls[0]));
  const [first, tenth] = [times('polygraft', (v) => v.calls[0]), times('polygraft', (v) => median(v.calls.slice(7)))];
  rows.push({ name: 'the first call against the tenth', own: median(first), peer: median(tenth), peerName: 'the tenth (median of 8–10)', ratio, rounds, times: { own: first, peer: tenth } });
  return rows;
}

/** Bytes of both sides' code, gzipped, and of their models. */
async function bytes() {
  const size = async (files) => (await Promise.all(files.map((file) => readFile(at(file))))).reduce((sum, data) => ({ raw: sum.raw + data.length, gzip: sum.gzip + gzipped(data) }), { raw: 0, gzip: 0 });
  const own = (await readdir(at('js/dist'), { recursive: true })).filter((f) => /\.(js|wasm)$/.test(f) && !/^(node|cli|disk|wasm.polygraft)\.js$/.test(f)).map((f) => `js/dist/${f}`);
  const dist = `${home}/web/node_modules/onnxruntime-web/dist`;
  const wasm = own.filter((f) => f.endsWith('.wasm'));
  const code = await size([...own.filter((f) => f.endsWith('.js')), wasm[0]]);
  const compiled = Math.max(...(await Promise.all(wasm.map(async (f) => (await size([f])).gzip))));
  const peer = await size(['ort.wasm.min.mjs', 'ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm'].map((f) => `${dist}/${f}`));
  const gpu = await size(['ort.webgpu.min.mjs', 'ort-wasm-simd-threaded.asyncify.mjs', 'ort-wasm-simd-threaded.asyncify.wasm'].map((f) => `${dist}/${f}`));
  const model = await size((await readdir(at('models/multilingual-e5-small'))).map((f) => `models/multilingual-e5-small/${f}`));
  const models = Object.fromEntries(await Promise.all(['plain-u8', 'plain-q4'].map(async (name) => [name, await size([`${home}/onnx/${name}.onnx`])])));
  const line = (name, ours, theirs, peerName) => ({ name, own: ours, peer: theirs, peerName, unit: 'bytes', single: theirs / ours });
  return [
    { name: 'compiled WebAssembly, gzip -9, the larger of the builds', own: compiled, unit: 'bytes' },
    line(`code, gzip -9 (of ${wasm.length === 1 ? 'the' : `${wasm.length} builds, one`} .wasm)`, code.gzip, peer.gzip, 'onnxruntime-web, WebAssembly only'),
    line('the same against the WebGPU build', code.gzip, gpu.gzip, 'onnxruntime-web, WebGPU'),
    line('model with tokenizer, as it is downloaded', model.raw, models['plain-q4'].raw, '4-bit, without a tokenizer'),
    line('the same against 8 bits', model.raw, models['plain-u8'].raw, '8-bit, without a tokenizer'),
  ];
}

/** The page and all that it reads, beside what the server knows already. */
async function site() {
  await ensureModel();
  await ensurePackage();
  await ensurePeers();
  await ensureAdapters();
  await cp(at('bench/page'), at(home, 'page'), { recursive: true });
  await ensureReference();
}

async function main(args) {
  const { values: options } = parseArgs({
    args,
    options: { only: { type: 'string' }, rounds: { type: 'string' }, write: { type: 'boolean' }, serve: { type: 'boolean' }, list: { type: 'boolean' } },
  });
  if (options.list) return console.log(Object.entries(measures).map(([name, { about }]) => `${name.padEnd(10)}${about}`).join('\n'));
  const names = options.only?.split(',') ?? Object.keys(measures);
  const unknown = names.find((name) => !(name in measures));
  if (unknown) throw new SetupError(`there is no measure ${JSON.stringify(unknown)}`, `Measures: ${Object.keys(measures).join(', ')}`);
  const rounds = options.rounds === undefined ? undefined : Number(options.rounds);
  if (rounds !== undefined && !(Number.isInteger(rounds) && rounds > 0)) throw new SetupError(`--rounds: ${options.rounds} is not a number of rounds`);
  await site();
  // Isolated, so that the peer may have its threads.
  const server = await serve({ port: options.serve ? undefined : 0, isolated: true, home: at(home) });
  if (options.serve) {
    console.log(`${server.url}page/   (?threads=2, ?ort=webgpu; Ctrl-C ends it)`);
    return;
  }
  const chrome = await launch(...flags);
  const context = await chrome.newContext();
  const command = `npm run bench${args.length ? ` -- ${args.join(' ')}` : ''}`;
  const all = [];
  let open_ = { query: null, page: null };
  try {
    for (const name of names) {
      const measure = measures[name];
      say(`${name}: ${measure.about}`);
      const settings = rounds === undefined ? {} : { rounds };
      const about = { ...machine(), browser: `Chromium ${chrome.version()}`, peer: packages.web, command };
      let rows;
      if (measure.here) {
        rows = await measure.here({ context, url: server.url }, settings);
      } else {
        // One page at a time, and a page keeps its engines from one measure to the next.
        if (open_.query !== measure.page) {
          await open_.page?.close();
          open_ = { query: measure.page, page: await open(context, `${server.url}page/${measure.page}`) };
          await open_.page.waitForFunction(() => globalThis.bench);
          const clock = await coreClock(chrome);
          if (clock() !== undefined) await open_.page.exposeFunction('cpuTime', clock);
        }
        Object.assign(about, await open_.page.evaluate(() => bench.surroundings()));
        rows = await open_.page.evaluate(([what, how]) => bench.measure(what, how), [measure.name ?? name, settings]);
      }
      console.log(table(rows).split('\n').slice(2).join('\n'));
      all.push(...rows);
      if (options.write) await write('web', name, rows, about);
    }
  } finally {
    await chrome.close();
    await server.close();
  }
  console.log(`\n${table(all)}`);
}

await runAsMain(import.meta, main);
