import type { Observable, OperatorFunction } from 'rxjs';
import type { Delivery } from '../../src/core/delivery.ts';
import { Batch, event, headers, type FlumeEvent, type Headers } from '../../src/core/event.ts';
import { run, type Flow, type FlowSink } from '../../src/core/flow.ts';
import type { SourceOptions } from '../../src/core/source.ts';
import { inScope, Scope } from '../../src/core/scope.ts';
import {
  FakeClock,
  recordingLog,
  scriptedSource,
  seededRandom,
  type Received,
  type SourceStep,
} from '../../src/testing/index.ts';

export const events = (bodies: string, head?: Headers): FlumeEvent[] => Array.from(bodies, body => event(body, head));
export const text = (of: readonly FlumeEvent[]): string => of.map(({ body }) => body.toString()).join('');
export const texts = (received: readonly Received[]): string[] => received.map(one => text(one.events));

const sharedHeaders = headers({ h: 'v' });

/** One character per event, in one buffer. */
export const block = (bodies: string, head: Headers = sharedHeaders): Batch =>
  Batch.ofBlock({
    bytes: Buffer.from(bodies.replace(/./g, '$&\n')),
    ends: Uint32Array.from(bodies, (_, i) => 2 * i + 1),
    headers: head,
  });

/** What emits one delivery per word, one event per letter. */
export const emit = (...words: string[]): SourceStep[] => words.map(word => ({ emit: events(word) }));

/** A flow in which the test owns time. */
export const flowOf = <T = FlumeEvent>(
  script: readonly SourceStep<T>[],
  sink: FlowSink<T>,
  { stage, ...options }: SourceOptions & { stage?: OperatorFunction<Delivery<T>, Delivery<T>> } = {},
) => {
  const clock = new FakeClock();
  const log = recordingLog();
  const scope = new Scope({ clock, log, random: seededRandom(1) });
  const source = scriptedSource(script, options);
  const through: Observable<Delivery<T>> = stage === undefined ? source : source.pipe(stage);
  const flow: Flow = inScope(scope, () => run(through, sink));
  return { clock, log, source, flow, ledger: flow.ledger };
};
