/**
 * `intercept`: ordinary RxJS operators over the events of each delivery.
 *
 * @module
 */
import { from, Observable, Subscriber, type OperatorFunction } from 'rxjs';
import { Deque } from '../core/deque.ts';
import type { Delivery } from '../core/delivery.ts';
import type { FlumeEvent } from '../core/event.ts';
import { unsubscribed } from './in-turn.ts';
import { filterOut, refuse } from './map-batch.ts';

export interface InterceptOptions {
  /** Batches at a time; what comes out keeps the order of what went in. Default 1. */
  readonly concurrency?: number;
}

type Op<A, B> = OperatorFunction<A, B>;

/** One batch under way. Half as dear as an observer made of functions. */
class Running extends Subscriber<unknown> {
  readonly delivery: Delivery<unknown>;
  readonly out: unknown[] = [];
  outcome: 'completed' | 'failed' | undefined;
  readonly #onEnd: () => void;

  constructor(delivery: Delivery<unknown>, onEnd: () => void) {
    super();
    this.delivery = delivery;
    this.#onEnd = onEnd;
  }

  protected override _next(value: unknown): void {
    this.out.push(value);
  }

  protected override _error(thrown: unknown): void {
    this.unsubscribe();
    this.outcome = 'failed';
    refuse(this.delivery, 'intercept', thrown);
    this.#onEnd();
  }

  protected override _complete(): void {
    this.unsubscribe();
    this.outcome = 'completed';
    this.#onEnd();
  }
}

// Longest first: TypeScript settles what an inline function takes at the first overload that has room for it.

/**
 * Runs each batch through RxJS operators as a finite Observable of its events. Whatever comes out stays under the same
 * settlement, so operators may drop, expand, reorder, aggregate and wait: `intercept(filter(…), mergeMap(enrich, 4))`.
 * For a plain function of a batch, {@link mapBatch} is faster; to set headers, `setHeaders`.
 *
 * **emits** one delivery per batch, when its Observable completes; a batch of which nothing is left is acked and counted
 * as filtered · **pauses** by not settling · **completes** after its source, when nothing is under way ·
 * **errors** with its source only: what an operator throws is a nack of its batch (a reject, if the error is permanent).
 * Keeps order, also with `concurrency`. Unsubscribed, it cancels and nacks what is under way.
 */
export function intercept<A = FlumeEvent, B = A, C = B, D = C, E = D, F = E>(
  a: Op<A, B>,
  b: Op<B, C>,
  c: Op<C, D>,
  d: Op<D, E>,
  e: Op<E, F>,
  options?: InterceptOptions,
): Op<Delivery<A>, Delivery<F>>;
export function intercept<A = FlumeEvent, B = A, C = B, D = C, E = D>(
  a: Op<A, B>,
  b: Op<B, C>,
  c: Op<C, D>,
  d: Op<D, E>,
  options?: InterceptOptions,
): Op<Delivery<A>, Delivery<E>>;
export function intercept<A = FlumeEvent, B = A, C = B, D = C>(
  a: Op<A, B>,
  b: Op<B, C>,
  c: Op<C, D>,
  options?: InterceptOptions,
): Op<Delivery<A>, Delivery<D>>;
export function intercept<A = FlumeEvent, B = A, C = B>(
  a: Op<A, B>,
  b: Op<B, C>,
  options?: InterceptOptions,
): Op<Delivery<A>, Delivery<C>>;
export function intercept<A = FlumeEvent, B = A>(a: Op<A, B>, options?: InterceptOptions): Op<Delivery<A>, Delivery<B>>;
export function intercept(
  ...given: (Op<unknown, unknown> | InterceptOptions | undefined)[]
): Op<Delivery<unknown>, Delivery<unknown>> {
  const operators = given.filter(one => typeof one === 'function');
  const { concurrency = 1 } = given.find((one): one is InterceptOptions => typeof one === 'object') ?? {};
  const through = (events: readonly unknown[]) =>
    operators.reduce<Observable<unknown>>((below, operator) => operator(below), from(events));

  return source =>
    new Observable(subscriber => {
      const waiting = new Deque<Delivery<unknown>>();
      /** In order of arrival: only the first may leave. */
      const running = new Deque<Running>();
      let ended = false;
      let turning = false;

      const start = (delivery: Delivery<unknown>) => {
        // Overtaken while it waited: it will come again.
        if (!delivery.live) return void delivery.nack(unsubscribed());
        const batch = new Running(delivery, turn);
        running.push(batch);
        try {
          through(delivery.events).subscribe(batch);
        } catch (thrown) {
          batch.error(thrown);
        }
      };

      const leave = ({ delivery, outcome, out }: Running) => {
        if (outcome === 'failed') return;
        if (!delivery.live) delivery.nack(unsubscribed());
        else if (out.length === 0) filterOut(delivery);
        else subscriber.next(delivery.derive(out));
      };

      /** Lets out what is ready, oldest first, and lets in what waits. A loop: batches that are ready at once do not recurse. */
      const turn = () => {
        if (turning) return;
        turning = true;
        for (;;) {
          if (running.peek()?.outcome !== undefined) leave(running.shift() as Running);
          else if (waiting.length > 0 && running.length < concurrency) start(waiting.shift() as Delivery<unknown>);
          else break;
        }
        turning = false;
        if (ended && running.length === 0) subscriber.complete();
      };

      const upstream = source.subscribe({
        next: delivery => {
          waiting.push(delivery);
          turn();
        },
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => {
          ended = true;
          turn();
        },
      });
      return () => {
        upstream.unsubscribe();
        for (let batch = running.shift(); batch !== undefined; batch = running.shift()) {
          batch.unsubscribe();
          if (batch.outcome !== 'failed') batch.delivery.nack(unsubscribed());
        }
        for (let delivery = waiting.shift(); delivery !== undefined; delivery = waiting.shift())
          delivery.nack(unsubscribed());
      };
    });
}
