import { describe, expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import { EventLog, type LogOptions } from '../../src/log/log.ts';
import { repairLog } from '../../src/log/repair.ts';
import { seededRandom } from '../../src/testing/seeded-random.ts';
import type { CrashDisk } from '../crash/crash-disk.ts';
import { bodies, context, deliver, flip, newDisk, optionsOf, plain, writeLog } from './written-log.ts';

const notes = (disk: CrashDisk): string[] =>
  [...disk.files.keys()].filter(path => path.endsWith('directories.json')).sort();

const where = (checkpointDir: string, ...dataDirs: string[]): Partial<LogOptions> => ({
  dataDirs,
  checkpointDir,
  maxFileSize: 1500,
});

/** 200 events in several segments, in /a and /b by turns. */
const written = async (checkpointDir = '/c'): Promise<CrashDisk> => {
  const disk = newDisk();
  await writeLog(disk, { batches: 20, ...where(checkpointDir, '/a', '/b') });
  return disk;
};

/** As if another path led there: moves all files of a directory. */
const move = (disk: CrashDisk, from: string, to: string): void => {
  for (const [path, bytes] of disk.files) {
    if (!path.startsWith(`${from}/`)) continue;
    disk.put(to + path.slice(from.length), bytes);
    disk.take(path);
  }
};

const opened = async (disk: Disk, more: Partial<LogOptions>): Promise<void> =>
  (await EventLog.open(optionsOf(more), context(disk))).close();

describe('a data directory that is not the one that it was', () => {
  test.each([
    ['another path', '/c', ['/a', '/x'], '/b'],
    ['another path, with the checkpoint in it', '/x', ['/a', '/x'], '/b'],
    ['another path, the first of them', '/c', ['/x', '/b'], '/a'],
    ['one less', '/c', ['/a'], '/b'],
    ['all of them', '/c', ['/x', '/y'], '/a'],
  ])('is refused while there are events: %s', async (_, checkpointDir, dataDirs, missing) => {
    const disk = await written();
    const before = new Map(disk.files);
    const opening = opened(disk, where(checkpointDir, ...dataDirs));
    await expect(opening).rejects.toMatchObject({ code: 'MR_CONFIG' });
    await expect(opening).rejects.toThrow(`It was ${missing} when`);
    for (const [path, bytes] of before) if (!path.endsWith('.checkpoint')) expect(disk.files.get(path)).toEqual(bytes);
    const { bodies: all, lost } = await deliver(disk, where('/c', '/a', '/b'));
    expect([all, lost]).toEqual([bodies(0, 200), 0]);
  });

  test('is refused when its path is the same: a disk that is not mounted', async () => {
    const disk = await written();
    move(disk, '/b', '/elsewhere');
    await expect(opened(disk, where('/c', '/a', '/b'))).rejects.toThrow(
      'another one is there now: is its disk mounted?',
    );
    move(disk, '/elsewhere', '/b');
    expect((await deliver(disk, where('/c', '/a', '/b'))).bodies).toEqual(bodies(0, 200));
  });

  test('may be known by another path', async () => {
    const disk = await written();
    await disk.makeDirectory('/x');
    move(disk, '/b', '/x');
    expect((await deliver(disk, where('/c', '/x', '/a'))).bodies).toEqual(bodies(0, 200));
    await expect(opened(disk, where('/c', '/a', '/b'))).rejects.toThrow('It was /x when');
  });

  test('does not matter any more when everything was consumed', async () => {
    const disk = await written();
    const log = await EventLog.open(optionsOf(where('/c', '/a', '/b')), context(disk));
    log.done({ start: 0, end: 200, bytes: log.bytes });
    await log.close();
    await opened(disk, where('/c', '/x'));
    await opened(disk, where('/c', '/a', '/x'));
  });

  test('may be given up by repair', async () => {
    const disk = await written();
    const left = where('/c', '/a');
    const lists = { dataDirs: ['/a'], checkpointDir: '/c', codec: plain, dryRun: false };
    await expect(repairLog(disk, { ...lists, force: false })).rejects.toMatchObject({ code: 'MR_DATA_LOST' });
    await expect(opened(disk, left)).rejects.toMatchObject({ code: 'MR_CONFIG' });
    const { gaps } = await repairLog(disk, { ...lists, force: true });
    const missing = gaps.reduce((sum, { from, to }) => sum + to.seq - from.seq, 0);
    const { bodies: rest } = await deliver(disk, left);
    expect(rest).toHaveLength(200 - missing);
  });
});

test('another directory may be added, and belongs to the log from then on', async () => {
  const disk = await written();
  await writeLog(disk, { batches: 10, ...where('/c', '/a', '/b', '/x') });
  expect(notes(disk)).toEqual(['/a', '/b', '/c', '/x'].map(directory => `${directory}/directories.json`));
  await expect(opened(disk, where('/c', '/a', '/b'))).rejects.toThrow('It was /x when');
  const { bodies: all } = await deliver(disk, where('/c', '/a', '/b', '/x'));
  expect(all).toEqual([...bodies(0, 200), ...bodies(0, 100)]);
});

test('a log of before directories had names is opened, and they get some', async () => {
  const disk = await written();
  for (const path of notes(disk)) disk.take(path);
  await expect(opened(disk, where('/c', '/a'))).rejects.toThrow('there were 2 dataDirs');
  await opened(disk, where('/c', '/a', '/b'));
  expect(notes(disk)).toHaveLength(3);
});

test('notes are written once', async () => {
  const disk = await written();
  const writes: string[] = [];
  disk.happened = ({ name, path }) => {
    if (name === 'write' && path.includes('directories')) writes.push(path);
  };
  await opened(disk, where('/c', '/a', '/b'));
  expect(writes).toEqual([]);
});

test('a damaged note is set aside and reported, and costs nothing', async () => {
  for (const path of ['/a', '/b', '/c'].map(directory => `${directory}/directories.json`)) {
    const { length } = (await written()).files.get(path)!;
    for (let at = 0; at < length; at += 7) {
      const disk = await written();
      flip(disk, path, at);
      const { bodies: all, reports } = await deliver(disk, where('/c', '/a', '/b'));
      expect(all).toEqual(bodies(0, 200));
      expect(reports).toEqual([`${path} is damaged; it was copied to ${path}.damaged.`]);
      await expect(opened(disk, where('/c', '/a', '/x'))).rejects.toThrow('It was /b when');
    }
  }
});

test('a newer version is refused', async () => {
  const disk = await written();
  const text = String(disk.files.get('/a/directories.json')).replace(/"version":1(.*),"sum":.*/s, '"version":2$1');
  const { crc32 } = await import('node:zlib');
  disk.put('/a/directories.json', Buffer.from(`${text},"sum":${crc32(text)}}\n`));
  await expect(opened(disk, where('/c', '/a', '/b'))).rejects.toMatchObject({ code: 'MR_NEWER_FORMAT' });
});

test('whatever a crash leaves of the notes, the log opens', async () => {
  for (let seed = 0; seed < 300; seed++) {
    const random = seededRandom(seed);
    const disk = seed % 2 === 0 ? newDisk(seed) : await written();
    if (seed % 8 === 1) flip(disk, '/b/directories.json', seed % 100);
    const more = where('/c', '/a', '/b', '/x');
    const opening = EventLog.open(optionsOf(more), context(disk));
    for (let turns = random() * 400; turns > 0; turns--) await Promise.resolve();
    const left = random() < 0.5 ? disk.cut(random) : disk.kill(random);
    const { bodies: all } = await deliver(left, more);
    expect(all).toEqual(seed % 2 === 0 ? [] : bodies(0, 200));
    await (await opening).close();
  }
});
