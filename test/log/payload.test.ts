import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Batch, headers, noHeaders, type FlumeEvent } from '../../src/core/event.ts';
import { decodePayload, encodePayload, kind } from '../../src/log/payload.ts';

// Any 16-bit units: lone surrogates, empty text and keys like __proto__ among them.
const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string(),
  fc.constantFrom('', '\ud800', 'a\udfffb', '__proto__', '1'),
);
const head = fc.dictionary(text, text, { maxKeys: 4, noNullPrototype: true }).map(entries => headers(entries));
const body = fc.oneof(
  fc.constant(Buffer.alloc(0)),
  fc.uint8Array({ maxLength: 100 }).map(array => Buffer.from(array)),
);
const shared = [noHeaders, headers({}), headers({ host: 'a' }), headers({ lone: '\udc00', '': '' })];
const events: fc.Arbitrary<FlumeEvent[]> = fc.array(
  fc.record({ headers: fc.oneof(head, fc.constantFrom(...shared)), body }),
  { minLength: 1, maxLength: 12 },
);

const blockOf = (bodies: readonly Buffer[], under: FlumeEvent['headers']): Batch => {
  let end = -1;
  const ends = Uint32Array.from(bodies, ({ length }) => (end += length + 1));
  return Batch.ofBlock({ bytes: Buffer.concat(bodies.flatMap(one => [one, Buffer.from('\n')])), ends, headers: under });
};

/** As it is when it was written and read. */
const through = (batch: Batch): Batch => {
  const { kind: of, pieces, length } = encodePayload(batch);
  const bytes = Buffer.concat(pieces);
  expect(bytes).toHaveLength(length);
  return decodePayload(of, batch.length, bytes);
};

const plain = (batch: Batch) =>
  batch.events.map(one => ({ headers: Object.entries(one.headers), body: one.body.toString('hex') }));

describe('B20 what is written comes back', () => {
  test('events, header for header and byte for byte', () => {
    fc.assert(
      fc.property(events, some => {
        const batch = through(Batch.of(some));
        expect(plain(batch)).toEqual(plain(Batch.of(some)));
        expect(batch.byteLength).toBe(Batch.of(some).byteLength);
      }),
    );
  });

  test('a block, as a block', () => {
    fc.assert(
      fc.property(fc.array(body, { minLength: 1, maxLength: 12 }), head, (bodies, under) => {
        const batch = blockOf(bodies, under);
        const read = through(batch);
        expect(read.block?.bytes).toEqual(batch.block?.bytes);
        expect(plain(read)).toEqual(plain(batch));
        expect(read.byteLength).toBe(batch.byteLength);
      }),
    );
  });

  test('part of a block', () => {
    const [first, rest] = blockOf(
      ['a', '', 'bc', 'd'].map(one => Buffer.from(one)),
      shared[2]!,
    ).split(1);
    expect(plain(through(first))).toEqual(plain(first));
    expect(plain(through(rest))).toEqual(plain(rest));
  });

  test('headers that change between two batches though they are the same object', () => {
    const changing: Record<string, string> = { n: '1' };
    expect(through(Batch.of([{ headers: changing, body: Buffer.alloc(0) }])).events[0]?.headers).toEqual({ n: '1' });
    changing['n'] = '2';
    expect(through(Batch.of([{ headers: changing, body: Buffer.alloc(0) }])).events[0]?.headers).toEqual({ n: '2' });
  });
});

test("a block's bytes are not copied", () => {
  const batch = blockOf([Buffer.from('abc')], noHeaders);
  expect(encodePayload(batch).pieces[0]).toBe(batch.block?.bytes);
});

test('events that share their headers share them when they come back', () => {
  const under = headers({ file: 'a' });
  const [one, two] = through(Batch.of([1, 2].map(() => ({ headers: under, body: Buffer.from('x') })))).events;
  expect(two?.headers).toBe(one?.headers);
});

describe('what is no payload is refused', () => {
  test('whatever bytes', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(kind.block, kind.events),
        fc.integer({ min: 1, max: 20 }),
        body,
        (of, count, bytes) => {
          // Whatever it makes of them, it makes no more than there is.
          let batch: Batch | undefined;
          try {
            batch = decodePayload(of, count, bytes);
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(RangeError);
          }
          if (batch !== undefined) expect(batch.length).toBe(count);
        },
      ),
    );
  });

  test('an unknown kind, a byte too many, a byte too few', () => {
    const { pieces } = encodePayload(Batch.of([{ headers: noHeaders, body: Buffer.from('abc') }]));
    const bytes = Buffer.concat(pieces);
    expect(() => decodePayload(7, 1, bytes)).toThrow('unknown kind, 7');
    expect(() => decodePayload(kind.events, 1, Buffer.concat([bytes, Buffer.alloc(1)]))).toThrow(RangeError);
    expect(() => decodePayload(kind.events, 1, bytes.subarray(0, -1))).toThrow(RangeError);
    const block = Buffer.concat(encodePayload(blockOf([Buffer.from('abc')], noHeaders)).pieces);
    expect(() => decodePayload(kind.block, 1, Buffer.concat([block, Buffer.alloc(1)]))).toThrow(RangeError);
    expect(() => decodePayload(kind.block, 9, block)).toThrow(RangeError);
  });
});
