import { retry } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { run } from '../../src/core/flow.ts';
import { fromAsyncIterable } from '../../src/sources/from-async-iterable.ts';
import { recordingSink } from '../../src/testing/index.ts';
import { deferred, numbers, world } from '../core/fakes.ts';

/** An iterator that counts and can be watched. */
const counter = (total = Infinity) => {
  const seen = { asked: 0, atOnce: 0, mostAtOnce: 0, returned: 0 };
  let next = 0;
  const iterable: AsyncIterable<number> = {
    [Symbol.asyncIterator]: () => ({
      async next() {
        seen.asked++;
        seen.mostAtOnce = Math.max(seen.mostAtOnce, ++seen.atOnce);
        await Promise.resolve();
        seen.atOnce--;
        return next < total ? { done: false, value: ++next } : { done: true, value: undefined };
      },
      async return() {
        seen.returned++;
        return { done: true, value: undefined };
      },
    }),
  };
  return { seen, iterable };
};

/** Gives what the test pushes, and nothing in between. */
const pushed = () => {
  const gates: ReturnType<typeof deferred<IteratorResult<number>>>[] = [];
  let returned = 0;
  return {
    gates,
    get returned() {
      return returned;
    },
    iterable: {
      [Symbol.asyncIterator]: () => ({
        next() {
          const gate = deferred<IteratorResult<number>>();
          gates.push(gate);
          return gate.promise;
        },
        return() {
          returned++;
          return Promise.resolve({ done: true as const, value: undefined });
        },
      }),
    } as AsyncIterable<number>,
    push: (value: number) => gates.at(-1)!.resolve({ done: false, value }),
  };
};

describe('fromAsyncIterable', () => {
  test('delivers everything in order, in full batches, and completes', async () => {
    const { clock, start } = world();
    const { iterable, seen } = counter(25);
    const sink = recordingSink<number>();
    await clock.settle(start(() => run(fromAsyncIterable(iterable, { batchSize: 10 }), sink)).done);
    expect(sink.acked).toEqual(numbers(1, 25));
    expect(sink.received.map(({ events }) => events.length)).toEqual([10, 10, 5]);
    expect(seen).toEqual({ asked: 26, atOnce: 0, mostAtOnce: 1, returned: 0 });
  });

  test.each([
    [1, 3],
    [10, 2],
  ])('pulls only with credit: batchSize %i, %i deliveries in flight', async (batchSize, deliveries) => {
    const { clock, start } = world();
    const { iterable, seen } = counter();
    const sink = recordingSink<number>(() => 'hold');
    const flow = start(() => run(fromAsyncIterable(iterable, { batchSize, maxInFlight: { deliveries } }), sink));
    await clock.advance(1000);
    expect(seen.asked).toBe(batchSize * deliveries);
    sink.received[0]!.settle('ack');
    await clock.advance(1000);
    expect(seen).toMatchObject({ asked: batchSize * (deliveries + 1), mostAtOnce: 1 });
    flow.abort();
  });

  test('does not hold back an event to fill its batch', async () => {
    const { clock, start } = world();
    const origin = pushed();
    const sink = recordingSink<number>();
    const flow = start(() => run(fromAsyncIterable(origin.iterable, { batchSize: 100 }), sink));
    for (const n of [1, 2, 3]) {
      await clock.flush();
      origin.push(n);
      await clock.flush();
      expect(sink.acked).toEqual(numbers(1, n));
    }
    flow.abort();
  });

  test('what comes when the credit is used up by an earlier part of its batch waits for more', async () => {
    const { clock, start } = world();
    const origin = pushed();
    const sink = recordingSink<number>(['hold', 'hold']);
    const source = fromAsyncIterable(origin.iterable, { batchSize: 3, maxInFlight: { deliveries: 1 } });
    const flow = start(() => run(source, sink));
    await clock.flush();
    origin.push(1);
    await clock.flush();
    origin.push(2);
    await clock.flush();
    expect(sink.received.map(({ events }) => events)).toEqual([[1]]);
    expect(origin.gates).toHaveLength(2);
    sink.received[0]!.settle('ack');
    await clock.flush();
    expect(sink.received.map(({ events }) => events)).toEqual([[1], [2]]);
    flow.abort();
  });

  test('return is called at once on an unsubscribe, also while next is under way', async () => {
    const { clock, scope, inside } = world();
    const origin = pushed();
    const sink = recordingSink<number>();
    const subscription = inside(() => fromAsyncIterable(origin.iterable).subscribe(sink));
    await clock.flush();
    expect(origin.gates).toHaveLength(1);
    subscription.unsubscribe();
    expect(origin.returned).toBe(1);
    await clock.flush();
    expect(scope.sourcesOpen).toBe(0);
    // What comes nevertheless is counted.
    origin.push(1);
    await clock.flush();
    expect(sink.received).toEqual([]);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 1, dropped: 1 });
    expect(clock.pending).toBe(0);
  });

  test('an idle generator does not hold up a stop, and one that can be closed is', async () => {
    const { clock, start } = world();
    let closed = 0;
    async function* idle() {
      yield 1;
      await new Promise<never>(() => undefined);
    }
    async function* busy() {
      try {
        for (let n = 1; ; n++) yield n;
      } finally {
        await new Promise<void>(resolve => clock.after(30, resolve));
        closed++;
      }
    }
    await clock.flush();
    for (const generator of [idle(), busy()]) {
      const sink = recordingSink<number>(() => 'hold');
      const flow = start(() => run(fromAsyncIterable(generator, { batchSize: 1 }), sink));
      await clock.flush();
      const stopped = flow.stop();
      for (const one of sink.unsettled()) one.settle('ack');
      await clock.settle(stopped);
    }
    expect(closed).toBe(1);
  });

  test('a value that comes after a stop was asked for is delivered, if anybody is there', async () => {
    const { clock, start } = world();
    const origin = pushed();
    const sink = recordingSink<number>(['hold']);
    const flow = start(() => run(fromAsyncIterable(origin.iterable, { batchSize: 1 }), sink));
    await clock.flush();
    origin.push(1);
    await clock.flush();
    const stopped = flow.stop();
    origin.push(2);
    await clock.flush();
    sink.received[0]!.settle('ack');
    await clock.settle(stopped);
    expect(sink.received.map(({ events }) => events)).toEqual([[1], [2]]);
    expect(sink.acked).toEqual([2, 1]);
  });

  test('an error comes after everything that was pulled; after a stop it is no news', async () => {
    const { clock, start } = world();
    async function* breaking() {
      yield* [1, 2, 3];
      await Promise.resolve();
      throw new Error('cursor lost');
    }
    const sink = recordingSink<number>(['nack']);
    const options = { batchSize: 2, maxInFlight: { deliveries: 1 } };
    const flow = start(() => run(fromAsyncIterable(breaking(), options), sink));
    await expect(clock.settle(flow.done)).rejects.toThrow('cursor lost');
    expect(sink.acked).toEqual([1, 2, 3]);

    const origin = pushed();
    const other = start(() => run(fromAsyncIterable(origin.iterable), recordingSink<number>()));
    await clock.flush();
    const stopped = other.stop();
    origin.gates[0]!.reject(new Error('aborted'));
    await clock.settle(stopped);
  });

  test('each session iterates again', async () => {
    const { clock, start } = world();
    let sessions = 0;
    const iterable = {
      async *[Symbol.asyncIterator]() {
        const session = ++sessions;
        yield session;
        if (session < 3) throw new Error('lost');
      },
    };
    const sink = recordingSink<number>();
    await clock.settle(start(() => run(fromAsyncIterable(iterable).pipe(retry(2)), sink)).done);
    expect(sink.acked).toEqual([1, 2, 3]);
  });
});
