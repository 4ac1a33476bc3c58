/**
 * Which keys of a configuration belong to which agent, section and component; who is listed, and who is configured.
 *
 * @module
 */
import { nearest } from '../core/nearest.ts';
import type { Entries, Entry } from './properties.ts';
import { oneOf, type Place, type Problems } from './report.ts';

/** What an agent is made of. */
export const sections = ['sources', 'channels', 'sinks', 'sinkgroups', 'configfilters'] as const;
export type SectionName = (typeof sections)[number];

/** The keys of one component without the part that names it: `port` for `a1.sources.r1.port`. */
export type Keys = ReadonlyMap<string, Entry>;

export interface Section {
  /** `a1.sources = r1 r2` */
  list: Entry | undefined;
  readonly configured: Map<string, Map<string, Entry>>;
}

export interface AgentKeys {
  readonly name: string;
  readonly sections: Readonly<Record<SectionName, Section>>;
}

const isSection = (name: string): name is SectionName => (sections as readonly string[]).includes(name);

/** Sorts keys by agent, section and component. What fits nowhere is ignored, as Flume does, with a warning. */
export const readAgents = (
  entries: Entries,
  used: ReadonlySet<string>,
  problems: Problems,
): ReadonlyMap<string, AgentKeys> => {
  const agents = new Map<string, AgentKeys>();
  const strange = new Set<string>();
  for (const [key, entry] of entries) {
    const [name = '', section = '', component, ...rest] = key.split('.');
    if (used.has(key) && !isSection(section)) continue;
    if (name === '' || section === '') {
      problems.warn(entry.at, `${key} belongs to no agent and is ignored`, {
        expected: 'agent.sources.name.key = value',
      });
      continue;
    }
    if (!isSection(section)) {
      if (!strange.has(`${name}.${section}`)) {
        const close = nearest(section, sections);
        problems.warn({ ...entry.at, length: `${name}.${section}`.length }, `${name}.${section} is ignored`, {
          expected: oneOf(sections),
          ...(close !== undefined && { suggestion: `${name}.${close}` }),
        });
      }
      strange.add(`${name}.${section}`);
      continue;
    }
    const keys = agents.get(name) ?? newAgent(name);
    agents.set(name, keys);
    if (entry.value === '') {
      problems.warn(entry.at, `${key} has no value and is ignored`);
    } else if (component === undefined) {
      keys.sections[section].list = entry;
    } else if (component === '' || rest.join('') === '') {
      problems.warn(entry.at, `${key} is ignored: it names no property`, { expected: `${name}.${section}.name.key` });
    } else {
      const { configured } = keys.sections[section];
      const own = configured.get(component) ?? new Map<string, Entry>();
      configured.set(component, own.set(rest.join('.'), entry));
    }
  }
  return agents;
};

const newAgent = (name: string): AgentKeys => {
  const section = (): Section => ({ list: undefined, configured: new Map() });
  return {
    name,
    sections: {
      sources: section(),
      channels: section(),
      sinks: section(),
      sinkgroups: section(),
      configfilters: section(),
    },
  };
};

export interface Word {
  readonly text: string;
  readonly place: Place;
}

/** The words of a list, each with its place; one that comes twice is reported. */
export const words = (entry: Entry | undefined, problems: Problems): readonly Word[] => {
  const found = new Map<string, Word>();
  for (const { 0: text, index } of entry?.value.matchAll(/\S+/g) ?? []) {
    const place = entry?.place(index, text.length);
    if (place === undefined) continue;
    if (found.has(text)) problems.warn(place, `${text} is listed twice`);
    else found.set(text, { text, place });
  }
  return [...found.values()];
};

const texts = (list: readonly Word[]): readonly string[] => list.map(word => word.text);

/** "Did you mean", if anything comes close. */
export const suggest = (word: string, candidates: Iterable<string>): { suggestion?: string } => {
  const close = nearest(word, candidates);
  return close === undefined ? {} : { suggestion: close };
};

/** A component that is listed, and its keys. */
export interface Listed {
  readonly name: string;
  /** `a1.sources.r1` */
  readonly where: string;
  readonly place: Place;
  readonly keys: Keys;
}

/** The last part of an entry's key: the part that names a property. */
export const keyPlace = ({ at }: Entry, part: string): Place => ({
  ...at,
  column: Math.max(1, at.column + at.length - part.length),
  length: part.length,
});

/** Who is listed and configured; who is only one of the two is reported. */
export const listed = (agent: AgentKeys, section: SectionName, problems: Problems): readonly Listed[] => {
  const { list, configured } = agent.sections[section];
  const key = `${agent.name}.${section}`;
  const names = words(list, problems);
  const isListed = new Set(texts(names));
  const idle = [...configured.keys()].filter(name => !isListed.has(name));
  if (list === undefined) {
    const first = configured.values().next().value?.values().next().value;
    if (first !== undefined) problems.error(first.at, `${key} is missing`, { expected: `${key} = ${idle.join(' ')}` });
    return [];
  }
  for (const name of idle) {
    const first = configured.get(name)?.values().next().value;
    problems.warn(first?.at, `${key}.${name} is configured but not listed, and is ignored`, {
      advice: `List it in ${key} (line ${list.at.line}) if it should run.`,
    });
  }
  return names.flatMap(({ text: name, place }) => {
    const keys = configured.get(name);
    if (keys !== undefined) return [{ name, where: `${key}.${name}`, place, keys }];
    problems.error(place, `${name} is listed but not configured`, {
      expected: `lines like ${key}.${name}.${section === 'sinkgroups' ? 'sinks' : 'type'} = …`,
      ...suggest(name, idle),
      ...(name.includes('.') && { advice: 'A name cannot have a dot in it.' }),
    });
    return [];
  });
};

/** The channels of an agent. */
export interface Channels {
  readonly agent: string;
  readonly names: readonly string[];
  readonly section: Section;
}

/** The channels that a source's `channels` or a sink's `channel` names, without those that do not exist. */
export const channelsOf = (
  key: 'channels' | 'channel',
  { where, keys, place }: Listed,
  channels: Channels,
  problems: Problems,
): readonly string[] => {
  const entry = keys.get(key);
  if (entry === undefined) {
    const wrongKey = key === 'channel' ? 'channels' : 'channel';
    const wrong = keys.get(wrongKey);
    const at = wrong === undefined ? (keys.get('type')?.at ?? place) : keyPlace(wrong, wrongKey);
    problems.error(at, `${where}.${key} is missing`, {
      expected: `${where}.${key} = ${channels.names[0] ?? 'c1'}`,
      ...(wrong !== undefined && { suggestion: key }),
    });
    return [];
  }
  const named = words(entry, problems);
  if (key === 'channel' && named.length > 1) {
    problems.error(entry.place(), `${where} has ${named.length} channels`, {
      expected: 'one channel',
      advice: 'A source can feed several channels; a sink takes from one.',
    });
  }
  return named.filter(word => channelExists(word, channels, problems)).map(word => word.text);
};

export const channelExists = (
  { text, place }: Word,
  { agent, names, section }: Channels,
  problems: Problems,
): boolean => {
  if (names.includes(text)) return true;
  const idle = section.configured.has(text);
  // Listed but not configured: that is said where it is listed.
  if (!idle && section.list?.value.split(/\s+/).includes(text) === true) return false;
  problems.error(place, `there is no channel ${text}`, {
    expected: oneOf(names),
    ...(idle ? { advice: `It is configured, but not listed in ${agent}.channels.` } : suggest(text, names)),
  });
  return false;
};
