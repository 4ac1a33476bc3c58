/**
 * A group that reads a topic and writes another in transactions, while its members are killed, stopped, and woken up when others have
 * their partitions, and brokers are killed. `KILL_SEED` replays the moments as far as a machine lets one.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { poll } from '../../bench/processes.ts';
import { quietLog } from '../../src/core/scope.ts';
import type { KafkaClient, ReadRecord } from '../../src/protocols/kafka/client.ts';
import { kafkajs } from '../../src/protocols/kafka/kafkajs.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { bundle } from '../bundle.ts';
import { startKafka, type Kafka } from './brokers.ts';
import { describeFaults } from './faults.ts';
import { batchSize, isKept, type Orders } from './exactly-once-member.ts';

const seed = Number(process.env['KILL_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const partitions = 3;
const perPartition = 50_000;
const members = 3;
const harms = 16;
const groupId = 'movers';

const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
/** What is made of so many records of one partition. */
const keptUpTo = (count: number) => Array.from({ length: count }, (_, number) => number).filter(isKept);

let program: string;
beforeAll(async () => {
  program = await bundle(join(import.meta.dirname, 'exactly-once-member.ts'));
});
afterAll(() => rmSync(dirname(program), { recursive: true }));

/** Counts the records of a topic as they come, aborted ones too. */
const counting = (client: KafkaClient, topic: string) => {
  const seen = { count: 0, next: new Array<number>(partitions).fill(0) };
  const consumer = client.consumer(
    { groupId: 'counting', topics: [topic], readCommitted: false },
    {
      assigned: given => given.map(({ partition }) => seen.next[partition] as number),
      revoked: () => undefined,
      records: ({ partition }, records) => {
        const fresh = records.filter(({ offset }) => offset >= (seen.next[partition] as number));
        seen.count += fresh.length;
        seen.next[partition] = (records.at(-1) as ReadRecord).offset + 1;
      },
      outOfRange: ({ first }) => first,
      trouble: () => undefined,
      recovered: () => undefined,
    },
  );
  return { seen, close: () => consumer.close() };
};

for (const [version, nodes] of [
  ['3.9.2', 1],
  ['4.3.1', 3],
] as const)
  describeFaults(`exactly once on Kafka ${version}, nodes: ${nodes}`, () => {
    let kafka: Kafka;
    let client: KafkaClient;
    beforeAll(async () => {
      kafka = await startKafka({
        version,
        nodes,
        fastFailover: true,
        properties: { 'group.min.session.timeout.ms': 1000 },
      });
      client = await kafkajs({ brokers: kafka.bootstrap, log: quietLog });
      await kafka.createTopic('in', { partitions });
      await kafka.createTopic('out', { partitions });
    });
    afterAll(async () => {
      await client.close();
      await kafka.stop();
    });

    test(`each record is there once, and in order; KILL_SEED=${seed}`, { timeout: 360_000 }, async () => {
      const random = seededRandom(seed);
      const producer = client.producer();
      let written = 0;
      /** As much for each partition. */
      const write = async (count: number) => {
        const records = Array.from({ length: count }, (_, i) => ({
          key: null,
          value: Buffer.from(String(written + i)),
        }));
        written += count;
        for (let partition = 0; partition < partitions; partition++)
          await producer.send({ topic: 'in', partition }, records);
      };

      const orders: Orders = { bootstrapServers: kafka.bootstrap, groupId, from: 'in', to: 'out' };
      const start = (): ChildProcess =>
        spawn(process.execPath, [program, JSON.stringify(orders)], { stdio: ['ignore', 'ignore', 'inherit'] });
      const running = Array.from({ length: members }, start);
      const offsets = async () => {
        const [of] = await kafka.admin(ask => ask.fetchOffsets({ groupId, topics: ['in'] }));
        return of!.partitions.map(({ offset }) => Math.max(0, Number(offset)));
      };
      const moved = async () => sum(await offsets());
      const all = counting(client, 'out');
      onTestFinished(() => all.close());
      /** More is there than what is committed, and what may be under way. */
      const aborted = async () =>
        all.seen.count >
        sum((await poll('no offsets', offsets)).map(offset => keptUpTo(offset).length)) + partitions * batchSize;
      let left = 0;
      try {
        // Whether a harm meets a transaction is chance. It goes on until one has.
        for (let harm = 0; harm < harms || (harm < 4 * harms && !(await aborted())); harm++) {
          await write(perPartition / harms);
          // Nobody is harmed who has nothing in hand.
          left = await poll('nothing moves', async () => {
            const now = await moved();
            return now > left ? now : undefined;
          });
          // In the middle of it, mostly.
          await sleep(random() ** 3 * 500);
          const at = Math.floor(random() * members);
          const victim = running[at] as ChildProcess;
          if (harm % 4 === 1 && kafka.nodes.length > 1) {
            const node = kafka.nodes[harm % kafka.nodes.length] as (typeof kafka.nodes)[number];
            await node.kill();
            await sleep(random() * 3000);
            await node.start();
          } else if (harm % 4 === 2) {
            victim.kill('SIGSTOP');
            // For less and for more than its session.
            await sleep(random() < 0.5 ? 300 : 2500);
            victim.kill('SIGCONT');
          } else {
            const gone = once(victim, 'exit');
            victim.kill('SIGKILL');
            await gone;
            running[at] = start();
          }
        }
        const total = partitions * written;
        await poll('not all is moved', async () => ((await moved()) === total ? true : undefined), {
          timeout: 120_000,
        });
      } finally {
        for (const child of running) child.kill('SIGKILL');
        await producer.close();
      }

      const kept = keptUpTo(written);
      const found = await kafka.read('out');
      for (const records of found) expect(records.map(({ value }) => Number(value))).toEqual(kept);
      await poll('not all is counted', () =>
        found.every((records, partition) => (all.seen.next[partition] as number) > records.at(-1)!.offset)
          ? true
          : undefined,
      );
      // What happened on the way: transactions were aborted, and partitions went from one member to another.
      expect(all.seen.count - partitions * kept.length).toBeGreaterThan(0);
      const writers = found.map(records => records.map(({ headers }) => String(headers['pid'])));
      const handovers = writers.map(pids => pids.filter((pid, i) => i > 0 && pid !== pids[i - 1]).length);
      expect(sum(handovers)).toBeGreaterThan(2);
    });
  });
