import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Batch, event, headers } from '../../../src/core/event.ts';
import { Scope } from '../../../src/core/scope.ts';
import { FileStore } from '../../../src/operators/channels/file-store.ts';
import { FakeClock, recordingLog, seededRandom } from '../../../src/testing/index.ts';
import { CrashDisk } from '../../crash/crash-disk.ts';
import { optionsOf } from '../../log/written-log.ts';

const bodies = (batch: Batch) => batch.events.map(({ body }) => Number(body.toString()));

describe('file store', () => {
  it('C4 B6 however puts, takes and reads from the disk fall between each other, everything is taken once, in order', async () => {
    let read = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ events: fc.integer({ min: 1, max: 5 }), gap: fc.integer({ min: 0, max: 30 }) }), {
          minLength: 1,
          maxLength: 40,
        }),
        fc.integer({ min: 0, max: 3 }),
        fc.integer({ min: 0, max: 2000 }),
        fc.nat(),
        async (puts, patience, cacheBytes, seed) => {
          const clock = new FakeClock();
          const log = recordingLog();
          const store = new FileStore({
            ...optionsOf({ maxFileSize: 100_000 }),
            capacity: { events: 1000, bytes: 1e9 },
            cacheBytes,
          });
          const disk = new CrashDisk(seededRandom(seed));
          await store.open({
            ...new Scope({ clock, log, disk }).context,
            name: 'c1',
            wake: () => undefined,
            withdraw: () => undefined,
          });
          let next = 0;
          const taken: number[] = [];
          const take = () => {
            const entry = store.take(3, Infinity, 3);
            if (entry === undefined) return;
            taken.push(...bodies(entry.batch));
            store.done(entry, undefined);
          };
          const pending: Promise<void>[] = [];
          for (const { events, gap } of puts) {
            const batch = Batch.of(Array.from({ length: events }, () => event(String(next++), headers({}))));
            pending.push(store.put(batch));
            // A taker that asks after each microtask, as sinks whose promises resolve do.
            for (let i = 0; i < gap; i++) {
              await Promise.resolve();
              if (i % (patience + 1) === 0) take();
            }
          }
          await Promise.all(pending);
          for (let i = 0; i < 1000 && taken.length < next; i++) {
            await new Promise(setImmediate);
            take();
          }
          if (cacheBytes < 500) read++;
          expect(taken).toEqual(Array.from({ length: next }, (_, i) => i));
          expect(store.counters['EventTakeErrorCount']).toBe(0);
          await store.close();
        },
      ),
      { numRuns: 300 },
    );
    expect(read).toBeGreaterThan(0);
  });
});
