/**
 * What is kept in the tracker directory: how far files were delivered that are not completed, and, with the policy
 * `tracker_dir`, an empty file for each one that is.
 *
 * The positions are JSON: `{ "version": 1, "spoolDir": …, "files": [{ "file", "identity", "size", "mtime", "offset", "parts",
 * "crc" }] }`. A new file replaces the old one at once, so that a crash leaves one of the two. As long as there is
 * none, Flume's own counts, which is left alone. The empty files are as Flume makes them.
 *
 * @module
 */
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { Disk } from '../../core/disk.ts';
import { MillraceError, toError } from '../../core/errors.ts';
import type { SourceOffset } from '../../core/event.ts';
import type { Log } from '../../core/scope.ts';
import { readFlumeTracker, type FlumePosition } from './flume-tracker.ts';
import { LazyOffset } from '../lazy-offset.ts';
import { readWhole, replaceWhole } from '../../core/whole-file.ts';
import type { Look, Mark, SpoolFile } from './spool-file.ts';

/** How far one file was delivered, and how it was then. */
export interface Tracked extends Look, Mark {
  readonly file: string;
  readonly identity: string;
}

const count = z.int().min(0);
const trackedFile = z.object({
  file: z.string(),
  identity: z.string(),
  size: count,
  mtime: z
    .string()
    .regex(/^-?\d+$/)
    .transform(BigInt),
  offset: count,
  parts: count,
  crc: count,
});
const contents = z.object({ version: z.literal(1), spoolDir: z.string(), files: z.array(trackedFile) });

const printable = ({ mtime, ...rest }: Tracked) => ({ ...rest, mtime: String(mtime) });

export class Tracker {
  readonly #path: string;
  readonly #spoolDir: string;
  readonly #directory: string;
  readonly #disk: Disk;
  #saved = '';

  constructor(directory: string, spoolDir: string, disk: Disk) {
    this.#directory = directory;
    this.#path = join(directory, '.flumespool-positions.json');
    this.#spoolDir = spoolDir;
    this.#disk = disk;
  }

  /** What was saved last. What cannot be understood is set aside and reported. */
  async load(log: Log, now: number): Promise<readonly Tracked[]> {
    const text = (await readWhole(this.#disk, this.#path))?.toString();
    if (text === undefined) return [];
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (cause) {
      return this.#setAside(toError(cause).message, log, now);
    }
    const newer = z.object({ version: z.int().min(2) }).safeParse(value);
    if (newer.success) {
      const message = `${this.#path} was written by a newer version (format ${newer.data.version}). Use that version.`;
      throw new MillraceError('MR_NEWER_FORMAT', message);
    }
    const { data, error } = contents.safeParse(value);
    if (data === undefined) return this.#setAside(error.issues[0]?.message ?? '', log, now);
    if (data.spoolDir !== this.#spoolDir) {
      throw new MillraceError(
        'MR_FOREIGN_FILES',
        `${this.#directory} tracks the files of ${data.spoolDir}. Give ${this.#spoolDir} a trackerDir of its own.`,
      );
    }
    this.#saved = text;
    return data.files;
  }

  /** Where Flume was, if this directory was Flume's so far. */
  async flume(): Promise<FlumePosition | undefined> {
    if (this.#saved !== '') return undefined;
    const bytes = await readWhole(this.#disk, join(this.#directory, '.flumespool-main.meta'));
    return bytes && readFlumeTracker(bytes);
  }

  /** Writes it, unless that is what was written last. */
  async save(files: Iterable<Tracked>): Promise<void> {
    const text = JSON.stringify({
      version: 1,
      spoolDir: this.#spoolDir,
      files: Array.from(files, printable),
    });
    if (text === this.#saved) return;
    await replaceWhole(this.#disk, this.#path, text);
    this.#saved = text;
  }

  /** Marks a file as completed, by an empty one. Its directory is still to be synced. */
  async complete(path: string): Promise<void> {
    await this.#disk.makeDirectory(dirname(path));
    const file = await this.#disk.open(path, 'write');
    await file.close();
  }

  async #setAside(problem: string, log: Log, now: number): Promise<readonly Tracked[]> {
    const aside = `${this.#path}.corrupt-${now}`;
    await this.#disk.rename(this.#path, aside);
    const then = `It was set aside as ${aside}; files that were delivered in part are read from the start.`;
    log.error(`${this.#path} is damaged: ${problem}. ${then}`, { code: 'MR_CORRUPT_FILE' });
    return [];
  }
}

/** What a durable channel keeps with what is on its way: it has that before the tracker does, which is written after the ack. */
export const spoolOffset = (prefix: string, file: SpoolFile, mark: Mark): SourceOffset =>
  new LazyOffset(prefix + file.identity, () => JSON.stringify(printable({ ...trackedOf(file), ...mark })));

/** What was tracked, or what a channel knows where that is further. */
export const withOffsets = (tracked: readonly Tracked[], offsets: ReadonlyMap<string, string>): Tracked[] => {
  const all = new Map(tracked.map(one => [one.identity, one]));
  for (const value of offsets.values()) {
    const known = trackedFile.parse(JSON.parse(value));
    const saved = all.get(known.identity);
    if (
      saved === undefined ||
      saved.offset < known.offset ||
      (saved.offset === known.offset && saved.parts < known.parts)
    )
      all.set(known.identity, known);
  }
  return [...all.values()];
};

/** What is to be kept of a file that is not completed. */
export const trackedOf = ({ path, identity, look, committed }: SpoolFile): Tracked => ({
  file: path,
  identity,
  ...look,
  ...committed,
});
