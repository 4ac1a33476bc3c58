import { describe, test } from 'vitest';
import { createChannel } from '../../src/core/channel.ts';
import type { Batch, FlumeEvent } from '../../src/core/event.ts';
import { currentScope, inScope, Scope } from '../../src/core/scope.ts';
import { fileChannel, type FileChannelOptions } from '../../src/operators/channels/file.ts';
import { spillableChannel } from '../../src/operators/channels/spillablememory.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { channelLaws, seededRandom, type ChannelSpec } from '../../src/testing/index.ts';
import { CrashDisk } from '../crash/crash-disk.ts';
import { ArrayStore } from './mutants/channels.ts';

/** As a store on a disk: opening, putting and closing take their time. */
class SlowStore extends ArrayStore {
  readonly #clock = currentScope().clock;

  override open(): Promise<void> {
    return this.#sleep(20);
  }

  override async put(batch: Batch): Promise<void> {
    await this.#sleep(3);
    void super.put(batch);
  }

  override close(): Promise<void> {
    return this.#sleep(7);
  }

  #sleep(ms: number): Promise<void> {
    return new Promise(resolve => void this.#clock.after(ms, resolve));
  }
}

const memory = (order: 'strict' | 'selective'): ChannelSpec => ({
  name: `memoryChannel, ${order}`,
  order,
  make: limits => memoryChannel.create({ ...limits, byteCapacityBufferPercentage: 0 }),
});

const durable: ChannelSpec<Set<FlumeEvent>> = {
  name: 'a channel over a durable store',
  durable: true,
  place: () => new Set(),
  make: (limits, disk) => createChannel(new ArrayStore(limits, undefined, disk), limits),
};

process.env['MILLRACE_TEST_KEY'] = '00'.repeat(32);

/** What is current, on this disk. */
const onDisk = (disk: CrashDisk): Scope => new Scope({ ...currentScope().context, disk });

/** Over a disk in memory, with files so small that there are many. */
const file = (name: string, options: FileChannelOptions): ChannelSpec<CrashDisk> => ({
  name: `fileChannel, ${name}`,
  durable: true,
  place: () => new CrashDisk(seededRandom(1)),
  make: (limits, disk) =>
    inScope(onDisk(disk), () =>
      fileChannel.create({ ...limits, dir: '/c', maxFileSize: 4096, minimumRequiredSpace: 0, ...options }),
    ),
});

/** Half of it in memory. What is there is lost when it closes. */
const spillable: ChannelSpec = {
  name: 'spillableChannel',
  limits: { capacity: 6, transactionCapacity: 3, byteCapacity: 100_000 },
  make: ({ capacity, transactionCapacity, keepAlive }) => {
    const disk = new CrashDisk(seededRandom(1));
    const memoryCapacity = capacity >> 1;
    return inScope(onDisk(disk), () =>
      spillableChannel.create({
        dir: '/c',
        minimumRequiredSpace: 0,
        memoryCapacity,
        overflowCapacity: capacity - memoryCapacity,
        transactionCapacity,
        keepAlive,
      }),
    );
  },
};

const specs: ChannelSpec[] = [
  spillable,
  file('from memory', {}) as ChannelSpec<unknown> as ChannelSpec,
  file('from the disk, encrypted', {
    cacheBytes: 1,
    encryptionActiveKey: 'k1',
    encryptionKeys: { k1: 'env:MILLRACE_TEST_KEY' },
  }) as ChannelSpec<unknown> as ChannelSpec,
  file('not synced, several directories', {
    fsync: { interval: 20 },
    checkpointDir: '/p',
    dataDirs: ['/a', '/b'],
  }) as ChannelSpec<unknown> as ChannelSpec,
  durable as ChannelSpec<unknown> as ChannelSpec,
  memory('strict'),
  memory('selective'),
  { name: 'a channel over a slow store', make: limits => createChannel(new SlowStore(limits), limits) },
];

describe.each(specs)('$name', spec => {
  for (const law of channelLaws(spec)) test(law.name, () => law.run());
});
