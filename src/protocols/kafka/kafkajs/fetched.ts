/**
 * What a broker answers to a Fetch of version 11 (Kafka 2.3 and newer). kafkajs refuses the whole answer for the first partition
 * that has an error or cannot be decoded, and its stack overflows at some 100 000 records; here each partition stands alone.
 *
 * @module
 */
import { MillraceError } from '../../../core/errors.ts';
import type { ReadRecord } from '../client.ts';
import { decodeRecordBatches, type Aborted } from '../record-batch.ts';
import type { Codec, Decoder, Package } from './package.ts';

export interface FetchedPartition {
  readonly partition: number;
  readonly errorCode: number;
  readonly aborted: readonly Aborted[];
  /** Record batches; the last may be cut off. */
  readonly bytes: Buffer | null;
}

export interface Fetched {
  /** Read by kafkajs. */
  readonly clientSideThrottleTime: number;
  readonly errorCode: number;
  readonly topics: readonly { readonly topic: string; readonly partitions: readonly FetchedPartition[] }[];
}

export const decodeFetch =
  ({ Decoder }: Pick<Package, 'Decoder'>) =>
  (raw: Buffer): Promise<Fetched> => {
    const decoder = new Decoder(raw);
    const clientSideThrottleTime = decoder.readInt32();
    const errorCode = decoder.readInt16();
    decoder.readInt32(); // The session, which we never open.
    const topics = decoder.readArray(one => ({ topic: one.readString(), partitions: one.readArray(readPartition) }));
    return Promise.resolve({ clientSideThrottleTime, errorCode, topics });
  };

const readPartition = (decoder: Decoder): FetchedPartition => {
  const partition = decoder.readInt32();
  const errorCode = decoder.readInt16();
  decoder.readInt64(); // High watermark.
  decoder.readInt64(); // Last stable offset.
  decoder.readInt64(); // First offset.
  const aborted = decoder.readArray(one => ({
    producerId: BigInt(one.readInt64().toString()),
    firstOffset: Number(one.readInt64()),
  }));
  decoder.readInt32(); // The replica that we should rather ask.
  return { partition, errorCode, aborted, bytes: decoder.readBytes() };
};

export interface Decoded {
  readonly records: readonly ReadRecord[];
  /** Where to go on; what was asked for if nothing is there yet. */
  readonly next: number;
}

/** Where the version of the format is, in record batches and in message sets. */
const magicAt = 16;

/** The records from `offset` on; without markers of transactions, and without what was aborted. */
export const decodeRecords = async (
  kafkajs: Pick<Package, 'Decoder' | 'decodeMessageSet' | 'codecs'>,
  { bytes, aborted }: FetchedPartition,
  offset: number,
  where: string,
): Promise<Decoded> => {
  if (bytes === null || bytes.length <= magicAt) return { records: [], next: offset };
  if (bytes[magicAt] === 2) {
    const decompress = (codec: number, packed: Buffer) => codecOf(kafkajs, codec).decompress(packed);
    return decodeRecordBatches(bytes, { from: offset, aborted, decompress, where });
  }
  // From before Kafka 0.11.
  const messages = await kafkajs.decodeMessageSet(new kafkajs.Decoder(bytes), bytes.length);
  const records = messages.map(({ key, value, ...of }) => ({
    offset: Number(of.offset),
    timestamp: Number(of.timestamp),
    key,
    value,
    headers: undefined,
  }));
  const next = Math.max(offset, (records.at(-1)?.offset ?? -1) + 1);
  return { records: records.filter(record => record.offset >= offset), next };
};

const codecOf = ({ codecs }: Pick<Package, 'codecs'>, codec: number): Codec => {
  const make = codecs[codec];
  if (make === undefined)
    throw new MillraceError(
      'MR_KAFKA',
      `Kafka: records are compressed with a codec of number ${codec}, which is unknown.`,
    );
  return make();
};
