/**
 * What is before the component under test: the kernel's own outlet over offers that a program makes.
 *
 * @module
 */
import { Observable, type Subscriber } from 'rxjs';
import type { Delivery } from '../../core/delivery.ts';
import type { Batch, FlumeEvent } from '../../core/event.ts';
import { Entry, Outlet, type MaxInFlight, type Redelivery, type Supply } from '../../core/outlet.ts';
import { currentScope } from '../../core/scope.ts';
import type { Book, Offer } from './book.ts';
import type { World } from './world.ts';

export interface FeederOptions {
  readonly maxInFlight: MaxInFlight;
  /** A nacked offer is not made again, as by a source that tells its client. */
  readonly reports?: boolean;
  /** Unsubscribed, it still takes settlements, as a source does that drains. */
  readonly drains?: boolean;
  /** An offer was acked, or all of it that was not refused. Called while that happens. */
  readonly onAcked?: (offer: Offer) => void;
  /** Tells apart feeders whose events have an order of their own. */
  readonly lane?: string;
}

/** Quick redeliveries: programs wait for them often. */
export const quickly: Redelivery = { initial: 10, max: 100 };

export class Feeder implements Supply<FlumeEvent> {
  /** One session at a time; what it leaves unsettled is first in the next. */
  readonly deliveries: Observable<Delivery>;
  readonly #book: Book;
  readonly #world: World;
  readonly #options: FeederOptions;
  #line: Entry<FlumeEvent, Offer>[] = [];
  #held = 0;
  #ended = false;
  #outlet: Outlet<FlumeEvent> | undefined;
  #subscriber: Subscriber<Delivery> | undefined;

  constructor(book: Book, world: World, options: FeederOptions) {
    this.#book = book;
    this.#world = world;
    this.#options = options;
    world.ledger.hold(() => this.#held);
    this.deliveries = new Observable(subscriber => {
      const outlet = new Outlet<FlumeEvent>(
        this,
        delivery => subscriber.next(delivery),
        () => this.#finish(),
        currentScope(),
        options.maxInFlight,
        { ...quickly, order: options.reports === true ? 'selective' : 'strict' },
      );
      this.#outlet = outlet;
      this.#subscriber = subscriber;
      world.clock.soon(() => outlet.pump());
      return () => (options.drains === true ? outlet.hold() : outlet.release());
    });
  }

  put(batch: Batch): Offer {
    const offer = this.#book.offer(batch, this.#options.lane);
    this.#line.push(new Entry(batch, offer));
    this.#outlet?.pump();
    return offer;
  }

  /** No more offers: completes when all are settled. */
  end(): void {
    this.#ended = true;
    this.#outlet?.pump();
  }

  /** Deliveries that are unsettled. */
  get inFlight(): number {
    return this.#outlet?.deliveries ?? 0;
  }

  /** Nothing is waiting for credit. */
  get served(): boolean {
    return this.#line.length === 0;
  }

  take(maxEvents: number, maxBytes: number, alone: boolean): Entry<FlumeEvent> | undefined {
    const [entry] = this.#line;
    if (entry === undefined) return undefined;
    const { batch } = entry;
    if (!alone && (batch.length > maxEvents || batch.byteLength > maxBytes)) return undefined;
    if (entry.fresh) {
      this.#world.ledger.accepted += batch.length;
      this.#held += batch.length;
    }
    entry.tag.times++;
    return this.#line.shift();
  }

  giveBack(entries: readonly Entry<FlumeEvent>[]): void {
    this.#line = [...(entries as readonly Entry<FlumeEvent, Offer>[]), ...this.#line];
  }

  done(entry: Entry<FlumeEvent>, rest: Batch | undefined): void {
    this.#held -= entry.batch.length - (rest?.length ?? 0);
    if (rest !== undefined) return;
    const offer = entry.tag as Offer;
    offer.outcome = 'acked';
    this.#options.onAcked?.(offer);
  }

  refused(entry: Entry<FlumeEvent>, outcome: 'nack' | 'reject'): boolean {
    if (outcome === 'nack' && this.#options.reports !== true) return false;
    this.#held -= entry.batch.length;
    if (outcome === 'reject') this.#world.ledger.rejected += entry.batch.length;
    else this.#world.ledger.accepted -= entry.batch.length;
    for (const item of entry.batch.events.flatMap(one => this.#book.itemsOf(one)))
      if (item.state === 'due') item.state = 'refused';
    (entry.tag as Offer).outcome = outcome === 'reject' ? 'rejected' : 'refused';
    return true;
  }

  #finish(): void {
    if (this.#ended && this.served) this.#subscriber?.complete();
  }
}
