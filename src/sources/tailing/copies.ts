/**
 * Contents that move: `copytruncate` copies a log and empties it, and then the copy is what was read so far.
 *
 * A copy alone proves nothing, two files may begin with the same lines. It takes over the other's position only once that
 * has lost this very content. So a new file that looks like a copy is not read for a moment ({@link graceFor}), and a file
 * that was emptied is read again only after its copy was looked for.
 *
 * @module
 */
import { beginsWith, fingerprint, readAt, readMark } from './fingerprint.ts';
import type { Fingerprint } from './position-file.ts';
import type { Former, TailFile } from './tail-file.ts';

/** How long something that looks like a copy of `size` bytes is not read, in ms: a second, and 100 ms for each MiB, up to a minute. */
const graceFor = (size: number): number => Math.min(60_000, 1000 + (size / 1024 / 1024) * 100);

/** Files with the same start that a new file is compared with, at most. */
const maxCandidates = 64;

interface Suspect {
  readonly original: TailFile;
  readonly until: number;
}

export class Copies {
  /** Opens a file, if it can be found. */
  readonly #open: (file: TailFile) => Promise<void>;
  /** By the length and the hash of their first bytes. */
  readonly #byHead = new Map<number, Map<string, Set<TailFile>>>();
  readonly #heads = new Map<TailFile, Fingerprint>();
  /** New files that look like a copy; they are held. */
  readonly #suspects = new Map<TailFile, Suspect>();
  readonly #formers = new Set<Former>();

  constructor(open: (file: TailFile) => Promise<void>) {
    this.#open = open;
  }

  /** Takes note of what a file begins with. */
  learn(file: TailFile): void {
    const known = this.#heads.get(file);
    if (known === file.head) return;
    this.forget(file);
    const { head } = file;
    if (head.length === 0) return;
    this.#heads.set(file, head);
    let hashes = this.#byHead.get(head.length);
    if (hashes === undefined) this.#byHead.set(head.length, (hashes = new Map<string, Set<TailFile>>()));
    const files = hashes.get(head.hash);
    if (files === undefined) hashes.set(head.hash, new Set([file]));
    else files.add(file);
  }

  forget(file: TailFile): void {
    const head = this.#heads.get(file);
    if (head === undefined) return;
    this.#heads.delete(file);
    const hashes = this.#byHead.get(head.length);
    const files = hashes?.get(head.hash);
    files?.delete(file);
    if (files?.size === 0) hashes?.delete(head.hash);
    if (hashes?.size === 0) this.#byHead.delete(head.length);
  }

  /** A file has lost its content. It is held until {@link find} has looked for a copy. */
  lost(former: Former): void {
    this.forget(former.file);
    this.#formers.add(former);
  }

  /** Whether a new file has to wait, because it looks like a copy. `top` is its first bytes; it is open. */
  async suspects(file: TailFile, top: Buffer, now: number): Promise<boolean> {
    for (const { evidence } of this.#formers) {
      if (evidence.mark.length > 0 && beginsWith(top, evidence.head)) return this.#suspect(file, file, now);
    }
    for (const original of this.#candidates(top)) {
      const other = original !== file && original.path !== file.path && original.formerPath !== file.path;
      if (other && original.lostAt === undefined && (await this.#mayBeCopy(file, original)))
        return this.#suspect(file, original, now);
    }
    return false;
  }

  #suspect(file: TailFile, original: TailFile, now: number): true {
    this.#suspects.set(file, { original, until: now + graceFor(original.position) });
    return true;
  }

  #candidates(top: Buffer): TailFile[] {
    const found: TailFile[] = [];
    for (const [length, hashes] of this.#byHead) {
      if (length > top.length) continue;
      for (const file of hashes.get(fingerprint(top.subarray(0, length)).hash) ?? []) {
        if (found.push(file) === maxCandidates) return found;
      }
    }
    return found;
  }

  /** Suspects that have turned out to be files of their own; they may be read. */
  async cleared(now: number): Promise<readonly TailFile[]> {
    const cleared: TailFile[] = [];
    for (const [file, { original, until }] of this.#suspects) {
      if (now < until && file.fresh && (original === file || (await this.#mayBeCopy(file, original)))) continue;
      if (this.#suspects.delete(file)) cleared.push(file);
    }
    for (const file of cleared) file.fresh = false;
    return cleared;
  }

  /** True if this file had to wait, and has not to any more. */
  acquit(file: TailFile): boolean {
    return this.#suspects.delete(file);
  }

  /**
   * To be called before all files are looked at. What it returns is to be called after that: it gives the contents that were
   * lost before to their copies, and returns which have found one.
   */
  find(): (files: Iterable<TailFile>) => Promise<ReadonlyMap<Former, TailFile | undefined>> {
    const formers = [...this.#formers];
    return async files => {
      const heirs = new Map<Former, TailFile | undefined>();
      const fresh = formers.length === 0 ? [] : Array.from(files).filter(file => file.fresh && file.size > 0);
      for (const former of formers) {
        heirs.set(former, await this.#heirOf(former, fresh));
        this.#formers.delete(former);
      }
      return heirs;
    };
  }

  async #heirOf(former: Former, fresh: readonly TailFile[]): Promise<TailFile | undefined> {
    for (const file of fresh) {
      if (!isFresh(file)) continue;
      await this.#open(file).catch(() => undefined);
      const at = await file.copied(former).catch(() => undefined);
      // It may have been read meanwhile.
      if (at === undefined || !isFresh(file)) continue;
      file.fresh = false;
      file.holds++;
      await file.inherit(former, at);
      file.holds--;
      this.learn(file);
      return file;
    }
    return undefined;
  }

  /** Whether a file has, or may yet get, what was read of another one. */
  async #mayBeCopy(file: TailFile, original: TailFile): Promise<boolean> {
    await this.#open(file);
    const { handle } = file;
    if (handle === undefined) return false;
    const { content } = original;
    const { size } = await handle.stat();
    if (size >= content.at) return file.isCopyOf(content);
    // Who copies has not come to the end, or there is more to the original by now: it still has all of it.
    const end = await readMark(handle, size);
    if (original.handle === undefined || end === undefined) return true;
    return (await readAt(original.handle, size - end.length, end.length)).equals(end);
  }
}

const isFresh = ({ fresh }: TailFile): boolean => fresh;
