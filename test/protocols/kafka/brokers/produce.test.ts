import { describe, expect, test } from 'vitest';
import { MillraceError } from '../../../../src/core/errors.ts';
import type { Cluster, Node } from '../../../../src/protocols/kafka/brokers/cluster.ts';
import { produce } from '../../../../src/protocols/kafka/brokers/produce.ts';

/** One record to partition 1 of t, and a broker that answers so. */
const answered = (
  partitions: readonly { topic: string; partition: number; errorCode: number; offset: number }[],
  acks = -1,
) => {
  const node = { address: 'b:1', ask: () => Promise.resolve({ partitions }) } as unknown as Node;
  const cluster = {
    refused: (code: number, doing: string) => new MillraceError('MR_KAFKA', `${code}: ${doing}`),
  } as unknown as Cluster;
  const options = { acks, requestTimeout: 1000, packing: undefined, producer: undefined };
  return produce(cluster, node, { topic: 't', partition: 1 }, [{ key: null, value: Buffer.from('x') }], options);
};
const fine = { topic: 't', partition: 1, errorCode: 0, offset: 7 };

describe('what a broker answers to records', () => {
  test('is looked at for the partition that they went to', async () => {
    expect(await answered([{ ...fine, partition: 0, offset: 5 }, fine])).toBe(7);
    for (const others of [[], [{ ...fine, partition: 0 }], [{ ...fine, topic: 'u' }]])
      await expect(answered(others)).rejects.toMatchObject({
        code: 'MR_KAFKA',
        retriable: true,
        message: 'Kafka broker b:1: its answer does not speak of topic t, partition 1.',
      });
  });

  test('may be a refusal, also beside partitions that took theirs', async () => {
    await expect(
      answered([
        { ...fine, partition: 0 },
        { ...fine, errorCode: 19 },
      ]),
    ).rejects.toThrow('19: broker b:1, writing to topic t, partition 1');
  });

  test('may be that it has had them for long', async () => {
    expect(await answered([{ ...fine, errorCode: 46 }])).toBe(-1);
  });

  test('is nothing with acks 0', async () => {
    expect(await answered([], 0)).toBe(-1);
  });
});
