import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { freePort, start, type Running } from '../../bench/processes.ts';

const cli = join(import.meta.dirname, '../../dist/cli.js');

/** Flume's keys, and `FLOW.<channels>` with the ledger. */
export type Metrics = Readonly<Record<string, Readonly<Record<string, string>>>>;

export interface AgentOptions {
  /** `edge-1`: the agent `edge` of edge.conf. */
  readonly name: string;
  /** What the configuration calls `${sys:…}`. `dir` is its folder. */
  readonly system: Readonly<Record<string, string>> & { readonly dir: string };
  /** Called when it has ended without being told to; it starts again when that has resolved. */
  readonly died: (how: string) => Promise<void>;
}

export interface Agent {
  readonly name: string;
  readonly dir: string;
  readonly pid: () => number | undefined;
  /** Undefined while it does not answer. */
  readonly metrics: () => Promise<Metrics | undefined>;
  readonly stop: () => Promise<void>;
}

/** Runs an agent as anybody would, and again whenever it dies. */
export const startAgent = async ({ name, system, died }: AgentOptions): Promise<Agent> => {
  const [kind] = name.split('-') as [string];
  for (const folder of ['logs', 'files']) mkdirSync(join(system.dir, folder), { recursive: true });
  const port = await freePort();
  const words = ['-n', kind, '-f', join(import.meta.dirname, `${kind}.conf`), '--http-port', String(port)];
  for (const [key, value] of Object.entries(system)) words.push(`-D${key}=${value}`);
  const log = join(system.dir, 'agent.log');
  let running: Running | undefined;
  let stopped = false;
  const wanted = () => !stopped;
  const run = async (): Promise<void> => {
    while (wanted()) {
      running = start('sh', ['-c', 'exec "$@" >> "$0" 2>&1', log, process.execPath, cli, 'agent', ...words]);
      const code = await running.exited;
      running = undefined;
      if (wanted()) await died(code === null ? 'was killed' : `ended with ${code}, see ${log}`);
    }
  };
  const ended = run();
  return {
    name,
    dir: system.dir,
    pid: () => running?.pid,
    metrics: async () => {
      try {
        return (await (
          await fetch(`http://127.0.0.1:${port}/metrics`, { signal: AbortSignal.timeout(2000) })
        ).json()) as Metrics;
      } catch {
        return undefined;
      }
    },
    async stop() {
      stopped = true;
      await running?.stop(40_000);
      await ended;
    },
  };
};

/** How many events the file channel of an agent holds that does not run. */
export const heldBy = ({ dir }: Agent): number => {
  const words = [
    'channel',
    'inspect',
    '--format',
    'json',
    '--checkpoint-dir',
    join(dir, 'checkpoint'),
    join(dir, 'data'),
  ];
  const { stdout } = spawnSync(process.execPath, [cli, ...words], { encoding: 'utf8' });
  return (JSON.parse(stdout) as { held: { events: number } }).held.events;
};
