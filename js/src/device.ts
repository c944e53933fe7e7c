// The GPU beside the CPU: whether one is used, for which calls, and what happens when it goes away.
//
// The CPU holds the model for good, so that there is always an answer. A device is opened, proved on known answers, and
// given the layers; with `auto` it is then timed against the CPU. One that is lost is opened once more; after that the
// CPU does everything for as long as the model lives.

import { cacheStorage } from './cache.js';
import { PolygraftError } from './errors.js';
import type { DeviceChoice, DeviceState } from './types.js';
import { isAbort } from './wire.js';
import * as wasm from './wasm/polygraft.js';

/** Seconds after which a device that does not answer counts as lost. */
const SILENCE = 60;
/** Where the outcome of a measurement is kept. */
const MEMORY = 'polygraft-devices';
/** Tokens of the two batches that are timed. */
const SMALL = 32;
const LARGE = 1024;

/** What a keeper needs of the host. */
export interface Keeping {
  /** Tells the page where calls run from now on. */
  announce(state: DeviceState): void;
  /** Embeds these texts from scratch, or as many images; milliseconds of computing. */
  time(texts: string[]): Promise<number>;
  /** Tokens of an image, on a base that reads images; else 1. */
  unit: number;
  /** Whether measurements may be remembered between visits. */
  remember: boolean;
}

/** Watches over the device of one model. */
export class DeviceKeeper {
  readonly #model: wasm.Model;
  readonly #around: Keeping;
  #choice: DeviceChoice = 'auto';
  #crossover = 0;
  #on = false;
  #losses = 0;
  state: DeviceState = { device: 'cpu', reason: 'no GPU was asked for' };

  constructor(model: wasm.Model, around: Keeping) {
    this.#model = model;
    this.#around = around;
  }

  /** Does what `load` was asked for. With `webgpu`, throws when there is none that can be used. */
  async start(choice: DeviceChoice): Promise<void> {
    this.#choice = choice;
    if (choice === 'cpu') return;
    try {
      const name = await this.#open();
      if (choice === 'webgpu') {
        this.#become({ device: 'webgpu', reason: 'asked for', gpu: name });
        return;
      }
      await this.#measure(name);
    } catch (error) {
      if (isAbort(error)) throw error;
      const { code, message } = asError(error);
      // A device that dies while the layers go up gets its second chance here.
      if (code === 'GPU_LOST' && (await this.recover(error)) && this.state.device === 'webgpu') return;
      this.#release();
      if (choice === 'webgpu') throw error;
      this.#become({ device: 'cpu', reason: message });
    }
  }

  /** After a call failed: whether it should be made again. */
  async recover(error: unknown): Promise<boolean> {
    const { code, message } = asError(error);
    if (code !== 'GPU_LOST' || (!this.#on && this.#losses > 0)) return false;
    this.#losses += 1;
    this.#release();
    if (this.#losses === 1) {
      try {
        const name = await this.#open();
        this.#become({ device: 'webgpu', reason: `opened again after it was lost (${message})`, gpu: name });
        return true;
      } catch (second) {
        if (isAbort(second)) throw second;
        this.#release();
        this.#become({ device: 'cpu', reason: `${message}; opening it again failed: ${asError(second).message}` });
        return true;
      }
    }
    this.#become({ device: 'cpu', reason: `the GPU was lost twice (${message}): the CPU computes from now on` });
    return true;
  }

  /** Resolves when the device has answered. */
  async answered(): Promise<void> {
    let beat: ReturnType<typeof setInterval> | undefined;
    const silence = new Promise<never>((_, reject) => {
      // Seconds that this thread has lived through: a page that was frozen has not been waiting.
      let silent = 0;
      beat = setInterval(() => {
        silent += 1;
        if (silent === SILENCE) reject(new PolygraftError('GPU_LOST', `the gpu was lost: it has not answered for ${SILENCE} s`));
      }, 1000);
    });
    try {
      await Promise.race([this.#model.answered(), silence]);
    } finally {
      clearInterval(beat);
    }
  }

  /** Opens a device, proves it and gives it the layers; its name. */
  async #open(): Promise<string> {
    const { gpu } = (typeof navigator === 'undefined' ? {} : navigator) as { gpu?: unknown };
    if (!gpu) throw new PolygraftError('GPU_UNAVAILABLE', 'no gpu: there is no WebGPU here');
    const device = await wasm.GpuDevice.open(this.#choice === 'webgpu');
    const name = device.name();
    // Everything, until something else has been measured. Handing the device over frees the handle.
    this.#model.attachGpu(device, this.#crossover);
    this.#on = true;
    return name;
  }

  #release(): void {
    this.#on = false;
    this.#model.detachGpu();
  }

  /** Milliseconds of a batch of `tokens`, none of it remembered, on the GPU or without it. */
  #time(seed: number, tokens: number, gpu: boolean): Promise<number> {
    this.#model.crossAt(gpu ? 0 : Number.MAX_SAFE_INTEGER);
    const { unit } = this.#around;
    return this.#around.time(soup(seed, tokens, unit > 1 ? unit : Math.min(64, tokens)));
  }

  /** Times a small and a large batch on both, and lets the GPU have the calls that it does faster. */
  async #measure(name: string): Promise<void> {
    const key = `https://polygraft.invalid/device?${new URLSearchParams({ name, model: this.#model.info(), agent: navigator.userAgent }).toString()}`;
    const cache = this.#around.remember ? await cacheStorage()?.open(MEMORY).catch(() => null) : null;
    const kept = await cache?.match(key).catch(() => undefined);
    const known = Number((await kept?.text().catch(() => undefined)) ?? Number.NaN);
    let crossover = known;
    let how = 'remembered from an earlier visit';
    if (Number.isNaN(known)) {
      const [less, more] = [SMALL, LARGE].map((tokens) => Math.ceil(tokens / this.#around.unit) * this.#around.unit) as [number, number];
      await this.#time(1, less, false);
      const cpu = await this.#time(2, more, false);
      // Twice on the GPU: the first call makes its pipelines.
      await this.#time(3, less, true);
      const small = await this.#time(4, less, true);
      // One that is behind already is not worth more of the user's time.
      const hopeless = small > cpu;
      if (!hopeless) await this.#time(5, more, true);
      const large = hopeless ? (small / less) * more : await this.#time(6, more, true);
      const slope = Math.max(0, (large - small) / (more - less));
      const fixed = Math.max(0, small - slope * less);
      const gain = cpu / more - slope;
      crossover = gain > 0 ? Math.ceil(fixed / gain) : Number.MAX_SAFE_INTEGER;
      const gpu = hopeless ? `${less} tokens took ${small.toFixed(0)} ms` : `${more} tokens took ${large.toFixed(0)} ms`;
      how = `${gpu} on the GPU, ${more} took ${cpu.toFixed(0)} ms on the CPU`;
      await cache?.put(key, new Response(String(crossover))).catch(() => {});
    }
    // Beyond any batch that a page makes.
    if (crossover > 100_000) {
      this.#release();
      this.#become({ device: 'cpu', reason: `the CPU is faster: ${how}`, gpu: name });
      return;
    }
    this.#crossover = crossover;
    this.#model.crossAt(crossover);
    this.#become({ device: 'webgpu', reason: `batches of ${crossover} tokens and more are faster there: ${how}`, gpu: name });
  }

  #become(state: DeviceState): void {
    this.state = state;
    this.#around.announce(state);
  }
}

/** Texts of about `tokens` tokens in all that no cache has seen. */
function soup(seed: number, tokens: number, each: number): string[] {
  const words = (row: number) => Array.from({ length: each - 4 }, (_, i) => (i % 3 === 0 ? 'a' : 'the')).join(' ') + ` ${seed} ${row}`;
  return Array.from({ length: Math.max(1, Math.floor(tokens / each)) }, (_, row) => words(row));
}

function asError(error: unknown): { code: string; message: string } {
  const { code = '', message = String(error) } = (error ?? {}) as { code?: string; message?: string };
  return { code, message };
}
