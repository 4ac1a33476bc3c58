/**
 * A delivery: a batch of events plus the right to settle it. Settling is both the confirmation and the demand for more.
 *
 * A delivery is made in one of a few ways only, so settlement is a graph that is right by construction: an emitter makes a
 * root (`outlet.ts`), and `derive`, `fork`, `join` and `own` make deliveries from deliveries. Each node knows whom to tell;
 * there is no promise, timer or closure per event anywhere in it.
 *
 * @module
 */
import { Batch, type Block, type FlumeEvent } from './event.ts';
import type { Ledger } from './ledger.ts';

export interface Delivery<T = FlumeEvent> {
  /** Never empty, never changed. Made from the block on first use. */
  readonly events: readonly T[];
  /** The same events, not yet made: many bodies in one buffer. */
  readonly block: Block | undefined;
  /** The events as a batch, for whoever hands them on unread. */
  readonly batch: Batch<T>;
  /** How many events; does not make them. */
  readonly length: number;
  /** 1 on first emission. */
  readonly attempt: number;
  /** False once settled, overtaken by a redelivery, or of a session that is over: writing it would only make a duplicate. */
  readonly live: boolean;
  /** The books of the flow that the events belong to. */
  readonly ledger: Ledger;

  /** Responsibility has moved downstream. False if it is too late: settled already, or not live any more. */
  ack(): boolean;
  /** Failed now: deliver again. `failed` names the events concerned, the others count as acked; default all of them. */
  nack(cause: Error, failed?: readonly T[]): boolean;
  /** Will never work: the dead-letter policy decides. `failed` as for `nack`. */
  reject(cause: Error, failed?: readonly T[]): boolean;

  /** Other events under the same settlement (map, filter, enrich). For none at all, `ack` instead. */
  derive<U>(events: readonly U[] | Batch<U>): Delivery<U>;
  /**
   * Parts that settle this delivery when all of them are settled, a reject winning over an ack; or when the first of them
   * is nacked. Then those that are still open are delivered again with it, so that nothing overtakes what failed.
   */
  fork<U>(parts: readonly (readonly U[] | Batch<U>)[]): Delivery<U>[];
}

/** What an emitter may have unsettled. */
export interface Credit {
  /** Unsettled deliveries. */
  readonly deliveries: number;
  /** Nothing more comes before one of them is settled. */
  readonly used: boolean;
  /** Somebody waits for an answer: a nack is told, and not delivered again. */
  readonly reports: boolean;
}

export type Outcome = 'ack' | 'nack' | 'reject';

/** The events that an outcome is about; undefined means all of them. */
export type Failed = readonly unknown[] | undefined;

const asBatch = <T>(events: readonly T[] | Batch<T>): Batch<T> => (events instanceof Batch ? events : Batch.of(events));

/** The failed events as events of this batch, in its order; all of them if any is not among them, for then nobody knows. */
const within = (batch: Batch<unknown>, failed: Failed): Failed => {
  if (failed === undefined) return undefined;
  const wanted = new Set(failed);
  const own = batch.events.filter(value => wanted.has(value));
  // Behind a redelivery a batch may hold an event twice: then both fail.
  const known = own.length === wanted.size || new Set(own).size === wanted.size;
  return known && own.length < batch.length ? own : undefined;
};

/** How many events an outcome took off a delivery of `length`. */
export const settledCount = (length: number, outcome: Outcome, failed: Failed): number =>
  outcome === 'ack' ? length : failed === undefined ? 0 : length - failed.length;

/** What all deliveries share: settled once, told to whoever is behind it. */
export abstract class Settleable<T> implements Delivery<T> {
  readonly batch: Batch<T>;
  readonly attempt: number;
  #open = true;

  constructor(batch: Batch<T>, attempt: number) {
    this.batch = batch;
    this.attempt = attempt;
  }

  /** Tells whoever is behind this delivery; false if that is over. */
  protected abstract pass(outcome: Outcome, cause: Error | undefined, failed: Failed): boolean;
  protected abstract get reachable(): boolean;
  abstract readonly ledger: Ledger;

  /** Of the emitter it came from, if that is known. */
  get credit(): Credit | undefined {
    return undefined;
  }

  /** What its emitter knows it by, if settling this settles all that was emitted. */
  get tag(): unknown {
    return undefined;
  }

  get events(): readonly T[] {
    return this.batch.events;
  }

  get block(): Block | undefined {
    return this.batch.block;
  }

  get length(): number {
    return this.batch.length;
  }

  get live(): boolean {
    return this.#open && this.reachable;
  }

  ack(): boolean {
    return this.settle('ack', undefined, undefined);
  }

  nack(cause: Error, failed?: readonly T[]): boolean {
    return this.settle('nack', cause, failed);
  }

  reject(cause: Error, failed?: readonly T[]): boolean {
    return this.settle('reject', cause, failed);
  }

  settle(outcome: Outcome, cause: Error | undefined, failed: Failed): boolean {
    if (!this.#open) {
      this.ledger.settledTwice++;
      return false;
    }
    this.#open = false;
    // An outcome about none of the events is an ack.
    if (failed?.length === 0) return this.pass('ack', undefined, undefined);
    return this.pass(outcome, cause, within(this.batch, failed));
  }

  /** Something that was made of it was settled too late: then it is, too, and whoever is behind it can close its books. */
  settleLate(): void {
    if (!this.#open) return;
    this.#open = false;
    this.pass('ack', undefined, undefined);
  }

  derive<U>(events: readonly U[] | Batch<U>): Delivery<U> {
    return new Derived(asBatch(events), this);
  }

  fork<U>(parts: readonly (readonly U[] | Batch<U>)[]): Delivery<U>[] {
    if (parts.length === 0)
      throw new RangeError('fork needs at least one part; ack the delivery if nothing is left of it');
    return new Fork(this, parts.map(asBatch)).parts<U>();
  }
}

/** Other events, same settlement. */
class Derived<T> extends Settleable<T> {
  readonly #parent: Settleable<unknown>;

  constructor(batch: Batch<T>, parent: Settleable<unknown>) {
    super(batch.upTo(parent.batch.sourceOffset), parent.attempt);
    this.#parent = parent;
  }

  get ledger(): Ledger {
    return this.#parent.ledger;
  }

  override get credit(): Credit | undefined {
    return this.#parent.credit;
  }

  override get tag(): unknown {
    return this.#parent.tag;
  }

  protected get reachable(): boolean {
    return this.#parent.live;
  }

  protected pass(outcome: Outcome, cause: Error | undefined, failed: Failed): boolean {
    const ofParent = within(this.#parent.batch, failed);
    if (!this.#parent.settle(outcome, cause, ofParent)) return false;
    this.ledger.changed(
      settledCount(this.#parent.length, outcome, ofParent),
      settledCount(this.length, outcome, failed),
    );
    return true;
  }
}

/** Settles by an outcome: for stages that hand on what they are told. */
export const settle = (delivery: Delivery<unknown>, ...told: Parameters<Answer>): boolean =>
  (delivery as Settleable<unknown>).settle(...told);

/** For stages that hold deliveries back: what else may come from the emitter of this one. */
export const creditOf = (delivery: Delivery<unknown>): Credit | undefined => (delivery as Settleable<unknown>).credit;

/**
 * What the emitter of a delivery knows it by, a source for example. Undefined if settling this delivery is not all that settles
 * what was emitted: it is a part of it, or more than it.
 */
export const tagOf = (delivery: Delivery<unknown>): unknown => (delivery as Settleable<unknown>).tag;

/** A tag that is told before its delivery is acked though nobody has the events: they were filtered out, dead-lettered or dropped. */
export interface ToldOfGaps {
  leftOut?(): void;
}

/** Tells the emitter who knows a delivery by this tag. */
export const leaveOut = (tag: unknown): void => (tag as ToldOfGaps | undefined)?.leftOut?.();

/** What a stage does when a delivery of its own is settled; returns whether that was in time. */
export type Answer = (outcome: Outcome, cause: Error | undefined, failed: Failed) => boolean;

/** Settled by asking the stage that made it. */
class Owned<T> extends Settleable<T> {
  readonly #origin: Delivery<unknown>;
  readonly #answer: Answer;
  readonly ledger: Ledger;

  constructor(origin: Delivery<unknown>, batch: Batch<T>, answer: Answer, ledger: Ledger) {
    super(batch, origin.attempt);
    this.#origin = origin;
    this.#answer = answer;
    this.ledger = ledger;
  }

  override get credit(): Credit | undefined {
    return creditOf(this.#origin);
  }

  override get tag(): unknown {
    return tagOf(this.#origin);
  }

  protected get reachable(): boolean {
    return this.#origin.live;
  }

  protected pass(outcome: Outcome, cause: Error | undefined, failed: Failed): boolean {
    return this.#answer(outcome, cause, failed);
  }
}

/**
 * A delivery for a stage that wants to decide what its settlement means for `origin`: `answer` is called once, also when
 * it is too late, and settles the origin or has it settled. Live while the origin is. Its events are in `ledger`'s books.
 */
export const own = <T>(
  origin: Delivery<unknown>,
  events: readonly T[] | Batch<T>,
  answer: Answer,
  ledger: Ledger = origin.ledger,
): Delivery<T> => new Owned(origin, asBatch(events), answer, ledger);

/** Remembers what becomes of the parts of a delivery. */
class Fork {
  readonly parent: Settleable<unknown>;
  readonly #open: Set<Settleable<unknown>>;
  #settled = 0;
  /** Events that are in more than one part. They are booked as copies while the fork is open. */
  #copies: number;
  #rejection: Error | undefined;
  readonly #failed = new Set<unknown>();

  constructor(parent: Settleable<unknown>, batches: readonly Batch<unknown>[]) {
    this.parent = parent;
    this.#open = new Set(batches.map(batch => new Part(batch, this)));
    this.#copies = Math.max(0, batches.reduce((sum, { length }) => sum + length, 0) - parent.length);
    parent.ledger.copied += this.#copies;
    parent.ledger.partly -= this.#copies;
  }

  parts<U>(): Delivery<U>[] {
    return [...this.#open] as Settleable<unknown>[] as Delivery<U>[];
  }

  settle(part: Settleable<unknown>, outcome: Outcome, cause: Error | undefined, failed: Failed): boolean {
    const { ledger } = this.parent;
    if (!this.parent.live) {
      // Overtaken: what was settled here will be settled again under the next delivery.
      ledger.copied += this.#close();
      this.parent.settleLate();
      return false;
    }
    this.#open.delete(part);
    const gone = settledCount(part.length, outcome, failed);
    this.#settled += gone;
    ledger.partly += gone;
    if (outcome !== 'ack') for (const value of failed ?? part.events) this.#failed.add(value);
    if (outcome === 'nack') {
      for (const { events } of this.#open) for (const value of events) this.#failed.add(value);
      return this.#settleParent('nack', cause);
    }
    if (outcome === 'reject') this.#rejection = cause;
    if (this.#open.size > 0) return true;
    return this.#settleParent(this.#rejection === undefined ? 'ack' : 'reject', this.#rejection);
  }

  #settleParent(outcome: Outcome, cause: Error | undefined): boolean {
    const { parent } = this;
    const failed = outcome === 'ack' ? undefined : within(parent.batch, [...this.#failed]);
    const copies = this.#copies;
    const after = this.#close();
    const settled = parent.settle(outcome, cause, failed);
    const before = settled ? settledCount(parent.length, outcome, failed) : 0;
    // Copies that failed together are one event again, which is no filtering.
    if (copies > 0) parent.ledger.copied += after - before;
    else parent.ledger.changed(before, after);
    return settled;
  }

  /** Takes the fork off the books; what it has settled beyond its copies is left to account for. */
  #close(): number {
    const { ledger } = this.parent;
    const after = this.#settled - this.#copies;
    ledger.partly -= after;
    this.#settled = this.#copies = 0;
    return after;
  }
}

class Part<T> extends Settleable<T> {
  readonly #fork: Fork;

  constructor(batch: Batch<T>, fork: Fork) {
    super(batch, fork.parent.attempt);
    this.#fork = fork;
  }

  get ledger(): Ledger {
    return this.#fork.parent.ledger;
  }

  override get credit(): Credit | undefined {
    return this.#fork.parent.credit;
  }

  protected get reachable(): boolean {
    return this.#fork.parent.live;
  }

  protected pass(outcome: Outcome, cause: Error | undefined, failed: Failed): boolean {
    return this.#fork.settle(this, outcome, cause, failed);
  }
}

/** One child, many parents. */
class Joined<T> extends Settleable<T> {
  readonly #parents: readonly Settleable<T>[];

  constructor(parents: readonly Settleable<T>[]) {
    super(Batch.concat(parents.map(parent => parent.batch)), Math.max(...parents.map(parent => parent.attempt)));
    this.#parents = parents;
  }

  get ledger(): Ledger {
    return (this.#parents[0] as Settleable<T>).ledger;
  }

  /** One parent that still waits is reason enough to write. */
  protected get reachable(): boolean {
    return this.#parents.some(parent => parent.live);
  }

  protected pass(outcome: Outcome, cause: Error | undefined, failed: Failed): boolean {
    const concerned = failed === undefined ? undefined : new Set(failed);
    const shares = this.#parents.map(parent => ({
      parent,
      own: concerned && parent.events.filter(value => concerned.has(value)),
    }));
    // What is done with first: a nack overtakes whatever of its emitter came later and is not settled yet.
    if (concerned !== undefined) shares.sort((a, b) => (a.own?.length ? 1 : 0) - (b.own?.length ? 1 : 0));
    let settled = 0;
    let missed = 0;
    for (const { parent, own } of shares) {
      if (parent.settle(outcome, cause, own)) settled++;
      else missed += settledCount(parent.length, outcome, own);
    }
    if (settled > 0) this.ledger.changed(0, missed);
    return settled > 0;
  }
}

/** One delivery from several: settling it settles each of them. */
export const join = <T>(parts: readonly Delivery<T>[]): Delivery<T> => {
  const [first] = parts;
  if (first === undefined) throw new RangeError('join needs at least one delivery');
  return parts.length === 1 ? first : new Joined(parts as readonly Settleable<T>[]);
};
