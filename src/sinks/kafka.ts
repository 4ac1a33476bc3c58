/**
 * Events as records of Kafka topics: Flume's Kafka sink. How they are written is in src/protocols/kafka/record-writer.ts.
 *
 * @module
 */
import { z } from 'zod';
import { defineSink } from '../core/component.ts';
import { tagOf, type Delivery } from '../core/delivery.ts';
import { MillraceError, toError } from '../core/errors.ts';
import type { Batch } from '../core/event.ts';
import { choice, code, flag, int, map, text } from '../core/options.ts';
import type { SinkContext, SinkWriter } from '../core/sink.ts';
import { own, possibleTopic } from '../protocols/kafka/address.ts';
import type { KafkaClient } from '../protocols/kafka/client.ts';
import type { Taken } from '../protocols/kafka/group-reader.ts';
import { connectTo } from '../protocols/kafka/connect.ts';
import { probeKafka } from '../protocols/kafka/probe.ts';
import {
  checkKafka,
  connectionFields,
  producerFields,
  producerOf,
  type ProducerSettings,
} from '../protocols/kafka/properties.ts';
import { gatherBytes, isOneOf, RecordWriter } from '../protocols/kafka/record-writer.ts';
import { escapes } from './escapes.ts';

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
  exactlyOnce: code<boolean>()(
    'Whether to write what a kafkaSource with `exactlyOnce` emits in transactions that hold its offsets.',
    { optional: true },
  ),
  ...producerFields,
};

const options = z.object(fields).superRefine((given, context) => {
  checkKafka(given, context);
  if (given.exactlyOnce === true && given.acks !== 'all')
    context.addIssue({ code: 'custom', path: ['acks'], message: 'transactions need acks `all`' });
  try {
    if (given.allowTopicOverride && given.topic.includes('%')) escapes(given.topic);
    else possibleTopic(given.topic);
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
 * With `exactlyOnce` each delivery of a `kafkaSource` that has `exactlyOnce` too is one transaction, written by the source's
 * client: what is made of it, and the offset behind it. Then nothing is rejected: what can never be written holds up its partition.
 * Deliveries that are anything else, or of a source that names other brokers, are refused and tried again, with a message that says
 * why. See {@link kafkaSource}.
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
  probe(options, context) {
    const { defaultPartitionId: partition, acks, compression } = options;
    const topic = ownTopic(options);
    return probeKafka(
      options,
      {
        topics: topic === undefined ? [] : [topic],
        option: 'topic',
        read: false,
        write: true,
        partition,
        producer: producerOf(acks, compression, options.producer),
      },
      context,
    );
  },
});

/** Undefined if events are going to name theirs. */
const ownTopic = ({ topic, allowTopicOverride }: Options): string | undefined =>
  topic === usualTopic || (allowTopicOverride && topic.includes('%')) ? undefined : topic;

class Producing implements SinkWriter {
  readonly gather: number;
  readonly #options: Options;
  readonly #settings: ProducerSettings;
  #context!: SinkContext;
  #client: KafkaClient | undefined;
  #writer: RecordWriter | undefined;

  constructor(options: Options) {
    this.#options = options;
    // A transaction is about one delivery.
    this.gather = options.exactlyOnce === true ? 0 : gatherBytes;
    this.#settings = producerOf(options.acks, options.compression, options.producer);
  }

  async open(context: SinkContext): Promise<void> {
    this.#context = context;
    const { topic, topicHeader, allowTopicOverride } = this.#options;
    const escaped = allowTopicOverride ? escapes(topic) : undefined;
    const counters = Object.assign(context.counters, { KafkaEventSendTimer: 0, RollbackCount: 0 });
    try {
      this.#client ??= await this.#connect(context);
      this.#writer ??= new RecordWriter(
        {
          ...this.#options,
          topicOf: headers => (escaped === undefined ? topic : (own(headers, topicHeader) ?? escaped(headers))),
          producer: this.#settings,
        },
        this.#client,
        context,
        counters,
      );
      await this.#tryTopic(this.#client);
    } catch (thrown) {
      counters.ConnectionFailedCount++;
      throw thrown;
    }
    counters.ConnectionCreatedCount++;
  }

  async #connect({ log, unwanted }: SinkContext): Promise<KafkaClient> {
    const client = await connectTo(this.#options, log);
    // Brokers may take long to say nothing.
    if (unwanted.aborted) await client.close();
    else unwanted.addEventListener('abort', () => void client.close(), { once: true });
    return client;
  }

  write(batch: Batch, of: Delivery): Promise<void> {
    const writer = this.#writer as RecordWriter;
    if (this.#options.exactlyOnce !== true) return writer.write(batch);
    const range = (tagOf(of) as Partial<Taken> | undefined)?.range;
    if (range !== undefined) {
      const { bootstrapServers } = this.#options;
      if (range.brokers.some(broker => bootstrapServers.includes(broker))) return writer.transact(batch, range);
      throw new MillraceError(
        'MR_CONFIG',
        `exactlyOnce: the kafkaSource reads from ${range.brokers.join()}, and this sink is to write to ${bootstrapServers.join()}. One ` +
          'transaction is on one cluster: give both the same bootstrapServers.',
        { retriable: true },
      );
    }
    throw new MillraceError(
      'MR_CONFIG',
      'exactlyOnce: this is no whole delivery of a kafkaSource with exactlyOnce. Between the two there may be stages that change ' +
        'or filter events, and none that splits, joins, copies or keeps deliveries, as rebatch, keyed, route, replicate and channels do.',
      { retriable: true },
    );
  }

  async close(): Promise<void> {
    await this.#writer?.close();
    await this.#client?.close();
    this.#context.counters.ConnectionClosedCount++;
  }

  /** So that trouble shows at the start. Events may go elsewhere, so a topic that is not there is no reason to wait. */
  async #tryTopic(client: KafkaClient): Promise<void> {
    const topic = ownTopic(this.#options);
    if (topic === undefined) return;
    try {
      await client.partitions(topic);
    } catch (thrown) {
      const cause = toError(thrown);
      if (!isOneOf(cause, 'MR_KAFKA_UNKNOWN_TOPIC', 'MR_KAFKA_NOT_AUTHORIZED')) throw cause;
      this.#context.log.warn(`${this.#context.name}: ${cause.message}`, { cause });
    }
  }
}
