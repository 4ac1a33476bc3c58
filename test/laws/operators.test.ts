import { concatMap, delay, filter, from, map, of } from 'rxjs';
import { describe, test } from 'vitest';
import { event, headers } from '../../src/core/event.ts';
import { deadLetter } from '../../src/operators/dead-letter.ts';
import { intercept } from '../../src/operators/intercept.ts';
import { keyed } from '../../src/operators/keyed.ts';
import { mapBatch, setHeaders } from '../../src/operators/map-batch.ts';
import { rebatch } from '../../src/operators/rebatch.ts';
import { stageLaws } from '../../src/testing/laws/stage-laws.ts';
import { recordingSink } from '../../src/testing/index.ts';
void concatMap;
void delay;
void filter;
void from;
void of;
void event;
void headers;

describe('rebatch', () => {
  for (const law of stageLaws({ name: 'rebatch', make: () => rebatch({ maxEvents: 5, maxDelay: 50 }) }))
    test(law.name, () => law.run());
  for (const law of stageLaws({ name: 'rebatch 1', make: () => rebatch({ maxEvents: 1, maxDelay: 50 }) }))
    test(law.name, () => law.run());
  for (const law of stageLaws({
    name: 'rebatch, by bytes',
    make: () => rebatch({ maxEvents: 5, maxBytes: 20, maxDelay: 50 }),
  }))
    test(law.name, () => law.run());
});
describe('keyed', () => {
  const by = (e: { body: Buffer }) => (e.body.at(-1) ?? 0) % 3;
  for (const law of stageLaws({ name: 'keyed', make: () => keyed({ by, concurrency: 2 }), key: e => String(by(e)) }))
    test(law.name, () => law.run());
});
describe('deadLetter', () => {
  for (const law of stageLaws({ name: 'deadLetter', make: () => deadLetter(recordingSink()) }))
    test(law.name, () => law.run());
});
describe('mapBatch', () => {
  for (const law of stageLaws({ name: 'mapBatch', make: () => mapBatch(b => b) })) test(law.name, () => law.run());
  void setHeaders;
  void map;
  void intercept;
});
