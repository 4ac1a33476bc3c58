/**
 * Any AsyncIterable as a source: an async generator, an ix pipeline, a cursor, `events.on(…)`.
 *
 * @module
 */
import type { Observable } from 'rxjs';
import { z } from 'zod';
import type { Identity, SourceTuning } from '../core/component.ts';
import type { Delivery } from '../core/delivery.ts';
import { toError } from '../core/errors.ts';
import { int, parseOptions } from '../core/options.ts';
import { createSource } from '../core/source.ts';

const options = z.object({
  batchSize: int('Events per delivery at most. A delivery waits for more only as long as they come without a pause.', {
    default: 100,
    min: 1,
    unit: 'events',
  }),
});
export type FromAsyncIterableOptions = z.input<typeof options> & SourceTuning;

/**
 * Pulls only with credit, one `next()` at a time. Each session makes its own iterator; a generator object has only one, so
 * give `retry` and `repeat` something that can be iterated again: `{ [Symbol.asyncIterator]: () => read() }`.
 *
 * **emits** when a batch is full or its next event has to be waited for · **pauses** by not pulling · **completes** and
 * **errors** after the iterator, when everything is settled · on a stop or unsubscribe calls `return()` at once, also while
 * `next()` is under way · **loses** on an unsubscribe or abort what was pulled and not acked: it is counted as dropped.
 */
export const fromAsyncIterable = <T>(
  iterable: AsyncIterable<T>,
  { maxInFlight, redelivery, ...own }: FromAsyncIterableOptions = {},
  { name = 'fromAsyncIterable' }: Identity = {},
): Observable<Delivery<T>> => {
  const { batchSize } = parseOptions('fromAsyncIterable', options, own);
  return createSource<T>(
    (emitter, { clock }) => {
      const iterator = iterable[Symbol.asyncIterator]();
      let batch: T[] = [];
      let wanted = false;
      let reading = false;
      let over = false;

      const send = () => {
        if (batch.length === 0) return;
        const full = batch;
        [batch, wanted] = [[], false];
        emitter.emit(full);
      };
      const sendIfWanted = () => {
        if (wanted) send();
      };
      const read = async () => {
        reading = true;
        try {
          while (wanted) {
            const next: IteratorResult<T, unknown> = await iterator.next();
            if (next.done === true) {
              over = true;
              send();
              emitter.complete();
              break;
            }
            batch.push(next.value);
            if (over || batch.length >= batchSize) send();
            // What comes without a pause comes in microtasks.
            else if (batch.length === 1) clock.soon(sendIfWanted);
          }
        } catch (thrown) {
          // After a stop an error is no news.
          if (over) return;
          over = true;
          send();
          emitter.fail(toError(thrown));
        } finally {
          reading = false;
        }
      };
      return {
        pull() {
          wanted = true;
          // An event that came when nobody asked any more.
          if (batch.length >= batchSize) return send();
          if (batch.length > 0) clock.soon(sendIfWanted);
          if (!reading) void read();
        },
        async stop() {
          if (over) return;
          over = true;
          send();
          wanted = false;
          const returned = iterator.return?.();
          // A generator that waits for something answers when that comes, which may be never.
          if (reading) returned?.catch(() => undefined);
          else await returned;
        },
      };
    },
    { name, replayable: false, maxInFlight, redelivery },
  );
};
