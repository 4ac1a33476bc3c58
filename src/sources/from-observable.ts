/**
 * Any Observable as a source. It cannot be slowed, so its events wait in a bounded queue, and the bound has a policy.
 *
 * @module
 */
import { from, Subject, takeUntil, type Observable, type ObservableInput } from 'rxjs';
import { z } from 'zod';
import type { Identity, SourceTuning } from '../core/component.ts';
import { Deque } from '../core/deque.ts';
import type { Delivery } from '../core/delivery.ts';
import { MillraceError, toError } from '../core/errors.ts';
import type { Counters } from '../core/metrics.ts';
import { choice, int, parseOptions } from '../core/options.ts';
import { createSource } from '../core/source.ts';

const options = z.object({
  capacity: int('The most events that wait for credit; those in flight are not among them.', {
    min: 1,
    unit: 'events',
  }),
  overflow: choice(['fail', 'drop-oldest', 'drop-newest'])('What happens when one more comes.'),
  batchSize: int('Events per delivery at most; a delivery never waits for more.', {
    default: 100,
    min: 1,
    unit: 'events',
  }),
});
export type FromObservableOptions = z.input<typeof options> & SourceTuning;

/**
 * Subscribes to `observable` once per session. What it emits while there is no credit waits, at most `capacity` events;
 * then `overflow` decides: `drop-oldest` and `drop-newest` count what they drop (`EventOverflowCount` in the metrics,
 * `dropped` in the ledger), `fail` ends the flow with `MR_OVERFLOW`. What comes in one go has to fit as well.
 *
 * **emits** at once with credit, else what has gathered · **pauses** never its origin · **completes** and **errors** after
 * the Observable, when everything is settled · **loses** on an unsubscribe or abort what was not acked: it cannot be read
 * again, and is counted as dropped.
 */
export const fromObservable = <T>(
  observable: ObservableInput<T>,
  { maxInFlight, redelivery, ...own }: FromObservableOptions,
  { name = 'fromObservable' }: Identity = {},
): Observable<Delivery<T>> => {
  const { capacity, overflow, batchSize } = parseOptions('fromObservable', options, own);
  return createSource<T>(
    (emitter, { counters, ledger, log }) => {
      const waiting = new Deque<T>();
      const stopped = new Subject<void>();
      let wanted = false;
      let overflown: MillraceError | undefined;
      const overflows = counters as Counters;
      overflows['EventOverflowCount'] ??= 0;

      const send = () => {
        wanted = false;
        emitter.emit(Array.from({ length: Math.min(batchSize, waiting.length) }, () => waiting.shift() as T));
      };
      const sendAll = () => {
        while (waiting.length > 0) send();
      };
      /** One event too many: true if there is room for it now. */
      const makeRoom = (): boolean => {
        ledger.accepted++;
        ledger.dropped++;
        counters.EventReceivedCount++;
        const before = overflows['EventOverflowCount'] ?? 0;
        overflows['EventOverflowCount'] = before + 1;
        const full = `${name}: ${capacity} events wait and there is no room for more; raise capacity, or slow the origin.`;
        if (overflow === 'fail') {
          overflown = new MillraceError('MR_OVERFLOW', full);
          stopped.next();
          return false;
        }
        if (before === 0) log.warn(`${full} The ${overflow === 'drop-oldest' ? 'oldest' : 'newest'} are dropped.`);
        if (overflow === 'drop-oldest') waiting.shift();
        return overflow === 'drop-oldest';
      };

      from(observable)
        .pipe(takeUntil(stopped))
        .subscribe({
          next(value) {
            if (waiting.length >= capacity && !makeRoom()) return;
            waiting.push(value);
            if (wanted) send();
          },
          error(thrown: unknown) {
            sendAll();
            emitter.fail(toError(thrown));
          },
          complete() {
            sendAll();
            if (overflown === undefined) emitter.complete();
            else emitter.fail(overflown);
          },
        });
      return {
        pull() {
          wanted = true;
          if (waiting.length > 0) send();
        },
        stop() {
          stopped.next();
        },
      };
    },
    { name, replayable: false, maxInFlight, redelivery },
  );
};
