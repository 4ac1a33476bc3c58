/**
 * The brokers of a cluster, which of them leads a partition, and one way of asking them. Each producer and each consumer has a
 * cluster of its own: a broker works off the requests of one connection in turn, and joining a group may take a minute.
 *
 * @module
 */
import { setMaxListeners } from 'node:events';
import { MillraceError } from '../../../core/errors.ts';
import type { ConnectionSettings, TopicPartition } from '../client.ts';
import { nameOf } from '../partitions.ts';
import { kafkaError, Refused } from '../refused.ts';
import { wait } from '../waiting.ts';
import * as requests from './requests.ts';
import type { Answered, Request, Wire, Wires } from './wire.ts';

/** Rejects when it takes longer, in ms. */
export const inTime = async <T>(promise: Promise<T>, ms: number, doing: string): Promise<T> => {
  const done = new AbortController();
  const patience = Math.max(0, ms);
  const late = wait(patience, done.signal).then(() => {
    throw new MillraceError(
      'MR_KAFKA_UNREACHABLE',
      `Kafka ${doing}: there was no answer within ${patience} ms. If it never answers, this may not be the port of a Kafka broker.`,
    );
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

/** A broker that we are connected to. */
export class Node {
  readonly address: string;
  readonly #wire: Wire;
  readonly #whenLost: () => void;
  #dropped = false;

  constructor(address: string, wire: Wire, whenLost: () => void) {
    this.address = address;
    this.#wire = wire;
    this.#whenLost = whenLost;
  }

  /** False when it has to be connected anew. */
  get usable(): boolean {
    return !this.#dropped && this.#wire.usable;
  }

  /** A package itself might wait very long for somebody who says nothing. */
  async connect(timeout: number): Promise<this> {
    try {
      await inTime(this.#wire.connect(), timeout, `broker ${this.address}, connecting`);
    } catch (thrown) {
      this.drop();
      throw thrown;
    }
    return this;
  }

  /**
   * One request. The answer is as it was decoded: it is not looked at for refusals. A connection that does not answer is dropped,
   * as nobody knows what else is stuck on it.
   */
  async ask<Answer extends Answered>(request: Request<Answer>): Promise<Answer> {
    try {
      // A package may connect by itself, and nobody would know of that connection.
      if (!this.usable)
        throw new MillraceError('MR_KAFKA_UNREACHABLE', `Kafka broker ${this.address}: the connection was lost.`);
      return await this.#wire.ask(request);
    } catch (thrown) {
      const error = kafkaError(thrown, `broker ${this.address}, asked for ${request.name}`);
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
    this.#wire.cut(
      new MillraceError('MR_KAFKA_UNREACHABLE', `Kafka broker ${this.address}: the connection was dropped.`),
    );
  }
}

export class Cluster {
  readonly #wires: Wires;
  readonly #brokers: readonly string[];
  readonly #connectTimeout: number;
  readonly #requestTimeout: number;
  readonly #closed = new AbortController();
  /** By address. */
  readonly #nodes = new Map<string, Promise<Node>>();
  readonly #live = new Set<Node>();
  #addresses = new Map<number, string>();
  readonly #topics = new Map<string, { readonly code: number; readonly leaders: ReadonlyMap<number, number> }>();
  readonly #refreshing = new Map<string, Promise<readonly string[]>>();
  /** Did not answer when they were asked last; others are tried first. */
  readonly #suspects = new Set<string>();

  /** `requestTimeout`: in ms. */
  constructor(wires: Wires, { brokers, connectionTimeout = 10_000 }: ConnectionSettings, requestTimeout: number) {
    this.#wires = wires;
    this.#brokers = brokers;
    // To connect, and to log in.
    this.#connectTimeout = 2 * connectionTimeout;
    this.#requestTimeout = requestTimeout;
    setMaxListeners(0, this.#closed.signal);
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
    const wire = this.#wires.open(hostAndPort(address), this.#requestTimeout);
    const node = new Node(address, wire, () => this.#suspects.add(address));
    // What is left of it: of two connections, one may have been lost.
    for (const old of this.#live) if (!old.usable && old.address === address && this.#live.delete(old)) old.drop();
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
    const addresses = [...new Set([...this.#addresses.values(), ...this.#brokers])];
    addresses.sort((one, other) => rank(one) - rank(other));
    const failures: MillraceError[] = [];
    for (const address of addresses) {
      try {
        return await this.#connected(address);
      } catch (thrown) {
        if (this.#closed.signal.aborted) throw thrown;
        failures.push(kafkaError(thrown, `broker ${address}, connecting`));
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
    // Nothing to be asked.
    if (topics?.length === 0) return [];
    const node = await this.any();
    const answer = await node.ask(requests.metadata(topics, { make: true, rights: false }));
    this.#addresses = new Map(answer.brokers.map(({ id, host, port }) => [id, `${host}:${port}`]));
    for (const { topic, errorCode, partitions } of answer.topics) {
      const leaders = new Map(partitions.map(({ partition, leader }) => [partition, leader]));
      // Without a leader yet, but there.
      this.#topics.set(topic, { code: leaders.size > 0 ? 0 : errorCode, leaders });
    }
    if (topics === undefined) {
      const there = new Set(answer.topics.map(({ topic }) => topic));
      for (const topic of this.#topics.keys()) if (!there.has(topic)) this.#topics.delete(topic);
    }
    return answer.topics.filter(({ internal }) => !internal).map(({ topic }) => topic);
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
    const found = await node.ask(requests.findCoordinator(id, of));
    if (found.errorCode !== 0) throw this.refused(found.errorCode, `looking for the coordinator of ${of} ${id}`);
    this.#addresses.set(found.id, `${found.host}:${found.port}`);
    return this.node(found.id);
  }

  /** Where each partition begins or ends. A partition without an answer is left out. */
  async list(
    leader: number,
    partitions: readonly TopicPartition[],
    which: typeof requests.earliest | typeof requests.latest,
    readCommitted: boolean,
  ): Promise<Map<string, number | MillraceError>> {
    const node = await this.node(leader);
    const answer = await node.ask(requests.listOffsets(partitions, which, readCommitted));
    return new Map(
      answer.partitions.map(({ topic, partition, errorCode, offset }): [string, number | MillraceError] => [
        nameOf({ topic, partition }),
        errorCode === 0 ? offset : this.refused(errorCode, `offsets of topic ${topic}, partition ${partition}`),
      ]),
    );
  }

  /** What a broker has answered while `doing` something. */
  refused(errorCode: number, doing: string): Refused {
    return new Refused(errorCode, this.#wires.wordsFor(errorCode), doing);
  }
}

const closed = () => new MillraceError('MR_KAFKA', 'Kafka: the client was closed.');

const hostAndPort = (address: string): { host: string; port: number } => {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(address.slice(colon + 1)) };
};
