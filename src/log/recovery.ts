/**
 * Opening a log: what is there, what of it is still wanted, and where it ends. Nothing that is done with is read, and only
 * the last segment is read through, so that the time this takes does not depend on how much is held.
 *
 * @module
 */
import { basename, dirname, join } from 'node:path';
import type { Disk, DiskFile } from '../core/disk.ts';
import { MillraceError } from '../core/errors.ts';
import { Acked, latest, type Mark } from './acked.ts';
import {
  decodeFrameHeader,
  decodeSegmentHeader,
  frameHeaderSize,
  frameSize,
  getNumber,
  headerSize,
  putNumber,
} from './format.ts';
import { longestValue } from './register.ts';
import { Offsets } from './offsets.ts';
import { begun, firstOf, FrameReader, isNextOf, type Frame, segmentName, type Segment } from './segment.ts';

/** What the checkpoint says: which log it belongs to, where that ended, and what of it was done with. */
export interface Checkpoint {
  readonly id: Buffer;
  readonly end: number;
  readonly bytes: number;
  /** How many data directories there were. */
  readonly directories: number;
  readonly acked: Acked;
}

const checkpointHeader = 40;

export const decodeCheckpoint = (value: Buffer): Checkpoint => ({
  id: Buffer.from(value.subarray(0, 16)),
  end: getNumber(value, 16),
  bytes: getNumber(value, 24),
  directories: getNumber(value, 32),
  acked: Acked.decode(value.subarray(checkpointHeader)),
});

export const encodeCheckpoint = ({ id, end, bytes, directories, acked }: Checkpoint): Buffer => {
  const head = Buffer.alloc(checkpointHeader);
  id.copy(head);
  putNumber(head, end, 16);
  putNumber(head, bytes, 24);
  putNumber(head, directories, 32);
  return Buffer.concat([head, acked.encode(longestValue - checkpointHeader)]);
};

/** A log as it was found, made whole. */
export interface Recovered {
  readonly id: Buffer | undefined;
  readonly segments: Segment[];
  /** Files that can be used again. */
  readonly spares: string[];
  readonly acked: Acked;
  /** The number of the next event, and the bytes of all before it. */
  readonly end: number;
  readonly bytes: number;
  /** From where to where events are missing. */
  readonly lost: (readonly [Mark, Mark])[];
  readonly offsets: Offsets;
  /** What was found that should not be, in sentences. */
  readonly problems: string[];
  /** Bytes that were cut off its end, and kept. */
  readonly torn: number;
}

/** What is found out on the way. */
type Findings = Pick<Recovered, 'offsets' | 'problems'> & { torn: number };

/** The file's name in the checkpoint directory. */
export const checkpointPath = (directory: string): string => join(directory, 'acked.checkpoint');

export const spareName = (first: number): string => `${String(first).padStart(20, '0')}.spare`;
export const isSpare = (name: string): boolean => /^\d{20}\.spare$/.test(name);
/** This path, or with a number behind it, from `first` on: what is kept aside never replaces what was kept before. */
export const freeName = async (disk: Disk, path: string, first = 0): Promise<string> => {
  const names = new Set(await disk.list(dirname(path)));
  const named = (n: number) => (n === 0 ? path : `${path}.${n}`);
  let n = first;
  while (names.has(basename(named(n)))) n++;
  return named(n);
};

/**
 * Reads the directories and makes whole what a crash has left. Doing it again finds the same. `doubtful`: there may have been
 * a newer checkpoint.
 */
export const recover = async (
  disk: Disk,
  directories: readonly string[],
  checkpoint: Checkpoint | undefined,
  doubtful: boolean,
): Promise<Recovered> => {
  const findings: Findings = { offsets: new Offsets(), problems: [], torn: 0 };
  const { problems } = findings;
  const looked = await Promise.all(directories.map(directory => look(disk, directory, problems)));
  const segments = looked.flatMap(({ segments: some }) => some).sort((a, b) => a.header.first - b.header.first);
  const spares = looked.flatMap(({ spares: some }) => some);
  const id = idOf(segments, checkpoint);
  const trusted = checkpoint !== undefined && id !== undefined && checkpoint.id.equals(id) ? checkpoint : undefined;
  if (checkpoint !== undefined && trusted === undefined)
    problems.push('The checkpoint belongs to another log and does not count: everything that is held is delivered.');

  const removed = await endOfLast(disk, segments, trusted?.end ?? 0, findings);
  for (const [i, segment] of segments.entries()) {
    const next = segments[i + 1];
    if (next === undefined) continue;
    segment.end = next.header.first;
    segment.bytesAfter = next.header.bytesBefore;
  }

  const [first] = segments;
  const last = segments.at(-1);
  const acked = trusted?.acked ?? new Acked(first?.header.first, first?.header.bytesBefore);
  const watermark = acked.mark;
  // Where it ends, says whoever knows of the latest end.
  const ends: [Mark, ...Mark[]] = [watermark];
  if (last !== undefined) ends.push({ seq: last.end, bytesBefore: last.bytesAfter });
  const found = latest(...ends);
  if (trusted !== undefined) ends.push({ seq: trusted.end, bytesBefore: trusted.bytes });
  if (removed !== undefined) ends.push({ seq: removed.first, bytesBefore: removed.bytesBefore });
  const end = latest(...ends);
  const lost: (readonly [Mark, Mark])[] = [];
  if (first !== undefined && first.header.first > watermark.seq) {
    const begin: Mark = { seq: first.header.first, bytesBefore: first.header.bytesBefore };
    // A file goes when a checkpoint says that it may. If that one can not be read, this is an older one.
    if (doubtful) acked.advanceTo(begin);
    else lost.push([watermark, begin]);
  }
  if (end.seq > found.seq) lost.push([found, end]);
  return { id, segments, spares, acked, end: end.seq, bytes: end.bytesBefore, lost, ...findings };
};

/** Which log the segments, or else the checkpoint, belong to. Throws `MR_FOREIGN_FILES` if they belong to several. */
export const idOf = (segments: readonly Segment[], checkpoint: Checkpoint | undefined): Buffer | undefined => {
  const id = segments[0]?.header.id ?? checkpoint?.id;
  const other = segments.find(({ header }) => id !== undefined && !header.id.equals(id));
  if (other !== undefined)
    throw new MillraceError(
      'MR_FOREIGN_FILES',
      `${other.path} belongs to another log than ${segments[0]?.path}. Each log needs directories of its own; move one of them.`,
    );
  return id;
};

/** The segments and spares of one directory. */
const look = async (disk: Disk, directory: string, problems: string[]) => {
  const segments: Segment[] = [];
  const spares: string[] = [];
  for (const name of (await disk.list(directory)).sort()) {
    const path = join(directory, name);
    if (isSpare(name)) spares.push(path);
    const first = firstOf(name);
    if (first === undefined) continue;
    const file = await disk.open(path, 'read');
    const bytes = Buffer.alloc(headerSize);
    const [read, size] = await Promise.all([file.read(bytes, 0), file.size()]).finally(() => file.close());
    const header = decodeSegmentHeader(bytes, path);
    if (header?.first === first) segments.push({ ...begun(directory, path, header), length: size });
    else if (size <= headerSize && bytes.subarray(0, read).every(byte => byte === 0)) {
      // A header is safe before its file gets this name. Zeros are a file system's own loss, and there was nothing in it.
      await disk.remove(path);
    } else {
      const aside = await freeName(disk, `${path}.damaged`);
      await disk.rename(path, aside);
      problems.push(`${path} does not begin like a segment; it was renamed to ${aside}.`);
    }
  }
  return { segments, spares };
};

/**
 * Finds the end of the last segment and cuts off what is behind it. Without a frame the file is removed, and the one before
 * is the last; returns the header of the one that was removed, which says where that should end. What is before `safe` was
 * confirmed.
 */
const endOfLast = async (
  disk: Disk,
  segments: Segment[],
  safe: number,
  findings: Findings,
): Promise<Segment['header'] | undefined> => {
  let removed: Segment['header'] | undefined;
  for (let last = segments.at(-1); last !== undefined; last = segments.at(-1)) {
    const file = await disk.open(last.path, 'write');
    try {
      const behind = await scan(file, last, safe, findings.offsets);
      await cutTail(disk, file, last, { safe, behind }, findings);
      // What was read may be with the operating system only, as the process was killed before its sync. From now on it counts:
      // sources go on behind it, and so does the next segment. Without this sync a power cut could take it after that, for good.
      await file.sync();
    } finally {
      await file.close();
    }
    if (last.end > last.header.first) break;
    removed ??= last.header;
    segments.pop();
    await disk.remove(last.path);
  }
  return removed;
};

/**
 * Goes through all frames of a segment; what is damaged in the middle is left for whoever reads it. Resolves to where the last
 * sound one ends that does not count, or else to the end of those that do.
 */
const scan = async (file: DiskFile, segment: Segment, safe: number, offsets: Offsets): Promise<number> => {
  const reader = new FrameReader(file, segment.header);
  for (;;) {
    for (let frame = await reader.next(); frame !== undefined; frame = await reader.next())
      take(segment, reader, frame, offsets);
    // In the middle of its last group a crash may have left anything. A later group proves that this one was safe; so does the checkpoint.
    const group = reader.seq < safe ? -1 : reader.group;
    const probe = new FrameReader(file, segment.header, reader.offset, reader.seq);
    probe.group = reader.group;
    let later = await probe.find();
    while (later !== undefined && later.header.group <= group) later = (await probe.next()) ?? (await probe.find());
    if (later === undefined) return probe.offset;
    segment.damaged = true;
    reader.offset = probe.offset;
    reader.seq = probe.seq;
    reader.group = probe.group;
    take(segment, reader, later, offsets);
  }
};

const take = (segment: Segment, { offset, seq }: FrameReader, frame: Frame, offsets: Offsets): void => {
  segment.length = offset;
  segment.end = seq;
  segment.bytesAfter = frame.header.bytesAfter;
  offsets.read(frame.offsets);
};

/** Cuts the file behind its last frame. What looks like more of this life is kept aside. */
const cutTail = async (
  disk: Disk,
  file: DiskFile,
  segment: Segment,
  { safe, behind }: { readonly safe: number; readonly behind: number },
  findings: Findings,
): Promise<void> => {
  const { length, path } = segment;
  const size = await file.size();
  if (size <= length) return;
  const head = Buffer.alloc(frameHeaderSize);
  await file.read(head, length);
  const header = decodeFrameHeader(head, 0);
  const damaged = segment.end < safe;
  const ends = [behind, damaged ? size : 0, isNextOf(segment, header) ? length + frameSize(header.length) : 0];
  const torn = Buffer.alloc(Math.min(Math.max(...ends), size, length + mostKept) - length);
  if (torn.length > 0) {
    await file.read(torn, length);
    const kept = await freeName(disk, `${path}.torn`);
    const aside = await disk.open(kept, 'write');
    try {
      await aside.write([torn], 0);
      await aside.truncate(torn.length);
      // Without it, and its name, a power cut could take what is about to be cut off here.
      await aside.sync();
    } finally {
      await aside.close();
    }
    await disk.syncDirectory(segment.directory);
    const what = damaged
      ? `can not be read from byte ${length} on`
      : `ends in the middle of a put, at byte ${length}: after a crash it was never confirmed, but damage to the last put would look the same`;
    findings.problems.push(`${path} ${what}; ${torn.length} bytes are kept in ${kept}.`);
    findings.torn += torn.length;
  }
  await file.truncate(length);
};

/** Bytes of a torn tail that are kept. */
const mostKept = 16 * 1024 * 1024;

/** Where a new segment that begins with this event goes. */
export const segmentPath = (directory: string, first: number): string => join(directory, segmentName(first));

export const sparePath = ({ path, header }: Segment): string => join(dirname(path), spareName(header.first));
