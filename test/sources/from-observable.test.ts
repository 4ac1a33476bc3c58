import { concat, EMPTY, from, Observable, of, range, Subject, throwError } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { MillraceError } from '../../src/core/errors.ts';
import { run } from '../../src/core/flow.ts';
import { fromObservable, type FromObservableOptions } from '../../src/sources/from-observable.ts';
import { recordingSink, type SinkStep } from '../../src/testing/index.ts';
import { numbers, world } from '../core/fakes.ts';

/** A flow from a Subject into a sink. */
const fed = async (options: FromObservableOptions, script: readonly SinkStep[] | (() => SinkStep) = []) => {
  const { clock, log, start } = world();
  const origin = new Subject<number>();
  const sink = recordingSink<number>(script);
  const flow = start(() => run(fromObservable(origin, options, { name: 'clicks' }), sink));
  await clock.flush();
  return { clock, log, origin, sink, flow };
};

const one = { maxInFlight: { deliveries: 1 } };

describe('fromObservable', () => {
  test('emits at once with credit, and what has gathered without, in batches', async () => {
    const { clock, origin, sink, flow } = await fed({ capacity: 10, overflow: 'fail', batchSize: 3, ...one }, ['hold']);
    for (const n of numbers(1, 6)) origin.next(n);
    expect(sink.received.map(({ events }) => events)).toEqual([[1]]);
    sink.received[0]!.settle('ack');
    expect(sink.received.map(({ events }) => events)).toEqual([[1], [2, 3, 4], [5, 6]]);
    origin.complete();
    await clock.settle(flow.done);
    expect(sink.acked).toEqual(numbers(1, 6));
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 6, delivered: 6, dropped: 0 });
  });

  test.each([
    ['drop-oldest', [1, 4, 5]],
    ['drop-newest', [1, 2, 3]],
  ] as const)('%s keeps the bound, and counts what it dropped under a name', async (overflow, kept) => {
    const { clock, log, origin, sink, flow } = await fed({ capacity: 2, overflow, ...one }, ['hold']);
    for (const n of numbers(1, 5)) origin.next(n);
    expect(flow.ledger.difference).toBe(0);
    sink.received[0]!.settle('ack');
    origin.complete();
    await clock.settle(flow.done);
    expect(sink.acked).toEqual(kept);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 5, delivered: 3, dropped: 2, held: 0 });
    expect(flow.ledger.difference).toBe(0);
    expect(flow.metrics.snapshot()['SOURCE.clicks']).toMatchObject({ EventReceivedCount: 5, EventOverflowCount: 2 });
    // Said once, not for each event.
    expect(log.entries).toHaveLength(1);
    expect(log.entries[0]!.message).toContain('clicks: 2 events wait');
  });

  test('fail ends the flow with MR_OVERFLOW, after what had room, and leaves its origin', async () => {
    const { clock, origin, sink, flow } = await fed({ capacity: 2, overflow: 'fail', ...one }, ['hold', 'nack']);
    for (const n of numbers(1, 5)) origin.next(n);
    expect(origin.observed).toBe(false);
    sink.received[0]!.settle('ack');
    await expect(clock.settle(flow.done)).rejects.toMatchObject({ code: 'MR_OVERFLOW' });
    expect(sink.acked).toEqual([1, 2, 3]);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 4, delivered: 3, dropped: 1 });
    expect(flow.ledger.difference).toBe(0);
  });

  test('what comes in one go has to fit', async () => {
    const { clock, start } = world();
    const gather = (capacity: number) => {
      const sink = recordingSink<number>();
      const source = fromObservable(range(1, 1000), { capacity, overflow: 'fail' });
      return { sink, flow: start(() => run(source, sink)) };
    };
    const fits = gather(1000);
    await clock.settle(fits.flow.done);
    expect(fits.sink.acked).toEqual(numbers(1, 1000));
    await expect(clock.settle(gather(999).flow.done)).rejects.toMatchObject({ code: 'MR_OVERFLOW' });
  });

  test('an error of the Observable comes after everything that it had emitted', async () => {
    const { clock, start } = world();
    const sink = recordingSink<number>(['nack']);
    const origin = concat(
      of(1, 2, 3),
      throwError(() => new Error('unplugged')),
    );
    const source = fromObservable(origin, { capacity: 5, overflow: 'fail', batchSize: 2, ...one });
    const flow = start(() => run(source, sink));
    await expect(clock.settle(flow.done)).rejects.toThrow('unplugged');
    expect(sink.acked).toEqual([1, 2, 3]);
  });

  test('an empty one completes', async () => {
    const { clock, start } = world();
    const flow = start(() => run(fromObservable(EMPTY, { capacity: 1, overflow: 'fail' }), recordingSink()));
    await clock.settle(flow.done);
    expect(flow.ledger.accepted).toBe(0);
  });

  test('a stop unsubscribes from its origin and delivers what waits', async () => {
    const { clock, origin, sink, flow } = await fed({ capacity: 9, overflow: 'fail', ...one }, () => ({
      outcome: 'ack',
      after: 10,
    }));
    for (const n of numbers(1, 5)) origin.next(n);
    const stopped = flow.stop();
    expect(origin.observed).toBe(false);
    await clock.settle(stopped);
    expect(sink.acked).toEqual([1, 2, 3, 4, 5]);
  });

  test('an abort counts what waits and what is in flight as dropped: it cannot be replayed', async () => {
    const { clock, origin, flow } = await fed({ capacity: 9, overflow: 'fail', ...one }, ['hold']);
    for (const n of numbers(1, 5)) origin.next(n);
    flow.abort();
    await clock.flush();
    expect(origin.observed).toBe(false);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 5, delivered: 0, dropped: 5, held: 0 });
    expect(clock.pending).toBe(0);
  });

  test('is subscribed once per session, and not before it is', async () => {
    const { clock, start } = world();
    let subscribed = 0;
    const origin = new Observable<number>(subscriber => {
      subscribed++;
      subscriber.next(subscribed);
      subscriber.complete();
    });
    const source = fromObservable(origin, { capacity: 1, overflow: 'fail' });
    for (const session of [1, 2]) {
      expect(subscribed).toBe(session - 1);
      const sink = recordingSink<number>();
      await clock.settle(start(() => run(source, sink)).done);
      expect(sink.acked).toEqual([session]);
    }
  });

  test('takes whatever rxjs takes, and any value as an event', async () => {
    const { clock, start } = world();
    const sink = recordingSink<number | undefined>();
    const source = fromObservable(from([undefined, 0, 1]), { capacity: 3, overflow: 'fail' });
    await clock.settle(start(() => run(source, sink)).done);
    expect(sink.acked).toEqual([undefined, 0, 1]);
  });

  test('says what is wrong with its options', () => {
    expect(() => fromObservable(EMPTY, { capacity: 0, overflow: 'fail' })).toThrow(
      new MillraceError('MR_CONFIG', 'fromObservable: capacity: expected a whole number of at least 1, found 0'),
    );
    expect(() => fromObservable(EMPTY, { capacity: 1, overflow: 'block' as 'fail' })).toThrow(
      'expected one of fail, drop-oldest, drop-newest',
    );
    expect(() => fromObservable(EMPTY, {} as FromObservableOptions)).toThrow('capacity is missing');
  });
});
