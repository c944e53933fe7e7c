// The worker: a host behind a message port.

import { Host, messageTick } from './host.js';
import type { Reply, Request } from './protocol.js';

/** The part of a worker's global scope that is used: the library `webworker` cannot be mixed with `dom`. */
interface Scope {
  postMessage(message: Reply, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<Request>) => void) | null;
}

const scope = globalThis as unknown as Scope;
const host = new Host({
  post: (reply, transfer) => scope.postMessage(reply, transfer),
  tick: messageTick(),
  sliceMs: 20,
});
scope.onmessage = (event) => host.receive(event.data);
