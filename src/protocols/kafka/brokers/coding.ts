/**
 * Fields as Kafka's protocol has them: big-endian, and the length in front of what has one. See
 * https://kafka.apache.org/protocol#protocol_types
 *
 * @module
 */
import type { TopicPartition } from '../client.ts';
import { byTopic } from '../partitions.ts';

export class Encoder {
  #bytes: Buffer;
  #at = 0;

  /** `size`: how much it will be, about. */
  constructor(size = 256) {
    this.#bytes = Buffer.allocUnsafe(size);
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#at);
  }

  int8(value: number): this {
    const at = this.#take(1);
    this.#bytes.writeInt8(value, at);
    return this;
  }

  int16(value: number): this {
    const at = this.#take(2);
    this.#bytes.writeInt16BE(value, at);
    return this;
  }

  int32(value: number): this {
    const at = this.#take(4);
    this.#bytes.writeInt32BE(value, at);
    return this;
  }

  int64(value: bigint | number): this {
    const at = this.#take(8);
    this.#bytes.writeBigInt64BE(BigInt(value), at);
    return this;
  }

  boolean(value: boolean): this {
    return this.int8(value ? 1 : 0);
  }

  string(value: string | null): this {
    if (value === null) return this.int16(-1);
    const length = Buffer.byteLength(value);
    const at = this.int16(length).#take(length);
    this.#bytes.write(value, at);
    return this;
  }

  bytesOf(value: Buffer): this {
    const at = this.int32(value.length).#take(value.length);
    this.#bytes.set(value, at);
    return this;
  }

  array<T>(values: readonly T[], each: (value: T) => unknown): this {
    this.int32(values.length);
    for (const value of values) each(value);
    return this;
  }

  /** What newer versions of requests have lengths in, more by one. */
  unsignedVarint(value: number): this {
    let rest = value;
    for (; rest >= 0x80; rest >>>= 7) this.int8(((rest & 0x7f) | 0x80) - 0x100);
    return this.int8(rest);
  }

  compactString(value: string): this {
    const length = Buffer.byteLength(value);
    const at = this.unsignedVarint(length + 1).#take(length);
    this.#bytes.write(value, at);
    return this;
  }

  /** Where the next so many bytes go. It may be into other bytes than before, so it is asked for first. */
  #take(length: number): number {
    const at = this.#at;
    this.#at += length;
    if (this.#at > this.#bytes.length) {
      const more = Buffer.allocUnsafe(Math.max(2 * this.#bytes.length, this.#at));
      this.#bytes.copy(more, 0, 0, at);
      this.#bytes = more;
    }
    return at;
  }
}

/** @throws RangeError from any of these if it goes beyond the end. */
export class Decoder {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  int8(): number {
    return this.#bytes.readInt8(this.#take(1));
  }

  int16(): number {
    return this.#bytes.readInt16BE(this.#take(2));
  }

  int32(): number {
    return this.#bytes.readInt32BE(this.#take(4));
  }

  int64(): bigint {
    return this.#bytes.readBigInt64BE(this.#take(8));
  }

  boolean(): boolean {
    return this.int8() !== 0;
  }

  /** Empty if there is none. */
  string(): string {
    return this.#view(this.int16())?.toString() ?? '';
  }

  /** A view. */
  bytes(): Buffer | null {
    return this.#view(this.int32());
  }

  array<T>(each: () => T): T[] {
    const length = this.int32();
    // Nothing takes no room.
    if (length > this.#bytes.length - this.#at) throw new RangeError('an array goes beyond the end');
    const values: T[] = [];
    for (let i = 0; i < length; i++) values.push(each());
    return values;
  }

  unsignedVarint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.int8();
      value += (byte & 0x7f) << shift;
      if (byte >= 0) return value;
    }
  }

  skip(length: number): void {
    this.#take(Math.max(0, length));
  }

  #view(length: number): Buffer | null {
    if (length < 0) return null;
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  #take(length: number): number {
    const at = this.#at;
    this.#at += length;
    if (this.#at > this.#bytes.length) throw new RangeError('a field goes beyond the end');
    return at;
  }
}

/** Topics, each with something of its partitions. */
export const encodeTopics = <P extends TopicPartition>(
  to: Encoder,
  of: Iterable<P>,
  each: (partition: P) => unknown,
): Encoder => to.array([...byTopic(of)], ([topic, partitions]) => to.string(topic).array(partitions, each));

/** The same, flat. */
export const decodeTopics = <T>(of: Decoder, each: (at: TopicPartition) => T): T[] =>
  of
    .array(() => {
      const topic = of.string();
      return of.array(() => each({ topic, partition: of.int32() }));
    })
    .flat();
