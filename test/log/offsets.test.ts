import { describe, expect, it, test } from 'vitest';
import { FakeClock, seededRandom } from '../../src/testing/index.ts';
import { Batch, event } from '../../src/core/event.ts';
import { EventLog, type LogOptions } from '../../src/log/log.ts';
import { encodeOffset, Offsets } from '../../src/log/offsets.ts';
import { CrashDisk } from '../crash/crash-disk.ts';

const options: LogOptions = {
  dataDirs: ['/c'],
  checkpointDir: '/c',
  fsync: 'commit',
  maxFileSize: 4096,
  minimumRequiredSpace: 0,
  checkpointInterval: 1000,
};

const open = (disk: CrashDisk) =>
  EventLog.open(options, {
    disk,
    clock: new FakeClock(),
    report: problem => {
      throw problem;
    },
  });

const put = (log: EventLog, key: string, value: string) =>
  new Promise<number>((resolve, reject) =>
    log.append(Batch.of([event('x'.repeat(500))]).upTo({ key, value }), ({ seq }) => resolve(seq), reject),
  );

describe('offsets', () => {
  it('are those of what is safe, after any crash, however many files there were since', async () => {
    const disk = new CrashDisk(seededRandom(1));
    const log = await open(disk);
    await put(log, 'old', '1');
    for (let i = 0; i < 40; i++) {
      const seq = await put(log, 'moves', String(i));
      log.done({ start: seq, end: seq + 1, bytes: 500 });
      const image = await open(disk.cut(seededRandom(i)));
      expect([...image.offsets]).toEqual([
        ['old', '1'],
        ['moves', String(i)],
      ]);
      await image.close();
    }
    log.done({ start: 0, end: 1, bytes: 500 });
    await log.close();
    // Everything is done with, and still it is known how far they had come.
    const again = await open(disk);
    expect(again.events).toBe(0);
    expect([...again.offsets].sort()).toEqual([
      ['moves', '39'],
      ['old', '1'],
    ]);
    await again.close();
    const oncemore = await open(disk);
    expect(oncemore.offsets.get('moves')).toBe('39');
    await oncemore.close();
  });

  it('are not those of what was not confirmed', async () => {
    const disk = new CrashDisk(seededRandom(1));
    const log = await open(disk);
    await put(log, 'a', '1');
    disk.fault = ({ name }) => (name === 'sync' ? 'EIO' : undefined);
    await expect(put(log, 'a', '2')).rejects.toThrow('EIO');
    expect(log.offsets.get('a')).toBe('1');
    disk.fault = undefined;
    await log.close();
    const again = await open(disk);
    expect(again.offsets.get('a')).toBe('1');
    await again.close();
  });
});

test('the ones that moved last are remembered', () => {
  const offsets = new Offsets();
  for (let i = 0; i < 5000; i++) offsets.add({ key: `k${i}`, value: 'v'.repeat(30) });
  expect(offsets.size).toBe(4096);
  const own = encodeOffset({ key: 'own', value: '1' });
  const bytes = offsets.encode(own);
  expect(bytes.length).toBeLessThanOrEqual(0xffff);
  const read = new Offsets();
  read.read(bytes);
  expect([...read.keys()].slice(-3)).toEqual(['k4998', 'k4999', 'own']);
  expect(encodeOffset({ key: 'x'.repeat(256), value: '' })).toHaveLength(0);
});

test('go with the last part of a batch, and with what a stage makes of it', () => {
  const offset = { key: 'f', value: '10' };
  const batch = Batch.of([event('a'), event('b'), event('c')]).upTo(offset);
  const [first, rest] = batch.split(1);
  expect([first.sourceOffset, rest.sourceOffset]).toEqual([undefined, offset]);
  expect(batch.only(batch.events.slice(0, 1)).sourceOffset).toBe(offset);
  expect(Batch.concat([batch, Batch.of([event('d')])]).sourceOffset).toBeUndefined();
  expect(batch.placed([]).sourceOffset).toBeUndefined();
});
