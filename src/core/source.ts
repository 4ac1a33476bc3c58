/**
 * `createSource`: from "how to open, read and close" to a cold, single-session, credit-driven `Observable<Delivery>`.
 *
 * @module
 */
import { Observable, type Subscriber } from 'rxjs';
import type { Timer } from './clock.ts';
import { Deque } from './deque.ts';
import type { Delivery } from './delivery.ts';
import { MillraceError, toError } from './errors.ts';
import { Batch, type FlumeEvent, type SourceOffset } from './event.ts';
import { sourceCounters, type SourceCounters } from './metrics.ts';
import { Entry, Outlet, type MaxInFlight, type Redelivery, type Supply } from './outlet.ts';
import { currentScope, inScope, scopeIsGiven, type Context, type Scope } from './scope.ts';

/** What a source's code emits through. */
export interface Emitter<T = FlumeEvent, Tag = unknown> {
  /**
   * Hands over one delivery. It leaves at once if there is credit, otherwise as soon as there is. `tag` comes back in
   * `settled`: a position, a socket, a response. A source without `pull` bounds by itself how many it hands over.
   *
   * `offset` says where to go on behind it. Channels that keep it answer {@link SourceContext.offsets}. `attempts` says how
   * often these events were emitted and have failed before; default 0.
   */
  emit(events: readonly T[] | Batch<T>, tag?: Tag, offset?: SourceOffset, attempts?: number): void;
  /** The input has ended. The flow completes when everything is settled. */
  complete(): void;
  /**
   * The source is broken; `retry` opens a new session. The flow errors at once and what is unsettled can still be settled.
   * If the source is not `replayable`, the flow errors when everything that was emitted is settled: nobody could read it again.
   */
  fail(cause: Error): void;
  /**
   * What was emitted with such a tag and is unsettled is for somebody else to read now: its deliveries are not live any
   * more, it is not delivered again, and `settled` tells that it was released.
   */
  withdraw(gone: (tag: Tag) => boolean): void;
}

/** What became of a delivery, as its source is told: exactly once for each `emit`. */
export type Settled = 'acked' | 'nacked' | 'rejected' | 'released';

/** One opening of a source. Everything is optional; what is not needed is left out. */
export interface SourceSession<Tag = unknown> {
  /**
   * Asks for one delivery, which is answered by one `emit`, now or whenever there is something. Called only with credit,
   * and not again before the answer.
   */
  pull?(): void;
  /**
   * What became of an `emit`. `nacked` and `rejected` only with `onFailure: 'report'`, and then `failed` holds the events
   * concerned; the others were acked. `released`: the session ended before it was settled, or it was withdrawn.
   */
  settled?(tag: Tag, what: Settled, cause: Error | undefined, failed: Batch<unknown> | undefined): void;
  /** Stop reading. What was emitted goes on being settled. */
  stop?(): void | Promise<void>;
  /** Everything is settled or given up: write positions, close. */
  close?(): void | Promise<void>;
}

/** What a source's code is lent. */
export interface SourceContext extends Context {
  readonly name: string;
  readonly counters: SourceCounters;
  /**
   * The last offsets under keys with this prefix that a durable channel of this flow has confirmed, whether or not their
   * source was told. Waits for channels that are being opened.
   */
  readonly offsets: (prefix: string) => Promise<ReadonlyMap<string, string>>;
}

export type SourceOpener<T, Tag> = (
  emitter: Emitter<T, Tag>,
  context: SourceContext,
) => SourceSession<Tag> | Promise<SourceSession<Tag>>;

export interface SourceOptions {
  /** For metrics and logs; default `source`. */
  readonly name?: string;
  readonly maxInFlight?: MaxInFlight | undefined;
  readonly redelivery?: Redelivery | undefined;
  /** `redeliver` (default): the source emits again what is nacked. `report`: it tells its origin, which will send again. */
  readonly onFailure?: 'redeliver' | 'report';
  /** False if the next session cannot read again what this one leaves unsettled; such events are counted as dropped. Default true. */
  readonly replayable?: boolean;
  /** How long a session that was unsubscribed waits for what it has emitted, in ms; default 30 000. */
  readonly drainTimeout?: number;
}

/**
 * Makes a source from its opener.
 *
 * Emits when the opener's session does and there is credit; pauses while `maxInFlight` is used up; completes after
 * `complete()` (or a stop) once everything is settled; errors when opening fails or the session calls `fail`.
 * Unsubscribing stops emission at once and drains in the background; a new subscription waits until that is over.
 * A second subscription at the same time errors with `MR_SOURCE_BUSY`.
 */
export const createSource = <T = FlumeEvent, Tag = unknown>(
  opener: SourceOpener<T, Tag>,
  options: SourceOptions = {},
): Observable<Delivery<T>> => {
  let session: Session<T, Tag> | undefined;
  let known: Scope | undefined;
  return new Observable<Delivery<T>>(subscriber => {
    if (session?.busy === true) {
      const name = options.name ?? 'source';
      subscriber.error(
        new MillraceError('MR_SOURCE_BUSY', `${name} is subscribed already and has one session at a time.`),
      );
      return undefined;
    }
    // A resubscription (retry, repeat) comes from a timer or a callback, where no scope is current: remember.
    const scope = scopeIsGiven() ? currentScope() : (known ?? currentScope());
    known = scope;
    if (scope.stopping) {
      scope.clock.soon(() => scope.onSourcesClosed());
      return undefined;
    }
    const opened = new Session(opener, options, subscriber, scope, session?.closed);
    session = opened;
    return () => opened.unsubscribed();
  });
};

const isStop = (thrown: unknown): boolean => thrown instanceof MillraceError && thrown.code === 'MR_FLOW_STOPPED';

class Session<T, Tag> implements Supply<T>, Emitter<T, Tag> {
  readonly closed: Promise<void>;
  readonly #options: SourceOptions;
  readonly #subscriber: Subscriber<Delivery<T>>;
  readonly #scope: Scope;
  readonly #counters: SourceCounters;
  readonly #outlet: Outlet<T>;
  readonly #queue = new Deque<Entry<T, Tag>>();
  readonly #letGo: () => void;
  /** The session before this one: over when it is. */
  readonly #previous: Promise<void> | undefined;
  #handle: SourceSession<Tag> | undefined;
  /** Events emitted and not settled. */
  #held = 0;
  #asked = false;
  /** Asked to stop: on the way to `#ending`. */
  #finishing = false;
  /** No more input: complete, or error with `#failure`, when all is settled. */
  #ending = false;
  #failure: Error | undefined;
  /** The subscriber has got its last signal, or has gone. */
  #ended = false;
  #opening: Promise<unknown> | undefined;
  #stopped: Promise<void> | undefined;
  #drain: Timer;
  #closing = false;
  #resolve!: () => void;
  #reject!: (cause: Error) => void;

  constructor(
    opener: SourceOpener<T, Tag>,
    options: SourceOptions,
    subscriber: Subscriber<Delivery<T>>,
    scope: Scope,
    previous: Promise<void> | undefined,
  ) {
    const name = options.name ?? 'source';
    this.#options = options;
    this.#subscriber = subscriber;
    this.#scope = scope;
    this.#previous = previous;
    this.#counters =
      (scope.metrics.find('SOURCE', name) as SourceCounters | undefined) ??
      scope.metrics.register('SOURCE', name, sourceCounters());
    this.#letGo = scope.ledger.hold(() => this.#held);
    this.#outlet = new Outlet<T>(
      this,
      delivery => subscriber.next(delivery),
      () => this.#onIdle(),
      scope,
      options.maxInFlight,
      options.redelivery,
    );
    this.closed = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#outlet.reports = options.onFailure === 'report';
    scope.opened(this, this.closed);
    const context: SourceContext = {
      ...scope.context,
      name,
      counters: this.#counters,
      offsets: prefix => scope.offsets(prefix),
    };
    // Never emit before subscribe() has returned: the caller has no subscription to cancel yet.
    const open = () => scope.clock.soon(() => void this.#open(opener, context));
    if (previous === undefined) open();
    else previous.then(open, open);
  }

  get busy(): boolean {
    return !this.#ended;
  }

  // --- what the opener's code calls

  emit(events: readonly T[] | Batch<T>, tag?: Tag, offset?: SourceOffset, attempts = 0): void {
    this.#asked = false;
    const batch = events instanceof Batch ? events : Batch.of(events);
    // Without strict order a batch may be in before one that the source sent earlier.
    const strict = this.#options.redelivery?.order !== 'selective';
    const entry = new Entry<T, Tag>(strict ? batch.upTo(offset) : batch, tag as Tag);
    entry.attempt = attempts;
    if (this.#closing) return this.#abandon(entry);
    this.#queue.push(entry);
    this.#outlet.pump();
  }

  complete(): void {
    this.#ending = true;
    this.#outlet.pump();
  }

  fail(cause: Error): void {
    if (this.#ended || this.#failure !== undefined) return;
    this.#counters.GenericProcessingFail++;
    if (this.#options.replayable === false) {
      this.#failure = cause;
      this.finish();
      return;
    }
    this.#end();
    inScope(this.#scope, () => this.#subscriber.error(cause));
  }

  withdraw(gone: (tag: Tag) => boolean): void {
    const withdrawn = this.#outlet.withdraw(({ tag }) => gone(tag as Tag)) as Entry<T, Tag>[];
    for (let left = this.#queue.length; left > 0; left--) {
      const entry = this.#queue.shift() as Entry<T, Tag>;
      if (gone(entry.tag)) withdrawn.push(entry);
      else this.#queue.push(entry);
    }
    for (const entry of withdrawn) this.#abandon(entry);
    this.#outlet.pump();
  }

  // --- what the subscriber and the flow call

  finish(): void {
    this.#finishing = true;
    if (this.#handle === undefined || this.#ended) return;
    this.#stop().then(
      () => this.complete(),
      (cause: unknown) => {
        this.#failure ??= toError(cause);
        this.complete();
      },
    );
  }

  abort(): void {
    this.#end();
    void this.#close();
  }

  unsubscribed(): void {
    this.#end();
  }

  // --- what the outlet calls

  take(maxEvents: number, maxBytes: number, alone: boolean): Entry<T> | undefined {
    if (this.#handle === undefined) return undefined;
    if (this.#queue.length === 0) this.#ask();
    const entry = this.#queue.peek();
    // Asking may have ended the session.
    if (entry === undefined || this.#ended) return undefined;
    const { batch } = entry;
    if (!alone && (batch.length > maxEvents || batch.byteLength > maxBytes)) return undefined;
    if (entry.fresh) {
      this.#scope.ledger.accepted += batch.length;
      this.#held += batch.length;
      this.#counters.EventReceivedCount += batch.length;
      this.#counters.AppendBatchReceivedCount++;
    }
    return this.#queue.shift();
  }

  giveBack(entries: readonly Entry<T>[]): void {
    for (let i = entries.length - 1; i >= 0; i--) this.#queue.unshift(entries[i] as Entry<T, Tag>);
    if (this.#ended) this.#onIdle();
  }

  done(entry: Entry<T>, rest: Batch<T> | undefined): void {
    const gone = entry.batch.length - (rest?.length ?? 0);
    this.#held -= gone;
    this.#counters.EventAcceptedCount += gone;
    if (rest !== undefined) return;
    this.#counters.AppendBatchAcceptedCount++;
    this.#tell(entry, 'acked');
  }

  refused(entry: Entry<T>, outcome: 'nack' | 'reject', cause: Error): boolean {
    this.#counters.ChannelWriteFail++;
    if (this.#options.onFailure !== 'report') return false;
    this.#held -= entry.batch.length;
    if (outcome === 'reject') this.#scope.ledger.rejected += entry.batch.length;
    else this.#scope.ledger.accepted -= entry.batch.length;
    this.#tell(entry, outcome === 'reject' ? 'rejected' : 'nacked', cause, entry.batch);
    return true;
  }

  // --- the life of a session

  async #open(opener: SourceOpener<T, Tag>, context: SourceContext): Promise<void> {
    // Gone, or asked to finish, before it was opened: there is nothing to open for.
    const wanted = !this.#ended && !this.#finishing;
    if (wanted) {
      try {
        const opened = opener(this, context);
        if (opened instanceof Promise) this.#opening = opened;
        this.#handle = opened instanceof Promise ? await opened : opened;
        this.#counters.StartTime = context.clock.now();
      } catch (thrown) {
        // A stop that comes while it is opened is no failure.
        if (!(this.#finishing && isStop(thrown))) this.fail(toError(thrown));
      }
    }
    this.#handle ??= {};
    if (this.#finishing) this.finish();
    this.#outlet.pump();
  }

  #ask(): void {
    if (this.#asked || this.#ending || this.#stopped !== undefined || this.#handle?.pull === undefined) return;
    this.#asked = true;
    try {
      this.#handle.pull();
    } catch (thrown) {
      this.fail(toError(thrown));
    }
  }

  #stop(): Promise<void> {
    // Async, so that what it throws is a rejection.
    return (this.#stopped ??= (async () => this.#handle?.stop?.())());
  }

  /** The subscriber hears no more; what is in flight may still be settled, for as long as the drain may last. */
  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#outlet.hold();
    if (this.#closing) return;
    this.#drain = this.#scope.clock.after(this.#options.drainTimeout ?? 30_000, () => void this.#close());
    if (this.#handle === undefined) return;
    this.#stop().then(
      () => this.#onIdle(),
      () => this.#onIdle(),
    );
  }

  #onIdle(): void {
    if (this.#handle === undefined || this.#closing || !this.#outlet.idle) return;
    if (this.#ended) void this.#close();
    else if (this.#ending && this.#queue.length === 0) {
      void this.#close().then(() => {
        if (this.#ended) return;
        this.#ended = true;
        inScope(this.#scope, () => {
          if (this.#failure === undefined) this.#subscriber.complete();
          else this.#subscriber.error(this.#failure);
        });
      });
    }
  }

  async #close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#scope.clock.cancel(this.#drain);
    this.#outlet.release();
    for (let entry = this.#queue.shift(); entry !== undefined; entry = this.#queue.shift()) this.#abandon(entry);
    this.#letGo();
    this.#counters.StopTime = this.#scope.clock.now();
    try {
      // Given up before it could open: the one before may still be closing, and the next one waits for this one only.
      await this.#previous?.catch(() => undefined);
      // What is still being opened is closed as soon as it is open: a new session must not meet it.
      await this.#opening?.catch(() => undefined);
      try {
        await this.#stop();
      } finally {
        await this.#handle?.close?.();
      }
      this.#resolve();
    } catch (thrown) {
      const cause = toError(thrown);
      this.#scope.log.error(`${this.#options.name ?? 'source'} did not close: ${cause.message}`, { cause });
      this.#reject(
        new MillraceError('MR_SOURCE_FAILED', `${this.#options.name ?? 'source'} did not close: ${cause.message}`, {
          cause,
        }),
      );
    }
  }

  /** Another session will read this again, if it can. */
  #abandon(entry: Entry<T, Tag>): void {
    const { length } = entry.batch;
    const { ledger } = this.#scope;
    if (!entry.fresh) {
      this.#held -= length;
      ledger.accepted -= length;
    }
    if (this.#options.replayable === false) {
      ledger.accepted += length;
      ledger.dropped += length;
    }
    this.#tell(entry, 'released');
  }

  #tell(entry: Entry<T>, what: Settled, cause?: Error, failed?: Batch<T>): void {
    try {
      this.#handle?.settled?.(entry.tag as Tag, what, cause, failed);
    } catch (thrown) {
      this.fail(toError(thrown));
    }
  }
}
