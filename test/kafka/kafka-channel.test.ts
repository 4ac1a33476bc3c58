import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { inScope, Scope } from '../../src/core/scope.ts';
import { event, headers, run, type FlumeEvent } from '../../src/index.ts';
import { kafkaChannel, type KafkaChannelOptions } from '../../src/kafka.ts';
import { recordingLog, recordingSink, scriptedSource } from '../../src/testing/index.ts';
import { describeKafka, kafkaVersions, startKafka, type Kafka, type KafkaVersion } from './brokers.ts';

const options = (kafka: Kafka, given: Partial<KafkaChannelOptions>) => ({
  bootstrapServers: kafka.bootstrap,
  ...given,
  consumer: {
    'fetch.max.wait.ms': '100',
    'session.timeout.ms': '6000',
    'heartbeat.interval.ms': '300',
    ...given.consumer,
  },
});

const inOwn = <R>(act: (scope: Scope) => R): R => {
  const scope = new Scope({ log: recordingLog() });
  return inScope(scope, () => act(scope));
};

/** A channel without a sink. */
const put = (kafka: Kafka, batches: readonly (readonly FlumeEvent[])[], given: Partial<KafkaChannelOptions>) =>
  inOwn(async scope => {
    const channel = kafkaChannel.create(options(kafka, given));
    const source = scriptedSource(batches.map(emit => ({ emit })));
    source.subscribe(channel.input());
    await channel.closed;
    expect(scope.ledger.difference).toBe(0);
    return source.settled.map(({ what }) => what);
  });

/** A channel without a source, that takes until told to stop. */
const take = (kafka: Kafka, given: Partial<KafkaChannelOptions>, wait = 0) =>
  inOwn(scope => {
    const channel = kafkaChannel.create(options(kafka, given));
    const sink = recordingSink(wait === 0 ? [] : () => ({ outcome: 'ack', after: wait }));
    channel.output({ batchSize: 50, maxInFlight: { deliveries: 2 } }).subscribe(sink);
    const stop = async () => {
      channel.end({ keep: true });
      await channel.closed;
      expect(scope.ledger.difference).toBe(0);
    };
    return { sink, stop };
  });

const until = async (condition: () => boolean, what: () => string, limit = 60_000): Promise<void> => {
  const end = Date.now() + limit;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within ${limit} ms: ${what()}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
};

const numbered = (count: number, from = 0) => Array.from({ length: count }, (_, i) => event(String(from + i)));
const bodiesOf = (events: readonly FlumeEvent[]) => events.map(({ body }) => String(body));

describeKafka('the Kafka channel', () => {
  describe.each(kafkaVersions)('on Kafka %s', (version: KafkaVersion) => {
    let kafka: Kafka;
    beforeAll(async () => {
      kafka = await startKafka({ version });
    });
    afterAll(() => kafka.stop());

    test('between a source and a sink it delivers all that was put, and completes', async () => {
      await kafka.createTopic('whole', { partitions: 3 });
      const given = { topic: 'whole', groupId: 'whole' };
      const all = numbered(5000).map(one => event(one.body, headers({ n: String(one.body) })));
      const source = scriptedSource(
        Array.from({ length: 50 }, (_, i) => ({ emit: all.slice(100 * i, 100 * (i + 1)) })),
        { pushing: true },
      );
      const sink = recordingSink();
      const flow = inOwn(() => run(source, kafkaChannel(options(kafka, given)), sink));
      await flow.done;
      expect(sink.acked).toHaveLength(5000);
      expect(new Set(sink.acked.map(({ headers: { n }, body }) => `${n ?? ''} ${String(body)}`)).size).toBe(5000);
      expect(flow.ledger.snapshot()).toMatchObject({ accepted: 5000, held: 0, kept: 0 });
    });

    test('puts without a sink, takes without a source; order is that of the partition', async () => {
      await kafka.createTopic('halves', { partitions: 2 });
      const given = { topic: 'halves', groupId: 'halves', partitionIdHeader: 'p' };
      const batches = Array.from({ length: 20 }, (_, batch) =>
        numbered(100, 100 * batch).map(({ body }) => event(body, headers({ p: String(Number(body) % 2) }))),
      );
      expect(new Set(await put(kafka, batches, given))).toEqual(new Set(['acked']));
      const { sink, stop } = take(kafka, given);
      await until(
        () => sink.acked.length === 2000,
        () => String(sink.acked.length),
      );
      await stop();
      for (const p of ['0', '1']) {
        const numbers = sink.received.flatMap(({ events }) => events).filter(one => one.headers['p'] === p);
        expect(bodiesOf(numbers)).toEqual(Array.from({ length: 1000 }, (_, i) => String(2 * i + Number(p))));
      }
      const again = take(kafka, given);
      await new Promise(resolve => setTimeout(resolve, 1500));
      expect(again.sink.received).toEqual([]);
      await again.stop();
    });

    test('an event that the broker finds too large is rejected alone', async () => {
      await kafka.createTopic('small', { configs: { 'max.message.bytes': '2000' } });
      const given = { topic: 'small', groupId: 'small' };
      const source = scriptedSource([{ emit: [event('a'), event(Buffer.alloc(5000)), event('b')] }], {
        onFailure: 'report',
      });
      const sink = recordingSink();
      const flow = inOwn(() => run(source, kafkaChannel(options(kafka, given)), sink));
      await flow.done;
      expect(source.settled.map(({ what }) => what)).toEqual(['rejected']);
      expect(bodiesOf(sink.acked)).toEqual(['a', 'b']);
    });

    test('channels of several agents share a topic while they come and go: nothing is lost, nothing comes twice', async () => {
      await kafka.createTopic('shared', { partitions: 4 });
      const given = { topic: 'shared', groupId: 'shared', prefetchRecords: 400 };
      const takers = [take(kafka, given, 30)];
      for (let round = 0; round < 4; round++) {
        await put(
          kafka,
          Array.from({ length: 10 }, (_, i) => numbered(50, 500 * round + 50 * i)),
          given,
        );
        takers.push(take(kafka, given, 30));
        await new Promise(resolve => setTimeout(resolve, 1500));
        if (round % 2 === 1) await takers[round - 1]?.stop();
      }
      const acked = () => takers.flatMap(({ sink }) => bodiesOf(sink.acked));
      await until(
        () => new Set(acked()).size === 2000,
        () => String(new Set(acked()).size),
        90_000,
      );
      expect(acked()).toHaveLength(2000);
      for (const at of [1, 3, 4]) await takers[at]?.stop();
    });

    test('what was not acked when a taker died is taken by the next', async () => {
      await kafka.createTopic('crash');
      const given = { topic: 'crash', groupId: 'crash' };
      await put(kafka, [numbered(10)], given);
      const held = inOwn(() => {
        const channel = kafkaChannel.create(options(kafka, given));
        const sink = recordingSink(() => 'hold');
        channel.output().subscribe(sink);
        return { channel, sink };
      });
      await until(
        () => held.sink.received.length > 0,
        () => 'nothing was received',
      );
      await held.channel.close();
      expect(held.sink.received[0]?.settle('ack')).toBe(false);
      const { sink, stop } = take(kafka, given);
      await until(
        () => sink.acked.length === 10,
        () => String(sink.acked.length),
      );
      await stop();
    });
  });
});
