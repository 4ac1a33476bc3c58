import { Kafka as Kafkajs, logLevel } from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { quietLog } from '../../src/core/scope.ts';
import {
  compressions,
  type ConnectionSettings,
  type ConsumerOptions,
  type KafkaClient,
  type Login,
  type ReadRecord,
} from '../../src/protocols/kafka/client.ts';
import { kafkajs } from '../../src/protocols/kafka/kafkajs.ts';
import { platformatic } from '../../src/protocols/kafka/platformatic.ts';
import { realTime } from '../protocols/kafka/port-laws.ts';
import {
  describeKafka,
  kafkaUsers,
  kafkaVersions,
  oauthToken,
  startKafka,
  type Kafka,
  type Security,
} from './brokers.ts';
import { lawsOnBrokers } from './laws-on-brokers.ts';

lawsOnBrokers('platformatic', platformatic);

describeKafka.each(kafkaVersions)('platformatic, its codecs and logins, on Kafka %s', version => {
  let kafka: Kafka;
  const ways = ['none', 'tls', 'mtls', 'sasl', 'sasl_tls'] as const satisfies readonly Security[];
  const connect = (way: Security, more: Partial<ConnectionSettings> = {}, by = platformatic) =>
    by({
      brokers: kafka.bootstrapOf(way),
      log: quietLog,
      ...(way.endsWith('tls') && { tls: { ca: kafka.certificates?.ca, ...more.tls } }),
      ...(more.login !== undefined && { login: more.login }),
    });

  beforeAll(async () => {
    kafka = await startKafka({ version, security: ways });
  });
  afterAll(() => kafka.stop());

  /** All that lies in partition 0. */
  const readAll = async (client: KafkaClient, topic: string, count: number, options: Partial<ConsumerOptions> = {}) => {
    const read: ReadRecord[] = [];
    const consumer = client.consumer(
      { groupId: `all-of-${topic}-${Math.random()}`, topics: [topic], maxWait: 100, ...options },
      {
        assigned: partitions => partitions.map(({ first }) => first),
        revoked: () => undefined,
        records: (_, records) => void read.push(...records),
        outOfRange: ({ first }) => first,
        trouble: () => undefined,
        recovered: () => undefined,
      },
    );
    await realTime.until(() => read.length >= count);
    await consumer.close();
    return read;
  };

  test.each(compressions)('understands the other client and is understood: %s', async compression => {
    const topic = `both-${compression}`;
    await kafka.createTopic(topic);
    const clients = [await connect('none'), await connect('none', {}, kafkajs)];
    const records = Array.from({ length: 500 }, (_, i) => ({
      key: Buffer.from(String(i)),
      value: Buffer.alloc(i * 2, 'value '),
      headers: { one: 'x', many: ['a', 'b'] },
      timestamp: 1_700_000_000_000 + i,
    }));
    for (const client of clients) {
      const producer = client.producer({ compression });
      await producer.send({ topic, partition: 0 }, records);
      await producer.close();
    }
    const [ours, theirs] = await Promise.all(clients.map(client => readAll(client, topic, 1000)));
    const plain = (read: readonly ReadRecord[] = []) =>
      read.map(({ offset, timestamp, key, value, headers = {} }) =>
        [offset, timestamp, key, value?.toString('latin1'), headers['one'], headers['many']].join(),
      );
    expect(plain(ours)).toEqual(plain(theirs));
    expect(ours?.slice(0, 500).map(({ value }) => value?.length)).toEqual(records.map(({ value }) => value.length));
    await Promise.all(clients.map(client => client.close()));
  });

  test.each<[string, Security, Login | undefined]>([
    ['TLS', 'tls', undefined],
    ['a certificate', 'mtls', undefined],
    ...(['sasl', 'sasl_tls'] as const).flatMap(way => [
      ...(['plain', 'scram-sha-256', 'scram-sha-512'] as const).map((mechanism): [string, Security, Login] => [
        `${mechanism}, ${way}`,
        way,
        { mechanism, username: 'alice', password: () => Promise.resolve(kafkaUsers.alice) },
      ]),
      [`oauthbearer, ${way}`, way, { mechanism: 'oauthbearer', token: () => Promise.resolve(oauthToken('alice')) }] as [
        string,
        Security,
        Login,
      ],
    ]),
  ])('gets in with %s', async (_, way, login) => {
    const topic = `login-${Math.random()}`;
    await kafka.createTopic(topic);
    const { key, cert } = kafka.certificates?.client ?? {};
    const client = await connect(way, { ...(way === 'mtls' && { tls: { key, cert } }), ...(login && { login }) });
    const producer = client.producer();
    expect(await producer.send({ topic, partition: 0 }, [{ key: null, value: Buffer.from('in') }])).toBe(0);
    expect((await readAll(client, topic, 1)).map(({ value }) => String(value))).toEqual(['in']);
    await producer.close();
    await client.close();
  });

  test('is told when it does not get in', async () => {
    const wrong: Login = { mechanism: 'scram-sha-256', username: 'alice', password: () => 'guessed' };
    const refusals = [
      connect('sasl', { login: wrong }),
      connect('tls', { tls: { ca: undefined } }),
      platformatic({ brokers: ['127.0.0.1:1'], log: quietLog }),
    ];
    const codes = refusals.map(async connecting => {
      const client = await connecting;
      const refusal = await client.partitions('any').catch((error: unknown) => error);
      await client.close();
      expect(String(refusal)).not.toContain('guessed');
      return (refusal as { code: string }).code;
    });
    expect(await Promise.all(codes)).toEqual(['MR_KAFKA_LOGIN', 'MR_KAFKA_LOGIN', 'MR_KAFKA_UNREACHABLE']);
  });

  test('reads what transactions have committed, unless it is to read everything', async () => {
    const topic = 'transactions';
    await kafka.createTopic(topic);
    const producer = new Kafkajs({ brokers: kafka.bootstrap, logLevel: logLevel.NOTHING }).producer({
      transactionalId: 'of-tests',
      maxInFlightRequests: 1,
      idempotent: true,
    });
    await producer.connect();
    for (let i = 0; i < 6; i++) {
      const transaction = await producer.transaction();
      for (const part of ['a', 'b']) await transaction.send({ topic, messages: [{ value: `${i}${part}` }] });
      await (i % 3 === 1 ? transaction.abort() : transaction.commit());
    }
    await producer.send({ topic, messages: [{ value: 'end' }] });
    await producer.disconnect();
    const client = await connect('none');
    const texts = (read: readonly ReadRecord[]) => read.map(({ value }) => String(value));
    const committed = await readAll(client, topic, 9);
    expect(texts(committed)).toEqual(['0a', '0b', '2a', '2b', '3a', '3b', '5a', '5b', 'end']);
    expect(texts(await readAll(client, topic, 13, { readCommitted: false })).length).toBe(13);
    await client.close();
  });
});
