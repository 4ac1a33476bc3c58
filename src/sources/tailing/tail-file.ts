/**
 * One file that is tailed: which it is, whatever its name; how far it was read; how far it was delivered.
 *
 * @module
 */
import { constants, statSync, type BigIntStats } from 'node:fs';
import { open, readdir, stat, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemCode } from '../../core/errors.ts';
import type { Headers } from '../../core/event.ts';

/** Not to wait for a writer if the path is a pipe by now. Windows has no such flag, and no such pipes. */
const readOnly = constants.O_RDONLY | ((constants as { O_NONBLOCK?: number }).O_NONBLOCK ?? 0);

/** A delivery of a file's lines, on its way. */
export interface Sent {
  readonly file: TailFile;
  /** The offset behind its last line. */
  readonly end: number;
  acked: boolean;
  /** The delivery after it. */
  next: Sent | undefined;
}

/** Device and inode: a file keeps them when it is renamed. */
export const keyOf = ({ dev, ino }: BigIntStats): string => `${dev}:${ino}`;

/**
 * Linux before 4.11, and some containers, give a file's last change as the time of its birth. They do it for everything;
 * otherwise /proc, which keeps no such time, says 0.
 */
const birthsAreKept =
  process.platform !== 'linux' || statSync('/proc', { bigint: true, throwIfNoEntry: false })?.birthtimeNs === 0n;

/** When a file was made; 0 where nobody knows. */
export const bornAt = ({ birthtimeNs }: BigIntStats): bigint => (birthsAreKept ? birthtimeNs : 0n);

export class TailFile {
  readonly key: string;
  readonly inode: bigint;
  path: string;
  headers: Headers;

  /** Where the first line begins that was not read. */
  position: number;
  /** Bytes up to here were seen: what is between is the start of a line that has no end yet. */
  seen: number;
  /** How many parts of the current line have left, if it is longer than lines may be. */
  parts = 0;
  /** The offset up to which everything is delivered. */
  committed: number;
  /** Bytes in it when it was last looked at. */
  size: number;

  handle: FileHandle | undefined;
  /** In line to be read. */
  queued = false;
  /** Rotation: the file that has its path now, and is read after it. */
  successor: TailFile | undefined;
  /** Not to be read before its predecessor. */
  held = false;
  /** When it last had something new. */
  grewAt: number;
  /** Since when none of the paths that are wanted leads to it; undefined while one does. */
  lostAt: number | undefined;
  /** It has been silent for so long that a last line without newline counts, and that it can be closed. */
  idle = false;
  /** Reading it has failed, and that was reported. */
  failing = false;
  forgotten = false;

  readonly #bornAt: bigint;
  #opening: Promise<void> | undefined;
  #oldest: Sent | undefined;
  #newest: Sent | undefined;

  constructor(path: string, stats: BigIntStats, headers: Headers, position: number, now: number) {
    this.key = keyOf(stats);
    this.inode = stats.ino;
    this.#bornAt = bornAt(stats);
    this.path = path;
    this.headers = headers;
    this.position = this.seen = this.committed = position;
    this.size = Number(stats.size);
    this.grewAt = now;
  }

  /** Whether these are stats of this very file, and not of a later one that got its inode. */
  is(stats: BigIntStats): boolean {
    return keyOf(stats) === this.key && bornAt(stats) === this.#bornAt;
  }

  /** Opens it, under a new name if it was renamed within its directory. There is no `handle` if it cannot be found. */
  async open(): Promise<void> {
    if (this.handle === undefined) await (this.#opening ??= this.#find());
  }

  /** Closes it. It was only read: there is nothing that this could fail to do. */
  async close(): Promise<void> {
    await this.#opening?.catch(() => undefined);
    const { handle } = this;
    this.handle = undefined;
    await handle?.close().catch(() => undefined);
  }

  /** The content is other than before: from the start. */
  restart(): void {
    this.position = this.seen = this.parts = this.size = 0;
    // Behind what is on its way, so that the committed offset moves back when all of that is delivered.
    this.acked(this.send(0));
  }

  /** Something up to `end` is on its way. */
  send(end: number): Sent {
    const sent: Sent = { file: this, end, acked: false, next: undefined };
    if (this.#newest === undefined) this.#oldest = sent;
    else this.#newest.next = sent;
    this.#newest = sent;
    return sent;
  }

  /** Moves the committed offset over everything that is delivered without a gap. */
  acked(sent: Sent): void {
    sent.acked = true;
    while (this.#oldest?.acked === true) {
      this.committed = this.#oldest.end;
      this.#oldest = this.#oldest.next;
    }
    if (this.#oldest === undefined) this.#newest = undefined;
  }

  async #find(): Promise<void> {
    try {
      this.handle = (await this.#openAt(this.path)) ?? (await this.#findInDirectory());
    } finally {
      this.#opening = undefined;
    }
  }

  async #openAt(path: string): Promise<FileHandle | undefined> {
    let handle: FileHandle;
    try {
      handle = await open(path, readOnly);
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined;
      throw error;
    }
    if (this.is(await handle.stat({ bigint: true }))) return handle;
    await handle.close();
    return undefined;
  }

  async #findInDirectory(): Promise<FileHandle | undefined> {
    const directory = dirname(this.path);
    for (const name of await readdir(directory).catch(() => [])) {
      const path = join(directory, name);
      const stats = await stat(path, { bigint: true }).catch(() => undefined);
      if (stats?.isFile() === true && this.is(stats)) return this.#openAt(path);
    }
    return undefined;
  }
}
