/**
 * Any Node.js stream as a source, in object mode or of bytes.
 *
 * @module
 */
import { finished, type Readable } from 'node:stream';
import type { Observable } from 'rxjs';
import { z } from 'zod';
import type { Identity, SourceTuning } from '../core/component.ts';
import type { Delivery } from '../core/delivery.ts';
import { int, parseOptions } from '../core/options.ts';
import { createSource } from '../core/source.ts';

const options = z.object({
  batchSize: int('Objects or chunks per delivery at most; a delivery never waits for more.', {
    default: 100,
    min: 1,
    unit: 'events',
  }),
});
export type FromReadableOptions = z.input<typeof options> & SourceTuning;

/**
 * Reads only with credit; without, the stream fills up to its `highWaterMark` and stops by itself. Each object or chunk is an
 * event: `fromReadable(process.stdin.pipe(split2()))` gives lines. A stream can be read once, so give `retry` and `repeat` a
 * function that makes one: `fromReadable(() => createReadStream(path))`.
 *
 * **emits** what the stream has buffered · **pauses** by not reading · **completes** and **errors** after the stream, when
 * everything is settled; a stream that closes before its end is an error · on a stop or unsubscribe destroys the stream ·
 * **loses** what the stream had buffered then, and on an unsubscribe or abort also what was not acked (counted as dropped).
 */
export const fromReadable = <T = Buffer>(
  stream: Readable | (() => Readable),
  { maxInFlight, redelivery, ...own }: FromReadableOptions = {},
  { name = 'fromReadable' }: Identity = {},
): Observable<Delivery<T>> => {
  const { batchSize } = parseOptions('fromReadable', options, own);
  return createSource<T>(
    emitter => {
      const readable = typeof stream === 'function' ? stream() : stream;
      let wanted = false;
      let ended = false;

      const read = () => {
        if (!wanted) return;
        const batch: T[] = [];
        for (let item: T | null; batch.length < batchSize && (item = readable.read() as T | null) !== null;)
          batch.push(item);
        if (batch.length === 0) return;
        wanted = false;
        emitter.emit(batch);
      };
      readable.on('readable', read);
      // What goes wrong after a destroy concerns nobody, but must not go unheard.
      readable.on('error', () => undefined);
      const unwatch = finished(readable, { writable: false }, cause => {
        ended = true;
        if (cause) emitter.fail(cause);
        else emitter.complete();
      });
      return {
        pull() {
          wanted = true;
          read();
        },
        stop() {
          unwatch();
          readable.off('readable', read);
          if (!ended) readable.destroy();
        },
      };
    },
    { name, replayable: false, maxInFlight, redelivery },
  );
};
