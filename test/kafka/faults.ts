/**
 * What the tests of faults have in common: numbered events, and the laws that hold for them at the end.
 *
 * The events of each partition are numbered from 0. What was written is read by members of a group, so that one test tries
 * both: in the topic is every number once and in order; to members comes every number, in order of first occurrences, and none
 * again that was committed before.
 *
 * @module
 */
import { expect } from 'vitest';
import type { FlowSink } from '../../src/core/flow.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import {
  createSink,
  createSource,
  event,
  headers,
  run,
  type Emitter,
  type Flow,
  type FlumeEvent,
} from '../../src/index.ts';
import { kafkaSink, kafkaSource } from '../../src/kafka.ts';
import { recordingLog } from '../../src/testing/index.ts';
import { poll } from '../../bench/processes.ts';
import { describeReal, thorough } from '../real.ts';
import { fetchKafka, kafkaMissing, type Kafka, type KafkaRecord } from './brokers.ts';

/** As `describeKafka`, but they take ten minutes: in CI, or with FAULTS=1. */
export const describeFaults = await describeReal(
  'faults of real Kafka brokers',
  kafkaMissing() ?? (thorough ? undefined : 'they take ten minutes. `FAULTS=1 npm test` runs them'),
  fetchKafka,
);

/** Of each partition. */
export const total = 100_000;
const perDelivery = 500;

export const until = async (
  condition: () => boolean | Promise<boolean>,
  what: () => unknown,
  limit = 90_000,
): Promise<void> => {
  const end = Date.now() + limit;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not within ${limit} ms: ${String(what())}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
};

/** A source of numbers, which goes as far as it is allowed to; partitions take turns. The header `p` names the partition. */
export class Numbers {
  readonly next: number[];
  allowed = 0;
  readonly source = createSource<FlumeEvent, undefined>(emitter => {
    this.#emitter = emitter;
    return {
      pull: () => {
        this.#asked = true;
        this.#emit();
      },
    };
  });
  #emitter: Emitter<FlumeEvent, undefined> | undefined;
  #asked = false;
  #turn = 0;

  constructor(partitions: number) {
    this.next = Array.from({ length: partitions }, () => 0);
  }

  upTo(allowed: number): void {
    this.allowed = Math.max(this.allowed, allowed);
    this.#emit();
  }

  /** Goes on slowly while something happens: it never comes to the end of them. */
  async during<T>(fault: () => Promise<T>): Promise<T> {
    const timer = setInterval(() => this.upTo(this.allowed + Math.ceil((total - 1000 - this.allowed) / 1000)), 20);
    try {
      return await fault();
    } finally {
      clearInterval(timer);
    }
  }

  #emit(): void {
    if (!this.#asked || this.#emitter === undefined) return;
    const { next } = this;
    for (let tried = 0; tried < next.length; tried++) {
      const partition = this.#turn++ % next.length;
      const from = next[partition] as number;
      const count = Math.min(this.allowed, from + perDelivery) - from;
      if (count <= 0) continue;
      const named = headers({ p: String(partition) });
      next[partition] = from + count;
      this.#asked = false;
      return this.#emitter.emit(Array.from({ length: count }, (_, i) => event(String(from + i), named)));
    }
    if (next.every(number => number === total)) this.#emitter.complete();
  }
}

/** What members of a group were given, all together. */
export class Collected {
  /** First occurrences are in order and without gaps up to here. */
  readonly next: number[];
  readonly duplicates: number[];
  /** How often a partition came to somebody else than before. */
  handovers = 0;
  /** What should never have happened. */
  readonly broken: string[] = [];
  /** What the group is known to have committed. */
  readonly #committed: number[];
  /** The number at offset 0. */
  readonly #base: number[];
  readonly #owners: (object | undefined)[] = [];

  constructor(partitions: number) {
    const zeros = () => Array.from({ length: partitions }, () => 0);
    [this.next, this.duplicates, this.#committed, this.#base] = [zeros(), zeros(), zeros(), zeros()];
  }

  take(partition: number, number: number, by: object): void {
    const next = this.next[partition] as number;
    if (this.#owners[partition] !== by) {
      if (this.#owners[partition] !== undefined) this.handovers++;
      this.#owners[partition] = by;
    }
    if (number === next) this.next[partition] = next + 1;
    else if (number > next) this.#break(`${number} of partition ${partition} came before ${next}`);
    else {
      this.duplicates[partition] = (this.duplicates[partition] as number) + 1;
      if (number < (this.#committed[partition] as number))
        this.#break(`${number} of partition ${partition} came again after ${this.#committed[partition]} was committed`);
    }
  }

  /**
   * What is committed does not come again. Answers the number that is next; that goes back for a moment when a coordinator has
   * died, as the one after it does not answer at once for what was committed last.
   */
  committed(partition: number, offset: number): number {
    const number = (this.#base[partition] as number) + offset;
    this.#committed[partition] = Math.max(this.#committed[partition] as number, number);
    return number;
  }

  /** The topic is empty again. */
  remade(): void {
    this.next.forEach((number, partition) => (this.#base[partition] = this.#committed[partition] = number));
  }

  #break(what: string): void {
    if (this.broken.length < 10) this.broken.push(what);
  }
}

export interface Member {
  readonly flow: Flow;
  readonly log: ReturnType<typeof recordingLog>;
  readonly counters: () => Record<string, number>;
}

export interface PipelineOptions {
  readonly kafka: Kafka;
  readonly topic: string;
  readonly partitions: number;
  readonly configs?: Readonly<Record<string, string>>;
  /** Default: those of `kafka`. */
  readonly bootstrapServers?: readonly string[];
  readonly sink?: Partial<Parameters<typeof kafkaSink>[0]>;
  readonly source?: Partial<Parameters<typeof kafkaSource>[0]>;
  /** How a member writes a batch, before it is acked. */
  readonly write?: () => Promise<void>;
  /** How many batches a member writes at a time. Default 1. */
  readonly concurrency?: number;
}

/** Numbers → Kafka sink → topic → Kafka source, as often as members join → what they were given. */
export class Pipeline {
  readonly numbers: Numbers;
  readonly collected: Collected;
  readonly members: Member[] = [];
  readonly #options: PipelineOptions;
  #writer: (Member & { readonly sink: FlowSink<FlumeEvent> & { readonly trouble: Error | undefined } }) | undefined;
  #ended = false;

  static async start(options: PipelineOptions): Promise<Pipeline> {
    const { kafka, topic, partitions, configs = {} } = options;
    await kafka.createTopic(topic, { partitions, configs });
    return new Pipeline(options);
  }

  private constructor(options: PipelineOptions) {
    this.#options = options;
    this.numbers = new Numbers(options.partitions);
    this.collected = new Collected(options.partitions);
    const { kafka, topic, bootstrapServers = kafka.bootstrap } = options;
    const sink = kafkaSink({
      bootstrapServers,
      topic,
      partitionIdHeader: 'p',
      retry: { max: 1000 },
      ...options.sink,
      producer: { 'request.timeout.ms': '5000', ...options.sink?.producer },
    });
    this.#writer = { ...this.#run('SINK', scope => inScope(scope, () => run(this.numbers.source, sink))), sink };
  }

  get writer() {
    return this.#writer!;
  }

  #run(kind: 'SINK' | 'SOURCE', start: (scope: Scope) => Flow): Member {
    const log = recordingLog();
    const scope = new Scope({ log });
    const flow = start(scope);
    flow.done.catch(() => undefined);
    return { flow, log, counters: () => flow.metrics.find(kind, 'kafka') as Record<string, number> };
  }

  /** Another member of the group. */
  join(): Member {
    const { kafka, topic, source, write, concurrency = 1, bootstrapServers = kafka.bootstrap } = this.#options;
    const member = this.#run('SOURCE', scope =>
      inScope(scope, () =>
        run(
          kafkaSource({
            bootstrapServers,
            topics: [topic],
            groupId: topic,
            commitInterval: 300,
            ...source,
            consumer: {
              'auto.offset.reset': 'earliest',
              'session.timeout.ms': '6000',
              'heartbeat.interval.ms': '500',
              'fetch.max.wait.ms': '100',
              ...source?.consumer,
            },
          }),
          createSink(
            {
              write: async ({ events }) => {
                for (const { headers, body } of events)
                  this.collected.take(Number(headers['partition']), Number(String(body)), member);
                await write?.();
              },
            },
            { concurrency },
          ),
        ),
      ),
    );
    this.members.push(member);
    return member;
  }

  /** What the group has committed, as the brokers have it; every look makes the laws stricter. */
  async committed(): Promise<number[]> {
    const { kafka, topic, partitions } = this.#options;
    const offsets = Array.from({ length: partitions }, () => 0);
    const found = await poll(`no offsets of group ${topic}`, () =>
      kafka.admin(admin => admin.fetchOffsets({ groupId: topic, topics: [topic] })),
    );
    for (const { partition, offset } of found[0]?.partitions ?? []) offsets[partition] = Math.max(0, Number(offset));
    return offsets.map((offset, partition) => this.collected.committed(partition, offset));
  }

  /** Lets everything go so far, and waits until the group has committed it. */
  async reach(number: number): Promise<void> {
    this.numbers.upTo(number);
    await until(
      async () => (await this.committed()).every(offset => offset >= number),
      () => this.state(),
    );
  }

  /** Something happens while events flow. */
  async during<T>(fault: () => Promise<T>): Promise<T> {
    const before = Math.min(...this.numbers.next);
    const result = await this.numbers.during(fault);
    // It met a flow.
    expect(Math.max(...this.numbers.next)).toBeGreaterThan(before);
    expect(this.numbers.allowed).toBeLessThan(total);
    return result;
  }

  state(): string {
    const { collected, numbers, members, writer } = this;
    const logs = [writer, ...members].map(({ log }) => log.entries.slice(-6).map(({ message }) => message));
    return JSON.stringify({ numbers: numbers.next, collected, trouble: writer.sink.trouble?.message, logs }, null, 1);
  }

  /** Lets the rest flow, ends everything, and checks the laws; the topic begins with `from`. Resolves with the number of duplicates. */
  async finish({ from = 0 } = {}): Promise<number> {
    const { kafka, topic, partitions } = this.#options;
    const { numbers, collected, members, writer } = this;
    numbers.upTo(total);
    await until(
      () => collected.next.every(next => next === total) || collected.broken.length > 0,
      () => this.state(),
    );
    expect(collected.broken).toEqual([]);
    await this.end();
    await writer.flow.done;
    expect(writer.flow.ledger.held).toBe(0);
    for (const { flow } of members) expect(flow.ledger.held).toBe(0);
    // The group is where the topic ends: the last commits were made too.
    expect(await this.committed()).toEqual(Array.from({ length: partitions }, () => total));
    this.checkTopic(await kafka.read(topic), from);
    const duplicates = collected.duplicates.reduce((sum, count) => sum + count, 0);
    return duplicates;
  }

  /** Every number once, in order. */
  checkTopic(written: readonly (readonly KafkaRecord[])[], from: number): void {
    for (const [partition, records] of written.entries()) {
      const numbers = records.map(({ value }) => Number(String(value)));
      const wrong = numbers.findIndex((number, index) => number !== from + index);
      const around = wrong < 0 ? [] : numbers.slice(Math.max(0, wrong - 3), wrong + 3);
      const count = total - from;
      expect({ partition, wrong, around, count: numbers.length }).toEqual({ partition, wrong: -1, around: [], count });
    }
  }

  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await Promise.allSettled([this.writer, ...this.members].map(({ flow }) => flow.stop()));
  }
}
