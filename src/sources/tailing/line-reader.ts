/**
 * Reads whole lines from files, one large piece at a time.
 *
 * @module
 */
import { MillraceError } from '../../core/errors.ts';
import { Batch, headers as makeHeaders, type Block, type FlumeEvent, type Headers } from '../../core/event.ts';
import { cutLines, partHeaders, withoutReturns } from '../../protocols/lines.ts';
import type { TailFile } from './tail-file.ts';

/**
 * Bytes per read; four of them are in memory at most. Half of it costs 12 % of the lines per second. Lines up to this
 * length are never cut.
 */
export const chunkSize = 512 * 1024;

const newline = 0x0a;

/** Lines of one file, read and not yet handed over. */
export class Chunk {
  readonly file: TailFile;
  /** The file had no more than this. */
  readonly last: boolean;
  /** Part of a line, or a last line: in the file there is no newline behind it. */
  readonly cut: boolean;
  readonly #headers: Headers;
  /** Whole lines, each with its newline. */
  #bytes: Buffer;
  #offset: number;

  constructor(file: TailFile, bytes: Buffer, offset: number, last: boolean, headers = file.headers, cut = false) {
    this.file = file;
    this.last = last;
    this.#bytes = bytes;
    this.#offset = offset;
    this.#headers = headers;
    this.cut = cut;
  }

  get empty(): boolean {
    return this.#bytes.length === 0;
  }

  /** How many lines it has. */
  get lines(): number {
    return cutLines(this.#bytes, this.#headers)?.ends.length ?? 0;
  }

  /** Where in the file the rest of it begins. */
  get offset(): number {
    return this.#offset;
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
    const block = cutLines(this.#bytes, this.#headers, count) as Block;
    const { length } = block.bytes;
    this.#bytes = this.#bytes.subarray(length);
    this.#offset += this.cut ? length - 1 : length;
    return block;
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
  #buffer = Buffer.allocUnsafeSlow(chunkSize);
  /** Bytes at the front of the buffer that are the file's from `position` on: the start of a line. */
  #filled = 0;
  #ahead: Promise<number> | undefined;

  constructor(maxLineLength: number) {
    this.#maxLineLength = maxLineLength;
  }

  /** What was read of another file, or of this one at another time, does not count any more. */
  async begin(): Promise<void> {
    await this.#ahead?.catch(() => 0);
    this.#ahead = undefined;
    this.#filled = 0;
  }

  /** The next whole lines, at most `maxLines` of them; undefined if there are none now. The file is open. */
  async next(file: TailFile, maxLines = Infinity): Promise<Chunk | undefined> {
    if (file.parts > 0 || file.seen - file.position >= chunkSize) return this.#longLine(file);
    const wanted = chunkSize - this.#filled;
    const read = await (this.#ahead ?? this.#read(file));
    this.#ahead = undefined;
    const filled = this.#filled + read;
    const all = filled === 0 ? 0 : this.#buffer.lastIndexOf(newline, filled - 1) + 1;
    const end = maxLines === Infinity ? all : this.#endOfLines(maxLines, all);
    const offset = file.position;
    file.position += end;
    file.seen = end === all ? offset + filled : file.position;
    this.#filled = filled - end;
    if (end === 0) return filled === chunkSize ? this.#longLine(file) : undefined;
    const bytes = this.#handOver(end, filled);
    const last = read < wanted && end === all;
    if (!last && maxLines === Infinity) {
      this.#ahead = this.#read(file);
      this.#ahead.catch(() => undefined);
    }
    return new Chunk(file, bytes, offset, last);
  }

  /** What there is of a line that has no end, as if it had one; undefined if there is nothing. */
  async rest(file: TailFile): Promise<Chunk | undefined> {
    this.#filled = 0;
    const length = file.seen - file.position;
    return length === 0 ? undefined : this.#exactly(file, length, 'rest');
  }

  async #read(file: TailFile): Promise<number> {
    const at = this.#filled;
    const { bytesRead } = await opened(file).read(this.#buffer, at, chunkSize - at, file.position + at);
    return bytesRead;
  }

  /** A large piece leaves with its buffer, a small one as a copy: it may be kept for long, and would keep the whole buffer. */
  #handOver(end: number, filled: number): Buffer {
    const buffer = this.#buffer;
    if (end < chunkSize / 2) {
      const bytes = Buffer.from(buffer.subarray(0, end));
      buffer.copyWithin(0, end, filled);
      return bytes;
    }
    this.#buffer = Buffer.allocUnsafeSlow(chunkSize);
    buffer.copy(this.#buffer, 0, end, filled);
    return buffer.subarray(0, end);
  }

  #endOfLines(count: number, limit: number): number {
    let end = 0;
    for (let i = 0; i < count && end < limit; i++) end = this.#buffer.indexOf(newline, end) + 1;
    return end;
  }

  /** A line that is longer than a chunk: its end is looked for before it is read, so that nothing is read twice while it grows. */
  async #longLine(file: TailFile): Promise<Chunk | undefined> {
    this.#filled = 0;
    while (file.seen - file.position < this.#maxLineLength) {
      const { bytesRead } = await opened(file).read(this.#buffer, 0, chunkSize, file.seen);
      if (bytesRead === 0) return undefined;
      const end = this.#buffer.subarray(0, bytesRead).indexOf(newline);
      if (end >= 0) return this.#exactly(file, file.seen + end + 1 - file.position, 'line');
      file.seen += bytesRead;
    }
    return this.#exactly(file, this.#maxLineLength, 'part');
  }

  async #exactly(file: TailFile, length: number, what: 'line' | 'part' | 'rest'): Promise<Chunk | undefined> {
    const cut = what !== 'line';
    const bytes = Buffer.allocUnsafeSlow(cut ? length + 1 : length);
    const offset = file.position;
    for (let filled = 0; filled < length;) {
      const { bytesRead } = await opened(file).read(bytes, filled, length - filled, offset + filled);
      // It was truncated just now.
      if (bytesRead === 0) return undefined;
      filled += bytesRead;
    }
    if (cut) bytes[length] = newline;
    file.position += length;
    file.seen = Math.max(file.seen, file.position);
    return new Chunk(file, bytes, offset, false, headersOf(file, what !== 'part'), cut);
  }
}

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
