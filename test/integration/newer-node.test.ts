/** What the oldest Node.js that is supported does not have, with one that has it: zstd, in files and in the crash laboratory. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newerNode } from '../../bench/newer-node.ts';
import { systemDisk } from '../../src/core/disk.ts';
import { Codec } from '../../src/log/codec.ts';
import { EventLog } from '../../src/log/log.ts';
import { LogReader } from '../../src/log/reader.ts';
import { systemClock } from '../../src/core/clock.ts';
import { bundle } from '../bundle.ts';
import { describeReal } from '../real.ts';

const version = '24.21.0';
const node = newerNode(version);
const root = join(import.meta.dirname, '..', '..');

let dir: string;
beforeAll(() => (dir = mkdtempSync(join(tmpdir(), 'millrace-newer-'))));
afterAll(() => rmSync(dir, { recursive: true }));

interface Results {
  readonly testResults: readonly {
    readonly assertionResults: readonly {
      readonly title: string;
      readonly status: string;
      readonly failureMessages: string[];
    }[];
  }[];
}

(await describeReal(`Node.js ${version}`, undefined, () => node.fetch()))(`Node.js ${version}`, () => {
  test.each([
    ['test/log', 'with zstd'],
    ['test/crash/log-crash.test.ts', 'there were 10,000 images, and everything that can happen was seen'],
    ['test/operators/channels/file.test.ts', 'zstd'],
  ])(
    'passes %s',
    async (files, one) => {
      const results = join(dir, 'results.json');
      // Not of this run: neither its worker's settings, nor that nothing may be skipped.
      const env = Object.fromEntries(
        Object.entries(process.env).filter(([name]) => !/^(CI|VITEST.*|NODE_OPTIONS|CRASH_.*)$/.test(name)),
      );
      const args = [
        join(root, 'node_modules/vitest/vitest.mjs'),
        'run',
        files,
        '--reporter=json',
        `--outputFile=${results}`,
      ];
      // That some have failed is in the results.
      await promisify(execFile)(node.program, args, { cwd: root, env, maxBuffer: 2 ** 26 }).catch(() => undefined);
      const { testResults } = JSON.parse(readFileSync(results, 'utf8')) as Results;
      const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
      expect(tests.filter(({ status }) => status === 'failed')).toEqual([]);
      const passed = tests.filter(({ status }) => status === 'passed');
      expect(passed.length).toBeGreaterThan(10);
      expect(passed.filter(({ title }) => title.includes(one)).length, one).toBeGreaterThan(0);
    },
    600_000,
  );

  test('writes with zstd what an older one refuses to read, and can read again', async () => {
    const child = await bundle(join(import.meta.dirname, 'zstd-child.ts'));
    const channel = join(dir, 'channel');
    const run = async (what: string) =>
      (await promisify(execFile)(node.program, [child, channel, what], { timeout: 60_000 })).stdout.trim();
    expect(await run('write')).toBe('1000');
    if (!('zstdCompress' in (await import('node:zlib')))) {
      const options = {
        dataDirs: [channel],
        checkpointDir: channel,
        fsync: 'commit',
        maxFileSize: 2 ** 26,
        minimumRequiredSpace: 0,
        checkpointInterval: 1000,
      } as const;
      const codec = new Codec({ compression: 'none', activeKey: undefined, keys: {} });
      const log = await EventLog.open(
        { ...options, codec },
        {
          disk: systemDisk,
          clock: systemClock,
          report: problem => {
            throw problem;
          },
        },
      );
      const reader = new LogReader(log, systemDisk);
      await expect(reader.read(1000)).rejects.toMatchObject({
        code: 'MR_CONFIG',
        message: expect.stringContaining('22.15') as string,
      });
      expect([log.events, log.counters.LostEventCount]).toEqual([1000, 0]);
      await reader.close();
      await log.close();
    }
    expect(await run('read')).toBe('1000');
    rmSync(dirname(child), { recursive: true });
  });
});
