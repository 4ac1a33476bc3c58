/**
 * `createChannel`: the reactive half of every channel. Many inputs, competing outputs, credit on both sides, waiting for
 * room, redelivery, completion. A store only knows how to put, take and forget.
 *
 * @module
 */
import { Observable, Subscriber, type OperatorFunction } from 'rxjs';
import type { z } from 'zod';
import { backoffDelay, type Backoff, type Timer } from './clock.ts';
import { describe, type ComponentInfo, type Given, type Identity } from './component.ts';
import { Deque } from './deque.ts';
import type { Delivery } from './delivery.ts';
import { isPermanent, MillraceError, toError } from './errors.ts';
import type { Batch, FlumeEvent } from './event.ts';
import { channelCounters, type ChannelCounters } from './metrics.ts';
import { fieldInfo, parseOptions } from './options.ts';
import { Outlet, type Entry, type MaxInFlight, type Redelivery, type Supply } from './outlet.ts';
import { currentScope, inScope, type Context, type Scope } from './scope.ts';
import { PartlyWritten } from './sink.ts';

/** Where a channel keeps its batches. */
export interface Store<T = FlumeEvent> {
  /** The most that is ever held. */
  readonly capacity: { readonly events: number; readonly bytes: number };
  /** Events held: put, and not done with. */
  readonly events: number;
  readonly bytes: number;
  /** How many of those events survive {@link close}: they are there when the next one opens. Default 0. */
  readonly kept?: number;
  /** There may be more, which it does not know of yet: a channel that is to be drained is not empty. Default false. */
  readonly busy?: boolean;
  /** How far sources had come with what it has confirmed, by key; known when it is open. */
  readonly offsets?: ReadonlyMap<string, string> | undefined;
  /** Its own, shown with the channel's. */
  readonly counters?: Readonly<Record<string, number>>;
  /** Called once, before anything else. */
  open?(context: StoreContext): void | Promise<void>;
  /**
   * Takes over the batch, all of it; there is room. Returns when it is as durable as the channel promises. Others may be put
   * meanwhile: they are in after it, and are not when it is not. If some of its events can never be put, and the others are,
   * it says so with a {@link PartlyWritten} of permanent errors: those are rejected alone.
   */
  put(batch: Batch<T>): void | Promise<void>;
  /**
   * The first batch in line, cut or joined to at most `maxEvents`. Undefined if there is none, or if it is over `maxBytes` or
   * over `credit` events: it is not cut for that, or small rests would be cut smaller and smaller.
   */
  take(maxEvents: number, maxBytes: number, credit: number): Entry<T> | undefined;
  /** First in line again, in this order. */
  giveBack(entries: readonly Entry<T>[]): void;
  /** All of the entry but `rest` is done with. */
  done(entry: Entry<T>, rest: Batch<T> | undefined): void;
  close?(): void | Promise<void>;
}

/** How long what is out may take to be settled when a durable channel stops, in ms. Then it comes again. */
const patience = 2000;

/** What a store may use from outside. */
export interface StoreContext extends Context {
  /** The channel's. */
  readonly name: string;
  /** Call it when there is something to take, or room, that nobody was told of. */
  readonly wake: () => void;
  /**
   * What is out and is `gone` is for somebody else to deliver now: its deliveries are not live any more, and the store gets
   * it neither done nor back.
   */
  readonly withdraw: (gone: (entry: Entry<unknown>) => boolean) => void;
}

export interface ChannelOptions {
  /** For metrics and logs; default `channel`. */
  readonly name?: string | undefined;
  /** Events per put at most; a larger delivery is put in parts. Default `min(100, capacity)`. */
  readonly transactionCapacity?: number | undefined;
  /** How long a put waits for room before it is nacked, in seconds. Default: as long as it takes. */
  readonly keepAlive?: number | undefined;
  /** How long to wait before a store that could not be opened is opened again. Default: the channel ends with its error. */
  readonly reopen?: Backoff | undefined;
}

/** One consumer of a channel. */
export interface OutputOptions {
  /** Events per delivery at most. Default: the channel's transaction capacity. */
  readonly batchSize?: number | undefined;
  readonly maxInFlight?: MaxInFlight | undefined;
  readonly redelivery?: Redelivery | undefined;
}

/** A delivery that is being put, part by part. */
interface Waiting<T> {
  readonly delivery: Delivery<T>;
  /** Not yet given to the store. */
  rest: Batch<T> | undefined;
  /** Events that the store has. */
  put: number;
  /** Parts that the store is at. */
  pending: number;
  /** Which events can never be put, and why, if there are any. */
  refusals: Map<number, Error> | undefined;
  /** It was refused: what of it is in by then stays in, and comes twice. */
  refused: boolean;
  /** Since when it waits; the clock starts again with each part that goes in. */
  since: number;
  timer: Timer;
}

/**
 * A channel as an object: {@link input} for each source, {@link output} for each sink.
 *
 * - A put is atomic. It acks its delivery once the store has it, waits while there is no room, in order of arrival, and
 *   is nacked with `MR_CHANNEL_FULL` when that takes longer than `keepAlive`.
 * - Outputs compete: each batch goes to one of them. What one of them nacks is first in line again, for all of them.
 * - An output that is unsubscribed gives back at once what it has out; what it settles later counts for nothing.
 * - Completes its outputs when all inputs have ended (or {@link end} was called) and everything was acked. If an input
 *   errored, the outputs get that error then, after everything that is held.
 * - When its flow is stopped, a durable store keeps what it holds: outputs complete when what they have out is settled,
 *   or after {@link patience}.
 * - Errors when the store cannot be opened.
 */
export class Channel<T = FlumeEvent> {
  readonly counters: ChannelCounters & {
    readonly ChannelSize: number;
    readonly ChannelCapacity: number;
    readonly ChannelFillPercentage: number;
  };
  /** Resolves when the store is closed. */
  readonly closed: Promise<void>;
  readonly #store: Store<T>;
  readonly #scope: Scope;
  readonly #name: string;
  readonly #transactionCapacity: number;
  readonly #keepAlive: number | undefined;
  /** In order of arrival. Those of which the store has been given everything have left. */
  readonly #waiting = new Deque<Waiting<T>>();
  /** Given to the store, and not in yet. */
  readonly #pending = { puts: 0, events: 0, bytes: 0 };
  readonly #outputs: Output<T>[] = [];
  readonly #letGo: () => void;
  #inputs = 0;
  #opening: Promise<void> | undefined;
  #idle: (() => void) | undefined;
  #opened = false;
  #ended = false;
  /** It is stopped: what the store keeps is not drained. */
  #keeps = false;
  #lastCall: Timer;
  readonly #reopen: Backoff | undefined;
  #reopening: Timer;
  #attempts = 0;
  /** Why it is not open, if it is tried again. */
  trouble: Error | undefined;
  #failure: Error | undefined;
  #closing = false;
  #resolve!: () => void;
  #reject!: (cause: Error) => void;
  #knows!: (offsets: ReadonlyMap<string, string> | undefined) => void;
  readonly #forget: () => void;

  constructor(store: Store<T>, options: ChannelOptions = {}, scope: Scope = currentScope()) {
    this.#store = store;
    this.#scope = scope;
    this.#name = options.name ?? 'channel';
    this.#transactionCapacity = Math.min(options.transactionCapacity ?? 100, store.capacity.events);
    this.#keepAlive = options.keepAlive;
    this.#reopen = options.reopen;
    this.counters = scope.metrics.register('CHANNEL', this.#name, {
      ...channelCounters(),
      get ChannelSize() {
        return store.events;
      },
      get ChannelCapacity() {
        return store.capacity.events;
      },
      get ChannelFillPercentage() {
        return (100 * store.events) / store.capacity.events;
      },
    });
    for (const name of Object.keys(store.counters ?? {}))
      Object.defineProperty(this.counters, name, { enumerable: true, get: () => store.counters?.[name] });
    this.#letGo = scope.ledger.hold(() => store.events);
    this.closed = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    scope.waitFor(this.closed);
    const forget = [
      scope.knows(new Promise(resolve => (this.#knows = resolve))),
      // Its input may have ended by itself before.
      scope.whenStopping(() => this.#ended && this.end({ keep: true })),
    ];
    this.#forget = () => forget.forEach(one => one());
    void this.#open();
  }

  /** Events and bytes held now, taken and not yet acked ones included. */
  get depth(): { readonly events: number; readonly bytes: number } {
    return { events: this.#store.events, bytes: this.#store.bytes };
  }

  /** A subscriber for one source. The channel ends when all of its inputs have. */
  input(): Input<T> {
    this.#inputs++;
    const left = (failure?: Error) => {
      this.#failure ??= failure;
      if (--this.#inputs === 0) this.end({ keep: this.#scope.stopping });
    };
    return new Input<T>(delivery => this.#accept(delivery), left);
  }

  /** The consuming side. Each subscription is one consumer; they compete. */
  output(options: OutputOptions = {}): Observable<Delivery<T>> {
    return new Observable<Delivery<T>>(subscriber => {
      if (this.#closing) {
        if (this.#failure === undefined) subscriber.complete();
        else subscriber.error(this.#failure);
        return undefined;
      }
      const output = new Output(
        this.#store,
        subscriber,
        this.#scope,
        this.counters,
        options,
        this.#transactionCapacity,
        () => this.#settled(),
        () => this.#wake(),
      );
      this.#outputs.push(output);
      // Never emit before subscribe() has returned.
      this.#scope.clock.soon(() => this.#wake());
      return () => {
        const at = this.#outputs.indexOf(output);
        if (at >= 0) this.#outputs.splice(at, 1);
        output.leave();
        // It may have gone in the middle of a round, in which its neighbour lost its turn.
        this.#wake();
      };
    });
  }

  /** No more input: drain, complete the outputs, close the store. With `keep`, what a durable store holds stays in it. */
  end({ keep = false }: { readonly keep?: boolean } = {}): void {
    this.#ended = true;
    this.#keeps = keep;
    if (this.#reopening === undefined) this.#settled();
    else void this.close();
  }

  /** Closes now. What waits for room is nacked, what a memory store holds is counted as dropped. */
  close(): Promise<void> {
    if (!this.#closing) void this.#close();
    return this.closed;
  }

  async #close(): Promise<void> {
    this.#closing = true;
    this.#knows(undefined);
    this.#forget();
    const closed = new MillraceError('MR_CHANNEL_CLOSED', `${this.#name} was closed.`);
    for (let waiting = this.#waiting.shift(); waiting !== undefined; waiting = this.#waiting.shift())
      this.#refuse(waiting, closed);
    for (const output of this.#outputs) output.leave();
    this.#scope.clock.cancel(this.#lastCall);
    this.#scope.clock.cancel(this.#reopening);
    // Nobody waits for a store that never opened.
    if (this.#reopening !== undefined) this.#complete();
    this.counters.StopTime = this.#scope.clock.now();
    await this.#opening?.catch(() => undefined);
    if (this.#pending.puts > 0) await new Promise<void>(resolve => (this.#idle = resolve));
    const { ledger } = this.#scope;
    try {
      await this.#store.close?.();
      this.#resolve();
    } catch (thrown) {
      this.#reject(toError(thrown));
    }
    const { events, kept = 0 } = this.#store;
    ledger.kept += kept;
    ledger.dropped += events - kept;
    this.#letGo();
  }

  async #open(): Promise<void> {
    const { clock, ledger } = this.#scope;
    try {
      const opening = this.#store.open?.({
        ...this.#scope.context,
        name: this.#name,
        wake: () => this.#wake(),
        withdraw: gone => {
          for (const output of this.#outputs) output.withdraw(gone);
          this.#wake();
        },
      });
      if (opening !== undefined) await (this.#opening = opening);
      // What is there already came from another life of this flow.
      ledger.kept -= this.#store.kept ?? 0;
      this.#opened = true;
      this.#knows(this.#store.offsets);
      this.trouble = undefined;
      this.counters.StartTime = clock.now();
      this.#wake();
    } catch (thrown) {
      this.#notOpened(toError(thrown));
    }
  }

  #notOpened(cause: Error): void {
    const { clock, random, log } = this.#scope;
    if (this.#reopen === undefined || this.#ended || this.#closing) {
      this.#failure = cause;
      this.#complete();
      return void this.close();
    }
    this.trouble = cause;
    const delay = backoffDelay(this.#reopen, ++this.#attempts, random);
    const again = `It is tried again in ${(delay / 1000).toFixed(1)} s.`;
    log.error(`${this.#name} can not be opened: ${cause.message} ${again}`, { cause });
    this.#reopening = clock.after(delay, () => {
      this.#reopening = undefined;
      void this.#open();
    });
  }

  // --- putting

  #accept(delivery: Delivery<T>): void {
    this.counters.EventPutAttemptCount += delivery.length;
    const waiting: Waiting<T> = {
      delivery,
      rest: delivery.batch,
      put: 0,
      pending: 0,
      refusals: undefined,
      refused: false,
      since: this.#keepAlive === undefined ? 0 : this.#scope.clock.now(),
      timer: undefined,
    };
    if (this.#closing) return this.#refuse(waiting, new MillraceError('MR_CHANNEL_CLOSED', `${this.#name} is closed.`));
    this.#waiting.push(waiting);
    this.#putWaiting();
  }

  /** Gives the store what waits, first come first served, until there is no room. */
  #putWaiting(): void {
    while (this.#opened) {
      const waiting = this.#waiting.peek();
      if (waiting === undefined) return;
      if (waiting.rest === undefined) this.#leaveLine(waiting);
      else if (!waiting.delivery.live) this.#overtaken(waiting);
      else {
        const part = this.#nextPart(waiting.rest);
        if (part.byteLength > this.#store.capacity.bytes) this.#skip(waiting, part);
        else if (this.#fits(part)) this.#put(waiting, part);
        else return this.#wait(waiting);
      }
    }
  }

  /** As much as one put may be; larger than the channel only if it is a single event. */
  #nextPart(rest: Batch<T>): Batch<T> {
    let part = rest.length > this.#transactionCapacity ? rest.split(this.#transactionCapacity)[0] : rest;
    while (part.byteLength > this.#store.capacity.bytes && part.length > 1) [part] = part.split(part.length >> 1);
    return part;
  }

  #skip(waiting: Waiting<T>, part: Batch<T>): void {
    const limit = this.#store.capacity.bytes;
    const cause = new MillraceError(
      'MR_EVENT_TOO_LARGE',
      `an event is larger than ${limit} bytes, the byteCapacity of ${this.#name}, and can never fit.`,
    );
    (waiting.refusals ??= new Map<number, Error>()).set(this.#advance(waiting, part), cause);
    if (waiting.rest === undefined && waiting.pending === 0) this.#settle(waiting);
  }

  /** Where the part begins, which is not left. */
  #advance(waiting: Waiting<T>, part: Batch<T>): number {
    const { rest, delivery } = waiting;
    waiting.rest = rest !== undefined && part.length < rest.length ? rest.split(part.length)[1] : undefined;
    return delivery.length - (rest?.length ?? 0);
  }

  #fits(part: Batch<T>): boolean {
    const { events, bytes, capacity } = this.#store;
    return (
      events + this.#pending.events + part.length <= capacity.events &&
      bytes + this.#pending.bytes + part.byteLength <= capacity.bytes
    );
  }

  #put(waiting: Waiting<T>, part: Batch<T>): void {
    this.#scope.clock.cancel(waiting.timer);
    waiting.timer = undefined;
    const start = this.#advance(waiting, part);
    let put: void | Promise<void>;
    try {
      put = this.#store.put(part);
    } catch (thrown) {
      return this.#notPut(waiting, part, start, toError(thrown));
    }
    if (put === undefined) return this.#wasPut(waiting, part.length);
    waiting.pending++;
    this.#pend(part, 1);
    put.then(
      () => {
        waiting.pending--;
        this.#pend(part, -1);
        this.#wasPut(waiting, part.length);
        this.#putWaiting();
      },
      (thrown: unknown) => {
        waiting.pending--;
        this.#pend(part, -1);
        this.#notPut(waiting, part, start, toError(thrown));
        this.#putWaiting();
      },
    );
  }

  #pend(part: Batch<T>, sign: 1 | -1): void {
    this.#pending.puts += sign;
    this.#pending.events += sign * part.length;
    this.#pending.bytes += sign * part.byteLength;
    if (this.#pending.puts === 0) this.#idle?.();
  }

  #wasPut(waiting: Waiting<T>, count: number): void {
    this.counters.EventPutSuccessCount += count;
    const { delivery } = waiting;
    const { ledger } = delivery;
    if (waiting.refused) {
      // It was nacked, and this is in nevertheless.
      ledger.changed(0, count);
      return this.#wake();
    }
    waiting.put += count;
    if (this.#keepAlive !== undefined) waiting.since = this.#scope.clock.now();
    ledger.partly += count;
    if (ledger !== this.#scope.ledger) {
      // From one flow's books into another's.
      ledger.delivered += count;
      this.#scope.ledger.accepted += count;
    }
    // Settle first: whoever is woken may look at the books.
    if (waiting.rest === undefined && waiting.pending === 0) this.#settle(waiting);
    this.#wake();
  }

  /** What was behind it is not in either: it is told of all that at once. */
  #notPut(waiting: Waiting<T>, part: Batch<T>, start: number, cause: Error): void {
    if (cause instanceof PartlyWritten && [...cause.failed.values()].every(isPermanent)) {
      const refusals = (waiting.refusals ??= new Map<number, Error>());
      for (const [at, why] of cause.failed) refusals.set(start + at, why);
      return this.#wasPut(waiting, part.length - cause.failed.size);
    }
    if (waiting.refused) return;
    if (this.#waiting.peek() === waiting) this.#leaveLine(waiting);
    this.#refuse(waiting, cause);
  }

  /** The last part is in. */
  #settle(waiting: Waiting<T>): void {
    const { delivery, refusals } = waiting;
    if (!delivery.live) return this.#overtaken(waiting);
    if (this.#waiting.peek() === waiting) this.#leaveLine(waiting);
    this.#unbook(waiting);
    if (refusals === undefined) delivery.ack();
    else {
      const [first] = refusals.values();
      const refused = [...refusals.keys()].map(at => delivery.events[at] as T);
      delivery.reject(first as Error, refused);
    }
  }

  /** Its emitter took it back and will offer it again. */
  #overtaken(waiting: Waiting<T>): void {
    if (this.#waiting.peek() === waiting) this.#leaveLine(waiting);
    this.#refuse(waiting, new MillraceError('MR_CHANNEL_CLOSED', 'the delivery was taken back by its emitter.'));
  }

  #wait(waiting: Waiting<T>): void {
    if (this.#keepAlive === undefined || waiting.timer !== undefined) return;
    const { clock } = this.#scope;
    waiting.timer = clock.after(Math.max(0, waiting.since + this.#keepAlive * 1000 - clock.now()), () => {
      const full = new MillraceError(
        'MR_CHANNEL_FULL',
        `Space for commit to queue couldn't be acquired: ${this.#name} holds ${this.#store.events} of ${this.#store.capacity.events} events ` +
          `and had no room for ${waiting.rest?.length ?? 0} more within ${this.#keepAlive} s. Sinks are likely not keeping up.`,
      );
      this.#leaveLine(waiting);
      this.#refuse(waiting, full);
      this.#putWaiting();
    });
  }

  /** The first in line leaves it. */
  #leaveLine(waiting: Waiting<T>): void {
    this.#waiting.shift();
    this.#scope.clock.cancel(waiting.timer);
  }

  /** The emitter's count is right again once it has been told. */
  #unbook({ delivery, put }: Waiting<T>): void {
    delivery.ledger.partly -= put;
  }

  /** Nacks all that is not in. What the store is at may be in later: it comes twice then. */
  #refuse(waiting: Waiting<T>, cause: Error): void {
    const { delivery, refusals, timer, put } = waiting;
    this.#scope.clock.cancel(timer);
    waiting.refused = true;
    this.#unbook(waiting);
    let isIn = put;
    const failed = put === 0 ? undefined : delivery.events.filter((_, at) => refusals?.has(at) === true || isIn-- <= 0);
    const told = delivery.nack(cause, failed);
    // Taken back already: all of it will be offered again, and what is in will come twice.
    if (!told) delivery.ledger.changed(0, put);
  }

  // --- taking

  /** Something to take, or credit, or room may be new. The outputs take turns at being first. */
  #wake(): void {
    if (this.#closing || !this.#opened) return;
    const first = this.#outputs.shift();
    if (first !== undefined) {
      this.#outputs.push(first);
      for (let i = 0; i < this.#outputs.length; i++) this.#outputs[i]?.pump();
    }
    this.#settled();
  }

  /** After each settlement: there may be room, and it may have been the last. */
  #settled(): void {
    if (this.#waiting.length > 0) this.#putWaiting();
    if (!this.#ended || !this.#opened || this.#closing || this.#waiting.length > 0 || this.#pending.puts > 0) return;
    const { events, kept = 0, busy = false } = this.#store;
    if (events === 0 && (this.#keeps || !busy)) this.#finish();
    else if (this.#keeps && events === kept) this.#stop();
  }

  #finish(): void {
    this.#complete();
    void this.close();
  }

  /** Everything that is held stays: no more goes out, and what is out may still be settled. */
  #stop(): void {
    for (const output of this.#outputs) output.hold();
    const leave = () => {
      this.#keeps = false;
      for (const output of this.#outputs) output.leave();
      this.#finish();
    };
    if (this.#outputs.every(({ idle }) => idle)) leave();
    else this.#lastCall ??= this.#scope.clock.after(patience, leave);
  }

  #complete(): void {
    for (const output of [...this.#outputs]) inScope(this.#scope, () => output.complete(this.#failure));
  }
}

/** What a source sees of a channel. */
export class Input<T = FlumeEvent> extends Subscriber<Delivery<T>> {
  /** Resolves when the source has completed, rejects with its error. The channel may hold events for longer. */
  readonly done: Promise<void>;
  #resolve!: () => void;
  #reject!: (cause: Error) => void;
  readonly #accept: (delivery: Delivery<T>) => void;
  readonly #left: (failure?: Error) => void;

  constructor(accept: (delivery: Delivery<T>) => void, left: (failure?: Error) => void) {
    super();
    this.#accept = accept;
    this.#left = left;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever wants to know waits for it; nobody has to.
    this.done.catch(() => undefined);
  }

  protected override _next(delivery: Delivery<T>): void {
    this.#accept(delivery);
  }

  protected override _error(cause: unknown): void {
    const error = toError(cause);
    this.#reject(error);
    this.#left(error);
    this.unsubscribe();
  }

  protected override _complete(): void {
    this.#left();
    this.unsubscribe();
  }

  override unsubscribe(): void {
    this.#resolve();
    super.unsubscribe();
  }
}

/** One consumer: an outlet over the store that all consumers share. */
class Output<T> implements Supply<T> {
  readonly #store: Store<T>;
  readonly #subscriber: Subscriber<Delivery<T>>;
  readonly #counters: ChannelCounters;
  readonly #outlet: Outlet<T>;
  readonly #batchSize: number;
  readonly #onSettled: () => void;
  readonly #onGivenBack: () => void;

  constructor(
    store: Store<T>,
    subscriber: Subscriber<Delivery<T>>,
    scope: Scope,
    counters: ChannelCounters,
    options: OutputOptions,
    transactionCapacity: number,
    onSettled: () => void,
    onGivenBack: () => void,
  ) {
    this.#store = store;
    this.#subscriber = subscriber;
    this.#counters = counters;
    this.#batchSize = options.batchSize ?? transactionCapacity;
    this.#onSettled = onSettled;
    this.#onGivenBack = onGivenBack;
    this.#outlet = new Outlet<T>(
      this,
      delivery => subscriber.next(delivery),
      onSettled,
      scope,
      options.maxInFlight,
      options.redelivery,
    );
  }

  pump(): void {
    this.#outlet.pump();
  }

  /** Nothing goes out any more. */
  hold(): void {
    this.#outlet.hold();
  }

  /** Nothing is out. */
  get idle(): boolean {
    return this.#outlet.idle;
  }

  withdraw(gone: (entry: Entry<T>) => boolean): void {
    this.#outlet.withdraw(gone);
  }

  complete(failure: Error | undefined): void {
    if (failure === undefined) this.#subscriber.complete();
    else this.#subscriber.error(failure);
  }

  /** The consumer is gone: what it has not settled is for the others. */
  leave(): void {
    this.#outlet.release();
    this.#onSettled();
  }

  take(maxEvents: number, maxBytes: number, alone: boolean): Entry<T> | undefined {
    this.#counters.EventTakeAttemptCount++;
    if (!alone) return this.#store.take(this.#batchSize, maxBytes, maxEvents);
    // A store can cut events, but not bytes.
    return this.#store.take(Math.min(this.#batchSize, maxEvents), Infinity, maxEvents);
  }

  giveBack(entries: readonly Entry<T>[]): void {
    this.#store.giveBack(entries);
    this.#onGivenBack();
  }

  done(entry: Entry<T>, rest: Batch<T> | undefined): void {
    this.#counters.EventTakeSuccessCount += entry.batch.length - (rest?.length ?? 0);
    this.#store.done(entry, rest);
    this.#onSettled();
  }

  refused(): boolean {
    return false;
  }
}

/** A channel object over a store, for many inputs and competing outputs. */
export const createChannel = <T = FlumeEvent>(store: Store<T>, options: ChannelOptions = {}): Channel<T> =>
  new Channel(store, options);

/**
 * Makes a channel component: called, it is an operator for one input and one output; `create` gives the shared object,
 * for many inputs and competing outputs.
 */
export const defineChannel = <S extends z.ZodObject>(
  info: ComponentInfo<S> & { open: <T>(options: z.output<S>) => Store<T> },
) => {
  const { open, ...description } = info;
  const parse = (given: z.input<S> | undefined, { name = info.type }: Identity) => {
    const options = parseOptions(info.type, info.options, given ?? {});
    const shared = { ...options, name } as ChannelOptions;
    const makeStore = <T>(): Store<T> => {
      const store = open<T>(options);
      const { transactionCapacity = 0 } = shared;
      // A default adapts, also where an agent has filled it in; what somebody has asked for does not.
      const usual = fieldInfo.get(info.options.shape['transactionCapacity'] as z.ZodType)?.default;
      if (transactionCapacity > store.capacity.events && transactionCapacity !== usual)
        throw new MillraceError(
          'MR_CONFIG',
          `${info.type}: transactionCapacity ${transactionCapacity} must not exceed capacity ${store.capacity.events}.`,
        );
      return store;
    };
    return { makeStore, shared };
  };
  const operator = <T = FlumeEvent>(
    given?: z.input<S> & OutputOptions,
    identity: Identity = {},
  ): OperatorFunction<Delivery<T>, Delivery<T>> => {
    const { batchSize, maxInFlight, redelivery, ...own } = (given ?? {}) as OutputOptions;
    const { makeStore, shared } = parse(own as z.input<S>, identity);
    return channelOperator<T>(makeStore, { ...shared, batchSize, maxInFlight, redelivery });
  };
  return Object.assign(describe(description as ComponentInfo<S>, operator), {
    create: <T = FlumeEvent>(
      given?: z.input<S>,
      identity: Identity = {},
      more: Pick<ChannelOptions, 'reopen'> = {},
    ): Channel<T> => {
      const { makeStore, shared } = parse(given, identity);
      return new Channel(makeStore<T>(), { ...shared, ...more });
    },
  });
};

/** A channel component that holds events only, whatever else flows elsewhere. */
export type EventChannel<S extends z.ZodObject> = ComponentInfo<S> & {
  (...given: Given<z.input<S> & OutputOptions>): OperatorFunction<Delivery, Delivery>;
  create(...given: Given<z.input<S>, [more?: Pick<ChannelOptions, 'reopen'>]>): Channel;
};

/** A channel as an operator: one input, one output, opened by subscribing. What `makeStore` returns is used once. */
export const channelOperator =
  <T = FlumeEvent>(
    makeStore: () => Store<T>,
    options: ChannelOptions & OutputOptions = {},
  ): OperatorFunction<Delivery<T>, Delivery<T>> =>
  source =>
    new Observable<Delivery<T>>(subscriber => {
      const channel = new Channel(makeStore(), options);
      const input = channel.input();
      const output = channel.output(options).subscribe(subscriber);
      source.subscribe(input);
      return () => {
        input.unsubscribe();
        output.unsubscribe();
        void channel.close();
      };
    });
