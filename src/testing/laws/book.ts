/**
 * What must come out: every event that was put in, what has become of it, and in which order it may leave.
 *
 * @module
 */
import { Batch, event, headers, noHeaders, type FlumeEvent } from '../../core/event.ts';
import type { Consumer, Taken } from './consumer.ts';
import type { LawSpec, Report } from './law.ts';

/** An event to be made, as a program has it. */
export interface Draft {
  /** Bytes of the body besides its number. */
  readonly size: number;
  /** Which bytes. */
  readonly filler: number;
  /** Which of {@link someHeaders}. */
  readonly head: number;
}

export const someHeaders = [
  noHeaders,
  headers({ host: 'a' }),
  headers({ constructor: 'x', toString: '' }),
  headers({ 'größe, "ok"\n': 'ü\0', host: 'b' }),
];

/** An event that has to come out. */
export interface Item {
  readonly event: FlumeEvent;
  readonly key: string;
  /** Its place among those of its key. */
  readonly rank: number;
  /** `due` until it was acked (`done`), or given up: rejected, or nacked and its origin told (`refused`). */
  state: 'due' | 'done' | 'refused';
  /** What it was put in with; undefined if it was not put in by a feeder. */
  offer: Offer | undefined;
  /** Times it came out. */
  seen: number;
  /** The last delivery that brought it. */
  last: Taken | undefined;
  /** Who nacked or rejected it last, at which attempt. */
  failed: { readonly consumer: Consumer; readonly attempt: number } | undefined;
}

/** Events that were put in together. */
export interface Offer {
  readonly events: readonly FlumeEvent[];
  readonly items: readonly Item[];
  outcome: 'acked' | 'rejected' | 'refused' | undefined;
  /** Times it was handed over. */
  times: number;
}

const newline = Buffer.from('\n');

const contentOf = ({ body, headers: head }: Partial<FlumeEvent>, withHeaders: boolean): string =>
  (body?.toString('latin1') ?? 'no body') + (withHeaders ? JSON.stringify(Object.entries(head ?? {}).sort()) : '');

export class Book {
  readonly items: Item[] = [];
  readonly offers: Offer[] = [];
  readonly #report: Report;
  readonly #spec: LawSpec;
  readonly #expect: (event: FlumeEvent) => readonly FlumeEvent[];
  readonly #byContent = new Map<string, Item>();
  readonly #byEvent = new Map<FlumeEvent, readonly Item[]>();
  readonly #byKey = new Map<string, Item[]>();
  /** Per key: all before this one are not due. */
  readonly #firstDue = new Map<string, number>();
  #numbers = 0;

  constructor(report: Report, spec: LawSpec, expect: (event: FlumeEvent) => readonly FlumeEvent[] = one => [one]) {
    this.#report = report;
    this.#spec = spec;
    this.#expect = expect;
  }

  /** Events from their drafts, each one different from all others; as a block they share the headers of the first. */
  make(drafts: readonly Draft[], asBlock = false): Batch {
    const bodies = drafts.map(({ size, filler }) => {
      const bytes = Array.from({ length: size }, (_, i) =>
        this.#spec.bodies === 'lines' ? 0x61 + ((filler + i) % 26) : (filler + 7 * i) & 0xff,
      );
      return Buffer.concat([Buffer.from(`${this.#numbers++} `), Buffer.from(bytes)]);
    });
    const head = ({ head: at }: Draft) =>
      this.#spec.headers === false ? noHeaders : (someHeaders[at % someHeaders.length] ?? noHeaders);
    if (!asBlock) return Batch.of(bodies.map((body, i) => event(body, head(drafts[i] as Draft))));
    let end = -1;
    return Batch.ofBlock({
      bytes: Buffer.concat(bodies.flatMap(body => [body, newline])),
      ends: Uint32Array.from(bodies, body => (end += body.length + 1)),
      headers: head(drafts[0] as Draft),
    });
  }

  /** From now on these have to come out. `lane` tells apart inputs that have an order of their own. */
  add(events: readonly FlumeEvent[], lane = ''): Item[] {
    return events.flatMap(one => {
      const own = this.#expect(one).map(expected => this.#item(expected, lane));
      this.#byEvent.set(one, own);
      return own;
    });
  }

  /** The same for events that are put in together, and are settled. */
  offer({ events }: Batch, lane?: string): Offer {
    const offer: Offer = { events, items: this.add(events, lane), outcome: undefined, times: 0 };
    for (const item of offer.items) item.offer = offer;
    this.offers.push(offer);
    return offer;
  }

  /** What has to come out for an event that was put in. */
  itemsOf(one: FlumeEvent): readonly Item[] {
    return this.#byEvent.get(one) ?? [];
  }

  /** The item that an event is, however it came; a stranger breaks S5. */
  recognise(one: Partial<FlumeEvent>): Item | undefined {
    const item = this.#byContent.get(contentOf(one, this.#spec.headers !== false));
    if (item === undefined) {
      const body = one.body?.subarray(0, 40).toString('latin1');
      this.#report.violate(
        'S5',
        `an event came out that was never put in: ${JSON.stringify(body)} ${JSON.stringify(one.headers)}`,
      );
    }
    return item;
  }

  /** The first of the items before this one, of its key, that `isWrong`: due, and not where it should be. */
  before(item: Item, isWrong: (earlier: Item) => boolean): Item | undefined {
    const lane = this.#byKey.get(item.key) ?? [];
    let first = this.#firstDue.get(item.key) ?? 0;
    while (first < lane.length && lane[first]?.state !== 'due') first++;
    this.#firstDue.set(item.key, first);
    for (let rank = first; rank < item.rank; rank++) {
      const earlier = lane[rank] as Item;
      if (earlier.state === 'due' && isWrong(earlier)) return earlier;
    }
    return undefined;
  }

  /** Items that have not come out, or were not settled. */
  get due(): readonly Item[] {
    return this.items.filter(({ state }) => state === 'due');
  }

  /** Offers that their emitter has not got settled. */
  get open(): readonly Offer[] {
    return this.offers.filter(({ outcome }) => outcome === undefined);
  }

  #item(expected: FlumeEvent, lane: string): Item {
    const key = `${lane}${this.#spec.key?.(expected) ?? ''}`;
    let line = this.#byKey.get(key);
    if (line === undefined) this.#byKey.set(key, (line = []));
    const item: Item = {
      event: expected,
      key,
      rank: line.length,
      state: 'due',
      offer: undefined,
      seen: 0,
      last: undefined,
      failed: undefined,
    };
    const content = contentOf(expected, this.#spec.headers !== false);
    if (this.#byContent.has(content))
      throw new Error(`${this.#spec.name}: expect() makes two events alike: ${content}`);
    this.#byContent.set(content, item);
    line.push(item);
    this.items.push(item);
    return item;
  }
}

/** An item in a message. */
export const named = ({ event: { body } }: Item): string => JSON.stringify(body.subarray(0, 24).toString('latin1'));
