import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/core/clock.ts';
import { systemDisk } from '../../src/core/disk.ts';
import { Batch, event } from '../../src/core/event.ts';
import { countHeld } from '../../src/log/inspect.ts';
import { EventLog } from '../../src/log/log.ts';
import { LogReader } from '../../src/log/reader.ts';
import type { Operation } from '../crash/crash-disk.ts';
import {
  bodies,
  codecWith,
  cut,
  flip,
  newDisk,
  optionsOf,
  plain,
  readAll,
  segmentsOf,
  survey,
  writeLog,
} from './written-log.ts';

const folder = mkdtempSync(join(tmpdir(), 'inspect-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const written = async (more: Parameters<typeof writeLog>[1] = {}) => {
  const disk = newDisk();
  await writeLog(disk, more);
  return { disk, segments: segmentsOf(disk) };
};

describe('a log that is sound', () => {
  it('is described: numbers, bytes, what is done with', async () => {
    const { disk } = await written({ done: [0, 1, 2, 5] });
    const { log, gaps, bodies: read } = await readAll(disk);
    expect(gaps).toEqual([]);
    expect(read).toEqual(bodies(0, 400));
    expect(log.segments.length).toBeGreaterThan(2);
    expect(log.segments[0]!.header.first).toBe(0);
    expect(log.end.seq).toBe(400);
    expect(log.acked.watermark).toBe(30);
    expect(log.acked.ranges).toMatchObject([{ start: 50, end: 60 }]);
    expect(countHeld(log.acked, 0, 400)).toBe(360);
    const bytes = log.segments.reduce((sum, { header, bytesAfter }) => sum + bytesAfter - header.bytesBefore, 0);
    expect(log.end.bytesBefore).toBe(bytes);
    expect(log.checkpoint).toMatchObject({ damaged: 0, own: true, value: { end: 400 } });
    expect(log.torn).toBeUndefined();
  });

  it('is not changed by that', async () => {
    const { disk } = await written({ done: [0] });
    const before = [...disk.files].map(([path, bytes]) => [path, Buffer.from(bytes)]);
    const calls: Operation['name'][] = [];
    disk.happened = ({ name }) => void calls.push(name);
    disk.readOnly = true;
    await readAll(disk);
    expect([...disk.files]).toEqual(before);
    expect(new Set(calls)).toEqual(new Set(['list', 'open', 'read', 'size', 'close']));
    expect(disk.opened.size).toBe(0);
  });

  it('may be empty', async () => {
    const { disk } = await written({ batches: 0 });
    const { log, gaps } = await readAll(disk);
    expect(gaps).toEqual([]);
    expect(log.segments).toEqual([]);
    expect(log.end.seq).toBe(0);
  });

  it('may be in several directories', async () => {
    const dirs = { dataDirs: ['/a', '/b'], checkpointDir: '/c' };
    const { disk } = await written(dirs);
    expect((await readAll(disk, dirs)).bodies).toEqual(bodies(0, 400));
    const { gaps } = await readAll(disk, { ...dirs, dataDirs: ['/b'] });
    expect(gaps.map(({ where }) => where)).toEqual(gaps.map(() => undefined));
    expect(gaps.length).toBeGreaterThan(1);
  });

  it('may be compressed and encrypted; without the key its sums can be checked', async () => {
    process.env['INSPECT_TEST_KEY'] = randomBytes(32).toString('hex');
    const codec = codecWith({ compression: 'gzip', activeKey: 'k1', keys: { k1: 'env:INSPECT_TEST_KEY' } });
    const { disk, segments } = await written({ codec });
    expect((await readAll(disk, { codec })).bodies).toEqual(bodies(0, 400));
    expect(await readAll(disk, { codec: plain })).toMatchObject({ gaps: [], bodies: [] });
    flip(disk, segments[1]!, 300);
    expect((await readAll(disk, { codec: plain })).gaps).toHaveLength(1);
  });
});

describe('what is damaged', () => {
  it('a bit in a segment: the events of one batch, and where they should be', async () => {
    const { disk, segments } = await written();
    const first = (await survey(disk)).segments[1]!.header.first;
    flip(disk, segments[1]!, 128 + 32 + 5);
    const { gaps, bodies: read } = await readAll(disk);
    expect(gaps).toMatchObject([
      { from: { seq: first }, to: { seq: first + 10 }, where: { path: segments[1], start: 128 } },
    ]);
    expect(read).toEqual([...bodies(0, first), ...bodies(first + 10, 400)]);
  });

  it('a bit in the last segment, in its last batch', async () => {
    const { disk, segments } = await written();
    const last = segments.at(-1)!;
    flip(disk, last, disk.files.get(last)!.length - 20);
    const { gaps, log } = await readAll(disk);
    expect(log.end.seq).toBe(400);
    expect(gaps).toMatchObject([{ from: { seq: 390 }, to: { seq: 400 }, where: { path: last } }]);
  });

  it('a segment that is cut off', async () => {
    const { disk, segments } = await written();
    const { segments: found } = await survey(disk);
    const end = found[1]!.end;
    cut(disk, segments[1]!, disk.files.get(segments[1]!)!.length - 10);
    const { gaps } = await readAll(disk);
    expect(gaps).toMatchObject([{ from: { seq: end - 10 }, to: { seq: end }, where: { path: segments[1] } }]);
  });

  it('the last segment cut off', async () => {
    const { disk, segments } = await written();
    const last = segments.at(-1)!;
    cut(disk, last, disk.files.get(last)!.length - 10);
    expect((await readAll(disk)).gaps).toMatchObject([{ from: { seq: 390 }, to: { seq: 400 }, where: { path: last } }]);
  });

  it.each([0, 1, -1])('a segment that is missing: %i', async at => {
    const { disk, segments } = await written();
    const { segments: found } = await survey(disk);
    const { header, end } = found.at(at)!;
    disk.take(segments.at(at)!);
    const { gaps } = await readAll(disk);
    expect(gaps).toMatchObject([{ from: { seq: header.first }, to: { seq: end }, where: undefined }]);
  });

  it('the header of a segment: it is made again from its frames', async () => {
    for (const byte of [0, 9, 20, 33, 41, 60]) {
      const { disk, segments } = await written();
      const sound = await survey(disk);
      flip(disk, segments[1]!, byte);
      const { gaps, bodies: read, log } = await readAll(disk);
      expect(gaps).toEqual([]);
      expect(read).toEqual(bodies(0, 400));
      const { id, first, bytesBefore, salt } = sound.segments[1]!.header;
      expect(log.segments[1]!).toMatchObject({ damaged: true, header: { id, first, bytesBefore, salt } });
    }
  });

  it('a header that cannot be guessed: all of its events', async () => {
    const { disk, segments } = await written();
    const { header, end } = (await survey(disk)).segments[1]!;
    flip(disk, segments[1]!, 48);
    const { gaps, log } = await readAll(disk);
    expect(log.unreadable).toMatchObject([{ path: segments[1], first: header.first }]);
    expect(gaps).toMatchObject([
      { from: { seq: header.first }, to: { seq: end }, where: { path: segments[1], start: 0 } },
    ]);
  });

  it('a slot of the checkpoint, or both', async () => {
    const { disk } = await written({ done: [0, 1] });
    const path = '/log/acked.checkpoint';
    const slots = [0, 4096].filter(at => at < disk.files.get(path)!.length);
    flip(disk, path, slots[0]! + 30);
    expect((await survey(disk)).checkpoint).toMatchObject({ damaged: 1 });
    for (const at of slots.slice(1)) flip(disk, path, at + 30);
    const log = await survey(disk);
    expect(log.checkpoint).toMatchObject({ damaged: slots.length, value: undefined });
    // Nobody knows any more what is done with.
    expect(log.acked.watermark).toBe(0);
    expect(log.end.seq).toBe(400);
  });

  it('what the disk refuses to read, with the refusal', async () => {
    const { disk, segments } = await written();
    const { header } = (await survey(disk)).segments[1]!;
    let reads = 0;
    disk.fault = ({ name, path }) => (name === 'read' && path === segments[1] && reads++ > 0 ? 'EIO' : undefined);
    const { gaps } = await readAll(disk);
    expect(gaps).toMatchObject([{ from: { seq: header.first }, cause: { code: 'MR_IO' } }]);
    expect(disk.opened.size).toBe(0);
  });

  it('a put that was torn is no gap', async () => {
    const { disk, segments } = await written();
    const last = segments.at(-1)!;
    const whole = disk.files.get(last)!;
    // What a frame looks like of which only the header made it.
    const { segments: found } = await survey(disk);
    const torn = Buffer.from(whole.subarray(128, 168));
    torn.writeUInt32LE(400, 16);
    torn.writeUInt16LE(1000, 30);
    disk.put(last, Buffer.concat([whole.subarray(0, found.at(-1)!.length), torn]));
    const { gaps, log } = await readAll(disk);
    expect(gaps).toEqual([]);
    expect(log.torn).toEqual({ path: last, start: whole.length, events: 10 });
  });
});

describe('what is refused', () => {
  it('a directory of something else, of Flume, and of a newer version', async () => {
    const disk = newDisk();
    disk.put('/log/notes.txt', Buffer.from('hello'));
    await expect(survey(disk)).rejects.toMatchObject({ code: 'MR_CONFIG' });
    disk.put('/log/log-1', Buffer.from('x'));
    await expect(survey(disk)).rejects.toMatchObject({ code: 'MR_FOREIGN_FILES' });
  });

  it('segments of two logs', async () => {
    const { disk, segments } = await written();
    const { disk: other, segments: others } = await written({ batches: 60 });
    disk.put(others.at(-1)!, other.files.get(others.at(-1)!)!);
    expect(segments).not.toContain(others.at(-1));
    await expect(survey(disk)).rejects.toMatchObject({ code: 'MR_FOREIGN_FILES' });
  });
});

describe('a log that is in use', () => {
  it('never looks damaged, while files come, go and are used again', async () => {
    const dir = join(folder, 'live');
    const options = optionsOf({ dataDirs: [dir], checkpointDir: dir, fsync: 'never', maxFileSize: 64 * 1024 });
    const log = await EventLog.open(options, {
      disk: systemDisk,
      clock: systemClock,
      report: problem => expect.fail(problem.message),
    });
    const reader = new LogReader(log, systemDisk);
    const state = { stop: false };
    const batch = Batch.of(Array.from({ length: 50 }, (_, i) => event(`${i} ${'x'.repeat(100)}`)));
    const writing = (async () => {
      while (!state.stop) {
        const puts = Array.from(
          { length: 8 },
          () => new Promise((resolve, reject) => log.append(batch, resolve, reject)),
        );
        await Promise.all(puts);
        // About four segments are held.
        while (log.events > 2000)
          for (const { positions, byteLength } of await reader.read(1))
            for (const { first, count } of positions!)
              log.done({ start: first, end: first + count, bytes: byteLength });
        await turn();
      }
    })();
    const seen = new Set<number>();
    try {
      let last = 0;
      for (let i = 0; i < 150 || seen.size < 20; i++) {
        const { gaps, log: found } = await readAll(systemDisk, options);
        expect(gaps).toEqual([]);
        expect(found.unreadable).toEqual([]);
        expect(found.checkpoint).toMatchObject({ damaged: 0, own: true });
        expect(found.end.seq).toBeGreaterThanOrEqual(last);
        last = found.end.seq;
        for (const { header } of found.segments) seen.add(header.first);
      }
    } finally {
      state.stop = true;
      await writing;
      await reader.close();
      await log.close();
    }
  });
});
