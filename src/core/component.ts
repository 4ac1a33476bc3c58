/**
 * What the agent, the validator and the docs know about a component. A component is one value: calling it makes a source,
 * a channel or a sink; its properties describe it.
 *
 * @module
 */
import type { Observable } from 'rxjs';
import type { z } from 'zod';
import type { Delivery } from './delivery.ts';
import type { ErrorCode } from './errors.ts';
import type { FlumeEvent } from './event.ts';
import { parseOptions } from './options.ts';
import type { MaxInFlight, Redelivery } from './outlet.ts';
import type { Log } from './scope.ts';
import { createSink, type Sink, type SinkOptions, type SinkWriter } from './sink.ts';
import { createSource, type SourceOpener, type SourceOptions } from './source.ts';

/** What a component found when it tried what its options name. No secret is in it. */
export interface Finding {
  /** An error: it cannot work like this. A note says what is there. */
  readonly severity: 'error' | 'warning' | 'note';
  /** Default MR_CONFIG. */
  readonly code?: ErrorCode;
  readonly message: string;
  /** The option that says so. */
  readonly option?: string;
  /** What to do, as a sentence. */
  readonly advice?: string;
}

/** What a component has while it tries something. */
export interface ProbeContext {
  readonly log: Log;
  /** It took too long: connections are to be closed. */
  readonly signal: AbortSignal;
  /** Of a channel: whether a source puts into it, and whether a sink takes from it. */
  readonly fed: boolean;
  readonly drained: boolean;
}

/** The description of a component, beside its code. */
export interface ComponentInfo<S extends z.ZodObject = z.ZodObject> {
  /** Flume's alias, matched in any case: `netcat`. */
  readonly type: string;
  /** Flume's class name, matched exactly. */
  readonly className: string;
  /** One sentence for lists. */
  readonly summary: string;
  readonly options: S;
  /** The option that bounds a batch, which Flume checks against the channel's transaction capacity. */
  readonly batchSizeOption?: string;
  /**
   * Tries whether what these options name elsewhere is there and may be used, for `millrace validate --connect`. Changes
   * nothing. What is wrong is in the findings; it rejects with what it did not expect.
   */
  probe?(options: z.output<S>, context: ProbeContext): Promise<readonly Finding[]>;
}

/** How one instance is told apart from others of its kind, in metrics and logs. Default: the component's type. */
export interface Identity {
  readonly name?: string;
}

/** Hangs the description on the function that makes the component. */
export const describe = <S extends z.ZodObject, F extends object>(
  info: ComponentInfo<S>,
  make: F,
): F & ComponentInfo<S> => Object.assign(make, info);

/** Options may be left out when none is required. */
export type Given<Options, More extends unknown[] = []> =
  Partial<Options> extends Options
    ? [options?: Options, identity?: Identity, ...More]
    : [options: Options, identity?: Identity, ...More];

/** What every source can be told in code besides its own options. */
export interface SourceTuning {
  readonly maxInFlight?: MaxInFlight;
  readonly redelivery?: Redelivery;
}

/** Makes a source component from its description and its opener. */
export const defineSource = <S extends z.ZodObject, Tag>(
  info: ComponentInfo<S> &
    Omit<SourceOptions, 'name'> & {
      open: (options: z.output<S>) => SourceOpener<FlumeEvent, Tag>;
      /** For a source whose options decide who sends again what failed, and when. */
      settling?: (options: z.output<S>) => Pick<SourceOptions, 'onFailure' | 'replayable' | 'redelivery'>;
    },
) => {
  const { open, settling, onFailure, replayable, drainTimeout, maxInFlight, redelivery, ...description } = info;
  return describe(
    description as ComponentInfo<S>,
    (...given: Given<z.input<S> & SourceTuning>): Observable<Delivery> => {
      const {
        maxInFlight: window = maxInFlight,
        redelivery: again = redelivery,
        ...own
      } = (given[0] ?? {}) as SourceTuning;
      const options = parseOptions(info.type, info.options, own);
      return createSource(open(options), {
        ...(onFailure && { onFailure }),
        ...(replayable !== undefined && { replayable }),
        ...(drainTimeout !== undefined && { drainTimeout }),
        ...settling?.(options),
        ...(window && { maxInFlight: window }),
        ...(again && { redelivery: again }),
        name: given[1]?.name ?? info.type,
      });
    },
  );
};

/** Makes a sink component from its description and its writer. */
export const defineSink = <S extends z.ZodObject>(
  info: ComponentInfo<S> & { open: (options: z.output<S>) => SinkWriter },
) => {
  const { open, ...description } = info;
  return describe(description as ComponentInfo<S>, (...given: Given<z.input<S> & SinkOptions>): Sink => {
    const { concurrency, retry, ...own } = (given[0] ?? {}) as SinkOptions;
    const options = parseOptions(info.type, info.options, own);
    const batchSize = info.batchSizeOption === undefined ? undefined : (options[info.batchSizeOption] as number);
    return createSink(open(options), {
      ...(concurrency !== undefined && { concurrency }),
      ...(retry && { retry }),
      ...(batchSize !== undefined && { batchSize }),
      name: given[1]?.name ?? info.type,
    });
  });
};
