/**
 * W7: 2,000 and 20,000 files of 1 KB (8 lines) that nobody writes to any more are tailed → memory channel → null. When
 * the sink has them all, and 5 seconds later, the process is watched for two minutes (5 seconds with `--quick`): files are looked
 * through once in 600 times as long as that takes, V8 makes its heap smaller once, and a short window may have that in it or not.
 *
 * CPU is in percent of one core, open descriptors and resident memory are those at the end. Flume and our agent read the same
 * text. Flume keeps every file open for two minutes, so that it runs only where `ulimit -n` lets it; elsewhere its row is empty.
 *
 * @module
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { agent } from './agent.ts';
import { flume, flumeMissing, taken, type FlumeMetrics } from './flume.ts';
import { cpuOf, descriptorsOf, rssOf } from './proc.ts';
import type { Running } from './processes.ts';
import { column, type Run, type Sample, type Workload } from './workload.ts';

const LINES = 8;
const SETTLING = 5;
const sizes = new Map([
  ['2,000 files', 2_000],
  ['20,000 files', 20_000],
]);

/** For so many seconds. */
const watched = 120;

const conf = ({ shared, dir, case: size }: Run): string => `
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = TAILDIR
a1.sources.r1.filegroups = f1
a1.sources.r1.filegroups.f1 = ${join(shared, String(sizes.get(size)))}/.*\\\\.log
a1.sources.r1.positionFile = ${dir}/position.json
a1.sources.r1.batchSize = 1000
a1.sources.r1.channels = c1
a1.channels.c1.type = memory
a1.channels.c1.capacity = 100000
a1.channels.c1.transactionCapacity = 10000
a1.sinks.k1.type = null
a1.sinks.k1.batchSize = 1000
a1.sinks.k1.channel = c1
`;

const measured = async (
  run: Run,
  running: Running & { readonly metrics: () => Promise<FlumeMetrics> },
): Promise<Sample> => {
  try {
    await taken(running.metrics, sizes.get(run.case)! * LINES);
    await sleep(SETTLING * 1000);
    const [began, before] = [performance.now(), cpuOf(running.pid)];
    await sleep(1000 * (run.quick ? 5 : watched));
    const cpu = (cpuOf(running.pid) - before) / ((performance.now() - began) / 1000);
    return { cpu: 100 * cpu, open: descriptorsOf(running.pid), rss: rssOf(running.pid) };
  } finally {
    await running.stop();
  }
};

/** Whether a process may have that many files open at a time. Node asks for as many as it may have, and its children inherit that. */
const mayOpen = (files: number): boolean => {
  const limit = spawnSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).stdout.trim();
  return limit === 'unlimited' || Number(limit) > files;
};

const realFlume = async (run: Run): Promise<Sample> =>
  mayOpen(sizes.get(run.case)! + 500) ? measured(run, await flume({ conf: conf(run) })) : {};

export default {
  name: 'w7-idle-files',
  title: 'W7: files that were read to their end and are quiet, 1 KB each',
  definition:
    'CPU in percent of one core, over the time that nothing happens. Descriptors and memory at its end. Real Flume keeps every file open and needs a larger `ulimit -n` where its row is empty.',
  columns: [column('cpu', 'CPU, %', 2), column('open', 'open descriptors'), column('rss', 'RSS, MB')],
  cases: [...sizes.keys()],
  baselines: [],
  rounds: 1,
  prepare: async shared => {
    const text = `${'x'.repeat(127)}\n`.repeat(LINES);
    for (const files of sizes.values()) {
      const dir = join(shared, String(files));
      mkdirSync(dir);
      // No two alike: a copy of a file that was read would be known as one.
      for (let i = 0; i < files; i++) writeFileSync(join(dir, `${i}.log`), `${i}${text.slice(String(i).length)}`);
    }
  },
  contestants: [
    { name: 'real Flume 1.11', missing: flumeMissing, run: realFlume },
    { name: 'millrace, agent', run: async run => measured(run, await agent({ conf: conf(run), dir: run.dir })) },
  ],
} satisfies Workload;
