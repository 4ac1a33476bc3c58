import { expect, it } from 'vitest';
import { quietLog } from '../../../../src/core/scope.ts';
import { Cluster } from '../../../../src/protocols/kafka/brokers/cluster.ts';
import { Consumer } from '../../../../src/protocols/kafka/brokers/consumer.ts';
import { encodeAssignment, encodeSubscription } from '../../../../src/protocols/kafka/brokers/membership.ts';
import type { Answered, Request, Wire } from '../../../../src/protocols/kafka/brokers/wire.ts';
import { code } from '../../../../src/protocols/kafka/refused.ts';

/** As Kafka's documentation has it. */
const ILLEGAL_GENERATION = 22;

const at = { topic: 'orders', partition: 0 };

/** The only broker of a cluster with one topic, and of a group with one member. It has no records. */
const answers: Record<string, unknown> = {
  Metadata: {
    brokers: [{ id: 1, host: 'a', port: 9092 }],
    topics: [{ errorCode: 0, topic: 'orders', internal: false, partitions: [{ partition: 0, leader: 1 }], rights: 0 }],
  },
  FindCoordinator: { errorCode: 0, id: 1, host: 'a', port: 9092 },
  JoinGroup: {
    errorCode: 0,
    generation: 1,
    protocol: 'range',
    leader: 'me',
    memberId: 'me',
    members: [{ id: 'me', subscription: encodeSubscription(['orders']) }],
  },
  SyncGroup: { errorCode: 0, assignment: encodeAssignment([at]) },
  OffsetFetch: { errorCode: 0, partitions: [{ ...at, errorCode: 0, offset: -1 }] },
  ListOffsets: { partitions: [{ ...at, errorCode: 0, offset: 0 }] },
  LeaveGroup: { errorCode: 0 },
};

/** `commits`: what is answered to commits, one after the other. */
const member = async (commits: readonly number[]) => {
  const asked: string[] = [];
  const left = [...commits];
  const open = (): Wire => {
    let cut: (why: Error) => void = () => undefined;
    const lost = new Promise<never>((_resolve, reject) => (cut = reject));
    lost.catch(() => undefined);
    return {
      usable: true,
      connect: () => Promise.resolve(),
      async ask<Answer extends Answered>({ name }: Request<Answer>) {
        asked.push(name);
        const answer = name === 'OffsetCommit' ? { partitions: [{ ...at, errorCode: left.shift() }] } : answers[name];
        return (answer === undefined ? lost : { throttle: 0, ...answer }) as Answer | Promise<Answer>;
      },
      cut,
    };
  };
  const wordsFor = (of: number) => ({ type: String(of), message: 'In words' });
  const cluster = new Cluster({ wordsFor, open }, { brokers: ['a:9092'], log: quietLog }, 1000);
  let consumer: Consumer | undefined;
  await new Promise<void>(resolve => {
    consumer = new Consumer(
      cluster,
      { groupId: 'billing', topics: ['orders'] },
      {
        assigned: of => {
          queueMicrotask(resolve);
          return of.map(({ first }) => first);
        },
        revoked: () => undefined,
        records: () => undefined,
        outOfRange: ({ first }) => first,
        trouble: () => undefined,
        recovered: () => undefined,
      },
    );
  });
  return { consumer: consumer as Consumer, times: (name: string) => asked.filter(one => one === name).length };
};

it('commits again, where the coordinator is by then, while it is said to be elsewhere', async () => {
  const { consumer, times } = await member([code.NOT_COORDINATOR, code.NOT_COORDINATOR, code.NOT_COORDINATOR, 0]);
  const looked = times('FindCoordinator');
  await consumer.commit([{ ...at, offset: 1 }]);
  expect(times('OffsetCommit')).toBe(4);
  expect(times('FindCoordinator')).toBe(looked + 3);
  await consumer.close();
});

it('commits no more often than that, and not again what was refused for another reason', async () => {
  const { consumer, times } = await member([...Array<number>(5).fill(code.NOT_COORDINATOR), ILLEGAL_GENERATION]);
  await expect(consumer.commit([{ ...at, offset: 1 }])).rejects.toThrow(
    /committing for group billing, topic orders, partition 0/,
  );
  expect(times('OffsetCommit')).toBe(5);
  await expect(consumer.commit([{ ...at, offset: 1 }])).rejects.toThrow(/22/);
  expect(times('OffsetCommit')).toBe(6);
  await consumer.close();
});
