import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Acked } from '../../src/log/acked.ts';

const size = 60;
/** Every event has another size, so that a wrong sum shows. */
const bytesOf = (start: number, end: number): number => {
  let bytes = 0;
  for (let n = start; n < end; n++) bytes += n + 1;
  return bytes;
};

/** Plays ranges on both; those that are done with in part are cut to what is left. */
const play = (wanted: readonly (readonly [number, number])[]): { acked: Acked; model: Set<number> } => {
  const acked = new Acked();
  const model = new Set<number>();
  for (const [from, length] of wanted) {
    let start = from;
    while (model.has(start)) start++;
    let end = start;
    while (end < start + length && end < size && !model.has(end)) model.add(end++);
    if (end > start) acked.add({ start, end, bytes: bytesOf(start, end) });
  }
  return { acked, model };
};

const ranges = fc.array(fc.tuple(fc.nat(size - 1), fc.integer({ min: 1, max: 12 })), { maxLength: 30 });

const compare = (acked: Acked, model: ReadonlySet<number>): void => {
  let watermark = 0;
  while (model.has(watermark)) watermark++;
  expect(acked.watermark).toBe(watermark);
  expect(acked.events).toBe(model.size);
  expect(acked.bytes).toBe([...model].reduce((sum, n) => sum + n + 1, 0));
  expect(acked.mark).toEqual({ seq: watermark, bytesBefore: bytesOf(0, watermark) });
  for (let n = 0; n <= size; n++) {
    let free = n;
    while (model.has(free)) free++;
    expect(acked.skip(n), `skip(${n})`).toBe(free);
    if (n < watermark || model.has(n)) continue;
    let next = n;
    while (next < size && !model.has(next)) next++;
    expect(acked.next(n), `next(${n})`).toBe(next < size ? next : Infinity);
  }
};

describe('it is a set of numbers', () => {
  test('whatever is added, in whatever order', () => {
    fc.assert(
      fc.property(ranges, wanted => {
        const { acked, model } = play(wanted);
        compare(acked, model);
      }),
    );
  });

  test('neighbours are merged', () => {
    fc.assert(
      fc.property(ranges, wanted => {
        const all = play(wanted).acked.ranges;
        for (const [i, { start, end }] of all.entries()) {
          expect(start).toBeLessThan(end);
          expect(start).toBeGreaterThan(all[i - 1]?.end ?? -1);
        }
      }),
    );
  });

  test('and comes back from a checkpoint', () => {
    fc.assert(
      fc.property(ranges, wanted => {
        const { acked, model } = play(wanted);
        compare(Acked.decode(acked.encode()), model);
      }),
    );
  });
});

test('with too many ranges the oldest are kept: nothing that was not done with is taken for done', () => {
  const acked = new Acked();
  for (let n = 1; n < 1000; n += 2) acked.add({ start: n, end: n + 1, bytes: 1 });
  const back = Acked.decode(acked.encode());
  expect(acked.encode().length).toBeLessThanOrEqual(4096);
  expect(back.ranges.length).toBeGreaterThan(100);
  expect(back.ranges).toEqual(acked.ranges.slice(0, back.ranges.length));
  expect(back.events).toBe(back.ranges.length);
});

test('bytes between two numbers are those of ranges between them', () => {
  const acked = new Acked(10, 100);
  acked.add({ start: 12, end: 14, bytes: 7 });
  acked.add({ start: 20, end: 21, bytes: 5 });
  expect(acked.bytesBetween(10, 20)).toBe(7);
  expect(acked.bytesBetween(10, 21)).toBe(12);
  expect(acked.bytesBefore({ seq: 5, bytesBefore: 50 })).toBe(100);
  expect(acked.bytesBefore({ seq: 11, bytesBefore: 120 })).toBe(120);
});
