/**
 * Record batches, encoded and decoded: 2 M records with a value of 180 bytes and no key, 500 in a batch, uncompressed, by kafkajs's
 * own code and by ours, in one process and without a broker. kafkajs is asked as its producer and its consumer ask it.
 *
 * Rate: records per second, after a tenth of the work beforehand. What was decoded is counted.
 *
 * @module
 */
import { createRequire } from 'node:module';
import type { ChildMain } from './child.ts';
import { cpuOf, peakRssOf } from './proc.ts';
import { startChild } from './processes.ts';
import { cpuSeconds, peakRss, rate, type Sample, type Workload } from './workload.ts';

const batchSize = 500;
const batches = 4_000;

interface Coder {
  encode(): Promise<Buffer>;
  /** How many records there were. */
  decode(batch: Buffer): Promise<number>;
}

const now = Date.now();
const values = Array.from({ length: batchSize }, (_, i) => Buffer.alloc(180, String(i)));

const kafkajs = (): Coder => {
  const require = createRequire(import.meta.url);
  const part = <T>(path: string): T => require(`kafkajs/src/protocol/${path}`) as T;
  const encodeRecord = part<(record: object) => object>('recordBatch/record/v0');
  const { RecordBatch } = part<{ RecordBatch: (batch: object) => Promise<{ buffer: Buffer }> }>('recordBatch/v0');
  const Decoder = part<new (bytes: Buffer) => object>('decoder');
  const decode = part<(of: object) => Promise<{ records: readonly object[] }>>('recordBatch/v0/decoder');
  return {
    async encode() {
      const records = values.map((value, offsetDelta) =>
        encodeRecord({ key: null, value, headers: {}, offsetDelta, timestampDelta: 0 }),
      );
      const times = { firstTimestamp: now, maxTimestamp: now };
      return (await RecordBatch({ records, ...times, lastOffsetDelta: batchSize - 1 })).buffer;
    },
    decode: async batch => (await decode(new Decoder(batch))).records.length,
  };
};

const millrace = async (): Promise<Coder> => {
  const { decodeRecordBatches, encodeRecordBatch } = await import('../src/protocols/kafka/record-batch.ts');
  const records = values.map(value => ({ key: null, value }));
  const fields = { now, producer: undefined, transactional: false, compression: undefined };
  const where = 'the bench';
  const options = { where, from: 0, decompress: () => Promise.reject(new Error('nothing is compressed')) };
  return {
    encode: () => encodeRecordBatch(records, fields),
    decode: async batch => (await decodeRecordBatches(batch, options)).records.length,
  };
};

interface Work {
  readonly what: 'encode' | 'decode';
}

const timed = async ({ what }: Work, coder: Coder, tell: (message: unknown) => void): Promise<void> => {
  const batch = await coder.encode();
  const work = async (times: number) => {
    let records = 0;
    for (let i = 0; i < times; i++)
      records += what === 'encode' ? (await coder.encode(), batchSize) : await coder.decode(batch);
    if (records !== times * batchSize) throw new Error(`${records} records`);
  };
  await work(batches / 10);
  tell('began');
  const began = performance.now();
  await work(batches);
  tell((performance.now() - began) / 1000);
};

export const theirs: ChildMain<Work> = (work, tell) => timed(work, kafkajs(), tell);
export const ours: ChildMain<Work> = async (work, tell) => timed(work, await millrace(), tell);

const contestant = (name: string, child: string) => ({
  name,
  run: async ({ case: what }: { readonly case: string }): Promise<Sample> => {
    const running = startChild('kafka-encoding', child, { what });
    try {
      await running.told();
      const cpuBefore = cpuOf(running.pid);
      const seconds = await running.told<number>();
      const cpu = cpuOf(running.pid) - cpuBefore;
      return { rate: (batches * batchSize) / seconds, cpu, rss: peakRssOf(running.pid) };
    } finally {
      await running.stop();
    }
  },
});

export default {
  name: 'kafka-encoding',
  title: 'Kafka record batches: 500 records of 180 bytes each, without a broker',
  definition: 'Records encoded or decoded per second, by one process, after warming up.',
  columns: [rate('records/s'), peakRss, cpuSeconds],
  cases: ['encode', 'decode'],
  baselines: ['kafkajs 2.2.4'],
  contestants: [contestant('kafkajs 2.2.4', 'theirs'), contestant('millrace', 'ours')],
} satisfies Workload;
