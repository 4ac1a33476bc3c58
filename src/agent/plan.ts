/**
 * From the lines of a Flume configuration to a plan of what to run, or to everything that is wrong with it.
 *
 * Flume starts what it can: it removes a component that it does not understand, and runs the rest. Here that is an error,
 * and an agent with errors does not start. What does no harm (a key that nobody reads, a channel that nobody uses) is a
 * warning.
 *
 * @module
 */
import { nearest } from '../core/nearest.ts';
import {
  checkBatch,
  checkExactlyOnce,
  checkExclusive,
  checkGroups,
  checkLoops,
  checkPorts,
  checkTransaction,
  reportInterceptors,
} from './checks.ts';
import { readComponent, type Planned } from './component-options.ts';
import { readProperties, type Entries } from './properties.ts';
import type { ChannelComponent, Registry, SinkComponent, SourceComponent } from './registry.ts';
import { inFileOrder, oneOf, Problems, type Problem } from './report.ts';
import { channelsOf, listed, readAgents, type AgentKeys, type Channels } from './sections.ts';
import { readSelector, type Selector } from './selectors.ts';
import { applyConfigFilters, runCommand, substitute, type Lookups, type RunCommand } from './substitution.ts';

export interface PlannedSource extends Planned<SourceComponent> {
  /** Names of channels, never empty. */
  readonly channels: readonly string[];
  readonly selector: Selector;
}

export type PlannedChannel = Planned<ChannelComponent>;

export interface PlannedSink extends Planned<SinkComponent> {
  readonly channel: string;
}

/** An agent that can be run. Every name in it is a name of something in it. */
export interface Plan {
  readonly agent: string;
  readonly sources: readonly PlannedSource[];
  /** Those that a source or a sink uses. */
  readonly channels: readonly PlannedChannel[];
  readonly sinks: readonly PlannedSink[];
}

export interface Checked {
  /** Absent when there are errors, or several agents to choose from. */
  readonly plan?: Plan;
  /** Of all agents that were checked; none when there are errors. */
  readonly plans: readonly Plan[];
  readonly problems: readonly Problem[];
}

/** What there is to check. */
export interface Given {
  /** Paths; a later file overrides an earlier. */
  readonly files: readonly string[];
  /** The agent's name; without one, all agents of the files are checked. */
  readonly agent?: string | undefined;
  readonly registry: Registry;
  readonly lookups: Lookups;
  /** How external config filters run their command. */
  readonly run?: RunCommand;
}

/** Reads and checks a configuration. Never throws for anything in the files: `problems` has all of it, in file order. */
export const check = async ({ files, agent, registry, lookups, run }: Given): Promise<Checked> => {
  const problems = new Problems();
  const entries = await readProperties(files, problems);
  const unreadable = entries.size === 0 && problems.errors > 0;
  const planned = unreadable
    ? []
    : await planAgents(entries, { files, agent, registry, lookups, run: run ?? runCommand }, problems);
  const plans = problems.errors === 0 ? planned : [];
  const [plan, ...others] = plans;
  return { problems: inFileOrder(problems.all), plans, ...(plan !== undefined && others.length === 0 && { plan }) };
};

const planAgents = async (
  entries: Entries,
  { files, agent, registry, lookups, run }: Required<Given>,
  problems: Problems,
): Promise<readonly Plan[]> => {
  const { entries: resolved, used } = substitute(entries, lookups, problems);
  const agents = readAgents(resolved, used, problems);
  const names = [...agents.keys()];
  const [file = ''] = files;
  if (names.length === 0) {
    problems.error(undefined, 'no agent is configured', { file, expected: `lines like ${agent ?? 'a1'}.sources = r1` });
    return [];
  }
  if (agent !== undefined && !agents.has(agent)) {
    const close = nearest(agent, names);
    problems.error(undefined, `there is no agent ${agent}`, {
      file,
      expected: oneOf(names),
      ...(close !== undefined && { suggestion: close }),
    });
    return [];
  }
  const chosen = agent === undefined ? names : [agent];
  let filtered = resolved;
  for (const name of chosen) filtered = await applyConfigFilters(name, filtered, lookups, problems, run);
  const plans = [];
  for (const [name, keys] of readAgents(filtered, used, new Problems())) {
    if (chosen.includes(name)) plans.push(await planAgent(keys, registry, file, problems));
  }
  return plans;
};

const planAgent = async (agent: AgentKeys, registry: Registry, file: string, problems: Problems): Promise<Plan> => {
  const sources = listed(agent, 'sources', problems);
  const channels = listed(agent, 'channels', problems);
  const sinks = listed(agent, 'sinks', problems);
  const has = (section: 'sources' | 'channels' | 'sinks') =>
    agent.sections[section].list !== undefined || agent.sections[section].configured.size > 0;
  if (!has('channels')) {
    problems.error(undefined, `${agent.name} has no channels`, { file, expected: `${agent.name}.channels = c1` });
  }
  if (!has('sources') && !has('sinks')) {
    problems.error(undefined, `${agent.name} has neither sources nor sinks`, {
      file,
      expected: `${agent.name}.sources = r1`,
    });
  }

  const known: Channels = { agent: agent.name, names: channels.map(c => c.name), section: agent.sections.channels };
  const plannedChannels = new Map<string, PlannedChannel>();
  for (const channel of channels) {
    const planned = await readComponent('channel', registry.channel, channel, problems);
    if (planned === undefined) continue;
    plannedChannels.set(channel.name, planned);
    checkTransaction(planned, channel, problems);
  }

  const fed = new Set<string>();
  const plannedSources: PlannedSource[] = [];
  for (const source of sources) {
    const component = await readComponent('source', registry.source, source, problems);
    const names = channelsOf('channels', source, known, problems);
    reportInterceptors(source, problems);
    const selector = readSelector(source, names, known, problems);
    for (const name of names) fed.add(name);
    if (component === undefined) continue;
    for (const name of names) checkBatch(component, source, plannedChannels.get(name), problems);
    plannedSources.push({ ...component, channels: names, selector });
  }

  const drained = new Set<string>();
  const plannedSinks: PlannedSink[] = [];
  for (const sink of sinks) {
    const component = await readComponent('sink', registry.sink, sink, problems);
    const [channel] = channelsOf('channel', sink, known, problems);
    if (channel !== undefined) drained.add(channel);
    if (component === undefined || channel === undefined) continue;
    checkBatch(component, sink, plannedChannels.get(channel), problems);
    plannedSinks.push({ ...component, channel });
  }

  // With errors among the components nobody knows yet who uses what.
  for (const { name, where, place } of problems.errors > 0 ? [] : channels) {
    if (!fed.has(name) && !drained.has(name)) problems.warn(place, `nothing uses ${where}; it is left out`);
    else if (!drained.has(name)) problems.warn(place, `no sink takes from ${where}; it fills, and its sources wait`);
    else if (!fed.has(name)) problems.warn(place, `no source puts into ${where}`);
  }
  checkGroups(agent, sinks, problems);
  checkExclusive([...plannedSources, ...plannedChannels.values(), ...plannedSinks], problems);
  checkExactlyOnce(plannedSinks, plannedChannels, problems);
  checkPorts(agent.name, plannedSources, problems);
  checkLoops(agent.name, plannedSources, plannedSinks, problems);
  return {
    agent: agent.name,
    sources: plannedSources,
    channels: [...plannedChannels.values()].filter(({ name }) => fed.has(name) || drained.has(name)),
    sinks: plannedSinks,
  };
};
