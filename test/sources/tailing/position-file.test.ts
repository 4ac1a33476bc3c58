import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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
import { recordingLog } from '../../../src/testing/index.ts';

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
