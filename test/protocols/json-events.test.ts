import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { MillraceError } from '../../src/core/errors.ts';
import type { FlumeEvent } from '../../src/core/event.ts';
import { readJsonEvents, type JsonCharset } from '../../src/protocols/json-events.ts';

const read = (text: string | Buffer, charset: JsonCharset = 'utf-8', maxEvents = 1000) =>
  readJsonEvents(Buffer.from(text as string), charset, maxEvents);
const plain = ({ headers, body }: FlumeEvent) => [{ ...headers }, body.toString()];
const failure = (text: string | Buffer, charset?: JsonCharset): MillraceError => {
  try {
    read(text, charset);
  } catch (error) {
    expect(error).toBeInstanceOf(MillraceError);
    return error as MillraceError;
  }
  throw new Error('expected an error');
};

describe('what an event may look like', () => {
  test.each<[string, unknown[]]>([
    ['[]', []],
    [' [ ] \n', []],
    ['[{}]', [[{}, '']]],
    ['[{"headers":{"a":"b","c":"d"},"body":"hello"}]', [[{ a: 'b', c: 'd' }, 'hello']]],
    ['[ { "body" : "one" } ,\r\n\t{ "body" : "two" } ]', [[{}, 'one'], [{}, 'two']]], // prettier-ignore
    ['[{"headers":null,"body":null}]', [[{}, '']]],
    ['[{"headers":{"n":5,"x":1.50e3,"t":true,"f":false,"none":null},"body":-0.0}]', [[{ n: '5', x: '1.50e3', t: 'true', f: 'false' }, '-0.0']]], // prettier-ignore
    ['[{"body":123456789012345678901234567890}]', [[{}, '123456789012345678901234567890']]],
    ['[{"x":[1,{"y":[]},"]}"],"body":"b","z":{"body":"no","headers":1}}]', [[{}, 'b']]],
    ['[{"b\\u006fdy":"escaped name","head\\u0065rs":{"\\u0061":"1"}}]', [[{ a: '1' }, 'escaped name']]],
    ['[{"body":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\ude00."}]', [[{}, '"\\/\b\f\n\r\tAé€😀.']]],
    ['[{"body":"é€😀"}]', [[{}, 'é€😀']]],
    ['[{"body":"raw\nbreak\tand tab"}]', [[{}, 'raw\nbreak\tand tab']]],
    ['[{"body":"lone \\ud800, \\udc00, \\ud800\\u0041"}]', [[{}, 'lone \ufffd, \ufffd, \ufffdA']]],
    ['[{"headers":{"constructor":"a","__proto__":"b","":"c"}}]', [[{ constructor: 'a', ['__proto__']: 'b', '': 'c' }, '']]], // prettier-ignore
    ['\ufeff[{"body":"marked"}]', [[{}, 'marked']]],
  ])('%s', (text, events) => {
    expect(read(text).map(plain)).toEqual(events);
  });
});

describe('what it may not', () => {
  test.each([
    ['', 'expected an array of events at byte 0, found the end.'],
    ['{"body":"x"}', 'expected an array of events at byte 0, found "{\\"body\\":\\"x\\"}".'],
    ['null', 'expected an array of events'],
    ['[5]', 'expected an event such as {"headers": {}, "body": ""} at byte 1'],
    ['[null]', 'expected an event'],
    ['[[]]', 'expected an event'],
    ['[{}', 'expected a comma or ] at byte 3, found the end.'],
    ['[{},]', 'expected an event'],
    ['[{}] x', 'expected nothing more behind the array at byte 5, found "x".'],
    ['[{}{}]', 'expected a comma or ]'],
    ['[{"body" "x"}]', 'expected a colon at byte 9'],
    ['[{"body":"x",}]', 'expected a name in double quotes at byte 13'],
    ["[{body:'x'}]", 'expected a name in double quotes at byte 2'],
    ['[{"body":"x', 'expected an end to the text that begins here at byte 9, found "\\"x".'],
    ['[{"body":"\\x"}]', 'expected only escapes that JSON has at byte 10'],
    ['[{"body":"\\u12g4"}]', 'expected four hexadecimal digits behind \\u at byte 10'],
    ['[{"body":"\\', 'expected only escapes that JSON has'],
    ['[{"body":{}}]', 'expected text, a number, true, false or null at byte 9'],
    ['[{"body":[1]}]', 'expected text, a number, true, false or null'],
    ['[{"body":01}]', 'expected text, a number'],
    ['[{"body":.5}]', 'expected text, a number'],
    ['[{"body":NaN}]', 'expected text, a number'],
    ['[{"body":True}]', 'expected text, a number'],
    ['[{"body":}]', 'expected text, a number'],
    ['[{"headers":[]}]', 'expected text, a number'],
    ['[{"headers":"x"}]', 'expected an object of headers'],
    ['[{"headers":{"a":{}}}]', 'expected text, a number'],
    ['[{"headers":{"a":"1","a":"2"}}]', 'expected header a only once'],
    ['[{"headers":{"a":"1","\\u0061":"2"}}]', 'expected header a only once'],
    ['[{"headers":{},"headers":{}}]', 'expected headers only once'],
    ['[{"body":"1","body":"2"}]', 'expected body only once'],
    ['[{"x":[}]}]', 'expected text, a number'],
    ['[{"x":{"a" 1}}]', 'expected a colon'],
  ])('%s', (text, message) => {
    expect(failure(text)).toMatchObject({ code: 'MR_BAD_INPUT', message: expect.stringContaining(message) as string });
  });

  it('stops at nesting, whatever it is of', () => {
    for (const [open, close] of [
      ['[', ']'],
      ['{"a":', '}'],
    ] as const) {
      // prettier-ignore
      const nested = (depth: number) => `[{"x":${open.repeat(depth)}1${close.repeat(depth)}}]`;
      expect(read(nested(64))).toHaveLength(1);
      expect(failure(nested(65)).message).toContain('nothing nested deeper than 64');
      expect(failure(`[{"x":${open.repeat(1_000_000)}`).message).toContain('nothing nested deeper than 64');
    }
  });

  it('stops at the first event too many', () => {
    expect(read('[{},{}]', 'utf-8', 2)).toHaveLength(2);
    expect(() => read('[{},{},{},not read any more', 'utf-8', 2)).toThrow('more than 2 events');
  });

  it('refuses bytes that are no text', () => {
    expect(failure(Buffer.from('[{"body":"\xff"}]', 'latin1')).message).toBe('the body is not valid UTF-8.');
    expect(failure(Buffer.from('123'), 'utf-16').message).toContain('two bytes for each unit');
    expect(failure(Buffer.from('123456'), 'utf-32').message).toContain('four bytes for each character');
    expect(failure(Buffer.from('00110000', 'hex'), 'utf-32').message).toContain('ends at 10FFFF');
  });
});

describe('UTF-16 and UTF-32', () => {
  const units = (text: string) => Buffer.from(text, 'utf16le');
  const points = (text: string, little: boolean) => {
    const all = Array.from(text, char => char.codePointAt(0)!);
    const bytes = Buffer.alloc(all.length * 4);
    all.forEach((point, i) => (little ? bytes.writeUInt32LE(point, i * 4) : bytes.writeUInt32BE(point, i * 4)));
    return bytes;
  };
  const document = '[{"headers":{"ä":"ö"},"body":"x😀\\u00e9"},{"body":""}]';

  test.each<[string, JsonCharset, Buffer, string]>([
    ['UTF-16, big-endian', 'utf-16', units(document).swap16(), 'feff0078d83dde0000e9'],
    ['UTF-16, big-endian, marked', 'utf-16', units(`\ufeff${document}`).swap16(), 'feff0078d83dde0000e9'],
    ['UTF-16, little-endian, marked', 'utf-16', units(`\ufeff${document}`), 'feff0078d83dde0000e9'],
    ['UTF-32, big-endian', 'utf-32', points(document, false), '000000780001f600000000e9'],
    ['UTF-32, big-endian, marked', 'utf-32', points(`\ufeff${document}`, false), '000000780001f600000000e9'],
    ['UTF-32, little-endian, marked', 'utf-32', points(`\ufeff${document}`, true), '000000780001f600000000e9'],
  ])('%s: bodies as Java writes them', (_, charset, bytes, body) => {
    const events = read(bytes, charset);
    expect(events.map(({ headers }) => ({ ...headers }))).toEqual([{ ä: 'ö' }, {}]);
    expect(events.map(event => event.body.toString('hex'))).toEqual([body, '']);
  });
});

it('keeps little more in memory than the bodies', () => {
  const text = `[{"junk":"${'x'.repeat(1_000_000)}","body":"a"},{"body":"b"}]`;
  const [first, second] = read(text);
  expect(first!.body.buffer.byteLength).toBeLessThan(100_000);
  expect(second!.body.toString()).toBe('b');
});

describe('next to JSON.parse', () => {
  /** With U+FFFD for what is no text. */
  const wellFormed = (text: string) => Buffer.from(text).toString();
  /** What a document means, by way of JSON.parse; undefined if it means nothing. */
  const meaning = (text: string): [Record<string, string>, string][] | undefined => {
    const scalar = (value: unknown): string => {
      if (typeof value === 'string') return wellFormed(value);
      if (typeof value === 'number' || typeof value === 'boolean') return String(value);
      if (value == null) return '';
      throw new Error('not text');
    };
    try {
      const events: unknown = JSON.parse(text);
      if (!Array.isArray(events)) return undefined;
      return events.map((event: unknown) => {
        if (typeof event !== 'object' || event === null || Array.isArray(event)) throw new Error('not an event');
        const { headers, body } = event as Record<string, unknown>;
        if (headers != null && (typeof headers !== 'object' || Array.isArray(headers))) throw new Error('not headers');
        const own = Object.entries(headers ?? {}).filter(([, value]) => value !== null);
        return [
          Object.fromEntries(own.map(([key, value]) => [wellFormed(key), scalar(value)])),
          scalar(Object.hasOwn(event, 'body') ? body : undefined),
        ];
      });
    } catch {
      return undefined;
    }
  };
  /** Numbers are compared as numbers: we keep their digits. */
  const asNumber = (text: string) => (/^-?\d/.test(text) && !Number.isNaN(Number(text)) ? String(Number(text)) : text);
  const agrees = (text: string): void => {
    const expected = meaning(text)?.map(([headers, body]) => [
      Object.fromEntries(Object.entries(headers).map(([key, value]) => [key, asNumber(value)])),
      asNumber(body),
    ]);
    let found: unknown;
    try {
      found = read(text, 'utf-8', Infinity).map(({ headers, body }) => [
        Object.fromEntries(Object.entries(headers).map(([key, value]) => [key, asNumber(value)])),
        asNumber(body.toString()),
      ]);
    } catch (error) {
      expect(error).toMatchObject({ code: 'MR_BAD_INPUT' });
      // What JSON.parse cannot see.
      if (/only once|nested deeper/.test((error as Error).message)) return;
    }
    expect(found).toEqual(expected);
  };

  const string = fc.string({ unit: 'binary', maxLength: 12 });
  const scalar = fc.oneof(string, fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean(), fc.constant(null));
  const event = fc.record(
    {
      headers: fc.oneof(fc.dictionary(string, scalar, { noNullPrototype: true }), fc.constant(null)),
      body: scalar,
      other: fc.jsonValue({ maxDepth: 3 }),
    },
    { requiredKeys: [] },
  );
  const escaped = (text: string) =>
    text.replace(/[^\0-\x7f]/g, char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const documents = (...spaces: (string | undefined)[]) =>
    fc
      .tuple(fc.array(event, { maxLength: 5 }), fc.constantFrom(...spaces), fc.boolean())
      .map(([events, space, ascii]) => (ascii ? escaped : String)(JSON.stringify(events, undefined, space)));

  test('documents mean the same', () => {
    fc.assert(fc.property(documents(undefined, ' ', '\t', '\r\n'), agrees), { numRuns: 2000 });
  });

  test('and so do documents with something wrong', () => {
    const bits = fc.constantFrom(...'[]{},:"\\u0019.eE-+ntf truefalsnul'.split(''), '"body":', '\\ud83d', '1e5', '');
    const wound = fc.tuple(fc.nat(), fc.nat(3), bits);
    const damaged = fc
      .tuple(documents(undefined), fc.array(wound, { minLength: 1, maxLength: 3 }))
      .map(([text, wounds]) =>
        wounds.reduce((whole, [at, length, bit]) => {
          const i = at % (whole.length + 1);
          return whole.slice(0, i) + bit + whole.slice(i + length);
        }, text),
      );
    // Without line breaks, which text may contain here but not there, and without halves of characters, which are no UTF-8.
    fc.assert(
      fc.property(
        damaged.filter(text => text === wellFormed(text)),
        agrees,
      ),
      { numRuns: 5000 },
    );
  });

  test('arbitrary bytes are refused in words', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.constantFrom('utf-8', 'utf-16', 'utf-32'), (bytes, charset) => {
        try {
          read(Buffer.from(bytes), charset);
        } catch (error) {
          expect(error).toMatchObject({ code: 'MR_BAD_INPUT' });
        }
      }),
      { numRuns: 5000 },
    );
  });
});
