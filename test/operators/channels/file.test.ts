import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import zlib from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest';
import type { Channel } from '../../../src/core/channel.ts';
import type { Delivery } from '../../../src/core/delivery.ts';
import { inScope, Scope } from '../../../src/core/scope.ts';
import { createSource } from '../../../src/core/source.ts';
import { createSink, event, fileChannel, headers, run, seqSource, type FlumeEvent } from '../../../src/index.ts';
import type { FileChannelOptions } from '../../../src/operators/channels/file.ts';
import { FakeClock, recordingLog, scriptedSource, seededRandom } from '../../../src/testing/index.ts';
import { CrashDisk } from '../../crash/crash-disk.ts';

// The laws are in test/laws/channels.test.ts, crashes in test/crash.

let dir: string;
beforeEach(() => (dir = fs.mkdtempSync(join(tmpdir(), 'millrace-file-'))));
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const own = (options: FileChannelOptions = {}): FileChannelOptions => ({ dir, minimumRequiredSpace: 0, ...options });

/** Puts numbered events and stops, with the sink taking none of them. */
const fill = async (totalEvents: number, options: FileChannelOptions = {}) => {
  const channel = fileChannel.create(own(options));
  // A few at a time, so that there are several groups.
  const source = seqSource({ totalEvents, batchSize: 50, maxInFlight: { deliveries: 16 } });
  const input = channel.input();
  source.subscribe(input);
  await input.done;
  await channel.close();
};

/** Opens it again and takes everything there is; ends when nothing is held. */
const drain = async (options: FileChannelOptions = {}, log = recordingLog()) => {
  const got: FlumeEvent[] = [];
  const scope = new Scope({ log });
  const channel = inScope(scope, () => fileChannel.create(own(options)));
  channel.output().subscribe(createSink(events => void got.push(...events)));
  channel.end();
  await channel.closed;
  return { got, texts: got.map(({ body }) => body.toString()), log, scope };
};

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => String(from + i));

/** A channel with a hand on either side, on a disk in memory. */
const world = async (options: FileChannelOptions = {}, disk = new CrashDisk(seededRandom(1))) => {
  const clock = new FakeClock();
  const log = recordingLog();
  const scope = new Scope({ clock, log, disk, random: seededRandom(1) });
  const channel: Channel = inScope(scope, () => fileChannel.create({ dir: '/c', minimumRequiredSpace: 0, ...options }));
  let emit!: (events: readonly FlumeEvent[]) => void;
  const answers: string[] = [];
  const source = createSource(
    emitter => {
      emit = events => emitter.emit(events);
      return {
        settled: (_, what, cause) => void answers.push(what === 'acked' ? what : (cause as Error).message),
      };
    },
    { onFailure: 'report', maxInFlight: { deliveries: 100 } },
  );
  inScope(scope, () => source.subscribe(channel.input()));
  await clock.flush();
  const put = async (...texts: string[]) => {
    const before = answers.length;
    emit(texts.map(text => event(text)));
    await clock.flush();
    return answers.slice(before).join();
  };
  const taken: Delivery[] = [];
  const take = async (batchSize: number) => {
    inScope(scope, () => channel.output({ batchSize }).subscribe(delivery => void taken.push(delivery)));
    await clock.flush();
    return taken;
  };
  return { clock, channel, put, take, disk, log, scope, answers };
};

describe('what was confirmed', () => {
  it('is there when the channel is opened again, in order, with its headers', async () => {
    const channel = fileChannel.create(own());
    const source = createSource(emitter => {
      emitter.emit([event('a', headers({ k: 'v', ü: '\ud800' })), event(Buffer.from([0, 255, 10])), event('')]);
      emitter.emit([event('b')]);
      emitter.complete();
      return {};
    });
    const input = channel.input();
    source.subscribe(input);
    await input.done;
    await channel.close();
    const { got, scope } = await drain();
    expect(got.map(({ body }) => body)).toEqual([
      Buffer.from('a'),
      Buffer.from([0, 255, 10]),
      Buffer.from(''),
      Buffer.from('b'),
    ]);
    expect(got[0]!.headers).toEqual({ k: 'v', ü: '\ud800' });
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 0, delivered: 4, held: 0, kept: -4 });
    expect(scope.ledger.difference).toBe(0);
    expect((await drain()).got).toEqual([]);
  });

  it.each<FileChannelOptions>([
    { maxFileSize: 4096 },
    { maxFileSize: 4096, cacheBytes: 1 },
    { fsync: 'never', compression: 'gzip' },
    { fsync: { interval: 5 }, cacheBytes: 1, compression: 'gzip' },
    // test/integration/newer-node.test.ts runs this with a Node.js that has it.
    ...('zstdCompress' in zlib ? [{ maxFileSize: 4096, cacheBytes: 1, compression: 'zstd' as const }] : []),
    { fsyncPerTransaction: false, fsyncInterval: 1 },
  ])('is there with %j', async options => {
    await fill(1000, options);
    await fill(500, options);
    const { texts } = await drain(options);
    expect(texts).toEqual([...numbers(1000), ...numbers(500)]);
  });

  it('is spread over several directories', async () => {
    const dirs = { dataDirs: [join(dir, 'a'), join(dir, 'b')], checkpointDir: join(dir, 'c'), dir: undefined } as never;
    await fill(6000, { ...(dirs as object), maxFileSize: 4096 });
    expect(fs.readdirSync(join(dir, 'a')).length).toBeGreaterThan(1);
    expect(fs.readdirSync(join(dir, 'b')).length).toBeGreaterThan(1);
    expect((await drain(dirs)).texts).toEqual(numbers(6000));
  });

  it('leaves no files behind when it is consumed, but what is needed to go on', async () => {
    await fill(5000, { maxFileSize: 4096 });
    expect(fs.readdirSync(dir).filter(name => name.endsWith('.seg')).length).toBeGreaterThan(5);
    await drain({ maxFileSize: 4096 });
    const names = fs.readdirSync(dir);
    expect(names.filter(name => name.endsWith('.seg'))).toEqual([]);
    expect(names.filter(name => name.endsWith('.spare')).length).toBeLessThanOrEqual(2);
    // Numbers go on where they were.
    await fill(1);
    expect(fs.readdirSync(dir)).toContain('00000000000000005000.seg');
  });
});

// What a sink writes at once may be several puts, and what fails of it may be of more than one of them.
it('a part that fails of several puts at once is all held, also over a crash', async () => {
  const { put, take, channel, clock, disk } = await world();
  for (const text of ['a', 'b', 'c', 'd']) await put(text);
  const texts = (delivery: Delivery) => delivery.events.map(({ body }) => body.toString());
  const [all] = (await take(10)) as [Delivery];
  expect(texts(all)).toEqual(['a', 'b', 'c', 'd']);
  all.nack(new Error('not these'), all.events.slice(1, 3));
  await clock.flush();
  expect(channel.depth.events).toBe(2);
  const again = await world({}, disk.kill(seededRandom(1)));
  expect((await again.take(10)).flatMap(texts)).toEqual(['b', 'c']);
  expect(again.channel.depth.events).toBe(2);
});

describe('refuses', () => {
  const error = async (options: FileChannelOptions = {}): Promise<Error> => {
    const flow = run(
      seqSource({ totalEvents: 1 }),
      fileChannel(own(options)),
      createSink(() => undefined),
    );
    return flow.done.then(
      () => new Error('it opened'),
      (cause: unknown) => cause as Error,
    );
  };

  test("directories of Flume's own file channel, and leaves them as they are", async () => {
    for (const name of ['log-1', 'log-1.meta', 'in_use.lock', 'checkpoint']) {
      fs.writeFileSync(join(dir, name), 'theirs');
      expect(await error()).toMatchObject({
        code: 'MR_FOREIGN_FILES',
        message: expect.stringContaining(name) as string,
      });
      expect(fs.readdirSync(dir)).toEqual([name]);
      fs.rmSync(join(dir, name));
    }
  });

  test('B19 a second channel in the same directory, also in another process', async () => {
    const channel = fileChannel.create(own());
    channel.input();
    await new Promise(setImmediate);
    while (!fs.existsSync(join(dir, 'LOCK'))) await new Promise(setImmediate);
    expect(await error()).toMatchObject({
      code: 'MR_LOCKED',
      message: expect.stringContaining(`process ${process.pid}`) as string,
    });
    const other = spawnSync(
      process.execPath,
      [
        '--import',
        'tsx',
        '-e',
        `import('./src/core/lock.ts').then(m => m.lockDirectory(${JSON.stringify(dir)})).then(() => console.log('open'), e => console.log(e.code))`,
      ],
      { encoding: 'utf8' },
    );
    expect(other.stdout).toContain('MR_LOCKED');
    await channel.close();
    expect(await error()).toMatchObject({ message: 'it opened' });
  });

  test('two logs in one directory', async () => {
    await fill(10);
    const other = fs.mkdtempSync(join(tmpdir(), 'millrace-file-'));
    await fill(20, { dir: other });
    await fill(20, { dir: other });
    fs.copyFileSync(join(other, '00000000000000000020.seg'), join(dir, '00000000000000000020.seg'));
    fs.rmSync(other, { recursive: true });
    expect(await error()).toMatchObject({ code: 'MR_FOREIGN_FILES' });
  });

  test('to be opened without one of its directories while it holds events', async () => {
    const [a, b] = [join(dir, 'a'), join(dir, 'b')];
    const two = { dir: undefined, dataDirs: [a, b], checkpointDir: a } as unknown as FileChannelOptions;
    await fill(6000, { ...two, maxFileSize: 4096 });
    const one = { dir: undefined, dataDirs: [a], checkpointDir: a } as unknown as FileChannelOptions;
    expect(await error(one)).toMatchObject({
      code: 'MR_CONFIG',
      message: expect.stringContaining(`It was ${b} when`) as string,
    });
    expect((await drain(two)).texts).toEqual(numbers(6000));
    expect(await error(one)).toMatchObject({ message: 'it opened' });
  });

  test('a transaction larger than the channel, if somebody asks for one; the default adapts', async () => {
    const small = { capacity: 50 };
    expect(() => fileChannel.create(own({ ...small, transactionCapacity: 51 }))).toThrow(
      'file: transactionCapacity 51 must not exceed capacity 50.',
    );
    expect(fs.readdirSync(dir)).toEqual([]);
    const dirs = { dir: undefined, dataDirs: [join(dir, 'a')], checkpointDir: dir } as unknown as FileChannelOptions;
    expect(await error({ ...dirs, ...small })).toMatchObject({ message: 'it opened' });
    expect(await error({ ...dirs, ...small, transactionCapacity: 51 })).toMatchObject({ code: 'MR_CONFIG' });
  });

  test('a newer format', async () => {
    await fill(10);
    const path = join(dir, '00000000000000000000.seg');
    const bytes = fs.readFileSync(path);
    bytes.writeUInt16LE(3, 8);
    bytes.writeUInt32LE(0, 12);
    bytes.writeUInt32LE((await import('node:zlib')).crc32(bytes.subarray(0, 128)), 12);
    fs.writeFileSync(path, bytes);
    expect(await error()).toMatchObject({ code: 'MR_NEWER_FORMAT', message: expect.stringContaining(path) as string });
    expect(fs.readFileSync(path)).toEqual(bytes);
  });

  test('keys that are missing or wrong, without telling them', async () => {
    process.env['MR_TEST_A'] = 'ab'.repeat(32);
    process.env['MR_TEST_B'] = 'cd'.repeat(32);
    const keys = (a: string, active = 'a') => ({
      encryptionActiveKey: active,
      encryptionKeys: { [active]: `env:${a}` },
    });
    await fill(10, keys('MR_TEST_A'));
    expect(await error()).toMatchObject({
      code: 'MR_WRONG_KEY',
      message: expect.stringContaining('encryption.keys.a') as string,
    });
    expect(await error(keys('MR_TEST_B'))).toMatchObject({ code: 'MR_WRONG_KEY' });
    process.env['MR_TEST_C'] = 'a secret that is too long to be a key';
    expect(() => fileChannel.create(own(keys('MR_TEST_C')))).toThrow(/encryption\.keys\.a: found 37 bytes/);
    expect(() => fileChannel.create(own(keys('MR_TEST_C')))).not.toThrow(/secret/);
    expect(() => fileChannel.create(own(keys('MR_TEST_NONE')))).toThrow(/no environment variable MR_TEST_NONE/);
    expect(() => fileChannel.create(own({ encryptionActiveKey: 'x' }))).toThrow(/there is no key x/);
    // With both keys: the old files with the old one, new ones with the new one.
    fs.writeFileSync(join(dir, 'key'), 'cd'.repeat(32));
    const rotated = { encryptionActiveKey: 'b', encryptionKeys: { a: 'env:MR_TEST_A', b: `file:${join(dir, 'key')}` } };
    await fill(10, rotated);
    expect(
      fs.readFileSync(join(dir, '00000000000000000000.seg')).includes(Buffer.from('\u0001\u0000\u0000\u00003')),
    ).toBe(false);
    expect((await drain(rotated)).texts).toEqual([...numbers(10), ...numbers(10)]);
  });
});

describe('B17 a disk that fails', () => {
  it('refuses what it has no room for, holds what it has, and goes on by itself', async () => {
    const { put, disk, take, channel, clock, scope } = await world();
    expect(await put('a', 'b')).toBe('acked');
    disk.fault = ({ name }) => (name === 'write' ? 'ENOSPC' : undefined);
    expect(await put('c')).toMatch(/ENOSPC.*disk is full/);
    expect(await put('d')).toMatch(/ENOSPC/);
    expect(channel.counters).toMatchObject({ EventPutErrorCount: 2, Unhealthy: 1 });
    expect(Array.from(scope.metrics.troubles, ([name, { message }]) => `${name}: ${message}`)).toEqual([
      expect.stringMatching(/^file: .*ENOSPC/),
    ]);
    disk.fault = undefined;
    expect(await put('e')).toBe('acked');
    expect(channel.counters).toMatchObject({ Unhealthy: 0 });
    expect(scope.metrics.troubles.size).toBe(0);
    const taken = await take(10);
    for (let i = 0; i < 2; i++) taken[i]?.ack();
    await clock.flush();
    expect(taken.flatMap(({ events }) => events.map(({ body }) => body.toString()))).toEqual(['a', 'b', 'e']);
  });

  it('never trusts a sync that comes after one that failed', async () => {
    const { put, disk, channel } = await world();
    await put('a');
    let syncs = 0;
    disk.fault = ({ name, path }) =>
      name === 'sync' && !path.endsWith('checkpoint') && syncs++ === 0 ? 'EIO' : undefined;
    expect(await put('b')).toMatch(/EIO/);
    expect(await put('c')).toBe('acked');
    // A new file, and what was written to the old one is cut off.
    expect([...disk.files.keys()].filter(path => path.endsWith('.seg'))).toEqual([
      '/c/00000000000000000000.seg',
      '/c/00000000000000000001.seg',
    ]);
    expect(channel.depth.events).toBe(2);
  });

  it.each([
    ['the interval', { fsync: { interval: 50 } }],
    ['a full file, with an interval', { fsync: { interval: 50 }, maxFileSize: 4096 }],
    ['a full file, with commits', { fsync: 'commit', maxFileSize: 4096 }],
    ['the end of what is torn', { fsync: { interval: 50 } }],
  ] as const)('gives a file up when its sync has failed: %s', async (when, options) => {
    const { put, disk, clock, channel, log } = await world(options);
    const segments = () => [...disk.files.keys()].filter(path => path.endsWith('.seg')).length;
    expect(await put('x'.repeat(when.startsWith('a full') ? 5000 : 1))).toBe('acked');
    let failed = 0;
    if (when.startsWith('the end')) {
      disk.fault = ({ name }) => (name === 'write' ? 'EIO' : undefined);
      expect(await put('not in')).toMatch(/EIO/);
    }
    disk.fault = ({ name, path }) =>
      name === 'sync' && !path.endsWith('checkpoint') && failed++ === 0 ? 'EIO' : undefined;
    // It fails in the background, or where the next put looks for room: that one is told.
    if (when === 'the interval') await clock.advance(50);
    else expect(await put('early')).toMatch(/EIO/);
    expect(failed).toBe(1);
    // The header of a new file, and with commits what is in it: nothing of the old one.
    expect(await put('late')).toBe('acked');
    expect(failed).toBe(options.fsync === 'commit' ? 3 : 2);
    expect(segments()).toBe(2);
    const doubt = log.entries.filter(({ message }) => /was confirmed .* a power cut may take it/.test(message));
    expect(doubt).toHaveLength(options.fsync === 'commit' ? 0 : 1);
    disk.fault = undefined;
    expect(channel.depth.events).toBe(2);
    await channel.close();
  });

  it('keeps minimumRequiredSpace free', async () => {
    const { put, disk } = await world({ minimumRequiredSpace: 1000 });
    disk.freeBytes = 999;
    expect(await put('a')).toMatch(
      /Usable space exhausted: 999 bytes are free in \/c, and minimumRequiredSpace is 1000/,
    );
    disk.freeBytes = 1000;
    expect(await put('a')).toBe('acked');
  });

  it('reads again what could not be read for a moment', async () => {
    const { put, disk, take, clock, channel } = await world({ cacheBytes: 1 });
    await put('a');
    await put('b');
    disk.fault = ({ name }) => (name === 'read' ? 'EIO' : undefined);
    await put('c');
    const taken = await take(1);
    for (let i = 0; i < 3; i++) taken[i]?.ack();
    await clock.flush();
    disk.fault = undefined;
    await clock.advance(5000);
    for (const delivery of taken) delivery.ack();
    await clock.advance(5000);
    for (const delivery of taken) delivery.ack();
    await clock.flush();
    expect(taken.flatMap(({ events }) => events.map(({ body }) => body.toString()))).toEqual(['a', 'b', 'c']);
    expect(channel.counters).toMatchObject({ LostEventCount: 0 });
  });
});

describe('a disk that fails in the middle of a read', () => {
  it('loses nothing of what was read before', async () => {
    const disk = new CrashDisk(seededRandom(1));
    const options = { maxFileSize: 4096, cacheBytes: 1 };
    const first = await world(options, disk);
    const large = (text: string) => text.padEnd(5000, '.');
    for (const text of ['a', 'b', 'c']) expect(await first.put(large(text))).toBe('acked');
    await first.channel.close();
    // The first read is of the header, when it is opened.
    let reads = 0;
    disk.fault = ({ name, path }) =>
      name === 'read' && path.endsWith('1.seg') && [2, 3, 4].includes(++reads) ? 'EIO' : undefined;
    const { take, clock, channel } = await world(options, disk);
    const taken = await take(10);
    for (let i = 0; i < 5; i++) {
      for (const delivery of taken) delivery.ack();
      await clock.advance(2000);
    }
    expect(reads).toBeGreaterThan(4);
    expect(taken.flatMap(({ events }) => events.map(({ body }) => body.toString()))).toEqual(
      ['a', 'b', 'c'].map(large),
    );
    expect(channel.counters).toMatchObject({ LostEventCount: 0 });
  });
});

describe('damage', () => {
  it('of one bit costs the events of one put, says which, keeps the file, and goes on', async () => {
    await fill(200, { maxFileSize: 4096 });
    const path = join(dir, '00000000000000000000.seg');
    const bytes = fs.readFileSync(path);
    const at = bytes.indexOf(Buffer.from('\u0002\u0000\u0000\u000060'));
    bytes[at]! ^= 4;
    fs.writeFileSync(path, bytes);
    const { texts, log } = await drain();
    expect(texts).toEqual([...numbers(50), ...numbers(100, 100)]);
    expect(log.entries.map(({ message }) => message).join('\n')).toMatch(
      /file: 50 events, numbers 50 to 99, are missing: .*0\.seg can not be read from byte \d+ to \d+\./,
    );
    expect(fs.readdirSync(dir)).toContain('00000000000000000000.seg.damaged');
  });

  it('of a whole file costs what was in it', async () => {
    for (let i = 0; i < 3; i++) await fill(10);
    fs.rmSync(join(dir, '00000000000000000010.seg'));
    const { texts, log, scope } = await drain();
    expect(texts).toEqual([...numbers(10), ...numbers(10)]);
    expect(log.entries.map(({ message }) => message).join('\n')).toMatch(/10 events, numbers 10 to 19, are missing/);
    expect(scope.metrics.snapshot()['CHANNEL.file']).toMatchObject({ LostEventCount: 10 });
  });

  it.each([
    ['is to be read', 1],
    ['is being read', 0],
    ['is written to', -1],
  ])('of a file that goes while it %s is reported, and the rest is delivered', async (_, at) => {
    const options = { maxFileSize: 4096, cacheBytes: 1 };
    const names = () => fs.readdirSync(dir).filter(name => name.endsWith('.seg'));
    const texts: string[] = [];
    const log = recordingLog();
    const open = () => inScope(new Scope({ log }), () => fileChannel.create(own(options)));
    const put = async (channel: Channel, count: number, from: number) => {
      const input = channel.input();
      let n = from;
      createSource(
        emitter => {
          for (; n < from + count; n++) emitter.emit([event(String(n).padEnd(400, '.'))]);
          emitter.complete();
          return {};
        },
        { maxInFlight: { deliveries: 1000 } },
      ).subscribe(input);
      await input.done;
    };
    const channel = open();
    for (let from = 0; from < 55; from += 5) await put(channel, 5, from);
    expect(names().length).toBeGreaterThan(3);
    const gone = names().at(at)!;
    fs.rmSync(join(dir, gone));
    await put(channel, 1, 55);
    await channel.close();
    const first = Number(gone.slice(0, 20));
    const end = Number(
      names()
        .find(name => name > gone)
        ?.slice(0, 20) ?? 56,
    );
    expect(end === 56).toBe(at < 0);
    const again = open();
    again.output().subscribe(createSink(events => void texts.push(...events.map(({ body }) => body.toString()))));
    await put(again, 5, 56);
    await again.closed;
    const left = numbers(61).filter(text => Number(text) < first || Number(text) >= end);
    expect(texts.map(text => text.replaceAll('.', ''))).toEqual(left);
    expect(log.entries.map(({ message }) => message).join('\n')).toContain(
      `${end - first} events, numbers ${first} to ${end - 1}, are missing`,
    );
    expect(again.counters).toMatchObject({ LostEventCount: end - first });
  });

  it('of both slots of the checkpoint costs nothing: everything comes again', async () => {
    await fill(10);
    const path = join(dir, 'acked.checkpoint');
    const bytes = fs.readFileSync(path);
    bytes[30]! ^= 1;
    bytes[4096 + 30]! ^= 1;
    fs.writeFileSync(path, bytes);
    const { texts, log } = await drain();
    expect(texts).toEqual(numbers(10));
    expect(log.entries.map(({ message }) => message).join('\n')).toMatch(/slots are damaged/);
  });
});

describe('stopping', () => {
  const backlog = async (sink: (texts: string[]) => void | Promise<void>) => {
    await fill(500);
    const clock = new FakeClock();
    const flow = inScope(new Scope({ clock, log: recordingLog(), random: seededRandom(1) }), () =>
      run(
        scriptedSource(['idle']),
        fileChannel(own({ batchSize: 10, maxInFlight: { deliveries: 2 } } as never)),
        createSink(events => sink(events.map(({ body }) => body.toString()))),
      ),
    );
    return { flow, clock };
  };
  /** Files are real, time is not. */
  const until = async (clock: FakeClock, condition: () => boolean) => {
    while (!condition()) {
      await new Promise(setImmediate);
      await clock.flush();
    }
  };

  it('does not wait for what it holds: what is out is settled, the rest stays', async () => {
    const got: string[] = [];
    let release!: () => void;
    const { flow, clock } = await backlog(async texts => {
      if (got.length === 0) await new Promise<void>(resolve => (release = resolve));
      got.push(...texts);
    });
    await until(clock, () => (release as unknown) !== undefined);
    let over = false;
    void flow.stop().then(() => (over = true));
    await until(clock, () => true);
    release();
    await until(clock, () => over);
    expect(got.length).toBeLessThan(100);
    expect(flow.ledger.difference).toBe(0);
    const { texts } = await drain();
    expect([...got, ...texts]).toEqual(numbers(500));
  });

  it('waits two seconds for a sink that does not answer, and delivers that again next time', async () => {
    const got: string[] = [];
    const { flow, clock } = await backlog(texts => {
      got.push(...texts);
      throw new Error('never');
    });
    await until(clock, () => got.length > 0);
    let over = false;
    void flow.stop().then(() => (over = true));
    for (let i = 0; i < 5; i++) await until(clock, () => true);
    expect(over).toBe(false);
    await clock.advance(2000);
    await until(clock, () => over);
    expect((await drain()).texts).toEqual(numbers(500));
  });

  it('drains when its input has ended by itself', async () => {
    const got: string[] = [];
    const flow = run(
      seqSource({ totalEvents: 500, batchSize: 10 }),
      fileChannel(own()),
      createSink(events => void got.push(...events.map(({ body }) => body.toString()))),
    );
    await flow.done;
    expect(got).toEqual(numbers(500));
  });
});

describe('in an agent', () => {
  it('is opened again when it could not be opened', async () => {
    fs.writeFileSync(join(dir, 'log-1'), 'theirs');
    const clock = new FakeClock();
    const log = recordingLog();
    const got: string[] = [];
    const channel = inScope(new Scope({ clock, log, random: () => 0.5 }), () =>
      fileChannel.create(own(), { name: 'c1' }, { reopen: { initial: 1000, max: 30_000 } }),
    );
    channel.output().subscribe(createSink(events => void got.push(...events.map(({ body }) => body.toString()))));
    const input = channel.input();
    while (channel.trouble === undefined) await new Promise(setImmediate);
    expect(log.entries.at(-1)!.message).toMatch(/c1 can not be opened: .*log-1.*It is tried again in \d\.\d s\./);
    fs.rmSync(join(dir, 'log-1'));
    await clock.advance(1000);
    while ((channel.trouble as unknown) !== undefined) await new Promise(setImmediate);
    seqSource({ totalEvents: 3 }).subscribe(input);
    await input.done;
    await channel.closed;
    expect(got).toEqual(numbers(3));
  });

  it('closes while it waits to be opened again', async () => {
    fs.writeFileSync(join(dir, 'log-1'), 'theirs');
    const channel = inScope(new Scope({ log: recordingLog() }), () =>
      fileChannel.create(own(), {}, { reopen: { initial: 1000, max: 30_000 } }),
    );
    const sink = createSink(() => undefined);
    channel.output().subscribe(sink);
    while (channel.trouble === undefined) await new Promise(setImmediate);
    channel.end();
    await channel.closed;
    await sink.done;
  });
});

describe('in code', () => {
  it('needs to be told where', () => {
    expect(() => fileChannel.create({})).toThrow(/it needs dir, or checkpointDir and dataDirs/);
  });

  it('lets several puts become safe with one sync', async () => {
    const { put, channel } = await world();
    await put('first');
    const { SyncCount } = channel.counters as unknown as Record<string, number>;
    await Promise.all(numbers(20).map(text => put(text)));
    const after = (channel.counters as unknown as Record<string, number>)['SyncCount']!;
    expect(after - SyncCount!).toBeLessThan(5);
    expect(channel.depth.events).toBe(21);
  });
});
