import { Observable, retry } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { run } from '../../src/core/flow.ts';
import { event } from '../../src/core/event.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { FakeClock, recordingLog, recordingSink, scriptedSource, seededRandom } from '../../src/testing/index.ts';

const events = (...bodies: string[]) => bodies.map(body => event(body));
const text = (of: readonly { body: Buffer }[]) => of.map(({ body }) => body.toString());
const fake = () => new Scope({ clock: new FakeClock(), random: seededRandom(1), log: recordingLog() });

describe('FakeClock', () => {
  test('fires by time, then by order of asking, soon first, with microtasks in between', async () => {
    const clock = new FakeClock(0);
    const seen: string[] = [];
    const note = (name: string) => () => {
      seen.push(`${name}@${clock.now()}`);
      queueMicrotask(() => seen.push(`${name}'`));
    };
    clock.after(10, note('b'));
    clock.after(5, note('a'));
    clock.after(10, note('c'));
    clock.after(0, note('zero'));
    clock.soon(note('soon'));
    await clock.advance(9);
    expect(seen).toEqual(['soon@0', "soon'", 'zero@0', "zero'", 'a@5', "a'"]);
    expect(clock.now()).toBe(9);
    await clock.advance(1);
    expect(seen.slice(6)).toEqual(['b@10', "b'", 'c@10', "c'"]);
  });

  test('a timer that is cancelled, or cancelled by another at the same time, does not fire', async () => {
    const clock = new FakeClock(0);
    const seen: string[] = [];
    clock.cancel(clock.after(1, () => seen.push('never')));
    clock.after(2, () => clock.cancel(other));
    const other = clock.after(2, () => seen.push('never either'));
    clock.cancel(undefined);
    await clock.runUntilIdle();
    expect(seen).toEqual([]);
    expect(clock.now()).toBe(2);
  });

  test('nobody waits for background timers, but time that passes fires them', async () => {
    const clock = new FakeClock(0);
    const seen: number[] = [];
    const tick = () => {
      seen.push(clock.now());
      clock.after(10, tick, true);
    };
    clock.after(10, tick, true);
    expect(clock.pending).toBe(0);
    await clock.runUntilIdle();
    expect(seen).toEqual([]);
    clock.after(35, () => undefined);
    await clock.runUntilIdle();
    expect(seen).toEqual([10, 20, 30]);
  });

  test('says when somebody runs in circles, is stuck, or waits too long', async () => {
    const clock = new FakeClock(0);
    const circle = () => clock.soon(circle);
    circle();
    await expect(clock.flush()).rejects.toThrow(/^busy/);
    await expect(new FakeClock().settle(new Promise(() => undefined))).rejects.toThrow(/^stuck/);
    const late = new FakeClock();
    late.after(1001, () => undefined);
    await expect(late.runUntilIdle(1000)).rejects.toThrow('1 timers still wait after 1000 ms');
    expect(() => late.after(NaN, () => undefined)).toThrow(RangeError);
  });

  test('settle lets time pass for a promise, and no longer', async () => {
    const clock = new FakeClock(0);
    clock.after(100, () => undefined);
    const value = new Promise<string>(resolve => clock.after(7, () => resolve('seven')));
    expect(await clock.settle(value)).toBe('seven');
    expect(clock.now()).toBe(7);
  });
});

test('seededRandom: the same seed, the same numbers, from 0 up to 1 and spread', () => {
  const [a, b, c] = [seededRandom(7), seededRandom(7), seededRandom(8)];
  const numbers = Array.from({ length: 1000 }, () => a());
  expect(numbers).toEqual(Array.from({ length: 1000 }, () => b()));
  expect(numbers).not.toEqual(Array.from({ length: 1000 }, () => c()));
  expect(Math.min(...numbers)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...numbers)).toBeLessThan(1);
  const mean = numbers.reduce((sum, number) => sum + number) / numbers.length;
  expect(mean).toBeGreaterThan(0.4);
  expect(mean).toBeLessThan(0.6);
});

describe('scriptedSource and recordingSink', () => {
  test('play their scripts', async () => {
    const scope = fake();
    const source = scriptedSource([{ emit: events('a', 'b') }, { wait: 50 }, { emit: events('c') }]);
    const sink = recordingSink([{ outcome: 'nack', after: 20 }, { outcome: 'reject', failed: [1] }, 'ack']);
    const flow = inScope(scope, () => run(source, sink));
    await (scope.clock as FakeClock).settle(flow.done);
    expect(sink.received.map(({ events, attempt, outcome }) => [text(events).join(''), attempt, outcome])).toEqual([
      ['ab', 1, 'nack'],
      ['ab', 2, 'reject'],
      ['b', 3, 'ack'],
      ['c', 1, 'ack'],
    ]);
    expect(text(sink.acked)).toEqual(['a', 'b', 'c']);
    expect(text(source.accepted)).toEqual(['a', 'b', 'c']);
    expect(source.settled.map(({ emission, what }) => [emission, what])).toEqual([
      [0, 'acked'],
      [1, 'acked'],
    ]);
    expect(source.position()).toBe(2);
    expect(source.sessions).toEqual({ opened: 1, stopped: 1, closed: 1 });
    expect(sink.ended).toBe('complete');
    expect(flow.ledger.difference).toBe(0);
  });

  test('a source that fails goes on in its next session, with what was not settled first', async () => {
    const scope = fake();
    const source = scriptedSource(
      [{ emit: events('a') }, { emit: events('b') }, { fail: new Error('cable') }, { emit: events('c') }],
      { drainTimeout: 1000 },
    );
    const sink = recordingSink(['hold', 'ack', 'ack', 'ack']);
    const soon = () => new Observable<void>(subscriber => void scope.clock.after(10, () => subscriber.next()));
    const flow = inScope(scope, () => run(source.pipe(retry({ count: 3, delay: soon })), sink));
    await (scope.clock as FakeClock).settle(flow.done);
    expect(text(sink.received.flatMap(({ events }) => events))).toEqual(['a', 'b', 'a', 'c']);
    expect(source.settled.map(({ emission, session, what }) => [emission, session, what])).toEqual([
      [1, 1, 'acked'],
      [0, 1, 'released'],
      [0, 2, 'acked'],
      [2, 2, 'acked'],
    ]);
    expect(sink.received[0]?.settle('ack')).toBe(false);
    expect(flow.ledger.settledLate).toBe(1);
  });

  test('holding, settling twice and out of order', async () => {
    const scope = fake();
    const clock = scope.clock as FakeClock;
    const source = scriptedSource([{ emit: events('a') }, { emit: events('b') }, { emit: events('c') }, 'idle'], {
      pushing: true,
    });
    const sink = recordingSink(['hold', { outcome: 'ack', after: 5 }, { outcome: 'ack', times: 2 }]);
    const flow = inScope(scope, () => run(source, sink));
    await clock.advance(10);
    expect(text(sink.acked)).toEqual(['c', 'b']);
    expect(sink.received[2]?.returned).toEqual([true, false]);
    expect(flow.ledger.settledTwice).toBe(1);
    expect(sink.unsettled()).toHaveLength(1);
    expect(sink.received[0]?.settle('ack')).toBe(true);
    await clock.settle(flow.stop());
    expect(source.settled.map(({ emission }) => emission)).toEqual([2, 1, 0]);
  });

  test('the same seed gives the same run, through a channel', async () => {
    const play = async () => {
      const scope = fake();
      const random = seededRandom(3);
      const source = scriptedSource(Array.from({ length: 30 }, (_, i) => ({ emit: events(`${i}a`, `${i}b`) })));
      const sink = recordingSink(() => (random() < 0.3 ? 'nack' : { outcome: 'ack', after: Math.floor(random() * 9) }));
      const flow = inScope(scope, () => run(source, memoryChannel({ capacity: 7 }), sink));
      await (scope.clock as FakeClock).settle(flow.done);
      return sink.received.map(({ events, at, attempt }) => `${at} ${attempt} ${text(events).join()}`);
    };
    const first = await play();
    expect(first.length).toBeGreaterThan(30);
    expect(await play()).toEqual(first);
  });
});
