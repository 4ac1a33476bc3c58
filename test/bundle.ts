import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { build } from 'esbuild';

const root = resolve(import.meta.dirname, '..');

/**
 * Makes one file of a program that tests start and kill: it runs after a tenth of a second. Resolves with its path, in a folder of
 * its own that the caller removes.
 */
export const bundle = async (program: string): Promise<string> => {
  // Optional packages are found from there; they may have native parts, which are no JavaScript to put in.
  const cache = join(root, 'node_modules/.cache');
  mkdirSync(cache, { recursive: true });
  const outfile = join(mkdtempSync(join(cache, 'program-')), basename(program).replace(/\.ts$/, '.mjs'));
  const { peerDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    peerDependencies: Record<string, string>;
  };
  await build({
    entryPoints: [program],
    outfile,
    bundle: true,
    external: Object.keys(peerDependencies).filter(name => name !== 'rxjs'),
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
    banner: {
      js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);",
    },
  });
  return outfile;
};
