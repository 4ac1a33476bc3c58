/**
 * A log file that is tailed into another file: the lines, the configuration, and how it is measured. W1 and W2 do this.
 *
 * Rate: from the first byte in the output to the last, polled from outside; lines that were there at the first look do
 * not count. So no contestant pays for starting, and every one of them pays for warming up. The output
 * is then compared with the input byte for byte; a difference fails the run. CPU is over the same time, of the
 * contestant's process alone.
 *
 * @module
 */
import { closeSync, mkdirSync, openSync, readSync, readdirSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuOf, peakRssOf } from './proc.ts';
import type { Running } from './processes.ts';
import type { Run, Sample } from './workload.ts';

/** Bytes per line, newline included. */
export const LINE = 180;
export const NEWLINE = 10;

/** That many of them, to be filled by {@link number}. */
export const makeLines = (lines: number): Buffer => {
  const block = Buffer.alloc(lines * LINE, 'The quick brown fox jumps over the lazy dog. ');
  for (let i = 1; i <= lines; i++) block[i * LINE - 1] = NEWLINE;
  return block;
};

/** Every line of the block begins with its number. */
export const number = (block: Buffer, first: number): void => {
  for (let i = 0; i * LINE < block.length; i++) block.write(String(first + i).padStart(12, '0'), i * LINE, 'latin1');
};

/** Makes `<dir>/input.log`. */
export const makeInput = (dir: string, lines: number): void => {
  const perWrite = 5_000;
  const block = makeLines(perWrite);
  mkdirSync(dir);
  const out = openSync(join(dir, 'input.log'), 'w');
  for (let line = 0; line < lines; line += perWrite) {
    number(block, line);
    writeSync(out, block);
  }
  closeSync(out);
};

const sameBytes = (a: string, b: string): boolean => {
  const [left, right] = [Buffer.allocUnsafe(1 << 20), Buffer.allocUnsafe(1 << 20)];
  const [fa, fb] = [openSync(a, 'r'), openSync(b, 'r')];
  try {
    for (;;) {
      const size = readSync(fa, left);
      if (readSync(fb, right) !== size || left.compare(right, 0, size, 0, size) !== 0) return false;
      if (size === 0) return true;
    }
  } finally {
    closeSync(fa);
    closeSync(fb);
  }
};

/** A `file_roll` sink for an agent's file: one output file in `<dir>/out`. */
export const fileRoll = (dir: string, batchSize: number): string => `
a1.sinks.k1.type = file_roll
a1.sinks.k1.sink.directory = ${dir}/out
a1.sinks.k1.sink.rollInterval = 0
a1.sinks.k1.sink.batchSize = ${batchSize}
a1.sinks.k1.channel = c1`;

/** What a contestant that is a program of its own is told in a file. Real Flume and millrace read the same text. */
export const conf = (
  input: string,
  { dir }: Pick<Run, 'dir'>,
  batchSize: number,
  channel: string,
  sink = fileRoll(dir, batchSize),
): string => `
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = TAILDIR
a1.sources.r1.filegroups = f1
a1.sources.r1.filegroups.f1 = ${input}/.*\\\\.log
a1.sources.r1.positionFile = ${dir}/position.json
a1.sources.r1.batchSize = ${batchSize}
a1.sources.r1.channels = c1
${channel}
${sink}
`;

/** A file channel for an agent's file. */
export const fileChannel = (dir: string, capacity = 1_000_000): string => `
a1.channels.c1.type = file
a1.channels.c1.checkpointDir = ${dir}/checkpoint
a1.channels.c1.dataDirs = ${dir}/data
a1.channels.c1.capacity = ${capacity}
a1.channels.c1.transactionCapacity = 10000`;

/** In ms. Looking every millisecond takes 7 % of a core from the contestant, and five are half a percent of the shortest run. */
const pollInterval = 5;

/** Looks until the files of a folder have `enough` bytes together; says how many they have. */
export const grown = async (dir: string, enough: number, running: Running, timeout: number): Promise<number> => {
  const gaveUp: { why?: string } = {};
  void running.exited.then(() => (gaveUp.why = 'and it ended'));
  const until = performance.now() + timeout;
  for (;;) {
    const size = readdirSync(dir).reduce((sum, name) => sum + statSync(join(dir, name)).size, 0);
    if (size >= enough) return size;
    if (performance.now() > until) gaveUp.why ??= 'in time';
    if (gaveUp.why !== undefined)
      throw new Error(`${size / LINE} of ${enough / LINE} lines ${gaveUp.why}: ${running.output()}`);
    await sleep(pollInterval);
  }
};

/** The one file in a folder that has something in it. */
export const onlyFile = (dir: string): string => {
  const files = readdirSync(dir).filter(name => statSync(join(dir, name)).size > 0);
  if (files.length !== 1) throw new Error(`the output should be one file, and is: ${files.join(', ')}`);
  return join(dir, files[0]!);
};

/** Watches the output grow to the size of `<input>/input.log`, and measures on the way. */
export const measured = async (
  run: Run,
  input: string,
  begin: (out: string, input: string) => Promise<Running> | Running,
): Promise<Sample> => {
  const out = join(run.dir, 'out');
  mkdirSync(out);
  const total = statSync(join(input, 'input.log')).size;
  const running = await begin(out, input);
  try {
    const first = await grown(out, 1, running, 30_000);
    const [began, cpuBefore] = [performance.now(), cpuOf(running.pid)];
    await grown(out, total, running, 120_000);
    const seconds = (performance.now() - began) / 1000;
    const sample = {
      rate: (total - first) / LINE / seconds,
      cpu: cpuOf(running.pid) - cpuBefore,
      rss: peakRssOf(running.pid),
    };
    // Nothing may come twice either: let it go on for a moment.
    await sleep(50);
    if (!sameBytes(join(input, 'input.log'), onlyFile(out))) throw new Error('the output differs from the input');
    return sample;
  } finally {
    await running.stop();
  }
};
