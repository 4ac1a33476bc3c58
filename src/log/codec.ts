/**
 * What may happen to payloads on their way to the disk: compression, then encryption.
 *
 * Encryption is AES-256-GCM. Each segment has a key of its own, made by HKDF-SHA-256 from the key that was given and a random
 * salt; the number of a frame's first event is its nonce, which is used once per segment, and bytes 8 to 32 of its header
 * are authenticated with it. The tag of 16 bytes follows the payload. In the header of the segment:
 *
 *     52  1  cipher: 0 none, 1 AES-256-GCM
 *     53  1  length of the key's name
 *     54  2  0
 *     56 16  salt
 *     72  8  made with the segment's key: tells a wrong one
 *     80 48  name of the key
 *
 * Names are there so that keys can be changed: new segments use the active key, old ones are read with theirs.
 *
 * @module
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { MillraceError, toError } from '../core/errors.ts';
import { secretAt } from '../core/secret.ts';
import { flag, frameHeaderSize, putNumber, type FrameHeader, type SegmentHeader } from './format.ts';
import type { Payload } from './payload.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

export interface CodecOptions {
  readonly compression: Compression;
  /** Name of the key for new segments; undefined for no encryption. */
  readonly activeKey: string | undefined;
  /** By name, where each key is: `file:<path>` or `env:<variable>`. */
  readonly keys: Readonly<Record<string, string>>;
}

/** What of a frame's header is known before its payload is sealed. */
export type Fields = Omit<FrameHeader, 'crc' | 'length' | 'kind' | 'offsets'>;
/** A payload as it is written, and the flags that say so. */
export type Sealed = Pick<Payload, 'pieces' | 'length'> & { readonly flags: number };

const extraSize = 76;
const longestName = 48;
const tagSize = 16;

/** The codec of one segment. */
export interface SegmentCodec {
  /** Undefined when payloads are written as they are. */
  readonly seal?: (fields: Fields, payload: Payload) => Promise<Sealed>;
  /** Throws when the bytes are not what was written. */
  readonly open: (header: FrameHeader, bytes: Buffer) => Buffer | Promise<Buffer>;
}

export class Codec {
  readonly #options: CodecOptions;
  readonly #keys = new Map<string, Buffer>();

  /** Reads the keys; throws `MR_CONFIG` when one is not there or is none. */
  constructor(options: CodecOptions) {
    const { compression, activeKey, keys } = options;
    this.#options = options;
    if (compression === 'zstd' && zstd === undefined)
      throw new MillraceError('MR_CONFIG', 'compression zstd needs Node.js 22.15 or later; gzip works here.');
    for (const [name, where] of Object.entries(keys)) this.#keys.set(name, readKey(name, where));
    if (activeKey !== undefined && !this.#keys.has(activeKey))
      throw new MillraceError(
        'MR_CONFIG',
        `encryption: there is no key ${activeKey} among ${[...this.#keys.keys()].join(', ') || 'none'}. ` +
          `Give it as encryption.keys.${activeKey} = file:<path> or env:<variable>.`,
      );
  }

  /** The part of a new segment's header that says how it is encrypted. */
  begin(): Buffer {
    const extra = Buffer.alloc(extraSize);
    const { activeKey } = this.#options;
    if (activeKey === undefined) return extra;
    const name = Buffer.from(activeKey);
    extra.writeUInt8(1, 0);
    extra.writeUInt8(name.length, 1);
    randomBytes(16).copy(extra, 4);
    name.copy(extra, 28);
    derive(this.#keys.get(activeKey) as Buffer, extra).check.copy(extra, 20);
    return extra;
  }

  /** For a segment with this header. Throws `MR_WRONG_KEY` if its key is not there, or another one. */
  of({ extra }: SegmentHeader, path: string): SegmentCodec {
    const encrypted = extra.length > 0 && extra.readUInt8(0) !== 0;
    const key = encrypted ? this.#keyOf(extra, path) : undefined;
    const { compression } = this.#options;
    const open: SegmentCodec['open'] = (header, bytes) =>
      inflate(header, key === undefined ? bytes : decrypt(key, header, bytes));
    if (key === undefined && compression === 'none') return { open };
    return {
      open,
      seal: async (fields, payload) => {
        const sealed = await deflate(compression, fields.flags, payload);
        return key === undefined ? sealed : encrypt(key, fields, payload.kind, sealed);
      },
    };
  }

  #keyOf(extra: Buffer, path: string): Buffer {
    const name = extra.toString('utf8', 28, 28 + extra.readUInt8(1));
    const master = this.#keys.get(name);
    if (extra.readUInt8(0) !== 1 || master === undefined)
      throw new MillraceError(
        'MR_WRONG_KEY',
        `${path} is encrypted with the key ${name}, which was not given. Give it as encryption.keys.${name}.`,
      );
    const { key, check } = derive(master, extra);
    if (check.equals(extra.subarray(20, 28))) return key;
    throw new MillraceError('MR_WRONG_KEY', `${path} is encrypted with another key than the one given as ${name}.`);
  }
}

const derive = (master: Buffer, extra: Buffer): { readonly key: Buffer; readonly check: Buffer } => {
  const bytes = Buffer.from(hkdfSync('sha256', master, extra.subarray(4, 20), 'millrace segment', 40));
  return { key: bytes.subarray(0, 32), check: bytes.subarray(32) };
};

/** 32 bytes, as they are, or as 64 hexadecimal digits, or in base64. The key itself is in no message. */
const readKey = (name: string, where: string): Buffer => {
  const trouble = (what: string) =>
    new MillraceError(
      'MR_CONFIG',
      `encryption.keys.${name}: ${what}. Expected 32 bytes, raw, as hexadecimal digits or in base64.`,
    );
  if (name.length === 0 || Buffer.byteLength(name) > longestName)
    throw trouble(`the name has more than ${longestName} bytes, or none`);
  let bytes: Buffer | undefined;
  try {
    bytes = secretAt(where);
  } catch (thrown) {
    throw trouble(toError(thrown).message);
  }
  if (bytes === undefined) throw trouble('expected file:<path> or env:<variable>');
  if (bytes.length === 32) return bytes;
  const text = bytes.toString('latin1').trim();
  const key = /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, 'hex') : Buffer.from(text, 'base64');
  if (key.length !== 32) throw trouble(`found ${bytes.length} bytes`);
  return key;
};

const nonceOf = (seq: number): Buffer => {
  const nonce = Buffer.alloc(12);
  putNumber(nonce, seq, 0);
  return nonce;
};

/** What of a frame's header is authenticated: everything but its length and its CRC. */
const associated = ({ flags, count, seq, group, bytesAfter }: Fields, kind: number): Buffer => {
  const bytes = Buffer.alloc(frameHeaderSize - 8);
  bytes.writeUInt8(kind, 0);
  bytes.writeUInt8(flags, 1);
  bytes.writeUInt32LE(count, 4);
  putNumber(bytes, seq, 8);
  bytes.writeUIntLE(bytesAfter, 16, 6);
  bytes.writeUInt16LE(group, 22);
  return bytes;
};

const encrypt = (key: Buffer, fields: Fields, kind: number, { pieces, length, flags }: Sealed): Sealed => {
  const cipher = createCipheriv('aes-256-gcm', key, nonceOf(fields.seq), { authTagLength: tagSize });
  cipher.setAAD(associated({ ...fields, flags }, kind));
  const sealed = pieces.map(piece => cipher.update(piece));
  return { pieces: [...sealed, cipher.final(), cipher.getAuthTag()], length: length + tagSize, flags };
};

const decrypt = (key: Buffer, header: FrameHeader, bytes: Buffer): Buffer => {
  const end = bytes.length - tagSize;
  const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(header.seq), { authTagLength: tagSize });
  decipher.setAAD(associated(header, header.kind));
  decipher.setAuthTag(bytes.subarray(end));
  const plain = decipher.update(bytes.subarray(0, end));
  decipher.final();
  return plain;
};

type Transform = (bytes: Buffer) => Promise<Buffer>;

const gzip = {
  deflate: promisify((bytes: Buffer, done: (cause: Error | null, out: Buffer) => void) =>
    zlib.gzip(bytes, { level: 1 }, done),
  ),
  inflate: promisify(zlib.gunzip) as Transform,
};

/** Node.js has it from 22.15 on. */
const zstd = ((): { readonly deflate: Transform; readonly inflate: Transform } | undefined => {
  const { zstdCompress, zstdDecompress } = zlib as unknown as Partial<
    Record<string, (bytes: Buffer, done: (cause: Error | null, out: Buffer) => void) => void>
  >;
  if (zstdCompress === undefined || zstdDecompress === undefined) return undefined;
  return { deflate: promisify(zstdCompress), inflate: promisify(zstdDecompress) };
})();

/** What does not become smaller stays as it is. */
const deflate = async (compression: Compression, flags: number, { pieces, length }: Payload): Promise<Sealed> => {
  if (compression === 'none') return { pieces, length, flags };
  const { deflate: pack } = compression === 'gzip' ? gzip : (zstd as typeof gzip);
  const packed = await pack(pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces));
  if (packed.length >= length) return { pieces, length, flags };
  return { pieces: [packed], length: packed.length, flags: flags | flag[compression] };
};

const inflate = ({ flags }: FrameHeader, bytes: Buffer): Buffer | Promise<Buffer> => {
  if ((flags & flag.gzip) !== 0) return gzip.inflate(bytes);
  if ((flags & flag.zstd) === 0) return bytes;
  if (zstd === undefined)
    throw new MillraceError('MR_CONFIG', 'a batch is compressed with zstd, which needs Node.js 22.15 or later.');
  return zstd.inflate(bytes);
};
