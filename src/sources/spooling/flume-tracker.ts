/**
 * Flume's own tracker file, `.flumespool-main.meta`: how far it has read the file that it had begun last.
 *
 * An Avro object container, as the Avro specification describes it: a header with metadata, of which `file` is the path; then
 * blocks of records `{ offset: long }`, one for each batch, of which the last one counts. The schema and the key were
 * observed in Flume 1.11. Nothing is ever written to it.
 *
 * @module
 */

export interface FlumePosition {
  readonly file: string;
  readonly offset: number;
}

const syncSize = 16;

/** What it says; undefined if it says nothing that can be understood. A block that is not complete does not count. */
export const readFlumeTracker = (bytes: Buffer): FlumePosition | undefined => {
  if (bytes.toString('latin1', 0, 4) !== 'Obj\x01') return undefined;
  let at = 4;
  /** Whole numbers are written in zigzag order, seven bits a byte, the lowest first. */
  const long = (): number => {
    let [value, weight] = [0, 1];
    for (;;) {
      const byte = bytes.readUInt8(at++);
      value += (byte & 0x7f) * weight;
      weight *= 128;
      if (byte < 0x80) return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
    }
  };
  const text = (): string => {
    const length = long();
    if (length < 0) throw new RangeError('a text has a length');
    at += length;
    return bytes.toString('utf8', at - length, at);
  };
  let file: string | undefined;
  let offset: number | undefined;
  try {
    for (let pairs = long(); pairs !== 0; pairs = long()) {
      // A negative count is followed by a size in bytes.
      if (pairs < 0) long();
      for (let i = Math.abs(pairs); i > 0; i--) {
        const [key, value] = [text(), text()];
        if (key === 'file') file = value;
        if (key === 'avro.codec' && value !== 'null') return undefined;
      }
    }
    const sync = bytes.subarray(at, (at += syncSize));
    while (at < bytes.length) {
      const records = long();
      const end = long() + at;
      let last: number | undefined;
      for (let i = 0; i < records; i++) last = long();
      if (at !== end || !bytes.subarray(end, end + syncSize).equals(sync)) break;
      at = end + syncSize;
      offset = last ?? offset;
    }
  } catch (error) {
    // It ends here.
    if (!(error instanceof RangeError)) throw error;
  }
  return file === undefined || offset === undefined || offset < 0 ? undefined : { file, offset };
};
