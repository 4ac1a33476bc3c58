/**
 * How far everything is acked, when acks may come in any order.
 *
 * @module
 */

/** Something on its way, and the place behind it. */
export interface Sent<Mark> {
  readonly mark: Mark;
  acked: boolean;
  next: Sent<Mark> | undefined;
}

export class AckedInOrder<Mark> {
  /** Up to here everything is acked. */
  committed: Mark;
  #oldest: Sent<Mark> | undefined;
  #newest: Sent<Mark> | undefined;

  constructor(committed: Mark) {
    this.committed = committed;
  }

  /** Whether nothing is on its way. */
  get settled(): boolean {
    return this.#oldest === undefined;
  }

  /** Something up to `mark` is on its way. */
  send(mark: Mark): Sent<Mark> {
    const sent: Sent<Mark> = { mark, acked: false, next: undefined };
    if (this.#newest === undefined) this.#oldest = sent;
    else this.#newest.next = sent;
    this.#newest = sent;
    return sent;
  }

  /** Moves the committed mark over everything that is acked without a gap. */
  acked(sent: Sent<Mark>): void {
    sent.acked = true;
    while (this.#oldest?.acked === true) {
      this.committed = this.#oldest.mark;
      this.#oldest = this.#oldest.next;
    }
    if (this.#oldest === undefined) this.#newest = undefined;
  }
}
