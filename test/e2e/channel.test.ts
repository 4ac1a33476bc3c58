import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { systemDisk } from '../../src/core/disk.ts';
import { built } from '../built.ts';
import { bodyOf, codecWith, writeLog } from '../log/written-log.ts';

const root = resolve(import.meta.dirname, '../..');
beforeAll(built);
const folder = mkdtempSync(join(tmpdir(), 'channel-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

const start = (words: readonly string[]) => {
  const child = spawn(process.execPath, [join(root, 'dist/cli.js'), ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const printed = { out: '', err: '' };
  child.stdout.on('data', (chunk: Buffer) => (printed.out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (printed.err += chunk.toString()));
  const exit = once(child, 'close').then(([code]) => ({ code: code as number | null, ...printed }));
  return { child, printed, exit };
};

const channel = async (...words: readonly string[]) => {
  const result = await start(['channel', ...words]).exit;
  expect(result.err).not.toMatch(/\n\s+at /);
  return result;
};

let made = 0;
/** A directory with 400 events of which 30 are done with, and its segments. */
const written = async (more: Parameters<typeof writeLog>[1] = {}) => {
  const dir = join(folder, `channel-${made++}`);
  await writeLog(systemDisk, { dataDirs: [dir], checkpointDir: dir, done: [0, 1, 5], ...more });
  const segments = readdirSync(dir)
    .filter(name => name.endsWith('.seg'))
    .sort()
    .map(name => join(dir, name));
  return { dir, segments };
};

const flip = (path: string, byte: number): void => {
  const bytes = readFileSync(path);
  bytes[byte]! ^= 1;
  writeFileSync(path, bytes);
};

const contents = (dir: string) =>
  readdirSync(dir).map(name => [
    name,
    statSync(join(dir, name)).mtimeMs,
    readFileSync(join(dir, name)).toString('latin1'),
  ]);

const held = Array.from({ length: 400 }, (_, i) => i).filter(i => i >= 20 && !(i >= 50 && i < 60));
const textOf = (numbers: readonly number[]) => numbers.map(n => `${bodyOf(n)}\n`).join('');

describe('inspect and verify', () => {
  it('say what is in it, and change nothing', async () => {
    const { dir, segments } = await written();
    const before = contents(dir);
    const text = await channel('inspect', dir);
    expect(text).toMatchObject({ code: 0, err: '' });
    expect(text.out).toMatch(/^holds +370 events, \d+ bytes$/m);
    expect(text.out).toMatch(/^done with +every event before number 20, and 10 in 1 range above it$/m);
    for (const path of segments) expect(text.out).toContain(path);
    const json = JSON.parse((await channel('inspect', dir, '--format', 'json')).out) as Record<string, unknown>;
    expect(json).toMatchObject({
      held: { events: 370 },
      end: 400,
      watermark: 20,
      ranges: [{ first: 50, end: 60 }],
      process: null,
    });
    expect(await channel('verify', dir)).toMatchObject({
      code: 0,
      out: expect.stringContaining('400 events') as string,
    });
    expect((await channel('verify', dir)).out).toContain('no problems found');
    expect(contents(dir)).toEqual(before);
  });

  it('end without a word when nobody reads them', async () => {
    const { dir } = await written();
    for (const command of ['inspect', 'verify', 'repair']) {
      const reader = start(['channel', command, dir]);
      reader.child.stdout.destroy();
      expect(await reader.exit).toEqual({ code: 0, out: '', err: '' });
    }
  });

  it('take several directories', async () => {
    const dirs = [join(folder, 'a'), join(folder, 'b')];
    const more = { dataDirs: dirs, checkpointDir: join(folder, 'c') };
    await writeLog(systemDisk, more);
    expect(await channel('verify', ...dirs, '--checkpoint-dir', more.checkpointDir)).toMatchObject({ code: 0 });
    const half = await channel('verify', dirs[0]!, '--checkpoint-dir', more.checkpointDir);
    expect(half.code).toBe(1);
    expect(half.out).toContain('Were all of its data directories named?');
    const drained = await channel('drain', dirs[0]!, '--checkpoint-dir', more.checkpointDir);
    expect(drained).toMatchObject({ code: 1, out: '' });
    expect(drained.err).toContain('name all of its data directories');
    const without = await channel('drain', ...dirs);
    expect(without).toMatchObject({ code: 1, out: '' });
    expect(without.err).toContain('--checkpoint-dir');
    expect(existsSync(join(dirs[0]!, 'acked.checkpoint'))).toBe(false);
  });

  it.each([
    [
      'a bit that is turned over',
      (segments: string[]) => flip(segments[1]!, 700),
      /bytes 128 to \d+|bytes \d+ to \d+: 10 events, numbers \d+ to \d+, cannot be read/,
    ],
    [
      'a segment that is cut off',
      (segments: string[]) => truncateSync(segments[1]!, statSync(segments[1]!).size - 9),
      /: 10 events, numbers \d+ to \d+, cannot be read: it is damaged or cut off/,
    ],
    [
      'a segment that is missing',
      (segments: string[]) => rmSync(segments[1]!),
      /error: \d+ events, numbers \d+ to \d+, cannot be read: there is no file/,
    ],
    [
      'a header that is damaged',
      (segments: string[]) => flip(segments[1]!, 35),
      /its header is damaged, and its \d+ events would not be read/,
    ],
    [
      'a checkpoint that is damaged',
      (segments: string[]) => {
        const path = join(segments[0]!, '../acked.checkpoint');
        flip(path, 40);
        if (statSync(path).size > 4096) flip(path, 4096 + 40);
      },
      /acked\.checkpoint: error: both of its slots are damaged/,
    ],
  ])('name %s', async (_, damage, says) => {
    const { dir, segments } = await written();
    damage(segments);
    const verdict = await channel('verify', dir);
    expect(verdict.out).toMatch(says);
    expect(verdict).toMatchObject({ code: 1, err: '' });
    expect(verdict.out.trim()).toMatch(/\n1 error$/);
    const json = JSON.parse((await channel('verify', dir, '--format', 'json')).out) as { errors: number };
    expect(json.errors).toBe(1);
    expect((await channel('inspect', dir)).code).toBe(0);
  });

  it('refuse what is none', async () => {
    const other = join(folder, 'other');
    mkdirSync(other);
    expect(await channel('inspect', other)).toMatchObject({
      code: 2,
      err: expect.stringContaining("not a file channel's") as string,
    });
    writeFileSync(join(other, 'log-1.meta'), '');
    for (const command of ['inspect', 'verify', 'repair', 'drain'])
      expect(await channel(command, other)).toMatchObject({
        code: 2,
        err: expect.stringContaining('Let Flume drain that channel') as string,
      });
    expect(readdirSync(other)).toEqual(['log-1.meta']);
    expect(await channel('verify', join(folder, 'nothing'))).toMatchObject({
      code: 2,
      err: expect.stringContaining('no such directory') as string,
    });
    expect(await channel('verify', join(other, 'log-1.meta'))).toMatchObject({
      code: 2,
      err: expect.stringContaining('is a file') as string,
    });
    expect(await channel('verify')).toMatchObject({ code: 2 });
  });

  it('refuse a newer format', async () => {
    const { dir, segments } = await written();
    const { crc32 } = (await import('node:zlib')) as unknown as { crc32: (bytes: Buffer) => number };
    const bytes = readFileSync(segments[0]!);
    bytes.writeUInt16LE(99, 8);
    bytes.writeUInt32LE(0, 12);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 128)), 12);
    writeFileSync(segments[0]!, bytes);
    const before = contents(dir);
    for (const command of ['inspect', 'verify', 'repair', 'drain'])
      expect(await channel(command, dir)).toMatchObject({
        code: 2,
        err: expect.stringContaining('format version 99') as string,
      });
    expect(contents(dir).filter(([name]) => name !== 'LOCK')).toEqual(before);
  });
});

it('an encrypted channel: its sums are checked without the key, everything else needs it', async () => {
  const key = join(folder, 'key');
  writeFileSync(key, Buffer.alloc(32, 7));
  const { dir } = await written({ codec: codecWith({ activeKey: 'k1', keys: { k1: `file:${key}` } }) });
  const without = await channel('verify', dir);
  expect(without).toMatchObject({ code: 0 });
  expect(without.out).toMatch(/warning: .* is encrypted with the key k1, which was not given/);
  const before = contents(dir);
  for (const command of ['drain', 'repair'])
    expect(await channel(command, dir)).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringContaining('k1') as string,
    });
  expect(contents(dir).filter(([name]) => String(name).endsWith('.seg'))).toEqual(
    before.filter(([name]) => String(name).endsWith('.seg')),
  );
  expect(await channel('drain', dir, '--key', 'k1')).toMatchObject({ code: 2 });
  expect((await channel('verify', dir, '--key', `k1=file:${key}`)).out).toContain('no problems found');
  expect((await channel('drain', dir, '--key', `k1=file:${key}`)).out).toBe(textOf(held));
});

describe('repair', () => {
  it('says what it would do, does it, and says what is missing', async () => {
    const { dir, segments } = await written();
    flip(segments[1]!, 700);
    const before = contents(dir);
    const would = await channel('repair', dir, '--dry-run');
    expect(would.out).toMatch(/would be kept as \d+\.seg\.damaged\.1; its \d+ sound events would be in /);
    expect(contents(dir)).toEqual(before);
    const did = await channel('repair', dir);
    expect(did.code).toBe(1);
    expect(did.out).toMatch(/^missing: 10 events, numbers \d+ to \d+, in bytes \d+ to \d+ of /m);
    expect(await channel('verify', dir)).toMatchObject({ code: 0 });
    expect(await channel('repair', dir)).toMatchObject({ code: 0, out: 'nothing to repair\n' });
    expect((await channel('inspect', dir)).out).toContain('kept aside: ');
  });
});

describe('drain', () => {
  it('writes what is held, in order, and lets go of it', async () => {
    const { dir } = await written();
    const kept = await channel('drain', dir, '--keep');
    expect(kept).toMatchObject({ code: 0, out: textOf(held), err: '370 events written; nothing was changed\n' });
    const to = join(folder, 'drained.jsonl');
    expect(await channel('drain', dir, '--to', to, '--format', 'json')).toMatchObject({
      code: 0,
      out: '',
      err: '370 events written and let go of; the channel is empty\n',
    });
    const lines = readFileSync(to, 'utf8').trimEnd().split('\n');
    expect(lines.map(line => JSON.parse(line) as unknown)).toEqual(
      held.map(n => ({ headers: { batch: String(Math.floor(n / 10)) }, body: bodyOf(n) })),
    );
    expect(await channel('drain', dir)).toMatchObject({
      code: 0,
      out: '',
      err: '0 events written and let go of; the channel is empty\n',
    });
    expect(await channel('drain', dir, '--to', to)).toMatchObject({
      code: 2,
      err: expect.stringContaining('is there already') as string,
    });
  });

  it('loses nothing when its reader goes away', async () => {
    const { dir } = await written({ batches: 6000, maxFileSize: 1024 * 1024, done: [], fsync: 'never' });
    const reader = start(['channel', 'drain', dir]);
    // Like head: some lines, and no more.
    await once(reader.child.stdout, 'data');
    reader.child.stdout.destroy();
    const { code, err } = await reader.exit;
    expect(code).toBe(0);
    expect(err).toMatch(/^\d+ events written and let go of; \d+ are still held\n$/);
    const rest = (await channel('drain', dir)).out;
    const all = textOf(Array.from({ length: 60_000 }, (_, i) => i));
    expect(all.endsWith(rest)).toBe(true);
    // What is gone was read: at least the first piece.
    expect(all.length - rest.length).toBeLessThanOrEqual(reader.printed.out.length);
  });

  it('stops on Ctrl-C, and goes on where it was', async () => {
    const { dir } = await written({ batches: 6000, maxFileSize: 1024 * 1024, done: [], fsync: 'never' });
    const fifo = join(folder, 'fifo');
    await once(spawn('mkfifo', [fifo]), 'close');
    const drain = start(['channel', 'drain', dir, '--to', fifo]);
    const cat = spawn('cat', [fifo], { stdio: ['ignore', 'pipe', 'ignore'] });
    children.push(cat);
    const closed = once(cat, 'close');
    let read = '';
    cat.stdout.on('data', (chunk: Buffer) => {
      read += chunk.toString();
      drain.child.kill('SIGINT');
    });
    const { code, err } = await drain.exit;
    await closed;
    expect(err).toMatch(/^\d+ events written and let go of; \d+ are still held\n$/);
    expect(code).toBe(3);
    const rest = (await channel('drain', dir)).out;
    const all = textOf(Array.from({ length: 60_000 }, (_, i) => i));
    expect(all.startsWith(read)).toBe(true);
    expect(all.endsWith(rest)).toBe(true);
    expect(read.length + rest.length).toBeGreaterThanOrEqual(all.length);
  });

  it('says what could not be read', async () => {
    const { dir, segments } = await written();
    flip(segments[1]!, 700);
    const kept = await channel('drain', dir, '--keep');
    expect(kept.code).toBe(1);
    expect(kept.err).toMatch(/error: 10 events, numbers \d+ to \d+, cannot be read/);
    const drained = await channel('drain', dir);
    expect(drained).toMatchObject({ code: 1, out: kept.out });
    expect(drained.err).toContain(
      '360 events written and let go of; 10 events could not be read; the channel is empty',
    );
  });
});

it('a channel in use: read-only commands see it sound while it works, the others say who has it', async () => {
  const dir = join(folder, 'live');
  const conf = join(folder, 'live.conf');
  writeFileSync(
    conf,
    [
      'a1.sources = r1',
      'a1.channels = c1',
      'a1.sinks = k1',
      'a1.sources.r1.type = seq',
      'a1.sources.r1.channels = c1',
      'a1.channels.c1.type = file',
      `a1.channels.c1.checkpointDir = ${dir}`,
      `a1.channels.c1.dataDirs = ${dir}`,
      'a1.channels.c1.minimumRequiredSpace = 0',
      'a1.channels.c1.maxFileSize = 100000',
      'a1.channels.c1.capacity = 20000',
      'a1.channels.c1.fsyncPerTransaction = false',
      'a1.sinks.k1.type = null',
      'a1.sinks.k1.channel = c1',
      '',
    ].join('\n'),
  );
  const agent = start(['agent', '-n', 'a1', '-f', conf]);
  while (!agent.printed.err.includes('agent a1 runs') || !existsSync(join(dir, 'LOCK'))) {
    expect(agent.child.exitCode, agent.printed.err).toBeNull();
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  const ends: number[] = [];
  for (let i = 0; i < 3; i++) {
    expect(await channel('verify', dir)).toMatchObject({
      code: 0,
      err: '',
      out: expect.stringContaining('no problems found') as string,
    });
    const { out } = await channel('inspect', dir, '--format', 'json');
    const { end, process: holder } = JSON.parse(out) as { end: number; process: number };
    expect(holder).toBe(agent.child.pid);
    ends.push(end);
  }
  expect(ends.at(-1)).toBeGreaterThan(ends[0]!);
  expect(await channel('drain', dir, '--keep')).toMatchObject({ code: 0 });
  for (const command of ['drain', 'repair'])
    expect(await channel(command, dir)).toMatchObject({
      code: 3,
      err: expect.stringContaining(`process ${agent.child.pid}`) as string,
    });
  agent.child.kill('SIGTERM');
  expect((await agent.exit).code).toBe(0);
  expect(await channel('verify', dir)).toMatchObject({ code: 0 });
});
