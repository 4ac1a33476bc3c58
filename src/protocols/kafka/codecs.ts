/**
 * How records are compressed, as Java writes and reads it: gzip, snappy in the blocks of snappy-java (xerial), lz4 and zstd as
 * frames. Each package is loaded when it is needed first.
 *
 * @module
 */
import { createRequire } from 'node:module';
import zlib from 'node:zlib';
import { promisify } from 'node:util';
import { MillraceError, systemCode } from '../../core/errors.ts';
import { compressions, type Compression } from './client.ts';
import { blocksOf, frame, unframe } from './xerial.ts';

/** Bytes to fewer bytes, and back. */
export interface Codec {
  compress(bytes: Buffer): Promise<Buffer>;
  decompress(bytes: Buffer): Promise<Buffer>;
}

const require = createRequire(import.meta.url);

const load = <T>(codec: string, name: string, version: string): T => {
  try {
    return require(name) as T;
  } catch (cause) {
    if (systemCode(cause) !== 'MODULE_NOT_FOUND') throw cause;
    throw new MillraceError(
      'MR_PEER_MISSING',
      `Kafka: records are compressed with ${codec}, which needs the package ${name}. Run \`npm install ${name}@${version}\`.`,
      { cause },
    );
  }
};

interface Snappy {
  compress(bytes: Buffer): Promise<Buffer>;
  uncompress(bytes: Buffer, options: { asBuffer: true }): Promise<Buffer>;
}

const snappy = (): Codec => {
  const library = load<Snappy>('snappy', 'snappy', '7');
  return {
    compress: async bytes => {
      const blocks: Buffer[] = [];
      for (const block of blocksOf(bytes)) blocks.push(await library.compress(block));
      return frame(blocks);
    },
    decompress: async bytes => {
      const blocks: Buffer[] = [];
      for (const block of unframe(bytes)) blocks.push(await library.uncompress(block, { asBuffer: true }));
      return Buffer.concat(blocks);
    },
  };
};

interface Lz4 {
  compressFrame(bytes: Buffer): Promise<Buffer>;
  decompressFrame(bytes: Buffer): Promise<Buffer>;
}

const lz4 = (): Codec => {
  const library = load<Lz4>('lz4', 'lz4-napi', '2');
  return { compress: bytes => library.compressFrame(bytes), decompress: bytes => library.decompressFrame(bytes) };
};

type Transform = (bytes: Buffer, done: (error: Error | null, result: Buffer) => void) => void;

const zstd = (): Codec => {
  // Node.js has it since 22.15.
  const builtIn = zlib as { zstdCompress?: Transform; zstdDecompress?: Transform };
  if (builtIn.zstdCompress !== undefined && builtIn.zstdDecompress !== undefined)
    return { compress: promisify(builtIn.zstdCompress), decompress: promisify(builtIn.zstdDecompress) };
  return load<Codec>('zstd', '@mongodb-js/zstd', '1.2.2');
};

const gzip = (): Codec => ({ compress: promisify(zlib.gzip), decompress: promisify(zlib.unzip) });

/** By name, each made when it is asked for. */
export const codecs: Readonly<Record<Exclude<Compression, 'none'>, () => Codec>> = { gzip, snappy, lz4, zstd };

const made: Partial<Record<Compression, Codec>> = {};

/** @throws MR_PEER_MISSING if it is in a package that is not there. */
export const codecOf = (compression: Exclude<Compression, 'none'>): Codec =>
  (made[compression] ??= codecs[compression]());

/** The number that record batches have for it. */
export const numberOf = (compression: Compression): number => compressions.indexOf(compression);

/** What was compressed with the codec that has this number. */
export const decompress = async (number: number, bytes: Buffer): Promise<Buffer> => {
  const compression = compressions[number];
  if (compression === undefined || compression === 'none')
    throw new MillraceError(
      'MR_KAFKA',
      `Kafka: records are compressed with a codec of number ${number}, which is unknown.`,
    );
  return codecOf(compression).decompress(bytes);
};
