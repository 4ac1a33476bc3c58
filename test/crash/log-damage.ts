/**
 * Damage to a log that lies still: bits flipped, sectors overwritten, files cut or gone. What is left must come out as it was
 * put, and what is missing must be named.
 *
 * @module
 */
import { reseed } from './determinism.ts';
import { setImmediate as turn } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Batch, FlumeEvent } from '../../src/core/event.ts';
import type { EventLog, LogOptions } from '../../src/log/log.ts';
import { FakeClock, seededRandom } from '../../src/testing/index.ts';
import { CrashDisk, pick, type Random } from './crash-disk.ts';
import { drain, randomBatch, randomCodec, same, settled, sizeOf, type Subject } from './log-lab.ts';

const damagesPerLog = 15;

/** Where a batch is. */
interface Put {
  readonly path: string;
  readonly from: number;
  to: number;
  readonly first: number;
  readonly end: number;
}

interface Written {
  readonly disk: CrashDisk;
  readonly options: LogOptions;
  readonly events: readonly FlumeEvent[];
  readonly done: ReadonlySet<number>;
  readonly puts: readonly Put[];
  /** The puts from here on may be of the last group, and no checkpoint says that it was confirmed. */
  readonly ambiguous: number;
}

const open = (
  subject: Subject,
  disk: CrashDisk,
  options: LogOptions,
  reports: (Error & { code?: string })[] = [],
): Promise<EventLog> =>
  settled(
    subject.EventLog.open(options, { disk, clock: new FakeClock(), report: problem => reports.push(problem) }),
    'open',
  );

const append = (log: EventLog, batch: Batch): Promise<Put> =>
  new Promise((resolve, reject) => {
    log.append(
      batch,
      ({ seq, segment, offset }) =>
        resolve({ path: segment.path, from: offset, to: Infinity, first: seq, end: seq + batch.length }),
      reject,
    );
  });

/** A log of a few segments, some events done with, closed or killed when nothing was under way. */
const write = async (subject: Subject, random: Random): Promise<Written> => {
  const disk = new CrashDisk(random);
  const codec = randomCodec(random);
  const options: LogOptions = {
    dataDirs: random() < 0.3 ? ['/a', '/ab'] : ['/a'],
    checkpointDir: '/c',
    fsync: 'commit',
    maxFileSize: pick(random, [1000, 5000, 20_000]),
    minimumRequiredSpace: 0,
    checkpointInterval: 1000,
    ...(codec !== undefined && { codec }),
  };
  const log = await open(subject, disk, options);
  const events: FlumeEvent[] = [];
  const done = new Set<number>();
  const puts: Put[] = [];
  let ambiguous = 0;
  for (let rounds = 2 + Math.floor(random() * 6); rounds > 0; rounds--) {
    const batches = Array.from({ length: 1 + Math.floor(random() * 5) }, () => randomBatch(random));
    for (const batch of batches) events.push(...batch.events);
    ambiguous = puts.length;
    puts.push(...(await settled(Promise.all(batches.map(batch => append(log, batch))), 'puts')));
    for (let tries = Math.floor(random() * 4); tries > 0; tries--) {
      const start = random() < 0.6 ? log.start : Math.floor(random() * events.length);
      const bytes = sizeOf(events[start] ?? (events[0] as FlumeEvent));
      if (start >= events.length || done.has(start)) continue;
      done.add(start);
      log.done({ start, end: start + 1, bytes });
    }
  }
  for (const [i, put] of puts.entries()) {
    const next = puts[i + 1];
    put.to = next?.path === put.path ? next.from : (disk.files.get(put.path)?.length ?? 0);
  }
  await turn();
  if (random() < 0.3) return { disk: disk.kill(random), options, events, done, puts, ambiguous };
  await settled(log.close(), 'close');
  return { disk, options, events, done, puts, ambiguous: puts.length };
};

/** What was done to a file, and which of its bytes cannot be trusted. */
interface Damage {
  readonly what: string;
  readonly path: string;
  readonly from: number;
  readonly to: number;
}

const damage = (random: Random, disk: CrashDisk): Damage => {
  const paths = [...disk.files.keys()].filter(path => path.endsWith('.seg') || path.endsWith('.checkpoint')).sort();
  const path = pick(random, paths);
  const bytes = Buffer.from(disk.files.get(path) as Buffer);
  const at = Math.floor(random() * bytes.length);
  const kind = pick(random, ['bit', 'bit', 'sector', 'cut', 'gone'] as const);
  switch (kind) {
    case 'bit':
      bytes[at] = (bytes[at] as number) ^ (1 << Math.floor(random() * 8));
      disk.put(path, bytes);
      return { what: `a bit of byte ${at} of ${path} is flipped`, path, from: at, to: at + 1 };
    case 'sector': {
      const from = at - (at % 512);
      bytes.subarray(from, from + 512).fill(random() < 0.5 ? 0 : 0xa5);
      disk.put(path, bytes);
      return { what: `the sector at ${from} of ${path} is overwritten`, path, from, to: from + 512 };
    }
    case 'cut':
      disk.put(path, bytes.subarray(0, at));
      return { what: `${path} is cut at ${at}`, path, from: at, to: Infinity };
    case 'gone':
      disk.take(path);
      return { what: `${path} is gone`, path, from: 0, to: Infinity };
  }
};

/** Numbers of events that may be missing: those of frames that were hit, all of a segment whose header was. */
const mayMiss = ({ puts }: Written, { path, from, to }: Damage): Put[] =>
  puts.filter(put => put.path === path && (from < 128 || (put.to > from && put.from < to)));

const numbersOf = (puts: readonly Put[]): Set<number> =>
  new Set(puts.flatMap(({ first, end }) => Array.from({ length: end - first }, (_, i) => first + i)));

const inspect = async (subject: Subject, written: Written, random: Random, sights: Set<string>): Promise<void> => {
  const disk = written.disk.kill(random);
  const hit = damage(random, disk);
  const { options, events, done, puts } = written;
  const toCheckpoint = hit.path.endsWith('.checkpoint');
  const struck = mayMiss(written, hit);
  // The end of the last group may be what a crash left of a put: it goes without a word. So does all up to the end of the log,
  // if it was not closed and no checkpoint says how far it went.
  const begin = struck.at(-1) === puts.at(-1) && written.ambiguous < puts.length ? 0 : written.ambiguous;
  const unsure = puts.slice(Math.max(begin, puts.indexOf(struck[0] ?? (puts[0] as Put))));
  const silent = struck.some(put => unsure.includes(put));
  const allowed = numbersOf(silent ? [...struck, ...unsure] : struck);
  const reports: (Error & { code?: string })[] = [];
  try {
    const log = await open(subject, disk, options, reports);
    const reader = new subject.LogReader(log, disk);
    const delivered = await settled(drain(reader), 'draining');
    const missing: number[] = [];
    for (const [number, event] of events.entries()) {
      const own = delivered.get(number);
      if (own !== undefined) expect(same(own, event), `event ${number} is as it was put`).toBe(true);
      if (own === undefined && !done.has(number)) missing.push(number);
      // Nothing says any more that it was done with when the checkpoint is gone.
      if (own !== undefined && done.has(number)) expect(toCheckpoint, `event ${number} was done with`).toBe(true);
    }
    expect(missing.filter(number => !allowed.has(number))).toEqual([]);
    const lost = reports.filter(({ code }) => code === 'MR_DATA_LOST');
    const unsaid = silent ? numbersOf(unsure) : new Set<number>();
    const said = missing.filter(number => !unsaid.has(number));
    if (silent) sights.add('the last group is hit');
    expect(log.counters.LostEventCount).toBeGreaterThanOrEqual(said.length);
    expect(log.counters.LostEventCount).toBeLessThanOrEqual(missing.length);
    if (missing.length === 0) expect(lost).toEqual([]);
    for (const number of said)
      expect(
        lost.some(({ message }) => names(message, number)),
        `event ${number} is named`,
      ).toBe(true);
    expect(log.events).toBe(delivered.size);
    const bytes = [...delivered.values()].reduce((sum, event) => sum + sizeOf(event), 0);
    // Of a part of a batch that was damaged nobody knows the bytes.
    if (![...allowed].some(number => done.has(number))) expect(log.bytes).toBe(bytes);
    if (missing.length > 0) sights.add(`lost: ${hit.what.replace(/\d+|\/\S*/g, '')}`);
    else sights.add(`nothing lost: ${toCheckpoint ? 'checkpoint' : 'segment'}`);

    // It goes on: what is put then comes out, what is damaged is kept, and nothing is said twice.
    const more = randomBatch(random);
    await settled(append(log, more), 'a put');
    const after = await settled(drain(reader), 'draining');
    expect([...after.values()].every((event, i) => same(event, more.events[i] as FlumeEvent))).toBe(true);
    expect(after.size).toBe(more.length);
    await settled(reader.close(), 'closing the reader');
    await settled(log.close(), 'close');
    const again: (Error & { code?: string })[] = [];
    const reopened = await open(subject, disk, options, again);
    expect(again.filter(({ code }) => code === 'MR_DATA_LOST')).toEqual([]);
    expect(reopened.events).toBe(delivered.size + more.length);
    const all = await settled(drain(new subject.LogReader(reopened, disk)), 'draining');
    expect([...all.keys()]).toEqual([...delivered.keys(), ...after.keys()]);
    for (const [number, event] of all)
      expect(same(event, (delivered.get(number) ?? after.get(number)) as FlumeEvent)).toBe(true);
  } catch (thrown) {
    throw new Error(
      `${hit.what}\n${[...written.disk.files].map(([path, { length }]) => `${path} ${length}`).join(', ')}\n` +
        `${puts.map(({ path, from, to, first, end }) => `  ${first}-${end - 1}: ${path} ${from}-${to}`).join('\n')}\n` +
        `done: ${[...done].join()}\nreports: ${reports.map(({ message }) => message).join('\n')}\n${(thrown as Error).stack ?? ''}`,
      { cause: thrown },
    );
  }
};

/** Whether a message says that this event is missing. */
const names = (message: string, number: number): boolean => {
  const [, from, to] = /numbers (\d+) to (\d+)/.exec(message) ?? [];
  return Number(from) <= number && number <= Number(to);
};

/** Writes the log of a seed, and looks what becomes of it after each of several damages. */
export const playDamage = async (seed: number, subject: Subject, sights = new Set<string>()): Promise<void> => {
  const random = seededRandom(seed);
  reseed(seed);
  const written = await write(subject, random);
  for (let i = 0; i < damagesPerLog; i++) await inspect(subject, written, random, sights);
};
