import './determinism.ts';
import { describe, expect, test } from 'vitest';
import { playDamage } from './log-damage.ts';
import { Lab } from './log-lab.ts';
import { mutants, planted } from './log-mutants.ts';

/** Seeds after which a fault counts as not found. */
const most = 300;

describe('a log is caught that', () => {
  test.each(Object.entries(mutants))(
    '%s',
    async (name, { patches, by }) => {
      const { remove, ...subject } = await planted(patches);
      let images = 0;
      let found: string | undefined;
      let seed = 0;
      while (found === undefined && ++seed <= most) {
        const lab = new Lab(seed, subject);
        await (by === 'crash' ? lab.run() : playDamage(seed, subject)).catch((thrown: unknown) => {
          found = (thrown as Error).message;
        });
        images += by === 'crash' ? lab.images : 15;
      }
      await remove();
      if (process.env['CRASH_SHOW'] !== undefined)
        console.log(`${name}: seed ${seed}, ${images} images: ${found?.slice(0, 200)}`);
      expect(found, `not found in ${images} images`).toBeDefined();
      // What it was caught by is a promise, and no accident of the planting.
      expect(found).not.toMatch(/SyntaxError|ReferenceError|TypeError/);
    },
    // Some are found late: all of their images take a busy machine minutes.
    600_000,
  );
});
