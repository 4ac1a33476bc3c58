import { createRequire } from 'node:module';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { decodeRecords } from '../../../../src/protocols/kafka/brokers/records.ts';
import { fetch, type FetchedPartition } from '../../../../src/protocols/kafka/brokers/requests.ts';
import { crc32c } from '../../../../src/protocols/kafka/crc32c.ts';

const require = createRequire(import.meta.url);
interface Encoder {
  readonly buffer: Buffer;
  writeInt16(value: number): Encoder;
  writeInt32(value: number): Encoder;
  writeInt64(value: number): Encoder;
  writeString(value: string): Encoder;
  writeBytes(value: Buffer): Encoder;
  writeArray(of: readonly Encoder[]): Encoder;
}
const Decoder = require('kafkajs/src/protocol/decoder') as new (bytes: Buffer) => object;
const Encoder = require('kafkajs/src/protocol/encoder') as new () => Encoder;
const message = require('kafkajs/src/protocol/message') as (of: { version: number }) => (given: object) => Encoder;
const record = require('kafkajs/src/protocol/recordBatch/record/v0') as (given: object) => Encoder;
const { RecordBatch } = require('kafkajs/src/protocol/recordBatch/v0') as {
  RecordBatch: (given: object) => Promise<Encoder>;
};

interface Given {
  readonly from: number;
  readonly values: readonly (string | null)[];
  readonly producerId?: number;
  readonly transactional?: boolean;
  readonly headers?: object;
  /** Bit 5 of the attributes. */
  readonly control?: boolean;
  readonly key?: Buffer;
}

const batch = async ({ from, values, producerId = 7, transactional = false, headers, control, key }: Given) => {
  const records = values.map((value, offsetDelta) =>
    record({ offsetDelta, timestampDelta: offsetDelta, key: key ?? null, value, headers }),
  );
  const { buffer } = await RecordBatch({
    firstOffset: from,
    firstTimestamp: 1_700_000_000_000,
    maxTimestamp: 1_700_000_000_000 + values.length,
    lastOffsetDelta: values.length - 1,
    producerId,
    transactional,
    records,
  });
  const copy = Buffer.from(buffer);
  const attributes = 22;
  if (control === true) copy[attributes] = copy[attributes]! | 32;
  copy.writeUInt32BE(crc32c(copy, 21), 17);
  return copy;
};

const fetched = (bytes: Buffer, aborted: FetchedPartition['aborted'] = []): FetchedPartition => ({
  topic: 't',
  partition: 0,
  errorCode: 0,
  aborted,
  bytes,
});
const values = ({ records }: Awaited<ReturnType<typeof decodeRecords>>) =>
  records.map(({ offset, value }) => `${offset}:${value?.toString() ?? 'null'}`);

describe('what a broker answers to a fetch', () => {
  it('is read by partition, each with its refusal', async () => {
    const partition = (number: number, errorCode: number, bytes: Buffer) =>
      new Encoder()
        .writeInt32(number)
        .writeInt16(errorCode)
        .writeInt64(10)
        .writeInt64(9)
        .writeInt64(1)
        .writeArray([new Encoder().writeInt64(5).writeInt64(3)])
        .writeInt32(-1)
        .writeBytes(bytes);
    const { buffer } = new Encoder()
      .writeInt32(12)
      .writeInt16(0)
      .writeInt32(0)
      .writeArray([
        new Encoder()
          .writeString('t')
          .writeArray([partition(0, 0, Buffer.from('abc')), partition(1, 3, Buffer.alloc(0))]),
      ]);
    const options = { maxWait: 1, minBytes: 1, maxBytes: 1, maxBytesPerPartition: 1, readCommitted: true };
    const aborted = [{ producerId: 5n, firstOffset: 3 }];
    expect(fetch([], options).decode(buffer)).toEqual({
      throttle: 12,
      errorCode: 0,
      partitions: [
        { topic: 't', partition: 0, errorCode: 0, aborted, bytes: Buffer.from('abc') },
        { topic: 't', partition: 1, errorCode: 3, aborted, bytes: Buffer.alloc(0) },
      ],
    });
    expect(() => fetch([], options).decode(buffer.subarray(0, -1))).toThrow(RangeError);
  });

  it('begins with the record that was asked for, and ends before one that is cut off', async () => {
    const bytes = Buffer.concat([
      await batch({ from: 10, values: ['a', 'b', 'c'] }),
      await batch({ from: 13, values: ['d', null] }),
      (await batch({ from: 15, values: ['e'] })).subarray(0, -3),
    ]);
    const decoded = await decodeRecords(fetched(bytes), 11);
    expect(values(decoded)).toEqual(['11:b', '12:c', '13:d', '14:null']);
    expect(decoded.next).toBe(15);
    expect(decoded.records[0]?.timestamp).toBe(1_700_000_000_001);
  });

  it('may be nothing', async () => {
    expect(await decodeRecords(fetched(Buffer.alloc(0)), 4)).toEqual({ records: [], next: 4 });
    const cut = (await batch({ from: 4, values: ['abc'] })).subarray(0, 30);
    expect(await decodeRecords(fetched(cut), 4)).toEqual({ records: [], next: 4 });
  });

  it('has headers', async () => {
    const bytes = await batch({ from: 0, values: ['a'], headers: { one: 'x', many: ['y', Buffer.from('z')] } });
    const { records } = await decodeRecords(fetched(bytes), 0);
    expect({ ...records[0]?.headers }).toEqual({ one: Buffer.from('x'), many: [Buffer.from('y'), Buffer.from('z')] });
  });

  it('is without markers and without what was aborted, and goes on behind them', async () => {
    const marker = (from: number, commit: boolean, producerId: number) =>
      batch({
        from,
        values: [''],
        producerId,
        transactional: true,
        control: true,
        key: Buffer.from([0, 0, 0, +commit]),
      });
    const bytes = Buffer.concat([
      await batch({ from: 0, values: ['kept'], producerId: 1, transactional: true }),
      await batch({ from: 1, values: ['gone', 'gone'], producerId: 2, transactional: true }),
      await marker(3, true, 1),
      await marker(4, false, 2),
      await batch({ from: 5, values: ['kept as well'], producerId: 2, transactional: true }),
      await marker(6, true, 2),
    ]);
    const decoded = await decodeRecords(fetched(bytes, [{ producerId: 2n, firstOffset: 1 }]), 0);
    expect(values(decoded)).toEqual(['0:kept', '5:kept as well']);
    expect(decoded.next).toBe(7);
    const markersOnly = await decodeRecords(fetched(await marker(6, true, 2)), 6);
    expect(markersOnly).toEqual({ records: [], next: 7 });
  });

  it('may be hundreds of thousands of records, which kafkajs itself cannot decode', async () => {
    const bytes = await batch({ from: 0, values: Array<string>(200_000).fill('x') });
    const decodeMessages = require('kafkajs/src/protocol/requests/fetch/v4/decodeMessages') as (
      decoder: object,
    ) => Promise<unknown>;
    const framed = new Encoder().writeBytes(bytes).buffer;
    await expect(decodeMessages(new Decoder(framed))).rejects.toThrow(RangeError);
    const decoded = await decodeRecords(fetched(bytes), 0);
    expect(decoded.records.length).toBe(200_000);
    expect(decoded.next).toBe(200_000);
  });

  it('may be messages from before Kafka 0.11', async () => {
    const messages = (entries: readonly ({ version?: number; offset: number } & Record<string, unknown>)[]) =>
      Buffer.concat(
        entries.map(({ version = 1, offset, ...given }) => {
          const { buffer } = message({ version })({ key: null, ...given });
          return Buffer.concat([new Encoder().writeInt64(offset).writeInt32(buffer.length).buffer, buffer]);
        }),
      );
    const old = messages([
      { offset: 4, key: 'k', value: 'a', timestamp: 1_600_000_000_000 },
      { version: 0, offset: 5, value: null },
    ]);
    const inner = messages([
      { offset: 0, value: 'c', timestamp: 7 },
      { offset: 1, value: 'd', timestamp: 8 },
    ]);
    const packed = messages([{ offset: 7, value: gzipSync(inner), timestamp: 8, compression: 1 }]);
    const cutOff = messages([{ version: 0, offset: 8, value: 'e' }]).subarray(0, -1);
    const decoded = await decodeRecords(fetched(Buffer.concat([old, packed, cutOff])), 5);
    expect(values(decoded)).toEqual(['5:null', '6:c', '7:d']);
    expect(decoded.records.map(({ timestamp }) => timestamp)).toEqual([-1, 7, 8]);
    expect(decoded.next).toBe(8);
    const [first] = (await decodeRecords(fetched(old), 0)).records;
    expect(first).toEqual({
      offset: 4,
      timestamp: 1_600_000_000_000,
      key: Buffer.from('k'),
      value: Buffer.from('a'),
      headers: undefined,
    });
  });
});
