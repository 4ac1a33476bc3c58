/**
 * Flume's position file: one line of JSON without a newline at its end,
 *
 *     [{"inode":2427145,"pos":6,"file":"/var/log/app.log"}, …]
 *
 * with `<`, `>`, `&`, `=` and `'` in paths escaped as Gson does, and empty when there are no files. The format was observed
 * in Flume 1.11. Unlike Flume, which writes into the file itself, a new one replaces the old one at once, so that a crash
 * leaves one of the two.
 *
 * @module
 */
import { mkdir, open, readFile, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { MillraceError, systemCode, toError } from '../../core/errors.ts';
import type { Log } from '../../core/scope.ts';

/** How far one file was delivered. */
export interface Position {
  readonly inode: bigint;
  /** The offset of the first byte that was not delivered. */
  readonly pos: number;
  readonly file: string;
}

export interface SavedPositions {
  readonly positions: readonly Position[];
  /** When they were written, in nanoseconds since the epoch; what was born later is not among them. */
  readonly writtenAt: bigint;
}

const gsonEscapes = /[<>&='\u2028\u2029]/g;
const gsonEscape = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;

export const formatPositions = (positions: Iterable<Position>): string => {
  const entries = Array.from(positions, ({ inode, pos, file }) => {
    const path = JSON.stringify(file).replace(gsonEscapes, gsonEscape);
    return `{"inode":${inode},"pos":${pos},"file":${path}}`;
  });
  return entries.length === 0 ? '' : `[${entries.join(',')}]`;
};

const isOffset = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

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
    const { inode, pos, file } = (entry ?? {}) as Record<string, unknown>;
    const sound = typeof inode === 'string' && /^\d+$/.test(inode) && isOffset(pos) && typeof file === 'string';
    return sound ? [{ inode: BigInt(inode), pos, file }] : [];
  });
  if (positions.length === entries.length) return { positions };
  const bad = entries.length - positions.length;
  return { positions, problem: `${bad} of ${entries.length} entries are not {inode, pos, file}` };
};

/**
 * Reads positions; none if there is no file. A file that is damaged is set aside under another name, and reported; what is
 * sound in it is used.
 */
export const loadPositions = async (path: string, log: Log, now: number): Promise<SavedPositions> => {
  let text: string;
  let writtenAt: bigint;
  try {
    text = await readFile(path, 'utf8');
    writtenAt = (await stat(path, { bigint: true })).mtimeNs;
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return { positions: [], writtenAt: 0n };
    throw new MillraceError('MR_IO', `the position file ${path} cannot be read: ${toError(cause).message}`, { cause });
  }
  const { positions, problem } = parsePositions(text);
  if (problem !== undefined) {
    const aside = `${path}.corrupt-${now}`;
    await rename(path, aside);
    log.error(
      `The position file ${path} is damaged: ${problem}. It was set aside as ${aside}; files without a position are read from the start.`,
      { code: 'MR_CORRUPT_FILE' },
    );
  }
  return { positions, writtenAt };
};

/** Replaces the file at once: after a crash there is the old content or the new. */
export const savePositions = async (path: string, positions: Iterable<Position>): Promise<void> => {
  const next = `${path}.tmp`;
  const folder = dirname(path);
  try {
    await mkdir(folder, { recursive: true });
    const file = await open(next, 'w');
    try {
      await file.writeFile(formatPositions(positions));
      // Without it the rename may reach the disk before the content, and a power cut leaves an empty file.
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(next, path);
    await syncFolder(folder);
  } catch (cause) {
    throw new MillraceError('MR_IO', `positions cannot be written to ${path}: ${toError(cause).message}`, { cause });
  }
};

/** Makes the rename itself durable, where the system can do that. */
const syncFolder = async (folder: string): Promise<void> => {
  try {
    const handle = await open(folder, 'r');
    await handle.sync().finally(() => handle.close());
  } catch (error) {
    // Windows opens no directories, some network file systems sync none.
    if (!['EISDIR', 'EPERM', 'EINVAL', 'ENOTSUP'].includes(systemCode(error) ?? '')) throw error;
  }
};
