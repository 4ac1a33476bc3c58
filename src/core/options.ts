/**
 * Options of components: one zod field per option, which accepts typed values as well as Flume's text, and carries the
 * sentence, unit, default and Flume key that `millrace help`, `millrace validate` and docs/reference print.
 *
 * @module
 */
import { homedir } from 'node:os';
import { inspect } from 'node:util';
import { z } from 'zod';
import { MillraceError } from './errors.ts';
import { nearest } from './nearest.ts';

/** One of the names that a map takes, where they are known. */
export interface MapEntry {
  readonly key: string;
  /** In words. */
  readonly takes: string;
  /** What it does, or why it does not. */
  readonly summary: string;
  readonly default?: unknown;
  /** It is taken, and does nothing; or it is not taken. */
  readonly effect?: 'none' | 'refused';
}

/** What is known about an option besides its type. */
export interface FieldInfo {
  readonly kind: 'integer' | 'boolean' | 'text' | 'choice' | 'list' | 'map' | 'secret' | 'path' | 'port' | 'function';
  readonly summary: string;
  /** What one of it is: ms, s, bytes, events, characters … */
  readonly unit?: string;
  /** The key in a Flume configuration, where it is not the option's own name. A map's key ends in `.*`. */
  readonly flume?: string;
  /** An older key of Flume's for the same, which still counts. */
  readonly formerly?: string;
  /** The Flume key that lists the names of a map's entries, as `filegroups` does for `filegroups.*`. */
  readonly listedIn?: string;
  /** The names that a map takes, if it does not take any. */
  readonly entries?: readonly MapEntry[];
  /** For reference pages, where the kind alone gives no idea, or it takes one of several options. */
  readonly example?: string;
  readonly default?: unknown;
  /** The default in an agent, where Flume's own differs from the library's. */
  readonly agentDefault?: unknown;
  readonly choices?: readonly string[];
  /** Flume's words and class names that would be choices, if they were built in. */
  readonly notBuiltIn?: readonly string[];
  readonly min?: number;
  readonly max?: number;
  /** Two components of one agent must not have the same value, as for a position file. */
  readonly exclusive?: boolean;
  readonly required?: boolean;
  /** False: for code only, not for a configuration file. */
  readonly inFile?: boolean;
}

/** The table of what is known about each field. */
export const fieldInfo = new WeakMap<z.core.$ZodType, FieldInfo>();

type Required<T> = z.ZodType<T, T>;
type Defaulted<T> = z.ZodPrefault<z.ZodType<T, T>>;
type Optional<T> = z.ZodOptional<z.ZodType<T, T>>;
type Details = Omit<Partial<FieldInfo>, 'kind' | 'summary' | 'default' | 'required' | 'min' | 'max'>;

export interface Field<T, Extra = unknown> {
  (summary: string, details: Details & Extra & { default: T }): Defaulted<T>;
  (summary: string, details: Details & Extra & { optional: true }): Optional<T>;
  (summary: string, details?: Details & Extra): Required<T>;
}

/** A field builder from "how text becomes a value" and "which values are good". */
const field = <T, Extra = unknown>(
  kind: FieldInfo['kind'],
  fromText: (text: string) => unknown,
  schema: (details: Extra) => z.ZodType,
): Field<T, Extra> =>
  ((summary: string, details: Details & { default?: T; optional?: true } = {}) => {
    const { optional, ...rest } = details;
    const typed = z.preprocess(
      value => (typeof value === 'string' ? fromText(value) : value),
      schema(details as unknown as Extra),
    );
    // A default goes the same way as a given value, so that `~` in a default path means what it means anywhere.
    const made =
      details.default !== undefined ? typed.prefault(details.default) : optional === true ? typed.optional() : typed;
    fieldInfo.set(made, {
      kind,
      summary,
      ...rest,
      required: details.default === undefined && optional !== true,
    });
    return made;
  }) as unknown as Field<T, Extra>;

const wholeNumber = (text: string): unknown => (/^\s*[+-]?\d+\s*$/.test(text) ? Number(text) : text);

interface Range {
  readonly min?: number;
  readonly max?: number;
}

/** A whole number. */
export const int = field<number, Range>(
  'integer',
  wholeNumber,
  ({ min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER }) => z.int().min(min).max(max),
);

/** A TCP or UDP port; 0 lets the system choose. */
export const port = field<number>('port', wholeNumber, () => z.int().min(0).max(65_535));

/** Yes or no. In text `true` and `false` in any case; Flume takes anything else as false, here it is an error. */
export const flag = field<boolean>(
  'boolean',
  text => (/^\s*true\s*$/i.test(text) ? true : /^\s*false\s*$/i.test(text) ? false : text),
  () => z.boolean(),
);

export const text = field<string>(
  'text',
  value => value,
  () => z.string(),
);

/** `~` is the home directory. */
export const withHome = (value: string): string =>
  value === '~' || value.startsWith('~/') ? homedir() + value.slice(1) : value;

/** A path; `~` is the home directory. */
export const path = field<string>('path', withHome, () => z.string().min(1));

/** A password or the like: printed as `***` wherever options are shown. */
export const secret = field<string>(
  'secret',
  value => value,
  () => z.string(),
);

/** Names separated by white space or commas in text, an array in code. */
export const list = field<readonly string[]>(
  'list',
  value => value.split(/[\s,]+/).filter(name => name !== ''),
  () => z.array(z.string()).readonly(),
);

/** Open keys to text: `headers.*` and the like. */
export const map = field<Readonly<Record<string, string>>>(
  'map',
  value => value,
  () => z.record(z.string(), z.string()),
);

/** One of a few words, in any case, or the class name by which Flume knows one. Others that Flume has are named as missing. */
export const choice = <const C extends readonly [string, ...string[]]>(
  choices: C,
  classNames: Readonly<Record<string, C[number]>> = {},
  notBuiltIn: readonly string[] = [],
): Field<C[number]> =>
  ((summary: string, details: Details & { default?: string } = {}) =>
    field<string>(
      'choice',
      value => {
        const word = value.trim();
        if (Object.hasOwn(classNames, word)) return classNames[word];
        return choices.find(known => known.toLowerCase() === word.toLowerCase()) ?? value;
      },
      () => z.enum(choices),
    )(summary, { choices, notBuiltIn, ...details } as never)) as unknown as Field<C[number]>;

/** A function or object that only code can give. */
export const code =
  <T>(): Field<T> =>
  (summary: string, details: object = {}) =>
    field<T>(
      'function',
      value => value,
      () => z.any(),
    )(summary, { inFile: false, ...details } as never) as never;

const kinds: Readonly<Record<FieldInfo['kind'], string>> = {
  integer: 'a whole number',
  boolean: 'true or false',
  text: 'text',
  choice: 'one of',
  list: 'names separated by white space or commas',
  map: 'names with values',
  secret: 'text',
  path: 'a path',
  port: 'a port, 0–65535',
  function: 'a value that only code can give',
};

/** What a field takes, in words: `a whole number of at least 1`. */
export const expectation = ({ kind, min, max, choices = [] }: FieldInfo): string => {
  if (kind === 'choice') return `one of ${choices.join(', ')}`;
  if (min !== undefined && max !== undefined) return `${kinds[kind]} from ${min} to ${max}`;
  if (min !== undefined) return `${kinds[kind]} of at least ${min}`;
  return max === undefined ? kinds[kind] : `${kinds[kind]} of at most ${max}`;
};

/** Whether this is a choice that Flume has and millrace does not have yet. */
export const isNotBuiltIn = ({ notBuiltIn = [] }: FieldInfo, value: unknown): boolean =>
  typeof value === 'string' &&
  notBuiltIn.some(name => name === value || (!name.includes('.') && name.toLowerCase() === value.toLowerCase()));

/** A value as an error message shows it: quoted, on one line, and cut. */
export const shown = (value: unknown): string =>
  (typeof value === 'string' ? JSON.stringify(value) : inspect(value, { depth: 1, breakLength: Infinity })).slice(
    0,
    100,
  );

/** The parsed options, or one error that lists everything that is wrong with them. */
export const parseOptions = <S extends z.ZodObject>(component: string, schema: S, given: unknown): z.output<S> => {
  const parsed = schema.strict().safeParse(given);
  if (parsed.success) return parsed.data as z.output<S>;
  const problems = parsed.error.issues.flatMap(issue => {
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map(key => {
        const close = nearest(key, Object.keys(schema.shape));
        return `there is no option ${key}${close === undefined ? '' : `; did you mean ${close}?`}`;
      });
    }
    const [name] = issue.path;
    const info = typeof name === 'string' ? fieldInfo.get(schema.shape[name] as z.ZodType) : undefined;
    if (info === undefined || issue.code === 'custom') return [[...issue.path, issue.message].join(': ')];
    const value = (given as Record<string, unknown>)[name as string];
    if (value === undefined) return [`${name as string} is missing; expected ${expectation(info)}`];
    if (isNotBuiltIn(info, value))
      return [`${name as string}: ${value as string} is not built in yet; expected ${expectation(info)}`];
    // Never the values of a map: there may be passwords among them.
    if (info.kind === 'map' && issue.path.length > 1) return [`${issue.path.join('.')}: expected text`];
    const found = info.kind === 'secret' ? '' : `, found ${shown(value)}`;
    return [`${name as string}: expected ${expectation(info)}${found}`];
  });
  throw new MillraceError('MR_CONFIG', `${component}: ${problems.join('; ')}`);
};
