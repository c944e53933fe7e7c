// The satellites of a model, from its owner's side: workers that hold the layers and compute along.
//
// They get the layers while the owner loads them, and then parcels of whole rows, as bytes over a port. Nothing is
// shared, so that no page has to be cross-origin isolated. Whatever goes wrong with one of them, the owner computes what
// it has not answered, and tells once that it is gone.

import type { FromSatellite, ToSatellite } from './protocol.js';
import type { Memory, Warning } from './types.js';
import type * as wasm from './wasm/polygraft.js';

/** Seconds without a word, while the owner has nothing else to do, after which a satellite counts as gone. */
const SILENCE = 10;

interface Member {
  port: MessagePort;
  /** Why it is gone. */
  gone?: string;
  ready: boolean;
  /** Parcels of the job at work that it has not answered. */
  out: number;
  /** The job at work failed there: the owner does the rest, and finds out whether it fails as well. */
  benched: boolean;
  /** Waits for an answer to something else than a parcel. */
  asked?: (memory: Memory) => void;
}

/** The satellites of one model. */
export class Crew {
  readonly #members: Member[];
  readonly #warn: (warning: Warning) => void;
  #job: number | undefined;
  #answers: { member: number; answer: Uint8Array }[] = [];
  #giveBack: number[] = [];
  #wake: () => void = () => {};

  constructor(ports: readonly MessagePort[], warn: (warning: Warning) => void) {
    this.#warn = warn;
    this.#members = ports.map((port, index) => {
      port.onmessage = (event: MessageEvent<FromSatellite>) => this.#receive(index, event.data);
      return { port, ready: false, out: 0, benched: false };
    });
  }

  /** Satellites that compute along. */
  get size(): number {
    return this.#members.filter((member) => member.gone === undefined).length;
  }

  /** Says something to all. The last one gets `transfer`; the others get copies. */
  tell(message: ToSatellite, transfer: Transferable[] = []): void {
    const alive = this.#members.filter((member) => member.gone === undefined);
    alive.forEach(({ port }, i) => port.postMessage(message, i === alive.length - 1 ? transfer : []));
  }

  /** Hands on the next bytes of a tensor. */
  part(piece: Uint8Array): void {
    if (this.size === 0) return;
    // A view would take the whole buffer behind it along.
    const bytes = piece.slice();
    this.tell({ op: 'part', bytes }, [bytes.buffer]);
  }

  /** Waits until all have their layers; how many have. */
  async ready(model: wasm.Model): Promise<number> {
    this.tell({ op: 'finish' });
    await this.#until(() => this.#members.every((member) => member.ready || member.gone !== undefined));
    this.#members.forEach((member, index) => {
      if (!member.ready) this.lose(index, 'it did not get ready');
    });
    if (this.size > 0) model.setSatellites(this.#members.length);
    return this.size;
  }

  /** Takes in what has been answered of job `job`, and hands out more of it. */
  feed(model: wasm.Model, job: number): void {
    if (this.#members.length === 0) return;
    if (this.#job !== job) this.#begin(job);
    for (const { member, answer } of this.#answers.splice(0)) {
      if (this.#members[member]?.gone !== undefined) continue;
      try {
        model.takeIn(job, answer);
      } catch (error) {
        this.lose(member, (error as Error).message);
        this.#giveBack.push(member);
      }
    }
    for (const member of this.#giveBack.splice(0)) model.takeBack(job, member);
    this.#members.forEach((member, index) => {
      while (member.gone === undefined && !member.benched) {
        const bytes = model.share(job, index);
        if (bytes.length === 0) break;
        member.out += 1;
        member.port.postMessage({ op: 'parcel', job, bytes } satisfies ToSatellite, [bytes.buffer]);
      }
    });
  }

  /** Whether a satellite owes an answer. */
  get busy(): boolean {
    return this.#members.some((member) => member.out > 0);
  }

  /** Resolves when there is news, or `signal` aborts. Who is silent for too long is gone. */
  async news(signal: AbortSignal): Promise<void> {
    await this.#until(() => signal.aborted || this.#answers.length > 0 || this.#giveBack.length > 0, signal);
    if (signal.aborted || this.#answers.length > 0 || this.#giveBack.length > 0) return;
    this.#members.forEach((member, index) => {
      if (member.out > 0) this.lose(index, `it has not answered for ${SILENCE} s`);
    });
  }

  /** Ends the job: what satellites still have of it is dropped. */
  end(): void {
    if (this.#members.some((member) => member.out > 0)) this.tell({ op: 'drop' });
    this.#begin(undefined);
  }

  /** Memory of all. */
  async memory(): Promise<Memory> {
    const total = { wasm: 0, weights: 0 };
    let open = 0;
    for (const member of this.#members) {
      if (member.gone !== undefined) continue;
      open += 1;
      member.asked = ({ wasm, weights }) => {
        delete member.asked;
        open -= 1;
        total.wasm += wasm;
        total.weights += weights;
      };
    }
    this.tell({ op: 'memory' });
    await this.#until(() => open === 0);
    return total;
  }

  /** Notes that a satellite is gone: the owner computes what it had. */
  lose(index: number, why: string): void {
    const member = this.#members[index];
    if (!member || member.gone !== undefined) return;
    member.gone = why;
    if (member.out > 0) this.#giveBack.push(index);
    member.out = 0;
    member.asked?.({ wasm: 0, weights: 0 });
    member.port.postMessage({ op: 'close' } satisfies ToSatellite);
    member.port.close();
    this.#warn({ code: 'THREAD_LOST', message: `a thread is gone, the others compute on: ${why}` });
    this.#wake();
  }

  #begin(job: number | undefined): void {
    this.#job = job;
    this.#answers = [];
    this.#giveBack = [];
    for (const member of this.#members) {
      member.out = 0;
      member.benched = false;
    }
  }

  #receive(index: number, message: FromSatellite): void {
    const member = this.#members[index];
    if (!member || member.gone !== undefined) return;
    if ('ready' in message) member.ready = true;
    else if ('memory' in message) member.asked?.(message.memory);
    else if ('gone' in message) this.lose(index, message.gone.message);
    else if (message.job !== this.#job || member.benched) return;
    else if ('answer' in message) {
      member.out -= 1;
      this.#answers.push({ member: index, answer: message.answer });
    } else {
      member.benched = true;
      member.out = 0;
      this.#giveBack.push(index);
    }
    this.#wake();
  }

  /** Resolves when `done`, or after some seconds in which nothing has happened. */
  async #until(done: () => boolean, signal?: AbortSignal): Promise<void> {
    // Seconds that this thread has lived through: a page that was frozen has not been waiting.
    for (let silent = 0; silent < SILENCE && !done(); ) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          silent += 1;
          resolve();
        }, 1000);
        this.#wake = () => {
          clearTimeout(timer);
          silent = 0;
          resolve();
        };
        signal?.addEventListener('abort', this.#wake, { once: true });
      });
    }
    this.#wake = () => {};
  }
}
