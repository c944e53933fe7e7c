// The measures that run inside one page. Each gives rows of the final table with all its times, in milliseconds.
import { modes } from './batches.js';
import { median, paired, worstCosine } from './stats.js';

const WARM = 3;

/**
 * How long `work` takes: on the wall, and on a core where the driver can tell (the sum over the page's threads). A
 * neighbour on the machine makes the one longer and hardly the other.
 */
async function timed(work) {
  asking ??= globalThis.cpuTime ? costOfAsking() : Promise.resolve(0);
  const cost = await asking;
  const before = await globalThis.cpuTime?.();
  const start = performance.now();
  const value = await work();
  const ms = performance.now() - start;
  const after = await globalThis.cpuTime?.();
  return { ms, cpu: after === undefined ? undefined : Math.max(0, after - before - cost), value };
}

/** What asking the driver for the time takes of the page's own, about 0.6 ms: it is nobody's work. */
let asking;
async function costOfAsking() {
  const costs = [];
  for (let i = 0; i < 30; i += 1) {
    const before = await globalThis.cpuTime();
    costs.push((await globalThis.cpuTime()) - before);
  }
  return median(costs);
}

const of = (samples, key) => samples.map((s) => s[key]);

/**
 * One row of the table from both sides' samples: medians, and the paired ratio of the peer's time over polygraft's (the
 * other way round with `cost`). The ratio that counts is of time on a core where both sides have it and use one thread.
 */
function row(name, own, peer, { cost = false, wall = false, ...more } = {}) {
  const result = { name, own: median(of(own, 'ms')), rounds: own.length, times: { own: of(own, 'ms'), peer: peer && of(peer, 'ms') }, ...more };
  if (!peer) return result;
  const ratio = (key) => (cost ? paired(of(peer, key), of(own, key)) : paired(of(own, key), of(peer, key)));
  Object.assign(result, { peer: median(of(peer, 'ms')), onWall: ratio('ms') });
  result.ratio = result.onWall;
  if (!wall && own[0].cpu !== undefined && peer[0].cpu !== undefined) {
    Object.assign(result.times, { ownCpu: of(own, 'cpu'), peerCpu: of(peer, 'cpu') });
    result.ratio = result.onCore = ratio('cpu');
    Object.assign(result, { ownCore: median(of(own, 'cpu')), peerCore: median(of(peer, 'cpu')) });
  }
  return result;
}

/** `candidates` in turn for `rounds` rounds after a warm-up; the one with the least median, with all medians. */
async function quickest(candidates, rounds, run, wall = false) {
  const times = Object.fromEntries(candidates.map((c) => [c, []]));
  for (let round = -1; round < rounds; round += 1) {
    for (const c of candidates) {
      const { ms, cpu } = await run(c);
      if (round >= 0) times[c].push(wall ? ms : (cpu ?? ms));
    }
  }
  const medians = Object.fromEntries(Object.entries(times).map(([c, list]) => [c, median(list)]));
  return { best: candidates.reduce((a, b) => (medians[b] < medians[a] ? b : a)), medians };
}

/** The quicker of the two 8-bit forms, measured once a page. */
let eightBit;
async function eight({ ort, feeds, log, threads }) {
  eightBit ??= (async () => {
    const feed = feeds('16x64');
    const { best, medians } = await quickest(['plain-u8', 'plain-i8'], 7, (name) => timed(() => ort.embed(feed.next().value, { name, mode: 'pad 16' })), threads > 1);
    // Unsigned weights keep a zero point and are the more accurate; a difference within the noise is no reason to give that up.
    const taken = best === 'plain-i8' && medians[best] > 0.97 * medians['plain-u8'] ? 'plain-u8' : best;
    log(`8-bit weights: ${JSON.stringify(medians)} → ${taken}`);
    await ort.release(taken === 'plain-u8' ? 'plain-i8' : 'plain-u8');
    return { best: taken, medians };
  })();
  return eightBit;
}

/** One set of texts on polygraft and on the peers, interleaved by round. */
async function versus(context, set, { rounds, all = Object.keys(modes), more = {} }) {
  const { polygraft, ort, feeds, first, reference, log, threads } = context;
  const suffix = threads > 1 ? `, ${threads} threads` : '';
  const why = threads > 1 && (await polygraft.lacks({}));
  if (why) return [{ name: `${set}${suffix}`, skipped: why }];
  const names = [(await eight(context)).best, 'plain-q4'];
  const feed = feeds(set);
  const exact = Float32Array.from(reference[set]);
  const accuracy = { own: worstCosine(await polygraft.embed(first(set), { again: true }), exact) };
  const chosen = {};
  for (const name of names) {
    let mode = all[0];
    if (all.length > 1) {
      const { best, medians } = await quickest(all, 1, (m) => timed(() => ort.embed(feed.next().value, { name, mode: m })), threads > 1);
      log(`${set} ${name}: ${JSON.stringify(medians)} → ${best}`);
      [mode, chosen[name]] = [best, { mode: best, medians }];
    }
    accuracy[name] = worstCosine(await ort.embed(first(set), { name, mode }), exact);
    if (!(accuracy[name] > 0.95)) throw new Error(`${set}: ${name} computes something else: worst cosine ${accuracy[name]}`);
    chosen[name] ??= { mode };
  }
  if (!(accuracy.own > 0.99)) throw new Error(`${set}: worst cosine of polygraft to f32 ${accuracy.own}`);
  const times = { own: [], [names[0]]: [], [names[1]]: [] };
  for (let round = -WARM; round < rounds; round += 1) {
    const batch = feed.next().value;
    const own = await timed(() => polygraft.embed(batch));
    if (round >= 0) times.own.push(own);
    for (const name of names) {
      // Two calls of warm-up are enough for code that has run since the modes were compared.
      if (round < -1 && all.length > 1) continue;
      const peer = await timed(() => ort.embed(batch, { name, mode: chosen[name].mode }));
      if (round >= 0) times[name].push(peer);
    }
    if (round >= 0) log(`${set} ${round + 1}/${rounds}: ${[times.own, ...names.map((n) => times[n])].map((list) => list.at(-1).ms.toFixed(1)).join(' | ')}`);
  }
  const { tokens } = first(set);
  return names.map((name, i) =>
    row(`${set} ${i ? '4-bit' : '8-bit'}${suffix}`, times.own, times[name], {
      wall: threads > 1,
      set, tokens, bits: i ? 4 : 8, peerName: name, ...chosen[name], cosine: { own: accuracy.own, peer: accuracy[name] }, ...more,
    }),
  );
}

/** Takes more than one call's time under `a` and under `b`, in alternation: `{ a: […], b: […] }`. */
async function alternate(rounds, a, b, warm = WARM) {
  const times = { a: [], b: [] };
  for (let round = -warm; round < rounds; round += 1) {
    // Who goes first changes, so that a drift of the machine favours neither.
    for (const who of round % 2 ? ['b', 'a'] : ['a', 'b']) {
      const sample = await timed(who === 'a' ? a : b);
      if (round >= 0) times[who].push(sample);
    }
  }
  return times;
}

/** What the random adapters of bench/adapters.mjs are. */
const KINDS = { qv8: 'r 8 on query, value', all16: 'r 16 on all six', bn16: 'bottlenecks, reduction 16' };

/** An adapter's folder as files by name. */
async function folder(address) {
  const files = ['adapter_config.json', /bn16-\d+\/$/.test(address) ? 'adapter.safetensors' : 'adapter_model.safetensors'];
  return new Map(await Promise.all(files.map(async (f) => [f, new Uint8Array(await (await fetch(address + f)).arrayBuffer())])));
}

const sizeOf = (files) => [...files.values()].reduce((sum, bytes) => sum + bytes.length, 0);

export const measures = {
  /** Real passages of many lengths, against the peer's best way of running them. */
  mixed: (context, { rounds = 9 }) => versus(context, 'mixed', { rounds }),
  /** Sixteen rows of 64 tokens: nothing to pad. */
  uniform: (context, { rounds = 15 }) => versus(context, '16x64', { rounds, all: ['pad 16'] }),
  /** One row at a time. */
  async latency(context, { rounds = 40 }) {
    const rows = [];
    for (const set of ['1x32', '1x128']) rows.push(...(await versus(context, set, { rounds, all: ['one by one'], more: { p95: true } })));
    return rows;
  },

  /** Two workers against one, no SharedArrayBuffer needed. */
  async threads({ polygraft, feeds, first }, { rounds = 9 }) {
    const why = await polygraft.lacks({ threads: 2 });
    if (why) return [{ name: 'two workers against one', skipped: why }];
    const feed = feeds('mixed');
    const times = await alternate(rounds, () => polygraft.embed(feed.next().value, { options: { threads: 2 } }), () => polygraft.embed(feed.next().value));
    return [row('two workers against one', times.a, times.b, { wall: true, peerName: 'polygraft, one worker', tokens: first('mixed').tokens })];
  },

  /** Eight adapters in one batch against none and against one for all, and a stack of two against none. */
  async adapters({ polygraft, feeds, adapters }, { rounds = 9 }) {
    const model = await polygraft.model();
    const rows = [];
    for (const kind of ['qv8', 'all16', 'bn16']) {
      for (let i = 0; i < 8; i += 1) await model.loadAdapter(`${kind}.${i}`, await folder(`${adapters}${kind}-${i}/`));
      const feed = feeds('mixed');
      // Here the ratio is the other way round: how much longer it takes with what is measured.
      const against = async (name, mine, peerName, theirs) => {
        const times = await alternate(rounds, () => polygraft.embed(feed.next().value, { adapters: mine }), () => polygraft.embed(feed.next().value, { adapters: theirs }), 1);
        rows.push(row(name, times.a, times.b, { cost: true, peerName }));
      };
      const each = (_, i) => `${kind}.${i % 8}`;
      const what = `eight adapters in one batch, ${KINDS[kind]}`;
      await against(what, each, 'polygraft, none', undefined);
      await against(what, each, 'polygraft, one for all', `${kind}.0`);
      if (kind === 'bn16') await against(`a stack of two, ${KINDS[kind]}`, `stack(${kind}.0, ${kind}.1)`, 'polygraft, none', undefined);
      for (let i = 0; i < 8; i += 1) await model.unloadAdapter(`${kind}.${i}`);
    }
    return rows;
  },

  /** From an adapter's bytes in memory to ready, and from one loaded adapter to another; the peer loads a merged model. */
  async swap(context, { rounds = 15 }) {
    const { polygraft, ort, feeds, adapters } = context;
    const model = await polygraft.model();
    const rows = [];
    const library = await ort.library();
    const name = (await eight(context)).best;
    const bytes = await ort.bytes(name);
    const reload = [];
    for (let i = 0; i < 5; i += 1) {
      const sample = await timed(() => library.InferenceSession.create(bytes, { executionProviders: ['wasm'], graphOptimizationLevel: 'all' }));
      reload.push(sample);
      await sample.value.release();
    }
    /** A row of samples without a ratio; times on a core where they are known. */
    const plain = (what, own, more = {}) => {
      const core = own[0].cpu !== undefined && { ownCore: median(of(own, 'cpu')) };
      return { name: what, own: median(of(own, 'ms')), ...core, rounds: own.length, times: { own: of(own, 'ms'), ownCpu: core ? of(own, 'cpu') : undefined }, ...more };
    };
    const minus = (a, b) => a.map(({ ms, cpu }, i) => ({ ms: ms - b[i].ms, cpu: cpu === undefined ? undefined : cpu - b[i].cpu }));
    for (const kind of ['qv8', 'all16', 'bn16']) {
      const [one, two] = [await folder(`${adapters}${kind}-0/`), await folder(`${adapters}${kind}-1/`)];
      const [ready, served, again, stay, change] = [[], [], [], [], []];
      const feed = feeds('1x32');
      const under = (name_) => timed(() => polygraft.embed(feed.next().value, { adapters: name_ }));
      await model.loadAdapter('b', two);
      for (let round = -WARM; round < rounds; round += 1) {
        const load = await timed(() => model.loadAdapter('a', one));
        const samples = [load, await under('a'), await under('a'), await under('b'), await under('b')];
        if (round < 0) continue;
        for (const [i, list] of [ready, served, again, change, stay].entries()) list.push(samples[i]);
      }
      const what = `${KINDS[kind]} (${(sizeOf(one) / 1e6).toFixed(2)} MB)`;
      const other = { peer: median(of(reload, 'ms')), peerName: `${name}, session from bytes in memory`, ...(reload[0].cpu !== undefined && { peerCore: median(of(reload, 'cpu')) }) };
      rows.push(plain(`adapter bytes to ready, ${what}`, ready, other));
      rows.push(plain(`what its first row takes beyond the next, ${what}`, minus(served, again)));
      rows.push(plain(`switch between loaded adapters, ${what}`, minus(change, stay), { note: 'what the first row takes beyond the next' }));
    }
    return rows;
  },

  /** WebGPU on whatever adapter there is; a software one takes ten seconds a row. */
  async webgpu({ polygraft, ort, feeds, first, reference, log }, { rounds = 3, names = ['plain-f32', 'plain-q4'] }) {
    const lacks = await polygraft.lacks({});
    const { best: name, medians } = await quickest(names, 1, async (form) => timed(() => ort.embed(first('1x32'), { name: form, mode: 'pad 16' })), true);
    log(`webgpu 1x32: ${JSON.stringify(medians)} → ${name}`);
    const rows = [];
    for (const set of ['1x32', '1x128']) {
      const feed = feeds(set);
      const exact = Float32Array.from(reference[set]);
      const [own, peer] = [[], []];
      const cosine = { peer: worstCosine(await ort.embed(first(set), { name, mode: 'pad 16' }), exact) };
      if (!lacks) cosine.own = worstCosine(await polygraft.embed(first(set), { again: true }), exact);
      for (let round = 0; round < rounds; round += 1) {
        const batch = feed.next().value;
        if (!lacks) own.push(await timed(() => polygraft.embed(batch)));
        peer.push(await timed(() => ort.embed(batch, { name, mode: 'pad 16' })));
        log(`webgpu ${set} ${round + 1}/${rounds}: ${own.at(-1)?.ms.toFixed(0)} | ${peer.at(-1).ms.toFixed(0)}`);
      }
      const more = { wall: true, set, peerName: name, cosine, tokens: first(set).tokens, ...(set === '1x32' && { medians }) };
      const short = { name: `WebGPU ${set}`, skipped: lacks, peer: median(of(peer, 'ms')), rounds, times: { peer: of(peer, 'ms') }, ...more };
      rows.push(lacks ? short : row(`WebGPU ${set}`, own, peer, more));
    }
    return rows;
  },
};
