/**
 * Which files are to be read next.
 *
 * @module
 */
import type { BigIntStats } from 'node:fs';
import { opendir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../../core/errors.ts';

export interface ScanOptions {
  readonly spoolDir: string;
  /** Not descended into. */
  readonly trackerDir: string;
  readonly fileSuffix: string;
  /** Matches whole file names. */
  readonly include: RegExp;
  /** Matches whole file names, of directories as well. */
  readonly ignore: RegExp;
  readonly recursive: boolean;
  readonly consumeOrder: 'oldest' | 'youngest' | 'random';
}

export interface Found {
  readonly path: string;
  readonly stats: BigIntStats;
}

/** Whether a file is to be read: yes, not yet, or not before something changes in its directory. */
export type Wanted = 'now' | 'later' | 'never';

/** Files remembered at a time; whatever else there is, is found by the next scan. */
export const scanLimit = 10_000;

/** A directory that changes within this time after its last change may still show the same time, in ms. */
const clockGrain = 2000;

/** A directory that has nothing to read, as long as its time does not change. */
interface Quiet {
  readonly mtime: bigint;
  readonly directories: readonly string[];
}

export class Scanner {
  readonly #options: ScanOptions;
  readonly #wanted: (found: Found) => Wanted | Promise<Wanted>;
  readonly #quiet = new Map<string, Quiet>();

  /** `wanted` has the last word about each file. */
  constructor(options: ScanOptions, wanted: (found: Found) => Wanted | Promise<Wanted>) {
    this.#options = options;
    this.#wanted = wanted;
  }

  /** The files to be read, in order; `more` if there may be others. Throws if the directory cannot be read. */
  async scan(now: number): Promise<{ readonly files: readonly Found[]; readonly more: boolean }> {
    const { spoolDir, consumeOrder } = this.#options;
    const order = orders[consumeOrder];
    let files: Found[] = [];
    let more = false;
    const add = (found: Found): boolean => {
      files.push(found);
      if (order === undefined) more = files.length === scanLimit;
      else if (files.length === 2 * scanLimit) {
        files = files.sort(order).slice(0, scanLimit);
        more = true;
      }
      return order !== undefined || !more;
    };
    // Depth first, without a stack of calls.
    const directories = [spoolDir];
    for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
      try {
        const below = await this.#list(directory, now, add);
        if (below === undefined) break;
        directories.push(...below);
      } catch (thrown) {
        this.#quiet.delete(directory);
        if (directory === spoolDir || systemCode(thrown) !== 'ENOENT') throw thrown;
      }
    }
    if (order !== undefined) files.sort(order);
    if (files.length > scanLimit) more = true;
    return { files: files.slice(0, scanLimit), more };
  }

  /** Adds what is to be read in one directory, and returns those below it; undefined when there are enough. */
  async #list(directory: string, now: number, add: (found: Found) => boolean): Promise<readonly string[] | undefined> {
    const { trackerDir, fileSuffix, include, ignore, recursive } = this.#options;
    const { mtimeNs, mtimeMs } = await stat(directory, { bigint: true });
    const known = this.#quiet.get(directory);
    if (known?.mtime === mtimeNs) return known.directories;
    this.#quiet.delete(directory);
    let quiet = now - Number(mtimeMs) > clockGrain;
    const below: string[] = [];
    for await (const entry of await opendir(directory, { bufferSize: 512 })) {
      const { name } = entry;
      if (name.startsWith('.') || ignore.test(name)) continue;
      const path = join(directory, name);
      if (entry.isDirectory()) {
        if (recursive && path !== trackerDir) below.push(path);
        continue;
      }
      if (name.endsWith(fileSuffix) || !include.test(name)) continue;
      const found = await look(path);
      const wanted = found === undefined ? 'later' : await this.#wanted(found);
      if (wanted !== 'never') quiet = false;
      if (found !== undefined && wanted === 'now' && !add(found)) return undefined;
    }
    if (quiet) this.#quiet.set(directory, { mtime: mtimeNs, directories: below });
    return below;
  }
}

/** A regular file, also behind a link; undefined if it is none, or gone. */
const look = async (path: string): Promise<Found | undefined> => {
  try {
    const stats = await stat(path, { bigint: true });
    return stats.isFile() ? { path, stats } : undefined;
  } catch {
    return undefined;
  }
};

const byPath = (a: Found, b: Found): number => (a.path < b.path ? -1 : 1);
const byTime = (a: Found, b: Found): number => Number(a.stats.mtimeNs - b.stats.mtimeNs);

/** As Flume: of the same age, the smallest name is first. */
const orders = {
  oldest: (a: Found, b: Found) => byTime(a, b) || byPath(a, b),
  youngest: (a: Found, b: Found) => byTime(b, a) || byPath(a, b),
  random: undefined,
} as const;
