/**
 * What the agent, the validator and the docs know about a component. A component is one value: calling it makes a source,
 * a channel or a sink; its properties describe it.
 *
 * @module
 */
import type { z } from 'zod';

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
}

/** How one instance is told apart from others of its kind, in metrics and logs. Default: the component's type. */
export interface Identity {
  readonly name?: string;
}

/** A component: a function from its options to a value of kind `V`, with its description. */
export type Component<S extends z.ZodObject, V> = ((options: z.input<S>, identity?: Identity) => V) & ComponentInfo<S>;

/** Hangs the description on the function that makes the component. */
export const describe = <S extends z.ZodObject, F extends (...given: never[]) => unknown>(
  info: ComponentInfo<S>,
  make: F,
): F & ComponentInfo<S> => Object.assign(make, info);
