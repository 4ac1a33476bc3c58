import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { murmur2, partitionOf, Spread } from '../../../src/protocols/kafka/partitioner.ts';

describe('murmur2', () => {
  // What Java's own function answers; Kafka tests it with the same.
  test.each([
    ['21', -973932308],
    ['foobar', -790332482],
    ['a-little-bit-long-string', -985981536],
    ['a-little-bit-longer-string', -1486304829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
    ['abc', 479470107],
  ])('of %s', (text, hash) => {
    expect(murmur2(Buffer.from(text))).toBe(hash);
  });
});

it('a key has its partition, which is one of those that there are', () => {
  expect(partitionOf(Buffer.from('foobar'), 6)).toBe((-790332482 & 0x7fffffff) % 6);
  fc.assert(
    fc.property(fc.uint8Array(), fc.integer({ min: 1, max: 100 }), (key, partitions) => {
      const partition = partitionOf(key, partitions);
      expect(partition).toBe(partitionOf(Buffer.from(key), partitions));
      expect(partition >= 0 && partition < partitions).toBe(true);
    }),
  );
});

describe('what has no key', () => {
  it('is spread evenly by bytes, several to one partition', () => {
    const spread = new Spread(() => 0.5);
    const bytes = [0, 0, 0];
    let changes = 0;
    let last = -1;
    for (let i = 0; i < 10_000; i++) {
      const partition = spread.next(100 + (i % 50), 3);
      bytes[partition]! += 100 + (i % 50);
      if (partition !== last) changes++;
      last = partition;
    }
    expect(Math.max(...bytes) - Math.min(...bytes)).toBeLessThan(20_000);
    expect(changes).toBeLessThan(80);
  });

  it('begins anywhere, and takes in partitions that come later', () => {
    const starts = new Set([0, 0.25, 0.5, 0.75].map(chance => new Spread(() => chance + 0.0001).next(1, 7)));
    expect(starts.size).toBeGreaterThan(1);
    const spread = new Spread(() => 0);
    const seen = new Set(Array.from({ length: 5 }, () => spread.next(20_000, 5)));
    expect(seen.size).toBe(5);
  });
});
