/**
 * Which files there are: finds them, recognises them under other names, and notices what has become of them.
 *
 * Whatever is told about a path is a reason to look at it soon, and nothing else. A scan of everything comes again and
 * again, for what was not told.
 *
 * @module
 */
import type { BigIntStats, Dirent } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { systemCode, toError } from '../../core/errors.ts';
import { headers as headersOf } from '../../core/event.ts';
import type { Timer } from '../../core/clock.ts';
import type { SourceContext } from '../../core/source.ts';
import { groupOf, type FileGroup } from './file-groups.ts';
import type { Position, SavedPositions } from './position-file.ts';
import { bornAt, keyOf, TailFile, type Former } from './tail-file.ts';
import { watchDirectory, type Watch } from './watch.ts';

/** A scan takes at most this share of the time: a six-hundredth where changes are told, a tenth where they are not. */
const restPerScan = { told: 600, untold: 10 };

/** After so many hints everything is looked at soon: the system drops hints when 16,384 of them wait, and tells nobody. */
const hintsPerScan = 10_000;

/** Files that have no path any more, but still exist, and may come back under their names: so many are remembered. */
const maxRemembered = 1000;

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
  /** Where the path leads. */
  readonly target: string;
  readonly group: FileGroup;
  readonly stats: BigIntStats;
}

/** What discovery tells. */
export interface Finder {
  /** This file may have something new, or has lost its path. */
  wake(file: TailFile): void;
  /** There is another file in its place. */
  gone(file: TailFile): void;
  /** All files are looked at from now on; what is returned is called when they have been, with contents that are gone. */
  scanning(): (lost: readonly Former[]) => Promise<void>;
  fail(cause: Error): void;
}

export class Discovery {
  /** By device and inode, in the order in which they were found. */
  readonly files = new Map<string, TailFile>();
  /** How often a file has come, gone or got another name. */
  changes = 0;
  readonly #options: DiscoveryOptions;
  readonly #context: SourceContext;
  readonly #finder: Finder;
  readonly #byPath = new Map<string, TailFile>();
  /** Positions whose files have not been found yet. */
  #unclaimed: readonly Position[];
  /** Files that exist, but not under a name that is wanted; the one that was lost longest ago first. */
  readonly #remembered = new Map<string, TailFile>();
  /** What links lead to → the path. */
  readonly #links = new Map<string, string>();
  /** Directories that are watched only for what links lead to. */
  readonly #linked = new Map<string, Promise<Watch>>();
  /** Names that are no text: reported. */
  readonly #unreadable = new Set<string>();
  /** Directory → what watches it, the inode that it watches, and its name without links; undefined while it cannot be read. */
  readonly #directories = new Map<string, { inode: bigint; watch: Watch; real: string } | undefined>();
  readonly #hints = new Set<string>();
  /** Of files that are held now. */
  readonly #lostContents: Former[] = [];
  #scanDue = true;
  #scans = 0;
  #hinted = 0;
  #scanTook = 0;
  #told = true;
  #timer: Timer;
  #working: Promise<void> | undefined;
  #stopped = false;

  constructor(options: DiscoveryOptions, context: SourceContext, finder: Finder) {
    this.#options = options;
    this.#context = context;
    this.#finder = finder;
    this.#unclaimed = options.saved.positions;
  }

  /** Resolves after the first scan. */
  async start(): Promise<void> {
    this.#look();
    await this.#working;
  }

  /** Every file with how far it was delivered, and what was said of files that were not found yet. */
  *positions(): Iterable<Position> {
    for (const file of this.files.values()) yield file.saved;
    for (const file of this.#remembered.values()) yield file.saved;
    yield* this.#unclaimed;
  }

  /** It is read no more. One that still exists is remembered, in case that it comes back. */
  forget(file: TailFile, exists: boolean): void {
    file.forgotten = true;
    this.changes++;
    if (this.files.get(file.key) === file) this.files.delete(file.key);
    if (this.#byPath.get(file.path) === file) this.#byPath.delete(file.path);
    if (!exists) return;
    this.#remembered.set(file.key, file);
    const [oldest] = this.#remembered.keys();
    if (this.#remembered.size > maxRemembered) this.#remembered.delete(oldest as string);
  }

  /** Everything is looked at again, soon. */
  rescan(): void {
    this.#scanDue = true;
    this.#look();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#context.clock.cancel(this.#timer);
    await this.#working;
    for (const directory of this.#directories.values()) await directory?.watch.close();
    for (const watch of this.#linked.values()) await (await watch).close();
  }

  readonly #hint = (told: string | undefined, grew: boolean): void => {
    if (++this.#hinted === hintsPerScan) this.#scanAfter(this.#scanTook * restPerScan.untold);
    const path = told === undefined ? undefined : (this.#links.get(told) ?? told);
    const file = path === undefined ? undefined : this.#byPath.get(path);
    if (file !== undefined) this.#finder.wake(file);
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
      this.#finder.fail(toError(thrown));
    }
    this.#working = undefined;
  }

  async #lookAt(path: string, group: FileGroup): Promise<void> {
    const stats = await this.#stat(path);
    if (stats === undefined) return this.#vanished(path);
    const target = await realpath(path).catch(() => path);
    await this.#found({ path, target, group, stats });
  }

  async #scan(): Promise<void> {
    const { groups, pollInterval } = this.#options;
    const { clock } = this.#context;
    this.#scanDue = false;
    clock.cancel(this.#timer);
    const began = clock.now();
    const scanned = this.#finder.scanning();
    const read = new Map<string, readonly string[]>();
    const found: Found[] = [];
    for (const directory of new Set(groups.map(group => group.directory))) {
      const listed = await this.#list(directory);
      if (listed === undefined) continue;
      const others: string[] = [];
      read.set(directory, others);
      for (const entry of listed.entries) {
        const path = join(directory, entry.name);
        const group = groupOf(groups, path);
        if (group === undefined) {
          others.push(path);
          continue;
        }
        const stats = await this.#stat(path);
        if (this.#stopped) return;
        if (stats === undefined) this.#reportUnreadable(path);
        else {
          const link = entry.isSymbolicLink() && (await realpath(path).catch(() => undefined));
          found.push({ path, target: link || join(listed.real, entry.name), group, stats });
        }
      }
    }
    found.sort((a, b) => Number(a.stats.mtimeNs - b.stats.mtimeNs));
    const claims = this.#claim(found);
    for (const one of found) await this.#found(one, claims.get(one));
    await this.#findMoved(read, claims);
    const paths = new Set(found.map(({ path }) => path));
    for (const path of [...this.#byPath.keys()]) {
      if (!paths.has(path) && read.has(dirname(path))) this.#vanished(path);
    }
    this.#scans++;
    this.#scanTook = clock.now() - began;
    if (this.#stopped) return;
    await scanned(this.#lostContents.splice(0));
    const told = this.#told && [...this.#directories.values()].every(directory => directory !== undefined);
    this.#hinted = 0;
    this.#scanAfter(Math.max(pollInterval, this.#scanTook * (told ? restPerScan.told : restPerScan.untold)));
  }

  #scanAfter(ms: number): void {
    const { clock } = this.#context;
    clock.cancel(this.#timer);
    if (this.#stopped) return;
    this.#timer = clock.after(ms, () => this.rescan());
  }

  /** What is in a directory, which is watched from now on; undefined if it cannot be read, which is reported once. */
  async #list(directory: string): Promise<{ real: string; entries: readonly Dirent[] } | undefined> {
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
        this.#directories.set(directory, { inode, watch, real: await realpath(directory) });
      }
      const { real = directory } = this.#directories.get(directory) ?? {};
      return { real, entries: await readdir(directory, { withFileTypes: true }) };
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

  /** A name that is no text cannot be given to the system again: Node has replaced what it could not decode. */
  #reportUnreadable(path: string): void {
    if (!path.includes('\ufffd') || this.#unreadable.has(path)) return;
    this.#unreadable.add(path);
    const { name, log } = this.#context;
    log.warn(`${name}: the name of ${path} is not UTF-8. It cannot be read; rename it.`);
  }

  /** Whose saved positions are whose: by path and inode first; then by inode alone, for what was renamed meanwhile. */
  #claim(found: readonly Found[]): ReadonlyMap<Found, Position> {
    const claims = new Map<Found, Position>();
    if (this.#unclaimed.length === 0) return claims;
    const byInode = new Map<bigint, Position[]>();
    for (const position of this.#unclaimed) {
      const same = byInode.get(position.inode);
      if (same === undefined) byInode.set(position.inode, [position]);
      else same.push(position);
    }
    for (const sameName of [true, false]) {
      for (const one of found) {
        if (this.files.has(keyOf(one.stats)) || claims.has(one)) continue;
        const positions = byInode.get(one.stats.ino) ?? [];
        const at = positions.findIndex(({ file }) => !sameName || file === one.path);
        if (at >= 0) claims.set(one, positions.splice(at, 1)[0] as Position);
      }
    }
    this.#unclaimed = Array.from(byInode.values()).flat();
    return claims;
  }

  /**
   * What was renamed so that no group wants it, while nobody looked: it is looked for in its directory, once, and read
   * before the file that has its name now. Positions of other files are kept only if they prove what they are for.
   */
  async #findMoved(read: ReadonlyMap<string, readonly string[]>, claims: ReadonlyMap<Found, Position>): Promise<void> {
    if (this.#scans === 0 && this.#unclaimed.length > 0) {
      for (const path of Array.from(read.values()).flat()) {
        const stats = await this.#stat(path);
        const position = this.#unclaimed.find(
          ({ inode, file }) => inode === stats?.ino && dirname(file) === dirname(path),
        );
        const group = position && groupOf(this.#options.groups, position.file);
        if (stats === undefined || position === undefined || group === undefined) continue;
        this.#unclaimed = this.#unclaimed.filter(other => other !== position);
        const moved = await this.#add({ path, target: path, group, stats }, position);
        moved.lostAt = this.#context.clock.now();
        this.#follow(moved, position.file);
      }
    }
    for (const [{ stats, path }, { file }] of claims) {
      const moved = this.files.get(keyOf(stats));
      if (file !== path && moved !== undefined) this.#follow(moved, file);
    }
    this.#unclaimed = this.#unclaimed
      .filter(({ file, evidence }) => evidence !== undefined || !read.has(dirname(file)))
      .slice(-maxRemembered);
  }

  /** Rotation while nobody looked: what has the old name now is read after the file that had it. */
  #follow(moved: TailFile, oldPath: string): void {
    const next = this.#byPath.get(oldPath);
    if (next !== undefined && next !== moved && !next.forgotten) this.#succeed(moved, next);
    else this.#finder.wake(moved);
  }

  #succeed(before: TailFile, next: TailFile): void {
    let last = before;
    while (last.successor !== undefined && last !== next) last = last.successor;
    if (last !== next) {
      last.successor = next;
      next.holds++;
    }
    this.#finder.wake(before);
  }

  /** A file that was not known: it begins where its position says, if that is for this content. */
  async #add(one: Found, position: Position | undefined): Promise<TailFile> {
    const { path, target, group, stats } = one;
    const { clock, name, log } = this.#context;
    const file = new TailFile(path, target, stats, this.#headers(group, path), clock.now());
    this.files.set(file.key, file);
    this.changes++;
    if (position === undefined) {
      // Nothing has been delivered by anybody: there is nothing that a file could be a copy of.
      if (this.#scans === 0 && this.#options.saved.positions.length === 0) file.fresh = false;
      if (this.#options.skipToEnd && this.#scans === 0) file.startAt(file.size);
      return file;
    }
    const { pos, evidence } = position;
    const { writtenAt } = this.#options.saved;
    const born = bornAt(stats);
    // Made later: another file that got the same inode.
    if (
      evidence === undefined
        ? writtenAt > 0n && born > writtenAt
        : evidence.born > 0n && born > 0n && born !== evidence.born
    )
      return file;
    file.startAt(pos, evidence);
    const unchanged = pos <= file.size && (evidence === undefined || evidence.changed === stats.mtimeNs);
    if (pos === 0 || unchanged || (pos <= file.size && (await this.#hasContent(file)))) return file;
    log.warn(
      pos > file.size
        ? `${name}: ${path} has ${file.size} bytes, and was delivered up to ${pos}: it is read from the start.`
        : `${name}: ${path} was truncated or written anew since it was delivered up to ${pos}: it is read from the start.`,
    );
    file.holds++;
    this.#lostContents.push(file.restart());
    return file;
  }

  async #hasContent(file: TailFile): Promise<boolean> {
    try {
      await file.open();
      return await file.isSame(await file.top());
    } catch {
      // That it cannot be read is found out, and told, when it is read.
      return true;
    } finally {
      await file.close();
    }
  }

  async #found(one: Found, position?: Position): Promise<void> {
    const { path, target, stats } = one;
    const key = keyOf(stats);
    await this.#watchLink(path, target);
    const back = this.#remembered.get(key);
    if (back?.is(stats) === true) {
      this.files.set(key, back);
      this.#remembered.delete(key);
      back.forgotten = false;
    }
    const known = this.files.get(key);
    if (known?.is(stats) === true) return this.#foundAgain(known, one);
    if (known !== undefined) this.#finder.gone(known);

    const before = this.#byPath.get(path);
    if (before !== undefined) this.#lost(before);
    const file = await this.#add(one, position);
    this.#byPath.set(path, file);
    // What was there under this name before is read to its end first.
    if (before !== undefined) this.#succeed(before, file);
    else if (file.size !== file.seen) this.#finder.wake(file);
  }

  async #foundAgain(file: TailFile, { path, target, group, stats }: Found): Promise<void> {
    if (file.path !== path || file.lostAt !== undefined) {
      // Two names at a time (links): the first one stays.
      const other = file.path === path || file.lostAt !== undefined ? undefined : await this.#stat(file.path);
      if (other !== undefined && file.is(other)) return;
      const before = this.#byPath.get(path);
      if (before !== undefined && before !== file) this.#lost(before);
      if (this.#byPath.get(file.path) === file) this.#byPath.delete(file.path);
      this.#byPath.set(path, file);
      if (file.path !== path) file.formerPath = file.path;
      file.path = path;
      this.changes++;
      file.headers = this.#headers(group, path);
      file.lostAt = undefined;
    }
    file.target = target;
    if (file.look(stats)) this.#finder.wake(file);
  }

  /** Changes in what a link leads to are told where that is. */
  async #watchLink(path: string, target: string): Promise<void> {
    const directory = dirname(target);
    const watched = this.#directories.get(dirname(path))?.real;
    if (watched === undefined || target === join(watched, basename(path)) || this.#links.get(target) === path) return;
    // The next scan finds again what is still needed.
    if (this.#links.size >= maxRemembered) this.#links.clear();
    this.#links.set(target, path);
    if (directory === watched || this.#linked.has(directory)) return;
    const watch = watchDirectory(directory, this.#hint, cause => this.#untold(directory, cause));
    this.#linked.set(directory, watch);
    await watch;
  }

  #vanished(path: string): void {
    const file = this.#byPath.get(path);
    if (file === undefined) return;
    this.#lost(file);
    this.#finder.wake(file);
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
