/**
 * Writing with the encoding of @platformatic/kafka. Its own producer numbers batches wrongly when several sends are on their way and
 * begins anew after a failure; here each partition has its numbers.
 *
 * @module
 */
import { isPermanent, MillraceError, toError } from '../../../core/errors.ts';
import type { KafkaProducer, NewRecord, ProducerOptions, RecordHeaders, TopicPartition } from '../client.ts';
import { code, elsewhere } from '../refused.ts';
import { nameOf } from '../partitions.ts';
import { wait } from '../waiting.ts';
import type { Cluster } from './cluster.ts';

/** A partition as the broker knows this producer there. */
interface Lane {
  busy: boolean;
  epoch: number;
  sequence: number;
  /** Sent, but nobody knows whether it is in. */
  unsure: readonly NewRecord[] | undefined;
}

const lastEpoch = 32_767;
/** In ms. */
const again = 100;
/** The broker has forgotten us, or knows more or less than we do. */
const sequenceLost: ReadonlySet<number> = new Set([
  code.OUT_OF_ORDER_SEQUENCE_NUMBER,
  code.INVALID_PRODUCER_EPOCH,
  code.INVALID_PRODUCER_ID_MAPPING,
  code.UNKNOWN_PRODUCER_ID,
]);

export class Producer implements KafkaProducer {
  readonly #cluster: Cluster;
  readonly #options: ProducerOptions;
  readonly #idempotent: boolean;
  readonly #timeout: number;
  readonly #lanes = new Map<string, Lane>();
  #id: Promise<bigint> | undefined;

  constructor(cluster: Cluster, options: ProducerOptions, timeout: number) {
    this.#cluster = cluster;
    this.#options = options;
    this.#idempotent = (options.idempotent ?? true) && (options.acks ?? 'all') === 'all';
    this.#timeout = timeout;
  }

  async send(to: TopicPartition, records: readonly NewRecord[]): Promise<number> {
    if (records.length === 0) return -1;
    const name = nameOf(to);
    const lane = this.#lanes.get(name) ?? { busy: false, epoch: 0, sequence: 0, unsure: undefined };
    this.#lanes.set(name, lane);
    if (lane.busy) throw new MillraceError('MR_CONFIG', `Kafka: another send to ${name} is not done yet.`);
    lane.busy = true;
    // A broker tells batches by their numbers only: other records with these numbers it would drop.
    if (lane.unsure !== undefined && !same(lane.unsure, records)) this.#anew(lane);
    const before = lane.unsure;
    try {
      const offset = await this.#write(to, lane, records);
      lane.sequence = (lane.sequence + records.length) % 2 ** 31;
      lane.unsure = undefined;
      return offset;
    } catch (thrown) {
      const error = toError(thrown);
      if (isPermanent(error)) lane.unsure = before;
      else this.#cluster.forget(to.topic);
      throw error;
    } finally {
      lane.busy = false;
    }
  }

  close(): Promise<void> {
    this.#cluster.close();
    return Promise.resolve();
  }

  /** Numbers begin again, and what is still on its way with older ones is refused. */
  #anew(lane: Lane): void {
    // Other partitions meet an id that is new to the broker, and begin again as well.
    if (lane.epoch === lastEpoch) this.#id = undefined;
    lane.epoch = (lane.epoch + 1) % (lastEpoch + 1);
    lane.sequence = 0;
    lane.unsure = undefined;
  }

  async #write(to: TopicPartition, lane: Lane, records: readonly NewRecord[]): Promise<number> {
    const { wire } = this.#cluster;
    const { acks = 'all', compression = 'none' } = this.#options;
    const { address } = await this.#cluster.leader(to);
    const id = this.#idempotent ? await this.#producerId() : undefined;
    const asking = this.#cluster.ask(
      address,
      `writing to ${nameOf(to)}`,
      wire.produceV9.api,
      acks === 'all' ? -1 : acks,
      this.#timeout,
      records.map(record => encoded(to, record)),
      {
        compression,
        ...(id !== undefined && {
          producerId: id,
          producerEpoch: lane.epoch,
          sequences: new wire.NumericMap([[`${to.topic}:${to.partition}`, lane.sequence]]),
        }),
      },
    );
    lane.unsure = records;
    const answer = await asking;
    // With acks 0 there is none.
    if (typeof answer === 'boolean') return -1;
    const result = answer.responses[0]?.partitionResponses[0];
    if (result?.index !== to.partition)
      throw new MillraceError('MR_KAFKA', `Kafka: an answer does not speak of ${nameOf(to)}.`);
    const { errorCode, baseOffset } = result;
    // Older than what the broker remembers, but in.
    if (errorCode === code.DUPLICATE_SEQUENCE_NUMBER) return -1;
    if (sequenceLost.has(errorCode)) this.#anew(lane);
    if (errorCode !== 0)
      throw this.#cluster.refused(
        errorCode,
        `broker ${address.host}:${address.port}, writing to topic ${to.topic}, partition ${to.partition}`,
      );
    return Number(baseOffset);
  }

  #producerId(): Promise<bigint> {
    return (this.#id ??= (async () => {
      const { initProducerIdV4 } = this.#cluster.wire;
      const what = 'asking for a producer id';
      for (const end = Date.now() + this.#timeout; ;) {
        const { errorCode, producerId } = await this.#cluster.any(what, initProducerIdV4.api, null, 0, -1n, -1);
        if (errorCode === 0) return producerId;
        // A broker that has just started is not ready.
        if (!elsewhere.has(errorCode) || Date.now() > end) throw this.#cluster.refused(errorCode, what);
        await wait(again, this.#cluster.closed);
      }
    })().catch((thrown: unknown) => {
      this.#id = undefined;
      throw thrown;
    }));
  }
}

/** Each name is a key of its own, so that one that is there several times stays so. */
const encodedHeaders = (headers: RecordHeaders): Map<Buffer, Buffer> =>
  new Map(
    Object.entries(headers).flatMap(([name, values]) =>
      [values].flat().map((value: Buffer | string) => [Buffer.from(name), Buffer.from(value as string)] as const),
    ),
  );

const encoded = ({ topic, partition }: TopicPartition, { key, value, headers, timestamp }: NewRecord) => ({
  topic,
  partition,
  // Its types know no null, its encoder does.
  key: key as Buffer,
  value: value as Buffer,
  ...(headers !== undefined && { headers: encodedHeaders(headers) }),
  ...(timestamp !== undefined && { timestamp: BigInt(timestamp) }),
});

const same = (one: readonly NewRecord[], other: readonly NewRecord[]): boolean =>
  one === other || (one.length === other.length && one.every((record, i) => sameRecord(record, other[i] as NewRecord)));

const sameRecord = (one: NewRecord, other: NewRecord): boolean =>
  one === other ||
  (one.timestamp === other.timestamp &&
    one.headers === other.headers &&
    sameBytes(one.key, other.key) &&
    sameBytes(one.value, other.value));

const sameBytes = (one: Buffer | null, other: Buffer | null): boolean =>
  one === null || other === null ? one === other : one.equals(other);
