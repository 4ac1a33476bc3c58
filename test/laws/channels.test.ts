import { describe, test } from 'vitest';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { channelLaws } from '../../src/testing/laws/channel-laws.ts';

for (const order of ['strict', 'selective'] as const)
  describe(`memory channel, ${order}`, () => {
    for (const law of channelLaws({
      name: 'memoryChannel',
      order,
      make: limits => memoryChannel.create({ ...limits, byteCapacityBufferPercentage: 0 }),
    }))
      test(law.name, () => law.run());
  });
