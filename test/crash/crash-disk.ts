/**
 * A disk in memory that crashes. It promises what `Disk` promises and not a bit more: what was written and not synced yet
 * may be there after a power cut or not, each sector and each name for itself.
 *
 * - Of each sector of a file it keeps every content since the last `sync`; of each file every length; of each directory
 *   every change since the last `syncDirectory`. An image takes one of each, under a seed. A sector is never half written.
 * - Where a file grew and its bytes did not make it there are zeros, or what the place held for others before.
 * - A rename is there, or not, or both names are.
 * - A `sync` that fails drops what it likes of what was not safe, and forgets that there was anything: the next one succeeds.
 *   Reading may go on showing what was dropped.
 *
 * A write to a file that was opened `synced` is a write and a sync of these sectors, and may end between them.
 *
 * Calls take a random number of turns, so that calls that overlap happen in any order.
 *
 * @module
 */
import { dirname } from 'node:path';
import { diskError, type Disk, type DiskFile, type OpenMode } from '../../src/core/disk.ts';

export type Random = () => number;

/** One call, or a page of a write. */
export interface Operation {
  readonly name:
    | 'open'
    | 'read'
    | 'write'
    | 'sync'
    | 'truncate'
    | 'size'
    | 'close'
    | 'list'
    | 'rename'
    | 'remove'
    | 'makeDirectory'
    | 'syncDirectory'
    | 'free';
  readonly path: string;
}

const changing: ReadonlySet<string> = new Set(['write', 'truncate', 'rename', 'remove', 'makeDirectory']);

const sectorSize = 512;
/** A process that is killed in the middle of a write leaves whole pages of it. */
const pageSize = 4096;

export const pick = <T>(random: Random, values: readonly T[]): T => values[Math.floor(random() * values.length)] as T;

/** One of all values since the last sync. With luck the last one; at none at all it is the one that was synced. */
const survivor = <T>(random: Random, luck: number, values: readonly T[]): T => {
  if (random() < luck) return values.at(-1) as T;
  return random() < luck ? pick(random, values) : (values[0] as T);
};

const sectorAt = (bytes: Buffer, sector: number): Buffer => {
  const copy = Buffer.alloc(sectorSize);
  bytes.subarray(sector * sectorSize, (sector + 1) * sectorSize).copy(copy);
  return copy;
};

/** A file: what the process sees of it, what is safe, and what it was in between. */
class Inode {
  seen: Buffer;
  safe: Buffer;
  /** Contents since the last sync, by sector. */
  #sectors = new Map<number, Buffer[]>();
  #lengths: number[] = [];

  constructor(seen: Buffer = Buffer.alloc(0), safe: Buffer = seen) {
    this.seen = seen;
    this.safe = safe;
  }

  get dirty(): boolean {
    return this.#sectors.size > 0 || this.#lengths.length > 0;
  }

  write(data: Buffer, at: number): void {
    if (at + data.length > this.seen.length) this.#resize(at + data.length);
    else this.seen = Buffer.from(this.seen);
    data.copy(this.seen, at);
    this.#keep(at, at + data.length);
  }

  truncate(length: number): void {
    const before = this.seen.length;
    this.#resize(length);
    this.#keep(Math.min(length, before), Math.max(length, before));
  }

  sync(): void {
    this.safe = this.seen;
    this.#forget();
  }

  /** The sectors between, and the length; what else was written is as unsafe as before. */
  syncRange(from: number, to: number): void {
    const bytes = Buffer.alloc(this.seen.length);
    this.safe.copy(bytes);
    for (let sector = Math.floor(from / sectorSize); sector * sectorSize < to; sector++) {
      this.seen.copy(bytes, sector * sectorSize, sector * sectorSize, (sector + 1) * sectorSize);
      this.#sectors.delete(sector);
    }
    this.safe = bytes;
    this.#lengths = [];
  }

  failSync(random: Random, stale: () => Buffer): void {
    this.safe = this.image(random, random(), stale);
    if (random() < 0.5) this.seen = this.safe;
    this.#forget();
  }

  /** What a power cut leaves. */
  image(random: Random, luck: number, stale: () => Buffer): Buffer {
    if (!this.dirty) return this.safe;
    const bytes = Buffer.alloc(survivor(random, luck, [this.safe.length, ...this.#lengths]));
    for (let sector = 0; sector * sectorSize < bytes.length; sector++) {
      const own = sector * sectorSize < this.safe.length ? sectorAt(this.safe, sector) : stale();
      survivor(random, luck, [own, ...(this.#sectors.get(sector) ?? [])]).copy(bytes, sector * sectorSize);
    }
    return bytes;
  }

  clone(): Inode {
    // Bytes that were seen are never changed in place.
    const copy = new Inode(this.seen, this.safe);
    copy.#sectors = new Map([...this.#sectors].map(([sector, contents]) => [sector, [...contents]]));
    copy.#lengths = [...this.#lengths];
    return copy;
  }

  #resize(length: number): void {
    const bytes = Buffer.alloc(length);
    this.seen.copy(bytes);
    this.seen = bytes;
    this.#lengths.push(length);
  }

  #keep(from: number, to: number): void {
    for (let sector = Math.floor(from / sectorSize); sector * sectorSize < to; sector++) {
      const contents = this.#sectors.get(sector) ?? [];
      this.#sectors.set(sector, contents);
      contents.push(sectorAt(this.seen, sector));
    }
  }

  #forget(): void {
    this.#sectors.clear();
    this.#lengths = [];
  }
}

/** `from` goes, `to` comes. Made: only `to`. Removed: only `from`. */
interface Change {
  readonly directory: string;
  readonly from?: string;
  readonly to?: string;
  readonly inode: Inode;
}

type Names = Map<string, Inode>;

const change = (names: Names, { from, to, inode }: Change): void => {
  if (from !== undefined) names.delete(from);
  if (to !== undefined) names.set(to, inode);
};

export class CrashDisk implements Disk {
  /** Bytes that fit. */
  capacity = Infinity;
  /** What `free` says; by default what is left of the capacity. */
  freeBytes: number | undefined;
  readOnly = false;
  /** Asked before a call happens; a code such as EIO makes it fail. A write that fails may have happened in part. */
  fault: ((operation: Operation) => string | undefined) | undefined;
  /** Told when somebody calls. */
  asked: ((operation: Operation) => void) | undefined;
  /** Told when something has changed, or has failed, before the caller knows. The moment to crash. */
  happened: ((operation: Operation, failed: boolean) => void) | undefined;
  /** Files that are open. */
  readonly opened = new Set<DiskFile>();
  /** A sync has failed. Nothing can be said any more about what was dropped then and is still seen. */
  doubtful = false;

  readonly #random: Random;
  #seen: Names = new Map();
  #safe: Names = new Map();
  #changes: Change[] = [];
  readonly #directories = new Set<string>();
  /** Contents of files that were removed: their places go to others. */
  #removed: Buffer[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  // --- what the test sees and does

  /** The files, by path, as the process sees them. */
  get files(): ReadonlyMap<string, Buffer> {
    return new Map([...this.#seen].map(([path, { seen }]) => [path, seen]));
  }

  get used(): number {
    return [...new Set(this.#seen.values())].reduce((sum, { seen }) => sum + seen.length, 0);
  }

  /** Puts these bytes there, and makes them safe. */
  put(path: string, bytes: Buffer): void {
    const inode = new Inode(bytes);
    this.#seen.set(path, inode);
    this.#safe.set(path, inode);
  }

  /** Takes a file away, for good. */
  take(path: string): void {
    this.#seen.delete(path);
    this.#safe.delete(path);
  }

  /** The process ends: everything written is still there, and still not safe. */
  kill(random: Random): CrashDisk {
    const copy = this.#copy(random);
    const clones = new Map<Inode, Inode>();
    const clone = (inode: Inode) => {
      const own = clones.get(inode) ?? inode.clone();
      clones.set(inode, own);
      return own;
    };
    for (const [path, inode] of this.#seen) copy.#seen.set(path, clone(inode));
    for (const [path, inode] of this.#safe) copy.#safe.set(path, clone(inode));
    copy.#changes = this.#changes.map(({ inode, ...rest }) => ({ ...rest, inode: clone(inode) }));
    copy.doubtful = this.doubtful;
    return copy;
  }

  /** The power goes: an image of what may be left. */
  cut(random: Random): CrashDisk {
    const copy = this.#copy(random);
    // Everything, nothing, or in between: bugs hide at both ends.
    const luck = pick(random, [0, 0.1, 0.5, 0.9, 1]);
    const names = new Map(this.#safe);
    for (const one of this.#changes) if (random() < luck) this.#survive(names, one, random);
    const stale = () => this.#stale(random);
    const images = new Map<Inode, Inode>();
    for (const [path, inode] of names) {
      const image = images.get(inode) ?? new Inode(inode.image(random, luck, stale));
      images.set(inode, image);
      copy.#seen.set(path, image);
      copy.#safe.set(path, image);
    }
    return copy;
  }

  // --- Disk

  async open(path: string, mode: OpenMode): Promise<DiskFile> {
    return this.#call({ name: 'open', path }, () => {
      let inode = this.#seen.get(path);
      if (inode === undefined) {
        if (mode === 'read') throw failure('ENOENT', path);
        if (this.readOnly) throw failure('EROFS', path);
        if (!this.#directories.has(dirname(path))) throw failure('ENOENT', path);
        inode = new Inode();
        this.#change({ directory: dirname(path), to: path, inode });
      } else if (mode === 'new') throw failure('EEXIST', path);
      else if (mode !== 'read' && this.readOnly) throw failure('EROFS', path);
      const file = this.#file(path, inode, mode);
      this.opened.add(file);
      return file;
    });
  }

  list(directory: string): Promise<string[]> {
    return this.#call({ name: 'list', path: directory }, () =>
      [...this.#seen.keys()].filter(path => dirname(path) === directory).map(path => path.slice(directory.length + 1)),
    );
  }

  rename(from: string, to: string): Promise<void> {
    return this.#call({ name: 'rename', path: from }, () => {
      const inode = this.#seen.get(from);
      if (inode === undefined) throw failure('ENOENT', from);
      const directory = dirname(from);
      if (dirname(to) !== directory) throw new Error('only within a directory');
      this.#bury(to);
      this.#change({ directory, from, to, inode });
    });
  }

  remove(path: string): Promise<void> {
    return this.#call({ name: 'remove', path }, () => {
      const inode = this.#seen.get(path);
      if (inode === undefined) throw failure('ENOENT', path);
      this.#bury(path);
      this.#change({ directory: dirname(path), from: path, inode });
    });
  }

  /** Directories are there for good as soon as they are made. */
  makeDirectory(directory: string): Promise<void> {
    return this.#call({ name: 'makeDirectory', path: directory }, () => void this.#directories.add(directory));
  }

  async syncDirectory(directory: string): Promise<void> {
    const own = () => {
      const changes = this.#changes.filter(other => other.directory === directory);
      this.#changes = this.#changes.filter(other => other.directory !== directory);
      return changes;
    };
    const done = () => {
      for (const one of own()) change(this.#safe, one);
    };
    const failed = () => {
      this.doubtful = true;
      for (const one of own()) if (this.#random() < 0.5) this.#survive(this.#safe, one, this.#random);
    };
    await this.#call({ name: 'syncDirectory', path: directory }, done, failed);
  }

  free(directory: string): Promise<number> {
    return this.#call(
      { name: 'free', path: directory },
      () => this.freeBytes ?? Math.max(0, this.capacity - this.used),
    );
  }

  #file(path: string, inode: Inode, mode: OpenMode): DiskFile {
    const use = <R>(name: Operation['name'], act: () => R, failed?: () => void): Promise<R> =>
      this.#call(
        { name, path },
        () => {
          if (!this.opened.has(file)) throw failure('EBADF', path);
          if (changing.has(name) && mode === 'read') throw failure('EBADF', path);
          return act();
        },
        failed,
      );
    const sync = (act: () => void): Promise<void> =>
      use('sync', act, () => {
        this.doubtful = true;
        inode.failSync(this.#random, () => this.#stale(this.#random));
      });
    const file: DiskFile = {
      path,
      read: (buffer, position) =>
        use('read', () => inode.seen.subarray(position, position + buffer.length).copy(buffer)),
      write: async (pieces, position) => {
        const bytes = Buffer.concat(pieces);
        const end = position + bytes.length;
        for (let from = position; from < end;) {
          const to = Math.min(end, from - (from % pageSize) + pageSize);
          const page = bytes.subarray(from - position, to - position);
          const at = from;
          const put = () => {
            const growth = Math.max(0, to - inode.seen.length);
            if (growth > 0 && this.used + growth > this.capacity) throw failure('ENOSPC', path);
            inode.write(page, at);
          };
          const putPart = () => {
            if (this.#random() < 0.5) inode.write(page.subarray(0, Math.floor(this.#random() * page.length)), at);
          };
          await use('write', put, putPart);
          from = to;
        }
        if (mode === 'synced') await sync(() => inode.syncRange(position, end));
      },
      sync: () => sync(() => inode.sync()),
      truncate: length => use('truncate', () => inode.truncate(length)),
      size: () => use('size', () => inode.seen.length),
      close: () => use('close', () => void this.opened.delete(file)),
    };
    return file;
  }

  async #call<R>(operation: Operation, act: () => R, failed?: () => void): Promise<R> {
    this.asked?.(operation);
    await this.#turns();
    const { name, path } = operation;
    const code = this.readOnly && changing.has(name) ? 'EROFS' : this.fault?.(operation);
    if (code !== undefined) {
      failed?.();
      // A file that could not be closed is closed, as with the system.
      if (name === 'close') act();
      this.happened?.(operation, true);
      throw failure(code, path);
    }
    const result = act();
    this.happened?.(operation, false);
    await this.#turns();
    return result;
  }

  async #turns(): Promise<void> {
    for (let turns = Math.floor(this.#random() * 5); turns >= 0; turns--) await Promise.resolve();
  }

  #change(one: Change): void {
    change(this.#seen, one);
    this.#changes.push(one);
  }

  /** This change was not lost; of a rename perhaps only half. */
  #survive(names: Names, one: Change, random: Random): void {
    const { from, ...made } = one;
    change(names, one.to !== undefined && from !== undefined && random() < 0.2 ? made : one);
  }

  #bury(path: string): void {
    const inode = this.#seen.get(path);
    if (inode !== undefined) this.#removed = [inode.seen, ...this.#removed].slice(0, 4);
  }

  /** A sector that was never written since it is this file's. */
  #stale(random: Random): Buffer {
    const sector = Buffer.alloc(sectorSize);
    const kind = random();
    const old = kind < 0.25 && this.#removed.length > 0 ? pick(random, this.#removed) : undefined;
    if (old !== undefined) return sectorAt(old, Math.floor((random() * old.length) / sectorSize));
    if (kind < 0.5) for (let at = 0; at < sectorSize; at += 4) sector.writeUInt32LE(Math.floor(random() * 2 ** 32), at);
    return sector;
  }

  #copy(random: Random): CrashDisk {
    const copy = new CrashDisk(random);
    for (const directory of this.#directories) copy.#directories.add(directory);
    copy.#removed = [...this.#removed];
    return copy;
  }
}

const failure = (code: string, path: string): Error =>
  diskError(path, Object.assign(new Error(`${code}: as the test wants it`), { code }));
