// In Chromium, on its software GPU: the same numbers as the CPU, and every way a device can fail.
//
// What must go wrong is put in front of the worker's own script, by the address that the page imports it from.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as site from './site.mjs';
import * as tiny from './tiny.mjs';

/** Keeps every device, counts its submissions, and destroys it in front of one of them. */
const destroying = (which) => `
  let devices = 0, submits = 0, mine = null;
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...args) { const device = await request.apply(this, args); devices += 1; submits = 0; mine = device; return device; };
  const submit = GPUQueue.prototype.submit;
  GPUQueue.prototype.submit = function (...args) { submits += 1; if (${which}) mine.destroy(); return submit.apply(this, args); };`;
/** Seconds between the beats of a clock pass `times` as fast. */
const hurry = (times) => `const every = globalThis.setInterval; globalThis.setInterval = (work, ms) => every(work, ms / ${times});`;
/** Submissions of the test of known answers: the layers go up and calls begin after them. */
const TESTED = 'TESTED';
const faults = {
  none: '',
  gone: 'delete globalThis.navigator.__proto__.gpu;',
  null: 'GPU.prototype.requestAdapter = async () => null;',
  refused: 'GPUAdapter.prototype.requestDevice = async () => { throw new DOMException("limits", "OperationError"); };',
  wrong: 'const make = GPUDevice.prototype.createShaderModule; GPUDevice.prototype.createShaderModule = function (d) { return make.call(this, { ...d, code: d.code.replace("sums[i]/total", "sums[i]/total*1.01") }); };',
  broken: 'const make = GPUDevice.prototype.createShaderModule; GPUDevice.prototype.createShaderModule = function (d) { return make.call(this, { ...d, code: d.code.replace("sums[i]/total", "sums[i]/nothing") }); };',
  // The first look into the memory of measurements fails.
  disguised: `Object.defineProperty(GPUAdapter.prototype, "info", { get: () => ({ vendor: "acme", architecture: "one", device: "", description: "Acme One", isFallbackAdapter: false }) });
    const match = Cache.prototype.match;
    Cache.prototype.match = async function (key) {
      if (/invalid.device/.test(key) && (await this.keys()).length === 0) throw new Error("the disk does not answer");
      return match.call(this, key);
    };`,
  lostOnce: destroying(`devices === 1 && submits === ${TESTED} + 2`),
  lostTwice: destroying(`submits === ${TESTED} + 2`),
  lostInTest: destroying('devices === 1 && submits === 1'),
  // When the first call has its answer.
  lostIdle: `${destroying('false')}
    const post = globalThis.postMessage;
    globalThis.postMessage = (message, transfer) => { if (message.value?.floats && devices === 1) mine.destroy(); return post(message, transfer); };`,
  hurried: hurry(20),
  // The first device stops answering once it is proved.
  silent: `${destroying('false')}
    const map = GPUBuffer.prototype.mapAsync;
    GPUBuffer.prototype.mapAsync = function (...args) { return devices === 1 && submits > TESTED ? new Promise(() => {}) : map.apply(this, args); };
    ${hurry(100)}`,
  memory: `const create = GPUDevice.prototype.createBuffer; let full = false;
    GPUDevice.prototype.createBuffer = function (d) { const buffer = create.call(this, d); if (d.label === 'weight') queueMicrotask(() => this.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', { error: new GPUOutOfMemoryError('full') }))); return buffer; };`,
};

/** Counts submissions, and tells them in place of the model's name. */
faults.counted =
  'const submit = GPUQueue.prototype.submit; globalThis.submits = 0; GPUQueue.prototype.submit = function (...args) { globalThis.submits += 1; return submit.apply(this, args); }; const post = globalThis.postMessage; globalThis.postMessage = (message, transfer) => post({ ...message, ...(message.value?.device ? { value: { ...message.value, name: String(globalThis.submits) } } : {}) }, transfer);';

let open;
/** Submissions of the test of known answers, counted on a device that works. */
let tested = 0;
before(async () => {
  const folders = { model: tiny.listed(), rank: tiny.lora() };
  const gpu = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan', '--use-vulkan=swiftshader'];
  open = await site.open(async (pathname) => {
    if (pathname === '/') return site.blank;
    const [, fault, rest] = /^\/with\/(\w+)\/(.*)$/.exec(pathname) ?? [];
    if (fault) {
      const bytes = await site.fileIn(site.dist, rest);
      return { bytes: bytes && rest === 'worker.js' ? `${faults[fault].replaceAll(TESTED, String(tested))}\n${bytes}` : bytes };
    }
    const [, folder, name] = /^\/(\w+)\/(.*)$/.exec(pathname) ?? [];
    return { bytes: folders[folder]?.get(name) };
  }, gpu);
  tested = Number(await onPage('counted', async (from) => {
    const { load } = await import(`${from}/index.js`);
    const model = await load('/model', { device: 'webgpu', cache: false });
    return model.info.name;
  }));
  assert.ok(tested > 0, 'the self-test submits something');
});
after(() => open?.close());

/** Runs `work` in a fresh page whose package has the fault. */
const onPage = (fault, work, argument) => open.onPage(work, argument ?? `/with/${fault}`);

/** Loads on a device, embeds under adapters row by row, and tells what happened. */
async function story({ from, device, batches }) {
  const { load } = await import(`${from}/index.js`);
  const events = [];
  let model;
  try {
    model = await load('/model', { device, precision: 'exact', cache: false });
  } catch (error) {
    return { error: error.code, message: error.message };
  }
  model.on('device', (state) => events.push(state));
  await model.loadAdapter('rank', '/rank');
  const adapters = (_, i) => [null, 'rank', 'rank:0.5'][i % 3];
  const rows = [];
  // Other texts each time: what has been embedded is remembered.
  for (const texts of batches) rows.push(...(await model.embed(texts, { adapters })).data);
  const { device: last } = model;
  await model.dispose();
  return { rows, events, last, first: model.info.backend };
}
const tell = (fault, device = 'webgpu') => onPage(fault, story, { from: `/with/${fault}`, device, batches: [1, 2, 3].map((seed) => tiny.texts(7, 12, seed)) });

const close = (a, b) => {
  assert.equal(a.length, b.length);
  const worst = a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
  assert.ok(worst <= 5e-4, `off by ${worst}`);
};
/** The CPU's numbers. */
async function onCpu(texts) {
  const { load } = await import('/with/none/index.js');
  const model = await load('/model', { device: 'cpu', precision: 'exact', cache: false });
  return [...(await model.embed(texts)).data];
}
let expected;
const right = async (rows) => {
  expected ??= (await tell('none', 'cpu')).rows;
  close(rows, expected);
};

test('the GPU gives what the CPU gives, adapters row by row', async () => {
  const { rows, events, last, first } = await tell('none');
  await right(rows);
  assert.deepEqual(events, []);
  assert.equal(last.device, 'webgpu');
  assert.match(first, /^gpu: .*software/);
});

test('a software device is not chosen unless it is asked for', async () => {
  const { rows, last } = await tell('none', 'auto');
  await right(rows);
  assert.equal(last.device, 'cpu');
  assert.match(last.reason, /software/);
});

for (const fault of ['gone', 'null', 'refused']) {
  test(`no device (${fault}): an error for who insists, the CPU for everyone else`, async () => {
    const insisting = await tell(fault);
    assert.equal(insisting.error, 'GPU_UNAVAILABLE', insisting.message);
    const { rows, last } = await tell(fault, 'auto');
    await right(rows);
    assert.equal(last.device, 'cpu');
    assert.match(last.reason, /gpu/i);
  });
}

test('a device that computes wrong numbers is refused, and the step is named', async () => {
  const { error, message } = await tell('wrong');
  assert.equal(error, 'GPU_WRONG', message);
  assert.match(message, /Attention/);
});

test('a shader that does not compile is an error, not a hang', async () => {
  const { error, message } = await tell('broken');
  assert.ok(['GPU_LOST', 'GPU_WRONG'].includes(error), `${error}: ${message}`);
});

test('lost in mid-call: opened again, the call is made again, and the page is told', async () => {
  const { rows, events, last } = await tell('lostOnce');
  await right(rows);
  assert.equal(events.length, 1, JSON.stringify(events));
  assert.equal(last.device, 'webgpu');
  assert.match(last.reason, /lost/);
});

test('lost twice: the CPU for the rest of the life of the model', async () => {
  const { rows, events, last } = await tell('lostTwice');
  await right(rows);
  assert.deepEqual(events.map((e) => e.device), ['webgpu', 'cpu']);
  assert.equal(last.device, 'cpu');
  assert.match(last.reason, /twice/);
});

test('lost while it is tested: opened again', async () => {
  const { rows, last } = await tell('lostInTest');
  await right(rows);
  assert.equal(last.device, 'webgpu');
});

test('lost between calls: opened again by the next one', async () => {
  const { rows, events, last } = await tell('lostIdle');
  await right(rows);
  assert.equal(events.length, 1, JSON.stringify(events));
  assert.equal(last.device, 'webgpu');
});

test('a device that falls silent counts as lost', async () => {
  const { rows, events } = await tell('silent');
  await right(rows);
  assert.equal(events.length, 1, JSON.stringify(events));
  assert.match(events[0].reason, /not answered/);
});

test('a page that is stopped in mid-call, as one in the background may be, goes on when it may', async () => {
  const work = async ({ from, texts }) => {
    const { load } = await import(`${from}/index.js`);
    const model = await load('/model', { device: 'webgpu', precision: 'exact', cache: false });
    const events = [];
    model.on('device', (state) => events.push(state));
    const embedding = model.embed(texts);
    console.log('computing');
    const { data } = await embedding;
    return { rows: [...data], events };
  };
  const meanwhile = async (page) => {
    await page.waitForEvent('console', { predicate: (message) => message.text() === 'computing' });
    const cdp = await page.context().browser().newBrowserCDPSession();
    const { processInfo } = await cdp.send('SystemInfo.getProcessInfo');
    const signal = (name) => processInfo.filter(({ type }) => type === 'renderer').forEach(({ id }) => process.kill(id, name));
    signal('SIGSTOP');
    // Longer than a device may be silent.
    await new Promise((resolve) => setTimeout(resolve, 4000));
    signal('SIGCONT');
  };
  const texts = tiny.texts(2000, 12, 5);
  const { rows, events } = await open.onPage(work, { from: '/with/hurried', texts }, { meanwhile });
  assert.deepEqual(events, []);
  close(rows, await open.onPage(onCpu, texts));
});

test('memory that is full while the layers go up ends in an error for who insists', async () => {
  const { error, message } = await tell('memory');
  assert.equal(error, 'GPU_LOST', message);
});

test('one token, many rows, two calls at once, an abort between submissions', async () => {
  const rows = tiny.texts(4096, 3, 8);
  const { many, ...seen } = await onPage('none', async ({ from, many: texts, long: more }) => {
    const { load } = await import(`${from}/index.js`);
    const model = await load('/model', { device: 'webgpu', precision: 'exact', cache: false });
    const one = await model.embed('a');
    const many = await model.embed(texts);
    const [a, b] = await Promise.all([model.embed(more[0]), model.embed(more[1])]);
    const control = new AbortController();
    const long = model.embed(more, { signal: control.signal });
    setTimeout(() => control.abort(), 100);
    const aborted = await long.then(() => 'done', (error) => error.name);
    const after = await model.embed(more[0]);
    return { one: one.embeddings.length, many: [...many.data], aborted, same: after.data.every((x, i) => x === a.data[i]), differ: a.data.some((x, i) => x !== b.data[i]) };
  }, { from: '/with/none', many: rows, long: tiny.texts(3000, 12, 9) });
  assert.deepEqual(seen, { one: 1, aborted: 'AbortError', same: true, differ: true });
  close(many, await open.onPage(onCpu, rows));
});

test('a profile says what the kernels of the device took, by its own clock', async () => {
  const spent = await onPage('none', async ({ from, texts }) => {
    const { load } = await import(`${from}/index.js`);
    const model = await load('/model', { device: 'webgpu', cache: false, profile: true });
    const told = new Promise((resolve) => model.on('profile', resolve));
    await model.embed(texts);
    return told;
  }, { from: '/with/none', texts: tiny.texts(7, 12, 1) });
  const kernels = Object.entries(spent);
  assert.ok(['linear direct', 'attention direct', 'norm'].every((kind) => kernels.some(([name]) => name.startsWith(kind))), JSON.stringify(spent));
  assert.ok(kernels.every(([, ms]) => ms >= 0 && ms < 6e4), JSON.stringify(spent));
});

test('a device that passes for hardware is timed against the CPU, once', async () => {
  const seen = await onPage('disguised', async (from) => {
    const { load } = await import(`${from}/index.js`);
    const reasons = [];
    for (let visit = 0; visit < 2; visit++) {
      const model = await load('/model');
      reasons.push(model.device);
      await model.dispose();
    }
    return reasons;
  });
  assert.match(seen[0].reason, /faster.*took \d+ ms on the GPU, 1024 took \d+ ms on the CPU/);
  assert.match(seen[1].reason, /faster.*remembered/);
  assert.equal(seen[0].device, seen[1].device);
});
