/**
 * Flume's event as Avro: the value of its Kafka records, and what its RPC is made of.
 *
 * `AvroFlumeEvent` is a record of `headers`, a map of strings, and `body`, bytes, without a container, schema id or magic byte
 * around it. In Avro's binary encoding (https://avro.apache.org/docs/1.11.1/specification/#binary-encoding) a number is a
 * zig-zag varint; a map is blocks of entries, each after its count, and ends with a count of 0; a negative count is followed by
 * the length of the block in bytes; text and bytes follow their length.
 *
 * Written out here, because a codec for any schema (avsc) takes four times as long to write it, copies each body, drops the
 * header `__proto__`, and counts to whatever number is in front of a map (see docs/decisions.md).
 *
 * @module
 */
import { MillraceError } from '../core/errors.ts';
import { newHeaders, noHeaders, type FlumeEvent, type Headers } from '../core/event.ts';

/** Events often share their headers with the one before: these are encoded once. */
let lastWritten: { readonly headers: Headers; readonly bytes: Buffer } = {
  headers: noHeaders,
  bytes: Buffer.from([0]),
};
/** More than that is not worth keeping. */
const mostKept = 4096;
/** Likewise, what the last event read began with: so many bytes of it, and what they mean. */
const beginning = Buffer.alloc(mostKept);
let lastRead: { readonly headers: Headers; readonly length: number } = { headers: noHeaders, length: 1 };

/** An event as Avro. The result is a buffer of its own. */
export const encodeAvroEvent = ({ headers, body }: FlumeEvent): Buffer => {
  const head = headers === lastWritten.headers ? lastWritten.bytes : encodeHeaders(headers);
  const start = head.length + varintSize(body.length);
  const bytes = Buffer.allocUnsafe(start + body.length);
  for (let i = 0; i < head.length; i++) bytes[i] = head[i] as number;
  putLength(bytes, head.length, body.length);
  body.copy(bytes, start);
  return bytes;
};

/**
 * The event that these bytes are. Its body is a view of them. As Java's decoder does, this takes maps in any number of blocks,
 * with or without their lengths, and the last of several values of a header.
 *
 * @throws MR_BAD_INPUT if the bytes are anything else than one whole event.
 */
export const decodeAvroEvent = (bytes: Buffer): FlumeEvent => {
  const reader = new Reader(bytes);
  const headers = reader.headers();
  const body = reader.bytes('the body');
  if (reader.at < bytes.length) throw reader.bad(`${bytes.length - reader.at} bytes follow the body`);
  return { headers, body };
};

let scratch = Buffer.allocUnsafe(mostKept);

const encodeHeaders = (headers: Headers): Buffer => {
  let count = 0;
  let most = 11;
  for (const key in headers) {
    count++;
    most += 20 + 3 * (key.length + (headers[key] as string).length);
  }
  if (most > scratch.length) scratch = Buffer.allocUnsafe(most);
  let at = 0;
  if (count > 0) {
    at = putLength(scratch, at, count);
    for (const key in headers) at = putText(scratch, putText(scratch, at, key), headers[key] as string);
  }
  scratch[at++] = 0;
  const bytes = Buffer.from(scratch.subarray(0, at));
  if (at <= mostKept) lastWritten = { headers, bytes };
  // One event with huge headers is no reason to keep as much for ever.
  if (scratch.length > 16 * mostKept) scratch = Buffer.allocUnsafe(mostKept);
  return bytes;
};

const varintSize = (length: number): number => {
  let size = 1;
  for (let rest = length * 2; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++;
  return size;
};

/** A length or count, and where to go on. */
const putLength = (to: Buffer, at: number, length: number): number => {
  let rest = length * 2;
  while (rest >= 0x80) {
    to[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  to[at++] = rest;
  return at;
};

const putText = (to: Buffer, at: number, text: string): number => {
  // Short ASCII, as nearly all of it is, costs less here than a call.
  if (text.length < 64) {
    let i = 0;
    for (let code; i < text.length && (code = text.charCodeAt(i)) < 0x80; i++) to[at + 1 + i] = code;
    if (i === text.length) {
      to[at] = i * 2;
      return at + 1 + i;
    }
  }
  const from = putLength(to, at, Buffer.byteLength(text));
  return from + to.write(text, from);
};

class Reader {
  readonly #from: Buffer;
  at = 0;

  constructor(from: Buffer) {
    this.#from = from;
  }

  headers(): Headers {
    const from = this.#from;
    let same = 0;
    while (same < lastRead.length && beginning[same] === from[same]) same++;
    if (same === lastRead.length) {
      this.at = same;
      return lastRead.headers;
    }
    const headers = newHeaders();
    for (let count = this.#blockCount(); count > 0; count = this.#blockCount())
      for (; count > 0; count--) {
        const key = this.#text();
        headers[key] = this.#text();
      }
    Object.freeze(headers);
    if (this.at <= mostKept) lastRead = { headers, length: from.copy(beginning, 0, 0, this.at) };
    return headers;
  }

  bytes(of: string): Buffer {
    const start = this.at;
    const length = this.#number(of);
    const end = this.at + length;
    if (length < 0 || end > this.#from.length) throw this.bad(`${of} is to have ${length} bytes`, start);
    const bytes = this.#from.subarray(this.at, end);
    this.at = end;
    return bytes;
  }

  /** Of the entries that follow. */
  #blockCount(): number {
    const start = this.at;
    const count = this.#number('the headers');
    // Entries of a block with a length can be skipped, which nobody here wants to.
    if (count < 0) this.#number('the headers');
    const entries = Math.abs(count);
    // Each has at least the lengths of its name and its value.
    if (entries > (this.#from.length - this.at) / 2) throw this.bad(`there are to be ${entries} headers`, start);
    return entries;
  }

  #text(): string {
    const start = this.at;
    const length = this.#number('a header');
    const from = this.at;
    const end = from + length;
    if (length < 0 || end > this.#from.length) throw this.bad(`a header is to have ${length} bytes`, start);
    this.at = end;
    return this.#from.toString('utf8', from, end);
  }

  /** Exact up to 2^53; what is larger is no length of anything here. */
  #number(of: string): number {
    const from = this.#from;
    let byte = from[this.at++] ?? this.#end(of);
    if (byte < 0x80) return byte & 1 ? -(byte + 1) / 2 : byte / 2;
    let value = byte & 0x7f;
    for (let i = 1, weight = 0x80; ; i++, weight *= 0x80) {
      byte = from[this.at++] ?? this.#end(of);
      value += (byte & 0x7f) * weight;
      if (byte < 0x80) return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
      if (i === 9) throw this.bad('a number has more than 10 bytes', this.at - 10);
    }
  }

  #end(of: string): never {
    throw this.bad(`the bytes end before ${of}`, this.#from.length);
  }

  bad(what: string, at = this.at): MillraceError {
    const { length } = this.#from;
    return new MillraceError(
      'MR_BAD_INPUT',
      `no Flume event in Avro: ${what}, at byte ${at} of ${length}. Expected a map of headers, then a body, and nothing behind it.`,
    );
  }
}
