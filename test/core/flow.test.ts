import { map, Observable, retry, takeUntil, Subject, take } from 'rxjs';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { channelOperator } from '../../src/core/channel.ts';
import type { Delivery } from '../../src/core/delivery.ts';
import type { FlumeEvent } from '../../src/core/event.ts';
import { run } from '../../src/core/flow.ts';
import { createSink, type Sink } from '../../src/core/sink.ts';
import { createSource } from '../../src/core/source.ts';
import { intercept } from '../../src/operators/intercept.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { seqSource } from '../../src/sources/seq.ts';
import { recordingSink, scriptedSource } from '../../src/testing/index.ts';
import { counting, numbers, plainStore, world } from './fakes.ts';

describe('done', () => {
  test('resolves with the books closed', async () => {
    const { clock, start } = world();
    const got: string[] = [];
    const flow = start(() =>
      run(
        seqSource({ totalEvents: 10, batchSize: 3 }),
        intercept(map(({ body }) => String(body))),
        memoryChannel({ capacity: 4 }),
        createSink<string>(events => void got.push(...events)),
      ),
    );
    await clock.settle(flow.done);
    expect(got).toEqual(numbers(0, 9).map(String));
    expect(flow.ledger.snapshot()).toEqual({
      accepted: 10,
      delivered: 10,
      held: 0,
      rejected: 0,
      filtered: 0,
      dropped: 0,
      kept: 0,
      copied: 0,
      settledTwice: 0,
      settledLate: 0,
    });
    expect(flow.metrics.snapshot()).toMatchObject({
      'SOURCE.seq': { EventReceivedCount: 10, EventAcceptedCount: 10, AppendBatchAcceptedCount: 4 },
      'CHANNEL.memory': {
        EventPutAttemptCount: 10,
        EventPutSuccessCount: 10,
        EventTakeSuccessCount: 10,
        ChannelSize: 0,
      },
      'SINK.sink': { EventDrainAttemptCount: 10, EventDrainSuccessCount: 10, EventWriteFail: 0 },
    });
    expect(clock.pending).toBe(0);
  });

  test('waits until the source has written its positions, the channel and the sink are closed', async () => {
    const { clock, start } = world();
    const order: string[] = [];
    const slowly = (name: string) => async () => {
      await new Promise<void>(resolve => clock.after(50, resolve));
      order.push(name);
    };
    const source = createSource<number>(emitter => ({
      pull() {
        emitter.emit([1]);
        emitter.complete();
      },
      close: slowly('source'),
    }));
    const flow = start(() =>
      run(
        source,
        channelOperator(() => plainStore<number>(5, { close: slowly('channel') })),
        createSink<number>({ write: () => undefined, close: slowly('sink') }),
      ),
    );
    void flow.done.then(() => order.push('done'));
    await clock.settle(flow.done);
    expect(order.slice(0, 3).sort()).toEqual(['channel', 'sink', 'source']);
    expect(order[3]).toBe('done');
  });

  test.each(['source', 'channel', 'sink'])('rejects when the %s does not close', async who => {
    const { clock, start } = world();
    const close = (name: string) => (name === who ? () => Promise.reject(new Error('disk full')) : () => undefined);
    const flow = start(() =>
      run(
        createSource<number>(emitter => ({
          pull() {
            emitter.emit([1]);
            emitter.complete();
          },
          close: close('source'),
        })),
        channelOperator(() => plainStore<number>(5, { close: close('channel') })),
        createSink<number>({ write: () => undefined, close: close('sink') }),
      ),
    );
    await expect(clock.settle(flow.done)).rejects.toThrow('disk full');
    expect(clock.pending).toBe(0);
  });

  test('rejects with the error of the source, after everything that it had emitted is delivered', async () => {
    const { clock, start } = world();
    const source = scriptedSource([...counting(1, 3), { fail: new Error('unplugged') }]);
    const sink = recordingSink<number>(() => ({ outcome: 'ack', after: 100 }));
    const flow = start(() => run(source, memoryChannel<number>(), sink));
    await expect(clock.settle(flow.done)).rejects.toThrow('unplugged');
    expect(sink.acked).toEqual([1, 2, 3]);
    expect(source.sessions).toEqual({ opened: 1, stopped: 1, closed: 1 });
    expect(flow.ledger.difference).toBe(0);
  });

  test('rejects when the source cannot open', async () => {
    const { clock, start } = world();
    const flow = start(() =>
      run(
        createSource(() => Promise.reject(new Error('no such file'))),
        memoryChannel(),
        recordingSink(),
      ),
    );
    await expect(clock.settle(flow.done)).rejects.toThrow('no such file');
    expect(clock.pending).toBe(0);
  });

  test('rejects when a stage cannot be made', async () => {
    const { clock, start } = world();
    const flow = start(() =>
      run(seqSource({ totalEvents: 1 }), memoryChannel({ capacity: 1, transactionCapacity: 2 }), recordingSink()),
    );
    await expect(clock.settle(flow.done)).rejects.toMatchObject({ code: 'MR_CONFIG' });
    expect(clock.pending).toBe(0);
  });

  test('the error of the flow comes before the errors of closing, which it waits for', async () => {
    const { clock, start } = world();
    let closed = false;
    const source = createSource<number>(emitter => ({
      pull: () => emitter.fail(new Error('the cause')),
      async close() {
        await new Promise<void>(resolve => clock.after(50, resolve));
        closed = true;
        throw new Error('a consequence');
      },
    }));
    const flow = start(() => run(source, recordingSink()));
    await expect(clock.settle(flow.done)).rejects.toThrow('the cause');
    expect(closed).toBe(true);
  });
});

describe('stop', () => {
  test('delivers what was read: queued, in flight and waiting to be redelivered', async () => {
    const { clock, start } = world();
    const source = scriptedSource([...counting(1, 20), 'idle'], { pushing: true, maxInFlight: { deliveries: 4 } });
    const sink = recordingSink<number>(['nack', { outcome: 'nack', after: 10 }, 'hold']);
    const flow = start(() => run(source, sink));
    await clock.flush();
    const stopped = flow.stop();
    await clock.advance(1);
    for (const one of sink.unsettled()) one.settle('ack');
    await clock.settle(stopped);
    expect([...sink.acked].sort((a, b) => a - b)).toEqual(numbers(1, 20));
    expect(sink.ended).toBe('complete');
    expect(source.sessions).toEqual({ opened: 1, stopped: 1, closed: 1 });
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 20, delivered: 20, held: 0 });
    expect(flow.ledger.difference).toBe(0);
    expect(clock.pending).toBe(0);
  });

  test('drains a channel behind a source that never ends', async () => {
    const { clock, start } = world();
    const sink = recordingSink(() => ({ outcome: 'ack', after: 7 }));
    const flow = start(() => run(seqSource({ batchSize: 5 }), memoryChannel({ capacity: 50 }), sink));
    await clock.advance(100);
    await clock.settle(flow.stop());
    expect(sink.acked.map(({ body }) => Number(body))).toEqual(numbers(0, sink.acked.length - 1));
    expect(flow.ledger.snapshot()).toMatchObject({
      accepted: sink.acked.length,
      delivered: sink.acked.length,
      held: 0,
    });
  });

  test('before anything was opened', async () => {
    const { clock, start } = world();
    const source = scriptedSource(counting(1, 3));
    const flow = start(() => run(source, recordingSink()));
    await clock.settle(flow.stop());
    expect(source.sessions.opened).toBe(0);
  });

  test('twice, and after the end', async () => {
    const { clock, start } = world();
    const source = scriptedSource([...counting(1, 3), 'idle']);
    const sink = recordingSink<number>(() => ({ outcome: 'ack', after: 10 }));
    const flow = start(() => run(source, sink));
    await clock.flush();
    await clock.settle(Promise.all([flow.stop(), flow.stop()]));
    await clock.settle(flow.stop());
    await clock.settle(flow[Symbol.asyncDispose]());
    expect(sink.acked).toEqual([1, 2, 3]);
    expect(source.sessions.stopped).toBe(1);
    expect(clock.pending).toBe(0);
  });

  test('does not open again what waits for its retry', async () => {
    const { clock, start } = world();
    const again = new Subject<void>();
    const source = scriptedSource([{ emit: [1] }, { fail: new Error('lost') }, { emit: [2] }, 'idle']);
    const sink = recordingSink<number>();
    const flow = start(() => run(source.pipe(retry({ delay: () => again })), sink));
    await clock.flush();
    await clock.settle(flow.stop());
    again.next();
    await clock.flush();
    expect(sink.acked).toEqual([1]);
    expect(source.sessions.opened).toBe(1);
  });

  test('ends a source that is none of ours', async () => {
    const { clock, start } = world();
    const sink = recordingSink<number>();
    const flow = start(() => run(new Subject<Delivery<number>>(), sink));
    await clock.settle(flow.stop());
    expect(sink.ended).toBe('complete');
  });

  test('that takes too long aborts and rejects with MR_FLOW_STOPPED, whatever never answers', async () => {
    const { clock, log, start } = world();
    const never = new Promise<never>(() => undefined);
    const source = createSource<number>(emitter => ({
      pull: () => emitter.emit([1]),
      stop: () => never,
      close: () => never,
    }));
    const flow = start(() =>
      run(
        source,
        memoryChannel<number>({ capacity: 10 }),
        createSink(() => never),
      ),
    );
    await clock.flush();
    const stopped = flow.stop({ timeout: 5000 });
    stopped.catch(() => undefined);
    await clock.advance(4999);
    expect(log.entries).toEqual([]);
    await clock.advance(1);
    await expect(stopped).rejects.toMatchObject({ code: 'MR_FLOW_STOPPED' });
    await expect(flow.done).rejects.toMatchObject({ code: 'MR_FLOW_STOPPED' });
    expect(log.entries).toMatchObject([{ level: 'error' }]);
    expect(log.entries[0]!.message).toContain('5000 ms');
    expect(clock.pending).toBe(0);
    expect(flow.ledger.difference).toBe(0);
  });

  test('rejects with the error of the flow if it breaks meanwhile', async () => {
    const { clock, start } = world();
    const source = createSource<number>(() => ({ stop: () => Promise.reject(new Error('stuck')) }));
    const flow = start(() => run(source, memoryChannel<number>(), recordingSink<number>()));
    await clock.flush();
    await expect(clock.settle(flow.stop())).rejects.toThrow('stuck');
    expect(clock.pending).toBe(0);
  });
});

describe('abort', () => {
  test('ends everything now, fences what is unsettled and leaves no timer', async () => {
    const { clock, start } = world();
    const source = scriptedSource(counting(1, 9), { maxInFlight: { deliveries: 3 } });
    const sink = recordingSink<number>(['nack', 'hold', 'hold', 'hold']);
    const flow = start(() => run(source, sink));
    await clock.advance(1000);
    const { length } = sink.received;
    flow.abort();
    await expect(flow.done).rejects.toMatchObject({ code: 'MR_FLOW_STOPPED' });
    await clock.flush();
    expect(clock.pending).toBe(0);
    expect(sink.unsettled()).toEqual([]);
    expect(sink.received.at(-1)!.settle('ack')).toBe(false);
    await clock.advance(60_000);
    expect(sink.received).toHaveLength(length);
    expect(source.sessions.closed).toBe(1);
    expect(flow.ledger.held).toBe(0);
    expect(flow.ledger.difference).toBe(0);
  });

  test('counts what a memory channel held as dropped', async () => {
    const { clock, start } = world();
    const flow = start(() =>
      run(
        scriptedSource(counting(1, 5)),
        memoryChannel<number>({ capacity: 4 }),
        recordingSink<number>(() => 'hold'),
      ),
    );
    await clock.flush();
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 5, held: 5 });
    flow.abort();
    await clock.flush();
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 4, held: 0, dropped: 4 });
    expect(clock.pending).toBe(0);
  });

  test('gives up the retries of a sink', async () => {
    const { clock, start } = world();
    let writes = 0;
    const sink = createSink<number>(() => {
      writes++;
      throw new Error('down');
    });
    const flow = start(() => run(scriptedSource(counting(1, 3)), sink));
    await clock.advance(500);
    const before = writes;
    flow.abort();
    await expect(sink.done).rejects.toMatchObject({ code: 'MR_FLOW_STOPPED' });
    await clock.advance(60_000);
    expect(writes).toBe(before);
    expect(clock.pending).toBe(0);
  });

  test('is quiet when nobody waits, and nothing after the end', async () => {
    const { clock, start } = world();
    const unhandled: unknown[] = [];
    const note = (cause: unknown) => void unhandled.push(cause);
    process.on('unhandledRejection', note);
    try {
      start(() => run(scriptedSource(['idle']), recordingSink())).abort();
      const flow = start(() => run(scriptedSource(counting(1, 1)), recordingSink<number>()));
      await clock.settle(flow.done);
      flow.abort();
      await flow.done;
      await clock.runUntilIdle();
    } finally {
      process.off('unhandledRejection', note);
    }
    expect(unhandled).toEqual([]);
  });
});

describe('a sink', () => {
  test('that was used before is refused', async () => {
    const { clock, start } = world();
    const sink = createSink<number>(() => undefined);
    await clock.settle(start(() => run(scriptedSource(counting(1, 1)), sink)).done);
    expect(() => run(scriptedSource(counting(1, 1)), sink)).toThrow(expect.objectContaining({ code: 'MR_SINK_USED' }));
  });

  test('that is in another flow now is refused, and the other flow goes on', async () => {
    const { clock, start } = world();
    const got: number[] = [];
    const sink = createSink<number>(events => void got.push(...events));
    const flow = start(() => run(scriptedSource(counting(1, 3)), sink));
    const source = scriptedSource(counting(4, 6));
    expect(() => start(() => run(source, sink))).toThrow(expect.objectContaining({ code: 'MR_SINK_USED' }));
    await clock.settle(flow.done);
    expect(got).toEqual([1, 2, 3]);
    expect(source.sessions.opened).toBe(0);
  });
});

describe('without run', () => {
  test('takeUntil behind the source stops it, and what is in flight is settled in the background', async () => {
    const { clock, start } = world();
    const source = scriptedSource([...counting(1, 3), 'idle']);
    const stop = new Subject<void>();
    const sink = recordingSink<number>(() => ({ outcome: 'ack', after: 20 }));
    const flow = start(() => run(source.pipe(takeUntil(stop)), sink));
    await clock.flush();
    stop.next();
    expect(sink.ended).toBe('complete');
    expect(source.sessions).toMatchObject({ stopped: 1, closed: 0 });
    await clock.settle(flow.done);
    expect(sink.acked).toEqual([1, 2, 3]);
    expect(source.sessions.closed).toBe(1);
    expect(source.position()).toBe(3);
  });

  test('take(2) hands over two, and the third is never emitted', async () => {
    const { clock, start } = world();
    const source = scriptedSource(counting(1, 5));
    const sink = recordingSink<number>();
    await clock.settle(start(() => run(source.pipe(take(2)), sink)).done);
    expect(sink.acked).toEqual([1, 2]);
    expect(source.position()).toBe(2);
  });
});

test('types: everything between source and sink is inferred', () => {
  const toLength = map((one: FlumeEvent) => one.body.length);
  const numbersSink = createSink<number>(() => undefined);
  const textSink = createSink<string>(() => undefined);
  expectTypeOf(numbersSink).toEqualTypeOf<Sink<number>>();

  // Never called: only the compiler looks at it.
  const flows = (source: Observable<Delivery>) => {
    run(
      source,
      intercept(map(one => one.body.toString())),
      memoryChannel(),
      intercept(
        map(body => {
          expectTypeOf(body).toEqualTypeOf<string>();
          return body.length;
        }),
      ),
      memoryChannel({ capacity: 7 }),
      numbersSink,
    );
    run(
      source,
      memoryChannel(),
      createSink(events => {
        expectTypeOf(events).toEqualTypeOf<readonly FlumeEvent[]>();
      }),
    );
    run(source, intercept(toLength), memoryChannel(), numbersSink);
    // @ts-expect-error -- numbers do not go into a sink for text
    run(source, intercept(toLength), memoryChannel(), textSink);
    // @ts-expect-error -- events do not go into a sink for numbers
    run(source, numbersSink);
    // @ts-expect-error -- the second stage does not take what the first makes
    run(source, intercept(toLength), intercept(map((text: string) => text)), textSink);
  };
  expectTypeOf(flows).returns.toBeVoid();
});
