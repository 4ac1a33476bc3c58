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

/** Makes objects with nothing behind their own keys. So does `Object.create(null)`, but filling that takes five times as long. */
const HeaderMap = function () {
  // Only its prototype matters.
} as unknown as new () => Record<string, string>;
HeaderMap.prototype = Object.freeze(Object.create(null) as object);

/** Headers to be filled one by one, and frozen then. A key such as `constructor` or `__proto__` is a key like any other. */
export const newHeaders = (): Record<string, string> => new HeaderMap();

/** Headers from an object's own keys. */
export const headers = (entries: Readonly<Record<string, string>>): Headers =>
  Object.freeze(Object.assign(newHeaders(), entries));

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

/** What an event costs against limits in bytes: its body and its headers; bytes and text their length; other values nothing. */
const sizeOf = (value: unknown): number => {
  if (typeof value === 'string' || value instanceof Uint8Array) return value.length;
  if (typeof value !== 'object' || value === null) return 0;
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

/** A log, from one opening to the next. */
export interface LogLife {
  readonly id: string;
  /** Another one each time that it is opened. */
  readonly life: string;
  /** Behind the last event that it had then. What had a later number before was lost; new events have those numbers now. */
  readonly end: number;
}

/** Where events are in a log: the number of the first, and how many follow each other. */
export interface Position {
  readonly log: LogLife;
  readonly first: number;
  readonly count: number;
}

/**
 * How far a source has come with something it reads, when a batch is in: of Kafka Connect's two, the key is the source
 * partition (a file), the value the source offset. A log keeps it with the batch.
 */
export interface SourceOffset {
  readonly key: string;
  readonly value: string;
}

/** Events that travel together: never empty, never changed. A block's events are made when somebody first asks. */
export class Batch<T = FlumeEvent> {
  readonly length: number;
  #events: readonly T[] | undefined;
  #block: Block | undefined;
  #byteLength = -1;
  /** Of a block that was cut: the whole, and where this begins in it. So a part's events are the whole's. */
  #whole: Batch<T> | undefined;
  #offset = 0;
  /** Of a block that was put together: its parts, for the same reason. */
  #parts: readonly Batch<T>[] | undefined;
  #positions: readonly Position[] | undefined;
  /** Where its source goes on behind the last of its events, if the source says so. */
  #sourceOffset: SourceOffset | undefined;

  private constructor(length: number, events: readonly T[] | undefined, block: Block | undefined) {
    this.length = length;
    this.#events = events;
    this.#block = block;
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
    return (this.#events ??= this.#make());
  }

  /** The same events as a block, if they came as one, or as several under the same headers. */
  get block(): Block | undefined {
    const blocks = this.#block === undefined ? this.blocks : undefined;
    if (blocks !== undefined) this.#block = blocks.length === 1 ? blocks[0] : joinBlocks(blocks, this.length);
    return this.#block;
  }

  /** The same events as blocks, in order, if all of them came so. Their headers may differ. Nothing is copied. */
  get blocks(): readonly Block[] | undefined {
    if (this.#block !== undefined) return [this.#block];
    if (this.#parts === undefined) return undefined;
    const blocks: Block[] = [];
    for (const part of this.#parts) {
      const own = part.blocks;
      if (own === undefined) return undefined;
      blocks.push(...own);
    }
    return blocks;
  }

  /** Where the events are in the log that they come from, in order; undefined if they come from none, or were changed since. */
  get positions(): readonly Position[] | undefined {
    if (this.#positions === undefined && this.#parts !== undefined) {
      const all = this.#parts.map(part => part.positions);
      if (all.every(some => some !== undefined)) this.#positions = all.flat();
    }
    return this.#positions;
  }

  /** The same events, of which it is known where they are. */
  placed(positions: readonly Position[]): Batch<T> {
    const batch = this.#same();
    batch.#positions = positions;
    return batch;
  }

  #same(): Batch<T> {
    const batch = new Batch<T>(this.length, this.#events, this.#block);
    batch.#parts = [this];
    batch.#byteLength = this.#byteLength;
    return batch;
  }

  get sourceOffset(): SourceOffset | undefined {
    return this.#sourceOffset;
  }

  /** The same events, of which it is known where their source goes on. */
  upTo(offset: SourceOffset | undefined): Batch<T> {
    if (offset === undefined || offset === this.#sourceOffset) return this;
    const batch = this.#same();
    batch.#positions = this.#positions;
    batch.#sourceOffset = offset;
    return batch;
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

  /** How many events from the first on fit into both limits. */
  fitting(maxEvents: number, maxBytes: number): number {
    const most = Math.min(this.length, maxEvents);
    if (maxBytes === Infinity || (most === this.length && this.byteLength <= maxBytes)) return most;
    const { block } = this;
    const head = block === undefined ? 0 : sizeOf({ headers: block.headers });
    let bytes = 0;
    for (let i = 0; i < most; i++) {
      if (block === undefined) bytes += sizeOf(this.events[i]);
      else bytes += head + (block.ends[i] as number) - (i === 0 ? 0 : (block.ends[i - 1] as number) + 1);
      if (bytes > maxBytes) return i;
    }
    return most;
  }

  /** The first `count` events and the rest; both parts must get at least one. */
  split(count: number): [Batch<T>, Batch<T>] {
    const halves = this.#halves(count);
    const { positions } = this;
    if (positions !== undefined) [halves[0].#positions, halves[1].#positions] = cutPositions(positions, count);
    halves[1].#sourceOffset = this.#sourceOffset;
    // Nobody looks at the events of the rest for that again, however often it is cut.
    if (this.#byteLength >= 0) halves[1].#byteLength = this.#byteLength - halves[0].byteLength;
    return halves;
  }

  /** The events from one offset to another; at least one. */
  slice(from: number, to: number): Batch<T> {
    const rest = from === 0 ? this : this.split(from)[1];
    return to - from === rest.length ? rest : rest.split(to - from)[0];
  }

  /** A batch of some of these very events, in this order. */
  only(events: readonly T[]): Batch<T> {
    const some = Batch.of(events);
    // What is left out is done with.
    some.#sourceOffset = this.#sourceOffset;
    if (this.positions !== undefined) some.#positions = pickPositions(this.positions, this.events, events);
    return some;
  }

  #halves(count: number): [Batch<T>, Batch<T>] {
    if (this.block === undefined) return [Batch.of(this.events.slice(0, count)), Batch.of(this.events.slice(count))];
    const { bytes, ends, headers: head } = this.block;
    const cut = (ends[count - 1] as number) + 1;
    const rest = ends.slice(count);
    for (let i = 0; i < rest.length; i++) rest[i] = (rest[i] as number) - cut;
    return [
      this.#part({ bytes: bytes.subarray(0, cut), ends: ends.subarray(0, count), headers: head }, 0),
      this.#part({ bytes: bytes.subarray(cut), ends: rest, headers: head }, count),
    ];
  }

  /** One batch of the events of several. Blocks under the same headers stay a block. Nothing is copied before it is asked for. */
  static concat<T>(batches: readonly Batch<T>[]): Batch<T> {
    const [first] = batches;
    if (batches.length === 1 && first !== undefined) return first;
    const length = batches.reduce((sum, batch) => sum + batch.length, 0);
    const joined = new Batch<T>(length, undefined, undefined);
    joined.#parts = batches;
    joined.#byteLength = batches.reduce((sum, { byteLength }) => sum + byteLength, 0);
    return joined;
  }

  #part(block: Block, at: number): Batch<T> {
    const part = new Batch<T>(block.ends.length, undefined, block);
    part.#whole = this.#whole ?? this;
    part.#offset = this.#offset + at;
    return part;
  }

  #make(): readonly T[] {
    if (this.#whole !== undefined) return this.#whole.events.slice(this.#offset, this.#offset + this.length);
    if (this.#parts?.length === 1) return (this.#parts[0] as Batch<T>).events;
    if (this.#parts !== undefined) return eventsOfAll(this.#parts, this.length);
    return eventsOf(this.#block as Block) as readonly unknown[] as readonly T[];
  }
}

const cutPositions = (positions: readonly Position[], count: number): [Position[], Position[]] => {
  const [before, after]: [Position[], Position[]] = [[], []];
  let left = count;
  for (const { log, first, count: here } of positions) {
    const some = Math.min(left, here);
    if (some > 0) before.push({ log, first, count: some });
    if (some < here) after.push({ log, first: first + some, count: here - some });
    left -= some;
  }
  return [before, after];
};

const pickPositions = <T>(positions: readonly Position[], all: readonly T[], some: readonly T[]): Position[] => {
  const picked: Position[] = [];
  let [at, next] = [0, 0];
  for (const { log, first, count } of positions) {
    for (let i = first; i < first + count; i++, at++) {
      if (all[at] !== some[next]) continue;
      next++;
      const last = picked.at(-1);
      if (last?.log === log && last.first + last.count === i)
        picked[picked.length - 1] = { ...last, count: last.count + 1 };
      else picked.push({ log, first: i, count: 1 });
    }
  }
  return picked;
};

/** Not flatMap: a slow sink's channel spends most of its time here. */
const eventsOfAll = <T>(batches: readonly Batch<T>[], length: number): T[] => {
  const events = new Array<T>(length);
  let at = 0;
  for (const batch of batches) for (const value of batch.events) events[at++] = value;
  return events;
};

/** Whether `b` lies behind `a` in the same memory, under the same headers: together they are a block without copying. */
export const adjoin = (a: Block, b: Block): boolean =>
  a.headers === b.headers &&
  a.bytes.buffer === b.bytes.buffer &&
  a.bytes.byteOffset + a.bytes.length === b.bytes.byteOffset;

/** The bytes of blocks, in order; those that lie behind each other in the same memory are one piece. Nothing is copied. */
export const piecesOf = (blocks: readonly Block[]): Buffer[] => {
  const pieces: Buffer[] = [];
  for (let i = 0; i < blocks.length;) {
    const { bytes } = blocks[i++] as Block;
    const { buffer, byteOffset } = bytes;
    let { length } = bytes;
    for (let next = blocks[i]?.bytes; next?.buffer === buffer; next = blocks[++i]?.bytes) {
      if (next.byteOffset !== byteOffset + length) break;
      length += next.length;
    }
    pieces.push(length === bytes.length ? bytes : Buffer.from(buffer, byteOffset, length));
  }
  return pieces;
};

const joinBlocks = (blocks: readonly Block[], length: number): Block | undefined => {
  const { headers: head } = blocks[0] as Block;
  if (blocks.some(block => block.headers !== head)) return undefined;
  const ends = new Uint32Array(length);
  let [at, start] = [0, 0];
  for (const block of blocks) {
    for (const end of block.ends) ends[at++] = start + end;
    start += block.bytes.length;
  }
  const pieces = piecesOf(blocks);
  return { bytes: pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces), ends, headers: head };
};
