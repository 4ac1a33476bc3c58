import fc from 'fast-check';
import { take } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { createChannel, type Channel, type OutputOptions, type StoreContext } from '../../src/core/channel.ts';
import type { Delivery } from '../../src/core/delivery.ts';
import { MillraceError } from '../../src/core/errors.ts';
import { Batch } from '../../src/core/event.ts';
import { PartlyWritten } from '../../src/core/sink.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { recordingSink, scriptedSource, type SinkStep } from '../../src/testing/index.ts';
import { counting, deferred, numbers, plainStore, world as bare } from './fakes.ts';

/** A world with sources and sinks for a channel. */
const world = () => {
  const given = bare();
  const feed = <T>(
    channel: Channel<T>,
    script: Parameters<typeof scriptedSource<T>>[0],
    options: Parameters<typeof scriptedSource<T>>[1] = {},
  ) => {
    const source = scriptedSource<T>(script, options);
    return { source, subscription: given.inside(() => source.subscribe(channel.input())) };
  };
  const drain = <T>(
    channel: Channel<T>,
    script: readonly SinkStep[] | ((delivery: Delivery<T>, index: number) => SinkStep) = [],
    options: OutputOptions = {},
  ) => {
    const sink = recordingSink<T>(script, { clock: given.clock });
    return { sink, subscription: given.inside(() => channel.output(options).subscribe(sink)) };
  };
  const memory = <T>(...options: Parameters<typeof memoryChannel.create<T>>) =>
    given.inside(() => memoryChannel.create<T>(...options));
  return { ...given, feed, drain, memory };
};

const hold = (): SinkStep => 'hold';

describe('putting', () => {
  test('waits in order of arrival while there is no room, and goes on when there is', async () => {
    const { clock, feed, drain, memory } = world();
    const channel = memory<number>({ capacity: 4, transactionCapacity: 4 });
    const a = feed(channel, [{ emit: [1, 2, 3] }, { emit: [4, 5] }, { emit: [6] }, 'idle'], { pushing: true });
    await clock.flush();
    // 4 and 5 do not fit; 6 would, but does not overtake them.
    expect(channel.depth.events).toBe(3);
    expect(a.source.settled).toHaveLength(1);
    const { sink } = drain(channel);
    await clock.flush();
    expect(sink.acked).toEqual([1, 2, 3, 4, 5, 6]);
    expect(a.source.settled).toHaveLength(3);
  });

  test('a put that fails is nacked, and the next one is not lost', async () => {
    const { clock, feed, drain, inside } = world();
    let failures = 1;
    const channel = inside(() =>
      createChannel(
        plainStore<number>(10, {
          put: async () => {
            await Promise.resolve();
            if (failures-- > 0) throw new Error('disk full');
          },
        }),
      ),
    );
    const { sink } = drain(channel);
    const { source } = feed(channel, counting(1, 4), { redelivery: { order: 'selective' } });
    await clock.runUntilIdle();
    expect([...sink.acked].sort()).toEqual([1, 2, 3, 4]);
    expect(source.settled.map(({ what }) => what)).toEqual(['acked', 'acked', 'acked', 'acked']);
    expect(sink.ended).toBe('complete');
  });

  test.each(['resolves', 'rejects'])(
    'keepAlive runs out while another part is being put, which then %s: nobody else loses its place',
    async how => {
      const { clock, feed, drain, inside, scope } = world();
      const puts: ReturnType<typeof deferred<void>>[] = [];
      const store = plainStore<number>(4, {
        put() {
          const putting = deferred();
          puts.push(putting);
          return putting.promise;
        },
      });
      const channel = inside(() => createChannel(store, { keepAlive: 1, transactionCapacity: 2 }));
      const first = feed(channel, [{ emit: [1, 2] }, { emit: [3, 4] }, { emit: [5, 6] }, 'idle'], {
        pushing: true,
        redelivery: { order: 'selective', initial: 60_000, max: 60_000 },
      });
      await clock.flush();
      puts[0]!.resolve();
      await clock.flush();
      puts[1]!.resolve();
      await clock.advance(900);
      // Full: 5 and 6 wait. Room comes just in time, and the put takes longer than keepAlive.
      const { sink } = drain(channel);
      await clock.flush();
      expect(puts).toHaveLength(3);
      const second = feed(channel, [{ emit: [7] }, 'idle']);
      await clock.advance(200);
      if (how === 'resolves') puts[2]!.resolve();
      else puts[2]!.reject(new Error('disk full'));
      await clock.flush();
      expect(puts).toHaveLength(4);
      puts[3]!.resolve();
      await clock.flush();
      expect(second.source.settled).toMatchObject([{ what: 'acked' }]);
      expect(sink.acked).toEqual(how === 'resolves' ? [1, 2, 3, 4, 5, 6, 7] : [1, 2, 3, 4, 7]);
      expect(first.source.settled).toHaveLength(how === 'resolves' ? 3 : 2);
      expect(scope.ledger.difference).toBe(0);
    },
  );

  test('keepAlive is how long each of them waits, not how long the first in line has', async () => {
    const { clock, feed, memory } = world();
    const channel = memory<number>({ capacity: 1, keepAlive: 3 });
    feed(channel, [{ emit: [1] }, 'idle']);
    await clock.flush();
    const options = { onFailure: 'report' as const };
    const early = feed(channel, [{ emit: [2] }, 'idle'], options);
    await clock.advance(2000);
    const late = feed(channel, [{ emit: [3] }, 'idle'], options);
    await clock.advance(999);
    expect(early.source.settled).toEqual([]);
    await clock.advance(1);
    expect(early.source.settled).toMatchObject([{ what: 'nacked', cause: { code: 'MR_CHANNEL_FULL' } }]);
    expect(late.source.settled).toEqual([]);
    await clock.advance(1999);
    expect(late.source.settled).toEqual([]);
    await clock.advance(1);
    expect(late.source.settled).toMatchObject([{ what: 'nacked', cause: { code: 'MR_CHANNEL_FULL' } }]);
  });

  test('keepAlive counts from the last part that went in', async () => {
    const { clock, feed, drain, memory } = world();
    const channel = memory<number>({ capacity: 2, transactionCapacity: 2, keepAlive: 1 });
    const { sink } = drain(channel, () => ({ outcome: 'ack', after: 800 }), { maxInFlight: { deliveries: 1 } });
    const { source } = feed(channel, [{ emit: numbers(1, 8) }]);
    await clock.runUntilIdle();
    expect(sink.acked).toEqual(numbers(1, 8));
    expect(source.settled).toMatchObject([{ what: 'acked' }]);
    expect(channel.counters.EventPutAttemptCount).toBe(8);
  });

  test('what its emitter took back meanwhile leaves the line without being put', async () => {
    const { clock, feed, drain, memory, scope } = world();
    const channel = memory<number>({ capacity: 1 });
    feed(channel, [{ emit: [1] }, 'idle']);
    await clock.flush();
    const gone = feed(channel, [{ emit: [2] }, 'idle'], { drainTimeout: 100 });
    await clock.flush();
    feed(channel, [{ emit: [3] }, 'idle']);
    await clock.flush();
    gone.subscription.unsubscribe();
    await clock.advance(100);
    const { sink } = drain(channel);
    await clock.flush();
    expect(sink.acked).toEqual([1, 3]);
    expect(scope.ledger.difference).toBe(0);
  });

  test('an event that can never fit is rejected alone, the others of its delivery go in', async () => {
    const { clock, feed, drain, inside, scope } = world();
    const store = plainStore<{ body: Buffer }>(10);
    Object.assign(store.capacity, { bytes: 100 });
    const channel = inside(() => createChannel(store));
    const small = { body: Buffer.alloc(10) };
    const large = { body: Buffer.alloc(101) };
    const { sink } = drain(channel);
    const { source } = feed(channel, [{ emit: [small, large, small, small] }], { onFailure: 'report' });
    await clock.runUntilIdle();
    expect(sink.acked).toEqual([small, small, small]);
    expect(source.settled).toMatchObject([{ what: 'rejected', cause: { code: 'MR_EVENT_TOO_LARGE' } }]);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 4, delivered: 3, rejected: 1 });
    expect(scope.ledger.difference).toBe(0);
  });
});

test('events that a store can never put are rejected alone; the others of their delivery are in', async () => {
  const { clock, scope, feed, drain, inside } = world();
  const wrong = new MillraceError('MR_EVENT_TOO_LARGE', 'odd');
  const store = plainStore<number>(10);
  const plain = store.put.bind(store);
  const channel = inside(() =>
    createChannel<number>(
      Object.assign(store, {
        put: async (batch: Batch<number>) => {
          await Promise.resolve();
          const [odd, even] = [1, 0].map(rest => batch.events.filter(n => n % 2 === rest));
          if (even?.[0] !== undefined) await plain(Batch.of(even));
          if (odd?.[0] !== undefined)
            throw new PartlyWritten(new Map(odd.map(n => [batch.events.indexOf(n), wrong] as const)));
        },
      }),
      { transactionCapacity: 3 },
    ),
  );
  const { sink } = drain(channel);
  const { source } = feed(channel, [{ emit: [2, 3, 4, 5, 6, 7, 8] }, { emit: [10] }], {
    onFailure: 'report',
    redelivery: { order: 'selective' },
  });
  await clock.runUntilIdle();
  expect(sink.acked).toEqual([2, 4, 6, 8, 10]);
  expect(source.settled.map(({ what }) => what)).toEqual(['rejected', 'acked']);
  expect(scope.ledger.snapshot()).toMatchObject({ delivered: 5, rejected: 3, held: 0 });
  expect(scope.ledger.difference).toBe(0);
});

describe('taking', () => {
  test('an output never has more unsettled than it may, even of a first delivery that could be cut (S3)', async () => {
    const { clock, feed, drain, memory } = world();
    const channel = memory<number>({ capacity: 100, transactionCapacity: 100 });
    feed(channel, [{ emit: numbers(1, 50) }]);
    const { sink } = drain(channel, hold, { maxInFlight: { events: 10 } });
    await clock.flush();
    expect(sink.received.map(({ events }) => events.length)).toEqual([10]);
  });

  test.each([0, 1, 2])(
    'L1: a consumer that leaves in its turn does not take the turn of the next (%i)',
    async turns => {
      const { clock, feed, drain, inside, memory } = world();
      const channel = memory<number>({ capacity: 10 });
      const options = { batchSize: 1, maxInFlight: { deliveries: 1 } };
      const busy = drain(channel, hold, options);
      feed(channel, [{ emit: [0] }, 'idle']);
      await clock.flush();
      expect(busy.sink.received).toHaveLength(1);
      const leaving = recordingSink<number>();
      inside(() => channel.output(options).pipe(take(1)).subscribe(leaving));
      const staying = drain(channel, hold, options);
      for (let i = 0; i < turns; i++) drain(channel, hold, options).subscription.unsubscribe();
      await clock.flush();
      feed(channel, [{ emit: [1, 2] }, 'idle']);
      await clock.flush();
      expect([leaving.received.length, staying.sink.received.length]).toEqual([1, 1]);
    },
  );

  test('what one consumer nacks, another gets at once; what one leaves, too', async () => {
    const { clock, feed, drain, memory, scope } = world();
    const channel = memory<number>({ capacity: 10 });
    const options = { maxInFlight: { deliveries: 1 } };
    const a = drain(channel, hold, options);
    const b = drain(channel, hold, options);
    feed(channel, counting(1, 2));
    await clock.flush();
    const [one, two] = [a.sink.received[0]!, b.sink.received[0]!];
    one.settle('ack');
    two.settle('nack');
    await clock.flush();
    expect(a.sink.received[1]!.events).toEqual(two.events);
    a.subscription.unsubscribe();
    await clock.advance(1000);
    expect(b.sink.received[1]!.events).toEqual(two.events);
    expect(a.sink.received[1]!.settle('ack')).toBe(false);
    b.sink.received[1]!.settle('ack');
    await clock.flush();
    expect(b.sink.ended).toBe('complete');
    expect(scope.ledger.difference).toBe(0);
  });
});

describe('ending', () => {
  test('completes its outputs when all inputs have and everything is acked (L3)', async () => {
    const { clock, feed, drain, memory } = world();
    const channel = memory<number>({ capacity: 10 });
    const a = drain(channel, hold);
    const b = drain(channel, hold);
    feed(channel, counting(1, 1));
    await clock.flush();
    feed(channel, counting(2, 2));
    await clock.flush();
    expect([a.sink.ended, b.sink.ended]).toEqual([undefined, undefined]);
    for (const { sink } of [a, b]) for (const one of sink.unsettled()) one.settle('ack');
    await clock.flush();
    expect([a.sink.ended, b.sink.ended]).toEqual(['complete', 'complete']);
    await channel.closed;
  });

  test('closing fences every consumer, emits nothing more, and gives back who waits', async () => {
    const { clock, feed, drain, memory, scope } = world();
    const channel = memory<number>({ capacity: 6, transactionCapacity: 6 });
    const consumers = [2, 9].map(deliveries => drain(channel, hold, { batchSize: 1, maxInFlight: { deliveries } }));
    const { source } = feed(channel, counting(1, 7), { onFailure: 'report' });
    await clock.flush();
    const counts = () => consumers.map(({ sink }) => sink.received.length);
    expect(counts()).toEqual([2, 4]);
    await channel.close();
    expect(consumers.flatMap(({ sink }) => sink.unsettled())).toEqual([]);
    expect(counts()).toEqual([2, 4]);
    expect(source.settled.at(-1)).toMatchObject({ what: 'nacked', cause: { code: 'MR_CHANNEL_CLOSED' } });
    await clock.flush();
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 6, dropped: 6, held: 0 });
    expect(clock.pending).toBe(0);
  });

  test('closing waits for a put that is under way, and the books know where its events are', async () => {
    const { clock, feed, inside, scope } = world();
    const putting = deferred();
    const order: string[] = [];
    const store = plainStore<number>(10, {
      put: () => putting.promise.then(() => void order.push('put')),
      close: () => void order.push('close'),
    });
    const channel = inside(() => createChannel(store));
    const { source } = feed(channel, [{ emit: [1, 2] }, 'idle'], { onFailure: 'report' });
    await clock.flush();
    void channel.close();
    await clock.flush();
    expect(source.settled).toEqual([]);
    putting.resolve();
    await channel.closed;
    expect(order).toEqual(['put', 'close']);
    expect(source.settled).toMatchObject([{ what: 'acked' }]);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 2, copied: 0, dropped: 2 });
    expect(scope.ledger.difference).toBe(0);
  });

  test.each(['sooner', 'later'])(
    'a consumer of a channel that cannot be opened gets the error, subscribed %s',
    async when => {
      const { clock, drain, inside } = world();
      const opening = deferred();
      const channel = inside(() =>
        createChannel(
          plainStore<number>(10, {
            open() {
              if (when === 'later') throw new Error('corrupt');
              return opening.promise;
            },
          }),
        ),
      );
      const { sink } = drain(channel);
      opening.reject(new Error('corrupt'));
      await clock.flush();
      expect(sink.ended).toEqual({ error: new Error('corrupt') });
    },
  );

  test('a consumer that comes after the end completes', async () => {
    const { clock, drain, memory } = world();
    const channel = memory<number>();
    channel.end();
    await clock.flush();
    const { sink } = drain(channel);
    await clock.flush();
    expect(sink.ended).toBe('complete');
  });

  test('the error of an input reaches the outputs after everything that is held', async () => {
    const { clock, feed, drain, memory } = world();
    const channel = memory<number>({ capacity: 10 });
    feed(channel, [...counting(1, 3), { fail: new Error('unplugged') }]);
    await clock.flush();
    const { sink } = drain(channel, () => ({ outcome: 'ack', after: 50 }));
    await clock.flush();
    expect(sink.ended).toBeUndefined();
    await clock.runUntilIdle();
    expect(sink.acked).toEqual([1, 2, 3]);
    expect(sink.ended).toEqual({ error: new Error('unplugged') });
  });

  test('unsubscribed, completed and settled from within next', async () => {
    const { clock, feed, inside, memory } = world();
    const channel = memory<number>({ capacity: 10 });
    feed(channel, counting(1, 3));
    const seen: number[] = [];
    const consumer = inside(() =>
      channel.output({ batchSize: 1 }).subscribe(delivery => {
        seen.push(...delivery.events);
        if (delivery.events[0] === 2) {
          consumer.unsubscribe();
          expect(delivery.ack()).toBe(false);
        } else delivery.ack();
      }),
    );
    await clock.flush();
    expect(seen).toEqual([1, 2]);
    expect(channel.depth.events).toBe(2);
    const sink = recordingSink<number>([], { clock });
    inside(() => channel.output().subscribe(sink));
    await clock.flush();
    expect(sink.acked).toEqual([2, 3]);
    expect(sink.ended).toBe('complete');
  });
});

test('a batch of 100 000 is put in parts', async () => {
  const { clock, feed, drain, memory } = world();
  const channel = memory<number>({ capacity: 100_000, transactionCapacity: 10_000 });
  feed(channel, [{ emit: Batch.of(numbers(1, 100_000)) }]);
  const { sink } = drain(channel);
  await clock.flush();
  expect(sink.acked).toHaveLength(100_000);
  expect(Math.max(...sink.received.map(({ events }) => events.length))).toBe(10_000);
});

/** What chance decides about one run of a shared channel over a slow, unreliable store. */
const program = fc.record({
  capacity: fc.integer({ min: 1, max: 12 }),
  transactionCapacity: fc.integer({ min: 1, max: 6 }),
  keepAlive: fc.option(fc.integer({ min: 0, max: 3 }), { nil: undefined }),
  /** Sizes of the deliveries of each source. */
  sources: fc.array(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 }), {
    minLength: 1,
    maxLength: 3,
  }),
  order: fc.constantFrom('strict' as const, 'selective' as const),
  /** How long puts take, in ms; 0 is at once, -1 fails at once, -2 and below after a while. */
  puts: fc.array(fc.integer({ min: -3, max: 4 }), { maxLength: 12 }),
  /** What consumers do, and after how many deliveries they leave. */
  consumers: fc.array(
    fc.record({
      steps: fc.array(
        fc.oneof(
          fc.constantFrom<SinkStep>('ack', 'nack'),
          fc.record({
            outcome: fc.constantFrom('ack' as const, 'nack' as const),
            after: fc.integer({ min: 1, max: 30 }),
          }),
        ),
        { maxLength: 8 },
      ),
      leavesAfter: fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined }),
      window: fc.integer({ min: 1, max: 4 }),
    }),
    { minLength: 0, maxLength: 3 },
  ),
});

test('a channel over any store, with any consumers: nothing is lost, invented or forgotten, and it ends', async () => {
  await fc.assert(
    fc.asyncProperty(program, async ({ capacity, transactionCapacity, keepAlive, sources, order, puts, consumers }) => {
      const { clock, scope, inside } = world();
      let put = 0;
      let most = 0;
      // Batches go in one behind the other; what waits behind one that fails is not in either.
      let line: Promise<void> | undefined;
      const one = (how: number) => {
        if (how === 0) return undefined;
        if (how === -1) throw new Error('no');
        return new Promise<void>((resolve, reject) => {
          clock.after(Math.abs(how), how > 0 ? resolve : () => reject(new Error('no')));
        });
      };
      const store = plainStore<number>(capacity, {
        put(batch: Batch<number>) {
          const how = puts[put++] ?? 0;
          most = Math.max(most, store.events + batch.length);
          const mine = line === undefined ? one(how) : line.then(() => one(how));
          if (mine === undefined) return undefined;
          line = mine;
          const over = () => {
            if (line === mine) line = undefined;
          };
          mine.then(over, over);
          return mine;
        },
      });
      const channel = inside(() => createChannel(store, { keepAlive, transactionCapacity }));

      let next = 1;
      const sent = sources.map(sizes => {
        const script = sizes.map(size => ({ emit: numbers(next, (next += size) - 1) }));
        const source = scriptedSource<number>(script, { redelivery: { order, initial: 10, max: 40 } });
        inside(() => source.subscribe(channel.input()));
        return source;
      });

      const sinks = consumers.map(({ steps, leavesAfter, window }) => {
        const sink = recordingSink<number>(
          (_, index) => {
            if (index + 1 === leavesAfter) subscription.unsubscribe();
            return steps[index] ?? 'ack';
          },
          { clock },
        );
        const subscription = inside(() =>
          channel
            .output({ maxInFlight: { deliveries: window }, redelivery: { order, initial: 10, max: 40 } })
            .subscribe(sink),
        );
        return sink;
      });
      // One that stays, so that everything can come out.
      const last = recordingSink<number>([], { clock });
      inside(() => channel.output().subscribe(last));

      await clock.settle(channel.closed);
      await clock.runUntilIdle();
      expect(last.ended).toBe('complete');
      const acked = [...sinks, last].flatMap(sink => sink.acked);
      expect([...new Set(acked)].sort((a, b) => a - b)).toEqual(numbers(1, next - 1));
      const first = [...new Set(acked)];
      for (const { accepted } of sent) {
        const own = first.filter(n => accepted.includes(n));
        if (order === 'strict' && consumers.length === 0) expect(own).toEqual(accepted);
      }
      for (const source of sent) expect(source.settled.every(({ what }) => what === 'acked')).toBe(true);
      expect(scope.ledger.held).toBe(0);
      expect(scope.ledger.difference).toBe(0);
      expect(scope.ledger.dropped).toBe(0);
      expect(most).toBeLessThanOrEqual(capacity);
      expect(clock.pending).toBe(0);
    }),
    { numRuns: 400 },
  );
});

test('what a store withdraws while it is out is not live, and the next in line takes its room', async () => {
  const { clock, scope, inside } = world();
  let context!: StoreContext;
  const store = plainStore<string>(10, { open: given => void (context = given) });
  const channel = inside(() => createChannel<string>(store));
  const seen: Delivery<string>[] = [];
  inside(() => channel.output({ maxInFlight: { deliveries: 2 } }).subscribe(delivery => void seen.push(delivery)));
  await clock.flush();
  for (const body of ['a', 'b', 'c']) void store.put(Batch.of([body]));
  context.wake();
  expect(seen.map(({ events }) => events[0])).toEqual(['a', 'b']);
  context.withdraw(({ batch }) => batch.events[0] === 'a');
  expect(seen.map(({ events, live }) => [events[0], live])).toEqual([
    ['a', false],
    ['b', true],
    ['c', true],
  ]);
  expect(seen.map(delivery => delivery.ack())).toEqual([false, true, true]);
  expect(scope.ledger.settledLate).toBe(1);
});
