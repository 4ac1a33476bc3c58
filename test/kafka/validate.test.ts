import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { quietLog } from '../../src/core/scope.ts';
import { kafkajs } from '../../src/protocols/kafka/kafkajs.ts';
import { platformatic } from '../../src/protocols/kafka/platformatic.ts';
import { freePort } from '../../bench/processes.ts';
import { built } from '../built.ts';
import { describeKafka, kafkaUsers, kafkaVersions, startKafka, type Kafka, type KafkaVersion } from './brokers.ts';

const cli = resolve(import.meta.dirname, '../../dist/cli.js');
const folder = mkdtempSync(join(tmpdir(), 'validate-'));
afterAll(() => rmSync(folder, { recursive: true }));

interface Found {
  readonly errors: number;
  readonly notes: number;
  readonly problems: readonly { severity: string; code: string; line: number; message: string }[];
}

/** What the command says, and its status. */
const validate = async (conf: string, ...more: string[]) => {
  const file = join(folder, 'flume.conf');
  writeFileSync(file, conf);
  const child = spawn(process.execPath, [cli, 'validate', '-f', file, '--format', 'json', ...more], {
    env: { ...process.env, KAFKA_PW: kafkaUsers.alice },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const [status] = (await once(child, 'close')) as [number];
  for (const secret of Object.values(kafkaUsers)) expect(out + err).not.toContain(secret);
  expect(err).toBe('');
  const { problems, errors, notes } = JSON.parse(out) as Found;
  return {
    status,
    errors,
    notes,
    said: problems.map(({ severity, message }) => `${severity} ${message.replaceAll(/127\.0\.0\.1:\d+/g, 'BROKER')}`),
    codes: problems.filter(({ severity }) => severity === 'error').map(({ code }) => code),
  };
};

describeKafka('validate --connect', () => {
  describe.each(kafkaVersions)('on Kafka %s', (version: KafkaVersion) => {
    let kafka: Kafka;
    beforeAll(async () => {
      built();
      kafka = await startKafka({ version, security: ['sasl', 'sasl_tls'], acls: true });
      await kafka.createTopic('in', { partitions: 3 });
      await kafka.createTopic('held');
      await kafka.createTopic('out', { partitions: 2 });
    }, 240_000);
    afterAll(() => kafka.stop());

    /** As alice, who has what rights a test gives her. */
    const conf = ({ brokers = kafka.bootstrap, password = 'env:KAFKA_PW' } = {}) => {
      const where = (side: string) => [
        `kafka.bootstrap.servers = ${brokers.join(',')}`,
        `kafka.${side}.security.protocol = SASL_PLAINTEXT`,
        `kafka.${side}.sasl.mechanism = SCRAM-SHA-256`,
        `kafka.${side}.sasl.jaas.config = org.apache.kafka.common.security.scram.ScramLoginModule required username="alice" password="${password}";`,
        `kafka.${side}.socket.connection.setup.timeout.ms = 3000`,
      ];
      const part = (name: string, ...lines: string[]) => lines.map(line => `a1.${name}.${line}`);
      return [
        'a1.sources = r1',
        'a1.channels = c1',
        'a1.sinks = k1',
        ...part(
          'sources.r1',
          'type = kafka',
          'channels = c1',
          'kafka.topics = in',
          'kafka.consumer.group.id = readers',
        ),
        ...part('sources.r1', ...where('consumer')),
        ...part('channels.c1', 'type = kafka', 'kafka.topic = held', 'kafka.consumer.group.id = agents'),
        ...part('channels.c1', ...where('consumer')),
        ...part('sinks.k1', 'type = kafka', 'channel = c1', 'kafka.topic = out', 'kafka.producer.acks = all'),
        // Or what comes from `in` goes there again, of which there is a warning.
        ...part('sinks.k1', 'allowTopicOverride = false'),
        ...part('sinks.k1', ...where('producer')),
      ].join('\n');
    };

    it('says what is missing until everything is there', async () => {
      const nothing = await validate(conf(), '--connect');
      expect(nothing.said).toEqual([
        'error a1.sources.r1.kafka.topics: there is no right to see topic in',
        'error a1.sources.r1.kafka.consumer.group.id: there is no right to read in group readers',
        'note a1.sources.r1.kafka.bootstrap.servers: broker BROKER answers',
        'error a1.channels.c1.kafka.topic: there is no right to see topic held',
        'error a1.channels.c1.kafka.consumer.group.id: there is no right to read in group agents',
        'note a1.channels.c1.kafka.bootstrap.servers: broker BROKER answers',
        'error a1.sinks.k1.kafka.topic: there is no right to see topic out',
        'note a1.sinks.k1.kafka.bootstrap.servers: broker BROKER answers',
      ]);
      expect(nothing).toMatchObject({ status: 1, codes: Array(5).fill('MR_KAFKA_NOT_AUTHORIZED') });
      await kafka.allow('alice', 'TOPIC', 'in', 'DESCRIBE');
      await kafka.allow('alice', 'TOPIC', 'held', 'READ');
      await kafka.allow('alice', 'TOPIC', 'out', 'READ');
      await kafka.allow('alice', 'GROUP', 'agents', 'READ');
      await kafka.allow('alice', 'GROUP', 'readers', 'DESCRIBE');
      const some = await validate(conf(), '--connect');
      expect(some.said.filter(text => !text.includes('bootstrap'))).toEqual([
        'note a1.sources.r1.kafka.topics: topic in has 3 partitions',
        'error a1.sources.r1.kafka.topics: there is no right to read topic in',
        'error a1.sources.r1.kafka.consumer.group.id: there is no right to read in group readers',
        'note a1.channels.c1.kafka.topic: topic held has 1 partition',
        'error a1.channels.c1.kafka.topic: there is no right to write to topic held',
        'note a1.channels.c1.kafka.consumer.group.id: group agents may be joined',
        'note a1.sinks.k1.kafka.topic: topic out has 2 partitions',
        'error a1.sinks.k1.kafka.topic: there is no right to write to topic out',
      ]);
      expect(some.status).toBe(1);
      await kafka.allow('alice', 'TOPIC', 'in', 'READ');
      await kafka.allow('alice', 'TOPIC', 'held', 'WRITE');
      await kafka.allow('alice', 'TOPIC', 'out', 'WRITE');
      await kafka.allow('alice', 'GROUP', 'readers', 'READ');
      const all = await validate(conf(), '--connect');
      expect(all).toMatchObject({ status: 0, errors: 0, notes: 8 });
      const other = await validate(conf().replace('topic = out', 'topic = oth'), '--connect');
      expect(other).toMatchObject({ status: 1, codes: ['MR_KAFKA_NOT_AUTHORIZED'] });
      await kafka.allow('alice', 'TOPIC', 'oth', 'WRITE');
      const missing = await validate(conf().replace('topic = out', 'topic = oth'), '--connect');
      expect(missing).toMatchObject({ status: 1, codes: ['MR_KAFKA_UNKNOWN_TOPIC'] });
      expect(missing.said).toContain('error a1.sinks.k1.kafka.topic: there is no topic oth');
    });

    it('without --connect contacts nobody; with it, says what is at the address', async () => {
      let connections = 0;
      const silent = createServer(socket => {
        connections++;
        socket.on('error', () => undefined).resume();
      }).listen(0, '127.0.0.1');
      await once(silent, 'listening');
      const { port } = silent.address() as AddressInfo;
      const brokers = [`127.0.0.1:${await freePort()}`];
      const plain = await validate(conf({ brokers: [`127.0.0.1:${port}`] }));
      expect(plain).toMatchObject({ status: 0, said: [] });
      expect(connections).toBe(0);
      const closed = await validate(conf({ brokers }), '--connect');
      expect(closed.status).toBe(1);
      expect(new Set(closed.codes)).toEqual(new Set(['MR_KAFKA_UNREACHABLE']));
      const one = await validate(conf({ brokers: [...brokers, ...kafka.bootstrap] }), '--connect');
      expect(one.said.filter(text => text.includes('warning'))).toHaveLength(3);
      const mute = await validate(conf({ brokers: [`127.0.0.1:${port}`] }), '--connect');
      expect(mute).toMatchObject({ status: 1, codes: Array(3).fill('MR_KAFKA_UNREACHABLE') });
      expect(connections).toBeGreaterThan(0);
      silent.close();
    });

    it('a wrong password, and a port that wants TLS', async () => {
      const wrong = await validate(conf({ password: 'mistaken-secret' }), '--connect');
      expect(wrong).toMatchObject({ status: 1, codes: ['MR_KAFKA_LOGIN', 'MR_KAFKA_LOGIN', 'MR_KAFKA_LOGIN'] });
      expect(wrong.said.join()).not.toContain('mistaken-secret');
      const tls = await validate(conf({ brokers: kafka.bootstrapOf('sasl_tls') }), '--connect');
      expect(tls.status).toBe(1);
      expect(tls.said).toHaveLength(3);
      expect(tls.said.every(text => text.includes('the port may want TLS'))).toBe(true);
    });

    it.each([
      ['kafkajs', kafkajs],
      ['platformatic', platformatic],
    ])('%s tells rights apart', async (name, connect) => {
      const topic = `rights-${name}`;
      await kafka.createTopic(topic, { partitions: 2 });
      const client = await connect({
        brokers: kafka.bootstrap,
        login: { mechanism: 'plain', username: 'bob', password: () => kafkaUsers.bob },
        log: quietLog,
      });
      const all = new RegExp(`^${topic}$`);
      try {
        const rights = async () => (await client.describeTopics([topic]))[0];
        expect(await rights()).toEqual({ topic, partitions: 0, rights: new Set() });
        expect(await client.describeTopics(all)).toEqual([]);
        expect(await client.describeGroup(topic)).toEqual(new Set());
        await kafka.allow('bob', 'TOPIC', topic, 'WRITE');
        expect(await rights()).toEqual({ topic, partitions: 2, rights: new Set(['describe', 'write']) });
        await kafka.allow('bob', 'TOPIC', topic, 'READ');
        expect(await rights()).toEqual({ topic, partitions: 2, rights: new Set(['describe', 'read', 'write']) });
        await kafka.allow('bob', 'GROUP', topic, 'DESCRIBE');
        expect(await client.describeGroup(topic)).toEqual(new Set(['describe']));
        await kafka.allow('bob', 'GROUP', topic, 'READ');
        expect(await client.describeGroup(topic)).toEqual(new Set(['describe', 'read']));
        expect(await client.describeTopics(all)).toEqual([await rights()]);
      } finally {
        await client.close();
      }
    });
  });

  it.each(kafkaVersions)(
    'a broker of Kafka %s that tells clients an address where nobody is',
    async version => {
      built();
      let listens = 0;
      const kafka = await startKafka({
        version,
        advertise: port => {
          listens = port;
          return freePort();
        },
      });
      try {
        await kafka.createTopic('out');
        const conf = [
          'a1.channels = c1',
          'a1.sinks = k1',
          'a1.channels.c1.type = memory',
          'a1.sinks.k1.type = kafka',
          'a1.sinks.k1.channel = c1',
          'a1.sinks.k1.kafka.topic = out',
          `a1.sinks.k1.kafka.bootstrap.servers = 127.0.0.1:${listens}`,
        ];
        const found = await validate(conf.join('\n'), '--connect');
        expect(found).toMatchObject({ status: 1, codes: ['MR_KAFKA_UNREACHABLE'] });
        expect(found.said).toContain('note a1.sinks.k1.kafka.topic: topic out has 1 partition');
      } finally {
        await kafka.stop();
      }
    },
    240_000,
  );
});
