/**
 * Nowhere: Flume's `null`. Good for measuring everything before it.
 *
 * @module
 */
import { z } from 'zod';
import { defineSink } from '../core/component.ts';
import { int } from '../core/options.ts';
import type { SinkContext } from '../core/sink.ts';

const options = z.object({
  batchSize: int('Events per write.', { default: 100, min: 1, unit: 'events' }),
  logEveryNEvents: int('How often to log how many it has discarded; 0 is never.', {
    default: 10_000,
    min: 0,
    unit: 'events',
  }),
});
export type NullSinkOptions = z.input<typeof options>;

/** Discards events. **acks** at once · **nacks** and **rejects** never · keeps order · **loses** everything, as asked. */
export const nullSink = defineSink({
  type: 'null',
  className: 'org.apache.flume.sink.NullSink',
  summary: 'Discards events.',
  batchSizeOption: 'batchSize',
  options,
  open: ({ logEveryNEvents }) => {
    let discarded = 0;
    let context: SinkContext | undefined;
    return {
      open(lent) {
        context = lent;
      },
      write({ length }) {
        const before = discarded;
        discarded += length;
        if (logEveryNEvents === 0 || Math.floor(before / logEveryNEvents) === Math.floor(discarded / logEveryNEvents))
          return;
        context?.log.info(`${context.name} has discarded ${discarded} events.`);
      },
    };
  },
});
