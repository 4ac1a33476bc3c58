import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { rebatch } from '../../src/operators/rebatch.ts';
import { recordingSink } from '../../src/testing/index.ts';
import { block, emit, events, flowOf, text, texts } from './fixture.ts';

describe('rebatch', () => {
  test('joins small ones and cuts large ones, in order', async () => {
    const sink = recordingSink();
    const { clock, flow, ledger } = flowOf(emit('a', 'bc', 'defghijk', 'l', 'm'), sink, {
      stage: rebatch({ maxEvents: 3, maxDelay: 100 }),
    });
    await clock.settle(flow.done);
    expect(texts(sink.received)).toEqual(['abc', 'def', 'ghi', 'jkl', 'm']);
    expect(ledger.snapshot()).toMatchObject({ accepted: 13, delivered: 13, held: 0, copied: 0 });
  });

  test('L2: what is not full leaves after maxDelay', async () => {
    const sink = recordingSink();
    const { clock, flow } = flowOf([...emit('a', 'b'), { wait: 150 }, ...emit('c')], sink, {
      stage: rebatch({ maxEvents: 10, maxDelay: 100 }),
    });
    await clock.advance(99);
    expect(texts(sink.received)).toEqual([]);
    await clock.advance(1);
    expect(texts(sink.received)).toEqual(['ab']);
    await clock.settle(flow.done);
    expect(sink.received.map(({ at }) => at - sink.received[0]!.at)).toEqual([0, 150]);
  });

  test('L2: at once when the source may have no more unsettled, for nothing can come', async () => {
    const sink = recordingSink(['hold', 'ack', 'ack']);
    const { clock, flow } = flowOf([...emit('a', 'b', 'c', 'd', 'e'), 'idle'], sink, {
      stage: rebatch({ maxEvents: 10, maxDelay: 60_000 }),
      maxInFlight: { deliveries: 2 },
    });
    await clock.flush();
    expect(texts(sink.received)).toEqual(['ab']);
    sink.received[0]?.settle('ack');
    await clock.flush();
    expect(texts(sink.received)).toEqual(['ab', 'cd']);
    await clock.advance(60_000);
    expect(texts(sink.received)).toEqual(['ab', 'cd', 'e']);
    await clock.settle(flow.stop());
  });

  test('A10: a stop does not wait for maxDelay, what is held leaves at once', async () => {
    const sink = recordingSink();
    const { clock, flow } = flowOf([...emit('ab', 'c'), 'idle'], sink, {
      stage: rebatch({ maxEvents: 10, maxDelay: 60_000 }),
    });
    await clock.flush();
    expect(texts(sink.received)).toEqual([]);
    const began = clock.now();
    await clock.settle(flow.stop());
    expect(texts(sink.received)).toEqual(['abc']);
    expect(clock.now() - began).toBeLessThan(1000);
  });

  test('bounds bytes, and lets a larger event go alone', async () => {
    const sink = recordingSink();
    const script = [{ emit: events('abc') }, { emit: [...events('d'), ...events('e')] }];
    script[1]!.emit[0] = { ...script[1]!.emit[0]!, body: Buffer.from('dddd') };
    const { clock, flow } = flowOf(script, sink, { stage: rebatch({ maxEvents: 10, maxBytes: 2, maxDelay: 100 }) });
    await clock.settle(flow.done);
    expect(texts(sink.received)).toEqual(['ab', 'c', 'dddd', 'e']);
  });

  test('acks a delivery when all batches with some of it are acked', async () => {
    const sink = recordingSink(['ack', 'hold']);
    const { clock, source, flow } = flowOf(emit('ab', 'cd'), sink, { stage: rebatch({ maxEvents: 3, maxDelay: 100 }) });
    await clock.advance(200);
    expect(texts(sink.received)).toEqual(['abc', 'd']);
    expect(source.position()).toBe(1);
    sink.received[1]?.settle('ack');
    await clock.settle(flow.done);
    expect(source.position()).toBe(2);
  });

  test('a nack or reject concerns the failed events only, through blocks, too', async () => {
    const sink = recordingSink([{ outcome: 'reject', failed: [1] }]);
    const { clock, flow, ledger } = flowOf([{ emit: block('ab') }, { emit: block('cd') }], sink, {
      stage: rebatch({ maxEvents: 4, maxDelay: 100 }),
    });
    await clock.settle(flow.done);
    expect(texts(sink.received)).toEqual(['abcd', 'b']);
    expect(text(sink.acked)).toBe('acdb');
    expect(ledger.difference).toBe(0);
  });

  test('keeps blocks: a batch of blocks under the same headers is a block', async () => {
    const sink = recordingSink();
    const { clock, flow } = flowOf([{ emit: block('ab') }, { emit: block('cde') }], sink, {
      stage: rebatch({ maxEvents: 4, maxDelay: 100 }),
    });
    await clock.settle(flow.done);
    expect(sink.received.map(({ delivery }) => delivery.block?.bytes.toString())).toEqual(['a\nb\nc\nd\n', 'e\n']);
  });

  test('S4: unsubscribed, it gives back what it holds and leaves no timer', async () => {
    const sink = recordingSink();
    const { clock, source, flow } = flowOf([...emit('ab', 'c'), 'idle'], sink, {
      stage: rebatch({ maxEvents: 10, maxDelay: 60_000 }),
    });
    await clock.flush();
    flow.abort();
    await clock.flush();
    expect(source.settled.map(({ what }) => what)).toEqual(['released', 'released']);
    expect([sink.received.length, clock.pending]).toEqual([0, 0]);
  });

  test('whatever comes in, the batches are as large as they may be', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 12 }), fc.boolean()), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 6 }),
        async (sizes, maxEvents) => {
          const letters = sizes.map(([size], i) => String.fromCharCode(97 + i).repeat(size));
          const script = sizes.map(([, blocky], i) => ({ emit: blocky ? block(letters[i]!) : events(letters[i]!) }));
          const sink = recordingSink();
          const { clock, flow, ledger } = flowOf(script, sink, { stage: rebatch({ maxEvents, maxDelay: 10 }) });
          await clock.settle(flow.done);
          const all = letters.join('');
          expect(texts(sink.received).join('')).toBe(all);
          expect(sink.received.length).toBe(Math.ceil(all.length / maxEvents));
          expect(ledger.difference).toBe(0);
        },
      ),
      { numRuns: 50 },
    );
  });
});
