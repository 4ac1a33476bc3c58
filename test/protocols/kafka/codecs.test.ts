import fc from 'fast-check';
import { uncompressSync, compressSync } from 'snappy';
import { describe, expect, it } from 'vitest';
import type { Compression } from '../../../src/protocols/kafka/client.ts';
import { codecs, decompress, numberOf } from '../../../src/protocols/kafka/codecs.ts';

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 500 }).map(array => Buffer.from(array)),
  // More than one block of snappy-java.
  fc.tuple(fc.string({ minLength: 1 }), fc.nat(20_000)).map(([text, times]) => Buffer.from(text.repeat(times))),
);

describe.each(Object.entries(codecs))('%s', (name, make) => {
  it('gives back what it was given', async () => {
    const codec = make();
    await fc.assert(
      fc.asyncProperty(bytes, async given => {
        expect((await codec.decompress(await codec.compress(given))).equals(given)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it('refuses what is no such thing', async () => {
    await expect(make().decompress(Buffer.from('neither compressed nor anything'))).rejects.toThrow();
  });

  it('is found by its number', async () => {
    const packed = await make().compress(Buffer.from('abc'));
    expect((await decompress(numberOf(name as Compression), packed)).toString()).toBe('abc');
  });
});

it.each([0, 5, -1])('there is none with number %i', async number => {
  await expect(decompress(number, Buffer.from('abc'))).rejects.toThrow(`number ${number}`);
});

describe('snappy', () => {
  it('writes the blocks of snappy-java: each with its length, none larger than 32 KiB', async () => {
    const given = Buffer.from('a line of a log\n'.repeat(5000));
    const packed = await codecs.snappy().compress(given);
    expect(packed.subarray(0, 16).toString('hex')).toBe('82534e41505059000000000100000001');
    const blocks: Buffer[] = [];
    for (let from = 16; from < packed.length;) {
      const length = packed.readInt32BE(from);
      blocks.push(uncompressSync(packed.subarray(from + 4, from + 4 + length), { asBuffer: true }) as Buffer);
      from += 4 + length;
    }
    expect(blocks.map(block => block.length)).toEqual([32_768, 32_768, 80_000 - 65_536]);
    expect(Buffer.concat(blocks).equals(given)).toBe(true);
  });

  it('reads one block without a frame, as librdkafka writes it', async () => {
    expect((await codecs.snappy().decompress(compressSync('plain'))).toString()).toBe('plain');
  });
});
