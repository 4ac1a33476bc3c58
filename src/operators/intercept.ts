/**
 * `intercept`: ordinary RxJS operators over the events of each delivery.
 *
 * @module
 */
import { from, Observable, type OperatorFunction, type Subscription } from 'rxjs';
import { Deque } from '../core/deque.ts';
import type { Delivery } from '../core/delivery.ts';
import { MillraceError, toError } from '../core/errors.ts';
import type { FlumeEvent } from '../core/event.ts';

export interface InterceptOptions {
  /** Batches at a time; what comes out keeps the order of what went in. Default 1. */
  readonly concurrency?: number;
}

type Op<A, B> = OperatorFunction<A, B>;

/** One batch under way. */
interface Running {
  readonly delivery: Delivery<unknown>;
  /** What is left of it, once its Observable has completed; `failed` if it did not, and the delivery is settled. */
  result: unknown[] | 'failed' | undefined;
  subscription: Subscription | undefined;
}

/**
 * Runs each batch through RxJS operators as a finite Observable of its events. Whatever comes out stays under the same
 * settlement, so operators may drop, expand, reorder, aggregate and wait: `intercept(filter(…), mergeMap(enrich, 4))`.
 *
 * **emits** one delivery per batch, when its Observable completes; a batch of which nothing is left is acked and counted
 * as filtered · **pauses** by not settling · **completes** after its source, when nothing is under way ·
 * **errors** never by itself: what throws is a nack of its batch (or a reject, if the error is permanent).
 */
export function intercept<A = FlumeEvent, B = A>(a: Op<A, B>, options?: InterceptOptions): Op<Delivery<A>, Delivery<B>>;
export function intercept<A = FlumeEvent, B = A, C = B>(
  a: Op<A, B>,
  b: Op<B, C>,
  options?: InterceptOptions,
): Op<Delivery<A>, Delivery<C>>;
export function intercept<A = FlumeEvent, B = A, C = B, D = C>(
  a: Op<A, B>,
  b: Op<B, C>,
  c: Op<C, D>,
  options?: InterceptOptions,
): Op<Delivery<A>, Delivery<D>>;
export function intercept<A = FlumeEvent, B = A, C = B, D = C, E = D>(
  a: Op<A, B>,
  b: Op<B, C>,
  c: Op<C, D>,
  d: Op<D, E>,
  options?: InterceptOptions,
): Op<Delivery<A>, Delivery<E>>;
export function intercept<A = FlumeEvent, B = A, C = B, D = C, E = D, F = E>(
  a: Op<A, B>,
  b: Op<B, C>,
  c: Op<C, D>,
  d: Op<D, E>,
  e: Op<E, F>,
  options?: InterceptOptions,
): Op<Delivery<A>, Delivery<F>>;
export function intercept(
  ...given: (Op<unknown, unknown> | InterceptOptions | undefined)[]
): Op<Delivery<unknown>, Delivery<unknown>> {
  const operators = given.filter(one => typeof one === 'function');
  const { concurrency = 1 } = (given.find(one => typeof one === 'object') as InterceptOptions | undefined) ?? {};
  const through = (events: readonly unknown[]) =>
    operators.reduce<Observable<unknown>>((below, operator) => operator(below), from(events));

  return source =>
    new Observable(subscriber => {
      const waiting = new Deque<Delivery<unknown>>();
      /** In order of arrival: only the first may leave. */
      const running = new Deque<Running>();
      let ended = false;
      let leaving = false;

      const start = (delivery: Delivery<unknown>) => {
        const batch: Running = { delivery, result: undefined, subscription: undefined };
        const out: unknown[] = [];
        running.push(batch);
        const fail = (thrown: unknown) => {
          const cause = toError(thrown);
          if (cause instanceof MillraceError && !cause.retriable) delivery.reject(cause);
          else delivery.nack(cause);
          batch.result = 'failed';
          leave();
        };
        try {
          batch.subscription = through(delivery.events).subscribe({
            next: value => void out.push(value),
            error: fail,
            complete: () => {
              batch.result = out;
              leave();
            },
          });
        } catch (thrown) {
          fail(thrown);
        }
      };

      /** Lets out what is ready, oldest first, and lets in what waits. A loop: batches that are ready at once do not recurse. */
      const leave = () => {
        if (leaving) return;
        leaving = true;
        for (;;) {
          const first = running.peek();
          if (first?.result !== undefined) {
            running.shift();
            const { delivery, result } = first;
            if (result === 'failed') continue;
            if (!delivery.live) delivery.nack(new MillraceError('MR_USER_CODE', 'overtaken'));
            else if (result.length > 0) subscriber.next(delivery.derive(result));
            else {
              delivery.ledger.filtered += delivery.length;
              if (!delivery.ack()) delivery.ledger.filtered -= delivery.length;
            }
          } else if (waiting.length > 0 && running.length < concurrency) start(waiting.shift() as Delivery<unknown>);
          else break;
        }
        leaving = false;
        if (ended && running.length === 0) subscriber.complete();
      };

      const upstream = source.subscribe({
        next: delivery => {
          waiting.push(delivery);
          leave();
        },
        error: (cause: any) => subscriber.error(cause),
        complete: () => {
          ended = true;
          leave();
        },
      });
      return () => {
        upstream.unsubscribe();
        const gone = new MillraceError('MR_FLOW_STOPPED', 'the flow was unsubscribed.');
        for (let batch = running.shift(); batch !== undefined; batch = running.shift()) {
          batch.subscription?.unsubscribe();
          if (batch.result !== 'failed') batch.delivery.nack(gone);
        }
        for (let delivery = waiting.shift(); delivery !== undefined; delivery = waiting.shift()) delivery.nack(gone);
      };
    });
}
