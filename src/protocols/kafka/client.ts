/**
 * The port to Kafka: what the source, the channel and the sink need of a client, and nothing that one client only has.
 * `kafkajs.ts` and `platformatic.ts` are clients of real brokers; `millrace/testing` has a broker in memory.
 *
 * Offsets are numbers: 2^53 records of one partition are more than a broker will ever hold.
 *
 * @module
 */
import type { Log } from '../../core/scope.ts';

export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/** The next record that is to be read. */
export interface Position extends TopicPartition {
  readonly offset: number;
}

/** Values of record headers. A name may be there more than once. */
export type RecordHeaders = Readonly<Record<string, Buffer | string | readonly (Buffer | string)[]>>;

/** A record that is to be written. */
export interface NewRecord {
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers?: RecordHeaders | undefined;
  /** Milliseconds since 1970; default: now. */
  readonly timestamp?: number | undefined;
}

/** A record that was read. `key` and `value` may be views of a larger buffer that lives as long as they do. */
export interface ReadRecord {
  readonly offset: number;
  readonly timestamp: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: RecordHeaders | undefined;
}

/** A partition that a member of a group has been given, with what the broker knows of it. */
export interface Assigned extends TopicPartition {
  /** Where the group goes on; undefined if it never committed there. */
  readonly committed: number | undefined;
  /** The oldest record that is still there, and the next that will be written. */
  readonly first: number;
  readonly end: number;
}

/** What a consumer tells. Nothing is told twice, and nothing after `close` has resolved. */
export interface ConsumerListener {
  /** These partitions are ours, besides those that were before. Answers where to begin with each, in the same order. */
  assigned(partitions: readonly Assigned[]): readonly number[];
  /**
   * These are not ours any more. What is committed before the result resolves still counts, unless they are `lost`:
   * then somebody else may have them already.
   */
  revoked(partitions: readonly TopicPartition[], lost: boolean): void | Promise<void>;
  /** Records of one partition, in order, at least one, beginning where it was told to. A paused partition may have sent some before. */
  records(of: TopicPartition, records: readonly ReadRecord[]): void;
  /** What was to be read is not there: deleted, or not written yet. Answers where to go on. */
  outOfRange(partition: Assigned, wanted: number): number;
  /** Something is wrong: a broker is away, a login refused, a topic missing. It is tried again until `close`; told once per change. */
  trouble(cause: Error): void;
  /** What was wrong is over. */
  recovered(): void;
}

/** A member of a consumer group. It is closed once, and then of no more use. */
export interface KafkaConsumer {
  /** Asks for no more of these until `resume`. Unknown ones are ignored. */
  pause(partitions: readonly TopicPartition[]): void;
  resume(partitions: readonly TopicPartition[]): void;
  /** What comes next of this partition. Records on their way from elsewhere are not told any more. */
  seek(to: Position): void;
  /**
   * Says how far the group has come. Rejects when the partition is not ours any more or the coordinator is away.
   * `metadata` is kept with it.
   */
  commit(positions: readonly Position[], metadata?: string): Promise<void>;
  /** Leaves the group. `revoked` is told of everything first. */
  close(): Promise<void>;
}

export interface ConsumerOptions {
  readonly groupId: string;
  /** Names, or one expression that names have to match; topics that come later are found within `metadataMaxAge`. */
  readonly topics: readonly string[] | RegExp;
  /** In ms. A member that was not heard of for so long has left. Default 30 000. */
  readonly sessionTimeout?: number | undefined;
  /** In ms. Default 3000. */
  readonly heartbeatInterval?: number | undefined;
  /** In ms. How long a rebalance waits for members. Default 60 000. */
  readonly rebalanceTimeout?: number | undefined;
  /** How many bytes of one partition are fetched at once, and in total. Default 1 MiB and 10 MiB. */
  readonly maxBytesPerPartition?: number | undefined;
  readonly maxBytes?: number | undefined;
  readonly minBytes?: number | undefined;
  /** In ms. How long a broker may wait for `minBytes`. Default 500. */
  readonly maxWait?: number | undefined;
  /** In ms. How old what is known of topics and their partitions may be. Default 300 000. */
  readonly metadataMaxAge?: number | undefined;
  /** Only what transactions have committed. Default true. */
  readonly readCommitted?: boolean | undefined;
}

export interface KafkaProducer {
  /**
   * Writes records to one partition as one batch, in order, behind those of the call before. One call per partition at a time.
   * Resolves with the offset of the first when the broker has confirmed them (-1 if it does not say). A rejection
   * means that nobody knows whether they are in, unless it is permanent: then none of them is.
   */
  send(to: TopicPartition, records: readonly NewRecord[]): Promise<number>;
  close(): Promise<void>;
}

export interface ProducerOptions {
  /** `all`: as many replicas as the topic asks for; 1: the leader; 0: nobody confirms anything. Default `all`. */
  readonly acks?: 'all' | 1 | 0 | undefined;
  /** The broker drops what it gets again from the same producer. Default true; needs acks `all`. */
  readonly idempotent?: boolean | undefined;
  readonly compression?: Compression | undefined;
  /** In ms. How long a broker may take. Default 30 000. */
  readonly requestTimeout?: number | undefined;
}

/** In the order of the numbers that Kafka has for them. */
export const compressions = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const;
export type Compression = (typeof compressions)[number];

/** Records for one partition, in order. */
export interface Write {
  readonly to: TopicPartition;
  readonly records: readonly NewRecord[];
}

/** Writes and the offset of a group in one partition: all of it is there, or nothing. Ids exclude each other, whoever has them. */
export interface KafkaTransactions {
  /**
   * Whoever used this id before can commit nothing from now on, and what they had not committed is aborted. Resolves when
   * that is over.
   */
  begin(id: string, groupId: string, of: TopicPartition): Promise<TransactionalProducer>;
  close(): Promise<void>;
}

/** From one `begin` of an id until the next, or until a commit fails. */
export interface TransactionalProducer {
  /** Where the group was when it began; undefined if it never committed there. */
  readonly position: number | undefined;
  /**
   * One transaction: these records, and that the group goes on at `next`. One at a time. A rejection means that nobody knows
   * whether it is committed; `begin` ends it and tells.
   */
  commit(writes: readonly Write[], next: number, compression?: Compression): Promise<void>;
}

export const rights = ['describe', 'read', 'write'] as const;
/** Of whoever has logged in. Brokers give no other answer than a refusal where there is no right to describe. */
export type Right = (typeof rights)[number];

/** What there is of a topic, and what may be done with it. */
export interface TopicAccess {
  readonly topic: string;
  /** 0: it is not there; or, without the right to describe it, nobody tells. */
  readonly partitions: number;
  readonly rights: ReadonlySet<Right>;
}

/** A connection to a cluster. Nothing is connected before it is needed. */
export interface KafkaClient {
  /** What may be done with these topics, or with all that match and may be seen. Never makes one; asks a broker also if there are none. */
  describeTopics(topics: ConsumerOptions['topics']): Promise<readonly TopicAccess[]>;
  /** The same of a consumer group, whether there is one or not. Whoever may read may be a member; nobody writes. */
  describeGroup(groupId: string): Promise<ReadonlySet<Right>>;
  /** How many partitions a topic has. Rejects with MR_KAFKA_UNKNOWN_TOPIC if there is none, and brokers do not make one. */
  partitions(topic: string): Promise<number>;
  /** Where a partition begins and ends now. */
  offsets(topic: string): Promise<readonly Omit<Assigned, 'committed'>[]>;
  producer(options?: ProducerOptions): KafkaProducer;
  consumer(options: ConsumerOptions, listener: ConsumerListener): KafkaConsumer;
  transactions(): KafkaTransactions;
  /** After its producers and consumers are closed. */
  close(): Promise<void>;
}

/** How to log in. Secrets are read when they are needed, so that new ones are found. */
export type Login =
  | {
      readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512';
      readonly username: string;
      readonly password: () => string | Promise<string>;
    }
  | { readonly mechanism: 'oauthbearer'; readonly token: () => Promise<string> };

export interface Tls {
  readonly ca?: string | Buffer | undefined;
  readonly cert?: string | Buffer | undefined;
  readonly key?: string | Buffer | undefined;
  /** PKCS#12, instead of `cert` and `key`. */
  readonly pfx?: Buffer | undefined;
  readonly passphrase?: string | undefined;
  /** False: the name in the certificate may be any. Default true. */
  readonly verifyHostname?: boolean | undefined;
}

/** Where the cluster is and how to get in. */
export interface ConnectionSettings {
  /** `host:port` of some brokers. */
  readonly brokers: readonly string[];
  /** Brokers write it into their logs. Default `millrace`. */
  readonly clientId?: string | undefined;
  readonly tls?: Tls | undefined;
  readonly login?: Login | undefined;
  /** In ms. Default 10 000. */
  readonly connectionTimeout?: number | undefined;
  readonly log: Log;
}

/** Makes a client. Loads its package, so it may reject with MR_PEER_MISSING. */
export type KafkaConnector = (settings: ConnectionSettings) => Promise<KafkaClient>;
