import { describe, expect, test } from 'vitest';
import { MillraceError } from '../../src/core/errors.ts';
import { event, headers } from '../../src/core/event.ts';
import { mapBatch, setHeaders } from '../../src/operators/map-batch.ts';
import { recordingSink } from '../../src/testing/index.ts';
import { block, emit, events, flowOf, texts } from './fixture.ts';

describe('mapBatch', () => {
  test('drops, changes and multiplies; nothing left is an ack, counted as filtered', async () => {
    const sink = recordingSink();
    const { clock, flow, source, ledger } = flowOf(emit('abc', 'x', 'd'), sink, {
      stage: mapBatch(({ events }) => events.filter(({ body }) => body.toString() !== 'x').flatMap(e => [e, e])),
    });
    await clock.settle(flow.done);
    expect([texts(sink.received), source.position()]).toEqual([['aabbcc', 'dd'], 3]);
    expect(ledger.snapshot()).toMatchObject({ accepted: 5, filtered: 1, copied: 4, delivered: 8 });
    expect(ledger.difference).toBe(0);
  });

  test('what it throws is a nack, and a reject if trying again cannot help', async () => {
    const failures = [
      new Error('now'),
      new MillraceError('MR_IO', 'later'),
      new MillraceError('MR_BAD_INPUT', 'never'),
    ];
    const { clock, flow, source } = flowOf(emit('a', 'b', 'c', 'd'), recordingSink(), {
      stage: mapBatch(batch => {
        const failure = failures.shift();
        if (failure !== undefined) throw failure;
        return batch;
      }),
      onFailure: 'report',
      maxInFlight: { deliveries: 1 },
    });
    await clock.settle(flow.done);
    expect(source.settled).toMatchObject([
      { what: 'nacked', cause: { code: 'MR_USER_CODE', cause: { message: 'now' } } },
      { what: 'nacked', cause: { code: 'MR_IO' } },
      { what: 'rejected', cause: { code: 'MR_BAD_INPUT' } },
      { what: 'acked' },
    ]);
  });
});

describe('setHeaders', () => {
  test('keeps blocks', async () => {
    const sink = recordingSink();
    const { clock, flow } = flowOf([{ emit: block('ab') }], sink, { stage: setHeaders({ dc: 'fra1' }) });
    await clock.settle(flow.done);
    expect(sink.received[0]?.delivery.block?.headers).toEqual(headers({ h: 'v', dc: 'fra1' }));
    expect(texts(sink.received)).toEqual(['ab']);
  });

  test('events that share their headers go on sharing them', async () => {
    const sink = recordingSink();
    const [a, b] = events('ab', headers({ n: '1' })) as [ReturnType<typeof event>, ReturnType<typeof event>];
    const { clock, flow } = flowOf([{ emit: [a, b, event('c')] }], sink, { stage: setHeaders({ dc: 'fra1' }) });
    await clock.settle(flow.done);
    const [first, second, third] = sink.received[0]!.events.map(one => one.headers);
    expect(first).toEqual(headers({ n: '1', dc: 'fra1' }));
    expect(second).toBe(first);
    expect(third).toEqual(headers({ dc: 'fra1' }));
  });

  test.each([
    [false, 'new'],
    [true, 'old'],
  ])('preserveExisting %s', async (preserveExisting, expected) => {
    const sink = recordingSink();
    const { clock, flow } = flowOf([{ emit: [event('a', headers({ dc: 'old' }))] }], sink, {
      stage: setHeaders({ dc: 'new', more: 'x' }, { preserveExisting }),
    });
    await clock.settle(flow.done);
    expect(sink.received[0]?.events[0]?.headers).toEqual(headers({ dc: expected, more: 'x' }));
  });

  test('a function gives the headers for each batch, from the flow’s clock', async () => {
    const sink = recordingSink();
    const { clock, flow } = flowOf([{ emit: events('a') }, { wait: 10 }, { emit: events('b') }], sink, {
      stage: setHeaders(context => ({ timestamp: String(context.clock.now()) })),
    });
    const start = clock.now();
    await clock.settle(flow.done);
    const stamps = sink.received.map(one => Number(one.events[0]?.headers['timestamp']) - start);
    expect(stamps).toEqual([0, 10]);
  });
});
