/**
 * What `millrace channel` says of a file channel's directory: `inspect`, `verify` and `repair`.
 *
 * @module
 */
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { MillraceError, systemCode, toError } from '../core/errors.ts';
import { lockHolder } from '../core/lock.ts';
import { withHome } from '../core/options.ts';
import { Codec } from '../log/codec.ts';
import { countHeld, inspectLog, isGap, readThrough, type Gap, type LogSurvey } from '../log/inspect.ts';
import type { LogDirectories } from '../log/log.ts';
import { repairLog, type Replacement } from '../log/repair.ts';
import { printProblems, Problems, type Problem, type ReportOptions } from './report.ts';

/** Which channel is meant. */
export interface ChannelArguments {
  readonly dirs: readonly string[];
  /** Default: the first of `dirs`. */
  readonly checkpointDir?: string | undefined;
  /** Keys of an encrypted channel, `name=file:<path>` or `name=env:<variable>`. */
  readonly keys?: readonly string[];
}

/** The directories, all of which are there, and the codec. Throws `MR_CONFIG` with what is wrong. */
export const channelOf = async ({
  dirs,
  checkpointDir,
  keys = [],
}: ChannelArguments): Promise<{ readonly directories: LogDirectories; readonly codec: Codec }> => {
  const dataDirs = [...new Set(dirs.map(withHome))];
  const directories = { dataDirs, checkpointDir: withHome(checkpointDir ?? (dataDirs[0] as string)) };
  for (const directory of [...dataDirs, directories.checkpointDir]) {
    const found = await stat(directory).catch((thrown: unknown) => {
      if (systemCode(thrown) !== 'ENOENT') throw new MillraceError('MR_CONFIG', toError(thrown).message);
      throw new MillraceError('MR_CONFIG', `${directory}: there is no such directory.`);
    });
    if (!found.isDirectory()) throw new MillraceError('MR_CONFIG', `${directory} is a file; name its directory.`);
  }
  const byName = keys.map(key => {
    const at = key.indexOf('=');
    if (at > 0) return [key.slice(0, at), key.slice(at + 1)] as const;
    throw new MillraceError('MR_CONFIG', '--key: expected <name>=file:<path> or <name>=env:<variable>.');
  });
  return {
    directories,
    codec: new Codec({ compression: 'none', activeKey: undefined, keys: Object.fromEntries(byName) }),
  };
};

/** The process that has one of the directories open. */
const holderOf = async ({ dataDirs, checkpointDir }: LogDirectories): Promise<number | undefined> => {
  for (const directory of [checkpointDir, ...dataDirs]) {
    const holder = await lockHolder(directory);
    if (holder !== undefined) return holder;
  }
  return undefined;
};

/** What there is, read-only. */
export const inspectChannel = async (given: ChannelArguments, disk: Disk): Promise<Inspection> => {
  const { directories, codec } = await channelOf(given);
  const log = await inspectLog(disk, directories, codec);
  const path = log.checkpoint?.path;
  return {
    log,
    holder: await holderOf(directories),
    written: path === undefined ? undefined : (await stat(path).catch(() => undefined))?.mtime,
  };
};

export interface Inspection {
  readonly log: LogSurvey;
  /** The process that has it open. */
  readonly holder: number | undefined;
  /** When the checkpoint was. */
  readonly written: Date | undefined;
}

const held = ({ end, acked }: LogSurvey) => ({
  events: end.seq - acked.events,
  bytes: Math.max(0, end.bytesBefore - acked.bytes),
});

/** `3 events`, `1 event` */
export const counted = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;

/** Columns, the last one to the left and the others to the right; nothing if there is only the heading. */
const table = (rows: readonly (readonly (string | number)[])[]): readonly string[] => {
  if (rows.length === 1) return [];
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map(row => String(row[i]).length)));
  return rows.map(row =>
    row.map((cell, i) => (i === row.length - 1 ? String(cell) : String(cell).padStart(widths[i] as number))).join('  '),
  );
};

/** For people. */
export const inspectionAsText = ({ log, holder, written }: Inspection, now: Date): string => {
  const { checkpoint, acked, segments, spares, aside, unreadable, torn } = log;
  const { events, bytes } = held(log);
  const above = acked.ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  const ranges = acked.ranges.length === 0 ? '' : `, and ${above} in ${counted(acked.ranges.length, 'range')} above it`;
  const line = (name: string, text: string) => `${name.padEnd(11)} ${text}`;
  return [
    line('log', log.id ?? 'unknown'),
    line('in use', holder === undefined ? 'by nobody' : `by process ${holder}`),
    line('holds', `${counted(events, 'event')}, ${counted(bytes, 'byte')}`),
    line('done with', `every event before number ${acked.watermark}${ranges}`),
    line('checkpoint', checkpointAsText(checkpoint, written, now)),
    ...(segments.length + unreadable.length === 0 ? [] : ['']),
    ...table([
      ['first', 'end', 'events', 'bytes', 'size', 'segment'],
      ...segments.map(({ header, end, bytesAfter, size, path, damaged }) => [
        header.first,
        end,
        end - header.first,
        bytesAfter - header.bytesBefore,
        size,
        damaged ? `${path} (its header is damaged)` : path,
      ]),
      ...unreadable.map(({ path, first, size }) => [first, '?', '?', '?', size, `${path} (cannot be read)`]),
    ]),
    ...(torn === undefined ? [] : ['', `${torn.path} has the beginning of a put behind its end.`]),
    ...(spares.length === 0 ? [] : ['', `spare: ${spares.join(', ')}`]),
    ...(aside.length === 0 ? [] : ['', `kept aside: ${aside.join(', ')}`]),
  ].join('\n');
};

const checkpointAsText = (checkpoint: LogSurvey['checkpoint'], written: Date | undefined, now: Date): string => {
  if (checkpoint === undefined) return 'none: everything that is there counts as held';
  const { generation, damaged, value, own } = checkpoint;
  if (value === undefined) return 'damaged: everything that is there counts as held';
  const age = written === undefined ? '' : `, ${ageOf(now.getTime() - written.getTime())} old`;
  const trouble = `${damaged > 0 ? '; one of its slots is damaged' : ''}${own ? '' : '; it belongs to another log and does not count'}`;
  return `generation ${generation}${age}${trouble}`;
};

const ageOf = (ms: number): string => {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`;
};

/**
 * For programs. This shape only grows; what is not known is null. Numbers of events count from 0; an `end` is the number
 * behind the last.
 */
export const inspectionAsJson = ({ log, holder, written }: Inspection): string => {
  const { checkpoint, acked, segments, unreadable, spares, aside, torn } = log;
  return JSON.stringify(
    {
      log: log.id ?? null,
      process: holder ?? null,
      held: held(log),
      end: log.end.seq,
      watermark: acked.watermark,
      ranges: acked.ranges.map(({ start, end }) => ({ first: start, end })),
      checkpoint: checkpoint
        ? {
            path: checkpoint.path,
            generation: checkpoint.generation,
            written: written?.toISOString() ?? null,
            damagedSlots: checkpoint.damaged,
            counts: checkpoint.own,
          }
        : null,
      segments: segments.map(({ path, header, end, bytesAfter, size, damaged }) => ({
        path,
        first: header.first,
        end,
        events: end - header.first,
        bytes: bytesAfter - header.bytesBefore,
        size,
        headerDamaged: damaged,
      })),
      unreadable: unreadable.map(({ path, first, size }) => ({ path, first, size })),
      torn: torn ?? null,
      spares,
      aside,
    },
    undefined,
    2,
  );
};

export interface Verdict {
  readonly problems: readonly Problem[];
  /** What was read. */
  readonly read: { readonly segments: number; readonly events: number; readonly bytes: number };
}

const repairs = '`millrace channel repair` sets the file aside and keeps what is sound.';

/** Reads all of it: sums, numbers and content. Read-only. */
export const verifyChannel = async (given: ChannelArguments, disk: Disk): Promise<Verdict> => {
  const { directories, codec } = await channelOf(given);
  const log = await inspectLog(disk, directories, codec);
  const problems = new Problems();
  checkFiles(problems, log);
  checkKeys(problems, log, codec, (given.keys ?? []).length > 0);
  if (log.torn !== undefined && (await holderOf(directories)) === undefined) warnOfTorn(problems, log);
  const read = { segments: log.segments.length, events: 0, bytes: 0 };
  for await (const found of readThrough(disk, log, codec)) {
    if (isGap(found)) {
      reportGap(problems, log, found);
      continue;
    }
    read.events += found.frame.header.count;
    read.bytes += found.frame.payload.length;
  }
  for (const { path, damaged, header, end } of log.segments)
    if (damaged)
      problems.error(
        undefined,
        `its header is damaged, and its ${counted(end - header.first, 'event')} would not be read`,
        {
          file: path,
          code: 'MR_CORRUPT_FILE',
          advice: `Its frames say what was in it: ${repairs}`,
        },
      );
  return { problems: problems.all, read };
};

/** For people: what was read, and what is wrong with it. */
export const verdictAsText = ({ problems, read }: Verdict, options: ReportOptions = {}): string =>
  [
    `read ${counted(read.segments, 'segment')} with ${counted(read.events, 'event')}, ${counted(read.bytes, 'byte')}`,
    printProblems(problems, options),
  ].join('\n');

const checkFiles = (problems: Problems, { checkpoint, segments, unreadable }: LogSurvey): void => {
  for (const { path } of unreadable)
    problems.error(undefined, 'it does not begin like a segment, and nothing in it can be read', {
      file: path,
      code: 'MR_CORRUPT_FILE',
    });
  if (segments.length === 0 && checkpoint !== undefined && checkpoint.value !== undefined) return;
  const code = { code: 'MR_CORRUPT_FILE' } as const;
  const again = 'Everything that is there counts as held, and is delivered again.';
  if (checkpoint === undefined)
    problems.error(undefined, 'there is no acked.checkpoint, which says what was delivered', {
      ...code,
      expected: 'it in the first directory, or in --checkpoint-dir',
      advice: again,
    });
  else if (checkpoint.value === undefined)
    problems.error(undefined, 'both of its slots are damaged', { ...code, file: checkpoint.path, advice: again });
  else if (!checkpoint.own)
    problems.error(undefined, 'it belongs to another log', { ...code, file: checkpoint.path, advice: again });
  else if (checkpoint.damaged > 0)
    problems.warn(undefined, 'one of its two slots is damaged', {
      ...code,
      file: checkpoint.path,
      advice: 'The other one counts. The last events that were delivered may be delivered again.',
    });
};

/** Files that are encrypted with a key that is not there are checked as far as that goes. */
const checkKeys = (problems: Problems, { segments }: LogSurvey, codec: Codec, given: boolean): void => {
  const closed = segments.flatMap(({ header, path }) => {
    try {
      codec.of(header, path);
      return [];
    } catch (thrown) {
      return [{ path, message: toError(thrown).message }];
    }
  });
  const [first] = closed;
  if (first === undefined) return;
  const more = {
    code: 'MR_WRONG_KEY',
    advice: `Of ${counted(closed.length, 'file')} only the sums were checked. Give the key as --key <name>=file:<path>.`,
  } as const;
  if (given) problems.error(undefined, first.message, more);
  else problems.warn(undefined, first.message, more);
};

const warnOfTorn = (problems: Problems, { torn, segments, end }: LogSurvey): void => {
  if (torn === undefined || segments.at(-1)?.end !== end.seq) return;
  problems.warn(
    undefined,
    `from byte ${torn.start} on there is a put of ${counted(torn.events, 'event')} that was never confirmed`,
    {
      file: torn.path,
      code: 'MR_CORRUPT_FILE',
      advice: 'A crash leaves that. Whoever opens the channel cuts it off, and keeps it as .torn.',
    },
  );
};

/** `100 events, numbers 300 to 399,` */
export const numbersOf = ({ from, to }: Gap): string =>
  to.seq - from.seq === 1
    ? `1 event, number ${from.seq},`
    : `${to.seq - from.seq} events, numbers ${from.seq} to ${to.seq - 1},`;

const reportGap = (problems: Problems, { acked, unreadable }: LogSurvey, gap: Gap): void => {
  const { from, to, where, why } = gap;
  const events = countHeld(acked, from.seq, to.seq);
  const code = { code: 'MR_DATA_LOST' } as const;
  if (where === undefined) {
    if (events > 0)
      problems.error(undefined, `${numbersOf(gap)} cannot be read: ${why}`, {
        ...code,
        advice: `${events} of them should be held. Were all of its data directories named? If so, they are lost.`,
      });
    return;
  }
  const message = `bytes ${where.start} to ${where.end}: ${numbersOf(gap)} cannot be read: ${why}`;
  const gone = unreadable.some(({ path }) => path === where.path);
  if (events === 0)
    problems.warn(undefined, message, { ...code, file: where.path, advice: 'All of them are done with.' });
  else
    problems.error(undefined, message, {
      ...code,
      file: where.path,
      advice: `${events === to.seq - from.seq ? 'They' : `${events} of them`} should be held.${gone ? '' : ` ${repairs}`}`,
    });
};

export interface RepairArguments extends ChannelArguments {
  readonly dryRun: boolean;
  readonly force: boolean;
}

/** Sets aside what is damaged, and says what is missing: `lost` events. */
export const repairChannel = async (
  given: RepairArguments,
  disk: Disk,
): Promise<{ readonly text: string; readonly lost: number }> => {
  const { directories, codec } = await channelOf(given);
  const { dryRun, force } = given;
  const { replaced, gaps } = await repairLog(disk, { ...directories, codec, dryRun, force });
  const lines = replaced.map(replacement => replacementAsText(replacement, dryRun));
  for (const gap of gaps) {
    const { path, start, end } = gap.where ?? {};
    lines.push(`missing: ${numbersOf(gap)} ${path === undefined ? gap.why : `in bytes ${start} to ${end} of ${path}`}`);
  }
  const lost = gaps.reduce((sum, { from, to }) => sum + to.seq - from.seq, 0);
  if (lines.length === 0) lines.push('nothing to repair');
  return { text: lines.join('\n'), lost };
};

const replacementAsText = ({ path, aside, into }: Replacement, dryRun: boolean): string => {
  const events = into.reduce((sum, one) => sum + one.events, 0);
  const kept =
    into.length === 0
      ? ''
      : `; its ${counted(events, 'sound event')} ${dryRun ? 'would be' : 'are'} in ${into.map(one => basename(one.path)).join(', ')}`;
  return `${path}: ${dryRun ? 'would be kept' : 'kept'} as ${basename(aside)}${kept}`;
};
