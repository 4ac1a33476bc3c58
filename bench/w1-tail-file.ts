/**
 * W1: a log file of 3 M lines of 180 bytes (newline included, numbered) is tailed → memory channel (100 k events, transactions of
 * 10 k) → file_roll in one file, batches of 1000.
 *
 * What its rate is: see tail-file.ts.
 *
 * @module
 */
import { openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { agent } from './agent.ts';
import type { ChildMain } from './child.ts';
import { flume, flumeMissing } from './flume.ts';
import { startChild, type Running } from './processes.ts';
import { conf, makeInput, measured, NEWLINE } from './tail-file.ts';
import { cpuSeconds, peakRss, rate, type Run, type Workload } from './workload.ts';

const CHUNK = 256 * 1024;

const memory = `
a1.channels.c1.type = memory
a1.channels.c1.capacity = 100000
a1.channels.c1.transactionCapacity = 10000`;

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

const into = (run: Run, begin: (out: string, input: string) => Promise<Running> | Running) =>
  measured(run, join(run.shared, 'logs'), begin);

export default {
  name: 'w1-tail-file',
  title: 'W1: tail a file → memory channel (100 k / 10 k) → file_roll, batch 1000, lines of 180 bytes',
  definition:
    'Lines per second from the first byte in the output to the last; the output is compared with the input. CPU over the same time.',
  columns: [rate('lines/s'), peakRss, cpuSeconds],
  baselines: ['real Flume 1.11', 'bare Node loop', 'bare Node loop, one object per line'],
  prepare: async shared => makeInput(join(shared, 'logs'), 3_000_000),
  contestants: [
    {
      name: 'bare Node loop',
      run: run => into(run, (out, input) => startChild('w1-tail-file', 'bare', { input, out })),
    },
    {
      name: 'bare Node loop, one object per line',
      run: run => into(run, (out, input) => startChild('w1-tail-file', 'bareObjects', { input, out })),
    },
    {
      name: 'real Flume 1.11',
      missing: flumeMissing,
      run: run => into(run, (_, input) => flume({ conf: conf(input, run, 1000, memory) })),
    },
    {
      name: 'millrace, library',
      run: run =>
        into(run, (out, input) =>
          startChild('w1-tail-file', 'library', { input, out, position: join(run.dir, 'position.json') }),
        ),
    },
    {
      name: 'millrace, agent',
      run: run => into(run, (_, input) => agent({ conf: conf(input, run, 1000, memory), dir: run.dir })),
    },
  ],
} satisfies Workload;
