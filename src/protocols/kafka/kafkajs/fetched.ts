/**
 * What a broker answers to a Fetch of version 11 (Kafka 2.3 and newer). kafkajs refuses the whole answer for the first partition
 * that has an error or cannot be decoded, and its stack overflows at some 100 000 records; here each partition stands alone.
 *
 * @module
 */
import type { ReadRecord } from '../client.ts';
import type { Decoder, Message, Package } from './package.ts';

export interface FetchedPartition {
  readonly partition: number;
  readonly errorCode: number;
  readonly aborted: readonly { producerId: string; firstOffset: string }[];
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
    producerId: one.readInt64().toString(),
    firstOffset: one.readInt64().toString(),
  }));
  decoder.readInt32(); // The replica that we should rather ask.
  return { partition, errorCode, aborted, bytes: decoder.readBytes() };
};

export interface Decoded {
  readonly records: readonly ReadRecord[];
  /** Where to go on; what was asked for if nothing is there yet. */
  readonly next: number;
}

/** Where the version of the format is, in record batches and in message sets; and the least that a batch can be. */
const magicAt = 16;
const leastBatch = 49;

/** The records from `offset` on; without markers of transactions, and without what was aborted. */
export const decodeRecords = async (
  kafkajs: Pick<Package, 'Decoder' | 'decodeRecordBatch' | 'decodeMessageSet' | 'filterAborted'>,
  { bytes, aborted }: FetchedPartition,
  offset: number,
): Promise<Decoded> => {
  if (bytes === null || bytes.length <= magicAt) return { records: [], next: offset };
  const decoder = new kafkajs.Decoder(bytes);
  let messages: Message[] = [];
  let markers = false;
  if (bytes[magicAt] === 2) {
    while (decoder.canReadBytes(leastBatch)) {
      try {
        const { records } = await kafkajs.decodeRecordBatch(decoder);
        markers ||= records[0]?.batchContext?.isControlBatch === true;
        if (messages.length === 0) messages = records;
        else for (const record of records) messages.push(record);
      } catch (thrown) {
        if (thrown instanceof Error && thrown.name === 'KafkaJSPartialMessageError') break;
        throw thrown;
      }
    }
  } else {
    messages = await kafkajs.decodeMessageSet(decoder, bytes.length);
  }
  const last = messages.at(-1);
  if (last === undefined) return { records: [], next: offset };
  const context = last.batchContext;
  const end =
    context === undefined ? Number(last.offset) + 1 : Number(context.firstOffset) + context.lastOffsetDelta + 1;
  if (aborted.length > 0) messages = kafkajs.filterAborted({ messages, abortedTransactions: aborted });
  if (markers) messages = messages.filter(({ isControlRecord }) => isControlRecord !== true);
  return { records: asRecords(messages, offset), next: Math.max(offset, end) };
};

/** The same objects, with numbers where kafkajs has texts. A batch is read from its beginning, so the first may be too early. */
const asRecords = (messages: Message[], offset: number): ReadRecord[] => {
  let early = 0;
  for (const message of messages) {
    const record = message as unknown as { -readonly [Name in keyof ReadRecord]: ReadRecord[Name] };
    record.offset = Number(message.offset);
    record.timestamp = Number(message.timestamp);
    if (record.offset < offset) early++;
    for (const name in message.headers) message.headers[name] = withoutNull(message.headers[name] ?? null);
  }
  const records = messages as unknown as ReadRecord[];
  return early === 0 ? records : records.slice(early);
};

const nothing = Buffer.alloc(0);

/** Headers of the port have no null; Java's null is empty here. */
const withoutNull = (value: Buffer | null | (Buffer | null)[]): Buffer | Buffer[] =>
  Array.isArray(value) ? value.map(one => one ?? nothing) : (value ?? nothing);
