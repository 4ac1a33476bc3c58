import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { builtIn } from '../src/agent/registry.ts';

const root = resolve(import.meta.dirname, '..');

const filesUnder = (folder: string, ending: string): string[] =>
  !existsSync(join(root, folder))
    ? []
    : readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
        .filter(path => path.endsWith(ending))
        .map(path => join(folder, path));

const text = (path: string): string => readFileSync(join(root, path), 'utf8');

/** Paths that a file imports from this repository. */
const imports = (path: string): string[] =>
  Array.from(text(path).matchAll(/(?:from|import\()\s*'(\.[^']+)'/g), ([, target]) =>
    relative(root, resolve(root, dirname(path), target!)),
  );

/** The same without types, which are gone when the code runs. */
const importsOfValues = (path: string): string[] => {
  const types = new Set(
    Array.from(text(path).matchAll(/^import type [^;]*?from\s*'(\.[^']+)'/gms), ([, target]) =>
      relative(root, resolve(root, dirname(path), target!)),
    ),
  );
  return imports(path).filter(target => !types.has(target));
};

/** Packages that a file imports, also late and by `require` (`load` in codecs.ts); Node's own modules left out. */
const packages = (path: string): string[] =>
  Array.from(
    text(path).matchAll(/(?:from\s*|import\(|require\(|load<\w+>\('\w+', )'([^.'][^']*)'/g),
    ([, name]) => name!,
  )
    .filter(name => !name.startsWith('node:'))
    .map(name => (name.startsWith('@') ? name.split('/').slice(0, 2).join('/') : name.split('/')[0]!));

const layerOf = (path: string): string => /^src\/([^/]+)\//.exec(path)?.[1] ?? path;

/** Who may import whom, besides itself. What is not listed (index, cli) may import everything. */
const layers: Readonly<Record<string, readonly string[]>> = {
  core: [],
  protocols: ['core'],
  log: ['core'],
  operators: ['core', 'protocols', 'log'],
  sources: ['core', 'protocols', 'operators'],
  sinks: ['core', 'protocols', 'log'],
  monitor: ['core', 'protocols'],
  agent: ['core', 'protocols', 'log', 'operators', 'monitor'],
  testing: ['core', 'protocols', 'operators'],
};

const sources = filesUnder('src', '.ts');

describe('architecture', () => {
  it('imports go downward only', () => {
    for (const path of sources) {
      const allowed = layers[layerOf(path)];
      if (allowed === undefined || path === 'src/agent/registry.ts') continue;
      for (const target of imports(path))
        expect([layerOf(path), ...allowed], `${path} imports ${target}`).toContain(layerOf(target));
    }
  });

  it('has no circular imports', () => {
    const graph = new Map(
      sources.map(path => [path, importsOfValues(path).filter(target => existsSync(join(root, target)))]),
    );
    const done = new Set<string>();
    const visit = (path: string, way: readonly string[]): void => {
      expect(way, [...way, path].join(' → ')).not.toContain(path);
      if (done.has(path)) return;
      for (const target of graph.get(path) ?? []) visit(target, [...way, path]);
      done.add(path);
    };
    for (const path of sources) visit(path, []);
  });

  it('only protocol-free code knows RxJS: protocols and the log do not', () => {
    for (const path of [...filesUnder('src/protocols', '.ts'), ...filesUnder('src/log', '.ts')])
      expect(packages(path), path).not.toContain('rxjs');
  });

  it('every package that is imported is declared, and every declared one has a line in docs/decisions.md', () => {
    const manifest = JSON.parse(text('package.json')) as Record<
      'dependencies' | 'peerDependencies',
      Record<string, string>
    >;
    const declared = [...Object.keys(manifest.dependencies), ...Object.keys(manifest.peerDependencies)];
    const used = new Set(sources.flatMap(packages));
    expect([...used].filter(name => !declared.includes(name))).toEqual([]);
    expect(declared.filter(name => !used.has(name))).toEqual([]);
    const decisions = text('docs/decisions.md');
    for (const name of declared) expect(decisions, `a line about ${name}`).toContain(`\`${name}\``);
  });

  it('test files mirror source files', () => {
    const own = ['testing', 'laws', 'e2e', 'integration', 'kafka', 'crash', 'fixtures', 'types'];
    for (const path of filesUnder('test', '.test.ts')) {
      const [, folder] = path.split('/');
      if (own.includes(folder!) || path.split('/').length === 2) continue;
      // What has many tests has them in several files: name.aspect.test.ts.
      const mirrored = path.replace(/^test/, 'src').replace(/(\.\w+)?\.test\.ts$/, '.ts');
      expect(existsSync(join(root, mirrored)), `${path} tests ${mirrored}`).toBe(true);
    }
  });

  it('every component is registered, tested and exported', async () => {
    // What needs a package of its own has an entry of its own.
    const entryOf = (type: string) => (type === 'kafka' ? 'src/kafka.ts' : 'src/index.ts');
    for (const [kind, table] of Object.entries<object>({ ...builtIn })) {
      for (const type of Object.keys(table)) {
        const folder = { source: 'sources', channel: 'operators/channels', sink: 'sinks' }[kind]!;
        const file = type.replaceAll('_', '-');
        expect(existsSync(join(root, `src/${folder}/${file}.ts`)), `src/${folder}/${file}.ts`).toBe(true);
        expect(existsSync(join(root, `test/${folder}/${file}.test.ts`)), `test/${folder}/${file}.test.ts`).toBe(true);
        expect(text(entryOf(type)), `${kind} ${type} in ${entryOf(type)}`).toContain(`/${folder}/${file}.ts'`);
      }
    }
  });

  it('importing the library loads no agent, no logger and no optional peer', () => {
    const reached = new Set<string>();
    const follow = (path: string): void => {
      if (reached.has(path)) return;
      reached.add(path);
      imports(path).forEach(follow);
    };
    follow('src/index.ts');
    const heavy = [
      'pino',
      'pino-pretty',
      'commander',
      'fast-check',
      'kafkajs',
      '@platformatic/kafka',
      'snappy',
      'lz4-napi',
      '@mongodb-js/zstd',
    ];
    for (const path of reached)
      expect(
        packages(path).filter(name => heavy.includes(name)),
        path,
      ).toEqual([]);
    expect([...reached].filter(path => layerOf(path) === 'agent')).toEqual([]);
  });
});
