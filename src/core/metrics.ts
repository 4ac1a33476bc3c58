/**
 * Counters and gauges under Flume's names, one object per component. Components bump plain numbers; whoever wants to see
 * them reads a snapshot. A gauge is a getter.
 *
 * @module
 */

export type ComponentKind = 'SOURCE' | 'CHANNEL' | 'SINK';

/** The counters of one component: `{ EventReceivedCount: 12, … }`. */
export type Counters = Record<string, number>;

/** All counters of a flow or an agent, keyed as Flume does: `CHANNEL.c1`. */
export class Metrics {
  /** Components that go on, though something is wrong for them, by name: what it is. */
  readonly troubles = new Map<string, Error>();
  readonly #components = new Map<string, Counters>();

  /** Something is wrong for a component, or nothing any more. */
  trouble(name: string, wrong: Error | undefined): void {
    if (wrong === undefined) this.troubles.delete(name);
    else this.troubles.set(name, wrong);
  }

  /** Adds a component's counters; a name that is taken gets a number behind it. Returns the same object, to be bumped. */
  register<C extends Counters>(kind: ComponentKind, name: string, counters: C): C {
    let key = `${kind}.${name}`;
    for (let n = 2; this.#components.has(key) && this.#components.get(key) !== counters; n++)
      key = `${kind}.${name}-${n}`;
    this.#components.set(key, counters);
    return counters;
  }

  /** The counters that were registered under a name, so that a component that is restarted goes on counting. */
  find(kind: ComponentKind, name: string): Counters | undefined {
    return this.#components.get(`${kind}.${name}`);
  }

  snapshot(): Record<string, Counters> {
    const all: Record<string, Counters> = {};
    for (const [key, counters] of this.#components) all[key] = { ...counters };
    return all;
  }
}

/** What every source counts, under Flume's names. Times are epoch milliseconds. */
export const sourceCounters = () => ({
  EventReceivedCount: 0,
  EventAcceptedCount: 0,
  AppendReceivedCount: 0,
  AppendAcceptedCount: 0,
  AppendBatchReceivedCount: 0,
  AppendBatchAcceptedCount: 0,
  OpenConnectionCount: 0,
  EventReadFail: 0,
  ChannelWriteFail: 0,
  GenericProcessingFail: 0,
  StartTime: 0,
  StopTime: 0,
});

/** What every channel counts, under Flume's names. */
export const channelCounters = () => ({
  EventPutAttemptCount: 0,
  EventPutSuccessCount: 0,
  EventTakeAttemptCount: 0,
  EventTakeSuccessCount: 0,
  StartTime: 0,
  StopTime: 0,
});

/** What every sink counts, under Flume's names. */
export const sinkCounters = () => ({
  ConnectionCreatedCount: 0,
  ConnectionClosedCount: 0,
  ConnectionFailedCount: 0,
  BatchEmptyCount: 0,
  BatchUnderflowCount: 0,
  BatchCompleteCount: 0,
  EventDrainAttemptCount: 0,
  EventDrainSuccessCount: 0,
  EventWriteFail: 0,
  ChannelReadFail: 0,
  StartTime: 0,
  StopTime: 0,
});

export type SourceCounters = ReturnType<typeof sourceCounters>;
export type ChannelCounters = ReturnType<typeof channelCounters>;
export type SinkCounters = ReturnType<typeof sinkCounters>;
