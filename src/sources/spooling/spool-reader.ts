/**
 * Reads a file that does not change, from where it was left to its end.
 *
 * @module
 */
import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { Batch, type Headers } from '../../core/event.ts';
import { cutLines, partHeaders } from '../../protocols/lines.ts';
import type { Charset } from './charset.ts';
import { lookOf, sameLook, type Mark, type SpoolFile } from './spool-file.ts';

/** Bytes per read. */
export const chunkSize = 512 * 1024;

/** How bytes become events. */
export interface Format {
  readonly charset: Charset;
  /** Longer lines leave in parts. */
  readonly maxLength: number;
}

/** The file is not what it was when it was opened. */
export class Changed extends Error {}

/** Bytes that are no text in the given encoding. */
export class NoText extends Error {
  readonly offset: number;

  constructor(offset: number) {
    super(`no text at byte ${offset}`);
    this.offset = offset;
  }
}

/** Events of one file, read and not handed over yet. */
export interface Piece {
  readonly file: SpoolFile;
  readonly empty: boolean;
  /** Part of a line that is too long. */
  readonly cut: boolean;
  /** Takes up to `count` of them off its front, with the place in the file behind them. */
  take(count: number): { readonly batch: Batch; readonly mark: Mark };
}

/** Whole lines. */
class Lines implements Piece {
  readonly file: SpoolFile;
  readonly cut = false;
  readonly #charset: Charset;
  /** As in the file. */
  #bytes: Buffer;
  /** As they leave; mostly the same. */
  #text: Buffer;

  constructor(file: SpoolFile, charset: Charset, bytes: Buffer, text: Buffer) {
    this.file = file;
    this.#charset = charset;
    this.#bytes = bytes;
    this.#text = text;
  }

  get empty(): boolean {
    return this.#text.length === 0;
  }

  take(count: number): { batch: Batch; mark: Mark } {
    const block = cutLines(this.#text, this.file.headers, count);
    if (block === undefined) throw new RangeError('there are no lines left');
    const length = this.#bytes === this.#text ? block.bytes.length : this.#endOf(block.ends.length);
    const { offset, crc } = this.file.mark;
    const mark = { offset: offset + length, parts: 0, crc: crc32(this.#bytes.subarray(0, length), crc) };
    const same = this.#bytes === this.#text;
    this.#text = this.#text.subarray(block.bytes.length);
    this.#bytes = same ? this.#text : this.#bytes.subarray(length);
    return { batch: Batch.ofBlock(block), mark };
  }

  /** Decoding neither makes nor removes line ends. */
  #endOf(lines: number): number {
    let end = 0;
    for (let i = 0; i < lines; i++) end = this.#charset.lineEnd(this.#bytes, end);
    return end;
  }
}

/** One event that is not a whole line: a part of one, a last line that nothing ends, all of a file. */
class Single implements Piece {
  readonly file: SpoolFile;
  readonly #bytes: Buffer;
  readonly #body: Buffer;
  readonly #headers: Headers;
  /** Parts that have left behind it. */
  readonly #parts: number;
  empty = false;

  constructor(file: SpoolFile, bytes: Buffer, body: Buffer, headers: Headers, parts: number) {
    this.file = file;
    this.#bytes = bytes;
    this.#body = body;
    this.#headers = headers;
    this.#parts = parts;
  }

  get cut(): boolean {
    return this.#parts > 0;
  }

  take(): { batch: Batch; mark: Mark } {
    this.empty = true;
    const { offset, crc } = this.file.mark;
    const mark = { offset: offset + this.#bytes.length, parts: this.#parts, crc: crc32(this.#bytes, crc) };
    return { batch: Batch.of([{ headers: this.#headers, body: this.#body }]), mark };
  }
}

export class SpoolReader {
  readonly #handle: FileHandle;
  readonly #file: SpoolFile;
  readonly #format: Format;
  /** Read, and not part of a piece yet. */
  #rest: Buffer = Buffer.alloc(0);
  /** The offset behind `rest`. */
  #at: number;
  #parts: number;
  /** An empty file is one empty event. */
  #void: boolean;

  constructor(handle: FileHandle, file: SpoolFile, format: Format) {
    this.#handle = handle;
    this.#file = file;
    this.#format = format;
    this.#at = file.mark.offset;
    this.#parts = file.mark.parts;
    this.#void = file.fresh && file.look.size === 0;
  }

  /**
   * The next events; undefined when there are no more and the file is unchanged. Throws {@link Changed} if it is not, and
   * {@link NoText} when everything before that text has been returned.
   */
  async next(): Promise<Piece | undefined> {
    const { charset, maxLength } = this.#format;
    for (;;) {
      const rest = this.#rest;
      const end = charset.lastLineEnd(rest);
      if (end > 0) return this.#lines(end);
      if (rest.length > maxLength) return this.#part();
      if (this.#at === this.#file.look.size) return this.#last();
      await this.#fill();
    }
  }

  async #fill(): Promise<void> {
    const rest = this.#rest;
    // A line without end would be copied again and again if the buffer did not double.
    const wanted = Math.min(this.#file.look.size - this.#at, Math.max(chunkSize, rest.length));
    const buffer = Buffer.allocUnsafeSlow(rest.length + wanted);
    rest.copy(buffer);
    const { bytesRead } = await this.#handle.read(buffer, rest.length, wanted, this.#at);
    if (bytesRead === 0) throw new Changed('it was truncated');
    this.#at += bytesRead;
    this.#rest = buffer.subarray(0, rest.length + bytesRead);
  }

  #lines(end: number): Piece {
    const { charset, maxLength } = this.#format;
    if (this.#parts > 0) return this.#lineOfParts();
    let bytes = this.#rest.subarray(0, end);
    if (end > maxLength) {
      const short = this.#shortLines(bytes, maxLength);
      if (short === 0) return this.#part();
      bytes = bytes.subarray(0, short);
    }
    let text = charset.toUtf8(bytes);
    if (text === undefined) {
      bytes = bytes.subarray(0, this.#goodLines(bytes));
      text = charset.toUtf8(bytes);
      if (text === undefined || bytes.length === 0) throw new NoText(this.#at - this.#rest.length);
    }
    this.#rest = this.#rest.subarray(bytes.length);
    return new Lines(this.#file, charset, bytes, text);
  }

  /** Where the first line begins that is longer than `max`. */
  #shortLines(bytes: Buffer, max: number): number {
    const { charset } = this.#format;
    for (let from = 0; ;) {
      const end = charset.lineEnd(bytes, from);
      if (end === 0 || end - from - charset.newline > max) return from;
      from = end;
    }
  }

  /** Where the first line begins that is no text. */
  #goodLines(bytes: Buffer): number {
    const { charset } = this.#format;
    for (let from = 0; ;) {
      const end = charset.lineEnd(bytes, from);
      if (end === 0 || charset.toUtf8(bytes.subarray(from, end)) === undefined) return from;
      from = end;
    }
  }

  /** What is still to come of a line whose first parts have left. */
  #lineOfParts(): Piece {
    const { charset, maxLength } = this.#format;
    const end = charset.lineEnd(this.#rest, 0);
    if (end - charset.newline > maxLength) return this.#part();
    return this.#single(end, end - charset.newline, true);
  }

  #part(): Piece {
    const { charset, maxLength } = this.#format;
    const end = charset.head(this.#rest, maxLength);
    return this.#single(end, end, false);
  }

  /** There is nothing more to read: a last line that nothing ends, or nothing. */
  async #last(): Promise<Piece | undefined> {
    const look = lookOf(await this.#handle.stat({ bigint: true }));
    if (!sameLook(look, this.#file.look)) throw new Changed('it was written to');
    const { length } = this.#rest;
    if (length === 0 && !this.#void) return undefined;
    this.#void = false;
    return this.#single(length, length, true);
  }

  #single(length: number, textLength: number, last: boolean): Piece {
    const bytes = this.#rest.subarray(0, length);
    const body = this.#format.charset.toUtf8(bytes.subarray(0, textLength));
    if (body === undefined) throw new NoText(this.#at - this.#rest.length);
    this.#rest = this.#rest.subarray(length);
    const part = this.#parts + 1;
    const whole = last && this.#parts === 0;
    this.#parts = last ? 0 : part;
    const { headers } = this.#file;
    return new Single(this.#file, bytes, body, whole ? headers : partHeaders(headers, part, last), this.#parts);
  }
}
