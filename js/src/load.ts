// Loading a model, whatever the surroundings.

import { cacheStorage } from './cache.js';
import { PolygraftError } from './errors.js';
import { enlist, type Enlisted } from './enlist.js';
import { inline, Link, through, type Dial } from './link.js';
import { Events, guarded, RemoteModel } from './model.js';
import * as check from './options.js';
import { placeOf, type Locate, type Place } from './place.js';
import { hasSimd } from './probe.js';
import type { DeviceChoice, DeviceState, LoadOptions, Model, ModelInfo, Precision, Progress, Source } from './types.js';
import { abortError } from './wire.js';
import { fingerprint } from './wasm/polygraft.js';

/** What a page and Node do differently. */
export interface Surroundings {
  locate: Locate;
  /** The library's own .wasm file, compiled. */
  compile(): Promise<WebAssembly.Module>;
  /** Fetches and compiles a .wasm file from where the caller says it is. */
  compileFrom(address: string | URL): Promise<WebAssembly.Module>;
  /** Starts the library's worker; undefined where there are no workers, or they are not used. */
  startWorker: (() => Worker) | undefined;
  /** Why there is no worker. */
  noWorker: string;
  tick(): () => Promise<void>;
}

const OPTIONS = ['signal', 'onProgress', 'device', 'worker', 'cache', 'precision', 'wasm', 'threads', 'profile'];
/** More than any machine that runs a browser makes use of. */
const MOST_THREADS = 16;

/** Loads a model. */
export async function loadIn(around: Surroundings, source: Source, options?: LoadOptions): Promise<Model> {
  const o = check.checkOptions('load', options, OPTIONS);
  const device = check.choiceOf<DeviceChoice>('load: device', o.device, ['auto', 'cpu', 'webgpu']) ?? 'auto';
  const precision = check.choiceOf<Precision>('load: precision', o.precision, ['fast', 'exact']) ?? 'fast';
  const profile = check.flagOf('load: profile', o.profile) ?? false;
  const cache = check.flagOf('load: cache', o.cache) ?? cacheStorage() !== undefined;
  const workerAsked = check.flagOf('load: worker', o.worker);
  const threads = check.countOf('load: threads', o.threads) ?? 1;
  if (threads > MOST_THREADS) throw new PolygraftError('ARGUMENT', `load: threads must be at most ${MOST_THREADS}`);
  if (threads > 1 && (workerAsked === false || !around.startWorker)) {
    const why = workerAsked === false ? 'worker: false computes on this thread alone' : around.noWorker;
    throw new PolygraftError('ARGUMENT', `load: threads: ${threads} needs workers. ${why}`, { hint: 'Leave threads out.' });
  }
  const signal = check.signalOf('load: signal', o.signal);
  const listener = check.functionOf('load: onProgress', o.onProgress);
  if (signal?.aborted) throw abortError(signal.reason);
  const place = placeOf(source, around.locate);
  const events = new Events();
  let dial: Dial;
  let thread: 'worker' | 'inline' = 'inline';
  if (workerAsked !== false && around.startWorker) {
    thread = 'worker';
    dial = through(around.startWorker);
  } else {
    if (workerAsked !== false) events.emit('warning', { code: 'WORKER_UNAVAILABLE', message: around.noWorker });
    dial = inline(around.tick());
  }
  let crew: Enlisted | undefined;
  const withCrew: Dial = (reply, failed) => {
    const line = dial(reply, failed);
    return { post: line.post, close: () => (line.close(), crew?.close()) };
  };
  const link = new Link(withCrew, {
    warning: (warning) => events.emit('warning', warning),
    device: (state) => events.emit('device', state),
    profile: (spent) => events.emit('profile', spent),
  });
  // An abort ends the worker with whatever it is doing.
  const abort = () => link.close(new PolygraftError('DISPOSED', 'loading was aborted'));
  signal?.addEventListener('abort', abort, { once: true });
  try {
    const progress = (value: Progress) => guarded(listener, value);
    const sent = thread === 'worker' ? sendable(place) : place;
    const call = { op: 'load', place: sent, precision, cache, thread, device, profile } as const;
    const answer = link.call(call, { progress }) as Promise<ModelInfo & { device: DeviceState }>;
    // While the worker fetches its scripts, and then what is small.
    const begun = compiled(around, o.wasm).then(ours).then((module) => {
      if (!link.open) return;
      if (threads > 1 && around.startWorker) {
        crew = enlist(around.startWorker, threads - 1, module, (index, why) => link.lost(index, why));
      }
      link.begin({ module, satellites: crew?.ports ?? [] });
    });
    const [{ device: state, ...info }] = await Promise.all([answer, begun]);
    return new RemoteModel(info, state, link, events, around.locate);
  } catch (error) {
    link.close(new PolygraftError('DISPOSED', 'loading failed'));
    throw signal?.aborted ? abortError(signal.reason) : error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/** Large byte arrays go to the worker as blobs: a message would copy them, and the page holds one copy already. */
function sendable(place: Place): Place {
  if (place.kind !== 'local') return place;
  const files = [...place.files].map(([name, file]) => {
    const large = file instanceof Uint8Array && file.length > 1 << 20;
    return [name, large ? new Blob([file as Uint8Array<ArrayBuffer>]) : file] as const;
  });
  return { ...place, files: new Map(files) };
}

/** The module, checked to be one and to be allowed here. */
async function compiled(around: Surroundings, given: LoadOptions['wasm']): Promise<WebAssembly.Module> {
  if (typeof WebAssembly !== 'object') throw new PolygraftError('UNSUPPORTED', 'this environment has no WebAssembly');
  if (!hasSimd()) {
    throw new PolygraftError('UNSUPPORTED', 'this environment has no WebAssembly SIMD, which polygraft needs', {
      hint: 'Chrome and Edge have it since 91, Firefox since 89, Safari since 16.4, Node since 16.4.',
    });
  }
  try {
    if (given instanceof WebAssembly.Module) return given;
    if (given === undefined) return await around.compile();
    if (typeof given === 'string' || given instanceof URL) return await around.compileFrom(given);
    return await WebAssembly.compile(given);
  } catch (cause) {
    if (cause instanceof PolygraftError) throw cause;
    const policy = /unsafe-eval|Content Security Policy/i.test(String(cause));
    throw new PolygraftError('WASM', `the WebAssembly module could not be loaded: ${(cause as Error).message}`, {
      cause,
      hint: policy
        ? "Allow it in the page's Content-Security-Policy: script-src 'self' 'wasm-unsafe-eval'."
        : "If the page has a Content-Security-Policy, connect-src must name the file's origin. If a bundler moved the file (polygraft_relaxed_bg.wasm, or polygraft_bg.wasm on older engines), pass its address as the option wasm.",
    });
  }
}

/** The module, when it is of the same build as these scripts: a cache may have kept one of another version. */
function ours(module: WebAssembly.Module): WebAssembly.Module {
  const [made] = WebAssembly.Module.customSections(module, 'polygraft').map((bytes) => new TextDecoder().decode(bytes));
  if (made === fingerprint) return module;
  throw new PolygraftError('WASM', made ? 'the .wasm file is of another build of polygraft than its scripts' : "the .wasm file is not polygraft's", {
    hint: 'Serve the package\'s folder dist/wasm as it is, beside the scripts of the same version; a cache may still hold an older file under that name.',
  });
}

/** Compiles what a server answers: as it arrives, where the server says what it is; engines keep the code of such a one. */
export async function compileResponse(response: Response): Promise<WebAssembly.Module> {
  if (!response.ok) throw new Error(`the server answered ${response.status} ${response.statusText}`.trimEnd());
  if (/^application\/wasm$/i.test(response.headers.get('content-type') ?? '')) return WebAssembly.compileStreaming(response);
  const bytes = new Uint8Array(await response.arrayBuffer());
  // "\0asm"; a development server answers with a page where there is no file.
  if (bytes[0] !== 0 || bytes[1] !== 0x61) throw new Error('the server answered with something that is no .wasm file');
  return WebAssembly.compile(bytes);
}
