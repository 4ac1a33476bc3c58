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
  const { key, value } = offset;
  const [keyLength, valueLength] = [Buffer.byteLength(key), Buffer.byteLength(value)];
  if (keyLength > 0xff || valueLength > 0x1000) return none;
  const bytes = Buffer.allocUnsafe(3 + keyLength + valueLength);
  bytes.writeUInt8(keyLength, 0);
  bytes.write(key, 1);
  bytes.writeUInt16LE(valueLength, 1 + keyLength);
  bytes.write(value, 3 + keyLength);
  return bytes;
};

const none = Buffer.alloc(0);
