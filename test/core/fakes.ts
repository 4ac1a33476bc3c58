import type { Store } from '../../src/core/channel.ts';
import type { Batch } from '../../src/core/event.ts';
import type { Flow } from '../../src/core/flow.ts';
import { Entry } from '../../src/core/outlet.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import { FakeClock, recordingLog, seededRandom } from '../../src/testing/index.ts';

/** A scope in which the test owns time, and a flow in it. */
export const world = () => {
  const clock = new FakeClock();
  const log = recordingLog();
  const scope = new Scope({ clock, log, random: seededRandom(1) });
  const inside = <R>(act: () => R): R => inScope(scope, act);
  return { clock, log, scope, inside, start: (make: () => Flow) => inside(make) };
};

export const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** One delivery per number. */
export const counting = (from: number, to: number) => numbers(from, to).map(n => ({ emit: [n] }));

/** A promise that the test decides. */
export const deferred = <T = void>() => {
  let resolve!: (value: T) => void;
  let reject!: (cause: Error) => void;
  const promise = new Promise<T>((yes, no) => ([resolve, reject] = [yes, no]));
  promise.catch(() => undefined);
  return { promise, resolve, reject };
};

/** The plainest store: whole batches in line. What a test wants to happen besides is given. */
export const plainStore = <T>(
  events: number,
  { open, put, close }: Pick<Store<T>, 'open' | 'close'> & { put?: (batch: Batch<T>) => void | Promise<void> } = {},
): Store<T> & { readonly batches: readonly Batch<T>[] } => {
  const line: Entry<T>[] = [];
  const batches: Batch<T>[] = [];
  const store = {
    batches,
    capacity: { events, bytes: Infinity },
    events: 0,
    bytes: 0,
    ...(open && { open }),
    ...(close && { close }),
    put(batch: Batch<T>) {
      const keep = () => {
        batches.push(batch);
        line.push(new Entry<T>(batch, undefined));
        store.events += batch.length;
      };
      const putting = put?.(batch);
      if (putting === undefined) return keep();
      return putting.then(keep);
    },
    take: (maxEvents: number) => ((line[0]?.batch.length ?? Infinity) <= maxEvents ? line.shift() : undefined),
    giveBack: (entries: readonly Entry<T>[]) => void line.unshift(...entries),
    done(entry: Entry<T>, rest: Batch<T> | undefined) {
      store.events -= entry.batch.length - (rest?.length ?? 0);
    },
  };
  return store;
};
