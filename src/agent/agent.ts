/**
 * Runs a plan: channels first, then sinks, then sources; each source and each sink is a flow of its own, so that one that
 * fails leaves the others alone.
 *
 * @module
 */
import { retry, type Observable } from 'rxjs';
import { backoffDelay, systemClock, type Timer } from '../core/clock.ts';
import type { Channel, Input } from '../core/channel.ts';
import type { Delivery } from '../core/delivery.ts';
import { MillraceError, toError } from '../core/errors.ts';
import type { FlumeEvent } from '../core/event.ts';
import { run, type FlowSink } from '../core/flow.ts';
import { Ledger } from '../core/ledger.ts';
import { Metrics } from '../core/metrics.ts';
import { inScope, Scope, type Context, type Log } from '../core/scope.ts';
import type { Sink } from '../core/sink.ts';
import { replicate } from '../operators/routing/replicate.ts';
import { route } from '../operators/routing/route.ts';
import type { Plan, PlannedChannel, PlannedSink, PlannedSource } from './plan.ts';
import type { Route } from './selectors.ts';

/** How long a source that broke, or a channel that could not be opened, waits before it is opened again. */
const restart = { initial: 1000, max: 30_000 };

export interface Agent {
  readonly metrics: Metrics;
  /** The books of each flow: the sources, channels and sinks that hang together, named by their channels. */
  readonly ledgers: ReadonlyMap<string, Ledger>;
  /** Components that do not run now, with the reason. */
  readonly troubles: ReadonlyMap<string, string>;
  /** Sources stop, channels drain, sinks finish. Rejects when that takes longer than `timeout` ms. */
  stop(options: { readonly timeout: number }): Promise<void>;
  /** Everything ends now. What a memory channel holds is lost. */
  abort(): void;
}

/** What is lent to an agent's components. */
export interface AgentOptions {
  readonly log: Log;
  readonly clock?: Context['clock'];
  readonly random?: Context['random'];
}

/** What is wrong, for people and for machines. */
const textOf = (cause: Error): string =>
  cause instanceof MillraceError ? `${cause.code}: ${cause.message}` : cause.message;

/** Starts everything in the plan. A component that cannot start is reported and tried again; it does not stop the others. */
export const startAgent = (plan: Plan, options: AgentOptions): Agent => {
  const metrics = new Metrics();
  const ledgers = new Map<string, Ledger>();
  const scopes = new Map<string, Scope>();
  for (const names of connected(plan)) {
    const ledger = new Ledger();
    ledgers.set(names.join('+'), ledger);
    for (const name of names) scopes.set(name, new Scope({ ...options, metrics, ledger }));
  }
  const scopeOf = (channel: string) => scopes.get(channel) as Scope;

  const channels = new Map(plan.channels.map(planned => [planned.name, open(planned, scopeOf(planned.name))]));
  const channel = (name: string) => channels.get(name) as Channel;

  const sinks: { name: string; sink: Sink }[] = [];
  const draining = plan.sinks.map(planned => {
    const sink = planned.component(planned.options, { name: planned.name });
    sinks.push({ name: planned.name, sink });
    return inScope(scopeOf(planned.channel), () => run(channel(planned.channel).output(batching(planned)), sink));
  });

  const broken = new Map<string, { reason: string; at: number }>();
  const filling = plan.sources.map(planned => {
    const scope = scopeOf(planned.channels[0] as string);
    return inScope(scope, () => run(supervised(planned, plan, scope, broken), into(planned, channel)));
  });

  for (const flow of [...draining, ...filling]) {
    flow.done.catch((thrown: unknown) =>
      options.log.error(`a flow has ended: ${toError(thrown).message}`, { cause: thrown }),
    );
  }

  /** First the sources, so that nothing new comes; then the channels, which end when their inputs have; then the sinks. */
  const drain = async () => {
    await Promise.allSettled(filling.map(flow => flow.stop({ timeout: Infinity })));
    for (const one of channels.values()) one.end({ keep: true });
    await Promise.allSettled(draining.map(flow => flow.done));
    await Promise.all(Array.from(channels.values(), one => one.closed));
  };
  const abort = () => {
    for (const flow of [...filling, ...draining]) flow.abort();
    for (const one of channels.values()) void one.close();
  };

  return {
    metrics,
    ledgers,
    get troubles() {
      const troubles = new Map<string, string>();
      for (const [name, { reason, at }] of broken) {
        // A source that has opened since runs again.
        if ((metrics.find('SOURCE', name)?.['StartTime'] ?? 0) <= at) troubles.set(name, reason);
      }
      for (const [name, cause] of metrics.troubles) troubles.set(name, textOf(cause));
      for (const [name, { trouble }] of channels) if (trouble !== undefined) troubles.set(name, textOf(trouble));
      for (const { name, sink } of sinks) if (sink.trouble !== undefined) troubles.set(name, textOf(sink.trouble));
      return troubles;
    },
    async stop({ timeout }) {
      const clock = options.clock ?? systemClock;
      let late: Timer;
      const deadline = new Promise<never>((_, reject) => {
        late = clock.after(timeout, () => {
          const held = [...ledgers.values()].reduce((sum, ledger) => sum + ledger.held, 0);
          abort();
          reject(
            new MillraceError(
              'MR_FLOW_STOPPED',
              `the agent did not drain within ${timeout} ms; ${held} events were held.`,
            ),
          );
        });
      });
      try {
        await Promise.race([drain(), deadline]);
      } finally {
        clock.cancel(late);
      }
    },
    abort,
  };
};

const open = ({ name, component, options }: PlannedChannel, scope: Scope): Channel =>
  inScope(scope, () => component.create(options, { name }, { reopen: restart }));

/** A sink takes batches of the size it asks for; its channel's transaction capacity is the limit anyway. */
const batching = ({ component, options }: PlannedSink) => {
  const batchSize = component.batchSizeOption === undefined ? undefined : options[component.batchSizeOption];
  return typeof batchSize === 'number' ? { batchSize } : {};
};

/** A source that is opened again, after a while, whenever it breaks. */
const supervised = (
  { name, component, options, channels }: PlannedSource,
  plan: Plan,
  { clock, random, log }: Scope,
  broken: Map<string, { reason: string; at: number }>,
): Observable<Delivery> => {
  let failures = 0;
  // As in Flume, a request is one transaction: more events than its channels take at a time can never be accepted.
  const limited =
    'maxEventsPerRequest' in options
      ? {
          ...options,
          maxEventsPerRequest: Math.min(options['maxEventsPerRequest'] as number, transactionCapacity(plan, channels)),
        }
      : options;
  return component(limited, { name }).pipe(
    retry({
      delay: thrown => {
        const cause = toError(thrown);
        // Having run for a while counts as having recovered.
        const previous = broken.get(name)?.at ?? 0;
        failures = clock.now() - previous > 2 * restart.max ? 1 : failures + 1;
        const delay = backoffDelay(restart, failures, random);
        broken.set(name, { reason: textOf(cause), at: clock.now() });
        log.error(`${name} does not run: ${cause.message} It is tried again in ${(delay / 1000).toFixed(1)} s.`, {
          component: name,
          cause,
        });
        return new Promise<void>(again => clock.after(delay, again));
      },
    }),
  );
};

const transactionCapacity = (plan: Plan, channels: readonly string[]): number =>
  Math.min(
    ...plan.channels
      .filter(({ name }) => channels.includes(name))
      .map(({ options }) => (options['transactionCapacity'] as number | undefined) ?? Infinity),
  );

/** Where a source's events go: into its channel, or through its selector into several. */
const into = ({ channels, selector }: PlannedSource, channel: (name: string) => Channel): FlowSink<FlumeEvent> => {
  const inputs = new Map(channels.map(name => [name, channel(name).input()]));
  const to = (names: readonly string[]) => names.map(name => inputs.get(name) as Input);
  if (selector.type === 'replicating') {
    const [only] = inputs.values();
    if (inputs.size === 1 && only !== undefined) return only;
    return replicate(to(selector.required), { optional: to(selector.optional) });
  }
  const { header, mapping, otherwise } = selector;
  const byValue = (part: keyof Route) =>
    Object.fromEntries(Array.from(mapping, ([value, route]) => [value, to(route[part])]));
  // As in Flume, an event that is mapped nowhere leaves the flow; here it is counted as filtered.
  return route(header, { cases: byValue('required'), optional: byValue('optional'), default: to(otherwise.required) });
};

/** The channels that hang together because one source feeds them: groups of names, each in the order of the plan. */
export const connected = ({ channels, sources }: Pick<Plan, 'channels' | 'sources'>): string[][] => {
  const groups = channels.map(({ name }) => [name]);
  const groupOf = (name: string) => groups.findIndex(group => group.includes(name));
  for (const source of sources) {
    for (const name of source.channels.slice(1)) {
      const [to, from] = [groupOf(source.channels[0] as string), groupOf(name)];
      if (to !== from) groups[to]?.push(...(groups.splice(from, 1, [])[0] ?? []));
    }
  }
  return groups.filter(group => group.length > 0);
};
