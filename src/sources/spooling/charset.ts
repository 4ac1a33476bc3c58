/**
 * Text in any encoding as UTF-8, without losing where in the file a line ends.
 *
 * @module
 */
import { isAscii, isUtf8 } from 'node:buffer';
import { TextDecoder } from 'node:util';

/** What happens to bytes that are no text: the file is set aside, they are replaced by U+FFFD, or they are left out. */
export type DecodeErrorPolicy = 'FAIL' | 'REPLACE' | 'IGNORE';

export interface Charset {
  /** The length of a line end in bytes. */
  readonly newline: number;
  /** The offset behind the first line end from `from` on; 0 if there is none. */
  lineEnd(bytes: Buffer, from: number): number;
  /** The offset behind the last line end; 0 if there is none. */
  lastLineEnd(bytes: Buffer): number;
  /** The same text as UTF-8, the very same bytes if they are that already; undefined if the policy is `FAIL` and it is none. */
  toUtf8(bytes: Buffer): Buffer | undefined;
  /** How many bytes, at most `max`, can be cut off without cutting through a character. */
  head(bytes: Buffer, max: number): number;
}

const lineFeed = 0x0a;
const replacement = '\ufffd';

const narrow = {
  newline: 1,
  lineEnd: (bytes: Buffer, from: number) => bytes.indexOf(lineFeed, from) + 1,
  lastLineEnd: (bytes: Buffer) => bytes.lastIndexOf(lineFeed) + 1,
  head: (_: Buffer, max: number) => max,
};

/** Bytes as they are, and no lines in them. */
export const noText: Charset = {
  newline: 0,
  lineEnd: () => 0,
  lastLineEnd: () => 0,
  toUtf8: bytes => bytes,
  head: (_, max) => max,
};

/** The encoding of that name, which is Java's or the web's; undefined if it is not known. */
export const charsetOf = (name: string, policy: DecodeErrorPolicy): Charset | undefined => {
  const label = name.trim().toLowerCase();
  if (/^utf_?-?8$/.test(label)) return utf8(policy);
  // To the web both of these are Windows-1252, to Java they are what they say.
  if (/^(iso_?-?8859[-_]1|latin1|l1)$/.test(label)) {
    return { ...narrow, toUtf8: bytes => (isAscii(bytes) ? bytes : Buffer.from(bytes.toString('latin1'))) };
  }
  if (/^(us-)?ascii$/.test(label)) return ascii(policy);
  // Which of the two it is, its first two bytes would say.
  if (/^(x-)?utf_?-?16$/.test(label)) return undefined;
  let decoder: TextDecoder;
  try {
    decoder = new TextDecoder(label.replace(/^utf_?16/, 'utf-16'), { fatal: policy === 'FAIL', ignoreBOM: true });
  } catch {
    return undefined;
  }
  const toUtf8 = (bytes: Buffer) => decoded(decoder, bytes, policy);
  if (decoder.encoding === 'utf-16le') return wide(0, toUtf8);
  if (decoder.encoding === 'utf-16be') return wide(1, toUtf8);
  return { ...narrow, toUtf8 };
};

/** Decodes all of it at once; undefined if the decoder refuses. */
const decoded = (decoder: TextDecoder, bytes: Buffer, policy: DecodeErrorPolicy): Buffer | undefined => {
  let text: string;
  try {
    // Without `stream`, Node 20 takes Windows-1252 for Latin-1. The end is given by itself, for what is incomplete there.
    text = decoder.decode(bytes, { stream: true }) + decoder.decode();
  } catch {
    return undefined;
  }
  return Buffer.from(policy === 'IGNORE' ? text.replaceAll(replacement, '') : text);
};

const utf8 = (policy: DecodeErrorPolicy): Charset => {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const genuine = Buffer.from(replacement);
  return {
    ...narrow,
    toUtf8(bytes) {
      if (isUtf8(bytes)) return bytes;
      if (policy === 'FAIL') return undefined;
      if (policy === 'REPLACE') return decoded(decoder, bytes, policy);
      // What was U+FFFD in the file stays: these three bytes never are the end of something broken.
      const pieces: Buffer[] = [];
      for (let from = 0; ;) {
        const at = bytes.indexOf(genuine, from);
        pieces.push(decoded(decoder, bytes.subarray(from, at < 0 ? bytes.length : at), policy) as Buffer);
        if (at < 0) return Buffer.concat(pieces);
        pieces.push(genuine);
        from = at + genuine.length;
      }
    },
    head(bytes, max) {
      let cut = max;
      while (cut > max - 3 && ((bytes[cut] ?? 0) & 0xc0) === 0x80) cut--;
      return cut;
    },
  };
};

const ascii = (policy: DecodeErrorPolicy): Charset => ({
  ...narrow,
  toUtf8(bytes) {
    if (isAscii(bytes)) return bytes;
    if (policy === 'FAIL') return undefined;
    return Buffer.from(bytes.toString('latin1').replace(/[^\0-\x7f]/g, policy === 'REPLACE' ? replacement : ''));
  },
});

/** UTF-16, with the low byte of each unit first (`at` 0) or second (1). Its bytes begin at an even offset. */
const wide = (at: 0 | 1, toUtf8: Charset['toUtf8']): Charset => {
  const isLineEnd = (bytes: Buffer, i: number) => i % 2 === at && bytes[i ^ 1] === 0;
  return {
    newline: 2,
    toUtf8,
    lineEnd(bytes, from) {
      for (let i = bytes.indexOf(lineFeed, from); i >= 0; i = bytes.indexOf(lineFeed, i + 1))
        if (isLineEnd(bytes, i)) return (i | 1) + 1;
      return 0;
    },
    lastLineEnd(bytes) {
      for (let i = bytes.lastIndexOf(lineFeed); i >= 0; i = i === 0 ? -1 : bytes.lastIndexOf(lineFeed, i - 1))
        if (isLineEnd(bytes, i)) return (i | 1) + 1;
      return 0;
    },
    head(bytes, max) {
      const cut = max & ~1;
      // Not between the two halves of a surrogate pair.
      const second = ((bytes[cut + 1 - at] ?? 0) & 0xfc) === 0xdc;
      return second ? cut - 2 : cut;
    },
  };
};
