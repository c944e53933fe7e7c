// The Rust side: which toolchain builds what, and the WebAssembly build.
import { createHash } from 'node:crypto';
import { appendFile, copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { aptInstall } from './debian.mjs';
import { at, cacheDir, exists, gzipped, megabytes, once, probe, root, run, runAsMain, say, SetupError, which } from './lib.mjs';

const target = 'wasm32-unknown-unknown';
const minimum = [1, 90];

/** The package's WebAssembly, as the build leaves it. */
export const wasmOut = 'js/dist/wasm';

const rustHint = `Install Rust ${minimum.join('.')} or newer: with rustup (https://rustup.rs), or from your system's packages
(Debian: apt-get install rustc-web cargo-web).`;

function rustVersion(rustc, env) {
  const found = /^rustc (\d+)\.(\d+)\.(\d+)/.exec(probe(rustc, ['--version'], env) ?? '');
  return found && found.slice(1).map(Number);
}

const newEnough = (version) =>
  version !== null && (version[0] > minimum[0] || (version[0] === minimum[0] && version[1] >= minimum[1]));

/** The environment in which `cargo` is Rust 1.90 or newer: as it is, or with Debian's own first on PATH. */
let nativeEnv;
function native() {
  if (nativeEnv) return nativeEnv;
  const tried = [];
  for (const env of [{}, { PATH: `${path.join(process.env.HOME ?? '/', '.cargo/bin')}:${process.env.PATH}` }, { PATH: `/usr/bin:${process.env.PATH}` }]) {
    const version = rustVersion('rustc', env);
    if (newEnough(version) && probe('cargo', ['--version'], env)) return (nativeEnv = env);
    if (version) tried.push(version.join('.'));
  }
  throw new SetupError(
    tried.length ? `Rust ${minimum.join('.')} or newer is needed; found ${tried.join(', ')}` : 'Rust (cargo and rustc) was not found',
    rustHint,
  );
}

/** Runs cargo for this machine. */
export function cargo(args, options = {}) {
  return run('cargo', args, { ...options, env: { ...native(), ...options.env } });
}

const wasmHint = `A Rust toolchain that can build for ${target} is needed. Any one of:
  - rustup:  rustup target add ${target}
  - Debian, as root:  apt-get install --no-install-recommends rustc-web cargo-web rust-web-src lld-22
    (the standard library is then compiled from rust-web-src; where lld-22 is not there, any lld from 15 on will do)
  - a system package with the target's standard library
    (Fedora: rust-std-static-${target}; Arch: rust-wasm; Debian, Ubuntu: libstd-rust-dev-wasm32 with a rustc of at least ${minimum.join('.')}, and lld)
Then run the same command again.`;

async function hasTargetStd(rustc, env) {
  const dir = probe(rustc, ['--print', 'target-libdir', '--target', target], env);
  if (!dir) return false;
  return (await readdir(dir).catch(() => [])).some((name) => name.startsWith('libstd-'));
}

async function wasmLinker() {
  const names = ['wasm-ld'];
  for (let version = 30; version >= 15; version -= 1) names.push(`wasm-ld-${version}`);
  return which(...names, ...names.slice(1).map((name) => `/usr/lib/llvm-${name.slice(8)}/bin/wasm-ld`));
}

/** A standard library made for size: the one that comes compiled makes the module 5 % larger. */
const fromSource = ['-Zbuild-std=std,panic_abort', '-Zbuild-std-features=optimize_for_size'];

/**
 * Where a panic happened, file and line, would be 4 % of the download, what it says and the code that puts it together
 * 3 %: a panic is a trap. Its stack is named by scripts/where.mjs. Both flags are unstable; the second needs a standard
 * library built with it, and Rust 1.92.
 */
const silentPanics = (args, version) => [
  '-Zlocation-detail=none',
  ...(args.length > 0 && (version[0] > 1 || version[1] >= 92) ? ['-Zunstable-options', '-Cpanic=immediate-abort'] : []),
];

/** The system's own toolchain (not rustup's), with the standard library's source: std is built along. */
async function systemToolchain() {
  const rustc = '/usr/bin/rustc';
  const cargoPath = '/usr/bin/cargo';
  if (!(await exists(rustc)) || !(await exists(cargoPath))) return null;
  const env = { PATH: `/usr/bin:${process.env.PATH}`, RUSTC: rustc };
  const version = rustVersion(rustc, env);
  if (!newEnough(version)) return null;
  const linker = await wasmLinker();
  if (!linker) return null;
  if (await hasTargetStd(rustc, env)) {
    return { kind: `system rustc ${version.join('.')}`, cargo: cargoPath, env, args: [], flags: [`-Clinker=${linker}`, ...silentPanics([], version)] };
  }
  const sysroot = probe(rustc, ['--print', 'sysroot'], env);
  if (!sysroot || !(await exists(path.join(sysroot, 'lib/rustlib/src/rust/library/Cargo.lock')))) return null;
  return {
    kind: `system rustc ${version.join('.')}, standard library from source`,
    cargo: cargoPath,
    env,
    args: fromSource,
    flags: [`-Clinker=${linker}`, ...silentPanics(fromSource, version)],
  };
}

/** The toolchain on PATH, when it has the target's standard library. rustup's brings its own linker. */
async function pathToolchain() {
  const version = rustVersion('rustc');
  if (!newEnough(version) || !(await hasTargetStd('rustc'))) return null;
  const sysroot = probe('rustc', ['--print', 'sysroot']);
  const host = /^host: (.*)$/m.exec(probe('rustc', ['-vV']) ?? '')?.[1];
  const own = await exists(path.join(sysroot, 'lib/rustlib', host ?? '', 'bin/rust-lld'));
  const linker = own ? null : await wasmLinker();
  if (!own && !linker) return null;
  const source = await exists(path.join(sysroot, 'lib/rustlib/src/rust/library/Cargo.lock'));
  const args = source ? fromSource : [];
  return {
    kind: `rustc ${version.join('.')}${source ? ', standard library from source' : ''}`,
    cargo: 'cargo',
    env: {},
    args,
    flags: [...(linker ? [`-Clinker=${linker}`] : []), ...silentPanics(args, version)],
  };
}

/** A toolchain for the WebAssembly build; tries to add what is missing, in the least intrusive way first. */
export async function wasmToolchain() {
  let found = (await pathToolchain()) ?? (await systemToolchain());
  if (!(found?.args.length > 0) && (await which('rustup'))) {
    if (!found) await run('rustup', ['target', 'add', target], { allowFailure: true });
    await run('rustup', ['component', 'add', 'rust-src'], { allowFailure: true });
    found = (await pathToolchain()) ?? found;
  }
  if (!found && (await aptInstall(['rustc-web', 'cargo-web', 'rust-web-src', 'lld-22']))) {
    found = await systemToolchain();
  }
  if (!found) throw new SetupError(`no Rust toolchain for ${target}`, wasmHint);
  return found;
}

/** wasm-bindgen's command line, of the very version that Cargo.lock has: any other refuses the module. */
async function ensureBindgen() {
  const lock = await readFile(at('Cargo.lock'), 'utf8');
  const version = /^name = "wasm-bindgen"\nversion = "([^"]+)"/m.exec(lock)?.[1];
  if (!version) throw new SetupError('Cargo.lock names no wasm-bindgen: is crates/polygraft-wasm in the workspace?');
  const own = path.join(cacheDir, 'tools/bin', process.platform === 'win32' ? 'wasm-bindgen.exe' : 'wasm-bindgen');
  for (const candidate of [own, await which('wasm-bindgen')]) {
    if (candidate && probe(candidate, ['--version'])?.split(' ')[1] === version) return candidate;
  }
  say(`wasm-bindgen ${version} is installed into .cache/tools (some minutes, once)`);
  const args = ['install', 'wasm-bindgen-cli', '--version', version, '--root', path.join(cacheDir, 'tools')];
  const env = { CARGO_TARGET_DIR: path.join(cacheDir, 'target-tools') };
  // With its author's lockfile where the index has all of that; an index that lags behind resolves anew.
  const { code } = await cargo([...args, '--locked'], { env, allowFailure: true });
  if (code !== 0) {
    await cargo(args, {
      env,
      hint: `wasm-bindgen-cli ${version} could not be installed. If you have that version from elsewhere, put it on PATH and run the same command again.`,
    });
  }
  if (probe(own, ['--version'])?.split(' ')[1] !== version) {
    throw new SetupError(`cargo install left no wasm-bindgen ${version} at ${own}`);
  }
  // The build files are of no more use.
  await rm(path.join(cacheDir, 'target-tools'), { recursive: true, force: true });
  return own;
}

// What a module may use. Every browser with WebGPU has all of the first list.
const features = [
  '--enable-simd',
  '--enable-bulk-memory',
  '--enable-nontrapping-float-to-int',
  '--enable-sign-ext',
  '--enable-mutable-globals',
  '--enable-reference-types',
];

/** The two builds: a module with one instruction that the engine does not know is refused as a whole. */
export const builds = [
  { file: 'polygraft_bg.wasm', features: '+simd128', optimise: features },
  { file: 'polygraft_relaxed_bg.wasm', features: '+simd128,+relaxed-simd', optimise: [...features, '--enable-relaxed-simd'] },
];

/** What one place calls is merged into it only when it is short: merged code differs from its like, and packs badly (15 KB). */
const small = ['--one-caller-inline-max-function-size', '8', '--flexible-inline-max-function-size', '2'];

/**
 * With a local of its own for every assignment the optimiser moves sums to where they are used, and the kernel in assembly
 * (kernels/wasm/pairs.s) takes twice as long; without, the module is 7 KB smaller, too. tests/kernels looks at it.
 */
const inOrder = '--skip-pass=ssa-nomerge';

/** Where each build is once more with its functions' names. */
export const namedDir = path.join(cacheDir, 'named');

/** gzip -9 of a build, at most. */
const budget = 1100e3;

/**
 * A wrapper around rustc that adds `targetFeatures` for our own crates and the WebAssembly target only: both builds then
 * share what is compiled of the standard library and of other people's crates, which is most of the time.
 */
async function wrapper(targetFeatures) {
  const windows = process.platform === 'win32';
  const file = path.join(cacheDir, `rustc-${targetFeatures.replace(/[^a-z0-9]+/g, '-')}${windows ? '.cmd' : ''}`);
  const text = windows
    ? `@echo off\r\necho %* | findstr /c:"${target}" >nul && (%* -Ctarget-feature=${targetFeatures}) || (%*)\r\n`
    : `#!/bin/sh\ncase " $* " in\n*" ${target} "*) exec "$@" -Ctarget-feature=${targetFeatures} ;;\n*) exec "$@" ;;\nesac\n`;
  await mkdir(cacheDir, { recursive: true });
  await writeFile(file, text, { mode: 0o755 });
  return file;
}

/** Builds js/dist/wasm: polygraft.js (wasm-bindgen's glue, one for both builds) and the optimised modules. */
export async function ensureWasm() {
  if (!(await exists(at('crates/polygraft-wasm/Cargo.toml')))) {
    throw new SetupError('crates/polygraft-wasm is missing');
  }
  await once(
    'wasm',
    {
      inputs: ['Cargo.toml', 'Cargo.lock', '.cargo', ...(await wasmCrates()), 'shaders', 'scripts/rust.mjs'],
      outputs: [`${wasmOut}/polygraft.js`, `${wasmOut}/polygraft.d.ts`, ...builds.flatMap((b) => [`${wasmOut}/${b.file}`, path.relative(root, path.join(namedDir, b.file))])],
    },
    async () => {
      const toolchain = await wasmToolchain();
      say(`WebAssembly with ${toolchain.kind}`);
      const bindgen = await ensureBindgen();
      const optimiser = at('node_modules/binaryen/bin/wasm-opt');
      if (!(await exists(optimiser))) throw new SetupError('node_modules/binaryen is missing', 'Run: npm ci');
      const out = path.join(cacheDir, 'wasm-out');
      await rm(out, { recursive: true, force: true });
      await mkdir(out, { recursive: true });
      for (const build of builds) await buildWasm(build, toolchain, bindgen, optimiser, out);
      await mark(out);
      await rm(at(wasmOut), { recursive: true, force: true });
      await mkdir(at(wasmOut), { recursive: true });
      for (const name of ['polygraft.js', 'polygraft.d.ts', 'polygraft_bg.wasm.d.ts', ...builds.map((b) => b.file)]) {
        await copyFile(path.join(out, name), at(wasmOut, name));
      }
    },
  );
}

/** Where the CPU kernels' checks are, by the features of the two builds: examples/wasm.rs of polygraft-cpu. */
export const kernelChecks = builds.map((build) => path.join(cacheDir, 'kernels', build.file));

/** Builds the CPU kernels with their conformance test as modules of their own, which tests/kernels runs. */
export async function ensureKernelChecks() {
  const crates = ['polygraft', 'polygraft-cpu'].flatMap((name) => ['Cargo.toml', 'src', 'examples', 'tests'].map((part) => `crates/${name}/${part}`));
  await once('kernels', { inputs: ['Cargo.toml', 'Cargo.lock', '.cargo', ...crates, 'scripts/rust.mjs'], outputs: kernelChecks.map((file) => path.relative(root, file)) }, async () => {
    const toolchain = await wasmToolchain();
    await mkdir(path.dirname(kernelChecks[0]), { recursive: true });
    for (const [i, build] of builds.entries()) {
      const built = await cargoWasm(build, toolchain, ['-p', 'polygraft-cpu', '--example', 'wasm']);
      await copyFile(path.join(built, 'examples/wasm.wasm'), kernelChecks[i]);
    }
  });
}

/**
 * Addresses stay a pointer and a constant, which a load takes with it. Rewritten for a machine without such loads
 * ("loop strength reduction"), the inner loops computed each of them: 5 instructions of 27.
 */
const plainAddresses = '-Cllvm-args=-disable-lsr';

/** Cargo for WebAssembly; the folder of what it built. */
async function cargoWasm(build, toolchain, what) {
  const targetDir = path.join(cacheDir, 'target-wasm');
  await run(
    toolchain.cargo,
    ['build', '--locked', '--profile', 'wasm', '--target', target, ...toolchain.args, ...what],
    {
      env: {
        ...toolchain.env,
        // A stable compiler takes -Z flags only so.
        RUSTC_BOOTSTRAP: '1',
        CARGO_ENCODED_RUSTFLAGS: [...toolchain.flags, plainAddresses, '-Ctarget-feature=+simd128'].join('\x1f'),
        CARGO_TARGET_DIR: targetDir,
        RUSTC_WORKSPACE_WRAPPER: await wrapper(build.features),
        // The list of used features has to reach wasm-bindgen; wasm-opt drops the names afterwards.
        CARGO_PROFILE_WASM_STRIP: 'debuginfo',
      },
      hint: 'The WebAssembly build failed: see the compiler\'s output above.',
    },
  );
  return path.join(targetDir, target, 'wasm');
}

async function buildWasm(build, toolchain, bindgen, optimiser, out) {
  const built = path.join(await cargoWasm(build, toolchain, ['-p', 'polygraft-wasm']), 'polygraft_wasm.wasm');
  if (!(await exists(built))) throw new SetupError(`cargo left no ${path.relative(at(), built)}`, 'The crate has to be a cdylib.');
  const bound = path.join(cacheDir, 'bindgen');
  await rm(bound, { recursive: true, force: true });
  await mkdir(bound, { recursive: true });
  await run(bindgen, ['--target', 'web', '--out-dir', bound, '--out-name', 'polygraft', built]);
  await mkdir(namedDir, { recursive: true });
  const named = path.join(namedDir, build.file);
  await run(process.execPath, [optimiser, inOrder, '--gufa', '-O3', ...small, '-O3', '--low-memory-unused', ...build.optimise, '--strip-producers', '-g', path.join(bound, 'polygraft_bg.wasm'), '-o', named]);
  const optimised = path.join(out, build.file);
  await run(process.execPath, [optimiser, '--strip-debug', ...build.optimise, named, '-o', optimised]);
  for (const name of ['polygraft.js', 'polygraft.d.ts', 'polygraft_bg.wasm.d.ts']) {
    // Comments that number the module's functions differ; the code does not.
    const text = (await readFile(path.join(bound, name), 'utf8')).replace(/^ *\/\/ Cast intrinsic for .*\n/gm, '');
    const other = await readFile(path.join(out, name), 'utf8').catch(() => text);
    if (text !== other) throw new SetupError(`the builds do not share ${name}`, 'The package has one glue for both.');
    await writeFile(path.join(out, name), text);
  }
  const bytes = await readFile(optimised);
  const packed = gzipped(bytes);
  say(`${build.file}: ${megabytes(bytes.length)}, ${Math.round(packed / 1e3)} KB gzipped`);
  if (packed > budget) throw new SetupError(`${build.file} is over its budget of ${budget / 1e3} KB gzipped`);
}

/**
 * Glue and modules of one build say so: a module that a cache kept from another one would fail somewhere, with an error that
 * names neither. The mark is a hash of them all; js/src/load.ts compares.
 */
async function mark(out) {
  const glue = path.join(out, 'polygraft.js');
  const hash = createHash('sha256');
  for (const file of [glue, ...builds.map((build) => path.join(out, build.file))]) hash.update(await readFile(file));
  const fingerprint = hash.digest('hex').slice(0, 16);
  await appendFile(glue, `\nexport const fingerprint = '${fingerprint}';\n`);
  await appendFile(path.join(out, 'polygraft.d.ts'), "\n/** What the modules of this build have in their section `polygraft`. */\nexport const fingerprint: string;\n");
  // A custom section: kind, length, length of its name, name, contents.
  const content = `${String.fromCharCode('polygraft'.length)}polygraft${fingerprint}`;
  const section = Buffer.from(`\0${String.fromCharCode(content.length)}${content}`);
  for (const build of builds) await appendFile(path.join(out, build.file), section);
}

/** The crates that go into the module: polygraft-wasm and what it depends on here. */
async function wasmCrates() {
  const wanted = new Set();
  const visit = async (name) => {
    const manifest = await readFile(at('crates', name, 'Cargo.toml'), 'utf8').catch(() => null);
    if (manifest === null || wanted.has(name)) return;
    wanted.add(name);
    for (const [, dependency] of manifest.matchAll(/^(polygraft[\w-]*)\s*[.=]/gm)) await visit(dependency);
  };
  await visit('polygraft-wasm');
  return [...wanted].flatMap((name) => [`crates/${name}/Cargo.toml`, `crates/${name}/src`, `crates/${name}/build.rs`]);
}

await runAsMain(import.meta, ensureWasm);
