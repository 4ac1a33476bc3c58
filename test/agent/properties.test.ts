import { once } from 'node:events';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { looksSecret, parseProperties, propertiesLimits, readProperties } from '../../src/agent/properties.ts';
import { Problems } from '../../src/agent/report.ts';

const parse = (text: string | Uint8Array) => {
  const problems = new Problems();
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  const entries = parseProperties(bytes, 'flume.conf', problems);
  return { entries, problems: problems.all, values: Object.fromEntries([...entries].map(([k, e]) => [k, e.value])) };
};

describe('the grammar', () => {
  test.each([
    ['a=1', { a: '1' }],
    ['a : 1', { a: '1' }],
    ['a 1', { a: '1' }],
    ['a\t=\t1', { a: '1' }],
    ['a==1', { a: '=1' }],
    ['a', { a: '' }],
    ['  a = 1  ', { a: '1' }],
    ['# a=1\n! b=2\n\n  # c=3\nd=4', { d: '4' }],
    ['a = 1 # not a comment', { a: '1 # not a comment' }],
    ['a = one \\\n    two', { a: 'one two' }],
    ['a = one\\\\\nb = 2', { a: 'one\\', b: '2' }],
    ['a = one \\\n# two', { a: 'one # two' }],
    ['# comment \\\na = 1', { a: '1' }],
    ['a = 1\\', { a: '1' }],
    ['a\\ b\\:c\\=d = 1', { 'a b:c=d': '1' }],
    ['a = \\u0041\\t\\u00e9\\n.', { a: 'A\té\n.' }],
    ['a = 1\r\nb = 2\rc = 3', { a: '1', b: '2', c: '3' }],
    ['\ufeffa = 1', { a: '1' }],
    ['\\\n# a comment, for nothing was there to continue\na = 1', { a: '1' }],
  ])('%j', (text, values) => {
    expect(parse(text).values).toEqual(values);
  });

  test('bytes that are not UTF-8 are Latin-1', () => {
    expect(parse(Buffer.from('a = caf\u00e9', 'latin1')).values).toEqual({ a: 'café' });
    expect(parse(Buffer.from('a = café', 'utf8')).values).toEqual({ a: 'café' });
  });

  test('__proto__ is a key like any other', () => {
    expect([...parse('__proto__ = 1').entries.keys()]).toEqual(['__proto__']);
  });
});

describe('places', () => {
  test('of the key, of the value, of a word in the value', () => {
    const entry = parse('# first\n  a1.sources.r1.channels =  c1 c2').entries.get('a1.sources.r1.channels')!;
    const text = '  a1.sources.r1.channels =  c1 c2';
    expect(entry.at).toEqual({ file: 'flume.conf', line: 2, column: 3, length: 22, text });
    expect(entry.place()).toEqual({ file: 'flume.conf', line: 2, column: 29, length: 5, text });
    expect(entry.place(3, 2)).toEqual({ file: 'flume.conf', line: 2, column: 32, length: 2, text });
  });

  test('count escapes and continuations as they are written', () => {
    const entry = parse('a = \\u0041 b\\\n   c d').entries.get('a')!;
    expect(entry.value).toBe('A bc d');
    expect(entry.place(0, 1)).toMatchObject({ line: 1, column: 5, length: 6 });
    expect(entry.place(2, 1)).toMatchObject({ line: 1, column: 12, text: 'a = \\u0041 b\\' });
    expect(entry.place(5, 1)).toMatchObject({ line: 2, column: 6, text: '   c d' });
  });

  test('every word of a value is found where it stands', () => {
    const gap = fc.constantFrom(' ', '  ', '\t', ' \\\n  ', '\\\n ');
    const word = fc.stringMatching(/^[a-z]{1,5}$/);
    fc.assert(
      fc.property(fc.array(fc.tuple(word, gap), { minLength: 1, maxLength: 6 }), parts => {
        const source = parts.map(([w, g]) => w + g).join('');
        const entry = parse(`key = ${source}end`).entries.get('key')!;
        for (const { 0: found, index } of entry.value.matchAll(/[a-z]+/g)) {
          const { column, length, text } = entry.place(index, found.length);
          // A word may itself be broken by a continuation; its first part stands at the place.
          expect(found.startsWith(text.slice(column - 1, column - 1 + length).replace(/\\$/, ''))).toBe(true);
        }
      }),
    );
  });
});

describe('what is wrong with a file', () => {
  const messages = (text: string | Uint8Array) => parse(text).problems.map(p => `${p.severity}: ${p.message}`);

  test('a key that is set twice: the last wins, and is reported', () => {
    const { values, problems } = parse('a = 1\nb = 2\na = 3');
    expect(values).toEqual({ a: '3', b: '2' });
    expect(problems).toMatchObject([
      { severity: 'warning', message: 'a is set twice; this overrides line 1', place: { line: 3, column: 1 } },
    ]);
  });

  test('a malformed character', () => {
    const { problems, values } = parse('a1.x = C:\\users');
    expect(values).toEqual({ 'a1.x': 'C:\\users' });
    expect(problems).toMatchObject([
      { severity: 'error', message: '"\\users" is not a character', place: { line: 1 } },
    ]);
  });

  test('a regular expression whose backslashes vanish', () => {
    const { problems, values } = parse('a1.x = /var/log/.*\\.log\na1.y = /var/log/.*\\\\.log');
    expect(values).toEqual({ 'a1.x': '/var/log/.*.log', 'a1.y': '/var/log/.*\\.log' });
    expect(problems).toMatchObject([
      { severity: 'warning', message: 'the backslash of "\\." vanishes', place: { line: 1 } },
    ]);
  });

  test('a line without a key', () => {
    expect(messages('= 1\na = 2')).toEqual(['warning: a line without a key is ignored']);
  });

  test('bytes that are no text give one error, not thousands', () => {
    expect(messages('a = 1\nb = \0\0\0\nc = \0')).toEqual(['error: line 2 has bytes that are no text']);
    expect(messages(Buffer.from('\ufeffa = 1', 'utf16le'))).toEqual(['error: the file is UTF-16']);
  });

  test('a line and a file beyond the limit', () => {
    expect(messages(`a = 1\nb = ${'x'.repeat(propertiesLimits.lineLength)}`)).toEqual([
      'error: line 2 has more than 100000 characters',
    ]);
    expect(messages(Buffer.alloc(propertiesLimits.fileBytes + 1, 'a'))).toEqual([
      'error: the file has more than 4194304 bytes',
    ]);
  });

  test('a line of backslashes takes no time', () => {
    expect(messages(`${'\\'.repeat(propertiesLimits.fileBytes - 1)}x`)).toEqual([
      'error: line 1 has more than 100000 characters',
    ]);
  });
});

describe('secrets', () => {
  test.each([
    'a1.sources.r1.keystore-password',
    'a1.sinks.k1.kafka.producer.ssl.keystore.pasword',
    'PASSWD',
    'db.pwd',
    'apiKey',
    'sasl.jaas.config',
    'kafka.producer.ssl.keystore.key',
    'x.accessTokenSecret',
  ])('%s looks like one', key => {
    expect(looksSecret(key)).toBe(true);
  });

  test.each(['a1.sources.r1.port', 'a1.sinks.k1.serializer', 'author', 'a1.sinks.k1.keepFields', 'keystore'])(
    '%s does not',
    key => {
      expect(looksSecret(key)).toBe(false);
    },
  );

  test('are masked in every line that a place shows', () => {
    const file = [
      'a.keystore-password = hunter2',
      'b.keystore-password = \\\n  hunter2 \\\n  hunter2',
      'c.url = http://joe:hunter2@host/',
      'd.keystore-password = hunt\\er2',
      'e.password = hunter2 \\u12',
    ].join('\n');
    const { entries, problems } = parse(file);
    expect(entries.get('b.keystore-password')?.place(9, 7)).toMatchObject({ line: 3, column: 3, text: '  ***' });
    const shown = [...entries.values()].flatMap(entry => [entry.at, entry.place(), entry.place(2, 3)]);
    expect(shown).toHaveLength(15);
    expect(JSON.stringify([shown, problems])).not.toMatch(/hunt|er2/);
  });
});

describe('several files', () => {
  const folder = mkdtemp(join(tmpdir(), 'millrace-'));
  const write = async (name: string, text: string): Promise<string> => {
    const file = join(await folder, name);
    await writeFile(file, text);
    return file;
  };

  test('later ones override earlier ones without a word', async () => {
    const problems = new Problems();
    const files = [await write('base.conf', 'a = 1\nb = 2'), await write('more.conf', 'b = 3\nc = 4')];
    const entries = await readProperties(files, problems);
    expect([...entries].map(([key, { value }]) => `${key}=${value}`)).toEqual(['a=1', 'b=3', 'c=4']);
    expect(entries.get('b')?.at).toMatchObject({ file: files[1], line: 1 });
    expect(problems.all).toEqual([]);
  });

  test('one that cannot be read is an error, and the others are read', async () => {
    const problems = new Problems();
    const missing = join(await folder, 'nothing.conf');
    const files = [missing, await folder, await write('flume.yaml', 'a: 1'), await write('ok.conf', 'a = 1')];
    expect([...(await readProperties(files, problems)).keys()]).toEqual(['a']);
    expect(problems.all).toMatchObject([
      { code: 'MR_IO', file: missing, message: 'there is no such file' },
      { code: 'MR_IO', file: await folder, message: 'this is a directory' },
      { code: 'MR_CONFIG', file: files[2], message: 'this is not a properties file' },
    ]);
  });
});

describe('addresses', () => {
  test('are read like files, and their troubles are told like those of files', async () => {
    const server = createServer((request, response) => {
      if (request.url === '/a.conf') response.end('a = 1\nb = \u00e4');
      else if (request.url === '/large') response.end(Buffer.alloc(propertiesLimits.fileBytes + 10, 'a=1\n'));
      else response.writeHead(404).end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const problems = new Problems();
    const entries = await readProperties([`${at}/a.conf`], problems);
    expect([...entries].map(([key, { value }]) => `${key}=${value}`)).toEqual(['a=1', 'b=ä']);
    expect(entries.get('a')?.at).toMatchObject({ file: `${at}/a.conf`, line: 1 });
    expect(problems.all).toEqual([]);

    await readProperties([`${at}/none.conf`, `${at}/large`], problems);
    server.closeAllConnections();
    server.close();
    const gone = createServer().listen(0, '127.0.0.1');
    await once(gone, 'listening');
    const { port } = gone.address() as AddressInfo;
    gone.close();
    await once(gone, 'close');
    await readProperties([`http://127.0.0.1:${port}/a.conf`], problems);
    expect(problems.all.map(({ message }) => message)).toEqual([
      'the server answers 404 Not Found',
      expect.stringMatching(/4194304|4 MiB|larger/),
      expect.stringContaining('ECONNREFUSED'),
    ]);
  });
});

describe('for all files', () => {
  /** Prints an entry in one of the many ways in which the format allows it. */
  const escapeWith = (text: string, must: RegExp, hex: boolean): string =>
    Array.from({ length: text.length }, (_, i) => text.charAt(i))
      .map(char => {
        const code = `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
        if (/[\0-\x1f\x7f\ud800-\udfff\u0085\u2028\u2029]/.test(char)) {
          return { '\t': '\\t', '\n': '\\n', '\r': '\\r', '\f': '\\f' }[char] ?? code;
        }
        return !must.test(char) ? char : hex ? code : `\\${char}`;
      })
      .join('');
  const entry = fc.record({
    key: fc
      .string({ unit: 'binary', minLength: 1, maxLength: 12 })
      .filter(s => s.replace(/^[\0- ]+|[\0- ]+$/g, '') === s),
    value: fc.string({ unit: 'binary', maxLength: 20 }).filter(s => s.replace(/^[\0- ]+|[\0- ]+$/g, '') === s),
    separator: fc.constantFrom('=', ':', ' = ', '\t:\t', ' ', '\\\n  ='),
    hex: fc.boolean(),
    breakAt: fc.nat(20),
    end: fc.constantFrom('\n', '\r\n', '\r', '\n# comment \\\n', '\n\n  \n'),
  });
  const print = (given: typeof entry extends fc.Arbitrary<infer E> ? E : never): string => {
    const key = escapeWith(given.key, /[\\=: #!]/, given.hex);
    const value = escapeWith(given.value, /[\\]/, given.hex);
    const first = /^[=:]/.test(value) ? `\\${value}` : value;
    // A continuation may stand between any two characters, as long as it cuts no escape and eats no leading space.
    const at = given.breakAt;
    const fits = at > 0 && at < first.length && !/\\(u[\da-f]{0,3})?$/.test(first.slice(0, at)) && first[at] !== ' ';
    return key + given.separator + (fits ? `${first.slice(0, at)}\\\n  ${first.slice(at)}` : first) + given.end;
  };

  test('parsing what was printed gives what was printed', () => {
    fc.assert(
      fc.property(fc.uniqueArray(entry, { selector: e => e.key, maxLength: 5 }), given => {
        const { entries, problems } = parse(given.map(print).join(''));
        expect(problems.filter(p => p.severity === 'error')).toEqual([]);
        expect([...entries].map(([key, { value }]) => [key, value])).toEqual(given.map(e => [e.key, e.value]));
      }),
      { numRuns: 1000 },
    );
  });

  test('no bytes make it throw, and every place lies in its file', () => {
    const junk = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc
        .array(fc.constantFrom('a', '=', ':', ' ', '\\', '\n', '\r', '#', 'u', '0', 'é', '\t'), { maxLength: 60 })
        .map(parts => Buffer.from(parts.join(''))),
    );
    fc.assert(
      fc.property(junk, fc.nat(30), fc.nat(30), (bytes, offset, length) => {
        const { entries, problems } = parse(bytes);
        const lines = bytes.length + 1;
        const places = [...entries.values()].flatMap(e => [e.at, e.place(), e.place(offset, length)]);
        for (const { line, column, length: marked } of [...places, ...problems.flatMap(p => p.place ?? [])]) {
          expect(line).toBeGreaterThan(0);
          expect(line).toBeLessThanOrEqual(lines);
          expect(column).toBeGreaterThan(0);
          expect(marked).toBeGreaterThan(0);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
