// The bench of the native engine is a workspace of its own, which no other test builds: its lock file has what the crates need.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import { at } from '../../scripts/lib.mjs';

test('the lock file of bench/native has every crate that the engine depends on', async () => {
  const lock = await readFile(at('bench/native/Cargo.lock'), 'utf8');
  for (const name of ['polygraft', 'polygraft-cpu', 'polygraft-formats']) {
    const locked = new RegExp(`^name = "${name}"\\nversion = .*\\ndependencies = \\[([^\\]]*)\\]`, 'm').exec(lock)?.[1];
    const manifest = await readFile(at('crates', name, 'Cargo.toml'), 'utf8');
    const section = manifest.split(/^\[/m).find((part) => part.startsWith('dependencies]')) ?? '';
    const wanted = [...section.matchAll(/^([\w-]+) *=/gm)].map((match) => match[1]);
    assert.ok(locked && wanted.length > 0, name);
    const missing = wanted.filter((crate) => !new RegExp(`"${crate}[" ]`).test(locked));
    assert.deepEqual(missing, [], `${name}: run cargo update --workspace --manifest-path bench/native/Cargo.toml`);
  }
});
