import { createServer } from 'node:net';
import { once } from 'node:events';
import { Kafka as Kafkajs, logLevel } from 'kafkajs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { toError } from '../../src/core/errors.ts';
import type {
  ConnectionSettings,
  ConsumerListener,
  ConsumerOptions,
  KafkaClient,
  Login,
  NewRecord,
  ReadRecord,
} from '../../src/protocols/kafka/client.ts';
import { compressions } from '../../src/protocols/kafka/client.ts';
import { kafkajs } from '../../src/protocols/kafka/kafkajs.ts';
import { recordingLog } from '../../src/testing/index.ts';
import { realTime } from '../protocols/kafka/port-laws.ts';
import { describeKafka, kafkaTool, kafkaUsers, oauthToken, startKafka, type Kafka, type Security } from './brokers.ts';

const { until } = realTime;
const log = recordingLog();
let names = 0;
const newName = () => `adapter-${++names}`;

/** Reads everything from the beginning. */
class Reader implements ConsumerListener {
  readonly read: ReadRecord[] = [];
  readonly troubles: Error[] = [];
  recoveries = 0;
  assigned: ConsumerListener['assigned'] = partitions => partitions.map(({ first }) => first);
  revoked = () => undefined;
  outOfRange: ConsumerListener['outOfRange'] = ({ first }) => first;
  records(_: unknown, records: readonly ReadRecord[]) {
    for (const record of records) this.read.push(record);
  }
  trouble(cause: Error) {
    this.troubles.push(cause);
  }
  recovered() {
    this.recoveries++;
  }
}

describeKafka('kafkajs, the adapter', () => {
  let kafka: Kafka;
  const closers: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    kafka = await startKafka({
      security: ['none', 'tls', 'mtls', 'sasl', 'sasl_tls'],
      acls: true,
      properties: { 'connections.max.reauth.ms': 3000, 'group.min.session.timeout.ms': 1000 },
    });
  });
  afterAll(async () => {
    await kafka.stop();
  });
  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close();
  });

  const connect = async (security: Security = 'none', settings: Partial<ConnectionSettings> = {}) => {
    const client = await kafkajs({ brokers: kafka.bootstrapOf(security), log, ...settings });
    closers.push(() => client.close());
    return client;
  };
  const topicOf = async (partitions = 1, configs: Record<string, string> = {}): Promise<string> => {
    const topic = newName();
    await kafka.createTopic(topic, { partitions, configs });
    return topic;
  };
  const read = (client: KafkaClient, topics: ConsumerOptions['topics'], options: Partial<ConsumerOptions> = {}) => {
    const reader = new Reader();
    const consumer = client.consumer({ groupId: newName(), topics, maxWait: 100, ...options }, reader);
    closers.push(() => consumer.close());
    return { reader, consumer };
  };
  const write = async (client: KafkaClient, topic: string, records: readonly NewRecord[], options = {}) => {
    const producer = client.producer(options);
    try {
      return await producer.send({ topic, partition: 0 }, records);
    } finally {
      await producer.close();
    }
  };
  const text = (value: string): NewRecord => ({ key: null, value: Buffer.from(value) });

  describe.each(compressions)('with compression %s', compression => {
    it('writes and reads small and large ones', async () => {
      const client = await connect();
      const topic = await topicOf();
      const records = [
        { key: Buffer.from('k'), value: Buffer.from('v'), headers: { h: 'one', many: ['x', Buffer.from('y')] } },
        { key: null, value: null },
        { key: Buffer.alloc(0), value: Buffer.alloc(0) },
        text('line of a log '.repeat(70_000)),
        ...Array.from({ length: 10_000 }, (_, i) => text(String(i))),
      ];
      // A call is one batch, and brokers take 1 MiB.
      await write(client, topic, records.slice(0, 4), { compression });
      await write(client, topic, records.slice(4), { compression });
      const { reader } = read(client, [topic]);
      await until(() => reader.read.length >= records.length);
      // As texts: comparing that many Buffers takes seconds.
      const texts = (of: readonly NewRecord[]) =>
        of.map(({ key, value }) => [key?.toString(), value?.toString()].join());
      expect(reader.read.map(({ offset }) => offset)).toEqual(records.map((_, offset) => offset));
      expect(texts(reader.read)).toEqual(texts(records));
      expect(reader.read[1]).toMatchObject({ key: null, value: null });
      expect(reader.read[2]).toMatchObject({ key: Buffer.alloc(0), value: Buffer.alloc(0) });
      expect(reader.read[0]?.headers).toEqual({ h: Buffer.from('one'), many: [Buffer.from('x'), Buffer.from('y')] });
    });

    it('reads what Java has written, and writes what Java reads', async () => {
      const client = await connect();
      const topic = await topicOf();
      const tool = await kafkaTool({
        main: 'org.apache.kafka.tools.ProducerPerformance',
        args: [
          ...['--topic', topic, '--num-records', '2000', '--record-size', '100', '--throughput', '-1'],
          ...['--producer-props', `bootstrap.servers=${kafka.bootstrap.join()}`, `compression.type=${compression}`],
        ],
      });
      await tool.exited;
      const { reader } = read(client, [topic]);
      await until(() => reader.read.length >= 2000);
      expect(reader.read.every(({ value }) => value?.length === 100)).toBe(true);

      const back = await topicOf();
      await write(
        client,
        back,
        Array.from({ length: 2000 }, (_, i) => text(`line ${i}`)),
        { compression },
      );
      const console = await kafkaTool({
        main: 'org.apache.kafka.tools.consumer.ConsoleConsumer',
        args: [
          ...['--bootstrap-server', kafka.bootstrap.join(), '--topic', back],
          ...['--from-beginning', '--max-messages', '2000', '--timeout-ms', '20000'],
        ],
      });
      await console.exited;
      expect(console.output()).toMatch(/line 1998\nline 1999\nProcessed a total of 2000 messages/);
    });
  });

  it('writes bytes that are no Buffer, and headers that are odd', async () => {
    const client = await connect();
    const topic = await topicOf();
    const odd = { key: null, value: new Uint8Array([1, 2, 3]), headers: { none: null, number: 5, text: 'x' } };
    await write(client, topic, [odd as unknown as NewRecord]);
    const { reader } = read(client, [topic]);
    await until(() => reader.read.length === 1);
    expect(reader.read[0]?.value).toEqual(Buffer.from([1, 2, 3]));
    expect(reader.read[0]?.headers).toEqual({ number: Buffer.from('5'), text: Buffer.from('x') });
  });

  it('writes and reads batches of more records than the stack of kafkajs holds', async () => {
    const client = await connect();
    const topic = await topicOf();
    const tiny = Array.from({ length: 400_000 }, () => text('x'));
    expect(await write(client, topic, tiny, { compression: 'gzip' })).toBe(0);
    const { reader } = read(client, [topic]);
    await until(() => reader.read.length >= 400_000);
    expect(reader.read.every(({ value }, index) => value?.length === 1 && reader.read[index]?.offset === index)).toBe(
      true,
    );
  });

  it('spreads 12 partitions over a group, with a Java consumer in it', async () => {
    const client = await connect();
    const topic = await topicOf(12);
    const groupId = newName();
    const given = new Map<string, Set<number>>();
    const member = (name: string) => {
      const reader = new Reader();
      const mine = new Set<number>();
      given.set(name, mine);
      const assigned: ConsumerListener['assigned'] = partitions =>
        partitions.map(({ partition, first }) => {
          mine.add(partition);
          return first;
        });
      const revoked: ConsumerListener['revoked'] = partitions => {
        for (const { partition } of partitions) mine.delete(partition);
      };
      const options = { groupId, topics: [topic], heartbeatInterval: 200, maxWait: 100 };
      const consumer = client.consumer(options, Object.assign(reader, { assigned, revoked }));
      closers.push(() => consumer.close());
    };
    member('one');
    member('two');
    await until(() => [...given.values()].every(mine => mine.size === 6));
    const java = await kafkaTool({
      main: 'org.apache.kafka.tools.consumer.ConsoleConsumer',
      args: ['--bootstrap-server', kafka.bootstrap.join(), '--topic', topic, '--group', groupId],
    });
    await until(() => [...given.values()].every(mine => mine.size === 4));
    await java.stop();
    await until(() => [...given.values()].every(mine => mine.size === 6));
    expect([...given.values()].flatMap(mine => [...mine]).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 12 }, (_, partition) => partition),
    );
  });

  it('stays in its group while its reader takes longer than a session, which the consumer of kafkajs does not', async () => {
    const topic = await topicOf();
    const client = await connect();
    await write(client, topic, [text('a')]);
    const session = { sessionTimeout: 1500, heartbeatInterval: 200 };
    const members = async (groupId: string) => {
      const { groups } = await kafka.admin(admin => admin.describeGroups([groupId]));
      return groups[0]?.members.map(({ memberId }) => memberId) ?? [];
    };

    const theirGroup = newName();
    const theirs = new Kafkajs({ brokers: kafka.bootstrap, logLevel: logLevel.NOTHING }).consumer({
      groupId: theirGroup,
      ...session,
    });
    closers.push(() => theirs.disconnect());
    const begun = new AbortController();
    const busy = new AbortController();
    await theirs.connect();
    await theirs.subscribe({ topic, fromBeginning: true });
    await theirs.run({
      eachMessage: async () => {
        begun.abort();
        if (!busy.signal.aborted) await once(busy.signal, 'abort');
      },
    });
    await until(() => begun.signal.aborted);
    await expect.poll(() => members(theirGroup), { timeout: 20_000 }).toEqual([]);
    busy.abort();

    const ourGroup = newName();
    const { reader, consumer } = read(client, [topic], { groupId: ourGroup, ...session });
    await until(() => reader.read.length === 1);
    consumer.pause([{ topic, partition: 0 }]);
    const before = await members(ourGroup);
    expect(before).toHaveLength(1);
    await new Promise(resolve => setTimeout(resolve, 3 * session.sessionTimeout));
    expect(await members(ourGroup)).toEqual(before);
    expect(reader.troubles).toEqual([]);
    consumer.resume([{ topic, partition: 0 }]);
    await write(client, topic, [text('b')]);
    await until(() => reader.read.length === 2);
  });

  describe('lets itself in', () => {
    const alice = { username: 'alice', password: () => kafkaUsers.alice };
    const logins: Record<string, Login> = {
      PLAIN: { mechanism: 'plain', ...alice },
      'SCRAM-SHA-256': { mechanism: 'scram-sha-256', ...alice },
      'SCRAM-SHA-512': { mechanism: 'scram-sha-512', ...alice },
      OAUTHBEARER: { mechanism: 'oauthbearer', token: () => Promise.resolve(oauthToken('alice')) },
    };
    /** Alice may, and it works in both directions. */
    const works = async (client: KafkaClient, user = 'alice') => {
      const topic = await topicOf();
      await kafka.allow(user, 'TOPIC', topic, 'ALL');
      await kafka.allow(user, 'GROUP', '*', 'READ');
      await write(client, topic, [text('let in')]);
      const { reader } = read(client, [topic]);
      await until(() => reader.read.length === 1);
      expect(reader.troubles).toEqual([]);
    };

    it.each(Object.entries(logins))('by %s', async (_, login) => {
      await works(await connect('sasl', { login }));
    });

    it('by TLS, with a certificate of ours, and with a login over TLS', async () => {
      const { ca, client } = kafka.certificates!;
      await works(await connect('tls', { tls: { ca } }), 'ANONYMOUS');
      await works(await connect('mtls', { tls: { ca, ...client } }), 'CN=alice');
      await works(await connect('sasl_tls', { tls: { ca }, login: logins['SCRAM-SHA-512'] }));
    });

    it('with the secret of now: reads it again for every login', async () => {
      let asked = 0;
      const login: Login = {
        mechanism: 'plain',
        username: 'alice',
        password: () => (asked++ < 2 ? 'outdated' : kafkaUsers.alice),
      };
      const client = await connect('sasl', { login });
      const topic = await topicOf();
      await kafka.allow('alice', 'TOPIC', topic, 'ALL');
      await kafka.allow('alice', 'GROUP', '*', 'READ');
      const { reader } = read(client, [topic]);
      await until(() => reader.troubles.length > 0);
      expect(reader.troubles[0]).toMatchObject({ code: 'MR_KAFKA_LOGIN' });
      await until(() => reader.recoveries > 0);
      // Brokers here end a login after three seconds.
      const before = asked;
      await until(() => asked > before);
      await write(client, topic, [text('still there')]);
      await until(() => reader.read.length === 1);
    });

    it.each([
      ['wrong password', 'sasl', { login: { mechanism: 'plain', username: 'alice', password: () => 'wrong-secret' } }],
      [
        'wrong SCRAM',
        'sasl',
        { login: { mechanism: 'scram-sha-256', username: 'alice', password: () => 'wrong-secret' } },
      ],
      [
        'token that is over',
        'sasl',
        { login: { mechanism: 'oauthbearer', token: async () => oauthToken('alice', -60) } },
      ],
      ['TLS without our authority', 'tls', { tls: {} }],
      ['mTLS without a certificate', 'mtls', 'ca only'],
      ['TLS to a port without', 'none', { tls: {} }],
      ['a login at a port without', 'none', { login: { mechanism: 'plain', username: 'a', password: () => 'b' } }],
    ] as [string, Security, Partial<ConnectionSettings> | 'ca only'][])('not with: %s', async (_, security, given) => {
      const settings = given === 'ca only' ? { tls: { ca: kafka.certificates!.ca } } : given;
      const client = await connect(security, settings);
      const refused = await client.partitions('any').catch(toError);
      expect(refused).toMatchObject({ code: 'MR_KAFKA_LOGIN', retriable: true });
      expect(String(refused)).toContain(kafka.bootstrapOf(security)[0]);
      expect(String(refused)).not.toContain('wrong-secret');
    });

    it.each(['tls', 'sasl'] as const)('plainly not at a port with %s', async security => {
      const client = await connect(security);
      const refused = await client.partitions('any').catch(toError);
      expect(refused).toMatchObject({ code: 'MR_KAFKA_UNREACHABLE', retriable: true });
      expect(String(refused)).toMatch(/TLS or a login|not be the port of a Kafka broker/);
    });

    it('nowhere where no broker is', async () => {
      const server = createServer(socket => socket.on('data', () => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')));
      await once(server.listen(0), 'listening');
      const { port } = server.address() as { port: number };
      const client = await connect('none', { brokers: [`127.0.0.1:${port}`], connectionTimeout: 500 });
      const refused = await client.partitions('any').catch(toError);
      expect(refused).toMatchObject({ code: 'MR_KAFKA_UNREACHABLE', retriable: true });
      await client.close();
      server.close();
    });
  });

  describe('without rights', () => {
    const bob: Login = { mechanism: 'plain', username: 'bob', password: () => kafkaUsers.bob };

    it('rejects what is to be written, for good, and reports what is to be read until it may', async () => {
      const client = await connect('sasl', { login: bob });
      const topic = await topicOf();
      await expect(write(client, topic, [text('x')])).rejects.toMatchObject({
        code: 'MR_KAFKA_NOT_AUTHORIZED',
        retriable: false,
        message: expect.stringContaining(topic),
      });
      const { reader } = read(client, [topic]);
      await until(() => reader.troubles.length > 0);
      expect(reader.troubles[0]).toMatchObject({ code: 'MR_KAFKA_NOT_AUTHORIZED' });
      await kafka.allow('bob', 'TOPIC', topic, 'ALL');
      await kafka.allow('bob', 'GROUP', '*', 'READ');
      await write(client, topic, [text('x')]);
      await until(() => reader.read.length === 1);
      await until(() => reader.recoveries > 0);
    });
  });

  it('says at once which address is none, and which options do not go together', async () => {
    await expect(kafkajs({ brokers: ['nowhere'], log })).rejects.toMatchObject({ code: 'MR_CONFIG' });
    await expect(kafkajs({ brokers: [], log })).rejects.toMatchObject({ code: 'MR_CONFIG' });
    const client = await connect();
    expect(() => client.producer({ acks: 1, idempotent: true })).toThrow(/needs acks/);
  });

  it('has trouble with a topic that is deleted, until it is there again', async () => {
    const client = await connect();
    const topic = await topicOf();
    const { reader } = read(client, [topic], { metadataMaxAge: 1000, heartbeatInterval: 300 });
    await write(client, topic, [text('before')]);
    await until(() => reader.read.length === 1);
    await kafka.deleteTopic(topic);
    await until(() => reader.troubles.length > 0);
    expect(reader.troubles[0]).toMatchObject({
      code: 'MR_KAFKA_UNKNOWN_TOPIC',
      message: expect.stringContaining(topic),
    });
    await kafka.createTopic(topic);
    await until(() => reader.recoveries > 0);
    await write(client, topic, [text('after')]);
    await until(() => reader.read.length === 2);
  });

  it('lets brokers make topics that make them', async () => {
    const making = await startKafka({ autoCreate: true });
    closers.push(() => making.stop());
    const client = await connect('none', { brokers: making.bootstrap });
    expect(await client.partitions('asked')).toBe(1);
    expect(await write(client, 'written', [text('x')])).toBe(0);
    const { reader } = read(client, ['subscribed', 'written']);
    await until(() => reader.read.length === 1);
    await write(client, 'subscribed', [text('y')]);
    await until(() => reader.read.length === 2);
  });

  it('closes promptly while no broker answers', async () => {
    const server = createServer(() => undefined);
    await once(server.listen(0), 'listening');
    const { port } = server.address() as { port: number };
    const silent = { brokers: [`127.0.0.1:${port}`] };
    const client = await connect('none', silent);
    const reader = new Reader();
    const consumer = client.consumer({ groupId: 'g', topics: ['t'] }, reader);
    const producer = client.producer();
    const sending = producer.send({ topic: 't', partition: 0 }, [text('x')]).catch(toError);
    const asking = client.partitions('t').catch(toError);
    await once(server, 'connection');
    await Promise.all([consumer.close(), producer.close(), client.close()]);
    expect(await sending).toBeInstanceOf(Error);
    expect(await asking).toBeInstanceOf(Error);
    server.close();
  });

  it(
    'gives up its partitions when the broker hangs, and has them again when it goes on',
    { timeout: 60_000 },
    async () => {
      const client = await connect();
      const topic = await topicOf();
      const lost: boolean[] = [];
      let given = 0;
      const reader = Object.assign(new Reader(), {
        assigned: (partitions: Parameters<ConsumerListener['assigned']>[0]) => {
          given++;
          return partitions.map(({ committed, first }) => committed ?? first);
        },
        revoked: (_: unknown, forGood: boolean) => void lost.push(forGood),
      });
      const options = {
        groupId: newName(),
        topics: [topic],
        sessionTimeout: 6000,
        heartbeatInterval: 500,
        maxWait: 100,
      };
      const consumer = client.consumer(options, reader);
      closers.push(() => consumer.close());
      await write(client, topic, [text('before')]);
      await until(() => reader.read.length === 1);
      await consumer.commit([{ topic, partition: 0, offset: 1 }]);
      const [node] = kafka.nodes;
      node?.pause();
      try {
        await until(() => lost.length > 0);
        expect(lost).toEqual([true]);
        expect(reader.troubles).toMatchObject([{ code: 'MR_KAFKA_UNREACHABLE' }]);
        await expect(consumer.commit([{ topic, partition: 0, offset: 1 }])).rejects.toThrow(/not ours/);
      } finally {
        node?.resume();
      }
      await until(() => given === 2);
      await until(() => reader.recoveries === 1);
      await write(client, topic, [text('after')]);
      await until(() => reader.read.length === 2);
      expect(reader.troubles.length).toBe(1);
    },
  );

  it('closes promptly while the broker hangs', async () => {
    const client = await connect();
    const topic = await topicOf();
    const reader = new Reader();
    const consumer = client.consumer({ groupId: newName(), topics: [topic], maxWait: 100 }, reader);
    await write(client, topic, [text('x')]);
    await until(() => reader.read.length === 1);
    const [node] = kafka.nodes;
    node?.pause();
    try {
      const closed = new AbortController();
      const late = new Promise<string>(tell => {
        const timer = setTimeout(() => tell('late'), 10_000);
        closed.signal.addEventListener('abort', () => clearTimeout(timer));
      });
      const closing = consumer.close().then(() => 'closed');
      expect(await Promise.race([closing, late])).toBe('closed');
      closed.abort();
    } finally {
      node?.resume();
    }
  });

  it('has never logged a secret', () => {
    const everything = JSON.stringify(log.entries);
    for (const secret of [...Object.values(kafkaUsers), 'wrong-secret']) expect(everything).not.toContain(secret);
  });
});
