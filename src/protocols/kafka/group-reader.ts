/**
 * Reading as a member of a consumer group: what the source and the channel have in common.
 *
 * - Prefetch: each partition has a queue of records; a partition with more than its share is paused until half is gone.
 * - Turns: partitions with something to read take turns; what is taken is of one partition.
 * - Positions: the group's offset of a partition is moved up to the first record that is not settled, and no further. One
 *   commit is under way at a time.
 * - Fencing: each assignment of a partition is a {@link Partition} of its own. When it is revoked, what is out may still be
 *   settled for a moment, then that is committed, and whatever is settled later moves nothing.
 *
 * @module
 */
import { AckedInOrder, type Sent } from '../../core/acked-in-order.ts';
import { backoffDelay, type Timer } from '../../core/clock.ts';
import { Deque } from '../../core/deque.ts';
import type { ToldOfGaps } from '../../core/delivery.ts';
import { kindOf, MillraceError, toError } from '../../core/errors.ts';
import { event, headers, type FlumeEvent } from '../../core/event.ts';
import type { Context } from '../../core/scope.ts';
import { TransactedPartition, type TransactedRange } from './exactly-once.ts';
import type {
  Assigned,
  ConsumerListener,
  ConsumerOptions,
  KafkaClient,
  KafkaConsumer,
  KafkaTransactions,
  ReadRecord,
  TopicPartition,
} from './client.ts';
import { nameOf } from './partitions.ts';

export interface GroupReaderOptions {
  /** Where a group begins that never committed. `none`: nowhere, it fails. */
  readonly reset: 'earliest' | 'latest' | 'none';
  /** Where it goes on when what was to be read next is not there. */
  readonly onOutOfRange: 'earliest' | 'latest' | 'fail';
  /** What becomes of a record that cannot be understood. */
  readonly onPoison: 'stop' | 'skip' | 'pass';
  /** Records and bytes that wait to be taken, at most, besides one answer to a fetch. All partitions share them. */
  readonly prefetchRecords: number;
  readonly prefetchBytes: number;
  /** In ms. How often it is committed, at most. */
  readonly commitInterval: number;
  /** In ms. How long what is out of a partition may take to be settled when the partition is revoked. */
  readonly revokeTimeout: number;
  /** What is taken is written, to these brokers, in transactions that hold its offsets, see `Taken.range`. */
  readonly exactlyOnce?: readonly string[] | undefined;
}

export interface GroupReaderHooks {
  /** The event that a record is. What it throws says why it is none. */
  decode(record: ReadRecord, of: TopicPartition): FlumeEvent;
  /** There may be something to take. */
  ready(): void;
  /** What is `gone` and not settled is somebody else's. */
  withdraw(gone: (taken: Taken) => boolean): void;
  /** It cannot go on with a partition, and is not allowed to help itself. */
  failed(cause: Error): void;
  /** A record that cannot be understood is left out. */
  skipped(of: Partition): void;
  /** What is wrong now, whenever that has changed. */
  health(wrong: Error | undefined): void;
  /** A partition is ours, which ends here now. */
  assigned?(of: Partition, end: number): void;
  /** So many records wait to be taken, and the next one to arrive was `before` until now. */
  arrived?(of: Partition, records: number, before: number): void;
}

const counts = {
  /** Ms in commits, and commits that failed. */
  KafkaCommitTimer: 0,
  CommitFailCount: 0,
  /** Records that were not there any more when they were to be read, at most. */
  LostRecordCount: 0,
  PoisonRecordCount: 0,
};
const gauges = { AssignedPartitionCount: 0, PrefetchedRecordCount: 0, PrefetchedByteCount: 0, Unhealthy: 0 };
/** Bytes of what is taken at a time, about: it is less than was asked for if records are large. */
const deliveryBytes = 1024 * 1024;

export type GroupCounters = typeof counts & typeof gauges;

/** Adds what a reader counts. What was counted before goes on. */
export const withGroupCounters = <C extends object>(counters: C): C & GroupCounters =>
  Object.assign(counters, { ...counts, ...counters, ...gauges });

/** A record that could not be understood, as it is, and as an event that says where it was and what is wrong with it. */
const poisonous = ({ offset, timestamp, value }: ReadRecord, { topic, partition }: TopicPartition, cause: Error) =>
  event(
    value ?? Buffer.alloc(0),
    headers({
      topic,
      partition: String(partition),
      offset: String(offset),
      timestamp: String(timestamp),
      poison: cause.message,
    }),
  );

/** What a record costs besides its bytes, about. */
const recordOverhead = 100;

const bytesOf = ({ key, value, headers }: ReadRecord): number => {
  let bytes = recordOverhead + (key?.length ?? 0) + (value?.length ?? 0);
  for (const name in headers) bytes += name.length + (headers[name]?.length ?? 0);
  return bytes;
};

/** Between attempts to begin with a partition, in ms. */
const beginBackoff = { initial: 100, max: 5000 };

/** It changes while one waits. */
const isGone = ({ state }: Partition): boolean => state !== 'ours';

/** Of one partition, at most `events`. */
export interface Taken extends ToldOfGaps {
  readonly of: Partition;
  readonly events: readonly FlumeEvent[];
  readonly sent: Sent<number>;
  /** It is one record that could not be understood: why. */
  readonly poison: Error | undefined;
  /** With `exactlyOnce`. */
  readonly range: TransactedRange | undefined;
}

/** A partition, from one assignment until it is revoked. */
export class Partition implements TopicPartition {
  readonly topic: string;
  readonly partition: number;
  /** What is acked without a gap, and what of it the group knows. */
  readonly progress: AckedInOrder<number>;
  committed: number | undefined;
  /** The next record that is to arrive, and the next that is to be taken. */
  next: number;
  taken: number;
  /** With `exactlyOnce`. Until it has begun nothing is read. */
  transacted: TransactedPartition | undefined;
  begun = true;
  /** Taken and not settled. */
  out = 0;
  state: 'ours' | 'revoking' | 'gone' = 'ours';
  paused = false;
  /** Why nothing more is taken of it. */
  stuck: Error | undefined;
  /** It is in line. */
  ready = false;
  records = 0;
  bytes = 0;
  readonly #queue = new Deque<readonly ReadRecord[]>();
  /** Where in the first of them to go on. */
  #at = 0;

  constructor({ topic, partition }: TopicPartition, start: number, committed: number | undefined) {
    this.topic = topic;
    this.partition = partition;
    this.next = this.taken = start;
    this.committed = committed;
    this.progress = new AckedInOrder(start);
  }

  /** Records up to there are on their way. */
  send(end: number): Sent<number> {
    this.taken = end;
    return this.progress.send(end);
  }

  get first(): ReadRecord | undefined {
    return this.#queue.peek()?.[this.#at];
  }

  push(records: readonly ReadRecord[]): void {
    this.#queue.push(records);
    this.records += records.length;
    for (const record of records) this.bytes += bytesOf(record);
    this.next = (records.at(-1) as ReadRecord).offset + 1;
  }

  /** The first is taken. */
  shift(): void {
    const records = this.#queue.peek() as readonly ReadRecord[];
    this.records--;
    this.bytes -= bytesOf(records[this.#at] as ReadRecord);
    if (++this.#at < records.length) return;
    this.#queue.shift();
    this.#at = 0;
  }

  clear(): void {
    while (this.#queue.shift() !== undefined);
    this.#at = this.records = this.bytes = 0;
  }
}

export class GroupReader implements ConsumerListener {
  readonly #options: GroupReaderOptions;
  readonly #consumerOptions: ConsumerOptions;
  readonly #hooks: GroupReaderHooks;
  readonly #context: Context & { readonly name: string };
  readonly #counters: GroupCounters;
  readonly #partitions = new Map<string, Partition>();
  readonly #line = new Deque<Partition>();
  readonly #consumer: KafkaConsumer;
  readonly #transactions: KafkaTransactions | undefined;
  #timer: Timer;
  #committing: Promise<void> | undefined;
  #commitFails = false;
  /** Somebody waits for what is out. */
  #settled: (() => void) | undefined;
  #stopped = false;
  #closed = false;
  /** What the client says is wrong. */
  #trouble: Error | undefined;

  constructor(
    client: KafkaClient,
    consumer: ConsumerOptions,
    options: GroupReaderOptions,
    hooks: GroupReaderHooks,
    context: Context & { readonly name: string },
    counters: GroupCounters,
  ) {
    this.#options = options;
    this.#consumerOptions = consumer;
    this.#hooks = hooks;
    this.#context = context;
    this.#counters = counters;
    if (options.exactlyOnce !== undefined) this.#transactions = client.transactions();
    this.#consumer = client.consumer(consumer, this);
  }

  /** Partitions that are ours now. */
  partition(of: TopicPartition): Partition | undefined {
    return this.#partitions.get(nameOf(of));
  }

  // --- taking

  /** What is next in line, of one partition; see `Store.take`. */
  take(maxEvents: number, maxBytes: number, credit: number): Taken | undefined {
    if (this.#stopped) return undefined;
    for (let partition = this.#line.shift(); partition !== undefined; partition = this.#line.shift()) {
      partition.ready = false;
      const fits = Math.min(partition.records, maxEvents) <= credit;
      const taken = fits ? this.#takeFrom(partition, maxEvents, maxBytes) : undefined;
      const left = this.#enlist(partition);
      // If nothing was taken and something is left, that is too large for now.
      if (taken !== undefined || left) return taken;
    }
    return undefined;
  }

  #takeFrom(partition: Partition, maxEvents: number, maxBytes: number): Taken | undefined {
    const events: FlumeEvent[] = [];
    let [bytes, end] = [0, 0];
    let poison: Error | undefined;
    for (let record = partition.first; record !== undefined && events.length < maxEvents; record = partition.first) {
      const size = bytesOf(record);
      if (bytes + size > (events.length === 0 ? maxBytes : Math.min(maxBytes, deliveryBytes))) break;
      try {
        events.push(this.#hooks.decode(record, partition));
        bytes += size;
      } catch (thrown) {
        // What comes before it leaves without it.
        if (events.length > 0) break;
        const cause = toError(thrown);
        if (!this.#mayPass(record, partition, cause)) break;
        if (this.#options.onPoison === 'pass') {
          poison = cause;
          events.push(poisonous(record, partition, cause));
        }
      }
      end = record.offset + 1;
      this.#shift(partition);
      if (poison !== undefined) break;
    }
    if (end === 0) return undefined;
    const from = partition.taken;
    const sent = partition.send(end);
    if (events.length === 0) {
      // All of them were left out.
      partition.progress.acked(sent);
      this.#scheduleCommit();
      return undefined;
    }
    partition.out++;
    const range = this.#rangeOf(partition, from, end);
    if (range === undefined) return { of: partition, events, sent, poison, range };
    return { of: partition, events, sent, poison, range, leftOut: () => (range.done = true) };
  }

  #rangeOf(of: Partition, from: number, end: number): TransactedRange | undefined {
    const { transacted } = of;
    if (transacted === undefined) return undefined;
    const range: TransactedRange = {
      brokers: this.#options.exactlyOnce ?? [],
      done: false,
      commit: async (writes, compression) => {
        if (of.progress.committed !== from)
          throw new MillraceError(
            'MR_KAFKA',
            `exactlyOnce: what was read of ${nameOf(of)} before record ${from} is not settled yet. No stage may change the order.`,
          );
        await transacted.commit(() => end, writes, compression);
        of.committed = end;
        range.done = true;
      },
    };
    return range;
  }

  /** Says what becomes of a record that cannot be understood; false if that holds up its partition. */
  #mayPass({ offset }: ReadRecord, of: Partition, cause: Error): boolean {
    const { onPoison } = this.#options;
    const where = `record ${offset} of ${nameOf(of)} can not be read: ${cause.message}`;
    this.#count('PoisonRecordCount', 1);
    if (onPoison === 'stop') {
      const advice = 'Nothing behind it is read. Set onPoison to skip or pass, or move the group past it.';
      this.#stick(of, new MillraceError('MR_BAD_INPUT', `${where} ${advice}`, { cause }));
      return false;
    }
    const { log, name } = this.#context;
    const fields = { topic: of.topic, partition: of.partition, offset, cause };
    log.error(`${name}: ${where} It is ${onPoison === 'skip' ? 'left out' : 'passed on as it is'}.`, fields);
    if (onPoison === 'skip') this.#hooks.skipped(of);
    return true;
  }

  #shift(partition: Partition): void {
    const { bytes } = partition;
    partition.shift();
    this.#prefetched(-1, partition.bytes - bytes);
    if (partition.paused && partition.stuck === undefined && this.#fill(partition) < 0.5) {
      partition.paused = false;
      this.#consumer.resume([partition]);
    }
  }

  /** How much of its share a partition has. */
  #fill({ records, bytes }: Partition): number {
    const { prefetchRecords, prefetchBytes } = this.#options;
    return this.#partitions.size * Math.max(records / prefetchRecords, bytes / prefetchBytes);
  }

  /** It gets its turn behind the others, if there is something to take. */
  #enlist(partition: Partition): boolean {
    const { first, ready, state, stuck } = partition;
    if (first === undefined || state !== 'ours' || stuck !== undefined) return false;
    partition.ready = true;
    if (!ready) this.#line.push(partition);
    return true;
  }

  // --- settling

  /** All of it is acked. */
  done({ of, sent, range }: Taken): void {
    of.out--;
    if (of.state === 'gone') return;
    if (range?.done === false) return this.#fail(of, ackedElsewhere(of));
    of.progress.acked(sent);
    if (of.state === 'ours') this.#scheduleCommit();
    this.#settled?.();
  }

  /** Nobody will settle it. */
  release({ of }: Taken): void {
    of.out--;
    this.#settled?.();
  }

  // --- committing

  #scheduleCommit(): void {
    if (this.#timer !== undefined || this.#committing !== undefined || this.#closed) return;
    if (this.#moved().length === 0) return;
    this.#timer = this.#context.clock.after(this.#options.commitInterval, () => {
      this.#timer = undefined;
      void this.#commit().then(() => this.#scheduleCommit());
    });
  }

  #moved(): Partition[] {
    return [...this.#partitions.values()].filter(({ progress, committed, begun, transacted, out }) => {
      // What is out of a partition may be in a transaction, behind which its offset is.
      if (!begun || (transacted !== undefined && out > 0)) return false;
      return progress.committed !== committed;
    });
  }

  /** One at a time. It does not reject: what was not committed is dirty still. */
  #commit(): Promise<void> {
    return (this.#committing ??= this.#commitMoved().finally(() => (this.#committing = undefined)));
  }

  async #commitMoved(): Promise<void> {
    const moved = this.#moved().map(partition => ({ partition, offset: partition.progress.committed }));
    if (moved.length === 0) return;
    const { clock, log, name } = this.#context;
    const began = clock.now();
    try {
      if (this.#transactions === undefined)
        await this.#consumer.commit(
          moved.map(({ partition: { topic, partition }, offset }) => ({ topic, partition, offset })),
        );
      else
        await Promise.all(
          moved.map(async ({ partition, offset }) => {
            await partition.transacted?.commit(() => (partition.out > 0 ? undefined : offset));
          }),
        );
      for (const { partition, offset } of moved)
        partition.committed = partition.transacted === undefined ? offset : partition.transacted.position;
      if (this.#commitFails) log.info(`${name}: offsets are committed again.`);
      this.#commitFails = false;
    } catch (thrown) {
      this.#count('CommitFailCount', 1);
      const cause = toError(thrown);
      if (!this.#commitFails)
        log.warn(`${name}: offsets were not committed, it is tried again: ${cause.message}`, { cause });
      this.#commitFails = true;
    }
    this.#count('KafkaCommitTimer', clock.now() - began);
  }

  async #commitLast(): Promise<void> {
    // What is under way may have begun before the last acks.
    await this.#committing;
    await this.#commit();
  }

  // --- what the consumer tells

  assigned(partitions: readonly Assigned[]): readonly number[] {
    const starts = partitions.map(given => this.#assign(given));
    this.#count('AssignedPartitionCount', partitions.length);
    // Where a group begins that never committed is said at once: later it would be elsewhere.
    this.#scheduleCommit();
    return starts;
  }

  #assign(given: Assigned): number {
    const { first, end } = given;
    const { reset } = this.#options;
    // Nowhere to begin is nothing to commit.
    const committed = given.committed ?? (reset === 'none' ? end : undefined);
    const wanted = committed ?? (reset === 'earliest' ? first : end);
    const outOfRange = wanted < first || wanted > end;
    const start = outOfRange ? this.#elsewhere(given, wanted) : wanted;
    const partition = new Partition(given, start, committed);
    this.#partitions.set(nameOf(given), partition);
    this.#hooks.assigned?.(partition, end);
    if (given.committed === undefined && reset === 'none') {
      const { groupId } = this.#consumerOptions;
      const what = `group ${groupId} has no offset for ${nameOf(given)}, and auto.offset.reset is none.`;
      this.#fail(partition, new MillraceError('MR_KAFKA_OFFSET', what));
    } else if (outOfRange && start === wanted) this.#fail(partition, outOfRangeOf(given, wanted));
    if (this.#transactions !== undefined) void this.#begin(partition, given.committed, this.#transactions);
    return start;
  }

  /** Makes sure that nobody else moves the group in this partition, and reads on where it is then; `known` is where it was. */
  async #begin(partition: Partition, known: number | undefined, transactions: KafkaTransactions): Promise<void> {
    const { topic, partition: number } = partition;
    const { groupId } = this.#consumerOptions;
    const { clock, random } = this.#context;
    const transacted = new TransactedPartition(
      nameOf(partition),
      // Names of topics have no slash.
      () => transactions.begin(`${groupId}/${topic}/${number}`, groupId, partition),
      () => {
        const current = this.#partitions.get(nameOf(partition));
        if (current?.transacted === transacted) this.#restart(current, transactions);
      },
    );
    partition.transacted = transacted;
    partition.begun = false;
    let position: number | undefined;
    let failures = 0;
    for (;;) {
      try {
        position = await transacted.begin();
        break;
      } catch (thrown) {
        if (isGone(partition)) return;
        this.trouble(toError(thrown));
      }
      const delay = backoffDelay(beginBackoff, ++failures, random);
      await new Promise<void>(resolve => void clock.after(delay, resolve));
      if (isGone(partition)) return;
    }
    if (isGone(partition)) return;
    if (failures > 0) this.recovered();
    let begun = partition;
    if (position !== undefined && position !== known) {
      begun = new Partition(partition, position, position);
      begun.transacted = transacted;
      begun.stuck = partition.stuck;
      this.#partitions.set(nameOf(begun), begun);
    }
    begun.begun = true;
    // What came until now was left out.
    this.#consumer.seek({ topic, partition: number, offset: begun.next });
    this.#scheduleCommit();
  }

  /** Somebody else had it, and it is ours again, or we shall hear that it is not. */
  #restart(partition: Partition, transactions: KafkaTransactions): void {
    if (partition.state !== 'ours' || this.#stopped) return;
    this.#fence([partition]);
    this.#drop(partition);
    const again = new Partition(partition, partition.progress.committed, undefined);
    this.#partitions.set(nameOf(again), again);
    void this.#begin(again, undefined, transactions);
  }

  revoked(partitions: readonly TopicPartition[], lost: boolean): void | Promise<void> {
    const ours = partitions.flatMap(of => this.#partitions.get(nameOf(of)) ?? []);
    this.#count('AssignedPartitionCount', -ours.length);
    for (const partition of ours) {
      if (partition.state === 'ours') partition.state = 'revoking';
      this.#drop(partition);
    }
    if (lost) return this.#fence(ours);
    return this.#revoke(ours);
  }

  async #revoke(partitions: readonly Partition[]): Promise<void> {
    await this.#forAWhile(
      new Promise<void>(resolve => {
        this.#settled = () => partitions.every(({ out }) => out === 0) && resolve();
        this.#settled();
      }),
    );
    this.#settled = undefined;
    await this.#forAWhile(this.#commitLast());
    this.#fence(partitions);
  }

  /** Waits for it, but not for longer than a revocation may take. */
  async #forAWhile(what: Promise<void>): Promise<void> {
    const { clock } = this.#context;
    let timer: Timer;
    const late = new Promise<void>(resolve => (timer = clock.after(this.#options.revokeTimeout, resolve)));
    await Promise.race([what, late]);
    clock.cancel(timer);
  }

  #fence(partitions: readonly Partition[]): void {
    if (partitions.every(({ state }) => state === 'gone')) return;
    for (const partition of partitions) {
      if (partition.state === 'gone') continue;
      partition.state = 'gone';
      partition.transacted?.close();
      this.#partitions.delete(nameOf(partition));
    }
    this.#health();
    this.#hooks.withdraw(({ of }) => of.state === 'gone');
  }

  records(of: TopicPartition, records: readonly ReadRecord[]): void {
    const partition = this.#partitions.get(nameOf(of));
    if (partition?.state !== 'ours' || this.#stopped || !partition.begun) return;
    if (partition.stuck !== undefined) return this.#consumer.pause([partition]);
    const fresh =
      (records[0] as ReadRecord).offset < partition.next
        ? records.filter(({ offset }) => offset >= partition.next)
        : records;
    if (fresh.length === 0) return;
    const { bytes, next } = partition;
    partition.push(fresh);
    this.#prefetched(fresh.length, partition.bytes - bytes);
    if (!partition.paused && this.#fill(partition) >= 1) {
      partition.paused = true;
      this.#consumer.pause([partition]);
    }
    this.#hooks.arrived?.(partition, fresh.length, next);
    this.#enlist(partition);
    this.#hooks.ready();
  }

  outOfRange(given: Assigned, wanted: number): number {
    const to = this.#elsewhere(given, wanted);
    const partition = this.#partitions.get(nameOf(given));
    if (partition === undefined) return to;
    if (this.#options.onOutOfRange === 'fail') this.#fail(partition, outOfRangeOf(given, wanted));
    // Behind what is out: nothing moves past that.
    partition.progress.acked(partition.send(to));
    const { next } = partition;
    partition.next = to;
    this.#hooks.arrived?.(partition, 0, next);
    this.#scheduleCommit();
    return to;
  }

  /** Where to go on instead. */
  #elsewhere(given: Assigned, wanted: number): number {
    const { onOutOfRange } = this.#options;
    if (onOutOfRange === 'fail') return wanted;
    const { topic, partition, first, end } = given;
    const to = onOutOfRange === 'earliest' ? first : end;
    this.#count('LostRecordCount', Math.max(0, to - wanted));
    const { log, name } = this.#context;
    log.error(
      `${name}: ${outOfRangeOf(given, wanted).message} It goes on at ${to} (${onOutOfRange}): ` +
        (to > wanted ? `up to ${to - wanted} records are lost.` : 'records may come again.'),
      { topic, partition, from: wanted, to },
    );
    return to;
  }

  trouble(cause: Error): void {
    const { log, name } = this.#context;
    if (kindOf(this.#trouble) !== kindOf(cause)) log.error(`${name}: ${cause.message} It is tried again.`, { cause });
    this.#trouble = cause;
    this.#health();
  }

  recovered(): void {
    const { log, name } = this.#context;
    if (this.#trouble !== undefined) log.info(`${name}: what was wrong is over: ${this.#trouble.message}`);
    this.#trouble = undefined;
    this.#health();
  }

  // --- ending

  /** No more is taken. What is out may be settled, and is committed. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#consumer.pause([...this.#partitions.values()]);
    for (const partition of this.#partitions.values()) this.#drop(partition);
  }

  /** Leaves the group, after a commit of what is acked. */
  async close(): Promise<void> {
    this.stop();
    try {
      await this.#consumer.close();
    } finally {
      this.#closed = true;
      // It may have been told nothing, or not to the end.
      this.#fence([...this.#partitions.values()]);
      this.#context.clock.cancel(this.#timer);
      await this.#transactions?.close();
    }
    // Nobody knows whether it is over.
    this.#trouble = undefined;
    this.#health();
  }

  // --- books

  /** Nothing more is taken of it in this assignment. */
  #stick(partition: Partition, cause: MillraceError): void {
    partition.stuck = cause;
    const { topic, partition: number } = partition;
    const { log, name } = this.#context;
    log.error(`${name}: ${cause.message}`, { topic, partition: number, cause });
    this.#health();
  }

  #fail(partition: Partition, cause: MillraceError): void {
    this.#stick(partition, cause);
    this.#hooks.failed(cause);
  }

  #health(): void {
    const wrong = this.#trouble ?? [...this.#partitions.values()].find(({ stuck }) => stuck !== undefined)?.stuck;
    this.#counters.Unhealthy = Number(wrong !== undefined);
    this.#hooks.health(wrong);
  }

  /** Forgets what waits to be taken. */
  #drop(partition: Partition): void {
    const { records, bytes } = partition;
    this.#prefetched(-records, -bytes);
    partition.clear();
  }

  #prefetched(records: number, bytes: number): void {
    this.#count('PrefetchedRecordCount', records);
    this.#count('PrefetchedByteCount', bytes);
  }

  #count(name: keyof GroupCounters, by: number): void {
    this.#counters[name] += by;
  }
}

const ackedElsewhere = (of: TopicPartition): MillraceError =>
  new MillraceError(
    'MR_CONFIG',
    `exactlyOnce: what was read of ${nameOf(of)} was acked and is in no transaction with its offset, which stays where it is. ` +
      'Let the flow end in a kafkaSink with exactlyOnce on the same cluster, and let intercept or mapBatch leave out what is not to ' +
      'be written. Or take exactlyOnce off the kafkaSource: then it is at least once.',
  );

const outOfRangeOf = ({ topic, partition, first, end }: Assigned, wanted: number): MillraceError =>
  new MillraceError(
    'MR_KAFKA_OFFSET',
    `offset ${wanted} of ${topic}-${partition} is not there; there are ${first} up to ${end}.`,
  );
