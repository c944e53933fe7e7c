// Small helpers for the page's elements.

export const $ = (id) => document.getElementById(id);

/** An element with attributes (`class`, `text`, `on…`, others as attributes; null and false are left out) and children. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'text') node.textContent = value;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Text is only written when it changes: a live region would say it again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;

export function bytesText(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1000).toFixed(bytes < 1e4 ? 1 : 0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export function duration(ms) {
  if (ms < 1000) return `${Math.max(1, Math.round(ms))} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

const words = {
  OUT_OF_MEMORY: 'This tab has no memory left for the model.',
  INTERNAL: 'The library has hit a defect of its own.',
  WORKER: 'The thread that computes has ended.',
  DISPOSED: 'The model is no longer loaded.',
  WASM: 'The WebAssembly file could not be loaded.',
  UNSUPPORTED: 'This browser lacks something that the model needs.',
  FETCH: 'A file could not be fetched.',
  INTEGRITY: 'A file is not the one that was promised.',
};

/** Errors after which the model is of no more use. */
export const fatal = (error) => ['OUT_OF_MEMORY', 'INTERNAL', 'WORKER', 'DISPOSED'].includes(error?.code);

export const isAbort = (error) => error?.name === 'AbortError';

/** An error for people: what failed, then the package's own words, verbatim. */
export function errorNodes(what, error) {
  const code = error?.code ?? error?.name ?? 'Error';
  return [
    el('p', { class: 'error-title', text: [what, words[code]].filter(Boolean).join(' ') }),
    el('p', { class: 'error-text' }, el('code', { text: String(code) }), ` ${error?.message ?? String(error)}`),
    error?.hint ? el('p', { class: 'error-hint', text: error.hint }) : null,
  ].filter(Boolean);
}
