import { appendFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { taildirSource } from '../../src/sources/taildir.ts';
import { Multiline } from '../../src/sources/tailing/multiline.ts';
import { at, dir, positions, Tail } from './tailing/tail.ts';

const start = { multilineStart: '^\\d', multilineTimeout: 60_000 };

describe('multi-line events', () => {
  it('begin with a line that matches multilineStart', async () => {
    writeFileSync(at('a.log'), '1 one\n  at a\n\n  at b\r\n2 two\n3 three\n  at c\n');
    const tail = new Tail(start);
    expect(await tail.until(2)).toEqual(['1 one\n  at a\n\n  at b', '2 two']);
    appendFileSync(at('a.log'), '  at d\n4');
    appendFileSync(at('a.log'), ' four\n');
    expect((await tail.until(3))[2]).toBe('3 three\n  at c\n  at d');
    await tail.stop();
    // What may go on is not delivered, and read again.
    expect(positions()).toMatchObject([{ pos: statSync(at('a.log')).size - 7 }]);
    expect(await new Tail({ ...start, multilineTimeout: 1 }).until(1)).toEqual(['4 four']);
  });

  it('go on with lines that match multilineContinuation', async () => {
    writeFileSync(at('a.log'), '  orphan\none\n\ttwo\n\tthree\nfour\nfive\n');
    const tail = new Tail({ multilineContinuation: '^\\s', multilineTimeout: 60_000, batchSize: 1 });
    expect(await tail.until(3)).toEqual(['  orphan', 'one\n\ttwo\n\tthree', 'four']);
  });

  it('are complete after multilineTimeout, but a line without end is not', async () => {
    writeFileSync(at('a.log'), '1 one\n  more\n2 tw');
    const tail = new Tail({ ...start, multilineTimeout: 5 });
    expect(await tail.until(1)).toEqual(['1 one\n  more']);
    appendFileSync(at('a.log'), 'o\n');
    expect(await tail.until(2)).toEqual(['1 one\n  more', '2 two']);
  });

  it('end before the line with which they would be longer than multilineMaxLength', async () => {
    writeFileSync(at('a.log'), `1 one\n${'x'.repeat(30)}\ny\n${'z'.repeat(100)}\n2\n3\n`);
    const tail = new Tail({ ...start, multilineMaxLength: 38 });
    expect(await tail.until(3)).toEqual([`1 one\n${'x'.repeat(30)}\ny`, 'z'.repeat(100), '2']);
  });

  it('carry the offset of their first byte', async () => {
    writeFileSync(at('a.log'), '1\n a\n22\n b\n b\n3\n');
    const tail = new Tail({ ...start, byteOffsetHeader: true });
    await tail.until(2);
    expect(tail.events.map(({ headers }) => headers['byteoffset'])).toEqual(['0', '5']);
  });

  it('are kept together when the file is rotated, and when it is large', async () => {
    const events = Array.from({ length: 20_000 }, (_, i) => `${i}\n ${'x'.repeat(i % 97)}\n  y`);
    const text = events.map(one => `${one}\n`).join('');
    const cut = text.indexOf('\n ', text.length / 2) + 1;
    writeFileSync(at('a.log'), text.slice(0, cut));
    const tail = new Tail({ ...start, filegroups: { f: `${dir}/a\\.log.*` }, multilineTimeout: 200, batchSize: 77 });
    await tail.until(1000);
    appendFileSync(at('a.log'), text.slice(cut));
    renameSync(at('a.log'), at('a.log.1'));
    expect(await tail.until(events.length)).toEqual(events);
  });

  it('cover all bytes, whatever the pattern and the limit', () => {
    const line = fc.stringMatching(/^[ab]{0,5}$/);
    fc.assert(
      fc.property(fc.array(line, { minLength: 1 }), fc.nat(12), fc.boolean(), (lines, multilineMaxLength, begins) => {
        const text = lines.map(one => `${one}\n`).join('');
        const pattern = { [begins ? 'multilineStart' : 'multilineContinuation']: '^a' };
        const multiline = Multiline.of({ ...pattern, multilineMaxLength });
        const ends = [...(multiline?.ends(Buffer.from(text), Infinity, true) ?? [])];
        const events = ends.map((end, i) => text.slice(i === 0 ? 0 : ends[i - 1]! + 1, end));
        expect(events.map(one => `${one}\n`).join('')).toBe(text);
        for (const [i, one] of events.entries()) {
          if (one.includes('\n')) expect(one.length).toBeLessThanOrEqual(multilineMaxLength);
          for (const other of one.split('\n').slice(1)) expect(other.startsWith('a')).toBe(!begins);
          const before = events[i - 1];
          if (before !== undefined && one.startsWith('a') !== begins)
            expect(before.length + 1 + one.split('\n')[0]!.length).toBeGreaterThan(multilineMaxLength);
        }
      }),
    );
  });

  it.each([
    [{ multilineStart: '(' }, /multilineStart: .*regular expression/i],
    [{ multilineStart: 'a', multilineContinuation: 'b' }, /multilineContinuation: give this or multilineStart/],
  ])('refuses %j', (options, message) => {
    expect(() => taildirSource({ filegroups: { f: '/var/log/.*' }, ...options })).toThrow(message);
  });
});
