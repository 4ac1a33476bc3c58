/**
 * Deliveries that do something else when they are settled: what is wrong with many a broken component.
 */
import { own, type Delivery, type Outcome } from '../../../src/core/delivery.ts';
import type { FlumeEvent } from '../../../src/core/event.ts';

type Failed = readonly FlumeEvent[] | undefined;
type Settle = (delivery: Delivery, outcome: Outcome, cause: Error | undefined, failed: Failed) => boolean;

export const settle: Settle = (delivery, outcome, cause = new Error('no cause'), failed) =>
  outcome === 'ack'
    ? delivery.ack()
    : outcome === 'nack'
      ? delivery.nack(cause, failed)
      : delivery.reject(cause, failed);

/** A delivery in place of another one, whose settlement is up to `answer`. */
export const answering = (delivery: Delivery, answer: Settle): Delivery =>
  own(delivery, delivery.batch, (outcome, cause, failed) => answer(delivery, outcome, cause, failed as Failed));

/** Says that a settlement was in time when it was the second, or when its session was over. */
export const credulous = (delivery: Delivery, when: 'settled' | 'over'): Delivery => {
  let open = true;
  return new Proxy(delivery, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      const method = value.bind(target) as (...given: unknown[]) => unknown;
      if (name !== 'ack' && name !== 'nack' && name !== 'reject') return method;
      return (...given: unknown[]) => {
        const isSo = when === 'settled' ? !open : open && !target.live;
        open = false;
        return method(...given) || isSo;
      };
    },
  });
};
