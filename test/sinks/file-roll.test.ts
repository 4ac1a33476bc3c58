import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, test, vi } from 'vitest';
import { systemClock, type Clock } from '../../src/core/clock.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import {
  Batch,
  createSource,
  event,
  fileRollSink,
  headers,
  run,
  type Emitter,
  type Flow,
  type FlumeEvent,
  type Settled,
} from '../../src/index.ts';
import { FakeClock, recordingLog } from '../../src/testing/index.ts';

let directory: string;
const flows: Flow[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'millrace-roll-'));
});
afterEach(async () => {
  vi.restoreAllMocks();
  for (const flow of flows.splice(0)) {
    flow.abort();
    await flow.done.catch(() => undefined);
  }
  await rm(directory, { recursive: true });
});

type Events = readonly FlumeEvent[] | Batch;
type Tell = (what: Settled) => void;

/** A sink that is given batches by hand. Its clock's timers stand still; files are real. */
const opened = (options: Partial<Parameters<typeof fileRollSink>[0]> = {}) => {
  const time = new FakeClock(Date.UTC(2024, 4, 3, 13, 46, 33));
  const clock: Clock = {
    now: () => time.now(),
    after: (ms, callback, background) => time.after(ms, callback, background),
    cancel: timer => time.cancel(timer),
    soon: callback => systemClock.soon(callback),
  };
  const log = recordingLog();
  let emitter!: Emitter<FlumeEvent, Tell>;
  const source = createSource<FlumeEvent, Tell>(lent => {
    emitter = lent;
    return { settled: (tell, what) => tell(what) };
  });
  const sink = fileRollSink({ directory, ...options });
  const flow = inScope(new Scope({ clock, log, random: () => 0 }), () => run(source, sink));
  flows.push(flow);
  const put = async (events: Events) => {
    while ((emitter as unknown) === undefined) await new Promise(setImmediate);
    return new Promise<Settled>(tell => emitter.emit(events, tell));
  };
  const counters = () => flow.metrics.snapshot()['SINK.file_roll']!;
  const closed = async (count: number) => {
    while (counters()['ConnectionClosedCount']! < count) await new Promise(setImmediate);
  };
  const logged = async (pattern: RegExp) => {
    while (!log.entries.some(({ message }) => pattern.test(message))) await new Promise(setImmediate);
  };
  return { time, log, put, sink, flow, counters, closed, logged };
};

const text = (...bodies: string[]) => bodies.map(body => event(body));
const content = async (from = directory) => {
  const files: Record<string, string> = {};
  for (const name of (await readdir(from)).sort()) files[name] = await readFile(join(from, name), 'utf8');
  return files;
};
const series = Date.UTC(2024, 4, 3, 13, 46, 33);

type Done = (cause: Error | null, written?: number) => void;

describe('file_roll, files and their names', () => {
  it('appends batches to one file', async () => {
    const { put, flow, counters } = opened();
    expect(await put(text('a', 'b'))).toBe('acked');
    expect(await put(text('', 'c'))).toBe('acked');
    expect(await content()).toEqual({ [`${series}-1`]: 'a\nb\n\nc\n' });
    await flow.stop();
    expect(counters()).toMatchObject({
      ConnectionCreatedCount: 1,
      ConnectionClosedCount: 1,
      EventDrainAttemptCount: 4,
      EventDrainSuccessCount: 4,
    });
    expect(flow.ledger.difference).toBe(0);
  });

  it('writes a block as it is, in one write', async () => {
    const write = vi.spyOn(fs, 'writev');
    const { put } = opened();
    const bytes = Buffer.from('one\n\nthree\n');
    const batch = Batch.ofBlock({ bytes, ends: Uint32Array.of(3, 4, 10), headers: headers({}) });
    await put(batch);
    expect(write).toHaveBeenCalledTimes(1);
    expect(write.mock.calls[0]![1]).toEqual([bytes]);
    expect(write.mock.calls[0]![1][0]).toBe(bytes);
    await put(text('four', 'five'));
    expect(write).toHaveBeenCalledTimes(2);
    expect(await content()).toEqual({ [`${series}-1`]: 'one\n\nthree\nfour\nfive\n' });
  });

  it('serializes as it is told, also by class name', async () => {
    const className = 'org.apache.flume.serialization.HeaderAndBodyTextEventSerializer$Builder' as 'HEADER_AND_TEXT';
    const { put } = opened({ serializer: className, appendNewline: false });
    await put([event('x', headers({ a: 'b', c: 'd' })), event('y')]);
    expect(Object.values(await content())).toEqual(['{a=b, c=d} x{} y']);
  });

  it('closes a file after rollInterval, and opens the next when there is something to write', async () => {
    const { put, time, closed, counters } = opened({ prefix: 'app-', extension: 'log' });
    await put(text('a'));
    await time.advance(29_999);
    await put(text('b'));
    expect(counters()['ConnectionClosedCount']).toBe(0);
    await time.advance(1);
    await closed(1);
    await time.advance(100_000);
    expect(await content()).toEqual({ [`app-${series}-1.log`]: 'a\nb\n' });
    await put(text('c'));
    await time.advance(30_000);
    await closed(2);
    expect(await content()).toEqual({ [`app-${series}-1.log`]: 'a\nb\n', [`app-${series}-2.log`]: 'c\n' });
  });

  it('never by time with rollInterval 0', async () => {
    const { put, time, counters } = opened({ rollInterval: 0 });
    await put(text('a'));
    await time.advance(1e9);
    await put(text('b'));
    expect(counters()).toMatchObject({ ConnectionCreatedCount: 1, ConnectionClosedCount: 0 });
  });

  it('closes a file of rollSize', async () => {
    const { put, counters } = opened({ rollSize: 4, rollInterval: 0 });
    for (const body of ['a', 'b', 'c', 'long one', 'd']) await put(text(body));
    expect(Object.values(await content())).toEqual(['a\nb\n', 'c\nlong one\n', 'd\n']);
    expect(counters()).toMatchObject({ ConnectionCreatedCount: 3, ConnectionClosedCount: 2 });
  });

  it('names files after their second with ROLLTIME, numbered within it', async () => {
    const { put, time } = opened({ pathManager: 'ROLLTIME', rollSize: 1, prefix: 'p-', extension: 'txt' });
    await put(text('a'));
    await put(text('b'));
    await time.advance(1000);
    await put(text('c'));
    const local = (ms: number) => {
      const at = new Date(ms);
      const parts = [at.getMonth() + 1, at.getDate(), at.getHours(), at.getMinutes(), at.getSeconds()];
      return `${at.getFullYear()}${parts.map(part => String(part).padStart(2, '0')).join('')}`;
    };
    expect(await content()).toEqual({
      [`p-${local(series)}-1.txt`]: 'a\n',
      [`p-${local(series)}-2.txt`]: 'b\n',
      [`p-${local(series + 1000)}-1.txt`]: 'c\n',
    });
  });

  it('leaves files alone that are there already', async () => {
    await writeFile(join(directory, `${series}-1`), 'mine');
    const { put } = opened();
    await put(text('a'));
    expect(await content()).toEqual({ [`${series}-1`]: 'mine', [`${series}-2`]: 'a\n' });
  });

  it('makes no file for nothing', async () => {
    const { time, flow } = opened();
    await time.advance(100_000);
    await flow.stop();
    expect(await content()).toEqual({});
  });

  it('keeps batches whole with several lanes', async () => {
    const { put } = opened({ concurrency: 4 });
    await Promise.all(Array.from({ length: 50 }, (_, i) => put(text(`${i} a`, `${i} b`))));
    const [lines] = Object.values(await content()).map(all => all.trimEnd().split('\n'));
    expect(lines).toHaveLength(100);
    for (let i = 0; i < 100; i += 2) expect(lines![i + 1]).toBe(lines![i]!.replace('a', 'b'));
  });

  it('the age of a file that was closed for its size does not count for the next', async () => {
    const { put, time, counters } = opened({ rollSize: 4 });
    await put(text('1st'));
    await time.advance(20_000);
    await put(text('2'));
    await time.advance(20_000);
    await put(text('3'));
    expect(Object.values(await content())).toEqual(['1st\n', '2\n3\n']);
    expect(counters()['ConnectionClosedCount']).toBe(2);
  });

  it('with fsync, asks the disk before the ack', async () => {
    const { handles, put } = watched({ fsync: true });
    await put(text('a'));
    const [file, parent] = await handles();
    // The first batch of a file waits for the file's name as well.
    expect(parent).toBeDefined();
    const order: string[] = [];
    const datasync = file!.datasync.bind(file);
    vi.spyOn(file!, 'datasync').mockImplementation(async () => {
      await datasync();
      order.push(Object.values(await content()).join(''));
    });
    expect(await put(text('b')).finally(() => order.push('acked'))).toBe('acked');
    expect(order).toEqual(['a\nb\n', 'acked']);
  });
});

/** As `opened`, with every file that it opens. */
const watched = (options: Parameters<typeof opened>[0] = {}) => {
  const open = vi.spyOn(fs.promises, 'open');
  const handles = () => Promise.all(open.mock.results.map(({ value }) => value as Promise<fs.promises.FileHandle>));
  return { handles, ...opened(options) };
};

/** Puts a small file system in the place of the directory; false, loudly, where that is not allowed. */
const mounted = (mode: 'ro' | 'size=64k'): boolean => {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', mode, 'tmpfs', directory], { stdio: 'ignore' });
    return true;
  } catch {
    console.warn(`SKIPPED: file_roll on a real tmpfs (${mode}); only root on Linux may mount one.`);
    return false;
  }
};
const unmount = () => execFileSync('umount', ['-l', directory]);

describe('file_roll, when it cannot write', () => {
  it('says that the directory is missing, and goes on once it is there', async () => {
    const missing = join(directory, 'not', 'there');
    const { put, time, log, logged, sink } = opened({ directory: missing });
    await logged(/opening failed/);
    expect(log.entries.at(-1)!.message).toContain(`cannot write to ${missing}: ENOENT`);
    expect(log.entries.at(-1)!.message).toContain(
      'Create the directory, or set another `directory` (`sink.directory`).',
    );
    expect(sink.trouble).toMatchObject({ code: 'MR_IO' });
    const acked = put(text('a'));
    fs.mkdirSync(missing, { recursive: true });
    await time.advance(1000);
    expect(await acked).toBe('acked');
    expect(Object.values(await content(missing))).toEqual(['a\n']);
  });

  it('says that it is no directory', async () => {
    const file = join(directory, 'file');
    await writeFile(file, '');
    const { log, logged } = opened({ directory: file });
    await logged(/opening failed/);
    expect(log.entries.at(-1)!.message).toContain(`${file} is not a directory`);
  });

  it('says that it may not write there', async context => {
    if (process.platform === 'win32') context.skip('file modes of POSIX only');
    // Root may write wherever the file system can be written to.
    const root = process.getuid?.() === 0;
    if (root && !mounted('ro')) context.skip('cannot mount a tmpfs');
    if (!root) await chmod(directory, 0o555);
    try {
      const { log, logged } = opened();
      await logged(/opening failed/);
      const [code, advice] = root ? ['EROFS', 'The file system is read-only'] : ['EACCES', 'Let this user write there'];
      expect(log.entries.at(-1)!.message).toContain(`cannot write to ${directory}: ${code}`);
      expect(log.entries.at(-1)!.message).toContain(advice);
    } finally {
      if (root) unmount();
      else await chmod(directory, 0o755);
    }
  });

  /** Lets only so many bytes through, then fails; a write at the edge is a short one. */
  const full = (room: number) => {
    const real = fs.writev;
    const disk = { room, failed: 0 };
    vi.spyOn(fs, 'writev').mockImplementation(((
      fd: number,
      pieces: readonly Buffer[],
      position: number,
      done: Done,
    ) => {
      if (disk.room === 0) {
        disk.failed++;
        setImmediate(done, Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' }));
        return;
      }
      const some = Buffer.concat(pieces).subarray(0, disk.room);
      disk.room -= some.length;
      real(fd, [some], position, done);
    }) as typeof fs.writev);
    return disk;
  };

  it('takes half a batch back, waits for room, and writes it once', async () => {
    const disk = full(5);
    const { put, time, counters, log } = opened({ rollInterval: 0 });
    expect(await put(text('a'))).toBe('acked');
    const second = put(text('bb', 'cc', 'dd'));
    for (let failures = 1; failures < 4; failures++) {
      while (counters()['EventWriteFail']! < failures) await new Promise(setImmediate);
      expect(Object.values(await content())).toEqual(['a\n']);
      expect(log.entries.at(-1)!.message).toMatch(
        /a write failed, trying again in \d+ ms: cannot write to .*-1: ENOSPC.*The disk is full\. It goes on/,
      );
      disk.room = failures;
      await time.advance(60_000);
    }
    disk.room = 1000;
    // An attempt may be on its way to the disk; if it fails its retry waits for time to pass.
    let settled: Settled | undefined;
    void second.then(how => (settled = how));
    while (settled === undefined) {
      await time.advance(60_000);
      await new Promise(setImmediate);
    }
    expect(settled).toBe('acked');
    expect(await put(text('e'))).toBe('acked');
    expect(Object.values(await content())).toEqual(['a\nbb\ncc\ndd\ne\n']);
  });

  it('writes the rest after a short write', async () => {
    const real = fs.writev;
    vi.spyOn(fs, 'writev').mockImplementation(((fd: number, pieces: readonly Buffer[], position: number, done: Done) =>
      real(fd, [Buffer.concat(pieces).subarray(0, 3)], position, done)) as typeof fs.writev);
    const { put } = opened();
    await put(text('first', 'second'));
    await put(text('third'));
    expect(Object.values(await content())).toEqual(['first\nsecond\nthird\n']);
  });

  it('leaves no half batch behind when it is given up', async () => {
    const disk = full(5);
    const { put, flow } = opened({ retry: { attempts: 1 } });
    await put(text('a'));
    const second = put(text('bb', 'cc'));
    while (disk.failed === 0) await new Promise(setImmediate);
    flow.abort();
    await flow.done.catch(() => undefined);
    expect(await second).toBe('released');
    expect(Object.values(await content())).toEqual(['a\n']);
  });

  it('and not when taking it back fails at first', async () => {
    const disk = full(2);
    const { put, handles, time, counters, flow } = watched({ rollInterval: 0 });
    await put(text('a'));
    const [handle] = await handles();
    const truncate = vi.spyOn(handle!, 'truncate').mockRejectedValueOnce(new Error('EIO'));
    disk.room = 4;
    const second = put(text('bb', 'cc'));
    while (counters()['EventWriteFail'] === 0) await new Promise(setImmediate);
    expect(Object.values(await content())).toEqual(['a\nbb\nc']);
    disk.room = 100;
    await time.advance(60_000);
    expect(await second).toBe('acked');
    expect(truncate).toHaveBeenCalledTimes(2);
    await put(text('d'));
    expect(truncate).toHaveBeenCalledTimes(2);
    expect(Object.values(await content())).toEqual(['a\nbb\ncc\nd\n']);
    // Nor at the end.
    disk.room = 1;
    truncate.mockRejectedValueOnce(new Error('EIO'));
    void put(text('ee'));
    while (disk.failed < 2) await new Promise(setImmediate);
    while (truncate.mock.calls.length < 3) await new Promise(setImmediate);
    flow.abort();
    await flow.done.catch(() => undefined);
    expect(Object.values(await content())).toEqual(['a\nbb\ncc\nd\n']);
  });

  it('tries again when no byte is taken, without an error', async () => {
    const { put, counters, time } = opened();
    vi.spyOn(fs, 'writev').mockImplementationOnce((...given: unknown[]) => {
      const done = given.at(-1) as (cause: null, written: number) => void;
      setImmediate(done, null, 0);
    });
    const acked = put(text('a'));
    while (counters()['EventWriteFail'] === 0) await new Promise(setImmediate);
    await time.advance(60_000);
    expect(await acked).toBe('acked');
    expect(Object.values(await content())).toContain('a\n');
  });

  it('tells about a file that does not close, and goes on', async () => {
    const { put, time, counters, logged, handles } = watched();
    await put(text('a'));
    const [handle] = (await handles()) as [fs.promises.FileHandle];
    const close = handle.close.bind(handle);
    vi.spyOn(handle, 'close').mockImplementation(async () => {
      await close();
      throw new Error('EIO: i/o error, close');
    });
    await time.advance(30_000);
    await logged(/EIO/);
    expect(await put(text('b'))).toBe('acked');
    expect(counters()).toMatchObject({ ConnectionCreatedCount: 2, EventWriteFail: 0 });
  });

  test('whatever the disk does, files hold the acked batches, once and in order', async () => {
    const steps = fc.array(
      fc.record({ bodies: fc.array(fc.nat(99), { minLength: 1, maxLength: 4 }), room: fc.nat(12) }),
      {
        minLength: 1,
        maxLength: 8,
      },
    );
    await fc.assert(
      fc.asyncProperty(steps, fc.nat(10), async (batches, rollSize) => {
        const inner = await mkdtemp(join(directory, 'run-'));
        const disk = full(0);
        const { put, time, flow, counters } = opened({ directory: inner, rollSize });
        const expected: string[] = [];
        for (const { bodies, room } of batches) {
          disk.room = room;
          const settled = put(text(...bodies.map(String)));
          const before = counters()['EventDrainSuccessCount']!;
          for (let turns = 0; counters()['EventDrainSuccessCount'] === before; turns++) {
            await new Promise(setImmediate);
            if (turns % 20 === 19) {
              disk.room += 6;
              await time.advance(30_000);
            }
          }
          expect(await settled).toBe('acked');
          expected.push(...bodies.map(body => `${body}\n`));
        }
        await flow.stop();
        const names = (await readdir(inner)).sort((a, b) => Number(a.split('-')[1]) - Number(b.split('-')[1]));
        const written = await Promise.all(names.map(name => readFile(join(inner, name), 'utf8')));
        expect(written.join('')).toBe(expected.join(''));
        vi.restoreAllMocks();
      }),
      { numRuns: 30 },
    );
  });

  it('a real full disk loses nothing that was acked, and doubles nothing', async context => {
    if (!mounted('size=64k')) context.skip('cannot mount a tmpfs');
    try {
      const { put, time, counters, log } = opened({ rollInterval: 0, rollSize: 16_384 });
      const expected: string[] = [];
      let waiting: Promise<Settled> | undefined;
      for (let i = 0; waiting === undefined; i++) {
        const bodies = Array.from({ length: 7 }, (_, k) => `${i} ${k} ${'x'.repeat(500)}`);
        const settled = put(text(...bodies));
        const settledOrFailed = () =>
          counters()['EventDrainSuccessCount']! > i * 7 || counters()['EventWriteFail']! > 0;
        while (!settledOrFailed()) await new Promise(setImmediate);
        expected.push(...bodies.map(body => `${body}\n`));
        if (counters()['EventWriteFail']! > 0) waiting = settled;
      }
      expect(log.entries.at(-1)!.message).toContain('The disk is full.');
      const acked = expected.slice(0, -7).join('');
      const names = async () => (await readdir(directory)).sort();
      const all = async () =>
        (await Promise.all((await names()).map(name => readFile(join(directory, name), 'utf8')))).join('');
      expect(await all()).toBe(acked);
      // Somebody makes room.
      const [oldest] = await names();
      const removed = await readFile(join(directory, oldest!), 'utf8');
      await rm(join(directory, oldest!));
      await time.advance(60_000);
      expect(await waiting).toBe('acked');
      expect(removed + (await all())).toBe(expected.join(''));
    } finally {
      for (const flow of flows.splice(0)) await flow.stop();
      unmount();
    }
  });
});
