import fc from 'fast-check';
import { take, type Observable } from 'rxjs';
import { describe, expect, test } from 'vitest';
import type { Delivery, Outcome } from '../../../src/core/delivery.ts';
import type { FlumeEvent } from '../../../src/core/event.ts';
import { createSink } from '../../../src/core/sink.ts';
import { run } from '../../../src/core/flow.ts';
import { memoryChannel } from '../../../src/operators/channels/memory.ts';
import { replicate } from '../../../src/operators/routing/replicate.ts';
import { nullSink } from '../../../src/sinks/null.ts';
import { seqSource } from '../../../src/sources/seq.ts';
import { recordingSink, type SinkStep } from '../../../src/testing/index.ts';
import { block, emit, events, flowOf, text, texts } from '../fixture.ts';

describe('replicate', () => {
  test('hands each delivery to all branches, and completes them all', async () => {
    const [a, b] = [recordingSink(), recordingSink()];
    const { clock, flow, source, ledger } = flowOf(emit('ab', 'c'), replicate([a, b]));
    await clock.settle(flow.done);
    expect([texts(a.received), texts(b.received)]).toEqual([
      ['ab', 'c'],
      ['ab', 'c'],
    ]);
    expect([a.ended, b.ended, source.position()]).toEqual(['complete', 'complete', 2]);
    expect(ledger.snapshot()).toMatchObject({ accepted: 3, copied: 3, delivered: 6, held: 0 });
    expect(ledger.difference).toBe(0);
  });

  test('F1: acks only when all required branches have', async () => {
    const [a, b] = [recordingSink(), recordingSink(['hold'])];
    const { clock, flow, source } = flowOf([...emit('a'), 'idle'], replicate([a, b]));
    await clock.advance(100);
    expect(source.settled).toEqual([]);
    b.received[0]?.settle('ack');
    expect(source.settled.map(({ what }) => what)).toEqual(['acked']);
    await clock.settle(flow.stop());
  });

  test('S6: a branch that nacks gets it again, in order; the others notice nothing', async () => {
    const a = recordingSink();
    const b = recordingSink([{ outcome: 'nack', failed: [1] }, 'nack']);
    const { clock, flow, source, ledger } = flowOf(emit('ab', 'cd', 'e'), replicate([a, b]));
    await clock.settle(flow.done);
    expect(texts(a.received)).toEqual(['ab', 'cd', 'e']);
    expect(texts(b.received)).toEqual(['ab', 'b', 'b', 'cd', 'e']);
    expect(b.received.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 1, 1]);
    expect(source.settled.map(({ what }) => what)).toEqual(['acked', 'acked', 'acked']);
    expect(ledger.difference).toBe(0);
  });

  test('a source that answers somebody is told at once, and nothing is repeated for it', async () => {
    const [a, b] = [recordingSink(), recordingSink(['nack'])];
    const { clock, flow, source } = flowOf([...emit('ab'), 'idle'], replicate([a, b]), { onFailure: 'report' });
    await clock.flush();
    expect(source.settled.map(({ what }) => what)).toEqual(['nacked']);
    await clock.advance(60_000);
    expect([texts(a.received), texts(b.received)]).toEqual([['ab'], ['ab']]);
    expect(flow.ledger.difference).toBe(0);
    await clock.settle(flow.stop());
  });

  test('F1: however branches fail, each delivers everything once, undisturbed by the others', async () => {
    const step = fc.record({
      outcome: fc.constantFrom<Outcome>('ack', 'ack', 'nack'),
      after: fc.constantFrom(0, 0, 5, 50),
      failed: fc.array(fc.nat(), { minLength: 1, maxLength: 3 }),
    });
    const words = fc.array(fc.stringMatching(/^[a-z]{1,5}$/), { minLength: 1, maxLength: 10 });
    const check = async (script: string[], steps: readonly (readonly SinkStep[])[]) => {
      const sinks = steps.map(own => recordingSink(own));
      const { clock, flow, source, ledger } = flowOf(emit(...script), replicate(sinks));
      await clock.settle(flow.done);
      for (const { acked } of sinks) expect(onceEach(acked, source.accepted)).toBe(true);
      expect(source.settled.map(({ what }) => what)).toEqual(script.map(() => 'acked'));
      expect(ledger.delivered).toBe(sinks.length * source.accepted.length);
      expect(ledger.difference).toBe(0);
    };
    const onceEach = (acked: readonly FlumeEvent[], all: readonly FlumeEvent[]) =>
      acked.length === all.length && new Set(acked).size === all.length;
    const branches = fc.array(fc.array(step, { maxLength: 20 }), { minLength: 1, maxLength: 3 });
    await fc.assert(fc.asyncProperty(words, branches, check), { numRuns: 60 });
  });

  test('retry.attempts: then the delivery is nacked, and comes to all again', async () => {
    const a = recordingSink();
    const b = recordingSink(['nack', 'nack', 'ack']);
    const { clock, flow } = flowOf(emit('a'), replicate([a, b], { retry: { attempts: 2, initial: 10 } }));
    await clock.settle(flow.done);
    expect([texts(a.received).length, texts(b.received).length]).toEqual([2, 3]);
  });

  test('a source that reports hears of the nack at once when attempts is 1', async () => {
    const { clock, flow, source } = flowOf(
      emit('a'),
      replicate([recordingSink(), recordingSink(['nack'])], { retry: { attempts: 1 } }),
      {
        onFailure: 'report',
      },
    );
    await clock.settle(flow.done);
    expect(source.settled.map(({ what }) => what)).toEqual(['nacked']);
  });

  test('what a branch rejects is rejected, once all have settled', async () => {
    const [a, b] = [recordingSink(['hold']), recordingSink([{ outcome: 'reject', failed: [0] }])];
    const { clock, flow, ledger } = flowOf(emit('ab'), replicate([a, b]), { redelivery: { onReject: 'drop' } });
    await clock.advance(10);
    expect(ledger.rejected).toBe(0);
    a.received[0]?.settle('ack');
    await clock.settle(flow.done);
    expect([text(a.acked), text(b.acked), text(b.rejected)]).toEqual(['ab', 'b', 'a']);
    expect(ledger.snapshot()).toMatchObject({ delivered: 3, rejected: 1, held: 0, filtered: 0 });
    expect(ledger.difference).toBe(0);
  });

  test('F1: an optional branch never delays or fails a delivery; what it cannot take is dropped and counted', async () => {
    const main = recordingSink();
    const slow = recordingSink(() => 'hold');
    const bad = recordingSink(() => 'nack');
    const { clock, flow, ledger, source } = flowOf(
      emit('ab', 'cd', 'ef'),
      replicate([main], { optional: [slow, bad], optionalBuffer: { events: 4, drain: 1000 } }),
    );
    await clock.advance(10);
    expect(source.position()).toBe(3);
    expect([texts(main.received), texts(slow.received), texts(bad.received)]).toEqual([
      ['ab', 'cd', 'ef'],
      ['ab', 'cd'],
      ['ab', 'cd', 'ef'],
    ]);
    expect(ledger.snapshot()).toMatchObject({ accepted: 6, copied: 12, delivered: 6, dropped: 8, held: 4 });
    expect(ledger.difference).toBe(0);
    await clock.settle(flow.done);
    // The slow one had its time after the end.
    expect(ledger.snapshot()).toMatchObject({ dropped: 12, held: 0 });
    expect([slow.ended, bad.ended, ledger.difference]).toEqual(['complete', 'complete', 0]);
  });

  test('an optional copy that is larger than the buffer goes alone', async () => {
    const optional = recordingSink();
    const { clock, flow } = flowOf(
      emit('abcdef'),
      replicate([nullSink()], { optional: [optional], optionalBuffer: { events: 2 } }),
    );
    await clock.settle(flow.done);
    expect(texts(optional.received)).toEqual(['abcdef']);
  });

  test('branches may be pipelines, channel inputs and blocks', async () => {
    const [a, b] = [recordingSink(), recordingSink()];
    const channel = memoryChannel.create();
    const output = channel.output().subscribe(b);
    const { clock, flow } = flowOf(
      [{ emit: block('ab') }],
      replicate([deliveries => deliveries.pipe(memoryChannel()).subscribe(a), channel.input()]),
    );
    await clock.settle(flow.done);
    await channel.closed;
    output.unsubscribe();
    expect([a, b].map(sink => sink.received[0]?.delivery.block?.bytes.toString())).toEqual(['a\nb\n', 'a\nb\n']);
  });

  test('stop drains all branches, abort ends them', async () => {
    const script = [...emit('a', 'b'), 'idle' as const];
    const stopped = [recordingSink(), recordingSink([{ outcome: 'ack', after: 500 }])] as const;
    const one = flowOf(script, replicate(stopped));
    await one.clock.flush();
    await one.clock.settle(one.flow.stop());
    expect(stopped.map(({ ended, acked }) => [ended, text(acked)])).toEqual([
      ['complete', 'ab'],
      ['complete', 'ba'],
    ]);
    const aborted = [recordingSink(), recordingSink(() => 'hold')] as const;
    const other = flowOf(script, replicate(aborted));
    await other.clock.flush();
    other.flow.abort();
    await expect(other.flow.done).rejects.toMatchObject({ code: 'MR_FLOW_STOPPED' });
    await other.clock.flush();
    expect(aborted.map(({ ended }) => ended)).toEqual(['complete', 'complete']);
    expect(other.source.settled.map(({ what }) => what)).toEqual(['released', 'released']);
  });

  test('a required branch that goes away breaks the flow, an optional one is reported', async () => {
    const brief = (deliveries: Observable<Delivery>) => deliveries.pipe(take(1)).subscribe(recordingSink());
    const stays = recordingSink();
    const one = flowOf([...emit('a', 'b'), 'idle'], replicate([brief, stays]));
    await expect(one.clock.settle(one.flow.done)).rejects.toMatchObject({ code: 'MR_SINK_FAILED' });
    expect(stays.ended).toBe('complete');
    const other = flowOf(emit('a', 'b', 'c'), replicate([recordingSink()], { optional: [brief] }));
    await other.clock.settle(other.flow.done);
    expect(other.log.entries.map(({ message }) => message)).toEqual([
      expect.stringContaining('optional destination is gone'),
    ]);
    expect(other.ledger.snapshot()).toMatchObject({ delivered: 4, dropped: 2, copied: 3 });
    expect(other.ledger.difference).toBe(0);
  });

  test('a branch that is gone at once breaks the flow, and the others end', async () => {
    const gone = (deliveries: Observable<Delivery>) => {
      const subscription = deliveries.subscribe();
      subscription.unsubscribe();
      return subscription;
    };
    const [before, after] = [recordingSink(), recordingSink()];
    const { clock, flow } = flowOf([...emit('a'), 'idle'], replicate([before, gone, after]));
    await expect(clock.settle(flow.done)).rejects.toMatchObject({ code: 'MR_SINK_FAILED' });
    expect([before.ended, after.ended]).toEqual(['complete', 'complete']);
  });

  test('an error of the source reaches the branches after what they hold', async () => {
    const sink = recordingSink([{ outcome: 'ack', after: 50 }]);
    const { clock, flow } = flowOf([...emit('a'), { wait: 10 }, { fail: new Error('cable') }], replicate([sink]));
    await expect(clock.settle(flow.done)).rejects.toThrow('cable');
    expect([text(sink.acked), sink.ended]).toEqual(['a', { error: new Error('cable') }]);
  });

  test('a sink that was used, or a function that does not subscribe, is refused at once', () => {
    const used = createSink(() => undefined);
    used.unsubscribe();
    expect(() => run(seqSource(), replicate([used]))).toThrow(expect.objectContaining({ code: 'MR_SINK_USED' }));
    expect(() => run(seqSource(), replicate([() => ({ unsubscribe: () => undefined })]))).toThrow(
      expect.objectContaining({ code: 'MR_CONFIG' }),
    );
  });

  test('no branch at all: events leave the flow and are counted', async () => {
    const { clock, flow, ledger } = flowOf([{ emit: events('ab') }], replicate([]));
    await clock.settle(flow.done);
    expect(ledger.snapshot()).toMatchObject({ accepted: 2, filtered: 2 });
  });
});
