/**
 * Numbers, as fast as they are taken: Flume's `seq`.
 *
 * @module
 */
import { z } from 'zod';
import { defineSource } from '../core/component.ts';
import { event } from '../core/event.ts';
import { int } from '../core/options.ts';

const options = z.object({
  batchSize: int('Events per delivery.', { default: 1, min: 1, unit: 'events' }),
  totalEvents: int('How many events there are; then the flow completes.', {
    default: Number.MAX_SAFE_INTEGER,
    min: 0,
    unit: 'events',
  }),
});
export type SeqOptions = z.input<typeof options>;

/**
 * Counts: bodies `0`, `1`, `2` …
 *
 * **emits** whenever there is credit · **pauses** without · **completes** after `totalEvents` · **errors** never.
 */
export const seqSource = defineSource({
  type: 'seq',
  className: 'org.apache.flume.source.SequenceGeneratorSource',
  summary: 'Counts, as fast as its channel takes the numbers.',
  batchSizeOption: 'batchSize',
  options,
  open:
    ({ batchSize, totalEvents }) =>
    emitter => {
      let next = 0;
      return {
        pull() {
          const count = Math.min(batchSize, totalEvents - next);
          if (count > 0) emitter.emit(Array.from({ length: count }, () => event(String(next++))));
          if (next >= totalEvents) emitter.complete();
        },
      };
    },
});
