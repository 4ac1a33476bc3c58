// Delivers a spooling directory into a file until it is killed: `spooling-process.ts <spoolDir> <file>`.
import { openSync, writeSync } from 'node:fs';
import { createSink, run, spooldirSource } from '../../../src/index.ts';

const [spoolDir = '', target = ''] = process.argv.slice(2);
const out = openSync(target, 'a');
const sink = createSink(async events => {
  // One write, so that a kill cuts no line.
  writeSync(out, events.map(({ body }) => `${body.toString()}\n`).join(''));
  await new Promise(next => setTimeout(next, 1));
});
await run(spooldirSource({ spoolDir, minAge: 0, pollDelay: 5, batchSize: 10 }), sink).done;
