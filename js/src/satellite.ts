// A satellite, in a worker of its own: gets layers, then parcels of rows, and answers them one after the other.

import { seen } from './host.js';
import type { Enlist, FromSatellite, ToSatellite } from './protocol.js';
import { toWire } from './wire.js';
import * as wasm from './wasm/polygraft.js';

/** Milliseconds of computing between two looks at the port. */
const SLICE_MS = 20;

/** Serves whoever is at the other end of the port. */
export class SatelliteHost {
  readonly #port: MessagePort;
  readonly #tick: () => Promise<void>;
  readonly #close: () => void;
  #files: wasm.Folder | undefined;
  #loader: wasm.Loader | undefined;
  #satellite: wasm.Satellite | undefined;
  /** The job of each parcel that is here. */
  #jobs: number[] = [];
  #working = false;

  constructor({ satellite, module }: Enlist, tick: () => Promise<void>, close: () => void) {
    this.#port = satellite;
    this.#tick = tick;
    this.#close = close;
    this.#port.onmessage = (event: MessageEvent<ToSatellite>) => this.#guarded(() => this.#receive(event.data));
    this.#guarded(() => {
      wasm.initSync({ module });
      this.#files = new wasm.Folder();
    });
  }

  #receive(message: ToSatellite): void {
    switch (message.op) {
      case 'file':
        this.#files?.add(message.name, message.bytes);
        return;
      case 'announce':
        this.#files?.announce(message.name, message.length);
        return;
      case 'shard':
        if (this.#files) this.#loader = wasm.Loader.toSatellite(this.#files);
        this.#files = undefined;
        this.#loader?.begin(message.shard, message.header, message.length);
        return;
      case 'expect':
        this.#loader?.expect(message.bytes);
        return;
      case 'part':
        this.#loader?.part(message.bytes);
        return;
      case 'tensor':
        this.#loader?.tensor(message.shard, message.index);
        return;
      case 'finish':
        if (!this.#loader) throw new Error('it got no layers');
        this.#satellite = this.#loader.finishSatellite();
        this.#loader = undefined;
        this.#post({ ready: true });
        return;
      case 'parcel':
        this.#jobs.push(message.job);
        this.#satellite?.take(message.bytes);
        void this.#work();
        return;
      case 'drop':
        this.#satellite?.clear();
        this.#jobs = [];
        return;
      case 'memory':
        this.#post({ memory: { wasm: wasm.memoryBytes(), weights: this.#satellite?.weights() ?? 0 } });
        return;
      case 'close':
        this.#close();
    }
  }

  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    while (this.#guarded(() => this.#slice())) await this.#tick();
    this.#working = false;
  }

  /** Computes for a while; whether there may be more to do. */
  #slice(): boolean {
    if (!this.#satellite) return false;
    let state: number;
    try {
      state = this.#satellite.step(SLICE_MS);
    } catch (error) {
      const told = seen(error);
      if (told !== error) throw error;
      // A row that cannot be computed: all that is here goes back to the owner.
      const [job = 0] = this.#jobs;
      this.#jobs = [];
      this.#post({ job, failed: toWire(error) });
      return false;
    }
    if (state === 1) {
      const answer = this.#satellite.takeAnswer();
      this.#post({ job: this.#jobs.shift() ?? 0, answer }, [answer.buffer]);
    }
    return state !== 2;
  }

  /** What is thrown here is the end: a trap, or a message that cannot be understood. */
  #guarded<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      this.#satellite = undefined;
      this.#post({ gone: toWire(seen(error)) });
      return undefined;
    }
  }

  #post(message: FromSatellite, transfer: Transferable[] = []): void {
    this.#port.postMessage(message, transfer);
  }
}
