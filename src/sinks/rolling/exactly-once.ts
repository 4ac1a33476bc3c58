/**
 * Which events of a log are in the output, so that none gets there twice: what `file_roll` with `exactlyOnce` knows.
 *
 * Two slots in `<directory>/.<prefix>exactly-once/written` (see log/register.ts) hold, as JSON: the log and its life, the numbers of the
 * events that are in the output, the file that is growing, and how many of its bytes count. The order of things is what
 * makes it exact, whenever the process ends:
 *
 * 1. A file is made, empty, and recorded before its first byte is written: bytes that do not count are in the recorded file only.
 * 2. Bytes are written, and recorded together with the numbers of their events. Only then are these acked.
 * 3. When it opens, what does not count is cut off. Its events were not acked, and come again.
 *    What was recorded and not acked comes again as well, and is known by its numbers.
 *
 * With `fsync` each step is safe from a power cut before the next begins.
 *
 * @module
 */
import { basename, dirname, join } from 'node:path';
import type { Disk } from '../../core/disk.ts';
import { MillraceError } from '../../core/errors.ts';
import { Batch, type LogLife, type Position } from '../../core/event.ts';
import { Register } from '../../log/register.ts';

export interface ExactlyOnceOptions {
  readonly directory: string;
  readonly prefix: string;
  readonly fsync: boolean;
}

/** Numbers from `start` up to, and without, `end`. */
interface Range {
  readonly start: number;
  readonly end: number;
}

/** What is in a slot. */
interface Recorded {
  readonly log?: string | undefined;
  readonly life?: string | undefined;
  /** In order, with gaps between them. */
  readonly ranges: readonly Range[];
  /** The file that is growing, if there is one, and how many of its bytes count. */
  readonly file?: string | undefined;
  readonly length: number;
  /** Whether what it says was safe from a power cut when it was written. */
  readonly fsync: boolean;
}

/** Ranges that are kept. One is enough for a channel with one sink; events that went elsewhere leave gaps. */
const mostRanges = 64;

const nothing: Recorded = { ranges: [], length: 0, fsync: false };

/** What to do with a batch: write `rest`, if there is any, and then `ranges` are in the output. */
export interface Plan {
  readonly rest: Batch | undefined;
  readonly ranges: readonly Range[];
}

export class ExactlyOnce {
  readonly #options: ExactlyOnceOptions;
  readonly #disk: Disk;
  readonly #report: (problem: Error) => void;
  #register!: Register;
  #unlock: (() => Promise<void>) | undefined;
  #recorded: Recorded = nothing;
  /** The log that events have come from since this was opened. */
  #log: LogLife | undefined;
  /** The disk does not know it yet. */
  #due = false;
  #saidGaps = false;

  private constructor(options: ExactlyOnceOptions, disk: Disk, report: (problem: Error) => void) {
    this.#options = options;
    this.#disk = disk;
    this.#report = report;
  }

  /** Opens what is known and cuts off what does not count. `report` is told what is not as it should be. */
  static async open(options: ExactlyOnceOptions, disk: Disk, report: (problem: Error) => void): Promise<ExactlyOnce> {
    const own = new ExactlyOnce(options, disk, report);
    const state = join(options.directory, `.${options.prefix}exactly-once`);
    await disk.makeDirectory(state);
    own.#unlock = await disk.lock?.(state, report);
    try {
      own.#register = await Register.open(disk, join(state, 'written'), () => own.#value());
    } catch (thrown) {
      await own.#unlock?.();
      throw thrown;
    }
    try {
      await own.#recover(state);
      return own;
    } catch (thrown) {
      await own.#letGo();
      throw thrown;
    }
  }

  /**
   * What of a batch is not in the output. Throws `MR_CONFIG`, to be tried again, if it is not known where its events are,
   * or if they are from another log than those before.
   */
  plan(batch: Batch): Plan {
    const { positions } = batch;
    if (positions === undefined) throw misused('events come that no file channel has numbered');
    for (const position of positions) if (position.log !== this.#log) this.#turnTo(position);
    const ranges = [...this.#recorded.ranges];
    const rest: Range[] = [];
    let at = 0;
    for (const { first, count } of positions) {
      for (const { start, end } of without(ranges, first, first + count))
        add(rest, at + start - first, at + end - first);
      add(ranges, first, first + count);
      at += count;
    }
    if (rest.length === 0) return { rest: undefined, ranges };
    return { rest: Batch.concat(rest.map(({ start, end }) => batch.slice(start, end))), ranges };
  }

  /** A file was made, and is empty. Nothing may be written to it before this has resolved. */
  async begin(file: string): Promise<void> {
    this.#set({ file, length: 0 });
    try {
      await this.save();
    } catch (thrown) {
      this.#set({ file: undefined });
      throw thrown;
    }
  }

  /** The file has so many bytes now, and with them these events are in the output. */
  wrote(length: number, { ranges }: Plan): void {
    if (ranges.length > mostRanges && !this.#saidGaps) {
      this.#saidGaps = true;
      this.#report(
        new MillraceError(
          'MR_CONFIG',
          `exactlyOnce: the numbers of the events have more than ${mostRanges} gaps, and only the last ones are known: after a crash ` +
            'some events may be in the output twice. Give the channel one sink, and let nothing between them drop events.',
        ),
      );
    }
    this.#set({ length, ranges: ranges.slice(-mostRanges) });
  }

  /** Resolves when what is in the output is recorded, and with `fsync` safe. */
  async save(): Promise<void> {
    if (!this.#due) return;
    await (this.#options.fsync ? this.#register.sync() : this.#register.write());
    this.#due = false;
  }

  /** The file is as it will be for ever. */
  async finish(): Promise<void> {
    this.#set({ file: undefined, length: 0 });
    // Not synced: whoever reads the one before finds all bytes of the file counted.
    await this.#register.write();
  }

  async close(): Promise<void> {
    try {
      await this.#register.sync();
    } finally {
      await this.#letGo();
    }
  }

  async #letGo(): Promise<void> {
    try {
      await this.#register.close();
    } finally {
      await this.#unlock?.();
    }
  }

  #set(changed: Partial<Recorded>): void {
    this.#recorded = { ...this.#recorded, ...changed };
    this.#due = true;
  }

  #value(): Buffer {
    return Buffer.from(JSON.stringify(this.#recorded));
  }

  async #recover(state: string): Promise<void> {
    const { found, damaged } = this.#register;
    if (found !== undefined) this.#recorded = JSON.parse(found.toString()) as Recorded;
    const { file, length, fsync } = this.#recorded;
    // A power cut damages the slot that is being written. The other one is the one before with fsync, may be an old one
    // without, and has nothing if this was the first.
    const doubtful = damaged === 2 || (damaged === 1 && found !== undefined && !fsync);
    if (doubtful) {
      const message = `${state}/written: ${damaged} of its 2 slots are damaged. Nothing is cut off; some events may be in the output twice.`;
      this.#report(new MillraceError('MR_CORRUPT_FILE', message));
    } else if (file !== undefined) await this.#cut(join(this.#options.directory, file), length);
    // What was read, and what was cut, is to be safe before anything is built on it.
    this.#recorded = { ...this.#recorded, file: undefined, length: 0, fsync: this.#options.fsync };
    await this.#disk.syncDirectory(state);
    await this.#register.sync();
  }

  async #cut(path: string, length: number): Promise<void> {
    const directory = dirname(path);
    // Made, and not yet there when the power went; or somebody has taken it away.
    if (!(await this.#disk.list(directory)).includes(basename(path))) return;
    const file = await this.#disk.open(path, 'write');
    try {
      const size = await file.size();
      if (size < length)
        this.#report(
          new MillraceError(
            'MR_DATA_LOST',
            `${path} has lost its last ${length - size} bytes, and is left as it is. Only with fsync a power cut takes nothing.`,
          ),
        );
      // Also if it looks right: it may have been cut before, and the sync after that may have failed.
      else await file.truncate(length);
      await file.sync();
    } finally {
      await file.close();
    }
    // If this is undone by a power cut, an empty file is back.
    if (length === 0) await this.#disk.remove(path);
    await this.#disk.syncDirectory(directory);
  }

  /** The events are from another log than those before, or from another life of it. */
  #turnTo({ log, first }: Position): void {
    const { id, life, end } = log;
    if (this.#log !== undefined && this.#log.id !== id) throw misused('events of several file channels come together');
    const known = this.#recorded.log;
    if (known !== id) {
      if (known !== undefined)
        this.#report(
          new MillraceError(
            'MR_CONFIG',
            `exactlyOnce: the events come from log ${id}, and those before came from ${known}. All that is in the new one is new.`,
          ),
        );
      this.#set({ log: id, life, ranges: [] });
    } else if (this.#recorded.life !== life) {
      // The log has lost what was behind its end, and new events have these numbers.
      const ranges = this.#recorded.ranges.flatMap(range =>
        range.start < end ? { start: range.start, end: Math.min(range.end, end) } : [],
      );
      this.#set({ life, ranges });
      const next = ranges.at(-1)?.end ?? first;
      if (first > next)
        this.#report(
          new MillraceError(
            'MR_DATA_LOST',
            `events ${next} to ${first - 1} do not come any more, and are not in the output. Without fsync a power cut may have taken them.`,
          ),
        );
    }
    this.#log = log;
  }
}

/** Can be tried again, so that no event is rejected for it. */
const misused = (what: string): MillraceError =>
  new MillraceError(
    'MR_CONFIG',
    `exactlyOnce: ${what}. It works directly behind one file channel: let nothing between them make other events, or set exactlyOnce = false.`,
    { retriable: true },
  );

/** What of the numbers from `start` to `end` is in none of the ranges. */
const without = (ranges: readonly Range[], start: number, end: number): Range[] => {
  const rest: Range[] = [];
  let from = start;
  for (const range of ranges) {
    if (range.end <= from) continue;
    if (range.start >= end) break;
    if (range.start > from) rest.push({ start: from, end: range.start });
    from = range.end;
  }
  if (from < end) rest.push({ start: from, end });
  return rest;
};

/** Ranges that touch become one. Mostly it is the last one that grows. */
const add = (ranges: Range[], start: number, end: number): void => {
  let at = ranges.length;
  while (at > 0 && (ranges[at - 1] as Range).end >= start) at--;
  let to = at;
  let merged: Range = { start, end };
  for (let next = ranges[to]; next !== undefined && next.start <= end; next = ranges[++to])
    merged = { start: Math.min(merged.start, next.start), end: Math.max(merged.end, next.end) };
  ranges.splice(at, to - at, merged);
};
