// Which composition each text takes: what callers write, turned into what the engine reads.

import { PolygraftError } from './errors.js';
import { checkOptions } from './options.js';
import type { Adapters, Composition } from './types.js';

/** The two sides of a ranking. `documents` has one composition for all, or one each. */
export interface WireSides {
  query: Composition;
  documents: Composition[];
}

/** A composition, or one for each item. */
export type PerItem<T> = Composition | ((item: T, index: number) => Composition);

/** One composition for all items, or one each. */
export function perItem<T>(what: string, adapters: PerItem<T> | undefined, items: readonly T[]): Composition[] {
  if (typeof adapters !== 'function') return [composition(what, adapters)];
  return items.map((item, i) => composition(`${what}(item ${i})`, adapters(item, i)));
}

/** The documents' side alone: sides, of which the documents' counts, are understood as well as one composition. */
export function documentsOf<T>(what: string, adapters: Adapters<T> | PerItem<T> | undefined, documents: readonly T[]): Composition[] {
  if (!isSides(adapters as Adapters<T>)) return perItem(what, adapters as PerItem<T>, documents);
  const { document } = adapters as { document?: PerItem<T> };
  checkOptions(what, adapters as object, ['query', 'document']);
  return perItem(`${what}.document`, document, documents);
}

/** Compositions of query and documents. */
export function sides<T>(adapters: Adapters<T> | undefined, documents: readonly T[]): WireSides {
  if (isSides(adapters)) {
    checkOptions('adapters', adapters, ['query', 'document']);
    return {
      query: composition('adapters.query', adapters.query),
      documents: perItem('adapters.document', adapters.document, documents),
    };
  }
  const both = composition('adapters', adapters as Composition | undefined);
  return { query: both, documents: [both] };
}

/** Whether the documents' side was written out. */
export function namesDocuments<T>(adapters: Adapters<T> | undefined): boolean {
  return isSides(adapters) && adapters.document !== undefined;
}

function isSides<T>(
  adapters: Adapters<T> | undefined,
): adapters is { query?: Composition; document?: PerItem<T> } {
  if (typeof adapters !== 'object' || adapters === null || Array.isArray(adapters)) return false;
  // Anything that is no composition's tree is meant as sides, so that a typo is named as an option.
  return !['stack', 'fuse', 'sum', 'average', 'mix', 'split', 'scale', 'of', 'weights'].some((key) => key in adapters);
}

/** The engine reads the tree; here only what JSON cannot carry is refused. */
export function composition(what: string, value: Composition | undefined): Composition {
  if (value === undefined) return null;
  if (value === null || typeof value === 'string') return value;
  if (typeof value !== 'object') throw new PolygraftError('ARGUMENT', `${what} must be a composition: text, a list, a tree or null, not ${typeof value}`);
  // JSON leaves them out, or puts null in their place, which is the base.
  argumentsOf(what, value, (key, inner) => {
    if (typeof inner !== 'function' && typeof inner !== 'symbol') return inner;
    throw new TypeError(`${JSON.stringify(key)} is a ${typeof inner}`);
  });
  return value;
}

/** Arguments as the engine reads them. At once: what they are made of is the caller's, who may change it. */
export function argumentsOf(what: string, args: object, each?: (key: string, inner: unknown) => unknown): string {
  try {
    return JSON.stringify(args, each);
  } catch (cause) {
    throw new PolygraftError('ARGUMENT', `${what}: an argument cannot be sent to the engine: ${(cause as Error).message}`, { cause });
  }
}
