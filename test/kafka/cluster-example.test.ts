import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { poll, start } from '../../bench/processes.ts';
import { built } from '../built.ts';
import { describeKafka } from './brokers.ts';

const root = resolve(import.meta.dirname, '../..');

describeKafka('the cluster example', () => {
  beforeAll(built);
  const dir = mkdtempSync(join(tmpdir(), 'cluster-example-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const linesIn = (agents: string, folder: string): string[] =>
    readdirSync(dir)
      .filter(name => name.startsWith(agents))
      .flatMap(name => readdirSync(join(dir, name, folder)).map(file => join(dir, name, folder, file)))
      .filter(path => !path.includes('/.'))
      .flatMap(path => readFileSync(path, 'latin1').split('\n').slice(0, -1));

  test('loses nothing when a broker, an edge agent and a collector are killed, and repeats no more than it says', async () => {
    const example = start(
      process.execPath,
      ['--import', 'tsx', 'examples/cluster/start.ts', '--rate', '500', '--dir', dir],
      { cwd: root },
    );
    const waitFor = <T>(what: string, ask: () => T | undefined) =>
      poll(what, ask, { timeout: 90_000, until: example.exited }).catch((thrown: unknown) => {
        throw new Error(`${String(thrown)}\n${example.output()}`);
      });
    /** The last table. */
    const shown = () => example.output().split('\n').slice(-14).join('\n');
    const pidOf = (name: string) => Number(new RegExp(`^${name} +(\\d+)`, 'm').exec(shown())?.[1]);
    const collected = () =>
      [...shown().matchAll(/^collector.* (\d+) accepted/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
    const moreLines = async () => {
      const before = collected();
      await waitFor('no more lines are collected', () => collected() > before + 2000 || undefined);
    };

    await waitFor('no lines are collected', () => collected() > 2000 || undefined);
    for (const name of ['broker-2', 'edge-1', 'collector-1']) {
      const pid = pidOf(name);
      process.kill(pid, 'SIGKILL');
      const told = `${name}: at most`;
      await waitFor('nobody says how much comes twice', () => example.output().includes(told) || undefined);
      await waitFor(`${name} is not there again`, () => (pidOf(name) > 0 && pidOf(name) !== pid) || undefined);
      await moreLines();
    }
    example.signal('SIGINT');
    expect(await example.exited, example.output()).toBe(0);

    const [, lost, duplicates, bound] = /lost +(\d+)\nduplicates +(\d+), of at most (\d+)/.exec(example.output())!;
    expect(Number(lost)).toBe(0);
    expect(Number(duplicates)).toBeLessThanOrEqual(Number(bound));
    const written = linesIn('edge', 'logs');
    const arrived = linesIn('collector', 'files');
    expect(written.length).toBeGreaterThan(5000);
    expect(new Set(arrived)).toEqual(new Set(written));
    expect(arrived.length - written.length).toBe(Number(duplicates));
  }, 300_000);
});
