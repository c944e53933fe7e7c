// Arguments as they come from callers, checked once, at the door.

import { PolygraftError } from './errors.js';

/** Refuses an option that nothing reads, naming the nearest one that is. */
export function checkOptions<T extends object>(call: string, options: T | undefined, known: readonly string[]): T {
  if (options === undefined) return {} as T;
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new PolygraftError('ARGUMENT', `${call}: options must be an object, not ${kindOf(options)}`);
  }
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    const near = nearest(key, known);
    throw new PolygraftError('ARGUMENT', `${call}: unknown option ${JSON.stringify(key)}`, {
      hint: near ? `Did you mean ${near}? Known: ${known.join(', ')}.` : `Known: ${known.join(', ')}.`,
    });
  }
  return options;
}

/** The known name that a typo is nearest to, or undefined when none is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Math.max(2, Math.ceil(name.length / 2)) + 1;
  for (const candidate of known) {
    const d = distance(name.toLowerCase(), candidate.toLowerCase());
    if (d < least) [best, least] = [candidate, d];
  }
  return best;
}

/** Levenshtein's distance; names are short. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'a list' : typeof value;
}

/** A text with lone surrogates replaced by U+FFFD: they are no Unicode, and JSON readers refuse them. */
export function wellFormed(text: string): string {
  return text.replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g, '\uFFFD');
}

/** A text argument. */
export function textOf(what: string, value: unknown): string {
  if (typeof value !== 'string') throw new PolygraftError('ARGUMENT', `${what} must be a string, not ${kindOf(value)}`);
  return wellFormed(value);
}

/** A list of texts. */
export function textsOf(what: string, value: unknown): string[] {
  return listOf(what, value).map((text, i) => textOf(`${what}[${i}]`, text));
}

/** The numbers of images, one after the other, where the first of `list` is an image; all are then, and of one size. */
export function pixelsOf(what: string, list: readonly unknown[]): Float32Array | undefined {
  const isImage = (item: unknown) => typeof item === 'object' && item !== null && 'pixels' in item;
  if (!isImage(list[0])) return undefined;
  const images = list.map((item, i) => {
    const pixels = isImage(item) ? (item as { pixels: unknown }).pixels : undefined;
    if (pixels instanceof Float32Array) return pixels;
    throw new PolygraftError('ARGUMENT', `${what}[${i}] must be an object with \`pixels\`, a Float32Array, as the others are`);
  });
  const size = images[0]?.length ?? 0;
  if (size === 0) throw new PolygraftError('ARGUMENT', `${what}[0] has no numbers: give channels × height × width of them`);
  const other = images.findIndex((image) => image.length !== size);
  if (other >= 0) {
    throw new PolygraftError('ARGUMENT', `${what}[${other}] has ${images[other]?.length} numbers, the first has ${size}: give images of one size`);
  }
  const out = new Float32Array(size * images.length);
  images.forEach((image, i) => out.set(image, i * size));
  return out;
}

/** A list of texts or of objects with a `text`. */
export function documentTexts(what: string, value: unknown): string[] {
  return listOf(what, value).map((item, i) => {
    const text = typeof item === 'object' && item !== null ? (item as { text?: unknown }).text : item;
    if (typeof text === 'string') return wellFormed(text);
    throw new PolygraftError('ARGUMENT', `${what}[${i}] must be a string or an object with a string \`text\``);
  });
}

function listOf(what: string, value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new PolygraftError('ARGUMENT', `${what} must be a list, not ${kindOf(value)}`);
  return value as readonly unknown[];
}

/** A whole number of at least 1, or nothing. */
export function countOf(what: string, value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1) {
    throw new PolygraftError('ARGUMENT', `${what} must be a whole number of at least 1`);
  }
  return Math.min(value, 0xffff_ffff);
}

/** True or false, or nothing. */
export function flagOf(what: string, value: unknown): boolean | undefined {
  if (value === undefined || typeof value === 'boolean') return value;
  throw new PolygraftError('ARGUMENT', `${what} must be true or false, not ${kindOf(value)}`);
}

/** How an adapter is read, as far as the caller says. */
export function adapterChoices(call: string, o: { task?: unknown; invertible?: unknown; reft?: unknown; head?: unknown; tokenizer?: unknown }): {
  task?: number;
  invertible?: boolean;
  reft?: string;
  head?: string;
  tokenizer?: string;
} {
  // Tasks are counted from 0.
  const task = o.task === 0 ? 0 : countOf(`${call}: task`, o.task);
  const invertible = flagOf(`${call}: invertible`, o.invertible);
  const reft = choiceOf(`${call}: reft`, o.reft, ['direft']);
  const head = choiceOf(`${call}: head`, o.head, ['sequence', 'token']);
  const tokenizer = choiceOf(`${call}: tokenizer`, o.tokenizer, ['base']);
  return {
    ...(task === undefined ? {} : { task }),
    ...(invertible === undefined ? {} : { invertible }),
    ...(reft === undefined ? {} : { reft }),
    ...(head === undefined ? {} : { head }),
    ...(tokenizer === undefined ? {} : { tokenizer }),
  };
}

/** One of some words, or nothing. */
export function choiceOf<T extends string>(what: string, value: unknown, choices: readonly T[]): T | undefined {
  if (value === undefined || choices.includes(value as T)) return value as T | undefined;
  const list = choices.map((choice) => `"${choice}"`).join(' or ');
  throw new PolygraftError('ARGUMENT', `${what} must be ${list}`);
}

/** A signal, or nothing. */
export function signalOf(what: string, value: unknown): AbortSignal | undefined {
  // By what it can do: a signal of another frame is of another class.
  const able = typeof (value as { addEventListener?: unknown } | null | undefined)?.addEventListener === 'function';
  if (value === undefined || (able && 'aborted' in (value as object))) return value as AbortSignal | undefined;
  throw new PolygraftError('ARGUMENT', `${what} must be an AbortSignal`);
}

/** A function, or nothing. */
export function functionOf<T>(what: string, value: T): T {
  if (value === undefined || typeof value === 'function') return value;
  throw new PolygraftError('ARGUMENT', `${what} must be a function, not ${kindOf(value)}`);
}
