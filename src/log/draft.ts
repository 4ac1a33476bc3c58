/**
 * What is going to be a frame.
 *
 * @module
 */
import { adjoin, Batch, type Block, type SourceOffset } from '../core/event.ts';
import { sumOf } from './format.ts';
import { encodePayload, type Payload } from './payload.ts';
import type { Place } from './log.ts';

/** A batch, and who waits for it. */
export interface Put {
  readonly batch: Batch;
  readonly done: (place: Place) => void;
  readonly failed: (cause: Error) => void;
}

/**
 * Bytes of one frame of several puts, at most: a damaged frame is missing as a whole. With a frame for each put
 * W2 at batch 100 takes 10 % longer.
 */
const mostJoined = 512 * 1024;

/** A put that waits to be written, and those that have joined it meanwhile. */
export class Draft {
  readonly puts: Put[];
  /** Events. */
  count: number;
  byteLength: number;
  /** How far the source has come with the last of them. */
  sourceOffset: SourceOffset | undefined;
  /** The last one's, if it came as one. */
  #block: Block | undefined;
  /** Bytes of all blocks. */
  #size = 0;
  #payload: Payload | undefined;
  /** Of as much of the payload as is there. Made while others are being written, so that nobody waits for it. */
  #sum: number;

  constructor(put: Put) {
    const { batch } = put;
    this.puts = [put];
    this.count = batch.length;
    this.byteLength = batch.byteLength;
    this.sourceOffset = batch.sourceOffset;
    this.#block = batch.block;
    if (this.#block === undefined) {
      this.#payload = encodePayload(batch);
      this.#sum = sumOf(this.#payload.pieces);
    } else {
      this.#size = this.#block.bytes.length;
      this.#sum = sumOf([this.#block.bytes]);
    }
  }

  /** Takes this put as well, if it is the next piece of what the source has read. */
  join(put: Put): boolean {
    const { block, length, byteLength, sourceOffset } = put.batch;
    const last = this.#block;
    if (block === undefined || last === undefined || this.#payload !== undefined || !adjoin(last, block)) return false;
    const size = this.#size + block.bytes.length;
    if (size > mostJoined || sourceOffset?.key !== this.sourceOffset?.key) return false;
    this.puts.push(put);
    this.count += length;
    this.byteLength += byteLength;
    this.sourceOffset = sourceOffset;
    this.#block = block;
    this.#size = size;
    this.#sum = sumOf([block.bytes], this.#sum);
    return true;
  }

  /** Its payload and the sum of it. Nothing joins any more. */
  finish(): { readonly payload: Payload; readonly sum: number } {
    if (this.#payload === undefined) {
      this.#payload = encodePayload(Batch.concat(this.puts.map(({ batch }) => batch)));
      // The bytes, which come first, are in it.
      this.#sum = sumOf(this.#payload.pieces.slice(1), this.#sum);
    }
    return { payload: this.#payload, sum: this.#sum };
  }

  /** It is safe, and the frame begins there. */
  done(frame: Place): void {
    let { seq, bytesBefore } = frame;
    for (const { batch, done } of this.puts) {
      done({ ...frame, seq, bytesBefore });
      seq += batch.length;
      bytesBefore += batch.byteLength;
    }
  }

  failed(cause: Error): void {
    for (const { failed } of this.puts) failed(cause);
  }
}
