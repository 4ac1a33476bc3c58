/**
 * Contents that move: `copytruncate` copies a log and empties it, and then the copy is what was read so far.
 *
 * A copy alone proves nothing, two files may begin with the same lines. It takes over the other's position only once that
 * has lost this very content. So a new file that looks like a copy is not read for a moment ({@link graceFor}), and a file
 * that was emptied is read again only after its copy was looked for.
 *
 * @module
 */
import { beginsWith, fingerprint } from './fingerprint.ts';
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
  readonly #heads = new Map<TailFile, readonly Fingerprint[]>();
  /** New files that look like a copy; they are held. */
  readonly #suspects = new Map<TailFile, Suspect>();
  readonly #formers = new Set<Former>();

  constructor(open: (file: TailFile) => Promise<void>) {
    this.#open = open;
  }

  /** Takes note of what a file begins with. */
  learn(file: TailFile): void {
    const known = this.#heads.get(file);
    if (known === file.heads || (known === undefined && file.heads.length === 0)) return;
    this.forget(file);
    this.#heads.set(file, file.heads);
    for (const { length, hash } of file.heads) {
      let hashes = this.#byHead.get(length);
      if (hashes === undefined) this.#byHead.set(length, (hashes = new Map<string, Set<TailFile>>()));
      const files = hashes.get(hash);
      if (files === undefined) hashes.set(hash, new Set([file]));
      else files.add(file);
    }
  }

  forget(file: TailFile): void {
    for (const { length, hash } of this.#heads.get(file) ?? []) {
      const hashes = this.#byHead.get(length);
      const files = hashes?.get(hash);
      files?.delete(file);
      if (files?.size === 0) hashes?.delete(hash);
      if (hashes?.size === 0) this.#byHead.delete(length);
    }
    this.#heads.delete(file);
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
      if (other && original.lostAt === undefined && (await file.mayBeCopyOf(original)))
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
      if (now < until && file.fresh && (original === file || (await this.#looksLike(file, original)))) continue;
      if (this.#suspects.delete(file)) cleared.push(file);
    }
    for (const file of cleared) file.fresh = false;
    return cleared;
  }

  async #looksLike(file: TailFile, original: TailFile): Promise<boolean> {
    await this.#open(file);
    return file.mayBeCopyOf(original);
  }

  /** True if this file had to wait, and has not to any more. */
  acquit(file: TailFile): boolean {
    return this.#suspects.delete(file);
  }

  /**
   * To be called before all files are looked at. What it returns is to be called after that: it gives the contents that were
   * lost before, and others that it is told, to their copies, and returns which have found one.
   */
  find(): (others: readonly Former[], files: Iterable<TailFile>) => Promise<ReadonlyMap<Former, TailFile | undefined>> {
    const before = [...this.#formers];
    return async (others, files) => {
      const formers = [...before, ...others];
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
}

const isFresh = ({ fresh }: TailFile): boolean => fresh;
