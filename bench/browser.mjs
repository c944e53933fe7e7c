// Chromium for the benches, and what its pages' threads spend.
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { ensureChromium } from '../scripts/debian.mjs';

/** How Chromium is started: without its own throttling. */
async function settings(flags) {
  return { executablePath: await ensureChromium(), args: ['--no-sandbox', '--disable-background-timer-throttling', '--disable-renderer-backgrounding', ...flags] };
}

/** Chromium; its windows are private ones, as Playwright's are. */
export const launch = async (...flags) => chromium.launch(await settings(flags));

/**
 * Calls `work` with a window that is not private, and the folder of its profile: its caches are on the disk, and compiled
 * WebAssembly is among them. The profile is gone afterwards.
 */
export async function withProfile(work, ...flags) {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'polygraft-profile-'));
  try {
    const context = await chromium.launchPersistentContext(folder, await settings(flags));
    try {
      return await work(context, folder);
    } finally {
      await context.close();
    }
  } finally {
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
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
