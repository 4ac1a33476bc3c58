/**
 * Compression that is through when its call returns: else a thread would decide what happens first, and not the seed.
 * To be imported before anything that compresses.
 *
 * @module
 */
import zlib from 'node:zlib';

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
