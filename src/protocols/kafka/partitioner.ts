/**
 * Which partition a record goes to, as Java's producer decides it, so that a key stays where it was when the producer is
 * another one.
 *
 * @module
 */

/**
 * Murmur2, 32 bits, with the seed of Kafka's `org.apache.kafka.common.utils.Utils.murmur2`. The algorithm is by Austin Appleby
 * and in the public domain.
 */
export const murmur2 = (bytes: Uint8Array): number => {
  const m = 0x5bd1e995;
  const { length } = bytes;
  const whole = length & ~3;
  let h = 0x9747b28c ^ length;
  for (let i = 0; i < whole; i += 4) {
    let k =
      (bytes[i] as number) |
      ((bytes[i + 1] as number) << 8) |
      ((bytes[i + 2] as number) << 16) |
      ((bytes[i + 3] as number) << 24);
    k = Math.imul(k, m);
    k = Math.imul(k ^ (k >>> 24), m);
    h = Math.imul(h, m) ^ k;
  }
  if (length > whole) {
    for (let i = length - 1; i >= whole; i--) h ^= (bytes[i] as number) << ((i - whole) * 8);
    h = Math.imul(h, m);
  }
  h = Math.imul(h ^ (h >>> 13), m);
  return h ^ (h >>> 15);
};

/** The partition of all records with this key, as long as there are so many. */
export const partitionOf = (key: Uint8Array, partitions: number): number => (murmur2(key) & 0x7fff_ffff) % partitions;

/** Bytes that go to one partition before it is the turn of the next: Java's `batch.size`. */
const turnBytes = 16_384;

/**
 * Spreads records without a key over the partitions of a topic: evenly by bytes, and several to one before it is the turn of the
 * next, because many small writes cost more than a few (KIP-794).
 */
export class Spread {
  #partition: number;
  #bytes = 0;

  /** Begins with a partition by chance, so that many producers do not all begin with the same. */
  constructor(random: () => number) {
    this.#partition = Math.floor(random() * 0x10000);
  }

  /** The partition for a record of so many bytes. */
  next(bytes: number, partitions: number): number {
    if (this.#bytes >= turnBytes) {
      this.#partition++;
      this.#bytes = 0;
    }
    this.#bytes += bytes;
    return this.#partition % partitions;
  }
}
