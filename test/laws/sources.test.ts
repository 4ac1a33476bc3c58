import { describe, test } from 'vitest';
import { event, type FlumeEvent } from '../../src/core/event.ts';
import { createSource } from '../../src/core/source.ts';
import { seqSource } from '../../src/sources/seq.ts';
import { sourceLaws, type SourceTuning } from '../../src/testing/laws/source-laws.ts';

const list = (tuning: SourceTuning) => {
  const batches: (readonly FlumeEvent[])[] = [];
  const done = new Set<number>();
  let ended = false;
  let wake = () => {};
  const source = createSource<FlumeEvent, number>(emitter => {
    let next = 0;
    let asked = false;
    wake = () => {
      if (!asked) return;
      while (done.has(next)) next++;
      const batch = batches[next];
      if (batch !== undefined) {
        asked = false;
        emitter.emit(batch, next++);
      } else if (ended) emitter.complete();
    };
    return {
      pull() {
        asked = true;
        wake();
      },
      settled(at, what) {
        if (what === 'acked') done.add(at);
      },
    };
  }, tuning);
  return {
    source,
    feed(events: readonly FlumeEvent[]) {
      batches.push(events);
      wake();
    },
    end() {
      ended = true;
      wake();
    },
    confirmed() {
      let position = 0;
      while (done.has(position)) position++;
      return batches.slice(0, position).flat().length;
    },
  };
};

describe('createSource', () => {
  for (const law of sourceLaws({ name: 'list', make: list })) test(law.name, () => law.run());
});
describe('createSource, selective', () => {
  for (const law of sourceLaws({ name: 'list', make: list, order: 'selective' })) test(law.name, () => law.run());
});

describe('seq', () => {
  const events = Array.from({ length: 20 }, (_, i) => event(String(i)));
  for (const law of sourceLaws({
    name: 'seq',
    make: tuning => ({ source: seqSource({ batchSize: 3, totalEvents: 20, ...tuning }), events }),
  }))
    test(law.name, () => law.run());
});
