// Where the computing is, in the worker or inline: calls wait in a queue and run one after the other, in slices, so that
// the event loop gets its turn and an abort gets through.

import { Crew } from './crew.js';
import { DeviceKeeper } from './device.js';
import { PolygraftError } from './errors.js';
import { loadModel, readAdapter, release, type ModelIo } from './loading.js';
import type { Begin, Call, Reply, Request, TaskResult } from './protocol.js';
import { trapped } from './trap.js';
import type { DeviceState, Memory, ModelInfo, Progress } from './types.js';
import { abortError, toWire } from './wire.js';
import * as wasm from './wasm/polygraft.js';

/** Progress is told at most this often, in milliseconds. */
const PROGRESS_MS = 50;

interface Pending {
  id: number;
  call: Call;
  abort: AbortController;
  /** An adapter's files, which are fetched while the call waits for its turn. */
  files?: Promise<wasm.Folder>;
}

/** What differs between a worker and the page's own thread. */
export interface Surroundings {
  post(reply: Reply, transfer: Transferable[]): void;
  /** Returns to the event loop. */
  tick(): Promise<void>;
  /** Milliseconds of computing between two ticks. */
  sliceMs: number;
}

/** Set once the WebAssembly instance of this thread has trapped: nothing in it can be trusted any more. */
let dead: PolygraftError | undefined;

/** A task with its arguments. */
type Work = Omit<Call & { op: 'run' }, 'op'>;

/** One model and its queue. */
export class Host {
  readonly #around: Surroundings;
  readonly #queue: Pending[] = [];
  #running: Pending | undefined;
  #model: wasm.Model | undefined;
  #keeper: DeviceKeeper | undefined;
  #profiles = false;
  #crew: Crew | undefined;
  /** Resolves when there is something to compute with. */
  readonly #begun: Promise<Crew>;
  #begin: (begin: Begin) => void = () => {};
  #disposed = false;

  constructor(around: Surroundings) {
    this.#around = around;
    this.#begun = new Promise<Begin>((resolve) => (this.#begin = resolve)).then(({ module, satellites }) => {
      wasm.initSync({ module });
      return (this.#crew = new Crew(satellites, (warning) => around.post({ warning }, [])));
    });
    // The call that loads sees the error; until it looks, it is nobody's.
    this.#begun.catch(() => {});
  }

  receive(request: Request): void {
    if ('abort' in request) {
      this.#abort(request.id);
      return;
    }
    if ('module' in request) {
      this.#begin(request);
      return;
    }
    if ('lost' in request) {
      this.#crew?.lose(request.lost, request.why);
      return;
    }
    const pending: Pending = { ...request, abort: new AbortController() };
    if (request.call.op === 'loadAdapter' && !dead) {
      pending.files = readAdapter(request.call.place, this.#io(pending));
      // Whoever answers the call sees the error; until then it is nobody's.
      pending.files.catch(() => {});
    }
    this.#queue.push(pending);
    void this.#drain();
  }

  /** Frees the model; a call in flight ends at its next slice. */
  dispose(): void {
    this.#disposed = true;
    this.#queue.splice(0).forEach(drop);
    this.#running?.abort.abort();
    if (!this.#running) this.#free();
  }

  #free(): void {
    if (this.#model) release(this.#model);
    this.#model = undefined;
  }

  #abort(id: number): void {
    if (this.#running?.id === id) {
      this.#running.abort.abort();
      return;
    }
    const at = this.#queue.findIndex((pending) => pending.id === id);
    if (at < 0) return;
    this.#queue.splice(at, 1).forEach(drop);
    this.#around.post({ id, error: toWire(abortError()) }, []);
  }

  async #drain(): Promise<void> {
    if (this.#running) return;
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      this.#running = next;
      try {
        const transfer: Transferable[] = [];
        const value = await this.#answer(next, transfer);
        this.#around.post({ id: next.id, value }, transfer);
      } catch (error) {
        // A trap is noted even when the caller has lost interest.
        const told = seen(error);
        this.#around.post({ id: next.id, error: toWire(next.abort.signal.aborted ? abortError() : told) }, []);
      }
      this.#running = undefined;
    }
    if (this.#disposed) this.#free();
  }

  async #answer(pending: Pending, transfer: Transferable[]): Promise<unknown> {
    if (dead) throw dead;
    const { call } = pending;
    switch (call.op) {
      case 'load': {
        const io = { ...this.#io(pending), cache: call.cache };
        this.#model = await loadModel(call.place, call.precision, io, this.#begun);
        const threads = 1 + (await (await this.#begun).ready(this.#model));
        const device = await this.#startDevice(this.#model, call, pending);
        this.#profiles = call.profile;
        if (call.profile) this.#model.measure();
        return { ...(JSON.parse(this.#model.info()) as object), thread: call.thread, threads, device };
      }
      case 'loadAdapter': {
        const files = await pending.files;
        if (!files) throw new PolygraftError('INTERNAL', 'an adapter without files');
        try {
          return JSON.parse(this.#need().loadAdapter(call.name, files, JSON.stringify(call.options)));
        } finally {
          release(files);
        }
      }
      case 'unloadAdapter':
        return this.#need().unloadAdapter(call.name);
      case 'run':
        return this.#run(call, this.#io(pending), transfer);
      case 'explain':
        return JSON.parse(this.#need().explain(call.args));
      case 'memory':
        return this.#memory(this.#need());
      case 'saveIndex': {
        const bytes = this.#need().saveIndex(call.index);
        transfer.push(bytes.buffer);
        return bytes;
      }
      case 'loadIndex':
        return [...this.#need().loadIndex(call.bytes)];
      case 'dropIndex':
        return this.#need().dropIndex(call.index);
    }
  }

  /** Memory of all threads. */
  async #memory(model: wasm.Model): Promise<Memory> {
    const others = await this.#crew?.memory();
    return { wasm: wasm.memoryBytes() + (others?.wasm ?? 0), weights: model.weights() + (others?.weights ?? 0) };
  }

  /** Chooses where calls run; what changes later is told as an event. */
  async #startDevice(model: wasm.Model, call: Call & { op: 'load' }, pending: Pending): Promise<DeviceState> {
    let started = false;
    const { image, maxTokens } = JSON.parse(model.info()) as ModelInfo;
    const { signal } = this.#io(pending);
    this.#keeper = new DeviceKeeper(model, {
      announce: (device) => started && this.#around.post({ device }, []),
      unit: image ? maxTokens : 1,
      time: async (texts) => {
        const begin = performance.now();
        const size = image ? image.channels * image.height * image.width * texts.length : 0;
        const items = image ? { texts: [], images: texts.length } : { texts };
        const work = { task: 'embed' as const, args: JSON.stringify({ ...items, adapters: [null] }), pixels: new Float32Array(size) };
        model.result(await this.#advance(model, work, signal)).free();
        return performance.now() - begin;
      },
      remember: call.cache,
    });
    await this.#keeper.start(call.device);
    started = true;
    return this.#keeper.state;
  }

  async #run(work: Work, io: ModelIo, transfer: Transferable[]): Promise<TaskResult> {
    const started = performance.now();
    const model = this.#need();
    const job = await this.#completed(model, work, io);
    // It is the result that has effects: an index, a vector that is loaded.
    if (io.signal.aborted) {
      model.cancel(job);
      throw abortError();
    }
    if (this.#profiles) this.#around.post({ profile: JSON.parse(model.takeProfile()) as Record<string, number> }, []);
    const output = model.result(job);
    const [bytes, floats] = [output.takeBytes(), output.takeFloats()];
    const answer: unknown = JSON.parse(output.takeJson());
    output.free();
    transfer.push(bytes.buffer, floats.buffer);
    return { answer, bytes, floats, ms: performance.now() - started };
  }

  /** A job that is done. One whose GPU was lost is begun again, on the GPU once more or on the CPU. */
  async #completed(model: wasm.Model, work: Work, { signal, progress }: ModelIo): Promise<number> {
    for (;;) {
      try {
        return await this.#advance(model, work, signal, progress);
      } catch (error) {
        if (signal.aborted || !(await this.#keeper?.recover(error))) throw error;
      }
    }
  }

  async #advance(
    model: wasm.Model,
    { task, args, pixels }: Work,
    signal: AbortSignal,
    progress?: (progress: Progress) => void,
  ): Promise<number> {
    const job = model.start(task, args, pixels ?? new Float32Array());
    try {
      for (;;) {
        this.#crew?.feed(model, job);
        const [state = 0, loaded = 0, total = 0] = model.step(job, this.#around.sliceMs);
        progress?.(total > 0 ? { phase: 'run', loaded, total } : { phase: 'run', loaded });
        if (state === 1) return job;
        if (state === 2) await (this.#crew?.busy ? this.#crew.news(signal) : this.#keeper?.answered());
        else await this.#around.tick();
        if (signal.aborted) throw abortError();
      }
    } catch (error) {
      try {
        model.cancel(job);
      } catch {
        // The instance has trapped: it is the first error that tells why.
      }
      throw error;
    } finally {
      this.#crew?.end();
    }
  }

  #io({ id, abort }: Pending): ModelIo {
    return {
      signal: abort.signal,
      cache: false,
      hasher: () => this.#begun.then(() => new wasm.Hasher()),
      progress: this.#throttled(id),
      warn: (warning) => this.#around.post({ warning }, []),
      tick: () => this.#around.tick(),
      sliceMs: this.#around.sliceMs,
    };
  }

  #need(): wasm.Model {
    if (!this.#model) throw new PolygraftError('DISPOSED', 'no model is loaded');
    return this.#model;
  }

  /** Progress of one call, told at most every so often; the last one always. */
  #throttled(id: number): (progress: Progress) => void {
    let last = Number.NEGATIVE_INFINITY;
    return (progress) => {
      const now = performance.now();
      if (now - last < PROGRESS_MS && progress.loaded !== progress.total) return;
      last = now;
      this.#around.post({ id, progress }, []);
    };
  }
}

/** Lets go of a call that will not be answered by running it. */
function drop({ abort, files }: Pending): void {
  abort.abort();
  files?.then(release, () => {});
}

/** An error as it is told. A trap ends the instance: a panic, which is a defect, or the end of its memory or stack. */
export function seen(error: unknown): unknown {
  const trap = trapped(error);
  if (trap) return (dead = trap);
  // JavaScript's own memory: a buffer that could not be had. The engine is whole.
  if (error instanceof RangeError) return new PolygraftError('OUT_OF_MEMORY', error.message, { cause: error });
  return error;
}

/** Returns to the event loop by a message, which no browser delays as it does timers. */
export function messageTick(): () => Promise<void> {
  const { port1, port2 } = new MessageChannel();
  const waiting: (() => void)[] = [];
  port1.onmessage = () => waiting.shift()?.();
  return () =>
    new Promise((resolve) => {
      waiting.push(resolve);
      port2.postMessage(undefined);
    });
}
