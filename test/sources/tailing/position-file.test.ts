import { mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  formatPositions,
  loadPositions,
  parsePositions,
  savePositions,
} from '../../../src/sources/tailing/position-file.ts';
import { systemDisk } from '../../../src/core/disk.ts';
import { recordingLog, seededRandom } from '../../../src/testing/index.ts';
import { CrashDisk } from '../../crash/crash-disk.ts';

const position = fc.record({
  inode: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  pos: fc.maxSafeNat(),
  file: fc.oneof(
    fc.string({ unit: 'grapheme' }),
    fc.constantFrom('/a/b.log', '"inode":5', "<a>='&.log", '\\"inode":7'),
  ),
});

describe('position file', () => {
  it('is read as it was written, with inodes of 64 bits and any path', () => {
    fc.assert(
      fc.property(fc.array(position), positions => {
        expect(parsePositions(formatPositions(positions))).toEqual({ positions });
      }),
    );
  });

  it('is what Flume writes', () => {
    expect(formatPositions([{ inode: 2427145n, pos: 6, file: '/abs/path' }])).toBe(
      '[{"inode":2427145,"pos":6,"file":"/abs/path"}]',
    );
    expect(formatPositions([{ inode: 1n, pos: 0, file: "/a<b>&c='d'" }])).toBe(
      '[{"inode":1,"pos":0,"file":"/a\\u003cb\\u003e\\u0026c\\u003d\\u0027d\\u0027"}]',
    );
    expect(formatPositions([])).toBe('');
  });

  it('takes keys in any order, white space, and keys it does not know', () => {
    const text = ' [ { "pos" : 6 , "extra": {"a": [1]}, "file" : "/a" ,\n "inode" : 7 } ] \n';
    expect(parsePositions(text)).toEqual({ positions: [{ inode: 7n, pos: 6, file: '/a' }] });
  });

  it.each([
    ['[{"inode":1,"pos":2,"file":"/a"},{"inode":1,"pos":-2,"file":"/b"}]', 1, /1 of 2 entries/],
    ['[{"inode":1.5,"pos":2,"file":"/a"}]', 0, /JSON|1 of 1/],
    ['[{"inode":1,"pos":"2","file":"/a"}]', 0, /1 of 1/],
    ['[null, 1, "x", {"inode":1,"pos":2}]', 0, /4 of 4/],
    ['{"inode":1,"pos":2,"file":"/a"}', 0, /an array/],
    ['[{"inode":1,"pos":2,"file":"/a"}', 0, /JSON/],
  ])('says what is wrong with %s and keeps what is sound', (text, sound, problem) => {
    const parsed = parsePositions(text);
    expect(parsed.positions).toHaveLength(sound);
    expect(parsed.problem).toMatch(problem);
  });

  it('has evidence beside it, which is read as it was written', () => {
    const fingerprint = fc.record({ length: fc.nat(1024), hash: fc.base64String() });
    const evidence = fc.record({
      born: fc.bigInt({ min: 0n, max: 2n ** 63n }),
      changed: fc.bigInt({ min: 0n, max: 2n ** 63n }),
      at: fc.maxSafeNat(),
      head: fingerprint,
      mark: fingerprint,
      // Versions before this one wrote none.
      size: fc.option(fc.maxSafeNat(), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(fc.tuple(position, fc.option(evidence, { nil: undefined }))), entries => {
        const positions = entries.map(([one, known]) => (known === undefined ? one : { ...one, evidence: known }));
        expect(parsePositions(formatPositions(positions, true))).toEqual({ positions });
        expect(parsePositions(formatPositions(positions))).toEqual({ positions: entries.map(([one]) => one) });
      }),
    );
  });

  describe('of which a crash left only one new', () => {
    const none = { length: 0, hash: '' };
    const at = (pos: number, inode = 1n) => ({
      inode,
      pos,
      file: '/a',
      evidence: { born: 5n, changed: 6n, at: pos, head: none, mark: none },
    });
    const loaded = async (age: 'older' | 'newer', pos: number) => {
      const dir = mkdtempSync(join(tmpdir(), 'positions-'));
      try {
        const path = join(dir, 'p.json');
        await savePositions(systemDisk, path, [at(pos)]);
        writeFileSync(`${path}.fingerprints`, formatPositions([at(0)], true));
        const when = age === 'older' ? 1 : Date.now() / 1000 + 10;
        utimesSync(`${path}.fingerprints`, when, when);
        return (await loadPositions(systemDisk, path, recordingLog(), 0)).positions;
      } finally {
        rmSync(dir, { recursive: true });
      }
    };

    it('counts as far as it is sound', async () => {
      // The file was emptied, and the crash came between the two: its old position must not count.
      expect(await loaded('newer', 100)).toEqual([at(0)]);
      // Flume went on meanwhile.
      expect(await loaded('older', 100)).toEqual([{ ...at(100), evidence: at(0).evidence }]);
    });
  });

  it('T23 whatever a crash leaves of it is one of the last two that were written, and no damage', async () => {
    const none = { length: 0, hash: '' };
    const at = (pos: number) => [
      { inode: 1n, pos, file: '/a', evidence: { born: 5n, changed: 6n, at: pos, head: none, mark: none } },
    ];
    const seen = new Set<string>();
    for (let seed = 1; seed <= 60; seed++) {
      const disk = new CrashDisk(seededRandom(seed));
      const images: { readonly pos: number; readonly begun: number; readonly disk: CrashDisk }[] = [];
      let [pos, begun] = [0, 0];
      disk.happened = () => {
        const random = seededRandom(seed + images.length);
        images.push({ pos, begun, disk: random() < 0.5 ? disk.cut(random) : disk.kill(random) });
      };
      for (begun = 1; begun <= 4; pos = begun++) await savePositions(disk, '/p/p.json', at(begun));
      for (const { pos: last, begun: next, disk: left } of images) {
        const log = recordingLog();
        const { positions } = await loadPositions(left, '/p/p.json', log, 0);
        const found = positions[0]?.pos ?? 0;
        expect({ seed, found: [last, next].includes(found), said: log.entries }).toEqual({
          seed,
          found: true,
          said: [],
        });
        seen.add(found === next ? 'new' : 'old');
      }
    }
    expect(seen).toEqual(new Set(['old', 'new']));
  });

  it('never throws on any text', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), text => void parsePositions(text)));
  });

  it('is replaced, and read again', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'positions-'));
    try {
      const path = join(dir, 'new', 'p.json');
      const one = { inode: 1n, pos: 5, file: '/a' };
      await savePositions(systemDisk, path, [{ inode: 9n, pos: 1, file: '/old' }]);
      await savePositions(systemDisk, path, [one]);
      expect(readFileSync(path, 'utf8')).toBe(formatPositions([one]));
      expect((await loadPositions(systemDisk, path, recordingLog(), 0)).positions).toEqual([one]);
      writeFileSync(`${path}.tmp`, 'left behind by a crash');
      await savePositions(systemDisk, path, []);
      expect(readFileSync(path, 'utf8')).toBe('');
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
