import { memoryChannel } from 'millrace';
import { channelLaws } from 'millrace/testing';
import { test } from 'vitest'; // or from 'node:test'

for (const law of channelLaws({ name: 'memory', make: limits => memoryChannel.create(limits) })) {
  test(law.name, () => law.run());
}
