/**
 * Channels over stores that break one promise each, and one that breaks none.
 */
import { defineChannel, type Store } from '../../../src/core/channel.ts';
import { Batch, event, type FlumeEvent } from '../../../src/core/event.ts';
import { Entry } from '../../../src/core/outlet.ts';
import { memoryChannel } from '../../../src/operators/channels/memory.ts';

/** Batches in line. */
class PlainStore<T> implements Store<T> {
  readonly capacity: { readonly events: number; readonly bytes: number };
  events = 0;
  bytes = 0;
  line: Entry<T>[] = [];

  constructor(events: number) {
    this.capacity = { events, bytes: Infinity };
  }

  put(batch: Batch<T>): void {
    this.line.push(new Entry(batch, undefined));
    this.events += batch.length;
  }

  take(maxEvents: number): Entry<T> | undefined {
    const [entry] = this.line;
    if (entry === undefined || maxEvents < 1) return undefined;
    this.line.shift();
    if (entry.batch.length <= maxEvents) return entry;
    const [batch, rest] = entry.batch.split(maxEvents);
    const first = new Entry<T>(batch, undefined);
    first.attempt = entry.attempt;
    entry.batch = rest;
    this.line.unshift(entry);
    return first;
  }

  giveBack(entries: readonly Entry<T>[]): void {
    this.line.unshift(...entries);
  }

  done(entry: Entry<T>, rest: Batch<T> | undefined): void {
    this.events -= entry.batch.length - (rest?.length ?? 0);
  }
}

class Overflowing<T> extends PlainStore<T> {
  readonly #most: number;

  constructor(events: number) {
    super(1_000_000);
    this.#most = events;
  }

  override put(batch: Batch<T>): void {
    if (this.events + batch.length <= this.#most) super.put(batch);
  }
}

class Forgetting<T> extends PlainStore<T> {
  override giveBack(entries: readonly Entry<T>[]): void {
    for (const { batch } of entries) this.events -= batch.length;
  }
}

class LastInLine<T> extends PlainStore<T> {
  override giveBack(entries: readonly Entry<T>[]): void {
    this.line.push(...entries);
  }
}

class LastInFirstOut<T> extends PlainStore<T> {
  override put(batch: Batch<T>): void {
    super.put(batch);
    this.line.unshift(this.line.pop() as Entry<T>);
  }
}

class Repeating<T> extends PlainStore<T> {
  #count = 0;

  override put(batch: Batch<T>): void {
    super.put(batch);
    if (++this.#count % 5 === 0 && this.events + batch.length <= this.capacity.events) super.put(batch);
  }
}

class Leaking<T> extends PlainStore<T> {
  #count = 0;

  override done(entry: Entry<T>, rest: Batch<T> | undefined): void {
    super.done(entry, rest);
    if (++this.#count % 5 === 0) this.events++;
  }
}

class Mangling<T> extends PlainStore<T> {
  override put(batch: Batch<T>): void {
    const [first, ...others] = batch.events as readonly unknown[] as readonly FlumeEvent[];
    const mangled = [event(first?.body ?? '', others[0]?.headers), ...others];
    super.put(Batch.of(mangled) as Batch<unknown> as Batch<T>);
  }
}

const channelOver = (store: new <T>(events: number) => Store<T>): typeof memoryChannel => {
  const { type, className, summary, options } = memoryChannel;
  return defineChannel({
    type,
    className,
    summary,
    options,
    open: <T>({ capacity }: { capacity: number }) => new store<T>(capacity),
  });
};

export const soundChannel = channelOver(PlainStore);

export const brokenChannels = {
  /** Acks what it has no room for. */
  overflows: channelOver(Overflowing),
  /** What comes back is gone. */
  forgets: channelOver(Forgetting),
  /** What comes back has to queue again. */
  queuesAgain: channelOver(LastInLine),
  lastInFirstOut: channelOver(LastInFirstOut),
  /** Every fifth batch is in it twice. */
  repeats: channelOver(Repeating),
  /** Never gets empty. */
  leaks: channelOver(Leaking),
  /** Headers of one event end up at another. */
  mangles: channelOver(Mangling),
};
