/**
 * What there is and what it takes, as text for a terminal and as the pages of docs/reference: both from the schemas that
 * check configurations.
 *
 * @module
 */
import type { ComponentInfo } from '../core/component.ts';
import { errorCodes, MillraceError } from '../core/errors.ts';
import { nearest } from '../core/nearest.ts';
import { expectation, fieldInfo, type FieldInfo } from '../core/options.ts';
import { fieldsOf, type Field } from './component-options.ts';
import { findType, flumeNames, type Kind, type Registry, type Table } from './registry.ts';

const kinds = ['source', 'channel', 'sink'] as const satisfies readonly Kind[];

interface Known {
  readonly kind: Kind;
  readonly component: ComponentInfo;
}

const componentsOf = (registry: Registry, kind: Kind): Promise<readonly Known[]> => {
  const table: Table<ComponentInfo> = registry[kind];
  return Promise.all(Object.values(table).map(async load => ({ kind, component: await load() })));
};

const capital = (word: string): string => word.charAt(0).toUpperCase() + word.slice(1);

/** Flume's components that are not built in: aliases, and classes without their packages. */
const notBuiltIn = (registry: Registry, kind: Kind): readonly string[] =>
  Object.keys(flumeNames[kind])
    .filter(name => !Object.hasOwn(registry[kind], name))
    .map(name => name.replace(/^.*\./, ''));

/** Words on lines of at most 100 characters. */
const wrapped = (words: readonly string[], indent: string): readonly string[] =>
  words.reduce<string[]>((lines, word) => {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length < 100) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(`${lines.length === 0 ? '' : indent}${word}`);
    return lines;
  }, []);

/** The text of `millrace list`. */
export const componentList = async (registry: Registry): Promise<string> => {
  const lines: string[] = [];
  for (const kind of kinds) {
    const components = await componentsOf(registry, kind);
    const width = Math.max(...components.map(({ component }) => component.type.length));
    lines.push(`${capital(kind)}s`);
    for (const { component } of components) lines.push(`  ${component.type.padEnd(width)}  ${component.summary}`);
    lines.push('');
  }
  lines.push('Not built in yet');
  for (const kind of kinds) lines.push(...wrapped([`  ${kind}s:`, ...notBuiltIn(registry, kind)], '    '));
  lines.push('', '`millrace help <component>` explains one of them.', '');
  return lines.join('\n');
};

/**
 * The text of `millrace help <component>`, by alias in any case or by class name.
 *
 * @throws MR_CONFIG if there is no such component, MR_NOT_BUILT_IN if only Flume has it.
 */
export const componentHelp = async (name: string, registry: Registry): Promise<string> => {
  const found: Known[] = [];
  for (const kind of kinds) {
    const load = registry[kind][findType(kind, name, Object.keys(registry[kind])) ?? ''];
    if (load !== undefined) found.push({ kind, component: await load() });
  }
  if (found.length === 0) throw unknown(name, registry);
  return found.map(helpText).join('\n');
};

const unknown = (name: string, registry: Registry): MillraceError => {
  const kind = kinds.find(kind => findType(kind, name) !== undefined);
  if (kind !== undefined) return new MillraceError('MR_NOT_BUILT_IN', `the ${kind} ${name} is not built in yet.`);
  const close = nearest(
    name,
    kinds.flatMap(kind => Object.keys(registry[kind])),
  );
  const hint = close === undefined ? '' : ` Did you mean ${close}?`;
  return new MillraceError('MR_CONFIG', `there is no component ${name}.${hint} \`millrace list\` shows what there is.`);
};

const helpText = ({ kind, component }: Known): string => {
  const { type, className, summary } = component;
  const fields = fieldsOf(component);
  const width = Math.max(0, ...fields.map(({ key }) => key.length)) + 2;
  const options = fields.flatMap(({ key, info }) => [
    `  ${key.padEnd(width)}${[takes(info), ...standing(info)].join('; ')}`,
    `  ${' '.repeat(width)}${info.summary}`,
  ]);
  const code = codeOnly(component).map(([name, info]) => `  ${name.padEnd(width)}${info.summary}`);
  return [
    `${type}, a ${kind}${type === className ? '' : ` (${className})`}`,
    summary,
    '',
    ...example(kind, component).map(line => `  ${line}`),
    ...(options.length > 0 ? ['', 'Options', ...options] : []),
    ...(code.length > 0 ? ['', 'Only in code', ...code] : []),
    '',
  ].join('\n');
};

/** Options that no file can set. */
const codeOnly = ({ options }: ComponentInfo): readonly (readonly [string, FieldInfo])[] =>
  Object.entries(options.shape as Record<string, object>).flatMap(([name, schema]) => {
    const info = fieldInfo.get(schema as never);
    return info?.inFile === false ? [[name, info] as const] : [];
  });

const takes = (info: FieldInfo): string => expectation(info) + (info.unit === undefined ? '' : `, in ${info.unit}`);

/** Required, or the default. */
const standing = (info: FieldInfo): readonly string[] => {
  if (info.required === true) return ['required'];
  const inFile = info.agentDefault ?? info.default;
  if (inFile === undefined) return [];
  const inCode =
    info.agentDefault === undefined || info.default === undefined ? '' : ` (in code ${value(info.default)})`;
  return [`default ${value(inFile)}${inCode}`];
};

const value = (given: unknown): string => {
  if (given === Number.MAX_SAFE_INTEGER) return 'unlimited';
  if (given === '') return '""';
  if (typeof given !== 'object' || given === null) return String(given);
  const parts = Array.isArray(given) ? given.map(String) : Object.keys(given);
  return parts.length === 0 ? 'none' : parts.join(' ');
};

const names = { source: 'r1', channel: 'c1', sink: 'k1' } as const;

/** The fewest lines that configure the component. */
const example = (kind: Kind, component: ComponentInfo): readonly string[] => {
  const where = `a1.${kind}s.${names[kind]}`;
  const link = { source: [`${where}.channels = c1`], channel: [], sink: [`${where}.channel = c1`] }[kind];
  const required = fieldsOf(component).filter(({ info }) => info.required === true || info.example !== undefined);
  return [`${where}.type = ${component.type}`, ...link, ...required.flatMap(field => exampleOf(where, field))];
};

const exampleOf = (where: string, { key, info }: Field): readonly string[] => {
  const sample = { port: '44444', path: '/tmp/millrace', boolean: 'true', integer: String(Math.max(1, info.min ?? 1)) };
  const text =
    info.example ??
    info.choices?.[0] ??
    (Object.hasOwn(sample, info.kind) ? sample[info.kind as keyof typeof sample] : 'value');
  if (info.kind !== 'map') return [`${where}.${key} = ${text}`];
  const entry = `${where}.${key.replace(/\*$/, 'x')} = ${text}`;
  return info.listedIn === undefined ? [entry] : [`${where}.${info.listedIn} = x`, entry];
};

const generated = '<!-- Made from the schemas by `npm run docs`. Edits are overwritten. -->';

const cell = (text: string): string => text.replaceAll('|', '\\|');
const row = (...cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;

const pageOf = ({ kind, component }: Known): string => {
  const { type, className, summary } = component;
  const fields = fieldsOf(component);
  const code = codeOnly(component);
  return [
    generated,
    '',
    `# ${type} ${kind}`,
    '',
    summary,
    '',
    `Flume's class: \`${className}\``,
    '',
    '```properties',
    ...example(kind, component),
    '```',
    '',
    ...(fields.length === 0
      ? []
      : [
          row('Key', 'In code', 'Takes', 'Default', 'What it is'),
          row('---', '---', '---', '---', '---'),
          ...fields.map(({ name, key, info }) =>
            row(
              `\`${key}\``,
              `\`${name}\``,
              takes(info),
              standing(info)
                .join('')
                .replace(/^default /, ''),
              info.summary,
            ),
          ),
          '',
        ]),
    ...(code.length === 0
      ? []
      : [
          row('Only in code', 'What it is'),
          row('---', '---'),
          ...code.map(([name, info]) => row(`\`${name}\``, info.summary)),
          '',
        ]),
    ...mapEntries(fields),
  ].join('\n');
};

/** The names that its maps take. */
const mapEntries = (fields: readonly Field[]): readonly string[] =>
  fields.flatMap(({ key, info: { entries = [] } }) =>
    entries.length === 0
      ? []
      : [
          `## ${key}`,
          '',
          row('Key', 'Takes', 'Default', 'What it is'),
          row('---', '---', '---', '---'),
          ...entries.map(({ key: name, takes: text, summary, default: usual, effect }) =>
            effect === undefined
              ? row(`\`${name}\``, text, usual === undefined ? '' : value(usual), summary)
              : row(`\`${name}\``, effect === 'none' ? text : '', '', `${effects[effect]} ${summary}`),
          ),
          '',
        ],
  );

const effects = { none: 'No effect.', refused: 'Refused.' } as const;

const errorsPage = (): string =>
  [
    generated,
    '',
    '# Errors',
    '',
    'Every error is a `MillraceError` with one of these codes in `code`, and with `retriable` as in the table.',
    '',
    row('Code', 'Try again?', 'What it means'),
    row('---', '---', '---'),
    ...Object.entries(errorCodes).map(([code, { retriable, meaning }]) =>
      row(`\`${code}\``, retriable ? 'yes' : 'no', meaning),
    ),
    '',
  ].join('\n');

/** Path → text of every generated page: one per component, the errors, and a list of them all. */
export const referencePages = async (registry: Registry): Promise<Map<string, string>> => {
  const pages = new Map<string, string>();
  const index = [generated, '', '# Reference', ''];
  for (const kind of kinds) {
    index.push(`## ${capital(kind)}s`, '');
    for (const known of await componentsOf(registry, kind)) {
      const { type, summary } = known.component;
      const file = `${kind}-${type.toLowerCase()}.md`;
      pages.set(`docs/reference/${file}`, pageOf(known));
      index.push(`- [${type}](${file}): ${summary}`);
    }
    index.push('');
  }
  index.push('## Errors', '', '- [Error codes](errors.md)', '');
  pages.set('docs/reference/errors.md', errorsPage());
  pages.set('docs/reference/README.md', index.join('\n'));
  return pages;
};
