/**
 * Starting and stopping the processes of a run. None outlives the bench.
 *
 * @module
 */
import { fork, spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { on, once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export const benchDir = import.meta.dirname.replace(/[/\\]\.cache[/\\]js[/\\]bench$/, '');
/** The compiled form of src/ and bench/: what contestants run, so that none of them carries a loader. */
export const compiledDir = join(benchDir, '.cache', 'js');

const alive = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL');
});

/** A process that was started for a run. */
export interface Running {
  readonly pid: number;
  /** Resolves with the exit code, or null after a signal. */
  readonly exited: Promise<number | null>;
  /** The end of what it has written to stdout and stderr. */
  readonly output: () => string;
  /** Sends a signal, unless it has ended. */
  readonly signal: (name: NodeJS.Signals) => void;
  /** SIGTERM, and SIGKILL if that takes longer than `patience` ms. */
  readonly stop: (patience?: number) => Promise<void>;
}

const track = (child: ChildProcess): Running => {
  alive.add(child);
  let tail = '';
  const keep = (chunk: Buffer) => void (tail = (tail + chunk.toString()).slice(-8192));
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  const exited = new Promise<number | null>(resolve => {
    child.once('exit', code => {
      alive.delete(child);
      resolve(code);
    });
    child.once('error', cause => {
      alive.delete(child);
      keep(Buffer.from(String(cause)));
      resolve(-1);
    });
  });
  return {
    pid: child.pid ?? -1,
    exited,
    output: () => tail,
    signal: name => void child.kill(name),
    stop: async (patience = 30_000) => {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), patience);
      await exited;
      clearTimeout(timer);
    },
  };
};

/** Kills a process when we end in a way that runs no handlers: a shell that waits for the end of its input. */
const outliveNobody = (child: ChildProcess): void => {
  if (child.pid === undefined) return;
  const script = 'read -r ended || kill -9 "$1"';
  const guard = spawn('sh', ['-c', script, 'sh', String(child.pid)], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  for (const part of [guard, guard.stdin]) part.on('error', () => undefined);
  child.once('exit', () => guard.stdin.end('ended\n'));
};

/** Starts any program, apart from us: what a terminal sends, such as Ctrl-C, is for us alone. */
export const start = (command: string, args: readonly string[], options: { cwd?: string } = {}): Running => {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  outliveNobody(child);
  return track(child);
};

/** A child that runs one exported function of a compiled module; see child.ts. */
export interface Child extends Running {
  /** The next thing the function told. Throws if the child ends or takes longer than `timeout` ms. */
  told<T>(timeout?: number): Promise<T>;
  /** Lets the function go on, if it waits. */
  go(): void;
}

/** Starts `name(args, tell, go)` of `bench/<module>.ts` in a fresh Node. The child stays until it is stopped. */
export const startChild = (module: string, name: string, args: object = {}, nodeOptions: string[] = []): Child => {
  const child = fork(join(compiledDir, 'bench', 'child.js'), [module, name, JSON.stringify(args)], {
    execArgv: nodeOptions,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const running = track(child);
  const messages = on(child, 'message') as AsyncIterator<[unknown]>;
  const fail = (why: string) => Promise.reject(new Error(`${name} ${why}. ${running.output().trim()}`));
  const told = async (timeout: number): Promise<unknown> => {
    const next = await Promise.race([
      messages.next(),
      running.exited.then(() => fail('ended early')),
      sleep(timeout, undefined, { ref: false }).then(() => fail(`told nothing for ${timeout / 1000} s`)),
    ]);
    return (next as IteratorYieldResult<[unknown]>).value[0];
  };
  return {
    ...running,
    told: async <T>(timeout = 60_000) => (await told(timeout)) as T,
    go: () => void child.send('go'),
  };
};

/**
 * Makes what is not at `path` yet, in a folder of its own. It appears whole or not at all; whoever comes second keeps the first
 * one's. `make` is given the folder, and resolves to what is to be at `path`.
 */
export const madeOnce = async (path: string, make: (folder: string) => Promise<string>): Promise<void> => {
  if (existsSync(path)) return;
  await mkdir(dirname(path), { recursive: true });
  const folder = await mkdtemp(join(dirname(path), 'fetch-'));
  try {
    await rename(await make(folder), path).catch((cause: unknown) => {
      if (!existsSync(path)) throw cause;
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};

/** Test files that vitest runs at the same time: each has ports of its own. */
const lanes = 16;
const lane = Number(process.env['VITEST_POOL_ID'] ?? 0) % lanes;
const given = new Set<number>();

/**
 * A port on loopback that nobody listens on, and that nobody else is given. It is below those that the system gives to
 * whoever takes any: else somebody might have it before it is used. And a client that asks again and again for a server that
 * is down would in the end be given that port, and talk to itself.
 */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = 10_240 + lanes * randomInt(1360) + lane;
    if (given.has(port)) continue;
    const server = createServer().listen(port, '127.0.0.1');
    const free = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    server.close();
    if (!free) continue;
    given.add(port);
    await once(server, 'close');
    return port;
  }
};

/** Asks every `interval` ms until the answer is not undefined; gives up after `timeout` ms. An error counts as no answer. */
export const poll = async <T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
  { interval = 20, timeout = 60_000, until }: { interval?: number; timeout?: number; until?: Promise<unknown> } = {},
): Promise<T> => {
  const end = performance.now() + timeout;
  const yes = () => true as const;
  const ended = until?.then(yes, yes) ?? new Promise<never>(() => undefined);
  let trouble = '';
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (cause) {
      trouble = String(cause);
    }
    if (await Promise.race([ended, sleep(interval)])) throw new Error(`${what}: it ended.`);
    if (performance.now() > end) throw new Error(`${what}: not within ${timeout / 1000} s. ${trouble}`);
  }
};

/** Resolves when something listens there; gives up when `exited` settles first. */
export const listening = (port: number, exited: Promise<unknown>): Promise<true> =>
  poll<true>(
    `nothing listens on port ${port}`,
    async () => {
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      socket.destroy();
      return true as const;
    },
    { timeout: 20_000, until: exited },
  );
