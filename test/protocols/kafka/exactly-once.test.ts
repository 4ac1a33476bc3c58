import fc from 'fast-check';
import { EMPTY, filter, mergeMap, Observable, of, pipe, type OperatorFunction } from 'rxjs';
import { describe, expect, test } from 'vitest';
import type { SourceTuning } from '../../../src/core/component.ts';
import type { Delivery } from '../../../src/core/delivery.ts';
import { MillraceError } from '../../../src/core/errors.ts';
import { run } from '../../../src/core/flow.ts';
import type { SinkOptions } from '../../../src/core/sink.ts';
import { inScope, Scope } from '../../../src/core/scope.ts';
import { memoryChannel } from '../../../src/operators/channels/memory.ts';
import { deadLetter } from '../../../src/operators/dead-letter.ts';
import { intercept } from '../../../src/operators/intercept.ts';
import { mapBatch } from '../../../src/operators/map-batch.ts';
import { rebatch } from '../../../src/operators/rebatch.ts';
import { replicate } from '../../../src/operators/routing/replicate.ts';
import { TransactedPartition } from '../../../src/protocols/kafka/exactly-once.ts';
import { kafkaSink, type KafkaSinkOptions } from '../../../src/sinks/kafka.ts';
import { kafkaSource, type KafkaSourceOptions } from '../../../src/sources/kafka.ts';
import { FakeClock, memoryKafka, recordingLog, recordingSink, seededRandom } from '../../../src/testing/index.ts';

const groupId = 'movers';
const isKept = (number: number): boolean => Math.floor(number / 6) % 4 !== 2;
const keep = intercept(events => events.pipe(filter(({ body }) => isKept(Number(body)))));

const setUp = (seed = 1, partitions = 1) => {
  const clock = new FakeClock();
  const random = seededRandom(seed);
  const log = recordingLog();
  const cluster = memoryKafka({ clock, random, latency: 20, topics: { in: partitions, out: partitions } });
  const written = new Array<number>(partitions).fill(0);
  const write = (partition: number, count: number) => {
    const first = written[partition] as number;
    written[partition] = first + count;
    const records = Array.from({ length: count }, (_, i) => ({ key: null, value: Buffer.from(String(first + i)) }));
    cluster.write({ topic: 'in', partition }, records);
  };
  const connection = { bootstrapServers: ['memory:1'], connect: cluster.connect };
  const source = (options: Partial<KafkaSourceOptions> & SourceTuning = {}) =>
    kafkaSource({
      ...connection,
      groupId,
      topics: ['in'],
      batchSize: 5,
      prefetchRecords: 30,
      setTopicHeader: false,
      exactlyOnce: true,
      ...options,
      consumer: { 'auto.offset.reset': 'earliest', 'session.timeout.ms': '6000', ...options.consumer },
    });
  const sink = (options: Partial<KafkaSinkOptions> & SinkOptions = {}) =>
    kafkaSink({ ...connection, topic: 'out', partitionIdHeader: 'partition', exactlyOnce: true, ...options });
  const within = <R>(act: () => R): R => inScope(new Scope({ clock, random, log }), act);
  const found = (partition = 0) => cluster.log('out', partition).map(({ value }) => Number(value));
  const committed = () =>
    cluster
      .committed(groupId)
      .filter(({ topic }) => topic === 'in')
      .reduce((sum, { offset }) => sum + offset, 0);
  const warnings = () => log.entries.map(({ message }) => message).join('\n');
  return { clock, random, cluster, written, write, connection, source, sink, within, found, committed, warnings };
};

type Step =
  | { readonly do: 'write'; readonly partition: number; readonly count: number }
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'join' | 'rebalance' | 'down' | 'up' }
  | { readonly do: 'stop' | 'kill' | 'expel' | 'silence'; readonly at: number }
  | { readonly do: 'fault'; readonly fault: 'sendRefused' | 'commitRefused' | 'commitUnanswered' | 'fetchRefused' };

const partitions = 2;
const one = <T extends string>(...names: T[]) => fc.constantFrom(...names);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: one('write'),
      partition: fc.nat(partitions - 1),
      count: fc.integer({ min: 1, max: 30 }),
    }),
  },
  { weight: 10, arbitrary: fc.record({ do: one('wait'), ms: fc.constantFrom(1, 10, 100, 300, 7000, 40_000) }) },
  { weight: 6, arbitrary: fc.record({ do: one('join', 'rebalance', 'down', 'up') }) },
  { weight: 6, arbitrary: fc.record({ do: one('stop', 'kill', 'expel', 'silence'), at: fc.nat(3) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: one('fault'),
      fault: one('sendRefused', 'commitRefused', 'commitUnanswered', 'fetchRefused'),
    }),
  },
);

test('random histories: what is made of each record is there once, and in order', async () => {
  const seen = {
    rebalances: 0,
    fenced: 0,
    sendRefused: 0,
    commitRefused: 0,
    commitUnanswered: 0,
    kills: 0,
    zombies: 0,
  };
  const play = async (steps: readonly Step[], seed: number) => {
    const { clock, cluster, written, write, source, sink, within, found, committed, warnings } = setUp(
      seed,
      partitions,
    );
    const flows: { readonly flow: ReturnType<typeof run>; readonly ids: string[] }[] = [];
    const join = () => {
      const ids: string[] = [];
      const connect: typeof cluster.connect = async settings => {
        const client = await cluster.connect(settings);
        return {
          ...client,
          consumer: (options, listener) => {
            const consumer = client.consumer(options, listener);
            ids.push((consumer as unknown as { id: string }).id);
            return consumer;
          },
        };
      };
      const flow = within(() => run(source({ connect, commitInterval: 50 }).pipe(keep), sink()));
      flow.done.catch(() => undefined);
      flows.push({ flow, ids });
    };
    const isMember = (id: string) => cluster.members(groupId).some(member => member.id === id);
    const act = (given: Step): unknown => {
      const at = 'at' in given ? given.at % Math.max(1, flows.length) : 0;
      const of = flows[at];
      switch (given.do) {
        case 'write':
          return write(given.partition, given.count);
        case 'wait':
          return clock.advance(given.ms);
        case 'join':
          return flows.length < 3 && join();
        case 'rebalance':
          return cluster.rebalance(groupId);
        case 'down':
        case 'up':
          return cluster[given.do]();
        case 'fault':
          return cluster.script(given.fault);
        case 'stop':
        case 'kill':
          flows.splice(at, 1);
          if (given.do === 'stop') return void of?.flow.stop({ timeout: 20_000 }).catch(() => undefined);
          seen.kills++;
          for (const id of of?.ids.filter(isMember) ?? []) cluster.killMember(id);
          return of?.flow.abort();
        case 'expel':
        case 'silence':
          for (const id of of?.ids.filter(isMember) ?? []) {
            seen.zombies++;
            if (given.do === 'expel') cluster.expelMember(id);
            else cluster.silenceMember(id, 30_000);
          }
          return undefined;
      }
    };
    join();
    const check = () => {
      for (let partition = 0; partition < partitions; partition++) {
        const all = Array.from({ length: written[partition] as number }, (_, number) => number).filter(isKept);
        const got = found(partition);
        expect(got).toEqual(all.slice(0, got.length));
      }
    };
    for (const given of steps) {
      await act(given);
      await clock.flush();
      check();
    }
    cluster.up();
    join();
    const all = written.reduce((sum, count) => sum + count, 0);
    for (let i = 0; i < 500 && committed() < all; i++) await clock.advance(400);
    check();
    expect(committed(), warnings()).toBe(all);
    for (let partition = 0; partition < partitions; partition++)
      expect(found(partition).at(-1)).toBe(
        Array.from({ length: written[partition] as number }, (_, number) => number)
          .filter(isKept)
          .at(-1),
      );
    for (const { flow } of flows) flow.abort();
    await clock.advance(60_000);
    for (const name of ['rebalances', 'fenced', 'sendRefused', 'commitRefused', 'commitUnanswered'] as const)
      seen[name] += cluster.happened[name];
  };
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), fc.integer(), play), {
    numRuns: 300,
    seed: 1,
  });
  for (const [what, count] of Object.entries(seen)) expect(count, what).toBeGreaterThan(10);
});

describe('a partition', () => {
  const producers = (...positions: (number | undefined)[]) => {
    const commits: number[] = [];
    const fails: boolean[] = [];
    let moved = 0;
    const partition = new TransactedPartition(
      'in-0',
      () =>
        Promise.resolve({
          position: positions.shift(),
          commit: (_: unknown, next: number) => {
            commits.push(next);
            return fails.shift() === true ? Promise.reject(new Error('lost')) : Promise.resolve();
          },
        }),
      () => moved++,
    );
    return { partition, commits, fails, moved: () => moved };
  };

  test('a commit whose answer got lost is not made again', async () => {
    const { partition, commits, fails } = producers(3, 8);
    await partition.begin();
    fails.push(true);
    await expect(partition.commit(() => 8)).rejects.toThrow('lost');
    await partition.commit(() => 8);
    await partition.commit(() => 9);
    expect(commits).toEqual([8, 9]);
  });

  test('one that failed is', async () => {
    const { partition, commits, fails } = producers(undefined, undefined);
    await partition.begin();
    fails.push(true);
    await expect(partition.commit(() => 8)).rejects.toThrow('lost');
    await partition.commit(() => 8);
    expect(commits).toEqual([8, 8]);
  });

  test('one that somebody else was faster with is given up, for good', async () => {
    const { partition, commits, fails, moved } = producers(3, 5);
    await partition.begin();
    fails.push(true);
    await expect(partition.commit(() => 8)).rejects.toThrow('lost');
    await expect(partition.commit(() => 8)).rejects.toThrow('somebody else');
    await expect(partition.commit(() => 8)).rejects.toThrow('somebody else');
    expect(commits).toEqual([8]);
    expect(moved()).toBe(1);
  });
});

const ackAll: OperatorFunction<Delivery, Delivery> = mergeMap(delivery => {
  delivery.ack();
  return EMPTY;
});

describe('between source and sink', () => {
  test('rebatch is refused, and nothing is written', async () => {
    const { clock, write, source, sink, within, found, warnings } = setUp();
    write(0, 20);
    const flow = within(() => run(source().pipe(rebatch({ maxEvents: 7, maxDelay: 10 })), sink()));
    await clock.advance(1000);
    expect(found()).toEqual([]);
    expect(warnings()).toMatch('exactlyOnce: this is no whole delivery');
    flow.abort();
    await clock.advance(100);
  });

  test('a channel is refused on both sides of it, and no offset is moved', async () => {
    const { clock, write, source, sink, within, found, committed, warnings } = setUp();
    write(0, 20);
    const flow = within(() => run(source().pipe(memoryChannel()), sink()));
    await clock.advance(1000);
    expect([found(), committed()]).toEqual([[], 0]);
    expect(warnings()).toMatch('exactlyOnce: this is no whole delivery');
    expect(warnings()).toMatch('exactlyOnce: what was read of in-0 was acked');
    flow.abort();
    await clock.advance(100);
  });

  test.each([
    ['a channel behind a filter', pipe(keep, memoryChannel()), false],
    ['a stage that acks', ackAll, true],
    ['a sink without exactlyOnce', keep, false],
    ['a sink without exactlyOnce behind rebatch', rebatch({ maxEvents: 7, maxDelay: 10 }), false],
  ])('%s: it ends with an error, and no offset is moved', async (_, stage, exactlyOnce) => {
    const { clock, write, source, sink, within, committed } = setUp();
    write(0, 20);
    const flow = within(() => run(source().pipe(stage), sink({ exactlyOnce })));
    const failed = expect(flow.done).rejects.toMatchObject({
      code: 'MR_CONFIG',
      message: expect.stringMatching(/in-0 .*acked .*kafkaSink with exactlyOnce/),
    });
    await clock.advance(100_000);
    await failed;
    expect(committed()).toBe(0);
  });

  test('a sink that names other brokers is refused', async () => {
    const { clock, write, source, sink, within, found, warnings } = setUp();
    write(0, 20);
    const flow = within(() => run(source(), sink({ bootstrapServers: ['elsewhere:1', 'elsewhere:2'] })));
    await clock.advance(1000);
    expect(found()).toEqual([]);
    expect(warnings()).toMatch(/exactlyOnce: .*memory:1.*elsewhere:1,elsewhere:2/);
    flow.abort();
    await clock.advance(100);
  });

  test('what is dropped, because it was rejected, moves the offset', async () => {
    const { clock, write, source, sink, within, found, committed } = setUp();
    write(0, 20);
    const refuse = mapBatch(({ events }) => {
      if (events.some(({ body }) => String(body) === '7')) throw new MillraceError('MR_BAD_INPUT', 'seven');
      return events;
    });
    const flow = within(() => run(source({ redelivery: { onReject: 'drop' } }).pipe(refuse), sink()));
    await clock.advance(3000);
    expect(found()).toEqual([0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    expect(committed()).toBe(20);
    flow.abort();
    await clock.advance(100);
  });

  test('replicate is refused', async () => {
    const { clock, write, source, sink, within, found, warnings } = setUp();
    write(0, 20);
    const flow = within(() => run(source(), replicate([sink(), recordingSink()])));
    await clock.advance(1000);
    expect(found()).toEqual([]);
    expect(warnings()).toMatch('exactlyOnce: this is no whole delivery');
    flow.abort();
    await clock.advance(100);
  });

  test('a source without exactlyOnce is refused', async () => {
    const { clock, write, source, sink, within, found, warnings } = setUp();
    write(0, 20);
    const flow = within(() => run(source({ exactlyOnce: false }), sink()));
    await clock.advance(1000);
    expect(found()).toEqual([]);
    expect(warnings()).toMatch('exactlyOnce: this is no whole delivery');
    flow.abort();
    await clock.advance(100);
  });

  test('what overtakes has to wait', async () => {
    const { clock, write, source, sink, within, found, warnings } = setUp();
    write(0, 20);
    const late: OperatorFunction<Delivery, Delivery> = mergeMap(delivery => {
      if (String(delivery.events[0]?.body) !== '0') return of(delivery);
      return new Observable<Delivery>(subscriber => {
        clock.after(500, () => {
          subscriber.next(delivery);
          subscriber.complete();
        });
      });
    });
    // Two at a time, or the first would come to nobody.
    const flow = within(() => run(source({ batchSize: 10 }).pipe(late), sink({ concurrency: 2 })));
    await clock.advance(3000);
    expect(found()).toEqual(Array.from({ length: 20 }, (_, number) => number));
    expect(warnings()).toMatch('before record 10 is not settled yet');
    flow.abort();
    await clock.advance(100);
  });

  test('filters and a dead letter are possible, and what is filtered out moves the offset', async () => {
    const { clock, write, source, sink, within, found, committed } = setUp();
    write(0, 24);
    const flow = within(() => run(source().pipe(deadLetter(recordingSink()), keep), sink()));
    await clock.advance(3000);
    expect(found()).toEqual(Array.from({ length: 24 }, (_, number) => number).filter(isKept));
    expect(committed()).toBe(24);
    const stopped = flow.stop();
    await clock.advance(5000);
    await stopped;
  });
});

test('what can never be written holds up its partition, and nothing is left out', async () => {
  const { clock, cluster, source, sink, within, found, committed, warnings } = setUp();
  cluster.write({ topic: 'in', partition: 0 }, [{ key: null, value: Buffer.alloc(2000) }]);
  const flow = within(() => run(source(), sink({ producer: { 'max.request.size': '1000' } })));
  await clock.advance(3000);
  expect(found()).toEqual([]);
  expect(committed()).toBe(0);
  expect(warnings()).toMatch('its partition waits until it can be written');
  flow.abort();
  await clock.advance(100);
});

test('a sink that does not wait for all replicas is refused', () => {
  expect(() => setUp().sink({ acks: '1' })).toThrow('transactions need acks `all`');
});
