/**
 * Which events are done with: all below a watermark, and ranges above it, in any order. What a checkpoint holds.
 *
 * @module
 */
import { getNumber, putNumber } from './format.ts';
import { longestValue } from './register.ts';

/** Events from `start` up to, and without, `end`, and their bytes. */
export interface Range {
  readonly start: number;
  readonly end: number;
  readonly bytes: number;
}

/** The number of an event, and the bytes of all before it. */
export interface Mark {
  readonly seq: number;
  readonly bytesBefore: number;
}

/** The one that is furthest. */
export const latest = (...marks: readonly [Mark, ...Mark[]]): Mark => marks.reduce((a, b) => (b.seq > a.seq ? b : a));

const rangeSize = 24;

export class Acked {
  /** Everything before this is done with. */
  watermark: number;
  /** Bytes of all events before the watermark, since the log began. */
  #bytes: number;
  /** What is done with above the watermark, in order; neighbours are merged. */
  readonly #ranges: Range[] = [];
  #sparseEvents = 0;
  #sparseBytes = 0;

  constructor(watermark = 0, bytes = 0) {
    this.watermark = watermark;
    this.#bytes = bytes;
  }

  /** Events done with since the log began. */
  get events(): number {
    return this.watermark + this.#sparseEvents;
  }

  get bytes(): number {
    return this.#bytes + this.#sparseBytes;
  }

  get ranges(): readonly Range[] {
    return this.#ranges;
  }

  /** The range must not be done with yet. */
  add(range: Range): void {
    if (range.start === this.watermark) this.#advance(range);
    else this.#insert(range);
  }

  /** The watermark, and the bytes of all events before it. */
  get mark(): Mark {
    return { seq: this.watermark, bytesBefore: this.#bytes };
  }

  /** Bytes of all events before this mark, or before the watermark if that is later. */
  bytesBefore({ seq, bytesBefore }: Mark): number {
    return seq < this.watermark ? this.#bytes : bytesBefore;
  }

  /** Bytes of what is done with between two numbers, above the watermark. */
  bytesBetween(start: number, end: number): number {
    let bytes = 0;
    for (const range of this.#ranges) if (range.start >= start && range.end <= end) bytes += range.bytes;
    return bytes;
  }

  /** The first number from `seq` on that is not done with. */
  skip(seq: number): number {
    if (seq < this.watermark) return this.watermark;
    const range = this.#ranges[this.#after(seq) - 1];
    return range !== undefined && range.end > seq ? range.end : seq;
  }

  /** Where the next range above `seq` begins; Infinity if there is none. */
  next(seq: number): number {
    return this.#ranges[this.#after(seq)]?.start ?? Infinity;
  }

  /** Everything before this mark is done with. What it was, and how many bytes, is said better here than it was known. */
  advanceTo({ seq, bytesBefore }: Mark): void {
    if (seq < this.watermark) return;
    this.watermark = seq;
    this.#bytes = bytesBefore;
    while ((this.#ranges[0]?.start ?? Infinity) <= this.watermark) {
      const { start, end, bytes } = this.#ranges.shift() as Range;
      this.#sparseEvents -= end - start;
      this.#sparseBytes -= bytes;
      if (end <= this.watermark) continue;
      this.#bytes += Math.round((bytes * (end - this.watermark)) / (end - start));
      this.watermark = end;
    }
  }

  /** What of these numbers is not done with: from, and up to. */
  heldIn(from: number, to: number): [number, number][] {
    const held: [number, number][] = [];
    for (let start = this.skip(from); start < to; start = this.skip(start)) {
      const end = Math.min(to, this.next(start));
      held.push([start, end]);
      start = end;
    }
    return held;
  }

  /** The same, with bytes. How they are shared nobody knows: the first range has them all. */
  leftIn(from: Mark, to: Mark): Range[] {
    const bytes = to.bytesBefore - this.bytesBefore(from) - this.bytesBetween(from.seq, to.seq);
    return this.heldIn(from.seq, to.seq).map(([start, end], i) => ({
      start,
      end,
      bytes: i === 0 ? Math.max(0, bytes) : 0,
    }));
  }

  #advance({ end, bytes }: Range): void {
    this.watermark = end;
    this.#bytes += bytes;
    const [first] = this.#ranges;
    if (first?.start !== end) return;
    this.#ranges.shift();
    this.#sparseEvents -= first.end - first.start;
    this.#sparseBytes -= first.bytes;
    this.watermark = first.end;
    this.#bytes += first.bytes;
  }

  #insert({ start, end, bytes }: Range): void {
    this.#sparseEvents += end - start;
    this.#sparseBytes += bytes;
    const at = this.#after(start);
    const [before, after] = [this.#ranges[at - 1], this.#ranges[at]];
    const joinsBefore = before?.end === start;
    const joinsAfter = after?.start === end;
    const merged = {
      start: joinsBefore ? before.start : start,
      end: joinsAfter ? after.end : end,
      bytes: bytes + (joinsBefore ? before.bytes : 0) + (joinsAfter ? after.bytes : 0),
    };
    this.#ranges.splice(joinsBefore ? at - 1 : at, Number(joinsBefore) + Number(joinsAfter), merged);
  }

  /** How many ranges begin at or before `seq`. */
  #after(seq: number): number {
    let [low, high] = [0, this.#ranges.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#ranges[middle] as Range).start <= seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** As many ranges as there is room for, the oldest first. What is left out comes again after a crash. */
  encode(room = longestValue): Buffer {
    const most = Math.floor((room - 20) / rangeSize);
    const ranges = this.#ranges.slice(0, most);
    const bytes = Buffer.alloc(20 + rangeSize * ranges.length);
    putNumber(bytes, this.watermark, 0);
    putNumber(bytes, this.#bytes, 8);
    bytes.writeUInt32LE(ranges.length, 16);
    for (const [i, range] of ranges.entries()) {
      const at = 20 + rangeSize * i;
      putNumber(bytes, range.start, at);
      putNumber(bytes, range.end, at + 8);
      putNumber(bytes, range.bytes, at + 16);
    }
    return bytes;
  }

  static decode(bytes: Buffer): Acked {
    const acked = new Acked(getNumber(bytes, 0), getNumber(bytes, 8));
    for (let i = 0, at = 20; i < bytes.readUInt32LE(16); i++, at += rangeSize)
      acked.add({ start: getNumber(bytes, at), end: getNumber(bytes, at + 8), bytes: getNumber(bytes, at + 16) });
    return acked;
  }
}
