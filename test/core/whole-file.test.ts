import { describe, expect, test } from 'vitest';
import { readWhole, replaceWhole } from '../../src/core/whole-file.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { CrashDisk } from '../crash/crash-disk.ts';

/** A file that was replaced twice, the second time perhaps not to its end. */
const replaced = async (seed: number) => {
  const disk = new CrashDisk(seededRandom(seed));
  await replaceWhole(disk, '/d/f', 'old'.repeat(500));
  return disk;
};

describe('files that are replaced as a whole', () => {
  test('there is none at first', async () => {
    expect(await readWhole(new CrashDisk(seededRandom(1)), '/d/f')).toBeUndefined();
  });

  test('what was replaced survives a power cut', async () => {
    for (let seed = 0; seed < 200; seed++) {
      const disk = await replaced(seed);
      expect(String(await readWhole(disk.cut(seededRandom(seed)), '/d/f'))).toBe('old'.repeat(500));
    }
  });

  test('a power cut at any time leaves the old text or the new one', async () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 400; seed++) {
      const disk = await replaced(seed);
      const writing = replaceWhole(disk, '/d/f', 'new');
      for (let turns = seed % 60; turns > 0; turns--) await Promise.resolve();
      const left = String(await readWhole(disk.cut(seededRandom(seed)), '/d/f'));
      seen.add(left.slice(0, 3));
      expect([left, left.length]).toEqual(left === 'new' ? ['new', 3] : ['old'.repeat(500), 1500]);
      await writing;
    }
    expect(seen).toEqual(new Set(['old', 'new']));
  });
});
