/**
 * The memory channel: Flume's `memory`. Fast, bounded, and gone with the process.
 *
 * @module
 */
import { z } from 'zod';
import { defineChannel, type Store } from '../../core/channel.ts';
import type { Batch, FlumeEvent } from '../../core/event.ts';
import { int } from '../../core/options.ts';
import type { Entry } from '../../core/outlet.ts';
import { EntryQueue } from './entry-queue.ts';
import { keepAlive, memoryBytes, memoryLimits } from './limits.ts';

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
  ...memoryLimits,
  keepAlive,
});
export type MemoryChannelOptions = z.input<typeof options>;

/** Batches in line, and two sums. */
class MemoryStore<T = FlumeEvent> implements Store<T> {
  readonly capacity: { readonly events: number; readonly bytes: number };
  events = 0;
  bytes = 0;
  readonly #line = new EntryQueue<T>();

  constructor(events: number, bytes: number) {
    this.capacity = { events, bytes };
  }

  put(batch: Batch<T>): void {
    this.#line.push(batch);
    this.events += batch.length;
    this.bytes += batch.byteLength;
  }

  take(maxEvents: number, maxBytes: number, credit: number): Entry<T> | undefined {
    return this.#line.take(maxEvents, maxBytes, credit);
  }

  giveBack(entries: readonly Entry<T>[]): void {
    this.#line.giveBack(entries);
  }

  done(entry: Entry<T>, rest: Batch<T> | undefined): void {
    this.events -= entry.batch.length - (rest?.length ?? 0);
    this.bytes -= entry.batch.byteLength - (rest?.byteLength ?? 0);
  }
}

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
  open: <T>(given: z.output<typeof options>): Store<T> => new MemoryStore<T>(given.capacity, memoryBytes(given)),
});
