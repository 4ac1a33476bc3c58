/**
 * Flume's JSON for events, read straight from its bytes:
 *
 *     [{ "headers": { "key": "text", … }, "body": "text" }, …]
 *
 * Both members may be missing or null; numbers and booleans stand for their text, as they are written; other members are
 * passed over. Not `JSON.parse`: it lets duplicate keys pass, changes numbers, and first builds all of a hostile document.
 * As in Flume, strings may contain line breaks and tabs as they are. Lone surrogates become U+FFFD.
 *
 * Text is UTF-8 by default, or UTF-16 or UTF-32 with or without a byte order mark, big-endian without. Bodies get the
 * same encoding, as Java writes it: UTF-16 with a mark, UTF-32 without, both big-endian.
 *
 * @module
 */
import { isUtf8 } from 'node:buffer';
import { MillraceError } from '../core/errors.ts';
import { newHeaders, noHeaders, type FlumeEvent, type Headers } from '../core/event.ts';

/** How deeply what is passed over may be nested. */
const maxDepth = 64;

export const jsonCharsets = ['utf-8', 'utf-16', 'utf-32'] as const;
export type JsonCharset = (typeof jsonCharsets)[number];

/**
 * The events of a document. The bytes are used up: bodies may be views on them.
 *
 * @throws MR_BAD_INPUT with what was expected where; MR_EVENT_TOO_LARGE if there are more than `maxEvents`.
 */
export const readJsonEvents = (bytes: Buffer, charset: JsonCharset, maxEvents: number): FlumeEvent[] => {
  if (charset === 'utf-8') return compact(new Reader(bytes).events(maxEvents), bytes.length);
  const { decode, encode } = charset === 'utf-16' ? utf16 : utf32;
  const events = new Reader(decode(bytes)).events(maxEvents);
  return events.map(({ headers, body }) => ({ headers, body: encode(body.toString()) }));
};

/** Copies bodies that are a small part of their document, so that they do not keep all of it in memory. */
const compact = (events: FlumeEvent[], documentLength: number): FlumeEvent[] => {
  const kept = events.reduce((sum, { body }) => sum + body.length, 0);
  if (kept * 2 >= documentLength) return events;
  const copies = Buffer.allocUnsafe(kept);
  let at = 0;
  return events.map(({ headers, body }) => {
    const start = at;
    at += body.copy(copies, start);
    return { headers, body: copies.subarray(start, at) };
  });
};

const byte = (char: string): number => char.charCodeAt(0);
const [space, tab, newline, carriageReturn] = [byte(' '), byte('\t'), byte('\n'), byte('\r')];
const [quote, backslash, comma, colon, letterU] = [byte('"'), byte('\\'), byte(','), byte(':'), byte('u')];
const [openArray, closeArray, openObject, closeObject] = [byte('['), byte(']'), byte('{'), byte('}')];

/** What a backslash makes of the character behind it; 0 for those it must not stand before. */
const escapes = new Uint8Array(256);
for (const [char, meaning] of Object.entries({
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
}))
  escapes[byte(char)] = byte(meaning);

const word = /^(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)$/;
const nothing = Buffer.alloc(0);

class Reader {
  readonly #bytes: Buffer;
  #at = 0;
  /** Where the text that was read last begins and ends. */
  #from = 0;
  #to = 0;

  constructor(bytes: Buffer) {
    if (!isUtf8(bytes)) throw new MillraceError('MR_BAD_INPUT', 'the body is not valid UTF-8.');
    this.#bytes = bytes;
    const mark = bytes.length > 2 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    if (mark) this.#at = 3;
  }

  events(maxEvents: number): FlumeEvent[] {
    const events: FlumeEvent[] = [];
    this.#take(openArray, 'an array of events');
    for (let first = true; this.#more(closeArray, first); first = false) {
      if (events.length === maxEvents)
        throw new MillraceError('MR_EVENT_TOO_LARGE', `there are more than ${maxEvents} events in one request.`);
      events.push(this.#event());
    }
    if (this.#peek() !== undefined) this.#fail('nothing more behind the array');
    return events;
  }

  #event(): FlumeEvent {
    let head: Headers | undefined;
    let body: Buffer | undefined;
    this.#take(openObject, 'an event such as {"headers": {}, "body": ""}');
    for (let first = true; this.#more(closeObject, first); first = false) {
      this.#name();
      if (this.#isText('headers')) {
        if (head !== undefined) this.#fail('headers only once');
        head = this.#headers();
      } else if (this.#isText('body')) {
        if (body !== undefined) this.#fail('body only once');
        body = this.#value() ? this.#bytes.subarray(this.#from, this.#to) : nothing;
      } else this.#skip(0);
    }
    return { headers: head ?? noHeaders, body: body ?? nothing };
  }

  #headers(): Headers {
    if (this.#peek() !== openObject) {
      if (this.#value()) this.#fail('an object of headers');
      return noHeaders;
    }
    this.#at++;
    const headers = newHeaders();
    for (let first = true; this.#more(closeObject, first); first = false) {
      this.#name();
      const name = this.#text();
      if (name in headers) this.#fail(`header ${name.slice(0, 50)} only once`);
      if (this.#value()) headers[name] = this.#text();
    }
    return Object.freeze(headers);
  }

  /** Passes over any value. */
  #skip(depth: number): void {
    const start = this.#peek();
    if (start !== openArray && start !== openObject) {
      this.#value();
      return;
    }
    if (depth === maxDepth) this.#fail(`nothing nested deeper than ${maxDepth}`);
    this.#at++;
    const close = start === openArray ? closeArray : closeObject;
    for (let first = true; this.#more(close, first); first = false) {
      if (start === openObject) this.#name();
      this.#skip(depth + 1);
    }
  }

  /** Steps to the first element of an array or object, or over the comma to the next; false at the end. */
  #more(close: number, first: boolean): boolean {
    if (this.#peek() === close) {
      this.#at++;
      return false;
    }
    if (!first) this.#take(comma, `a comma or ${String.fromCharCode(close)}`);
    return true;
  }

  #name(): void {
    if (this.#peek() !== quote) this.#fail('a name in double quotes');
    this.#string();
    this.#take(colon, 'a colon');
  }

  /** Reads text, or a word that stands for itself; false if it is null. */
  #value(): boolean {
    if (this.#peek() === quote) {
      this.#string();
      return true;
    }
    const bytes = this.#bytes;
    let at = this.#at;
    for (let next = bytes[at]; next !== undefined && next > space; next = bytes[++at])
      if (next === comma || next === closeArray || next === closeObject) break;
    const text = bytes.toString('latin1', this.#at, at);
    if (!word.test(text)) this.#fail('text, a number, true, false or null');
    this.#from = this.#at;
    this.#at = this.#to = at;
    return text !== 'null';
  }

  #string(): void {
    const bytes = this.#bytes;
    let at = this.#at + 1;
    let next = bytes[at];
    while (next !== quote && next !== backslash && next !== undefined) next = bytes[++at];
    // From the first escape on, what is meant is written over what was there: it never takes more room.
    let to = at;
    while (next !== quote) {
      if (next === undefined) this.#fail('an end to the text that begins here');
      if (next !== backslash) bytes[to++] = bytes[at++] as number;
      else if (bytes[at + 1] === letterU) {
        let point = this.#unit(at);
        at += 6;
        if (isHigh(point) && bytes[at] === backslash && bytes[at + 1] === letterU) {
          const low = this.#unit(at);
          if (isLow(low)) {
            point = joined(point, low);
            at += 6;
          }
        }
        to = putUtf8(bytes, to, point);
      } else {
        const meaning = escapes[bytes[at + 1] as number];
        if (!meaning) this.#fail('only escapes that JSON has', at);
        bytes[to++] = meaning;
        at += 2;
      }
      next = bytes[at];
    }
    this.#from = this.#at + 1;
    this.#to = to;
    this.#at = at + 1;
  }

  /** The code unit that the escape `\uXXXX` at `at` stands for. */
  #unit(at: number): number {
    const digits = this.#bytes.toString('latin1', at + 2, at + 6);
    if (!/^[\da-fA-F]{4}$/.test(digits)) this.#fail('four hexadecimal digits behind \\u', at);
    return Number.parseInt(digits, 16);
  }

  #text(): string {
    return this.#bytes.toString('utf8', this.#from, this.#to);
  }

  #isText(ascii: string): boolean {
    if (this.#to - this.#from !== ascii.length) return false;
    for (let i = 0; i < ascii.length; i++) if (this.#bytes[this.#from + i] !== ascii.charCodeAt(i)) return false;
    return true;
  }

  #take(wanted: number, expected: string): void {
    if (this.#peek() !== wanted) this.#fail(expected);
    this.#at++;
  }

  /** The next byte that is not white space; undefined at the end. */
  #peek(): number | undefined {
    const bytes = this.#bytes;
    let next = bytes[this.#at];
    while (next === space || next === newline || next === carriageReturn || next === tab) next = bytes[++this.#at];
    return next;
  }

  #fail(expected: string, at = this.#at): never {
    const found = at < this.#bytes.length ? JSON.stringify(this.#bytes.toString('utf8', at, at + 20)) : 'the end';
    throw new MillraceError('MR_BAD_INPUT', `expected ${expected} at byte ${at}, found ${found}.`);
  }
}

const isHigh = (unit: number): boolean => unit >= 0xd800 && unit < 0xdc00;
const isLow = (unit: number): boolean => unit >= 0xdc00 && unit < 0xe000;
const joined = (high: number, low: number): number => ((high - 0xd800) << 10) + (low - 0xdc00) + 0x10000;

/** Writes a code point; returns where it ends. */
const putUtf8 = (bytes: Buffer, at: number, given: number): number => {
  const point = isHigh(given) || isLow(given) ? 0xfffd : given;
  if (point < 0x80) bytes[at++] = point;
  else {
    if (point < 0x800) bytes[at++] = 0xc0 | (point >> 6);
    else {
      if (point < 0x10000) bytes[at++] = 0xe0 | (point >> 12);
      else {
        bytes[at++] = 0xf0 | (point >> 18);
        bytes[at++] = 0x80 | ((point >> 12) & 0x3f);
      }
      bytes[at++] = 0x80 | ((point >> 6) & 0x3f);
    }
    bytes[at++] = 0x80 | (point & 0x3f);
  }
  return at;
};

const bad = (expected: string, length: number): never => {
  throw new MillraceError('MR_BAD_INPUT', `expected ${expected}, found a body of ${length} bytes.`);
};

const utf16 = {
  decode: (bytes: Buffer): Buffer => {
    if (bytes.length % 2 !== 0) bad('UTF-16, two bytes for each unit', bytes.length);
    const mark = bytes.length > 0 ? bytes.readUInt16BE(0) : 0;
    const units = Buffer.from(mark === 0xfffe || mark === 0xfeff ? bytes.subarray(2) : bytes);
    return Buffer.from((mark === 0xfffe ? units : units.swap16()).toString('utf16le'));
  },
  encode: (text: string): Buffer => (text === '' ? nothing : Buffer.from(`\ufeff${text}`, 'utf16le').swap16()),
};

const utf32 = {
  decode: (bytes: Buffer): Buffer => {
    if (bytes.length % 4 !== 0) bad('UTF-32, four bytes for each character', bytes.length);
    const mark = bytes.length > 0 ? bytes.readUInt32BE(0) : 0;
    const little = mark === 0xfffe0000;
    const text = Buffer.allocUnsafe(bytes.length);
    let to = 0;
    for (let at = little || mark === 0xfeff ? 4 : 0; at < bytes.length; at += 4) {
      const point = little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
      if (point > 0x10ffff) bad(`UTF-32, which ends at 10FFFF, not ${point.toString(16)} at byte ${at}`, bytes.length);
      to = putUtf8(text, to, point);
    }
    return text.subarray(0, to);
  },
  encode: (text: string): Buffer => {
    const points = Array.from(text, char => char.codePointAt(0) as number);
    const bytes = Buffer.allocUnsafe(points.length * 4);
    points.forEach((point, i) => bytes.writeUInt32BE(point, i * 4));
    return bytes;
  },
};
