/**
 * The frame of snappy-java, by a project of xerial.org: Java's clients put snappy into it, and brokers hold it.
 *
 *     `\x82SNAPPY\0`, version 1, compatible with 1 (4 bytes each); then blocks, each with its length (4 bytes) in front
 *
 * @module
 */

const magic = Buffer.from('82534e4150505900', 'hex');
const header = Buffer.concat([magic, Buffer.from('0000000100000001', 'hex')]);
/** As snappy-java has it. */
const blockSize = 32 * 1024;

/** What is to be compressed, block by block. */
export const blocksOf = (bytes: Buffer): Buffer[] => {
  const blocks: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += blockSize) blocks.push(bytes.subarray(from, from + blockSize));
  return blocks;
};

/** Compressed blocks in their frame. */
export const frame = (blocks: readonly Buffer[]): Buffer => {
  const parts: Buffer[] = [header];
  for (const block of blocks) {
    const length = Buffer.alloc(4);
    length.writeInt32BE(block.length);
    parts.push(length, block);
  }
  return Buffer.concat(parts);
};

/** The compressed blocks. librdkafka and others write one without a frame. */
export const unframe = (bytes: Buffer): Buffer[] => {
  if (!bytes.subarray(0, magic.length).equals(magic)) return [bytes];
  const blocks: Buffer[] = [];
  for (let from = header.length; from < bytes.length;) {
    const end = from + 4 + bytes.readInt32BE(from);
    blocks.push(bytes.subarray(from + 4, end));
    from = end;
  }
  return blocks;
};
