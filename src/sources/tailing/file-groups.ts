/**
 * Flume's file groups: a directory, a pattern for names in it, and headers.
 *
 * @module
 */
import { basename, dirname, resolve } from 'node:path';
import { toError } from '../../core/errors.ts';
import { headers as headersOf, type Headers } from '../../core/event.ts';

export interface FileGroup {
  readonly name: string;
  readonly directory: string;
  /** Matches whole file names. */
  readonly pattern: RegExp;
  /** For every event of the group. */
  readonly headers: Headers;
}

/** Something is wrong with an option, at one of its keys. */
export type Problem = (option: 'filegroups' | 'headers', key: string, message: string) => void;

/**
 * Reads groups from their options: `group → directory/pattern`, of which only the last segment is a regular expression,
 * and `group.key → value` for headers. What is wrong with them is told to `problem`.
 */
export const fileGroups = (
  paths: Readonly<Record<string, string>>,
  headers: Readonly<Record<string, string>>,
  problem: Problem,
): readonly FileGroup[] => {
  const groups = Object.entries(paths).map(([name, path]) => {
    const cut = path.lastIndexOf('/') + 1;
    const expression = path.slice(cut);
    if (expression === '') problem('filegroups', name, `${path} has no pattern for file names behind its last /`);
    let pattern = /(?!)/;
    try {
      pattern = new RegExp(`^(?:${expression})$`);
    } catch (thrown) {
      problem('filegroups', name, toError(thrown).message);
    }
    const own: Record<string, string> = {};
    return { name, directory: resolve(path.slice(0, cut) || '.'), pattern, own };
  });
  for (const [key, value] of Object.entries(headers)) {
    const group = groups.find(({ name }) => key.startsWith(`${name}.`) && key.length > name.length + 1);
    if (group === undefined) problem('headers', key, 'expected <file group>.<header>');
    else group.own[key.slice(group.name.length + 1)] = value;
  }
  return groups.map(({ own, ...group }) => ({ ...group, headers: headersOf(own) }));
};

/** The group that a file belongs to: the first that wants it. */
export const groupOf = (groups: readonly FileGroup[], path: string): FileGroup | undefined => {
  const directory = dirname(path);
  const name = basename(path);
  return groups.find(group => group.directory === directory && group.pattern.test(name));
};
