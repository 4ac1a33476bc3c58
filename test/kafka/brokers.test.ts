import { resolve } from 'node:path';
import { Kafka as Client, logLevel, type KafkaConfig } from 'kafkajs';
import { afterEach, describe, expect, it } from 'vitest';
import { flume } from '../../bench/flume.ts';
import { poll, start } from '../../bench/processes.ts';
import {
  describeKafka,
  kafkaUsers,
  kafkaVersions,
  oauthToken,
  startKafka,
  type Kafka,
  type KafkaNode,
  type KafkaOptions,
  type Security,
} from './brokers.ts';
import { proxy, type Proxy } from './proxy.ts';

it('what was started does not outlive who started it, even if that is killed', async () => {
  const script = `
    import { start } from ${JSON.stringify(resolve(import.meta.dirname, '../../bench/processes.ts'))};
    console.log('pid', start('sleep', ['600']).pid);`;
  const parent = start(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', script]);
  const pid = await poll('a process', () => /pid (\d+)/.exec(parent.output())?.[1], { until: parent.exited });
  parent.signal('SIGKILL');
  const ended = () => {
    try {
      process.kill(Number(pid), 0);
      return undefined;
    } catch {
      return true;
    }
  };
  expect(await poll('its end', ended)).toBe(true);
});

describeKafka('real brokers', () => {
  const started: Kafka[] = [];
  const cables: Proxy[] = [];
  afterEach(async () => {
    await Promise.all(started.splice(0).map(kafka => kafka.stop()));
    await Promise.all(cables.splice(0).map(cable => cable.close()));
  });
  const begin = async (options: KafkaOptions) => {
    const kafka = await startKafka(options);
    started.push(kafka);
    return kafka;
  };

  const quick = { retries: 20, initialRetryTime: 50, maxRetryTime: 500 };
  const client = (config: KafkaConfig) =>
    new Client({ logLevel: logLevel.NOTHING, connectionTimeout: 2000, retry: quick, ...config });
  const send = async (config: KafkaConfig, topic: string, ...values: string[]) => {
    const producer = client(config).producer({ retry: quick });
    try {
      await producer.connect();
      await producer.send({ topic, messages: values.map(value => ({ value, partition: 0 })) });
    } finally {
      await producer.disconnect();
    }
  };
  const values = async (kafka: Kafka, topic: string) =>
    (await kafka.read(topic)).map(records => records.map(({ value }) => value!.toString()));

  it.each(kafkaVersions)('%s: a topic is made, written, read and deleted', async version => {
    const kafka = await begin({ version });
    await kafka.createTopic('lines', { partitions: 2 });
    const producer = client({ brokers: kafka.bootstrap }).producer();
    await producer.connect();
    await producer.send({
      topic: 'lines',
      messages: [
        { partition: 1, key: 'k', value: 'one', headers: { h: 'v' }, timestamp: '1234' },
        { partition: 1, value: null, timestamp: '5678' },
      ],
    });
    await producer.disconnect();
    expect(await kafka.ends('lines')).toEqual([0, 2]);
    expect(await kafka.read('lines')).toEqual([
      [],
      [
        {
          offset: 0,
          timestamp: 1234,
          key: Buffer.from('k'),
          value: Buffer.from('one'),
          headers: { h: Buffer.from('v') },
        },
        { offset: 1, timestamp: 5678, key: null, value: null, headers: {} },
      ],
    ]);
    await kafka.deleteTopic('lines');
    expect(await kafka.admin(ask => ask.listTopics())).not.toContain('lines');
  });

  it('reads what transactions have committed, and ends behind their marks', async () => {
    const kafka = await begin({});
    await kafka.createTopic('lines');
    const producer = client({ brokers: kafka.bootstrap }).producer({
      transactionalId: 't',
      maxInFlightRequests: 1,
      idempotent: true,
    });
    await producer.connect();
    for (const end of ['abort', 'commit', 'abort'] as const) {
      const transaction = await producer.transaction();
      await transaction.send({ topic: 'lines', messages: [{ value: end }] });
      await transaction[end]();
    }
    await producer.disconnect();
    expect(await kafka.ends('lines')).toEqual([6]);
    expect(await values(kafka, 'lines')).toEqual([['commit']]);
  });

  it('three nodes: a leader is killed, stopped and paused, and comes back with all it had', async () => {
    const kafka = await begin({ nodes: 3, fastFailover: true });
    await kafka.createTopic('lines', { partitions: 3 });
    // kafkajs gives up too often when it begins with a node that does not answer.
    const config = { brokers: () => kafka.bootstrap.filter((_, index) => kafka.nodes[index]!.answers()) };
    const moved = (from: KafkaNode) =>
      poll('another leader', async () => (await kafka.leaderOf('lines', 0)) !== from || undefined);
    await send(config, 'lines', 'before');

    const killed = await kafka.leaderOf('lines', 0);
    await killed.kill();
    await moved(killed);
    await send(config, 'lines', 'killed');
    await killed.start();
    await kafka.inSync('lines');

    const paused = await kafka.leaderOf('lines', 0);
    paused.pause();
    await moved(paused);
    await send(config, 'lines', 'paused');
    paused.resume();
    await kafka.inSync('lines');

    const stopped = await kafka.leaderOf('lines', 0);
    await stopped.stop();
    await moved(stopped);
    await send(config, 'lines', 'stopped');
    await stopped.start();
    await kafka.inSync('lines');
    expect((await values(kafka, 'lines'))[0]).toEqual(['before', 'killed', 'paused', 'stopped']);

    const consumer = client(config).consumer({ groupId: 'readers' });
    const coordinator = new Promise<string>(resolve => {
      consumer.on('consumer.network.request', ({ payload: { apiName, broker } }) => {
        if (apiName === 'JoinGroup') resolve(broker);
      });
    });
    await consumer.connect();
    await consumer.subscribe({ topic: 'lines' });
    await consumer.run({ eachMessage: async () => undefined });
    expect(await coordinator).toBe(kafka.bootstrap[(await kafka.coordinatorOf('readers')).id - 1]);
    await consumer.disconnect();
  });

  describe('ways in', () => {
    const user = (mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512', password = kafkaUsers.alice) =>
      ({ mechanism, username: 'alice', password }) as NonNullable<KafkaConfig['sasl']>;
    const token = (value: string): NonNullable<KafkaConfig['sasl']> => ({
      mechanism: 'oauthbearer',
      oauthBearerProvider: async () => ({ value }),
    });

    it.each(kafkaVersions)('%s: TLS, certificates, logins and rights', async version => {
      const security: Security[] = ['none', 'tls', 'mtls', 'sasl', 'sasl_tls'];
      const kafka = await begin({ version, security, acls: true });
      await kafka.createTopic('ours');
      await kafka.createTopic('theirs');
      await kafka.allow('alice', 'TOPIC', 'ours', 'WRITE', 'DESCRIBE');
      await kafka.allow('CN=alice', 'TOPIC', 'ours', 'WRITE', 'DESCRIBE');
      const { ca, client: own } = kafka.certificates!;
      const tls = { ca: [ca] };
      const at = (way: Security, more: Partial<KafkaConfig> = {}): KafkaConfig => ({
        brokers: kafka.bootstrapOf(way),
        retry: { retries: 0 },
        ...more,
      });

      const good: Record<string, KafkaConfig> = {
        none: at('none'),
        mtls: at('mtls', { ssl: { ...tls, key: own.key, cert: own.cert } }),
        plain: at('sasl', { sasl: user('plain') }),
        'scram-256': at('sasl', { sasl: user('scram-sha-256') }),
        'scram-512': at('sasl_tls', { ssl: tls, sasl: user('scram-sha-512') }),
        token: at('sasl', { sasl: token(oauthToken('alice')) }),
      };
      for (const [name, config] of Object.entries(good)) await send(config, 'ours', name);
      expect(await values(kafka, 'ours')).toEqual([Object.keys(good)]);

      // TLS without a certificate has no name, which here is one that may do everything.
      await send(at('tls', { ssl: tls }), 'theirs', 'tls');
      await expect(send(good['plain']!, 'theirs', 'x')).rejects.toThrow('Not authorized to access topics');
      await expect(send(at('mtls', { ssl: tls }), 'ours', 'x')).rejects.toThrow();
      await expect(send(at('tls', { ssl: true }), 'ours', 'x')).rejects.toThrow('certificate');
      await expect(send(at('sasl', { sasl: user('plain', 'guessed') }), 'ours', 'x')).rejects.toThrow('uthentication');
      await expect(send(at('sasl', { sasl: token(oauthToken('alice', -60)) }), 'ours', 'x')).rejects.toThrow();
      expect(await kafka.ends('ours')).toEqual([Object.keys(good).length]);
    });
  });

  it('clients come by a proxy', async () => {
    const kafka = await begin({
      advertise: async port => {
        const cable = await proxy({ to: port });
        cables.push(cable);
        return cable.port;
      },
    });
    const cable = cables[0]!;
    expect(kafka.bootstrap).toEqual([`127.0.0.1:${cable.port}`]);
    await kafka.createTopic('lines');
    const producer = client({ brokers: kafka.bootstrap }).producer();
    await producer.connect();
    const put = (value: string) => producer.send({ topic: 'lines', messages: [{ value }] });
    await put('one');
    const reached = cable.cutAfter(50_000, 'up');
    const sent = put('x'.repeat(100_000));
    await reached;
    await sent;
    await producer.disconnect();
    // The half that came is no record.
    expect(await kafka.ends('lines')).toEqual([2]);
    await cable.close();
    await expect(send({ brokers: kafka.bootstrap, retry: { retries: 0 } }, 'lines', 'x')).rejects.toThrow();
    expect(await kafka.ends('lines')).toEqual([2]);
  });

  it('real Flume has its source, channel and sink', async () => {
    const kafka = await begin({});
    for (const topic of ['first', 'channel', 'last']) await kafka.createTopic(topic);
    const servers = `kafka.bootstrap.servers = ${kafka.bootstrap.join()}`;
    const agent = await flume({
      kafka: true,
      conf: `
        a1.sources = numbers kafka
        a1.channels = memory kafka
        a1.sinks = first last
        a1.sources.numbers.type = seq
        a1.sources.numbers.totalEvents = 10
        a1.sources.numbers.channels = memory
        a1.channels.memory.type = memory
        a1.sinks.first.type = org.apache.flume.sink.kafka.KafkaSink
        a1.sinks.first.${servers}
        a1.sinks.first.kafka.topic = first
        a1.sinks.first.channel = memory
        a1.sources.kafka.type = org.apache.flume.source.kafka.KafkaSource
        a1.sources.kafka.${servers}
        a1.sources.kafka.kafka.topics = first
        a1.sources.kafka.kafka.consumer.auto.offset.reset = earliest
        # Or the last sink writes to the first topic.
        a1.sources.kafka.setTopicHeader = false
        a1.sources.kafka.channels = kafka
        a1.channels.kafka.type = org.apache.flume.channel.kafka.KafkaChannel
        a1.channels.kafka.${servers}
        a1.channels.kafka.kafka.topic = channel
        a1.channels.kafka.kafka.consumer.auto.offset.reset = earliest
        a1.sinks.last.type = org.apache.flume.sink.kafka.KafkaSink
        a1.sinks.last.${servers}
        a1.sinks.last.kafka.topic = last
        a1.sinks.last.channel = kafka`,
    });
    try {
      await poll('ten events', async () => (await kafka.ends('last'))[0] === 10 || undefined, { until: agent.exited });
      expect(await values(kafka, 'last')).toEqual([['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']]);
    } finally {
      await agent.stop(0);
    }
  });

  it('says why a start fails, and leaves nothing', async () => {
    await expect(startKafka({ properties: { 'num.io.threads': 'many' } })).rejects.toThrow('num.io.threads');
  });

  it('topics are made by whoever asks, if wanted', async () => {
    const kafka = await begin({ autoCreate: true });
    await send({ brokers: kafka.bootstrap }, 'new', 'one');
    expect(await values(kafka, 'new')).toEqual([['one']]);
  });
});
