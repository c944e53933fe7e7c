// One file from the network: streamed, resumed where it was cut, and refused when it is something else.

import { PolygraftError } from './errors.js';
import { abortError } from './wire.js';

/** How often a transfer that broke is taken up again. */
const RETRIES = 4;
const FIRST_WAIT_MS = 200;

/** What is downloaded. */
export interface Remote {
  url: string;
  /** Bytes, where a manifest promises them; without it only the transfer itself can tell that it was cut. */
  length?: number | undefined;
  signal: AbortSignal;
  /** Told the length that the server announces, where it does. */
  onLength?: ((length: number) => void) | undefined;
}

/** The bytes of `remote` from `offset` on. Cut or refused transfers are tried again with a range request. */
export async function* download(remote: Remote, offset = 0): AsyncGenerator<Uint8Array, void, undefined> {
  const { url, length, signal } = remote;
  let at = offset;
  for (let failures = 0; ; failures += 1) {
    let problem: PolygraftError;
    try {
      const response = await fetch(url, { signal, headers: at > 0 ? { Range: `bytes=${at}-` } : {} });
      if (response.ok) {
        if (failures === 0 && offset === 0) announce(response, remote);
        // A server without ranges starts again from the beginning.
        let skip = response.status === 206 ? at - rangeStart(response, at) : at;
        for await (let chunk of bodyOf(response, url)) {
          if (at === 0) refusePage(chunk, url);
          const passed = Math.min(skip, chunk.length);
          skip -= passed;
          chunk = chunk.subarray(passed);
          at += chunk.length;
          if (chunk.length > 0) yield chunk;
        }
        if (length === undefined || at >= length) return;
        problem = new PolygraftError('FETCH', `${shown(url)}: the transfer ended at byte ${at} of ${length}`);
      } else {
        problem = new PolygraftError('FETCH', `${shown(url)}: the server answered ${response.status} ${response.statusText}`.trimEnd(), {
          hint: response.status === 404 ? 'Check the address: no such file is there.' : undefined,
          cause: response.status,
        });
        await response.body?.cancel().catch(() => {});
        if (!isTransient(response.status)) throw problem;
      }
    } catch (error) {
      if (signal.aborted) throw abortError(signal.reason);
      if (error instanceof PolygraftError) throw error;
      const where = at > 0 ? ` after ${at} bytes` : '';
      problem = new PolygraftError('FETCH', `${shown(url)}: the transfer failed${where}: ${reasonOf(error)}`, {
        cause: error,
        hint: 'Check the connection; a file on another origin needs CORS headers (Access-Control-Allow-Origin).',
      });
    }
    if (failures >= RETRIES) throw problem;
    await wait(FIRST_WAIT_MS * 2 ** failures, signal);
  }
}

/** An address for messages: a query may hold a token. */
export function shown(url: string): string {
  return url.startsWith('data:') ? 'data:…' : url.replace(/[?#].*$/s, '');
}

/** Whether the status may be another one in a moment. */
function isTransient(status: number): boolean {
  return status === 408 || status === 425 || status === 429 || status >= 500;
}

function announce(response: Response, remote: Remote): void {
  // With an encoding, the header counts other bytes than the ones that arrive.
  const encoded = response.headers.get('content-encoding');
  const announced = Number(response.headers.get('content-length') ?? Number.NaN);
  if (!encoded && Number.isSafeInteger(announced) && announced > 0) remote.onLength?.(announced);
}

function rangeStart(response: Response, asked: number): number {
  const start = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1];
  // The header is hidden from other origins that do not expose it; then the status is taken at its word.
  if (start === undefined) return asked;
  if (Number(start) > asked) throw new PolygraftError('FETCH', `${shown(response.url)}: the server sent another range than the one asked for`);
  return Number(start);
}

async function* bodyOf(response: Response, url: string): AsyncGenerator<Uint8Array, void, undefined> {
  if (!response.body) throw new PolygraftError('FETCH', `${shown(url)}: the answer has no body`);
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    // The rest is not wanted when the consumer stops early.
    reader.cancel().catch(() => {});
  }
}

/** Servers of pages answer with a page where there is no file; repositories with a pointer where the file is stored elsewhere. */
function refusePage(chunk: Uint8Array, url: string): void {
  const start = new TextDecoder('latin1').decode(chunk.subarray(0, 64)).trimStart().toLowerCase();
  if (start.startsWith('<!doctype html') || start.startsWith('<html')) {
    throw new PolygraftError('FETCH', `${shown(url)}: the server answered with an HTML page, not with the file`, {
      hint: 'A development server answers so for files that are not there: check the address and that the file is served.',
    });
  }
  if (start.startsWith('version https://git-lfs')) {
    throw new PolygraftError('FETCH', `${shown(url)}: this is a Git LFS pointer, not the file`, {
      hint: 'Run git lfs pull, or use the address that resolves to the file itself.',
    });
  }
}

function reasonOf(error: unknown): string {
  const cause = (error as { cause?: { code?: string; message?: string } }).cause;
  const message = error instanceof Error ? error.message : String(error);
  const detail = cause?.code ?? cause?.message;
  return detail && detail !== message ? `${message} (${detail})` : message;
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(abortError(signal.reason));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal.addEventListener('abort', stop, { once: true });
  });
}
