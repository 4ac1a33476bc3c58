import fc from 'fast-check';
import { afterEach, describe, expect, it, test } from 'vitest';
import { inScope, Scope } from '../../src/core/scope.ts';
import {
  Batch,
  createSource,
  event,
  headers,
  run,
  type Emitter,
  type Flow,
  type FlumeEvent,
  type Settled,
} from '../../src/index.ts';
import { kafkaSink } from '../../src/kafka.ts';
import { MillraceError } from '../../src/core/errors.ts';
import { decodeAvroEvent } from '../../src/protocols/avro-event.ts';
import type { KafkaConnector } from '../../src/protocols/kafka/client.ts';
import { partitionOf } from '../../src/protocols/kafka/partitioner.ts';
import {
  FakeClock,
  memoryKafka,
  recordingLog,
  seededRandom,
  sinkLaws,
  type MemoryKafka,
  type MemoryKafkaOptions,
  type SinkSpec,
  type SinkTuning,
} from '../../src/testing/index.ts';
import { currentScope } from '../../src/core/scope.ts';

type Tell = (what: Settled) => void;
type Given = Parameters<typeof kafkaSink>[0];
type Options = Partial<Given>;
const flows: Flow[] = [];
afterEach(async () => {
  for (const flow of flows.splice(0)) {
    flow.abort();
    await flow.done.catch(() => undefined);
  }
});

/** A sink that is given batches by hand, and a cluster, both on one clock. */
const opened = async (
  options: Options = {},
  given: MemoryKafkaOptions = {},
  connecting: (connect: KafkaConnector) => KafkaConnector = connect => connect,
) => {
  const clock = new FakeClock(1_700_000_000_000);
  const random = seededRandom(7);
  const cluster = memoryKafka({ clock, random, topics: { t: 3, one: 1 }, ...given });
  const log = recordingLog();
  let emitter!: Emitter<FlumeEvent, Tell>;
  const source = createSource<FlumeEvent, Tell>(
    lent => {
      emitter = lent;
      return { settled: (tell, what) => tell(what) };
    },
    { onFailure: 'report' },
  );
  const sink = kafkaSink({
    bootstrapServers: ['memory:9092'],
    topic: 't',
    connect: connecting(cluster.connect),
    ...options,
  });
  const flow = inScope(new Scope({ clock, log, random }), () => run(source, sink));
  flows.push(flow);
  await clock.advance(100);
  const put = (events: readonly FlumeEvent[] | Batch) => new Promise<Settled>(tell => emitter.emit(events, tell));
  const counters = () => flow.metrics.snapshot()['SINK.kafka']!;
  const bodies = (topic: string, partition: number) => cluster.log(topic, partition).map(({ value }) => String(value));
  return { clock, cluster, log, sink, flow, put, counters, bodies };
};

const lines = (count: number, head = headers({}), from = 0) =>
  Array.from({ length: count }, (_, i) => event(`e${from + i}`, head));
const all = (cluster: MemoryKafka, topic: string, partitions: number) =>
  Array.from({ length: partitions }, (_, partition) => cluster.log(topic, partition)).flat();
const sizes = (cluster: MemoryKafka) => [0, 1, 2].map(partition => cluster.log('t', partition).length);

describe('a record', () => {
  it('is the body, with the key of the header', async () => {
    const { clock, put, cluster } = await opened();
    const one = event('body', headers({ key: 'k', other: 'x' }));
    expect(await clock.settle(put([one]))).toBe('acked');
    const partition = partitionOf(Buffer.from('k'), 3);
    expect(cluster.log('t', partition)).toMatchObject([
      { key: Buffer.from('k'), value: Buffer.from('body'), timestamp: expect.any(Number) as number },
    ]);
  });

  it('has an empty value for an empty body: none would be a tombstone', async () => {
    const { clock, put, cluster } = await opened({ topic: 'one' });
    await clock.settle(put([event('')]));
    expect(cluster.log('one', 0)[0]?.value).toEqual(Buffer.alloc(0));
  });

  it('has the headers that are mapped, and the time that is named', async () => {
    const { clock, put, cluster, log } = await opened({
      topic: 'one',
      headers: { app: 'x-app', none: 'x-none' },
      timestampHeader: 'timestamp',
    });
    await clock.settle(
      put([
        event('a', headers({ app: 'wéb', timestamp: '1234' })),
        event('b', headers({ timestamp: 'yesterday' })),
        event('c', headers({ timestamp: '-' })),
      ]),
    );
    const [a, b] = cluster.log('one', 0);
    expect(a).toMatchObject({ timestamp: 1234, headers: { 'x-app': Buffer.from('wéb') } });
    expect(Object.keys(a?.headers ?? {})).toEqual(['x-app']);
    expect(b?.timestamp).toBeGreaterThan(1_600_000_000_000);
    expect(log.entries.filter(({ message }) => message.includes('is no time: "yesterday"'))).toHaveLength(1);
    expect(log.entries.filter(({ message }) => message.includes('is no time'))).toHaveLength(1);
  });

  it('is an event in Avro if that is asked for', async () => {
    const { clock, put, cluster } = await opened({ topic: 'one', useFlumeEventFormat: true });
    await clock.settle(put([event('one', headers({ k: 'v' }))]));
    expect(cluster.log('one', 0)[0]?.value?.toString('hex')).toBe('02026b027600066f6e65');
  });

  it('comes from a block as from events', async () => {
    const { clock, put, bodies } = await opened({ topic: 'one' });
    await clock.settle(
      put(Batch.ofBlock({ bytes: Buffer.from('a\nbc\n\n'), ends: Uint32Array.of(1, 4, 5), headers: headers({}) })),
    );
    expect(bodies('one', 0)).toEqual(['a', 'bc', '']);
  });
});

describe('the topic', () => {
  it.each<[string, Options, Record<string, string>, string]>([
    ['is that of the header', {}, { topic: 'one' }, 'one'],
    ['is that of another header', { topicHeader: 'to' }, { to: 'one', topic: 'x' }, 'one'],
    ['is made of headers', { topic: '%{app}-logs' }, { app: 'web' }, 'web-logs'],
    ['is taken as it stands, without override', { topic: 'one', allowTopicOverride: false }, { topic: 't' }, 'one'],
  ])('%s', async (_, options, head, topic) => {
    const { clock, put, cluster } = await opened(options, { topics: { t: 1, one: 1, 'web-logs': 1 } });
    expect(await clock.settle(put([event('x', headers(head))]))).toBe('acked');
    expect(cluster.log(topic, 0)).toHaveLength(1);
  });

  it.each([['a/b'], [''], ['..'], ['x'.repeat(250)]])('cannot be %j: that event is rejected alone', async topic => {
    const { clock, put } = await opened({ topic: 'one' });
    const bad = put([event('bad', headers({ topic }))]);
    const good = put([event('good')]);
    expect(await clock.settle(Promise.all([bad, good]))).toEqual(['rejected', 'acked']);
  });

  it('that is not there is waited for, and other topics are not', async () => {
    const { clock, put, cluster, sink, counters } = await opened();
    let settled: Settled | undefined;
    void put([event('late', headers({ topic: 'new' })), event('now', headers({ topic: 'one' }))]).then(
      what => (settled = what),
    );
    await clock.until(() => cluster.log('one', 0).length > 0);
    await clock.advance(5000);
    expect(settled).toBeUndefined();
    expect(sink.trouble).toMatchObject({ message: expect.stringContaining('new') as string });
    expect(counters()['RollbackCount']).toBeGreaterThan(0);
    cluster.createTopic('new', 1);
    await clock.until(() => settled !== undefined);
    expect(settled).toBe('acked');
    expect([cluster.log('new', 0).length, cluster.log('one', 0).length]).toEqual([1, 1]);
    expect(sink.trouble).toBeUndefined();
  });

  it('that is not there at the start is told of', async () => {
    const { log } = await opened({ topic: 'none' });
    expect(log.entries.map(({ message }) => message).join()).toContain('none');
  });

  it('that one may not write to rejects its events at once, and no others', async () => {
    const { clock, put, cluster } = await opened();
    cluster.forbid('write', 'one');
    const forbidden = put(lines(64, headers({ topic: 'one' })));
    expect(await clock.settle(Promise.all([forbidden, put(lines(3))]))).toEqual(['rejected', 'acked']);
    expect(cluster.log('one', 0)).toEqual([]);
  });
});

describe('the partition', () => {
  it('is that of the header, else the default', async () => {
    const { clock, put, bodies } = await opened({ partitionIdHeader: 'p', defaultPartitionId: 1 });
    await clock.settle(put([event('a', headers({ p: '2' })), event('b'), event('c', headers({ p: '0', key: 'k' }))]));
    expect([0, 1, 2].map(partition => bodies('t', partition))).toEqual([['c'], ['b'], ['a']]);
  });

  it.each([
    ['no number', 'x'],
    ['no number', ''],
    ['below zero', '-1'],
    ['beyond the last', '3'],
    ['absurd', '4294967296'],
  ])('cannot be %s: %j is rejected alone', async (_, p) => {
    const { clock, put, bodies } = await opened({ partitionIdHeader: 'p' });
    const results = [event('bad', headers({ p })), event('good', headers({ p: '1' }))].map(one => put([one]));
    expect(await clock.settle(Promise.all(results))).toEqual(['rejected', 'acked']);
    expect(bodies('t', 1)).toEqual(['good']);
  });

  it('that is new is found when somebody names it', async () => {
    const { clock, put, cluster, bodies } = await opened({ partitionIdHeader: 'p' });
    await clock.settle(put(lines(1)));
    cluster.addPartitions('t', 2);
    expect(await clock.settle(put([event('x', headers({ p: '4' }))]))).toBe('acked');
    expect(bodies('t', 4)).toEqual(['x']);
  });

  it('that is new is used when what is known is old', async () => {
    const { clock, put, cluster } = await opened({ topic: 'one', producer: { 'metadata.max.age.ms': '60000' } });
    const big = Array.from({ length: 8 }, () => event(Buffer.alloc(20_000)));
    await clock.settle(put(big));
    cluster.addPartitions('one', 1);
    await clock.settle(put(big));
    expect(cluster.log('one', 1)).toEqual([]);
    await clock.advance(60_000);
    await clock.settle(put(big));
    expect(cluster.log('one', 1).length).toBeGreaterThan(0);
  });

  it('that is the default and is not there is waited for', async () => {
    const { clock, put, cluster, sink, bodies } = await opened({ defaultPartitionId: 3 });
    const settled = put(lines(1));
    await clock.advance(2000);
    expect(sink.trouble?.message).toContain('there is no partition 3, which is the defaultPartitionId');
    cluster.addPartitions('t', 1);
    expect(await clock.settle(settled)).toBe('acked');
    expect(bodies('t', 3)).toEqual(['e0']);
  });

  it('is each of them in turn, without a key', async () => {
    const { clock, put, cluster } = await opened();
    const settled = Array.from({ length: 30 }, () => put(Array.from({ length: 20 }, () => event(Buffer.alloc(1000)))));
    await clock.settle(Promise.all(settled));
    expect(sizes(cluster).reduce((sum, n) => sum + n)).toBe(600);
    expect(Math.max(...sizes(cluster)) - Math.min(...sizes(cluster))).toBeLessThan(40);
    expect(cluster.happened.overlaps).toBe(0);
  });
});

describe('what cannot be written', () => {
  it('because it is larger than it may be is rejected alone', async () => {
    const { clock, put, bodies } = await opened({ topic: 'one', producer: { 'max.request.size': '200' } });
    const events = [event('a'), event(Buffer.alloc(161)), event('b')];
    expect(await clock.settle(put(events))).toBe('rejected');
    expect(bodies('one', 0)).toEqual(['a', 'b']);
  });

  it('because the broker does not take it is found among the others, in order', async () => {
    const { clock, put, bodies, cluster } = await opened({ topic: 'one' }, { maxMessageBytes: 1000 });
    const events = lines(40);
    events[17] = event(Buffer.alloc(2000, 'x'));
    events[39] = event(Buffer.alloc(2000, 'y'));
    expect(await clock.settle(put(events))).toBe('rejected');
    expect(bodies('one', 0)).toEqual(
      lines(39)
        .map(({ body }) => String(body))
        .filter(body => body !== 'e17'),
    );
    expect(cluster.happened.overlaps).toBe(0);
  });

  it('because something is wrong with this program is not held against it', async () => {
    const lacking = new MillraceError('MR_PEER_MISSING', 'npm install lz4-napi');
    let broken = true;
    const { clock, put, sink, bodies } = await opened({ topic: 'one' }, {}, connect => async settings => {
      const client = await connect(settings);
      const makeProducer = client.producer.bind(client);
      client.producer = options => {
        const producer = makeProducer(options);
        const send = producer.send.bind(producer);
        producer.send = (to, records) => (broken ? Promise.reject(lacking) : send(to, records));
        return producer;
      };
      return client;
    });
    const settled = put(lines(2));
    await clock.advance(1000);
    expect(sink.trouble?.message).toContain('lz4-napi');
    broken = false;
    expect(await clock.settle(settled)).toBe('acked');
    expect(bodies('one', 0)).toEqual(['e0', 'e1']);
  });
});

describe('when a partition does not take it', () => {
  it('nothing of it overtakes, and the other partitions go on', async () => {
    const { clock, put, cluster, bodies } = await opened({ partitionIdHeader: 'p' });
    const to = (p: number, count: number, from: number) => lines(count, headers({ p: String(p) }), from);
    await clock.settle(put(to(1, 1, 0)));
    cluster.down({ topic: 't', partition: 1 });
    const settled = put([...to(0, 3, 10), ...to(1, 3, 20), ...to(2, 3, 30)]);
    await clock.until(() => bodies('t', 2).length === 3 && bodies('t', 0).length === 3);
    await clock.advance(5000);
    expect(bodies('t', 1)).toEqual(['e0']);
    cluster.up({ topic: 't', partition: 1 });
    expect(await clock.settle(settled)).toBe('acked');
    expect([0, 1, 2].map(partition => bodies('t', partition).length)).toEqual([3, 4, 3]);
    expect(bodies('t', 1)).toEqual(['e0', 'e20', 'e21', 'e22']);
  });

  it('what was written although nobody said so is not written again: the same goes to the same partition', async () => {
    const { clock, put, cluster } = await opened();
    cluster.script('sendUnanswered', 3);
    expect(await clock.settle(put(lines(50)))).toBe('acked');
    expect(all(cluster, 't', 3)).toHaveLength(50);
    expect(cluster.happened.dropped).toBe(3);
  });

  it('goes elsewhere if the partition is gone for good', async () => {
    const { clock, put, cluster } = await opened();
    await clock.settle(put([event(Buffer.alloc(20_000))]));
    const events = Array.from({ length: 3 }, () => event(Buffer.alloc(20_000)));
    cluster.down();
    const settled = put(events);
    await clock.advance(5000);
    cluster.deleteTopic('t');
    cluster.createTopic('t', 1);
    cluster.up();
    // Not only when what is known is old.
    expect(await clock.settle(settled, 60_000)).toBe('acked');
    expect(cluster.log('t', 0)).toHaveLength(3);
  });

  it('with acks 1 it may be there twice', async () => {
    const { clock, put, cluster } = await opened({ acks: '1', topic: 'one' });
    cluster.script('sendUnanswered');
    expect(await clock.settle(put(lines(5)))).toBe('acked');
    expect(cluster.log('one', 0)).toHaveLength(10);
  });

  it('a large write is several sends, and ends at the one that failed', async () => {
    const { clock, put, cluster, bodies } = await opened({ topic: 'one' });
    const events = Array.from({ length: 30 }, (_, i) => event(`${i} ${'x'.repeat(100_000)}`));
    cluster.script('sendRefused', 2);
    expect(await clock.settle(put(events))).toBe('acked');
    expect(bodies('one', 0).map(body => Number(body.split(' ')[0]))).toEqual(events.map((_, i) => i));
  });
});

it('joins what waits into large sends', async () => {
  const { clock, put, counters, cluster } = await opened({ topic: 'one' });
  const settled = Array.from({ length: 200 }, (_, i) => put(lines(10, headers({}), i * 10)));
  await clock.settle(Promise.all(settled));
  expect(cluster.log('one', 0)).toHaveLength(2000);
  expect(counters()).toMatchObject({ EventDrainSuccessCount: 2000, ConnectionCreatedCount: 1, RollbackCount: 0 });
});

it('keeps one send per partition with several lanes', async () => {
  const { clock, put, cluster } = await opened({ concurrency: 4 });
  await clock.settle(Promise.all(Array.from({ length: 50 }, () => put(lines(10)))));
  expect(all(cluster, 't', 3)).toHaveLength(500);
  expect(cluster.happened.overlaps).toBe(0);
});

it('waits for a cluster that is not there yet', async () => {
  const clock = new FakeClock();
  const cluster = memoryKafka({ clock, topics: { t: 1 } });
  cluster.down();
  const log = recordingLog();
  const sink = kafkaSink({ bootstrapServers: ['memory:9092'], topic: 't', connect: cluster.connect });
  let emitter!: Emitter<FlumeEvent, Tell>;
  const source = createSource<FlumeEvent, Tell>(lent => {
    emitter = lent;
    return { settled: (tell, what) => tell(what) };
  });
  const flow = inScope(new Scope({ clock, log }), () => run(source, sink));
  flows.push(flow);
  await clock.advance(5000);
  expect(sink.trouble).toMatchObject({ code: 'MR_KAFKA_UNREACHABLE' });
  const settled = new Promise<Settled>(tell => emitter.emit(lines(3), tell));
  await clock.advance(5000);
  cluster.up();
  expect(await clock.settle(settled)).toBe('acked');
});

it('ends at once while brokers that were asked say nothing', async () => {
  let closed = 0;
  const { clock, flow } = await opened({}, {}, connect => async settings => {
    const client = await connect(settings);
    let give!: (cause: Error) => void;
    const silence = new Promise<number>((_, reject) => (give = reject));
    silence.catch(() => undefined);
    return {
      ...client,
      partitions: () => silence,
      close: () => {
        closed++;
        give(new Error('closed'));
        return client.close();
      },
    };
  });
  await clock.settle(flow.stop());
  expect(closed).toBe(1);
});

describe('options', () => {
  const made = (options: object) => () => kafkaSink({ bootstrapServers: ['b:1'], ...options });
  it.each<[object, RegExp]>([
    [{ bootstrapServers: [] }, /bootstrapServers: expected host:port/],
    [{ topic: '%q' }, /topic: there is no escape %q/],
    [{ topic: 'a/b' }, /topic: there cannot be a topic "a\/b". Expected up to 249 letters/],
    [{ topic: '%{a}', allowTopicOverride: false }, /topic: there cannot be a topic "%\{a\}"/],
    [{ acks: '2' }, /acks: expected one of all, 1, 0, found "2"/],
    [{ compression: 'brotli' }, /compression: expected one of none, gzip, snappy, lz4, zstd/],
    [
      { producer: { 'linger.sm': '1' } },
      /producer: linger\.sm: a producer has no such property; did you mean linger\.ms/,
    ],
    [{ acks: '1', producer: { 'enable.idempotence': 'true' } }, /enable\.idempotence needs acks = all/],
    [{ topik: 'x' }, /there is no option topik; did you mean topic/],
  ])('%j are refused', (options, message) => {
    expect(made(options)).toThrow(message);
  });

  it('has -1 for all', () => {
    expect(made({ acks: '-1' })).not.toThrow();
    expect(made({ topic: 'a/%{b}' })).not.toThrow();
  });
});

describe('laws', () => {
  /** What a cluster has got, in the order in which it was seen. */
  const written = (cluster: MemoryKafka, partitions: number, decode: (value: Buffer) => Partial<FlumeEvent>) => {
    const seen: Partial<FlumeEvent>[] = [];
    const next = new Array<number>(partitions).fill(0);
    return () => {
      next.forEach((from, partition) => {
        const log = cluster.log('t', partition);
        for (const { value } of log.slice(from)) seen.push(decode(value ?? Buffer.alloc(0)));
        next[partition] = log.length;
      });
      return seen;
    };
  };
  const body = (value: Buffer) => ({ body: value });
  const spec = (
    name: string,
    options: Options,
    {
      partitions = 1,
      decode = decodeAvroEvent,
      ...given
    }: MemoryKafkaOptions & { partitions?: number; decode?: (value: Buffer) => Partial<FlumeEvent> },
    more: Partial<SinkSpec> = {},
  ): SinkSpec => ({
    name,
    make: (tuning: SinkTuning) => {
      const { clock } = currentScope();
      const cluster = memoryKafka({ clock, random: seededRandom(3), topics: { t: partitions }, ...given });
      return {
        sink: kafkaSink({
          bootstrapServers: ['b:1'],
          topic: 't',
          allowTopicOverride: false,
          useFlumeEventFormat: true,
          connect: cluster.connect,
          ...options,
          ...tuning,
        }),
        written: written(cluster, partitions, decode),
        switch: up => (up ? cluster.up() : cluster.down()),
      };
    },
    ...more,
  });
  const faults = { sendRefused: 0.1, sendUnanswered: 0.1, sendRepeated: 0.05, sendSlow: 0.05 };
  const specs: Record<string, SinkSpec> = {
    'one partition': spec('kafka', {}, { faults }),
    'acks 1': spec('kafka 1', { acks: '1' }, { faults }),
    'three partitions': spec('wide kafka', {}, { partitions: 3, faults }, { order: 'none' }),
    'a topic that takes small ones only': spec(
      'picky kafka',
      { useFlumeEventFormat: false },
      { faults, maxMessageBytes: 82 + 8, decode: body },
      { headers: false, refuses: ({ body: { length } }) => length > 8 },
    ),
  };
  describe.each(Object.entries(specs))('%s', (_, under) => {
    for (const law of sinkLaws(under)) test(law.name, () => law.run());
  });
});

it('keeps order in each partition, and loses nothing, whatever happens', () =>
  fc.assert(
    fc.asyncProperty(
      fc.integer(),
      fc.array(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 30 }), {
        minLength: 1,
        maxLength: 15,
      }),
      fc.array(fc.tuple(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 2 })), { maxLength: 4 }),
      async (seed, puts, outages) => {
        const { clock, cluster, put } = await opened(
          {},
          { random: seededRandom(seed), faults: { sendRefused: 0.15, sendUnanswered: 0.15, sendSlow: 0.1 } },
        );
        let number = 0;
        const sent: { key: string; number: number }[] = [];
        const settled = puts.map(keys =>
          put(
            keys.map(n => {
              const key = n === 0 ? '' : `k${n}`;
              sent.push({ key, number });
              return event(
                `${number++} ${'x'.repeat(n === 0 ? 5000 : 0)}`,
                key === '' ? headers({}) : headers({ key }),
              );
            }),
          ),
        );
        for (const [after, partition] of outages) {
          await clock.advance(after);
          cluster.down({ topic: 't', partition });
          await clock.advance(after);
          cluster.up({ topic: 't', partition });
        }
        expect(new Set(await clock.settle(Promise.all(settled)))).toEqual(new Set(['acked']));
        const firsts = [0, 1, 2].map(partition => [
          ...new Set(cluster.log('t', partition).map(({ value }) => parseInt(String(value)))),
        ]);
        for (const numbers of firsts) expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
        expect(firsts.flat().toSorted((a, b) => a - b)).toEqual(sent.map(one => one.number));
        // The broker knows what it has from this producer already.
        expect(all(cluster, 't', 3)).toHaveLength(sent.length);
        expect(cluster.happened.overlaps).toBe(0);
        for (const flow of flows.splice(0)) flow.abort();
      },
    ),
    { numRuns: 60 },
  ));
