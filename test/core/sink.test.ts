import { Subject } from 'rxjs';
import { describe, expect, test } from 'vitest';
import type { Delivery } from '../../src/core/delivery.ts';
import { MillraceError } from '../../src/core/errors.ts';
import type { Batch } from '../../src/core/event.ts';
import { run } from '../../src/core/flow.ts';
import { createSink, PartlyWritten, type SinkOptions, type SinkWriter } from '../../src/core/sink.ts';
import { scriptedSource } from '../../src/testing/index.ts';
import { counting, deferred, numbers, world } from './fakes.ts';

/** A flow from a script into a writer. */
const into = (
  writer: SinkWriter<number> | ((events: readonly number[]) => void | Promise<void>),
  script: Parameters<typeof scriptedSource<number>>[0],
  options: SinkOptions = {},
) => {
  const { start, ...rest } = world();
  const source = scriptedSource<number>(script, { redelivery: { onReject: 'drop' } });
  const sink = createSink<number>(writer, options);
  const flow = start(() => run(source, sink));
  return { source, sink, flow, ...rest };
};

const sinkMetrics = (flow: { metrics: { snapshot(): Record<string, Record<string, number>> } }) =>
  flow.metrics.snapshot()['SINK.sink'];

const poison = () => new MillraceError('MR_BAD_INPUT', 'cannot be written');

describe('writing', () => {
  test.each([1, 3])('a write that fails %i times is repeated in place: nothing overtakes it', async failures => {
    const written: number[] = [];
    let left = failures;
    const { clock, flow, sink } = into(
      async ([n]) => {
        if (n === 2 && left-- > 0) throw new Error('down');
        written.push(n!);
      },
      counting(1, 5),
    );
    await clock.flush();
    expect(sink.trouble).toEqual(new Error('down'));
    await clock.settle(flow.done);
    expect(written).toEqual([1, 2, 3, 4, 5]);
    expect(sink.trouble).toBeUndefined();
    expect(sinkMetrics(flow)).toMatchObject({
      EventDrainAttemptCount: 5,
      EventDrainSuccessCount: 5,
      EventWriteFail: failures,
    });
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 5, delivered: 5, copied: 0 });
  });

  test('waits longer after each failure, up to the longest wait, with jitter', async () => {
    const at: number[] = [];
    const { clock, flow } = into(
      () => {
        at.push(clock.now());
        if (at.length < 6) throw new Error('down');
      },
      counting(1, 1),
      { retry: { initial: 10, max: 40 } },
    );
    await clock.settle(flow.done);
    const waits = at.slice(1).map((time, i) => time - at[i]!);
    for (const [i, longest] of [10, 20, 40, 40, 40].entries()) {
      expect(waits[i]).toBeGreaterThanOrEqual(longest / 2);
      expect(waits[i]).toBeLessThanOrEqual(longest);
    }
  });

  test('nacks when its attempts are spent; the source delivers again', async () => {
    let writes = 0;
    const { clock, flow, source, log } = into(
      () => {
        if (++writes <= 4) throw new Error('down');
      },
      counting(1, 1),
      { retry: { attempts: 2 } },
    );
    await clock.settle(flow.done);
    expect(writes).toBe(5);
    expect(source.settled).toMatchObject([{ what: 'acked' }]);
    expect(log.entries.filter(({ level }) => level === 'warn')).toHaveLength(1);
  });

  test.each(['open', 'write'] as const)(
    'a destination that is away for an hour: the log has a line now and then, and one when it is over (%s)',
    async which => {
      let down = true;
      const fail = async () => {
        if (down) throw new Error('down');
      };
      const { clock, flow, log } = into(
        { write: () => (which === 'write' ? fail() : undefined), ...(which === 'open' && { open: fail }) },
        counting(1, 3),
        { retry: { max: 2000 } },
      );
      const began = new Date(clock.now()).toISOString();
      await clock.advance(3_600_000);
      const failures = sinkMetrics(flow)!['EventWriteFail']!;
      expect(failures).toBeGreaterThan(1800);
      const warnings = log.entries.filter(({ level }) => level === 'warn');
      expect(warnings.length).toBeGreaterThan(55);
      expect(warnings.length).toBeLessThanOrEqual(60);
      expect(warnings[0]).toMatchObject({
        message: expect.stringMatching(/^sink: (opening|a write) failed, trying again in \d+ ms: down$/) as string,
        fields: { attempt: 1 },
      });
      expect(warnings[1]!.message).toContain(`attempts have failed since ${began}`);
      down = false;
      await clock.settle(flow.done);
      expect(log.entries.filter(({ level }) => level === 'info')).toEqual([
        expect.objectContaining({
          message: expect.stringContaining(`${failures} attempts have failed since ${began}`) as string,
        }),
      ]);
    },
  );

  test('what fails again and again between successes is no reason for more lines', async () => {
    let writes = 0;
    const { clock, flow, log } = into(
      () => {
        if (++writes % 2 === 1) throw new Error('down');
      },
      counting(1, 100),
      { retry: { initial: 1, max: 1 } },
    );
    await clock.settle(flow.done);
    expect(writes).toBe(200);
    expect(log.entries.map(({ level }) => level)).toEqual(['warn', 'info']);
  });

  test('one write at a time, and with concurrency n that many', async () => {
    for (const concurrency of [1, 3]) {
      let open = 0;
      let most = 0;
      const { clock, flow } = into(
        async () => {
          most = Math.max(most, ++open);
          await new Promise<void>(resolve => clock.after(10, resolve));
          open--;
        },
        counting(1, 9),
        { concurrency },
      );
      await clock.settle(flow.done);
      expect(most).toBe(concurrency);
    }
  });

  test('what waits for a write is gathered, up to the bytes that are worth it; each delivery is settled', async () => {
    const body = Buffer.alloc(10);
    const written: number[][] = [];
    const gate = deferred();
    const { start, clock } = world();
    const source = scriptedSource<{ id: number; body: Buffer }>(
      [1, 2, 3, 4, 5].map(id => ({ emit: [{ id, body }] })),
      { redelivery: { onReject: 'drop' } },
    );
    let down = true;
    const sink = createSink<{ id: number; body: Buffer }>({
      gather: 30,
      write: async ({ events }) => {
        if (written.length === 0) await gate.promise;
        else if (down) {
          down = false;
          throw new Error('down');
        }
        written.push(events.map(({ id }) => id));
      },
    });
    const flow = start(() => run(source, sink));
    await clock.flush();
    gate.resolve();
    await clock.settle(flow.done);
    expect(written).toEqual([[1], [2, 3, 4], [5]]);
    expect(source.settled.map(({ what }) => what)).toEqual(Array(5).fill('acked'));
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 5, delivered: 5, copied: 0 });
    expect(sinkMetrics(flow)).toMatchObject({ EventDrainSuccessCount: 5, EventWriteFail: 1 });
  });

  test('a writer may write at once, promise, or return whatever is no promise', async () => {
    const written: number[] = [];
    const { clock, flow } = into(
      // As JavaScript may: push returns a number.
      { write: (batch: Batch<number>) => written.push(...batch.events) as unknown as undefined },
      counting(1, 3),
    );
    await clock.settle(flow.done);
    expect(written).toEqual([1, 2, 3]);
  });

  test('anything that can be awaited is awaited, native promise or not', async () => {
    const query = deferred();
    const lazy = { then: (yes: () => void, no: (cause: Error) => void) => void query.promise.then(yes, no) };
    const { clock, flow, source } = into(() => lazy as unknown as Promise<void>, counting(1, 1));
    await clock.flush();
    expect(source.settled).toEqual([]);
    query.resolve();
    await clock.settle(flow.done);
    expect(source.settled).toMatchObject([{ what: 'acked' }]);
  });

  test('20 000 writes that return at once do not nest', async () => {
    const { clock, flow } = into(
      () => undefined,
      Array.from({ length: 20_000 }, (_, i) => ({ emit: [i] })),
    );
    await clock.settle(flow.done);
    expect(flow.ledger.delivered).toBe(20_000);
  });

  test('what was taken back by its emitter is not written any more', async () => {
    const { clock, scope, inside } = world();
    const written: number[] = [];
    const first = deferred();
    const sink = createSink<number>(async events => {
      written.push(...events);
      await first.promise;
    });
    inside(() => {
      sink.attach(scope);
    });
    const source = scriptedSource(counting(1, 3));
    const subscription = inside(() => source.subscribe(delivery => sink.next(delivery)));
    await clock.flush();
    scope.abortSources();
    subscription.unsubscribe();
    first.resolve();
    await clock.flush();
    expect(written).toEqual([1]);
    expect(scope.ledger.delivered).toBe(0);
  });
});

test('a writer that says which events it has gets only the others again, and what can never be written is rejected alone', async () => {
  const writes: number[][] = [];
  let down = true;
  const { clock, flow, sink } = into(
    async events => {
      writes.push([...events]);
      const failed = events.flatMap((n, i): [number, Error][] =>
        n % 5 === 0 ? [[i, poison()]] : n % 3 === 0 && down ? [[i, new Error('down')]] : [],
      );
      down = false;
      if (failed.length > 0) throw new PartlyWritten(new Map(failed));
    },
    [{ emit: numbers(1, 10) }, { emit: numbers(11, 12) }],
  );
  await clock.settle(flow.done);
  expect(writes).toEqual([
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    [3, 6, 9],
    [11, 12],
  ]);
  expect(sink.trouble).toBeUndefined();
  expect(flow.ledger.snapshot()).toMatchObject({ accepted: 12, delivered: 10, rejected: 2, held: 0 });
  expect(sinkMetrics(flow)).toMatchObject({ EventDrainSuccessCount: 10, EventWriteFail: 1 });
});

test.each(['stop', 'abort'] as const)('an opening that takes for ever is told when nobody needs it (%s)', async how => {
  let wanted: AbortSignal | undefined;
  const { clock, flow } = into(
    {
      open: ({ unwanted }) =>
        new Promise((_, reject) => {
          wanted = unwanted;
          unwanted.addEventListener('abort', () => reject(new Error('given up')));
        }),
      write: () => undefined,
    },
    ['idle'],
  );
  await clock.flush();
  expect(wanted?.aborted).toBe(false);
  if (how === 'stop') await clock.settle(flow.stop());
  else {
    flow.abort();
    await expect(clock.settle(flow.done)).rejects.toThrow('aborted');
  }
  expect(wanted?.aborted).toBe(true);
});

test('an opening is needed as long as there is something to write', async () => {
  const opened = deferred();
  let given: AbortSignal | undefined;
  const { clock, flow } = into(
    {
      open: ({ unwanted }) => {
        given = unwanted;
        return opened.promise;
      },
      write: () => undefined,
    },
    counting(1, 1),
  );
  await clock.flush();
  const stopped = flow.stop();
  await clock.flush();
  expect(given?.aborted).toBe(false);
  opened.resolve();
  await clock.settle(stopped);
  expect(flow.ledger.delivered).toBe(1);
  expect(given?.aborted).toBe(false);
});

test('its trouble is what keeps it from writing, and not that something was not written', async () => {
  const away = new MillraceError('MR_IO', 'nobody answers');
  let down = true;
  const { clock, flow, sink, log } = into(() => {
    if (!down) return;
    throw new PartlyWritten(
      new Map([
        [0, poison()],
        [1, away],
      ]),
    );
  }, [{ emit: numbers(1, 3) }]);
  await clock.flush();
  expect(sink.trouble).toBe(away);
  expect(log.entries[0]?.message).toMatch(/1 of 3 events were not written, trying again in \d+ ms: nobody answers$/);
  down = false;
  await clock.settle(flow.done);
  expect(sink.trouble).toBeUndefined();
});

test('when its attempts are spent, only what was not written is nacked', async () => {
  const writes: number[][] = [];
  const { clock, flow } = into(
    async events => {
      writes.push([...events]);
      if (writes.length < 4) throw new PartlyWritten(new Map([[events.indexOf(2), new Error('down')]]));
    },
    [{ emit: numbers(1, 3) }],
    { retry: { attempts: 3 } },
  );
  await clock.settle(flow.done);
  expect(writes).toEqual([[1, 2, 3], [2], [2], [2]]);
  expect(flow.ledger.snapshot()).toMatchObject({ accepted: 3, delivered: 3, copied: 0, rejected: 0 });
});

describe('a permanent error', () => {
  test('rejects just the one event, in few writes, and keeps the order of the others', async () => {
    const written: number[] = [];
    const writes: number[] = [];
    const { clock, flow } = into(
      events => {
        writes.push(events.length);
        if (events.includes(37)) throw poison();
        written.push(...events);
      },
      [{ emit: numbers(1, 64) }, { emit: [100] }],
    );
    await clock.settle(flow.done);
    expect(written).toEqual([...numbers(1, 36), ...numbers(38, 64), 100]);
    // The batch, two halves at each of six levels, the next batch.
    expect(writes).toHaveLength(1 + 2 * 6 + 1);
    expect(flow.ledger.snapshot()).toMatchObject({ accepted: 65, delivered: 64, rejected: 1, held: 0 });
    expect(flow.ledger.difference).toBe(0);
  });

  test.each([
    ['all', [1, 2, 3, 4]],
    ['first and last', [1, 4]],
    ['one of one', [1]],
  ])('%s of a batch', async (_, bad) => {
    const written: number[] = [];
    const all = numbers(1, Math.max(...bad));
    const { clock, flow } = into(
      async events => {
        if (events.some(n => bad.includes(n))) throw poison();
        written.push(...events);
      },
      [{ emit: all }],
    );
    await clock.settle(flow.done);
    expect(written).toEqual(all.filter(n => !bad.includes(n)));
    expect(flow.ledger.snapshot()).toMatchObject({ delivered: written.length, rejected: bad.length });
    expect(flow.ledger.difference).toBe(0);
  });

  test('beside a temporary one: each half is retried for itself', async () => {
    const written: number[] = [];
    let down = 2;
    const { clock, flow } = into(
      events => {
        if (events.includes(1)) throw poison();
        if (down-- > 0) throw new Error('down');
        written.push(...events);
      },
      [{ emit: [1, 2, 3, 4] }, { emit: [5] }],
    );
    await clock.settle(flow.done);
    expect(written).toEqual([2, 3, 4, 5]);
    expect(flow.ledger.difference).toBe(0);
  });
});

describe('opening', () => {
  test('is tried again until it succeeds, before anything is written', async () => {
    const calls: string[] = [];
    let left = 2;
    const { clock, flow } = into(
      {
        async open() {
          calls.push('open');
          if (left-- > 0) throw new Error('refused');
        },
        write: ({ events }) => void calls.push(`write ${events.join()}`),
        close: () => void calls.push('close'),
      },
      counting(1, 2),
    );
    await clock.settle(flow.done);
    expect(calls).toEqual(['open', 'open', 'open', 'write 1', 'write 2', 'close']);
  });

  test('is shared by concurrent writes', async () => {
    let opened = 0;
    const written: number[] = [];
    const { clock, flow } = into(
      {
        async open() {
          await new Promise<void>(resolve => clock.after(20, resolve));
          if (++opened < 3) throw new Error('refused');
        },
        write: ({ events }) => void written.push(...events),
      },
      counting(1, 9),
      { concurrency: 4 },
    );
    await clock.settle(flow.done);
    expect(opened).toBe(3);
    expect(written.sort()).toEqual(numbers(1, 9));
  });

  test('that fails as often as there are attempts nacks what waits, and goes on trying', async () => {
    let opened = 0;
    const { clock, flow, source } = into(
      {
        open() {
          if (++opened < 6) throw new Error('refused');
        },
        write: () => undefined,
      },
      counting(1, 2),
      { retry: { attempts: 2, initial: 10, max: 20 } },
    );
    await clock.settle(flow.done);
    expect(opened).toBe(6);
    expect(source.settled).toMatchObject([{ what: 'acked' }, { what: 'acked' }]);
    expect(flow.metrics.snapshot()['SOURCE.source']!['ChannelWriteFail']).toBeGreaterThan(0);
  });

  test('that fails does not hold up a flow with nothing to write, and what never opened is not closed', async () => {
    const { clock, start } = world();
    let closed = 0;
    const sink = createSink<number>(
      { open: () => Promise.reject(new Error('refused')), write: () => undefined, close: () => void (closed += 1) },
      { retry: { initial: 20_000, max: 30_000 } },
    );
    const flow = start(() => run(scriptedSource<number>(['idle']), sink));
    await clock.flush();
    const began = clock.now();
    await clock.settle(flow.stop());
    expect(clock.now() - began).toBe(0);
    expect(closed).toBe(0);
    expect(clock.pending).toBe(0);
  });

  test('that is under way when the flow ends with nothing to write is not repeated', async () => {
    const { clock, start } = world();
    const opening = deferred();
    const sink = createSink<number>({ open: () => opening.promise, write: () => undefined });
    const flow = start(() => run(scriptedSource<number>([]), sink));
    await clock.flush();
    opening.reject(new Error('refused'));
    await clock.settle(flow.done);
    expect(clock.pending).toBe(0);
  });
});

describe('the end', () => {
  test('comes when the last write is done and the destination is closed', async () => {
    const { clock, inside } = world();
    const order: string[] = [];
    const writing = deferred();
    const deliveries = new Subject<Delivery<number>>();
    const sink = createSink<number>({
      write: () => writing.promise,
      close: () => void order.push('close'),
    });
    void sink.done.then(() => order.push('done'));
    inside(() => deliveries.subscribe(sink));
    const source = scriptedSource(counting(1, 2));
    inside(() => source.subscribe(delivery => deliveries.next(delivery)));
    await clock.flush();
    deliveries.complete();
    await clock.flush();
    expect(order).toEqual([]);
    writing.resolve();
    await clock.settle(sink.done);
    expect(order).toEqual(['close', 'done']);
    expect(source.settled).toMatchObject([{ what: 'acked' }, { what: 'acked' }]);
  });

  test('of an unsubscribed sink is the same', async () => {
    const { clock, inside } = world();
    const written: number[] = [];
    const sink = createSink<number>(async events => {
      await new Promise<void>(resolve => clock.after(5, resolve));
      written.push(...events);
    });
    const subscription = inside(() => scriptedSource([...counting(1, 3), 'idle']).subscribe(sink));
    await clock.flush();
    subscription.unsubscribe();
    await clock.settle(sink.done);
    expect(written).toEqual([1, 2, 3]);
  });

  test('after an error waits for the writes too, then done rejects', async () => {
    const written: number[] = [];
    const { clock, flow, sink } = into(
      async events => {
        await new Promise<void>(resolve => clock.after(5, resolve));
        written.push(...events);
      },
      [...counting(1, 3), { fail: new Error('unplugged') }],
    );
    await expect(clock.settle(flow.done)).rejects.toThrow('unplugged');
    await expect(sink.done).rejects.toThrow('unplugged');
    expect(written).toEqual([1, 2, 3]);
  });

  test('by abort: what waits is nacked, a write that fails later is not repeated', async () => {
    const { clock, inside } = world();
    const writing = deferred();
    let writes = 0;
    const sink = createSink<number>(() => {
      writes++;
      return writing.promise;
    });
    const source = scriptedSource([{ emit: [1, 2] }, { emit: [3] }, 'idle'], { redelivery: { initial: 1000 } });
    inside(() => source.subscribe(delivery => sink.next(delivery)));
    await clock.flush();
    sink.abort();
    writing.reject(poison());
    await clock.flush();
    await expect(sink.done).rejects.toMatchObject({ code: 'MR_FLOW_STOPPED' });
    expect(writes).toBe(1);
  });

  test('a sink without concurrency is a mistake', () => {
    expect(() => createSink(() => undefined, { concurrency: 0 })).toThrow(
      expect.objectContaining({ code: 'MR_CONFIG' }),
    );
  });
});
