/**
 * A newer Node.js than the one that runs this, from the npm registry, into `bench/.cache/node-<version>` on first use (50 MB).
 *
 * @module
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { benchDir, madeOnce } from './processes.ts';

export const newerNode = (version: string) => {
  const home = join(benchDir, '.cache', `node-${version}`);
  const name = `node-${process.platform}-${process.arch}`;
  return {
    program: join(home, 'node_modules', name, 'bin', 'node'),
    fetch: (): Promise<void> =>
      madeOnce(home, async folder => {
        const args = ['install', '--no-save', '--prefix', folder, `${name}@${version}`];
        await promisify(execFile)('npm', args, { timeout: 600_000 });
        return folder;
      }),
  };
};
