import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { inScope, Scope } from '../../src/core/scope.ts';
import {
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
import { compressions } from '../../src/protocols/kafka/client.ts';
import { partitionOf } from '../../src/protocols/kafka/partitioner.ts';
import { recordingLog } from '../../src/testing/index.ts';
import {
  describeKafka,
  kafkaUsers,
  kafkaVersions,
  oauthToken,
  startKafka,
  type Kafka,
  type KafkaVersion,
  type Security,
} from './brokers.ts';

type Options = Partial<Parameters<typeof kafkaSink>[0]>;
type Tell = (what: Settled) => void;

const flows: Flow[] = [];
afterEach(async () => {
  vi.unstubAllEnvs();
  for (const flow of flows.splice(0)) {
    await flow.stop();
    await flow.done;
  }
});

/** A sink that is given batches by hand. */
const opened = async (options: Omit<Options, 'bootstrapServers'> & { bootstrapServers: readonly string[] }) => {
  let emitter: Emitter<FlumeEvent, Tell> | undefined;
  const source = createSource<FlumeEvent, Tell>(
    lent => {
      emitter = lent;
      return { settled: (tell, what) => tell(what) };
    },
    { onFailure: 'report' },
  );
  const sink = kafkaSink(options);
  const flow = inScope(new Scope({ log: recordingLog() }), () => run(source, sink));
  flows.push(flow);
  while (emitter === undefined) await new Promise(setImmediate);
  const emit = emitter.emit.bind(emitter);
  const put = (...events: FlumeEvent[]) => new Promise<Settled>(tell => emit(events, tell));
  return { flow, sink, put };
};

const numbered = (count: number, from = 0) => Array.from({ length: count }, (_, i) => event(`e${from + i}`));

describeKafka('the Kafka sink', () => {
  describe.each(kafkaVersions)('on Kafka %s', (version: KafkaVersion) => {
    let kafka: Kafka;
    beforeAll(async () => {
      kafka = await startKafka({ version, security: ['none', 'sasl_tls', 'mtls'] });
    });
    afterAll(() => kafka.stop());

    test('writes bodies, keys, headers and times', async () => {
      await kafka.createTopic('plain', { partitions: 3 });
      const { put } = await opened({ bootstrapServers: kafka.bootstrap, topic: 'plain', headers: { app: 'x-app' } });
      expect(await put(event('body', headers({ key: 'k', app: 'web' })), event('', headers({ key: 'k' })))).toBe(
        'acked',
      );
      const partition = partitionOf(Buffer.from('k'), 3);
      const records = (await kafka.read('plain'))[partition];
      expect(records).toMatchObject([
        { offset: 0, key: Buffer.from('k'), value: Buffer.from('body'), headers: { 'x-app': Buffer.from('web') } },
        { offset: 1, key: Buffer.from('k'), value: Buffer.alloc(0) },
      ]);
    });

    test("writes Flume's Avro", async () => {
      await kafka.createTopic('avro');
      const { put } = await opened({ bootstrapServers: kafka.bootstrap, topic: 'avro', useFlumeEventFormat: true });
      await put(event('one', headers({ k: 'v' })));
      expect((await kafka.read('avro'))[0]?.[0]?.value?.toString('hex')).toBe('02026b027600066f6e65');
    });

    test.each(compressions)('compresses: %s', async compression => {
      const topic = `with-${compression}`;
      await kafka.createTopic(topic);
      const { put } = await opened({ bootstrapServers: kafka.bootstrap, topic, compression });
      expect(await put(...numbered(500))).toBe('acked');
      // The client of the test cannot read all of them.
      expect(await kafka.ends(topic)).toEqual([500]);
    });

    test('writes many events in order, in large sends', async () => {
      await kafka.createTopic('many', { partitions: 3 });
      const { put } = await opened({ bootstrapServers: kafka.bootstrap, topic: 'many', partitionIdHeader: 'p' });
      const settled = Array.from({ length: 60 }, (_, batch) =>
        put(
          ...Array.from({ length: 200 }, (_, i) =>
            event(`${batch * 200 + i} ${'x'.repeat(150)}`, headers({ p: String((batch * 200 + i) % 3) })),
          ),
        ),
      );
      expect(new Set(await Promise.all(settled))).toEqual(new Set(['acked']));
      for (const records of await kafka.read('many')) {
        const numbers = records.map(({ value }) => parseInt(String(value)));
        expect(numbers).toHaveLength(4000);
        expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
      }
    });

    test('rejects alone what the broker finds too large', async () => {
      await kafka.createTopic('small', { configs: { 'max.message.bytes': '2000' } });
      const { put } = await opened({ bootstrapServers: kafka.bootstrap, topic: 'small' });
      const events = numbered(50);
      events[20] = event(Buffer.alloc(5000));
      expect(await put(...events)).toBe('rejected');
      const bodies = (await kafka.read('small'))[0]?.map(({ value }) => String(value));
      expect(bodies).toEqual(
        numbered(50)
          .map(({ body }) => String(body))
          .filter(body => body !== 'e20'),
      );
    });

    test('waits for a topic that is not there', async () => {
      const { put, sink } = await opened({ bootstrapServers: kafka.bootstrap, topic: 'later' });
      const settled = put(...numbered(3));
      await expect.poll(() => sink.trouble?.message, { timeout: 20_000 }).toContain('later');
      await kafka.createTopic('later');
      expect(await settled).toBe('acked');
      expect(await kafka.ends('later')).toEqual([3]);
    });

    test('writes to partitions that are new', async () => {
      await kafka.createTopic('grows');
      const { put } = await opened({ bootstrapServers: kafka.bootstrap, topic: 'grows', partitionIdHeader: 'p' });
      await put(event('a', headers({ p: '0' })));
      await kafka.admin(admin => admin.createPartitions({ topicPartitions: [{ topic: 'grows', count: 2 }] }));
      await expect.poll(() => kafka.ends('grows')).toHaveLength(2);
      expect(await put(event('b', headers({ p: '1' })))).toBe('acked');
      expect(await kafka.ends('grows')).toEqual([1, 1]);
    });

    describe('gets in as the properties of Java say', () => {
      const module = 'org.apache.kafka.common.security';
      const secret = 'username="alice" password="env:KAFKA_SINK_PW"';
      const logins: Record<string, string> = {
        PLAIN: `${module}.plain.PlainLoginModule required ${secret};`,
        'SCRAM-SHA-256': `${module}.scram.ScramLoginModule required ${secret};`,
        'SCRAM-SHA-512': `${module}.scram.ScramLoginModule required ${secret};`,
        OAUTHBEARER: `${module}.oauthbearer.OAuthBearerLoginModule required token="env:KAFKA_SINK_TOKEN";`,
      };
      const written = async (topic: string, way: Security, producer: Record<string, string>) => {
        await kafka.createTopic(topic);
        const { put } = await opened({ bootstrapServers: kafka.bootstrapOf(way), topic, producer });
        expect(await put(event('x'))).toBe('acked');
        expect(await kafka.ends(topic)).toEqual([1]);
      };

      test.each(Object.entries(logins))('%s over TLS', async (mechanism, jaas) => {
        vi.stubEnv('KAFKA_SINK_PW', kafkaUsers.alice);
        vi.stubEnv('KAFKA_SINK_TOKEN', oauthToken('alice'));
        await written(mechanism, 'sasl_tls', {
          'security.protocol': 'SASL_SSL',
          'sasl.mechanism': mechanism,
          'sasl.jaas.config': jaas,
          'ssl.truststore.certificates': String(kafka.certificates?.ca),
        });
      });

      test('certificates of both sides, in files', async () => {
        const { ca, client } = kafka.certificates!;
        const folder = mkdtempSync(join(tmpdir(), 'kafka-sink-'));
        writeFileSync(join(folder, 'ca.pem'), ca);
        writeFileSync(join(folder, 'client.pem'), `${client.key}\n${client.cert}`);
        await written('certificates', 'mtls', {
          'security.protocol': 'SSL',
          'ssl.truststore.location': join(folder, 'ca.pem'),
          'ssl.keystore.location': join(folder, 'client.pem'),
        }).finally(() => rmSync(folder, { recursive: true }));
      });
    });
  });

  describe.each(kafkaVersions)('on three nodes of Kafka %s', (version: KafkaVersion) => {
    let kafka: Kafka;
    beforeAll(async () => {
      kafka = await startKafka({ version, nodes: 3, fastFailover: true });
    });
    afterAll(() => kafka.stop());

    test('loses, repeats and reorders nothing when a leader is killed', async () => {
      await kafka.createTopic('killed', { partitions: 2 });
      const { put } = await opened({ bootstrapServers: kafka.bootstrap, topic: 'killed', partitionIdHeader: 'p' });
      const total = 200;
      const settled: Promise<Settled>[] = [];
      for (let batch = 0; batch < total; batch++) {
        settled.push(
          put(...Array.from({ length: 50 }, (_, i) => event(String(batch * 50 + i), headers({ p: String(i % 2) })))),
        );
        if (batch === 50) void (await kafka.leaderOf('killed', 0)).kill();
        await Promise.all(settled.slice(-5));
      }
      expect(new Set(await Promise.all(settled))).toEqual(new Set(['acked']));
      for (const [partition, records] of (await kafka.read('killed')).entries()) {
        const expected = Array.from({ length: total * 25 }, (_, i) => 2 * i + partition);
        expect(records.map(({ value }) => Number(value))).toEqual(expected);
      }
    });
  });
});
