/**
 * How far a content was delivered. It belongs to the content and not to a file: a copy that takes a content over takes
 * over what is on its way as well.
 *
 * @module
 */
import { noBytes } from './fingerprint.ts';

/** A delivery of a file's lines, on its way. */
export interface Sent {
  readonly progress: Progress;
  /** The offset behind its last line. */
  readonly end: number;
  /** The file's bytes before that. */
  readonly mark: Buffer;
  acked: boolean;
  /** The delivery after it. */
  next: Sent | undefined;
}

export class Progress {
  /** The offset up to which everything is delivered. */
  committed: number;
  /** The bytes before it, as far as they are known. */
  mark: Buffer = noBytes;
  /** Where a copy ends that took this over, and its last bytes. */
  #end = Infinity;
  #endMark: Buffer = noBytes;
  #oldest: Sent | undefined;
  #newest: Sent | undefined;

  constructor(committed: number) {
    this.committed = committed;
  }

  /** What is delivered from there on is not in the copy that took this over. */
  endAt(end: number, mark: Buffer): void {
    this.#end = end;
    this.#endMark = mark;
    if (this.committed >= end) [this.committed, this.mark] = [end, mark];
  }

  /** Something up to `end` is on its way. */
  send(end: number, mark: Buffer): Sent {
    const sent: Sent = { progress: this, end, mark, acked: false, next: undefined };
    if (this.#newest === undefined) this.#oldest = sent;
    else this.#newest.next = sent;
    this.#newest = sent;
    return sent;
  }

  /** Moves the committed offset over everything that is delivered without a gap. */
  acked(sent: Sent): void {
    sent.acked = true;
    while (this.#oldest?.acked === true) {
      const { end, mark } = this.#oldest;
      [this.committed, this.mark] = end < this.#end ? [end, mark] : [this.#end, this.#endMark];
      this.#oldest = this.#oldest.next;
    }
    if (this.#oldest === undefined) this.#newest = undefined;
  }
}
