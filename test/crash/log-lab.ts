/**
 * Random histories of a log on a disk that crashes. A seed decides everything: what is put and done with, what fails, where it
 * crashes and what is left then. Each image is opened, drained, and compared with the truth.
 *
 * @module
 */
import { reseed } from './determinism.ts';
import { setImmediate as turn } from 'node:timers/promises';
import zlib from 'node:zlib';
import { Batch, headers, noHeaders, type FlumeEvent, type Headers, type SourceOffset } from '../../src/core/event.ts';
import { Codec } from '../../src/log/codec.ts';
import type { EventLog, Fsync, LogOptions, Place } from '../../src/log/log.ts';
import type { LogReader } from '../../src/log/reader.ts';
import { FakeClock, seededRandom } from '../../src/testing/index.ts';
import { CrashDisk, pick, type Operation, type Random } from './crash-disk.ts';

/** The log under test: the real one, or one with a fault planted. */
export interface Subject {
  readonly EventLog: typeof EventLog;
  readonly LogReader: typeof LogReader;
}

/** Things that must have happened at least once in a run, or it proves little. */
export const sights = [
  'kill',
  'power cut',
  'torn tail',
  'put that was not confirmed is there',
  'put that failed is there',
  'done events come again',
  'crash while opening',
  'crash while opening after a crash while opening',
  'crash while closing',
  'open fails',
  'put fails',
  'full disk',
  'read-only disk',
  'too little free space',
  'sync fails',
  'directory sync fails',
  'checkpoint fails',
  'file used again',
  'rename lost',
  'both names of a rename',
  'damaged slot',
  'several segments',
  'several directories',
  'several lives',
  'live read',
  'hole that is reported',
  'several puts in a frame',
  'read from the middle of a frame',
] as const;
export type Sight = (typeof sights)[number];

export class Broken extends Error {}

const ensure: (holds: boolean, what: () => string) => asserts holds = (holds, what) => {
  if (!holds) throw new Broken(what());
};

/** Waits for it. The disk takes turns, no time: who is not through after all of them never will be. */
export const settled = async <R>(promise: Promise<R>, what: string): Promise<R> => {
  const state = { over: false };
  const end = () => (state.over = true);
  promise.then(end, end);
  for (let turns = 0; turns < 10 && !state.over; turns++) await turn();
  ensure(state.over, () => `stuck: ${what}`);
  return promise;
};

export const sizeOf = (event: FlumeEvent): number => Batch.of([event]).byteLength;

export const same = (a: FlumeEvent, b: FlumeEvent): boolean =>
  a.body.equals(b.body) &&
  (a.headers === b.headers || JSON.stringify(Object.entries(a.headers)) === JSON.stringify(Object.entries(b.headers)));

/** What is in a log. */
interface Truths {
  readonly events: readonly FlumeEvent[];
  readonly done: readonly number[];
  readonly offsets: ReadonlyMap<string, string>;
}

/** What has happened so far, as the one who puts and takes knows it. */
class Truth {
  /** Confirmed events, by number. */
  readonly events: FlumeEvent[];
  /** How far sources had come, and behind which number that was put. */
  readonly offsets: (SourceOffset & { readonly end: number })[];
  /** When each was done with, by number. */
  readonly doneAt: number[] = [];
  /** Where those of this life are. */
  readonly places: Place[] = [];
  /** After a sync that failed something was reported to be lost: what of it is done with is known to the log only. */
  told = false;
  /** Asked for and not answered, in order. */
  pending: Batch[] = [];
  /** Failed together, and nothing was confirmed since: a crash may bring them back. */
  failed: Batch[][] = [];
  moment = 0;
  /** The last moment whose checkpoint was written, and the last one whose was synced. */
  written = 0;
  synced = 0;
  /** Confirmed events that a sync made safe, where not every commit is synced. */
  safe = 0;

  constructor({ events, done, offsets }: Truths) {
    this.events = [...events];
    this.offsets = [...offsets].map(([key, value]) => ({ key, value, end: 0 }));
    for (const number of done) this.doneAt[number] = 0;
    this.safe = events.length;
  }

  confirm(batch: Batch): void {
    ensure(this.pending[0] === batch, () => 'order: a put was confirmed before one that was asked for earlier');
    this.pending.shift();
    this.failed = [];
    this.events.push(...batch.events);
    if (batch.sourceOffset !== undefined) this.offsets.push({ ...batch.sourceOffset, end: this.events.length });
  }

  fail(batch: Batch): void {
    if (this.failed.at(-1)?.includes(batch) === true) return;
    ensure(this.pending.includes(batch), () => 'a put was answered twice');
    this.failed.push(this.pending);
    this.pending = [];
  }

  isDone(number: number, moment = Infinity): boolean {
    const at = this.doneAt[number];
    return at !== undefined && at <= moment;
  }
}

/** What is known at the moment of a crash. */
interface Known {
  readonly truth: Truth;
  /** A power cut, or only the end of the process. */
  readonly cut: boolean;
  readonly confirmed: number;
  /** Batches that may be there besides, in order: some of the first ones of one of these. */
  readonly maybe: readonly (readonly Batch[])[];
  readonly moment: number;
  readonly written: number;
  readonly synced: number;
  readonly safe: number;
  readonly trace: readonly string[];
}

interface Image {
  readonly disk: CrashDisk;
  readonly known: Known;
  readonly depth: number;
}

/** What opening an image has brought, and the disk then. */
interface Found extends Truths {
  readonly disk: CrashDisk;
  /** A power cut may have damaged what was not synced, and the log has seen it or not. */
  readonly doubtful: boolean;
  /** It has. What follows from that is known to the log only. */
  readonly damaged: boolean;
}

interface Setting {
  readonly options: LogOptions;
  /** Calls that may fail in this run: all at once would hide what one does. */
  readonly faults: readonly Operation['name'][];
  readonly trouble: number;
  readonly uniform: boolean;
  /** Events are done with one by one, all over the place: many ranges. */
  readonly scattered: boolean;
}

const callsThatFail: readonly Operation['name'][] = [
  'open',
  'write',
  'sync',
  'truncate',
  'rename',
  'remove',
  'syncDirectory',
  'read',
  'list',
  'size',
  'close',
];

/** test/integration/newer-node.test.ts plays histories with a Node.js that has it. */
const hasZstd = 'zstdCompress' in zlib;

process.env['CRASH_KEY'] = '5ec2e7'.padEnd(64, '0');

export const randomCodec = (random: Random): Codec | undefined => {
  const compression = random() >= 0.2 ? 'none' : hasZstd && random() < 0.5 ? 'zstd' : 'gzip';
  const activeKey = random() < 0.2 ? 'k' : undefined;
  // Not given is as good as none, and both are possible.
  if (compression === 'none' && activeKey === undefined && random() < 0.5) return undefined;
  return new Codec({ compression, activeKey, keys: { k: 'env:CRASH_KEY' } });
};

const settingOf = (random: Random): Setting => {
  const codec = randomCodec(random);
  const dataDirs = random() < 0.3 ? ['/a', '/ab'] : ['/a'];
  const options: LogOptions = {
    dataDirs,
    checkpointDir: random() < 0.5 ? '/a' : '/c',
    fsync: random() < 0.75 ? 'commit' : pick<Fsync>(random, ['never', { interval: 50 }]),
    maxFileSize: pick(random, [1000, 4000, 15_000]),
    minimumRequiredSpace: 1000,
    checkpointInterval: 1000,
    ...(codec !== undefined && { codec }),
  };
  const trouble = random() < 0.4 ? 0 : pick(random, [0.03, 0.1]);
  return {
    options,
    trouble,
    uniform: random() < 0.25,
    scattered: random() < 0.15,
    faults: callsThatFail.filter(() => random() < 0.4),
  };
};

const shared = headers({ host: 'a', path: '/var/log/a.log' });
const odd: readonly Headers[] = [
  noHeaders,
  shared,
  headers({ __proto__x: 'y', '': '', ключ: 'значение', lone: 'a\ud800b' }),
];

let serial = 0;

const randomEvent = (random: Random): FlumeEvent => {
  const size = random() < 0.1 ? 0 : Math.floor(random() ** 4 * 3000);
  const body = Buffer.alloc(size, `${serial++};`);
  return { body, headers: random() < 0.1 ? headers({ n: String(serial) }) : pick(random, odd) };
};

/** As large as any other, so that frames of a file's former life lie where frames of the next one would. */
const uniformBatch = (): Batch => Batch.of([{ body: Buffer.alloc(64, `${serial++};`), headers: noHeaders }]);

export const randomBatch = (random: Random): Batch => {
  const count = 1 + Math.floor(random() ** 2 * 20);
  const events = Array.from({ length: count }, () => randomEvent(random));
  if (random() < 0.5) return Batch.of(events);
  const ends = new Uint32Array(count);
  let end = -1;
  for (const [i, { body }] of events.entries()) ends[i] = end += body.length + 1;
  const newline = Buffer.from('\n');
  return Batch.ofBlock({
    bytes: Buffer.concat(events.flatMap(({ body }) => [body, newline])),
    ends,
    headers: pick(random, odd),
  });
};

/** What was read, by number. */
type Delivered = Map<number, FlumeEvent>;

const take = (batches: readonly Batch[], delivered: Delivered): void => {
  let last = [...delivered.keys()].at(-1) ?? -1;
  for (const batch of batches) {
    const [place] = batch.positions ?? [];
    ensure(place?.count === batch.length, () => 'a batch does not know where it is');
    for (const [i, event] of batch.events.entries()) {
      const number = place.first + i;
      ensure(number > last, () => `order: event ${number} came after event ${last}`);
      delivered.set(number, event);
      last = number;
    }
  }
};

export const drain = async (reader: LogReader): Promise<Delivered> => {
  const delivered: Delivered = new Map();
  for (;;) {
    const batches = await reader.read(20_000);
    if (batches.length === 0) return delivered;
    take(batches, delivered);
  }
};

/** One seed's history. */
export class Lab {
  readonly seen = new Set<Sight>();
  images = 0;
  /** What happened, line by line. */
  readonly trace: string[] = [];
  readonly #subject: Subject;
  readonly #random: Random;
  readonly #setting: Setting;
  #images: Image[] = [];
  #broken: Error | undefined;
  #doubtful = false;
  #lifeAt = 0;
  /** Of what a source has read at once, what it has not put yet. */
  #pieces: Batch[] = [];

  constructor(seed: number, subject: Subject) {
    this.#subject = subject;
    this.#random = seededRandom(seed);
    this.#setting = settingOf(this.#random);
    serial = 0;
    reseed(seed);
  }

  /** Up to three lives, one after the other; each continues where a crash has left the one before. */
  async run(): Promise<void> {
    const random = this.#random;
    if (this.#setting.options.dataDirs.length > 1) this.seen.add('several directories');
    let found: Found = {
      disk: new CrashDisk(random),
      events: [],
      done: [],
      offsets: new Map(),
      doubtful: false,
      damaged: false,
    };
    const lives = 1 + Math.floor(random() * 3);
    for (let life = 1; life <= lives; life++) {
      if (life > 1) this.seen.add('several lives');
      this.#images = [];
      this.#pieces = [];
      this.#lifeAt = this.trace.push(`life ${life}`);
      try {
        await this.#live(found);
      } catch (thrown) {
        throw new Broken(`${(thrown as Error).stack ?? ''}\n${this.trace.slice(-80).join('\n')}`, { cause: thrown });
      }
      const all: Found[] = [];
      // More are added while these are looked at: crashes of the opening.
      for (const image of this.#images) {
        try {
          all.push(await this.#inspect(image));
        } catch (thrown) {
          throw new Broken(`${(thrown as Error).stack ?? ''}\n${describeImage(image)}`, { cause: thrown });
        }
      }
      const sound = all.filter(({ disk, damaged }) => !disk.doubtful && !damaged);
      if (sound.length === 0) return;
      found = pick(random, sound);
      this.#doubtful = found.doubtful;
    }
  }

  // --- one life

  async #live({ disk, ...before }: Found): Promise<void> {
    const random = this.#random;
    const truth = new Truth(before);
    const clock = new FakeClock();
    const state = { phase: 'opening' };
    this.#watch(disk, truth, () => state.phase);
    const { options, trouble } = this.#setting;

    let log: EventLog | undefined;
    if (random() < trouble * 3) this.#break(disk);
    try {
      log = await settled(this.#open(disk, clock, truth), 'open');
    } catch (thrown) {
      if (thrown instanceof Broken || (disk.fault === undefined && !disk.readOnly && disk.capacity === Infinity))
        throw thrown;
      this.seen.add('open fails');
      ensure(disk.opened.size === 0, () => `${disk.opened.size} files are still open after open has failed`);
    }
    if (log === undefined) {
      this.#heal(disk);
      log = await settled(this.#open(disk, clock, truth), 'open');
    }
    state.phase = 'running';

    let reader = new this.#subject.LogReader(log, disk);
    const read: Delivered = new Map();
    const running = log;
    /** Reading may overlap with everything, but not with itself. */
    let reading = Promise.resolve();
    const readSome = () => {
      reading = reading.then(async () => {
        try {
          take(await reader.read(1 + Math.floor(random() * 3000)), read);
          if (read.size > 0) this.seen.add('live read');
        } catch (thrown) {
          if (thrown instanceof Broken) throw thrown;
          // Whoever reads begins anew.
          this.trace.push(`reading fails: ${(thrown as Error).message}`);
          await reader.close().catch(() => undefined);
          reader = new this.#subject.LogReader(running, disk);
          read.clear();
        }
      });
      reading.catch(() => undefined);
    };

    const actions = (this.#setting.scattered ? 25 : 5) + Math.floor(random() * 25);
    for (let i = 0; i < actions; i++) {
      const kind = random();
      if (kind < 0.5) void this.#put(disk, log, truth);
      else if (kind < 0.75) this.#doneSome(log, truth);
      else if (kind < 0.85) readSome();
      else if (kind < 0.92) await clock.advance(pick(random, [10, 60, 1000]));
      else await turn();
      if (random() < trouble) this.#break(disk);
      else if (random() < 0.2) this.#heal(disk);
      for (let turns = Math.floor(random() * 30); turns > 0; turns--) await Promise.resolve();
    }

    this.#throwBroken();
    // When what was wrong is put right, it goes on.
    await settled(reading, 'reading');
    this.#heal(disk);
    await turn();
    let tries = 0;
    while (!(await settled(this.#put(disk, log, truth), 'a put')))
      ensure(++tries < 3, () => 'puts still fail though nothing is wrong any more');
    await clock.advance(2000);
    readSome();
    await settled(reading, 'reading');
    for (const [number, event] of await settled(drain(reader), 'draining')) read.set(number, event);
    for (const [number, event] of truth.events.entries()) {
      const own = read.get(number);
      if (own !== undefined)
        ensure(same(own, event), () => `invention: event ${number} was read otherwise than it was put`);
    }
    // A sync that failed may have cost what was confirmed before it; the log can only say so.
    const { fsync } = options;
    if (fsync === 'commit' || !disk.doubtful) {
      await settled(this.#readFrom(log, disk, truth), 'reading from a put on');
      this.#checkCounters(log, truth);
    }
    this.#throwBroken();

    state.phase = 'closing';
    await settled(reader.close(), 'closing the reader');
    await settled(log.close(), 'close');
    ensure(disk.opened.size === 0, () => `still open after close: ${[...disk.opened].map(({ path }) => path).join()}`);
    this.#crash(disk, truth, options.fsync === 'commit', 'closed');
    disk.asked = disk.happened = undefined;
  }

  #throwBroken(): void {
    if (this.#broken !== undefined) throw this.#broken;
  }

  #checkCounters(log: EventLog, truth: Truth): void {
    const held = truth.events.filter((_, number) => !truth.isDone(number));
    ensure(log.end === truth.events.length, () => `end is ${log.end}, and ${truth.events.length} were confirmed`);
    ensure(log.events === held.length, () => `events is ${log.events}, and ${held.length} are held`);
    const bytes = held.reduce((sum, event) => sum + sizeOf(event), 0);
    ensure(log.bytes === bytes, () => `bytes is ${log.bytes}, and ${bytes} are held`);
    ensure(log.counters.LostEventCount === 0, () => `${log.counters.LostEventCount} events are said to be lost`);
  }

  #open(disk: CrashDisk, clock: FakeClock, truth: Truth | undefined, reports: Error[] = []): Promise<EventLog> {
    return this.#subject.EventLog.open(this.#setting.options, {
      disk,
      clock,
      report: problem => {
        reports.push(problem);
        this.trace.push(`report: ${problem.message}`);
        const { fsync } = this.#setting.options;
        if (truth === undefined || !('code' in problem) || problem.code !== 'MR_DATA_LOST') return;
        if (fsync !== 'commit' && disk.doubtful) truth.told = true;
        else this.#broken ??= new Broken(`said to be lost, and it is not: ${problem.message}`);
      },
    });
  }

  /** True if it was confirmed, false if it failed. */
  #put(disk: CrashDisk, log: EventLog, truth: Truth): Promise<boolean> {
    const some = this.#setting.uniform ? uniformBatch() : this.#nextBatch();
    // Of some it is known how far their source had come.
    const value = String(serial++).padStart(6, '0');
    const isKnown = this.#setting.uniform || this.#random() < 0.4;
    const known = isKnown ? { key: pick(this.#random, ['s', 't']), value } : undefined;
    const batch = some.upTo(known);
    truth.pending.push(batch);
    this.trace.push(`put ${batch.length}`);
    return new Promise(resolve => {
      const answer = (act: () => boolean) => {
        try {
          resolve(act());
        } catch (thrown) {
          // Who calls back is not to blame, and need not pass it on.
          this.#broken ??= thrown as Error;
          resolve(false);
        }
      };
      const confirmed = (place: Place) =>
        answer(() => {
          ensure(
            place.seq === truth.events.length,
            () => `put at ${place.seq}, and ${truth.events.length} are before it`,
          );
          truth.confirm(batch);
          const before = truth.places.at(-1);
          if (place.segment === before?.segment && place.offset === before.offset)
            this.seen.add('several puts in a frame');
          truth.places.push(place);
          this.trace.push(`confirmed up to ${truth.events.length}`);
          return true;
        });
      const failed = (cause: Error) =>
        answer(() => {
          truth.fail(batch);
          this.seen.add('put fails');
          if (this.#random() < 0.3) this.#crash(disk, truth, this.#random() < 0.75, 'running');
          this.trace.push(`put failed: ${cause.message}`);
          return false;
        });
      log.append(batch, confirmed, failed);
    });
  }

  /** One of its own, or a piece of a larger one: pieces lie behind each other in memory. */
  #nextBatch(): Batch {
    const random = this.#random;
    const piece = this.#pieces.shift();
    if (piece !== undefined) return piece;
    let rest = randomBatch(random);
    if (rest.block === undefined || random() < 0.3) return rest;
    while (rest.length > 1) {
      const [first, others] = rest.split(1 + Math.floor(random() * (rest.length - 1)));
      this.#pieces.push(first);
      rest = others;
    }
    this.#pieces.push(rest);
    return this.#pieces.shift() as Batch;
  }

  /** Whoever begins with any put reads what is behind it, and nothing else. */
  async #readFrom(log: EventLog, disk: CrashDisk, truth: Truth): Promise<void> {
    const places = truth.places.filter(({ segment }) => log.segments.includes(segment));
    if (places.length === 0) return;
    const inMiddle = places.filter(({ seq, frame }) => seq > frame);
    const place = pick(this.#random, inMiddle.length > 0 ? inMiddle : places);
    if (inMiddle.length > 0) this.seen.add('read from the middle of a frame');
    const reader = new this.#subject.LogReader(log, disk);
    await reader.moveTo(place);
    const read = await drain(reader);
    await reader.close();
    const wanted = [...truth.events.keys()].filter(number => number >= place.seq && !truth.isDone(number));
    ensure(
      JSON.stringify([...read.keys()]) === JSON.stringify(wanted),
      () => `read from ${place.seq} on: ${[...read.keys()].join()}, and not ${wanted.join()}`,
    );
    for (const [number, event] of read)
      ensure(
        same(event, truth.events[number] as FlumeEvent),
        () => `event ${number} was read otherwise than it was put`,
      );
  }

  #doneSome(log: EventLog, truth: Truth): void {
    for (let times = this.#setting.scattered ? Math.floor(this.#random() * 30) : 1; times > 0; times--)
      this.#done(log, truth);
  }

  #done(log: EventLog, truth: Truth): void {
    const random = this.#random;
    const open = truth.events.map((_, number) => number).filter(number => !truth.isDone(number));
    if (open.length === 0 || truth.told) return;
    const { scattered } = this.#setting;
    const start = !scattered && random() < 0.6 ? (open[0] as number) : pick(random, open);
    const most = start + 1 + (scattered ? 0 : Math.floor(random() * 30));
    const moment = ++truth.moment;
    let end = start;
    let bytes = 0;
    for (; end < most && end < truth.events.length && !truth.isDone(end); end++) {
      truth.doneAt[end] = moment;
      bytes += sizeOf(truth.events[end] as FlumeEvent);
    }
    this.trace.push(`done ${start}-${end} at ${moment}`);
    log.done({ start, end, bytes });
  }

  // --- what goes wrong

  #break(disk: CrashDisk): void {
    const random = this.#random;
    const kind = random();
    if (kind < 0.1) {
      disk.readOnly = true;
      this.seen.add('read-only disk');
    } else if (kind < 0.2) {
      disk.freeBytes = 10;
      this.seen.add('too little free space');
    } else if (kind < 0.35) {
      disk.capacity = disk.used + Math.floor(random() * 5000);
      this.seen.add('full disk');
    } else {
      // Once, now and then, or always.
      let left = pick(random, [1, Infinity]);
      const likely = pick(random, [0.3, 1]);
      const calls = this.#setting.faults.filter(() => random() < 0.7);
      const where = pick(random, ['', '.checkpoint', 'seg', 'ment']);
      disk.fault = ({ name, path }) => {
        if (left === 0 || !calls.includes(name) || !path.includes(where) || random() > likely) return undefined;
        left--;
        return 'EIO';
      };
    }
    this.trace.push(`trouble: ${kind.toFixed(2)}`);
  }

  #heal(disk: CrashDisk): void {
    disk.readOnly = false;
    disk.freeBytes = disk.fault = undefined;
    disk.capacity = Infinity;
  }

  /** Takes images at some of all moments, and keeps the books about checkpoints. */
  #watch(disk: CrashDisk, truth: Truth, phase: () => string): void {
    const random = this.#random;
    const often = pick(random, [0.02, 0.05, 0.1]);
    /** When the value of a checkpoint was made. */
    const made = new Map<Operation, number>();
    disk.asked = operation => {
      if (operation.name === 'write' && operation.path.endsWith('.checkpoint')) made.set(operation, truth.moment);
    };
    disk.happened = (operation, failed) => {
      const { name, path } = operation;
      this.trace.push(`  ${name} ${path}${failed ? ' fails' : ''}`);
      if (path.endsWith('.checkpoint')) {
        if (failed && (name === 'write' || name === 'sync')) {
          // What was not synced may be gone, even without a crash.
          truth.written = truth.synced;
          this.seen.add('checkpoint fails');
        } else if (name === 'write') truth.written = made.get(operation) ?? 0;
        else if (name === 'sync') truth.synced = truth.written;
      } else if (name === 'sync' && failed) this.seen.add('sync fails');
      else if (name === 'syncDirectory' && failed) this.seen.add('directory sync fails');
      else if (name === 'sync' && !disk.doubtful) truth.safe = truth.events.length;
      else if (name === 'rename' && path.endsWith('.spare')) this.seen.add('file used again');
      // When a segment is let go everything else has to be right.
      const likely = (name === 'rename' || name === 'remove') && path.endsWith('.seg') ? 0.5 : often;
      if (name !== 'read' && name !== 'size' && random() < likely) this.#crash(disk, truth, random() < 0.75, phase());
    };
  }

  #crash(disk: CrashDisk, truth: Truth, cut: boolean, phase: string): void {
    if (truth.told) return;
    const random = this.#random;
    const image = cut ? disk.cut(random) : disk.kill(random);
    this.seen.add(cut ? 'power cut' : 'kill');
    if (phase === 'closing') this.seen.add('crash while closing');
    const { pending, failed, moment, written, synced, safe, events } = truth;
    const known = {
      truth,
      cut,
      confirmed: events.length,
      maybe: [...failed, [...pending]],
      moment,
      written,
      synced,
      safe,
    };
    this.#images.push({ disk: image, known: { ...known, trace: this.trace.slice(this.#lifeAt).slice(-60) }, depth: 0 });
  }

  // --- what is left

  async #inspect({ disk, known, depth }: Image): Promise<Found> {
    const random = this.#random;
    this.images++;
    const strict = this.#setting.options.fsync === 'commit' || (!known.cut && !disk.doubtful);
    if (depth < 2) this.#watchOpening(disk, known, depth);
    this.#sightNames(disk);
    const before = new Set(disk.files.keys());
    const reports: Error[] = [];
    const clock = new FakeClock();
    const log = await settled(this.#open(disk, clock, undefined, reports), 'open');
    disk.happened = undefined;
    if (log.segments.length > 1) this.seen.add('several segments');
    for (const { message } of reports) {
      if (message.includes('slots are damaged')) this.seen.add('damaged slot');
      if (!message.includes('kept in ')) continue;
      this.seen.add('torn tail');
      const path = /kept in (\S+)\.$/.exec(message)?.[1] ?? '';
      ensure(disk.files.has(path), () => `it says that a torn tail is kept in ${path}, and there is no such file`);
    }
    for (const { path, length, damaged } of log.segments.slice(-1))
      ensure(damaged || disk.files.get(path)?.length === length, () => `${path} was not cut behind its last frame`);
    const counts = { start: log.start, end: log.end, events: log.events, bytes: log.bytes };
    const reader = new this.#subject.LogReader(log, disk);
    const delivered = await settled(drain(reader), 'draining');
    const found = this.#compare(log, delivered, known, strict, depth);
    if (strict) {
      ensure(log.counters.LostEventCount === 0, () => `${log.counters.LostEventCount} events are said to be lost`);
      ensure(counts.events === delivered.size, () => `events is ${counts.events}, and ${delivered.size} come out`);
      const bytes = [...delivered.values()].reduce((sum, event) => sum + sizeOf(event), 0);
      ensure(counts.bytes === bytes, () => `bytes is ${counts.bytes}, and ${bytes} come out`);
      if (random() < 0.4) await this.#again(disk.kill(random), counts, delivered);
      // Everything that was delivered is safe from a power cut now.
      else if (!disk.doubtful && this.#setting.options.fsync === 'commit' && random() < 0.7)
        await this.#again(disk.cut(random), counts, delivered);
    } else if (log.counters.LostEventCount > 0) this.seen.add('hole that is reported');
    const left = disk.kill(random);
    await this.#goOn(disk, clock, log, reader, found);
    for (const path of strict && !this.#doubtful ? disk.files.keys() : [])
      ensure(before.has(path) || !path.endsWith('.damaged'), () => `a sound file was renamed to ${path}`);
    const doubtful = this.#doubtful || !strict;
    const damaged = !strict && (reports.length > 0 || log.segments.some(segment => segment.damaged));
    return { ...found, disk: left, doubtful, damaged };
  }

  /** Crashes while it opens what a crash has left. */
  #watchOpening(disk: CrashDisk, known: Known, depth: number): void {
    const random = this.#random;
    let room = 2;
    disk.happened = ({ name }) => {
      if (name === 'read' || name === 'size' || random() > 0.04 || room-- <= 0) return;
      const cut = random() < 0.75;
      this.seen.add(depth === 0 ? 'crash while opening' : 'crash while opening after a crash while opening');
      const image = cut ? disk.cut(random) : disk.kill(random);
      this.#images.push({ disk: image, known: { ...known, cut: cut || known.cut }, depth: depth + 1 });
    };
  }

  #sightNames(disk: CrashDisk): void {
    const names = [...disk.files.keys()];
    if (names.some(path => path.endsWith('new.segment'))) this.seen.add('rename lost');
    const files = [...disk.files];
    if (
      files.some(([path, bytes]) => files.some(([other, same]) => other !== path && same === bytes && bytes.length > 0))
    )
      this.seen.add('both names of a rename');
  }

  #compare(log: EventLog, delivered: Delivered, known: Known, strict: boolean, depth: number): Truths {
    const { truth, confirmed } = known;
    const { end } = log;
    const held = (number: number) => log.acked.skip(number) === number;
    const lowest = strict ? confirmed : known.safe;
    if (strict || this.#setting.options.fsync !== 'never')
      ensure(end >= lowest, () => `loss: the log ends at ${end}, and ${lowest} were confirmed`);
    const tail = this.#tail(log, delivered, known);
    const events = [...truth.events.slice(0, Math.min(end, confirmed)), ...tail.flatMap(batch => batch.events)];
    const offsets = new Map<string, string>();
    for (const { key, value, end: after } of truth.offsets) if (after <= confirmed) offsets.set(key, value);
    for (const { sourceOffset } of tail)
      if (sourceOffset !== undefined) offsets.set(sourceOffset.key, sourceOffset.value);
    for (const [key, value] of strict ? offsets : [])
      ensure(
        log.offsets.get(key) === value,
        () => `source ${key} had come to ${value}, and the log says ${log.offsets.get(key) ?? 'nothing'}`,
      );

    // What comes out is what is not done with, in order, as it was put.
    let lost = 0;
    /** Of which nobody but a checkpoint that is gone knew that they are done with. */
    let forgotten = 0;
    const done: number[] = [];
    for (const [number, event] of events.entries()) {
      const own = delivered.get(number);
      ensure(
        held(number) === (own !== undefined),
        () => `event ${number} ${own === undefined ? 'does not come out' : 'is done with and comes out'}`,
      );
      if (own === undefined) {
        done.push(number);
        if (truth.isDone(number, known.moment) && number < confirmed) {
          if (!truth.isDone(number, known.synced)) forgotten++;
          continue;
        }
        lost++;
        ensure(
          !strict || number >= confirmed,
          () => `loss: event ${number} was confirmed, not done with, and does not come out`,
        );
      } else {
        ensure(same(own, event), () => `invention: event ${number} is not as it was put`);
        const moment = known.cut ? known.synced : known.written;
        ensure(
          number >= confirmed || !truth.isDone(number, moment),
          () => `event ${number} comes again, and the checkpoint says that it is done with`,
        );
        if (truth.isDone(number, known.moment)) this.seen.add('done events come again');
      }
    }
    const { LostEventCount } = log.counters;
    // What is said once is not said again: it may have been when it was opened, and crashed.
    const least = depth > 0 ? 0 : lost;
    ensure(
      LostEventCount >= least && LostEventCount <= lost + forgotten,
      () => `${LostEventCount} events are said to be lost, and it is ${lost}`,
    );
    return { events, done, offsets: new Map(log.offsets) };
  }

  /** Events behind those that were confirmed: puts that were under way, whole and in order. */
  #tail(log: EventLog, delivered: Delivered, { confirmed, maybe, truth }: Known): readonly Batch[] {
    const count = log.end - confirmed;
    if (count <= 0) return [];
    let found: readonly Batch[] | undefined;
    for (const batches of maybe) {
      const events: FlumeEvent[] = [];
      let here = 0;
      for (const batch of batches) {
        if (events.length >= count) break;
        events.push(...batch.events);
        here++;
      }
      if (events.length !== count) continue;
      if (
        !events.every((event, i) => {
          const own = delivered.get(confirmed + i);
          return own === undefined || same(own, event);
        })
      )
        continue;
      const own = batches.slice(0, here);
      found ??= own;
      // Empty events look alike; then the offsets tell which puts these are.
      const last = new Map(own.flatMap(({ sourceOffset: at }) => (at === undefined ? [] : [[at.key, at.value]])));
      if (![...last].every(([key, value]) => log.offsets.get(key) === value)) continue;
      this.seen.add('put that was not confirmed is there');
      if (batches !== maybe.at(-1)) this.seen.add('put that failed is there');
      return own;
    }
    if (found !== undefined) return found;
    throw new Broken(
      `invention: ${count} events behind the ${confirmed} confirmed ones (${truth.events.length} later) are no puts that were under way`,
    );
  }

  /** Opening it once more finds the same. */
  async #again(disk: CrashDisk, counts: object, before: Delivered): Promise<void> {
    this.images++;
    const reports: Error[] = [];
    const log = await settled(this.#open(disk, new FakeClock(), undefined, reports), 'open');
    const { start, end, events, bytes } = log;
    ensure(
      JSON.stringify({ start, end, events, bytes }) === JSON.stringify(counts),
      () =>
        `opened again it is another: ${JSON.stringify(counts)}, then ${JSON.stringify({ start, end, events, bytes })}`,
    );
    ensure(reports.length === 0, () => `opened again it reports ${reports.map(({ message }) => message).join()}`);
    const delivered = await settled(drain(new this.#subject.LogReader(log, disk)), 'draining');
    ensure(
      delivered.size === before.size,
      () => `opened again it has ${delivered.size} events instead of ${before.size}`,
    );
    for (const [number, event] of delivered)
      ensure(same(event, before.get(number) as FlumeEvent), () => `opened again event ${number} is another`);
  }

  /** It takes new puts, gives them back, and ends empty when all are done with. */
  async #goOn(disk: CrashDisk, clock: FakeClock, log: EventLog, reader: LogReader, found: Truths): Promise<void> {
    const random = this.#random;
    if (random() < 0.5) return;
    const truth = new Truth(found);
    for (let puts = Math.floor(random() * 3); puts >= 0; puts--)
      ensure(await settled(this.#put(disk, log, truth), 'a put'), () => 'a put fails after opening');
    const delivered = await settled(drain(reader), 'draining');
    for (let number = found.events.length; number < truth.events.length; number++)
      ensure(
        delivered.has(number) && same(delivered.get(number) as FlumeEvent, truth.events[number] as FlumeEvent),
        () => `event ${number}, put after opening, does not come out`,
      );
    while (log.events > 0) {
      this.#done(log, truth);
      if (random() < 0.2) await turn();
    }
    this.#throwBroken();
    await settled(reader.close(), 'closing the reader');
    await settled(log.close(), 'close');
    ensure(disk.opened.size === 0, () => `still open after close: ${[...disk.opened].map(({ path }) => path).join()}`);
    // The last one stays, if it has offsets.
    const segments = [...disk.files.keys()].filter(path => path.endsWith('.seg'));
    ensure(segments.length <= Math.min(1, log.offsets.size), () => 'all is done with, and there are still segments');
    const again = await settled(this.#open(disk, clock, undefined), 'open');
    ensure(
      again.events === 0 && again.end === truth.events.length,
      () =>
        `emptied and opened again it holds ${again.events}, and ends at ${again.end} instead of ${truth.events.length}`,
    );
  }
}

const describeImage = ({ known, depth, disk }: Image): string =>
  [
    `  ${known.cut ? 'power cut' : 'kill'}, ${depth} crashes while opening; confirmed ${known.confirmed}, moment ${known.moment}, written ${known.written}, synced ${known.synced}`,
    `  files: ${[...disk.files].map(([path, { length }]) => `${path} ${length}`).join(', ')}`,
    '  before it:',
    ...known.trace.map(line => `    ${line}`),
  ].join('\n');
