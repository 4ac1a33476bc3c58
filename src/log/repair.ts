/**
 * Repairing a log that nobody has open: a segment in which something is damaged is replaced by segments with its sound
 * frames, and is itself kept under another name. Frames are copied as they are, sums, compression and encryption
 * included; only the first of a file gets the offsets of all before it.
 *
 * A crash in the middle loses nothing. First the checkpoint says that what cannot be read is done with. The new files are safe
 * before any gets its name, and get their names from the last to the first; until the first has its own the old file stands in
 * for it, and is read as far as the next begins.
 *
 * @module
 */
import { dirname, join } from 'node:path';
import type { Disk, DiskFile } from '../core/disk.ts';
import { MillraceError } from '../core/errors.ts';
import type { Codec } from './codec.ts';
import { Directories } from './directories.ts';
import {
  encodeFrameHeader,
  encodeSegmentHeader,
  frameHeaderSize,
  frameSize,
  sumOf,
  type SegmentHeader,
} from './format.ts';
import {
  countHeld,
  frameSpan,
  inspectLog,
  isGap,
  readThrough,
  type FoundSegment,
  type Gap,
  type LogSurvey,
} from './inspect.ts';
import type { Mark } from './acked.ts';
import { lockAll, type LogDirectories } from './log.ts';
import { Offsets } from './offsets.ts';
import { checkpointPath, encodeCheckpoint, freeName } from './recovery.ts';
import { Register } from './register.ts';
import { FrameReader, segmentName } from './segment.ts';

/** Sound frames that follow each other. */
interface Run {
  readonly from: Mark;
  readonly start: number;
  end: number;
  events: number;
  /** How far sources have come, up to its first frame. The first of a segment has that of all. */
  readonly offsets: Buffer;
}

/** What is done about one file. */
export interface Replacement {
  readonly path: string;
  /** The name under which it is kept. */
  readonly aside: string;
  /** The new files, and how many events each has. */
  readonly into: readonly { readonly path: string; readonly events: number }[];
}

export interface Repaired {
  readonly replaced: readonly Replacement[];
  /** Events that are not done with and cannot be read. */
  readonly gaps: readonly Gap[];
}

export interface RepairOptions extends LogDirectories {
  readonly codec: Codec;
  /** Only says what would be done. */
  readonly dryRun: boolean;
  /** Goes on although something is missing altogether; see {@link refuseIncomplete}. */
  readonly force: boolean;
}

/**
 * Throws `MR_DATA_LOST` if events are in no file at all, or nobody knows which are done with. A directory may not have been
 * named; whoever went on would take what is in it for done with.
 */
export const refuseIncomplete = ({ segments, checkpoint, acked }: LogSurvey, gaps: readonly Gap[]): void => {
  const gap = gaps.find(({ where, from, to }) => where === undefined && countHeld(acked, from.seq, to.seq) > 0);
  const advice = 'If these are all of its directories, use --force.';
  if (segments.length > 0 && checkpoint === undefined)
    throw new MillraceError(
      'MR_DATA_LOST',
      `There is no acked.checkpoint: name its directory with --checkpoint-dir. ${advice}`,
    );
  if (gap !== undefined)
    throw new MillraceError(
      'MR_DATA_LOST',
      `${gap.to.seq - gap.from.seq} events, numbers ${gap.from.seq} to ${gap.to.seq - 1}, are in no file: name all of its data directories. ${advice}`,
    );
};

/**
 * Sets damaged files aside, and lets the log pass over what cannot be read.
 *
 * @throws MR_LOCKED, MR_WRONG_KEY, MR_IO, MR_DATA_LOST without `force`, and what {@link inspectLog} throws.
 */
export const repairLog = (disk: Disk, options: RepairOptions): Promise<Repaired> => {
  const act = () => rewrite(disk, options);
  return options.dryRun ? act() : locked(disk, options, act);
};

/** Keeps other processes out while it acts. */
export const locked = async <R>(disk: Disk, directories: LogDirectories, act: () => Promise<R>): Promise<R> => {
  const unlock = await lockAll(disk, directories, problem => process.emitWarning(problem));
  return act().finally(unlock);
};

const rewrite = async (disk: Disk, options: RepairOptions): Promise<Repaired> => {
  const { codec, dryRun, force } = options;
  const log = await inspectLog(disk, options, codec);
  for (const { header, path } of log.segments) codec.of(header, path);
  const { runs, gaps } = await plan(disk, log, codec);
  const refused = gaps.find(({ cause }) => cause !== undefined);
  if (refused?.cause !== undefined) throw refused.cause;
  if (!force) refuseIncomplete(log, gaps);
  const held = gaps.filter(({ from, to }) => countHeld(log.acked, from.seq, to.seq) > 0);
  const replaced: Replacement[] = [];
  const { checkpoint } = log;
  // It is written anew, so it is copied.
  if (checkpoint !== undefined && !checkpoint.own && checkpoint.damaged + checkpoint.generation > 0)
    replaced.push(await copyAside(disk, checkpoint.path, dryRun));
  // First: afterwards nobody could tell what was damaged from what is in no file.
  if (!dryRun && held.length + replaced.length > 0)
    await passOver(disk, log, held, checkpointPath(options.checkpointDir));
  for (const segment of log.segments) {
    const inIt = gaps.some(({ where }) => where?.path === segment.path);
    if (inIt || segment.damaged) replaced.push(await replace(disk, segment, runs.get(segment) ?? [], dryRun));
  }
  for (const { path } of log.unreadable) replaced.push(await setAside(disk, path, dryRun));
  // These are all of them, or all that there are any more.
  if (force && !dryRun) await (await Directories.read(disk, options, () => undefined)).write();
  return { replaced, gaps: held };
};

const plan = async (disk: Disk, log: LogSurvey, codec: Codec) => {
  const runs = new Map<FoundSegment, Run[]>();
  const gaps: Gap[] = [];
  const offsets = new Offsets();
  for await (const found of readThrough(disk, log, codec)) {
    if (isGap(found)) {
      gaps.push(found);
      continue;
    }
    const { segment, frame, batch } = found;
    const { seq, count, bytesAfter } = frame.header;
    const some = runs.get(segment) ?? [];
    runs.set(segment, some);
    const last = some.at(-1);
    const end = frame.at + frameSpan(frame);
    if (last?.end === frame.at && last.from.seq + last.events === seq) {
      last.end = end;
      last.events += count;
    } else {
      const from = { seq, bytesBefore: bytesAfter - (batch?.byteLength ?? 0) };
      some.push({ from, start: frame.at, end, events: count, offsets: offsets.encode(frame.offsets) });
    }
    offsets.read(frame.offsets);
  }
  return { runs, gaps };
};

/** Numbers begin at 1: without one it would look like what the log itself has set aside. */
const asideName = (disk: Disk, path: string): Promise<string> => freeName(disk, `${path}.damaged`, 1);

const setAside = async (disk: Disk, path: string, dryRun: boolean): Promise<Replacement> => {
  const aside = await asideName(disk, path);
  if (!dryRun) {
    await disk.rename(path, aside);
    // Without it a power cut brings it back under its name, and the repair has to be made again.
    await disk.syncDirectory(dirname(path));
  }
  return { path, aside, into: [] };
};

const copyAside = async (disk: Disk, path: string, dryRun: boolean): Promise<Replacement> => {
  const aside = await asideName(disk, path);
  if (!dryRun) {
    const from = await disk.open(path, 'read');
    try {
      await write(disk, aside, [], from, 0, await from.size());
    } finally {
      await from.close();
    }
    // Without it a power cut could take the copy's name, after what it is a copy of was replaced.
    await disk.syncDirectory(dirname(path));
  }
  return { path, aside, into: [] };
};

const replace = async (
  disk: Disk,
  segment: FoundSegment,
  runs: readonly Run[],
  dryRun: boolean,
): Promise<Replacement> => {
  const { directory, path, header } = segment;
  const made = runs.map(run => ({ run, path: join(directory, segmentName(run.from.seq)), events: run.events }));
  const into = made.map(({ path: to, events }) => ({ path: to, events }));
  const sameName = made.some(({ path: to }) => to === path);
  if (!sameName && runs.length === 0) return setAside(disk, path, dryRun);
  if (dryRun) return { path, aside: await asideName(disk, path), into };

  const from = await disk.open(path, 'read');
  try {
    for (const { run, path: to } of made) {
      const { seq: first, bytesBefore } = run.from;
      const head = encodeSegmentHeader({ ...header, first, bytesBefore });
      const { pieces, start } = await firstFrame(from, header, run);
      await write(disk, `${to}.repaired`, [head, ...pieces], from, start, run.end);
    }
  } finally {
    await from.close();
  }
  const { aside } = sameName ? await copyAside(disk, path, false) : { aside: await asideName(disk, path) };
  for (const { path: to } of made.reverse()) {
    await disk.rename(`${to}.repaired`, to);
    // Without it a power cut could take the one that is behind, and leave this one.
    await disk.syncDirectory(directory);
  }
  if (!sameName) {
    await disk.rename(path, aside);
    // Without it a power cut brings it back under its name, and the repair has to be made again.
    await disk.syncDirectory(directory);
  }
  return { path, aside, into };
};

/** The first frame with the offsets that it must have now, if those are others; and where the frames begin that stay as they are. */
const firstFrame = async (
  file: DiskFile,
  header: SegmentHeader,
  { from, start, offsets }: Run,
): Promise<{ readonly pieces: readonly Buffer[]; readonly start: number }> => {
  const frame = await new FrameReader(file, header, start, from.seq).next();
  if (frame === undefined || frame.offsets.equals(offsets)) return { pieces: [], start };
  const { payload } = frame;
  const length = offsets.length + payload.length;
  const head = Buffer.alloc(frameHeaderSize);
  encodeFrameHeader(head, { ...frame.header, length, offsets: offsets.length }, header.salt, sumOf([payload, offsets]));
  const padding = Buffer.alloc(frameSize(length) - frameHeaderSize - length);
  return { pieces: [head, payload, offsets, padding], start: start + frameSpan(frame) };
};

/** Bytes per read. */
const chunkSize = 1024 * 1024;

/** A new file: some pieces, then a part of another file. Safe when this resolves, but for its name. */
const write = async (
  disk: Disk,
  path: string,
  pieces: readonly Buffer[],
  from: DiskFile,
  start: number,
  end: number,
): Promise<void> => {
  const file = await disk.open(path, 'write');
  try {
    await file.truncate(0);
    if (pieces.length > 0) await file.write(pieces, 0);
    let to = pieces.reduce((sum, { length }) => sum + length, 0);
    for (let at = start; at < end;) {
      const bytes = Buffer.allocUnsafe(Math.min(chunkSize, end - at));
      const read = await from.read(bytes, at);
      if (read === 0) throw new MillraceError('MR_IO', `${from.path} became shorter while it was copied.`);
      await file.write([bytes.subarray(0, read)], to);
      at += read;
      to += read;
    }
    // Without it the name could be there after a power cut, and not the events that are in no other file by then.
    await file.sync();
  } finally {
    await file.close();
  }
};

/** What cannot be read counts as done with, and the log goes on behind it: else it would be reported each time. */
const passOver = async (disk: Disk, { id, end, acked, checkpoint }: LogSurvey, gaps: readonly Gap[], path: string) => {
  for (const { from, to } of gaps) for (const range of acked.leftIn(from, to)) acked.add(range);
  const own = { id: Buffer.from(id ?? '', 'hex'), end: end.seq, bytes: end.bytesBefore, directories: 1, acked };
  const value = checkpoint?.own === true ? { ...checkpoint.value, ...own } : own;
  const register = await Register.open(disk, path, () => encodeCheckpoint(value));
  try {
    // Without it a power cut after the files were replaced leaves a checkpoint that misses what could not be read.
    await register.sync();
    // The other slot, too: a damaged one would be reported.
    await register.sync();
  } finally {
    await register.close();
  }
  // Without it a power cut could take the name of one that was made just now.
  if (checkpoint === undefined) await disk.syncDirectory(dirname(path));
};
