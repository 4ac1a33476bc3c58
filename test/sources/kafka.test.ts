import { describe, expect, test } from 'vitest';
import { currentScope } from '../../src/core/scope.ts';
import type { FlumeEvent } from '../../src/core/event.ts';
import { kafkaSource } from '../../src/sources/kafka.ts';
import { sourceLaws, type SourceSpec } from '../../src/testing/index.ts';
import { memoryKafka, type MemoryKafka } from '../../src/testing/memory-kafka.ts';

const record = (body: string | Buffer) => ({ key: null, value: Buffer.from(body as string) });

/** Which partition an event goes to: something that can be seen of it. */
const partitionOf = ({ body }: Pick<FlumeEvent, 'body'>, partitions: number): number =>
  body.reduce((sum, byte) => sum + byte, 0) % partitions;

const spec = (partitions: number, more: Partial<SourceSpec> = {}): SourceSpec => ({
  name: `kafka, ${partitions} partitions`,
  headers: false,
  key: one => String(partitionOf(one, partitions)),
  ...more,
  make: tuning => {
    const { clock, random } = currentScope();
    const cluster = memoryKafka({ clock, random, topics: { t: partitions } });
    const written: { readonly partition: number; readonly offset: number }[] = [];
    return {
      source: kafkaSource({
        bootstrapServers: ['memory:1'],
        connect: cluster.connect,
        topics: ['t'],
        consumer: { 'auto.offset.reset': 'earliest' },
        batchSize: 3,
        ...tuning,
      }),
      feed(events) {
        for (const event of events) {
          const partition = partitionOf(event, partitions);
          const offset = cluster.write({ topic: 't', partition }, [record(event.body)]);
          written.push({ partition, offset });
        }
      },
      confirmed() {
        const ends = new Map(cluster.committed('flume').map(({ partition, offset }) => [partition, offset]));
        const open = written.findIndex(({ partition, offset }) => offset >= (ends.get(partition) ?? 0));
        return open < 0 ? written.length : open;
      },
    };
  },
});

describe.each([spec(1), spec(3)])('$name', one => {
  for (const law of sourceLaws(one)) test(law.name, () => law.run());
});
