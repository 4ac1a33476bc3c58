/**
 * One file that is tailed: which it is, whatever its name; what is in it; how far it was read.
 *
 * @module
 */
import { constants, statSync, type BigIntStats } from 'node:fs';
import { open, readdir, stat, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemCode } from '../../core/errors.ts';
import type { Headers } from '../../core/event.ts';
import { beginsWith, endOf, fingerprint, headSize, noBytes, readAt, readMark } from './fingerprint.ts';
import type { Evidence, Fingerprint, Position } from './position-file.ts';
import { Progress, type Sent } from './progress.ts';

/** Not to wait for a writer if the path is a pipe by now. Windows has no such flag, and no such pipes. */
const readOnly = constants.O_RDONLY | ((constants as { O_NONBLOCK?: number }).O_NONBLOCK ?? 0);

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

/** How far a content was read that is in the file no longer, and by what it is known again in a copy. */
export interface Former {
  readonly file: TailFile;
  readonly evidence: Evidence;
  /** What it was at the ends of some turns before, the oldest first: a copy may have been made when less had been read. */
  readonly trail: readonly Step[];
  readonly progress: Progress;
  readonly position: number;
  readonly parts: number;
  /** Bytes it had when it was last looked at. */
  readonly size: number;
  /** That was by this process: what came since then was not much. */
  readonly watched: boolean;
}

/** How far a file was read once, and what it had there. */
interface Step {
  readonly at: number;
  readonly before: Buffer;
  readonly head: Fingerprint;
}

/** Steps that are remembered: between copying a log and emptying it there is time for a few turns. */
const maxSteps = 4;

export class TailFile {
  readonly key: string;
  readonly inode: bigint;
  readonly #bornAt: bigint;
  /** The name that is wanted. */
  path: string;
  /** Where that leads over links, while the file was last seen there. */
  target: string;
  headers: Headers;

  /** Where the first line begins that was not read. */
  position = 0;
  /** The bytes before it; undefined while nobody has looked. */
  before: Buffer | undefined = noBytes;
  #trail: readonly Step[] = [];
  /** Its first bytes, if they were read in this turn. */
  #first: Buffer | undefined;
  /** Bytes up to here were seen: what is between is the start of a line that has no end yet. */
  seen = 0;
  /** How many parts of the current line have left, if it is longer than lines may be. */
  parts = 0;
  /** Its first bytes, of those that were read. */
  head: Fingerprint = fingerprint(noBytes);
  /** That, and when it had less. */
  heads: readonly Fingerprint[] = [];
  /** What was known of it when it was last read, by another process; checked before it is read. */
  evidence: Evidence | undefined;
  progress = new Progress(0);
  /** Bytes in it, and when it was changed, as of the last look. */
  size = 0;
  changed = 0n;
  /** The same, as of the last look before its content was found to be what it was. */
  #sizeBefore = 0;
  #changedBefore = 0n;
  /** Nothing of it was read, and nobody has asked yet whether it is a copy. */
  fresh = true;

  handle: FileHandle | undefined;
  /** In line to be read. */
  queued = false;
  /** Rotation: the file that has its path now, and is read after it. */
  successor: TailFile | undefined;
  /** Reasons for not reading it yet: a predecessor, or a content that has to be found first. */
  holds = 0;
  /** When it last had something new. */
  grewAt: number;
  /** Since when none of the paths that are wanted leads to it; undefined while one does. */
  lostAt: number | undefined;
  /** It has been silent for so long that a last line without newline counts, and that it can be closed. */
  idle = false;
  /** It has been silent for so long that its last event counts as complete. */
  quiet = false;
  /**
   * A NUL was read: since when it has been there, and up to which byte the file went then. `held`: the line that it is in is not
   * taken yet.
   */
  nul: { since: number; until: number; held: boolean } | undefined;
  /** Reading it has failed, and that was reported. */
  failing = false;
  /** It is compressed: not read. */
  skipped = false;
  forgotten = false;
  /** The name it had before this one. */
  formerPath: string | undefined;
  /** The content that it has lost, while a copy of it is looked for. */
  former: Former | undefined;
  #opening: Promise<void> | undefined;

  constructor(path: string, target: string, stats: BigIntStats, headers: Headers, now: number) {
    this.key = keyOf(stats);
    this.inode = stats.ino;
    this.#bornAt = bornAt(stats);
    this.path = path;
    this.target = target;
    this.headers = headers;
    this.grewAt = now;
    this.look(stats);
  }

  /** Whether these are stats of this very file, and not of a later one that got its inode. */
  is(stats: BigIntStats): boolean {
    return keyOf(stats) === this.key && bornAt(stats) === this.#bornAt;
  }

  /** Takes note of stats; true if there may be something to read. */
  look(stats: BigIntStats): boolean {
    const news = Number(stats.size) !== this.seen || (stats.mtimeNs !== this.changed && this.seen > 0);
    this.size = Number(stats.size);
    this.changed = stats.mtimeNs;
    return news && !this.skipped;
  }

  /** Everything before `position` was delivered by somebody else. */
  startAt(position: number, evidence?: Evidence): void {
    this.position = this.seen = position;
    this.progress = new Progress(position);
    this.before = position === 0 ? noBytes : undefined;
    this.fresh = position === 0;
    this.evidence = evidence;
    this.heads = [];
    this.#knowHead(evidence?.head ?? fingerprint(noBytes));
  }

  #knowHead(head: Fingerprint): void {
    this.head = head;
    if (head.length > 0) this.heads = [...this.heads.slice(1 - maxSteps), head];
  }

  /** How far it was delivered, for the position file. */
  get saved(): Position {
    const { inode, path, head, former } = this;
    // Until its copy is found: who starts then has to look for it again.
    if (former !== undefined) return { inode, pos: former.progress.committed, file: path, evidence: former.evidence };
    const { committed, mark } = this.progress;
    // Until it is read, what was known before is as good.
    const known = this.before === undefined || (committed > 0 && mark.length === 0);
    const evidence = known ? this.evidence : this.#evidence(head, mark, committed);
    return { inode, pos: committed, file: path, evidence };
  }

  /** The same for something on its way, when it is delivered. Its content is checked before anybody goes on there. */
  reached({ progress, end, mark }: Sent): Position {
    const head = progress === this.progress ? this.head : fingerprint(noBytes);
    const evidence = { born: this.#bornAt, changed: 0n, head, mark: fingerprint(mark), at: end };
    return { inode: this.inode, pos: end, file: this.path, evidence };
  }

  // --- what is in it

  /** Its first bytes. */
  async top(): Promise<Buffer> {
    return this.handle === undefined ? noBytes : readAt(this.handle, 0, headSize);
  }

  /** Whether it still has what was read of it: these first bytes, and those before the position. */
  async isSame(top: Buffer): Promise<boolean> {
    const { handle, evidence, size, changed } = this;
    if (!beginsWith(top, this.head)) return false;
    if (this.before === undefined && handle !== undefined) {
      if (evidence !== undefined && !(await hasMark(handle, evidence))) return false;
      this.before = await readMark(handle, this.position);
      if (this.before === undefined) return false;
      if (this.progress.committed === this.position) this.progress.mark = this.before;
    }
    this.#sizeBefore = size;
    this.#changedBefore = changed;
    return true;
  }

  /** The next bytes were read. */
  moveOn(bytes: Buffer): void {
    if (this.position === 0) this.#first = Buffer.from(bytes.subarray(0, headSize));
    this.position += bytes.length;
    this.before = endOf(this.before ?? noBytes, bytes);
  }

  /** A turn is over; `top` is what the file began with. */
  step(top: Buffer): void {
    const { position: at, before } = this;
    // It may have been written anew since the turn began: what was read from its start counts, and nothing else.
    const first = this.#first ?? top;
    this.#first = undefined;
    const length = Math.min(first.length, at);
    if (length > this.head.length) this.#knowHead(fingerprint(first.subarray(0, length)));
    if (before === undefined || this.#trail.at(-1)?.at === at) return;
    this.#trail = [...this.#trail.slice(1 - maxSteps), { at, before, head: this.head }];
  }

  /** It has been silent for long: nobody is about to empty it. */
  rest(): void {
    this.#trail = [];
  }

  /** Whether this content was copied into it. It is open. */
  async isCopyOf(content: Evidence): Promise<boolean> {
    return this.handle !== undefined && beginsWith(await this.top(), content.head) && hasMark(this.handle, content);
  }

  /**
   * Where to go on in this file if it is a copy of what the other one had; undefined if it is not. A copy that ends before
   * the point up to which the original was read has nothing new. It is open.
   */
  async copied({ evidence, position, trail }: Former): Promise<number | undefined> {
    if (this.handle === undefined || evidence.mark.length === 0) return undefined;
    if (await this.isCopyOf(evidence)) return position;
    const { size } = await this.handle.stat();
    return size < evidence.at && (await this.#followed(trail, size)) === true ? size : undefined;
  }

  /** Whether it has, or may yet get, what was read of another one, which still has all that. It is open. */
  async mayBeCopyOf(original: TailFile): Promise<boolean> {
    const { content } = original;
    if (this.handle === undefined) return false;
    const { size } = await this.handle.stat();
    if (size >= content.at) return this.isCopyOf(content);
    const followed = await this.#followed(original.#trail, size);
    if (followed !== undefined || original.handle === undefined) return followed ?? true;
    // Who copies has not come far.
    const end = (await readMark(this.handle, size)) ?? noBytes;
    const theirs = await readAt(original.handle, size - end.length, end.length);
    return theirs.length < end.length || theirs.equals(end);
  }

  /** Whether it has what was read at the last of these steps that lies within it; undefined if none does. */
  async #followed(trail: readonly Step[], size: number): Promise<boolean | undefined> {
    const step = trail.findLast(({ at }) => at > 0 && at <= size);
    if (step === undefined || this.handle === undefined) return undefined;
    const mark = await readMark(this.handle, step.at, step.before.length);
    return mark?.equals(step.before) === true && beginsWith(await this.top(), step.head);
  }

  /** By what it is known again as far as it was read. */
  get content(): Evidence {
    const { head, position, before } = this;
    if (before === undefined && this.evidence !== undefined) return this.evidence;
    return this.#evidence(head, before ?? noBytes, position);
  }

  #evidence(head: Fingerprint, mark: Buffer, at: number): Evidence {
    return { born: this.#bornAt, changed: this.#changedBefore, head, mark: fingerprint(mark), at, size: this.#bytes };
  }

  /** Bytes it had while its content was what was read. */
  get #bytes(): number {
    return Math.max(this.#sizeBefore, this.seen);
  }

  /** The content is other than before: from the start. What was there may have been copied before. */
  restart(): Former {
    const { progress, position, parts, content } = this;
    const trail = this.#trail;
    const watched = this.before !== undefined;
    const size = Math.max(this.#bytes, (!watched && this.evidence?.size) || 0);
    this.former = { file: this, evidence: content, trail, progress, position, parts, size, watched };
    this.#sizeBefore = 0;
    this.nul = undefined;
    this.#first = undefined;
    this.#trail = [];
    this.startAt(0);
    this.parts = 0;
    // What is in it now is its own.
    this.fresh = false;
    return this.former;
  }

  /** Takes over from the file whose content was copied into this one. */
  async inherit({ evidence, progress, position, parts }: Former, at: number): Promise<void> {
    const before = this.handle && (await readMark(this.handle, at));
    this.startAt(at);
    this.before = before;
    this.progress = progress;
    if (at === position) {
      this.#knowHead(evidence.head);
      this.parts = parts;
    } else progress.endAt(at, before ?? noBytes);
  }

  // --- where it is

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

  async #find(): Promise<void> {
    try {
      this.handle = (await this.#openAt(this.target)) ?? (await this.#findInDirectory());
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
    const directory = dirname(this.target);
    for (const name of await readdir(directory).catch(() => [])) {
      const path = join(directory, name);
      const stats = await stat(path, { bigint: true }).catch(() => undefined);
      if (stats?.isFile() !== true || !this.is(stats)) continue;
      this.target = path;
      return this.#openAt(path);
    }
    return undefined;
  }
}

const hasMark = async (handle: FileHandle, { at, mark }: Pick<Evidence, 'at' | 'mark'>): Promise<boolean> => {
  const bytes = await readMark(handle, at, mark.length);
  return bytes !== undefined && bytes.length === mark.length && beginsWith(bytes, mark);
};
