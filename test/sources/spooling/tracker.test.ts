import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createSink, fileChannel, run, spooldirSource } from '../../../src/index.ts';

// A source whose tracker lags behind what its channel has confirmed, as after a SIGKILL.

let dir: string;
let spool: string;
beforeEach(() => {
  dir = fs.mkdtempSync(join(tmpdir(), 'millrace-tracker-'));
  spool = join(dir, 'spool');
  fs.mkdirSync(spool);
});
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const lines = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `line ${from + i}`);
const put = (name: string, from: number, to: number) =>
  fs.writeFileSync(join(spool, name), lines(from, to).join('\n') + '\n');

/** Delivers up to `count` events; then the source goes without completing anything, as if it had been killed. */
const deliver = async (count: number, completes: boolean) => {
  const got: string[] = [];
  const flow = run(
    spooldirSource({
      spoolDir: spool,
      trackerDir: join(dir, 'tracker'),
      batchSize: 10,
      minAge: 0,
      ...(completes ? {} : { deletePolicy: 'never', trackingPolicy: 'tracker_dir' }),
    }),
    fileChannel({ dir: join(dir, 'channel'), minimumRequiredSpace: 0 }),
    createSink(events => void got.push(...events.map(({ body }) => body.toString()))),
  );
  const completed = () => fs.readdirSync(spool).every(name => name.endsWith('.COMPLETED'));
  while (got.length < count || (completes && !completed())) await new Promise(resolve => setTimeout(resolve, 2));
  // What came too often would come now.
  await new Promise(resolve => setTimeout(resolve, 50));
  await flow.stop();
  return got;
};

describe('what the channel has, and the tracker does not know of', () => {
  it('does not come twice', async () => {
    put('a', 0, 35);
    expect(await deliver(35, false)).toEqual(lines(0, 35));
    // As if nothing had been written down: neither how far it was, nor that it was at its end.
    fs.rmSync(join(dir, 'tracker'), { recursive: true });
    put('b', 100, 105);
    expect(await deliver(5, true)).toEqual(lines(100, 105));
    expect(fs.readdirSync(spool).sort()).toEqual(['a.COMPLETED', 'b.COMPLETED']);
  });

  it('is not taken for that of another file with the same name', async () => {
    put('a', 0, 35);
    await deliver(35, true);
    fs.rmSync(join(spool, 'a.COMPLETED'));
    put('a', 200, 240);
    expect(await deliver(40, true)).toEqual(lines(200, 240));
  });
});
