/**
 * Lines that belong together: which bytes are one event.
 *
 * @module
 */
const newline = 0x0a;

export interface MultilineOptions {
  readonly multilineStart?: string | undefined;
  readonly multilineContinuation?: string | undefined;
  readonly multilineMaxLength: number;
}

export class Multiline {
  readonly #pattern: RegExp;
  /** A line that matches begins an event; otherwise one that does not. */
  readonly #begins: boolean;
  readonly #maxLength: number;

  private constructor(pattern: string, begins: boolean, maxLength: number) {
    this.#pattern = new RegExp(pattern);
    this.#begins = begins;
    this.#maxLength = maxLength;
  }

  /** Undefined if each line is an event. */
  static of({ multilineStart, multilineContinuation, multilineMaxLength }: MultilineOptions): Multiline | undefined {
    if (multilineStart !== undefined) return new Multiline(multilineStart, true, multilineMaxLength);
    if (multilineContinuation === undefined) return undefined;
    return new Multiline(multilineContinuation, false, multilineMaxLength);
  }

  /**
   * Where events end in whole lines, as offsets of the newline behind them; at most `count`. The last one may go on, so it
   * is left out, unless `all` of them are wanted.
   */
  ends(lines: Buffer, count: number, all: boolean): Uint32Array {
    const ends: number[] = [];
    let start = 0;
    let last = -1;
    for (let at = 0; at < lines.length && ends.length < count;) {
      const end = lines.indexOf(newline, at);
      const begins = this.#pattern.test(lines.toString('utf8', at, end)) === this.#begins;
      if (last >= 0 && (begins || end - start > this.#maxLength)) {
        ends.push(last);
        start = at;
      }
      last = end;
      at = end + 1;
    }
    if (all && last >= 0 && ends.length < count) ends.push(last);
    return Uint32Array.from(ends);
  }
}
