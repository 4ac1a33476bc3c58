/**
 * How a stage emits that holds deliveries back: one at a time, however deep settling and emitting call each other.
 *
 * @module
 */
import type { Subscriber } from 'rxjs';
import { Deque } from '../core/deque.ts';
import type { Delivery } from '../core/delivery.ts';
import { MillraceError } from '../core/errors.ts';

/** Why a stage gives back what it holds when nobody listens any more. */
export const unsubscribed = (): MillraceError =>
  new MillraceError('MR_FLOW_STOPPED', 'nobody is subscribed any more; the delivery was given back.');

/** A subscriber whose `next` is never called from within its `next`. What is overtaken before
 * its turn, or nobody listens for, is nacked. */
export class InTurn<T> {
  readonly #subscriber: Subscriber<Delivery<T>>;
  readonly #ready = new Deque<Delivery<T>>();
  #emitting = false;
  #completing = false;

  constructor(subscriber: Subscriber<Delivery<T>>) {
    this.#subscriber = subscriber;
  }

  next(delivery: Delivery<T>): void {
    this.#ready.push(delivery);
    this.after(() => undefined);
  }

  /** After what is ready. */
  complete(): void {
    this.#completing = true;
    this.after(() => undefined);
  }

  /** Emits nothing until `act` has ended. */
  after<R>(act: () => R): R {
    if (this.#emitting) return act();
    this.#emitting = true;
    try {
      const result = act();
      for (let next = this.#ready.shift(); next !== undefined; next = this.#ready.shift()) {
        if (this.#subscriber.closed || !next.live) next.nack(unsubscribed());
        else this.#subscriber.next(next);
      }
      if (this.#completing) this.#subscriber.complete();
      return result;
    } finally {
      this.#emitting = false;
    }
  }
}
