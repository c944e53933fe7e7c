// What every script here shares: running programs, saying what is wrong, and skipping work already done.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, realpathSync } from 'node:fs';
import { access, mkdir, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';

/** The repository root. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
/** A path under the root. */
export const at = (...parts) => path.join(root, ...parts);
export const cacheDir = at('.cache');

/** An error whose message a person can act on: no stack is printed for it. */
export class SetupError extends Error {
  constructor(message, hint) {
    super(hint ? `${message}\n\n${hint.trim()}\n` : message);
    this.name = 'SetupError';
  }
}

export const say = (text) => process.stderr.write(`polygraft: ${text}\n`);

/** Runs `main` when `meta` is the program that was started, and turns errors into exit code 1. */
export async function runAsMain(meta, main) {
  const started = process.argv[1] && pathToFileURL(realpathSync(process.argv[1])).href;
  if (started !== meta.url) return;
  try {
    process.exitCode = (await main(process.argv.slice(2))) ?? process.exitCode ?? 0;
  } catch (error) {
    report(error);
    process.exitCode = 1;
  }
}

export function report(error) {
  say(`error: ${error instanceof SetupError ? error.message : (error?.stack ?? error)}`);
}

const children = new Set();
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    for (const child of children) stop(child, signal);
    process.exit(signal === 'SIGINT' ? 130 : 143);
  });
}

/** Signals a child, and its own children where it leads a group. */
function stop(child, signal) {
  try {
    if (child.leads) process.kill(-child.pid, signal);
    else child.kill(signal);
  } catch {
    // It has ended already.
  }
}

/**
 * Runs a program and waits for it.
 * `quiet` keeps its output and returns it; otherwise it streams (`onLine` sees every line).
 * A failure throws unless `allowFailure`; `hint` says what to do about it.
 * After `timeout` milliseconds it and all that it started are ended.
 */
export function run(command, args, options = {}) {
  const { cwd = root, env, quiet = false, allowFailure = false, hint, onLine, timeout } = options;
  if (!quiet) say(`$ ${[command, ...args].map(quote).join(' ')}`);
  const piped = quiet || onLine;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      env: env ? { ...process.env, ...env } : process.env,
      detached: Boolean(timeout) && process.platform !== 'win32',
      stdio: piped ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'],
    });
    child.leads = Boolean(timeout) && process.platform !== 'win32';
    children.add(child);
    let late = false;
    const timers = [];
    if (timeout) {
      timers.push(
        setTimeout(() => {
          late = true;
          say(`${command}: not done after ${seconds(timeout)}; it is ended`);
          stop(child, 'SIGTERM');
          timers.push(setTimeout(() => stop(child, 'SIGKILL'), 10_000));
        }, timeout),
      );
    }
    let stdout = '';
    let stderr = '';
    if (piped) {
      child.stdout.setEncoding('utf8').on('data', (chunk) => {
        if (quiet) stdout += chunk;
        else process.stdout.write(chunk);
      });
      child.stderr.setEncoding('utf8').on('data', (chunk) => {
        if (quiet) stderr += chunk;
        else process.stderr.write(chunk);
      });
      if (onLine) {
        lines(child.stdout, onLine);
        lines(child.stderr, onLine);
      }
    }
    child.on('error', (error) => {
      children.delete(child);
      timers.forEach(clearTimeout);
      if (allowFailure) return resolve({ code: 127, stdout, stderr: stderr + error.message });
      reject(new SetupError(`cannot run ${command}: ${error.message}`, hint));
    });
    child.on('close', (code, signal) => {
      children.delete(child);
      timers.forEach(clearTimeout);
      const status = late ? 124 : (code ?? 128);
      if (status === 0 || allowFailure) return resolve({ code: status, signal, stdout, stderr });
      const why = late ? `took more than ${seconds(timeout)}` : signal ? `was ended by ${signal}` : `ended with exit code ${status}`;
      const tail = quiet ? `\n${(stderr || stdout).trim().split('\n').slice(-20).join('\n')}` : '';
      reject(new SetupError(`${command} ${args[0] ?? ''} ${why}${tail}`, hint));
    });
  });
}

function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function lines(stream, onLine) {
  let rest = '';
  stream.on('data', (chunk) => {
    const parts = (rest + chunk).split('\n');
    rest = parts.pop();
    for (const part of parts) onLine(part);
  });
  stream.on('end', () => rest && onLine(rest));
}

/** The trimmed output of a program, or null when it is missing or fails. */
export function probe(command, args, env) {
  const done = spawnSync(command, args, {
    encoding: 'utf8',
    cwd: root,
    env: env ? { ...process.env, ...env } : process.env,
  });
  return done.status === 0 ? done.stdout.trim() : null;
}

/** The first of `names` that is on PATH (or is a path and exists), or null. */
export async function which(...names) {
  for (const name of names) {
    if (name.includes('/') || name.includes(path.sep)) {
      if (await exists(name)) return name;
      continue;
    }
    for (const dir of (process.env.PATH ?? '').split(path.delimiter)) {
      for (const suffix of process.platform === 'win32' ? ['.exe', '.cmd', ''] : ['']) {
        const candidate = path.join(dir, name + suffix);
        if (dir && (await exists(candidate))) return candidate;
      }
    }
  }
  return null;
}

export async function exists(file) {
  return access(file).then(
    () => true,
    () => false,
  );
}

/** Every file under `dir` (or `dir` itself, when it is a file), sorted; build outputs are left out. */
export async function filesUnder(dir) {
  const info = await stat(dir).catch(() => null);
  if (!info) return [];
  if (info.isFile()) return [dir];
  const found = [];
  const entries = await readdir(dir, { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (['target', 'node_modules', 'dist', '.git'].includes(entry.name)) continue;
    const full = path.join(dir, entry.name);
    if (entry.isDirectory()) found.push(...(await filesUnder(full)));
    else if (entry.isFile()) found.push(full);
  }
  return found;
}

export async function sha256File(file) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

/** A hash over files and folders (by relative path and content) and over plain `facts`. */
export async function hashInputs(inputs, facts = []) {
  const hash = createHash('sha256');
  for (const fact of facts) hash.update(`fact ${fact}\0`);
  for (const input of inputs) {
    for (const file of await filesUnder(at(input))) {
      hash.update(`file ${path.relative(root, file).split(path.sep).join('/')}\0`);
      hash.update(await sha256File(file));
    }
  }
  return hash.digest('hex');
}

/**
 * Does `work` unless the stamp says that it was done for the same inputs and its outputs are still as it left them.
 * The stamp goes before the work starts, so an interrupted run is never taken for a finished one.
 */
export async function once(name, { inputs = [], facts = [], outputs = [] }, work) {
  const stampFile = path.join(cacheDir, 'stamps', name);
  const before = await hashInputs(inputs, facts);
  const fingerprint = async () => {
    const parts = [];
    for (const output of outputs) {
      const info = await stat(at(output)).catch(() => null);
      if (!info) return null;
      if (info.isFile()) {
        parts.push(`${output} ${info.size} ${Math.floor(info.mtimeMs)}`);
        continue;
      }
      const entries = await readdir(at(output), { withFileTypes: true });
      if (entries.length === 0) return null;
      for (const entry of entries) {
        const inside = path.join(output, entry.name);
        parts.push(`${inside} ${entry.isFile() ? (await stat(at(inside))).size : ''}`);
      }
    }
    return parts.join('\n');
  };
  const stamp = async () => `${before}\n${await fingerprint()}\n`;
  const old = await readFile(stampFile, 'utf8').catch(() => null);
  if (old !== null && (await fingerprint()) !== null && old === (await stamp())) {
    say(`${name}: up to date`);
    return false;
  }
  await rm(stampFile, { force: true });
  const start = performance.now();
  say(`${name} …`);
  await work();
  if ((await fingerprint()) === null) {
    const missing = [];
    for (const output of outputs) if (!(await exists(at(output)))) missing.push(output);
    throw new SetupError(`${name} ended without making ${missing.join(', ')}`);
  }
  await writeAtomic(stampFile, await stamp());
  say(`${name}: done in ${seconds(performance.now() - start)}`);
  return true;
}

export async function writeAtomic(file, text) {
  await mkdir(path.dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  await writeFile(temporary, text);
  await rename(temporary, file);
}

export const seconds = (ms) => `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

export function requireNode() {
  const [major] = process.versions.node.split('.').map(Number);
  if (major < 20) {
    throw new SetupError(`Node.js 20 or newer is needed; this is ${process.version}`);
  }
}

/** Bytes that `gzip -9` leaves; where there is no gzip, Node's own, which packs these files 1 % worse. */
export function gzipped(bytes) {
  const done = spawnSync('gzip', ['-9', '-c', '-n'], { input: bytes, maxBuffer: 1 << 28 });
  return done.status === 0 ? done.stdout.length : gzipSync(bytes, { level: 9 }).length;
}
