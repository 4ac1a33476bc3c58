import { describe, expect, test } from 'vitest';
import { Batch, event } from '../../src/core/event.ts';
import { EventLog } from '../../src/log/log.ts';
import { decodeFrameHeader, frameSize, headerSize } from '../../src/log/format.ts';
import { recover } from '../../src/log/recovery.ts';
import { seededRandom } from '../../src/testing/seeded-random.ts';
import type { CrashDisk } from '../crash/crash-disk.ts';
import { bodies, bodyOf, context, deliver, flip, newDisk, optionsOf, segmentsOf, writeLog } from './written-log.ts';

/** Opened without what the checkpoint says. */
const found = (disk: CrashDisk) => recover(disk, ['/log'], undefined, false);

/** A log of several segments, without its checkpoint's say. */
const written = async (): Promise<CrashDisk> => {
  const disk = newDisk();
  await writeLog(disk, { batches: 20, maxFileSize: 1500 });
  return disk;
};

/** Where the frames of a segment begin. */
const framesOf = (segment: Buffer): number[] => {
  const starts: number[] = [];
  for (let at = headerSize; at < segment.length; at += frameSize(decodeFrameHeader(segment, at).length))
    starts.push(at);
  return starts;
};

const bytesOf = (disk: CrashDisk, path: string): Buffer => disk.files.get(path) as Buffer;

test('an empty directory is an empty log', async () => {
  const disk = newDisk();
  await disk.makeDirectory('/log');
  expect(await found(disk)).toMatchObject({
    id: undefined,
    segments: [],
    spares: [],
    end: 0,
    bytes: 0,
    lost: [],
    problems: [],
  });
});

test('it finds all segments in order, and the end; doing it again finds the same', async () => {
  const disk = await written();
  const once = await found(disk);
  expect(once.segments.map(({ path }) => path)).toEqual(segmentsOf(disk));
  expect(once.segments.length).toBeGreaterThan(3);
  expect(once).toMatchObject({ end: 200, lost: [], problems: [] });
  for (const [i, { end }] of once.segments.entries()) expect(end).toBe(once.segments[i + 1]?.header.first ?? 200);
  expect(await found(disk)).toEqual(once);
});

describe('behind the last frame', () => {
  test('zeros are cut off without a word', async () => {
    const disk = await written();
    const last = segmentsOf(disk).at(-1)!;
    const before = bytesOf(disk, last);
    disk.put(last, Buffer.concat([before, Buffer.alloc(5000)]));
    expect(await found(disk)).toMatchObject({ end: 200, problems: [] });
    expect(bytesOf(disk, last)).toEqual(before);
  });

  test('a torn put is cut off and kept aside, and is no loss', async () => {
    const disk = await written();
    const last = segmentsOf(disk).at(-1)!;
    const before = bytesOf(disk, last);
    disk.put(last, before.subarray(0, -10));
    const left = await found(disk);
    expect(left).toMatchObject({ end: 190, lost: [] });
    expect(left.problems).toEqual([expect.stringContaining('never confirmed')]);
    const kept = bytesOf(disk, `${last}.torn`);
    expect(Buffer.concat([bytesOf(disk, last), kept])).toEqual(before.subarray(0, -10));
    expect((await found(disk)).problems).toEqual([]);
  });

  test('a torn put is somewhere, whenever the power goes', async () => {
    let moments = 0;
    for (let seed = 1; seed <= 40; seed++) {
      const disk = newDisk(seed);
      await writeLog(disk, { batches: 3 });
      const [path] = segmentsOf(disk) as [string];
      const torn = bytesOf(disk, path).subarray(0, -10);
      disk.put(path, torn);
      const images: CrashDisk[] = [];
      disk.happened = () => images.push(disk.cut(seededRandom(seed + images.length)));
      await found(disk);
      disk.happened = undefined;
      moments += images.length;
      for (const image of [...images, disk.cut(seededRandom(seed))]) {
        const { length } = bytesOf(image, path);
        const kept = image.files.get(`${path}.torn`) ?? Buffer.alloc(0);
        const whole = length === torn.length || kept.equals(torn.subarray(length));
        expect({ seed, length, kept: kept.length, whole }).toMatchObject({ whole: true });
      }
    }
    expect(moments).toBeGreaterThan(200);
  });

  // A crash leaves the same: nobody can tell. So nothing goes without a word, and nothing goes for good.
  test.each([
    ['payload', 60],
    ['sequence number', 16],
    ['number of events', 12],
    ['group', 30],
  ])(
    'a last put that is rotten in its %s is reported with its bytes and where they are, and counted',
    async (_, at) => {
      const disk = newDisk();
      await writeLog(disk, { batches: 3 });
      const [path] = segmentsOf(disk) as [string];
      const sound = bytesOf(disk, path);
      const last = framesOf(sound).at(-1)!;
      disk.take('/log/acked.checkpoint');
      flip(disk, path, last + at);
      const rotten = bytesOf(disk, path);
      const { bodies: left, reports, torn } = await deliver(disk);
      expect(left).toEqual(bodies(0, 20));
      const said = reports.filter(message => message.includes(`${sound.length - last} bytes are kept in ${path}.torn`));
      expect(said).toEqual([expect.stringMatching(/damage to the last put would look the same/)]);
      expect(torn).toBe(sound.length - last);
      expect(bytesOf(disk, `${path}.torn`)).toEqual(rotten.subarray(last));
    },
  );

  test('a last group whose first put is rotten is kept whole', async () => {
    const disk = newDisk();
    const log = await EventLog.open(optionsOf(), context(disk));
    const puts = Array.from(
      { length: 4 },
      (_, i) => new Promise((resolve, reject) => log.append(Batch.of([event(bodyOf(i))]), resolve, reject)),
    );
    await Promise.all(puts);
    const [path] = segmentsOf(disk) as [string];
    const before = bytesOf(disk, path);
    // The first one is a group of its own, and the others, which came while it was written, are another.
    const begin = framesOf(before)[1]!;
    disk.take('/log/acked.checkpoint');
    const crashed = disk.kill(seededRandom(1));
    flip(crashed, path, begin + 16);
    expect(await found(crashed)).toMatchObject({ end: 1, torn: before.length - begin });
    expect(bytesOf(crashed, `${path}.torn`).subarray(32)).toEqual(before.subarray(begin + 32));
  });

  test('what was read is synced, before anybody gets it', async () => {
    const disk = await written();
    const syncs: string[] = [];
    disk.happened = ({ name, path }) => {
      if (name === 'sync') syncs.push(path);
    };
    await found(disk);
    expect(syncs).toEqual([segmentsOf(disk).at(-1)]);
  });
});

test('what is in a file that is gone altogether is missed as far as the last checkpoint goes', async () => {
  const disk = newDisk();
  const own = context(disk);
  const log = await EventLog.open(optionsOf(), own);
  await new Promise((resolve, reject) => log.append(Batch.of([event('a'), event('b')]), resolve, reject));
  await own.clock.advance(30_000);
  const crashed = disk.kill(seededRandom(1));
  crashed.take(segmentsOf(crashed)[0]!);
  expect(await deliver(crashed)).toMatchObject({
    bodies: [],
    lost: 2,
    reports: [expect.stringMatching(/2 events, numbers 0 to 1, are missing/)],
  });
});

test('a bad frame with later groups behind it stays: only the reader passes it', async () => {
  const disk = await written();
  const last = segmentsOf(disk).at(-1)!;
  flip(disk, last, 200);
  const before = bytesOf(disk, last);
  const left = await found(disk);
  expect(left).toMatchObject({ end: 200, lost: [], problems: [] });
  expect(left.segments.at(-1)?.damaged).toBe(true);
  expect(bytesOf(disk, last)).toEqual(before);
});

test('a segment that was begun and never used is removed', async () => {
  const disk = await written();
  const log = await EventLog.open(optionsOf(), context(disk));
  await new Promise((resolve, reject) => log.append(Batch.of([event('x')]), resolve, reject));
  const path = segmentsOf(disk).at(-1)!;
  disk.put(path, bytesOf(disk, path).subarray(0, 128));
  const left = await found(disk);
  expect(left).toMatchObject({ end: 200, lost: [], problems: [] });
  expect(disk.files.has(path)).toBe(false);
});

test.each([0, 1])('a damaged slot of the checkpoint is told once, and written anew: slot %i', async slot => {
  const disk = await written();
  flip(disk, '/log/acked.checkpoint', slot * 4096 + 30);
  const said: string[] = [];
  const open = (on: CrashDisk) =>
    EventLog.open(
      optionsOf(),
      context(on, ({ message }) => said.push(message)),
    );
  await open(disk);
  expect(said).toEqual([expect.stringContaining('1 of its 2 slots are damaged')]);
  await open(disk.cut(seededRandom(slot)));
  expect(said).toHaveLength(1);
});

test('what does not begin like a segment is set aside, not deleted', async () => {
  const disk = await written();
  const [first] = segmentsOf(disk);
  flip(disk, first!, 20);
  const before = bytesOf(disk, first!);
  const left = await found(disk);
  expect(left.problems).toEqual([expect.stringContaining('does not begin like a segment')]);
  expect(bytesOf(disk, `${first!}.damaged`)).toEqual(before);
});

test("another log's files are refused", async () => {
  const [disk, other] = [await written(), await written()];
  const paths = segmentsOf(disk);
  const foreign = segmentsOf(other).at(-1)!;
  disk.put(foreign, bytesOf(other, foreign));
  expect(paths).toContain(foreign);
  await expect(found(disk)).rejects.toMatchObject({ code: 'MR_FOREIGN_FILES' });
});
