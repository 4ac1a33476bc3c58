/**
 * W8: a file channel gets 3 M or 10 M events of 180 bytes while nobody takes any, and its process is killed (SIGKILL). Then a new process
 * begins with what is there: file channel → file_roll, batches of 1000.
 *
 * The first event: milliseconds from starting the process to the first byte in the output, looked for every
 * millisecond from outside; so the runtime's own start is in it. Rate: from there until everything is in the output; every
 * line is numbered, and must be there once and in order. Peak RSS is that of the new process until then.
 *
 * Real Flume holds 3 M only, which it gets from its own stress source, once: each run begins with a copy of these files. It
 * is stopped at its first event.
 *
 * @module
 */
import { cpSync, mkdirSync, openSync, readSync, closeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { agent } from './agent.ts';
import type { ChildMain } from './child.ts';
import { flume, flumeMissing } from './flume.ts';
import { peakRssOf } from './proc.ts';
import { poll, startChild, type Running } from './processes.ts';
import { fileChannel, fileRoll, grown, LINE, makeLines, number, onlyFile } from './tail-file.ts';
import { column, count, peakRss, type Run, type Sample, type Workload } from './workload.ts';

const BATCH = 1000;
const cases = new Map([
  ['3 M events', 3_000_000],
  ['10 M events', 10_000_000],
]);
const heldIn = (run: Run): number => cases.get(run.case)!;
const FLUME_HOLDS = 3_000_000;
const HEAP = ['-Xmx2g'];

const conf = (dir: string, capacity: number): string => `
a1.channels = c1
a1.sinks = k1
${fileChannel(dir, capacity)}
${fileRoll(dir, BATCH)}
`;

interface Held {
  readonly dir: string;
  readonly events: number;
}

const channelOptions = ({ dir, events }: Held) => ({
  checkpointDir: join(dir, 'checkpoint'),
  dataDirs: [join(dir, 'data')],
  capacity: events,
});

/** Fills the channel, and tells when all is safe. */
export const fill: ChildMain<Held> = async (held, tell) => {
  const { createSource, fileChannel } = await import('../src/index.ts');
  const channel = fileChannel.create(channelOptions(held));
  let made = 0;
  const makeBatch = () => {
    const lines = makeLines(BATCH);
    number(lines, made);
    made += BATCH;
    return Array.from({ length: BATCH }, (_, i) => ({
      headers: {},
      body: lines.subarray(i * LINE, (i + 1) * LINE - 1),
    }));
  };
  const source = createSource(emitter => ({
    pull: () => {
      if (made < held.events) emitter.emit(makeBatch());
    },
  }));
  source.subscribe(channel.input());
  while (channel.depth.events < held.events) await sleep(5);
  tell('full');
};

/** The flow as a library user writes it, but without a source. */
export const library: ChildMain<Held> = async held => {
  const { fileChannel, fileRollSink, run } = await import('../src/index.ts');
  const directory = join(held.dir, 'out');
  run(
    fileChannel.create(channelOptions(held)).output({ batchSize: BATCH }),
    fileRollSink({ directory, rollInterval: 0, batchSize: BATCH }),
  );
};

/** Every line once, in order. */
const checkLines = (file: string, lines: number): void => {
  const chunk = Buffer.alloc(LINE * 5000);
  const from = openSync(file, 'r');
  let line = 0;
  for (let size = readSync(from, chunk); size > 0; size = readSync(from, chunk))
    for (let at = 0; at < size; at += LINE, line++)
      if (Number(chunk.toString('latin1', at, at + 12)) !== line)
        throw new Error(`line ${line} of the output is another`);
  closeSync(from);
  if (line !== lines) throw new Error(`${line} lines in the output, not ${lines}`);
};

const killed = async (running: Running): Promise<void> => {
  process.kill(running.pid, 'SIGKILL');
  await running.exited;
};

/** Starts it, and sees what comes out until there are `lines`. */
const restarted = async (dir: string, begin: () => Promise<Running> | Running, lines: number): Promise<Sample> => {
  const out = join(dir, 'out');
  mkdirSync(out);
  const started = performance.now();
  const running = await begin();
  try {
    const there = await grown(out, 1, running, 180_000);
    const first = performance.now();
    await grown(out, lines * LINE, running, 120_000);
    const seconds = (performance.now() - first) / 1000;
    const rate = lines === 1 ? NaN : (lines - there / LINE) / seconds;
    return { first: first - started, rate, rss: peakRssOf(running.pid) };
  } finally {
    await running.stop();
  }
};

const millrace = async (run: Run, begin: (held: Held) => Promise<Running> | Running): Promise<Sample> => {
  const held = { dir: run.dir, events: heldIn(run) };
  const filling = startChild('w8-restart', 'fill', held);
  await filling.told(180_000);
  await killed(filling);
  const sample = await restarted(run.dir, () => begin(held), held.events);
  checkLines(onlyFile(join(run.dir, 'out')), held.events);
  return sample;
};

const fillFlume = async (dir: string): Promise<void> => {
  const filling = await flume({
    conf: `
a1.sources = r1
a1.channels = c1
a1.sources.r1.type = org.apache.flume.source.StressSource
a1.sources.r1.size = ${LINE - 1}
a1.sources.r1.batchSize = ${BATCH}
a1.sources.r1.maxTotalEvents = ${FLUME_HOLDS}
a1.sources.r1.channels = c1
${fileChannel(dir, FLUME_HOLDS)}
`,
    jvm: HEAP,
  });
  const put = async () => Number((await filling.metrics())['CHANNEL.c1']?.['EventPutSuccessCount']);
  const full = async () => ((await put()) >= FLUME_HOLDS ? true : undefined);
  await poll('real Flume did not fill its channel', full, { interval: 200, timeout: 300_000, until: filling.exited });
  await killed(filling);
};

const realFlume = async (run: Run): Promise<Sample> => {
  if (heldIn(run) > FLUME_HOLDS) return {};
  for (const name of ['checkpoint', 'data'])
    cpSync(join(run.shared, name), join(run.dir, name), { recursive: true, preserveTimestamps: true });
  return restarted(run.dir, () => flume({ conf: conf(run.dir, FLUME_HOLDS), jvm: HEAP }), 1);
};

export default {
  name: 'w8-restart',
  title: 'W8: a file channel after a SIGKILL, with events of 180 bytes held',
  definition:
    'From starting the process to the first byte in the output of its sink; lines per second and peak memory from then until all are out. Real Flume holds 3 M only and is stopped at the first.',
  columns: [column('first', 'first event, ms'), { key: 'rate', title: 'then lines/s', show: count }, peakRss],
  cases: [...cases.keys()],
  baselines: [],
  prepare: async shared => {
    if (flumeMissing() === undefined) await fillFlume(shared);
  },
  contestants: [
    { name: 'real Flume 1.11', missing: flumeMissing, run: realFlume },
    { name: 'millrace, library', run: run => millrace(run, held => startChild('w8-restart', 'library', held)) },
    {
      name: 'millrace, agent',
      run: run => millrace(run, ({ dir, events }) => agent({ conf: conf(dir, events), dir })),
    },
  ],
} satisfies Workload;
