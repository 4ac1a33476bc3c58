/**
 * A Kafka cluster in memory, for tests: it does what it is told to, at the times that a clock and a seed say.
 *
 * @module
 */
import { systemClock, type Clock, type Timer } from '../core/clock.ts';
import { MillraceError } from '../core/errors.ts';
import {
  rights,
  type Assigned,
  type ConsumerListener,
  type ConsumerOptions,
  type KafkaClient,
  type KafkaConnector,
  type KafkaConsumer,
  type KafkaProducer,
  type KafkaTransactions,
  type NewRecord,
  type Position,
  type ProducerOptions,
  type ReadRecord,
  type Right,
  type TopicPartition,
  type TransactionalProducer,
  type Write,
} from '../protocols/kafka/client.ts';
import { seededRandom } from './seeded-random.ts';

const faults = [
  'sendRefused',
  'sendUnanswered',
  'sendRepeated',
  'sendSlow',
  'commitRefused',
  'commitUnanswered',
  'fetchRefused',
  'expelled',
] as const;

/**
 * What may go wrong. `sendRefused`: it rejects, and nothing was written. `sendUnanswered`: it rejects, but all was written.
 * `sendRepeated`: an answer got lost and the client asked again by itself; without `idempotent` the records are there twice.
 * `sendSlow`: the answer takes `slowness`. `commitRefused`, `commitUnanswered`: the same of commits. `fetchRefused`: trouble for a
 * moment. `expelled`: when it fetches, a member learns that the group has gone on without it. Of transactions, `sendRefused` is about
 * the writes and `commitRefused`, `commitUnanswered` about the end.
 */
export type MemoryKafkaFault = (typeof faults)[number];

/**
 * What has happened, besides faults: `rebalances` of all groups, commits that were `fenced`, as the member or its transactional id
 * was somebody else's by then, batches `dropped` because the broker
 * had them from the same producer, readers told `outOfRange`, and `overlaps`: sends that did not wait for the one before.
 */
export type MemoryKafkaEvent = MemoryKafkaFault | 'rebalances' | 'fenced' | 'dropped' | 'outOfRange' | 'overlaps';

export interface MemoryKafkaOptions {
  /** Default: the system's. */
  readonly clock?: Clock;
  /** Decides latencies and faults. Default: a seed of 1. */
  readonly random?: () => number;
  /** Topics that are there from the start, and how many partitions they have. */
  readonly topics?: Readonly<Record<string, number>>;
  /** How many partitions a topic has that is made because somebody asks for it. Default 0: none is made. */
  readonly autoCreate?: number;
  /** In ms. The longest way to a broker, and the longest back. Default 2. */
  readonly latency?: number;
  /** The largest batch that brokers take, in bytes. Default 1 048 588, as theirs. */
  readonly maxMessageBytes?: number;
  /** The chance of each fault, from 0 to 1. Default: none. */
  readonly faults?: Partial<Readonly<Record<MemoryKafkaFault, number>>>;
  /** In ms. How long a slow answer takes. Default 1000. */
  readonly slowness?: number;
}

/** What may be forbidden: to see, read or write a topic, or to be a member of a group. */
export type MemoryKafkaRight = 'describe' | 'read' | 'write' | 'group';

/** A cluster as tests see it. What it throws is a mistake of the test. */
export interface MemoryKafka {
  /** Makes a client, as the connectors to real clusters do. */
  readonly connect: KafkaConnector;
  /** The chance of each fault. It may be changed at any time. */
  faults: Partial<Readonly<Record<MemoryKafkaFault, number>>>;
  /** How often what has happened. */
  readonly happened: Readonly<Record<MemoryKafkaEvent, number>>;

  /** Makes a topic, of one partition by default. One that is `compacted` refuses records without a key, for good. */
  createTopic(topic: string, partitions?: number, options?: { readonly compacted?: boolean }): void;
  /** Forgets a topic, its records, and where groups were in it. */
  deleteTopic(topic: string): void;
  /** Gives a topic so many partitions more. */
  addPartitions(topic: string, more: number): void;

  /** What is in a partition. */
  log(topic: string, partition: number): readonly ReadRecord[];
  /** Writes records at once, as some other producer. The result is the offset of the first. */
  write(to: TopicPartition, records: readonly NewRecord[]): number;
  /** Uses up so many offsets without a record, as transactions and compaction do. */
  leaveGap(of: TopicPartition, offsets: number): void;
  /** Deletes the records before an offset, as retention does. */
  deleteRecords(of: TopicPartition, before: number): void;

  /** Where a group is, with what was committed along with it. */
  committed(group: string): readonly (Position & { readonly metadata?: string | undefined })[];
  /** Says where a group is, as a tool does. Its members do not notice. */
  commit(group: string, positions: readonly Position[]): void;
  /** Who is in a group, as the broker sees it, in the order of joining, and what each reads. */
  members(group: string): readonly { readonly id: string; readonly partitions: readonly TopicPartition[] }[];
  /** Lets all members of a group join again. */
  rebalance(group: string): void;
  /** A member's process dies: it is told nothing any more, and the group learns of it when its session expires. */
  killMember(id: string): void;
  /** For so long nothing is heard of a member, though it goes on reading. It may be out of the group then, and not know. */
  silenceMember(id: string, ms: number): void;
  /** Puts a member out of its group, and lets it know: its partitions are lost, and it joins again. */
  expelMember(id: string): void;

  /** Nobody answers any more, or nobody for one partition: it has no leader. What is on its way is lost. */
  down(of?: TopicPartition): void;
  /** What was down is there again, with all that it had. */
  up(of?: TopicPartition): void;
  /** Takes a right away. */
  forbid(right: MemoryKafkaRight, name: string): void;
  /** Gives it back. */
  allow(right: MemoryKafkaRight, name: string): void;
  /** Lets something go wrong the next times that it can, with one partition or with any. */
  script(fault: MemoryKafkaFault, times?: number, of?: TopicPartition): void;
}

/** Bytes of a batch, and of each record in it, besides what users put there: more than they can be. */
const batchOverhead = 61;
const recordOverhead = 21;
/** In ms. When a fetch that failed is tried again. */
const fetchAgain = 100;

const nameOf = ({ topic, partition }: TopicPartition): string => `${topic}-${partition}`;

const unreachable = () => new MillraceError('MR_KAFKA_UNREACHABLE', 'no broker of the cluster in memory answers');
const unknownTopic = (what: string) => new MillraceError('MR_KAFKA_UNKNOWN_TOPIC', `${what} does not exist`);
const forbiddenTo = (right: MemoryKafkaRight, name: string) =>
  new MillraceError(
    'MR_KAFKA_NOT_AUTHORIZED',
    right === 'group' ? `no right to read in group ${name}` : `no right to ${right} topic ${name}`,
  );
const faulty = (what: string) => new MillraceError('MR_KAFKA', what);

const bytesOf = ({ key, value, headers }: NewRecord): number => {
  let bytes = recordOverhead + (key?.length ?? 0) + (value?.length ?? 0);
  for (const [name, values] of Object.entries(headers ?? {}))
    for (const one of [values].flat()) bytes += name.length + Buffer.byteLength(one) + 4;
  return bytes;
};

const copied = (bytes: Buffer | string): Buffer => Buffer.from(bytes as string);

/** A record as it comes back from the wire: its own bytes, and header values as buffers. */
const stored = ({ key, value, headers, timestamp }: NewRecord, offset: number, now: number): ReadRecord => ({
  offset,
  timestamp: timestamp ?? now,
  key: key && copied(key),
  value: value && copied(value),
  headers:
    headers &&
    Object.fromEntries(
      Object.entries(headers).map(([name, values]) => [
        name,
        Array.isArray(values) ? values.map(copied) : copied(values as Buffer),
      ]),
    ),
});

const same = (a: readonly NewRecord[], b: readonly NewRecord[]): boolean =>
  a.length === b.length &&
  a.every(({ key, value }, i) => {
    const other = b[i] as NewRecord;
    const equal = (x: Buffer | null, y: Buffer | null) => (x === null || y === null ? x === y : x.equals(y));
    return equal(key, other.key) && equal(value, other.value);
  });

/** One partition of a topic. */
class Log {
  first = 0;
  end = 0;
  records: ReadRecord[] = [];
  away = false;

  append(records: readonly NewRecord[], now: number): number {
    const offset = this.end;
    for (const record of records) this.records.push(stored(record, this.end++, now));
    return offset;
  }

  /** Where a record of this offset, or the one behind it, is. */
  indexOf(offset: number): number {
    let low = 0;
    for (let high = this.records.length; low < high;) {
      const middle = (low + high) >>> 1;
      if ((this.records[middle] as ReadRecord).offset < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Records up to so many bytes, but one at least. */
  from(offset: number, limit: number): ReadRecord[] {
    const found: ReadRecord[] = [];
    let bytes = 0;
    for (let at = this.indexOf(offset); at < this.records.length; at++) {
      const record = this.records[at] as ReadRecord;
      bytes += bytesOf(record);
      if (bytes > limit && found.length > 0) break;
      found.push(record);
    }
    return found;
  }

  deleteBefore(offset: number): void {
    this.first = Math.min(Math.max(this.first, offset), this.end);
    this.records = this.records.slice(this.indexOf(this.first));
  }
}

interface Topic {
  readonly logs: Log[];
  readonly compacted: boolean;
}

/**
 * A cluster in memory.
 *
 * As real ones it has topics of partitions, records with offsets, groups with generations that rebalance eagerly, sessions that
 * expire, retention, limits and rights, it drops what an idempotent producer sends again, and it has transactions. Unlike them it has
 * one broker, which is there or away, and no replicas; what a transaction writes cannot be seen before its end, and leaves a gap
 * if it is aborted; it knows no compression; there is no login; a batch that an idempotent
 * producer sends again is known by its content, not by its number; and it tells members of a change at once and not when they ask:
 * when nothing happens, no timer runs.
 *
 * @example
 *     const clock = new FakeClock();
 *     const cluster = memoryKafka({ clock, topics: { orders: 3 } });
 *     const client = await cluster.connect({ brokers: ['memory'], log });
 */
export const memoryKafka = (options: MemoryKafkaOptions = {}): MemoryKafka => new Cluster(options);

class Cluster implements MemoryKafka {
  readonly clock: Clock;
  readonly random: () => number;
  readonly maxMessageBytes: number;
  readonly slowness: number;
  faults: Partial<Readonly<Record<MemoryKafkaFault, number>>>;
  readonly happened: Record<MemoryKafkaEvent, number>;

  readonly #autoCreate: number;
  readonly #latency: number;
  readonly #topics = new Map<string, Topic>();
  readonly #groups = new Map<string, Group>();
  readonly #consumers = new Set<Member>();
  readonly #forbidden = new Set<string>();
  readonly #scripted: { readonly fault: MemoryKafkaFault; readonly of: string | undefined }[] = [];
  /** By transactional id. */
  readonly #epochs = new Map<string, number>();
  #down = false;
  #ids = 0;

  constructor(options: MemoryKafkaOptions) {
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? seededRandom(1);
    this.maxMessageBytes = options.maxMessageBytes ?? 1_048_588;
    this.slowness = options.slowness ?? 1000;
    this.faults = options.faults ?? {};
    this.#autoCreate = options.autoCreate ?? 0;
    this.#latency = options.latency ?? 2;
    const names = [...faults, 'rebalances', 'fenced', 'dropped', 'outOfRange', 'overlaps'] as const;
    this.happened = Object.fromEntries(names.map(name => [name, 0])) as Record<MemoryKafkaEvent, number>;
    for (const [topic, partitions] of Object.entries(options.topics ?? {})) this.createTopic(topic, partitions);
  }

  readonly connect: KafkaConnector = () => Promise.resolve(this.#client());

  createTopic(topic: string, partitions = 1, { compacted = false } = {}): void {
    if (this.#topics.has(topic)) throw new Error(`topic ${topic} is there already`);
    this.#topics.set(topic, { logs: Array.from({ length: partitions }, () => new Log()), compacted });
    this.#changed();
  }

  deleteTopic(topic: string): void {
    this.#topics.delete(topic);
    for (const { committed } of this.#groups.values())
      for (const [name, position] of committed) if (position.topic === topic) committed.delete(name);
    this.#changed();
  }

  addPartitions(topic: string, more: number): void {
    for (let i = 0; i < more; i++) this.topic(topic).logs.push(new Log());
    this.#changed();
  }

  write(to: TopicPartition, records: readonly NewRecord[]): number {
    const offset = this.partition(to).append(records, this.clock.now());
    for (const consumer of this.#consumers) consumer.wake();
    return offset;
  }

  leaveGap(of: TopicPartition, offsets: number): void {
    this.partition(of).end += offsets;
  }

  deleteRecords(of: TopicPartition, before: number): void {
    this.partition(of).deleteBefore(before);
    for (const consumer of this.#consumers) consumer.wake();
  }

  log(topic: string, partition: number): readonly ReadRecord[] {
    return this.partition({ topic, partition }).records;
  }

  committed(group: string): readonly (Position & { readonly metadata?: string | undefined })[] {
    return [...(this.#groups.get(group)?.committed.values() ?? [])];
  }

  commit(group: string, positions: readonly Position[]): void {
    for (const position of positions) this.#group(group).committed.set(nameOf(position), position);
  }

  members(group: string): readonly { readonly id: string; readonly partitions: readonly TopicPartition[] }[] {
    return [...(this.#groups.get(group)?.members ?? [])].map(({ id, partitions }) => ({ id, partitions }));
  }

  killMember(id: string): void {
    this.#member(id).kill();
  }

  silenceMember(id: string, ms: number): void {
    this.#member(id).silence(ms);
  }

  expelMember(id: string): void {
    this.#member(id).expelled();
  }

  rebalance(group: string): void {
    this.#group(group).gather();
  }

  down(of?: TopicPartition): void {
    if (of === undefined) this.#down = true;
    else this.partition(of).away = true;
    this.#changed();
  }

  up(of?: TopicPartition): void {
    if (of === undefined) this.#down = false;
    else this.partition(of).away = false;
    this.#changed();
  }

  forbid(right: MemoryKafkaRight, name: string): void {
    this.#forbidden.add(`${right} ${name}`);
    this.#changed();
  }

  allow(right: MemoryKafkaRight, name: string): void {
    this.#forbidden.delete(`${right} ${name}`);
    this.#changed();
  }

  script(fault: MemoryKafkaFault, times = 1, of?: TopicPartition): void {
    for (let i = 0; i < times; i++) this.#scripted.push({ fault, of: of && nameOf(of) });
  }

  // What follows is for the clients.

  get isDown(): boolean {
    return this.#down;
  }

  isForbidden(right: MemoryKafkaRight, name: string): boolean {
    return this.#forbidden.has(`${right} ${name}`);
  }

  /** Whether something goes wrong now; counts it. */
  goesWrong(fault: MemoryKafkaFault, of: readonly TopicPartition[]): boolean {
    const names = of.map(nameOf);
    const at = this.#scripted.findIndex(one => one.fault === fault && (one.of === undefined || names.includes(one.of)));
    const chance = this.faults[fault] ?? 0;
    if (at < 0 && !(chance > 0 && this.random() < chance)) return false;
    if (at >= 0) this.#scripted.splice(at, 1);
    this.happened[fault]++;
    return true;
  }

  /** How long a way takes this time, in ms. */
  way(): number {
    return this.#latency * this.random();
  }

  async travel(ms = this.way()): Promise<void> {
    await new Promise<void>(resolve => void this.clock.after(ms, resolve));
    if (this.#down) throw unreachable();
  }

  topicNames(): readonly string[] {
    return [...this.#topics.keys()].sort();
  }

  /** Makes the topic if brokers do that. */
  find(topic: string): Topic | undefined {
    if (!this.#topics.has(topic) && this.#autoCreate > 0) this.createTopic(topic, this.#autoCreate);
    return this.#topics.get(topic);
  }

  topic(topic: string): Topic {
    const found = this.find(topic);
    if (found === undefined) throw unknownTopic(`topic ${topic}`);
    return found;
  }

  partition({ topic, partition }: TopicPartition): Log {
    const log = this.topic(topic).logs[partition];
    if (log === undefined) throw unknownTopic(`partition ${partition} of topic ${topic}`);
    return log;
  }

  /** The log of a partition that is there and may be read. */
  readable(of: TopicPartition): Log | undefined {
    const log = this.#topics.get(of.topic)?.logs[of.partition];
    return log === undefined || log.away || this.isForbidden('read', of.topic) ? undefined : log;
  }

  gone(member: Member): void {
    this.#consumers.delete(member);
  }

  /** From now on only whoever got the result may commit in the name of this id. */
  nextEpoch(id: string): number {
    const epoch = (this.#epochs.get(id) ?? -1) + 1;
    this.#epochs.set(id, epoch);
    return epoch;
  }

  epoch(id: string): number | undefined {
    return this.#epochs.get(id);
  }

  /** Throws what a broker refuses. */
  check(to: TopicPartition, records: readonly NewRecord[]): void {
    if (this.isForbidden('write', to.topic)) throw forbiddenTo('write', to.topic);
    const log = this.partition(to);
    if (log.away) throw faulty(`${nameOf(to)} has no leader`);
    const bytes = records.reduce((sum, record) => sum + bytesOf(record), batchOverhead);
    if (bytes > this.maxMessageBytes)
      throw new MillraceError(
        'MR_EVENT_TOO_LARGE',
        `${nameOf(to)}: a batch of ${bytes} bytes, and brokers take ${this.maxMessageBytes}`,
      );
    if (this.topic(to.topic).compacted && records.some(({ key }) => key === null))
      throw new MillraceError('MR_KAFKA', `topic ${to.topic} is compacted, and a record has no key`, {
        retriable: false,
      });
  }

  #client(): KafkaClient {
    return {
      describeTopics: async topics => {
        await this.travel();
        const names = topics instanceof RegExp ? this.topicNames().filter(name => topics.test(name)) : topics;
        const seen = names.map(topic => ({
          topic,
          partitions: this.isForbidden('describe', topic) ? 0 : (this.#topics.get(topic)?.logs.length ?? 0),
          rights: this.#rightsOf(topic),
        }));
        await this.travel();
        return topics instanceof RegExp ? seen.filter(({ rights: may }) => may.has('describe')) : seen;
      },
      describeGroup: async groupId => {
        await this.travel();
        await this.travel();
        return new Set<Right>(this.isForbidden('group', groupId) ? [] : ['describe', 'read']);
      },
      partitions: async topic => {
        await this.travel();
        if (this.isForbidden('describe', topic)) throw forbiddenTo('describe', topic);
        const { length } = this.topic(topic).logs;
        await this.travel();
        return length;
      },
      offsets: async topic => {
        await this.travel();
        if (this.isForbidden('describe', topic)) throw forbiddenTo('describe', topic);
        const found = this.topic(topic).logs.map(({ first, end }, partition) => ({ topic, partition, first, end }));
        await this.travel();
        return found;
      },
      producer: options => new Producer(this, options),
      consumer: (options, listener) => {
        const member = new Member(`member-${++this.#ids}`, this, this.#group(options.groupId), options, listener);
        this.#consumers.add(member);
        member.look();
        return member;
      },
      transactions: () => new Transactions(this),
      close: () => Promise.resolve(),
    };
  }

  #rightsOf(topic: string): ReadonlySet<Right> {
    const may = (right: Right) => !this.isForbidden(right, topic);
    return new Set(may('describe') ? rights.filter(may) : []);
  }

  #group(id: string): Group {
    let group = this.#groups.get(id);
    if (group === undefined) this.#groups.set(id, (group = new Group(id, this)));
    return group;
  }

  #member(id: string): Member {
    for (const member of this.#consumers) if (member.id === id) return member;
    throw new Error(`no member ${id}`);
  }

  #changed(): void {
    for (const consumer of this.#consumers) consumer.look();
  }
}

class Producer implements KafkaProducer {
  readonly #cluster: Cluster;
  readonly #acks: 'all' | 1 | 0;
  readonly #idempotent: boolean;
  readonly #timeout: number;
  /** Partitions with a send under way. */
  readonly #busy = new Set<string>();
  /** By partition: what was written, though the producer does not know. */
  readonly #unsure = new Map<string, { readonly records: readonly NewRecord[]; readonly offset: number }>();
  #closed = false;

  constructor(cluster: Cluster, { acks = 'all', idempotent, requestTimeout = 30_000 }: ProducerOptions = {}) {
    this.#cluster = cluster;
    this.#acks = acks;
    this.#idempotent = idempotent ?? acks === 'all';
    this.#timeout = requestTimeout;
  }

  async send(to: TopicPartition, records: readonly NewRecord[]): Promise<number> {
    const name = nameOf(to);
    if (this.#closed) throw faulty('the producer is closed');
    if (this.#busy.has(name)) {
      this.#cluster.happened.overlaps++;
      throw faulty(`a send to ${name} is under way already`);
    }
    this.#busy.add(name);
    try {
      return await this.#write(to, name, records);
    } catch (error) {
      if (this.#acks === 0) return -1;
      throw error;
    } finally {
      this.#busy.delete(name);
    }
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  async #write(to: TopicPartition, name: string, records: readonly NewRecord[]): Promise<number> {
    const cluster = this.#cluster;
    await cluster.travel();
    cluster.check(to, records);
    if (cluster.goesWrong('sendRefused', [to])) throw faulty(`${name}: the broker could not write`);
    const before = this.#idempotent ? this.#unsure.get(name) : undefined;
    this.#unsure.delete(name);
    let offset: number;
    if (before !== undefined && same(before.records, records)) {
      offset = before.offset;
      cluster.happened.dropped++;
    } else offset = cluster.write(to, records);
    if (cluster.goesWrong('sendRepeated', [to])) {
      if (this.#idempotent) cluster.happened.dropped++;
      else offset = cluster.write(to, records);
    }
    try {
      if (cluster.goesWrong('sendUnanswered', [to])) throw faulty(`${name}: the connection broke before an answer`);
      const way = cluster.goesWrong('sendSlow', [to]) ? cluster.slowness : cluster.way();
      await cluster.travel(Math.min(way, this.#timeout));
      if (way > this.#timeout) throw faulty(`${name}: no answer within ${this.#timeout} ms`);
    } catch (error) {
      this.#unsure.set(name, { records, offset });
      throw error;
    }
    return this.#acks === 0 ? -1 : offset;
  }
}

class Transactions implements KafkaTransactions {
  readonly #cluster: Cluster;
  #closed = false;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  async begin(id: string, groupId: string, of: TopicPartition): Promise<TransactionalProducer> {
    const cluster = this.#cluster;
    this.#open();
    await cluster.travel();
    const epoch = cluster.nextEpoch(id);
    await cluster.travel();
    this.#open();
    await cluster.travel();
    const position = cluster.committed(groupId).find(one => nameOf(one) === nameOf(of))?.offset;
    await cluster.travel();
    let over = false;
    return {
      position,
      commit: async (writes, next) => {
        if (over) throw faulty(`transactional id ${id}: a commit is under way, or has failed`);
        over = true;
        const check = () => {
          this.#open();
          if (cluster.epoch(id) === epoch) return;
          cluster.happened.fenced++;
          throw faulty(`transactional id ${id} is somebody else's`);
        };
        await this.#write(writes, check);
        await this.#end(writes, groupId, { ...of, offset: next }, check);
        over = false;
      },
    };
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  #open(): void {
    if (this.#closed) throw faulty('the client is closed');
  }

  async #write(writes: readonly Write[], check: () => void): Promise<void> {
    const cluster = this.#cluster;
    await cluster.travel();
    check();
    for (const { to, records } of writes) {
      cluster.check(to, records);
      if (!cluster.goesWrong('sendRefused', [to])) continue;
      cluster.leaveGap(to, records.length);
      throw faulty(`${nameOf(to)}: the broker could not write`);
    }
    await cluster.travel();
  }

  async #end(writes: readonly Write[], groupId: string, position: Position, check: () => void): Promise<void> {
    const cluster = this.#cluster;
    await cluster.travel();
    check();
    if (cluster.goesWrong('commitRefused', [position])) throw faulty('the coordinator could not commit');
    for (const { to, records } of writes) {
      cluster.write(to, records);
      // The mark of the end.
      cluster.leaveGap(to, 1);
    }
    cluster.commit(groupId, [position]);
    if (cluster.goesWrong('commitUnanswered', [position])) throw faulty('the connection broke before an answer');
    await cluster.travel();
  }
}

/** What the coordinator knows of a group. */
class Group {
  readonly id: string;
  readonly committed = new Map<string, Position & { readonly metadata?: string | undefined }>();
  readonly members = new Set<Member>();
  generation = 0;
  /** True while members are waited for. */
  gathering = false;
  /** What there was to give to the members. */
  given: ReadonlySet<string> = new Set();

  readonly #cluster: Cluster;
  readonly #joined = new Set<Member>();
  #timer: Timer;

  constructor(id: string, cluster: Cluster) {
    this.id = id;
    this.#cluster = cluster;
  }

  join(member: Member): void {
    this.members.add(member);
    this.#joined.add(member);
    this.gather();
  }

  leave(member: Member): void {
    this.#joined.delete(member);
    if (this.members.delete(member)) this.gather();
  }

  /** Everybody has to join again; who does not within the rebalance timeout is out. */
  gather(): void {
    const { clock, happened } = this.#cluster;
    if (!this.gathering && this.members.size > 0) {
      this.gathering = true;
      happened.rebalances++;
      const longest = Math.max(...[...this.members].map(({ options }) => options.rebalanceTimeout ?? 60_000));
      this.#timer = clock.after(longest, () => {
        for (const member of this.members) if (!this.#joined.has(member)) this.members.delete(member);
        this.#complete();
      });
      for (const member of this.members) if (!this.#joined.has(member)) member.heartbeat();
    }
    if (this.#joined.size === this.members.size) this.#complete();
  }

  /** Partitions there are for a member. */
  available(member: Member): readonly TopicPartition[] {
    return this.#cluster
      .topicNames()
      .filter(topic => member.wants(topic))
      .flatMap(topic => this.#cluster.topic(topic).logs.map((_, partition) => ({ topic, partition })));
  }

  #complete(): void {
    this.#cluster.clock.cancel(this.#timer);
    this.gathering = false;
    this.#joined.clear();
    if (this.members.size === 0) return;
    this.generation++;
    const given = new Map([...this.members].map(member => [member, [] as TopicPartition[]]));
    const takers = new Map<string, { readonly of: TopicPartition; readonly members: Member[] }>();
    for (const member of this.members)
      for (const of of this.available(member)) {
        const taker = takers.get(nameOf(of)) ?? { of, members: [] };
        taker.members.push(member);
        takers.set(nameOf(of), taker);
      }
    for (const { of, members } of takers.values())
      given.get(members[of.partition % members.length] as Member)?.push(of);
    this.given = new Set(takers.keys());
    for (const [member, partitions] of given) member.given(partitions);
  }
}

/** Where a member is in one of its partitions. */
interface Reading extends TopicPartition {
  offset: number;
  paused: boolean;
  /** Changes with each seek, so that what was on its way is known. */
  seeks: number;
}

class Member implements KafkaConsumer {
  readonly id: string;
  readonly options: ConsumerOptions;
  /** As the broker sees it. */
  partitions: readonly TopicPartition[] = [];

  readonly #cluster: Cluster;
  readonly #group: Group;
  readonly #listener: ConsumerListener;
  readonly #timers = new Set<Timer>();
  readonly #own = new Map<string, Reading>();
  #state: 'out' | 'joining' | 'syncing' | 'reading' | 'revoking' | 'gone' = 'out';
  #generation = 0;
  #revoking: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #fetching = false;
  /** A fetch has just failed. */
  #refused: Error | undefined;
  #told: Error | undefined;
  #looking = false;
  #silentUntil = 0;
  /** What is known of topics is looked up again at multiples of its age. */
  readonly #started: number;
  #refreshing = false;

  constructor(id: string, cluster: Cluster, group: Group, options: ConsumerOptions, listener: ConsumerListener) {
    this.id = id;
    this.#cluster = cluster;
    this.#group = group;
    this.options = options;
    this.#listener = listener;
    this.#started = cluster.clock.now();
  }

  pause(partitions: readonly TopicPartition[]): void {
    for (const reading of this.#known(partitions)) reading.paused = true;
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const reading of this.#known(partitions)) reading.paused = false;
    this.wake();
  }

  seek(to: Position): void {
    for (const reading of this.#known([to])) {
      reading.offset = to.offset;
      reading.seeks++;
    }
    this.wake();
  }

  async commit(positions: readonly Position[], metadata?: string): Promise<void> {
    const cluster = this.#cluster;
    const foreign = positions.find(position => !this.#own.has(nameOf(position)));
    if (foreign !== undefined) throw faulty(`${nameOf(foreign)} is not a partition of this consumer`);
    const generation = this.#generation;
    await cluster.travel();
    if (cluster.isForbidden('group', this.#group.id)) throw forbiddenTo('group', this.#group.id);
    if (this.#state === 'gone' || !this.#group.members.has(this) || generation !== this.#group.generation) {
      cluster.happened.fenced++;
      throw faulty(`group ${this.#group.id} has gone on without this member: it cannot commit any more`);
    }
    if (cluster.goesWrong('commitRefused', positions)) throw faulty('the coordinator could not commit');
    for (const { topic, partition, offset } of positions)
      this.#group.committed.set(`${topic}-${partition}`, { topic, partition, offset, metadata });
    if (cluster.goesWrong('commitUnanswered', positions)) throw faulty('the connection broke before an answer');
    await cluster.travel();
  }

  close(): Promise<void> {
    return (this.#closing ??= (async () => {
      if (this.#state === 'gone') return;
      await this.#giveUp(false);
      this.#end();
      this.#group.leave(this);
    })());
  }

  // What the cluster tells.

  wants(topic: string): boolean {
    const { topics } = this.options;
    const named =
      topics instanceof RegExp ? new RegExp(topics.source, topics.flags).test(topic) : topics.includes(topic);
    return named && !this.#cluster.isForbidden('read', topic);
  }

  kill(): void {
    this.#end();
    this.#expireAfterSession();
  }

  silence(ms: number): void {
    const { clock } = this.#cluster;
    this.#silentUntil = clock.now() + ms;
    if (ms > this.#sessionTimeout) this.#expireAfterSession();
    this.#after(ms, () => this.heartbeat());
  }

  expelled(): void {
    this.#group.leave(this);
    if (this.#state === 'reading') void this.#joinAgain(true);
    else if (this.#state === 'joining') this.#join();
  }

  /** The group gathers, or may have gone on: the member learns it with one of its next heartbeats. */
  heartbeat(): void {
    this.#after((this.options.heartbeatInterval ?? 3000) * this.#cluster.random(), () => {
      if (this.#state !== 'reading' || this.#cluster.clock.now() < this.#silentUntil) return;
      if (!this.#group.members.has(this)) void this.#joinAgain(true);
      else if (this.#group.gathering) void this.#joinAgain(false);
    });
  }

  /** The group is complete, and these are for this member. */
  given(partitions: readonly TopicPartition[]): void {
    this.partitions = partitions;
    if (this.#state !== 'joining') return;
    this.#state = 'syncing';
    this.#generation = this.#group.generation;
    this.#later(() => {
      if (this.#group.gathering || this.#generation !== this.#group.generation || !this.#group.members.has(this))
        return this.#join();
      this.#state = 'reading';
      const found = partitions.flatMap(of => this.#seen(of) ?? []);
      if (found.length === 0) return;
      const offsets = this.#listener.assigned(found);
      found.forEach(({ topic, partition }, i) => {
        this.#own.set(nameOf({ topic, partition }), {
          topic,
          partition,
          offset: offsets[i] as number,
          paused: false,
          seeks: 0,
        });
      });
      this.wake();
    });
  }

  /** Something about the cluster has changed: sees it a little later, and new partitions when what is known is too old. */
  look(): void {
    if (this.#looking || this.#state === 'gone') return;
    this.#looking = true;
    this.#later(() => {
      this.#looking = false;
      this.#tellTrouble();
      if (this.#state === 'out') return this.#join();
      this.wake();
      if (this.#outdated()) this.#refresh();
    });
  }

  /** There may be something to read. */
  wake(): void {
    if (this.#fetching || this.#state !== 'reading' || this.#wanted().length === 0) return;
    this.#fetching = true;
    this.#later(() => this.#fetch(false));
  }

  get #sessionTimeout(): number {
    return this.options.sessionTimeout ?? 30_000;
  }

  #known(partitions: readonly TopicPartition[]): Reading[] {
    return partitions.flatMap(of => this.#own.get(nameOf(of)) ?? []);
  }

  #seen({ topic, partition }: TopicPartition): Assigned | undefined {
    const log = this.#cluster.readable({ topic, partition });
    const committed = this.#group.committed.get(nameOf({ topic, partition }))?.offset;
    return log && { topic, partition, committed, first: log.first, end: log.end };
  }

  /** Partitions with something to say about: records, or that the offset is wrong. */
  #wanted(): Reading[] {
    if (this.#cluster.isDown) return [];
    return [...this.#own.values()].filter(reading => {
      const log = this.#cluster.readable(reading);
      return !reading.paused && log !== undefined && reading.offset !== log.end;
    });
  }

  /** A fetch has come to the broker. */
  #fetch(waited: boolean): void {
    const { maxBytes = 10 << 20, maxBytesPerPartition = 1 << 20, minBytes = 1, maxWait = 500 } = this.options;
    const cluster = this.#cluster;
    const wanted = this.#wanted();
    if (this.#state !== 'reading' || wanted.length === 0) return this.#fetched();
    if (cluster.goesWrong('fetchRefused', wanted)) {
      this.#refused = faulty('the broker could not read');
      this.#tellTrouble();
      this.#after(fetchAgain, () => {
        this.#refused = undefined;
        this.#tellTrouble();
        this.#fetched();
      });
      return;
    }
    if (cluster.goesWrong('expelled', wanted)) {
      this.#fetching = false;
      return this.expelled();
    }
    let left = maxBytes;
    const answers: (() => void)[] = [];
    for (const reading of wanted) {
      const seen = this.#seen(reading) as Assigned;
      const { seeks, offset } = reading;
      /** Nobody has moved it while the answer was on its way. */
      const stands = () =>
        !cluster.isDown &&
        this.#state === 'reading' &&
        this.#own.get(nameOf(reading)) === reading &&
        reading.seeks === seeks;
      if (offset < seen.first || offset > seen.end) {
        answers.push(() => {
          if (!stands()) return;
          cluster.happened.outOfRange++;
          reading.offset = this.#listener.outOfRange(seen, offset);
        });
        continue;
      }
      if (left <= 0) break;
      const records = cluster.partition(reading).from(offset, Math.min(maxBytesPerPartition, left));
      left -= records.reduce((sum, record) => sum + bytesOf(record), 0);
      answers.push(() => {
        if (!stands()) return;
        reading.offset = (records.at(-1)?.offset ?? seen.end - 1) + 1;
        if (records.length > 0) this.#listener.records({ topic: reading.topic, partition: reading.partition }, records);
      });
    }
    if (!waited && maxBytes - left < minBytes) return this.#after(maxWait, () => this.#fetch(true));
    // The next time another partition is the first.
    const [first] = wanted as [Reading];
    if (this.#own.delete(nameOf(first))) this.#own.set(nameOf(first), first);
    this.#later(() => {
      for (const answer of answers) answer();
      this.#fetched();
    });
  }

  #fetched(): void {
    this.#fetching = false;
    this.wake();
  }

  #join(): void {
    this.#state = 'joining';
    this.#later(() => {
      if (this.#cluster.isDown || this.#cluster.isForbidden('group', this.#group.id)) this.#state = 'out';
      else this.#group.join(this);
    });
  }

  async #joinAgain(lost: boolean): Promise<void> {
    await this.#giveUp(lost);
    if (this.#closing === undefined && this.#state !== 'gone') this.#join();
  }

  /** Tells that nothing is ours any more, once; what is not lost may be committed until the listener has done so. */
  #giveUp(lost: boolean): Promise<void> {
    return (this.#revoking ??= (async () => {
      this.#state = 'revoking';
      const partitions = [...this.#own.values()].map(({ topic, partition }) => ({ topic, partition }));
      if (lost) this.#own.clear();
      if (partitions.length > 0) await this.#listener.revoked(partitions, lost);
      this.#own.clear();
      this.#revoking = undefined;
    })());
  }

  #end(): void {
    this.#state = 'gone';
    this.#own.clear();
    for (const timer of this.#timers) this.#cluster.clock.cancel(timer);
    this.#cluster.gone(this);
  }

  /** The session expires, though not while there is no coordinator. */
  #expireAfterSession(): void {
    this.#cluster.clock.after(this.#sessionTimeout, () => {
      if (this.#cluster.isDown) this.#expireAfterSession();
      else if (this.#state === 'gone' || this.#cluster.clock.now() < this.#silentUntil) this.#group.leave(this);
    });
  }

  /** Says what is wrong when that has changed. */
  #tellTrouble(): void {
    const wrong = this.#whatIsWrong();
    if (wrong?.message === this.#told?.message) return;
    this.#told = wrong;
    if (wrong === undefined) this.#listener.recovered();
    else this.#listener.trouble(wrong);
  }

  #whatIsWrong(): Error | undefined {
    const cluster = this.#cluster;
    const { groupId, topics } = this.options;
    if (cluster.isDown) return unreachable();
    if (this.#refused !== undefined) return this.#refused;
    if (cluster.isForbidden('group', groupId)) return forbiddenTo('group', groupId);
    const named = topics instanceof RegExp ? [] : topics;
    const forbidden = named.find(topic => cluster.isForbidden('read', topic));
    if (forbidden !== undefined) return forbiddenTo('read', forbidden);
    const missing = named.find(topic => cluster.find(topic) === undefined);
    if (missing !== undefined) return unknownTopic(`topic ${missing}`);
    const away = [...this.#own.values()].find(of => cluster.find(of.topic)?.logs[of.partition]?.away === true);
    return away && faulty(`${nameOf(away)} has no leader`);
  }

  /** What the group was given is not what there is. */
  #outdated(): boolean {
    return this.#group.available(this).some(of => !this.#group.given.has(nameOf(of))) || this.#orphan();
  }

  /** A partition of ours does not exist any more. */
  #orphan(): boolean {
    const available = new Set(this.#group.available(this).map(nameOf));
    return [...this.#own.keys()].some(name => !available.has(name));
  }

  /** Topics that were missing or have gone are looked for with each heartbeat, others when what is known is too old. */
  #refresh(): void {
    if (this.#refreshing) return;
    this.#refreshing = true;
    const { metadataMaxAge: age = 300_000, heartbeatInterval = 3000, topics } = this.options;
    const now = this.#cluster.clock.now();
    const named = !(topics instanceof RegExp) && topics.some(topic => !this.#group.given.has(`${topic}-0`));
    const due = age - ((now - this.#started) % age);
    this.#after(named || this.#orphan() ? Math.min(due, heartbeatInterval) : due, () => {
      this.#refreshing = false;
      if (this.#outdated()) this.#group.gather();
    });
  }

  /** Calls back after one way, unless the member is gone by then. */
  #later(callback: () => void): void {
    this.#after(this.#cluster.way(), callback);
  }

  #after(ms: number, callback: () => void): void {
    const timer = this.#cluster.clock.after(ms, () => {
      this.#timers.delete(timer);
      callback();
    });
    this.#timers.add(timer);
  }
}
