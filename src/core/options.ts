/**
 * Options of components: one zod field per option, which accepts typed values as well as Flume's text, and carries the
 * sentence, unit, default and Flume key that `millrace help`, `millrace validate` and docs/reference print.
 *
 * @module
 */
import { z } from 'zod';
import { MillraceError } from './errors.ts';

/** What is known about an option besides its type. */
export interface FieldInfo {
  readonly kind: 'integer' | 'boolean' | 'text' | 'choice' | 'list' | 'map' | 'secret' | 'path' | 'port' | 'function';
  readonly summary: string;
  /** What one of it is: ms, s, bytes, events, characters … */
  readonly unit?: string;
  /** The key in a Flume configuration, where it is not the option's own name. A map's key ends in `.*`. */
  readonly flume?: string;
  /** The Flume key that lists the names of a map's entries, as `filegroups` does for `filegroups.*`. */
  readonly listedIn?: string;
  readonly default?: unknown;
  /** The default in an agent, where Flume's own differs from the library's. */
  readonly agentDefault?: unknown;
  readonly choices?: readonly string[];
  readonly required?: boolean;
  /** False: for code only, not for a configuration file. */
  readonly inFile?: boolean;
}

/** The table of what is known about each field. */
export const fieldInfo = new WeakMap<z.core.$ZodType, FieldInfo>();

type Required<T> = z.ZodType<T, T>;
type Defaulted<T> = z.ZodDefault<z.ZodType<T, T>>;
type Optional<T> = z.ZodOptional<z.ZodType<T, T>>;
type Details = Omit<Partial<FieldInfo>, 'kind' | 'summary' | 'default' | 'required'>;

interface Field<T, Extra = unknown> {
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
      value => (typeof value === 'string' ? fromText(value.trim()) : value),
      schema(details as unknown as Extra),
    );
    const made =
      details.default !== undefined ? typed.default(details.default) : optional === true ? typed.optional() : typed;
    fieldInfo.set(made, {
      kind,
      summary,
      ...rest,
      required: details.default === undefined && optional !== true,
    } as FieldInfo);
    return made;
  }) as unknown as Field<T, Extra>;

const wholeNumber = (text: string): unknown => (/^[+-]?\d+$/.test(text) ? Number(text) : text);

interface Range {
  readonly min?: number;
  readonly max?: number;
}

/** A whole number. */
export const int = field<number, Range>('integer', wholeNumber, ({ min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER }) =>
  z.int({ error: issue => (issue.input === undefined ? undefined : 'expected a whole number') }).min(min).max(max),
);

/** A TCP or UDP port; 0 lets the system choose. */
export const port = field<number>('port', wholeNumber, () =>
  z.int({ error: issue => (issue.input === undefined ? undefined : 'expected a port, 0–65535') }).min(0).max(65_535),
);

/** Yes or no. In text `true` and `false` in any case; Flume takes anything else as false, here it is an error. */
export const flag = field<boolean>(
  'boolean',
  text => (/^true$/i.test(text) ? true : /^false$/i.test(text) ? false : text),
  () => z.boolean({ error: issue => (issue.input === undefined ? undefined : 'expected true or false') }),
);

export const text = field<string>('text', value => value, () => z.string());

/** A path; `~` is the home directory. */
export const path = field<string>(
  'path',
  value => (value === '~' || value.startsWith('~/') ? `${process.env['HOME'] ?? ''}${value.slice(1)}` : value),
  () => z.string().min(1),
);

/** A password or the like: printed as `***` wherever options are shown. */
export const secret = field<string>('secret', value => value, () => z.string());

/** Names separated by white space in text, an array in code. */
export const list = field<readonly string[]>(
  'list',
  value => value.split(/\s+/).filter(name => name !== ''),
  () => z.array(z.string()).readonly(),
);

/** Open keys to text: `headers.*` and the like. */
export const map = field<Readonly<Record<string, string>>>('map', value => value, () => z.record(z.string(), z.string()));

/** One of a few words, in any case. */
export const choice = <const C extends readonly [string, ...string[]]>(
  choices: C,
): Field<C[number]> =>
  ((summary: string, details: Details & { default?: string } = {}) =>
    field<string>(
      'choice',
      value => choices.find(word => word.toLowerCase() === value.toLowerCase()) ?? value,
      () => z.enum(choices, { error: issue => (issue.input === undefined ? undefined : `expected one of ${choices.join(', ')}`) }),
    )(summary, { choices, ...details } as never)) as unknown as Field<C[number]>;

/** A function or object that only code can give. */
export const code = <T>(): Field<T> => (summary: string, details: object = {}) =>
  field<T>('function', value => value, () => z.any())(summary, { inFile: false, ...details } as never) as never;

/** The parsed options, or one error that lists everything that is wrong with them. */
export const parseOptions = <S extends z.ZodObject>(component: string, schema: S, given: unknown): z.output<S> => {
  const parsed = schema.strict().safeParse(given);
  if (parsed.success) return parsed.data as z.output<S>;
  const problems = parsed.error.issues.map(issue => `${issue.path.join('.') || 'options'}: ${issue.message}`);
  throw new MillraceError('MR_CONFIG', `${component}: ${problems.join('; ')}`);
};
