/**
 * `replicate`: every event to every branch. Flume's replicating channel selector.
 *
 * @module
 */
import type { FlumeEvent } from '../../core/event.ts';
import type { FlowSink } from '../../core/flow.ts';
import type { Destination } from './destination.ts';
import { FanOut, type FanOutOptions } from './fan-out.ts';

export interface ReplicateOptions<T = FlumeEvent> extends FanOutOptions {
  /** Branches that never hold up the flow: what they cannot take in time, or nack, is dropped and counted. */
  readonly optional?: readonly Destination<T>[];
}

/**
 * A sink that hands each delivery to all branches. It ends a flow: `run(source, replicate([a.input(), b.input()]))`.
 *
 * **acks** when all branches have acked · **pauses** its source while one of them has not; put a channel into a branch
 * that may lag · **nacks** a delivery only when a branch has nacked it `retry.attempts` times: until then it is repeated
 * on that branch alone, and the others do not see it twice · **rejects** what a branch rejects, when all have settled ·
 * **completes** all branches when its source has; `done` waits for all. Each branch keeps the order.
 *
 * @example
 *     replicate([
 *       deliveries => deliveries.pipe(memoryChannel()).subscribe(loggerSink()),
 *       archive.input(),
 *     ])
 * @throws MR_SINK_USED from `run` if a branch is a sink that has been in a flow before.
 */
export const replicate = <T = FlumeEvent>(
  branches: readonly Destination<T>[],
  { optional = [], ...options }: ReplicateOptions<T> = {},
): FlowSink<T> =>
  new FanOut<T>(
    { required: branches, optional },
    ({ batch }) => ({
      required: new Map(branches.map(branch => [branch, batch])),
      optional: new Map(optional.map(branch => [branch, batch])),
      leaving: branches.length === 0 ? { batch, spared: optional.length === 0 ? 0 : batch.length } : undefined,
    }),
    options,
  );
