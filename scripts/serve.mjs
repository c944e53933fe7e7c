// A static server for the demo page: www/ at /, and js/dist, models, adapters under their own names.
// Ranges and revalidation, no listing, nothing outside those folders; on 127.0.0.1 only.
import { createReadStream } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { pipeline } from 'node:stream';
import { parseArgs } from 'node:util';
import { at, runAsMain, say, SetupError } from './lib.mjs';

const mounts = [
  ['/js/dist/', 'js/dist'],
  ['/models/', 'models'],
  ['/adapters/', 'adapters'],
  ['/www/', 'www'],
  ['/', 'www'],
];

const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.jsonl': 'application/jsonl; charset=utf-8',
  '.map': 'application/json; charset=utf-8',
  '.webmanifest': 'application/manifest+json; charset=utf-8',
  '.wasm': 'application/wasm',
  '.txt': 'text/plain; charset=utf-8',
  '.md': 'text/markdown; charset=utf-8',
  '.ts': 'text/plain; charset=utf-8',
  '.wgsl': 'text/plain; charset=utf-8',
  '.tsv': 'text/tab-separated-values; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.webp': 'image/webp',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
};

/** The file that a URL path names, or null: no dot files, no escapes, no links that lead out of the folder. */
async function locate(urlPath, home) {
  let decoded;
  try {
    decoded = decodeURIComponent(urlPath);
  } catch {
    return null;
  }
  if (/[\0\\]/.test(decoded)) return null;
  const found = mounts.find(([prefix]) => decoded.startsWith(prefix));
  if (!found) return null;
  const parts = decoded.slice(found[0].length).split('/').filter(Boolean);
  if (parts.some((part) => part.startsWith('.'))) return null;
  if (decoded.endsWith('/')) parts.push('index.html');
  try {
    const base = await realpath(found[0] === '/' ? home : at(found[1]));
    const file = await realpath(path.join(base, ...parts));
    if (!file.startsWith(base + path.sep)) return null;
    const info = await stat(file);
    return { file, info };
  } catch {
    return null;
  }
}

/** `[first, last]` of a single byte range, null for none (or one to be ignored), 'bad' when it cannot be met. */
function parseRange(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec((header ?? '').trim());
  if (!match || (match[1] === '' && match[2] === '')) return null;
  if (match[1] === '') {
    const length = Math.min(Number(match[2]), size);
    return length === 0 ? 'bad' : [size - length, size - 1];
  }
  const first = Number(match[1]);
  const last = match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (match[2] !== '' && Number(match[2]) < first) return null;
  return first >= size ? 'bad' : [first, last];
}

async function answer(request, response, { isolated, home }) {
  const headers = {
    'Cache-Control': 'no-cache',
    'X-Content-Type-Options': 'nosniff',
    'Cross-Origin-Resource-Policy': 'same-origin',
    ...(isolated && {
      'Cross-Origin-Opener-Policy': 'same-origin',
      'Cross-Origin-Embedder-Policy': 'require-corp',
    }),
  };
  const refuse = (status, text, more) => {
    response.writeHead(status, { ...headers, 'Content-Type': 'text/plain; charset=utf-8', ...more });
    response.end(request.method === 'HEAD' ? undefined : `${text}\n`);
  };
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return refuse(405, 'Method not allowed', { Allow: 'GET, HEAD' });
  }
  // Not `new URL`, which would resolve `..` before anyone looked at it.
  const urlPath = (request.url ?? '/').split(/[?#]/, 1)[0];
  const found = await locate(urlPath, home);
  if (!found) return refuse(404, 'Not found');
  if (found.info.isDirectory()) {
    return refuse(308, 'Moved', { Location: `${urlPath.replace(/^\/+/, '/')}/` });
  }
  if (!found.info.isFile()) return refuse(404, 'Not found');
  const { size, mtimeMs } = found.info;
  const tag = `"${size.toString(36)}-${Math.floor(mtimeMs).toString(36)}"`;
  headers.ETag = tag;
  headers['Last-Modified'] = new Date(mtimeMs).toUTCString();
  headers['Accept-Ranges'] = 'bytes';
  // A page's own policy does not bind its worker, which does the fetching: the worker's script carries this one.
  if (path.extname(found.file) === '.js') {
    headers['Content-Security-Policy'] = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'";
  }
  headers['Content-Type'] = types[path.extname(found.file).toLowerCase()] ?? 'application/octet-stream';
  const known = (request.headers['if-none-match'] ?? '').split(',').map((text) => text.trim().replace(/^W\//, ''));
  if (known.includes(tag)) {
    response.writeHead(304, headers);
    return response.end();
  }
  const condition = request.headers['if-range'];
  const fresh = condition === undefined || condition === tag || condition === headers['Last-Modified'];
  const range = fresh && request.method === 'GET' ? parseRange(request.headers.range, size) : null;
  if (range === 'bad') return refuse(416, 'Range not satisfiable', { 'Content-Range': `bytes */${size}` });
  const [start, end] = range ?? [0, size - 1];
  headers['Content-Length'] = end - start + 1;
  if (range) headers['Content-Range'] = `bytes ${start}-${end}/${size}`;
  response.writeHead(range ? 206 : 200, headers);
  if (request.method === 'HEAD' || size === 0) return response.end();
  pipeline(createReadStream(found.file, { start, end }), response, () => {});
}

/**
 * Starts the server. Without a port the first free one from 8080 on is taken; a port that was asked for is
 * taken or is an error. `home` is the folder at `/`.
 */
export async function serve({ port, isolated = false, home = at('www') } = {}) {
  const server = http.createServer((request, response) => {
    answer(request, response, { isolated, home }).catch((error) => {
      say(`${request.url}: ${error.message}`);
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  const listen = (number) =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(number, '127.0.0.1', () => {
        server.off('error', reject);
        resolve();
      });
    });
  const tries = port === undefined ? Array.from({ length: 20 }, (_, i) => 8080 + i) : [port];
  for (const [i, number] of tries.entries()) {
    try {
      await listen(number);
      break;
    } catch (error) {
      if (error.code === 'EADDRINUSE' && i + 1 < tries.length) continue;
      throw new SetupError(`cannot listen on 127.0.0.1:${number}: ${error.message}`, 'Choose another with --port N.');
    }
  }
  const url = `http://127.0.0.1:${server.address().port}/`;
  const close = () =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  return { url, close };
}

/** A port number from the command line, or undefined. */
export function portOption(text) {
  if (text === undefined) return undefined;
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65535) throw new SetupError(`--port: ${text} is not a port number`);
  return port;
}

await runAsMain(import.meta, async (args) => {
  const { values } = parseArgs({ args, options: { port: { type: 'string' }, isolated: { type: 'boolean' } } });
  const { url } = await serve({ port: portOption(values.port), isolated: values.isolated });
  console.log(`Polygraft's demo: ${url}   (Ctrl-C ends it)`);
});
