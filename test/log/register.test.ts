import { expect, test } from 'vitest';
import { longestValue, Register } from '../../src/log/register.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { CrashDisk } from '../crash/crash-disk.ts';

const path = '/c/acked.checkpoint';

const open = async (disk: CrashDisk, value: () => string = () => '') =>
  Register.open(disk, path, () => Buffer.from(value()));

/** A disk with the directory, and a register whose value the test decides. */
const fresh = async () => {
  const disk = new CrashDisk(seededRandom(1));
  await disk.makeDirectory('/c');
  const state = { value: '' };
  const register = await open(disk, () => state.value);
  await disk.syncDirectory('/c');
  return { disk, register, state };
};

/** What is found after power cuts. */
const found = async (disk: CrashDisk): Promise<Set<string | undefined>> => {
  const values = new Set<string | undefined>();
  for (let seed = 0; seed < 100; seed++) values.add((await open(disk.cut(seededRandom(seed)))).found?.toString());
  return values;
};

test('nothing is found in a new one', async () => {
  const { register } = await fresh();
  expect(register.found).toBeUndefined();
  expect(register.damaged).toBe(0);
});

test('what was written is there after the process has ended, what was synced after a power cut', async () => {
  const { disk, register, state } = await fresh();
  for (const value of ['a', 'b']) {
    state.value = value;
    await register.sync();
  }
  state.value = 'c';
  await register.write();
  expect((await open(disk.kill(seededRandom(1)))).found?.toString()).toBe('c');
  expect(await found(disk)).toEqual(new Set(['b', 'c']));
});

test('a power cut in the middle of a long value leaves the one before, whole', async () => {
  const { disk, register, state } = await fresh();
  const values = ['1', '2', '3'].map(digit => digit.repeat(longestValue));
  for (const value of values.slice(0, 2)) {
    state.value = value;
    await register.sync();
  }
  state.value = values[2]!;
  await register.write();
  expect(await found(disk)).toEqual(new Set(values.slice(1)));
});

test('the value is made when it is its turn: many that ask at once get one write', async () => {
  const { disk, register, state } = await fresh();
  let writes = 0;
  disk.happened = ({ name }) => (writes += Number(name === 'write'));
  state.value = 'early';
  const asked = [register.write(), register.write(), register.write()];
  state.value = 'late';
  await Promise.all(asked);
  expect(writes).toBe(1);
  expect((await open(disk)).found?.toString()).toBe('late');
});

test('after a sync that failed the next one writes anew, and the other slot is not touched before', async () => {
  const { disk, register, state } = await fresh();
  state.value = 'safe';
  await register.sync();
  state.value = 'tried';
  disk.fault = ({ name }) => (name === 'sync' ? 'EIO' : undefined);
  await expect(register.sync()).rejects.toThrow('EIO');
  disk.fault = undefined;
  for (const value of await found(disk)) expect(['safe', 'tried']).toContain(value);
  await register.sync();
  expect(await found(disk)).toEqual(new Set(['tried']));
});

test('a damaged slot is told, and the other one counts', async () => {
  const { disk, register, state } = await fresh();
  for (const value of ['older', 'newer']) {
    state.value = value;
    await register.sync();
  }
  await register.close();
  const bytes = disk.files.get(path) as Buffer;
  const newer = bytes.indexOf('newer');
  const flip = (...at: number[]) => {
    const copy = Buffer.from(bytes);
    for (const one of at) copy[one] = (copy[one] as number) ^ 1;
    disk.put(path, copy);
    return open(disk);
  };
  expect(await flip(newer)).toMatchObject({ found: Buffer.from('older'), damaged: 1 });
  expect(await flip(newer, bytes.indexOf('older'))).toMatchObject({ found: undefined, damaged: 2 });
});

test('no file stays open when it can not be read', async () => {
  const { disk, register } = await fresh();
  await register.close();
  disk.fault = ({ name }) => (name === 'read' ? 'EIO' : undefined);
  await expect(open(disk)).rejects.toThrow('EIO');
  expect(disk.opened.size).toBe(0);
});
