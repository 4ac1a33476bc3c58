/**
 * One Produce request: records for one partition.
 *
 * @module
 */
import { MillraceError } from '../../../core/errors.ts';
import type { Compression, NewRecord, RecordHeaders, TopicPartition } from '../client.ts';
import { codecOf, numberOf } from '../codecs.ts';
import { encodeRecordBatch, type BatchFields } from '../record-batch.ts';
import { code } from '../refused.ts';
import type { Cluster, Node } from './cluster.ts';
import * as requests from './requests.ts';

export interface ProduceOptions {
  /** As the protocol has it: -1 is all. */
  readonly acks: number;
  /** In ms. */
  readonly requestTimeout: number;
  readonly packing: BatchFields['compression'];
  readonly producer: (requests.ProducerId & { readonly sequence: number }) | undefined;
  /** The records are part of its transaction. */
  readonly transactionalId?: string;
}

/** How the record batches of a producer are compressed. */
export const packingOf = (compression: Compression): BatchFields['compression'] => {
  if (compression === 'none') return undefined;
  const codec = codecOf(compression);
  return { codec: numberOf(compression), compress: bytes => codec.compress(bytes) };
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
  if (refusal !== 0) throw cluster.refused(refusal, `writing to ${where}`);
  if (partition < count) throw new MillraceError('MR_KAFKA', `Kafka: ${where} has no leader now.`);
  throw new MillraceError(
    'MR_KAFKA_UNKNOWN_TOPIC',
    `Kafka: topic ${topic} has ${count} partitions, so there is no partition ${partition}.`,
  );
};

/** Resolves with the offset of the first record, or -1 if the broker does not say. */
export const produce = async (
  cluster: Cluster,
  node: Node,
  { topic, partition }: TopicPartition,
  records: readonly NewRecord[],
  { acks, requestTimeout, packing, producer, transactionalId }: ProduceOptions,
): Promise<number> => {
  const where = `topic ${topic}, partition ${partition}`;
  const batch = {
    now: Date.now(),
    producer,
    transactional: transactionalId !== undefined,
    compression: packing,
  };
  const clean = records.some(({ headers }) => headers !== undefined) ? records.map(withCleanHeaders) : records;
  const fields = { acks, timeout: requestTimeout, transactionalId: transactionalId ?? null };
  const answer = await node.ask(requests.produce({ topic, partition }, await encodeRecordBatch(clean, batch), fields));
  if (acks === 0) return -1;
  const result = answer.partitions.find(one => one.topic === topic && one.partition === partition);
  if (result === undefined)
    throw new MillraceError('MR_KAFKA', `Kafka broker ${node.address}: its answer does not speak of ${where}.`);
  // Older than what the broker remembers of this producer, but in.
  if (result.errorCode === code.DUPLICATE_SEQUENCE_NUMBER) return -1;
  if (result.errorCode !== 0) throw cluster.refused(result.errorCode, `broker ${node.address}, writing to ${where}`);
  return result.offset;
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
