/**
 * Snappy as Java writes and reads it. @platformatic/kafka writes one bare block, and cannot read the frames of snappy-java (xerial),
 * which is what brokers hold as soon as a Java client has written.
 *
 * @module
 */
import { blocksOf, frame, unframe } from '../xerial.ts';
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
  const compressSync = (data: Bytes): Buffer => frame(blocksOf(bytesOf(data)).map(block => compress(block)));
  const decompressSync = (data: Bytes): Buffer => Buffer.concat(unframe(bytesOf(data)).map(block => decompress(block)));
  Object.assign(snappy, { compressSync, decompressSync });
};
