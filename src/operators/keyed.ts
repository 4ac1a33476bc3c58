/**
 * `keyed`: work in parallel, in order for each key.
 *
 * @module
 */
import { Observable, type OperatorFunction } from 'rxjs';
import type { Delivery } from '../core/delivery.ts';
import { MillraceError, toError } from '../core/errors.ts';
import type { FlumeEvent } from '../core/event.ts';
import { currentScope } from '../core/scope.ts';
import { InTurn, unsubscribed } from './in-turn.ts';
import { Branch } from './routing/branch.ts';

export interface KeyedOptions<T = FlumeEvent> {
  /** What an event is ordered by. Keys are compared as those of a Map. */
  readonly by: (event: T) => unknown;
  /** Keys in flight at a time; others wait. Default 16. Give what follows the same `concurrency`. */
  readonly concurrency?: number;
  /** Unsettled deliveries of one key; with more than 1 a nack makes those after it come twice. Default 1. */
  readonly maxInFlightPerKey?: number;
}

/** Deliveries of one key at a time, then of another. */
interface Lane<T> {
  readonly branch: Branch<T>;
  key: unknown;
}

/**
 * Splits each delivery by key, and lets out the next part of a key when the one before is settled. Put it in front of what
 * is to work in parallel: `run(source, fileChannel(…), keyed({ by: e => e.headers['user'] }), createSink(write, { concurrency: 16 }))`.
 *
 * **emits** a part when its key has nothing in flight, and a lane is free · **pauses** by not settling ·
 * **completes** after its source, when everything is settled · **errors** with its source; a `by` that throws is a nack.
 * Strict order per key, none between keys. A nacked part is repeated for its key alone, while other keys go on; a rejected
 * one is rejected upstream, when its delivery's other parts are settled. Unsubscribed, it nacks what has not left it.
 */
export const keyed =
  <T = FlumeEvent>({
    by,
    concurrency = 16,
    maxInFlightPerKey = 1,
  }: KeyedOptions<T>): OperatorFunction<Delivery<T>, Delivery<T>> =>
  source =>
    new Observable(subscriber => {
      const scope = currentScope();
      const down = new InTurn(subscriber);
      const busy = new Map<unknown, Lane<T>>();
      const free: Lane<T>[] = [];
      /** Keys without a lane, first come first served. */
      const waiting = new Map<unknown, Delivery<T>[]>();
      let ended = false;
      let filling = false;

      const onIdle = (lane: Lane<T>) => {
        // Lanes tell so whenever they are idle, also before they have worked, or have got all of what waits for them.
        if (busy.get(lane.key) !== lane || waiting.has(lane.key) || !lane.branch.idle) return;
        busy.delete(lane.key);
        free.push(lane);
        fill();
      };

      for (let i = 0; i < concurrency; i++) {
        const lane: Lane<T> = {
          key: undefined,
          branch: new Branch<T>(
            delivery => down.next(delivery),
            () => onIdle(lane),
            scope,
            { maxInFlight: { deliveries: maxInFlightPerKey } },
          ),
        };
        free.push(lane);
      }

      /** Gives lanes to keys. A loop: parts that are settled at once do not recurse. */
      const fill = () => {
        if (filling) return;
        filling = true;
        while (free.length > 0 && waiting.size > 0) {
          const [[key, parts]] = waiting as unknown as [[unknown, Delivery<T>[]]];
          const lane = free.pop() as Lane<T>;
          lane.key = key;
          busy.set(key, lane);
          // The key stays in line until then: what comes for it meanwhile comes after these.
          for (let part = parts.shift(); part !== undefined; part = parts.shift()) lane.branch.hand(part);
          waiting.delete(key);
          onIdle(lane);
        }
        filling = false;
        if (ended && busy.size === 0 && waiting.size === 0) down.complete();
      };

      const queue = (key: unknown, part: Delivery<T>) => {
        const lane = busy.get(key);
        const parts = waiting.get(key);
        if (parts !== undefined) parts.push(part);
        else if (lane !== undefined) lane.branch.hand(part);
        else waiting.set(key, [part]);
      };

      const upstream = source.subscribe({
        next: delivery => {
          let groups: Map<unknown, T[]>;
          try {
            groups = groupBy(delivery.events, by);
          } catch (thrown) {
            const cause = toError(thrown);
            delivery.nack(new MillraceError('MR_USER_CODE', `keyed: by threw: ${cause.message}`, { cause }));
            return;
          }
          for (const { branch } of [...busy.values()]) branch.forget();
          // A delivery that stays whole stays what it is.
          const parts = groups.size === 1 ? [delivery] : delivery.fork([...groups.values()]);
          let at = 0;
          for (const key of groups.keys()) queue(key, parts[at++] as Delivery<T>);
          fill();
        },
        error: (cause: unknown) => subscriber.error(cause),
        complete: () => {
          ended = true;
          for (const { branch } of [...busy.values()]) branch.forget();
          fill();
        },
      });
      return () => {
        upstream.unsubscribe();
        for (const { branch } of [...busy.values(), ...free]) branch.leave();
        for (const parts of waiting.values()) for (const part of parts.splice(0)) part.nack(unsubscribed());
        waiting.clear();
      };
    });

const groupBy = <T>(events: readonly T[], by: (event: T) => unknown): Map<unknown, T[]> => {
  const groups = new Map<unknown, T[]>();
  for (const event of events) {
    const key = by(event);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [event]);
    else group.push(event);
  }
  return groups;
};
