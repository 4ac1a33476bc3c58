/**
 * Writes to partitions. Follows the rules of KIP-98 for one producer id and one request in flight per partition: what is sent again
 * keeps its sequence number, so that the broker knows it, and nothing else ever gets that number.
 *
 * @module
 */
import { isPermanent, MillraceError } from '../../../core/errors.ts';
import type { KafkaProducer, NewRecord, ProducerOptions, TopicPartition } from '../client.ts';
import { nameOf } from '../partitions.ts';
import { wait, waitAfter } from '../waiting.ts';
import { code, kafkaError, Refused } from '../refused.ts';
import type { Cluster } from './cluster.ts';
import { leaderOf, packingOf, produce } from './produce.ts';
import { initProducerId, type ProducerId } from './requests.ts';

/** How often a batch is sent before the caller hears of it: about three seconds if brokers answer, and else `requestTimeout`. */
const attempts = 6;

interface Partition {
  busy: boolean;
  /** Undefined: a new one is needed, because nobody knows what the broker knows of the old one. */
  producer: ProducerId | undefined;
  sequence: number;
  /** Was sent with this sequence number and may be in. Only the same may be sent with it again. */
  unsure: readonly NewRecord[] | undefined;
}

/** The broker does not know the sequence numbers of this producer id any more. */
const sequenceLost: ReadonlySet<number> = new Set([
  code.OUT_OF_ORDER_SEQUENCE_NUMBER,
  code.INVALID_PRODUCER_EPOCH,
  code.INVALID_PRODUCER_ID_MAPPING,
  code.UNKNOWN_PRODUCER_ID,
]);

export const createProducer = (cluster: Cluster, options: ProducerOptions): KafkaProducer => {
  const { acks = 'all', compression = 'none', requestTimeout = 30_000 } = options;
  const idempotent = options.idempotent ?? acks === 'all';
  if (idempotent && acks !== 'all')
    throw new MillraceError('MR_CONFIG', `Kafka: an idempotent producer needs acks \`all\`, not ${acks}.`);
  const packing = packingOf(compression);
  const partitions = new Map<string, Partition>();
  let newest: Promise<ProducerId> | undefined;

  const newProducerId = async (): Promise<ProducerId> => {
    const node = await cluster.any();
    const { errorCode, id, epoch } = await node.ask(initProducerId(null, 60_000));
    if (errorCode !== 0) throw cluster.refused(errorCode, 'asking for a producer id');
    return { id, epoch };
  };

  /** The newest id that this partition has not used up. */
  const producerFor = async (state: Partition, usedUp: ProducerId | undefined): Promise<ProducerId> => {
    for (;;) {
      const asked = (newest ??= newProducerId());
      const producer = await asked.catch((thrown: unknown) => {
        if (newest === asked) newest = undefined;
        throw thrown;
      });
      if (producer.id !== usedUp?.id) {
        state.producer = producer;
        state.sequence = 0;
        return producer;
      }
      if (newest === asked) newest = undefined;
    }
  };

  const sendOnce = async (to: TopicPartition, state: Partition, records: readonly NewRecord[]): Promise<number> => {
    const leader = await leaderOf(cluster, to);
    const producer = idempotent ? (state.producer ?? (await producerFor(state, undefined))) : undefined;
    const node = await cluster.node(leader);
    const asking = produce(cluster, node, to, records, {
      acks: acks === 'all' ? -1 : acks,
      requestTimeout,
      packing,
      producer: producer && { ...producer, sequence: state.sequence },
    });
    state.unsure = records;
    return asking;
  };

  const sendBatch = async (to: TopicPartition, state: Partition, records: readonly NewRecord[]): Promise<number> => {
    if (state.unsure !== undefined && !same(state.unsure, records)) {
      if (idempotent) await producerFor(state, state.producer);
      state.unsure = undefined;
    }
    const patience = Date.now() + requestTimeout;
    for (let attempt = 1; ; attempt++) {
      const before = state.unsure;
      try {
        const offset = await cluster.orClosed(sendOnce(to, state, records));
        state.unsure = undefined;
        state.sequence = (state.sequence + records.length) % 2 ** 31;
        return offset;
      } catch (thrown) {
        const error = kafkaError(thrown, `writing to topic ${to.topic}, partition ${to.partition}`);
        if (error instanceof Refused && sequenceLost.has(error.broker)) {
          await producerFor(state, state.producer);
        } else if (isPermanent(error)) {
          // Not in by this attempt, so if there was none before the sequence number is free.
          state.unsure = before;
          throw error;
        }
        if (cluster.closed.aborted) throw error;
        const late = Date.now() > patience;
        // Who leads now is for the next call to know.
        if (late) await cluster.refresh([to.topic]).catch(() => undefined);
        if (late || attempt >= attempts) throw error;
      }
      await wait(waitAfter(attempt, 1000), cluster.closed);
      await cluster.refresh([to.topic]).catch(() => undefined);
    }
  };

  return {
    async send(to, records) {
      if (records.length === 0) return -1;
      const key = nameOf(to);
      const state = partitions.get(key) ?? { busy: false, producer: undefined, sequence: 0, unsure: undefined };
      partitions.set(key, state);
      if (state.busy)
        throw new MillraceError(
          'MR_CONFIG',
          `Kafka: another send to topic ${to.topic}, partition ${to.partition} is not done yet.`,
        );
      state.busy = true;
      try {
        return await sendBatch(to, state, records);
      } finally {
        state.busy = false;
      }
    },
    close() {
      cluster.close();
      return Promise.resolve();
    },
  };
};

/** True if these are the same bytes, so that sending them with the same number cannot hide anything. */
const same = (one: readonly NewRecord[], other: readonly NewRecord[]): boolean =>
  one === other ||
  (one.length === other.length &&
    one.every((record, index) => {
      const against = other[index];
      return (
        record === against ||
        (against !== undefined &&
          record.timestamp === against.timestamp &&
          record.headers === against.headers &&
          equal(record.key, against.key) &&
          equal(record.value, against.value))
      );
    }));

const equal = (one: Buffer | null, other: Buffer | null): boolean =>
  one === other || (one !== null && other !== null && one.equals(other));
