/**
 * `autoAck`: out of the world of deliveries, to plain RxJS.
 *
 * @module
 */
import { Observable, type OperatorFunction } from 'rxjs';
import type { Delivery } from '../core/delivery.ts';
import { MillraceError } from '../core/errors.ts';
import type { FlumeEvent } from '../core/event.ts';

/**
 * Passes each event on and acks its delivery behind the last one, as delivered. From there on nothing is confirmed, slowed or
 * repeated: what happens to an event behind `autoAck` is at most once.
 *
 * **emits** the events one by one · **acks** a delivery when all of its events were passed on · **nacks** those that were not,
 * because the subscriber left in between · **completes** and **errors** with its source.
 *
 * @example
 *     await firstValueFrom(source.pipe(autoAck(), map(({ body }) => body.toString()), take(10), toArray()));
 */
export const autoAck =
  <T = FlumeEvent>(): OperatorFunction<Delivery<T>, T> =>
  source =>
    new Observable(subscriber =>
      source.subscribe({
        next: delivery => {
          const { events, length, ledger } = delivery;
          let passed = 0;
          while (passed < length && !subscriber.closed) subscriber.next(events[passed++] as T);
          // Counted before it is settled: settling may let the next one in.
          ledger.delivered += passed;
          const settled =
            passed === length
              ? delivery.ack()
              : delivery.nack(new MillraceError('MR_FLOW_STOPPED', 'the subscriber has left.'), events.slice(passed));
          if (!settled) ledger.delivered -= passed;
        },
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => subscriber.complete(),
      }),
    );
