/**
 * Java's .properties format, as Flume's configuration files use it, with a place for everything that was read.
 *
 * - `key=value`, `key:value`, `key value`; white space around the separator and around the value does not count.
 * - Lines whose first character is `#` or `!` are comments. A comment never follows a value on the same line.
 * - A line that ends in an odd number of backslashes goes on in the next one, whose leading white space does not count.
 * - `\t \n \r \f \uXXXX` are escapes; before any other character a backslash only vanishes (so `\:` is a colon in a key).
 * - Bytes are UTF-8; a file that is not valid UTF-8 is read as Latin-1, which is what Java's loader assumes.
 * - The last of two equal keys wins.
 *
 * Source of the grammar: the documentation of java.util.Properties.load.
 *
 * @module
 */
import { createReadStream } from 'node:fs';
import { systemCode, toError } from '../core/errors.ts';
import type { Place, Problems } from './report.ts';

/** Limits on a configuration file: bytes in it, and characters in one line with its continuations. */
export const propertiesLimits = { fileBytes: 4 << 20, lineLength: 100_000 } as const;

/** One key with its value. */
export interface Entry {
  readonly key: string;
  readonly value: string;
  /** Where the key is. */
  readonly at: Place;
  /** Where `length` characters of the value from `offset` are, or the whole value. */
  readonly place: (offset?: number, length?: number) => Place;
  /** True when the value must not be printed. */
  readonly secret: boolean;
}

export type Entries = ReadonlyMap<string, Entry>;

/** Whether a key, a variable or the like has a name under which people keep secrets. */
export const looksSecret = (name: string): boolean =>
  /pass?w|passphrase|secret|token|credential|private.?key|access.?key|api.?key|keystore.?key$|jaas|(^|[.:_-])(pw|pwd|pass|auth)$/i.test(
    name,
  );

/** Whether text contains credentials whatever it is called: `http://user:pw@host`, `password=pw`. */
const holdsSecret = (text: string): boolean =>
  /:\/\/[^/\s:@]*:[^/\s@]+@|(passw(or)?d|secret|token)\s*[=:]\s*[^\s$]/i.test(text);

/** A file's lines joined at their continuations: still escaped, with the place where each part came from. */
interface Logical {
  readonly text: string;
  readonly parts: readonly { readonly at: number; readonly line: number; readonly column: number }[];
}

const blank = /^[ \t\f]*/;
const leading = (text: string): number => blank.exec(text)?.[0].length ?? 0;
const continues = (line: string): boolean => {
  let backslashes = 0;
  while (line[line.length - 1 - backslashes] === '\\') backslashes++;
  return backslashes % 2 === 1;
};

/** What stands at `i`, escapes read. `fault` says why the file's author may be surprised. */
const readChar = (raw: string, i: number): { char: string; width: number; fault?: 'unicode' | 'lost' } => {
  const char = raw.charAt(i);
  if (char !== '\\') return { char, width: 1 };
  const next = raw.charAt(i + 1);
  if (next === 'u') {
    const hex = raw.slice(i + 2, i + 6);
    if (!/^[\da-f]{4}$/i.test(hex)) return { char: '\\u', width: 2, fault: 'unicode' };
    return { char: String.fromCharCode(Number.parseInt(hex, 16)), width: 6 };
  }
  const at = 'tnrf'.indexOf(next);
  if (next !== '' && at >= 0) return { char: '\t\n\r\f'.charAt(at), width: 2 };
  return { char: next, width: 2, ...(/[^\\:=#! \t\f]/.test(next) && { fault: 'lost' }) };
};

const unescaped = (raw: string): string => {
  if (!raw.includes('\\')) return raw;
  let text = '';
  for (let i = 0; i < raw.length;) {
    const { char, width } = readChar(raw, i);
    text += char;
    i += width;
  }
  return text;
};

/** Where the unescaped character `offset` begins in `raw`. */
const rawIndex = (raw: string, offset: number): number => {
  let i = 0;
  for (let n = 0; i < raw.length;) {
    const { char, width } = readChar(raw, i);
    if (n + char.length > offset) break;
    n += char.length;
    i += width;
  }
  return i;
};

/** Where key, separator and value part: Java skips white space, at most one `=` or `:`, and white space again. */
const split = (text: string): { keyEnd: number; valueStart: number } => {
  let keyEnd = 0;
  while (keyEnd < text.length && !/[=: \t\f]/.test(text.charAt(keyEnd))) keyEnd += text.charAt(keyEnd) === '\\' ? 2 : 1;
  keyEnd = Math.min(keyEnd, text.length);
  const separator = /^[ \t\f]*[=:]?[ \t\f]*/.exec(text.slice(keyEnd))?.[0].length ?? 0;
  return { keyEnd, valueStart: keyEnd + separator };
};

/** Java's String.trim: everything up to U+0020 goes. Returns how much was cut in front, too. */
const trimmed = (text: string): { text: string; cut: number } => {
  let from = 0;
  let to = text.length;
  while (from < to && text.charCodeAt(from) <= 32) from++;
  while (to > from && text.charCodeAt(to - 1) <= 32) to--;
  return { text: text.slice(from, to), cut: from };
};

const decode = (bytes: Uint8Array): string => {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return Buffer.from(bytes).toString('latin1');
  }
};

function* logicalLines(lines: readonly string[]): Generator<Logical> {
  for (let n = 0; n < lines.length; n++) {
    let line = lines[n] ?? '';
    let skip = leading(line);
    if (skip === line.length || line[skip] === '#' || line[skip] === '!') continue;
    const parts = [];
    let text = '';
    for (;;) {
      const goesOn = continues(line);
      parts.push({ at: text.length, line: n + 1, column: skip + 1 });
      text += line.slice(skip, goesOn ? -1 : undefined);
      if (!goesOn || text === '' || n + 1 >= lines.length) break;
      line = lines[++n] ?? '';
      skip = leading(line);
    }
    if (text !== '') yield { text, parts };
  }
}

/** One logical line as an entry. */
const readEntry = (file: string, lines: readonly string[], { text, parts }: Logical): Entry => {
  const { keyEnd, valueStart } = split(text);
  const rawValue = text.slice(valueStart);
  const key = trimmed(unescaped(text.slice(0, keyEnd))).text;
  const { text: value, cut } = trimmed(unescaped(rawValue));
  const secret = looksSecret(key) || holdsSecret(value);

  const escapes = rawValue.includes('\\');
  const rawAt = (offset: number) => (escapes ? rawIndex(rawValue, offset) : Math.min(offset, rawValue.length));
  const partAt = (at: number) => parts.findLast(part => part.at <= at) ?? { at: 0, line: 1, column: 1 };
  const valueAt = valueStart + rawAt(cut);
  const spot = (at: number, length: number): Place => {
    const part = partAt(at);
    const column = part.column + at - part.at;
    const line = lines[part.line - 1] ?? '';
    const first = partAt(valueAt);
    if (!secret || part.line < first.line) {
      return {
        file,
        line: part.line,
        column,
        length: Math.max(1, Math.min(length, line.length - column + 1)),
        text: line,
      };
    }
    const valueColumn = first.column + valueAt - first.at;
    const masked = `${(lines[first.line - 1] ?? '').slice(0, valueColumn - 1)}***`;
    return at < valueAt
      ? { file, line: first.line, column, length, text: masked }
      : { file, line: first.line, column: valueColumn, length: 3, text: masked };
  };

  return {
    key,
    value,
    secret,
    at: spot(0, keyEnd),
    place: (offset = 0, length = value.length - offset) => {
      const from = rawAt(cut + offset);
      return spot(valueStart + from, rawAt(cut + offset + length) - from);
    },
  };
};

/** Escapes that do not mean what they seem to: the first of each kind. */
const checkEscapes = ({ text }: Logical, entry: Entry, problems: Problems): void => {
  const { keyEnd } = split(text);
  const seen = new Set<string>();
  for (let i = text.indexOf('\\'); i >= 0; i = text.indexOf('\\', i)) {
    const { width, fault } = readChar(text, i);
    if (fault !== undefined && !seen.has(fault)) {
      seen.add(fault);
      const place = i < keyEnd ? entry.at : entry.place();
      const shownEscape = entry.secret ? 'an escape' : `"${text.slice(i, i + (fault === 'unicode' ? 6 : 2))}"`;
      const advice = 'In a properties file a backslash is written twice.';
      if (fault === 'lost') problems.warn(place, `the backslash of ${shownEscape} vanishes`, { advice });
      else {
        const expected = '\\u and four hexadecimal digits';
        problems.error(place, `${shownEscape} is not a character`, { expected, advice });
      }
    }
    i += width;
  }
};

/**
 * The entries of one file, in its order. Never throws: what is wrong becomes a problem. Bytes that are no text, and
 * lines beyond the limit, are errors and give no entry.
 */
export const parseProperties = (bytes: Uint8Array, file: string, problems: Problems): Entries => {
  const entries = new Map<string, Entry>();
  if (bytes.length > propertiesLimits.fileBytes) {
    problems.error(undefined, `the file has more than ${propertiesLimits.fileBytes} bytes`, { file });
    return entries;
  }
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) {
    problems.error(undefined, 'the file is UTF-16', { file, expected: 'UTF-8', advice: 'Save it as UTF-8.' });
    return entries;
  }
  const lines = decode(bytes).split(/\r\n|\r|\n/);
  const junk = lines.findIndex(line => /[\0-\x08\x0b\x0e-\x1f\x7f]/.test(line));
  if (junk >= 0) {
    problems.error(undefined, `line ${junk + 1} has bytes that are no text`, { file, expected: 'a properties file' });
    return entries;
  }

  for (const logical of logicalLines(lines)) {
    const line = logical.parts[0]?.line ?? 1;
    if (logical.text.length > propertiesLimits.lineLength) {
      problems.error(undefined, `line ${line} has more than ${propertiesLimits.lineLength} characters`, { file });
      continue;
    }
    const entry = readEntry(file, lines, logical);
    checkEscapes(logical, entry, problems);
    if (entry.key === '') {
      problems.warn(entry.at, 'a line without a key is ignored', { expected: 'key = value' });
      continue;
    }
    const earlier = entries.get(entry.key);
    if (earlier !== undefined) {
      problems.warn(entry.at, `${entry.key} is set twice; this overrides line ${earlier.at.line}`);
    }
    entries.set(entry.key, entry);
  }
  return entries;
};

/** The entries of several files, where a later one overrides an earlier. A file that cannot be read is an error. */
export const readProperties = async (files: readonly string[], problems: Problems): Promise<Entries> => {
  const all = new Map<string, Entry>();
  for (const file of files) {
    if (/\.(json|ya?ml|xml)$/i.test(file)) {
      problems.error(undefined, 'this is not a properties file', { file, expected: 'Java properties, as Flume reads' });
      continue;
    }
    try {
      for (const [key, entry] of parseProperties(await readBounded(file), file, problems)) all.set(key, entry);
    } catch (error) {
      problems.error(undefined, reasons[systemCode(error) ?? ''] ?? toError(error).message, { file, code: 'MR_IO' });
    }
  }
  return all;
};

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EISDIR: 'this is a directory',
  EACCES: 'this file may not be read',
};

/** One byte more than the limit is enough to know that it is broken; a pipe works as well as a file. */
const readBounded = async (file: string): Promise<Uint8Array> => {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of isRemote(file) ? fetched(file) : opened(file)) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > propertiesLimits.fileBytes) break;
  }
  return Buffer.concat(chunks);
};

export const isRemote = (file: string): boolean => /^https?:\/\//i.test(file);

const opened = (file: string): AsyncIterable<Uint8Array> =>
  createReadStream(file, { end: propertiesLimits.fileBytes }) as AsyncIterable<Uint8Array>;

/** How long a server may take, in ms. */
const patience = 10_000;

async function* fetched(url: string): AsyncGenerator<Uint8Array> {
  const response = await fetch(url, { signal: AbortSignal.timeout(patience) }).catch((thrown: unknown) => {
    const { cause } = toError(thrown);
    throw cause instanceof Error ? cause : toError(thrown);
  });
  if (!response.ok) throw new Error(`the server answers ${response.status} ${response.statusText}`.trim());
  for await (const chunk of response.body ?? []) yield chunk as Uint8Array;
}
