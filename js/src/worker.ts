// The worker: a host behind a message port, or one of a host's satellites.

import { Host, messageTick } from './host.js';
import type { Enlist, Reply, Request } from './protocol.js';
import { SatelliteHost } from './satellite.js';

/** The part of a worker's global scope that is used: the library `webworker` cannot be mixed with `dom`. */
interface Scope {
  postMessage(message: Reply, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<Request | Enlist>) => void) | null;
  close(): void;
}

const scope = globalThis as unknown as Scope;
const host = new Host({
  post: (reply, transfer) => scope.postMessage(reply, transfer),
  tick: messageTick(),
  sliceMs: 20,
});
scope.onmessage = ({ data }) => {
  if ('satellite' in data) new SatelliteHost(data, messageTick(), () => scope.close());
  else host.receive(data);
};
