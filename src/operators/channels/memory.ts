/**
 * The memory channel: Flume's `memory`. Fast, bounded, and gone with the process.
 *
 * @module
 */
import { getHeapStatistics } from 'node:v8';
import { z } from 'zod';
import { defineChannel, type Store } from '../../core/channel.ts';
import { Deque } from '../../core/deque.ts';
import { MillraceError } from '../../core/errors.ts';
import { adjoin, Batch, type FlumeEvent } from '../../core/event.ts';
import { int } from '../../core/options.ts';
import { Entry } from '../../core/outlet.ts';

const options = z.object({
  capacity: int('The most events it holds, taken and not yet acked ones included.', {
    default: 100,
    min: 1,
    unit: 'events',
  }),
  transactionCapacity: int('The most events of one put or one delivery. In code the default is min(100, capacity).', {
    optional: true,
    agentDefault: 100,
    min: 1,
    unit: 'events',
  }),
  byteCapacity: int('The most bytes it holds, bodies and headers. Default: 80 % of the heap limit.', {
    optional: true,
    min: 1,
    unit: 'bytes',
  }),
  byteCapacityBufferPercentage: int('How much of byteCapacity is left free.', {
    default: 20,
    min: 0,
    max: 99,
    unit: '%',
  }),
  keepAlive: int('How long a put waits for room before it is nacked. In code the default is: as long as it takes.', {
    flume: 'keep-alive',
    optional: true,
    agentDefault: 3,
    min: 0,
    unit: 's',
  }),
});
export type MemoryChannelOptions = z.input<typeof options>;

/** Batches in a queue, and two sums. */
class MemoryStore<T = FlumeEvent> implements Store<T> {
  readonly capacity: { readonly events: number; readonly bytes: number };
  events = 0;
  bytes = 0;
  readonly #queue = new Deque<Entry<T>>();

  constructor(events: number, bytes: number) {
    this.capacity = { events, bytes };
  }

  put(batch: Batch<T>): void {
    this.#queue.push(new Entry(batch, undefined));
    this.events += batch.length;
    this.bytes += batch.byteLength;
  }

  take(maxEvents: number, maxBytes: number): Entry<T> | undefined {
    const first = this.#queue.peek();
    if (first === undefined || maxEvents < 1 || first.batch.byteLength > maxBytes) return undefined;
    this.#queue.shift();
    if (first.batch.length > maxEvents) return this.#cut(first, maxEvents);
    return first.batch.length < maxEvents ? this.#join(first, maxEvents, maxBytes) : first;
  }

  giveBack(entries: readonly Entry<T>[]): void {
    for (let i = entries.length - 1; i >= 0; i--) this.#queue.unshift(entries[i] as Entry<T>);
  }

  done(entry: Entry<T>, rest: Batch<T> | undefined): void {
    this.events -= entry.batch.length - (rest?.length ?? 0);
    this.bytes -= entry.batch.byteLength - (rest?.byteLength ?? 0);
  }

  #cut(entry: Entry<T>, count: number): Entry<T> {
    const [batch, rest] = entry.batch.split(count);
    const first = new Entry<T>(batch, undefined);
    first.attempt = entry.attempt;
    entry.batch = rest;
    this.#queue.unshift(entry);
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
    for (let next = this.#queue.peek(); next !== undefined && joins(last, next); next = this.#queue.peek()) {
      events += next.batch.length;
      bytes += next.batch.byteLength;
      if (events > maxEvents || bytes > maxBytes) break;
      parts.push(next.batch);
      last = next;
      this.#queue.shift();
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
/**
 * Holds events in memory between a source and a sink.
 *
 * **acks** as soon as it holds the delivery · **pauses** its source while it is full, and nacks after `keepAlive` ·
 * **redelivers** what a sink nacks, first in line · **completes** when its input has and all was acked ·
 * **loses** its content with the process: at-least-once ends at its input.
 */
export const memoryChannel = defineChannel({
  type: 'memory',
  className: 'org.apache.flume.channel.MemoryChannel',
  summary: 'Holds events in memory; fast, and gone with the process.',
  options,
  open: <T>({
    capacity,
    transactionCapacity = 0,
    byteCapacity,
    byteCapacityBufferPercentage,
  }: z.output<typeof options>): Store<T> => {
    if (transactionCapacity > capacity) {
      throw new MillraceError(
        'MR_CONFIG',
        `memory: transactionCapacity ${transactionCapacity} must not exceed capacity ${capacity}.`,
      );
    }
    const bytes = byteCapacity ?? Math.floor(0.8 * getHeapStatistics().heap_size_limit);
    return new MemoryStore<T>(capacity, Math.floor(bytes * (1 - byteCapacityBufferPercentage / 100)));
  },
});
