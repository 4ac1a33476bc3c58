import { describe, expect, test } from 'vitest';
import {
  encodeFrameHeader,
  sumOf,
  encodeSegmentHeader,
  flag,
  frameHeaderSize,
  frameSize,
  headerSize,
} from '../../src/log/format.ts';
import { firstOf, FrameReader, segmentName } from '../../src/log/segment.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { CrashDisk } from '../crash/crash-disk.ts';

const header = { id: Buffer.alloc(16, 1), first: 100, bytesBefore: 0, salt: 77, extra: Buffer.alloc(76) };

interface Wanted {
  readonly seq: number;
  readonly count?: number;
  readonly group?: number;
  readonly size?: number;
  readonly salt?: number;
}

const frame = ({ seq, count = 1, group = 1, size = 20, salt = header.salt }: Wanted): Buffer => {
  const bytes = Buffer.alloc(frameSize(size));
  const content = Buffer.alloc(size, String(seq));
  content.copy(bytes, frameHeaderSize);
  const fields = { length: size, kind: 2, flags: flag.lastOfGroup, offsets: 0, count, seq, group, bytesAfter: 0 };
  const head = bytes.subarray(0, frameHeaderSize);
  encodeFrameHeader(head, fields, salt, sumOf([content]));
  return bytes;
};

const reading = async (frames: readonly Buffer[]): Promise<FrameReader> => {
  const disk = new CrashDisk(seededRandom(1));
  disk.put('/a.seg', Buffer.concat([encodeSegmentHeader(header), ...frames]));
  return new FrameReader(await disk.open('/a.seg', 'read'), header);
};

const all = async (reader: FrameReader, limit?: number): Promise<number[]> => {
  const found: number[] = [];
  for (let next = await reader.next(limit); next !== undefined; next = await reader.next(limit))
    found.push(next.header.seq);
  return found;
};

const broken = (bytes: Buffer): Buffer => {
  const copy = Buffer.from(bytes);
  copy[frameHeaderSize + 3] = 0xff;
  return copy;
};

test('names of segments are their first number, and sort like it', () => {
  expect(segmentName(0)).toBe('00000000000000000000.seg');
  expect(firstOf(segmentName(2 ** 53 - 1))).toBe(2 ** 53 - 1);
  expect([firstOf('1.seg'), firstOf('00000000000000000000.spare'), firstOf('new.segment')]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
});

describe('reading frames', () => {
  test('one behind the other, with their payloads', async () => {
    const reader = await reading([
      frame({ seq: 100, count: 3 }),
      frame({ seq: 103, size: 0 }),
      frame({ seq: 104, size: 3_000_000 }),
    ]);
    expect((await reader.next())?.payload.toString()).toBe('100'.repeat(7).slice(0, 20));
    expect((await reader.next())?.payload).toHaveLength(0);
    expect((await reader.next())?.payload).toHaveLength(3_000_000);
    expect(await reader.next()).toBeUndefined();
    expect(reader.seq).toBe(105);
  });

  test.each([
    ['zeros', Buffer.alloc(64)],
    ['a frame of the wrong number', frame({ seq: 102 })],
    ['a frame of another life of the file', frame({ seq: 101, salt: 5 })],
    ['a damaged frame', broken(frame({ seq: 101 }))],
    ['half a frame', frame({ seq: 101 }).subarray(0, 48)],
    ['half a header', frame({ seq: 101 }).subarray(0, 16)],
    ['a length beyond the end', frame({ seq: 101, size: 5_000_000 }).subarray(0, 1000)],
  ])('ends before %s', async (_, tail) => {
    const reader = await reading([frame({ seq: 100 }), tail]);
    expect(await all(reader)).toEqual([100]);
    expect(reader.offset).toBe(headerSize + frameSize(20));
  });

  test('does not look behind the limit', async () => {
    const reader = await reading([frame({ seq: 100 }), frame({ seq: 101 })]);
    const limit = headerSize + frameSize(20);
    expect(await all(reader, limit)).toEqual([100]);
    expect(await all(reader, limit * 2)).toEqual([101]);
  });
});

describe('finding the next sound frame', () => {
  test('behind a damaged one, and reading goes on there', async () => {
    const reader = await reading([
      broken(frame({ seq: 100 })),
      frame({ seq: 101, group: 2 }),
      frame({ seq: 102, group: 3 }),
    ]);
    expect(await reader.next()).toBeUndefined();
    expect((await reader.find())?.header.seq).toBe(101);
    expect(await all(reader)).toEqual([102]);
  });

  test('far away, over more than one read', async () => {
    const reader = await reading([broken(frame({ seq: 100, size: 2_500_000 })), frame({ seq: 101, group: 2 })]);
    expect((await reader.find())?.header.seq).toBe(101);
  });

  test('not one of an earlier number, of an earlier group, or of another life', async () => {
    const wrong = [
      frame({ seq: 100 }),
      frame({ seq: 99, group: 2 }),
      frame({ seq: 102, group: 0 }),
      frame({ seq: 103, group: 2, salt: 5 }),
    ];
    const reader = await reading([broken(frame({ seq: 100 })), ...wrong]);
    expect(await reader.find()).toBeUndefined();
  });
});
