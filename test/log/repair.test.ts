import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { repairLog } from '../../src/log/repair.ts';
import type { Codec } from '../../src/log/codec.ts';
import { seededRandom } from '../../src/testing/seeded-random.ts';
import type { CrashDisk } from '../crash/crash-disk.ts';
import { bodies, codecWith, cut, deliver, flip, newDisk, plain, readAll, segmentsOf, writeLog } from './written-log.ts';

const written = async (more: Parameters<typeof writeLog>[1] = {}) => {
  const disk = newDisk();
  await writeLog(disk, more);
  return { disk, segments: segmentsOf(disk) };
};

const repair = (
  disk: CrashDisk,
  { dryRun = false, force = false, codec = plain }: { dryRun?: boolean; force?: boolean; codec?: Codec } = {},
) => repairLog(disk, { dataDirs: ['/log'], checkpointDir: '/log', codec, dryRun, force });

const snapshot = (disk: CrashDisk) => new Map([...disk.files].map(([path, bytes]) => [path, Buffer.from(bytes)]));

describe('repairLog', () => {
  it('does nothing to what is sound', async () => {
    const { disk } = await written({ done: [0, 3] });
    const before = [...snapshot(disk)].filter(([path]) => path.endsWith('.seg'));
    expect(await repair(disk)).toEqual({ replaced: [], gaps: [] });
    expect([...disk.files].filter(([path]) => path.endsWith('.seg'))).toEqual(before);
  });

  it.each([
    ['first', 128 + 40, 0],
    ['second', 900, 1],
  ])('keeps everything but the damaged batch, the %s of its segment', async (_, byte) => {
    const { disk, segments } = await written({ done: [0, 1] });
    flip(disk, segments[1]!, byte);
    const damaged = Buffer.from(disk.files.get(segments[1]!)!);
    const { gaps: before } = await readAll(disk);
    const [gap] = before;
    const { replaced, gaps } = await repair(disk);
    expect(gaps).toMatchObject([{ from: { seq: gap!.from.seq }, to: { seq: gap!.from.seq + 10 } }]);
    expect(replaced).toMatchObject([{ path: segments[1], aside: `${segments[1]}.damaged.1` }]);
    expect(disk.files.get(`${segments[1]}.damaged.1`)).toEqual(damaged);
    // It is as if it had been so: nothing to report, and what is left in order.
    expect((await readAll(disk)).gaps.filter(({ where }) => where !== undefined)).toEqual([]);
    const { bodies: read, reports, lost } = await deliver(disk);
    expect(reports).toEqual([]);
    expect(lost).toBe(0);
    expect(read).toEqual([...bodies(20, gap!.from.seq), ...bodies(gap!.to.seq, 400)]);
  });

  it('keeps what a segment with a damaged header has', async () => {
    const { disk, segments } = await written();
    flip(disk, segments[1]!, 33);
    flip(disk, segments.at(-1)!, 5);
    const { gaps, replaced } = await repair(disk);
    expect(gaps).toEqual([]);
    expect(replaced.map(({ path }) => path)).toEqual([segments[1], segments.at(-1)]);
    expect(await deliver(disk)).toMatchObject({ bodies: bodies(0, 400), reports: [], lost: 0 });
  });

  it('sets aside what cannot be read at all', async () => {
    const { disk, segments } = await written();
    const damaged = Buffer.alloc(3000, 7);
    disk.put(segments[1]!, damaged);
    const { gaps, replaced } = await repair(disk);
    expect(replaced).toMatchObject([{ path: segments[1], into: [] }]);
    expect(disk.files.get(replaced[0]!.aside)).toEqual(damaged);
    const { bodies: read, reports } = await deliver(disk);
    expect(read).toEqual([...bodies(0, gaps[0]!.from.seq), ...bodies(gaps[0]!.to.seq, 400)]);
    expect(reports).toEqual([]);
  });

  it('keeps what is before the cut in a segment that was cut off, in the middle or the last', async () => {
    for (const at of [1, -1]) {
      const { disk, segments } = await written();
      const path = segments.at(at)!;
      cut(disk, path, disk.files.get(path)!.length - 30);
      const { gaps } = await repair(disk);
      expect(gaps).toHaveLength(1);
      const { bodies: read, reports } = await deliver(disk);
      expect(read).toEqual([...bodies(0, gaps[0]!.from.seq), ...bodies(gaps[0]!.to.seq, 400)]);
      expect(reports).toEqual([]);
    }
  });

  it('keeps how far sources had come, also when the segment that says so is cut in two', async () => {
    // The last one damages batch 38 itself: its source reads it again.
    for (const [byte, first] of [
      [228, '38'],
      [900, '38'],
      [1500, '36'],
    ] as const) {
      const { disk, segments } = await written();
      flip(disk, segments.at(-1)!, byte);
      await repair(disk);
      expect(await deliver(disk)).toMatchObject({ reports: [], offsets: { 'source 0': first, 'source 1': '39' } });
    }
  });

  it('refuses when events are in no file, or the checkpoint is missing; with force it passes over them', async () => {
    const { disk, segments } = await written();
    disk.take(segments[1]!);
    const before = snapshot(disk);
    await expect(repair(disk)).rejects.toMatchObject({ code: 'MR_DATA_LOST' });
    expect(snapshot(disk)).toEqual(before);
    const { gaps } = await repair(disk, { force: true });
    const { bodies: read, reports } = await deliver(disk);
    expect(read).toEqual([...bodies(0, gaps[0]!.from.seq), ...bodies(gaps[0]!.to.seq, 400)]);
    expect(reports).toEqual([]);

    const { disk: other } = await written();
    other.take('/log/acked.checkpoint');
    await expect(repair(other)).rejects.toMatchObject({ code: 'MR_DATA_LOST' });
    expect(other.files.has('/log/acked.checkpoint')).toBe(false);
    await repair(other, { force: true });
    expect((await deliver(other)).bodies).toEqual(bodies(0, 400));
  });

  it('keeps a checkpoint whose slots are both damaged', async () => {
    const { disk } = await written({ done: [0] });
    const path = '/log/acked.checkpoint';
    for (const at of [30, 4096 + 30]) if (at < disk.files.get(path)!.length) flip(disk, path, at);
    const damaged = Buffer.from(disk.files.get(path)!);
    await repair(disk);
    expect(disk.files.get(`${path}.damaged.1`)).toEqual(damaged);
    expect(await deliver(disk)).toMatchObject({ bodies: bodies(0, 400), reports: [], lost: 0 });
  });

  it('only says what it would do, when it is asked to', async () => {
    const { disk, segments } = await written();
    flip(disk, segments[0]!, 700);
    flip(disk, segments[1]!, 3);
    disk.put(segments[2]!, Buffer.alloc(99, 1));
    const before = snapshot(disk);
    disk.readOnly = true;
    const would = await repair(disk, { dryRun: true });
    expect(snapshot(disk)).toEqual(before);
    disk.readOnly = false;
    expect(await repair(disk)).toMatchObject({ replaced: would.replaced });
  });

  it('goes no further when the disk refuses to read', async () => {
    const { disk, segments } = await written();
    flip(disk, segments[0]!, 700);
    let reads = 0;
    disk.fault = ({ name, path }) => (name === 'read' && path === segments[1] && reads++ > 0 ? 'EIO' : undefined);
    const before = snapshot(disk);
    await expect(repair(disk)).rejects.toMatchObject({ code: 'MR_IO' });
    expect(snapshot(disk)).toEqual(before);
  });

  it('copies what is compressed and encrypted as it is; without the key it touches nothing', async () => {
    process.env['REPAIR_TEST_KEY'] = randomBytes(32).toString('hex');
    const codec = codecWith({ compression: 'gzip', activeKey: 'k1', keys: { k1: 'env:REPAIR_TEST_KEY' } });
    const { disk, segments } = await written({ codec, maxFileSize: 2000 });
    flip(disk, segments[1]!, 700);
    flip(disk, segments[2]!, 40);
    const before = snapshot(disk);
    await expect(repair(disk)).rejects.toMatchObject({ code: 'MR_WRONG_KEY' });
    expect(snapshot(disk)).toEqual(before);
    const { gaps } = await repair(disk, { codec });
    expect(gaps).toHaveLength(1);
    const { bodies: read, reports } = await deliver(disk, { codec });
    expect(read).toEqual([...bodies(0, gaps[0]!.from.seq), ...bodies(gaps[0]!.to.seq, 400)]);
    expect(reports).toEqual([]);
  });

  it('whatever bits are turned over in whatever segments: exactly the rest is left, and nothing is damaged any more', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(), fc.nat(), fc.nat(7)), { minLength: 1, maxLength: 12 }),
        fc.boolean(),
        async (flips, twice) => {
          const { disk, segments } = await written({ batches: 30, done: [0, 7], maxFileSize: 2048 });
          for (const [segment, byte, bit] of flips) {
            const path = segments[segment % segments.length]!;
            flip(disk, path, byte % disk.files.get(path)!.length, bit);
          }
          const sound = await readAll(disk);
          const { gaps } = await repair(disk, { force: true });
          if (twice) expect(await repair(disk)).toEqual({ replaced: [], gaps: [] });
          const missing = new Set(gaps.flatMap(({ from, to }) => bodies(from.seq, to.seq)));
          const done = new Set([...bodies(0, 10), ...bodies(70, 80)]);
          const after = await readAll(disk);
          expect(after.gaps.filter(({ where }) => where !== undefined)).toEqual([]);
          const { bodies: read, reports } = await deliver(disk);
          expect(reports).toEqual([]);
          expect(read).toEqual(bodies(0, 300).filter(body => !missing.has(body) && !done.has(body)));
          expect(read).toEqual(sound.bodies.filter(body => !done.has(body)));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('may be killed, or lose its power, at any moment', async () => {
    for (const seed of [1, 2]) {
      const { disk, segments } = await written({ batches: 22, done: [0, 7] });
      // The first batch of one, two in the middle of another, a header.
      flip(disk, segments[0]!, 1500);
      flip(disk, segments[1]!, 128 + 50);
      flip(disk, segments[1]!, 2000);
      flip(disk, segments[2]!, 20);
      const done = new Set([...bodies(0, 10), ...bodies(70, 80)]);
      const sound = (await readAll(disk)).bodies.filter(body => !done.has(body));
      const random = seededRandom(seed);
      const images: CrashDisk[] = [];
      disk.happened = ({ name }) => {
        if (/^(write|truncate|sync|rename|remove)/.test(name)) images.push(disk.kill(random), disk.cut(random));
      };
      await repair(disk);
      expect(images.length).toBeGreaterThan(50);
      for (const [i, image] of images.entries()) {
        // As it is, or repaired again.
        const again = image.kill(random);
        expect(
          (await readAll(image)).bodies.filter(body => !done.has(body)),
          `image ${i} of seed ${seed}`,
        ).toEqual(sound);
        await repair(again);
        expect(await deliver(again), `image ${i} of seed ${seed}, repaired`).toMatchObject({
          bodies: sound,
          reports: [],
          lost: 0,
        });
      }
    }
  });
});
