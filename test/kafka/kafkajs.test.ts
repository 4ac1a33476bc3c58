import { createServer } from 'node:net';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { Kafka as Kafkajs, logLevel, type EachBatchPayload } from 'kafkajs';
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
import {
  describeKafka,
  kafkaTool,
  kafkaUsers,
  oauthToken,
  startKafka,
  versionsFor,
  type Kafka,
  type Security,
} from './brokers.ts';

const { until } = realTime;
const log = recordingLog();
let names = 0;
const newName = () => `adapter-${++names}`;

/** Reads everything from the beginning. */
class Reader implements ConsumerListener {
  readonly read: ReadRecord[] = [];
  readonly troubles: Error[] = [];
  recoveries = 0;
  /** Its partitions, of one topic. */
  readonly mine = new Set<number>();
  assigned: ConsumerListener['assigned'] = partitions =>
    partitions.map(({ partition, first }) => {
      this.mine.add(partition);
      return first;
    });
  revoked: ConsumerListener['revoked'] = partitions => {
    for (const { partition } of partitions) this.mine.delete(partition);
  };
  outOfRange: ConsumerListener['outOfRange'] = ({ first }) => first;
  records: ConsumerListener['records'] = (_, records) => {
    for (const record of records) this.read.push(record);
  };
  trouble(cause: Error) {
    this.troubles.push(cause);
  }
  recovered() {
    this.recoveries++;
  }
}

describeKafka.each(versionsFor('the adapter of kafkajs'))('kafkajs, the adapter, on Kafka %s', version => {
  let kafka: Kafka;
  const closers: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    kafka = await startKafka({
      version,
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
  /** One record in each partition. */
  const writeEach = async (client: KafkaClient, topic: string, partitions: number, value: string) => {
    const producer = client.producer();
    for (let partition = 0; partition < partitions; partition++)
      await producer.send({ topic, partition }, [text(value)]);
    await producer.close();
  };
  /** The consumer of kafkajs as it comes; it notes what it is given and then does its work on it. */
  const stock = async (
    topic: string,
    options: { groupId: string; sessionTimeout: number; heartbeatInterval: number; rebalanceTimeout?: number },
    work: (payload: EachBatchPayload) => Promise<unknown> = async () => undefined,
  ) => {
    const kafkajs = new Kafkajs({ brokers: kafka.bootstrap, logLevel: logLevel.NOTHING });
    const consumer = kafkajs.consumer({ maxWaitTimeInMs: 100, ...options });
    closers.push(() => consumer.disconnect());
    const member = { consumer, read: [] as string[], mine: new Set<number>(), joins: 0, rebalances: 0, heartbeats: 0 };
    consumer.on('consumer.group_join', ({ payload }) => {
      member.joins++;
      member.mine = new Set(payload.memberAssignment[topic]);
    });
    consumer.on('consumer.rebalancing', () => member.rebalances++);
    consumer.on('consumer.heartbeat', () => member.heartbeats++);
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    // Resolves when it has joined, which others may keep it from.
    void consumer.run({
      eachBatch: async payload => {
        const { batch } = payload;
        for (const { value } of batch.messages) member.read.push(`${batch.partition} ${String(value)}`);
        await work(payload);
      },
    });
    return member;
  };
  /** Work that is busy until it is told to be done, sends heartbeats as it should, and counts those that are refused. */
  const busyWork = (interval: number) => {
    const done = new AbortController();
    const busy = {
      refused: 0,
      work: async (payload: EachBatchPayload) => {
        while (!done.signal.aborted) {
          await payload.heartbeat().catch(() => busy.refused++);
          await wait(interval);
        }
      },
      done: async () => done.abort(),
    };
    return busy;
  };

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
        version,
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
        version,
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
    const options = { groupId, heartbeatInterval: 200 };
    const all = [read(client, [topic], options).reader, read(client, [topic], options).reader];
    const eachHas = (count: number) => until(() => all.every(({ mine }) => mine.size === count));
    await eachHas(6);
    const java = await kafkaTool({
      version,
      main: 'org.apache.kafka.tools.consumer.ConsoleConsumer',
      args: ['--bootstrap-server', kafka.bootstrap.join(), '--topic', topic, '--group', groupId],
    });
    await eachHas(4);
    await java.stop();
    await eachHas(6);
    expect(all.flatMap(({ mine }) => [...mine]).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 12 }, (_, partition) => partition),
    );
  });

  it('stays in its group while its reader takes longer than a session, which the consumer of kafkajs does not', async () => {
    const topic = await topicOf();
    const client = await connect();
    await write(client, topic, [text('a')]);
    // Not so short that whoever is only held up is put out.
    const session = { sessionTimeout: 4000, heartbeatInterval: 200 };
    const members = async (groupId: string) => {
      const { groups } = await kafka.admin(admin => admin.describeGroups([groupId]));
      return groups[0]?.members.map(({ memberId }) => memberId) ?? [];
    };

    const theirGroup = newName();
    const busy = new AbortController();
    const theirs = await stock(topic, { groupId: theirGroup, ...session }, async () => {
      if (!busy.signal.aborted) await once(busy.signal, 'abort');
    });
    await until(() => theirs.read.length === 1);
    await expect.poll(() => members(theirGroup), { timeout: 20_000 }).toEqual([]);
    busy.abort();

    const ourGroup = newName();
    const { reader, consumer } = read(client, [topic], { groupId: ourGroup, ...session });
    await until(() => reader.read.length === 1);
    consumer.pause([{ topic, partition: 0 }]);
    const before = await members(ourGroup);
    expect(before).toHaveLength(1);
    await new Promise(resolve => setTimeout(resolve, 2 * session.sessionTimeout));
    expect(await members(ourGroup)).toEqual(before);
    expect(reader.troubles).toEqual([]);
    consumer.resume([{ topic, partition: 0 }]);
    await write(client, topic, [text('b')]);
    await until(() => reader.read.length === 2);
  });

  it('shares out partitions while a reader is busy, for which the consumer of kafkajs lets its whole group wait', async () => {
    const client = await connect();
    const session = { sessionTimeout: 10_000, heartbeatInterval: 200, rebalanceTimeout: 60_000 };
    // For one that is busy, one that is not, and one that joins.
    const partitions = 3;
    const sizes = (...members: readonly { mine: ReadonlySet<number> }[]) => members.map(({ mine }) => mine.size).sort();

    const theirTopic = await topicOf(partitions);
    const theirs = { groupId: newName(), ...session };
    const busy = busyWork(session.heartbeatInterval);
    const slow = await stock(theirTopic, theirs, busy.work);
    closers.push(busy.done);
    await until(() => slow.mine.size === partitions);
    const fast = await stock(theirTopic, theirs);
    await until(() => fast.mine.size > 0 && slow.joins === 2);
    await writeEach(client, theirTopic, partitions, 'a');
    await until(() => slow.read.length > 0 && fast.read.length === fast.mine.size);
    const newcomer = await stock(theirTopic, theirs);
    await until(() => busy.refused > 0 && fast.rebalances > 0);
    const before = fast.read.length;
    await writeEach(client, theirTopic, partitions, 'b');
    const refused = busy.refused;
    await until(() => busy.refused >= refused + 10);
    const { groups } = await kafka.admin(admin => admin.describeGroups([theirs.groupId]));
    expect(groups[0]?.state).toBe('PreparingRebalance');
    expect([fast.read.length, newcomer.joins, newcomer.read.length]).toEqual([before, 0, 0]);
    await busy.done();
    await until(() => sizes(slow, fast, newcomer).join() === '1,1,1');
    const b = () => [slow, fast, newcomer].flatMap(({ read }) => read).filter(record => record.endsWith('b'));
    await until(() => new Set(b()).size === partitions);

    const ourTopic = await topicOf(partitions);
    const ours = { groupId: newName(), ...session };
    const one = read(client, [ourTopic], ours);
    const { records } = one.reader;
    let isBusy = true;
    one.reader.records = (of, read) => {
      if (isBusy) one.consumer.pause([of]);
      records(of, read);
    };
    await until(() => one.reader.mine.size === partitions);
    const { reader: two } = read(client, [ourTopic], ours);
    await until(() => sizes(one.reader, two).join() === '1,2');
    await writeEach(client, ourTopic, partitions, 'a');
    await until(() => one.reader.read.length > 0);
    const three = read(client, [ourTopic], ours).reader;
    await until(() => sizes(one.reader, two, three).join() === '1,1,1');
    await writeEach(client, ourTopic, partitions, 'b');
    const has = ({ read }: Reader, value: string) => read.some(record => String(record.value) === value);
    await until(() => has(two, 'b') && has(three, 'b'));
    isBusy = false;
    for (const partition of one.reader.mine) one.consumer.resume([{ topic: ourTopic, partition }]);
    await until(() => has(one.reader, 'b'));
  });

  it('gives a busy reader nothing of partitions that it has lost, which the consumer of kafkajs does', async () => {
    const client = await connect();
    const session = { sessionTimeout: 10_000, heartbeatInterval: 200, rebalanceTimeout: 3000 };
    const topic = await topicOf(2);
    await writeEach(client, topic, 2, 'a');

    const theirs = { groupId: newName(), ...session };
    const busy = busyWork(session.heartbeatInterval);
    const begun: number[] = [];
    const slow = await stock(topic, theirs, payload => {
      begun.push(slow.joins);
      return busy.work(payload);
    });
    closers.push(busy.done);
    await until(() => slow.read.length === 1);
    const newcomer = await stock(topic, theirs);
    // The group has gone on without the busy one.
    await until(() => new Set(newcomer.read).size === 2);
    expect(newcomer.mine.size).toBe(2);
    await busy.done();
    await until(() => begun.length > 1);
    // Both by its first membership.
    expect(begun.slice(0, 2)).toEqual([1, 1]);
    expect(new Set(slow.read)).toEqual(new Set(newcomer.read));

    const ours = { groupId: newName(), ...session };
    const one = read(client, [topic], ours);
    const settled = new AbortController();
    const strays: ReadRecord[] = [];
    const { records, revoked } = one.reader;
    Object.assign(one.reader, {
      records: (of, read) => {
        if (!settled.signal.aborted) one.consumer.pause([of]);
        if (!one.reader.mine.has(of.partition)) strays.push(...read);
        records(of, read);
      },
      revoked: async (partitions, lost) => {
        void revoked(partitions, lost);
        // There is more of them, and it would take it.
        one.consumer.resume(partitions);
        if (!settled.signal.aborted) await once(settled.signal, 'abort');
      },
    } satisfies Partial<ConsumerListener>);
    closers.push(async () => settled.abort());
    await until(() => one.reader.read.length === 2);
    await writeEach(client, topic, 2, 'b');
    const two = read(client, [topic], ours).reader;
    await until(() => two.mine.size === 1 && one.reader.mine.size === 1);
    settled.abort();
    one.consumer.resume([0, 1].map(partition => ({ topic, partition })));
    const b = () => [...one.reader.read, ...two.read].filter(({ value }) => String(value) === 'b');
    await until(() => b().length >= 2);
    expect(strays).toEqual([]);
  });

  it('reads partitions that were paused, lost and come back, which the consumer of kafkajs leaves paused', async () => {
    const client = await connect();
    const session = { sessionTimeout: 10_000, heartbeatInterval: 200 };
    const topic = await topicOf(2);

    const theirs = { groupId: newName(), ...session };
    const stays = await stock(topic, theirs);
    await until(() => stays.mine.size === 2);
    stays.consumer.pause([{ topic }]);
    const leaves = await stock(topic, theirs);
    await until(() => stays.mine.size === 1 && leaves.mine.size === 1);
    await leaves.consumer.disconnect();
    await until(() => stays.mine.size === 2);
    await writeEach(client, topic, 2, 'a');
    const heartbeats = stays.heartbeats;
    await until(() => stays.heartbeats >= heartbeats + 10);
    expect(stays.read).toEqual([]);
    stays.consumer.resume([{ topic }]);
    await until(() => stays.read.length === 2);

    const ours = { groupId: newName(), ...session };
    const one = read(client, [topic], ours);
    await until(() => one.reader.mine.size === 2);
    one.consumer.pause([0, 1].map(partition => ({ topic, partition })));
    const two = read(client, [topic], ours);
    await until(() => one.reader.mine.size === 1 && two.reader.mine.size === 1);
    await two.consumer.close();
    await until(() => one.reader.mine.size === 2);
    await writeEach(client, topic, 2, 'b');
    await until(() => one.reader.read.filter(({ value }) => String(value) === 'b').length === 2);
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
    const making = await startKafka({ version, autoCreate: true });
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
    { timeout: 180_000 },
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
