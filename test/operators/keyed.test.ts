import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Clock } from '../../src/core/clock.ts';
import type { FlumeEvent } from '../../src/core/event.ts';
import { createSink, type SinkWriter } from '../../src/core/sink.ts';
import { keyed } from '../../src/operators/keyed.ts';
import { recordingSink, seededRandom } from '../../src/testing/index.ts';
import { block, emit, flowOf, text, texts } from './fixture.ts';

const letter = ({ body }: FlumeEvent) => body.toString().toLowerCase();

describe('keyed', () => {
  test('splits by key and lets out the next part of a key when the one before is settled', async () => {
    const sink = recordingSink(() => 'hold');
    const { clock, flow, source } = flowOf(emit('abA', 'Ba', 'c'), sink, { stage: keyed({ by: letter }) });
    await clock.advance(10);
    expect(texts(sink.received)).toEqual(['aA', 'b', 'c']);
    sink.received[1]?.settle('ack');
    expect(texts(sink.received)).toEqual(['aA', 'b', 'c', 'B']);
    sink.received[0]?.settle('ack');
    expect(texts(sink.received)).toEqual(['aA', 'b', 'c', 'B', 'a']);
    expect(source.settled.map(({ emission }) => emission)).toEqual([0]);
    for (const one of sink.unsettled()) one.settle('ack');
    await clock.settle(flow.done);
    expect(source.position()).toBe(3);
  });

  test('bounds the keys in flight; others wait in order of arrival', async () => {
    const sink = recordingSink(() => 'hold');
    const { clock, flow } = flowOf(emit('abcd', 'Ca'), sink, { stage: keyed({ by: letter, concurrency: 2 }) });
    await clock.advance(10);
    expect(texts(sink.received)).toEqual(['a', 'b']);
    sink.received[1]?.settle('ack');
    expect(texts(sink.received)).toEqual(['a', 'b', 'c']);
    // The second a keeps its lane busy; c goes on with C before d gets a turn.
    sink.received[0]?.settle('ack');
    sink.received[2]?.settle('ack');
    expect(texts(sink.received)).toEqual(['a', 'b', 'c', 'a', 'C']);
    sink.received[3]?.settle('ack');
    expect(texts(sink.received).at(-1)).toBe('d');
    for (const one of sink.unsettled()) one.settle('ack');
    await clock.settle(flow.done);
  });

  test('S6: a nacked part is repeated for its key alone, before what comes after it', async () => {
    const sink = recordingSink(({ events }) => (text(events) === 'a' && times++ < 3 ? 'nack' : 'ack'));
    let times = 0;
    const { clock, flow, ledger } = flowOf(emit('ab', 'Ab', 'AB'), sink, { stage: keyed({ by: letter }) });
    await clock.settle(flow.done);
    expect(texts(sink.received).filter(one => one.toLowerCase() === 'b')).toEqual(['b', 'b', 'B']);
    expect(texts(sink.received).filter(one => one.toLowerCase() === 'a')).toEqual(['a', 'a', 'a', 'a', 'A', 'A']);
    expect(ledger.snapshot()).toMatchObject({ accepted: 6, delivered: 6, copied: 0 });
  });

  test('S6: what comes for a key while its lane is given what waited comes after that', async () => {
    const sink = recordingSink([{ outcome: 'ack', after: 1 }]);
    const { clock, flow } = flowOf(emit('aaab', 'B', 'b', 'B'), sink, {
      stage: keyed({ by: letter, concurrency: 1, maxInFlightPerKey: 2 }),
      maxInFlight: { deliveries: 3 },
    });
    await clock.settle(flow.done);
    expect(texts(sink.received)).toEqual(['aaa', 'b', 'B', 'b', 'B']);
  });

  test('a lane that has settled one part at once still has the others of its key', async () => {
    const sink = recordingSink([{ outcome: 'ack', after: 1 }, 'hold', 'ack', 'hold']);
    const script = [...emit('ax', 'b', 'b'), { wait: 5 }, ...emit('b')];
    const { clock, flow } = flowOf(script, sink, { stage: keyed({ by: letter, concurrency: 2 }) });
    await clock.advance(2);
    sink.received[1]?.settle('ack');
    await clock.advance(10);
    expect(texts(sink.received)).toEqual(['a', 'x', 'b', 'b']);
    sink.received[3]?.settle('ack');
    await clock.settle(flow.done);
    expect(texts(sink.received)).toEqual(['a', 'x', 'b', 'b', 'b']);
  });

  test('a rejected part is rejected upstream when the others are settled', async () => {
    const sink = recordingSink([{ outcome: 'ack', after: 20 }, 'reject']);
    const { clock, flow, ledger, source } = flowOf(emit('ab'), sink, {
      stage: keyed({ by: letter }),
      redelivery: { onReject: 'drop' },
    });
    await clock.settle(flow.done);
    expect(source.settled.map(({ what }) => what)).toEqual(['acked']);
    expect(ledger.snapshot()).toMatchObject({ delivered: 1, rejected: 1 });
  });

  test('a delivery of one key stays whole, block and all', async () => {
    const sink = recordingSink();
    const { clock, flow } = flowOf([{ emit: block('ab') }], sink, { stage: keyed({ by: () => 1 }) });
    await clock.settle(flow.done);
    expect(sink.received[0]?.delivery.block?.bytes.toString()).toBe('a\nb\n');
  });

  test('a by that throws is a nack', async () => {
    const by = () => {
      throw new Error('no key');
    };
    const { clock, flow, source } = flowOf(emit('a'), recordingSink(), { stage: keyed({ by }), onFailure: 'report' });
    await clock.settle(flow.done);
    expect(source.settled).toMatchObject([{ what: 'nacked', cause: { code: 'MR_USER_CODE' } }]);
  });

  test('S4: unsubscribed, it gives back what has not left it', async () => {
    const sink = recordingSink(() => 'hold');
    const { clock, flow, source } = flowOf([...emit('abcAB'), 'idle'], sink, {
      stage: keyed({ by: letter, concurrency: 2 }),
    });
    await clock.flush();
    flow.abort();
    await clock.flush();
    expect(source.settled.map(({ what }) => what)).toEqual(['released']);
    expect(sink.unsettled()).toEqual([]);
    expect(clock.pending).toBe(0);
  });

  test('twenty thousand keys that are settled at once do not recurse', async () => {
    const sink = createSink<number>(() => undefined);
    const many = Array.from({ length: 20_000 }, (_, i) => i);
    const { flow, clock, ledger } = flowOf([{ emit: many }], sink, { stage: keyed({ by: n => n }) });
    await clock.settle(flow.done);
    expect(ledger.delivered).toBe(20_000);
  });

  test('whatever a parallel sink does, each key keeps its order', async () => {
    interface Value {
      readonly key: number;
      readonly n: number;
    }
    const batch = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 8 });
    const check = async (batches: number[][], concurrency: number, seed: number) => {
      const random = seededRandom(seed);
      let n = 0;
      const script = batches.map(keys => ({ emit: keys.map((key): Value => ({ key, n: n++ })) }));
      const written: Value[] = [];
      let clock: Clock | undefined;
      const writer: SinkWriter<Value> = {
        open: context => void (clock = context.clock),
        write: ({ events }) =>
          new Promise((resolve, reject) => {
            clock?.after(Math.floor(random() * 50), () => {
              if (random() < 0.3) return reject(new Error('again'));
              written.push(...events);
              resolve();
            });
          }),
      };
      const sink = createSink(writer, { concurrency, retry: { attempts: 2 } });
      const run = flowOf(script, sink, { stage: keyed({ by: ({ key }) => key, concurrency }) });
      await run.clock.settle(run.flow.done);
      for (const key of new Set(written.map(one => one.key))) {
        const order = written.filter(one => one.key === key).map(one => one.n);
        expect(order).toEqual([...order].sort((a, b) => a - b));
      }
      expect(written.length).toBe(n);
    };
    const concurrency = fc.integer({ min: 1, max: 4 });
    const several = fc.array(batch, { minLength: 1, maxLength: 12 });
    await fc.assert(fc.asyncProperty(several, concurrency, fc.integer(), check), { numRuns: 50 });
  });
});
