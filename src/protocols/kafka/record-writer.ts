/**
 * Events as records of Kafka: what the sink and the channel have in common.
 *
 * One partition per send and one send per partition at a time, partitions side by side: what is confirmed is in then, in order,
 * whichever broker dies (see docs/guarantees.md).
 *
 * @module
 */
import { isPermanent, MillraceError, toError, type ErrorCode } from '../../core/errors.ts';
import type { Batch, FlumeEvent } from '../../core/event.ts';
import type { Context } from '../../core/scope.ts';
import { PartlyWritten } from '../../core/sink.ts';
import { encodeAvroEvent } from '../avro-event.ts';
import { addressing, type Address, type AddressOptions } from './address.ts';
import type { KafkaClient, KafkaProducer, NewRecord, TopicPartition, Write } from './client.ts';
import type { TransactedRange } from './exactly-once.ts';
import { partitionOf, Spread } from './partitioner.ts';
import type { ProducerSettings } from './properties.ts';

export interface RecordWriterOptions extends AddressOptions {
  readonly producer: ProducerSettings;
  /** Whether values are events in Avro, and not only bodies. */
  readonly useFlumeEventFormat: boolean;
  /** So many records of this partition are confirmed, from this offset on; -1 if it is not known. */
  readonly confirmed?: (to: TopicPartition, offset: number, records: number) => void;
}

/** Bytes that are worth writing at once, to all partitions together. */
export const gatherBytes = 4 * 1024 * 1024;
/** Of one send: brokers take 1 MiB by default, and clients make one batch of it. */
const sendBytes = 900_000;
const sendRecords = 10_000;
/** What a record has besides key, value and headers, generously. */
const recordOverhead = 40;
/** Topics whose number of partitions is kept: events may name any. */
const mostTopics = 1000;

/** What one write has for one partition, in order. */
interface Load {
  readonly to: TopicPartition;
  readonly records: NewRecord[];
  /** Of each record: its place in the batch, and its bytes. */
  readonly indexes: number[];
  readonly sizes: number[];
}

/** What one write has for one topic. */
interface Outgoing {
  /** How many it has, or why that is not known. */
  readonly partitions: number | Error;
  /** By partition. */
  readonly loads: Load[];
}

/** Why each event that was not written was not, by its place in the batch. */
type Failed = Map<number, Error>;

export class RecordWriter {
  readonly #options: RecordWriterOptions;
  readonly #client: KafkaClient;
  readonly #producer: KafkaProducer;
  readonly #context: Context;
  readonly #counters: { KafkaEventSendTimer: number; RollbackCount: number };
  readonly #addressOf: ReturnType<typeof addressing>;
  readonly #spread: Spread;
  /** How many partitions each has, and when that was so. */
  readonly #topics = new Map<string, { readonly partitions: number; readonly at: number }>();
  /** Records of which nobody knows whether they are in. The same again, to the same partition, and the broker can tell. */
  readonly #unsure = new WeakMap<FlumeEvent, { readonly partition: number; readonly record: NewRecord }>();
  #turn: Promise<void> = Promise.resolve();

  constructor(
    options: RecordWriterOptions,
    client: KafkaClient,
    context: Context & { readonly name: string },
    counters: { KafkaEventSendTimer: number; RollbackCount: number },
  ) {
    const { log, name, random } = context;
    this.#options = options;
    this.#client = client;
    this.#producer = client.producer(options.producer);
    this.#context = context;
    this.#counters = counters;
    this.#addressOf = addressing(options, message => log.warn(`${name}: ${message}`));
    this.#spread = new Spread(random);
  }

  /**
   * Resolves when all of it is confirmed. One batch at a time, whoever asks: each partition has one send.
   *
   * @throws PartlyWritten
   */
  write({ events }: Batch): Promise<void> {
    const done = this.#turn.then(() => this.#write(events));
    this.#turn = done.catch(() => undefined);
    return done;
  }

  /**
   * Writes all of it in one transaction with how far its source has come. What can never be written holds it up, for nothing is
   * left out.
   */
  async transact({ events }: Batch, range: TransactedRange): Promise<void> {
    const failed: Failed = new Map();
    const loads = await this.#load(events, failed);
    const began = this.#context.clock.now();
    try {
      const [cause] = failed.values();
      if (cause !== undefined) throw cause;
      const writes: Write[] = [];
      for (const { to, records, sizes } of loads)
        for (let from = 0, until: number; from < records.length; from = until) {
          until = endOfSend(sizes, from);
          writes.push({ to, records: records.slice(from, until) });
        }
      await range.commit(writes, this.#options.producer.compression);
      this.#counters.KafkaEventSendTimer += this.#context.clock.now() - began;
    } catch (thrown) {
      const cause = toError(thrown);
      this.#counters.RollbackCount++;
      for (const { to } of loads) this.#topics.delete(to.topic);
      if (!isPermanent(cause)) throw cause;
      const code = cause instanceof MillraceError ? cause.code : 'MR_KAFKA';
      const what = `${cause.message} With exactlyOnce, its partition waits until it can be written.`;
      throw new MillraceError(code, what, { cause, retriable: true });
    }
  }

  /** The client is left open. */
  close(): Promise<void> {
    return this.#producer.close();
  }

  async #write(events: readonly FlumeEvent[]): Promise<void> {
    const { clock } = this.#context;
    const failed: Failed = new Map();
    const loads = await this.#load(events, failed);
    const began = clock.now();
    await Promise.all(loads.map(load => this.#sendAll(load, events, failed)));
    this.#counters.KafkaEventSendTimer += clock.now() - began;
    if (failed.size === 0) return;
    if ([...failed.values()].some(cause => !isPermanent(cause))) this.#counters.RollbackCount++;
    throw new PartlyWritten(failed);
  }

  async #load(events: readonly FlumeEvent[], failed: Failed): Promise<readonly Load[]> {
    const addresses = events.map(({ headers }) => this.#addressOf(headers));
    const topics = await this.#look(addresses);
    for (let i = 0; i < events.length; i++) {
      const [event, address] = [events[i] as FlumeEvent, addresses[i] as Address | Error];
      if (address instanceof Error) {
        failed.set(i, address);
        continue;
      }
      const { partitions, loads } = topics.get(address.topic) as Outgoing;
      const before = this.#unsure.get(event);
      // A topic that was made anew may have fewer.
      const again = typeof partitions === 'number' && (before?.partition ?? 0) >= partitions ? undefined : before;
      const record = again?.record ?? this.#recordOf(event, address);
      const size = recordOverhead + address.bytes + (record.value?.length ?? 0);
      const partition = again?.partition ?? this.#partitionFor(address, size, partitions);
      if (partition instanceof Error) {
        failed.set(i, partition);
        continue;
      }
      const load = (loads[partition] ??= {
        to: { topic: address.topic, partition },
        records: [],
        indexes: [],
        sizes: [],
      });
      load.records.push(record);
      load.indexes.push(i);
      load.sizes.push(size);
    }
    return [...topics.values()].flatMap(({ loads }) => Object.values(loads));
  }

  #recordOf(event: FlumeEvent, { key, headers, timestamp }: Address): NewRecord {
    return { key, value: this.#options.useFlumeEventFormat ? encodeAvroEvent(event) : event.body, headers, timestamp };
  }

  #partitionFor({ topic, partition, named, key }: Address, size: number, partitions: number | Error): number | Error {
    const { maxRequestSize } = this.#options.producer;
    if (size > maxRequestSize)
      return new MillraceError(
        'MR_EVENT_TOO_LARGE',
        `a record for topic ${topic} has ${size} bytes, and max.request.size is ${maxRequestSize}. Raise it, and max.message.bytes of the topic.`,
      );
    if (typeof partitions !== 'number') return partitions;
    if (partition === undefined)
      return key === null ? this.#spread.next(size, partitions) : partitionOf(key, partitions);
    if (partition < partitions) return partition;
    const what = `topic ${topic} has ${partitions} partitions, from 0, so there is no partition ${partition}`;
    if (named)
      return new MillraceError(
        'MR_BAD_INPUT',
        `${what}, which the header ${this.#options.partitionIdHeader ?? ''} names.`,
      );
    // Nothing is wrong with the event.
    return new MillraceError('MR_CONFIG', `${what}, which is the defaultPartitionId. Set another, or add partitions.`, {
      retriable: true,
    });
  }

  /** How many partitions the topics have. Asks again for what is old, and for partitions that there were not. */
  async #look(addresses: readonly (Address | Error)[]): Promise<ReadonlyMap<string, Outgoing>> {
    const highest = new Map<string, number>();
    let last: Address | Error | undefined;
    for (const address of addresses) {
      if (address === last || address instanceof Error) continue;
      last = address;
      highest.set(address.topic, Math.max(highest.get(address.topic) ?? 0, address.partition ?? 0));
    }
    const oldest = this.#context.clock.now() - this.#options.producer.metadataMaxAge;
    const asked = Array.from(highest, async ([topic, partition]): Promise<[string, Outgoing]> => {
      const { partitions, at } = this.#topics.get(topic) ?? { partitions: 0, at: 0 };
      const known = at > oldest && partition < partitions;
      return [topic, { partitions: known ? partitions : await this.#ask(topic), loads: [] }];
    });
    return new Map(await Promise.all(asked));
  }

  async #ask(topic: string): Promise<number | Error> {
    try {
      const partitions = await this.#client.partitions(topic);
      if (this.#topics.size >= mostTopics) this.#topics.delete(this.#topics.keys().next().value as string);
      this.#topics.set(topic, { partitions, at: this.#context.clock.now() });
      return partitions;
    } catch (thrown) {
      return blamed(thrown);
    }
  }

  /** Writes what there is for one partition. Ends at what could not be written now, so that nothing overtakes it. */
  async #sendAll(load: Load, events: readonly FlumeEvent[], failed: Failed): Promise<void> {
    const { to, records, indexes, sizes } = load;
    for (let from = 0, until: number; from < records.length; from = until) {
      until = endOfSend(sizes, from);
      const stop = await this.#send(load, from, until, failed);
      if (stop === undefined) continue;
      // There may be another number of partitions now.
      this.#topics.delete(to.topic);
      for (let i = stop.at; i < records.length; i++) {
        const index = indexes[i] as number;
        failed.set(index, stop.cause);
        this.#unsure.set(events[index] as FlumeEvent, { partition: to.partition, record: records[i] as NewRecord });
      }
      return;
    }
  }

  /** One send; what can never be written is found by halving it. Resolves to where it had to stop, and why, if it had to. */
  async #send(
    load: Load,
    from: number,
    until: number,
    failed: Failed,
  ): Promise<{ at: number; cause: Error } | undefined> {
    const { to, records, indexes } = load;
    try {
      const whole = from === 0 && until === records.length;
      const offset = await this.#producer.send(to, whole ? records : records.slice(from, until));
      this.#options.confirmed?.(to, offset, until - from);
      return undefined;
    } catch (thrown) {
      const cause = blamed(thrown);
      if (!isPermanent(cause)) return { at: from, cause };
      // A right concerns all of them alike.
      if (until - from === 1 || isOneOf(cause, 'MR_KAFKA_NOT_AUTHORIZED')) {
        for (const index of indexes.slice(from, until)) failed.set(index, cause);
        return undefined;
      }
      const half = (from + until) >> 1;
      return (await this.#send(load, from, half, failed)) ?? (await this.#send(load, half, until, failed));
    }
  }
}

/** Where a send that begins there ends: at least one record is in it. */
const endOfSend = (sizes: readonly number[], from: number): number => {
  let until = from;
  for (let bytes = 0; until < sizes.length && until - from < sendRecords; until++) {
    bytes += sizes[until] as number;
    if (bytes > sendBytes && until > from) break;
  }
  return until;
};

/** Whether it has one of these codes. */
export const isOneOf = (error: Error, ...codes: readonly ErrorCode[]): boolean =>
  error instanceof MillraceError && codes.includes(error.code);

/** What was thrown; but what is wrong with this program is not held against events. */
const blamed = (thrown: unknown): Error => {
  const cause = toError(thrown);
  if (!isOneOf(cause, 'MR_CONFIG', 'MR_PEER_MISSING')) return cause;
  return new MillraceError((cause as MillraceError).code, cause.message, { cause, retriable: true });
};
