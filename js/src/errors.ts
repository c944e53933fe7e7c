// The one error class and its codes.

/** Every code with what it means. Codes are stable: the same in Rust, on the command line and here. */
export const errorCodes = {
  ABORTED: 'The caller aborted the call (a DOMException named AbortError).',
  ADAPTER_BASE_MISMATCH: 'The adapter names another base model than the one that is loaded.',
  ADAPTER_CONFIG: "An entry of the adapter's configuration is missing, unknown or would change the result.",
  ADAPTER_KEYS: 'The adapter lacks tensors that its configuration promises, or has some that nothing uses.',
  ADAPTER_NAME: 'A name that a composition could not spell.',
  ADAPTER_SHAPE: "A tensor of the adapter does not fit the base model's shapes.",
  ADAPTER_UNKNOWN: 'A composition names an adapter that is not loaded.',
  ARGUMENT: 'An argument or option is missing, unknown or out of its range.',
  COMPOSE_INVALID: 'A composition cannot be read, or has no defined meaning for these adapters.',
  DISPOSED: 'The model or index has been disposed of.',
  FETCH: 'A file could not be downloaded: the message has the address and the status.',
  FILE_MISSING: 'A file that is needed is not among those given.',
  FILE_READ: 'A file that is there could not be read.',
  FORMAT_DUPLICATE: 'A name occurs twice in a file.',
  FORMAT_HEADER: 'A file does not start as its format does.',
  FORMAT_JSON: 'A file is not the JSON that it should be.',
  FORMAT_LIMIT: 'A number in a file is beyond what is accepted.',
  FORMAT_PICKLE_GLOBAL: 'A pickle names something that does not build tensors; nothing of it was run.',
  FORMAT_PICKLE_OP: 'A pickle is damaged, or does something else than build tensors.',
  FORMAT_RANGE: 'A file is cut off, or its parts overlap or leave holes.',
  FORMAT_ZIP: 'A zip archive is damaged, or not one that torch wrote.',
  GPU_LOST: 'The GPU went away, or failed so that nothing on it can be trusted.',
  GPU_UNAVAILABLE: 'There is no GPU here that can be used, and device: "webgpu" insists on one.',
  GPU_WRONG: 'The GPU computes wrong numbers on known inputs, and must not be used.',
  HEAD_MISSING: 'A task needs a head, and neither base nor adapters bring one.',
  HEAD_SHAPE: 'The head has a number of outputs that the task cannot use.',
  INDEX_STALE: 'The index was made with another base model or other weights: build it again.',
  INPUT_TOO_LONG: 'A row has more tokens than the model has positions.',
  INTEGRITY: 'Bytes are not the ones that were promised: size or SHA-256 differ.',
  INTERNAL: 'A defect of this library. The model is of no more use: load it again.',
  MODEL_CONFIG: "An entry of the base model's configuration is missing, unknown or would change the result.",
  MODEL_KEYS: 'The base model lacks tensors, or has some that nothing uses.',
  MODEL_SHAPE: "A tensor of the base model does not have its configuration's shape.",
  NOT_A_MODEL: 'What was given is not the kind of thing that this call loads.',
  NOT_FINITE: 'NaN or infinity among weights or results.',
  OUT_OF_MEMORY: 'The memory that WebAssembly can have is used up.',
  TOKENIZER: 'The tokenizer cannot be read, or belongs to another model.',
  UNSUPPORTED: 'This environment lacks something without which nothing runs: see probe().',
  UNSUPPORTED_FORMAT: 'A file of a kind that is recognised and not loaded.',
  WASM: "The library's own .wasm file could not be loaded.",
  WORKER: "The library's own worker could not be started, or ended.",
} as const;

/** A stable error code. */
export type PolygraftErrorCode = keyof typeof errorCodes;

/** Every error of this library except an abort, which is a `DOMException` named `AbortError` with `code: 'ABORTED'`. */
export class PolygraftError extends Error {
  /** Which kind of error: stable, for programs. */
  readonly code: PolygraftErrorCode;
  /** What to do next, where that can be said. */
  readonly hint?: string;

  constructor(code: PolygraftErrorCode, message: string, options: { hint?: string | undefined; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.name = 'PolygraftError';
    this.code = code;
    if (options.hint !== undefined) this.hint = options.hint;
  }
}
