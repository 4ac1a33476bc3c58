/**
 * A channel whose store and edges can be broken in one place each. Whole, it keeps all laws.
 */
import { Observable, type Subscriber } from 'rxjs';
import { createChannel, type OutputOptions, type Store, type StoreContext } from '../../../src/core/channel.ts';
import type { Delivery } from '../../../src/core/delivery.ts';
import { Batch, event, headers, type FlumeEvent } from '../../../src/core/event.ts';
import { Entry } from '../../../src/core/outlet.ts';
import { currentScope, type Scope } from '../../../src/core/scope.ts';
import { answering, credulous, settle } from './deliveries.ts';
import type { ChannelLimits, ChannelUnderTest } from '../../../src/testing/index.ts';

export const channelFaults = {
  'drops the oldest when it is full': 'S4',
  'forgets what comes back': 'S4',
  'puts what comes back at the end': 'S6',
  'takes the newest first': 'C4',
  'delivers an event twice': 'C4',
  'invents an event': 'S5',
  'changes bytes that are not UTF-8': 'S5',
  'loses a header': 'S5',
  'lets in one event too many': 'C1',
  'lets in more bytes than fit': 'C1',
  'puts one half now and one later': 'C2',
  'acks before it has stored': 'S2',
  'waits until there are three events': 'L2',
  'does not say when something is there': 'L1',
  'closes without counting what it loses': 'X1',
  'completes with its input': 'L3',
  'never completes': 'L3',
  'does not count what is unsettled': 'S3',
  'loses credit with each nack': 'L1',
  'delivers again from within the nack': 'L1',
  'lets anybody settle twice': 'S1',
  'acks everything twice': 'S1',
  'takes settlements of consumers that left': 'S7',
  'forgets how often it has tried': 'S4',
  'uses one delivery of its credit': 'L1',
  'only says that it is closed': 'S7',
  'opens again without what it held': 'S4',
  'opens again with what was done': 'X1',
} as const;
export type ChannelFault = keyof typeof channelFaults;

/** A plain array of batches; with a disk, what is on it when the store is made is in it. */
export class ArrayStore implements Store {
  readonly capacity: { readonly events: number; readonly bytes: number };
  readonly #is: (fault: ChannelFault) => boolean;
  readonly #scope: Scope;
  #line: Entry<FlumeEvent>[] = [];
  #taken: Entry<FlumeEvent>[] = [];
  #wake: () => void = () => undefined;
  #hidden = 0;
  #closed = false;

  readonly #disk: Set<FlumeEvent> | undefined;

  constructor(limits: ChannelLimits, is: (fault: ChannelFault) => boolean = () => false, disk?: Set<FlumeEvent>) {
    this.#is = is;
    this.#scope = currentScope();
    const events = is('drops the oldest when it is full')
      ? 1e6
      : limits.capacity + (is('lets in one event too many') ? 1 : 0);
    this.capacity = { events, bytes: is('lets in more bytes than fit') ? 1e6 : limits.byteCapacity };
    this.#limit = limits.capacity;
    this.#disk = disk;
    if (is('opens again without what it held')) disk?.clear();
    for (const one of disk ?? []) this.#line.push(new Entry(Batch.of([one]), undefined));
  }
  readonly #limit: number;

  get #all(): FlumeEvent[] {
    return [...this.#taken, ...this.#line].flatMap(({ batch }) => batch.events);
  }

  get events(): number {
    if (this.#closed && this.#is('closes without counting what it loses')) return 0;
    return this.#all.length + this.#hidden;
  }

  get kept(): number {
    return this.#disk === undefined ? 0 : this.events;
  }

  get bytes(): number {
    const all = this.#all;
    return all.length === 0 ? 0 : Batch.of(all).byteLength;
  }

  open({ wake }: StoreContext): void | Promise<void> {
    this.#wake = wake;
  }

  put(batch: Batch): void | Promise<void> {
    if (this.#is('acks before it has stored')) {
      this.#scope.clock.soon(() => {
        this.#add(batch);
        this.#wake();
      });
      return;
    }
    if (this.#is('does not say when something is there') && this.#line.length === 0) {
      // Where it is, the channel does not look yet, and nobody tells it.
      this.#hidden += batch.length;
      this.#scope.clock.soon(() => {
        this.#hidden -= batch.length;
        this.#add(batch);
      });
      return;
    }
    if (this.#is('puts one half now and one later') && batch.length > 1) {
      const [first, second] = batch.split(batch.length >> 1);
      this.#add(first);
      this.#wake();
      return new Promise(resolve =>
        this.#scope.clock.after(5, () => {
          this.#add(second);
          resolve();
        }),
      );
    }
    this.#add(batch);
    while (this.#is('drops the oldest when it is full') && this.events > this.#limit && this.#line.length > 1)
      this.#line.shift();
  }

  take(maxEvents: number, maxBytes: number, credit: number): Entry<FlumeEvent> | undefined {
    if (this.#is('waits until there are three events') && this.#line.length > 0 && this.events < 3) return undefined;
    const newest = this.#is('takes the newest first');
    const entry = newest ? this.#line.at(-1) : this.#line[0];
    if (entry === undefined) return undefined;
    const count = Math.min(entry.batch.length, maxEvents);
    if (count > credit) return undefined;
    const [batch, rest] = count < entry.batch.length ? entry.batch.split(count) : [entry.batch, undefined];
    if (batch.byteLength > maxBytes) return undefined;
    if (newest) this.#line.pop();
    else this.#line.shift();
    let first = entry;
    if (rest !== undefined) {
      first = new Entry<FlumeEvent>(batch, undefined);
      first.attempt = entry.attempt;
      entry.batch = rest;
      this.#line.unshift(entry);
    }
    this.#taken.push(first);
    if (this.#is('delivers an event twice') && batch.length > 2) {
      this.#line.unshift(new Entry<FlumeEvent>(Batch.of(batch.events.slice(-1)), undefined));
      this.#scope.ledger.copied++;
    }
    return first;
  }

  giveBack(entries: readonly Entry<FlumeEvent>[]): void {
    this.#taken = this.#taken.filter(entry => !entries.includes(entry));
    if (this.#is('forgets how often it has tried')) for (const entry of entries) entry.attempt = 0;
    if (this.#is('forgets what comes back'))
      this.#scope.ledger.dropped += entries.reduce((sum, { batch }) => sum + batch.length, 0);
    else if (this.#is('puts what comes back at the end')) this.#line.push(...entries);
    else this.#line.unshift(...entries);
  }

  done(entry: Entry<FlumeEvent>, rest: Batch | undefined): void {
    const kept = new Set(this.#is('opens again with what was done') ? entry.batch.events : rest?.events);
    for (const one of entry.batch.events) if (!kept.has(one)) this.#disk?.delete(one);
    if (rest === undefined) this.#taken = this.#taken.filter(one => one !== entry);
    else entry.batch = rest;
  }

  close(): void | Promise<void> {
    this.#closed = true;
  }

  #add(batch: Batch): void {
    const events = batch.events.map(one => this.#changed(one));
    for (const one of events) this.#disk?.add(one);
    this.#line.push(new Entry(Batch.of(events), undefined));
    if (this.#is('invents an event') && batch.length > 3) {
      this.#line.push(new Entry(Batch.of([event('nobody said this')]), undefined));
      this.#scope.ledger.copied++;
    }
  }

  #changed(one: FlumeEvent): FlumeEvent {
    if (this.#is('changes bytes that are not UTF-8')) return { ...one, body: Buffer.from(one.body.toString()) };
    // A copy: what is put twice is on the disk twice.
    if (!this.#is('loses a header')) return { ...one };
    return { ...one, headers: headers(Object.fromEntries(Object.entries(one.headers).slice(1))) };
  }
}

/** What goes wrong on the way out. */
const broken = (
  is: (fault: ChannelFault) => boolean,
  subscriber: Subscriber<Delivery>,
  delivery: Delivery,
): Delivery => {
  if (is('lets anybody settle twice')) return credulous(delivery, 'settled');
  if (is('takes settlements of consumers that left')) return credulous(delivery, 'over');
  if (is('acks everything twice')) {
    return answering(delivery, (one, ...outcome) => {
      const settled = settle(one, ...outcome);
      one.ack();
      return settled;
    });
  }
  if (is('delivers again from within the nack')) {
    return answering(delivery, (one, outcome, cause, failed) => {
      if (outcome !== 'nack' || !one.live) return settle(one, outcome, cause, failed);
      subscriber.next(one.derive(one.batch));
      return true;
    });
  }
  return delivery;
};

export const brokenChannel = (
  limits: ChannelLimits,
  fault?: ChannelFault,
  disk?: Set<FlumeEvent>,
): ChannelUnderTest => {
  const is = (one: ChannelFault) => one === fault;
  const channel = createChannel(new ArrayStore(limits, is, disk), limits);
  const early: Subscriber<Delivery>[] = [];
  const output = (options: OutputOptions = {}) =>
    new Observable<Delivery>(subscriber => {
      early.push(subscriber);
      let lost = 0;
      const allowed = options.maxInFlight?.deliveries ?? 1;
      const { maxInFlight = {}, ...rest } = options;
      const credit = is('uses one delivery of its credit') ? { ...maxInFlight, deliveries: 1 } : maxInFlight;
      return channel
        .output(is('does not count what is unsettled') ? rest : { ...rest, maxInFlight: credit })
        .subscribe({
          next: delivery => {
            if (!is('loses credit with each nack')) subscriber.next(broken(is, subscriber, delivery));
            else if (lost < allowed + 1)
              subscriber.next(
                answering(delivery, (one, outcome, cause, failed) => {
                  if (outcome === 'nack') lost++;
                  return settle(one, outcome, cause, failed);
                }),
              );
          },
          error: (cause: unknown) => subscriber.error(cause),
          complete: () => {
            if (!is('never completes')) subscriber.complete();
          },
        });
    });
  return {
    output,
    input() {
      const input = channel.input();
      if (is('completes with its input')) {
        const complete = input.complete.bind(input);
        input.complete = () => {
          for (const subscriber of early) subscriber.complete();
          complete();
        };
      }
      return input;
    },
    get depth() {
      return channel.depth;
    },
    end: () => channel.end(),
    close: () => (is('only says that it is closed') ? Promise.resolve() : channel.close()),
    closed: channel.closed,
  };
};
