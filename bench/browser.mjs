// Chromium for the benches, and what its pages' threads spend.
import { readdirSync, readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';
import { findChromium, SetupError } from '../scripts/lib.mjs';

/** Chromium without its own throttling. */
export async function launch(...flags) {
  const executablePath = await findChromium();
  if (!executablePath) throw new SetupError('no Chromium was found', 'Install Chromium or Chrome, and set POLYGRAFT_CHROMIUM to its path if it is not on PATH.');
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-background-timer-throttling', '--disable-renderer-backgrounding', ...flags] });
}

/**
 * A function that gives, for each thread of the pages' processes, by its folder under /proc, the milliseconds that it has
 * spent on a core. `SystemInfo` names the processes, `schedstat` has nanoseconds; only Linux has it, elsewhere it throws.
 */
export async function threadTimes(chrome) {
  const session = await chrome.newBrowserCDPSession();
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  const tasks = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => `/proc/${id}/task`);
  const spent = (thread) => Number(readFileSync(`${thread}/schedstat`, 'utf8').split(' ')[0]) / 1e6;
  return () => new Map(tasks.flatMap((folder) => readdirSync(folder).map((task) => [`${folder}/${task}`, spent(`${folder}/${task}`)])));
}
