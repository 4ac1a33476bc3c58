/**
 * Random histories of a consumer group: agents come, go and are killed, brokers go away, commits fail, sinks nack; and what must
 * hold all the while.
 */
import fc from 'fast-check';
import { expect } from 'vitest';
import type { Ledger } from '../../../src/core/ledger.ts';
import { inScope, Scope } from '../../../src/core/scope.ts';
import type { KafkaConnector } from '../../../src/protocols/kafka/client.ts';
import {
  FakeClock,
  recordingLog,
  recordingSink,
  seededRandom,
  type RecordingSink,
} from '../../../src/testing/index.ts';
import { memoryKafka, type MemoryKafka } from '../../../src/testing/memory-kafka.ts';

type Step =
  | { readonly do: 'write'; readonly partition: number; readonly count: number }
  | { readonly do: 'join' }
  | { readonly do: 'stop' | 'kill' | 'expel' | 'silence'; readonly at: number }
  | { readonly do: 'rebalance' | 'down' | 'up' }
  | { readonly do: 'mood'; readonly mood: Mood }
  | {
      readonly do: 'fault';
      readonly fault: 'commitRefused' | 'commitUnanswered' | 'fetchRefused' | 'sendRefused' | 'sendUnanswered';
    }
  | { readonly do: 'wait'; readonly ms: number };
type Mood = 'acks' | 'acks late' | 'nacks' | 'holds';

const partitions = 3;
export const group = 'flume';

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      partition: fc.nat(partitions - 1),
      count: fc.integer({ min: 1, max: 12 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1, 10, 300, 2500, 12_000) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('mood' as const),
      mood: fc.constantFrom<Mood>('acks', 'acks late', 'nacks', 'holds'),
    }),
  },
  { weight: 3, arbitrary: fc.constant({ do: 'join' as const }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('stop' as const, 'kill' as const, 'expel' as const, 'silence' as const),
      at: fc.nat(5),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('rebalance' as const, 'down' as const, 'up' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('fault' as const),
      fault: fc.constantFrom(
        'commitRefused' as const,
        'commitUnanswered' as const,
        'fetchRefused' as const,
        'sendRefused' as const,
        'sendUnanswered' as const,
      ),
    }),
  },
);

interface Running {
  readonly ledger: Ledger;
  stop(options?: { timeout: number }): Promise<void>;
  abort(): void;
}

/** What is tried: something that reads a topic, as a member of the group, into a sink. */
export interface Subject {
  readonly topic: string;
  start(connect: KafkaConnector, sink: RecordingSink): Running;
}

interface Agent {
  readonly flow: Running;
  readonly sink: RecordingSink;
  readonly ids: string[];
  gone: boolean;
}

/** What happened in all histories, so that a test can say that they were worth something. */
export const sightings = () => ({
  rebalances: 0,
  kills: 0,
  duplicates: 0,
  fenced: 0,
  late: 0,
  failedCommits: 0,
  outages: 0,
  nacks: 0,
});
type Sightings = ReturnType<typeof sightings>;

class History {
  readonly #clock = new FakeClock();
  readonly #log = recordingLog();
  readonly #random: () => number;
  readonly #cluster: MemoryKafka;
  readonly #subject: Subject;
  readonly #seen: Sightings;
  readonly #agents: Agent[] = [];
  readonly #written = new Array<number>(partitions).fill(0);
  /** By partition: how many were received in order, and which numbers were acked. */
  readonly #received = new Array<number>(partitions).fill(0);
  readonly #acked = Array.from({ length: partitions }, () => new Set<number>());
  #duplicates = 0;
  #allowed = 0;
  #mood: Mood = 'acks';
  #settledLate = 0;

  constructor(subject: Subject, seed: number, seen: Sightings) {
    this.#subject = subject;
    this.#random = seededRandom(seed);
    this.#seen = seen;
    this.#cluster = memoryKafka({ clock: this.#clock, random: this.#random, topics: { [subject.topic]: partitions } });
  }

  async play(steps: readonly Step[]): Promise<void> {
    this.#join();
    for (const one of steps) {
      await this.#act(one);
      await this.#clock.flush();
      this.#check();
    }
    await this.#end();
  }

  async #act(step: Step): Promise<void> {
    const live = this.#agents.filter(({ gone }) => !gone);
    const agent = 'at' in step ? live[step.at % Math.max(1, live.length)] : undefined;
    if ('at' in step && agent === undefined) return;
    switch (step.do) {
      case 'write':
        return this.#write(step.partition, step.count);
      case 'join':
        if (live.length < 3) this.#join();
        return;
      case 'stop':
        return this.#stop(agent as Agent);
      case 'kill':
        this.#seen.kills++;
        return this.#kill(agent as Agent);
      case 'expel':
      case 'silence':
        for (const id of (agent as Agent).ids.slice(-1)) {
          if (!this.#cluster.members(group).some(member => member.id === id)) continue;
          if (step.do === 'expel') this.#cluster.expelMember(id);
          else {
            // It may go on with what others read as well by then.
            this.#allowed = Infinity;
            this.#cluster.silenceMember(id, 40_000);
          }
        }
        return;
      case 'rebalance':
        return this.#cluster.rebalance(group);
      case 'down':
        this.#seen.outages++;
        return this.#cluster.down();
      case 'up':
        return this.#cluster.up();
      case 'mood':
        this.#mood = step.mood;
        return;
      case 'fault':
        return this.#cluster.script(step.fault);
      case 'wait':
        return this.#pass(step.ms);
    }
  }

  /** Time passes, and it is looked at what is committed in between. */
  async #pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 400) {
      await this.#clock.advance(Math.min(left, 400));
      this.#check();
    }
  }

  #write(partition: number, count: number): void {
    const from = this.#written[partition] as number;
    const bodies = Array.from({ length: count }, (_, i) => `${partition}:${from + i}`);
    this.#written[partition] = from + count;
    this.#cluster.write(
      { topic: this.#subject.topic, partition },
      bodies.map(body => ({ key: null, value: Buffer.from(body) })),
    );
  }

  #inScope<R>(act: () => R): R {
    return inScope(new Scope({ clock: this.#clock, random: this.#random, log: this.#log }), act);
  }

  #join(): void {
    const ids: string[] = [];
    const connect: KafkaConnector = async settings => {
      const client = await this.#cluster.connect(settings);
      return {
        ...client,
        partitions: name => client.partitions(name),
        offsets: name => client.offsets(name),
        producer: options => client.producer(options),
        close: () => client.close(),
        consumer: (options, listener) => {
          const consumer = client.consumer(options, {
            assigned: given => {
              const starts = listener.assigned(given);
              // What is read again now was read before, and not committed.
              given.forEach(
                ({ partition }, i) =>
                  (this.#allowed += Math.max(0, (this.#received[partition] as number) - (starts[i] as number))),
              );
              return starts;
            },
            revoked: (given, lost) => listener.revoked(given, lost),
            records: (of, records) => listener.records(of, records),
            outOfRange: (of, wanted) => listener.outOfRange(of, wanted),
            trouble: cause => listener.trouble(cause),
            recovered: () => listener.recovered(),
          });
          ids.push((consumer as unknown as { id: string }).id);
          return consumer;
        },
      };
    };
    const sink: RecordingSink = recordingSink(
      delivery => {
        for (const { body } of delivery.events) this.#receive(String(body));
        if (this.#mood === 'holds') return 'hold';
        if (this.#mood === 'nacks' && this.#random() < 0.5) {
          this.#seen.nacks++;
          this.#allowed += sink.unsettled().reduce((sum, { events }) => sum + events.length, delivery.length);
          return 'nack';
        }
        return { outcome: 'ack', after: this.#mood === 'acks late' ? Math.floor(3000 * this.#random()) : 0 };
      },
      { clock: this.#clock },
    );
    const flow = this.#inScope(() => this.#subject.start(connect, sink));
    this.#agents.push({ flow, sink, ids, gone: false });
  }

  #receive(body: string): void {
    const [partition, number] = body.split(':').map(Number) as [number, number];
    const expected = this.#received[partition] as number;
    // First occurrences come in order, without a gap.
    expect(number, `of partition ${partition}`).toBeLessThanOrEqual(expected);
    if (number === expected) this.#received[partition] = expected + 1;
    else this.#duplicates++;
  }

  #stop(agent: Agent): void {
    agent.gone = true;
    for (const received of agent.sink.unsettled()) received.settle('ack');
    agent.flow.stop({ timeout: 60_000 }).catch(() => undefined);
  }

  #kill(agent: Agent): void {
    agent.gone = true;
    for (const id of agent.ids)
      if (this.#cluster.members(group).some(member => member.id === id)) this.#cluster.killMember(id);
    agent.flow.abort();
  }

  #check(): void {
    for (const { sink } of this.#agents)
      for (const body of sink.acked) {
        const [partition, number] = String(body.body).split(':').map(Number) as [number, number];
        this.#acked[partition]?.add(number);
      }
    for (const { partition, offset } of this.#cluster.committed(group))
      for (let number = 0; number < offset; number++)
        if (this.#acked[partition]?.has(number) === false)
          expect.fail(`${partition}:${number} was not acked, and ${offset} is committed`);
    for (const { flow } of this.#agents) expect(flow.ledger.difference, JSON.stringify(flow.ledger.snapshot())).toBe(0);
    expect(this.#duplicates).toBeLessThanOrEqual(this.#allowed);
  }

  /** Everything works again: everything is read, acked and committed. */
  async #end(): Promise<void> {
    this.#cluster.up();
    this.#cluster.faults = {};
    this.#mood = 'acks';
    if (this.#agents.every(({ gone }) => gone)) this.#join();
    const done = () => {
      for (const { sink } of this.#agents)
        for (const received of sink.unsettled()) if (received.delivery.live) received.settle('ack');
      const ends = new Map(this.#cluster.committed(group).map(({ partition, offset }) => [partition, offset]));
      return Array.from({ length: partitions }, (_, i) => this.#cluster.log(this.#subject.topic, i).length).every(
        (length, partition) => (ends.get(partition) ?? 0) === length,
      );
    };
    for (let i = 0; i < 1000 && !done(); i++) await this.#pass(400);
    this.#check();
    this.#written.forEach((count, partition) => {
      const numbers = [...(this.#acked[partition] as Set<number>)];
      expect(numbers.length, `of partition ${partition}: received ${this.#received[partition]}`).toBe(count);
    });
    expect(done()).toBe(true);
    for (const agent of this.#agents) if (!agent.gone) this.#stop(agent);
    await this.#pass(70_000);
    this.#check();
    for (const { flow } of this.#agents) {
      expect(flow.ledger.held, JSON.stringify(flow.ledger.snapshot())).toBe(0);
      this.#settledLate += flow.ledger.settledLate;
    }
    const { happened } = this.#cluster;
    this.#seen.rebalances += happened.rebalances;
    this.#seen.fenced += happened.fenced;
    this.#seen.failedCommits += happened.commitRefused + happened.commitUnanswered;
    this.#seen.late += this.#settledLate;
    this.#seen.duplicates += this.#duplicates;
  }
}

/** Plays random histories. The result says what happened in them. */
export const playHistories = async (subject: Subject, runs: number): Promise<Sightings> => {
  const seen = sightings();
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), fc.integer(), (steps, seed) =>
      new History(subject, seed, seen).play(steps),
    ),
    { numRuns: runs, seed: 1 },
  );
  return seen;
};
