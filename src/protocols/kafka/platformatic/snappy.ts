/**
 * Snappy as Java writes and reads it. @platformatic/kafka writes one bare block, and cannot read the frames of snappy-java (xerial),
 * which is what brokers hold as soon as a Java client has written.
 *
 * @module
 */
import { xerialBlock, xerialHeader, xerialMagic } from '../kafkajs/codecs.ts';
import type { Wire } from './cluster.ts';

type Bytes = Buffer | { readonly buffer: Buffer };
const bytesOf = (data: Bytes): Buffer => (Buffer.isBuffer(data) ? data : data.buffer);

let framed = false;

/** Gives the package's codec the frame; once, as the table of codecs is the package's own. */
export const frameSnappy = ({ compressionsAlgorithms: { snappy } }: Wire): void => {
  if (framed) return;
  framed = true;
  const compress: (bytes: Buffer) => Buffer = snappy.compressSync;
  const decompress: (bytes: Buffer) => Buffer = snappy.decompressSync;
  const compressSync = (data: Bytes): Buffer => {
    const bytes = bytesOf(data);
    const parts: Buffer[] = [xerialHeader];
    for (let from = 0; from < bytes.length; from += xerialBlock) {
      const block = compress(bytes.subarray(from, from + xerialBlock));
      const length = Buffer.alloc(4);
      length.writeInt32BE(block.length);
      parts.push(length, block);
    }
    return Buffer.concat(parts);
  };
  const decompressSync = (data: Bytes): Buffer => {
    const bytes = bytesOf(data);
    if (!bytes.subarray(0, xerialMagic.length).equals(xerialMagic)) return decompress(bytes);
    const parts: Buffer[] = [];
    for (let from = xerialHeader.length; from < bytes.length;) {
      const end = from + 4 + bytes.readInt32BE(from);
      parts.push(decompress(bytes.subarray(from + 4, end)));
      from = end;
    }
    return Buffer.concat(parts);
  };
  Object.assign(snappy, { compressSync, decompressSync });
};
