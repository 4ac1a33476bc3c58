import { concatMap, filter, map, Observable, of, type OperatorFunction } from 'rxjs';
import { describe, test } from 'vitest';
import type { Delivery } from '../../src/core/delivery.ts';
import { MillraceError } from '../../src/core/errors.ts';
import { event, headers, type FlumeEvent } from '../../src/core/event.ts';
import type { FlowSink } from '../../src/core/flow.ts';
import { currentScope } from '../../src/core/scope.ts';
import { deadLetter } from '../../src/operators/dead-letter.ts';
import { intercept } from '../../src/operators/intercept.ts';
import { keyed } from '../../src/operators/keyed.ts';
import { mapBatch, setHeaders } from '../../src/operators/map-batch.ts';
import { rebatch } from '../../src/operators/rebatch.ts';
import type { Destination } from '../../src/operators/routing/destination.ts';
import { replicate } from '../../src/operators/routing/replicate.ts';
import { route } from '../../src/operators/routing/route.ts';
import { recordingSink } from '../../src/testing/index.ts';
import { stageLaws, type StageSpec } from '../../src/testing/laws/stage-laws.ts';

const last = (e: FlumeEvent) => e.body.at(-1) ?? 0;
const marked = (e: FlumeEvent) => event(e.body, headers({ ...e.headers, mark: 'x' }));
const twice = (e: FlumeEvent) => [marked(e), event(Buffer.concat([e.body, Buffer.from('2')]), e.headers)];

/** A fan-out whose main branch is what comes after it. */
const through =
  (fanOut: (main: Destination) => FlowSink<FlumeEvent>): OperatorFunction<Delivery, Delivery> =>
  source =>
    new Observable(subscriber => {
      const sink = fanOut(deliveries => deliveries.subscribe(subscriber));
      sink.attach?.(currentScope());
      return source.subscribe(sink);
    });

const stages: StageSpec[] = [
  { name: 'intercept', make: () => intercept(map(marked)), expect: e => [marked(e)] },
  {
    name: 'intercept that drops',
    make: () => intercept(filter(e => last(e) % 3 > 0)),
    expect: e => (last(e) % 3 > 0 ? [e] : []),
  },
  { name: 'intercept that expands', make: () => intercept(concatMap(e => of(...twice(e)))), expect: twice },
  {
    name: 'intercept that waits',
    make: () => {
      const { clock } = currentScope();
      const late = (e: FlumeEvent) =>
        new Observable<FlumeEvent>(subscriber => {
          const timer = clock.after(last(e) % 40, () => {
            subscriber.next(marked(e));
            subscriber.complete();
          });
          return () => clock.cancel(timer);
        });
      return intercept(concatMap(late), { concurrency: 3 });
    },
    expect: e => [marked(e)],
  },
  {
    name: 'intercept that throws now and then',
    make: () => {
      const { random } = currentScope();
      return intercept(
        map(e => {
          if (random() < 0.1) throw new Error('now');
          return e;
        }),
      );
    },
  },
  {
    name: 'intercept that throws for ever',
    make: () =>
      intercept(
        map(e => {
          if (last(e) % 9 === 8) throw new MillraceError('MR_BAD_INPUT', 'never');
          return e;
        }),
      ),
  },
  { name: 'mapBatch', make: () => mapBatch(({ events }) => events.flatMap(twice)), expect: twice },
  { name: 'setHeaders', make: () => setHeaders({ mark: 'x' }), expect: e => [marked(e)] },
  { name: 'rebatch', make: () => rebatch({ maxEvents: 5, maxDelay: 50 }) },
  { name: 'rebatch to one', make: () => rebatch({ maxEvents: 1, maxDelay: 50 }) },
  { name: 'rebatch by bytes', make: () => rebatch({ maxEvents: 5, maxBytes: 20, maxDelay: 50 }) },
  {
    name: 'keyed',
    make: () => keyed({ by: e => last(e) % 3, concurrency: 2 }),
    key: e => String((e.body.at(-1) ?? 0) % 3),
  },
  {
    name: 'keyed with more in flight',
    make: () => keyed({ by: e => last(e) % 2, maxInFlightPerKey: 3 }),
    key: e => String((e.body.at(-1) ?? 0) % 2),
  },
  { name: 'deadLetter', make: () => deadLetter(recordingSink()) },
  { name: 'replicate to one', make: () => through(main => replicate([main])) },
  { name: 'replicate to two', make: () => through(main => replicate([main, recordingSink()])) },
  {
    name: 'replicate with an optional one',
    make: () => through(main => replicate([main], { optional: [recordingSink(() => 'nack')] })),
  },
  {
    name: 'route',
    make: () => through(main => route(e => String(last(e) % 3), { cases: { 0: main }, default: [] })),
    expect: e => (last(e) % 3 === 0 ? [e] : []),
  },
];

for (const spec of stages) {
  describe(spec.name, () => {
    for (const law of stageLaws(spec)) test(law.name, () => law.run());
  });
}
