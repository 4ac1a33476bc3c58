import avsc from 'avsc';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { event, headers, noHeaders, type FlumeEvent } from '../../src/core/event.ts';
import { decodeAvroEvent, encodeAvroEvent } from '../../src/protocols/avro-event.ts';

/** Flume's schema, for a codec that is not ours. */
const schema = avsc.Type.forSchema({
  type: 'record',
  name: 'AvroFlumeEvent',
  fields: [
    { name: 'headers', type: { type: 'map', values: 'string' } },
    { name: 'body', type: 'bytes' },
  ],
});

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');
const decode = (text: string) => decodeAvroEvent(hex(text));
const refusal = (bytes: Buffer) => {
  try {
    decodeAvroEvent(bytes);
  } catch (error) {
    return error as Error & { code: string };
  }
  throw new Error(`${bytes.toString('hex')} was taken`);
};
const plain = ({ headers: head, body }: FlumeEvent) => ({ headers: { ...head }, body });

/** Text as it can be in UTF-8: no half of a surrogate pair. */
const text = fc.string({ unit: 'grapheme', maxLength: 80 });
const body = fc.uint8Array({ maxLength: 200 }).map(bytes => Buffer.from(bytes));
const events = fc
  .tuple(fc.dictionary(text, text, { maxKeys: 6 }), body)
  .map(([head, bytes]) => event(bytes, headers(head)));

describe("what Flume's own Kafka sink writes", () => {
  const golden = '02 026b 0276 00 06 6f6e65';

  it('is what is written here', () => {
    expect(encodeAvroEvent(event('one', headers({ k: 'v' })))).toEqual(hex(golden));
    expect(encodeAvroEvent(event(''))).toEqual(hex('00 00'));
  });

  it('is read here', () => {
    expect(plain(decode(golden))).toEqual({ headers: { k: 'v' }, body: Buffer.from('one') });
    expect(plain(decode('00 00'))).toEqual({ headers: {}, body: Buffer.alloc(0) });
  });
});

describe('reading', () => {
  it('finds what was written', () => {
    fc.assert(
      fc.property(fc.array(events, { minLength: 1, maxLength: 5 }), some => {
        for (const one of some) expect(decodeAvroEvent(encodeAvroEvent(one))).toEqual(one);
      }),
    );
  });

  it('agrees with another codec, both ways', () => {
    fc.assert(
      fc.property(
        events.filter(({ headers: head }) => !Object.hasOwn(head, '__proto__')),
        one => {
          expect(encodeAvroEvent(one)).toEqual(schema.toBuffer(plain(one)));
          expect(decodeAvroEvent(schema.toBuffer(plain(one)))).toEqual(one);
        },
      ),
    );
  });

  it.each([63, 64, 8191, 8192, 1_048_575, 1_048_576])('finds bodies and headers of %i bytes', size => {
    const one = event(Buffer.alloc(size, 7), headers({ long: 'x'.repeat(size) }));
    const found = decodeAvroEvent(encodeAvroEvent(one));
    expect(found.body.equals(one.body)).toBe(true);
    expect(found.headers).toEqual(one.headers);
  });

  it('does not copy the body', () => {
    const bytes = encodeAvroEvent(event('one', headers({ k: 'v' })));
    expect(decodeAvroEvent(bytes).body.buffer).toBe(bytes.buffer);
  });

  it('gives events with the same headers the same object, and others their own', () => {
    const [a, b, c] = ['02 026b 0276 00 0261', '02 026b 0276 00 0262', '02 026b 0277 00 0263'].map(decode);
    expect(b?.headers).toBe(a?.headers);
    expect(c?.headers).toEqual(headers({ k: 'w' }));
    expect(decode('00 00').headers).toEqual(noHeaders);
    expect(Object.isFrozen(c?.headers)).toBe(true);
  });

  it('keeps nothing of the bytes for the next event but what they say', () => {
    const bytes = hex('02 026b 0276 00 0261');
    decodeAvroEvent(bytes);
    bytes.fill(0);
    expect(decode('02 026b 0276 00 0261').headers).toEqual(headers({ k: 'v' }));
  });

  it.each([
    ['the length of a block', '01 08 026b 0276 00 06 6f6e65', { k: 'v' }],
    ['several blocks', '02 026b 0276 02 026c 0277 00 06 6f6e65', { k: 'v', l: 'w' }],
    ['a header twice', '04 026b 0276 026b 0277 00 06 6f6e65', { k: 'w' }],
    ['a name like any other', '02 12 5f5f70726f746f5f5f 0276 00 06 6f6e65', { ['__proto__']: 'v' }],
    ['numbers that are longer than they have to be', '8200 026b 0276 00 8600 6f6e65', { k: 'v' }],
  ])('takes %s', (_, bytes, head) => {
    expect(decode(bytes)).toEqual(event('one', headers(head)));
  });
});

describe('bytes that are no event', () => {
  it('are refused wherever they end', () => {
    const whole = encodeAvroEvent(event('one two', headers({ name: 'value', more: 'x'.repeat(100) })));
    for (let length = 0; length < whole.length; length++)
      expect(refusal(whole.subarray(0, length)).code).toBe('MR_BAD_INPUT');
  });

  it.each([
    ['too many', '02026b027600 06 6f6e65 00', '1 bytes follow the body, at byte 10 of 11'],
    ['a length below zero', '00 05 6f6e65', 'the body is to have -3 bytes, at byte 1 of 5'],
    ['a header of less than nothing', '02 01 00 00', 'a header is to have -1 bytes, at byte 1 of 4'],
    ['more headers than bytes', '80808080808020 00 00', 'there are to be 70368744177664 headers, at byte 0 of 9'],
    ['a number without end', 'ff'.repeat(20), 'a number has more than 10 bytes, at byte 0 of 20'],
    ['text', Buffer.from('hello, this is plain text').toString('hex'), 'at byte'],
  ])('have %s', (_, bytes, message) => {
    const error = refusal(hex(bytes));
    expect(error.code).toBe('MR_BAD_INPUT');
    expect(error.message).toContain(message);
    expect(error.message).toContain('Expected a map of headers');
  });

  it('never do anything but be refused, or be an event', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), bytes => {
        let found: FlumeEvent;
        try {
          found = decodeAvroEvent(Buffer.from(bytes));
        } catch (error) {
          expect((error as { code: string }).code).toBe('MR_BAD_INPUT');
          return;
        }
        expect(decodeAvroEvent(encodeAvroEvent(found))).toEqual(found);
      }),
      { numRuns: 2000 },
    );
  });
});
