/**
 * Reads whole lines from files, one large piece at a time.
 *
 * @module
 */
import { MillraceError } from '../../core/errors.ts';
import { Batch, headers as makeHeaders, type Block, type FlumeEvent, type Headers } from '../../core/event.ts';
import { cutLines, partHeaders, withoutReturns } from '../../protocols/lines.ts';
import { endOf, noBytes } from './fingerprint.ts';
import type { Multiline } from './multiline.ts';
import type { Progress, Sent } from './progress.ts';
import type { TailFile } from './tail-file.ts';

/**
 * Bytes per read; four of them are in memory at most. Half of it costs 12 % of the lines per second. Lines up to this
 * length are never cut.
 */
export const chunkSize = 512 * 1024;

const newline = 0x0a;

/** The bytes before those that were to be read are not the ones that were there. */
export type Rewritten = 'rewritten';

/** Lines of one file, read and not yet handed over. */
export class Chunk {
  readonly file: TailFile;
  /** The file had no more than this. */
  readonly last: boolean;
  /** Part of a line, or a last line: in the file there is no newline behind it. */
  readonly cut: boolean;
  readonly #progress: Progress;
  readonly #headers: Headers;
  /** Whole lines, each with its newline. */
  #bytes: Buffer;
  /** Where in the file they begin, and what stands before them. */
  #offset: number;
  #before: Buffer;
  /** Where events end, if they are not lines; and how many of them, and of the bytes, were taken. */
  readonly #ends: Uint32Array | undefined;
  #taken = 0;
  #takenBytes = 0;

  /** What was just read: the file is not moved on yet. */
  constructor(file: TailFile, bytes: Buffer, last: boolean, headers = file.headers, cut = false, ends?: Uint32Array) {
    this.file = file;
    this.#ends = ends;
    this.last = last;
    this.#progress = file.progress;
    this.#bytes = bytes;
    this.#offset = file.position;
    this.#before = file.before ?? noBytes;
    this.#headers = headers;
    this.cut = cut;
  }

  get empty(): boolean {
    return this.#bytes.length === 0;
  }

  /** How many events it has. */
  get length(): number {
    return this.#ends?.length ?? cutLines(this.#bytes, this.#headers)?.ends.length ?? 0;
  }

  /** Notes that what was taken is on its way. */
  send(): Sent {
    return this.#progress.send(this.#offset, this.#before);
  }

  /** Takes up to `count` lines off its front. */
  take(count: number): Batch {
    return Batch.ofBlock(this.#bodies(this.#cut(count)));
  }

  /** As `take`, with the offset of each line's first byte as a header. */
  takeWithOffsets(count: number, header: string): Batch {
    const start = this.#offset;
    const block = this.#cut(count);
    // Before returns are taken off, which moves the lines.
    const offsets = Array.from(block.ends, (_, i) => start + (i === 0 ? 0 : (block.ends[i - 1] as number) + 1));
    const { events } = Batch.ofBlock(this.#bodies(block));
    return Batch.of(
      events.map(({ headers, body }, i): FlumeEvent => ({
        headers: makeHeaders({ ...headers, [header]: String(offsets[i]) }),
        body,
      })),
    );
  }

  #cut(count: number): Block {
    const block = this.#ends === undefined ? (cutLines(this.#bytes, this.#headers, count) as Block) : this.#next(count);
    const length = this.cut ? block.bytes.length - 1 : block.bytes.length;
    this.#bytes = this.#bytes.subarray(block.bytes.length);
    this.#offset += length;
    // Now, as returns are taken off in place.
    this.#before = endOf(this.#before, block.bytes.subarray(0, length));
    return block;
  }

  #next(count: number): Block {
    const ends = (this.#ends as Uint32Array).slice(this.#taken, this.#taken + count);
    for (let i = 0; i < ends.length; i++) ends[i] = (ends[i] as number) - this.#takenBytes;
    const bytes = this.#bytes.subarray(0, (ends.at(-1) as number) + 1);
    this.#taken += ends.length;
    this.#takenBytes += bytes.length;
    return { bytes, ends, headers: this.#headers };
  }

  #bodies(block: Block): Block {
    return this.cut ? block : withoutReturns(block);
  }
}

/**
 * Reads the file it was pointed at with {@link begin}, chunk by chunk. While a chunk is on its way the next one is read
 * already. Offsets are the file's own (`position`, `seen`), so that reading can go on later, or with another reader.
 */
export class LineReader {
  readonly #maxLineLength: number;
  readonly #multiline: Multiline | undefined;
  /** How long a line with a NUL is not taken, and what time it is; undefined: it is taken at once. */
  readonly #nul: { readonly timeout: number; readonly now: () => number } | undefined;
  #buffer = Buffer.allocUnsafeSlow(chunkSize);
  /** Bytes at the front of the buffer that are the file's from `position` on: the start of a line. */
  #filled = 0;
  #ahead: Promise<number> | undefined;

  constructor(
    maxLineLength: number,
    multiline?: Multiline,
    nul?: { readonly timeout: number; readonly now: () => number },
  ) {
    this.#maxLineLength = maxLineLength;
    this.#multiline = multiline;
    this.#nul = nul;
  }

  /** What was read of another file, or of this one at another time, does not count any more. */
  async begin(): Promise<void> {
    await this.#ahead?.catch(() => 0);
    this.#ahead = undefined;
    this.#filled = 0;
  }

  /** The next whole events, at most `most` of them; undefined if there are none now. The file is open. */
  async next(file: TailFile, most = Infinity): Promise<Chunk | Rewritten | undefined> {
    if (file.parts > 0 || file.seen - file.position >= chunkSize) return this.#longLine(file);
    const wanted = chunkSize - this.#filled;
    const read = await (this.#ahead ?? this.#read(file));
    this.#ahead = undefined;
    if (read < 0) return 'rewritten';
    const filled = this.#filled + read;
    const good = this.#nul === undefined ? filled : this.#upToNul(file, filled);
    const held = good < filled;
    const all = good === 0 ? 0 : this.#buffer.lastIndexOf(newline, good - 1) + 1;
    let end = most === Infinity ? all : this.#endOfLines(most, all);
    let ends: Uint32Array | undefined;
    if (this.#multiline !== undefined && all > 0) {
      const lines = this.#buffer.subarray(0, all);
      ends = this.#multiline.ends(lines, most, file.quiet && file.position + filled <= file.seen);
      // What comes next is so long that it is an event of its own.
      if (ends.length === 0 && filled === chunkSize && !held) ends = this.#multiline.ends(lines, most, true);
      end = ends.length === 0 ? 0 : (ends.at(-1) as number) + 1;
    }
    if (end === 0 && held) {
      // It is read anew.
      this.#filled = 0;
      file.seen = file.position;
      return undefined;
    }
    if (end === 0) {
      file.seen = file.position + filled;
      this.#filled = filled;
      return filled === chunkSize ? this.#longLine(file) : undefined;
    }
    const last = (read < wanted || held) && (end === all || (ends !== undefined && ends.length < most));
    const bytes = this.#handOver(end, filled);
    const chunk = new Chunk(file, bytes, last, file.headers, false, ends);
    file.moveOn(bytes);
    if (held) this.#filled = 0;
    file.seen = last || end === all ? file.position + this.#filled : file.position;
    if (!last && most === Infinity) {
      this.#ahead = this.#read(file);
      this.#ahead.catch(() => undefined);
    }
    return chunk;
  }

  /** How much of what was read counts: all of it, or what is before a NUL that has not been there for long. */
  #upToNul(file: TailFile, filled: number): number {
    const { timeout, now } = this.#nul as { timeout: number; now: () => number };
    const { position, nul } = file;
    const known = nul !== undefined && now() - nul.since >= timeout ? nul.until - position : 0;
    const found = this.#buffer.subarray(0, filled).indexOf(0, Math.max(0, known));
    const at = position + found;
    if (found < 0) {
      if (nul !== undefined) nul.held = false;
      return filled;
    }
    // Of everything that is there now it will be known then how long it has been.
    if (nul === undefined || at >= nul.until)
      file.nul = { since: now(), until: Math.max(file.size, position + filled), held: true };
    else nul.held = true;
    return found;
  }

  /** What there is of a line that has no end, as if it had one; undefined if there is nothing. */
  async rest(file: TailFile): Promise<Chunk | Rewritten | undefined> {
    this.#filled = 0;
    const length = file.seen - file.position;
    return length === 0 ? undefined : this.#exactly(file, length, 'rest');
  }

  #read(file: TailFile): Promise<number> {
    const at = this.#filled;
    const before = endOf(file.before ?? noBytes, this.#buffer.subarray(0, at));
    return readBehind(file, before, this.#buffer.subarray(at), file.position + at);
  }

  /**
   * Takes the first `end` of `filled` bytes. A large piece leaves with its buffer, a small one as a copy: it may be kept for
   * long, and would keep the whole buffer.
   */
  #handOver(end: number, filled: number): Buffer {
    const buffer = this.#buffer;
    let bytes = buffer.subarray(0, end);
    if (end < chunkSize / 2) {
      bytes = Buffer.from(bytes);
      buffer.copyWithin(0, end, filled);
    } else {
      this.#buffer = Buffer.allocUnsafeSlow(chunkSize);
      buffer.copy(this.#buffer, 0, end, filled);
    }
    this.#filled = filled - end;
    return bytes;
  }

  #endOfLines(count: number, limit: number): number {
    let end = 0;
    for (let i = 0; i < count && end < limit; i++) end = this.#buffer.indexOf(newline, end) + 1;
    return end;
  }

  /** A line that is longer than a chunk: its end is looked for before it is read, so that nothing is read twice while it grows. */
  async #longLine(file: TailFile): Promise<Chunk | Rewritten | undefined> {
    this.#filled = 0;
    while (file.seen - file.position < this.#maxLineLength) {
      const { bytesRead } = await opened(file).read(this.#buffer, 0, chunkSize, file.seen);
      if (bytesRead === 0) {
        const { size } = await opened(file).stat();
        if (size < file.seen) file.seen = file.position;
        return size < file.position + chunkSize && file.parts === 0 ? this.next(file) : undefined;
      }
      const end = this.#buffer.subarray(0, bytesRead).indexOf(newline);
      if (end >= 0) return this.#exactly(file, file.seen + end + 1 - file.position, 'line');
      file.seen += bytesRead;
    }
    return this.#exactly(file, this.#maxLineLength, 'part');
  }

  async #exactly(
    file: TailFile,
    length: number,
    what: 'line' | 'part' | 'rest',
  ): Promise<Chunk | Rewritten | undefined> {
    const cut = what !== 'line';
    const bytes = Buffer.allocUnsafeSlow(cut ? length + 1 : length);
    let before = file.before ?? noBytes;
    for (let filled = 0; filled < length;) {
      const read = await readBehind(file, before, bytes.subarray(filled, length), file.position + filled);
      if (read < 0) return 'rewritten';
      // It was truncated just now.
      if (read === 0) return undefined;
      before = endOf(before, bytes.subarray(filled, filled + read));
      filled += read;
    }
    if (cut) bytes[length] = newline;
    const chunk = new Chunk(file, bytes, false, headersOf(file, what !== 'part'), cut);
    file.moveOn(bytes.subarray(0, length));
    file.seen = Math.max(file.seen, file.position);
    return chunk;
  }
}

/**
 * Reads at an offset, together with the bytes before it: what is read is what follows them, or -1. Truncating a file
 * and filling it again cannot come in between.
 */
const readBehind = async (file: TailFile, before: Buffer, bytes: Buffer, offset: number): Promise<number> => {
  if (before.length === 0) return (await opened(file).read(bytes, 0, bytes.length, offset)).bytesRead;
  const found = Buffer.allocUnsafe(before.length);
  const { bytesRead } = await opened(file).readv([found, bytes], offset - before.length);
  return bytesRead >= before.length && found.equals(before) ? bytesRead - before.length : -1;
};

/** Of a line, or of the part of one that was just read. */
const headersOf = (file: TailFile, last: boolean): Headers => {
  if (file.parts === 0 && last) return file.headers;
  const part = ++file.parts;
  if (last) file.parts = 0;
  return partHeaders(file.headers, part, last);
};

const opened = ({ handle, path }: TailFile) => {
  if (handle === undefined) throw new MillraceError('MR_IO', `${path} is not open.`);
  return handle;
};
