import { describe, expect, test } from 'vitest';
import type { ComponentInfo, Finding, ProbeContext } from '../../../src/core/component.ts';
import { quietLog } from '../../../src/core/scope.ts';
import { kafkaChannel, kafkaSink, kafkaSource } from '../../../src/kafka.ts';
import { memoryKafka, type MemoryKafka } from '../../../src/testing/index.ts';

const cluster = () => memoryKafka({ topics: { orders: 6, bills: 1 } });

/** As lines, and sound after what each broker of the cluster says. */
const findings = async (
  component: ComponentInfo,
  kafka: MemoryKafka,
  options: Readonly<Record<string, unknown>> = {},
  { fed = true, drained = true, signal = new AbortController().signal }: Partial<ProbeContext> = {},
): Promise<string[]> => {
  const given = component.options.parse({ bootstrapServers: 'a:1', connect: kafka.connect, ...options });
  const found = (await component.probe?.(given, { log: quietLog, signal, fed, drained })) as readonly Finding[];
  return found.map(({ severity, option, message }) => `${severity} ${option}: ${message}`);
};
const answers = 'note bootstrapServers: broker a:1 answers';

describe('a sink', () => {
  const sink = (kafka: MemoryKafka, options = {}) => findings(kafkaSink, kafka, { topic: 'orders', ...options });

  test('finds its topic, and that it may write', async () => {
    expect(await sink(cluster())).toEqual([answers, 'note topic: topic orders has 6 partitions']);
    expect(await sink(cluster(), { topic: 'bills' })).toContain('note topic: topic bills has 1 partition');
  });

  test('says what is missing: the topic, the partition, the right to write or even to see', async () => {
    const kafka = memoryKafka({ topics: { orders: 6 }, autoCreate: 3 });
    expect(await sink(kafka, { topic: 'oders' })).toEqual([answers, 'error topic: there is no topic oders']);
    // It was not made by asking.
    expect(await sink(kafka, { topic: 'oders' })).toEqual([answers, 'error topic: there is no topic oders']);
    expect(await sink(kafka, { defaultPartitionId: 6 })).toContain(
      'error defaultPartitionId: topic orders has no partition 6',
    );
    kafka.forbid('read', 'orders');
    kafka.forbid('group', 'flume');
    expect(await sink(kafka, { defaultPartitionId: 5 })).not.toContainEqual(expect.stringMatching(/^error .*right/));
    kafka.forbid('write', 'orders');
    expect(await sink(kafka)).toContain('error topic: there is no right to write to topic orders');
    kafka.forbid('describe', 'orders');
    expect(await sink(kafka)).toEqual([answers, 'error topic: there is no right to see topic orders']);
  });

  test('whose topics come from events tries brokers only', async () => {
    expect(await sink(cluster(), { topic: '%{app}' })).toEqual([
      answers,
      'note topic: events name their topics, which are not tried',
    ]);
    expect(await sink(cluster(), { topic: 'app', allowTopicOverride: false })).toContain(
      'error topic: there is no topic app',
    );
  });

  test('does not get in: each broker says why, and what they all say is said once', async () => {
    const kafka = cluster();
    kafka.down();
    expect(await sink(kafka, { bootstrapServers: 'a:1,b:1' })).toEqual([
      'error bootstrapServers: no broker of the cluster in memory answers',
    ]);
  });

  test('one broker of several is enough', async () => {
    const [kafka, other] = [cluster(), cluster()];
    other.down();
    const connect: MemoryKafka['connect'] = settings =>
      (settings.brokers[0] === 'a:1' ? kafka : other).connect(settings);
    expect(await sink(kafka, { bootstrapServers: 'b:1,a:1', connect })).toEqual([
      'warning bootstrapServers: no broker of the cluster in memory answers',
      answers,
      'note topic: topic orders has 6 partitions',
    ]);
  });

  test('names a file that is not there, and options that do not fit together', async () => {
    const producer = { 'security.protocol': 'SSL', 'ssl.truststore.location': '/nowhere/ca.pem' };
    expect(await sink(cluster(), { producer, bootstrapServers: 'a:1,b:1' })).toEqual([
      expect.stringMatching(/^error undefined: ssl.truststore.location: \/nowhere\/ca.pem cannot be read/),
    ]);
    await expect(sink(cluster(), { acks: '1', producer: { 'enable.idempotence': 'true' } })).rejects.toThrow(
      /needs acks = all/,
    );
  });
});

describe('a source', () => {
  const source = (kafka: MemoryKafka, options = {}) => findings(kafkaSource, kafka, { topics: 'orders', ...options });

  test('finds its topics and its group', async () => {
    expect(await source(cluster(), { topics: 'orders bills', groupId: 'g' })).toEqual([
      answers,
      'note topics: topic orders has 6 partitions',
      'note topics: topic bills has 1 partition',
      'note groupId: group g may be joined',
    ]);
  });

  test('says which rights are missing', async () => {
    const kafka = cluster();
    kafka.forbid('write', 'orders');
    kafka.forbid('group', 'other');
    expect((await source(kafka)).join()).not.toContain('error');
    kafka.forbid('read', 'orders');
    kafka.forbid('group', 'flume');
    const found = await source(kafka);
    expect(found).toContain('error topics: there is no right to read topic orders');
    expect(found).toContain('error groupId: there is no right to read in group flume');
  });

  test('an expression: what matches, or nothing', async () => {
    const regex = (topicsRegex: string) => source(cluster(), { topics: undefined, topicsRegex });
    expect(await regex('b.*|o.*')).toContain('note topicsRegex: topic bills has 1 partition');
    expect(await regex('order')).toContain('warning topicsRegex: no topic that may be seen matches');
  });
});

describe('a channel', () => {
  test('needs what it is used for', async () => {
    const kafka = cluster();
    kafka.forbid('write', 'orders');
    kafka.forbid('group', 'flume');
    const channel = (use: Partial<ProbeContext>) => findings(kafkaChannel, kafka, { topic: 'orders' }, use);
    const write = 'error topic: there is no right to write to topic orders';
    const group = 'error groupId: there is no right to read in group flume';
    const topic = 'note topic: topic orders has 6 partitions';
    expect(await channel({})).toEqual([answers, topic, write, group]);
    expect(await channel({ fed: false })).toEqual([answers, topic, group]);
    expect(await channel({ drained: false })).toEqual([answers, topic, write]);
  });
});
