import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { CrashDisk } from './crash-disk.ts';

const sector = (digit: string) => Buffer.alloc(512, digit);

const withDirectory = async (seed = 1): Promise<CrashDisk> => {
  const disk = new CrashDisk(seededRandom(seed));
  await disk.makeDirectory('/d');
  return disk;
};

/** A file with two synced sectors of a, under a synced name. */
const withFile = async (seed = 1) => {
  const disk = await withDirectory(seed);
  const file = await disk.open('/d/f', 'write');
  await file.write([Buffer.alloc(1024, 'a')], 0);
  await file.sync();
  await disk.syncDirectory('/d');
  return { disk, file };
};

/** What power cuts leave of a file, as texts of one letter per sector. */
const outcomes = (disk: CrashDisk, path = '/d/f'): Set<string> =>
  new Set(
    Array.from({ length: 400 }, (_, seed) => {
      const bytes = disk.cut(seededRandom(seed)).files.get(path);
      if (bytes === undefined) return 'none';
      const sectors = Array.from({ length: Math.ceil(bytes.length / 512) }, (__, i) =>
        bytes.subarray(i * 512, (i + 1) * 512),
      );
      return sectors.map(one => (one.every(byte => byte === one[0]) ? String.fromCharCode(one[0]!) : '?')).join('');
    }),
  );

const namesAfter = (disk: CrashDisk): Set<string> =>
  new Set(Array.from({ length: 200 }, (_, seed) => [...disk.cut(seededRandom(seed)).files.keys()].sort().join(' ')));

describe('a power cut', () => {
  test('takes nothing that was synced', async () => {
    const { disk } = await withFile();
    expect(outcomes(disk)).toEqual(new Set(['aa']));
  });

  test('leaves of each sector any content since the sync, never half of one', async () => {
    const { disk, file } = await withFile();
    await file.write([Buffer.alloc(300, 'b'), Buffer.alloc(724, 'b')], 0);
    await file.write([sector('c')], 512);
    expect(outcomes(disk)).toEqual(new Set(['aa', 'ab', 'ac', 'ba', 'bb', 'bc']));
  });

  test('takes nothing of a write to a file that was opened synced, but what was written before to other sectors', async () => {
    const { disk, file } = await withFile();
    await file.write([sector('b')], 0);
    const synced = await disk.open('/d/f', 'synced');
    await synced.write([sector('c'), sector('d')], 512);
    expect(outcomes(disk)).toEqual(new Set(['acd', 'bcd']));
  });

  test('leaves a file longer or not, and anything in what was not written back', async () => {
    const { disk, file } = await withFile();
    await file.write([sector('b'), sector('b')], 1024);
    expect(outcomes(disk)).toEqual(
      new Set(['aa', 'aabb', 'aab\0', 'aa\0b', 'aa\0\0', 'aa?b', 'aab?', 'aa?\0', 'aa\0?', 'aa??']),
    );
  });

  test('undoes a truncation, or not', async () => {
    const { disk, file } = await withFile();
    await file.truncate(512);
    // What goes may be emptied first.
    expect(outcomes(disk)).toEqual(new Set(['a', 'aa', 'a\0']));
  });

  test('takes a file whose name was not synced, whatever was in it', async () => {
    const disk = await withDirectory();
    const file = await disk.open('/d/f', 'write');
    await file.write([sector('a')], 0);
    await file.sync();
    expect(outcomes(disk)).toEqual(new Set(['none', 'a']));
  });

  test('leaves of a rename the old name, the new one, or both', async () => {
    const { disk } = await withFile();
    await disk.rename('/d/f', '/d/g');
    expect(namesAfter(disk)).toEqual(new Set(['/d/f', '/d/g', '/d/f /d/g']));
    await disk.syncDirectory('/d');
    expect(namesAfter(disk)).toEqual(new Set(['/d/g']));
  });

  test('brings back what was removed, or what was replaced', async () => {
    const { disk } = await withFile();
    const other = await disk.open('/d/g', 'write');
    await other.write([sector('g')], 0);
    await other.sync();
    await disk.syncDirectory('/d');
    await disk.rename('/d/g', '/d/f');
    expect(outcomes(disk)).toEqual(new Set(['aa', 'g']));
    await disk.remove('/d/f');
    expect(outcomes(disk)).toEqual(new Set(['aa', 'g', 'none']));
  });

  test('is the same under the same seed', async () => {
    const { disk, file } = await withFile();
    await file.write([Buffer.alloc(5000, 'b')], 100);
    const images = [0, 0].map(seed => [...disk.cut(seededRandom(seed)).files.values()]);
    expect(images[1]).toEqual(images[0]);
  });
});

describe('the end of a process', () => {
  test('takes nothing, and makes nothing safe', async () => {
    const { disk, file } = await withFile();
    await file.write([sector('b')], 0);
    await disk.rename('/d/f', '/d/g');
    const left = disk.kill(seededRandom(1));
    expect([...left.files]).toEqual([['/d/g', Buffer.concat([sector('b'), sector('a')])]]);
    expect(outcomes(left, '/d/g')).toEqual(new Set(['none', 'aa', 'ba']));
  });

  test('is not felt by the one that goes on', async () => {
    const { disk, file } = await withFile();
    const left = disk.kill(seededRandom(1));
    await file.write([sector('b')], 0);
    expect(left.files.get('/d/f')).toEqual(Buffer.alloc(1024, 'a'));
  });
});

describe('a sync that fails', () => {
  test('drops what it likes, and the next one finds nothing to do', async () => {
    const left = new Set<string>();
    const seen = new Set<string>();
    for (let seed = 0; seed < 50; seed++) {
      const { disk, file } = await withFile(seed);
      await file.write([sector('b'), sector('b')], 0);
      disk.fault = ({ name }) => (name === 'sync' ? 'EIO' : undefined);
      await expect(file.sync()).rejects.toMatchObject({ code: 'MR_IO', cause: { code: 'EIO' } });
      disk.fault = undefined;
      await file.sync();
      const after = outcomes(disk);
      expect(after.size).toBe(1);
      left.add([...after][0]!);
      const bytes = Buffer.alloc(1);
      await file.read(bytes, 0);
      seen.add(bytes.toString());
    }
    expect(left).toEqual(new Set(['aa', 'ab', 'ba', 'bb']));
    expect(seen).toEqual(new Set(['a', 'b']));
  });

  test('of a directory forgets its changes', async () => {
    const left = new Set<string>();
    for (let seed = 0; seed < 30; seed++) {
      const { disk } = await withFile(seed);
      await disk.remove('/d/f');
      disk.fault = () => 'EIO';
      await expect(disk.syncDirectory('/d')).rejects.toThrow('EIO');
      disk.fault = undefined;
      await disk.syncDirectory('/d');
      for (const names of namesAfter(disk)) left.add(names);
    }
    expect(left).toEqual(new Set(['', '/d/f']));
  });
});

describe('faults', () => {
  test('a full disk takes a part, and nothing more', async () => {
    const disk = await withDirectory();
    disk.capacity = 6000;
    const file = await disk.open('/d/f', 'write');
    await expect(file.write([Buffer.alloc(10_000, 'a')], 0)).rejects.toMatchObject({ cause: { code: 'ENOSPC' } });
    expect(await file.size()).toBe(4096);
    expect(await disk.free('/d')).toBe(1904);
    disk.freeBytes = 7;
    expect(await disk.free('/d')).toBe(7);
  });

  test('a read-only disk can be read', async () => {
    const { disk } = await withFile();
    disk.readOnly = true;
    await expect(disk.open('/d/f', 'write')).rejects.toMatchObject({ cause: { code: 'EROFS' } });
    await expect(disk.remove('/d/f')).rejects.toMatchObject({ cause: { code: 'EROFS' } });
    const file = await disk.open('/d/f', 'read');
    const bytes = Buffer.alloc(2000);
    expect(await file.read(bytes, 1000)).toBe(24);
  });

  test('each call can be made to fail, and is then without effect, but for a part of a write', async () => {
    const { disk, file } = await withFile();
    disk.fault = ({ name }) => (name === 'read' || name === 'size' ? undefined : 'EIO');
    await expect(file.truncate(0)).rejects.toThrow('EIO');
    await expect(disk.rename('/d/f', '/d/g')).rejects.toThrow('EIO');
    await expect(disk.remove('/d/f')).rejects.toThrow('EIO');
    await expect(disk.open('/d/f', 'read')).rejects.toThrow('EIO');
    await expect(file.write([Buffer.alloc(2000, 'b')], 0)).rejects.toThrow('EIO');
    expect([...disk.files.keys()]).toEqual(['/d/f']);
    expect(disk.files.get('/d/f')?.toString()).toMatch(/^b*a*$/);
    await expect(file.close()).rejects.toThrow('EIO');
    expect(disk.opened.size).toBe(0);
  });

  test('a file that is closed, or open for reading, takes nothing', async () => {
    const { disk, file } = await withFile();
    const reading = await disk.open('/d/f', 'read');
    await expect(reading.write([sector('b')], 0)).rejects.toMatchObject({ cause: { code: 'EBADF' } });
    await file.close();
    await expect(file.sync()).rejects.toMatchObject({ cause: { code: 'EBADF' } });
  });

  test('a file that was removed can still be read by who has it open', async () => {
    const { disk, file } = await withFile();
    await disk.remove('/d/f');
    const bytes = Buffer.alloc(1);
    await file.read(bytes, 0);
    expect(bytes.toString()).toBe('a');
    await expect(disk.open('/d/f', 'read')).rejects.toMatchObject({ cause: { code: 'ENOENT' } });
  });
});

test('calls that overlap happen in any order, and whoever watches sees each before its caller does', async () => {
  const orders = new Set<string>();
  for (let seed = 0; seed < 20; seed++) {
    const { disk, file } = await withFile(seed);
    const order: string[] = [];
    disk.happened = ({ name }) => order.push(name);
    await Promise.all([
      file.write([sector('b')], 0).then(() => expect(order).toContain('write')),
      file.truncate(512).then(() => expect(order).toContain('truncate')),
    ]);
    orders.add(order.join(' '));
  }
  expect(orders).toEqual(new Set(['write truncate', 'truncate write']));
});
