/**
 * Events as records of Kafka topics: Flume's Kafka sink.
 *
 * One partition per send and one send per partition at a time, partitions side by side: what is confirmed is in then, in order,
 * whichever broker dies (see docs/guarantees.md).
 *
 * @module
 */
import { z } from 'zod';
import { defineSink } from '../core/component.ts';
import { isPermanent, MillraceError, toError, type ErrorCode } from '../core/errors.ts';
import type { Batch, FlumeEvent } from '../core/event.ts';
import type { SinkCounters } from '../core/metrics.ts';
import { choice, flag, int, map, text } from '../core/options.ts';
import { PartlyWritten, type SinkContext, type SinkWriter } from '../core/sink.ts';
import { encodeAvroEvent } from '../protocols/avro-event.ts';
import type { KafkaClient, KafkaProducer, NewRecord, TopicPartition } from '../protocols/kafka/client.ts';
import { connectTo } from '../protocols/kafka/connect.ts';
import { partitionOf, Spread } from '../protocols/kafka/partitioner.ts';
import {
  checkKafka,
  connectionFields,
  producerFields,
  producerOf,
  type ProducerSettings,
} from '../protocols/kafka/properties.ts';
import { escapes } from './escapes.ts';
import { addressing, type Address } from './producing/address.ts';

const usualTopic = 'default-flume-topic';

const fields = {
  ...connectionFields,
  topic: text(
    'The topic. With allowTopicOverride, escapes such as `%{header}` and `%Y` stand for what an event says.',
    {
      flume: 'kafka.topic',
      formerly: 'topic',
      default: usualTopic,
    },
  ),
  allowTopicOverride: flag('Whether events may name their topic in a header, and `topic` has escapes.', {
    default: true,
  }),
  topicHeader: text('The header in which an event names its topic.', { default: 'topic' }),
  batchSize: int('Events per delivery. What waits for the write before is written at once.', {
    flume: 'flumeBatchSize',
    formerly: 'batchSize',
    default: 100,
    min: 1,
    unit: 'events',
  }),
  acks: choice(['all', '1', '0'], { '-1': 'all' })(
    'Who has to have a record before it counts as written: as many replicas as the topic asks for, its leader (which may die with it), or nobody.',
    { flume: 'kafka.producer.acks', formerly: 'requiredAcks', default: 'all', agentDefault: '1' },
  ),
  useFlumeEventFormat: flag('Whether to write events in Avro, headers included, and not only their bodies.', {
    default: false,
  }),
  defaultPartitionId: int('The partition of events that do not name one. Default: by the header `key`, else evenly.', {
    optional: true,
    min: 0,
  }),
  partitionIdHeader: text('The header in which an event names its partition, as a number.', { optional: true }),
  timestampHeader: text('The header with the time of the record, in ms since 1970. Default: when it is written.', {
    optional: true,
  }),
  headers: map(
    'Headers of the record from headers of the event: the name of the header here, and what to call it there.',
    {
      flume: 'header.*',
      default: {},
    },
  ),
  ...producerFields,
};

const options = z.object(fields).superRefine((given, context) => {
  checkKafka(given, context);
  try {
    if (given.allowTopicOverride) escapes(given.topic);
  } catch (thrown) {
    context.addIssue({ code: 'custom', path: ['topic'], message: toError(thrown).message });
  }
});
type Options = z.output<typeof options>;
export type KafkaSinkOptions = z.input<typeof options>;

/**
 * Writes events to topics: the body as value, the header `key` as key.
 *
 * **acks** when the brokers have confirmed the record, see `acks` · **retries** in place whatever may pass: no broker, no
 * leader, an unknown topic; only the partitions that it concerns, and with acks `all` the broker knows what comes again ·
 * **rejects** alone what can never be written: larger than `max.request.size` or than the brokers allow (`MR_EVENT_TOO_LARGE`), no
 * right to write to the topic (`MR_KAFKA_NOT_AUTHORIZED`), a topic or partition that cannot be (`MR_BAD_INPUT`) · **nacks** only
 * when its retry policy is spent · keeps order in each partition: what is behind a record that could not be written waits for it.
 *
 * The topic is that of the event's header `topicHeader`, else `topic`. The partition is that of `partitionIdHeader`, else
 * `defaultPartitionId`, else by key as Java's producer has it; events without a key are spread evenly.
 *
 * An agent has Flume's default for `acks`, which is 1: what only a leader has dies with it. Code has `all`.
 */
export const kafkaSink = defineSink({
  type: 'kafka',
  className: 'org.apache.flume.sink.kafka.KafkaSink',
  summary: 'Writes events to Kafka topics.',
  batchSizeOption: 'batchSize',
  options,
  open: options => new Producing(options),
});

/** Bytes that are written at once, to all partitions together. */
const gather = 4 * 1024 * 1024;
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

class Producing implements SinkWriter {
  readonly gather = gather;
  readonly #options: Options;
  readonly #settings: ProducerSettings;
  /** How many partitions each has, and when that was so. */
  readonly #topics = new Map<string, { readonly partitions: number; readonly at: number }>();
  /** Records of which nobody knows whether they are in. The same again, to the same partition, and the broker can tell. */
  #unsure = new Map<FlumeEvent, { readonly partition: number; readonly record: NewRecord }>();
  #context!: SinkContext;
  #counters!: KafkaCounters;
  #addressOf!: ReturnType<typeof addressing>;
  #spread!: Spread;
  #client: KafkaClient | undefined;
  #producer: KafkaProducer | undefined;
  #turn: Promise<void> = Promise.resolve();

  constructor(options: Options) {
    this.#options = options;
    this.#settings = producerOf(options.acks, options.compression, options.producer);
  }

  async open(context: SinkContext): Promise<void> {
    const { log, name, random } = context;
    this.#context = context;
    this.#counters = Object.assign(context.counters, { KafkaEventSendTimer: 0, RollbackCount: 0 });
    this.#addressOf = addressing(this.#options, message => log.warn(`${name}: ${message}`));
    this.#spread = new Spread(random);
    try {
      this.#client ??= await connectTo(this.#options, log);
      this.#producer ??= this.#client.producer(this.#settings);
      await this.#tryTopic(this.#client);
    } catch (thrown) {
      this.#counters.ConnectionFailedCount++;
      throw thrown;
    }
    this.#counters.ConnectionCreatedCount++;
  }

  /** One batch at a time, however many lanes there are: each partition has one send. */
  write({ events }: Batch): Promise<void> {
    const done = this.#turn.then(() => this.#write(events));
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async close(): Promise<void> {
    await this.#producer?.close();
    await this.#client?.close();
    this.#counters.ConnectionClosedCount++;
  }

  /** So that trouble shows at the start. Events may go elsewhere, so a topic that is not there is no reason to wait. */
  async #tryTopic(client: KafkaClient): Promise<void> {
    const { topic, allowTopicOverride } = this.#options;
    if (topic === usualTopic || (allowTopicOverride && topic.includes('%'))) return;
    try {
      await client.partitions(topic);
    } catch (thrown) {
      const cause = toError(thrown);
      if (!isOneOf(cause, 'MR_KAFKA_UNKNOWN_TOPIC', 'MR_KAFKA_NOT_AUTHORIZED')) throw cause;
      this.#context.log.warn(`${this.#context.name}: ${cause.message}`, { cause });
    }
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
    const unsure = this.#unsure;
    this.#unsure = new Map();
    const addresses = events.map(({ headers }) => this.#addressOf(headers));
    const topics = await this.#look(addresses);
    for (let i = 0; i < events.length; i++) {
      const [event, address] = [events[i] as FlumeEvent, addresses[i] as Address | Error];
      if (address instanceof Error) {
        failed.set(i, address);
        continue;
      }
      const { partitions, loads } = topics.get(address.topic) as Outgoing;
      const again = unsure.get(event);
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
    const { maxRequestSize } = this.#settings;
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
    const oldest = this.#context.clock.now() - this.#settings.metadataMaxAge;
    const asked = Array.from(highest, async ([topic, partition]): Promise<[string, Outgoing]> => {
      const { partitions, at } = this.#topics.get(topic) ?? { partitions: 0, at: 0 };
      const known = at > oldest && partition < partitions;
      return [topic, { partitions: known ? partitions : await this.#ask(topic), loads: [] }];
    });
    return new Map(await Promise.all(asked));
  }

  async #ask(topic: string): Promise<number | Error> {
    try {
      const partitions = await (this.#client as KafkaClient).partitions(topic);
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
      until = from;
      for (let bytes = 0; until < records.length && until - from < sendRecords; until++) {
        bytes += sizes[until] as number;
        if (bytes > sendBytes && until > from) break;
      }
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
      await (this.#producer as KafkaProducer).send(to, whole ? records : records.slice(from, until));
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

type KafkaCounters = SinkCounters & { KafkaEventSendTimer: number; RollbackCount: number };

const isOneOf = (error: Error, ...codes: readonly ErrorCode[]): boolean =>
  error instanceof MillraceError && codes.includes(error.code);

/** What was thrown; but what is wrong with this program is not held against events. */
const blamed = (thrown: unknown): Error => {
  const cause = toError(thrown);
  if (!isOneOf(cause, 'MR_CONFIG', 'MR_PEER_MISSING')) return cause;
  return new MillraceError((cause as MillraceError).code, cause.message, { cause, retriable: true });
};
