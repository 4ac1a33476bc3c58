import { isUtf8 } from 'node:buffer';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { charsetOf } from '../../../src/sources/spooling/charset.ts';

const encoders: Record<string, (text: string) => Buffer> = {
  'UTF-8': text => Buffer.from(text),
  'UTF-16LE': text => Buffer.from(text, 'utf16le'),
  'UTF-16BE': text => Buffer.from(text, 'utf16le').swap16(),
};
const texts = fc.string({ unit: fc.constantFrom('a', '\n', 'ü', '€', '😀', '\u0a0a', '\u010a', '\u0a01', '\ufeff') });

describe.each(Object.entries(encoders))('%s', (name, encode) => {
  const charset = charsetOf(name, 'FAIL')!;

  test('text is the same as UTF-8', () => {
    fc.assert(
      fc.property(texts, text => {
        expect(charset.toUtf8(encode(text))?.toString()).toBe(text);
      }),
    );
  });

  test('lines end where they end', () => {
    fc.assert(
      fc.property(texts, text => {
        const bytes = encode(text);
        const ends: number[] = [];
        for (let end = charset.lineEnd(bytes, 0); end > 0; end = charset.lineEnd(bytes, end)) ends.push(end);
        const lines = text.split('\n').slice(0, -1);
        let at = 0;
        expect(ends).toEqual(lines.map(line => (at += encode(`${line}\n`).length)));
        expect(charset.lastLineEnd(bytes)).toBe(at);
      }),
    );
  });

  test('a head does not end within a character, and is no more than one shorter than it may be', () => {
    fc.assert(
      fc.property(texts, fc.integer({ min: 4, max: 40 }), (text, max) => {
        const bytes = encode(text);
        fc.pre(bytes.length > max);
        const cut = charset.head(bytes, max);
        expect(cut).toBeGreaterThan(max - 4);
        expect(cut).toBeLessThanOrEqual(max);
        expect(charset.toUtf8(bytes.subarray(0, cut))).toBeDefined();
        expect(charset.toUtf8(bytes.subarray(cut))).toBeDefined();
      }),
    );
  });
});

test.each(['REPLACE', 'IGNORE'] as const)('any bytes become text, and lines stay lines: %s', policy => {
  fc.assert(
    fc.property(
      fc.constantFrom('UTF-8', 'US-ASCII', 'ISO-8859-1', 'Shift_JIS', 'GB18030', 'EUC-JP', 'Big5', 'windows-1251'),
      fc.uint8Array({ maxLength: 60 }),
      (name, given) => {
        const bytes = Buffer.from(given);
        const text = charsetOf(name, policy)!.toUtf8(bytes)!;
        const lines = (some: Buffer) => some.toString('latin1').split('\n').length;
        expect(isUtf8(text)).toBe(true);
        expect(lines(text)).toBe(lines(bytes));
      },
    ),
  );
});

test('what is no text is refused, if it is to be', () => {
  expect(charsetOf('utf-8', 'FAIL')!.toUtf8(Buffer.from([0xc3]))).toBeUndefined();
  expect(charsetOf('UTF-16LE', 'FAIL')!.toUtf8(Buffer.from([0x61]))).toBeUndefined();
  expect(charsetOf('ascii', 'FAIL')!.toUtf8(Buffer.from([0x80]))).toBeUndefined();
  expect(charsetOf('Shift_JIS', 'FAIL')!.toUtf8(Buffer.from([0x81]))).toBeUndefined();
});

test.each(['', 'UTF-16', 'UTF-32', 'klingon'])('%j is not known', name => {
  expect(charsetOf(name, 'FAIL')).toBeUndefined();
});
