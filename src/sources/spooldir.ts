/**
 * Files that are put into a directory, complete: Flume's `spooldir`.
 *
 * `spooling/` has the parts: `scan` (which files there are), `spool-file` (one of them and how far it has left), `spool-reader`
 * (bytes to events), `charset`, `tracker` (what is kept over a restart). Here they are put together: what is read next, what
 * is set aside, and when a file is completed.
 *
 * @module
 */
import { access, constants, open, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, relative, resolve } from 'node:path';
import { z } from 'zod';
import { Deque } from '../core/deque.ts';
import type { Timer } from '../core/clock.ts';
import { defineSource } from '../core/component.ts';
import { diskError } from '../core/disk.ts';
import { MillraceError, systemCode, toError, type ErrorCode } from '../core/errors.ts';
import { headers as headersOf, type FlumeEvent, type Headers } from '../core/event.ts';
import type { Counters } from '../core/metrics.ts';
import { choice, flag, int, path, text } from '../core/options.ts';
import type { Emitter, Settled, SourceContext, SourceSession } from '../core/source.ts';
import type { Sent } from '../core/acked-in-order.ts';
import { charsetOf, noText } from './spooling/charset.ts';
import { Scanner, scanLimit, type Found, type Wanted } from './spooling/scan.ts';
import {
  beginsAsBefore,
  markAt,
  identityOf,
  lookOf,
  sameLook,
  SpoolFile,
  type Look,
  type Mark,
} from './spooling/spool-file.ts';
import { Changed, NoText, SpoolReader, type Format, type Piece } from './spooling/spool-reader.ts';
import type { FlumePosition } from './spooling/flume-tracker.ts';
import { prefixOf } from './lazy-offset.ts';
import { spoolOffset, trackedOf, Tracker, withOffsets, type Tracked } from './spooling/tracker.ts';

const options = z
  .object({
    spoolDir: path('The directory. It must exist. Each source needs its own.', { exclusive: true }),
    fileSuffix: text('What is added to the name of a file that is completed.', { default: '.COMPLETED' }),
    deletePolicy: choice(['never', 'immediate'])('Whether a file that is completed is deleted.', { default: 'never' }),
    trackingPolicy: choice(['rename', 'tracker_dir'])(
      'How a file that is not deleted is marked as completed: by its name, or by an empty file in trackerDir.',
      { default: 'rename' },
    ),
    trackerDir: path('Where it is kept how far files were delivered; below spoolDir, unless it is absolute.', {
      default: '.flumespool',
    }),
    includePattern: text('Regular expression for the whole names of the files that are wanted.', { default: '^.*$' }),
    ignorePattern: text('Regular expression for the whole names of files and directories that are not.', {
      default: '^$',
    }),
    recursiveDirectorySearch: flag('Whether directories below spoolDir are read, too.', { default: false }),
    consumeOrder: choice(['oldest', 'youngest', 'random'])(
      'Which file is read first. Those of the same time go by name; random is the order of the directory.',
      { default: 'oldest' },
    ),
    pollDelay: int('How often the directory is looked at, at most.', { default: 500, min: 1, unit: 'ms' }),
    minAge: int('Files that were written to more recently than that are left alone for now.', {
      default: 500,
      min: 0,
      unit: 'ms',
    }),
    batchSize: int('Events per delivery, at most. A delivery is of one file.', {
      default: 100,
      min: 1,
      unit: 'events',
    }),
    maxBackoff: int('The longest wait before a delivery that was nacked is tried again.', {
      default: 4000,
      min: 1,
      unit: 'ms',
    }),
    fileHeader: flag('Whether to add a header with the absolute path of the file.', { default: false }),
    fileHeaderKey: text('The name of that header.', { default: 'file' }),
    basenameHeader: flag('Whether to add a header with the name of the file.', { default: false }),
    basenameHeaderKey: text('The name of that header.', { default: 'basename' }),
    deserializer: choice(
      ['LINE', 'BLOB'],
      {
        'org.apache.flume.serialization.LineDeserializer$Builder': 'LINE',
        'org.apache.flume.sink.solr.morphline.BlobDeserializer$Builder': 'BLOB',
      },
      ['AVRO', 'org.apache.flume.serialization.AvroEventDeserializer$Builder'],
    )('What an event is: a line, or all of a file.', { default: 'LINE' }),
    maxLineLength: int('A line that is longer is delivered in parts, with the headers linePart and lineParts.', {
      flume: 'deserializer.maxLineLength',
      formerly: 'bufferMaxLineLength',
      default: 16 * 1024 * 1024,
      min: 4,
      max: 1024 * 1024 * 1024,
      unit: 'bytes',
    }),
    maxBlobLength: int('A file that is longer is delivered in parts, with the headers linePart and lineParts.', {
      flume: 'deserializer.maxBlobLength',
      default: 100_000_000,
      min: 1,
      max: 1024 * 1024 * 1024,
      unit: 'bytes',
    }),
    inputCharset: text('Encoding of lines in files. BLOB takes bytes as they are.', { default: 'UTF-8' }),
    outputCharset: choice(['UTF-8'])('Encoding of lines in events.', {
      flume: 'deserializer.outputCharset',
      default: 'UTF-8',
    }),
    decodeErrorPolicy: choice(['FAIL', 'REPLACE', 'IGNORE'])(
      'What happens to bytes that are no text: their file is set aside, they become U+FFFD, or they are left out.',
      { default: 'FAIL' },
    ),
  })
  .superRefine((given, context) => {
    const problem = (option: keyof typeof given, message: string) =>
      context.addIssue({ code: 'custom', path: [option], message });
    for (const option of ['includePattern', 'ignorePattern'] as const) {
      try {
        whole(given[option]);
      } catch (thrown) {
        problem(option, toError(thrown).message);
      }
    }
    if (given.fileSuffix === '' || given.fileSuffix.includes('/'))
      problem('fileSuffix', 'expected an ending for file names, such as .COMPLETED');
    if (charsetOf(given.inputCharset, 'FAIL') === undefined)
      problem('inputCharset', 'expected an encoding such as UTF-8, ISO-8859-1, windows-1252, UTF-16LE or UTF-16BE');
  });
type Options = z.output<typeof options>;
export type SpooldirOptions = z.input<typeof options>;

/** Matches whole names, as Java's `matches` does. */
function whole(pattern: string): RegExp {
  return new RegExp(`^(?:${pattern})$`);
}

/**
 * Delivers the files in a directory, one after the other, and marks each as completed when all of it is acked.
 *
 * **emits** the lines of one file, without the `\n` that ends them, or whole files; an empty file is one empty event · **pauses**
 * while its deliveries are unsettled, with at most three reads of 512 KiB (or events, if they are longer) in memory ·
 * **completes** when it is stopped · **errors** when the directory is not there or may not be written to, or the tracker
 * directory cannot be read.
 *
 * Files have to be complete when they appear: write them elsewhere, on the same file system, and move them. One that is
 * changed while it is being read is reported and not completed. If it has only become longer, the rest is delivered when it
 * has been quiet for `minAge`. Otherwise it is set aside. So is one with bytes that are no text, after everything before
 * them was delivered, one that cannot be read, and one whose completed name is taken. Set aside means: it stays where it is,
 * how far it was delivered is kept, the other files go on, and it is tried again when it has changed. Move it away, or back
 * under another name to have all of it delivered.
 *
 * What is nacked is delivered again from memory. Positions are written after each ack, as quickly as the disk allows: a
 * stop repeats nothing, a crash what was acked since the last write, and neither loses anything.
 */
export const spooldirSource = defineSource({
  type: 'spooldir',
  className: 'org.apache.flume.source.SpoolDirectorySource',
  summary: 'Files that are put into a directory, line by line.',
  batchSizeOption: 'batchSize',
  options,
  settling: ({ maxBackoff }) => ({ redelivery: { initial: Math.min(250, maxBackoff), max: maxBackoff } }),
  open: options => async (emitter: Emitter<FlumeEvent, Tag>, context) => {
    const spooling = new Spooling(options, emitter, context);
    await spooling.open();
    return spooling;
  },
});

/** A delivery of a file's events, on its way. */
interface Tag {
  readonly file: SpoolFile;
  readonly sent: Sent<Mark>;
}

/** How long somebody may write to a file before it is reported, in ms, besides `minAge`. */
const longWriting = 60_000;

/** A scan takes at most this share of the time: a tenth. */
const restPerScan = 10;

class Spooling implements SourceSession<Tag> {
  readonly #options: Options;
  readonly #emitter: Emitter<FlumeEvent, Tag>;
  readonly #context: SourceContext;
  readonly #counters: Counters;
  readonly #format: Format;
  readonly #spoolDir: string;
  readonly #tracker: Tracker;
  readonly #trackerDir: string;
  readonly #prefix: string;
  readonly #scanner: Scanner;

  /** Files that were begun and are not completed, by path. */
  readonly #files = new Map<string, SpoolFile>();
  /** What the tracker knows of files that were not found again yet. */
  readonly #tracked = new Map<string, Tracked>();
  /** Delivered, and to be completed. */
  readonly #finished = new Set<SpoolFile>();

  /** What was read and not yet handed over; two at most. */
  readonly #pieces = new Deque<Piece>();
  #asked = false;
  #room: (() => void) | undefined;
  #working: Promise<void> = Promise.resolve();
  #resume: (() => void) | undefined;
  #stopped = false;

  #keeping: Promise<void> | undefined;
  #keepAgain = false;
  /** Since when files are left alone because somebody writes to them. */
  readonly #young = new Map<string, number>();
  /** What was last said about the directory, the tracker and files that were completed. */
  readonly #said = new Map<string, string>();

  constructor(options: Options, emitter: Emitter<FlumeEvent, Tag>, context: SourceContext) {
    const { inputCharset, decodeErrorPolicy, maxLineLength, maxBlobLength } = options;
    this.#options = options;
    this.#emitter = emitter;
    this.#context = context;
    const own = { CompletedFileCount: 0, SetAsideFiles: 0, LinePartCount: 0 };
    this.#counters = Object.assign(context.counters, { ...own, ...context.counters });
    const charset = options.deserializer === 'LINE' ? charsetOf(inputCharset, decodeErrorPolicy) : undefined;
    this.#format =
      charset === undefined ? { charset: noText, maxLength: maxBlobLength } : { charset, maxLength: maxLineLength };
    this.#spoolDir = resolve(options.spoolDir);
    this.#trackerDir = resolve(this.#spoolDir, options.trackerDir);
    this.#prefix = prefixOf('spooldir', this.#trackerDir);
    this.#tracker = new Tracker(this.#trackerDir, this.#spoolDir, context.disk);
    this.#scanner = new Scanner(
      {
        spoolDir: this.#spoolDir,
        trackerDir: this.#trackerDir,
        fileSuffix: options.fileSuffix,
        include: whole(options.includePattern),
        ignore: whole(options.ignorePattern),
        recursive: options.recursiveDirectorySearch,
        consumeOrder: options.consumeOrder,
      },
      found => this.#wanted(found),
    );
  }

  async open(): Promise<void> {
    const { log, clock } = this.#context;
    await this.#check();
    const known = await this.#tracker.load(log, clock.now());
    for (const tracked of withOffsets(known, await this.#context.offsets(this.#prefix))) {
      // What is gone by now was moved away, or completed just before a crash.
      const there = await stat(tracked.file, { bigint: true }).catch(() => undefined);
      // Of two with the same name the one counts that is there.
      const isThere = there !== undefined && identityOf(there) === tracked.identity;
      if (isThere || (there !== undefined && !this.#tracked.has(tracked.file)))
        this.#tracked.set(tracked.file, tracked);
    }
    await this.#takeOver(await this.#tracker.flume());
    // Trouble with it shows at the start.
    await this.#save();
    this.#working = this.#work();
  }

  /** Goes on in the file in which Flume was. */
  async #takeOver(position: FlumePosition | undefined): Promise<void> {
    if (position === undefined) return;
    const { name, log } = this.#context;
    const path = resolve(position.file);
    try {
      const handle = await open(path, constants.O_RDONLY);
      try {
        const stats = await handle.stat({ bigint: true });
        const mark = await markAt(handle, position.offset);
        if (mark === undefined) return;
        this.#tracked.set(path, { file: path, identity: identityOf(stats), ...lookOf(stats), ...mark });
        log.info(`${name} goes on at byte ${mark.offset} of ${path}, where Flume was.`);
      } finally {
        await handle.close();
      }
    } catch (thrown) {
      // It was completed, or moved away.
      if (systemCode(thrown) !== 'ENOENT') throw diskError(path, thrown);
    }
  }

  // --- what the kernel calls

  pull(): void {
    this.#asked = true;
    this.#answer();
  }

  settled({ file, sent }: Tag, what: Settled): void {
    if (what !== 'acked') return;
    file.acked(sent);
    this.#ifFinished(file);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#room?.();
    this.#resume?.();
    await this.#working;
  }

  async close(): Promise<void> {
    this.#keep();
    await this.#keeping;
  }

  // --- handing over

  #answer(): void {
    while (this.#asked && !this.#stopped) {
      const piece = this.#pieces.peek();
      if (piece === undefined) return;
      const { file } = piece;
      const { batch, mark } = piece.take(this.#options.batchSize);
      file.mark = mark;
      file.fresh = false;
      const sent = file.send(mark);
      if (piece.empty) {
        file.pieces--;
        this.#pieces.shift();
        this.#room?.();
      }
      this.#asked = false;
      this.#emitter.emit(batch, { file, sent }, spoolOffset(this.#prefix, file, mark));
    }
  }

  /** Hands over a piece; resolves when the next one has room. */
  async #offer(piece: Piece): Promise<void> {
    piece.file.pieces++;
    this.#pieces.push(piece);
    this.#answer();
    if (this.#pieces.length < 2 || this.#stopped) return;
    await new Promise<void>(resolve => (this.#room = resolve));
    this.#room = undefined;
  }

  // --- which file is next

  async #work(): Promise<void> {
    try {
      while (!this.#stopped) await this.#pause(await this.#round());
    } catch (thrown) {
      this.#emitter.fail(toError(thrown));
    }
  }

  /** Finds files and reads them. How long to wait before the next round, in ms. */
  async #round(): Promise<number> {
    const { clock } = this.#context;
    const { pollDelay, consumeOrder } = this.#options;
    await this.#lookAgain();
    const began = clock.now();
    const { files, more } = await this.#scan(began);
    const scanned = clock.now();
    const rest = Math.max(pollDelay, (scanned - began) * restPerScan);
    let wait = rest;
    for (const found of files) {
      if (this.#stopped) break;
      if ((await this.#read(found)) && more) wait = 0;
      // What came meanwhile may go first.
      if (consumeOrder === 'youngest' && clock.now() - scanned >= rest) return 0;
    }
    return wait;
  }

  async #scan(now: number): Promise<{ files: readonly Found[]; more: boolean }> {
    try {
      const found = await this.#scanner.scan(now);
      this.#said.delete(this.#spoolDir);
      return found;
    } catch (thrown) {
      this.#say(this.#spoolDir, `${diskError(this.#spoolDir, thrown).message} It is tried again.`, thrown);
      return { files: [], more: false };
    }
  }

  async #pause(ms: number): Promise<void> {
    const { clock } = this.#context;
    if (this.#stopped || ms === 0) return;
    let timer: Timer;
    await new Promise<void>(resume => {
      this.#resume = resume;
      timer = clock.after(ms, resume);
    });
    clock.cancel(timer);
    this.#resume = undefined;
  }

  async #wanted({ path, stats }: Found): Promise<Wanted> {
    const { minAge, deletePolicy, trackingPolicy } = this.#options;
    const look = lookOf(stats);
    const known = this.#files.get(path);
    if (known !== undefined) {
      const { aside } = known;
      if (known.allRead || known.pieces > 0 || (aside !== undefined && !aside.again && sameLook(aside, look)))
        return 'later';
    } else if (deletePolicy === 'never' && trackingPolicy === 'tracker_dir') {
      const mark = await stat(this.#markOf(path), { bigint: true }).catch(() => undefined);
      if (mark !== undefined) {
        if (mark.mtimeNs < look.mtime) this.#say(path, `${path} was written to after it was completed. ${askToMove}`);
        return 'never';
      }
    }
    const age = this.#context.clock.now() - Number(stats.mtimeMs);
    if (age >= 0 && age < minAge) {
      this.#isYoung(path);
      return 'later';
    }
    this.#young.delete(path);
    return 'now';
  }

  /** Says so if it is for long: it may be a file that is no matter for this source. */
  #isYoung(path: string): void {
    const now = this.#context.clock.now();
    if (this.#young.size >= scanLimit) this.#young.clear();
    const since = this.#young.get(path) ?? now;
    this.#young.set(path, since);
    if (now - since >= this.#options.minAge + longWriting)
      this.#say(
        path,
        `${path} is still being written to. It is read when it was quiet for ${this.#options.minAge} ms.`,
      );
  }

  // --- reading

  /** Reads a file from where it was left to its end; true if that is done. */
  async #read({ path, stats }: Found): Promise<boolean> {
    let file = this.#files.get(path) ?? this.#begin(path, identityOf(stats), lookOf(stats));
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const now = await handle.stat({ bigint: true });
      // Another file by now. The next scan will find it.
      if (identityOf(now) !== identityOf(stats)) {
        if (file.fresh) this.#forget(file);
        return false;
      }
      if (file.identity !== identityOf(now)) file = this.#begin(path, identityOf(now), lookOf(now));
      if (await this.#goesOn(file, handle, lookOf(now))) await this.#readOn(file, handle);
    } catch (thrown) {
      this.#failed(file, thrown);
    } finally {
      await handle?.close().catch(() => undefined);
    }
    this.#ifFinished(file);
    return file.allRead;
  }

  /** A file that is read for the first time in this session. */
  #begin(path: string, identity: string, look: Look): SpoolFile {
    const before = this.#files.get(path);
    if (before !== undefined) this.#gone(before);
    const tracked = this.#tracked.get(path);
    this.#tracked.delete(path);
    const file = new SpoolFile(path, identity, look, this.#headers(path));
    if (tracked?.identity === identity) file.resume(tracked, tracked);
    this.#files.set(path, file);
    return file;
  }

  /** Whether a file that was begun before is still the same as far as it was delivered. */
  async #goesOn(file: SpoolFile, handle: FileHandle, look: Look): Promise<boolean> {
    const { mark } = file;
    file.aside = undefined;
    if (!sameLook(look, file.look)) {
      if (look.size < mark.offset || !(await beginsAsBefore(handle, mark))) {
        const what = `was changed where it had been delivered already, up to byte ${mark.offset}`;
        this.#setAside(file, look, false, `${what}; it has ${look.size} bytes now. ${askToMove}`);
        return false;
      }
      file.look = look;
    }
    return true;
  }

  async #readOn(file: SpoolFile, handle: FileHandle): Promise<void> {
    const reader = new SpoolReader(handle, file, this.#format);
    for (let piece = await reader.next(); piece !== undefined; piece = await reader.next()) {
      if (piece.cut) this.#count('LinePartCount', 1);
      await this.#offer(piece);
      if (this.#stopped) return;
    }
    file.allRead = true;
  }

  #failed(file: SpoolFile, thrown: unknown): void {
    if (this.#stopped) return;
    const { path, look } = file;
    if (thrown instanceof Changed) this.#changed(file);
    else if (thrown instanceof NoText) {
      const { inputCharset } = this.#options;
      const what = `has bytes that are not ${inputCharset} in the line at byte ${thrown.offset}`;
      const how = 'Correct the file, or set inputCharset or decodeErrorPolicy.';
      this.#setAside(file, look, false, `${what}. Everything before was delivered. ${how}`);
    } else if (systemCode(thrown) === 'ENOENT') this.#gone(file);
    else this.#setAside(file, look, true, `cannot be read: ${diskError(path, thrown).message} It is tried again.`);
  }

  /** It was written to while it was read, or before it was completed. */
  #changed(file: SpoolFile): void {
    file.allRead = false;
    this.#report(
      file,
      'was written to while it was being read. What is new will be delivered when it is quiet; ' +
        'better write files elsewhere and move them here.',
    );
  }

  /** It was taken away, or another file has its name. */
  #gone(file: SpoolFile): void {
    const { mark, look, allRead } = file;
    if (!file.fresh && !allRead && mark.offset < look.size) {
      const rest = `its bytes from ${mark.offset} to ${look.size} are not delivered`;
      this.#report(file, `is gone, and ${rest}.`);
    }
    this.#forget(file);
  }

  // --- what is set aside

  #setAside(file: SpoolFile, { size, mtime }: Look, again: boolean, why: string): void {
    file.aside = { size, mtime, again };
    this.#report(file, why, again ? 'MR_IO' : 'MR_BAD_INPUT');
  }

  #report(file: SpoolFile, what: string, code: ErrorCode = 'MR_BAD_INPUT'): void {
    if (file.said === what) return;
    file.said = what;
    const { name, log, counters } = this.#context;
    counters.EventReadFail++;
    log.error(`${name}: ${file.path} ${what}`, { code });
  }

  /** What was set aside may be gone by now, or can be completed. */
  async #lookAgain(): Promise<void> {
    let aside = 0;
    for (const file of this.#files.values()) {
      if (file.aside === undefined) continue;
      if (file.finished) this.#finished.add(file);
      const there = await stat(file.path, { bigint: true }).catch(() => undefined);
      if (there !== undefined && identityOf(there) === file.identity) aside++;
      else if (!file.allRead) this.#gone(file);
    }
    this.#counters['SetAsideFiles'] = aside;
    this.#keep();
  }

  #forget(file: SpoolFile): void {
    this.#finished.delete(file);
    if (this.#files.get(file.path) === file) this.#files.delete(file.path);
  }

  // --- what was delivered

  #ifFinished(file: SpoolFile): void {
    if (file.finished) this.#finished.add(file);
    this.#keep();
  }

  /** Completes what is finished, and writes positions. One thing after the other; what comes meanwhile is next. */
  #keep(): void {
    this.#keepAgain = true;
    this.#keeping ??= this.#keepAll();
  }

  async #keepAll(): Promise<void> {
    while (this.#keepAgain) {
      this.#keepAgain = false;
      try {
        const touched = new Set<string>();
        for (const file of this.#finished) await this.#complete(file, touched);
        // Before the positions: a power cut may bring back the name that a file had.
        for (const directory of touched) await this.#context.disk.syncDirectory(directory);
        await this.#save();
        this.#said.delete(this.#trackerDir);
      } catch (thrown) {
        this.#say(this.#trackerDir, toError(thrown).message, thrown);
      }
    }
    this.#keeping = undefined;
  }

  #save(): Promise<void> {
    const begun = Array.from(this.#files.values()).filter(file => file.committed.offset > 0 || file.finished);
    return this.#tracker.save([...this.#tracked.values(), ...begun.map(trackedOf)]);
  }

  /** Adds the directory in which a name has changed. */
  async #complete(file: SpoolFile, touched: Set<string>): Promise<void> {
    const { deletePolicy, trackingPolicy, fileSuffix } = this.#options;
    const { path, identity } = file;
    const { disk } = this.#context;
    this.#finished.delete(file);
    try {
      const there = await stat(path, { bigint: true }).catch((error: unknown) => {
        if (systemCode(error) === 'ENOENT') return undefined;
        throw error;
      });
      if (there === undefined || identityOf(there) !== identity) {
        const { name, log } = this.#context;
        log.warn(`${name}: ${path} was taken away before it was completed. All of it is delivered.`);
        this.#forget(file);
        return;
      }
      if (!sameLook(lookOf(there), file.look)) {
        this.#changed(file);
        return;
      }
      const mark = deletePolicy === 'never' && trackingPolicy === 'tracker_dir' ? this.#markOf(path) : undefined;
      if (mark !== undefined) await this.#tracker.complete(mark);
      else if (deletePolicy === 'immediate') await disk.remove(path);
      else if (await exists(path + fileSuffix)) {
        const what = `is delivered, but ${path}${fileSuffix} exists already. Move one of them away.`;
        this.#setAside(file, file.look, true, what);
        return;
      } else await disk.rename(path, path + fileSuffix);
      touched.add(dirname(mark ?? path));
    } catch (thrown) {
      const what = `is delivered, but cannot be completed: ${diskError(path, thrown).message} It is tried again.`;
      this.#setAside(file, file.look, true, what);
      return;
    }
    this.#count('CompletedFileCount', 1);
    this.#forget(file);
  }

  // --- this and that

  /** Throws if this source could not do its work. */
  async #check(): Promise<void> {
    const { deletePolicy, trackingPolicy } = this.#options;
    const renames = deletePolicy === 'immediate' || trackingPolicy === 'rename';
    try {
      if (!(await stat(this.#spoolDir)).isDirectory())
        throw new MillraceError('MR_IO', `${this.#spoolDir} is not a directory. Name one in spoolDir.`);
      await access(this.#spoolDir, constants.R_OK | constants.X_OK | (renames ? constants.W_OK : 0));
    } catch (thrown) {
      throw diskError(this.#spoolDir, thrown);
    }
  }

  #headers(path: string): Headers {
    const { fileHeader, fileHeaderKey, basenameHeader, basenameHeaderKey } = this.#options;
    return headersOf({
      ...(fileHeader && { [fileHeaderKey]: path }),
      ...(basenameHeader && { [basenameHeaderKey]: basename(path) }),
    });
  }

  /** Where Flume marks a file as completed. */
  #markOf(path: string): string {
    return resolve(this.#trackerDir, relative(this.#spoolDir, path) + this.#options.fileSuffix);
  }

  #count(counter: string, by: number): void {
    this.#counters[counter] = (this.#counters[counter] ?? 0) + by;
  }

  /** Says it once of each path. */
  #say(path: string, message: string, cause?: unknown): void {
    if (this.#said.get(path) === message) return;
    if (this.#said.size >= scanLimit) this.#said.clear();
    this.#said.set(path, message);
    const { name, log } = this.#context;
    log.error(`${name}: ${message}`, { cause });
  }
}

const askToMove = 'It is left as it is. Move it back under another name to have all of it delivered.';

const exists = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined)) !== undefined;
