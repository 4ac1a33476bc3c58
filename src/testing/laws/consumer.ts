/**
 * What is behind the component under test: takes deliveries, settles them as a program says, and watches.
 *
 * @module
 */
import type { Observer } from 'rxjs';
import type { Delivery, Outcome } from '../../core/delivery.ts';
import type { FlumeEvent } from '../../core/event.ts';
import type { MaxInFlight } from '../../core/outlet.ts';
import { named, type Book, type Item } from './book.ts';
import type { LawSpec, Report } from './law.ts';
import type { World } from './world.ts';

/** A delivery that came out. */
export interface Taken {
  readonly delivery: Delivery;
  readonly items: readonly Item[];
  readonly consumer: Consumer;
  settled: boolean;
}

export interface ConsumerOptions {
  readonly maxInFlight?: MaxInFlight | undefined;
  readonly order: NonNullable<LawSpec['order']>;
  /** A rejected event is delivered again, as a nacked one is. */
  readonly keepsRejected?: boolean;
  /** A nacked event is not delivered again: its origin was told. */
  readonly reports?: boolean;
  /** What comes is its emitter's own, so that nobody else has nacked it before. */
  readonly fromEmitter?: boolean;
  /** Called with each delivery, before it is settled. */
  readonly onTaken?: (taken: Taken) => void;
  /** Called when the stream completes. */
  readonly onComplete?: () => void;
  /** Called when the stream errors; without it, that breaks L3. */
  readonly onError?: (cause: unknown) => void;
}

export class Consumer implements Observer<Delivery> {
  readonly taken: Taken[] = [];
  /** What to do with a delivery on the spot. */
  mode: 'hold' | 'ack' | 'nack' = 'hold';
  ended: 'complete' | 'error' | undefined;
  order: NonNullable<LawSpec['order']>;
  readonly #book: Book;
  readonly #world: World;
  readonly #report: Report;
  readonly #options: ConsumerOptions;
  #inNext = false;
  /** The items of a nack that is under way. */
  #nacking: ReadonlySet<Item> = new Set();

  constructor(book: Book, world: World, report: Report, options: ConsumerOptions) {
    this.#book = book;
    this.#world = world;
    this.#report = report;
    this.#options = options;
    this.order = options.order;
  }

  /** Unsettled, and not overtaken. */
  live(): Taken[] {
    return this.taken.filter(({ delivery, settled }) => !settled && delivery.live);
  }

  /** Whether a delivery as large as programs make them would fit beside those that are unsettled. */
  get hasRoom(): boolean {
    const { deliveries, events, bytes } = this.#unsettled();
    const { maxInFlight = {} } = this.#options;
    return (
      deliveries < (maxInFlight.deliveries ?? Infinity) &&
      events + largest.events <= (maxInFlight.events ?? Infinity) &&
      bytes + largest.bytes <= (maxInFlight.bytes ?? Infinity)
    );
  }

  readonly next = (delivery: Delivery): void => {
    const report = this.#report;
    const nested = this.#inNext;
    if (nested) report.violate('L1', 'next() was called from within next()');
    if (this.ended !== undefined) report.violate('L3', `a delivery came after ${this.ended}`);
    if (delivery.length === 0) report.violate('S5', 'a delivery of no events came out');
    this.#inNext = true;
    const items = delivery.events.flatMap(one => this.#book.recognise(one) ?? []);
    const taken: Taken = { delivery, items, consumer: this, settled: false };
    this.taken.push(taken);
    this.#checkCredit();
    this.#checkAttempt(taken);
    for (const item of items) this.#came(item, taken);
    this.#options.onTaken?.(taken);
    // Whoever recurses would do so for ever.
    if (this.mode !== 'hold' && !nested) {
      report.saw('a synchronous settle');
      this.settle(taken, this.mode);
    }
    this.#inNext = nested;
  };

  readonly error = (cause: unknown): void => {
    this.ended ??= 'error';
    if (this.#options.onError !== undefined) this.#options.onError(cause);
    else this.#report.violate('L3', `the stream ended with an error: ${String(cause)}`);
  };

  readonly complete = (): void => {
    if (this.live().length > 0)
      this.#report.violate('L3', `complete came with ${this.live().length} deliveries unsettled`);
    this.#options.onComplete?.();
    this.ended ??= 'complete';
    this.#report.saw('a completion');
  };

  settle(taken: Taken, outcome: Outcome, failed?: readonly number[]): void {
    const { delivery, items } = taken;
    const report = this.#report;
    const { live } = delivery;
    if (taken.settled) {
      report.secondSettles++;
      report.saw('a second settle');
    } else if (!live) report.saw('a stale settle');
    const bad = outcome === 'ack' ? [] : this.#some(items, failed);
    if (live) this.#settling(taken, outcome, bad);
    const whole = bad.length === items.length;
    if (!whole && outcome !== 'ack') report.saw('a partial failure');
    this.#nacking = new Set(outcome === 'nack' ? bad : []);
    const before = this.taken.length;
    const returned = settle(
      delivery,
      outcome,
      whole ? undefined : delivery.events.filter((_, i) => bad.includes(items[i] as Item)),
    );
    this.#nacking = new Set();
    if (returned !== live) {
      const what = taken.settled ? 'a second' : live ? 'the first' : 'a stale';
      report.violate(live || taken.settled ? 'S1' : 'S7', `${what} settle (${outcome}) returned ${returned}`);
    }
    taken.settled = true;
    if (live && bad.length > 0 && outcome === 'nack' && this.order === 'strict') this.#checkOvertaken(taken, before);
  }

  #some(items: readonly Item[], failed: readonly number[] | undefined): readonly Item[] {
    if (failed === undefined || items.length === 0) return items;
    const chosen = new Set(failed.map(at => items[at % items.length] as Item));
    return items.filter(item => chosen.has(item));
  }

  /** Written down before it is settled: settling may let the next one out. */
  #settling({ items, delivery }: Taken, outcome: Outcome, bad: readonly Item[]): void {
    if (bad.length > 0) this.#report.saw(outcome === 'nack' ? 'a nack' : 'a reject');
    const { reports = false, keepsRejected = false } = this.#options;
    this.#world.ledger.delivered += delivery.length - bad.length;
    for (const item of items) {
      const failed = bad.includes(item);
      if (failed) item.failed = { consumer: this, attempt: delivery.attempt };
      if (!failed) item.state = 'done';
      else if (outcome === 'nack' ? reports : !keepsRejected) item.state = 'refused';
    }
  }

  #came(item: Item, taken: Taken): void {
    const report = this.#report;
    if (item.seen++ > 0) report.saw('a redelivery');
    if (item.rank > 0) report.saw('two events');
    if (this.#nacking.has(item)) report.violate('L1', `event ${named(item)} was delivered again from within its nack`);
    if (this.order !== 'none' && item.state === 'due') {
      const strict = this.order === 'strict';
      const early = this.#book.before(item, ({ seen, last }) => seen === 0 || (strict && last?.delivery.live !== true));
      if (early !== undefined) {
        const why = early.seen === 0 ? 'had not come yet' : 'was to be delivered again';
        report.violate('S6', `event ${named(item)} came while ${named(early)}, accepted before it, ${why}`);
      }
    }
    item.last = taken;
  }

  /** Strict order: a nack overtakes what came after it, of the same key. */
  #checkOvertaken(nacked: Taken, before: number): void {
    const at = this.taken.indexOf(nacked);
    const keys = new Set(nacked.items.map(({ key }) => key));
    const later = this.taken.slice(at + 1, before).filter(({ delivery, settled }) => !settled && delivery.live);
    const item = later.flatMap(({ items }) => items).find(({ key }) => keys.has(key));
    if (item !== undefined)
      this.#report.violate('S6', `event ${named(item)} stayed in flight though one before it was nacked`);
  }

  #checkCredit(): void {
    const { maxInFlight = {} } = this.#options;
    const unsettled = this.#unsettled();
    for (const what of ['deliveries', 'events', 'bytes'] as const) {
      const [count, most] = [unsettled[what], maxInFlight[what] ?? Infinity];
      if (count >= most) this.#report.saw('a full window');
      if (count > most && unsettled.deliveries > 1)
        this.#report.violate('S3', `${count} ${what} were unsettled; at most ${most} may be`);
    }
  }

  #unsettled(): Required<MaxInFlight> {
    const sum = { deliveries: 0, events: 0, bytes: 0 };
    for (const { delivery } of this.live()) {
      sum.deliveries++;
      sum.events += delivery.length;
      sum.bytes += delivery.batch.byteLength;
    }
    return sum;
  }

  /** Attempts count what failed here, and nothing else; unless an event was put in twice, and may be there twice. */
  #checkAttempt({ delivery: { attempt }, items }: Taken): void {
    if (this.#options.fromEmitter !== true || items.some(({ offer }) => (offer?.times ?? 1) > 1)) return;
    const report = this.#report;
    if (attempt > 1 && items.every(({ failed }) => failed === undefined))
      report.violate('S4', `events that have never failed came as attempt ${attempt}`);
    for (const { failed } of items)
      if (failed?.consumer === this && failed.attempt >= attempt)
        report.violate('S4', `an event failed at attempt ${failed.attempt} and came again as attempt ${attempt}`);
  }
}

/** More than any delivery of a program has. */
const largest = { events: 10, bytes: 1000 };

const settle = (delivery: Delivery, outcome: Outcome, failed: readonly FlumeEvent[] | undefined): boolean => {
  if (outcome === 'ack') return delivery.ack();
  const cause = new Error('the program says so');
  return outcome === 'nack' ? delivery.nack(cause, failed) : delivery.reject(cause, failed);
};
