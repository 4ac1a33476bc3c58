/**
 * Files as a port. Whoever promises that something survives a crash writes through it, so that tests own the disk: they
 * record what is written, make it fail, and build every state that a crash may leave.
 *
 * What a disk promises, and nothing more:
 *
 * - Written bytes survive the end of the process. They survive a power cut only after {@link DiskFile.sync}, or when the file
 *   was opened `synced`, where each write is a sync as well.
 * - A name that was made, renamed or removed survives a power cut only after {@link Disk.syncDirectory}.
 * - After a `sync` that failed nothing is known about what was written since the one before, and another `sync` that
 *   succeeds proves nothing.
 *
 * @module
 */
import fs from 'node:fs';
import { dirname, resolve } from 'node:path';
import { MillraceError, systemCode, toError } from './errors.ts';
import { lockDirectory } from './lock.ts';

/** An open file. Calls may overlap; their order on the disk is then open. */
export interface DiskFile {
  readonly path: string;
  /** Reads into all of `buffer`, from `position` on; fewer bytes only at the end of the file. Resolves to their number. */
  read(buffer: Buffer, position: number): Promise<number>;
  /** Writes the pieces one behind the other, all of them. When it fails any part of it may have been written. */
  write(pieces: readonly Buffer[], position: number): Promise<void>;
  /** Resolves when everything written before, and the file's length, would survive a power cut. */
  sync(): Promise<void>;
  truncate(length: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

/**
 * `read`: there must be one. `write`: to read and write, made if there is none. `new`: there must be none. `synced`: as `write`,
 * and each write syncs what it has written: one call of the system instead of two. Truncating does not.
 */
export type OpenMode = 'read' | 'write' | 'new' | 'synced';

export interface Disk {
  open(path: string, mode: OpenMode): Promise<DiskFile>;
  /** Names in a directory; none if there is no such directory. */
  list(directory: string): Promise<string[]>;
  /** Replaces what has that name. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** With the directories above it. Resolves when they would survive a power cut. */
  makeDirectory(directory: string): Promise<void>;
  syncDirectory(directory: string): Promise<void>;
  /** Bytes that may still be written where this directory is. */
  free(directory: string): Promise<number>;
  /**
   * Keeps other processes out; throws `MR_LOCKED` if one is in. What it returns ends that. A disk of one process has none.
   * `report` is told when nobody can say whether another one is still in.
   */
  lock?(directory: string, report: (problem: Error) => void): Promise<() => Promise<void>>;
}

/** The machine's own. Errors are `MR_IO` and name the path; `cause` is the system's. */
export const systemDisk: Disk = {
  open: (path, mode) =>
    named(path, async () => {
      const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = fs.constants;
      const write = O_RDWR | O_CREAT;
      const flags = { read: O_RDONLY, write, new: write | O_EXCL, synced: write | dataSync }[mode];
      const handle = await fs.promises.open(path, flags);
      return new SystemFile(path, handle, mode === 'synced' && dataSync === 0);
    }),
  list: directory =>
    named(directory, () =>
      fs.promises.readdir(directory).catch((error: unknown) => {
        if (systemCode(error) === 'ENOENT') return [];
        throw error;
      }),
    ),
  rename: (from, to) => named(from, () => fs.promises.rename(from, to)),
  remove: path => named(path, () => fs.promises.rm(path)),
  makeDirectory: directory =>
    named(directory, async () => {
      const first = await fs.promises.mkdir(directory, { recursive: true });
      // What was made is safe when the directory that it is in is.
      for (let made = resolve(directory); first !== undefined; made = dirname(made)) {
        await syncDirectory(dirname(made));
        if (made === resolve(first)) break;
      }
    }),
  syncDirectory: directory => named(directory, () => syncDirectory(directory)),
  free: directory =>
    named(directory, async () => {
      const { bavail, bsize } = await fs.promises.statfs(directory);
      return bavail * bsize;
    }),
  lock: (directory, report) => named(directory, () => lockDirectory(directory, { report })),
};

/** Windows has no such flag: 0. */
const dataSync = (fs.constants as { O_DSYNC?: number }).O_DSYNC ?? 0;

const syncDirectory = async (directory: string): Promise<void> => {
  // Windows can not, and need not.
  if (process.platform === 'win32') return;
  const handle = await fs.promises.open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
};

/** Whether an error says that there is no such file. */
export const isMissing = (error: unknown): boolean =>
  error instanceof MillraceError && systemCode(error.cause) === 'ENOENT';

/** Whether an error says that there is one already. */
export const isTaken = (error: unknown): boolean =>
  error instanceof MillraceError && systemCode(error.cause) === 'EEXIST';

class SystemFile implements DiskFile {
  readonly path: string;
  readonly #handle: fs.promises.FileHandle;
  readonly #syncsWrites: boolean;

  /** `syncsWrites`: that the system does not do it by itself. */
  constructor(path: string, handle: fs.promises.FileHandle, syncsWrites: boolean) {
    this.path = path;
    this.#handle = handle;
    this.#syncsWrites = syncsWrites;
  }

  read(buffer: Buffer, position: number): Promise<number> {
    return named(this.path, async () => {
      let filled = 0;
      while (filled < buffer.length) {
        const { bytesRead } = await this.#handle.read(buffer, filled, buffer.length - filled, position + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return filled;
    });
  }

  write(pieces: readonly Buffer[], position: number): Promise<void> {
    return named(this.path, async () => {
      await writeAt(this.#handle.fd, pieces, position);
      if (this.#syncsWrites) await this.#handle.datasync();
    });
  }

  sync(): Promise<void> {
    return named(this.path, () => this.#handle.datasync());
  }

  truncate(length: number): Promise<void> {
    return named(this.path, () => this.#handle.truncate(length));
  }

  size(): Promise<number> {
    return named(this.path, async () => (await this.#handle.stat()).size);
  }

  close(): Promise<void> {
    return named(this.path, () => this.#handle.close());
  }
}

/** Writes all of it. The callback of `fs` costs half as much as a FileHandle's promise. */
export const writeAt = async (fd: number, pieces: readonly Buffer[], position: number): Promise<void> => {
  let at = position;
  for (let rest = withoutFirst(pieces, 0); rest.length > 0;) {
    const written = await new Promise<number>((resolve, reject) =>
      fs.writev(fd, rest, at, (cause, count) => {
        if (cause !== null) reject(cause);
        else if (count === 0) reject(new Error('the operating system takes no more bytes'));
        else resolve(count);
      }),
    );
    at += written;
    rest = withoutFirst(rest, written);
  }
};

/** What is left of the pieces after their first `count` bytes; no empty ones. */
const withoutFirst = (pieces: readonly Buffer[], count: number): readonly Buffer[] => {
  let skipped = count;
  const rest: Buffer[] = [];
  for (const piece of pieces) {
    if (skipped >= piece.length) skipped -= piece.length;
    else rest.push(skipped === 0 ? piece : piece.subarray(skipped));
    if (rest.length === 1) skipped = 0;
  }
  return rest;
};

const advice: Readonly<Record<string, string>> = {
  ENOENT: 'Create it, or name another path.',
  EACCES: 'Let this user read and write there, or name another path.',
  EPERM: 'Let this user read and write there, or name another path.',
  EROFS: 'The file system is read-only.',
  ENOSPC: 'The disk is full. It goes on as soon as there is room.',
  EDQUOT: 'The quota is used up. It goes on as soon as there is room.',
  EMFILE: 'This process has too many files open; raise its limit (`ulimit -n`).',
};

/** Runs `act`; what it throws becomes an error that names the path and says what to do. */
const named = async <R>(path: string, act: () => Promise<R>): Promise<R> => {
  try {
    return await act();
  } catch (thrown) {
    throw diskError(path, thrown);
  }
};

export const diskError = (path: string, thrown: unknown): MillraceError => {
  if (thrown instanceof MillraceError) return thrown;
  const cause = toError(thrown);
  const message = `${path}: ${cause.message}. ${advice[systemCode(cause) ?? ''] ?? ''}`.trim();
  return new MillraceError('MR_IO', message, { cause });
};
