/**
 * The keys of one component as its options.
 *
 * @module
 */
import type { z } from 'zod';
import type { ComponentInfo } from '../core/component.ts';
import { toError } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';
import { expectation, fieldInfo, isNotBuiltIn, shown, type FieldInfo } from '../core/options.ts';
import type { Entry } from './properties.ts';
import { findType, reportType, type Kind, type Table } from './registry.ts';
import type { Place, Problems } from './report.ts';
import { keyPlace, suggest, words, type Keys, type Listed } from './sections.ts';

/** One component of an agent: make it with `component(options, { name })`, a channel with `component.create`. */
export interface Planned<C> {
  readonly name: string;
  readonly component: C;
  /** Parsed, with Flume's defaults for what the file does not set. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Where the type was given (`type`), and each option that was. */
  readonly places: Readonly<Record<string, Place>>;
}

/** One option of a component as a configuration file knows it. */
export interface Field {
  /** The option's name in code. */
  readonly name: string;
  /** Its key in a file; a map's ends in `.*`. */
  readonly key: string;
  readonly info: FieldInfo;
}

/** The options that a file can set. */
export const fieldsOf = ({ options }: ComponentInfo): readonly Field[] =>
  Object.entries(options.shape as Record<string, z.ZodType>).flatMap(([name, schema]) => {
    const info = fieldInfo.get(schema);
    if (info === undefined || info.inFile === false) return [];
    return [{ name, key: info.flume ?? (info.kind === 'map' ? `${name}.*` : name), info }];
  });

/** Keys that are read for a component of this kind besides its own options. */
const commonKeys: Readonly<Record<Kind, readonly string[]>> = {
  source: ['type', 'channels', 'interceptors', 'interceptors.*', 'selector.*'],
  channel: ['type'],
  sink: ['type', 'channel'],
};

/** Keys that promise what an agent cannot hold. */
const refusedKeys: Readonly<Record<string, string>> = {
  exactlyOnce:
    'a channel of an agent ends what one transaction would have to span, so only flows in code can have it; leave it out for at least once',
};

/** Keys of Flume that have nothing to act on here. */
const idleKeys: Readonly<Record<string, string>> = {
  batchDurationMillis: 'a batch leaves as soon as it can, and does not wait to become full',
  bufferMaxLines: 'nothing is buffered by lines',
  backoffSleepIncrement: 'sources here wait for data instead of polling for it',
  cachePatternMatching: 'directories are watched here, and not listed for each batch',
  migrateZookeeperOffsets: 'offsets that Kafka 0.8 kept in ZooKeeper are not read; run Flume 1.11 once to move them',
  zookeeperConnect:
    'ZooKeeper is not asked, neither for brokers, which are kafka.bootstrap.servers, nor for offsets of Kafka 0.8, which Flume 1.11 moves when it is run once',
  'kafka.pollTimeout': 'records come as soon as there are any',
  maxBackoffSleep: 'sources here wait for data instead of polling for it',
  'keystore-type': 'the key store itself shows what it is',
};

const covers = (pattern: string, key: string): boolean =>
  pattern.endsWith('.*') ? key.startsWith(pattern.slice(0, -1)) && key.length >= pattern.length : key === pattern;

/** Finds the component's type and reads its options; undefined when something is wrong with them. */
export const readComponent = async <C extends ComponentInfo>(
  kind: Kind,
  table: Table<C>,
  { name, where, keys, place }: Listed,
  problems: Problems,
): Promise<Planned<C> | undefined> => {
  const type = keys.get('type');
  if (type === undefined) {
    const [typo, entry] = [...keys].find(([key]) => nearest(key, ['type']) !== undefined) ?? [];
    problems.error(entry === undefined ? place : keyPlace(entry, typo ?? ''), `${where} has no type`, {
      expected: `${where}.type = ${Object.keys(table).join(' | ')}`,
      ...(entry !== undefined && { suggestion: 'type' }),
    });
    return undefined;
  }
  const registered = Object.keys(table);
  const load = table[findType(kind, type.value, registered) ?? ''];
  if (load === undefined) {
    reportType(kind, type, problems, registered);
    return undefined;
  }
  let component: C;
  try {
    component = await load();
  } catch (error) {
    problems.error(type.place(), `the ${kind} ${type.value} cannot be loaded: ${toError(error).message}`);
    return undefined;
  }
  const read = readOptions(component, kind, where, keys, type, problems);
  return read && { name, component, ...read };
};

/** Keys and values as options, or undefined when there are errors among them. */
const readOptions = (
  component: ComponentInfo,
  kind: Kind,
  where: string,
  keys: Keys,
  type: Entry,
  problems: Problems,
): Pick<Planned<unknown>, 'options' | 'places'> | undefined => {
  const before = problems.errors;
  const fields = fieldsOf(component);
  const set = assign(component, kind, where, keys, fields, problems);
  const given: Record<string, unknown> = {};
  for (const field of fields) {
    const { name, key, info } = field;
    const entries = set.get(name);
    if (info.listedIn !== undefined) {
      const ordered = orderedByList(where, field, keys.get(info.listedIn), entries, type, problems);
      if (ordered.size > 0) given[name] = valuesOf(ordered);
    } else if (entries !== undefined) {
      given[name] = info.kind === 'map' ? valuesOf(entries) : entries.get('')?.value;
    } else if (info.agentDefault !== undefined) {
      given[name] = info.agentDefault;
    } else if (info.required === true) {
      problems.error(type.place(), `${where}.${key} is missing`, { expected: expectation(info), advice: info.summary });
    }
  }

  const parsed = component.options.safeParse(given);
  for (const issue of parsed.error?.issues ?? []) {
    const [name = '', inner = ''] = issue.path.map(String);
    const field = fields.find(f => f.name === name);
    const entry = set.get(name)?.get(inner) ?? set.get(name)?.get('') ?? type;
    if (field === undefined) problems.error(type.place(), `${where}: ${issue.message}`);
    else if (issue.code === 'custom')
      problems.error(entry.place(), `${where}.${field.key.replace(/\*$/, inner)}: ${issue.message}`);
    else if (Object.hasOwn(given, name)) badValue(where, field, entry, problems);
  }
  if (!parsed.success || problems.errors > before) return undefined;
  const places = fields.flatMap(({ name }) => {
    const entry = set.get(name)?.get('');
    return entry === undefined ? [] : [[name, entry.place()] as const];
  });
  return { options: parsed.data, places: Object.fromEntries([['type', type.place()], ...places]) };
};

/** Option → the entries that set it: under their own names for a map, under an empty one for anything else. */
const assign = (
  { type }: ComponentInfo,
  kind: Kind,
  where: string,
  keys: Keys,
  fields: readonly Field[],
  problems: Problems,
): ReadonlyMap<string, ReadonlyMap<string, Entry>> => {
  const set = new Map<string, Map<string, Entry>>();
  const others = [...commonKeys[kind], ...fields.flatMap(({ info }) => info.listedIn ?? [])];
  // The longest pattern first, so that `headers.f1.*` would go before `headers.*`.
  const bySpecificity = [...fields].sort((a, b) => b.key.length - a.key.length);
  for (const [key, entry] of keys) {
    const named = fields.find(f => f.key === key || f.info.formerly === key);
    const field = named ?? bySpecificity.find(f => covers(f.key, key));
    if (field?.info.formerly === key && key !== field.key && keys.has(field.key)) {
      const today = `${field.key}, which it is called today, is set too`;
      problems.warn(keyPlace(entry, key), `${where}.${key} is ignored: ${today}`);
    } else if (field !== undefined) {
      const entries = set.get(field.name) ?? new Map<string, Entry>();
      const inner = field.info.kind === 'map' ? key.slice(field.key.length - 1) : '';
      set.set(field.name, entries.set(inner, entry));
      const idle = field.info.entries?.find(known => known.key === inner && known.effect === 'none');
      if (idle !== undefined) problems.warn(entry.at, `${where}.${key} has no effect: ${idle.summary}`);
    } else if (Object.hasOwn(refusedKeys, key)) {
      problems.error(entry.at, `${where}.${key}: ${refusedKeys[key] ?? ''}`);
    } else if (Object.hasOwn(idleKeys, key)) {
      problems.warn(entry.at, `${where}.${key} has no effect: ${idleKeys[key] ?? ''}`);
    } else if (!others.some(pattern => covers(pattern, key)) && !isMisplaced(key, kind, keys)) {
      const close = suggest(key, [...fields.map(f => plain(f.key)), ...others.map(plain)]);
      problems.warn(keyPlace(entry, key), `${type} has no option ${key}; it is ignored`, close);
    }
  }
  return set;
};

/** `channel` of a source without `channels`, and the other way round: that is reported as the missing one. */
const isMisplaced = (key: string, kind: Kind, keys: Keys): boolean =>
  (kind === 'source' && key === 'channel' && !keys.has('channels')) ||
  (kind === 'sink' && key === 'channels' && !keys.has('channel'));

/** A key pattern as one would type it. */
const plain = (pattern: string): string => pattern.replace(/\.\*$/, '');

const valuesOf = (entries: ReadonlyMap<string, Entry>): Record<string, string> =>
  Object.fromEntries([...entries].map(([key, { value }]) => [key, value]));

/** A map's entries in the order of the list that names them, as in `filegroups = f1 f2` with `filegroups.f1 = …`. */
const orderedByList = (
  where: string,
  { key, info }: Field,
  list: Entry | undefined,
  entries: ReadonlyMap<string, Entry> = new Map(),
  type: Entry,
  problems: Problems,
): ReadonlyMap<string, Entry> => {
  const listKey = `${where}.${info.listedIn ?? ''}`;
  if (list === undefined) {
    const first = entries.values().next().value;
    if (first !== undefined || info.required === true) {
      problems.error(first?.at ?? type.place(), `${listKey} is missing`, {
        expected: `${listKey} = ${[...entries.keys()].join(' ') || 'names'}`,
        advice: info.summary,
      });
    }
    return entries;
  }
  const ordered = new Map<string, Entry>();
  const names = words(list, problems);
  const idle = new Set(entries.keys());
  const missing = names.filter(({ text }) => {
    const own = [...entries].filter(([name]) => name === text || name.startsWith(`${text}.`));
    for (const [name, entry] of own) {
      ordered.set(name, entry);
      idle.delete(name);
    }
    return own.length === 0;
  });
  for (const { text, place } of missing) {
    problems.error(place, `${text} is listed, but ${where}.${plain(key)}.${text} is missing`, suggest(text, idle));
  }
  for (const name of idle) {
    problems.warn(
      entries.get(name)?.at,
      `${where}.${plain(key)}.${name} is not listed in ${info.listedIn ?? ''}, and is ignored`,
    );
  }
  return ordered;
};

const badValue = (where: string, { key, info }: Field, entry: Entry, problems: Problems): void => {
  if (isNotBuiltIn(info, entry.value)) {
    problems.error(entry.place(), `${where}.${key} is ${entry.value}, which is not built in yet`, {
      code: 'MR_NOT_BUILT_IN',
      expected: expectation(info),
    });
    return;
  }
  const secret = entry.secret || info.kind === 'secret';
  const suggestion = secret ? undefined : meant(entry.value, info);
  problems.error(entry.place(), `${where}.${key} is ${secret ? '***' : shown(entry.value)}`, {
    expected: expectation(info),
    ...(suggestion !== undefined && { suggestion }),
    ...(/\s[#!]/.test(entry.value) && { advice: 'A comment needs a line of its own.' }),
    ...(info.kind === 'choice' && /^\w+(\.\w+)+\$?\w*$/.test(entry.value) && { advice: 'Java code cannot run here.' }),
  });
};

/** What people write for a value that is a little wrong. */
const meant = (value: string, { kind, choices }: FieldInfo): string | undefined => {
  if (kind === 'choice') return nearest(value, choices ?? []);
  if (kind === 'boolean') {
    if (/^(yes|y|on|1)$/i.test(value)) return 'true';
    if (/^(no|n|off|0)$/i.test(value)) return 'false';
    return nearest(value, ['true', 'false']);
  }
  const digits = value.replace(/[\s,_']|[#!].*$/g, '');
  return (kind === 'integer' || kind === 'port') && digits !== value && /^\d+$/.test(digits) ? digits : undefined;
};
