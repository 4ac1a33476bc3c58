/**
 * Channel selectors: Flume's `selector.*`.
 *
 * @module
 */
import type { Entry } from './properties.ts';
import { findType, reportType } from './registry.ts';
import { oneOf, Problems } from './report.ts';
import { channelExists, keyPlace, suggest, words, type Channels, type Keys, type Listed } from './sections.ts';

/** Which of a source's channels get an event. Failures of optional channels do not concern the source. */
export type Selector =
  | { readonly type: 'replicating'; readonly required: readonly string[]; readonly optional: readonly string[] }
  | {
      readonly type: 'multiplexing';
      readonly header: string;
      /** Value of the header → channels. */
      readonly mapping: ReadonlyMap<string, Route>;
      /** For events without the header, or with a value that is not mapped. */
      readonly otherwise: Route;
    };

export interface Route {
  readonly required: readonly string[];
  readonly optional: readonly string[];
}

/** The selector of a source: Flume's `selector.*`. */
export const readSelector = (
  { where, keys }: Listed,
  names: readonly string[],
  channels: Channels,
  problems: Problems,
): Selector => {
  const type = keys.get('selector.type');
  const kind = type === undefined ? 'replicating' : findType('channel selector', type.value);
  const read = new Set(['selector.type']);
  /** Channels that a key of the selector names; they must be among the source's own. */
  const named = (key: string): readonly string[] => {
    read.add(key);
    return words(keys.get(key), problems)
      .filter(({ text, place }) => {
        if (names.includes(text)) return true;
        if (!channels.names.includes(text)) return channelExists({ text, place }, channels, problems);
        problems.error(place, `${text} is not a channel of ${where}`, {
          expected: oneOf(names),
          advice: `List it in ${where}.channels, too.`,
        });
        return false;
      })
      .map(word => word.text);
  };
  const route = (required: readonly string[], optional: readonly string[]): Route => ({
    required,
    optional: optional.filter(name => !required.includes(name)),
  });

  let selector: Selector = { type: 'replicating', required: names, optional: [] };
  let known = ['selector.type', 'selector.optional'];
  if (kind === 'replicating') {
    const optional = named('selector.optional');
    selector = { type: 'replicating', required: names.filter(name => !optional.includes(name)), optional };
  } else if (kind === 'multiplexing') {
    known = ['selector.type', 'selector.header', 'selector.default', 'selector.mapping', 'selector.optional'];
    read.add('selector.header');
    const header = keys.get('selector.header')?.value ?? 'flume.selector.header';
    const otherwise = route(named('selector.default'), []);
    const valuesUnder = (prefix: string) =>
      [...keys.keys()].filter(key => key.startsWith(prefix) && key !== prefix).map(key => key.slice(prefix.length));
    const values = new Set([...valuesUnder('selector.mapping.'), ...valuesUnder('selector.optional.')]);
    const mapping = new Map<string, Route>();
    for (const value of values) {
      const required = keys.has(`selector.mapping.${value}`) ? named(`selector.mapping.${value}`) : otherwise.required;
      mapping.set(value, route(required, named(`selector.optional.${value}`)));
    }
    selector = { type: 'multiplexing', header, mapping, otherwise };
    reportUnrouted(selector, where, keys, type, names, problems);
  } else if (type !== undefined) {
    reportType('channel selector', type, problems, ['replicating', 'multiplexing'], selectorAdvice[kind ?? '']);
    return selector;
  }
  for (const [key, entry] of keys) {
    if (!key.startsWith('selector.') || read.has(key)) continue;
    const advice = kind === 'replicating' && /^selector\.(header|default|mapping\.)/.test(key);
    problems.warn(keyPlace(entry, key), `a ${selector.type} selector has no option ${key}; it is ignored`, {
      ...(advice ? { advice: `It belongs to ${where}.selector.type = multiplexing.` } : suggest(key, known)),
    });
  }
  return selector;
};

const selectorAdvice: Readonly<Record<string, string>> = {
  load_balancing:
    'Flume 1.10 and 1.11 drop a source with this selector. To share the work, let several sinks take from one channel.',
};

/** Events, or whole channels, that no rule of a multiplexing selector leads anywhere. */
const reportUnrouted = (
  { mapping, otherwise }: Extract<Selector, { type: 'multiplexing' }>,
  where: string,
  keys: Keys,
  type: Entry | undefined,
  names: readonly string[],
  problems: Problems,
): void => {
  if (mapping.size === 0 && !keys.has('selector.default')) {
    problems.error(type?.place(), `${where}.selector maps nothing: every event would be dropped`, {
      expected: `${where}.selector.mapping.<value> or ${where}.selector.default`,
    });
    return;
  }
  const reached = new Set(
    [otherwise, ...mapping.values()].flatMap(({ required, optional }) => [...required, ...optional]),
  );
  for (const { text, place } of words(keys.get('channels'), new Problems())) {
    if (names.includes(text) && !reached.has(text)) {
      problems.warn(place, `no rule of ${where}.selector leads to ${text}`);
    }
  }
};
