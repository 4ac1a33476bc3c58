import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { map } from 'rxjs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createSink, event, fileChannel, intercept, run, taildirSource } from '../../../src/index.ts';

// A source whose position file lags behind what its channel has confirmed, as after a SIGKILL.

let dir: string;
let log: string;
beforeEach(() => {
  dir = fs.mkdtempSync(join(tmpdir(), 'millrace-offsets-'));
  fs.mkdirSync(join(dir, 'logs'));
  log = join(dir, 'logs', 'app.log');
});
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const lines = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `line ${from + i}`);
const append = (from: number, to: number, path = log) => fs.appendFileSync(path, lines(from, to).join('\n') + '\n');

/** Delivers what there is, up to `count` events. */
const deliver = async (count: number, { stage = false, filegroups = '.*' } = {}) => {
  const got: string[] = [];
  const source = taildirSource({
    filegroups: { f: join(dir, 'logs', filegroups) },
    positionFile: join(dir, 'positions.json'),
    batchSize: 10,
  });
  const channel = fileChannel({ dir: join(dir, 'channel'), minimumRequiredSpace: 0 });
  const sink = createSink(events => void got.push(...events.map(({ body }) => body.toString())));
  const flow = stage
    ? run(source, intercept(map(({ body, headers }) => event(body, headers))), channel, sink)
    : run(source, channel, sink);
  while (got.length < count) await new Promise(resolve => setTimeout(resolve, 2));
  // What came too often would come now.
  await new Promise(resolve => setTimeout(resolve, 100));
  await flow.stop();
  return got;
};

/** Takes the position files back to what they were. */
const positions = () => {
  const names = fs.readdirSync(dir).filter(name => name.startsWith('positions.json'));
  const before = new Map(names.map(name => [name, fs.readFileSync(join(dir, name))]));
  return () => {
    for (const name of fs.readdirSync(dir)) if (name.startsWith('positions.json')) fs.rmSync(join(dir, name));
    for (const [name, bytes] of before) fs.writeFileSync(join(dir, name), bytes);
  };
};

describe('what the channel has, and the position file does not know of', () => {
  it.each([false, true])('does not come twice, with a stage in between: %s', async stage => {
    append(0, 25);
    expect(await deliver(25, { stage })).toEqual(lines(0, 25));
    const back = positions();
    append(25, 60);
    expect(await deliver(35, { stage })).toEqual(lines(25, 60));
    back();
    append(60, 70);
    expect(await deliver(10, { stage })).toEqual(lines(60, 70));
  });

  it('does not come twice of a file that no position was written for', async () => {
    append(0, 25);
    const back = positions();
    expect(await deliver(25)).toEqual(lines(0, 25));
    back();
    expect(await deliver(0)).toEqual([]);
    append(25, 30);
    back();
    expect(await deliver(5)).toEqual(lines(25, 30));
  });

  it('does not come twice of a file that was rotated meanwhile', async () => {
    append(0, 25);
    await deliver(25);
    const back = positions();
    append(25, 60);
    await deliver(35);
    back();
    append(60, 65);
    fs.renameSync(log, `${log}.1`);
    append(65, 70);
    expect(await deliver(10)).toEqual(lines(60, 70));
  });

  it.each([
    ['smaller', 3],
    ['larger', 100],
  ])('is not taken for what was written anew, %s', async (_, count) => {
    append(0, 25);
    await deliver(25);
    const back = positions();
    append(25, 60);
    await deliver(35);
    back();
    fs.truncateSync(log);
    append(1000, 1000 + count);
    expect(await deliver(count)).toEqual(lines(1000, 1000 + count));
  });

  it('is not taken for that of another file with its inode', async () => {
    append(0, 60);
    await deliver(60);
    fs.rmSync(log);
    // Perhaps it gets the same inode: many file systems give it to the next one.
    append(500, 600);
    expect(await deliver(100)).toEqual(lines(500, 600));
  });
});
