/**
 * A topic as a channel: Flume's Kafka channel. What it has confirmed is on as many brokers as the topic asks for, and any
 * member of the group may take it.
 *
 * @module
 */
import { z } from 'zod';
import type { Timer } from '../../core/clock.ts';
import { defineChannel, type EventChannel, type Store, type StoreContext } from '../../core/channel.ts';
import type { Finding, ProbeContext } from '../../core/component.ts';
import { Deque } from '../../core/deque.ts';
import { isPermanent, kindOf, toError } from '../../core/errors.ts';
import { Batch, headers, noHeaders, type FlumeEvent } from '../../core/event.ts';
import { flag, int, text } from '../../core/options.ts';
import { Entry } from '../../core/outlet.ts';
import { PartlyWritten } from '../../core/sink.ts';
import { decodeAvroEvent } from '../../protocols/avro-event.ts';
import { possibleTopic } from '../../protocols/kafka/address.ts';
import type { KafkaClient, ReadRecord, TopicPartition } from '../../protocols/kafka/client.ts';
import { connectTo } from '../../protocols/kafka/connect.ts';
import { groupFields, groupOptionsOf } from '../../protocols/kafka/group-options.ts';
import { GroupReader, withGroupCounters, type Partition, type Taken } from '../../protocols/kafka/group-reader.ts';
import { probeKafka } from '../../protocols/kafka/probe.ts';
import {
  checkKafka,
  connectionFields,
  consumerFields,
  consumerOf,
  producerFields,
  producerOf,
} from '../../protocols/kafka/properties.ts';
import { gatherBytes, RecordWriter } from '../../protocols/kafka/record-writer.ts';

const options = z
  .object({
    ...connectionFields,
    topic: text('The topic. Channels of several agents may share it.', {
      flume: 'kafka.topic',
      formerly: 'topic',
      default: 'flume-channel',
    }),
    ...groupFields,
    parseAsFlumeEvent: flag(
      'Whether values are events in Avro, headers included; else they are bodies, and of the headers there is the key.',
      { default: true },
    ),
    defaultPartitionId: int(
      'The partition of events that do not name one. Default: by the header `key`, else evenly.',
      {
        optional: true,
        min: 0,
      },
    ),
    partitionIdHeader: text('The header in which an event names its partition, as a number.', { optional: true }),
    readSmallestOffset: flag('An old name: auto.offset.reset is earliest, or, if this is false, latest.', {
      optional: true,
    }),
    transactionCapacity: int('The most events of one put or one delivery.', {
      default: 10_000,
      min: 1,
      unit: 'events',
    }),
    ...producerFields,
    ...consumerFields,
  })
  .superRefine((given, context) => {
    checkKafka(given, context);
    try {
      possibleTopic(given.topic);
    } catch (thrown) {
      context.addIssue({ code: 'custom', path: ['topic'], message: toError(thrown).message });
    }
  });
type Options = z.output<typeof options>;
export type KafkaChannelOptions = z.input<typeof options>;

/** How long a channel that is ending waits for records of which it knows that brokers have them, in ms. */
const arrivalTimeout = 10_000;

interface Put {
  readonly batch: Batch;
  readonly resolve: () => void;
  readonly reject: (cause: Error) => void;
}

/** What an entry is of; it may have been cut. */
interface Tag {
  readonly taken: Taken;
  parts: number;
}

/** What is wrong with puts, and with takes. */
interface Troubles {
  readonly put?: Error | undefined;
  readonly take?: Error | undefined;
}

/** Of a partition that is ours. */
interface Share {
  /** Records up to here are known to be there. */
  known: number;
  /** Of those, the ones that were not taken yet, and events that were taken and are not done with. */
  waiting: number;
  out: number;
}

/**
 * What the books say: an event that was put belongs to the brokers (`kept`), until its partition is ours, and whatever is in a
 * partition of ours is held by this channel, wherever it came from. When the partition goes, what was not committed is the
 * brokers' again.
 */
class KafkaStore implements Store {
  readonly capacity = { events: Number.MAX_SAFE_INTEGER, bytes: Number.MAX_SAFE_INTEGER };
  readonly counters = withGroupCounters({ KafkaEventSendTimer: 0, RollbackCount: 0 });
  readonly #options: Options;
  #context!: StoreContext;
  #client!: KafkaClient;

  #writer: RecordWriter | undefined;
  readonly #puts = new Deque<Put>();
  #busy = false;

  #reader: GroupReader | undefined;
  /** Given back, first in line. */
  readonly #line = new Deque<Entry<FlumeEvent>>();
  readonly #shares = new Map<Partition, Share>();
  /** All shares together. */
  events = 0;
  #outBytes = 0;
  /** The group has not said yet what is ours. */
  busy = false;
  #arrivals = 0;
  #timer: Timer;
  #troubles: Troubles = {};
  #closing = false;

  constructor(options: Options) {
    this.#options = options;
  }

  /** Brokers have all of it. */
  get kept(): number {
    return this.events;
  }

  get bytes(): number {
    return this.#outBytes + this.counters.PrefetchedByteCount;
  }

  async open(context: StoreContext): Promise<void> {
    this.#context = context;
    this.#client = await connectTo(this.#options, context.log);
  }

  // --- putting

  put(batch: Batch): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#puts.push({ batch, resolve, reject });
      if (!this.#busy) void this.#write();
    });
  }

  async #write(): Promise<void> {
    this.#busy = true;
    while (this.#puts.length > 0) {
      const puts = this.#gather();
      try {
        await this.#writing().write(Batch.concat(puts.map(({ batch }) => batch)));
        this.#trouble({ put: undefined });
        for (const { resolve } of puts) resolve();
      } catch (thrown) {
        this.#notWritten(puts, toError(thrown));
      }
    }
    this.#busy = false;
  }

  #gather(): Put[] {
    const puts: Put[] = [];
    let bytes = 0;
    for (let put = this.#puts.peek(); put !== undefined; put = this.#puts.peek()) {
      bytes += put.batch.byteLength;
      if (bytes > gatherBytes && puts.length > 0) break;
      puts.push(put);
      this.#puts.shift();
    }
    return puts;
  }

  /** Made when it is first needed: a channel without a source has none. */
  #writing(): RecordWriter {
    const { topic, compression, producer, parseAsFlumeEvent, ...options } = this.#options;
    return (this.#writer ??= new RecordWriter(
      {
        ...options,
        topicOf: () => topic,
        headers: {},
        useFlumeEventFormat: parseAsFlumeEvent,
        producer: producerOf('all', compression, producer),
        confirmed: (to, offset, records) => this.#confirmed(to, offset, records),
      },
      this.#client,
      this.#context,
      this.counters,
    ));
  }

  #confirmed(to: TopicPartition, offset: number, count: number): void {
    const { ledger } = this.#context;
    const partition = this.#reader?.partition(to);
    const share = partition && this.#shares.get(partition);
    if (share !== undefined && offset >= 0) {
      // What lies between was put by somebody else.
      const more = Math.max(0, offset + count - share.known);
      share.known += more;
      ledger.kept += count - more;
      this.#waits(share, more);
    } else ledger.kept += count;
  }

  /** Some events can never be written: those alone. Anything else concerns whatever is behind it as well. */
  #notWritten(puts: readonly Put[], cause: Error): void {
    const failed = cause instanceof PartlyWritten ? cause.failed : undefined;
    const permanent = failed !== undefined && [...failed.values()].every(isPermanent);
    if (!permanent) this.#trouble({ put: (failed && [...failed.values()].find(why => !isPermanent(why))) ?? cause });
    let at = 0;
    for (const { batch, resolve, reject } of puts) {
      const from = at;
      at += batch.length;
      const own =
        failed && new Map([...failed].filter(([i]) => i >= from && i < at).map(([i, why]) => [i - from, why]));
      if (own === undefined) reject(cause);
      else if (own.size === 0) resolve();
      else reject(new PartlyWritten(own));
    }
    if (permanent) return;
    for (let put = this.#puts.shift(); put !== undefined; put = this.#puts.shift()) put.reject(cause);
  }

  // --- taking

  take(maxEvents: number, maxBytes: number, credit: number): Entry<FlumeEvent> | undefined {
    if (this.#closing) return undefined;
    for (let entry = this.#line.peek(); entry !== undefined; entry = this.#line.peek()) {
      if ((entry.tag as Tag).taken.of.state !== 'gone') return this.#takeBack(entry, maxEvents, maxBytes, credit);
      this.#line.shift();
    }
    const taken = (this.#reader ??= this.#join()).take(maxEvents, maxBytes, credit);
    if (taken === undefined) return undefined;
    const batch = Batch.of(taken.events);
    const share = this.#shares.get(taken.of) as Share;
    share.waiting -= batch.length;
    share.out += batch.length;
    this.#outBytes += batch.byteLength;
    return new Entry(batch, { taken, parts: 1 } satisfies Tag);
  }

  #takeBack(
    entry: Entry<FlumeEvent>,
    maxEvents: number,
    maxBytes: number,
    credit: number,
  ): Entry<FlumeEvent> | undefined {
    const { batch } = entry;
    if (batch.byteLength > maxBytes || Math.min(batch.length, maxEvents) > credit) return undefined;
    const most = Math.min(maxEvents, credit);
    if (batch.length <= most) return this.#line.shift();
    const [first, rest] = batch.split(most);
    const cut = new Entry(first, entry.tag);
    cut.attempt = entry.attempt;
    entry.batch = rest;
    (entry.tag as Tag).parts++;
    return cut;
  }

  giveBack(entries: readonly Entry<FlumeEvent>[]): void {
    for (let i = entries.length - 1; i >= 0; i--) this.#line.unshift(entries[i] as Entry<FlumeEvent>);
  }

  done({ batch, tag }: Entry<FlumeEvent>, rest: Batch | undefined): void {
    const { taken } = tag as Tag;
    const share = this.#shares.get(taken.of);
    const count = batch.length - (rest?.length ?? 0);
    this.#outBytes -= batch.byteLength - (rest?.byteLength ?? 0);
    if (share !== undefined) share.out -= count;
    this.events -= count;
    if (rest === undefined && --(tag as Tag).parts === 0) this.#reader?.done(taken);
  }

  /** Somebody takes: becomes a member of the group. */
  #join(): GroupReader {
    this.busy = true;
    this.#expectArrivals();
    const { groupId, topic, readSmallestOffset } = this.#options;
    const { offsetReset, ...consumer } = consumerOf(this.#options.consumer);
    const usual = readSmallestOffset === false ? 'latest' : 'earliest';
    return new GroupReader(
      this.#client,
      { ...consumer, groupId, topics: [topic] },
      groupOptionsOf(this.#options, offsetReset, usual),
      {
        decode: record => this.#eventOf(record),
        ready: () => this.#context.wake(),
        withdraw: () => this.#withdraw(),
        // It was reported, and the partition stands still.
        failed: () => undefined,
        skipped: of => {
          this.#waits(this.#shares.get(of) as Share, -1);
          this.#context.ledger.rejected++;
        },
        health: wrong => this.#trouble({ take: wrong }),
        assigned: (of, end) => this.#assigned(of, end),
        arrived: (of, records, before) => this.#arrived(of, records, before),
      },
      this.#context,
      this.counters,
    );
  }

  #eventOf({ key, value }: ReadRecord): FlumeEvent {
    const { parseAsFlumeEvent } = this.#options;
    const { headers: own, body } = parseAsFlumeEvent
      ? decodeAvroEvent(value ?? nothing)
      : { headers: noHeaders, body: value ?? nothing };
    const text = key?.toString();
    return { headers: text === undefined || own['key'] === text ? own : headers({ ...own, key: text }), body };
  }

  #assigned(of: Partition, end: number): void {
    const share: Share = { known: Math.max(end, of.next), waiting: 0, out: 0 };
    this.#shares.set(of, share);
    const count = share.known - of.next;
    this.#waits(share, count);
    this.#context.ledger.kept -= count;
    this.busy = false;
  }

  /** Offsets that have no record, because of transactions or compaction, were none of anybody's. */
  #arrived(of: Partition, records: number, before: number): void {
    const share = this.#shares.get(of) as Share;
    const expected = Math.min(share.known, of.next) - Math.min(share.known, before);
    share.known = Math.max(share.known, of.next);
    this.#waits(share, records - expected);
    this.#context.ledger.kept -= records - expected;
    this.#arrivals++;
  }

  #waits(share: Share, count: number): void {
    share.waiting += count;
    this.events += count;
    if (count > 0) this.#expectArrivals();
  }

  /** What is not ours any more, and was not committed, is the brokers'; some of it was done with here, and comes again. */
  #withdraw(): void {
    const { ledger } = this.#context;
    for (const [of, share] of this.#shares) {
      if (of.state !== 'gone') continue;
      this.#shares.delete(of);
      const held = share.waiting + share.out;
      const again = Math.max(held, share.known - (of.committed ?? of.progress.committed));
      this.events -= held;
      ledger.kept += again;
      ledger.copied += again - held;
    }
    this.busy = true;
    this.#expectArrivals();
    this.#context.withdraw(({ tag }) => (tag as Tag).taken.of.state === 'gone');
  }

  // --- what does not come

  /** Whoever waits for the channel to be empty does not wait for ever for what brokers do not hand out. */
  #expectArrivals(): void {
    const { clock, ledger, wake } = this.#context;
    const arrivals = this.#arrivals;
    if (this.#closing) return;
    this.#timer ??= clock.after(
      arrivalTimeout,
      () => {
        this.#timer = undefined;
        if (arrivals !== this.#arrivals) return this.#expectArrivals();
        this.busy = false;
        for (const [of, share] of this.#shares) {
          const missing = share.known - of.next;
          if (missing <= 0 || of.paused) continue;
          share.known = of.next;
          this.#waits(share, -missing);
          ledger.kept += missing;
        }
        wake();
      },
      true,
    );
  }

  #trouble(now: Troubles): void {
    const { log, metrics, name } = this.#context;
    const { put } = this.#troubles;
    this.#troubles = { ...this.#troubles, ...now };
    const wrong = this.#troubles.put ?? this.#troubles.take;
    // The same in another partition is no news.
    if (kindOf(this.#troubles.put) !== kindOf(put)) {
      if (this.#troubles.put === undefined) log.info(`${name}: puts are confirmed again.`);
      else log.error(`${name}: a put was not confirmed: ${this.#troubles.put.message}`, { cause: this.#troubles.put });
    }
    this.counters.Unhealthy = Number(wrong !== undefined);
    metrics.trouble(name, wrong);
  }

  async close(): Promise<void> {
    this.#closing = true;
    const { clock, metrics, name } = this.#context;
    clock.cancel(this.#timer);
    const back = new Set<Taken>();
    for (let entry = this.#line.shift(); entry !== undefined; entry = this.#line.shift())
      back.add((entry.tag as Tag).taken);
    // Nobody is going to settle these.
    for (const taken of back) this.#reader?.release(taken);
    try {
      await this.#reader?.close();
    } finally {
      await this.#writer?.close();
      await this.#client.close();
      metrics.trouble(name, undefined);
    }
  }
}

const nothing = Buffer.alloc(0);

/**
 * Holds events in a topic between a source and a sink. Agents that share topic and group share the work; a channel without
 * a source only takes, one without a sink only puts and is no member of the group.
 *
 * **acks** when all replicas that the topic asks for have the delivery; deliveries that wait together are written together ·
 * **pauses** its source while brokers do not confirm, and nacks what they did not take (it may come twice) · **redelivers** what a
 * sink nacks, and what is not acked when the partition goes to another member, there · **completes** when its input
 * has, and what brokers have for it in partitions of its own was acked; what does not come for 10 s stays there · **errors**
 * when its package is not installed, or a file that its options name cannot be read · **loses** nothing that it has acked.
 *
 * A group that never committed begins with the oldest record, unless `auto.offset.reset` says something else.
 *
 * It has no capacity: brokers have room, and `prefetchRecords` and `prefetchBytes` bound what is in memory. `ChannelSize` counts
 * what is known to be in partitions of its own. Order is that of each partition: that of the header `partitionIdHeader`, else
 * `defaultPartitionId`, else by the header `key`, which comes back as such; events without are spread evenly, and those of one
 * delivery may come back apart. Offsets are committed, and partitions change hands, as with `kafkaSource`.
 *
 * With `parseAsFlumeEvent: false` values are bodies: headers are lost, and other producers' records are understood. A record
 * that cannot be understood is reported, counted, and treated as `onPoison` says. An event that brokers refuse for good (too
 * large) is rejected alone.
 */
export const kafkaChannel: EventChannel<typeof options> = defineChannel({
  type: 'kafka',
  className: 'org.apache.flume.channel.kafka.KafkaChannel',
  summary: 'Holds events in a Kafka topic, which channels of several agents may share.',
  options,
  open: <T>(given: Options): Store<T> => new KafkaStore(given) as Store<unknown> as Store<T>,
  probe: (given: Options, context: ProbeContext): Promise<readonly Finding[]> =>
    probeKafka(
      given,
      {
        topics: [given.topic],
        option: 'topic',
        read: context.drained,
        write: context.fed,
        partition: given.defaultPartitionId,
        groupId: context.drained ? given.groupId : undefined,
        ...(context.fed && { producer: producerOf('all', given.compression, given.producer) }),
      },
      context,
    ),
});
