import { describe, test } from 'vitest';
import { createChannel } from '../../src/core/channel.ts';
import type { Batch, FlumeEvent } from '../../src/core/event.ts';
import { currentScope } from '../../src/core/scope.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { channelLaws, type ChannelSpec } from '../../src/testing/index.ts';
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

const specs: ChannelSpec[] = [
  durable as ChannelSpec<unknown> as ChannelSpec,
  memory('strict'),
  memory('selective'),
  { name: 'a channel over a slow store', make: limits => createChannel(new SlowStore(limits), limits) },
];

describe.each(specs)('$name', spec => {
  for (const law of channelLaws(spec)) test(law.name, () => law.run());
});
