import './determinism.ts';
import { describe, expect, test } from 'vitest';
import { EventLog } from '../../src/log/log.ts';
import { LogReader } from '../../src/log/reader.ts';
import { Lab, sights, type Sight } from './log-lab.ts';

// CRASH_SEED=17 npx vitest run test/crash/log-crash.test.ts plays one history; CRASH_SEED=1000-5000 plays many.
const [first = 1, last = first] = (process.env['CRASH_SEED'] ?? '1-300').split('-').map(Number);
const chosen = process.env['CRASH_SEED'] !== undefined;
const seeds = Array.from({ length: last - first + 1 }, (_, i) => first + i);

const play = async (seed: number): Promise<Lab> => {
  const lab = new Lab(seed, { EventLog, LogReader });
  try {
    await lab.run();
  } catch (thrown) {
    const replay = `replay: CRASH_SEED=${seed} npx vitest run test/crash/log-crash.test.ts`;
    throw new Error(`${replay}\n${(thrown as Error).message}`, { cause: thrown });
  }
  return lab;
};

describe('B1 B2 B7 B15 B17 whatever a crash leaves of a log, it opens, has all that was confirmed, and counts it right', () => {
  const seen = new Set<Sight>();
  let images = 0;
  const size = Math.ceil(seeds.length / 10);
  const parts = Array.from({ length: Math.ceil(seeds.length / size) }, (_, i) => seeds.slice(i * size, (i + 1) * size));

  test.each(parts.map(part => [part[0], part.at(-1), part] as const))('seeds %i to %i', async (_, __, part) => {
    for (const seed of part) {
      const lab = await play(seed);
      images += lab.images;
      for (const sight of lab.seen) seen.add(sight);
    }
  });

  test.skipIf(chosen)('there were 10,000 images, and everything that can happen was seen', () => {
    expect(images).toBeGreaterThanOrEqual(10_000);
    expect(sights.filter(sight => !seen.has(sight))).toEqual([]);
  });

  test('the same seed, the same history', async () => {
    for (const seed of seeds.slice(0, 20)) {
      const [once, again] = [await play(seed), await play(seed)];
      expect(once.trace.length).toBeGreaterThan(10);
      expect(again.trace).toEqual(once.trace);
    }
  });
});
