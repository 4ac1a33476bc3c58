import type { Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { Batch } from '../../src/core/event.ts';
import type { Delivery } from '../../src/core/delivery.ts';
import { MillraceError } from '../../src/core/errors.ts';
import { inScope, type Scope } from '../../src/core/scope.ts';
import { createSource, type Emitter, type Settled } from '../../src/core/source.ts';
import { recordingSink, scriptedSource } from '../../src/testing/index.ts';
import { counting, deferred, world as bare } from './fakes.ts';

/** A world with a recording sink to subscribe. */
const world = () => {
  const given = bare();
  const subscribe = <T>(source: Observable<Delivery<T>>, sink = recordingSink<T>([], { clock: given.clock })) => ({
    sink,
    subscription: given.inside(() => source.subscribe(sink)),
  });
  return { ...given, subscribe };
};

/** Every signal of a source, in order, and nothing settled. */
const watch = <T>(source: Observable<Delivery<T>>, scope: Scope) => {
  const seen: (Delivery<T> | 'complete' | Error)[] = [];
  const subscription = inScope(scope, () =>
    source.subscribe({
      next: delivery => void seen.push(delivery),
      error: (cause: unknown) => void seen.push(cause as Error),
      complete: () => void seen.push('complete'),
    }),
  );
  return { seen, subscription, deliveries: () => seen.filter(one => typeof one === 'object' && 'ack' in one) };
};

describe('opening', () => {
  test('emits nothing before subscribe has returned', async () => {
    const { clock, subscribe } = world();
    const { sink } = subscribe(scriptedSource([{ emit: [1] }], { pushing: true }));
    expect(sink.received).toEqual([]);
    await clock.flush();
    expect(sink.acked).toEqual([1]);
  });

  test('an emission from within the opener is settled through the session that it returns', async () => {
    const { clock, subscribe } = world();
    const settled: [number, Settled][] = [];
    const { sink } = subscribe(
      createSource<string, number>(emitter => {
        emitter.emit(['early'], 7);
        return { settled: (tag, what) => void settled.push([tag, what]) };
      }),
    );
    await clock.flush();
    expect(sink.acked).toEqual(['early']);
    expect(settled).toEqual([[7, 'acked']]);
  });

  test('a source that cannot open errors and lets go', async () => {
    const { clock, scope, subscribe } = world();
    const { sink } = subscribe(createSource(() => Promise.reject(new Error('no such device'))));
    await clock.flush();
    expect(sink.ended).toEqual({ error: new Error('no such device') });
    expect(scope.sourcesOpen).toBe(0);
    expect(clock.pending).toBe(0);
    expect(scope.metrics.snapshot()['SOURCE.source']).toMatchObject({ GenericProcessingFail: 1 });
  });

  test('a stop while it waits for what a channel knows is an end, and no failure', async () => {
    const { clock, scope, subscribe } = world();
    scope.knows(new Promise(() => undefined));
    const { sink } = subscribe(
      createSource(async (_, { offsets }) => {
        await offsets('file ');
        return {};
      }),
    );
    await clock.flush();
    expect(sink.ended).toBeUndefined();
    scope.finishSources();
    await clock.flush();
    expect(sink.ended).toBe('complete');
    expect(scope.sourcesOpen).toBe(0);
    expect(scope.metrics.snapshot()['SOURCE.source']).toMatchObject({ GenericProcessingFail: 0 });
  });

  test('a source that emits and then cannot open errors and tells nobody lies', async () => {
    const { clock, scope, subscribe } = world();
    const { sink } = subscribe(
      createSource<number>(emitter => {
        emitter.emit([1]);
        throw new Error('half open');
      }),
    );
    await clock.flush();
    expect(sink.received).toEqual([]);
    expect(sink.ended).toEqual({ error: new Error('half open') });
    expect(scope.ledger.difference).toBe(0);
    expect(scope.sourcesOpen).toBe(0);
  });

  test.each(['unsubscribe', 'abort'] as const)('%s while opening closes what was opened', async how => {
    const { clock, scope, subscribe } = world();
    const opening = deferred();
    const calls: string[] = [];
    const { subscription } = subscribe(
      createSource(async () => {
        await opening.promise;
        return { stop: () => void calls.push('stop'), close: () => void calls.push('close') };
      }),
    );
    await clock.flush();
    if (how === 'abort') scope.abortSources();
    else subscription.unsubscribe();
    await clock.flush();
    expect(calls).toEqual([]);
    opening.resolve();
    await clock.flush();
    expect(calls).toEqual(['stop', 'close']);
    expect(scope.sourcesOpen).toBe(0);
  });

  test('the next session waits for one that is still opening, even after its drain timeout', async () => {
    const { clock, scope } = world();
    const opening = deferred();
    let opened = 0;
    let open = 0;
    const source = createSource(
      async () => {
        expect(++open).toBe(1);
        if (++opened === 1) await opening.promise;
        return { close: () => void (open -= 1) };
      },
      { drainTimeout: 10 },
    );
    const first = watch(source, scope);
    await clock.flush();
    first.subscription.unsubscribe();
    watch(source, scope);
    await clock.advance(100);
    expect(opened).toBe(1);
    opening.resolve();
    await clock.flush();
    expect(opened).toBe(2);
  });

  test('a stop before it has opened completes without opening', async () => {
    const { clock, scope, subscribe } = world();
    let opened = 0;
    const { sink } = subscribe(
      createSource(() => {
        opened++;
        return {};
      }),
    );
    scope.finishSources();
    await clock.flush();
    expect(sink.ended).toBe('complete');
    expect(opened).toBe(0);
  });

  test('a stop while it opens completes once it has, and asks for nothing', async () => {
    const { clock, scope, subscribe } = world();
    const opening = deferred();
    const calls: string[] = [];
    const { sink } = subscribe(
      createSource(async () => {
        await opening.promise;
        return {
          pull: () => void calls.push('pull'),
          stop: () => void calls.push('stop'),
          close: () => void calls.push('close'),
        };
      }),
    );
    await clock.flush();
    scope.finishSources();
    await clock.flush();
    expect(sink.ended).toBeUndefined();
    opening.resolve();
    await clock.flush();
    expect(sink.ended).toBe('complete');
    expect(calls).toEqual(['stop', 'close']);
  });
});

describe('demand', () => {
  test.each([0, -1, NaN])('a window of %d would never let anything out, and is refused', limit => {
    const { clock, subscribe } = world();
    const { sink } = subscribe(scriptedSource(counting(1, 1), { maxInFlight: { events: limit } }));
    expect(sink.ended).toMatchObject({ error: { code: 'MR_CONFIG' } });
    expect((sink.ended as { error: Error }).error.message).toContain(`maxInFlight: events: expected`);
    expect(clock.pending).toBe(0);
  });

  test('pull is called once per answer, and only with credit', async () => {
    const { clock, scope } = world();
    let pulls = 0;
    const source = createSource<number>(emitter => ({ pull: () => emitter.emit([pulls++]) }), {
      maxInFlight: { deliveries: 3 },
    });
    const { deliveries } = watch(source, scope);
    await clock.flush();
    expect(pulls).toBe(3);
    deliveries()[1]!.ack();
    expect(pulls).toBe(4);
  });

  test('pull is not called any more once stop was', async () => {
    const { clock, scope } = world();
    const stopping = deferred();
    let stopped = false;
    const source = createSource<number>(emitter => ({
      pull() {
        expect(stopped).toBe(false);
        emitter.emit([1]);
      },
      stop() {
        stopped = true;
        return stopping.promise;
      },
    }));
    const { seen, deliveries } = watch(source, scope);
    await clock.flush();
    scope.finishSources();
    for (const delivery of deliveries()) delivery.ack();
    await clock.flush();
    expect(seen).not.toContain('complete');
    stopping.resolve();
    await clock.flush();
    expect(seen.at(-1)).toBe('complete');
    expect(deliveries()).toHaveLength(256);
  });

  test('a pull that throws breaks the source, and what it had emitted before can still be settled', async () => {
    const { clock, scope } = world();
    let pulls = 0;
    const source = createSource<number>(emitter => ({
      pull() {
        if (++pulls === 3) throw new Error('unplugged');
        emitter.emit([pulls]);
      },
    }));
    const { seen, deliveries } = watch(source, scope);
    await clock.flush();
    expect(seen.at(-1)).toEqual(new Error('unplugged'));
    expect(deliveries().map(delivery => delivery.ack())).toEqual([true, true]);
    await clock.flush();
    expect(scope.sourcesOpen).toBe(0);
    expect(scope.ledger.accepted).toBe(2);
  });

  test('a pull that emits and then fails does not wait for a settlement that cannot come', async () => {
    const { clock, scope } = world();
    const released: Settled[] = [];
    const source = createSource<number>(emitter => ({
      pull() {
        emitter.emit([1]);
        emitter.fail(new Error('unplugged'));
      },
      settled: (_, what) => void released.push(what),
    }));
    const { seen } = watch(source, scope);
    await clock.flush();
    expect(seen).toEqual([new Error('unplugged')]);
    expect(released).toEqual(['released']);
    expect(scope.sourcesOpen).toBe(0);
  });
});

describe('ending', () => {
  test('L3: completes only after the last settlement and after close', async () => {
    const { clock, scope } = world();
    const closing = deferred();
    const source = createSource<number>(emitter => ({
      pull() {
        emitter.emit([1]);
        emitter.complete();
      },
      close: () => closing.promise,
    }));
    const { seen, deliveries } = watch(source, scope);
    await clock.flush();
    expect(seen).toHaveLength(1);
    deliveries()[0]!.ack();
    await clock.flush();
    expect(seen).toHaveLength(1);
    closing.resolve();
    await clock.flush();
    expect(seen[1]).toBe('complete');
  });

  test('L3: a stop waits for a redelivery', async () => {
    const { clock, scope, subscribe } = world();
    const { sink } = subscribe(scriptedSource([{ emit: [1] }, 'idle']), recordingSink(['nack', 'nack'], { clock }));
    await clock.flush();
    scope.finishSources();
    await clock.flush();
    expect(sink.ended).toBeUndefined();
    await clock.runUntilIdle();
    expect(sink.acked).toEqual([1]);
    expect(sink.received.map(one => one.attempt)).toEqual([1, 2, 3]);
    expect(sink.ended).toBe('complete');
  });

  test('unsubscribed from within next: nothing more is emitted, and what was handed over can be settled', async () => {
    const { clock, scope } = world();
    const got: Delivery<number>[] = [];
    const source = scriptedSource<number>([{ emit: [1] }, { emit: [2] }], { pushing: true });
    const subscription = inScope(scope, () =>
      source.subscribe(delivery => {
        got.push(delivery);
        subscription.unsubscribe();
      }),
    );
    await clock.flush();
    expect(got).toHaveLength(1);
    expect(source.sessions).toMatchObject({ stopped: 1, closed: 0 });
    expect(got[0]!.ack()).toBe(true);
    await clock.flush();
    expect(source.sessions.closed).toBe(1);
    expect(source.settled).toMatchObject([{ emission: 0, what: 'acked' }]);
  });

  test('nacked while draining: released, not emitted again', async () => {
    const { clock, scope } = world();
    const source = scriptedSource([{ emit: [1] }, { emit: [2] }, 'idle']);
    const { seen, subscription, deliveries } = watch(source, scope);
    await clock.flush();
    subscription.unsubscribe();
    deliveries()[0]!.nack(new Error('late'));
    await clock.flush();
    expect(source.settled).toMatchObject([
      { emission: 0, what: 'released' },
      { emission: 1, what: 'released' },
    ]);
    expect(seen).toHaveLength(2);
    expect(clock.pending).toBe(0);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 0, held: 0 });
  });

  test('draining ends with its timeout: the rest is released, and settles no more (S7)', async () => {
    const { clock, scope } = world();
    const source = scriptedSource([{ emit: [1] }, 'idle'], { drainTimeout: 500 });
    const { subscription, deliveries } = watch(source, scope);
    await clock.flush();
    subscription.unsubscribe();
    await clock.advance(499);
    expect(source.settled).toEqual([]);
    await clock.advance(1);
    expect(source.settled).toMatchObject([{ emission: 0, what: 'released' }]);
    expect(deliveries()[0]!.ack()).toBe(false);
    expect(scope.ledger.settledLate).toBe(1);
  });

  test('a session opens when the last open one has closed, also if one in between never opened', async () => {
    const { clock, subscribe } = world();
    const closed = deferred();
    let open = 0;
    const close = async () => {
      await closed.promise;
      open--;
    };
    const source = createSource(
      () => {
        expect(++open).toBe(1);
        return { close };
      },
      { drainTimeout: 10 },
    );
    const first = subscribe(source);
    await clock.flush();
    first.subscription.unsubscribe();
    // Given up before the first one has closed.
    subscribe(source).subscription.unsubscribe();
    await clock.advance(100);
    const { sink } = subscribe(source);
    await clock.flush();
    expect(open).toBe(1);
    closed.resolve();
    await clock.flush();
    expect(open).toBe(1);
    expect(sink.ended).toBeUndefined();
  });

  test('a second session opens when the first has drained, never beside it', async () => {
    const { clock, scope } = world();
    const source = scriptedSource([{ emit: [1] }, { emit: [2] }, 'idle']);
    const first = watch(source, scope);
    await clock.flush();
    first.subscription.unsubscribe();
    const second = watch(source, scope);
    await clock.flush();
    expect(source.sessions).toMatchObject({ opened: 1, closed: 0 });
    first.deliveries()[0]!.ack();
    first.deliveries()[1]!.nack(new Error('no'));
    await clock.flush();
    expect(source.sessions).toMatchObject({ opened: 2, closed: 1 });
    expect(second.deliveries().map(delivery => delivery.events)).toEqual([[2]]);
  });

  test('a second subscriber at the same time is refused', async () => {
    const { clock, scope } = world();
    const source = scriptedSource([{ emit: [1] }, 'idle'], { name: 'pump' });
    const first = watch(source, scope);
    const second = watch(source, scope);
    expect(second.seen).toEqual([
      new MillraceError('MR_SOURCE_BUSY', 'pump is subscribed already and has one session at a time.'),
    ]);
    await clock.flush();
    expect(first.deliveries()).toHaveLength(1);
  });

  test('what is emitted after the end is given back at once', async () => {
    const { clock, scope } = world();
    const settled: [string, Settled][] = [];
    let emitter!: Emitter<number, string>;
    const source = createSource<number, string>(given => {
      emitter = given;
      return { settled: (tag, what) => void settled.push([tag, what]) };
    });
    const { subscription } = watch(source, scope);
    await clock.flush();
    subscription.unsubscribe();
    await clock.flush();
    expect(scope.sourcesOpen).toBe(0);
    emitter.emit([1], 'late');
    expect(settled).toEqual([['late', 'released']]);
    expect(scope.ledger.difference).toBe(0);
  });

  test.each(['throws', 'rejects'])('a stop that %s breaks the flow and still closes', async how => {
    const { clock, scope } = world();
    let closed = 0;
    const source = createSource(() => ({
      stop() {
        if (how === 'rejects') return Promise.reject(new Error('stuck'));
        throw new Error('stuck');
      },
      close: () => void (closed += 1),
    }));
    const { seen } = watch(source, scope);
    await clock.flush();
    scope.finishSources();
    await clock.flush();
    expect(seen).toEqual([new Error('stuck')]);
    expect(closed).toBe(1);
    expect(scope.sourcesOpen).toBe(0);
    await expect(scope.settled()).rejects.toMatchObject({ code: 'MR_SOURCE_FAILED' });
  });

  test('a stop that throws does not keep the other sources from stopping', async () => {
    const { clock, scope } = world();
    const bad = createSource(() => ({
      stop() {
        throw new Error('stuck');
      },
    }));
    const good = scriptedSource([{ emit: [1] }, 'idle']);
    watch(bad, scope);
    const { seen, deliveries } = watch(good, scope);
    await clock.flush();
    scope.finishSources();
    deliveries()[0]!.ack();
    await clock.flush();
    expect(seen.at(-1)).toBe('complete');
  });

  test('a settled callback that throws breaks the source, not whoever settles', async () => {
    const { clock, scope } = world();
    const source = createSource<number>(emitter => ({
      pull: () => emitter.emit([1]),
      settled() {
        throw new Error('no position');
      },
    }));
    const { seen, deliveries } = watch(source, scope);
    await clock.flush();
    expect(deliveries()[0]!.ack()).toBe(true);
    await clock.flush();
    expect(seen.at(-1)).toEqual(new Error('no position'));
  });
});

describe('failing', () => {
  test('a source that can read again errors at once, and drains behind the error', async () => {
    const { clock, scope } = world();
    const source = scriptedSource([{ emit: [1] }, { fail: new Error('lost') }]);
    const { seen, deliveries } = watch(source, scope);
    await clock.flush();
    expect(seen[1]).toEqual(new Error('lost'));
    expect(source.sessions.closed).toBe(0);
    deliveries()[0]!.ack();
    await clock.flush();
    expect(source.sessions.closed).toBe(1);
    expect(scope.metrics.snapshot()['SOURCE.source']).toMatchObject({ GenericProcessingFail: 1 });
  });

  test('a source that cannot replay delivers what it has read, then errors', async () => {
    const { clock, scope, subscribe } = world();
    const script = [{ emit: [1] }, { emit: [2] }, { emit: [3] }, { fail: new Error('lost') }];
    const source = scriptedSource(script, {
      replayable: false,
      pushing: true,
      maxInFlight: { deliveries: 1 },
    });
    const { sink } = subscribe(source, recordingSink(['hold', 'nack'], { clock }));
    await clock.flush();
    expect(sink.ended).toBeUndefined();
    sink.received[0]!.settle('ack');
    await clock.runUntilIdle();
    expect(sink.acked).toEqual([1, 2, 3]);
    expect(sink.ended).toEqual({ error: new Error('lost') });
    expect(source.sessions).toEqual({ opened: 1, stopped: 1, closed: 1 });
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 3, delivered: 3, dropped: 0 });
  });

  test('a source that cannot replay and has nothing open errors at once', async () => {
    const { clock, scope } = world();
    const { seen } = watch(scriptedSource([{ fail: new Error('lost') }], { replayable: false }), scope);
    await clock.flush();
    expect(seen).toEqual([new Error('lost')]);
    expect(scope.sourcesOpen).toBe(0);
  });

  test('what a source that cannot replay gives up is counted as dropped', async () => {
    const { clock, scope } = world();
    const source = scriptedSource([{ emit: [1, 2] }, { emit: [3] }], {
      replayable: false,
      pushing: true,
      maxInFlight: { deliveries: 1 },
    });
    watch(source, scope);
    await clock.flush();
    scope.abortSources();
    await clock.flush();
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 3, dropped: 3, held: 0 });
    expect(clock.pending).toBe(0);
  });
});

describe('reporting', () => {
  test('is told each outcome once, with the events concerned', async () => {
    const { clock, scope } = world();
    const told: [string, Settled, readonly unknown[] | undefined][] = [];
    const source = createSource<number, string>(
      emitter => {
        emitter.emit([1, 2], 'a');
        emitter.emit([3, 4], 'b');
        emitter.emit([5], 'c');
        return {
          settled: (tag, what, _, failed) => void told.push([tag, what, failed?.events]),
        };
      },
      { onFailure: 'report', redelivery: { order: 'selective' } },
    );
    const { deliveries } = watch(source, scope);
    await clock.flush();
    const [a, b, c] = deliveries();
    a!.nack(new Error('later'), [2]);
    b!.reject(new MillraceError('MR_BAD_INPUT', 'never'));
    c!.ack();
    expect(told).toEqual([
      ['a', 'nacked', [2]],
      ['b', 'rejected', [3, 4]],
      ['c', 'acked', undefined],
    ]);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 4, rejected: 2, held: 0 });
    expect(deliveries()).toHaveLength(3);
  });

  test('metrics: received when emitted, accepted when acked', async () => {
    const { clock, scope, subscribe } = world();
    subscribe(scriptedSource([{ emit: [1, 2, 3] }, { emit: Batch.of([4]) }], { name: 'src' }));
    await clock.runUntilIdle();
    expect(scope.metrics.snapshot()['SOURCE.src']).toMatchObject({
      EventReceivedCount: 4,
      EventAcceptedCount: 4,
      AppendBatchReceivedCount: 2,
      AppendBatchAcceptedCount: 2,
    });
  });
});

describe('withdrawal', () => {
  test('what was emitted for somebody who has lost it is not live, not delivered again, and off the books', async () => {
    const { clock, scope } = world();
    const settled: [string, Settled][] = [];
    let emitter!: Emitter<string, string>;
    const source = createSource<string, string>(
      given => {
        emitter = given;
        return { settled: (tag, what) => void settled.push([tag, what]) };
      },
      { maxInFlight: { deliveries: 3 } },
    );
    const { deliveries } = watch(source, scope);
    await clock.flush();
    for (const [body, tag] of [
      ['a', 'ours'],
      ['b', 'lost'],
      ['c', 'ours'],
      ['d', 'lost'],
      ['e', 'ours'],
    ] as const)
      emitter.emit([body], tag);
    emitter.withdraw(tag => tag === 'lost');

    // There was room for the last one then, and nothing of those that were lost went out.
    expect(deliveries().map(({ events, live }) => [...events, live])).toEqual([
      ['a', true],
      ['b', false],
      ['c', true],
      ['e', true],
    ]);
    expect(deliveries().map(delivery => delivery.ack())).toEqual([true, false, true, true]);
    expect(settled).toEqual([
      ['lost', 'released'],
      ['lost', 'released'],
      ['ours', 'acked'],
      ['ours', 'acked'],
      ['ours', 'acked'],
    ]);
    expect(scope.ledger.snapshot()).toMatchObject({ accepted: 3, held: 0, settledLate: 1, settledTwice: 0 });
  });

  test.each(['strict', 'selective'] as const)(
    'what waits for its redelivery is not delivered again: %s',
    async order => {
      const { clock, scope } = world();
      let emitter!: Emitter<string, string>;
      const source = createSource<string, string>(
        given => {
          emitter = given;
          return {};
        },
        { redelivery: { order, initial: 1000 } },
      );
      const { deliveries } = watch(source, scope);
      await clock.flush();
      emitter.emit(['a'], 'lost');
      emitter.emit(['b'], 'ours');
      deliveries()[0]?.nack(new Error('not now'));
      emitter.withdraw(tag => tag === 'lost');
      await clock.advance(2000);
      expect(deliveries().map(({ events }) => events[0])).toEqual(order === 'strict' ? ['a', 'b', 'b'] : ['a', 'b']);
      expect(deliveries().at(-1)?.ack()).toBe(true);
      expect(scope.ledger.snapshot()).toMatchObject({ accepted: 1, held: 0 });
      emitter.complete();
      await clock.runUntilIdle();
      expect(clock.pending).toBe(0);
    },
  );
});
