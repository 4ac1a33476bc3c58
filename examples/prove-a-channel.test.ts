import { memoryChannel } from 'millrace';
import { channelLaws } from 'millrace/testing';
import { test } from 'vitest'; // or from 'node:test'

const laws = channelLaws({
  name: 'memory',
  // Small limits, to be kept exactly: this channel would leave 20 % of its bytes free.
  make: limits => memoryChannel.create({ ...limits, byteCapacityBufferPercentage: 0 }),
});

for (const law of laws) test(law.name, () => law.run());
