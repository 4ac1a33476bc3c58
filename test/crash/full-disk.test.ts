/**
 * A file channel on real file systems that are full, or read-only: small tmpfs mounts, where that is permitted.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Observable } from 'rxjs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { own, settle, type Delivery } from '../../src/core/delivery.ts';
import { MillraceError, systemCode } from '../../src/core/errors.ts';
import { createSink, createSource, event, fileChannel, run, type Flow } from '../../src/index.ts';
import type { FileChannelOptions } from '../../src/operators/channels/file.ts';

let directory: string;
const mounts: string[] = [];
const flows: Flow[] = [];
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'millrace-full-'))));
afterEach(async () => {
  for (const flow of flows.splice(0)) {
    flow.abort();
    await flow.done.catch(() => undefined);
  }
  while (mounts.length > 0) execFileSync('umount', ['-l', mounts.pop()!]);
  rmSync(directory, { recursive: true, force: true });
});

const mount = (...words: string[]): boolean => {
  try {
    execFileSync('mount', words, { stdio: 'ignore' });
  } catch {
    console.warn(`SKIPPED: mount ${words.join(' ')}; only root on Linux may do that.`);
    return false;
  }
  mounts.push(words.at(-1)!);
  return true;
};

const remounted = (options: string, path: string): boolean =>
  spawnSync('mount', ['-o', `remount,${options}`, path]).status === 0;

const until = async (what: () => boolean): Promise<void> => {
  while (!what()) await new Promise(resolve => setTimeout(resolve, 2));
};

const batchSize = 100;
const batches = 300;
const bodies = Array.from({ length: batches * batchSize }, (_, i) => `${i} ${'x'.repeat(200)}`);

/** 6 MB of numbered events through a channel, into a sink that takes nothing before it may. */
const through = (options: FileChannelOptions, atFirst = batches) => {
  const causes: MillraceError[] = [];
  const got: string[] = [];
  let open!: () => void;
  const gate = new Promise<void>(resolve => (open = resolve));
  let next = 0;
  let goOn!: () => void;
  const source = createSource(
    emitter => {
      const emit = () => {
        const from = next++ * batchSize;
        emitter.emit(bodies.slice(from, from + batchSize).map(body => event(body)));
        if (next === batches) emitter.complete();
      };
      goOn = emit;
      return { pull: () => next !== atFirst && emit() };
    },
    { redelivery: { initial: 2, max: 20 } },
  );
  const heard = (deliveries: Observable<Delivery>) =>
    new Observable<Delivery>(subscriber =>
      deliveries.subscribe({
        next: delivery =>
          subscriber.next(
            own(delivery, delivery.batch, (outcome, cause, failed) => {
              if (outcome !== 'ack') causes.push(cause as MillraceError);
              return settle(delivery, outcome, cause, failed);
            }),
          ),
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => subscriber.complete(),
      }),
    );
  const flow = run(
    source,
    heard,
    fileChannel({ maxFileSize: 256 * 1024, checkpointInterval: 20, minimumRequiredSpace: 0, ...options }),
    createSink(async events => {
      await gate;
      for (const { body } of events) got.push(body.toString());
    }),
  );
  flow.done.catch(() => undefined);
  flows.push(flow);
  const counters = () => flow.metrics.snapshot()['CHANNEL.file']!;
  const put = () => counters()['EventPutSuccessCount']!;
  return { flow, causes, got, counters, put, open, goOn: () => goOn() };
};

const system = ({ cause }: MillraceError): string | undefined => systemCode(cause);

describe('a real disk', () => {
  test('that is full holds the source back; with room it goes on, and nothing is lost or twice', async context => {
    if (!mount('-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', directory)) context.skip('cannot mount a tmpfs');
    writeFileSync(join(directory, 'filler'), Buffer.alloc(1024 * 1024));
    const { flow, causes, got, counters, put, open } = through({ dir: join(directory, 'channel') });
    await until(() => causes.length > 0);
    expect(causes[0]).toMatchObject({ code: 'MR_IO' });
    expect(system(causes[0]!)).toBe('ENOSPC');
    expect(causes[0]!.message).toContain('The disk is full. It goes on as soon as there is room.');
    expect(counters()).toMatchObject({ Unhealthy: 1 });
    const before = put();
    expect(before).toBeGreaterThan(0);
    expect(before).toBeLessThan(bodies.length);
    // Somebody makes room, but not enough.
    rmSync(join(directory, 'filler'));
    await until(() => put() > before);
    const failures = causes.length;
    await until(() => causes.length > failures && counters()['Unhealthy'] === 1);
    expect(put()).toBeLessThan(bodies.length);
    // The sink makes room: what is delivered is given back.
    open();
    await flow.done;
    expect(got).toEqual(bodies);
    expect(counters()).toMatchObject({ Unhealthy: 0, LostEventCount: 0, ChannelSize: 0 });
    expect(flow.ledger.difference).toBe(0);
  });

  test('with less than minimumRequiredSpace takes nothing, and says how much there is', async context => {
    if (!mount('-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', directory)) context.skip('cannot mount a tmpfs');
    writeFileSync(join(directory, 'filler'), Buffer.alloc(4 * 1024 * 1024));
    const minimumRequiredSpace = 10 * 1024 * 1024;
    const { flow, causes, got, put, open } = through({ dir: join(directory, 'channel'), minimumRequiredSpace });
    open();
    await until(() => causes.length > 0);
    expect(causes[0]).toMatchObject({ code: 'MR_DISK_FULL' });
    expect(causes[0]!.message).toMatch(
      /Usable space exhausted: \d+ bytes are free in .*minimumRequiredSpace is 10485760/,
    );
    expect(put()).toBe(0);
    rmSync(join(directory, 'filler'));
    await flow.done;
    expect(got).toEqual(bodies);
  });

  test('that becomes read-only holds the source back; writable again it goes on, and nothing is lost or twice', async context => {
    if (!mount('-t', 'tmpfs', '-o', 'size=20m', 'tmpfs', directory)) context.skip('cannot mount a tmpfs');
    const dir = join(directory, 'channel');
    mkdirSync(dir);
    // Everything is one more mount of the same, which can become read-only though files are open.
    const { flow, causes, got, counters, put, open, goOn } = through({ dir }, 20);
    await until(() => put() === 20 * batchSize);
    if (!mount('--bind', dir, dir)) context.skip('cannot bind a mount');
    expect(remounted('ro,bind', dir)).toBe(true);
    goOn();
    await until(() => causes.length > 0);
    expect(causes[0]).toMatchObject({ code: 'MR_IO' });
    expect(system(causes[0]!)).toBe('EROFS');
    expect(causes[0]!.message).toContain('The file system is read-only.');
    const before = put();
    expect(before).toBeLessThan(bodies.length);
    // What is there can be delivered meanwhile.
    open();
    await until(() => got.length === before);
    expect(counters()).toMatchObject({ Unhealthy: 1 });
    execFileSync('umount', ['-l', mounts.pop()!]);
    await flow.done;
    expect(got).toEqual(bodies);
    expect(counters()).toMatchObject({ Unhealthy: 0, LostEventCount: 0, ChannelSize: 0 });
    expect(readdirSync(dir).filter(name => name.endsWith('.damaged'))).toEqual([]);
  });

  test('that is read-only from the start is an error that says so; what was in the channel is there afterwards', async context => {
    if (!mount('-t', 'tmpfs', '-o', 'size=20m', 'tmpfs', directory)) context.skip('cannot mount a tmpfs');
    const dir = join(directory, 'channel');
    const first = through({ dir });
    await until(() => first.put() >= 1000);
    first.flow.abort();
    await first.flow.done.catch(() => undefined);
    const held = first.put();
    // Not before everything is closed.
    await until(() => remounted('ro', directory));
    const second = through({ dir });
    await expect(second.flow.done).rejects.toMatchObject({
      code: 'MR_IO',
      message: expect.stringContaining('EROFS') as string,
    });
    expect(remounted('rw', directory)).toBe(true);
    const third = through({ dir });
    third.open();
    await third.flow.done;
    // What was not confirmed when the first was aborted may be in as well.
    const own = third.got.slice(0, third.got.length - bodies.length);
    expect(own.length).toBeGreaterThanOrEqual(held);
    expect(own).toEqual(bodies.slice(0, own.length));
    expect(third.got.slice(own.length)).toEqual(bodies);
  });
});
