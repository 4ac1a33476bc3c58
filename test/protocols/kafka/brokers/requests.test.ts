import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import {
  encodeAssignment,
  encodeSubscription,
  decodeAssignment,
  decodeSubscription,
} from '../../../../src/protocols/kafka/brokers/membership.ts';
import * as requests from '../../../../src/protocols/kafka/brokers/requests.ts';
import type { Answered, Request } from '../../../../src/protocols/kafka/brokers/wire.ts';

// kafkajs 2.2.4 has asked real brokers for years: what it writes and reads is what is right.
const require = createRequire(import.meta.url);
interface Protocol {
  readonly request: {
    readonly apiKey: number;
    readonly apiVersion: number;
    encode(): Promise<{ readonly buffer: Buffer }>;
  };
}
const { requests: known } = require('kafkajs/src/protocol/requests') as {
  requests: Record<string, { protocol(of: { version: number }): (args: object) => Protocol }>;
};
const { MemberMetadata, MemberAssignment } = require('kafkajs/src/consumer/assignerProtocol') as Record<
  'MemberMetadata' | 'MemberAssignment',
  { encode(value: object): Buffer; decode(bytes: Buffer): object }
>;

const member = { groupId: 'group', generation: 7, memberId: 'member' };
const theirs = { groupId: 'group', generationId: 7, groupGenerationId: 7, memberId: 'member', groupInstanceId: null };
const by = { transactionalId: 'id', id: 2n ** 60n, epoch: 3 };
const them = { transactionalId: 'id', producerId: String(2n ** 60n), producerEpoch: 3 };
/** Longer than what an encoder begins with, and not in ASCII. */
const long = 'ü'.repeat(200);
const partitions = [
  { topic: 'a', partition: 0, offset: 5, next: 5 },
  { topic: long, partition: 2, offset: 2 ** 40, next: 2 ** 40 },
  { topic: 'a', partition: 1, offset: 6, next: 6 },
];
/** As they want it. */
const grouped = (each: (of: (typeof partitions)[number]) => unknown) =>
  ['a', long].map(topic => ({ topic, partitions: partitions.filter(of => of.topic === topic).map(each) }));
const bytes = Buffer.from('bytes');
const fetchFields = { maxWait: 500, minBytes: 1, maxBytes: 1000, maxBytesPerPartition: 100, readCommitted: true };

const asked: [string, Request<Answered>, object][] = [
  [
    'GroupCoordinator',
    requests.findCoordinator('id', 'transactions'),
    { coordinatorKey: 'id', groupId: 'id', coordinatorType: 1 },
  ],
  [
    'Fetch',
    requests.fetch(partitions, fetchFields),
    {
      maxWaitTime: 500,
      minBytes: 1,
      maxBytes: 1000,
      isolationLevel: 1,
      rackId: '',
      topics: grouped(({ partition, next }) => ({ partition, fetchOffset: String(next), maxBytes: 100 })),
    },
  ],
  [
    'ListOffsets',
    requests.listOffsets(partitions, requests.earliest, false),
    { isolationLevel: 0, topics: grouped(({ partition }) => ({ partition, timestamp: -2 })) },
  ],
  [
    'JoinGroup',
    requests.joinGroup({
      groupId: 'group',
      memberId: 'member',
      sessionTimeout: 10,
      rebalanceTimeout: 20,
      protocols: ['one', 'two'],
      subscription: bytes,
    }),
    {
      ...theirs,
      sessionTimeout: 10,
      rebalanceTimeout: 20,
      protocolType: 'consumer',
      groupProtocols: ['one', 'two'].map(name => ({ name, metadata: bytes })),
    },
  ],
  [
    'SyncGroup',
    requests.syncGroup(member, [{ memberId: 'other', assignment: bytes }]),
    { ...theirs, groupAssignment: [{ memberId: 'other', memberAssignment: bytes }] },
  ],
  ['Heartbeat', requests.heartbeat(member), theirs],
  ['LeaveGroup', requests.leaveGroup('group', 'member'), { ...theirs, members: [{ memberId: 'member' }] }],
  [
    'OffsetCommit',
    requests.offsetCommit(member, partitions, 'noted'),
    {
      ...theirs,
      topics: grouped(({ partition, offset }) => ({ partition, offset: String(offset), metadata: 'noted' })),
    },
  ],
  [
    'OffsetFetch',
    requests.offsetFetch('group', partitions),
    { ...theirs, topics: grouped(({ partition }) => ({ partition })) },
  ],
  ['InitProducerId', requests.initProducerId(null, 60_000), { transactionalId: null, transactionTimeout: 60_000 }],
  [
    'AddPartitionsToTxn',
    requests.addPartitions(by, partitions),
    { ...them, topics: grouped(({ partition }) => partition) },
  ],
  ['AddOffsetsToTxn', requests.addOffsets(by, 'group'), { ...them, groupId: 'group' }],
  [
    'TxnOffsetCommit',
    requests.transactedOffset(by, 'group', { topic: 'a', partition: 1, offset: 8 }),
    {
      ...them,
      groupId: 'group',
      topics: [{ topic: 'a', partitions: [{ partition: 1, offset: '8', metadata: null }] }],
    },
  ],
  ['EndTxn', requests.endTransaction(by), { ...them, transactionResult: true }],
];

describe('requests', () => {
  it.each(asked)('%s', async (name, { key, version, body }, args) => {
    const { request } = known[name]!.protocol({ version })(args);
    expect({ key, version }).toEqual({ key: request.apiKey, version: request.apiVersion });
    expect(body.toString('hex')).toBe((await request.encode()).buffer.toString('hex'));
  });

  it('a produce that nobody answers is silent', () => {
    const produce = (acks: number) =>
      requests.produce({ topic: 'a', partition: 0 }, bytes, { acks, timeout: 1, transactionalId: null });
    expect(produce(0).silent).toBe(true);
    expect(produce(0).decode(Buffer.alloc(0)).partitions).toEqual([]);
    expect(produce(-1).silent).toBeUndefined();
  });
});

describe('answers', () => {
  it('that are cut off are refused', () => {
    for (const [, { decode }] of asked) expect(() => decode(Buffer.alloc(3))).toThrow(RangeError);
  });

  it('with a list that cannot be there take no memory', () => {
    const answer = Buffer.concat([Buffer.alloc(4), Buffer.from('7fffffff', 'hex')]);
    expect(() => requests.listOffsets([], requests.latest, true).decode(answer)).toThrow(RangeError);
  });
});

describe('what members tell each other', () => {
  const assigned = partitions.map(({ topic, partition }) => ({ topic, partition }));

  it('is what kafkajs tells', () => {
    const topics = ['a', long];
    expect(encodeSubscription(topics)).toEqual(MemberMetadata.encode({ version: 0, topics }));
    expect(encodeAssignment(assigned)).toEqual(
      MemberAssignment.encode({ version: 0, assignment: { a: [0, 1], [long]: [2] } }),
    );
  });

  it('is understood', () => {
    expect(decodeSubscription(encodeSubscription(['a', 'b']))).toEqual(['a', 'b']);
    const byName = (of: typeof assigned) => of.map(({ topic, partition }) => `${topic}-${partition}`).sort();
    expect(byName(decodeAssignment(encodeAssignment(assigned)))).toEqual(byName(assigned));
    expect([decodeSubscription(null), decodeAssignment(Buffer.alloc(0))]).toEqual([[], []]);
  });
});
