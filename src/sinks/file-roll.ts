/**
 * Events in files, a new one every so often: Flume's `file_roll`.
 *
 * @module
 */
import fs from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Timer } from '../core/clock.ts';
import { defineSink } from '../core/component.ts';
import { MillraceError, systemCode, toError } from '../core/errors.ts';
import type { Batch } from '../core/event.ts';
import { choice, flag, int, path, text } from '../core/options.ts';
import type { SinkContext, SinkWriter } from '../core/sink.ts';
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
  readonly handle: FileHandle;
  /** Of what was written completely. */
  length: number;
  /** There may be more than that: the beginning of a batch whose write failed. */
  torn: boolean;
  timer: Timer;
}

class RollingFiles implements SinkWriter {
  readonly #options: Options;
  readonly #serialize: Serializer;
  readonly gather: number;
  #context!: SinkContext;
  #nextName!: () => string;
  #file: Growing | undefined;
  #turn: Promise<void> = Promise.resolve();

  constructor(options: Options) {
    this.#options = options;
    this.#serialize = serializer(options.serializer, options.appendNewline);
    this.gather = Math.min(1024 * 1024, options.rollSize || Infinity);
  }

  async open(context: SinkContext): Promise<void> {
    const { directory, pathManager } = this.#options;
    this.#context = context;
    this.#nextName = pathManagers[pathManager](this.#options, () => context.clock.now());
    try {
      if (!(await fs.promises.stat(directory)).isDirectory()) throw trouble(`${directory} is not a directory`);
      await fs.promises.access(directory, fs.constants.W_OK | fs.constants.X_OK);
    } catch (thrown) {
      throw explained(thrown, directory);
    }
  }

  write(batch: Batch): Promise<void> {
    return this.#inTurn(() => this.#append(this.#serialize(batch)));
  }

  close(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#file !== undefined) await this.#finish(this.#file);
    });
  }

  /** One thing at a time, whoever asks: lanes, the timer, the end. */
  #inTurn(act: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(act);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #append(pieces: readonly Buffer[]): Promise<void> {
    const { fsync, rollSize, directory } = this.#options;
    try {
      const file = (this.#file ??= await this.#create());
      if (file.torn) await this.#mend(file);
      file.torn = true;
      const written = await writeAt(file.handle.fd, pieces, file.length);
      if (fsync) {
        await file.handle.datasync();
        if (file.length === 0) await syncDirectory(directory);
      }
      file.torn = false;
      file.length += written;
      if (rollSize > 0 && file.length >= rollSize) await this.#roll(file);
    } catch (thrown) {
      // Now, so that nobody reads half a batch meanwhile; and before the next write, if it fails now.
      if (this.#file?.torn === true) await this.#mend(this.#file).catch(() => undefined);
      throw explained(thrown, this.#file?.path ?? directory);
    }
  }

  async #create(): Promise<Growing> {
    const { directory, rollInterval } = this.#options;
    const { clock, counters } = this.#context;
    for (;;) {
      const path = join(directory, this.#nextName());
      try {
        const handle = await fs.promises.open(path, 'wx');
        const file: Growing = { path, handle, length: 0, torn: false, timer: undefined };
        if (rollInterval > 0)
          file.timer = clock.after(rollInterval * 1000, () => void this.#inTurn(() => this.#roll(file)), true);
        counters.ConnectionCreatedCount++;
        return file;
      } catch (thrown) {
        // Somebody else's: the next name will do.
        if (systemCode(thrown) === 'EEXIST') continue;
        counters.ConnectionFailedCount++;
        throw thrown;
      }
    }
  }

  async #mend(file: Growing): Promise<void> {
    await file.handle.truncate(file.length);
    file.torn = false;
  }

  /** Ends a file. What goes wrong is told, but makes no event come twice: all that the file has was acked, or will be. */
  async #roll(file: Growing): Promise<void> {
    if (this.#file !== file) return;
    try {
      await this.#finish(file);
    } catch (thrown) {
      const cause = explained(thrown, file.path);
      this.#context.log.error(`${this.#context.name}: ${cause.message}`, { cause });
    }
  }

  async #finish(file: Growing): Promise<void> {
    const { clock, counters } = this.#context;
    this.#file = undefined;
    clock.cancel(file.timer);
    counters.ConnectionClosedCount++;
    try {
      if (file.torn) await this.#mend(file);
    } finally {
      await file.handle.close();
    }
  }
}

/** Writes all of it; resolves to its length. The callback of `fs` costs half as much as a FileHandle's promise. */
const writeAt = async (fd: number, pieces: readonly Buffer[], position: number): Promise<number> => {
  let at = position;
  for (let rest = pieces; rest.length > 0;) {
    const written = await new Promise<number>((resolve, reject) =>
      fs.writev(fd, rest, at, (cause, count) => {
        if (cause !== null) reject(cause);
        else if (count === 0 && rest.some(piece => piece.length > 0))
          reject(new Error('the operating system takes no more bytes'));
        else resolve(count);
      }),
    );
    at += written;
    rest = behind(rest, written);
  }
  return at - position;
};

/** What is left of the pieces after their first `count` bytes. */
const behind = (pieces: readonly Buffer[], count: number): readonly Buffer[] => {
  let [skipped, first] = [count, 0];
  for (; first < pieces.length && skipped >= (pieces[first] as Buffer).length; first++)
    skipped -= (pieces[first] as Buffer).length;
  const rest = pieces.slice(first);
  if (skipped > 0) rest[0] = (rest[0] as Buffer).subarray(skipped);
  return rest;
};

/** So that a new file's name is as durable as its bytes. Windows cannot, and need not. */
const syncDirectory = async (directory: string): Promise<void> => {
  if (process.platform === 'win32') return;
  const handle = await fs.promises.open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
};

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
  if (thrown instanceof MillraceError) return thrown;
  const cause = toError(thrown);
  return trouble(`cannot write to ${path}: ${cause.message}. ${advice[systemCode(cause) ?? ''] ?? ''}`.trim(), cause);
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
