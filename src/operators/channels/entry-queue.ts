/**
 * Batches in line, for stores: cut and joined on the way out.
 *
 * @module
 */
import { Deque } from '../../core/deque.ts';
import { adjoin, Batch } from '../../core/event.ts';
import { Entry } from '../../core/outlet.ts';

export class EntryQueue<T> {
  /** Events in line, and their bytes. */
  events = 0;
  bytes = 0;
  readonly #line = new Deque<Entry<T>>();

  /** Entries in line. */
  get length(): number {
    return this.#line.length;
  }

  push(batch: Batch<T>): void {
    this.#line.push(new Entry(batch, undefined));
    this.#count(batch, 1);
  }

  /** See `Store.take`. */
  take(maxEvents: number, maxBytes: number, credit: number): Entry<T> | undefined {
    const first = this.#line.peek();
    if (first === undefined || first.batch.byteLength > maxBytes) return undefined;
    const { length } = first.batch;
    if (Math.min(length, maxEvents) > credit) return undefined;
    this.#line.shift();
    const most = Math.min(maxEvents, credit);
    const entry = length > most ? this.#cut(first, most) : length < most ? this.#join(first, most, maxBytes) : first;
    this.#count(entry.batch, -1);
    return entry;
  }

  /** See `Store.giveBack`. */
  giveBack(entries: readonly Entry<T>[]): void {
    for (let i = entries.length - 1; i >= 0; i--) {
      const entry = entries[i] as Entry<T>;
      this.#line.unshift(entry);
      this.#count(entry.batch, 1);
    }
  }

  #count({ length, byteLength }: Batch<T>, sign: 1 | -1): void {
    this.events += sign * length;
    this.bytes += sign * byteLength;
  }

  #cut(entry: Entry<T>, count: number): Entry<T> {
    const [batch, rest] = entry.batch.split(count);
    const first = new Entry<T>(batch, undefined);
    first.attempt = entry.attempt;
    entry.batch = rest;
    this.#line.unshift(entry);
    return first;
  }

  /**
   * Small puts leave as one delivery when several are waiting: a slow sink then writes large batches. Blocks do so only
   * without copying, that is when they were cut from one.
   */
  #join(first: Entry<T>, maxEvents: number, maxBytes: number): Entry<T> {
    const parts = [first.batch];
    let last = first;
    let [events, bytes] = [first.batch.length, first.batch.byteLength];
    for (let next = this.#line.peek(); next !== undefined && joins(last, next); next = this.#line.peek()) {
      events += next.batch.length;
      bytes += next.batch.byteLength;
      if (events > maxEvents || bytes > maxBytes) break;
      parts.push(next.batch);
      last = next;
      this.#line.shift();
    }
    return parts.length === 1 ? first : new Entry<T>(Batch.concat(parts), undefined);
  }
}

/** Only what has never failed: a poisonous batch must not pull its neighbours into its retries. */
const joins = <T>({ attempt, batch: { block } }: Entry<T>, next: Entry<T>): boolean => {
  const after = next.batch.block;
  if (attempt > 0 || next.attempt > 0) return false;
  return block === undefined || after === undefined ? block === after : adjoin(block, after);
};
