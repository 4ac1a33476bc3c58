/**
 * The records of a Fetch answer.
 *
 * @module
 */
import type { ReadRecord } from '../client.ts';
import { decompress } from '../codecs.ts';
import { decodeMessageSet } from '../message-set.ts';
import { decodeRecordBatches } from '../record-batch.ts';
import type { FetchedPartition } from './requests.ts';

export interface Decoded {
  readonly records: readonly ReadRecord[];
  /** Where to go on; what was asked for if nothing is there yet. */
  readonly next: number;
}

/** Where the version of the format is, in record batches and in message sets. */
const magicAt = 16;

/** The records from `offset` on; without markers of transactions, and without what was aborted. */
export const decodeRecords = async (
  { topic, partition, bytes, aborted }: Omit<FetchedPartition, 'errorCode'>,
  offset: number,
): Promise<Decoded> => {
  if (bytes === null || bytes.length <= magicAt) return { records: [], next: offset };
  const where = `topic ${topic}, partition ${partition}`;
  if (bytes[magicAt] === 2) return decodeRecordBatches(bytes, { from: offset, aborted, decompress, where });
  const records = await decodeMessageSet(bytes, decompress);
  const next = Math.max(offset, (records.at(-1)?.offset ?? -1) + 1);
  return { records: records.filter(record => record.offset >= offset), next };
};
