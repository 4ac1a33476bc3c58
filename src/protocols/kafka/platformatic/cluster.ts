/**
 * Brokers, asked by the connections and encodings of @platformatic/kafka. Versions of requests are those that 3.0 to 4.x know.
 *
 * @module
 */
import { isIP } from 'node:net';
import type * as Package from '@platformatic/kafka';
import { MillraceError, toError } from '../../../core/errors.ts';
import type { ConnectionSettings, ConsumerOptions, Right, TopicAccess, TopicPartition } from '../client.ts';
import { byTopic, nameOf } from '../partitions.ts';
import { code, elsewhere, Refused, tlsFailed } from '../refused.ts';
import { wait } from '../waiting.ts';
import { accessOf, noRights, rightsOf } from '../brokers/rights.ts';

export type Wire = typeof Package;

/** The wait in between in ms. */
const coordinatorAttempts = 20;
const coordinatorWait = 100;

/** What the package throws, which carries more than its type says. */
interface Thrown {
  readonly code?: string;
  readonly message: string;
  readonly cause?: unknown;
  readonly errors?: readonly unknown[];
  readonly response?: unknown;
}

/** The error and all that it wraps. */
const unwrapped = (thrown: unknown): Thrown[] => {
  if (typeof thrown !== 'object' || thrown === null) return [];
  const { cause, errors = [] } = thrown as Thrown;
  return [thrown as Thrown, ...unwrapped(cause), ...errors.flatMap(unwrapped)];
};

const errorOf = (thrown: unknown, where: string): MillraceError => {
  if (thrown instanceof MillraceError) return thrown;
  const all = unwrapped(thrown);
  const is = (kind: string | RegExp) => all.some(one => one.code !== undefined && one.code.match(kind) !== null);
  const meaning =
    is('PLT_KFK_AUTHENTICATION') || is(tlsFailed) || all.some(({ message }) => /TLS|wrong version number/.test(message))
      ? 'MR_KAFKA_LOGIN'
      : is('PLT_KFK_NETWORK') || is('PLT_KFK_TIMEOUT')
        ? 'MR_KAFKA_UNREACHABLE'
        : 'MR_KAFKA';
  const why = [...new Set(all.map(({ message }) => message.replace(/\.$/, '')))].join(': ');
  return new MillraceError(meaning, `Kafka, ${where}: ${why}.`, { cause: toError(thrown) });
};

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Connections, one to each broker: it works off what one connection asks in turn, so what may take long needs its own. */
export class Connections {
  readonly #wire: Wire;
  readonly #settings: ConnectionSettings;
  readonly #timeout: number;
  readonly #open = new Map<string, Promise<Package.Connection>>();
  #closed = false;

  constructor(wire: Wire, settings: ConnectionSettings, timeout: number) {
    this.#wire = wire;
    this.#settings = settings;
    this.#timeout = timeout;
  }

  /** The answer, also if it is a refusal; rejects if there is none. */
  async ask<Args extends unknown[], Answer>(
    address: Address,
    what: string,
    { async: request }: Package.API<Args, Answer>,
    ...args: Args
  ): Promise<Answer> {
    const where = `broker ${address.host}:${address.port}, ${what}`;
    const connection = this.#to(address);
    try {
      return await request(await connection, ...args);
    } catch (thrown) {
      const { response } = thrown as Thrown;
      if (response !== undefined) return response as Answer;
      const error = errorOf(thrown, where);
      // After a timeout the package cannot make sense of what this connection still answers.
      if (error.code !== 'MR_KAFKA') this.#drop(address, connection);
      throw error;
    }
  }

  close(): void {
    this.#closed = true;
    for (const connection of this.#open.values()) close(connection);
    this.#open.clear();
  }

  #to(address: Address): Promise<Package.Connection> {
    if (this.#closed) return Promise.reject(new MillraceError('MR_KAFKA', 'Kafka: the client was closed.'));
    const key = `${address.host}:${address.port}`;
    const known = this.#open.get(key);
    if (known !== undefined) return known;
    const connection: Promise<Package.Connection> = this.#connect(address, () => this.#drop(address, connection));
    this.#open.set(key, connection);
    return connection;
  }

  async #connect({ host, port }: Address, gone: () => void): Promise<Package.Connection> {
    const { clientId = 'millrace', connectionTimeout = 10_000, tls, login } = this.#settings;
    const { verifyHostname = true, ...given } = tls ?? {};
    const connection = new this.#wire.Connection(clientId, {
      connectTimeout: connectionTimeout,
      requestTimeout: this.#timeout,
      ...(tls !== undefined && {
        tls: {
          ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
          ...(!verifyHostname && { checkServerIdentity: () => undefined }),
        },
        ...(isIP(host) === 0 && { tlsServerName: host }),
      }),
      ...(login !== undefined && {
        sasl:
          login.mechanism === 'oauthbearer'
            ? { mechanism: 'OAUTHBEARER', token: login.token }
            : {
                mechanism: login.mechanism.toUpperCase() as 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512',
                username: login.username,
                password: login.password,
              },
      }),
    });
    // Whoever asks hears of it as well.
    connection.on('error', gone);
    connection.on('close', gone);
    await connection.connect(host, port);
    return connection;
  }

  #drop({ host, port }: Address, connection: Promise<Package.Connection>): void {
    const key = `${host}:${port}`;
    if (this.#open.get(key) === connection) this.#open.delete(key);
    close(connection);
  }
}

const close = (connection: Promise<Package.Connection>): void => {
  connection.then(
    open => void open.close().catch(() => undefined),
    () => undefined,
  );
};

/** What a broker said of a topic: 0 if it is there, and who leads its partitions, -1 if nobody. */
export interface Topic {
  readonly code: number;
  readonly leaders: readonly number[];
}

/** What is known of a cluster. */
export class Cluster {
  readonly wire: Wire;
  readonly settings: ConnectionSettings;
  readonly #connections: Connections;
  readonly #closed = new AbortController();
  readonly #topics = new Map<string, Topic>();
  #nodes = new Map<number, Address>();

  constructor(wire: Wire, settings: ConnectionSettings, timeout: number) {
    this.wire = wire;
    this.settings = settings;
    this.#connections = new Connections(wire, settings, timeout);
  }

  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  close(): void {
    this.#closed.abort();
    this.#connections.close();
  }

  refused(code: number, doing: string): Refused {
    const { protocolErrors, protocolErrorsCodesById } = this.wire;
    const type = (protocolErrorsCodesById as Readonly<Record<number, string>>)[code] ?? 'UNKNOWN';
    const { message = '' } = (protocolErrors as Readonly<Record<string, { message?: string }>>)[type] ?? {};
    return new Refused(code, { type, message }, doing);
  }

  ask<Args extends unknown[], Answer>(
    address: Address,
    what: string,
    api: Package.API<Args, Answer>,
    ...args: Args
  ): Promise<Answer> {
    return this.#connections.ask(address, what, api, ...args);
  }

  /** Asks one broker after the other. */
  async any<Args extends unknown[], Answer>(
    what: string,
    api: Package.API<Args, Answer>,
    ...args: Args
  ): Promise<Answer> {
    const given = this.settings.brokers.map(broker => {
      const colon = broker.lastIndexOf(':');
      return { host: broker.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(broker.slice(colon + 1)) };
    });
    const failures: MillraceError[] = [];
    for (const address of [...given, ...this.#nodes.values()]) {
      try {
        return await this.ask(address, what, api, ...args);
      } catch (thrown) {
        failures.push(errorOf(thrown, what));
        if (this.closed.aborted) break;
      }
    }
    const [first] = failures.filter(({ code }) => code !== 'MR_KAFKA_UNREACHABLE').concat(failures);
    throw first ?? new MillraceError('MR_KAFKA_UNREACHABLE', 'Kafka: no address of a broker was given.');
  }

  /** Asks anew what there is of these topics, or of all; brokers that make topics make them. The result are all names. */
  async refresh(topics: readonly string[] | null): Promise<readonly string[]> {
    const { metadataV12 } = this.wire;
    const { brokers, topics: found } = await this.any(
      'looking for topics',
      metadataV12.api,
      topics && [...topics],
      true,
      false,
    );
    this.#nodes = new Map(brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }]));
    if (topics === null) this.#topics.clear();
    for (const { name, errorCode, partitions } of found) {
      const leaders: number[] = [];
      for (const { partitionIndex, leaderId } of partitions) leaders[partitionIndex] = leaderId;
      this.#topics.set(name ?? '', { code: leaders.length > 0 ? 0 : errorCode, leaders });
    }
    return found.filter(({ isInternal }) => !isInternal).map(({ name }) => name ?? '');
  }

  /** As it was when it was asked for last. */
  topic(topic: string): Topic {
    return this.#topics.get(topic) ?? { code: 3, leaders: [] };
  }

  node(id: number): Address | undefined {
    return this.#nodes.get(id);
  }

  /** Who leads a partition; asks if that is not known, and throws if nobody does. */
  async leader({ topic, partition }: TopicPartition): Promise<{ readonly id: number; readonly address: Address }> {
    const known = () => this.node(this.topic(topic).leaders[partition] ?? -1);
    if (known() === undefined) await this.refresh([topic]);
    const address = known();
    const { code, leaders } = this.topic(topic);
    if (address !== undefined) return { id: leaders[partition] as number, address };
    if (code !== 0) throw this.refused(code, `topic ${topic}`);
    if (partition in leaders)
      throw new MillraceError('MR_KAFKA', `Kafka: topic ${topic}, partition ${partition} has no leader now.`);
    throw new MillraceError(
      'MR_KAFKA_UNKNOWN_TOPIC',
      `Kafka: topic ${topic} has ${leaders.length} partitions, so there is no partition ${partition}.`,
    );
  }

  /** Who looks after a group. A broker that has just started needs a moment to know. */
  async coordinator(groupId: string): Promise<Address> {
    const { findCoordinatorV4 } = this.wire;
    const what = `looking for the coordinator of group ${groupId}`;
    for (let attempt = 1; ; attempt++) {
      const { coordinators } = await this.any(what, findCoordinatorV4.api, 0, [groupId]);
      const [coordinator] = coordinators;
      if (coordinator?.errorCode === 0) return coordinator;
      const refusal = coordinator?.errorCode ?? code.COORDINATOR_NOT_AVAILABLE;
      if (!elsewhere.has(refusal) || attempt === coordinatorAttempts || this.closed.aborted)
        throw this.refused(refusal, what);
      await wait(coordinatorWait, this.closed);
    }
  }

  /** Rights are asked for with it. Makes no topic. */
  async describeTopics(wanted: ConsumerOptions['topics']): Promise<readonly TopicAccess[]> {
    const { metadataV12 } = this.wire;
    const names = wanted instanceof RegExp ? null : [...wanted];
    const { topics } = await this.any('looking for topics', metadataV12.api, names, false, true);
    return topics
      .map(({ name, ...rest }) => ({ topic: name ?? '', ...rest }))
      .filter(({ topic, isInternal }) => !(wanted instanceof RegExp) || (!isInternal && wanted.test(topic)))
      .map(({ topic, errorCode, partitions: { length: partitions }, topicAuthorizedOperations }) =>
        accessOf(topic, errorCode, partitions, topicAuthorizedOperations, () =>
          this.refused(errorCode, `looking for topic ${topic}`),
        ),
      );
  }

  async describeGroup(groupId: string): Promise<ReadonlySet<Right>> {
    const what = `looking for group ${groupId}`;
    for (let attempt = 1; ; attempt++) {
      try {
        const coordinator = await this.coordinator(groupId);
        const { groups } = await this.ask(coordinator, what, this.wire.describeGroupsV5.api, [groupId], true);
        const { errorCode = 0, authorizedOperations = 0 } = groups[0] ?? {};
        if (errorCode !== 0) throw this.refused(errorCode, what);
        return rightsOf(authorizedOperations);
      } catch (thrown) {
        // A coordinator that was just chosen is not ready.
        const passing = thrown instanceof Refused && elsewhere.has(thrown.broker);
        if (!passing || attempt === coordinatorAttempts || this.closed.aborted) return noRights(thrown);
        await wait(coordinatorWait, this.closed);
      }
    }
  }

  /** Leaders may have changed. */
  forget(topic: string): void {
    this.#topics.delete(topic);
  }

  /** Where partitions begin and end. */
  async bounds(
    partitions: readonly TopicPartition[],
  ): Promise<(TopicPartition & { readonly first: number; readonly end: number })[]> {
    const leaders = new Map<number, { readonly address: Address; readonly of: TopicPartition[] }>();
    for (const of of partitions) {
      const { id, address } = await this.leader(of);
      const led = leaders.get(id) ?? { address, of: [] };
      led.of.push(of);
      leaders.set(id, led);
    }
    const earliest = -2n;
    const latest = -1n;
    const asked = [...leaders.values()].map(async ({ address, of }) => {
      const list = async (timestamp: bigint) => {
        const topics = [...byTopic(of)].map(([name, list]) => ({
          name,
          partitions: list.map(({ partition }) => ({ partitionIndex: partition, currentLeaderEpoch: -1, timestamp })),
        }));
        const { listOffsetsV7 } = this.wire;
        const answer = await this.ask(address, 'asking for offsets', listOffsetsV7.api, -1, 0, topics);
        const offsets = new Map<string, number>();
        for (const { name: topic, partitions: found } of answer.topics)
          for (const { partitionIndex: partition, errorCode, offset } of found) {
            if (errorCode !== 0) this.forget(topic);
            if (errorCode !== 0) throw this.refused(errorCode, `offsets of topic ${topic}, partition ${partition}`);
            offsets.set(nameOf({ topic, partition }), Number(offset));
          }
        return offsets;
      };
      const [firsts, ends] = [await list(earliest), await list(latest)];
      return of.map(one => ({ ...one, first: firsts.get(nameOf(one)) ?? 0, end: ends.get(nameOf(one)) ?? 0 }));
    });
    return (await Promise.all(asked)).flat();
  }
}
