/** A log as a test wants it, on a disk in memory, and ways to damage it. */
import { Batch, event, headers } from '../../src/core/event.ts';
import type { Disk } from '../../src/core/disk.ts';
import { Codec, type CodecOptions } from '../../src/log/codec.ts';
import { inspectLog, isGap, readThrough, type Gap, type LogSurvey } from '../../src/log/inspect.ts';
import { EventLog, type LogOptions } from '../../src/log/log.ts';
import { LogReader } from '../../src/log/reader.ts';
import { FakeClock } from '../../src/testing/fake-clock.ts';
import { seededRandom } from '../../src/testing/seeded-random.ts';
import { CrashDisk } from '../crash/crash-disk.ts';

export const plain = new Codec({ compression: 'none', activeKey: undefined, keys: {} });
export const codecWith = (options: Partial<CodecOptions>): Codec =>
  new Codec({ compression: 'none', activeKey: undefined, keys: {}, ...options });

export const optionsOf = (more: Partial<LogOptions> = {}): LogOptions => ({
  dataDirs: ['/log'],
  checkpointDir: '/log',
  fsync: 'commit',
  maxFileSize: 4096,
  minimumRequiredSpace: 0,
  checkpointInterval: 30_000,
  codec: plain,
  ...more,
});

export const context = (disk: Disk, report: (problem: Error) => void = () => undefined) => ({
  disk,
  clock: new FakeClock(),
  report,
});

export const bodyOf = (n: number): string => `event ${n} ${'.'.repeat(n % 50)}`;

const put = (log: EventLog, batch: Batch): Promise<unknown> =>
  new Promise((resolve, reject) => log.append(batch, resolve, reject));

/** Batches of ten events, of which some are done with. */
export const writeLog = async (
  disk: Disk,
  {
    batches = 40,
    done = [] as readonly number[],
    ...more
  }: { batches?: number; done?: readonly number[] } & Partial<LogOptions> = {},
): Promise<void> => {
  const log = await EventLog.open(optionsOf(more), context(disk));
  for (let i = 0; i < batches; i++) {
    const events = Array.from({ length: 10 }, (_, k) => event(bodyOf(i * 10 + k), headers({ batch: String(i) })));
    // Two sources in turn, and how far they have come.
    await put(log, Batch.of(events).upTo({ key: `source ${i % 2}`, value: String(i) }));
  }
  if (done.length > 0) {
    const reader = new LogReader(log, disk);
    for (const batch of await reader.read(Infinity))
      for (const { first, count } of batch.positions!)
        if (done.includes(first / 10)) log.done({ start: first, end: first + count, bytes: batch.byteLength });
    await reader.close();
  }
  await log.close();
};

export const newDisk = (seed = 1): CrashDisk => new CrashDisk(seededRandom(seed));

export const survey = (disk: Disk, more: Partial<LogOptions> = {}): Promise<LogSurvey> => {
  const options = optionsOf(more);
  return inspectLog(disk, options, options.codec!);
};

/** Everything that can be read, and what cannot. */
export const readAll = async (disk: Disk, more: Partial<LogOptions> = {}) => {
  const log = await survey(disk, more);
  const gaps: Gap[] = [];
  const bodies: string[] = [];
  for await (const found of readThrough(disk, log, more.codec ?? plain)) {
    if (isGap(found)) gaps.push(found);
    else bodies.push(...(found.batch?.events ?? []).map(({ body }) => body.toString()));
  }
  return { log, gaps, bodies };
};

/** What the channel would deliver, and what it would report. */
export const deliver = async (disk: Disk, more: Partial<LogOptions> = {}) => {
  const reports: string[] = [];
  const log = await EventLog.open(
    optionsOf(more),
    context(disk, problem => void reports.push(problem.message)),
  );
  const reader = new LogReader(log, disk);
  const bodies: string[] = [];
  while (reader.seq < log.end)
    for (const batch of await reader.read(Infinity)) bodies.push(...batch.events.map(({ body }) => body.toString()));
  await reader.close();
  const { LostEventCount: lost, TornByteCount: torn } = log.counters;
  const offsets = Object.fromEntries(log.offsets);
  await log.close();
  return { bodies, reports, lost, torn, offsets };
};

/** The segments of a disk, by number. */
export const segmentsOf = (disk: CrashDisk): string[] =>
  [...disk.files.keys()].filter(path => path.endsWith('.seg')).sort();

/** Turns one bit over. */
export const flip = (disk: CrashDisk, path: string, byte: number, bit = 0): void => {
  const bytes = Buffer.from(disk.files.get(path)!);
  bytes[byte]! ^= 1 << bit;
  disk.put(path, bytes);
};

/** Cuts a file off. */
export const cut = (disk: CrashDisk, path: string, length: number): void =>
  disk.put(path, Buffer.from(disk.files.get(path)!.subarray(0, length)));

export const bodies = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, i) => bodyOf(from + i));
