/**
 * Which files there are: finds them, recognises them under other names, and notices what has become of them.
 *
 * Whatever is told about a path is a reason to look at it soon, and nothing else. A scan of everything comes again and
 * again, for what was not told.
 *
 * @module
 */
import type { BigIntStats } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemCode, toError } from '../../core/errors.ts';
import { headers as headersOf } from '../../core/event.ts';
import type { Timer } from '../../core/clock.ts';
import type { SourceContext } from '../../core/source.ts';
import { groupOf, type FileGroup } from './file-groups.ts';
import type { Position, SavedPositions } from './position-file.ts';
import { bornAt, keyOf, TailFile } from './tail-file.ts';
import { watchDirectory, type Watch } from './watch.ts';

/** A scan takes at most this share of the time: a four-hundredth where changes are told, a tenth where they are not. */
const restPerScan = { told: 400, untold: 10 };

export interface DiscoveryOptions {
  readonly groups: readonly FileGroup[];
  readonly saved: SavedPositions;
  /** Files that are there at the start and have no position begin at their end. */
  readonly skipToEnd: boolean;
  /** Header for the path of a file; none if undefined. */
  readonly fileHeader: string | undefined;
  /** Milliseconds from scan to scan, at least. */
  readonly pollInterval: number;
}

interface Found {
  readonly path: string;
  readonly group: FileGroup;
  readonly stats: BigIntStats;
}

export class Discovery {
  /** By device and inode, in the order in which they were found. */
  readonly files = new Map<string, TailFile>();
  /** How often a file has come, gone or got another name. */
  changes = 0;
  readonly #options: DiscoveryOptions;
  readonly #context: SourceContext;
  /** This file may have something new, or has lost its path. */
  readonly #wake: (file: TailFile) => void;
  readonly #fail: (cause: Error) => void;
  readonly #byPath = new Map<string, TailFile>();
  /** Positions whose files have not been found yet. */
  #unclaimed: readonly Position[];
  /** Directory → what watches it, and the inode that it watches; undefined while it cannot be read. */
  readonly #directories = new Map<string, { inode: bigint; watch: Watch } | undefined>();
  readonly #hints = new Set<string>();
  #scanDue = true;
  #scans = 0;
  #told = true;
  #timer: Timer;
  #working: Promise<void> | undefined;
  #stopped = false;

  constructor(
    options: DiscoveryOptions,
    context: SourceContext,
    wake: (file: TailFile) => void,
    fail: (cause: Error) => void,
  ) {
    this.#options = options;
    this.#context = context;
    this.#wake = wake;
    this.#fail = fail;
    this.#unclaimed = options.saved.positions;
  }

  /** Resolves after the first scan. */
  async start(): Promise<void> {
    this.#look();
    await this.#working;
  }

  /** Every file with how far it was delivered, and what was said of files that were not found yet. */
  *positions(): Iterable<Position> {
    for (const { inode, committed, path } of this.files.values()) yield { inode, pos: committed, file: path };
    yield* this.#unclaimed;
  }

  forget(file: TailFile): void {
    file.forgotten = true;
    this.changes++;
    this.files.delete(file.key);
    if (this.#byPath.get(file.path) === file) this.#byPath.delete(file.path);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#context.clock.cancel(this.#timer);
    await this.#working;
    for (const directory of this.#directories.values()) await directory?.watch.close();
  }

  readonly #hint = (path: string | undefined, grew: boolean): void => {
    const file = path === undefined ? undefined : this.#byPath.get(path);
    if (file !== undefined) this.#wake(file);
    if (path === undefined) this.#scanDue = true;
    else if (file !== undefined && grew) return;
    else if (groupOf(this.#options.groups, path) !== undefined) this.#hints.add(path);
    this.#look();
  };

  /** One thing after the other: what was found out about a path must not be overtaken by what was true before. */
  #look(): void {
    if (this.#working !== undefined || this.#stopped || !(this.#scanDue || this.#hints.size > 0)) return;
    this.#working = this.#lookAtAll();
  }

  async #lookAtAll(): Promise<void> {
    try {
      while (!this.#stopped) {
        const [path] = this.#hints;
        if (this.#scanDue) await this.#scan();
        else if (path === undefined) break;
        else {
          this.#hints.delete(path);
          await this.#lookAt(path, groupOf(this.#options.groups, path) as FileGroup);
        }
      }
    } catch (thrown) {
      this.#fail(toError(thrown));
    }
    this.#working = undefined;
  }

  async #lookAt(path: string, group: FileGroup): Promise<void> {
    const stats = await this.#stat(path);
    if (stats === undefined) this.#vanished(path);
    else await this.#found({ path, group, stats }, 0);
  }

  async #scan(): Promise<void> {
    const { groups, pollInterval } = this.#options;
    const { clock } = this.#context;
    this.#scanDue = false;
    clock.cancel(this.#timer);
    const began = clock.now();
    const read = new Set<string>();
    const found: Found[] = [];
    for (const directory of new Set(groups.map(group => group.directory))) {
      const names = await this.#list(directory);
      if (names === undefined) continue;
      read.add(directory);
      for (const name of names) {
        const path = join(directory, name);
        const group = groupOf(groups, path);
        const stats = group && (await this.#stat(path));
        if (this.#stopped) return;
        if (stats !== undefined) found.push({ path, group: group as FileGroup, stats });
      }
    }
    found.sort((a, b) => Number(a.stats.mtimeNs - b.stats.mtimeNs));
    const claims = this.#claim(found, read);
    for (const one of found) await this.#found(one, claims.get(one) ?? this.#firstPosition(one));
    const paths = new Set(found.map(({ path }) => path));
    for (const path of [...this.#byPath.keys()]) {
      if (!paths.has(path) && read.has(dirname(path))) this.#vanished(path);
    }
    this.#scans++;
    if (this.#stopped) return;
    const told = this.#told && [...this.#directories.values()].every(directory => directory !== undefined);
    const rest = (clock.now() - began) * (told ? restPerScan.told : restPerScan.untold);
    this.#timer = clock.after(Math.max(pollInterval, rest), () => {
      this.#scanDue = true;
      this.#look();
    });
  }

  /** The names in a directory, which is watched from now on; undefined if it cannot be read, which is reported once. */
  async #list(directory: string): Promise<readonly string[] | undefined> {
    const known = this.#directories.has(directory);
    const watched = this.#directories.get(directory);
    const { name, log } = this.#context;
    try {
      const { dev, ino } = await stat(directory, { bigint: true });
      const inode = (dev << 64n) | ino;
      if (watched?.inode !== inode) {
        await watched?.watch.close();
        if (known && watched === undefined) log.info(`${name}: the directory ${directory} can be read now.`);
        // Before it is listed, so that what comes after the listing is told.
        const watch = await watchDirectory(directory, this.#hint, cause => this.#untold(directory, cause));
        this.#directories.set(directory, { inode, watch });
      }
      return await readdir(directory);
    } catch (thrown) {
      if (!known || watched !== undefined) {
        const why = systemCode(thrown) === 'ENOENT' ? 'does not exist' : `cannot be read (${toError(thrown).message})`;
        log.warn(`${name}: the directory ${directory} ${why}. It is waited for.`);
      }
      if (systemCode(thrown) === 'ENOENT') {
        for (const path of [...this.#byPath.keys()]) if (dirname(path) === directory) this.#vanished(path);
      }
      this.#directories.set(directory, undefined);
      await watched?.watch.close();
      return undefined;
    }
  }

  #untold(directory: string, cause: Error): void {
    if (this.#told) {
      const { name, log } = this.#context;
      log.warn(
        `${name}: the system does not tell about changes in ${directory} (${cause.message}). ` +
          `Instead of that it is looked at every ${this.#options.pollInterval} ms.`,
        { cause },
      );
    }
    this.#told = false;
  }

  /** A file's stats; undefined if there is none. Links are followed. */
  async #stat(path: string): Promise<BigIntStats | undefined> {
    try {
      const stats = await stat(path, { bigint: true });
      return stats.isFile() ? stats : undefined;
    } catch {
      return undefined;
    }
  }

  /** Whose saved positions are whose: by path and inode first; then by inode alone, for what was renamed meanwhile. */
  #claim(found: readonly Found[], read: ReadonlySet<string>): ReadonlyMap<Found, number> {
    const claims = new Map<Found, number>();
    if (this.#unclaimed.length === 0) return claims;
    const byInode = new Map<bigint, Position[]>();
    for (const position of this.#unclaimed) {
      const same = byInode.get(position.inode);
      if (same === undefined) byInode.set(position.inode, [position]);
      else same.push(position);
    }
    for (const sameName of [true, false]) {
      for (const one of found) {
        const positions = byInode.get(one.stats.ino) ?? [];
        const at = positions.findIndex(({ file }) => !sameName || file === one.path);
        if (at < 0 || this.files.has(keyOf(one.stats)) || claims.has(one)) continue;
        const [position] = positions.splice(at, 1);
        claims.set(one, this.#startOf(one, position as Position));
      }
    }
    // What is in other directories may still turn up.
    this.#unclaimed = Array.from(byInode.values())
      .flat()
      .filter(({ file }) => !read.has(dirname(file)));
    return claims;
  }

  #startOf({ path, stats }: Found, { pos }: Position): number {
    const { name, log } = this.#context;
    // Made after its position was written: another file that got the same inode.
    if (bornAt(stats) > this.#options.saved.writtenAt) return 0;
    if (pos <= Number(stats.size)) return pos;
    log.warn(`${name}: ${path} has ${stats.size} bytes, and was delivered up to ${pos}: it is read from the start.`);
    return 0;
  }

  #firstPosition({ stats }: Found): number {
    return this.#options.skipToEnd && this.#scans === 0 ? Number(stats.size) : 0;
  }

  async #found({ path, group, stats }: Found, start: number): Promise<void> {
    const known = this.files.get(keyOf(stats));
    if (known?.is(stats) === true) return this.#foundAgain(known, path, group, stats);
    if (known !== undefined) {
      this.forget(known);
      this.#wake(known);
    }

    const before = this.#byPath.get(path);
    if (before !== undefined) this.#lost(before);
    const file = new TailFile(path, stats, this.#headers(group, path), start, this.#context.clock.now());
    this.files.set(file.key, file);
    this.changes++;
    this.#byPath.set(path, file);
    // What was there under this name before is read to its end first.
    if (before !== undefined) {
      let last = before;
      while (last.successor !== undefined) last = last.successor;
      last.successor = file;
      file.held = true;
      this.#wake(before);
    } else if (file.size !== file.seen) this.#wake(file);
  }

  async #foundAgain(file: TailFile, path: string, group: FileGroup, stats: BigIntStats): Promise<void> {
    if (file.path !== path || file.lostAt !== undefined) {
      // Two names at a time (links): the first one stays.
      const other = file.path === path || file.lostAt !== undefined ? undefined : await this.#stat(file.path);
      if (other !== undefined && file.is(other)) return;
      const before = this.#byPath.get(path);
      if (before !== undefined && before !== file) this.#lost(before);
      if (this.#byPath.get(file.path) === file) this.#byPath.delete(file.path);
      this.#byPath.set(path, file);
      file.path = path;
      this.changes++;
      file.headers = this.#headers(group, path);
      file.lostAt = undefined;
    }
    file.size = Number(stats.size);
    if (file.size !== file.seen) this.#wake(file);
  }

  #vanished(path: string): void {
    const file = this.#byPath.get(path);
    if (file === undefined) return;
    this.#lost(file);
    this.#wake(file);
  }

  #lost(file: TailFile): void {
    this.#byPath.delete(file.path);
    file.lostAt = this.#context.clock.now();
  }

  #headers(group: FileGroup, path: string) {
    const { fileHeader } = this.#options;
    return fileHeader === undefined ? group.headers : headersOf({ ...group.headers, [fileHeader]: path });
  }
}
