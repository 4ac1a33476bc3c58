/**
 * Looking at a log without touching it: nothing is made, renamed, cut or locked, so that another process may write to it
 * meanwhile. What that process changes under our eyes is not taken for damage: what looks bad is read again once something
 * later is in sight, and a file that was given back is no longer looked at.
 *
 * @module
 */
import { join } from 'node:path';
import { isMissing, type Disk, type DiskFile } from '../core/disk.ts';
import { MillraceError, toError } from '../core/errors.ts';
import type { Batch } from '../core/event.ts';
import { Acked, latest, type Mark } from './acked.ts';
import type { Codec, SegmentCodec } from './codec.ts';
import {
  decodeFrameHeader,
  decodeSegmentHeader,
  frameHeaderSize,
  frameSize,
  headerSize,
  type SegmentHeader,
} from './format.ts';
import { directoriesOf, refuseForeign, type LogDirectories } from './log.ts';
import { decodePayload } from './payload.ts';
import { checkpointPath, decodeCheckpoint, idOf, isSpare, type Checkpoint } from './recovery.ts';
import { readSlots } from './register.ts';
import { begun, firstOf, FrameReader, isNextOf, type Frame, type Segment } from './segment.ts';

/** A segment as it was found. `damaged`: its header was, and this is what must have been in it. */
export interface FoundSegment extends Segment {
  /** Of the file, in bytes. */
  readonly size: number;
}

/** A file with a segment's name, and a header that cannot even be guessed. */
export interface UnreadableFile {
  readonly path: string;
  readonly first: number;
  readonly size: number;
}

/** Events that should be there and cannot be read. */
export interface Gap {
  readonly from: Mark;
  readonly to: Mark;
  /** The file that should have them, and from which byte to which; undefined if there is none. */
  readonly where: { readonly path: string; readonly start: number; readonly end: number } | undefined;
  readonly why: string;
  /** The disk refused to read it: trying again may help. */
  readonly cause?: Error;
}

/** A frame that is as it was written. */
export interface Piece {
  readonly segment: FoundSegment;
  readonly frame: Frame;
  /** Undefined without the key that it needs. */
  readonly batch: Batch | undefined;
}

export const isGap = (found: Piece | Gap): found is Gap => 'why' in found;

/** A log as it is at this moment. */
export interface LogSurvey {
  /** Undefined if nobody knows. */
  readonly id: string | undefined;
  /** By number. All but the last end where the next begins; only the last was read through. */
  readonly segments: readonly FoundSegment[];
  readonly unreadable: readonly UnreadableFile[];
  /** Files that will be used again. */
  readonly spares: readonly string[];
  /** Files that were kept because something was wrong with them. */
  readonly aside: readonly string[];
  /** Undefined if there is no such file. */
  readonly checkpoint: CheckpointFile | undefined;
  /** Which events are done with. */
  readonly acked: Acked;
  /** Behind the last event that was confirmed. */
  readonly end: Mark;
  /** The beginning of a put at the end of the last segment: a crash left it there, or it is being written just now. */
  readonly torn: { readonly path: string; readonly start: number; readonly events: number } | undefined;
}

export interface CheckpointFile {
  readonly path: string;
  /** How often it was written. */
  readonly generation: number;
  /** Of its two slots, how many are damaged. */
  readonly damaged: number;
  /** What it says; undefined if both slots are damaged, or empty. */
  readonly value: Checkpoint | undefined;
  /** It is of this log. */
  readonly own: boolean;
}

/** What was looked at has been given back meanwhile. */
class Moved extends Error {}

/** How often it is looked again when files come and go. */
const mostTries = 100;

/**
 * What is there. Reads the headers and the last segment.
 *
 * @throws MR_CONFIG if this is no log's, MR_FOREIGN_FILES, MR_NEWER_FORMAT, MR_IO.
 */
export const inspectLog = async (disk: Disk, directories: LogDirectories, codec: Codec): Promise<LogSurvey> => {
  for (let tries = 1; ; tries++) {
    try {
      return await survey(disk, directories, codec);
    } catch (thrown) {
      if (!(thrown instanceof Moved) || tries === mostTries) throw thrown;
    }
  }
};

/** Reads everything that should be there, in order. Segments that are given back meanwhile are passed over. */
export async function* readThrough(disk: Disk, log: LogSurvey, codec: Codec): AsyncGenerator<Piece | Gap> {
  const [first] = log.segments;
  let at = first === undefined || first.header.first > log.acked.mark.seq ? log.acked.mark : markOf(first.header);
  for (const segment of log.segments) {
    const begin = markOf(segment.header);
    if (begin.seq > at.seq) yield missing(log, at, begin);
    const end = { seq: segment.end, bytesBefore: segment.bytesAfter };
    try {
      for await (const found of walk(disk, segment, { end, safe: 0, opener: openerOf(codec, segment) })) {
        yield found;
        at = isGap(found) ? found.to : endOf(found);
      }
    } catch (thrown) {
      const cause = toError(thrown);
      if (thrown instanceof MillraceError && at.seq < end.seq)
        yield {
          from: at.seq < begin.seq ? begin : at,
          to: end,
          where: { path: segment.path, start: 0, end: segment.size },
          why: cause.message,
          cause,
        };
      else if (!(thrown instanceof Moved)) throw thrown;
    }
    at = end;
  }
  if (log.end.seq > at.seq) yield missing(log, at, log.end);
}

/** How many events of a stretch are not done with. */
export const countHeld = (acked: Acked, from: number, to: number): number =>
  acked.heldIn(from, to).reduce((count, [start, end]) => count + end - start, 0);

const endOf = ({ frame: { header } }: Piece): Mark => ({
  seq: header.seq + header.count,
  bytesBefore: header.bytesAfter,
});
const markOf = ({ first, bytesBefore }: SegmentHeader): Mark => ({ seq: first, bytesBefore });

/** Events that no segment has. A file that cannot be read at all may be where they are. */
const missing = ({ unreadable, segments, torn }: LogSurvey, from: Mark, to: Mark): Gap => {
  const file = unreadable.find(({ first }) => first >= from.seq && first < to.seq);
  if (file !== undefined)
    return {
      from,
      to,
      where: { path: file.path, start: 0, end: file.size },
      why: 'it does not begin like a segment, and nothing in it can be read',
    };
  const last = segments.at(-1);
  if (last?.end === from.seq && last.size > last.length && torn !== undefined)
    return {
      from,
      to,
      where: { path: last.path, start: last.length, end: last.size },
      why: 'it is damaged or cut off',
    };
  return { from, to, where: undefined, why: 'there is no file that has them' };
};

const survey = async (disk: Disk, directories: LogDirectories, codec: Codec): Promise<LogSurvey> => {
  const { dataDirs, checkpointDir } = directories;
  // What it confirms is in a segment that is seen next, or was done with and is said to be so by the second look.
  const before = await readCheckpoint(disk, checkpointDir);
  const files: Named[] = [];
  const [spares, aside]: [string[], string[]] = [[], []];
  for (const directory of directoriesOf(directories)) {
    const names = (await disk.list(directory)).sort();
    refuseForeign(directory, names);
    for (const name of names) {
      const path = join(directory, name);
      const first = firstOf(name);
      if (first !== undefined && dataDirs.includes(directory)) files.push(await look(disk, directory, path, first));
      else if (isSpare(name)) spares.push(path);
      else if (/^(\d{20}\.seg|acked\.checkpoint|directories\.json)\.(torn|damaged|repaired)/.test(name))
        aside.push(path);
    }
  }
  const checkpoint = await readCheckpoint(disk, checkpointDir);
  if (files.length + spares.length === 0 && checkpoint === undefined)
    throw new MillraceError(
      'MR_CONFIG',
      `${dataDirs.join(', ')}: this is not a file channel's directory; it has neither segments nor acked.checkpoint.`,
    );

  const whole = files.flatMap(file => (file.header === undefined ? [] : [found(file, file.header)]));
  const id = idOf(whole, checkpoint?.value);
  const unreadable: UnreadableFile[] = [];
  for (const file of files) {
    if (file.header !== undefined || file.empty) continue;
    const header = await guessHeader(disk, file, id, codec);
    if (header === undefined) unreadable.push(file);
    else whole.push({ ...found(file, header), damaged: true });
  }
  const segments = whole.sort((a, b) => a.header.first - b.header.first);
  for (const [i, segment] of segments.slice(0, -1).entries()) {
    const next = segments[i + 1] as FoundSegment;
    const hidden = unreadable.find(({ first }) => first > segment.header.first && first < next.header.first);
    segment.end = hidden?.first ?? next.header.first;
    segment.bytesAfter = next.header.bytesBefore;
  }

  const own = checkpoint?.value !== undefined && (id === undefined || checkpoint.value.id.equals(id));
  const confirmed = own ? before?.value : undefined;
  const [first] = segments;
  const last = segments.at(-1);
  const torn = last === undefined ? undefined : await findEnd(disk, last, confirmed?.end ?? 0);
  const acked = own ? checkpoint.value.acked : new Acked(first?.header.first, first?.header.bytesBefore);
  // A segment goes when a checkpoint says that it may. If that one cannot be read, this is an older one.
  if (checkpoint !== undefined && checkpoint.damaged > 0 && first !== undefined && first.header.first > acked.watermark)
    acked.advanceTo(markOf(first.header));
  const ends: [Mark, ...Mark[]] = [acked.mark];
  if (last !== undefined) ends.push({ seq: last.end, bytesBefore: last.bytesAfter });
  if (confirmed !== undefined) ends.push({ seq: confirmed.end, bytesBefore: confirmed.bytes });
  return {
    id: id?.toString('hex'),
    segments,
    unreadable,
    spares,
    aside,
    checkpoint: checkpoint && { ...checkpoint, own },
    acked,
    end: latest(...ends),
    torn,
  };
};

/** A slot that is being written looks damaged; a moment later it does not. */
const readCheckpoint = async (disk: Disk, directory: string): Promise<Omit<CheckpointFile, 'own'> | undefined> => {
  const path = checkpointPath(directory);
  for (let tries = 1; ; tries++) {
    const file = await openIfThere(disk, path);
    if (file === undefined) return undefined;
    const { slots, newest: at, damaged } = await readSlots(file).finally(() => file.close());
    if (damaged > 0 && tries < mostTries) continue;
    const newest = slots[at];
    const value = newest === undefined ? undefined : decodeCheckpoint(newest.value);
    return { path, generation: newest?.generation ?? 0, damaged, value };
  }
};

const openIfThere = async (disk: Disk, path: string): Promise<DiskFile | undefined> => {
  try {
    return await disk.open(path, 'read');
  } catch (thrown) {
    if (isMissing(thrown)) return undefined;
    throw thrown;
  }
};

const opened = async (disk: Disk, path: string): Promise<DiskFile> => {
  const file = await openIfThere(disk, path);
  if (file === undefined) throw new Moved();
  return file;
};

/** A file with a segment's name. */
interface Named {
  readonly directory: string;
  readonly path: string;
  readonly first: number;
  readonly size: number;
  readonly header: SegmentHeader | undefined;
  /** The header's bytes, whatever they are. */
  readonly head: Buffer;
  /** Zeros and no more, where a file system has lost what was not safe. */
  readonly empty: boolean;
}

const look = async (disk: Disk, directory: string, path: string, first: number): Promise<Named> => {
  for (let tries = 1; ; tries++) {
    const file = await opened(disk, path);
    const bytes = Buffer.alloc(headerSize);
    const [read, size] = await Promise.all([file.read(bytes, 0), file.size()]).finally(() => file.close());
    const header = decodeSegmentHeader(bytes.subarray(0, read), path);
    const own = header?.first === first ? header : undefined;
    // It may have been given back, and got its next header, between the two calls.
    if (own === undefined && tries < 3) continue;
    const empty = size <= headerSize && bytes.every(byte => byte === 0);
    return { directory, path, first, size, header: own, head: bytes, empty };
  }
};

const found = ({ directory, path, size }: Named, header: SegmentHeader): FoundSegment => ({
  ...begun(directory, path, header),
  length: size,
  size,
});

/**
 * The header of a file whose header is damaged, if its frames prove the guess: their sums start from its salt. The number of
 * the first event is in the file's name, too, and the log's id in the other files.
 */
const guessHeader = async (
  disk: Disk,
  { path, first, head }: Named,
  id: Buffer | undefined,
  codec: Codec,
): Promise<SegmentHeader | undefined> => {
  const stored = Buffer.from(head.subarray(52));
  const guess = { id: id ?? Buffer.from(head.subarray(16, 32)), first, bytesBefore: 0, salt: head.readUInt32LE(48) };
  const file = await opened(disk, path);
  try {
    const frames = new FrameReader(file, { ...guess, extra: stored });
    const frame = (await frames.next()) ?? (await frames.find());
    if (frame === undefined) return undefined;
    // What encryption needs may be what is damaged: without it there are zeros.
    for (const extra of [stored, Buffer.alloc(stored.length)]) {
      const header = { ...guess, extra };
      const batch = await decoded(openerOf(codec, { header, path }), frame);
      if (batch !== undefined && !(batch instanceof Error))
        return { ...header, bytesBefore: frame.header.bytesAfter - batch.byteLength };
    }
    return { ...guess, extra: stored };
  } finally {
    await file.close();
  }
};

/** Undefined without its key. */
const openerOf = (codec: Codec, { header, path }: Pick<Segment, 'header' | 'path'>): SegmentCodec | undefined => {
  try {
    return codec.of(header, path);
  } catch (thrown) {
    if (thrown instanceof MillraceError && thrown.code === 'MR_WRONG_KEY') return undefined;
    throw thrown;
  }
};

/** The batch; undefined without its key; an error if it makes no sense. */
const decoded = async (
  opener: SegmentCodec | undefined,
  { header, payload }: Frame,
): Promise<Batch | Error | undefined> => {
  if (opener === undefined) return undefined;
  try {
    return decodePayload(header.kind, header.count, await opener.open(header, payload));
  } catch (thrown) {
    // Compressed with what this Node.js does not have: nothing is wrong with it.
    if (thrown instanceof MillraceError) throw thrown;
    return toError(thrown);
  }
};

/** Finds where the last segment ends; returns what is torn behind it. Events before `safe` were confirmed. */
const findEnd = async (disk: Disk, segment: FoundSegment, safe: number): Promise<LogSurvey['torn']> => {
  segment.length = headerSize;
  for await (const piece of walk(disk, segment, { end: undefined, safe, opener: undefined })) {
    if (isGap(piece)) continue;
    const { header, at } = piece.frame;
    segment.end = header.seq + header.count;
    segment.bytesAfter = header.bytesAfter;
    segment.length = at + frameSpan(piece.frame);
  }
  const file = await opened(disk, segment.path);
  try {
    const head = Buffer.alloc(frameHeaderSize);
    if ((await file.read(head, segment.length)) === 0) return undefined;
    const header = decodeFrameHeader(head, 0);
    if (!isNextOf(segment, header) && segment.end >= safe) return undefined;
    return { path: segment.path, start: segment.length, events: header.count };
  } finally {
    await file.close();
  }
};

/** Bytes from the start of a frame to the start of the next. */
export const frameSpan = ({ header }: Frame): number => frameSize(header.length);

interface Walk {
  /** Where it must end; undefined for the last segment, which ends where nothing more is. */
  readonly end: Mark | undefined;
  /** In the last segment: what is before this number was confirmed. */
  readonly safe: number;
  /** Undefined: payloads are not opened. */
  readonly opener: SegmentCodec | undefined;
}

/** Reads a segment from its beginning to its end. */
async function* walk(disk: Disk, segment: FoundSegment, { end, safe, opener }: Walk): AsyncGenerator<Piece | Gap> {
  const { path, header } = segment;
  const file = await opened(disk, path);
  const readerAt = (offset: number, seq: number, group: number): FrameReader => {
    const reader = new FrameReader(file, header, offset, seq);
    reader.group = group;
    return reader;
  };
  try {
    let frames = readerAt(headerSize, header.first, 1);
    let from = markOf(header);
    while (end === undefined || frames.seq < end.seq) {
      const frame = await frames.next();
      if (frame !== undefined) {
        const batch = await decoded(opener, frame);
        const to = endOf({ segment, frame, batch: undefined });
        if (batch instanceof Error) {
          const where = { path, start: frame.at, end: frame.at + frameSpan(frame) };
          yield { from, to, where, why: `its sum is right and its content is not: ${batch.message}` };
        } else yield { segment, frame, batch };
        from = to;
        continue;
      }
      const { offset, seq, group } = frames;
      const provedBy = end === undefined && seq >= safe ? group : -1;
      const probe = readerAt(offset, seq, group);
      let proof = await probe.find();
      while (proof !== undefined && proof.header.group <= provedBy)
        proof = (await probe.next()) ?? (await probe.find());
      // It may have been written just now. Whatever is seen behind it came later: so now it must be there.
      const again = readerAt(offset, seq, group);
      if ((await again.next()) !== undefined) {
        frames = readerAt(offset, seq, group);
        continue;
      }
      await stays(disk, segment);
      if (end === undefined && proof === undefined) return;
      const next = await again.find();
      const isIn = next !== undefined && (end === undefined || next.header.seq < end.seq);
      const size = await file.size();
      const stop = isIn ? next.at : size;
      const where = { path, start: offset, end: stop };
      const to = isIn ? { seq: next.header.seq, bytesBefore: await bytesBefore(opener, next, from) } : (end as Mark);
      const why = isIn ? 'it is not what was written' : 'it is damaged or cut off';
      if (!isIn && offset >= size) yield { from, to, where: undefined, why: 'there is no file that has them' };
      else yield { from, to, where, why };
      if (!isIn) return;
      frames = readerAt(next.at, next.header.seq, next.header.group);
      from = to;
    }
  } finally {
    await file.close();
  }
}

/** How many bytes were before a frame is known together with its own. */
const bytesBefore = async (opener: SegmentCodec | undefined, frame: Frame, least: Mark): Promise<number> => {
  const batch = await decoded(opener, frame);
  return batch === undefined || batch instanceof Error ? least.bytesBefore : frame.header.bytesAfter - batch.byteLength;
};

/** Throws if the file was given back: what is in it now is another segment's. */
const stays = async (disk: Disk, { path, header, damaged }: FoundSegment): Promise<void> => {
  const file = await opened(disk, path);
  const bytes = Buffer.alloc(headerSize);
  await file.read(bytes, 0).finally(() => file.close());
  if (!damaged && decodeSegmentHeader(bytes, path)?.salt !== header.salt) throw new Moved();
};
