import { concatMap, delay, expand, map, of, take, toArray, type Observable } from 'rxjs';
import { describe, expect, expectTypeOf, test } from 'vitest';
import type { FlumeEvent } from '../../src/core/event.ts';
import { autoAck } from '../../src/operators/auto-ack.ts';
import { intercept } from '../../src/operators/intercept.ts';
import { seqSource } from '../../src/sources/seq.ts';
import { scriptedSource } from '../../src/testing/index.ts';
import { world } from '../core/fakes.ts';

const script = [{ emit: [1, 2, 3] }, { emit: [4, 5] }, { emit: [6] }];

/** Everything that comes out, in the order of the signals. */
const collect = <T>(inside: <R>(act: () => R) => R, plain: Observable<T>) => {
  const seen: (T | 'complete' | Error)[] = [];
  inside(() =>
    plain.subscribe({
      next: value => void seen.push(value),
      error: (cause: unknown) => void seen.push(cause as Error),
      complete: () => void seen.push('complete'),
    }),
  );
  return seen;
};

describe('autoAck', () => {
  test('passes on the events one by one, acks, and completes', async () => {
    const { clock, scope, inside } = world();
    const source = scriptedSource(script);
    const seen = collect(inside, source.pipe(autoAck()));
    await clock.runUntilIdle();
    expect(seen).toEqual([1, 2, 3, 4, 5, 6, 'complete']);
    expect(source.settled.map(({ what }) => what)).toEqual(['acked', 'acked', 'acked']);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 6, delivered: 6, held: 0 });
  });

  test('who leaves in between has had exactly what was acked; the rest is delivered again', async () => {
    const { clock, scope, inside } = world();
    const source = scriptedSource(script);
    expect(await clock.settle(first(inside, source.pipe(autoAck(), take(4), toArray())))).toEqual([1, 2, 3, 4]);
    await clock.runUntilIdle();
    expect(source.settled).toMatchObject([
      { emission: 0, what: 'acked' },
      { emission: 1, what: 'released' },
    ]);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 4, delivered: 4, held: 0 });
    expect(scope.ledger.difference).toBe(0);
    expect(clock.pending).toBe(0);
  });

  test('errors after its source', async () => {
    const { clock, inside } = world();
    const seen = collect(inside, scriptedSource([{ emit: [1] }, { fail: new Error('lost') }]).pipe(autoAck()));
    await clock.runUntilIdle();
    expect(seen).toEqual([1, new Error('lost')]);
  });

  test('any RxJS may follow, also what would never do with deliveries', async () => {
    const { clock, inside } = world();
    const plain = scriptedSource([{ emit: [1] }]).pipe(
      autoAck(),
      expand(n => (n < 100 ? of(n * 2) : [])),
      concatMap(n => of(n).pipe(delay(0))),
    );
    expect(await first(inside, plain.pipe(toArray()), clock.flush())).toEqual([1, 2, 4, 8, 16, 32, 64, 128]);
  });

  test('types: knows what the events are', () => {
    expectTypeOf(seqSource().pipe(autoAck())).toEqualTypeOf<Observable<FlumeEvent>>();
    expectTypeOf(seqSource().pipe(intercept(map(({ body }) => body.length)), autoAck())).toEqualTypeOf<
      Observable<number>
    >();
  });
});

/** The first value. */
function first<T>(inside: <R>(act: () => R) => R, plain: Observable<T>, ...also: Promise<void>[]): Promise<T> {
  const value = new Promise<T>((resolve, reject) => {
    inside(() => plain.subscribe({ next: resolve, error: reject }));
  });
  return Promise.all([value, ...also]).then(([only]) => only);
}
