import './determinism.ts';
import { expect, test } from 'vitest';
import { EventLog } from '../../src/log/log.ts';
import { LogReader } from '../../src/log/reader.ts';
import { playDamage } from './log-damage.ts';

// DAMAGE_SEED=17 npx vitest run test/crash/log-damage.test.ts plays one log and all that is done to it; DAMAGE_SEED=1-900 many.
const only = process.env['DAMAGE_SEED'];
const [from = 1, to = from] = (only ?? '1-120').split('-').map(Number);
const seeds = Array.from({ length: to - from + 1 }, (_, i) => from + i);
const sights = new Set<string>();
const parts = Array.from({ length: Math.ceil(seeds.length / 15) }, (_, i) => seeds.slice(i * 15, (i + 1) * 15));

test.each(parts.map(part => [part[0], part.at(-1), part] as const))(
  'damage costs no more than what was hit, is reported to the event, and alters nothing: seeds %i to %i',
  async (_, __, part) => {
    for (const seed of part)
      await playDamage(seed, { EventLog, LogReader }, sights).catch((thrown: unknown) => {
        const replay = `replay: DAMAGE_SEED=${seed} npx vitest run test/crash/log-damage.test.ts`;
        throw new Error(`${replay}\n${(thrown as Error).message}`, { cause: thrown });
      });
  },
);

test.skipIf(only !== undefined)('each kind of damage was seen to cost events, and not to', () => {
  expect([...sights].sort()).toEqual([
    'lost:  is cut at ',
    'lost:  is gone',
    'lost: a bit of byte  of  is flipped',
    'lost: the sector at  of  is overwritten',
    'nothing lost: checkpoint',
    'nothing lost: segment',
    'the last group is hit',
  ]);
});
