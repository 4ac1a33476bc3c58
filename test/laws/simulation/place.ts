/**
 * Where events come out, and what has to come out there.
 */
import type { FlumeEvent } from '../../../src/core/event.ts';
import type { World } from './world.ts';

/** An event at one point of the graph. */
export interface Passing {
  readonly at: string;
  readonly what: string;
}

/** What a model says about an event at a place. */
export interface Due {
  /** The event of a source that it comes from. */
  readonly origin: string;
  /** Its place among the events of that source. */
  readonly rank: number;
  /** Events of one lane keep their order; undefined if it has none. */
  lane: string | undefined;
  /** How often it comes: at least, and at most unless something goes wrong. */
  least: number;
  most: number;
  /** Points before, at which a reject gives it up. */
  rejectable: readonly Passing[];
  /** In a dead letter. */
  readonly dead: boolean;
  /** Dead letters that may have it instead. */
  buriable: readonly Passing[];
  written: number;
}

export const print = ({ body, headers: head }: FlumeEvent): string =>
  `${body.toString('latin1')} ${Object.entries(head)
    .filter(([name]) => !name.startsWith('dead-letter-'))
    .map(([name, value]) => `${name}=${value}`)
    .sort()
    .join(' ')}`;

/** The event of a source that it was made from. */
export const originOf = ({ body }: FlumeEvent): string => body.toString().replace(/\+.*/, '');

/** In which order events came for the first time. */
export class Order {
  readonly known = new Set<string>();
  /** Of each lane. */
  readonly latest = new Map<string, { readonly rank: number; readonly what: string }>();
}

export class Place {
  readonly name: string;
  readonly due = new Map<string, Due>();
  readonly rejected = new Set<string>();
  readonly #world: World;
  readonly #received = new Order();

  constructor(name: string, world: World) {
    this.name = name;
    this.#world = world;
  }

  /** An event that gets here on several ways comes once on each, and in no order. */
  expect(what: string, due: Due): void {
    const known = this.due.get(what);
    if (known === undefined) {
      this.due.set(what, due);
      return;
    }
    known.least += due.least;
    known.most += due.most;
    known.lane = undefined;
    known.rejectable = [...known.rejectable, ...due.rejectable];
    known.buriable = [...known.buriable, ...due.buriable];
  }

  /** A sink is handed these. */
  receive(events: readonly FlumeEvent[], attempt: number): void {
    const whats = events.map(print);
    this.#world.note(`${this.name} gets ${whats.join(', ')} (${attempt})`);
    if (attempt > 1) this.#world.saw('a redelivery');
    for (const what of whats) {
      const due = this.due.get(what);
      if (due === undefined) {
        this.#world.violate('S5', `${what} came out at ${this.name}, and nothing that went in makes it`);
        continue;
      }
      if (due.dead) this.#world.rejected.add(due.origin);
      this.#check(this.#received, due, what, 'came to');
    }
  }

  /** A sink has these for good, in an order of its own if it writes one batch at a time. */
  write(events: readonly FlumeEvent[], order?: Order): void {
    for (const one of events) {
      const what = print(one);
      const due = this.due.get(what);
      if (due === undefined) continue;
      if (++due.written > due.most) this.#world.saw('a duplicate');
      if (order !== undefined) this.#check(order, due, what, 'was written to');
    }
    this.#world.note(`${this.name} has ${events.length} more`);
  }

  /** A sink will never have these. */
  reject(events: readonly FlumeEvent[]): void {
    for (const one of events) {
      this.rejected.add(print(one));
      this.#world.rejected.add(originOf(one));
    }
    this.#world.note(`${this.name} rejects ${events.map(print).join(', ')}`);
  }

  #check({ known, latest }: Order, { origin, lane, rank }: Due, what: string, did: string): void {
    if (known.has(what)) return;
    known.add(what);
    // What was rejected and is kept comes again when all around it is done.
    if (lane === undefined || this.#world.rejected.has(origin)) return;
    const before = latest.get(lane);
    if (before === undefined || before.rank <= rank) latest.set(lane, { rank, what });
    else this.#world.violate('S6', `${what} ${did} ${this.name} after ${before.what}, which was accepted later`);
  }
}
