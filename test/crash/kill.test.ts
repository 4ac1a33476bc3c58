/**
 * Real processes that are killed at random moments: while they start, run, and drain. `KILLS` says how often (default 50 of
 * each kind), `KILL_SEED` replays the moments as far as a machine lets one.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  watch,
} from 'node:fs';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { seededRandom } from '../../src/testing/index.ts';
import { bundle } from '../bundle.ts';
import type { Orders } from './kill-child.ts';

const kills = Number(process.env['KILLS'] ?? 50);
const seed = Number(process.env['KILL_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** What the sink writes at once, at most; so much comes twice after a kill that meets a write before its ack. */
const oneWrite = 1024 * 1024;
/** Lines per write of a file, so that a long run does not have too many. */
const mostLines = Math.min(60, 3000 / kills);
const timeout = 60_000 + kills * 8000;

let root: string;
let program: string;
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'millrace-kill-'));
  program = await bundle(join(import.meta.dirname, 'kill-child.ts'));
});
afterAll(() => {
  for (const folder of [root, dirname(program)]) rmSync(folder, { recursive: true, force: true });
});

type Killed = 'starting' | 'running' | 'draining';

class Life {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  /** Resolves to the port when it is up; to undefined when it ended before that. */
  readonly ready: Promise<number | undefined>;
  readonly ended: Promise<number | null>;
  isReady = false;
  over = false;
  /** It was told of events that were in the output already. */
  known = false;
  broken: string | undefined;

  constructor(orders: Orders) {
    this.#child = spawn(process.execPath, [program, JSON.stringify(orders)], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdin.on('error', () => undefined);
    this.ended = once(this.#child, 'exit').then(([code]) => code as number | null);
    this.ready = new Promise(ready => {
      void this.ended.then(() => {
        this.over = true;
        ready(undefined);
      });
      let text = '';
      this.#child.stdout.setEncoding('utf8').on('data', (some: string) => {
        text += some;
        const port = /^ready (\d+)$/m.exec(text)?.[1];
        this.known ||= /^known$/m.test(text);
        this.broken = /^broken .*$/m.exec(text)?.[0];
        if (port === undefined || this.isReady) return;
        this.isReady = true;
        ready(Number(port));
      });
    });
  }

  stop(): void {
    this.#child.stdin.write('stop\n');
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
    expect(this.broken).toBeUndefined();
  }
}

/** Gives a life something to do until it ends. */
type Load = (life: Life, port: number) => Promise<void>;

interface Seen {
  readonly killed: Record<Killed, number>;
  /** Lives that were told of events that were in the output already. */
  known: number;
  /** A segment of the channel was full. */
  rolled: boolean;
  milliseconds: number;
}

/** The sink writes something, or has nothing to write. */
const written = ({ directory, exactlyOnce }: Omit<Orders, 'life'>): Promise<void> =>
  new Promise(resolve => {
    const watcher = watch(join(directory, 'out', exactlyOnce ? '.exactly-once' : ''));
    const done = () => {
      clearTimeout(timer);
      watcher.close();
      resolve();
    };
    const timer = setTimeout(done, 200);
    watcher.on('change', done).on('error', done);
  });

/** A run that did not meet all of this proves little. It goes on then. */
const enough = ({ killed, rolled, known }: Seen, { exactlyOnce }: Omit<Orders, 'life'>): boolean =>
  Object.values(killed).every(times => times > 0) && rolled && (known > 0 || !exactlyOnce);

/** Kills it as often as wanted, or until it has met what it is for, and lets the last life come to its end. */
const killed = async (
  orders: Omit<Orders, 'life'>,
  random: () => number,
  load: Load,
  done: () => boolean | Promise<boolean>,
  met: () => boolean = () => true,
): Promise<Seen> => {
  for (const name of ['in', 'out', 'out/.exactly-once']) mkdirSync(join(orders.directory, name), { recursive: true });
  const seen: Seen = { killed: { starting: 0, running: 0, draining: 0 }, known: 0, rolled: false, milliseconds: 0 };
  const began = performance.now();
  let startTime = 100;
  let life = 0;
  for (; life < kills || (life < 4 * kills && !(enough(seen, orders) && met())); life++) {
    const born = performance.now();
    const child = new Life({ ...orders, life });
    const when = random();
    if (when < 0.2) {
      await Promise.race([wait(random() * 1.1 * startTime), child.ready]);
      if (!child.isReady) seen.killed.starting++;
    } else {
      const port = await child.ready;
      startTime = performance.now() - born;
      if (port === undefined) throw new Error(`life ${life} did not start: ${child.broken}`);
      const loading = load(child, port);
      // A machine that is slow to start it is slow to run it.
      await wait(random() * 0.6 * startTime);
      // Half of them just when something was written: between that and its ack.
      if (when < 0.6) await written(orders);
      if (when > 0.8) {
        child.stop();
        await Promise.race([wait(random() * 0.1 * startTime), child.ended]);
        if (!child.over) seen.killed.draining++;
      } else seen.killed.running++;
      await child.kill();
      await loading;
    }
    await child.kill();
    if (child.known) seen.known++;
    const channel = join(orders.directory, 'channel');
    seen.rolled ||= existsSync(channel) && readdirSync(channel).some(name => /^0*[1-9]\d*\.seg/.test(name));
  }
  const last = new Life({ ...orders, life });
  await last.ready;
  while (!(await done())) await wait(20);
  last.stop();
  expect(await last.ended, last.broken).toBe(0);
  expect(enough(seen, orders), JSON.stringify(seen)).toBe(true);
  seen.milliseconds = Math.round(performance.now() - began);
  return seen;
};

/** The output in order, life by life. Names are `<milliseconds of the opening>-<n>`. */
const textsOf = (directory: string): string[] => {
  const out = join(directory, 'out');
  const number = (name: string) => name.split('-').map(Number) as [number, number];
  const names = readdirSync(out).filter(name => /^\d+-\d+$/.test(name));
  names.sort((a, b) => number(a)[0] - number(b)[0] || number(a)[1] - number(b)[1]);
  const lives = new Map<number, string>();
  for (const name of names) {
    const [opening] = number(name);
    lives.set(opening, (lives.get(opening) ?? '') + readFileSync(join(out, name), 'utf8'));
  }
  return [...lives.values()];
};

/** What a kill has left of a line is not followed by another one in its file, and does not count. */
const outputsOf = (directory: string): string[][] => textsOf(directory).map(text => text.split('\n').slice(0, -1));

const outputOf = (directory: string): string[] => outputsOf(directory).flat();

/** A line as it was sent, and the stamp that it got when it was put into the channel. */
const parted = (line: string): { readonly sent: string; readonly stamp: number } => {
  const at = line.lastIndexOf(' ');
  const [life, count] = line
    .slice(at + 1)
    .split('.')
    .map(Number);
  return { sent: line.slice(0, at), stamp: life! * 1e8 + count! };
};

/** Appends lines to files, sometimes half of one, as long as a life goes on. Rotates some of them. */
class Writer {
  readonly files: readonly string[];
  /** All that were written. Each begins with its file. */
  readonly lines: string[] = [];
  readonly #directory: string;
  readonly #random: () => number;
  readonly #halves = new Map<string, string>();
  readonly #rotations: boolean;
  /** Which file of this name it is, as its lines say. */
  readonly #generation = new Map<string, number>();

  constructor(directory: string, files: readonly string[], rotations: boolean, random: () => number) {
    this.files = files;
    this.#directory = join(directory, 'in');
    this.#random = random;
    this.#rotations = rotations;
  }

  readonly load: Load = async life => {
    while (!life.over) {
      for (const file of this.files) this.#append(file);
      await wait(2);
    }
  };

  /** Writes what is left of lines. */
  end(): void {
    for (const file of this.files) this.#write(file, '');
  }

  #append(file: string): void {
    if (this.#rotations && this.#random() < 0.002) {
      this.#write(file, '');
      this.#generation.set(file, this.lines.length);
      renameSync(join(this.#directory, file), join(this.#directory, `${file}.${this.lines.length}`));
    }
    let text = '';
    for (let i = Math.floor(this.#random() * mostLines); i >= 0; i--) {
      const line = `${file}${this.#generation.get(file) ?? 0} ${this.lines.length} ${'x'.repeat(Math.floor(this.#random() * 80))}`;
      this.lines.push(line);
      text += `${line}\n`;
    }
    const half = Math.floor(this.#random() * 20);
    this.#write(file, text.slice(0, text.length - half));
    this.#halves.set(file, text.slice(text.length - half));
  }

  #write(file: string, text: string): void {
    appendFileSync(join(this.#directory, file), (this.#halves.get(file) ?? '') + text);
    this.#halves.delete(file);
  }
}

const fresh = (name: string) => {
  const directory = join(root, name);
  mkdirSync(directory);
  return directory;
};

/** Lines that are in the output twice though they were put once, and the most bytes of them that one kill has brought back. */
const writtenTwice = (directory: string) => {
  const seen = new Set<number>();
  let [lines, mostBytes] = [0, 0];
  for (const life of outputsOf(directory)) {
    let bytes = 0;
    for (const line of life) {
      const { stamp } = parted(line);
      if (seen.has(stamp)) {
        lines++;
        bytes += line.length + 1;
      }
      seen.add(stamp);
    }
    mostBytes = Math.max(mostBytes, bytes);
  }
  return { lines, mostBytes };
};

const report = (name: string, seen: Seen, more: object): void =>
  console.log(`${name}: KILLS=${kills} KILL_SEED=${seed} ${JSON.stringify({ ...seen, ...more })}`);

describe(`SIGKILL (KILL_SEED=${seed})`, () => {
  const tail = async (name: string, files: readonly string[], exactlyOnce: boolean) => {
    const random = seededRandom(seed);
    const directory = fresh(name);
    const writer = new Writer(directory, files, files.length > 1, random);
    let ending = false;
    const all = () => {
      if (!ending) writer.end();
      ending = true;
      const lines = new Set(outputOf(directory).map(line => parted(line).sent));
      return lines.size >= writer.lines.length;
    };
    // A kill has met a write that was not acked: then its lines are there twice, unless that must not be.
    const met = () => exactlyOnce || writtenTwice(directory).lines > 0;
    const seen = await killed({ source: 'tail', directory, exactlyOnce }, random, writer.load, all, met);
    const output = outputOf(directory).map(parted);
    const firsts = [...new Set(output.map(({ sent }) => sent))];
    return { directory, seen, output, firsts, sent: writer.lines, twice: writtenTwice(directory) };
  };
  const byFile = (lines: readonly string[]) => {
    const files: Record<string, string[]> = {};
    for (const line of lines) (files[line.slice(0, line.indexOf(' '))] ??= []).push(line);
    return files;
  };

  test.concurrent(
    'tail → file channel → file_roll: nothing is lost, per file in order, and little comes twice',
    async () => {
      const { seen, output, firsts, sent, twice } = await tail('plain', ['a', 'b', 'c'], false);
      report('plain', seen, {
        lines: sent.length,
        putTwice: output.length - firsts.length - twice.lines,
        writtenTwice: twice,
      });
      expect(twice.lines, 'a kill has met a write that was not acked').toBeGreaterThan(0);
      // Positions are written every 3 s; what the channel has is not put again all the same.
      expect(output.length - firsts.length).toBe(twice.lines);
      expect(twice.mostBytes).toBeLessThanOrEqual(oneWrite);
      expect(byFile(firsts)).toEqual(byFile(sent));
      if (kills >= 50) expect(Object.keys(byFile(sent)).length, 'rotations').toBeGreaterThan(3);
    },
    timeout,
  );

  test.concurrent(
    'tail → file channel → file_roll with exactlyOnce: every line is there once, in order',
    async () => {
      const { directory, seen, output, sent, twice } = await tail('exact', ['a'], true);
      report('exactly once', seen, { lines: sent.length });
      expect(twice.lines).toBe(0);
      expect(textsOf(directory).filter(text => !/(^|\n)$/.test(text))).toEqual([]);
      const inOrder = output.map(({ stamp }) => stamp);
      expect(inOrder).toEqual(inOrder.toSorted((a, b) => a - b));
      expect(output.map(line => line.sent)).toEqual(sent);
    },
    timeout,
  );

  test.concurrent(
    'netcat → file channel → file_roll with exactlyOnce: what got its OK is there, nothing is twice, in order',
    async () => {
      const random = seededRandom(seed + 1);
      const directory = fresh('netcat');
      const acknowledged: number[] = [];
      let number = 0;
      const load: Load = async (life, port) => {
        const socket = connect(port, '127.0.0.1').setEncoding('utf8');
        const sent: number[] = [];
        const closed = new Promise(resolve => socket.on('close', resolve).on('error', () => undefined));
        socket.on('data', (replies: string) => {
          for (let at = replies.indexOf('OK'); at >= 0; at = replies.indexOf('OK', at + 2))
            acknowledged.push(sent.shift()!);
        });
        while (!life.over && !socket.destroyed) {
          let text = '';
          for (let i = 0; i < 20; i++) {
            sent.push(number);
            text += `${number++}\n`;
          }
          socket.write(text);
          await wait(1);
        }
        await closed;
      };
      const there = () => new Set(outputOf(directory).map(line => Number(parted(line).sent)));
      const all = () => {
        const lines = there();
        return acknowledged.every(one => lines.has(one));
      };
      const seen = await killed({ source: 'netcat', directory, exactlyOnce: true }, random, load, all);
      const output = outputOf(directory).map(line => Number(parted(line).sent));
      report('netcat', seen, { sent: number, acknowledged: acknowledged.length, there: output.length });
      expect(acknowledged.length).toBeGreaterThan(0);
      const lines = there();
      expect(acknowledged.filter(one => !lines.has(one))).toEqual([]);
      // Nothing was sent twice, so that nothing is there twice.
      expect(output).toEqual([...lines].sort((a, b) => a - b));
    },
    timeout,
  );

  test.concurrent(
    'http → file channel → file_roll: what got its 200 is there',
    async () => {
      const random = seededRandom(seed + 2);
      const directory = fresh('http');
      const acknowledged: number[] = [];
      let number = 0;
      const post = (port: number, agent: Agent, first: number): Promise<void> =>
        new Promise(over => {
          const body = Array.from({ length: 5 }, (_, i) => ({ headers: {}, body: String(first + i) }));
          const asked = request({ port, agent, method: 'POST', headers: { 'content-type': 'application/json' } });
          asked.on('response', answer => {
            answer.resume();
            if (answer.statusCode === 200) for (let i = 0; i < 5; i++) acknowledged.push(first + i);
          });
          asked.on('error', () => undefined);
          asked.on('close', over);
          asked.end(JSON.stringify(body));
        });
      const load: Load = async (life, port) => {
        const agent = new Agent({ keepAlive: true });
        const poster = async () => {
          while (!life.over) {
            number += 5;
            await post(port, agent, number - 5);
          }
        };
        await Promise.all(Array.from({ length: 8 }, poster));
        agent.destroy();
      };
      const there = () => new Set(outputOf(directory).map(line => Number(parted(line).sent)));
      const all = () => {
        const lines = there();
        return acknowledged.every(one => lines.has(one));
      };
      const seen = await killed({ source: 'http', directory, exactlyOnce: false }, random, load, all);
      const output = outputOf(directory).map(parted);
      const twice = writtenTwice(directory);
      report('http', seen, { sent: number, acknowledged: acknowledged.length, writtenTwice: twice });
      expect(acknowledged.length).toBeGreaterThan(0);
      const lines = there();
      expect(acknowledged.filter(one => !lines.has(one))).toEqual([]);
      expect(output.length - twice.lines, 'put twice').toBe(lines.size);
    },
    timeout,
  );
});
