/**
 * One of several ways on from a stage, with an outlet of its own: what fails on it is repeated on it alone.
 *
 * @module
 */
import { Deque } from '../../core/deque.ts';
import { creditOf, type Delivery } from '../../core/delivery.ts';
import type { Batch } from '../../core/event.ts';
import { Entry, Outlet, type MaxInFlight, type Supply } from '../../core/outlet.ts';
import type { Scope } from '../../core/scope.ts';
import { unsubscribed } from '../in-turn.ts';

export interface BranchOptions {
  readonly maxInFlight?: MaxInFlight;
  readonly retry?: {
    /** First wait before a branch gets a delivery again that it nacked, in ms; default 100. Doubles, with jitter. */
    readonly initial?: number;
    /** Longest wait, in ms; default 30 000. */
    readonly max?: number;
    /** Attempts at one branch before the delivery is nacked. Default: no limit; 1 for a source that is asked for an answer (HTTP). */
    readonly attempts?: number;
  };
}

/**
 * Emits what it is handed, in order and again after a nack. It acks a delivery when all of it was acked on this branch,
 * rejects it when that was rejected, and nacks it when `retry` is spent. Bounded by whoever emits the deliveries; spare
 * copies, which nobody waits for, have to be bounded by the caller.
 */
export class Branch<T> implements Supply<T> {
  /** Spare copies that are held, queued or in flight. */
  readonly spare = { events: 0, bytes: 0 };
  readonly #scope: Scope;
  readonly #attempts: number;
  readonly #outlet: Outlet<T>;
  readonly #queue = new Deque<Entry<T>>();
  #leaving = false;

  constructor(
    next: (delivery: Delivery<T>) => void,
    onIdle: () => void,
    scope: Scope,
    { maxInFlight, retry }: BranchOptions,
  ) {
    this.#scope = scope;
    this.#attempts = retry?.attempts ?? Infinity;
    const whenIdle = () => {
      if (this.idle) onIdle();
    };
    this.#outlet = new Outlet<T>(this, next, whenIdle, scope, maxInFlight, retry);
  }

  /** Nothing waits, nothing is unsettled. */
  get idle(): boolean {
    return this.#queue.length === 0 && this.#outlet.idle;
  }

  /** Answers for the delivery from now on. */
  hand(delivery: Delivery<T>): void {
    this.forget();
    const entry = new Entry(delivery.batch, undefined);
    entry.origin = delivery;
    entry.attempt = delivery.attempt - 1;
    this.#add(entry);
  }

  /** Takes a copy that nobody waits for: what is not delivered at the first attempt is dropped, and counted. */
  handSpare(batch: Batch<T>): void {
    this.#countSpare(batch, 1);
    this.#scope.ledger.copied += batch.length;
    this.#add(new Entry(batch, undefined));
  }

  /** Forgets deliveries that were overtaken; call it when something comes in again. */
  forget(): void {
    this.#outlet.takeBackOvertaken();
  }

  /** Emits no more. What waits is given up; what is in flight can still be settled. */
  leave(): void {
    this.#leaving = true;
    this.#outlet.hold();
    for (let entry = this.#queue.shift(); entry !== undefined; entry = this.#queue.shift()) this.#giveUp(entry);
  }

  /** Gives up what is in flight, too. */
  abort(): void {
    this.leave();
    this.#outlet.release();
  }

  // --- what the outlet calls

  take(maxEvents: number, maxBytes: number, alone: boolean): Entry<T> | undefined {
    for (let entry = this.#queue.peek(); entry !== undefined; entry = this.#queue.peek()) {
      const { batch, origin } = entry;
      if (origin?.live === false) this.#giveUp(this.#queue.shift() as Entry<T>);
      else if (!alone && (batch.length > maxEvents || batch.byteLength > maxBytes)) return undefined;
      else return this.#queue.shift();
    }
    return undefined;
  }

  giveBack(entries: readonly Entry<T>[]): void {
    for (let i = entries.length - 1; i >= 0; i--) {
      const entry = entries[i] as Entry<T>;
      if (this.#leaving) this.#giveUp(entry);
      else this.#queue.unshift(entry);
    }
  }

  done(entry: Entry<T>, rest: Batch<T> | undefined): void {
    const { batch, origin } = entry;
    if (origin === undefined) {
      this.#countSpare(batch, -1);
      if (rest !== undefined) this.#countSpare(rest, 1);
    } else if (rest === undefined) origin.ack();
    else {
      // What is done with stays done with, whatever becomes of the rest.
      const again = new Set(rest.events);
      const [left, gone] = origin.fork([rest, batch.events.filter(value => !again.has(value))]);
      entry.origin = left;
      gone?.ack();
    }
  }

  refused({ batch, origin, attempt }: Entry<T>, outcome: 'nack' | 'reject', cause: Error): boolean {
    if (origin === undefined) this.#drop(batch);
    else if (outcome === 'reject') origin.reject(cause);
    else if (creditOf(origin)?.reports === true || attempt - origin.attempt + 1 >= this.#attempts) origin.nack(cause);
    else return false;
    return true;
  }

  #add(entry: Entry<T>): void {
    if (this.#leaving) {
      this.#giveUp(entry);
      return;
    }
    this.#queue.push(entry);
    this.#outlet.pump();
  }

  #giveUp({ batch, origin }: Entry<T>): void {
    if (origin === undefined) this.#drop(batch);
    else origin.nack(unsubscribed());
  }

  #drop(batch: Batch<T>): void {
    this.#countSpare(batch, -1);
    this.#scope.ledger.dropped += batch.length;
  }

  #countSpare(batch: Batch<T>, sign: 1 | -1): void {
    this.spare.events += sign * batch.length;
    this.spare.bytes += sign * batch.byteLength;
  }
}
