import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { systemClock, type Clock } from '../../src/core/clock.ts';
import type { Delivery } from '../../src/core/delivery.ts';
import { Batch, event, type FlumeEvent } from '../../src/core/event.ts';
import { run } from '../../src/core/flow.ts';
import { Entry, Outlet, type MaxInFlight, type Redelivery, type Supply } from '../../src/core/outlet.ts';
import { Scope } from '../../src/core/scope.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { FakeClock, recordingLog, recordingSink, scriptedSource, seededRandom } from '../../src/testing/index.ts';
import { numbers, world } from './fakes.ts';

/** An array as a supply. */
class Line<T> implements Supply<T> {
  readonly entries: Entry<T>[] = [];

  put(...events: readonly T[]): void {
    this.entries.push(new Entry(Batch.of(events), undefined));
  }

  take(maxEvents: number, maxBytes: number, alone: boolean): Entry<T> | undefined {
    const [entry] = this.entries;
    if (entry === undefined || (!alone && (entry.batch.length > maxEvents || entry.batch.byteLength > maxBytes)))
      return undefined;
    return this.entries.shift();
  }

  giveBack(entries: readonly Entry<T>[]): void {
    this.entries.unshift(...entries);
  }

  done(): void {
    // Nobody asks.
  }

  refused(): boolean {
    return false;
  }
}

const over = <T>(
  next: (delivery: Delivery<T>) => void,
  {
    limits,
    redelivery,
    clock = new FakeClock(0),
  }: { limits?: MaxInFlight; redelivery?: Redelivery; clock?: Clock } = {},
) => {
  const line = new Line<T>();
  const scope = new Scope({ clock, log: recordingLog(), random: seededRandom(1) });
  return { line, scope, outlet: new Outlet<T>(line, next, () => undefined, scope, limits, redelivery) };
};

const oops = new Error('oops');

describe('Outlet', () => {
  // What is put into the room that a partial failure makes must not leave before what the failure took back.
  test.each(['keep', 'drop'] as const)('room made by a partial failure lets nothing overtake (%s)', async onReject => {
    const { clock, start } = world();
    const emits = [numbers(0, 3), numbers(4, 5), numbers(6, 9)].map(emit => ({ emit }));
    const sink = recordingSink<number>([{ outcome: 'reject', after: 5, failed: [0] }, 'hold']);
    const flow = start(() =>
      run(
        scriptedSource(emits),
        memoryChannel({
          capacity: 9,
          transactionCapacity: 4,
          maxInFlight: { deliveries: 2 },
          redelivery: { onReject },
        }),
        sink,
      ),
    );
    await clock.settle(flow.done);
    const again = onReject === 'keep' ? [0] : [];
    expect(sink.received.flatMap(({ events }) => events)).toEqual([...numbers(0, 5), ...again, ...numbers(4, 9)]);
  });
});

describe('emission', () => {
  test('is a loop: whoever settles in next() is never called from within it', async () => {
    const clock = new FakeClock();
    let [count, depth, deepest] = [0, 0, 0];
    const { line, outlet } = over<number>(
      delivery => {
        deepest = Math.max(deepest, ++depth);
        if (++count < 100_000) line.put(count);
        delivery.ack();
        depth--;
      },
      { clock },
    );
    line.put(0);
    outlet.pump();
    await clock.runUntilIdle();
    expect([count, deepest]).toEqual([100_000, 1]);
  });

  test('yields in a flood, so that timers get their turn', async () => {
    let count = 0;
    const { line, outlet } = over<number>(
      delivery => {
        line.put(++count);
        delivery.ack();
      },
      { clock: systemClock },
    );
    line.put(0);
    outlet.pump();
    // Without it this never comes back.
    await sleep(1);
    outlet.hold();
    expect(count).toBeGreaterThan(0);
  });
});

describe('credit (S3)', () => {
  test('is used up and never exceeded, in deliveries, events and bytes, and one delivery is always admitted', () => {
    const sizes = fc.array(fc.array(fc.nat(60), { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 30 });
    const limit = fc.record({
      deliveries: fc.integer({ min: 1, max: 5 }),
      events: fc.integer({ min: 1, max: 12 }),
      bytes: fc.integer({ min: 1, max: 200 }),
    });
    let oversized = 0;
    fc.assert(
      fc.property(sizes, limit, fc.infiniteStream(fc.nat()), (batches, limits, choices) => {
        const flying: Delivery[] = [];
        const { line, outlet } = over<FlumeEvent>(delivery => void flying.push(delivery), { limits });
        for (const batch of batches) line.put(...batch.map(size => event(Buffer.alloc(size))));
        const sum = (of: (one: Delivery) => number) => flying.reduce((total, one) => total + of(one), 0);
        outlet.pump();
        while (flying.length > 0) {
          const events = sum(({ length }) => length);
          const bytes = sum(({ batch }) => batch.byteLength);
          expect([outlet.deliveries, outlet.events]).toEqual([flying.length, events]);
          const fits = (extra: number, more: number, moreBytes: number) =>
            flying.length + extra <= limits.deliveries &&
            events + more <= limits.events &&
            bytes + moreBytes <= limits.bytes;
          if (!fits(0, 0, 0)) {
            oversized++;
            expect(flying).toHaveLength(1);
          }
          const [next] = line.entries;
          if (next !== undefined) {
            const used = events >= limits.events || bytes >= limits.bytes;
            expect(used || !fits(1, next.batch.length, next.batch.byteLength)).toBe(true);
          }
          const [settled] = flying.splice((choices.next().value as number) % flying.length, 1);
          settled?.ack();
        }
        expect(line.entries).toHaveLength(0);
      }),
    );
    expect(oversized).toBeGreaterThan(0);
  });

  test('the books close: what is acked, nacked or rejected gives its credit back', async () => {
    const clock = new FakeClock();
    const outcomes = ['nack', 'reject', 'nack', 'ack'] as const;
    let at = 0;
    const { line, outlet } = over<number>(
      delivery => void clock.after(1, () => delivery[outcomes[at++ % outcomes.length]!](oops)),
      { clock, limits: { deliveries: 2, events: 3 } },
    );
    for (const n of numbers(1, 20)) line.put(n, n);
    outlet.pump();
    await clock.runUntilIdle();
    expect([outlet.deliveries, outlet.events, outlet.idle, line.entries.length]).toEqual([0, 0, true, 0]);
  });
});

describe('a nack', () => {
  const flight = (order: 'strict' | 'selective') => {
    const clock = new FakeClock(0);
    const out: Delivery<number>[] = [];
    const made = over<number>(delivery => void out.push(delivery), { clock, redelivery: { order, initial: 10 } });
    for (const n of numbers(1, 4)) made.line.put(n);
    made.outlet.pump();
    return { ...made, clock, out, seen: () => out.map(({ events: [n], attempt }) => `${n}.${attempt}`) };
  };

  test('takes back everything behind it if order is strict; what was overtaken has not failed', async () => {
    const { clock, out, seen, scope } = flight('strict');
    expect(out[1]?.nack(oops)).toBe(true);
    expect(out.map(({ live }) => live)).toEqual([true, false, false, false]);
    expect([out[2]?.ack(), out[3]?.nack(oops), scope.ledger.settledLate]).toEqual([false, false, 2]);
    expect(out).toHaveLength(4);
    await clock.advance(10);
    expect(seen().slice(4)).toEqual(['2.2', '3.1', '4.1']);
  });

  test('concerns nobody else if order is selective', async () => {
    const { clock, out, seen } = flight('selective');
    out[1]?.nack(oops);
    expect(out.map(({ live }) => live)).toEqual([true, false, true, true]);
    expect(out[3]?.ack()).toBe(true);
    await clock.advance(10);
    expect(seen().slice(4)).toEqual(['2.2']);
  });

  test.each(['strict', 'selective'] as const)(
    'is never answered at once, and waits longer each time (%s)',
    async order => {
      const clock = new FakeClock(0);
      const times: number[] = [];
      let inside = false;
      const { line, outlet } = over<number>(
        delivery => {
          expect(inside).toBe(false);
          inside = true;
          times.push(clock.now());
          if (times.length < 10) delivery.nack(oops);
          else delivery.ack();
          inside = false;
        },
        { clock, redelivery: { order, initial: 100, max: 1000 } },
      );
      line.put(1);
      outlet.pump();
      await clock.runUntilIdle();
      const waits = times.slice(1).map((time, i) => time - times[i]!);
      waits.forEach((wait, i) => {
        const full = Math.min(1000, 100 * 2 ** i);
        expect(wait).toBeGreaterThanOrEqual(full / 2);
        expect(wait).toBeLessThanOrEqual(full);
      });
      expect(waits).toHaveLength(9);
    },
  );
});

describe('an outlet that ends', () => {
  const flying = () => {
    const out: Delivery<number>[] = [];
    const made = over<number>(delivery => void out.push(delivery), { limits: { deliveries: 3 } });
    for (const n of numbers(1, 5)) made.line.put(n);
    made.outlet.pump();
    return { ...made, out, left: () => made.line.entries.flatMap(({ batch }) => batch.events) };
  };

  test('release fences what is in flight (S7) and gives it back in order', () => {
    const { outlet, out, left, scope } = flying();
    out[1]?.ack();
    outlet.release();
    expect(left()).toEqual([1, 3, 4, 5]);
    expect([out[0]?.ack(), out[2]?.reject(oops), scope.ledger.settledLate]).toEqual([false, false, 2]);
    expect([left(), out.length, outlet.idle]).toEqual([[1, 3, 4, 5], 4, true]);
  });

  test('hold emits no more, but what is in flight can still be settled', () => {
    const { outlet, out, left } = flying();
    outlet.hold();
    expect([out[0]?.ack(), out[1]?.nack(oops), out[2]?.ack()]).toEqual([true, true, false]);
    expect([left(), out.length, outlet.idle]).toEqual([[2, 3, 4, 5], 3, true]);
  });
});

test('a delivery that was dropped unsettled is reported and delivered again, one that is kept is not', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const clock = new FakeClock(0);
  const attempts: string[] = [];
  const kept: Delivery<number>[] = [];
  const { line, outlet, scope } = over<number>(
    delivery => {
      attempts.push(`${delivery.events[0]}.${delivery.attempt}`);
      if (delivery.events[0] === 2) kept.push(delivery);
      else if (delivery.attempt > 1) delivery.ack();
    },
    { clock, redelivery: { order: 'selective' } },
  );
  line.put(1);
  line.put(2);
  outlet.pump();
  const { entries } = scope.log as ReturnType<typeof recordingLog>;
  // The watch begins with what has been unsettled for a whole interval.
  await clock.advance(3000);
  for (let i = 0; i < 100 && entries.length === 0; i++) {
    collect();
    await turn();
  }
  expect(entries.map(({ fields }) => fields)).toEqual([{ code: 'MR_DELIVERY_LEAKED' }]);
  await clock.advance(100);
  expect(attempts).toEqual(['1.1', '2.1', '1.2']);
  expect(kept[0]?.ack()).toBe(true);
  expect(outlet.idle).toBe(true);
});
