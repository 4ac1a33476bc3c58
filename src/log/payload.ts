/**
 * What is in a frame: a batch.
 *
 * **Block**: the bytes just as they came, the ends of the bodies (4 bytes each), the headers, length of the headers (4 bytes).
 * Nobody visits the events. The bytes come first, so that others may follow them while it waits.
 *
 * **Events**: for each, the length of its headers plus one (4 bytes) and the headers, or 0 if they are the same as those
 * before; the length of its body (4 bytes) and the body.
 *
 * **Headers**: for each, key and value: a length (4 bytes) and UTF-8; for text that is no proper Unicode, which UTF-8
 * would alter, the length has its top bit set and UTF-16 follows.
 *
 * @module
 */
import { toUSVString } from 'node:util';
import { Batch, newHeaders, noHeaders, type FlumeEvent, type Headers } from '../core/event.ts';

export const kind = { block: 1, events: 2 } as const;

/** A frame's payload: its kind, and the pieces to be written one behind the other. A block's bytes are not copied. */
export interface Payload {
  readonly kind: number;
  readonly pieces: readonly Buffer[];
  readonly length: number;
}

export const encodePayload = (batch: Batch): Payload => {
  const { block } = batch;
  if (block === undefined) {
    const bytes = encodeEvents(batch.events);
    return { kind: kind.events, pieces: [bytes], length: bytes.length };
  }
  const { bytes, ends } = block;
  const head = encodeHeaders(block.headers);
  const behind = Buffer.allocUnsafe(4 * ends.length + head.length + 4);
  putEnds(behind, ends);
  head.copy(behind, 4 * ends.length);
  behind.writeUInt32LE(head.length, behind.length - 4);
  return { kind: kind.block, pieces: [bytes, behind], length: bytes.length + behind.length };
};

/** The batch of a payload, over the same memory. Throws a RangeError if it is not one. */
export const decodePayload = (of: number, count: number, bytes: Buffer): Batch => {
  if (of === kind.block) return decodeBlock(bytes, count);
  if (of === kind.events) return Batch.of(decodeEvents(bytes, count));
  throw new RangeError(`payload of an unknown kind, ${of}`);
};

const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

const putEnds = (bytes: Buffer, ends: Uint32Array): void => {
  if (littleEndian) bytes.set(new Uint8Array(ends.buffer, ends.byteOffset, ends.byteLength));
  else for (let i = 0; i < ends.length; i++) bytes.writeUInt32LE(ends[i] as number, 4 * i);
};

const decodeBlock = (bytes: Buffer, count: number): Batch => {
  const headersEnd = bytes.length - 4;
  const headersAt = headersEnd - bytes.readUInt32LE(headersEnd);
  const at = headersAt - 4 * count;
  if (at < 0) throw new RangeError('block without its ends');
  const ends = new Uint32Array(count);
  if (littleEndian) new Uint8Array(ends.buffer).set(bytes.subarray(at, headersAt));
  else for (let i = 0; i < count; i++) ends[i] = bytes.readUInt32LE(at + 4 * i);
  if ((ends.at(-1) ?? -1) + 1 !== at) throw new RangeError('block of the wrong length');
  const headers = decodeHeaders(bytes.subarray(headersAt, headersEnd));
  return Batch.ofBlock({ bytes: bytes.subarray(0, at), ends, headers });
};

const encodeEvents = (events: readonly FlumeEvent[]): Buffer => {
  let length = 8 * events.length;
  let last: Headers | undefined;
  const heads = events.map(({ headers, body }) => {
    length += body.length;
    if (headers === last) return undefined;
    last = headers;
    const head = encodeHeaders(headers);
    length += head.length;
    return head;
  });
  const bytes = Buffer.allocUnsafe(length);
  let at = 0;
  for (const [i, { body }] of events.entries()) {
    const head = heads[i];
    at = bytes.writeUInt32LE(head === undefined ? 0 : head.length + 1, at);
    if (head !== undefined) at += head.copy(bytes, at);
    at = bytes.writeUInt32LE(body.length, at);
    at += body.copy(bytes, at);
  }
  return bytes;
};

const decodeEvents = (bytes: Buffer, count: number): FlumeEvent[] => {
  const events = new Array<FlumeEvent>(count);
  let headers = noHeaders;
  let at = 0;
  for (let i = 0; i < count; i++) {
    const size = bytes.readUInt32LE(at);
    at += 4;
    if (size > 0) {
      headers = decodeHeaders(bytes.subarray(at, at + size - 1));
      at += size - 1;
    }
    const end = at + 4 + bytes.readUInt32LE(at);
    if (end > bytes.length) throw new RangeError('event without its body');
    events[i] = { headers, body: bytes.subarray(at + 4, end) };
    at = end;
  }
  if (at !== bytes.length) throw new RangeError('events of the wrong length');
  return events;
};

const utf16 = 2 ** 31;
const none = Buffer.alloc(0);

/** Neighbours share their headers: remembering the last ones saves most of the work. */
let encodedLast: { readonly headers: Headers; readonly bytes: Buffer } | undefined;

const encodeHeaders = (headers: Headers): Buffer => {
  if (headers === noHeaders) return none;
  if (encodedLast?.headers === headers) return encodedLast.bytes;
  const pieces: Buffer[] = [];
  const put = (text: string) => {
    const proper = toUSVString(text) === text;
    const bytes = Buffer.from(text, proper ? 'utf8' : 'utf16le');
    const size = Buffer.allocUnsafe(4);
    size.writeUInt32LE(bytes.length + (proper ? 0 : utf16), 0);
    pieces.push(size, bytes);
  };
  for (const key of Object.keys(headers)) {
    put(key);
    put(headers[key] as string);
  }
  const bytes = Buffer.concat(pieces);
  // Only what cannot change any more.
  if (Object.isFrozen(headers)) encodedLast = { headers, bytes };
  return bytes;
};

let decodedLast: { readonly headers: Headers; readonly bytes: Buffer } | undefined;

const decodeHeaders = (bytes: Buffer): Headers => {
  if (bytes.length === 0) return noHeaders;
  if (decodedLast?.bytes.equals(bytes) === true) return decodedLast.headers;
  const headers = newHeaders();
  let at = 0;
  const get = () => {
    const size = bytes.readUInt32LE(at);
    const start = at + 4;
    at = start + (size % utf16);
    if (at > bytes.length) throw new RangeError('header without its end');
    return bytes.toString(size >= utf16 ? 'utf16le' : 'utf8', start, at);
  };
  while (at < bytes.length) {
    const key = get();
    headers[key] = get();
  }
  Object.freeze(headers);
  // A copy: a few bytes must not keep a whole read alive.
  decodedLast = { headers, bytes: Buffer.from(bytes) };
  return headers;
};
