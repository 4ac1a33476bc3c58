import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readFlumeTracker } from '../../../src/sources/spooling/flume-tracker.ts';

/** A whole number in Avro's way. */
const long = (value: number): Buffer => {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, (BigInt(value) << 1n) ^ (BigInt(value) >> 63n));
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return Buffer.from([...bytes, Number(rest)]);
};
const text = (value: string): Buffer => Buffer.concat([long(Buffer.byteLength(value)), Buffer.from(value)]);
const sync = Buffer.from('0123456789abcdef');

const container = (meta: Record<string, string>, blocks: readonly (readonly number[])[]): Buffer =>
  Buffer.concat([
    Buffer.from('Obj\x01'),
    long(Object.keys(meta).length),
    ...Object.entries(meta).flatMap(([key, value]) => [text(key), text(value)]),
    long(0),
    sync,
    ...blocks.flatMap(records => {
      const bytes = Buffer.concat(records.map(long));
      return [long(records.length), long(bytes.length), bytes, sync];
    }),
  ]);
const meta = { 'avro.schema': '{"type":"record"}', file: '/spool/grüße.log' };

describe("Flume's tracker file", () => {
  test('the last record counts, whatever came before', () => {
    fc.assert(
      fc.property(fc.array(fc.array(fc.nat(2 ** 31 - 1)), { minLength: 1 }), fc.maxSafeNat(), (blocks, offset) => {
        const bytes = container(meta, [...blocks, [offset]]);
        expect(readFlumeTracker(bytes)).toEqual({ file: meta.file, offset });
      }),
    );
  });

  test('cut off anywhere, it says what was complete', () => {
    const bytes = container(meta, [[7], [300]]);
    const first = container(meta, [[7]]).length;
    for (let length = 0; length < bytes.length; length++) {
      const expected = length < first ? undefined : { file: meta.file, offset: 7 };
      expect(readFlumeTracker(bytes.subarray(0, length)), `${length} bytes`).toEqual(expected);
    }
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ['something else', Buffer.from('{"version":1}')],
    ['no record', container(meta, [])],
    ['no path', container({}, [[1]])],
    ['a negative offset', container(meta, [[-1]])],
    ['a compressed one', container({ ...meta, 'avro.codec': 'deflate' }, [[1]])],
  ])('says nothing: %s', (_, bytes) => {
    expect(readFlumeTracker(bytes)).toBeUndefined();
  });

  test('never throws', () => {
    fc.assert(
      fc.property(fc.uint8Array(), bytes => void readFlumeTracker(Buffer.concat([Buffer.from('Obj\x01'), bytes]))),
    );
  });
});
