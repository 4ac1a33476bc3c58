/**
 * Reads a log from the front: everything that is safe and not done with, in order, once.
 *
 * @module
 */
import type { SegmentCodec } from './codec.ts';
import { isMissing, type Disk, type DiskFile } from '../core/disk.ts';
import { MillraceError, toError } from '../core/errors.ts';
import { Batch } from '../core/event.ts';
import type { EventLog, Place } from './log.ts';
import { decodePayload } from './payload.ts';
import { FrameReader, type Frame, type Segment } from './segment.ts';

export class LogReader {
  readonly #log: EventLog;
  readonly #disk: Disk;
  /** The number of the next event. */
  #seq: number;
  #segment: Segment | undefined;
  #file: DiskFile | undefined;
  #frames: FrameReader | undefined;
  #codec: SegmentCodec | undefined;
  /** Bytes of all events before `#seq`, since the log began. */
  #bytes: number;

  constructor(log: EventLog, disk: Disk) {
    this.#log = log;
    this.#disk = disk;
    const [first] = log.segments;
    this.#seq = first?.header.first ?? log.end;
    this.#bytes = first?.header.bytesBefore ?? 0;
  }

  /** The number of the next event that it would read. */
  get seq(): number {
    return this.#seq;
  }

  /** Goes on at this batch, which may be in the middle of its frame: what is before it was in memory. */
  async moveTo({ seq, bytesBefore, segment, offset, frame }: Place): Promise<void> {
    if (segment !== this.#segment) await this.#leave();
    this.#segment = segment;
    this.#seq = seq;
    this.#bytes = bytesBefore;
    this.#frames = undefined;
    await this.#enter(offset, frame);
  }

  /** The next batches, at least one if there is one, and no more than about `maxBytes`. Each has its position. */
  async read(maxBytes: number): Promise<Batch[]> {
    const batches: Batch[] = [];
    try {
      await this.#readInto(batches, maxBytes);
    } catch (thrown) {
      // What was read before is passed on first; the next call will meet it again.
      if (batches.length === 0) throw thrown;
    }
    return batches;
  }

  async #readInto(batches: Batch[], maxBytes: number): Promise<void> {
    for (let bytes = 0; bytes < maxBytes && this.#seq < this.#log.end;) {
      if (this.#segment === undefined || this.#seq >= this.#segment.end) {
        await this.#nextSegment();
        continue;
      }
      const frame = await this.#nextFrame(this.#segment);
      if (frame === undefined) continue;
      for (const batch of await this.#wanted(frame, this.#segment)) {
        bytes += batch.byteLength;
        batches.push(batch);
      }
    }
  }

  async close(): Promise<void> {
    await this.#leave();
  }

  /** The segment that the next event is in. Files may be gone, and with them their events. */
  async #nextSegment(): Promise<void> {
    const next = this.#log.segments.find(({ end }) => end > this.#seq);
    await this.#leave();
    if (next === undefined) {
      this.#lose(this.#log.end, 'there is no file that has them', this.#bytes);
      return;
    }
    if (next.header.first > this.#seq)
      this.#lose(next.header.first, 'there is no file that has them', next.header.bytesBefore);
    this.#segment = next;
    this.#bytes = next.header.bytesBefore;
    await this.#enter();
  }

  /** At its beginning, or at a frame in it that begins with event `first`. */
  async #enter(offset?: number, first?: number): Promise<void> {
    const segment = this.#segment as Segment;
    try {
      this.#file ??= await this.#disk.open(segment.path, 'read');
      this.#codec = this.#log.codecOf(segment);
      this.#frames = new FrameReader(this.#file, segment.header, offset, first);
    } catch (thrown) {
      // Looked for again from its beginning, if it is there.
      this.#segment = undefined;
      if (!isMissing(thrown)) throw thrown;
      segment.damaged = true;
      this.#lose(segment.end, toError(thrown).message, segment.bytesAfter);
    }
  }

  async #leave(): Promise<void> {
    const file = this.#file;
    this.#file = this.#segment = this.#frames = undefined;
    await file?.close();
  }

  async #nextFrame(segment: Segment): Promise<Frame | undefined> {
    const frames = this.#frames as FrameReader;
    // The last segment may be written to behind its end just now.
    const limit = segment === this.#log.segments.at(-1) ? segment.length : Infinity;
    const frame = await frames.next(limit);
    if (frame !== undefined) return frame;
    const { offset } = frames;
    const later = await frames.find(limit);
    const where = `${segment.path} can not be read from byte ${offset}`;
    const found = later !== undefined && later.header.seq < segment.end ? later : undefined;
    // How many bytes are missing is known only together with those of the frame that was found.
    const bytes = found === undefined ? segment.bytesAfter : found.header.bytesAfter - (await this.#bytesOf(found));
    const lost = this.#lose(
      found?.header.seq ?? segment.end,
      found === undefined ? where : `${where} to ${found.at}`,
      bytes,
    );
    // What was done with before, or set aside by a repair, is no damage.
    segment.damaged ||= lost;
    return later;
  }

  /** True if any of it was still wanted. */
  #lose(end: number, why: string, bytesBefore: number): boolean {
    if (end <= this.#seq) return false;
    const lost = this.#log.lose({ seq: this.#seq, bytesBefore: this.#bytes }, { seq: end, bytesBefore }, why);
    this.#seq = end;
    this.#bytes = bytesBefore;
    return lost;
  }

  /** What of a frame is not done with. */
  async #wanted(frame: Frame, segment: Segment): Promise<Batch[]> {
    const { seq, count, bytesAfter } = frame.header;
    const end = seq + count;
    const from = Math.max(seq, this.#seq);
    // It was read before, and is only passed on the way.
    if (end <= this.#seq) return [];
    let batch: Batch | undefined;
    try {
      if (this.#log.acked.skip(from) < end)
        batch = (await this.#decoded(frame)).placed([{ log: this.#log.life, first: seq, count }]);
    } catch (thrown) {
      // It may be read where there is what it needs.
      if (thrown instanceof MillraceError) throw thrown;
      // Its sum is right and its content is not: it was written so.
      segment.damaged = true;
      this.#lose(
        end,
        `${segment.path} has a batch at byte ${frame.at} that makes no sense: ${toError(thrown).message}`,
        bytesAfter,
      );
    }
    this.#seq = end;
    this.#bytes = bytesAfter;
    if (batch === undefined) return [];
    return this.#log.acked.heldIn(from, end).map(([start, stop]) => batch.slice(start - seq, stop - seq));
  }

  async #decoded({ header, payload }: Frame): Promise<Batch> {
    const bytes = (this.#codec as SegmentCodec).open(header, payload);
    return decodePayload(header.kind, header.count, bytes instanceof Promise ? await bytes : bytes);
  }

  /** None if it makes no sense: the next one is asked for. */
  async #bytesOf(frame: Frame): Promise<number> {
    try {
      return (await this.#decoded(frame)).byteLength;
    } catch {
      return 0;
    }
  }
}
