/**
 * From the lines of a Flume configuration to a plan of what to run, or to everything that is wrong with it.
 *
 * Flume starts what it can: it removes a component that it does not understand, and runs the rest. Here that is an error,
 * and an agent with errors does not start. What does no harm (a key that nobody reads, a channel that nobody uses) is a
 * warning.
 *
 * @module
 */
import type { ComponentInfo } from '../core/component.ts';
import { nearest } from '../core/nearest.ts';
import { shown } from '../core/options.ts';
import { fieldsOf, readComponent, type Planned } from './component-options.ts';
import { readProperties, type Entries } from './properties.ts';
import {
  findType,
  reportType,
  type ChannelComponent,
  type Registry,
  type SinkComponent,
  type SourceComponent,
} from './registry.ts';
import { inFileOrder, Problems, type Problem } from './report.ts';
import {
  channelsOf,
  keyPlace,
  listed,
  readAgents,
  suggest,
  words,
  type AgentKeys,
  type Channels,
  type Listed,
} from './sections.ts';
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
  const plan = unreadable
    ? undefined
    : await planAgents(entries, { files, agent, registry, lookups, run: run ?? runCommand }, problems);
  const all = inFileOrder(problems.all);
  return { problems: all, ...(plan !== undefined && problems.errors === 0 && { plan }) };
};

const planAgents = async (
  entries: Entries,
  { files, agent, registry, lookups, run }: Required<Given>,
  problems: Problems,
): Promise<Plan | undefined> => {
  const { entries: resolved, used } = substitute(entries, lookups, problems);
  const agents = readAgents(resolved, used, problems);
  const names = [...agents.keys()];
  const [file = ''] = files;
  if (names.length === 0) {
    problems.error(undefined, 'no agent is configured', { file, expected: `lines like ${agent ?? 'a1'}.sources = r1` });
    return undefined;
  }
  if (agent !== undefined && !agents.has(agent)) {
    const close = nearest(agent, names);
    problems.error(undefined, `there is no agent ${agent}`, {
      file,
      expected: names.length === 1 ? (names[0] ?? '') : `one of ${names.join(', ')}`,
      ...(close !== undefined && { suggestion: close }),
    });
    return undefined;
  }
  const chosen = agent === undefined ? names : [agent];
  let filtered = resolved;
  for (const name of chosen) filtered = await applyConfigFilters(name, filtered, lookups, problems, run);
  const plans = [];
  for (const [name, keys] of readAgents(filtered, used, new Problems())) {
    if (chosen.includes(name)) plans.push(await planAgent(keys, registry, file, problems));
  }
  return plans.length === 1 ? plans[0] : undefined;
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
  checkPorts(agent.name, plannedSources, problems);
  return {
    agent: agent.name,
    sources: plannedSources,
    channels: [...plannedChannels.values()].filter(({ name }) => fed.has(name) || drained.has(name)),
    sinks: plannedSinks,
  };
};

/** Interceptors come with a later version; a source that names one cannot run as its author meant. */
const reportInterceptors = ({ where, keys }: Listed, problems: Problems): void => {
  const names = words(keys.get('interceptors'), problems);
  for (const { text, place } of names) {
    const type = keys.get(`interceptors.${text}.type`);
    if (type === undefined) problems.error(place, `${where}.interceptors.${text} has no type`);
    else reportType('interceptor', type, problems);
  }
  for (const [key, entry] of keys) {
    const [prefix, name = ''] = key.split('.');
    if (prefix === 'interceptors' && key.endsWith('.type') && !names.some(word => word.text === name)) {
      problems.warn(entry.at, `${where}.interceptors.${name} is not listed in interceptors, and is ignored`);
    }
  }
};

/** Flume removes a component whose batch is larger than its channel's transactions. */
const checkBatch = (
  { component, options, places }: Planned<ComponentInfo>,
  { where, keys }: Listed,
  channel: PlannedChannel | undefined,
  problems: Problems,
): void => {
  const option = component.batchSizeOption;
  const batchSize = option === undefined ? undefined : options[option];
  const limit = channel?.options['transactionCapacity'];
  if (typeof batchSize !== 'number' || typeof limit !== 'number' || batchSize <= limit) return;
  const key = fieldsOf(component).find(field => field.name === option)?.key ?? '';
  const line = channel?.places['transactionCapacity']?.line;
  problems.error(places[option ?? ''] ?? keys.get('type')?.place(), `${where}.${key} is ${batchSize}`, {
    expected: `at most ${limit}, the transactionCapacity of ${channel?.name ?? ''}${line === undefined ? '' : ` (line ${line})`}`,
    advice: 'Raise the transactionCapacity of the channel, or lower the batch size.',
  });
};

/** A transaction that would not fit into its channel; Flume removes the channel. */
const checkTransaction = ({ options, places }: PlannedChannel, { where }: Listed, problems: Problems): void => {
  const { capacity, transactionCapacity } = options;
  if (typeof capacity !== 'number' || typeof transactionCapacity !== 'number' || transactionCapacity <= capacity)
    return;
  const { transactionCapacity: given } = places;
  if (given !== undefined) {
    problems.error(given, `${where}.transactionCapacity is ${transactionCapacity}`, {
      expected: `at most ${capacity}, the capacity`,
    });
  } else {
    problems.error(places['capacity'], `${where}.capacity is ${capacity}`, {
      expected: `at least ${transactionCapacity}, the default of transactionCapacity`,
      advice: `Or set ${where}.transactionCapacity.`,
    });
  }
};

/** Sink groups: only the processor that does nothing is built in. */
const checkGroups = (agent: AgentKeys, sinks: readonly Listed[], problems: Problems): void => {
  const known = sinks.map(sink => sink.name);
  const groupOf = new Map<string, string>();
  for (const { name, where, place, keys } of listed(agent, 'sinkgroups', problems)) {
    const members = words(keys.get('sinks'), problems);
    const type = keys.get('processor.type');
    for (const { text, place: at } of members) {
      const other = groupOf.get(text);
      if (!known.includes(text))
        problems.error(at, `there is no sink ${text}`, {
          expected: `one of ${known.join(', ')}`,
          ...suggest(text, known),
        });
      else if (other !== undefined) problems.error(at, `${text} is in two groups, ${other} and ${name}`);
      groupOf.set(text, name);
    }
    if (members.length === 0) {
      const wrong = keys.get('processor.sinks');
      problems.error(wrong === undefined ? place : keyPlace(wrong, 'processor.sinks'), `${where}.sinks is missing`, {
        expected: `${where}.sinks = ${known.join(' ')}`,
        ...(wrong !== undefined && { suggestion: 'sinks' }),
      });
    }
    if (type !== undefined && findType('sink processor', type.value) !== 'default') {
      reportType('sink processor', type, problems, ['default']);
      continue;
    }
    if (members.length > 1) {
      problems.error(type?.place() ?? place, `${where} has ${members.length} sinks under the default processor`, {
        expected: 'one sink',
      });
    }
    for (const [key, entry] of keys) {
      if (key === 'sinks' || key === 'processor.type' || key === 'processor.sinks') continue;
      problems.warn(
        keyPlace(entry, key),
        `a sink group has no option ${key}; it is ignored`,
        suggest(key, ['sinks', 'processor.type']),
      );
    }
  }
};

/** Two components that would write the same file. */
const checkExclusive = (all: readonly Planned<ComponentInfo>[], problems: Problems): void => {
  const owners = new Map<string, string>();
  for (const { name, component, options, places } of all) {
    for (const field of fieldsOf(component).filter(({ info }) => info.exclusive === true)) {
      const id = JSON.stringify([component.type, field.name, options[field.name]]);
      const other = owners.get(id);
      owners.set(id, other ?? name);
      if (other === undefined || options[field.name] === undefined) continue;
      problems.error(places[field.name] ?? places['type'], `${name} and ${other} have the same ${field.key}`, {
        expected: `a ${field.key} of its own`,
        advice: field.info.summary,
      });
    }
  }
};

/** Two sources that would listen on the same port, and one that listens to the whole network without being told. */
const checkPorts = (agent: string, sources: readonly PlannedSource[], problems: Problems): void => {
  const any = (address: unknown) => address === '0.0.0.0' || address === '::';
  const taken: { name: string; port: unknown; bind: unknown }[] = [];
  for (const { name, component, options, places } of sources) {
    const field = fieldsOf(component).find(({ info }) => info.kind === 'port');
    if (field === undefined || options[field.name] === undefined) continue;
    const port = options[field.name];
    const { bind = '0.0.0.0' } = options;
    const place = places[field.name] ?? places['type'];
    if (any(bind) && 'bind' in options && places['bind'] === undefined) {
      const key = `${agent}.sources.${name}.bind`;
      problems.warn(place, `${name} listens on all addresses of this machine, as in Flume`, {
        advice: `Write ${key} = 127.0.0.1 to keep the network out, or ${key} = 0.0.0.0 to say that it is meant.`,
      });
    }
    const other = taken.find(t => port !== 0 && t.port === port && (t.bind === bind || any(t.bind) || any(bind)));
    if (other !== undefined) {
      problems.error(place, `${name} and ${other.name} listen on the same port ${shown(port)}`, {
        expected: 'a port of its own',
      });
    }
    taken.push({ name, port, bind });
  }
};
