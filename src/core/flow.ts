/**
 * `run`: source, stages and sink as one flow that can be stopped, aborted and waited for.
 *
 * @module
 */
import { Subject, takeUntil, type Observable, type OperatorFunction } from 'rxjs';
import type { Delivery } from './delivery.ts';
import { MillraceError } from './errors.ts';
import type { Ledger } from './ledger.ts';
import type { Metrics } from './metrics.ts';
import { currentScope, inScope, Scope } from './scope.ts';

/** What a flow ends in: see `createSink`. */
export interface FlowSink<T> {
  next: (delivery: Delivery<T>) => void;
  error: (cause: unknown) => void;
  complete: () => void;
  readonly closed?: boolean;
  readonly done: Promise<void>;
  attach?(scope: Scope): void;
  abort?(): void;
}

type Source<T> = Observable<Delivery<T>>;
type Stage<A, B> = OperatorFunction<Delivery<A>, Delivery<B>>;

/** A running flow. */
export interface Flow {
  /** Resolves when the sink has finished, every channel is closed and the source has written its positions; rejects if the flow broke. */
  readonly done: Promise<void>;
  /**
   * Sources stop reading, everything that was read is delivered, then all is closed. Resolves with `done`. When that takes
   * longer than `timeout` (ms, default 30 000) the flow is aborted and this rejects with `MR_FLOW_STOPPED`.
   */
  stop(options?: { readonly timeout?: number }): Promise<void>;
  /** Unsubscribes at once; `done` rejects with `MR_FLOW_STOPPED`. What is unsettled stays with those who can deliver it again. */
  abort(): void;
  readonly ledger: Ledger;
  readonly metrics: Metrics;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Subscribes `source` through the stages to `sink`, as `source.pipe(…stages).subscribe(sink)` does, and returns a handle.
 * Put `retry` and `repeat` on the source: `run(source.pipe(retry({ delay: 1000 })), …)`.
 *
 * @throws MR_SINK_USED if the sink has been in a flow before.
 */
export function run<A>(source: Source<A>, sink: FlowSink<A>): Flow;
export function run<A, B>(source: Source<A>, s1: Stage<A, B>, sink: FlowSink<B>): Flow;
export function run<A, B, C>(source: Source<A>, s1: Stage<A, B>, s2: Stage<B, C>, sink: FlowSink<C>): Flow;
export function run<A, B, C, D>(
  source: Source<A>,
  s1: Stage<A, B>,
  s2: Stage<B, C>,
  s3: Stage<C, D>,
  sink: FlowSink<D>,
): Flow;
export function run<A, B, C, D, E>(
  source: Source<A>,
  s1: Stage<A, B>,
  s2: Stage<B, C>,
  s3: Stage<C, D>,
  s4: Stage<D, E>,
  sink: FlowSink<E>,
): Flow;
export function run<A, B, C, D, E, F>(
  source: Source<A>,
  s1: Stage<A, B>,
  s2: Stage<B, C>,
  s3: Stage<C, D>,
  s4: Stage<D, E>,
  s5: Stage<E, F>,
  sink: FlowSink<F>,
): Flow;
export function run<A, B, C, D, E, F, G>(
  source: Source<A>,
  s1: Stage<A, B>,
  s2: Stage<B, C>,
  s3: Stage<C, D>,
  s4: Stage<D, E>,
  s5: Stage<E, F>,
  s6: Stage<F, G>,
  sink: FlowSink<G>,
): Flow;
export function run(source: Source<unknown>, ...rest: (Stage<unknown, unknown> | FlowSink<unknown>)[]): Flow {
  const sink = rest.pop() as FlowSink<unknown>;
  const stages = rest as Stage<unknown, unknown>[];
  if (sink.closed === true)
    throw new MillraceError('MR_SINK_USED', 'this sink has been used by another flow; make a new one for each flow.');

  const scope = new Scope(currentScope());
  const stopped = new Subject<void>();
  scope.onSourcesClosed = () => {
    if (scope.stopping && scope.sourcesOpen === 0) stopped.next();
  };
  const deliveries = stages.reduce((below, stage) => stage(below), source.pipe(takeUntil(stopped)));
  sink.attach?.(scope);
  const subscription = inScope(scope, () => deliveries.subscribe(sink));

  let giveUp!: (cause: Error) => void;
  const aborted = new Promise<never>((_, reject) => (giveUp = reject));
  const finish = async () => {
    try {
      await sink.done;
    } catch (cause) {
      await scope.settled().catch(() => undefined);
      throw cause;
    }
    await scope.settled();
  };
  const done = Promise.race([finish(), aborted]);
  const abort = () => {
    // Nobody is waited for, or a write that never ends would hold up whoever gave up on it.
    giveUp(new MillraceError('MR_FLOW_STOPPED', 'the flow was aborted.'));
    // Whoever asked for it need not be told.
    done.catch(() => undefined);
    scope.abortSources();
    subscription.unsubscribe();
    sink.abort?.();
  };
  const stop = async ({ timeout = 30_000 } = {}) => {
    scope.finishSources();
    scope.onSourcesClosed();
    const late = () => {
      scope.log.error(
        `the flow did not drain within ${timeout} ms and is aborted; ${scope.ledger.held} events were held.`,
      );
      abort();
    };
    const timer = timeout === Infinity ? undefined : scope.clock.after(timeout, late);
    try {
      await done;
    } finally {
      scope.clock.cancel(timer);
    }
  };
  return { done, stop, abort, ledger: scope.ledger, metrics: scope.metrics, [Symbol.asyncDispose]: () => stop() };
}
