import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { join, own, Settleable, type Delivery, type Failed, type Outcome } from '../../src/core/delivery.ts';
import { Batch, event, headers, type FlumeEvent } from '../../src/core/event.ts';
import { Ledger } from '../../src/core/ledger.ts';

/** A root whose emitter only writes down what it is told, and goes on holding what was not acked. */
class Root<T> extends Settleable<T> {
  readonly ledger: Ledger;
  told: { outcome: Outcome; failed: Failed } | undefined;
  overtaken = false;
  held: number;

  constructor(batch: Batch<T>, ledger = new Ledger()) {
    super(batch, 1);
    this.ledger = ledger;
    this.held = batch.length;
    ledger.accepted += batch.length;
    ledger.hold(() => this.held);
  }

  protected get reachable(): boolean {
    return !this.overtaken;
  }

  protected pass(outcome: Outcome, _cause: Error | undefined, failed: Failed): boolean {
    if (this.overtaken) return false;
    this.told = { outcome, failed };
    this.held = outcome === 'ack' ? 0 : (failed?.length ?? this.length);
    return true;
  }
}

const root = <T>(...events: T[]) => new Root(Batch.of(events));
const oops = new Error('oops');

/** As a sink does it: count, settle, take back if that was too late. */
const deliver = (delivery: Delivery<unknown>) => {
  delivery.ledger.delivered += delivery.length;
  if (!delivery.ack()) delivery.ledger.delivered -= delivery.length;
};

const block = (...lines: string[]) => {
  const ends: number[] = [];
  let at = -1;
  for (const line of lines) ends.push((at += line.length + 1));
  return Batch.ofBlock({
    bytes: Buffer.from(lines.map(line => `${line}\n`).join('')),
    ends: Uint32Array.from(ends),
    headers: sharedHeaders,
  });
};
const sharedHeaders = headers({ h: 'v' });
const text = (events: readonly FlumeEvent[]) => events.map(({ body }) => body.toString());

describe('Batch', () => {
  test('the parts of a block have the events of the whole, however often it is cut', () => {
    const whole = block('a', 'bb', '', 'dddd', 'e');
    const [first, rest] = whole.split(1);
    const [second, third] = rest.split(2);
    expect([first, second, third].map(part => text(part.events))).toEqual([['a'], ['bb', ''], ['dddd', 'e']]);
    expect([...first.events, ...second.events, ...third.events]).toEqual(whole.events);
    expect(third.events[1]).toBe(whole.events[4]);
    expect(third.block?.bytes.toString()).toBe('dddd\ne\n');
  });

  test('blocks under the same headers join into a block of the same events', () => {
    const [a, b] = [block('a', ''), block('ccc')];
    const joined = Batch.concat([a, b]);
    expect(joined.block?.bytes.toString()).toBe('a\n\nccc\n');
    expect([...(joined.block?.ends ?? [])]).toEqual([1, 2, 6]);
    expect(joined.events[2]).toBe(b.events[0]);
    expect(joined.byteLength).toBe(4 + 3 * 2);
    expect(Batch.concat([a, Batch.of([event('x')])]).block).toBeUndefined();
    expect(Batch.concat([joined, block('d')]).block?.bytes.toString()).toBe('a\n\nccc\nd\n');
    const [, cut] = joined.split(1);
    expect(cut.events[1]).toBe(b.events[0]);
  });

  test('fitting says how many go into a limit', () => {
    for (const batch of [block('aa', 'b', 'cccc'), Batch.of(block('aa', 'b', 'cccc').events)]) {
      // Each has two bytes of headers.
      expect([3, 4, 6, 7, 12, 13].map(bytes => batch.fitting(10, bytes))).toEqual([0, 1, 1, 2, 2, 3]);
      expect(batch.fitting(2, Infinity)).toBe(2);
      expect(batch.fitting(2, 5)).toBe(1);
    }
  });
});

describe('fork', () => {
  test('S6: failed events come back in their order, whoever failed first', () => {
    const delivery = root(1, 2, 3, 4);
    const [a, b] = delivery.fork([
      [1, 2],
      [3, 4],
    ]);
    b?.reject(oops, [4, 3]);
    a?.reject(oops, [2]);
    expect(delivery.told).toEqual({ outcome: 'reject', failed: [2, 3, 4] });
  });

  test('S6: nothing overtakes a part that is nacked: what is open comes again with it', () => {
    const delivery = root(1, 2, 3, 4, 5);
    const [a, b, c, d] = delivery.fork([[1], [2, 3], [4], [5]]);
    a?.ack();
    d?.reject(oops);
    b?.nack(oops, [3]);
    expect(delivery.told).toEqual({ outcome: 'nack', failed: [3, 4, 5] });
    expect([c?.live, c?.ack()]).toEqual([false, false]);
  });

  test('only the failed event of a cut block comes back', () => {
    const batch = block('a', 'b', 'c');
    const delivery = new Root(batch);
    const [a, b] = delivery.fork(batch.split(1));
    a?.ack();
    b?.reject(oops, b.events.slice(1));
    expect(delivery.told?.failed).toEqual([batch.events[2]]);
  });

  test('parts that share events count as copies as long as they are open', () => {
    const delivery = root(1, 2, 3);
    const { ledger } = delivery;
    const [a, b] = delivery.fork([delivery.batch, delivery.batch]) as [Delivery<number>, Delivery<number>];
    expect([ledger.copied, ledger.held, ledger.difference]).toEqual([3, 6, 0]);
    deliver(a);
    expect([ledger.held, ledger.difference]).toEqual([3, 0]);
    deliver(b);
    expect(ledger.snapshot()).toMatchObject({ copied: 3, delivered: 6, held: 0 });
    expect([ledger.difference, ledger.partly]).toEqual([0, 0]);
  });

  test('an event that several parts refuse is one event again', () => {
    const delivery = root(1, 2, 3);
    const { ledger } = delivery;
    for (const part of delivery.fork([delivery.batch, delivery.batch])) {
      ledger.delivered += 2;
      part.reject(oops, [2]);
    }
    expect(delivery.told).toEqual({ outcome: 'reject', failed: [2] });
    expect(ledger.snapshot()).toMatchObject({ copied: 2, delivered: 4, held: 1, filtered: 0 });
    expect([ledger.difference, ledger.partly]).toEqual([0, 0]);
  });

  test('parts that are overtaken leave nothing on the books', () => {
    const delivery = root(1, 2, 3);
    const { ledger } = delivery;
    const [a, b] = delivery.fork([delivery.batch, delivery.batch]) as [Delivery<number>, Delivery<number>];
    deliver(a);
    delivery.overtaken = true;
    expect([a.live, b.live]).toEqual([false, false]);
    deliver(b);
    expect(ledger.snapshot()).toMatchObject({ copied: 3, delivered: 3, held: 3 });
    expect([ledger.difference, ledger.partly]).toEqual([0, 0]);
  });
});

describe('join', () => {
  test('tells each parent about its own, also through a block', () => {
    const parents = [new Root(block('a', 'b')), new Root(block('c'))] as const;
    const joined = join(parents);
    expect(joined.block?.bytes.toString()).toBe('a\nb\nc\n');
    joined.nack(oops, joined.events.slice(1, 2));
    expect(parents.map(({ told }) => [told?.outcome, told?.failed])).toEqual([
      ['nack', [parents[0].events[1]]],
      ['ack', undefined],
    ]);
  });
});

test('forks within forks that are overtaken close their books, and an owner in between is told once', () => {
  const ledger = new Ledger();
  const delivery = new Root(Batch.of([1, 2]), ledger);
  const [first, second] = delivery.fork([delivery.batch, delivery.batch]) as [Delivery<number>, Delivery<number>];
  const answers: unknown[] = [];
  const owned = own(first, first.batch, outcome => {
    answers.push(outcome);
    return first.ack();
  });
  const [a, b] = owned.fork([owned.batch, owned.batch]) as [Delivery<number>, Delivery<number>];
  const [c, d] = a.fork([[1], [2]]) as [Delivery<number>, Delivery<number>];
  deliver(b);
  deliver(c);
  second.nack(oops);
  deliver(d);
  expect(answers).toEqual(['ack']);
  expect([ledger.difference, ledger.partly, ledger.settledTwice]).toEqual([0, 0, 0]);
});

test('own: asks once, is live while its origin is, and may be in other books', () => {
  const delivery = root(1, 2);
  const books = new Ledger();
  const answers: unknown[] = [];
  const owned = own(
    delivery,
    ['x'],
    (...answer) => {
      answers.push(answer);
      return delivery.ack();
    },
    books,
  );
  expect([owned.live, owned.ledger === books, owned.attempt]).toEqual([true, true, 1]);
  expect(owned.reject(oops, ['x'])).toBe(true);
  expect(owned.ack()).toBe(false);
  expect(answers).toEqual([['reject', oops, undefined]]);
  expect([delivery.told?.outcome, books.settledTwice, owned.live]).toEqual(['ack', 1, false]);
});

test('S2, S4: whatever the graph and the order of outcomes, every event is acked by all its leaves or comes back', () => {
  interface Step {
    readonly at: number;
    readonly how: 'derive' | 'fork' | 'copy' | 'join';
  }
  const step = fc.record<Step>({ at: fc.nat(), how: fc.constantFrom('derive', 'fork', 'copy', 'join') });
  const outcome = fc.record({
    at: fc.nat(),
    outcome: fc.constantFrom<Outcome>('ack', 'nack', 'reject'),
    some: fc.array(fc.nat(), { maxLength: 3 }),
  });
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 3 }),
      fc.array(step, { maxLength: 12 }),
      fc.infiniteStream(outcome),
      (sizes, steps, outcomes) => {
        const ledger = new Ledger();
        let id = 0;
        const roots = sizes.map(size => new Root(Batch.of(Array.from({ length: size }, () => id++)), ledger));
        const leaves: Delivery<number>[] = [...roots];
        for (const { at, how } of steps) {
          const [leaf] = leaves.splice(at % leaves.length, 1) as [Delivery<number>];
          if (how === 'derive') leaves.push(leaf.derive(leaf.events));
          else if (how === 'copy') leaves.push(...leaf.fork([leaf.batch, leaf.batch]));
          else if (how === 'fork' && leaf.length > 1) leaves.push(...leaf.fork(leaf.batch.split(1)));
          else if (how === 'join') {
            const other = leaves.findIndex(({ events }) => !events.some(one => leaf.events.includes(one)));
            leaves.push(other < 0 ? leaf : join([leaf, ...leaves.splice(other, 1)]));
          } else leaves.push(leaf);
        }
        const failed = new Set<number>();
        let nacks = 0;
        while (leaves.length > 0) {
          const { value } = outcomes.next() as { value: { at: number; outcome: Outcome; some: number[] } };
          const [leaf] = leaves.splice(value.at % leaves.length, 1) as [Delivery<number>];
          const { live } = leaf;
          const some = [...new Set(value.some.map(index => leaf.events[index % leaf.length] as number))];
          const gone = value.outcome === 'ack' ? leaf.length : leaf.length - some.length;
          ledger.delivered += gone;
          if (live && value.outcome !== 'ack') for (const one of some) failed.add(one);
          if (value.outcome === 'nack' && some.length > 0) nacks++;
          const settled = value.outcome === 'ack' ? leaf.ack() : leaf[value.outcome](oops, some);
          expect(settled).toBe(live);
          if (!settled) ledger.delivered -= gone;
        }
        for (const { told, events } of roots) {
          const refused = told?.outcome === 'ack' ? [] : ((told?.failed ?? events) as readonly number[]);
          const expected = events.filter(one => failed.has(one));
          // A nack takes what is open with it.
          expect(nacks > 0 ? refused.filter(one => failed.has(one)) : refused).toEqual(expected);
        }
        expect([ledger.difference, ledger.partly, ledger.settledTwice]).toEqual([0, 0, 0]);
      },
    ),
  );
});
