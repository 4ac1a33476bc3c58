/**
 * Where secrets are kept, so that they need not be in a configuration: `file:<path>` or `env:<variable>`.
 *
 * @module
 */
import { readFileSync } from 'node:fs';
import { withHome } from './options.ts';

/** What is there now; undefined if `where` is not of this form. Throws if there is nothing. What it says is never a secret. */
export const secretAt = (where: string): Buffer | undefined => {
  const [, kind, at = ''] = /^(file|env):(.*)$/s.exec(where) ?? [];
  if (kind === undefined) return undefined;
  if (kind === 'file') return readFileSync(withHome(at));
  const value = process.env[at];
  if (value === undefined) throw new Error(`there is no environment variable ${at}`);
  return Buffer.from(value);
};

/** A password: what is kept at `file:<path>`, without the newline at its end, or at `env:<variable>`; else `given` itself. */
export const secretText = (given: string): string =>
  secretAt(given)
    ?.toString()
    .replace(/\r?\n$/, '') ?? given;
