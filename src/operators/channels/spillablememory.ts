/**
 * The spillable channel: Flume's `spillablememory`. Memory as long as that is enough, then files.
 *
 * @module
 */
import { z } from 'zod';
import { defineChannel, type EventChannel, type Store, type StoreContext } from '../../core/channel.ts';
import type { Batch, FlumeEvent } from '../../core/event.ts';
import { int } from '../../core/options.ts';
import type { Entry } from '../../core/outlet.ts';
import { EntryQueue } from './entry-queue.ts';
import { logOptions, logOptionsOf } from './file.ts';
import { FileStore } from './file-store.ts';
import { keepAlive, memoryBytes, memoryLimits } from './limits.ts';

const options = z.object({
  ...logOptions,
  memoryCapacity: int('The most events in memory; 0 is none.', { default: 10_000, min: 0, unit: 'events' }),
  overflowCapacity: int('The most events in files; 0 is none.', { default: 100_000_000, min: 0, unit: 'events' }),
  ...memoryLimits,
  transactionCapacity: int('The most events of one put or one delivery.', { default: 10_000, min: 1, unit: 'events' }),
  keepAlive,
});
export type SpillableChannelOptions = z.input<typeof options>;

/** Memory in front, files behind: what is in memory is older than what is in files. So the order is that of the puts. */
class SpillableStore implements Store {
  readonly counters: Record<string, number>;
  readonly #file: FileStore;
  readonly #line = new EntryQueue<FlumeEvent>();
  readonly #memory: { readonly events: number; readonly bytes: number };
  #events = 0;
  #bytes = 0;
  /** Puts that the file store is at. */
  #spilling = 0;

  constructor(memory: { readonly events: number; readonly bytes: number }, file: FileStore) {
    this.#memory = memory;
    this.#file = file;
    this.counters = file.counters;
  }

  /** It depends on what is where: while something is in files, room in memory is of no use. */
  get capacity(): { readonly events: number; readonly bytes: number } {
    const { events: inFiles } = this.#file.capacity;
    const behind = this.#events + inFiles;
    return {
      events: this.#isSpilling ? behind : Math.max(this.#memory.events, behind),
      bytes: inFiles === 0 ? this.#memory.bytes : Number.MAX_SAFE_INTEGER,
    };
  }

  get events(): number {
    return this.#events + this.#file.events;
  }

  get bytes(): number {
    return this.#bytes + this.#file.bytes;
  }

  /** None: what is in memory would not come again. */
  readonly offsets = undefined;

  get kept(): number {
    return this.#file.kept;
  }

  open(context: StoreContext): Promise<void> {
    return this.#file.open(context);
  }

  put(batch: Batch): void | Promise<void> {
    if (this.#fits(batch)) {
      this.#line.push(batch);
      this.#events += batch.length;
      this.#bytes += batch.byteLength;
      return undefined;
    }
    this.#spilling++;
    return this.#file.put(batch).finally(() => this.#spilling--);
  }

  take(maxEvents: number, maxBytes: number, credit: number): Entry<FlumeEvent> | undefined {
    const from = this.#line.length > 0 ? this.#line : this.#file;
    return from.take(maxEvents, maxBytes, credit);
  }

  giveBack(entries: readonly Entry<FlumeEvent>[]): void {
    this.#line.giveBack(entries.filter(entry => !this.#isFiled(entry)));
    this.#file.giveBack(entries.filter(entry => this.#isFiled(entry)));
  }

  done(entry: Entry<FlumeEvent>, rest: Batch | undefined): void {
    if (this.#isFiled(entry)) return this.#file.done(entry, rest);
    this.#events -= entry.batch.length - (rest?.length ?? 0);
    this.#bytes -= entry.batch.byteLength - (rest?.byteLength ?? 0);
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /** Memory is used again only when the files are empty: what comes now is younger than all that is in them. */
  #fits({ length, byteLength }: Batch): boolean {
    const { events, bytes } = this.#memory;
    return !this.#isSpilling && this.#events + length <= events && this.#bytes + byteLength <= bytes;
  }

  get #isSpilling(): boolean {
    return this.#file.events > 0 || this.#spilling > 0;
  }

  #isFiled({ batch }: Entry<FlumeEvent>): boolean {
    const log = batch.positions?.[0]?.log.id;
    return log !== undefined && log === this.#file.log;
  }
}

/**
 * Holds events in memory, and in files what does not fit there. When it has begun to use files it goes on until they are empty,
 * so that the order stays.
 *
 * **acks** as soon as it holds the delivery, in memory or in its files · **pauses** its source while both are full, and
 * nacks after `keepAlive`, or when the disk does not take it · **redelivers** what a sink nacks, first in line ·
 * **completes** when its input has and all was acked · **errors** as the file channel · **loses** with the process what is
 * in memory, `memoryCapacity` events at most; what is in files is there when it is opened again.
 */
export const spillableChannel: EventChannel<typeof options> = defineChannel({
  type: 'spillablememory',
  className: 'org.apache.flume.channel.SpillableMemoryChannel',
  summary: 'Holds events in memory, and in files when there are many.',
  options,
  open: <T>(given: z.output<typeof options>): Store<T> => {
    const { memoryCapacity, overflowCapacity } = given;
    const store = new SpillableStore(
      { events: memoryCapacity, bytes: memoryBytes(given) },
      new FileStore({
        ...logOptionsOf('spillablememory', given),
        capacity: { events: overflowCapacity, bytes: Number.MAX_SAFE_INTEGER },
      }),
    );
    return store as Store<unknown> as Store<T>;
  },
});
