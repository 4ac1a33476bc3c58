import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Batch, noHeaders } from '../../src/core/event.ts';
import { cutLines, withoutReturns } from '../../src/protocols/lines.ts';

const bodies = (block: ReturnType<typeof cutLines>) =>
  block === undefined ? [] : Batch.ofBlock(block).events.map(({ body }) => body.toString('latin1'));

/** Bytes in which newlines and returns are frequent. */
const bytes = fc.array(fc.constantFrom(10, 13, 0, 97, 255), { maxLength: 60 }).map(given => Buffer.from(given));

describe('lines', () => {
  it('are what is between newlines, as many as are asked for; the rest stays', () => {
    fc.assert(
      fc.property(bytes, fc.integer({ min: 1, max: 20 }), (given, count) => {
        const all = given.toString('latin1').split('\n').slice(0, -1);
        const block = cutLines(given, noHeaders, count);
        expect(bodies(block)).toEqual(all.slice(0, count));
        expect(block?.bytes.length ?? 0).toBe(all.slice(0, count).reduce((sum, line) => sum + line.length + 1, 0));
      }),
    );
  });

  it('lose one return at their end, if they have one, and nothing else', () => {
    fc.assert(
      fc.property(bytes, given => {
        const all = given.toString('latin1').split('\n').slice(0, -1);
        const block = cutLines(given, noHeaders);
        if (block === undefined) return;
        const clean = withoutReturns(block);
        expect(bodies(clean)).toEqual(all.map(line => line.replace(/\r$/, '')));
        // What a text sink writes as it is.
        expect(clean.bytes.toString('latin1')).toBe(all.map(line => `${line.replace(/\r$/, '')}\n`).join(''));
      }),
    );
  });

  it('stay where they are without returns', () => {
    const block = cutLines(Buffer.from('one\n\ntwo\n'), noHeaders)!;
    expect(withoutReturns(block)).toBe(block);
  });
});
