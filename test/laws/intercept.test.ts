import { concatMap, filter, from, map, mergeMap, Observable, type OperatorFunction } from 'rxjs';
import { describe, test } from 'vitest';
import { MillraceError } from '../../src/core/errors.ts';
import { event, headers, type FlumeEvent } from '../../src/core/event.ts';
import { currentScope } from '../../src/core/scope.ts';
import { intercept } from '../../src/operators/intercept.ts';
import { stageLaws, type StageSpec } from '../../src/testing/index.ts';

/** Some of the events, always the same ones. */
const some = ({ body }: FlumeEvent) => body.length % 3 === 0;
const marked = (one: FlumeEvent, mark: string) => event(one.body, headers({ ...one.headers, mark }));

/** Waits a while that depends on the event, so that later ones overtake inside a batch. */
const enrich = (): OperatorFunction<FlumeEvent, FlumeEvent> => {
  const { clock } = currentScope();
  const later = (one: FlumeEvent) =>
    new Observable<FlumeEvent>(subscriber => {
      const timer = clock.after(one.body.length, () => {
        subscriber.next(marked(one, 'enriched'));
        subscriber.complete();
      });
      return () => clock.cancel(timer);
    });
  return mergeMap(later, 4);
};

/** Fails for every event once in a while. */
const flaky = () => {
  let count = 0;
  return map((one: FlumeEvent) => {
    if (++count % 7 === 0) throw new Error('not now');
    return one;
  });
};

/** Fails for some events for ever. */
const strict = map((one: FlumeEvent) => {
  if (one.body.length % 9 === 8) throw new MillraceError('MR_BAD_INPUT', 'never');
  return one;
});

const specs: StageSpec[] = [
  { name: 'that leaves everything as it is', make: () => intercept(map(one => one)) },
  {
    name: 'that drops some',
    make: () => intercept(filter(one => !some(one))),
    expect: one => (some(one) ? [] : [one]),
  },
  {
    name: 'that makes more of some',
    make: () => intercept(concatMap(one => from(some(one) ? [one, marked(one, 'copy')] : [one]))),
    expect: one => (some(one) ? [one, marked(one, 'copy')] : [one]),
  },
  {
    name: 'that waits',
    make: () => intercept(enrich()),
    expect: one => [marked(one, 'enriched')],
    order: 'none',
  },
  {
    name: 'that waits for three batches at a time',
    make: () =>
      intercept(
        concatMap(one => from(Promise.resolve(one))),
        { concurrency: 3 },
      ),
  },
  { name: 'that fails now and then', make: () => intercept(flaky()) },
  { name: 'that fails for ever', make: () => intercept(strict) },
];

describe.each(specs)('intercept $name', spec => {
  for (const law of stageLaws(spec)) test(law.name, () => law.run());
});
