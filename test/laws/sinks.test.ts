import { describe, test } from 'vitest';
import { MillraceError } from '../../src/core/errors.ts';
import type { FlumeEvent } from '../../src/core/event.ts';
import { createSink } from '../../src/core/sink.ts';
import { nullSink } from '../../src/sinks/null.ts';
import { currentScope } from '../../src/core/scope.ts';
import { sinkLaws, type SinkSpec, type SinkTuning } from '../../src/testing/laws/sink-laws.ts';

/** A destination in memory, which takes a while, fails when it is down, and refuses some events for ever. */
const table = (tuning: SinkTuning, { takes = 0, refuses = (_: FlumeEvent) => false, concurrency = 1 }) => {
  const { clock } = currentScope();
  const rows: FlumeEvent[] = [];
  let up = true;
  const insert = (events: readonly FlumeEvent[]) => {
    if (!up) throw new Error('down');
    if (events.some(refuses)) throw new MillraceError('MR_BAD_INPUT', 'refused');
    rows.push(...events);
  };
  const later = (events: readonly FlumeEvent[]) =>
    new Promise<void>((resolve, reject) => {
      clock.after(takes, () => {
        try {
          resolve(insert(events));
        } catch (thrown) {
          reject(thrown);
        }
      });
    });
  return {
    sink: createSink<FlumeEvent>(takes === 0 ? insert : later, { ...tuning, concurrency }),
    written: () => rows,
    switch: (state: boolean) => void (up = state),
  };
};

const isOdd = ({ body }: FlumeEvent) => body.length % 5 === 1;
const specs: Record<string, SinkSpec> = {
  sync: { name: 'table', make: tuning => table(tuning, {}) },
  async: { name: 'slow table', make: tuning => table(tuning, { takes: 30 }) },
  refusing: { name: 'picky table', refuses: isOdd, make: tuning => table(tuning, { refuses: isOdd, takes: 5 }) },
  concurrent: { name: 'wide table', order: 'none', make: tuning => table(tuning, { takes: 30, concurrency: 3 }) },
};

for (const [name, spec] of Object.entries(specs))
  describe(`createSink, ${name}`, () => {
    for (const law of sinkLaws(spec)) test(law.name, () => law.run());
  });
