import { describe, expect, test } from 'vitest';
import { event, headers, type FlumeEvent } from '../../../src/core/event.ts';
import { run } from '../../../src/core/flow.ts';
import { currentScope, inScope, Scope } from '../../../src/core/scope.ts';
import { kafkaChannel, type KafkaChannelOptions } from '../../../src/operators/channels/kafka.ts';
import { decodeAvroEvent, encodeAvroEvent } from '../../../src/protocols/avro-event.ts';
import { partitionOf } from '../../../src/protocols/kafka/partitioner.ts';
import {
  channelLaws,
  FakeClock,
  memoryKafka,
  recordingLog,
  recordingSink,
  scriptedSource,
  type ChannelSpec,
  type MemoryKafka,
} from '../../../src/testing/index.ts';
import { playHistories } from '../../protocols/kafka/group-history.ts';

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

const setUp = (topics: Readonly<Record<string, number>> = { 'flume-channel': 3 }) => {
  const clock = new FakeClock();
  const log = recordingLog();
  const cluster = memoryKafka({ clock, topics });
  const inWorld = <R>(act: (scope: Scope) => R): R => {
    const scope = new Scope({ clock, log });
    return inScope(scope, () => act(scope));
  };
  const options = (given: Partial<KafkaChannelOptions> = {}) => ({
    bootstrapServers: [broker],
    connect: cluster.connect,
    ...given,
  });
  /** Puts batches and completes; nobody takes. */
  const put = async (batches: readonly (readonly FlumeEvent[])[], given: Partial<KafkaChannelOptions> = {}) =>
    inWorld(async scope => {
      const channel = kafkaChannel.create(options(given));
      const source = scriptedSource(
        batches.map(emit => ({ emit })),
        { onFailure: 'report', redelivery: { order: 'selective' } },
      );
      source.subscribe(channel.input());
      await clock.settle(channel.closed);
      return { settled: source.settled.map(({ what }) => what), ledger: scope.ledger, counters: channel.counters };
    });
  /** Takes for some time, then stops. */
  const take = async (given: Partial<KafkaChannelOptions> = {}, ms = 10_000) =>
    inWorld(async scope => {
      const channel = kafkaChannel.create(options(given));
      const sink = recordingSink([], { clock });
      channel.output().subscribe(sink);
      await clock.advance(ms);
      const counters = { ...channel.counters };
      channel.end({ keep: true });
      await clock.settle(channel.closed);
      return { sink, counters, ledger: scope.ledger };
    });
  return { clock, log, cluster, inWorld, options, put, take };
};

const events = (...bodies: readonly string[]) => bodies.map(body => event(body));
const bodiesOf = (some: readonly FlumeEvent[]) => some.map(({ body }) => String(body));

test('a topic that cannot be is refused', () => {
  expect(() => kafkaChannel.create({ bootstrapServers: [broker], topic: 'a/b' })).toThrow(
    'topic: there cannot be a topic "a/b". Expected up to 249 letters',
  );
});

describe('putting', () => {
  test('without a sink it is no member of the group; what it put is the brokers to keep', async () => {
    const { cluster, put, take } = setUp();
    const { settled, ledger } = await put([events('a', 'b'), events('c')]);
    expect(settled).toEqual(['acked', 'acked']);
    expect(ledger.snapshot()).toMatchObject({ accepted: 3, kept: 3, held: 0, delivered: 0 });
    expect(ledger.difference).toBe(0);
    expect(cluster.happened.rebalances).toBe(0);
    const taken = await take();
    expect(bodiesOf(taken.sink.acked).sort()).toEqual(['a', 'b', 'c']);
    expect(taken.ledger.snapshot()).toMatchObject({ kept: -3, delivered: 3, held: 0 });
    expect(cluster.members('flume')).toEqual([]);
  });

  test('the partition is that of the header, else the default, else that of the key', async () => {
    const { cluster, put } = setUp();
    const partitions = () => [0, 1, 2].map(partition => cluster.log('flume-channel', partition).length);
    await put([[event('a', headers({ p: '2' })), event('b')]], { partitionIdHeader: 'p', defaultPartitionId: 1 });
    expect(partitions()).toEqual([0, 1, 1]);
    await put([[event('c', headers({ key: 'k' }))]]);
    const at = partitionOf(Buffer.from('k'), 3);
    expect(cluster.log('flume-channel', at).at(-1)).toMatchObject({ key: Buffer.from('k') });
  });

  test.each([
    [true, { more: '1', key: 'k' }],
    [false, { key: 'k' }],
  ])('parseAsFlumeEvent %s', async (parseAsFlumeEvent, expected) => {
    const { cluster, put, take } = setUp({ 'flume-channel': 1 });
    await put([[event('body', headers({ more: '1', key: 'k' }))]], { parseAsFlumeEvent });
    const [record] = cluster.log('flume-channel', 0);
    expect(parseAsFlumeEvent ? decodeAvroEvent(record?.value as Buffer) : { body: record?.value }).toMatchObject({
      body: Buffer.from('body'),
    });
    const { sink } = await take({ parseAsFlumeEvent });
    expect(sink.acked.map(({ headers: head, body }) => [{ ...head }, String(body)])).toEqual([[expected, 'body']]);
  });

  test('what brokers refuse for good is rejected alone', async () => {
    const { put, take } = setUp({ 'flume-channel': 1 });
    const { settled, ledger } = await put([[event('a'), event(Buffer.alloc(2_000_000)), event('b')], events('c')]);
    expect(settled).toEqual(['rejected', 'acked']);
    expect(ledger.snapshot()).toMatchObject({ accepted: 4, rejected: 1, kept: 3 });
    expect(bodiesOf((await take()).sink.acked)).toEqual(['a', 'b', 'c']);
  });

  test('what is wrong with a put has the code of what is wrong with its events', async () => {
    const { clock, log, inWorld, options } = setUp({});
    await inWorld(async scope => {
      const channel = kafkaChannel.create(options());
      scriptedSource([{ emit: events('a', 'b') }]).subscribe(channel.input());
      await clock.advance(1000);
      expect(scope.metrics.troubles.get('kafka')).toMatchObject({ code: 'MR_KAFKA_UNKNOWN_TOPIC' });
      await clock.settle(channel.close());
    });
    expect(log.entries[0]?.message).toMatch(/^kafka: a put was not confirmed: .*flume-channel/);
  });

  test('puts that fail for hours in other and other places are one line in the log', async () => {
    const { clock, log, cluster, inWorld, options } = setUp({ 'flume-channel': 3 });
    const at = (partition: number) => ({ topic: 'flume-channel', partition });
    cluster.down(at(0));
    await inWorld(async () => {
      const channel = kafkaChannel.create(options({ partitionIdHeader: 'p' }));
      const emit = ['0', '1', '2'].map(p => event(p, headers({ p })));
      scriptedSource([{ emit }]).subscribe(channel.input());
      for (let turn = 0; turn < 60; turn++) {
        await clock.advance(60_000);
        cluster.down(at((turn + 1) % 3));
        cluster.up(at(turn % 3));
      }
      for (const partition of [0, 1, 2]) cluster.up(at(partition));
      await clock.settle(channel.closed);
    });
    expect(log.entries.map(({ level }) => level)).toEqual(['error', 'info']);
  });

  test('a put that was not confirmed is nacked, with all that waits behind it, and reported until one is', async () => {
    const { clock, log, cluster, inWorld, options } = setUp({ 'flume-channel': 1 });
    cluster.script('sendRefused');
    await inWorld(async scope => {
      const channel = kafkaChannel.create(options());
      const source = scriptedSource(
        ['a', 'b', 'c', 'd', 'e', 'f'].map(body => ({ emit: events(body) })),
        { pushing: true },
      );
      source.subscribe(channel.input());
      await clock.settle(channel.closed);
      expect(scope.metrics.troubles.size).toBe(0);
      expect(scope.ledger.difference).toBe(0);
    });
    const written = cluster.log('flume-channel', 0).map(({ value }) => String(decodeAvroEvent(value as Buffer).body));
    expect([...new Set(written)]).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
    const told = log.entries.map(({ level, message }) => `${level} ${message}`);
    expect(told).toEqual([
      expect.stringContaining('error kafka: a put was not confirmed'),
      'info kafka: puts are confirmed again.',
    ]);
  });
});

describe('a channel between a source and a sink', () => {
  test('delivers all that was put, and completes', async () => {
    const { clock, inWorld, options } = setUp();
    const sink = recordingSink([], { clock });
    const source = scriptedSource(Array.from({ length: 50 }, (_, i) => ({ emit: events(`${i}`, `${i}'`) })));
    const flow = inWorld(() => run(source, kafkaChannel(options()), sink));
    await clock.settle(flow.done);
    expect(sink.acked).toHaveLength(100);
    expect(new Set(bodiesOf(sink.acked)).size).toBe(100);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 100, held: 0, kept: 0, copied: 0 });
  });

  test('a stop keeps what is not delivered, and the next one has it', async () => {
    const { clock, inWorld, options, take } = setUp({ 'flume-channel': 1 });
    const sink = recordingSink(['ack', 'hold', 'ack'], { clock });
    const source = scriptedSource([...events('a', 'b', 'c', 'd').map(one => ({ emit: [one] })), 'idle']);
    const flow = inWorld(() =>
      run(source, kafkaChannel({ ...options(), batchSize: 1, maxInFlight: { deliveries: 3 } }), sink),
    );
    await clock.advance(2000);
    expect(bodiesOf(sink.acked)).toEqual(['a', 'c', 'd']);
    await clock.settle(flow.stop());
    // c and d were done, but b before them was not.
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 4, held: 0, kept: 3 });
    expect(flow.ledger.difference).toBe(0);
    expect(bodiesOf((await take()).sink.acked)).toEqual(['b', 'c', 'd']);
  });

  test('a part of a delivery that is acked does not move the offset before the rest is', async () => {
    const { clock, cluster, inWorld, options, put } = setUp({ 'flume-channel': 1 });
    await put([events('a', 'b', 'c')]);
    await inWorld(async scope => {
      const channel = kafkaChannel.create(options({ commitInterval: 10 }));
      const sink = recordingSink([{ outcome: 'nack', failed: [1] }, 'hold'], { clock });
      channel.output({ redelivery: { initial: 10, max: 10 } }).subscribe(sink);
      await clock.advance(1000);
      expect(cluster.committed('flume').map(({ offset }) => offset)).toEqual([0]);
      expect(sink.received.map(({ events: some }) => bodiesOf(some).join(''))).toEqual(['abc', 'b']);
      sink.received[1]?.settle('ack');
      await clock.advance(100);
      expect(cluster.committed('flume').map(({ offset }) => offset)).toEqual([3]);
      channel.end();
      await clock.settle(channel.closed);
      expect(scope.ledger.difference).toBe(0);
    });
  });

  test('channels of several agents share the work, and consumers of one compete', async () => {
    const { clock, cluster, inWorld, options } = setUp();
    const agents = [0, 1].map(() =>
      inWorld(scope => {
        const channel = kafkaChannel.create(options({ consumer: { 'heartbeat.interval.ms': '100' } }));
        const sinks = [0, 1].map(() => {
          const sink = recordingSink(() => ({ outcome: 'ack', after: 5 }), { clock });
          channel.output({ batchSize: 5, maxInFlight: { deliveries: 1 } }).subscribe(sink);
          return sink;
        });
        return { scope, channel, sinks };
      }),
    );
    await clock.advance(5000);
    for (let i = 0; i < 300; i++)
      cluster.write({ topic: 'flume-channel', partition: i % 3 }, [
        { key: null, value: encodeAvroEvent(event(`${i}`)) },
      ]);
    await clock.advance(5000);
    const read = agents.map(({ sinks }) => sinks.map(({ acked }) => acked.length));
    expect(read.flat().reduce((sum, count) => sum + count, 0)).toBe(300);
    expect(read.flat().every(count => count > 0)).toBe(true);
    for (const { scope, channel } of agents) {
      channel.end({ keep: true });
      await clock.settle(channel.closed);
      expect(scope.ledger.difference).toBe(0);
    }
  });
});

describe('records of others', () => {
  test('what cannot be understood stops its partition, or is left out and counted', async () => {
    const { clock, cluster, inWorld, options, take } = setUp({ 'flume-channel': 1 });
    cluster.write({ topic: 'flume-channel', partition: 0 }, [
      { key: null, value: encodeAvroEvent(event('a')) },
      { key: null, value: Buffer.from('no') },
      { key: null, value: encodeAvroEvent(event('b')) },
    ]);
    await inWorld(async scope => {
      const channel = kafkaChannel.create(options());
      const sink = recordingSink([], { clock });
      channel.output().subscribe(sink);
      await clock.advance(5000);
      expect(bodiesOf(sink.acked)).toEqual(['a']);
      expect(scope.metrics.troubles.get('kafka')).toMatchObject({ code: 'MR_BAD_INPUT' });
      expect(channel.counters.ChannelSize).toBe(2);
      channel.end({ keep: true });
      await clock.settle(channel.closed);
    });
    const { sink, counters, ledger } = await take({ onPoison: 'skip' });
    expect(bodiesOf(sink.acked)).toEqual(['b']);
    expect(counters).toMatchObject({ PoisonRecordCount: 1, Unhealthy: 0, ChannelSize: 0 });
    expect(ledger.snapshot()).toMatchObject({ rejected: 1, kept: -2 });
  });

  test('a group begins with the oldest, or where it is told to', async () => {
    const { cluster, take } = setUp({ 'flume-channel': 1 });
    cluster.write({ topic: 'flume-channel', partition: 0 }, [{ key: null, value: encodeAvroEvent(event('a')) }]);
    expect((await take({ groupId: 'latest', consumer: { 'auto.offset.reset': 'latest' } })).sink.acked).toEqual([]);
    expect((await take({ groupId: 'old', readSmallestOffset: false })).sink.acked).toEqual([]);
    expect(bodiesOf((await take()).sink.acked)).toEqual(['a']);
  });

  test('offsets without records are not waited for', async () => {
    const { clock, cluster, inWorld, options } = setUp({ 'flume-channel': 1 });
    cluster.write({ topic: 'flume-channel', partition: 0 }, [{ key: null, value: encodeAvroEvent(event('a')) }]);
    cluster.leaveGap({ topic: 'flume-channel', partition: 0 }, 3);
    const sink = recordingSink([], { clock });
    const flow = inWorld(() => run(scriptedSource([{ emit: events('b') }]), kafkaChannel(options()), sink));
    await clock.settle(flow.done);
    expect(bodiesOf(sink.acked)).toEqual(['a', 'b']);
    expect(flow.ledger.difference).toBe(0);
  });
});

test('random histories of a group, into which others put: nothing is lost, and first occurrences are in order', async () => {
  const seen = await playHistories(
    {
      topic: 'flume-channel',
      start: (connect, sink) => {
        const channel = kafkaChannel.create({
          bootstrapServers: [broker],
          connect,
          parseAsFlumeEvent: false,
          prefetchRecords: 20,
        });
        const flow = run(channel.output({ batchSize: 4, maxInFlight: { deliveries: 4 } }), sink);
        return {
          ledger: flow.ledger,
          stop: () => {
            channel.end({ keep: true });
            return channel.closed;
          },
          abort: () => {
            flow.abort();
            void channel.close();
          },
        };
      },
    },
    250,
  );
  for (const [what, count] of Object.entries(seen)) expect(count, what).toBeGreaterThan(10);
});
