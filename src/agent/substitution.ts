/**
 * `${…}` in the values of a configuration.
 *
 * - `${env:X}` an environment variable, `${sys:X}` the value of `-DX=…`, `${key}` the value of another key of the
 *   configuration, in any order. What they give is looked through again; names nest: `${env:HOME_${sys:site}}`.
 * - `${X:-other}` gives `other` when there is no X. `$${X}` is the text `${X}`.
 * - `${X}` is also an environment variable with `-DpropertiesImplementation=org.apache.flume.node.EnvVarResolverProperties`.
 * - `${f1[key]}`, `${f1['key']}`, `${f1["key"]}` ask the config filter f1 of an agent.
 *
 * What cannot be resolved stays as it is, with a warning; a config filter that cannot answer is an error, because it was
 * set up to answer. Source: apache flume 1.11 and the StringSubstitutor of Apache Commons Text, observed.
 *
 * @module
 */
import { execFile } from 'node:child_process';
import { homedir, tmpdir, userInfo } from 'node:os';
import { TextDecoder } from 'node:util';
import { nearest } from '../core/nearest.ts';
import { looksSecret, propertiesLimits, type Entries, type Entry } from './properties.ts';
import { findType, reportType } from './registry.ts';
import type { Problems } from './report.ts';

/** Limits: how deep expressions nest or refer on, and for how long an external filter may run. */
export const substitutionLimits = { depth: 50, commandMs: 10_000, commandBytes: 1 << 16 } as const;

export interface Lookups {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What was given as `-Dname=value`. */
  readonly system: Readonly<Record<string, string>>;
}

/** What a JVM always knows and configurations use. */
const systemDefaults: Readonly<Record<string, () => string>> = {
  'java.io.tmpdir': tmpdir,
  'user.dir': () => process.cwd(),
  'user.home': homedir,
  'user.name': () => userInfo().username,
};

/** Lookups of Apache Commons Text that are not variables. */
const otherLookups = new Set(
  'base64Decoder base64Encoder const date dns file java localhost properties resourceBundle script url urlDecoder urlEncoder xml'.split(
    ' ',
  ),
);

const own = <T>(record: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(record, name) ? record[name] : undefined;

const filterUse = /\$\{([^\s{}[\]]+)\[(['"]?)([-_a-zA-Z0-9]+)\2\]\}/g;

/** The `}` that closes the `${` at `start`, or -1. */
const closing = (text: string, start: number): number => {
  let open = 0;
  for (let i = start; i < text.length; i++) {
    if (text.startsWith('${', i)) open++;
    else if (text[i] === '}' && --open === 0) return i;
  }
  return -1;
};

interface Found {
  readonly value: string;
  readonly secret: boolean;
}

/** The expression `text` of a value, as a place and as words that give no secret away. */
const expressionAt = (entry: Entry, text: string) => {
  const offset = entry.value.indexOf(text);
  return {
    place: offset < 0 ? entry.place() : entry.place(offset, text.length),
    text: entry.secret ? 'an expression' : text.length > 60 ? `${text.slice(0, 60)}…` : text,
  };
};

/**
 * The entries with all variables resolved, except config filters. `used` are the keys that another value refers to.
 */
export const substitute = (
  entries: Entries,
  { env, system }: Lookups,
  problems: Problems,
): { readonly entries: Entries; readonly used: ReadonlySet<string> } => {
  const used = new Set<string>();
  const known = new Map<string, Found>();
  const bareEnv = system['propertiesImplementation'] === 'org.apache.flume.node.EnvVarResolverProperties';

  /** What a name stands for, before anything in it is resolved. */
  const rawOf = (name: string): string | undefined => {
    const entry = entries.get(name);
    if (entry !== undefined) return entry.value;
    if (name.startsWith('env:')) return own(env, name.slice(4));
    if (name.startsWith('sys:')) return own(system, name.slice(4)) ?? own(systemDefaults, name.slice(4))?.();
    return bareEnv ? own(env, name) : undefined;
  };

  /** The value of a name, with everything in it resolved. `path` are the names that led here. */
  const find = (name: string, path: readonly string[], from: Entry): Found | undefined => {
    const raw = rawOf(name);
    if (raw === undefined || known.has(name)) return known.get(name);
    const entry = entries.get(name);
    const { value, secret } = expand(raw, [...path, name], entry ?? from);
    const found = { value, secret: secret || (entry?.secret ?? looksSecret(name)) };
    known.set(name, found);
    return found;
  };

  const unresolved = (name: string, text: string, entry: Entry, secret: boolean): void => {
    // A config filter's; its turn comes later.
    if (text.replace(filterUse, '') === '') return;
    const { place, text: expression } = expressionAt(entry, text);
    const stays = `${expression} stays as it is:`;
    if (secret) return problems.warn(place, `${stays} there is nothing of that name`);
    const [prefix = '', rest = ''] = /^(\w+):(.*)$/s.exec(name)?.slice(1) ?? [];
    const advice = `Write $${expression} if that is what you want.`;
    if (otherLookups.has(prefix)) {
      problems.warn(place, `${stays} the lookup ${prefix} is not built in`, { code: 'MR_NOT_BUILT_IN', advice });
    } else if (prefix === 'env') {
      problems.warn(place, `${stays} there is no environment variable ${rest}`, { advice });
    } else if (prefix === 'sys') {
      problems.warn(place, `${stays} -D${rest} was not given`, { advice });
    } else {
      const close = own(env, name) === undefined ? nearest(name, entries.keys()) : `env:${name}`;
      problems.warn(
        place,
        `${stays} no key is called ${name}`,
        close === undefined ? { advice } : { suggestion: `\${${close}}` },
      );
    }
  };

  const expand = (text: string, path: readonly string[], entry: Entry): Found => {
    const as = (value: string, secret: boolean): Found => ({ value, secret });
    if (!text.includes('${')) return as(text, false);
    if (path.length > substitutionLimits.depth) {
      problems.error(entry.place(), `${entry.key} nests more than ${substitutionLimits.depth} expressions`);
      return as(text, false);
    }
    let value = '';
    let secret = false;
    let i = 0;
    for (let start = text.indexOf('${'); start >= 0; start = text.indexOf('${', i)) {
      const end = closing(text, start);
      if (end < 0) {
        problems.warn(entry.place(), `a \${ in ${entry.key} is never closed`, { expected: '}' });
        break;
      }
      if (start > i && text[start - 1] === '$') {
        value += `${text.slice(i, start - 1)}\${`;
        i = start + 2;
        continue;
      }
      const expression = text.slice(start, end + 1);
      const inner = expand(text.slice(start + 2, end), [...path, ''], entry);
      const [name = '', ...otherwise] = inner.value.split(':-');
      let found: Found | undefined;
      if (path.includes(name)) {
        const circle = [...path.slice(path.indexOf(name)), name].filter(step => step !== '').join(' → ');
        problems.error(entry.place(), `${name} refers to itself: ${circle}`);
      } else {
        found = find(name, path, entry) ?? (otherwise.length > 0 ? as(otherwise.join(':-'), inner.secret) : undefined);
        if (found === undefined) unresolved(name, expression, entry, entry.secret || inner.secret);
      }
      if (entries.has(name)) used.add(name);
      value += text.slice(i, start) + (found?.value ?? expression);
      secret ||= found?.secret ?? false;
      i = end + 1;
      if (value.length > propertiesLimits.lineLength) {
        problems.error(entry.place(), `${entry.key} grows beyond ${propertiesLimits.lineLength} characters`);
        return as(text, secret);
      }
    }
    return as(value + text.slice(i), secret);
  };

  const resolved = new Map<string, Entry>();
  for (const [key, entry] of entries) {
    const found = find(key, [], entry);
    resolved.set(key, found === undefined || found.value === entry.value ? entry : withValue(entry, found));
  }
  return { entries: resolved, used };
};

/** Only whole values have a place once something was put into them. */
const withValue = (entry: Entry, { value, secret }: Found): Entry => ({
  ...entry,
  value,
  secret: entry.secret || secret,
  place: () => entry.place(),
});

/** Runs the command of an external filter: its output, or why there is none. */
export type RunCommand = (
  words: readonly string[],
) => Promise<{ readonly output: Uint8Array } | { readonly failure: string }>;

export const runCommand: RunCommand = ([command = '', ...words]) =>
  new Promise(resolve => {
    const { commandMs: timeout, commandBytes: maxBuffer } = substitutionLimits;
    execFile(command, words, { encoding: 'buffer', timeout, maxBuffer }, (error, output) => {
      // Neither the command's output nor its arguments belong into a message: they may be secret.
      if (error === null) resolve({ output });
      else if (error.killed === true)
        resolve({ failure: `the command took longer than ${timeout} ms or wrote too much` });
      else if (typeof error.code === 'number') resolve({ failure: `the command ended with status ${error.code}` });
      else resolve({ failure: `the command cannot run (${error.code ?? error.signal ?? 'unknown'})` });
    });
  });

interface Answer {
  readonly value?: string;
  readonly failure?: string;
}

type ConfigFilter = (key: string) => Answer | Promise<Answer>;

/** The values of one agent's components with `${f1[key]}` replaced by what the config filter f1 answers. */
export const applyConfigFilters = async (
  agent: string,
  entries: Entries,
  { env }: Lookups,
  problems: Problems,
  run: RunCommand = runCommand,
): Promise<Entries> => {
  const root = `${agent}.configfilters`;
  const names = entries.get(root)?.value.split(/\s+/) ?? [];
  const filters = new Map<string, ConfigFilter | undefined>();
  for (const name of names.filter(name => name !== ''))
    filters.set(name, openFilter(`${root}.${name}`, entries, env, problems, run));

  const answers = new Map<string, Answer | Promise<Answer>>();
  const result = new Map(entries);
  for (const [key, entry] of entries) {
    if (!key.startsWith(`${agent}.`) || key.startsWith(`${root}.`)) continue;
    let value = entry.value;
    for (const [text, name = '', , variable = ''] of entry.value.matchAll(filterUse)) {
      const at = expressionAt(entry, text);
      if (!filters.has(name)) {
        const close = nearest(name, filters.keys());
        problems.error(at.place, `there is no config filter ${name}`, close === undefined ? {} : { suggestion: close });
        continue;
      }
      const id = JSON.stringify([name, variable]);
      const asked = answers.get(id) ?? filters.get(name)?.(variable);
      if (asked === undefined) continue;
      answers.set(id, asked);
      const { value: answer, failure } = await asked;
      if (answer === undefined) problems.error(at.place, `${name} has no value for ${variable}: ${failure ?? ''}`);
      else value = value.replaceAll(text, () => answer);
    }
    if (value !== entry.value) result.set(key, withValue(entry, { value, secret: true }));
  }
  return result;
};

/** A filter from its keys, or undefined when something about it is wrong (and was reported). */
const openFilter = (
  root: string,
  entries: Entries,
  env: Lookups['env'],
  problems: Problems,
  run: RunCommand,
): ConfigFilter | undefined => {
  const type = entries.get(`${root}.type`);
  if (type === undefined) {
    const list = entries.get(root.slice(0, root.lastIndexOf('.')));
    problems.error(list?.place(), `${root} has no type`, { expected: 'env or external' });
    return undefined;
  }
  const found = findType('config filter', type.value);
  if (found === 'env') {
    return key => {
      const value = own(env, key);
      return value === undefined ? { failure: 'there is no such environment variable' } : { value };
    };
  }
  if (found !== 'external') {
    reportType('config filter', type, problems, ['env', 'external']);
    return undefined;
  }
  const command = entries.get(`${root}.command`);
  const words = command?.value.split(/\s+/).filter(word => word !== '') ?? [];
  if (words.length === 0) {
    problems.error(type.at, `${root} has no command`, { expected: 'the command that prints a value' });
    return undefined;
  }
  const charset = entries.get(`${root}.charset`);
  let decoder: TextDecoder;
  try {
    decoder = new TextDecoder(charset?.value ?? 'utf-8');
  } catch {
    problems.error(charset?.place(), `${charset?.value ?? ''} is not a known character set`, {
      expected: 'utf-8, latin1 …',
    });
    return undefined;
  }
  return async key => {
    const ran = await run([...words, key]);
    if ('failure' in ran) return ran;
    const [line = ''] = decoder.decode(ran.output).split(/\r\n|\r|\n/);
    return ran.output.length === 0 ? { failure: 'the command printed nothing' } : { value: line };
  };
};
