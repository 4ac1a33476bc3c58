/**
 * The brokers of a cluster, which of them leads a partition, and one way of asking them. Each producer and each consumer has a
 * cluster of its own: a broker works off the requests of one connection in turn, and joining a group may take a minute.
 *
 * @module
 */
import { setMaxListeners } from 'node:events';
import { MillraceError } from '../../../core/errors.ts';
import type { ConnectionSettings } from '../client.ts';
import { byTopic, nameOf } from '../partitions.ts';
import { wait } from '../waiting.ts';
import { kafkaError, refusedBy } from './errors.ts';
import { openSocket, sasl, tlsOptions } from './login.ts';
import type { Broker, Encoder, Package } from './package.ts';
import { curedOfIdleTimers } from './patches.ts';

/** Rejects when it takes longer, in ms. */
export const inTime = async <T>(promise: Promise<T>, ms: number): Promise<T> => {
  const done = new AbortController();
  const patience = Math.max(0, ms);
  const late = wait(patience, done.signal).then(() => {
    // As kafkajs says it.
    throw Object.assign(new Error(`There was no answer within ${patience} ms`), { name: 'KafkaJSRequestTimeoutError' });
  });
  late.catch(() => undefined);
  try {
    return await Promise.race([promise, late]);
  } finally {
    done.abort();
  }
};

export interface Topic {
  /** What the broker said of it; 0 if it is there. */
  readonly code: number;
  readonly partitions: number;
}

interface MetadataAnswer {
  readonly brokers: readonly { readonly nodeId: number; readonly host: string; readonly port: number }[];
  readonly topicMetadata: readonly {
    readonly topicErrorCode: number;
    readonly topic: string;
    readonly isInternal?: boolean;
    readonly partitionMetadata: readonly { readonly partitionId: number; readonly leader: number }[];
  }[];
}

export interface ListedOffsets {
  readonly responses: readonly {
    readonly topic: string;
    readonly partitions: readonly {
      readonly partition: number;
      readonly errorCode: number;
      readonly offset: string;
    }[];
  }[];
}

/**
 * In ms: how long before its end a login is renewed. Brokers refuse that within a second after a login, and the 10 s of kafkajs would
 * renew a short login before every request.
 */
const reauthenticationThreshold = 1000;

export const earliest = -2;
export const latest = -1;

/** A broker that we are connected to. */
export class Node {
  readonly address: string;
  readonly #kafkajs: Package;
  readonly #broker: Broker;
  readonly #whenLost: () => void;
  #dropped = false;

  constructor(kafkajs: Package, address: string, broker: Broker, whenLost: () => void) {
    this.#kafkajs = kafkajs;
    this.address = address;
    this.#broker = broker;
    this.#whenLost = whenLost;
  }

  /** False when it has to be connected anew. */
  get usable(): boolean {
    return !this.#dropped && this.#broker.connectionPool.pool[0].isConnected();
  }

  /** kafkajs itself would wait a whole `requestTimeout` for somebody who says nothing. */
  async connect(timeout: number): Promise<this> {
    try {
      await inTime(this.#broker.connect(), timeout);
    } catch (thrown) {
      this.drop();
      throw kafkaError(thrown, this.address, 'connecting');
    }
    return this;
  }

  /**
   * One request. The answer is as it was decoded: it is not looked at for refusals. A connection that does not answer is dropped,
   * as nobody knows what else is stuck on it.
   */
  async ask<Answer>(
    api: string,
    args: object,
    {
      decode,
      ...instead
    }: { decode?: (raw: Buffer) => Promise<Answer>; encode?: () => Promise<Encoder>; apiVersion?: number } = {},
  ): Promise<Answer> {
    try {
      const key = this.#kafkajs.apiKeys[api] ?? -1;
      const { request, response, ...rest } = this.#broker.lookupRequest(key, this.#kafkajs.requests[api])(args);
      const answer = await this.#broker.connectionPool.send({
        ...rest,
        request: { ...request, ...instead },
        response: {
          decode: decode ?? (raw => response.decode(raw)),
          parse: decoded => Promise.resolve(decoded),
        },
        logResponseError: false,
      });
      return answer as Answer;
    } catch (thrown) {
      const error = kafkaError(thrown, this.address, `asked for ${api}`);
      if (error.code === 'MR_KAFKA_UNREACHABLE' || error.code === 'MR_KAFKA_LOGIN') {
        this.drop();
        this.#whenLost();
      }
      throw error;
    }
  }

  /** Whatever is on its way fails. */
  drop(): void {
    if (this.#dropped) return;
    this.#dropped = true;
    const error = new MillraceError(
      'MR_KAFKA_UNREACHABLE',
      `Kafka broker ${this.address}: the connection was dropped.`,
    );
    for (const connection of this.#broker.connectionPool.pool) {
      connection.rejectRequests(error);
      void connection.disconnect().finally(() => connection.socket?.destroy());
    }
  }
}

export interface ClusterOptions {
  /** In ms. */
  readonly requestTimeout: number;
}

export class Cluster {
  readonly kafkajs: Package;
  readonly #settings: ConnectionSettings;
  readonly #shared: object;
  readonly #connectTimeout: number;
  readonly #closed = new AbortController();
  /** By address. */
  readonly #nodes = new Map<string, Promise<Node>>();
  readonly #live = new Set<Node>();
  #addresses = new Map<number, string>();
  readonly #topics = new Map<string, { readonly code: number; readonly leaders: ReadonlyMap<number, number> }>();
  readonly #refreshing = new Map<string, Promise<readonly string[]>>();
  /** Did not answer when they were asked last; others are tried first. */
  readonly #suspects = new Set<string>();

  constructor(kafkajs: Package, settings: ConnectionSettings, { requestTimeout }: ClusterOptions) {
    this.kafkajs = kafkajs;
    this.#settings = settings;
    const { log, connectionTimeout = 10_000, clientId = 'millrace' } = settings;
    setMaxListeners(0, this.#closed.signal);
    // To connect, and to log in.
    this.#connectTimeout = 2 * connectionTimeout;
    const warning = 2;
    this.#shared = {
      sasl: settings.login === undefined ? null : sasl(settings.login, kafkajs),
      ssl: settings.tls === undefined ? null : tlsOptions(settings.tls),
      clientId,
      connectionTimeout,
      requestTimeout,
      enforceRequestTimeout: true,
      reauthenticationThreshold,
      socketFactory: openSocket,
      // Its errors reach us as rejections as well, and what is below a warning may hold what was sent.
      logger: kafkajs.createLogger({
        level: warning,
        logCreator: () => entry => {
          if (entry.level === warning) log.warn(`kafkajs ${entry.namespace}: ${entry.log.message}`);
        },
      }),
    };
  }

  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  close(): void {
    this.#closed.abort();
    for (const node of this.#live) node.drop();
    this.#live.clear();
    this.#nodes.clear();
  }

  /** A promise that is given up when this is closed. */
  orClosed<T>(promise: Promise<T>): Promise<T> {
    const { signal } = this.#closed;
    return new Promise((resolve, reject) => {
      const close = () => reject(closed());
      if (signal.aborted) close();
      signal.addEventListener('abort', close, { once: true });
      promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', close));
    });
  }

  #connected(address: string): Promise<Node> {
    if (this.#closed.signal.aborted) return Promise.reject(closed());
    const before = this.#nodes.get(address);
    if (before !== undefined) return before.then(node => (node.usable ? node : this.#connect(address, before)));
    return this.#connect(address, undefined);
  }

  #connect(address: string, instead: Promise<Node> | undefined): Promise<Node> {
    const others = this.#nodes.get(address);
    if (others !== undefined && others !== instead) return others;
    const { host, port } = hostAndPort(address);
    const connectionPool = curedOfIdleTimers(new this.kafkajs.ConnectionPool({ ...this.#shared, host, port }));
    const broker = new this.kafkajs.Broker({ ...this.#shared, connectionPool });
    const node = new Node(this.kafkajs, address, broker, () => this.#suspects.add(address));
    for (const old of this.#live) if (!old.usable && old.address === address) this.#live.delete(old);
    this.#live.add(node);
    const connecting = this.orClosed(node.connect(this.#connectTimeout));
    this.#nodes.set(address, connecting);
    connecting.then(
      () => this.#suspects.delete(address),
      () => {
        this.#suspects.add(address);
        this.#live.delete(node);
        node.drop();
        if (this.#nodes.get(address) === connecting) this.#nodes.delete(address);
      },
    );
    return connecting;
  }

  /** Rejects if the cluster has no such broker, or it cannot be reached. */
  node(id: number): Promise<Node> {
    const address = this.#addresses.get(id);
    if (address === undefined)
      return Promise.reject(new MillraceError('MR_KAFKA_UNREACHABLE', `Kafka: nobody knows a broker with id ${id}.`));
    return this.#connected(address);
  }

  /** Whoever answers. */
  async any(): Promise<Node> {
    const rank = (address: string) => (this.#suspects.has(address) ? 1 : 0);
    const addresses = [...new Set([...this.#addresses.values(), ...this.#settings.brokers])];
    addresses.sort((one, other) => rank(one) - rank(other));
    const failures: MillraceError[] = [];
    for (const address of addresses) {
      try {
        return await this.#connected(address);
      } catch (thrown) {
        if (this.#closed.signal.aborted) throw thrown;
        failures.push(kafkaError(thrown, address, 'connecting'));
      }
    }
    const told = failures.find(({ code }) => code !== 'MR_KAFKA_UNREACHABLE');
    if (told !== undefined) throw told;
    throw new MillraceError(
      'MR_KAFKA_UNREACHABLE',
      `Kafka: none of ${addresses.join(', ')} answers. ${failures.map(({ message }) => message).join(' ')}`,
      { cause: failures[0] },
    );
  }

  /**
   * Asks anew what there is of these topics, or of all; brokers that may make topics make them. Resolves with the names of all
   * that there are and that are not Kafka's own.
   */
  refresh(topics: readonly string[] | undefined): Promise<readonly string[]> {
    const key = topics?.join() ?? '';
    const running = this.#refreshing.get(key);
    if (running !== undefined) return running;
    const refreshing = this.#refresh(topics).finally(() => this.#refreshing.delete(key));
    this.#refreshing.set(key, refreshing);
    return refreshing;
  }

  async #refresh(topics: readonly string[] | undefined): Promise<readonly string[]> {
    // An empty list means all of them to kafkajs.
    if (topics?.length === 0) return [];
    const node = await this.any();
    const answer = await node.ask<MetadataAnswer>('Metadata', { topics: topics ?? [], allowAutoTopicCreation: true });
    this.#addresses = new Map(answer.brokers.map(({ nodeId, host, port }) => [nodeId, `${host}:${port}`]));
    const found = answer.topicMetadata.map(({ topic, topicErrorCode, partitionMetadata }) => {
      const leaders = new Map(partitionMetadata.map(({ partitionId, leader }) => [partitionId, leader]));
      // Without a leader yet, but there.
      this.#topics.set(topic, { code: leaders.size > 0 ? 0 : topicErrorCode, leaders });
      return topic;
    });
    if (topics === undefined) {
      const there = new Set(found);
      for (const topic of this.#topics.keys()) if (!there.has(topic)) this.#topics.delete(topic);
    }
    return answer.topicMetadata.filter(({ isInternal }) => isInternal !== true).map(({ topic }) => topic);
  }

  /** As it was when it was asked for last. */
  topic(name: string): Topic {
    const topic = this.#topics.get(name);
    return topic === undefined ? { code: 3, partitions: 0 } : { code: topic.code, partitions: topic.leaders.size };
  }

  leader(topic: string, partition: number): number | undefined {
    const leader = this.#topics.get(topic)?.leaders.get(partition);
    return leader === undefined || leader < 0 ? undefined : leader;
  }

  /** Who looks after a group, or after the transactions of an id. */
  async coordinator(id: string, of: 'group' | 'transactions' = 'group'): Promise<Node> {
    const node = await this.any();
    const answer = await node.ask<{
      errorCode: number;
      coordinator: { nodeId: number; host: string; port: number };
    }>('GroupCoordinator', { groupId: id, coordinatorType: of === 'group' ? 0 : 1 });
    if (answer.errorCode !== 0)
      throw refusedBy(this.kafkajs, answer.errorCode, `looking for the coordinator of ${of} ${id}`);
    const { nodeId, host, port } = answer.coordinator;
    this.#addresses.set(nodeId, `${host}:${port}`);
    return this.node(nodeId);
  }

  /** One offset of each partition: {@link earliest} or {@link latest}. A partition without an answer is left out. */
  async list(
    leader: number,
    partitions: readonly { readonly topic: string; readonly partition: number }[],
    timestamp: number,
    readCommitted: boolean,
  ): Promise<Map<string, number | MillraceError>> {
    const node = await this.node(leader);
    const topics = [...byTopic(partitions)].map(([topic, of]) => ({
      topic,
      partitions: of.map(({ partition }) => ({ partition, timestamp })),
    }));
    const { responses } = await node.ask<ListedOffsets>('ListOffsets', {
      isolationLevel: readCommitted ? 1 : 0,
      topics,
    });
    return new Map(
      responses.flatMap(({ topic, partitions: of }) =>
        of.map(({ partition, errorCode, offset }): [string, number | MillraceError] => [
          nameOf({ topic, partition }),
          errorCode === 0
            ? Number(offset)
            : refusedBy(this.kafkajs, errorCode, `offsets of topic ${topic}, partition ${partition}`),
        ]),
      ),
    );
  }
}

const closed = () => new MillraceError('MR_KAFKA', 'Kafka: the client was closed.');

const hostAndPort = (address: string): { host: string; port: number } => {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(address.slice(colon + 1)) };
};
