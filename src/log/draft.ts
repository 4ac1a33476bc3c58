/**
 * What is going to be a frame.
 *
 * @module
 */
import { adjoin, type Batch, type Block, type SourceOffset } from '../core/event.ts';
import { sumOf } from './format.ts';
import { encodeBlocks, encodePayload, type Payload } from './payload.ts';
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
  /** None if it is of events that are no block. */
  readonly #blocks: Block[] = [];
  /** Their bytes. */
  #size = 0;
  #payload: Payload | undefined;
  /** Of as much of the payload as is there. Made while others are being written, so that nobody waits for it. */
  #sum: number;

  constructor(put: Put) {
    const { batch } = put;
    const { block } = batch;
    this.puts = [put];
    this.count = batch.length;
    this.byteLength = batch.byteLength;
    this.sourceOffset = batch.sourceOffset;
    if (block === undefined) {
      this.#payload = encodePayload(batch);
      this.#sum = sumOf(this.#payload.pieces);
    } else {
      this.#blocks.push(block);
      this.#size = block.bytes.length;
      this.#sum = sumOf([block.bytes]);
    }
  }

  /** Takes this put as well, if it is the next piece of what the source has read. */
  join(put: Put): boolean {
    const { block, length, byteLength, sourceOffset } = put.batch;
    const last = this.#blocks.at(-1);
    if (block === undefined || last === undefined || this.#payload !== undefined || !adjoin(last, block)) return false;
    const size = this.#size + block.bytes.length;
    if (size > mostJoined || sourceOffset?.key !== this.sourceOffset?.key) return false;
    this.puts.push(put);
    this.count += length;
    this.byteLength += byteLength;
    this.sourceOffset = sourceOffset;
    this.#blocks.push(block);
    this.#size = size;
    this.#sum = sumOf([block.bytes], this.#sum);
    return true;
  }

  /** Its payload and the sum of it. Nothing joins any more. */
  finish(): { readonly payload: Payload; readonly sum: number } {
    if (this.#payload === undefined) {
      const [{ bytes: first }] = this.#blocks as [Block, ...Block[]];
      this.#payload = encodeBlocks(Buffer.from(first.buffer, first.byteOffset, this.#size), this.#blocks);
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
