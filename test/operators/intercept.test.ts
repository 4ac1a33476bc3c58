import {
  bufferCount,
  concatMap,
  defer,
  delay,
  filter,
  from,
  map,
  mergeMap,
  Observable,
  of,
  reduce,
  retry,
  throwError,
  toArray,
  type MonoTypeOperatorFunction,
} from 'rxjs';
import { describe, expect, expectTypeOf, test } from 'vitest';
import type { Delivery } from '../../src/core/delivery.ts';
import { MillraceError } from '../../src/core/errors.ts';
import { event, type FlumeEvent } from '../../src/core/event.ts';
import { run } from '../../src/core/flow.ts';
import { createSink } from '../../src/core/sink.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import { intercept } from '../../src/operators/intercept.ts';
import { FakeClock, recordingSink, scriptedSource } from '../../src/testing/index.ts';
import { deferred } from '../core/fakes.ts';
import { emit, flowOf, text, texts } from './fixture.ts';

const upper = map((e: FlumeEvent) => event(e.body.toString().toUpperCase(), e.headers));
const isnt = (letter: string) => filter((e: FlumeEvent) => e.body.toString() !== letter);

/** Each delivery waits until the test lets it go, by its text. */
const gates = () => {
  const open = new Map<string, ReturnType<typeof deferred<void>>>();
  const gate = (name: string) => {
    const found = open.get(name) ?? deferred();
    open.set(name, found);
    return found;
  };
  const wait: MonoTypeOperatorFunction<FlumeEvent> = source =>
    source.pipe(
      toArray(),
      concatMap(all =>
        defer(() => {
          started.push(text(all));
          return gate(text(all)).promise;
        }).pipe(concatMap(() => from(all))),
      ),
    );
  const started: string[] = [];
  return { wait, started, gate };
};

describe('intercept', () => {
  test('drops, changes and expands synchronously; nothing left is an ack', async () => {
    const sink = recordingSink();
    const { clock, flow, source, ledger } = flowOf(emit('axb', 'x', 'c'), sink, {
      stage: intercept(
        isnt('x'),
        upper,
        concatMap(e => [e, e]),
      ),
    });
    await clock.settle(flow.done);
    expect([texts(sink.received), source.position()]).toEqual([['AABB', 'CC'], 3]);
    expect(ledger.snapshot()).toMatchObject({ accepted: 5, delivered: 6, filtered: 1, copied: 2, held: 0 });
    expect(ledger.difference).toBe(0);
  });

  test('aggregates per batch', async () => {
    const sizes: unknown[] = [];
    const source = scriptedSource(emit('abc', 'de'));
    const clock = new FakeClock();
    const sink = createSink<number>(all => void sizes.push(all));
    const count = intercept(
      toArray<FlumeEvent>(),
      map(all => all.length),
    );
    const sum = intercept(reduce((before: number, n: number) => before + n * 10, 0));
    const flow = inScope(new Scope({ clock }), () => run(source, count, sum, sink));
    await clock.settle(flow.done);
    expect(sizes).toEqual([[30], [20]]);
    // Three events became one, twice: what is gone is counted.
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 5, filtered: 3, delivered: 2 });
    const pairs: unknown[] = [];
    const again = inScope(new Scope({ clock }), () =>
      run(
        scriptedSource(emit('abc')),
        intercept(bufferCount<FlumeEvent>(2), map(text)),
        createSink<string>(all => void pairs.push(...all)),
      ),
    );
    await clock.settle(again.done);
    expect(pairs).toEqual(['ab', 'c']);
  });

  test('works asynchronously, one batch at a time', async () => {
    const sink = recordingSink();
    const { wait, started, gate } = gates();
    const { clock, flow } = flowOf(emit('ab', 'c', 'd'), sink, { stage: intercept(wait, upper) });
    await clock.flush();
    expect(started).toEqual(['ab']);
    gate('ab').resolve();
    await clock.flush();
    expect([texts(sink.received), started]).toEqual([['AB'], ['ab', 'c']]);
    gate('c').resolve();
    gate('d').resolve();
    await clock.settle(flow.done);
    expect(texts(sink.received)).toEqual(['AB', 'C', 'D']);
  });

  test('S6: with concurrency, what comes out keeps the order of what went in', async () => {
    const sink = recordingSink();
    const { wait, started, gate } = gates();
    const { clock, flow } = flowOf(emit('a', 'b', 'c', 'd'), sink, { stage: intercept(wait, { concurrency: 3 }) });
    await clock.flush();
    expect(started).toEqual(['a', 'b', 'c']);
    gate('c').resolve();
    gate('b').resolve();
    await clock.flush();
    expect([texts(sink.received), started]).toEqual([[], ['a', 'b', 'c']]);
    gate('a').resolve();
    await clock.flush();
    expect([texts(sink.received), started]).toEqual([
      ['a', 'b', 'c'],
      ['a', 'b', 'c', 'd'],
    ]);
    gate('d').resolve();
    await clock.settle(flow.done);
  });

  test('S1: what an operator throws is a nack of its batch, settled once; the next attempt may work', async () => {
    const sink = recordingSink();
    let throws = 2;
    const moody = map((e: FlumeEvent) => {
      if (e.body.toString() === 'c' && throws-- > 0) throw new Error('moody');
      return e;
    });
    const { clock, flow, ledger } = flowOf(emit('ab', 'cd', 'e'), sink, { stage: intercept(moody) });
    await clock.settle(flow.done);
    expect(texts(sink.received)).toEqual(['ab', 'cd', 'e']);
    expect(ledger.snapshot()).toMatchObject({ accepted: 5, delivered: 5, settledTwice: 0, copied: 0 });
  });

  test('S6: a batch that fails behind one that is still under way does not let later ones pass', async () => {
    const sink = recordingSink();
    const { wait, gate } = gates();
    const { clock, flow, ledger } = flowOf(emit('a', 'b', 'c'), sink, { stage: intercept(wait, { concurrency: 3 }) });
    await clock.flush();
    gate('b').reject(new Error('no'));
    gate('c').resolve();
    await clock.flush();
    gate('a').resolve();
    await clock.flush();
    expect(texts(sink.received)).toEqual(['a']);
    await clock.advance(0);
    expect(ledger.settledTwice).toBe(0);
    flow.abort();
  });

  test('a permanent error is a reject, any other a nack that says whose fault it was', async () => {
    const errors = [new MillraceError('MR_BAD_INPUT', 'never'), new Error('oops'), new MillraceError('MR_IO', 'disk')];
    const { clock, flow, source } = flowOf(emit('a', 'b', 'c'), recordingSink(), {
      stage: intercept(mergeMap(() => throwError(() => errors.shift()))),
      onFailure: 'report',
      maxInFlight: { deliveries: 1 },
    });
    await clock.settle(flow.done);
    expect(source.settled).toMatchObject([
      { what: 'rejected', cause: { code: 'MR_BAD_INPUT' } },
      { what: 'nacked', cause: { code: 'MR_USER_CODE', cause: { message: 'oops' } } },
      { what: 'nacked', cause: { code: 'MR_IO' } },
    ]);
  });

  test('an operator that throws when it is applied is a nack, too', async () => {
    const broken: MonoTypeOperatorFunction<FlumeEvent> = () => {
      throw new Error('broken');
    };
    const { clock, flow, source } = flowOf(emit('a'), recordingSink(), {
      stage: intercept(broken),
      onFailure: 'report',
    });
    await clock.settle(flow.done);
    expect(source.settled).toMatchObject([{ what: 'nacked', cause: { code: 'MR_USER_CODE' } }]);
  });

  test('retry inside starts the batch again', async () => {
    const sink = recordingSink();
    let throws = 2;
    const moody = map((e: FlumeEvent) => {
      if (throws-- > 0) throw new Error('moody');
      return e;
    });
    const { clock, flow, source } = flowOf(emit('ab'), sink, {
      stage: intercept(moody, retry(2)),
      onFailure: 'report',
    });
    await clock.settle(flow.done);
    expect([texts(sink.received), source.settled.map(({ what }) => what)]).toEqual([['ab'], ['acked']]);
  });

  test('S4: unsubscribed, it cancels what is under way and gives everything back', async () => {
    const sink = recordingSink();
    let cancelled = 0;
    const never: MonoTypeOperatorFunction<FlumeEvent> = source =>
      new Observable(subscriber => {
        const subscription = source.pipe(delay(1e6)).subscribe(subscriber);
        subscription.add(() => cancelled++);
        return subscription;
      });
    const { clock, flow, source } = flowOf([...emit('a', 'b', 'c'), 'idle'], sink, {
      stage: intercept(never, { concurrency: 2 }),
    });
    await clock.flush();
    flow.abort();
    await clock.flush();
    expect(cancelled).toBe(2);
    expect(source.settled.map(({ what }) => what)).toEqual(['released', 'released', 'released']);
    expect(flow.ledger.settledTwice).toBe(0);
  });

  test('L3: completes when the last batch is out, and not before', async () => {
    const sink = recordingSink();
    const { wait, gate } = gates();
    const { clock, flow } = flowOf(emit('a'), sink, { stage: intercept(wait) });
    await clock.advance(100);
    expect(sink.ended).toBeUndefined();
    gate('a').resolve();
    await clock.settle(flow.done);
    expect([texts(sink.received), sink.ended]).toEqual([['a'], 'complete']);
  });

  test('what was overtaken before its turn is not worked on', async () => {
    const sink = recordingSink(['nack']);
    const { wait, started, gate } = gates();
    for (const name of ['a', 'b', 'c']) gate(name).resolve();
    const { clock, flow } = flowOf(emit('a', 'b', 'c'), sink, { stage: intercept(wait) });
    await clock.settle(flow.done);
    expect(started).toEqual(['a', 'a', 'b', 'c']);
    expect(texts(sink.received)).toEqual(['a', 'a', 'b', 'c']);
  });

  test('infers types from both sides', () => {
    const lengths = intercept(map((e: FlumeEvent) => e.body.length));
    expectTypeOf(lengths).toEqualTypeOf<(source: Observable<Delivery>) => Observable<Delivery<number>>>();
    const plain = intercept(
      filter<FlumeEvent>(e => e.body.length > 0),
      mergeMap(e => of(e.headers), 4),
      { concurrency: 2 },
    );
    expectTypeOf(plain).parameter(0).toEqualTypeOf<Observable<Delivery>>();
  });
});
