/**
 * `npm run bench [-- names…] [--quick]`: runs the workloads and prints one Markdown table for each. README.md says how to read them.
 *
 * @module
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { cpus, loadavg, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { cpuOfFamily, cpuOfMachine } from './proc.ts';
import { benchDir, compiledDir } from './processes.ts';
import type { Contestant, Run, Sample, Workload } from './workload.ts';

const note = (text: string) => process.stderr.write(`${text}\n`);
const names = [
  'w1-tail-file',
  'w2-file-channel',
  'w2-http-group-commit',
  'w3-netcat',
  'kernel',
  'w5-kafka',
  'w5-kafka-flow',
  'kafka-encoding',
  'w6-latency',
  'w7-idle-files',
  'w8-restart',
  'w9-stuck-sink',
  'http',
];
/** Above this share of the machine, what others do shows in the numbers. */
const BUSY = 0.1;
/** How often a run is tried for a quiet one. */
const TRIES = 3;

const median = (values: readonly number[]): number => {
  const sorted = values.filter(value => !Number.isNaN(value)).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
};

const machine = (): string => {
  const [cpu] = cpus();
  const java = /version "([^"]+)"/.exec(spawnSync('java', ['-version'], { encoding: 'utf8' }).stderr)?.[1] ?? 'none';
  return [
    `${cpu?.model ?? 'unknown CPU'}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GB`,
    `${process.platform} ${release()}`,
    `Node ${process.version}`,
    `Java ${java}`,
    new Date().toISOString().slice(0, 16).replace('T', ' '),
  ].join(' · ');
};

/** Compiles src/ and bench/, so that what is measured is what a user runs. */
const compile = (): void => {
  const tsc = join(benchDir, '..', 'node_modules', 'typescript', 'bin', 'tsc');
  // Types are `npm run check`'s business.
  execFileSync(process.execPath, [tsc, '-p', benchDir, '--noCheck'], { stdio: 'inherit' });
  copyFileSync(join(benchDir, '..', 'package.json'), join(compiledDir, 'package.json'));
};

/** Waits for the others on this machine to be quiet, but not for ever. */
const quiet = async (): Promise<void> => {
  for (let tries = 0; tries < 20; tries++) {
    const before = cpuOfMachine() - cpuOfFamily();
    await sleep(500);
    if ((cpuOfMachine() - cpuOfFamily() - before) / (0.5 * cpus().length) < BUSY) return;
  }
};

interface Series {
  readonly contestant: string;
  readonly case: string;
  readonly samples: Sample[];
  readonly failures: string[];
}

/** Runs it, and again if others were busy meanwhile; what counts is the quietest run, whatever its result. */
const quietest = async (
  contestant: Contestant,
  given: Omit<Run, 'dir'>,
  root: string,
  tries: number,
): Promise<Sample> => {
  let best: Sample | undefined;
  for (let i = 0; i < tries && (best === undefined || best['others']! > BUSY); i++) {
    await quiet();
    const dir = mkdtempSync(join(root, 'run-'));
    const [began, all, own] = [performance.now(), cpuOfMachine(), cpuOfFamily()];
    const sample = await contestant.run({ ...given, dir });
    rmSync(dir, { recursive: true, force: true });
    const available = ((performance.now() - began) / 1000) * cpus().length;
    const others = Math.max(0, (cpuOfMachine() - all - (cpuOfFamily() - own)) / available);
    if (best === undefined || others < best['others']!) best = { ...sample, others };
  }
  return best!;
};

const measure = async (workload: Workload, quick: boolean, root: string): Promise<Series[]> => {
  const shared = mkdtempSync(join(root, 'shared-'));
  await workload.prepare?.(shared);
  const contestants = workload.contestants.filter(({ name, missing }) => {
    const reason = missing?.();
    if (reason !== undefined) note(`SKIPPED ${workload.name}, ${name}: ${reason}`);
    return reason === undefined;
  });
  const cases = workload.cases ?? [''];
  const series = cases.flatMap(each =>
    contestants.map(({ name }): Series => ({ contestant: name, case: each, samples: [], failures: [] })),
  );
  const rounds = workload.rounds ?? (quick ? 3 : 5);
  for (let round = 0; round < rounds; round++) {
    for (const [c, each] of cases.entries()) {
      for (let i = 0; i < contestants.length; i++) {
        // Another one begins each round, so that nobody always comes after the same neighbour.
        const index = (i + round) % contestants.length;
        const contestant = contestants[index]!;
        const { samples, failures } = series[c * contestants.length + index]!;
        const title = [`${workload.name} ${round + 1}/${rounds}`, each, contestant.name].filter(Boolean).join(', ');
        try {
          const sample = await quietest(contestant, { shared, quick, case: each }, root, rounds === 1 ? 1 : TRIES);
          samples.push(sample);
          const { key, title: unit, show } = workload.columns[0]!;
          const busy = sample['others']! > BUSY ? ` (others used ${Math.round(sample['others']! * 100)} %)` : '';
          note(`${title}: ${show(sample[key]!)} ${unit}${busy}`);
        } catch (thrown) {
          const reason = (thrown as Error).message.replace(/\s+/g, ' ').slice(0, 400);
          failures.push(reason);
          note(`FAILED ${title}: ${reason}`);
        }
      }
    }
  }
  rmSync(shared, { recursive: true });
  return series;
};

const table = (workload: Workload, series: readonly Series[]): string => {
  const { columns, baselines, cases } = workload;
  const [main] = columns;
  const of = (samples: readonly Sample[], key: string) => samples.map(sample => sample[key] ?? NaN);
  const found = baselines.filter(name =>
    series.some(({ contestant, samples }) => contestant === name && samples.length > 0),
  );
  const rows = series.map(({ contestant, case: each, samples, failures }) => {
    const values = of(samples, main!.key);
    const spread = samples.length > 1 ? ` (${main!.show(Math.min(...values))}–${main!.show(Math.max(...values))})` : '';
    const cells = columns.map(({ key, show }, i) =>
      samples.length === 0 ? 'failed' : show(median(of(samples, key))) + (i === 0 ? spread : ''),
    );
    const ratios = found.map(name => {
      const other = series.find(one => one.contestant === name && one.case === each);
      const ratio = median(values) / median(of(other?.samples ?? [], main!.key));
      return Number.isNaN(ratio) ? '–' : `${ratio.toFixed(2)}×`;
    });
    const others = samples.length === 0 ? '–' : `${Math.round(Math.max(...of(samples, 'others')) * 100)} %`;
    const name = failures.length > 0 ? `${contestant} (${failures.length} failed)` : contestant;
    return [...(cases === undefined ? [] : [each]), name, ...cells, ...ratios, others];
  });
  const head = [
    ...(cases === undefined ? [] : ['case']),
    'contestant',
    ...columns.map(({ title }) => title),
    ...found.map(name => `× ${name}`),
    'others, worst',
  ];
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
};

const { values, positionals } = parseArgs({
  options: { quick: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const unknown = positionals.filter(name => !names.includes(name));
if (unknown.length > 0) {
  note(`No workload ${unknown.join(', ')}. There are: ${names.join(', ')}`);
  process.exit(2);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

const root = mkdtempSync(join(tmpdir(), 'millrace-bench-'));
process.on('exit', () => rmSync(root, { recursive: true, force: true }));

note(`Compiling. Load average before: ${loadavg()[0]!.toFixed(2)}.`);
compile();
console.log(`${machine()}${values.quick ? ' · --quick' : ''}\n`);
let failed = 0;
for (const name of positionals.length > 0 ? positionals : names) {
  const { default: workload } = (await import(`./${name}.ts`)) as { default: Workload };
  const series = await measure(workload, values.quick, root);
  const rounds = workload.rounds ?? (values.quick ? 3 : 5);
  const runs = rounds === 1 ? 'One run' : `Median of ${rounds} runs (lowest–highest)`;
  console.log(`### ${workload.title}\n\n${table(workload, series)}\n\n${runs}. ${workload.definition}\n`);
  for (const { missing, name: contestant } of workload.contestants) {
    const reason = missing?.();
    if (reason !== undefined) console.log(`**Skipped: ${contestant}** (${reason}).\n`);
  }
  for (const { contestant, case: each, failures } of series) {
    failed += failures.length;
    if (failures.length > 0)
      console.log(`**Failed: ${[contestant, each].filter(Boolean).join(', ')}**: ${failures[0]!}\n`);
  }
  if (series.some(({ samples }) => samples.some(({ others }) => others! > BUSY)))
    console.log(
      `**The machine was busy**: others used more than ${BUSY * 100} % of it in some runs. Do not quote these numbers.\n`,
    );
}
process.exitCode = failed > 0 ? 1 : 0;
