/**
 * Our agent as a process, with a configuration that real Flume runs too. The counterpart of flume.ts.
 *
 * @module
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { FlumeMetrics } from './flume.ts';
import { compiledDir, freePort, start, type Running } from './processes.ts';

export interface Agent extends Running {
  readonly metrics: () => Promise<FlumeMetrics>;
}

/** Starts `millrace agent -n a1` with this text as its file. */
export const agent = async ({ conf, dir }: { readonly conf: string; readonly dir: string }): Promise<Agent> => {
  const file = join(dir, 'flume.conf');
  await writeFile(file, conf);
  const port = await freePort();
  const cli = join(compiledDir, 'src', 'cli.js');
  const running = start(process.execPath, [cli, 'agent', '-n', 'a1', '-f', file, '--http-port', String(port)]);
  const metrics = async () => (await (await fetch(`http://127.0.0.1:${port}/metrics`)).json()) as FlumeMetrics;
  return { ...running, metrics };
};
