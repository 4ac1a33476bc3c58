/**
 * `mapBatch`: a plain function of a whole batch, and `setHeaders`, the most frequent one.
 *
 * @module
 */
import { Observable, type OperatorFunction } from 'rxjs';
import { leaveOut, tagOf, type Delivery } from '../core/delivery.ts';
import { toError, isPermanent, MillraceError } from '../core/errors.ts';
import { Batch, headers, type FlumeEvent, type Headers } from '../core/event.ts';
import { currentScope, type Context } from '../core/scope.ts';

/** For user code that threw: a reject if trying again cannot help, otherwise a nack. */
export const refuse = (delivery: Delivery<unknown>, operator: string, thrown: unknown): void => {
  const cause = toError(thrown);
  if (isPermanent(cause)) delivery.reject(cause);
  else if (cause instanceof MillraceError) delivery.nack(cause);
  else delivery.nack(new MillraceError('MR_USER_CODE', `${operator}: ${cause.message}`, { cause }));
};

/** Acks a delivery of which nothing is left, and counts its events as filtered. */
export const filterOut = (delivery: Delivery<unknown>): void => {
  const { ledger, length } = delivery;
  ledger.filtered += length;
  leaveOut(tagOf(delivery));
  if (!delivery.ack()) ledger.filtered -= length;
};

/**
 * Makes one batch of each, at once: what `intercept` does with operators, as a loop. `batch.block` may be used as it is.
 *
 * **emits** what `change` returns, under the same settlement; nothing left is an ack, counted as filtered · **pauses** and
 * **completes** with its source · **errors** with its source; what `change` throws is a nack (a reject, if permanent).
 * Keeps order.
 *
 * @example
 *     mapBatch(({ events }) => events.filter(({ body }) => body.length > 0))
 */
export const mapBatch =
  <A = FlumeEvent, B = A>(
    change: (batch: Batch<A>, context: Context) => Batch<B> | readonly B[],
  ): OperatorFunction<Delivery<A>, Delivery<B>> =>
  source =>
    new Observable(subscriber => {
      const context = currentScope();
      return source.subscribe({
        next: delivery => {
          let changed: Batch<B> | readonly B[];
          try {
            changed = change(delivery.batch, context);
          } catch (thrown) {
            refuse(delivery, 'mapBatch', thrown);
            return;
          }
          if (changed.length === 0) filterOut(delivery);
          else subscriber.next(delivery.derive(changed));
        },
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => subscriber.complete(),
      });
    });

export interface SetHeadersOptions {
  /** Whether an event that has a header keeps its value. Default false. */
  readonly preserveExisting?: boolean;
}

/**
 * Sets headers of every event, the same for all of a batch; blocks stay blocks. Behaves like {@link mapBatch}.
 *
 * @example
 *     setHeaders({ datacenter: 'fra1' })
 *     setHeaders(({ clock }) => ({ timestamp: String(clock.now()) }))
 */
export const setHeaders = (
  entries: Headers | ((context: Context) => Headers),
  { preserveExisting = false }: SetHeadersOptions = {},
): OperatorFunction<Delivery, Delivery> =>
  mapBatch((batch, context) => {
    const set = typeof entries === 'function' ? entries(context) : entries;
    const change = (before: Headers) => headers(preserveExisting ? { ...set, ...before } : { ...before, ...set });
    const { block } = batch;
    if (block !== undefined) return Batch.ofBlock({ ...block, headers: change(block.headers) });
    // Neighbours often share their headers; they go on sharing them.
    let before: Headers | undefined;
    let after: Headers | undefined;
    return batch.events.map(({ headers: own, body }) => {
      if (own !== before || after === undefined) [before, after] = [own, change(own)];
      return { headers: after, body };
    });
  });
