import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { LawId } from '../../src/testing/index.ts';
import { brokenChannels, soundChannel } from './simulation/broken-channels.ts';
import { brokenSinks } from './simulation/broken-sinks.ts';
import { brokenStages } from './simulation/broken-stages.ts';
import { graphs, type GraphSpec } from './simulation/graph.ts';
import { simulate, type Planted } from './simulation/simulate.ts';
import { sights, type Sight, type World } from './simulation/world.ts';

// MILLRACE_SEED=17 npx vitest run test/laws/simulation.test.ts plays one graph, and shrinks it if it breaks a law.
const only = process.env['MILLRACE_SEED'];
const first = 1;
const count = 2400;

/** The graph of a seed. */
const graphOf = (seed: number): GraphSpec => fc.sample(graphs, { seed, numRuns: 1, unbiased: true })[0]!;

/** The smallest graph that breaks a law, with what it did. */
const report = async (seed: number, planted: Planted): Promise<string> => {
  const property = fc.asyncProperty(graphs, async spec => {
    const { broken } = await simulate(spec, planted);
    if (broken !== undefined) throw new Error(broken.law);
  });
  const { counterexample } = await fc.check(property, { seed, numRuns: 1, unbiased: true });
  const spec = counterexample?.[0] ?? graphOf(seed);
  const { broken, trace } = await simulate(spec, planted);
  return (
    `${broken?.law ?? 'nothing'}: ${broken?.what ?? ''}\n` +
    `  replay: MILLRACE_SEED=${seed} npx vitest run test/laws/simulation.test.ts\n` +
    `  smallest graph: ${JSON.stringify(spec)}\n  what it did:\n    ${trace.slice(-80).join('\n    ')}`
  );
};

const play = async (seed: number, planted: Planted = {}): Promise<World> => simulate(graphOf(seed), planted);

const seeds = (from: number, many: number) => Array.from({ length: many }, (_, i) => from + i);

describe('whatever goes wrong in a graph, it keeps all promises once it has healed', () => {
  const seen = new Set<Sight>();
  const parts =
    only === undefined ? seeds(0, 10).map(i => seeds(first + (i * count) / 10, count / 10)) : [[Number(only)]];

  test.each(parts.map(part => [part[0], part.at(-1), part] as const))('seeds %i to %i', async (_, __, part) => {
    for (const seed of part) {
      const world = await play(seed);
      if (world.broken !== undefined) throw new Error(await report(seed, {}));
      for (const sight of world.seen) seen.add(sight);
    }
  });

  test.skipIf(only !== undefined)('and everything that can go wrong has', () => {
    expect(sights.filter(sight => !seen.has(sight))).toEqual([]);
  });

  test('two runs of one seed do the same', async () => {
    for (const seed of only === undefined ? seeds(first, 100) : [Number(only)]) {
      const [once, again] = [await play(seed), await play(seed)];
      expect(once.trace).not.toEqual([]);
      expect(again.trace).toEqual(once.trace);
    }
  });
});

describe.skipIf(only !== undefined)('a broken part is found', () => {
  /** Plays graphs with it until one breaks that law: its seed. */
  const breaks = async (law: LawId, planted: Planted): Promise<number> => {
    const others = new Set<LawId>();
    for (const seed of seeds(first, 400)) {
      const { broken } = await play(seed, planted);
      if (broken?.law === law) return seed;
      if (broken !== undefined) others.add(broken.law);
    }
    throw new Error(`it breaks ${[...others].join() || 'nothing'}`);
  };

  const stages: Record<keyof typeof brokenStages, LawId> = {
    losesOnStop: 'S4',
    swallowsNack: 'X1',
    acksEarly: 'X1',
    dropsUnderPressure: 'X1',
    duplicates: 'C4',
    reorders: 'S6',
    truncates: 'S5',
    dropsUncounted: 'X1',
    waitsForMore: 'L1',
    losesWakeUp: 'L1',
    settlesTwice: 'S1',
    leavesTimer: 'L3',
    errors: 'L3',
    completesEarly: 'L3',
  };
  test.each(Object.entries(stages))('a stage that breaks a promise: %s, %s', async (name, law) => {
    await breaks(law, { stage: brokenStages[name as keyof typeof brokenStages] });
  });

  const channels: Record<keyof typeof brokenChannels, LawId> = {
    overflows: 'X1',
    forgets: 'X1',
    queuesAgain: 'S6',
    lastInFirstOut: 'S6',
    repeats: 'X1',
    leaks: 'X1',
    mangles: 'S5',
  };
  test.each(Object.entries(channels))('a channel that breaks a promise: %s, %s', async (name, law) => {
    await breaks(law, { memoryChannel: brokenChannels[name as keyof typeof brokenChannels] });
  });

  const sinks: Record<keyof typeof brokenSinks, LawId> = {
    waitsForNothing: 'S4',
    swallowsErrors: 'S4',
    writesTwice: 'C4',
    givesUp: 'L1',
  };
  test.each(Object.entries(sinks))('a sink that breaks a promise: %s, %s', async (name, law) => {
    await breaks(law, { createSink: brokenSinks[name as keyof typeof brokenSinks] });
  });

  test('and shown by a small graph, its seed and what it did', async () => {
    const planted = { stage: brokenStages.reorders };
    const seed = await breaks('S6', planted);
    const message = await report(seed, planted);
    expect(message).toMatch(/^S6: i\ds\d\.\d+ .* came to .* after .*, which was accepted later\n/);
    expect(message).toContain(`MILLRACE_SEED=${seed} npx vitest run test/laws/simulation.test.ts`);
    expect(message).toMatch(/smallest graph: .*"stages":\[\].*\n {2}what it did:\n {4}0 i\ds\d emits /);
  });

  test('and a sound channel of other make is not', async () => {
    for (const seed of seeds(first, 100))
      if ((await play(seed, { memoryChannel: soundChannel })).broken !== undefined)
        throw new Error(await report(seed, { memoryChannel: soundChannel }));
  });
});
