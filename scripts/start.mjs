// npm start: set-up, the example in Node, then the demo page. Everything that is up to date is skipped.
import { parseArgs } from 'node:util';
import { at, run, runAsMain, say } from './lib.mjs';
import { portOption, serve } from './serve.mjs';
import { setup } from './setup.mjs';

await runAsMain(import.meta, async (args) => {
  const { values } = parseArgs({
    args,
    options: {
      'no-serve': { type: 'boolean' },
      port: { type: 'string' },
      isolated: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    console.log('npm start [-- --no-serve] [--port N] [--isolated]');
    return;
  }
  const port = portOption(values.port);
  await setup();
  await run(process.execPath, [at('scripts/example.mjs')], {
    hint: 'The set-up is complete, but the example failed: see above.',
  });
  if (values['no-serve']) return;
  const { url } = await serve({ port, isolated: values.isolated });
  console.log(`\nPolygraft's demo: ${url}`);
  say('Ctrl-C ends it');
});
