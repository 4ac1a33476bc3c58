/**
 * `createSink`: from "how to write a batch" to a sink with retry in place, order, settlement, metrics and closing right.
 *
 * @module
 */
import { Subscriber } from 'rxjs';
import { backoffDelay, type Backoff, type Timer } from './clock.ts';
import { Deque } from './deque.ts';
import { join, type Delivery } from './delivery.ts';
import { isPermanent, MillraceError, toError } from './errors.ts';
import type { Batch, FlumeEvent } from './event.ts';
import { sinkCounters, type SinkCounters } from './metrics.ts';
import { currentScope, type Context, type Scope } from './scope.ts';

/** What a sink's code is lent. */
export interface SinkContext extends Context {
  readonly name: string;
  readonly counters: SinkCounters;
  /** Aborted if the flow ends while the destination is not open, and there is nothing to open it for. `close` is not called then. */
  readonly unwanted: AbortSignal;
}

/**
 * What a writer throws when it knows that only some events of a batch could not be written. The others are acked, what can
 * never be written is rejected alone, and the rest is tried again.
 */
export class PartlyWritten extends Error {
  /** By its place in the batch: why an event was not written. */
  readonly failed: ReadonlyMap<number, Error>;

  constructor(failed: ReadonlyMap<number, Error>) {
    const [first] = failed.values();
    super(`${failed.size} events were not written: ${first?.message ?? ''}`, { cause: first });
    this.name = 'PartlyWritten';
    this.failed = failed;
  }
}

/** A destination. Only `write` is needed. */
export interface SinkWriter<T = FlumeEvent> {
  /** Called once before the first write; what it throws is retried like a failed write. */
  open?(context: SinkContext): void | Promise<void>;
  /**
   * Writes all events of the batch, or throws. Returning (or resolving) is the ack. A thrown error is retried in place;
   * one that is permanent (`MillraceError` with `retriable: false`) rejects the event it belongs to, found by halving.
   * A destination that says which events it has throws {@link PartlyWritten}. `of` is for whoever has to know where the
   * events come from; it is settled by the sink.
   */
  write(batch: Batch<T>, of: Delivery<T>): void | Promise<void>;
  /** Called once after the last write. */
  close?(): void | Promise<void>;
  /**
   * Up to how many bytes are worth writing at once. Deliveries that have waited for the write before are then joined,
   * so that a destination where each write has its price keeps up with its source. Default 0: one write per delivery.
   */
  readonly gather?: number;
}

export interface SinkOptions {
  /** For metrics and logs; default `sink`. */
  readonly name?: string;
  /** Batches written at a time; more than 1 gives up order. Default 1. */
  readonly concurrency?: number;
  readonly retry?: {
    /** First wait, in ms; default 100. Doubles, with jitter. */
    readonly initial?: number;
    /** Longest wait, in ms; default 30 000. */
    readonly max?: number;
    /** Attempts at one batch before it is nacked. Default: no limit. */
    readonly attempts?: number;
  };
  /** What a full batch is, for the metrics `BatchCompleteCount` and `BatchUnderflowCount`. */
  readonly batchSize?: number;
}

/**
 * A sink: an Observer of deliveries that settles everything it is handed. It belongs to one flow.
 *
 * Acks when the batch is written; nacks only when its retry policy is spent; rejects single events that can never be
 * written. It never errors and never closes by itself. Keeps order unless `concurrency` is more than 1. While it fails the log has
 * the first failure, then a line per minute, and one when it is over; `trouble` has what is wrong at any time.
 * `done` resolves after the flow has completed and the destination is closed, and rejects if the flow errored or the
 * destination did not close.
 */
export class Sink<T = FlumeEvent> extends Subscriber<Delivery<T>> {
  readonly done: Promise<void>;
  readonly #writer: SinkWriter<T>;
  readonly #options: SinkOptions;
  readonly #queue = new Deque<Delivery<T>>();
  readonly #idle: Lane<T>[] = [];
  readonly #lanes: Lane<T>[] = [];
  #scope: Scope | undefined;
  #shared: Shared<T> | undefined;
  #context: SinkContext | undefined;
  readonly #unwanted = new AbortController();
  #ending = false;
  #closing = false;
  #failure: Error | undefined;
  #resolve!: () => void;
  #reject!: (cause: Error) => void;

  constructor(writer: SinkWriter<T>, options: SinkOptions = {}) {
    super();
    this.#writer = writer;
    this.#options = options;
    const { concurrency = 1 } = options;
    if (!(concurrency >= 1))
      throw new MillraceError('MR_CONFIG', `concurrency: expected a whole number of at least 1, found ${concurrency}.`);
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever wants to know waits for it; nobody has to.
    this.done.catch(() => undefined);
  }

  /** Why the sink is not writing now: what failed last, while it is being retried. */
  get trouble(): Error | undefined {
    return this.#shared?.health.trouble;
  }

  /** Joins the flow that is being subscribed. Without it, the sink opens with the first delivery, in a scope of its own. */
  attach(scope: Scope = currentScope()): void {
    if (this.#scope !== undefined)
      throw new MillraceError('MR_SINK_USED', 'this sink is used by another flow; make a new one for each flow.');
    const name = this.#options.name ?? 'sink';
    const { clock, metrics } = scope;
    const counters =
      (metrics.find('SINK', name) as SinkCounters | undefined) ?? metrics.register('SINK', name, sinkCounters());
    counters.StartTime = clock.now();
    this.#scope = scope;
    this.#context = { ...scope.context, name, counters, unwanted: this.#unwanted.signal };
    scope.waitFor(this.done);
    const { initial = 100, max = 30_000, attempts = Infinity } = this.#options.retry ?? {};
    const shared: Shared<T> = {
      health: new Health(this.#context),
      writer: this.#writer,
      context: this.#context,
      backoff: { initial, max },
      attempts,
      opened: this.#writer.open === undefined,
      opening: undefined,
      next: lane => this.#next(lane),
      refuse: cause => {
        for (let delivery = this.#queue.shift(); delivery !== undefined; delivery = this.#queue.shift())
          delivery.nack(cause);
      },
      wanted: () => !this.#ending || this.#queue.length > 0,
      aborted: undefined,
    };
    this.#shared = shared;
    const { concurrency = 1 } = this.#options;
    for (let i = 0; i < concurrency; i++) this.#lanes.push(new Lane(shared));
    this.#idle.push(...this.#lanes);
    // Open before there is anything to write, so that trouble shows at the start.
    if (!shared.opened) this.#idle.pop()?.work();
  }

  /** Ends at once: what is not written is nacked, retries are given up. */
  abort(): void {
    this.#failure ??= new MillraceError('MR_FLOW_STOPPED', `${this.#options.name ?? 'sink'} was aborted.`);
    if (this.#shared !== undefined) this.#shared.aborted = this.#failure;
    this.#shared?.refuse(this.#failure);
    this.unsubscribe();
    this.#hurry();
  }

  protected override _next(delivery: Delivery<T>): void {
    if (this.#scope === undefined) this.attach();
    const { counters } = this.#context as SinkContext;
    counters.EventDrainAttemptCount += delivery.length;
    if (delivery.length >= (this.#options.batchSize ?? 1)) counters.BatchCompleteCount++;
    else counters.BatchUnderflowCount++;
    this.#queue.push(delivery);
    this.#idle.pop()?.work();
  }

  protected override _error(cause: unknown): void {
    this.#failure = toError(cause);
    this.#end();
    super.unsubscribe();
  }

  protected override _complete(): void {
    this.#end();
    super.unsubscribe();
  }

  /** No more deliveries; what is here is finished in the background, then `done` resolves. */
  override unsubscribe(): void {
    this.#end();
    super.unsubscribe();
  }

  /** The next delivery for a lane that is free; without one, the lane waits. */
  #next(lane: Lane<T>): Delivery<T> | undefined {
    const delivery = this.#queue.shift();
    if (delivery !== undefined) return this.#gathered(delivery);
    this.#idle.push(lane);
    this.#closeWhenIdle();
    return undefined;
  }

  /** With those that wait behind it, if that is worth it. What has failed before is tried alone. */
  #gathered(first: Delivery<T>): Delivery<T> {
    const { gather = 0 } = this.#writer;
    if (gather === 0 || !fresh(first)) return first;
    const parts = [first];
    let bytes = first.batch.byteLength;
    for (let next = this.#queue.peek(); next !== undefined && fresh(next); next = this.#queue.peek()) {
      bytes += next.batch.byteLength;
      if (bytes > gather) break;
      parts.push(next);
      this.#queue.shift();
    }
    return join(parts);
  }

  #end(): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#hurry();
    this.#closeWhenIdle();
  }

  /** Nobody waits for what is of no use any more. */
  #hurry(): void {
    if (this.#shared?.opened === false && !this.#shared.wanted()) this.#unwanted.abort();
    for (const lane of this.#lanes) lane.hurry();
  }

  #closeWhenIdle(): void {
    if (!this.#ending || this.#closing || this.#queue.length > 0 || this.#idle.length < this.#lanes.length) return;
    this.#closing = true;
    void this.#close();
  }

  async #close(): Promise<void> {
    try {
      if (this.#shared?.opened === true) await this.#writer.close?.();
    } catch (thrown) {
      this.#failure ??= toError(thrown);
    }
    if (this.#context !== undefined) this.#context.counters.StopTime = this.#context.clock.now();
    if (this.#failure === undefined) this.#resolve();
    else this.#reject(this.#failure);
  }
}

interface Shared<T> {
  readonly writer: SinkWriter<T>;
  readonly context: SinkContext;
  readonly backoff: Backoff;
  readonly attempts: number;
  readonly health: Health;
  opened: boolean;
  opening: Promise<void> | undefined;
  readonly next: (lane: Lane<T>) => Delivery<T> | undefined;
  /** Nacks everything that no lane has taken yet. */
  readonly refuse: (cause: Error) => void;
  /** False once there is nothing to open the destination for. */
  readonly wanted: () => boolean;
  /** Set when everything is to end at once. */
  aborted: Error | undefined;
}

/** Between two lines about a destination that goes on failing, in ms. */
const reminder = 60_000;

/** Whether the destination takes what it is handed. It is away for an hour now and then, and the log is for other news, too. */
class Health {
  /** What failed last, until something is written. */
  trouble: Error | undefined;
  readonly #context: SinkContext;
  #failures = 0;
  /** Of the first failure, and of the last line. */
  #since = 0;
  #told = -Infinity;
  /** The log has it that something is wrong. */
  #open = false;

  constructor(context: SinkContext) {
    this.#context = context;
  }

  failed(cause: Error): void {
    if (this.trouble === undefined) [this.#failures, this.#since] = [0, this.#context.clock.now()];
    this.trouble = cause;
    this.#failures++;
  }

  /** It is going to be tried again. The first time is told at once, unless the last line is hardly written. */
  retried(what: string, delay: number, attempt: number): void {
    const { clock, log, name } = this.#context;
    const now = clock.now();
    if (now - this.#told < reminder) return;
    const cause = this.trouble as Error;
    const history = this.#failures === 1 ? '' : ` (${this.#history()})`;
    log.warn(`${name}: ${what}, trying again in ${delay} ms: ${cause.message}${history}`, { attempt, cause });
    [this.#told, this.#open] = [now, true];
  }

  well(): void {
    if (this.trouble === undefined) return;
    const { log, name } = this.#context;
    if (this.#open) log.info(`${name}: it goes on; ${this.#history()}.`);
    this.#open = false;
    this.trouble = undefined;
  }

  #history(): string {
    const attempts = this.#failures === 1 ? '1 attempt has' : `${this.#failures} attempts have`;
    return `${attempts} failed since ${new Date(this.#since).toISOString()}`;
  }
}

const fresh = ({ live, attempt }: Delivery<unknown>): boolean => live && attempt === 1;

/** Whatever can be awaited, of any make: a query builder, a promise of another realm. */
const isPromise = (value: unknown): value is Promise<void> =>
  typeof (value as Partial<Promise<void>> | undefined)?.then === 'function';

/** One write at a time, with its retries. Its callbacks are made once, not per batch. */
class Lane<T> {
  readonly #shared: Shared<T>;
  #current: Delivery<T> | undefined;
  /** The second halves of batches in which a poisonous event is being looked for. */
  readonly #later: Delivery<T>[] = [];
  #attempt = 0;
  #working = false;
  #timer: Timer;

  constructor(shared: Shared<T>) {
    this.#shared = shared;
  }

  /** Does not wait for another attempt if there is nothing left to attempt. A write that is under way is left to end. */
  hurry(): void {
    const { context, aborted, wanted } = this.#shared;
    const needed = this.#current === undefined ? wanted() : this.#current.live;
    if (this.#timer === undefined || (aborted === undefined && needed)) return;
    context.clock.cancel(this.#timer);
    this.#timer = undefined;
    this.work();
  }

  /** Writes until there is nothing left or a write has to be waited for. A loop: writes that return at once do not recurse. */
  work(): void {
    if (this.#working) return;
    this.#working = true;
    try {
      while (this.#step());
    } finally {
      this.#working = false;
    }
  }

  /** True to go on at once, false when a callback will. */
  #step(): boolean {
    const { writer, aborted } = this.#shared;
    if (!this.#shared.opened && this.#shared.wanted()) return this.#open();
    this.#current ??= this.#later.pop() ?? this.#shared.next(this);
    if (this.#current === undefined) return false;
    if (aborted !== undefined || !this.#current.live)
      return this.#giveUp(
        this.#current,
        aborted ?? new MillraceError('MR_SINK_FAILED', 'the delivery was taken back by its emitter.'),
      );
    const { batch } = this.#current;
    let writing: void | Promise<void>;
    try {
      writing = writer.write(batch, this.#current);
    } catch (thrown) {
      return this.#failed(thrown);
    }
    if (!isPromise(writing)) return this.#written();
    writing.then(this.#onWritten, this.#onFailed);
    return false;
  }

  /** Lanes share one opening. */
  #open(): boolean {
    const { writer, context } = this.#shared;
    try {
      const opening = this.#shared.opening ?? writer.open?.(context);
      if (!isPromise(opening)) {
        this.#opened();
        return true;
      }
      this.#shared.opening = opening;
      opening.then(this.#onOpened, this.#onNotOpened);
      return false;
    } catch (thrown) {
      return this.#failed(thrown);
    }
  }

  #opened(): void {
    this.#shared.health.well();
    this.#shared.opened = true;
    this.#attempt = 0;
  }

  readonly #onOpened = (): void => {
    this.#opened();
    this.work();
  };

  readonly #onNotOpened = (thrown: unknown): void => {
    this.#shared.opening = undefined;
    this.#onFailed(thrown);
  };

  readonly #onWritten = (): void => {
    this.#written();
    this.work();
  };

  readonly #onFailed = (thrown: unknown): void => {
    if (this.#failed(thrown)) this.work();
  };

  #written(): boolean {
    const delivery = this.#current as Delivery<T>;
    this.#shared.health.well();
    this.#current = undefined;
    this.#attempt = 0;
    this.#ack(delivery);
    return true;
  }

  #ack(delivery: Delivery<T>): void {
    // Counted before it is settled: settling may let the next one out, and the books must be right by then.
    const { ledger, length } = delivery;
    ledger.delivered += length;
    if (delivery.ack()) this.#shared.context.counters.EventDrainSuccessCount += length;
    else ledger.delivered -= length;
  }

  /** What to do about a failed attempt; true to go on at once. */
  #failed(thrown: unknown): boolean {
    const cause = toError(thrown);
    const { context, attempts, backoff, health } = this.#shared;
    const delivery = this.#current;
    let trouble = cause;
    let what = delivery === undefined ? 'opening failed' : 'a write failed';
    context.counters.EventWriteFail++;
    if (delivery !== undefined && this.#shared.aborted === undefined) {
      if (cause instanceof PartlyWritten) {
        if (!this.#takeApart(delivery, cause.failed)) return true;
        const passing = [...cause.failed.values()].filter(why => !isPermanent(why));
        what = `${passing.length} of ${delivery.length} events were not written`;
        trouble = passing[0] ?? cause;
      } else if (isPermanent(cause)) return this.#poisoned(delivery, cause);
    }
    this.#attempt++;
    health.failed(trouble);
    if (this.#shared.aborted !== undefined || (delivery === undefined && !this.#shared.wanted())) return true;
    if (this.#attempt >= attempts) {
      const spent = new MillraceError(
        'MR_SINK_FAILED',
        `${context.name} failed ${this.#attempt} times: ${trouble.message}`,
        { cause },
      );
      if (this.#current !== undefined) return this.#giveUp(this.#current, spent);
      // It could not be opened: somebody else may be able to deliver what waits.
      this.#shared.refuse(spent);
    }
    const delay = backoffDelay(backoff, this.#attempt, context.random);
    health.retried(what, delay, this.#attempt);
    this.#timer = context.clock.after(delay, () => {
      this.#timer = undefined;
      this.work();
    });
    return false;
  }

  #giveUp(delivery: Delivery<T>, cause: Error): boolean {
    this.#current = undefined;
    this.#attempt = 0;
    delivery.nack(cause);
    return true;
  }

  /** Settles what is written and what never will be. The rest is what is tried again; false if there is none. */
  #takeApart(delivery: Delivery<T>, failed: ReadonlyMap<number, Error>): boolean {
    const written: T[] = [];
    const again: T[] = [];
    const never: { readonly event: T; readonly cause: Error }[] = [];
    delivery.events.forEach((event, i) => {
      const cause = failed.get(i);
      if (cause === undefined) written.push(event);
      else if (isPermanent(cause)) never.push({ event, cause });
      else again.push(event);
    });
    if (again.length === delivery.length) return true;
    const lists = [again, written].filter(({ length }) => length > 0);
    const parts = delivery.fork([...lists, ...never.map(({ event }) => [event])]);
    this.#current = again.length > 0 ? parts.shift() : undefined;
    if (written.length > 0) this.#ack(parts.shift() as Delivery<T>);
    parts.forEach((part, i) => part.reject((never[i] as (typeof never)[number]).cause));
    if (this.#current === undefined) this.#attempt = 0;
    return this.#current !== undefined;
  }

  /** Halves the batch until the event that cannot be written is alone: at most log2(n) extra writes each. */
  #poisoned(delivery: Delivery<T>, cause: Error): boolean {
    if (delivery.length === 1) {
      this.#current = undefined;
      this.#attempt = 0;
      delivery.reject(cause);
      return true;
    }
    const half = delivery.length >> 1;
    const [first, second] = delivery.fork([delivery.events.slice(0, half), delivery.events.slice(half)]);
    this.#later.push(second as Delivery<T>);
    this.#current = first;
    this.#attempt = 0;
    return true;
  }
}

/**
 * Makes a sink from a writer, or from a function of a batch's events.
 *
 * @example
 *     createSink(async events => db.insert(events))
 */
export const createSink = <T = FlumeEvent>(
  writer: SinkWriter<T> | ((events: readonly T[]) => void | Promise<void>),
  options: SinkOptions = {},
): Sink<T> => new Sink(typeof writer === 'function' ? { write: batch => writer(batch.events) } : writer, options);
