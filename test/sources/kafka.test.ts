import { describe, expect, test } from 'vitest';
import type { SourceTuning } from '../../src/core/component.ts';
import { MillraceError } from '../../src/core/errors.ts';
import { event, headers, type FlumeEvent } from '../../src/core/event.ts';
import { run } from '../../src/core/flow.ts';
import { currentScope, inScope, Scope } from '../../src/core/scope.ts';
import { encodeAvroEvent } from '../../src/protocols/avro-event.ts';
import type { ConsumerListener, KafkaConnector, NewRecord, TopicPartition } from '../../src/protocols/kafka/client.ts';
import { kafkaSource, type KafkaSourceOptions } from '../../src/sources/kafka.ts';
import {
  FakeClock,
  memoryKafka,
  recordingLog,
  recordingSink,
  sourceLaws,
  type RecordingSink,
  type SourceSpec,
} from '../../src/testing/index.ts';
import { playHistories } from '../protocols/kafka/group-history.ts';

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

test('random histories of a group: nothing is lost, first occurrences are in order, no offset passes what is not acked', async () => {
  const seen = await playHistories(
    {
      topic: 't',
      start: (connect, sink) =>
        run(
          kafkaSource({
            bootstrapServers: ['memory:1'],
            connect,
            topics: ['t'],
            consumer: { 'auto.offset.reset': 'earliest' },
            batchSize: 4,
            prefetchRecords: 20,
            maxInFlight: { deliveries: 4 },
          }),
          sink,
        ),
    },
    200,
  );
  for (const [what, count] of Object.entries(seen)) expect(count, what).toBeGreaterThan(10);
});

/** A cluster in a world whose time the test owns, and flows that read it. */
const setUp = (topics: Readonly<Record<string, number>> = { t: 1 }) => {
  const clock = new FakeClock();
  const log = recordingLog();
  const cluster = memoryKafka({ clock, topics });
  const write = (bodies: readonly (string | Buffer)[], partition = 0, topic = 't') =>
    cluster.write({ topic, partition }, bodies.map(record));
  const start = (options: Partial<KafkaSourceOptions & SourceTuning> = {}, script: Script = []) => {
    const scope = new Scope({ clock, log });
    const sink: RecordingSink = recordingSink(script, { clock });
    const flow = inScope(scope, () =>
      run(
        kafkaSource({
          bootstrapServers: ['memory:1'],
          connect: cluster.connect,
          topics: ['t'],
          ...options,
          consumer: { 'auto.offset.reset': 'earliest', ...options.consumer },
        }),
        sink,
      ),
    );
    flow.done.catch(() => undefined);
    const bodies = () => sink.received.map(({ events }) => events.map(({ body }) => String(body)).join(' '));
    const counters = () => scope.metrics.find('SOURCE', 'kafka') as Record<string, number>;
    return { flow, sink, bodies, counters, metrics: scope.metrics };
  };
  const committed = (group = 'flume') =>
    Object.fromEntries(
      cluster.committed(group).map(({ topic, partition, offset }) => [`${topic}-${partition}`, offset]),
    );
  const messages = (level: string) => log.entries.filter(entry => entry.level === level).map(({ message }) => message);
  return { clock, log, cluster, write, start, committed, messages };
};

type Script = Parameters<typeof recordingSink<FlumeEvent>>[0];

const hold = () => 'hold' as const;

describe('what becomes of a record', () => {
  const read = async (options: Partial<KafkaSourceOptions>, given: NewRecord) => {
    const { clock, cluster, start } = setUp();
    cluster.write({ topic: 't', partition: 0 }, [{ timestamp: 1234, ...given }]);
    const { sink } = start(options);
    await clock.advance(100);
    return sink.acked.map(({ headers, body }) => ({ headers: { ...headers }, body: String(body) }))[0];
  };

  test('headers say where it was, and its key', async () => {
    expect(await read({}, { key: Buffer.from('k'), value: Buffer.from('v') })).toEqual({
      headers: { timestamp: '1234', topic: 't', partition: '0', offset: '0', key: 'k' },
      body: 'v',
    });
    expect(await read({ setTopicHeader: false }, { key: null, value: null })).toEqual({
      headers: { timestamp: '1234', partition: '0', offset: '0' },
      body: '',
    });
    expect((await read({ topicHeader: 'from' }, { key: null, value: null }))?.headers).toMatchObject({ from: 't' });
  });

  test('headers of the record are taken where they are asked for, the last value of several', async () => {
    const headers = { 'X-A': 'a', 'X-B': ['b', Buffer.from('c')], other: 'no', __proto__x: 'd' };
    const event = await read(
      { headers: { a: 'X-A', b: 'X-B', offset: 'X-A', none: 'constructor' } },
      { key: null, value: null, headers },
    );
    expect(event?.headers).toEqual({ timestamp: '1234', topic: 't', partition: '0', offset: 'a', a: 'a', b: 'c' });
  });

  test('an event in Avro keeps its own headers, but for the key', async () => {
    const own = event('body', headers({ topic: 'mine', offset: 'mine', key: 'mine', more: '1' }));
    expect(await read({ useFlumeEventFormat: true }, { key: Buffer.from('k'), value: encodeAvroEvent(own) })).toEqual({
      headers: { timestamp: '1234', topic: 'mine', partition: '0', offset: 'mine', key: 'k', more: '1' },
      body: 'body',
    });
  });
});

describe('what is read', () => {
  test('a delivery has records of one partition, and partitions take turns', async () => {
    const { clock, write, start } = setUp({ t: 2 });
    write(['a1', 'a2', 'a3', 'a4', 'a5'], 0);
    write(['b1', 'b2'], 1);
    const { bodies } = start({ batchSize: 2, maxInFlight: { deliveries: 1 } }, [{ outcome: 'ack', after: 50 }]);
    await clock.advance(200);
    // Nobody else was in line when the first one got in line again.
    expect(bodies()).toEqual(['a1 a2', 'a3 a4', 'b1 b2', 'a5']);
  });

  test('a regular expression wins over names, has to match all of a name, and finds topics that come later', async () => {
    const { clock, cluster, write, start } = setUp({ t: 1, t1: 1, 't1-old': 1, 'not-t1': 1, other: 1, 'an-other': 1 });
    write(['yes'], 0, 't1');
    for (const topic of ['t', 't1-old', 'not-t1', 'an-other']) write(['no'], 0, topic);
    write(['also'], 0, 'other');
    const { bodies } = start({ topicsRegex: 't[0-9]|other', consumer: { 'metadata.max.age.ms': '5000' } });
    await clock.advance(1000);
    cluster.createTopic('t2');
    write(['later'], 0, 't2');
    await clock.advance(10_000);
    expect(bodies().sort()).toEqual(['also', 'later', 'yes']);
  });

  test('where a group begins is committed at once: what comes before the first ack is read by the next member', async () => {
    const { clock, write, start, committed } = setUp();
    write(['before']);
    const first = start({ consumer: { 'auto.offset.reset': 'latest' } }, hold);
    await clock.advance(1100);
    expect(committed()).toEqual({ 't-0': 1 });
    write(['then']);
    await clock.advance(100);
    expect(first.bodies()).toEqual(['then']);
    first.flow.abort();
    await clock.advance(100);
    const second = start({ consumer: { 'auto.offset.reset': 'latest' } });
    await clock.advance(10_000);
    expect(second.bodies()).toEqual(['then']);
  });

  test('a partition that has its share in memory is paused, and goes on when half of it is gone', async () => {
    const { clock, cluster, write, start } = setUp({ t: 2 });
    const paused: string[] = [];
    const connect: KafkaConnector = async settings => {
      const client = await cluster.connect(settings);
      return {
        ...client,
        consumer: (options, listener) => {
          const consumer = client.consumer(options, listener);
          const [pause, resume] = [consumer.pause.bind(consumer), consumer.resume.bind(consumer)];
          return Object.assign(consumer, {
            pause: (of: readonly TopicPartition[]) => (paused.push(`pause ${of[0]?.partition ?? ''}`), pause(of)),
            resume: (of: readonly TopicPartition[]) => (paused.push(`resume ${of[0]?.partition ?? ''}`), resume(of)),
          });
        },
      };
    };
    write(
      Array.from({ length: 10 }, (_, i) => String(i)),
      0,
    );
    const { sink, counters } = start(
      { connect, prefetchRecords: 12, batchSize: 2, maxInFlight: { deliveries: 1 } },
      hold,
    );
    await clock.advance(500);
    expect(paused).toEqual(['pause 0']);
    expect(counters()).toMatchObject({ PrefetchedRecordCount: 8, AssignedPartitionCount: 2 });
    // What comes now waits at the broker.
    write(['more'], 0);
    write(['other'], 1);
    await clock.advance(500);
    expect(counters()['PrefetchedRecordCount']).toBe(9);
    for (let i = 0; i < 4; i++) {
      expect(paused).toEqual(['pause 0']);
      sink.unsettled()[0]?.settle('ack');
      await clock.flush();
    }
    expect(paused).toEqual(['pause 0', 'resume 0']);
    await clock.advance(500);
    expect(counters()['PrefetchedRecordCount']).toBe(3);
  });
});

describe('positions', () => {
  test('commits are few, one at a time, and at once at the end', async () => {
    const { clock, cluster, write, start, committed } = setUp();
    const { flow, sink } = start({ commitInterval: 5000, batchSize: 1 }, hold);
    await clock.advance(6000);
    for (let i = 0; i < 5; i++) write([String(i)]);
    await clock.advance(1000);
    for (const one of [4, 3, 2, 0]) sink.received[one]?.settle('ack');
    await clock.advance(3000);
    expect(committed()).toEqual({ 't-0': 0 });
    await clock.advance(2500);
    // Up to the first gap.
    expect(committed()).toEqual({ 't-0': 1 });
    sink.received[1]?.settle('ack');
    await clock.settle(flow.stop());
    expect(committed()).toEqual({ 't-0': 5 });
    expect(cluster.members('flume')).toEqual([]);
  });

  test('a commit that fails is reported once and tried again', async () => {
    const { clock, cluster, write, start, committed, messages } = setUp();
    cluster.faults = { commitRefused: 1 };
    const { counters } = start();
    write(['a']);
    await clock.advance(5500);
    expect(counters()['CommitFailCount']).toBeGreaterThan(2);
    cluster.faults = {};
    await clock.advance(2000);
    expect(committed()).toEqual({ 't-0': 1 });
    expect(messages('warn')).toEqual([expect.stringContaining('offsets were not committed')]);
    expect(messages('info')).toContain('kafka: offsets are committed again.');
  });

  test('what is out of a partition that is revoked may still be acked for a moment; then acks count for nothing', async () => {
    const { clock, cluster, write, start, committed } = setUp();
    write(['a', 'b', 'c']);
    const { flow, sink } = start(
      { batchSize: 1, revokeTimeout: 500, consumer: { 'heartbeat.interval.ms': '100' } },
      hold,
    );
    await clock.advance(50);
    cluster.rebalance('flume');
    await clock.advance(200);
    expect(sink.received[0]?.settle('ack')).toBe(true);
    expect(sink.received[1]?.delivery.live).toBe(true);
    await clock.advance(700);
    expect(committed()).toEqual({ 't-0': 1 });
    expect(sink.received[1]?.delivery.live).toBe(false);
    expect(sink.received.slice(1, 3).map(received => received.settle('ack'))).toEqual([false, false]);
    await clock.advance(3000);
    expect(committed()).toEqual({ 't-0': 1 });
    // It has the partition again, and reads what it had not confirmed.
    expect(sink.received.slice(3).map(({ events }) => String(events[0]?.body))).toEqual(['b', 'c']);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 3, held: 2, settledLate: 2 });
    expect(flow.ledger.difference).toBe(0);
  });

  test('what was nacked is not delivered again when its partition is lost', async () => {
    const { clock, cluster, write, start } = setUp();
    write(['a']);
    const first = start({ redelivery: { initial: 60_000, max: 60_000 } }, ['nack']);
    await clock.advance(100);
    const [member] = cluster.members('flume');
    cluster.expelMember(member?.id as string);
    await clock.advance(200_000);
    // Once by the member that it was, once by the one that it is.
    expect(first.sink.received.map(({ attempt, outcome }) => [attempt, outcome])).toEqual([
      [1, 'nack'],
      [1, 'ack'],
    ]);
  });

  test('a stop hands over without repeating anything, and so does the arrival of another member', async () => {
    const { clock, write, start } = setUp({ t: 2 });
    const options = { batchSize: 2, maxInFlight: { deliveries: 2 }, consumer: { 'heartbeat.interval.ms': '100' } };
    const slowly = () => ({ outcome: 'ack' as const, after: 200 });
    const first = start(options, slowly);
    for (const partition of [0, 1])
      write(
        Array.from({ length: 40 }, (_, i) => `${partition}:${i}`),
        partition,
      );
    await clock.advance(1000);
    const second = start(options, slowly);
    await clock.advance(5000);
    await clock.settle(first.flow.stop());
    await clock.advance(30_000);
    const read = [first, second].map(({ bodies }) => bodies().flatMap(some => some.split(' ')));
    expect(read.map(({ length }) => length > 10)).toEqual([true, true]);
    expect(read.flat()).toHaveLength(80);
    expect(new Set(read.flat()).size).toBe(80);
  });
});

describe('what cannot be understood', () => {
  const good = (body: string) => encodeAvroEvent(event(body));
  const bad = Buffer.from('not Avro');
  const poisoned = (options: Partial<KafkaSourceOptions>) => {
    const given = setUp({ t: 2 });
    given.write([good('a'), bad, good('b')], 0);
    given.write([good('c')], 1);
    return { ...given, ...given.start({ useFlumeEventFormat: true, ...options }) };
  };

  test('stops its partition, is reported once, and is there for whoever comes next', async () => {
    const { clock, flow, bodies, committed, counters, metrics, messages, start } = poisoned({});
    await clock.advance(5000);
    expect(bodies().sort()).toEqual(['a', 'c']);
    expect(committed()).toEqual({ 't-0': 1, 't-1': 1 });
    expect(messages('error')).toEqual([
      expect.stringMatching(/record 1 of t-0 can not be read: .*Set onPoison to skip or pass/),
    ]);
    expect(counters()).toMatchObject({ PoisonRecordCount: 1, Unhealthy: 1 });
    expect(metrics.troubles.get('kafka')).toMatchObject({ code: 'MR_BAD_INPUT' });
    await clock.settle(flow.stop());
    expect(metrics.troubles.size).toBe(0);
    const next = start({ useFlumeEventFormat: true, onPoison: 'skip' });
    await clock.advance(5000);
    expect(next.bodies()).toEqual(['b']);
    expect(next.flow.ledger.snapshot()).toMatchObject({ accepted: 2, delivered: 1, rejected: 1, held: 0 });
    expect(next.counters()).toMatchObject({ PoisonRecordCount: 1, Unhealthy: 0 });
  });

  test('is passed on as it is, with a header that says why', async () => {
    const { clock, sink, committed } = poisoned({ onPoison: 'pass' });
    await clock.advance(5000);
    expect(sink.acked.map(({ body }) => String(body)).filter(body => body !== 'c')).toEqual(['a', 'not Avro', 'b']);
    const { headers: head } = sink.acked.find(({ body }) => body.equals(bad)) as FlumeEvent;
    expect(head).toMatchObject({
      topic: 't',
      partition: '0',
      offset: '1',
      poison: expect.stringContaining('Avro') as string,
    });
    expect(committed()).toEqual({ 't-0': 3, 't-1': 1 });
  });

  test('goes to the dead letter, and counts as done when that has it', async () => {
    const letters = recordingSink(['nack']);
    const { clock, flow, sink, committed } = poisoned({ deadLetter: letters });
    await clock.advance(5000);
    expect(sink.acked.map(({ body }) => String(body)).sort()).toEqual(['a', 'b', 'c']);
    expect(letters.acked.map(({ body }) => String(body))).toEqual(['not Avro']);
    expect(letters.acked[0]?.headers).toMatchObject({
      topic: 't',
      partition: '0',
      offset: '1',
      'dead-letter-reason': 'rejected',
    });
    expect(committed()).toEqual({ 't-0': 3, 't-1': 1 });
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 4, delivered: 3, rejected: 1 });
    await clock.settle(flow.stop());
  });
});

describe('offsets that are not there', () => {
  test.each([
    ['earliest', {}, ['c'], 2],
    ['latest', { onOutOfRange: 'latest' as const }, [], 3],
    ['as auto.offset.reset', { consumer: { 'auto.offset.reset': 'latest' } }, [], 3],
  ])('%s: what is lost is counted and reported with its range', async (_, options, read, lost) => {
    const { clock, log, cluster, write, start } = setUp();
    write(['a', 'b', 'c']);
    cluster.commit('flume', [{ topic: 't', partition: 0, offset: 0 }]);
    cluster.deleteRecords({ topic: 't', partition: 0 }, 2);
    const { bodies, counters } = start(options);
    await clock.advance(2000);
    expect(bodies()).toEqual(read);
    expect(counters()['LostRecordCount']).toBe(lost);
    expect(log.entries.filter(({ level }) => level === 'error')).toMatchObject([
      { fields: { topic: 't', partition: 0, from: 0, to: lost } },
    ]);
    write(['d']);
    await clock.advance(100);
    expect(bodies().at(-1)).toBe('d');
  });

  test('deleted while it is being read: what is in memory comes, and the position does not pass what is out', async () => {
    const { clock, cluster, write, start, committed } = setUp();
    write(['a', 'b', 'c', 'd', 'e', 'f'], 0);
    const { sink, bodies, counters } = start(
      {
        batchSize: 1,
        prefetchRecords: 1,
        maxInFlight: { deliveries: 1 },
        consumer: { 'max.partition.fetch.bytes': '30' },
      },
      hold,
    );
    await clock.advance(1100);
    expect(bodies()).toEqual(['a']);
    cluster.deleteRecords({ topic: 't', partition: 0 }, 4);
    await clock.advance(1100);
    expect(committed()).toEqual({ 't-0': 0 });
    for (let i = 0; i < 10; i++) {
      sink.unsettled()[0]?.settle('ack');
      await clock.advance(500);
    }
    const read = bodies();
    expect(read.slice(-2)).toEqual(['e', 'f']);
    expect(read.length + (counters()['LostRecordCount'] as number)).toBe(6);
    expect(counters()['LostRecordCount']).toBeGreaterThan(0);
    await clock.advance(2000);
    expect(committed()).toEqual({ 't-0': 6 });
  });

  test.each([
    ['none', { consumer: { 'auto.offset.reset': 'none' } }],
    ['fail', { onOutOfRange: 'fail' as const }],
  ])('%s: the source errors, and the offset of the group stays', async (what, options) => {
    const { clock, cluster, write, start, committed } = setUp();
    write(['a', 'b', 'c']);
    if (what === 'fail') cluster.commit('flume', [{ topic: 't', partition: 0, offset: 9 }]);
    const { flow, bodies } = start(options);
    await expect(clock.settle(flow.done)).rejects.toMatchObject({ code: 'MR_KAFKA_OFFSET' });
    await clock.advance(10_000);
    expect(bodies()).toEqual([]);
    expect(committed()).toEqual(what === 'fail' ? { 't-0': 9 } : {});
  });
});

describe('trouble', () => {
  test('is told once, in whatever words and of whatever partitions it comes again', async () => {
    const { clock, cluster, start, messages } = setUp();
    let listener: ConsumerListener | undefined;
    const connect: KafkaConnector = async settings => {
      const client = await cluster.connect(settings);
      return { ...client, consumer: (options, given) => client.consumer(options, (listener = given)) };
    };
    const { metrics } = start({ connect });
    await clock.advance(100);
    for (const one of ['t-0', 't-1', 't-0', 't-2'])
      listener?.trouble(new MillraceError('MR_KAFKA', `${one} has no leader.`));
    expect(messages('error')).toEqual(['kafka: t-0 has no leader. It is tried again.']);
    expect(metrics.troubles.get('kafka')?.message).toBe('t-2 has no leader.');
    listener?.trouble(new MillraceError('MR_KAFKA_LOGIN', 'No way in.'));
    listener?.recovered();
    expect(messages('error')).toHaveLength(2);
    expect(messages('info')).toEqual(['kafka: what was wrong is over: No way in.']);
  });

  test('brokers that are away are reported and waited for, and so is a topic that is missing', async () => {
    const { clock, cluster, write, start, messages } = setUp({});
    cluster.down();
    const { bodies, flow, counters, metrics } = start();
    await clock.advance(1000);
    expect(metrics.troubles.get('kafka')).toMatchObject({ code: 'MR_KAFKA_UNREACHABLE' });
    expect(counters()['Unhealthy']).toBe(1);
    cluster.up();
    await clock.advance(1000);
    expect(metrics.troubles.get('kafka')).toMatchObject({ code: 'MR_KAFKA_UNKNOWN_TOPIC' });
    cluster.createTopic('t');
    write(['a']);
    await clock.advance(10_000);
    expect(bodies()).toEqual(['a']);
    expect(metrics.troubles.size).toBe(0);
    cluster.deleteTopic('t');
    await clock.advance(10_000);
    expect(metrics.troubles.size).toBe(1);
    cluster.createTopic('t');
    write(['b']);
    await clock.advance(10_000);
    expect(bodies()).toEqual(['a', 'b']);
    expect(messages('error').length).toBeGreaterThanOrEqual(3);
    await clock.settle(flow.stop());
    expect(clock.pending).toBe(0);
  });

  test('a stop while no broker answers ends, and does not say that all is well', async () => {
    const { clock, cluster, write, start, messages } = setUp();
    write(['a']);
    const { flow, sink, metrics } = start({}, hold);
    await clock.advance(100);
    cluster.down();
    sink.received[0]?.settle('ack');
    await clock.settle(flow.stop());
    expect(metrics.troubles.size).toBe(0);
    expect(messages('info')).toEqual([]);
  });
});

test('options that make no sense are refused with what is wrong', () => {
  const source = (given: object) => () => kafkaSource({ bootstrapServers: ['b:9092'], topics: ['t'], ...given });
  expect(source({ topics: [] })).toThrow('topics: there are none: name some, or give a regular expression for them');
  expect(source({ topicsRegex: '(' })).toThrow('topicsRegex');
  expect(source({ bootstrapServers: ['b'] })).toThrow('host:port');
  expect(source({ consumer: { 'group.id': 'x' } })).toThrow('groupId');
  expect(source({ batchSize: 0 })).toThrow('batchSize');
  expect(source({ topics: ['fine', 'a/b'] })).toThrow(
    'topics: there cannot be a topic "a/b". Expected up to 249 letters',
  );
  expect(source({ consumer: { 'session.timeout.ms': '3000' } })).toThrow(
    'consumer: session.timeout.ms: heartbeat.interval.ms is 3000, and session.timeout.ms, which has to be longer, is 3000.',
  );
  expect(source({ consumer: { 'session.timeout.ms': '3000', 'heartbeat.interval.ms': '1000' } })).not.toThrow();
});
