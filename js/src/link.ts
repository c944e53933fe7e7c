// The page's end of the line to the host: numbered calls, their answers, aborts.

import { PolygraftError } from './errors.js';
import { Host } from './host.js';
import type { Begin, Call, Reply, Request } from './protocol.js';
import type { DeviceState, Progress, Warning } from './types.js';
import { abortError, fromWire } from './wire.js';

/** A way to reach a host. */
export interface Line {
  post(request: Request, transfer?: Transferable[]): void;
  close(): void;
}

/** Opens a line: `reply` gets what the host says, `failed` is told when it cannot say anything any more. */
export type Dial = (reply: (reply: Reply) => void, failed: (error: PolygraftError) => void) => Line;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
  progress: (progress: Progress) => void;
}

/** What a host says without being asked. */
export interface Told {
  warning(warning: Warning): void;
  device(state: DeviceState): void;
  profile(spent: Record<string, number>): void;
}

/** What goes along with a call. */
export interface CallOptions {
  signal?: AbortSignal | undefined;
  progress?: (progress: Progress) => void;
  /** Takes an answer that comes although the call was aborted: it was on its way. */
  late?: ((value: unknown) => void) | undefined;
}

/** Calls in flight over one line. */
export class Link {
  readonly #line: Line;
  readonly #waiting = new Map<number, Waiting>();
  readonly #told: Told;
  #last = 0;
  #closed: PolygraftError | undefined;

  constructor(dial: Dial, told: Told) {
    this.#told = told;
    this.#line = dial(
      (reply) => this.#receive(reply),
      (error) => this.close(error),
    );
  }

  /** Sends a call. An abort of a computation rejects at once; of anything else when the host has answered. */
  call(call: Call, options: CallOptions = {}): Promise<unknown> {
    const { signal, progress = () => {}, late } = options;
    if (this.#closed) return Promise.reject(this.#closed);
    if (signal?.aborted) return Promise.reject(abortError(signal.reason));
    this.#last += 1;
    const id = this.#last;
    const answer = new Promise<unknown>((resolve, reject) => {
      const abort = () => {
        this.#line.post({ id, abort: true });
        if (call.op !== 'run') return;
        settle(() => reject(abortError(signal?.reason)));
        // The host's last word is still to come.
        const last = (how?: () => void) => (this.#waiting.delete(id), how?.());
        this.#waiting.set(id, { resolve: (value) => last(() => late?.(value)), reject: () => last(), progress: () => {} });
      };
      const settle = (how: () => void) => {
        this.#waiting.delete(id);
        signal?.removeEventListener('abort', abort);
        how();
      };
      this.#waiting.set(id, {
        resolve: (value) => settle(() => resolve(value)),
        reject: (error) => settle(() => reject(error)),
        progress,
      });
      signal?.addEventListener('abort', abort, { once: true });
    });
    try {
      this.#line.post({ id, call });
    } catch (error) {
      const why = `an argument cannot be sent to the worker: ${(error as Error).message}`;
      this.#waiting.get(id)?.reject(new PolygraftError('ARGUMENT', why, { cause: error }));
    }
    return answer;
  }

  /** Whether there is a host still. */
  get open(): boolean {
    return !this.#closed;
  }

  /** Gives the host what computes, while the line is open. */
  begin(begin: Begin): void {
    this.#line.post(begin, begin.satellites);
  }

  /** Tells the host that a satellite is gone. */
  lost(index: number, why: string): void {
    if (!this.#closed) this.#line.post({ lost: index, why });
  }

  /** Ends the line; calls in flight and later ones reject with `error`. */
  close(error: PolygraftError): void {
    if (this.#closed) return;
    this.#closed = error;
    this.#line.close();
    for (const waiting of [...this.#waiting.values()]) waiting.reject(error);
  }

  #receive(reply: Reply): void {
    if ('warning' in reply) {
      this.#told.warning(reply.warning);
      return;
    }
    if ('profile' in reply) {
      this.#told.profile(reply.profile);
      return;
    }
    if ('device' in reply) {
      this.#told.device(reply.device);
      return;
    }
    const waiting = this.#waiting.get(reply.id);
    if (!waiting) return;
    if ('progress' in reply) waiting.progress(reply.progress);
    else if ('error' in reply) waiting.reject(fromWire(reply.error));
    else waiting.resolve(reply.value);
  }
}

/** A line to a host in this thread. Replies come in a turn of their own, as from a worker. */
export function inline(tick: () => Promise<void>): Dial {
  return (reply) => {
    let open = true;
    const host = new Host({
      post: (message) => queueMicrotask(() => open && reply(message)),
      tick,
      // About half a frame.
      sliceMs: 8,
    });
    return {
      post: (request) => host.receive(request),
      close: () => {
        open = false;
        host.dispose();
      },
    };
  };
}

/** A line to a host in a worker. */
export function through(start: () => Worker): Dial {
  return (reply, failed) => {
    const hint = 'If a bundler moved worker.js, or a policy forbids workers (CSP worker-src), pass worker: false.';
    let worker: Worker;
    try {
      worker = start();
    } catch (cause) {
      throw new PolygraftError('WORKER', `the worker could not be started: ${(cause as Error).message}`, { cause, hint });
    }
    worker.onmessage = (event: MessageEvent<Reply>) => reply(event.data);
    worker.onerror = (event) => {
      event.preventDefault();
      const why = event.message || 'its script could not be loaded';
      failed(new PolygraftError('WORKER', `the worker failed: ${why}`, { hint }));
    };
    worker.onmessageerror = () => failed(new PolygraftError('WORKER', 'a message from the worker could not be read'));
    return {
      post: (request, transfer = []) => worker.postMessage(request, transfer),
      close: () => worker.terminate(),
    };
  };
}
