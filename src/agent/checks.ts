/**
 * What is right for each component alone, but wrong for them together; and what cannot run yet.
 *
 * @module
 */
import type { ComponentInfo } from '../core/component.ts';
import { shown } from '../core/options.ts';
import { fieldsOf, type Planned } from './component-options.ts';
import { findType, reportType } from './registry.ts';
import { oneOf, type Problems } from './report.ts';
import { keyPlace, listed, suggest, words, type AgentKeys, type Listed } from './sections.ts';

/** Interceptors come with a later version; a source that names one cannot run as its author meant. */
export const reportInterceptors = ({ where, keys }: Listed, problems: Problems): void => {
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
export const checkBatch = (
  { component, options, places }: Planned<ComponentInfo>,
  { where, keys }: Listed,
  channel: Planned<ComponentInfo> | undefined,
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
export const checkTransaction = (
  { options, places }: Planned<ComponentInfo>,
  { where }: Listed,
  problems: Problems,
): void => {
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
export const checkGroups = (agent: AgentKeys, sinks: readonly Listed[], problems: Problems): void => {
  const known = sinks.map(sink => sink.name);
  const groupOf = new Map<string, string>();
  for (const { name, where, place, keys } of listed(agent, 'sinkgroups', problems)) {
    const members = words(keys.get('sinks'), problems);
    const type = keys.get('processor.type');
    for (const { text, place: at } of members) {
      const other = groupOf.get(text);
      if (!known.includes(text))
        problems.error(at, `there is no sink ${text}`, {
          expected: oneOf(known),
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

/** Only a file channel numbers its events, and only one sink can know which of them are written. */
export const checkExactlyOnce = (
  sinks: readonly (Planned<ComponentInfo> & { readonly channel: string })[],
  channels: ReadonlyMap<string, Planned<ComponentInfo>>,
  problems: Problems,
): void => {
  for (const { name, channel, options, places } of sinks) {
    if (options['exactlyOnce'] !== true) continue;
    const other = sinks.find(sink => sink.channel === channel && sink.name !== name);
    const { type = 'file' } = channels.get(channel)?.component ?? {};
    const place = places['exactlyOnce'];
    if (type !== 'file')
      problems.error(place, `${name} has exactlyOnce, and takes from a ${type} channel`, {
        expected: 'a channel of type file',
      });
    else if (other !== undefined)
      problems.error(place, `${name} has exactlyOnce, and ${other.name} takes from ${channel} as well`, {
        expected: 'a channel of its own',
      });
  }
};

/** A Kafka sink that writes what a Kafka source reads to where it came from. Flume does so by default. */
export const checkLoops = (
  agent: string,
  sources: readonly (Planned<ComponentInfo> & { readonly channels: readonly string[] })[],
  sinks: readonly (Planned<ComponentInfo> & { readonly channel: string })[],
  problems: Problems,
): void => {
  for (const { name: reader, channels, component, options: read } of sources) {
    for (const { name: writer, channel, component: sink, options: written, places } of sinks) {
      if (component.type !== 'kafka' || sink.type !== 'kafka' || !channels.includes(channel)) continue;
      // With no broker in common it is another cluster, as far as anybody can tell from here.
      const brokers = read['bootstrapServers'] as readonly string[];
      if (!brokers.some(broker => (written['bootstrapServers'] as readonly string[]).includes(broker))) continue;
      const place = places['topic'] ?? places['type'];
      const [from, to] = [`${agent}.sources.${reader}`, `${agent}.sinks.${writer}`];
      const topic = written['topic'] as string;
      const { topics = [], topicsRegex } = read as { topics?: readonly string[]; topicsRegex?: string };
      const header = read['topicHeader'] as string;
      if (
        read['setTopicHeader'] === true &&
        written['allowTopicOverride'] === true &&
        written['topicHeader'] === header
      )
        problems.warn(
          place,
          `${writer} writes back to the topics that ${reader} reads: the header ${header} names them, and wins over the topic of ${writer}`,
          {
            advice:
              `Then ${reader} reads it again, for ever. Set ${to}.allowTopicOverride = false or ${from}.setTopicHeader = false, ` +
              'or another topicHeader in one of them.',
          },
        );
      else if (topicsRegex === undefined ? topics.includes(topic) : new RegExp(`^(?:${topicsRegex})$`).test(topic))
        problems.warn(place, `${writer} writes back to a topic that ${reader} reads, ${topic}`, {
          advice: `Then ${reader} reads it again, for ever. Set another ${to}.kafka.topic.`,
        });
    }
  }
};

/** Two components that would write the same file. */
export const checkExclusive = (all: readonly Planned<ComponentInfo>[], problems: Problems): void => {
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
export const checkPorts = (agent: string, sources: readonly Planned<ComponentInfo>[], problems: Problems): void => {
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
