/**
 * W2: as W1, through the file channel: 3 M lines of 180 bytes are tailed → file channel (1 M events, transactions of 10 k,
 * each commit synced to the disk) → file_roll in one file, batches of 1000 and of 100.
 *
 * What the rate is: see tail-file.ts. Real Flume gets 300 k lines, or it would take most of a minute for each run. `dd` writes the same 3 M lines to the same file
 * system, a megabyte at a time, each synced before the next; its rate is what it says itself. It has no output beside
 * that, no position, and nobody reads what it writes.
 *
 * Written: bytes that the disk was given besides the output, per byte of the input, the file system's journal included.
 * It is the disk's own count, after all was synced, and so also has what others write there meanwhile.
 *
 * @module
 */
import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { agent } from './agent.ts';
import type { ChildMain } from './child.ts';
import { flume, flumeMissing } from './flume.ts';
import { diskBytes } from './proc.ts';
import { start, startChild, type Running } from './processes.ts';
import { conf, fileChannel, LINE, makeInput, measured } from './tail-file.ts';
import { column, cpuSeconds, peakRss, rate, type Run, type Sample, type Workload } from './workload.ts';

const batchOf = (run: Run): number => Number(run.case.replace('batch ', ''));
const long = ({ shared }: Run): string => join(shared, 'long');
const short = ({ shared }: Run): string => join(shared, 'short');

/** Adds what was written; `output` of it are not the channel's. */
const written = async (run: Run, input: string, output: 0 | 1, measure: () => Promise<Sample>): Promise<Sample> => {
  const before = diskBytes(run.dir);
  const sample = await measure();
  return { ...sample, written: (diskBytes(run.dir) - before) / statSync(join(input, 'input.log')).size - output };
};

const dd = async (run: Run): Promise<Sample> => {
  const input = join(long(run), 'input.log');
  const running = start('env', ['LC_ALL=C', 'dd', `if=${input}`, `of=${join(run.dir, 'out')}`, 'bs=1M', 'oflag=dsync']);
  const code = await running.exited;
  const seconds = Number(/copied, ([\d.e+-]+) s/.exec(running.output())?.[1] ?? NaN);
  if (code !== 0 || Number.isNaN(seconds)) throw new Error(`dd ended with ${code}: ${running.output()}`);
  return { rate: statSync(input).size / LINE / seconds };
};

const through = (run: Run, input: string, begin: (out: string) => Promise<Running> | Running): Promise<Sample> =>
  written(run, input, 1, () => measured(run, input, begin));

interface Flow {
  readonly input: string;
  readonly out: string;
  readonly dir: string;
  readonly batchSize: number;
}

/** The flow as a library user writes it. */
export const library: ChildMain<Flow> = async ({ input, out, dir, batchSize }) => {
  const { run, taildirSource, fileChannel, fileRollSink } = await import('../src/index.ts');
  run(
    taildirSource({ filegroups: { f1: `${input}/.*\\.log` }, positionFile: join(dir, 'position.json'), batchSize }),
    fileChannel({ dir: join(dir, 'channel') }),
    fileRollSink({ directory: out, rollInterval: 0, batchSize }),
  );
};

export default {
  name: 'w2-file-channel',
  title: 'W2: tail a file → file channel (1 M / 10 k, a sync per commit) → file_roll, lines of 180 bytes',
  definition:
    'Lines per second from the first byte in the output to the last; the output is compared with the input. CPU over the same time. ' +
    'Real Flume gets 300 k lines, the others 3 M. Written: bytes to the disk besides the output, per byte of the input.',
  columns: [rate('lines/s'), peakRss, cpuSeconds, column('written', 'written, × the input', 2)],
  cases: ['batch 1000', 'batch 100'],
  baselines: ['real Flume 1.11', 'dd, synced megabytes'],
  prepare: async shared => {
    makeInput(join(shared, 'long'), 3_000_000);
    makeInput(join(shared, 'short'), 300_000);
  },
  contestants: [
    {
      name: 'dd, synced megabytes',
      missing: () =>
        spawnSync('dd', ['if=/dev/null', 'of=/dev/null', 'oflag=dsync']).status === 0 ? undefined : 'it needs GNU dd',
      run: run => written(run, long(run), 0, () => dd(run)),
    },
    {
      name: 'real Flume 1.11',
      missing: flumeMissing,
      run: run =>
        through(run, short(run), () => flume({ conf: conf(short(run), run, batchOf(run), fileChannel(run.dir)) })),
    },
    {
      name: 'millrace, library',
      run: run =>
        through(run, long(run), out =>
          startChild('w2-file-channel', 'library', { input: long(run), out, dir: run.dir, batchSize: batchOf(run) }),
        ),
    },
    {
      name: 'millrace, agent',
      run: run =>
        through(run, long(run), () =>
          agent({ conf: conf(long(run), run, batchOf(run), fileChannel(run.dir)), dir: run.dir }),
        ),
    },
  ],
} satisfies Workload;
