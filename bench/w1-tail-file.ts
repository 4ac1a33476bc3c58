/**
 * W1: a log file of 3 M lines of 180 bytes (newline included, numbered) is tailed → memory channel (100 k events, transactions of
 * 10 k) → file_roll in one file, batches of 1000.
 *
 * Rate: from the first byte in the output to the last, polled every millisecond from outside; lines that were there at
 * the first look do not count. So no contestant pays for starting, and every one of them pays for warming up. The output
 * is then compared with the input byte for byte; a difference fails the run. CPU is over the same time, of the
 * contestant's process alone.
 *
 * @module
 */
import { closeSync, mkdirSync, openSync, readSync, readdirSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { agent } from './agent.ts';
import type { ChildMain } from './child.ts';
import { flume, flumeMissing } from './flume.ts';
import { cpuOf, peakRssOf } from './proc.ts';
import { startChild, type Running } from './processes.ts';
import { cpuSeconds, peakRss, rate, type Run, type Sample, type Workload } from './workload.ts';

const LINE = 180;
const LINES = 3_000_000;
const CHUNK = 256 * 1024;
const NEWLINE = 10;

const makeInput = (file: string): void => {
  const perWrite = 5_000;
  const block = Buffer.alloc(perWrite * LINE, 'The quick brown fox jumps over the lazy dog. ');
  for (let i = 1; i <= perWrite; i++) block[i * LINE - 1] = NEWLINE;
  const out = openSync(file, 'w');
  for (let line = 0; line < LINES; line += perWrite) {
    for (let i = 0; i < perWrite; i++) block.write(String(line + i).padStart(12, '0'), i * LINE, 'latin1');
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

/** What a contestant that is a program of its own is told in a file. Real Flume and millrace read the same text. */
const conf = (input: string, { dir }: Run): string => `
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = TAILDIR
a1.sources.r1.filegroups = f1
a1.sources.r1.filegroups.f1 = ${input}/.*\\\\.log
a1.sources.r1.positionFile = ${dir}/position.json
a1.sources.r1.batchSize = 1000
a1.sources.r1.channels = c1
a1.channels.c1.type = memory
a1.channels.c1.capacity = 100000
a1.channels.c1.transactionCapacity = 10000
a1.sinks.k1.type = file_roll
a1.sinks.k1.sink.directory = ${dir}/out
a1.sinks.k1.sink.rollInterval = 0
a1.sinks.k1.sink.batchSize = 1000
a1.sinks.k1.channel = c1
`;

/** Watches the output grow to the size of the input, and measures on the way. */
const measured = async (
  run: Run,
  begin: (out: string, input: string) => Promise<Running> | Running,
): Promise<Sample> => {
  const out = join(run.dir, 'out');
  mkdirSync(out);
  const total = LINES * LINE;
  const size = () => readdirSync(out).reduce((sum, name) => sum + statSync(join(out, name)).size, 0);
  const running = await begin(out, join(run.shared, 'logs'));
  try {
    let over = false;
    void running.exited.then(() => (over = true));
    const wait = async (enough: number, timeout: number): Promise<number> => {
      const until = performance.now() + timeout;
      for (;;) {
        const now = size();
        if (now >= enough) return now;
        if (over || performance.now() > until)
          throw new Error(`${now / LINE} of ${LINES} lines ${over ? 'and it ended' : 'in time'}: ${running.output()}`);
        await sleep(1);
      }
    };
    const first = await wait(1, 30_000);
    const [began, cpuBefore] = [performance.now(), cpuOf(running.pid)];
    await wait(total, 120_000);
    const seconds = (performance.now() - began) / 1000;
    const sample = {
      rate: (total - first) / LINE / seconds,
      cpu: cpuOf(running.pid) - cpuBefore,
      rss: peakRssOf(running.pid),
    };
    // Nothing may come twice either: let it go on for a moment.
    await sleep(50);
    const files = readdirSync(out).filter(name => statSync(join(out, name)).size > 0);
    if (files.length !== 1 || !sameBytes(join(run.shared, 'logs', 'input.log'), join(out, files[0]!)))
      throw new Error(`the output (${files.join(', ')}) differs from the input`);
    return sample;
  } finally {
    await running.stop();
  }
};

interface Paths {
  readonly input: string;
  readonly out: string;
}

/** A ceiling: read, find the newlines, write. Nothing is kept, nothing is allocated in the loop. */
export const bare: ChildMain<Paths> = ({ input, out }) => {
  const from = openSync(join(input, 'input.log'), 'r');
  const to = openSync(join(out, 'output.log'), 'w');
  const chunk = Buffer.allocUnsafe(CHUNK);
  let carried = 0;
  let lines = 0;
  for (;;) {
    const size = readSync(from, chunk, carried, CHUNK - carried, null) + carried;
    if (size === carried) break;
    const read = chunk.subarray(0, size);
    let end = 0;
    for (let at = read.indexOf(NEWLINE); at !== -1; at = read.indexOf(NEWLINE, end)) {
      end = at + 1;
      lines++;
    }
    writeSync(to, read, 0, end);
    read.copyWithin(0, end);
    carried = size - end;
  }
  if (lines === 0) throw new Error('no lines');
};

/** The same with one object and one view per line, in batches of 1000, each written as the slice it came from. */
export const bareObjects: ChildMain<Paths> = ({ input, out }) => {
  const from = openSync(join(input, 'input.log'), 'r');
  const to = openSync(join(out, 'output.log'), 'w');
  const headers = Object.freeze({});
  let rest: Buffer = Buffer.alloc(0);
  for (;;) {
    const chunk = Buffer.allocUnsafeSlow(CHUNK);
    rest.copy(chunk);
    const size = readSync(from, chunk, rest.length, CHUNK - rest.length, null) + rest.length;
    if (size === rest.length) break;
    const read = chunk.subarray(0, size);
    let end = 0;
    let batch: { headers: object; body: Buffer }[] = [];
    const write = () => {
      const [first, last] = [batch[0]!.body, batch.at(-1)!.body];
      writeSync(to, chunk, first.byteOffset, last.byteOffset + last.length + 1 - first.byteOffset);
      batch = [];
    };
    for (let at = read.indexOf(NEWLINE); at !== -1; at = read.indexOf(NEWLINE, end)) {
      batch.push({ headers, body: read.subarray(end, at) });
      end = at + 1;
      if (batch.length === 1000) write();
    }
    if (batch.length > 0) write();
    rest = read.subarray(end);
  }
};

/** The flow as a library user writes it. */
export const library: ChildMain<Paths & { readonly position: string }> = async ({ input, out, position }) => {
  const { run, taildirSource, memoryChannel, fileRollSink } = await import('../src/index.ts');
  run(
    taildirSource({ filegroups: { f1: `${input}/.*\\.log` }, positionFile: position, batchSize: 1000 }),
    memoryChannel({ capacity: 100_000, transactionCapacity: 10_000 }),
    fileRollSink({ directory: out, rollInterval: 0, batchSize: 1000 }),
  );
};

export default {
  name: 'w1-tail-file',
  title: 'W1: tail a file → memory channel (100 k / 10 k) → file_roll, batch 1000, lines of 180 bytes',
  definition:
    'Lines per second from the first byte in the output to the last; the output is compared with the input. CPU over the same time.',
  columns: [rate('lines/s'), peakRss, cpuSeconds],
  baselines: ['real Flume 1.11', 'bare Node loop', 'bare Node loop, one object per line'],
  prepare: async shared => {
    mkdirSync(join(shared, 'logs'));
    makeInput(join(shared, 'logs', 'input.log'));
  },
  contestants: [
    {
      name: 'bare Node loop',
      run: run => measured(run, (out, input) => startChild('w1-tail-file', 'bare', { input, out })),
    },
    {
      name: 'bare Node loop, one object per line',
      run: run => measured(run, (out, input) => startChild('w1-tail-file', 'bareObjects', { input, out })),
    },
    {
      name: 'real Flume 1.11',
      missing: flumeMissing,
      run: run => measured(run, (_, input) => flume({ conf: conf(input, run) })),
    },
    {
      name: 'millrace, library',
      run: run =>
        measured(run, (out, input) =>
          startChild('w1-tail-file', 'library', { input, out, position: join(run.dir, 'position.json') }),
        ),
    },
    {
      name: 'millrace, agent',
      run: run => measured(run, (_, input) => agent({ conf: conf(input, run), dir: run.dir })),
    },
  ],
} satisfies Workload;
