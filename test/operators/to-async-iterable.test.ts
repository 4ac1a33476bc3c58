import { buffer, map, take } from 'ix/asynciterable/operators';
import { NEVER, Observable, takeUntil, Subject } from 'rxjs';
import { describe, expect, expectTypeOf, test } from 'vitest';
import type { Delivery } from '../../src/core/delivery.ts';
import { toAsyncIterable } from '../../src/operators/to-async-iterable.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { fromAsyncIterable } from '../../src/sources/from-async-iterable.ts';
import { scriptedSource } from '../../src/testing/index.ts';
import { counting, numbers, world as bare } from '../core/fakes.ts';

/** A world in which an Observable is subscribed in the scope, whenever that is. */
const world = () => {
  const { inside, ...rest } = bare();
  const within = <T>(source: Observable<T>) =>
    new Observable<T>(subscriber => inside(() => source.subscribe(subscriber)));
  return { ...rest, inside, within };
};

describe('toAsyncIterable', () => {
  test('taking the next one acks the one before, and the end acks the last', async () => {
    const { clock, scope, within } = world();
    const source = scriptedSource(counting(1, 4));
    const log: string[] = [];
    const loop = async () => {
      for await (const { events } of toAsyncIterable(within(source))) {
        log.push(`at ${events.join()}, ${source.settled.length} settled`);
      }
    };
    await clock.settle(loop());
    expect(log).toEqual(['at 1, 0 settled', 'at 2, 1 settled', 'at 3, 2 settled', 'at 4, 3 settled']);
    expect(source.settled.map(({ what }) => what)).toEqual(['acked', 'acked', 'acked', 'acked']);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 4, delivered: 4, held: 0 });
  });

  test('what the loop settles itself is left alone', async () => {
    const { clock, scope, within } = world();
    const source = scriptedSource<number>([{ emit: [1, 2] }, { emit: [3] }, { emit: [4] }], {
      redelivery: { onReject: 'drop' },
    });
    const seen: string[] = [];
    const loop = async () => {
      for await (const delivery of toAsyncIterable(within(source))) {
        seen.push(`${delivery.events.join()}#${delivery.attempt}`);
        if (delivery.length === 2) delivery.nack(new Error('not yet'), [2]);
        else if (delivery.events[0] === 3) delivery.reject(new Error('never'));
        else if (delivery.events[0] === 4) expect(delivery.ack()).toBe(true);
      }
    };
    await clock.settle(loop());
    expect(seen).toEqual(['1,2#1', '2#2', '3#1', '4#1']);
    expect(scope.ledger.snapshot()).toMatchObject({
      accepted: 4,
      delivered: 3,
      rejected: 1,
      held: 0,
      settledTwice: 0,
    });
    expect(scope.ledger.difference).toBe(0);
  });

  test('what waits to be taken is bounded by what may be in flight', async () => {
    const { clock, scope, within } = world();
    const source = scriptedSource(counting(1, 50), { maxInFlight: { deliveries: 3 } });
    const loop = toAsyncIterable(within(source))[Symbol.asyncIterator]();
    await clock.flush();
    expect(source.accepted).toEqual([]);
    const one = loop.next();
    await clock.flush();
    expect(await one).toMatchObject({ value: { events: [1] } });
    expect(source.accepted).toEqual([1, 2, 3]);
    await loop.next();
    expect(source.accepted).toEqual([1, 2, 3, 4]);
    await loop.return!();
    await clock.runUntilIdle();
    expect(source.settled.map(({ what }) => what)).toEqual(['acked', 'released', 'released', 'released']);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 1, delivered: 1, held: 0 });
  });

  test.each(['break', 'throw'])('leaving by %s nacks the one it was at and lets the source go', async how => {
    const { clock, scope, within } = world();
    const source = scriptedSource([...counting(1, 5), 'idle']);
    const loop = async () => {
      for await (const { events } of toAsyncIterable(within(source))) {
        if (events[0] !== 3) continue;
        if (how === 'throw') throw new Error('cannot');
        break;
      }
    };
    const left = clock.settle(loop());
    if (how === 'throw') await expect(left).rejects.toThrow('cannot');
    else await left;
    await clock.flush();
    expect(source.position()).toBe(2);
    expect(source.sessions.closed).toBe(1);
    expect(clock.pending).toBe(0);
    expect(scope.ledger.difference).toBe(0);
  });

  test('left while it waits: the pending next ends', async () => {
    const loop = toAsyncIterable(NEVER as Observable<Delivery>)[Symbol.asyncIterator]();
    const pending = loop.next();
    await loop.return!();
    expect(await pending).toEqual({ done: true, value: undefined });
    expect(await loop.next()).toEqual({ done: true, value: undefined });
  });

  test('left before it began: nothing is subscribed', async () => {
    let subscribed = 0;
    const source = new Observable<Delivery>(() => {
      subscribed++;
    });
    const loop = toAsyncIterable(source)[Symbol.asyncIterator]();
    await loop.return!();
    expect(await loop.next()).toEqual({ done: true, value: undefined });
    expect(subscribed).toBe(0);
  });

  test('an error comes after everything that was emitted, once', async () => {
    const { clock, within } = world();
    const source = scriptedSource([...counting(1, 3), { fail: new Error('lost') }]);
    const loop = toAsyncIterable(within(source))[Symbol.asyncIterator]();
    const results: unknown[] = [];
    const all = async () => {
      for (let i = 0; i < 5; i++) {
        results.push(
          await loop.next().then(
            ({ done, value }) => (done === true ? 'done' : value.events[0]),
            (cause: unknown) => cause,
          ),
        );
      }
    };
    await clock.settle(all());
    expect(results).toEqual([1, 2, 3, new Error('lost'), 'done']);
    expect(source.position()).toBe(3);
  });

  test('several next at a time are answered in turn, each acking the one before', async () => {
    const { clock, within } = world();
    const source = scriptedSource(counting(1, 3));
    const loop = toAsyncIterable(within(source))[Symbol.asyncIterator]();
    const all = Promise.all([loop.next(), loop.next(), loop.next(), loop.next()]);
    const results = await clock.settle(all);
    expect(results.map(({ done, value }) => (done === true ? 'done' : value.events[0]))).toEqual([1, 2, 3, 'done']);
    expect(source.position()).toBe(3);
  });

  test('what was taken back while it waited is left out', async () => {
    const { clock, within } = world();
    const source = scriptedSource(counting(1, 3), { redelivery: { initial: 10 } });
    const seen: string[] = [];
    const loop = async () => {
      for await (const delivery of toAsyncIterable(within(source))) {
        seen.push(`${delivery.events.join()}#${delivery.attempt}`);
        if (seen.length === 1) delivery.nack(new Error('again'));
      }
    };
    await clock.settle(loop());
    expect(seen).toEqual(['1#1', '1#2', '2#1', '3#1']);
  });

  test('a stop behind the source: what was emitted is looped over, then the loop ends', async () => {
    const { clock, within } = world();
    const stop = new Subject<void>();
    const source = scriptedSource([...counting(1, 3), 'idle']);
    const seen: number[] = [];
    const loop = async () => {
      for await (const { events } of toAsyncIterable(within(source.pipe(takeUntil(stop))))) {
        seen.push(...events);
        stop.next();
      }
    };
    await clock.settle(loop());
    expect(seen).toEqual([1, 2, 3]);
    await clock.flush();
    expect(source.position()).toBe(3);
  });

  test('is an ix iterable: operators, and back into a flow', async () => {
    const { clock, within } = world();
    const source = scriptedSource(counting(1, 6));
    const pairs = toAsyncIterable(within(source.pipe(memoryChannel<number>({ transactionCapacity: 1 })))).pipe(
      map(({ events }) => events[0]!),
      buffer(2),
      take(3),
    );
    expectTypeOf(pairs).toExtend<AsyncIterable<number[]>>();
    const back: number[][] = [];
    const again = toAsyncIterable(within(fromAsyncIterable(pairs)));
    const loop = async () => {
      for await (const { events } of again) back.push(...events);
    };
    await clock.settle(loop());
    expect(back).toEqual([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    expect(source.position()).toBe(6);
    expect(numbers(1, 6)).toEqual(back.flat());
  });
});
