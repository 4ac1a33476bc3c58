/**
 * Flume's file groups: a directory, a pattern for names in it, and headers.
 *
 * @module
 */
import { basename, dirname, resolve } from 'node:path';
import { MillraceError, toError } from '../../core/errors.ts';

export interface FileGroup {
  readonly name: string;
  readonly directory: string;
  /** Matches whole file names. */
  readonly pattern: RegExp;
  /** For every event of the group. */
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * Reads groups from their options: `group → directory/pattern`, of which only the last segment is a regular expression,
 * and `group.key → value` for headers.
 *
 * @throws MR_CONFIG with everything that is wrong with them.
 */
export const fileGroups = (
  paths: Readonly<Record<string, string>>,
  headers: Readonly<Record<string, string>>,
): readonly FileGroup[] => {
  const problems: string[] = [];
  const groups = Object.entries(paths).map(([name, path]) => {
    const cut = path.lastIndexOf('/') + 1;
    const expression = path.slice(cut);
    if (expression === '') problems.push(`file group ${name}: ${path} has no pattern for file names behind its last /`);
    let pattern = /(?!)/;
    try {
      pattern = new RegExp(`^(?:${expression})$`);
    } catch (thrown) {
      problems.push(`file group ${name}: ${toError(thrown).message}`);
    }
    const own: Record<string, string> = {};
    return { name, directory: resolve(path.slice(0, cut) || '.'), pattern, headers: own };
  });
  if (groups.length === 0) problems.push('there are no file groups');
  for (const [key, value] of Object.entries(headers)) {
    const group = groups.find(({ name }) => key.startsWith(`${name}.`) && key.length > name.length + 1);
    if (group === undefined) problems.push(`header ${key}: expected <file group>.<header>`);
    else group.headers[key.slice(group.name.length + 1)] = value;
  }
  if (problems.length > 0) throw new MillraceError('MR_CONFIG', `taildir: ${problems.join('; ')}.`);
  return groups;
};

/** The group that a file belongs to: the first that wants it. */
export const groupOf = (groups: readonly FileGroup[], path: string): FileGroup | undefined => {
  const directory = dirname(path);
  const name = basename(path);
  return groups.find(group => group.directory === directory && group.pattern.test(name));
};
