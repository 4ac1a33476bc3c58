/**
 * One file in a spooling directory: which it is, how far it has left, how far that is acked.
 *
 * @module
 */
import type { BigIntStats } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import type { Headers } from '../../core/event.ts';
import { AckedInOrder } from '../../core/acked-in-order.ts';
import { bornAt, keyOf } from '../tailing/tail-file.ts';

/** A place in a file. */
export interface Mark {
  readonly offset: number;
  /** How many parts of the line at this place have left, if it is longer than lines may be. */
  readonly parts: number;
  /** CRC-32 of everything before it. */
  readonly crc: number;
}

const start: Mark = { offset: 0, parts: 0, crc: 0 };

/** How a file was when it was looked at. */
export interface Look {
  readonly size: number;
  /** In nanoseconds since the epoch. */
  readonly mtime: bigint;
}

export const lookOf = ({ size, mtimeNs }: BigIntStats): Look => ({ size: Number(size), mtime: mtimeNs });

export const sameLook = (a: Look, b: Look): boolean => a.size === b.size && a.mtime === b.mtime;

/** Device, inode and birth: a file that is replaced under its name is another one. */
export const identityOf = (stats: BigIntStats): string => `${keyOf(stats)}:${bornAt(stats)}`;

export class SpoolFile extends AckedInOrder<Mark> {
  readonly path: string;
  readonly identity: string;
  readonly headers: Headers;
  /** As it was when it was opened last; what it is expected to stay. */
  look: Look;
  /** Up to here it has left. */
  mark: Mark;
  /** Nothing of it has ever left, not even the event that an empty file is. */
  fresh = true;
  /** Read to its end. */
  allRead = false;
  /** Pieces that were read and have not left. */
  pieces = 0;
  /** Set aside: how it was then, and whether it is tried again although it stays so. */
  aside: (Look & { readonly again: boolean }) | undefined;
  /** What was last said about it. */
  said = '';

  constructor(path: string, identity: string, look: Look, headers: Headers) {
    super(start);
    this.path = path;
    this.identity = identity;
    this.look = look;
    this.headers = headers;
    this.mark = start;
  }

  /** It was begun by an earlier session, and looked so then. */
  resume({ offset, parts, crc }: Mark, { size, mtime }: Look): void {
    this.mark = this.committed = { offset, parts, crc };
    this.look = { size, mtime };
    this.fresh = false;
  }

  /** Read, delivered and acked. */
  get finished(): boolean {
    return this.allRead && this.pieces === 0 && this.settled;
  }
}

/** Bytes that are compared at a time. */
const compareSize = 512 * 1024;

/** Whether what has left is still what the file begins with. */
export const beginsAsBefore = async (handle: FileHandle, { offset, crc }: Mark): Promise<boolean> =>
  (await markAt(handle, offset))?.crc === crc;

/** The place at an offset; undefined if the file ends before it. */
export const markAt = async (handle: FileHandle, offset: number): Promise<Mark | undefined> => {
  const buffer = Buffer.allocUnsafeSlow(Math.min(compareSize, offset));
  let crc = 0;
  for (let at = 0; at < offset;) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, offset - at), at);
    if (bytesRead === 0) return undefined;
    crc = crc32(buffer.subarray(0, bytesRead), crc);
    at += bytesRead;
  }
  return { offset, parts: 0, crc };
};
