/**
 * Events, and the two forms in which they travel: one by one, or as a block of bytes that nobody has cut up yet.
 *
 * @module
 */

/** Open keys: build them with {@link headers}, test with `Object.hasOwn`. */
export type Headers = Readonly<Record<string, string>>;

/** Flume's event: text headers and a body of bytes. Immutable. */
export interface FlumeEvent {
  readonly headers: Headers;
  readonly body: Buffer;
}

/** Headers without a prototype, so that a key such as `constructor` is a key like any other. */
export const headers = (entries: Readonly<Record<string, string>>): Headers =>
  Object.freeze(Object.assign(Object.create(null) as Record<string, string>, entries));

/** No headers; shared by all events that have none. */
export const noHeaders: Headers = headers({});

/** An event from text (UTF-8) or bytes. */
export const event = (body: string | Buffer, head: Headers = noHeaders): FlumeEvent => ({
  headers: head,
  body: typeof body === 'string' ? Buffer.from(body) : body,
});

/**
 * Many bodies in one buffer under shared headers. Each body is followed by one newline byte, which belongs to none, so
 * that `bytes` is at once what a text sink writes. `ends[i]` is the offset behind body `i`; body `i + 1` begins one later.
 */
export interface Block {
  readonly bytes: Buffer;
  readonly ends: Uint32Array;
  readonly headers: Headers;
}

/** What an event costs against limits in bytes: its body and its headers. Values without a body cost nothing. */
const sizeOf = (value: unknown): number => {
  const { body, headers: head } = value as Partial<FlumeEvent>;
  let size = body instanceof Uint8Array ? body.length : 0;
  for (const key in head) size += key.length + (head[key]?.length ?? 0);
  return size;
};

const eventsOf = ({ bytes, ends, headers: head }: Block): FlumeEvent[] => {
  const events = new Array<FlumeEvent>(ends.length);
  let start = 0;
  for (let i = 0; i < ends.length; i++) {
    const end = ends[i] as number;
    events[i] = { headers: head, body: bytes.subarray(start, end) };
    start = end + 1;
  }
  return events;
};

/** Events that travel together: never empty, never changed. A block's events are made when somebody first asks. */
export class Batch<T = FlumeEvent> {
  readonly length: number;
  readonly block: Block | undefined;
  #events: readonly T[] | undefined;
  #byteLength = -1;

  private constructor(length: number, events: readonly T[] | undefined, block: Block | undefined) {
    this.length = length;
    this.#events = events;
    this.block = block;
  }

  static of<T>(events: readonly T[]): Batch<T> {
    if (events.length === 0) throw new RangeError('a batch has at least one event');
    return new Batch<T>(events.length, events, undefined);
  }

  static ofBlock(block: Block): Batch {
    const { length } = block.ends;
    if (length === 0) throw new RangeError('a batch has at least one event');
    return new Batch<FlumeEvent>(length, undefined, block);
  }

  get events(): readonly T[] {
    return (this.#events ??= eventsOf(this.block as Block) as readonly unknown[] as readonly T[]);
  }

  /** Bodies and headers together; what limits in bytes count. */
  get byteLength(): number {
    if (this.#byteLength < 0) {
      this.#byteLength = 0;
      if (this.block === undefined) for (const value of this.events) this.#byteLength += sizeOf(value);
      else
        this.#byteLength =
          this.block.bytes.length - this.length + this.length * sizeOf({ headers: this.block.headers });
    }
    return this.#byteLength;
  }

  /** The first `count` events and the rest; both parts must get at least one. */
  split(count: number): [Batch<T>, Batch<T>] {
    if (this.block === undefined) return [Batch.of(this.events.slice(0, count)), Batch.of(this.events.slice(count))];
    const { bytes, ends, headers: head } = this.block;
    const cut = (ends[count - 1] as number) + 1;
    const rest = ends.slice(count);
    for (let i = 0; i < rest.length; i++) rest[i] = (rest[i] as number) - cut;
    return [
      Batch.ofBlock({
        bytes: bytes.subarray(0, cut),
        ends: ends.subarray(0, count),
        headers: head,
      }) as Batch<unknown> as Batch<T>,
      Batch.ofBlock({ bytes: bytes.subarray(cut), ends: rest, headers: head }) as Batch<unknown> as Batch<T>,
    ];
  }

  static concat<T>(batches: readonly Batch<T>[]): Batch<T> {
    const [first] = batches;
    if (batches.length === 1 && first !== undefined) return first;
    // Not flatMap: a slow sink's channel spends most of its time here.
    const events = new Array<T>(batches.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const batch of batches) for (const value of batch.events) events[at++] = value;
    const joined = Batch.of(events);
    joined.#byteLength = batches.reduce((sum, { byteLength }) => sum + byteLength, 0);
    return joined;
  }
}
