// How errors cross from the worker, and the one error that is not ours: an abort.

import { errorCodes, PolygraftError, type PolygraftErrorCode } from './errors.js';

/** An error as it crosses a message port: structured clone would drop class and code. */
export interface WireError {
  code: PolygraftErrorCode;
  message: string;
  hint?: string;
}

/** The error of an aborted call. `reason` is the signal's. */
export function abortError(reason?: unknown): DOMException {
  const error = new DOMException('The call was aborted.', 'AbortError');
  // DOMException's own `code` is a number of the 1990s; ours is the same kind of string as everywhere else.
  Object.defineProperty(error, 'code', { value: 'ABORTED', enumerable: true });
  if (reason !== undefined) Object.defineProperty(error, 'cause', { value: reason, enumerable: false });
  return error;
}

export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

function isCode(code: unknown): code is PolygraftErrorCode {
  return typeof code === 'string' && Object.hasOwn(errorCodes, code);
}

/** Anything that was thrown, in the form that crosses. */
export function toWire(error: unknown): WireError {
  if (isAbort(error)) return { code: 'ABORTED', message: 'The call was aborted.' };
  const message = error instanceof Error ? error.message : String(error);
  const code = (error as { code?: unknown } | null | undefined)?.code;
  if (!isCode(code)) return { code: 'INTERNAL', message };
  const hint = error instanceof PolygraftError ? error.hint : hintFor(code);
  return hint === undefined ? { code, message } : { code, message, hint };
}

/** What crossed, as the error to throw. */
export function fromWire(wire: WireError): Error {
  if (wire.code === 'ABORTED') return abortError();
  return new PolygraftError(wire.code, wire.message, { hint: wire.hint });
}

/** The next step for errors that come from Rust, whose messages say what and where. */
function hintFor(code: PolygraftErrorCode): string | undefined {
  switch (code) {
    case 'ADAPTER_UNKNOWN':
      return 'Call loadAdapter(name, source) before the composition uses the name.';
    case 'ADAPTER_BASE_MISMATCH':
      return 'Load the base model that the adapter was made for, or pass allowBaseMismatch: true if you know that it fits.';
    case 'ADAPTER_KEYS':
      return 'Pass strict: false to load what fits; the report then lists the rest.';
    case 'INDEX_STALE':
      return 'Build the index again with model.index(documents).';
    default:
      return undefined;
  }
}
