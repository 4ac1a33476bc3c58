/**
 * `route`: each event to the branches of its case. Flume's multiplexing channel selector.
 *
 * @module
 */
import type { Delivery } from '../../core/delivery.ts';
import { MillraceError } from '../../core/errors.ts';
import { Batch, type FlumeEvent, type Headers } from '../../core/event.ts';
import type { FlowSink } from '../../core/flow.ts';
import type { Destination } from './destination.ts';
import { FanOut, type FanOutOptions, type Shares } from './fan-out.ts';

/** One branch, or several that all get the event. None: it leaves the flow here, counted as filtered. */
export type Target<T = FlumeEvent> = Destination<T> | readonly Destination<T>[];

export interface RouteOptions<T = FlumeEvent> extends FanOutOptions {
  readonly cases: Readonly<Record<string, Target<T>>>;
  /** For events of no case. Without it they are rejected with `MR_NO_ROUTE`. */
  readonly default?: Target<T>;
  /** By case: branches that get the event, too, but never hold up the flow. */
  readonly optional?: Readonly<Record<string, Target<T>>>;
}

/** The name of a header, or a function that says which case an event belongs to, if any; or which ones. */
export type Selector<T = FlumeEvent> = string | ((event: T) => string | readonly string[] | undefined);

interface Case<T> {
  readonly required: ReadonlySet<Destination<T>>;
  readonly optional: ReadonlySet<Destination<T>>;
}

/**
 * A sink that splits each delivery among the branches of its events' cases. It ends a flow, as `replicate` does.
 *
 * **acks** when every branch has acked its part · **pauses** its source while one of them has not · **nacks** when the
 * selector throws, or a branch has nacked its part `retry.attempts` times; until then that part is repeated on that branch
 * alone · **rejects** events of no case with `MR_NO_ROUTE`, and what a branch rejects · **completes** all branches when
 * its source has; `done` waits for all. Each branch keeps the order.
 *
 * @example
 *     route('State', { cases: { CZ: prague.input(), US: [boston.input(), audit.input()] }, default: others.input() })
 */
export const route = <T = FlumeEvent>(
  selector: Selector<T>,
  { cases, default: otherwise, optional = {}, ...options }: RouteOptions<T>,
): FlowSink<T> => {
  const known = new Map<string, Case<T>>();
  for (const name of new Set([...Object.keys(cases), ...Object.keys(optional)]))
    known.set(name, caseOf(Object.hasOwn(cases, name) ? cases[name] : otherwise, own(optional, name)));
  const none = otherwise === undefined ? undefined : caseOf(otherwise, []);
  const all = [...known.values(), ...(none === undefined ? [] : [none])];

  /** The case by that name; of several names, their cases taken together. */
  const find = (name: string | readonly string[] | undefined): Case<T> | undefined => {
    if (name === undefined) return none;
    if (typeof name === 'string') return known.get(name) ?? none;
    const found = name.flatMap(one => known.get(one) ?? []);
    if (found.length < 2) return found[0] ?? none;
    return caseOf(
      found.flatMap(({ required }) => [...required]),
      found.flatMap(one => [...one.optional]),
    );
  };

  const noRoute = (count: number) =>
    new MillraceError(
      'MR_NO_ROUTE',
      `${count} events belong to no case and there is no default; ` +
        `${typeof selector === 'string' ? `the header ${selector} decides, ` : ''}cases are ${[...known.keys()].join(', ')}.`,
    );

  const deal = ({ batch, block }: Delivery<T>): Shares<T> => {
    // The events of a block have the same headers: no need to look at each, or to make them.
    if (typeof selector === 'string' && block !== undefined)
      return sharesOfAll(batch, find(header(block, selector)), noRoute);
    const caseOfEvent = (event: T) =>
      find(typeof selector === 'string' ? header(event as Partial<FlumeEvent>, selector) : selector(event));
    return sharesOfEach(batch, batch.events.map(caseOfEvent), noRoute);
  };

  return new FanOut<T>(
    { required: all.flatMap(({ required }) => [...required]), optional: all.flatMap(one => [...one.optional]) },
    deal,
    options,
  );
};

const sharesOfAll = <T>(batch: Batch<T>, to: Case<T> | undefined, noRoute: (count: number) => Error): Shares<T> => ({
  required: new Map([...(to?.required ?? [])].map(destination => [destination, batch])),
  optional: new Map([...(to?.optional ?? [])].map(destination => [destination, batch])),
  unrouted: to === undefined ? { batch, cause: noRoute(batch.length) } : undefined,
  leaving: to?.required.size === 0 ? { batch, spared: to.optional.size > 0 ? batch.length : 0 } : undefined,
});

const sharesOfEach = <T>(
  batch: Batch<T>,
  cases: readonly (Case<T> | undefined)[],
  noRoute: (count: number) => Error,
): Shares<T> => {
  const [first] = cases;
  if (cases.every(one => one === first)) return sharesOfAll(batch, first, noRoute);
  const required = new Map<Destination<T>, T[]>();
  const optional = new Map<Destination<T>, T[]>();
  const unrouted: T[] = [];
  const leaving: T[] = [];
  let spared = 0;
  batch.events.forEach((event, i) => {
    const to = cases[i];
    if (to === undefined) unrouted.push(event);
    else {
      for (const destination of to.required) add(required, destination, event);
      for (const destination of to.optional) add(optional, destination, event);
      if (to.required.size > 0) return;
      leaving.push(event);
      if (to.optional.size > 0) spared++;
    }
  });
  return {
    required: batches(required),
    optional: batches(optional),
    unrouted: unrouted.length === 0 ? undefined : { batch: Batch.of(unrouted), cause: noRoute(unrouted.length) },
    leaving: leaving.length === 0 ? undefined : { batch: Batch.of(leaving), spared },
  };
};

const add = <T>(groups: Map<Destination<T>, T[]>, destination: Destination<T>, event: T): void => {
  const group = groups.get(destination);
  if (group === undefined) groups.set(destination, [event]);
  else group.push(event);
};

const batches = <T>(groups: ReadonlyMap<Destination<T>, T[]>): Map<Destination<T>, Batch<T>> =>
  new Map([...groups].map(([destination, events]) => [destination, Batch.of(events)]));

const caseOf = <T>(required: Target<T> | undefined, optional: Target<T> | undefined): Case<T> => {
  const must = new Set(list(required));
  return { required: must, optional: new Set(list(optional).filter(destination => !must.has(destination))) };
};

const list = <T>(target: Target<T> | undefined): readonly Destination<T>[] => {
  if (target === undefined) return [];
  return Array.isArray(target) ? (target as readonly Destination<T>[]) : [target as Destination<T>];
};

const header = ({ headers = {} }: { readonly headers?: Headers }, name: string): string | undefined =>
  own(headers, name);

/** Not what every object has by that name. */
const own = <V>(record: Readonly<Record<string, V>>, name: string): V | undefined =>
  Object.hasOwn(record, name) ? record[name] : undefined;
