// npm test: every check, in order, with one summary at the end. `npm test -- STAGE…` runs some of them.
import os from 'node:os';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { ensureDeps } from './deps.mjs';
import { aptInstall, ensureChromium } from './debian.mjs';
import { at, filesUnder, report, root, run, runAsMain, say, SetupError } from './lib.mjs';
import { ensureModel } from './model.mjs';
import { ensurePackage } from './package.mjs';
import { cargo, ensureKernelChecks, ensureWasm } from './rust.mjs';

const minutes = 60_000;

const stages = [
  { name: 'packages', about: 'npm packages of the build', work: ensureDeps },
  { name: 'fmt', about: 'cargo fmt --check', work: () => cargo(['fmt', '--all', '--', '--check'], { hint: 'Run: cargo fmt --all (if cargo has no fmt: rustup component add rustfmt)' }) },
  {
    name: 'clippy',
    about: 'cargo clippy, warnings are errors',
    work: () => cargo(['clippy', '--locked', '--workspace', '--all-targets', '--', '-D', 'warnings'], {
        timeout: 20 * minutes,
        hint: 'Warnings are errors here: see above. If cargo has no clippy: rustup component add clippy.',
      }),
  },
  { name: 'model', about: "the demo's model: fetch, check, quantize", work: ensureModel },
  { name: 'rust', about: 'cargo test of the workspace', work: rustTests },
  {
    name: 'wasm',
    about: "WebAssembly build, and its kernels' checks",
    needs: ['packages'],
    work: async () => {
      await ensureWasm();
      await ensureKernelChecks();
    },
  },
  { name: 'types', about: 'tsc and the npm package', needs: ['packages', 'wasm'], work: ensurePackage },
  {
    name: 'node',
    about: '*.test.mjs of tests/ and js/tests/, in Node',
    needs: ['types', 'model'],
    work: (count) => nodeTests(count, (file) => !isBrowserTest(file)),
  },
  {
    name: 'browser',
    about: '*.test.mjs of tests/ and js/tests/ that drive Chromium',
    needs: ['types', 'model'],
    work: async (count) => nodeTests(count, isBrowserTest, { POLYGRAFT_CHROMIUM: await ensureChromium() }),
  },
];

/** A Vulkan driver for the tests of the GPU backend: any will do, Mesa's software one does everywhere. */
async function ensureVulkan() {
  if (process.platform !== 'linux') return;
  const installed = async () => {
    const places = ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d', '/usr/local/share/vulkan/icd.d'];
    const drivers = await Promise.all(places.map((place) => filesUnder(place).catch(() => [])));
    return process.env.VK_DRIVER_FILES || process.env.VK_ICD_FILENAMES || drivers.flat().some((file) => file.endsWith('.json'));
  };
  if ((await installed()) || ((await aptInstall(['mesa-vulkan-drivers', 'libvulkan1'])) && (await installed()))) return;
  throw new SetupError(
    'no Vulkan driver was found for the tests of the GPU backend',
    "Debian, as root:  apt-get install --no-install-recommends mesa-vulkan-drivers libvulkan1\nElsewhere: install Mesa's lavapipe or your graphics card's driver.",
  );
}

async function rustTests(count) {
  await ensureVulkan();
  const result = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/;
  await cargo(['test', '--locked', '--workspace', '--no-fail-fast'], {
    // Mesa complains of its absence on every start.
    env: { XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? os.tmpdir() },
    timeout: 30 * minutes,
    onLine: (line) => {
      const found = result.exec(stripVTControlCharacters(line));
      if (found) count(...found.slice(1).map(Number));
    },
  });
}

async function testFiles() {
  const files = [...(await filesUnder(at('tests'))), ...(await filesUnder(at('js/tests')))];
  return files.filter((file) => file.endsWith('.test.mjs'));
}

/** A test is a browser test when its path says so: tests/browser/…, something.browser.test.mjs. */
const isBrowserTest = (file) => path.relative(root, file).includes('browser');

async function nodeTests(count, wanted, env) {
  const files = (await testFiles()).filter(wanted);
  if (files.length === 0) throw new SetupError('no test files of this stage were found under tests/ and js/tests/');
  const seen = { pass: 0, fail: 0, cancelled: 0, skipped: 0, todo: 0 };
  const line = /^\W*(pass|fail|cancelled|skipped|todo) (\d+)$/;
  const done = await run(
    process.execPath,
    // One file at a time: each loads a model, and timings would disturb each other.
    ['--test', '--test-reporter=spec', '--test-concurrency=1', ...files.map((file) => path.relative(root, file))],
    {
      env,
      timeout: 20 * minutes,
      allowFailure: true,
      onLine: (text) => {
        const found = line.exec(stripVTControlCharacters(text));
        if (found) seen[found[1]] = Number(found[2]);
      },
    },
  );
  count(seen.pass, seen.fail + seen.cancelled, seen.skipped + seen.todo);
  if (done.code !== 0) throw new SetupError(`node --test ended with ${done.signal ?? `exit code ${done.code}`}`);
  if (seen.pass + seen.fail === 0) throw new SetupError('node --test ran no test');
}

/** The stages that were asked for, with those that they need, in the order of the list. */
function choose(names) {
  if (names.length === 0) return stages;
  const chosen = new Set();
  const add = (name) => {
    const stage = stages.find((candidate) => candidate.name === name);
    if (!stage) {
      const list = stages.map((each) => `  ${each.name.padEnd(10)}${each.about}`).join('\n');
      throw new SetupError(`there is no stage ${JSON.stringify(name)}`, `Stages:\n${list}`);
    }
    chosen.add(stage);
    stage.needs?.forEach(add);
  };
  names.forEach(add);
  return stages.filter((stage) => chosen.has(stage));
}

await runAsMain(import.meta, async (names) => {
  const chosen = choose(names);
  const begin = performance.now();
  say(`${process.platform} ${process.arch}, Node ${process.versions.node}, ${os.availableParallelism()} cores`);
  const rows = [];
  for (const stage of chosen) {
    const row = { name: stage.name, passed: 0, failed: 0, skipped: 0, result: 'passed', note: '' };
    const start = performance.now();
    process.stdout.write(`\n==== ${stage.name}: ${stage.about} ====\n`);
    const broken = (stage.needs ?? []).filter((need) => rows.some((done) => done.name === need && done.result !== 'passed'));
    try {
      if (broken.length > 0) throw new SetupError(`not run, because it needs what failed: ${broken.join(', ')}`);
      await stage.work((passed, failed, skipped) => {
        row.passed += passed;
        row.failed += failed;
        row.skipped += skipped;
      });
      if (row.failed > 0) throw new SetupError(`${row.failed} tests failed`);
    } catch (error) {
      report(error);
      row.result = 'FAILED';
      row.note = String(error?.message ?? error).split('\n')[0];
    }
    row.seconds = (performance.now() - start) / 1000;
    rows.push(row);
  }
  const total = (key) => rows.reduce((sum, row) => sum + row[key], 0);
  const line = (...cells) => `${cells[0].padEnd(10)}${cells[1].padEnd(8)}${cells.slice(2, 6).map((cell) => String(cell).padStart(9)).join('')}  ${cells[6] ?? ''}`.trimEnd();
  console.log(`\n${line('stage', 'result', 'seconds', 'passed', 'failed', 'skipped')}`);
  for (const row of rows) {
    console.log(line(row.name, row.result, row.seconds.toFixed(1), row.passed, row.failed, row.skipped, row.note));
  }
  const failures = rows.filter((row) => row.result !== 'passed').length;
  const parts = [`${rows.length - failures} ${rows.length - failures === 1 ? 'stage' : 'stages'} passed`, `${failures} failed`, `${total('passed') + total('failed')} tests`];
  if (total('failed') > 0) parts.push(`${total('failed')} of them failed`);
  if (total('skipped') > 0) parts.push(`${total('skipped')} skipped`);
  console.log(`\npolygraft: ${parts.join(', ')}, ${Math.round((performance.now() - begin) / 1000)} s`);
  return failures === 0 ? 0 : 1;
});
