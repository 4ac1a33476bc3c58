/**
 * Telling contents apart by a few of their bytes: the first {@link headSize}, and the {@link markSize} before an offset.
 *
 * @module
 */
import { hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import type { Fingerprint } from './position-file.ts';

/** Bytes at the start of a file by which it is known; a shorter file by what it has. */
export const headSize = 1024;

/** Bytes before an offset that must be the same for reading to go on there. */
export const markSize = 64;

export const noBytes = Buffer.alloc(0);

/** 96 bits: nobody attacks it, and no two of a billion contents meet by accident. */
export const fingerprint = (bytes: Buffer): Fingerprint => ({
  length: bytes.length,
  hash: bytes.length === 0 ? '' : hash('sha1', bytes, 'base64').slice(0, 16),
});

/** Whether `bytes` begins with what this is the fingerprint of. */
export const beginsWith = (bytes: Buffer, { length, hash: own }: Fingerprint): boolean =>
  bytes.length >= length && fingerprint(bytes.subarray(0, length)).hash === own;

/** The last bytes of what lies behind each other, for a mark. A copy of its own, which keeps nothing larger in memory. */
export const endOf = (before: Buffer, bytes: Buffer): Buffer => {
  if (bytes.length === 0) return before;
  const fromBefore = Math.min(before.length, Math.max(0, markSize - bytes.length));
  const end = Buffer.allocUnsafeSlow(fromBefore + Math.min(bytes.length, markSize));
  before.copy(end, 0, before.length - fromBefore);
  bytes.copy(end, fromBefore, Math.max(0, bytes.length - markSize));
  return end;
};

/** Up to `length` bytes from `offset` on; fewer at the end of the file. */
export const readAt = async (handle: FileHandle, offset: number, length: number): Promise<Buffer> => {
  const bytes = Buffer.allocUnsafe(length);
  const { bytesRead } = await handle.read(bytes, 0, length, offset);
  return bytes.subarray(0, bytesRead);
};

/** The bytes before an offset; undefined if the file ends before it. */
export const readMark = async (handle: FileHandle, at: number, length = markSize): Promise<Buffer | undefined> => {
  const wanted = Math.min(length, at);
  if (wanted === 0) return noBytes;
  const bytes = await readAt(handle, at - wanted, wanted);
  return bytes.length === wanted ? bytes : undefined;
};

/** Formats that logs are compressed into. */
const magic = [
  ['gzip', '1f8b'],
  ['zstd', '28b52ffd'],
  ['xz', 'fd377a585a00'],
] as const;

/** What a content is compressed with; undefined if it is not. */
export const compression = (head: Buffer): string | undefined => {
  const start = head.toString('hex', 0, 6);
  return magic.find(([, bytes]) => start.startsWith(bytes))?.[0];
};
