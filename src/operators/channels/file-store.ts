/**
 * A channel's store over a log: what was written is in line in memory as long as there is room for it, and is read from the
 * disk when there was not.
 *
 * @module
 */
import type { Store, StoreContext } from '../../core/channel.ts';
import { toError } from '../../core/errors.ts';
import type { Batch, FlumeEvent, Position } from '../../core/event.ts';
import type { Entry } from '../../core/outlet.ts';
import { EventLog, type LogOptions, type Place } from '../../log/log.ts';
import { LogReader } from '../../log/reader.ts';
import { EntryQueue } from './entry-queue.ts';

export interface FileStoreOptions extends LogOptions {
  readonly capacity: { readonly events: number; readonly bytes: number };
  /** Bytes in line, at most. */
  readonly cacheBytes: number;
}

/** Bytes per read from the disk. */
const readBytes = 1024 * 1024;

export class FileStore implements Store {
  readonly capacity: { readonly events: number; readonly bytes: number };
  readonly counters: Readonly<Record<string, number>>;
  /** The last put has failed. */
  #failing = false;
  readonly #errors = { EventPutErrorCount: 0, EventTakeErrorCount: 0 };
  readonly #options: FileStoreOptions;
  #context!: StoreContext;
  #log: EventLog | undefined;
  #reader: LogReader | undefined;
  readonly #line = new EntryQueue<FlumeEvent>();
  /** The number of the first event that is not in line. */
  #next = 0;
  /** Where the batch is that begins with it, if it came when there was no room. */
  #nextPlace: Place | undefined;
  /** Behind the last event that has come. The log may have more already, of which it has not told yet. */
  #end = 0;
  #reading: Promise<void> | undefined;
  #closing = false;

  constructor(options: FileStoreOptions) {
    this.#options = options;
    this.capacity = options.capacity;
    const log = (name: keyof EventLog['counters']) => () => this.#log?.counters[name] ?? 0;
    this.counters = Object.defineProperties(this.#errors, {
      LostEventCount: { enumerable: true, get: log('LostEventCount') },
      TornByteCount: { enumerable: true, get: log('TornByteCount') },
      CheckpointWriteErrorCount: { enumerable: true, get: log('CheckpointWriteErrorCount') },
      SyncCount: { enumerable: true, get: log('SyncCount') },
      BytesWritten: { enumerable: true, get: log('BytesWritten') },
      BytesOnDisk: { enumerable: true, get: () => this.#log?.size ?? 0 },
      Unhealthy: { enumerable: true, get: () => Number(this.#failing) },
    });
  }

  /** Which log it is, once it is open. */
  get log(): string | undefined {
    return this.#log?.life.id;
  }

  get offsets(): ReadonlyMap<string, string> | undefined {
    return this.#log?.offsets;
  }

  get events(): number {
    return this.#log?.events ?? 0;
  }

  get kept(): number {
    return this.events;
  }

  get bytes(): number {
    return this.#log?.bytes ?? 0;
  }

  async open(context: StoreContext): Promise<void> {
    const { disk, clock, log, name } = context;
    this.#context = context;
    this.#log = await EventLog.open(this.#options, {
      disk,
      clock,
      report: problem => log.error(`${name}: ${problem.message}`, { cause: problem }),
    });
    const reader = new LogReader(this.#log, disk);
    this.#reader = reader;
    this.#next = reader.seq;
    this.#end = this.#log.end;
    // Ahead of whoever is going to ask, so that the first delivery does not wait for it.
    await this.#readAhead();
  }

  put(batch: Batch): Promise<void> {
    return new Promise((resolve, reject) => {
      (this.#log as EventLog).append(
        batch,
        place => {
          if (this.#failing) this.#trouble(undefined);
          this.#arrived(batch, place);
          resolve();
        },
        cause => {
          this.#trouble(cause);
          this.#errors.EventPutErrorCount++;
          reject(cause);
        },
      );
    });
  }

  take(maxEvents: number, maxBytes: number, credit: number): Entry<FlumeEvent> | undefined {
    const entry = this.#line.take(maxEvents, maxBytes, credit);
    void this.#readAhead();
    return entry;
  }

  giveBack(entries: readonly Entry<FlumeEvent>[]): void {
    this.#line.giveBack(entries);
  }

  done({ batch }: Entry<FlumeEvent>, rest: Batch | undefined): void {
    const log = this.#log as EventLog;
    let bytes = batch.byteLength - (rest?.byteLength ?? 0);
    for (const { first, count } of without(batch.positions as readonly Position[], rest?.positions ?? [])) {
      log.done({ start: first, end: first + count, bytes });
      bytes = 0;
    }
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#reading;
    await this.#reader?.close();
    await this.#log?.close();
  }

  /** Puts fail, or do so no more. */
  #trouble(wrong: Error | undefined): void {
    const { metrics, name } = this.#context;
    this.#failing = wrong !== undefined;
    metrics.trouble(name, wrong);
  }

  /** A batch is safe. It goes in line if nothing is missing before it, and there is room. */
  #arrived(batch: Batch, place: Place): void {
    this.#end = place.seq + batch.length;
    if (place.seq !== this.#next) return;
    if (this.#hasRoom && this.#reading === undefined) {
      const position = { log: (this.#log as EventLog).life, first: place.seq, count: batch.length };
      this.#line.push(batch.placed([position]));
      this.#next += batch.length;
    } else {
      this.#nextPlace = place;
      void this.#readAhead();
    }
  }

  get #hasRoom(): boolean {
    if (this.#line.length === 0) return true;
    return this.#line.bytes + eventOverhead * this.#line.events < this.#options.cacheBytes;
  }

  /** Reads what is not in line, as far as there is room. */
  #readAhead(): Promise<void> | undefined {
    if (this.#reading !== undefined || this.#closing || this.#next >= this.#end || !this.#hasRoom) return this.#reading;
    return (this.#reading = this.#read().finally(() => {
      this.#reading = undefined;
      this.#context.wake();
    }));
  }

  async #read(): Promise<void> {
    const reader = this.#reader as LogReader;
    try {
      while (this.#next < this.#end && this.#hasRoom && !this.#closing) {
        if (reader.seq !== this.#next) await reader.moveTo(this.#nextPlace as Place);
        try {
          for (const batch of await reader.read(readBytes)) this.#line.push(batch);
        } finally {
          // Also after a failure: what the reader is past is missing, and has been reported.
          this.#next = reader.seq;
        }
        this.#context.wake();
      }
    } catch (thrown) {
      this.#errors.EventTakeErrorCount++;
      const { clock, log: logger, name } = this.#context;
      const cause = toError(thrown);
      logger.error(`${name}: reading failed, it is tried again in ${retryAfter} ms: ${cause.message}`, { cause });
      await new Promise<void>(resolve => void clock.after(retryAfter, resolve, true));
    }
  }
}

/** What an event costs in memory besides its bytes, about: small ones cost more for being events. */
const eventOverhead = 100;

/** How long to wait after a read that failed, in ms. */
const retryAfter = 1000;

/** What of the positions is not left. What is left of neighbours may be one. */
const without = (positions: readonly Position[], left: readonly Position[]): Position[] => {
  const gone: Position[] = [];
  let at = 0;
  for (const { log, first, count } of positions) {
    let from = first;
    const end = first + count;
    for (let one = left[at]; one !== undefined && one.first < end; one = left[++at]) {
      if (one.first > from) gone.push({ log, first: from, count: one.first - from });
      from = one.first + one.count;
      if (from > end) break;
    }
    if (from < end) gone.push({ log, first: from, count: end - from });
  }
  return gone;
};
