import { describe, expect, test } from 'vitest';
import { event, headers, type FlumeEvent } from '../../../src/core/event.ts';
import { route } from '../../../src/operators/routing/route.ts';
import { recordingSink } from '../../../src/testing/index.ts';
import { block, emit, events, flowOf, text, texts } from '../fixture.ts';

const from = (state: string, body: string): FlumeEvent => event(body, headers({ State: state }));
const letter = ({ body }: FlumeEvent) => body.toString();

describe('route', () => {
  test('splits a batch by a header, in order, and acks when all parts are acked', async () => {
    const [cz, us, others] = [recordingSink(), recordingSink(['hold']), recordingSink()];
    const { clock, flow, source, ledger } = flowOf(
      [{ emit: [from('CZ', '1'), from('US', '2'), from('CZ', '3'), from('DE', '4'), ...events('5')] }],
      route('State', { cases: { CZ: cz, US: us }, default: others }),
    );
    await clock.advance(10);
    expect([cz, us, others].map(sink => texts(sink.received))).toEqual([['13'], ['2'], ['45']]);
    expect(source.settled).toEqual([]);
    expect([ledger.held, ledger.difference]).toEqual([1, 0]);
    us.received[0]?.settle('ack');
    await clock.settle(flow.done);
    expect([cz, us, others].map(({ ended }) => ended)).toEqual(['complete', 'complete', 'complete']);
    expect(ledger.snapshot()).toMatchObject({ accepted: 5, delivered: 5, copied: 0 });
  });

  test('a branch of several cases gets one part, in the order of the delivery', async () => {
    const [both, one] = [recordingSink(), recordingSink()];
    const { clock, flow, ledger } = flowOf(
      emit('abcabc'),
      route(letter, { cases: { a: both, b: [one, both], c: one } }),
    );
    await clock.settle(flow.done);
    expect([texts(both.received), texts(one.received)]).toEqual([['abab'], ['bcbc']]);
    expect(ledger.snapshot()).toMatchObject({ accepted: 6, copied: 2, delivered: 8 });
    expect(ledger.difference).toBe(0);
  });

  test('a selector may name several cases; names of no case count only if there is no other', async () => {
    const [a, b, rest] = [recordingSink(), recordingSink(), recordingSink()];
    const named: Record<string, string[] | undefined> = {
      1: ['a', 'b'],
      2: ['b', 'x'],
      3: ['x'],
      4: [],
      5: undefined,
      6: ['a', 'a'],
    };
    const { clock, flow } = flowOf(
      emit('123456'),
      route(e => named[letter(e)], { cases: { a, b }, default: rest }),
    );
    await clock.settle(flow.done);
    expect([a, b, rest].map(sink => texts(sink.received))).toEqual([['16'], ['12'], ['345']]);
  });

  test('events of no case are rejected with MR_NO_ROUTE, and only they', async () => {
    const a = recordingSink();
    const { clock, flow, log, ledger } = flowOf(emit('axay'), route(letter, { cases: { a } }), {
      redelivery: { onReject: 'drop' },
    });
    await clock.settle(flow.done);
    expect(texts(a.received)).toEqual(['aa']);
    expect(log.entries[0]?.fields).toMatchObject({
      cause: { code: 'MR_NO_ROUTE', message: expect.stringContaining('2 events') as string },
    });
    expect(ledger.snapshot()).toMatchObject({ delivered: 2, rejected: 2, held: 0 });
    expect(ledger.difference).toBe(0);
  });

  test('names that every object has are no cases, and no headers', async () => {
    const others = recordingSink();
    const plain = { headers: { State: 'toString' }, body: Buffer.from('a') };
    const bare = { headers: {}, body: Buffer.from('b') };
    const { clock, flow } = flowOf(
      [{ emit: [plain] }, { emit: [bare] }],
      route('constructor', { cases: { toString: [] }, default: others }),
    );
    await clock.settle(flow.done);
    expect(texts(others.received)).toEqual(['a', 'b']);
  });

  test('an empty case takes events out of the flow, counted', async () => {
    const a = recordingSink();
    const { clock, flow, ledger } = flowOf(emit('axa'), route(letter, { cases: { a, x: [] } }));
    await clock.settle(flow.done);
    expect(ledger.snapshot()).toMatchObject({ accepted: 3, delivered: 2, filtered: 1 });
    expect(ledger.difference).toBe(0);
  });

  test('optional branches by case: they never hold up, and an event for them alone is not filtered', async () => {
    const [a, extra] = [recordingSink(), recordingSink(() => 'hold')];
    const { clock, flow, ledger, source } = flowOf(
      emit('ab'),
      route(letter, { cases: { a, b: [] }, optional: { a: extra, b: extra }, optionalBuffer: { drain: 10 } }),
    );
    await clock.advance(1);
    expect(source.position()).toBe(1);
    expect(ledger.snapshot()).toMatchObject({ accepted: 2, copied: 1, delivered: 1, held: 2, filtered: 0 });
    expect(ledger.difference).toBe(0);
    await clock.settle(flow.done);
    expect(ledger.snapshot()).toMatchObject({ delivered: 1, dropped: 2, held: 0 });
    expect(texts(extra.received)).toEqual(['ab']);
  });

  test('a case that is optional only goes to the default, too', async () => {
    const [rest, extra] = [recordingSink(), recordingSink()];
    const { clock, flow } = flowOf(
      emit('ab'),
      route(letter, { cases: {}, default: rest, optional: { a: [extra, rest] } }),
    );
    await clock.settle(flow.done);
    expect([texts(rest.received), texts(extra.received)]).toEqual([['ab'], ['a']]);
  });

  test('blocks stay blocks: their events share the header', async () => {
    const [cz, rest] = [recordingSink(), recordingSink()];
    const { clock, flow } = flowOf(
      [{ emit: block('ab', headers({ State: 'CZ' })) }, { emit: block('cd') }],
      route('State', { cases: { CZ: cz }, default: rest }),
    );
    await clock.settle(flow.done);
    expect([cz, rest].map(sink => sink.received[0]?.delivery.block?.bytes.toString())).toEqual(['a\nb\n', 'c\nd\n']);
  });

  test('a part that is nacked is repeated on its branch alone', async () => {
    const [a, b] = [recordingSink(), recordingSink(['nack', 'nack'])];
    const { clock, flow } = flowOf(emit('ab', 'ab'), route(letter, { cases: { a, b } }));
    await clock.settle(flow.done);
    expect([texts(a.received), texts(b.received)]).toEqual([
      ['a', 'a'],
      ['b', 'b', 'b', 'b'],
    ]);
    expect(text(b.acked)).toBe('bb');
  });

  test('a selector that throws is a nack', async () => {
    const a = recordingSink();
    let calls = 0;
    const moody = () => {
      if (calls++ === 0) throw new Error('not now');
      return 'a';
    };
    const { clock, flow, source } = flowOf(emit('x'), route(moody, { cases: { a } }), { onFailure: 'report' });
    await clock.settle(flow.done);
    expect(source.settled).toMatchObject([{ what: 'nacked', cause: { code: 'MR_USER_CODE' } }]);
  });
});
