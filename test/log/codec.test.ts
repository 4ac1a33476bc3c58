import { randomBytes } from 'node:crypto';
import zlib from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { Codec, type CodecOptions } from '../../src/log/codec.ts';
import type { FrameHeader, SegmentHeader } from '../../src/log/format.ts';

process.env['CODEC_TEST_A'] = randomBytes(32).toString('hex');
process.env['CODEC_TEST_B'] = randomBytes(32).toString('base64');

/** test/integration/newer-node.test.ts runs this with a Node.js that has it. */
const hasZstd = 'zstdCompress' in zlib;

const plain: CodecOptions = { compression: 'none', activeKey: undefined, keys: {} };
const secret: CodecOptions = {
  compression: 'none',
  activeKey: 'a',
  keys: { a: 'env:CODEC_TEST_A', b: 'env:CODEC_TEST_B' },
};

const withZstd: [string, CodecOptions][] = [
  ['compressed with zstd', { ...plain, compression: 'zstd' }],
  ['both, with zstd', { ...secret, compression: 'zstd' }],
];

const segmentOf = (codec: Codec): SegmentHeader => ({
  id: Buffer.alloc(16),
  first: 0,
  bytesBefore: 0,
  salt: 0,
  extra: codec.begin(),
});

const fields = { flags: 1, offsets: 0, count: 3, seq: 2 ** 40 + 7, group: 9, bytesAfter: 12345 };

/** What comes out again of what went in. */
const roundTrip = async (
  codec: Codec,
  bytes: Buffer,
  change: (header: FrameHeader, sealed: Buffer) => FrameHeader = h => h,
) => {
  const segment = codec.of(segmentOf(codec), 'x.seg');
  const sealed = await segment.seal?.(fields, {
    kind: 1,
    pieces: [bytes.subarray(0, 5), bytes.subarray(5)],
    length: bytes.length,
  });
  const { pieces, length, flags } = sealed ?? { pieces: [bytes], length: bytes.length, flags: 1 };
  const stored = Buffer.concat(pieces);
  expect(stored.length).toBe(length);
  const header = change({ ...fields, flags, kind: 1, length, crc: 0 }, stored);
  return { stored, out: await segment.open(header, stored) };
};

describe('payloads', () => {
  test.each<[string, CodecOptions]>([
    ['as they are', plain],
    ['compressed', { ...plain, compression: 'gzip' }],
    ['encrypted', secret],
    ['both', { ...secret, compression: 'gzip' }],
    ...(hasZstd ? withZstd : []),
  ])('come out as they went in: %s', async (_, options) => {
    const codec = new Codec(options);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 3000 }), fc.boolean(), async (array, regular) => {
        const bytes = regular ? Buffer.from(array).fill('abc') : Buffer.from(array);
        expect((await roundTrip(codec, bytes)).out).toEqual(bytes);
      }),
      { numRuns: 100 },
    );
  });

  it.each(hasZstd ? (['gzip', 'zstd'] as const) : (['gzip'] as const))(
    'are smaller with %s, and as they are when that would make them larger',
    async compression => {
      const codec = new Codec({ ...plain, compression });
      expect((await roundTrip(codec, Buffer.alloc(10_000, 'line '))).stored.length).toBeLessThan(500);
      const noise = randomBytes(1000);
      expect((await roundTrip(codec, noise)).stored).toEqual(noise);
    },
  );

  it('can not be read, nor changed unnoticed, when encrypted', async () => {
    const codec = new Codec(secret);
    const text = Buffer.from('a secret that nobody may read');
    const { stored } = await roundTrip(codec, text);
    expect(stored.includes('secret')).toBe(false);
    // Twice the same does not look the same: each segment has its own key.
    expect((await roundTrip(codec, text)).stored).not.toEqual(stored);
    const broken = (change: (header: FrameHeader, sealed: Buffer) => FrameHeader) =>
      expect(roundTrip(codec, text, change)).rejects.toThrow();
    await broken((header, sealed) => ((sealed[3]! ^= 1), header));
    await broken(header => ({ ...header, seq: header.seq + 1 }));
    await broken(header => ({ ...header, count: 2 }));
    await broken(header => ({ ...header, kind: 2 }));
    await broken(header => ({ ...header, bytesAfter: 1 }));
  });

  it('need their key', () => {
    const codec = new Codec(secret);
    const header = segmentOf(codec);
    expect(() => new Codec(plain).of(header, 'x.seg')).toThrow(
      expect.objectContaining({ code: 'MR_WRONG_KEY', message: expect.stringContaining('the key a') as string }),
    );
    const other = new Codec({ ...secret, keys: { a: 'env:CODEC_TEST_B' } });
    expect(() => other.of(header, 'x.seg')).toThrow(expect.objectContaining({ code: 'MR_WRONG_KEY' }));
    // A new active key, and the old one still known.
    expect(() => new Codec({ ...secret, activeKey: 'b' }).of(header, 'x.seg')).not.toThrow();
  });

  it('with zstd need a newer Node.js', () => {
    const make = () => new Codec({ ...plain, compression: 'zstd' });
    if (hasZstd) expect(make).not.toThrow();
    else expect(make).toThrow(/22\.15.*gzip works here/);
  });
});
