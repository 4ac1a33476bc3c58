/**
 * Cutting bytes into lines without looking at anything but the newlines.
 *
 * @module
 */
import { headers as headersOf, type Block, type Headers } from '../core/event.ts';

/** Where lines end, while they are looked for; grows to the largest block ever asked for. */
let ends = new Uint32Array(1024);

/**
 * The complete lines at the start of `bytes`, at most `maxLines`, as a block over the same memory; undefined if there is
 * none. `\n` ends a line and nothing else does: carriage returns, NULs and invalid text stay as they are.
 */
export const cutLines = (bytes: Buffer, headers: Headers, maxLines = Infinity): Block | undefined => {
  let count = 0;
  let start = 0;
  while (count < maxLines) {
    const end = bytes.indexOf(0x0a, start);
    if (end < 0) break;
    if (count === ends.length) {
      const more = new Uint32Array(count * 2);
      more.set(ends);
      ends = more;
    }
    ends[count++] = end;
    start = end + 1;
  }
  return count === 0 ? undefined : { bytes: bytes.subarray(0, start), ends: ends.slice(0, count), headers };
};

/** Takes one `\r` off the end of each line that has one. Moves the lines within the block's own memory. */
export const withoutReturns = (block: Block): Block => {
  const { bytes, ends, headers } = block;
  let start = 0;
  let kept = 0;
  for (let i = 0; i < ends.length; i++) {
    const end = ends[i] as number;
    const stop = end > start && bytes[end - 1] === 0x0d ? end - 1 : end;
    if (kept !== start) bytes.copyWithin(kept, start, stop);
    kept += stop - start;
    bytes[kept] = 0x0a;
    ends[i] = kept++;
    start = end + 1;
  }
  return kept === start ? block : { bytes: bytes.subarray(0, kept), ends, headers };
};

/** The headers of one part of a line that is too long to leave whole: `linePart` counts them, the last one has `lineParts` too. */
export const partHeaders = (headers: Headers, part: number, last: boolean): Headers => {
  const linePart = String(part);
  return headersOf(last ? { ...headers, linePart, lineParts: linePart } : { ...headers, linePart });
};
