/**
 * The codecs that kafkajs leaves to others, as Java writes and reads them: snappy in the blocks of snappy-java (xerial), lz4 and
 * zstd as frames. Each package is loaded when it is needed first.
 *
 * @module
 */
import { createRequire } from 'node:module';
import zlib from 'node:zlib';
import { promisify } from 'node:util';
import { MillraceError, systemCode } from '../../../core/errors.ts';
import type { Compression } from '../client.ts';
import { blocksOf, frame, unframe } from '../xerial.ts';
import type { Codec, Package } from './package.ts';

/** As record batches name them. */
export const codecNumbers: Readonly<Record<Compression, number>> = { none: 0, gzip: 1, snappy: 2, lz4: 3, zstd: 4 };

/** What is on both sides of the wire, as bytes. */
export interface BytesCodec {
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

const snappy = (): BytesCodec => {
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

const lz4 = (): BytesCodec => {
  const library = load<Lz4>('lz4', 'lz4-napi', '2');
  return { compress: bytes => library.compressFrame(bytes), decompress: bytes => library.decompressFrame(bytes) };
};

type Transform = (bytes: Buffer, done: (error: Error | null, result: Buffer) => void) => void;

const zstd = (): BytesCodec => {
  // Node.js has it since 22.15.
  const builtIn = zlib as { zstdCompress?: Transform; zstdDecompress?: Transform };
  if (builtIn.zstdCompress !== undefined && builtIn.zstdDecompress !== undefined)
    return { compress: promisify(builtIn.zstdCompress), decompress: promisify(builtIn.zstdDecompress) };
  return load<BytesCodec>('zstd', '@mongodb-js/zstd', '1.2.2');
};

/** The codecs by name, each made when it is asked for. */
export const codecs = { snappy, lz4, zstd };

/** Fills the empty places in kafkajs's table. What somebody else put there stays. */
export const registerCodecs = ({ codecs: table }: Pick<Package, 'codecs'>): void => {
  for (const [name, make] of Object.entries(codecs)) {
    const number = codecNumbers[name as Compression];
    try {
      table[number]?.();
      continue;
    } catch {
      // Nobody has filled it.
    }
    let made: BytesCodec | undefined;
    const codec: Codec = {
      compress: async ({ buffer }) => (made ??= make()).compress(buffer),
      decompress: async buffer => (made ??= make()).decompress(buffer),
    };
    table[number] = () => codec;
  }
};
