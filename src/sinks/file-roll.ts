/**
 * Events in files, a new one every so often: Flume's `file_roll`.
 *
 * @module
 */
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { Timer } from '../core/clock.ts';
import { defineSink } from '../core/component.ts';
import { isTaken, type DiskFile } from '../core/disk.ts';
import { MillraceError, systemCode, toError } from '../core/errors.ts';
import type { Batch } from '../core/event.ts';
import type { SinkCounters } from '../core/metrics.ts';
import { choice, flag, int, path, text } from '../core/options.ts';
import type { SinkContext, SinkWriter } from '../core/sink.ts';
import { ExactlyOnce } from './rolling/exactly-once.ts';
import { serializer, serializerChoice, type Serializer } from './rolling/serializers.ts';

const options = z.object({
  directory: path('Where the files go. It must exist.', { flume: 'sink.directory' }),
  rollInterval: int('Age at which a file is closed; 0 is never.', {
    flume: 'sink.rollInterval',
    default: 30,
    min: 0,
    unit: 's',
  }),
  rollSize: int('Size from which on a file is closed; 0 is never.', {
    flume: 'sink.rollSize',
    default: 0,
    min: 0,
    unit: 'bytes',
  }),
  batchSize: int('Events per delivery. What waits for the write before is written at once.', {
    flume: 'sink.batchSize',
    default: 100,
    min: 1,
    unit: 'events',
  }),
  serializer: serializerChoice('What is written of an event: its body, or its headers too.', {
    flume: 'sink.serializer',
    default: 'TEXT',
  }),
  appendNewline: flag('Whether a newline follows each event.', {
    flume: 'sink.serializer.appendNewline',
    default: true,
  }),
  pathManager: choice(['DEFAULT', 'ROLLTIME'], {
    'org.apache.flume.formatter.output.DefaultPathManager$Builder': 'DEFAULT',
    'org.apache.flume.formatter.output.RollTimePathManager$Builder': 'ROLLTIME',
  })('What files are named after: the time at which the sink was opened, or that of each file.', {
    flume: 'sink.pathManager',
    default: 'DEFAULT',
  }),
  prefix: text('What file names begin with.', { flume: 'sink.pathManager.prefix', default: '' }),
  extension: text('What file names end in, behind a dot.', { flume: 'sink.pathManager.extension', default: '' }),
  fsync: flag('Whether to wait for the disk before an ack, and not for the operating system only.', {
    flume: 'sink.fsync',
    default: false,
  }),
  exactlyOnce: flag(
    'Whether events of a file channel that come again after a crash are known, and not written again.',
    {
      flume: 'sink.exactlyOnce',
      default: false,
    },
  ),
});
type Options = z.output<typeof options>;
export type FileRollOptions = z.input<typeof options>;

/**
 * Appends events to a file. Batches that wait for the write before are written at once, up to 1 MiB.
 *
 * **acks** when the operating system has the batch, with `fsync` when the disk has it · **nacks** and **rejects** never: a
 * write that fails (a full disk) is undone and tried again · keeps order.
 *
 * A file is made when there is something to write. (Flume makes an empty one per interval.) It is closed when it is
 * `rollInterval` old, or has `rollSize` bytes after a batch. A file that is there already is never written to.
 *
 * With `exactlyOnce` the directory has `.<prefix>exactly-once` besides, which says what of the channel is in the files. When the
 * sink opens, bytes that no ack stands for are cut off, and it begins a new file. Events that come again are acked and
 * counted as `DuplicateCount`. It works directly behind one file channel, with one sink; else it is `MR_CONFIG`, nothing is
 * written, and it is tried again. The same directory and prefix in two sinks is `MR_LOCKED`. See docs/guarantees.md.
 */
export const fileRollSink = defineSink({
  type: 'file_roll',
  className: 'org.apache.flume.sink.RollingFileSink',
  summary: 'Writes events to files in a directory, a new file every 30 seconds.',
  batchSizeOption: 'batchSize',
  options,
  open: options => new RollingFiles(options),
});

/** The file that is being written. */
interface Growing {
  readonly path: string;
  readonly file: DiskFile;
  /** Of what was written completely. */
  length: number;
  /** There may be more than that: the beginning of a batch whose write failed. */
  torn: boolean;
  /** The next batch goes to another file. */
  over: boolean;
  timer: Timer;
}

class RollingFiles implements SinkWriter {
  readonly #options: Options;
  readonly #serialize: Serializer;
  readonly gather: number;
  #context!: SinkContext;
  #nextName!: () => string;
  #file: Growing | undefined;
  #known: ExactlyOnce | undefined;
  #turn: Promise<void> = Promise.resolve();

  constructor(options: Options) {
    this.#options = options;
    this.#serialize = serializer(options.serializer, options.appendNewline);
    this.gather = Math.min(1024 * 1024, options.rollSize || Infinity);
  }

  async open(context: SinkContext): Promise<void> {
    const { directory, pathManager, exactlyOnce } = this.#options;
    const { clock, counters, disk, log, name } = context;
    this.#context = context;
    this.#nextName = pathManagers[pathManager](this.#options, () => clock.now());
    try {
      if (!(await fs.promises.stat(directory)).isDirectory()) throw trouble(`${directory} is not a directory`);
      await fs.promises.access(directory, fs.constants.W_OK | fs.constants.X_OK);
    } catch (thrown) {
      throw explained(thrown, directory);
    }
    if (!exactlyOnce) return;
    Object.assign(counters, { DuplicateCount: 0 });
    this.#known = await ExactlyOnce.open(this.#options, disk, cause =>
      log.error(`${name}: ${cause.message}`, { cause }),
    );
  }

  write(batch: Batch): Promise<void> {
    return this.#inTurn(() => this.#add(batch));
  }

  close(): Promise<void> {
    return this.#inTurn(async () => {
      try {
        if (this.#file !== undefined) await this.#finish(this.#file);
      } finally {
        await this.#file?.file.close();
        await this.#known?.close();
      }
    });
  }

  /** One thing at a time, whoever asks: lanes, the timer, the end. */
  #inTurn(act: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(act);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #add(batch: Batch): Promise<void> {
    const known = this.#known;
    if (known === undefined) return this.#append(batch);
    const plan = known.plan(batch);
    const { rest } = plan;
    if (rest !== undefined) await this.#append(rest, length => known.wrote(length, plan));
    // If this fails, the events are known when they come again: only this is left to do then.
    await known.save();
    const counters = this.#context.counters as SinkCounters & { DuplicateCount: number };
    counters.DuplicateCount += batch.length - (rest?.length ?? 0);
  }

  async #append(batch: Batch, wrote?: (length: number) => void): Promise<void> {
    const { fsync, rollSize, directory } = this.#options;
    try {
      const pieces = this.#serialize(batch);
      if (this.#file?.over === true) await this.#finish(this.#file);
      const growing = (this.#file ??= await this.#create());
      const { file, path } = growing;
      if (growing.torn) await this.#mend(growing);
      growing.torn = true;
      await file.write(pieces, growing.length);
      if (fsync) {
        // If one of them fails, nobody knows what the disk has, and asking again would prove nothing.
        growing.over = true;
        await file.sync();
        if (growing.length === 0) await this.#context.disk.syncDirectory(dirname(path));
        growing.over = false;
      }
      growing.torn = false;
      for (const { length } of pieces) growing.length += length;
      wrote?.(growing.length);
      if (rollSize > 0 && growing.length >= rollSize) await this.#roll(growing);
    } catch (thrown) {
      // Now, so that nobody reads half a batch meanwhile; and before the next write, if it fails now.
      if (this.#file?.torn === true) await this.#mend(this.#file).catch(() => undefined);
      throw explained(thrown, this.#file?.path ?? directory);
    }
  }

  async #create(): Promise<Growing> {
    const { directory, rollInterval } = this.#options;
    const { clock, counters, disk } = this.#context;
    for (;;) {
      const name = this.#nextName();
      const path = join(directory, name);
      try {
        const file = await disk.open(path, 'new');
        await this.#known?.begin(name).catch(async (thrown: unknown) => {
          await file.close();
          await disk.remove(path);
          throw thrown;
        });
        const growing: Growing = { path, file, length: 0, torn: false, over: false, timer: undefined };
        if (rollInterval > 0)
          growing.timer = clock.after(rollInterval * 1000, () => void this.#inTurn(() => this.#roll(growing)), true);
        counters.ConnectionCreatedCount++;
        return growing;
      } catch (thrown) {
        // Somebody else's: the next name will do.
        if (isTaken(thrown)) continue;
        counters.ConnectionFailedCount++;
        throw explained(thrown, path);
      }
    }
  }

  async #mend(growing: Growing): Promise<void> {
    const { file, length } = growing;
    await file.truncate(length);
    // What was cut off must not be back after a power cut, when nobody looks at this file any more.
    if (this.#options.fsync) await file.sync();
    growing.torn = false;
  }

  /** Ends a file. What goes wrong is told, but makes no event come twice: all that the file has was acked, or will be. */
  async #roll(growing: Growing): Promise<void> {
    if (this.#file !== growing) return;
    growing.over = true;
    try {
      await this.#finish(growing);
    } catch (thrown) {
      const cause = explained(thrown, growing.path);
      this.#context.log.error(`${this.#context.name}: ${cause.message}`, { cause });
    }
  }

  async #finish(growing: Growing): Promise<void> {
    const { clock, counters } = this.#context;
    if (growing.torn) await this.#mend(growing);
    this.#file = undefined;
    clock.cancel(growing.timer);
    counters.ConnectionClosedCount++;
    try {
      await this.#known?.finish();
    } finally {
      await growing.file.close();
      if (growing.length === 0) await this.#context.disk.remove(growing.path);
    }
  }
}

const trouble = (message: string, cause?: unknown) => new MillraceError('MR_IO', message, { cause });

const advice: Readonly<Record<string, string>> = {
  ENOENT: 'Create the directory, or set another `directory` (`sink.directory`).',
  EACCES: 'Let this user write there, or set another `directory` (`sink.directory`).',
  EPERM: 'Let this user write there, or set another `directory` (`sink.directory`).',
  EROFS: 'The file system is read-only; set another `directory` (`sink.directory`).',
  ENOSPC: 'The disk is full. It goes on as soon as there is room.',
  EDQUOT: 'The quota is used up. It goes on as soon as there is room.',
  EMFILE: 'This process has too many files open; raise its limit (`ulimit -n`).',
};

const explained = (thrown: unknown, path: string): MillraceError => {
  const system = thrown instanceof MillraceError ? toError(thrown.cause ?? thrown) : toError(thrown);
  const code = systemCode(system);
  if (thrown instanceof MillraceError && code === undefined) return thrown;
  return trouble(`cannot write to ${path}: ${system.message}. ${advice[code ?? ''] ?? ''}`.trim(), system);
};

type Naming = Pick<Options, 'prefix' | 'extension'>;

/** Flume's two ways to name files. */
const pathManagers: Readonly<Record<Options['pathManager'], (naming: Naming, now: () => number) => () => string>> = {
  /** `<prefix><milliseconds>-<n>.<extension>`. */
  DEFAULT: (naming, now) => {
    const series = String(now());
    let index = 0;
    return () => named(naming, series, ++index);
  },
  /** `<prefix><yyyyMMddHHmmss>-<n>.<extension>`, local time; `n` begins again with every second. */
  ROLLTIME: (naming, now) => {
    let second = '';
    let index = 0;
    return () => {
      const before = second;
      second = localSecond(new Date(now()));
      index = second === before ? index + 1 : 1;
      return named(naming, second, index);
    };
  },
};

const named = ({ prefix, extension }: Naming, series: string, index: number): string =>
  `${prefix}${series}-${index}${extension === '' ? '' : `.${extension}`}`;

const localSecond = (time: Date): string =>
  [time.getFullYear(), time.getMonth() + 1, time.getDate(), time.getHours(), time.getMinutes(), time.getSeconds()]
    .map(part => String(part).padStart(2, '0'))
    .join('');
