import { describe, test } from 'vitest';
import type { Delivery } from '../../src/core/delivery.ts';
import { MillraceError } from '../../src/core/errors.ts';
import type { FlumeEvent } from '../../src/core/event.ts';
import { currentScope, type Scope } from '../../src/core/scope.ts';
import { createSink } from '../../src/core/sink.ts';
import { loggerSink } from '../../src/sinks/logger.ts';
import { nullSink } from '../../src/sinks/null.ts';
import { sinkLaws, type Law, type SinkSpec, type SinkTuning } from '../../src/testing/index.ts';

interface TableOptions {
  /** Milliseconds per insert; 0 inserts at once. */
  readonly takes?: number;
  readonly concurrency?: number;
  readonly refuses?: (event: FlumeEvent) => boolean;
}

/** A destination in memory that can be down, and may refuse some events for ever. */
const table = (tuning: SinkTuning, { takes = 0, concurrency = 1, refuses = () => false }: TableOptions) => {
  const { clock } = currentScope();
  const rows: FlumeEvent[] = [];
  let up = true;
  const insert = (events: readonly FlumeEvent[]) => {
    if (!up) throw new Error('down');
    if (events.some(refuses)) throw new MillraceError('MR_BAD_INPUT', 'refused');
    rows.push(...events);
  };
  const insertLater = async (events: readonly FlumeEvent[]) => {
    await new Promise<void>(resolve => void clock.after(takes, resolve));
    insert(events);
  };
  return {
    sink: createSink(takes === 0 ? insert : insertLater, { ...tuning, concurrency }),
    written: () => rows,
    switch: (state: boolean) => void (up = state),
  };
};

/** Prints, or fails to. */
const printing = (tuning: SinkTuning) => {
  let text = '';
  let up = true;
  const write = (lines: string, written: (error?: Error) => void) => {
    if (up) text += lines;
    written(up ? undefined : new Error('EPIPE'));
  };
  return {
    sink: loggerSink({ format: 'text', output: { write }, ...tuning }),
    written: () =>
      text
        .split('\n')
        .slice(0, -1)
        .map(line => ({ body: Buffer.from(line) })),
    switch: (state: boolean) => void (up = state),
  };
};

/** Discards, so that what counts as written is what it was handed. */
const discarding = (tuning: SinkTuning) => {
  const sink = nullSink({ batchSize: 2, ...tuning });
  const seen: FlumeEvent[] = [];
  const next = (delivery: Delivery) => {
    seen.push(...delivery.events);
    sink.next(delivery);
  };
  const { done } = sink;
  return {
    sink: {
      next,
      error: () => sink.complete(),
      complete: () => sink.complete(),
      done,
      attach: (scope: Scope) => sink.attach(scope),
    },
    written: () => seen,
  };
};

const refuses = ({ body }: FlumeEvent) => body.length % 5 === 1;
const specs: Record<string, SinkSpec> = {
  'writing at once': { name: 'table', make: tuning => table(tuning, {}) },
  'taking its time': { name: 'slow table', make: tuning => table(tuning, { takes: 30 }) },
  'with poison': { name: 'picky table', refuses, make: tuning => table(tuning, { refuses, takes: 5 }) },
  'three at a time': {
    name: 'wide table',
    order: 'none',
    make: tuning => table(tuning, { takes: 30, concurrency: 3 }),
  },
};

describe.each(Object.entries(specs))('createSink, %s', (_, spec) => {
  for (const law of sinkLaws(spec)) test(law.name, () => law.run());
});

describe('logger', () => {
  const spec: SinkSpec = { name: 'logger', bodies: 'lines', headers: false, make: printing };
  for (const law of sinkLaws(spec)) test(law.name, () => law.run());
});

describe('null', () => {
  // It settles at once, so that these find nothing outstanding and say so.
  const say = ({ id }: Law) => !['L1', 'L3', 'X1'].includes(id);
  for (const law of sinkLaws({ name: 'null', make: discarding }).filter(say)) test(law.name, () => law.run());
});
