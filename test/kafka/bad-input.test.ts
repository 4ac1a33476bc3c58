/**
 * Brokers, settings and records that are not as they should be: what is said, and that nothing is lost. What other files hold: a
 * topic that is missing for the source and the sink, one that is deleted, records too large for a broker, offsets that are not
 * there, and Avro that stops a partition (kafka-source, kafka-sink, kafka-channel, faults-group).
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { inScope, Scope } from '../../src/core/scope.ts';
import { event, run, type Flow } from '../../src/index.ts';
import { kafkaChannel, kafkaSink, kafkaSource, type KafkaSourceOptions } from '../../src/kafka.ts';
import { encodeAvroEvent } from '../../src/protocols/avro-event.ts';
import { kafkajs } from '../../src/protocols/kafka/kafkajs.ts';
import { quietLog } from '../../src/core/scope.ts';
import { recordingLog, recordingSink, scriptedSource } from '../../src/testing/index.ts';
import { freePort, start, type Running } from '../../bench/processes.ts';
import { built } from '../built.ts';
import { describeKafka, kafkaTool, kafkaVersions, startKafka, type Kafka } from './brokers.ts';

const until = async (holds: () => boolean | Promise<boolean>, what: () => unknown, limit = 60_000): Promise<void> => {
  const end = Date.now() + limit;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`not within ${limit} ms: ${JSON.stringify(what())}`);
    await new Promise(next => setTimeout(next, 20));
  }
};

/** Ends what a test has begun, the last first. */
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const quick = { 'fetch.max.wait.ms': '100', 'heartbeat.interval.ms': '300', 'session.timeout.ms': '6000' };

/** A flow, and what it says. */
const started = (make: () => Flow) => {
  const log = recordingLog();
  const scope = new Scope({ log });
  const flow = inScope(scope, make);
  flow.done.catch(() => undefined);
  closers.push(() => flow.abort());
  const said = (level = 'error') => log.entries.filter(one => one.level === level).map(({ message }) => message);
  return { flow, log, said, trouble: () => [...scope.metrics.troubles.values()][0] };
};

const reading = (kafka: Kafka, options: Partial<KafkaSourceOptions>) => {
  const sink = recordingSink();
  const source = () =>
    kafkaSource({
      bootstrapServers: kafka.bootstrap,
      ...options,
      consumer: { 'auto.offset.reset': 'earliest', ...quick, ...options.consumer },
    });
  const one = started(() => run(source(), sink));
  const counters = () => one.flow.metrics.find('SOURCE', 'kafka') as Record<string, number>;
  return { ...one, sink, counters, bodies: () => sink.acked.map(({ body }) => String(body)) };
};

const write = async (kafka: Kafka, topic: string, values: readonly (string | Buffer)[]) => {
  const client = await kafkajs({ brokers: kafka.bootstrap, log: quietLog });
  const producer = client.producer();
  await producer.send(
    { topic, partition: 0 },
    values.map(value => ({ key: null, value: Buffer.from(value as string) })),
  );
  await producer.close();
  await client.close();
};

describeKafka.each(kafkaVersions)('bad input on Kafka %s', version => {
  let kafka: Kafka;
  beforeAll(async () => {
    built();
    kafka = await startKafka({ version, security: ['none', 'sasl', 'tls'] });
  }, 240_000);
  afterAll(() => kafka.stop());

  test(
    'an agent whose brokers are away stays up, says so once for each component, and goes on when they come',
    { timeout: 120_000 },
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'bad-input-'));
      closers.push(() => rmSync(folder, { recursive: true }));
      for (const topic of ['agent-in', 'agent-held', 'agent-out']) await kafka.createTopic(topic);
      await write(kafka, 'agent-in', ['a', 'b']);
      await kafka.nodes[0]!.kill();
      // For whoever comes next.
      closers.push(() => kafka.nodes[0]!.pid() ?? kafka.nodes[0]!.start());
      const brokers = kafka.bootstrap.join();
      writeFileSync(
        join(folder, 'flume.conf'),
        `
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = kafka
a1.sources.r1.channels = c1
a1.sources.r1.kafka.bootstrap.servers = ${brokers}
a1.sources.r1.kafka.topics = agent-in
a1.sources.r1.kafka.consumer.auto.offset.reset = earliest
a1.channels.c1.type = kafka
a1.channels.c1.kafka.bootstrap.servers = ${brokers}
a1.channels.c1.kafka.topic = agent-held
a1.channels.c1.kafka.consumer.group.id = agent-held
a1.sinks.k1.type = kafka
a1.sinks.k1.channel = c1
a1.sinks.k1.kafka.bootstrap.servers = ${brokers}
a1.sinks.k1.kafka.topic = agent-out
a1.sinks.k1.allowTopicOverride = false
`,
      );
      const port = await freePort();
      const cli = resolve(import.meta.dirname, '../../dist/cli.js');
      const args = ['agent', '-n', 'a1', '-f', 'flume.conf', '--http-port', String(port)];
      const agent: Running = start(process.execPath, [cli, ...args], { cwd: folder });
      closers.push(() => agent.stop());
      const get = async (path: string) => {
        const answer = await fetch(`http://127.0.0.1:${port}/${path}`).catch(() => undefined);
        return { status: answer?.status, text: (await answer?.text()) ?? '' };
      };
      await until(
        async () => {
          const { status, text } = await get('readyz');
          return status === 503 && ['r1', 'c1', 'k1'].every(name => text.includes(name));
        },
        () => agent.output(),
      );
      expect((await get('readyz')).text).toContain(brokers);
      expect((await get('readyz')).text).toContain('"k1":"MR_KAFKA_UNREACHABLE: ');
      expect((await get('healthz')).status).toBe(200);
      const said = (level: number) =>
        agent
          .output()
          .split('\n')
          .filter(line => line.includes(`"level":${level}`));
      const failures = async () => {
        const metrics = JSON.parse((await get('metrics')).text || '{}') as Record<string, Record<string, string>>;
        return Number(metrics['SINK.k1']?.['EventWriteFail'] ?? 0);
      };
      await until(
        async () => (await failures()) >= 5,
        () => agent.output(),
      );
      expect(said(40).filter(line => line.includes('k1: opening failed'))).toHaveLength(1);
      expect(said(50)).toHaveLength(2);
      for (const line of said(50)) expect(line).toContain(brokers);
      await kafka.nodes[0]!.start();
      await until(
        async () => (await kafka.ends('agent-out'))[0] === 2,
        () => agent.output(),
      );
      await until(
        async () => (await get('readyz')).status === 200,
        () => agent.output(),
      );
      expect(agent.output()).toMatch(/k1: it goes on; \d+ attempts have failed since/);
      expect((await kafka.read('agent-out')).flat().map(({ value }) => String(value))).toEqual(['a', 'b']);
    },
  );

  describe.each([
    ['TLS at a port without', 'none', { 'security.protocol': 'SSL' }, 'MR_KAFKA_LOGIN', /speak TLS/],
    ['no TLS at a port with it', 'tls', {}, 'MR_KAFKA_UNREACHABLE', /may want TLS/],
    [
      'a wrong password',
      'sasl',
      {
        'security.protocol': 'SASL_PLAINTEXT',
        'sasl.mechanism': 'PLAIN',
        'sasl.jaas.config':
          'org.apache.kafka.common.security.plain.PlainLoginModule required username="alice" password="mistaken-secret";',
      },
      'MR_KAFKA_LOGIN',
      /[Aa]uthentication/,
    ],
  ] as const)('%s', (_, security, settings, code, says) => {
    const one = () => scriptedSource([{ emit: [event('a')] }]);
    test.each<[string, (bootstrapServers: string[]) => { flow: Flow; sink?: ReturnType<typeof kafkaSink> }]>([
      [
        'source',
        bootstrapServers => ({
          flow: run(kafkaSource({ bootstrapServers, topics: ['t'], consumer: settings }), recordingSink()),
        }),
      ],
      [
        'channel',
        bootstrapServers => ({
          flow: run(one(), kafkaChannel({ bootstrapServers, consumer: settings, producer: settings }), recordingSink()),
        }),
      ],
      [
        'sink',
        bootstrapServers => {
          const sink = kafkaSink({ bootstrapServers, topic: 't', producer: settings });
          return { flow: run(one(), sink), sink };
        },
      ],
    ])('the %s says which broker, and waits', async (_, make) => {
      const bootstrapServers = kafka.bootstrapOf(security);
      let sink: ReturnType<typeof kafkaSink> | undefined;
      const { flow, log, ...told } = started(() => {
        const made = make(bootstrapServers);
        sink = made.sink;
        return made.flow;
      });
      const trouble = () => told.trouble() ?? sink?.trouble;
      await until(
        () => trouble() !== undefined,
        () => log.entries,
      );
      expect(trouble()).toMatchObject({ code, retriable: true });
      expect(trouble()?.message).toContain(bootstrapServers[0]);
      expect(trouble()?.message).toMatch(says);
      expect(JSON.stringify(log.entries)).not.toContain('mistaken-secret');
      expect(flow.ledger.snapshot()).toMatchObject({ delivered: 0, rejected: 0 });
    });
  });

  test('a channel waits for a topic that is missing, names it, and has lost nothing when it is there', async () => {
    const options = {
      bootstrapServers: kafka.bootstrap,
      topic: 'channel-later',
      groupId: 'channel-later',
      consumer: quick,
    };
    const sink = recordingSink();
    const { flow, trouble, log } = started(() =>
      run(scriptedSource([{ emit: [event('a')] }]), kafkaChannel(options), sink),
    );
    await until(
      () => trouble() !== undefined,
      () => log.entries,
    );
    expect(trouble()).toMatchObject({
      code: 'MR_KAFKA_UNKNOWN_TOPIC',
      message: expect.stringContaining('channel-later') as string,
    });
    await kafka.createTopic('channel-later');
    await flow.done;
    expect(sink.acked.map(({ body }) => String(body))).toEqual(['a']);
    expect(trouble()).toBeUndefined();
  });

  describe('records that are no Avro', () => {
    const topic = 'poisoned';
    const says = /record 1 of poisoned-0 can not be read: .*Avro/;
    beforeAll(async () => {
      await kafka.createTopic(topic);
      await write(kafka, topic, [encodeAvroEvent(event('a')), 'no Avro', encodeAvroEvent(event('b'))]);
    });
    const read = (groupId: string, options: Partial<KafkaSourceOptions>) =>
      reading(kafka, { topics: [topic], groupId, useFlumeEventFormat: true, ...options });

    test('skip: leaves it out, which is said and counted', async () => {
      const { bodies, flow, said, counters } = read('skipping', { onPoison: 'skip' });
      await until(
        () => bodies().length === 2,
        () => bodies(),
      );
      expect(bodies()).toEqual(['a', 'b']);
      expect(said()).toEqual([expect.stringMatching(says)]);
      expect(said()[0]).toContain('left out');
      expect(counters()).toMatchObject({ PoisonRecordCount: 1 });
      expect(flow.ledger.snapshot()).toMatchObject({ accepted: 3, delivered: 2, rejected: 1 });
    });

    test('a dead letter: has the bytes, and where they were', async () => {
      const letters = recordingSink();
      const { bodies, said } = read('lettering', { deadLetter: letters });
      await until(
        () => bodies().length === 2 && letters.acked.length === 1,
        () => bodies(),
      );
      expect(String(letters.acked[0]?.body)).toBe('no Avro');
      expect(letters.acked[0]?.headers).toMatchObject({ topic, partition: '0', offset: '1' });
      expect(said()[0]).toMatch(says);
    });

    test('stop: holds its partition up, and whoever may skip it goes on there', async () => {
      const first = read('stopping', {});
      await until(
        () => first.trouble() !== undefined,
        () => first.log.entries,
      );
      expect(first.said()).toEqual([expect.stringMatching(says)]);
      expect(first.bodies()).toEqual(['a']);
      await first.flow.stop();
      const second = read('stopping', { onPoison: 'skip' });
      await until(
        () => second.bodies().length > 0,
        () => second.log.entries,
      );
      expect(second.bodies()).toEqual(['b']);
    });

    test('a channel stops at it as well, and says where', async () => {
      const sink = recordingSink();
      const { said, trouble, log } = started(() =>
        run(
          scriptedSource(['idle']),
          kafkaChannel({
            bootstrapServers: kafka.bootstrap,
            topic,
            groupId: 'channel',
            consumer: { ...quick, 'auto.offset.reset': 'earliest' },
          }),
          sink,
        ),
      );
      await until(
        () => trouble() !== undefined,
        () => log.entries,
      );
      expect(said()).toEqual([expect.stringMatching(says)]);
    });
  });

  describe('a group that is shared with somebody else', () => {
    const java = async (groupId: string, topic: string, ...more: string[]) => {
      const tool = await kafkaTool({
        version: '3.9.2',
        main: 'org.apache.kafka.tools.consumer.ConsoleConsumer',
        args: [
          ...['--bootstrap-server', kafka.bootstrap.join(), '--topic', topic, '--group', groupId],
          // Should it be too slow to say that it leaves.
          ...['--consumer-property', 'session.timeout.ms=6000', ...more],
        ],
      });
      closers.push(() => tool.stop());
      const members = async () =>
        (await kafka.admin(admin => admin.describeGroups([groupId]))).groups[0]?.members.length ?? 0;
      await until(
        async () => (await members()) > 0,
        () => tool.output(),
      );
      return tool;
    };

    test('who shares out in another way: it is said which group and where, and it goes on when they are gone', async () => {
      await kafka.createTopic('sticky');
      const assignor = 'org.apache.kafka.clients.consumer.StickyAssignor';
      const groupId = 'sticky-group';
      const other = await java(groupId, 'sticky', '--consumer-property', `partition.assignment.strategy=${assignor}`);
      const { trouble, bodies, log } = reading(kafka, { topics: ['sticky'], groupId });
      await until(
        () => trouble() !== undefined,
        () => log.entries,
      );
      expect(trouble()).toMatchObject({ code: 'MR_KAFKA', retriable: true });
      expect(trouble()?.message).toContain(groupId);
      expect(trouble()?.message).toContain(kafka.bootstrap[0]);
      expect(trouble()?.message).toContain('Use another group id');
      await other.stop();
      // They may have moved the group past what was there.
      await write(kafka, 'sticky', ['a']);
      await until(
        () => bodies().length > 0,
        () => log.entries,
      );
      expect(trouble()).toBeUndefined();
    });

    test.each(['we', 'they'])('who reads another topic: each reads its own, whether %s share out', async leader => {
      const [ours, theirs] = [`ours-${leader}`, `theirs-${leader}`] as const;
      for (const topic of [ours, theirs]) await kafka.createTopic(topic, { partitions: 2 });
      const groupId = `mixed-${leader}`;
      const start = () => reading(kafka, { topics: [ours], groupId });
      let reader = leader === 'we' ? start() : undefined;
      if (reader !== undefined)
        await until(
          () => reader?.counters()['AssignedPartitionCount'] === 2,
          () => reader?.log.entries,
        );
      const other = await java(groupId, theirs, '--from-beginning');
      reader ??= start();
      await write(kafka, ours, ['mine']);
      await write(kafka, theirs, ['not mine']);
      await until(
        () => reader.bodies().length > 0 && other.output().includes('not mine'),
        () => [reader.log.entries, other.output()],
      );
      expect(reader.bodies()).toEqual(['mine']);
      expect(other.output()).not.toMatch(/^mine/m);
    });
  });
});
