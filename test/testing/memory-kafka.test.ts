import { describe, expect, test } from 'vitest';
import type { ConsumerOptions, NewRecord, ProducerOptions, ReadRecord } from '../../src/protocols/kafka/client.ts';
import {
  FakeClock,
  memoryKafka,
  recordingLog,
  seededRandom,
  type MemoryKafka,
  type MemoryKafkaOptions,
} from '../../src/testing/index.ts';
import { fakeTime, portLaws, realTime, type PortSpec } from '../protocols/kafka/port-laws.ts';

const log = recordingLog();
const settings = { brokers: ['memory:9092'], log };

const means = (cluster: MemoryKafka): Omit<PortSpec, 'time'> => ({
  connect: () => cluster.connect(settings),
  createTopic: (topic, partitions) => cluster.createTopic(topic, partitions),
  addPartitions: (topic, more) => cluster.addPartitions(topic, more),
  deleteRecords: (of, before) => cluster.deleteRecords(of, before),
  down: () => cluster.down(),
  up: () => cluster.up(),
  loseAnswer: () => cluster.script('sendUnanswered'),
  expel: group => cluster.members(group).forEach(({ id }) => cluster.expelMember(id)),
});

const clock = new FakeClock();
portLaws('in memory, on a clock of the test', { time: fakeTime(clock), ...means(memoryKafka({ clock })) });
portLaws('in memory, in real time', {
  time: realTime,
  ...means(memoryKafka()),
  consumer: { sessionTimeout: 300, heartbeatInterval: 50 },
});

const numbered = (count: number, from = 0): NewRecord[] =>
  Array.from({ length: count }, (_, i) => ({ key: null, value: Buffer.from(String(from + i)) }));
const texts = (records: readonly ReadRecord[]) => records.map(({ value }) => String(value));

/** A cluster on a clock, with topic `t`. */
const setUp = async (options: MemoryKafkaOptions = {}) => {
  const clock = new FakeClock();
  const cluster = memoryKafka({ clock, topics: { t: 2 }, ...options });
  const client = await cluster.connect(settings);
  const partition = (partition: number, topic = 't') => ({ topic, partition });
  const send = (records: readonly NewRecord[], at = 0, options: ProducerOptions = {}) =>
    clock.settle(client.producer(options).send(partition(at), records));
  /** A member that writes down what it is told. */
  const join = (topics: readonly string[] | RegExp = ['t'], options: Partial<ConsumerOptions> = {}) => {
    const told: string[] = [];
    const read: string[] = [];
    const names = (partitions: readonly { topic: string; partition: number }[]) =>
      partitions.map(({ topic, partition }) => `${topic}-${partition}`).join();
    const consumer = client.consumer(
      { groupId: 'g', topics, ...options },
      {
        assigned: partitions => {
          told.push(`assigned ${names(partitions)}`);
          return partitions.map(({ committed, first }) => committed ?? first);
        },
        revoked: (partitions, lost) => void told.push(`${lost ? 'lost' : 'revoked'} ${names(partitions)}`),
        records: (_, records) => {
          read.push(...texts(records));
          told.push(`${records.length} records`);
        },
        outOfRange: ({ first }) => first,
        trouble: cause => void told.push(cause.message),
        recovered: () => void told.push('recovered'),
      },
    );
    return { consumer, told, read };
  };
  return { clock, cluster, client, partition, send, join };
};

describe('what goes wrong with sends', () => {
  test('refused: nothing is there; unanswered: all is', async () => {
    const { cluster, send } = await setUp();
    cluster.script('sendRefused');
    await expect(send(numbered(2))).rejects.toMatchObject({ code: 'MR_KAFKA', retriable: true });
    expect(cluster.log('t', 0)).toEqual([]);
    cluster.script('sendUnanswered', 1, { topic: 't', partition: 0 });
    expect(await send(numbered(1), 1)).toBe(0);
    await expect(send(numbered(2))).rejects.toMatchObject({ code: 'MR_KAFKA', retriable: true });
    expect(texts(cluster.log('t', 0))).toEqual(['0', '1']);
    expect(cluster.happened).toMatchObject({ sendRefused: 1, sendUnanswered: 1 });
  });

  test('an idempotent producer does not write again what is there, another one does', async () => {
    const { clock, cluster, client, partition } = await setUp();
    for (const [at, idempotent] of [true, false].entries()) {
      const producer = client.producer({ idempotent });
      const send = () => clock.settle(producer.send(partition(at), numbered(2)));
      cluster.script('sendUnanswered', 1, partition(at));
      await expect(send()).rejects.toThrow();
      expect(await send()).toBe(idempotent ? 0 : 2);
      cluster.script('sendRepeated', 1, partition(at));
      await send();
    }
    expect(cluster.log('t', 0).length).toBe(4);
    expect(cluster.log('t', 1).length).toBe(8);
    expect(cluster.happened).toMatchObject({ dropped: 2, sendUnanswered: 2, sendRepeated: 2 });
  });

  test('a slow answer comes late, or too late', async () => {
    const { clock, cluster, send } = await setUp({ slowness: 5000 });
    const start = clock.now();
    cluster.script('sendSlow', 2);
    expect(await send(numbered(1))).toBe(0);
    expect(clock.now() - start).toBeGreaterThanOrEqual(5000);
    await expect(send(numbered(1), 0, { requestTimeout: 1000 })).rejects.toThrow('no answer within 1000 ms');
    expect(cluster.log('t', 0).length).toBe(2);
  });

  test('rights, and what topics refuse', async () => {
    const { cluster, send } = await setUp();
    cluster.forbid('write', 't');
    await expect(send(numbered(1))).rejects.toMatchObject({ code: 'MR_KAFKA_NOT_AUTHORIZED', retriable: false });
    cluster.allow('write', 't');
    cluster.deleteTopic('t');
    cluster.createTopic('t', 1, { compacted: true });
    await expect(send(numbered(1))).rejects.toMatchObject({ code: 'MR_KAFKA', retriable: false });
    expect(await send([{ key: Buffer.from('k'), value: null }])).toBe(0);
  });

  test('a partition without a leader, and the others go on', async () => {
    const { cluster, send, partition } = await setUp();
    cluster.down(partition(0));
    await expect(send(numbered(1))).rejects.toThrow('t-0 has no leader');
    expect(await send(numbered(1), 1)).toBe(0);
    cluster.up(partition(0));
    expect(await send(numbered(1))).toBe(0);
  });

  test('who does not wait for the send before is found out', async () => {
    const { clock, cluster, client, partition } = await setUp();
    const producer = client.producer();
    const first = producer.send(partition(0), numbered(1));
    await expect(producer.send(partition(0), numbered(1))).rejects.toThrow('under way');
    expect(await clock.settle(first)).toBe(0);
    expect(cluster.happened.overlaps).toBe(1);
  });

  test('chance is of the seed', async () => {
    const play = async (seed: number) => {
      const { cluster, send } = await setUp({
        random: seededRandom(seed),
        faults: { sendRefused: 0.2, sendUnanswered: 0.2 },
      });
      const outcomes: boolean[] = [];
      for (let i = 0; i < 50; i++)
        outcomes.push(
          await send(numbered(1)).then(
            () => true,
            () => false,
          ),
        );
      return { outcomes, happened: { ...cluster.happened }, there: cluster.log('t', 0).length };
    };
    const [one, again, other] = [await play(1), await play(1), await play(2)];
    expect(again).toEqual(one);
    expect(other.outcomes).not.toEqual(one.outcomes);
    expect(one.outcomes.filter(ok => !ok).length).toBe(one.happened.sendRefused + one.happened.sendUnanswered);
    expect(one.there).toBe(50 - one.happened.sendRefused);
    expect(one.happened.sendRefused).toBeGreaterThan(0);
  });
});

describe('groups', () => {
  test('a member that dies keeps its partitions until its session expires', async () => {
    const { clock, cluster, join } = await setUp();
    const first = join();
    await clock.runUntilIdle();
    const second = join();
    await clock.runUntilIdle();
    expect(cluster.members('g')).toEqual([
      { id: 'member-1', partitions: [{ topic: 't', partition: 0 }] },
      { id: 'member-2', partitions: [{ topic: 't', partition: 1 }] },
    ]);
    const heard = first.told.length;
    cluster.killMember('member-1');
    await clock.advance(29_000);
    expect(cluster.members('g').length).toBe(2);
    await clock.runUntilIdle();
    expect(cluster.members('g').map(({ id }) => id)).toEqual(['member-2']);
    expect(second.told.at(-1)).toBe('assigned t-0,t-1');
    expect(first.told.length).toBe(heard);
  });

  test('a silent member reads on, but its commits are refused when the group has gone on', async () => {
    const { clock, cluster, partition, join } = await setUp();
    const first = join();
    await clock.runUntilIdle();
    const second = join();
    await clock.runUntilIdle();
    cluster.silenceMember('member-1', 60_000);
    await clock.advance(50_000);
    expect(second.told.at(-1)).toBe('assigned t-0,t-1');
    cluster.write(partition(0), numbered(2));
    await clock.advance(1000);
    expect([first.read, second.read]).toEqual([
      ['0', '1'],
      ['0', '1'],
    ]);
    await expect(clock.settle(first.consumer.commit([{ ...partition(0), offset: 2 }]))).rejects.toThrow('gone on');
    expect(cluster.happened.fenced).toBe(1);
    await clock.settle(second.consumer.commit([{ ...partition(0), offset: 1 }], 'note'));
    expect(cluster.committed('g')).toEqual([{ ...partition(0), offset: 1, metadata: 'note' }]);
    await clock.runUntilIdle();
    expect(first.told.filter(what => what.startsWith('lost'))).toEqual(['lost t-0']);
    expect(cluster.members('g').length).toBe(2);
  });

  test('a member that takes longer than the rebalance timeout to let go is out', async () => {
    const { clock, cluster, client, partition, join } = await setUp({ topics: { t: 1 } });
    let outcome: unknown;
    const slow = client.consumer(
      { groupId: 'g', topics: ['t'], rebalanceTimeout: 5000 },
      {
        assigned: partitions => partitions.map(() => 0),
        revoked: async () => {
          await new Promise<void>(resolve => void clock.after(20_000, resolve));
          outcome = await slow.commit([{ ...partition(0), offset: 1 }]).catch((error: unknown) => error);
        },
        records: () => undefined,
        outOfRange: () => 0,
        trouble: () => undefined,
        recovered: () => undefined,
      },
    );
    await clock.runUntilIdle();
    const other = join(['t'], { rebalanceTimeout: 5000 });
    await clock.advance(10_000);
    expect(other.told).toEqual(['assigned t-0']);
    await clock.runUntilIdle();
    expect(outcome).toBeInstanceOf(Error);
    expect(cluster.committed('g')).toEqual([]);
  });

  test('commits that fail have counted or have not', async () => {
    const { clock, cluster, partition, join } = await setUp();
    const { consumer } = join();
    await clock.runUntilIdle();
    const commit = (offset: number) => clock.settle(consumer.commit([{ ...partition(0), offset }]));
    cluster.script('commitRefused');
    await expect(commit(1)).rejects.toMatchObject({ retriable: true });
    expect(cluster.committed('g')).toEqual([]);
    cluster.script('commitUnanswered');
    await expect(commit(1)).rejects.toMatchObject({ retriable: true });
    expect(cluster.committed('g')).toMatchObject([{ offset: 1 }]);
    await clock.settle(consumer.close());
    cluster.commit('g', [{ ...partition(1), offset: 7 }]);
    expect(cluster.committed('g').map(({ offset }) => offset)).toEqual([1, 7]);
  });

  test('chance may put members out at any time: they lose, join again, and read everything', async () => {
    const { clock, cluster, partition, join } = await setUp({ faults: { expelled: 0.1, fetchRefused: 0.1 } });
    for (let i = 0; i < 100; i++) cluster.write(partition(i % 2), numbered(10, i * 10));
    const { told, read } = join(['t'], { maxBytesPerPartition: 500 });
    await clock.runUntilIdle();
    expect(new Set(read).size).toBe(1000);
    expect(cluster.happened.expelled).toBeGreaterThan(0);
    const lost = told.filter(what => what.startsWith('lost')).length;
    expect(lost).toBeGreaterThan(0);
    expect(told.filter(what => what.startsWith('assigned')).length).toBe(lost + 1);
    expect(told.filter(what => what === 'recovered').length).toBe(cluster.happened.fetchRefused);
  });

  test('a right that is taken away is trouble until it is given back', async () => {
    const { clock, cluster, join } = await setUp();
    cluster.forbid('group', 'g');
    const { told } = join();
    await clock.runUntilIdle();
    cluster.allow('group', 'g');
    cluster.forbid('read', 't');
    await clock.runUntilIdle();
    cluster.allow('read', 't');
    await clock.runUntilIdle();
    expect(told).toEqual(['no right to read in group g', 'no right to read topic t', 'recovered', 'assigned t-0,t-1']);
  });
});

describe('topics', () => {
  test('brokers make them if they are told to', async () => {
    const { clock, client, send, join } = await setUp({ topics: {}, autoCreate: 2 });
    expect(await send(numbered(1))).toBe(0);
    expect(await clock.settle(client.partitions('t'))).toBe(2);
    const { told } = join(['new']);
    await clock.runUntilIdle();
    expect(told).toEqual(['assigned new-0,new-1']);
  });

  test('one that goes is trouble, and its partitions are revoked; one that comes again is read from its begin', async () => {
    const { clock, cluster, partition, join } = await setUp({ topics: { t: 1 } });
    cluster.write(partition(0), numbered(5));
    const { consumer, told, read } = join();
    await clock.runUntilIdle();
    await clock.settle(consumer.commit([{ ...partition(0), offset: 5 }]));
    cluster.deleteTopic('t');
    await clock.runUntilIdle();
    expect(cluster.committed('g')).toEqual([]);
    cluster.createTopic('t');
    cluster.write(partition(0), numbered(2, 5));
    await clock.runUntilIdle();
    expect(told).toEqual([
      'assigned t-0',
      '5 records',
      'topic t does not exist',
      'revoked t-0',
      'recovered',
      'assigned t-0',
      '2 records',
    ]);
    expect(read).toEqual(['0', '1', '2', '3', '4', '5', '6']);
  });

  test('offsets without a record are stepped over', async () => {
    const { clock, cluster, partition, join } = await setUp();
    cluster.write(partition(0), numbered(2));
    cluster.leaveGap(partition(0), 3);
    cluster.write(partition(0), numbered(1, 2));
    cluster.leaveGap(partition(0), 1);
    const { read } = join();
    await clock.runUntilIdle();
    expect(read).toEqual(['0', '1', '2']);
    expect(cluster.log('t', 0).map(({ offset }) => offset)).toEqual([0, 1, 5]);
  });

  test('fetches are as large as they may be', async () => {
    const { clock, cluster, partition, join } = await setUp();
    const records = Array.from({ length: 10 }, () => ({ key: null, value: Buffer.alloc(979) }));
    for (const at of [0, 1]) cluster.write(partition(at), records);
    const each = join(['t'], { maxBytesPerPartition: 3000, groupId: 'each' });
    const all = join(['t'], { maxBytes: 5000, groupId: 'all' });
    const one = join(['t'], { maxBytesPerPartition: 10, groupId: 'one' });
    await clock.runUntilIdle();
    expect(each.told.slice(1)).toEqual([...Array<string>(6).fill('3 records'), '1 records', '1 records']);
    expect(all.told.slice(1)).toEqual(Array(4).fill('5 records'));
    expect(one.told.slice(1)).toEqual(Array(20).fill('1 records'));
  });

  test('a broker waits for as many bytes as are asked for, but not for ever', async () => {
    const { clock, cluster, partition, join } = await setUp();
    const { read } = join(['t'], { minBytes: 1000, maxWait: 700 });
    await clock.runUntilIdle();
    cluster.write(partition(0), numbered(1));
    await clock.advance(600);
    expect(read).toEqual([]);
    await clock.advance(200);
    expect(read).toEqual(['0']);
  });
});
