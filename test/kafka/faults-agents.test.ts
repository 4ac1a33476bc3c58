/**
 * Agents that share a Kafka channel and are killed: what was confirmed to their sources comes to a sink of one of them. `KILL_SEED`
 * replays the moments as far as a machine lets one.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { poll } from '../../bench/processes.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import { createSink, run } from '../../src/index.ts';
import { kafkaChannel } from '../../src/kafka.ts';
import { decodeAvroEvent } from '../../src/protocols/avro-event.ts';
import { recordingLog, seededRandom } from '../../src/testing/index.ts';
import { bundle } from '../bundle.ts';
import { kafkaVersions, startKafka, type Kafka } from './brokers.ts';
import type { Orders } from './faults-agent.ts';
import { describeFaults, Collected, Numbers, total, until } from './faults.ts';

const seed = Number(process.env['KILL_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** At least; until they have met what they are for. */
const kills = 8;
const inFlight = 2000;
const perDelivery = 250;
const sinkPace = 20;
const commitInterval = 200;

class Agent {
  readonly up: Promise<unknown>;
  readonly exited: Promise<unknown[]>;
  readonly #child: ChildProcessByStdio<null, Readable, null>;

  constructor(program: string, orders: Orders) {
    this.#child = spawn(process.execPath, [program, JSON.stringify(orders)], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.up = once(this.#child.stdout, 'data');
    this.exited = once(this.#child, 'exit');
  }

  hurry(): void {
    this.#child.kill('SIGUSR2');
  }

  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    this.#child.kill(signal);
    expect(await this.exited).toEqual(signal === 'SIGKILL' ? [null, signal] : [0, null]);
  }
}

/** Reads what agents append. A line is whole, as each write is. */
class Output {
  readonly collected = new Collected(2);
  readonly #file: number;
  readonly #buffer = Buffer.alloc(1024 * 1024);
  readonly #agents = new Map<string, object>();
  #rest = '';

  constructor(file: string) {
    this.#file = openSync(file, 'a+');
  }

  read(): void {
    for (let length; (length = readSync(this.#file, this.#buffer)) > 0;) {
      const lines = (this.#rest + this.#buffer.toString('latin1', 0, length)).split('\n');
      this.#rest = lines.pop() as string;
      for (const line of lines) {
        const [pid, partition, number] = line.split(' ') as [string, string, string];
        const agent = this.#agents.get(pid) ?? {};
        this.#agents.set(pid, agent);
        this.collected.take(Number(partition), Number(number), agent);
      }
    }
  }

  close(): void {
    closeSync(this.#file);
  }
}

describeFaults.each(kafkaVersions)('agents that share a channel of Kafka %s', version => {
  let kafka: Kafka;
  let folder: string;
  let program: string;

  beforeAll(async () => {
    program = await bundle(join(import.meta.dirname, 'faults-agent.ts'));
    folder = dirname(program);
    kafka = await startKafka({
      version,
      nodes: 3,
      fastFailover: true,
      properties: { 'group.min.session.timeout.ms': 1000 },
    });
  });
  afterAll(async () => {
    await kafka.stop();
    rmSync(folder, { recursive: true });
  });

  test(`lose nothing when they are killed; KILL_SEED=${seed}`, { timeout: 240_000 }, async () => {
    const topic = 'shared';
    await kafka.createTopic(topic, { partitions: 2 });
    const random = seededRandom(seed);
    const output = new Output(join(folder, 'output'));
    const position = (partition: number) => join(folder, `position-${partition}`);
    const confirmed = (partition: number) => Number(readFileSync(position(partition), 'utf8').split('\n').at(-2) ?? 0);
    const start = (partition: number) =>
      new Agent(program, {
        bootstrapServers: kafka.bootstrap,
        topic,
        partition,
        total,
        inFlight,
        perDelivery,
        pace: 50,
        sinkPace,
        position: position(partition),
        output: join(folder, 'output'),
        commitInterval,
      });
    const received = () => {
      output.read();
      expect(output.collected.broken).toEqual([]);
      return output.collected.next.reduce((sum, next) => sum + next, 0);
    };
    const agents: [Agent, Agent] = [start(0), start(1)];
    let kill = 0;
    // Something was on its way then, and partitions went from one to another.
    let met = false;
    try {
      for (; kill < kills || (kill < 4 * kills && !(met && output.collected.handovers > 2)); kill++) {
        const victim = agents[kill % 2] as Agent;
        await victim.up;
        const before = [confirmed(kill % 2), received()] as const;
        // Every third comes in the middle of a rebalance.
        await until(
          () => confirmed(kill % 2) > before[0] && (kill % 3 === 2 || received() > before[1]),
          () => `nothing is put, or nothing is taken; ${kill} kills`,
        );
        await sleep(random() * 2000);
        // Something is on its way to the brokers then.
        victim.hurry();
        const now = confirmed(kill % 2);
        await until(
          () => confirmed(kill % 2) > now + inFlight,
          () => 'it does not hurry',
        );
        await victim.end('SIGKILL');
        met ||= ((await kafka.ends(topic))[kill % 2] as number) > confirmed(kill % 2);
        agents[kill % 2] = start(kill % 2);
      }
      expect(Math.max(confirmed(0), confirmed(1))).toBeLessThan(total);
      for (const agent of agents) await agent.up.then(() => agent.hurry());
      await until(
        () => received() === 2 * total,
        () => JSON.stringify([output.collected, confirmed(0), confirmed(1)]),
      );
      expect([confirmed(0), confirmed(1)]).toEqual([total, total]);

      // What was not confirmed when an agent was killed is put again.
      const records = await kafka.ends(topic);
      const putAgain = records.reduce((sum, count) => sum + count - total, 0);
      expect(putAgain).toBeGreaterThan(0);
      expect(putAgain).toBeLessThanOrEqual(kill * inFlight);
      // And what was not committed comes again: what was written in a commit interval, and while it was committed.
      const duplicates = output.collected.duplicates.reduce((sum, count) => sum + count, 0);
      const rate = perDelivery / sinkPace;
      expect(duplicates - putAgain).toBeLessThanOrEqual(kill * (rate * (commitInterval + 300) + inFlight));

      expect(output.collected.handovers).toBeGreaterThan(2);
      for (const agent of agents) await agent.end('SIGTERM');
      const committed = await poll('no offsets', () =>
        kafka.admin(admin => admin.fetchOffsets({ groupId: topic, topics: [topic] })),
      );
      expect(committed[0]?.partitions.map(({ offset }) => Number(offset))).toEqual(records);
    } finally {
      await Promise.all(agents.map(agent => agent.end('SIGKILL').catch(() => undefined)));
      output.close();
    }
  });

  test('lose nothing when their brokers are killed', { timeout: 240_000 }, async () => {
    const [topic, partitions] = ['killed', 3];
    await kafka.createTopic(topic, { partitions });
    const numbers = new Numbers(partitions);
    const collected = new Collected(partitions);
    const sink = createSink(events => {
      for (const { headers, body } of events) collected.take(Number(headers['p']), Number(String(body)), sink);
    });
    const log = recordingLog();
    const flow = inScope(new Scope({ log }), () =>
      run(
        numbers.source,
        kafkaChannel({
          bootstrapServers: kafka.bootstrap,
          topic,
          groupId: topic,
          partitionIdHeader: 'p',
          commitInterval,
          producer: { 'request.timeout.ms': '5000' },
          consumer: { 'session.timeout.ms': '6000', 'heartbeat.interval.ms': '500', 'fetch.max.wait.ms': '100' },
        }),
        sink,
      ),
    );
    flow.done.catch(() => undefined);
    const reach = (number: number) => {
      numbers.upTo(number);
      return until(
        () => collected.next.every(next => next >= number),
        () => JSON.stringify([collected, log.entries.slice(-10)]),
      );
    };
    try {
      await reach(2000);
      const roles = [() => kafka.leaderOf(topic, 0), () => kafka.coordinatorOf(topic)];
      for (const role of roles) {
        const node = await role();
        await numbers.during(async () => {
          await node.kill();
          await until(
            async () => (await role()) !== node,
            () => 'nobody else has its part',
          );
          await reach(numbers.allowed);
          await node.start();
        });
        await kafka.inSync(topic);
        await kafka.inSync('__consumer_offsets');
      }
      expect(numbers.allowed).toBeLessThan(total);
      numbers.upTo(total);
      await flow.done;
    } finally {
      flow.abort();
    }
    expect(collected.broken).toEqual([]);
    expect(collected.next).toEqual(Array(partitions).fill(total));
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: partitions * total, held: 0 });
    expect(flow.ledger.difference).toBe(0);
    // What was on its way to a broker that was killed may be put again, and all of that comes.
    const written = await kafka.read(topic);
    const putAgain = written.reduce((sum, { length }) => sum + length - total, 0);
    const duplicates = collected.duplicates.reduce((sum, count) => sum + count, 0);
    expect(putAgain).toBeLessThanOrEqual(2 * 25_000);
    expect(duplicates).toBeGreaterThanOrEqual(putAgain);
    for (const records of written) {
      const firsts = [...new Set(records.map(({ value }) => Number(String(decodeAvroEvent(value as Buffer).body))))];
      expect(firsts.every((number, index) => number === index)).toBe(true);
    }
  });
});
