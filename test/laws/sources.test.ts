import { Subject } from 'rxjs';
import { PassThrough } from 'node:stream';
import { describe, test } from 'vitest';
import { event, type FlumeEvent } from '../../src/core/event.ts';
import { fromAsyncIterable } from '../../src/sources/from-async-iterable.ts';
import { fromObservable } from '../../src/sources/from-observable.ts';
import { fromReadable } from '../../src/sources/from-readable.ts';
import { seqSource } from '../../src/sources/seq.ts';
import { sourceLaws, type SourceSpec, type SourceTuning } from '../../src/testing/index.ts';
import { brokenSource } from './mutants/sources.ts';

/** Each iterator goes on where the last one stopped. */
const iterable = (tuning: SourceTuning) => {
  const line: FlumeEvent[] = [];
  let ended = false;
  let wake: () => void = () => undefined;
  async function* read() {
    for (;;) {
      const next = line.shift();
      if (next !== undefined) yield next;
      else if (ended) return;
      else await new Promise<void>(resolve => (wake = resolve));
    }
  }
  return {
    source: fromAsyncIterable({ [Symbol.asyncIterator]: read }, { batchSize: 3, ...tuning }),
    feed(events: readonly FlumeEvent[]) {
      line.push(...events);
      wake();
    },
    end() {
      ended = true;
      wake();
    },
  };
};

const readable = (tuning: SourceTuning) => {
  let stream = new PassThrough({ objectMode: true });
  const open = () => (stream = new PassThrough({ objectMode: true }));
  return {
    source: fromReadable<FlumeEvent>(open, { batchSize: 3, ...tuning }),
    feed(events: readonly FlumeEvent[]) {
      for (const one of events) stream.write(one);
    },
    end: () => void stream.end(),
  };
};

const observable = (tuning: SourceTuning) => {
  const subject = new Subject<FlumeEvent>();
  return {
    source: fromObservable(subject, { capacity: 1000, overflow: 'fail', batchSize: 3, ...tuning }),
    feed(events: readonly FlumeEvent[]) {
      for (const one of events) subject.next(one);
    },
    end: () => subject.complete(),
  };
};

const numbers = (tuning: SourceTuning) => ({
  source: seqSource({ batchSize: 3, totalEvents: 20, ...tuning }),
  events: Array.from({ length: 20 }, (_, i) => event(String(i))),
});

const specs: SourceSpec[] = [
  { name: 'createSource', make: tuning => brokenSource(tuning) },
  { name: 'createSource, selective', order: 'selective', make: tuning => brokenSource(tuning) },
  { name: 'seq', make: numbers },
  { name: 'fromAsyncIterable', replayable: false, make: iterable },
  { name: 'fromReadable', replayable: false, make: readable },
  { name: 'fromObservable', replayable: false, make: observable },
];

describe.each(specs)('$name', spec => {
  for (const law of sourceLaws(spec)) test(law.name, () => law.run());
});
