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

/** A subscriber whose `next` is never called from within its `next`. What nobody listens for is nacked. */
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
    if (this.#emitting) return;
    this.#emitting = true;
    try {
      for (let next = this.#ready.shift(); next !== undefined; next = this.#ready.shift()) {
        if (this.#subscriber.closed) next.nack(unsubscribed());
        else this.#subscriber.next(next);
      }
    } finally {
      this.#emitting = false;
    }
    if (this.#completing) this.#subscriber.complete();
  }

  /** After what is ready. */
  complete(): void {
    this.#completing = true;
    if (!this.#emitting) this.#subscriber.complete();
  }
}
