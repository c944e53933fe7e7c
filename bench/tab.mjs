// What a tab takes: private memory of Chromium's renderer processes (RssAnon in /proc). Worker, compiled code and page
// included. Linux only.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { withProfile } from './browser.mjs';

const proc = (pid, file) => {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return ''; // It has ended.
  }
};
const parent = (pid) => Number(/PPid:\t(\d+)/.exec(proc(pid, 'status'))?.[1] ?? 0);
const megabytes = (pid) => (Number(/RssAnon:\s+(\d+)/.exec(proc(pid, 'status'))?.[1] ?? 0) * 1024) / 1e6;

/** Runs `work(page, watch)` in a Chromium with one page; `watch()` starts to look at the page's tab. */
export async function withTab(work) {
  return withProfile(async (context, profile) => {
    const ours = (pid) => {
      for (let at = pid; at > 1; at = parent(at)) if (proc(at, 'cmdline').includes(profile)) return true;
      return false;
    };
    const renderers = () =>
      readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && proc(pid, 'cmdline').includes('--type=renderer') && ours(Number(pid)));
    return work(context.pages()[0] ?? (await context.newPage()), () => watch(renderers()));
  });
}

/** `{ before, peak, now }` in megabytes of the tab that has grown most, when it is asked. */
function watch(pids) {
  const before = new Map(pids.map((pid) => [pid, megabytes(pid)]));
  const peak = new Map(before);
  let done = false;
  const watching = (async () => {
    while (!done) {
      for (const pid of pids) peak.set(pid, Math.max(peak.get(pid), megabytes(pid)));
      await sleep(30);
    }
  })();
  const tab = () => pids.reduce((a, b) => (peak.get(b) - before.get(b) > peak.get(a) - before.get(a) ? b : a));
  return {
    seen: () => ({ before: before.get(tab()), peak: peak.get(tab()), now: megabytes(tab()) }),
    async end() {
      done = true;
      await watching;
    },
  };
}
