/**
 * The books of a flow. At any quiet moment
 *
 *     accepted + copied = delivered + held + rejected + filtered + dropped + kept
 *
 * where `held` is asked of whoever holds events (sources with unsettled deliveries, channels), and everything else is
 * counted when it happens. `copied` is zero unless a stage multiplies events or something is delivered again; `kept` unless
 * there is a durable channel.
 *
 * @module
 */
export class Ledger {
  /** Events that a source emitted for the first time. What a session gives back to its origin is taken off again. */
  accepted = 0;
  /** Events that a sink wrote and acked. */
  delivered = 0;
  /** Events that were given up because they can never work; a dead letter has them if there is one. */
  rejected = 0;
  /** Events that a stage took out on purpose. */
  filtered = 0;
  /** Events that were lost by policy: overflow, or content of memory when its flow ended. */
  dropped = 0;
  /** Events that exist more often than they were accepted: replicated, expanded, or delivered again. */
  copied = 0;
  /** Events that a durable channel had when it was closed, less those that it had when it was opened. */
  kept = 0;
  /** Parts of deliveries that are settled, or put, while others are not: no longer held, though their origin still counts them. */
  partly = 0;
  /** Second settlements of one delivery (S1): somebody's operator has a bug. */
  settledTwice = 0;
  /** Settlements that came too late: overtaken by a redelivery, or of a session that is over (S7). */
  settledLate = 0;

  readonly #holders = new Set<() => number>();

  /** Adds a count of events held; the result takes it off again. */
  hold(count: () => number): () => void {
    this.#holders.add(count);
    return () => this.#holders.delete(count);
  }

  get held(): number {
    let held = 0;
    for (const count of this.#holders) held += count();
    return held - this.partly;
  }

  /** A stage turned `before` events into `after`. */
  changed(before: number, after: number): void {
    if (before > after) this.filtered += before - after;
    else this.copied += after - before;
  }

  /** Zero when the books balance. */
  get difference(): number {
    const { accepted, copied, delivered, held, rejected, filtered, dropped, kept } = this;
    return accepted + copied - delivered - held - rejected - filtered - dropped - kept;
  }

  snapshot() {
    const { accepted, copied, delivered, held, rejected, filtered, dropped, kept, settledTwice, settledLate } = this;
    return { accepted, copied, delivered, held, rejected, filtered, dropped, kept, settledTwice, settledLate };
  }
}
