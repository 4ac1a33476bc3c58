/**
 * A segment on the disk, and reading its frames.
 *
 * @module
 */
import type { DiskFile } from '../core/disk.ts';
import {
  decodeFrameHeader,
  flag,
  frameHeaderSize,
  frameSize,
  headerSize,
  isSound,
  type FrameHeader,
  type SegmentHeader,
} from './format.ts';

export interface Segment {
  readonly directory: string;
  readonly path: string;
  readonly header: SegmentHeader;
  /** The number behind its last event. */
  end: number;
  /** Bytes of all events before `end`, since the log began. */
  bytesAfter: number;
  /** Length of its header and frames on the disk, where that is known; what is behind is not looked at. */
  length: number;
  /** Something in it cannot be read: the file is kept when it is done with. */
  damaged: boolean;
}

/** A segment without a frame. */
export const begun = (directory: string, path: string, header: SegmentHeader): Segment => ({
  directory,
  path,
  header,
  end: header.first,
  bytesAfter: header.bytesBefore,
  length: headerSize,
  damaged: false,
});

/**
 * Whether this may have been the header of the frame behind a segment's end: damage to one field leaves the others. What the file
 * had in its former life has lower numbers.
 */
export const isNextOf = ({ end, bytesAfter }: Segment, header: FrameHeader): boolean =>
  (header.seq === end && header.count > 0) ||
  (header.bytesAfter > bytesAfter && header.bytesAfter - bytesAfter < 2 ** 32);

/** A frame as it was read: its bytes are a view on the read. */
export interface Frame {
  readonly header: FrameHeader;
  /** Where in its file it begins. */
  readonly at: number;
  readonly payload: Buffer;
  readonly offsets: Buffer;
}

export const segmentName = (first: number): string => `${String(first).padStart(20, '0')}.seg`;

/** The first sequence number in a file name; undefined if it is no segment's. */
export const firstOf = (name: string): number | undefined =>
  /^\d{20}\.seg$/.test(name) ? Number(name.slice(0, 20)) : undefined;

/** Bytes per read. */
const readSize = 1024 * 1024;

/** Reads the frames of one segment, one behind the other. */
export class FrameReader {
  /** Where the next frame begins. */
  offset: number;
  /** The number of its first event. */
  seq: number;
  /** The group that it belongs to, or a later one. */
  group = 1;
  readonly #file: DiskFile;
  readonly #header: SegmentHeader;
  #window = Buffer.alloc(0);
  #windowAt = 0;

  constructor(file: DiskFile, header: SegmentHeader, offset = headerSize, seq = header.first) {
    this.#file = file;
    this.#header = header;
    this.offset = offset;
    this.seq = seq;
  }

  /** The next frame, if a sound one is there; bytes from `limit` on are not looked at. */
  async next(limit = Infinity): Promise<Frame | undefined> {
    const header = await this.#headerAt(this.offset, limit);
    if (header?.seq !== this.seq) return undefined;
    const frame = await this.#frame(header, this.offset, limit);
    if (frame !== undefined) this.#pass(frame);
    return frame;
  }

  /**
   * Looks for the first sound frame behind what cannot be read, and goes on behind it. Frames of the file's former life have
   * lower numbers, and another salt.
   */
  async find(limit = Infinity): Promise<Frame | undefined> {
    for (let at = this.offset + 8; ; at += 8) {
      if (
        at >= this.#windowAt + this.#window.length - frameHeaderSize &&
        !(await this.#fill(at, frameHeaderSize, limit))
      )
        return undefined;
      const local = at - this.#windowAt;
      // Most places are refused by this look; a header is made of the others only.
      if (this.#window.readUInt32LE(local + 20) > 0x1fffff) continue;
      const header = decodeFrameHeader(this.#window, local);
      if (header.seq <= this.seq || header.count === 0 || header.group < this.group) continue;
      const frame = await this.#frame(header, at, limit);
      if (frame === undefined) continue;
      this.#pass(frame);
      return frame;
    }
  }

  #pass({ header, at }: Frame): void {
    this.offset = at + frameSize(header.length);
    this.seq = header.seq + header.count;
    this.group = header.group + ((header.flags & flag.lastOfGroup) === 0 ? 0 : 1);
  }

  async #headerAt(at: number, limit: number): Promise<FrameHeader | undefined> {
    if (!(await this.#fill(at, frameHeaderSize, limit))) return undefined;
    return decodeFrameHeader(this.#window, at - this.#windowAt);
  }

  async #frame(header: FrameHeader, at: number, limit: number): Promise<Frame | undefined> {
    if (
      header.count === 0 ||
      header.offsets > header.length ||
      !(await this.#fill(at, frameHeaderSize + header.length, limit))
    )
      return undefined;
    const local = at - this.#windowAt;
    if (!isSound(this.#window, local, header, this.#header.salt)) return undefined;
    const start = local + frameHeaderSize;
    const content = this.#window.subarray(start, start + header.length);
    const end = header.length - header.offsets;
    return { header, at, payload: content.subarray(0, end), offsets: content.subarray(end) };
  }

  /** Sees to it that the window has `size` bytes from `at` on; false if the file does not. */
  async #fill(at: number, size: number, limit: number): Promise<boolean> {
    if (at >= this.#windowAt && at + size <= this.#windowAt + this.#window.length) return true;
    if (at + size > limit || (size > readSize && at + size > (await this.#file.size()))) return false;
    const window = Buffer.allocUnsafeSlow(Math.max(size, Math.min(readSize, limit - at)));
    const filled = await this.#file.read(window, at);
    if (filled < size) return false;
    this.#window = window.subarray(0, filled);
    this.#windowAt = at;
    return true;
  }
}
