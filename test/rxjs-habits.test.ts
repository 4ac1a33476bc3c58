/** Every statement of docs/rxjs.md. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  audit,
  bufferCount,
  catchError,
  combineLatest,
  concat,
  concatAll,
  concatMap,
  debounce,
  defer,
  delay,
  distinct,
  distinctUntilChanged,
  exhaustMap,
  filter,
  finalize,
  from,
  last,
  map,
  merge,
  mergeMap,
  NEVER,
  observeOn,
  of,
  pairwise,
  queueScheduler,
  reduce,
  repeat,
  retry,
  sample,
  scan,
  share,
  skip,
  Subject,
  switchMap,
  take,
  takeUntil,
  takeWhile,
  tap,
  throttle,
  throwError,
  timeout,
  TimeoutError,
  toArray,
  VirtualTimeScheduler,
  withLatestFrom,
  zip,
  type Observable,
  type OperatorFunction,
} from 'rxjs';
import { describe, expect, test } from 'vitest';
import type { Delivery } from '../src/core/delivery.ts';
import { run } from '../src/core/flow.ts';
import { memoryChannel } from '../src/operators/channels/memory.ts';
import { intercept } from '../src/operators/intercept.ts';
import { recordingSink, scriptedSource, type SinkStep } from '../src/testing/index.ts';
import { counting, numbers, world } from './core/fakes.ts';

const lost = { fail: new Error('lost') };
const slowly = (): SinkStep => ({ outcome: 'ack', after: 10 });

describe('joining sources', () => {
  test('merge: each source has its own window, and the flow completes when all have', async () => {
    const { clock, start } = world();
    const a = scriptedSource(counting(1, 9), { maxInFlight: { deliveries: 2 } });
    const b = scriptedSource(counting(11, 19), { maxInFlight: { deliveries: 3 } });
    const sink = recordingSink<number>(slowly);
    const flow = start(() => run(merge(a, b), sink));
    await clock.flush();
    expect(sink.unsettled()).toHaveLength(5);
    await clock.settle(flow.done);
    expect(sink.acked.filter(n => n < 10)).toEqual(numbers(1, 9));
    expect(sink.acked.filter(n => n > 10)).toEqual(numbers(11, 19));
  });

  test('merge: one that breaks breaks the flow; put retry on each to keep the others running', async () => {
    const { clock, start } = world();
    const make = () =>
      [
        scriptedSource([{ emit: [1] }, { wait: 5 }, lost, { emit: [2] }]),
        scriptedSource([...counting(11, 14)]),
      ] as const;
    const [a, b] = make();
    const broken = start(() => run(merge(a, b), recordingSink<number>()));
    await expect(clock.settle(broken.done)).rejects.toThrow('lost');
    expect(b.sessions.closed).toBe(1);
    const [c, d] = make();
    const sink = recordingSink<number>();
    await clock.settle(start(() => run(merge(c.pipe(retry()), d), sink)).done);
    expect(d.sessions).toEqual({ opened: 1, stopped: 1, closed: 1 });
    expect([...sink.acked].sort((x, y) => x - y)).toEqual([1, 2, 11, 12, 13, 14]);
  });

  test('concat: the second source opens when everything of the first is settled', async () => {
    const { clock, start } = world();
    const a = scriptedSource(counting(1, 3));
    const b = scriptedSource(counting(4, 6));
    const sink = recordingSink<number>(['hold']);
    const flow = start(() => run(concat(a, b), sink));
    await clock.flush();
    expect(b.sessions.opened).toBe(0);
    sink.received[0]!.settle('ack');
    await clock.settle(flow.done);
    expect(sink.received.map(({ events }) => events[0])).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('catchError: another source goes on when the first has broken', async () => {
    const { clock, start } = world();
    const sink = recordingSink<number>();
    const source = scriptedSource([{ emit: [1] }, lost]).pipe(catchError(() => scriptedSource(counting(7, 8))));
    await clock.settle(start(() => run(source, sink)).done);
    expect(sink.acked).toEqual([1, 7, 8]);
  });
});

describe('opening again', () => {
  test('retry: a new session begins when the old one has drained, and reads again what was not settled', async () => {
    const { clock, start } = world();
    const source = scriptedSource([...counting(1, 3), lost, ...counting(4, 5)]);
    const sink = recordingSink<number>(['hold', 'hold', 'nack']);
    const flow = start(() => run(source.pipe(retry({ delay: () => of(true) })), sink));
    await clock.flush();
    expect(source.sessions).toMatchObject({ opened: 1, closed: 0 });
    sink.received[0]!.settle('ack');
    sink.received[1]!.settle('ack');
    await clock.settle(flow.done);
    expect(source.sessions).toMatchObject({ opened: 2, closed: 2 });
    expect(sink.acked).toEqual([1, 2, 3, 4, 5]);
    expect(flow.ledger.difference).toBe(0);
  });

  test('retry({ delay }): a stop in the meantime is a stop, and the metrics go on counting', async () => {
    const { clock, start } = world();
    const again = new Subject<void>();
    const source = scriptedSource([{ emit: [1] }, lost, { emit: [2] }, lost, { emit: [3] }], { name: 'src' });
    const sink = recordingSink<number>();
    const flow = start(() => run(source.pipe(retry({ delay: () => again })), sink));
    await clock.flush();
    again.next();
    await clock.flush();
    expect(sink.acked).toEqual([1, 2]);
    await clock.settle(flow.stop());
    expect(sink.ended).toBe('complete');
    expect(source.sessions.opened).toBe(2);
    expect(flow.metrics.snapshot()['SOURCE.src']).toMatchObject({ EventReceivedCount: 2, GenericProcessingFail: 2 });
  });

  test('retry(n): the last error breaks the flow', async () => {
    const { clock, start } = world();
    const source = scriptedSource([lost, lost, { fail: new Error('for good') }, { emit: [1] }]);
    const flow = start(() => run(source.pipe(retry(2)), recordingSink<number>()));
    await expect(clock.settle(flow.done)).rejects.toThrow('for good');
    expect(source.sessions).toMatchObject({ opened: 3, closed: 3 });
  });

  test('repeat: the source opens again when it has completed, until the flow is stopped', async () => {
    const { clock, start } = world();
    const source = scriptedSource([{ emit: [1] }]);
    const more = new Subject<void>();
    const sink = recordingSink<number>();
    const flow = start(() => run(source.pipe(repeat({ delay: () => more })), sink));
    for (const sessions of [1, 2, 3]) {
      await clock.flush();
      expect(source.sessions).toMatchObject({ opened: sessions, closed: sessions });
      if (sessions < 3) more.next();
    }
    await clock.settle(flow.stop());
    expect(sink.ended).toBe('complete');
    await clock.settle(start(() => run(scriptedSource([]).pipe(repeat(5)), recordingSink())).done);
  });

  test('repeat without delay: a source that ends at once leaves others their turn, and a stop gets through', async () => {
    const source = scriptedSource<number>([]);
    const flow = run(source.pipe(repeat()), recordingSink<number>());
    while (source.sessions.closed < 100) await new Promise(resolve => setImmediate(resolve));
    await flow.stop();
    expect(source.sessions.opened).toBe(source.sessions.closed);
  });

  test('defer: make the source once, outside, or what it makes after a delay is no part of the flow', async () => {
    const accepted = async (make: () => Observable<Delivery<number>>) => {
      const { clock, start } = world();
      const again = new Subject<void>();
      const source = defer(make).pipe(retry({ delay: () => again, count: 1 }));
      const flow = start(() => run(source, recordingSink<number>()));
      const broken = expect(flow.done).rejects.toThrow('lost');
      await clock.flush();
      again.next();
      await clock.flush();
      await broken;
      return flow.ledger.accepted;
    };
    const once = scriptedSource([{ emit: [1] }, lost, { emit: [2] }, lost]);
    expect(await accepted(() => once)).toBe(2);
    expect(await accepted(() => scriptedSource([{ emit: [1] }, lost]))).toBe(1);
  });

  test('two subscriptions at a time: the second gets MR_SOURCE_BUSY', async () => {
    const { clock, start } = world();
    const source = scriptedSource(counting(1, 3));
    const sink = recordingSink<number>();
    const flow = start(() => run(merge(source, source), sink));
    await expect(clock.settle(flow.done)).rejects.toMatchObject({ code: 'MR_SOURCE_BUSY' });
  });
});

describe('ending early', () => {
  test('takeUntil behind the source: emission ends at once, the rest is settled, a nack is for the next session', async () => {
    const { clock, start } = world();
    const stop = new Subject<void>();
    const source = scriptedSource([...counting(1, 3), 'idle']);
    const sink = recordingSink<number>(['hold', 'hold', 'hold']);
    const flow = start(() => run(source.pipe(takeUntil(stop)), sink));
    await clock.flush();
    stop.next();
    sink.received[0]!.settle('ack');
    sink.received[1]!.settle('nack');
    sink.received[2]!.settle('ack');
    await clock.settle(flow.done);
    expect(sink.acked).toEqual([1]);
    expect(source.settled.map(({ what }) => what)).toEqual(['acked', 'released', 'released']);
    expect(flow.ledger.difference).toBe(0);
  });

  test('takeUntil behind a memory channel: what the channel holds is dropped, and counted', async () => {
    const { clock, start } = world();
    const stop = new Subject<void>();
    const sink = recordingSink<number>(slowly);
    const pace = { maxInFlight: { deliveries: 1 }, transactionCapacity: 1 };
    const flow = start(() => run(scriptedSource(counting(1, 9)), memoryChannel<number>(pace), takeUntil(stop), sink));
    await clock.advance(25);
    stop.next();
    await clock.settle(flow.done);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 9, delivered: 2, dropped: 7 });
  });

  test('take(n), takeWhile: n deliveries, which is not n events; those that were emitted meanwhile are released', async () => {
    const { clock, start } = world();
    const script = [{ emit: [1, 2] }, { emit: [3] }, { emit: [4, 5, 6] }, { emit: [7] }];
    const taken = recordingSink<number>();
    await clock.settle(start(() => run(scriptedSource(script).pipe(take(3)), taken)).done);
    expect(taken.acked).toEqual([1, 2, 3, 4, 5, 6]);
    const source = scriptedSource(script);
    const some = recordingSink<number>();
    await clock.settle(start(() => run(source.pipe(takeWhile(({ length }) => length < 3, true)), some)).done);
    expect(some.acked).toEqual([1, 2, 3, 4, 5, 6]);
    expect(source.position()).toBe(3);
  });

  test('timeout({ each }): counts from one delivery to the next, and waiting for a slow sink counts as well', async () => {
    for (const script of [['hold'] as const, [] as const]) {
      const { clock, start } = world();
      const scheduler = new VirtualTimeScheduler();
      const source = scriptedSource([...counting(1, 2), 'idle'], { maxInFlight: { deliveries: 1 } });
      const sink = recordingSink<number>(script);
      const flow = start(() => run(source.pipe(timeout({ each: 1000, scheduler })), sink));
      await clock.flush();
      expect(sink.received).toHaveLength(script.length === 1 ? 1 : 2);
      scheduler.flush();
      if (script.length === 1) sink.received[0]!.settle('ack');
      await expect(clock.settle(flow.done)).rejects.toBeInstanceOf(TimeoutError);
      expect(source.sessions).toMatchObject({ stopped: 1, closed: 1 });
    }
  });

  test('timeout and retry: a source that has gone quiet is opened again', async () => {
    const { clock, start } = world();
    const scheduler = new VirtualTimeScheduler();
    scheduler.maxFrames = 1500;
    const source = scriptedSource([{ emit: [1] }, { wait: 60_000 }, { emit: [2] }]);
    const sink = recordingSink<number>();
    const flow = start(() => run(source.pipe(timeout({ each: 1000, scheduler }), retry(1)), sink));
    await clock.flush();
    scheduler.flush();
    await clock.settle(flow.done);
    expect(source.sessions.opened).toBe(2);
    expect(sink.acked).toEqual([1, 2]);
  });
});

describe('looking and waiting', () => {
  test('tap: sees every attempt; what it throws breaks the flow, it is no nack', async () => {
    const { clock, start } = world();
    const seen: string[] = [];
    const sink = recordingSink<number>(['nack']);
    const look = tap<Delivery<number>>(({ events, attempt }) => void seen.push(`${events.join()}#${attempt}`));
    await clock.settle(start(() => run(scriptedSource(counting(1, 2)), look, sink)).done);
    expect(seen).toEqual(['1#1', '1#2', '2#1']);
    const bad = tap<Delivery<number>>(() => {
      throw new Error('oops');
    });
    const source = scriptedSource(counting(1, 2), { drainTimeout: 5 });
    const flow = start(() => run(source, bad, recordingSink<number>()));
    await expect(clock.settle(flow.done)).rejects.toThrow('oops');
    expect(source.position()).toBe(0);
  });

  test('finalize: is called when the subscription ends, which is before the source has drained and closed', async () => {
    const { clock, start } = world();
    const order: string[] = [];
    const stop = new Subject<void>();
    const source = scriptedSource([...counting(1, 1), 'idle']);
    const flow = start(() =>
      run(
        source.pipe(
          finalize(() => order.push(`finalize, ${source.sessions.closed} closed`)),
          takeUntil(stop),
        ),
        recordingSink<number>(slowly),
      ),
    );
    void flow.done.then(() => order.push(`done, ${source.sessions.closed} closed`));
    await clock.flush();
    stop.next();
    await clock.settle(flow.done);
    expect(order).toEqual(['finalize, 0 closed', 'done, 1 closed']);
  });

  test('delay, observeOn: nothing is lost, and the window bounds what waits', async () => {
    const { clock, start } = world();
    const source = scriptedSource(counting(1, 5), { maxInFlight: { deliveries: 2 } });
    const sink = recordingSink<number>();
    const gate = new Subject<void>();
    const waiting = concatMap((delivery: Delivery<number>) =>
      gate.pipe(
        take(1),
        map(() => delivery),
      ),
    );
    const flow = start(() => run(source, waiting, observeOn(queueScheduler), sink));
    await clock.flush();
    expect(source.accepted).toEqual([1, 2]);
    for (let n = 1; n <= 5; n++) {
      gate.next();
      await clock.flush();
    }
    await clock.settle(flow.done);
    expect(sink.acked).toEqual([1, 2, 3, 4, 5]);
    // With RxJS's own timers, in real time.
    const late = recordingSink<number>();
    await run(scriptedSource(counting(1, 3)), delay(1), late).done;
    expect(late.acked).toEqual([1, 2, 3]);
  });
});

describe('changing, with care', () => {
  test('map: the same delivery, or one derived from it', async () => {
    const { clock, start } = world();
    const sink = recordingSink<string>();
    const toText = map((delivery: Delivery<number>) => delivery.derive(delivery.events.map(n => `<${n}>`)));
    await clock.settle(start(() => run(scriptedSource(counting(1, 3)), toText, sink)).done);
    expect(sink.acked).toEqual(['<1>', '<2>', '<3>']);
  });

  test('concatMap keeps order, mergeMap does not: each path passes its delivery on or settles it', async () => {
    for (const order of ['kept', 'lost']) {
      const { clock, start } = world();
      const sink = recordingSink<number>();
      const work = async (delivery: Delivery<number>) => {
        await new Promise<void>(resolve => clock.after(delivery.events[0] === 1 ? 50 : 10, resolve));
        if (delivery.events[0] !== 3) return [delivery];
        delivery.ack();
        return [];
      };
      const combine = order === 'kept' ? concatMap(work) : mergeMap(work);
      const flow = start(() => run(scriptedSource(counting(1, 4)), source => source.pipe(combine, concatAll()), sink));
      await clock.settle(flow.done);
      expect(sink.acked).toEqual(order === 'kept' ? [1, 2, 4] : [2, 4, 1]);
    }
  });
});

test('from(asyncIterable), of RxJS itself, pulls without end and leaves an idle iterator alone', async () => {
  let pulled = 0;
  let returned = 0;
  const iterable: AsyncIterable<number> = {
    [Symbol.asyncIterator]: () => ({
      next: () => (++pulled < 1000 ? Promise.resolve({ value: pulled }) : new Promise<never>(() => undefined)),
      return: () => Promise.resolve({ done: true, value: (returned += 1) }),
    }),
  };
  const subscription = from(iterable).subscribe();
  await new Promise(resolve => setImmediate(resolve));
  subscription.unsubscribe();
  await new Promise(resolve => setImmediate(resolve));
  expect([pulled, returned]).toEqual([1000, 0]);
});

describe('what must not meet a delivery', () => {
  type Op = OperatorFunction<Delivery<number>, Delivery<number>>;
  const dropping: Record<string, unknown> = {
    filter: filter(() => false),
    skip: skip(1),
    distinctUntilChanged: distinctUntilChanged(() => true),
    switchMap: switchMap(() => NEVER),
    exhaustMap: exhaustMap(() => NEVER),
    bufferCount: (source: Observable<Delivery<number>>) => source.pipe(bufferCount(100), concatAll()),
    pairwise: (source: Observable<Delivery<number>>) =>
      source.pipe(
        pairwise(),
        map(([, second]) => second),
      ),
    toArray: (source: Observable<Delivery<number>>) => source.pipe(toArray(), concatAll()),
    last: last(),
    reduce: reduce((_, delivery) => delivery),
    distinct: distinct(() => 0),
    debounce: debounce(() => NEVER),
    throttle: throttle(() => NEVER),
    sample: sample(NEVER),
    audit: audit(() => NEVER),
    withLatestFrom: withLatestFrom(NEVER),
    combineLatest: (source: Observable<Delivery<number>>) => combineLatest([source, NEVER]),
    zip: (source: Observable<Delivery<number>>) => zip(source, NEVER),
  };

  test.each(Object.keys(dropping))(
    '%s: what it drops or holds is never settled, so the source stands still',
    async name => {
      const { clock, start } = world();
      const source = scriptedSource(counting(1, 6), { maxInFlight: { deliveries: 3 } });
      const sink = recordingSink<number>();
      const flow = start(() => run(source, dropping[name] as Op, sink));
      let done = false;
      flow.done.then(
        () => (done = true),
        () => undefined,
      );
      await clock.runUntilIdle();
      expect(done).toBe(false);
      expect(source.position()).toBeLessThan(3);
      flow.abort();
    },
  );

  test('what was dropped is reported and delivered again, once the garbage collector has found it', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const { clock, log, start } = world();
    const sink = recordingSink<number>();
    const some = filter<Delivery<number>>(({ attempt }) => attempt > 1);
    const flow = start(() => run(scriptedSource(counting(1, 2), { maxInFlight: { deliveries: 1 } }), some, sink));
    // It is watched when it has been unsettled for a while.
    while (sink.acked.length < 2) {
      await clock.advance(1000);
      collect();
    }
    await clock.settle(flow.done);
    expect(log.entries.map(({ fields }) => fields)).toContainEqual({ code: 'MR_DELIVERY_LEAKED' });
    expect(sink.acked).toEqual([1, 2]);
  });

  test('share: two subscribers settle the same delivery; the second settlement is refused and counted', async () => {
    const { clock, scope, inside } = world();
    const shared = scriptedSource(counting(1, 2)).pipe(share());
    const results: boolean[] = [];
    const settle = (delivery: Delivery<number>) => void results.push(delivery.ack());
    inside(() => {
      shared.subscribe(settle);
      shared.subscribe(settle);
    });
    await clock.flush();
    expect(results).toEqual([true, false, true, false]);
    expect(scope.ledger.settledTwice).toBe(2);
  });

  test.each<[string, OperatorFunction<number, unknown>, unknown[]]>([
    ['filter', filter(n => n % 2 === 0), [2, 4, 6]],
    ['skip', skip(1), [2, 3, 5, 6]],
    ['distinctUntilChanged', distinctUntilChanged((a, b) => a >> 1 === b >> 1), [1, 2, 4, 6]],
    ['switchMap', switchMap(n => of(n, -n)), [1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6]],
    ['bufferCount', bufferCount(2), [[1, 2], [3], [4, 5], [6]]],
    [
      'toArray',
      toArray(),
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
    ],
    ['reduce', reduce((sum, n) => sum + n, 0), [6, 15]],
    ['scan', scan((sum, n) => sum + n, 0), [1, 3, 6, 4, 9, 15]],
    ['last', last(), [3, 6]],
    ['throwError', mergeMap(n => (n === 0 ? throwError(() => new Error('never here')) : of(n))), [1, 2, 3, 4, 5, 6]],
  ])('inside intercept one batch is a finite Observable: %s', async (_, operator, expected) => {
    const { clock, start } = world();
    const sink = recordingSink<unknown>();
    const source = scriptedSource([{ emit: [1, 2, 3] }, { emit: [4, 5, 6] }]);
    const flow = start(() => run(source, intercept(operator), sink));
    await clock.settle(flow.done);
    expect(sink.acked).toEqual(expected);
    expect(source.position()).toBe(2);
    expect(flow.ledger.difference).toBe(0);
  });
});
