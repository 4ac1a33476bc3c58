/**
 * Flume's position file: one line of JSON without a newline at its end,
 *
 *     [{"inode":2427145,"pos":6,"file":"/var/log/app.log"}, …]
 *
 * with `<`, `>`, `&`, `=` and `'` in paths escaped as Gson does, and empty when there are no files. The format was observed
 * in Flume 1.11, which does not start when it finds a fourth key. So what is known of the contents stands in a second file
 * beside it, `<positionFile>.fingerprints`: the same entries with
 *
 *     "born":"<ns since the epoch>","changed":"<ns>","at":6,"head":[<bytes>,"<hash>"],"mark":[<bytes>,"<hash>"],"size":6
 *
 * The position file is what counts: Flume may have written it meanwhile. The second one is evidence of what the files had in
 * them, and counts when the first is damaged, or older: it is written first.
 * Unlike Flume, which writes into the file itself, a new one replaces the old one at once: a crash leaves one of the two.
 *
 * @module
 */
import { stat } from 'node:fs/promises';
import type { Disk } from '../../core/disk.ts';
import { MillraceError, toError } from '../../core/errors.ts';
import type { Log } from '../../core/scope.ts';
import { readWhole, replaceWhole } from '../../core/whole-file.ts';

/** Some bytes, by their number and hash. */
export interface Fingerprint {
  readonly length: number;
  readonly hash: string;
}

/** What a file had in it. */
export interface Evidence {
  /** When the file was made, in nanoseconds since the epoch; 0 where nobody knows. */
  readonly born: bigint;
  /** When it was last changed before this was seen. */
  readonly changed: bigint;
  /** Its first bytes. */
  readonly head: Fingerprint;
  /** Its last bytes before offset `at`. */
  readonly mark: Fingerprint;
  readonly at: number;
  /** How many bytes it had; undefined where nobody has noted it. */
  readonly size?: number | undefined;
}

/** How far one file was delivered. */
export interface Position {
  readonly inode: bigint;
  /** The offset of the first byte that was not delivered. */
  readonly pos: number;
  readonly file: string;
  readonly evidence?: Evidence | undefined;
}

export interface SavedPositions {
  readonly positions: readonly Position[];
  /** When they were written, in nanoseconds since the epoch; 0 if nobody knows. */
  readonly writtenAt: bigint;
}

const gsonEscapes = /[<>&='\u2028\u2029]/g;
const gsonEscape = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
const printed = ({ length, hash }: Fingerprint): string => `[${length},"${hash}"]`;

/** The position file, or with `evidence` the one beside it. */
export const formatPositions = (positions: Iterable<Position>, withEvidence = false): string => {
  const entries = Array.from(positions, ({ inode, pos, file, evidence }) => {
    const path = JSON.stringify(file).replace(gsonEscapes, gsonEscape);
    if (!withEvidence || evidence === undefined) return `{"inode":${inode},"pos":${pos},"file":${path}}`;
    const { born, changed, head, mark, at, size } = evidence;
    const known = `"born":"${born}","changed":"${changed}","at":${at},"head":${printed(head)},"mark":${printed(mark)}`;
    const length = size === undefined ? '' : `,"size":${size}`;
    return `{"inode":${inode},"pos":${pos},"file":${path},${known}${length}}`;
  });
  return entries.length === 0 ? '' : `[${entries.join(',')}]`;
};

const isOffset = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isNumber = (value: unknown): value is string => typeof value === 'string' && /^\d{1,20}$/.test(value);

const fingerprintOf = (value: unknown): Fingerprint | undefined => {
  if (!Array.isArray(value)) return undefined;
  const [length, hash] = value as unknown[];
  return isOffset(length) && typeof hash === 'string' ? { length, hash } : undefined;
};

/** The sound entries, and what is wrong with the text, if anything is. */
export const parsePositions = (
  text: string,
): { readonly positions: readonly Position[]; readonly problem?: string } => {
  if (text.trim() === '') return { positions: [] };
  let entries: unknown;
  try {
    // Inodes may have 64 bits, which JSON.parse would round. Inside of a string the quotes of the key would be escaped.
    entries = JSON.parse(text.replace(/"inode"\s*:\s*(\d+)/g, '"inode":"$1"'));
  } catch (thrown) {
    return { positions: [], problem: toError(thrown).message };
  }
  if (!Array.isArray(entries)) return { positions: [], problem: 'expected an array of {inode, pos, file}' };
  const positions = entries.flatMap((entry: unknown): Position[] => {
    const { inode, pos, file, born, changed, at, head, mark, size } = (entry ?? {}) as Record<string, unknown>;
    if (!isNumber(inode) || !isOffset(pos) || typeof file !== 'string') return [];
    const position = { inode: BigInt(inode), pos, file };
    const [first, last] = [fingerprintOf(head), fingerprintOf(mark)];
    if (first === undefined || last === undefined || !isNumber(born)) return [position];
    if (!isNumber(changed) || !isOffset(at)) return [position];
    const evidence = { born: BigInt(born), changed: BigInt(changed), head: first, mark: last, at };
    return [{ ...position, evidence: isOffset(size) ? { ...evidence, size } : evidence }];
  });
  if (positions.length === entries.length) return { positions };
  const bad = entries.length - positions.length;
  return { positions, problem: `${bad} of ${entries.length} entries are not {inode, pos, file}` };
};

const besides = (path: string): string => `${path}.fingerprints`;
const keyOf = ({ inode, file }: Position): string => `${inode} ${file}`;

/**
 * Reads positions; none if there is no file. A file that is damaged is set aside under another name, and reported; what is
 * sound in it is used, or what stands in the other one. A damaged file never keeps anybody from starting.
 */
export const loadPositions = async (disk: Disk, path: string, log: Log, now: number): Promise<SavedPositions> => {
  const saved = await load(disk, path, log, now);
  if (saved === undefined) return { positions: [], writtenAt: 0n };
  const writtenAt = await changedAt(path);
  const known = await load(disk, besides(path), log, now);
  if (known === undefined) return { positions: saved.positions, writtenAt };
  // A crash came between the two, and the first one may have positions of contents that are gone.
  if (writtenAt < (await changedAt(besides(path))) && known.sound) return { positions: known.positions, writtenAt };
  if (saved.positions.length === 0 && known.positions.length > 0) {
    log.error(`The position file ${path} has no positions; those of ${besides(path)} are used.`, {
      code: 'MR_CORRUPT_FILE',
    });
    return { positions: known.positions, writtenAt };
  }
  const evidence = new Map(known.positions.map(position => [keyOf(position), position.evidence]));
  const positions = saved.positions.map(position => ({ ...position, evidence: evidence.get(keyOf(position)) }));
  return { positions, writtenAt };
};

/** In nanoseconds since the epoch; 0 if nobody knows. */
const changedAt = async (path: string): Promise<bigint> => {
  const { mtimeNs } = await stat(path, { bigint: true }).catch(() => ({ mtimeNs: 0n }));
  return mtimeNs;
};

const load = async (disk: Disk, path: string, log: Log, now: number) => {
  const text = await readText(disk, path);
  if (text === undefined) return undefined;
  const { positions, problem } = parsePositions(text);
  if (problem === undefined) return { positions, sound: true };
  const aside = `${path}.corrupt-${now}`;
  const moved = await disk.rename(path, aside).then(
    () => `It was set aside as ${aside}`,
    (cause: unknown) => `It could not be set aside (${toError(cause).message})`,
  );
  log.error(`The position file ${path} is damaged: ${problem}. ${moved}; what is not known is read from the start.`, {
    code: 'MR_CORRUPT_FILE',
  });
  return { positions, sound: false };
};

const readText = async (disk: Disk, path: string): Promise<string | undefined> => {
  try {
    return (await readWhole(disk, path))?.toString();
  } catch (thrown) {
    throw new MillraceError('MR_IO', `the position file cannot be read: ${toError(thrown).message}`, { cause: thrown });
  }
};

/** Replaces both files, each at once: after a crash there is the old content or the new. */
export const savePositions = async (disk: Disk, path: string, positions: Iterable<Position>): Promise<void> => {
  const all = Array.from(positions);
  try {
    await replaceWhole(disk, besides(path), formatPositions(all, true));
    await replaceWhole(disk, path, formatPositions(all));
  } catch (cause) {
    throw new MillraceError('MR_IO', `positions cannot be written: ${toError(cause).message}`, { cause });
  }
};
