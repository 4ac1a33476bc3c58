/**
 * W5, end to end: lines of 180 bytes are tailed → file channel → Kafka sink (acks all) → one broker, 1 partition → Kafka source →
 * memory channel → file_roll. Two agents, and the broker, on one machine.
 *
 * *All at once*: 1 M lines, real Flume 200 k; as in W1 the rate is from the first byte in the output to the last, and the output is
 * compared with the input. CPU and memory are those of the agent that writes the output.
 * *A tenth of that*: 25 lines per ms are appended, so 25 k/s, and a sink looks at the clock; library, both halves in one process.
 * *Idle*: one agent with a Kafka source, a Kafka channel and a Kafka sink, for 20 s, nothing happens; CPU in percent of one core.
 *
 * @module
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { agent } from './agent.ts';
import type { ChildMain } from './child.ts';
import { flume, flumeMissing } from './flume.ts';
import { kafkaMissing, startKafka, type Kafka } from './kafka.ts';
import { cpuOf, peakRssOf } from './proc.ts';
import { startChild, type Running } from './processes.ts';
import { conf, fileChannel, fileRoll, LINE, makeInput, measured } from './tail-file.ts';
import { column, cpuSeconds, peakRss, rate, type Run, type Sample, type Workload } from './workload.ts';

const [AT_ONCE, A_TENTH, IDLE] = ['all at once', 'a tenth of that', 'idle'];

const PER_MS = 25;
const WARM_UP = 2_000;
const TICKS = 8_000;

let broker: Promise<Kafka> | undefined;
const kafka = (): Promise<Kafka> => (broker ??= startKafka({ jvm: ['-Xmx1g', '-XX:TieredStopAtLevel=4'] }));

let topics = 0;
const inTopic = async (measure: (kafka: Kafka, topic: string) => Promise<Sample>): Promise<Sample> => {
  const cluster = await kafka();
  const topic = `flow-${topics++}`;
  await cluster.createTopic(topic, { partitions: 1 });
  try {
    return await measure(cluster, topic);
  } finally {
    await cluster.deleteTopic(topic);
  }
};

const edge = (input: string, dir: string, bootstrap: string, topic: string): string =>
  conf(
    input,
    { dir },
    1000,
    fileChannel(dir),
    `
a1.sinks.k1.type = org.apache.flume.sink.kafka.KafkaSink
a1.sinks.k1.kafka.bootstrap.servers = ${bootstrap}
a1.sinks.k1.kafka.topic = ${topic}
a1.sinks.k1.kafka.producer.acks = all
a1.sinks.k1.flumeBatchSize = 1000
a1.sinks.k1.channel = c1`,
  );

const collector = (run: Run, bootstrap: string, topic: string): string => `
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = org.apache.flume.source.kafka.KafkaSource
a1.sources.r1.kafka.bootstrap.servers = ${bootstrap}
a1.sources.r1.kafka.topics = ${topic}
a1.sources.r1.kafka.consumer.group.id = ${topic}
a1.sources.r1.kafka.consumer.auto.offset.reset = earliest
a1.sources.r1.batchSize = 1000
a1.sources.r1.channels = c1
a1.channels.c1.type = memory
a1.channels.c1.capacity = 100000
a1.channels.c1.transactionCapacity = 10000
${fileRoll(run.dir, 1000)}
`;

const dirFor = (run: Run, name: string): string => {
  const dir = join(run.dir, name);
  mkdirSync(dir);
  return dir;
};

const throughBoth = (
  run: Run,
  input: string,
  start: (text: string, dir: string) => Promise<Running>,
): Promise<Sample> =>
  inTopic(async ({ bootstrap }, topic) => {
    const [address = ''] = bootstrap;
    const [edgeDir, collectorDir] = [dirFor(run, 'edge'), dirFor(run, 'collector')];
    let tailing: Running | undefined;
    try {
      return await measured(run, input, async () => {
        const collecting = await start(collector(run, address, topic), collectorDir);
        tailing = await start(edge(input, edgeDir, address, topic), edgeDir);
        return collecting;
      });
    } finally {
      await tailing?.stop();
    }
  });

/** Milliseconds on a clock that both ends have. */
const now = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

export const writer: ChildMain<{ file: string }> = async ({ file }, tell) => {
  const out = openSync(file, 'a');
  const begin = performance.now();
  for (let tick = 1; tick <= WARM_UP + TICKS; tick++) {
    writeSync(out, `${String(now()).padEnd(LINE - 1)}\n`.repeat(PER_MS));
    const early = begin + tick - performance.now();
    if (early > 0) await sleep(early);
  }
  closeSync(out);
  tell('all');
};

export const both: ChildMain<{ file: string; dir: string; bootstrap: string; topic: string }> = async (of, tell) => {
  const { createSink, fileChannel: durable, run, taildirSource } = await import('../src/index.ts');
  const { kafkaSink, kafkaSource } = await import('../src/kafka.ts');
  const { file, dir, bootstrap, topic } = of;
  const took: number[] = [];
  let count = 0;
  const bootstrapServers = [bootstrap];
  run(
    kafkaSource({ bootstrapServers, topics: [topic], groupId: topic, consumer: { 'auto.offset.reset': 'earliest' } }),
    createSink(events => {
      const at = now();
      for (const { body } of events)
        if (++count > WARM_UP * PER_MS) took.push(at - Number(body.toString('latin1', 0, 32)));
      if (count >= (WARM_UP + TICKS) * PER_MS) tell(took.sort((a, b) => a - b));
    }),
  );
  run(
    taildirSource({ filegroups: { f1: file }, positionFile: join(dir, 'position.json'), batchSize: 1000 }),
    durable({ dir: join(dir, 'channel') }),
    kafkaSink({ bootstrapServers, topic, batchSize: 1000 }),
  );
  tell('ready');
};

const latency = (run: Run): Promise<Sample> =>
  inTopic(async ({ bootstrap }, topic) => {
    const file = join(run.dir, 'input.log');
    closeSync(openSync(file, 'w'));
    const running = startChild('w5-kafka-flow', 'both', { file, dir: run.dir, bootstrap: bootstrap[0], topic });
    try {
      await running.told();
      // So that the group is there.
      await sleep(3000);
      const [began, before] = [performance.now(), cpuOf(running.pid)];
      const appending = startChild('w5-kafka-flow', 'writer', { file });
      try {
        const took = await running.told<number[]>();
        const seconds = (performance.now() - began) / 1000;
        const at = (share: number) => took[Math.floor(took.length * share)] ?? NaN;
        return {
          rate: ((WARM_UP + TICKS) * PER_MS) / seconds,
          p50: at(0.5),
          p99: at(0.99),
          cpu: cpuOf(running.pid) - before,
          rss: peakRssOf(running.pid),
        };
      } finally {
        await appending.stop();
      }
    } finally {
      await running.stop();
    }
  });

const idle = (run: Run): Promise<Sample> =>
  inTopic(async ({ bootstrap, createTopic }, topic) => {
    await createTopic(`${topic}-channel`, { partitions: 1 });
    const [address = ''] = bootstrap;
    const text = `
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = kafka
a1.sources.r1.kafka.bootstrap.servers = ${address}
a1.sources.r1.kafka.topics = ${topic}
a1.sources.r1.kafka.consumer.group.id = idle-source
a1.sources.r1.channels = c1
a1.channels.c1.type = kafka
a1.channels.c1.kafka.bootstrap.servers = ${address}
a1.channels.c1.kafka.topic = ${topic}-channel
a1.channels.c1.kafka.consumer.group.id = idle-channel
a1.sinks.k1.type = kafka
a1.sinks.k1.kafka.bootstrap.servers = ${address}
a1.sinks.k1.kafka.topic = ${topic}
a1.sinks.k1.allowTopicOverride = false
a1.sinks.k1.channel = c1
`;
    const running = await agent({ conf: text, dir: run.dir });
    try {
      // Starting is over then, and what V8 does to its heap after it.
      await sleep(15_000);
      const [began, before] = [performance.now(), cpuOf(running.pid)];
      await sleep(20_000);
      const percent = (cpuOf(running.pid) - before) / ((performance.now() - began) / 100_000);
      return { idle: percent, rss: peakRssOf(running.pid) };
    } finally {
      await running.stop();
    }
  });

export default {
  name: 'w5-kafka-flow',
  title: 'W5, end to end: tail → file channel → Kafka → file_roll, lines of 180 bytes, one broker and one partition',
  definition:
    'All at once: lines per second from the first byte in the output to the last. A tenth of that: 25 k lines/s are appended; from before the ' +
    'write until the last sink has the line. Idle: CPU of one agent with Kafka source, channel and sink, in percent of one core.',
  columns: [
    rate('lines/s'),
    column('p50', 'p50, ms', 1),
    column('p99', 'p99, ms', 1),
    column('idle', 'idle CPU, %', 2),
    cpuSeconds,
    peakRss,
  ],
  cases: [AT_ONCE, A_TENTH, IDLE] as string[],
  baselines: ['real Flume 1.11'],
  prepare: async shared => {
    makeInput(join(shared, 'long'), 1_000_000);
    makeInput(join(shared, 'short'), 200_000);
  },
  contestants: [
    {
      name: 'real Flume 1.11',
      missing: () => flumeMissing() ?? kafkaMissing(),
      run: async run => {
        if (run.case !== AT_ONCE) return {};
        return throughBoth(run, join(run.shared, 'short'), async text => {
          const running = await flume({ conf: text, kafka: true });
          await running.ready;
          return running;
        });
      },
    },
    {
      name: 'millrace',
      missing: kafkaMissing,
      run: run => {
        if (run.case === IDLE) return idle(run);
        if (run.case === A_TENTH) return latency(run);
        return throughBoth(run, join(run.shared, 'long'), (text, dir) => agent({ conf: text, dir }));
      },
    },
  ],
} satisfies Workload;
