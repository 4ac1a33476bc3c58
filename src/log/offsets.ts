/**
 * How far sources have come, as frames keep it. See format.ts.
 *
 * @module
 */
import type { SourceOffset } from '../core/event.ts';

/** Sources that are remembered, at most; those that have moved last. */
const mostKeys = 4096;

/** Bytes of the offsets of one frame, at most. */
const mostBytes = 0xffff;

/** By key, the one that moved last at the end. */
export class Offsets extends Map<string, string> {
  /** The last one counts. */
  add({ key, value }: SourceOffset): void {
    this.delete(key);
    super.set(key, value);
    if (this.size > mostKeys) this.delete(this.keys().next().value as string);
  }

  /** What a frame says of them. */
  read(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const valueAt = at + 1 + bytes.readUInt8(at);
      const end = valueAt + 2 + bytes.readUInt16LE(valueAt);
      this.add({ key: bytes.toString('utf8', at + 1, valueAt), value: bytes.toString('utf8', valueAt + 2, end) });
      at = end;
    }
  }

  /** All of them, as many as there is room for beside `own`; those that moved last. */
  encode(own: Buffer): Buffer {
    const pieces: Buffer[] = [];
    let left = mostBytes - own.length;
    for (const [key, value] of [...this].reverse()) {
      const piece = encodeOffset({ key, value });
      if ((left -= piece.length) < 0) break;
      pieces.push(piece);
    }
    return Buffer.concat([...pieces.reverse(), own]);
  }
}

/** Nothing if it is too long to be kept. */
export const encodeOffset = (offset: SourceOffset | undefined): Buffer => {
  if (offset === undefined) return none;
  const [key, value] = [Buffer.from(offset.key), Buffer.from(offset.value)];
  if (key.length > 0xff || value.length > 0x1000) return none;
  const bytes = Buffer.allocUnsafe(3 + key.length + value.length);
  bytes.writeUInt8(key.length, 0);
  key.copy(bytes, 1);
  bytes.writeUInt16LE(value.length, 1 + key.length);
  value.copy(bytes, 3 + key.length);
  return bytes;
};

const none = Buffer.alloc(0);
