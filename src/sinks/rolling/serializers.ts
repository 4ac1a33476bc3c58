/**
 * Events as the bytes of a file: Flume's serializers.
 *
 * @module
 */
import { piecesOf, type Batch, type FlumeEvent, type Headers } from '../../core/event.ts';
import { choice } from '../../core/options.ts';

/** Makes the bytes of a batch, in pieces to be written one behind the other. They may be the batch's own: not to be changed. */
export type Serializer = (batch: Batch) => readonly Buffer[];

/** The names of the serializers, as an option. */
export const serializerChoice = choice(
  ['TEXT', 'HEADER_AND_TEXT'],
  {
    'org.apache.flume.serialization.BodyTextEventSerializer$Builder': 'TEXT',
    'org.apache.flume.serialization.HeaderAndBodyTextEventSerializer$Builder': 'HEADER_AND_TEXT',
  },
  [
    'AVRO_EVENT',
    'org.apache.flume.serialization.FlumeEventAvroEventSerializer$Builder',
    'org.apache.flume.sink.hdfs.AvroEventSerializer$Builder',
  ],
);

/** `TEXT` writes bodies, `HEADER_AND_TEXT` headers as Java prints a map, a space, and the body; a newline behind each. */
export const serializer = (kind: 'TEXT' | 'HEADER_AND_TEXT', appendNewline: boolean): Serializer => {
  if (kind === 'HEADER_AND_TEXT') return ({ events }) => [joined(events, headerTexts(events), appendNewline)];
  return batch => {
    const { blocks } = batch;
    if (blocks === undefined || !appendNewline) return [joined(batch.events, undefined, appendNewline)];
    const pieces = piecesOf(blocks);
    // Many small pieces cost more than their copy.
    return pieces.length > 1 && batch.byteLength / pieces.length < smallPiece ? [Buffer.concat(pieces)] : pieces;
  };
};

/** Bytes, on average. */
const smallPiece = 4096;

const newline = 0x0a;

/** One copy of everything in one buffer, to be written at once. */
const joined = (
  events: readonly FlumeEvent[],
  before: readonly Buffer[] | undefined,
  appendNewline: boolean,
): Buffer => {
  let length = appendNewline ? events.length : 0;
  for (const { body } of events) length += body.length;
  for (const text of before ?? []) length += text.length;
  const bytes = Buffer.allocUnsafe(length);
  let at = 0;
  for (let i = 0; i < events.length; i++) {
    at += before?.[i]?.copy(bytes, at) ?? 0;
    at += (events[i] as FlumeEvent).body.copy(bytes, at);
    if (appendNewline) bytes[at++] = newline;
  }
  return bytes;
};

/** `{key=value, key=value} ` for each event. Neighbours often share their headers. */
const headerTexts = (events: readonly FlumeEvent[]): Buffer[] => {
  let last: Headers | undefined;
  let text = Buffer.alloc(0);
  return events.map(({ headers }) => {
    if (headers !== last) {
      const entries = Object.entries(headers).map(([key, value]) => `${key}=${value}`);
      text = Buffer.from(`{${entries.join(', ')}} `);
      last = headers;
    }
    return text;
  });
};
