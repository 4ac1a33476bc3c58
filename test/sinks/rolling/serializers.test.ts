import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { Batch, event, headers, type FlumeEvent } from '../../../src/core/event.ts';
import { serializer } from '../../../src/sinks/rolling/serializers.ts';

const block = (bodies: readonly string[], head = {}) => {
  const bytes = Buffer.from(bodies.map(body => `${body}\n`).join(''));
  let end = -1;
  const ends = Uint32Array.from(bodies, body => (end += Buffer.byteLength(body) + 1));
  return Batch.ofBlock({ bytes, ends, headers: headers(head) });
};

const bytesOf = (pieces: readonly Buffer[]) => Buffer.concat(pieces);

describe('TEXT', () => {
  it('is bodies with a newline each', () => {
    const batch = Batch.of([event('a'), event(''), event('c\n')]);
    expect(bytesOf(serializer('TEXT', true)(batch)).toString()).toBe('a\n\nc\n\n');
  });

  it('or without', () => {
    const text = serializer('TEXT', false);
    expect(bytesOf(text(Batch.of([event('a'), event(''), event('b')]))).toString()).toBe('ab');
    expect(bytesOf(text(block(['a', 'b']))).toString()).toBe('ab');
  });

  it('is what a block has already', () => {
    const batch = block(['a', '', 'bc']);
    const text = serializer('TEXT', true);
    expect(text(batch)[0]).toBe(batch.block!.bytes);
    const [first, rest] = batch.split(1);
    expect(bytesOf(text(first)).toString()).toBe('a\n');
    expect(bytesOf(text(rest)).toString()).toBe('\nbc\n');
    // Parts of one block are one piece, whatever the order in which they were put together.
    expect(text(Batch.concat([first, rest]))).toEqual([batch.block!.bytes]);
  });

  it('is the blocks themselves when they are large, and one copy when they are small', () => {
    const text = serializer('TEXT', true);
    const large = [block(['a'.repeat(9000)]), block(['b'.repeat(9000)], { other: 'headers' })];
    expect(text(Batch.concat(large)).map(piece => piece.buffer)).toEqual(large.map(one => one.block!.bytes.buffer));
    expect(text(Batch.concat([block(['a']), block(['b'], { other: 'headers' })]))).toEqual([Buffer.from('a\nb\n')]);
  });

  test('bytes stay as they are', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array(), { minLength: 1 }), fc.boolean(), (bodies, appendNewline) => {
        const batch = Batch.of(bodies.map(body => event(Buffer.from(body))));
        const end = appendNewline ? [10] : [];
        const expected = Buffer.from(bodies.flatMap(body => [...body, ...end]));
        expect(bytesOf(serializer('TEXT', appendNewline)(batch)).equals(expected)).toBe(true);
      }),
    );
  });
});

describe('HEADER_AND_TEXT', () => {
  const write = serializer('HEADER_AND_TEXT', true);
  const lines = (events: readonly FlumeEvent[]) => bytesOf(write(Batch.of(events))).toString();

  it('is headers as Java prints a map, a space, and the body', () => {
    // As real Flume wrote it for the same events.
    const several = event('hello', headers({ a: '5', b: 'b', d: 'true' }));
    expect(lines([several, event('nohead'), event('', headers({ ä: 'é x' }))])).toBe(
      '{a=5, b=b, d=true} hello\n{} nohead\n{ä=é x} \n',
    );
  });

  it('knows events with the same headers from those with others', () => {
    const [one, two] = [headers({ n: '1' }), headers({ n: '2' })];
    expect(lines([event('a', one), event('b', one), event('c', two), event('d', one)])).toBe(
      '{n=1} a\n{n=1} b\n{n=2} c\n{n=1} d\n',
    );
    expect(write(block(['a', 'b'], { k: 'v' })).toString()).toBe('{k=v} a\n{k=v} b\n');
  });

  it('without newlines', () => {
    expect(serializer('HEADER_AND_TEXT', false)(Batch.of([event('a'), event('b')])).toString()).toBe('{} a{} b');
  });
});
