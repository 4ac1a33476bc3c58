import { describe, expect, test } from 'vitest';
import type { Clock } from '../../src/core/clock.ts';
import { MillraceError } from '../../src/core/errors.ts';
import { createSink } from '../../src/core/sink.ts';
import { memoryChannel } from '../../src/operators/channels/memory.ts';
import { deadLetter } from '../../src/operators/dead-letter.ts';
import { recordingSink, type Received } from '../../src/testing/index.ts';
import { emit, events, flowOf, text, texts } from './fixture.ts';

const labels = (received: readonly Received[]) =>
  received.flatMap(one => one.events.map(({ headers }) => ({ ...headers })));

describe('deadLetter', () => {
  test('takes what is rejected, with the reason; only the failed events go there', async () => {
    const dead = recordingSink();
    const sink = recordingSink([{ outcome: 'reject', failed: [1] }]);
    const { clock, flow, source, ledger } = flowOf([{ emit: events('abc', { h: 'v' }) }], sink, {
      stage: deadLetter(dead),
    });
    await clock.settle(flow.done);
    expect([text(sink.acked), texts(dead.received)]).toEqual(['ac', ['b']]);
    expect(labels(dead.received)).toEqual([
      {
        h: 'v',
        'dead-letter-reason': 'rejected',
        'dead-letter-cause': 'the script says reject',
        'dead-letter-attempts': '1',
      },
    ]);
    expect(source.settled.map(({ what }) => what)).toEqual(['acked']);
    expect([dead.ended, sink.ended]).toEqual(['complete', 'complete']);
    expect(ledger.snapshot()).toMatchObject({ accepted: 3, delivered: 2, rejected: 1, held: 0, copied: 0 });
    expect(ledger.difference).toBe(0);
  });

  test('a nack counts as a reject from maxAttempts on', async () => {
    const dead = recordingSink();
    const sink = recordingSink(['nack', { outcome: 'nack', failed: [1] }, 'nack']);
    const { clock, flow, ledger } = flowOf(emit('ab', 'c'), sink, { stage: deadLetter(dead, { maxAttempts: 3 }) });
    await clock.settle(flow.done);
    expect([texts(sink.received), texts(dead.received)]).toEqual([['ab', 'ab', 'b', 'c'], ['b']]);
    expect(labels(dead.received)).toMatchObject([{ 'dead-letter-reason': 'attempts', 'dead-letter-attempts': '3' }]);
    expect(ledger.difference).toBe(0);
  });

  test('S2: nothing is acked before the dead letter has it', async () => {
    const dead = recordingSink(['hold']);
    const { clock, flow, source, ledger } = flowOf([...emit('ab'), 'idle'], recordingSink(['reject']), {
      stage: deadLetter(dead),
    });
    await clock.advance(1000);
    expect(source.settled).toEqual([]);
    expect(ledger.snapshot()).toMatchObject({ held: 2, rejected: 0 });
    const books = dead.received[0]?.delivery.ledger;
    expect([books?.snapshot(), books?.difference]).toMatchObject([{ accepted: 2, held: 2, delivered: 0 }, 0]);
    dead.received[0]?.settle('ack');
    expect([books?.snapshot(), books?.difference]).toMatchObject([{ accepted: 2, held: 0, delivered: 2 }, 0]);
    expect(source.settled.map(({ what }) => what)).toEqual(['acked']);
    expect(ledger.snapshot()).toMatchObject({ held: 0, rejected: 2 });
    await clock.settle(flow.stop());
  });

  test('what the dead letter nacks is nacked, and what it rejects is rejected', async () => {
    const dead = recordingSink([{ outcome: 'nack', failed: [0] }, 'reject']);
    const sink = recordingSink(['reject', 'reject', 'ack']);
    const { clock, flow, ledger } = flowOf(emit('ab'), sink, { stage: deadLetter(dead) });
    await clock.settle(flow.done);
    expect([texts(sink.received), texts(dead.received)]).toEqual([
      ['ab', 'ab', 'ab'],
      ['ab', 'ab'],
    ]);
    expect(ledger.snapshot()).toMatchObject({ delivered: 2, rejected: 0, held: 0 });
    expect(ledger.difference).toBe(0);
    // The dead letter's own books balance, too: it has one event of the first attempt.
    const books = dead.received[0]!.delivery.ledger;
    expect(books.snapshot()).toMatchObject({ accepted: 1, delivered: 1 });
    expect(books).not.toBe(ledger);
  });

  test('a real sink: a poison event is found by halving, the rest is written', async () => {
    const written: string[] = [];
    const sink = createSink(all => {
      if (text(all).includes('X')) throw new MillraceError('MR_BAD_INPUT', 'no X here');
      written.push(text(all));
    });
    const dead: string[] = [];
    const letters = createSink(all => void dead.push(text(all)));
    const { clock, flow, ledger } = flowOf(emit('abXcdeXf', 'g'), sink, { stage: deadLetter(letters) });
    await clock.settle(flow.done);
    expect([written.join(''), dead]).toEqual(['abcdefg', ['XX']]);
    expect(ledger.snapshot()).toMatchObject({ accepted: 9, delivered: 7, rejected: 2, held: 0, copied: 0 });
    expect(ledger.difference).toBe(0);
  });

  test('the dead letter may be a pipeline; the flow waits for it', async () => {
    let clock: Clock | undefined;
    const written: string[] = [];
    let closed = false;
    const dead = createSink({
      open: context => void (clock = context.clock),
      write: ({ events }) => {
        written.push(text(events));
        return new Promise(resolve => clock?.after(500, resolve));
      },
      close: () => void (closed = true),
    });
    const run = flowOf(emit('a'), recordingSink(['reject']), {
      stage: deadLetter(deliveries => deliveries.pipe(memoryChannel()).subscribe(dead)),
    });
    await run.clock.settle(run.flow.done);
    expect([written, closed]).toEqual([['a'], true]);
    const { ledger } = run;
    expect(ledger.snapshot()).toMatchObject({ accepted: 1, rejected: 1, held: 0 });
  });

  test('the dead letter may be a channel that has other inputs; each ledger balances', async () => {
    const dead = recordingSink(() => 'hold');
    const channel = memoryChannel.create();
    const output = channel.output().subscribe(dead);
    const { clock, flow, ledger } = flowOf(emit('a'), recordingSink(['reject']), {
      stage: deadLetter(channel.input()),
    });
    await clock.settle(flow.done);
    expect(ledger.snapshot()).toMatchObject({ accepted: 1, rejected: 1, held: 0 });
    await expect.poll(() => dead.received.length).toBe(1);
    const books = dead.received[0]!.delivery.ledger;
    expect([books.accepted, books.held, books.difference]).toEqual([1, 1, 0]);
    output.unsubscribe();
    await channel.close();
  });

  test('S7: a reject that comes too late buries nothing', async () => {
    const dead = recordingSink();
    const sink = recordingSink([{ outcome: 'nack', after: 5 }, 'hold']);
    const { clock, flow } = flowOf(emit('a', 'b'), sink, { stage: deadLetter(dead) });
    await clock.settle(flow.done);
    expect(sink.received[1]?.settle('reject')).toBe(false);
    expect([text(sink.acked), dead.received.length]).toEqual(['ab', 0]);
  });

  test('unsubscribed, it still takes what is rejected while the flow drains, then ends', async () => {
    const dead = recordingSink();
    const sink = recordingSink([{ outcome: 'reject', after: 50 }]);
    const { clock, flow, source } = flowOf([...emit('a'), 'idle'], sink, { stage: deadLetter(dead) });
    await clock.flush();
    const stopped = flow.stop();
    await clock.settle(stopped);
    expect([texts(dead.received), dead.ended]).toEqual([['a'], 'complete']);
    expect(source.position()).toBe(1);
  });

  test('a dead letter that goes away is reported, and nothing is lost', async () => {
    const sink = recordingSink(['reject', 'ack']);
    const { clock, flow, log } = flowOf(emit('a'), sink, {
      stage: deadLetter(deliveries => {
        const subscription = deliveries.subscribe();
        subscription.unsubscribe();
        return subscription;
      }),
    });
    await clock.settle(flow.done);
    expect(text(sink.acked)).toBe('a');
    expect(log.entries[0]?.message).toContain('the dead letter is gone');
  });
});
