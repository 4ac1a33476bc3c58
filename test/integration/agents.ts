/**
 * Agents beside each other: the same configuration run by real Flume 1.11 and by millrace, as it was built.
 *
 * @module
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { flume } from '../../bench/flume.ts';
import { start, type Running } from '../../bench/processes.ts';

const root = resolve(import.meta.dirname, '../..');
/** For the files of a test. */
export const folder = mkdtempSync(join(tmpdir(), 'beside-flume-'));
export const removeFolder = (): void => rmSync(folder, { recursive: true, force: true });

export const until = async (what: string, holds: () => boolean | Promise<boolean>, timeout = 90_000): Promise<void> => {
  const late = AbortSignal.timeout(timeout);
  while (!(await Promise.resolve(holds()).catch(() => false))) {
    if (late.aborted) throw new Error(`waited too long until ${what}`);
    await new Promise(next => setTimeout(next, 20));
  }
};

interface LaunchOptions {
  /** With Flume's components for Kafka, which are many more jars. */
  readonly kafka?: boolean;
}

const agents = {
  flume: async (conf: string, { kafka = false }: LaunchOptions): Promise<Running> => {
    const agent = await flume({ conf, kafka });
    await agent.ready;
    return agent;
  },
  millrace: (conf: string): Promise<Running> => {
    const file = join(mkdtempSync(join(folder, 'conf-')), 'flume.conf');
    writeFileSync(file, conf);
    return Promise.resolve(
      start(process.execPath, [join(root, 'dist/cli.js'), 'agent', '-n', 'a1', '-f', file], { cwd: folder }),
    );
  },
};
export type Agent = keyof typeof agents;
export const both = Object.keys(agents) as Agent[];

const running = new Set<Running>();

/** Starts an agent. It runs until it or all are stopped. */
export const launch = async (agent: Agent, conf: string, options: LaunchOptions = {}): Promise<Running> => {
  const one = await agents[agent](conf, options);
  running.add(one);
  void one.exited.then(() => running.delete(one));
  return one;
};

export const stopAll = (): Promise<unknown> => Promise.all([...running].map(one => one.stop()));

export const listens = (port: number): Promise<void> =>
  until(`port ${port} listens`, async () => {
    const socket = connect(port, '127.0.0.1');
    const [event] = await Promise.race([
      once(socket, 'connect').then(() => ['connect']),
      once(socket, 'error').then(() => ['error']),
    ]);
    socket.destroy();
    return event === 'connect';
  });

/**
 * The configuration of agent a1: each part by its section and name, as in `'sources r1'`, with what is set there, a line each.
 */
export const configuration = (parts: Readonly<Record<string, string>>): string => {
  const sections = new Map<string, string[]>();
  const lines: string[] = [];
  for (const [part, text] of Object.entries(parts)) {
    const [section = '', name = ''] = part.split(' ');
    sections.set(section, [...(sections.get(section) ?? []), name]);
    for (const line of text.split('\n').map(one => one.trim()))
      if (line !== '') lines.push(`a1.${section}.${name}.${line}`);
  }
  return [...[...sections].map(([section, names]) => `a1.${section} = ${names.join(' ')}`), ...lines, ''].join('\n');
};
