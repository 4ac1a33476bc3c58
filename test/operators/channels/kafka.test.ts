import { describe, test } from 'vitest';
import { currentScope } from '../../../src/core/scope.ts';
import { kafkaChannel } from '../../../src/operators/channels/kafka.ts';
import { channelLaws, memoryKafka, type ChannelSpec, type MemoryKafka } from '../../../src/testing/index.ts';

const broker = 'memory:1';

const spec: ChannelSpec<(MemoryKafka | undefined)[]> = {
  name: 'kafkaChannel',
  durable: true,
  limits: { capacity: Number.MAX_SAFE_INTEGER, byteCapacity: Number.MAX_SAFE_INTEGER },
  place: () => [],
  make: ({ transactionCapacity }, place) => {
    const { clock, random } = currentScope();
    const cluster = (place[0] ??= memoryKafka({ clock, random, topics: { 'flume-channel': 1 } }));
    const channel = kafkaChannel.create({
      bootstrapServers: [broker],
      connect: cluster.connect,
      transactionCapacity,
      consumer: { 'heartbeat.interval.ms': '100' },
    });
    return {
      input: () => channel.input(),
      output: options => channel.output(options),
      end: () => channel.end(),
      close: () => channel.close(),
      closed: channel.closed,
      /** Until its partition is its own, brokers alone know what it is responsible for. */
      get depth() {
        const { length } = cluster.log('flume-channel', 0);
        const committed = cluster.committed('flume')[0]?.offset ?? 0;
        return { ...channel.depth, events: Math.max(channel.depth.events, length - committed) };
      },
    };
  },
};

describe('the laws', () => {
  for (const law of channelLaws(spec)) test(law.name, () => law.run());
});
