import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/core/clock.ts';
import { systemDisk } from '../../src/core/disk.ts';
import { Batch } from '../../src/core/event.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import { createSink, event, fileChannel, run, seqSource } from '../../src/index.ts';
import { Acked } from '../../src/log/acked.ts';
import { headerSize } from '../../src/log/format.ts';
import { EventLog, type LogOptions } from '../../src/log/log.ts';
import { encodeCheckpoint } from '../../src/log/recovery.ts';
import { LogReader } from '../../src/log/reader.ts';
import { Register } from '../../src/log/register.ts';
import type { FileChannelOptions } from '../../src/operators/channels/file.ts';
import { recordingLog } from '../../src/testing/index.ts';

// What went wrong in other programs that keep events on a disk. docs/guarantees.md has the list; the ids are its.

let dir: string;
beforeEach(() => (dir = fs.mkdtempSync(join(tmpdir(), 'millrace-known-'))));
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => String(from + i));

const fill = async (totalEvents: number, options: FileChannelOptions = {}) => {
  const channel = fileChannel.create({ dir, minimumRequiredSpace: 0, ...options });
  const input = channel.input();
  seqSource({ totalEvents, batchSize: 10 }).subscribe(input);
  await input.done;
  await channel.close();
};

const drain = async (options: FileChannelOptions = {}) => {
  const texts: string[] = [];
  const log = recordingLog();
  const scope = new Scope({ log });
  const channel = inScope(scope, () => fileChannel.create({ dir, minimumRequiredSpace: 0, ...options }));
  channel.output().subscribe(createSink(events => void texts.push(...events.map(({ body }) => body.toString()))));
  channel.end();
  await channel.closed;
  return { texts, said: log.entries.map(({ message }) => message).join('\n'), channel };
};

const segments = () =>
  fs
    .readdirSync(dir)
    .filter(name => name.endsWith('.seg'))
    .sort();

describe('what others have lost events or stopped by', () => {
  it('B3: a checkpoint that is ahead of the data does not keep it from starting; what is missing is counted', async () => {
    await fill(30);
    fs.rmSync(join(dir, segments()[0]!));
    const { texts, said } = await drain();
    expect(texts).toEqual([]);
    expect(said).toMatch(/30 events, numbers 0 to 29, are missing/);
    await fill(5);
    expect((await drain()).texts).toEqual(numbers(5));
  });

  it('B4, B5, B11: damage in the file that is written to and read from stops nothing, and is reported once', async () => {
    await fill(10);
    await fill(10);
    await fill(10);
    const path = join(dir, segments()[1]!);
    const bytes = fs.readFileSync(path);
    bytes[headerSize + 40]! ^= 1;
    fs.writeFileSync(path, bytes);
    for (const expected of [1, 0]) {
      const { texts, said } = await drain();
      expect(texts).toEqual(expected === 1 ? [...numbers(10), ...numbers(10)] : []);
      expect(said.match(/are missing/g) ?? []).toHaveLength(expected);
    }
    expect(fs.readdirSync(dir).some(name => name.endsWith('.damaged'))).toBe(true);
  });

  it('B8: an event that can never fit is refused when it is put, and harms no other', async () => {
    const got: number[] = [];
    const refused: string[] = [];
    const flow = run(
      seqSource({ totalEvents: 3 }),
      source => source,
      fileChannel({ dir, minimumRequiredSpace: 0, byteCapacity: 1 }),
      createSink(events => void got.push(...events.map(({ body }) => body.length))),
    );
    await flow.done;
    expect(got).toEqual([1, 1, 1]);
    const channel = fileChannel.create({ dir, minimumRequiredSpace: 0, byteCapacity: 1 });
    const input = channel.input();
    const { createSource } = await import('../../src/core/source.ts');
    createSource(
      emitter => {
        emitter.emit([event('too large')]);
        return {
          settled: (_, what, cause) => {
            refused.push(`${what} ${(cause as unknown as { code: string }).code}`);
            emitter.complete();
          },
        };
      },
      { onFailure: 'report' },
    ).subscribe(input);
    await input.done;
    await channel.close();
    expect(refused).toEqual(['rejected MR_EVENT_TOO_LARGE']);
  });

  it('B9: numbers do not wrap: the log works at the end of its range', async () => {
    const options: LogOptions = {
      dataDirs: [dir],
      checkpointDir: dir,
      fsync: 'commit',
      maxFileSize: 4096,
      minimumRequiredSpace: 0,
      checkpointInterval: 1000,
    };
    const start = 2 ** 52 - 20;
    const value = encodeCheckpoint({
      id: Buffer.alloc(16, 7),
      end: start,
      bytes: 1000,
      directories: 1,
      acked: new Acked(start, 1000),
    });
    const register = await Register.open(systemDisk, join(dir, 'acked.checkpoint'), () => value);
    await register.sync();
    await register.close();
    const context = {
      disk: systemDisk,
      clock: systemClock,
      report: (problem: Error) => expect(problem).toBeUndefined(),
    };
    const log = await EventLog.open(options, context);
    expect(log.end).toBe(start);
    for (let i = 0; i < 40; i++)
      await new Promise((resolve, reject) => log.append(Batch.of([event(String(i))]), resolve, reject));
    await log.close();
    const again = await EventLog.open(options, context);
    const reader = new LogReader(again, systemDisk);
    const texts = (await reader.read(1e9)).flatMap(({ events }) => events.map(({ body }) => body.toString()));
    expect(texts).toEqual(numbers(40));
    expect(again.end).toBe(start + 40);
    await reader.close();
    await again.close();
  });

  it.each([
    ['empty', 0],
    ['cut in the middle', 100],
    ['zeros', -1],
  ])('B10, B13: a checkpoint that is %s costs nothing but repetition', async (_, length) => {
    await fill(10);
    const path = join(dir, 'acked.checkpoint');
    if (length < 0) fs.writeFileSync(path, Buffer.alloc(8192));
    else fs.truncateSync(path, length);
    expect((await drain()).texts).toEqual(numbers(10));
  });

  it.each([
    ['empty', 0],
    ['zeros', -1],
  ])('B10, B12: a last data file that is %s is no trouble', async (_, length) => {
    await fill(10);
    fs.writeFileSync(join(dir, '00000000000000000010.seg'), Buffer.alloc(length < 0 ? 4096 : 0));
    expect((await drain()).texts).toEqual(numbers(10));
  });

  it('B10: a data file whose beginning is garbled is set aside, and the others are delivered', async () => {
    await fill(10);
    await fill(10);
    await fill(10);
    const path = join(dir, segments()[1]!);
    const bytes = fs.readFileSync(path);
    bytes.fill(0xaa, 0, 64);
    fs.writeFileSync(path, bytes);
    const { texts, said } = await drain();
    expect(texts).toEqual([...numbers(10), ...numbers(10)]);
    expect(said).toMatch(/does not begin like a segment; it was renamed/);
    expect(said).toMatch(/10 events, numbers 10 to 19, are missing/);
    expect(fs.readFileSync(`${path}.damaged`)).toEqual(bytes);
  });

  it('B14: a capacity that was made smaller than what is held, draining and filling again', async () => {
    await fill(100);
    const channel = fileChannel.create({ dir, minimumRequiredSpace: 0, capacity: 50, transactionCapacity: 50 });
    const input = channel.input();
    seqSource({ totalEvents: 20, batchSize: 10 }).subscribe(input);
    const texts: string[] = [];
    channel.output({ batchSize: 10 }).subscribe(
      createSink(events => {
        expect(channel.depth.events).toBeLessThanOrEqual(100);
        texts.push(...events.map(({ body }) => body.toString()));
      }),
    );
    await channel.closed;
    expect(texts).toEqual([...numbers(100), ...numbers(20)]);
    for (let i = 0; i < 5; i++) {
      await fill(30, { maxFileSize: 4096 });
      expect((await drain({ maxFileSize: 4096 })).texts).toEqual(numbers(30));
    }
  });

  it('B16: what comes after an unclean stop goes to a new file, and what was delivered is not sent again', async () => {
    await fill(10);
    const [first] = segments();
    const before = fs.readFileSync(join(dir, first!));
    await fill(10);
    expect(segments()).toHaveLength(2);
    expect(fs.readFileSync(join(dir, first!)).equals(before)).toBe(true);
    expect((await drain()).texts).toEqual([...numbers(10), ...numbers(10)]);
    expect((await drain()).texts).toEqual([]);
  });

  it('B18: files that are done with go when it starts, if they could not go before', async () => {
    await fill(10);
    const copy = fs.readFileSync(join(dir, segments()[0]!));
    await drain();
    fs.writeFileSync(join(dir, '00000000000000000000.seg'), copy);
    await fill(1);
    expect(segments()).toEqual(['00000000000000000010.seg']);
    expect((await drain()).texts).toEqual(['0']);
  });
});
