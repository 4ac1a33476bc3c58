/**
 * W6: a process of its own appends a line of 180 bytes to a file every 5 ms, each with the time of its write. The file is
 * tailed, through a memory channel or a file channel (a sync per commit), into a sink that looks at the clock when it
 * is given the line. 200 lines of warming up, then 1000 that count.
 *
 * Both ends read the monotonic clock, which is one for all processes of a Linux or macOS. The bare loop is `fs.watch` and a
 * read on every change: what the system and Node take of the time at least.
 *
 * @module
 */
import { closeSync, openSync, readSync, watch, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChildMain } from './child.ts';
import { peakRssOf } from './proc.ts';
import { startChild } from './processes.ts';
import { LINE } from './tail-file.ts';
import { column, peakRss, type Run, type Sample, type Workload } from './workload.ts';

const WARM_UP = 200;
const LINES = 1000;
const EVERY = 5;

/** Milliseconds on a clock that both ends have. */
const now = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

export const writer: ChildMain<{ file: string }> = async ({ file }, tell) => {
  const out = openSync(file, 'a');
  const begin = performance.now();
  for (let line = 1; line <= WARM_UP + LINES; line++) {
    writeSync(out, `${String(now()).padEnd(LINE - 1)}\n`);
    await sleep(Math.max(0, begin + line * EVERY - performance.now()));
  }
  closeSync(out);
  tell('all');
};

/** What a sink does with each line; tells how long they took when it has them all. */
const stopwatch = (tell: (message: unknown) => void) => {
  const took: number[] = [];
  return (line: Buffer): void => {
    took.push(now() - Number(line.toString('latin1', 0, 32)));
    if (took.length === WARM_UP + LINES) tell(took.slice(WARM_UP).sort((a, b) => a - b));
  };
};

interface Paths {
  readonly file: string;
  readonly dir: string;
}

/** A floor. */
export const bare: ChildMain<Paths> = ({ file }, tell) => {
  const arrived = stopwatch(tell);
  const from = openSync(file, 'r');
  const chunk = Buffer.alloc(LINE);
  watch(file, () => {
    while (readSync(from, chunk) === LINE) arrived(chunk);
  });
  tell('ready');
};

const millrace = async ({ file, dir }: Paths, tell: (message: unknown) => void, durable: boolean) => {
  const { createSink, fileChannel, memoryChannel, run, taildirSource } = await import('../src/index.ts');
  const arrived = stopwatch(tell);
  run(
    taildirSource({ filegroups: { f1: file }, positionFile: join(dir, 'position.json') }),
    durable ? fileChannel({ dir: join(dir, 'channel') }) : memoryChannel(),
    createSink(events => {
      for (const { body } of events) arrived(body);
    }),
  );
  tell('ready');
};

export const throughMemory: ChildMain<Paths> = (paths, tell) => millrace(paths, tell, false);
export const throughFile: ChildMain<Paths> = (paths, tell) => millrace(paths, tell, true);

const measured = async ({ dir }: Run, name: string): Promise<Sample> => {
  const file = join(dir, 'input.log');
  closeSync(openSync(file, 'w'));
  const running = startChild('w6-latency', name, { file, dir });
  try {
    await running.told();
    // The file is there, and empty; what is not watching by then begins with the warm-up.
    const appending = startChild('w6-latency', 'writer', { file });
    try {
      await appending.told();
      const took = await running.told<number[]>();
      const at = (share: number) => took[Math.floor(took.length * share)] ?? NaN;
      return { p50: at(0.5), p99: at(0.99), worst: took.at(-1) ?? NaN, rss: peakRssOf(running.pid) };
    } finally {
      await appending.stop();
    }
  } finally {
    await running.stop();
  }
};

const contestant = (name: string, child: string) => ({ name, run: (run: Run) => measured(run, child) });

export default {
  name: 'w6-latency',
  title: 'W6: from the append of a line to its arrival in the sink, a line every 5 ms',
  definition: '1000 lines after 200 of warming up; from before the write until the sink has the line.',
  columns: [column('p50', 'p50, ms', 2), column('p99', 'p99, ms', 2), column('worst', 'worst, ms', 1), peakRss],
  baselines: [],
  contestants: [
    contestant('bare fs.watch', 'bare'),
    contestant('millrace, memory channel', 'throughMemory'),
    contestant('millrace, file channel', 'throughFile'),
  ],
} satisfies Workload;
