/**
 * The options that source, channel and sink for Kafka have in common: where the brokers are, how to get in, and the properties
 * of Java's clients, which Flume hands on as `kafka.producer.*` and `kafka.consumer.*`. What such a property becomes here is
 * in one table; from it come the settings of clients, the errors, and the reference pages.
 *
 * @module
 */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { MillraceError, toError } from '../../core/errors.ts';
import { nearest } from '../../core/nearest.ts';
import { choice, code, list, map, shown, withHome, type MapEntry } from '../../core/options.ts';
import type { Log } from '../../core/scope.ts';
import { secretText } from '../../core/secret.ts';
import {
  compressions,
  type ConnectionSettings,
  type ConsumerOptions,
  type KafkaConnector,
  type Login,
  type ProducerOptions,
  type Tls,
} from './client.ts';
import { parseJaas } from './jaas.ts';

/** Names of Java's clients, each with its text. */
export type Properties = Readonly<Record<string, string>>;
type Side = 'producer' | 'consumer';

interface Property {
  /** Whose it is. Default: both. */
  readonly of?: Side;
  /** What it does here; or why it has no effect, or is refused, and what to do instead. */
  readonly says: string;
  /** Default: text. */
  readonly takes?: 'number' | 'flag' | 'text' | 'secret' | readonly string[];
  readonly min?: number;
  readonly default?: string | number | boolean;
  readonly effect?: 'none' | 'refused';
}

const serialization = 'org.apache.kafka.common.serialization.';
const assignor = 'org.apache.kafka.clients.consumer.';
const assignors = ['RangeAssignor', 'RoundRobinAssignor', 'StickyAssignor', 'CooperativeStickyAssignor'];
const inSystem = 'The operating system decides.';
const forJava = 'It is about classes of Java.';
const noClasses = 'Classes of Java cannot run here.';
const again = 'What fails is tried again until it is in, and the delivery stays where it is meanwhile.';
const atOnce =
  'What waits while a partition is being written to goes with its next write; nothing waits for more to come.';
const secretForm = 'As it is, or as `file:<path>` or `env:<variable>`.';

/** Every property that has a meaning here, or deserves an answer. By the names of Kafka 2.7, which Flume 1.11 comes with, and later ones. */
const table: Readonly<Record<string, Property>> = {
  'client.id': { says: 'Brokers write it into their logs.', default: 'millrace' },
  'socket.connection.setup.timeout.ms': {
    says: 'How long a connection may take, in ms.',
    takes: 'number',
    min: 1,
    default: 10_000,
  },
  'security.protocol': {
    says: 'Whether to speak TLS, and to log in.',
    takes: ['PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'],
    default: 'PLAINTEXT',
  },
  'sasl.mechanism': {
    says: 'How to log in. Kerberos (GSSAPI) is not built in.',
    takes: ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512', 'OAUTHBEARER'],
  },
  'sasl.jaas.config': {
    says:
      'Login module and credentials, as for Java: `org.apache.kafka.common.security.scram.ScramLoginModule required username="u" password="env:PW";`. ' +
      'The whole of it, a password, and the `token` of the OAuthBearerLoginModule may be `file:<path>` or `env:<variable>`, which is read for each login.',
    takes: 'secret',
  },
  'ssl.truststore.location': { says: 'A file of CA certificates in PEM. Default: those that Node.js knows.' },
  'ssl.truststore.certificates': { says: 'CA certificates in PEM, instead of a file.' },
  'ssl.truststore.type': { says: 'Type of the trust store: the file itself shows what it is.', takes: ['PEM'] },
  'ssl.truststore.password': { says: 'PEM files of certificates have none.', takes: 'secret', effect: 'none' },
  'ssl.keystore.location': {
    says: 'A file with the key and the certificates of this client: PKCS12, or PEM.',
  },
  'ssl.keystore.type': {
    says: 'Type of the key store: the file itself shows what it is. `keytool -importkeystore -srckeystore <file> -destkeystore client.p12 -deststoretype PKCS12` converts a JKS file.',
    takes: ['PKCS12', 'PEM'],
  },
  'ssl.keystore.password': { says: `Password of a PKCS12 key store. ${secretForm}`, takes: 'secret' },
  'ssl.keystore.key': { says: `The key in PEM, instead of a file. ${secretForm}`, takes: 'secret' },
  'ssl.keystore.certificate.chain': { says: 'The certificates in PEM that go with `ssl.keystore.key`.' },
  'ssl.key.password': { says: `Password of the key in a PEM key store. ${secretForm}`, takes: 'secret' },
  'ssl.endpoint.identification.algorithm': {
    says: 'Empty: the name in the certificate of a broker may be any.',
    takes: ['https', ''],
    default: 'https',
  },
  'ssl.disableTLSHostnameVerification': {
    says: 'Whether the name in the certificate of a broker may be any. The property is of Flume.',
    takes: 'flag',
    default: false,
  },
  'ssl.protocol': { says: 'Both sides agree on TLS 1.2 or 1.3.', takes: ['TLSv1.2', 'TLSv1.3', 'TLS'], effect: 'none' },
  'ssl.enabled.protocols': {
    says: 'Both sides agree on TLS 1.2 or 1.3.',
    takes: ['TLSv1.2', 'TLSv1.3', 'TLSv1.2,TLSv1.3', 'TLSv1.3,TLSv1.2'],
    effect: 'none',
  },
  'ssl.cipher.suites': { says: 'Set them in the brokers.', effect: 'refused' },
  'ssl.provider': { says: forJava, effect: 'none' },
  'ssl.keymanager.algorithm': { says: forJava, effect: 'none' },
  'ssl.trustmanager.algorithm': { says: forJava, effect: 'none' },
  'ssl.secure.random.implementation': { says: forJava, effect: 'none' },
  'ssl.engine.factory.class': { says: noClasses, effect: 'refused' },
  'sasl.client.callback.handler.class': { says: noClasses, effect: 'refused' },
  'sasl.login.callback.handler.class': {
    says: `${noClasses} Let something write tokens to a file, and name it in sasl.jaas.config.`,
    effect: 'refused',
  },
  'sasl.login.class': { says: noClasses, effect: 'refused' },
  'sasl.oauthbearer.token.endpoint.url': {
    says: 'Let something write tokens to a file, and name it in sasl.jaas.config: `token="file:<path>"`.',
    effect: 'refused',
  },
  'sasl.kerberos.service.name': {
    says: 'Kerberos is not built in; use SCRAM, or certificates of clients.',
    effect: 'refused',
  },
  'interceptor.classes': { says: `${noClasses} Use Flume's interceptors.`, effect: 'refused' },
  'metric.reporters': { says: `${noClasses} The metrics of the agent have what there is.`, effect: 'refused' },
  'request.timeout.ms': {
    says: 'How long a broker may take to confirm records, in ms.',
    takes: 'number',
    min: 1,
    default: 30_000,
  },
  'metadata.max.age.ms': {
    says: 'How old what is known of topics and their partitions may be, in ms.',
    takes: 'number',
    min: 1,
    default: 300_000,
  },
  'connections.max.idle.ms': { says: 'Connections stay open while they are in use.', effect: 'none' },
  'default.api.timeout.ms': { says: 'What fails is tried again.', effect: 'none' },
  'reconnect.backoff.ms': { says: 'The client decides.', effect: 'none' },
  'reconnect.backoff.max.ms': { says: 'The client decides.', effect: 'none' },
  'retry.backoff.ms': { says: 'Waits between attempts grow by themselves.', effect: 'none' },
  'retry.backoff.max.ms': { says: 'Waits between attempts grow by themselves.', effect: 'none' },
  'client.dns.lookup': { says: inSystem, effect: 'none' },
  'receive.buffer.bytes': { says: inSystem, effect: 'none' },
  'send.buffer.bytes': { says: inSystem, effect: 'none' },
  'metrics.num.samples': { says: 'Metrics are counted here.', effect: 'none' },
  'metrics.sample.window.ms': { says: 'Metrics are counted here.', effect: 'none' },
  'metrics.recording.level': { says: 'Metrics are counted here.', effect: 'none' },

  acks: {
    of: 'producer',
    says: 'A sink has it as an option of its own. A channel acks only what all replicas have: here it can be `all` only.',
    takes: ['all', '-1'],
  },
  'compression.type': { of: 'producer', says: 'How records are compressed.', takes: compressions, default: 'none' },
  'enable.idempotence': {
    of: 'producer',
    says: 'Whether the broker drops what it gets again from this producer. Default: with acks `all`.',
    takes: 'flag',
  },
  'max.request.size': {
    of: 'producer',
    says: 'The largest record, in bytes of key, value and headers. A larger one is rejected, and the brokers may allow less.',
    takes: 'number',
    min: 1,
    default: 1_048_576,
  },
  'linger.ms': { of: 'producer', says: atOnce, takes: 'number', min: 0, effect: 'none' },
  'batch.size': { of: 'producer', says: atOnce, takes: 'number', min: 0, effect: 'none' },
  'buffer.memory': { of: 'producer', says: 'What waits is in the channel.', takes: 'number', min: 0, effect: 'none' },
  'max.block.ms': { of: 'producer', says: again, takes: 'number', min: 0, effect: 'none' },
  'delivery.timeout.ms': { of: 'producer', says: again, takes: 'number', min: 0, effect: 'none' },
  retries: { of: 'producer', says: again, takes: 'number', min: 0, effect: 'none' },
  'max.in.flight.requests.per.connection': {
    of: 'producer',
    says: 'One write to each partition is under way, which keeps order; partitions are written to side by side.',
    takes: 'number',
    min: 1,
    effect: 'none',
  },
  'metadata.max.idle.ms': { of: 'producer', says: 'Only topics that are written to are looked at.', effect: 'none' },
  'key.serializer': {
    of: 'producer',
    says: 'Keys are UTF-8.',
    takes: [`${serialization}StringSerializer`],
    effect: 'none',
  },
  'value.serializer': {
    of: 'producer',
    says: 'Values are bytes: bodies, or events in Avro with useFlumeEventFormat.',
    takes: [`${serialization}ByteArraySerializer`],
    effect: 'none',
  },
  'partitioner.class': {
    of: 'producer',
    says: "Java's own is built in: by key, and without one several records to one partition before it is the turn of the next. Or set a header with the partition, and partitionIdHeader.",
    takes: ['org.apache.kafka.clients.producer.internals.DefaultPartitioner'],
    effect: 'none',
  },
  'transactional.id': {
    of: 'producer',
    says: 'With exactlyOnce, which flows in code can have, each partition that is read has an id of its own. Without, nothing is written in transactions.',
    effect: 'refused',
  },
  'transaction.timeout.ms': { of: 'producer', says: 'The client decides.', effect: 'none' },

  'session.timeout.ms': {
    of: 'consumer',
    says: 'A member that was not heard of for so long has left, in ms.',
    takes: 'number',
    min: 1,
    default: 30_000,
  },
  'heartbeat.interval.ms': {
    of: 'consumer',
    says: 'How often a member says that it is there, in ms.',
    takes: 'number',
    min: 1,
    default: 3000,
  },
  'max.poll.interval.ms': {
    of: 'consumer',
    says: 'How long a rebalance waits for members, in ms. A slow sink is no reason to lose a partition here.',
    takes: 'number',
    min: 1,
    default: 60_000,
  },
  'max.poll.records': {
    of: 'consumer',
    says: 'batchSize and the room that there is decide.',
    takes: 'number',
    min: 1,
    effect: 'none',
  },
  'fetch.min.bytes': {
    of: 'consumer',
    says: 'Bytes for which a broker waits before it answers.',
    takes: 'number',
    min: 1,
    default: 1,
  },
  'fetch.max.bytes': {
    of: 'consumer',
    says: 'Bytes that are fetched at once.',
    takes: 'number',
    min: 1,
    default: 10_485_760,
  },
  'fetch.max.wait.ms': {
    of: 'consumer',
    says: 'How long a broker waits for that, in ms.',
    takes: 'number',
    min: 0,
    default: 500,
  },
  'max.partition.fetch.bytes': {
    of: 'consumer',
    says: 'Bytes of one partition that are fetched at once.',
    takes: 'number',
    min: 1,
    default: 1_048_576,
  },
  'auto.offset.reset': {
    of: 'consumer',
    says: 'Where to begin without an offset, or with one that is not there any more; none: that is an error.',
    takes: ['earliest', 'latest', 'none'],
  },
  'isolation.level': {
    of: 'consumer',
    says: 'Whether what transactions have not committed is read.',
    takes: ['read_committed', 'read_uncommitted'],
    default: 'read_committed',
  },
  'enable.auto.commit': {
    of: 'consumer',
    says: 'Offsets are committed when the events are acked, and not before, as in Flume.',
    takes: 'flag',
    effect: 'none',
  },
  'auto.commit.interval.ms': {
    of: 'consumer',
    says: 'Offsets are committed when the events are acked.',
    takes: 'number',
    effect: 'none',
  },
  'partition.assignment.strategy': {
    of: 'consumer',
    says: 'By range or by turns, as all members of the group know it.',
    takes: assignors.map(name => assignor + name),
    effect: 'none',
  },
  'timeout.ms': {
    of: 'consumer',
    says: "It was for Kafka 0.8, and in examples of Flume's; records come as soon as there are any.",
    takes: 'number',
    effect: 'none',
  },
  'key.deserializer': {
    of: 'consumer',
    says: 'Keys are UTF-8.',
    takes: [`${serialization}StringDeserializer`],
    effect: 'none',
  },
  'value.deserializer': {
    of: 'consumer',
    says: 'Values are bytes: bodies, or events in Avro.',
    takes: [`${serialization}ByteArrayDeserializer`],
    effect: 'none',
  },
  'group.id': { of: 'consumer', says: 'Set kafka.consumer.group.id, or groupId in code.', effect: 'refused' },
  'group.instance.id': { of: 'consumer', says: 'A member that returns is a new one.', effect: 'none' },
  'group.protocol': {
    of: 'consumer',
    says: "Kafka's first protocol for groups is spoken.",
    takes: ['classic'],
    effect: 'none',
  },
  'client.rack': { of: 'consumer', says: 'Records are read from the leader.', effect: 'none' },
  'check.crcs': { of: 'consumer', says: 'The client decides.', takes: 'flag', effect: 'none' },
  'exclude.internal.topics': {
    of: 'consumer',
    says: 'A regular expression never matches internal topics.',
    takes: ['true'],
    effect: 'none',
  },
  'allow.auto.create.topics': { of: 'consumer', says: 'The brokers decide.', takes: 'flag', effect: 'none' },
};

const propertyOf = (name: string): Property | undefined => (Object.hasOwn(table, name) ? table[name] : undefined);
const isOf = (side: Side, name: string): boolean => [undefined, side].includes(propertyOf(name)?.of);
const namesOf = (side: Side): readonly string[] => Object.keys(table).filter(name => isOf(side, name));

const expected = ({ takes = 'text', min }: Property): string => {
  if (takes === 'number') return `a whole number${min === undefined ? '' : ` of at least ${min}`}`;
  if (takes === 'flag') return 'true or false';
  return typeof takes === 'string'
    ? 'text'
    : `${takes.length > 1 ? 'one of ' : ''}${takes.map(one => one || '""').join(', ')}`;
};

const fits = ({ takes = 'text', min = 0 }: Property, value: string): boolean => {
  if (takes === 'number') return /^\s*\d{1,15}\s*$/.test(value) && Number(value) >= min;
  if (takes === 'flag') return /^\s*(true|false)\s*$/i.test(value);
  return typeof takes === 'string' || takes.some(one => one.toLowerCase() === value.trim().toLowerCase());
};

/** What is wrong with a property; undefined if nothing is. No secret is in it. */
const problemWith = (side: Side, name: string, value: string): string | undefined => {
  const property = propertyOf(name);
  if (property === undefined || !isOf(side, name)) {
    if (property !== undefined) return `it is a property of a ${property.of ?? ''}, not of a ${side}`;
    const close = nearest(name, namesOf(side));
    return `a ${side} has no such property${close === undefined ? '' : `; did you mean ${close}?`}`;
  }
  if (property.effect === 'refused') return `it cannot be set here. ${property.says}`;
  if (!fits(property, value)) {
    const found = property.takes === 'secret' ? '' : `, found ${shown(value)}`;
    return `expected ${expected(property)}${found}. ${property.says}`;
  }
  return name === 'sasl.jaas.config' && !/^(file|env):/.test(value) ? attempt(() => parseJaas(value)) : undefined;
};

const attempt = (act: () => unknown): string | undefined => {
  try {
    act();
    return undefined;
  } catch (thrown) {
    return toError(thrown).message;
  }
};

/** For reference pages and warnings. */
const entriesOf = (side: Side): readonly MapEntry[] =>
  namesOf(side).map(key => {
    const property = table[key] as Property;
    const { says, effect, default: usual } = property;
    return {
      key,
      takes: expected(property),
      summary: says,
      ...(usual !== undefined && { default: usual }),
      ...(effect && { effect }),
    };
  });

/** Where the cluster is, and how to get in. */
export const connectionFields = {
  bootstrapServers: list('Some of the brokers, as `host:port`. The others are found through them.', {
    flume: 'kafka.bootstrap.servers',
    formerly: 'brokerList',
    example: 'localhost:9092',
  }),
  tls: code<Tls>()(
    'TLS, instead of the `ssl.*` properties: `ca`, `cert` and `key` in PEM, or `pfx`; `{}` for TLS with the CAs that Node.js knows.',
    {
      optional: true,
    },
  ),
  login: code<Login>()(
    'How to log in, instead of the `sasl.*` properties: a mechanism, and functions that give the secrets.',
    {
      optional: true,
    },
  ),
  connect: code<KafkaConnector>()('What makes the client, instead of kafkajs.', { optional: true }),
};

/** Properties of Java's producer. */
export const producerFields = {
  compression: choice(compressions)('How records are compressed.', {
    flume: 'kafka.producer.compression.type',
    default: 'none',
  }),
  producer: map("More properties of Java's producer, by their names there.", {
    flume: 'kafka.producer.*',
    default: {},
    entries: entriesOf('producer').filter(({ key }) => !['compression.type', 'acks'].includes(key)),
  }),
};

/** Properties of Java's consumer. */
export const consumerFields = {
  consumer: map("Properties of Java's consumer, by their names there.", {
    flume: 'kafka.consumer.*',
    default: {},
    entries: entriesOf('consumer'),
  }),
};

interface Given {
  readonly producer?: Properties | undefined;
  readonly consumer?: Properties | undefined;
}
type ConnectionOptions = Given & z.output<z.ZodObject<typeof connectionFields>>;

/** Checks what the fields above cannot check alone: `z.object({ … }).superRefine(checkKafka)`. */
export const checkKafka = (
  given: Given & { readonly bootstrapServers: readonly string[] },
  context: z.RefinementCtx,
): void => {
  const problem = (path: readonly string[], message: string): void =>
    context.addIssue({ code: 'custom', path: [...path], message: message.replace(/\.$/, '') });
  const brokers = given.bootstrapServers;
  const odd = brokers.find(broker => !/^(\[[\da-f:.]+\]|[^\s:/[\]]+):\d{1,5}$/i.test(broker));
  if (brokers.length === 0 || odd !== undefined)
    problem(['bootstrapServers'], `expected host:port of some brokers, found ${shown(odd ?? '')}`);
  for (const side of ['producer', 'consumer'] as const) {
    const properties = given[side] ?? {};
    for (const [name, value] of Object.entries(properties)) {
      const message = problemWith(side, name, value);
      if (message !== undefined) problem([side, name], message);
    }
    const { 'security.protocol': protocol = '', 'sasl.jaas.config': jaas } = properties;
    if (/^\s*sasl_/i.test(protocol) && jaas === undefined)
      problem(
        [side, 'security.protocol'],
        `${protocol} needs sasl.jaas.config as well. A JAAS file of Java is not read; copy its KafkaClient section there`,
      );
    if (properties['ssl.keystore.key'] !== undefined && properties['ssl.keystore.certificate.chain'] === undefined)
      problem([side, 'ssl.keystore.key'], 'it needs ssl.keystore.certificate.chain as well');
  }
  const [beat, session] = ['heartbeat.interval.ms', 'session.timeout.ms'] as const;
  const [every, within] = [beat, session].map(name => numberOf(given.consumer ?? {}, name)) as [number, number];
  if (every >= within) {
    const name = given.consumer?.[beat] === undefined ? session : beat;
    const advice = `A third of ${session} is usual for ${beat}`;
    problem(['consumer', name], `${beat} is ${every}, and ${session}, which has to be longer, is ${within}. ${advice}`);
  }
};

const wrong = (message: string, cause?: unknown) => new MillraceError('MR_CONFIG', message, { cause });

/** As given, or as the table says. */
const numberOf = (properties: Properties, name: string): number => Number(properties[name] ?? table[name]?.default);
const wordOf = (properties: Properties, name: string): string | undefined => properties[name]?.trim().toLowerCase();

/** What a writer has to know of its producer. */
export interface ProducerSettings extends ProducerOptions {
  /** In bytes: the largest record. */
  readonly maxRequestSize: number;
  /** In ms: how old the number of partitions may be. */
  readonly metadataMaxAge: number;
}

/** @throws MR_CONFIG if a producer is to be idempotent and not to wait for all replicas. */
export const producerOf = (
  acks: 'all' | '1' | '0',
  compression: ProducerOptions['compression'],
  properties: Properties,
): ProducerSettings => {
  const given = wordOf(properties, 'enable.idempotence');
  if (given === 'true' && acks !== 'all')
    throw wrong(
      `enable.idempotence needs acks = all, and acks is ${acks}. Set acks = all, or leave enable.idempotence out.`,
    );
  return {
    acks: acks === 'all' ? acks : acks === '1' ? 1 : 0,
    idempotent: acks === 'all' && given !== 'false',
    compression,
    requestTimeout: numberOf(properties, 'request.timeout.ms'),
    maxRequestSize: numberOf(properties, 'max.request.size'),
    metadataMaxAge: numberOf(properties, 'metadata.max.age.ms'),
  };
};

/** Where to begin without an offset that is there. */
export type OffsetReset = 'earliest' | 'latest' | 'none';

/** What a reader has to know of its consumer, besides group and topics. */
export interface ConsumerSettings extends Omit<ConsumerOptions, 'groupId' | 'topics'> {
  /** Undefined: as the component sees fit. */
  readonly offsetReset: OffsetReset | undefined;
}

export const consumerOf = (properties: Properties): ConsumerSettings => {
  const number = (name: string): number => numberOf(properties, name);
  return {
    sessionTimeout: number('session.timeout.ms'),
    heartbeatInterval: number('heartbeat.interval.ms'),
    rebalanceTimeout: number('max.poll.interval.ms'),
    minBytes: number('fetch.min.bytes'),
    maxBytes: number('fetch.max.bytes'),
    maxBytesPerPartition: number('max.partition.fetch.bytes'),
    maxWait: number('fetch.max.wait.ms'),
    metadataMaxAge: number('metadata.max.age.ms'),
    readCommitted: wordOf(properties, 'isolation.level') !== 'read_uncommitted',
    offsetReset: wordOf(properties, 'auto.offset.reset') as OffsetReset | undefined,
  };
};

/**
 * Where the cluster is and how to get in, from options that `checkKafka` has seen. Files are read now, secrets for each login.
 *
 * @throws MR_CONFIG if a file or a secret is not there, or is of a type that only Java reads.
 */
export const connectionOf = async (options: ConnectionOptions, log: Log): Promise<ConnectionSettings> => {
  const properties = together(options.producer ?? {}, options.consumer ?? {});
  const protocol = wordOf(properties, 'security.protocol') ?? '';
  if ((options.tls !== undefined || options.login !== undefined) && protocol !== '')
    throw wrong('security.protocol cannot be given together with tls or login; they say the same.');
  return {
    brokers: options.bootstrapServers,
    clientId: properties['client.id'] ?? 'millrace',
    tls: options.tls ?? (protocol.endsWith('ssl') ? await tlsOf(properties) : undefined),
    login: options.login ?? (protocol.startsWith('sasl') ? loginOf(properties) : undefined),
    connectionTimeout: numberOf(properties, 'socket.connection.setup.timeout.ms'),
    log,
  };
};

/** A channel has one connection, and Flume two sets of properties for it. */
const together = (producer: Properties, consumer: Properties): Properties => {
  const differs = Object.keys(producer).find(
    name => /^(security|ssl|sasl)\./.test(name) && (consumer[name] ?? producer[name]) !== producer[name],
  );
  if (differs !== undefined)
    throw wrong(
      `kafka.producer.${differs} and kafka.consumer.${differs} differ, and there is one connection for both. Give them the same value.`,
    );
  return { ...consumer, ...producer };
};

const tlsOf = async (properties: Properties): Promise<Tls> => {
  const { 'ssl.truststore.location': trusted, 'ssl.keystore.location': own } = properties;
  const secret = (name: string): string | undefined => secretOf(name, properties[name]);
  const store = own === undefined ? undefined : await stored('ssl.keystore.location', own);
  const pem = store !== undefined && isPem(store);
  const anyName =
    wordOf(properties, 'ssl.endpoint.identification.algorithm') === '' ||
    wordOf(properties, 'ssl.disableTLSHostnameVerification') === 'true';
  return {
    ca: trusted === undefined ? properties['ssl.truststore.certificates'] : await trustStore(trusted),
    ...(pem || store === undefined
      ? { cert: store ?? properties['ssl.keystore.certificate.chain'], key: store ?? secret('ssl.keystore.key') }
      : { pfx: store }),
    passphrase: pem ? secret('ssl.key.password') : (secret('ssl.keystore.password') ?? secret('ssl.key.password')),
    verifyHostname: !anyName,
  };
};

const isPem = (bytes: Buffer): boolean => bytes.includes('-----BEGIN ');
const jks = ['feedfeed', 'cececece'];

/** The bytes of a key store that can be used here: PEM or PKCS12. */
const stored = async (name: string, path: string): Promise<Buffer> => {
  let bytes: Buffer;
  try {
    bytes = await readFile(withHome(path));
  } catch (thrown) {
    throw wrong(`${name}: ${path} cannot be read: ${toError(thrown).message}.`, thrown);
  }
  if (isPem(bytes) || (bytes[0] === 0x30 && bytes.length > 4)) return bytes;
  const convert = `keytool -importkeystore -srckeystore ${path} -destkeystore ${path.replace(/\.[^./]*$/, '')}.p12 -deststoretype PKCS12`;
  if (jks.includes(bytes.toString('hex', 0, 4)))
    throw wrong(`${name}: ${path} is of type JKS, which only Java reads. Convert it with \`${convert}\`.`);
  throw wrong(`${name}: ${path} is neither PEM nor PKCS12.`);
};

const trustStore = async (path: string): Promise<Buffer> => {
  const name = 'ssl.truststore.location';
  const bytes = await stored(name, path).catch((thrown: unknown) => {
    throw wrong(toError(thrown).message.replace(/ Convert it.*/s, advice(path)), thrown);
  });
  if (isPem(bytes)) return bytes;
  throw wrong(`${name}: ${path} is of type PKCS12, and certificates of CAs are read as PEM only.${advice(path)}`);
};

const advice = (path: string): string =>
  ` Write its certificates with \`keytool -list -rfc -keystore ${path} > ca.pem\`, and name that file.`;

/** A secret as it is now. */
const secretOf = (name: string, given: string | undefined): string | undefined => {
  if (given === undefined) return undefined;
  try {
    return secretText(given);
  } catch (thrown) {
    throw wrong(`${name}: ${toError(thrown).message}.`);
  }
};

const loginOf = (properties: Properties): Login => {
  const name = 'sasl.jaas.config';
  const jaas = () => parseJaas(secretOf(name, properties[name]) ?? '');
  const { module, options } = jaas();
  const mechanism = wordOf(properties, 'sasl.mechanism') ?? '';
  const needed = mechanism === 'oauthbearer' ? 'OAuthBearer' : mechanism === 'plain' ? 'Plain' : 'Scram';
  if (module !== `${needed}LoginModule`)
    throw wrong(
      `sasl.mechanism ${mechanism.toUpperCase() || 'GSSAPI, which is the default,'} does not go with the login module ${module} in ${name}.`,
    );
  const secret = (key: string): string => {
    const value = secretOf(`${key} in ${name}`, jaas().options[key]);
    if (value === undefined) throw wrong(`${name}: the ${module} needs ${key}="…".`);
    return value;
  };
  if (mechanism === 'oauthbearer') {
    const { unsecuredLoginStringClaim_sub: subject } = options;
    return { mechanism, token: () => Promise.resolve(subject === undefined ? secret('token') : unsecured(subject)) };
  }
  return {
    mechanism: mechanism as 'plain' | 'scram-sha-256' | 'scram-sha-512',
    username: secret('username'),
    password: () => secret('password'),
  };
};

/** The token that Java's clients make for themselves while nobody else makes one: not signed, for trying out. */
const unsecured = (subject: string): string => {
  const now = Math.floor(Date.now() / 1000);
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none' })}.${part({ sub: subject, iat: now, exp: now + 3600 })}.`;
};
