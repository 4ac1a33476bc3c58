/**
 * `toAsyncIterable`: the pull side of a flow, for `for await` and for ix.
 *
 * @module
 */
import { AsyncIterableX } from 'ix/asynciterable/asynciterablex';
import type { Observable, Subscription } from 'rxjs';
import { Deque } from '../core/deque.ts';
import { own, settle, settledCount, type Delivery } from '../core/delivery.ts';
import { MillraceError, toError } from '../core/errors.ts';

/**
 * Deliveries to loop over, as an ix `AsyncIterableX`. Taking the next one acks the one before, unless the loop has settled it
 * itself. Leaving the loop early (`break`, `return`, a throw) nacks the one it was at, and what was not taken yet, and
 * unsubscribes. What waits to be taken is bounded by what the source may have unsettled.
 *
 * **acks** on the next `next()` · **nacks** when left · **completes** (the loop ends) with its source · **errors** (the loop
 * throws) with its source, after everything that it had emitted.
 *
 * @example
 *     for await (const { events } of toAsyncIterable(source)) await db.insert(events);
 */
export const toAsyncIterable = <T>(deliveries: Observable<Delivery<T>>): AsyncIterableX<Delivery<T>> =>
  new Deliveries(deliveries);

class Deliveries<T> extends AsyncIterableX<Delivery<T>> {
  readonly #source: Observable<Delivery<T>>;

  constructor(source: Observable<Delivery<T>>) {
    super();
    this.#source = source;
  }

  [Symbol.asyncIterator](): AsyncIterator<Delivery<T>> {
    return new Loop(this.#source);
  }
}

/** What is acked of it counts as delivered: here the events leave the flow. */
const taken = <T>(delivery: Delivery<T>): Delivery<T> =>
  own(delivery, delivery.batch, (outcome, cause, failed) => {
    const { ledger, length } = delivery;
    const gone = settledCount(length, outcome, failed);
    // Counted before it is settled: settling may let the next one in.
    ledger.delivered += gone;
    const settled = settle(delivery, outcome, cause, failed);
    if (!settled) ledger.delivered -= gone;
    return settled;
  });

type Result<T> = IteratorResult<Delivery<T>, undefined>;

const end = { done: true, value: undefined } as const;

class Loop<T> implements AsyncIterator<Delivery<T>, undefined> {
  readonly #source: Observable<Delivery<T>>;
  readonly #waiting = new Deque<Delivery<T>>();
  #subscription: Subscription | undefined;
  #current: Delivery<T> | undefined;
  #asked: { resolve: (result: Result<T>) => void; reject: (cause: Error) => void } | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #ended = false;
  #failure: Error | undefined;

  constructor(source: Observable<Delivery<T>>) {
    this.#source = source;
  }

  /** Calls that do not wait for each other are answered one after the other. */
  next(): Promise<Result<T>> {
    const take = () => this.#take();
    const taken = this.#last.then(take, take);
    this.#last = taken;
    return taken;
  }

  return(): Promise<Result<T>> {
    this.#ended = true;
    this.#failure = undefined;
    this.#subscription?.unsubscribe();
    const left = new MillraceError('MR_FLOW_STOPPED', 'the loop was left.');
    if (this.#current?.live === true) this.#current.nack(left);
    for (let delivery = this.#waiting.shift(); delivery !== undefined; delivery = this.#waiting.shift())
      delivery.nack(left);
    this.#answer();
    return Promise.resolve(end);
  }

  #take(): Promise<Result<T>> {
    if (this.#current?.live === true) this.#current.ack();
    this.#current = undefined;
    return new Promise((resolve, reject) => {
      this.#asked = { resolve, reject };
      this.#subscription ??= this.#ended ? undefined : this.#subscribe();
      this.#answer();
    });
  }

  #subscribe(): Subscription {
    return this.#source.subscribe({
      next: delivery => {
        this.#waiting.push(delivery);
        this.#answer();
      },
      error: (cause: unknown) => {
        this.#failure = toError(cause);
        this.#ended = true;
        this.#answer();
      },
      complete: () => {
        this.#ended = true;
        this.#answer();
      },
    });
  }

  #answer(): void {
    if (this.#asked === undefined) return;
    // What was taken back while it waited comes again.
    while (this.#waiting.peek()?.live === false) this.#waiting.shift();
    const delivery = this.#waiting.shift();
    if (delivery === undefined && !this.#ended) return;
    const { resolve, reject } = this.#asked;
    this.#asked = undefined;
    if (delivery !== undefined) resolve({ done: false, value: (this.#current = taken(delivery)) });
    else if (this.#failure === undefined) resolve(end);
    else {
      reject(this.#failure);
      this.#failure = undefined;
    }
  }
}
