// Starting satellites from the page: only there do bundlers find the worker, and only there are its failures told.

import type { Enlist } from './protocol.js';

/** Workers with a port to each, for the owner. */
export interface Enlisted {
  ports: MessagePort[];
  close(): void;
}

/** Starts `count` workers as satellites; `lost` is told when one cannot run, never before this has returned. */
export function enlist(
  start: () => Worker,
  count: number,
  module: WebAssembly.Module,
  lost: (index: number, why: string) => void,
): Enlisted {
  const workers: Worker[] = [];
  const ports = Array.from({ length: count }, (_, index) => {
    const { port1, port2 } = new MessageChannel();
    try {
      const worker = start();
      workers.push(worker);
      worker.onerror = (event) => {
        event.preventDefault();
        lost(index, event.message || "the worker's script could not be loaded");
      };
      worker.postMessage({ satellite: port2, module } satisfies Enlist, [port2]);
    } catch (error) {
      queueMicrotask(() => lost(index, (error as Error).message));
    }
    return port1;
  });
  return { ports, close: () => workers.forEach((worker) => worker.terminate()) };
}
