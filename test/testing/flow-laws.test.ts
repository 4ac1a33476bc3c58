import { concatMap, filter, map, pipe, tap } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { event, type FlumeEvent } from '../../src/core/event.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { intercept } from '../../src/operators/intercept.ts';
import { flowLaws, type LawId } from '../../src/testing/index.ts';
import { brokenStages } from '../laws/simulation/broken-stages.ts';

const number = ({ body }: FlumeEvent) => Number(body.toString());
const twice = ({ body, headers }: FlumeEvent) => ['a', 'b'].map(half => event(`${body.toString()}${half}`, headers));

const sound = [
  flowLaws(() => map(delivery => delivery), { name: 'nothing' }),
  flowLaws(
    ({ mayThrow, mayWait }) => {
      const work = async (one: FlumeEvent) => {
        await mayWait();
        mayThrow();
        return one;
      };
      return intercept(concatMap(work), { concurrency: 4 });
    },
    { name: 'work in parallel' },
  ),
  flowLaws(() => memoryChannel({ capacity: 5, transactionCapacity: 4, keepAlive: 0 }), {
    name: 'an impatient channel',
  }),
  flowLaws(
    ({ mayThrow }) =>
      pipe(
        intercept(
          filter((one: FlumeEvent) => number(one) % 3 > 0),
          tap<FlumeEvent>(mayThrow),
        ),
        memoryChannel({ capacity: 9 }),
        intercept(concatMap(twice), tap<FlumeEvent>(mayThrow)),
      ),
    { name: 'filter and expand', expect: one => (number(one) % 3 > 0 ? twice(one) : []) },
  ),
  flowLaws<number, string>(() => intercept(map((n: number) => String(n))), {
    name: 'other types',
    event: n => n,
    expect: n => [String(n)],
  }),
  flowLaws(() => memoryChannel({ redelivery: { order: 'selective' } }), { name: 'selective', order: 'none' }),
];

describe.each(sound.map((laws, i) => [i, laws] as const))('a sound flow keeps the laws (%i)', (_, laws) => {
  for (const law of laws) test(law.name, () => law.run());
});

describe('a broken flow breaks a law', () => {
  const broken: Record<keyof typeof brokenStages, LawId> = {
    losesOnStop: 'S4',
    swallowsNack: 'S4',
    acksEarly: 'S4',
    dropsUnderPressure: 'S4',
    duplicates: 'C4',
    reorders: 'S6',
    truncates: 'S5',
    dropsUncounted: 'X1',
    waitsForMore: 'L2',
    losesWakeUp: 'L1',
    settlesTwice: 'S1',
    leavesTimer: 'L3',
    errors: 'L3',
    completesEarly: 'L3',
  };
  test.each(Object.entries(broken))('%s: %s', async (name, id) => {
    const make = brokenStages[name as keyof typeof brokenStages];
    const law = flowLaws(() => make(), { name }).find(one => one.id === id);
    await expect(law?.run()).rejects.toThrow(new RegExp(`^flowLaws of ${name}: ${id} .*\n  broken: `));
  });
});

test('a failure is replayed by its seed and path, and by nothing else', async () => {
  const law = flowLaws(() => brokenStages.reorders(), { name: 'reorders' }).find(({ id }) => id === 'S6');
  const message = await law?.run({ seed: 7 }).then(
    () => 'none',
    (failure: unknown) => String(failure),
  );
  const [, replay] = /replay: .* run\((.*)\)/.exec(message ?? '') ?? [];
  const [, path] = /path: "(.*)"/.exec(replay ?? '') ?? [];
  expect(message).toMatch(/program: .*"emit":2/);
  await expect(law?.run({ seed: 7, path: path ?? '' })).rejects.toThrow(
    message?.replace(/^Error: /, '').split('\n')[1] ?? 'none',
  );
});
