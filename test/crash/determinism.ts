/**
 * A seed decides everything here. So compression is through when its call returns (else a thread would decide what comes
 * first), and salts are as random as the seed. To be imported before anything that compresses or salts.
 *
 * @module
 */
import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import zlib from 'node:zlib';
import { seededRandom } from '../../src/testing/index.ts';

let random = seededRandom(1);

/** From now on random bytes are this seed's. */
export const reseed = (seed: number): void => {
  random = seededRandom(~seed);
};

type Done = (cause: Error | null, bytes: Buffer) => void;

const inTurn =
  (act: (bytes: Buffer, options?: zlib.ZlibOptions) => Buffer) =>
  (bytes: Buffer, ...rest: [zlib.ZlibOptions, Done] | [Done]): void => {
    const done = rest.at(-1) as Done;
    let result: Buffer;
    try {
      result = act(bytes, rest.length > 1 ? (rest[0] as zlib.ZlibOptions) : {});
    } catch (thrown) {
      done(thrown as Error, Buffer.alloc(0));
      return;
    }
    done(null, result);
  };

Object.assign(zlib, { gzip: inTurn(zlib.gzipSync), gunzip: inTurn(zlib.gunzipSync) });
if ('zstdCompress' in zlib) {
  type Sync = (bytes: Buffer) => Buffer;
  const { zstdCompressSync, zstdDecompressSync } = zlib as unknown as Record<string, Sync>;
  Object.assign(zlib, {
    zstdCompress: inTurn(zstdCompressSync as Sync),
    zstdDecompress: inTurn(zstdDecompressSync as Sync),
  });
}
Object.assign(crypto, {
  randomBytes: (size: number) => Buffer.from(Array.from({ length: size }, () => Math.floor(random() * 256))),
});
syncBuiltinESMExports();
