// The two sides behind one small face: `embed(batch)` gives embeddings, row major, in the batch's order.
import { runOrt } from './batches.js';

const model = new URL('/models/multilingual-e5-small/', location.href).href;

/** polygraft, as a page uses it: in its worker. */
export class Polygraft {
  #models = new Map();

  constructor({ threads, gpu }) {
    this.options = { ...(threads > 1 && { threads }), ...(gpu && { device: 'webgpu' }) };
  }

  /** A loaded model; `options` beside the page's own. */
  async model(options = {}) {
    const all = { ...this.options, ...options };
    const key = JSON.stringify(all);
    if (!this.#models.has(key)) {
      const { load } = await import('/js/dist/index.js');
      this.#models.set(key, await load(model, all));
    }
    return this.#models.get(key);
  }

  /** Why `load` does not take these options, or null when it does. */
  async lacks(options) {
    try {
      await this.model(options);
      return null;
    } catch (error) {
      return `${error.code ?? error.name}: ${error.message}`;
    }
  }

  /** Embeds a batch that was never seen before; anything else would be remembered, and is an error unless `again`. */
  async embed(batch, { options, adapters, again = false } = {}) {
    const { data, timing } = await (await this.model(options)).embed(batch.texts, { adapters });
    if (timing.cached !== 0 && !again) throw new Error(`${timing.cached} rows were remembered: nothing was measured`);
    if (timing.tokens !== batch.tokens) throw new Error(`polygraft ran ${timing.tokens} tokens, the peer ${batch.tokens}`);
    return data;
  }
}

/** onnxruntime-web on the page's own thread, which spares it every message. */
export class Ort {
  #library;
  #sessions = new Map();

  constructor({ threads, gpu }) {
    this.threads = threads;
    this.gpu = gpu;
  }

  /** The module, configured. */
  library() {
    this.#library ??= (async () => {
      const dist = '/web/node_modules/onnxruntime-web/dist/';
      const ort = await import(`${dist}${this.gpu ? 'ort.webgpu.min.mjs' : 'ort.wasm.min.mjs'}`);
      ort.env.logLevel = 'error';
      ort.env.wasm.numThreads = this.threads;
      ort.env.wasm.wasmPaths = new URL(dist, location.href).href;
      return ort;
    })();
    return this.#library;
  }

  /** Bytes of one of the models of peers/export.py. */
  async bytes(name) {
    const response = await fetch(`/onnx/${name}.onnx`);
    if (!response.ok) throw new Error(`${name}: ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  }

  async session(name) {
    if (!this.#sessions.has(name)) {
      const ort = await this.library();
      const options = { executionProviders: [this.gpu ? 'webgpu' : 'wasm'], graphOptimizationLevel: 'all' };
      this.#sessions.set(name, await ort.InferenceSession.create(await this.bytes(name), options));
    }
    return this.#sessions.get(name);
  }

  async release(name) {
    await this.#sessions.get(name)?.release();
    this.#sessions.delete(name);
  }

  async embed(batch, { name, mode }) {
    return runOrt(await this.library(), await this.session(name), batch.ids, mode);
  }

  async describeGpu() {
    const adapter = await navigator.gpu?.requestAdapter();
    const info = adapter?.info;
    return info ? `${info.vendor} ${info.architecture} ${info.description}`.trim() : 'none';
  }
}
