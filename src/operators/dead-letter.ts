/**
 * `deadLetter`: where events go that can never be delivered.
 *
 * @module
 */
import { Observable, type OperatorFunction } from 'rxjs';
import { leaveOut, own, settle, settledCount, tagOf, type Delivery } from '../core/delivery.ts';
import { event, headers, type FlumeEvent } from '../core/event.ts';
import { currentScope, Scope } from '../core/scope.ts';
import { InTurn } from './in-turn.ts';
import { openDestination, type Destination } from './routing/destination.ts';

export interface DeadLetterOptions {
  /**
   * Deliveries of an event before a nack counts as a reject. Default: no limit. They are counted by the emitter before
   * this stage, from 1 after a restart; a sink's own retries are not.
   */
  readonly maxAttempts?: number;
}

/**
 * Hands events that are rejected below it, or nacked too often, to a destination of their own, and acks them once that
 * has them. Only the failed events of a batch go there, with the headers `dead-letter-reason` (`rejected`, or `attempts`
 * if there were too many), `dead-letter-cause` (the error) and `dead-letter-attempts`. Put it behind the last channel,
 * `keyed` or `replicate`, which repeat nacked deliveries themselves: only what reaches this stage is counted.
 *
 * **emits** what it is handed · **pauses** by not settling · **completes** after its source, when everything is settled, and
 * then completes the dead letter · **errors** with its source. Keeps order. What the dead letter nacks or rejects is
 * nacked or rejected upstream: nothing is acked before the dead letter has it.
 *
 * The flow's ledger counts these events as `rejected`; the dead letter keeps books of its own.
 */
export const deadLetter =
  (
    destination: Destination,
    { maxAttempts = Infinity }: DeadLetterOptions = {},
  ): OperatorFunction<Delivery, Delivery> =>
  source =>
    new Observable(subscriber => {
      const flow = currentScope();
      const { clock, random, log, metrics } = flow;
      const scope = new Scope({ clock, random, log, metrics });
      const letter = openDestination(destination, scope);
      const letters = new InTurn(letter.subscriber);
      flow.waitFor(letter.done.then(() => scope.settled()));
      /** Handed on and not settled, or being written to the dead letter. */
      let open = 0;
      /** Events that are being written to the dead letter. */
      let held = 0;
      scope.ledger.hold(() => held);
      let ended = false;

      letter.subscriber.add(() => {
        if (!ended) log.error('the dead letter is gone: what is rejected from now on is nacked and tried again.');
      });

      const closed = () => {
        open--;
        end();
      };
      const end = () => {
        if (!ended || open > 0) return;
        letters.complete();
        subscriber.complete();
      };

      const hand = (delivery: Delivery) => {
        open++;
        const handed = own<FlumeEvent>(delivery, delivery.batch, (outcome, cause, failed) => {
          const spent = outcome === 'nack' && delivery.attempt >= maxAttempts;
          if ((outcome === 'reject' || spent) && delivery.live) {
            bury(
              delivery,
              spent ? 'attempts' : 'rejected',
              cause as Error,
              failed as readonly FlumeEvent[] | undefined,
            );
            return true;
          }
          const inTime = settle(delivery, outcome, cause, failed);
          closed();
          return inTime;
        });
        subscriber.next(handed);
      };

      const bury = (delivery: Delivery, reason: string, cause: Error, failed: readonly FlumeEvent[] | undefined) => {
        const { ledger, attempt } = delivery;
        const [dead, rest] = failed === undefined ? [delivery] : delivery.fork([failed, without(delivery, failed)]);
        rest?.ack();
        const { length } = dead as Delivery;
        const labels = {
          'dead-letter-reason': reason,
          'dead-letter-cause': cause.message,
          'dead-letter-attempts': String(attempt),
        };
        const labelled = (dead as Delivery).events.map(one => event(one.body, headers({ ...one.headers, ...labels })));
        scope.ledger.accepted += length;
        held += length;
        const written = own<FlumeEvent>(
          dead as Delivery,
          labelled,
          (outcome, why, some) => {
            held -= length;
            if (outcome === 'ack') {
              ledger.rejected += length;
              leaveOut(tagOf(dead as Delivery));
            }
            // Some or all: what the dead letter has of it, it will get again.
            const inTime = settle(dead as Delivery, outcome, why, undefined);
            if (outcome === 'ack' && !inTime) ledger.rejected -= length;
            scope.ledger.accepted -= inTime ? length - settledCount(length, outcome, some) : length;
            closed();
            return inTime;
          },
          scope.ledger,
        );
        letters.next(written);
      };

      const upstream = source.subscribe({
        next: hand,
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => {
          // Everything is settled, or was overtaken by what has been.
          open = 0;
          ended = true;
          end();
        },
      });
      return () => {
        upstream.unsubscribe();
        ended = true;
        end();
      };
    });

const without = ({ events }: Delivery, failed: readonly FlumeEvent[]): FlumeEvent[] => {
  const gone = new Set(failed);
  return events.filter(one => !gone.has(one));
};
