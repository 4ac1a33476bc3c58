/**
 * A random graph: sources, stages, channels and sinks, what goes wrong in it, and when it is stopped. Plain data, so that
 * fast-check makes, shrinks and prints it.
 */
import fc from 'fast-check';

/** What can go wrong. Each graph has some of them switched on: all at once would hide what one does alone. */
export const faults = [
  /** Writes, stages and settlements take their time. */
  'slow',
  /** Writes fail, and may work when tried again. */
  'fail',
  /** Some events can never be written. */
  'poison',
  /** Sinks nack. */
  'nack',
  /** Sinks reject some events of a delivery. */
  'reject',
  /** Writes do not return. */
  'hang',
  /** Operators throw, now and then for good. */
  'throw',
  /** Channels give up waiting for room. */
  'full',
  /** Sources break. */
  'break',
  /** Sources are unsubscribed and subscribed again. */
  'cut',
  /** Flows are stopped and started again. */
  'stop',
  /** Flows are aborted and started again. */
  'abort',
] as const;
export type Fault = (typeof faults)[number];

export interface SourceSpec {
  readonly steps: readonly (number | 'break' | { readonly wait: number })[];
  /** Falls silent at the end, but does not complete. */
  readonly idle: boolean;
  readonly pushing: boolean;
  /** Emits blocks: the events of a delivery have the same headers. */
  readonly blocks: boolean;
  readonly deliveries: number;
  readonly events: number;
  readonly emitter: EmitterSpec;
  /** When it is unsubscribed, in ms after it was subscribed. */
  readonly cuts: readonly number[];
}

export interface EmitterSpec {
  readonly order: 'strict' | 'selective';
  readonly onReject: 'keep' | 'drop';
}

export interface ChannelSpec {
  readonly capacity: number;
  readonly transactionCapacity: number;
  readonly impatient: boolean;
}

export interface OutputSpec {
  readonly batchSize: number;
  readonly deliveries: number;
  readonly emitter: EmitterSpec;
}

export interface SinkSpec {
  readonly kind: 'writer' | 'raw';
  readonly concurrency: number;
  readonly attempts: number;
}

export type StageSpec =
  | { readonly op: 'mark'; readonly concurrency: number; readonly async: boolean }
  | { readonly op: 'filter' }
  | { readonly op: 'expand' }
  | { readonly op: 'mapBatch' }
  | { readonly op: 'rebatch'; readonly maxEvents: number; readonly maxDelay: number }
  | { readonly op: 'keyed'; readonly concurrency: number; readonly perKey: number }
  | { readonly op: 'memory'; readonly channel: ChannelSpec; readonly output: OutputSpec }
  | { readonly op: 'deadLetter'; readonly maxAttempts: number; readonly sink: SinkSpec };

export type TailSpec =
  | { readonly to: 'sink'; readonly sink: SinkSpec }
  /** One of the channels that several flows share; a sink if there is none behind. */
  | { readonly to: 'channel'; readonly channel: number; readonly sink: SinkSpec }
  | {
      readonly to: 'replicate';
      readonly branches: readonly PipelineSpec[];
      readonly optional: readonly PipelineSpec[];
      readonly attempts: number;
    }
  | { readonly to: 'route'; readonly branches: readonly PipelineSpec[]; readonly attempts: number };

export interface PipelineSpec {
  readonly stages: readonly StageSpec[];
  readonly tail: TailSpec;
}

export interface GraphSpec {
  readonly seed: number;
  readonly faults: readonly Fault[];
  readonly inputs: readonly { readonly sources: readonly SourceSpec[]; readonly pipeline: PipelineSpec }[];
  readonly channels: readonly {
    readonly channel: ChannelSpec;
    readonly output: OutputSpec;
    readonly pipeline: PipelineSpec;
    /** Flows that take from it. */
    readonly outputs: number;
  }[];
  /** One set of books for all flows, or one for each. */
  readonly books: 'shared' | 'own';
  readonly ends: readonly {
    readonly at: number;
    readonly flow: number;
    readonly how: 'stop' | 'abort';
    readonly timeout: number;
    readonly pause: number;
  }[];
  /** Until when things go wrong. */
  readonly healAt: number;
}

const upTo = (max: number, min = 1) => fc.integer({ min, max });
const ms = fc.oneof(upTo(20), upTo(500));

const emitter = fc.record<EmitterSpec>({
  order: fc.oneof(
    { weight: 4, arbitrary: fc.constant('strict' as const) },
    { weight: 1, arbitrary: fc.constant('selective' as const) },
  ),
  onReject: fc.constantFrom('keep', 'drop'),
});

const source = fc.record<SourceSpec>({
  steps: fc.array(
    fc.oneof(
      { weight: 8, arbitrary: upTo(6) },
      { weight: 1, arbitrary: fc.constant('break' as const) },
      { weight: 2, arbitrary: fc.record({ wait: ms }) },
    ),
    { minLength: 1, maxLength: 24 },
  ),
  idle: fc.boolean(),
  pushing: fc.boolean(),
  blocks: fc.boolean(),
  deliveries: upTo(5),
  events: upTo(12),
  emitter,
  cuts: fc.array(ms, { maxLength: 2 }),
});

const channel = fc.record<ChannelSpec>({
  capacity: fc.oneof(upTo(8), upTo(100)),
  transactionCapacity: upTo(8),
  impatient: fc.boolean(),
});

const output = fc.record<OutputSpec>({ batchSize: upTo(8), deliveries: upTo(4), emitter });

const sink = fc.record<SinkSpec>({
  kind: fc.constantFrom('writer', 'raw'),
  concurrency: upTo(3),
  attempts: upTo(4),
});

const stage = fc.oneof<fc.Arbitrary<StageSpec>[]>(
  fc.record({ op: fc.constant('mark' as const), concurrency: upTo(4), async: fc.boolean() }),
  fc.record({ op: fc.constant('mark' as const), concurrency: upTo(4), async: fc.boolean() }),
  fc.constant({ op: 'filter' }),
  fc.constant({ op: 'expand' }),
  fc.constant({ op: 'mapBatch' }),
  fc.record({ op: fc.constant('rebatch' as const), maxEvents: upTo(8), maxDelay: upTo(50) }),
  fc.record({ op: fc.constant('keyed' as const), concurrency: upTo(3), perKey: upTo(2) }),
  fc.record({ op: fc.constant('memory' as const), channel, output }),
  fc.record({ op: fc.constant('memory' as const), channel, output }),
  fc.record({ op: fc.constant('deadLetter' as const), maxAttempts: upTo(5), sink }),
);

const { pipeline } = fc.letrec<{ pipeline: PipelineSpec; tail: TailSpec }>(tie => ({
  pipeline: fc.record({ stages: fc.array(stage, { maxLength: 4 }), tail: tie('tail') }),
  tail: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    { weight: 4, arbitrary: fc.record({ to: fc.constant('sink' as const), sink }) },
    { weight: 4, arbitrary: fc.record({ to: fc.constant('channel' as const), channel: fc.nat({ max: 3 }), sink }) },
    {
      weight: 1,
      arbitrary: fc.record({
        to: fc.constant('replicate' as const),
        branches: fc.array(tie('pipeline'), { minLength: 1, maxLength: 2 }),
        optional: fc.array(tie('pipeline'), { maxLength: 1 }),
        attempts: upTo(5),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        to: fc.constant('route' as const),
        branches: fc.array(tie('pipeline'), { minLength: 1, maxLength: 3 }),
        attempts: upTo(5),
      }),
    },
  ),
}));

export const graphs = fc.record<GraphSpec>({
  seed: fc.nat(),
  faults: fc.oneof({ weight: 1, arbitrary: fc.constant([]) }, { weight: 9, arbitrary: fc.subarray([...faults]) }),
  inputs: fc.array(fc.record({ sources: fc.array(source, { minLength: 1, maxLength: 2 }), pipeline }), {
    minLength: 1,
    maxLength: 3,
  }),
  channels: fc.array(fc.record({ channel, output, pipeline, outputs: upTo(2) }), { maxLength: 2 }),
  books: fc.constantFrom('shared', 'own'),
  ends: fc.array(
    fc.record({ at: ms, flow: fc.nat({ max: 9 }), how: fc.constantFrom('stop', 'abort'), timeout: ms, pause: ms }),
    { maxLength: 3 },
  ),
  healAt: upTo(2000, 200),
});

/** Which branch of a route gets an event, by its key. */
export const branchOf = (key: string, branches: number): number => (key.codePointAt(0) ?? 0) % branches;
