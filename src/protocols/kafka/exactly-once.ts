/**
 * From a partition that is read to those that are written, exactly once: what is written and how far the reader has come are one
 * transaction. Each partition that is read has a transactional id of its own, for which its reader asks before it reads where the
 * group is. So whoever had the partition before can commit nothing any more, however late, and the offset stands still.
 *
 * @module
 */
import { MillraceError } from '../../core/errors.ts';
import type { Compression, TransactionalProducer, Write } from './client.ts';

/** One partition that is read, from one assignment until it is revoked. */
export class TransactedPartition {
  /** Where the group is, as far as is known. */
  position: number | undefined;
  readonly #name: string;
  readonly #begin: () => Promise<TransactionalProducer>;
  readonly #moved: () => void;
  #producer: TransactionalProducer | undefined;
  /** The offset of a commit of which nobody knows whether it is in. */
  #unsure: number | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  /** `moved`: somebody else had the partition in between, so everything that was read of it is old. */
  constructor(name: string, begin: () => Promise<TransactionalProducer>, moved: () => void) {
    this.#name = name;
    this.#begin = begin;
    this.#moved = moved;
  }

  /** Resolves with where the group is, when nobody else can change that any more. */
  async begin(): Promise<number | undefined> {
    this.#producer = await this.#begin();
    return (this.position = this.#producer.position);
  }

  /** All of it or nothing, in turn. `next` is asked for when it has its turn; undefined: nothing is to be done. */
  commit(next: () => number | undefined, writes: readonly Write[] = [], compression?: Compression): Promise<void> {
    const done = this.#turn.then(() => this.#commit(next, writes, compression));
    this.#turn = done.catch(() => undefined);
    return done;
  }

  /** Asks for nothing any more: that would stop whoever has the partition now. */
  close(): void {
    this.#closed = true;
  }

  async #commit(
    nextOf: () => number | undefined,
    writes: readonly Write[],
    compression: Compression | undefined,
  ): Promise<void> {
    if (this.#closed) throw this.#gone();
    const producer = this.#producer ?? (await this.#again());
    const next = nextOf();
    // Undefined, or the answer to a commit got lost, and it is in.
    if (next === undefined || next === this.position) return;
    this.#producer = undefined;
    this.#unsure = next;
    await producer.commit(writes, next, compression);
    this.#producer = producer;
    this.#unsure = undefined;
    this.position = next;
  }

  /** After a failure: ends what may be under way, and finds out what has become of it. */
  async #again(): Promise<TransactionalProducer> {
    const producer = await this.#begin();
    const { position } = producer;
    if (position !== this.position && position !== this.#unsure) {
      this.#closed = true;
      this.#moved();
      throw this.#gone();
    }
    this.#producer = producer;
    this.#unsure = undefined;
    this.position = position;
    return producer;
  }

  #gone(): MillraceError {
    return new MillraceError(
      'MR_KAFKA',
      `Kafka: ${this.#name} is somebody else's now; what was read of it here is old.`,
    );
  }
}

/** What one delivery of a source is, for a sink that writes it in a transaction. */
export interface TransactedRange {
  /** Of the cluster that it was read from, as the source names them. */
  readonly brokers: readonly string[];
  /** It is in a transaction, or nothing of it has to be. */
  done: boolean;
  /**
   * Writes what was made of all of it, and that the group goes on behind it.
   *
   * @throws MR_KAFKA if what was read before it is not settled, the partition is somebody else's, or nobody knows whether it is
   *   in: then the same again finds out.
   */
  commit(writes: readonly Write[], compression: Compression | undefined): Promise<void>;
}
