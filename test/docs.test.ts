import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { referencePages } from '../src/agent/help.ts';
import { builtIn } from '../src/agent/registry.ts';
import { built } from './built.ts';

// `npm run docs` rewrites what is generated; without it, the tests compare.
const update = process.env['UPDATE_DOCS'] !== undefined;
const root = resolve(import.meta.dirname, '..');
const text = (path: string): string => readFileSync(join(root, path), 'utf8');
const run = promisify(execFile);
beforeAll(built);

const pages = [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(root, 'docs'))
    .filter(name => name.endsWith('.md'))
    .map(name => `docs/${name}`),
];

/** A fence with a comment before it is a copy: of a file, or of what a command prints. */
const fence = /<!-- (output of: )?(.+?) -->\n```(\w*)\n([\s\S]*?)```/g;

const printed = async (command: string): Promise<string> => {
  const [program, ...words] = command.split(' ');
  expect(program).toBe('millrace');
  const { stdout } = await run(process.execPath, ['dist/cli.js', ...words], { cwd: root }).catch(
    (failed: unknown) => failed as { stdout: string },
  );
  return stdout;
};

describe('documentation', () => {
  it.each(pages)('%s shows what the files and commands that it names hold', async page => {
    const before = text(page);
    let after = before;
    for (const [found, output, name, language] of before.matchAll(fence)) {
      const body = output === undefined ? text(name!) : await printed(name!);
      after = after.replace(
        found,
        () => `<!-- ${output ?? ''}${name!} -->\n\`\`\`${language!}\n${body.trimEnd()}\n\`\`\``,
      );
    }
    if (update) writeFileSync(join(root, page), after);
    else expect(before).toBe(after);
  });

  it.each(pages)('%s has TypeScript only from files that run', page => {
    const own = text(page).replaceAll(fence, '');
    expect(own).not.toMatch(/```(ts|typescript)\n/);
  });

  it.each(pages)('%s links to what exists', page => {
    for (const [, target] of text(page).matchAll(/\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)/g)) {
      expect(existsSync(join(root, dirname(page), target!)), `${page} → ${target!}`).toBe(true);
    }
  });

  it('reference pages are what the schemas say', async () => {
    const made = await referencePages(builtIn);
    const folder = join(root, 'docs/reference');
    if (update) {
      rmSync(folder, { recursive: true, force: true });
      for (const [path, page] of made) {
        mkdirSync(dirname(join(root, path)), { recursive: true });
        writeFileSync(join(root, path), page);
      }
    }
    expect(
      new Map(readdirSync(folder).map(name => [`docs/reference/${name}`, text(`docs/reference/${name}`)])),
    ).toEqual(new Map([...made].sort()));
  });

  // Of failures that concern files and their positions; the others are named after what they are about.
  it('each failure of others has a test of its name, where the table says', () => {
    const rows = [...text('docs/guarantees.md').matchAll(/^\| ([TB]\d+(?:, [TB]\d+)*) \| .* \| (.*) \|$/gm)];
    let files: readonly string[] = [];
    for (const [, ids, where] of rows) {
      if (!where!.startsWith('the same'))
        files = Array.from(where!.matchAll(/`(test\/\S+?\.ts)`/g), ([, path]) => path!);
      const names = files.flatMap(path => text(path).match(/'[^'\n]*\b[TB]\d+\b[^'\n]*'/g) ?? []).join('\n');
      for (const id of ids!.split(', '))
        expect(names, `${id} in ${files.join(', ')}`).toMatch(new RegExp(`\\b${id}\\b`));
    }
    expect(rows.length).toBeGreaterThan(40);
  });

  const programs = readdirSync(join(root, 'examples')).filter(
    name => name.endsWith('.ts') && !name.endsWith('.test.ts'),
  );
  it.each(programs)('examples/%s runs, and prints what its comments say', async program => {
    const { stdout } = await run(process.execPath, ['--import', 'tsx', `examples/${program}`], {
      cwd: root,
    });
    const promised = Array.from(
      text(`examples/${program}`).matchAll(/console\.log\(.*\); \/\/ (.*)$/gm),
      ([, line]) => line!,
    );
    for (const line of promised) expect(stdout.split('\n')).toContain(line);
    expect(stdout).not.toBe('');
  });
});
