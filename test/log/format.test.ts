import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  decodeFrameHeader,
  decodeSegmentHeader,
  encodeFrameHeader,
  sumOf,
  encodeSegmentHeader,
  frameHeaderSize,
  frameSize,
  getNumber,
  headerSize,
  isSound,
  putNumber,
} from '../../src/log/format.ts';

const number = fc.oneof(fc.maxSafeNat(), fc.constantFrom(0, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1));
const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map(array => Buffer.from(array));
const segment = fc.record({
  id: bytes(16),
  first: number,
  bytesBefore: number,
  salt: fc.nat(0xffffffff),
  extra: bytes(76),
});
const payload = fc.uint8Array({ maxLength: 200 }).map(array => Buffer.from(array));
const frame = fc.record({
  kind: fc.nat(255),
  flags: fc.nat(255),
  count: fc.nat(0xffffffff),
  seq: number,
  group: fc.nat(0xffff),
  bytesAfter: fc.nat(2 ** 48 - 1),
});

/** A frame with its payload. */
const encoded = (
  fields: Omit<Parameters<typeof encodeFrameHeader>[1], 'length' | 'offsets'>,
  content: Buffer,
  salt: number,
) => {
  const header = Buffer.alloc(frameHeaderSize);
  encodeFrameHeader(header, { ...fields, offsets: 0, length: content.length }, salt, sumOf([content]));
  return Buffer.concat([header, content]);
};

test('whole numbers of up to 53 bits come back', () => {
  fc.assert(
    fc.property(number, value => {
      const at = Buffer.alloc(16);
      putNumber(at, value, 5);
      expect(getNumber(at, 5)).toBe(value);
    }),
  );
});

test('the header of a segment comes back', () => {
  fc.assert(
    fc.property(segment, header => {
      const written = encodeSegmentHeader(header);
      expect(written).toHaveLength(headerSize);
      expect(decodeSegmentHeader(written, 'a.seg')).toEqual(header);
    }),
  );
});

test('a header of which any bit is altered is none, or is refused as newer', () => {
  fc.assert(
    fc.property(segment, fc.nat(headerSize * 8 - 1), (header, bit) => {
      const written = encodeSegmentHeader(header);
      written[bit >> 3] = (written[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(decodeSegmentHeader(written, 'a.seg')).toBeUndefined();
    }),
  );
  expect(decodeSegmentHeader(Buffer.alloc(headerSize), 'a.seg')).toBeUndefined();
  expect(decodeSegmentHeader(Buffer.from('MILLRACE'), 'a.seg')).toBeUndefined();
});

test('the header of a frame comes back, and the frame is sound', () => {
  fc.assert(
    fc.property(frame, payload, fc.nat(0xffffffff), (fields, content, salt) => {
      const written = Buffer.concat([Buffer.alloc(24), encoded(fields, content, salt)]);
      const header = decodeFrameHeader(written, 24);
      expect(header).toMatchObject({ ...fields, length: content.length });
      expect(isSound(written, 24, header, salt)).toBe(true);
    }),
  );
});

test('a frame of which any bit is altered is not sound, nor is one of another segment', () => {
  fc.assert(
    fc.property(frame, payload, fc.nat(0xffffffff), fc.nat(), (fields, content, salt, where) => {
      const written = encoded(fields, content, salt);
      const header = decodeFrameHeader(written, 0);
      expect(isSound(written, 0, header, (salt ^ 1) >>> 0)).toBe(false);
      const bit = where % (written.length * 8);
      written[bit >> 3] = (written[bit >> 3] as number) ^ (1 << (bit & 7));
      const altered = decodeFrameHeader(written, 0);
      // The reader has seen to it before that the file has that many bytes.
      if (altered.length === content.length) expect(isSound(written, 0, altered, salt)).toBe(false);
    }),
  );
});

test('frames begin at multiples of 8', () => {
  fc.assert(
    // A torn header may say any length.
    fc.property(fc.oneof(fc.nat(1_000_000), fc.nat(0xffffffff)), length => {
      expect(frameSize(length) % 8).toBe(0);
      expect(frameSize(length) - frameHeaderSize - length).toBeGreaterThanOrEqual(0);
      expect(frameSize(length) - frameHeaderSize - length).toBeLessThan(8);
    }),
  );
});

test('a newer version is refused', () => {
  const written = encodeSegmentHeader({
    id: Buffer.alloc(16),
    first: 0,
    bytesBefore: 0,
    salt: 1,
    extra: Buffer.alloc(76),
  });
  expect(written.readUInt16LE(8)).toBe(2);
  const newer = newerHeader(written);
  expect(() => decodeSegmentHeader(newer, '/d/a.seg')).toThrow(
    expect.objectContaining({
      code: 'MR_NEWER_FORMAT',
      message: expect.stringContaining('/d/a.seg has format version 3'),
    }),
  );
});

/** The same header, of version 3, and sound. */
const newerHeader = (header: Buffer): Buffer => {
  const copy = Buffer.from(header);
  copy.writeUInt16LE(3, 8);
  copy.writeUInt32LE(0, 12);
  copy.writeUInt32LE(crc32(copy), 12);
  return copy;
};
