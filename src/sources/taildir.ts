/**
 * Files that grow, line by line: Flume's `TAILDIR`.
 *
 * `tailing/` has the parts: `file-groups` (what is wanted), `discovery` (which files there are, whatever happens to their
 * names), `tail-file` (one file, what is in it and how far it was read), `progress` (how far that was delivered), `copies`
 * (contents that move), `line-reader` and `multiline` (bytes to events), `position-file`.
 * Here they are put together: who is read next, how much, and when it is settled.
 *
 * @module
 */
import { z } from 'zod';
import type { Timer } from '../core/clock.ts';
import { defineSource } from '../core/component.ts';
import { Deque } from '../core/deque.ts';
import { toError } from '../core/errors.ts';
import type { FlumeEvent } from '../core/event.ts';
import type { Counters } from '../core/metrics.ts';
import { flag, int, map, path, text } from '../core/options.ts';
import type { Emitter, Settled, SourceContext, SourceSession } from '../core/source.ts';
import { Discovery } from './tailing/discovery.ts';
import { fileGroups, type Problem } from './tailing/file-groups.ts';
import { chunkSize, LineReader, type Chunk, type Rewritten } from './tailing/line-reader.ts';
import { Multiline } from './tailing/multiline.ts';
import { prefixOf } from './lazy-offset.ts';
import { fileOffset, withOffsets } from './tailing/offsets.ts';
import { loadPositions, savePositions } from './tailing/position-file.ts';
import { compression } from './tailing/fingerprint.ts';
import { Copies } from './tailing/copies.ts';
import type { Sent } from './tailing/progress.ts';
import type { Former, TailFile } from './tailing/tail-file.ts';

const options = z
  .object({
    filegroups: map('Groups of files: directory/pattern, where only the last segment is a regular expression.', {
      flume: 'filegroups.*',
      listedIn: 'filegroups',
    }),
    positionFile: path('Where it is kept how far each file was delivered. Each source needs its own.', {
      default: '~/.flume/taildir_position.json',
      exclusive: true,
    }),
    headers: map('Headers for the events of a group, as <group>.<header>.', { flume: 'headers.*', default: {} }),
    fileHeader: flag('Whether to add a header with the absolute path of the file.', { default: false }),
    fileHeaderKey: text('The name of that header.', { default: 'file' }),
    byteOffsetHeader: flag('Whether to add the header byteoffset: where in its file the line begins.', {
      default: false,
    }),
    skipToEnd: flag('Whether files that are there at the start and have no position begin at their end.', {
      default: false,
    }),
    batchSize: int('Lines per delivery, at most.', { default: 100, min: 1, unit: 'lines' }),
    maxBatchCount: int(
      'Batches of one file before it is the turn of the next. 0 or less: no limit, but 1 MiB per turn.',
      {
        default: 0,
        unit: 'batches',
      },
    ),
    idleTimeout: int('After how long without news a last line without newline counts, and the file is closed.', {
      default: 120_000,
      min: 1,
      unit: 'ms',
    }),
    writePosInterval: int('How often positions are written, at most.', {
      default: 3000,
      min: 1,
      unit: 'ms',
    }),
    pollInterval: int('How often everything is looked at, at most, for what the system did not tell.', {
      default: 1000,
      min: 1,
      unit: 'ms',
    }),
    maxLineLength: int('Longer lines are delivered in parts of that size, with the headers linePart and lineParts.', {
      default: 16 * 1024 * 1024,
      min: chunkSize,
      max: 1024 * 1024 * 1024,
      unit: 'bytes',
    }),
    multilineStart: text(
      'A regular expression: a line that matches begins an event, and lines that do not belong to the one before.',
      { optional: true },
    ),
    multilineContinuation: text(
      'A regular expression: a line that matches belongs to the event before, and one that does not begins another.',
      { optional: true },
    ),
    multilineTimeout: int('After how long without more lines an event of several lines is complete.', {
      default: 1000,
      min: 1,
      unit: 'ms',
    }),
    multilineMaxLength: int('An event ends before the line with which it would be longer than that.', {
      default: 256 * 1024,
      min: 1,
      max: chunkSize / 2,
      unit: 'bytes',
    }),
    nulTimeout: int(
      'Network file systems show zeros before data have come: a line with a NUL is not taken but read again for so long, and then taken as it is. Default: it is taken at once.',
      { optional: true, min: 1, unit: 'ms' },
    ),
    maxOpenFiles: int('Files open at a time.', { default: 64, min: 1, unit: 'files' }),
  })
  .superRefine(({ filegroups, headers, multilineStart, multilineContinuation }, context) => {
    for (const [option, pattern] of Object.entries({ multilineStart, multilineContinuation })) {
      try {
        if (pattern !== undefined) new RegExp(pattern);
      } catch (thrown) {
        context.addIssue({ code: 'custom', path: [option], message: toError(thrown).message });
      }
    }
    if (multilineStart !== undefined && multilineContinuation !== undefined)
      context.addIssue({ code: 'custom', path: ['multilineContinuation'], message: 'give this or multilineStart' });

    const problem: Problem = (option, key, message) =>
      context.addIssue({ code: 'custom', path: [option, key], message });
    const groups = fileGroups(filegroups, headers, problem);
    if (groups.length === 0) context.addIssue({ code: 'custom', path: ['filegroups'], message: 'there are none' });
  });
type Options = z.output<typeof options>;
export type TaildirOptions = z.input<typeof options>;

/**
 * Follows files as they grow, are rotated, and come and go.
 *
 * **emits** the complete lines of one file, without `\n` or `\r\n`, as soon as there are any · **pauses** while its
 * deliveries are unsettled, with at most three reads of 512 KiB in memory · **completes** when it is stopped · **errors**
 * when the position file cannot be read.
 *
 * A file is known by its device, inode and time of birth, and by its content: its first KiB, and the 64 bytes before the
 * position. Renamed it goes on where it was, and a new file under its old name is read after it. When its content is another,
 * it is read from the start; a new file that has the old content (`copytruncate`) goes on where that was, and is read once.
 * For this a new file that begins as another one did waits for a second, or longer if it is large, before it is read. What
 * was truncated or deleted before it was read is reported with its range, and counted in `LostByteCount`; of what happened
 * while nobody looked, what had been seen of it is. A file that is
 * deleted, or renamed so that no group wants it, is read to its end and for 5 more seconds. Compressed files (gzip, zstd, xz)
 * are not read, which is reported once. What is nacked is delivered again from memory; a position is written only when
 * everything before it is acked, so that a crash repeats lines and loses none.
 *
 * A last line without newline is delivered after `idleTimeout`. A line longer than `maxLineLength` is delivered in parts:
 * the header `linePart` counts them, the last one has `lineParts` as well. Files that cannot be read are reported once, and
 * tried again. With `nulTimeout` a line of up to 512 KiB that has a NUL is waited for, and what is behind it in that file;
 * how many files wait is `NulFileCount`. With `multilineStart` or `multilineContinuation` several lines are one event, newlines in between included.
 */
export const taildirSource = defineSource({
  type: 'taildir',
  className: 'org.apache.flume.source.taildir.TaildirSource',
  summary: 'Lines of files that grow, also when they are rotated.',
  batchSizeOption: 'batchSize',
  options,
  open: options => async (emitter: Emitter<FlumeEvent, Sent>, context) => {
    const tailing = new Tailing(options, emitter, context);
    await tailing.open();
    return tailing;
  },
});

/** How much of a file is read before it is another one's turn. */
const turnBytes = 2 * chunkSize;

/** How long a file without a path is still read: writers reopen their logs late. */
const rotateWait = 5000;

/** How often files are looked for that are idle, or have no path any more. */
const sweepInterval = 1000;

class Tailing implements SourceSession<Sent> {
  readonly #options: Options;
  readonly #emitter: Emitter<FlumeEvent, Sent>;
  readonly #context: SourceContext;
  readonly #counters: Counters;
  readonly #multiline: Multiline | undefined;
  readonly #reader: LineReader;
  readonly #prefix: string;
  readonly #copies = new Copies(file => this.#open(file));
  #discovery!: Discovery;

  /** Files that may have something new, in the order of their turns. */
  readonly #ready = new Deque<TailFile>();
  /** What was read and not yet handed over; two at most. */
  readonly #chunks = new Deque<Chunk>();
  #asked = false;
  #scanned = false;
  #room: (() => void) | undefined;
  #working: Promise<void> | undefined;
  #stopped = false;

  /** Open files, the one that was read longest ago first. */
  readonly #opened = new Set<TailFile>();
  /** Files that are not idle yet, the one that has been silent for longest first. */
  readonly #active = new Set<TailFile>();
  /** Files whose last event may go on, or whose last line has no end. */
  readonly #openended = new Set<TailFile>();
  /** Files that wait for what is to come where they have a NUL. */
  readonly #holed = new Set<TailFile>();
  /** Files without a path. */
  readonly #lost = new Set<TailFile>();
  #sweepTimer: Timer;

  /** Positions have moved since they were written. */
  #moved = false;
  /** The changes among files that were written. */
  #savedChanges = 0;
  #saveTimer: Timer;
  #saving: Promise<void> | undefined;
  #written = Promise.resolve();
  /** Somebody was told that compressed files are not read. */
  #saidCompressed = false;

  constructor(options: Options, emitter: Emitter<FlumeEvent, Sent>, context: SourceContext) {
    this.#options = options;
    this.#emitter = emitter;
    this.#context = context;
    const own = {
      OpenFileCount: 0,
      DeletedFileCount: 0,
      RewrittenFileCount: 0,
      CompressedFileCount: 0,
      LinePartCount: 0,
      NulFileCount: 0,
      LostByteCount: 0,
      PositionWriteFail: 0,
      // 1 while positions cannot be written, which was reported.
      Unhealthy: 0,
    };
    this.#counters = Object.assign(context.counters, { ...own, ...context.counters });
    this.#prefix = prefixOf('taildir', options.positionFile);
    this.#multiline = Multiline.of(options);
    const { maxLineLength, nulTimeout: timeout } = options;
    const nul = timeout === undefined ? undefined : { timeout, now: () => context.clock.now() };
    this.#reader = new LineReader(maxLineLength, this.#multiline, nul);
  }

  async open(): Promise<void> {
    const { positionFile, skipToEnd, pollInterval, fileHeader, fileHeaderKey, filegroups, headers } = this.#options;
    const { log, clock, disk } = this.#context;
    const groups = fileGroups(filegroups, headers, () => undefined);
    const known = await loadPositions(disk, positionFile, log, clock.now());
    const saved = withOffsets(known, await this.#context.offsets(this.#prefix));
    this.#discovery = new Discovery(
      { groups, saved, skipToEnd, pollInterval, fileHeader: fileHeader ? fileHeaderKey : undefined },
      this.#context,
      {
        wake: file => this.#wake(file),
        gone: file => this.#forget(file, false),
        scanning: () => this.#scanning(),
        fail: cause => this.#emitter.fail(cause),
      },
    );
    // Trouble with it shows at the start.
    await this.#save();
    this.#trouble(undefined);
    await this.#discovery.start();
    this.#scanned = true;
    this.#work();
    this.#sweepLater();
    this.#saveLater();
  }

  // --- what the kernel calls

  pull(): void {
    this.#asked = true;
    this.#answer();
  }

  settled(sent: Sent, what: Settled): void {
    if (what !== 'acked') return;
    sent.progress.acked(sent);
    this.#moved = true;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#context.clock.cancel(this.#sweepTimer);
    this.#context.clock.cancel(this.#saveTimer);
    this.#room?.();
    await this.#discovery.stop();
    await this.#working;
  }

  async close(): Promise<void> {
    await this.#reader.begin();
    await Promise.all(Array.from(this.#opened, file => this.#close(file)));
    await this.#saving;
    await this.#save();
  }

  // --- handing over

  /** Answers a pull, if there is one and there are lines. */
  #answer(): void {
    const { batchSize, byteOffsetHeader } = this.#options;
    while (this.#asked && !this.#stopped) {
      const chunk = this.#chunks.peek();
      if (chunk === undefined) return;
      const batch = byteOffsetHeader ? chunk.takeWithOffsets(batchSize, 'byteoffset') : chunk.take(batchSize);
      const sent = chunk.send();
      if (chunk.empty) {
        this.#chunks.shift();
        this.#room?.();
      }
      this.#asked = false;
      this.#emitter.emit(batch, sent, fileOffset(this.#prefix, chunk.file, sent));
    }
  }

  /** Hands over a chunk; resolves when the next one has room. */
  async #offer(chunk: Chunk): Promise<void> {
    this.#chunks.push(chunk);
    this.#answer();
    if (this.#chunks.length < 2 || this.#stopped) return;
    await new Promise<void>(resolve => (this.#room = resolve));
    this.#room = undefined;
  }

  // --- reading

  /** Puts a file in line, unless it is already or may not be read yet. */
  #wake(file: TailFile): void {
    // At once, and not when it is its turn: by then it may be deleted.
    if (file.handle === undefined && this.#opened.size < this.#options.maxOpenFiles && !this.#stopped)
      this.#open(file).catch(() => undefined);
    if (file.queued || file.holds > 0) return;
    file.queued = true;
    this.#ready.push(file);
    this.#work();
  }

  #work(): void {
    // Not before everything is known that there is: what looks new may be a copy.
    if (!this.#scanned || this.#stopped || this.#ready.length === 0) return;
    this.#working ??= this.#readAll();
  }

  async #readAll(): Promise<void> {
    try {
      for (let file = this.#ready.shift(); file !== undefined && !this.#stopped; file = this.#ready.shift()) {
        file.queued = false;
        if (file.holds === 0) await this.#turn(file);
      }
    } catch (thrown) {
      this.#emitter.fail(toError(thrown));
    }
    this.#working = undefined;
  }

  async #turn(file: TailFile): Promise<void> {
    const { seen } = file;
    try {
      await this.#open(file);
      const what = file.handle === undefined ? 'end' : await this.#read(file);
      file.failing = false;
      if (this.#stopped || what === 'held') return;
      if (what === 'rewritten') return this.#rewritten(file);
      if (file.seen > seen) this.#grew(file);
      if (what === 'more') this.#wake(file);
      else await this.#atEnd(file, file.seen > seen);
    } catch (thrown) {
      await this.#failed(file, toError(thrown));
    }
  }

  /** Reads as much as one turn may, if this is still what was read before. */
  async #read(file: TailFile): Promise<'more' | 'end' | 'held' | Rewritten> {
    const { progress } = file;
    const top = await file.top();
    const same = await file.isSame(top);
    // It takes over another's content, or has meanwhile.
    if (file.holds > 0) return 'held';
    if (file.progress !== progress) return 'more';
    if (!same) return 'rewritten';
    if (file.position === 0 && this.#isCompressed(file, top)) return 'end';
    if (file.fresh) {
      // What comes next has to be compared first.
      if (top.length === 0) return 'end';
      const { clock } = this.#context;
      const waits = await this.#copies.suspects(file, top, clock.now());
      if (waits) file.holds++;
      if (file.holds > 0) return 'held';
      if (file.progress !== progress) return 'more';
      file.fresh = false;
    }
    const { quiet, seen } = file;
    const what = await this.#readSome(file);
    if (what === 'end') {
      file.quiet = false;
      const open = file.position < file.seen && (!quiet || file.seen > seen);
      if (this.#multiline !== undefined && open) this.#openended.add(file);
    }
    if (file.nul?.held === true) this.#holed.add(file);
    else this.#holed.delete(file);
    this.#counters['NulFileCount'] = this.#holed.size;
    file.step(top);
    this.#copies.learn(file);
    return what;
  }

  #isCompressed(file: TailFile, top: Buffer): boolean {
    const format = compression(top);
    if (format === undefined) return false;
    const { name, log } = this.#context;
    if (!file.skipped) this.#count('CompressedFileCount', 1);
    file.skipped = true;
    file.size = 0;
    if (!this.#saidCompressed)
      log.warn(`${name}: ${file.path} is compressed (${format}). It is not read, nor are others; this is said once.`);
    this.#saidCompressed = true;
    return true;
  }

  async #readSome(file: TailFile): Promise<'more' | 'end' | Rewritten> {
    const { maxBatchCount, batchSize } = this.#options;
    const start = file.position;
    let lines = maxBatchCount > 0 ? maxBatchCount * batchSize : Infinity;
    await this.#reader.begin();
    for (;;) {
      const chunk = await this.#reader.next(file, lines);
      if (chunk === undefined || this.#stopped) return 'end';
      if (chunk === 'rewritten') return chunk;
      if (lines !== Infinity) lines -= chunk.length;
      if (chunk.cut) this.#count('LinePartCount', 1);
      await this.#offer(chunk);
      if (chunk.last) return 'end';
      if (lines <= 0 || (file.position - start >= turnBytes && this.#ready.length > 0)) return 'more';
    }
  }

  /** There is no more in this file for now. */
  async #atEnd(file: TailFile, grew: boolean): Promise<void> {
    const { clock } = this.#context;
    const over =
      file.nul?.held !== true &&
      file.lostAt !== undefined &&
      clock.now() - Math.max(file.lostAt, file.grewAt) >= rotateWait;
    let exists = false;
    const { handle } = file;
    if (!grew && handle !== undefined && (file.idle || over)) {
      // Whole lines first.
      if (this.#openended.delete(file)) {
        file.quiet = true;
        return this.#wake(file);
      }
      const rest = await this.#reader.rest(file);
      if (rest === 'rewritten') return this.#rewritten(file);
      if (rest !== undefined) await this.#offer(rest);
      if (over) exists = (await handle.stat()).nlink > 0;
      await this.#close(file);
      file.rest();
    }
    if (file.lostAt === undefined) this.#lost.delete(file);
    else if (file.handle !== undefined) this.#lost.add(file);
    else this.#forget(file, exists);
    this.#counters['DeletedFileCount'] = this.#lost.size;
    this.#release(file);
  }

  #grew(file: TailFile): void {
    file.grewAt = this.#context.clock.now();
    file.idle = false;
    this.#active.delete(file);
    this.#active.add(file);
  }

  // --- contents that are replaced

  /** Its copy is looked for before it is read from the start: who copies has come to the end before the file is emptied. */
  #rewritten(file: TailFile): void {
    const { name, log } = this.#context;
    this.#count('RewrittenFileCount', 1);
    log.warn(`${name}: ${file.path} was truncated, or written anew; it is read from the start.`);
    file.holds++;
    this.#copies.lost(file.restart());
    this.#discovery.rescan();
  }

  #scanning(): (lost: readonly Former[]) => Promise<void> {
    const find = this.#copies.find();
    return async lost => {
      for (const file of this.#discovery.files.values()) this.#copies.learn(file);
      const heirs = await find(lost, this.#discovery.files.values());
      if (heirs.size === 0) return;
      for (const [former, heir] of heirs) {
        const { file, position, size, watched } = former;
        file.former = undefined;
        if (heir === undefined) this.#truncated(file.path, position, size, watched);
        else {
          const { name, log } = this.#context;
          log.info(
            `${name}: what was in ${file.path} is in ${heir.path} now; it is read from ${heir.position} on there.`,
          );
        }
      }
      // Before anything new is read: otherwise the next start would take the old position for the new content.
      await this.#saveNow();
      for (const [{ file }, heir] of heirs) {
        if (heir !== undefined) {
          if (this.#copies.acquit(heir)) heir.holds--;
          this.#wake(heir);
        }
        file.holds--;
        this.#wake(file);
      }
    };
  }

  /** `watched`: no more than that was in it. */
  #truncated(path: string, from: number, to: number, watched: boolean): void {
    const unknown = watched ? '' : '; how much came behind them is not known';
    if (watched || to > from) return this.#lostBytes(path, from, to, 'was truncated', unknown);
    const { name, log } = this.#context;
    log.warn(`${name}: what ${path} had from byte ${from} on when it was emptied was not read; how much is not known.`);
  }

  #lostBytes(path: string, from: number, to: number, why: string, more = ''): void {
    if (to <= from) return;
    const { name, log } = this.#context;
    log.error(`${name}: ${path} ${why}, and its bytes from ${from} to ${to} were not read${more}.`);
    this.#count('LostByteCount', to - from);
  }

  #count(counter: string, by: number): void {
    this.#counters[counter] = (this.#counters[counter] ?? 0) + by;
  }

  async #failed(file: TailFile, cause: Error): Promise<void> {
    if (!file.failing && !this.#stopped) {
      const { name, log, counters } = this.#context;
      counters.EventReadFail++;
      log.warn(`${name}: ${file.path} cannot be read: ${cause.message}. It is tried again.`, { cause });
    }
    file.failing = true;
    await this.#close(file);
    if (file.lostAt !== undefined) this.#forget(file, true);
    this.#release(file);
  }

  /** It is the turn of the file that has its path now. */
  #release(file: TailFile): void {
    const { successor } = file;
    if (successor === undefined) return;
    file.successor = undefined;
    successor.holds--;
    this.#wake(successor);
  }

  /** It cannot be read any more, or has long been silent under a name that nobody wants. */
  #forget(file: TailFile, exists: boolean): void {
    const { size, position, path, forgotten } = file;
    this.#lost.delete(file);
    this.#active.delete(file);
    this.#openended.delete(file);
    this.#holed.delete(file);
    this.#copies.forget(file);
    this.#discovery.forget(file, exists);
    if (!forgotten && !file.skipped) this.#lostBytes(path, position, size, 'is gone');
    this.#release(file);
  }

  // --- open files

  /** Opens a file if it can be found, and closes the one that was used longest ago if there are too many. */
  async #open(file: TailFile): Promise<void> {
    this.#opened.delete(file);
    if (file.forgotten) return file.close();
    this.#opened.add(file);
    try {
      await file.open();
    } finally {
      if (file.handle === undefined) this.#opened.delete(file);
    }
    if (this.#stopped) return this.#close(file);
    if (this.#opened.size > this.#options.maxOpenFiles) {
      // Not one that has no path any more: it could not be opened again.
      for (const other of this.#opened) {
        if (other === file || other.lostAt !== undefined) continue;
        await this.#close(other);
        break;
      }
    }
    this.#counters['OpenFileCount'] = this.#opened.size;
  }

  async #close(file: TailFile): Promise<void> {
    this.#opened.delete(file);
    this.#counters['OpenFileCount'] = this.#opened.size;
    await file.close();
  }

  // --- from time to time

  #sweepLater(): void {
    const { clock } = this.#context;
    const { idleTimeout, multilineTimeout, nulTimeout = Infinity } = this.#options;
    const interval = Math.min(
      sweepInterval,
      idleTimeout,
      nulTimeout,
      this.#multiline === undefined ? Infinity : multilineTimeout,
    );
    this.#sweepTimer = clock.after(interval, () => {
      for (const file of this.#openended) {
        if (clock.now() - file.grewAt < multilineTimeout) continue;
        this.#openended.delete(file);
        file.quiet = true;
        this.#wake(file);
      }
      for (const file of this.#active) {
        if (clock.now() - file.grewAt < idleTimeout) break;
        this.#active.delete(file);
        file.idle = true;
        // One that is closed and was read to its end is not opened again for that: there may be very many.
        if (file.handle !== undefined || file.position < file.seen) this.#wake(file);
        else file.rest();
      }
      for (const file of this.#lost) this.#wake(file);
      for (const file of this.#holed) this.#wake(file);
      this.#copies.cleared(clock.now()).then(
        files => {
          for (const file of files) {
            file.holds--;
            this.#wake(file);
          }
        },
        (thrown: unknown) => this.#emitter.fail(toError(thrown)),
      );
      if (!this.#stopped) this.#sweepLater();
    });
  }

  #saveLater(): void {
    const { clock } = this.#context;
    this.#saveTimer = clock.after(this.#options.writePosInterval, () => {
      const due = this.#moved || this.#savedChanges !== this.#discovery.changes;
      this.#saving = (due ? this.#saveNow() : Promise.resolve()).then(() => {
        if (!this.#stopped) this.#saveLater();
      });
    });
  }

  /** Trouble with it is reported once, and counted. It is tried again. */
  async #saveNow(): Promise<void> {
    const { log, name } = this.#context;
    const unhealthy = this.#counters['Unhealthy'] === 1;
    try {
      await this.#save();
      if (!unhealthy) return;
      log.info(`${name}: positions can be written again.`);
      this.#trouble(undefined);
    } catch (thrown) {
      const cause = toError(thrown);
      this.#count('PositionWriteFail', 1);
      if (!unhealthy) log.error(`${name}: ${cause.message} It is tried again; a crash now repeats lines.`, { cause });
      this.#trouble(cause);
    }
  }

  /** Positions cannot be written, or can again. */
  #trouble(wrong: Error | undefined): void {
    const { metrics, name } = this.#context;
    this.#counters['Unhealthy'] = Number(wrong !== undefined);
    metrics.trouble(name, wrong);
  }

  /** One at a time: they write into the same file. */
  #save(): Promise<void> {
    return (this.#written = this.#written.catch(() => undefined).then(() => this.#write()));
  }

  async #write(): Promise<void> {
    this.#moved = false;
    this.#savedChanges = this.#discovery.changes;
    try {
      await savePositions(this.#context.disk, this.#options.positionFile, this.#discovery.positions());
    } catch (error) {
      this.#moved = true;
      throw error;
    }
  }
}
