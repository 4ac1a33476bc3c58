/**
 * A write-ahead log: batches go in at its end and are safe when {@link EventLog.append} resolves; they are read from the front,
 * and ranges of them are done with in any order. See format.ts for what is in the files, recovery.ts for how they are opened.
 *
 * One loop writes: it takes everything that waits, writes it at once and syncs it at once, and only then tells those who
 * wait. While it is at that, others come to wait; so one sync serves many, the more the busier it is.
 *
 * @module
 */
import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import type { Clock, Timer } from '../core/clock.ts';
import { Deque } from '../core/deque.ts';
import type { Disk, DiskFile } from '../core/disk.ts';
import { MillraceError, toError } from '../core/errors.ts';
import type { Batch, LogLife } from '../core/event.ts';
import type { Acked, Mark, Range } from './acked.ts';
import { Codec, type Fields, type Sealed, type SegmentCodec } from './codec.ts';
import { Directories } from './directories.ts';
import { Draft } from './draft.ts';
import {
  encodeFrameHeader,
  encodeSegmentHeader,
  flag,
  frameHeaderSize,
  frameSize,
  mostGroups,
  sumOf,
} from './format.ts';
import { encodeOffset, Offsets } from './offsets.ts';
import type { Payload } from './payload.ts';
import {
  checkpointPath,
  decodeCheckpoint,
  encodeCheckpoint,
  freeName,
  recover,
  segmentPath,
  sparePath,
} from './recovery.ts';
import { Register } from './register.ts';
import { begun, type Segment } from './segment.ts';

/** When a batch counts as safe. */
export type Fsync = 'commit' | 'never' | { readonly interval: number };

export interface LogOptions {
  /** One or several; segments take turns. */
  readonly dataDirs: readonly string[];
  readonly checkpointDir: string;
  readonly fsync: Fsync;
  /** Bytes from which on a segment is full. */
  readonly maxFileSize: number;
  /** Bytes that must stay free on the disk. */
  readonly minimumRequiredSpace: number;
  /** How often the checkpoint is made safe from a power cut, in ms. */
  readonly checkpointInterval: number;
  /** Default: payloads are written as they are. */
  readonly codec?: Codec;
}

/** What a log needs from outside. */
export interface LogContext {
  readonly disk: Disk;
  readonly clock: Clock;
  /** Something is wrong that nobody waits for. */
  readonly report: (problem: Error) => void;
  /** So many bytes that nobody can guess. Default: those of node:crypto. */
  readonly secret?: (count: number) => Buffer;
}

/** Where a batch is. */
export interface Place extends Mark {
  readonly segment: Segment;
  /** Where its frame begins, and the number of that one's first event. */
  readonly offset: number;
  readonly frame: number;
}

/** The segment that is written to. */
interface Active {
  readonly segment: Segment;
  readonly file: DiskFile;
  readonly codec: SegmentCodec;
  /** The next group. */
  group: number;
  /** A sync has failed: it gets nothing more, and is not asked again. */
  failed: boolean;
}

/** Bytes of one group, at most, unless a single batch is larger. */
const groupSize = 4 * 1024 * 1024;

/** Pieces up to this size are copied into one: writing many small ones costs more. */
const smallPiece = 16 * 1024;

/** Files that are kept to be used again. Two: one is being filled while the next is got ready. */
const mostSpares = 2;

/** How much is written before the free space is looked at again. */
const spaceCheckBytes = 16 * 1024 * 1024;

export class EventLog {
  readonly id: Buffer;
  /** For positions. */
  readonly life: LogLife;
  readonly segments: Segment[];
  /** How far sources had come with what is safe. */
  readonly offsets: Offsets;
  /**
   * How often the disk was asked to make something safe, and how many bytes it was given; events that are missing; bytes that
   * were cut off its end when it was opened, and kept.
   */
  readonly counters = {
    SyncCount: 0,
    BytesWritten: 0,
    LostEventCount: 0,
    TornByteCount: 0,
    CheckpointWriteErrorCount: 0,
  };

  readonly #options: LogOptions;
  readonly #context: LogContext;
  readonly #codec: Codec;
  readonly #acked: Acked;
  #checkpoint!: Register;
  #checkpointTimer: Timer;
  /** The checkpoint on the disk is older than this. */
  #checkpointDue = false;

  /** Behind the last event that is safe. */
  #end: number;
  #bytes: number;
  readonly #queue = new Deque<Draft>();
  #working: Promise<void> | undefined;
  #active: Active | undefined;
  /** A write has failed: what is behind the last safe frame must go before the next one. */
  #torn = false;
  #unsynced = false;
  #syncTimer: Timer;
  readonly #spares: string[];
  #turn = 0;
  #uncheckedBytes = Infinity;
  #reclaiming: Promise<void> | undefined;
  #closed = false;
  #unlock!: () => Promise<void>;

  private constructor(options: LogOptions, context: LogContext, found: Awaited<ReturnType<typeof recover>>) {
    this.#options = options;
    this.#context = context;
    this.#codec = options.codec ?? new Codec({ compression: 'none', activeKey: undefined, keys: {} });
    const { secret = randomBytes } = context;
    this.id = found.id ?? secret(16);
    this.segments = found.segments;
    this.#spares = found.spares;
    this.#acked = found.acked;
    this.offsets = found.offsets;
    this.#end = found.end;
    this.life = { id: this.id.toString('hex'), life: secret(8).toString('hex'), end: found.end };
    this.#bytes = found.bytes;
    this.counters.TornByteCount = found.torn;
  }

  /** Opens it, makes whole what a crash has left, and reports what is missing. */
  static async open(options: LogOptions, context: LogContext): Promise<EventLog> {
    const { disk, report } = context;
    for (const directory of directoriesOf(options)) {
      await disk.makeDirectory(directory);
      refuseForeign(directory, await disk.list(directory));
    }
    const unlock = await lockAll(disk, options, report);
    try {
      const log = await EventLog.#open(options, context);
      log.#unlock = unlock;
      return log;
    } catch (thrown) {
      await unlock();
      throw thrown;
    }
  }

  static async #open(options: LogOptions, context: LogContext): Promise<EventLog> {
    const { disk, report } = context;
    const opened: { log?: EventLog } = {};
    const path = checkpointPath(options.checkpointDir);
    const checkpoint = await Register.open(disk, path, () => (opened.log as EventLog).#checkpointValue());
    try {
      const value = checkpoint.found === undefined ? undefined : decodeCheckpoint(checkpoint.found);
      const directories = await Directories.read(disk, options, report);
      const found = await recover(disk, options.dataDirs, value, checkpoint.damaged > 0);
      const log = (opened.log = new EventLog(options, context, found));
      log.#checkpoint = checkpoint;
      // A wrong key shows now, and not when it is their turn.
      for (const segment of found.segments) log.codecOf(segment);
      for (const problem of found.problems) report(new MillraceError('MR_CORRUPT_FILE', problem));
      if (checkpoint.damaged > 0)
        report(
          new MillraceError(
            'MR_CORRUPT_FILE',
            `${path}: ${checkpoint.damaged} of its 2 slots are damaged. ${value === undefined ? 'Everything that is held is delivered again.' : 'The other one counts.'}`,
          ),
        );
      // Events in a directory that is not named would be given up, and their files would go when it is named again.
      const [missing] = directories.missing;
      if (missing !== undefined && (value === undefined || log.events > 0))
        throw new MillraceError(
          'MR_CONFIG',
          `${options.dataDirs.join(', ')}: a data directory of this log is not among these. It was ${missing.path} when the log was last open` +
            `${options.dataDirs.includes(missing.path) ? ', and another one is there now: is its disk mounted?' : '.'} ` +
            'Name all of them. If it is gone for good, `millrace channel repair --force` goes on without it.',
        );
      // A log of before directories had names.
      if (value !== undefined && options.dataDirs.length < value.directories && log.events > 0)
        throw new MillraceError(
          'MR_CONFIG',
          `${options.dataDirs.join(', ')}: there were ${value.directories} dataDirs when this log was last open, and it holds ${log.events} events. Name all of them, or drain it first.`,
        );
      if (value === undefined && checkpoint.damaged === 0 && found.segments.length > 0)
        report(
          new MillraceError('MR_CORRUPT_FILE', `There is no ${path}: everything that is held is delivered again.`),
        );
      for (const [from, to] of found.lost) log.lose(from, to, 'their file is gone or was cut');
      await log.#trimSpares();
      // Before any of them has an event.
      await directories.write(context.secret);
      // Without it a power cut could leave the checkpoint of before, which knows of holes that were reported just now, and of an
      // end that is none: they would be reported again. And a log that was just made would have none.
      await checkpoint.sync();
      // Without it a power cut could take the checkpoint's name, and everything that is held would be delivered again; or bring
      // back a file that recovery has removed or set aside, beside the next one with the same number.
      for (const directory of directoriesOf(options)) await disk.syncDirectory(directory);
      await log.#reclaim();
      log.#checkpointLater();
      return log;
    } catch (thrown) {
      await checkpoint.close();
      throw thrown;
    }
  }

  /** What opens the payloads of a segment. */
  codecOf({ header, path }: Segment): SegmentCodec {
    return this.#codec.of(header, path);
  }

  /** Behind the last event that is safe. */
  get end(): number {
    return this.#end;
  }

  /** The first event that is not done with. */
  get start(): number {
    return this.#acked.watermark;
  }

  /** Events that are safe and not done with. */
  get events(): number {
    return this.#end - this.#acked.events;
  }

  /** Their bytes, bodies and headers. */
  get bytes(): number {
    return this.#bytes - this.#acked.bytes;
  }

  /** Bytes of its files. */
  get size(): number {
    return this.segments.reduce((sum, { length }) => sum + length, 0);
  }

  /** Which numbers are done with. */
  get acked(): Pick<Acked, 'skip' | 'heldIn'> {
    return this.#acked;
  }

  /** Calls back, always later, when the batch is as safe as `fsync` says, or when it is not in at all. Batches become safe in order. */
  append(batch: Batch, done: (place: Place) => void, failed: (cause: Error) => void): void {
    const put = { batch, done, failed };
    if (this.#queue.last()?.join(put) !== true) this.#queue.push(new Draft(put));
    this.#working ??= this.#work();
  }

  /** These events are done with. Survives the end of the process as soon as the system has it, a power cut from the next checkpoint on. */
  done(range: Range): void {
    this.#acked.add(range);
    // Holes leave their bytes uncertain; here they are known.
    if (this.#acked.watermark === this.#end) this.#acked.advanceTo({ seq: this.#end, bytesBefore: this.#bytes });
    this.#checkpointDue = true;
    this.#checkpoint.write().catch((thrown: unknown) => this.#checkpointFailed(thrown));
    const [first] = this.segments;
    if (first !== undefined && first.end <= this.#acked.watermark && first !== this.#active?.segment)
      void this.#reclaim();
  }

  /** Events that cannot be read, up to the next one that can. They are counted, reported, and done with; true if there were any. */
  lose(from: Mark, to: Mark, why: string): boolean {
    const left = this.#acked.leftIn(from, to);
    for (const range of left) {
      const count = range.end - range.start;
      this.counters.LostEventCount += count;
      const message = `${count} events, numbers ${range.start} to ${range.end - 1}, are missing: ${why}.`;
      this.#context.report(new MillraceError('MR_DATA_LOST', message));
      this.done(range);
    }
    return left.length > 0;
  }

  /** Ends it: what waits is written, the checkpoint is made safe, the files are closed. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { clock } = this.#context;
    clock.cancel(this.#checkpointTimer);
    clock.cancel(this.#syncTimer);
    await this.#working;
    await this.#reclaiming;
    try {
      await this.#seal();
      if (this.#acked.watermark === this.#end) await this.#reclaim();
      // Without it a power cut after this would bring back what was done with since the last one.
      await this.#checkpoint.sync();
    } finally {
      await this.#checkpoint.close();
      await this.#unlock();
    }
  }

  // --- writing

  async #work(): Promise<void> {
    while (this.#queue.length > 0) {
      const group = this.#nextGroup();
      try {
        const frames = await this.#commit(group);
        for (const [i, draft] of group.entries()) draft.done(frames[i] as Place);
      } catch (thrown) {
        const cause = toError(thrown);
        for (const draft of group) draft.failed(cause);
        // Nothing that came later may be in when this is not.
        for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) next.failed(cause);
      }
    }
    this.#working = undefined;
  }

  #nextGroup(): Draft[] {
    const group: Draft[] = [];
    let bytes = 0;
    for (let next = this.#queue.peek(); next !== undefined; next = this.#queue.peek()) {
      bytes += next.byteLength;
      if (group.length > 0 && bytes > groupSize) break;
      group.push(next);
      this.#queue.shift();
    }
    return group;
  }

  /** Writes a group, makes it safe, and only then lets it count. Resolves to where its frames are. */
  async #commit(group: readonly Draft[]): Promise<Place[]> {
    if (this.#torn) await this.#mend();
    const active = await this.#room();
    const { segment, file, codec } = active;
    const contents = group.map(draft => draft.finish());
    const fields = this.#fieldsOf(group, active.group);
    const { seal } = codec;
    const sealed = seal && (await Promise.all(contents.map(({ payload }, i) => seal(fields[i] as Fields, payload))));
    const { frames, pieces, end } = this.#framesOf(group, contents, fields, sealed, segment);
    this.#torn = true;
    await file.write(pieces, segment.length);
    // Was the write no sync, a power cut would take what is confirmed now.
    if (this.#syncsWrites) this.counters.SyncCount++;
    else this.#syncLater();
    this.#torn = false;
    this.counters.BytesWritten += end - segment.length;
    this.#uncheckedBytes += end - segment.length;
    active.group++;
    // It says how far the log goes: else nobody would miss what was in a file that is gone.
    this.#checkpointDue = true;
    const last = fields.at(-1) as Fields;
    segment.length = end;
    segment.end = this.#end = last.seq + last.count;
    segment.bytesAfter = this.#bytes = last.bytesAfter;
    for (const { sourceOffset } of group) if (sourceOffset !== undefined) this.offsets.add(sourceOffset);
    return frames;
  }

  #fieldsOf(group: readonly Draft[], number: number): Fields[] {
    let [seq, bytesAfter] = [this.#end, this.#bytes];
    return group.map(({ count, byteLength }, i) => {
      bytesAfter += byteLength;
      const flags = i === group.length - 1 ? flag.lastOfGroup : 0;
      const fields = { flags, count, seq, group: number, bytesAfter };
      seq += count;
      return fields;
    });
  }

  /** What is to be written, and where it ends. A function of its own: V8 would compile it again for each segment, 50 ms each. */
  #framesOf(
    group: readonly Draft[],
    contents: readonly { readonly payload: Payload; readonly sum: number }[],
    fields: readonly Fields[],
    sealed: readonly Sealed[] | undefined,
    segment: Segment,
  ): { readonly frames: Place[]; readonly pieces: readonly Buffer[]; readonly end: number } {
    const { salt, first } = segment.header;
    const frames: Place[] = [];
    const pieces = new Pieces();
    let offset = segment.length;
    for (let i = 0; i < group.length; i++) {
      const { byteLength, sourceOffset } = group[i] as Draft;
      const { payload, sum } = contents[i] as (typeof contents)[number];
      const { flags, count, seq, group: number, bytesAfter } = fields[i] as Fields;
      frames.push({ seq, bytesBefore: bytesAfter - byteLength, segment, offset, frame: seq });
      const own = encodeOffset(sourceOffset);
      const offsets = seq === first ? this.offsets.encode(own) : own;
      const content = sealed?.[i];
      const parts = content?.pieces ?? payload.pieces;
      const length = (content?.length ?? payload.length) + offsets.length;
      const header = Buffer.allocUnsafe(frameHeaderSize);
      encodeFrameHeader(
        header,
        {
          length,
          kind: payload.kind,
          flags: content?.flags ?? flags,
          offsets: offsets.length,
          count,
          seq,
          group: number,
          bytesAfter,
        },
        salt,
        sumOf([offsets], content === undefined ? sum : sumOf(parts)),
      );
      pieces.add(header);
      for (const part of parts) pieces.add(part);
      pieces.add(offsets);
      pieces.add(padding.subarray(0, frameSize(length) - frameHeaderSize - length));
      offset += frameSize(length);
    }
    return { frames, pieces: pieces.all(), end: offset };
  }

  /** Each write to a segment is a sync: one call of the system for a group, instead of two and a turn between them. */
  get #syncsWrites(): boolean {
    return this.#options.fsync === 'commit';
  }

  async #sync(file: DiskFile): Promise<void> {
    this.counters.SyncCount++;
    await file.sync();
  }

  /** The segment that is written to; a new one when there is none, or when it is full. */
  async #room(): Promise<Active> {
    await this.#checkSpace();
    const { maxFileSize } = this.#options;
    const active = this.#active;
    if (active !== undefined && (active.failed || active.segment.length >= maxFileSize || active.group > mostGroups))
      await this.#seal();
    return this.#active ?? (await this.#begin());
  }

  async #checkSpace(): Promise<void> {
    if (this.#uncheckedBytes < spaceCheckBytes) return;
    const { dataDirs, minimumRequiredSpace } = this.#options;
    for (const directory of dataDirs) {
      const free = await this.#context.disk.free(directory);
      if (free < minimumRequiredSpace)
        throw new MillraceError(
          'MR_DISK_FULL',
          `Usable space exhausted: ${free} bytes are free in ${directory}, and minimumRequiredSpace is ${minimumRequiredSpace}.`,
        );
    }
    this.#uncheckedBytes = 0;
  }

  async #begin(): Promise<Active> {
    const { disk } = this.#context;
    const { dataDirs } = this.#options;
    const directory = dataDirs[this.#turn % dataDirs.length] as string;
    const header = {
      id: this.id,
      first: this.#end,
      bytesBefore: this.#bytes,
      salt: (this.#context.secret ?? randomBytes)(4).readUInt32LE(),
      extra: this.#codec.begin(),
    };
    const at = this.#spares.findIndex(path => dirname(path) === directory);
    const from = at >= 0 ? (this.#spares[at] as string) : join(directory, 'new.segment');
    const path = segmentPath(directory, this.#end);
    const file = await disk.open(from, this.#syncsWrites ? 'synced' : 'write');
    try {
      const bytes = encodeSegmentHeader(header);
      // Safe before it has its name: it could be there after a power cut, and an old header under it.
      await file.write([bytes], 0);
      if (this.#syncsWrites) this.counters.SyncCount++;
      else await this.#sync(file);
      await disk.rename(from, path);
      // Without it the whole segment could be gone after a power cut.
      await disk.syncDirectory(directory);
    } catch (thrown) {
      await file.close().catch(() => undefined);
      throw thrown;
    }
    if (at >= 0) this.#spares.splice(at, 1);
    const segment = begun(directory, path, header);
    this.segments.push(segment);
    // At once: an empty segment that is not the active one may be let go.
    return (this.#active = { segment, file, codec: this.#codec.of(header, path), group: 1, failed: false });
  }

  /** No more is written to the active segment. */
  async #seal(): Promise<void> {
    if (this.#active === undefined) return;
    if (this.#torn) return this.#mend();
    const { file, segment } = this.#active;
    // What is left of the file's former life goes, so that opening it need not look at it.
    await file.truncate(segment.length);
    try {
      await this.#syncLast(this.#active);
    } finally {
      this.#active = undefined;
      this.#turn++;
      await file.close();
    }
  }

  /**
   * Nothing more is going to be written to it. Without the sync a power cut could take what was confirmed since the last one,
   * where that is not done with each commit: the timer asks for the active file only. And it could undo the cut, and bring back
   * behind the end what was never confirmed, or was nacked. When it fails the file is given up: a second one would prove nothing.
   */
  async #syncLast(active: Active): Promise<void> {
    const unsynced = this.#unsynced;
    this.#unsynced = false;
    if (this.#options.fsync === 'never' || active.failed) return;
    try {
      await this.#sync(active.file);
    } catch (thrown) {
      if (unsynced) this.#doubt(active, thrown);
      throw thrown;
    }
  }

  /** What was confirmed can not be taken back; what comes next goes to another file. */
  #doubt(active: Active, thrown: unknown): void {
    active.failed = true;
    const { segment } = active;
    const cause = toError(thrown);
    const message = `${segment.path}: a sync has failed (${cause.message}). What was confirmed since the one before, up to event ${segment.end - 1}, may not be on the disk: a power cut may take it. The next events go to another file.`;
    this.#context.report(new MillraceError('MR_IO', message, { cause }));
  }

  /**
   * A write or a sync has failed, and nobody knows what of it is on the disk; asking again would prove nothing. It was not
   * confirmed: it is cut off, and the next group goes to a new file.
   */
  async #mend(): Promise<void> {
    const { disk } = this.#context;
    if (this.#active === undefined) {
      this.#torn = false;
      return;
    }
    const { file, segment } = this.#active;
    await file.truncate(segment.length);
    // An empty one goes: the next one will have its name, and is in the same directory, so that there are never two.
    const empty = segment.end === segment.header.first;
    try {
      await this.#syncLast(this.#active);
    } finally {
      this.#torn = false;
      this.#active = undefined;
      if (empty) this.segments.pop();
      else this.#turn++;
      await file.close();
    }
    if (empty) await disk.remove(segment.path);
  }

  /** Without it a power cut could take all that was confirmed since the segment began, and not that of one interval only. */
  #syncLater(): void {
    const { fsync } = this.#options;
    this.#unsynced = true;
    if (typeof fsync === 'string' || this.#syncTimer !== undefined) return;
    this.#syncTimer = this.#context.clock.after(fsync.interval, () => {
      this.#syncTimer = undefined;
      const active = this.#active;
      if (!this.#unsynced || active === undefined || active.failed) return;
      this.#unsynced = false;
      this.#sync(active.file).catch((thrown: unknown) => this.#doubt(active, thrown));
    });
  }

  // --- done with

  #checkpointValue(): Buffer {
    const { length: directories } = this.#options.dataDirs;
    return encodeCheckpoint({ id: this.id, end: this.#end, bytes: this.#bytes, directories, acked: this.#acked });
  }

  #checkpointLater(): void {
    this.#checkpointTimer = this.#context.clock.after(
      this.#options.checkpointInterval,
      () => {
        void this.#syncCheckpoint().then(() => {
          if (!this.#closed) this.#checkpointLater();
        });
      },
      true,
    );
  }

  /** Without it a power cut would bring back everything that was done with since a segment was let go last. */
  async #syncCheckpoint(): Promise<void> {
    if (!this.#checkpointDue) return;
    this.#checkpointDue = false;
    await this.#checkpoint.sync().catch((thrown: unknown) => this.#checkpointFailed(thrown));
  }

  #checkpointFailed(thrown: unknown): void {
    this.#checkpointDue = true;
    this.counters.CheckpointWriteErrorCount++;
    this.#context.report(toError(thrown));
  }

  /**
   * Lets go of segments that are done with. Only when the checkpoint that says so is safe: after a power cut the one before would
   * count, and their events would be missing, and reported as lost.
   */
  #reclaim(): Promise<void> {
    return (this.#reclaiming ??= this.#reclaimAll().finally(() => (this.#reclaiming = undefined)));
  }

  async #reclaimAll(): Promise<void> {
    try {
      let { watermark } = this.#acked;
      await this.#checkpoint.sync();
      for (let first = this.segments[0]; first !== undefined; first = this.segments[0]) {
        if (first === this.#active?.segment) return;
        // The last one has the offsets; the next begins with them, as soon as it has a frame.
        const next = this.segments[1];
        if (this.offsets.size > 0 && (next === undefined || next.end === next.header.first)) return;
        if (first.end > watermark) {
          if (first.end > this.#acked.watermark) return;
          watermark = this.#acked.watermark;
          await this.#checkpoint.sync();
        }
        const spare = await this.#letGo(first);
        this.segments.shift();
        if (spare === undefined) continue;
        // Without it a power cut could bring the old name back, with the file's next life under it: damage, to whoever reads it.
        await this.#context.disk.syncDirectory(first.directory);
        this.#spares.push(spare);
      }
    } catch (thrown) {
      this.#checkpointFailed(thrown);
    }
  }

  /** Resolves to the file's name if it can be used again. */
  async #letGo(segment: Segment): Promise<string | undefined> {
    const { disk } = this.#context;
    if (segment.damaged) await disk.rename(segment.path, await freeName(disk, `${segment.path}.damaged`));
    else if (this.#spares.length < mostSpares && !this.#closed) {
      const path = sparePath(segment);
      await disk.rename(segment.path, path);
      return path;
    } else await disk.remove(segment.path);
    return undefined;
  }

  async #trimSpares(): Promise<void> {
    while (this.#spares.length > mostSpares) await this.#context.disk.remove(this.#spares.pop() as string);
  }
}

/** Where a log is. */
export type LogDirectories = Pick<LogOptions, 'dataDirs' | 'checkpointDir'>;

export const directoriesOf = ({ dataDirs, checkpointDir }: LogDirectories): string[] => [
  ...new Set([...dataDirs, checkpointDir]),
];

/** Keeps other processes out of all of its directories, or of none; what it returns ends that. */
export const lockAll = async (
  disk: Disk,
  directories: LogDirectories,
  report: (problem: Error) => void,
): Promise<() => Promise<void>> => {
  const locks: (() => Promise<void>)[] = [];
  const unlock = async () => {
    for (const free of locks) await free();
  };
  try {
    for (const directory of directoriesOf(directories)) {
      const free = await disk.lock?.(directory, report);
      if (free !== undefined) locks.push(free);
    }
    return unlock;
  } catch (thrown) {
    await unlock();
    throw thrown;
  }
};

/** Flume's file channel keeps `log-1`, `log-1.meta`, `in_use.lock` and its checkpoint in directories of the same names. */
export const refuseForeign = (directory: string, names: readonly string[]): void => {
  const flumes = names.find(name =>
    /^(log-\d+(\.meta)?|in_use\.lock|checkpoint(\.meta)?|inflight(puts|takes)|queueset)$/.test(name),
  );
  if (flumes === undefined) return;
  throw new MillraceError(
    'MR_FOREIGN_FILES',
    `${directory} has ${flumes}, a file of Flume's own file channel, and is left as it is. Let Flume drain that channel, ` +
      'or name other directories in dataDirs and checkpointDir.',
  );
};

const padding = Buffer.alloc(8);

/** Pieces for one write; small ones are copied together. */
class Pieces {
  readonly #large: Buffer[] = [];
  #small: Buffer[] = [];

  add(piece: Buffer): void {
    if (piece.length <= smallPiece) {
      if (piece.length > 0) this.#small.push(piece);
      return;
    }
    this.#flush();
    this.#large.push(piece);
  }

  all(): readonly Buffer[] {
    this.#flush();
    return this.#large;
  }

  #flush(): void {
    if (this.#small.length === 1) this.#large.push(this.#small[0] as Buffer);
    else if (this.#small.length > 1) this.#large.push(Buffer.concat(this.#small));
    this.#small = [];
  }
}
