/**
 * W5: 3 M records of 180 bytes to a topic of one broker, and from it. Millrace: memory → Kafka sink, acks `all`, and Kafka
 * source → null, through each of its clients; beside them Kafka's own performance tools at their defaults, on the same broker in the same run.
 *
 * Produce: records per second until the last is confirmed. The tool says its rate itself; of millrace it is from the first event that the
 * source emits. Consume: from the first record that is delivered to the last; the tool's rate leaves out the time to join the group.
 * The end of the topic, or the count of the sink, is checked. CPU of the client over the same time, its start included for the tools.
 *
 * @module
 */
import { startKafka, kafkaMissing, type Kafka } from './kafka.ts';
import type { ChildMain } from './child.ts';
import { javaPerf } from './java-perf.ts';
import { cpuOf, peakRssOf } from './proc.ts';
import { startChild, type Running } from './processes.ts';
import { cpuSeconds, peakRss, rate, type Run, type Sample, type Workload } from './workload.ts';

const SIZE = 180;
const BATCH = 1000;

interface Flow {
  readonly bootstrap: readonly string[];
  readonly topic: string;
  readonly records: number;
  readonly client: 'kafkajs' | 'platformatic';
}

/** memory → Kafka sink; tells how long it took. */
export const produce: ChildMain<Flow> = async ({ bootstrap, topic, records, client }, tell, go) => {
  const { createSource, memoryChannel, run } = await import('../src/index.ts');
  const clients = await import('../src/kafka.ts');
  const { Batch, noHeaders } = await import('../src/core/event.ts');
  const bytes = Buffer.alloc(BATCH * (SIZE + 1), 'x');
  const ends = Uint32Array.from({ length: BATCH }, (_, i) => (i + 1) * (SIZE + 1) - 1);
  for (const end of ends) bytes[end] = 10;
  tell('ready');
  await go();
  const source = createSource(emitter => {
    let left = records / BATCH;
    return {
      pull: () => {
        emitter.emit(Batch.ofBlock({ bytes, ends, headers: noHeaders }));
        if (--left === 0) emitter.complete();
      },
    };
  });
  const sink = clients.kafkaSink({ bootstrapServers: bootstrap, topic, batchSize: BATCH, connect: clients[client] });
  const began = performance.now();
  await run(source, memoryChannel({ capacity: 100_000, transactionCapacity: BATCH }), sink).done;
  tell((performance.now() - began) / 1000);
};

/** Kafka source → null; tells how long it took from the first delivery on. */
export const consume: ChildMain<Flow> = async ({ bootstrap, topic, records, client }, tell, go) => {
  const { createSink, run } = await import('../src/index.ts');
  const clients = await import('../src/kafka.ts');
  tell('ready');
  await go();
  let [first, count] = [0, 0];
  const sink = createSink(events => {
    if (count === 0) first = performance.now();
    count += events.length;
    if (count >= records) tell((performance.now() - first) / 1000);
  });
  run(
    clients.kafkaSource({
      bootstrapServers: bootstrap,
      topics: [topic],
      groupId: `bench-${process.pid}`,
      consumer: { 'auto.offset.reset': 'earliest' },
      connect: clients[client],
    }),
    sink,
  );
};

let broker: Promise<Kafka> | undefined;
/** One for all runs; it ends with this process. It may compile as a server does, which those of tests may not. */
const kafka = (): Promise<Kafka> =>
  (broker ??= startKafka({
    jvm: ['-Xmx1g', '-XX:TieredStopAtLevel=4'],
    properties: { 'log.segment.delete.delay.ms': 1000 },
  }));

const recordsOf = ({ quick }: Run): number => (quick ? 500_000 : 3_000_000);
const partitionsOf = (run: Run): number => (run.case.includes('6') ? 6 : 1);
const isProducing = (run: Run): boolean => run.case.startsWith('produce');
let topics = 0;

/** A new topic, which is gone afterwards. */
const inTopic = async (run: Run, measure: (kafka: Kafka, topic: string) => Promise<Sample>): Promise<Sample> => {
  const cluster = await kafka();
  const topic = `w5-${topics++}`;
  await cluster.createTopic(topic, { partitions: partitionsOf(run) });
  try {
    return await measure(cluster, topic);
  } finally {
    await cluster.deleteTopic(topic);
  }
};

const ended = async (cluster: Kafka, topic: string, records: number): Promise<void> => {
  const found = (await cluster.ends(topic)).reduce((sum, end) => sum + end, 0);
  if (found !== records) throw new Error(`${topic} has ${found} records, and not ${records}`);
};

const filled = new Map<number, Promise<string>>();
/** A topic to read from, made by Kafka's own tool, once. */
const full = (run: Run): Promise<string> => {
  const partitions = partitionsOf(run);
  const make = async () => {
    const cluster = await kafka();
    const topic = `w5-full-${partitions}`;
    await cluster.createTopic(topic, { partitions });
    const tool = await javaPerf.producer({
      bootstrap: cluster.bootstrap,
      topic,
      records: recordsOf(run),
      size: SIZE,
      properties: { 'batch.size': 262_144, 'linger.ms': 20 },
    });
    await tool.result;
    return topic;
  };
  if (!filled.has(partitions)) filled.set(partitions, make());
  return filled.get(partitions) as Promise<string>;
};

const java = async (run: Run): Promise<Sample> => {
  const records = recordsOf(run);
  const { bootstrap } = await kafka();
  const said = async (running: Running & { result: Promise<{ recordsPerSecond: number }> }): Promise<Sample> => {
    let [cpu, rss] = [0, 0];
    const watch = setInterval(() => {
      try {
        [cpu, rss] = [cpuOf(running.pid), peakRssOf(running.pid)];
      } catch {
        // It has ended.
      }
    }, 50);
    try {
      return { rate: (await running.result).recordsPerSecond, cpu, rss };
    } finally {
      clearInterval(watch);
    }
  };
  if (!isProducing(run)) return said(await javaPerf.consumer({ bootstrap, topic: await full(run), records }));
  return inTopic(run, async (cluster, topic) => {
    const sample = await said(await javaPerf.producer({ bootstrap, topic, records, size: SIZE }));
    await ended(cluster, topic, records);
    return sample;
  });
};

const millrace = async (run: Run, client: Flow['client']): Promise<Sample> => {
  const records = recordsOf(run);
  const measure = async (topic: string): Promise<Sample> => {
    const { bootstrap } = await kafka();
    const running = startChild('w5-kafka', isProducing(run) ? 'produce' : 'consume', {
      bootstrap,
      topic,
      records,
      client,
    });
    try {
      await running.told();
      const before = cpuOf(running.pid);
      running.go();
      const seconds = await running.told<number>(120_000);
      return { rate: records / seconds, cpu: cpuOf(running.pid) - before, rss: peakRssOf(running.pid) };
    } finally {
      await running.stop();
    }
  };
  if (!isProducing(run)) return measure(await full(run));
  return inTopic(run, async (cluster, topic) => {
    const sample = await measure(topic);
    await ended(cluster, topic, records);
    return sample;
  });
};

export default {
  name: 'w5-kafka',
  title: 'W5: memory → Kafka sink, and Kafka source → null, 3 M records of 180 bytes, one broker',
  definition:
    'Produce: records per second until all are confirmed by acks `all`. Consume: records per second from the first that was delivered. ' +
    "Java: Kafka's own ProducerPerformance and ConsumerPerformance at their defaults; CPU of the client, of the tools with their start.",
  columns: [rate('records/s'), peakRss, cpuSeconds],
  cases: ['produce, 1 partition', 'produce, 6 partitions', 'consume, 1 partition', 'consume, 6 partitions'],
  baselines: ["Kafka's own tool"],
  contestants: [
    { name: "Kafka's own tool", missing: kafkaMissing, run: java },
    { name: 'millrace, kafkajs', missing: kafkaMissing, run: run => millrace(run, 'kafkajs') },
    { name: 'millrace, @platformatic/kafka', missing: kafkaMissing, run: run => millrace(run, 'platformatic') },
  ],
} satisfies Workload;
