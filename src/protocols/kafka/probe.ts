/**
 * Trying a cluster: whether brokers answer and let us in, and whether topics and a group are there and may be used.
 *
 * @module
 */
import type { Finding, ProbeContext } from '../../core/component.ts';
import { MillraceError, toError } from '../../core/errors.ts';
import type { ConsumerOptions, KafkaClient, ProducerOptions, TopicAccess } from './client.ts';
import { connectTo } from './connect.ts';

/** What a component is going to ask of a cluster. */
export interface Wanted {
  readonly topics: ConsumerOptions['topics'];
  /** The option that names them. */
  readonly option: string;
  readonly read: boolean;
  readonly write: boolean;
  /** Where all that names none goes. */
  readonly partition?: number | undefined;
  readonly groupId?: string | undefined;
  readonly producer?: ProducerOptions;
}

type Connection = Parameters<typeof connectTo>[0];

/** Asks each of the brokers that are named, then the leaders of all partitions, then the coordinator of the group. */
export const probeKafka = async (
  options: Connection,
  wanted: Wanted,
  { log, signal }: ProbeContext,
): Promise<readonly Finding[]> => {
  const brokers = options.bootstrapServers;
  const clients: KafkaClient[] = [];
  const close = () => Promise.allSettled(clients.map(client => client.close()));
  signal.addEventListener('abort', () => void close(), { once: true });
  const ask = async (broker: string) => {
    const client = await connectTo({ ...options, bootstrapServers: [broker] }, log);
    clients.push(client);
    return { client, topics: await client.describeTopics(wanted.topics) };
  };
  try {
    const asked = await Promise.allSettled(brokers.map(ask));
    const first = asked.find(result => result.status === 'fulfilled')?.value;
    const findings = asked.flatMap((result, index): Finding[] => {
      const broker = brokers[index] as string;
      return result.status === 'fulfilled'
        ? [note(`broker ${broker} answers`, 'bootstrapServers')]
        : [{ ...failed(result.reason, 'bootstrapServers'), ...(first !== undefined && { severity: 'warning' }) }];
    });
    // Most of it concerns all of them: a package, a file, a password.
    if (first === undefined) return distinct(findings);
    const { client, topics } = first;
    return [
      ...findings,
      ...(await topicsOf(client, topics, wanted)),
      ...(wanted.groupId === undefined ? [] : [await groupOf(client, wanted.groupId)]),
      ...(await producerOf(client, wanted)),
    ];
  } finally {
    await close();
  }
};

const note = (message: string, option: string): Finding => ({ severity: 'note', message, option });

const failed = (thrown: unknown, option: string): Finding => {
  const { message } = toError(thrown);
  const code = thrown instanceof MillraceError ? thrown.code : 'MR_KAFKA';
  // Of a file, a secret or a package the message says which; nobody was asked.
  const answered = code.startsWith('MR_KAFKA');
  return { severity: 'error', code, message: message.replace(/\.$/, ''), ...(answered && { option }) };
};

const distinct = (findings: readonly Finding[]): Finding[] =>
  findings.filter(({ message }, index) => findings.findIndex(other => other.message === message) === index);

const topicsOf = async (
  client: KafkaClient,
  topics: readonly TopicAccess[],
  wanted: Wanted,
): Promise<readonly Finding[]> => {
  const { topics: named, option } = wanted;
  if (named instanceof RegExp && topics.length === 0)
    return [
      { severity: 'warning', code: 'MR_KAFKA_UNKNOWN_TOPIC', message: 'no topic that may be seen matches', option },
    ];
  if (topics.length === 0) return [note('events name their topics, which are not tried', option)];
  return (await Promise.all(topics.map(topic => topicOf(client, topic, wanted)))).flat();
};

const topicOf = async (
  client: KafkaClient,
  { topic, partitions, rights }: TopicAccess,
  { option, read, write, partition = 0 }: Wanted,
): Promise<readonly Finding[]> => {
  if (!rights.has('describe'))
    return [
      {
        ...missingRight(`see topic ${topic}`, option),
        advice: `Whether there is one is told only to who may describe it. It needs the right to ${[read && 'read', write && 'write'].filter(Boolean).join(' and ')}.`,
      },
    ];
  if (partitions === 0)
    return [
      {
        severity: 'error',
        code: 'MR_KAFKA_UNKNOWN_TOPIC',
        message: `there is no topic ${topic}`,
        option,
        advice: 'Create it. Brokers with auto.create.topics.enable make it when it is first used.',
      },
    ];
  const findings: Finding[] = [
    note(`topic ${topic} has ${partitions === 1 ? '1 partition' : `${partitions} partitions`}`, option),
  ];
  if (read && !rights.has('read')) findings.push(missingRight(`read topic ${topic}`, option));
  if (write && !rights.has('write')) findings.push(missingRight(`write to topic ${topic}`, option));
  if (partition >= partitions)
    findings.push({
      severity: 'error',
      code: 'MR_KAFKA_UNKNOWN_TOPIC',
      message: `topic ${topic} has no partition ${partition}`,
      option: 'defaultPartitionId',
    });
  try {
    await client.offsets(topic);
  } catch (thrown) {
    findings.push(failed(thrown, option));
  }
  return findings;
};

const missingRight = (to: string, option: string): Finding => ({
  severity: 'error',
  code: 'MR_KAFKA_NOT_AUTHORIZED',
  message: `there is no right to ${to}`,
  option,
});

const groupOf = async (client: KafkaClient, groupId: string): Promise<Finding> => {
  try {
    const rights = await client.describeGroup(groupId);
    return rights.has('read')
      ? note(`group ${groupId} may be joined`, 'groupId')
      : missingRight(`read in group ${groupId}`, 'groupId');
  } catch (thrown) {
    return failed(thrown, 'groupId');
  }
};

/** Nothing is sent: it shows which packages are missing. */
const producerOf = async (client: KafkaClient, { producer }: Wanted): Promise<readonly Finding[]> => {
  if (producer === undefined) return [];
  try {
    await client.producer(producer).close();
    return [];
  } catch (thrown) {
    return [failed(thrown, 'compression')];
  }
};
