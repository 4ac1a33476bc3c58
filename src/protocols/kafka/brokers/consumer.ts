/**
 * A member of a consumer group, by the classic protocol that all brokers from 2.4 to 4.x speak. Before it joins again it gives up
 * all partitions, so that what is committed in `revoked` is what the next owner begins with. Heartbeats have a timer of their own:
 * neither a pause nor a slow sink ends the membership. When nothing was heard of the coordinator for a session timeout, the
 * partitions count as lost.
 *
 * @module
 */
import { setMaxListeners } from 'node:events';
import { MillraceError } from '../../../core/errors.ts';
import type {
  Assigned,
  ConsumerListener,
  ConsumerOptions,
  KafkaConsumer,
  Position,
  ReadRecord,
  TopicPartition,
} from '../client.ts';
import { assignors, type Counts } from '../assignors.ts';
import { nameOf } from '../partitions.ts';
import { wait, waitAfter } from '../waiting.ts';
import { code, elsewhere, kafkaError, Refused } from '../refused.ts';
import { Troubles } from '../troubles.ts';
import { inTime, type Cluster, type Node } from './cluster.ts';
import { Coordinator, type Patience } from './coordinator.ts';
import { decodeAssignment, decodeSubscription, encodeAssignment, encodeSubscription } from './membership.ts';
import { decodeRecords } from './records.ts';
import * as requests from './requests.ts';

/** The longest wait before something that failed is tried again, in ms. */
const longestWait = 2000;
/** How often topics that are not there are asked for, in ms. */
const missingTopicAge = 1000;
/** While partitions are paused, the others must not keep a resumed one waiting for long; in ms. */
const waitBesidePaused = 50;
/** How long `close` waits for what is committed last, and then for the broker to hear of it; in ms. */
const lastCommitTimeout = 5000;
const leaveTimeout = 2000;

interface Partition extends TopicPartition {
  /** What is told of it. */
  readonly at: TopicPartition;
  readonly committed: number | undefined;
  next: number;
  /** Goes up with every seek: what was asked for before is not told. */
  epoch: number;
  paused: boolean;
  /** Is asked for now, or waits to be asked for again. */
  fetching: boolean;
  failures: number;
  /** Came while it was paused. */
  held: readonly ReadRecord[] | undefined;
}

/** One membership, from a join to the next. */
interface Membership extends requests.Member {
  /** Topics that were subscribed, and how many partitions they had. */
  readonly counts: Counts;
  /** When the coordinator was heard of last. */
  heard: number;
  /** True from when the partitions have to be given up. */
  over: boolean;
  readonly end: (why: 'rebalance' | 'lost') => void;
  readonly ended: Promise<'rebalance' | 'lost'>;
}

type Options = { readonly [Name in keyof ConsumerOptions]-?: NonNullable<ConsumerOptions[Name]> };

const withDefaults = (given: ConsumerOptions): Options => ({
  groupId: given.groupId,
  topics: given.topics,
  sessionTimeout: given.sessionTimeout ?? 30_000,
  heartbeatInterval: given.heartbeatInterval ?? 3000,
  rebalanceTimeout: given.rebalanceTimeout ?? 60_000,
  maxBytesPerPartition: given.maxBytesPerPartition ?? 1024 * 1024,
  maxBytes: given.maxBytes ?? 10 * 1024 * 1024,
  minBytes: given.minBytes ?? 1,
  maxWait: given.maxWait ?? 500,
  metadataMaxAge: given.metadataMaxAge ?? 300_000,
  readCommitted: given.readCommitted ?? true,
});

/** Part of how groups and coordinators come and go: no trouble before it has failed so often. */
const passing: ReadonlySet<number> = new Set([...elsewhere, code.REBALANCE_IN_PROGRESS, code.UNKNOWN_MEMBER_ID]);
const patience = 5;
/** A coordinator that has just become one says for a while that it is none. */
const commitPatience: Patience = refusals => {
  if (refusals === 1) return 0;
  return refusals < patience ? waitAfter(refusals - 1, longestWait) : undefined;
};

export class Consumer implements KafkaConsumer {
  readonly #cluster: Cluster;
  readonly #listener: ConsumerListener;
  readonly #troubles: Troubles;
  readonly #options: Options;
  readonly #coordinator: Coordinator;
  readonly #closing = new AbortController();
  readonly #running: Promise<void>;
  #memberId = '';
  #joining: Node | undefined;
  #membership: Membership | undefined;
  /** Topics that were deleted while we had them. */
  readonly #gone = new Set<string>();
  /** Ours, the one that waited longest for records first. */
  readonly #owned = new Map<string, Partition>();
  /** Not ours any more, but what is committed still counts. */
  readonly #leaving = new Set<string>();
  /** Brokers that are asked for records now. */
  readonly #asked = new Set<number>();
  #closed: Promise<void> | undefined;

  constructor(cluster: Cluster, options: ConsumerOptions, listener: ConsumerListener) {
    this.#cluster = cluster;
    this.#listener = listener;
    this.#troubles = new Troubles(listener);
    this.#options = withDefaults(options);
    this.#coordinator = new Coordinator(cluster, options.groupId);
    setMaxListeners(0, this.#closing.signal);
    this.#running = this.#run();
  }

  pause(partitions: readonly TopicPartition[]): void {
    for (const { topic, partition } of partitions) {
      const of = this.#owned.get(nameOf({ topic, partition }));
      if (of !== undefined) of.paused = true;
    }
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const { topic, partition } of partitions) {
      const of = this.#owned.get(nameOf({ topic, partition }));
      if (of !== undefined) of.paused = false;
    }
    // Not from inside of the caller, who may be in the middle of `records`.
    queueMicrotask(() => this.#goOn());
  }

  seek({ topic, partition, offset }: Position): void {
    const of = this.#owned.get(nameOf({ topic, partition }));
    if (of === undefined) return;
    moveTo(of, offset);
    queueMicrotask(() => this.#goOn());
  }

  async commit(positions: readonly Position[], metadata?: string): Promise<void> {
    if (positions.length === 0) return;
    const { groupId } = this.#options;
    for (const { topic, partition } of positions) {
      const key = nameOf({ topic, partition });
      if (!this.#owned.has(key) && !this.#leaving.has(key))
        throw new MillraceError(
          'MR_KAFKA',
          `Kafka group ${groupId}: topic ${topic}, partition ${partition} is not ours.`,
        );
    }
    const membership = this.#membership;
    if (membership === undefined) throw new MillraceError('MR_KAFKA', `Kafka group ${groupId}: not a member now.`);
    const request = requests.offsetCommit(membership, positions, metadata);
    await this.#coordinator.ask(request, `committing for group ${groupId}`, commitPatience);
  }

  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#closing.abort();
    this.#membership?.end('rebalance');
    await this.#running;
    this.#troubles.silent = true;
    await this.#leave();
    this.#cluster.close();
  }

  /** So that the others need not wait for the session timeout. */
  async #leave(): Promise<void> {
    if (this.#memberId === '') return;
    const late = new AbortController();
    const { groupId } = this.#options;
    const leaving = async () => {
      // A broker works off the requests of a connection in turn, and a join may take long.
      this.#joining?.drop();
      const coordinator = await this.#coordinator.find();
      await coordinator.ask(requests.leaveGroup(groupId, this.#memberId));
    };
    await Promise.race([leaving().catch(() => undefined), wait(leaveTimeout, late.signal)]);
    late.abort();
  }

  /** Rejects when this closes. */
  #orClosing<T>(promise: Promise<T>): Promise<T> {
    const { signal } = this.#closing;
    return new Promise((resolve, reject) => {
      const close = () => reject(new MillraceError('MR_KAFKA', 'Kafka: the consumer was closed.'));
      if (signal.aborted) close();
      signal.addEventListener('abort', close, { once: true });
      promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', close));
    });
  }

  #isClosing(): boolean {
    return this.#closing.signal.aborted;
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#isClosing()) {
      try {
        const [membership, partitions] = await this.#orClosing(this.#join());
        failures = 0;
        await this.#stay(membership, partitions);
      } catch (thrown) {
        if (this.#isClosing()) break;
        failures++;
        const error = kafkaError(thrown, `joining group ${this.#options.groupId}`);
        if (failures > patience || !(error instanceof Refused) || !passing.has(error.broker))
          this.#troubles.raise('group', error);
        await wait(waitAfter(failures, longestWait), this.#closing.signal);
      }
    }
  }

  // ----------------------------------------------------------------------------------------------------- membership

  async #join(): Promise<[Membership, readonly TopicPartition[]]> {
    const { groupId, sessionTimeout, rebalanceTimeout } = this.#options;
    const topics = await this.#lookUpTopics();
    const coordinator = await this.#coordinator.find();
    this.#joining = coordinator;
    const where = `broker ${coordinator.address}, joining group ${groupId}`;
    const fields = {
      groupId,
      sessionTimeout,
      rebalanceTimeout,
      protocols: Object.keys(assignors),
      subscription: encodeSubscription(topics),
    };
    const ask = () => coordinator.ask(requests.joinGroup({ ...fields, memberId: this.#memberId }));
    let joined = await ask();
    if (joined.errorCode === code.UNKNOWN_MEMBER_ID) {
      this.#memberId = '';
      joined = await ask();
    }
    if (joined.errorCode === code.MEMBER_ID_REQUIRED) {
      this.#memberId = joined.memberId;
      joined = await ask();
    }
    this.#checkJoined(joined.errorCode, where);
    const { generation, memberId } = joined;
    this.#memberId = memberId;

    const assignments = joined.leader === memberId ? await this.#shareOut(joined) : [];
    const member = { groupId, generation, memberId };
    const { errorCode, assignment } = await coordinator.ask(requests.syncGroup(member, assignments));
    this.#checkJoined(errorCode, where);
    this.#joining = undefined;
    let tell: (why: 'rebalance' | 'lost') => void = () => undefined;
    const ended = new Promise<'rebalance' | 'lost'>(resolve => (tell = resolve));
    const membership: Membership = {
      ...member,
      counts: new Map(topics.map(topic => [topic, this.#cluster.topic(topic).partitions])),
      heard: Date.now(),
      over: false,
      ended,
      end: why => {
        membership.over = true;
        tell(why);
      },
    };
    return [membership, decodeAssignment(assignment)];
  }

  #checkJoined(errorCode: number, doing: string): void {
    if (errorCode === 0) return;
    if (errorCode === code.UNKNOWN_MEMBER_ID) this.#memberId = '';
    if (errorCode === code.INCONSISTENT_GROUP_PROTOCOL)
      throw new MillraceError(
        'MR_KAFKA',
        `Kafka, ${doing}: the group is used by clients that share out partitions in other ways or are no consumers. ` +
          `Use another group id, or let them know one of ${Object.keys(assignors).join(', ')}.`,
      );
    throw this.#cluster.refused(errorCode, doing);
  }

  /** As the leader of the group: who gets what. */
  async #shareOut({ members, protocol }: requests.Joined) {
    const all = members.map(({ id, subscription }) => ({ id, topics: decodeSubscription(subscription) }));
    const topics = [...new Set(all.flatMap(member => member.topics))];
    await this.#cluster.refresh(topics);
    const counts = new Map(topics.map(topic => [topic, this.#cluster.topic(topic).partitions]));
    const assignor = assignors[protocol];
    if (assignor === undefined)
      throw this.#cluster.refused(code.INCONSISTENT_GROUP_PROTOCOL, `sharing out by ${protocol}`);
    return [...assignor(all, counts)].map(([memberId, of]) => ({ memberId, assignment: encodeAssignment(of) }));
  }

  /** Until the partitions have to be given up, and then gives them up. */
  async #stay(membership: Membership, partitions: readonly TopicPartition[]): Promise<void> {
    this.#membership = membership;
    if (this.#isClosing()) membership.end('rebalance');
    const over = new AbortController();
    // Nobody waits for these: a broker may keep them waiting for long. They see for themselves that it is over.
    void this.#beat(membership, over.signal);
    void this.#watchTopics(membership, over.signal);
    void this.#begin(membership, partitions, over.signal);
    try {
      const why = await membership.ended;
      await this.#giveUp(why === 'lost');
      // The coordinator hears of it from others, and in its own time.
      if (this.#gone.size > 0) await wait(missingTopicAge, this.#closing.signal);
      this.#gone.clear();
    } finally {
      over.abort();
      this.#membership = undefined;
    }
  }

  async #giveUp(lost: boolean): Promise<void> {
    const all = [...this.#owned.values()];
    const gone = all.filter(({ topic }) => this.#gone.has(topic));
    const partitions = all.filter(({ topic }) => !this.#gone.has(topic));
    for (const { topic, partition } of all) this.#troubles.over(nameOf({ topic, partition }));
    this.#owned.clear();
    if (gone.length > 0)
      void this.#listener.revoked(
        gone.map(({ at }) => at),
        true,
      );
    for (const { topic, partition } of partitions) if (!lost) this.#leaving.add(nameOf({ topic, partition }));
    if (partitions.length > 0) {
      // Later than that the group goes on without us.
      const late = new AbortController();
      const told = async () =>
        this.#listener.revoked(
          partitions.map(({ at }) => at),
          lost,
        );
      const committed = told().catch(() => undefined);
      const most = this.#isClosing() ? lastCommitTimeout : this.#options.rebalanceTimeout / 2;
      await Promise.race([committed, wait(most, late.signal)]);
      late.abort();
    }
    this.#leaving.clear();
  }

  async #beat(membership: Membership, over: AbortSignal): Promise<void> {
    const { groupId, heartbeatInterval, sessionTimeout } = this.#options;
    while (!isOver(over)) {
      await wait(heartbeatInterval, over);
      if (isOver(over)) return;
      try {
        const { errorCode } = await inTime(
          this.#coordinator.node().then(node => node.ask(requests.heartbeat(membership))),
          membership.heard + sessionTimeout - Date.now(),
          `broker ${this.#coordinator.address}, heartbeat of group ${groupId}`,
        );
        if (isOver(over)) return;
        if (errorCode === 0 || errorCode === code.REBALANCE_IN_PROGRESS) {
          membership.heard = Date.now();
          this.#troubles.over('group');
          if (errorCode !== 0) membership.end('rebalance');
        } else if (elsewhere.has(errorCode)) {
          throw this.#cluster.refused(errorCode, `heartbeat of group ${groupId}`);
        } else {
          // Somebody else may have our partitions already.
          if (errorCode === code.UNKNOWN_MEMBER_ID) this.#memberId = '';
          membership.end('lost');
        }
      } catch (thrown) {
        if (isOver(over)) return;
        if (membership.heard + sessionTimeout <= Date.now()) {
          this.#coordinator.drop();
          this.#troubles.raise(
            'group',
            new MillraceError(
              'MR_KAFKA_UNREACHABLE',
              `Kafka group ${groupId}: the coordinator ${this.#coordinator.address} was not heard of for ${sessionTimeout} ms.`,
              { cause: thrown },
            ),
          );
          membership.end('lost');
          return;
        }
        this.#troubles.raise('group', kafkaError(thrown, `broker ${this.#coordinator.address}, heartbeat`));
        await inTime(
          this.#coordinator.find(),
          membership.heard + sessionTimeout - Date.now(),
          `looking for the coordinator of group ${groupId}`,
        ).catch(() => undefined);
      }
    }
  }

  // --------------------------------------------------------------------------------------------------------- topics

  /** The topics to subscribe to, whether they are there or not. */
  async #lookUpTopics(): Promise<readonly string[]> {
    const { topics } = this.#options;
    if (topics instanceof RegExp) {
      const all = await this.#cluster.refresh(undefined);
      for (const topic of this.#membership?.counts.keys() ?? []) if (!all.includes(topic)) this.#isGone(topic);
      return all.filter(name => new RegExp(topics.source, topics.flags.replace(/[gy]/g, '')).test(name)).sort();
    }
    await this.#cluster.refresh(topics);
    const missing = topics.filter(topic => this.#cluster.topic(topic).code !== 0);
    for (const topic of missing)
      if (this.#cluster.topic(topic).code === code.UNKNOWN_TOPIC_OR_PARTITION) this.#isGone(topic);
    const [first] = missing;
    if (first === undefined) this.#troubles.over('topics');
    else {
      const { code: refusal } = this.#cluster.topic(first);
      this.#troubles.raise('topics', this.#cluster.refused(refusal, `looking for topic ${missing.join(', ')}`));
    }
    return topics;
  }

  /**
   * It was deleted. Should there be one of that name again, nothing of what was read before says where to begin with it; and the
   * coordinator forgets what was committed. So nothing more is committed of it, and the group is joined again.
   */
  #isGone(topic: string): void {
    const membership = this.#membership;
    if ((membership?.counts.get(topic) ?? 0) === 0 || this.#gone.has(topic)) return;
    this.#gone.add(topic);
    membership?.end('rebalance');
  }

  /** Joins again when topics or partitions have come or gone. */
  async #watchTopics(membership: Membership, over: AbortSignal): Promise<void> {
    const { metadataMaxAge, topics } = this.#options;
    while (!isOver(over)) {
      const missing = !(topics instanceof RegExp) && topics.some(topic => this.#cluster.topic(topic).code !== 0);
      await wait(missing ? Math.min(missingTopicAge, metadataMaxAge) : metadataMaxAge, over);
      if (isOver(over)) return;
      const now = await this.#lookUpTopics().catch(() => undefined);
      if (now === undefined) continue;
      const { counts } = membership;
      if (now.length !== counts.size || now.some(topic => this.#cluster.topic(topic).partitions !== counts.get(topic)))
        membership.end('rebalance');
    }
  }

  // ------------------------------------------------------------------------------------------------------ positions

  /** Finds out where to begin with each partition, tries again with those that do not answer, and tells of them. */
  async #begin(membership: Membership, partitions: readonly TopicPartition[], over: AbortSignal): Promise<void> {
    let waiting = partitions;
    for (let failures = 1; waiting.length > 0 && !isOver(over); failures++) {
      try {
        const found = await this.#lookUp(waiting);
        if (membership.over) return;
        this.#troubles.over('group');
        if (found.length > 0) this.#own(found);
        const known = new Set(found.map(({ topic, partition }) => nameOf({ topic, partition })));
        waiting = waiting.filter(({ topic, partition }) => !known.has(nameOf({ topic, partition })));
        if (waiting.length === 0) break;
      } catch (thrown) {
        if (membership.over) return;
        this.#troubles.raise(
          'group',
          kafkaError(thrown, `broker ${this.#coordinator.address}, looking up where to begin`),
        );
      }
      await wait(waitAfter(failures, longestWait), over);
      if (!isOver(over)) await this.#lookUpTopics().catch(() => undefined);
    }
  }

  #own(found: readonly Assigned[]): void {
    const begins = this.#listener.assigned(found);
    for (const [index, { topic, partition, committed, first }] of found.entries()) {
      const key = nameOf({ topic, partition });
      this.#troubles.over(key);
      this.#owned.set(key, {
        topic,
        partition,
        at: { topic, partition },
        committed,
        next: begins[index] ?? committed ?? first,
        epoch: 0,
        paused: false,
        fetching: false,
        failures: 0,
        held: undefined,
      });
    }
    this.#goOn();
  }

  async #lookUp(partitions: readonly TopicPartition[]): Promise<readonly Assigned[]> {
    const { groupId } = this.#options;
    const request = requests.offsetFetch(groupId, partitions);
    const [committed, bounds] = await Promise.all([
      this.#coordinator.ask(request, `reading what group ${groupId} has committed`, () => undefined),
      this.#bounds(partitions),
    ]);
    const offsets = new Map(committed.partitions.map(of => [nameOf(of), of.offset]));
    return partitions.flatMap(({ topic, partition }) => {
      const key = nameOf({ topic, partition });
      const bound = bounds.get(key);
      const offset = offsets.get(key);
      if (bound === undefined || offset === undefined) return [];
      return [{ topic, partition, committed: offset < 0 ? undefined : offset, ...bound }];
    });
  }

  /** Where partitions begin and end. What cannot be said is trouble, and left out. */
  async #bounds(partitions: readonly TopicPartition[]): Promise<Map<string, { first: number; end: number }>> {
    const bounds = new Map<string, { first: number; end: number }>();
    const byLeader = new Map<number, TopicPartition[]>();
    for (const of of partitions) {
      const { topic, partition } = of;
      const leader = this.#cluster.leader(topic, partition);
      if (leader === undefined) this.#troubles.raise(nameOf({ topic, partition }), noLeader(of));
      else byLeader.set(leader, [...(byLeader.get(leader) ?? []), of]);
    }
    const { readCommitted } = this.#options;
    await Promise.all(
      [...byLeader].map(async ([leader, of]) => {
        try {
          const [firsts, ends] = await Promise.all([
            this.#cluster.list(leader, of, requests.earliest, readCommitted),
            this.#cluster.list(leader, of, requests.latest, readCommitted),
          ]);
          for (const { topic, partition } of of) {
            const key = nameOf({ topic, partition });
            const first = firsts.get(key);
            const end = ends.get(key);
            if (typeof first === 'number' && typeof end === 'number') bounds.set(key, { first, end });
            else
              this.#troubles.raise(
                key,
                [first, end].find(one => one instanceof Error) ?? noLeader({ topic, partition }),
              );
          }
        } catch (thrown) {
          for (const { topic, partition } of of)
            this.#troubles.raise(
              nameOf({ topic, partition }),
              kafkaError(thrown, `broker with id ${leader}, asked for offsets`),
            );
        }
      }),
    );
    return bounds;
  }

  // -------------------------------------------------------------------------------------------------------- records

  /** Hands over what was held, and asks every broker that is not asked already for whatever is wanted of it. */
  #goOn(): void {
    const membership = this.#membership;
    if (membership === undefined || membership.over) return;
    const wanted = new Map<number, Partition[]>();
    const besidePaused = new Set<number>();
    for (const of of [...this.#owned.values()]) {
      if (!of.paused && of.held !== undefined) {
        try {
          this.#hand(of, of.held);
        } catch (thrown) {
          void this.#retry(of, kafkaError(thrown, 'handing over'));
        }
      }
      if (of.fetching) continue;
      const leader = this.#cluster.leader(of.topic, of.partition);
      if (of.paused) besidePaused.add(leader ?? -1);
      else if (leader === undefined) void this.#retry(of, noLeader(of));
      else if (!this.#asked.has(leader)) {
        const others = wanted.get(leader);
        if (others === undefined) wanted.set(leader, [of]);
        else others.push(of);
      }
    }
    const { maxWait } = this.#options;
    for (const [leader, of] of wanted)
      void this.#fetch(leader, of, besidePaused.has(leader) ? Math.min(maxWait, waitBesidePaused) : maxWait);
  }

  #hand(of: Partition, records: readonly ReadRecord[]): void {
    of.held = undefined;
    try {
      this.#listener.records(of.at, records);
    } catch (thrown) {
      // They were not taken, so they come again.
      moveTo(of, records[0]?.offset ?? of.next);
      throw thrown;
    }
  }

  async #fetch(leader: number, partitions: readonly Partition[], maxWait: number): Promise<void> {
    const asked = new Map(partitions.map(of => [nameOf(of), { of, offset: of.next, epoch: of.epoch }]));
    for (const of of partitions) of.fetching = true;
    this.#asked.add(leader);
    const failed = new Map<Partition, MillraceError>();
    try {
      const node = await this.#cluster.node(leader);
      const answer = await node.ask(requests.fetch(partitions, { ...this.#options, maxWait }));
      if (answer.errorCode !== 0) throw this.#cluster.refused(answer.errorCode, `broker ${node.address}, fetching`);
      for (const fetched of answer.partitions) {
        const one = asked.get(nameOf(fetched));
        if (one === undefined || !this.#isWanted(one.of, one.epoch)) continue;
        try {
          await this.#take(one.of, one.epoch, one.offset, fetched, node.address);
        } catch (thrown) {
          const { topic, partition } = fetched;
          const what = `broker ${node.address}, records of topic ${topic}, partition ${partition}`;
          failed.set(one.of, kafkaError(thrown, what));
        }
      }
    } catch (thrown) {
      const error = kafkaError(thrown, `broker with id ${leader}, fetching`);
      for (const of of partitions) failed.set(of, error);
    }
    this.#asked.delete(leader);
    for (const of of partitions) {
      const error = failed.get(of);
      if (error === undefined) of.fetching = false;
      else void this.#retry(of, error);
    }
    this.#goOn();
  }

  /** True if what was asked for is still to be told. */
  #isWanted(of: Partition, epoch: number): boolean {
    return this.#owned.get(nameOf(of)) === of && of.epoch === epoch;
  }

  async #take(
    of: Partition,
    epoch: number,
    offset: number,
    answer: requests.FetchedPartition,
    address: string,
  ): Promise<void> {
    const { topic, partition } = of;
    if (answer.errorCode === code.OFFSET_OUT_OF_RANGE) return this.#outOfRange(of, epoch, offset);
    if (answer.errorCode === code.UNKNOWN_TOPIC_OR_PARTITION) this.#isGone(topic);
    if (answer.errorCode !== 0)
      throw this.#cluster.refused(
        answer.errorCode,
        `broker ${address}, reading topic ${topic}, partition ${partition}`,
      );
    const { records, next } = await decodeRecords(answer, offset);
    if (!this.#isWanted(of, epoch)) return;
    this.#worked(of);
    of.next = next;
    if (records.length === 0) return;
    // Whoever got something is the last to be asked next time.
    this.#owned.delete(nameOf({ topic, partition }));
    this.#owned.set(nameOf({ topic, partition }), of);
    if (of.paused) of.held = records;
    else this.#hand(of, records);
  }

  async #outOfRange(of: Partition, epoch: number, wanted: number): Promise<void> {
    const { topic, partition, committed } = of;
    const bounds = (await this.#bounds([of])).get(nameOf({ topic, partition }));
    if (!this.#isWanted(of, epoch)) return;
    // A new leader may not know all of it yet; then it is asked again.
    if (bounds === undefined || (wanted >= bounds.first && wanted <= bounds.end))
      throw this.#cluster.refused(code.OFFSET_OUT_OF_RANGE, `topic ${topic}, partition ${partition}, offset ${wanted}`);
    this.#worked(of);
    moveTo(of, this.#listener.outOfRange({ topic, partition, committed, ...bounds }, wanted));
  }

  #worked(of: Partition): void {
    of.failures = 0;
    this.#troubles.over(nameOf(of));
  }

  /** Later, and perhaps from another broker. */
  async #retry(of: Partition, error: MillraceError): Promise<void> {
    of.fetching = true;
    of.failures++;
    const isOurs = () => this.#owned.get(nameOf(of)) === of;
    // That a partition has moved is no trouble if it is found at once.
    if (of.failures > 1 && isOurs()) this.#troubles.raise(nameOf(of), error);
    await wait(waitAfter(of.failures, longestWait), this.#closing.signal);
    if (!isOurs()) return;
    await this.#lookUpTopics().catch(() => undefined);
    of.fetching = false;
    this.#goOn();
  }
}

/** TypeScript does not know that it changes while one waits. */
const isOver = (signal: AbortSignal): boolean => signal.aborted;

const moveTo = (of: Partition, offset: number): void => {
  of.next = offset;
  of.epoch++;
  of.held = undefined;
};

const noLeader = ({ topic, partition }: TopicPartition) =>
  new MillraceError('MR_KAFKA', `Kafka: topic ${topic}, partition ${partition} has no leader now.`);
