/**
 * A newer Node.js than the one that runs this, from the npm registry, into `bench/.cache/node-<version>` on first use (50 MB).
 *
 * @module
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { benchDir } from './processes.ts';

export const newerNode = (version: string) => {
  const cache = join(benchDir, '.cache');
  const home = join(cache, `node-${version}`);
  const name = `node-${process.platform}-${process.arch}`;
  const program = join(home, 'node_modules', name, 'bin', 'node');
  return {
    program,
    async fetch(): Promise<void> {
      if (existsSync(program)) return;
      await mkdir(cache, { recursive: true });
      const fresh = await mkdtemp(join(cache, 'node-'));
      try {
        await promisify(execFile)('npm', ['install', '--no-save', '--prefix', fresh, `${name}@${version}`], {
          timeout: 600_000,
        });
        // Appears whole or not at all; whoever comes second keeps the first one's.
        await rename(fresh, home).catch((cause: unknown) => {
          if (!existsSync(program)) throw cause;
        });
      } finally {
        await rm(fresh, { recursive: true, force: true });
      }
    },
  };
};
