/**
 * The format of the log's files. All numbers are little-endian.
 *
 * **Segment**: a header of 128 bytes, then frames, one behind the other, until something is not the next frame. A segment
 * file is used again when it is consumed, so what follows may be zeros, or frames of its former life.
 *
 *      0  8  "MILLRACE"
 *      8  2  version, 2
 *     10  2  0
 *     12  4  CRC of the header, with these four bytes 0
 *     16 16  log id: which log it belongs to
 *     32  8  sequence number of its first event; also its file name
 *     40  8  bytes of all events before it (bodies and headers, as capacities count them)
 *     48  4  salt: random, the starting value of every CRC in this segment
 *     52 76  0, or what encryption needs: see codec.ts
 *
 * **Frame**: one put, or several that waited together and lie behind each other in memory. A header of 32 bytes, the payload,
 * the offsets, zeros up to a multiple of 8.
 *
 *      0  4  length of the payload and the offsets
 *      4  4  CRC of the header, with the CRC of the payload and the offsets in these four bytes
 *      8  1  kind of payload: 1 block, 2 events; see payload.ts
 *      9  1  flags: 1 last of its group, 2 payload is gzip, 4 payload is zstd
 *     10  2  length of the offsets
 *     12  4  number of events
 *     16  8  sequence number of its first event
 *     24  8  group, in the high 16 bits; bytes of all events up to its last, in the low 48
 *
 * **Offsets** say how far sources have come: for each, its key and its value, a length (1 byte, 2 bytes) and UTF-8. A frame has
 * that of its last batch, the first one of a segment all that are known, so that the last segment has them all.
 *
 * Sequence numbers count events, so that a hole says how many are missing. The CRC covers the length and the sequence
 * number, and starts from the segment's salt: an old frame in a file that is used again is not taken for a new one.
 *
 * A **group** is what was written and synced at once; groups of a segment count from 1. The next group is written only
 * when the one before is safe. So a bad frame with a later group behind it was damaged, and its events are missing; a bad
 * frame in the last group is what a crash in the middle of a write leaves, and nobody was told that it is safe.
 *
 * Beside them each directory has a note of all directories of the log, see directories.ts, and one of them the checkpoint, see
 * register.ts and recovery.ts.
 *
 * @module
 */
import { crc32 } from 'node:zlib';
import { MillraceError } from '../core/errors.ts';

export const headerSize = 128;
export const frameHeaderSize = 32;
const magic = Buffer.from('MILLRACE');
const version = 2;

/** What the header of a segment says. */
export interface SegmentHeader {
  readonly id: Buffer;
  readonly first: number;
  readonly bytesBefore: number;
  readonly salt: number;
  /** 76 bytes for encryption. */
  readonly extra: Buffer;
}

/** What the header of a frame says. */
export interface FrameHeader {
  /** Of the payload and the offsets. */
  readonly length: number;
  readonly crc: number;
  readonly kind: number;
  readonly flags: number;
  /** Bytes of the offsets. */
  readonly offsets: number;
  readonly count: number;
  readonly seq: number;
  readonly group: number;
  readonly bytesAfter: number;
}

/** All of it that is not a checksum. */
export type FrameFields = Omit<FrameHeader, 'crc'>;

export const flag = { lastOfGroup: 1, gzip: 2, zstd: 4 } as const;

/** Groups per segment at most; the segment ends then. */
export const mostGroups = 0xffff;

/** A whole number of up to 53 bits. */
export const putNumber = (bytes: Buffer, value: number, at: number): void => {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
};

export const getNumber = (bytes: Buffer, at: number): number =>
  bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;

export const encodeSegmentHeader = ({ id, first, bytesBefore, salt, extra }: SegmentHeader): Buffer => {
  const bytes = Buffer.alloc(headerSize);
  magic.copy(bytes);
  bytes.writeUInt16LE(version, 8);
  id.copy(bytes, 16);
  putNumber(bytes, first, 32);
  putNumber(bytes, bytesBefore, 40);
  bytes.writeUInt32LE(salt, 48);
  extra.copy(bytes, 52);
  bytes.writeUInt32LE(crc32(bytes), 12);
  return bytes;
};

/** Undefined if this is no header, or a damaged one. A newer version is refused, never guessed at. */
export const decodeSegmentHeader = (bytes: Buffer, path: string): SegmentHeader | undefined => {
  if (bytes.length < headerSize || !bytes.subarray(0, 8).equals(magic)) return undefined;
  const copy = Buffer.from(bytes.subarray(0, headerSize));
  copy.writeUInt32LE(0, 12);
  if (crc32(copy) !== bytes.readUInt32LE(12)) return undefined;
  const found = bytes.readUInt16LE(8);
  if (found !== version) throw newer(path, found);
  return {
    id: Buffer.from(bytes.subarray(16, 32)),
    first: getNumber(bytes, 32),
    bytesBefore: getNumber(bytes, 40),
    salt: bytes.readUInt32LE(48),
    extra: Buffer.from(bytes.subarray(52, headerSize)),
  };
};

export const newer = (path: string, found: number): MillraceError =>
  new MillraceError(
    'MR_NEWER_FORMAT',
    `${path} has format version ${found}; this version of millrace knows ${version} only. Use the version that wrote it.`,
  );

/** The CRC of what follows a frame's header; `before` is that of what is before the pieces. Of nothing zlib says 0, and forgets that. */
export const sumOf = (pieces: readonly Buffer[], before = 0): number => {
  let sum = before;
  for (const piece of pieces) if (piece.length > 0) sum = crc32(piece, sum);
  return sum;
};

/** Writes a frame's header to `bytes`; `sum` is that of what follows it. */
export const encodeFrameHeader = (
  bytes: Buffer,
  { length, kind, flags, offsets, count, seq, group, bytesAfter }: FrameFields,
  salt: number,
  sum: number,
): void => {
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt8(kind, 8);
  bytes.writeUInt8(flags, 9);
  bytes.writeUInt16LE(offsets, 10);
  bytes.writeUInt32LE(count, 12);
  putNumber(bytes, seq, 16);
  bytes.writeUIntLE(bytesAfter, 24, 6);
  bytes.writeUInt16LE(group, 30);
  bytes.writeUInt32LE(sum, 4);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, frameHeaderSize), salt), 4);
};

/** Reads a frame's header, whatever is there. */
export const decodeFrameHeader = (bytes: Buffer, at: number): FrameHeader => ({
  length: bytes.readUInt32LE(at),
  crc: bytes.readUInt32LE(at + 4),
  kind: bytes.readUInt8(at + 8),
  flags: bytes.readUInt8(at + 9),
  offsets: bytes.readUInt16LE(at + 10),
  count: bytes.readUInt32LE(at + 12),
  seq: getNumber(bytes, at + 16),
  bytesAfter: bytes.readUIntLE(at + 24, 6),
  group: bytes.readUInt16LE(at + 30),
});

/** Whether the whole frame at `at` in `bytes` is as it was written. */
export const isSound = (bytes: Buffer, at: number, { length, crc }: FrameHeader, salt: number): boolean => {
  const start = at + frameHeaderSize;
  const head = Buffer.from(bytes.subarray(at, start));
  head.writeUInt32LE(sumOf([bytes.subarray(start, start + length)]), 4);
  return crc32(head, salt) === crc;
};

/** From the start of a frame to the start of the next. */
export const frameSize = (length: number): number => 8 * Math.ceil((frameHeaderSize + length) / 8);
