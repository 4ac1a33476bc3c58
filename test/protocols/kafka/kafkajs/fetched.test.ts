import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { decodeFetch, decodeRecords, type FetchedPartition } from '../../../../src/protocols/kafka/kafkajs/fetched.ts';
import { crc32c } from '../../../../src/protocols/kafka/crc32c.ts';
import { loadKafkajs } from '../../../../src/protocols/kafka/kafkajs/package.ts';

const kafkajs = loadKafkajs();
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
const Encoder = require('kafkajs/src/protocol/encoder') as new () => Encoder;
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
  partition: 0,
  errorCode: 0,
  aborted,
  bytes,
});
const where = 'topic t, partition 0';
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
    expect(await decodeFetch(kafkajs)(buffer)).toEqual({
      clientSideThrottleTime: 12,
      errorCode: 0,
      topics: [
        {
          topic: 't',
          partitions: [
            { partition: 0, errorCode: 0, aborted: [{ producerId: 5n, firstOffset: 3 }], bytes: Buffer.from('abc') },
            { partition: 1, errorCode: 3, aborted: [{ producerId: 5n, firstOffset: 3 }], bytes: Buffer.alloc(0) },
          ],
        },
      ],
    });
  });

  it('begins with the record that was asked for, and ends before one that is cut off', async () => {
    const bytes = Buffer.concat([
      await batch({ from: 10, values: ['a', 'b', 'c'] }),
      await batch({ from: 13, values: ['d', null] }),
      (await batch({ from: 15, values: ['e'] })).subarray(0, -3),
    ]);
    const decoded = await decodeRecords(kafkajs, fetched(bytes), 11, where);
    expect(values(decoded)).toEqual(['11:b', '12:c', '13:d', '14:null']);
    expect(decoded.next).toBe(15);
    expect(decoded.records[0]?.timestamp).toBe(1_700_000_000_001);
  });

  it('may be nothing', async () => {
    expect(await decodeRecords(kafkajs, fetched(Buffer.alloc(0)), 4, where)).toEqual({ records: [], next: 4 });
    const cut = (await batch({ from: 4, values: ['abc'] })).subarray(0, 30);
    expect(await decodeRecords(kafkajs, fetched(cut), 4, where)).toEqual({ records: [], next: 4 });
  });

  it('has headers', async () => {
    const bytes = await batch({ from: 0, values: ['a'], headers: { one: 'x', many: ['y', Buffer.from('z')] } });
    const { records } = await decodeRecords(kafkajs, fetched(bytes), 0, where);
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
    const decoded = await decodeRecords(kafkajs, fetched(bytes, [{ producerId: 2n, firstOffset: 1 }]), 0, where);
    expect(values(decoded)).toEqual(['0:kept', '5:kept as well']);
    expect(decoded.next).toBe(7);
    const markersOnly = await decodeRecords(kafkajs, fetched(await marker(6, true, 2)), 6, where);
    expect(markersOnly).toEqual({ records: [], next: 7 });
  });

  it('may be hundreds of thousands of records, which kafkajs itself cannot decode', async () => {
    const bytes = await batch({ from: 0, values: Array<string>(200_000).fill('x') });
    const decodeMessages = require('kafkajs/src/protocol/requests/fetch/v4/decodeMessages') as (
      decoder: object,
    ) => Promise<unknown>;
    const framed = new Encoder().writeBytes(bytes).buffer;
    await expect(decodeMessages(new kafkajs.Decoder(framed))).rejects.toThrow(RangeError);
    const decoded = await decodeRecords(kafkajs, fetched(bytes), 0, where);
    expect(decoded.records.length).toBe(200_000);
    expect(decoded.next).toBe(200_000);
  });
});
