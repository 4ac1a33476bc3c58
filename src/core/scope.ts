/**
 * What the components of one flow share: its clock, chance, log, metrics and books, and who is still open.
 *
 * `subscribe` runs down a pipeline synchronously, so the scope is simply "the current one" while that happens, as in any
 * dynamic scope. A component that is opened outside of `run` gets a scope of its own.
 *
 * @module
 */
import { systemClock, systemRandom, type Clock } from './clock.ts';
import { systemDisk, type Disk } from './disk.ts';
import { MillraceError } from './errors.ts';
import { Ledger } from './ledger.ts';
import { Metrics } from './metrics.ts';

/** Where a component tells people something. Fields are for machines. */
export interface Log {
  info(message: string, fields?: object): void;
  warn(message: string, fields?: object): void;
  error(message: string, fields?: object): void;
}

/** Libraries are quiet: information is dropped, trouble is a Node.js process warning. */
export const quietLog: Log = {
  info: () => undefined,
  warn: message => process.emitWarning(message, 'MillraceWarning'),
  error: message => process.emitWarning(message, 'MillraceWarning'),
};

/** What a component may use from outside. Nothing else is global. */
export interface Context {
  readonly clock: Clock;
  /** A number from 0 up to 1. */
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly ledger: Ledger;
  readonly disk: Disk;
}

/** A source session as its flow sees it. */
export interface Stoppable {
  /** Ask for no more; emit and settle what there is, then complete. */
  finish(): void;
  /** Close now; what is unsettled is given up. */
  abort(): void;
}

export class Scope implements Context {
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly ledger: Ledger;
  readonly disk: Disk;
  /** True once a stop was asked for: sources do not open any more. */
  stopping = false;
  /** Called when the last source session has closed. */
  onSourcesClosed: () => void = () => undefined;

  readonly #sessions = new Set<Stoppable>();
  readonly #closing = new Set<Promise<unknown>>();
  /** Of each durable channel, when it is open: the offsets of sources that it has confirmed. */
  readonly #offsets = new Set<Promise<ReadonlyMap<string, string> | undefined>>();
  readonly #stops = new Set<() => void>();
  /** The one that it is made of, whose channels may be fed from here. */
  readonly #outer: Scope | undefined;
  #failure: { readonly cause: unknown } | undefined;

  constructor(given: Partial<Context> = {}) {
    this.#outer = given instanceof Scope ? given : undefined;
    this.clock = given.clock ?? systemClock;
    this.random = given.random ?? systemRandom;
    this.log = given.log ?? quietLog;
    this.metrics = given.metrics ?? new Metrics();
    this.ledger = given.ledger ?? new Ledger();
    this.disk = given.disk ?? systemDisk;
  }

  /** What components are lent of it. */
  get context(): Context {
    const { clock, random, log, metrics, ledger, disk } = this;
    return { clock, random, log, metrics, ledger, disk };
  }

  get sourcesOpen(): number {
    return this.#sessions.size;
  }

  /** A source session begins; `closed` resolves when it has let go of everything. */
  opened(session: Stoppable, closed: Promise<unknown>): void {
    this.#sessions.add(session);
    this.waitFor(closed);
    const gone = () => {
      this.#sessions.delete(session);
      if (this.#sessions.size === 0) this.onSourcesClosed();
    };
    closed.then(gone, gone);
  }

  /** Something that the end of the flow has to wait for. */
  waitFor(closed: Promise<unknown>): void {
    this.#closing.add(closed);
    const gone = () => this.#closing.delete(closed);
    closed.then(gone, (cause: unknown) => {
      this.#failure ??= { cause };
      gone();
    });
  }

  /** A channel that may know offsets, as soon as it is open; the result takes it out again. */
  knows(offsets: Promise<ReadonlyMap<string, string> | undefined>): () => void {
    this.#offsets.add(offsets);
    return () => this.#offsets.delete(offsets);
  }

  /** Of every channel that may be fed from here. */
  get known(): readonly Promise<ReadonlyMap<string, string> | undefined>[] {
    return [...(this.#outer?.known ?? []), ...this.#offsets];
  }

  /** See `SourceContext.offsets`. */
  async offsets(prefix: string): Promise<ReadonlyMap<string, string>> {
    let forget!: () => void;
    const stopped = new Promise<never>((_, reject) => {
      const why = 'the flow was stopped before its channel was open.';
      forget = this.whenStopping(() => reject(new MillraceError('MR_FLOW_STOPPED', why)));
    });
    const found = new Map<string, string>();
    try {
      for (const offsets of await Promise.race([Promise.all(this.known), stopped]))
        for (const [key, value] of offsets ?? []) if (key.startsWith(prefix)) found.set(key, value);
    } finally {
      forget();
    }
    return found;
  }

  /** Whoever holds something is told of a stop; the result takes it out again. */
  whenStopping(act: () => void): () => void {
    this.#stops.add(act);
    return () => this.#stops.delete(act);
  }

  finishSources(): void {
    this.stopping = true;
    for (const act of this.#stops) act();
    for (const session of [...this.#sessions]) session.finish();
  }

  abortSources(): void {
    this.stopping = true;
    for (const session of [...this.#sessions]) session.abort();
  }

  /** Resolves when nothing is open any more; rejects then with the first error that closing met. */
  async settled(): Promise<void> {
    while (this.#closing.size > 0) await Promise.allSettled([...this.#closing]);
    if (this.#failure !== undefined) throw this.#failure.cause;
  }
}

let current: Scope | undefined;

/** The scope of whoever is subscribing now, or a new one. */
export const currentScope = (): Scope => current ?? new Scope();

/** True while a flow is being subscribed. */
export const scopeIsGiven = (): boolean => current !== undefined;

/** Runs `act` inside a scope. */
export const inScope = <R>(scope: Scope, act: () => R): R => {
  const before = current;
  current = scope;
  try {
    return act();
  } finally {
    current = before;
  }
};
