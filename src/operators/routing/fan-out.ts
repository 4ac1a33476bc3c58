/**
 * One flow into several destinations: what `replicate` and `route` have in common.
 *
 * @module
 */
import { Subscriber } from 'rxjs';
import type { Delivery } from '../../core/delivery.ts';
import { MillraceError, toError } from '../../core/errors.ts';
import type { Batch } from '../../core/event.ts';
import type { FlowSink } from '../../core/flow.ts';
import { currentScope, type Scope } from '../../core/scope.ts';
import { Branch, type BranchOptions } from './branch.ts';
import { openDestination, type Destination, type OpenDestination } from './destination.ts';

export interface FanOutOptions extends BranchOptions {
  /** What an optional destination may lag behind. Beyond it, its copies are dropped and counted. */
  readonly optionalBuffer?: {
    /** Default 10 000. */
    readonly events?: number;
    /** Default 16 MiB, bodies and headers; one copy that is larger goes alone. */
    readonly bytes?: number;
    /** How long it may go on after the source has ended, in ms; default 5000. */
    readonly drain?: number;
  };
}

/** Who gets what of a delivery. */
export interface Shares<T> {
  readonly required: ReadonlyMap<Destination<T>, Batch<T>>;
  readonly optional: ReadonlyMap<Destination<T>, Batch<T>>;
  /** Events that nobody is there for. */
  readonly unrouted?: { readonly batch: Batch<T>; readonly cause: Error } | undefined;
  /** Events that go nowhere on purpose, `spared` of them to optional destinations. */
  readonly leaving?: { readonly batch: Batch<T>; readonly spared: number } | undefined;
}

export interface Destinations<T> {
  readonly required: Iterable<Destination<T>>;
  readonly optional: Iterable<Destination<T>>;
}

/**
 * A sink made of destinations. A delivery is acked when all that have to have it do; each destination gets its part in
 * order, and again if it nacks, without the others noticing.
 */
export class FanOut<T> extends Subscriber<Delivery<T>> implements FlowSink<T> {
  readonly done: Promise<void>;
  readonly #destinations: Destinations<T>;
  readonly #deal: (delivery: Delivery<T>) => Shares<T>;
  readonly #options: FanOutOptions;
  #ways: Map<Destination<T>, Way<T>> | undefined;
  #ended = false;
  #resolve!: () => void;
  #reject!: (cause: Error) => void;

  constructor(destinations: Destinations<T>, deal: (delivery: Delivery<T>) => Shares<T>, options: FanOutOptions) {
    super();
    this.#destinations = destinations;
    this.#deal = deal;
    this.#options = options;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever wants to know waits for it; nobody has to.
    this.done.catch(() => undefined);
  }

  /** Opens the destinations, in the scope of the flow that is being subscribed. */
  attach(scope: Scope = currentScope()): void {
    void this.#open(scope);
  }

  /** Ends at once: what is not settled is given up. */
  abort(): void {
    this.unsubscribe();
    for (const way of this.#open().values()) way.abort();
  }

  protected override _next(delivery: Delivery<T>): void {
    const ways = this.#open();
    let shares: Shares<T>;
    try {
      shares = this.#deal(delivery);
    } catch (thrown) {
      const cause = toError(thrown);
      delivery.nack(new MillraceError('MR_USER_CODE', `a selector threw: ${cause.message}`, { cause }));
      return;
    }
    const { required, optional, unrouted, leaving } = shares;
    for (const [destination, batch] of optional) ways.get(destination)?.offer(batch);
    const batches = [...required.values()];
    if (unrouted !== undefined) batches.push(unrouted.batch);
    if (leaving !== undefined) batches.push(leaving.batch);
    // A delivery that stays whole stays what it is.
    const parts = batches.length === 1 && batches[0] === delivery.batch ? [delivery] : delivery.fork(batches);
    let at = 0;
    for (const destination of required.keys()) ways.get(destination)?.branch.hand(parts[at++] as Delivery<T>);
    if (unrouted !== undefined) parts[at++]?.reject(unrouted.cause);
    if (leaving !== undefined) leave(parts[at] as Delivery<T>, leaving.spared);
  }

  protected override _error(cause: unknown): void {
    this.#end(toError(cause));
    super.unsubscribe();
  }

  protected override _complete(): void {
    this.#end();
    super.unsubscribe();
  }

  /** No more deliveries; the destinations finish what is here in the background, then `done` resolves. */
  override unsubscribe(): void {
    this.#end();
    super.unsubscribe();
  }

  #open(scope?: Scope): Map<Destination<T>, Way<T>> {
    if (this.#ways !== undefined) return this.#ways;
    const ways = (this.#ways = new Map<Destination<T>, Way<T>>());
    const joined = scope ?? currentScope();
    const open = (destination: Destination<T>, required: boolean) => {
      if (!ways.has(destination))
        ways.set(destination, new Way(destination, required, joined, this.#options, () => this.unsubscribe()));
    };
    for (const destination of this.#destinations.required) open(destination, true);
    for (const destination of this.#destinations.optional) open(destination, false);
    const all = Promise.allSettled([...ways.values()].map(way => way.done));
    void all.then(outcomes => {
      const broken = outcomes.find(outcome => outcome.status === 'rejected');
      if (broken === undefined) this.#resolve();
      else this.#reject(toError(broken.reason));
    });
    // One of them was gone at once.
    if (this.#ended) for (const way of ways.values()) way.end(undefined);
    return ways;
  }

  #end(failure?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const way of this.#open().values()) way.end(failure);
  }
}

/** A destination with its branch, from its opening to its end. */
class Way<T> {
  readonly branch: Branch<T>;
  readonly done: Promise<void>;
  readonly #required: boolean;
  readonly #scope: Scope;
  readonly #buffer: { readonly events: number; readonly bytes: number; readonly drain: number };
  readonly #open: OpenDestination<T>;
  readonly #letGo: () => void;
  #end: { readonly failure: Error | undefined } | undefined;

  constructor(
    destination: Destination<T>,
    required: boolean,
    scope: Scope,
    options: FanOutOptions,
    onBroken: () => void,
  ) {
    const { events = 10_000, bytes = 16 * 1024 * 1024, drain = 5000 } = options.optionalBuffer ?? {};
    this.#required = required;
    this.#scope = scope;
    this.#buffer = { events, bytes, drain };
    this.#open = openDestination(destination, scope);
    const { subscriber, done } = this.#open;
    const branch = new Branch<T>(
      delivery => subscriber.next(delivery),
      () => this.#finish(),
      scope,
      options,
    );
    this.branch = branch;
    this.#letGo = scope.ledger.hold(() => branch.spare.events);
    let broken: Error | undefined;
    subscriber.add(() => {
      this.branch.leave();
      if (this.#end !== undefined) return;
      broken = new MillraceError('MR_SINK_FAILED', 'a destination has unsubscribed before the flow ended.');
      if (required) onBroken();
      else scope.log.warn(`an optional destination is gone, its events are dropped: ${broken.message}`);
    });
    this.done = done.then(
      () => {
        if (required && broken !== undefined) throw broken;
      },
      (thrown: unknown) => {
        const cause = toError(thrown);
        if (required) throw cause;
        scope.log.warn(`an optional destination has failed: ${cause.message}`, { cause });
      },
    );
  }

  /** A copy for an optional destination, if there is room. */
  offer(batch: Batch<T>): void {
    const { spare } = this.branch;
    const { events, bytes } = this.#buffer;
    if (spare.events === 0 || (spare.events + batch.length <= events && spare.bytes + batch.byteLength <= bytes)) {
      this.branch.handSpare(batch);
      return;
    }
    const { ledger } = this.#scope;
    ledger.copied += batch.length;
    ledger.dropped += batch.length;
  }

  /** No more deliveries: the destination ends when it has settled what it has been handed. */
  end(failure: Error | undefined): void {
    if (this.#end !== undefined) return;
    this.#end = { failure };
    this.branch.forget();
    if (!this.#required && !this.branch.idle) this.#endBy(this.#buffer.drain);
    this.#finish();
  }

  abort(): void {
    this.branch.abort();
    this.#open.abort();
  }

  #endBy(drain: number): void {
    const { clock } = this.#scope;
    const timer = clock.after(drain, () => {
      this.branch.abort();
      this.#finish();
    });
    this.#open.subscriber.add(() => clock.cancel(timer));
  }

  #finish(): void {
    if (this.#end === undefined || !this.branch.idle) return;
    const { failure } = this.#end;
    this.#letGo();
    if (failure === undefined) this.#open.subscriber.complete();
    else this.#open.subscriber.error(failure);
  }
}

/** Counts events that leave the flow, unless an optional destination has them now. */
const leave = (delivery: Delivery<unknown>, spared: number): void => {
  const { ledger } = delivery;
  const filtered = delivery.length - spared;
  ledger.filtered += filtered;
  ledger.copied -= spared;
  if (delivery.ack()) return;
  ledger.filtered -= filtered;
  ledger.copied += spared;
};
