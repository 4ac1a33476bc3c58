/**
 * A source over a list that grows, which can be broken in one place each. Whole, it keeps all laws.
 */
import { Observable, type Subscriber } from 'rxjs';
import type { Delivery } from '../../../src/core/delivery.ts';
import { Batch, event, type FlumeEvent } from '../../../src/core/event.ts';
import { currentScope } from '../../../src/core/scope.ts';
import { createSource, type SourceOpener } from '../../../src/core/source.ts';
import type { SourceTuning, SourceUnderTest } from '../../../src/testing/index.ts';
import { answering, credulous, settle } from './deliveries.ts';

export const sourceFaults = {
  'begins behind what it has emitted': 'S4',
  'forgets what is nacked': 'S4',
  'writes the position of what it has emitted': 'S2',
  'writes the position of the last ack': 'S2',
  'takes what its session leaves for done': 'S7',
  'takes what it has emitted for done when it breaks': 'S4',
  'opens while its last session drains': 'S7',
  'drains for ever': 'L3',
  'never writes a position': 'L3',
  'breaks without a cause': 'L3',
  'takes settlements of sessions that are over': 'S7',
  'emits more than it may': 'S3',
  'emits the newest first': 'S6',
  'makes up an event': 'S5',
  'cuts bodies at their 20th byte': 'S5',
  'does not look when something is fed': 'L1',
  'delivers again from within the nack': 'L1',
  'is done before it is settled': 'L3',
  'never completes': 'L3',
  'settles its own deliveries': 'S1',
  'emits events that it has not booked': 'X1',
} as const;
export type SourceFault = keyof typeof sourceFaults;

export const brokenSource = (tuning: SourceTuning, fault?: SourceFault): SourceUnderTest => {
  const is = (one: SourceFault) => one === fault;
  const { ledger } = currentScope();
  const batches: (readonly FlumeEvent[])[] = [];
  const done = new Set<number>();
  let reached = 0;
  let ended = false;
  let wake: () => void = () => undefined;
  let completeNow: () => void = () => undefined;
  let fail: (cause: Error) => void = () => undefined;

  const opener: SourceOpener<FlumeEvent, number> = emitter => {
    fail = cause => {
      if (is('takes what it has emitted for done when it breaks')) for (let at = 0; at < reached; at++) done.add(at);
      emitter.fail(cause);
    };
    let next = is('begins behind what it has emitted') ? reached : 0;
    let asked = false;
    const answer = () => {
      if (!asked) return;
      while (done.has(next)) next++;
      const swap = is('emits the newest first') && next + 1 < batches.length && !done.has(next + 1);
      if (swap) batches.splice(next, 2, batches[next + 1]!, batches[next]!);
      const batch = batches[next];
      if (batch !== undefined) {
        asked = false;
        reached = Math.max(reached, next + 1);
        emitter.emit(changed(batch), next++);
        if (is('breaks without a cause') && next === 5) emitter.fail(new Error('bad luck'));
      } else if (ended && !is('never completes')) emitter.complete();
    };
    wake = answer;
    return {
      pull() {
        asked = true;
        answer();
      },
      settled(at, what) {
        if (what === 'acked' || what === 'rejected') done.add(at);
        if (what === 'released' && is('takes what its session leaves for done')) done.add(at);
        if (what === 'nacked' && is('forgets what is nacked')) done.add(at);
      },
    };
  };
  const make = () =>
    createSource(opener, {
      ...tuning,
      ...(is('emits more than it may') && { maxInFlight: { deliveries: 5 } }),
      ...(is('forgets what is nacked') && { onFailure: 'report' }),
      ...(is('drains for ever') && { drainTimeout: 2 ** 31 - 1 }),
    });
  const one = make();

  const changed = (batch: readonly FlumeEvent[]): Batch => {
    if (is('makes up an event')) return Batch.of([...batch, event('and one more')]);
    if (is('cuts bodies at their 20th byte'))
      return Batch.of(batch.map(one => ({ ...one, body: one.body.subarray(0, 20) })));
    return Batch.of(batch);
  };

  /** What goes wrong behind the kernel. */
  const broken = (subscriber: Subscriber<Delivery>, delivery: Delivery): Delivery => {
    if (is('takes settlements of sessions that are over')) return credulous(delivery, 'over');
    if (is('emits events that it has not booked')) ledger.accepted--;
    if (is('settles its own deliveries')) {
      return answering(delivery, (one, ...outcome) => {
        const settled = settle(one, ...outcome);
        one.ack();
        return settled;
      });
    }
    if (is('delivers again from within the nack')) {
      return answering(delivery, (one, outcome, cause, failed) => {
        if (outcome !== 'nack' || !one.live) return settle(one, outcome, cause, failed);
        subscriber.next(one.derive(one.batch));
        return true;
      });
    }
    return delivery;
  };

  const position = () => {
    if (is('writes the position of what it has emitted')) return reached;
    if (is('never writes a position')) return 0;
    if (is('writes the position of the last ack')) return Math.max(-1, ...done) + 1;
    let first = 0;
    while (done.has(first)) first++;
    return first;
  };

  return {
    source: new Observable(subscriber => {
      completeNow = () => subscriber.complete();
      return (is('opens while its last session drains') ? make() : one).subscribe({
        next: delivery => subscriber.next(broken(subscriber, delivery)),
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => subscriber.complete(),
      });
    }),
    feed(events) {
      batches.push(events);
      if (!is('does not look when something is fed')) wake();
    },
    end() {
      ended = true;
      if (is('is done before it is settled')) completeNow();
      wake();
    },
    fail: cause => fail(cause),
    confirmed: () => batches.slice(0, position()).flat().length,
  };
};
