/** What peers lose or repeat: each of these is one of the cases T1 to T24 that were collected from their bug trackers. */
import { appendFileSync, copyFileSync, existsSync, linkSync, mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { readdirSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, unlinkSync, utimesSync } from 'node:fs';
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { systemDisk, type Disk } from '../../src/core/disk.ts';
import { MillraceError } from '../../src/core/errors.ts';
import { FakeClock } from '../../src/testing/index.ts';
import type { TaildirOptions } from '../../src/sources/taildir.ts';
import { at, dir, inode, positionFile, positions, Tail } from './tailing/tail.ts';

const file = () => at('app.log');
/** The log, and what it is rotated to. */
const glob = () => ({ f: `${dir}/app\\.log.*` });
const numbered = (name: string, count: number, length = 0) =>
  Array.from({ length: count }, (_, i) => `${name} ${i} `.padEnd(length, 'x'));
const textOf = (lines: readonly string[]) => lines.map(line => `${line}\n`).join('');
const append = (lines: readonly string[], path = file()) => appendFileSync(path, textOf(lines));
const tick = () => new Promise(setImmediate);
const until = async (true_: () => boolean) => {
  while (!true_()) await tick();
};
const counters = (tail: Tail) => tail.flow.metrics.snapshot()['SOURCE.taildir'] as unknown as Record<string, number>;

/** Starts, stops, starts again: nothing more may come than these lines, each as often as it stands there. */
const exactly = async (tail: Tail, expected: readonly string[], options: Partial<TaildirOptions> = {}) => {
  await tail.until(expected.length);
  const lines = await tail.stop();
  expect([...lines].sort()).toEqual([...expected].sort());
  for (const { file: path, pos, inode: own } of positions()) {
    const here = existsSync(path) && inode(path) === own && !path.endsWith('.gz');
    if (here) expect([path, pos]).toEqual([path, statSync(path).size]);
  }
  writeFileSync(at('app.log.sentinel'), 'sentinel\n');
  const again = new Tail({ filegroups: glob(), ...options });
  await again.until(1);
  expect(await again.stop()).toEqual(['sentinel']);
  return lines;
};

describe.each(['running', 'stopped'] as const)('exact tailing, %s', when => {
  /** Delivers what is there, lets `act` happen while it runs or while it does not, and checks everything together. */
  const around = async (
    before: readonly string[],
    act: (tail: Tail) => void | Promise<void>,
    after: readonly string[],
    options: Partial<TaildirOptions> = {},
  ) => {
    const all = { filegroups: glob(), ...options };
    const first = new Tail(all);
    await first.until(before.length);
    if (when === 'running') {
      await act(first);
      return { tail: first, lines: await exactly(first, [...before, ...after], options) };
    }
    expect([...(await first.stop())].sort()).toEqual([...before].sort());
    await act(first);
    const second = new Tail(all);
    return { tail: second, lines: await exactly(second, after, options) };
  };

  it.each([
    ['T1 smaller', 20, 5],
    ['T3 the same size', 20, 20],
    ['T3 larger', 20, 60],
  ])('truncated and filled again, %s', async (_, size, refill) => {
    const [before, after] = [numbered('a', size, 40), numbered('b', refill, 40)];
    append(before);
    const { tail } = await around(before, () => writeFileSync(file(), textOf(after)), after);
    expect(tail.said(/was truncated|was delivered up to/)).toBe(1);
  });

  it('T3 truncated and filled with lines whose ends are the same', async () => {
    const [before, after] = [numbered('a', 50, 200), numbered('b', 80, 200)];
    append(before);
    await around(before, () => writeFileSync(file(), textOf(after)), after);
  });

  // Other tests make files on the same file system: one of them may be quicker to take the inode.
  const ifTaken = { retry: { count: 10, condition: /the inode was taken/ } };
  it('T2 another file with the same inode, longer and shorter', ifTaken, async () => {
    const [before, after] = [numbered('a', 20, 40), numbered('b', 30, 40)];
    append(before);
    const old = inode(file());
    await around(
      before,
      async tail => {
        // While it is open nothing else gets its inode.
        if (when === 'running') await until(() => counters(tail)['OpenFileCount'] === 0);
        unlinkSync(file());
        for (let i = 0; i < 100; i++) {
          writeFileSync(at(`new${i}`), textOf(after));
          if (inode(at(`new${i}`)) === old) return renameSync(at(`new${i}`), file());
        }
        throw new Error('the inode was taken by somebody else');
      },
      after,
      { idleTimeout: 30 },
    );
  });

  it('T6 copytruncate: the copy is not read again', async () => {
    const [before, after] = [numbered('a', 200, 40), numbered('b', 300, 40)];
    append(before);
    await around(
      before,
      () => {
        copyFileSync(file(), at('app.log.1'));
        truncateSync(file());
        append(after);
      },
      after,
    );
  });

  it('T6 copytruncate: what was not read of the original is read in the copy, a line without end too', async () => {
    const [before, tail, after] = [numbered('a', 3), numbered('tail', 2), numbered('b', 1)];
    append(before);
    await around(before, () => {
      append(tail);
      appendFileSync(file(), 'half');
      copyFileSync(file(), at('app.log.1'));
      truncateSync(file());
      append(after);
      appendFileSync(at('app.log.1'), ' a line\n');
    }, [...tail, 'half a line', ...after]);
  });

  it('T6 copytruncate of a few bytes, and again, with the copies renamed', async () => {
    append(['0']);
    const after = ['1', '2', '3', '4', '5'];
    await around(
      ['0'],
      async tail => {
        for (const [i, line] of after.entries()) {
          for (let n = i; n > 0; n--) renameSync(at(`app.log.${n}`), at(`app.log.${n + 1}`));
          copyFileSync(file(), at('app.log.1'));
          truncateSync(file());
          append([line]);
          if (when === 'running') await tail.until(i + 2);
        }
      },
      after,
    );
  });

  it('T6 a plain copy is a file of its own', async () => {
    const before = numbered('a', 3);
    append(before);
    await around(before, () => copyFileSync(file(), at('app.log.bak')), before);
  });

  it('T7 files with the same first bytes', async () => {
    const header = `# ${'header '.repeat(200)}`;
    const lines = ['1', '2', '3', '4'].map(name => [header, ...numbered(name, 10)]);
    append(lines[0]!);
    append(lines[1]!, at('app.log.1'));
    await around(
      [...lines[0]!, ...lines[1]!],
      () => {
        append(lines[2]!, at('app.log.2'));
        append(lines[3]!, at('app.log.3'));
      },
      [...lines[2]!, ...lines[3]!],
    );
  });

  it('T9 T11 rotation: the old file is read to its end, late lines too, and the new one after it', async () => {
    append(['1']);
    const { lines } = await around(
      ['1'],
      () => {
        append(['2']);
        renameSync(file(), at('app.log.1'));
        append(['3']);
        append(['2 late'], at('app.log.1'));
        // The order of changes is not that of contents.
        utimesSync(file(), 1, 1);
      },
      ['2', '2 late', '3'],
    );
    if (when === 'stopped') expect(lines).toEqual(['2', '2 late', '3']);
  });

  it('T11 several rotations', async () => {
    append(['1']);
    const { lines } = await around(
      ['1'],
      () => {
        append(['2']);
        renameSync(file(), at('app.log.2'));
        append(['3'], at('app.log.1'));
        append(['4']);
        for (const [i, name] of ['app.log.2', 'app.log.1', 'app.log'].entries()) utimesSync(at(name), 100 + i, 100 + i);
      },
      ['2', '3', '4'],
    );
    if (when === 'stopped') expect(lines).toEqual(['2', '3', '4']);
  });

  it('T11 rotation to a name that is not wanted', async () => {
    append(['1']);
    const only = { filegroups: { f: `${dir}/app\\.log`, s: `${dir}/app\\.log\\.sentinel` } };
    const { lines } = await around(
      ['1'],
      () => {
        append(['2']);
        renameSync(file(), at('app.log.1'));
        append(['3']);
      },
      ['2', '3'],
      only,
    );
    expect(lines.slice(-2)).toEqual(['2', '3']);
  });

  it('a link that leads to another file, outside of the directory, and back', async () => {
    mkdirSync(at('data'));
    append(['a1'], at('data', 'a'));
    append(['b1'], at('data', 'b'));
    symlinkSync(at('data', 'a'), file());
    const lead = (to: string) => {
      symlinkSync(at('data', to), at('next'));
      renameSync(at('next'), file());
    };
    await around(
      ['a1'],
      async tail => {
        append(['a2'], at('data', 'a'));
        if (when === 'running') await tail.until(2);
        append(['a3'], at('data', 'a'));
        lead('b');
        append(['b2'], at('data', 'b'));
        if (when === 'running') await tail.until(5);
        lead('a');
        append(['a4'], at('data', 'a'));
      },
      // Where a link led meanwhile is known only to those who look.
      when === 'running' ? ['a2', 'a3', 'b1', 'b2', 'a4'] : ['a2', 'a3', 'a4'],
    );
  });

  it('T13 a line that was begun before and ends later', async () => {
    writeFileSync(file(), 'one\ntw');
    await around(['one'], () => appendFileSync(file(), 'o\nthree\n'), ['two', 'three']);
  });

  it('T16 CRLF, NUL, invalid UTF-8 and empty lines', async () => {
    const odd = ['nul\0nul', '\xff\xfe\xc3', '', 'a\rb', ''];
    const bytes = Buffer.from(odd.map(line => `${line}\n`).join(''), 'latin1');
    writeFileSync(file(), bytes);
    await around(odd, () => appendFileSync(file(), Buffer.concat([Buffer.from('crlf\r\n'), bytes])), ['crlf', ...odd]);
  });

  it('T12 a compressed rotation is not read', async () => {
    append(['1', '2']);
    await around(
      ['1', '2'],
      () => {
        for (const n of [1, 2]) writeFileSync(at(`app.log.${n}.gz`), gzipSync('1\n2\n'));
        append(['3']);
      },
      ['3'],
    );
  });

  it('a file that is deleted while it is open', async () => {
    append(['1', '2']);
    await around(
      ['1', '2'],
      () => {
        append(['3']);
        if (when === 'running') unlinkSync(file());
        append(['4'], at('app.log.new'));
      },
      ['3', '4'],
    );
  });

  it('a directory that appears later', async () => {
    append(['1']);
    const filegroups = { ...glob(), later: `${dir}/later/.*` };
    await around(
      ['1'],
      () => {
        mkdirSync(at('later'));
        append(['2'], at('later', 'a'));
      },
      ['2'],
      { filegroups, pollInterval: 5 },
    );
  });
});

describe('exact tailing', () => {
  it('T4 a reset is written before anything new is delivered', async () => {
    append(numbered('a', 10));
    let blocked = () => undefined as void;
    const reached = new Promise<void>(resolve => (blocked = resolve));
    let rewritten = false;
    const tail = new Tail({ filegroups: glob(), writePosInterval: 1 }, () => {
      if (!rewritten) return undefined;
      blocked();
      return new Promise(() => undefined);
    });
    await tail.until(10);
    await until(() => positions()[0]?.pos === statSync(file()).size);
    rewritten = true;
    writeFileSync(file(), textOf(numbered('b', 10)));
    await reached;
    expect(positions()).toMatchObject([{ pos: 0 }]);
    // A crash now.
    for (const name of ['', '.fingerprints']) copyFileSync(`${positionFile()}${name}`, at(`after.json${name}`));
    const again = new Tail({ filegroups: glob(), positionFile: at('after.json') });
    await again.until(10);
    expect(await again.stop()).toEqual(numbered('b', 10));
    tail.flow.abort();
    await tail.flow.done.catch(() => undefined);
  });

  it('T5 one reader, however often a file is written anew', async () => {
    const tail = new Tail({ filegroups: glob() });
    const all: string[] = [];
    for (let i = 0; i < 20; i++) {
      const lines = numbered(`g${i}`, 5 + ((i * 7) % 11), 30);
      writeFileSync(file(), textOf(lines));
      all.push(...lines);
      await tail.until(all.length);
    }
    await exactly(tail, all);
  });

  it('T6 lines that were written, and read, after the copy was made', async () => {
    append(['1', '2']);
    const tail = new Tail({ filegroups: glob() });
    await tail.until(2);
    copyFileSync(file(), at('app.log.1'));
    append(['3']);
    await tail.until(3);
    truncateSync(file());
    append(['4']);
    await exactly(tail, ['1', '2', '3', '4']);
  });

  it('T6 copytruncate while a sink is stuck: what is on its way is delivered from memory, the rest from the copy', async () => {
    const [before, after] = [numbered('a', 30_000, 100), numbered('b', 1000, 100)];
    append(before);
    let go = () => undefined as void;
    const held = new Promise<void>(resolve => (go = resolve));
    const tail = new Tail({ filegroups: glob(), batchSize: 1000, pollInterval: 5, writePosInterval: 5 }, () => held);
    await until(() => existsSync(positionFile()) && positions().length === 1);
    await until(() => counters(tail)['EventReceivedCount']! > 0);
    copyFileSync(file(), at('app.log.1'));
    writeFileSync(file(), textOf(after));
    await until(() => positions().length === 2);
    go();
    await exactly(tail, [...before, ...after]);
  });

  it('T6 stopped while the copy is looked for: the next start looks again', async () => {
    append(numbered('a', 5));
    const tail = new Tail({ filegroups: glob() });
    await tail.until(5);
    copyFileSync(file(), at('app.log.1'));
    writeFileSync(file(), textOf(numbered('b', 5)));
    const lines = await tail.stop();
    const again = new Tail({ filegroups: glob() });
    await exactly(
      again,
      [...numbered('a', 5), ...numbered('b', 5)].filter(line => !lines.includes(line)),
    );
  });

  it('T3 written anew just before the stop, with the same size, and not noticed', async () => {
    append(['a']);
    const tail = new Tail({ filegroups: glob() });
    await tail.until(1);
    writeFileSync(file(), 'b\n');
    const lines = await tail.stop();
    // As if the positions had been written long after that.
    for (const name of ['.fingerprints', '']) utimesSync(`${positionFile()}${name}`, Date.now() + 9, Date.now() + 9);
    await exactly(new Tail({ filegroups: glob() }), lines.length === 1 ? ['b'] : []);
  });

  it('what was truncated before it was read is counted, with its range', async () => {
    append(['1', '2']);
    appendFileSync(file(), 'half a line');
    const tail = new Tail({ filegroups: glob() });
    await tail.until(2);
    await until(() => existsSync(positionFile()));
    writeFileSync(file(), 'new\n');
    await exactly(tail, ['1', '2', 'new']);
    expect(tail.said(/app\.log was truncated, and its bytes from 4 to 15 were not read/)).toBe(1);
    expect(counters(tail)).toMatchObject({ LostByteCount: 11, RewrittenFileCount: 1 });
  });

  it('what was truncated while nobody looked is counted as far as it had been seen', async () => {
    append(['1', '2']);
    appendFileSync(file(), 'half a line');
    const tail = new Tail({ filegroups: glob() });
    await tail.until(2);
    await tail.stop();
    append([' and what nobody has seen']);
    writeFileSync(file(), 'new\n');
    const again = new Tail({ filegroups: glob() });
    await exactly(again, ['new']);
    expect(again.said(/app\.log was truncated, and its bytes from 4 to 15 were not read; how much .* not known/)).toBe(
      1,
    );
    expect(counters(again)).toMatchObject({ LostByteCount: 11 });
  });

  it('what was truncated while nobody looked, and had not been seen, is said to be unknown', async () => {
    append(['1', '2']);
    const tail = new Tail({ filegroups: glob() });
    await tail.until(2);
    await tail.stop();
    append(['what nobody has seen']);
    writeFileSync(file(), 'new\n');
    const again = new Tail({ filegroups: glob() });
    await exactly(again, ['new']);
    expect(
      again.said(/what .*app\.log had from byte 4 on when it was emptied was not read; how much is not known/),
    ).toBe(1);
    expect(counters(again)).toMatchObject({ LostByteCount: 0 });
  });

  it('T7 two hundred files with the same header, and nothing else', async () => {
    for (let i = 0; i < 200; i++) writeFileSync(at(`app.log.${i}`), 'a,b,c\n');
    const tail = new Tail({ filegroups: glob() });
    await tail.until(200);
    for (let i = 0; i < 200; i++) append([`row ${i}`], at(`app.log.${i}`));
    await exactly(tail, [...Array<string>(200).fill('a,b,c'), ...Array.from({ length: 200 }, (_, i) => `row ${i}`)]);
  });

  it('T8 a file of one byte and a newline', async () => {
    writeFileSync(file(), 'x\n');
    await exactly(new Tail({ filegroups: glob() }), ['x']);
  });

  it.each([
    ['a glob', () => glob()],
    ['one path', () => ({ f: `${dir}/app\\.log`, s: `${dir}/app\\.log\\.sentinel` })],
  ])('T10 fourteen rotations a second with late writes, %s', async (_, groups) => {
    const tail = new Tail({ filegroups: groups() });
    const all: string[] = [];
    const kept = 7;
    for (let rotation = 0; rotation < 30; rotation++) {
      const lines = numbered(`r${rotation}`, 500, 60);
      for (let i = 0; i < 500; i += 100) {
        append(lines.slice(i, i + 100));
        await sleep(14);
      }
      for (let n = kept; n > 0; n--) {
        if (existsSync(at(`app.log.${n}`))) renameSync(at(`app.log.${n}`), at(`app.log.${n + 1}`));
      }
      rmSync(at(`app.log.${kept + 1}`), { force: true });
      // What was never seen under its name, and is not wanted under another, cannot be known.
      await tail.until(all.length + 1);
      renameSync(file(), at('app.log.1'));
      const late = numbered(`late${rotation}`, 5);
      append(late, at('app.log.1'));
      all.push(...lines, ...late);
    }
    await exactly(tail, all, { filegroups: groups() });
    expect(counters(tail)).toMatchObject({ LostByteCount: 0 });
  });

  it('T10 thirty copytruncates', async () => {
    const tail = new Tail({ filegroups: glob() });
    const all: string[] = [];
    for (let rotation = 0; rotation < 30; rotation++) {
      const lines = numbered(`r${rotation}`, 200, 60);
      append(lines.slice(0, 100));
      await sleep(20);
      append(lines.slice(100));
      for (let n = rotation; n > 0; n--) renameSync(at(`app.log.${n}`), at(`app.log.${n + 1}`));
      copyFileSync(file(), at('app.log.1'));
      truncateSync(file());
      all.push(...lines);
    }
    await exactly(tail, all);
    expect(counters(tail)).toMatchObject({ LostByteCount: 0 });
  });

  it('T12 that compressed files are not read is said once', async () => {
    for (const n of [1, 2]) writeFileSync(at(`app.log.${n}.gz`), gzipSync('1\n2\n'));
    const tail = new Tail({ filegroups: glob() });
    await until(() => counters(tail)['CompressedFileCount'] === 2);
    expect(tail.said(/app\.log\.\d\.gz is compressed \(gzip\)/)).toBe(1);
    rmSync(at('app.log.1.gz'));
    await exactly(tail, []);
  });

  it('T17 deleted files are let go of when they were read, and counted until then', async () => {
    append(['1']);
    let go = () => undefined as void;
    const held = new Promise<void>(resolve => (go = resolve));
    const tail = new Tail({ filegroups: glob(), pollInterval: 5 }, () => held);
    await until(() => existsSync(positionFile()) && counters(tail)['EventReceivedCount']! > 0);
    unlinkSync(file());
    await until(() => counters(tail)['DeletedFileCount'] === 1);
    go();
    await tail.until(1);
    expect(await tail.stop()).toEqual(['1']);
    expect(counters(tail)).toMatchObject({ OpenFileCount: 0 });
  });

  it('T17 T24 positions that cannot be written are counted and reported once, until they can', async () => {
    append(['1']);
    let full = false;
    const disk: Disk = {
      ...systemDisk,
      open: async (path, mode) => {
        if (full && mode === 'write') throw new MillraceError('MR_IO', `${path}: the disk is full.`);
        return systemDisk.open(path, mode);
      },
    };
    const tail = new Tail({ filegroups: glob(), writePosInterval: 1 }, undefined, undefined, disk);
    await tail.until(1);
    full = true;
    append(['2']);
    await until(() => counters(tail)['PositionWriteFail']! >= 3);
    expect(tail.said(/positions cannot be written: .*the disk is full/)).toBe(1);
    expect(counters(tail)).toMatchObject({ Unhealthy: 1 });
    expect([...tail.flow.metrics.troubles.keys()]).toEqual(['taildir']);
    full = false;
    await until(() => tail.said(/positions can be written again/) === 1);
    expect(counters(tail)).toMatchObject({ Unhealthy: 0 });
    expect(tail.flow.metrics.troubles.size).toBe(0);
    append(['3']);
    await exactly(tail, ['1', '2', '3']);
  });

  describe('T18 a hole that a network file system shows before its data have come', () => {
    /** Writes over what is there. */
    const fill = (text: string, offset: number) => {
      const handle = openSync(file(), 'r+');
      writeSync(handle, text, offset);
      closeSync(handle);
    };

    it('is not taken but waited for, with nulTimeout, also over a stop', async () => {
      writeFileSync(file(), 'one\ntwo \0\0\0\0\0\nthree\nfo');
      const options = { filegroups: glob(), nulTimeout: 60_000, pollInterval: 5 };
      const tail = new Tail(options);
      await tail.until(1);
      append(['ur']);
      await until(() => counters(tail)['NulFileCount'] === 1);
      expect(await tail.stop()).toEqual(['one']);
      expect(positions()).toMatchObject([{ pos: 4 }]);
      const again = new Tail(options);
      await until(() => counters(again)['NulFileCount'] === 1);
      fill('12\n45', 8);
      await exactly(again, ['two 12', '45', 'three', 'four'], options);
    });

    it.each([
      ['one line at a time', { batchSize: 1, maxBatchCount: 1 }],
      ['many', {}],
    ])('is taken as it is when it stays, %s', async (_, more) => {
      const lines = ['a', 'b\0', '', '\0', 'c\0\0d', 'e'.repeat(600_000), '\0'.repeat(600_000), 'f'];
      append(lines);
      const options = { filegroups: glob(), nulTimeout: 20, pollInterval: 5, ...more };
      await exactly(new Tail(options), lines, options);
    });

    it('keeps a file that was deleted open until then', async () => {
      const clock = new FakeClock();
      append(['1', '2\0', '3']);
      const tail = new Tail({ filegroups: glob(), nulTimeout: 20_000 }, undefined, clock);
      while (tail.events.length < 1) await clock.advance(0);
      unlinkSync(file());
      while (tail.events.length < 3) await clock.advance(1000);
      expect(tail.lines).toEqual(['1', '2\0', '3']);
      expect(clock.now()).toBeGreaterThanOrEqual(20_000);
      expect(counters(tail)).toMatchObject({ LostByteCount: 0 });
      const stopped = tail.stop().then(() => true);
      while (!(await Promise.race([stopped, clock.advance(0)])));
    });
  });

  it('T20 a name that is not UTF-8 is reported once, and keeps nobody else waiting', async () => {
    writeFileSync(Buffer.concat([Buffer.from(`${dir}/app.log.`), Buffer.from([0xff, 0xfe])]), 'no\n');
    append(['1']);
    const tail = new Tail({ filegroups: glob(), pollInterval: 5 });
    await tail.until(1);
    append(['2']);
    await tail.until(2);
    expect(await tail.stop()).toEqual(['1', '2']);
    expect(tail.said(/app\.log\.\ufffd.* is not UTF-8/)).toBe(1);
    rmSync(dir, { recursive: true });
  });

  it('T22 files that are renamed away keep their descriptors', async () => {
    append(['0']);
    const only = {
      filegroups: { f: `${dir}/app\\.log(\\.x\\d+)?`, s: `${dir}/app\\.log\\.sentinel` },
      maxOpenFiles: 2,
    };
    const tail = new Tail(only);
    await tail.until(1);
    linkSync(file(), at('kept'));
    renameSync(file(), at('gone'));
    mkdirSync(at('far'));
    renameSync(at('gone'), at('far', 'away'));
    const all = ['0'];
    for (let i = 0; i < 20; i++) {
      append([`x${i}`], at(`app.log.x${i}`));
      all.push(`x${i}`);
      await tail.until(all.length);
    }
    append(['late'], at('far', 'away'));
    await exactly(tail, [...all, 'late'], only);
  });

  it.each([
    ['zero bytes', () => Buffer.alloc(0)],
    ['zeros', () => Buffer.alloc(100)],
    ['half of it', () => readFileSync(positionFile()).subarray(0, 20)],
    ['anything', () => Buffer.from('\xff\xfe{"inode":', 'latin1')],
  ])('T23 a position file with %s: what stands beside it is used', async (_, content) => {
    append(['1', '2']);
    const tail = new Tail({ filegroups: glob() });
    await tail.until(2);
    await tail.stop();
    writeFileSync(positionFile(), content());
    append(['3']);
    const again = new Tail({ filegroups: glob() });
    await exactly(again, ['3']);
    expect(
      again.log.entries.filter(({ fields }) => (fields as { code?: string } | undefined)?.code === 'MR_CORRUPT_FILE'),
    ).not.toEqual([]);
  });

  it('T23 damaged fingerprints are set aside, and the positions count', async () => {
    append(['1', '2']);
    const tail = new Tail({ filegroups: glob() });
    await tail.until(2);
    await tail.stop();
    writeFileSync(`${positionFile()}.fingerprints`, Buffer.alloc(50));
    append(['3']);
    await exactly(new Tail({ filegroups: glob() }), ['3']);
    expect(readdirSync(at('positions')).filter(name => name.includes('fingerprints.corrupt'))).toHaveLength(1);
  });

  it('a position file that is deleted means: from the start', async () => {
    append(['1']);
    const tail = new Tail({ filegroups: glob() });
    await tail.until(1);
    await tail.stop();
    unlinkSync(positionFile());
    expect(await new Tail({ filegroups: glob() }).until(1)).toEqual(['1']);
  });

  it('a directory that is a link, and leads elsewhere', async () => {
    for (const name of ['one', 'two']) mkdirSync(at(name));
    symlinkSync(at('one'), at('current'));
    append(['1'], at('one', 'app.log'));
    const options = { filegroups: { current: `${dir}/current/app.*`, ...glob() }, pollInterval: 5 };
    const tail = new Tail(options);
    await tail.until(1);
    append(['2'], at('one', 'app.log'));
    append(['3'], at('two', 'app.log'));
    symlinkSync(at('two'), at('next'));
    renameSync(at('next'), at('current'));
    await tail.until(3);
    expect((await tail.stop()).sort()).toEqual(['1', '2', '3']);
    expect(realpathSync(at('current'))).toBe(realpathSync(at('two')));
  });
});
