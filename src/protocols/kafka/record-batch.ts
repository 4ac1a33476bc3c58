/**
 * Kafka's record batches, format 2: how records lie in Produce requests, in Fetch answers and on the brokers' disks. See
 * https://kafka.apache.org/documentation/#recordbatch
 *
 *      0  8  offset of the first record
 *      8  4  length of what follows
 *     12  4  leader epoch, for brokers
 *     16  1  format, 2
 *     17  4  CRC-32C of what follows
 *     21  2  attributes: compression (bits 0 to 2), time of appending (3), of a transaction (4), a marker (5)
 *     23  4  offset of the last record minus that of the first
 *     27  8  first time, in ms; the times of records count from it
 *     35  8  last time
 *     43  8  producer id, or -1
 *     51  2  producer epoch
 *     53  4  sequence number of the first record
 *     57  4  number of records
 *     61     the records, all of them compressed together
 *
 * A record: its length, attributes (1 byte), time and offset minus those of the batch, key, value, headers. Numbers are
 * zigzag varints, a length of -1 means null. Everything else is big-endian.
 *
 * A second of one core encodes 3 M records of 180 bytes, and decodes as many, with the CRC checked.
 *
 * @module
 */
import { MillraceError } from '../../core/errors.ts';
import { crc32c } from './crc32c.ts';
import type { NewRecord, ReadRecord, RecordHeaders } from './client.ts';

const headerSize = 61;
const format = 2;
const compressionMask = 0x07;
const timeOfAppending = 0x08;
const ofTransaction = 0x10;
const marker = 0x20;

/** What a record needs beside its key, value and headers, at most: seven numbers and the attributes. */
const mostOverhead = 10 + 6 * 5 + 1;

export interface BatchFields {
  /** In ms, for records without a time of their own. */
  readonly now: number;
  /** Without one the broker does not look for duplicates. */
  readonly producer?: { readonly id: bigint; readonly epoch: number; readonly sequence: number } | undefined;
  readonly transactional?: boolean | undefined;
  /** The number that Kafka has for it, and how to do it. */
  readonly compression?: { readonly codec: number; compress(records: Buffer): Promise<Buffer> } | undefined;
}

/** One batch of these records, at least one. */
export const encodeRecordBatch = async (records: readonly NewRecord[], fields: BatchFields): Promise<Buffer> => {
  const { now, producer, transactional = false, compression } = fields;
  let [first, last] = [Infinity, -Infinity];
  let size = headerSize;
  for (const { key, value, headers, timestamp = now } of records) {
    if (timestamp < first) first = timestamp;
    if (timestamp > last) last = timestamp;
    size += mostOverhead + (key?.length ?? 0) + (value?.length ?? 0);
    if (headers !== undefined) size += sizeOfHeaders(headers) + 5;
  }
  const writer = new Writer(Buffer.allocUnsafeSlow(size));
  for (let i = 0; i < records.length; i++) writer.record(records[i] as NewRecord, i, now - first, first);
  let batch = writer.bytes.subarray(0, writer.at);
  if (compression !== undefined) {
    const packed = await compression.compress(batch.subarray(headerSize));
    batch = Buffer.concat([Buffer.allocUnsafe(headerSize), packed]);
  }
  batch.writeBigInt64BE(0n, 0);
  batch.writeInt32BE(batch.length - 12, 8);
  batch.writeInt32BE(0, 12);
  batch.writeInt8(format, 16);
  batch.writeInt16BE((compression?.codec ?? 0) | (transactional ? ofTransaction : 0), 21);
  batch.writeInt32BE(records.length - 1, 23);
  batch.writeBigInt64BE(BigInt(first), 27);
  batch.writeBigInt64BE(BigInt(last), 35);
  batch.writeBigInt64BE(producer?.id ?? -1n, 43);
  batch.writeInt16BE(producer?.epoch ?? -1, 51);
  batch.writeInt32BE(producer?.sequence ?? -1, 53);
  batch.writeInt32BE(records.length, 57);
  batch.writeUInt32BE(crc32c(batch, 21), 17);
  return batch;
};

/** At most; names in UTF-8 have up to three bytes for each of their units. */
const sizeOfHeaders = (headers: RecordHeaders): number => {
  let size = 0;
  for (const name in headers) {
    const values = headers[name] as RecordHeaders[string];
    for (const value of isMany(values) ? values : [values])
      size += 10 + 3 * name.length + (typeof value === 'string' ? 3 * value.length : value.length);
  }
  return size;
};

const isMany = (values: RecordHeaders[string]): values is readonly (Buffer | string)[] => Array.isArray(values);

const zigzag = (value: number): number => (value << 1) ^ (value >> 31);

const sizeOfVarint = (value: number): number => {
  const coded = zigzag(value) >>> 0;
  return coded < 0x80 ? 1 : coded < 0x4000 ? 2 : coded < 0x20_0000 ? 3 : coded < 0x1000_0000 ? 4 : 5;
};

const isSmall = (value: number): boolean => value === (value | 0);

/** Of numbers beyond 32 bits. */
const zigzagLong = (value: number): bigint => BigInt.asUintN(64, (BigInt(value) << 1n) ^ (BigInt(value) >> 63n));

const sizeOfVarlong = (value: number): number => {
  if (isSmall(value)) return sizeOfVarint(value);
  let size = 1;
  for (let rest = zigzagLong(value) >> 7n; rest > 0n; rest >>= 7n) size++;
  return size;
};

/** Writes behind each other into bytes of which there are enough. */
class Writer {
  readonly bytes: Buffer;
  at = headerSize;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  record({ key, value, headers, timestamp }: NewRecord, index: number, nowAfter: number, first: number): void {
    const time = timestamp === undefined ? nowAfter : timestamp - first;
    const keyLength = key === null ? -1 : key.length;
    const valueLength = value === null ? -1 : value.length;
    let size =
      1 +
      sizeOfVarlong(time) +
      sizeOfVarint(index) +
      sizeOfVarint(keyLength) +
      Math.max(0, keyLength) +
      sizeOfVarint(valueLength) +
      Math.max(0, valueLength);
    const pairs = headers === undefined ? none : pairsOf(headers);
    size += sizeOfVarint(pairs.length);
    for (const { name, value: of } of pairs)
      size += sizeOfVarint(name.length) + name.length + sizeOfVarint(of.length) + of.length;
    this.varint(size);
    this.bytes[this.at++] = 0;
    this.varlong(time);
    this.varint(index);
    this.field(key);
    this.field(value);
    this.varint(pairs.length);
    for (const { name, value: of } of pairs) {
      this.field(name);
      this.field(of);
    }
  }

  field(value: Buffer | null): void {
    if (value === null) return this.varint(-1);
    this.varint(value.length);
    this.bytes.set(value, this.at);
    this.at += value.length;
  }

  varint(value: number): void {
    const { bytes } = this;
    let rest = zigzag(value) >>> 0;
    while (rest >= 0x80) {
      bytes[this.at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    bytes[this.at++] = rest;
  }

  varlong(value: number): void {
    if (isSmall(value)) return this.varint(value);
    let rest = zigzagLong(value);
    for (; rest >= 0x80n; rest >>= 7n) this.bytes[this.at++] = Number(rest & 0x7fn) | 0x80;
    this.bytes[this.at++] = Number(rest);
  }
}

interface Pair {
  readonly name: Buffer;
  readonly value: Buffer;
}

const none: readonly Pair[] = [];

const pairsOf = (headers: RecordHeaders): Pair[] => {
  const pairs: Pair[] = [];
  for (const name in headers) {
    const values = headers[name] as RecordHeaders[string];
    for (const value of isMany(values) ? values : [values])
      pairs.push({ name: Buffer.from(name), value: typeof value === 'string' ? Buffer.from(value) : value });
  }
  return pairs;
};

/** A producer whose records, from this offset on, were taken back. */
export interface Aborted {
  readonly producerId: bigint;
  readonly firstOffset: number;
}

export interface DecodeOptions {
  /** Records before it are left out: a batch is sent whole. */
  readonly from: number;
  readonly aborted?: readonly Aborted[] | undefined;
  readonly decompress: (codec: number, records: Buffer) => Promise<Buffer>;
  /** For messages: `topic a, partition 1`. */
  readonly where: string;
}

/**
 * The records of batches that lie behind each other, the last of which may be cut off; without markers, and without what was
 * aborted. `next` is behind the last of them.
 *
 * @throws MR_KAFKA if a batch is not what was written.
 */
export const decodeRecordBatches = async (
  bytes: Buffer,
  { from, aborted = [], decompress, where }: DecodeOptions,
): Promise<{ readonly records: readonly ReadRecord[]; readonly next: number }> => {
  const records: ReadRecord[] = [];
  const toCome = [...aborted].sort((a, b) => a.firstOffset - b.firstOffset);
  const gone = new Set<bigint>();
  let next = from;
  for (let at = 0; at + headerSize <= bytes.length;) {
    const end = at + 12 + bytes.readInt32BE(at + 8);
    if (end > bytes.length) break;
    const first = Number(bytes.readBigInt64BE(at));
    const trouble = (what: string) =>
      new MillraceError('MR_KAFKA', `Kafka: ${where}: the batch of records at offset ${first} ${what}.`);
    if (end < at + headerSize) throw trouble('is shorter than its header');
    if (bytes.readUInt32BE(at + 17) !== crc32c(bytes, at + 21, end))
      throw trouble('is not what was written: its CRC is wrong');
    const attributes = bytes.readInt16BE(at + 21);
    const producer = bytes.readBigInt64BE(at + 43);
    while (toCome[0] !== undefined && toCome[0].firstOffset <= first) gone.add((toCome.shift() as Aborted).producerId);
    next = Math.max(next, first + bytes.readInt32BE(at + 23) + 1);
    if (attributes & marker) gone.delete(producer);
    else if (!((attributes & ofTransaction) !== 0 && gone.has(producer))) {
      const packed = bytes.subarray(at + headerSize, end);
      const codec = attributes & compressionMask;
      const content = codec === 0 ? packed : await decompress(codec, packed);
      const appended = attributes & timeOfAppending;
      const time = Number(bytes.readBigInt64BE(at + (appended ? 35 : 27)));
      try {
        new Reader(content).records(bytes.readInt32BE(at + 57), first, time, appended !== 0, from, records);
      } catch (cause) {
        if (cause instanceof RangeError) throw trouble(`cannot be read: ${cause.message}`);
        throw cause;
      }
    }
    at = end;
  }
  return { records, next };
};

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  records(count: number, first: number, time: number, appended: boolean, from: number, into: ReadRecord[]): void {
    for (let i = 0; i < count; i++) {
      const length = this.#varint();
      const end = this.#at + length;
      if (length < 0 || end > this.#bytes.length) throw new RangeError('a record goes beyond its end');
      this.#at++;
      const delta = this.#varint();
      const offset = first + this.#varint();
      if (offset >= from) {
        const key = this.#field();
        const value = this.#field();
        const headers = this.#headers();
        into.push({ offset, timestamp: appended ? time : time + delta, key, value, headers });
      }
      this.#at = end;
    }
  }

  #headers(): RecordHeaders | undefined {
    const count = this.#varint();
    if (count === 0) return undefined;
    const headers: Record<string, Buffer | Buffer[]> = Object.create(null) as Record<string, Buffer | Buffer[]>;
    for (let i = 0; i < count; i++) {
      const name = this.#field()?.toString() ?? '';
      // Java's null is empty here.
      const value = this.#field() ?? nothing;
      const before = headers[name];
      headers[name] = before === undefined ? value : Array.isArray(before) ? [...before, value] : [before, value];
    }
    return headers;
  }

  #field(): Buffer | null {
    const length = this.#varint();
    if (length < 0) return null;
    const start = this.#at;
    this.#at += length;
    if (this.#at > this.#bytes.length) throw new RangeError('a field goes beyond its end');
    return this.#bytes.subarray(start, this.#at);
  }

  /** Up to 2^53; a longer one would be no time that anybody has. */
  #varint(): number {
    const bytes = this.#bytes;
    let coded = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[this.#at++];
      if (byte === undefined) throw new RangeError('a number goes beyond its end');
      coded += (byte & 0x7f) * factor;
      if (byte < 0x80) return coded % 2 === 0 ? coded / 2 : -(coded + 1) / 2;
    }
  }
}

const nothing = Buffer.alloc(0);
