import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
} from 'node:fs';
import { closeSync, openSync, renameSync, rmSync, statSync, truncateSync } from 'node:fs';
import { unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createSink, run, taildirSource } from '../../src/index.ts';
import { parsePositions } from '../../src/sources/tailing/position-file.ts';
import {
  FakeClock,
  sourceLaws,
  type SourceSpec,
  type SourceTuning,
  type SourceUnderTest,
} from '../../src/testing/index.ts';
import { at, dir, flows, inode, logs, positionFile, positions, savePositions, Tail } from './tailing/tail.ts';

const root = process.getuid?.() === 0;

/** Permissions mean nothing to root: acts as another user. */
const asNobody = async (act: () => Promise<void>) => {
  if (!root) return act();
  chmodSync(dir, 0o777);
  process.seteuid?.(65534);
  try {
    await act();
  } finally {
    process.seteuid?.(0);
  }
};

const asRoot = (act: () => void) => {
  if (root) process.seteuid?.(0);
  act();
  if (root) process.seteuid?.(65534);
};

describe('taildir source', () => {
  it('delivers each line of files that exist once, and of those that come later', async () => {
    writeFileSync(at('a.log'), 'a1\na2\n');
    writeFileSync(at('b.txt'), 'no\n');
    const tail = new Tail();
    expect(await tail.until(2)).toEqual(['a1', 'a2']);
    writeFileSync(at('b.log'), 'b1\n');
    await tail.until(3);
    appendFileSync(at('a.log'), 'a3\n');
    expect(await tail.until(4)).toEqual(['a1', 'a2', 'b1', 'a3']);
    expect(await tail.stop()).toHaveLength(4);
  });

  it('T14 keeps a last line without newline until it is complete', async () => {
    writeFileSync(at('a.log'), 'one\ntw');
    const tail = new Tail();
    await tail.until(1);
    appendFileSync(at('a.log'), 'o');
    appendFileSync(at('a.log'), '\nthree\n');
    expect(await tail.until(3)).toEqual(['one', 'two', 'three']);
  });

  it('T14 delivers it when nothing came for idleTimeout, and what comes then as another line', async () => {
    writeFileSync(at('a.log'), 'one\ntw');
    const tail = new Tail({ idleTimeout: 20 });
    expect(await tail.until(2)).toEqual(['one', 'tw']);
    appendFileSync(at('a.log'), 'o\n');
    expect(await tail.until(3)).toEqual(['one', 'tw', 'o']);
    await tail.stop();
    expect(positions()).toEqual([{ inode: inode(at('a.log')), pos: 8, file: at('a.log') }]);
  });

  it('takes \\r\\n and \\n as ends, one \\r at most, and keeps every other byte', async () => {
    const odd = [Buffer.from('nul\0nul'), Buffer.from([0xff, 0xfe, 0xc3]), Buffer.from('a\rb'), Buffer.alloc(0)];
    writeFileSync(at('a.log'), Buffer.concat(odd.flatMap(line => [line, Buffer.from('\n')])));
    appendFileSync(at('a.log'), 'crlf\r\n\r\nplain\ntwo\r\r\n');
    const tail = new Tail();
    await tail.until(8);
    expect(tail.events.map(({ body }) => body.toString('hex'))).toEqual(
      [...odd, 'crlf', '', 'plain', 'two\r'].map(line => Buffer.from(line).toString('hex')),
    );
  });

  it('delivers any bytes, cut anywhere, whatever the batch size', async () => {
    const line = fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes.filter(byte => byte !== 10)));
    await fc.assert(
      fc.asyncProperty(
        fc.array(line, { minLength: 1, maxLength: 50 }),
        fc.nat(),
        fc.integer({ min: 1, max: 60 }),
        fc.boolean(),
        async (lines, cut, batchSize, byteOffsetHeader) => {
          const bytes = Buffer.concat(lines.flatMap(one => [one, Buffer.from('\n')]));
          const where = cut % (bytes.length + 1);
          const file = at('any.log');
          writeFileSync(file, bytes.subarray(0, where));
          const tail = new Tail({ batchSize, byteOffsetHeader });
          const complete = bytes.subarray(0, where).filter(byte => byte === 10).length;
          await tail.until(complete);
          appendFileSync(file, bytes.subarray(where));
          await tail.until(lines.length);
          await tail.stop();
          const expected = lines.map(one => (one.at(-1) === 13 ? one.subarray(0, -1) : one));
          expect(tail.events.map(({ body }) => body.toString('hex'))).toEqual(expected.map(one => one.toString('hex')));
          expect(Math.max(...tail.batches.map(({ length }) => length))).toBeLessThanOrEqual(batchSize);
          expect(positions()).toMatchObject([{ pos: bytes.length }]);
          let offset = 0;
          for (const [i, one] of lines.entries()) {
            if (byteOffsetHeader) expect(tail.events[i]?.headers['byteoffset']).toBe(String(offset));
            offset += one.length + 1;
          }
          rmSync(file);
          rmSync(positionFile());
        },
      ),
      { numRuns: 60 },
    );
  });

  it('gives each line the offset of its first byte with byteOffsetHeader', async () => {
    writeFileSync(at('a.log'), '0123456789\n0123456789\r\n0123456789\nend\n');
    const tail = new Tail({ byteOffsetHeader: true, batchSize: 2 });
    await tail.until(4);
    expect(tail.events.map(({ headers }) => headers['byteoffset'])).toEqual(['0', '11', '23', '34']);
  });

  it('adds the headers of the group, and the path of the file', async () => {
    mkdirSync(at('sub'));
    writeFileSync(at('a.log'), 'a\n');
    writeFileSync(at('sub', 'b.log'), 'b\n');
    const tail = new Tail({
      filegroups: { one: logs(), two: `${dir}/sub/b\\.log` },
      headers: { 'one.env': 'test', 'one.dotted.key': 'x', 'two.env': 'prod' },
      fileHeader: true,
      fileHeaderKey: 'path',
    });
    await tail.until(2);
    const headersOf = (body: string) => ({ ...tail.events.find(event => event.body.toString() === body)?.headers });
    expect(headersOf('a')).toEqual({ env: 'test', 'dotted.key': 'x', path: at('a.log') });
    expect(headersOf('b')).toEqual({ env: 'prod', path: at('sub', 'b.log') });
  });

  it('reads files in the order of their last change, first', async () => {
    for (const [name, time] of [
      ['a', 300],
      ['b', 100],
      ['c', 200],
    ] as const) {
      writeFileSync(at(`${name}.log`), `${name}1\n${name}2\n`);
      utimesSync(at(`${name}.log`), time, time);
    }
    expect(await new Tail().until(6)).toEqual(['b1', 'b2', 'c1', 'c2', 'a1', 'a2']);
  });

  it('takes turns after maxBatchCount batches', async () => {
    for (const [name, time] of [
      ['a', 100],
      ['b', 200],
    ] as const) {
      writeFileSync(at(`${name}.log`), `${name}1\n${name}2\n${name}3\n`);
      utimesSync(at(`${name}.log`), time, time);
    }
    expect(await new Tail({ batchSize: 1, maxBatchCount: 1 }).until(6)).toEqual(['a1', 'b1', 'a2', 'b2', 'a3', 'b3']);
    expect(await new Tail({ batchSize: 1, maxBatchCount: 2, positionFile: at('other.json') }).until(6)).toEqual([
      'a1',
      'a2',
      'b1',
      'b2',
      'a3',
      'b3',
    ]);
  });

  it('does not let a large file keep a thousand small ones waiting', async () => {
    const line = `${'x'.repeat(999)}\n`;
    writeFileSync(at('a.log'), line.repeat(10_000));
    utimesSync(at('a.log'), 1, 1);
    for (let i = 0; i < 1000; i++) writeFileSync(at(`${i}.log`), 'small\n');
    const tail = new Tail({ batchSize: 1000 });
    await tail.until(11_000);
    expect(tail.lines.lastIndexOf('small')).toBeLessThan(1000 + 3000);
  });

  it('T19 closes files that are quiet, and of many opens the one that grows only', async () => {
    for (let i = 0; i < 300; i++) writeFileSync(at(`${i}.log`), `${i}\n`);
    const tail = new Tail({ idleTimeout: 20, maxOpenFiles: 10 });
    const open = () => tail.flow.metrics.find('SOURCE', 'taildir')!['OpenFileCount']!;
    await tail.until(300);
    expect(open()).toBeLessThanOrEqual(10);
    while (open() > 0) await sleep(1);
    appendFileSync(at('7.log'), 'more\n');
    await tail.until(301);
    expect(open()).toBeLessThanOrEqual(1);
    expect((await tail.stop()).at(-1)).toBe('more');
  });

  it('never mixes files in a batch', async () => {
    for (let i = 0; i < 300; i++) writeFileSync(at(`${i}.log`), `${i} a\n${i} b\n`);
    const tail = new Tail({ fileHeader: true });
    await tail.until(600);
    for (const batch of tail.batches) expect(new Set(batch.map(({ headers }) => headers['file'])).size).toBe(1);
    expect(new Set(tail.lines).size).toBe(600);
    expect((await tail.stop()).length).toBe(600);
    expect(positions()).toHaveLength(300);
  });

  it('ignores directories and empty files, and applies the pattern to whole names only', async () => {
    mkdirSync(at('dir.log'));
    writeFileSync(at('dir.log', 'in.log'), 'no\n');
    writeFileSync(at('empty.log'), '');
    writeFileSync(at('x.log.1'), 'no\n');
    writeFileSync(at('.hidden.log'), 'dot\n');
    const tail = new Tail();
    expect(await tail.until(1)).toEqual(['dot']);
    await tail.stop();
    expect(
      positions()
        .map(({ file }) => file)
        .sort(),
    ).toEqual([at('.hidden.log'), at('empty.log')]);
  });

  it('reads a file once that two groups want, or that has two names', async () => {
    writeFileSync(at('a.log'), 'one\n');
    linkSync(at('a.log'), at('b.log'));
    const tail = new Tail({ filegroups: { f: logs(), g: `${dir}/a.*` }, pollInterval: 5 });
    await tail.until(1);
    appendFileSync(at('b.log'), 'two\n');
    expect(await tail.until(2)).toEqual(['one', 'two']);
    expect(await tail.stop()).toEqual(['one', 'two']);
  });

  describe('T15 lines that are too long', () => {
    const minimum = 512 * 1024;

    it('delivers a long line whole', async () => {
      const long = Buffer.alloc(3_000_000, 'abcdefg');
      writeFileSync(at('a.log'), Buffer.concat([Buffer.from('before\n'), long, Buffer.from('\r\nafter\n')]));
      const tail = new Tail();
      await tail.until(3);
      expect(tail.events[1]?.body.equals(long)).toBe(true);
      expect(tail.lines.map(({ length }) => length)).toEqual([6, 3_000_000, 5]);
    });

    it('delivers it in parts over maxLineLength, says which, and counts them', async () => {
      const long = Buffer.alloc(minimum * 2 + 10, 'abcdefg');
      writeFileSync(at('a.log'), Buffer.concat([Buffer.from('before\n'), long, Buffer.from('\nafter\n')]));
      const tail = new Tail({ maxLineLength: minimum, byteOffsetHeader: true });
      await tail.until(5);
      expect(tail.lines.map(({ length }) => length)).toEqual([6, minimum, minimum, 10, 5]);
      expect(Buffer.concat(tail.events.slice(1, 4).map(({ body }) => body)).equals(long)).toBe(true);
      expect(
        tail.events.map(({ headers }) => [headers['linePart'], headers['lineParts'], headers['byteoffset']]),
      ).toEqual([
        [undefined, undefined, '0'],
        ['1', undefined, '7'],
        ['2', undefined, String(7 + minimum)],
        ['3', '3', String(7 + 2 * minimum)],
        [undefined, undefined, String(7 + 2 * minimum + 11)],
      ]);
      await tail.stop();
      expect(tail.flow.metrics.snapshot()['SOURCE.taildir']).toMatchObject({ LinePartCount: 2 });
      expect(positions()[0]?.pos).toBe(statSync(at('a.log')).size);
    });

    it('follows one that grows slowly', async () => {
      writeFileSync(at('a.log'), Buffer.alloc(minimum - 1, 'x'));
      const tail = new Tail({ pollInterval: 5 });
      for (let i = 0; i < 20; i++) appendFileSync(at('a.log'), Buffer.alloc(minimum / 4, 'y'));
      appendFileSync(at('a.log'), 'z\nnext\n');
      await tail.until(2);
      expect(tail.lines.map(({ length }) => length)).toEqual([minimum * 6, 4]);
    });
  });

  describe('positions', () => {
    it('goes on where it was stopped', async () => {
      writeFileSync(at('a.log'), 'one\ntwo\n');
      const first = new Tail();
      await first.until(2);
      await first.stop();
      expect(readFileSync(positionFile(), 'utf8')).toBe(
        `[{"inode":${inode(at('a.log'))},"pos":8,"file":"${at('a.log')}"}]`,
      );
      appendFileSync(at('a.log'), 'three\n');
      expect(await new Tail().until(1)).toEqual(['three']);
    });

    it('loses and doubles nothing when it is stopped in the middle', async () => {
      const total = 20_000;
      writeFileSync(at('a.log'), Array.from({ length: total }, (_, i) => `${i}\n`).join(''));
      const all: string[] = [];
      for (let sessions = 0; all.length < total; sessions++) {
        expect(sessions).toBeLessThan(100);
        const tail = new Tail({ batchSize: 37 }, () => new Promise(setImmediate));
        await tail.until(1 + ((sessions * 7919) % 3000));
        all.push(...(await tail.stop()));
      }
      expect(all).toEqual(Array.from({ length: total }, (_, i) => String(i)));
    });

    it('delivers again after an abort what was not acked', async () => {
      writeFileSync(at('a.log'), 'one\ntwo\nthree\n');
      let count = 0;
      const tail = new Tail({ batchSize: 1 }, () => (++count > 1 ? new Promise(() => undefined) : undefined));
      await tail.until(1);
      tail.flow.abort();
      await tail.flow.done.catch(() => undefined);
      // An abort waits for nobody.
      while (positions()[0]?.pos !== 4) await new Promise(setImmediate);
      expect(await new Tail().until(2)).toEqual(['two', 'three']);
    });

    it('moves a position only over what is acked without a gap', async () => {
      writeFileSync(at('a.log'), 'one\ntwo\nthree\n');
      const held: (() => void)[] = [];
      let finished = () => undefined as void;
      const three = new Promise<void>(resolve => (finished = resolve));
      const sink = createSink(
        () => {
          if (held.length === 2) finished();
          return new Promise<void>(resolve => held.push(resolve));
        },
        { concurrency: 3 },
      );
      const flow = run(
        taildirSource({ filegroups: { f: logs() }, positionFile: positionFile(), batchSize: 1, writePosInterval: 1 }),
        sink,
      );
      flows.push(flow);
      await three;
      held[1]!();
      held[2]!();
      await new Promise(setImmediate);
      flow.abort();
      await flow.done.catch(() => undefined);
      while (positions().length === 0) await new Promise(setImmediate);
      expect(positions()).toMatchObject([{ pos: 0 }]);
    });

    it('reads again what a sink nacks, in order', async () => {
      writeFileSync(at('a.log'), 'one\ntwo\nthree\n');
      let failures = 2;
      const tail = new Tail({ batchSize: 1, redelivery: { initial: 1 } } as never, () => {
        if (failures-- > 0) throw new Error('not now');
      });
      expect(await tail.until(3)).toEqual(['one', 'two', 'three']);
    });

    it('takes up a position file that Gson wrote', async () => {
      const file = at("it's <a> & b=c.log");
      writeFileSync(file, 'one\ntwo\n');
      mkdirSync(at('positions'));
      const escaped = file.replaceAll(/[<>&='']/g, char => `\\u00${char.charCodeAt(0).toString(16)}`);
      const text = `[{"inode":${inode(file)},"pos":4,"file":"${escaped}"}]`;
      writeFileSync(positionFile(), text);
      const tail = new Tail();
      expect(await tail.until(1)).toEqual(['two']);
      await tail.stop();
      expect(readFileSync(positionFile(), 'utf8')).toBe(text.replace('"pos":4', '"pos":8'));
    });

    it('starts over when the position is behind the end, and says so', async () => {
      writeFileSync(at('a.log'), 'one\n');
      savePositions([{ inode: inode(at('a.log')), pos: 100, file: at('a.log') }]);
      const tail = new Tail();
      expect(await tail.until(1)).toEqual(['one']);
      expect(tail.said(/has 4 bytes, and was delivered up to 100/)).toBe(1);
    });

    it('recognises a file that was renamed while it was stopped', async () => {
      writeFileSync(at('a.log'), 'one\ntwo\n');
      savePositions([{ inode: inode(at('a.log')), pos: 4, file: at('a.log') }]);
      renameSync(at('a.log'), at('a.1.log'));
      writeFileSync(at('a.log'), 'three\n');
      expect((await new Tail().until(2)).sort()).toEqual(['three', 'two']);
    });

    it('does not take a position for a file that was made later and got the inode', async () => {
      writeFileSync(at('old.log'), 'gone\n');
      savePositions([{ inode: inode(at('old.log')), pos: 5, file: at('old.log') }]);
      utimesSync(positionFile(), 1, 1);
      appendFileSync(at('old.log'), 'x\n');
      expect(await new Tail().until(2)).toEqual(['gone', 'x']);
    });

    it('keeps positions of files in a directory that is not there yet', async () => {
      const entry = { inode: 42, pos: 7, file: at('later', 'a.log') };
      savePositions([entry]);
      const tail = new Tail({ filegroups: { f: `${dir}/later/.*` } });
      await tail.stop();
      expect(positions()).toEqual([entry]);
    });

    it.each(['[{"inode":1,"pos":', '{"inode":1}', '[1]', '\0\0\0\0'])('sets a damaged file aside: %j', async text => {
      writeFileSync(at('a.log'), 'one\n');
      mkdirSync(at('positions'));
      writeFileSync(positionFile(), text);
      const tail = new Tail();
      expect(await tail.until(1)).toEqual(['one']);
      await tail.stop();
      const aside = readdirSync(at('positions')).filter(name => name.includes('corrupt'));
      expect(aside).toHaveLength(1);
      expect(readFileSync(at('positions', aside[0]!), 'utf8')).toBe(text);
      expect(tail.said(/is damaged/)).toBe(1);
      expect(positions()).toMatchObject([{ pos: 4 }]);
    });

    it('takes an empty file for no positions', async () => {
      writeFileSync(at('a.log'), 'one\n');
      mkdirSync(at('positions'));
      writeFileSync(positionFile(), '');
      const tail = new Tail();
      await tail.until(1);
      expect(tail.log.entries).toEqual([]);
    });

    it('fails to open when the position file cannot be read or written', async () => {
      mkdirSync(positionFile(), { recursive: true });
      const tail = new Tail();
      await expect(tail.flow.done).rejects.toMatchObject({ code: 'MR_IO' });
      writeFileSync(at('file'), '');
      const other = new Tail({ positionFile: at('file', 'p.json') });
      await expect(other.flow.done).rejects.toMatchObject({ code: 'MR_IO' });
      flows.length = 0;
    });

    it('leaves nothing but the position file and its fingerprints behind', async () => {
      writeFileSync(at('a.log'), 'one\n');
      const tail = new Tail({ writePosInterval: 1 });
      await tail.until(1);
      await tail.stop();
      expect(readdirSync(at('positions')).sort()).toEqual(['p.json', 'p.json.fingerprints']);
    });
  });

  describe('skipToEnd', () => {
    it('skips what is in files that are there, not in later ones, and keeps to positions', async () => {
      writeFileSync(at('a.log'), 'old\n');
      writeFileSync(at('b.log'), 'known\nnew\n');
      savePositions([{ inode: inode(at('b.log')), pos: 6, file: at('b.log') }]);
      const tail = new Tail({ skipToEnd: true });
      expect(await tail.until(1)).toEqual(['new']);
      appendFileSync(at('a.log'), 'fresh\n');
      await tail.until(2);
      writeFileSync(at('c.log'), 'whole\n');
      expect(await tail.until(3)).toEqual(['new', 'fresh', 'whole']);
    });
  });

  describe('rotation', () => {
    it('goes on in a file that is renamed within the pattern, and reads the new one after it', async () => {
      writeFileSync(at('a.log'), '1\n');
      const tail = new Tail();
      await tail.until(1);
      appendFileSync(at('a.log'), '2\n');
      renameSync(at('a.log'), at('a.1.log'));
      writeFileSync(at('a.log'), '3\n');
      appendFileSync(at('a.1.log'), '2b\n');
      expect((await tail.until(4)).slice(0, 2)).toEqual(['1', '2']);
      expect((await tail.stop()).sort()).toEqual(['1', '2', '2b', '3']);
      expect(
        positions()
          .map(({ file, pos }) => [file, pos])
          .sort(),
      ).toEqual([
        [at('a.1.log'), 7],
        [at('a.log'), 2],
      ]);
    });

    it('reads a file to its end that is renamed out of the pattern, late lines too', async () => {
      writeFileSync(at('a.log'), '1\n');
      const tail = new Tail({ pollInterval: 10 });
      await tail.until(1);
      appendFileSync(at('a.log'), '2\n');
      renameSync(at('a.log'), at('a.log.1'));
      appendFileSync(at('a.log.1'), '3\n');
      expect(await tail.until(3)).toEqual(['1', '2', '3']);
      appendFileSync(at('a.log.1'), 'late\n');
      writeFileSync(at('a.log'), 'new\n');
      expect((await tail.until(5)).slice(3).sort()).toEqual(['late', 'new']);
    });

    it('finds a file that was renamed before it was opened', async () => {
      // One file is open at a time, so that the second is opened after the rename.
      const line = `${'x'.repeat(99)}\n`;
      writeFileSync(at('a.log'), line.repeat(50_000));
      writeFileSync(at('b.log'), 'b1\nb2\n');
      utimesSync(at('a.log'), 1, 1);
      let go = () => undefined as void;
      const renamed = new Promise<void>(resolve => (go = resolve));
      const tail = new Tail({ maxOpenFiles: 1, writePosInterval: 1 }, () => renamed);
      while (!existsSync(positionFile()) || positions().length < 2) await new Promise(setImmediate);
      renameSync(at('b.log'), at('b.log.1'));
      go();
      const lines = await tail.until(50_002);
      expect(lines.filter(one => one.startsWith('b'))).toEqual(['b1', 'b2']);
    });

    it('reads a file that is deleted while nobody takes lines, and the one that follows it', async () => {
      writeFileSync(at('a.log'), '1\n');
      let go = () => undefined as void;
      const held = new Promise<void>(resolve => (go = resolve));
      const tail = new Tail({ writePosInterval: 1 }, () => held);
      const known = async (count: number) => {
        while (!existsSync(positionFile()) || positions().length < count) await new Promise(setImmediate);
      };
      await known(1);
      for (const count of [2, 3]) {
        unlinkSync(at('a.log'));
        writeFileSync(at('a.log'), `${count}\n`);
        await known(count);
      }
      go();
      expect(await tail.until(3)).toEqual(['1', '2', '3']);
    });

    it('reports what is deleted before it could be read', async () => {
      writeFileSync(at('a.log'), `${'x'.repeat(99)}\n`.repeat(50_000));
      writeFileSync(at('b.log'), 'bb\n');
      utimesSync(at('a.log'), 1, 1);
      let go = () => undefined as void;
      const held = new Promise<void>(resolve => (go = resolve));
      const tail = new Tail({ maxOpenFiles: 1, writePosInterval: 1, maxInFlight: { deliveries: 16 } }, () => held);
      while (!existsSync(positionFile()) || positions().length < 2) await new Promise(setImmediate);
      unlinkSync(at('b.log'));
      go();
      while (tail.said(/b\.log is gone, and its bytes from 0 to 3 were not read/) === 0)
        await new Promise(setImmediate);
      expect(tail.flow.metrics.snapshot()['SOURCE.taildir']).toMatchObject({ LostByteCount: 3 });
    });

    it('forgets a deleted file after a while, with its last line', async () => {
      const clock = new FakeClock();
      writeFileSync(at('a.log'), 'one\nrest');
      writeFileSync(at('b.log'), 'two\n');
      const tail = new Tail({}, undefined, clock);
      while (tail.events.length < 2) await clock.advance(0);
      unlinkSync(at('a.log'));
      while (tail.events.length < 3) await clock.advance(1000);
      expect(tail.lines.sort()).toEqual(['one', 'rest', 'two']);
      const stopped = tail.flow.stop().then(() => true);
      while (!(await Promise.race([stopped, clock.advance(0)])));
      expect(positions()).toMatchObject([{ file: at('b.log') }]);
      expect(tail.flow.metrics.snapshot()['SOURCE.taildir']).toMatchObject({ LostByteCount: 0, OpenFileCount: 0 });
    });

    it('starts over in a file that became shorter', async () => {
      writeFileSync(at('a.log'), 'one\ntwo\nthree\n');
      const tail = new Tail();
      await tail.until(3);
      truncateSync(at('a.log'));
      appendFileSync(at('a.log'), 'new\n');
      expect(await tail.until(4)).toEqual(['one', 'two', 'three', 'new']);
      await tail.stop();
      expect(positions()).toMatchObject([{ pos: 4 }]);
      expect(tail.said(/was truncated/)).toBe(1);
    });

    it('loses nothing over many rotations while it is written to', async () => {
      const tail = new Tail({ filegroups: { f: `${dir}/a\\.log.*` }, pollInterval: 50 });
      let n = 0;
      for (let rotation = 0; rotation < 30; rotation++) {
        for (let i = 0; i < 20; i++) appendFileSync(at('a.log'), `${n++}\n`);
        await tail.until(n / 2);
        renameSync(at('a.log'), at(`a.log.${rotation}`));
        for (let i = 0; i < 3; i++) appendFileSync(at(`a.log.${rotation}`), `${n++}\n`);
      }
      await tail.until(n);
      const sorted = (await tail.stop()).map(Number).sort((a, b) => a - b);
      expect(sorted).toEqual(Array.from({ length: n }, (_, i) => i));
    });
  });

  it('delivers every line once, whatever happens to the names of files, running and stopped', async () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ do: fc.constant('append'), file: fc.nat(2), lines: fc.integer({ min: 1, max: 5 }) }),
      },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('partial'), file: fc.nat(2) }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('rotate', 'move out'), file: fc.nat(2) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('swap'), file: fc.nat(2) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('wait', 'restart', 'delete'), file: fc.nat(2) }) },
    ) as fc.Arbitrary<{ do: string; file: number; lines?: number }>;
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async steps => {
        const logs = at(String(run++));
        mkdirSync(logs);
        const options = {
          filegroups: { f: `${logs}/.*\\.log` },
          positionFile: `${logs}/p.json`,
          pollInterval: 20,
          batchSize: 3,
        };
        const path = (file: number) => join(logs, `${file}.log`);
        /** Which file has the path now, and the start of a line at its end. */
        const ids = [0, 1, 2];
        const open = ['', '', ''];
        let [nextId, nextName, written] = [3, 0, 0];
        const expected = new Map<number, string[]>();
        const received: string[] = [];
        const kept: number[] = [];
        let tail = new Tail(options);
        const settle = () => tail.until(written - received.length);
        for (const { do: what, file, lines = 0 } of steps) {
          if (what === 'append') {
            const id = ids[file]!;
            const own = expected.get(id) ?? [];
            expected.set(id, own);
            for (let i = 0; i < lines; i++) {
              const line = `${id} ${own.length}`;
              appendFileSync(path(file), `${line.slice(open[file]!.length)}\n`);
              open[file] = '';
              own.push(line);
              written++;
            }
          } else if (what === 'partial' && open[file] === '') {
            open[file] = `${ids[file]!} `;
            appendFileSync(path(file), open[file]);
          } else if ((what === 'rotate' || what === 'move out') && open[file] === '' && existsSync(path(file))) {
            // What leaves the pattern is found only while it runs, and for as long as somebody looks.
            if (what === 'move out') await settle();
            renameSync(path(file), join(logs, what === 'rotate' ? `old${nextName++}.log` : `out${nextName++}`));
            ids[file] = nextId++;
          } else if (what === 'swap' && file > 0 && existsSync(path(file)) && existsSync(path(0))) {
            renameSync(path(0), join(logs, 'swap.log'));
            renameSync(path(file), path(0));
            renameSync(join(logs, 'swap.log'), path(file));
            [ids[0], ids[file], open[0], open[file]] = [ids[file]!, ids[0]!, open[file]!, open[0]!];
          } else if (what === 'delete' && open[file] === '' && existsSync(path(file))) {
            await settle();
            // Kept open, so that no other file gets its inode: that is another story.
            kept.push(openSync(path(file), 'r'));
            unlinkSync(path(file));
            ids[file] = nextId++;
          } else if (what === 'wait') await settle();
          else if (what === 'restart') {
            received.push(...(await tail.stop()));
            tail = new Tail(options);
          }
        }
        await settle();
        received.push(...(await tail.stop()));
        kept.forEach(closeSync);
        expect(received).toHaveLength(written);
        for (const [id, own] of expected) expect(received.filter(line => line.startsWith(`${id} `))).toEqual(own);
      }),
      { numRuns: 150 },
    );
  });

  describe('trouble', () => {
    it('waits for a directory that does not exist, and says so once', async () => {
      const tail = new Tail({ filegroups: { f: `${dir}/later/.*\\.log` }, pollInterval: 5 });
      while (tail.log.entries.length === 0) await new Promise(setImmediate);
      mkdirSync(at('later'));
      writeFileSync(at('later', 'a.log'), 'one\n');
      expect(await tail.until(1)).toEqual(['one']);
      expect(tail.said(/later does not exist/)).toBe(1);
      expect(tail.said(/later can be read now/)).toBe(1);
    });

    it('goes on when a directory is deleted and comes back', async () => {
      mkdirSync(at('d'));
      writeFileSync(at('d', 'a.log'), 'one\n');
      const tail = new Tail({ filegroups: { f: `${dir}/d/.*\\.log` }, pollInterval: 5 });
      await tail.until(1);
      rmSync(at('d'), { recursive: true });
      while (tail.said(/d does not exist/) === 0) await new Promise(setImmediate);
      mkdirSync(at('d'));
      writeFileSync(at('d', 'a.log'), 'two\n');
      expect(await tail.until(2)).toEqual(['one', 'two']);
    });

    it('reports a file that cannot be read once, and reads it when it can be', async () => {
      writeFileSync(at('a.log'), 'secret\n', { mode: 0o000 });
      writeFileSync(at('b.log'), 'open\n');
      await asNobody(async () => {
        const tail = new Tail({ pollInterval: 5 });
        expect(await tail.until(1)).toEqual(['open']);
        while (tail.said(/a\.log cannot be read: EACCES/) === 0) await new Promise(setImmediate);
        for (let i = 0; i < 5; i++) {
          asRoot(() => appendFileSync(at('b.log'), `${i}\n`));
          await tail.until(2 + i);
        }
        expect(tail.said(/a\.log cannot be read/)).toBe(1);
        expect(tail.flow.metrics.snapshot()['SOURCE.taildir']).toMatchObject({ EventReadFail: 1 });
        asRoot(() => chmodSync(at('a.log'), 0o644));
        expect((await tail.until(7)).at(-1)).toBe('secret');
        await tail.stop();
      });
    });

    it('waits for a directory that cannot be read', async () => {
      mkdirSync(at('d'));
      writeFileSync(at('d', 'a.log'), 'one\n');
      chmodSync(at('d'), 0o000);
      await asNobody(async () => {
        const tail = new Tail({ filegroups: { f: `${dir}/d/.*` }, pollInterval: 5 });
        while (tail.said(/d cannot be read .*EACCES/) === 0) await new Promise(setImmediate);
        asRoot(() => chmodSync(at('d'), 0o755));
        expect(await tail.until(1)).toEqual(['one']);
        await tail.stop();
      });
    });

    it('goes on with the others when one is deleted', async () => {
      writeFileSync(at('a.log'), 'a\n');
      writeFileSync(at('b.log'), 'b\n');
      const tail = new Tail();
      await tail.until(2);
      unlinkSync(at('a.log'));
      appendFileSync(at('b.log'), 'b2\n');
      expect((await tail.until(3)).at(-1)).toBe('b2');
    });

    it.each([
      [{ filegroups: {} }, /filegroups: there are none/],
      [{ filegroups: { f: '/var/log/' } }, /filegroups: f: .*no pattern/],
      [{ filegroups: { f: '/var/log/(.log' } }, /filegroups: f: .*regular expression/i],
      [{ filegroups: { f: '/var/log/.*' }, headers: { 'g.k': 'v' } }, /headers: g\.k: expected <file group>\.<header>/],
      [{ filegroups: { f: '/var/log/.*' }, maxLineLength: 10 }, /maxLineLength: expected .* from 524288/],
    ] as const)('refuses %j', (options, message) => {
      expect(() => taildirSource(options as never)).toThrow(message);
    });
  });

  describe('laws', () => {
    const tailed = (tuning: SourceTuning): SourceUnderTest => {
      const own = mkdtempSync(join(tmpdir(), 'taildir-laws-'));
      const file = join(own, 'a.log');
      const saved = join(own, 'p.json');
      /** Where each line ends. */
      const ends: number[] = [];
      writeFileSync(file, '');
      return {
        source: taildirSource({
          filegroups: { f: `${own}/.*\\.log` },
          positionFile: saved,
          batchSize: 3,
          writePosInterval: 1,
          pollInterval: 20,
          ...tuning,
        }),
        feed(events) {
          for (const { body } of events) {
            appendFileSync(file, `${body.toString()}\n`);
            ends.push((ends.at(-1) ?? 0) + body.length + 1);
          }
        },
        confirmed() {
          const [position] = existsSync(saved) ? parsePositions(readFileSync(saved, 'utf8')).positions : [];
          return ends.filter(end => end <= (position?.pos ?? 0)).length;
        },
        close: () => rmSync(own, { recursive: true }),
      };
    };
    const spec: SourceSpec = {
      name: 'taildir',
      make: tailed,
      clock: 'real',
      runs: 16,
      bodies: 'lines',
      headers: false,
    };
    for (const law of sourceLaws(spec)) it.concurrent(law.name, () => law.run());
  });
});
