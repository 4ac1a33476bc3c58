import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { isMissing, systemDisk, writeAt } from '../../src/core/disk.ts';

let dir: string;
beforeEach(() => (dir = fs.mkdtempSync(join(tmpdir(), 'millrace-disk-'))));
afterEach(() => {
  vi.restoreAllMocks();
  fs.rmSync(dir, { recursive: true, force: true });
});

describe('the disk', () => {
  it('reads, writes, cuts and tells sizes', async () => {
    const path = join(dir, 'file');
    const file = await systemDisk.open(path, 'write');
    await file.write([Buffer.from('hello'), Buffer.alloc(0), Buffer.from(' world')], 2);
    await file.sync();
    expect(await file.size()).toBe(13);
    const bytes = Buffer.alloc(20, 'x');
    expect(await file.read(bytes, 2)).toBe(11);
    expect(bytes.toString('latin1', 0, 12)).toBe('hello worldx');
    expect(await file.read(bytes, 100)).toBe(0);
    await file.truncate(4);
    await file.close();
    expect(fs.readFileSync(path, 'latin1')).toBe('\0\0he');
    await systemDisk.rename(path, `${path}2`);
    expect(await systemDisk.list(dir)).toEqual(['file2']);
    await systemDisk.syncDirectory(dir);
    await systemDisk.remove(`${path}2`);
    expect(await systemDisk.list(dir)).toEqual([]);
    expect(await systemDisk.free(dir)).toBeGreaterThan(0);
  });

  it('asks the system to sync each write of a file that is opened so', async () => {
    const open = vi.spyOn(fs.promises, 'open');
    const path = join(dir, 'file');
    const file = await systemDisk.open(path, 'synced');
    await file.write([Buffer.from('hello')], 0);
    await file.close();
    expect(fs.readFileSync(path, 'latin1')).toBe('hello');
    expect((open.mock.calls[0]?.[1] as number) & fs.constants.O_DSYNC).toBe(fs.constants.O_DSYNC);
  });

  it('makes directories that are safe, each in the one above it', async () => {
    const open = vi.spyOn(fs.promises, 'open');
    await systemDisk.makeDirectory(join(dir, 'a/b/c'));
    expect(open.mock.calls.map(([path]) => path)).toEqual([join(dir, 'a/b'), join(dir, 'a'), dir]);
    open.mockClear();
    await systemDisk.makeDirectory(join(dir, 'a/b/c'));
    expect(open).not.toHaveBeenCalled();
  });

  it('says which path, and what to do', async () => {
    const missing = await systemDisk.open(join(dir, 'none'), 'read').catch((error: unknown) => error);
    expect(missing).toMatchObject({
      code: 'MR_IO',
      message: expect.stringMatching(/none: ENOENT.*Create it/) as string,
    });
    expect(isMissing(missing)).toBe(true);
    const file = join(dir, 'file');
    fs.writeFileSync(file, '');
    const other = await systemDisk.list(file).catch((error: unknown) => error);
    expect(other).toMatchObject({ code: 'MR_IO', message: expect.stringContaining('ENOTDIR') as string });
    expect(isMissing(other)).toBe(false);
    expect(await systemDisk.list(join(dir, 'none'))).toEqual([]);
  });

  it('writes all of it, in however many steps', async () => {
    const real = fs.writev;
    vi.spyOn(fs, 'writev').mockImplementation(((
      fd: number,
      pieces: readonly Buffer[],
      position: number,
      done: () => void,
    ) => real(fd, [Buffer.concat(pieces).subarray(0, 3)], position, done)) as typeof fs.writev);
    const fd = fs.openSync(join(dir, 'file'), 'w');
    await writeAt(fd, [Buffer.from('ab'), Buffer.from('cdefg'), Buffer.from('h')], 1);
    fs.closeSync(fd);
    expect(fs.readFileSync(join(dir, 'file'), 'latin1')).toBe('\0abcdefgh');
  });
});
