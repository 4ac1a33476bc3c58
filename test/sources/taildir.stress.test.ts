import { appendFileSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { dir, Tail } from './tailing/tail.ts';

// What went wrong elsewhere once in ten runs or less: so it is done a hundred times, each time with other timing.

const textOf = (lines: readonly string[]) => lines.map(line => `${line}\n`).join('');

/** Each line once, whatever the order of files. */
const expectExactly = (lines: readonly string[], expected: readonly string[], what: string) => {
  const left = new Set(expected);
  const repeated = lines.filter(line => !left.delete(line));
  expect({ what, repeated, lost: [...left] }).toEqual({ what, repeated: [], lost: [] });
};

describe('T25', () => {
  it('a slow output and frequent rotation, a hundred times', async () => {
    for (let seed = 1; seed <= 100; seed++) {
      const random = seededRandom(seed);
      const some = (most: number) => Math.floor(random() * most);
      const folder = join(dir, String(seed));
      mkdirSync(folder);
      const path = join(folder, 'app.log');
      const tail = new Tail(
        {
          filegroups: { f: `${folder}/app\\.log.*` },
          positionFile: join(folder, 'positions.json'),
          batchSize: 1 + some(20),
          writePosInterval: 1 + some(20),
          pollInterval: 1 + some(20),
        },
        async () => {
          if (random() < 0.5) await sleep(some(3));
        },
      );
      const all: string[] = [];
      for (let rotation = 0; rotation < 5; rotation++) {
        const lines = Array.from({ length: 20 }, (_, i) => `${rotation} ${i}`);
        const cut = some(20);
        appendFileSync(path, textOf(lines.slice(0, cut)));
        if (random() < 0.7) await sleep(some(5));
        // The writer goes on in the file that it has open, whatever its name is.
        for (let n = rotation; n > 0; n--) renameSync(`${path}.${n}`, `${path}.${n + 1}`);
        renameSync(path, `${path}.1`);
        appendFileSync(`${path}.1`, textOf(lines.slice(cut)));
        all.push(...lines);
      }
      await tail.until(all.length);
      expectExactly(await tail.stop(), all, `seed ${seed}`);
      rmSync(folder, { recursive: true });
    }
  });

  it('a thousand files, of which one is rotated, a hundred times', async () => {
    const random = seededRandom(1);
    const paths = Array.from({ length: 1000 }, (_, i) => join(dir, `${i}.log`));
    for (const path of paths) writeFileSync(path, textOf([`${path} is new`]));
    const all = paths.map(path => `${path} is new`);
    const lines: string[] = [];
    for (let life = 0; life < 10; life++) {
      const tail = new Tail({ filegroups: { f: `${dir}/.*\\.log(\\.\\d+)?` }, batchSize: 50 });
      await tail.until(all.length - lines.length);
      for (let rotation = 0; rotation < 10; rotation++) {
        const n = 10 * life + rotation;
        const path = paths[Math.floor(random() * paths.length)]!;
        const old = Array.from({ length: 50 }, (_, i) => `${n} old ${i}`);
        const late = Array.from({ length: 50 }, (_, i) => `${n} late ${i}`);
        const fresh = Array.from({ length: 50 }, (_, i) => `${n} new ${i}`);
        appendFileSync(path, textOf(old));
        renameSync(path, `${path}.${n}`);
        appendFileSync(`${path}.${n}`, textOf(late));
        if (random() < 0.5) await sleep(random() * 5);
        writeFileSync(path, textOf(fresh));
        all.push(...old, ...late, ...fresh);
        // The next one comes while this one is still being read, or not.
        if (random() < 0.5) await tail.until(all.length - lines.length);
      }
      // Now and then it is stopped in the middle of it.
      if (random() < 0.5) await tail.until(all.length - lines.length);
      lines.push(...(await tail.stop()));
    }
    const rest = new Tail({ filegroups: { f: `${dir}/.*\\.log(\\.\\d+)?` } });
    await rest.until(all.length - lines.length);
    lines.push(...(await rest.stop()));
    expectExactly(lines, all, 'all of them');
  });
});
