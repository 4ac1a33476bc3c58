/**
 * Sinks that break one promise each.
 */
import { createSink, type SinkWriter } from '../../../src/core/sink.ts';

type CreateSink = typeof createSink;

/** Another way to write. */
const writing = (change: (writer: SinkWriter) => SinkWriter['write']): CreateSink =>
  ((writer: SinkWriter, options) => createSink({ ...writer, write: change(writer) }, options)) as CreateSink;

export const brokenSinks = {
  /** Acks before it is written. */
  waitsForNothing: writing(writer => (batch, of) => {
    void Promise.resolve(writer.write(batch, of)).catch(() => undefined);
  }),

  /** Acks what it could not write. */
  swallowsErrors: writing(writer => async (batch, of) => {
    try {
      await writer.write(batch, of);
    } catch {
      // Too bad.
    }
  }),

  /** Writes again what was written. */
  writesTwice: writing(writer => async (batch, of) => {
    await writer.write(batch, of);
    await writer.write(batch, of);
  }),

  /** After an error it waits for ever. */
  givesUp: writing(writer => async (batch, of) => {
    try {
      await writer.write(batch, of);
    } catch {
      await new Promise(() => undefined);
    }
  }),
} satisfies Record<string, CreateSink>;
