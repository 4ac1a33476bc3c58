import { createRequire } from 'node:module';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { NewRecord, ReadRecord, RecordHeaders } from '../../../src/protocols/kafka/client.ts';
import { crc32c } from '../../../src/protocols/kafka/crc32c.ts';
import {
  decodeRecordBatches,
  encodeRecordBatch,
  type BatchFields,
  type DecodeOptions,
} from '../../../src/protocols/kafka/record-batch.ts';

// kafkajs 2.2.4 has written and read these bytes on real brokers for years: what it does is what is right.
const require = createRequire(import.meta.url);
interface Long {
  toString(): string;
}
const kafkajs = {
  record: require('kafkajs/src/protocol/recordBatch/record/v0') as (record: object) => { buffer: Buffer },
  batch: (require('kafkajs/src/protocol/recordBatch/v0') as { RecordBatch: (o: object) => Promise<{ buffer: Buffer }> })
    .RecordBatch,
  Decoder: require('kafkajs/src/protocol/decoder') as new (bytes: Buffer) => object,
  decode: require('kafkajs/src/protocol/recordBatch/v0/decoder') as (decoder: object) => Promise<{
    records: { offset: Long; timestamp: Long; key: Buffer | null; value: Buffer | null; headers: RecordHeaders }[];
  }>,
};

const asKafkajsDoes = async (records: readonly NewRecord[], { now, producer }: BatchFields): Promise<Buffer> => {
  const times = records.map(({ timestamp = now }) => timestamp);
  const first = Math.min(...times);
  const encoded = records.map((record, i) =>
    kafkajs.record({
      headers: {},
      ...record,
      offsetDelta: i,
      timestampDelta: (times[i] as number) - first,
    }),
  );
  const { buffer } = await kafkajs.batch({
    records: encoded,
    firstTimestamp: first,
    maxTimestamp: Math.max(...times),
    lastOffsetDelta: records.length - 1,
    producerId: String(producer?.id ?? -1n),
    producerEpoch: producer?.epoch ?? -1,
    firstSequence: producer?.sequence ?? -1,
  });
  return buffer;
};

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc.integer({ min: 100, max: 3000 }).map(length => Buffer.alloc(length, 'x')),
);
const buffer = bytes.map(array => Buffer.from(array));
const record: fc.Arbitrary<NewRecord> = fc.record({
  key: fc.option(buffer),
  value: fc.option(buffer),
  timestamp: fc.option(fc.integer({ min: 1_600_000_000_000, max: 1_800_000_000_000 }), { nil: undefined }),
  headers: fc.option(
    fc.dictionary(
      fc.string({ unit: 'grapheme', maxLength: 20 }),
      fc.oneof(buffer, fc.array(buffer, { minLength: 1, maxLength: 3 })),
      {
        maxKeys: 3,
      },
    ),
    { nil: undefined },
  ),
});
const records = fc.array(record, { minLength: 1, maxLength: 30 });
const fields: fc.Arbitrary<BatchFields> = fc.record({
  now: fc.integer({ min: 1_600_000_000_000, max: 1_800_000_000_000 }),
  producer: fc.option(
    fc.record({ id: fc.bigInt({ min: 0n, max: 2n ** 60n }), epoch: fc.nat(32_767), sequence: fc.nat(2 ** 31 - 1) }),
    { nil: undefined },
  ),
});

const reading = (more: Partial<DecodeOptions> = {}): DecodeOptions => ({
  from: 0,
  decompress: () => Promise.reject(new Error('is not compressed')),
  where: 'topic a, partition 1',
  ...more,
});

const at = (batch: Buffer, offset: number, change: (batch: Buffer) => void = () => undefined): Buffer => {
  const copy = Buffer.from(batch);
  copy.writeBigInt64BE(BigInt(offset), 0);
  change(copy);
  copy.writeUInt32BE(crc32c(copy, 21), 17);
  return copy;
};

const numbered = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => ({ key: null, value: Buffer.from(String(from + i)) }));
const plain: BatchFields = { now: 1_700_000_000_000 };
const values = (read: readonly ReadRecord[]) => read.map(({ value }) => Number(value?.toString()));

/** Compared as text, which is quicker than byte by byte. */
const text = (value: Buffer | string | null | undefined) =>
  typeof value === 'string' ? value : value?.toString('latin1');
const shown = (record: {
  readonly offset: number | Long;
  readonly timestamp: number | Long;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers?: RecordHeaders | undefined;
}) => ({
  offset: String(record.offset),
  timestamp: String(record.timestamp),
  key: text(record.key),
  value: text(record.value),
  headers: Object.entries(record.headers ?? {}).map(([name, values]) => [name, ...[values].flat().map(text)]),
});

describe('a batch of records', () => {
  it('is byte for byte what kafkajs makes of it', async () => {
    await fc.assert(
      fc.asyncProperty(records, fields, async (given, of) => {
        const ours = await encodeRecordBatch(given, of);
        const theirs = await asKafkajsDoes(given, of);
        expect(ours.equals(theirs)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('is read by kafkajs as it is read here, and comes out as it went in', async () => {
    await fc.assert(
      fc.asyncProperty(records, fields, fc.nat(2 ** 40), async (given, of, offset) => {
        const batch = at(await encodeRecordBatch(given, of), offset);
        const ours = await decodeRecordBatches(batch, reading());
        expect(ours.next).toBe(offset + given.length);
        expect(ours.records.map(shown)).toEqual(
          given.map((one, i) => shown({ ...one, offset: offset + i, timestamp: one.timestamp ?? of.now })),
        );
        // Which kafkajs takes for something else.
        if (given.some(({ headers = {} }) => Object.keys(headers).some(name => name in Object.prototype))) return;
        const theirs = (await kafkajs.decode(new kafkajs.Decoder(batch))).records;
        expect(theirs.map(shown)).toEqual(ours.records.map(shown));
      }),
      { numRuns: 300 },
    );
  });

  it.each([0, 1, -1, 2 ** 40, -(2 ** 40), 2 ** 52])('keeps a time of %i ms', async timestamp => {
    const given = [
      { key: null, value: null, timestamp: 0 },
      { key: null, value: null, timestamp },
    ];
    const { records: read } = await decodeRecordBatches(await encodeRecordBatch(given, plain), reading());
    expect(read.map(one => one.timestamp)).toEqual([0, timestamp]);
  });

  it('has headers as text, too', async () => {
    const given = [{ key: null, value: null, headers: { größe: ['1', Buffer.from('2')], leer: '' } }];
    const { records: read } = await decodeRecordBatches(await encodeRecordBatch(given, plain), reading());
    expect({ ...read[0]?.headers }).toEqual({ größe: [Buffer.from('1'), Buffer.from('2')], leer: Buffer.alloc(0) });
  });

  it('has null headers of other producers as empty ones', async () => {
    const batch = await encodeRecordBatch([{ key: null, value: null, headers: { n: '' } }], plain);
    const nulled = at(batch, 0, one => void one.writeUInt8(1, one.length - 1));
    const { records: read } = await decodeRecordBatches(nulled, reading());
    expect({ ...read[0]?.headers }).toEqual({ n: Buffer.alloc(0) });
  });

  it('is compressed as a whole', async () => {
    const compression = { codec: 1, compress: (all: Buffer) => Promise.resolve(gzipSync(all)) };
    const batch = await encodeRecordBatch(numbered(0, 1000), { ...plain, compression });
    expect(batch.length).toBeLessThan(5000);
    const decompress = (codec: number, packed: Buffer) => {
      expect(codec).toBe(1);
      return Promise.resolve(gunzipSync(packed));
    };
    const { records: read, next } = await decodeRecordBatches(batch, reading({ decompress }));
    expect(values(read)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    expect(next).toBe(1000);
  });
});

describe('an answer', () => {
  const three = async () =>
    Promise.all([
      encodeRecordBatch(numbered(0, 10), plain).then(one => at(one, 0)),
      encodeRecordBatch(numbered(10, 20), plain).then(one => at(one, 10)),
      encodeRecordBatch(numbered(20, 30), plain).then(one => at(one, 20)),
    ]);

  it('may be cut off anywhere: what is not whole is left for the next one', async () => {
    const all = await three();
    const whole = Buffer.concat(all);
    const ends = [0, 1, 2, 3].map(count => Buffer.concat(all.slice(0, count)).length);
    for (let length = 0; length <= whole.length; length++) {
      const { records: read, next } = await decodeRecordBatches(whole.subarray(0, length), reading());
      const count = ends.findLastIndex(end => end <= length);
      expect(next).toBe(10 * count);
      expect(values(read)).toEqual(Array.from({ length: 10 * count }, (_, i) => i));
    }
  });

  it('begins before what was asked for when that is in the middle of a batch', async () => {
    const { records: read, next } = await decodeRecordBatches(Buffer.concat(await three()), reading({ from: 17 }));
    expect(values(read)).toEqual(Array.from({ length: 13 }, (_, i) => 17 + i));
    expect(next).toBe(30);
  });

  it('has no markers, and nothing of what was taken back', async () => {
    const producer = (id: bigint) => ({ ...plain, transactional: true, producer: { id, epoch: 0, sequence: 0 } });
    const mark = (what: number) => [{ key: Buffer.from([0, 0, 0, what]), value: Buffer.alloc(6) }];
    const asMarker = (batch: Buffer) => void batch.writeInt16BE(batch.readInt16BE(21) | 0x20, 21);
    const log = Buffer.concat([
      at(await encodeRecordBatch(numbered(0, 2), producer(1n)), 0),
      at(await encodeRecordBatch(numbered(2, 4), producer(2n)), 2),
      at(await encodeRecordBatch(numbered(4, 5), plain), 4),
      at(await encodeRecordBatch(mark(0), producer(1n)), 5, asMarker),
      at(await encodeRecordBatch(numbered(6, 7), producer(1n)), 6),
      at(await encodeRecordBatch(mark(1), producer(2n)), 7, asMarker),
      at(await encodeRecordBatch(mark(1), producer(1n)), 8, asMarker),
    ]);
    const { records: read, next } = await decodeRecordBatches(
      log,
      reading({ aborted: [{ producerId: 1n, firstOffset: 0 }] }),
    );
    expect(values(read)).toEqual([2, 3, 4, 6]);
    expect(next).toBe(9);
  });

  it('has the time of the broker where that counts', async () => {
    const batch = at(await encodeRecordBatch(numbered(0, 3), plain), 0, one => {
      one.writeInt16BE(0x08, 21);
      one.writeBigInt64BE(1_750_000_000_000n, 35);
    });
    const { records: read } = await decodeRecordBatches(batch, reading());
    expect(read.map(({ timestamp }) => timestamp)).toEqual([1, 1, 1].map(() => 1_750_000_000_000));
  });

  it('that was damaged on its way is refused, wherever the bit is', async () => {
    const batch = at(await encodeRecordBatch(numbered(0, 3), plain), 5);
    for (let bit = 17 * 8; bit < batch.length * 8; bit++) {
      const damaged = Buffer.from(batch);
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
      await expect(decodeRecordBatches(damaged, reading())).rejects.toThrow(
        'Kafka: topic a, partition 1: the batch of records at offset 5 is not what was written: its CRC is wrong.',
      );
    }
  });

  it('whose records go beyond their end is refused, although its CRC is right', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 30 }), async rubbish => {
        const batch = at(await encodeRecordBatch(numbered(0, 3), plain), 5);
        const wrong = at(Buffer.concat([batch.subarray(0, 61), rubbish]), 5, one => {
          one.writeInt32BE(one.length - 12, 8);
        });
        await decodeRecordBatches(wrong, reading()).catch((thrown: unknown) => {
          expect(thrown).toMatchObject({ code: 'MR_KAFKA' });
        });
      }),
    );
  });
});
