/**
 * One Produce request: records for one partition.
 *
 * @module
 */
import { MillraceError } from '../../../core/errors.ts';
import type { Compression, NewRecord, RecordHeaders, TopicPartition } from '../client.ts';
import { encodeRecordBatch, type BatchFields } from '../record-batch.ts';
import type { Cluster, Node } from './cluster.ts';
import { codecNumbers } from './codecs.ts';
import { code } from '../refused.ts';
import { refusedBy } from './errors.ts';
import type { Codec, Package } from './package.ts';

export interface ProducerId {
  readonly id: string;
  readonly epoch: number;
}

export interface ProduceOptions {
  /** As the protocol has it: -1 is all. */
  readonly acks: number;
  /** In ms. */
  readonly requestTimeout: number;
  readonly packing: BatchFields['compression'];
  readonly producer: (ProducerId & { readonly sequence: number }) | undefined;
  /** The records are part of its transaction. */
  readonly transactionalId?: string;
}

interface ProduceAnswer {
  readonly topics: readonly {
    readonly topicName: string;
    readonly partitions: readonly {
      readonly partition: number;
      readonly errorCode: number;
      readonly baseOffset: string;
    }[];
  }[];
}

/** How the record batches of a producer are compressed. */
export const packingOf = ({ codecs }: Package, compression: Compression): BatchFields['compression'] => {
  if (compression === 'none') return undefined;
  const codec = codecNumbers[compression];
  return { codec, compress: bytes => (codecs[codec] as () => Codec)().compress({ buffer: bytes }) };
};

/** The id of the broker that leads a partition. */
export const leaderOf = async (cluster: Cluster, { topic, partition }: TopicPartition): Promise<number> => {
  const where = `topic ${topic}, partition ${partition}`;
  const known = cluster.leader(topic, partition);
  if (known !== undefined) return known;
  await cluster.refresh([topic]);
  const leader = cluster.leader(topic, partition);
  if (leader !== undefined) return leader;
  const { code: refusal, partitions: count } = cluster.topic(topic);
  if (refusal !== 0) throw refusedBy(cluster.kafkajs, refusal, `writing to ${where}`);
  if (partition < count) throw new MillraceError('MR_KAFKA', `Kafka: ${where} has no leader now.`);
  throw new MillraceError(
    'MR_KAFKA_UNKNOWN_TOPIC',
    `Kafka: topic ${topic} has ${count} partitions, so there is no partition ${partition}.`,
  );
};

/** Resolves with the offset of the first record, or -1 if the broker does not say. */
export const produce = async (
  kafkajs: Package,
  node: Node,
  { topic, partition }: TopicPartition,
  records: readonly NewRecord[],
  { acks, requestTimeout, packing, producer, transactionalId }: ProduceOptions,
): Promise<number> => {
  const where = `topic ${topic}, partition ${partition}`;
  const batch = {
    now: Date.now(),
    producer: producer && { id: BigInt(producer.id), epoch: producer.epoch, sequence: producer.sequence },
    transactional: transactionalId !== undefined,
    compression: packing,
  };
  const clean = records.some(({ headers }) => headers !== undefined) ? records.map(withCleanHeaders) : records;
  // Versions 3 to 8 of a Produce request.
  const encode = async () => {
    const bytes = await encodeRecordBatch(clean, batch);
    return new kafkajs.Encoder(bytes.length + 1024)
      .writeString(transactionalId ?? null)
      .writeInt16(acks)
      .writeInt32(requestTimeout)
      .writeInt32(1)
      .writeString(topic)
      .writeInt32(1)
      .writeInt32(partition)
      .writeBytes(bytes);
  };
  const answer = await node.ask<ProduceAnswer | undefined>('Produce', { acks, topicData: [] }, { encode });
  if (acks === 0) return -1;
  const result = answer?.topics
    .find(({ topicName }) => topicName === topic)
    ?.partitions.find(one => one.partition === partition);
  if (result === undefined)
    throw new MillraceError('MR_KAFKA', `Kafka broker ${node.address}: its answer does not speak of ${where}.`);
  // Older than what the broker remembers of this producer, but in.
  if (result.errorCode === code.DUPLICATE_SEQUENCE_NUMBER) return -1;
  if (result.errorCode !== 0) throw refusedBy(kafkajs, result.errorCode, `broker ${node.address}, writing to ${where}`);
  return Number(result.baseOffset);
};

/** Callers without types may give numbers, or nothing. */
const withCleanHeaders = (record: NewRecord): NewRecord =>
  record.headers === undefined ? record : { ...record, headers: cleaned(record.headers) };

const cleaned = (headers: RecordHeaders): RecordHeaders => {
  const all: Record<string, RecordHeaders[string]> = {};
  for (const name in headers) {
    const value: unknown = headers[name];
    if (value === null || value === undefined) continue;
    all[name] =
      typeof value === 'number' || typeof value === 'boolean' ? String(value) : (value as RecordHeaders[string]);
  }
  return all;
};
