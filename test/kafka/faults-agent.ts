/**
 * An agent that is killed by faults-agents.test.ts: numbers → Kafka channel → a file that all agents append to. It goes on with its
 * numbers where they were confirmed, as a tail does. After SIGUSR2 it hurries; SIGTERM stops it.
 *
 * @module
 */
import { openSync, readFileSync, writeSync } from 'node:fs';
import { AckedInOrder, type Sent } from '../../src/core/acked-in-order.ts';
import { createSink, createSource, event, headers, run, type FlumeEvent } from '../../src/index.ts';
import { kafkaChannel } from '../../src/kafka.ts';

export interface Orders {
  readonly bootstrapServers: readonly string[];
  readonly topic: string;
  /** Of its own numbers. */
  readonly partition: number;
  readonly total: number;
  /** Numbers that are on their way at most, and how many of them there are per delivery. */
  readonly inFlight: number;
  readonly perDelivery: number;
  /** Ms from one delivery of numbers to the next, and from one write to the next. */
  readonly pace: number;
  readonly sinkPace: number;
  /** Where it writes down how far it is, and what it was given. */
  readonly position: string;
  readonly output: string;
  /** In ms. */
  readonly commitInterval: number;
}

const orders = JSON.parse(process.argv[2] as string) as Orders;
const { partition, total, inFlight, perDelivery, pace, sinkPace, commitInterval } = orders;

const positionFile = openSync(orders.position, 'a+');
/** The last line that is whole. */
const start = Number(readFileSync(orders.position, 'utf8').split('\n').at(-2) ?? 0);

let slow = true;
process.once('SIGUSR2', () => (slow = false));

const numbers = createSource<FlumeEvent, Sent<number>>(
  emitter => {
    let next = start;
    const progress = new AckedInOrder(start);
    const named = headers({ p: String(partition) });
    const emit = () => {
      // Slowly it comes to no end, for minutes. And there the flow goes on: others have events for us.
      const count = Math.min(slow ? Math.ceil((total - perDelivery - next) / 2000) : perDelivery, total - next);
      if (count <= 0) return void setTimeout(emit, pace);
      const from = next;
      next += count;
      emitter.emit(
        Array.from({ length: count }, (_, i) => event(String(from + i), named)),
        progress.send(next),
      );
    };
    return {
      pull: () => void setTimeout(emit, slow ? pace : 0),
      settled(sent, what) {
        if (what !== 'acked') return;
        progress.acked(sent);
        writeSync(positionFile, `${progress.committed}\n`);
      },
    };
  },
  { maxInFlight: { events: inFlight } },
);

const channel = kafkaChannel({
  bootstrapServers: orders.bootstrapServers,
  topic: orders.topic,
  groupId: orders.topic,
  partitionIdHeader: 'p',
  transactionCapacity: perDelivery,
  maxInFlight: { events: inFlight },
  commitInterval,
  consumer: { 'session.timeout.ms': '3000', 'heartbeat.interval.ms': '500', 'fetch.max.wait.ms': '100' },
});

const output = openSync(orders.output, 'a');
const sink = createSink({
  async write({ events }) {
    // One call, so that lines of agents do not mix. What is written survives a kill.
    writeSync(output, events.map(({ headers, body }) => `${process.pid} ${headers['p']} ${String(body)}\n`).join(''));
    await new Promise(resolve => setTimeout(resolve, sinkPace));
  },
});

const flow = run(numbers, channel, sink);
process.once('SIGTERM', () => {
  flow.stop().then(
    () => process.exit(0),
    () => process.exit(1),
  );
});
process.stdout.write('up\n');
