/**
 * Message sets, formats 0 and 1: how records lay on brokers before Kafka 0.11, and still do where nobody has written since. See
 * https://kafka.apache.org/documentation/#messageset
 *
 *      0  8  offset
 *      8  4  length of what follows
 *     12  4  CRC-32
 *     16  1  format, 0 or 1
 *     17  1  attributes: compression (bits 0 to 2)
 *     18  8  time in ms, in format 1 only
 *            key and value, each with its length (4 bytes) in front, -1 for null
 *
 * The value of a compressed one is a message set. In format 1 the offsets inside count from that of the first, and the outer one is
 * that of the last.
 *
 * @module
 */
import type { ReadRecord } from './client.ts';

const compressionMask = 0x07;

/** The records of messages that lie behind each other, the last of which may be cut off. Ends before a batch of a newer format. */
export const decodeMessageSet = async (
  bytes: Buffer,
  decompress: (codec: number, messages: Buffer) => Promise<Buffer>,
): Promise<ReadRecord[]> => {
  const records: ReadRecord[] = [];
  for (let at = 0; at + 12 <= bytes.length;) {
    const end = at + 12 + bytes.readInt32BE(at + 8);
    const format = bytes[at + 16];
    if (end > bytes.length || (format !== 0 && format !== 1)) break;
    const offset = Number(bytes.readBigInt64BE(at));
    const codec = bytes.readInt8(at + 17) & compressionMask;
    const timestamp = format === 1 ? Number(bytes.readBigInt64BE(at + 18)) : -1;
    const key = field(bytes, at + (format === 1 ? 26 : 18));
    const value = field(bytes, key.end);
    at = end;
    if (codec === 0) {
      records.push({ offset, timestamp, key: key.bytes, value: value.bytes, headers: undefined });
      continue;
    }
    const inner = await decodeMessageSet(await decompress(codec, value.bytes ?? Buffer.alloc(0)), decompress);
    const first = format === 1 ? offset - (inner.at(-1)?.offset ?? 0) : 0;
    for (const record of inner) records.push({ ...record, offset: first + record.offset });
  }
  return records;
};

const field = (bytes: Buffer, at: number): { readonly bytes: Buffer | null; readonly end: number } => {
  const length = bytes.readInt32BE(at);
  const end = at + 4 + Math.max(0, length);
  return { bytes: length < 0 ? null : bytes.subarray(at + 4, end), end };
};
