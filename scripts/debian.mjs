// What is missing, from Debian's packages: only ever as root on Debian.
import { readFile } from 'node:fs/promises';
import { run, SetupError, which } from './lib.mjs';

async function isDebianRoot() {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false;
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '');
  return /^ID(_LIKE)?=.*debian/m.test(release) && (await which('apt-get')) !== null;
}

/** apt-get install of those packages; true when it worked. */
export async function aptInstall(packages) {
  if (!(await isDebianRoot())) return false;
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  await run('apt-get', ['update', '-q'], { env, allowFailure: true });
  const done = await run('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...packages], { env, allowFailure: true });
  return done.code === 0;
}

/** A Chromium or Chrome: the one that POLYGRAFT_CHROMIUM names, or the first on PATH, or Debian's. */
export async function ensureChromium() {
  const find = () => which(...[process.env.POLYGRAFT_CHROMIUM, 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'].filter(Boolean));
  const packages = ['chromium', 'mesa-vulkan-drivers'];
  const found = (await find()) ?? ((await aptInstall(packages)) ? await find() : null);
  if (found) return found;
  throw new SetupError(
    'no Chromium was found',
    `Debian, as root:  apt-get install --no-install-recommends ${packages.join(' ')}\nElsewhere: install Chromium or Chrome, and set POLYGRAFT_CHROMIUM to its path if it is not on PATH.`,
  );
}
