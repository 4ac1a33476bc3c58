import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');

/** For tests of the command line and of examples, which run what is built. After `npm ci` it is; while developing it may be stale. */
export const built = (): void => {
  const made = join(root, 'dist/cli.js');
  const age = existsSync(made) ? statSync(made).mtimeMs : 0;
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' });
  if (sources.some(path => statSync(join(root, 'src', path)).mtimeMs > age))
    execFileSync('npm', ['run', 'build'], { cwd: root, stdio: 'inherit' });
};
