import fs from 'node:fs';
import { dirname } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, expect, test, vi } from 'vitest';
import { systemClock, type Clock } from '../../src/core/clock.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import { Batch, createSource, event, fileRollSink, run, type Emitter, type FlumeEvent } from '../../src/index.ts';
import { FakeClock, recordingLog, seededRandom } from '../../src/testing/index.ts';
import { CrashDisk, pick, type Operation, type Random } from './crash-disk.ts';

const directory = '/output';

afterEach(() => {
  vi.restoreAllMocks();
});

/** Things that must have happened, or the test proves little. */
const sights = {
  kills: 0,
  cuts: 0,
  'crashes while opening': 0,
  'bytes cut off': 0,
  'empty files removed': 0,
  'events that came again': 0,
  'batches that were partly in': 0,
  'failed writes': 0,
  'failed syncs': 0,
  'failed records': 0,
  'several files': 0,
  'doubts that were told': 0,
};
type Sight = keyof typeof sights;

interface Settings {
  readonly fsync: boolean;
  readonly rollSize: number;
  readonly faults: readonly Operation['name'][];
  /** Batches may overtake each other, as with several lanes. */
  readonly shuffled: boolean;
}

/** Events of a file channel that has never lost any: they have been put before all this. */
const total = 60;
const log = { id: 'a log', end: total };

const byName = (a: string, b: string): number => {
  const [x, y] = [a, b].map(path => /(\d+)-(\d+)$/.exec(path)!.slice(1).map(Number)) as [number[], number[]];
  return x[0]! - y[0]! || x[1]! - y[1]!;
};

const outputOf = (disk: CrashDisk): number[] => {
  const names = [...disk.files.keys()].filter(path => dirname(path) === directory).sort(byName);
  if (names.length > 1) sights['several files']++;
  const lines = names.map(path => disk.files.get(path)!.toString()).join('');
  return lines.split('\n').slice(0, -1).map(Number);
};

/** One life of the sink. Resolves to the disk after a crash and what was acked then; the disk as it is if there was none. */
const live = async (
  random: Random,
  disk: CrashDisk,
  acked: ReadonlySet<number>,
  life: number,
  settings: Settings,
  crash: boolean,
): Promise<{ disk: CrashDisk; acked: Set<number>; doubtful: boolean }> => {
  const time = new FakeClock(10 ** 8 * (life + 1));
  const clock: Clock = {
    now: () => time.now(),
    after: (ms, callback, background) => time.after(ms, callback, background),
    cancel: timer => time.cancel(timer),
    soon: callback => systemClock.soon(callback),
  };
  const told = recordingLog();
  const now = new Set(acked);
  const state: { image: CrashDisk | undefined; acked: Set<number> } = { image: undefined, acked: now };
  let left = crash ? Math.floor(random() * pick(random, [10, 60, 150])) : Infinity;
  let trouble = settings.faults.length > 0 ? 6 : 0;
  const saw = (sight: Sight) => {
    sights[sight]++;
  };
  disk.fault = ({ name, path }) => {
    // A directory whose sync has failed may have forgotten the record's name for good; nothing helps against that.
    if (name === 'syncDirectory' && path !== directory) return undefined;
    if (trouble === 0 || !settings.faults.includes(name) || random() > 0.1) return undefined;
    trouble--;
    if (name === 'sync') saw('failed syncs');
    if (name === 'write') saw(path.includes('exactly') ? 'failed records' : 'failed writes');
    return pick(random, ['EIO', 'ENOSPC']);
  };
  let puts = 0;
  disk.happened = ({ name, path }) => {
    if (puts === 0 && name === 'truncate') saw('bytes cut off');
    if (puts === 0 && name === 'remove' && !path.includes('exactly')) saw('empty files removed');
    if (left-- !== 0 || state.image !== undefined) return;
    const cut = settings.fsync && random() < 0.6;
    saw(cut ? 'cuts' : 'kills');
    if (puts === 0) saw('crashes while opening');
    const seed = seededRandom(Math.floor(random() * 2 ** 31));
    state.image = cut ? disk.cut(seed) : disk.kill(seed);
    state.acked = new Set(now);
  };

  let emitter!: Emitter<FlumeEvent, readonly number[]>;
  const source = createSource<FlumeEvent, readonly number[]>(
    lent => {
      emitter = lent;
      return {
        settled: (numbers, what) => {
          if (what !== 'acked') return;
          puts--;
          for (const number of numbers) now.add(number);
        },
      };
    },
    { maxInFlight: { deliveries: 4 } },
  );
  const sink = fileRollSink({
    directory,
    exactlyOnce: true,
    fsync: settings.fsync,
    rollSize: settings.rollSize,
    rollInterval: 3,
    concurrency: settings.shuffled ? 3 : 1,
  });
  const flow = inScope(new Scope({ clock, log: told, random, disk }), () => run(source, sink));
  const counters = () => flow.metrics.snapshot()['SINK.file_roll']!;
  // What the channel delivers again: all that was not acked, and of what was acked what its own checkpoint may have missed.
  const todo: number[] = [];
  const lag = pick(random, [0, 0, 7, total]);
  const newest = Math.max(-1, ...acked);
  for (let number = 0; number < total; number++) if (!acked.has(number) || number > newest - lag) todo.push(number);
  const opening = { ...log, life: `life ${life}` };
  while ((emitter as unknown) === undefined) await turn();
  const finished = () => state.image !== undefined || (todo.length === 0 && puts === 0);
  for (let turns = 0; !finished() && turns < 5000; turns++) {
    if (todo.length > 0 && puts < 4) {
      const some = todo.splice(0, 1 + Math.floor(random() * 8));
      if (settings.shuffled && random() < 0.3) some.push(...todo.splice(3, 2));
      puts++;
      const positions = some.map(first => ({ log: opening, first, count: 1 }));
      emitter.emit(Batch.of(some.map(number => event(String(number)))).placed(positions), some);
    }
    await turn();
    if (random() < 0.3) await time.advance(1000);
  }
  const { DuplicateCount = 0, EventDrainSuccessCount = 0 } = counters() as Record<string, number>;
  if (DuplicateCount > 0) saw('events that came again');
  if (DuplicateCount > 0 && EventDrainSuccessCount > DuplicateCount) saw('batches that were partly in');
  // A record that was written in part because the write failed, and then the process ended: it says so. (With fsync only the
  // very first record can look like that, when there is nothing in the output.)
  const doubtful = !settings.fsync && told.entries.some(({ message }) => message.includes('Nothing is cut off'));
  disk.fault = undefined;
  if (state.image === undefined && !crash) await flow.stop();
  else {
    flow.abort();
    await flow.done.catch(() => undefined);
  }
  return { disk: state.image ?? disk, acked: state.acked, doubtful };
};

const history = async (seed: number): Promise<void> => {
  const random = seededRandom(seed);
  const fsync = random() < 0.7;
  const settings: Settings = {
    fsync,
    rollSize: pick(random, [0, 20, 100]),
    faults: pick<Settings['faults']>(random, [
      [],
      [],
      ['write'],
      // A sync that fails takes what was acked without one.
      fsync ? ['sync', 'syncDirectory'] : ['write', 'truncate'],
      ['write', 'truncate', 'open', 'close', 'remove', ...(fsync ? ['sync' as const] : [])],
    ]),
    shuffled: random() < 0.2,
  };
  let disk = new CrashDisk(random);
  await disk.makeDirectory(directory);
  let acked = new Set<number>();
  const lives = 1 + Math.floor(random() * 4);
  let doubtful = false;
  for (let life = 0; life <= lives; life++) {
    const last = life === lives;
    const result = await live(random, disk, acked, life, last ? { ...settings, faults: [] } : settings, !last);
    ({ disk, acked } = result);
    doubtful ||= result.doubtful;
  }
  const output = outputOf(disk);
  const expected = Array.from({ length: total }, (_, number) => number);
  if (doubtful) sights['doubts that were told']++;
  const once = doubtful ? [...new Set(output)] : output;
  const found = settings.shuffled || doubtful ? once.toSorted((a, b) => a - b) : once;
  expect(found, `history(${seed}), ${JSON.stringify(settings)}`).toEqual(expected);
};

const histories = Number(process.env['CRASH_HISTORIES'] ?? 600);
const only = process.env['CRASH_SEED'];

test(
  `file_roll with exactlyOnce: after any crash each event is in the output once (${histories} histories)`,
  async () => {
    // Whether the directory is there, the sink asks the system, which takes its time: seeds are to be replayed.
    vi.spyOn(fs.promises, 'stat').mockResolvedValue({ isDirectory: () => true } as fs.Stats);
    vi.spyOn(fs.promises, 'access').mockResolvedValue();
    if (only !== undefined) return history(Number(only));
    for (let seed = 0; seed < histories; seed++) await history(seed);
    console.log(JSON.stringify(sights));
    const { 'doubts that were told': rare, ...often } = sights;
    if (histories >= 10_000) expect(rare).toBeGreaterThan(0);
    for (const [sight, times] of Object.entries(often)) expect(times, sight).toBeGreaterThan(0);
  },
  60_000 + 50 * histories,
);
