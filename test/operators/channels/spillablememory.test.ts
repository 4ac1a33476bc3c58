import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inScope, Scope } from '../../../src/core/scope.ts';
import { createSink, run, seqSource, spillableChannel } from '../../../src/index.ts';
import { FakeClock, recordingLog, scriptedSource, seededRandom } from '../../../src/testing/index.ts';
import { event } from '../../../src/index.ts';
import { CrashDisk } from '../../crash/crash-disk.ts';

// The laws are in test/laws/channels.test.ts.

let dir: string;
beforeEach(() => (dir = fs.mkdtempSync(join(tmpdir(), 'millrace-spill-'))));
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const numbers = (count: number) => Array.from({ length: count }, (_, i) => String(i));

describe('spillable channel', () => {
  it('keeps the order over memory and files, there and back', async () => {
    const got: string[] = [];
    let held = 0;
    const flow = run(
      seqSource({ totalEvents: 3000, batchSize: 7 }),
      spillableChannel({ dir, minimumRequiredSpace: 0, memoryCapacity: 100, overflowCapacity: 200, batchSize: 13 }),
      createSink(async events => {
        // Now and then it lets everything fill up.
        if (++held % 40 === 0) await new Promise(resolve => setTimeout(resolve, 5));
        got.push(...events.map(({ body }) => body.toString()));
      }),
    );
    await flow.done;
    expect(got).toEqual(numbers(3000));
    const counters = flow.metrics.snapshot()['CHANNEL.spillablememory'] as Record<string, number>;
    expect(counters['BytesWritten']).toBeGreaterThan(0);
    expect(flow.ledger.difference).toBe(0);
  });

  it('does not touch the disk while memory is enough, and loses only memory with the process', async () => {
    const disk = new CrashDisk(seededRandom(1));
    const clock = new FakeClock();
    const options = { dir: '/c', minimumRequiredSpace: 0, memoryCapacity: 2, overflowCapacity: 10 };
    const open = () => {
      const scope = new Scope({ clock, disk, log: recordingLog(), random: seededRandom(1) });
      return { scope, channel: inScope(scope, () => spillableChannel.create(options)) };
    };
    const { channel, scope } = open();
    const source = scriptedSource([{ emit: [event('a'), event('b')] }, { emit: [event('c')] }, 'idle']);
    inScope(scope, () => source.subscribe(channel.input()));
    await clock.flush();
    expect(channel.depth.events).toBe(3);
    await channel.close();
    expect(scope.ledger.snapshot()).toMatchObject({ dropped: 2, kept: 1 });

    const again = open();
    const got: string[] = [];
    again.channel.output().subscribe(createSink(events => void got.push(...events.map(({ body }) => body.toString()))));
    again.channel.end();
    await clock.settle(again.channel.closed);
    expect(got).toEqual(['c']);
  });

  it('says its own name when it does not know where its files go, and when a transaction is larger than it is', () => {
    expect(() => spillableChannel.create({})).toThrow('spillablememory: it needs dir, or checkpointDir and dataDirs.');
    const small = { dir, memoryCapacity: 5, overflowCapacity: 7 };
    expect(() => spillableChannel.create({ ...small, transactionCapacity: 8 })).toThrow(
      'spillablememory: transactionCapacity 8 must not exceed capacity 7.',
    );
  });

  it('without files is a memory channel, and without memory a file channel', async () => {
    for (const [memoryCapacity, overflowCapacity] of [
      [10, 0],
      [0, 10],
    ] as const) {
      const got: string[] = [];
      const channel = spillableChannel({ dir, minimumRequiredSpace: 0, memoryCapacity, overflowCapacity });
      const flow = run(
        seqSource({ totalEvents: 100, batchSize: 3 }),
        channel,
        createSink(events => void got.push(...events.map(({ body }) => body.toString()))),
      );
      await flow.done;
      expect(got).toEqual(numbers(100));
      const written = (flow.metrics.snapshot()['CHANNEL.spillablememory'] as Record<string, number>)['BytesWritten']!;
      if (memoryCapacity === 0) expect(written).toBeGreaterThan(0);
      else expect(written).toBe(0);
    }
  });
});
