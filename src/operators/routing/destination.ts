/**
 * Where a stage sends deliveries besides downstream: the branches of `replicate` and `route`, a dead letter.
 *
 * @module
 */
import { Observable, type Observer, type Subscriber, type Unsubscribable } from 'rxjs';
import type { Delivery } from '../../core/delivery.ts';
import { MillraceError } from '../../core/errors.ts';
import type { FlumeEvent } from '../../core/event.ts';
import type { FlowSink } from '../../core/flow.ts';
import { inScope, type Scope } from '../../core/scope.ts';

/**
 * A sink, a channel's `input()`, or a function that subscribes to the deliveries it is given:
 * `deliveries => deliveries.pipe(fileChannel({ dir })).subscribe(nullSink())`.
 */
export type Destination<T = FlumeEvent> =
  (Observer<Delivery<T>> & Partial<FlowSink<T>>) | ((deliveries: Observable<Delivery<T>>) => Unsubscribable);

/** A destination that has joined a flow. */
export interface OpenDestination<T> {
  /** Closed once the destination has unsubscribed. */
  readonly subscriber: Subscriber<Delivery<T>>;
  /** Resolves when it has finished; rejects if it broke. */
  readonly done: Promise<void>;
  abort(): void;
}

/**
 * Joins a destination to a flow.
 *
 * @throws MR_SINK_USED if it has been in a flow before, MR_CONFIG if a function does not subscribe.
 */
export const openDestination = <T>(destination: Destination<T>, scope: Scope): OpenDestination<T> => {
  if (typeof destination === 'object' && destination.closed === true)
    throw new MillraceError('MR_SINK_USED', 'this sink has been used by another flow; make a new one for each flow.');
  let subscriber: Subscriber<Delivery<T>> | undefined;
  let closed!: () => void;
  const whenClosed = new Promise<void>(resolve => (closed = resolve));
  const deliveries = new Observable<Delivery<T>>(given => {
    subscriber = given;
    return closed;
  });
  const subscription = inScope(scope, () =>
    typeof destination === 'function' ? destination(deliveries) : deliveries.subscribe(destination),
  );
  // RxJS returns the sink itself if it is a Subscriber, as those of createSink are.
  const sink = (typeof destination === 'function' ? subscription : destination) as Partial<FlowSink<T>>;
  sink.attach?.(scope);
  if (subscriber === undefined)
    throw new MillraceError('MR_CONFIG', 'a branch has to subscribe to the deliveries it is given, at once.');
  return {
    subscriber,
    done: sink.done ?? whenClosed,
    abort: () => {
      subscription.unsubscribe();
      sink.abort?.();
    },
  };
};
