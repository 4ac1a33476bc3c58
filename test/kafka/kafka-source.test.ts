import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { inScope, Scope } from '../../src/core/scope.ts';
import { event, headers, run, type Delivery, type Flow } from '../../src/index.ts';
import { kafkaSource, type KafkaSourceOptions } from '../../src/kafka.ts';
import { encodeAvroEvent } from '../../src/protocols/avro-event.ts';
import type { NewRecord } from '../../src/protocols/kafka/client.ts';
import { kafkajs } from '../../src/protocols/kafka/kafkajs.ts';
import { recordingLog, recordingSink, type RecordingSink } from '../../src/testing/index.ts';
import { describeKafka, kafkaVersions, startKafka, type Kafka, type KafkaVersion } from './brokers.ts';

const flows: Flow[] = [];
afterEach(async () => {
  for (const flow of flows.splice(0)) await flow.stop();
});

const until = async (condition: () => boolean, what: () => string, limit = 60_000): Promise<void> => {
  const end = Date.now() + limit;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within ${limit} ms: ${what()}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
};

let groups = 0;
const start = (kafka: Kafka, options: Partial<KafkaSourceOptions>, sink: RecordingSink = recordingSink()) => {
  const log = recordingLog();
  const scope = new Scope({ log });
  const flow = inScope(scope, () =>
    run(
      kafkaSource({
        bootstrapServers: kafka.bootstrap,
        groupId: `group-${groups++}`,
        ...options,
        consumer: { 'auto.offset.reset': 'earliest', 'fetch.max.wait.ms': '100', ...options.consumer },
      }),
      sink,
    ),
  );
  flow.done.catch(() => undefined);
  flows.push(flow);
  const bodies = () => sink.acked.map(({ body }) => String(body));
  const counters = () => scope.metrics.find('SOURCE', 'kafka') as Record<string, number>;
  return { flow, sink, bodies, log, counters };
};

const write = async (kafka: Kafka, topic: string, records: readonly Partial<NewRecord>[], partition = 0) => {
  const client = await kafkajs({ brokers: kafka.bootstrap, log: recordingLog() });
  const producer = client.producer();
  await producer.send(
    { topic, partition },
    records.map(record => ({ key: null, value: null, ...record })),
  );
  await producer.close();
  await client.close();
};

const numbered = (count: number, from = 0) =>
  Array.from({ length: count }, (_, i) => ({ value: Buffer.from(String(from + i)) }));

describeKafka('the Kafka source', () => {
  describe.each(kafkaVersions)('on Kafka %s', (version: KafkaVersion) => {
    let kafka: Kafka;
    beforeAll(async () => {
      kafka = await startKafka({ version });
    });
    afterAll(() => kafka.stop());

    test('reads records with their key, time and headers, and empty ones', async () => {
      await kafka.createTopic('plain');
      await write(kafka, 'plain', [
        { key: Buffer.from('k'), value: Buffer.from('v'), timestamp: 1234, headers: { 'X-A': 'a' } },
        {},
      ]);
      const { sink } = start(kafka, { topics: ['plain'], headers: { a: 'X-A' } });
      await until(
        () => sink.acked.length === 2,
        () => String(sink.acked.length),
      );
      expect(sink.acked.map(({ headers, body }) => [{ ...headers }, String(body)])).toEqual([
        [{ timestamp: '1234', topic: 'plain', partition: '0', offset: '0', key: 'k', a: 'a' }, 'v'],
        [{ timestamp: expect.stringMatching(/^\d{13}$/) as string, topic: 'plain', partition: '0', offset: '1' }, ''],
      ]);
    });

    test('reads events in Avro, and stops a partition at what is none', async () => {
      await kafka.createTopic('avro');
      const good = (body: string) => ({ value: encodeAvroEvent(event(body, headers({ own: '1' }))) });
      await write(kafka, 'avro', [good('a'), { value: Buffer.from('no') }, good('b')]);
      const groupId = 'poisoned';
      const first = start(kafka, { topics: ['avro'], useFlumeEventFormat: true, groupId });
      await until(
        () => first.counters()['PoisonRecordCount'] === 1,
        () => JSON.stringify(first.log.entries),
      );
      expect(first.sink.acked).toMatchObject([{ headers: { own: '1', offset: '0' } }]);
      await first.flow.stop();
      const second = start(kafka, { topics: ['avro'], useFlumeEventFormat: true, groupId, onPoison: 'pass' });
      await until(
        () => second.sink.acked.length === 2,
        () => JSON.stringify(second.bodies()),
      );
      expect(second.bodies()).toEqual(['no', 'b']);
    });

    test('goes on where the group is, after a stop and after a crash', async () => {
      await kafka.createTopic('again', { partitions: 3 });
      for (const partition of [0, 1, 2]) await write(kafka, 'again', numbered(100, 1000 * partition), partition);
      const options = { topics: ['again'], groupId: 'again', batchSize: 10, commitInterval: 50 };
      const consumer = { 'session.timeout.ms': '6000', 'heartbeat.interval.ms': '500' };
      const first = start(kafka, { ...options, consumer });
      await until(
        () => first.sink.acked.length === 300,
        () => String(first.sink.acked.length),
      );
      await first.flow.stop();
      await write(kafka, 'again', numbered(5, 100));
      const held = recordingSink(() => 'hold');
      const second = start(kafka, { ...options, consumer }, held);
      await until(
        () => held.received.length > 0,
        () => 'nothing was received',
      );
      expect(held.received.flatMap(({ events }) => events.map(({ body }) => String(body))).sort()).toEqual([
        '100',
        '101',
        '102',
        '103',
        '104',
      ]);
      second.flow.abort();
      flows.pop();
      const third = start(kafka, { ...options, consumer });
      await until(
        () => third.sink.acked.length === 5,
        () => String(third.sink.acked.length),
      );
      expect(third.bodies()).toEqual(['100', '101', '102', '103', '104']);
    });

    test('finds topics by a regular expression, also those that come later', async () => {
      await kafka.createTopic('re-1');
      await write(kafka, 're-1', numbered(1, 1));
      const { bodies } = start(kafka, {
        topicsRegex: 're-\\d',
        consumer: { 'metadata.max.age.ms': '1000' },
      });
      await until(
        () => bodies().includes('1'),
        () => bodies().join(),
      );
      await kafka.createTopic('re-2');
      await kafka.createTopic('are-2');
      await write(kafka, 're-2', numbered(1, 2));
      await write(kafka, 'are-2', numbered(1, 3));
      await until(
        () => bodies().includes('2'),
        () => bodies().join(),
      );
      expect(bodies()).toEqual(['1', '2']);
    });

    test('waits for a topic that is missing, and says so', async () => {
      const { bodies, log } = start(kafka, { topics: ['later'], consumer: { 'metadata.max.age.ms': '1000' } });
      await until(
        () => log.entries.some(({ message }) => message.includes('later')),
        () => 'it says nothing',
      );
      await kafka.createTopic('later');
      await write(kafka, 'later', numbered(1));
      await until(
        () => bodies().length === 1,
        () => JSON.stringify(log.entries),
      );
    });

    test('a slow sink: pauses, keeps its place in the group, and repeats nothing', async () => {
      await kafka.createTopic('slow', { partitions: 2 });
      for (const partition of [0, 1])
        // A broker hands out whole batches, as they were written.
        for (let at = 0; at < 2000; at += 50)
          await write(kafka, 'slow', numbered(50, 10_000 * partition + at), partition);
      const sink = recordingSink((delivery: Delivery, index) => ({
        outcome: 'ack',
        // Longer than the session.
        after: index === 0 ? 8000 : delivery.length,
      }));
      const { counters, bodies } = start(
        kafka,
        {
          topics: ['slow'],
          prefetchRecords: 300,
          batchSize: 100,
          consumer: {
            'session.timeout.ms': '6000',
            'heartbeat.interval.ms': '500',
            'max.partition.fetch.bytes': '2000',
          },
          ...({ maxInFlight: { deliveries: 2 } } as object),
        },
        sink,
      );
      let most = 0;
      await until(
        () => {
          most = Math.max(most, counters()['PrefetchedRecordCount'] ?? 0);
          return sink.acked.length >= 4000;
        },
        () => String(sink.acked.length),
        120_000,
      );
      expect(sink.acked).toHaveLength(4000);
      for (const partition of ['0', '1']) {
        const numbers = sink.received
          .flatMap(({ events }) => events)
          .filter(one => one.headers['partition'] === partition)
          .map(({ body }) => Number(body));
        expect(numbers).toEqual(numbered(2000, 10_000 * Number(partition)).map(({ value }) => Number(value)));
      }
      expect(bodies()).toHaveLength(4000);
      expect(most).toBeGreaterThan(0);
      // Its share, and one answer to a fetch.
      expect(most).toBeLessThan(700);
    });

    test('records that were deleted are counted, and it goes on with what there is', async () => {
      await kafka.createTopic('short');
      await write(kafka, 'short', numbered(10));
      const groupId = 'short';
      const first = start(
        kafka,
        { topics: ['short'], groupId, batchSize: 2, ...({ maxInFlight: { events: 2 } } as object) },
        recordingSink(['ack', 'hold']),
      );
      await until(
        () => first.sink.received.length === 2,
        () => String(first.sink.received.length),
      );
      first.flow.abort();
      flows.pop();
      await kafka.admin(async admin => {
        // It does not look up what it needs by itself.
        await admin.fetchTopicOffsets('short');
        await admin.deleteTopicRecords({ topic: 'short', partitions: [{ partition: 0, offset: '7' }] });
      });
      const second = start(kafka, { topics: ['short'], groupId });
      await until(
        () => second.sink.acked.length === 3,
        () => second.bodies().join(),
      );
      expect(second.bodies()).toEqual(['7', '8', '9']);
      expect(second.counters()['LostRecordCount']).toBeGreaterThanOrEqual(5);
    });

    test('members of one group come and go: nothing is lost, and nothing comes twice when they are asked to go', async () => {
      await kafka.createTopic('shared', { partitions: 4 });
      const total = 400;
      const options = {
        topics: ['shared'],
        groupId: 'shared',
        batchSize: 20,
        consumer: { 'session.timeout.ms': '6000', 'heartbeat.interval.ms': '300' },
        ...({ maxInFlight: { deliveries: 2 } } as object),
      };
      const slowly = () => recordingSink(() => ({ outcome: 'ack', after: 20 }));
      const members = [start(kafka, options, slowly())];
      for (let round = 0; round < total / 100; round++) {
        for (const partition of [0, 1, 2, 3])
          await write(kafka, 'shared', numbered(100, 10_000 * partition + 100 * round), partition);
        members.push(start(kafka, options, slowly()));
        await new Promise(resolve => setTimeout(resolve, 1500));
        if (round % 2 === 1) await members[round - 1]?.flow.stop();
      }
      const acked = () => members.flatMap(({ bodies }) => bodies());
      await until(
        () => new Set(acked()).size === 4 * total,
        () => String(new Set(acked()).size),
        120_000,
      );
      expect(acked()).toHaveLength(4 * total);
      expect(members.filter(({ sink }) => sink.acked.length > 0).length).toBeGreaterThan(1);
    });
  });
});
