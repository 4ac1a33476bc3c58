/**
 * A sink that behaves as a script says, and remembers everything it was handed.
 *
 * @module
 */
import { systemClock, type Clock } from '../core/clock.ts';
import type { Delivery, Outcome } from '../core/delivery.ts';
import type { FlumeEvent } from '../core/event.ts';
import type { FlowSink } from '../core/flow.ts';
import type { Scope } from '../core/scope.ts';

/** What a recording sink does with one delivery. */
export type SinkStep =
  | Outcome
  /** Keeps it unsettled until the test calls `settle` on its record, or for ever. */
  | 'hold'
  | {
      readonly outcome: Outcome;
      /** Milliseconds until then; default 0, which is at once. Different waits settle out of order. */
      readonly after?: number;
      /** How many times to settle; default 1. */
      readonly times?: number;
      /** Of a nack or reject: only the events at these indexes, modulo the length. Default all. */
      readonly failed?: readonly number[];
    };

/** One delivery as the sink saw it. */
export interface Received<T = FlumeEvent> {
  readonly delivery: Delivery<T>;
  readonly events: readonly T[];
  readonly attempt: number;
  /** The clock when it came. */
  readonly at: number;
  /** The outcome that was accepted; undefined while it is unsettled, or if it came too late. */
  outcome: Outcome | undefined;
  /** What each settlement returned. */
  readonly returned: boolean[];
  /** Settles it now; a test calls this for a delivery on hold. */
  settle(outcome: Outcome, failed?: readonly T[]): boolean;
}

export interface RecordingSink<T = FlumeEvent> extends FlowSink<T> {
  readonly received: readonly Received<T>[];
  /** Events acked, in the order of their acks. */
  readonly acked: readonly T[];
  /** Events rejected, in the order of their rejections. */
  readonly rejected: readonly T[];
  /** Deliveries that are not settled yet and still can be. */
  unsettled(): readonly Received<T>[];
  /** How the stream ended; undefined until then. */
  readonly ended: 'complete' | { readonly error: unknown } | 'aborted' | undefined;
}

export interface RecordingSinkOptions {
  /** Default: the clock of the flow it joins with `run`. */
  readonly clock?: Clock;
}

const settleAs = <T>(delivery: Delivery<T>, outcome: Outcome, failed: readonly T[] | undefined): boolean => {
  if (outcome === 'ack') return delivery.ack();
  const cause = new Error(`the script says ${outcome}`);
  return outcome === 'nack' ? delivery.nack(cause, failed) : delivery.reject(cause, failed);
};

/**
 * `script` is a list of steps, one per delivery, and `ack` after its end; or a function that decides by itself.
 * `done` resolves on completion, and rejects when the flow errors or is aborted. It never errors and never closes by itself.
 */
export const recordingSink = <T = FlumeEvent>(
  script: readonly SinkStep[] | ((delivery: Delivery<T>, index: number) => SinkStep) = [],
  options: RecordingSinkOptions = {},
): RecordingSink<T> => new Recorder(script, options.clock);

class Recorder<T> implements RecordingSink<T> {
  readonly received: Received<T>[] = [];
  readonly acked: T[] = [];
  readonly rejected: T[] = [];
  ended: RecordingSink<T>['ended'];
  readonly done: Promise<void>;
  readonly #stepFor: (delivery: Delivery<T>, index: number) => SinkStep;
  #clock: Clock | undefined;
  #resolve!: () => void;
  #reject!: (cause: unknown) => void;

  constructor(
    script: readonly SinkStep[] | ((delivery: Delivery<T>, index: number) => SinkStep),
    clock: Clock | undefined,
  ) {
    this.#stepFor = typeof script === 'function' ? script : (_, index) => script[index] ?? 'ack';
    this.#clock = clock;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => undefined);
  }

  get closed(): boolean {
    return this.ended !== undefined;
  }

  attach(scope: Scope): void {
    this.#clock ??= scope.clock;
  }

  unsettled(): readonly Received<T>[] {
    return this.received.filter(({ delivery }) => delivery.live);
  }

  // RxJS takes these off the object, so they are bound.

  readonly next = (delivery: Delivery<T>): void => {
    const clock = (this.#clock ??= systemClock);
    const one: Received<T> = {
      delivery,
      events: delivery.events,
      attempt: delivery.attempt,
      at: clock.now(),
      outcome: undefined,
      returned: [],
      settle: (outcome, failed) => this.#settle(one, outcome, failed),
    };
    this.received.push(one);
    const step = this.#stepFor(delivery, this.received.length - 1);
    if (step === 'hold') return;
    const { outcome, after = 0, times = 1, failed } = typeof step === 'string' ? { outcome: step } : step;
    const some = failed?.map(index => one.events[index % one.events.length] as T);
    const settle = () => {
      for (let i = 0; i < times; i++) this.#settle(one, outcome, some && [...new Set(some)]);
    };
    if (after === 0) settle();
    else clock.after(after, settle);
  };

  readonly error = (cause: unknown): void => {
    this.ended ??= { error: cause };
    this.#reject(cause);
  };

  readonly complete = (): void => {
    this.ended ??= 'complete';
    this.#resolve();
  };

  abort(): void {
    this.ended ??= 'aborted';
    this.#reject(new Error('the flow was aborted'));
  }

  /** Written down before it is settled: settling may let the next delivery in. */
  #settle(one: Received<T>, outcome: Outcome, failed: readonly T[] | undefined): boolean {
    const { delivery, events } = one;
    if (!delivery.live) {
      const late = settleAs(delivery, outcome, failed);
      one.returned.push(late);
      return late;
    }
    const gone = outcome === 'ack' ? events : events.filter(value => failed !== undefined && !failed.includes(value));
    one.outcome = outcome;
    this.acked.push(...gone);
    if (outcome === 'reject') this.rejected.push(...(failed ?? events));
    delivery.ledger.delivered += gone.length;
    const settled = settleAs(delivery, outcome, failed);
    one.returned.push(settled);
    return settled;
  }
}
