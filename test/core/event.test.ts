import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { adjoin, Batch, event, headers, newHeaders, noHeaders, piecesOf, type Block } from '../../src/core/event.ts';

/** A block of these lines, somewhere inside of a larger buffer. */
const block = (lines: readonly string[], head = noHeaders): Block => {
  const text = `before${lines.map(line => `${line}\n`).join('')}after`;
  const bytes = Buffer.from(text).subarray(6, -5);
  let end = -1;
  const ends = Uint32Array.from(lines, line => (end += Buffer.byteLength(line) + 1));
  return { bytes, ends, headers: head };
};

const bodies = (batch: Batch): string[] => batch.events.map(({ body }) => body.toString());

const lines = fc.array(fc.string({ unit: fc.constantFrom('a', 'é', '\0', '\r') }), { minLength: 1, maxLength: 12 });

describe('headers', () => {
  test('have no keys but their own, whatever these are called', () => {
    const made = headers({ constructor: 'c', toString: 't', ['__proto__']: 'p' });
    expect(Object.entries(made)).toEqual([
      ['constructor', 'c'],
      ['toString', 't'],
      ['__proto__', 'p'],
    ]);
    expect('hasOwnProperty' in made).toBe(false);
  });

  test('cannot be changed', () => {
    expect(() => Object.assign(headers({ a: '1' }), { a: '2' })).toThrow(TypeError);
    expect(() => Object.assign(noHeaders, { a: '1' })).toThrow(TypeError);
  });

  test('are filled one by one until they are frozen', () => {
    const own = newHeaders();
    own['__proto__'] = 'x';
    expect(Object.keys(own)).toEqual(['__proto__']);
    expect(Object.keys(newHeaders())).toEqual([]);
  });
});

describe('an event', () => {
  test('is made of text or bytes', () => {
    const bytes = Buffer.from([0, 255]);
    expect(event('grüße').body).toEqual(Buffer.from('grüße'));
    expect(event(bytes).body).toBe(bytes);
    expect(event('x').headers).toBe(noHeaders);
  });
});

describe('a batch', () => {
  test('is never empty', () => {
    expect(() => Batch.of([])).toThrow(RangeError);
    expect(() => Batch.ofBlock({ bytes: Buffer.alloc(0), ends: new Uint32Array(0), headers: noHeaders })).toThrow(
      RangeError,
    );
  });

  test('of a block has an event per line, with the bytes of the block', () => {
    const head = headers({ k: 'v' });
    const given = block(['one', '', 'grüße'], head);
    const batch = Batch.ofBlock(given);
    expect(bodies(batch)).toEqual(['one', '', 'grüße']);
    expect(batch.events.every(one => one.headers === head)).toBe(true);
    expect(batch.events[0]?.body.buffer).toBe(given.bytes.buffer);
    expect(batch.events).toBe(batch.events);
  });

  test('counts bodies and headers, as a block or as events', () => {
    fc.assert(
      fc.property(lines, texts => {
        const head = headers({ key: 'value' });
        const expected = texts.reduce((sum, text) => sum + Buffer.byteLength(text) + 8, 0);
        expect(Batch.ofBlock(block(texts, head)).byteLength).toBe(expected);
        expect(Batch.of(texts.map(text => event(text, head))).byteLength).toBe(expected);
      }),
    );
  });

  test('what is no event counts by its length, or not at all', () => {
    expect(Batch.of(['four', Buffer.alloc(3)]).byteLength).toBe(7);
    expect(Batch.of([1, undefined, null, {}]).byteLength).toBe(0);
  });

  test('what fits is the same for a block and for events, and what one counts by hand', () => {
    fc.assert(
      fc.property(lines, fc.nat(14), fc.nat(60), (texts, maxEvents, maxBytes) => {
        const head = headers({ k: 'v' });
        let [count, bytes] = [0, 0];
        for (const text of texts) {
          bytes += Buffer.byteLength(text) + 2;
          if (count === maxEvents || bytes > maxBytes) break;
          count++;
        }
        expect(Batch.ofBlock(block(texts, head)).fitting(maxEvents, maxBytes)).toBe(count);
        expect(Batch.of(texts.map(text => event(text, head))).fitting(maxEvents, maxBytes)).toBe(count);
        expect(Batch.of(texts).fitting(maxEvents, Infinity)).toBe(Math.min(maxEvents, texts.length));
      }),
    );
  });

  test('can be cut and put together, again and again: the events are the same ones', () => {
    fc.assert(
      fc.property(lines, fc.array(fc.nat(), { maxLength: 4 }), fc.boolean(), (texts, cuts, asBlock) => {
        const whole = asBlock ? Batch.ofBlock(block(texts)) : Batch.of(texts.map(text => event(text)));
        const parts = [whole];
        for (const cut of cuts) {
          const last = parts.at(-1)!;
          if (last.length > 1) parts.splice(-1, 1, ...last.split(1 + (cut % (last.length - 1))));
        }
        const again = Batch.concat(parts);
        expect(again.length).toBe(whole.length);
        expect(again.byteLength).toBe(whole.byteLength);
        expect(parts.flatMap(part => [...part.events])).toEqual([...whole.events]);
        // The very same objects: whoever failed some of them names them by identity.
        for (const [i, one] of again.events.entries()) expect(one).toBe(whole.events[i]);
        for (const part of parts) expect(bodies(part)).toEqual(part.block === undefined ? bodies(part) : linesOf(part));
        expect(again.block === undefined).toBe(!asBlock);
        if (asBlock) expect(linesOf(again)).toEqual(texts);
      }),
    );
  });

  test('of several blocks is a block if they have the same headers, and blocks if not', () => {
    const [a, b] = [headers({ k: 'a' }), headers({ k: 'b' })];
    const same = Batch.concat([Batch.ofBlock(block(['1'], a)), Batch.ofBlock(block(['2', '3'], a))]);
    expect(linesOf(same)).toEqual(['1', '2', '3']);
    expect(bodies(same)).toEqual(['1', '2', '3']);
    const mixed = Batch.concat([Batch.ofBlock(block(['1'], a)), Batch.ofBlock(block(['2'], b))]);
    expect(mixed.block).toBeUndefined();
    expect(mixed.blocks?.map(({ headers: head }) => head)).toEqual([a, b]);
    expect(Batch.concat([mixed, Batch.of([event('3')])]).blocks).toBeUndefined();
    expect(Batch.concat([mixed])).toBe(mixed);
  });
});

describe('blocks', () => {
  test('that lie behind each other in the same memory are one piece', () => {
    const [first, rest] = Batch.ofBlock(block(['one', 'two', 'three'])).split(1);
    const [second, third] = rest.split(1);
    const [a, b, c] = [first.block!, second.block!, third.block!];
    expect([adjoin(a, b), adjoin(b, c), adjoin(a, c), adjoin(b, a)]).toEqual([true, true, false, false]);
    expect(adjoin(a, { ...b, headers: headers({}) })).toBe(false);
    expect(piecesOf([a, b, c]).map(String)).toEqual(['one\ntwo\nthree\n']);
    expect(piecesOf([a, c, b]).map(String)).toEqual(['one\n', 'three\n', 'two\n']);
  });
});

const linesOf = (batch: Batch): string[] => {
  const { bytes, ends } = batch.block!;
  let start = 0;
  return Array.from(ends, end => {
    const line = bytes.toString('utf8', start, end);
    start = end + 1;
    return line;
  });
};
