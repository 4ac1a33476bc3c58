/**
 * The emitting side of sources and channels: credit, what is in flight, redelivery, fencing. Written once.
 *
 * - Credit: at most `maxInFlight` unsettled, in deliveries, events and bytes. What is larger than that goes alone (S3).
 * - Emission is a trampoline: however deep settle and emit call each other, `next` is never called from within `next`
 *   of the same outlet. After {@link burst} deliveries or {@link burstEvents} events in one go the loop yields to I/O and timers.
 * - Order: with `order: 'strict'` a nack overtakes all later deliveries in flight: they are fenced, and everything
 *   is emitted again from the failed one on (go-back-N). With `'selective'` only the failed one is.
 * - A redelivery always waits, with growing jittered backoff; it is never synchronous.
 *
 * @module
 */
import { backoffDelay, type Backoff, type Timer } from './clock.ts';
import { leaveOut, Settleable, type Credit, type Delivery, type Failed, type Outcome } from './delivery.ts';
import { MillraceError } from './errors.ts';
import { Batch } from './event.ts';
import type { Ledger } from './ledger.ts';
import type { Scope } from './scope.ts';

/** How much may be unsettled at a time. */
export interface MaxInFlight {
  /** Default 256. */
  readonly deliveries?: number;
  /** Default 25 000. */
  readonly events?: number;
  /** Default 8 MiB, bodies and headers. */
  readonly bytes?: number;
}

/** What happens to deliveries that were not acked. */
export interface Redelivery {
  /** `strict` (default): order survives a nack. `selective`: only the nacked delivery is repeated. */
  readonly order?: 'strict' | 'selective';
  /** First wait before a redelivery; default 100 ms. */
  readonly initial?: number;
  /** Longest wait; default 30 000 ms. */
  readonly max?: number;
  /** What a reject without a dead letter means: `keep` (default) tries again for ever and counts, `drop` gives it up and counts. */
  readonly onReject?: 'keep' | 'drop';
}

/** Deliveries emitted without a break before I/O and timers get their turn. */
const burst = 256;

/**
 * Likewise events. Without it a sink that returns promises gets its turn so late that the garbage collector has carried most
 * events around: 130 instead of 69 µs per batch of 1000 objects.
 */
const burstEvents = 16_384;

/** How often deliveries that stay unsettled are put under watch for garbage collection. */
const watchInterval = 1000;

/** A batch on its way: it survives its deliveries, one of which is made per attempt. */
export class Entry<T, Tag = unknown> {
  batch: Batch<T>;
  readonly tag: Tag;
  /** In a stage: the delivery that this stands for. When that one is not live any more, neither is this. */
  origin: Delivery<T> | undefined;
  /** Attempts made so far; one that was overtaken before it was judged does not count. */
  attempt = 0;
  /** Until it is emitted for the first time. */
  fresh = true;
  /** Counts emissions and settlements: a delivery of an older generation is stale. */
  generation = 0;

  // While in flight: neighbours in order of emission, and the delivery, until the garbage collector watches it.
  before: Entry<T> | undefined;
  after: Entry<T> | undefined;
  delivery: Delivery<T> | undefined;

  constructor(batch: Batch<T>, tag: Tag) {
    this.batch = batch;
    this.tag = tag;
  }
}

/** Where an outlet gets its batches. */
export interface Supply<T> {
  /** The first batch in line, if there is one that fits; `alone` admits any. */
  take(maxEvents: number, maxBytes: number, alone: boolean): Entry<T> | undefined;
  /** These are first in line again, in this order. */
  giveBack(entries: readonly Entry<T>[]): void;
  /** All events of the entry but `rest` are done with, and will not be asked for again. */
  done(entry: Entry<T>, rest: Batch<T> | undefined): void;
  /** The entry was nacked or rejected. True: its origin has been told, forget it. */
  refused(entry: Entry<T>, outcome: 'nack' | 'reject', cause: Error): boolean;
}

class Root<T> extends Settleable<T> {
  readonly #outlet: Outlet<T>;
  readonly #entry: Entry<T>;
  readonly #generation: number;

  constructor(outlet: Outlet<T>, entry: Entry<T>) {
    super(entry.batch, entry.attempt);
    this.#outlet = outlet;
    this.#entry = entry;
    this.#generation = entry.generation;
  }

  get ledger(): Ledger {
    return this.#entry.origin?.ledger ?? this.#outlet.ledger;
  }

  override get credit(): Credit {
    return this.#outlet;
  }

  override get tag(): unknown {
    return this.#entry.tag;
  }

  protected get reachable(): boolean {
    return this.#current && this.#entry.origin?.live !== false;
  }

  get #current(): boolean {
    return this.#entry.generation === this.#generation;
  }

  protected pass(outcome: Outcome, cause: Error | undefined, failed: Failed): boolean {
    if (this.reachable) {
      this.#outlet.settle(this.#entry, outcome, cause, failed);
      return true;
    }
    this.ledger.settledLate++;
    if (this.#current) this.#outlet.takeBack(this.#entry);
    return false;
  }
}

/** Finds deliveries that somebody dropped without settling them. */
const lost = new FinalizationRegistry<{ entry: Entry<unknown>; generation: number; outlet: Outlet<unknown> }>(
  ({ entry, generation, outlet }) => {
    if (entry.generation === generation) outlet.leaked(entry);
  },
);

export class Outlet<T> implements Credit {
  readonly #supply: Supply<T>;
  readonly #next: (delivery: Delivery<T>) => void;
  readonly #onIdle: () => void;
  readonly #scope: Scope;
  readonly #maxDeliveries: number;
  readonly #maxEvents: number;
  readonly #maxBytes: number;
  readonly #strict: boolean;
  readonly #keepRejected: boolean;
  readonly #backoff: Backoff;

  // In flight, oldest first.
  #oldest: Entry<T> | undefined;
  #newest: Entry<T> | undefined;
  #deliveries = 0;
  #events = 0;
  #bytes = 0;

  #open = true;
  #pumping = false;
  #again = false;
  #yielded = false;
  /** Set while a redelivery waits: the whole outlet waits with it if order is strict. */
  #pause: Timer;
  readonly #delayed = new Map<Entry<T>, Timer>();
  #watch: Timer;
  /** Newest entry at the last watch: what is older now has been unsettled for one interval at least. */
  #watched: Entry<T> | undefined;
  /** See `Credit.reports`. */
  reports = false;
  /** Deliveries that were rejected and are tried again, for want of a dead letter. */
  poisoned = 0;

  constructor(
    supply: Supply<T>,
    next: (delivery: Delivery<T>) => void,
    onIdle: () => void,
    scope: Scope,
    limits: MaxInFlight = {},
    redelivery: Redelivery = {},
  ) {
    for (const [name, value] of Object.entries(limits)) {
      if (!(value >= 1))
        throw new MillraceError('MR_CONFIG', `maxInFlight: ${name}: expected a number of at least 1, found ${value}.`);
    }
    this.#supply = supply;
    this.#next = next;
    this.#onIdle = onIdle;
    this.#scope = scope;
    this.#maxDeliveries = limits.deliveries ?? 256;
    this.#maxEvents = limits.events ?? 25_000;
    this.#maxBytes = limits.bytes ?? 8 * 1024 * 1024;
    this.#strict = redelivery.order !== 'selective';
    this.#keepRejected = redelivery.onReject !== 'drop';
    this.#backoff = { initial: redelivery.initial ?? 100, max: redelivery.max ?? 30_000 };
  }

  get ledger(): Ledger {
    return this.#scope.ledger;
  }

  /** Nothing is unsettled, and nothing waits to be redelivered. */
  get idle(): boolean {
    return this.#deliveries === 0 && this.#delayed.size === 0;
  }

  get events(): number {
    return this.#events;
  }

  get deliveries(): number {
    return this.#deliveries;
  }

  get used(): boolean {
    return (
      this.#deliveries >= this.#maxDeliveries ||
      (this.#deliveries > 0 && (this.#events >= this.#maxEvents || this.#bytes >= this.#maxBytes))
    );
  }

  /** Emits while there is credit and something to emit. Call it whenever either may have changed. */
  pump(): void {
    this.#again = true;
    if (this.#pumping || this.#yielded) return;
    this.#pumping = true;
    let deliveries = burst;
    let events = burstEvents;
    while (this.#again) {
      this.#again = false;
      let entry: Entry<T> | undefined;
      while ((entry = this.#takeNext()) !== undefined) {
        this.#emit(entry);
        if (--deliveries <= 0 || (events -= entry.batch.length) <= 0) {
          this.#yielded = true;
          this.#again = false;
          this.#scope.clock.soon(this.#resume);
          break;
        }
      }
    }
    this.#pumping = false;
    if (this.idle) this.#onIdle();
  }

  /** No `next` from now on. What is in flight can still be settled. */
  hold(): void {
    this.#open = false;
    this.#scope.clock.cancel(this.#pause);
    this.#pause = undefined;
    for (const [entry, timer] of [...this.#delayed].reverse()) {
      this.#scope.clock.cancel(timer);
      this.#delayed.delete(entry);
      this.#supply.giveBack([entry]);
    }
  }

  /** Fences what is in flight and gives it back: the session is over, later settlements are stale. */
  release(): void {
    this.hold();
    this.#scope.clock.cancel(this.#watch);
    const entries: Entry<T>[] = [];
    while (this.#oldest !== undefined) entries.push(this.#fence(this.#oldest));
    if (entries.length > 0) this.#supply.giveBack(entries);
  }

  settle(entry: Entry<T>, outcome: Outcome, cause: Error | undefined, failed: Failed): void {
    const overtaken = outcome !== 'ack' && this.#strict ? this.#fenceAfter(entry) : [];
    this.#unlink(entry);
    entry.generation++;
    if (outcome === 'ack') this.#supply.done(entry, undefined);
    else {
      // Nothing may leave before what is taken back is first in line again.
      const pumping = this.#pumping;
      this.#pumping = true;
      this.#failed(entry, outcome, cause as Error, failed, overtaken);
      this.#pumping = pumping;
    }
    this.pump();
  }

  /** Its origin was overtaken while it was in flight: the supply gets it back, and will see. */
  takeBack(entry: Entry<T>): void {
    this.#supply.giveBack([this.#fence(entry)]);
    this.pump();
  }

  /** Takes back all that is in flight for origins that were overtaken: nobody has to settle those. */
  takeBackOvertaken(): void {
    const overtaken: Entry<T>[] = [];
    for (let entry = this.#oldest; entry !== undefined; entry = entry.after)
      if (entry.origin?.live === false) overtaken.push(entry);
    for (const entry of overtaken) this.takeBack(entry);
  }

  /**
   * Fences what is in flight, or waits for its redelivery, and is `gone`: it is for somebody else to deliver now. The caller
   * has these entries, and pumps when it has done what it does with them.
   */
  withdraw(gone: (entry: Entry<T>) => boolean): Entry<T>[] {
    const withdrawn: Entry<T>[] = [];
    for (let entry = this.#oldest; entry !== undefined;) {
      const { after } = entry;
      if (gone(entry)) withdrawn.push(this.#fence(entry));
      entry = after;
    }
    for (const [entry, timer] of this.#delayed) {
      if (!gone(entry)) continue;
      this.#scope.clock.cancel(timer);
      this.#delayed.delete(entry);
      withdrawn.push(entry);
    }
    return withdrawn;
  }

  leaked(entry: Entry<T>): void {
    if (entry.origin?.live === false) return this.takeBack(entry);
    const error = new MillraceError(
      'MR_DELIVERY_LEAKED',
      `a delivery of ${entry.batch.length} events was dropped unsettled; it is delivered again. ` +
        'Operators that drop, hold or share values belong inside intercept().',
    );
    this.#scope.log.warn(error.message, { code: error.code });
    this.settle(entry, 'nack', error, undefined);
  }

  readonly #resume = (): void => {
    this.#yielded = false;
    this.pump();
  };

  #takeNext(): Entry<T> | undefined {
    if (!this.#open || this.#pause !== undefined || this.used) return undefined;
    const alone = this.#deliveries === 0;
    return this.#supply.take(this.#maxEvents - this.#events, this.#maxBytes - this.#bytes, alone);
  }

  #emit(entry: Entry<T>): void {
    entry.generation++;
    entry.attempt++;
    entry.fresh = false;
    entry.before = this.#newest;
    entry.after = undefined;
    if (this.#newest === undefined) this.#oldest = entry;
    else this.#newest.after = entry;
    this.#newest = entry;
    this.#deliveries++;
    this.#events += entry.batch.length;
    this.#bytes += entry.batch.byteLength;
    const delivery = new Root(this, entry);
    entry.delivery = delivery;
    this.#watch ??= this.#scope.clock.after(watchInterval, this.#watchOld, true);
    this.#next(delivery);
  }

  #unlink(entry: Entry<T>): void {
    if (entry.before === undefined) this.#oldest = entry.after;
    else entry.before.after = entry.after;
    if (entry.after === undefined) this.#newest = entry.before;
    else entry.after.before = entry.before;
    if (this.#watched === entry) this.#watched = entry.before;
    entry.before = entry.after = entry.delivery = undefined;
    this.#deliveries--;
    this.#events -= entry.batch.length;
    this.#bytes -= entry.batch.byteLength;
  }

  /** Takes an entry out of flight without a judgement: its delivery is stale, its attempt did not count. */
  #fence(entry: Entry<T>): Entry<T> {
    this.#unlink(entry);
    entry.generation++;
    entry.attempt--;
    return entry;
  }

  #fenceAfter(entry: Entry<T>): Entry<T>[] {
    const overtaken: Entry<T>[] = [];
    while (entry.after !== undefined) overtaken.push(this.#fence(entry.after));
    return overtaken;
  }

  #failed(entry: Entry<T>, outcome: 'nack' | 'reject', cause: Error, failed: Failed, overtaken: Entry<T>[]): void {
    if (failed !== undefined) {
      const rest = entry.batch.only(failed as readonly T[]);
      this.#supply.done(entry, rest);
      entry.batch = rest;
    }
    if (this.#supply.refused(entry, outcome, cause)) {
      if (overtaken.length > 0) this.#supply.giveBack(overtaken);
      return;
    }
    if (outcome === 'reject') {
      if (!this.#keepRejected) {
        this.ledger.rejected += entry.batch.length;
        leaveOut(entry.tag);
        this.#scope.log.warn(`${entry.batch.length} events were rejected and are dropped: ${cause.message}`, { cause });
        this.#supply.done(entry, undefined);
        // Dropping is not counted as leaving by the books' other columns, and does not hold up what follows.
        if (overtaken.length > 0) this.#supply.giveBack(overtaken);
        return;
      }
      this.poisoned++;
      this.#scope.log.error(`${entry.batch.length} events were rejected and are kept: ${cause.message}`, { cause });
    }
    this.#redeliver(entry, overtaken);
  }

  #redeliver(entry: Entry<T>, overtaken: Entry<T>[]): void {
    if (!this.#open) {
      this.#supply.giveBack([entry, ...overtaken]);
      return;
    }
    const delay = backoffDelay(this.#backoff, entry.attempt, this.#scope.random);
    if (this.#strict) {
      this.#scope.clock.cancel(this.#pause);
      this.#pause = this.#scope.clock.after(delay, () => {
        this.#pause = undefined;
        this.pump();
      });
      // Only now: giving back wakes whoever else takes from the same supply.
      this.#supply.giveBack([entry, ...overtaken]);
    } else {
      const timer = this.#scope.clock.after(delay, () => {
        this.#delayed.delete(entry);
        this.#supply.giveBack([entry]);
        this.pump();
      });
      this.#delayed.set(entry, timer);
    }
  }

  /** Once per interval, hands deliveries that have been unsettled for a whole interval to the garbage collector's watch. */
  readonly #watchOld = (): void => {
    this.#watch = undefined;
    for (let entry = this.#watched; entry?.delivery !== undefined; entry = entry.before) {
      lost.register(entry.delivery, { entry, generation: entry.generation, outlet: this as Outlet<unknown> });
      entry.delivery = undefined;
    }
    this.#watched = this.#newest;
    if (this.#newest !== undefined) this.#watch = this.#scope.clock.after(watchInterval, this.#watchOld, true);
  };
}
