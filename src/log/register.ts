/**
 * A small value in a file that is replaced again and again: two slots of 4 KiB, of which one is always whole.
 *
 *      0  8  "MILLSLOT"
 *      8  2  version, 1
 *     10  2  0
 *     12  4  CRC of everything in the slot, with these four bytes 0
 *     16  8  generation: of two whole slots the one with the higher counts
 *     24  4  length of the value
 *     28     the value
 *
 * Values go to one slot, over and over, and are safe from the end of the process. {@link Register.sync} makes the last one
 * safe from a power cut; only then the other slot is written to. So whatever a power cut does to a slot that was
 * being written, the value of the last sync is in the other.
 *
 * @module
 */
import { crc32 } from 'node:zlib';
import type { Disk, DiskFile } from '../core/disk.ts';
import { getNumber, newer, putNumber } from './format.ts';

const slotSize = 4096;
const valueAt = 28;
const magic = Buffer.from('MILLSLOT');
const version = 1;

/** The longest value, in bytes. */
export const longestValue = slotSize - valueAt;

export class Register {
  /** What was found when it was opened; undefined if there was nothing, or nothing whole. */
  readonly found: Buffer | undefined;
  /** Slots with something in them that is damaged. Both: the value is gone. */
  readonly damaged: number;
  readonly #file: DiskFile;
  readonly #value: () => Buffer;
  #generation: number;
  /** The slot that is written to. */
  #slot: number;
  /** One thing at a time: a slot must not change while it is being synced. */
  #turn: Promise<void> = Promise.resolve();
  /** A write that has not begun yet: whoever asks for one now waits for it. */
  #queued: Promise<void> | undefined;

  private constructor(file: DiskFile, { slots, newest, damaged }: Slots, value: () => Buffer) {
    this.#file = file;
    this.#value = value;
    this.found = slots[newest]?.value;
    this.damaged = damaged;
    this.#generation = slots[newest]?.generation ?? 0;
    this.#slot = 1 - newest;
  }

  /** Opens it, or makes it; `value` is asked for what to write. */
  static async open(disk: Disk, path: string, value: () => Buffer): Promise<Register> {
    const file = await disk.open(path, 'write');
    try {
      return new Register(file, await readSlots(file), value);
    } catch (thrown) {
      await file.close();
      throw thrown;
    }
  }

  /** Writes the value as it is when it is its turn. */
  write(): Promise<void> {
    return (this.#queued ??= this.#inTurn(() => {
      this.#queued = undefined;
      return this.#put();
    }));
  }

  /** Makes the value safe. After a failure the next one writes it anew: a second sync alone would prove nothing. */
  sync(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#put();
      // Without it a power cut could find both slots half written, and no value at all.
      await this.#file.sync();
      this.#slot = 1 - this.#slot;
    });
  }

  async close(): Promise<void> {
    await this.#turn;
    await this.#file.close();
  }

  #put(): Promise<void> {
    return this.#file.write([encode(++this.#generation, this.#value())], this.#slot * slotSize);
  }

  #inTurn(act: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(act);
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

export interface Slot {
  readonly generation: number;
  readonly value: Buffer;
}

export interface Slots {
  /** Both; undefined where there is nothing whole. */
  readonly slots: readonly (Slot | undefined)[];
  /** Which of them counts. */
  readonly newest: 0 | 1;
  /** How many of them are damaged. */
  readonly damaged: number;
}

export const readSlots = async (file: DiskFile): Promise<Slots> => {
  const bytes = Buffer.alloc(2 * slotSize);
  await file.read(bytes, 0);
  const halves = [bytes.subarray(0, slotSize), bytes.subarray(slotSize)];
  const slots = halves.map(half => decode(half, file.path));
  const used = halves.map(half => half.some(byte => byte !== 0));
  const broken = slots.filter((slot, i) => slot === undefined && used[i] === true).length;
  // The second one is written first: when it has nothing, and the first has, it was cut off.
  const cut = used[0] === true && used[1] !== true ? 1 : 0;
  const [a, b] = slots;
  const newest = (a?.generation ?? 0) >= (b?.generation ?? 0) ? 0 : 1;
  return { slots, newest, damaged: broken + cut };
};

const encode = (generation: number, value: Buffer): Buffer => {
  if (value.length > longestValue) throw new RangeError(`${value.length} bytes are too many for a slot`);
  // Only the sectors that have something: what is behind them does not count.
  const bytes = Buffer.alloc(Math.ceil((valueAt + value.length) / 512) * 512);
  magic.copy(bytes);
  bytes.writeUInt16LE(version, 8);
  putNumber(bytes, generation, 16);
  bytes.writeUInt32LE(value.length, 24);
  value.copy(bytes, valueAt);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, valueAt + value.length)), 12);
  return bytes;
};

const decode = (bytes: Buffer, path: string): Slot | undefined => {
  const length = bytes.readUInt32LE(24);
  if (!bytes.subarray(0, 8).equals(magic) || length > longestValue) return undefined;
  const copy = Buffer.from(bytes.subarray(0, valueAt + length));
  copy.writeUInt32LE(0, 12);
  if (crc32(copy) !== bytes.readUInt32LE(12)) return undefined;
  if (bytes.readUInt16LE(8) !== version) throw newer(path, bytes.readUInt16LE(8));
  return { generation: getNumber(bytes, 16), value: copy.subarray(valueAt) };
};
