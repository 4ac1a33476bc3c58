/**
 * A member of a consumer group by the classic protocol, eager: before it joins again it gives up all partitions, so that what is
 * committed in `revoked` is what the next owner begins with. Heartbeats have a timer and a connection of their own, so neither a
 * pause nor a slow listener ends the membership.
 *
 * @module
 */
import type { RecordsBatch } from '@platformatic/kafka';
import { MillraceError, toError } from '../../../core/errors.ts';
import type {
  Assigned,
  ConnectionSettings,
  ConsumerListener,
  ConsumerOptions,
  KafkaConsumer,
  Position,
  ReadRecord,
  RecordHeaders,
  TopicPartition,
} from '../client.ts';
import { assignors } from '../assignors.ts';
import { code, elsewhere, Refused } from '../refused.ts';
import { Troubles } from '../troubles.ts';
import { byTopic, nameOf } from '../partitions.ts';
import { wait } from '../waiting.ts';
import { Cluster, Connections, type Address, type Wire } from './cluster.ts';

/** The wait before something that failed is tried again, in ms. */
const again = 500;
/** How long `close` waits for the last commits, and for the coordinator to hear of it; in ms. */
const lastCommits = 5000;
const requestTimeout = 30_000;

const protocol = 'range';
/** Bits of a record batch. */
const isTransactional = 16;
const isControl = 32;
const isAppendTime = 8;

/** Where we are in a partition of ours. */
interface Reading extends TopicPartition {
  offset: number;
  paused: boolean;
  /** Changes with each seek: what was on its way then is not told. */
  seeks: number;
}

const isAborted = (signal: AbortSignal): boolean => signal.aborted;
const aborted = async (signal: AbortSignal): Promise<undefined> => {
  if (!signal.aborted) await new Promise(resolve => signal.addEventListener('abort', resolve, { once: true }));
  return undefined;
};

/** From a join to the next. */
interface Membership {
  readonly generation: number;
  coordinator: Address;
  /** Topics that were there, and how many partitions they had. */
  readonly known: string;
  readonly isLeader: boolean;
  /** Its partitions have to be given up. */
  readonly over: AbortController;
  /** They have been. */
  readonly gone: AbortController;
  /** Why it ended; told by the first who knows. */
  why?: 'rebalance' | 'lost';
}

export class Member implements KafkaConsumer {
  readonly #cluster: Cluster;
  readonly #joins: Connections;
  readonly #fetches: Connections;
  readonly #listener: ConsumerListener;
  readonly #troubles: Troubles;
  readonly #options: Required<{ [Name in keyof ConsumerOptions]: NonNullable<ConsumerOptions[Name]> }>;
  readonly #closing = new AbortController();
  readonly #stopped = aborted(this.#closing.signal);
  readonly #own = new Map<string, Reading>();
  readonly #running: Promise<void>;
  /** Brokers that are asked for records. */
  readonly #asked = new Set<number>();
  /** Brokers that did not answer. */
  readonly #failing = new Set<number>();
  #id = '';
  #membership: Membership | undefined;
  /** Partitions are being given up: nothing is told of them any more. */
  #quiet = false;
  #closed: Promise<void> | undefined;

  constructor(wire: Wire, settings: ConnectionSettings, options: ConsumerOptions, listener: ConsumerListener) {
    this.#options = {
      groupId: options.groupId,
      topics: options.topics,
      sessionTimeout: options.sessionTimeout ?? 30_000,
      heartbeatInterval: options.heartbeatInterval ?? 3000,
      rebalanceTimeout: options.rebalanceTimeout ?? 60_000,
      maxBytesPerPartition: options.maxBytesPerPartition ?? 1 << 20,
      maxBytes: options.maxBytes ?? 10 << 20,
      minBytes: options.minBytes ?? 1,
      maxWait: options.maxWait ?? 500,
      metadataMaxAge: options.metadataMaxAge ?? 300_000,
      readCommitted: options.readCommitted ?? true,
    };
    this.#cluster = new Cluster(wire, settings, Math.min(requestTimeout, this.#options.sessionTimeout));
    this.#joins = new Connections(wire, settings, this.#options.rebalanceTimeout + requestTimeout);
    this.#fetches = new Connections(wire, settings, this.#options.maxWait + requestTimeout);
    this.#listener = listener;
    this.#troubles = new Troubles(listener);
    this.#running = this.#run();
  }

  pause(partitions: readonly TopicPartition[]): void {
    for (const reading of this.#readings(partitions)) reading.paused = true;
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const reading of this.#readings(partitions)) reading.paused = false;
    this.#readSoon();
  }

  seek(to: Position): void {
    for (const reading of this.#readings([to])) {
      reading.offset = to.offset;
      reading.seeks++;
    }
    this.#readSoon();
  }

  async commit(positions: readonly Position[], metadata?: string): Promise<void> {
    const { groupId } = this.#options;
    const foreign = positions.find(position => !this.#own.has(nameOf(position)));
    const membership = this.#membership;
    if (foreign !== undefined || membership === undefined)
      throw new MillraceError('MR_KAFKA', `Kafka group ${groupId}: ${foreign && nameOf(foreign)} is not ours.`);
    const topics = [...byTopic(positions)].map(([name, of]) => ({
      name,
      partitions: of.map(({ partition, offset }) => ({
        partitionIndex: partition,
        committedOffset: BigInt(offset),
        committedLeaderEpoch: -1,
        committedMetadata: metadata ?? null,
      })),
    }));
    const { offsetCommitV8 } = this.#cluster.wire;
    const { coordinator, generation } = membership;
    const what = `committing in group ${groupId}`;
    const answer = await this.#cluster.ask(
      coordinator,
      what,
      offsetCommitV8.api,
      groupId,
      generation,
      this.#id,
      null,
      topics,
    );
    const refusal = answer.topics.flatMap(({ partitions }) => partitions).find(({ errorCode }) => errorCode !== 0);
    if (refusal === undefined) return;
    this.#judge(membership, refusal.errorCode);
    const refused = this.#cluster.refused(refusal.errorCode, what);
    await this.#findCoordinator(membership, refused);
    throw refused;
  }

  close(): Promise<void> {
    return (this.#closed ??= (async () => {
      this.#closing.abort();
      this.#membership?.over.abort();
      // A join that is under way may take long.
      this.#joins.close();
      await this.#running;
      this.#troubles.silent = true;
      await this.#leave();
      this.#fetches.close();
      this.#cluster.close();
    })());
  }

  async #run(): Promise<void> {
    while (!this.#isClosing()) {
      try {
        const joined = await Promise.race([this.#join(), this.#stopped]);
        if (joined === undefined) return;
        const [membership, partitions] = joined;
        this.#membership = membership;
        void this.#beat(membership);
        void this.#watch(membership);
        void this.#begin(membership, partitions);
        await aborted(membership.over.signal);
        await this.#giveUp(membership.why === 'lost');
        membership.gone.abort();
      } catch (thrown) {
        if (!this.#isClosing()) this.#wrong('group', thrown);
        await wait(again, this.#closing.signal);
      }
      this.#membership = undefined;
    }
  }

  #isClosing(): boolean {
    return this.#closing.signal.aborted;
  }

  #readings(partitions: readonly TopicPartition[]): Reading[] {
    return partitions.flatMap(of => this.#own.get(nameOf(of)) ?? []);
  }

  /** Others who are joining are no trouble. */
  #wrong(about: string, thrown: unknown): void {
    if (thrown instanceof Refused && thrown.broker === code.REBALANCE_IN_PROGRESS) return;
    const error = toError(thrown);
    this.#troubles.raise(
      about,
      error instanceof MillraceError ? error : new MillraceError('MR_KAFKA', error.message, { cause: error }),
    );
  }

  // ------------------------------------------------------------------------------------------------------ membership

  /** Names of topics that are there, as a group is told. What is missing is trouble. */
  async #topics(): Promise<string[]> {
    const { topics } = this.#options;
    if (topics instanceof RegExp) {
      const expression = new RegExp(topics.source, topics.flags.replace(/[gy]/g, ''));
      return (await this.#cluster.refresh(null)).filter(topic => expression.test(topic)).sort();
    }
    await this.#cluster.refresh(topics);
    const there = topics.filter(topic => this.#cluster.topic(topic).code === 0);
    const missing = topics.find(topic => !there.includes(topic));
    if (missing === undefined) this.#troubles.over('topics');
    else this.#wrong('topics', this.#cluster.refused(this.#cluster.topic(missing).code, `topic ${missing}`));
    return there.sort();
  }

  async #join(): Promise<[Membership, readonly TopicPartition[]]> {
    const { groupId, sessionTimeout, rebalanceTimeout } = this.#options;
    const { joinGroupV9, syncGroupV5 } = this.#cluster.wire;
    let topics = await this.#topics();
    while (topics.length === 0 && !this.#isClosing()) {
      await wait(this.#topicAge(true), this.#closing.signal);
      topics = await this.#topics();
    }
    const what = `joining group ${groupId}`;
    const coordinator = await this.#cluster.coordinator(groupId);
    const ask = () =>
      this.#joins.ask(
        coordinator,
        what,
        joinGroupV9.api,
        groupId,
        sessionTimeout,
        rebalanceTimeout,
        this.#id,
        null,
        'consumer',
        [{ name: protocol, metadata: encodeTopics(topics) }],
      );
    let joined = await ask();
    if (joined.errorCode === code.MEMBER_ID_REQUIRED) {
      this.#id = joined.memberId ?? '';
      joined = await ask();
    }
    this.#checkJoined(joined.errorCode, what);
    this.#id = joined.memberId ?? '';
    const isLeader = joined.leader === this.#id;
    const members = joined.members.map(({ memberId: id, metadata }) => ({ id, topics: decodeTopics(metadata) }));
    const { errorCode, assignment } = await this.#joins.ask(
      coordinator,
      what,
      syncGroupV5.api,
      groupId,
      joined.generationId,
      this.#id,
      null,
      'consumer',
      protocol,
      isLeader ? await this.#shareOut(members) : [],
    );
    this.#checkJoined(errorCode, what);
    this.#troubles.over('group');
    const membership = {
      generation: joined.generationId,
      coordinator,
      known: this.#known(topics),
      isLeader,
      over: new AbortController(),
      gone: new AbortController(),
    };
    return [membership, decodePartitions(assignment)];
  }

  #checkJoined(errorCode: number, what: string): void {
    if (errorCode === code.UNKNOWN_MEMBER_ID) this.#id = '';
    if (errorCode !== 0) throw this.#cluster.refused(errorCode, what);
  }

  /** As the leader of the group: who gets what. */
  async #shareOut(members: readonly { readonly id: string; readonly topics: readonly string[] }[]) {
    const topics = [...new Set(members.flatMap(member => member.topics))];
    await this.#cluster.refresh(topics);
    const counts = new Map(topics.map(topic => [topic, this.#cluster.topic(topic).leaders.length]));
    const given = assignors[protocol]?.(members, counts) ?? new Map<string, TopicPartition[]>();
    return [...given].map(([memberId, of]) => ({ memberId, assignment: encodePartitions(of) }));
  }

  #known(topics: readonly string[]): string {
    return topics.map(topic => `${topic}:${this.#cluster.topic(topic).leaders.length}`).join();
  }

  async #beat(membership: Membership): Promise<void> {
    const { groupId, heartbeatInterval, sessionTimeout } = this.#options;
    const { heartbeatV4 } = this.#cluster.wire;
    const { generation, gone } = membership;
    let heard = Date.now();
    let pause = heartbeatInterval;
    // Until the partitions are given up, also while that takes its time.
    for (;;) {
      await wait(pause, gone.signal);
      if (gone.signal.aborted) return;
      try {
        const what = `heartbeat of group ${groupId}`;
        const answer = await this.#cluster.ask(
          membership.coordinator,
          what,
          heartbeatV4.api,
          groupId,
          generation,
          this.#id,
          null,
        );
        if (isAborted(gone.signal)) return;
        if (answer.errorCode !== 0) {
          this.#judge(membership, answer.errorCode);
          throw this.#cluster.refused(answer.errorCode, what);
        }
        heard = Date.now();
        pause = heartbeatInterval;
        this.#troubles.over('coordinator');
      } catch (thrown) {
        if (isAborted(gone.signal)) return;
        this.#wrong('coordinator', thrown);
        if (heard + sessionTimeout < Date.now()) this.#end(membership, 'lost');
        else await this.#findCoordinator(membership, thrown);
        pause = Math.min(again, heartbeatInterval);
      }
    }
  }

  /** It may have moved: what fails the next time is told then. */
  async #findCoordinator(membership: Membership, after: unknown): Promise<void> {
    if (after instanceof Refused && !elsewhere.has(after.broker)) return;
    membership.coordinator = await this.#cluster.coordinator(this.#options.groupId).catch(() => membership.coordinator);
  }

  /** What a refusal says of the membership. */
  #judge(membership: Membership, errorCode: number): void {
    if (errorCode === code.UNKNOWN_MEMBER_ID) this.#id = '';
    if (errorCode === code.REBALANCE_IN_PROGRESS) this.#end(membership, 'rebalance');
    if (errorCode === code.UNKNOWN_MEMBER_ID || errorCode === code.ILLEGAL_GENERATION) this.#end(membership, 'lost');
  }

  #end(membership: Membership, why: 'rebalance' | 'lost'): void {
    membership.why ??= why;
    this.#troubles.over('coordinator');
    membership.over.abort();
  }

  #topicAge(missing: boolean): number {
    const { heartbeatInterval, metadataMaxAge } = this.#options;
    return missing ? Math.min(heartbeatInterval, metadataMaxAge) : metadataMaxAge;
  }

  /** Looks for topics and partitions that have come or gone. */
  async #watch(membership: Membership): Promise<void> {
    const { signal } = membership.over;
    const wanted = this.#options.topics;
    while (!isAborted(signal)) {
      const missing =
        !(wanted instanceof RegExp) && wanted.some(topic => this.#cluster.topic(topic).leaders.length === 0);
      await wait(this.#topicAge(missing), signal);
      if (isAborted(signal)) return;
      try {
        const topics = await this.#topics();
        if (isAborted(signal)) return;
        const names = (known: string) => known.replace(/:\d+/g, '');
        const now = this.#known(topics);
        // New partitions are for the leader to share out.
        if (names(now) !== names(membership.known) || (membership.isLeader && now !== membership.known))
          this.#end(membership, 'rebalance');
        this.#troubles.over('looking');
      } catch (thrown) {
        if (!isAborted(signal)) this.#wrong('looking', thrown);
      }
    }
  }

  async #giveUp(lost: boolean): Promise<void> {
    const partitions = [...this.#own.values()].map(({ topic, partition }) => ({ topic, partition }));
    this.#quiet = true;
    for (const of of partitions) this.#troubles.over(nameOf(of));
    for (const leader of this.#failing) this.#answers(leader);
    if (lost) this.#own.clear();
    if (partitions.length > 0) {
      const told = Promise.resolve(this.#listener.revoked(partitions, lost)).catch(() => undefined);
      const late = new AbortController();
      const most = this.#isClosing() ? lastCommits : this.#options.rebalanceTimeout;
      await Promise.race([told, wait(most, late.signal)]);
      late.abort();
    }
    this.#own.clear();
    this.#membership = undefined;
    this.#quiet = false;
  }

  async #leave(): Promise<void> {
    const { groupId } = this.#options;
    const { leaveGroupV5 } = this.#cluster.wire;
    if (this.#id === '') return;
    const leaving = async () => {
      const coordinator = await this.#cluster.coordinator(groupId);
      await this.#cluster.ask(coordinator, 'leaving', leaveGroupV5.api, groupId, [{ memberId: this.#id }]);
    };
    const late = new AbortController();
    await Promise.race([leaving().catch(() => undefined), wait(lastCommits, late.signal)]);
    late.abort();
  }

  // --------------------------------------------------------------------------------------------------------- reading

  /** Asks where the group is, tells of the partitions, and begins to read them. */
  async #begin(membership: Membership, partitions: readonly TopicPartition[]): Promise<void> {
    const { signal } = membership.over;
    while (partitions.length > 0 && !isAborted(signal)) {
      try {
        const assigned = await this.#assigned(membership, partitions);
        if (isAborted(signal)) return;
        this.#troubles.over('beginning');
        const offsets = this.#listener.assigned(assigned);
        assigned.forEach(({ topic, partition }, i) => {
          const reading = { topic, partition, offset: offsets[i] as number, paused: false, seeks: 0 };
          this.#own.set(nameOf(reading), reading);
        });
        return this.#read();
      } catch (thrown) {
        if (isAborted(signal)) return;
        this.#wrong('beginning', thrown);
        await wait(again, signal);
      }
    }
  }

  async #assigned({ coordinator }: Membership, partitions: readonly TopicPartition[]): Promise<Assigned[]> {
    const { groupId } = this.#options;
    const { offsetFetchV8 } = this.#cluster.wire;
    const topics = [...byTopic(partitions)].map(([name, of]) => ({
      name,
      partitionIndexes: of.map(({ partition }) => partition),
    }));
    const what = `asking where group ${groupId} is`;
    const [answer] = (
      await this.#cluster.ask(coordinator, what, offsetFetchV8.api, [{ groupId, memberEpoch: -1, topics }], true)
    ).groups;
    const committed = new Map<string, number>();
    for (const { name: topic, partitions: of } of answer?.topics ?? [])
      for (const { partitionIndex: partition, committedOffset, errorCode } of of) {
        if (errorCode !== 0) throw this.#cluster.refused(errorCode, what);
        if (committedOffset >= 0n) committed.set(nameOf({ topic, partition }), Number(committedOffset));
      }
    if (answer === undefined || answer.errorCode !== 0) throw this.#cluster.refused(answer?.errorCode ?? -1, what);
    const bounds = await this.#cluster.bounds(partitions);
    return bounds.map(of => ({ ...of, committed: committed.get(nameOf(of)) }));
  }

  /** Not from inside of who calls: it may be in the middle of being told. */
  #readSoon(): void {
    queueMicrotask(() => this.#read());
  }

  /** Asks every broker that leads something of ours, one question at a time each. */
  #read(): void {
    const nobody = -1;
    const leaders = new Set(
      this.#active().map(({ topic, partition }) => this.#cluster.topic(topic).leaders[partition] ?? nobody),
    );
    // Who leads nothing any more need not answer.
    if (!leaders.has(nobody)) for (const id of this.#failing) if (!leaders.has(id)) this.#answers(id);
    for (const leader of leaders) {
      if (this.#asked.has(leader)) continue;
      this.#asked.add(leader);
      const asking = leader === nobody ? this.#findLeaders() : this.#ask(leader);
      void asking.then(() => {
        this.#asked.delete(leader);
        this.#read();
      });
    }
  }

  #answers(leader: number): void {
    this.#failing.delete(leader);
    this.#troubles.over(`broker ${leader}`);
  }

  #active(): Reading[] {
    return this.#quiet || this.#isClosing() ? [] : [...this.#own.values()].filter(({ paused }) => !paused);
  }

  async #findLeaders(): Promise<void> {
    for (const of of this.#active()) {
      try {
        await this.#cluster.leader(of);
        this.#troubles.over(nameOf(of));
      } catch (thrown) {
        if (this.#isClosing()) return;
        if (this.#own.has(nameOf(of))) this.#wrong(nameOf(of), thrown);
        await wait(again, this.#closing.signal);
      }
    }
  }

  async #ask(leader: number): Promise<void> {
    const { maxBytes, maxBytesPerPartition, minBytes, maxWait, readCommitted } = this.#options;
    const { fetchV12 } = this.#cluster.wire;
    const led = this.#active().filter(of => this.#cluster.topic(of.topic).leaders[of.partition] === leader);
    const asked = new Map(led.map(of => [nameOf(of), { of, seeks: of.seeks, offset: of.offset }]));
    const topics = [...byTopic(led)].map(([topicId, of]) => ({
      topicId,
      partitions: of.map(({ partition, offset }) => ({
        partition,
        currentLeaderEpoch: -1,
        fetchOffset: BigInt(offset),
        lastFetchedEpoch: -1,
        partitionMaxBytes: maxBytesPerPartition,
      })),
    }));
    // Who was served is at the end the next time.
    for (const of of led) if (this.#own.delete(nameOf(of))) this.#own.set(nameOf(of), of);
    const isolation = readCommitted ? 1 : 0;
    const address = this.#cluster.node(leader);
    try {
      if (address === undefined) throw new MillraceError('MR_KAFKA_UNREACHABLE', `Kafka: no broker ${leader}.`);
      const what = 'fetching';
      const answer = await this.#fetches.ask(
        address,
        what,
        fetchV12.api,
        maxWait,
        minBytes,
        maxBytes,
        isolation,
        0,
        -1,
        topics,
        [],
        '',
      );
      if (answer.errorCode !== 0) throw this.#cluster.refused(answer.errorCode, what);
      this.#answers(leader);
      for (const { topicId: topic, partitions } of answer.responses)
        for (const { partitionIndex: partition, errorCode, records = [], abortedTransactions } of partitions) {
          const name = nameOf({ topic, partition });
          const question = asked.get(name);
          /** Nobody has moved it while the answer was on its way. */
          const stands = () =>
            question !== undefined &&
            !this.#quiet &&
            !this.#isClosing() &&
            this.#own.get(name) === question.of &&
            question.of.seeks === question.seeks;
          if (question === undefined || !stands()) continue;
          if (errorCode === code.OFFSET_OUT_OF_RANGE) {
            const [bounds] = await this.#cluster.bounds([{ topic, partition }]);
            if (bounds === undefined || !stands()) continue;
            question.of.offset = this.#listener.outOfRange({ ...bounds, committed: undefined }, question.offset);
            continue;
          }
          if (errorCode !== 0) {
            this.#cluster.forget(topic);
            this.#wrong(name, this.#cluster.refused(errorCode, `reading topic ${topic}, partition ${partition}`));
            await wait(again / 5, this.#closing.signal);
            continue;
          }
          this.#troubles.over(name);
          const read = readable(records, abortedTransactions, question.offset);
          question.of.offset = read.next;
          if (read.records.length > 0) this.#listener.records({ topic, partition }, read.records);
        }
    } catch (thrown) {
      if (this.#isClosing()) return;
      if (led.some(of => this.#own.has(nameOf(of)))) {
        this.#failing.add(leader);
        this.#wrong(`broker ${leader}`, thrown);
      }
      for (const { topic } of led) this.#cluster.forget(topic);
      await wait(again, this.#closing.signal);
    }
  }
}

/** Records from an offset on, without markers of transactions and what was aborted, and where to go on. */
const readable = (
  batches: readonly RecordsBatch[],
  aborted: readonly { readonly producerId: bigint; readonly firstOffset: bigint }[],
  from: number,
): { readonly records: ReadRecord[]; readonly next: number } => {
  const records: ReadRecord[] = [];
  const waiting = [...aborted].sort((a, b) => (a.firstOffset < b.firstOffset ? -1 : 1));
  const aborting = new Set<bigint>();
  let next = from;
  for (const batch of batches) {
    const { attributes, producerId, firstTimestamp, maxTimestamp } = batch;
    const first = Number(batch.firstOffset);
    const last = first + batch.lastOffsetDelta;
    next = Math.max(next, last + 1);
    for (let one = waiting[0]; one !== undefined && Number(one.firstOffset) <= last; one = waiting[0]) {
      aborting.add(one.producerId);
      waiting.shift();
    }
    if ((attributes & isControl) !== 0) {
      aborting.delete(producerId);
      continue;
    }
    if ((attributes & isTransactional) !== 0 && aborting.has(producerId)) continue;
    const begun = Number(firstTimestamp);
    for (const { offsetDelta, timestampDelta, key, value, headers } of batch.records) {
      const offset = first + offsetDelta;
      if (offset < from) continue;
      const timestamp = (attributes & isAppendTime) !== 0 ? Number(maxTimestamp) : begun + Number(timestampDelta);
      records.push({ offset, timestamp, key, value, headers: headers.length === 0 ? undefined : named(headers) });
    }
  }
  return { records, next };
};

const nothing = Buffer.alloc(0);

const named = (headers: readonly (readonly [Buffer | null, Buffer | null])[]): RecordHeaders => {
  const all = new Map<string, Buffer[]>();
  for (const [key, value] of headers) {
    const name = key?.toString() ?? '';
    all.set(name, [...(all.get(name) ?? []), value ?? nothing]);
  }
  return Object.fromEntries(
    [...all].map(([name, values]) => [name, values.length === 1 ? (values[0] as Buffer) : values]),
  );
};

// What members tell each other by way of the broker: ConsumerProtocolSubscription and ConsumerProtocolAssignment, version 0,
// https://github.com/apache/kafka/tree/trunk/clients/src/main/resources/common/message

const int16 = (value: number) => {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
};
const int32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const string = (value: string) => [int16(Buffer.byteLength(value)), Buffer.from(value)];
const noUserData = int32(-1);

const encodeTopics = (topics: readonly string[]): Buffer =>
  Buffer.concat([int16(0), int32(topics.length), ...topics.flatMap(string), noUserData]);

const encodePartitions = (partitions: readonly TopicPartition[]): Buffer => {
  const topics = [...byTopic(partitions)];
  const each = topics.flatMap(([topic, of]) => [
    ...string(topic),
    int32(of.length),
    ...of.map(({ partition }) => int32(partition)),
  ]);
  return Buffer.concat([int16(0), int32(topics.length), ...each, noUserData]);
};

/** Reads what the two have in common: names, each with something behind it. */
const decoded = <T>(bytes: Buffer | null, each: (topic: string, int32: () => number) => T): T[] => {
  if (bytes === null || bytes.length === 0) return [];
  let at = 2;
  const next = () => bytes.readInt32BE((at += 4) - 4);
  return Array.from({ length: next() }, () => {
    const length = bytes.readInt16BE(at);
    const name = bytes.toString('utf8', at + 2, (at += 2 + length));
    return each(name, next);
  });
};

const decodeTopics = (metadata: Buffer | null): string[] => decoded(metadata, topic => topic);

const decodePartitions = (assignment: Buffer): TopicPartition[] =>
  decoded(assignment, (topic, next) => Array.from({ length: next() }, () => ({ topic, partition: next() }))).flat();
