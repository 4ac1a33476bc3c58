/**
 * Records of Kafka topics: Flume's Kafka source.
 *
 * What reading as a member of a group is, with its prefetch, positions and fences, is in src/protocols/kafka/group-reader.ts.
 *
 * @module
 */
import { Observable, type OperatorFunction } from 'rxjs';
import { z } from 'zod';
import {
  defineSource,
  describe,
  type Finding,
  type Identity,
  type ProbeContext,
  type SourceTuning,
} from '../core/component.ts';
import { MillraceError, toError } from '../core/errors.ts';
import { newHeaders, noHeaders, type FlumeEvent, type Headers } from '../core/event.ts';
import type { Delivery } from '../core/delivery.ts';
import { code, flag, int, list, map, text } from '../core/options.ts';
import type { Emitter, Settled, SourceContext, SourceSession } from '../core/source.ts';
import { deadLetter } from '../operators/dead-letter.ts';
import type { Destination } from '../operators/routing/destination.ts';
import { decodeAvroEvent } from '../protocols/avro-event.ts';
import { possibleTopic } from '../protocols/kafka/address.ts';
import type { KafkaClient, ReadRecord, RecordHeaders, TopicPartition } from '../protocols/kafka/client.ts';
import { connectTo } from '../protocols/kafka/connect.ts';
import { GroupReader, withGroupCounters, type Taken } from '../protocols/kafka/group-reader.ts';
import { groupFields, groupOptionsOf } from '../protocols/kafka/group-options.ts';
import { probeKafka } from '../protocols/kafka/probe.ts';
import { checkKafka, connectionFields, consumerFields, consumerOf } from '../protocols/kafka/properties.ts';

const fields = {
  ...connectionFields,
  topics: list('The topics.', { flume: 'kafka.topics', formerly: 'topic', optional: true, example: 'orders' }),
  topicsRegex: text('A regular expression that the whole name of a topic has to match, instead of names.', {
    flume: 'kafka.topics.regex',
    optional: true,
  }),
  ...groupFields,
  batchSize: int('Records per delivery, at most. What there is leaves at once.', {
    default: 1000,
    min: 1,
    unit: 'records',
  }),
  useFlumeEventFormat: flag('Whether values are events in Avro, headers included, as the Kafka sink writes them.', {
    default: false,
  }),
  setTopicHeader: flag('Whether to add a header with the topic.', { default: true }),
  topicHeader: text('The name of that header.', { default: 'topic' }),
  headers: map('Headers from headers of the record: the name of the header here, and what it is called there.', {
    flume: 'header.*',
    default: {},
  }),
  deadLetter: code<Destination>()(
    'Where records go that cannot be understood, instead of onPoison: a sink, an `input()` of a channel, or a function that subscribes.',
    { optional: true },
  ),
  exactlyOnce: code<boolean>()(
    'Whether offsets are committed by a kafkaSink with `exactlyOnce`, in the transactions that it writes with. No other sink will do.',
    { optional: true },
  ),
  ...consumerFields,
};

const options = z.object(fields).superRefine((given, context) => {
  checkKafka(given, context);
  const { topics = [], topicsRegex } = given;
  if (topicsRegex === undefined && topics.length === 0)
    context.addIssue({
      code: 'custom',
      path: ['topics'],
      message: 'there are none: name some, or give a regular expression for them',
    });
  try {
    if (topicsRegex === undefined) topics.forEach(possibleTopic);
    else new RegExp(topicsRegex);
  } catch (thrown) {
    const path = [topicsRegex === undefined ? 'topics' : 'topicsRegex'];
    context.addIssue({ code: 'custom', path, message: toError(thrown).message });
  }
});
type Options = z.output<typeof options>;
export type KafkaSourceOptions = z.input<typeof options>;

const topicsOf = ({ topics = [], topicsRegex }: Options): readonly string[] | RegExp =>
  topicsRegex === undefined ? topics : new RegExp(`^(?:${topicsRegex})$`);

class Consuming implements SourceSession<Taken> {
  readonly #options: Options;
  readonly #emitter: Emitter<FlumeEvent, Taken>;
  readonly #client: KafkaClient;
  readonly #reader: GroupReader;
  /** Names of headers here and in records. */
  readonly #mapped: readonly (readonly [string, string])[];
  #asked = false;

  constructor(options: Options, client: KafkaClient, emitter: Emitter<FlumeEvent, Taken>, context: SourceContext) {
    this.#options = options;
    this.#emitter = emitter;
    this.#client = client;
    this.#mapped = Object.entries(options.headers);
    const { groupId, deadLetter: letter } = options;
    const { offsetReset, ...consumer } = consumerOf(options.consumer);
    this.#reader = new GroupReader(
      client,
      { ...consumer, groupId, topics: topicsOf(options) },
      {
        ...groupOptionsOf(options, offsetReset, 'latest'),
        ...(letter !== undefined && { onPoison: 'pass' }),
        exactlyOnce: options.exactlyOnce === true ? options.bootstrapServers : undefined,
      },
      {
        decode: (record, of) => this.#eventOf(record, of),
        ready: () => this.#emit(),
        withdraw: gone => emitter.withdraw(gone),
        failed: cause => emitter.fail(cause),
        skipped: () => {
          context.ledger.accepted++;
          context.ledger.rejected++;
        },
        health: wrong => context.metrics.trouble(context.name, wrong),
      },
      context,
      withGroupCounters(context.counters),
    );
  }

  pull(): void {
    this.#asked = true;
    this.#emit();
  }

  settled(taken: Taken, what: Settled): void {
    if (what === 'acked') this.#reader.done(taken);
    else this.#reader.release(taken);
  }

  stop(): void {
    this.#reader.stop();
  }

  async close(): Promise<void> {
    try {
      await this.#reader.close();
    } finally {
      await this.#client.close();
    }
  }

  #emit(): void {
    if (!this.#asked) return;
    const { batchSize } = this.#options;
    const taken = this.#reader.take(batchSize, Infinity, batchSize);
    if (taken === undefined) return;
    this.#asked = false;
    const { events, poison } = taken;
    if (poison !== undefined) poisonous.set(events[0] as FlumeEvent, poison);
    this.#emitter.emit(events, taken);
  }

  #eventOf(record: ReadRecord, { topic, partition }: TopicPartition): FlumeEvent {
    const { useFlumeEventFormat, setTopicHeader, topicHeader } = this.#options;
    const { offset, timestamp, key, value } = record;
    let [own, body]: [Headers, Buffer] = [noHeaders, value ?? nothing];
    if (useFlumeEventFormat) {
      if (value === null) throw new MillraceError('MR_BAD_INPUT', 'no Flume event in Avro: there is no value.');
      ({ headers: own, body } = decodeAvroEvent(value));
    }
    const headers = newHeaders();
    headers['timestamp'] = String(timestamp);
    if (setTopicHeader) headers[topicHeader] = topic;
    headers['partition'] = String(partition);
    headers['offset'] = String(offset);
    // What the event had stays.
    if (own !== noHeaders) Object.assign(headers, own);
    if (key !== null) headers['key'] = key.toString();
    for (const [name, inRecord] of this.#mapped) {
      const found = headerOf(record.headers, inRecord);
      if (found !== undefined) headers[name] = found;
    }
    return { headers: Object.freeze(headers), body };
  }
}

const nothing = Buffer.alloc(0);

/** The last value of a header. */
const headerOf = (headers: RecordHeaders | undefined, name: string): string | undefined => {
  if (headers === undefined || !Object.hasOwn(headers, name)) return undefined;
  const values = headers[name] as Buffer | string | readonly (Buffer | string)[];
  return (Array.isArray(values) ? (values as readonly (Buffer | string)[]).at(-1) : values)?.toString();
};

/** Records that could not be understood, and what is wrong with them. */
const poisonous = new WeakMap<FlumeEvent, Error>();

const rejectPoison: OperatorFunction<Delivery, Delivery> = source =>
  new Observable(subscriber =>
    source.subscribe({
      next: delivery => {
        const cause = delivery.length === 1 ? poisonous.get(delivery.events[0] as FlumeEvent) : undefined;
        if (cause === undefined) subscriber.next(delivery);
        else delivery.reject(cause);
      },
      error: (cause: unknown) => subscriber.error(cause),
      complete: () => subscriber.complete(),
    }),
  );

const info = {
  type: 'kafka',
  className: 'org.apache.flume.source.kafka.KafkaSource',
  summary: 'Records of Kafka topics, as a member of a consumer group.',
  batchSizeOption: 'batchSize',
  options,
  probe: (given: Options, context: ProbeContext): Promise<readonly Finding[]> =>
    probeKafka(
      given,
      {
        topics: topicsOf(given),
        option: given.topicsRegex === undefined ? 'topics' : 'topicsRegex',
        read: true,
        write: false,
        groupId: given.groupId,
      },
      context,
    ),
};

const reading = defineSource({
  ...info,
  open: options => async (emitter: Emitter<FlumeEvent, Taken>, context) =>
    new Consuming(options, await connectTo(options, context.log), emitter, context),
});

/**
 * Reads topics as a member of a consumer group.
 *
 * **emits** records of one partition, as many as there are but at most `batchSize`, as soon as there are any; partitions take
 * turns · **pauses** a partition when `prefetchRecords` or `prefetchBytes` wait to be delivered, and goes on when half of
 * its share is gone · **completes** when it is stopped · **errors** when its package is not installed, a file that its
 * options name cannot be read, or `auto.offset.reset=none` or `onOutOfRange: 'fail'` forbid to go on (`MR_KAFKA_OFFSET`); with
 * `exactlyOnce`, when a delivery is acked that is in no transaction (`MR_CONFIG`). Brokers that are away and topics that are missing
 * are reported, and waited for.
 *
 * A group that never committed begins with what is written from then on, unless `auto.offset.reset` is earliest; where it
 * begins is committed at once. The offset that is committed is that of the first record that is not acked. So a crash repeats records, those that were
 * acked in the last `commitInterval` and those that were out, and loses none. When a partition is revoked, what is out has
 * `revokeTimeout` to be acked, and that is committed; then its deliveries are not live any more, acks of them count for
 * nothing, and what was nacked is not delivered again here: whoever has the partition now reads it. Order is that of each
 * partition. A nack repeats from memory what is out, of all partitions, unless `redelivery` is `selective`.
 *
 * With `exactlyOnce`, and a {@link kafkaSink} with `exactlyOnce` at the other end, readers with `isolation.level=read_committed`
 * find what is made of each record exactly once, in the order of its partition, whoever dies or hangs. It is written to the same cluster,
 * of which both name at least one broker alike, by the client of this source. Between the two
 * only `intercept`, `mapBatch` and `deadLetter` are possible; the sink refuses everything else. If anybody else acks a delivery, another sink
 * or a channel for example, the source errors, and the offset stays before it. A transaction per delivery takes some 10 ms, so let
 * `batchSize` be thousands. Each partition has the transactional id `<groupId>/<topic>/<partition>`, which a cluster with rights
 * has to allow. All members of the group need the option. What goes elsewhere on the way, to a dead letter for example, may be
 * there twice. An agent has no such option: the channel between its source and its sink ends the one before the other begins.
 *
 * Headers, unless the event has them: `timestamp` (of the record, in ms), `topic` (see `topicHeader`), `partition`, `offset`;
 * and in any case `key`, if there is one, and what `headers` asks for. The body is the value; without a value it is empty.
 *
 * A record that cannot be understood (`useFlumeEventFormat`) is reported with topic, partition and offset, and counted in
 * `PoisonRecordCount`. With `deadLetter` it goes there, value and all, with the headers `topic`, `partition`, `offset`,
 * `timestamp` and `poison`; without, `onPoison` decides. Records that were deleted before they were read are reported with
 * their range, and counted in `LostRecordCount`.
 */
export const kafkaSource = describe(
  info,
  (given: KafkaSourceOptions & SourceTuning, identity?: Identity): Observable<Delivery> => {
    const source = reading(given, identity);
    return given.deadLetter === undefined ? source : source.pipe(deadLetter(given.deadLetter), rejectPoison);
  },
);
